//! The memory of a live job's input, with which it goes on after a stop or a crash.
//!
//! It is taken at a cut: what the readers, the tables and the ticker know once every record of the tick was read, and
//! none of a later one. Of decoders only the name is in it. They start anew, which costs time and changes no event.
//!
//! The list of partitions only grows, because rows of durable states name partitions by their index in it. A partition
//! of a source that the configuration no longer names stays in the list and is never read.

use keytide_dataflow::model::{EventTime, Tick};
use serde::{Deserialize, Serialize};

use super::ticker::TickerMemory;
use crate::ingest::sequencer::RunningMaximum;
use crate::ledger::PartitionProgress;

/// How far the input of a job was at the end of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputMemory {
    /// The tick, which is the last whose records are in it.
    pub tick: Tick,
    /// The number of the tick in the job's ledger.
    pub number: u64,
    pub ticker: TickerMemory,
    /// The partitions in the order of the job's list.
    pub partitions: Vec<PartitionMemory>,
    /// The name of the decoders of later ticks.
    pub decoders: String,
}

/// How far a partition was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionMemory {
    /// The name of its source.
    pub source: String,
    /// Its number in the topic.
    pub number: u32,
    /// The offset of the first record that wasn't read.
    pub next_offset: u64,
    /// The times of its events; `None` before the first.
    pub lane: Option<LaneMemory>,
}

impl PartitionMemory {
    /// Returns the progress with which the partition goes on.
    pub(super) fn progress(&self) -> PartitionProgress {
        let settled = self.lane.as_ref().map(|lane| lane.running.maximum());
        PartitionProgress {
            maximum: settled,
            settled,
            next_offset: self.next_offset,
            at_end: false,
            events: 0,
        }
    }
}

/// The event times of a partition, by which its later events are judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMemory {
    pub(crate) running: RunningMaximum,
    /// The greatest event time, leaps included.
    pub(crate) highest: EventTime,
}
