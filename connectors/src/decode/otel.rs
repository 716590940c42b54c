//! OpenTelemetry's semantic conventions for HTTP servers, as JSON: the names of today and those before them.
//!
//! A record holds its attributes under their names with dots, itself or in `attributes`, as an object or as OTLP has
//! it: `[{"key": "http.route", "value": {"stringValue": "/v2/orders/{id}"}}]`, also those of `resource`. Objects
//! within objects, `{"http": {"route": ..}}`, need `[source.fields]`.
//!
//! * Times are nanoseconds (`timeUnixNano`, `startTimeUnixNano` of a span, `Timestamp`) or RFC 3339 (`time`,
//!   `timestamp`, where a number is nanoseconds too), durations seconds, but for `http.server.duration`, which is
//!   milliseconds. A span's duration as the difference of its times isn't read.
//! * `log.record.uid` is the request id, as the conventions define it. Ids of traces and spans aren't: callers choose
//!   the one, records share the other.
//! * A rule `header:NAME` reads `http.request.header.NAME`, `query:NAME` the query of the path, else `url.query`.

use keytide_config::{KeyFrom, Unit};

use super::raw::Name;
use super::shape::Format;

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
        (Name::User, &["/enduser.id", "/user.id"]),
        (Name::Host, &["/server.address", "/http.host", "/net.host.name"]),
    ],
    unit: Unit::Seconds,
    units: &[
        ("/startTimeUnixNano", Unit::Nanos),
        ("/timeUnixNano", Unit::Nanos),
        ("/observedTimeUnixNano", Unit::Nanos),
        ("/Timestamp", Unit::Rfc3339),
        ("/ObservedTimestamp", Unit::Rfc3339),
        ("/time", Unit::Rfc3339),
        ("/timestamp", Unit::Rfc3339),
        ("/@timestamp", Unit::Rfc3339),
        ("/http.server.duration", Unit::Millis),
    ],
    attributes: &["/attributes", "/Attributes", "/resource/attributes", "/Resource"],
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
