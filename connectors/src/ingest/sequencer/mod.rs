//! The order of a bounded run: it merges the partitions, judges lateness and cuts ticks.
//!
//! It is pure: event times come in and decisions go out, without I/O, clock or threads. Every decision is made at
//! one record. It is a function of the records before it and of the look-aheads named below. So chunks (how much
//! was read or decoded at once, and when) change nothing.
//!
//! * **Running maximum** of a partition: its greatest event time so far, in offset order. A record more than
//!   [`LEAP_MS`] beyond it is accepted but only remembered. Once [`LEAP_RECORDS`] remembered ones lie beyond, the
//!   maximum goes to the smallest of them, and on from each to the next that is within `LEAP_MS`. So one stray line
//!   makes nothing late, and a real gap costs 63 records of patience. The maximum starts as the smallest time among
//!   the partition's first [`START_EVENTS`] events, so a stray first line does no harm either. There are fewer
//!   events at the partition's end or within [`START_RECORDS`] records; without any it starts at 0.
//! * **Late**: behind the running maximum of the records before it by more than
//!   `out_of_orderness + allowed_lateness`.
//! * **Merge**: a partition's key is its running maximum after its next record. The smallest key goes first, and
//!   among equals the lowest partition. It keeps its turn while its key is at most [`SKEW_MS`] above the second
//!   smallest. So no partition is read more than a minute (and one leap) ahead of the slowest. Files that follow
//!   each other in time are read one after the other.
//! * **Watermark**: the minimum over unfinished partitions of (running maximum - out_of_orderness), each at most
//!   `now`. Once all are finished it is the greatest of them. A watermark never goes back.
//! * **Ticks** are dense from `now`, which is left to the tables. A tick is cut before a record that exceeds
//!   `tick_records`. It is also cut before a record, or the end of a partition, that would raise the watermark more
//!   than [`STEP_MS`] above the previous tick's. A tick without records isn't cut: a gap is jumped at once.
//!
//! Only the partition that has its turn can be missing records; before the first turn, any partition whose start
//! isn't known. To feed those that [`Sequencer::waits_for`] returns is all that is needed to go on.
//!
//! Cost per record: a few ns, since runs of one partition touch only its times. A turn costs O(log partitions).

use std::collections::{BTreeSet, VecDeque};

use keytide_dataflow::model::{EventTime, Tick, TickInfo};
use serde::{Deserialize, Serialize};

/// A single record further beyond its partition's running maximum doesn't move it.
pub const LEAP_MS: u64 = 3_600_000;
/// The number of records beyond the running maximum that move it.
pub const LEAP_RECORDS: usize = 64;
/// The number of events among which a partition's running maximum starts.
pub const START_EVENTS: usize = 64;
/// The number of records, dead letters included, among which these events are looked for.
pub const START_RECORDS: usize = 256;
/// How far a partition may run ahead of the slowest one.
pub const SKEW_MS: u64 = 60_000;
/// How far one tick may raise the watermark.
pub const STEP_MS: u64 = 60_000;

/// The bounds of [`Lags`], ascending: values that a person would set for `windows.out_of_orderness`, and days.
pub const LAG_STEPS_MS: [u64; 13] = [
    5_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    21_600_000,
    86_400_000,
    604_800_000,
];

/// How far events lie behind the running maximum of their partition. It counts those beyond `out_of_orderness`, as
/// the others change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lags {
    /// Events by the first of [`LAG_STEPS_MS`] that is at least their lag. The last number is of those beyond all.
    pub events: [u64; LAG_STEPS_MS.len() + 1],
    /// The largest lag, which may lie beyond all steps.
    pub most_ms: u64,
}

impl Lags {
    fn add(&mut self, lag_ms: u64) {
        self.events[LAG_STEPS_MS.partition_point(|step| *step < lag_ms)] += 1;
        self.most_ms = self.most_ms.max(lag_ms);
    }

    /// Returns the smallest step beyond which at most `events` events lie; `None` if more lie beyond all steps.
    #[must_use]
    pub fn covering(&self, events: u64) -> Option<u64> {
        let mut beyond: u64 = self.events.iter().sum();
        LAG_STEPS_MS.into_iter().zip(self.events).find_map(|(step, within)| {
            beyond -= within;
            (beyond <= events).then_some(step)
        })
    }
}

