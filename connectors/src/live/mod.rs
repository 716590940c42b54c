//! The input of a live job. Reader threads read and decode partitions and deal them to the workers. One coordinator
//! cuts them into ticks.
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
//! To cut, the coordinator raises the cut's number and names the next tick. Every reader hands over its events,
//! answers with how far its partitions are, and goes on for the next tick at once. When all have answered, the
//! [`Ticker`] decides the watermark and [`Message::Close`] enters every queue.
//!
//! **No event is misplaced.** A reader's messages enter its worker's queue in order: first all those of a tick,
//! then its answer, and `Close` after all answers. So a worker that takes `Close` has taken its whole part of the
//! tick. Events that it took for the *next* tick before that carry that tick's number, and wait. Definitions enter
//! the queue before the events that rely on them. Tables answer the first cut when they are read to the end they
//! had at the start: no tick closes before.
//!
//! **A tick is due** when it is as old as `tick_ms` or holds [`TICK_EVENTS`]. It is due at once if the last one
//! left the watermark [`behind`](ClosedTick::behind), or if a partition can go on only with a later watermark. But
//! none is cut while [`TICKS_COMPUTED`] are being computed or [`TICKS_PUBLISHED`] published. So the ticks of a slow
//! job grow wider instead of more.
//!
//! **Back-pressure.** Readers pause while [`QUEUE_BYTES`] wait in the queues or the open tick is full; librdkafka
//! then stops fetching. A partition that is more than `skew_ms` of event time ahead of the watermark is paused
//! until the others follow, or are found slow. These limits bound memory, whatever the broker holds.
//!
//! **Lateness** is decided by the reader, record by record in the order of offsets. The rules are those of bounded
//! runs (see [`crate::ingest::sequencer`]) except for the start: a partition's running maximum starts at its first
//! event, since a live job can't look ahead.
//!
//! **Checkpoints.** A job with [`CheckpointRules`] marks some cuts. To answer such a cut, readers and tables add what
//! they remember, and the coordinator makes an [`InputMemory`] of it. `Close` of that tick tells the workers to store
//! their states. One checkpoint is under way at a time.
//!
//! **Replay.** A job that goes on after a crash makes the ticks again that were committed since its checkpoint
//! ([`Live::replay`]). Such a tick has no cut of its own: each partition is read up to the recorded offset, and the
//! recorded progress decides the watermark. Records behind that offset are held until the next tick. Tables send what was
//! recorded of them. The first tick after those is cut by the clock again. A job that is stopped meanwhile closes nothing.
//!
//! **Stopping** cuts a last tick with everything that was read. An error in a reader stops the job the same way, so
//! that everything counted is published before the process ends. Without checkpoints the last tick closes what is open.
//! With them it is an ordinary tick and the last checkpoint, from which the next life of the job goes on.

mod coordinator;
mod follow;
mod inputs;
mod lead;
mod memory;
mod messages;
mod reader;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod ticker;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keytide_config::Windows;
use keytide_dataflow::model::{EventTime, Tick};
use keytide_dataflow::state::RestoreError;

pub use self::coordinator::coordinate;
use self::follow::Following;
pub use self::inputs::{RecordedInputs, TickInputs};
use self::lead::Follower;
pub use self::lead::LinkFault;
pub use self::memory::{InputMemory, LaneMemory, PartitionMemory};
pub use self::messages::{
    FollowMessage, FollowerAnswer, FollowerStatus, JobEnd, JobFailure, LeadMessage, ListedPartition,
    LiveStart, RECORDED_TICKS,
};
pub use self::reader::{Decoders, Feed, PartitionReader, SourceFeed};
pub use self::tables::{FileFeed, TableFeed, TableReader, TopicFeed};
pub use self::ticker::{ClosedTick, STEP_MS, Ticker, TickerMemory, TickerRules};
pub use self::watch::watch_partitions;
use crate::decode::{Decoded, Tally};
use crate::input::{Message, PartitionInfo, Queues};
use crate::kafka::{ErrorClass, KafkaError};
use crate::ledger::{KEPT_TICKS, PartitionProgress, TickRecord};
use crate::tables::{TableError, TablesMemory, TablesRead};

