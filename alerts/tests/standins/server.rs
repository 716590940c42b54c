//! A server for one request a connection, whose answers are a function's.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    /// The headers, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }
}

/// A server on a port of its own. It serves until the process ends.
pub(crate) struct Server {
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server. Where `answer` returns nothing, the connection is closed without an answer.
    pub(crate) fn start(mut answer: impl FnMut(Asked) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                // Clients that hang up are no error: they may be killed.
                let Some(asked) = read(&mut stream) else { continue };
                if let Some(answer) = answer(asked) {
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        });
        Self { port }
    }
}

/// Makes an answer with a JSON body.
pub(crate) fn answer(status: u16, body: &str) -> String {
    with_header(status, "", body)
}

/// Makes an answer that names an error as AWS does.
pub(crate) fn failure(status: u16, error: &str, body: &str) -> String {
    with_header(status, &format!("x-amzn-ErrorType: {error}\r\n"), body)
}

fn with_header(status: u16, header: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Whatever\r\n{header}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Reads a request up to the end of its body.
fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(seen[..end].to_vec()).ok()?;
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, length)| length.parse().unwrap());
        if seen.len() >= end + 4 + length {
            let body = String::from_utf8(seen[end + 4..end + 4 + length].to_vec()).ok()?;
            return Some(Asked { method, target, headers, body });
        }
    }
}
