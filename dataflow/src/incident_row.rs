//! Defines the views `incidents` and `incident_log` as JSON: once for the sinks that write rows, and for alerts and
//! the demo that read them back.
//!
//! Columns have the order of the fields. Some texts come from strangers (routes, user agents, names of networks), so
//! a reader that shows one has to escape it. Numbers that the detector has in thousandths are of type `N`, which is a
//! float for readers. Sinks have an integer that is written with three decimals, the same on every machine.

use serde::{Deserialize, Serialize};

use crate::incident::Change;

/// Makes both rows of one list of columns. The columns of the log alone are in two places among the others.
macro_rules! rows {
    (log { $($log:tt)* } owner { $($owner:tt)* } permitted { $($permitted:tt)* } incident { $($incident:tt)* }) => {
        /// The columns of a row of `incidents`.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct IncidentJson<N> {
            /// The identity in 32 hexadecimal digits.
            pub incident_id: String,
            $($owner)*
            $($incident)*
        }

        /// The columns of a row of `incident_log`: a transition, and the incident after it.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct TransitionJson<N = f64> {
            /// The identity in 32 hexadecimal digits.
            pub incident_id: String,
            $($log)*
            $($owner)*
            $($permitted)*
            $($incident)*
        }
    };
}

rows! {
    log {
        /// The number of the transition among those of the incident, from 0.
        pub seq: u32,
        /// One of `opened`, `raised`, `updated`, `reopened`, `ended`, `withdrawn`.
        pub transition: Change,
        /// The event time of the transition; RFC 3339, as all times here.
        pub at: String,
        /// The reason for a withdrawal.
        pub reason: Option<String>,
        /// True if the window that opened it wasn't over yet.
        pub early: bool,
        /// True if people were told of a reopening within the last 24 hours, so that no mail is sent of this one.
        pub repeat: bool,
        /// True if the job was catching up, when actions are held.
        pub catching_up: bool,
    }
    owner {
        /// The key in 32 hexadecimal digits, or its name where it is no secret.
        pub key_id: String,
        pub subscription: Option<String>,
        pub customer: Option<String>,
        pub plan: Option<String>,
    }
    permitted {
        /// The most that may be done about the incident: `observe`, `alert`, `suspend` or `revoke`.
        pub policy: Option<String>,
        /// The key's state, `active`, `suspended` or `revoked`. It is `None` if the key has no row.
        pub key_state: Option<String>,
    }
    incident {
        /// The highest severity reached, `alert` or `revoke`.
        pub level: String,
        /// The highest probability of a leak reached, in percent.
        pub score: u8,
        /// One of `open`, `ended`, `withdrawn`.
        pub state: String,
        /// Start of the window in which it opened.
        pub opened_at: String,
        /// End of the last window in which a signal was observed.
        pub last_signal_at: String,
        /// The time at which it ended or was withdrawn.
        pub ended_at: Option<String>,
        /// The signals, most weighted bits first.
        pub signals: Vec<SignalJson<N>>,
        pub evidence: EvidenceJson<N>,
        /// The number of times that it was reopened within the last week.
        pub reopenings: u32,
        /// True if many keys rose together.
        pub platform_event: bool,
        /// The version of the detector.
        pub detector_version: u32,
    }
}

/// A signal of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalJson<N = f64> {
    /// The name by [`Signal::name`](crate::detect::Signal::name).
    pub signal: String,
    /// One of `volume`, `origin`, `behaviour`, `errors`, `hard`.
    pub family: String,
    /// Start of the window with the most bits.
    pub window_start: String,
    /// The window's width in seconds.
    pub window_s: u64,
    /// The first time at which it was observed.
    pub first_at: String,
    /// The last time at which it was observed.
    pub last_at: String,
    /// The calls that were expected in that window; `None` where nothing can be.
    pub expected: Option<N>,
    /// The calls that were seen.
    pub seen: u64,
    /// The ratio of seen to expected; `None` where nothing was expected.
    pub ratio: Option<N>,
    /// The largest surprise, in bits.
    pub bits: N,
    /// The bits that enter the verdict, times the signal's weight. 0 if the signal counts nothing.
    pub weighted_bits: N,
    /// The values that contributed most, at most 5, most first.
    pub values: Vec<ValueJson>,
}

