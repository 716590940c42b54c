//! The input of a bounded run: files, standard input and ranges of Kafka topics. The threads of one process read
//! it, decode it, put it in order and deal it to the workers tick by tick.
//!
//! ```text
//!             any thread, in `work`                 one thread at a time       worker w, in `next`
//!  content ──read──► InputBlock ──decode──► DecodedBlock ──inbox──► stage ──queues──► Definitions, Events, Close,
//!     ▲                                                               │               DeadLetters (worker 0)
//!     └──────────── wanted: what the sequencer waits for ─────────────┘
//! ```
//! Reading and decoding hold no lock: a partition is taken out while it is read, and every thread has its own
//! decoders. The stage brings the blocks into order, asks the [`sequencer`] and carries out its decisions.
//!
//! **Same input, same ticks.** One thread at a time reads a partition, and its blocks are numbered. So the stage
//! sees each partition's records in order, whichever thread decodes them and whenever. The [`sequencer`] decides
//! about a record at that record, from records alone. Threads, block sizes and timing choose only which worker is
//! given an event and in what order within a tick.
//!
//! **Definitions come in time.** They enter a queue when their block is decoded. The stage closes the tick that has
//! the block's events later. Its [`Message::Close`] enters every queue after all definitions that its events rely
//! on.
//!
//! **No deadlock.** There is one lock, held for bookkeeping only, and no thread waits while it holds the lock.
//! 1. Whenever the stage rests, every partition that the sequencer waits for is `wanted` or has a block on the way.
//!    That block runs the stage again once it is decoded. It holds from the start, when all are wanted.
//! 2. `wanted` is served however much was read ahead. So a run that isn't over goes on, unless the queues are full.
//! 3. Full queues hold messages, so some worker can take one. A tick is sent to all workers at once, however full
//!    their queues are. So no worker needs more than its queue to complete a tick that another has seen. A worker
//!    may wait for the others' progress on any tick that it was given, and they can make it.
//! 4. A thread sleeps only after it was marked idle under the lock that showed it nothing to do. Any change of that
//!    wakes it; a wake-up before the sleep is kept by the thread's token. Sleeping is `std::thread::park`, which is
//!    also how timely's workers sleep. So a worker that parks in `step_or_park` is woken as well.
//! 5. A panic in `work` ends the run with [`IngestError::Panicked`], so that no thread waits for what was lost.
//!
//! **Limits** (defaults): 64 MiB of decoded blocks read ahead, and 64 MiB of messages in all queues together. Both
//! are exceeded by at most one block a thread and one a partition. A block is at most 64 lines (about 9 KB) until
//! the partition's start is known. So 10,000 files of which few are read at a time take about 100 MB. 128 files are
//! open at a time, and one more a thread. Ranges of topics count as files; each takes up to 3 MiB and four threads
//! of librdkafka while it is open. A topic of more than 128 partitions is read by turns, with a connection a turn.
//! The cost on top of reading and decoding is about 10 ns an event.

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
use self::sequencer::{Lags, SequencerRules};
use self::stage::{DecodedBlock, MergeStage};
use self::state::IngestState;
use crate::decode::{CLASSES, Decoder, Tally, header, reads_headers};
use crate::file::{FileError, Partition, resolve};
use crate::input::{FutureLimit, Message, PartitionInfo, letter_bytes};
use crate::kafka::{self, KafkaError};

/// The options of a bounded run's input.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// The run's time, in milliseconds since the epoch. It is the first tick, and events much later are from the
    /// future.
    pub now: Tick,
    pub windows: Windows,
    pub limits: Limits,
    /// The number of workers that are given messages.
    pub workers: NonZeroUsize,
    /// The most bytes of decoded blocks that are read ahead of the sequencer.
    pub ahead_bytes: usize,
    /// The number of bytes of messages, in all queues, at which reading pauses.
    pub queue_bytes: usize,
    /// The most files that are open at a time.
    pub open_files: usize,
}

impl IngestOptions {
    /// Takes the default bounds on memory and files.
    #[must_use]
    pub fn new(now: Tick, windows: Windows, limits: Limits, workers: NonZeroUsize) -> Self {
        Self { now, windows, limits, workers, ahead_bytes: 64 << 20, queue_bytes: 64 << 20, open_files: 128 }
    }
}

