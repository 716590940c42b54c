//! The tables that events are joined with, from files and topics: keys, subscriptions, plans, reports of leaked keys.
//!
//! ```text
//! file   -> rows    one row at a time, CSV or JSON lines, under byte caps    rows.rs
//! record -> row     of a topic: an upsert, or a change event of Debezium     topic.rs
//!        -> row     its cells, with names and checks                         row.rs
//!        -> change  upsert of a typed row, and the strings behind its ids    schema.rs
//!        -> what differs from the rows that are held, deletions too          state.rs
//! ```
//!
//! [`read`] reads files once, for a bounded run. [`WatchedTables`] reads them again when they change, and
//! [`TopicTable`] takes records as they come; both hold the table's rows (280 to 550 bytes each, and 32 for each
//! element of an allow list), because neither a file nor a tombstone says what the deleted row was.
//!
//! A row that lacks what it must have, or has it wrong, becomes a [`TableDeadLetter`] and its neighbours go on. Any
//! other column that can't be read is unknown, and a warning names it: a row costs more than a column. Nothing here quotes a cell, in no message and no `Debug` output, because a table exported by mistake
//! with raw keys instead of their hashes must not spill them. For the same reason a `key_hash` that doesn't
//! look like a hash is refused. What can't be told apart: a raw key that is itself 64 hexadecimal digits (32
//! and more under `prehashed`).
//!
//! The one place for raw keys is the column `token` of `leaks`: a token becomes key ids when its row is read, under
//! each way in which the sources hash keys, and goes no further. Where it stands in the row's URL or source too, it is
//! taken out. A message key of a topic may be one: of these only a hash is held, in memory.
//!
//! In both formats white space around a value is dropped, an empty value is the same as none (as are some words, see
//! `row.rs`), names of columns may differ in case, a row that stands later wins, and a byte order mark at the start is
//! skipped. Times are all that `connectors/src/time.rs` reads, dates too, cut to milliseconds.
//!
//! Limits: 256 KiB a row, 512 bytes a value (or an element of a list; 254 an address, 4,096 a token), 256 elements a
//! list, 10,000,000 rows and 100,000 bad rows a table. A URL is cut after 2,048 bytes.

mod row;
mod rows;
mod schema;
mod state;
mod topic;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keytide_config::{KeyHash, TableSource, Tables};
use keytide_dataflow::model::{Definition, TableChange, TableRow};

use schema::{AcceptedRows, TableSchema};
pub use topic::TopicTable;
pub use watch::WatchedTables;

/// Bytes of a row.
const ROW_BYTES: usize = 256 << 10;
/// Bytes of one value; longer identifiers would be cut in events and never match.
const VALUE_BYTES: usize = 512;
/// Elements of a list.
const LIST_ELEMENTS: usize = 256;
/// Rows of a table.
const ROWS: u64 = 10_000_000;
/// Bad rows of a table that are still worth listing.
const BAD_ROWS: usize = 100_000;

/// What the tables hold, or how they changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TablesRead {
    /// The rows as upserts, and those that are gone: keys, then subscriptions, plans and leaks, each in the order
    /// of its file or topic. Offsets count from 0 in each table.
    pub changes: Vec<TableChange>,
    /// The strings behind the ids in `changes`, in order of appearance.
    pub definitions: Vec<Definition>,
    /// Rows that could not be accepted, in the same order.
    pub dead_letters: Vec<TableDeadLetter>,
    /// What a person should look at, one sentence each.
    pub warnings: Vec<String>,
    /// Values of optional columns that could not be read and count as unknown.
    pub unread: u64,
}

impl TablesRead {
    /// Adds what was read later.
    pub fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
        self.definitions.append(&mut later.definitions);
        self.dead_letters.append(&mut later.dead_letters);
        self.warnings.append(&mut later.warnings);
        self.unread += later.unread;
    }
}

/// A row that could not be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDeadLetter {
    /// `keys`, `subscriptions`, `plans` or `leaks`.
    pub table: &'static str,
    pub location: RowLocation,
    /// Why, in words. Never quotes the row.
    pub reason: String,
    /// The row's length in bytes, without the white space around it (with it where the row is too long to be
    /// held); of a topic, the length of the record's value.
    pub length: u64,
    /// SHA-256 of those bytes.
    pub sha256: [u8; 32],
}

