//! The newest rows of views, as they were published.
//!
//! ```json
//! {"tick": "2026-03-15T12:00:05Z", "since": "2026-03-01T00:00:05Z", "rows": [ ... ]}
//! ```
//! Rows are those of the topics, byte by byte. `tick` is the last tick whose rows are in, and `since` the one since which
//! none is missing. Both are null if there is none.
//!
//! An answer's `ETag` names the last tick in which one of its rows changed. So a client that shows it in `If-None-Match`
//! gets 304 until then. It is weak: `tick` may differ.
//!
//! **A consumer** sees rows of its own customer. Of a key or a subscription that another customer had before, it sees what began
//! since: a row can't be divided between two owners. Rows of `usage` say whose it was when their windows began. Incidents
//! have evidence about other customers' keys, so it sees parts of them.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use keytide_config::View;
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::{RowPlace, RowSubject};
use keytide_dataflow::Level;
use keytide_dataflow::model::{EventTime, NameId, Tick};
use serde::Deserialize;

use super::auth::ApiCaller;
use super::own_incidents::own_incident;
use super::reply::{ApiState, Shared, is_shown, missing, refuse, refused_to_read, tag, unchanged};
use super::shelf::{Shelf, ShelvedRows};

/// Incidents of an answer that doesn't say how many, and at most.
const INCIDENTS: usize = 100;
const MOST_INCIDENTS: usize = 1_000;

/// The rows that a path names.
struct PathRows {
    name: &'static str,
    view: View,
    /// The levels of the windows, if it has windows.
    levels: &'static [Level],
    /// True if rows have a time, which `from` and `to` can bound.
    has_time: bool,
}

impl PathRows {
    const fn of_windows(name: &'static str, view: View, levels: &'static [Level]) -> Self {
        Self { name, view, levels, has_time: true }
    }

    const fn of_account(name: &'static str, view: View, has_time: bool) -> Self {
        Self { name, view, levels: &[], has_time }
    }
}

const OF_KEYS: [PathRows; 3] = [
    PathRows::of_windows("usage", View::Usage, &[Level::Minute, Level::Hour, Level::Day, Level::Month]),
    PathRows::of_windows("latency", View::Latency, &[Level::FiveMinutes, Level::Hour, Level::Day]),
    PathRows::of_windows("geo", View::Geo, &[Level::Hour, Level::Day]),
];

const OF_SUBSCRIPTIONS: [PathRows; 6] = [
    PathRows::of_windows("usage", View::SubscriptionUsage, &[Level::Hour, Level::Day, Level::Month]),
    PathRows::of_account("charges", View::Charges, true),
    PathRows::of_account("bills", View::Bills, true),
    PathRows::of_account("forecast", View::Forecast, true),
    PathRows::of_account("notices", View::Notices, false),
    PathRows::of_account("adjustments", View::Adjustments, false),
];

/// The rows that a request asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowsQuery {
    /// The label of a level, such as `1h`.
    window: Option<String>,
    /// Rows from this time on, by RFC 3339.
    from: Option<String>,
    /// Rows before this time, by RFC 3339.
    to: Option<String>,
}

/// The incidents that a request asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentsQuery {
    limit: Option<usize>,
}

/// The level and the times of the rows that a request asks for.
struct Wanted {
    level: Option<Level>,
    from: EventTime,
    to: EventTime,
}

const ROWS_FORM: &str =
    "the query may have window (1m, 5m, 1h, 1d or 1mo, as the view has it), from and to (times by RFC 3339)";

impl Wanted {
    /// Reads a query; `None` if it asks for what the rows haven't got.
    fn of(query: &RowsQuery, rows: &PathRows) -> Option<Self> {
        let RowsQuery { window, from, to } = query;
        let level = match window {
            Some(window) => Some(*rows.levels.iter().find(|level| level.label() == window)?),
            None => None,
        };
        if !rows.has_time && (from.is_some() || to.is_some()) {
            return None;
        }
        let instant = |text: &Option<String>, without| match text {
            Some(text) => {
                let instant: jiff::Timestamp = text.parse().ok()?;
                Some(u64::try_from(instant.as_millisecond()).unwrap_or(0))
            }
            None => Some(without),
        };
        Some(Self { level, from: instant(from, 0)?, to: instant(to, EventTime::MAX)? })
    }

    fn has(&self, series: u64, at: u64) -> bool {
        self.level.is_none_or(|level| RowPlace::is_of_level(series, level))
            && (self.from..self.to).contains(&at)
    }
}

/// A key or a subscription, and whose it is.
struct RowsOwner {
    subject: RowSubject,
    /// The customer that has it now; `None` if no table says so.
    customer: Option<NameId>,
    /// The view whose rows say which customer had it before.
    usage: View,
    /// The time from which on a consumer sees rows if there is none of that view.
    without_usage: EventTime,
}

/// Answers with rows of a key.
pub(super) async fn answer_key_rows(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    Path((id, name)): Path<(String, String)>,
    query: Result<Query<RowsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let key = state.ledger.key_of_text(&id);
    let of = RowsOwner {
        subject: RowSubject::Key(key),
        customer: state.ledger.owner(key, (state.clock)()).map(|(_, customer)| customer),
        usage: View::Usage,
        // Nothing says whose the rows of other views are.
        without_usage: EventTime::MAX,
    };
    answer(&state, &caller, (&OF_KEYS, &name), &of, query, &headers)
}

/// Answers with rows of a subscription.
pub(super) async fn answer_subscription_rows(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    Path((id, name)): Path<(String, String)>,
    query: Result<Query<RowsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let subscription = NameId::new(&id);
    let of = RowsOwner {
        subject: RowSubject::Subscription(subscription),
        customer: state.ledger.customer(subscription),
        usage: View::SubscriptionUsage,
        without_usage: 0,
    };
    answer(&state, &caller, (&OF_SUBSCRIPTIONS, &name), &of, query, &headers)
}

