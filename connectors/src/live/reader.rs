//! A reader is a thread that reads some partitions of every source, decodes them, and judges lateness.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use keytide_config::OnGap;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::model::{EventTime, Position, Tick};

use super::{Addition, LaneMemory, Live, LiveError, Orders, add};
use crate::decode::{Decoded, Decoder, Tally};
use crate::ingest::sequencer::RunningMaximum;
use crate::input::{FutureLimit, Message, gap_letter};
use crate::kafka::{Consumer, ConsumerEvent, KafkaError, KafkaMessage, KeptHeaders, PartitionLag};
use crate::ledger::{PartitionProgress, TickRecord};

/// The most messages that are taken from a source at once.
const POLL_MESSAGES: usize = 2_048;
/// How long a source without messages is waited for.
const POLL_WAIT: Duration = Duration::from_millis(10);
/// The same while ticks follow each other at once: each would wait for it.
const POLL_WAIT_BEHIND: Duration = Duration::from_millis(1);
/// How long a partition that ends before what was read of it earlier is waited for. A new leader may know less at first.
const SHORT_WAIT: Duration = Duration::from_secs(60);
/// The number of events from which a reader hands them over.
const BATCH_EVENTS: usize = 4_096;

/// Reads some partitions of one source.
pub trait Feed: Send {
    /// Reads a partition from an offset on, instead of where it was.
    ///
    /// # Errors
    /// If the client refuses.
    fn add(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError>;
    /// Stops reading a partition, or goes on.
    fn pause(&mut self, partition: u32, pause: bool);
    /// Hands over the records that are there, at most `most`; waits for the first for at most `wait`.
    ///
    /// # Errors
    /// Any error that can't be waited out.
    fn poll(
        &mut self,
        most: usize,
        wait: Duration,
        take: &mut dyn FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError>;
    /// Returns the lag of the partitions, as far as it is known.
    fn lags(&self) -> Vec<PartitionLag>;
}

impl Feed for Consumer {
    fn add(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        Self::add(self, partition, offset)
    }

    fn pause(&mut self, partition: u32, pause: bool) {
        Self::pause(self, partition, pause);
    }

    fn poll(
        &mut self,
        most: usize,
        wait: Duration,
        take: &mut dyn FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        Self::poll(self, wait, most, &mut |record| take(record))
    }

    fn lags(&self) -> Vec<PartitionLag> {
        self.lag()
    }
}

/// A part of a source, as a reader has it.
pub struct SourceFeed {
    /// The name in errors, which is the topic.
    pub name: String,
    /// The index of the source in the configuration.
    pub source: usize,
    pub feed: Box<dyn Feed>,
    pub on_gap: OnGap,
}

/// A function that makes the decoder of a source.
pub type Decoders = dyn Fn(usize) -> Box<dyn Decoder> + Send + Sync;

/// Reads and decodes its partitions for one worker.
pub struct PartitionReader {
    live: Arc<Live>,
    slot: usize,
    sources: Vec<ReaderSource>,
    partitions: LivePartitions,
    tick: Tick,
    answered: u64,
    /// The number of the replacement that the decoders are from.
    replacement: u64,
    out: Decoded,
    minutes: BTreeSet<EventTime>,
    tolerance_ms: u64,
}

struct ReaderSource {
    feed: SourceFeed,
    decoder: Box<dyn Decoder>,
}

/// The partitions of a reader, by source and number.
#[derive(Default)]
struct LivePartitions {
    list: Vec<LivePartition>,
    indices: HashMap<(usize, u32), usize>,
}

#[derive(Default)]
struct LivePartition {
    index: usize,
    source: usize,
    number: u32,
    /// `None` before the first event.
    running: Option<RunningMaximum>,
    /// The greatest event time, leaps included.
    highest: EventTime,
    next_offset: u64,
    at_end: bool,
    /// True if it was at its end since the last cut.
    was_at_end: bool,
    events: u64,
    paused: bool,
    /// Records that no tick before the open one has, in order. There are none but in a replay and right after it.
    kept: VecDeque<KeptMessage>,
    /// The end behind the kept records, if it was reached.
    kept_end: Option<u64>,
    /// A gap behind the open tick.
    gap: Option<ReportedGap>,
    /// Since when the partition ends before what a recorded tick has of it.
    short: Option<Instant>,
    /// The first and the last offset of the gap that was passed over in the open tick, which is a recorded one.
    skipped: Option<(u64, u64)>,
}

/// A record that is decoded later.
struct KeptMessage {
    offset: u64,
    value: Option<Box<[u8]>>,
    headers: KeptHeaders,
}

struct ReportedGap {
    /// The partition's number in its topic.
    number: u32,
    wanted: u64,
    low: u64,
    high: u64,
}

impl PartitionReader {
    /// Makes the reader of a slot, with its part of every source.
    pub fn new(live: &Arc<Live>, slot: usize, feeds: Vec<SourceFeed>, decoders: &Decoders) -> Self {
        let windows = &live.options.windows;
        let tolerance_ms = windows.out_of_orderness_ms.saturating_add(windows.allowed_lateness_ms);
        let source = |feed: SourceFeed| ReaderSource { decoder: decoders(feed.source), feed };
        Self {
            live: Arc::clone(live),
            slot,
            sources: feeds.into_iter().map(source).collect(),
            partitions: LivePartitions::default(),
            tick: live.state().open,
            answered: 0,
            replacement: 0,
            out: Decoded::default(),
            minutes: BTreeSet::new(),
            tolerance_ms,
        }
    }

    /// Reads until the job ends. An error ends the job; the records read before are in its last tick.
    pub fn run(mut self) {
        let mut failed = false;
        loop {
            let mut orders = self.live.orders(self.slot);
            let cut = orders.cut;
            // A partition that isn't known yet would look as if its part of a recorded tick were read.
            for addition in mem::take(&mut orders.additions) {
                if let Err(error) = self.add(addition) {
                    failed = true;
                    self.live.fail(error);
                }
            }
            let is_read = |recorded: &&TickRecord| {
                self.partitions.list.iter().all(|partition| partition.has(Some(recorded)))
            };
            let recorded = orders.recorded(self.tick);
            let lost = recorded.filter(is_read).and_then(|recorded| self.lost(recorded));
            let is_whole = recorded.as_ref().is_none_or(is_read) && lost.is_none();
            if let Some(error) = lost.filter(|_| !failed) {
                failed = true;
                self.live.fail(error);
            }
            if cut != self.answered && (orders.last || is_whole) {
                self.answer(cut, orders.checkpoint);
                if orders.last {
                    return;
                }
            }
            if failed || orders.stopping || !orders.has_room {
                self.flush();
                self.live.rest(cut);
            } else if let Err(error) = self.read(orders) {
                failed = true;
                self.live.fail(error);
            }
        }
    }

    /// Takes kept records, and polls every source once.
    fn read(&mut self, orders: Orders) -> Result<(), LiveError> {
        let recorded = orders.recorded(self.tick);
        self.take_kept(recorded)?;
        self.pause_beyond(orders.ceiling, recorded);
        self.poll(if orders.behind { POLL_WAIT_BEHIND } else { POLL_WAIT }, recorded)?;
        if self.out.events.len() >= BATCH_EVENTS {
            self.flush();
        }
        Ok(())
    }

    /// Returns the error of a recorded tick that had events of a gap. A gap that it passed over itself had none.
    fn lost(&self, recorded: &TickRecord) -> Option<LiveError> {
        let lacks = |partition: &&LivePartition| {
            let events = recorded.reached.get(partition.index).map_or(0, |part| part.events);
            partition.skipped.is_some() && partition.events < events
        };
        let partition = self.partitions.list.iter().find(lacks)?;
        let (from, last) = partition.skipped?;
        let source = self.sources.iter().find(|source| source.feed.source == partition.source)?;
        Some(partition.records_gone(&source.feed.name, from, last + 1))
    }

    fn add(&mut self, addition: Addition) -> Result<(), LiveError> {
        let Addition { index, source, number, offset, lane } = addition;
        let feed = self.sources.iter_mut().find(|feed| feed.feed.source == source);
        if let Some(source) = feed {
            source.feed.feed.add(number, offset)?;
        }
        self.partitions.indices.insert((source, number), self.partitions.list.len());
        let (running, highest) = lane.map(|lane| (lane.running, lane.highest)).unzip();
        self.partitions.list.push(LivePartition {
            index,
            source,
            number,
            running,
            highest: highest.unwrap_or(0),
            next_offset: offset,
            ..LivePartition::default()
        });
        Ok(())
    }

    /// Decodes the kept records of the open tick, and passes over its gaps.
    fn take_kept(&mut self, recorded: Option<&TickRecord>) -> Result<(), LiveError> {
        let Self { live, sources, partitions, tick, out, minutes, tolerance_ms, .. } = self;
        let mut late = 0;
        let (events_before, letters_before) = (out.events.len(), out.dead_letters.len());
        for partition in &mut partitions.list {
            let bound = partition.bound(recorded);
            let Some(ReaderSource { feed, decoder }) =
                sources.iter_mut().find(|source| source.feed.source == partition.source)
            else {
                continue;
            };
            while let Some(kept) = partition.kept.pop_front_if(|kept| kept.offset < bound) {
                let message = KafkaMessage {
                    partition: partition.number,
                    offset: kept.offset,
                    key: None,
                    value: kept.value.as_deref(),
                    headers: &kept.headers,
                };
                late += partition.message(&message, &mut **decoder, *tick, *tolerance_ms, minutes, out);
            }
            if partition.kept.is_empty()
                && let Some(end) = partition.kept_end.take_if(|end| *end <= bound)
            {
                partition.end(end);
            }
            if let Some(gap) = partition.gap.take_if(|gap| gap.wanted < bound) {
                pass_over(live, feed, partition, &gap, recorded, out)?;
            }
            let is_short = partition.short.is_some_and(|since| since.elapsed() >= SHORT_WAIT);
            if recorded.is_some() && is_short && !partition.reaches(bound) {
                return Err(partition.records_gone(&feed.name, partition.next_offset, bound));
            }
        }
        live.counters.count(out, events_before, letters_before, late);
        Ok(())
    }

    /// Pauses the partitions that are beyond an event time, or behind a recorded tick; lets the others go on.
    fn pause_beyond(&mut self, ceiling: EventTime, recorded: Option<&TickRecord>) {
        let mut reached = false;
        for partition in &mut self.partitions.list {
            let is_ahead = partition.running.as_ref().is_some_and(|running| running.maximum() > ceiling);
            let beyond = if recorded.is_some() { partition.has(recorded) } else { is_ahead };
            if beyond != partition.paused {
                partition.paused = beyond;
                reached |= beyond && recorded.is_none();
                if let Some(source) =
                    self.sources.iter_mut().find(|source| source.feed.source == partition.source)
                {
                    source.feed.feed.pause(partition.number, beyond);
                }
            }
        }
        if reached {
            self.live.reached_ceiling();
        }
    }

    fn poll(&mut self, wait: Duration, recorded: Option<&TickRecord>) -> Result<(), LiveError> {
        let Self { live, sources, partitions, tick, out, minutes, tolerance_ms, .. } = self;
        let (mut messages, mut bytes) = (0, 0);
        let (events_before, letters_before) = (out.events.len(), out.dead_letters.len());
        let mut late = 0;
        let wait = wait / u32::try_from(sources.len().max(1)).unwrap_or(u32::MAX);
        if sources.is_empty() || partitions.list.is_empty() {
            let _ = live.wait_for_stop(POLL_WAIT);
            return Ok(());
        }
        for ReaderSource { feed, decoder } in sources.iter_mut() {
            let mut gaps = Vec::new();
            let mut take = |record: ConsumerEvent<'_>| {
                let (ConsumerEvent::Message(KafkaMessage { partition: number, .. })
                | ConsumerEvent::End { partition: number, .. }
                | ConsumerEvent::Gap { partition: number, .. }) = record;
                let Some(partition) = partitions.get(feed.source, number) else { return };
                let bound = partition.bound(recorded);
                match record {
                    ConsumerEvent::Message(message) => {
                        let value = message.value.unwrap_or_default();
                        messages += 1;
                        bytes += value.len() as u64;
                        if message.offset >= bound || !partition.kept.is_empty() {
                            return partition.keep(&message);
                        }
                        late +=
                            partition.message(&message, &mut **decoder, *tick, *tolerance_ms, minutes, out);
                    }
                    ConsumerEvent::End { offset, .. } if offset > bound || !partition.kept.is_empty() => {
                        partition.kept_end = Some(offset);
                    }
                    ConsumerEvent::End { offset, .. } => {
                        partition.end(offset);
                        partition.short = (recorded.is_some() && offset < bound).then(Instant::now);
                    }
                    ConsumerEvent::Gap { wanted, low, high, .. } => {
                        let gap = ReportedGap { number, wanted, low, high };
                        if wanted < bound { gaps.push(gap) } else { partition.gap = Some(gap) }
                    }
                }
            };
            feed.feed.poll(POLL_MESSAGES, wait, &mut take)?;
            // Most polls find nothing odd, and the tallies of all readers share a lock.
            let tally = mem::take(&mut out.tally);
            if tally != Tally::default() {
                live.counters.tally(feed.source, &tally);
            }
            // The feed can be moved on only once its poll is over.
            for gap in gaps {
                let partition = partitions.get(feed.source, gap.number).expect("its record was taken above");
                pass_over(live, feed, partition, &gap, recorded, out)?;
            }
        }
        add(&live.counters.messages, messages);
        add(&live.counters.bytes, bytes);
        live.counters.count(out, events_before, letters_before, late);
        Ok(())
    }

    /// Hands the decoded records over to the worker.
    fn flush(&mut self) {
        let tick = self.tick;
        let Decoded { events, dead_letters, definitions, .. } = mem::take(&mut self.out);
        if events.is_empty() && dead_letters.is_empty() && definitions.is_empty() {
            return;
        }
        self.out.events.reserve(events.len());
        let definitions = (!definitions.is_empty()).then_some(Message::Definitions(definitions));
        let events = (!events.is_empty()).then_some(Message::Events { tick, events });
        let letters =
            (!dead_letters.is_empty()).then_some(Message::DeadLetters { tick, letters: dead_letters });
        self.live.send(self.slot, definitions.into_iter().chain(events).chain(letters));
    }

    fn answer(&mut self, cut: u64, checkpoint: bool) {
        // 1. All events of the tick enter the queue before the answer.
        self.flush();
        for ReaderSource { feed, .. } in &self.sources {
            let lags = feed.feed.lags().into_iter().filter_map(|lag| {
                Some((
                    self.partitions.list[*self.partitions.indices.get(&(feed.source, lag.partition))?].index,
                    lag.lag,
                ))
            });
            self.live.set_lags(lags);
        }
        if checkpoint {
            let lanes = self.partitions.list.iter().map(|partition| (partition.index, partition.lane()));
            self.live.remember_lanes(lanes);
        }
        // 2. The answer: how far each partition is, and which minutes have events.
        let reached = self.partitions.list.iter_mut().map(|partition| (partition.index, partition.reached()));
        let (tick, replacement, decoders) =
            self.live.answer(self.slot, cut, reached.collect::<Vec<_>>(), mem::take(&mut self.minutes));
        (self.tick, self.answered) = (tick, cut);
        // 3. New decoders begin with the next tick.
        if let Some(decoders) = decoders.filter(|_| replacement > self.replacement) {
            self.replacement = replacement;
            for source in &mut self.sources {
                source.decoder = decoders(source.feed.source);
            }
        }
    }
}

impl LivePartitions {
    fn get(&mut self, source: usize, partition: u32) -> Option<&mut LivePartition> {
        self.indices.get(&(source, partition)).map(|index| &mut self.list[*index])
    }
}

impl LivePartition {
    /// Decodes a message, and returns how many of its events are late.
    fn message(
        &mut self,
        message: &KafkaMessage<'_>,
        decoder: &mut dyn Decoder,
        tick: Tick,
        tolerance_ms: u64,
        minutes: &mut BTreeSet<EventTime>,
        out: &mut Decoded,
    ) -> u64 {
        let KafkaMessage { offset, value, headers, .. } = *message;
        let value = value.unwrap_or_default();
        (self.at_end, self.short) = (false, None);
        self.next_offset = offset + 1;
        let (event, letter) = (out.events.len(), out.dead_letters.len());
        decoder.decode_with(value, headers, self.position(offset), out);
        FutureLimit::at(tick).judge(out, event, letter, value);
        let mut late = 0;
        self.events += (out.events.len() - event) as u64;
        for event in &mut out.events[event..] {
            let time = event.time;
            let running = self.running.get_or_insert_with(|| RunningMaximum::starting_at(time));
            let behind = running.maximum().saturating_sub(time);
            if behind > tolerance_ms {
                event.late_ms = u32::try_from(behind).unwrap_or(u32::MAX);
                late += 1;
            }
            running.advance(time);
            if time > self.highest {
                self.highest = time;
            }
            let minute = time - time % MINUTE_MS;
            if minutes.last() != Some(&minute) {
                minutes.insert(minute);
            }
        }
        late
    }

