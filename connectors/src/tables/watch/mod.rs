//! Watches tables that come from files. A file that changed is read again, and the differences are emitted.
//!
//! `geo/watch.rs` decides when a file is read again. A reload is taken as a whole or not at all. It never removes more
//! than the file means to:
//!
//! * A file that can't be read, or not as this table, leaves the table as it was.
//! * A file without a single good row leaves the table as it was. To empty a table, restart the job.
//! * A reload may have bad rows that weren't there when the table was last taken over. Then rows that are missing from
//!   it stay, because one of them may be the bad one. Rows that were bad before don't keep any row. Tiers don't stay
//!   beside new ones of their price: that would be a third price. A price is replaced as a whole, or stays as a whole.
//!
//! Of tokens only the first holds: a token opens an API, so one too few is the smaller mistake. A row that is missing or
//! bad ends its token, also the last one.
//!
//! Each case gives a warning, once for each version of the file. Files are compared by rows, not by lines. So another
//! order, or a row that stands twice, changes nothing.
//!
//! Limits: those of a table file. Beside the rows that are held, a reload needs about 200 bytes a row. Of two rows with
//! the same key columns the later is taken, and of two rows of a key without `valid_from`, too.

use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};
use keytide_config::{KeyHash, TableFormat, TableSource, Tables};
use keytide_dataflow::model::{Definition, KeyId, KeyPlace, NameId, QuotaHolder, TableChange, TableRow};

use super::prices::{PriceSet, price_of};
use super::rows::{self, FileRead};
use super::schema::{AcceptedRows, TableSchema};
use super::state::{RowSlot, UpsertState};
use super::{TableDeadLetter, TableError, TablesMemory, TablesRead, configured, configured_tokens};
use crate::geo::watch::{FileChange, FileWatch};

/// The tables that come from files.
pub struct WatchedTables {
    files: Vec<WatchedFile>,
}

impl WatchedTables {
    /// Reads the files for the first time. `hashes` has the same meaning as in [`read`](super::read). Tables from
    /// elsewhere are left out. The changes are how the rows differ from `earlier`. Their offsets count from 0 in each
    /// table, or from where `earlier` ended, and go on at each [`poll`](Self::poll).
    ///
    /// # Errors
    /// If a table can't be used at all; single bad rows are dead letters.
    pub fn open<'a>(
        tables: &Tables,
        hashes: impl IntoIterator<Item = &'a KeyHash>,
        earlier: &TablesMemory,
    ) -> Result<(Self, TablesRead), TableError> {
        Self::open_each(configured(tables, hashes), earlier)
    }

    /// Reads the table of tokens for the first time, if it comes from a file. `earlier` has its bad rows alone.
    ///
    /// # Errors
    /// If it can't be used at all; single bad rows are dead letters.
    pub fn open_tokens(tables: &Tables, earlier: &TablesMemory) -> Result<(Self, TablesRead), TableError> {
        Self::open_each(configured_tokens(tables), earlier)
    }

    fn open_each<'t>(
        configured: impl IntoIterator<Item = (TableSchema, &'t Option<TableSource>)>,
        earlier: &TablesMemory,
    ) -> Result<(Self, TablesRead), TableError> {
        let mut files = Vec::new();
        let mut out = TablesRead::default();
        for (table, source) in configured {
            if let Some(TableSource::File { path, format }) = source {
                let mut file = WatchedFile::new(table, path, *format);
                let held = earlier.table(file.table.name());
                // Rows that became dead letters in an earlier life don't become one again.
                file.bad = held.bad.iter().copied().collect();
                let read = file.read()?;
                let mut first = TablesRead::default();
                file.begin(read, &mut first);
                file.state.go_on(&held, &mut first.changes);
                out.append(first);
                files.push(file);
            }
        }
        Ok((Self { files }, out))
    }

    /// Iterates over the paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.watch.path())
    }

    /// Adds the rows that are held, for a checkpoint.
    pub fn remember(&self, memory: &mut TablesMemory) {
        for file in &self.files {
            memory.add(&file.table, &file.state, file.bad.iter().copied());
        }
    }

    /// Checks every file, and reads those again that changed and then stayed the same since the last call. Returns
    /// `None` if there is nothing new.
    pub fn poll(&mut self) -> Option<TablesRead> {
        let mut out = TablesRead::default();
        for file in &mut self.files {
            file.poll(&mut out);
        }
        (out != TablesRead::default()).then_some(out)
    }
}

struct WatchedFile {
    table: TableSchema,
    path: PathBuf,
    format: TableFormat,
    watch: FileWatch,
    state: UpsertState,
    /// Hashes of the rows that were bad when the table was last taken over as a whole.
    bad: HashSet<[u8; 32]>,
    /// Warnings that were given about the file as it was last taken over.
    known_warnings: Vec<String>,
    /// The reason why it can't be read at the moment.
    unreadable: Option<String>,
}

/// A file's rows, and the other results of reading it.
struct Read {
    rows: Vec<TableRow>,
    definitions: Vec<Definition>,
    file: FileRead,
}

impl WatchedFile {
    fn new(table: TableSchema, path: &Path, format: TableFormat) -> Self {
        Self {
            table,
            path: path.to_owned(),
            format,
            watch: FileWatch::new(path),
            state: UpsertState::default(),
            bad: HashSet::new(),
            known_warnings: Vec::new(),
            unreadable: None,
        }
    }

    fn read(&self) -> Result<Read, TableError> {
        let mut output = AcceptedRows::default();
        let file = rows::read(&self.table, &self.path, self.format, &mut output)?;
        let (rows, definitions) = output.take();
        Ok(Read { rows: rows.collect(), definitions, file })
    }

