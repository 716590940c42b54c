//! What the rows of the views add up to, for a person who watches.
//!
//! A row is the newest version of its key, so what is new in it is its difference to the version before. Differences
//! are summed by key over the last minute, and by country over the whole run. Everything comes from the rows that the
//! sinks publish and from nowhere else: what is shown can be found in the files.
//!
//! A row's version is forgotten with its final row, the last one that there is of it: so as much is kept as the job itself
//! holds open, however far apart in event time the partitions are read. Memory: about 100 B a key and minute, 6 MB for
//! 1,000 keys.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use keytide_connectors::decode::CLASSES;
use keytide_connectors::sink::TickOutput;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{Country, EventTime, KeyId, NameId, RouteId, Tick};
use keytide_dataflow::{KeyCountry, Late, Latency, Level, Owner, Row, Rows, Scope, Usage};

use super::incidents::IncidentList;

/// What "now" means for a key.
const RECENT_MS: u64 = 60_000;
/// Ticks whose numbers are kept.
const TICKS: usize = 300;
/// A key stands out by its errors from so many calls on, and from so many errors in a hundred.
const ODD: (u64, u64) = (20, 10);

/// What a tick had in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TickCounts {
    pub(super) events: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    pub(super) dead_letters: u64,
}

impl TickCounts {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
    }
}

/// Calls and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallTotals {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) bytes_out: u64,
    latency_sum_us: u64,
    latency_calls: u64,
}

impl CallTotals {
    fn of(usage: &Usage) -> Self {
        Self {
            calls: usage.calls,
            errors: usage.errors_4xx + usage.errors_5xx,
            bytes_out: usage.bytes_out,
            latency_sum_us: usage.latency_sum_us,
            latency_calls: usage.latency_calls,
        }
    }

    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.bytes_out += other.bytes_out;
        self.latency_sum_us += other.latency_sum_us;
        self.latency_calls += other.latency_calls;
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.errors = self.errors.saturating_sub(other.errors);
        self.bytes_out = self.bytes_out.saturating_sub(other.bytes_out);
        self.latency_sum_us = self.latency_sum_us.saturating_sub(other.latency_sum_us);
        self.latency_calls = self.latency_calls.saturating_sub(other.latency_calls);
    }

    /// What is in it and not in `before`.
    fn since(mut self, before: Self) -> Self {
        self.subtract(before);
        self
    }

    /// Mean of the known latencies.
    pub(super) fn mean_us(&self) -> Option<u64> {
        self.latency_sum_us.checked_div(self.latency_calls)
    }

    /// Errors in a thousand calls.
    pub(super) fn errors_permille(&self) -> u64 {
        (self.errors * 1_000).checked_div(self.calls).unwrap_or(0)
    }
}

/// Versions of the rows of one level, by window and group, to tell what is new.
#[derive(Debug)]
struct Versions<G, V>(HashMap<(EventTime, G), V>);

impl<G: Copy + Eq + Hash, V: Copy + Default> Versions<G, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Puts in what a row says; returns what the version before said.
    fn replace<W>(&mut self, row: &Row<G, W>, value: V) -> V {
        let window = (row.start, row.group);
        let before = if row.is_final { self.0.remove(&window) } else { self.0.insert(window, value) };
        before.unwrap_or_default()
    }
}

/// A key, as it was used in the last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyLine {
    pub(super) key: String,
    pub(super) customer: String,
    pub(super) plan: String,
    pub(super) recent: CallTotals,
    /// The newest window of five minutes.
    pub(super) latency: Option<Latency>,
}

/// A route's latencies in its newest window of five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteLine {
    pub(super) route: String,
    pub(super) latency: Latency,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LiveView {
    tick_ms: u64,
    names: Names,
    /// Ticks with what they had in them, oldest first.
    ticks: VecDeque<(Tick, TickCounts)>,
    first: Option<Tick>,
    total: TickCounts,
    dead_letters: [u64; CLASSES.len()],
    last_letter: Option<String>,
    last_late: Option<Late>,
    usage: Versions<KeyId, CallTotals>,
    /// What the ticks of the last minute added, by key, and its sum.
    recent: VecDeque<(Tick, Vec<(KeyId, CallTotals)>)>,
    by_key: HashMap<KeyId, CallTotals>,
    all: CallTotals,
    /// Sums over the whole run.
    usage_calls: u64,
    owners: HashMap<KeyId, Owner>,
    latency: HashMap<Scope, (EventTime, Latency)>,
    geo: Versions<KeyCountry, (u64, u64)>,
    by_country: HashMap<Country, (u64, u64)>,
    is_live: bool,
    pub(super) incidents: IncidentList,
}

impl LiveView {
    /// Of a job with ticks of this width.
    pub(super) fn new(tick_ms: u64) -> Self {
        Self {
            tick_ms,
            names: Names::default(),
            ticks: VecDeque::with_capacity(TICKS),
            first: None,
            total: TickCounts::default(),
            dead_letters: [0; CLASSES.len()],
            last_letter: None,
            last_late: None,
            usage: Versions::new(),
            recent: VecDeque::new(),
            by_key: HashMap::new(),
            all: CallTotals::default(),
            usage_calls: 0,
            owners: HashMap::new(),
            latency: HashMap::new(),
            geo: Versions::new(),
            by_country: HashMap::new(),
            is_live: false,
            incidents: IncidentList::default(),
        }
    }

