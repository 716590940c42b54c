//! The decoders: one message in, events, dead letters and definitions out.
//!
//! The first byte of an input chooses the rules ([`Choice`]), the rest is the message, or, where the byte is a small
//! letter, a record into which the canary is planted where keys are looked for.
//!
//! * Each message gives an event or a dead letter, unless it says that it has no record.
//! * Positions grow strictly; events and dead letters are told in one order.
//! * Every value of an event is in its range, and every id that it uses is defined.
//! * The same message again gives the same again, also to a decoder that saw it before.
//! * No reason and nothing that is kept quotes the record; a planted key is in nothing at all.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use keytide_config::JobConfig;
use keytide_connectors::decode::{Context, DeadLetter, Decoded, Headers, NoGeo, decoder};
use keytide_dataflow::model::{AccessEvent, Definition, LATENCY_UNKNOWN, Position};
use serde_json::Value;

use crate::{CANARY, tells};

const START: Position = Position { partition: 3, offset: 70, index: 0 };
/// 2000-01-01 and 2200-01-01, in milliseconds.
const TIMES: std::ops::Range<u64> = 946_684_800_000..7_258_118_400_000;

/// What the first byte of an input says.
#[derive(Clone, Copy)]
struct Choice(u8);

impl Choice {
    const COUNT: u8 = 32;

    fn hash(self) -> &'static str {
        ["sha256", "hmac-sha256", "prehashed", "none"][usize::from(self.0 & 3)]
    }

    /// Whether limits are such that a short input reaches them.
    fn is_limited(self) -> bool {
        self.0 & 16 != 0
    }

    fn is_planted(self) -> bool {
        self.0 & 32 != 0
    }

    /// The configuration of a source of this format.
    fn config(self, format: &str) -> String {
        let hash = self.hash();
        let secret = if hash == "hmac-sha256" { "secret = \"env:SECRET\"" } else { "" };
        let dedupe = match (self.0 & 4 != 0, format) {
            (false, _) => "request_id",
            (true, "combined") => "batch",
            (true, _) => "content",
        };
        let missing = if self.0 & 8 != 0 { "dead_letter" } else { "anonymous" };
        let from = match format {
            // Identifiers alone may be written as they are.
            _ if hash == "none" => r#""credential", "consumer", "user", "client_ip""#,
            "combined" => r#""user", "query:apikey""#,
            _ => {
                r#""header:apikey", "header:authorization", "query:apikey", "key", "field:/planted", "user""#
            }
        };
        let inner = match (format, dedupe) {
            ("cloudwatch", "content") => {
                "inner = \"json\"\n[source.fields]\ntime = { at = \"/time\", unit = \"ms\" }\nkey = \"/key\"\n"
            }
            ("cloudwatch", _) => "[source.fields]\nkey = \"/key\"\n",
            _ => "",
        };
        let fields = match format {
            "json" => JSON_FIELDS,
            "combined" => "",
            "cloudwatch" => inner,
            _ => "[source.fields]\nkey = \"/key\"\n",
        };
        let limits = if self.is_limited() { LIMITS } else { "" };
        format!(
            "[keys]\nfrom = [{from}]\nhash = \"{hash}\"\n{secret}\nmissing = \"{missing}\"\n\
             [geo]\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
             [routes]\ntemplates = [\"/v2/orders/{{id}}\", \"/a/{{x}}/c\"]\n{limits}\
             [[source]]\nname = \"gateway\"\nkind = \"stdin\"\nformat = \"{format}\"\ndedupe = \"{dedupe}\"\n{fields}"
        )
    }
}

const LIMITS: &str = "[limits]\nmessage_bytes = \"1KiB\"\nmessage_records = 3\n\
                      text_bytes = 16\ndecompressed_bytes = \"4KiB\"\n";

/// Records of two levels; other formats know their fields.
const JSON_FIELDS: &str = r#"
[source.fields]
request_id = "/id"
time = { at = "/time", unit = "ms" }
key = "/key"
api = "/api"
route = "/route"
path = "/path"
method = "/method"
status = "/response/status"
latency = { at = "/response/latency", unit = "ms" }
bytes_in = "/in"
bytes_out = "/out/0"
client_ip = "/ip"
forwarded_for = "/xff"
country = "/country"
user_agent = "/agent"
consumer = "/consumer"
credential = "/credential"
user = "/user"
query = "/query"
request = "/request"
end = { at = ["/end", "/ended"], unit = "ms" }
count = "/count"
"#;

/// The jobs of a format, one a choice.
static JOBS: OnceLock<Vec<(JobConfig, Context)>> = OnceLock::new();

