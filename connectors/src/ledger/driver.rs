//! The actions of the machine, which Kafka and the store each do in their way.

use std::sync::Arc;
use std::time::Duration;

use super::error::LedgerError;
use super::machine::Answer;
use super::reading::Reading;
use super::record::LedgerRecord;
use super::rows::KeptRows;

/// Returns true once a commit has to give up.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Does the actions of a [`Machine`](super::machine::Machine).
///
/// An error ends the ledger. An answer may say that an action failed, and then the machine decides.
pub(super) trait Driver: Send {
    /// Returns the name of the ledger in messages.
    fn name(&self) -> String;

    /// Returns how many ticks a transaction may have.
    fn max_ticks(&self) -> usize;

    fn new_producer(&mut self) -> Result<Answer, LedgerError>;

    /// Reads all records that are in the ledger now and weren't read before.
    fn read(&mut self, reading: &mut Reading) -> Result<(), LedgerError>;

    fn begin(&mut self) -> Answer;

    /// Sends rows, and waits until all are acknowledged. Counts those that are too large in `rejected`; `is_first` is
    /// false if they were counted before.
    fn send_rows(
        &mut self,
        rows: &KeptRows,
        is_first: bool,
        rejected: &mut u64,
    ) -> Result<Answer, LedgerError>;

    /// Sends records of the ledger, and waits until all are acknowledged.
    fn send_records(&mut self, records: &[LedgerRecord]) -> Result<Answer, LedgerError>;

    fn commit(&mut self, took: &mut Duration) -> Result<Answer, LedgerError>;

    /// Deletes the records of ticks before the number `below`, if they don't go by themselves.
    fn forget(&mut self, below: u64) -> Result<(), LedgerError>;
}
