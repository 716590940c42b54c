//! The rows of the views as JSON, by one encoder for replay's files, live files and topics.
//!
//! A row is one flat object. Its key columns come first, so the text of the key is a prefix of the text of the row.
//! Both are made at once:
//! ```text
//! {"key_id":"…","window":"1h","window_start":"…"   ,"calls":1,…,"final":false}
//! └──── key_columns; with `}` a topic's key ─────┘ └────── value_columns ─────┘
//! ```
//! All text is appended to a buffer, and no row is built in between. Parts that rows share (a window's columns, an
//! owner's, a key's name) are made once. A row costs 100 to 200 ns.

use std::borrow::Cow;

use hashbrown::HashMap;
use keytide_config::View;
use keytide_dataflow::model::{EventTime, KeyId, NameId, Position, id_digits, push_hex};
use keytide_dataflow::*;
use serde_json::value::RawValue;

use super::names::{JsonName, Names};
use super::place::{RowPlace, RowSubject};
use crate::decode::DeadLetter;
use crate::input::PartitionInfo;
use crate::tables::{RowLocation, TableDeadLetter};

/// Returns a time in milliseconds as RFC 3339, in UTC, with as many digits of the second as it has.
#[must_use]
pub fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// Names, and the texts that are made of them once. Rows come in the order of their keys, so the last key's name
/// and owner are mostly those of the next row.
#[derive(Debug)]
pub struct Labels<'a> {
    names: &'a Names,
    windows: HashMap<(Level, EventTime), Vec<u8>>,
    key: Option<(KeyId, Option<&'a JsonName>)>,
    owner: (Owner, Vec<u8>),
}

impl<'a> Labels<'a> {
    /// Makes the labels of `names`.
    #[must_use]
    pub fn new(names: &'a Names) -> Self {
        let mut unknown = Vec::new();
        owner(&mut unknown, names, &Owner::default());
        Self { names, windows: HashMap::new(), key: None, owner: (Owner::default(), unknown) }
    }

    pub(super) fn names(&self) -> &'a Names {
        self.names
    }

    pub(super) fn key(&mut self, key: KeyId, label: &str, out: &mut Vec<u8>) {
        let name = match self.key {
            Some((known, name)) if known == key => name,
            _ => self.names.key(key),
        };
        self.key = Some((key, name));
        match name {
            Some(name) => string(out, label, &name.json),
            None => {
                string(out, label, b"\"");
                match key.bucket_name() {
                    Some(name) => out.extend_from_slice(name.as_bytes()),
                    None => out.extend_from_slice(&id_digits(key.0)),
                }
                out.push(b'"');
            }
        }
    }

    fn scope(&mut self, scope: Scope, out: &mut Vec<u8>) {
        match scope {
            Scope::Key(key) => self.key(key, r#"{"scope":"key","id":"#, out),
            Scope::Route(route) => string(out, r#"{"scope":"route","id":"#, &self.names.route(route).id.json),
        }
    }

    pub(super) fn owner(&mut self, of: &Owner, out: &mut Vec<u8>) {
        if self.owner.0 != *of {
            self.owner.0 = *of;
            self.owner.1.clear();
            owner(&mut self.owner.1, self.names, of);
        }
        out.extend_from_slice(&self.owner.1);
    }

    fn window(&mut self, level: Level, start: EventTime, out: &mut Vec<u8>) {
        let label = self.windows.entry((level, start)).or_insert_with(|| {
            format!(r#","window":"{}","window_start":"{}""#, level.label(), time(start)).into_bytes()
        });
        out.extend_from_slice(label);
    }
}

/// Writes a row of a view as JSON.
pub trait EncodeRow {
    const VIEW: View;

    /// Writes the key columns as an object that isn't closed.
    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>);

    /// Writes the other columns, which close the object.
    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>);

    /// Returns whether this takes the row back. Then its only other column is `"retracted":true`.
    fn is_retracted(&self) -> bool {
        false
    }

    /// Returns the place by which answers at request time find the row; `None` if none has it.
    fn place(&self) -> Option<RowPlace> {
        None
    }

    /// Writes the row as a line.
    fn line(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        self.key_columns(labels, out);
        self.value_columns(labels, out);
        out.push(b'\n');
    }
}

