//! The messages between the coordinator of a job and its followers, the other processes.
//!
//! ```text
//! coordinator ── Recorded.., Start, Partition.. ──► follower   once, before the first cut
//!             ── Cut ─────────────────►                 what a tick holds, and the next tick
//!             ◄─ Answer ───────────────                 how far the follower's partitions are
//!             ── Close ───────────────►                 the tick's watermark
//!             ◄─ Status ───────────────                 whenever something changed that the coordinator heeds
//! ```
//! They come in order, each way. The states that they drive are in `lead.rs` and `follow.rs`.

use std::sync::Arc;

use keytide_dataflow::model::{EventTime, Tick, TickInfo};
use keytide_dataflow::state::SnapshotRequest;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LaneMemory, LiveError, PartitionMemory};
use crate::kafka::ErrorClass;
use crate::ledger::{PartitionProgress, TickRecord};

/// The most ticks in a [`LeadMessage::Recorded`]. A record has 8 MiB at most, so the message is half of what a link takes.
pub const RECORDED_TICKS: usize = 64;

/// A message from the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LeadMessage {
    /// Ticks that an earlier life committed and this one makes again, behind those of the message before. At most
    /// [`RECORDED_TICKS`] are in one, so that no message is too long for a link.
    Recorded(
        #[serde(serialize_with = "write_records", deserialize_with = "read_records")] Arc<Vec<TickRecord>>,
    ),
    /// Says with what the follower starts. It comes once, and only [`Recorded`](Self::Recorded) comes before it.
    Start(Arc<LiveStart>),
    /// A partition at the end of the job's list.
    Partition(Arc<ListedPartition>),
    /// Asks for the cut of the open tick.
    Cut {
        /// The number of the cut, which grows.
        cut: u64,
        next: Tick,
        /// True if no other cut will follow.
        last: bool,
        /// True if the cut is one of a checkpoint.
        checkpoint: bool,
        /// The name of the decoders from the next tick on, if they are replaced.
        decoders: Option<String>,
    },
    /// Closes the tick whose cut all have answered.
    Close {
        info: TickInfo,
        /// True if the next tick is cut at once.
        behind: bool,
        /// The snapshot of the states after the tick, if they are to be stored.
        checkpoint: Option<SnapshotRequest>,
        /// The last tick that was handed to the sinks, or with transactions committed.
        published: Tick,
    },
    /// No tick is closed any more; the one that was cut isn't.
    Ended,
    /// No tick can end any more, so nothing is waited for.
    GivesUp(JobFailure),
    /// Everything that the job has to publish is published and stored, or the failure says why not. No message follows.
    Done(JobEnd),
    /// Says that the coordinator is there, if it has nothing else to say for a second.
    Beat,
    /// The coordinator's process can't reach the other one at its address, so that it can't take part, or can by now.
    Reached { address: String, failure: Option<String> },
}

/// A message from a follower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FollowMessage {
    /// The address at which other processes reach the follower. It comes first.
    Address(String),
    /// All events of the open tick are in the follower's queues.
    Answer(FollowerAnswer),
    Status(FollowerStatus),
    /// Says that the follower is there, if it has nothing else to say for a second.
    Beat,
}

/// With what a follower starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStart {
    /// The number of the follower among the processes. The coordinator has 0.
    pub process: usize,
    /// The addresses of all processes.
    pub addresses: Vec<String>,
    /// The tick and the nonce of the checkpoint that has the states, if the job goes on from one.
    pub checkpoint: Option<(Tick, u64)>,
    /// The random number of this life of the job.
    pub nonce: u64,
    pub first: Tick,
    pub watermark: EventTime,
    /// The ticks that an earlier life committed and this one makes again. They come in messages of their own.
    #[serde(skip)]
    pub replay: Vec<TickRecord>,
    /// The name of the first decoders.
    pub decoders: String,
}

/// A partition as the job's list has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedPartition {
    pub memory: PartitionMemory,
    /// The index of its source in the configuration, and whether it is read.
    pub source_index: usize,
    pub is_read: bool,
}

/// The answer of a follower to a cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FollowerAnswer {
    pub cut: u64,
    /// How far the follower's partitions are, by their indices in the job's list.
    #[serde(serialize_with = "write_progress", deserialize_with = "read_progress")]
    pub reached: Vec<(usize, PartitionProgress)>,
    /// The minutes of event time that have events in the tick.
    pub minutes: Vec<EventTime>,
    /// The unread records of partitions, as far as known.
    pub lags: Vec<(usize, u64)>,
    /// The times of the partitions' events, if the cut is one of a checkpoint.
    pub lanes: Vec<(usize, Option<LaneMemory>)>,
}

