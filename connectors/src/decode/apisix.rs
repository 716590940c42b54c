//! Apache APISIX, as its `kafka-logger` and `http-logger` write by default. A message is an array unless
//! `batch_max_size` is 1.
//!
//! * The default log has no request id, and its times are whole milliseconds. So equal calls at the same time differ
//!   in their index in the message alone. A `request_id` that `log_format_extra` adds is read here. It counts only
//!   together with the record's content, because the plugin that makes it accepts one that the caller sends. The
//!   header `x-request-id` isn't read, because the caller chooses it.
//! * The credential is the header `x-credential-identifier`, which APISIX sets (or clears) once it has
//!   authenticated a consumer. Without a consumer it is ignored, because the caller may have sent it.

use super::raw::{EventField, RawEvent};
use super::shape::RecordFormat;

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/request_id"]),
        (EventField::Time, &["/start_time"]),
        (EventField::Api, &["/service_id"]),
        (EventField::Route, &["/route_id"]),
        (EventField::Path, &["/request/uri", "/request/url"]),
        (EventField::Method, &["/request/method"]),
        (EventField::Status, &["/response/status"]),
        (EventField::Latency, &["/latency"]),
        (EventField::BytesIn, &["/request/size"]),
        (EventField::BytesOut, &["/response/size"]),
        (EventField::ClientIp, &["/client_ip"]),
        (EventField::ForwardedFor, &["/request/headers/x-forwarded-for"]),
        (EventField::UserAgent, &["/request/headers/user-agent"]),
        (EventField::Consumer, &["/consumer/username"]),
        (EventField::Credential, &["/request/headers/x-credential-identifier"]),
        (EventField::Host, &["/request/headers/host"]),
    ],
    headers: Some("/request/headers"),
    query: Some("/request/querystring"),
    finish: |raw: &mut RawEvent<'_>| {
        if raw.get(EventField::Consumer).is_empty() {
            raw.clear(EventField::Credential);
        }
    },
    ids_of_callers: true,
    ..RecordFormat::EMPTY
};
