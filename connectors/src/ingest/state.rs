//! The state that all threads share under one lock: partitions to be read, blocks on the way, queues and sleepers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::Thread;

use keytide_dataflow::model::{Definition, EventTime};

use super::stage::{DecodedBlock, MergeStage, Outgoing, StageOutput};
use super::{IngestCounts, IngestError, IngestOptions, PartitionContent};
use crate::file::Cut;
use crate::input::{Message, Queues};
use crate::kafka::Consumer;

/// The bounds of a partition's first blocks, which are small: only its start is wanted.
const START_CUT_BYTES: usize = 32 << 10;
const START_CUT_LINES: usize = 64;
/// The lower bound to which blocks shrink when many partitions are read side by side.
const SHARED_BLOCK_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(super) struct IngestState {
    bounds: Bounds,
    partitions: Vec<PartitionReads>,
    /// Partitions that the sequencer waits for and that have no block on the way.
    wanted: BTreeSet<usize>,
    /// Partitions that may be read ahead, by the event time that was reached.
    ahead: BTreeSet<(EventTime, usize)>,
    /// The number of bytes of decoded blocks that wait for the sequencer.
    ahead_bytes: usize,
    /// The number of partitions that are read beyond their start and not to their end.
    begun: usize,
    /// Partitions whose files may be open; the one read last is at the back.
    open_files: VecDeque<usize>,
    /// Decoded blocks that the stage hasn't taken yet.
    inbox: Vec<DecodedBlock>,
    /// `None` while a thread runs the stage.
    stage: Option<Box<MergeStage>>,
    queues: Queues,
    threads: Vec<Sleeper>,
    counts: IngestCounts,
    /// The number of bytes that were read from the origins.
    bytes_read: u64,
    finished: bool,
    stopped: bool,
    error: Option<Arc<IngestError>>,
}

#[derive(Default)]
struct Bounds {
    ahead_bytes: usize,
    queue_bytes: usize,
    open_files: usize,
    block_bytes: usize,
    line_bytes: usize,
}

#[derive(Default)]
struct PartitionReads {
    /// `None` while a thread reads the content, and once it was read to its end.
    content: Option<PartitionContent>,
    /// The number of the next block.
    serial: u64,
    /// The number of blocks that are being read or decoded.
    on_the_way: usize,
    started: bool,
    begun: bool,
    /// The time of the last event that was read.
    reached: EventTime,
    bytes_read: u64,
}

struct Sleeper {
    thread: Thread,
    /// True if it found nothing to do and is to be woken when that changes.
    idle: bool,
}

/// A block that a thread is to read.
pub(super) struct Task {
    pub(super) index: usize,
    pub(super) content: PartitionContent,
    pub(super) serial: u64,
    pub(super) cut: Cut,
    /// True for a block of the partition's start, which doesn't count as read-ahead.
    pub(super) is_start: bool,
}

impl IngestState {
    pub(super) fn new(contents: Vec<PartitionContent>, options: &IngestOptions) -> Self {
        let reads = |content| PartitionReads { content: Some(content), ..PartitionReads::default() };
        Self {
            bounds: Bounds {
                ahead_bytes: options.ahead_bytes.max(1),
                queue_bytes: options.queue_bytes.max(1),
                open_files: options.open_files.max(1),
                block_bytes: options.limits.block_bytes.max(1),
                line_bytes: options.limits.message_bytes,
            },
            wanted: (0..contents.len()).collect(),
            partitions: contents.into_iter().map(reads).collect(),
            queues: Queues::new(options.workers.get()),
            ..Self::default()
        }
    }