    /// Notes that its end was reached.
    fn end(&mut self, offset: u64) {
        (self.at_end, self.was_at_end) = (true, true);
        self.next_offset = offset;
    }

    /// Keeps a record for a later tick.
    fn keep(&mut self, message: &KafkaMessage<'_>) {
        (self.kept_end, self.short) = (None, None);
        self.kept.push_back(KeptMessage {
            offset: message.offset,
            value: message.value.map(Into::into),
            headers: KeptHeaders::of(message.headers, usize::MAX).unwrap_or_default(),
        });
    }

    /// Returns the offset that ends its part of a recorded tick.
    fn bound(&self, recorded: Option<&TickRecord>) -> u64 {
        // A partition that the tick doesn't have begins with a later one.
        recorded.map_or(u64::MAX, |tick| tick.reached.get(self.index).map_or(0, |part| part.next_offset))
    }

    /// Returns whether its part of a recorded tick is read.
    fn has(&self, recorded: Option<&TickRecord>) -> bool {
        self.reaches(self.bound(recorded))
    }

    /// Returns whether no record before an offset is missing. Offsets of control records have none.
    fn reaches(&self, bound: u64) -> bool {
        self.next_offset >= bound
            || self.kept.front().is_some_and(|kept| kept.offset >= bound)
            || self.kept.is_empty() && self.kept_end.is_some_and(|end| end >= bound)
    }

