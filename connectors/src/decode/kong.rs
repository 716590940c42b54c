//! Kong, as its `http-log`, `file-log` and `kafka-log` write. A message is an array when batched.
//!
//! `latencies.request` is the latency of the whole call, or -1 if it is unknown. `authenticated_entity.id` is the
//! credential that was used, the best identity of a key that Kong logs. `request.id` is made by Kong.

use super::raw::EventField;
use super::shape::RecordFormat;

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/request/id"]),
        (EventField::Time, &["/started_at"]),
        (EventField::Api, &["/service/name", "/service/id"]),
        (EventField::Route, &["/route/name", "/route/id"]),
        (EventField::Path, &["/request/uri", "/request/url"]),
        (EventField::Method, &["/request/method"]),
        (EventField::Status, &["/response/status"]),
        (EventField::Latency, &["/latencies/request"]),
        (EventField::BytesIn, &["/request/size"]),
        (EventField::BytesOut, &["/response/size"]),
        (EventField::ClientIp, &["/client_ip"]),
        (EventField::ForwardedFor, &["/request/headers/x-forwarded-for"]),
        (EventField::UserAgent, &["/request/headers/user-agent"]),
        (EventField::Consumer, &["/consumer/username", "/consumer/id"]),
        (EventField::Credential, &["/authenticated_entity/id"]),
        (EventField::Host, &["/request/headers/host"]),
    ],
    headers: Some("/request/headers"),
    query: Some("/request/querystring"),
    ..RecordFormat::EMPTY
};
