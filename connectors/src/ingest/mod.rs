//! The input of a bounded run: files, standard input and ranges of Kafka topics, read, decoded, put in order and
//! dealt to the workers tick by tick, by the threads of one process.
//!
//! ```text
//!        any thread, in `work`                  one thread at a time       worker w, in `next`
//!  PartitionContent  ──read──► Block ──decode──► DecodedBlock ──inbox──► stage ──queues──► Definitions, Events, Close,
//!     ▲                                                      │               DeadLetters (worker 0)
//!     └──────── wanted: what the sequencer waits for ────────┘
//! ```
//! Reading and decoding hold no lock: a partition is taken out while it is read, and every thread has its own
//! decoders. The stage brings the blocks into order, asks the [`sequencer`] and carries out its decisions.
//!
//! **Same input, same ticks.** A partition is read by one thread at a time and its blocks are numbered, so the
//! stage sees each partition's records in order, whoever decodes them and whenever. What happens to a record is
//! decided by the [`sequencer`] at that record, from records alone. Threads, block sizes and timing choose only
//! which worker is given an event and in what order within a tick.
//!
//! **Definitions come in time.** They enter a queue with their block's deposit. The tick that has the block's
//! events is closed by the stage later, and its [`Message::Close`] enters every queue after all definitions that
//! its events rely on.
//!
//! **No deadlock.** There is one lock, held for bookkeeping only, and nobody waits while holding it.
//! 1. Whenever the stage rests, every partition that the sequencer waits for is either `wanted` or has a block
//!    on the way; that block's deposit runs the stage again. It holds from the start, when all are wanted.
//! 2. `wanted` is served whatever was read ahead. So a run that isn't over goes on, unless the queues are full.
//! 3. Full queues hold messages, so some worker can take one. A tick is sent to all workers at once, whatever
//!    their queues hold, so no worker needs more than its queue to complete a tick that another has seen: a
//!    worker may wait for the others' progress on any tick it was given, and they can make it.
//! 4. A thread sleeps only after it was marked idle under the lock that showed it nothing to do. Whoever changes
//!    that wakes it (a wake-up before the sleep is kept by the thread's token). Sleeping is `std::thread::park`,
//!    which is also how timely's workers sleep: a worker that parks in `step_or_park` is woken as well.
//! 5. A panic in `work` ends the run with [`IngestError::Panicked`]; nobody waits for what was lost.
//!
//! **Limits** (defaults): 64 MiB of decoded blocks read ahead and 64 MiB of messages in all queues together;
//! beyond both at most one block a thread and one a partition, which is at most 64 lines (about 9 KB) until the
//! partition's start is known, so 10,000 files of which few are read at a time take about 100 MB. 128 files are
//! open at a time, and one more a thread; ranges of topics count as files, each takes up to 3 MiB and four threads of
//! librdkafka while it is open, and a topic of more than 128 partitions is read by turns, with a connection a turn.
//! The cost over reading and decoding is about 10 ns an event.

mod content;
mod decode;
pub mod sequencer;
mod stage;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use keytide_config::{Limits, Source, SourceKind, Windows};
use keytide_dataflow::model::{AccessEvent, Position, Tick};

pub use self::content::PartitionContent;
pub(crate) use self::decode::decode as decode_block;
use self::sequencer::SequencerRules;
use self::stage::{DecodedBlock, MergeStage};
use self::state::IngestState;
use crate::decode::{CLASSES, Decoder, Tally, header, reads_headers};
use crate::file::{FileError, Partition, resolve};
use crate::input::{FutureLimit, Message, PartitionInfo, letter_bytes};
use crate::kafka::{self, KafkaError};

/// How a bounded run is read.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// The run's time, in milliseconds since the epoch: its first tick, and what future-dated is judged by.
    pub now: Tick,
    /// `[windows]`.
    pub windows: Windows,
    /// `[limits]`.
    pub limits: Limits,
    /// How many workers are given messages.
    pub workers: NonZeroUsize,
    /// Bytes of decoded blocks that may be read ahead of the sequencer.
    pub ahead_bytes: usize,
    /// Bytes of messages in all queues at which reading pauses.
    pub queue_bytes: usize,
    /// Files open at a time.
    pub open_files: usize,
}

