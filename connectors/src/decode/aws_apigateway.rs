//! Amazon API Gateway's access log as JSON, under the names of its context variables, of REST and of HTTP APIs. The
//! operator writes the log as a template, so a missing value is `-`, in quotes or not.
//!
//! * `requestTime` is common log format, or milliseconds where `$context.requestTimeEpoch` was logged under this name.
//! * `routeKey` (HTTP APIs) is method and route in one. `$default` is the route of whatever no other one takes: where
//!   there is a path, it says more.
//! * `apiKeyId` is the credential, an identifier; `identity.apiKey` (also `apiKey`) is the key itself.
//! * Of a REST API, `requestId` is what a caller may send as `x-amzn-RequestId`; `extendedRequestId`, which counts first,
//!   isn't. The former counts together with the record's content.
//! * `integrationLatency` counts where `responseLatency`, the whole call, is missing.
//! * There are no headers and no query.

use keytide_config::Unit;

use super::raw::{Name, RawEvent};
use super::shape::{Format, Template};
use super::value::Value;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/extendedRequestId", "/requestId"]),
        (Name::Time, &["/requestTimeEpoch", "/requestTime"]),
        (Name::Key, &["/apiKey", "/identity.apiKey", "/identity/apiKey"]),
        (Name::Api, &["/apiId"]),
        (Name::Route, &["/resourcePath", "/routeKey"]),
        (Name::Path, &["/path"]),
        (Name::Method, &["/httpMethod"]),
        (Name::Status, &["/status"]),
        (Name::Latency, &["/responseLatency", "/integrationLatency"]),
        (Name::BytesOut, &["/responseLength"]),
        (Name::ClientIp, &["/ip", "/sourceIp", "/identity.sourceIp", "/identity/sourceIp"]),
        (Name::UserAgent, &["/userAgent", "/identity.userAgent", "/identity/userAgent"]),
        (Name::Credential, &["/apiKeyId", "/identity.apiKeyId", "/identity/apiKeyId"]),
        (
            Name::User,
            &["/user", "/sub", "/principalId", "/authorizer.principalId", "/authorizer/principalId"],
        ),
        (Name::Host, &["/domainName"]),
    ],
    units: &[("/requestTime", Unit::Clf)],
    ids_of_callers: true,
    vouched_ids: 1,
    finish,
    template: Template::Unescaped,
    ..Format::EMPTY
};

fn finish<'a>(raw: &mut RawEvent<'a>) {
    raw.number_is(Unit::Millis);
    let (route, part): (_, fn(&'a str) -> Value<'a>) = match raw.get(Name::Route) {
        Value::Plain("$default") => {
            if !raw.get(Name::Path).is_empty() {
                raw.clear(Name::Route);
            }
            return;
        }
        Value::Plain(route) => (route, Value::Plain),
        Value::Json(route) => (route, Value::Json),
        _ => return,
    };
    let is_method = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if let Some((method, path)) = route.split_once(' ')
        && is_method(method)
        && path.trim_start_matches('\\').starts_with('/')
    {
        if method != "ANY" && raw.get(Name::Method).is_empty() {
            raw.set(Name::Method, part(method));
        }
        raw.set(Name::Route, part(path));
    }
}
