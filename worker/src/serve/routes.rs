//! The paths of the API, and the answers to each.
//!
//! | path | answers |
//! |---|---|
//! | POST `/v1/check` | 200: whether calls may be made, and how quotas stand |
//! | POST `/v1/settle`, `/v1/rollback` | 200: the reservation is ended; 404 if it isn't open |
//! | any `/v1/auth`, `/v1/auth/...` | 200, 429 or 403 without a body: the same for a gateway's sub-request |
//! | GET `/v1/subscriptions/ID/quota` | how a subscription's quotas stand now |
//! | GET `/v1/subscriptions/ID/VIEW`, `/v1/keys/ID/VIEW`, `/v1/incidents` | the newest rows of views, see [`super::rows`] |
//! | GET `/v1/session` | who the token's holder is |
//! | GET `/v1/subscriptions`, `/v1/subscriptions/ID`, `/v1/subscriptions/ID/keys` | which there are, see [`super::listing`] |
//! | POST `/v1/links` | a link by which a customer sees its page, if there are pages |
//! | GET `/v1/status` | how old the ledger is |
//! | GET `/v1/openapi.json` | the description of these paths by OpenAPI 3.1 |
//!
//! `/v1/auth` counts one call of the key that the request shows. The key is found by the source's rules in the headers, and
//! in a query: behind `/v1/auth/`, where Envoy puts the path, else in `X-Forwarded-Uri`. A gateway must set that header
//! itself, or a client could show another's key there. With `?deny=403` a quota denies with 403, too: NGINX knows no other
//! denial.
//!
//! Raw keys never leave the handler of `/v1/auth`: it makes ids of them. No answer and no log has anything that a client
//! sent. All errors are JSON, also those that the framework finds.
//!
//! **Limits.** A body has at most [`BODY_BYTES`], and must come within [`BODY_TIME`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, FromRequest as _, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use keytide_billing::BilledUse;
use keytide_config::Pages;
use keytide_connectors::decode::{RequestKeys, prehashed};
use keytide_connectors::sink::encode::time;
use keytide_dataflow::model::{KeyId, NameId};

use super::auth::ApiCaller;
use super::bodies::{
    CheckBody, CheckPage, MOST_HITS, Members, REQUEST_ID_BYTES, RequestBody as _, StandingPage, StatusPage,
    reason,
};
use super::headers::add_headers;
use super::ledger::{AskedUse, CheckAnswer, CheckSubject, CheckVerdict, RequestKey};
use super::listing::{answer_keys, answer_link, answer_session, answer_subscription, answer_subscriptions};
use super::pages;
use super::reply::{ApiState, Sent, Shared, missing, refuse, refused, refused_to_read, with_status};
use super::rows::{answer_incidents, answer_key_rows, answer_subscription_rows};
use super::settle::{answer_rollback, answer_settle};
use super::stats::ApiRoute;

/// Bytes of a request's body, at most.
const BODY_BYTES: usize = 16 << 10;
/// How long the body of a request may take. Else connections that never send theirs could take all places.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The reason of a denial, beside its status.
const REASON: HeaderName = HeaderName::from_static("x-keytide-reason");
/// Says that the ledger is stale.
const STALE: HeaderName = HeaderName::from_static("x-keytide-stale");
/// The header in which gateways have the target of their request.
const TARGET: &str = "x-forwarded-uri";

/// The description of the paths, which tests compare with the answers.
const OPENAPI: &str = include_str!("openapi.json");

