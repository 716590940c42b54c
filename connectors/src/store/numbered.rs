//! Objects with numbers, each written once and only if it isn't there.
//!
//! ```text
//! DIR/ledger/NUMBER                the record of a tick
//! DIR/ledger/claims/GENERATION     the claim of a life of the job
//! DIR/cluster/GENERATION           the claim of a process to lead this generation of a cluster
//! DIR/outbox/NUMBER                a claim of a mail or request, its outcome, or the beginning of a life of the job
//! ```
//! Numbers have 20 digits, so names are in their order.

use object_store::path::Path;

use super::{Store, StoreError};

const TICKS: &str = "ledger";
const CLAIMS: &str = "ledger/claims";
const CLUSTER: &str = "cluster";
const OUTBOX: &str = "outbox";

/// The objects that have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberedObject {
    Tick(u64),
    Claim(u64),
    ClusterClaim(u64),
    OutboxEntry(u64),
}

impl NumberedObject {
    /// Returns the name of the object in the store.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tick(number) => format!("{TICKS}/{number:020}"),
            Self::Claim(generation) => format!("{CLAIMS}/{generation:020}"),
            Self::ClusterClaim(generation) => format!("{CLUSTER}/{generation:020}"),
            Self::OutboxEntry(number) => format!("{OUTBOX}/{number:020}"),
        }
    }
}

impl Store {
    /// Writes an object; returns false if it was there already.
    ///
    /// # Errors
    /// If it isn't known to be written.
    pub fn put_record(&self, object: NumberedObject, bytes: Vec<u8>) -> Result<bool, StoreError> {
        self.put_sealed(&object.name(), &[bytes.into()])
    }

    /// Reads an object, if it is there.
    ///
    /// # Errors
    /// If it can't be read or is damaged.
    pub fn get_record(&self, object: NumberedObject) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_sealed(&object.name())
    }

    /// Deletes an object. One that is gone already is no error.
    ///
    /// # Errors
    /// If it can't be deleted.
    pub fn delete_record(&self, object: NumberedObject) -> Result<(), StoreError> {
        self.delete_if_present(&object.name())
    }

    /// Returns the numbers of all ticks of the ledger, in ascending order.
    pub(crate) fn ledger_ticks(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(TICKS)
    }

    /// Returns the generations of all claims of the ledger, in ascending order.
    pub(crate) fn ledger_claims(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(CLAIMS)
    }

    /// Returns the generations of a cluster that have claims, in ascending order.
    pub(crate) fn cluster_claims(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(CLUSTER)
    }

    /// Returns the numbers of all entries of the outbox, in ascending order.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn outbox_numbers(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(OUTBOX)
    }

    /// Returns the numbers that are names of objects in a folder. Other objects aren't ours.
    fn numbers(&self, folder: &str) -> Result<Vec<u64>, StoreError> {
        let listed = self.list(folder)?;
        let number = |path: &Path| {
            let name = path.filename()?;
            (name.len() == 20).then(|| name.parse().ok())?
        };
        let mut numbers: Vec<u64> = listed.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}
