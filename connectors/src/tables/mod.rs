//! The tables that events are joined with, from files and topics. They are keys, subscriptions, plans, reports of leaked
//! keys, quotas and prices.
//!
//! ```text
//! file   -> rows    one row at a time, CSV or JSON lines, under byte caps    rows.rs
//! record -> row     of a topic: an upsert, or a change event of Debezium     topic.rs
//!        -> row     its cells, with names and checks                         row.rs
//!        -> change  upsert of a typed row, and the strings behind its ids    schema.rs
//! tiers  -> prices  the rows of an item together, in a file                  prices.rs
//!        -> what differs from the rows that are held, deletions too          state.rs
//! ```
//!
//! [`read`] reads files once, for a bounded run. [`WatchedTables`] reads them again when they change, and
//! [`TopicTable`] takes records as they come; both hold the table's rows (280 to 550 bytes each, and 32 for each
//! element of an allow list), as neither a file nor a tombstone has a deleted row's content.
//!
//! A row without a valid value in a required column becomes a [`TableDeadLetter`], and its neighbours are still read.
//! So does one with a bad value in a column that bills depend on. Any other column that can't be read is unknown, and a
//! warning names it, because losing a row costs more. No message
//! and no `Debug` output quotes a cell. A table exported by mistake with raw keys instead of their hashes must not
//! spill them. For the same reason a `key_hash` that doesn't look like a hash is refused. A raw key that is itself 64
//! hexadecimal digits (32 and more under `prehashed`) can't be recognised.
//!
//! The one place for raw keys is the column `token` of `leaks`. A token becomes key ids when its row is read, one for
//! each way in which the sources hash keys, and goes no further. If the row's URL or source holds it too, it is taken
//! out. A topic's message key may be a raw key, so only a hash of it is held, in memory.
//!
//! In both formats white space around a value is dropped. An empty value is the same as none, and so are some words
//! (see `row.rs`). Names of columns may differ in case. The later of two rows wins. A byte order mark at the start is
//! skipped. Times may have any form that `connectors/src/time.rs` reads, even that of a date, and are cut to
//! milliseconds.
//!
//! The table of tokens isn't joined with events: the API alone reads it. It fails closed. A row that is missing or bad opens
//! nothing, whatever was held before, and no checkpoint has a row of it.
//!
//! Limits: 256 KiB a row, 512 bytes a value (or an element of a list; 254 an address, 4,096 a token), 256 elements a
//! list, 10,000,000 rows and 100,000 bad rows a table. A URL is cut after 2,048 bytes.

mod prices;
mod row;
mod rows;
mod schema;
mod state;
mod topic;
mod watch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keytide_config::{KeyHash, TableFormat, TableSource, Tables};
use keytide_dataflow::ActionInput;
use keytide_dataflow::model::{Definition, TableChange, TableRow};

use schema::{AcceptedRows, TableSchema};
use serde::{Deserialize, Serialize};
use state::{TableMemory, UpsertState, valid_from};
pub use topic::TopicTable;
pub use watch::WatchedTables;

/// The most bytes of a row.
const ROW_BYTES: usize = 256 << 10;
/// The most bytes of one value. Longer identifiers would be cut in events and never match.
const VALUE_BYTES: usize = 512;
/// The most elements of a list.
const LIST_ELEMENTS: usize = 256;
/// The most rows of a table.
const ROWS: u64 = 10_000_000;
/// The most bad rows of a table. With more it is most likely another file than intended.
const BAD_ROWS: usize = 100_000;

/// Rows that were read from the tables, or changes of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesRead {
    /// Upserts and deletions of rows, for keys, then subscriptions, plans, leaks, quotas and prices, each in the order of
    /// its file or topic. Offsets count from 0 in each table.
    pub changes: Vec<TableChange>,
    /// The strings behind the ids in `changes`, in order of appearance.
    pub definitions: Vec<Definition>,
    /// Rows that could not be accepted, in the same order.
    pub dead_letters: Vec<TableDeadLetter>,
    /// What people and gateways said about actions meanwhile, which is recorded beside the tables.
    pub inputs: Vec<ActionInput>,
    /// Warnings for the operator, one sentence each.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Values of optional columns that could not be read and count as unknown.
    pub unread: u64,
}