/// A partition of a source, and its content.
#[derive(Debug)]
pub struct InputPartition {
    pub info: PartitionInfo,
    pub content: PartitionContent,
}

/// Returns the partitions of the configured sources, which keep their order. A source's files come in the order of
/// their paths, a topic's partitions by number. This asks the brokers of topics, and waits for them.
///
/// # Errors
/// If a pattern is invalid, matches nothing or too much, or can't be listed. If a topic or an offset isn't there,
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
        for (number, content) in partitions {
            let path = content.path();
            let info = PartitionInfo { source: source.name.clone(), source_index, number, path };
            inputs.push(InputPartition { info, content });
        }
    }
    Ok(inputs)
}

/// An error that ends a run before its input does.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A thread panicked while it read, decoded or ordered.
    #[error("a thread panicked while it read the input; this is a defect, please report it")]
    Panicked,
}

/// The counts of what was read. At the end of the run they are the same for any number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestCounts {
    pub bytes: u64,
    /// Events that belong to a tick, duplicates and late ones included.
    pub events: u64,
    /// The late ones of these events.
    pub late: u64,
    /// Dead letters that belong to a tick.
    pub dead_letters: u64,
    /// These dead letters by the index of their class in [`CLASSES`].
    pub refused: [u64; CLASSES.len()],
    /// The position of the first dead letter in the order of the merged input.
    pub first_refused: Option<Position>,
    /// Rows among the dead letters whose records count all the same.
    pub noted: u64,
    /// The oddities of the other records.
    pub tally: Tally,
    /// How far events lie behind the greatest time of their partition.
    pub lags: Lags,
}

impl IngestCounts {
    /// Returns the number of events and dead letters.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.events + self.dead_letters
    }
}

/// The progress of reading, in bytes as stored (compressed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    pub bytes: u64,
    /// The size of all input; `None` if it isn't known before the end.
    pub total: Option<u64>,
}

type Decoders = Box<dyn Fn(usize) -> Box<dyn Decoder> + Send + Sync>;

/// The input of one bounded run, shared by its threads.
pub struct Ingest {
    state: Mutex<IngestState>,
    partitions: Vec<PartitionInfo>,
    total_bytes: Option<u64>,
    decoders: Decoders,
    latest: FutureLimit,
    line_bytes: usize,
    workers: usize,
}

/// The state of one thread that takes part in reading.
pub struct IngestThread {
    /// The index of the thread among the sleepers.
    sleeper: usize,
    /// The worker whose queue it serves; `None` for a thread that only decodes.
    worker: Option<usize>,
    /// The worker that gets the next block of a thread that only decodes.
    next_worker: usize,
    decoders: Vec<Option<Box<dyn Decoder>>>,
    /// The buffer for the next block.
    text: Vec<u8>,
    /// The number of events in the previous block.
    events: usize,
}

impl Ingest {
    /// Starts a run over `inputs`, whose first tick is that of the tables. `decoders` makes a thread's decoder for
    /// a source.
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
            inputs.into_iter().map(|input| (input.info, input.content)).unzip();
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

    /// Returns the partitions, of which a position's `partition` is the index.
    #[must_use]
    pub fn partitions(&self) -> &[PartitionInfo] {
        &self.partitions
    }

    /// Registers the calling thread as the worker whose queue is `worker`. Each worker calls it once.
    ///
    /// # Panics
    /// If `worker` is no worker's number.
    #[must_use]
    pub fn enter_worker(&self, worker: usize) -> IngestThread {
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        self.enter(Some(worker))
    }

    fn enter(&self, worker: Option<usize>) -> IngestThread {
        let sleeper = self.state().enter(thread::current(), worker);
        let (decoders, text) = (Vec::new(), Vec::new());
        IngestThread { sleeper, worker, next_worker: sleeper % self.workers, decoders, text, events: 0 }
    }

