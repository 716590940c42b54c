//! A table that comes as a Kafka topic, record by record. Knows no Kafka: bytes in, changes out.
//!
//! Two formats. A compacted topic of upserts: the value is the row, with the fields that a file of JSON lines
//! has, and no value (a tombstone) deletes the row of the message key. Or Debezium's change events: `op` says
//! whether `after` replaces the row of the message key (`c`, `u`, `r`), the row is gone (`d`, usually followed
//! by a tombstone), or all of them are (`t`). Both may stand under `schema` and `payload`, as Kafka Connect
//! writes them.
//!
//! A row is told by its message key, whatever that looks like, never by `before`, which may be null. So the
//! row that a record replaces or deletes is the one that was held for its message key: where the columns that
//! name a key or an id change, the old one is deleted. A record without a message key (or an empty one) stands for itself: it
//! overwrites the row with the same key columns. A tombstone of an unknown message key is nothing, and
//! neither is a record that changes nothing: to read a topic again from the start does no harm.
//!
//! Of a message key a hash is held, and nothing told: it may be a leaked token.
//!
//! A bad record is a dead letter and changes nothing: what was held stays. Nothing here quotes a value or a
//! message key.
//!
//! Changes are in the order of the calls. That is right within a partition, and so for all records of a message
//! key as long as the topic's number of partitions doesn't change; a truncation of a table whose topic has
//! several partitions can't be ordered against the rows of the others.
//!
//! Limits: 256 KiB a row, 1 MiB a record, 512 bytes a value, 10,000,000 rows a table.

use std::borrow::Cow;
use std::sync::Arc;

use keytide_config::{KafkaClient, KeyHash, TableSource, Tables, TopicFormat};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::held::{Held, RecordRows, Slot};
use super::row::Fault;
use super::rows::{Ignored, json_row, place};
use super::schema::{Output, Table};
use super::{ROW_BYTES, ROWS, TableDeadLetter, TablePlace, TablesRead, configured};

/// Bytes of a record: a row before and after, and a schema.
const RECORD_BYTES: usize = 1 << 20;

/// A table topic's rows, as of its records so far.
pub struct TopicTable {
    table: Table,
    topic: Arc<str>,
    format: TopicFormat,
    columns: Vec<&'static str>,
    output: Output,
    ignored: Ignored,
    held: Held,
}

impl TopicTable {
    /// The tables that come as topics, in the order keys, subscriptions, plans, leaks, and how their brokers are
    /// reached. `hashes` as for [`read`](super::read).
    pub fn configured<'t, 'a>(
        tables: &'t Tables,
        hashes: impl IntoIterator<Item = &'a KeyHash>,
    ) -> Vec<(&'t KafkaClient, Self)> {
        let topic = |(table, source): (Table, &'t Option<TableSource>)| match source {
            Some(TableSource::Kafka { client, topic, format }) => {
                Some((client, Self::new(table, topic, *format)))
            }
            Some(TableSource::File { .. }) | None => None,
        };
        configured(tables, hashes).into_iter().filter_map(topic).collect()
    }

    fn new(table: Table, topic: &str, format: TopicFormat) -> Self {
        let columns = table.columns();
        Self {
            table,
            topic: topic.into(),
            format,
            columns,
            output: Output::default(),
            ignored: Ignored::default(),
            held: Held::default(),
        }
    }

