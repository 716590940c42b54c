//! NGINX's access log as JSON, under the names of NGINX's own variables.

use keytide_config::Unit;

use super::raw::Name;
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id"]),
        (Name::Time, &["/msec", "/time_iso8601"]),
        (Name::Path, &["/request_uri"]),
        (Name::Method, &["/request_method"]),
        (Name::Status, &["/status"]),
        (Name::Latency, &["/request_time"]),
        (Name::BytesIn, &["/request_length"]),
        (Name::BytesOut, &["/bytes_sent", "/body_bytes_sent"]),
        (Name::ClientIp, &["/remote_addr"]),
        (Name::ForwardedFor, &["/http_x_forwarded_for"]),
        (Name::UserAgent, &["/http_user_agent"]),
        (Name::User, &["/remote_user"]),
        (Name::Host, &["/host"]),
    ],
    headers: None,
    query: None,
    unit: Unit::Seconds,
    finish: |_| {},
};
