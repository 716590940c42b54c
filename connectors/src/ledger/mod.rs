//! The ledger of a live job: which ticks were committed, from which records, and by which life of the job.

mod record;
mod rows;

pub use record::{AddedPartition, Claim, LedgerRecord, MadeBy, PartitionProgress, TickRecord};
pub use rows::{KeptHeaders, KeptRow, KeptRows};