/// Makes the service of a server, with pages if there are some.
pub(super) fn router(state: &Arc<ApiState>, pages: Option<&Pages>) -> Router {
    let pages = pages.map(|pages| pages::router(pages, &state.stats)).unwrap_or_default();
    let with_bodies = Router::new()
        .route("/v1/check", post(answer_check))
        .route("/v1/settle", post(answer_settle))
        .route("/v1/rollback", post(answer_rollback))
        .route("/v1/links", post(answer_link))
        .layer(from_fn(whole_body));
    Router::new()
        .merge(with_bodies)
        .route("/v1/auth", any(answer_auth))
        .route("/v1/auth/", any(answer_auth))
        .route("/v1/auth/{*path}", any(answer_auth))
        .route("/v1/session", get(answer_session))
        .route("/v1/subscriptions", get(answer_subscriptions))
        .route("/v1/subscriptions/{id}", get(answer_subscription))
        .route("/v1/subscriptions/{id}/keys", get(answer_keys))
        .route("/v1/subscriptions/{id}/quota", get(answer_quota))
        .route("/v1/subscriptions/{id}/{view}", get(answer_subscription_rows))
        .route("/v1/keys/{id}/{view}", get(answer_key_rows))
        .route("/v1/incidents", get(answer_incidents))
        .route("/v1/status", get(answer_status))
        .route("/v1/openapi.json", get(answer_openapi))
        .fallback(|| async { missing() })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(Arc::clone(state), guard))
        .with_state(Arc::clone(state))
        .merge(pages)
}

/// Lets nobody in without a token, adds headers to every answer, and counts it.
async fn guard(State(state): Shared, mut request: Request, next: Next) -> Response {
    let (began, route) = (Instant::now(), ApiRoute::of(request.uri().path()));
    let mut response = match state.tokens.caller(request.headers(), (state.clock)()) {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            explained(next.run(request).await)
        }
        None if !state.tokens.are_read() => {
            let why = "the table of tokens is being read: ask again in a second";
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, why);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        None => {
            let why = "show a token of the API as Authorization: Bearer, or as X-Keytide-Token";
            let mut response = refuse(StatusCode::UNAUTHORIZED, why);
            let challenge = HeaderValue::from_static("Bearer realm=\"keytide\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
    };
    // What has a tag may be kept by its reader, and asked for again.
    let is_tagged = response.headers().contains_key(header::ETAG);
    let cache = if is_tagged { "private, no-cache" } else { "no-store" };
    for (name, value) in [(header::CACHE_CONTROL, cache), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if is_tagged {
        let tokens = HeaderValue::from_static("authorization, x-keytide-token");
        response.headers_mut().insert(header::VARY, tokens);
    }
    state.stats.count_request(route, response.status(), began.elapsed());
    response
}

/// Reads a body whole before its handler begins, for [`BODY_TIME`] at most.
async fn whole_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let read = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(rejection)) => rejection.into_response(),
        Err(_) => {
            let mut response = refuse(StatusCode::REQUEST_TIMEOUT, "the body didn't come within 10 s");
            // The rest of the body is no request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Puts the API's words in the place of the framework's.
fn explained(response: Response) -> Response {
    let error = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than 16 KiB",
        StatusCode::METHOD_NOT_ALLOWED => "the path has another method, see the header Allow",
        StatusCode::BAD_REQUEST if !is_json(&response) => {
            "the request can't be read: its body is cut off, or its path isn't UTF-8"
        }
        _ => return response,
    };
    let mut explained = refuse(response.status(), error);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        explained.headers_mut().insert(header::ALLOW, allow.clone());
    }
    explained
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json")
}

async fn answer_check(State(state): Shared, Sent(caller, body): Sent<CheckBody>) -> Response {
    let CheckBody { key_hash, key_id, subscription, hits, estimate, request_id } = body;
    let subject = match (key_hash, key_id, subscription) {
        (Some(hash), None, None) => key_of_hash(&hash),
        (None, Some(id), None) if !id.is_empty() => Some(CheckSubject::Key(state.ledger.key_of_text(&id))),
        (None, None, Some(name)) if !name.is_empty() => Some(CheckSubject::Subscription(NameId::new(&name))),
        _ => None,
    };
    let Some(subject) = subject else { return refuse(StatusCode::BAD_REQUEST, CheckBody::FORM) };
    let hits = hits.unwrap_or(1);
    if hits > MOST_HITS {
        return refuse(StatusCode::BAD_REQUEST, "hits must be a whole number of at most 2^63");
    }
    if request_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > REQUEST_ID_BYTES) {
        return refuse(StatusCode::BAD_REQUEST, "request_id must have 1 to 256 bytes");
    }
    let is_reserved = estimate.is_some();
    let of_estimate = estimate.map_or_else(Default::default, |Members(estimate)| estimate);
    let used = BilledUse {
        calls: hits.into(),
        bytes_in: of_estimate.bytes_in.map_or(0, u128::from),
        bytes_out: of_estimate.bytes_out.map_or(0, u128::from),
        units: of_estimate.units.map_or(0, u128::from),
    };
    let asked = AskedUse { used, is_reserved };
    let request = request_id.map(|id| RequestKey::new(&caller.name, &id));
    let now_ms = (state.clock)();
    let answer = state.ledger.check(subject, asked, request, now_ms);
    state.stats.count_check(reason(&answer));
    let mut response = with_status(StatusCode::OK, &CheckPage::of(&answer, now_ms));
    add_headers(&answer, now_ms, response.headers_mut());
    response
}