fn jobs(format: &str) -> Vec<(JobConfig, Context)> {
    let job = |choice| {
        let env = [("SECRET".to_owned(), "of the fuzzer".to_owned())].into_iter();
        let config = Choice(choice).config(format);
        let job = JobConfig::parse(&config, Path::new(""), env)
            .unwrap_or_else(|error| panic!("{error}\n{config}"))
            .job;
        let context = Context::of(&job, Arc::new(NoGeo));
        (job, context)
    };
    (0..Choice::COUNT).map(job).collect()
}

/// One input of a decoder's target.
pub fn decode(format: &str, data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    let choice = Choice(*choice);
    let planted = if choice.is_planted() { planted(format, message) } else { None };
    let message = planted.as_deref().unwrap_or(message);

    let (job, context) = &JOBS.get_or_init(|| jobs(format))[usize::from(choice.0 % Choice::COUNT)];
    let mut decoder = decoder(&job.sources[0], context);
    let (headers, value) = if format == "cloudevents" { headers(message) } else { (Vec::new(), message) };
    let mut decode = || {
        let mut out = Decoded::default();
        if headers.is_empty() {
            decoder.decode(message, START, &mut out);
        } else {
            decoder.decode_with(value, &Told(&headers), START, &mut out);
        }
        out
    };
    let (first, again) = (decode(), decode());

    assert_eq!(first.events, again.events, "the same message gives the same events");
    assert_eq!(first.dead_letters, again.dead_letters, "and the same dead letters");
    assert!(
        !first.events.is_empty() || !first.dead_letters.is_empty() || may_be_empty(value),
        "the message is gone"
    );
    assert_order(&first);
    let are_names = choice.hash() == "none";
    first.events.iter().for_each(assert_event);
    assert_defined(&first, are_names);
    let limit = job.limits.text_bytes;
    first.definitions.iter().for_each(|definition| assert_definition(definition, limit));
    first.dead_letters.iter().for_each(assert_letter);
    if planted.is_some() && !are_names {
        assert!(!tells(&format!("{first:?}")), "a raw key came out: {first:?}");
    }
}

/// The headers of a message.
struct Told<'a>(&'a [(&'a [u8], &'a [u8])]);

impl Headers for Told<'_> {
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| take(name, value));
    }
}

/// Lines `name:value` before an empty line, and what follows; everything, if the first line is none.
fn headers(message: &[u8]) -> (Vec<(&[u8], &[u8])>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = message;
    if !message.starts_with(b"ce_") && !message.starts_with(b"content-type:") {
        return (headers, message);
    }
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        match line.iter().position(|byte| *byte == b':') {
            Some(at) => headers.push((&line[..at], &line[at + 1..])),
            None => break,
        }
    }
    (headers, rest)
}

/// Empty arrays hold no record, also within wrappers and texts (whose brackets may be escaped); neither do CloudWatch's
/// and OpenTelemetry's envelopes without records, or with records of others alone, nor what is compressed of such.
fn may_be_empty(message: &[u8]) -> bool {
    let is_empty = |rest: &[u8]| rest.trim_ascii_start().first() == Some(&b']');
    let mut arrays = (0..message.len()).filter(|at| message[*at] == b'[');
    let names = |name: &[u8]| message.windows(name.len()).any(|window| window == name);
    arrays.any(|at| is_empty(&message[at + 1..]))
        || message.starts_with(b"\x1f\x8b")
        || [&b"messageType"[..], b"resourceLogs", b"resourceSpans", b"\\"].into_iter().any(names)
}

fn assert_order(out: &Decoded) {
    let mut letters = out.dead_letters.iter().peekable();
    let mut next = 0_u64;
    let mut check = |position: Position| {
        assert_eq!((position.partition, position.offset), (START.partition, START.offset));
        assert!(u64::from(position.index) >= next, "records have positions of their own, in order");
        next = u64::from(position.index) + 1;
    };
    for (index, event) in out.events.iter().enumerate() {
        while let Some(letter) = letters.next_if(|letter| letter.events_before <= index) {
            assert!(!letter.counted);
            check(letter.position);
        }
        check(event.position);
        // A record that counts and has a row has one position.
        if let Some(letter) = letters.next_if(|letter| letter.counted) {
            assert_eq!((letter.events_before, letter.position), (index + 1, event.position));
        }
    }
    for letter in letters {
        assert_eq!((letter.events_before, letter.counted), (out.events.len(), false));
        check(letter.position);
    }
}

