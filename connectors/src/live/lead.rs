//! The other processes of a job, as the coordinator's process knows them.
//!
//! The coordinator tells each of its cuts to all followers, closes no tick before all have answered, and cuts no tick
//! before their workers have computed enough. What a follower says of an earlier cut or tick isn't heeded.
//!
//! It has no I/O: messages go into a channel for each follower, and come in by [`Live::hear`].

use std::sync::Arc;
use std::sync::mpsc::Sender;

use keytide_dataflow::model::Tick;

use super::messages::{FollowMessage, FollowerAnswer, FollowerStatus, LeadMessage, ListedPartition};
use super::{Live, LiveError, LiveState, PartitionMemory};
use crate::input::PartitionInfo;

/// A process that follows, and what it has said last.
pub(super) struct Follower {
    messages: Sender<LeadMessage>,
    /// The last cut that it answered.
    answered: u64,
    status: FollowerStatus,
}

impl Follower {
    /// Returns how many ticks all of its workers computed, and the last of them.
    pub(super) fn computed(&self) -> (u64, Tick) {
        self.status.computed
    }
}

/// A message that no follower of this version sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    #[error("it answered cut {cut}, and the last one was {last}")]
    Cut { cut: u64, last: u64 },
    #[error("it names partition {index}, and there are {partitions}")]
    Partition { index: usize, partitions: usize },
    #[error("it sent what only the coordinator of a job that starts may send")]
    Start,
}

impl Live {
    /// Leads other processes, each of which gets its messages by its channel, in the order of their numbers from 1. It is
    /// called before partitions are added.
    pub fn lead(&self, followers: Vec<Sender<LeadMessage>>) {
        let follower = |messages| Follower { messages, answered: 0, status: FollowerStatus::default() };
        self.state().followers = followers.into_iter().map(follower).collect();
    }

    /// Takes a message of a follower, whose `process` counts from 1.
    ///
    /// # Panics
    /// If there is no such follower.
    ///
    /// # Errors
    /// If the message can't be one of this job. Then the link is of no more use.
    pub fn hear(&self, process: usize, message: FollowMessage) -> Result<(), LinkFault> {
        let mut state = self.state();
        match message {
            FollowMessage::Beat | FollowMessage::Address(_) => return Ok(()),
            FollowMessage::Answer(answer) => state.take_answer(process, answer)?,
            FollowMessage::Status(status) => {
                let (stopping, failure) = (status.stopping, status.failure.clone());
                state.followers[process - 1].status = status;
                if let Some(failure) = failure {
                    state.note_error(LiveError::Follower { process, failure });
                }
                if stopping {
                    state.is_told = true;
                    state.stop();
                }
            }
        }
        self.changed.notify_all();
        Ok(())
    }
}

impl LiveState {
    pub(super) fn tell(&self, message: &LeadMessage) {
        for follower in &self.followers {
            // The thread of a link that is lost ends the process.
            let _ = follower.messages.send(message.clone());
        }
    }

    /// Notes an error, of which the first one stays. If no tick or checkpoint can end any more, nobody waits for one.
    pub(super) fn note_error(&mut self, error: LiveError) {
        if self.error.is_some() {
            return;
        }
        if error.gives_up() {
            self.checkpoint.is_busy = false;
            self.tell(&LeadMessage::GivesUp((&error).into()));
        }
        self.error = Some(Arc::new(error));
    }

    pub(super) fn tell_of_partition(&self, info: &PartitionInfo, memory: &PartitionMemory, is_read: bool) {
        if self.followers.is_empty() {
            return;
        }
        let PartitionInfo { source, source_index, number, .. } = info;
        let memory = PartitionMemory { source: source.clone(), number: *number, ..memory.clone() };
        let listed = ListedPartition { memory, source_index: *source_index, is_read };
        self.tell(&LeadMessage::Partition(Arc::new(listed)));
    }

    /// Returns the numbers of the processes, this one as 0, of which a reader hasn't answered the last cut.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = usize> {
        let own = self.answered.iter().copied().min().unwrap_or(self.cut);
        let others = self.followers.iter().map(|follower| follower.answered);
        let answered = std::iter::once(own).chain(others).enumerate();
        answered.filter(|(_, answered)| *answered < self.cut).map(|(process, _)| process)
    }

    /// Returns whether all readers, tables and followers have answered the last cut.
    pub(super) fn is_answered(&self) -> bool {
        self.unanswered().next().is_none()
    }

    /// Returns the number of events of the open tick in all processes.
    pub(super) fn all_open_events(&self) -> u64 {
        let of_open = self.followers.iter().filter(|follower| follower.status.open == self.open);
        self.open_events + of_open.map(|follower| follower.status.open_events).sum::<u64>()
    }

    /// Returns whether a partition of any process can go on only with a later watermark.
    pub(super) fn is_at_ceiling(&self) -> bool {
        let since_cut = |follower: &Follower| follower.status.cut == self.cut && follower.status.at_ceiling;
        self.at_ceiling || self.followers.iter().any(since_cut)
    }

    fn take_answer(&mut self, process: usize, answer: FollowerAnswer) -> Result<(), LinkFault> {
        let FollowerAnswer { cut, reached, minutes, lags, lanes } = answer;
        let answered = self.followers[process - 1].answered;
        if cut <= answered || cut > self.cut {
            return Err(LinkFault::Cut { cut, last: self.cut });
        }
        let partitions = self.partitions.len();
        let named = reached.iter().map(|(index, _)| index);
        let named =
            named.chain(lags.iter().map(|(index, _)| index)).chain(lanes.iter().map(|(index, _)| index));
        if let Some(&index) = named.max().filter(|index| **index >= partitions) {
            return Err(LinkFault::Partition { index, partitions });
        }
        for (index, reached) in reached {
            self.reached[index] = reached;
        }
        for (index, lag) in lags {
            self.lags[index] = Some(lag);
        }
        self.minutes.extend(minutes);
        self.remember_lanes(lanes);
        self.followers[process - 1].answered = cut;
        Ok(())
    }
}
