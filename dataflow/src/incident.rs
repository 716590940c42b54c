//! Defines incidents, which are suspected leaks of keys: the log of their transitions, and the row that each
//! transition leaves.
//!
//! An incident is identified by its key, the version of the detector, and the window in which it opened. So it is the
//! same in every replay. Times are event times. Expected numbers are in thousandths of a call.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use crate::detect::{Bits, Severity, Signal};
use crate::model::{
    Country, EventTime, KeyId, KeyPlace, KeyState, NameId, Owner, Policy, Position, RouteId, impl_hash_id,
    impl_name,
};

/// The version of the detector's arithmetic. It is part of an incident's identity: another version makes another
/// incident of the same calls.
pub const DETECTOR_VERSION: u32 = 6;

/// The identity of an incident, which is a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentId(pub u128);

impl IncidentId {
    /// Returns the identity of the incident of `key` that opened in the window that starts at `opened_ms`.
    #[must_use]
    pub fn new(key: KeyId, opened_ms: EventTime) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&key.0.to_be_bytes());
        hasher.update(&DETECTOR_VERSION.to_be_bytes());
        hasher.update(&opened_ms.to_be_bytes());
        Self(hasher.digest128())
    }
}

impl_hash_id!(IncidentId);

/// The state in which an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IncidentState {
    /// Signals came within the last 30 minutes.
    Open,
    /// No signal came within the last 30 minutes.
    Ended,
    /// A change of the tables took it back.
    Withdrawn,
}

impl_name!(IncidentState { Open = "open", Ended = "ended", Withdrawn = "withdrawn" });

/// A value that a signal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EvidenceValue {
    Country(Country),
    Asn(u32),
    /// The first address of a network, /24 of IPv4 (mapped into IPv6) or /48 of IPv6.
    Network(u128),
    Agent(NameId),
    Route(RouteId),
    /// Latitude and longitude in hundredths of a degree.
    Place(i32, i32),
    /// The source and the URL of a report that a token leaked.
    Report(NameId, NameId),
}

/// A value that contributed to a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Contributor {
    pub value: EvidenceValue,
    /// Its calls in the window.
    pub calls: u64,
    /// True if the key was never seen with it before.
    pub is_new: bool,
}

/// The evidence of a signal of an incident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Evidence {
    pub signal: Signal,
    /// Start of the window with the most bits.
    pub window_ms: EventTime,
    pub width_ms: u64,
    pub first_ms: EventTime,
    pub last_ms: EventTime,
    /// The number expected in the window, in thousandths.
    pub expected: u64,
    pub seen: u64,
    pub bits: Bits,
    /// The part of `bits` that enters the verdict, times the signal's weight.
    pub weighted: Bits,
    /// The values that contributed most, at most 5, most first.
    pub values: SmallVec<[Contributor; 1]>,
}

/// Calls of five minutes, against what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// Start of the five minutes.
    pub start_ms: EventTime,
    pub calls: u64,
    pub expected: u64,
}

/// A call that the incident is about, to be looked up in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sample {
    pub position: Position,
    pub time: EventTime,
    /// The caller's address as IPv6 (IPv4 mapped), zero where unknown.
    pub client: u128,
    pub status: u16,
}

/// The calls of an incident's windows, by what they asked for and how they were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taken {
    /// Calls with a new place or agent, since it was first observed.
    pub from_new: u64,
    /// Calls with none of them in the same time.
    pub usual: u64,
    /// Bytes sent to the callers.
    pub bytes_out: u64,
    /// Calls by status, in the order of statuses; at most 32.
    pub statuses: Vec<(u16, u64)>,
    /// Calls by route, in the order of routes; at most 256.
    pub routes: Vec<(RouteId, u64)>,
}

/// A value that the calls of a key usually have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UsualValue {
    pub value: EvidenceValue,
    /// Its share of the calls of the last month, in thousandths.
    pub share: u64,
}

/// Another key that a network called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OtherKey {
    pub key: KeyId,
    pub customer: NameId,
}

/// The other keys that a new network of an incident called with in the 24 hours before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OtherKeys {
    /// The first address of the network.
    pub network: u128,
    /// The number of keys that the network is usual for; it is exact up to 64.
    pub usual_keys: u32,
    /// The number of keys that it called with for the first time; it is exact up to 64.
    pub keys: u32,
    /// The number of customers that the latter belong to. All keys without a customer count as one.
    pub customers: u32,
    /// Some of the latter, at most 10, in the order of keys.
    pub named: Vec<OtherKey>,
}

