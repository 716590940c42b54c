//! The validated configuration. What stands here has passed validation; durations are milliseconds,
//! sizes are bytes, paths are resolved against the configuration file's folder.

use crate::pattern::LinePattern;
use crate::scalar::HashKind;
use crate::time::{TimePattern, Zone};

pub use crate::scalar::Secret;
pub use crate::section::alerts::Alerts;
pub use crate::section::detection::Detection;
pub use crate::section::email::*;
pub use crate::section::geo::Geo;
pub use crate::section::http::Http;
pub use crate::section::job::Job;
pub use crate::section::kafka::KafkaClient;
pub use crate::section::limits::Limits;
pub use crate::section::log::*;
pub use crate::section::policy::*;
pub use crate::section::routes::*;
pub use crate::section::sink::*;
pub use crate::section::tables::*;
pub use crate::section::topic::*;
pub use crate::section::webhook::*;
pub use crate::section::windows::{Unproven, Windows};

/// A whole job.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// `[job]`.
    pub job: Job,
    /// `[[source]]`, in the order of the file; names are unique.
    pub sources: Vec<Source>,
    /// `[tables.*]`.
    pub tables: Tables,
    /// `[geo]`.
    pub geo: Geo,
    /// `[routes]`.
    pub routes: Routes,
    /// `[windows]`.
    pub windows: Windows,
    /// `[limits]`.
    pub limits: Limits,
    /// `[sink.*]`.
    pub sinks: Sinks,
    /// `[detection]`.
    pub detection: Detection,
    /// `[alerts.*]`.
    pub alerts: Alerts,
    /// `[http]`; `None`: nothing is served.
    pub http: Option<Http>,
    /// `[log]`.
    pub log: Log,
}

/// One `[[source]]` of access events.
#[derive(Clone, Debug)]
pub struct Source {
    /// Unique in the job; part of an event's identity.
    pub name: String,
    /// Where the messages come from.
    pub kind: SourceKind,
    /// How a message is decoded.
    pub format: Format,
    /// How what `cloudwatch` wraps is decoded; never `cloudwatch`. `None` in any other format.
    pub inner: Option<Format>,
    /// What a line of `text` looks like; `None` in any other format.
    pub pattern: Option<LinePattern>,
    /// `[source.fields]`: required for `json`, overrides the defaults of the other JSON formats.
    pub fields: FieldMap,
    /// `[source.keys]`, or `[keys]` where the source has none.
    pub keys: KeyRules,
    /// What identifies a record that was sent twice.
    pub dedupe: Dedupe,
    /// The zone of times without one, where a field has none of its own.
    pub zone: Zone,
    /// What routes are made of.
    pub routes: RoutesFrom,
    /// Where the record itself may stand in a record that isn't one of a call: an object, an array of records, or a
    /// text that holds JSON (or, for a format of text lines, a line).
    pub unwrap: Vec<Pointer>,
    /// The same for wrappers of many records. Of all places the first that is there counts.
    pub records: Vec<Pointer>,
    /// `[source.only]`: the conditions that every record of a call meets. Others are passed over.
    pub only: Vec<Condition>,
}

impl Source {
    /// Where log agents put a line that they ship.
    #[must_use]
    pub fn default_unwrap() -> Vec<Pointer> {
        ["log", "message"].map(|name| Pointer(vec![name.to_owned()])).into()
    }

    /// Where Azure and `CloudTrail` put records.
    #[must_use]
    pub fn default_records() -> Vec<Pointer> {
        ["records", "Records"].map(|name| Pointer(vec![name.to_owned()])).into()
    }
}

/// A member of a record that must have one of some values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where it stands.
    pub at: Pointer,
    /// What is allowed there, as text; `*` stands for any characters, `?` for one.
    pub is: Vec<glob::Pattern>,
}

/// Where messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Files that match a glob pattern; each is one partition. `.gz` is decompressed.
    File {
        /// Absolute, or relative to the working folder after resolution; may contain `*`, `?`, `[..]`, `**`.
        pattern: String,
    },
    /// Standard input, one partition, one worker only.
    Stdin,
    /// A Kafka topic.
    Kafka(KafkaSource),
}

