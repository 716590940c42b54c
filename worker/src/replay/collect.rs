//! The rows that a worker's dataflow puts out, kept until the input's end.
//!
//! Rows are kept as values, which takes a third of their text. Beyond [`BUDGET`] bytes the largest view writes its
//! rows as a sorted run, in some 50 bytes each. So memory doesn't grow with the output, whether it comes over many
//! ticks or in the last.
//!
//! A run is sorted by names, so these must be known. Names of keys and routes are: their operator comes before those
//! that put out rows, on the path of the events. Names in tables are defined at the start.

use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use keytide_connectors::decode::DeadLetter;
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::sink::encode::{DeadRow, EncodeRow as _, Labels, LateRow, RecordLocation};
use keytide_connectors::sink::names::Names;
use keytide_connectors::tables::TableDeadLetter;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::model::{Definition, EventTime, Forgotten, KeyId, NameId, Position, RequestId, Tick};
use keytide_dataflow::*;

use super::accounts::Accounts;
use super::figures::{CallSpan, Summed};
use super::incidents::{keep_incident, keep_score, keep_transition};
use super::runs::Runs;
use super::sort_key::{ViewRow, keyed};
use super::sorter::Sorter;

/// Which rows of the dataflow a run keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    Views,
    Incidents,
    /// Incidents, the scores of windows, which the detector makes for this alone, and rows of months and days for a
    /// report.
    Scores,
}

/// Bytes of rows that all workers hold together. Sorting and merging take up to half as much again.
const BUDGET: usize = 128 << 20;
/// Bytes that a worker may always hold, however many workers there are.
const LEAST: usize = 2 << 20;

/// Rows in one chunk of memory. A row set grows by chunks, so it never copies rows.
const CHUNK_ROWS: usize = 1 << 10;

/// A view's rows: those in memory and the runs that were written.
pub(super) struct Rowset<R> {
    chunks: Vec<Vec<R>>,
    pub(super) runs: Runs,
}

impl<R> Default for Rowset<R> {
    fn default() -> Self {
        Self { chunks: Vec::new(), runs: Runs::default() }
    }
}

