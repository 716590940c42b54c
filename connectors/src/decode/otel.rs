//! OpenTelemetry's semantic conventions for HTTP servers, as flat JSON attributes.

use keytide_config::Unit;

use super::raw::Name;
use super::shape::Format;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::Time, &["/time"]),
        (Name::Route, &["/http.route"]),
        (Name::Path, &["/url.path", "/http.target"]),
        (Name::Method, &["/http.request.method", "/http.method"]),
        (Name::Status, &["/http.response.status_code", "/http.status_code"]),
        (Name::Latency, &["/http.server.request.duration", "/duration"]),
        (Name::BytesIn, &["/http.request.body.size"]),
        (Name::BytesOut, &["/http.response.body.size"]),
        (Name::ClientIp, &["/client.address", "/http.client_ip"]),
        (Name::UserAgent, &["/user_agent.original", "/http.user_agent"]),
        (Name::User, &["/enduser.id"]),
        (Name::Host, &["/server.address"]),
    ],
    headers: None,
    query: None,
    unit: Unit::Seconds,
    finish: |_| {},
};