pub(super) fn number(out: &mut Vec<u8>, label: &str, value: u64) {
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(super) fn string(out: &mut Vec<u8>, label: &str, json: &[u8]) {
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(json);
}

pub(super) fn text(out: &mut Vec<u8>, label: &str, text: &str) {
    out.extend_from_slice(label.as_bytes());
    serde_json::to_writer(out, text).expect("a string can always be written to memory");
}

/// Writes an id as 32 hexadecimal digits.
pub(super) fn id_text(out: &mut Vec<u8>, label: &str, id: u128) {
    string(out, label, b"\"");
    out.extend_from_slice(&id_digits(id));
    out.push(b'"');
}

pub(super) fn boolean(value: bool) -> &'static [u8] {
    if value { b"true" } else { b"false" }
}

fn usage(out: &mut Vec<u8>, usage: &Usage) {
    number(out, r#","calls":"#, usage.calls);
    number(out, r#","errors_4xx":"#, usage.errors_4xx);
    number(out, r#","errors_5xx":"#, usage.errors_5xx);
    number(out, r#","bytes_in":"#, usage.bytes_in);
    number(out, r#","bytes_out":"#, usage.bytes_out);
    number(out, r#","latency_sum_us":"#, usage.latency_sum_us);
    number(out, r#","latency_calls":"#, usage.latency_calls);
    number(out, r#","free_calls":"#, usage.free_calls);
    number(out, r#","units":"#, usage.units);
}

fn owner(out: &mut Vec<u8>, names: &Names, owner: &Owner) {
    string(out, r#","subscription":"#, names.json(owner.subscription));
    string(out, r#","customer":"#, names.json(owner.customer));
    string(out, r#","plan":"#, names.json(owner.plan));
}

fn flags(out: &mut Vec<u8>, complete: bool, is_final: bool) {
    let text: &str = match (complete, is_final) {
        (false, false) => r#","complete":false,"final":false}"#,
        (false, true) => r#","complete":false,"final":true}"#,
        (true, false) => r#","complete":true,"final":false}"#,
        (true, true) => r#","complete":true,"final":true}"#,
    };
    out.extend_from_slice(text.as_bytes());
}

impl EncodeRow for Row<KeyId, OwnedUsage> {
    const VIEW: View = View::Usage;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        labels.key(self.group, r#"{"key_id":"#, out);
        labels.window(self.level, self.start, out);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        usage(out, &self.value.usage);
        labels.owner(&self.value.owner, out);
        flags(out, self.complete, self.is_final);
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_window(RowSubject::Key(self.group), self.level, self.start))
    }
}

impl EncodeRow for Row<KeyRoute, OwnedUsage> {
    const VIEW: View = View::UsageByRoute;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let route = labels.names.route(self.group.route);
        labels.key(self.group.key, r#"{"key_id":"#, out);
        string(out, r#","api":"#, &route.api.json);
        string(out, r#","method":"#, &route.method.json);
        string(out, r#","route":"#, &route.route.json);
        labels.window(self.level, self.start, out);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        usage(out, &self.value.usage);
        labels.owner(&self.value.owner, out);
        flags(out, self.complete, self.is_final);
    }
}

/// A value of a key or a route, in a view of its own.
pub trait ScopeValue: Send + Sync {
    const VIEW: View;
    /// True if answers at request time have the rows of keys.
    const IS_PLACED: bool;

    /// Writes the columns of the value.
    fn columns(&self, out: &mut Vec<u8>);
}

impl ScopeValue for Latency {
    const VIEW: View = View::Latency;
    const IS_PLACED: bool = true;

    fn columns(&self, out: &mut Vec<u8>) {
        number(out, r#","calls":"#, self.calls);
        number(out, r#","p50_us":"#, self.p50_us);
        number(out, r#","p90_us":"#, self.p90_us);
        number(out, r#","p95_us":"#, self.p95_us);
        number(out, r#","p99_us":"#, self.p99_us);
        number(out, r#","max_us":"#, self.max_us);
        number(out, r#","mean_us":"#, self.mean_us);
    }
}

impl ScopeValue for Callers {
    const VIEW: View = View::Callers;
    const IS_PLACED: bool = false;

    fn columns(&self, out: &mut Vec<u8>) {
        number(out, r#","callers":"#, self.callers);
        string(out, r#","exact":"#, boolean(self.exact));
    }
}

impl<V: ScopeValue> EncodeRow for Row<Scope, V> {
    const VIEW: View = V::VIEW;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        labels.scope(self.group, out);
        labels.window(self.level, self.start, out);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        self.value.columns(out);
        flags(out, self.complete, self.is_final);
    }

    fn place(&self) -> Option<RowPlace> {
        match self.group {
            Scope::Key(key) if V::IS_PLACED => {
                Some(RowPlace::of_window(RowSubject::Key(key), self.level, self.start))
            }
            Scope::Key(_) | Scope::Route(_) => None,
        }
    }
}

impl EncodeRow for Row<KeyCountry, CountryCalls> {
    const VIEW: View = View::Geo;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        labels.key(self.group.key, r#"{"key_id":"#, out);
        string(out, r#","country":""#, self.group.country.as_str().as_bytes());
        out.push(b'"');
        labels.window(self.level, self.start, out);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        number(out, r#","calls":"#, self.value.calls);
        number(out, r#","errors":"#, self.value.errors);
        let mut label = r#","asns":[{"asn":"#;
        if self.value.asns.is_empty() {
            out.extend_from_slice(br#","asns":["#);
        }
        for (asn, calls) in &self.value.asns {
            number(out, label, u64::from(*asn));
            number(out, r#","calls":"#, *calls);
            out.push(b'}');
            label = r#",{"asn":"#;
        }
        out.push(b']');
        flags(out, self.complete, self.is_final);
    }

    fn place(&self) -> Option<RowPlace> {
        let KeyCountry { key, country } = self.group;
        Some(RowPlace::of_country(key, country, self.level, self.start))
    }
}

impl EncodeRow for Row<NameId, Option<SubscriptionUsage>> {
    const VIEW: View = View::SubscriptionUsage;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        string(out, r#"{"subscription":"#, labels.names.json(self.group));
        labels.window(self.level, self.start, out);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Some(value) = &self.value else {
            out.extend_from_slice(br#","retracted":true}"#);
            return;
        };
        let names = labels.names;
        usage(out, &value.usage);
        number(out, r#","keys":"#, value.keys);
        string(out, r#","customer":"#, names.json(value.owner.customer));
        string(out, r#","plan":"#, names.json(value.owner.plan));
        string(out, r#","plan_name":"#, names.json(value.owner.plan_name));
        flags(out, self.complete, self.is_final);
    }

    fn is_retracted(&self) -> bool {
        self.value.is_none()
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_window(RowSubject::Subscription(self.group), self.level, self.start))
    }
}

/// The location of a record, as the views name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordLocation<'a> {
    /// The source, or `tables.NAME` for rows of a table.
    pub source: Cow<'a, str>,
    /// The partition, or the number of the file, within the source.
    pub partition: u32,
    /// Kafka's offset, the byte at which a file's line starts, or a table's line.
    pub offset: u64,
    /// The index of the record within its message.
    pub index: u32,
    pub path: Option<Cow<'a, str>>,
}

impl<'a> RecordLocation<'a> {
    /// Returns the location of a source's record.
    ///
    /// # Panics
    /// If `position` names none of the job's `partitions`.
    #[must_use]
    pub fn of(position: Position, partitions: &'a [PartitionInfo]) -> Self {
        let info = &partitions[position.partition as usize];
        Self {
            source: Cow::Borrowed(&info.source),
            partition: info.number,
            offset: position.offset,
            index: position.index,
            path: info.path.as_deref().map(Cow::Borrowed),
        }
    }

    /// Returns the location of a table's row.
    #[must_use]
    pub fn of_row(letter: &TableDeadLetter) -> RecordLocation<'static> {
        let (partition, offset, path) = match &letter.location {
            RowLocation::File { path, line } => (0, *line, Some(path.display().to_string().into())),
            RowLocation::Topic { partition, offset, .. } => (*partition, *offset, None),
        };
        RecordLocation {
            source: format!("tables.{}", letter.table).into(),
            partition,
            offset,
            index: 0,
            path,
        }
    }

    fn key_columns(&self, out: &mut Vec<u8>) {
        text(out, r#"{"source":"#, &self.source);
        number(out, r#","partition":"#, u64::from(self.partition));
        number(out, r#","offset":"#, self.offset);
        number(out, r#","index":"#, u64::from(self.index));
    }

    /// Writes the file of the record, the last of all columns.
    fn path_column(&self, out: &mut Vec<u8>) {
        match &self.path {
            Some(path) => text(out, r#","path":"#, path),
            None => out.extend_from_slice(br#","path":null"#),
        }
    }
}

/// A late event and its location.
#[derive(Clone, Debug)]
pub struct LateRow<'a> {
    pub location: RecordLocation<'a>,
    pub late: Late,
}

impl EncodeRow for LateRow<'_> {
    const VIEW: View = View::Late;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        self.location.key_columns(out);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        labels.key(self.late.key, r#","key_id":"#, out);
        if self.late.request.is_some() {
            id_text(out, r#","request_id_hash":"#, self.late.request.bits());
        } else {
            out.extend_from_slice(br#","request_id_hash":null"#);
        }
        text(out, r#","event_time":"#, &time(self.late.time));
        number(out, r#","lateness_ms":"#, self.late.late_ms);
        string(out, r#","counted":"#, boolean(self.late.counted));
        self.location.path_column(out);
        string(out, r#","proven":"#, boolean(self.late.proven));
        out.push(b'}');
    }
}

/// A dead letter and its location. Of the record it holds only what the decoder vouches for.
#[derive(Clone, Debug)]
pub struct DeadRow<'a> {
    pub location: RecordLocation<'a>,
    pub reason: &'a str,
    /// The length of the record in bytes.
    pub length: u64,
    pub sha256: [u8; 32],
    /// The JSON of the record's parts that could be parsed.
    pub kept: Option<&'a str>,
    /// True if the record counts all the same, and is only odd.
    pub counted: bool,
}

impl<'a> DeadRow<'a> {
    /// Makes the row of a source's record. See [`RecordLocation::of`] for its panics.
    #[must_use]
    pub fn of(letter: &'a DeadLetter, partitions: &'a [PartitionInfo]) -> Self {
        Self {
            location: RecordLocation::of(letter.position, partitions),
            reason: &letter.reason,
            length: letter.length,
            sha256: letter.sha256,
            kept: letter.kept.as_deref(),
            counted: letter.counted,
        }
    }

    /// Makes the row of a table's dead letter.
    #[must_use]
    pub fn of_row(letter: &'a TableDeadLetter) -> Self {
        Self {
            location: RecordLocation::of_row(letter),
            reason: &letter.reason,
            length: letter.length,
            sha256: letter.sha256,
            kept: None,
            counted: false,
        }
    }
}

impl EncodeRow for DeadRow<'_> {
    const VIEW: View = View::DeadLetters;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        self.location.key_columns(out);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        text(out, r#","reason":"#, self.reason);
        number(out, r#","length":"#, self.length);
        out.extend_from_slice(br#","sha256":""#);
        push_hex(out, &self.sha256);
        let kept = self.kept.and_then(|kept| serde_json::from_str::<&RawValue>(kept).ok());
        string(out, r#"","kept":"#, kept.map_or("null", RawValue::get).as_bytes());
        self.location.path_column(out);
        string(out, r#","counted":"#, boolean(self.counted));
        out.push(b'}');
    }
}
