//! A process without a coordinator: it does what that of another process says.
//!
//! ```text
//! link ── LeadMessage ──► obey ──► orders of readers, queues of workers
//! link ◄── report ──────── what readers answered, what workers computed
//! ```
//! Readers, workers and queues are the same as with a coordinator. Only the thread differs that cuts.

use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use keytide_dataflow::model::EventTime;

use super::lead::LinkFault;
use super::messages::{
    FollowMessage, FollowerAnswer, FollowerStatus, JobEnd, JobFailure, LeadMessage, ListedPartition,
};
use super::{Live, LiveError, LiveState, NamedDecoders, TICK_EVENTS};
use crate::input::PartitionInfo;

/// How many events of the open tick make news of their number.
const NEWS_EVENTS: u64 = TICK_EVENTS / 16;

/// What a process that follows remembers beside its input.
#[derive(Default)]
pub(super) struct Following {
    is_following: bool,
    /// The last cut that the coordinator was sent the answer to.
    reported: u64,
    /// The status that it was sent last.
    status: FollowerStatus,
    /// True once nothing more is to be reported.
    is_done: bool,
    /// With what the coordinator ended the job, once it has.
    done: Option<JobEnd>,
}

impl Live {
    /// Makes this the input of a process that follows. It is called before the threads start.
    pub fn follow(&self, watermark: EventTime) {
        let mut state = self.state();
        state.following.is_following = true;
        state.watermark = watermark;
    }

