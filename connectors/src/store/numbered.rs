//! The objects of a ledger, each written once and only if it isn't there.
//!
//! ```text
//! DIR/ledger/NUMBER                the record of a tick
//! DIR/ledger/claims/GENERATION     the claim of a life of the job
//! ```
//! Numbers have 20 digits, so names are in their order.

use object_store::path::Path;

use super::{Store, StoreError};

const TICKS: &str = "ledger";
const CLAIMS: &str = "ledger/claims";

/// The two kinds of objects of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerObject {
    Tick(u64),
    Claim(u64),
}

impl LedgerObject {
    /// Returns the name of the object in the store.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tick(number) => format!("{TICKS}/{number:020}"),
            Self::Claim(generation) => format!("{CLAIMS}/{generation:020}"),
        }
    }
}

impl Store {
    /// Writes an object of the ledger; returns false if it was there already.
    pub(crate) fn put_record(&self, object: LedgerObject, bytes: Vec<u8>) -> Result<bool, StoreError> {
        self.put_sealed(&object.name(), &[bytes.into()])
    }

    /// Reads an object of the ledger, if it is there.
    pub(crate) fn get_record(&self, object: LedgerObject) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_sealed(&object.name())
    }

    /// Returns the numbers of all ticks of the ledger, in ascending order.
    pub(crate) fn ledger_ticks(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(TICKS)
    }

    /// Returns the generations of all claims of the ledger, in ascending order.
    pub(crate) fn ledger_claims(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(CLAIMS)
    }

    /// Deletes an object of the ledger. One that is gone already is no error.
    pub(crate) fn delete_record(&self, object: LedgerObject) -> Result<(), StoreError> {
        self.delete_if_present(&object.name())
    }

    /// Returns the numbers that are names of objects in a folder. Other objects aren't ours.
    pub(super) fn numbers(&self, folder: &str) -> Result<Vec<u64>, StoreError> {
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
