//! Actions on keys as states: what the policy asks for, what people answer, and what gateways report.
//!
//! ```text
//!            approve               report
//!   held ───────────► requested ──────────► done | failed       the policy may request at once
//!                                            │  calls with the key, some time later
//!                                            ▼
//!                                           confirmed | failed  all of them were refused, or one was answered
//!     │                   │                     │
//!     │ dismiss, tables,  │ dismiss, tables, reinstate          a suspension is lifted by an action of its own
//!     │ 24 hours          │
//!     ▼                   ▼                     ▼
//! withdrawn           withdrawn + reinstate: requested ──► done | failed
//! ```
//! It is a pure fold over the transitions of incidents, the answers and the reports, in the order of ticks. Within a
//! tick, answers and reports come first, in the order in which they are recorded, then transitions by time. The same
//! ticks give the same rows, and a replay of them asks for nothing twice.
//!
//! Why no key is acted on that must not be:
//! 1. An action is requested at most once, unless the gateway refused the job's credentials: then it is held again, and a
//!    person may approve it anew. So a gateway acts for it once, and after a crash it is called at most once more.
//! 2. The policy requests at most what its breakers let pass, of the job and of each gateway. Everything else waits for a
//!    person. So does everything in a pause.
//! 3. A key is suspended first. Only a suspended key is revoked: by a person, or if its plan says `revoke`.
//! 4. A key that is denied already is never suspended again, on account of whatever incident.
//! 5. If a suspension is lifted while its gateway may be at it, the lifting is requested after it, of the same gateway.
//!    So whatever came before, the key ends let in.
//!
//! An incident that a person dismisses takes its held actions with it, and its suspension is lifted. If other signals open it
//! again, each of its actions is held. Mutes are remembered to be shown: it is the detector that heeds them.
//!
//! A gateway that acts for the first time, or with other settings, is on probation: all of its actions are held until one
//! that a person approved was seen to work. What lets a key in again is never held.
//!
//! **Refused credentials.** A suspension that a gateway refused for want of rights is held again. That request changed nothing.
//! But an earlier one may have, if its answer was lost, or the process that waited for it. So the key stays denied, and
//! withdrawing the action lifts it. The gateway's other actions are held until one is done. Lifting and revoking are tried
//! again, as long as rights are missing: there is nothing to decide anew about them.
//!
//! A gateway whose last three actions failed gets no more of them but what a person approves, until one is done: a wrong
//! table or wrong rights would fail for every key.
//!
//! **The loop is closed** by the calls that gateways report. From `confirm_after` of its gateway after a key was suspended or
//! revoked its minutes are looked at. If a call was answered, the action failed: somebody put the key back, a cache has it,
//! or another gateway lets it in. If all calls were refused, it is confirmed. Without calls for a day it stays done.
//!
//! A key is denied from the moment at which its suspension is requested, until that is lifted. A failed suspension is
//! still denied: the row says what gateways are to refuse. A revoked key is denied for ever.
//!
//! Of several gateways the one acts that the key's row names. What follows a suspension is asked of the gateway that
//! suspended the key. Without a gateway in the mode `live` every action is held, and says what would have been done.
//!
//! Limits: 1,048,576 denied keys, beyond which everything is held; beside those in force, 65,536 actions of the last 32
//! days, of which the oldest are forgotten first; 10,000 incidents of the same time, and 10,000 mutes.

mod incidents;
mod probation;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{Gateway, GatewayCaps, GatewayKind, PolicyMode, PolicyRules};
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};
use keytide_dataflow::model::{EventTime, KeyId, KeyPlace, KeyState, NameId, Tick};
use keytide_dataflow::{
    Action, ActionId, ActionInput, ActionRows, ActionState, AnswerTarget, AuditEntry, Change, DenialState,
    DeniedKey, GatewayOutcome, GatewayReport, IncidentId, Owner, PersonAnswer, Reason, Revocation,
    SuspectedLeak, Transition, Verb,
};
use keytide_dataflow::{Level, OwnedUsage, Row, Usage};
use serde::{Deserialize, Serialize};

pub use self::incidents::{IncidentSignal, KnownIncident, KnownIncidents};
use self::probation::Probations;
use self::telling::GatewayWaits;
pub use self::telling::{ActionNotice, ActionNotices, GatewayNotice, LateAction};
use crate::policy::{MEMORY_MS, PolicyEngine, PolicyMemory};

/// The most actions that are remembered, beside those in force.
const MAX_ACTIONS: usize = 1 << 16;
/// The most keys that are denied.
const MAX_DENIED: usize = 1 << 20;
/// The failures of a gateway in a row after which its actions are held.
const FAILURES: u32 = 3;
/// How long an action is held, in ms of ticks. What nobody wanted in a day isn't done by mistake a week later.
const HELD_MS: u64 = DAY_MS;
/// How long calls are awaited that confirm it, in ms.
const CONFIRM_WITHIN_MS: u64 = DAY_MS;
/// Who confirms an action, or finds that it has failed.
const CALLS: &str = "calls";
/// The most mutes that are remembered.
const MAX_MUTED: usize = 10_000;
/// What the reason of an action begins with that is only shown.
const WOULD_HAVE: &str = "would have";
/// Separates the action in a reason from the cause of its being held.
const HELD: &str = "; held: ";
/// What the reason of an action begins with that failed.
const FAILED: &str = "failed: ";
/// Says why nothing is done without a gateway in the mode `live`.
const OFF: &str = "acting is off";
/// The target of audit entries that are about no action.
const POLICY: &str = "policy";
/// Who withdraws when a change of the tables explains an incident.
const TABLES: &str = "tables";
/// What the policy does when an incident asks for an action.
const DECIDE: &str = "decide";
/// What the reason of a reinstatement begins with that the tables ask for.
const BY_TABLES: &str = "the incident was withdrawn: ";
/// What it begins with if the suspension lapsed.
const BY_POLICY: &str = "the suspension is withdrawn: ";

/// Extracts from a row's reason why its action is held.
#[must_use]
pub fn held(reason: &str) -> &str {
    reason.split_once(HELD).map_or(reason, |(_, why)| why)
}

/// Extracts from a row's reason why its action failed.
#[must_use]
pub fn failed(reason: &str) -> &str {
    reason.strip_prefix(FAILED).unwrap_or(reason)
}

/// Returns whether a row's action was only shown, as acting was off.
#[must_use]
pub fn is_only_shown(reason: &str) -> bool {
    reason.starts_with(WOULD_HAVE)
}

/// A gateway of the job.
#[derive(Clone, Debug)]
struct KnownGateway {
    name: String,
    is_live: bool,
    /// True if the row of `denied` is all that it needs. Then an action is done with the tick that requests it.
    acts_at_once: bool,
    caps: GatewayCaps,
    /// How long after it was done a key may still be let in, in ms: gateways read lists and spread changes.
    confirm_after_ms: u64,
}