/// The number of bytes of messages, in all queues, at which reading pauses.
pub const QUEUE_BYTES: usize = 64 << 20;
/// The number of events of the open tick at which it is due and reading pauses. It is 64 MiB of events.
pub const TICK_EVENTS: u64 = 1 << 19;
/// The most ticks that the workers may be at work on.
pub const TICKS_COMPUTED: u64 = 2;
/// The most ticks that are closed and not yet handed to the sinks, or with transactions not committed, those at work
/// included.
pub const TICKS_PUBLISHED: u64 = 4;
/// The longest sleep before a thread looks again; a change wakes it earlier.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// The options of a live job's input.
#[derive(Clone, Copy, Debug)]
pub struct LiveOptions {
    /// The width of a tick in ms.
    pub tick_ms: u64,
    pub windows: Windows,
    /// The number of workers of this process, each of which has a reader.
    pub workers: NonZeroUsize,
    pub place: ProcessPlace,
    /// When checkpoints are made; `None` for a job that stores nothing.
    pub checkpoints: Option<CheckpointRules>,
}

/// The place of a process among those of its job, all of which have the same number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessPlace {
    /// Its number; 0 has the coordinator.
    pub process: usize,
    pub processes: NonZeroUsize,
}

impl ProcessPlace {
    /// The place of the only process of a job.
    pub const ALONE: Self = Self { process: 0, processes: NonZeroUsize::MIN };

    /// Returns which reader of this process has a partition, if one has. `index` is the partition's in the job's list.
    fn reader(self, index: usize, readers: usize) -> Option<usize> {
        // Neighbours are on different processes, so that few partitions don't make one process read all.
        let processes = self.processes.get();
        (index % processes == self.process).then_some(index / processes % readers)
    }
}

/// When a live job makes checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRules {
    /// The time from the end of one checkpoint to the beginning of the next, in ms.
    pub every_ms: u64,
    /// True if the parts of the states that were restored are stored as they are, so that a checkpoint needs only those that
    /// changed.
    pub has_parts: bool,
}

/// The share of workers' time for which they may pause for checkpoints is one to this.
const PAUSE_SHARE: u32 = 20;
/// The share of a thread's time that writing them may take is one to this and one.
const WRITING_SHARE: u32 = 2;
/// The most ticks from one checkpoint to the next, which a crash makes again. It is half of what a ledger keeps.
const CHECKPOINT_TICKS: u64 = 2_048;
/// The ticks since the last checkpoint that was stored from which the only ticks that are cut are those of a new attempt. A
/// ledger that forgot one of them couldn't bring the job back.
const TICKS_UNSTORED: u64 = KEPT_TICKS - 1_024;
/// The most ticks since then, attempts included.
const TICKS_KNOWN: u64 = KEPT_TICKS - 8;

/// An error that ends a live job.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("state.url: {0}")]
    Restore(#[from] RestoreError),
    /// A partition has no longer what a committed tick was made of.
    #[error(
        "source {source_name}: partition {number} has no records from offset {from} to {to} any more, of which ticks were made \
         and published; without them the job can't go on: bring the topic back, or begin anew with another folder of \
         state and another prefix of topics"
    )]
    RecordsGone { source_name: String, number: u32, from: u64, to: u64 },
    /// New decoders can't be made of what the coordinator named.
    #[error("{message}")]
    Decoders { message: String },
    /// Another process of the job has the error.
    #[error("process {process}: {}", failure.message)]
    Follower { process: usize, failure: JobFailure },
}

