//! Answers about which subscriptions and keys there are, and who asks.
//!
//! Pages ask for one subscription again and again. Its answer says in which tick each of its views changed last, so that only
//! these are read anew. As long as nothing changes it is 304. The header [`TICK`] of both says how far the job is.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use keytide_config::{ApiRole, View};
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::{RowPlace, RowSubject};
use keytide_dataflow::Level;
use keytide_dataflow::model::{EventTime, KeyState, NameId};
use serde::{Deserialize, Serialize};

use super::auth::ApiCaller;
use super::bodies::{LinkBody, QuotaPage, RequestBody as _};
use super::directory::{KeyFacts, ListPage, SubscriptionFacts, SubscriptionSearch};
use super::ledger::{AskedUse, CheckSubject};
use super::links::{LINK_SECONDS, Link, path_of};
use super::reply::{ApiState, SentBy, Shared, missing, refuse, refused_to_read, tagged, with_status};
use super::rows::incidents_changed;

/// The time of the last tick whose rows are in.
pub(super) const TICK: HeaderName = HeaderName::from_static("x-keytide-tick");
/// Rows of a page that doesn't say how many, and at most.
const ROWS: usize = 50;
const MOST_ROWS: usize = 200;
/// Bytes of a text that is searched, at most.
const TEXT_BYTES: usize = 512;

/// Who asks, and how far the job is.
#[derive(Debug, Serialize)]
struct SessionPage {
    tick: Option<String>,
    tick_age_ms: Option<u64>,
    stale: bool,
    /// The name of the token.
    name: String,
    role: &'static str,
    customer: Option<String>,
    /// The first instant at which the token opens nothing.
    expires_at: Option<String>,
    version: &'static str,
}

/// A subscription of the table.
#[derive(Debug, Serialize)]
struct SubscriptionPage {
    subscription: String,
    customer: Option<String>,
    plan: Option<String>,
    plan_name: Option<String>,
    time_zone: String,
    billing_anchor: u8,
}

impl SubscriptionPage {
    fn of(facts: &SubscriptionFacts) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let time_zone = if facts.time_zone.is_empty() { "UTC" } else { &facts.time_zone };
        Self {
            subscription: facts.id.to_string(),
            customer: text(&facts.customer),
            plan: text(&facts.plan),
            plan_name: text(&facts.plan_name),
            time_zone: time_zone.to_owned(),
            billing_anchor: facts.billing_anchor,
        }
    }
}

/// A subscription, how its quotas stand, and what changed.
#[derive(Debug, Serialize)]
struct OverviewPage {
    #[serde(flatten)]
    subscription: SubscriptionPage,
    stale: bool,
    quotas: Vec<QuotaPage>,
    keys: usize,
    changed: ChangedViews,
}

/// By view, the last tick in which rows of a subscription changed; null if there is none.
#[derive(Debug, Serialize)]
struct ChangedViews {
    usage: Option<String>,
    charges: Option<String>,
    bills: Option<String>,
    forecast: Option<String>,
    notices: Option<String>,
    adjustments: Option<String>,
    /// Of all incidents that the caller may see.
    incidents: Option<String>,
}

/// A key of a subscription.
#[derive(Debug, Serialize)]
struct KeyPage {
    key_id: String,
    /// The state in the table of keys.
    state: &'static str,
    /// The state that the job decided, until it is lifted.
    denied: Option<&'static str>,
    created_at: Option<String>,
    /// The end of the last minute with calls, or what the table says of the time before.
    last_used_at: Option<String>,
    changed: ChangedKeyViews,
}

