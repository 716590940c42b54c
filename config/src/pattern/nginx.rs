//! Parses NGINX's `log_format`, and the similar access log format of Amazon API Gateway's stages.

use super::{LineField, LineForm, LineTime, Misread, Piece, PlacedPiece, Variable};
use crate::time::Unit;

/// Returns whether a text has a variable of NGINX.
pub(super) fn has_sign(text: &str) -> bool {
    let name = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    text.as_bytes().iter().enumerate().any(|(at, byte)| {
        let next = text.as_bytes().get(at + 1);
        *byte == b'$' && (next == Some(&b'{') || name(next))
    })
}

/// Parses a pattern of NGINX.
pub(super) fn pieces(text: &str) -> Result<Vec<PlacedPiece>, Misread> {
    split(text, |byte| byte.is_ascii_alphanumeric() || byte == b'_', |name| Ok(variable(name)))
}

/// Parses a pattern of Amazon API Gateway.
pub(super) fn context_pieces(text: &str) -> Result<Vec<PlacedPiece>, Misread> {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    split(text, in_name, |name| match name.strip_prefix("context.") {
        Some(name) if !name.is_empty() => Ok(context(name)),
        _ => Err("allowed: variables such as $context.requestId".to_owned()),
    })
}

/// Splits a pattern at its variables `$name` and `${name}`.
fn split(
    text: &str,
    in_name: impl Fn(u8) -> bool,
    variable: impl Fn(&str) -> Result<Variable, String>,
) -> Result<Vec<PlacedPiece>, Misread> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(sign) = text[at..].find('$').map(|sign| at + sign) {
        pieces.push((at, Piece::Literal(text[at..sign].replace("\\\"", "\""))));
        let rest = &text[sign + 1..];
        let (name, end) = match rest.strip_prefix('{') {
            Some(inner) => {
                let close = inner.find('}');
                let close = close.ok_or_else(|| Misread(sign, "`${` without its `}`".to_owned()))?;
                (&inner[..close], sign + close + 3)
            }
            None => {
                let length = rest.bytes().take_while(|byte| in_name(*byte)).count();
                // A full stop or a dash behind a name is no part of it.
                let name = rest[..length].trim_end_matches(['.', '-']);
                (name, sign + 1 + name.len())
            }
        };
        if name.is_empty() || !name.bytes().all(&in_name) {
            return Err(Misread(sign, "`$` without a name behind it, allowed: $name or ${name}".to_owned()));
        }
        pieces.push((sign, Piece::Variable(variable(name).map_err(|problem| Misread(sign, problem))?)));
        at = end;
    }
    pieces.push((at, Piece::Literal(text[at..].replace("\\\"", "\""))));
    Ok(pieces)
}