impl LiveError {
    /// Returns the class of the error, by the help that it needs.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Kafka(error) => error.class(),
            Self::Table(_) | Self::Restore(_) | Self::RecordsGone { .. } | Self::Decoders { .. } => {
                ErrorClass::Fatal
            }
            Self::Follower { failure, .. } => failure.class,
        }
    }

    /// Returns whether a worker couldn't take its states in. Then no tick ends, and nothing is waited for.
    #[must_use]
    pub fn gives_up(&self) -> bool {
        match self {
            Self::Restore(_) => true,
            Self::Follower { failure, .. } => failure.gives_up,
            Self::Kafka(_) | Self::Table(_) | Self::RecordsGone { .. } | Self::Decoders { .. } => false,
        }
    }
}

/// The counts of what was read and closed, which only grow.
#[derive(Debug, Default)]
pub struct LiveCounters {
    pub bytes: AtomicU64,
    pub messages: AtomicU64,
    /// The number of decoded events, duplicates included.
    pub events: AtomicU64,
    /// The number of late ones among them.
    pub late: AtomicU64,
    /// The dead letters of sources, by [`DeadLetter::class`](crate::decode::DeadLetter::class), an index in
    /// [`crate::decode::CLASSES`].
    pub dead_letters: [AtomicU64; crate::decode::CLASSES.len()],
    pub table_dead_letters: AtomicU64,
    /// The unreadable values of optional columns of tables, which count as unknown.
    pub table_unread: AtomicU64,
    pub table_changes: AtomicU64,
    pub gaps: AtomicU64,
    pub ticks: AtomicU64,
    /// True once a tick was published that no earlier life had committed.
    pub has_progress: AtomicBool,
    /// The oddities of records that count, by source.
    pub tallies: Mutex<Vec<Tally>>,
}

impl LiveCounters {
    /// Counts what was decoded since there were so many events and letters.
    fn count(&self, out: &Decoded, events_before: usize, letters_before: usize, late: u64) {
        add(&self.late, late);
        add(&self.events, (out.events.len() - events_before) as u64);
        for letter in out.dead_letters[letters_before..].iter().filter(|letter| !letter.counted) {
            add(&self.dead_letters[letter.class()], 1);
        }
    }

    /// Adds the oddities of a source's records.
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

/// The state of a live job, for metrics and health.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The tick that is open.
    pub open: Tick,
    /// The last tick that was closed; 0 before the first.
    pub closed: Tick,
    /// The last tick that all workers computed.
    pub computed: Tick,
    /// The last tick that was handed to the sinks, or with transactions committed.
    pub published: Tick,
    pub watermark: EventTime,
    /// The number of bytes that wait in the workers' queues.
    pub queued_bytes: usize,
    /// The partitions, each with its number of unread records if that is known.
    pub lags: Vec<(PartitionInfo, Option<u64>)>,
    /// The slow partitions, each with how many ms its events are behind those of the others; 0 while it is idle.
    pub slow: Vec<(PartitionInfo, u64)>,
    pub tables_read: bool,
    /// True while ticks of an earlier life are made again, or a checkpoint is waited for.
    pub is_held_up: bool,
    /// True if the last tick was cut because the job is behind its input.
    pub catching_up: bool,
    /// True if this process follows another one, and has done everything that it was told to.
    pub waits_for_leader: bool,
    /// The last tick that the workers of each process computed, this one first. A process that follows knows only its own.
    pub computed_by: Vec<Tick>,
    /// The numbers of processes, this one as 0, whose readers haven't answered the last cut.
    pub unanswered: Vec<usize>,
}

/// The input of one live job in this process, shared by its threads. One process has the coordinator, and the others
/// follow it.
pub struct Live {
    state: Mutex<LiveState>,
    /// Signals every change that a thread may wait for.
    changed: Condvar,
    options: LiveOptions,
    /// The counts of what was read so far.
    pub counters: LiveCounters,
}