/// A gateway's log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Any JSON object; fields named by `[source.fields]`.
    Json,
    /// Apache APISIX `kafka-logger` / `http-logger`.
    Apisix,
    /// Kong `http-log` / `kafka-log`.
    Kong,
    /// Envoy's access log as JSON.
    Envoy,
    /// NGINX's access log as JSON (`log_format` with `escape=json`).
    Nginx,
    /// Amazon API Gateway's access log as JSON.
    AwsApigateway,
    /// OpenTelemetry's semantic conventions for HTTP, as JSON.
    Otel,
    /// Log events of a subscription of Amazon CloudWatch Logs, each a record of the source's inner format.
    Cloudwatch,
    /// CloudEvents 1.0 as JSON; over Kafka also in binary mode.
    Cloudevents,
    /// The combined text line of NGINX and Apache httpd; also what the last three read, told by its shape.
    Combined,
    /// Text lines of the source's pattern.
    Text,
    /// Access logs of AWS' Application Load Balancer, and of its Classic Load Balancer.
    Alb,
    /// Amazon CloudFront's standard log, and other W3C extended logs.
    Cloudfront,
    /// HAProxy's HTTP log (`option httplog`).
    Haproxy,
}

impl Format {
    /// Whether a record is a line of text.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Combined | Self::Text | Self::Alb | Self::Cloudfront | Self::Haproxy)
    }
}

/// What identifies a record that may arrive twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dedupe {
    /// The gateway's request id; records without one are identified by position and never deduplicated.
    #[default]
    RequestId,
    /// Where there is no request id, the bytes of the message and the record's index in it: what is sent again is
    /// the same bytes. The default of topics.
    Message,
    /// The same, but only for messages that are an array or hold several records. A line of a file that is one
    /// record is a call of its own, as nothing sends lines again. The default of files.
    Batch,
    /// Where there is no request id, a hash of the record's content, and how often it occurred in its message before.
    /// Equal lines of a file are different calls.
    Content,
}

/// `[source.fields]`: where each canonical field stands in a record.
#[derive(Clone, Debug, Default)]
pub struct FieldMap {
    /// Identifies the request; made by the gateway.
    pub request_id: Option<Field>,
    /// Event time.
    pub time: Option<Field>,
    /// What the `key` rule of `[keys].from` reads.
    pub key: Option<Field>,
    /// The API or service the route belongs to.
    pub api: Option<Field>,
    /// The route template as the gateway names it.
    pub route: Option<Field>,
    /// The path, with or without a query string; becomes a route template where there is no route.
    pub path: Option<Field>,
    /// HTTP method.
    pub method: Option<Field>,
    /// HTTP status.
    pub status: Option<Field>,
    /// Time taken to answer.
    pub latency: Option<Field>,
    /// Bytes received from the caller.
    pub bytes_in: Option<Field>,
    /// Bytes sent to the caller.
    pub bytes_out: Option<Field>,
    /// The peer's address.
    pub client_ip: Option<Field>,
    /// `X-Forwarded-For`, believed when the peer is a trusted proxy.
    pub forwarded_for: Option<Field>,
    /// ISO 3166-1 alpha-2 country; skips the geo lookup.
    pub country: Option<Field>,
    /// User agent.
    pub user_agent: Option<Field>,
    /// The gateway's consumer.
    pub consumer: Option<Field>,
    /// The gateway's credential id.
    pub credential: Option<Field>,
    /// The authenticated user.
    pub user: Option<Field>,
    /// The query, where the path has none.
    pub query: Option<Field>,
    /// A request line, `GET /path HTTP/1.1`, where method and path don't stand on their own.
    pub request: Option<Field>,
    /// When the call ended; with the time it makes the latency, where there is none.
    pub end: Option<Field>,
    /// How many calls the record stands for, a whole number: one of 0 is passed over, one that can't be read is 1 call.
    pub count: Option<Field>,
}

