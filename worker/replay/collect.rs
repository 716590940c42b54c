//! What a worker's dataflow puts out, held until it is written.
//!
//! Rows are held as they are, which takes a third of their text. Beyond [`BUDGET`] bytes they are written as
//! sorted runs of lines, so a long run's memory doesn't grow with its output.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keytide_connectors::decode::DeadLetter;
use keytide_connectors::ingest::PartitionInfo;
use keytide_connectors::sink::encode::{DeadRow, EncodeRow as _, Labels, LateRow, Place};
use keytide_connectors::sink::names::Names;
use keytide_connectors::tables::TableDeadLetter;
use keytide_dataflow::model::{Definition, Forgotten, KeyId, NameId, Position, RequestId, Tick};
use keytide_dataflow::*;

use super::output::{ViewRow, add_lines};
use super::sorter::Sorter;

/// Bytes of rows that a worker holds.
const BUDGET: usize = 384 << 20;

/// A view's rows: in memory, and what was written before the end.
pub(super) struct Rowset<R> {
    pub(super) rows: Vec<R>,
    pub(super) spilled: Vec<Sorter>,
}

impl<R> Default for Rowset<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), spilled: Vec::new() }
    }
}

impl<R: ViewRow> Rowset<R> {
    fn bytes(&self) -> usize {
        mem::size_of_val(self.rows.as_slice())
    }

    fn need(&self, names: &mut Names) {
        for row in &self.rows {
            row.need(names);
        }
    }

    fn spill(&mut self, names: &Names, folder: &Path) -> io::Result<()> {
        if self.spilled.is_empty() {
            self.spilled.push(Sorter::new(folder));
        }
        add_lines(&mem::take(&mut self.rows), names, &mut self.spilled[0])
    }

    fn merge(&mut self, mut other: Self) {
        if self.rows.is_empty() {
            mem::swap(&mut self.rows, &mut other.rows);
        }
        self.rows.append(&mut other.rows);
        self.spilled.append(&mut other.spilled);
    }
}

/// One worker's results.
#[derive(Default)]
pub(super) struct Collect {
    folder: PathBuf,
    partitions: Arc<[PartitionInfo]>,
    pub(super) names: Names,
    pub(super) counts: Counts,
    pub(super) usage: Rowset<Row<KeyId, OwnedUsage>>,
    pub(super) usage_by_route: Rowset<Row<KeyRoute, OwnedUsage>>,
    pub(super) latency: Rowset<Row<Scope, Latency>>,
    pub(super) geo: Rowset<Row<KeyCountry, Geo>>,
    pub(super) callers: Rowset<Row<Scope, Callers>>,
    pub(super) subscription_usage: Rowset<Row<NameId, SubscriptionUsage>>,
    /// Late events as [`LATE`] bytes: a late event is on the worker of its request, its key's name on the
    /// worker of its key, so lines are made when all workers are done.
    pub(super) late: Vec<Sorter>,
    pub(super) dead_letters: Vec<Sorter>,
    /// What went wrong where an error can't be returned.
    failed: Option<io::Error>,
}

impl Collect {
    /// What doesn't fit into memory is kept in `folder`.
    pub(super) fn new(folder: &Path, partitions: &[PartitionInfo]) -> Self {
        Self {
            folder: folder.to_owned(),
            partitions: partitions.into(),
            late: vec![Sorter::new(folder)],
            failed: None,
            dead_letters: vec![Sorter::new(folder)],
            ..Self::default()
        }
    }

    /// Whether rows should be written.
    pub(super) fn is_full(&self) -> bool {
        self.usage.bytes()
            + self.usage_by_route.bytes()
            + self.latency.bytes()
            + self.geo.bytes()
            + self.callers.bytes()
            + self.subscription_usage.bytes()
            >= BUDGET
    }

    /// Writes what is held as runs. To be called when every tick whose rows are here is done: then the
    /// strings they need are here too.
    pub(super) fn spill(&mut self) -> io::Result<()> {
        self.need();
        let Self { names, folder, .. } = self;
        self.usage.spill(names, folder)?;
        self.usage_by_route.spill(names, folder)?;
        self.latency.spill(names, folder)?;
        self.geo.spill(names, folder)?;
        self.callers.spill(names, folder)?;
        self.subscription_usage.spill(names, folder)
    }

    /// Makes sure that every row's names are there.
    pub(super) fn need(&mut self) {
        let names = &mut self.names;
        self.usage.need(names);
        self.usage_by_route.need(names);
        self.latency.need(names);
        self.geo.need(names);
        self.callers.need(names);
    }

