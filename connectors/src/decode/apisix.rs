//! Apache APISIX, as its `kafka-logger` and `http-logger` write by default. A message is an array unless
//! `batch_max_size` is 1.
//!
//! * The default log has no request id, and its times are whole milliseconds: equal calls at once are told apart by
//!   their places in the message alone. A `request_id` that `log_format_extra` adds is read here; it counts only
//!   together with the record's content, as the plugin that makes it takes one that the caller sends. The header
//!   `x-request-id` isn't read: the caller chooses it.
//! * The credential is the header `x-credential-identifier`, which APISIX sets (or clears) once it has
//!   authenticated a consumer. Without a consumer the caller may have sent it: then it isn't believed.

use super::raw::{Name, RawEvent};
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id"]),
        (Name::Time, &["/start_time"]),
        (Name::Api, &["/service_id"]),
        (Name::Route, &["/route_id"]),
        (Name::Path, &["/request/uri", "/request/url"]),
        (Name::Method, &["/request/method"]),
        (Name::Status, &["/response/status"]),
        (Name::Latency, &["/latency"]),
        (Name::BytesIn, &["/request/size"]),
        (Name::BytesOut, &["/response/size"]),
        (Name::ClientIp, &["/client_ip"]),
        (Name::ForwardedFor, &["/request/headers/x-forwarded-for"]),
        (Name::UserAgent, &["/request/headers/user-agent"]),
        (Name::Consumer, &["/consumer/username"]),
        (Name::Credential, &["/request/headers/x-credential-identifier"]),
        (Name::Host, &["/request/headers/host"]),
    ],
    headers: Some("/request/headers"),
    query: Some("/request/querystring"),
    finish: |raw: &mut RawEvent<'_>| {
        if raw.get(Name::Consumer).is_empty() {
            raw.clear(Name::Credential);
        }
    },
    ids_of_callers: true,
    ..Format::EMPTY
};