impl FieldMap {
    /// All fields with their names in `[source.fields]`, in a fixed order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<&Field>); 22] {
        let Self {
            request_id,
            time,
            key,
            api,
            route,
            path,
            method,
            status,
            latency,
            bytes_in,
            bytes_out,
            client_ip,
            forwarded_for,
            country,
            user_agent,
            consumer,
            credential,
            user,
            query,
            request,
            end,
            count,
        } = self;
        [
            ("request_id", request_id),
            ("time", time),
            ("key", key),
            ("api", api),
            ("route", route),
            ("path", path),
            ("method", method),
            ("status", status),
            ("latency", latency),
            ("bytes_in", bytes_in),
            ("bytes_out", bytes_out),
            ("client_ip", client_ip),
            ("forwarded_for", forwarded_for),
            ("country", country),
            ("user_agent", user_agent),
            ("consumer", consumer),
            ("credential", credential),
            ("user", user),
            ("query", query),
            ("request", request),
            ("end", end),
            ("count", count),
        ]
        .map(|(name, field)| (name, field.as_ref()))
    }
}

/// One field: where it stands and its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it stands. Of several places the first that says something counts; never empty.
    pub at: Vec<Pointer>,
    /// The unit of a time or a latency; `None` where the field has none, and beside `format`.
    pub unit: Option<Unit>,
    /// The form of a time, instead of a unit.
    pub format: Option<TimePattern>,
    /// The zone of times without one; `None`: the source's.
    pub zone: Option<Zone>,
}

impl Field {
    /// A field without a form or a zone of its own.
    #[must_use]
    pub fn new(at: Pointer, unit: Option<Unit>) -> Self {
        Self { at: vec![at], unit, format: None, zone: None }
    }
}

/// A JSON pointer (RFC 6901), unescaped: `/a~1b/0` is `["a/b", "0"]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer(pub Vec<String>);

/// Units of times and latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, with or without a fraction.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// RFC 3339 text, or another form of text that can't be misread (times only).
    Rfc3339,
    /// The same, with common log format tried first: `20/Nov/2025:12:44:15 +0000` (times only).
    Clf,
}

/// `[keys]`: where the key is found and how it becomes a key id.
#[derive(Clone, Debug)]
pub struct KeyRules {
    /// Tried in order; the first that finds a non-empty value wins.
    pub from: Vec<KeyFrom>,
    /// How the value becomes a key id.
    pub hash: KeyHash,
    /// What becomes of a call without a key.
    pub missing: MissingKey,
}

/// One place to look for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    /// A request header, lower case.
    Header(String),
    /// A query argument.
    Query(String),
    /// The field that `[source.fields].key` names.
    Key,
    /// A field by JSON pointer.
    Field(Pointer),
    /// The gateway's consumer.
    Consumer,
    /// The gateway's credential id.
    Credential,
    /// The authenticated user.
    User,
    /// The caller's address (after trusted proxies).
    ClientIp,
}

/// How a raw key becomes a key id.
#[derive(Clone, Debug)]
pub enum KeyHash {
    /// SHA-256 of the raw key.
    Sha256,
    /// HMAC-SHA-256 of the raw key under a secret.
    HmacSha256 {
        /// The secret.
        secret: Secret,
    },
    /// The gateway logs the hash itself: hex, at least 32 digits, optionally after `sha256:`.
    Prehashed,
    /// The value is an identifier, no secret; it is its own key id.
    None,
}

impl KeyHash {
    /// Its name in the configuration file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sha256 => HashKind::Sha256.name(),
            Self::HmacSha256 { .. } => HashKind::HmacSha256.name(),
            Self::Prehashed => HashKind::Prehashed.name(),
            Self::None => HashKind::None.name(),
        }
    }
}

/// What becomes of a call without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MissingKey {
    /// Counted under the key id `anonymous`.
    #[default]
    Anonymous,
    /// A dead letter.
    DeadLetter,
}
