//! Amazon API Gateway's access log as JSON, under the names of its context variables, of REST and of HTTP APIs. The
//! operator writes the log as a template, so a missing value is `-`, in quotes or not.
//!
//! * `requestTime` is common log format, or milliseconds where `$context.requestTimeEpoch` was logged under this name.
//! * `routeKey` (HTTP APIs) is method and route in one. `$default` is the route of calls that match no other one, so
//!   a path goes before it.
//! * `apiKeyId` is the credential, an identifier; `identity.apiKey` (also `apiKey`) is the key itself.
//! * In a REST API a caller may choose `requestId` by the header `x-amzn-RequestId`, so it counts together with the
//!   record's content. `extendedRequestId` goes before it, because no caller can choose it.
//! * `integrationLatency` counts where `responseLatency`, the whole call, is missing.
//! * There are no headers and no query.

use keytide_config::Unit;

use super::raw::{EventField, RawEvent};
use super::shape::{RecordFormat, Template};
use super::value::FieldValue;

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/extendedRequestId", "/requestId"]),
        (EventField::Time, &["/requestTimeEpoch", "/requestTime"]),
        (EventField::Key, &["/apiKey", "/identity.apiKey", "/identity/apiKey"]),
        (EventField::Api, &["/apiId"]),
        (EventField::Route, &["/resourcePath", "/routeKey"]),
        (EventField::Path, &["/path"]),
        (EventField::Method, &["/httpMethod"]),
        (EventField::Status, &["/status"]),
        (EventField::Latency, &["/responseLatency", "/integrationLatency"]),
        (EventField::BytesOut, &["/responseLength"]),
        (EventField::ClientIp, &["/ip", "/sourceIp", "/identity.sourceIp", "/identity/sourceIp"]),
        (EventField::UserAgent, &["/userAgent", "/identity.userAgent", "/identity/userAgent"]),
        (EventField::Credential, &["/apiKeyId", "/identity.apiKeyId", "/identity/apiKeyId"]),
        (
            EventField::User,
            &["/user", "/sub", "/principalId", "/authorizer.principalId", "/authorizer/principalId"],
        ),
        (EventField::Host, &["/domainName"]),
    ],
    units: &[("/requestTime", Unit::Clf)],
    ids_of_callers: true,
    vouched_ids: 1,
    finish,
    template: Template::Unescaped,
    ..RecordFormat::EMPTY
};

fn finish<'a>(raw: &mut RawEvent<'a>) {
    raw.number_is(Unit::Millis);
    let (route, part): (_, fn(&'a str) -> FieldValue<'a>) = match raw.get(EventField::Route) {
        FieldValue::Plain("$default") => {
            if !raw.get(EventField::Path).is_empty() {
                raw.clear(EventField::Route);
            }
            return;
        }
        FieldValue::Plain(route) => (route, FieldValue::Plain),
        FieldValue::Json(route) => (route, FieldValue::Json),
        _ => return,
    };
    let is_method = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if let Some((method, path)) = route.split_once(' ')
        && is_method(method)
        && path.trim_start_matches('\\').starts_with('/')
    {
        if method != "ANY" && raw.get(EventField::Method).is_empty() {
            raw.set(EventField::Method, part(method));
        }
        raw.set(EventField::Route, part(path));
    }
}
