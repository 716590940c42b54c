//! What the API did so far, for metrics.
//!
//! Counters are numbers that threads add to, without a lock and without waiting for each other. A request costs four of
//! these steps and two looks at a clock that only runs forward, far less than a microsecond. What is held is looked at
//! when somebody asks for it, a shard of the ledger after the other.
//!
//! **Limits.** Routes, codes and reasons are the fixed lists below. No metric is of a key, of a customer or of a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use keytide_dataflow::model::NameId;

use super::ApiData;
use super::auth::TokenTable;
use super::ledger::LedgerSize;
use super::links::{Link, Links, path_of};

/// The last words of paths by which requests are told apart; all others are one.
pub const ROUTES: [&str; 22] = [
    "check",
    "settle",
    "rollback",
    "auth",
    "quota",
    "usage",
    "latency",
    "geo",
    "charges",
    "bills",
    "forecast",
    "notices",
    "adjustments",
    "incidents",
    "session",
    "subscriptions",
    "keys",
    "links",
    "status",
    "openapi.json",
    PAGES,
    OTHER,
];
/// The statuses of answers; all others are one.
pub const CODES: [&str; 12] =
    ["200", "304", "400", "401", "403", "404", "405", "413", "429", "500", "503", OTHER];
/// Why checks are allowed or denied.
pub const REASONS: [&str; 6] = ["ok", "unknown", "quota", "suspended", "revoked", "stale"];
/// The upper bounds of the buckets of durations, in microseconds. What takes longer is in none of them.
pub const BOUNDS_US: [u64; 7] = [250, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000];
/// The files of pages, which are behind no token.
const PAGES: &str = "pages";
const OTHER: &str = "other";

/// Counters of the API's requests, which its threads share.
#[derive(Debug, Default)]
pub(super) struct ApiStats {
    routes: [RouteStats; ROUTES.len()],
    checks: [AtomicU64; REASONS.len()],
}

#[derive(Debug, Default)]
struct RouteStats {
    codes: [AtomicU64; CODES.len()],
    /// Requests by the first bound that they keep, and those that keep none.
    within: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl ApiStats {
    /// Counts the answer to a request, and how long it took from the head of the request on.
    pub(super) fn count_request(&self, route: ApiRoute, status: StatusCode, took: Duration) {
        let route = &self.routes[route.0];
        add(&route.codes[place(&CODES, status.as_str())], 1);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let within = BOUNDS_US.iter().position(|bound| took_us <= *bound).unwrap_or(BOUNDS_US.len());
        add(&route.within[within], 1);
        add(&route.sum_us, took_us);
    }

    /// Counts the answer to a check by its reason.
    pub(super) fn count_check(&self, reason: &str) {
        if let Some(place) = REASONS.iter().position(|known| *known == reason) {
            add(&self.checks[place], 1);
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Returns the place of a name in a list that ends with the others.
fn place(names: &[&str], name: &str) -> usize {
    names.iter().position(|known| *known == name).unwrap_or(names.len() - 1)
}

/// The place of a route in [`ROUTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApiRoute(usize);

impl ApiRoute {
    /// Returns the route of the files of pages.
    pub(super) fn pages() -> Self {
        Self(place(&ROUTES, PAGES))
    }

    /// Returns the route of a path. A path that is none of the API's has one, too.
    pub(super) fn of(path: &str) -> Self {
        Self(place(&ROUTES, route_of(path)))
    }
}

/// Returns the word of a path that names its route, if the route is one of the API's.
fn route_of(path: &str) -> &str {
    let mut segments = path.strip_prefix("/v1/").unwrap_or_default().split('/');
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        // Envoy appends the path that it asks about.
        (Some("auth"), ..) => "auth",
        (Some("subscriptions"), Some(_), None, _) => "subscriptions",
        (Some(PAGES), ..) => OTHER,
        (Some(route), None, ..) => route,
        (Some("subscriptions" | "keys"), Some(_), Some(route), None) => route,
        _ => OTHER,
    }
}

/// The counters of a route so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// Requests by the code of their answers, in the order of [`CODES`].
    pub codes: [u64; CODES.len()],
    /// Requests by the first of [`BOUNDS_US`] that they keep, and last those that keep none.
    pub within: [u64; BOUNDS_US.len() + 1],
    /// How long all of them took, in microseconds.
    pub sum_us: u64,
}

/// The counters of an API so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// In the order of [`ROUTES`].
    pub routes: [RouteCounts; ROUTES.len()],
    /// Checks by why they were allowed or denied, in the order of [`REASONS`].
    pub checks: [u64; REASONS.len()],
    /// The time of the last tick that the ledger has, in ms since the epoch; 0 before the first.
    pub tick_ms: u64,
    pub held: LedgerSize,
    /// The memory of the rows of views, in bytes, about.
    pub rows_bytes: u64,
    /// Active tokens of the table; `None` without one.
    pub tokens: Option<u64>,
}

/// Watches an API that answers.
#[derive(Clone, Debug)]
pub struct ApiMonitor {
    pub(super) data: ApiData,
    pub(super) stats: Arc<ApiStats>,
    pub(super) table: Option<Arc<TokenTable>>,
    pub(super) links: Option<Links>,
}

impl ApiMonitor {
    /// Returns the path of a page that shows a subscription to its customer until `expires_at`, in ms since the epoch; `None`
    /// if there are no pages, or the tables don't have the subscription.
    #[must_use]
    pub fn customer_path(&self, subscription: &str, expires_at: u64) -> Option<String> {
        let facts = self.data.directory.subscription(NameId::new(subscription), expires_at)?;
        let link = Link { customer: facts.customer.to_string(), expires_at };
        Some(path_of(&self.links.as_ref()?.sign(&link)))
    }