/// Returns the key of a hash in hexadecimal digits, as tables have it.
fn key_of_hash(hash: &str) -> Option<CheckSubject> {
    let KeyId(id) = prehashed(hash.as_bytes())?;
    Some(CheckSubject::Key(KeyId::from_hash(&id.to_be_bytes())))
}

async fn answer_auth(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refused(&caller) {
        return refused;
    }
    let now_ms = (state.clock)();
    let answer = match key_of_request(&state.keys, &uri, &headers) {
        Some(key) => {
            let used = BilledUse { calls: 1, ..BilledUse::default() };
            state.ledger.check(CheckSubject::Key(key), AskedUse { used, is_reserved: false }, None, now_ms)
        }
        // What stands in the key's place is no key of a table.
        None => Arc::new(CheckAnswer { is_stale: state.ledger.is_stale(now_ms), ..CheckAnswer::default() }),
    };
    let denies_with_403 = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "deny=403"));
    let status = match answer.verdict {
        CheckVerdict::Allowed => StatusCode::OK,
        CheckVerdict::Exceeded | CheckVerdict::Stale if !denies_with_403 => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = status.into_response();
    let headers = response.headers_mut();
    add_headers(&answer, now_ms, headers);
    let reason = reason(&answer);
    state.stats.count_check(reason);
    headers.insert(REASON, HeaderValue::from_static(reason));
    if answer.is_stale {
        headers.insert(STALE, HeaderValue::from_static("true"));
    }
    response
}

/// Returns the key of the request that a gateway asks about; `None` if there is something that can't be a key.
fn key_of_request(keys: &RequestKeys, uri: &Uri, headers: &HeaderMap) -> Option<KeyId> {
    let header = |name: &str| {
        headers.get_all(name).into_iter().map(HeaderValue::as_bytes).find(|value| !value.is_empty())
    };
    let target = match uri.path().starts_with("/v1/auth/") {
        true => uri.path_and_query().map(|target| target.as_str().as_bytes()),
        false => header(TARGET),
    };
    keys.id(header, target)
}

/// Shows how the quotas of a subscription stand, if it is the caller's business.
async fn answer_quota(
    State(state): Shared,
    Extension(caller): Extension<ApiCaller>,
    Path(id): Path<String>,
) -> Response {
    if let Some(refused) = refused_to_read(&caller) {
        return refused;
    }
    let subscription = NameId::new(&id);
    let now_ms = (state.clock)();
    let asks_nothing = AskedUse::default();
    let answer = state.ledger.check(CheckSubject::Subscription(subscription), asks_nothing, None, now_ms);
    if !answer.is_known || !caller.may_see(state.ledger.customer(subscription)) {
        return missing();
    }
    with_status(StatusCode::OK, &StandingPage::of(&answer))
}

async fn answer_status(State(state): Shared) -> Response {
    let now_ms = (state.clock)();
    let known = |ms: u64| (ms > 0).then_some(ms);
    let tick = known(state.ledger.tick_ms());
    let page = StatusPage {
        tick: tick.map(time),
        tick_age_ms: tick.map(|tick| now_ms.saturating_sub(tick)),
        stale: state.ledger.is_stale(now_ms),
        booked_through: known(state.ledger.through_ms()).map(time),
        on_stale: state.on_stale.name(),
    };
    with_status(StatusCode::OK, &page)
}

async fn answer_openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
