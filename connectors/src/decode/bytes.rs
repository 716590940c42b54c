//! Bytes that aren't UTF-8 inside texts: callers can send them, and gateways log them as they came.
//!
//! A reader works on `str`. No such byte may cost a record, and no two messages may become the same text. So each byte
//! that isn't part of UTF-8 is carried by one of the 128 last code points, U+10FF80 to U+10FFFF. Byte 0x80 + n is
//! carried by U+10FF80 + n. They are for private use, and two of them are no characters. If a message holds one of
//! these code points itself, each of its four bytes is carried in the same way. So the mapping is one-to-one:
//!
//! ```text
//! bytes ──carried──► str ──restored──► the same bytes
//!                     └───shown──────► str with U+FFFD
//! ```
//! Keys are hashed from their restored bytes, and people see texts as [`shown`] returns them.

use std::borrow::Cow;

/// The code point that carries byte 0x80. The n-th behind it carries byte 0x80 + n.
const FIRST: u32 = 0x10_FF80;
/// First byte of the carriers in UTF-8, and of all code points from U+100000 on. Nearly no text has one.
const LEAD: u8 = 0xF4;

/// Returns the text that carries `bytes`, borrowed if they are UTF-8 without carriers.
#[inline]
pub(super) fn carried(bytes: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) if !has_carriers(text) => Cow::Borrowed(text),
        _ => Cow::Owned(carry(bytes)),
    }
}

#[cold]
fn carry(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        if has_carriers(chunk.valid()) {
            chunk.valid().chars().for_each(|c| push_char(c, &mut text));
        } else {
            text.push_str(chunk.valid());
        }
        chunk.invalid().iter().for_each(|byte| push_carrier(*byte, &mut text));
    }
    text
}

/// Appends bytes in the form that [`carried`] returns.
pub(super) fn push_bytes(bytes: &[u8], text: &mut String) {
    text.push_str(&carried(bytes));
}

/// Appends a character of a message, or its carried bytes if it is a carrier itself.
pub(super) fn push_char(c: char, text: &mut String) {
    if carrier(c).is_some() {
        c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_carrier(byte, text));
    } else {
        text.push(c);
    }
}

fn push_carrier(byte: u8, text: &mut String) {
    // Only bytes that aren't ASCII get here.
    let code = FIRST + u32::from(byte & 0x7F);
    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
}

/// The byte that a character carries, if it is a carrier.
fn carrier(c: char) -> Option<u8> {
    u32::from(c).checked_sub(FIRST).and_then(|n| u8::try_from(n).ok()).map(|n| 0x80 | n)
}

#[inline]
fn has_carriers(text: &str) -> bool {
    // The lead byte is looked for first, because it is found at memory speed.
    memchr::memchr(LEAD, text.as_bytes()).is_some() && text.chars().any(|c| carrier(c).is_some())
}

/// Returns the bytes that a text carries, as they arrived.
#[inline]
pub(super) fn restored(text: &str) -> Cow<'_, [u8]> {
    if !has_carriers(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match carrier(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Returns the text as people see it, with U+FFFD for bytes that aren't UTF-8.
#[inline]
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    match restored(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_shown() {
        assert!(matches!(carried("a€😀\u{10FF7F}".as_bytes()), Cow::Borrowed("a€😀\u{10FF7F}")));
        assert_eq!(carried(b"a\xFFb"), "a\u{10FFFF}b");
        assert_eq!(shown(&carried(b"a\xFF\x80b\xC3")), "a\u{fffd}\u{fffd}b\u{fffd}");
        assert_eq!(shown(&carried("x\u{10FFFF}".as_bytes())), "x\u{10FFFF}");
        assert_ne!(carried("\u{10FFFF}".as_bytes()), "\u{10FFFF}");
    }

    proptest! {
        /// No two messages are carried alike, and a part of a text is the part of the bytes.
        #[test]
        fn nothing_is_lost(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0xF0_u8..=0xFF, 0x80_u8..0xC0], 0..40),
            private in "[\u{10FF70}-\u{10FFFF}a]{0,4}",
        ) {
            let bytes = [&bytes[..], private.as_bytes(), &bytes].concat();
            let text = carried(&bytes);
            prop_assert_eq!(&*restored(&text), &bytes[..]);
            prop_assert_eq!(shown(&text), String::from_utf8_lossy(&bytes));
            let parts: Vec<u8> =
                text.split('a').map(|part| restored(part).into_owned()).collect::<Vec<_>>().join(&b'a');
            prop_assert_eq!(parts, bytes);
        }
    }
}
