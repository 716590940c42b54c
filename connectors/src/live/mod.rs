//! The input of a live job: partitions are read and decoded by reader threads, dealt to the workers, and cut
//! into ticks by one coordinator.
//!
//! ```text
//!  broker ──► reader 0 ──► queue 0 ──► worker 0 ─┐
//!  broker ──► reader 1 ──► queue 1 ──► worker 1 ─┼─► publisher ──► sinks
//!  tables ──► reader T ──► queue 0               │       │
//!                ▲  │ answer                done │       │ published
//!                │  ▼                            ▼       ▼
//!               cut ◄────────── coordinator ◄────────────┘
//! ```
//! **A tick** is opened with its timestamp, the clock's time then. Everything read until its *cut* belongs to it.
//! To cut, the coordinator raises the cut's number and names the next tick; every reader hands over what it has,
//! answers with how far its partitions are, and goes on for the next tick at once. When all have answered, the
//! [`Ticker`] decides the watermark and [`Message::Close`] enters every queue.
//!
//! **Why nothing is misplaced.** A reader's messages enter its worker's queue in order, all those of a tick before
//! its answer, and `Close` after all answers. So when a worker takes `Close`, it has taken everything of the tick
//! that is its to take. What it took for the *next* tick before that carries that tick's number, and waits.
//! Definitions enter the queue before the events that rely on them. Tables answer the first cut when they are
//! read to the end they had at the start: no tick closes before.
//!
//! **Ticks are due** when they are as old as `tick_ms`, hold [`TICK_EVENTS`], when the last one left the watermark
//! [`behind`](ClosedTick::behind), or when a partition has come to where only a later watermark lets it go on; but none is cut while [`TICKS_COMPUTED`] are being computed or
//! [`TICKS_PUBLISHED`] published. A slow job's ticks therefore grow wider instead of more.
//!
//! **Back-pressure.** Readers pause while [`QUEUE_BYTES`] wait in the queues or the open tick is full; librdkafka
//! then stops fetching. A partition that is more than `skew_ms` of event time ahead of the watermark is paused
//! until the others follow, or are found to be slow. Memory is bounded by these, whatever the broker holds.
//!
//! **Lateness** is decided by the reader, record by record in the order of offsets, by the same rules as in bounded
//! runs (see [`crate::ingest::sequencer`]) but for the start: a partition's running maximum starts at its first
//! event, as a live job can't look ahead.
//!
//! **Stopping** cuts a last tick, with everything that was read. An error in a reader stops the job the same way,
//! so that what was counted is published before the process ends.

mod coordinator;
mod reader;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod ticker;
mod watch;

use std::collections::BTreeSet;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use keytide_config::Windows;
use keytide_dataflow::model::{EventTime, Tick};

pub use self::coordinator::coordinate;
pub use self::reader::{Decoders, Feed, PartitionReader, SourceFeed};
pub use self::tables::{FileFeed, TableFeed, TableReader, TopicFeed};
pub use self::ticker::{ClosedTick, PartitionProgress, STEP_MS, Ticker, TickerRules};
pub use self::watch::watch_partitions;
use crate::decode::Tally;
use crate::input::{Message, PartitionInfo, Queues};
use crate::kafka::KafkaError;
use crate::tables::TableError;

/// Bytes of messages in all queues at which reading pauses.
pub const QUEUE_BYTES: usize = 64 << 20;
/// Events of the open tick at which it is due, and reading pauses: 64 MiB of them.
pub const TICK_EVENTS: u64 = 1 << 19;
/// Ticks that the workers may be at work on.
pub const TICKS_COMPUTED: u64 = 2;
/// Ticks that are closed and not yet handed to the sinks, those included.
pub const TICKS_PUBLISHED: u64 = 4;
/// How long anybody sleeps before looking around again; whoever changes something wakes the others earlier.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// How a live job is read.
#[derive(Clone, Copy, Debug)]
pub struct LiveOptions {
    /// Width of a tick in ms.
    pub tick_ms: u64,
    /// `[windows]`.
    pub windows: Windows,
    /// Workers, and readers beside them.
    pub workers: NonZeroUsize,
}