/// The settings that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub struct SequencerRules {
    /// The time of the run, which is the first tick and the greatest watermark.
    pub now: Tick,
    pub out_of_orderness_ms: u64,
    pub allowed_lateness_ms: u64,
    /// The most records (events and dead letters) in one tick, at least 1.
    pub tick_records: usize,
}

/// Consecutive records of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    pub times: Vec<EventTime>,
    /// For each dead letter, the number of the chunk's events before it; ascending.
    pub letters: Vec<usize>,
    /// True if nothing follows in this partition.
    pub last: bool,
}

impl Chunk {
    fn records(&self) -> usize {
        self.times.len() + self.letters.len()
    }
}

/// One decision about records or ticks. All of them in order are the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The next records of a partition are in the open tick.
    Take(Slice),
    /// The open tick is complete, the next one opens.
    Close(TickInfo),
}

/// Consecutive records of one partition and one chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub partition: usize,
    pub events: usize,
    pub letters: usize,
    /// Late events: index in the slice, and lateness in ms (more than 0).
    pub late: Vec<(usize, u32)>,
}

impl Slice {
    fn flush(&mut self, decide: &mut impl FnMut(Decision)) {
        if self.events + self.letters > 0 {
            let next = Self { partition: self.partition, ..Self::default() };
            decide(Decision::Take(std::mem::replace(self, next)));
        }
    }
}

/// Decides the order of a bounded run's records, and its ticks.
#[derive(Debug)]
pub struct Sequencer {
    partitions: Vec<WaitingRecords>,
    /// The number of partitions whose start isn't known yet.
    starting: usize,
    /// Keys of the waiting partitions: started, unfinished, not having the turn.
    keys: BTreeSet<(EventTime, usize)>,
    /// Running maxima of the same partitions.
    maxima: BTreeSet<(EventTime, usize)>,
    turn: Option<Turn>,
    /// The greatest running maximum of a finished partition.
    finished_maximum: EventTime,
    open: OpenTick,
    tolerance_ms: u64,
    lags: Lags,
    finished: bool,
}

/// The turn of the partition that is being read.
#[derive(Clone, Copy, Debug)]
struct Turn {
    partition: usize,
    /// The greatest key it may go on with.
    key_limit: EventTime,
    /// The smallest running maximum of the waiting partitions.
    others: EventTime,
}

/// The reason for which a turn ends.
enum TurnEnd {
    /// No records are there yet.
    Starved,
    Passed,
    /// The partition is at its end.
    Ended,
}

impl Sequencer {
    /// Starts a run over `partitions` partitions. Returns its first tick as well, which is the tables'.
    #[must_use]
    pub fn new(rules: &SequencerRules, partitions: usize) -> (Self, TickInfo) {
        let mut open = OpenTick {
            now: rules.now,
            out_of_orderness_ms: rules.out_of_orderness_ms,
            record_limit: rules.tick_records.max(1),
            tick: rules.now,
            records: 0,
            before: 0,
            watermark: 0,
        };
        let tables = open.close(false);
        let sequencer = Self {
            partitions: (0..partitions).map(|_| WaitingRecords::default()).collect(),
            starting: partitions,
            keys: BTreeSet::new(),
            maxima: BTreeSet::new(),
            turn: None,
            finished_maximum: 0,
            open,
            tolerance_ms: rules.out_of_orderness_ms.saturating_add(rules.allowed_lateness_ms),
            lags: Lags::default(),
            finished: false,
        };
        (sequencer, tables)
    }

    /// Adds the next records of a partition. Nothing may follow its last chunk.
    pub fn push(&mut self, partition: usize, chunk: Chunk) {
        let waiting = &mut self.partitions[partition];
        debug_assert!(!waiting.ended, "nothing follows a partition's last chunk");
        waiting.ended = chunk.last;
        if chunk.records() > 0 {
            waiting.chunks.push_back(chunk);
        }
        if waiting.running.is_none() && waiting.start() {
            self.starting -= 1;
            self.wait(partition);
        }
    }