#[derive(Default)]
struct LiveState {
    first: Tick,
    open: Tick,
    next: Tick,
    /// The number of the last cut that was asked for.
    cut: u64,
    /// The last cut that each slot answered.
    answered: Vec<u64>,
    reached: Vec<PartitionProgress>,
    /// What the ticker begins with.
    ticker: TickerMemory,
    checkpoint: CheckpointState,
    /// How many ms each partition is behind the others, if it is slow.
    slow: Vec<Option<u64>>,
    lags: Vec<Option<u64>>,
    minutes: BTreeSet<EventTime>,
    partitions: Arc<Vec<PartitionInfo>>,
    /// The offset from which each partition was read first by this life of the job.
    begun: Vec<u64>,
    replay: Replay,
    /// The number of the last tick that was closed, over all lives of the job.
    number: u64,
    /// The partitions that the ticks so far had.
    numbered_partitions: usize,
    /// The inputs of ticks that offsets can't bring back.
    inputs: BTreeMap<Tick, TickInputs>,
    /// The ticks that were closed, until the publisher takes them.
    cuts: VecDeque<Cut>,
    /// The decoders for the next tick, once they are to be replaced.
    new_decoders: Option<NamedDecoders>,
    /// The number of replacements, and the decoders since the last one.
    decoders: (u64, Option<Arc<Decoders>>),
    /// The name of the decoders in use, by which they are made again.
    decoders_name: String,
    /// The partitions that each reader is to add.
    additions: Vec<Vec<Addition>>,
    open_events: u64,
    queues: Queues,
    watermark: EventTime,
    closed: Tick,
    closed_count: u64,
    /// How many ticks each worker computed, and the last of them.
    computed: Vec<(u64, Tick)>,
    published: (u64, Tick),
    behind: bool,
    /// True if a partition reached the ceiling, which only another tick raises.
    at_ceiling: bool,
    tables_read: bool,
    stopping: bool,
    /// True if a process was told to end, or has an error.
    is_told: bool,
    /// When the job was told to end.
    stopped_at: Option<Instant>,
    /// True once the last cut was asked for.
    last: bool,
    /// True once the last tick was closed.
    over: bool,
    error: Option<Arc<LiveError>>,
    /// The other processes, as the coordinator knows them.
    followers: Vec<Follower>,
    /// The state of a process that follows.
    following: Following,
}

/// A tick that was closed, as a ledger records it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The record of the tick. What depends on its results is missing.
    pub record: TickRecord,
    /// The inputs that offsets can't bring back.
    pub inputs: TickInputs,
    /// The record of the life that committed the tick, if this one makes it again.
    pub earlier: Option<TickRecord>,
}

/// Decoders, and the name by which they are made again.
#[derive(Clone)]
pub struct NamedDecoders {
    pub name: String,
    pub decoders: Arc<Decoders>,
}

/// The ticks that an earlier life committed and this one makes again.
#[derive(Default)]
struct Replay {
    ticks: Arc<Vec<TickRecord>>,
    /// The decoders that came at the end of some of them.
    decoders: BTreeMap<Tick, NamedDecoders>,
    /// How many of them were closed.
    closed: usize,
}

impl Replay {
    /// Returns the record of the tick that is to be closed next, if that is one of an earlier life.
    fn next(&self) -> Option<&TickRecord> {
        self.ticks.get(self.closed)
    }
}

/// The checkpoint that is under way, if one is.
#[derive(Default)]
struct CheckpointState {
    /// True if the cut that is asked for is one of a checkpoint.
    is_asked: bool,
    /// True from that cut until the checkpoint is stored or given up.
    is_busy: bool,
    /// When the next one may begin; `None` before the first.
    due: Option<Instant>,
    /// The times of the partitions' events, by their indices, for the cut that is asked for.
    lanes: Vec<Option<LaneMemory>>,
    tables: Option<TablesMemory>,
    /// The ticks that were closed since the last one was begun.
    ticks: u64,
    /// The number of snapshots that were asked for, and the last of them that was stored; see [`keytide_dataflow::state::SnapshotRequest`].
    snapshots: u64,
    since: Option<u64>,
    /// The number of the tick of the last one that was stored; 0 before the first.
    stored: u64,
    /// True if the log says that the job waits for one.
    is_waited_for: bool,
    /// The input at the cut, until it is taken.
    input: Option<(InputMemory, TablesMemory)>,
}

