//! A record as a dead letter has it.

use std::borrow::Cow;

use super::bytes::restored;

/// A record of a dead letter: bytes, or a text that carries them.
pub(super) trait RecordBytes {
    /// The bytes as they arrived.
    fn bytes(&self) -> Cow<'_, [u8]>;
}

impl RecordBytes for [u8] {
    fn bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self)
    }
}

impl RecordBytes for str {
    fn bytes(&self) -> Cow<'_, [u8]> {
        restored(self)
    }
}
