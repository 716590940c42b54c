//! The stage around the sequencer: decoded blocks come in, in the order in which they are finished; messages go
//! out.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::vec;

use keytide_dataflow::model::{AccessEvent, Position, Tick, TickInfo};

use super::sequencer::{Chunk, Decision, Lags, Sequencer, SequencerRules, Slice};
use crate::decode::{CLASSES, DeadLetter, Tally};
use crate::input::Message;

/// Events of partly taken blocks are gathered until a message has this many, or a few more.
const GATHERED_EVENTS: usize = 4_096;

/// A decoded block on its way to the stage.
pub(super) struct DecodedBlock {
    pub(super) partition: usize,
    /// The number of the block in its partition.
    pub(super) serial: u64,
    /// The worker that is given its events.
    pub(super) worker: usize,
    pub(super) events: Vec<AccessEvent>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) tally: Tally,
    pub(super) chunk: Chunk,
    /// Its share of the read-ahead, in bytes.
    pub(super) weight: usize,
}

impl DecodedBlock {
    /// Returns the times and places of a block's records, for the sequencer.
    pub(super) fn chunk(events: &[AccessEvent], letters: &[DeadLetter], last: bool) -> Chunk {
        let times = events.iter().map(|event| event.time).collect();
        Chunk { times, letters: letters.iter().map(|letter| letter.events_before).collect(), last }
    }
}

/// A message that the stage sends to one worker or to all.
pub(super) enum Outgoing {
    To(usize, Message),
    /// A tick is complete and the next one is open, for all workers.
    Close(TickInfo, Tick),
}

/// The messages and counts that some blocks led to.
#[derive(Default)]
pub(super) struct StageOutput {
    pub(super) outgoing: Vec<Outgoing>,
    /// The read-ahead that was used up, in bytes.
    pub(super) released: usize,
    pub(super) events: u64,
    pub(super) late: u64,
    pub(super) refused: [u64; CLASSES.len()],
    pub(super) first_refused: Option<Position>,
    /// The number of dead letters whose records count.
    pub(super) noted: u64,
    /// The lags of all events that were taken so far.
    pub(super) lags: Lags,
}

/// The one place where the order is made. One thread at a time runs it.
pub(super) struct MergeStage {
    sequencer: Sequencer,
    assembly: Assembly,
    /// The partitions that got blocks since [`take_touched`](Self::take_touched).
    touched: Vec<usize>,
}

impl MergeStage {
    pub(super) fn new(rules: &SequencerRules, partitions: usize, workers: usize) -> Self {
        let (sequencer, tables) = Sequencer::new(rules, partitions);
        let mut assembly = Assembly {
            partitions: (0..partitions).map(|_| PartitionBlocks::default()).collect(),
            tick: tables.tick,
            gathered: vec![Vec::new(); workers],
            letters: Vec::new(),
            output: StageOutput::default(),
        };
        assembly.apply(Decision::Close(tables));
        Self { sequencer, assembly, touched: Vec::new() }
    }

    pub(super) fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        mem::take(&mut self.touched)
    }

    pub(super) fn run(&mut self, blocks: Vec<DecodedBlock>) -> StageOutput {
        for block in blocks {
            let partition = block.partition;
            self.touched.push(partition);
            let waiting = &mut self.assembly.partitions[partition];
            waiting.early.insert(block.serial, block);
            while let Some(block) = waiting.early.remove(&waiting.next_serial) {
                waiting.next_serial += 1;
                if block.events.is_empty() && block.letters.is_empty() {
                    self.assembly.output.released += block.weight;
                } else {
                    waiting.blocks.push_back(PendingBlock {
                        left: block.events.len() + block.letters.len(),
                        events: block.events,
                        taken: 0,
                        letters: block.letters.into_iter(),
                        worker: block.worker,
                        weight: block.weight,
                    });
                }
                self.sequencer.push(partition, block.chunk);
            }
        }
        self.sequencer.advance(|decision| self.assembly.apply(decision));
        let mut output = mem::take(&mut self.assembly.output);
        output.lags = self.sequencer.lags();
        output
    }
}

/// Carries out the decisions of the sequencer.
struct Assembly {
    partitions: Vec<PartitionBlocks>,
    tick: Tick,
    /// The open tick's events from partly taken blocks, by worker.
    gathered: Vec<Vec<AccessEvent>>,
    /// The open tick's dead letters that aren't sent yet.
    letters: Vec<DeadLetter>,
    output: StageOutput,
}

#[derive(Default)]
struct PartitionBlocks {
    next_serial: u64,
    /// Blocks that were finished before one with a lower number.
    early: BTreeMap<u64, DecodedBlock>,
    blocks: VecDeque<PendingBlock>,
}

struct PendingBlock {
    events: Vec<AccessEvent>,
    /// The number of events that were taken.
    taken: usize,
    letters: vec::IntoIter<DeadLetter>,
    left: usize,
    worker: usize,
    weight: usize,
}

impl Assembly {
    fn apply(&mut self, decision: Decision) {
        match decision {
            Decision::Take(slice) => self.take(&slice),
            Decision::Close(info) => {
                for worker in 0..self.gathered.len() {
                    self.send_gathered(worker);
                }
                self.send_letters();
                self.tick = info.tick + 1;
                self.output.outgoing.push(Outgoing::Close(info, self.tick));
            }
        }
    }

    fn take(&mut self, slice: &Slice) {
        let blocks = &mut self.partitions[slice.partition].blocks;
        let Some(block) = blocks.front_mut() else { return };
        let worker = block.worker;
        let end = block.taken + slice.events;
        for &(index, late_ms) in &slice.late {
            block.events[block.taken + index].late_ms = late_ms;
        }
        if slice.events > 0 && slice.events == block.events.len() {
            let events = mem::take(&mut block.events);
            self.output.outgoing.push(Outgoing::To(worker, Message::Events { tick: self.tick, events }));
        } else {
            self.gathered[worker].extend_from_slice(&block.events[block.taken..end]);
        }
        let letters = self.letters.len();
        self.letters.extend(block.letters.by_ref().take(slice.letters));
        for letter in &self.letters[letters..] {
            if letter.counted {
                self.output.noted += 1;
                continue;
            }
            self.output.refused[letter.class()] += 1;
            self.output.first_refused.get_or_insert(letter.position);
        }
        self.output.events += slice.events as u64;
        self.output.late += slice.late.len() as u64;
        block.taken = end;
        block.left -= slice.events + slice.letters;
        if block.left == 0 {
            self.output.released += block.weight;
            blocks.pop_front();
        }
        if self.gathered[worker].len() >= GATHERED_EVENTS {
            self.send_gathered(worker);
        }
        if self.letters.len() >= GATHERED_EVENTS {
            self.send_letters();
        }
    }

    fn send(&mut self, worker: usize, message: Message) {
        self.output.outgoing.push(Outgoing::To(worker, message));
    }

    fn send_gathered(&mut self, worker: usize) {
        let events = mem::take(&mut self.gathered[worker]);
        if !events.is_empty() {
            self.send(worker, Message::Events { tick: self.tick, events });
        }
    }

    fn send_letters(&mut self) {
        let letters = mem::take(&mut self.letters);
        if !letters.is_empty() {
            self.send(0, Message::DeadLetters { tick: self.tick, letters });
        }
    }
}
