//! The input that workers get, in bounded runs ([`ingest`](crate::ingest)) and live ones ([`live`](crate::live)).
//! It consists of messages in order, queues that are counted in bytes, and the rule against times from the future.
//!
//! Definitions enter a queue before the tick that relies on them is closed, and every worker gets every
//! [`Message::Close`]. When a worker takes one, it has taken all of its part of the tick.
//!
//! Limits: an event's time is at most [`FUTURE_MS`] after the run's time, or in a live job after its tick's.

use std::collections::VecDeque;
use std::mem;
use std::thread::Thread;

use keytide_dataflow::ActionInput;
use keytide_dataflow::model::{
    AccessEvent, Definition, EventTime, LATENCY_UNKNOWN, Position, TableChange, Tick, TickInfo,
};
use keytide_dataflow::state::SnapshotRequest;
use sha2::{Digest, Sha256};

use crate::decode::{DeadLetter, Decoded};
use crate::tables::TableDeadLetter;

/// An event that is later than the run's time by more than this is a dead letter.
pub const FUTURE_MS: u64 = 300_000;

/// The names of a partition. [`Position::partition`](keytide_dataflow::model::Position::partition) is its index in
/// the list of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    pub source: String,
    /// The source's index in the configuration.
    pub source_index: usize,
    /// The number within the source: a file's index among its files, or Kafka's own number.
    pub number: u32,
    /// The path of the file; `None` for standard input and topics.
    pub path: Option<String>,
}

/// A message to a worker. A worker's messages come in order.
#[derive(Debug)]
pub enum Message {
    /// The strings behind ids, which precede the [`Close`](Self::Close) of every tick that uses them.
    Definitions(Vec<Definition>),
    /// The events of a tick, in no particular order. In a live job it may be the tick after the open one.
    Events {
        tick: Tick,
        /// Events whose `late_ms` is decided.
        events: Vec<AccessEvent>,
    },
    /// The dead letters of a tick, whose `events_before` has no meaning any more. In a bounded run worker 0 gets
    /// all of them, in the order of the merged input.
    DeadLetters { tick: Tick, letters: Vec<DeadLetter> },
    /// The changes of tables in a tick of a live job, and what people and gateways said. Worker 0 gets all of them.
    Tables { tick: Tick, changes: Vec<TableChange>, letters: Vec<TableDeadLetter>, inputs: Vec<ActionInput> },
    /// The end of a tick, which all workers get for every tick.
    Close {
        info: TickInfo,
        next: Tick,
        /// The snapshot of the states after the tick, if they are to be stored.
        checkpoint: Option<SnapshotRequest>,
    },
}

impl Message {
    /// Returns about how much memory the message takes, in bytes.
    fn bytes(&self) -> usize {
        mem::size_of::<Self>()
            + match self {
                Self::Definitions(definitions) => definitions.iter().map(definition_bytes).sum(),
                Self::Events { events, .. } => mem::size_of_val(events.as_slice()),
                Self::DeadLetters { letters, .. } => letters.iter().map(letter_bytes).sum(),
                Self::Tables { changes, letters, inputs, .. } => {
                    mem::size_of_val(changes.as_slice())
                        + mem::size_of_val(letters.as_slice())
                        + mem::size_of_val(inputs.as_slice())
                }
                Self::Close { .. } => 0,
            }
    }
}

fn definition_bytes(definition: &Definition) -> usize {
    mem::size_of::<Definition>()
        + match definition {
            Definition::Key { name: text, .. }
            | Definition::Agent { text, .. }
            | Definition::Name { text, .. } => text.len(),
            Definition::Route { api, method, route, .. } => api.len() + method.len() + route.len(),
        }
}

pub(crate) fn letter_bytes(letter: &DeadLetter) -> usize {
    let kept = letter.kept.as_ref().map_or(0, |kept| kept.len());
    mem::size_of::<DeadLetter>() + letter.reason.len() + kept
}

/// Makes the dead letter of records that were deleted before they were read.
pub(crate) fn gap_letter(position: Position, events_before: usize, reason: String) -> DeadLetter {
    let sha256 = Sha256::digest([]).into();
    DeadLetter { position, events_before, reason, length: 0, sha256, kept: None, counted: false }
}

