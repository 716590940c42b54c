//! What a worker's dataflow puts out, held until it is written.
//!
//! Rows are held as they are, which takes a third of their text. Beyond [`BUDGET`] bytes they are written as
//! sorted runs of lines, so a long run's memory doesn't grow with its output.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use keytide_connectors::decode::DeadLetter;
use keytide_connectors::ingest::PartitionInfo;
use keytide_connectors::tables::TableDeadLetter;
use keytide_dataflow::model::{Definition, KeyId, NameId, Position, Tick};
use keytide_dataflow::*;
use serde::Serialize;

use super::names::{Names, time};
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
    pub(super) names: Names,
    pub(super) counts: Counts,
    pub(super) usage: Rowset<Row<KeyId, OwnedUsage>>,
    pub(super) usage_by_route: Rowset<Row<KeyRoute, OwnedUsage>>,
    pub(super) latency: Rowset<Row<Scope, Latency>>,
    pub(super) geo: Rowset<Row<KeyCountry, Geo>>,
    pub(super) callers: Rowset<Row<Scope, Callers>>,
    pub(super) subscription_usage: Rowset<Row<NameId, SubscriptionUsage>>,
    late: Vec<Late>,
    pub(super) late_lines: Vec<Sorter>,
    pub(super) dead_letters: Vec<Sorter>,
}

impl Collect {
    /// What doesn't fit into memory is kept in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            late_lines: vec![Sorter::new(folder)],
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
            + mem::size_of_val(self.late.as_slice())
            >= BUDGET
    }

    /// Writes what is held as runs. To be called when every tick whose rows are here is done: then the
    /// strings they need are here too.
    pub(super) fn spill(&mut self, partitions: &[PartitionInfo]) -> io::Result<()> {
        self.need();
        let Self { names, folder, .. } = self;
        self.usage.spill(names, folder)?;
        self.usage_by_route.spill(names, folder)?;
        self.latency.spill(names, folder)?;
        self.geo.spill(names, folder)?;
        self.callers.spill(names, folder)?;
        self.subscription_usage.spill(names, folder)?;
        self.list_late(partitions)
    }

    fn need(&mut self) {
        let names = &mut self.names;
        self.usage.need(names);
        self.usage_by_route.need(names);
        self.latency.need(names);
        self.geo.need(names);
        self.callers.need(names);
        for late in &self.late {
            names.need_key(late.key);
        }
    }

    /// Makes lines of the late events that are held.
    pub(super) fn list_late(&mut self, partitions: &[PartitionInfo]) -> io::Result<()> {
        self.need();
        for late in mem::take(&mut self.late) {
            let place = Place::of(late.position, partitions);
            let line = LateLine {
                place: &place,
                key_id: &self.names.key(late.key).text,
                request_id_hash: late.request.is_some().then(|| format!("{:032x}", late.request.0)),
                event_time: time(late.time),
                lateness_ms: late.late_ms,
                counted: late.counted,
            };
            add(&mut self.late_lines[0], &place, &line)?;
        }
        Ok(())
    }

    /// Lists dead letters of sources.
    pub(super) fn dead_letters(
        &mut self,
        letters: Vec<DeadLetter>,
        partitions: &[PartitionInfo],
    ) -> io::Result<()> {
        for letter in letters {
            let place = Place::of(letter.position, partitions);
            let kept = letter
                .kept
                .as_deref()
                .and_then(|kept| serde_json::value::RawValue::from_string(kept.into()).ok());
            let line = DeadLine {
                place: &place,
                reason: &letter.reason,
                length: letter.length,
                sha256: hex(&letter.sha256),
                kept,
            };
            add(&mut self.dead_letters[0], &place, &line)?;
        }
        Ok(())
    }

    /// Lists bad rows of tables: their offset is the line.
    pub(super) fn table_dead_letters(&mut self, letters: &[TableDeadLetter]) -> io::Result<()> {
        for letter in letters {
            let source = format!("tables.{}", letter.table);
            let path = letter.path.display().to_string();
            let place =
                Place { source: &source, partition: 0, offset: letter.line, index: 0, path: Some(&path) };
            let line = DeadLine {
                place: &place,
                reason: &letter.reason,
                length: letter.length,
                sha256: hex(&letter.sha256),
                kept: None,
            };
            add(&mut self.dead_letters[0], &place, &line)?;
        }
        Ok(())
    }

    /// Adds another worker's results.
    pub(super) fn merge(&mut self, other: Self) {
        self.names.merge(other.names);
        self.counts.events += other.counts.events;
        self.counts.duplicates += other.counts.duplicates;
        self.counts.late += other.counts.late;
        self.usage.merge(other.usage);
        self.usage_by_route.merge(other.usage_by_route);
        self.latency.merge(other.latency);
        self.geo.merge(other.geo);
        self.callers.merge(other.callers);
        self.subscription_usage.merge(other.subscription_usage);
        self.late.extend(other.late);
        self.late_lines.extend(other.late_lines);
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
        self.late.extend(late);
    }

    fn counts(&mut self, _: Tick, counts: Counts) {
        self.counts.events += counts.events;
        self.counts.duplicates += counts.duplicates;
        self.counts.late += counts.late;
    }

    fn define(&mut self, definitions: Vec<Definition>) {
        for definition in definitions {
            self.names.define(definition);
        }
    }
}

/// Where a record stands, as the views name it.
#[derive(Serialize)]
struct Place<'a> {
    source: &'a str,
    partition: u32,
    offset: u64,
    index: u32,
    #[serde(skip)]
    path: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(position: Position, partitions: &'a [PartitionInfo]) -> Self {
        let info = &partitions[position.partition as usize];
        Self {
            source: &info.source,
            partition: info.number,
            offset: position.offset,
            index: position.index,
            path: info.path.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct LateLine<'a> {
    #[serde(flatten)]
    place: &'a Place<'a>,
    key_id: &'a str,
    request_id_hash: Option<String>,
    event_time: String,
    lateness_ms: u64,
    counted: bool,
}

#[derive(Serialize)]
struct DeadLine<'a> {
    #[serde(flatten)]
    place: &'a Place<'a>,
    reason: &'a str,
    length: u64,
    sha256: String,
    kept: Option<Box<serde_json::value::RawValue>>,
}

fn add(sorter: &mut Sorter, place: &Place<'_>, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    // The file is named beside the record's place, as the last column.
    text.pop();
    text.extend_from_slice(b",\"path\":");
    serde_json::to_writer(&mut text, &place.path)?;
    text.extend_from_slice(b"}\n");
    sorter.add(
        |key| {
            key.extend_from_slice(place.source.as_bytes());
            key.push(0);
            key.extend_from_slice(&place.partition.to_be_bytes());
            key.extend_from_slice(&place.offset.to_be_bytes());
            key.extend_from_slice(&place.index.to_be_bytes());
        },
        |line| line.append(&mut text),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
