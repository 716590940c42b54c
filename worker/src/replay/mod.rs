//! A bounded run reads all that a job's sources hold, as fast as possible, and writes rows to files.
//!
//! The same input and time give the same bytes, whatever the number of workers and threads. Every decision is made at
//! a record (see `connectors::ingest`) or at a tick (see `dataflow`), and rows are written in the order of their keys.

mod accounts;
mod bounded;
mod collect;
mod figures;
mod incidents;
mod output;
mod runs;
mod sort_key;
mod sorter;
mod view_file;

pub use self::bounded::{BoundedRun, Process, per_second, usage};
pub use self::collect::{Collect, Coverage, Keep};
pub use self::figures::{BusyKey, Figures, JUDGED_AFTER_MS, OfDay, SlowRoute};
pub use self::incidents::IncidentCounts;
pub use self::output::{Written, WrittenIncidents, write, write_incidents};
pub use self::view_file::{RowCounts, ViewFolder};
