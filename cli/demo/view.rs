//! Sums up the rows of the views for the live view.
//!
//! A row is the newest version of its key, so its difference to the version before is new. Differences are summed by
//! key over the last minute, and by country over the whole run. All numbers come from the rows that the sinks
//! publish, so they can be found in the files.
//!
//! The final row of a window drops its version. So the view keeps as many versions as the job has open windows, however
//! far apart in event time the partitions are read. Memory: about 100 B a key and minute, 6 MB for 1,000 keys.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use keytide_connectors::decode::CLASSES;
use keytide_connectors::sink::TickOutput;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{Country, EventTime, KeyId, NameId, RouteId, Tick};
use keytide_dataflow::{KeyCountry, Late, Latency, Level, Owner, Row, Rows, Scope, Usage};

use super::incidents::IncidentList;
use super::quotas::{QuotaList, ShownQuota};

/// How far back recent calls reach, in ms of ticks.
const RECENT_MS: u64 = 60_000;
/// Ticks whose numbers are kept.
const TICKS: usize = 300;
/// Least calls, and least errors in a hundred, from which a key is listed as failing.
const ODD: (u64, u64) = (20, 10);

/// Counts of events of a tick, or sums of these.
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

/// Sums of calls, errors, bytes and latencies.
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

    /// Returns the difference to `before`.
    fn since(mut self, before: Self) -> Self {
        self.subtract(before);
        self
    }

    /// Returns the mean of the known latencies; `None` if there are none.
    pub(super) fn mean_us(&self) -> Option<u64> {
        self.latency_sum_us.checked_div(self.latency_calls)
    }

    /// Returns the errors in a thousand calls.
    pub(super) fn errors_permille(&self) -> u64 {
        (self.errors * 1_000).checked_div(self.calls).unwrap_or(0)
    }
}

/// The newest version of each row of one level, by window and group.
#[derive(Debug)]
struct Versions<G, V>(HashMap<(EventTime, G), V>);

impl<G: Copy + Eq + Hash, V: Copy + Default> Versions<G, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Replaces the version of a row; returns the version before.
    fn replace<W>(&mut self, row: &Row<G, W>, value: V) -> V {
        let window = (row.start, row.group);
        let before = if row.is_final { self.0.remove(&window) } else { self.0.insert(window, value) };
        before.unwrap_or_default()
    }
}

/// A line of the table of keys, with sums over the last minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyLine {
    pub(super) key: String,
    pub(super) customer: String,
    pub(super) plan: String,
    pub(super) recent: CallTotals,
    /// Of the newest window of five minutes.
    pub(super) latency: Option<Latency>,
}

/// A line of the table of quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuotaLine {
    pub(super) subscription: String,
    /// Empty if none of the subscription's keys has called.
    pub(super) customer: String,
    pub(super) quota: ShownQuota,
    /// The bill so far, with its currency.
    pub(super) bill: Option<String>,
}

/// A route's latencies in its newest window of five minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteLine {
    pub(super) route: String,
    pub(super) latency: Latency,
}

/// The sums that the live view shows.
#[derive(Debug)]
pub(super) struct LiveView {
    tick_ms: u64,
    names: Names,
    /// Ticks with their counts, oldest first.
    ticks: VecDeque<(Tick, TickCounts)>,
    first: Option<Tick>,
    total: TickCounts,
    dead_letters: [u64; CLASSES.len()],
    last_letter: Option<String>,
    last_late: Option<Late>,
    usage: Versions<KeyId, CallTotals>,
    /// Calls that the ticks of the last minute added, by key.
    recent: VecDeque<(Tick, Vec<(KeyId, CallTotals)>)>,
    by_key: HashMap<KeyId, CallTotals>,
    all: CallTotals,
    usage_calls: u64,
    owners: HashMap<KeyId, Owner>,
    latency: HashMap<Scope, (EventTime, Latency)>,
    geo: Versions<KeyCountry, (u64, u64)>,
    by_country: HashMap<Country, (u64, u64)>,
    is_live: bool,
    pub(super) incidents: IncidentList,
    pub(super) quotas: QuotaList,
}

