//! Undoes the escapes of JSON, those that gateways write in JSON without its having them, and those of httpds' logs.

use smallvec::SmallVec;

use super::bytes::{push_bytes, push_char, restored};

/// Unescapes the inside of a JSON string, with bytes that aren't UTF-8 as [`bytes`](super::bytes) carries them. A lone
/// surrogate, which JSON's grammar allows and UTF-8 doesn't, becomes U+FFFD. `\xHH` and `\OOO` are bytes. Anything
/// that isn't an escape stays as it is.
pub(super) fn unescape_json(escaped: &str, out: &mut String) {
    out.clear();
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let Some(code) = rest[at + 1..].chars().next() else {
            out.push('\\');
            return;
        };
        let escape = &rest[at..];
        rest = &rest[at + 1 + code.len_utf8()..];
        match code {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            '"' | '\\' | '/' => out.push(code),
            // HAProxy escapes as RFC 5424 has it.
            ']' => out.push(code),
            'u' => match hex4(rest) {
                Some(unit) => {
                    rest = &rest[4..];
                    let low =
                        rest.strip_prefix("\\u").and_then(hex4).filter(|low| (0xDC00..0xE000).contains(low));
                    let code = match (unit, low) {
                        (0xD800..0xDC00, Some(low)) => {
                            rest = &rest[6..];
                            0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                        }
                        _ => unit,
                    };
                    push_char(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), out);
                }
                None => out.push_str("\\u"),
            },
            'x' | '0'..='3' => {
                // Bytes that follow each other may be a character together.
                let bytes: SmallVec<[u8; 32]> = escape.as_bytes().chunks(4).map_while(escaped_byte).collect();
                match bytes.len() {
                    0 => out.extend(['\\', code]),
                    _ => {
                        push_bytes(&bytes, out);
                        rest = &escape[4 * bytes.len()..];
                    }
                }
            }
            other => out.extend(['\\', other]),
        }
    }
    out.push_str(rest);
}

/// The byte of an escape: `\xHH`, as NGINX writes it by default, or `\OOO` in octal digits, as Envoy does.
fn escaped_byte(escape: &[u8]) -> Option<u8> {
    match escape {
        [b'\\', b'x', high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7'] => {
            Some((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'))
        }
        _ => None,
    }
}

fn hex4(text: &str) -> Option<u32> {
    let digits = text.as_bytes().first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u32::from(hex(*digit)?)))
}

/// Unescapes a field of an httpd's log line, with bytes that aren't UTF-8 as [`bytes`](super::bytes) carries them.
/// Anything that isn't an escape stays as it is.
pub(super) fn unescape_log(escaped: &str, out: &mut String) {
    let escaped = restored(escaped);
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = &*escaped;
    while let [first, tail @ ..] = rest {
        let (byte, width) = match (first, tail) {
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'\\', 1),
            },
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [quoted @ (b'"' | b'\\'), ..]) => (*quoted, 2),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[width..];
    }
    out.clear();
    push_bytes(&bytes, out);
}

/// The value of a hexadecimal digit, in either case.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::super::bytes::shown as text_shown;
    use super::*;

    fn json(escaped: &str) -> String {
        let mut out = String::new();
        unescape_json(escaped, &mut out);
        out
    }

    fn log(escaped: &str) -> String {
        let mut out = String::new();
        unescape_log(escaped, &mut out);
        out
    }

    #[test]
    fn json_escapes() {
        assert_eq!(json(r#"a\"b\\c\/d\b\f\n\r\t"#), "a\"b\\c/d\u{8}\u{c}\n\r\t");
        assert_eq!(json(r"\u00e4\u0041"), "äA");
        assert_eq!(json(r"x\ud83d\ude00y"), "x😀y");
    }

    #[test]
    fn escapes_that_json_does_not_have() {
        let shown = |escaped| text_shown(&json(escaped)).into_owned();
        assert_eq!(json(r"\xC3\xA4\x22\x5C"), "ä\"\\");
        assert_eq!(shown(r"a\xFFb\xe2\x82"), "a\u{fffd}b\u{fffd}");
        assert_eq!(json(r"\xg1\x4\ \é\u12\"), r"\xg1\x4\ \é\u12\");
        assert_eq!(json(r"\303\244\042\]"), "ä\"]");
        assert_eq!(json(r"\400\08\18"), r"\400\08\18");
        // A carrier that was escaped isn't one.
        assert_eq!(shown(r"\udbff\udfff"), "\u{10FFFF}");
        assert_ne!(json(r"\udbff\udfff"), json(r"\xFF"));
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        assert_eq!(json(r"\ud83d"), "\u{fffd}");
        assert_eq!(json(r"\ud83dx"), "\u{fffd}x");
        assert_eq!(json(r"\ude00\ud83d"), "\u{fffd}\u{fffd}");
        assert_eq!(json(r"\ud83d\u0041"), "\u{fffd}A");
    }

    #[test]
    fn log_escapes() {
        assert_eq!(log(r#"a\"b\\c\x41\t"#), "a\"b\\cA\t");
        assert_eq!(text_shown(&log(r"\xc3\xa4 \xff \xg1 \x4")), "ä \u{fffd} \\xg1 \\x4");
        assert_eq!(log("\\"), "\\");
    }
}
