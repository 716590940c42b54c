//! Defines the output of the dataflow: rows of the views, late events, counts and definitions.

use crate::account_row::{
    Adjustment, BillKey, BillRow, Charge, ChargeKey, ForecastRow, QuotaKey, QuotaNotice, Revision,
};
use crate::detect::Verdict;
use crate::incident::{Incident, Transition};
use crate::model::{
    Country, Definition, EventTime, Forgotten, KeyId, NameId, Owner, Position, RequestId, RouteId, Tick,
};
use crate::window::Level;
use keytide_billing::QuotaStanding;
use keytide_config::View;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// The newest version of a row of a windowed view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row<G, V> {
    /// The group that the row counts, such as a key or a route.
    pub group: G,
    pub level: Level,
    pub start: EventTime,
    pub value: V,
    /// True once the watermark passed the window's end + allowed lateness.
    pub complete: bool,
    /// True once the correction horizon passed, after which the row can't change.
    pub is_final: bool,
}

/// Sums over calls, which add field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Usage {
    pub calls: u64,
    /// Calls answered 4xx, but not 499.
    pub errors_4xx: u64,
    pub errors_5xx: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub latency_sum_us: u64,
    /// Calls whose latency is known.
    pub latency_calls: u64,
    /// Calls answered with a status that makes them free.
    pub free_calls: u64,
    /// Units of the calls that aren't free, such as tokens, as their source counts them.
    pub units: u64,
}

/// Usage and the owner that it is attributed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnedUsage {
    pub usage: Usage,
    /// The owner at the window's start.
    pub owner: Owner,
}

/// Usage of a subscription, summed over its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubscriptionUsage {
    pub usage: Usage,
    /// Distinct keys that made calls.
    pub keys: u64,
    /// The subscription's customer, plan, and the plan's name.
    pub owner: SubscriptionInfo,
}

/// A subscription as the tables describe it. An unknown field is [`NameId::NONE`].
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

/// The subject of a latency or of a number of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    Key(KeyId),
    /// A route, over all keys.
    Route(RouteId),
}

/// Percentiles of latencies in microseconds, by nearest rank over a histogram. The relative error is at most 0.8 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Latency {
    /// Calls whose latency is known.
    pub calls: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    pub mean_us: u64,
}

/// A key's calls from one country, with the networks that they came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CountryCalls {
    pub calls: u64,
    /// Calls answered 4xx or 5xx.
    pub errors: u64,
    /// The five autonomous systems with most calls, as (number, calls). The most come first, and ties by number.
    pub asns: smallvec::SmallVec<[(u32, u64); 2]>,
}

/// The number of distinct client addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Callers {
    pub callers: u64,
    /// False if the number is an estimate.
    pub exact: bool,
}

/// The sum of a key's signals after a window, if its [`score`](Verdict::score) is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Score {
    pub key: KeyId,
    pub window_ms: EventTime,
    pub verdict: Verdict,
}

/// Rows of one view, each in its newest version, in no particular order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rows {
    Usage(Vec<Row<KeyId, OwnedUsage>>),
    UsageByRoute(Vec<Row<KeyRoute, OwnedUsage>>),
    Latency(Vec<Row<Scope, Latency>>),
    Geo(Vec<Row<KeyCountry, CountryCalls>>),
    Callers(Vec<Row<Scope, Callers>>),
    /// `None` retracts a row, because its keys turned out to belong to another subscription.
    SubscriptionUsage(Vec<Row<NameId, Option<SubscriptionUsage>>>),
    Quota(Vec<Revision<QuotaKey, QuotaStanding>>),
    Charges(Vec<Revision<ChargeKey, Charge>>),
    Bills(Vec<Revision<BillKey, BillRow>>),
    Forecast(Vec<Revision<QuotaKey, ForecastRow>>),
    /// Each notice stands for itself, as each adjustment does.
    Notices(Vec<QuotaNotice>),
    Adjustments(Vec<Adjustment>),
    Incidents(Vec<Incident>),
    /// In the order of the log: each transition stands for itself.
    IncidentLog(Vec<Transition>),
    /// Present only if [`DetectorOptions::scores`](crate::DetectorOptions::scores) asks for them.
    Scores(Vec<Score>),
}