    fn records_gone(&self, source: &str, from: u64, to: u64) -> LiveError {
        let (source_name, number) = (source.to_owned(), self.number);
        LiveError::RecordsGone { source_name, number, from, to: to.saturating_sub(1) }
    }

    /// Returns the times of its events, for a checkpoint.
    fn lane(&self) -> Option<LaneMemory> {
        self.running.clone().map(|running| LaneMemory { running, highest: self.highest })
    }

    fn position(&self, offset: u64) -> Position {
        let partition = u32::try_from(self.index).expect("fewer than 2^32 partitions fit in memory");
        Position { partition, offset, index: 0 }
    }

    /// Returns how far the partition got, for a cut.
    fn reached(&mut self) -> PartitionProgress {
        let events = mem::take(&mut self.events);
        self.skipped = None;
        // Records behind the end of a paused partition aren't known.
        let at_end = mem::replace(&mut self.was_at_end, self.at_end) && !self.paused;
        let settled = self.running.as_ref().map(RunningMaximum::maximum);
        // At the end no record is left that could contradict a leap.
        let maximum = if self.at_end { settled.map(|_| self.highest) } else { settled };
        PartitionProgress { maximum, settled, next_offset: self.next_offset, at_end, events }
    }
}

/// Goes on behind a gap, if the source allows it. A recorded tick that lacks events then is an error at its end.
fn pass_over(
    live: &Live,
    source: &mut SourceFeed,
    partition: &mut LivePartition,
    gap: &ReportedGap,
    recorded: Option<&TickRecord>,
    out: &mut Decoded,
) -> Result<(), LiveError> {
    let ReportedGap { number, wanted, low, high } = *gap;
    if source.on_gap == OnGap::Stop {
        if recorded.is_some() {
            return Err(partition.records_gone(&source.name, wanted, partition.bound(recorded)));
        }
        let topic = source.name.clone();
        return Err(KafkaError::Gap { topic, partition: number, wanted, low, high }.into());
    }
    let reason = if wanted < low {
        format!("gap: the records from offset {wanted} to {} are gone: retention passed the job", low - 1)
    } else {
        format!(
            "gap: offset {wanted} lies beyond the topic's end at {high}: it was made anew, and is read from {low} on"
        )
    };
    tracing::warn!(source = source.name, partition = number, "{reason}");
    out.dead_letters.push(gap_letter(partition.position(wanted), out.events.len(), reason));
    add(&live.counters.gaps, 1);
    if recorded.is_some() {
        // Of a topic that was made anew all records of the tick are gone.
        let end = if wanted < low { low } else { partition.bound(recorded) };
        let first = partition.skipped.map_or(wanted, |(first, _)| first);
        partition.skipped = Some((first, end.saturating_sub(1)));
    }
    partition.next_offset = low;
    source.feed.add(number, low)?;
    Ok(())
}