    pub(super) fn counts(&self) -> IngestCounts {
        self.counts
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    pub(super) fn error(&self) -> Option<Arc<IngestError>> {
        self.error.clone()
    }

    /// Returns whether nothing will be read or sequenced any more.
    pub(super) fn is_over(&self) -> bool {
        self.finished || self.stopped || self.error.is_some()
    }

    pub(super) fn is_closed(&self, worker: usize) -> bool {
        self.is_over() && self.queues.is_empty(worker)
    }

    pub(super) fn has_message(&self, worker: usize) -> bool {
        !self.queues.is_empty(worker)
    }

    /// Registers a thread, and returns its index among the sleepers.
    pub(super) fn enter(&mut self, thread: Thread, worker: Option<usize>) -> usize {
        let index = self.threads.len();
        if let Some(worker) = worker {
            self.queues.enter(worker, thread.clone());
        }
        self.threads.push(Sleeper { thread, idle: false });
        index
    }

    pub(super) fn set_idle(&mut self, index: usize) {
        self.threads[index].idle = true;
    }

    /// Returns the partition to read next, if one may be read now. A partition that the sequencer waits for comes
    /// first, then the one that was read least far.
    fn next_partition(&self) -> Option<usize> {
        if self.is_over() || self.queues.bytes() >= self.bounds.queue_bytes {
            return None;
        }
        let ahead = || if self.ahead_bytes < self.bounds.ahead_bytes { self.ahead.first() } else { None };
        self.wanted.first().copied().or_else(|| ahead().map(|&(_, partition)| partition))
    }

    pub(super) fn has_task(&self) -> bool {
        self.next_partition().is_some()
    }

    pub(super) fn take_task(&mut self) -> Option<Task> {
        let index = self.next_partition()?;
        let reads = &mut self.partitions[index];
        let content = reads.content.take()?;
        self.wanted.remove(&index);
        self.ahead.remove(&(reads.reached, index));
        if reads.started && !reads.begun {
            reads.begun = true;
            self.begun += 1;
        }
        reads.on_the_way += 1;
        let serial = reads.serial;
        reads.serial += 1;
        let Bounds { ahead_bytes, block_bytes, line_bytes, .. } = self.bounds;
        let cut = if reads.started {
            let share = (ahead_bytes / self.begun.max(1)).max(SHARED_BLOCK_BYTES);
            Cut { bytes: block_bytes.min(share), lines: usize::MAX, line_bytes }
        } else {
            Cut { bytes: block_bytes.min(START_CUT_BYTES), lines: START_CUT_LINES, line_bytes }
        };
        Some(Task { index, content, serial, cut, is_start: !reads.started })
    }

    /// Takes a partition back once its block was read, so that another thread may read the next one. The returned
    /// consumer must be dropped without the lock.
    #[must_use = "dropping a consumer takes time: not while the lock is held"]
    pub(super) fn give_back(
        &mut self,
        index: usize,
        content: PartitionContent,
        bytes: u64,
        last: bool,
    ) -> Option<Consumer> {
        let reads = &mut self.partitions[index];
        self.counts.bytes += bytes;
        self.bytes_read += content.bytes_read() - reads.bytes_read;
        reads.bytes_read = content.bytes_read();
        self.open_files.retain(|&other| other != index);
        if last {
            self.begun -= usize::from(reads.begun);
            return None;
        }
        reads.content = Some(content);
        if reads.started {
            self.ahead.insert((reads.reached, index));
        }
        self.open_files.push_back(index);
        if self.open_files.len() <= self.bounds.open_files {
            return None;
        }
        let oldest = self.open_files.pop_front()?;
        self.partitions[oldest].content.as_mut()?.pause()
    }

    /// Adds a decoded block, with the definitions that its events rely on.
    pub(super) fn add_block(&mut self, block: DecodedBlock, definitions: Vec<Definition>) {
        let reads = &mut self.partitions[block.partition];
        reads.on_the_way -= 1;
        if let Some(&reached) = block.chunk.times.last() {
            if self.ahead.remove(&(reads.reached, block.partition)) {
                self.ahead.insert((reached, block.partition));
            }
            reads.reached = reached;
        }
        self.ahead_bytes += block.weight;
        self.counts.tally.add(&block.tally);
        if !definitions.is_empty() && self.error.is_none() {
            self.queues.push(block.worker, Message::Definitions(definitions));
        }
        self.inbox.push(block);
    }

    /// Takes the stage, unless another thread runs it.
    pub(super) fn take_stage(&mut self) -> Option<Box<MergeStage>> {
        self.stage.take()
    }

    pub(super) fn take_inbox(&mut self) -> Vec<DecodedBlock> {
        std::mem::take(&mut self.inbox)
    }

    /// Takes the stage back once the inbox is empty. Partitions that the sequencer waits for now are wanted.
    pub(super) fn rest(&mut self, mut stage: Box<MergeStage>) {
        let touched = stage.take_touched();
        let sequencer = stage.sequencer();
        for index in touched.into_iter().chain(sequencer.turn()) {
            let reads = &mut self.partitions[index];
            if !reads.started && sequencer.has_started(index) {
                reads.started = true;
                if reads.content.is_some() {
                    self.ahead.insert((reads.reached, index));
                }
            }
            if sequencer.waits_for(index) && reads.on_the_way == 0 && reads.content.is_some() {
                self.wanted.insert(index);
            }
        }
        self.finished = sequencer.is_finished();
        self.stage = Some(stage);
    }

    /// Sends the messages of the stage and adds up its counts.
    pub(super) fn deliver(&mut self, output: StageOutput) {
        self.ahead_bytes -= output.released;
        self.counts.events += output.events;
        self.counts.late += output.late;
        self.counts.lags = output.lags;
        self.counts.dead_letters += output.refused.iter().sum::<u64>();
        self.counts.refused.iter_mut().zip(output.refused).for_each(|(sum, more)| *sum += more);
        self.counts.noted += output.noted;
        self.counts.first_refused = self.counts.first_refused.or(output.first_refused);
        if self.error.is_some() {
            return;
        }
        for message in output.outgoing {
            match message {
                Outgoing::To(worker, message) => self.queues.push(worker, message),
                Outgoing::Close(info, next) => self.queues.close(info, next, None),
            }
        }
    }

    pub(super) fn pop(&mut self, worker: usize) -> Option<Message> {
        self.queues.pop(worker)
    }

    /// Wakes the threads that are idle, if there is something to do.
    pub(super) fn wake(&mut self) {
        if self.has_task() || self.is_over() {
            for sleeper in self.threads.iter_mut().filter(|sleeper| sleeper.idle) {
                sleeper.idle = false;
                sleeper.thread.unpark();
            }
        }
    }

    /// Ends the run, so that nothing more is read or decided. Messages stay in the queues.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.wake_all();
    }

    /// Ends the run with an error, of which the first one stays, and empties the queues.
    pub(super) fn fail(&mut self, error: IngestError) {
        self.error.get_or_insert_with(|| Arc::new(error));
        self.queues.clear();
        self.wake_all();
    }

    fn wake_all(&self) {
        self.threads.iter().for_each(|sleeper| sleeper.thread.unpark());
    }
}