impl IngestOptions {
    /// With the default bounds on memory and files.
    #[must_use]
    pub fn new(now: Tick, windows: Windows, limits: Limits, workers: NonZeroUsize) -> Self {
        Self { now, windows, limits, workers, ahead_bytes: 64 << 20, queue_bytes: 64 << 20, open_files: 128 }
    }
}

/// One partition and what it belongs to.
#[derive(Debug)]
pub struct InputPartition {
    pub info: PartitionInfo,
    pub partition: PartitionContent,
}

/// The partitions of the configured sources: sources in the order of the configuration, files in the order of
/// their paths, a topic's partitions by number. Asks the brokers of topics, and waits for them.
///
/// # Errors
/// If a pattern is invalid, matches nothing or too much, or can't be listed; if a topic or an offset isn't there,
/// or its brokers don't answer.
pub fn inputs(sources: &[Source]) -> Result<Vec<InputPartition>, IngestError> {
    let mut inputs = Vec::new();
    for (source_index, source) in sources.iter().enumerate() {
        let partitions: Vec<(u32, PartitionContent)> = match &source.kind {
            SourceKind::File { pattern } => {
                let read = |file: Partition| {
                    file.with_headers(header(source)).with_printed(!source.format.is_text())
                };
                let files = resolve(pattern)?.into_iter().map(read);
                (0..).zip(files.map(Into::into)).collect()
            }
            SourceKind::Stdin => {
                let stream = Partition::stream(Box::new(io::stdin()))
                    .with_headers(header(source))
                    .with_printed(!source.format.is_text());
                vec![(0, stream.into())]
            }
            SourceKind::Kafka(topic) => {
                let keep = reads_headers(source);
                let ranges = kafka::ranges(topic)?.into_iter().map(|range| range.with_headers(keep));
                ranges.map(|range| (range.partition(), range.into())).collect()
            }
        };
        for (number, partition) in partitions {
            let path = partition.path();
            let info = PartitionInfo { source: source.name.clone(), source_index, number, path };
            inputs.push(InputPartition { info, partition });
        }
    }
    Ok(inputs)
}

/// Why a run ended before its input.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A topic can't be read.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A thread panicked while it read, decoded or ordered.
    #[error("a thread panicked while it read the input; this is a defect, please report it")]
    Panicked,
}

/// What was read so far. At the end of the run the same for any number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounts {
    pub bytes: u64,
    /// Events that belong to a tick, duplicates and late ones included.
    pub events: u64,
    /// Those of them that are late.
    pub late: u64,
    /// Dead letters that belong to a tick.
    pub dead_letters: u64,
    /// The same by the index of their class in [`CLASSES`].
    pub refused: [u64; CLASSES.len()],
    /// The first of them, in the order of the merged input.
    pub first_refused: Option<Position>,
    /// Rows among the dead letters whose records count all the same.
    pub noted: u64,
    /// What was odd about other records.
    pub tally: Tally,
}

impl IngestCounts {
    /// Events and dead letters.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.events + self.dead_letters
    }
}

/// How far the input was read, in bytes as stored (compressed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    pub bytes: u64,
    /// All bytes; `None` where the input's size isn't known before its end.
    pub total: Option<u64>,
}

type Decoders = Box<dyn Fn(usize) -> Box<dyn Decoder> + Send + Sync>;

/// The input of one bounded run. See the module.
pub struct Ingest {
    state: Mutex<IngestState>,
    partitions: Vec<PartitionInfo>,
    total_bytes: Option<u64>,
    decoders: Decoders,
    latest: FutureLimit,
    line_bytes: usize,
    workers: usize,
}

/// What one thread needs to take part.
pub struct IngestThread {
    /// The thread's place among the sleepers.
    place: usize,
    /// Whose queue it serves; `None` for a thread that only decodes.
    worker: Option<usize>,
    /// Which worker is given the next block of a thread that only decodes.
    next_worker: usize,
    decoders: Vec<Option<Box<dyn Decoder>>>,
    /// The buffer of the next block.
    text: Vec<u8>,
    /// Events of the previous block.
    events: usize,
}

