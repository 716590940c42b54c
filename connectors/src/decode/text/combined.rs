//! The combined log line of NGINX and Apache httpd, one record a line:
//! `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"`. Further fields are ignored.
//!
//! * Its times have a resolution of one second and it has no request id, so equal lines are different calls.
//! * `%u` may hold spaces: it ends where ` [time] "` follows. Quotes in a field are escaped by the server.
//! * A request line that isn't HTTP (`-`, the bytes of a TLS handshake) is a call of method `OTHER` and route `-`.
//! * A line whose quotes don't add up, as `escape=none` writes them, is read as a line of a pattern. Its uncertain
//!   fields are unknown.
//! * There are no headers; a rule `query:NAME` reads the path's query, `user` reads `%u`.

use keytide_config::{LinePattern, Source};

use super::pattern::Matcher;
use super::{EventField, Fault, FieldValue, RawEvent, log, quoted, set_request};
use crate::time::clf;

/// The length of a time, such as `17/May/2015:10:05:03 +0000`.
const TIME_BYTES: usize = 26;

/// Splits a line into its fields.
pub(super) fn read(line: &str) -> Result<RawEvent<'_>, Fault> {
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
    raw.set(EventField::ClientIp, FieldValue::Plain(host));
    raw.set(EventField::User, log(user));
    raw.set(EventField::Time, FieldValue::Plain(time));
    raw.set(EventField::Status, FieldValue::Plain(status));
    raw.set(EventField::BytesOut, FieldValue::Plain(bytes_out));
    raw.set(EventField::UserAgent, log(user_agent));
    set_request(&mut raw, request, log);
    Ok(raw)
}

/// Returns a matcher for lines of a server that doesn't escape.
pub(super) fn unescaped(source: &Source) -> Option<Matcher> {
    const PATTERN: &str = r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#;
    Some(Matcher::new(&LinePattern::parse(PATTERN).ok()?, source))
}

/// Returns whether a line has the time of a combined one, and ends as one.
pub(super) fn is_like(line: &str) -> bool {
    line.ends_with('"') && line.split_once(' ').is_some_and(|(_, rest)| split_time(rest).is_some())
}

/// Splits a text into user, time, and the rest behind the time's bracket and a space.
fn split_time(text: &str) -> Option<(&str, &str, &str)> {
    memchr::memmem::find_iter(text.as_bytes(), b" [").find_map(|at| {
        let (user, rest) = (&text[..at], &text[at + 2..]);
        let time = rest.get(..TIME_BYTES)?;
        let rest = rest[TIME_BYTES..].strip_prefix("] ")?;
        (rest.starts_with('"') && clf(time.as_bytes()).is_some()).then_some((user, time, rest))
    })
}
