//! OpenTelemetry's semantic conventions for HTTP servers, as JSON: the names of today and those before them.
//!
//! Records come as the collector's Kafka exporter writes them (`otlp_json`), many in one message:
//!
//! ```text
//! {"resourceLogs": [{"resource": {"attributes": [..]},
//!                    "scopeLogs": [{"scope": {..}, "logRecords": [{"timeUnixNano": "..", "attributes": [..]}, ..]}]}]}
//! {"resourceSpans": [{"resource": .., "scopeSpans": [{"scope": .., "spans": [{"startTimeUnixNano": "..", ..}, ..]}]}]}
//! ```
//! or one by one. A record holds its attributes under their names with dots, itself or in `attributes`, as an object or
//! as OTLP has it: `[{"key": "http.route", "value": {"stringValue": "/v2/orders/{id}"}}]`. What it doesn't say its
//! scope says, then its resource. Objects within objects, `{"http": {"route": ..}}`, need `[source.fields]`.
//!
//! * Times are nanoseconds (`timeUnixNano`, `startTimeUnixNano` of a span, `Timestamp`) or RFC 3339 (`time`,
//!   `timestamp`, where a number is nanoseconds too), durations seconds, but for `http.server.duration`, which is
//!   milliseconds. Where there is none, a span's is its end less its start.
//! * A span of another kind than a server's is passed over: it is no call that was served here.
//! * `log.record.uid` is the request id, as the conventions define it. Ids of traces and spans aren't: callers choose
//!   the one, records share the other.
//! * A rule `header:NAME` reads `http.request.header.NAME`, `query:NAME` the query of the path, else `url.query`.

use std::ops::ControlFlow;

use keytide_config::{KeyFrom, Source, Unit};

use super::Context;
use super::bytes::carried;
use super::message::{Ledger, Outer, Records};
use super::raw::{Name, RawEvent};
use super::reader::{Reader, Unreadable};
use super::records::{JsonRecords, Objects, Visit, each, told, walk};
use super::shape::Format;
use super::value::Value;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/log.record.uid"]),
        (
            Name::Time,
            &[
                "/startTimeUnixNano",
                "/timeUnixNano",
                "/Timestamp",
                "/time",
                "/timestamp",
                "/@timestamp",
                "/observedTimeUnixNano",
                "/ObservedTimestamp",
            ],
        ),
        (Name::Api, &["/service.name"]),
        (Name::Route, &["/http.route"]),
        (Name::Path, &["/url.path", "/http.target", "/url.full", "/http.url"]),
        (Name::Query, &["/url.query"]),
        (Name::Method, &["/http.request.method", "/http.method"]),
        (Name::Status, &["/http.response.status_code", "/http.status_code"]),
        (Name::Latency, &["/http.server.request.duration", "/duration", "/http.server.duration"]),
        (Name::BytesIn, &["/http.request.size", "/http.request.body.size", "/http.request_content_length"]),
        (
            Name::BytesOut,
            &["/http.response.size", "/http.response.body.size", "/http.response_content_length"],
        ),
        (
            Name::ClientIp,
            &[
                "/client.address",
                "/http.client_ip",
                "/network.peer.address",
                "/net.sock.peer.addr",
                "/net.peer.ip",
            ],
        ),
        (
            Name::ForwardedFor,
            &["/http.request.header.x-forwarded-for", "/http.request.header.x_forwarded_for"],
        ),
        (Name::UserAgent, &["/user_agent.original", "/http.user_agent"]),
        (Name::End, &["/endTimeUnixNano"]),
        (Name::User, &["/enduser.id", "/user.id"]),
        (Name::Host, &["/server.address", "/http.host", "/net.host.name"]),
    ],
    unit: Unit::Seconds,
    units: &[
        ("/startTimeUnixNano", Unit::Nanos),
        ("/endTimeUnixNano", Unit::Nanos),
        ("/timeUnixNano", Unit::Nanos),
        ("/observedTimeUnixNano", Unit::Nanos),
        ("/Timestamp", Unit::Rfc3339),
        ("/ObservedTimestamp", Unit::Rfc3339),
        ("/time", Unit::Rfc3339),
        ("/timestamp", Unit::Rfc3339),
        ("/@timestamp", Unit::Rfc3339),
        ("/http.server.duration", Unit::Millis),
    ],
    attributes: &["/attributes", "/Attributes", "/scope/attributes", "/resource/attributes", "/Resource"],
    members: |rule| match rule {
        KeyFrom::Header(name) if name.contains('-') => {
            vec![header(name), header(&name.replace('-', "_"))]
        }
        KeyFrom::Header(name) => vec![header(name)],
        _ => Vec::new(),
    },
    finish: |raw| raw.number_is(Unit::Nanos),
    ..Format::EMPTY
};