impl Ingest {
    /// A run over `inputs`; `decoders` makes a thread's decoder for a source. The tables' tick is queued.
    pub fn new(
        inputs: Vec<InputPartition>,
        decoders: impl Fn(usize) -> Box<dyn Decoder> + Send + Sync + 'static,
        options: &IngestOptions,
    ) -> Arc<Self> {
        let rules = SequencerRules {
            now: options.now,
            out_of_orderness_ms: options.windows.out_of_orderness_ms,
            allowed_lateness_ms: options.windows.allowed_lateness_ms,
            tick_records: options.limits.tick_records,
        };
        let (partitions, contents): (Vec<_>, Vec<_>) =
            inputs.into_iter().map(|input| (input.info, input.partition)).unzip();
        let total_bytes = contents.iter().map(PartitionContent::bytes).sum();
        let stage = MergeStage::new(&rules, contents.len(), options.workers.get());
        let ingest = Arc::new(Self {
            state: Mutex::new(IngestState::new(contents, options)),
            partitions,
            total_bytes,
            decoders: Box::new(decoders),
            latest: FutureLimit::at(options.now),
            line_bytes: options.limits.message_bytes,
            workers: options.workers.get(),
        });
        ingest.sequence(Box::new(stage));
        ingest
    }

    /// The partitions; a position's `partition` is an index of this list.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    /// Enters the calling thread as the worker whose queue is `worker`. To be called once a worker.
    ///
    /// # Panics
    /// If there is no such worker.
    #[must_use]
    pub fn enter_worker(&self, worker: usize) -> IngestThread {
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        self.enter(Some(worker))
    }

    fn enter(&self, worker: Option<usize>) -> IngestThread {
        let place = self.state().enter(thread::current(), worker);
        let (decoders, text) = (Vec::new(), Vec::new());
        IngestThread { place, worker, next_worker: place % self.workers, decoders, text, events: 0 }
    }

    /// Reads and decodes one block, and sequences what can be. Returns false when there is nothing to do now:
    /// all is read or on the way, or enough is waiting for the workers. The thread is unparked when that
    /// changes.
    pub fn work(&self, me: &mut IngestThread) -> bool {
        let _guard = PanicGuard(self);
        let task = {
            let mut state = self.state();
            let Some(task) = state.take_task() else {
                state.set_idle(me.place);
                return false;
            };
            task
        };
        let (index, mut partition) = (task.index, task.partition);
        let block = match partition.next_block(&task.cut, mem::take(&mut me.text)) {
            Ok(block) => block,
            Err(error) => {
                self.state().fail(error);
                return false;
            }
        };
        let closed = {
            let mut state = self.state();
            let closed = state.give_back(index, partition, block.bytes(), block.last());
            state.wake();
            closed
        };
        drop(closed);

        // Room for a little more than last time; none that a partition's start would hold on to.
        let expected = if task.is_start { 0 } else { me.events + me.events / 8 };
        let decoder = me.decoder(self.partitions[index].source_index, &self.decoders);
        let number = u32::try_from(index).expect("fewer than 2^32 partitions fit in memory");
        let decoded = decode::decode(&block, number, decoder, self.latest, self.line_bytes, expected);
        me.events = decoded.events.len();
        let weight = if task.is_start {
            0
        } else {
            decoded.events.capacity() * mem::size_of::<AccessEvent>()
                + decoded.dead_letters.iter().map(letter_bytes).sum::<usize>()
        };
        let deposit = DecodedBlock {
            partition: index,
            serial: task.serial,
            worker: me.target(self.workers),
            chunk: DecodedBlock::chunk(&decoded.events, &decoded.dead_letters, block.last()),
            events: decoded.events,
            letters: decoded.dead_letters,
            tally: decoded.tally,
            weight,
        };
        me.text = block.into_buffer();

        let stage = {
            let mut state = self.state();
            state.deposit(deposit, decoded.definitions);
            state.take_stage()
        };
        if let Some(stage) = stage {
            self.sequence(stage);
        }
        true
    }