/// Folds transitions, answers and reports into actions.
#[derive(Clone, Debug)]
pub struct ActionEngine {
    policy: PolicyEngine,
    gateways: Vec<KnownGateway>,
    memory: ActionMemory,
    /// Minutes of keys whose action isn't confirmed, until the tick is folded.
    heard: Vec<(ActionId, Row<KeyId, OwnedUsage>)>,
    /// The end of the latest complete minute of any key that was heard of since the last tick.
    heard_until_ms: EventTime,
}

/// The state of an [`ActionEngine`], as checkpoints hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionMemory {
    policy: PolicyMemory,
    actions: BTreeMap<ActionId, ActionRecord>,
    /// Actions that were held, by the tick since which they are. Some are decided by now.
    held: BTreeSet<(Tick, ActionId)>,
    /// All actions, by the time after which they may be forgotten.
    by_time: BTreeSet<(EventTime, ActionId)>,
    denied: BTreeMap<KeyId, Denial>,
    /// Suspensions and revocations that are done and neither confirmed nor found to have failed, by key. Each has the time
    /// from which calls are to be refused.
    unconfirmed: BTreeMap<KeyId, (ActionId, EventTime)>,
    /// The failures of each gateway in a row, if its last action failed.
    failures: BTreeMap<String, u32>,
    /// The gateways that refused the job's credentials, and did nothing since.
    refusing: BTreeSet<String>,
    probations: Probations,
    paused: Option<Decided>,
    incidents: KnownIncidents,
    /// The keys that are muted, as views name them.
    muted: BTreeMap<String, KeyMute>,
    waits: GatewayWaits,
    /// The number of the next entry of the audit about the policy. The next field has that about keys.
    policy_seq: u64,
    keys_seq: u64,
    /// The latest event time of a transition.
    latest_ms: EventTime,
}

/// An action with what its next states need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The newest row of the view `revocations`.
    pub row: Revocation,
    /// The person who decided about it last, if one did.
    pub decided: Option<Decided>,
    /// The gateway that is to act, once it is requested.
    pub gateway: Option<String>,
    pub origin: ActionOrigin,
    /// The number of the next entry of its audit.
    seq: u64,
    /// True if it lifts a suspension because its incident was withdrawn.
    is_of_withdrawal: bool,
    /// The tick since which it is held, if it is.
    held_tick: Tick,
}

impl ActionRecord {
    /// Returns a number that grows with each request of the action.
    #[must_use]
    pub fn request(&self) -> u64 {
        self.seq
    }

    fn is_held_since(&self, tick: Tick) -> bool {
        self.row.state == ActionState::Held && self.held_tick == tick
    }
}

/// A key of which no incident is told for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMute {
    /// The event time at which it ends.
    pub until_ms: EventTime,
    pub decided: Decided,
}

/// What an action comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionOrigin {
    /// When the incident opened, in event time.
    opened_ms: EventTime,
    /// Where the key was, as the tables said when the key was to be suspended.
    pub place: KeyPlace,
    pub owner: Owner,
    /// The lists of the contacts of the key and of its subscription.
    pub contacts: [NameId; 2],
    /// The suspension that it lifts, or makes final.
    pub follows: Option<ActionId>,
}

/// The decision of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub verb: Verb,
    pub who: String,
    pub at_ms: EventTime,
}

/// The numbers of actions and keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCounts {
    /// Actions that wait for a person. Those that are only shown don't.
    pub held: u64,
    /// Actions that a gateway is to do.
    pub requested: u64,
    /// Actions of the last 32 days that a gateway couldn't do.
    pub failed: u64,
    /// Keys that gateways are to refuse, and keys that are muted.
    pub denied: u64,
    pub muted: u64,
    /// True while every action is held.
    pub is_paused: bool,
}

/// A key that gateways are to refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Denial {
    state: DenialState,
    since_ms: EventTime,
    incident: IncidentId,
    /// The suspension or revocation by which it is denied.
    action: ActionId,
    key_id: String,
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It did what was wanted, or the same answer did before. It has the row of the action that it was about.
    Accepted(Option<Revocation>),
    /// There is no such action, or no such incident.
    Unknown,
    /// The action is decided in another way.
    Decided {
        /// The state in which it is.
        state: ActionState,
        /// The person who decided, if it wasn't the policy.
        by: Option<Decided>,
    },
    /// It can't be done now, for this reason.
    Refused(&'static str),
}

/// What a tick changed, until its rows are made.
#[derive(Default)]
struct Changes {
    tick: Tick,
    actions: BTreeSet<ActionId>,
    /// Keys whose denial changed, with their names.
    keys: BTreeMap<KeyId, String>,
    audit: Vec<AuditEntry>,
}

/// Who changes something, how and why.
#[derive(Clone, Copy)]
struct Cause<'a> {
    who: &'a str,
    what: &'static str,
    why: &'a str,
    at_ms: EventTime,
}

