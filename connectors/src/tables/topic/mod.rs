//! A table that comes as a Kafka topic, record by record. Knows no Kafka: bytes in, changes out.
//!
//! Two formats. A compacted topic of upserts: the value is the row, with the fields that a file of JSON lines
//! has, and no value (a tombstone) deletes the row of the message key. Or Debezium's change events: `op` says
//! whether `after` replaces the row of the message key (`c`, `u`, `r`), the row is gone (`d`, usually followed
//! by a tombstone), or all of them are (`t`). Both may stand under `schema` and `payload`, as Kafka Connect
//! writes them, behind the frame of a schema registry, and in both a member `__deleted` says that the row is gone
//! (Debezium's ExtractNewRecordState). What Debezium sends beside rows is passed over: messages (`m`), heartbeats, begins
//! and ends of transactions, changes of a schema.
//!
//! Databases leave out large values that didn't change, and Debezium writes a placeholder for them. They are taken
//! from the row that is held for the message key. It comes from the topic itself, also after a restart; where compaction took the
//! record that had the value, the column is unknown until it is sent again, and a warning says so.
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
use super::{ROW_BYTES, ROWS, RowLocation, TableDeadLetter, TablesRead, configured};
use crate::framing::unframed;

/// Bytes of a record: a row before and after, and a schema.
const RECORD_BYTES: usize = 1 << 20;

/// A table topic's rows, as of its records so far.
pub struct TopicTable {
    table: TableSchema,
    topic: Arc<str>,
    format: TopicFormat,
    columns: Vec<&'static str>,
    output: AcceptedRows,
    ignored: Ignored,
    /// Columns of which a value couldn't be read.
    told: BTreeSet<&'static str>,
    state: UpsertState,
}

impl TopicTable {
    /// The tables that come as topics, in the order keys, subscriptions, plans, leaks, and how their brokers are
    /// reached. `hashes` as for [`read`](super::read).
    pub fn configured<'t, 'a>(
        tables: &'t Tables,
        hashes: impl IntoIterator<Item = &'a KeyHash>,
    ) -> Vec<(&'t KafkaClient, Self)> {
        let topic = |(table, source): (TableSchema, &'t Option<TableSource>)| match source {
            Some(TableSource::Kafka { client, topic, format }) => {
                Some((client, Self::new(table, topic, *format)))
            }
            Some(TableSource::File { .. }) | None => None,
        };
        configured(tables, hashes).into_iter().filter_map(topic).collect()
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
            told: BTreeSet::new(),
            state: UpsertState::default(),
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
        self.state.len()
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
        let at = (partition, offset);
        if let Err(reason) = self.record(key, value, at, out) {
            let value = value.unwrap_or_default();
            out.dead_letters.push(TableDeadLetter {
                table: self.table.name(),
                location: self.location(at),
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
    pub fn snapshot(&mut self, out: &mut TablesRead) {
        self.state.snapshot(&mut out.changes);
    }

    fn record(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        at: (u32, u64),
        out: &mut TablesRead,
    ) -> Result<(), Fault> {
        let value = value.map(unframed).transpose()?;
        // An empty message key names nothing: rows that share it by accident would replace each other.
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

    /// The changes' rows, if the row is good, and whether it says that it is gone. What the row doesn't say again is taken
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
        // Which columns occur says nothing here: every row is judged by itself.
        let mut seen = vec![false; self.columns.len()];
        let mut ignored = Ignored::default();
        let mut row = json_row(&self.columns, json, &mut seen, &mut ignored)?;
        for (name, scale) in schema.map(decimals).unwrap_or_default() {
            let Some((index, _)) = column_of(&self.columns, name.as_bytes()) else { continue };
            if let Cell::Text(text) = &row.cells[index]
                && let Some(number) = database_decimal(text, scale)
            {
                row.cells[index] = Cell::Text(number.into());
            }
        }
        self.table.accept(&row, &mut self.output)?;
        self.ignored.append(ignored);
        let (rows, definitions) = self.output.take();
        let mut rows: RecordRows = rows.collect();
        if row.deleted {
            return Ok((rows, true));
        }
        let mut told: Vec<(&'static str, Fault)> = row.unread();
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
                told.push((column, fault));
            }
        }
        if !rows.iter().all(is_whole) {
            return Err(told
                .pop()
                .map_or_else(|| "a required column is empty".to_owned(), |(_, fault)| fault));
        }
        out.unread += told.len() as u64;
        for (column, fault) in told {
            if self.told.insert(column) {
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

    /// The rows that a record says are gone: of these only the key columns count.
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

/// What a record says.
enum TopicChange<'v> {
    /// This is the row now (JSON), and its schema where one stands beside it.
    Row {
        row: &'v [u8],
        schema: Option<&'v RawValue>,
    },
    /// The row is gone; as it was, if the record says that.
    Gone {
        before: Option<&'v [u8]>,
    },
    Truncated,
    Nothing,
}

/// What Kafka Connect or Debezium puts around a row.
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
    /// Reads an object; the error is where it isn't one.
    fn read(json: &'v [u8]) -> Result<Self, String> {
        // Derived readers take an array of the members' values too.
        match json.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(json).map_err(|error| place(&error)),
            _ => Err("its first byte".to_owned()),
        }
    }
}

/// A member that is there, be it null.
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

    /// The row of a record that may have a schema beside it. What isn't JSON is left for the row to refuse.
    fn of_upsert(value: &'v [u8]) -> Self {
        match Envelope::read(value) {
            Ok(Envelope { schema: Some(schema), payload: Some(payload), .. }) => {
                Self::Row { row: payload.get().as_bytes(), schema: Some(schema) }
            }
            // A tombstone, as Kafka Connect writes it with schemas.
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
            // Flattened by ExtractNewRecordState, which says of each row whether it is gone.
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

/// The members of an object.
fn members(json: &[u8]) -> Option<BTreeMap<Cow<'_, str>, &RawValue>> {
    serde_json::from_slice(json).ok()
}

/// Whether a record is one of those that Debezium sends beside rows: a heartbeat, the begin or end of a transaction,
/// a change of a table's schema, a message of the database's log.
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

/// A schema as Kafka Connect writes it beside a value, as far as numbers need it.
#[derive(Deserialize)]
struct Schema {
    field: Option<String>,
    name: Option<String>,
    #[serde(default)]
    fields: Vec<Schema>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// The columns that are decimals without their scale in the value, and the scale.
fn decimals(schema: &RawValue) -> Vec<(String, i32)> {
    const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
    // Nearly no schema has one, and each record has a schema.
    if memchr::memmem::find(schema.get().as_bytes(), DECIMAL.as_bytes()).is_none() {
        return Vec::new();
    }
    let Ok(schema) = serde_json::from_str::<Schema>(schema.get()) else { return Vec::new() };
    // Of a change event the row's schema is that of `after`.
    let after = schema.fields.iter().find(|field| field.field.as_deref() == Some("after"));
    let fields = after.map_or(&schema.fields, |after| &after.fields);
    let decimals = fields.iter().filter(|field| field.name.as_deref() == Some(DECIMAL));
    decimals
        .filter_map(|field| Some((field.field.clone()?, field.parameters.get("scale")?.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
