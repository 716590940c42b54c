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
//! Limits: [`WAITING`] answers without a reply; [`SHOWN`] actions and as many incidents in a list.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keytide_alerts::actions::{
    ActionMemory, ActionRecord, Decided, IncidentSignal, KnownIncident, KnownIncidents, Reply,
};
use keytide_connectors::live::{LiveError, TableFeed};
use keytide_connectors::sink::encode::time;
use keytide_connectors::tables::{TablesMemory, TablesRead};
use keytide_dataflow::model::EventTime;
use keytide_dataflow::{
    ActionId, ActionInput, AnswerTarget, GatewayOutcome, GatewayReport, IncidentId, PersonAnswer, Revocation,
    SuspectedLeak, Verb,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Clock;

/// The most inputs that are taken at once.
const POLL_INPUTS: usize = 1_024;
/// The most answers that wait for their replies.
const WAITING: usize = 1_024;
/// The most actions that a list shows, the newest, and the most incidents.
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
    /// The gateways whose actions are held until one that a person approved was seen to work, by name.
    pub on_probation: Vec<String>,
    /// The keys that are muted, by name.
    pub muted: Vec<MutePage>,
    /// Actions by time, the newest first.
    pub actions: Vec<ActionPage>,
}

/// A muted key as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutePage {
    pub key_id: String,
    pub until: String,
    pub decided: DecidedPage,
}

/// An incident as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentPage {
    pub incident_id: String,
    pub key_id: String,
    pub level: String,
    pub score: u8,
    pub state: String,
    pub opened_at: String,
    pub ended_at: Option<String>,
    /// The last entry of the log, when it was written, and why if it withdrew the incident.
    pub transition: String,
    pub at: String,
    pub reason: Option<String>,
    pub signals: Vec<SignalPage>,
    /// The person who dismissed it last.
    pub dismissed: Option<DecidedPage>,
    /// The actions that it led to, of those in the list of actions.
    pub actions: Vec<ActionPage>,
}

/// A signal of an incident as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalPage {
    pub signal: String,
    pub bits: f64,
    pub expected: f64,
    pub seen: u64,
}

/// The newest incidents of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct IncidentsPage {
    /// Incidents by their last transition, the newest first.
    pub incidents: Vec<IncidentPage>,
}

/// A key about which a person answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPage {
    pub key_id: String,
    pub muted_until: Option<String>,
    /// The newest incident of a key of that name.
    pub incident: Option<IncidentPage>,
}

/// What people may ask for, as of the last tick that is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct BoardContent {
    pub(super) actions: ActionsPage,
    pub(super) incidents: KnownIncidents,
    /// What each action is about.
    pub(super) leaks: HashMap<ActionId, SuspectedLeak>,
    /// The actions that are requested, each with its gateway.
    pub(super) requested: HashMap<ActionId, String>,
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

impl SignalPage {
    fn of(IncidentSignal { signal, bits, expected, seen }: &IncidentSignal) -> Self {
        let (bits, expected) = (f64::from(*bits) / 1_000.0, *expected as f64 / 1_000.0);
        Self { signal: signal.name().to_owned(), bits, expected, seen: *seen }
    }
}

impl BoardContent {
    pub(super) fn of(memory: &ActionMemory) -> Self {
        let mut newest: Vec<&ActionRecord> = memory.actions().collect();
        let leak = |row: &Revocation| (row.id, SuspectedLeak { incident: row.incident, key: row.key });
        let leaks = newest.iter().map(|record| leak(&record.row)).collect();
        newest.sort_by_key(|record| Reverse((record.row.at_ms, record.row.id)));
        newest.truncate(SHOWN);
        let muted = memory.muted().map(|(key_id, mute)| MutePage {
            key_id: key_id.to_owned(),
            until: time(mute.until_ms),
            decided: DecidedPage::of(&mute.decided),
        });
        let actions = ActionsPage {
            paused: memory.paused().map(DecidedPage::of),
            on_probation: memory.on_probation().map(str::to_owned).collect(),
            muted: muted.collect(),
            actions: newest.into_iter().map(ActionPage::of).collect(),
        };
        Self { actions, incidents: memory.incidents().clone(), leaks, requested: HashMap::new() }
    }

    /// Returns the incidents with the newest transitions.
    pub(super) fn incidents(&self) -> IncidentsPage {
        let newest = self.incidents.newest().take(SHOWN);
        IncidentsPage { incidents: newest.map(|(id, known)| self.page_of(id, known)).collect() }
    }

    pub(super) fn incident(&self, id: IncidentId) -> Option<IncidentPage> {
        self.incidents.get(id).map(|known| self.page_of(id, known))
    }

    /// Returns a key by its name in views, with its newest incident.
    pub(super) fn key(&self, key_id: &str) -> KeyPage {
        let mute = self.actions.muted.iter().find(|mute| mute.key_id == key_id);
        let incident = self.incidents.newest().find(|(_, known)| known.key_id == key_id);
        KeyPage {
            key_id: key_id.to_owned(),
            muted_until: mute.map(|mute| mute.until.clone()),
            incident: incident.map(|(id, known)| self.page_of(id, known)),
        }
    }

    /// Returns an action as the target of an answer, if there is one.
    pub(super) fn target_of_action(&self, id: ActionId) -> Option<AnswerTarget> {
        self.leaks.get(&id).map(|leak| AnswerTarget::Action(id, *leak))
    }

    /// Returns an incident as the target of an answer, if there is one.
    pub(super) fn target_of_incident(&self, id: IncidentId) -> Option<AnswerTarget> {
        let known = self.incidents.get(id)?;
        Some(AnswerTarget::Incident(SuspectedLeak { incident: id, key: known.key }))
    }

