//! HAProxy's HTTP log, by `option httplog` or by `option httpslog`, which has more behind it. The head that syslog puts
//! before it may be missing:
//!
//! `client:port [accept_date] frontend backend/server TR/Tw/Tc/Tr/Ta status bytes cookie cookie flags a/f/b/s/r q/b
//! {request headers} {response headers} "request"`
//!
//! * Quotes and bytes beyond printable ASCII, and in captured headers braces and bars, are `#` and two digits.
//! * The time is when the request was accepted. Its zone is that of the host, which the source's `zone` names, by
//!   default UTC.
//! * The latency is `Ta`. A latency or a status of -1 is unknown. A `+` before numbers (`option logasap`) is passed
//!   over.
//! * A rule `field:/request_headers/0` reads the first captured header of the request, `field:/response_headers/0` of
//!   the answer, because the log has no names. If only one of the two groups is there, it is the request's.
//! * A long line may be cut off, within the request or a header before it. The fields that are there are read. If a key
//!   may be cut off, the call counts under `conflicting`.
//! * Lines of `option tcplog` are no calls, and dead letters.

use keytide_config::{KeyFrom, KeyRules, Unit, Zone};

use super::{EventField, Fault, FieldValue, RawEvent, log, request_line, set_request};
use crate::time::{Dates, parse};

/// The length of a time, such as `06/Feb/2009:12:14:14.655`.
const TIME_BYTES: usize = 24;

/// The places at which rules of `[keys].from` look.
#[derive(Default)]
pub(super) struct Captures {
    /// Each has the rule, true if it is a header of the request, and the header's index.
    headers: Vec<(u16, bool, usize)>,
    arguments: Vec<String>,
}

impl Captures {
    pub(super) fn new(keys: &KeyRules) -> Self {
        let capture = |(rule, from): (u16, &KeyFrom)| match from {
            KeyFrom::Field(at) => match at.0.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["request_headers", place] => Some((rule, true, place.parse().ok()?)),
                ["response_headers", place] => Some((rule, false, place.parse().ok()?)),
                _ => None,
            },
            _ => None,
        };
        let argument = |from: &KeyFrom| match from {
            KeyFrom::Query(name) => Some(name.clone()),
            _ => None,
        };
        Self {
            headers: (0..).zip(&keys.from).filter_map(capture).collect(),
            arguments: keys.from.iter().filter_map(argument).collect(),
        }
    }
}

/// Returns whether a line has the time of one of these logs.
pub(super) fn is_like(line: &str) -> bool {
    head(line).is_some()
}

/// Replaces HAProxy's `#HH` by `\xHH`.
pub(super) fn unescaped<'a>(line: &'a str, buffer: &'a mut String) -> &'a str {
    if !line.contains(['#', '\\']) {
        return line;
    }
    buffer.clear();
    let mut rest = line;
    while let Some(at) = rest.find(['#', '\\']) {
        buffer.push_str(&rest[..at]);
        let is_escape = rest.as_bytes()[at] == b'#'
            && rest
                .as_bytes()
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match (is_escape, rest.as_bytes()[at]) {
            (true, _) => buffer.push_str("\\x"),
            (false, b'\\') => buffer.push_str("\\\\"),
            (false, _) => buffer.push('#'),
        }
        rest = &rest[at + 1..];
    }
    buffer.push_str(rest);
    buffer
}

/// Splits a line into client and port, the time, and the rest behind it.
fn head(line: &str) -> Option<(&str, &str, &str)> {
    memchr::memmem::find_iter(line.as_bytes(), b" [").find_map(|at| {
        let time = line.get(at + 2..at + 2 + TIME_BYTES)?;
        let rest = line[at + 2 + TIME_BYTES..].strip_prefix("] ")?;
        let client = line[..at].rsplit_once(' ').map_or(&line[..at], |(_, client)| client);
        let is_time =
            time.contains('.') && parse(time.as_bytes(), &Zone::default(), Dates::Refused).is_some();
        is_time.then_some((client, time, rest))
    })
}