/// The rows of all tables as a checkpoint has them, with which a job that goes on finds what changed meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesMemory(BTreeMap<String, TableMemory>);

impl TablesMemory {
    /// Returns the memory of one table alone.
    #[must_use]
    pub fn of(&self, table: &str) -> Self {
        Self(
            self.0
                .get_key_value(table)
                .map(|(name, rows)| (name.clone(), rows.clone()))
                .into_iter()
                .collect(),
        )
    }

    /// Returns the rows of all tables as changes of tables without any: in the order in which they are in force.
    pub fn changes(&self) -> impl Iterator<Item = TableChange> {
        let rows = self.0.values().flat_map(TableMemory::rows);
        rows.map(|row| TableChange { offset: 0, row: row.clone(), deleted: false })
    }

    /// Returns the number of rows of all tables.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.values().map(TableMemory::len).sum()
    }

    /// Returns whether no table has a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the changes of ticks, after which the rows are those that were held then.
    pub fn apply<'a>(&mut self, reads: impl IntoIterator<Item = &'a TablesRead>) {
        let mut by_table: BTreeMap<&'static str, Vec<&TableChange>> = BTreeMap::new();
        for read in reads {
            for change in &read.changes {
                by_table.entry(table_of(&change.row)).or_default().push(change);
            }
            for letter in &read.dead_letters {
                self.0.entry(letter.table.to_string()).or_default().bad.insert(letter.sha256);
            }
        }
        for (name, changes) in by_table {
            self.0.entry(name.to_owned()).or_default().apply(changes);
        }
    }

    /// Adds the rows of a table that are held, and those that became dead letters.
    fn add(&mut self, table: &TableSchema, state: &UpsertState, bad: impl IntoIterator<Item = [u8; 32]>) {
        let memory = if table.is_of_api() { TableMemory::of_bad(bad) } else { state.memory(bad) };
        self.0.insert(table.name().to_owned(), memory);
    }

    fn table(&self, name: &str) -> Cow<'_, TableMemory> {
        self.0.get(name).map_or_else(Cow::default, Cow::Borrowed)
    }
}

/// Returns the name of the table that a row is of.
fn table_of(row: &TableRow) -> &'static str {
    match row {
        TableRow::Key(_) => "keys",
        TableRow::Subscription(_) => "subscriptions",
        TableRow::Plan(_) => "plans",
        TableRow::Leak(_) => "leaks",
        TableRow::Quota(_) => "quotas",
        TableRow::Price(_) => "prices",
        TableRow::Token(_) => "tokens",
    }
}

impl TablesRead {
    /// Appends everything that was read later.
    pub fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
        self.definitions.append(&mut later.definitions);
        self.dead_letters.append(&mut later.dead_letters);
        self.inputs.append(&mut later.inputs);
        self.warnings.append(&mut later.warnings);
        self.unread += later.unread;
    }
}

/// A row that could not be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDeadLetter {
    /// `keys`, `subscriptions`, `plans`, `leaks`, `quotas`, `prices` or `tokens`.
    pub table: Cow<'static, str>,
    pub location: RowLocation,
    /// States what is wrong with the row, and never quotes it.
    pub reason: String,
    /// The row's length in bytes, without the white space around it (with it where the row is too long to be
    /// held); of a topic, the length of the record's value.
    pub length: u64,
    /// The SHA-256 of the bytes that `length` counts.
    pub sha256: [u8; 32],
}

