//! The way of people's answers and gateways' reports into ticks, and of the replies back.
//!
//! ```text
//! HTTP ── PersonAnswer ───┐
//!                         ├─► ActionFeed ──► reader of the tables ──► tick, recorded ──► publisher ──► actions
//! gateway ── report ──────┘                                                                   │
//! HTTP ◄── reply, newest rows ◄── ActionBoard ◄── once the tick is committed ◄────────────────┘
//! ```
//! A person gets a reply when the answer's tick is committed: from then on a crash can't undo it.
//!
//! Limits: [`WAITING`] answers without a reply, [`SHOWN`] actions on the board.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keytide_alerts::actions::{ActionMemory, ActionRecord, Decided, Reply};
use keytide_connectors::live::{LiveError, TableFeed};
use keytide_connectors::sink::encode::time;
use keytide_connectors::tables::{TablesMemory, TablesRead};
use keytide_dataflow::{ActionId, ActionInput, PersonAnswer, Revocation, Verb};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Clock;

/// The most inputs that are taken at once.
const POLL_INPUTS: usize = 1_024;
/// The most answers that wait for their replies.
const WAITING: usize = 1_024;
/// The most actions that are shown, the newest.
const SHOWN: usize = 1_000;

/// Reads what is said about actions, beside the tables.
pub(super) struct ActionFeed(Receiver<ActionInput>);

impl ActionFeed {
    pub(super) fn new(inputs: Receiver<ActionInput>) -> Self {
        Self(inputs)
    }
}

impl TableFeed for ActionFeed {
    fn poll(&mut self, _: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        read.inputs.extend(self.0.try_iter().take(POLL_INPUTS));
        Ok(())
    }

    fn is_complete(&self) -> bool {
        true
    }

    /// Remembers nothing: the actions themselves are in the checkpoint.
    fn remember(&self, _: &mut TablesMemory) {}
}

/// An action as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionPage {
    pub action_id: String,
    pub key_id: String,
    pub incident_id: String,
    pub action: String,
    pub state: String,
    pub reason: String,
    pub at: String,
    pub gateway: Option<String>,
    pub decided: Option<DecidedPage>,
}

/// A person's decision as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedPage {
    pub verb: String,
    pub who: String,
    pub at: String,
}

/// Why an answer wasn't taken, or an action isn't there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRefusal {
    pub error: String,
    /// The state of an action that is decided.
    pub state: Option<String>,
    /// The person who decided about it.
    pub by: Option<DecidedPage>,
}

/// The newest actions of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionsPage {
    /// The person who paused actions, if somebody did.
    pub paused: Option<DecidedPage>,
    /// Actions by time, the newest first.
    pub actions: Vec<ActionPage>,
}

impl DecidedPage {
    pub(super) fn of(Decided { verb, who, at_ms }: &Decided) -> Self {
        Self { verb: verb.name().to_owned(), who: who.clone(), at: time(*at_ms) }
    }
}

impl ActionPage {
    fn of(ActionRecord { row, decided, gateway, .. }: &ActionRecord) -> Self {
        let decided = decided.as_ref().map(DecidedPage::of);
        Self { gateway: gateway.clone(), decided, ..Self::of_row(row) }
    }

    /// Returns an action by its row alone.
    pub(super) fn of_row(row: &Revocation) -> Self {
        Self {
            action_id: row.id.to_string(),
            key_id: row.key_id.clone(),
            incident_id: row.incident.to_string(),
            action: row.action.name().to_owned(),
            state: row.state.name().to_owned(),
            reason: row.reason.clone(),
            at: time(row.at_ms),
            gateway: None,
            decided: None,
        }
    }
}

impl ActionsPage {
    /// Returns the newest actions of a memory.
    pub(super) fn of(memory: &ActionMemory) -> Self {
        let mut newest: Vec<&ActionRecord> = memory.actions().collect();
        newest.sort_by_key(|record| Reverse((record.row.at_ms, record.row.id)));
        newest.truncate(SHOWN);
        Self {
            paused: memory.paused().map(DecidedPage::of),
            actions: newest.into_iter().map(ActionPage::of).collect(),
        }
    }
}

