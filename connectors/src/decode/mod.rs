//! Decoders turn a message of a gateway's log into canonical access events. Each format has one file.
//!
//! ```text
//!          json, apisix, ...   places of the fields ───► shape ─► records, reader ─┐
//! message  cloudevents         attributes and data as if they were one record ─────┼─► RawEvent ─► canonical ─► AccessEvent
//!          text                lines ──────────────────────────────────────────────┘      keys, route, address, time ─┘
//!          cloudwatch          log events, each read as another format
//! ```
//! `message` bounds and decompresses, once for all formats, and counts the records of a message. A format turns bytes
//! into borrowed, unconverted fields, and one shared step makes the event of them. A record allocates nothing in the
//! common case: its route is known, its key isn't in the query, nothing is redacted.
//!
//! **Invariant**: no raw key leaves this module. Keys become ids in `keys`. Routes hold neither queries nor any value
//! that stood where keys are looked for. Only numbers and the method are kept of a bad record. No reason quotes a
//! value.

mod address;
mod agent;
mod apisix;
mod aws_apigateway;
mod base64;
mod bytes;
mod canonical;
mod cloudevents;
mod cloudwatch;
mod container;
mod content;
mod duration;
mod envoy;
mod escape;
mod fault;
mod geo_cache;
mod json;
mod keys;
mod kong;
mod message;
mod nginx;
mod number;
mod occurred;
mod otel;
mod raw;
mod reader;
mod record;
mod records;
mod route;
mod secrets;
mod shape;
mod syslog;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod unescaped;
mod value;
mod wrapped;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use keytide_config::{Billing, Format, JobConfig, Limits, Routes, Source};
use keytide_dataflow::model::{AccessEvent, CallerLocation, Country, Definition, Position};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use self::canonical::{MAX_BYTES, MAX_UNITS};
pub(crate) use self::keys::SecretHash;
pub use self::keys::{KeyNames, RequestKeys, prehashed};
pub(crate) use self::route::{cut, holds, redacted};
pub(crate) use self::syslog::json_behind_syslog;
pub use self::tally::{KEY_RULES, Tally};

use self::cloudevents::CloudEvents;
use self::cloudwatch::CloudWatch;
use self::message::{MessageDecoder, RecordReader};
use self::otel::OtelRecords;
use self::records::JsonRecords;
use self::route::RouteTemplates;
use self::text::TextRecords;
use self::wrapped::WrappedLines;

/// The output of a decoder for some messages, to which it appends.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Accepted events, in the order of the input. Their `late_ms` is 0, because lateness is judged later.
    pub events: Vec<AccessEvent>,
    /// Records that could not be accepted, in the order of the input.
    pub dead_letters: Vec<DeadLetter>,
    /// Strings behind the ids that this decoder hasn't handed out lately.
    pub definitions: Vec<Definition>,
    pub tally: Tally,
}

/// A record that could not be accepted, or one that counts although something about it is odd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub position: Position,
    /// The number of events before it in the same [`Decoded`].
    pub events_before: usize,
    /// States what is wrong, where, and what is allowed. It never quotes the record's values.
    pub reason: String,
    /// The length of the record, in bytes.
    pub length: u64,
    /// The SHA-256 of the record's bytes.
    pub sha256: [u8; 32],
    /// The canonical fields that could be parsed, as JSON, capped and without keys.
    pub kept: Option<Box<str>>,
    /// True if the record counts all the same. Then its event stands before it, at the same position.
    pub counted: bool,
}

/// Classes of dead letters, few enough for a metric's label.
pub const CLASSES: [&str; 9] =
    ["syntax", "encoding", "limit", "field", "key", "future", "gap", "not_a_call", "unescaped"];

impl DeadLetter {
    /// Returns the class of its reason, an index of [`CLASSES`].
    #[must_use]
    pub fn class(&self) -> usize {
        let reason = self.reason.as_str();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| reason.starts_with(prefix));
        let class = if starts(&["gap:"]) {
            "gap"
        } else if starts(&["time: more than"]) {
            "future"
        } else if starts(&["not a call:"]) {
            "not_a_call"
        } else if starts(&["unescaped:"]) {
            "unescaped"
        } else if starts(&["gzip:", "base64:", "framed:"]) {
            "encoding"
        } else if reason.contains("(limits.") {
            "limit"
        } else if starts(&["key:", "no key"]) {
            "key"
        } else if starts(&["not JSON", "empty message", "a record must be", "not a line"]) {
            "syntax"
        } else {
            "field"
        };
        CLASSES.iter().position(|known| *known == class).unwrap_or_default()
    }
}

/// Turns messages of one source into events.
pub trait Decoder: Send {
    /// Decodes one message, which is a Kafka record's value or a line of a file. It may hold one record, an array or
    /// newline-delimited records, compressed with gzip or not. `at` is the message's position; its `index` is the first
    /// record's. A decoder never fails and never panics. A record that can't be accepted is a dead letter, and its
    /// neighbours are still read.
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded);

    /// Decodes a message with its headers, for the formats that read them.
    fn decode_with(&mut self, message: &[u8], headers: &dyn Headers, at: Position, out: &mut Decoded) {
        let _ = headers;
        self.decode(message, at, out);
    }

    /// Announces that the next messages are lines that follow each other in a file, with the header line before them.
    /// It does something only for formats whose [`header`] isn't `None`.
    fn continue_after(&mut self, header: Option<&[u8]>) {
        let _ = header;
    }
}

