//! Base64 (RFC 4648) as JSON carries bytes: the standard alphabet, with its padding or without it, nothing else.

/// Decodes `text` into `out`, which is at most three quarters as long; `None` if it isn't base64.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > 0 && (!text.len().is_multiple_of(4) || padding > 2) {
        return None;
    }
    out.reserve(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            bits = bits << 6 | value(*digit)?;
        }
        let bytes = match group.len() {
            4 => 3,
            // Bits that no byte needs are zero, so that a text has one way to be written.
            3 if bits & 0x3 == 0 => 2,
            2 if bits & 0xF == 0 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    }
    Some(())
}

fn value(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        decode(text.as_bytes(), &mut out).map(|()| out)
    }

    #[test]
    fn the_vectors_of_rfc_4648_with_and_without_padding() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(plain.as_bytes()), "{text}");
            assert_eq!(decoded(text.trim_end_matches('=')).as_deref(), Some(plain.as_bytes()), "{text}");
        }
        assert_eq!(decoded("/+8A"), Some(vec![0xFF, 0xEF, 0x00]));
    }

    #[test]
    fn what_isnt_base64_is_refused() {
        for text in [
            "Z", "Zg=", "Zg===", "Zm8==", "=", "====", "Zh==", "Zm9=", "Zm 9v", "Zm9v\n", "Zm-v", "Z=m8",
            "Zm9vY",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
