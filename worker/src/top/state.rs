//! The newest rows of views, by width of their window.
//!
//! A row of a window is the newest version of its key, so a later one replaces it. A row of a newer window begins the
//! window anew. So memory has the keys of one window a width.
//!
//! Limits: [`MAX_KEYS`] keys of a window; those that come when it is full are counted and left out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use keytide_alerts::email::{headline, severity};
use keytide_config::{Language, View};
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{Change, Level};
use serde::Deserialize;

/// Keys of a window, at most.
const MAX_KEYS: usize = 200_000;
/// Incidents that are remembered, at most.
const INCIDENTS: usize = 20;

/// The widths of windows of `usage`, in the order in which the screen goes through them.
pub const WIDTHS: [Level; 4] = [Level::Minute, Level::Hour, Level::Day, Level::Month];

/// Returns the width that rows show as `label`.
fn width_of(label: &str) -> Option<Level> {
    let all = [Level::Minute, Level::FiveMinutes, Level::Hour, Level::Day, Level::Month];
    all.into_iter().find(|width| width.label() == label)
}

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

/// The values of the keys in the newest window of a width.
#[derive(Debug)]
struct Newest<V> {
    /// The window's start, RFC 3339 in UTC, which sorts by time.
    start: String,
    by_key: HashMap<String, V>,
    left_out: u64,
}

impl<V> Default for Newest<V> {
    fn default() -> Self {
        Self { start: String::new(), by_key: HashMap::new(), left_out: 0 }
    }
}

impl<V: Default> Newest<V> {
    /// Returns the place of a key's value; `None` if the window is an older one, or full.
    fn place(&mut self, key: &str, start: &str) -> Option<&mut V> {
        if start < self.start.as_str() {
            return None;
        }
        if start > self.start.as_str() {
            *self = Self { start: start.to_owned(), ..Self::default() };
        }
        if !self.by_key.contains_key(key) {
            if self.by_key.len() == MAX_KEYS {
                self.left_out += 1;
                return None;
            }
            self.by_key.insert(key.to_owned(), V::default());
        }
        self.by_key.get_mut(key)
    }
}

#[derive(Clone, Debug, Default)]
struct Calls {
    calls: u64,
    errors: u64,
    owner: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50_us: u64,
    pub p99_us: u64,
}

#[derive(Deserialize)]
struct UsageRow<'a> {
    key_id: String,
    window: &'a str,
    window_start: &'a str,
    calls: u64,
    errors_4xx: u64,
    errors_5xx: u64,
    subscription: Option<String>,
    customer: Option<String>,
}

#[derive(Deserialize)]
struct ScopeRow<'a> {
    scope: &'a str,
    id: String,
    window: &'a str,
    window_start: &'a str,
    #[serde(default)]
    p50_us: u64,
    #[serde(default)]
    p99_us: u64,
    #[serde(default)]
    callers: u64,
}

#[derive(Deserialize)]
struct GeoRow<'a> {
    key_id: String,
    country: String,
    window: &'a str,
    window_start: &'a str,
}

/// A line of the table of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub key: String,
    /// The customer, or else the subscription; empty if neither is known.
    pub owner: String,
    pub calls: u64,
    pub errors: u64,
    /// `None` if no latency is known.
    pub latency: Option<Percentiles>,
    pub countries: usize,
    pub callers: u64,
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

/// An incident by its newest transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRow {
    pub id: String,
    pub key: String,
    /// One of `notice`, `alert`, `critical`.
    pub severity: String,
    pub score: u8,
    pub state: String,
    pub headline: String,
}

/// The newest rows of all views that the screen shows.
#[derive(Debug, Default)]
pub struct TopState {
    usage: BTreeMap<Level, Newest<Calls>>,
    latency: BTreeMap<Level, Newest<Percentiles>>,
    geo: BTreeMap<Level, Newest<Vec<String>>>,
    callers: Newest<u64>,
    /// The newest is the last one, of at most [`INCIDENTS`].
    incidents: Vec<IncidentRow>,
}

impl TopState {
    /// Takes in a row of a view. A line that is no row is passed over.
    pub fn take(&mut self, view: View, line: &[u8]) {
        match view {
            View::Usage => self.usage(line),
            View::Latency | View::Callers => self.scope(view, line),
            View::Geo => self.geo(line),
            View::IncidentLog => self.incident(line),
            _ => {}
        }
    }

