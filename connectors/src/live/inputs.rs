//! The inputs of a tick that offsets can't bring back, in the form in which they are stored.

use crate::tables::TablesRead;

/// What tables changed in a tick. It is encoded as it comes, in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickInputs {
    blocks: Vec<Vec<u8>>,
}

impl TickInputs {
    /// Adds changes.
    pub(super) fn add(&mut self, read: &TablesRead) {
        self.blocks.push(postcard::to_stdvec(read).expect("plain data can be written to memory"));
    }

    /// Returns whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the bytes in pieces.
    #[must_use]
    pub fn into_blocks(self) -> Vec<Vec<u8>> {
        self.blocks
    }

    /// Reads what [`into_blocks`](Self::into_blocks) returned, joined.
    ///
    /// # Errors
    /// If another version wrote the bytes.
    pub fn read(mut bytes: &[u8]) -> Result<TablesRead, postcard::Error> {
        let mut all = TablesRead::default();
        while !bytes.is_empty() {
            let (read, rest) = postcard::take_from_bytes(bytes)?;
            all.append(read);
            bytes = rest;
        }
        Ok(all)
    }
}
