//! An incident as people are told of it: a row of the view `incident_log`, read back.
//!
//! All that stands here is written by strangers in part (routes, user agents, names of networks): it is text to be
//! escaped by whoever shows it.

use serde::Deserialize;

/// A transition of an incident, as the topic `incident_log` has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Transition {
    /// 32 hexadecimal digits.
    pub incident_id: String,
    /// The transition's place among the incident's, from 0.
    pub seq: u32,
    /// `opened`, `raised`, `reopened`, `ended`, `withdrawn`.
    pub transition: Change,
    /// When, by event time; RFC 3339, as all times here.
    pub at: String,
    /// Why it was withdrawn.
    pub reason: Option<String>,
    /// Whether the window that opened it wasn't over yet.
    pub early: bool,
    /// Whether the job was catching up: actions are held then.
    pub catching_up: bool,
    /// The key: 32 hexadecimal digits, or its name where it is no secret.
    pub key_id: String,
    /// Its subscription.
    pub subscription: Option<String>,
    /// Its customer.
    pub customer: Option<String>,
    /// Its plan.
    pub plan: Option<String>,
    /// What may be done about its incidents: `observe`, `alert`, `suspend`, `revoke`.
    pub policy: Option<String>,
    /// Its state: `active`, `suspended`, `revoked`; `None`: it has no row.
    pub key_state: Option<String>,
    /// The highest level reached: `alert`, `revoke`.
    pub level: String,
    /// The highest probability of a leak reached, in percent.
    pub score: u8,
    /// `open`, `ended`, `withdrawn`.
    pub state: String,
    /// Start of the window in which it opened.
    pub opened_at: String,
    /// When a signal last spoke.
    pub last_signal_at: String,
    /// When it ended or was withdrawn.
    pub ended_at: Option<String>,
    /// What spoke, most bits first.
    pub signals: Vec<Signal>,
    /// What else a person may want to see.
    pub evidence: Evidence,
    /// Whether many keys rose together.
    pub platform_event: bool,
    /// The version of the detector.
    pub detector_version: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It began.
    Opened,
    /// Its level rose.
    Raised,
    /// It was over, and signals came again within 24 hours.
    Reopened,
    /// No signal for 30 minutes.
    Ended,
    /// The tables say that it was none.
    Withdrawn,
}

/// Why a signal spoke.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Signal {
    /// Its name: see [`keytide_dataflow::detect::Signal::name`].
    pub signal: String,
    /// `volume`, `origin`, `behaviour`, `errors`, `hard`.
    pub family: String,
    /// Start of the window in which it said most.
    pub window_start: String,
    /// How wide that is, in seconds.
    pub window_s: u64,
    /// When it first spoke.
    pub first_at: String,
    /// When it last spoke.
    pub last_at: String,
    /// What was expected in that window; `None` where nothing can be.
    pub expected: Option<f64>,
    /// What was seen.
    pub seen: u64,
    /// How many times what was expected; `None` where nothing was.
    pub ratio: Option<f64>,
    /// The most it said, in bits.
    pub bits: f64,
    /// The values that contributed most, at most 5, most first.
    pub values: Vec<Value>,
}

/// A value that contributed to a signal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Value {
    /// `country` (two letters), `asn` (`AS64500`), `network` (CIDR), `user_agent`, `route` (`api METHOD /route`),
    /// `place` (latitude and longitude), `report` (where a token was found).
    pub kind: String,
    /// As text.
    pub value: String,
    /// Its calls in the window.
    pub calls: u64,
    /// Whether the key was never seen with it before.
    pub new: bool,
}

/// What else is known.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evidence {
    /// The key's calls in windows of the incident.
    pub calls: u64,
    /// Since when the key is known.
    pub known_since: String,
    /// How many calls of the last month are known of it.
    pub known_calls: u64,
    /// The key's last six hours in steps of five minutes; steps without calls are left out.
    pub traffic: Vec<Point>,
    /// Some calls, at most 5.
    pub samples: Vec<Sample>,
    /// The fingerprint of the configuration, 16 hexadecimal digits.
    pub config: String,
}

/// Calls of five minutes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Point {
    /// Their start.
    pub start: String,
    /// Calls.
    pub calls: u64,
    /// Calls expected.
    pub expected: f64,
}

/// A call, and where its record stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sample {
    /// Its source.
    pub source: String,
    /// Partition, or number of the file.
    pub partition: u32,
    /// Offset, or the byte at which the line starts.
    pub offset: u64,
    /// The record within its message.
    pub index: u32,
    /// When it came.
    pub at: String,
    /// From which address.
    pub client: Option<String>,
    /// Its status.
    pub status: u16,
}
