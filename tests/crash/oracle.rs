//! The judge of a crash run: pure functions of what was sent, and of what a reader of the results saw.
//!
//! ```text
//! sender ──► Owed: calls by key and window, late calls, bad records ──┐
//!                                                                     ├──► Verdict: lost, repeated, wrong
//! follower ──► Seen: rows, records of progress ───────────────────────┘
//! ```
//! It has obligations: each record that was sent is owed, and each row that was seen must be owed. Rows of windows are
//! recounted from the calls. Rows of logs are compared with the records that they are about. Under
//! [`Promise::ExactlyOnce`] it holds, over the whole run, that
//!
//! 1. no `keytide-id` is seen twice, and each is the one that the record's bytes have;
//! 2. the ticks of a key's rows ascend;
//! 3. the numbers of the progress records are dense, and each has the count and the sum of ids of its tick's rows;
//! 4. no row belongs to a tick without such a record.
//!
//! Under either promise each transition of an incident that is in the log is one mail and one request. Either comes again
//! only as it was, and at most once for each life, since one of a kind is under way at a time. Notices are one mail a day,
//! however many lives the day has.
//!
//! Limits: the values of views other than usage, late calls and bad records are held by 1 to 4 alone. A row that is made
//! again with another value, and has a record that says so, is found only in those views.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use keytide_config::View;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

/// The number of findings of a kind that a verdict quotes.
const QUOTED: usize = 8;
/// The widths of windows, each with the digits of a time that say its start, and what follows them.
const WINDOWS: [(&str, usize, &str); 4] = [
    ("1m", "2025-06-02T08:00".len(), ":00Z"),
    ("1h", "2025-06-02T08".len(), ":00:00Z"),
    ("1d", "2025-06-02".len(), "T00:00:00Z"),
    ("1mo", "2025-06".len(), "-01T00:00:00Z"),
];

/// The promise that a job is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing is lost, and rows of ticks that weren't acknowledged may come twice.
    AtLeastOnce,
    /// Nothing is lost and nothing comes twice.
    ExactlyOnce,
}

/// The windows whose rows have had the time to be published. Wider ones may lag behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    /// The widest windows of usage.
    pub(crate) usage: &'static str,
    /// True if those of subscriptions have, up to the same width, and incidents.
    pub(crate) later: bool,
}

/// A window of a group, as its row's key has it: the group, the width, the start.
type Window = (String, &'static str, String);

/// Numbers of calls, of those with a status of 4xx, and of those with 5xx.
type Counts = [u64; 3];

/// The place of a record in the source: its partition and offset.
type Place = (u64, u64);

/// The rows that the job owes for the records that were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Owed {
    usage: BTreeMap<Window, Counts>,
    /// The late calls: their keys and times.
    late: BTreeMap<Place, (String, String)>,
    /// The records that are no calls: their lengths.
    dead: BTreeMap<Place, u64>,
    /// The subscription that owns each key in the end.
    owners: BTreeMap<String, String>,
    /// Keys whose calls are incidents.
    suspects: BTreeSet<String>,
}

impl Owed {
    /// Adds a call that wasn't sent before.
    pub(crate) fn call(&mut self, key: &str, at_ms: u64, status: u16) {
        for (window, start) in windows(at_ms) {
            let counts = self.usage.entry((key.to_owned(), window, start)).or_default();
            counts[0] += 1;
            counts[1] += u64::from((400..500).contains(&status));
            counts[2] += u64::from(status >= 500);
        }
    }

    /// Adds that a call, which counts all the same, is late.
    pub(crate) fn late(&mut self, place: Place, key: &str, at_ms: u64) {
        self.late.insert(place, (key.to_owned(), text(at_ms)));
    }

    /// Adds a record that is no call.
    pub(crate) fn dead(&mut self, place: Place, length: usize) {
        self.dead.insert(place, length as u64);
    }

    /// Notes the owner of a key from now on.
    pub(crate) fn owner(&mut self, key: &str, subscription: &str) {
        self.owners.insert(key.to_owned(), subscription.to_owned());
    }

    /// Adds that a key calls that must not.
    pub(crate) fn suspect(&mut self, key: &str) {
        self.suspects.insert(key.to_owned());
    }

