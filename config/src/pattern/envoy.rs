//! Parses Envoy's format strings of access logs.

use super::{LineField, LineForm, LineTime, Misread, Piece, PlacedPiece, Variable, header_name, time};
use crate::time::Unit;

/// Returns whether a text has a command operator of Envoy.
pub(super) fn has_sign(text: &str) -> bool {
    text.match_indices('%').any(|(at, _)| {
        let rest = &text[at + 1..];
        let length = name_length(rest);
        length >= 3 && matches!(rest.as_bytes().get(length), Some(b'%' | b'(' | b':'))
    })
}

fn name_length(text: &str) -> usize {
    let in_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    text.bytes().take_while(in_name).count()
}

pub(super) fn pieces(text: &str) -> Result<Vec<PlacedPiece>, Misread> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(sign) = text[at..].find('%').map(|sign| at + sign) {
        pieces.push((at, Piece::Literal(text[at..sign].replace("\\\"", "\""))));
        if text[sign + 1..].starts_with('%') {
            pieces.push((sign, Piece::Literal("%".to_owned())));
            at = sign + 2;
            continue;
        }
        let (name, argument, end) = operator(text, sign)?;
        pieces.push((sign, Piece::Variable(variable(name, argument, &text[sign + 1..end - 1], sign)?)));
        at = end;
    }
    pieces.push((at, Piece::Literal(text[at..].replace("\\\"", "\""))));
    Ok(pieces)
}

/// Returns name, argument and end of the operator `%NAME(ARGUMENT):LENGTH%` at byte `sign`.
fn operator(text: &str, sign: usize) -> Result<(&str, Option<&str>, usize), Misread> {
    const ALLOWED: &str =
        "allowed: such as %PROTOCOL%, %REQ(USER-AGENT)%, %REQ(:PATH):100%, and %% for a percent sign";
    let misread = |problem: &str| Misread(sign, format!("{problem}, {ALLOWED}"));
    let length = name_length(&text[sign + 1..]);
    let name = &text[sign + 1..][..length];
    if name.is_empty() {
        return Err(misread("`%` without a name of capitals behind it"));
    }
    let mut at = sign + 1 + length;
    let mut argument = None;
    if let Some(inner) = text[at..].strip_prefix('(') {
        // Formats of times hold percent signs, and may hold parentheses of their own.
        let close = inner.find(")%").or_else(|| inner.find("):"));
        let close = close.ok_or_else(|| misread("`(` without its `)%`"))?;
        let early = inner.find("):").filter(|early| {
            *early < close
                && inner[early + 2..close].bytes().all(|byte| byte.is_ascii_digit() || byte == b'%')
        });
        let close = early.unwrap_or(close);
        argument = Some(&inner[..close]);
        at += close + 2;
    }
    if let Some(inner) = text[at..].strip_prefix(':') {
        let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(misread("`:` without a length behind it"));
        }
        at += 1 + digits;
    }
    if !text[at..].starts_with('%') {
        return Err(misread("no closing percent sign"));
    }
    Ok((name, argument, at + 1))
}