/// The queues of all workers, and the number of bytes that wait in them.
#[derive(Default)]
pub(crate) struct Queues {
    queues: Vec<WorkerQueue>,
    bytes: usize,
}

#[derive(Default)]
struct WorkerQueue {
    messages: VecDeque<(usize, Message)>,
    /// The worker's thread, which every message unparks.
    thread: Option<Thread>,
}

impl Queues {
    pub(crate) fn new(workers: usize) -> Self {
        Self { queues: (0..workers).map(|_| WorkerQueue::default()).collect(), bytes: 0 }
    }

    /// Registers the thread of a worker, which its messages wake up from then on.
    pub(crate) fn enter(&mut self, worker: usize, thread: Thread) {
        self.queues[worker].thread = Some(thread);
    }

    /// Returns the number of bytes of all messages.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self, worker: usize) -> bool {
        self.queues[worker].messages.is_empty()
    }

    /// Adds a message, however full the queues are, and wakes its worker.
    pub(crate) fn push(&mut self, worker: usize, message: Message) {
        let bytes = message.bytes();
        self.bytes += bytes;
        let queue = &mut self.queues[worker];
        queue.messages.push_back((bytes, message));
        if let Some(thread) = &queue.thread {
            thread.unpark();
        }
    }

    /// Ends a tick for every worker.
    pub(crate) fn close(&mut self, info: TickInfo, next: Tick, checkpoint: Option<SnapshotRequest>) {
        for worker in 0..self.queues.len() {
            self.push(worker, Message::Close { info, next, checkpoint });
        }
    }

    /// Takes the next message of the worker, if there is one.
    pub(crate) fn pop(&mut self, worker: usize) -> Option<Message> {
        let (bytes, message) = self.queues[worker].messages.pop_front()?;
        self.bytes -= bytes;
        Some(message)
    }

    /// Drops the messages of all workers.
    pub(crate) fn clear(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.messages.clear());
        self.bytes = 0;
    }
}

/// The latest time that an event may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FutureLimit(EventTime);

impl FutureLimit {
    /// Counts from `now`, the run's time or the tick's.
    pub(crate) fn at(now: Tick) -> Self {
        Self(now.saturating_add(FUTURE_MS))
    }

    /// Turns the events of `message` that are from the future into dead letters, in order with its others. The
    /// first event of the message in `out` has the index `event`, its first dead letter the index `letter`.
    pub(crate) fn judge(self, out: &mut Decoded, event: usize, letter: usize, message: &[u8]) {
        if out.events[event..].iter().any(|event| event.time > self.0) {
            self.refuse(out, event, letter, message);
        }
    }

    #[cold]
    fn refuse(self, out: &mut Decoded, first_event: usize, first_letter: usize, message: &[u8]) {
        let events = out.events.split_off(first_event);
        let mut letters = out.dead_letters.split_off(first_letter).into_iter().peekable();
        for (index, event) in (first_event..).zip(events) {
            while let Some(letter) = letters.next_if(|letter| letter.events_before <= index) {
                out.dead_letters.push(DeadLetter { events_before: out.events.len(), ..letter });
            }
            if event.time <= self.0 {
                out.events.push(event);
                continue;
            }
            out.dead_letters.push(DeadLetter {
                position: event.position,
                events_before: out.events.len(),
                reason: format!(
                    "time: more than {} minutes after the run's time; is its unit right, and the gateway's clock?",
                    FUTURE_MS / 60_000
                ),
                length: message.len() as u64,
                sha256: Sha256::digest(message).into(),
                kept: Some(kept(&event)),
                counted: false,
            });
        }
        for letter in letters {
            out.dead_letters.push(DeadLetter { events_before: out.events.len(), ..letter });
        }
    }
}

/// Returns the JSON that a dead letter keeps of an event: numbers alone.
fn kept(event: &AccessEvent) -> Box<str> {
    let AccessEvent { time, status, bytes_in, bytes_out, latency_us, .. } = event;
    let latency =
        if *latency_us == LATENCY_UNKNOWN { String::new() } else { format!(",\"latency_us\":{latency_us}") };
    format!(
        "{{\"time_ms\":{time},\"status\":{status}{latency},\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}}}"
    )
    .into()
}
