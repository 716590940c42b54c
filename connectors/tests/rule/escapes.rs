//! How servers write a text into a log: bytes in, bytes out.

use std::fmt::Write as _;

fn each(text: &[u8], mut write: impl FnMut(u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in text {
        write(*byte, &mut out);
    }
    out
}

fn short(byte: u8) -> Option<&'static [u8]> {
    Some(match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        0x08 => b"\\b",
        0x0c => b"\\f",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        b'\t' => b"\\t",
        _ => return None,
    })
}

/// lua-cjson: bytes above 0x7F as they are.
pub(crate) fn cjson(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match (short(byte), byte) {
        (Some(escape), _) => out.extend_from_slice(escape),
        (None, b'/') => out.extend_from_slice(b"\\/"),
        (None, 0..0x20 | 0x7f) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        _ => out.push(byte),
    })
}

/// NGINX with `escape=json`: bytes above 0x7F as they are.
pub(crate) fn nginx_json(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match (short(byte), byte) {
        (Some(escape), _) => out.extend_from_slice(escape),
        (None, 0..0x20) => out.extend_from_slice(format!("\\u{byte:04X}").as_bytes()),
        _ => out.push(byte),
    })
}

/// NGINX by default.
pub(crate) fn nginx(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match byte {
        b'"' | b'\\' | 0..0x20 | 0x7f.. => out.extend_from_slice(format!("\\x{byte:02X}").as_bytes()),
        _ => out.push(byte),
    })
}

/// Apache httpd.
pub(crate) fn apache(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match (short(byte), byte) {
        (Some(escape), _) if byte != 0x0c => out.extend_from_slice(escape),
        (_, 0x0b) => out.extend_from_slice(b"\\v"),
        (_, 0..0x20 | 0x7f..) => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        _ => out.push(byte),
    })
}

/// Nothing is escaped.
pub(crate) fn none(text: &[u8]) -> Vec<u8> {
    text.to_vec()
}

/// Text that isn't UTF-8 becomes text, each byte a character of `instead`.
fn replaced(text: &[u8], instead: char) -> String {
    let mut out = String::new();
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| instead));
    }
    out
}

fn json(text: &str, is_unicode_escaped: impl Fn(char) -> bool) -> Vec<u8> {
    let mut out = String::new();
    for c in text.chars() {
        match u8::try_from(c).ok().and_then(short) {
            Some(escape) => out.extend(escape.iter().map(|byte| char::from(*byte))),
            None if c < ' ' || is_unicode_escaped(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            None => out.push(c),
        }
    }
    out.into_bytes()
}

/// Go: each byte that isn't UTF-8 is U+FFFD; `encoding/json` escapes what is HTML.
pub(crate) fn go(text: &[u8]) -> Vec<u8> {
    json(&replaced(text, '\u{fffd}'), |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'))
}

/// Java, as behind CloudWatch: ASCII alone.
pub(crate) fn java(text: &[u8]) -> Vec<u8> {
    json(&String::from_utf8_lossy(text), |c| c >= '\u{7f}')
}

/// Envoy before it had a writer of its own: each byte that isn't UTF-8 is `!`.
pub(crate) fn envoy_protobuf(text: &[u8]) -> Vec<u8> {
    json(&replaced(text, '!'), |c| matches!(c, '<' | '>' | '\u{7f}'))
}

/// Envoy since: a text that isn't UTF-8 has octal escapes, which JSON doesn't know.
pub(crate) fn envoy(text: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => json(text, |c| c == '\u{7f}'),
        Err(_) => each(text, |byte, out| match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(byte),
        }),
    }
}

/// What a service makes of what it logs, UTF-8 or not.
pub(crate) fn lossy(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).into_owned().into_bytes()
}

/// HAProxy's request lines.
pub(crate) fn haproxy(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match byte {
        b'"' | b'#' | 0..0x20 | 0x7f.. => out.extend_from_slice(format!("#{byte:02X}").as_bytes()),
        _ => out.push(byte),
    })
}

/// HAProxy's captured headers.
pub(crate) fn haproxy_header(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match byte {
        b'"' | b'#' | b'{' | b'|' | b'}' | 0..0x20 | 0x7f.. => {
            out.extend_from_slice(format!("#{byte:02X}").as_bytes())
        }
        _ => out.push(byte),
    })
}

/// CloudFront: what isn't printable, blanks and quotes are percent-encoded.
pub(crate) fn cloudfront(text: &[u8]) -> Vec<u8> {
    each(text, |byte, out| match byte {
        b' '
        | b'"'
        | b'\''
        | b'\\'
        | b'<'
        | b'>'
        | b'#'
        | b'{'
        | b'|'
        | b'}'
        | b'^'
        | b'~'
        | b'['
        | b']'
        | b'`'
        | 0..0x20
        | 0x7f.. => {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
        _ => out.push(byte),
    })
}