    /// Returns whether the run can't go on without more records of this partition.
    #[must_use]
    pub fn waits_for(&self, partition: usize) -> bool {
        let waiting = &self.partitions[partition];
        let has_turn = self.turn.is_some_and(|turn| turn.partition == partition);
        !waiting.ended && (waiting.running.is_none() || has_turn && waiting.chunks.is_empty())
    }

    /// Returns whether this partition's start is known. Until then it is read one block at a time.
    #[must_use]
    pub fn has_started(&self, partition: usize) -> bool {
        self.partitions[partition].running.is_some()
    }

    /// Returns the partition that has its turn.
    #[must_use]
    pub fn turn(&self) -> Option<usize> {
        self.turn.map(|turn| turn.partition)
    }

    /// Returns whether the last tick was closed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns the lags of the events that were taken.
    #[must_use]
    pub fn lags(&self) -> Lags {
        self.lags
    }

    /// Decides as far as the records reach.
    pub fn advance(&mut self, mut decide: impl FnMut(Decision)) {
        if self.starting > 0 || self.finished {
            return;
        }
        while let Some(turn) = self.turn.take().or_else(|| self.next_turn()) {
            match self.run(turn, &mut decide) {
                TurnEnd::Starved => {
                    self.turn = Some(turn);
                    return;
                }
                TurnEnd::Passed => self.wait(turn.partition),
                TurnEnd::Ended => self.end(turn.partition, &mut decide),
            }
        }
        self.finished = true;
        decide(Decision::Close(self.open.close(true)));
    }

    /// Lines a partition up for its next turn, unless it is at its end.
    fn wait(&mut self, partition: usize) {
        let waiting = &self.partitions[partition];
        if let (Some(running), Some(record)) = (&waiting.running, waiting.head()) {
            self.keys.insert((running.after(record), partition));
            self.maxima.insert((running.maximum, partition));
        }
    }

    fn next_turn(&mut self) -> Option<Turn> {
        let (_, partition) = self.keys.pop_first()?;
        let maximum = self.partitions[partition].running.as_ref().map_or(0, |running| running.maximum);
        self.maxima.remove(&(maximum, partition));
        let key_limit =
            self.keys.first().map_or(EventTime::MAX, |(second, _)| second.saturating_add(SKEW_MS));
        let others = self.maxima.first().map_or(EventTime::MAX, |&(maximum, _)| maximum);
        // Only the first turn is changed by this: it is how the watermark starts.
        self.open.raise(maximum.min(others));
        Some(Turn { partition, key_limit, others })
    }

    /// Takes records of one partition while it has its turn.
    fn run(&mut self, turn: Turn, decide: &mut impl FnMut(Decision)) -> TurnEnd {
        let WaitingRecords { chunks, event, letter, ended, running } = &mut self.partitions[turn.partition];
        let (open, lags) = (&mut self.open, &mut self.lags);
        let Some(running) = running else { return TurnEnd::Starved };
        let mut slice = Slice { partition: turn.partition, ..Slice::default() };
        while let Some(chunk) = chunks.front() {
            // 1. Most events need no closer look: they are taken as a run.
            if open.records > 0 && open.room() > 0 {
                let bound = turn.key_limit.min(running.near()).min(open.near(turn.others));
                let next_letter = chunk.letters.get(*letter).map_or(usize::MAX, |&next| next.max(*event));
                let end = next_letter.min(chunk.times.len()).min(*event + open.room());
                let taken = running.run(
                    &chunk.times[*event..end],
                    bound,
                    (open.out_of_orderness_ms, self.tolerance_ms),
                    lags,
                );
                *event += taken;
                slice.events += taken;
                open.records += taken;
                open.raise(running.maximum.min(turn.others));
            }
            // 2. The record behind the run is taken by the rules: turn, tick, lateness.
            if let Some(record) = head_of(chunk, *event, *letter) {
                let maximum = running.after(record);
                if maximum > turn.key_limit {
                    slice.flush(decide);
                    return TurnEnd::Passed;
                }
                if open.room() == 0 || open.is_leap(maximum.min(turn.others)) {
                    slice.flush(decide);
                    decide(Decision::Close(open.close(false)));
                }
                if let NextRecord::Event(time) = record {
                    let behind = running.maximum.saturating_sub(time);
                    if behind > open.out_of_orderness_ms {
                        lags.add(behind);
                    }
                    if behind > self.tolerance_ms {
                        slice.late.push((slice.events, u32::try_from(behind).unwrap_or(u32::MAX)));
                    }
                    running.advance(time);
                    *event += 1;
                    slice.events += 1;
                } else {
                    *letter += 1;
                    slice.letters += 1;
                }
                open.records += 1;
                open.raise(maximum.min(turn.others));
            }
            // 3. A slice ends with its chunk.
            if *event + *letter == chunk.records() {
                slice.flush(decide);
                chunks.pop_front();
                (*event, *letter) = (0, 0);
            }
        }
        if *ended { TurnEnd::Ended } else { TurnEnd::Starved }
    }

