//! The combined log line of NGINX and Apache httpd:
//! `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`, one record a line; what follows is ignored.
//!
//! * Its times have a resolution of one second and it has no request id: equal lines are different calls.
//! * `%u` may hold spaces: it ends where ` [time] "` follows. Quotes in a field are escaped by the server.
//! * A request line that isn't HTTP (`-`, the bytes of a TLS handshake) is a call of method `OTHER` and route `-`.
//! * There are no headers; a rule `query:NAME` reads the path's query, `user` reads `%u`.
//!
//! Limits: `limits.message_records`, as for JSON.

use keytide_config::{Source, Unit};

use super::Context;
use super::bytes::carried;
use super::canonical::{Canonical, Fault};
use super::message::{Ledger, Outer, Records};
use super::raw::{Name, RawEvent, Value};
use super::route::UNKNOWN;
use crate::time::clf;

/// Bytes of `17/May/2015:10:05:03 +0000`.
const TIME_BYTES: usize = 26;

/// Reads the lines of one source.
pub(super) struct CombinedRecords {
    canonical: Canonical,
}

impl CombinedRecords {
    pub(super) fn new(source: &Source, context: &Context) -> Self {
        Self { canonical: Canonical::new(source, [Unit::Clf, Unit::Clf, Unit::Micros], context) }
    }

    fn line(&mut self, line: &[u8], outer: Outer<'_>, id: Option<&str>, ledger: &mut Ledger<'_>) {
        match parse(&carried(line)) {
            Ok(raw) => ledger.enter(&mut self.canonical, &outer.completed(raw, id), line),
            Err(fault) => ledger.refuse(line, fault.to_string()),
        }
    }
}

impl Records for CombinedRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let first = ledger.records();
        let mut start = text.strip_prefix(b"\xEF\xBB\xBF").map_or(0, |rest| text.len() - rest.len());
        while start < text.len() {
            let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |newline| start + newline);
            let line = text[start..end].strip_suffix(b"\r").unwrap_or(&text[start..end]);
            if !line.is_empty() {
                if ledger.is_full() {
                    return ledger.beyond(&text[start..]);
                }
                let id = outer.request_id(ledger.records() - first);
                self.line(line, outer, id.as_deref(), ledger);
            }
            start = end + 1;
        }
        if ledger.records() == first {
            ledger.refuse(text, "empty message; expected a line of the combined log format".to_owned());
        }
    }
}

/// Splits a line into its fields.
fn parse(line: &str) -> Result<RawEvent<'_>, Fault> {
    const HOST: Fault =
        Fault::new("line", "must begin with host, identity and user, separated by single spaces");
    const TIME: Fault =
        Fault::new("line", "must have [dd/Mon/yyyy:hh:mm:ss +zzzz] before the quoted request");
    const REQUEST: Fault =
        Fault::new("line", "must have a quoted request, a status and a size behind the time");
    const QUOTED: Fault =
        Fault::new("line", "must have a quoted referer and a quoted user agent behind the size");

    let (host, rest) = line.split_once(' ').filter(|(host, _)| !host.is_empty()).ok_or(HOST)?;
    let (_, rest) = rest.split_once(' ').ok_or(HOST)?;
    let (user, time, rest) = split_time(rest).ok_or(TIME)?;
    let (request, rest) = quoted(rest).ok_or(REQUEST)?;
    let (status, rest) = rest.strip_prefix(' ').and_then(|rest| rest.split_once(' ')).ok_or(REQUEST)?;
    let (bytes_out, rest) = rest.split_once(' ').ok_or(QUOTED)?;
    let (_, rest) = quoted(rest).ok_or(QUOTED)?;
    let (user_agent, rest) = rest.strip_prefix(' ').and_then(quoted).ok_or(QUOTED)?;
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Err(QUOTED);
    }

    let mut raw = RawEvent::default();
    raw.set(Name::ClientIp, Value::Plain(host));
    raw.set(Name::User, log(user));
    raw.set(Name::Time, Value::Plain(time));
    raw.set(Name::Status, Value::Plain(status));
    raw.set(Name::BytesOut, Value::Plain(bytes_out));
    raw.set(Name::UserAgent, log(user_agent));
    match request_line(request) {
        Some((method, target)) => {
            raw.set(Name::Method, Value::Plain(method));
            // The target of CONNECT is a host, and any host at all.
            if method != "CONNECT" {
                raw.set(Name::Path, log(target));
            }
        }
        None => raw.set(Name::Method, Value::Plain("OTHER")),
    }
    Ok(raw)
}

/// User, time, and what follows the time's bracket and a space.
fn split_time(text: &str) -> Option<(&str, &str, &str)> {
    memchr::memmem::find_iter(text.as_bytes(), b" [").find_map(|at| {
        let (user, rest) = (&text[..at], &text[at + 2..]);
        let time = rest.get(..TIME_BYTES)?;
        let rest = rest[TIME_BYTES..].strip_prefix("] ")?;
        (rest.starts_with('"') && clf(time.as_bytes()).is_some()).then_some((user, time, rest))
    })
}

/// The inside of the quoted text at the start, escapes and all, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', inner.as_bytes().get(at..)?)?;
        if inner.as_bytes()[at] == b'"' {
            return Some((&inner[..at], &inner[at + 1..]));
        }
        at += 2;
    }
}

/// Method and target of `METHOD TARGET HTTP/1.1`; the target may hold spaces.
pub(super) fn request_line(request: &str) -> Option<(&str, &str)> {
    let (method, rest) = request.split_once(' ')?;
    let (target, version) = rest.rsplit_once(' ')?;
    let token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (token && version.starts_with("HTTP/") && target != UNKNOWN).then_some((method, target))
}

fn log(text: &str) -> Value<'_> {
    if text.contains('\\') { Value::Log(text) } else { Value::Plain(text) }
}
