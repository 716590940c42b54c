//! Amazon API Gateway's access log as JSON, under the names of its context variables.

use keytide_config::Unit;

use super::raw::Name;
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/requestId"]),
        (Name::Time, &["/requestTimeEpoch", "/requestTime"]),
        (Name::Api, &["/apiId"]),
        (Name::Route, &["/resourcePath", "/routeKey"]),
        (Name::Path, &["/path"]),
        (Name::Method, &["/httpMethod"]),
        (Name::Status, &["/status"]),
        (Name::Latency, &["/responseLatency"]),
        (Name::BytesOut, &["/responseLength"]),
        (Name::ClientIp, &["/ip"]),
        (Name::UserAgent, &["/userAgent"]),
        (Name::Credential, &["/apiKeyId"]),
        (Name::User, &["/user"]),
    ],
    headers: None,
    query: None,
    unit: Unit::Millis,
    finish: |_| {},
};