    fn usage(&mut self, line: &[u8]) {
        let Ok(row) = serde_json::from_slice::<UsageRow<'_>>(line) else { return };
        let Some(width) = width_of(row.window) else { return };
        if let Some(place) = self.usage.entry(width).or_default().place(&row.key_id, row.window_start) {
            *place = Calls {
                calls: row.calls,
                errors: row.errors_4xx + row.errors_5xx,
                owner: row.customer.or(row.subscription).unwrap_or_default(),
            };
        }
    }

    fn scope(&mut self, view: View, line: &[u8]) {
        let Ok(row) = serde_json::from_slice::<ScopeRow<'_>>(line) else { return };
        if row.scope != "key" {
            return;
        }
        if view == View::Callers {
            if let Some(place) = self.callers.place(&row.id, row.window_start) {
                *place = row.callers;
            }
            return;
        }
        let Some(width) = width_of(row.window) else { return };
        if let Some(place) = self.latency.entry(width).or_default().place(&row.id, row.window_start) {
            *place = Percentiles { p50_us: row.p50_us, p99_us: row.p99_us };
        }
    }

    fn geo(&mut self, line: &[u8]) {
        let Ok(row) = serde_json::from_slice::<GeoRow<'_>>(line) else { return };
        let Some(width) = width_of(row.window) else { return };
        if row.country == "ZZ" {
            return;
        }
        if let Some(place) = self.geo.entry(width).or_default().place(&row.key_id, row.window_start)
            && !place.contains(&row.country)
        {
            place.push(row.country);
        }
    }

    fn incident(&mut self, line: &[u8]) {
        let Ok(row) = serde_json::from_slice::<TransitionJson>(line) else { return };
        self.incidents.retain(|incident| incident.id != row.incident_id);
        if row.transition == Change::Withdrawn {
            return;
        }
        self.incidents.push(IncidentRow {
            headline: headline(&row, Language::En),
            severity: severity(&row.level, Language::En),
            id: row.incident_id,
            key: row.key_id,
            score: row.score,
            state: row.state,
        });
        if self.incidents.len() > INCIDENTS {
            self.incidents.remove(0);
        }
    }

    /// Returns the start of the newest window; `None` before the first row.
    pub fn start(&self, width: Level) -> Option<&str> {
        self.usage.get(&width).map(|usage| usage.start.as_str()).filter(|start| !start.is_empty())
    }

    /// Returns the numbers of keys and calls in the newest window, and of keys that were left out.
    pub fn totals(&self, width: Level) -> (usize, u64, u64) {
        let Some(usage) = self.usage.get(&width) else { return (0, 0, 0) };
        let calls = usage.by_key.values().map(|calls| calls.calls).sum();
        (usage.by_key.len(), calls, usage.left_out)
    }

    /// Returns the first keys by a column; of equal keys the first by its id.
    pub fn keys(&self, width: Level, by: Column, most: usize) -> Vec<KeyRow> {
        let Some(usage) = self.usage.get(&width) else { return Vec::new() };
        let (of_latency, of_geo) =
            (self.latency.get(&width_of_latency(width)), self.geo.get(&width_of_geo(width)));
        let latency = |key: &str| of_latency?.by_key.get(key).copied();
        let countries = |key: &str| of_geo.and_then(|geo| geo.by_key.get(key)).map_or(0, Vec::len);
        let callers = |key: &str| self.callers.by_key.get(key).copied().unwrap_or(0);
        let rank = |key: &str, calls: &Calls| match by {
            Column::Calls => calls.calls,
            Column::Errors => calls.errors,
            Column::P99 => latency(key).map_or(0, |of| of.p99_us),
            Column::Countries => countries(key) as u64,
            Column::Callers => callers(key),
        };
        // Texts are copied for the rows that are shown only, as a window may have many more.
        let mut best = BTreeMap::new();
        for (key, calls) in &usage.by_key {
            best.insert((Reverse(rank(key, calls)), key), calls);
            if best.len() > most {
                best.pop_last();
            }
        }
        let row = |((_, key), calls): ((_, &String), &Calls)| KeyRow {
            key: key.clone(),
            owner: calls.owner.clone(),
            calls: calls.calls,
            errors: calls.errors,
            latency: latency(key),
            countries: countries(key),
            callers: callers(key),
        };
        best.into_iter().map(row).collect()
    }

    /// Returns the newest incidents, newest first.
    pub fn incidents(&self) -> impl Iterator<Item = &IncidentRow> {
        self.incidents.iter().rev()
    }
}
