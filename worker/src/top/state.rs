//! The newest rows of views, by width of their window.
//!
//! A row of a window is the newest version of its key, so a later one replaces it. A row of a newer window begins the
//! window anew. So memory has the keys of one window a width.
//!
//! **Limits.** A window has at most twice the keys that are kept. When it has more, the busiest are kept and the others
//! dropped. Calls of a key only grow within a window, and each growth comes as a row. So the busiest keys are exact,
//! however many others were dropped. By other columns, the keys that are kept are ranked. At most [`INCIDENTS`] incidents
//! are remembered, and [`OWNER_CHARS`] characters of an owner.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use keytide_alerts::email::{headline, severity};
use keytide_config::Language;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::{Country, EventTime};
use keytide_dataflow::{Change, Level};
use serde::{Deserialize, Serialize};

/// Keys of a window that are kept of views on disk.
const KEPT: usize = 100_000;
/// Incidents that are remembered, at most.
const INCIDENTS: usize = 20;
/// Characters of an owner's name, at most.
const OWNER_CHARS: usize = 120;

/// The widths of windows of `usage`, in the order in which the screen goes through them.
pub const WIDTHS: [Level; 4] = [Level::Minute, Level::Hour, Level::Day, Level::Month];

/// Returns the nearest width that `latency` has.
fn width_of_latency(width: Level) -> Level {
    match width {
        Level::Minute | Level::FiveMinutes => Level::FiveMinutes,
        Level::Hour => Level::Hour,
        Level::Day | Level::Month => Level::Day,
    }
}

/// Returns the nearest width that `geo` has.
fn width_of_geo(width: Level) -> Level {
    match width {
        Level::Minute | Level::FiveMinutes | Level::Hour => Level::Hour,
        Level::Day | Level::Month => Level::Day,
    }
}

/// A column by which keys are sorted, largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Calls,
    Errors,
    P99,
    Countries,
    Callers,
}

impl Column {
    /// All columns, in the order of the screen.
    pub const ALL: [Self; 5] = [Self::Calls, Self::Errors, Self::P99, Self::Countries, Self::Callers];
}

/// A line of the table of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    pub key_id: String,
    /// The customer, or else the subscription; empty if neither is known.
    pub owner: String,
    pub calls: u64,
    pub errors: u64,
    /// `None` if no latency is known.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub countries: u64,
    pub callers: u64,
}

impl KeyRow {
    /// Returns the number by which the row is sorted.
    pub(super) fn rank(&self, by: Column) -> u64 {
        match by {
            Column::Calls => self.calls,
            Column::Errors => self.errors,
            Column::P99 => self.p99_us.unwrap_or(0),
            Column::Countries => self.countries,
            Column::Callers => self.callers,
        }
    }
}

/// An incident by its newest transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRow {
    pub incident_id: String,
    pub key_id: String,
    /// One of `notice`, `alert`, `critical`.
    pub severity: String,
    pub score: u8,
    pub state: String,
    pub headline: String,
}

/// Sums over the keys of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub start: EventTime,
    pub keys: u64,
    pub calls: u64,
    /// True if there are keys that were dropped, so that both numbers are too low.
    pub has_more: bool,
}

/// The data of a screen.
pub trait Top {
    /// Returns the sums over the newest window of a width; `None` before its first row.
    fn totals(&self, width: Level) -> Option<Totals>;

    /// Returns the first keys by a column; of equal keys the first by its id.
    fn keys(&self, width: Level, by: Column, most: usize) -> Vec<KeyRow>;

    /// Returns the newest incidents, newest first.
    fn incidents(&self) -> &[IncidentRow];
}

/// A value, and the number by which it is kept, which only grows.
#[derive(Debug)]
struct Ranked<V> {
    rank: u64,
    value: V,
}

/// The values of the keys in the newest window of a width.
#[derive(Debug)]
struct Newest<V> {
    start: EventTime,
    by_key: HashMap<String, Ranked<V>>,
    /// The least rank of a key that is kept.
    floor: u64,
    has_more: bool,
}

impl<V> Default for Newest<V> {
    fn default() -> Self {
        Self { start: 0, by_key: HashMap::new(), floor: 0, has_more: false }
    }
}

impl<V: Default> Newest<V> {
    /// Returns the place of a key's value; `None` if the window is an older one, or has `kept` keys of a higher rank.
    fn place<'k>(
        &mut self,
        (start, rank, kept): (EventTime, u64, usize),
        key: impl FnOnce() -> Cow<'k, str>,
    ) -> Option<&mut V> {
        if start > self.start {
            *self = Self { start, ..Self::default() };
        }
        if start < self.start || rank < self.floor {
            return None;
        }
        let key = key();
        if !self.by_key.contains_key(&*key) {
            if self.by_key.len() >= 2 * kept {
                self.drop_all_but(kept);
                if rank < self.floor {
                    return None;
                }
            }
            self.by_key.insert(key.clone().into_owned(), Ranked { rank, value: V::default() });
        }
        let place = self.by_key.get_mut(&*key)?;
        place.rank = place.rank.max(rank);
        Some(&mut place.value)
    }

    /// Drops all keys but the first by rank; of equal ones the first by their ids are kept.
    fn drop_all_but(&mut self, kept: usize) {
        let mut order: Vec<_> =
            self.by_key.iter().map(|(key, value)| (Reverse(value.rank), key.as_str())).collect();
        if kept >= order.len() {
            return;
        }
        let (_, (Reverse(floor), first), _) = order.select_nth_unstable(kept);
        let (floor, first) = (*floor, (*first).to_owned());
        self.by_key
            .retain(|key, value| (Reverse(value.rank), key.as_str()) < (Reverse(floor), first.as_str()));
        (self.floor, self.has_more) = (floor, true);
    }

    fn value(&self, key: &str) -> Option<&V> {
        self.by_key.get(key).map(|ranked| &ranked.value)
    }
}