/// Hands the views of windows to a macro. Each is a variant of [`Rows`], the name of a field, and a row. Code that
/// keeps rows by view makes its fields and arms of this list, so a view has one place.
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
                    Self::Quota(_) => Some(View::Quota),
                    Self::Charges(_) => Some(View::Charges),
                    Self::Bills(_) => Some(View::Bills),
                    Self::Forecast(_) => Some(View::Forecast),
                    Self::Notices(_) => Some(View::Notices),
                    Self::Adjustments(_) => Some(View::Adjustments),
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
                    Self::Quota(rows) => rows.len(),
                    Self::Charges(rows) => rows.len(),
                    Self::Bills(rows) => rows.len(),
                    Self::Forecast(rows) => rows.len(),
                    Self::Notices(rows) => rows.len(),
                    Self::Adjustments(rows) => rows.len(),
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

/// An event that is late: it arrived behind its partition by more than out-of-orderness + allowed lateness. An event
/// is late, too, if it is older than the horizon of dedupe or its month isn't held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Late {
    pub position: Position,
    pub key: KeyId,
    pub request: RequestId,
    pub time: EventTime,
    /// How many ms it is behind.
    pub late_ms: u64,
    /// True if the meters counted it all the same.
    pub counted: bool,
    /// True if it is certain that no record with its identity was counted before.
    pub proven: bool,
}

/// Implements addition, which must name every field.
macro_rules! impl_add_assign {
    ($sums:ident { $($field:ident),+ }) => {
        impl AddAssign for $sums {
            fn add_assign(&mut self, other: Self) {
                let Self { $($field),+ } = other;
                $(self.$field += $field;)+
            }
        }
    };
}

/// Counts of what became of a tick's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Events that came after the detector had closed their window. Meters count them; the detector doesn't judge
    /// them.
    pub detector_late: u64,
    /// Observations of odd keys for which the detector had no room: more than 64 of a bucket of keys at once.
    pub detector_deferred: u64,
    /// Calls that nobody was booked for when their hour was evicted, because their key had no subscription. Free calls
    /// aren't among them.
    pub unbilled_calls: u64,
    /// Calls of the events by how they were answered.
    pub calls: AnsweredCalls,
}

/// Calls by the class of their status, in the order of [`CLASSES`](Self::CLASSES).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnsweredCalls(pub [u64; 6]);

impl AnsweredCalls {
    /// The classes of statuses; the last one is of calls without a status, and of all others.
    pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

    /// Adds calls that were answered with a status.
    pub(crate) fn add(&mut self, status: u16, calls: u32) {
        let class = usize::from(status / 100).wrapping_sub(1).min(Self::CLASSES.len() - 1);
        self.0[class] = self.0[class].saturating_add(calls.into());
    }
}

impl AddAssign for AnsweredCalls {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }
}

impl_add_assign!(Usage {
    calls,
    errors_4xx,
    errors_5xx,
    bytes_in,
    bytes_out,
    latency_sum_us,
    latency_calls,
    free_calls,
    units
});

impl_add_assign!(Counts {
    events,
    duplicates,
    late,
    overflow_keys,
    overflow_routes,
    overflow_countries,
    detector_late,
    detector_deferred,
    unbilled_calls,
    calls
});

/// Numbers that count against the caps in the day and the month of the watermark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Keys without a row of the table of keys.
    pub keys: u64,
    pub routes: u64,
    /// Pairs of such keys and routes.
    pub key_routes: u64,
    /// Pairs of such keys and countries.
    pub key_countries: u64,
}

impl_add_assign!(Admitted { keys, routes, key_routes, key_countries });

/// Receives a worker's share of the results. It is called on the worker's thread while a tick closes, in the order of
/// ticks for each view. A tick's output isn't complete before the probe passed the tick.
pub trait Output {
    /// Takes the newest versions of rows of a view.
    fn rows(&mut self, tick: Tick, rows: Rows);
    /// Takes late events of the tick.
    fn late(&mut self, tick: Tick, late: Vec<Late>);
    /// Adds to what became of the tick's records on this worker. Several calls in a tick add up.
    fn counts(&mut self, tick: Tick, counts: Counts);
    /// Adds this worker's part of what counts against the caps after the tick. Several calls add up, as do workers.
    fn admitted(&mut self, tick: Tick, admitted: Admitted);
    /// Takes the strings behind the ids of this worker's rows, before or with the first row that needs them. A string
    /// may come again.
    fn define(&mut self, tick: Tick, definitions: Vec<Definition>);
    /// Takes ids that no row of a later tick has, unless they are defined anew.
    fn forget(&mut self, tick: Tick, forgotten: Vec<Forgotten>);
    /// Takes how quotas of running periods stand in the first tick after a restore. They are no rows, which were published
    /// before. Nobody has to keep them.
    fn standings(&mut self, _tick: Tick, _standings: Vec<Revision<QuotaKey, QuotaStanding>>) {}
}
