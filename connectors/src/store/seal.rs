//! Objects with a checksum of their own: records of the ledger, inputs of ticks, the job's beginning.
//!
//! A last line follows the content, a JSON string of 32 hexadecimal digits: the XXH3 (128 bits) of the object's name
//! and its content. So a byte that changed is found, and an object that was copied to another name. Readers of JSON find
//! one more value.

use bytes::Bytes;
use object_store::PutPayload;
use xxhash_rust::xxh3::Xxh3;

use super::{Store, StoreError};

/// Bytes of the last line, with the line break before it.
const SEAL_BYTES: usize = 35;

impl Store {
    /// Writes an object with its checksum; returns false if it was there already.
    pub(super) fn put_sealed(&self, object: &str, blocks: &[Bytes]) -> Result<bool, StoreError> {
        let seal = Bytes::from(seal(object, blocks));
        let payload: PutPayload = blocks.iter().cloned().chain([seal]).collect();
        self.put_new(object, payload)
    }

    /// Reads an object without its checksum, if it is there.
    pub(super) fn get_sealed(&self, object: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut bytes) = self.get_if_present(object)? else { return Ok(None) };
        let found = bytes.split_off(bytes.len().saturating_sub(SEAL_BYTES));
        if found == seal(object, &[&bytes]) {
            return Ok(Some(bytes));
        }
        let reason = "has another checksum than it was written with".to_owned();
        Err(StoreError::Damaged { object: object.to_owned(), folder: self.place.clone(), reason })
    }
}

fn seal(object: &str, blocks: &[impl AsRef<[u8]>]) -> Vec<u8> {
    format!("\n\"{:032x}\"", checksum(object, blocks)).into_bytes()
}

/// Returns the XXH3 (128 bits) of the name of an object and of its content.
pub(super) fn checksum(object: &str, blocks: &[impl AsRef<[u8]>]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(object.as_bytes());
    hasher.update(&[0]);
    blocks.iter().for_each(|block| hasher.update(block.as_ref()));
    hasher.digest128()
}