/// A value that contributed to a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueJson {
    /// The kind, with the form of `value`. It is `country` (two letters), `asn` (`AS64500`), `network` (CIDR),
    /// `user_agent`, `route` (`api METHOD /route`), `place` (latitude and longitude) or `report` (source and URL of a
    /// leaked token).
    pub kind: String,
    pub value: String,
    /// Its calls in the window.
    pub calls: u64,
    /// True if the key was never seen with it before.
    pub new: bool,
}

/// Evidence of an incident beside its signals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceJson<N = f64> {
    /// The key's calls in windows of the incident.
    pub calls: u64,
    /// The time since which the key is known.
    pub known_since: String,
    /// The number of calls of the last month that are known of it.
    pub known_calls: u64,
    /// The key's last six hours in steps of five minutes. Steps without calls are left out.
    pub traffic: Vec<PointJson<N>>,
    /// Some calls, at most 5.
    pub samples: Vec<SampleJson>,
    pub taken: TakenJson,
    /// The key's usual values when the incident opened, at most 3 of a kind, most calls first.
    pub usual: Vec<UsualJson<N>>,
    /// Other keys that the incident's new networks called with in the 24 hours before.
    pub other_keys: Vec<OtherKeysJson>,
    /// Earlier incidents of the key within 90 days, at most 3, newest first.
    pub earlier: Vec<EarlierJson>,
    /// The fingerprint of the configuration, 16 hexadecimal digits.
    pub config: String,
}

/// The calls of a key in five minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointJson<N = f64> {
    /// Start of the five minutes.
    pub start: String,
    pub calls: u64,
    /// The number of calls that were expected.
    pub expected: N,
}

/// The calls of an incident's windows, by what they asked for and how they were answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TakenJson {
    /// Calls with a new place or agent, since it was first observed.
    pub from_new: u64,
    /// Calls with none of them in the same time.
    pub usual: u64,
    /// Bytes sent to the callers.
    pub bytes_out: u64,
    /// The number of different routes; 256 stands for that many or more.
    pub routes: u64,
    /// Calls by HTTP method, most first.
    pub methods: Vec<CountJson>,
    /// Calls by HTTP status, most first, at most 8.
    pub statuses: Vec<CountJson>,
    /// The routes with most calls, at most 5.
    pub top_routes: Vec<CountJson>,
}

/// A value with a number of calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountJson {
    pub value: String,
    pub calls: u64,
}

/// A value that the calls of a key usually have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsualJson<N = f64> {
    /// The kind, as in [`ValueJson`].
    pub kind: String,
    pub value: String,
    /// Its share of the calls of the last month, from 0 to 1.
    pub share: N,
}

/// The other keys that a network called with in 24 hours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherKeysJson {
    /// The network as CIDR.
    pub network: String,
    /// The number of keys that the network is usual for; 64 stands for that many or more.
    pub usual_keys: u32,
    /// The number of keys that it called with for the first time; 64 stands for that many or more.
    pub keys: u32,
    /// The number of customers that the latter belong to.
    pub customers: u32,
    /// Some of the latter, at most 10.
    pub named: Vec<OtherKeyJson>,
}

/// Another key of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherKeyJson {
    /// The key in 32 hexadecimal digits, or its name where it is no secret.
    pub key_id: String,
    pub customer: Option<String>,
}

/// An earlier incident of the same key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierJson {
    /// The identity in 32 hexadecimal digits.
    pub incident_id: String,
    pub opened_at: String,
    pub ended_at: String,
    /// The highest severity reached.
    pub level: String,
    /// One of `ended`, `withdrawn`.
    pub state: String,
}

/// A call, and the position of its record in the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleJson {
    pub source: String,
    /// The partition, or the number of the file.
    pub partition: u32,
    /// The offset, or the byte at which the line starts.
    pub offset: u64,
    /// The record's index within its message.
    pub index: u32,
    pub at: String,
    pub client: Option<String>,
    pub status: u16,
}