    /// Returns the usage of the subscriptions by the owners in the end.
    fn usage_of_subscriptions(&self) -> BTreeMap<Window, Counts> {
        let mut sums: BTreeMap<Window, Counts> = BTreeMap::new();
        for ((key, window, start), counts) in &self.usage {
            if let Some(owner) = self.owners.get(key) {
                let sum = sums.entry((owner.clone(), window, start.clone())).or_default();
                sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        sums
    }
}

/// Returns a time as rows have it.
fn text(at_ms: u64) -> String {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).unwrap()).unwrap();
    at.to_string()
}

/// Returns the windows that a time lies in.
fn windows(at_ms: u64) -> [(&'static str, String); WINDOWS.len()] {
    let text = text(at_ms);
    WINDOWS.map(|(window, digits, rest)| (window, format!("{}{rest}", &text[..digits])))
}

/// A row as a reader saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenRow {
    pub(crate) view: View,
    pub(crate) topic: String,
    pub(crate) tick: u64,
    /// The id in its header; files have none.
    pub(crate) id: Option<u128>,
    /// The key columns, as a JSON object.
    pub(crate) key: String,
    /// JSON, all columns; none if it was taken back.
    pub(crate) value: Option<String>,
}

impl SeenRow {
    /// Returns the id that its bytes have.
    pub(crate) fn identity(&self) -> u128 {
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = self.topic.clone().into_bytes();
        bytes.push(0);
        bytes.extend_from_slice(&self.tick.to_be_bytes());
        bytes.extend_from_slice(&(self.key.len() as u64).to_be_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(value.as_bytes());
        xxh3_128(&bytes)
    }
}

/// The way by which people, or their programs, are told of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Mail,
    Request,
}

/// A mail or a request as its receiver took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) channel: Channel,
    /// The Message-ID, or `INCIDENT.SEQ`.
    pub(crate) id: String,
    /// The mail with its headers, or the body of the request.
    pub(crate) bytes: Vec<u8>,
}

/// A record of the topic of progress about a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenTick {
    pub(crate) number: u64,
    pub(crate) tick: u64,
    pub(crate) count: u64,
    pub(crate) digest: u128,
}

impl SeenTick {
    /// Reads the value of a record; `None` if it isn't about a tick.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let record: Value = serde_json::from_str(value).ok()?;
        if record["record"] != "tick" {
            return None;
        }
        let number = |name: &str| record[name].as_u64();
        Some(Self {
            number: number("number")?,
            tick: number("tick")?,
            count: number("count")?,
            digest: u128::from_str_radix(record["digest"].as_str()?, 16).ok()?,
        })
    }
}

/// The last row of a key.
struct LastRow {
    tick: u64,
    value: Option<String>,
    /// The number of its rows.
    rows: u64,
}

/// Everything that a reader saw from the beginning of all topics, or files, to their end.
#[derive(Default)]
pub(crate) struct Seen {
    rows: u64,
    last: HashMap<(View, String), LastRow>,
    ids: HashSet<u128>,
    /// The number of rows of each tick, and the sum of their ids.
    ticks: BTreeMap<u64, (u64, u128)>,
    progress: BTreeMap<u64, SeenTick>,
    /// The last version of each view's rows in files.
    versions: HashMap<View, u64>,
    verdict: Verdict,
}

/// The findings of a run. Without any, the promise was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) lost: Findings,
    pub(crate) repeated: Findings,
    /// Everything that is wrong otherwise.
    pub(crate) wrong: Findings,
}

/// Findings of one kind: their number, and the first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl Findings {
    fn add(&mut self, finding: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < QUOTED {
            self.first.push(finding());
        }
    }
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

impl Seen {
    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the number of ticks that have rows.
    pub(crate) fn ticks(&self) -> usize {
        self.ticks.len()
    }

    /// Adds a row. The rows of a key come in the order of their offsets.
    pub(crate) fn row(&mut self, row: SeenRow) {
        self.rows += 1;
        let of_tick = self.ticks.entry(row.tick).or_default();
        of_tick.0 += 1;
        if let Some(id) = row.id {
            of_tick.1 = of_tick.1.wrapping_add(id);
            if !self.ids.insert(id) {
                self.verdict.repeated.add(|| format!("id {id:032x}: {row:?}"));
            }
            if id != row.identity() {
                self.verdict.wrong.add(|| format!("its bytes have another id: {row:?}"));
            }
        }
        let last = self.last.entry((row.view, row.key)).or_insert(LastRow { tick: 0, value: None, rows: 0 });
        if last.rows > 0 && row.tick <= last.tick {
            // One tick has at most one row of a key, and a later tick a later row.
            let before = last.tick;
            let (view, tick) = (row.view.name(), row.tick);
            self.verdict.repeated.add(|| format!("{view}: tick {tick} behind {before}: {:?}", row.value));
        }
        *last = LastRow { tick: row.tick, value: row.value, rows: last.rows + 1 };
    }