impl ActionEngine {
    /// Creates an engine with an empty memory. Without one of `gateways` in the mode `live` it only says what would be
    /// done.
    #[must_use]
    pub fn new<'a>(rules: PolicyRules, gateways: impl IntoIterator<Item = &'a Gateway>) -> Self {
        Self::restore(rules, gateways, ActionMemory::default())
    }

    /// Creates an engine that continues from a saved memory. A gateway whose settings changed since is on probation again.
    #[must_use]
    pub fn restore<'a>(
        rules: PolicyRules,
        gateways: impl IntoIterator<Item = &'a Gateway>,
        mut memory: ActionMemory,
    ) -> Self {
        let gateways: Vec<&Gateway> = gateways.into_iter().collect();
        let live = gateways.iter().filter(|gateway| gateway.mode == PolicyMode::Live);
        let tried = live.filter_map(|gateway| Some((&*gateway.name, gateway.probation.as_deref()?)));
        memory.probations.begin(tried);
        let known = gateways.into_iter().map(|gateway| KnownGateway {
            name: gateway.name.clone(),
            is_live: gateway.mode == PolicyMode::Live,
            acts_at_once: matches!(gateway.kind, GatewayKind::Topic),
            caps: gateway.caps,
            confirm_after_ms: gateway.confirm_after_ms,
        });
        Self {
            policy: PolicyEngine::new(rules),
            gateways: known.collect(),
            memory,
            heard: Vec::new(),
            heard_until_ms: 0,
        }
    }

    /// Returns the actions that a gateway is to do.
    pub fn requested_of(&self, gateway: &str) -> impl Iterator<Item = &ActionRecord> {
        let requested = self.memory.actions.values();
        requested.filter(move |record| {
            record.row.state == ActionState::Requested
                && self.acting(record).is_some_and(|acting| acting.name == gateway)
        })
    }

    /// Returns the gateway that has the keys at a place: the one that their row names, or the only one.
    fn gateway_at(&self, place: KeyPlace) -> Option<&KnownGateway> {
        match &self.gateways[..] {
            [only] if !place.gateway.is_some() => Some(only),
            all => all.iter().find(|gateway| NameId::new(&gateway.name) == place.gateway),
        }
    }

    /// Returns the gateway that acts on keys at a place. `None` if it isn't `live`.
    fn acting_at(&self, place: KeyPlace) -> Option<&KnownGateway> {
        self.gateway_at(place).filter(|gateway| gateway.is_live)
    }

    /// Returns the gateway that is to do an action: the one of which it was requested, as long as the job has it.
    fn acting(&self, record: &ActionRecord) -> Option<&KnownGateway> {
        let of_before = self.gateways.iter().find(|gateway| Some(&gateway.name) == record.gateway.as_ref());
        match of_before {
            Some(gateway) => Some(gateway).filter(|gateway| gateway.is_live),
            None => self.acting_at(record.origin.place),
        }
    }

    /// Returns why no gateway acts on keys at a place.
    fn idle(&self, place: KeyPlace) -> &'static str {
        let is_known = self.gateways.iter().any(|gateway| NameId::new(&gateway.name) == place.gateway);
        match (self.gateways.iter().any(|gateway| gateway.is_live), place.gateway.is_some()) {
            (true, true) if !is_known => "the table of keys names a gateway that the job doesn't have",
            (true, false) if self.gateways.len() > 1 => {
                "there are several gateways, and the table of keys names none"
            }
            _ => OFF,
        }
    }

    /// Returns the memory, for a checkpoint.
    #[must_use]
    pub fn memory(&self) -> &ActionMemory {
        &self.memory
    }

    /// Folds a tick, which is 0 in a run in which nothing waits for anybody. `key_id` returns the name of a key in views.
    /// Returns the rows that changed, and a reply to each answer by the number of its request.
    pub fn fold(
        &mut self,
        tick: Tick,
        inputs: &[ActionInput],
        transitions: &[Transition],
        key_id: &dyn Fn(KeyId) -> String,
    ) -> (ActionRows, Vec<(u64, Reply)>) {
        let mut changes = Changes { tick, ..Changes::default() };
        let mut replies = Vec::new();
        for input in inputs {
            match input {
                ActionInput::Answer(answer) => {
                    replies.push((answer.request, self.answer(answer, &mut changes)));
                }
                ActionInput::Report(report) => self.report(report, &mut changes),
            }
        }
        self.confirm(&mut changes);
        let mut ordered: Vec<&Transition> = transitions.iter().collect();
        ordered.sort_unstable_by_key(|transition| transition.order());
        for transition in ordered {
            self.memory.latest_ms = self.memory.latest_ms.max(transition.at_ms);
            self.memory.policy.forget(transition.at_ms.saturating_sub(MEMORY_MS));
            self.memory.incidents.note(transition, key_id);
            match transition.change {
                Change::Withdrawn => self.explained(transition, inputs, &mut changes),
                Change::Opened | Change::Raised | Change::Reopened => {
                    self.decide(transition, key_id, &mut changes);
                }
                Change::Updated | Change::Ended => {}
            }
        }
        self.void_held(&mut changes);
        self.memory.forget();
        (changes.rows(&self.memory), replies)
    }

    /// Takes in the rows of `usage` of the tick that is folded next, in their order.
    pub fn hear(&mut self, usage: &[Row<KeyId, OwnedUsage>]) {
        if self.memory.unconfirmed.is_empty() {
            return;
        }
        let complete = usage.iter().filter(|row| row.level == Level::Minute && row.complete);
        let until_ms = complete.map(|row| row.start + MINUTE_MS).max().unwrap_or_default();
        self.heard_until_ms = self.heard_until_ms.max(until_ms);
        for (key, (action, from_ms)) in &self.memory.unconfirmed {
            let first = usage.partition_point(|row| row.group < *key);
            let of_key = usage[first..].iter().take_while(|row| row.group == *key);
            let minutes = of_key.filter(|row| row.level == Level::Minute && row.start >= *from_ms);
            self.heard.extend(minutes.map(|row| (*action, row.clone())));
        }
    }

    /// Decides by the calls that were heard of whether a key is really refused.
    fn confirm(&mut self, changes: &mut Changes) {
        for (id, row) in std::mem::take(&mut self.heard) {
            let Usage { calls, errors_4xx, errors_5xx, free_calls, .. } = row.value.usage;
            let answered = calls.saturating_sub(errors_4xx + errors_5xx);
            let Some(record) = self.memory.actions.get_mut(&id) else { continue };
            let is_open = self.memory.unconfirmed.get(&record.row.key).is_some_and(|(of, _)| *of == id);
            // More calls of a minute that isn't complete may come, and may have been answered. A gateway throttles keys
            // that it knows, so calls that are free for that reason show nothing.
            let is_refused = errors_4xx > free_calls && row.complete;
            if !is_open || record.row.state != ActionState::Done || answered == 0 && !is_refused {
                continue;
            }
            self.memory.unconfirmed.remove(&record.row.key);
            let at_ms = row.start + MINUTE_MS;
            if answered > 0 {
                let why = format!("still answered: {answered} of {calls} calls in a minute");
                record.row.reason = format!("{FAILED}{why}");
                let cause = Cause { who: CALLS, what: "failed", why: &why, at_ms };
                changes.turn(record, ActionState::Failed, cause);
            } else {
                let why = format!("refused: {errors_4xx} of {calls} calls in a minute");
                let cause = Cause { who: CALLS, what: "confirmed", why: &why, at_ms };
                changes.turn(record, ActionState::Confirmed, cause);
            }
            if let Some(gateway) = record.gateway.clone() {
                let state = record.row.state;
                self.memory.note_outcome(&gateway, state);
                if state == ActionState::Confirmed && self.memory.probations.confirmed(&gateway, id) {
                    let why = "an action that a person approved is confirmed";
                    let cause = Cause { who: CALLS, what: "end_probation", why, at_ms };
                    changes.note_of_gateway(gateway, &mut self.memory.policy_seq, cause);
                }
            }
        }
        self.end_watches(changes);
    }

    /// Forgets what no call confirmed for a day: it stays done. The day is one of calls that were heard of: while the job is
    /// away, or no gateway reports, nothing shows that a key is refused.
    fn end_watches(&mut self, changes: &mut Changes) {
        let heard_until_ms = std::mem::take(&mut self.heard_until_ms);
        let before_ms = heard_until_ms.saturating_sub(CONFIRM_WITHIN_MS);
        let mut ended = Vec::new();
        self.memory.unconfirmed.retain(|_, (id, from_ms)| {
            let is_open = *from_ms >= before_ms;
            if !is_open {
                ended.push(*id);
            }
            is_open
        });
        for id in ended {
            let gateway = self.memory.actions.get(&id).and_then(|record| record.gateway.clone());
            if let Some(gateway) = gateway.filter(|name| self.memory.probations.uncontradicted(name, id)) {
                let why = "no call contradicted the actions that a person approved";
                let cause = Cause { who: POLICY, what: "end_probation", why, at_ms: changes.tick };
                changes.note_of_gateway(gateway, &mut self.memory.policy_seq, cause);
            }
        }
    }

    /// Lets the policy decide about a transition.
    fn decide(&mut self, transition: &Transition, key_id: &dyn Fn(KeyId) -> String, changes: &mut Changes) {
        let Transition { incident, at_ms, .. } = transition;
        let Some(of_table) = transition.key_state else { return };
        let state = match self.memory.denied.get(&incident.key) {
            None => of_table,
            // A table may not know yet of an action that was taken.
            Some(denial) => match denial.state {
                DenialState::Revoked => KeyState::Revoked,
                // Nothing follows a suspension that isn't done.
                DenialState::Suspended if self.memory.is_done(denial.action) => {
                    of_table.max(KeyState::Suspended)
                }
                DenialState::Suspended => return,
            },
        };
        let Some(action) = self.policy.action(transition, state) else { return };
        let id = ActionId::new(incident.id, action, self.memory.round(incident.id));
        // An incident asks once for the same. What the tables withdrew before it was requested may be asked for again.
        // So may what a person dismissed or accepted: then other signals opened the incident.
        let is_asked = |record: &ActionRecord| {
            let is_other = |decided: &&Decided| !matches!(decided.verb, Verb::Dismiss | Verb::Accept);
            let decided = record.decided.as_ref().filter(is_other);
            record.row.state != ActionState::Withdrawn || decided.is_some() || record.gateway.is_some()
        };
        if self.memory.actions.get(&id).is_some_and(is_asked) {
            return;
        }
        let dismissed = self.memory.incidents.get(incident.id).and_then(|known| known.dismissed.as_ref());
        let of_key = self.gateway_at(transition.place);
        let held = match (&self.memory.paused, dismissed) {
            (Some(Decided { who, .. }), _) => Some(format!("{who} paused actions")),
            (None, Some(Decided { who, .. })) => Some(format!("{who} dismissed the incident before")),
            (None, None) if self.memory.denied.len() >= MAX_DENIED => {
                Some(format!("{MAX_DENIED} keys are denied, the most that there can be"))
            }
            (None, None) => {
                let gateway = of_key.map(|gateway| (&*gateway.name, gateway.caps));
                self.policy.held(&self.memory.policy, transition, gateway)
            }
        };
        let acting = of_key.filter(|gateway| gateway.is_live);
        let refusing = acting.filter(|acting| self.memory.refusing.contains(&acting.name));
        let held =
            held.or_else(|| Some(format!("the gateway {} refused the job's credentials", refusing?.name)));
        let failing = acting.filter(|acting| self.memory.failures.get(&acting.name) >= Some(&FAILURES));
        let held = held.or_else(|| {
            let name = &failing?.name;
            Some(format!("the last {FAILURES} actions of the gateway {name} failed"))
        });
        let held = held.or_else(|| {
            let name = &acting.filter(|acting| self.memory.probations.holds(&acting.name))?.name;
            Some(format!(
                "the gateway {name} is on probation until an action that a person approved is confirmed"
            ))
        });
        let (done, doing) = match action {
            Action::Suspend => ("suspended", "suspending"),
            Action::Revoke => ("revoked", "revoking"),
            Action::Reinstate => ("reinstated", "reinstating"),
        };
        let acts = acting.is_some();
        let idle = self.idle(transition.place);
        let reason = match (&held, acts) {
            (None, false) => format!("{WOULD_HAVE} {done} the key{HELD}{idle}"),
            (None, true) => format!("{doing} the key, as its policy says"),
            (Some(why), false) => {
                format!("{WOULD_HAVE} asked a person before {doing} the key{HELD}{why}; {idle}, too")
            }
            (Some(why), true) => format!("asks a person before {doing} the key{HELD}{why}"),
        };
        if held.is_none() {
            let gateway = of_key.map(|gateway| gateway.name.clone());
            self.memory.policy.acts(gateway.as_deref(), incident.key, incident.opened_ms, *at_ms);
        }
        let row = Revocation {
            id,
            key: incident.key,
            key_id: key_id(incident.key),
            incident: incident.id,
            action,
            state: ActionState::Held,
            reason: reason.clone(),
            at_ms: *at_ms,
        };
        let cause = Cause { who: POLICY, what: DECIDE, why: &reason, at_ms: *at_ms };
        let denial = self.memory.denied.get(&incident.key).map(|denial| denial.action);
        let follows = denial.filter(|_| action == Action::Revoke);
        let origin = ActionOrigin {
            opened_ms: incident.opened_ms,
            place: transition.place,
            owner: incident.owner,
            contacts: [transition.contact, transition.contacts],
            follows,
        };
        self.create(row, origin, held.is_none() && acts, cause, changes);
    }

    /// Withdraws the actions about which nobody decided in time. Without a gateway that acts nobody can.
    fn void_held(&mut self, changes: &mut Changes) {
        let Some(before) = changes.tick.checked_sub(HELD_MS) else { return };
        let why = "nobody decided about it within a day";
        let cause = Cause { who: POLICY, what: "void", why, at_ms: changes.tick };
        while let Some(&(since, id)) = self.memory.held.first()
            && since <= before
        {
            self.memory.held.pop_first();
            // It may have been decided since, and have been asked for again.
            let is_due = |record: &ActionRecord| record.is_held_since(since) && self.acting(record).is_some();
            if !self.memory.actions.get(&id).is_some_and(is_due) {
                continue;
            }
            // The gateway may have it from a request before the one that it refused.
            if self.memory.is_suspended_by(id) {
                let lifting = self.lift(id, None, cause, changes);
                self.memory.lifts_for_now(lifting);
            } else {
                self.withdraw(id, cause, changes);
            }
        }
    }

    /// Withdraws all actions of an incident that a change of the tables explains, or a person.
    fn explained(&mut self, transition: &Transition, inputs: &[ActionInput], changes: &mut Changes) {
        let incident = &transition.incident;
        let accepts = |answer: &&PersonAnswer| {
            answer.verb == Verb::Accept && answer.decisions().any(|decision| decision.key == incident.key)
        };
        let mut answers = inputs.iter().filter_map(|input| match input {
            ActionInput::Answer(answer) => Some(answer),
            ActionInput::Report(_) => None,
        });
        // What was dismissed took its actions with it when the answer came.
        let person = answers.rfind(accepts).filter(|_| transition.reason == Some(Reason::Accepted));
        match person {
            Some(PersonAnswer { verb, who, why, at_ms, .. }) => {
                let cause = Cause { who, what: verb.name(), why, at_ms: *at_ms };
                let decided = Decided { verb: *verb, who: who.clone(), at_ms: *at_ms };
                self.withdraw_all(incident.id, Some(&decided), cause, changes);
            }
            None => {
                let why = transition.reason.map_or("the tables changed", |reason| reason.name());
                let cause = Cause { who: TABLES, what: "withdraw", why, at_ms: transition.at_ms };
                self.withdraw_all(incident.id, None, cause, changes);
            }
        }
    }

    /// Withdraws all actions of an incident, and lifts its suspension.
    fn withdraw_all(
        &mut self,
        incident: IncidentId,
        decided: Option<&Decided>,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) {
        let round = self.memory.round(incident);
        for action in [Action::Suspend, Action::Revoke] {
            let id = ActionId::new(incident, action, round);
            let Some(record) = self.memory.actions.get(&id) else { continue };
            let is_suspended = self.memory.is_suspended_by(id);
            if record.row.state == ActionState::Held && !is_suspended {
                self.withdraw(id, cause, changes);
                if let Some(decided) = decided {
                    self.memory.decide(id, decided.clone());
                }
            } else if is_suspended {
                let lifting = self.lift(id, decided.cloned(), cause, changes);
                self.memory.lifts_for_now(lifting);
            }
        }
    }

    /// Takes a person's answer, and returns the reply to it.
    fn answer(&mut self, answer: &PersonAnswer, changes: &mut Changes) -> Reply {
        let PersonAnswer { verb, target, until_ms, who, why, at_ms, .. } = answer;
        let decided = Decided { verb: *verb, who: who.clone(), at_ms: *at_ms };
        let cause = Cause { who, what: verb.name(), why, at_ms: *at_ms };
        match (verb, target) {
            (Verb::Pause | Verb::Resume, AnswerTarget::Policy) => {
                let is_pause = *verb == Verb::Pause;
                if self.memory.paused.is_some() != is_pause {
                    self.memory.paused = is_pause.then_some(decided);
                    changes.note_other(POLICY.to_owned(), &mut self.memory.policy_seq, cause);
                }
                Reply::Accepted(None)
            }
            (Verb::Mute | Verb::Accept, AnswerTarget::Key(name)) => {
                if *verb == Verb::Mute {
                    self.memory.mute(name, KeyMute { until_ms: *until_ms, decided });
                }
                changes.note_other(format!("key/{name}"), &mut self.memory.keys_seq, cause);
                Reply::Accepted(None)
            }
            (Verb::Dismiss, AnswerTarget::Incident(leak)) => self.dismiss(*leak, decided, cause, changes),
            (Verb::Dismiss, AnswerTarget::Action(id, leak)) => {
                match self.dismiss(*leak, decided, cause, changes) {
                    Reply::Accepted(_) => {
                        let record = self.memory.actions.get(id);
                        Reply::Accepted(record.map(|record| self.memory.result_of(&record.row).clone()))
                    }
                    other => other,
                }
            }
            (Verb::Approve | Verb::Reinstate | Verb::Revoke, AnswerTarget::Action(id, _)) => {
                self.answer_about(*id, *verb, decided, cause, changes)
            }
            _ => Reply::Unknown,
        }
    }

    /// Withdraws an incident with its actions. It is the detector that keeps its signals from opening it again.
    fn dismiss(
        &mut self,
        leak: SuspectedLeak,
        decided: Decided,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) -> Reply {
        let of_action = || self.memory.actions.values().any(|record| record.row.incident == leak.incident);
        let known = self.memory.incidents.get_mut(leak.incident);
        if known.is_none() && !of_action() {
            return Reply::Unknown;
        }
        // The same answer again changes nothing, unless the incident was opened again.
        if let Some(known) = known
            && !known.is_dismissed
        {
            (known.dismissed, known.is_dismissed) = (Some(decided.clone()), true);
            // The detector's row says so as well, in the same tick.
            let seq = &mut known.seq;
            changes.note_other(format!("incident/{}", leak.incident), seq, cause);
        }
        self.withdraw_all(leak.incident, Some(&decided), cause, changes);
        Reply::Accepted(None)
    }

    /// Takes an answer about an action.
    fn answer_about(
        &mut self,
        id: ActionId,
        verb: Verb,
        decided: Decided,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) -> Reply {
        let Some(record) = self.memory.actions.get(&id) else { return Reply::Unknown };
        let row = &record.row;
        let otherwise = Reply::Decided { state: row.state, by: record.decided.clone() };
        // The same answer again changes nothing.
        if record.decided.as_ref().is_some_and(|before| before.verb == verb) {
            return Reply::Accepted(Some(self.memory.result_of(row).clone()));
        }
        let is_suspended = self.memory.is_suspended_by(id);
        match verb {
            Verb::Approve => match (row.state, row.action) {
                (ActionState::Held, _) if self.acting(record).is_none() => self.refused(record),
                // The gateway refused the credentials, and the key is denied all the same.
                (ActionState::Held, Action::Suspend) if is_suspended => {
                    self.approve(id, decided, cause, changes);
                    self.memory.accepted(id)
                }
                (ActionState::Held, _) if self.memory.denied.len() >= MAX_DENIED => {
                    Reply::Refused("so many keys are denied that no more can be")
                }
                (ActionState::Held, Action::Suspend) if self.memory.denied.contains_key(&row.key) => {
                    Reply::Refused("the key is denied already, by another action")
                }
                (ActionState::Held, _) => {
                    self.approve(id, decided, cause, changes);
                    self.memory.accepted(id)
                }
                _ => otherwise,
            },
            Verb::Reinstate if is_suspended => {
                let lifted = self.lift(id, Some(decided), cause, changes);
                self.memory.accepted(lifted)
            }
            Verb::Revoke if is_suspended && self.acting(record).is_none() => self.refused(record),
            Verb::Revoke if is_suspended && is_done(row.state) => {
                let revoked = self.revoke(id, decided, cause, changes);
                self.memory.accepted(revoked)
            }
            Verb::Revoke if is_suspended => Reply::Refused("the gateway hasn't suspended the key"),
            _ if self.memory.denied.get(&row.key).is_some_and(|of| of.state == DenialState::Revoked) => {
                Reply::Refused("the key is revoked, which is final")
            }
            Verb::Reinstate | Verb::Revoke if row.state == ActionState::Held => {
                Reply::Refused("the key isn't suspended by this action, which is held: approve or dismiss it")
            }
            _ => otherwise,
        }
    }

    /// Refuses what no gateway would do.
    fn refused(&self, record: &ActionRecord) -> Reply {
        Reply::Refused(match self.idle(record.origin.place) {
            OFF => "acting is off: no [[gateway]] of the key has mode = \"live\"",
            idle => idle,
        })
    }

    /// Takes the report of the gateway that is to act. One that comes too late changes nothing: the action was withdrawn
    /// meanwhile, and what it did is undone by an action of its own.
    fn report(&mut self, report: &GatewayReport, changes: &mut Changes) {
        let GatewayReport { action, gateway, outcome, at_ms } = report;
        let Some(record) = self.memory.actions.get(action) else { return };
        let is_of = record.gateway.as_ref() == Some(gateway)
            || self.acting(record).is_some_and(|acting| acting.name == *gateway);
        let Some(record) = self.memory.actions.get_mut(action) else { return };
        if record.row.state != ActionState::Requested || !is_of {
            return;
        }
        let cause = |what, why| Cause { who: gateway, what, why, at_ms: *at_ms };
        match outcome {
            GatewayOutcome::Done => {
                changes.turn(record, ActionState::Done, cause("done", ""));
                self.memory.refusing.remove(gateway);
                self.memory.note_outcome(gateway, ActionState::Done);
                self.watch(*action, *at_ms);
            }
            GatewayOutcome::Failed(why) => {
                record.row.reason = format!("{FAILED}{why}");
                changes.turn(record, ActionState::Failed, cause("failed", why));
                self.memory.note_outcome(gateway, ActionState::Failed);
            }
            GatewayOutcome::Refused(why) => {
                self.memory.refusing.insert(gateway.clone());
                if record.row.action == Action::Suspend {
                    record.row.reason = format!("asks a person before suspending the key again{HELD}{why}");
                    (record.decided, record.held_tick) = (None, changes.tick);
                    changes.turn(record, ActionState::Held, cause("refused", why));
                    self.memory.held.insert((changes.tick, *action));
                    self.memory.probations.lifted(gateway, *action);
                }
            }
        }
    }

    /// Notes that an action takes room of the breakers, from when a person decided, if no transition is later.
    fn takes_room(&mut self, id: ActionId, at_ms: EventTime) {
        let Some(record) = self.memory.actions.get(&id) else { return };
        let gateway = self.acting(record).map(|gateway| gateway.name.clone());
        let (key, opened_ms) = (record.row.key, record.origin.opened_ms);
        self.memory.policy.acts(gateway.as_deref(), key, opened_ms, self.memory.latest_ms.max(at_ms));
    }

    /// Requests an action that a person wants.
    fn approve(&mut self, id: ActionId, decided: Decided, cause: Cause<'_>, changes: &mut Changes) {
        // What a person approves takes room of the breakers as well.
        self.takes_room(id, cause.at_ms);
        let Some(record) = self.memory.actions.get_mut(&id) else { return };
        record.row.reason = reason_of(cause);
        record.decided = Some(decided);
        let from = record.row.state;
        self.request(id, Some(from), cause, changes);
        self.memory.note_approved(id);
    }

    /// Revokes the key that an action suspended.
    fn revoke(
        &mut self,
        suspension: ActionId,
        decided: Decided,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) -> ActionId {
        let Some(origin) = self.origin_after(suspension) else { return suspension };
        let incident = match self.memory.actions.get_mut(&suspension) {
            Some(record) => {
                record.decided = Some(decided.clone());
                record.row.incident
            }
            None => return suspension,
        };
        let id = ActionId::new(incident, Action::Revoke, self.memory.round(incident));
        if self.memory.actions.contains_key(&id) {
            self.approve(id, decided, cause, changes);
            return id;
        }
        let row = self.memory.follow_up(suspension, id, Action::Revoke, cause);
        let Some(row) = row else { return suspension };
        self.create(row, origin, true, cause, changes);
        self.takes_room(id, cause.at_ms);
        self.memory.decide(id, decided);
        self.memory.note_approved(id);
        id
    }

    /// Lets a key in that an action suspended. Returns the action that does so.
    fn lift(
        &mut self,
        suspension: ActionId,
        decided: Option<Decided>,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) -> ActionId {
        let Some(record) = self.memory.actions.get(&suspension) else { return suspension };
        let (incident, key) = (record.row.incident, record.row.key);
        let Some(origin) = self.origin_after(suspension) else { return suspension };
        let id = ActionId::new(incident, Action::Reinstate, self.memory.round(incident));
        let row = self.memory.follow_up(suspension, id, Action::Reinstate, cause);
        // 1. What isn't done yet must not be done any more, nor what was asked for since the key is suspended.
        let of_key = self.memory.actions.values().filter(|record| record.row.key == key);
        let is_void = |record: &&ActionRecord| match record.row.state {
            ActionState::Requested => record.row.id == suspension,
            ActionState::Held => record.row.id == suspension || record.row.action == Action::Revoke,
            ActionState::Done | ActionState::Failed | ActionState::Withdrawn | ActionState::Confirmed => {
                false
            }
        };
        let void: Vec<ActionId> = of_key.filter(is_void).map(|record| record.row.id).collect();
        for id in void {
            self.withdraw(id, cause, changes);
        }
        if let Some(gateway) = self.memory.actions.get(&suspension).and_then(|of| of.gateway.as_ref()) {
            self.memory.probations.lifted(gateway, suspension);
        }
        if let Some(decided) = &decided {
            self.memory.decide(suspension, decided.clone());
        }
        // 2. The lifting is an action of its own.
        let Some(row) = row else { return suspension };
        self.create(row, origin, true, cause, changes);
        if let Some(decided) = decided {
            self.memory.decide(id, decided);
        }
        id
    }

    /// Returns the origin of an action that follows a suspension. It is for the gateway that suspended the key, as long
    /// as the job has it, wherever the tables say by now that the key is.
    fn origin_after(&self, suspension: ActionId) -> Option<ActionOrigin> {
        let record = self.memory.actions.get(&suspension)?;
        let mut place = record.origin.place;
        if let Some(gateway) = self.gateways.iter().find(|of| Some(&of.name) == record.gateway.as_ref()) {
            place.gateway = NameId::new(&gateway.name);
        }
        Some(ActionOrigin { place, follows: Some(suspension), ..record.origin })
    }

    /// Adds an action, held or requested.
    fn create(
        &mut self,
        row: Revocation,
        origin: ActionOrigin,
        is_requested: bool,
        cause: Cause<'_>,
        changes: &mut Changes,
    ) {
        let (id, at_ms) = (row.id, row.at_ms);
        let before = self.memory.actions.remove(&id);
        if let Some(before) = &before {
            self.memory.by_time.remove(&(before.row.at_ms, id));
        }
        let from = before.as_ref().map(|before| before.row.state);
        let seq = before.map_or(0, |before| before.seq);
        let mut record = ActionRecord {
            row,
            decided: None,
            gateway: None,
            origin,
            seq,
            is_of_withdrawal: false,
            held_tick: changes.tick,
        };
        if !is_requested {
            changes.note(&mut record, from, cause);
            if self.acting(&record).is_some() {
                self.memory.held.insert((changes.tick, id));
            }
        }
        self.memory.by_time.insert((at_ms, id));
        self.memory.actions.insert(id, record);
        if is_requested {
            self.request(id, from, cause, changes);
        }
    }

    /// Requests an action of the gateway. The key is denied, or let in, from now on.
    fn request(&mut self, id: ActionId, from: Option<ActionState>, cause: Cause<'_>, changes: &mut Changes) {
        let Some(record) = self.memory.actions.get(&id) else { return };
        let acting = self.acting(record).map(|gateway| (gateway.name.clone(), gateway.acts_at_once));
        let Some(record) = self.memory.actions.get_mut(&id) else { return };
        let at_once = acting.as_ref().is_some_and(|(_, acts_at_once)| *acts_at_once);
        record.gateway = acting.map(|(name, _)| name);
        record.row.state = if at_once { ActionState::Done } else { ActionState::Requested };
        changes.note(record, from, cause);
        if let (true, Some(gateway)) = (at_once, &record.gateway) {
            // It has no credentials that could be refused, whatever it had before.
            self.memory.refusing.remove(gateway);
        }
        let row = &record.row;
        let state = match row.action {
            Action::Suspend => DenialState::Suspended,
            Action::Revoke => DenialState::Revoked,
            Action::Reinstate => {
                changes.keys.insert(row.key, row.key_id.clone());
                self.memory.denied.remove(&row.key);
                self.memory.unconfirmed.remove(&row.key);
                return;
            }
        };
        // One that is requested anew was denied all the time.
        if self.memory.denied.get(&row.key).is_none_or(|denial| denial.action != id) {
            changes.keys.insert(row.key, row.key_id.clone());
            let (since_ms, incident, key_id) = (cause.at_ms, row.incident, row.key_id.clone());
            self.memory.denied.insert(row.key, Denial { state, since_ms, incident, action: id, key_id });
        }
        // What was done about the key before is over.
        self.memory.unconfirmed.remove(&row.key);
        // A transition may be older than its tick, and the key was still let in until that.
        self.watch(id, cause.at_ms.max(changes.tick));
    }

    /// Watches the calls with a key a while after the action that denies it was done, if it was.
    fn watch(&mut self, id: ActionId, at_ms: EventTime) {
        let done = self.memory.actions.get(&id).filter(|record| record.row.state == ActionState::Done);
        let Some(record) = done else { return };
        let after_ms = self.acting(record).map_or(MINUTE_MS, |gateway| gateway.confirm_after_ms);
        let key = record.row.key;
        if self.memory.denied.get(&key).is_some_and(|denial| denial.action == id) {
            self.memory.unconfirmed.insert(key, (id, at_ms.saturating_add(after_ms)));
        }
    }

    fn withdraw(&mut self, id: ActionId, cause: Cause<'_>, changes: &mut Changes) {
        let Some(record) = self.memory.actions.get_mut(&id) else { return };
        record.row.reason = match cause.who {
            TABLES | POLICY => format!("withdrawn: {}", cause.why),
            _ => reason_of(cause),
        };
        changes.turn(record, ActionState::Withdrawn, cause);
    }
}