    /// Reads and decodes one block, and sequences all records that can be. Returns false if there is nothing to do
    /// now: all is read or on the way, or enough is waiting for the workers. The thread is unparked when that
    /// changes.
    pub fn work(&self, me: &mut IngestThread) -> bool {
        let _guard = PanicGuard(self);
        // 1. Take out the partition to read next: no other thread reads it meanwhile.
        let task = {
            let mut state = self.state();
            let Some(task) = state.take_task() else {
                state.set_idle(me.sleeper);
                return false;
            };
            task
        };
        // 2. Read a block of it without the lock.
        let (index, mut content) = (task.index, task.content);
        let block = match content.next_block(&task.cut, mem::take(&mut me.text)) {
            Ok(block) => block,
            Err(error) => {
                self.state().fail(error);
                return false;
            }
        };
        // 3. Give the partition back, so that another thread may read on while this one decodes.
        let closed = {
            let mut state = self.state();
            let closed = state.give_back(index, content, block.bytes(), block.last());
            state.wake();
            closed
        };
        drop(closed);

        // 4. Decode the block. There is room for a little more than last time, but none that a partition's start
        //    would hold on to.
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
        let decoded_block = DecodedBlock {
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

        // 5. Add the block, and run the stage unless another thread does.
        let stage = {
            let mut state = self.state();
            state.add_block(decoded_block, decoded.definitions);
            state.take_stage()
        };
        if let Some(stage) = stage {
            self.sequence(stage);
        }
        true
    }

    /// Runs the stage until it has nothing left to do. A block that is decoded meanwhile finds the stage taken. It
    /// is seen here, since the stage goes back under the same lock that shows the inbox empty.
    fn sequence(&self, mut stage: Box<MergeStage>) {
        let mut blocks = Vec::new();
        loop {
            let output = stage.run(blocks);
            let mut state = self.state();
            state.deliver(output);
            blocks = state.take_inbox();
            if blocks.is_empty() {
                state.rest(stage);
                state.wake();
                return;
            }
        }
    }

    /// Returns the worker's next message, if there is one.
    pub fn next(&self, worker: usize) -> Option<Message> {
        let mut state = self.state();
        let message = state.pop(worker)?;
        state.wake();
        Some(message)
    }

    /// Sleeps until there is a message for this thread, something to [`work`](Self::work) on, or nothing to come. A
    /// thread that also waits for something else parks on its own, after `next` and `work` had nothing. It is
    /// unparked by everything that would end this sleep.
    pub fn wait(&self, me: &IngestThread) {
        loop {
            {
                let mut state = self.state();
                let has_message = me.worker.is_some_and(|worker| state.has_message(worker));
                if has_message || state.has_task() || state.is_over() {
                    return;
                }
                state.set_idle(me.sleeper);
            }
            thread::park();
        }
    }

    /// Returns whether the worker was given its last tick, or the run ended early.
    #[must_use]
    pub fn is_closed(&self, worker: usize) -> bool {
        self.state().is_closed(worker)
    }

    /// Returns whether everything is read and sequenced, or the run ended early.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state().is_over()
    }

    /// Returns the error that ended the run early, if one did. The queues are empty then.
    #[must_use]
    pub fn error(&self) -> Option<Arc<IngestError>> {
        self.state().error()
    }

    /// Ends the run early, so that nothing more is read. Messages stay in the queues.
    pub fn stop(&self) {
        self.state().stop();
    }

    /// Returns the counts of what was read so far.
    #[must_use]
    pub fn counts(&self) -> IngestCounts {
        self.state().counts()
    }

    /// Returns how far the input was read.
    #[must_use]
    pub fn progress(&self) -> ReadProgress {
        ReadProgress { bytes: self.state().bytes_read(), total: self.total_bytes }
    }

    /// Locks the state of all threads. A thread that panicked while it held the lock has ended the run, so its
    /// state is only read.
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

    /// Returns the worker that is given the next block's events.
    fn target(&mut self, workers: usize) -> usize {
        self.worker.unwrap_or_else(|| {
            self.next_worker = (self.next_worker + 1) % workers;
            self.next_worker
        })
    }
}

/// Ends the run if its thread panics, so that no other thread waits for its block.
struct PanicGuard<'a>(&'a Ingest);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state().fail(IngestError::Panicked);
        }
    }
}

/// Threads that only read, decode and sequence. Dropping them ends the run, unless it is over, and waits for them.
/// A thread that reads from a silent pipe ends when the pipe does.
#[must_use = "dropping the threads ends the run"]
pub struct DecodeThreads {
    ingest: Arc<Ingest>,
    threads: Vec<JoinHandle<()>>,
}

impl DecodeThreads {
    /// Starts `count` threads that read, decode and sequence.
    ///
    /// # Errors
    /// If the system refuses a thread. Those that were started end.
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
            // A panic in the thread has ended the run, and is reported there.
            let _ = thread.join();
        }
    }
}