impl CheckpointState {
    /// Returns whether it is time for the next one.
    fn is_due(&self) -> bool {
        self.due.is_none_or(|due| Instant::now() >= due)
    }
}

/// A partition that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// Its index in the job's list of partitions.
    pub index: usize,
    /// The index of its source in the configuration.
    pub source: usize,
    /// Its number in the topic.
    pub number: u32,
    pub offset: u64,
    /// The times of the events before the offset, if an earlier life of the job read them.
    pub lane: Option<LaneMemory>,
}

/// The orders that a reader follows now.
struct Orders {
    cut: u64,
    last: bool,
    /// True if the cut is one of a checkpoint.
    checkpoint: bool,
    stopping: bool,
    has_room: bool,
    /// The event time beyond which no partition is read.
    ceiling: EventTime,
    /// True if the next cut comes at once.
    behind: bool,
    additions: Vec<Addition>,
    /// The ticks of an earlier life, in which a reader finds its own.
    recorded: Arc<Vec<TickRecord>>,
}

impl Orders {
    /// Returns the record of a tick, if an earlier life committed it.
    fn recorded(&self, tick: Tick) -> Option<&TickRecord> {
        let at = self.recorded.binary_search_by_key(&tick, |record| record.tick);
        at.ok().map(|at| &self.recorded[at])
    }
}