    /// `keys`, `subscriptions`, `plans` or `leaks`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.table.name()
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Rows that are held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.held.len()
    }

    /// Takes a record in, and adds to `out` what it changes. Records of a partition must come in the order of
    /// their offsets. The offsets of the changes count from 0 and grow from call to call.
    pub fn apply(
        &mut self,
        partition: u32,
        offset: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        out: &mut TablesRead,
    ) {
        let named = self.ignored.len();
        if let Err(reason) = self.record(key, value, out) {
            let value = value.unwrap_or_default();
            out.dead_letters.push(TableDeadLetter {
                table: self.table.name(),
                place: TablePlace::Topic { topic: Arc::clone(&self.topic), partition, offset },
                reason,
                length: value.len() as u64,
                sha256: Sha256::digest(value).into(),
            });
        }
        if self.ignored.len() > named {
            out.warnings.push(format!(
                "tables.{}: topic {} has fields that are not used here: {}",
                self.table.name(),
                self.topic,
                self.ignored
            ));
        }
    }

    /// Every row as it is held now, as changes for a reader that was told nothing yet: in place of all changes so
    /// far, once the topic was read to the end it had.
    pub fn state(&mut self, out: &mut TablesRead) {
        self.held.state(&mut out.changes);
    }

    fn record(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        out: &mut TablesRead,
    ) -> Result<(), Fault> {
        // An empty message key names nothing: rows that share it by accident would replace each other.
        let key = key.filter(|key| !key.is_empty());
        match Change::of(self.format, value)? {
            Change::Row(row) => {
                let rows = self.row(row, out)?;
                match key {
                    Some(key) => self.put(Slot::of_message(key), rows, out)?,
                    None => {
                        for row in rows {
                            self.put(Slot::of_row(&row), [row].into_iter().collect(), out)?;
                        }
                    }
                }
            }
            Change::Gone { before } => match (key, before) {
                (Some(key), _) => self.held.remove(Slot::of_message(key), &mut out.changes),
                (None, Some(before)) => {
                    for row in self.row(before, &mut TablesRead::default())? {
                        self.held.remove(Slot::of_row(&row), &mut out.changes);
                    }
                }
                (None, None) => {
                    return Err("deletes a row without saying which: it has no message key".to_owned());
                }
            },
            Change::Truncated => self.held.clear(&mut out.changes),
        }
        Ok(())
    }

    /// The changes' rows, if the row is good.
    fn row(&mut self, json: &[u8], out: &mut TablesRead) -> Result<RecordRows, Fault> {
        if json.len() > ROW_BYTES {
            return Err(format!("longer than {} KiB", ROW_BYTES >> 10));
        }
        // Which columns occur says nothing here: every row is judged by itself.
        let mut seen = vec![false; self.columns.len()];
        let row = json_row(&self.columns, json, &mut seen, &mut self.ignored)?;
        self.table.accept(&row, &mut self.output)?;
        let (rows, definitions) = self.output.take();
        out.definitions.extend(definitions);
        Ok(rows.collect())
    }

    fn put(&mut self, slot: Slot, rows: RecordRows, out: &mut TablesRead) -> Result<(), Fault> {
        if self.held.len() as u64 >= ROWS && !self.held.contains(slot) {
            return Err(format!("the table has {ROWS} rows, and may have no more"));
        }
        self.held.put(slot, rows, &mut out.changes);
        Ok(())
    }
}

/// What a record says.
enum Change<'v> {
    /// This is the row now (JSON).
    Row(&'v [u8]),
    /// The row is gone; as it was, if the record says that.
    Gone { before: Option<&'v [u8]> },
    /// All rows are gone.
    Truncated,
}

/// What Kafka Connect or Debezium puts around a row.
#[derive(Deserialize)]
struct Envelope<'v> {
    #[serde(default, deserialize_with = "present")]
    schema: bool,
    #[serde(borrow)]
    payload: Option<&'v RawValue>,
    #[serde(borrow)]
    op: Option<Cow<'v, str>>,
    #[serde(borrow)]
    before: Option<&'v RawValue>,
    #[serde(borrow)]
    after: Option<&'v RawValue>,
}

impl<'v> Envelope<'v> {
    /// Reads an object; the error is where it isn't one.
    fn read(json: &'v [u8]) -> Result<Self, String> {
        // Derived readers take an array of the members' values too.
        match json.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(json).map_err(|error| place(&error)),
            _ => Err("its first byte".to_owned()),
        }
    }
}

/// Whether a member is there, be it null.
fn present<'de, D: Deserializer<'de>>(json: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(json).map(|_| true)
}

impl<'v> Change<'v> {
    fn of(format: TopicFormat, value: Option<&'v [u8]>) -> Result<Self, Fault> {
        // Some producers write a tombstone as JSON's null.
        let Some(value) = value.filter(|value| value.trim_ascii() != b"null") else {
            return Ok(Self::Gone { before: None });
        };
        if value.len() > RECORD_BYTES {
            return Err(format!("longer than {} KiB", RECORD_BYTES >> 10));
        }
        match format {
            TopicFormat::JsonUpsert => Ok(Self::Row(without_schema(value))),
            TopicFormat::Debezium => Self::of_debezium(value),
        }
    }

    fn of_debezium(value: &'v [u8]) -> Result<Self, Fault> {
        let read = |json: &'v [u8]| {
            Envelope::read(json).map_err(|place| format!("not a Debezium change event: wrong at {place}"))
        };
        let mut envelope = read(value)?;
        if let (None, Some(payload)) = (&envelope.op, envelope.payload) {
            envelope = read(payload.get().as_bytes())?;
        }
        let Some(op) = envelope.op else {
            return Err("`op` is missing: is the topic's format json-upsert?".to_owned());
        };
        let json = |row: &'v RawValue| row.get().as_bytes();
        match (&*op, envelope.after) {
            ("c" | "u" | "r", Some(after)) => Ok(Self::Row(json(after))),
            ("c" | "u" | "r", None) => Err("`after` is missing".to_owned()),
            ("d", _) => Ok(Self::Gone { before: envelope.before.map(json) }),
            ("t", _) => Ok(Self::Truncated),
            _ => Err("`op` must be one of c, u, d, r, t".to_owned()),
        }
    }
}

/// The row of a record that may have a schema beside it. What isn't JSON is left for the row to refuse.
fn without_schema(value: &[u8]) -> &[u8] {
    match Envelope::read(value) {
        Ok(Envelope { schema: true, payload: Some(payload), .. }) => payload.get().as_bytes(),
        _ => value,
    }
}

#[cfg(test)]
mod tests;