    /// Runs the stage until nothing is left for it to do. A deposit that comes while it runs finds it taken;
    /// it is seen here, as the stage goes back under the same lock that shows the inbox empty.
    fn sequence(&self, mut stage: Box<MergeStage>) {
        let mut deposits = Vec::new();
        loop {
            let output = stage.run(deposits);
            let mut state = self.state();
            state.deliver(output);
            deposits = state.take_inbox();
            if deposits.is_empty() {
                state.rest(stage);
                state.wake();
                return;
            }
        }
    }

    /// The worker's next message, if it is there.
    pub fn next(&self, worker: usize) -> Option<Message> {
        let mut state = self.state();
        let message = state.pop(worker)?;
        state.wake();
        Some(message)
    }

    /// Sleeps until there is a message for this thread, something to [`work`](Self::work) on, or nothing to
    /// come. A thread that must also wait for something else parks on its own, after `next` and `work` had
    /// nothing: it is unparked by whatever would end this.
    pub fn wait(&self, me: &IngestThread) {
        loop {
            {
                let mut state = self.state();
                let has_message = me.worker.is_some_and(|worker| state.has_message(worker));
                if has_message || state.has_task() || state.is_over() {
                    return;
                }
                state.set_idle(me.place);
            }
            thread::park();
        }
    }

    /// Whether the worker was given everything: its last message was the last tick, or the run ended early.
    #[must_use]
    pub fn is_closed(&self, worker: usize) -> bool {
        self.state().is_closed(worker)
    }

    /// Whether everything is read and sequenced, or the run ended early.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state().is_over()
    }

    /// Why the run ended early, if it did. Queues are empty then.
    #[must_use]
    pub fn error(&self) -> Option<Arc<IngestError>> {
        self.state().error()
    }

    /// Ends the run early: nothing more is read. What is queued stays.
    pub fn stop(&self) {
        self.state().stop();
    }

    /// What was read so far.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        self.state().counts()
    }

    /// How far the input was read.
    #[must_use]
    pub fn progress(&self) -> ReadProgress {
        ReadProgress { bytes: self.state().bytes_read(), total: self.total_bytes }
    }

    /// A thread that panicked while it held the lock has ended the run; what it left is only read.
    fn state(&self) -> MutexGuard<'_, IngestState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IngestThread {
    fn decoder(&mut self, source: usize, decoders: &Decoders) -> &mut dyn Decoder {
        if self.decoders.len() <= source {
            self.decoders.resize_with(source + 1, || None);
        }
        self.decoders[source].get_or_insert_with(|| decoders(source)).as_mut()
    }

    /// Who is given the next block's events.
    fn target(&mut self, workers: usize) -> usize {
        self.worker.unwrap_or_else(|| {
            self.next_worker = (self.next_worker + 1) % workers;
            self.next_worker
        })
    }
}

/// Ends the run if its thread panics, so that no other waits for what it took.
struct PanicGuard<'a>(&'a Ingest);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state().fail(IngestError::Panicked);
        }
    }
}

/// Threads that only read, decode and sequence. Dropping them ends the run, unless it is over, and waits for
/// them; one that reads from a silent pipe ends when the pipe does.
#[must_use = "dropping the threads ends the run"]
pub struct DecodeThreads {
    ingest: Arc<Ingest>,
    threads: Vec<JoinHandle<()>>,
}

impl DecodeThreads {
    /// Starts so many.
    ///
    /// # Errors
    /// If the system refuses a thread; those that were started end.
    pub fn spawn(ingest: &Arc<Ingest>, count: usize) -> io::Result<Self> {
        let mut threads = Self { ingest: Arc::clone(ingest), threads: Vec::new() };
        for number in 0..count {
            let ingest = Arc::clone(ingest);
            let run = move || {
                let mut me = ingest.enter(None);
                while !ingest.is_over() {
                    if !ingest.work(&mut me) {
                        ingest.wait(&me);
                    }
                }
            };
            threads.threads.push(thread::Builder::new().name(format!("decode-{number}")).spawn(run)?);
        }
        Ok(threads)
    }
}

impl Drop for DecodeThreads {
    fn drop(&mut self) {
        self.ingest.stop();
        for thread in self.threads.drain(..) {
            // A panic in it has ended the run, and is reported there.
            let _ = thread.join();
        }
    }
}
