//! Defines actions on keys: the rows of `revocations`, `denied` and `audit`, and what people and gateways say about
//! actions.
//!
//! What people answer and gateways report is an input of a tick, as changes of tables are. So a replay has it, too.
//! `alerts` folds it into actions, in the order of ticks.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::incident::IncidentId;
use crate::model::{EventTime, KeyId, impl_hash_id, impl_name};

/// The most bytes of a text that people give with an answer.
pub const WHY_BYTES: usize = 500;

/// The identity of an action, which is a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionId(pub u128);

impl ActionId {
    /// Returns the identity of an action on account of an incident. `round` is the number of times that the tables lifted
    /// an action of the incident before.
    #[must_use]
    pub fn new(incident: IncidentId, action: Action, round: u32) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&incident.0.to_be_bytes());
        hasher.update(action.name().as_bytes());
        if round > 0 {
            hasher.update(&round.to_be_bytes());
        }
        Self(hasher.digest128())
    }
}

impl_hash_id!(ActionId);

/// An action about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    Suspend,
    Revoke,
    /// Lets the key be used again.
    Reinstate,
}

impl_name!(Action { Suspend = "suspend", Revoke = "revoke", Reinstate = "reinstate" });

/// The state in which an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ActionState {
    /// It waits for a person, or acting is off. `reason` names which of the two, and the action. If the gateway refused
    /// the job's credentials, the key is denied all the same.
    Held,
    /// The gateway is to do it.
    Requested,
    /// The gateway did it, as it reported or as all that it needs is a row.
    Done,
    /// The gateway can't do it.
    Failed,
    /// It isn't to be done any more.
    Withdrawn,
    /// The gateway did it, and calls with the key were refused since.
    Confirmed,
}

impl_name!(ActionState {
    Held = "held",
    Requested = "requested",
    Done = "done",
    Failed = "failed",
    Withdrawn = "withdrawn",
    Confirmed = "confirmed",
});

/// A row of `revocations`: an action about a key, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revocation {
    pub id: ActionId,
    pub key: KeyId,
    /// The key as views name it. A row may be published when the key's name is forgotten otherwise.
    pub key_id: String,
    pub incident: IncidentId,
    pub action: Action,
    pub state: ActionState,
    pub reason: String,
    /// The event time of the transition that asked for it. Of an action that a person asked for, the time of the answer.
    pub at_ms: EventTime,
}

/// The state of a key that gateways are to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DenialState {
    Suspended,
    Revoked,
}

impl_name!(DenialState { Suspended = "suspended", Revoked = "revoked" });

/// A row of `denied`: a key that gateways are to refuse, or one that they needn't refuse any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedKey {
    /// The key as views name it.
    pub key_id: String,
    /// Its state, since when, and on account of which incident; `None` if the key is let in again.
    pub denial: Option<(DenialState, EventTime, IncidentId)>,
}

/// A row of `audit`: a change of an action's state, or what a person decided about an incident, a key or the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The action in 32 hexadecimal digits; `policy`; an incident as `incident/ID`, or a key as `key/KEY_ID`.
    pub target: String,
    /// The number of the entry among those of its target, from 0. Those of all keys are numbered together.
    pub seq: u64,
    /// The event time of the transition, or the time of the answer or the report.
    pub at_ms: EventTime,
    /// A person's or a gateway's name, `policy` or `tables`.
    pub who: String,
    /// A [`Verb`], or what the policy, the tables or the gateway did.
    pub what: &'static str,
    pub from: Option<ActionState>,
    pub to: Option<ActionState>,
    pub why: String,
    /// The gateway that is to act.
    pub gateway: Option<String>,
}

impl AuditEntry {
    /// Returns the place of the entry among others of a tick: by target and number.
    #[must_use]
    pub fn order(&self) -> (&str, u64) {
        (&self.target, self.seq)
    }
}

/// The rows that actions leave in a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionRows {
    /// The newest row of each action that changed, by id.
    pub revocations: Vec<Revocation>,
    /// The keys that are denied or let in since, by name.
    pub denied: Vec<DeniedKey>,
    /// The changes, by target and number.
    pub audit: Vec<AuditEntry>,
}

/// What a person wants, about an action, an incident, a key, or all actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Carry out an action that is held.
    Approve,
    /// Withdraw an incident with its actions, and lift those that were carried out. The same signals don't open it again.
    Dismiss,
    /// Open and raise no incident of a key for a time.
    Mute,
    /// Take what a key does for normal.
    Accept,
    /// Lift a suspension: the key is let in again.
    Reinstate,
    /// Revoke a suspended key for good.
    Revoke,
    /// Hold every action that nobody approves.
    Pause,
    /// End a pause; what is held stays held.
    Resume,
}

