//! Kong, as its `http-log`, `file-log` and `kafka-log` write. A message is an array when batched.
//!
//! `latencies.request` is the whole call; -1 means unknown. `authenticated_entity.id` is the credential that was
//! used, the best identity of a key that Kong logs. `request.id` is made by Kong.

use super::raw::Name;
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request/id"]),
        (Name::Time, &["/started_at"]),
        (Name::Api, &["/service/name", "/service/id"]),
        (Name::Route, &["/route/name", "/route/id"]),
        (Name::Path, &["/request/uri", "/request/url"]),
        (Name::Method, &["/request/method"]),
        (Name::Status, &["/response/status"]),
        (Name::Latency, &["/latencies/request"]),
        (Name::BytesIn, &["/request/size"]),
        (Name::BytesOut, &["/response/size"]),
        (Name::ClientIp, &["/client_ip"]),
        (Name::ForwardedFor, &["/request/headers/x-forwarded-for"]),
        (Name::UserAgent, &["/request/headers/user-agent"]),
        (Name::Consumer, &["/consumer/username", "/consumer/id"]),
        (Name::Credential, &["/authenticated_entity/id"]),
        (Name::Host, &["/request/headers/host"]),
    ],
    headers: Some("/request/headers"),
    query: Some("/request/querystring"),
    ..Format::EMPTY
};