#[derive(Debug, Serialize)]
struct ChangedKeyViews {
    usage: Option<String>,
    latency: Option<String>,
    geo: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
struct RowsPage<T> {
    tick: Option<String>,
    rows: Vec<T>,
    /// Shown as `after`, it asks for the next page; null if there is none.
    next: Option<String>,
}

/// The subscriptions that a request asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionsQuery {
    q: Option<String>,
    customer: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The keys that a request asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysQuery {
    after: Option<String>,
    limit: Option<usize>,
}

const SUBSCRIPTIONS_FORM: &str =
    "the query may have q and customer (texts of at most 512 bytes), after (an id), and limit (1 to 200)";
const KEYS_FORM: &str = "the query may have after (a key as views name it), and limit (1 to 200)";

fn known(ms: u64) -> Option<String> {
    (ms > 0).then(|| time(ms))
}

fn page_size(limit: Option<usize>) -> Option<usize> {
    Some(limit.unwrap_or(ROWS)).filter(|limit| (1..=MOST_ROWS).contains(limit))
}

/// Answers who the token's holder is.
pub(super) async fn answer_session(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
) -> Response {
    let now_ms = (state.clock)();
    let tick_ms = state.ledger.tick_ms();
    let customer = caller.customer.and_then(|customer| state.directory.customer(customer));
    let page = SessionPage {
        tick: known(tick_ms),
        tick_age_ms: (tick_ms > 0).then(|| now_ms.saturating_sub(tick_ms)),
        stale: state.ledger.is_stale(now_ms),
        name: caller.name.to_string(),
        role: caller.role.name(),
        customer: customer.map(|text| text.to_string()),
        expires_at: caller.expires_at.map(time),
        version: env!("CARGO_PKG_VERSION"),
    };
    with_status(StatusCode::OK, &page)
}

/// Lists the subscriptions that the caller may see.
pub(super) async fn answer_subscriptions(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    query: Result<Query<SubscriptionsQuery>, QueryRejection>,
) -> Response {
    if let Some(refused) = refused_to_read(&caller) {
        return refused;
    }
    let Ok(Query(SubscriptionsQuery { q, customer, after, limit })) = query else {
        return refuse(StatusCode::BAD_REQUEST, SUBSCRIPTIONS_FORM);
    };
    let is_short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= TEXT_BYTES);
    let Some(limit) = page_size(limit).filter(|_| [&q, &customer, &after].into_iter().all(is_short)) else {
        return refuse(StatusCode::BAD_REQUEST, SUBSCRIPTIONS_FORM);
    };
    let asked = customer.as_deref().map(NameId::new);
    let page = if caller.customer.is_some() && asked.is_some() && asked != caller.customer {
        ListPage::default()
    } else {
        let search = SubscriptionSearch {
            customer: caller.customer.or(asked),
            text: q.as_deref().unwrap_or_default(),
            after: after.as_deref(),
            limit,
        };
        state.directory.subscriptions(search, (state.clock)())
    };
    let page = RowsPage {
        tick: known(state.ledger.tick_ms()),
        rows: page.rows.iter().map(SubscriptionPage::of).collect(),
        next: page.next.map(|id| id.to_string()),
    };
    with_status(StatusCode::OK, &page)
}

/// Returns a subscription, if the caller may see it.
fn seen(state: &ApiState, caller: &ApiCaller, id: &str) -> Result<SubscriptionFacts, Box<Response>> {
    if let Some(refused) = refused_to_read(caller) {
        return Err(Box::new(refused));
    }
    let subscription = NameId::new(id);
    let facts = state.directory.subscription(subscription, (state.clock)());
    let is_seen = caller.may_see(state.ledger.customer(subscription));
    facts.filter(|_| is_seen).ok_or_else(|| Box::new(missing()))
}

/// Shows a subscription, how its quotas stand, and in which ticks its views changed.
pub(super) async fn answer_subscription(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let facts = match seen(&state, &caller, &id) {
        Ok(facts) => facts,
        Err(refused) => return *refused,
    };
    let subscription = NameId::new(&id);
    let changed = |view, subject| state.shelf.changed(view, subject).map(time);
    let of = |view| changed(view, RowSubject::Subscription(subscription));
    let subject = CheckSubject::Subscription(subscription);
    let standing = state.ledger.check(subject, AskedUse::default(), None, (state.clock)());
    let page = OverviewPage {
        subscription: SubscriptionPage::of(&facts),
        stale: standing.is_stale,
        quotas: standing.quotas.iter().map(QuotaPage::of).collect(),
        keys: state.directory.key_count(subscription),
        changed: ChangedViews {
            usage: of(View::SubscriptionUsage),
            charges: of(View::Charges),
            bills: of(View::Bills),
            forecast: of(View::Forecast),
            notices: of(View::Notices),
            adjustments: of(View::Adjustments),
            incidents: incidents_changed(&state, &caller).map(time),
        },
    };
    let mut response = tagged(&headers, &page);
    let tick = known(state.ledger.tick_ms()).and_then(|tick| HeaderValue::try_from(tick).ok());
    if let Some(tick) = tick {
        response.headers_mut().insert(TICK, tick);
    }
    response
}

