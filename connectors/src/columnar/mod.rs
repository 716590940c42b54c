//! Tables as Parquet files: columns, rows gathered by column, and the file that they are written to.
//!
//! ```text
//! rows as JSON ──► Batch (columns of some thousand rows) ──► ParquetFile (row groups) ──► any writer
//! ```
//! A batch is cut out of the JSON that all sinks have in common, so a value is the same in every format. Batches can be
//! made by several threads. A file depends on the rows and on where batches end, and on nothing else.
//!
//! The writer is the crate `parquet` without arrow: its low-level writer takes columns as slices, which is all that is
//! needed here.
//!
//! Limits: a row group has [`GROUP_ROWS`] rows, or less if their texts take [`GROUP_BYTES`]; the batches of one group are
//! held in memory. A whole number above 2^63 - 1 is written as that: readers of Parquet agree on signed numbers alone.

mod batch;
mod file;

pub use batch::{Batch, RowError};
pub use file::{GROUP_BYTES, GROUP_ROWS, ParquetFile, note};

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
    /// True if a row may have no value in it.
    pub is_optional: bool,
}

/// The kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Text,
    /// Any JSON, whose text is kept as it came.
    Json,
    /// A whole number that isn't negative.
    Integer,
    Boolean,
    /// A time in UTC, in milliseconds.
    Time,
}
