//! What the dataflow puts out: rows of the views, late events, counts, definitions.

use crate::detect::Verdict;
use crate::incident::{Incident, Transition};
use crate::model::{
    Country, Definition, EventTime, Forgotten, KeyId, NameId, Owner, Position, RequestId, RouteId, Tick,
};
use crate::window::Level;
use keytide_config::View;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// A row of a windowed view: its newest version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row<G, V> {
    /// What is counted, apart from the window.
    pub group: G,
    pub level: Level,
    pub start: EventTime,
    pub value: V,
    /// The watermark passed the window's end + allowed lateness.
    pub complete: bool,
    /// The correction horizon passed: no change possible.
    pub is_final: bool,
}

/// Calls and their sums. All fields add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Usage {
    pub calls: u64,
    /// Calls answered 4xx (499 apart).
    pub errors_4xx: u64,
    /// Calls answered 5xx.
    pub errors_5xx: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Sum of the known latencies in microseconds.
    pub latency_sum_us: u64,
    /// Calls whose latency is known.
    pub latency_calls: u64,
}

/// Usage and who it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnedUsage {
    pub usage: Usage,
    /// The owner at the window's start.
    pub owner: Owner,
}

/// Usage of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionUsage {
    pub usage: Usage,
    /// Distinct keys that made calls.
    pub keys: u64,
    /// The subscription's customer, plan, and the plan's name.
    pub owner: SubscriptionInfo,
}

/// What the tables say of a subscription. Unknown fields are [`NameId::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    pub customer: NameId,
    pub plan: NameId,
    pub plan_name: NameId,
}

/// A key's use of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRoute {
    pub key: KeyId,
    pub route: RouteId,
}

/// A key's calls from one country.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyCountry {
    pub key: KeyId,
    pub country: Country,
}

/// What a latency or a number of callers is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    Key(KeyId),
    /// A route, over all keys.
    Route(RouteId),
}

/// Latencies, in microseconds. Percentiles are nearest-rank over a histogram, relative error <= 0.8 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Latency {
    /// Calls whose latency is known.
    pub calls: u64,
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    pub max_us: u64,
    pub mean_us: u64,
}

/// Calls from a country.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CountryCalls {
    pub calls: u64,
    /// Calls answered 4xx or 5xx.
    pub errors: u64,
    /// The five autonomous systems with most calls: (number, calls), most first, ties by number.
    pub asns: smallvec::SmallVec<[(u32, u64); 2]>,
}

/// Distinct client addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Callers {
    pub callers: u64,
    /// Whether the number is exact.
    pub exact: bool,
}

/// What a key's signals added up to after a window, where its [`score`](Verdict::score) is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Score {
    pub key: KeyId,
    pub window_ms: EventTime,
    /// What they added up to.
    pub verdict: Verdict,
}

/// Rows of one view, each the newest version of its row, in no particular order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// `usage`.
    Usage(Vec<Row<KeyId, OwnedUsage>>),
    /// `usage_by_route`.
    UsageByRoute(Vec<Row<KeyRoute, OwnedUsage>>),
    /// `latency`.
    Latency(Vec<Row<Scope, Latency>>),
    /// `geo`.
    Geo(Vec<Row<KeyCountry, CountryCalls>>),
    /// `callers`.
    Callers(Vec<Row<Scope, Callers>>),
    /// `subscription_usage`; `None` retracts a row: its keys turned out to belong to another subscription.
    SubscriptionUsage(Vec<Row<NameId, Option<SubscriptionUsage>>>),
    /// `incidents`.
    Incidents(Vec<Incident>),
    /// `incident_log`: each stands for itself, in order.
    IncidentLog(Vec<Transition>),
    /// What the detector says of windows; only where [`DetectorOptions::scores`](crate::DetectorOptions::scores) asks for it.
    Scores(Vec<Score>),
}

