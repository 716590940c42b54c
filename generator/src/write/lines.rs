//! Generates the lines of a world's calls one by one, for files, a topic or a demo.

use std::collections::VecDeque;

use serde::Serialize;

use super::format::Formatter;
use crate::draw::Draw;
use crate::story::episodes::LabelLine;
use crate::story::record::CallRecord;
use crate::story::schedule::{Arrival, Schedule};
use crate::story::{CHANCE, CallSource, World};

/// A duplicate comes within this number of records, as after a gateway's retry.
const RESENT_WITHIN: usize = 16;

impl World {
    /// Returns a generator of all lines, from the first.
    pub fn generator(&self) -> Generator<'_> {
        let (settings, population) = (&self.settings, &self.population);
        let seed = settings.seed_of_calls();
        let mut chance = Draw::new(seed, CHANCE);
        let calls = self.calls(seed, &mut chance);
        Generator {
            world: self,
            calls,
            chance,
            schedule: Schedule::new(settings, Draw::new(seed, 1)),
            draw: Draw::new(seed, 2),
            formatter: Formatter::new(settings.format, population),
            sent: VecDeque::with_capacity(RESENT_WITHIN),
            planned: VecDeque::with_capacity(3),
            generated: Generated::default(),
            stopped_ms: None,
        }
    }
}

/// A line of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'l> {
    /// Counts from 0 and is below the settings' `partitions`.
    pub partition: usize,
    /// The time of arrival, in milliseconds since the epoch: the call's time, or later if the call is out of order.
    pub at_ms: u64,
    pub bytes: &'l [u8],
}

impl<'l> LogLine<'l> {
    /// Returns the line without its line feed.
    pub fn text(&self) -> &'l [u8] {
        self.bytes.strip_suffix(b"\n").unwrap_or(self.bytes)
    }
}

/// The counts of generated lines, which `generated.json` contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Generated {
    pub events: u64,
    /// Counts all lines: calls, duplicates and broken ones.
    pub lines: u64,
    /// Counts calls without a key.
    pub anonymous: u64,
    /// Counts calls a little behind others of their partition.
    pub out_of_order: u64,
    /// Counts calls far behind others of their partition.
    pub late: u64,
    pub duplicates: u64,
    /// Counts lines that are no record.
    pub broken: u64,
    /// Counts the bytes of all lines with their line feeds, before compression.
    pub bytes: u64,
    /// Counts calls that belong to leaks; absent in plain worlds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak_calls: Option<u64>,
    /// Counts calls that belong to look-alikes; absent in plain worlds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_alike_calls: Option<u64>,
}

impl Generated {
    /// Adds up the counts of two worlds.
    pub fn and(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| a.map(|a| a + b.unwrap_or(0)).or(b);
        Self {
            events: self.events + other.events,
            lines: self.lines + other.lines,
            anonymous: self.anonymous + other.anonymous,
            out_of_order: self.out_of_order + other.out_of_order,
            late: self.late + other.late,
            duplicates: self.duplicates + other.duplicates,
            broken: self.broken + other.broken,
            bytes: self.bytes + other.bytes,
            leak_calls: sum(self.leak_calls, other.leak_calls),
            look_alike_calls: sum(self.look_alike_calls, other.look_alike_calls),
        }
    }
}

/// The kind of a line.
#[derive(Clone, Copy)]
enum LineKind {
    Call(Arrival),
    Again,
    Broken,
}

struct PendingLine {
    kind: LineKind,
    at_ms: u64,
    partition: usize,
    record: CallRecord,
}

/// Generates the lines of a world in order of arrival. The same settings always give the same lines.
pub struct Generator<'a> {
    world: &'a World,
    calls: CallSource<'a>,
    chance: Draw,
    schedule: Schedule,
    draw: Draw,
    formatter: Formatter<'a>,
    /// The last [`RESENT_WITHIN`] records and their partitions.
    sent: VecDeque<(usize, CallRecord)>,
    /// Lines that come before those of the next call.
    planned: VecDeque<PendingLine>,
    generated: Generated,
    stopped_ms: Option<u64>,
}

impl<'a> Generator<'a> {
    /// Returns the next line, or `None` at the end of the run.
    pub fn next_line(&mut self) -> Option<LogLine<'_>> {
        if self.planned.is_empty() {
            self.plan()?;
        }
        let PendingLine { kind, at_ms, partition, record } = self.planned.pop_front()?;
        let generated = &mut self.generated;
        match kind {
            LineKind::Call(arrival) => {
                generated.events += 1;
                generated.anonymous += u64::from(record.key.is_none());
                generated.out_of_order += u64::from(arrival.out_of_order);
                generated.late += u64::from(arrival.late);
            }
            LineKind::Again => generated.duplicates += 1,
            LineKind::Broken => generated.broken += 1,
        }
        let bytes = match kind {
            LineKind::Broken => self.formatter.broken_line(&record),
            LineKind::Call(_) | LineKind::Again => self.formatter.line(&record),
        };
        generated.lines += 1;
        generated.bytes += bytes.len() as u64;
        Some(LogLine { partition, at_ms, bytes })
    }

    /// Makes no more calls. The lines of earlier calls still come.
    pub fn stop(&mut self) {
        self.schedule.stop();
        self.stopped_ms.get_or_insert(self.schedule.at_ms());
    }

    /// Returns the counts of the lines so far. Calls of episodes include delayed ones, whose lines are still to come.
    pub fn generated(&self) -> Generated {
        let staged = |leak| self.world.staged_calls(&self.calls, leak);
        Generated { leak_calls: staged(true), look_alike_calls: staged(false), ..self.generated }
    }

    /// Returns the labels of all episodes with their calls so far, or `None` in a plain world. If the run was stopped,
    /// only episodes that had begun are included.
    ///
    /// # Errors
    /// If a time can't be written as text.
    pub(crate) fn labels(&self) -> anyhow::Result<Option<Vec<LabelLine>>> {
        self.world.labels(&self.calls, self.stopped_ms.unwrap_or(u64::MAX))
    }

    /// Plans the line of the next call, and a duplicate or broken line after it.
    fn plan(&mut self) -> Option<()> {
        let population = &self.world.population;
        let arrival = self.schedule.next(|| self.calls.next(population, &mut self.chance))?;
        let Arrival { record, partition, at_ms, .. } = arrival;
        self.planned.push_back(PendingLine { kind: LineKind::Call(arrival), at_ms, partition, record });
        if self.sent.len() == RESENT_WITHIN {
            self.sent.pop_front();
        }
        self.sent.push_back((partition, record));
        if self.schedule.again.hit() {
            let (partition, record) = self.sent[self.draw.below(self.sent.len() as u32) as usize];
            self.planned.push_back(PendingLine { kind: LineKind::Again, at_ms, partition, record });
        }
        if self.schedule.broken.hit() {
            self.planned.push_back(PendingLine { kind: LineKind::Broken, at_ms, partition, record });
        }
        Some(())
    }
}
