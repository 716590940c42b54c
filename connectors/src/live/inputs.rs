//! The inputs of a tick that offsets can't bring back, in the form in which they are stored.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::tables::TablesRead;

/// What tables changed in a tick, what people and gateways said, and which decoders were replaced at its end. Tables are encoded as they come, in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickInputs {
    decoders: Option<String>,
    tables: Vec<Bytes>,
}

/// The inputs of a tick as they were read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordedInputs {
    /// The name of the decoders of the ticks behind it, if they were replaced.
    pub decoders: Option<String>,
    pub tables: TablesRead,
}

/// The content of the first block, which comes before those of tables.
#[derive(Serialize, Deserialize)]
struct Head {
    decoders: Option<String>,
}

impl TickInputs {
    /// Adds changes of tables in the order in which they are read.
    pub(super) fn add(&mut self, read: &TablesRead) {
        self.tables.push(encode(read));
    }

    /// Notes that the ticks behind this one have other decoders.
    pub(super) fn replace_decoders(&mut self, name: String) {
        self.decoders = Some(name);
    }

    /// Returns whether nothing changed in the tick.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.decoders.is_none()
    }

    /// Returns the bytes in pieces.
    #[must_use]
    pub fn into_blocks(self) -> Vec<Bytes> {
        let mut blocks = self.tables;
        blocks.insert(0, encode(&Head { decoders: self.decoders }));
        blocks
    }

    /// Reads what [`into_blocks`](Self::into_blocks) returned, joined.
    ///
    /// # Errors
    /// If another version wrote the bytes.
    pub fn read(bytes: &[u8]) -> Result<RecordedInputs, postcard::Error> {
        let (Head { decoders }, mut bytes) = postcard::take_from_bytes(bytes)?;
        let mut tables = TablesRead::default();
        while !bytes.is_empty() {
            let (read, rest) = postcard::take_from_bytes(bytes)?;
            tables.append(read);
            bytes = rest;
        }
        Ok(RecordedInputs { decoders, tables })
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    postcard::to_stdvec(value).expect("plain data can be written to memory").into()
}