fn header(name: &str) -> String {
    format!("http.request.header.{name}")
}

/// Reads the records of one source.
pub(super) struct OtelRecords(JsonRecords);

impl OtelRecords {
    pub(super) fn new(source: &Source, context: &Context) -> Self {
        Self(JsonRecords::new(source, &FORMAT, context))
    }
}

impl Records for OtelRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let mut records = Envelopes(self.0.objects(outer, ledger));
        walk(&carried(text), ledger, &mut records);
    }
}

/// Takes envelopes off; other objects are records.
struct Envelopes<'r, 'o>(Objects<'r, 'o>);

/// What holds the records of one resource, what those of one scope and was named before OTLP 0.15, and these.
const SIGNALS: [[&str; 4]; 2] = [
    ["resourceLogs", "scopeLogs", "instrumentationLibraryLogs", "logRecords"],
    ["resourceSpans", "scopeSpans", "instrumentationLibrarySpans", "spans"],
];

impl Visit for Envelopes<'_, '_> {
    fn object<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        text: &'a str,
        in_array: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, Unreadable> {
        // Nothing but an envelope begins like one.
        let inner = text[reader.at()..].strip_prefix('{').unwrap_or("").trim_ascii_start();
        if !inner.starts_with("\"resource") {
            return self.0.object(reader, text, in_array, ledger);
        }
        let mut envelope = reader.clone();
        let found = envelope.members(SIGNALS.map(|[resources, ..]| resources))?;
        if found.iter().all(|(_, value)| !matches!(value, Value::Array(_))) {
            return self.0.object(reader, text, in_array, ledger);
        }
        *reader = envelope;
        for ((at, value), signal) in found.into_iter().zip(SIGNALS) {
            if matches!(value, Value::Array(_)) && self.resources(text, at, signal, ledger).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn text(&mut self, value: Value<'_>, ledger: &mut Ledger<'_>) -> bool {
        self.0.text(value, ledger)
    }
}

impl Envelopes<'_, '_> {
    fn resources(
        &mut self,
        text: &str,
        at: usize,
        [_, scopes, scopes_before, records]: [&str; 4],
        ledger: &mut Ledger<'_>,
    ) -> ControlFlow<()> {
        each(text, at, ledger, |reader, ledger| {
            let Some((resource, scopes)) = of(reader, text, ["resource", scopes, scopes_before], ledger)
            else {
                return ControlFlow::Continue(());
            };
            let of_resource = self.0.around(&Ok(RawEvent::default()), "resource", text, resource);
            each(text, scopes, ledger, |reader, ledger| {
                let Some((scope, records)) = of(reader, text, ["scope", records, ""], ledger) else {
                    return ControlFlow::Continue(());
                };
                let around = self.0.around(&of_resource, "scope", text, scope);
                each(text, records, ledger, |reader, ledger| {
                    if is_served(reader) {
                        self.0.within(reader, text, &around, ledger);
                    } else {
                        let _ = reader.value();
                        ledger.pass_over();
                    }
                    ControlFlow::Continue(())
                })
            })
        })
    }
}

/// Where what describes many records stands, and where these do; nothing where there are none, or where they can't be
/// read, which is accounted for. The last name is an older one. Moves the reader behind the object.
fn of(
    reader: &mut Reader<'_>,
    text: &str,
    names: [&str; 3],
    ledger: &mut Ledger<'_>,
) -> Option<(Option<usize>, usize)> {
    let start = reader.at();
    let mut object = reader.clone();
    let found = object.members(names);
    let _ = reader.value();
    match found {
        Ok(
            [(description, value), (records, Value::Array(_)), _]
            | [(description, value), (_, Value::Missing), (records, Value::Array(_))],
        ) => Some((matches!(value, Value::Object).then_some(description), records)),
        // An exporter leaves out what is empty.
        Ok([_, (_, Value::Missing), (_, Value::Missing)]) => None,
        Ok(_) => {
            ledger.refuse(&text[start..reader.at()], format!("{}: must be an array", names[1]));
            None
        }
        Err(fault) => {
            ledger.refuse(&text[start..reader.at()], told(fault, start));
            None
        }
    }
}

/// Returns whether a record isn't a span of another kind than a server's.
fn is_served(reader: &Reader<'_>) -> bool {
    match reader.clone().members(["kind"]) {
        Ok([(_, Value::Number(kind))]) => matches!(kind, "0" | "2"),
        Ok([(_, Value::Plain(kind))]) => !matches!(
            kind,
            "SPAN_KIND_INTERNAL" | "SPAN_KIND_CLIENT" | "SPAN_KIND_PRODUCER" | "SPAN_KIND_CONSUMER"
        ),
        _ => true,
    }
}