/// Lists the keys that a subscription has now.
pub(super) async fn answer_keys(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    Path(id): Path<String>,
    query: Result<Query<KeysQuery>, QueryRejection>,
) -> Response {
    if let Err(refused) = seen(&state, &caller, &id) {
        return *refused;
    }
    let query = query.ok().and_then(|Query(query)| Some((query.after, page_size(query.limit)?)));
    let Some((after, limit)) = query else { return refuse(StatusCode::BAD_REQUEST, KEYS_FORM) };
    let subscription = NameId::new(&id);
    let after = after.map(|text| state.ledger.key_of_text(&text));
    let now_ms = (state.clock)();
    let page = state.directory.keys(subscription, after, limit);
    // A key's other owners are of the past, or of the future.
    let is_own = |facts: &&KeyFacts| {
        state.ledger.owner(facts.key, now_ms).is_some_and(|(owner, _)| owner == subscription)
    };
    let page = RowsPage {
        tick: known(state.ledger.tick_ms()),
        rows: page.rows.iter().filter(is_own).map(|facts| key_page(&state, facts)).collect(),
        next: page.next.and_then(|_| page.rows.last()).map(|last| last.text.to_string()),
    };
    with_status(StatusCode::OK, &page)
}

fn key_page(state: &ApiState, KeyFacts { key, text, times }: &KeyFacts) -> KeyPage {
    let subject = RowSubject::Key(*key);
    let changed = |view| state.shelf.changed(view, subject).map(time);
    let (kept, denied) = state.ledger.key_state(*key).unwrap_or_default();
    let minutes =
        state.shelf.newest(View::Usage, subject, |series| RowPlace::is_of_level(series, Level::Minute));
    let used: Option<EventTime> = minutes.map(|start| Level::Minute.end(start));
    KeyPage {
        key_id: text.to_string(),
        state: KeyState::name(kept),
        denied: denied.map(KeyState::name),
        created_at: times.created_at.map(time),
        last_used_at: used.max(times.last_used_at).map(time),
        changed: ChangedKeyViews {
            usage: changed(View::Usage),
            latency: changed(View::Latency),
            geo: changed(View::Geo),
        },
    }
}

/// Makes a link by which a customer sees its page, for a portal that asks with an admin's token.
pub(super) async fn answer_link(State(state): Shared, SentBy(caller, body): SentBy<LinkBody>) -> Response {
    if caller.role != ApiRole::Admin {
        return match caller.customer {
            Some(_) => missing(),
            None => refuse(StatusCode::FORBIDDEN, "only a token of role admin makes links"),
        };
    }
    let Some(links) = state.tokens.links() else { return missing() };
    let LinkBody { customer, expires_in } = body;
    let expires_in = expires_in.unwrap_or(3_600);
    if customer.is_empty() || customer.len() > TEXT_BYTES || !LINK_SECONDS.contains(&expires_in) {
        return refuse(StatusCode::BAD_REQUEST, LinkBody::FORM);
    }
    if state.directory.customer(NameId::new(&customer)).is_none() {
        return refuse(StatusCode::NOT_FOUND, "no subscription of the tables has this customer");
    }
    let expires_at = (state.clock)() + expires_in * 1_000;
    let token = links.sign(&Link { customer, expires_at });
    let page = serde_json::json!({ "path": path_of(&token), "token": token, "expires_at": time(expires_at) });
    with_status(StatusCode::OK, &page)
}