/// Where a row stands. Displays as `path:line` or `topic[partition]@offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowLocation {
    File {
        path: Arc<Path>,
        /// The line at which the row begins, from 1.
        line: u64,
    },
    Topic {
        topic: Arc<str>,
        partition: u32,
        offset: u64,
    },
}

impl fmt::Display for RowLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Topic { topic, partition, offset } => write!(f, "{topic}[{partition}]@{offset}"),
        }
    }
}

/// Why a table can't be used at all. A person has to change the file or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file can't be read.
    #[error("tables.{table}: can't read {}: {source}", path.display())]
    Read { table: &'static str, path: PathBuf, source: std::io::Error },
    /// A column that every row needs is missing.
    #[error(
        "tables.{table}: {} has no column {}, which is required; CSV columns are separated by commas and named in the first line",
        path.display(),
        columns.join(", no column ")
    )]
    MissingColumn {
        table: &'static str,
        path: PathBuf,
        /// The columns, with alternatives where there are some.
        columns: Vec<String>,
    },
    /// Two columns of a CSV file have the same name.
    #[error("tables.{table}: columns {first} and {second} of {} have the same name: remove one", path.display())]
    DuplicateColumn {
        table: &'static str,
        path: PathBuf,
        /// A column, from 1.
        first: usize,
        second: usize,
    },
    /// A row of a CSV file doesn't end: most likely a quote isn't closed, and the rest of the file would be
    /// taken for one value.
    #[error(
        "tables.{table}: the row at line {line} of {} is longer than 256 KiB: is a closing quote missing?",
        path.display()
    )]
    RowTooLong {
        table: &'static str,
        path: PathBuf,
        /// Where the row begins, from 1.
        line: u64,
    },
    /// More rows than a table may have.
    #[error("tables.{table}: {} has more than 10000000 rows", path.display())]
    TooManyRows { table: &'static str, path: PathBuf },
    /// So many bad rows that this must be another file than intended.
    #[error(
        "tables.{table}: {} has more than 100000 bad rows, the first at line {line} ({reason}): is it the right file?",
        path.display()
    )]
    TooManyBadRows {
        table: &'static str,
        path: PathBuf,
        /// The first bad row, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the tables that are configured as files, once. `hashes` are the ways in which the job's sources make key ids: they
/// decide whether a key is named by `key_hash`, by `key_id` (`hash = "none"`), or by either.
///
/// # Errors
/// If a table can't be used at all; single bad rows are dead letters.
pub fn read<'a>(
    tables: &Tables,
    hashes: impl IntoIterator<Item = &'a KeyHash>,
) -> Result<TablesRead, TableError> {
    let mut output = AcceptedRows::default();
    let mut read = TablesRead::default();
    for (table, source) in configured(tables, hashes) {
        if let Some(TableSource::File { path, format }) = source {
            output.begin_table();
            let rows = rows::read(&table, path, *format, |row| table.accept(row, &mut output))?;
            read.dead_letters.extend(rows.dead_letters);
            read.warnings.extend(rows.warnings);
            read.unread += rows.unread;
        }
    }
    (read.changes, read.definitions) = output.finish();
    by_date(&mut read.changes);
    Ok(read)
}

/// Puts the rows of keys in the order of their dates, those without one first: of a key's rows the last is in force, as
/// `state.rs` has it.
fn by_date(changes: &mut [TableChange]) {
    let keys = changes.iter().take_while(|change| matches!(change.row, TableRow::Key(_))).count();
    let date = |change: &TableChange| match &change.row {
        TableRow::Key(row) => row.valid_from,
        TableRow::Subscription(_) | TableRow::Plan(_) | TableRow::Leak(_) => None,
    };
    let keys = &mut changes[..keys];
    if keys.iter().any(|change| date(change).is_some()) {
        keys.sort_by_key(date);
        (0..).zip(keys).for_each(|(offset, change)| change.offset = offset);
    }
}

fn configured<'t, 'a>(
    tables: &'t Tables,
    hashes: impl IntoIterator<Item = &'a KeyHash>,
) -> [(TableSchema, &'t Option<TableSource>); 4] {
    let hashes: Vec<&KeyHash> = hashes.into_iter().collect();
    [
        (TableSchema::keys(hashes.iter().copied()), &tables.keys),
        (TableSchema::Subscriptions, &tables.subscriptions),
        (TableSchema::Plans, &tables.plans),
        (TableSchema::leaks(hashes), &tables.leaks),
    ]
}

#[cfg(test)]
mod tests;