/// Shows actions to people, and takes their answers.
#[derive(Clone, Debug)]
pub struct ActionBoard(Arc<Board>);

#[derive(Debug)]
struct Board {
    clock: Clock,
    inputs: Sender<ActionInput>,
    state: Mutex<BoardState>,
}

#[derive(Debug)]
struct BoardState {
    /// The number of the next request.
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    page: Arc<ActionsPage>,
}

impl ActionBoard {
    /// Makes a board whose answers go to `inputs`. Requests are numbered from `first`, which must differ from those of
    /// earlier lives of the job: their answers come again when ticks are made again.
    pub(super) fn new(clock: Clock, inputs: Sender<ActionInput>, first: u64) -> Self {
        let state = BoardState { next: first, waiting: HashMap::new(), page: Arc::default() };
        Self(Arc::new(Board { clock, inputs, state: Mutex::new(state) }))
    }

    /// Returns the newest actions, as of the last tick that is committed.
    #[must_use]
    pub fn page(&self) -> Arc<ActionsPage> {
        Arc::clone(&self.state().page)
    }

    /// Takes an answer, whose reply comes with its tick. `None` if too many wait, or if the job has ended.
    pub(super) fn answer(
        &self,
        who: &str,
        verb: Verb,
        action: Option<ActionId>,
        why: String,
    ) -> Option<oneshot::Receiver<Reply>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        // Those who gave up waiting have dropped their ends.
        state.waiting.retain(|_, sender| !sender.is_closed());
        if state.waiting.len() >= WAITING {
            return None;
        }
        let request = state.next;
        state.next = request.wrapping_add(1);
        let at_ms = (self.0.clock)();
        let answer = PersonAnswer { request, verb, action, who: who.to_owned(), why, at_ms };
        // The reply can't come before the sender is noted, since that takes the lock.
        self.0.inputs.send(ActionInput::Answer(answer)).ok()?;
        state.waiting.insert(request, sender);
        Some(receiver)
    }

    /// Shows what a committed tick changed, and replies to the answers in it.
    pub(super) fn publish(&self, page: Option<Arc<ActionsPage>>, replies: Vec<(u64, Reply)>) {
        let mut state = self.state();
        if let Some(page) = page {
            state.page = page;
        }
        for (request, reply) in replies {
            if let Some(sender) = state.waiting.remove(&request) {
                // Somebody who gave up waiting reads it from the page.
                let _ = sender.send(reply);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_reply_reaches_the_request_of_its_number_and_no_other() {
        let (inputs, received) = channel();
        let board = ActionBoard::new(|| 17, inputs, u64::MAX);
        let mut one = board.answer("alice", Verb::Pause, None, "storm".to_owned()).unwrap();
        let mut other = board.answer("bob", Verb::Approve, Some(ActionId(7)), "leaked".to_owned()).unwrap();
        let numbers: Vec<u64> = received
            .try_iter()
            .map(|input| match input {
                ActionInput::Answer(answer) => {
                    assert_eq!(answer.at_ms, 17);
                    answer.request
                }
                ActionInput::Report(_) => panic!("people answer"),
            })
            .collect();
        assert_eq!(numbers, [u64::MAX, 0]);
        let page = Arc::new(ActionsPage { paused: None, actions: Vec::new() });
        board.publish(Some(Arc::clone(&page)), vec![(5, Reply::Unknown), (0, Reply::Unknown)]);
        assert_eq!(other.try_recv(), Ok(Reply::Unknown));
        assert!(one.try_recv().is_err());
        assert!(Arc::ptr_eq(&board.page(), &page));
        // Nobody waits for ever in a job that has ended.
        drop(received);
        assert!(board.answer("alice", Verb::Resume, None, "over".to_owned()).is_none());
    }

    #[test]
    fn answers_that_wait_are_bounded_and_those_that_gave_up_make_room() {
        let (inputs, _received) = channel();
        let board = ActionBoard::new(|| 0, inputs, 0);
        let answer = || board.answer("alice", Verb::Pause, None, "storm".to_owned());
        let mut waiting: Vec<_> = (0..WAITING).map(|_| answer().unwrap()).collect();
        assert!(answer().is_none());
        waiting.pop();
        assert!(answer().is_some());
    }
}
