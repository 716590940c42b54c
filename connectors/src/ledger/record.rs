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
    /// The version of the program, and that of its time zones.
    pub program: String,
    /// The fingerprint of the configuration, and the prefix of the topics, on which the rows' ids depend.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::LedgerError;
    use crate::ledger::reading::Reading;

    fn text() -> impl Strategy<Value = String> {
        "\\PC{0,12}"
    }

    prop_compose! {
        fn progress()(
            maximum in proptest::option::of(any::<EventTime>()),
            settled in proptest::option::of(any::<EventTime>()),
            next_offset: u64,
            at_end: bool,
            events: u64,
        ) -> PartitionProgress {
            PartitionProgress { maximum, settled, next_offset, at_end, events }
        }
    }

    prop_compose! {
        fn added()(source in text(), number: u32, offset: u64) -> AddedPartition {
            AddedPartition { source, number, offset }
        }
    }

    prop_compose! {
        fn tick()(
            (number, tick, watermark, count) in any::<(u64, Tick, EventTime, u64)>(),
            reached in proptest::collection::vec(progress(), 0..4),
            added in proptest::collection::vec(added(), 0..3),
            inputs in proptest::option::of(text()),
            digest: u128,
            (generation, nonce) in any::<(u64, u64)>(),
            (program, config) in (text(), text()),
        ) -> TickRecord {
            let made_by = MadeBy { program, config };
            TickRecord {
                number, tick, watermark, reached, added, inputs, count, digest, generation, nonce, made_by,
            }
        }
    }

    prop_compose! {
        fn claim()(generation: u64, nonce: u64, job in text(), host in text(), pid: u32, at: Tick) -> Claim {
            Claim { generation, nonce, job, host, pid, at }
        }
    }

    fn record() -> impl Strategy<Value = LedgerRecord> {
        prop_oneof![tick().prop_map(LedgerRecord::Tick), claim().prop_map(LedgerRecord::Claim)]
    }

    fn take(bytes: &[u8]) -> Result<(), LedgerError> {
        Reading::new("orders").take(bytes, "ledger", || "offset 7".to_owned(), |_| true)
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(record in record()) {
            prop_assert_eq!(LedgerRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn a_record_that_was_changed_anywhere_is_read_or_refused(
            record in record(),
            place: proptest::sample::Index,
            byte: u8,
            cut: proptest::sample::Index,
        ) {
            let mut bytes = record.encode();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let _ = take(&bytes);
            // A record that lost its end is never one.
            bytes = record.encode();
            bytes.truncate(cut.index(bytes.len()));
            let is_foreign = matches!(take(&bytes), Err(LedgerError::Foreign { .. }));
            prop_assert!(is_foreign);
        }

        #[test]
        fn arbitrary_bytes_are_no_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let is_foreign = matches!(take(&bytes), Err(LedgerError::Foreign { .. }));
            prop_assert!(is_foreign);
        }
    }

    #[test]
    fn a_tick_replaces_the_one_that_is_kept_no_longer() {
        let key = |number| LedgerRecord::Tick(TickRecord { number, ..TickRecord::default() }).key(4_096);
        assert_eq!([key(1), key(4_095), key(4_096), key(4_097)], ["1", "4095", "0", "1"]);
        assert_eq!(LedgerRecord::Claim(Claim::default()).key(4_096), "claim");
    }

    #[test]
    fn numbers_and_ids_are_written_exactly() {
        let tick = TickRecord {
            number: u64::MAX,
            digest: u128::MAX - 1,
            nonce: 0xab,
            inputs: Some("inputs/1".to_owned()),
            ..TickRecord::default()
        };
        let json = String::from_utf8(LedgerRecord::Tick(tick).encode()).unwrap();
        for part in [
            r#""record":"tick""#,
            r#""number":18446744073709551615"#,
            r#""digest":"fffffffffffffffffffffffffffffffe""#,
            r#""nonce":"00000000000000ab""#,
            r#""inputs":"inputs/1""#,
        ] {
            assert!(json.contains(part), "{json}");
        }
        assert!(!json.contains("added"), "{json}");
    }
}