fn variable(name: &str) -> Variable {
    use LineField as Field;
    use LineForm::{Fixed, Free, List, Number, Status, Word};
    let of = |field, rank, form| Variable::of(name, field, rank, form);
    match name {
        "request_id" => of(Field::RequestId, 0, Word),
        "msec" => of(Field::Time(LineTime::Epoch(Unit::Seconds)), 0, Number),
        "time_iso8601" => of(Field::Time(LineTime::Rfc3339), 1, Word),
        "time_local" => of(Field::Time(LineTime::Clf), 2, Fixed(26)),
        "server_name" => of(Field::Api, 0, Word),
        "proxy_upstream_name" => of(Field::Api, 1, Word),
        "host" => of(Field::Host, 0, Word),
        "request_uri" => of(Field::Path, 0, Free),
        "uri" | "document_uri" => of(Field::Path, 1, Free),
        "args" | "query_string" => of(Field::Query, 0, Free),
        "request" => of(Field::Request, 0, Free),
        "request_method" => of(Field::Method, 0, Word),
        "status" => of(Field::Status, 0, Status),
        "request_time" => of(Field::Latency(Unit::Seconds), 0, Number),
        "upstream_response_time" => of(Field::Latency(Unit::Seconds), 1, List),
        "request_length" => of(Field::BytesIn, 0, Number),
        "bytes_sent" => of(Field::BytesOut, 0, Number),
        "body_bytes_sent" => of(Field::BytesOut, 1, Number),
        "remote_addr" => of(Field::ClientIp, 0, Word),
        "realip_remote_addr" => of(Field::ClientIp, 1, Word),
        "proxy_add_x_forwarded_for" => of(Field::ForwardedFor, 1, Free),
        "geoip_country_code" | "geoip2_country_code" | "geoip2_data_country_code" => {
            of(Field::Country, 0, Word)
        }
        "remote_user" => of(Field::User, 0, Free),
        "jwt_claim_sub" => of(Field::User, 1, Free),
        "connection" | "connection_requests" | "pid" | "remote_port" | "server_port" | "gzip_ratio" => {
            Variable::other(name, Number)
        }
        "pipe"
        | "scheme"
        | "server_protocol"
        | "server_addr"
        | "ssl_protocol"
        | "ssl_cipher"
        | "hostname"
        | "is_args"
        | "proxy_alternative_upstream_name"
        | "namespace"
        | "ingress_name"
        | "service_name"
        | "service_port"
        | "request_completion"
        | "https"
        | "http2"
        | "http3" => Variable::other(name, Word),
        _ => match (name.strip_prefix("http_"), name.strip_prefix("arg_")) {
            (Some(header), _) => Variable::header(name, header),
            (_, Some(argument)) => {
                Variable { argument: Some(argument.to_owned()), ..Variable::other(name, Free) }
            }
            // Headers and cookies of the answer can be any text.
            _ if name.starts_with("upstream_http_") || name.starts_with("upstream_cookie_") => {
                Variable::other(name, Free)
            }
            _ if name.starts_with("upstream_") => Variable::other(name, List),
            _ => Variable::other(name, Free),
        },
    }
}

/// Returns the variable of a name behind `$context.`.
fn context(name: &str) -> Variable {
    use LineField as Field;
    use LineForm::{Fixed, Free, Number, Status, Word};
    let of = |field, rank, form| Variable::of(name, field, rank, form);
    match name {
        // A caller may choose `requestId` by the header `x-amzn-RequestId`, so the extended id identifies the call.
        "extendedRequestId" => of(Field::RequestId, 0, Word),
        "requestTimeEpoch" => of(Field::Time(LineTime::Epoch(Unit::Millis)), 0, Number),
        "requestTime" => of(Field::Time(LineTime::Clf), 1, Fixed(26)),
        "apiId" => of(Field::Api, 0, Word),
        "domainName" => of(Field::Host, 0, Word),
        "resourcePath" => of(Field::Route, 0, Free),
        "routeKey" => of(Field::Route, 1, Free),
        "path" => of(Field::Path, 0, Free),
        "httpMethod" => of(Field::Method, 0, Word),
        "status" => of(Field::Status, 0, Status),
        "responseLatency" => of(Field::Latency(Unit::Millis), 0, Number),
        "integrationLatency" | "integration.latency" => of(Field::Latency(Unit::Millis), 1, Number),
        "responseLength" => of(Field::BytesOut, 0, Number),
        "identity.sourceIp" => of(Field::ClientIp, 0, Word),
        "identity.userAgent" => of(Field::UserAgent, 0, Free),
        "identity.apiKey" => of(Field::Key, 0, Free),
        "identity.apiKeyId" => of(Field::Credential, 0, Word),
        "identity.user" => of(Field::User, 0, Free),
        "authorizer.principalId" | "authorizer.claims.sub" => of(Field::User, 1, Free),
        "requestId"
        | "stage"
        | "protocol"
        | "accountId"
        | "resourceId"
        | "identity.caller"
        | "identity.accountId"
        | "identity.cognitoIdentityId"
        | "identity.cognitoIdentityPoolId"
        | "integrationStatus"
        | "integration.status"
        | "integration.requestId"
        | "error.responseType" => Variable::other(name, Word),
        _ => Variable::other(name, Free),
    }
}
