//! Rows of parts as frames of Zstandard (RFC 8878).
//!
//! Rows of one kind resemble each other: numbers of 64 bits that are small, keys that come again. The fastest level takes
//! about half of their bytes away, and less time than a disk or a network takes for these. Frames have no checksum of
//! their own, because objects do.

use std::io::{self, Read as _, Write as _};

use zstd::stream::{read::Decoder, write::Encoder};

/// The fastest of the usual levels.
const LEVEL: i32 = 1;

/// Returns the frame of bytes that come in blocks.
pub(super) fn pack(blocks: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
    blocks.iter().try_for_each(|block| encoder.write_all(block))?;
    encoder.finish()
}

/// Returns the bytes of a frame, of which there must be as many as `expected`. A frame of more isn't read to its end.
pub(super) fn unpack(frame: &[u8], expected: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // At once, since a buffer that grows is cleared and copied more than once. A number that is wrong is an error.
    let capacity = usize::try_from(expected).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(capacity).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    Decoder::with_buffer(frame)?.take(expected.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != expected {
        let reason = format!("there are not {expected} bytes in it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_come_back_as_one(blocks in prop::collection::vec(prop::collection::vec(0_u8..8, 0..3_000), 0..6)) {
            let (frame, whole) = (pack(&blocks).unwrap(), blocks.concat());
            let expected = whole.len() as u64;
            prop_assert_eq!(unpack(&frame, expected).unwrap(), whole);
            prop_assert!(unpack(&frame, expected + 1).is_err());
            prop_assert!(expected == 0 || unpack(&frame, expected - 1).is_err());
        }

        #[test]
        fn foreign_bytes_are_an_error_or_as_many_as_expected(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let is_right = |found: io::Result<Vec<u8>>| found.map_or(true, |found| found.len() == 300);
            prop_assert!(is_right(unpack(&bytes, 300)));
            let mut frame = pack(&[bytes]).unwrap();
            let at = at.index(frame.len());
            frame[at] ^= flip;
            prop_assert!(is_right(unpack(&frame, 300)));
            frame.truncate(at);
            prop_assert!(is_right(unpack(&frame, 300)));
        }
    }
}
