//! Base64 (RFC 4648) as JSON carries bytes: the standard alphabet, with its padding or without it, nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Decodes `text` into `out`, which is at most three quarters as long. Returns `None` if it isn't base64, or has bits
/// that no byte needs.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let engine = if text.ends_with(b"=") { STANDARD } else { STANDARD_NO_PAD };
    engine.decode_vec(text, out).ok()
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