impl_name!(Verb {
    Approve = "approve",
    Dismiss = "dismiss",
    Mute = "mute",
    Accept = "accept",
    Reinstate = "reinstate",
    Revoke = "revoke",
    Pause = "pause",
    Resume = "resume",
});

impl Verb {
    /// All verbs, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::Approve,
        Self::Dismiss,
        Self::Mute,
        Self::Accept,
        Self::Reinstate,
        Self::Revoke,
        Self::Pause,
        Self::Resume,
    ];

    /// Returns the verb of a name; `None` for other names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Returns whether it is said of one action.
    #[must_use]
    pub fn is_of_actions(self) -> bool {
        matches!(self, Self::Approve | Self::Dismiss | Self::Reinstate | Self::Revoke)
    }

    /// Returns whether it is said of one key.
    #[must_use]
    pub fn is_of_keys(self) -> bool {
        matches!(self, Self::Mute | Self::Accept)
    }

    /// Returns whether it is said of the policy as a whole.
    #[must_use]
    pub fn is_of_policy(self) -> bool {
        matches!(self, Self::Pause | Self::Resume)
    }
}

/// What an answer is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerTarget {
    /// The policy as a whole.
    Policy,
    /// An action, with the incident on account of which it is.
    Action(ActionId, SuspectedLeak),
    Incident(SuspectedLeak),
    /// A key as views name it.
    Key(String),
}

/// An incident, and the key that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SuspectedLeak {
    pub incident: IncidentId,
    pub key: KeyId,
}

/// What a person decided about a key, for the detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRow {
    pub key: KeyId,
    pub decision: KeyDecision,
}

/// A decision about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDecision {
    /// The incident is withdrawn. Its signals don't open it again.
    Dismiss(IncidentId),
    /// No incident of the key is opened or raised before that event time.
    Mute { until_ms: EventTime },
    /// What the key does is normal.
    Accept,
}

/// An answer of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonAnswer {
    /// A number by which its reply is found. It tells it from all other answers of a life of the job.
    pub request: u64,
    pub verb: Verb,
    pub target: AnswerTarget,
    /// The event time until which a key is muted; 0 with other verbs.
    pub until_ms: EventTime,
    /// The person's name in the configuration.
    pub who: String,
    /// The person's reason, of at most [`WHY_BYTES`] bytes.
    pub why: String,
    /// The time at which it was given, in milliseconds since 1970.
    pub at_ms: EventTime,
}

impl PersonAnswer {
    /// Returns what the answer tells the detector: a row for each key that it may be about.
    ///
    /// A key's name in views is its hash, or an identifier that is no secret. Both are tried, as only one of them is a key.
    pub fn decisions(&self) -> impl Iterator<Item = DecisionRow> {
        let row = |key, decision| DecisionRow { key, decision };
        let rows = match (self.verb, &self.target) {
            (Verb::Dismiss, AnswerTarget::Action(_, leak) | AnswerTarget::Incident(leak)) => {
                [Some(row(leak.key, KeyDecision::Dismiss(leak.incident))), None]
            }
            (verb @ (Verb::Mute | Verb::Accept), AnswerTarget::Key(name)) => {
                let decision = match verb {
                    Verb::Mute => KeyDecision::Mute { until_ms: self.until_ms },
                    _ => KeyDecision::Accept,
                };
                KeyId::of_text(name).map(|key| key.map(|key| row(key, decision)))
            }
            _ => [None, None],
        };
        rows.into_iter().flatten()
    }
}

/// How an action went at its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayOutcome {
    Done,
    /// It can't be done, for this reason.
    Failed(String),
    /// The gateway refused the job's credentials, for this reason. The request that it refused changed nothing.
    Refused(String),
}

/// What a gateway says about an action that was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    pub action: ActionId,
    pub gateway: String,
    pub outcome: GatewayOutcome,
    /// The time at which it was known, in milliseconds since 1970.
    pub at_ms: EventTime,
}

/// An input of a tick about actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionInput {
    Answer(PersonAnswer),
    Report(GatewayReport),
}

/// A published transition, with what alerts need beside its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The row of `incident_log`, as it was published.
    pub json: Vec<u8>,
    /// The addresses of the key's and of its subscription's contacts, each once.
    pub contacts: Vec<String>,
    /// The actions about the key that it led to.
    pub actions: Vec<Revocation>,
}

/// Returns the addresses in the lists of a key's and of its subscription's contacts, each once. A list is separated by `;`.
pub fn contact_addresses<'a>(lists: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let all = lists.into_iter().flat_map(|list| list.split(';')).map(str::trim);
    for address in all.filter(|address| !address.is_empty()) {
        if !addresses.iter().any(|known| known == address) {
            addresses.push(address.to_owned());
        }
    }
    addresses
}