/// Returns whether the gateway did an action.
fn is_done(state: ActionState) -> bool {
    matches!(state, ActionState::Done | ActionState::Confirmed)
}

/// Words the reason of what a person decided, or the tables.
fn reason_of(Cause { who, what, why, .. }: Cause<'_>) -> String {
    let did = match what {
        "approve" => "approved",
        "dismiss" => "dismissed",
        "accept" => "accepted",
        "reinstate" => "reinstated",
        "revoke" => "revoked",
        other => other,
    };
    format!("{did} by {who}: {why}")
}

impl Changes {
    /// Changes the state of an action.
    fn turn(&mut self, record: &mut ActionRecord, to: ActionState, cause: Cause<'_>) {
        let from = std::mem::replace(&mut record.row.state, to);
        self.note(record, Some(from), cause);
    }

    /// Notes that an action came into its state.
    fn note(&mut self, record: &mut ActionRecord, from: Option<ActionState>, cause: Cause<'_>) {
        let Cause { who, what, why, at_ms } = cause;
        self.audit.push(AuditEntry {
            target: record.row.id.to_string(),
            seq: record.seq,
            at_ms,
            who: who.to_owned(),
            what,
            from,
            to: Some(record.row.state),
            why: why.to_owned(),
            gateway: record.gateway.clone(),
        });
        record.seq += 1;
        self.actions.insert(record.row.id);
    }