    /// Returns the counters so far, and what is held at `now_ms`.
    #[must_use]
    pub fn counts(&self, now_ms: u64) -> ApiCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let route = |stats: &RouteStats| RouteCounts {
            codes: stats.codes.each_ref().map(load),
            within: stats.within.each_ref().map(load),
            sum_us: load(&stats.sum_us),
        };
        ApiCounts {
            routes: self.stats.routes.each_ref().map(route),
            checks: self.stats.checks.each_ref().map(load),
            tick_ms: self.data.ledger.tick_ms(),
            held: self.data.ledger.size(now_ms),
            rows_bytes: self.data.shelf.bytes() as u64,
            tokens: self.table.as_ref().map(|table| table.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::QuotaLedger;
    use super::super::shelf::Shelf;
    use super::*;

    #[test]
    fn routes_are_told_apart_and_no_client_can_make_one() {
        for (path, route) in [
            ("/v1/check", "check"),
            ("/v1/auth", "auth"),
            ("/v1/auth/", "auth"),
            ("/v1/auth/check/x/quota", "auth"),
            ("/v1/subscriptions/status/quota", "quota"),
            // A subscription may have any name.
            ("/v1/subscriptions/quota", "subscriptions"),
            ("/v1/subscriptions", "subscriptions"),
            ("/v1/subscriptions/a/keys", "keys"),
            ("/v1/pages", OTHER),
            ("/v1/keys/a/geo", "geo"),
            ("/v1/keys/a/other", OTHER),
            ("/v1/subscriptions/a/b/quota", OTHER),
            ("/v1/openapi.json", "openapi.json"),
            ("/v1/nowhere", OTHER),
            ("/v1/", OTHER),
            ("/check", OTHER),
            ("/", OTHER),
        ] {
            assert_eq!(ROUTES[ApiRoute::of(path).0], route, "{path}");
        }
        let description: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        for path in description["paths"].as_object().unwrap().keys() {
            assert_ne!(ROUTES[ApiRoute::of(path).0], OTHER, "{path}");
        }
        assert_eq!(place(&CODES, StatusCode::IM_A_TEAPOT.as_str()), CODES.len() - 1);
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits() {
        let stats = Arc::<ApiStats>::default();
        for us in [0, 250, 251, 1_000, 2_500_000, 2_500_001, 9_000_000] {
            stats.count_request(ApiRoute::of("/v1/check"), StatusCode::OK, Duration::from_micros(us));
        }
        stats.count_request(ApiRoute::of("/v1/x"), StatusCode::UNAUTHORIZED, Duration::MAX);
        stats.count_check("stale");
        stats.count_check("no reason");
        let data = ApiData {
            ledger: Arc::new(QuotaLedger::new(0, false)),
            shelf: Arc::new(Shelf::new(1)),
            directory: Arc::default(),
        };
        let monitor = ApiMonitor { data, stats, table: None, links: None };
        let counts = monitor.counts(0);
        assert_eq!(counts.routes[0].within, [2, 2, 0, 0, 0, 0, 1, 2]);
        assert_eq!((counts.routes[0].codes[0], counts.routes[0].sum_us), (7, 14_001_502));
        assert_eq!(counts.routes[ROUTES.len() - 1].codes[3], 1);
        assert_eq!((counts.checks, counts.tokens), ([0, 0, 0, 0, 0, 1], None));
    }
}