pub(super) fn read<'a>(line: &'a str, captures: &Captures) -> Result<RawEvent<'a>, Fault> {
    const HEAD: Fault = Fault::new(
        "line",
        "must have client:port [dd/Mon/yyyy:hh:mm:ss.mmm] behind what syslog puts before it",
    );
    const FIELDS: Fault = Fault::new(
        "line",
        "must be HAProxy's HTTP log: frontend, backend/server, five times, status and size behind the time",
    );
    let (client, time, rest) = head(line).ok_or(HEAD)?;
    let mut words = rest.splitn(11, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(FIELDS);
    let (_, backend, timers, status, bytes) = (word()?, word()?, word()?, word()?, word()?);
    let (_, _, _, connections, queues, rest) = (word()?, word()?, word()?, word()?, word()?, word()?);
    if timers.split('/').count() != 5 || connections.split('/').count() != 5 || queues.split('/').count() != 2
    {
        return Err(FIELDS);
    }
    let total = timers.rsplit_once('/').map_or(timers, |(_, total)| total);
    let (groups, request) = rest.split_at(rest.find('"').unwrap_or(rest.len()));
    // Quotes that a caller sent are escaped, so the request ends with the first quote, or with the line.
    let request = request.get(1..).unwrap_or_default();
    let (request, is_whole) =
        request.split_once('"').map_or((request, false), |(request, _)| (request, true));

    let mut raw = RawEvent::default();
    raw.set_time(FieldValue::Plain(time), Unit::Clf);
    raw.set(
        EventField::Api,
        FieldValue::Plain(backend.split_once('/').map_or(backend, |(backend, _)| backend)),
    );
    raw.set(EventField::ClientIp, FieldValue::Plain(client));
    raw.set_from(EventField::Latency, 0, FieldValue::Plain(unsigned(total)), Some(Unit::Millis));
    if status != "-1" {
        raw.set(EventField::Status, FieldValue::Plain(status));
    }
    raw.set(EventField::BytesOut, FieldValue::Plain(unsigned(bytes)));
    match request_line(request) {
        Some(_) => set_request(&mut raw, request, log),
        // A request that was cut off has no version, and `<BADREQ>` is no request at all.
        None => match request.split_once(' ').filter(|(_, target)| target.starts_with('/')) {
            Some((method, target)) => {
                raw.set(EventField::Method, FieldValue::Plain(method));
                raw.set(EventField::Path, log(target));
            }
            None if request.is_empty() => {}
            None => raw.set(EventField::Method, FieldValue::Plain("OTHER")),
        },
    }
    if !is_whole && captures.arguments.iter().any(|name| is_last_argument(request, name)) {
        raw.set_conflict(EventField::Key);
    }
    let mut groups = groups
        .split('{')
        .skip(1)
        .map(|group| group.split_once('}').map_or((group, false), |(group, _)| (group, true)));
    let captured = [groups.next().unwrap_or_default(), groups.next().unwrap_or_default()];
    for (rule, of_request, place) in &captures.headers {
        let (group, is_whole) = captured[usize::from(!of_request)];
        let mut headers = group.split('|').skip(*place);
        let Some(header) = headers.next() else { continue };
        if !is_whole && headers.next().is_none() && !header.is_empty() {
            raw.set_conflict(EventField::Key);
        }
        raw.set_key_value(*rule, log(header));
    }
    Ok(raw)
}

/// Returns whether `name` is the last argument of a target, which may be cut off.
fn is_last_argument(request: &str, name: &str) -> bool {
    let last = request.rsplit(['?', '&']).next().unwrap_or_default();
    last.split_once('=').is_some_and(|(of, _)| of == name)
}

fn unsigned(number: &str) -> &str {
    number.strip_prefix('+').unwrap_or(number)
}