/// The location of a row. It displays as `path:line` or `topic[partition]@offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The reason why a table can't be used at all. A person has to change the file or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file can't be read.
    #[error("tables.{table}: can't read {}: {source}", path.display())]
    Read { table: &'static str, path: PathBuf, source: std::io::Error },
    /// The file has the other format.
    #[error(
        "tables.{table}: {} looks like {looks}, and the format is `{format}`: set `format = \"{looks}\"`",
        path.display(),
        looks = looks.name(),
        format = format.name()
    )]
    OtherFormat { table: &'static str, path: PathBuf, looks: TableFormat, format: TableFormat },
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
        /// The two columns count from 1.
        first: usize,
        second: usize,
    },
    /// A row of a CSV file doesn't end. Most likely a quote isn't closed, so the rest of the file would be taken for
    /// one value.
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
    /// The file has more rows than a table may have.
    #[error("tables.{table}: {} has more than 10000000 rows", path.display())]
    TooManyRows { table: &'static str, path: PathBuf },
    /// The file has more bad rows than are worth listing, so it must be another one than intended.
    #[error(
        "tables.{table}: {} has more than 100000 bad rows, the first at line {line} ({reason}): is it the right file?",
        path.display()
    )]
    TooManyBadRows {
        table: &'static str,
        path: PathBuf,
        /// The first bad row, from 1.
        line: u64,
        reason: String,
    },
}

/// Reads the tables that are configured as files, once. `hashes` are the ways in which the job's sources make key ids:
/// they decide whether a key is named by `key_hash`, by `key_id` (`hash = "none"`), or by either.
///
/// # Errors
/// If a table can't be used at all; single bad rows are dead letters.
pub fn read<'a>(
    tables: &Tables,
    hashes: impl IntoIterator<Item = &'a KeyHash>,
) -> Result<TablesRead, TableError> {
    read_each(configured(tables, hashes))
}

/// Reads the table of tokens once, if it is configured as a file.
///
/// # Errors
/// If it can't be used at all; single bad rows are dead letters.
pub fn read_tokens(tables: &Tables) -> Result<TablesRead, TableError> {
    read_each(configured_tokens(tables))
}

fn read_each<'t>(
    configured: impl IntoIterator<Item = (TableSchema, &'t Option<TableSource>)>,
) -> Result<TablesRead, TableError> {
    let mut output = AcceptedRows::default();
    let mut read = TablesRead::default();
    for (table, source) in configured {
        if let Some(TableSource::File { path, format }) = source {
            output.begin_table();
            let rows = rows::read(&table, path, *format, &mut output)?;
            read.dead_letters.extend(rows.dead_letters);
            read.warnings.extend(rows.warnings);
            read.unread += rows.unread;
        }
    }
    (read.changes, read.definitions) = output.finish();
    by_date(&mut read.changes);
    Ok(read)
}

/// Sorts the rows of each table by their dates, those without one first. So the last of a key's or id's rows is in
/// force, as `state.rs` requires.
fn by_date(changes: &mut [TableChange]) {
    let date = |change: &TableChange| valid_from(&change.row);
    for of_table in changes.chunk_by_mut(|a, b| table_of(&a.row) == table_of(&b.row)) {
        if of_table.iter().any(|change| date(change).is_some()) {
            of_table.sort_by_key(date);
            (0..).zip(of_table).for_each(|(offset, change)| change.offset = offset);
        }
    }
}

fn configured<'t, 'a>(
    tables: &'t Tables,
    hashes: impl IntoIterator<Item = &'a KeyHash>,
) -> [(TableSchema, &'t Option<TableSource>); 6] {
    let hashes: Vec<&KeyHash> = hashes.into_iter().collect();
    [
        (TableSchema::keys(hashes.iter().copied()), &tables.keys),
        (TableSchema::Subscriptions, &tables.subscriptions),
        (TableSchema::Plans, &tables.plans),
        (TableSchema::leaks(hashes), &tables.leaks),
        (TableSchema::Quotas, &tables.quotas),
        (TableSchema::Prices, &tables.prices),
    ]
}

/// Returns the table of tokens, which isn't joined with events.
fn configured_tokens(tables: &Tables) -> [(TableSchema, &Option<TableSource>); 1] {
    [(TableSchema::Tokens, &tables.tokens)]
}

#[cfg(test)]
mod tests;
