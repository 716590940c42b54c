//! `keytide run` as a process: its log line by line, signals, and its end.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{path, repository};

/// How long a test waits for anything; a machine that is busy with others may need most of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);
/// How long a look at a condition waits for the next line of the log.
const NEXT_LOOK: Duration = Duration::from_millis(50);

/// Returns addresses of loopback whose ports are free. No other test gets them, and no connection: systems draw the ports
/// of these from 32,768 on.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    const PORTS: u32 = 20_000;
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    // Another process that runs tests begins elsewhere.
    let first = std::process::id().wrapping_mul(997);
    let draw = || {
        let port = 10_000 + first.wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        format!("127.0.0.1:{port}")
    };
    let is_free = |address: &String| TcpListener::bind(address).is_ok();
    std::iter::repeat_with(draw).filter(is_free).take(count).collect()
}

/// Returns the answer of a job to a request for a page, its head included.
pub(crate) fn get(address: &str, page: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A process that runs a live job. Dropping it kills it.
pub(crate) struct LiveProcess {
    child: Child,
    lines: Receiver<String>,
    log: RefCell<String>,
}

impl LiveProcess {
    /// Starts `keytide run` with a configuration, and with no other environment than `env`.
    pub(crate) fn start(config: &Path, env: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_keytide")).args(["run", path(config)]), env)
    }

    /// The same, with the settings of a process that a line of shell makes before.
    pub(crate) fn start_after(line: &str, config: &Path) -> Self {
        let script = format!("{line}; exec \"$@\"");
        let program = env!("CARGO_BIN_EXE_keytide");
        Self::spawn(Command::new("/bin/sh").args(["-c", &script, "sh", program, "run", path(config)]), &[])
    }

    fn spawn(command: &mut Command, env: &[(&str, &str)]) -> Self {
        let mut child = command
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(repository())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, log: RefCell::default() }
    }

    /// Returns the id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.add(&line);
        }
        self.log.borrow().clone()
    }

    fn add(&self, line: &str) {
        let mut log = self.log.borrow_mut();
        log.push_str(line);
        log.push('\n');
    }

    /// Looks after each line of the log, and now and then, until there is a value.
    ///
    /// # Errors
    /// If there is none when the process ends or the deadline is over: a message with the log.
    pub(crate) fn find<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            match self.lines.recv_timeout(NEXT_LOOK) {
                Ok(line) => self.add(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return look().ok_or_else(|| format!("{what}: the job ended before\n{}", self.log()));
                }
            }
            if started.elapsed() >= DEADLINE {
                return Err(format!("{what}: not within {DEADLINE:?}\n{}", self.log()));
            }
        }
    }

    /// Returns the address at which it serves metrics, once the log has it. One that began anew has another.
    pub(crate) fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.rsplit_once("serves http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    }

    /// Returns whether it leads the newest generation of its cluster of which its log knows.
    pub(crate) fn leads(&self) -> bool {
        let log = self.log();
        let place = |part: &str| log.rfind(part);
        let leads = place("leads the job");
        leads > place("follows in the job") && leads > place("begins anew: ")
    }

    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "{name}");
    }

    /// Limits the size of the files that it may write, in bytes, or as `unlimited`.
    pub(crate) fn limit_files(&self, limit: &str) {
        let arguments = [format!("--pid={}", self.child.id()), format!("--fsize={limit}:unlimited")];
        let status = Command::new("prlimit").args(arguments).status().expect("util-linux has prlimit");
        assert!(status.success(), "{limit}");
    }

    /// Waits until it ended; returns its exit code (none after a signal) and its log.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.add(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it doesn't end\n{}", self.log()),
            }
        }
        (self.child.wait().unwrap().code(), self.log())
    }

    /// Ends it by SIGTERM, expects exit code 0, and returns its log.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for LiveProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