impl Live {
    /// Starts a job whose first tick is `open`. Each reader has a slot, one a worker, and the tables have the last
    /// one. Only the process with the coordinator has tables.
    #[must_use]
    pub fn new(open: Tick, options: LiveOptions) -> Arc<Self> {
        let workers = options.workers.get();
        let has_parts = options.checkpoints.is_some_and(|rules| rules.has_parts);
        let state = LiveState {
            first: open,
            open,
            next: open,
            answered: vec![0; workers + usize::from(options.place.process == 0)],
            additions: vec![Vec::new(); workers],
            queues: Queues::new(workers),
            computed: vec![(0, 0); workers],
            checkpoint: CheckpointState { since: has_parts.then_some(0), ..CheckpointState::default() },
            ..LiveState::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            options,
            counters: LiveCounters::default(),
        })
    }

    /// Goes on from the memory of an earlier life. Its partitions must be added next, in their order, by
    /// [`restore_partition`](Self::restore_partition).
    pub fn restore(&self, ticker: TickerMemory) {
        let mut state = self.state();
        state.watermark = ticker.watermark();
        state.ticker = ticker;
    }

    /// Makes the ticks again that an earlier life committed after its checkpoint, the last of which had the `number`.
    /// `decoders` came at the end of some of these ticks. It is called before the threads start, and when the partitions of
    /// the checkpoint are added. The first of the `ticks`, which ascend, must be the one that is open.
    pub fn replay(&self, number: u64, ticks: Vec<TickRecord>, decoders: BTreeMap<Tick, NamedDecoders>) {
        let mut state = self.state();
        state.number = number;
        state.checkpoint.stored = number;
        state.numbered_partitions = state.partitions.len();
        state.replay = Replay { ticks: Arc::new(ticks), decoders, closed: 0 };
    }

    /// Names the decoders with which the readers start.
    pub fn name_decoders(&self, name: String) {
        self.state().decoders_name = name;
    }

    /// Takes what a ledger records of a tick that was closed; `None` without checkpoints.
    pub fn take_cut(&self, tick: Tick) -> Option<Cut> {
        self.state().cuts.pop_front_if(|cut| cut.record.tick == tick)
    }

    /// Adds a partition to the job's list. Its reader begins with it at once, so the tick that is open then is the
    /// first with records of it.
    pub fn add_partition(&self, info: PartitionInfo, offset: u64) {
        let memory = PartitionMemory { next_offset: offset, ..PartitionMemory::default() };
        self.restore_partition(info, memory, true);
    }

    /// Adds a partition that an earlier life of the job read. If it is no longer read, it holds nothing up.
    pub fn restore_partition(&self, info: PartitionInfo, memory: PartitionMemory, is_read: bool) {
        let mut state = self.state();
        let (index, source, number) = (state.partitions.len(), info.source_index, info.number);
        state.tell_of_partition(&info, &memory, is_read);
        Arc::make_mut(&mut state.partitions).push(info);
        state.reached.push(PartitionProgress { at_end: !is_read, ..memory.progress() });
        state.lags.push(None);
        state.begun.push(memory.next_offset);
        let reader = self.options.place.reader(index, state.additions.len());
        if let Some(reader) = reader.filter(|_| is_read) {
            let PartitionMemory { next_offset: offset, lane, .. } = memory;
            state.additions[reader].push(Addition { index, source, number, offset, lane });
            self.changed.notify_all();
        }
    }

    /// Takes the input of the checkpoint that is under way, once the tick is closed.
    pub fn take_checkpoint(&self) -> Option<(InputMemory, TablesMemory)> {
        self.state().checkpoint.input.take()
    }

    /// Ends the checkpoint that is under way, for which workers paused for `paused` and which took `took` from its cut on.
    /// It stored the tick with the number `stored`, if it didn't fail. Another may begin after the configured time, or 20
    /// times as long as workers paused, or twice as long as this one took.
    pub fn end_checkpoint(&self, paused: Duration, took: Duration, stored: Option<u64>) {
        let Some(rules) = self.options.checkpoints else { return };
        let pause = Duration::from_millis(rules.every_ms);
        let pause = pause.max(paused * PAUSE_SHARE).max(took * WRITING_SHARE);
        let mut state = self.state();
        state.checkpoint.is_busy = false;
        if let Some(number) = stored {
            state.checkpoint.stored = number;
            state.checkpoint.since = Some(state.checkpoint.snapshots);
            if mem::take(&mut state.checkpoint.is_waited_for) {
                tracing::info!("a checkpoint is stored: the job goes on");
                self.changed.notify_all();
            }
        }
        state.checkpoint.due = Some(Instant::now() + pause);
    }

    /// Returns the partitions, of which a position's `partition` is the index, in a list that only grows.
    #[must_use]
    pub fn partitions(&self) -> Arc<Vec<PartitionInfo>> {
        Arc::clone(&self.state().partitions)
    }

    /// Replaces the decoders of every reader. They decode the records of the next tick.
    pub fn replace_decoders(&self, decoders: NamedDecoders) {
        self.state().new_decoders = Some(decoders);
    }

    /// Registers the calling thread as a worker. Returns the tick that its messages begin with, which may be closed
    /// already.
    pub fn enter_worker(&self, worker: usize) -> Tick {
        let mut state = self.state();
        state.queues.enter(worker, thread::current());
        state.first
    }

    /// Returns the worker's next message, if there is one.
    pub fn next(&self, worker: usize) -> Option<Message> {
        let mut state = self.state();
        let was_full = state.queues.bytes() >= QUEUE_BYTES;
        let message = state.queues.pop(worker)?;
        if was_full && state.queues.bytes() < QUEUE_BYTES {
            self.changed.notify_all();
        }
        Some(message)
    }

    /// Returns whether the worker was given its last tick.
    #[must_use]
    pub fn is_over(&self, worker: usize) -> bool {
        let state = self.state();
        state.over && state.queues.is_empty(worker)
    }

    /// Notes that a worker has computed a tick.
    pub fn computed(&self, worker: usize, tick: Tick) {
        let computed = &mut self.state().computed[worker];
        *computed = (computed.0 + 1, tick);
        self.changed.notify_all();
    }

    /// Notes that a tick's results were handed to the sinks, or with transactions committed.
    pub fn published(&self, tick: Tick) {
        let mut state = self.state();
        state.published = (state.published.0 + 1, tick);
        self.note_progress(&state);
        self.changed.notify_all();
    }

    /// Notes whether a tick was published that this life didn't only make again.
    fn note_progress(&self, state: &LiveState) {
        let again = state.replay.ticks.last().map_or(0, |record| record.tick);
        if state.published.1 > again {
            self.counters.has_progress.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the job with a last tick, as it was told to.
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_told = true;
        state.stop();
        self.changed.notify_all();
    }

    /// Ends the job with a last tick, so that other processes go on with it.
    pub fn hand_over(&self) {
        self.state().stop();
        self.changed.notify_all();
    }

    /// Returns whether this process or another one was told to end, or has an error.
    #[must_use]
    pub fn is_told_to_end(&self) -> bool {
        self.state().is_told
    }

    /// Ends the job with a last tick and an error, of which the first one stays.
    pub fn fail(&self, error: LiveError) {
        let mut state = self.state();
        state.note_error(error);
        state.is_told = true;
        state.stop();
        self.changed.notify_all();
    }

    /// Returns the error that ended the job, if one did.
    #[must_use]
    pub fn error(&self) -> Option<Arc<LiveError>> {
        self.state().error.clone()
    }

    /// Returns how long ago the job was told to end, if it was.
    #[must_use]
    pub fn stopping_for(&self) -> Option<Duration> {
        self.state().stopped_at.map(|at| at.elapsed())
    }

    /// Returns whether the job is to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Sleeps until the job is to end, for at most `most`. Returns whether it is to end.
    #[must_use]
    pub fn wait_for_stop(&self, most: Duration) -> bool {
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, most, |state| !state.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.stopping
    }

    /// Returns the state of the job.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state();
        Status {
            open: state.open,
            closed: state.closed,
            computed: state.computed().1,
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
            is_held_up: state.replay.next().is_some() || state.checkpoint.is_waited_for,
            catching_up: state.behind,
            waits_for_leader: state.waits_for_leader(),
            computed_by: state.computed_by().map(|(_, tick)| tick).collect(),
            unanswered: state.unanswered().collect(),
        }
    }

    /// Returns how many workers processes with lower numbers have. From there the job counts those of this process.
    #[must_use]
    pub fn first_worker(&self) -> usize {
        self.options.place.process * self.options.workers.get()
    }

    /// Returns the slot of the tables.
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
            checkpoint: state.checkpoint.is_asked,
            stopping: state.stopping,
            has_room: if state.replay.next().is_some() {
                // A tick that is made again is as long as it was.
                state.queues.bytes() < QUEUE_BYTES
            } else {
                state.has_room()
            },
            ceiling,
            behind: state.behind || state.replay.next().is_some(),
            recorded: Arc::clone(&state.replay.ticks),
            additions: state.additions.get_mut(slot).map(mem::take).unwrap_or_default(),
        }
    }

    /// Sleeps until a reader that had no work after `cut` should look again.
    fn rest(&self, cut: u64) {
        let state = self.state();
        let asleep = |state: &mut LiveState| state.cut == cut && (state.stopping || !state.has_room());
        drop(self.changed.wait_timeout_while(state, LOOK_AROUND, asleep));
    }

    /// Sleeps until a cut is asked for, or for a while.
    fn wait_for_cut(&self, answered: u64) {
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, LOOK_AROUND, |state| state.cut == answered));
    }

    /// Notes that a partition was paused, so that a later watermark lets it go on.
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
        if state.open_events >= TICK_EVENTS || state.is_news_of_events() {
            self.changed.notify_all();
        }
    }

    /// Adds the times of partitions' events to the checkpoint that is asked for.
    fn remember_lanes(&self, lanes: impl IntoIterator<Item = (usize, Option<LaneMemory>)>) {
        self.state().remember_lanes(lanes);
    }

    /// Notes changes of tables that are inputs of a tick.
    fn note_inputs(&self, tick: Tick, read: &TablesRead) {
        if self.options.checkpoints.is_some() {
            self.state().inputs.entry(tick).or_default().add(read);
        }
    }

    /// Adds the rows of the tables to the checkpoint that is asked for.
    fn remember_tables(&self, tables: TablesMemory) {
        self.state().checkpoint.tables = Some(tables);
    }

    /// Answers a cut. Returns the tick that is read for from now on, the number of the last replacement of decoders, and
    /// the decoders since. All three are those of this cut: the next one may be asked for at once.
    fn answer(
        &self,
        slot: usize,
        cut: u64,
        reached: impl IntoIterator<Item = (usize, PartitionProgress)>,
        minutes: impl IntoIterator<Item = EventTime>,
    ) -> (Tick, u64, Option<Arc<Decoders>>) {
        let mut state = self.state();
        for (index, reached) in reached {
            state.reached[index] = reached;
        }
        state.minutes.extend(minutes);
        state.answered[slot] = cut;
        self.changed.notify_all();
        let (number, decoders) = state.decoders.clone();
        (state.next, number, decoders)
    }

    fn set_lags(&self, lags: impl IntoIterator<Item = (usize, u64)>) {
        let mut state = self.state();
        for (index, lag) in lags {
            state.lags[index] = Some(lag);
        }
    }

    /// Locks the state of all threads. A thread that panicked while it held the lock has ended the process.
    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveState {
    fn stop(&mut self) {
        self.stopping = true;
        self.stopped_at.get_or_insert_with(Instant::now);
    }

    /// Returns whether more may be read.
    fn has_room(&self) -> bool {
        self.queues.bytes() < QUEUE_BYTES && self.open_events < TICK_EVENTS
    }

    /// Returns whether another tick may be cut.
    fn may_cut(&self) -> bool {
        self.closed_count < self.computed().0 + TICKS_COMPUTED
            && self.closed_count < self.published.0 + TICKS_PUBLISHED
            && (self.replay.next().is_some() || self.may_forget())
    }

    fn remember_lanes(&mut self, lanes: impl IntoIterator<Item = (usize, Option<LaneMemory>)>) {
        let partitions = self.partitions.len();
        let known = &mut self.checkpoint.lanes;
        known.resize(partitions.max(known.len()), None);
        for (index, lane) in lanes {
            known[index] = lane;
        }
    }

    /// Returns how many ticks all workers computed, of all processes that this one knows, and the last of them.
    fn computed(&self) -> (u64, Tick) {
        self.computed_by().min().unwrap_or_default()
    }

    /// Returns how many ticks all workers of each process computed, this one first, and the last of them.
    fn computed_by(&self) -> impl Iterator<Item = (u64, Tick)> {
        let own = self.computed.iter().copied().min().unwrap_or_default();
        std::iter::once(own).chain(self.followers.iter().map(Follower::computed))
    }

    /// Returns whether the ledger may forget the ticks that one more would make it forget.
    fn may_forget(&self) -> bool {
        let unstored = self.number.saturating_sub(self.checkpoint.stored);
        let is_attempt = !self.checkpoint.is_busy && self.checkpoint.is_due();
        unstored < TICKS_UNSTORED || is_attempt && unstored < TICKS_KNOWN
    }

    /// Notes that the job waits for a checkpoint, if it does; returns true the first time.
    fn wait_for_checkpoint(&mut self) -> bool {
        let is_waiting = self.replay.next().is_none() && !self.may_forget();
        is_waiting && !mem::replace(&mut self.checkpoint.is_waited_for, true)
    }
}