    /// Adds the version of a row in files, which count the rows of a view.
    pub(crate) fn version(&mut self, view: View, version: u64) {
        let last = self.versions.entry(view).or_default();
        let expected = *last + 1;
        let finding = || format!("{}: version {version} instead of {expected}", view.name());
        match version.cmp(&expected) {
            std::cmp::Ordering::Less => self.verdict.repeated.add(finding),
            std::cmp::Ordering::Greater => self.verdict.lost.add(finding),
            std::cmp::Ordering::Equal => {}
        }
        *last = version;
    }

    /// Adds a record of progress. Those of a number come in the order of their offsets.
    pub(crate) fn tick(&mut self, tick: SeenTick) {
        if let Some(earlier) = self.progress.insert(tick.number, tick) {
            self.verdict.repeated.add(|| format!("progress {tick:?} behind {earlier:?}"));
        }
    }

    /// Judges mails and requests by the log of incidents, after all rows were seen. Returns the numbers of those that came
    /// again.
    pub(crate) fn tell(&mut self, taken: &[Taken], lives: u64) -> u64 {
        let Self { last, verdict, .. } = self;
        // STEP 1: what is owed, by the log.
        let mut owed: BTreeMap<(Channel, String), Vec<&[u8]>> = BTreeMap::new();
        for ((view, _), last) in last.iter() {
            let value = last.value.as_deref().filter(|_| *view == View::IncidentLog);
            let Some(row) = value.and_then(|value| serde_json::from_str::<Value>(value).ok()) else {
                continue;
            };
            let id = format!("{}.{}", row["incident_id"].as_str().unwrap_or_default(), row["seq"]);
            let is_repeat =
                row["repeat"] == true && row["transition"] != "raised" && row["transition"] != "withdrawn";
            if row["level"] != "notice" && !is_repeat {
                owed.insert((Channel::Mail, format!("<{id}.security@localhost>")), Vec::new());
            }
            owed.insert((Channel::Request, id), Vec::new());
        }
        // STEP 2: what came for it. A run is shorter than a day, so that it has one mail of notices.
        let daily = taken.iter().find(|taken| taken.id.starts_with("<daily-"));
        owed.extend(daily.map(|daily| ((Channel::Mail, daily.id.clone()), Vec::new())));
        for Taken { channel, id, bytes } in taken {
            match owed.get_mut(&(*channel, id.clone())) {
                Some(copies) => copies.push(bytes),
                None => verdict.wrong.add(|| format!("{channel:?} {id}: it is in no log, or too early")),
            }
        }
        let mut again = 0;
        for ((channel, id), copies) in &owed {
            if copies.is_empty() {
                verdict.lost.add(|| format!("{channel:?} {id}"));
            }
            if copies.iter().any(|copy| copy != &copies[0]) {
                verdict.wrong.add(|| format!("{channel:?} {id}: it came again in other words"));
            }
            again += (copies.len() as u64).saturating_sub(1);
        }
        for of in [Channel::Mail, Channel::Request] {
            let copies = taken.iter().filter(|taken| taken.channel == of).count();
            let each =
                owed.iter().filter(|((channel, _), copies)| *channel == of && !copies.is_empty()).count();
            if copies.saturating_sub(each) as u64 > lives {
                verdict.wrong.add(|| format!("{of:?}: {copies} for {each}, in {lives} lives"));
            }
        }
        again
    }

