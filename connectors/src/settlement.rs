//! Settlements of the API as records of a source, by which the job counts them.
//!
//! ```json
//! {"id":"5f0c...","time":"2026-03-15T12:00:05Z","key":"8f0e...","calls":1,"units":321,"in":0,"out":0}
//! ```
//! The source's `[source.fields]` name the members. A record's request id is that of the reservation. So a settlement that
//! was sent twice counts once, by the rules of all records.

use keytide_config::{KafkaClient, KeyHash, Settlements, Source, SourceKind};
use keytide_dataflow::model::EventTime;

use crate::decode::{MAX_BYTES, MAX_UNITS, prehashed};
use crate::kafka::{Acknowledged, AcknowledgedProducer, KafkaError};
use crate::sink::encode::time;

/// The most that a record can have: what readers of records take for a number that can be.
const MOST: [(&str, u64); 4] =
    [("hits", u32::MAX as u64), ("units", MAX_UNITS), ("bytes_in", MAX_BYTES), ("bytes_out", MAX_BYTES)];
/// Bytes of a key that is a name, at most.
const NAME_BYTES: usize = 512;

/// The use of a reservation, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement<'a> {
    /// The reservation's number, which no other has.
    pub reservation: u128,
    pub at_ms: EventTime,
    /// The key as tables or views name it.
    pub key: &'a str,
    pub calls: u128,
    pub units: u128,
    pub bytes_in: u128,
    pub bytes_out: u128,
}

/// Why a settlement can't be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettlementError {
    #[error("the key must be a hash of at least 32 hexadecimal digits, as the keys of the job are")]
    NoHash,
    #[error("the key must be the name that views have, of 1 to 512 bytes: keys of the job have no hashes")]
    NoName,
    #[error("{0} is more than a record can have: hits below 2^32, units up to 2^42, bytes up to 2^40")]
    TooMuch(&'static str),
    #[error("there is nothing to record: hits must be at least 1")]
    NoCall,
}

/// Writes settlements as the records of a source.
#[derive(Debug)]
pub struct SettlementForm {
    /// The members by the order of [`Settlements::FIELDS`].
    members: [String; Settlements::FIELDS.len()],
    scale: u32,
    is_hashed: bool,
}

impl SettlementForm {
    /// Returns the form of the records of a source; `None` if it can't take settlements, which the configuration refuses.
    #[must_use]
    pub fn of(source: &Source) -> Option<Self> {
        let fields = source.fields.named();
        let mut members: [String; Settlements::FIELDS.len()] = Default::default();
        for (member, name) in members.iter_mut().zip(Settlements::FIELDS) {
            let (_, field) = fields.iter().find(|(other, _)| *other == name)?;
            *member = field.as_ref()?.at.first()?.0.first()?.clone();
        }
        let scale = source.fields.units.as_ref().map_or(0, |field| field.scale);
        Some(Self { members, scale, is_hashed: source.keys.hash == KeyHash::Prehashed })
    }

    /// Returns a settlement as a record.
    ///
    /// # Errors
    /// If the key isn't one of the source's keys, or a number is more than a record can have.
    pub fn record(&self, settlement: &Settlement<'_>) -> Result<Vec<u8>, SettlementError> {
        let Settlement { reservation, at_ms, key, calls, units, bytes_in, bytes_out } = settlement;
        let key = if self.is_hashed { hash(key)? } else { name(key)? };
        let used = [*calls, *units, *bytes_in, *bytes_out];
        let beyond = MOST.into_iter().zip(used).find(|((_, most), used)| *used > u128::from(*most));
        if let Some(((name, _), _)) = beyond {
            return Err(SettlementError::TooMuch(name));
        }
        if *calls == 0 {
            return Err(SettlementError::NoCall);
        }
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let values = [
            text(&format!("{reservation:032x}")),
            text(&time(*at_ms)),
            text(&key),
            calls.to_string(),
            self.scaled(*units),
            bytes_in.to_string(),
            bytes_out.to_string(),
        ];
        let members = self.members.iter().zip(values).map(|(name, value)| format!("{}:{value}", text(name)));
        Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes())
    }

    /// Returns units as the source's scale has them: 12,300 millionths are 0.012300.
    fn scaled(&self, units: u128) -> String {
        let power = 10_u128.pow(self.scale);
        match self.scale {
            0 => units.to_string(),
            scale => format!("{}.{:0width$}", units / power, units % power, width = scale as usize),
        }
    }
}