impl LiveView {
    /// Returns the view of a job with ticks of this width.
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
            quotas: QuotaList::default(),
        }
    }

    /// Takes in the output of all workers for a tick. Ticks must come in order.
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
        // Of all workers the last by position, so that it doesn't depend on their order.
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
            Rows::Quota(rows) => self.quotas.take_standings(rows),
            Rows::Bills(rows) => self.quotas.take_bills(rows),
            Rows::Notices(rows) => self.quotas.take_notices(rows, &self.names),
            Rows::Incidents(rows) => {
                rows.iter().for_each(|incident| self.incidents.grow(incident, &self.names));
            }
            // The screen doesn't show the other views.
            _ => {}
        }
    }

    /// Clears the sums when the history is read, as its calls are no part of the last minute.
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

    /// Returns the counts over all ticks.
    pub(super) fn total(&self) -> TickCounts {
        self.total
    }

    /// Returns the calls in all rows of `usage`.
    pub(super) fn usage_calls(&self) -> u64 {
        self.usage_calls
    }

    /// Returns how many versions of rows of `usage` are kept.
    #[cfg(test)]
    pub(super) fn kept_versions(&self) -> usize {
        self.usage.0.len()
    }

    pub(super) fn last_tick(&self) -> Option<Tick> {
        self.ticks.back().map(|(tick, _)| *tick)
    }

    /// Returns the events per second of each of the last `most` ticks, oldest first.
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

    /// Returns the sums over all calls of the last minute.
    pub(super) fn recent(&self) -> CallTotals {
        self.all
    }

    /// Returns how much of the last minute has passed since the first tick, in ms.
    pub(super) fn recent_ms(&self) -> u64 {
        let covered = self.first.zip(self.last_tick()).map_or(0, |(first, last)| last - first + self.tick_ms);
        covered.clamp(self.tick_ms.max(1), RECENT_MS)
    }

    /// Returns the calls without a key in the last minute.
    pub(super) fn anonymous(&self) -> u64 {
        self.by_key.get(&KeyId::ANONYMOUS).map_or(0, |calls| calls.calls)
    }

    /// Returns how many keys of the last minute no table has.
    pub(super) fn unknown_keys(&self) -> usize {
        self.by_key.keys().filter(|key| !key.is_bucket() && !self.owner(**key).subscription.is_some()).count()
    }

    /// Returns how many keys were used in the last minute.
    pub(super) fn keys(&self) -> usize {
        self.by_key.keys().filter(|key| !key.is_bucket()).count()
    }

    /// Returns the keys with most calls in the last minute.
    pub(super) fn top_keys(&self, most: usize) -> Vec<KeyLine> {
        let keys = self.by_key.iter().filter(|(key, _)| !key.is_bucket());
        let mut keys: Vec<_> = keys.map(|(key, calls)| (Reverse(calls.calls), *key)).collect();
        keys.sort_unstable();
        keys.into_iter().take(most).map(|(_, key)| self.key_line(key)).collect()
    }

    /// Returns the keys whose calls fail most often, of those that exceed [`ODD`].
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

    /// Returns the quotas of which the largest part is used.
    pub(super) fn top_quotas(&self, most: usize) -> Vec<QuotaLine> {
        self.quotas.top(most).into_iter().map(|quota| self.quota_line(quota)).collect()
    }

    /// Returns the quota of a subscription of which the largest part is used.
    pub(super) fn quota_of(&self, subscription: &str) -> Option<QuotaLine> {
        Some(self.quota_line(self.quotas.of(NameId::new(subscription))?))
    }

    fn quota_line(&self, quota: ShownQuota) -> QuotaLine {
        let of = quota.subscription;
        let customer =
            self.owners.values().find(|owner| owner.subscription == of).map(|owner| owner.customer);
        let text = |id: NameId| self.names.text(id).to_owned();
        QuotaLine {
            subscription: text(of),
            customer: customer.map_or_else(String::new, text),
            quota,
            bill: self.quotas.bill(of),
        }
    }

    fn owner(&self, key: KeyId) -> Owner {
        self.owners.get(&key).copied().unwrap_or_default()
    }

    /// Returns a key id's first eight digits, enough to find it; the names of buckets are longer.
    fn short(&self, key: KeyId) -> String {
        self.names.key_text(key).chars().take(if key.is_bucket() { 16 } else { 8 }).collect()
    }

    /// Returns the latencies of the routes with most calls in the newest window.
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

    /// Returns countries with calls and errors, most calls first.
    pub(super) fn countries(&self) -> Vec<(Country, u64, u64)> {
        let mut countries: Vec<_> =
            self.by_country.iter().map(|(country, (calls, errors))| (*country, *calls, *errors)).collect();
        countries.sort_unstable_by_key(|(country, calls, _)| (Reverse(*calls), *country));
        countries
    }

    /// Returns the numbers of dead letters by class, most first, without zeros.
    pub(super) fn dead_letters(&self) -> Vec<(&'static str, u64)> {
        let mut classes: Vec<_> =
            CLASSES.into_iter().zip(self.dead_letters).filter(|(_, count)| *count > 0).collect();
        classes.sort_by_key(|(_, count)| Reverse(*count));
        classes
    }

    /// Returns the reason of the last dead letter.
    pub(super) fn last_letter(&self) -> Option<&str> {
        self.last_letter.as_deref()
    }

    /// Returns the key of the last late event, and its lateness in ms.
    pub(super) fn last_late(&self) -> Option<(String, u64)> {
        self.last_late.map(|late| (self.short(late.key), late.late_ms))
    }
}