    /// Notes a decision of the policy about a gateway. `seq` is the number of the entry, and grows.
    fn note_of_gateway(&mut self, gateway: String, seq: &mut u64, cause: Cause<'_>) {
        self.note_other(POLICY.to_owned(), seq, cause);
        if let Some(entry) = self.audit.last_mut() {
            entry.gateway = Some(gateway);
        }
    }

    /// Notes a decision about the policy, an incident or a key. `seq` is the number of the entry, and grows.
    fn note_other(&mut self, target: String, seq: &mut u64, cause: Cause<'_>) {
        let Cause { who, what, why, at_ms } = cause;
        let (who, why) = (who.to_owned(), why.to_owned());
        self.audit.push(AuditEntry {
            target,
            seq: *seq,
            at_ms,
            who,
            what,
            from: None,
            to: None,
            why,
            gateway: None,
        });
        *seq += 1;
    }

    fn rows(self, memory: &ActionMemory) -> ActionRows {
        let Self { tick: _, actions, keys, mut audit } = self;
        let newest = |id: ActionId| memory.actions.get(&id).map(|record| record.row.clone());
        let mut denied: Vec<DeniedKey> = keys
            .into_iter()
            .map(|(key, key_id)| {
                let denial = memory.denied.get(&key);
                let denial = denial.map(|of| (of.state, of.since_ms, of.incident));
                DeniedKey { key_id, denial }
            })
            .collect();
        denied.sort_unstable_by(|one, other| one.key_id.cmp(&other.key_id));
        audit.sort_by(|one, other| one.order().cmp(&other.order()));
        ActionRows { revocations: actions.into_iter().filter_map(newest).collect(), denied, audit }
    }
}

