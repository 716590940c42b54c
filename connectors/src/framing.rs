//! The bytes before a message: the first ones of gzip, or the frame that serializers of a schema registry put there.
//!
//! ```text
//! 00 iiii…        Confluent: a zero, the schema's id in 4 bytes, the message
//! 01 g × 16 …     Confluent with a schema's GUID: a one, 16 bytes, the message
//! ```
//!
//! No JSON text begins with either byte, so a frame can't be mistaken for a message. The message behind it is JSON
//! where JSON Schema is used. Messages in Avro and Protobuf aren't read.

/// The first bytes of gzip (RFC 1952), in front of the method.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Bytes in front of the message, by the first of them.
const FRAMES: [(u8, usize); 2] = [(0, 5), (1, 17)];

/// The reason for refusing a message that is framed and isn't JSON.
pub(crate) const NOT_JSON: &str =
    "Avro or Protobuf of a schema registry, which is not read: use its JSON Schema serializer, or plain JSON";

/// Returns the message behind the frame, or the message itself if it has none.
///
/// # Errors
/// [`NOT_JSON`] if the bytes behind a frame aren't JSON.
pub(crate) fn unframed(message: &[u8]) -> Result<&[u8], &'static str> {
    let frame = FRAMES.iter().find(|(first, _)| message.first() == Some(first));
    let Some((_, length)) = frame else { return Ok(message) };
    let json = message.get(*length..).unwrap_or_default();
    match json.trim_ascii_start().first() {
        Some(b'{' | b'[') => Ok(json),
        _ => Err(NOT_JSON),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_behind_a_frame_is_read_and_nothing_else() {
        assert_eq!(unframed(b"\x00\x00\x00\x00\x07{\"a\":1}"), Ok(&b"{\"a\":1}"[..]));
        assert_eq!(unframed(b"\x00\x7b\x7b\x7b\x7b [1]"), Ok(&b" [1]"[..]));
        assert_eq!(unframed(b"\x010123456789abcdef{}"), Ok(&b"{}"[..]));
        for plain in [&b""[..], b"{}", b" {}", b"[]", b"text", b"\xef\xbb\xbf{}"] {
            assert_eq!(unframed(plain), Ok(plain));
        }
        for other in
            [&b"\x00"[..], b"\x00\x00\x00\x00\x07", b"\x00\x00\x00\x00\x07\x02a", b"\x00{}", b"\x01{}"]
        {
            assert_eq!(unframed(other), Err(NOT_JSON));
        }
    }
}
