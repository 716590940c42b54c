//! NGINX's access log as JSON (`log_format` with `escape=json`), under the names of NGINX's own variables.
//!
//! * `$msec`, `$time_iso8601` and `$time_local` are when the line was written: when the call ended.
//! * `$request_time` is the whole call. `$upstream_response_time` counts where it is missing, and only where it is one
//!   number: of several servers that were tried (`0.001, 0.002 : 0.003`) it says nothing of the whole.
//! * Method and path are taken from `$request` where they don't stand on their own. One that isn't HTTP is a call of
//!   method `OTHER` and route `-`, as in the combined format.
//! * A rule `header:NAME` reads `$http_NAME`, `query:NAME` the query of `$request_uri`, else `$args`, or `$arg_NAME`.

use keytide_config::{KeyFrom, Unit};

use super::combined::request_line;
use super::raw::{Name, RawEvent, Value};
use super::shape::{Format, Template};

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id", "/req_id"]),
        (Name::Time, &["/msec", "/time_iso8601", "/time_local"]),
        (Name::Api, &["/server_name"]),
        (Name::Path, &["/request_uri", "/uri"]),
        (Name::Query, &["/args", "/query_string"]),
        (Name::Request, &["/request"]),
        (Name::Method, &["/request_method"]),
        (Name::Status, &["/status"]),
        (Name::Latency, &["/request_time", "/upstream_response_time"]),
        (Name::BytesIn, &["/request_length"]),
        (Name::BytesOut, &["/bytes_sent", "/body_bytes_sent"]),
        (Name::ClientIp, &["/remote_addr"]),
        (Name::ForwardedFor, &["/http_x_forwarded_for"]),
        (Name::Country, &["/geoip_country_code"]),
        (Name::UserAgent, &["/http_user_agent"]),
        (Name::User, &["/remote_user"]),
        (Name::Host, &["/host", "/http_host"]),
    ],
    unit: Unit::Seconds,
    units: &[("/time_iso8601", Unit::Rfc3339), ("/time_local", Unit::Clf)],
    members: |rule| match rule {
        KeyFrom::Header(name) => vec![format!("http_{}", name.replace('-', "_"))],
        KeyFrom::Query(name) => vec![format!("arg_{name}")],
        _ => Vec::new(),
    },
    finish,
    ids_of_callers: true,
    template: Template::Unescaped,
    ..Format::EMPTY
};

fn finish<'a>(raw: &mut RawEvent<'a>) {
    if let Value::Plain(latency) = raw.get(Name::Latency)
        && latency.contains([',', ':'])
    {
        raw.clear(Name::Latency);
    }
    let (line, part): (_, fn(&'a str) -> Value<'a>) = match raw.get(Name::Request) {
        Value::Plain(line) => (line, Value::Plain),
        Value::Json(line) => (line, Value::Json),
        _ => return,
    };
    let (method, target) = (raw.get(Name::Method), raw.get(Name::Path));
    match request_line(line) {
        Some((stated, at)) => {
            if method.is_empty() {
                raw.set(Name::Method, part(stated));
            }
            // The target of CONNECT is a host, and any host at all.
            if target.is_empty() && stated != "CONNECT" {
                raw.set(Name::Path, part(at));
            }
        }
        None if method.is_empty() => raw.set(Name::Method, Value::Plain("OTHER")),
        None => {}
    }
}