impl ActionMemory {
    /// Returns all actions that are remembered, by id.
    pub fn actions(&self) -> impl Iterator<Item = &ActionRecord> {
        self.actions.values()
    }

    /// Returns the person who paused the policy, if it is paused.
    #[must_use]
    pub fn paused(&self) -> Option<&Decided> {
        self.paused.as_ref()
    }

    /// Returns the names of the gateways whose actions are held until one that a person approved was seen to work.
    pub fn on_probation(&self) -> impl Iterator<Item = &str> {
        self.probations.names()
    }

    /// Counts actions and keys, for metrics.
    #[must_use]
    pub fn counts(&self) -> ActionCounts {
        let mut counts = ActionCounts {
            denied: self.denied.len() as u64,
            muted: self.muted.len() as u64,
            is_paused: self.paused.is_some(),
            ..ActionCounts::default()
        };
        for record in self.actions.values() {
            match record.row.state {
                ActionState::Requested => counts.requested += 1,
                ActionState::Failed => counts.failed += 1,
                ActionState::Held | ActionState::Done | ActionState::Withdrawn | ActionState::Confirmed => {}
            }
        }
        let is_held = |(since, id): &&(Tick, ActionId)| {
            self.actions.get(id).is_some_and(|record| record.is_held_since(*since))
        };
        counts.held = self.held.iter().filter(is_held).count() as u64;
        counts
    }