    /// Judges all that was seen by what is owed.
    pub(crate) fn judge(
        mut self,
        owed: &Owed,
        promise: Promise,
        has_progress: bool,
        settled: Settled,
    ) -> Verdict {
        let mut verdict = std::mem::take(&mut self.verdict);
        let widest = WINDOWS.iter().position(|(window, ..)| *window == settled.usage).unwrap();
        let judged: Vec<&str> = WINDOWS[..=widest].iter().map(|(window, ..)| *window).collect();
        self.judge_windows(View::Usage, &owed.usage, &judged, &mut verdict);
        if settled.later {
            let of_subscriptions = owed.usage_of_subscriptions();
            self.judge_windows(View::SubscriptionUsage, &of_subscriptions, &judged, &mut verdict);
        }
        let late: BTreeMap<Place, Value> = owed
            .late
            .iter()
            .map(|(place, (key, at))| {
                (*place, serde_json::json!({ "key_id": key, "event_time": at, "counted": true }))
            })
            .collect();
        self.judge_log(View::Late, &late, &mut verdict);
        let dead: BTreeMap<Place, Value> = owed
            .dead
            .iter()
            .map(|(place, length)| (*place, serde_json::json!({ "length": length, "counted": false })))
            .collect();
        self.judge_log(View::DeadLetters, &dead, &mut verdict);
        let none = BTreeSet::new();
        self.judge_incidents(if settled.later { &owed.suspects } else { &none }, &mut verdict);

        if has_progress {
            self.judge_progress(&mut verdict);
        }
        if promise == Promise::AtLeastOnce {
            verdict.repeated = Findings::default();
        }
        verdict
    }

    /// Compares the last rows of windows with a recount of the calls.
    fn judge_windows(
        &self,
        view: View,
        owed: &BTreeMap<Window, Counts>,
        judged: &[&str],
        verdict: &mut Verdict,
    ) {
        let mut found = BTreeMap::new();
        for ((_, key), last) in self.last.iter().filter(|((of_view, _), _)| *of_view == view) {
            let Some(value) = &last.value else { continue };
            let row: Value = serde_json::from_str(value).unwrap_or_default();
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let Some((width, ..)) = WINDOWS.into_iter().find(|(width, ..)| row["window"] == *width) else {
                verdict.wrong.add(|| format!("{}: a window of {key}", view.name()));
                continue;
            };
            let counts =
                ["calls", "errors_4xx", "errors_5xx"].map(|column| row[column].as_u64().unwrap_or(0));
            found.insert((text(view.key()[0]), width, text("window_start")), counts);
        }
        // Minutes of subscriptions have no rows.
        let is_judged = |window: &str| judged.contains(&window) && (view == View::Usage || window != "1m");
        found.retain(|(_, width, _), _| is_judged(width));
        for (window, counts) in owed.iter().filter(|((_, width, _), _)| is_judged(width)) {
            match found.remove(window) {
                Some(seen) if seen == *counts => {}
                Some(seen) if seen[0] > counts[0] => {
                    // A call that counts twice is no row that comes twice.
                    verdict
                        .wrong
                        .add(|| format!("{} {window:?}: {seen:?}, owed are {counts:?}", view.name()));
                }
                Some(seen) => {
                    verdict.lost.add(|| format!("{} {window:?}: {seen:?}, owed are {counts:?}", view.name()));
                }
                None => {
                    verdict.lost.add(|| format!("{} {window:?}: no row, owed are {counts:?}", view.name()))
                }
            }
        }
        for (window, seen) in found {
            verdict.wrong.add(|| format!("{} {window:?}: {seen:?}, nothing is owed", view.name()));
        }
    }

    /// Compares the rows of a log with the records that they are about.
    fn judge_log(&self, view: View, owed: &BTreeMap<Place, Value>, verdict: &mut Verdict) {
        let name = view.name();
        let mut found = BTreeSet::new();
        for ((_, key), last) in self.last.iter().filter(|((of_view, _), _)| *of_view == view) {
            let row: Value =
                last.value.as_deref().and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
            let place = (row["partition"].as_u64(), row["offset"].as_u64(), row["index"].as_u64());
            let (Some(partition), Some(offset), Some(0)) = place else {
                verdict.wrong.add(|| format!("{name}: no record is at {key}"));
                continue;
            };
            let place = (partition, offset);
            let Some(columns) = owed.get(&place).and_then(Value::as_object) else {
                verdict.wrong.add(|| format!("{name} {place:?}: nothing is owed: {row}"));
                continue;
            };
            if columns.iter().any(|(column, value)| row[column] != *value) {
                verdict.wrong.add(|| format!("{name} {place:?}: {row}, owed are {columns:?}"));
            }
            if last.rows > 1 {
                verdict.repeated.add(|| format!("{name} {place:?}: {} rows", last.rows));
            }
            found.insert(place);
        }
        for place in owed.keys().filter(|place| !found.contains(place)) {
            verdict.lost.add(|| format!("{name} {place:?}: no row"));
        }
    }