    /// Takes a finished partition out of the minimum.
    fn end(&mut self, partition: usize, decide: &mut impl FnMut(Decision)) {
        if let Some(running) = &self.partitions[partition].running {
            self.finished_maximum = self.finished_maximum.max(running.maximum);
        }
        let maximum = self.maxima.first().map_or(self.finished_maximum, |&(maximum, _)| maximum);
        if self.open.is_leap(maximum) {
            decide(Decision::Close(self.open.close(false)));
        }
        self.open.raise(maximum);
    }
}

/// The tick that is being filled.
#[derive(Debug)]
struct OpenTick {
    now: Tick,
    out_of_orderness_ms: u64,
    record_limit: usize,
    tick: Tick,
    records: usize,
    before: EventTime,
    watermark: EventTime,
}

impl OpenTick {
    /// Returns the watermark if `maximum` is the smallest running maximum.
    fn watermark_of(&self, maximum: EventTime) -> EventTime {
        maximum.saturating_sub(self.out_of_orderness_ms).min(self.now)
    }

    fn raise(&mut self, maximum: EventTime) {
        self.watermark = self.watermark.max(self.watermark_of(maximum));
    }

    /// Returns how many records the tick may still take.
    fn room(&self) -> usize {
        self.record_limit - self.records
    }

    /// Returns whether a running maximum must wait for the next tick.
    fn is_leap(&self, maximum: EventTime) -> bool {
        self.records > 0 && self.watermark_of(maximum) > self.reach()
    }

    /// Returns the greatest watermark of this tick, once it has a record.
    fn reach(&self) -> EventTime {
        self.watermark.max(self.before.saturating_add(STEP_MS))
    }

    /// Returns how far a partition's running maximum may go in this tick, given the others' smallest.
    fn near(&self, others: EventTime) -> EventTime {
        let reach = self.reach();
        let free = reach >= self.now || self.watermark_of(others) <= reach;
        if free { EventTime::MAX } else { reach.saturating_add(self.out_of_orderness_ms) }
    }

    fn close(&mut self, last: bool) -> TickInfo {
        let info = TickInfo {
            tick: self.tick,
            watermark_before: self.before,
            watermark: self.watermark,
            cadence: self.watermark,
            catching_up: false,
            last,
        };
        self.tick += 1;
        self.records = 0;
        self.before = self.watermark;
        info
    }
}

/// The records of a partition that wait for a decision.
#[derive(Debug, Default)]
struct WaitingRecords {
    /// The chunks, each with a record that isn't used up.
    chunks: VecDeque<Chunk>,
    /// The index of the next event of the first chunk, and of its next dead letter.
    event: usize,
    letter: usize,
    ended: bool,
    /// `None` until the partition's start is known.
    running: Option<RunningMaximum>,
}

#[derive(Clone, Copy)]
enum NextRecord {
    Event(EventTime),
    Letter,
}

fn head_of(chunk: &Chunk, event: usize, letter: usize) -> Option<NextRecord> {
    match (chunk.times.get(event), chunk.letters.get(letter)) {
        (time, Some(&events_before)) if events_before <= event || time.is_none() => Some(NextRecord::Letter),
        (time, _) => time.copied().map(NextRecord::Event),
    }
}

impl WaitingRecords {
    fn head(&self) -> Option<NextRecord> {
        self.chunks.front().and_then(|chunk| head_of(chunk, self.event, self.letter))
    }

