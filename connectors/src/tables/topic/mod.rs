//! A table that comes as a Kafka topic, record by record. The module does no I/O; it turns records' bytes into changes.
//!
//! There are two formats:
//!
//! * A compacted topic of upserts. The value is the row, with the fields of a file of JSON lines. A tombstone deletes
//!   the row of the message key.
//! * Debezium's change events. With the `op` `c`, `u` or `r`, `after` replaces the row of the message key. With `d` the
//!   row is gone, usually followed by a tombstone. With `t` all rows are gone. Other records of Debezium's are passed
//!   over: messages (`m`), heartbeats, begins and ends of transactions, changes of a schema.
//!
//! Both may stand under `schema` and `payload`, as Kafka Connect writes them, behind the frame of a schema registry. In
//! both a member `__deleted` states that the row is gone (Debezium's ExtractNewRecordState).
//!
//! Databases leave out large values that didn't change, and Debezium writes a placeholder for them. They are taken from
//! the row that is held for the message key, which comes from the topic itself, even after a restart. If compaction
//! removed the record with the value, the column is unknown until it is sent again, and a warning says so.
//!
//! A row is identified by its message key, never by `before`, which may be null. So a record replaces or deletes the
//! row that was held for its message key. If the columns that name a key or an id change, the old row is deleted. A
//! record without a message key (or with an empty one) overwrites the row with the same key columns. A tombstone of an
//! unknown message key has no effect, and neither has a record that changes nothing. So to read a topic again from the
//! start does no harm.
//!
//! Only a hash of a message key is held, and none is ever shown, because it may be a leaked token.
//!
//! A bad record is a dead letter and changes no row. Of tokens it ends the one of its message key, since a row that can't be
//! read must open nothing. Messages never quote a value or a message key.
//!
//! Changes are in the order of the calls. That is right within a partition. So it is for all records of a message key
//! as long as the topic's number of partitions doesn't change. With several partitions, a truncation of the table can't
//! be ordered against the rows of the others.
//!
//! Limits: 256 KiB a row, 1 MiB a record, 512 bytes a value, 10,000,000 rows a table.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keytide_config::{KafkaClient, KeyHash, TableSource, Tables, TopicFormat};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::row::{Cell, Fault, database_decimal};
use super::rows::{Ignored, column_of, json_row, place};
use super::schema::{AcceptedRows, TableSchema, is_whole, keep};
use super::state::{RecordRows, RowSlot, UpsertState};
use super::{
    BAD_ROWS, ROW_BYTES, ROWS, RowLocation, TableDeadLetter, TablesMemory, TablesRead, configured,
    configured_tokens,
};
use crate::framing::unframed;

/// The most bytes of a record, which may have a row before and after, and a schema.
const RECORD_BYTES: usize = 1 << 20;

/// The rows of a table's topic, as of its records so far.
pub struct TopicTable {
    table: TableSchema,
    topic: Arc<str>,
    format: TopicFormat,
    columns: Vec<&'static str>,
    output: AcceptedRows,
    ignored: Ignored,
    /// Columns for which a warning was given already.
    warned: BTreeSet<&'static str>,
    state: UpsertState,
    /// The SHA-256 of the values that became dead letters, at most [`BAD_ROWS`].
    bad: BTreeSet<[u8; 32]>,
}

impl TopicTable {
    /// Returns the tables that come as topics, in the order keys, subscriptions, plans, leaks, quotas, prices, each with
    /// the client of its brokers. `hashes` has the same meaning as in [`read`](super::read).
    pub fn configured<'t, 'a>(
        tables: &'t Tables,
        hashes: impl IntoIterator<Item = &'a KeyHash>,
    ) -> Vec<(&'t KafkaClient, Self)> {
        configured(tables, hashes).into_iter().filter_map(Self::of).collect()
    }

    /// Returns the table of tokens with the client of its brokers, if it comes as a topic.
    #[must_use]
    pub fn tokens(tables: &Tables) -> Option<(&KafkaClient, Self)> {
        let [configured] = configured_tokens(tables);
        Self::of(configured)
    }

    fn of((table, source): (TableSchema, &Option<TableSource>)) -> Option<(&KafkaClient, Self)> {
        match source {
            Some(TableSource::Kafka { client, topic, format }) => {
                Some((client, Self::new(table, topic, *format)))
            }
            Some(TableSource::File { .. }) | None => None,
        }
    }

