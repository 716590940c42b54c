//! Envoy's access log as JSON, under the names that Istio and Envoy Gateway give its fields by default. Values are
//! texts or numbers, and null or `-` where Envoy knows nothing.
//!
//! * Status 0 means that the call ended before there was an answer, mostly because the client went away.
//! * The route is made of the path, because `route_name` names a rule of the configuration, in Istio mostly `default`.
//! * The request id is the header `x-request-id`. Envoy makes a new one for calls from outside, unless it is configured
//!   to keep the caller's. For calls that it takes for internal, it keeps the caller's. So it counts only together with
//!   the record's content.
//! * A header that is logged is found under its name, which may have `_` for `-`. Neither default logs a header that
//!   holds a key.

use keytide_config::{KeyFrom, Unit};

use super::raw::EventField;
use super::shape::{RecordFormat, Template};

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/request_id", "/x-request-id"]),
        (EventField::Time, &["/start_time"]),
        (EventField::Api, &["/authority", "/:authority"]),
        (EventField::Path, &["/path", "/x-envoy-origin-path", "/x-envoy-original-path", "/:path"]),
        (EventField::Method, &["/method", "/:method"]),
        (EventField::Status, &["/response_code"]),
        (EventField::Latency, &["/duration"]),
        (EventField::BytesIn, &["/bytes_received"]),
        (EventField::BytesOut, &["/bytes_sent"]),
        (EventField::ClientIp, &["/downstream_remote_address"]),
        (EventField::ForwardedFor, &["/x_forwarded_for", "/x-forwarded-for"]),
        (EventField::UserAgent, &["/user_agent", "/user-agent"]),
        (EventField::Host, &["/authority", "/:authority"]),
    ],
    units: &[("/start_time", Unit::Rfc3339)],
    members: |rule| match rule {
        KeyFrom::Header(name) if name.contains('-') => vec![name.clone(), name.replace('-', "_")],
        KeyFrom::Header(name) => vec![name.clone()],
        _ => Vec::new(),
    },
    ids_of_callers: true,
    template: Template::Escaped,
    ..RecordFormat::EMPTY
};