/// Hands the views of windows to a macro: variant of [`Rows`], name of a field, row. Whoever keeps such rows by view
/// makes fields and arms of this list, so a view stands nowhere else.
#[macro_export]
macro_rules! views_of_windows {
    ($each:ident) => {
        $each! {
            Usage usage: Row<KeyId, OwnedUsage>,
            UsageByRoute usage_by_route: Row<KeyRoute, OwnedUsage>,
            Latency latency: Row<Scope, Latency>,
            Geo geo: Row<KeyCountry, CountryCalls>,
            Callers callers: Row<Scope, Callers>,
            SubscriptionUsage subscription_usage: Row<NameId, Option<SubscriptionUsage>>,
        }
    };
}

macro_rules! impl_rows {
    ($($view:ident $field:ident: $row:ty,)+) => {
        impl Rows {
            /// Returns the view, which scores aren't.
            #[must_use]
            pub fn view(&self) -> Option<View> {
                match self {
                    $(Self::$view(_) => Some(View::$view),)+
                    Self::Incidents(_) => Some(View::Incidents),
                    Self::IncidentLog(_) => Some(View::IncidentLog),
                    Self::Scores(_) => None,
                }
            }

            /// Returns the number of rows.
            #[must_use]
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$view(rows) => rows.len(),)+
                    Self::Incidents(rows) => rows.len(),
                    Self::IncidentLog(rows) => rows.len(),
                    Self::Scores(rows) => rows.len(),
                }
            }

            /// Returns whether there are no rows.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}
views_of_windows!(impl_rows);

/// A late event: one that arrived behind its partition by more than out-of-orderness + allowed lateness, that is older
/// than the horizon of dedupe, or that can't be counted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Late {
    pub position: Position,
    pub key: KeyId,
    pub request: RequestId,
    pub time: EventTime,
    /// How far behind, in ms.
    pub late_ms: u64,
    /// Whether the meters counted it all the same.
    pub counted: bool,
    /// Whether it is certain that no record with its identity was counted before.
    pub proven: bool,
}

/// What a tick did with its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub duplicates: u64,
    /// Late events, counted or not.
    pub late: u64,
    /// Events that count under the key `overflow`.
    pub overflow_keys: u64,
    /// Events that count under the route `overflow`.
    pub overflow_routes: u64,
    /// Events that count under the country `XX`.
    pub overflow_countries: u64,
    /// Events that came when the detector had closed their window: they count, and are not judged.
    pub detector_late: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            events,
            duplicates,
            late,
            overflow_keys,
            overflow_routes,
            overflow_countries,
            detector_late,
        } = other;
        self.events += events;
        self.duplicates += duplicates;
        self.late += late;
        self.overflow_keys += overflow_keys;
        self.overflow_routes += overflow_routes;
        self.overflow_countries += overflow_countries;
        self.detector_late += detector_late;
    }
}

/// What counts against the caps in the day and the month of the watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Keys without a row of the table of keys.
    pub keys: u64,
    pub routes: u64,
    /// Pairs of such keys and routes.
    pub key_routes: u64,
    /// Pairs of such keys and countries.
    pub key_countries: u64,
}

impl AddAssign for Admitted {
    fn add_assign(&mut self, other: Self) {
        let Self { keys, routes, key_routes, key_countries } = other;
        self.keys += keys;
        self.routes += routes;
        self.key_routes += key_routes;
        self.key_countries += key_countries;
    }
}

/// Where a worker's share of the results goes. Called on the worker's thread while a tick closes, in the
/// order of ticks for each view; what it is handed isn't complete before the probe passed the tick.
pub trait Output {
    /// Newest versions of rows of a view.
    fn rows(&mut self, tick: Tick, rows: Rows);
    /// Late events.
    fn late(&mut self, tick: Tick, late: Vec<Late>);
    /// What became of the tick's records on this worker. May be called several times a tick: they add up.
    fn counts(&mut self, tick: Tick, counts: Counts);
    /// This worker's part of what counts against the caps after the tick. Several calls add up, as do workers.
    fn admitted(&mut self, tick: Tick, admitted: Admitted);
    /// Strings behind the ids of this worker's rows; handed over before or with the first row that needs
    /// them. The same may come again.
    fn define(&mut self, tick: Tick, definitions: Vec<Definition>);
    /// Ids that no row of a later tick has, unless they are defined anew.
    fn forget(&mut self, tick: Tick, forgotten: Vec<Forgotten>);
}