    fn poll(&mut self, out: &mut TablesRead) {
        match self.watch.poll() {
            FileChange::Unchanged => return self.unreadable = None,
            FileChange::Changing => return,
            FileChange::Settled => {}
        }
        let read = self.read();
        if !self.watch.is_still() {
            return;
        }
        match read {
            Ok(read) => {
                self.watch.mark_read();
                self.unreadable = None;
                self.take_over(read, out);
            }
            Err(error) => {
                let kept = format!("{error}; the table keeps its {} rows", self.state.len());
                // A wrong file is judged once, and an unreadable one is tried again at each call.
                let unreadable = matches!(error, TableError::Read { .. }).then(|| kept.clone());
                if unreadable.is_none() {
                    self.watch.mark_read();
                }
                if unreadable.is_none() || unreadable != self.unreadable {
                    out.warnings.push(kept);
                }
                self.unreadable = unreadable;
            }
        }
    }

    /// Takes the file over for the first time, without the changes.
    fn begin(&mut self, read: Read, out: &mut TablesRead) {
        let Read { rows, definitions, file: FileRead { unread, dead_letters, warnings } } = read;
        out.unread += unread;
        (self.bad, _) = self.take_letters(dead_letters, out);
        self.state.fill(rows.into_iter().map(|row| (RowSlot::of_row(&row), row)));
        out.definitions = definitions;
        out.warnings.clone_from(&warnings);
        self.known_warnings = warnings;
    }

    /// Takes the letters of rows that weren't bad before. Returns the hashes of all bad rows, and how many are new.
    fn take_letters(
        &self,
        letters: Vec<TableDeadLetter>,
        out: &mut TablesRead,
    ) -> (HashSet<[u8; 32]>, usize) {
        let bad: HashSet<[u8; 32]> = letters.iter().map(|letter| letter.sha256).collect();
        let newly_bad = bad.difference(&self.bad).count();
        out.dead_letters.extend(letters.into_iter().filter(|letter| !self.bad.contains(&letter.sha256)));
        (bad, newly_bad)
    }

    fn take_over(&mut self, read: Read, out: &mut TablesRead) {
        let Read { rows, definitions, file: FileRead { unread, dead_letters, warnings } } = read;
        out.unread += unread;
        let (bad, newly_bad) = self.take_letters(dead_letters, out);

        let problem = |what: String| format!("tables.{}: {} {what}", self.table.name(), self.path.display());
        let keeps = !self.table.is_of_api();
        if keeps && rows.is_empty() && self.state.len() > 0 {
            out.warnings.push(problem(format!(
                "has no good row any more: the table keeps its {} rows; to empty it, restart the job",
                self.state.len()
            )));
            return;
        }

        let first = out.changes.len();
        let prices: HashSet<PriceSet> = rows.iter().filter_map(price_of).collect();
        let slots: Vec<RowSlot> = rows.iter().map(RowSlot::of_row).collect();
        let last: HashMap<RowSlot, usize> =
            slots.iter().enumerate().map(|(index, slot)| (*slot, index)).collect();
        for (index, (slot, row)) in slots.into_iter().zip(rows).enumerate() {
            if last[&slot] == index {
                self.state.put(slot, [row].into_iter().collect(), &mut out.changes);
            }
        }
        if newly_bad > 0 && !prices.is_empty() {
            let is_tier = |row: &TableRow| price_of(row).is_some_and(|price| prices.contains(&price));
            let keep =
                |state: &UpsertState, slot| last.contains_key(&slot) || !state.row(slot).is_some_and(is_tier);
            self.state.retain(keep, &mut out.changes);
        }
        let missing = self.state.len() - last.len();
        if !keeps || newly_bad == 0 || missing == 0 {
            self.state.retain(|_, slot| last.contains_key(&slot), &mut out.changes);
            self.bad = bad;
        } else {
            out.warnings.push(problem(format!(
                "has new bad rows ({newly_bad}): {missing} rows that are missing from it stay until these are corrected"
            )));
        }
        out.definitions.extend(used(&out.changes[first..], definitions));
        // Warnings of the last version aren't repeated.
        out.warnings
            .extend(warnings.iter().filter(|warning| !self.known_warnings.contains(warning)).cloned());
        self.known_warnings = warnings;
    }
}

/// Selects the definitions of ids that occur in `changes`. The others were handed out before.
fn used(changes: &[TableChange], definitions: Vec<Definition>) -> impl Iterator<Item = Definition> {
    let mut keys: HashSet<KeyId> = HashSet::new();
    let mut names: HashSet<NameId> = HashSet::new();
    for change in changes {
        match &change.row {
            TableRow::Key(row) => {
                keys.insert(row.key);
                let KeyPlace { gateway, consumer, credential } = row.place;
                names.extend([row.subscription, gateway, consumer, credential, row.contact]);
            }
            TableRow::Subscription(row) => {
                names.extend([row.id, row.customer, row.plan, row.time_zone, row.contacts])
            }
            TableRow::Plan(row) => names.extend([row.id, row.name]),
            TableRow::Leak(row) => {
                keys.insert(row.key);
                names.extend([row.source, row.url]);
            }
            TableRow::Quota(row) => match row.holder {
                QuotaHolder::Plan(id) | QuotaHolder::Subscription(id) => names.extend([id]),
            },
            TableRow::Price(row) => names.extend([row.plan, row.item]),
            // The rows' names have no definitions, since nobody shows them.
            TableRow::Token(_) => {}
        }
    }
    definitions.into_iter().filter(move |definition| match definition {
        Definition::Key { id, .. } => keys.contains(id),
        Definition::Name { id, .. } => names.contains(id),
        Definition::Route { .. } | Definition::Agent { .. } => false,
    })
}

#[cfg(test)]
mod tests;
