//! The records of a ledger: one of each tick that was committed, and one of each life of the job.

use keytide_dataflow::model::{EventTime, Tick};
use serde::{Deserialize, Serialize};

/// A record of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum LedgerRecord {
    Tick(TickRecord),
    Claim(Claim),
}

/// The record of a tick. It is visible if and only if all results of the tick are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// The number of the tick, counted from 1 over all lives of the job without a gap.
    pub number: u64,
    /// The time of the tick, in ms since the epoch.
    pub tick: Tick,
    /// The watermark after the tick.
    pub watermark: EventTime,
    /// How far each partition was at the end of the tick, in the order of the job's list.
    pub reached: Vec<PartitionProgress>,
    /// The partitions at the end of that list that no earlier tick had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<AddedPartition>,
    /// The name of the object in the store with the inputs that offsets can't bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// The number of rows of all views.
    pub count: u64,
    /// The sum of the rows' ids (see `keytide-id`), mod 2^128.
    #[serde(with = "hex128")]
    pub digest: u128,
    pub generation: u64,
    #[serde(with = "hex64")]
    pub nonce: u64,
    /// The program and the configuration that made the rows.
    pub made_by: MadeBy,
}

/// How far one partition was when a tick was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// The greatest event time so far; `None` before its first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<EventTime>,
    /// The same without leaps that aren't confirmed yet. No single record moves it by more than an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<EventTime>,
    pub next_offset: u64,
    /// True if it was at its end at some time since the last cut, and isn't paused.
    pub at_end: bool,
    /// The number of events that were read for this tick.
    pub events: u64,
}

/// A partition that a tick is the first to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedPartition {
    pub source: String,
    /// The partition's number in the topic.
    pub number: u32,
    /// The offset from which it was read.
    pub offset: u64,
}

/// The program and the configuration on which the rows of a tick depend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The version of the program.
    pub program: String,
    /// The fingerprint of the configuration.
    pub config: String,
}

/// The record with which a life of the job begins: from now on it alone commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// One more than the generation of the life before.
    pub generation: u64,
    /// A random number that tells apart two lives that took the same generation.
    #[serde(with = "hex64")]
    pub nonce: u64,
    pub job: String,
    pub host: String,
    pub pid: u32,
    /// The time of the claim, in ms since the epoch.
    pub at: Tick,
}

macro_rules! hexadecimal {
    ($name:ident, $number:ty, $format:literal) => {
        /// Writes a number as hexadecimal digits, which JSON keeps exactly.
        mod $name {
            use serde::de::Error as _;
            use serde::{Deserialize, Deserializer, Serializer};

            pub(super) fn serialize<S: Serializer>(number: &$number, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&format!($format, number))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$number, D::Error> {
                let digits = String::deserialize(from)?;
                <$number>::from_str_radix(&digits, 16).map_err(D::Error::custom)
            }
        }
    };
}
hexadecimal!(hex64, u64, "{:016x}");
hexadecimal!(hex128, u128, "{:032x}");

impl LedgerRecord {
    /// Returns the record's key, under which it replaces earlier ones: all claims have one, and so have ticks whose
    /// numbers are the same mod `kept`.
    #[must_use]
    pub fn key(&self, kept: u64) -> String {
        match self {
            Self::Tick(tick) => (tick.number % kept).to_string(),
            Self::Claim(_) => "claim".to_owned(),
        }
    }

    /// Writes the record as JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data can be written to memory")
    }

    /// Reads a record that was written as JSON.
    ///
    /// # Errors
    /// If it is no record of a ledger, with the reason.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}