/// Why a live job can't go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A table can't be used.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What was read and closed so far; counters only grow.
#[derive(Debug, Default)]
pub struct LiveCounters {
    pub bytes: AtomicU64,
    pub messages: AtomicU64,
    /// Events that were decoded, duplicates included.
    pub events: AtomicU64,
    /// Those of them that are late.
    pub late: AtomicU64,
    /// Dead letters of sources, by [`DeadLetter::class`](crate::decode::DeadLetter::class) (its index in [`crate::decode::CLASSES`]).
    pub dead_letters: [AtomicU64; crate::decode::CLASSES.len()],
    pub table_dead_letters: AtomicU64,
    /// Values of optional columns of tables that could not be read and count as unknown.
    pub table_unread: AtomicU64,
    pub table_changes: AtomicU64,
    pub gaps: AtomicU64,
    pub ticks: AtomicU64,
    /// What was odd about records that count, by source.
    pub tallies: Mutex<Vec<Tally>>,
}

impl LiveCounters {
    /// Adds what was odd about records of a source.
    fn tally(&self, source: usize, tally: &Tally) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() <= source {
            tallies.resize(source + 1, Tally::default());
        }
        tallies[source].add(tally);
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Where a live job is; for metrics and health.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The tick that is open.
    pub open: Tick,
    /// The last tick that was closed, 0 before the first.
    pub closed: Tick,
    /// The last tick that all workers computed.
    pub computed: Tick,
    /// The last tick that was handed to the sinks.
    pub published: Tick,
    pub watermark: EventTime,
    /// Bytes that wait in the workers' queues.
    pub queued_bytes: usize,
    /// The partitions, and how many records of each are there and weren't read, where it is known.
    pub lags: Vec<(PartitionInfo, Option<u64>)>,
    /// The partitions that are slow, and how many ms their events are behind those of the others; 0 while one is idle.
    pub slow: Vec<(PartitionInfo, u64)>,
    pub tables_read: bool,
    /// The last tick was cut because the job is behind its input.
    pub catching_up: bool,
}

/// The input of one live job in this process. See the module.
pub struct Live {
    state: Mutex<LiveState>,
    /// Signals every change that somebody may wait for.
    changed: Condvar,
    options: LiveOptions,
    /// What was read so far.
    pub counters: LiveCounters,
}

struct LiveState {
    first: Tick,
    open: Tick,
    next: Tick,
    /// Number of the last cut that was asked for.
    cut: u64,
    /// By slot, the last cut that it answered.
    answered: Vec<u64>,
    reached: Vec<PartitionProgress>,
    /// By partition, how many ms it is behind the others if it is slow.
    slow: Vec<Option<u64>>,
    lags: Vec<Option<u64>>,
    minutes: BTreeSet<EventTime>,
    partitions: Arc<Vec<PartitionInfo>>,
    /// Decoders for the next tick, once they are to be replaced.
    new_decoders: Option<Arc<Decoders>>,
    /// Decoders since the last replacement, and the number of replacements.
    decoders: (u64, Option<Arc<Decoders>>),
    /// By reader, partitions that it doesn't read yet.
    additions: Vec<Vec<Addition>>,
    open_events: u64,
    queues: Queues,
    watermark: EventTime,
    closed: Tick,
    closed_count: u64,
    /// By worker, how many ticks it computed.
    computed: Vec<(u64, Tick)>,
    published: (u64, Tick),
    behind: bool,
    /// A partition reached the ceiling: only another tick raises it.
    at_ceiling: bool,
    tables_read: bool,
    stopping: bool,
    /// The last cut was asked for.
    last: bool,
    /// The last tick was closed.
    over: bool,
    error: Option<Arc<LiveError>>,
}

/// A partition that is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Its place in the job's list of partitions.
    pub index: usize,
    /// Its source's place in the configuration.
    pub source: usize,
    /// Its number in the topic.
    pub number: u32,
    pub offset: u64,
}

/// What a reader has to heed now.
struct Orders {
    cut: u64,
    last: bool,
    stopping: bool,
    has_room: bool,
    /// No partition is read beyond this event time.
    ceiling: EventTime,
    /// The next cut comes at once.
    behind: bool,
    additions: Vec<Addition>,
}

