//! A mail server and a webhook on this machine, which keep what they take.
//!
//! The mail server answers slowly, so that some mails wait and one is under way whenever the job dies. It keeps a mail
//! before it says so: a job that dies in between must send that mail again.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::oracle::{Channel, Taken};
use super::sender::Sent;
use crate::harness::DEADLINE;

/// Records that are sent before a mail is taken, about a quarter of a second.
const SLOWNESS: u64 = 75;

pub(super) struct Receiver {
    mails: TcpListener,
    requests: TcpListener,
    taken: Mutex<Vec<Taken>>,
    is_over: AtomicBool,
}

impl Receiver {
    pub(super) fn new() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self { mails: listen(), requests: listen(), taken: Mutex::default(), is_over: AtomicBool::new(false) }
    }

    /// Returns the section of the configuration that names both.
    pub(super) fn section(&self) -> String {
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (mails, requests) = (port(&self.mails), port(&self.requests));
        format!(
            "[alerts.email]\nserver = \"127.0.0.1:{mails}\"\ntls = \"none\"\nfrom = \"keytide@localhost\"\n\
             to = [\"ops@localhost\"]\nper_recipient = 10000\nper_hour = 100000\ndigest_after = 100000\n\
             [[alerts.webhook]]\nname = \"soc\"\nurl = \"http://127.0.0.1:{requests}/\"\nallow_private = [\"127.0.0.1\"]\n\
             secret = \"file:secret\"\n"
        )
    }

    /// Takes mails and requests until it is closed.
    pub(super) fn serve(&self, sent: &Sent) {
        thread::scope(|scope| {
            scope.spawn(|| self.listen(&self.mails, |stream| self.mail(stream, sent)));
            self.listen(&self.requests, |stream| self.request(stream));
        });
    }

    pub(super) fn close(&self) {
        self.is_over.store(true, Ordering::Release);
        for listener in [&self.mails, &self.requests] {
            drop(TcpStream::connect(listener.local_addr().unwrap()));
        }
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves each connection on a thread of its own, since that of a process that sleeps stays open.
    fn listen(&self, listener: &TcpListener, serve: impl Fn(TcpStream) -> io::Result<()> + Sync) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.is_over.load(Ordering::Acquire) {
                    break;
                }
                let serve = &serve;
                scope.spawn(move || {
                    let stream = stream.unwrap();
                    stream.set_read_timeout(Some(DEADLINE)).unwrap();
                    // A process that dies breaks its connection.
                    drop(serve(stream));
                });
            }
        });
    }

    fn take(&self, channel: Channel, id: &str, bytes: Vec<u8>) {
        let taken = Taken { channel, id: id.to_owned(), bytes };
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
    }

    fn mail(&self, mut stream: TcpStream, sent: &Sent) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        stream.write_all(b"220 test\r\n")?;
        let mut line = String::new();
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.starts_with("DATA") {
                stream.write_all(b"354 go on\r\n")?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    if lines.read_line(&mut mail)? == 0 {
                        return Ok(());
                    }
                }
                let id = mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap().to_owned();
                self.take(Channel::Mail, &id, mail.into_bytes());
                sent.wait(SLOWNESS);
            }
            let is_end = line.starts_with("QUIT");
            stream.write_all(if is_end { b"221 bye\r\n" } else { b"250 taken\r\n" })?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn request(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let (mut id, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("keytide-id") => value.clone_into(&mut id),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap();
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        self.take(Channel::Request, &id, body);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    }
}