    /// Returns whether this process follows another one.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.state().following.is_following
    }

    /// Does what the coordinator says. `decoders` makes those of a name.
    ///
    /// # Errors
    /// If the message can't come now. Then the link is of no more use.
    pub fn obey(
        &self,
        message: LeadMessage,
        decoders: impl FnOnce(&str) -> Option<NamedDecoders>,
    ) -> Result<(), LinkFault> {
        match message {
            LeadMessage::Recorded(_) | LeadMessage::Start(_) => return Err(LinkFault::Start),
            LeadMessage::Beat | LeadMessage::Reached { .. } => {}
            LeadMessage::Partition(listed) => {
                let ListedPartition { memory, source_index, is_read } = Arc::unwrap_or_clone(listed);
                let (source, number) = (memory.source.clone(), memory.number);
                let info = PartitionInfo { source, source_index, number, path: None };
                self.restore_partition(info, memory, is_read);
            }
            LeadMessage::Cut { cut, next, last, checkpoint, decoders: name } => {
                // Made before the lock is taken, as files are read for that. `None` has ended the job.
                let new = name.and_then(|name| decoders(&name));
                let mut state = self.state();
                if cut <= state.cut {
                    return Err(LinkFault::Cut { cut, last: state.cut });
                }
                state.next = next;
                state.cut = cut;
                state.at_ceiling = false;
                state.checkpoint.is_asked = checkpoint;
                if checkpoint {
                    state.checkpoint.lanes = Vec::new();
                }
                if let Some(new) = new {
                    state.use_decoders(new);
                }
                if last {
                    state.last = true;
                    state.stop();
                }
                self.changed.notify_all();
            }
            LeadMessage::Close { info, behind, checkpoint, published } => {
                let mut state = self.state();
                let is_replay = state.replay.next().is_some();
                state.replay.closed += usize::from(is_replay);
                state.published.1 = published;
                self.note_progress(&state);
                state.tables_read = true;
                state.close(info, behind, checkpoint);
                self.changed.notify_all();
            }
            LeadMessage::Ended => {
                let mut state = self.state();
                state.stop();
                state.over = true;
                self.changed.notify_all();
            }
            LeadMessage::GivesUp(failure) => {
                let mut state = self.state();
                state.note_error(LiveError::Follower { process: 0, failure });
                state.stop();
                self.changed.notify_all();
            }
            LeadMessage::Done(end) => {
                let mut state = self.state();
                if let Some(failure) = end.failure.clone().filter(|failure| failure.gives_up) {
                    state.note_error(LiveError::Follower { process: 0, failure });
                }
                state.stop();
                state.over = true;
                state.following.done = Some(end);
                self.changed.notify_all();
            }
        }
        Ok(())
    }

    /// Waits for something that the coordinator has to hear, for at most `most`; then a [`FollowMessage::Beat`] is due.
    /// Returns `None` once everything is reported after [`report_no_more`](Self::report_no_more).
    pub fn report(&self, most: Duration) -> Option<FollowMessage> {
        let place = self.options.place;
        let until = Instant::now() + most;
        let mut state = self.state();
        loop {
            let answered = state.answered.iter().copied().min().unwrap_or(0);
            if answered > state.following.reported {
                state.following.reported = answered;
                let readers = state.additions.len();
                let is_ours = |index: &usize| place.reader(*index, readers).is_some();
                let own: Vec<usize> = (0..state.partitions.len()).filter(is_ours).collect();
                let lanes = mem::take(&mut state.checkpoint.lanes).into_iter().enumerate();
                return Some(FollowMessage::Answer(FollowerAnswer {
                    cut: answered,
                    reached: own.iter().map(|index| (*index, state.reached[*index])).collect(),
                    minutes: mem::take(&mut state.minutes).into_iter().collect(),
                    lags: own.iter().filter_map(|index| Some((*index, state.lags[*index]?))).collect(),
                    lanes: lanes.filter(|(index, lane)| is_ours(index) && lane.is_some()).collect(),
                }));
            }
            let status = state.status_of_follower();
            if state.following.status.is_outdated(&status) {
                state.following.status = status.clone();
                return Some(FollowMessage::Status(status));
            }
            if state.following.is_done {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(FollowMessage::Beat);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets [`report`](Self::report) end, once everything so far is reported.
    pub fn report_no_more(&self) {
        self.state().following.is_done = true;
        self.changed.notify_all();
    }

    /// Waits until the coordinator says that the job is done. Returns how it ended.
    pub fn wait_until_done(&self) -> JobEnd {
        let state = self.state();
        let state = self
            .changed
            .wait_while(state, |state| state.following.done.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.following.done.clone().unwrap_or_default()
    }

    /// Returns whether the coordinator has said that the job is done. Then the end of its link is no loss.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state().following.done.is_some()
    }
}

impl FollowerStatus {
    /// Returns whether the coordinator has to hear of a newer status.
    fn is_outdated(&self, newer: &Self) -> bool {
        let events = |status: &Self| status.open_events / NEWS_EVENTS;
        let heeded = |status: &Self| {
            let Self { cut, at_ceiling, computed, stopping, failure, .. } = status.clone();
            (at_ceiling.then_some(cut), computed, stopping, failure)
        };
        heeded(self) != heeded(newer)
            || events(newer) > 0 && (self.open, events(self)) != (newer.open, events(newer))
    }
}

impl LiveState {
    fn status_of_follower(&self) -> FollowerStatus {
        FollowerStatus {
            cut: self.cut,
            open: self.open,
            open_events: self.open_events,
            at_ceiling: self.at_ceiling,
            computed: self.computed(),
            stopping: self.is_told,
            failure: self.error.as_deref().map(JobFailure::from),
        }
    }

    /// Returns whether this process follows, and has answered and computed everything.
    pub(super) fn waits_for_leader(&self) -> bool {
        self.following.is_following && self.is_answered() && self.computed().0 >= self.closed_count
    }

    /// Returns whether the coordinator has to hear how many events the open tick has.
    pub(super) fn is_news_of_events(&self) -> bool {
        let FollowerStatus { open, open_events, .. } = self.following.status;
        let known = if open == self.open { open_events } else { 0 };
        self.following.is_following && self.open_events / NEWS_EVENTS != known / NEWS_EVENTS
    }
}