impl Live {
    /// A job whose first tick is `open`. Its slots are the readers, one a worker, and that of the tables.
    #[must_use]
    pub fn new(open: Tick, options: LiveOptions) -> Arc<Self> {
        let workers = options.workers.get();
        let state = LiveState {
            first: open,
            open,
            next: open,
            cut: 0,
            answered: vec![0; workers + 1],
            reached: Vec::new(),
            slow: Vec::new(),
            lags: Vec::new(),
            minutes: BTreeSet::new(),
            partitions: Arc::default(),
            new_decoders: None,
            decoders: (0, None),
            additions: vec![Vec::new(); workers],
            open_events: 0,
            queues: Queues::new(workers),
            watermark: 0,
            closed: 0,
            closed_count: 0,
            computed: vec![(0, 0); workers],
            published: (0, 0),
            behind: false,
            at_ceiling: false,
            tables_read: false,
            stopping: false,
            last: false,
            over: false,
            error: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            options,
            counters: LiveCounters::default(),
        })
    }

    /// Adds a partition to the job's list; its reader begins with it at once, so the tick that is open then is
    /// the first with records of it.
    pub fn add_partition(&self, info: PartitionInfo, offset: u64) {
        let mut state = self.state();
        let index = state.partitions.len();
        let addition = Addition { index, source: info.source_index, number: info.number, offset };
        Arc::make_mut(&mut state.partitions).push(info);
        state.reached.push(PartitionProgress { next_offset: offset, ..PartitionProgress::default() });
        state.lags.push(None);
        let readers = state.additions.len();
        state.additions[index % readers].push(addition);
        self.changed.notify_all();
    }

    /// The partitions so far; a position's `partition` is an index of this list, which only grows.
    #[must_use]
    pub fn partitions(&self) -> Arc<Vec<PartitionInfo>> {
        Arc::clone(&self.state().partitions)
    }

    /// Replaces every reader's decoders: what the next tick reads is decoded with the new ones.
    pub fn replace_decoders(&self, decoders: Arc<Decoders>) {
        self.state().new_decoders = Some(decoders);
    }

    /// Enters the calling thread as a worker; the tick that its messages begin with, be it closed already.
    pub fn enter_worker(&self, worker: usize) -> Tick {
        let mut state = self.state();
        state.queues.enter(worker, thread::current());
        state.first
    }

    /// The worker's next message, if it is there.
    pub fn next(&self, worker: usize) -> Option<Message> {
        let mut state = self.state();
        let was_full = state.queues.bytes() >= QUEUE_BYTES;
        let message = state.queues.pop(worker)?;
        if was_full && state.queues.bytes() < QUEUE_BYTES {
            self.changed.notify_all();
        }
        Some(message)
    }

    /// Whether the worker was given its last tick.
    #[must_use]
    pub fn is_over(&self, worker: usize) -> bool {
        let state = self.state();
        state.over && state.queues.is_empty(worker)
    }

    /// A worker has computed a tick.
    pub fn computed(&self, worker: usize, tick: Tick) {
        let computed = &mut self.state().computed[worker];
        *computed = (computed.0 + 1, tick);
        self.changed.notify_all();
    }

    /// A tick's results were handed to the sinks.
    pub fn published(&self, tick: Tick) {
        let published = &mut self.state().published;
        *published = (published.0 + 1, tick);
        self.changed.notify_all();
    }

    /// Ends the job with a last tick.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    /// Ends the job with a last tick, and an error; the first one counts.
    pub fn fail(&self, error: LiveError) {
        let mut state = self.state();
        state.error.get_or_insert_with(|| Arc::new(error));
        state.stopping = true;
        self.changed.notify_all();
    }

    /// Why the job ended, if it was an error.
    #[must_use]
    pub fn error(&self) -> Option<Arc<LiveError>> {
        self.state().error.clone()
    }

    /// Whether the job is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Sleeps until the job is to end, at most so long. Whether it is to end.
    #[must_use]
    pub fn wait_for_stop(&self, most: Duration) -> bool {
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, most, |state| !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.stopping
    }

    /// Where the job is.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            open: state.open,
            closed: state.closed,
            computed: state.computed.iter().map(|(_, tick)| *tick).min().unwrap_or(0),
            published: state.published.1,
            watermark: state.watermark,
            queued_bytes: state.queues.bytes(),
            lags: state.partitions.iter().cloned().zip(state.lags.iter().copied()).collect(),
            slow: state
                .partitions
                .iter()
                .zip(&state.slow)
                .filter_map(|(partition, behind_ms)| Some((partition.clone(), (*behind_ms)?)))
                .collect(),
            tables_read: state.tables_read,
            catching_up: state.behind,
        }
    }

    /// The slot of the tables.
    fn table_slot(&self) -> usize {
        self.options.workers.get()
    }

    fn orders(&self, slot: usize) -> Orders {
        let mut state = self.state();
        let ceiling = match state.watermark {
            0 => EventTime::MAX,
            watermark => watermark
                .saturating_add(self.options.windows.skew_ms)
                .saturating_add(self.options.windows.out_of_orderness_ms),
        };
        Orders {
            cut: state.cut,
            last: state.last,
            stopping: state.stopping,
            has_room: state.has_room(),
            ceiling,
            behind: state.behind,
            additions: state.additions.get_mut(slot).map(mem::take).unwrap_or_default(),
        }
    }

    /// Sleeps until a reader that had nothing to do should look again.
    fn rest(&self, slot: usize) {
        let state = self.state();
        let answered = state.answered[slot];
        let asleep = |state: &mut LiveState| state.cut == answered && (state.stopping || !state.has_room());
        drop(self.changed.wait_timeout_while(state, LOOK_AROUND, asleep));
    }

    /// Sleeps until a cut is asked for, or for a while.
    fn wait_for_cut(&self, answered: u64) {
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, LOOK_AROUND, |state| state.cut == answered));
    }

    /// A partition was paused for the watermark's sake.
    fn reached_ceiling(&self) {
        self.state().at_ceiling = true;
        self.changed.notify_all();
    }

    /// Hands messages to a worker.
    fn send(&self, worker: usize, messages: impl IntoIterator<Item = Message>) {
        let mut state = self.state();
        for message in messages {
            if let Message::Events { events, .. } = &message {
                state.open_events += events.len() as u64;
            }
            state.queues.push(worker, message);
        }
        if state.open_events >= TICK_EVENTS {
            self.changed.notify_all();
        }
    }

    /// The decoders that are to be used from the cut on that was answered last, if they aren't those of
    /// `replacement` any more; and their number.
    fn decoders_since(&self, replacement: u64) -> Option<(u64, Arc<Decoders>)> {
        let state = self.state();
        let (number, decoders) = &state.decoders;
        decoders.as_ref().filter(|_| *number > replacement).map(|decoders| (*number, Arc::clone(decoders)))
    }

    /// Answers a cut; the tick that is read for from now on.
    fn answer(
        &self,
        slot: usize,
        cut: u64,
        reached: impl IntoIterator<Item = (usize, PartitionProgress)>,
        minutes: impl IntoIterator<Item = EventTime>,
    ) -> Tick {
        let mut state = self.state();
        for (index, reached) in reached {
            state.reached[index] = reached;
        }
        state.minutes.extend(minutes);
        state.answered[slot] = cut;
        self.changed.notify_all();
        state.next
    }

    fn set_lags(&self, lags: impl IntoIterator<Item = (usize, u64)>) {
        let mut state = self.state();
        for (index, lag) in lags {
            state.lags[index] = Some(lag);
        }
    }

    /// A thread that panicked while it held the lock has ended the process.
    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveState {
    /// Whether more may be read.
    fn has_room(&self) -> bool {
        self.queues.bytes() < QUEUE_BYTES && self.open_events < TICK_EVENTS
    }

    /// Whether another tick may be cut.
    fn may_cut(&self) -> bool {
        let computed = self.computed.iter().map(|(count, _)| *count).min().unwrap_or(0);
        self.closed_count < computed + TICKS_COMPUTED
            && self.closed_count < self.published.0 + TICKS_PUBLISHED
    }
}