    /// Starts the running maximum if the look-ahead is complete. Returns whether it is complete.
    fn start(&mut self) -> bool {
        let (mut records, mut events) = (0, 0);
        let mut minimum = None::<EventTime>;
        'look: for chunk in &self.chunks {
            let (mut event, mut letter) = (0, 0);
            while let Some(record) = head_of(chunk, event, letter) {
                if let NextRecord::Event(time) = record {
                    minimum = Some(minimum.map_or(time, |minimum| minimum.min(time)));
                    event += 1;
                    events += 1;
                } else {
                    letter += 1;
                }
                records += 1;
                if events == START_EVENTS || records == START_RECORDS {
                    break 'look;
                }
            }
        }
        let complete = events == START_EVENTS || records == START_RECORDS || self.ended;
        self.running = complete.then(|| RunningMaximum { maximum: minimum.unwrap_or(0), beyond: Vec::new() });
        complete
    }
}

/// The running maximum of a partition's event times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningMaximum {
    maximum: EventTime,
    /// Times more than [`LEAP_MS`] beyond it, ascending; fewer than [`LEAP_RECORDS`].
    beyond: Vec<EventTime>,
}

impl RunningMaximum {
    /// Starts at the first event of a partition.
    pub(crate) fn starting_at(time: EventTime) -> Self {
        Self { maximum: time, beyond: Vec::new() }
    }

    /// Returns the greatest event time so far, leaps not included.
    pub(crate) fn maximum(&self) -> EventTime {
        self.maximum
    }

    /// Returns the maximum after a record.
    fn after(&self, record: NextRecord) -> EventTime {
        let NextRecord::Event(time) = record else { return self.maximum };
        let is_leap = self.is_beyond(time);
        if is_leap && self.beyond.len() + 1 < LEAP_RECORDS {
            return self.maximum;
        }
        let (below, above) = self.beyond.split_at(self.beyond.partition_point(|&other| other <= time));
        let start = if is_leap { below.first().copied().unwrap_or(time) } else { self.maximum.max(time) };
        let mut maximum = start;
        for &next in below.iter().chain([&time]).chain(above) {
            if next > maximum.saturating_add(LEAP_MS) {
                break;
            }
            maximum = maximum.max(next);
        }
        maximum
    }

    fn is_beyond(&self, time: EventTime) -> bool {
        time > self.maximum.saturating_add(LEAP_MS)
    }

    /// Takes the time of the next event.
    pub(crate) fn advance(&mut self, time: EventTime) {
        // Most events are within reach, and no time beyond is waiting.
        if self.beyond.is_empty() && !self.is_beyond(time) {
            self.maximum = self.maximum.max(time);
            return;
        }
        let maximum = self.after(NextRecord::Event(time));
        if self.is_beyond(time) {
            self.beyond.insert(self.beyond.partition_point(|&other| other <= time), time);
        }
        self.maximum = maximum;
        let reached = self.beyond.partition_point(|&other| !self.is_beyond(other));
        self.beyond.drain(..reached);
    }

    /// Returns the time up to which events only raise the maximum to themselves.
    fn near(&self) -> EventTime {
        let reach = self.maximum.saturating_add(LEAP_MS);
        self.beyond.first().map_or(reach, |&first| reach.min(first - LEAP_MS - 1))
    }

    /// Takes the events at the beginning of `times` that are at most `bound` and not late. Returns their number.
    /// `bound` is at most [`near`](Self::near). Lags of more than `expected_ms` are counted.
    fn run(
        &mut self,
        times: &[EventTime],
        bound: EventTime,
        (expected_ms, tolerance_ms): (u64, u64),
        lags: &mut Lags,
    ) -> usize {
        let mut maximum = self.maximum;
        let mut taken = 0;
        for &time in times {
            let lag_ms = maximum.saturating_sub(time);
            if time > bound || lag_ms > tolerance_ms {
                break;
            }
            if lag_ms > expected_ms {
                lags.add(lag_ms);
            }
            maximum = maximum.max(time);
            taken += 1;
        }
        self.maximum = maximum;
        taken
    }
}

#[cfg(test)]
mod tests;