    fn new(table: TableSchema, topic: &str, format: TopicFormat) -> Self {
        let columns = table.columns();
        Self {
            table,
            topic: topic.into(),
            format,
            columns,
            output: AcceptedRows::default(),
            ignored: Ignored::default(),
            warned: BTreeSet::new(),
            state: UpsertState::default(),
            bad: BTreeSet::new(),
        }
    }

    /// Returns the table's name, one of `keys`, `subscriptions`, `plans`, `leaks`, `quotas`, `prices` and `tokens`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.table.name()
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the number of rows that are held.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.state.len()
    }

    /// Applies a record, and adds its changes to `out`. Records of a partition must come in the order of their offsets.
    /// The offsets of the changes count from 0 and grow from call to call.
    pub fn apply(
        &mut self,
        partition: u32,
        offset: u64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        out: &mut TablesRead,
    ) {
        let named = self.ignored.len();
        let at = (partition, offset);
        if let Err(reason) = self.record(key, value, at, out) {
            let value = value.unwrap_or_default();
            let sha256 = Sha256::digest(value).into();
            if self.bad.len() < BAD_ROWS {
                self.bad.insert(sha256);
            }
            out.dead_letters.push(TableDeadLetter {
                table: self.table.name().into(),
                location: self.location(at),
                reason,
                length: value.len() as u64,
                sha256,
            });
            if let Some(key) = key.filter(|_| self.table.is_of_api()) {
                self.state.remove(RowSlot::of_message(key), &mut out.changes);
            }
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

    /// Adds how the rows that are held differ from those that an earlier life of the job held: without one, every row.
    /// It replaces all changes so far, once the topic was read to the end that it had.
    pub fn go_on(&mut self, earlier: &TablesMemory, out: &mut TablesRead) {
        let earlier = earlier.table(self.table.name());
        out.dead_letters.retain(|letter| !earlier.bad.contains(&letter.sha256));
        self.state.go_on(&earlier, &mut out.changes);
    }

    /// Adds the rows that are held, for a checkpoint.
    pub fn remember(&self, memory: &mut TablesMemory) {
        memory.add(&self.table, &self.state, self.bad.iter().copied());
    }

    fn record(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        at: (u32, u64),
        out: &mut TablesRead,
    ) -> Result<(), Fault> {
        let value = value.map(unframed).transpose()?;
        // An empty message key is none, because rows that share it by accident would replace each other.
        let key = key.filter(|key| !key.is_empty());
        match TopicChange::of(self.format, value)? {
            TopicChange::Row { row, schema } => {
                let slot = key.map(RowSlot::of_message);
                let (rows, deleted) = match self.row(row, schema, slot, at, out) {
                    Err(_) if is_passed_over(row) => return Ok(()),
                    read => read?,
                };
                match slot {
                    Some(slot) if deleted => self.state.remove(slot, &mut out.changes),
                    Some(slot) => self.put(slot, rows, out)?,
                    None => {
                        for row in rows {
                            let slot = RowSlot::of_row(&row);
                            if deleted {
                                self.state.remove(slot, &mut out.changes);
                            } else {
                                self.put(slot, [row].into_iter().collect(), out)?;
                            }
                        }
                    }
                }
            }
            TopicChange::Gone { before } => match (key, before) {
                (Some(key), _) => self.state.remove(RowSlot::of_message(key), &mut out.changes),
                (None, Some(before)) => {
                    for row in self.gone(before)? {
                        self.state.remove(RowSlot::of_row(&row), &mut out.changes);
                    }
                }
                (None, None) => {
                    return Err("deletes a row without saying which: it has no message key".to_owned());
                }
            },
            TopicChange::Truncated => self.state.clear(&mut out.changes),
            TopicChange::Nothing => {}
        }
        Ok(())
    }

    /// Returns the rows of a good record, and whether they are deleted. Values that the record doesn't repeat are taken
    /// from the rows that are held.
    fn row(
        &mut self,
        json: &[u8],
        schema: Option<&RawValue>,
        slot: Option<RowSlot>,
        at: (u32, u64),
        out: &mut TablesRead,
    ) -> Result<(RecordRows, bool), Fault> {
        if json.len() > ROW_BYTES {
            return Err(format!("longer than {} KiB", ROW_BYTES >> 10));
        }
        // The columns that occur don't matter here, because every row is judged by itself.
        let mut seen = vec![false; self.columns.len()];
        let mut ignored = Ignored::default();
        let mut row = json_row(&self.columns, json, &mut seen, &mut ignored)?;
        // Decimals have their scale in the schema alone.
        for (name, scale) in schema.map(decimals).unwrap_or_default() {
            let Some((index, _)) = column_of(&self.columns, name.as_bytes()) else { continue };
            if let Cell::Text(text) = &row.cells[index]
                && let Some(number) = database_decimal(text, scale)
            {
                row.cells[index] = Cell::Text(number.into());
            }
        }
        if row.deleted && slot.is_some() {
            // The message key says which row it is, and the rest of it doesn't matter.
            return Ok((RecordRows::new(), true));
        }
        self.table.accept(&row, &mut self.output)?;
        self.ignored.append(ignored);
        let (rows, definitions) = self.output.take();
        let mut rows: RecordRows = rows.collect();
        if row.deleted {
            return Ok((rows, true));
        }
        let mut unread: Vec<(&'static str, Fault)> = row.unread();
        // Values that the record doesn't repeat come from the slot's held row.
        for column in row.unchanged() {
            let mut is_held = true;
            for row in &mut rows {
                match self.state.row(slot.unwrap_or_else(|| RowSlot::of_row(row))) {
                    Some(held) => keep(column, row, held),
                    None => is_held = false,
                }
            }
            if !is_held {
                let fault = format!(
                    "`{column}` was left out because it didn't change, and no row is held that has it"
                );
                unread.push((column, fault));
            }
        }
        if !rows.iter().all(is_whole) {
            return Err(unread
                .pop()
                .map_or_else(|| "a required column is empty".to_owned(), |(_, fault)| fault));
        }
        out.unread += unread.len() as u64;
        for (column, fault) in unread {
            if self.warned.insert(column) {
                out.warnings.push(format!(
                    "tables.{}: {} has a value that can't be read and counts as unknown (told once a column): {fault}",
                    self.table.name(),
                    self.location(at)
                ));
            }
        }
        out.definitions.extend(definitions);
        Ok((rows, false))
    }

    /// Returns the rows that a record deletes. Only their key columns count.
    fn gone(&mut self, json: &[u8]) -> Result<RecordRows, Fault> {
        let mut seen = vec![false; self.columns.len()];
        let mut row = json_row(&self.columns, json, &mut seen, &mut self.ignored)?;
        row.deleted = true;
        self.table.accept(&row, &mut self.output)?;
        Ok(self.output.take().0.collect())
    }

    fn location(&self, (partition, offset): (u32, u64)) -> RowLocation {
        RowLocation::Topic { topic: Arc::clone(&self.topic), partition, offset }
    }

    fn put(&mut self, slot: RowSlot, rows: RecordRows, out: &mut TablesRead) -> Result<(), Fault> {
        if self.state.len() as u64 >= ROWS && !self.state.contains(slot) {
            return Err(format!("the table has {ROWS} rows, and may have no more"));
        }
        self.state.put(slot, rows, &mut out.changes);
        Ok(())
    }
}

/// The change that a record makes.
enum TopicChange<'v> {
    /// The row now, as JSON, and the schema beside it, if there is one.
    Row {
        row: &'v [u8],
        schema: Option<&'v RawValue>,
    },
    /// The row is deleted. `before` is the row as it was, if the record has it.
    Gone {
        before: Option<&'v [u8]>,
    },
    Truncated,
    Nothing,
}

/// The members that Kafka Connect or Debezium puts around a row.
#[derive(Deserialize)]
struct Envelope<'v> {
    #[serde(borrow, default, deserialize_with = "present")]
    schema: Option<&'v RawValue>,
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
    /// Reads an object, or returns the place at which it isn't one.
    fn read(json: &'v [u8]) -> Result<Self, String> {
        // Derived readers would take an array of the members' values, too.
        match json.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(json).map_err(|error| place(&error)),
            _ => Err("its first byte".to_owned()),
        }
    }
}