    fn page_of(&self, id: IncidentId, known: &KnownIncident) -> IncidentPage {
        let incident_id = id.to_string();
        let is_of = |action: &&ActionPage| action.incident_id == incident_id;
        let actions = self.actions.actions.iter().filter(is_of).cloned().collect();
        IncidentPage {
            key_id: known.key_id.clone(),
            level: known.severity.name().to_owned(),
            score: known.score,
            state: known.state.name().to_owned(),
            opened_at: time(known.opened_ms),
            ended_at: known.ended_ms.map(time),
            transition: known.change.name().to_owned(),
            at: time(known.at_ms),
            reason: known.reason.map(|reason| reason.name().to_owned()),
            signals: known.signals.iter().map(SignalPage::of).collect(),
            dismissed: known.dismissed.as_ref().map(DecidedPage::of),
            actions,
            incident_id,
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
    /// `None` until a tick is committed that no earlier life had committed.
    content: Option<Arc<BoardContent>>,
}

impl ActionBoard {
    /// Makes a board whose answers go to `inputs`. Requests are numbered from `first`, which must differ from those of
    /// earlier lives of the job: their answers come again when ticks are made again.
    pub(super) fn new(clock: Clock, inputs: Sender<ActionInput>, first: u64) -> Self {
        let state = BoardState { next: first, waiting: HashMap::new(), content: None };
        Self(Arc::new(Board { clock, inputs, state: Mutex::new(state) }))
    }

    /// Returns what people may ask for, as of the last tick that is committed. `None` while the job makes the ticks of an
    /// earlier life again: what was right after one of those was decided about since.
    pub(super) fn content(&self) -> Option<Arc<BoardContent>> {
        self.state().content.clone()
    }

    /// Takes an answer, whose reply comes with its tick. A key is muted for `mute_ms` from now on. `None` if too many
    /// wait, or if the job has ended.
    pub(super) fn answer(
        &self,
        who: &str,
        (verb, target, mute_ms): (Verb, AnswerTarget, EventTime),
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
        let until_ms = if verb == Verb::Mute { at_ms.saturating_add(mute_ms) } else { 0 };
        let answer = PersonAnswer { request, verb, target, until_ms, who: who.to_owned(), why, at_ms };
        // The reply can't come before the sender is noted, since that takes the lock.
        self.0.inputs.send(ActionInput::Answer(answer)).ok()?;
        state.waiting.insert(request, sender);
        Some(receiver)
    }

    /// Takes a gateway's report of an action. Returns false, and changes nothing, if none of that id is requested of it.
    pub(super) fn report(&self, gateway: &str, action: ActionId, outcome: GatewayOutcome) -> bool {
        let content = self.content();
        let of = content.as_ref().and_then(|content| content.requested.get(&action));
        let is_requested = of.is_some_and(|of| of == gateway);
        let at_ms = (self.0.clock)();
        let report = GatewayReport { action, gateway: gateway.to_owned(), outcome, at_ms };
        is_requested && self.0.inputs.send(ActionInput::Report(report)).is_ok()
    }

    /// Shows what a committed tick changed, and replies to the answers in it.
    pub(super) fn publish(&self, content: Option<Arc<BoardContent>>, replies: Vec<(u64, Reply)>) {
        let mut state = self.state();
        if content.is_some() {
            state.content = content;
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

    /// An answer about the policy as a whole.
    fn pause(verb: Verb) -> (Verb, AnswerTarget, EventTime) {
        (verb, AnswerTarget::Policy, 0)
    }

    #[test]
    fn a_reply_reaches_the_request_of_its_number_and_no_other() {
        let (inputs, received) = channel();
        let board = ActionBoard::new(|| 17, inputs, u64::MAX);
        let mut one = board.answer("alice", pause(Verb::Pause), "storm".to_owned()).unwrap();
        let mute = (Verb::Mute, AnswerTarget::Key("partner".to_owned()), 5);
        let mut other = board.answer("bob", mute, "a load test".to_owned()).unwrap();
        let said: Vec<(u64, EventTime)> = received
            .try_iter()
            .map(|input| match input {
                ActionInput::Answer(answer) => {
                    assert_eq!(answer.at_ms, 17);
                    (answer.request, answer.until_ms)
                }
                ActionInput::Report(_) => panic!("people answer"),
            })
            .collect();
        assert_eq!(said, [(u64::MAX, 0), (0, 22)]);
        assert!(board.content().is_none());
        let content = Arc::new(BoardContent::default());
        board.publish(Some(Arc::clone(&content)), vec![(5, Reply::Unknown), (0, Reply::Unknown)]);
        assert_eq!(other.try_recv(), Ok(Reply::Unknown));
        assert!(one.try_recv().is_err());
        assert!(Arc::ptr_eq(&board.content().unwrap(), &content));
        // Nobody waits for ever in a job that has ended.
        drop(received);
        assert!(board.answer("alice", pause(Verb::Resume), "over".to_owned()).is_none());
    }

    #[test]
    fn answers_that_wait_are_bounded_and_those_that_gave_up_make_room() {
        let (inputs, _received) = channel();
        let board = ActionBoard::new(|| 0, inputs, 0);
        let answer = || board.answer("alice", pause(Verb::Pause), "storm".to_owned());
        let mut waiting: Vec<_> = (0..WAITING).map(|_| answer().unwrap()).collect();
        assert!(answer().is_none());
        waiting.pop();
        assert!(answer().is_some());
    }
}