/// An earlier incident of the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EarlierIncident {
    pub id: IncidentId,
    pub opened_ms: EventTime,
    pub ended_ms: EventTime,
    pub severity: Severity,
    /// The state in which it was left: ended or withdrawn.
    pub state: IncidentState,
}

/// The newest version of the row of a suspected leak of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub key: KeyId,
    /// The owner of the key when the incident opened.
    pub owner: Owner,
    /// The highest severity that it reached.
    pub severity: Severity,
    /// The highest probability of a leak it reached, in percent.
    pub score: u8,
    pub state: IncidentState,
    /// Start of the window in which it opened.
    pub opened_ms: EventTime,
    /// End of the last window in which a signal was observed.
    pub last_signal_ms: EventTime,
    /// When it ended or was withdrawn.
    pub ended_ms: Option<EventTime>,
    /// The signals, ordered by weighted bits, the most first.
    pub signals: Vec<Evidence>,
    /// The key's last six hours, in order. Five minutes without calls are left out.
    pub traffic: Vec<Point>,
    /// Some calls, at most 5.
    pub samples: Vec<Sample>,
    /// The key's calls in windows of the incident.
    pub calls: u64,
    pub taken: Taken,
    /// The key's usual values when the incident opened, at most 3 of a kind, most calls first.
    pub usual: Vec<UsualValue>,
    /// Other keys of the incident's new networks, at most 5 networks, most keys first.
    pub other_keys: Vec<OtherKeys>,
    /// Earlier incidents of the key within 90 days, at most 3, newest first.
    pub earlier: Vec<EarlierIncident>,
    /// The number of times that it was reopened within the last week.
    pub reopenings: u32,
    /// The time since which the key is known.
    pub known_since_ms: EventTime,
    /// The number of its calls that are known of the last month.
    pub known_calls: u64,
    /// True if many keys of its plan, or of all plans, rose together.
    pub platform_event: bool,
}

/// The kind of a transition of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Opened,
    Raised,
    /// The incident grew: four times the ratio, or another family of signals.
    Updated,
    /// Signals came again within 24 hours of its end.
    Reopened,
    /// No signal came for its quiet time: 30 minutes, more after reopenings.
    Ended,
    /// The tables changed, and what is left is no incident.
    Withdrawn,
}

impl_name!(Change {
    Opened = "opened",
    Raised = "raised",
    Updated = "updated",
    Reopened = "reopened",
    Ended = "ended",
    Withdrawn = "withdrawn",
});

/// The reason for which an incident was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The key's allow-list covers where the calls came from.
    Allowed,
    /// The key is meant to be public.
    Publishable,
    /// The key is in use, not revoked.
    Active,
    /// The report of a leak was taken back.
    Unreported,
    /// A person dismissed the incident.
    Dismissed,
    /// A person said that what the key does is normal.
    Accepted,
}

impl_name!(Reason {
    Allowed = "the key's allow-list covers where the calls came from",
    Publishable = "the table of keys says that the key is publishable",
    Active = "the table of keys says that the key is active",
    Unreported = "the report that it leaked was taken back",
    Dismissed = "a person dismissed the incident",
    Accepted = "a person accepted what the key does as normal",
});

/// An entry of the log of incidents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Transition {
    pub incident: Incident,
    /// The number of the transition among those of the incident, from 0.
    pub seq: u32,
    pub change: Change,
    /// The event time: the end of the window that was evaluated, else the watermark.
    pub at_ms: EventTime,
    pub reason: Option<Reason>,
    /// True if the window was still open.
    pub early: bool,
    /// True if people were told of a reopening within the last 24 hours, so that they aren't told of this one.
    pub is_repeat: bool,
    /// True if the job was catching up at the tick.
    pub catching_up: bool,
    /// The most that may be done about incidents of the key. `None` if the key has no row, or its plan none.
    pub policy: Option<Policy>,
    /// The key's state, `None` if the key has no row.
    pub key_state: Option<KeyState>,
    /// Keys that were called in this or the last day (UTC), over all workers.
    pub active_keys: u64,
    /// The addresses of the key's contacts, separated by `;`.
    pub contact: NameId,
    /// The addresses of the subscription's contacts, separated by `;`.
    pub contacts: NameId,
    /// Where a gateway has the key, as its row said at its newest observation.
    pub place: KeyPlace,
}

impl Transition {
    /// Returns its order among the transitions of a tick: by time, then by incident, then by number.
    #[must_use]
    pub fn order(&self) -> (EventTime, IncidentId, u32) {
        (self.at_ms, self.incident.id, self.seq)
    }
}