fn variable(operator: &str, argument: Option<&str>, name: &str, sign: usize) -> Result<Variable, Misread> {
    use LineField as Field;
    use LineForm::{Free, Number, Status, Word};
    let of = |field, rank, form| Variable::of(name, field, rank, form);
    let other = |form| Variable::other(name, form);
    Ok(match (operator, argument) {
        ("START_TIME" | "START_TIME_LOCAL", None | Some("")) => of(Field::Time(LineTime::Rfc3339), 0, Word),
        ("EMIT_TIME" | "EMIT_TIME_LOCAL", None | Some("")) => of(Field::Time(LineTime::Rfc3339), 1, Word),
        ("START_TIME" | "START_TIME_LOCAL" | "EMIT_TIME" | "EMIT_TIME_LOCAL", Some(format)) => {
            let parts = time::parts(format).map_err(|problem| Misread(sign, problem))?;
            let form = time::width(&parts).map_or(Free, LineForm::Fixed);
            of(Field::Time(LineTime::Parts(parts)), u8::from(operator.starts_with('E')), form)
        }
        ("REQ" | "REQ_WITHOUT_QUERY", Some(headers)) => request_header(name, headers),
        ("PATH", _) => of(Field::Path, 0, Free),
        ("QUERY_PARAMS", _) => of(Field::Query, 0, Free),
        ("QUERY_PARAM", Some(argument)) => Variable { argument: Some(argument.to_owned()), ..other(Free) },
        ("RESPONSE_CODE", None) => of(Field::Status, 0, Status),
        ("DURATION", None) => of(Field::Latency(Unit::Millis), 0, Number),
        ("RESP", Some(header)) if header.eq_ignore_ascii_case("x-envoy-upstream-service-time") => {
            of(Field::Latency(Unit::Millis), 1, Number)
        }
        ("BYTES_RECEIVED", None) => of(Field::BytesIn, 0, Number),
        ("BYTES_SENT", None) => of(Field::BytesOut, 0, Number),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", _) => of(Field::ClientIp, 0, Word),
        ("DOWNSTREAM_REMOTE_ADDRESS", _) => of(Field::ClientIp, 1, Word),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", _) => of(Field::ClientIp, 2, Word),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", _) => of(Field::ClientIp, 3, Word),
        ("UNIQUE_ID", None) => of(Field::RequestId, 0, Word),
        (
            "CONNECTION_ID"
            | "REQUEST_DURATION"
            | "REQUEST_TX_DURATION"
            | "RESPONSE_DURATION"
            | "RESPONSE_TX_DURATION"
            | "UPSTREAM_REQUEST_ATTEMPT_COUNT",
            None,
        ) => other(Number),
        (
            "PROTOCOL"
            | "RESPONSE_FLAGS"
            | "RESPONSE_FLAGS_LONG"
            | "RESPONSE_CODE_DETAILS"
            | "HOSTNAME"
            | "UPSTREAM_HOST"
            | "UPSTREAM_HOST_NAME"
            | "UPSTREAM_CLUSTER"
            | "UPSTREAM_CLUSTER_RAW"
            | "UPSTREAM_LOCAL_ADDRESS"
            | "UPSTREAM_REMOTE_ADDRESS"
            | "DOWNSTREAM_LOCAL_ADDRESS"
            | "DOWNSTREAM_LOCAL_PORT"
            | "DOWNSTREAM_TLS_VERSION"
            | "DOWNSTREAM_TLS_CIPHER"
            | "TRACE_ID"
            | "STREAM_ID"
            | "UPSTREAM_PROTOCOL",
            None,
        ) => other(Word),
        _ => other(Free),
    })
}

/// Returns the variable of a request's header, of which `headers` names alternatives between question marks.
fn request_header(name: &str, headers: &str) -> Variable {
    use LineField as Field;
    use LineForm::{Free, Word};
    let headers: Vec<String> = headers.split('?').map(|header| header.trim().to_ascii_lowercase()).collect();
    let is = |header: &str| headers.iter().any(|found| found == header);
    if is(":path") || is("x-envoy-original-path") || is("x-envoy-origin-path") {
        return Variable::of(name, Field::Path, 0, Free);
    }
    if is(":method") {
        return Variable::of(name, Field::Method, 0, Word);
    }
    let headers: Vec<String> = headers.iter().map(|header| header_name(header)).collect();
    let is = |header: &str| headers.iter().any(|found| found == header);
    let field = if is(":authority") || is("host") {
        Some((Field::Api, 0))
    } else if is("user_agent") {
        Some((Field::UserAgent, 0))
    } else if is("x_forwarded_for") {
        Some((Field::ForwardedFor, 0))
    } else {
        None
    };
    Variable { field, headers, ..Variable::other(name, Free) }
}
