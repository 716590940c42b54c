//! The entries of the outbox of alerts, each written once and only if it isn't there.
//!
//! ```text
//! DIR/outbox/NUMBER     a claim of a mail or request, its outcome, or the beginning of a life of the job
//! ```
//! Numbers have 20 digits, so names are in their order.

use bytes::Bytes;

use super::{Store, StoreError};

const OUTBOX: &str = "outbox";

fn name(number: u64) -> String {
    format!("{OUTBOX}/{number:020}")
}

impl Store {
    /// Writes an entry of the outbox; returns false if it was there already.
    ///
    /// # Errors
    /// If it isn't known to be written.
    pub fn put_outbox(&self, number: u64, bytes: Vec<u8>) -> Result<bool, StoreError> {
        self.put_sealed(&name(number), &[Bytes::from(bytes)])
    }

    /// Reads an entry of the outbox, if it is there.
    ///
    /// # Errors
    /// If it can't be read or is damaged.
    pub fn get_outbox(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_sealed(&name(number))
    }

    /// Returns the numbers of all entries of the outbox, in ascending order.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn outbox_numbers(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(OUTBOX)
    }

    /// Deletes an entry of the outbox. One that is gone already is no error.
    ///
    /// # Errors
    /// If it can't be deleted.
    pub fn delete_outbox(&self, number: u64) -> Result<(), StoreError> {
        self.delete_if_present(&name(number))
    }
}