    /// Compares the log of incidents with the incidents.
    fn judge_incidents(&self, suspects: &BTreeSet<String>, verdict: &mut Verdict) {
        let mut log: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
        for ((view, key), last) in &self.last {
            if *view != View::IncidentLog {
                continue;
            }
            let row: Value =
                last.value.as_deref().and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
            let (Some(id), Some(seq)) = (row["incident_id"].as_str(), row["seq"].as_u64()) else {
                verdict.wrong.add(|| format!("incident_log: {key}"));
                continue;
            };
            if last.rows > 1 {
                verdict.repeated.add(|| format!("incident_log {id} {seq}: {} rows", last.rows));
            }
            log.entry(id.to_owned()).or_default().insert(seq, row);
        }
        for (id, transitions) in &log {
            let dense = transitions.keys().copied().eq(0..transitions.len() as u64);
            if !dense {
                let seen = transitions.keys();
                verdict.lost.add(|| format!("incident_log {id}: of its transitions are {seen:?}"));
            }
            let keys: BTreeSet<String> = transitions.values().map(|row| row["key_id"].to_string()).collect();
            if keys.len() != 1 {
                verdict.wrong.add(|| format!("incident_log {id}: it is about {keys:?}"));
            }
        }
        for key in suspects {
            let is_about = |row: &Value| row["key_id"].as_str() == Some(key);
            if !log.values().flat_map(BTreeMap::values).any(is_about) {
                verdict.lost.add(|| format!("incident_log: nothing about {key}"));
            }
        }
        for ((view, _), last) in &self.last {
            if *view != View::Incidents {
                continue;
            }
            let row: Value =
                last.value.as_deref().and_then(|row| serde_json::from_str(row).ok()).unwrap_or_default();
            let newest = row["incident_id"].as_str().and_then(|id| log.get(id)?.last_key_value());
            match newest {
                None => verdict.lost.add(|| format!("incident_log: nothing of {row}")),
                Some((seq, logged))
                    if logged["state"] != row["state"] || logged["key_id"] != row["key_id"] =>
                {
                    verdict.wrong.add(|| format!("incidents {row}: its transition {seq} is {logged}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Compares the records of progress with the rows of their ticks.
    fn judge_progress(&self, verdict: &mut Verdict) {
        let mut before: Option<SeenTick> = None;
        let mut recorded = BTreeSet::new();
        for (number, tick) in &self.progress {
            let expected = before.map_or(1, |before| before.number + 1);
            if *number != expected {
                verdict.lost.add(|| format!("progress: number {expected}, before {number}"));
            }
            if before.is_some_and(|before| before.tick >= tick.tick) {
                verdict.wrong.add(|| format!("progress: {tick:?} behind {before:?}"));
            }
            let (count, digest) = self.ticks.get(&tick.tick).copied().unwrap_or_default();
            if (count, digest) != (tick.count, tick.digest) {
                let finding = || format!("tick {}: {count} rows, sum {digest:032x}, but {tick:?}", tick.tick);
                match count.cmp(&tick.count) {
                    std::cmp::Ordering::Less => verdict.lost.add(finding),
                    std::cmp::Ordering::Greater => verdict.repeated.add(finding),
                    std::cmp::Ordering::Equal => verdict.wrong.add(finding),
                }
            }
            recorded.insert(tick.tick);
            before = Some(*tick);
        }
        for (tick, (count, _)) in self.ticks.iter().filter(|(tick, _)| !recorded.contains(tick)) {
            verdict.wrong.add(|| format!("tick {tick}: {count} rows without a record of progress"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Settled = Settled { usage: "1mo", later: true };
    const AT: u64 = 1_748_853_176_007;

    /// A run in which all went well: what is owed, the rows in their order, the records of progress.
    fn good() -> (Owed, Vec<SeenRow>, Vec<SeenTick>) {
        let mut owed = Owed::default();
        owed.owner("k", "s");
        owed.call("k", AT, 200);
        owed.call("k", AT + 60_000, 404);
        owed.late((0, 3), "k", AT + 60_000);
        owed.dead((2, 9), 12);
        owed.suspect("k");
        let mut rows = Vec::new();
        let mut add = |view: View, tick, key: Value, more: Value| {
            let mut value = key.as_object().unwrap().clone();
            value.extend(more.as_object().unwrap().clone());
            let (key, value) = (key.to_string(), Some(Value::from(value).to_string()));
            let topic = format!("p.{}.v1", view.name());
            let row = SeenRow { view, topic, tick, id: None, key, value };
            rows.push(SeenRow { id: Some(row.identity()), ..row });
        };
        for (view, group) in
            [(View::Usage, ("key_id", "k")), (View::SubscriptionUsage, ("subscription", "s"))]
        {
            for (tick, calls, errors) in [(1, 1, 0), (2, 2, 1)] {
                for (window, start) in windows(AT) {
                    if window == "1m" && (tick == 2 || view != View::Usage) {
                        continue;
                    }
                    let key =
                        serde_json::json!({ group.0: group.1, "window": window, "window_start": start });
                    let counts = serde_json::json!({ "calls": calls, "errors_4xx": errors, "errors_5xx": 0 });
                    add(view, tick, key, counts);
                }
            }
            if view != View::Usage {
                continue;
            }
            let (window, start) = windows(AT + 60_000)[0].clone();
            let key = serde_json::json!({ group.0: group.1, "window": window, "window_start": start });
            add(view, 2, key, serde_json::json!({ "calls": 1, "errors_4xx": 1, "errors_5xx": 0 }));
        }
        let place = |partition, offset| serde_json::json!({ "source": "calls", "partition": partition, "offset": offset, "index": 0 });
        let at = text(AT + 60_000);
        add(
            View::Late,
            2,
            place(0, 3),
            serde_json::json!({ "key_id": "k", "event_time": at, "counted": true }),
        );
        add(View::DeadLetters, 1, place(2, 9), serde_json::json!({ "length": 12, "counted": false }));
        for (seq, state) in ["open", "ended"].into_iter().enumerate() {
            let tick = 1 + seq as u64;
            let more = serde_json::json!({ "key_id": "k", "state": state });
            add(View::IncidentLog, tick, serde_json::json!({ "incident_id": "i", "seq": seq }), more.clone());
            add(View::Incidents, tick, serde_json::json!({ "incident_id": "i" }), more);
        }
        let progress = (1..=3).map(|tick| {
            let of_tick = rows.iter().filter(|row| row.tick == tick);
            let digest = of_tick.clone().filter_map(|row| row.id).fold(0_u128, u128::wrapping_add);
            SeenTick { number: tick, tick, count: of_tick.count() as u64, digest }
        });
        let progress = progress.collect();
        (owed, rows, progress)
    }

    fn judge(owed: &Owed, rows: &[SeenRow], progress: &[SeenTick], promise: Promise) -> Verdict {
        let mut seen = Seen::default();
        rows.iter().for_each(|row| seen.row(row.clone()));
        progress.iter().for_each(|tick| seen.tick(*tick));
        seen.judge(owed, promise, !progress.is_empty(), ALL)
    }

    #[test]
    fn a_run_in_which_all_went_well_has_no_finding() {
        let (owed, rows, progress) = good();
        for promise in [Promise::AtLeastOnce, Promise::ExactlyOnce] {
            assert_eq!(judge(&owed, &rows, &progress, promise), Verdict::default());
            assert_eq!(judge(&owed, &rows, &[], promise), Verdict::default());
        }
        assert_eq!(
            windows(AT).map(|(_, start)| start),
            ["2025-06-02T08:32:00Z", "2025-06-02T08:00:00Z", "2025-06-02T00:00:00Z", "2025-06-01T00:00:00Z"]
        );
        assert_eq!(text(AT), "2025-06-02T08:32:56.007Z");
    }

    #[test]
    fn each_row_that_is_dropped_repeated_or_altered_is_found() {
        let (owed, rows, progress) = good();
        let verdict = |rows: &[SeenRow]| judge(&owed, rows, &progress, Promise::ExactlyOnce);
        for at in 0..rows.len() {
            let mut dropped = rows.clone();
            dropped.remove(at);
            assert!(verdict(&dropped).lost.count > 0, "{:?}", rows[at]);
            // At once, and after all others.
            for to in [at, rows.len()] {
                let mut repeated = rows.clone();
                repeated.insert(to, rows[at].clone());
                assert!(verdict(&repeated).repeated.count > 0, "{:?}", rows[at]);
            }
            // In a later tick, as a job does that goes on from too early.
            let mut again = SeenRow { tick: 3, ..rows[at].clone() };
            again.id = Some(again.identity());
            let mut repeated = rows.clone();
            repeated.push(again);
            assert!(!verdict(&repeated).is_good(), "{:?}", rows[at]);
            let mut altered = rows.clone();
            altered[at].value = altered[at].value.take().map(|value| value + " ");
            assert!(!verdict(&altered).is_good(), "{:?}", rows[at]);
            altered[at].id = Some(altered[at].identity());
            assert!(!verdict(&altered).is_good(), "{:?}", rows[at]);
        }
    }

    #[test]
    fn without_progress_a_last_row_that_is_dropped_or_altered_is_found() {
        let (owed, rows, _) = good();
        let is_last = |at: usize| {
            let key = |row: &SeenRow| (row.view, row.key.clone());
            rows[at + 1..].iter().all(|later| key(later) != key(&rows[at]))
        };
        for at in (0..rows.len()).filter(|at| is_last(*at)) {
            let mut dropped = rows.clone();
            dropped.remove(at);
            let verdict = judge(&owed, &dropped, &[], Promise::AtLeastOnce);
            // The row before it may say the same of an incident.
            assert!(!verdict.is_good() || rows[at].view == View::Incidents, "{:?}", rows[at]);
            let mut altered = rows.clone();
            altered[at].value = altered[at].value.take().map(|value| value.replace("\"k\"", "\"other\""));
            altered[at].value =
                altered[at].value.take().map(|value| value.replace(":1,", ":8,").replace(":2,", ":8,"));
            altered[at].value = altered[at].value.take().map(|value| value.replace("12", "13"));
            altered[at].id = None;
            assert!(!judge(&owed, &altered, &[], Promise::AtLeastOnce).is_good(), "{:?}", altered[at]);
        }
        // A log's row that comes again in a later tick is repeated only where nothing may be.
        let late = rows.iter().find(|row| row.view == View::Late).unwrap();
        let again = SeenRow { tick: 9, id: None, ..late.clone() };
        let repeated = [&rows[..], &[again]].concat();
        assert!(judge(&owed, &repeated, &[], Promise::AtLeastOnce).is_good());
        assert_eq!(judge(&owed, &repeated, &[], Promise::ExactlyOnce).repeated.count, 1);
    }

    #[test]
    fn each_record_of_progress_that_is_dropped_repeated_or_altered_is_found() {
        let (owed, rows, progress) = good();
        let verdict = |progress: &[SeenTick]| judge(&owed, &rows, progress, Promise::ExactlyOnce);
        for at in 0..2 {
            let mut dropped = progress.clone();
            dropped.remove(at);
            assert!(!verdict(&dropped).is_good(), "{at}");
        }
        for at in 0..progress.len() {
            let mut repeated = progress.clone();
            repeated.insert(at, progress[at]);
            assert!(verdict(&repeated).repeated.count > 0);
            for alter in [
                |tick: &mut SeenTick| tick.count += 1,
                |tick: &mut SeenTick| tick.digest ^= 1,
                |tick: &mut SeenTick| tick.number += 7,
                |tick: &mut SeenTick| tick.tick += 7,
            ] {
                let mut altered = progress.clone();
                alter(&mut altered[at]);
                // The last tick has no row, and no later one that could miss it.
                assert!(!verdict(&altered).is_good() || (at == 2 && altered[2].tick == 10), "{altered:?}");
            }
        }
    }

    #[test]
    fn a_wide_window_that_did_not_settle_is_not_judged() {
        let (mut owed, rows, _) = good();
        owed.call("k", AT + 3_600_000, 200);
        let mut seen = Seen::default();
        rows.iter().for_each(|row| seen.row(row.clone()));
        let verdict = seen.judge(&owed, Promise::ExactlyOnce, false, Settled { usage: "1m", later: false });
        assert_eq!((verdict.lost.count, verdict.wrong.count), (1, 0), "{verdict:?}");
        assert!(judge(&owed, &rows, &[], Promise::ExactlyOnce).lost.count > 3);
    }

    #[test]
    fn a_call_that_is_owed_and_missing_or_counted_twice_is_found() {
        let (owed, rows, _) = good();
        let mut more = owed.clone();
        more.call("k", AT, 200);
        assert!(judge(&more, &rows, &[], Promise::AtLeastOnce).lost.count > 0);
        let mut fewer = Owed::default();
        fewer.owner("k", "s");
        fewer.call("k", AT, 200);
        assert!(judge(&fewer, &rows, &[], Promise::AtLeastOnce).wrong.count > 0);
        let mut others = owed.clone();
        others.suspect("z");
        assert_eq!(judge(&others, &rows, &[], Promise::AtLeastOnce).lost.count, 1);
        let mut other = owed;
        other.owner("k", "t");
        assert!(!judge(&other, &rows, &[], Promise::AtLeastOnce).is_good(), "its owner changed");
    }

    #[test]
    fn a_version_that_is_missing_or_comes_twice_is_found() {
        let verdict = |versions: &[u64]| {
            let mut seen = Seen::default();
            versions.iter().for_each(|version| seen.version(View::Geo, *version));
            seen.judge(&Owed::default(), Promise::ExactlyOnce, false, Settled { usage: "1m", later: false })
        };
        assert!(verdict(&[1, 2, 3]).is_good());
        assert_eq!(verdict(&[1, 3]).lost.count, 1);
        assert_eq!(verdict(&[2]).lost.count, 1);
        assert_eq!(verdict(&[1, 2, 2, 3]).repeated.count, 1);
    }

    #[test]
    fn a_mail_that_is_missing_comes_too_often_or_changes_is_found() {
        let row = |seq: u64, level: &str, repeat: bool| SeenRow {
            view: View::IncidentLog,
            topic: "incident_log".to_owned(),
            tick: seq,
            id: None,
            key: format!("{seq}"),
            value: Some(format!(
                r#"{{"incident_id":"i","seq":{seq},"transition":"opened","level":"{level}","repeat":{repeat}}}"#
            )),
        };
        let taken = |channel, id: &str| Taken { channel, id: id.to_owned(), bytes: id.as_bytes().to_vec() };
        let mail = taken(Channel::Mail, "<i.0.security@localhost>");
        let request = |seq: u64| taken(Channel::Request, &format!("i.{seq}"));
        let all = vec![mail.clone(), request(0), request(1), request(2)];
        let judge = |taken: &[Taken], lives: u64| {
            let mut seen = Seen::default();
            [row(0, "alert", false), row(1, "alert", true), row(2, "notice", false)]
                .into_iter()
                .for_each(|row| seen.row(row));
            let again = seen.tell(taken, lives);
            (seen.verdict.lost.count, seen.verdict.wrong.count, again)
        };
        assert_eq!(judge(&all, 0), (0, 0, 0));
        for at in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(at);
            assert_eq!(judge(&fewer, 0), (1, 0, 0), "{:?}", all[at]);
            let mut more = all.clone();
            more.push(all[at].clone());
            assert_eq!((judge(&more, 1), judge(&more, 0)), ((0, 0, 1), (0, 1, 1)), "{:?}", all[at]);
            more.last_mut().unwrap().bytes.push(b' ');
            assert_eq!(judge(&more, 1), (0, 1, 1));
        }
        let of_nothing = [&all[..], &[request(7)]].concat();
        assert_eq!(judge(&of_nothing, 9), (0, 1, 0));
        let daily = |hash: &str| taken(Channel::Mail, &format!("<daily-{hash}.security@localhost>"));
        assert_eq!(judge(&[&all[..], &[daily("a"), daily("a")]].concat(), 1), (0, 0, 1));
        assert_eq!(judge(&[&all[..], &[daily("a"), daily("b")]].concat(), 1), (0, 1, 0), "two in a day");
    }

    #[test]
    fn a_record_of_progress_is_read() {
        let tick = r#"{"record":"tick","number":7,"tick":1700000000000,"next":1,"reached":[],"count":3,"digest":"000000000000000000000000000000ff"}"#;
        let expected = SeenTick { number: 7, tick: 1_700_000_000_000, count: 3, digest: 255 };
        assert_eq!(SeenTick::parse(tick), Some(expected));
        assert_eq!(SeenTick::parse(r#"{"record":"claim","generation":1}"#), None);
        assert_eq!(SeenTick::parse(r#"{"record":"tick","number":7}"#), None);
    }
}
