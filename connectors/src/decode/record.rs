//! The bytes of records, which dead letters are made of.

use std::borrow::Cow;

use super::bytes::restored;

/// A record of a dead letter, as bytes or as a text that carries them.
pub(super) trait RecordBytes {
    /// Returns the record's bytes as they arrived.
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