/// The state of a follower, as far as the coordinator heeds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// The newest cut that the follower knows.
    pub cut: u64,
    /// The tick that is open there, and the number of its events so far.
    pub open: Tick,
    pub open_events: u64,
    /// True if a partition can go on only with a later watermark.
    pub at_ceiling: bool,
    /// How many ticks all of its workers computed, and the last of them.
    pub computed: (u64, Tick),
    /// True if it was told to end, or has an error.
    pub stopping: bool,
    pub failure: Option<JobFailure>,
}

/// How a job ended, as its coordinator tells all other processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    pub failure: Option<JobFailure>,
    /// True if its processes begin anew.
    pub again: bool,
}

/// The error with which a process ends its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    pub message: String,
    pub class: ErrorClass,
    /// True if no tick can end any more, since a worker has no dataflow.
    pub gives_up: bool,
}

impl From<&LiveError> for JobFailure {
    fn from(error: &LiveError) -> Self {
        Self { message: error.to_string(), class: error.class(), gives_up: error.gives_up() }
    }
}

/// The progress of a partition without the names of its fields, and its index in the job's list.
type Progress = (usize, Option<u64>, Option<u64>, u64, bool, u64);

impl LiveStart {
    /// Returns the messages that say it to a follower, in their order.
    pub fn messages(self) -> impl Iterator<Item = LeadMessage> {
        let records = self.replay.chunks(RECORDED_TICKS).map(|of_message| Arc::new(of_message.to_vec()));
        let records: Vec<LeadMessage> = records.map(LeadMessage::Recorded).collect();
        records.into_iter().chain([LeadMessage::Start(Arc::new(Self { replay: Vec::new(), ..self }))])
    }
}

/// Writes records of ticks in the form of the ledger. Their fields that may be left out need a format that names fields.
fn write_records<S: Serializer>(records: &Arc<Vec<TickRecord>>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(&serde_json::to_vec(&**records).map_err(S::Error::custom)?)
}

fn read_records<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<TickRecord>>, D::Error> {
    serde_json::from_slice(&Vec::<u8>::deserialize(from)?).map(Arc::new).map_err(D::Error::custom)
}

/// Writes how far partitions are without the names of fields, of which some may be left out.
fn write_progress<S: Serializer>(reached: &[(usize, PartitionProgress)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(reached.iter().map(|(index, progress)| -> Progress {
        let PartitionProgress { maximum, settled, next_offset, at_end, events } = *progress;
        (*index, maximum, settled, next_offset, at_end, events)
    }))
}

fn read_progress<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(usize, PartitionProgress)>, D::Error> {
    let read = |(index, maximum, settled, next_offset, at_end, events): Progress| {
        (index, PartitionProgress { maximum, settled, next_offset, at_end, events })
    };
    Ok(Vec::<Progress>::deserialize(from)?.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::AddedPartition;

    fn read<T: serde::de::DeserializeOwned>(value: &impl Serialize) -> T {
        postcard::from_bytes(&postcard::to_stdvec(value).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(
            known in any::<Option<u64>>(), offset: u64, at_end: bool, index in 0_usize..9_000, named: bool,
        ) {
            let progress = PartitionProgress {
                maximum: known, settled: known, next_offset: offset, at_end, events: offset / 2,
            };
            let answer = FollowerAnswer {
                cut: 7,
                reached: vec![(index, progress), (index + 1, PartitionProgress::default())],
                minutes: vec![60_000, offset],
                lags: vec![(index, offset)],
                lanes: vec![(index, None)],
            };
            prop_assert_eq!(read::<FollowMessage>(&FollowMessage::Answer(answer.clone())), FollowMessage::Answer(answer));
            let record = TickRecord {
                number: 5,
                tick: offset,
                reached: vec![progress],
                added: if named { vec![AddedPartition { source: "s".to_owned(), number: 3, offset }] } else { Vec::new() },
                inputs: named.then(|| "inputs/5".to_owned()),
                digest: u128::from(offset) << 64,
                nonce: u64::MAX,
                ..TickRecord::default()
            };
            let replay = vec![record; usize::from(named) * index % (3 * RECORDED_TICKS)];
            let start = LiveStart { first: 1, replay, decoders: "geo".to_owned(), ..LiveStart::default() };
            let messages = start.clone().messages().map(|message| read::<LeadMessage>(&message));
            let mut heard = LiveStart::default();
            for message in messages {
                match message {
                    LeadMessage::Recorded(records) => {
                        prop_assert!((1..=RECORDED_TICKS).contains(&records.len()));
                        heard.replay.extend(records.iter().cloned());
                    }
                    LeadMessage::Start(start) => heard = LiveStart { replay: heard.replay, ..(*start).clone() },
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            prop_assert_eq!(heard, start);
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = postcard::from_bytes::<LeadMessage>(&bytes);
            let _ = postcard::from_bytes::<FollowMessage>(&bytes);
        }
    }
}