    /// Takes in a tick's results of all workers. Ticks come in order.
    pub(super) fn take(&mut self, tick: Tick, outputs: &[TickOutput]) {
        let mut tick_counts = TickCounts::default();
        let mut fresh = Vec::new();
        for output in outputs {
            output.definitions.iter().for_each(|definition| self.names.define(definition.clone()));
            tick_counts.add(TickCounts {
                events: output.counts.events,
                duplicates: output.counts.duplicates,
                late: output.counts.late,
                dead_letters: output.letters.len() as u64,
            });
            for letter in &output.letters {
                self.dead_letters[letter.class()] += 1;
            }
            output.rows.iter().for_each(|rows| self.rows(rows, &mut fresh));
        }
        // Of all workers, the one that stands last.
        let late = outputs.iter().flat_map(|output| &output.late).max_by_key(|late| late.position);
        self.last_late = late.copied().or(self.last_late);
        let letter = outputs.iter().flat_map(|output| &output.letters).max_by_key(|letter| letter.position);
        if let Some(letter) = letter {
            self.last_letter = Some(letter.reason.clone());
        }

        self.first.get_or_insert(tick);
        self.total.add(tick_counts);
        if self.ticks.len() == TICKS {
            self.ticks.pop_front();
        }
        self.ticks.push_back((tick, tick_counts));
        for (key, calls) in &fresh {
            self.by_key.entry(*key).or_default().add(*calls);
            self.all.add(*calls);
            self.usage_calls += calls.calls;
        }
        self.recent.push_back((tick, fresh));
        while self.recent.front().is_some_and(|(old, _)| *old + RECENT_MS <= tick) {
            for (key, calls) in self.recent.pop_front().into_iter().flat_map(|(_, calls)| calls) {
                self.all.subtract(calls);
                if let Some(sum) = self.by_key.get_mut(&key) {
                    sum.subtract(calls);
                    if sum.calls == 0 {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
    }

    fn rows(&mut self, rows: &Rows, fresh: &mut Vec<(KeyId, CallTotals)>) {
        match rows {
            Rows::Usage(rows) => {
                for row in rows.iter().filter(|row| row.level == Level::Minute) {
                    let calls = CallTotals::of(&row.value.usage);
                    let before = self.usage.replace(row, calls);
                    self.owners.insert(row.group, row.value.owner);
                    if calls != before {
                        fresh.push((row.group, calls.since(before)));
                    }
                }
            }
            Rows::Latency(rows) => {
                for row in rows.iter().filter(|row| row.level == Level::FiveMinutes) {
                    let newest = self.latency.entry(row.group).or_insert((row.start, row.value));
                    if row.start >= newest.0 {
                        *newest = (row.start, row.value);
                    }
                }
            }
            Rows::Geo(rows) => {
                for row in rows.iter().filter(|row| row.level == Level::Hour) {
                    let (calls, errors) = (row.value.calls, row.value.errors);
                    let before = self.geo.replace(row, (calls, errors));
                    let sum = self.by_country.entry(row.group.country).or_default();
                    sum.0 += calls.saturating_sub(before.0);
                    sum.1 += errors.saturating_sub(before.1);
                }
            }
            // The screen has no place for the other views.
            _ => {}
        }
    }

    /// What comes now happens now: what was read before is history, and no part of the last minute.
    pub(super) fn go_live(&mut self) {
        if !std::mem::replace(&mut self.is_live, true) {
            self.ticks.clear();
            self.first = None;
            self.recent.clear();
            self.by_key.clear();
            self.all = CallTotals::default();
            self.by_country.clear();
        }
    }

    /// Over all ticks.
    pub(super) fn total(&self) -> TickCounts {
        self.total
    }

    /// Calls in the rows of `usage`, over the whole run.
    pub(super) fn usage_calls(&self) -> u64 {
        self.usage_calls
    }

    /// Versions of rows of `usage` that are kept.
    #[cfg(test)]
    pub(super) fn kept_versions(&self) -> usize {
        self.usage.0.len()
    }

    /// The last tick.
    pub(super) fn last_tick(&self) -> Option<Tick> {
        self.ticks.back().map(|(tick, _)| *tick)
    }

    /// Events a second in each of the last ticks, oldest first, at most so many.
    pub(super) fn rates(&self, most: usize) -> Vec<u64> {
        let ticks = self.ticks.iter().zip(self.ticks.iter().skip(1));
        let rates = ticks.map(|((before, _), (tick, tick_counts))| {
            tick_counts.events * 1_000 / (tick - before).max(self.tick_ms).max(1)
        });
        let first =
            self.ticks.front().map(|(_, tick_counts)| tick_counts.events * 1_000 / self.tick_ms.max(1));
        let rates: Vec<u64> = first.into_iter().chain(rates).collect();
        rates[rates.len().saturating_sub(most)..].to_vec()
    }

    /// All calls of the last minute.
    pub(super) fn recent(&self) -> CallTotals {
        self.all
    }

    /// How much of the last minute there is, in ms.
    pub(super) fn recent_ms(&self) -> u64 {
        let covered = self.first.zip(self.last_tick()).map_or(0, |(first, last)| last - first + self.tick_ms);
        covered.clamp(self.tick_ms.max(1), RECENT_MS)
    }

    /// Calls without a key in the last minute.
    pub(super) fn anonymous(&self) -> u64 {
        self.by_key.get(&KeyId::ANONYMOUS).map_or(0, |calls| calls.calls)
    }

    /// Keys that no table has, of those used in the last minute.
    pub(super) fn unknown_keys(&self) -> usize {
        self.by_key.keys().filter(|key| !key.is_bucket() && !self.owner(**key).subscription.is_some()).count()
    }

    /// Keys used in the last minute.
    pub(super) fn keys(&self) -> usize {
        self.by_key.keys().filter(|key| !key.is_bucket()).count()
    }

    /// The keys with most calls in the last minute.
    pub(super) fn top_keys(&self, most: usize) -> Vec<KeyLine> {
        let keys = self.by_key.iter().filter(|(key, _)| !key.is_bucket());
        let mut keys: Vec<_> = keys.map(|(key, calls)| (Reverse(calls.calls), *key)).collect();
        keys.sort_unstable();
        keys.into_iter().take(most).map(|(_, key)| self.key_line(key)).collect()
    }

    /// The keys whose calls fail most often, of those that stand out.
    pub(super) fn failing_keys(&self, most: usize) -> Vec<KeyLine> {
        let (calls, percent) = ODD;
        let odd = self.by_key.iter().filter(|(key, recent)| {
            !key.is_bucket() && recent.calls >= calls && recent.errors * 100 >= recent.calls * percent
        });
        let mut keys: Vec<_> = odd.map(|(key, recent)| (Reverse(recent.errors_permille()), *key)).collect();
        keys.sort_unstable();
        keys.into_iter().take(most).map(|(_, key)| self.key_line(key)).collect()
    }

    fn key_line(&self, key: KeyId) -> KeyLine {
        let owner = self.owner(key);
        let text = |id: NameId| self.names.text(id).to_owned();
        KeyLine {
            key: self.short(key),
            customer: text(owner.customer),
            plan: text(owner.plan),
            recent: self.by_key.get(&key).copied().unwrap_or_default(),
            latency: self.latency.get(&Scope::Key(key)).map(|(_, latency)| *latency),
        }
    }

    fn owner(&self, key: KeyId) -> Owner {
        self.owners.get(&key).copied().unwrap_or_default()
    }

    /// A key's first eight digits: enough to find it, and nobody's secret.
    fn short(&self, key: KeyId) -> String {
        self.names.key_text(key).chars().take(if key.is_bucket() { 16 } else { 8 }).collect()
    }

    /// The latencies of the routes with most calls in their newest window.
    pub(super) fn routes(&self, most: usize) -> Vec<RouteLine> {
        let newest = self.latency.values().map(|(start, _)| *start).max().unwrap_or(0);
        let mut routes: Vec<(Reverse<u64>, RouteId, Latency)> = Vec::new();
        for (scope, (start, latency)) in &self.latency {
            if let Scope::Route(route) = scope
                && *start == newest
            {
                routes.push((Reverse(latency.calls), *route, *latency));
            }
        }
        routes.sort_unstable_by_key(|(calls, route, _)| (*calls, *route));
        let line = |(_, route, latency)| {
            let route = self.names.route(route);
            let text = format!("{} {}", route.method.text, route.route.text);
            RouteLine { route: text, latency }
        };
        routes.into_iter().take(most).map(line).collect()
    }

    /// Countries with calls and errors, most calls first.
    pub(super) fn countries(&self) -> Vec<(Country, u64, u64)> {
        let mut countries: Vec<_> =
            self.by_country.iter().map(|(country, (calls, errors))| (*country, *calls, *errors)).collect();
        countries.sort_unstable_by_key(|(country, calls, _)| (Reverse(*calls), *country));
        countries
    }

    /// Dead letters by class, most first; those that there are.
    pub(super) fn dead_letters(&self) -> Vec<(&'static str, u64)> {
        let mut classes: Vec<_> =
            CLASSES.into_iter().zip(self.dead_letters).filter(|(_, count)| *count > 0).collect();
        classes.sort_by_key(|(_, count)| Reverse(*count));
        classes
    }

    /// Why the last dead letter is one.
    pub(super) fn last_letter(&self) -> Option<&str> {
        self.last_letter.as_deref()
    }

    /// The key of the last late event, and how late it is in ms.
    pub(super) fn last_late(&self) -> Option<(String, u64)> {
        self.last_late.map(|late| (self.short(late.key), late.late_ms))
    }
}
