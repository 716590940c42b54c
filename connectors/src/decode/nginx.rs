//! NGINX's access log as JSON (`log_format` with `escape=json`), under the names of NGINX's own variables.
//!
//! * `$msec`, `$time_iso8601` and `$time_local` are when the line was written: when the call ended.
//! * `$request_time` is the whole call. `$upstream_response_time` counts where it is missing, and only where it is one
//!   number: of several servers that were tried (`0.001, 0.002 : 0.003`) it says nothing of the whole.
//! * Method and path are taken from `$request` where they don't stand on their own.
//! * `$request_id` is NGINX's own, but `$req_id` of ingress-nginx, mostly logged under the same name, is the caller's
//!   where it sends one. So an id counts only together with the record's content.
//! * A rule `header:NAME` reads `$http_NAME`, `query:NAME` the query of `$request_uri`, else `$args`, or `$arg_NAME`.

use keytide_config::{KeyFrom, Unit};

use super::raw::{Name, RawEvent};
use super::shape::{Format, Template};
use super::value::Value;

pub(super) const FORMAT: Format = Format {
    fields: &[
        (Name::RequestId, &["/request_id", "/req_id"]),
        (Name::Time, &["/msec", "/time_iso8601", "/time_local"]),
        (Name::Api, &["/server_name"]),
        (Name::Path, &["/request_uri", "/uri"]),
        (Name::Query, &["/args", "/query_string", "/request_query"]),
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
    template: Template::Line,
    ..Format::EMPTY
};

fn finish(raw: &mut RawEvent<'_>) {
    if let Value::Plain(latency) = raw.get(Name::Latency)
        && latency.contains([',', ':'])
    {
        raw.clear(Name::Latency);
    }
}