#[derive(Clone, Debug, Default)]
struct Calls {
    calls: u64,
    errors: u64,
    owner: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Percentiles {
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

/// The newest rows of all views that the screen shows.
#[derive(Debug)]
pub struct TopState {
    kept: usize,
    usage: BTreeMap<Level, Newest<Calls>>,
    latency: BTreeMap<Level, Newest<Percentiles>>,
    geo: BTreeMap<Level, Newest<Vec<Country>>>,
    callers: Newest<u64>,
    /// At most 20 incidents, of which the newest comes first.
    incidents: Vec<IncidentRow>,
}

impl Default for TopState {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl TopState {
    /// Returns a state that keeps this many keys of a window at least, and twice as many at most.
    #[must_use]
    pub fn keeping(kept: usize) -> Self {
        Self {
            kept,
            usage: BTreeMap::new(),
            latency: BTreeMap::new(),
            geo: BTreeMap::new(),
            callers: Newest::default(),
            incidents: Vec::new(),
        }
    }

    pub(super) fn usage<'k>(
        &mut self,
        (width, start): (Level, EventTime),
        key: impl FnOnce() -> Cow<'k, str>,
        (calls, errors): (u64, u64),
        owner: &str,
    ) {
        let place = self.usage.entry(width).or_default().place((start, calls, self.kept), key);
        let Some(place) = place else { return };
        (place.calls, place.errors) = (calls, errors);
        let end = owner.char_indices().nth(OWNER_CHARS).map_or(owner.len(), |(end, _)| end);
        if place.owner != owner[..end] {
            owner[..end].clone_into(&mut place.owner);
        }
    }

    pub(super) fn latency<'k>(
        &mut self,
        (width, start): (Level, EventTime),
        key: impl FnOnce() -> Cow<'k, str>,
        calls: u64,
        of: Percentiles,
    ) {
        if let Some(place) = self.latency.entry(width).or_default().place((start, calls, self.kept), key) {
            *place = of;
        }
    }

    /// Takes in a country that a key was used from; `calls` are those from there.
    pub(super) fn country<'k>(
        &mut self,
        (width, start): (Level, EventTime),
        key: impl FnOnce() -> Cow<'k, str>,
        calls: u64,
        country: Country,
    ) {
        if country == Country::UNKNOWN {
            return;
        }
        if let Some(place) = self.geo.entry(width).or_default().place((start, calls, self.kept), key)
            && !place.contains(&country)
        {
            place.push(country);
        }
    }

    pub(super) fn callers<'k>(&mut self, start: EventTime, key: impl FnOnce() -> Cow<'k, str>, callers: u64) {
        if let Some(place) = self.callers.place((start, callers, self.kept), key) {
            *place = callers;
        }
    }

    /// Takes in a row of `incident_log`.
    pub(super) fn incident(&mut self, row: TransitionJson) {
        self.incidents.retain(|incident| incident.incident_id != row.incident_id);
        if row.transition == Change::Withdrawn {
            return;
        }
        let incident = IncidentRow {
            headline: headline(&row, Language::En),
            severity: severity(&row.level, Language::En),
            incident_id: row.incident_id,
            key_id: row.key_id,
            score: row.score,
            state: row.state,
        };
        self.incidents.insert(0, incident);
        self.incidents.truncate(INCIDENTS);
    }
}

impl Top for TopState {
    fn totals(&self, width: Level) -> Option<Totals> {
        let Newest { start, by_key, has_more, .. } = self.usage.get(&width)?;
        let calls = by_key.values().fold(0_u64, |sum, calls| sum.saturating_add(calls.value.calls));
        let (start, has_more) = (*start, *has_more);
        (!by_key.is_empty()).then_some(Totals { start, keys: by_key.len() as u64, calls, has_more })
    }

    fn keys(&self, width: Level, by: Column, most: usize) -> Vec<KeyRow> {
        let Some(usage) = self.usage.get(&width) else { return Vec::new() };
        let (of_latency, of_geo) =
            (self.latency.get(&width_of_latency(width)), self.geo.get(&width_of_geo(width)));
        let latency = |key: &str| of_latency?.value(key).copied();
        let countries = |key: &str| of_geo.and_then(|geo| geo.value(key)).map_or(0, Vec::len) as u64;
        let callers = |key: &str| self.callers.value(key).copied().unwrap_or(0);
        let rank = |key: &str, calls: &Calls| match by {
            Column::Calls => calls.calls,
            Column::Errors => calls.errors,
            Column::P99 => latency(key).map_or(0, |of| of.p99_us),
            Column::Countries => countries(key),
            Column::Callers => callers(key),
        };
        // Texts are copied for the rows that are shown only, as a window may have many more.
        let mut best = BTreeMap::new();
        for (key, Ranked { value: calls, .. }) in &usage.by_key {
            best.insert((Reverse(rank(key, calls)), key), calls);
            if best.len() > most {
                best.pop_last();
            }
        }
        let row = |((_, key), calls): ((_, &String), &Calls)| KeyRow {
            key_id: key.clone(),
            owner: calls.owner.clone(),
            calls: calls.calls,
            errors: calls.errors,
            p50_us: latency(key).map(|of| of.p50_us),
            p99_us: latency(key).map(|of| of.p99_us),
            countries: countries(key),
            callers: callers(key),
        };
        best.into_iter().map(row).collect()
    }

    fn incidents(&self) -> &[IncidentRow] {
        &self.incidents
    }
}