/// The columns of a row of `usage` that say whose the key was.
#[derive(Deserialize)]
struct OwnerColumns<'a> {
    window: &'a str,
    customer: Option<String>,
}

/// Returns the instant from which on a key or a subscription was no other customer's, as its rows of `usage` say; `None` if
/// it has none.
fn own_since(shelf: &Shelf, usage: View, subject: RowSubject, own: NameId) -> Option<EventTime> {
    let found = shelf.rows(usage, subject, |_, _| true)?;
    let others = found.rows.iter().filter_map(|(start, row)| {
        let OwnerColumns { window, customer } = serde_json::from_slice(row).ok()?;
        customer.filter(|customer| NameId::new(customer) != own)?;
        // It was another's when the window began. Finer windows tell when that ended.
        let level = [Level::Minute, Level::Hour].into_iter().find(|level| level.label() == window);
        Some(level.map_or(start + 1, |level| level.end(*start)))
    });
    Some(others.max().unwrap_or(0))
}

/// Answers with those rows of a subject that the caller may see, or that they didn't change.
fn answer(
    state: &ApiState,
    caller: &ApiCaller,
    (paths, name): (&[PathRows], &str),
    of: &RowsOwner,
    query: Result<Query<RowsQuery>, QueryRejection>,
    headers: &HeaderMap,
) -> Response {
    let Some(rows) = paths.iter().find(|rows| rows.name == name) else { return missing() };
    if let Some(refused) = refused_to_read(caller) {
        return refused;
    }
    let wanted = query.ok().and_then(|Query(query)| Wanted::of(&query, rows));
    let Some(mut wanted) = wanted else { return refuse(StatusCode::BAD_REQUEST, ROWS_FORM) };
    let RowsOwner { subject, customer, usage, without_usage } = *of;
    let changed = state.shelf.changed(rows.view, subject);
    if customer.is_none() && changed.is_none() || !caller.may_see(customer) {
        return missing();
    }
    let own_since = |own| own_since(&state.shelf, usage, subject, own).unwrap_or(without_usage);
    let own_from = caller.customer.map_or(0, own_since);
    // Entries of a log have no time to tell.
    let is_untold = own_from > 0 && !rows.has_time;
    wanted.from = wanted.from.max(if is_untold { EventTime::MAX } else { own_from });
    let tag = tag_of(state, changed.unwrap_or(0), own_from);
    if is_shown(headers, &tag) {
        return unchanged(tag);
    }
    let found = state.shelf.rows(rows.view, subject, |series, at| wanted.has(series, at));
    let ShelvedRows { since, rows } = found.unwrap_or_default();
    page(state, since, rows.iter().map(|(_, row)| row.as_slice()), tag)
}

/// Answers with the newest incidents, the newest first.
pub(super) async fn answer_incidents(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    query: Result<Query<IncidentsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refused_to_read(&caller) {
        return refused;
    }
    let limit = query.ok().map(|Query(IncidentsQuery { limit })| limit.unwrap_or(INCIDENTS));
    let Some(limit) = limit.filter(|limit| (1..=MOST_INCIDENTS).contains(limit)) else {
        return refuse(StatusCode::BAD_REQUEST, "the query may have limit, 1 to 1,000 incidents");
    };
    let tag = tag_of(&state, incidents_changed(&state, &caller).unwrap_or(0), 0);
    if is_shown(&headers, &tag) {
        return unchanged(tag);
    }
    let ShelvedRows { since, rows } = incidents(&state);
    let rows = rows.into_iter().map(|(_, row)| row);
    let shown: Vec<Vec<u8>> = match caller.customer {
        None => rows.take(limit).collect(),
        Some(own) => rows.filter_map(|row| own_incident(&row, own)).take(limit).collect(),
    };
    page(&state, since, shown.iter().map(Vec::as_slice), tag)
}

/// Returns all incidents, the newest first.
fn incidents(state: &ApiState) -> ShelvedRows {
    let found = state.shelf.rows(View::Incidents, RowSubject::Job, |_, _| true);
    let mut found = found.unwrap_or_default();
    found.rows.sort_by_key(|(opened_ms, _)| std::cmp::Reverse(*opened_ms));
    found
}

/// Returns the last tick in which an incident changed that the caller may see.
pub(super) fn incidents_changed(state: &ApiState, caller: &ApiCaller) -> Option<Tick> {
    let any = state.shelf.changed(View::Incidents, RowSubject::Job)?;
    match caller.customer {
        None => Some(any),
        Some(own) => state.incidents.changed(own, any, || incidents(state).rows),
    }
}

fn tag_of(state: &ApiState, changed: Tick, since: EventTime) -> HeaderValue {
    tag(format_args!("{:x}-{changed:x}-{since:x}", state.shelf.life()))
}

fn page<'a>(
    state: &ApiState,
    since: Tick,
    rows: impl Iterator<Item = &'a [u8]>,
    tag: HeaderValue,
) -> Response {
    let mut body = Vec::new();
    let mut instant = |label: &str, ms: u64| {
        body.extend_from_slice(label.as_bytes());
        match ms {
            0 => body.extend_from_slice(b"null"),
            ms => body.extend_from_slice(format!("\"{}\"", time(ms)).as_bytes()),
        }
    };
    instant("{\"tick\":", state.ledger.tick_ms());
    instant(",\"since\":", since);
    body.extend_from_slice(b",\"rows\":[");
    for (index, row) in rows.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(row);
    }
    body.extend_from_slice(b"]}");
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, tag)];
    (headers, body).into_response()
}
