//! Access logs of AWS' Application Load Balancer, and those of its Classic Load Balancer, which lack the first field:
//!
//! `type time elb client:port target:port t1 t2 t3 status target_status received sent "request" "agent" ...`
//!
//! * Fields behind the agent are passed over, so that new fields at the end don't matter.
//! * The time is when the answer was sent. The latency is the sum of the three times, or unknown if one of them is -1.
//! * The trace id is no request id, because a caller may choose it. Equal lines are different calls.

use keytide_config::Unit;

use super::{EventField, Fault, FieldValue, RawEvent, Values, log, quoted, set_request};
use crate::decimal::Decimal;
use crate::time::rfc3339;

const TYPES: [&str; 6] = ["http", "https", "h2", "grpcs", "ws", "wss"];

/// Returns whether a line looks like one of these logs.
pub(super) fn is_like(line: &str) -> bool {
    let mut words = line.splitn(3, ' ');
    let time = |word: Option<&str>| word.is_some_and(|word| rfc3339(word.as_bytes()).is_some());
    match words.next() {
        Some(word) if TYPES.contains(&word) => time(words.next()),
        word => time(word),
    }
}

pub(super) fn read<'a>(line: &'a str, values: &'a mut Values) -> Result<RawEvent<'a>, Fault> {
    const FIELDS: Fault = Fault::new(
        "line",
        "must be one of an AWS load balancer: a type, a time, the balancer, client and target, three times, two \
         statuses and two sizes, separated by single spaces",
    );
    const QUOTED: Fault =
        Fault::new("line", "must have a quoted request and a quoted user agent behind the sizes");
    let fields = match line.split_once(' ') {
        Some((word, rest)) if TYPES.contains(&word) => rest,
        _ => line,
    };
    let mut words = fields.splitn(12, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or(FIELDS);
    let (time, balancer, client, _) = (word()?, word()?, word()?, word()?);
    let timers = [word()?, word()?, word()?];
    let (status, _, bytes_in, bytes_out, rest) = (word()?, word()?, word()?, word()?, word()?);
    let (request, rest) = request(rest).ok_or(QUOTED)?;
    // A Classic Load Balancer has no agent for lines that aren't HTTP.
    let agent = rest.strip_prefix(' ').and_then(quoted).map_or("-", |(agent, _)| agent);

    let mut raw = RawEvent::default();
    raw.set_time(FieldValue::Plain(time), Unit::Rfc3339);
    raw.set(EventField::Api, FieldValue::Plain(balancer));
    raw.set(EventField::ClientIp, FieldValue::Plain(client));
    if let Some(us) = sum(timers) {
        raw.set_from(EventField::Latency, 0, values.number(us), Some(Unit::Micros));
    }
    raw.set(EventField::Status, FieldValue::Plain(status));
    raw.set(EventField::BytesIn, FieldValue::Plain(bytes_in));
    raw.set(EventField::BytesOut, FieldValue::Plain(bytes_out));
    raw.set(EventField::UserAgent, log(agent));
    set_request(&mut raw, request, log);
    Ok(raw)
}

/// Splits off the quoted request at the start. A URL holds no blanks, so a quote within it that isn't escaped doesn't
/// end the request.
fn request(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let is_end = |at: &usize| {
        let (request, rest) = (&inner[..*at], &inner[at + 1..]);
        let is_version = || {
            let version = request.rsplit_once(' ').map_or(request, |(_, version)| version);
            version.starts_with("HTTP/") || matches!(version, "-" | "")
        };
        // Asked in this order, the version is looked for once between two blanks.
        (rest.is_empty() || rest.starts_with(' ')) && is_version()
    };
    let end = memchr::memchr_iter(b'"', inner.as_bytes()).find(is_end);
    match end {
        Some(end) => Some((&inner[..end], &inner[end + 1..])),
        None => quoted(text),
    }
}

/// Adds numbers of seconds and returns the sum in microseconds.
fn sum(timers: [&str; 3]) -> Option<u64> {
    timers.iter().try_fold(0_u64, |sum, timer| sum.checked_add(Decimal::parse(timer)?.round(6)?))
}