/// Reads a member that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(json).map(Some)
}

impl<'v> TopicChange<'v> {
    fn of(format: TopicFormat, value: Option<&'v [u8]>) -> Result<Self, Fault> {
        // Some producers write a tombstone as JSON's null.
        let Some(value) = value.filter(|value| value.trim_ascii() != b"null") else {
            return Ok(Self::Gone { before: None });
        };
        if value.len() > RECORD_BYTES {
            return Err(format!("longer than {} KiB", RECORD_BYTES >> 10));
        }
        match format {
            TopicFormat::JsonUpsert => Ok(Self::of_upsert(value)),
            TopicFormat::Debezium => Self::of_debezium(value),
        }
    }

    /// Returns the row of a record that may have a schema beside it. Anything that isn't JSON is refused with the row.
    fn of_upsert(value: &'v [u8]) -> Self {
        match Envelope::read(value) {
            Ok(Envelope { schema: Some(schema), payload: Some(payload), .. }) => {
                Self::Row { row: payload.get().as_bytes(), schema: Some(schema) }
            }
            // Kafka Connect writes a tombstone so, if it writes schemas.
            Ok(Envelope { schema: Some(_), payload: None, op: None, before: None, after: None })
                if members(value).is_some_and(|members| members.contains_key("payload")) =>
            {
                Self::Gone { before: None }
            }
            _ => Self::Row { row: value, schema: None },
        }
    }

