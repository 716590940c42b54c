//! NGINX's access log as JSON (`log_format` with `escape=json`), under the names of NGINX's own variables.
//!
//! * `$msec`, `$time_iso8601` and `$time_local` are the time at which the line was written, when the call ended.
//! * `$request_time` is the latency of the whole call. If it is missing, `$upstream_response_time` counts, but only if
//!   it is one number. The times of several servers that were tried (`0.001, 0.002 : 0.003`) aren't those of the whole
//!   call.
//! * Method and path are taken from `$request` if they don't stand on their own.
//! * `$request_id` is NGINX's own. But `$req_id` of ingress-nginx, mostly logged under the same name, is the caller's
//!   if it sends one. So an id counts only together with the record's content.
//! * A rule `header:NAME` reads `$http_NAME`, `query:NAME` the query of `$request_uri`, else `$args`, or `$arg_NAME`.

use keytide_config::{KeyFrom, Unit};

use super::raw::{EventField, RawEvent};
use super::shape::{RecordFormat, Template};
use super::value::FieldValue;

pub(super) const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::RequestId, &["/request_id", "/req_id"]),
        (EventField::Time, &["/msec", "/time_iso8601", "/time_local"]),
        (EventField::Api, &["/server_name"]),
        (EventField::Path, &["/request_uri", "/uri"]),
        (EventField::Query, &["/args", "/query_string", "/request_query"]),
        (EventField::Request, &["/request"]),
        (EventField::Method, &["/request_method"]),
        (EventField::Status, &["/status"]),
        (EventField::Latency, &["/request_time", "/upstream_response_time"]),
        (EventField::BytesIn, &["/request_length"]),
        (EventField::BytesOut, &["/bytes_sent", "/body_bytes_sent"]),
        (EventField::ClientIp, &["/remote_addr"]),
        (EventField::ForwardedFor, &["/http_x_forwarded_for"]),
        (EventField::Country, &["/geoip_country_code"]),
        (EventField::UserAgent, &["/http_user_agent"]),
        (EventField::User, &["/remote_user"]),
        (EventField::Host, &["/host", "/http_host"]),
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
    ..RecordFormat::EMPTY
};

fn finish(raw: &mut RawEvent<'_>) {
    if let FieldValue::Plain(latency) = raw.get(EventField::Latency)
        && latency.contains([',', ':'])
    {
        raw.clear(EventField::Latency);
    }
}