    /// Lists dead letters of sources.
    pub(super) fn dead_letters(&mut self, letters: &[DeadLetter]) -> io::Result<()> {
        let Self { names, partitions, dead_letters, .. } = self;
        let mut labels = Labels::new(names);
        letters.iter().try_for_each(|letter| {
            let row = DeadRow::of(letter, partitions);
            dead_letters[0].add(|key| place_key(&row.place, key), |line| row.line(&mut labels, line))
        })
    }

    /// Lists bad rows of tables: their offset is the line.
    pub(super) fn table_dead_letters(&mut self, letters: &[TableDeadLetter]) -> io::Result<()> {
        let Self { names, dead_letters, .. } = self;
        let mut labels = Labels::new(names);
        letters.iter().try_for_each(|letter| {
            let row = DeadRow::of_row(letter);
            dead_letters[0].add(|key| place_key(&row.place, key), |line| row.line(&mut labels, line))
        })
    }

    /// What went wrong while the dataflow put out rows, if anything did.
    pub(super) fn failure(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Adds another worker's results.
    pub(super) fn merge(&mut self, other: Self) {
        self.names.merge(other.names);
        self.counts += other.counts;
        self.usage.merge(other.usage);
        self.usage_by_route.merge(other.usage_by_route);
        self.latency.merge(other.latency);
        self.geo.merge(other.geo);
        self.callers.merge(other.callers);
        self.subscription_usage.merge(other.subscription_usage);
        self.late.extend(other.late);
        self.dead_letters.extend(other.dead_letters);
    }
}

impl Output for Collect {
    fn rows(&mut self, _: Tick, rows: Rows) {
        match rows {
            Rows::Usage(rows) => self.usage.rows.extend(rows),
            Rows::UsageByRoute(rows) => self.usage_by_route.rows.extend(rows),
            Rows::Latency(rows) => self.latency.rows.extend(rows),
            Rows::Geo(rows) => self.geo.rows.extend(rows),
            Rows::Callers(rows) => self.callers.rows.extend(rows),
            Rows::SubscriptionUsage(rows) => self.subscription_usage.rows.extend(
                rows.into_iter().filter_map(|Row { group, level, start, value, complete, is_final }| {
                    Some(Row { group, level, start, value: value?, complete, is_final })
                }),
            ),
        }
    }

    fn late(&mut self, _: Tick, late: Vec<Late>) {
        for late in late {
            let place = Place::of(late.position, &self.partitions);
            let added = self.late[0]
                .add(|key| place_key(&place, key), |line| line.extend_from_slice(&late_bytes(&late)));
            if let Err(error) = added {
                self.failed.get_or_insert(error);
            }
        }
    }

    fn counts(&mut self, _: Tick, counts: Counts) {
        self.counts += counts;
    }

    fn admitted(&mut self, _: Tick, _: Admitted) {}

    /// Rows are written at the end, so no string is forgotten before: as many as days and months admitted.
    fn forget(&mut self, _: Tick, _: Vec<Forgotten>) {}

    fn define(&mut self, _: Tick, definitions: Vec<Definition>) {
        for definition in definitions {
            self.names.define(definition);
        }
    }
}

/// The order of records by where they stand.
fn place_key(place: &Place<'_>, key: &mut Vec<u8>) {
    key.extend_from_slice(place.source.as_bytes());
    key.push(0);
    key.extend_from_slice(&place.partition.to_be_bytes());
    key.extend_from_slice(&place.offset.to_be_bytes());
    key.extend_from_slice(&place.index.to_be_bytes());
}

/// Bytes of a late event.
const LATE: usize = 4 + 8 + 4 + 16 + 16 + 8 + 8 + 1;

fn late_bytes(late: &Late) -> [u8; LATE] {
    let Late { position: Position { partition, offset, index }, key, request, time, late_ms, counted } =
        *late;
    let mut bytes = [0; LATE];
    let parts: [&[u8]; 8] = [
        &partition.to_be_bytes(),
        &offset.to_be_bytes(),
        &index.to_be_bytes(),
        &key.0.to_be_bytes(),
        &request.0.to_be_bytes(),
        &time.to_be_bytes(),
        &late_ms.to_be_bytes(),
        &[u8::from(counted)],
    ];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

/// Appends a late event, as [`Collect`] keeps it, as a line.
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
    let (key, request) = (KeyId(number(16)), RequestId(number(16)));
    let (time, late_ms, counted) = (number(8) as u64, number(8) as u64, number(1) == 1);
    let late = Late { position, key, request, time, late_ms, counted };
    LateRow { place: Place::of(position, partitions), late }.line(labels, out);
}