    /// Returns the incidents that are remembered.
    #[must_use]
    pub fn incidents(&self) -> &KnownIncidents {
        &self.incidents
    }

    /// Returns the keys that are muted, as views name them.
    pub fn muted(&self) -> impl Iterator<Item = (&str, &KeyMute)> {
        self.muted.iter().map(|(key, mute)| (key.as_str(), mute))
    }

    /// Remembers a mute, or forgets it if it ends before it begins.
    fn mute(&mut self, key: &str, mute: KeyMute) {
        let now_ms = mute.decided.at_ms;
        self.muted.retain(|_, known| known.until_ms > now_ms);
        if mute.until_ms <= now_ms {
            self.muted.remove(key);
        } else if self.muted.len() < MAX_MUTED || self.muted.contains_key(key) {
            self.muted.insert(key.to_owned(), mute);
        }
    }

    /// Returns the keys that gateways are to refuse, by name.
    #[must_use]
    pub fn deny_list(&self) -> BTreeMap<String, DenialState> {
        self.denied.values().map(|denial| (denial.key_id.clone(), denial.state)).collect()
    }

    /// Returns the keys that gateways are to refuse.
    pub fn denied(&self) -> impl Iterator<Item = (KeyId, DenialState)> {
        self.denied.iter().map(|(key, denial)| (*key, denial.state))
    }