fn hash(key: &str) -> Result<String, SettlementError> {
    prehashed(key.as_bytes()).map(|key| format!("{:032x}", key.0)).ok_or(SettlementError::NoHash)
}

fn name(key: &str) -> Result<String, SettlementError> {
    (1..=NAME_BYTES).contains(&key.len()).then(|| key.to_owned()).ok_or(SettlementError::NoName)
}

/// Sends settlements to the topic of a source.
#[derive(Debug)]
pub struct SettlementWriter {
    form: SettlementForm,
    producer: AcknowledgedProducer,
}

impl SettlementWriter {
    /// Starts to send to the topic of a source; `None` if it can't take settlements, which the configuration refuses.
    ///
    /// # Errors
    /// If a setting of the client is refused.
    pub fn start(source: &Source) -> Result<Option<Self>, KafkaError> {
        let SourceKind::Kafka(kafka) = &source.kind else { return Ok(None) };
        let Some(form) = SettlementForm::of(source) else { return Ok(None) };
        let client: &KafkaClient = &kafka.client;
        Ok(Some(Self { form, producer: AcknowledgedProducer::start(client, &kafka.topic)? }))
    }

    /// Sends a settlement. `done` learns whether it was stored; if it wasn't for certain, it may be sent again.
    ///
    /// # Errors
    /// If it can't be a record. Then `done` isn't called.
    pub fn send(&self, settlement: &Settlement<'_>, done: Acknowledged) -> Result<(), SettlementError> {
        let record = self.form.record(settlement)?;
        self.producer.send(settlement.key.as_bytes(), &record, done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(scale: u32, is_hashed: bool) -> SettlementForm {
        let members = ["id", "time", "key", "calls", "co\"st", "in", "out"].map(str::to_owned);
        SettlementForm { members, scale, is_hashed }
    }

    fn settlement(key: &str) -> Settlement<'_> {
        Settlement { reservation: 10, at_ms: 5, key, calls: 1, units: 12_300, bytes_in: 2, bytes_out: 3 }
    }

    #[test]
    fn a_record_has_the_members_of_the_source() {
        let digits = "AB".repeat(32);
        let record = form(6, true).record(&settlement(&digits)).unwrap();
        let expected = format!(
            r#"{{"id":"0000000000000000000000000000000a","time":"1970-01-01T00:00:00.005Z","key":"{}","calls":1,"co\"st":0.012300,"in":2,"out":3}}"#,
            "ab".repeat(16)
        );
        assert_eq!(String::from_utf8(record).unwrap(), expected);
        let named = form(0, false).record(&settlement("a \"name\"")).unwrap();
        assert!(String::from_utf8(named).unwrap().contains(r#""key":"a \"name\"","calls":1,"co\"st":12300"#));
    }

    #[test]
    fn what_no_record_can_have_is_refused() {
        assert_eq!(form(0, true).record(&settlement("a-name")), Err(SettlementError::NoHash));
        assert_eq!(form(0, false).record(&settlement("")), Err(SettlementError::NoName));
        let too_much = Settlement { units: (1 << 42) + 1, ..settlement("k") };
        assert_eq!(form(0, false).record(&too_much), Err(SettlementError::TooMuch("units")));
        let calls = Settlement { calls: 1 << 32, ..settlement("k") };
        assert_eq!(form(0, false).record(&calls), Err(SettlementError::TooMuch("hits")));
        let none = Settlement { calls: 0, ..settlement("k") };
        assert_eq!(form(0, false).record(&none), Err(SettlementError::NoCall));
    }

    proptest! {
        #[test]
        fn a_record_is_json_whatever_the_key_and_units_keep_their_value(key in ".{1,40}", units in 0_u128..=1 << 42, scale in 0_u32..=9) {
            let settlement = Settlement { units, ..settlement(&key) };
            let record = form(scale, false).record(&settlement).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&record).unwrap();
            prop_assert_eq!(json["key"].as_str(), Some(key.as_str()));
            let text = form(scale, false).scaled(units);
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            prop_assert_eq!(digits.parse::<u128>().unwrap(), units);
            prop_assert_eq!(text.split_once('.').map_or(0, |(_, places)| places.len()), scale as usize);
        }
    }
}