/// Returns the beginning of header lines in a source's files, if later lines depend on such lines.
#[must_use]
pub fn header(source: &Source) -> Option<&'static [u8]> {
    text::has_header(source.format).then_some(text::FIELDS)
}

/// The headers of a message.
pub trait Headers {
    /// Hands over the name and the value of every header that has a value, in their order.
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8]));
}

impl Headers for () {
    fn each(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

/// Returns whether the source's decoder reads the headers of messages.
#[must_use]
pub fn reads_headers(source: &Source) -> bool {
    source.format == Format::Cloudevents
}

/// Looks up where an address is.
pub trait Locate: Send + Sync {
    /// Returns the location of an address. An IPv4 address in IPv6 must be passed as IPv4.
    fn locate(&self, address: IpAddr) -> Located;
}

/// The location of an address, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// The country, or [`Country::UNKNOWN`].
    pub country: Country,
    /// The autonomous system, or 0 if it isn't known.
    pub asn: u32,
    /// The coordinates, and the class of network.
    pub place: CallerLocation,
}

/// Stands for an absent geo database, so every address is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGeo;

impl Locate for NoGeo {
    fn locate(&self, _: IpAddr) -> Located {
        Located::default()
    }
}

/// Settings and data that all decoders of a job share. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    templates: Arc<RouteTemplates>,
    trusted_proxies: Arc<[IpNet]>,
    limits: Limits,
    free_statuses: Arc<[u16]>,
    geo: Arc<dyn Locate>,
}

impl Context {
    /// Returns the context of a job.
    #[must_use]
    pub fn of(job: &JobConfig, geo: Arc<dyn Locate>) -> Self {
        let free_statuses = job.billing.free_statuses.as_slice().into();
        Self { free_statuses, ..Self::new(&job.routes, &job.geo.trusted_proxies, job.limits, geo) }
    }

    /// Compiles the routes. `trusted_proxies` are the peers whose `X-Forwarded-For` is believed.
    #[must_use]
    pub fn new(routes: &Routes, trusted_proxies: &[IpNet], limits: Limits, geo: Arc<dyn Locate>) -> Self {
        Self {
            templates: Arc::new(RouteTemplates::new(routes)),
            trusted_proxies: trusted_proxies.into(),
            limits,
            free_statuses: Billing::default().free_statuses.into(),
            geo,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("templates", &self.templates)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The largest buffer that is kept for the next message.
const KEPT_BYTES: usize = 1 << 20;

/// Returns whether a buffer is too large to be kept for the next message.
fn is_large(capacity: usize) -> bool {
    capacity > KEPT_BYTES
}

/// Returns the decoder of a source's format.
#[must_use]
pub fn decoder(source: &Source, context: &Context) -> Box<dyn Decoder> {
    Box::new(MessageDecoder::new(records(source, source.format, context), source, context.limits))
}

fn records(source: &Source, format: Format, context: &Context) -> Box<dyn RecordReader> {
    let json = |format| -> Box<dyn RecordReader> { Box::new(JsonRecords::new(source, format, context)) };
    match format {
        Format::Json => json(&json::FORMAT),
        Format::Apisix => json(&apisix::FORMAT),
        Format::Kong => json(&kong::FORMAT),
        Format::Envoy => json(&envoy::FORMAT),
        Format::Nginx => json(&nginx::FORMAT),
        Format::AwsApigateway => json(&aws_apigateway::FORMAT),
        Format::Otel => Box::new(OtelRecords::new(source, context)),
        Format::Cloudwatch => {
            let inner = source.inner.filter(|inner| *inner != Format::Cloudwatch);
            let inner = records(source, inner.unwrap_or(Format::AwsApigateway), context);
            Box::new(CloudWatch::new(inner, context))
        }
        Format::Cloudevents => Box::new(CloudEvents::new(source, context)),
        Format::Combined | Format::Text | Format::Alb | Format::Cloudfront | Format::Haproxy => {
            let lines = Box::new(TextRecords::new(source, format, context));
            // A pattern may begin as a wrapper does.
            match source.pattern.as_ref().is_some_and(|pattern| pattern.text().starts_with(['{', '"'])) {
                true => lines,
                false => Box::new(WrappedLines::new(lines, source)),
            }
        }
    }
}

/// Appends `record` as a dead letter.
#[cold]
pub(crate) fn dead_letter(
    out: &mut Decoded,
    position: Position,
    record: &[u8],
    reason: String,
    kept: Option<Box<str>>,
    counted: bool,
) {
    out.dead_letters.push(DeadLetter {
        position,
        events_before: out.events.len(),
        reason,
        length: record.len() as u64,
        sha256: Sha256::digest(record).into(),
        kept,
        counted,
    });
}
