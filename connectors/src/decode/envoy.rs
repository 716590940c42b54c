//! Envoy's access log as JSON, under the names that Istio and Envoy Gateway give its fields by default. Values are
//! texts or numbers, and null or `-` where Envoy knows nothing.
//!
//! * Status 0: the call ended before there was an answer, mostly because the client went away.
//! * The route is made of the path: `route_name` names a rule of the configuration, in Istio mostly `default`.
//! * The request id is the header `x-request-id`. Envoy makes it anew for calls from outside, unless it was told to keep
//!   it; of calls that it takes for internal it keeps the caller's. So it counts only together with the record's content.
//! * A header that is logged is found under its name, also where that has `_` for `-`; neither default has one that
//!   holds a key.

use keytide_config::{KeyFrom, Unit};

use super::raw::Name;
use super::shape::{Format, Template};

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id", "/x-request-id"]),
        (Name::Time, &["/start_time"]),
        (Name::Api, &["/authority", "/:authority"]),
        (Name::Path, &["/path", "/x-envoy-origin-path", "/x-envoy-original-path", "/:path"]),
        (Name::Method, &["/method", "/:method"]),
        (Name::Status, &["/response_code"]),
        (Name::Latency, &["/duration"]),
        (Name::BytesIn, &["/bytes_received"]),
        (Name::BytesOut, &["/bytes_sent"]),
        (Name::ClientIp, &["/downstream_remote_address"]),
        (Name::ForwardedFor, &["/x_forwarded_for", "/x-forwarded-for"]),
        (Name::UserAgent, &["/user_agent", "/user-agent"]),
        (Name::Host, &["/authority", "/:authority"]),
    ],
    units: &[("/start_time", Unit::Rfc3339)],
    members: |rule| match rule {
        KeyFrom::Header(name) if name.contains('-') => vec![name.clone(), name.replace('-', "_")],
        KeyFrom::Header(name) => vec![name.clone()],
        _ => Vec::new(),
    },
    ids_of_callers: true,
    template: Template::Escaped,
    ..Format::EMPTY
};
