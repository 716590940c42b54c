//! Envoy's access log as JSON, under the names of Istio's and of Envoy Gateway's defaults.

use keytide_config::Unit;

use super::raw::Name;
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id", "/x-request-id"]),
        (Name::Time, &["/start_time"]),
        (Name::Api, &["/authority", "/:authority"]),
        (Name::Path, &["/path", "/x-envoy-origin-path"]),
        (Name::Method, &["/method"]),
        (Name::Status, &["/response_code"]),
        (Name::Latency, &["/duration"]),
        (Name::BytesIn, &["/bytes_received"]),
        (Name::BytesOut, &["/bytes_sent"]),
        (Name::ClientIp, &["/downstream_remote_address"]),
        (Name::ForwardedFor, &["/x_forwarded_for", "/x-forwarded-for"]),
        (Name::UserAgent, &["/user_agent", "/user-agent"]),
        (Name::Host, &["/authority", "/:authority"]),
    ],
    headers: None,
    query: None,
    unit: Unit::Millis,
    finish: |_| {},
};