    fn of_debezium(value: &'v [u8]) -> Result<Self, Fault> {
        let read = |json: &'v [u8]| {
            Envelope::read(json).map_err(|place| format!("not a Debezium change event: wrong at {place}"))
        };
        let (mut json, mut envelope) = (value, read(value)?);
        let mut schema = None;
        if let (None, Some(payload)) = (&envelope.op, envelope.payload) {
            schema = envelope.schema;
            json = payload.get().as_bytes();
            envelope = read(json)?;
        }
        let Some(op) = envelope.op else {
            // ExtractNewRecordState flattens rows, and marks each as deleted or not.
            let flat = members(json).is_some_and(|members| {
                members
                    .keys()
                    .any(|name| ["__deleted", "__op"].iter().any(|own| name.eq_ignore_ascii_case(own)))
            });
            return match () {
                () if flat => Ok(Self::Row { row: json, schema }),
                () if is_passed_over(json) => Ok(Self::Nothing),
                () => Err("`op` is missing: is the topic's format json-upsert?".to_owned()),
            };
        };
        let row = |row: &'v RawValue| row.get().as_bytes();
        match (&*op, envelope.after) {
            ("c" | "u" | "r", Some(after)) => Ok(Self::Row { row: row(after), schema }),
            ("c" | "u" | "r", None) => Err("`after` is missing".to_owned()),
            ("d", _) => Ok(Self::Gone { before: envelope.before.map(row) }),
            ("t", _) => Ok(Self::Truncated),
            ("m", _) => Ok(Self::Nothing),
            _ => Err("`op` must be one of c, u, d, r, t, m".to_owned()),
        }
    }
}

/// The members of a JSON object, by name.
fn members(json: &[u8]) -> Option<BTreeMap<Cow<'_, str>, &RawValue>> {
    serde_json::from_slice(json).ok()
}

/// Returns whether Debezium sent a record beside rows. Such records are heartbeats, begins and ends of transactions,
/// changes of a schema, and messages of the database's log.
fn is_passed_over(json: &[u8]) -> bool {
    let Some(members) = members(json) else { return false };
    let has = |name: &str| members.contains_key(name);
    let clocks = ["ts_ms", "ts_us", "ts_ns"];
    let is_heartbeat = !members.is_empty() && members.keys().all(|name| clocks.contains(&&**name));
    let is_transaction =
        members.get("status").is_some_and(|status| matches!(status.get(), "\"BEGIN\"" | "\"END\""))
            && has("id")
            && members.keys().all(|name| {
                clocks.contains(&&**name)
                    || ["status", "id", "event_count", "data_collections"].contains(&&**name)
            });
    let is_schema = has("source") && (has("ddl") || has("tableChanges"));
    let is_message =
        has("message") && has("source") && members.get("op").is_some_and(|op| op.get() == "\"m\"");
    is_heartbeat || is_transaction || is_schema || is_message
}

/// The parts of a schema beside a value that decimals need, as Kafka Connect writes them.
#[derive(Deserialize)]
struct Schema {
    field: Option<String>,
    name: Option<String>,
    #[serde(default)]
    fields: Vec<Schema>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// Returns the columns that are decimals without their scale in the value, each with the scale.
fn decimals(schema: &RawValue) -> Vec<(String, i32)> {
    const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
    // Every record has a schema, and hardly any has a decimal.
    if memchr::memmem::find(schema.get().as_bytes(), DECIMAL.as_bytes()).is_none() {
        return Vec::new();
    }
    let Ok(schema) = serde_json::from_str::<Schema>(schema.get()) else { return Vec::new() };
    // In a change event the row's schema is that of `after`.
    let after = schema.fields.iter().find(|field| field.field.as_deref() == Some("after"));
    let fields = after.map_or(&schema.fields, |after| &after.fields);
    let decimals = fields.iter().filter(|field| field.name.as_deref() == Some(DECIMAL));
    decimals
        .filter_map(|field| Some((field.field.clone()?, field.parameters.get("scale")?.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