    /// Returns the actions that the gateway is to do.
    #[must_use]
    pub fn requested(&self) -> Vec<ActionId> {
        let requested = self.actions.values().filter(|record| record.row.state == ActionState::Requested);
        requested.map(|record| record.row.id).collect()
    }

    /// Counts the failures of a gateway in a row.
    fn note_outcome(&mut self, gateway: &str, state: ActionState) {
        match state {
            ActionState::Failed => {
                *self.failures.entry(gateway.to_owned()).or_default() += 1;
                self.probations.failed(gateway);
            }
            _ => drop(self.failures.remove(gateway)),
        }
    }

    /// Notes that a person wanted an action that is requested.
    fn note_approved(&mut self, id: ActionId) {
        if let Some(gateway) = self.actions.get(&id).and_then(|record| record.gateway.as_ref()) {
            self.probations.approved(gateway, id);
        }
    }

    /// Returns how many times an action of the incident was lifted because the incident was withdrawn.
    fn round(&self, incident: IncidentId) -> u32 {
        let is_lifted = |round: &u32| {
            let id = ActionId::new(incident, Action::Reinstate, *round);
            self.actions.get(&id).is_some_and(|record| record.is_of_withdrawal)
        };
        (0..).take_while(is_lifted).count().try_into().unwrap_or(u32::MAX)
    }

    /// Returns whether a key is suspended on account of this action.
    fn is_suspended_by(&self, id: ActionId) -> bool {
        let denial = self.actions.get(&id).and_then(|record| self.denied.get(&record.row.key));
        denial.is_some_and(|denial| denial.action == id && denial.state == DenialState::Suspended)
    }

    fn is_in_force(&self, record: &ActionRecord) -> bool {
        record.row.state == ActionState::Requested
            || self.denied.get(&record.row.key).is_some_and(|denial| denial.incident == record.row.incident)
    }

    /// Notes that an action lifts a suspension that may be asked for again.
    fn lifts_for_now(&mut self, lifting: ActionId) {
        if let Some(record) = self.actions.get_mut(&lifting) {
            record.is_of_withdrawal = true;
        }
    }

    fn decide(&mut self, id: ActionId, decided: Decided) {
        if let Some(record) = self.actions.get_mut(&id) {
            record.decided = Some(decided);
        }
    }

    fn accepted(&self, id: ActionId) -> Reply {
        Reply::Accepted(self.actions.get(&id).map(|record| record.row.clone()))
    }

    fn is_done(&self, id: ActionId) -> bool {
        self.actions.get(&id).is_some_and(|record| is_done(record.row.state))
    }

    /// Returns the row that an answer about an action led to: that of the action, or of the one that followed.
    fn result_of<'a>(&'a self, row: &'a Revocation) -> &'a Revocation {
        // What followed is of the same round, which may not be the last.
        let is_of = |round: &u32| ActionId::new(row.incident, row.action, *round) == row.id;
        let round = (0..=self.round(row.incident)).find(is_of).unwrap_or(0);
        let decided = self.actions.get(&row.id).and_then(|record| record.decided.as_ref());
        let followers = [Action::Reinstate, Action::Revoke].map(|action| {
            let of = self.actions.get(&ActionId::new(row.incident, action, round));
            of.filter(|of| of.decided.as_ref() == decided)
        });
        followers.into_iter().flatten().next().map_or(row, |of| &of.row)
    }

    /// Returns the row of an action that follows another one.
    fn follow_up(&self, of: ActionId, id: ActionId, action: Action, cause: Cause<'_>) -> Option<Revocation> {
        let row = &self.actions.get(&of)?.row;
        let reason = match cause.who {
            TABLES => format!("{BY_TABLES}{}", cause.why),
            POLICY => format!("{BY_POLICY}{}", cause.why),
            _ => reason_of(cause),
        };
        let state = ActionState::Requested;
        Some(Revocation { id, action, state, reason, at_ms: cause.at_ms, ..row.clone() })
    }

    /// Forgets what is old, and the oldest if there is too much.
    fn forget(&mut self) {
        self.muted.retain(|_, mute| mute.until_ms > self.latest_ms);
        let before_ms = self.latest_ms.saturating_sub(MEMORY_MS);
        // Each action is looked at once at most: one that is in force is put off.
        for _ in 0..self.by_time.len() {
            let Some(&(time, id)) = self.by_time.first() else { return };
            let is_too_much = self.actions.len() > MAX_ACTIONS + 3 * self.denied.len();
            if time >= before_ms && !is_too_much {
                return;
            }
            self.by_time.pop_first();
            match self.actions.get(&id) {
                Some(record) if self.is_in_force(record) => {
                    self.by_time.insert((self.latest_ms, id));
                }
                Some(_) => drop(self.actions.remove(&id)),
                None => {}
            }
        }
    }
}