impl<R> Rowset<R> {
    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_ROWS * mem::size_of::<R>()
    }

    fn extend(&mut self, rows: impl IntoIterator<Item = R>) {
        for row in rows {
            match self.chunks.last_mut() {
                Some(chunk) if chunk.len() < CHUNK_ROWS => chunk.push(row),
                _ => {
                    let mut chunk = Vec::with_capacity(CHUNK_ROWS);
                    chunk.push(row);
                    self.chunks.push(chunk);
                }
            }
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &R> {
        self.chunks.iter().flatten()
    }
}

impl<R: ViewRow> Rowset<R> {
    /// Writes the rows in memory as a run.
    fn spill(&mut self, names: &Names, folder: &Path) -> anyhow::Result<()> {
        let chunks = mem::take(&mut self.chunks);
        let mut rows = keyed(chunks.iter().flatten(), names);
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut bytes = Vec::new();
        self.runs.add(folder, |run| {
            rows.iter().try_for_each(|(_, row)| {
                bytes.clear();
                bytes = postcard::to_extend(row, mem::take(&mut bytes)).map_err(io::Error::other)?;
                run.add(&[&bytes])
            })
        })
    }
}

macro_rules! of_windows {
    ($($view:ident $field:ident: $row:ty,)+) => {
        /// Rows of windows, by view.
        #[derive(Default)]
        pub(super) struct OfWindows { $(pub(super) $field: Rowset<$row>,)+ }

        impl OfWindows {
            /// Adds rows: all of them, or those that a run's figures are made of. A row that is taken back isn't
            /// listed.
            fn add(&mut self, rows: Rows, all: bool) {
                match rows {
                    $(Rows::$view(rows) => {
                        let rows = rows.into_iter().filter(|row| !row.is_retracted());
                        self.$field.extend(rows.filter(|row| all || row.is_needed()));
                    })+
                    Rows::Quota(_)
                    | Rows::Charges(_)
                    | Rows::Bills(_)
                    | Rows::Forecast(_)
                    | Rows::Notices(_)
                    | Rows::Adjustments(_)
                    | Rows::Incidents(_)
                    | Rows::IncidentLog(_)
                    | Rows::Scores(_) => {}
                }
            }

            fn bytes(&self) -> usize {
                [$(self.$field.bytes()),+].iter().sum()
            }

            fn spill_largest(&mut self, names: &Names, folder: &Path) -> anyhow::Result<()> {
                let most = [$(self.$field.bytes()),+].into_iter().max();
                $(if most == Some(self.$field.bytes()) {
                    return self.$field.spill(names, folder);
                })+
                Ok(())
            }
        }

        /// The rows of windows of all workers, by view.
        #[derive(Default)]
        pub(super) struct WindowParts { $(pub(super) $field: Vec<Rowset<$row>>,)+ }

        impl WindowParts {
            pub(super) fn push(&mut self, worker: OfWindows) {
                $(self.$field.push(worker.$field);)+
            }
        }
    };
}
views_of_windows!(of_windows);

/// The keys and the span of time that a run over incidents has calls of.
#[derive(Default)]
pub struct Coverage {
    /// Keys that called, without buckets, each with its minutes.
    keys: HashMap<KeyId, CallSpan>,
    span: CallSpan,
}

impl Coverage {
    fn add(&mut self, rows: &[Row<KeyId, OwnedUsage>]) {
        for row in rows.iter().filter(|row| row.level == Level::Minute) {
            let end_ms = row.start + MINUTE_MS;
            self.span.add(row.start, end_ms);
            if !row.group.is_bucket() {
                self.keys.entry(row.group).or_default().add(row.start, end_ms);
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (key, span) in other.keys {
            self.keys.entry(key).or_default().merge(span);
        }
        self.span.merge(other.span);
    }

    /// Returns the number of keys that called, without buckets.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Returns the first minute with a call and the end of the last one; `None` without calls.
    pub fn span_ms(&self) -> Option<(EventTime, EventTime)> {
        self.span.get()
    }

    /// Returns the number of keys that the detector could never judge by their habits.
    pub(super) fn young_keys(&self) -> u64 {
        self.keys.values().filter(|span| span.is_young()).count() as u64
    }
}

/// The rows and counts of one worker.
#[derive(Default)]
pub struct Collect {
    folder: PathBuf,
    partitions: Arc<[PartitionInfo]>,
    /// Bytes of rows from which a view is written as a run.
    budget: usize,
    keep: Keep,
    pub(super) names: Names,
    pub(super) counts: Counts,
    pub(super) of_windows: OfWindows,
    pub(super) accounts: Accounts,
    /// Late events as [`LATE`] bytes: a late event is on the worker of its request, its key's name on the
    /// worker of its key, so lines are made when all workers are done.
    pub(super) late: Sorter,
    pub(super) dead_letters: Sorter,
    /// Versions of incidents, by incident and tick.
    pub(super) incidents: Sorter,
    /// Transitions with their ticks, in the order of these.
    pub(super) transitions: Sorter,
    /// Filled only if no views are written, whose rows say the same.
    pub(super) coverage: Coverage,
    /// Scores as lines, by the key's text and window.
    pub(super) scores: Sorter,
    /// The first error of a method that can't return one. After it no more rows are taken.
    failed: Option<anyhow::Error>,
}

impl Collect {
    /// Returns an empty collection of one of `workers`, which has the strings of tables in `names`. Rows that don't fit into
    /// memory are kept in `folder`.
    pub(super) fn new(
        folder: &Path,
        partitions: &[PartitionInfo],
        workers: NonZeroUsize,
        keep: Keep,
        names: &Names,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            partitions: partitions.into(),
            budget: (BUDGET / workers).max(LEAST),
            keep,
            names: names.of_tables(),
            late: Sorter::new(folder),
            dead_letters: Sorter::new(folder),
            incidents: Sorter::new(folder),
            transitions: Sorter::new(folder),
            scores: Sorter::new(folder),
            ..Self::default()
        }
    }

    /// Writes the rows of the largest view as a run.
    pub(super) fn spill_largest(&mut self) -> anyhow::Result<()> {
        self.of_windows.spill_largest(&self.names, &self.folder)
    }

    /// Keeps the first error until [`failure`](Self::failure) takes it.
    fn failed(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }

    /// Adds dead letters of sources.
    pub(super) fn dead_letters(&mut self, letters: &[DeadLetter]) -> anyhow::Result<()> {
        if self.keep != Keep::Views {
            return Ok(());
        }
        let Self { names, partitions, dead_letters, .. } = self;
        let mut labels = Labels::new(names);
        letters.iter().try_for_each(|letter| {
            let row = DeadRow::of(letter, partitions);
            dead_letters.add(|key| place_key(&row.location, key), |line| row.line(&mut labels, line))
        })
    }

    /// Adds bad rows of tables, whose offset is the line.
    pub(super) fn table_dead_letters(&mut self, letters: &[TableDeadLetter]) -> anyhow::Result<()> {
        if self.keep != Keep::Views {
            return Ok(());
        }
        let Self { names, dead_letters, .. } = self;
        let mut labels = Labels::new(names);
        letters.iter().try_for_each(|letter| {
            let row = DeadRow::of_row(letter);
            dead_letters.add(|key| place_key(&row.location, key), |line| row.line(&mut labels, line))
        })
    }

    /// Returns the error that occurred while the dataflow put out rows, if one did.
    pub(super) fn failure(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl Output for Collect {
    fn rows(&mut self, tick: Tick, rows: Rows) {
        if self.failed.is_some() {
            return;
        }
        match rows {
            Rows::Incidents(incidents) => {
                let added = incidents
                    .iter()
                    .try_for_each(|incident| keep_incident(&mut self.incidents, tick, incident));
                self.failed(added);
            }
            Rows::IncidentLog(log) => {
                let added = log
                    .iter()
                    .try_for_each(|transition| keep_transition(&mut self.transitions, tick, transition));
                self.failed(added);
            }
            Rows::Scores(scores) => {
                let Self { names, scores: into, .. } = self;
                let added = scores.iter().try_for_each(|score| keep_score(into, names, score));
                self.failed(added);
            }
            Rows::Quota(_)
            | Rows::Charges(_)
            | Rows::Bills(_)
            | Rows::Forecast(_)
            | Rows::Notices(_)
            | Rows::Adjustments(_) => {
                if self.keep == Keep::Views {
                    let Self { accounts, folder, names, .. } = self;
                    let added = accounts.keep(folder, names, tick, &rows);
                    self.failed(added);
                }
            }
            rows => {
                if self.keep != Keep::Views
                    && let Rows::Usage(rows) = &rows
                {
                    self.coverage.add(rows);
                }
                if self.keep != Keep::Incidents {
                    self.of_windows.add(rows, self.keep == Keep::Views);
                }
            }
        }
        if self.of_windows.bytes() >= self.budget {
            let spilled = self.spill_largest();
            self.failed(spilled);
        }
    }

    fn late(&mut self, _: Tick, late: Vec<Late>) {
        if self.keep != Keep::Views {
            return;
        }
        for late in late {
            let place = RecordLocation::of(late.position, &self.partitions);
            let added = self
                .late
                .add(|key| place_key(&place, key), |line| line.extend_from_slice(&late_bytes(&late)));
            self.failed(added);
        }
    }

    fn counts(&mut self, _: Tick, counts: Counts) {
        self.counts += counts;
    }

    fn admitted(&mut self, _: Tick, _: Admitted) {}

    /// Forgets nothing: rows are written at the end and need their strings. The caps of days and months bound them.
    fn forget(&mut self, _: Tick, _: Vec<Forgotten>) {}

    fn define(&mut self, _: Tick, definitions: Vec<Definition>) {
        for definition in definitions {
            self.names.define(definition);
        }
    }
}

/// Writes a key that orders records by source, partition and offset.
fn place_key(place: &RecordLocation<'_>, key: &mut Vec<u8>) {
    key.extend_from_slice(place.source.as_bytes());
    key.push(0);
    key.extend_from_slice(&place.partition.to_be_bytes());
    key.extend_from_slice(&place.offset.to_be_bytes());
    key.extend_from_slice(&place.index.to_be_bytes());
}

/// Bytes of a late event.
const LATE: usize = 4 + 8 + 4 + 16 + 16 + 8 + 8 + 2;

fn late_bytes(late: &Late) -> [u8; LATE] {
    let Late {
        position: Position { partition, offset, index },
        key,
        request,
        time,
        late_ms,
        counted,
        proven,
    } = *late;
    let mut bytes = [0; LATE];
    let parts: [&[u8]; 8] = [
        &partition.to_be_bytes(),
        &offset.to_be_bytes(),
        &index.to_be_bytes(),
        &key.0.to_be_bytes(),
        &request.bits().to_be_bytes(),
        &time.to_be_bytes(),
        &late_ms.to_be_bytes(),
        &[u8::from(counted), u8::from(proven)],
    ];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

/// Appends a late event, which [`Collect`] keeps as bytes, as a line.
pub(super) fn late_line(
    bytes: &[u8],
    labels: &mut Labels<'_>,
    partitions: &[PartitionInfo],
    out: &mut Vec<u8>,
) {
    let mut rest = bytes;
    let mut number = |length: usize| {
        let (part, after) = rest.split_at(length);
        rest = after;
        part.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte))
    };
    let partition = number(4) as u32;
    let (offset, index) = (number(8) as u64, number(4) as u32);
    let position = Position { partition, offset, index };
    let (key, request) = (KeyId(number(16)), RequestId::from_bits(number(16)));
    let (time, late_ms) = (number(8) as u64, number(8) as u64);
    let (counted, proven) = (number(1) == 1, number(1) == 1);
    let late = Late { position, key, request, time, late_ms, counted, proven };
    LateRow { location: RecordLocation::of(position, partitions), late }.line(labels, out);
}
