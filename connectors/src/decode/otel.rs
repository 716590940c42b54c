//! OpenTelemetry's semantic conventions for HTTP servers, as JSON, with the current names and those before them.
//!
//! Records come as the collector's Kafka exporter writes them (`otlp_json`), many in one message:
//!
//! ```text
//! {"resourceLogs": [{"resource": {"attributes": [..]},
//!                    "scopeLogs": [{"scope": {..}, "logRecords": [{"timeUnixNano": "..", "attributes": [..]}, ..]}]}]}
//! {"resourceSpans": [{"resource": .., "scopeSpans": [{"scope": .., "spans": [{"startTimeUnixNano": "..", ..}, ..]}]}]}
//! ```
//! or one by one. A record holds its attributes under their names with dots, itself or in `attributes`, as an object or
//! as OTLP has it: `[{"key": "http.route", "value": {"stringValue": "/v2/orders/{id}"}}]`. A field that it lacks is
//! read from its scope, then from its resource. Objects within objects, `{"http": {"route": ..}}`, need
//! `[source.fields]`.
//!
//! * Times are nanoseconds (`timeUnixNano`, `startTimeUnixNano` of a span, `Timestamp`) or RFC 3339 (`time`,
//!   `timestamp`, where a number is nanoseconds too). Durations are seconds, but for `http.server.duration`, which is
//!   milliseconds. A span without a duration lasts from its start to its end.
//! * A span of another kind than a server's is passed over, because it is no call that was served here.
//! * `log.record.uid` is the request id, as the conventions define it. Trace ids aren't, because callers choose them,
//!   nor are span ids, because records share them.
//! * A rule `header:NAME` reads `http.request.header.NAME`, `query:NAME` the query of the path, else `url.query`.

use std::ops::ControlFlow;

use keytide_config::{KeyFrom, Source, Unit};

use super::Context;
use super::bytes::carried;
use super::message::{Ledger, Outer, RecordReader};
use super::raw::{EventField, RawEvent};
use super::reader::{JsonError, JsonReader};
use super::records::{JsonRecords, ObjectVisitor, Objects, each, walk};
use super::shape::RecordFormat;
use super::value::FieldValue;

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/log.record.uid"]),
        (
            EventField::Time,
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
        (EventField::Api, &["/service.name"]),
        (EventField::Route, &["/http.route"]),
        (EventField::Path, &["/url.path", "/http.target", "/url.full", "/http.url"]),
        (EventField::Query, &["/url.query"]),
        (EventField::Method, &["/http.request.method", "/http.method"]),
        (EventField::Status, &["/http.response.status_code", "/http.status_code"]),
        (EventField::Latency, &["/http.server.request.duration", "/duration", "/http.server.duration"]),
        (
            EventField::BytesIn,
            &["/http.request.size", "/http.request.body.size", "/http.request_content_length"],
        ),
        (
            EventField::BytesOut,
            &["/http.response.size", "/http.response.body.size", "/http.response_content_length"],
        ),
        (
            EventField::ClientIp,
            &[
                "/client.address",
                "/http.client_ip",
                "/network.peer.address",
                "/net.sock.peer.addr",
                "/net.peer.ip",
            ],
        ),
        (
            EventField::ForwardedFor,
            &["/http.request.header.x-forwarded-for", "/http.request.header.x_forwarded_for"],
        ),
        (EventField::UserAgent, &["/user_agent.original", "/http.user_agent"]),
        (EventField::End, &["/endTimeUnixNano"]),
        (EventField::User, &["/enduser.id", "/user.id"]),
        (EventField::Host, &["/server.address", "/http.host", "/net.host.name"]),
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
    ..RecordFormat::EMPTY
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

impl RecordReader for OtelRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let mut records = OtlpEnvelopes(self.0.objects(outer, ledger));
        walk(&carried(text), ledger, &mut records);
    }
}

/// Takes the envelopes of OTLP off. Any other object is a record.
struct OtlpEnvelopes<'r, 'o>(Objects<'r, 'o>);

/// For each signal the names of the arrays: of resources, of scopes, of scopes before OTLP 0.15, and of records.
const SIGNALS: [[&str; 4]; 2] = [
    ["resourceLogs", "scopeLogs", "instrumentationLibraryLogs", "logRecords"],
    ["resourceSpans", "scopeSpans", "instrumentationLibrarySpans", "spans"],
];

impl ObjectVisitor for OtlpEnvelopes<'_, '_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        in_array: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        // Nothing but an envelope begins like one.
        let inner = text[reader.at()..].strip_prefix('{').unwrap_or("").trim_ascii_start();
        if !inner.starts_with("\"resource") {
            return self.0.object(reader, text, in_array, ledger);
        }
        let mut envelope = reader.clone();
        let found = envelope.members(SIGNALS.map(|[resources, ..]| resources))?;
        if found.iter().all(|(_, value)| !matches!(value, FieldValue::Array(_))) {
            return self.0.object(reader, text, in_array, ledger);
        }
        *reader = envelope;
        for ((at, value), signal) in found.into_iter().zip(SIGNALS) {
            if matches!(value, FieldValue::Array(_)) && self.resources(text, at, signal, ledger).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn text(&mut self, value: FieldValue<'_>, ledger: &mut Ledger<'_>) -> bool {
        self.0.text(value, ledger)
    }
}

impl OtlpEnvelopes<'_, '_> {
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

/// Returns the places of the description of many records, and of these records. Returns `None` if there are none, or
/// if they can't be read, which is accounted for. The last name is an older one. Moves the reader behind the object.
fn of(
    reader: &mut JsonReader<'_>,
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
            [(description, value), (records, FieldValue::Array(_)), _]
            | [(description, value), (_, FieldValue::Missing), (records, FieldValue::Array(_))],
        ) => Some((matches!(value, FieldValue::Object).then_some(description), records)),
        // An exporter leaves out what is empty.
        Ok([_, (_, FieldValue::Missing), (_, FieldValue::Missing)]) => None,
        Ok(_) => {
            ledger.refuse(&text[start..reader.at()], format!("{}: must be an array", names[1]));
            None
        }
        Err(fault) => {
            ledger.refuse(&text[start..reader.at()], fault.reason(start));
            None
        }
    }
}

/// Returns whether a record may be a call that was served, so it isn't a span of another kind than a server's.
fn is_served(reader: &JsonReader<'_>) -> bool {
    match reader.clone().members(["kind"]) {
        Ok([(_, FieldValue::Number(kind))]) => matches!(kind, "0" | "2"),
        Ok([(_, FieldValue::Plain(kind))]) => !matches!(
            kind,
            "SPAN_KIND_INTERNAL" | "SPAN_KIND_CLIENT" | "SPAN_KIND_PRODUCER" | "SPAN_KIND_CONSUMER"
        ),
        _ => true,
    }
}