fn assert_event(event: &AccessEvent) {
    let AccessEvent { time, status, latency_us, bytes_in, bytes_out, late_ms, asn, country, .. } = event;
    assert!(TIMES.contains(time), "{event:?}");
    assert!(*status == 0 || (100..1_000).contains(status), "{event:?}");
    assert!(*latency_us <= 1 << 42 || *latency_us == LATENCY_UNKNOWN, "{event:?}");
    assert!(*bytes_in <= 1 << 40 && *bytes_out <= 1 << 40, "{event:?}");
    assert_eq!((*late_ms, *asn), (0, 0));
    assert!(country.0.iter().all(u8::is_ascii_uppercase));
}

fn assert_defined(out: &Decoded, are_names: bool) {
    let routes: HashSet<_> = out
        .definitions
        .iter()
        .filter_map(|definition| match definition {
            Definition::Route { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let keys: HashSet<_> = out
        .definitions
        .iter()
        .filter_map(|definition| match definition {
            Definition::Key { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    for event in &out.events {
        assert!(routes.contains(&event.route), "a route without a definition");
        assert!(!are_names || event.key.is_bucket() || keys.contains(&event.key), "a key without a name");
    }
}

fn assert_definition(definition: &Definition, limit: usize) {
    match definition {
        Definition::Route { api, method, route, .. } => {
            for text in [api, method, route] {
                assert!(!text.contains(char::is_control), "{text:?}");
                // A control character of one byte becomes one of three.
                assert!(text.len() <= 3 * limit.max(7), "{text:?}");
            }
        }
        Definition::Key { name, .. } => assert!(name.len() <= limit + 33, "{name:?}"),
        Definition::Agent { text, .. } => {
            assert!(text.len() <= limit.min(256) && !text.contains(char::is_control), "{text:?}");
        }
        Definition::Name { .. } => {}
    }
}

fn assert_letter(letter: &DeadLetter) {
    let DeadLetter { reason, kept, .. } = letter;
    assert!((1..300).contains(&reason.len()) && !reason.contains(char::is_control), "{reason:?}");
    assert!(!tells(reason), "a reason quotes the record: {reason}");
    if let Some(kept) = kept {
        assert!(kept.len() < 512 && !tells(kept), "what is kept quotes the record: {kept}");
        let Ok(Value::Object(members)) = serde_json::from_str(kept) else { panic!("not an object: {kept}") };
        assert!(members.iter().all(|(name, value)| name == "method" || value.is_u64()), "{kept}");
    }
}

/// The record with the canary where keys are looked for; `None` if there is no record.
fn planted(format: &str, record: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(record).ok()?;
    if format == "combined" {
        let line = text.lines().next()?;
        return Some(format!("203.0.113.57 - {CANARY} [20/Nov/2025:12:44:15 +0000] \"{line}").into_bytes());
    }
    if let Some(rest) = text.strip_prefix("ce_") {
        // In binary mode for certain: in any other one the headers belong to no record.
        let (source, value) = rest.split_once('\n').unwrap_or((rest, ""));
        let value = value.split_once("\n\n").map_or(value, |(_, value)| value);
        let headers = format!("ce_planted:{CANARY}\nce_specversion:1.0\nce_id:1\nce_source:{source}\n");
        return Some(format!("{headers}\n{value}").into_bytes());
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    if let (Value::Object(members), true) = (&value, record.len().is_multiple_of(2) && format != "cloudwatch")
    {
        // Before a member of the same name: if they differ, neither is the key.
        let rest = value.to_string();
        let comma = if members.is_empty() { "" } else { "," };
        return Some(format!("{{\"key\":\"{CANARY}\"{comma}{}", &rest[1..]).into_bytes());
    }
    plant(&mut value, 0)?;
    serde_json::to_vec(&value).ok()
}

/// Plants the canary into a record, into each of an array, and into each message of an envelope.
fn plant(value: &mut Value, level: usize) -> Option<()> {
    match value {
        Value::Object(members) => {
            if let (Some(Value::Array(events)), 0) = (members.get_mut("logEvents"), level) {
                for event in events {
                    let Some(Value::String(message)) = event.get_mut("message") else { continue };
                    let mut inner = serde_json::from_str(message).ok()?;
                    plant(&mut inner, 1)?;
                    *message = inner.to_string();
                }
                return Some(());
            }
            members.insert("planted".to_owned(), CANARY.into());
            Some(())
        }
        Value::Array(records) if level == 0 => {
            records.retain(Value::is_object);
            if records.is_empty() { None } else { records.iter_mut().try_for_each(|record| plant(record, 1)) }
        }
        _ => None,
    }
}
