//! The data of all answers, and the forms that answers have in common.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{Extension, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use keytide_config::OnStale;
use keytide_connectors::decode::RequestKeys;
use keytide_connectors::settlement::SettlementWriter;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::auth::{ApiCaller, ApiTokens};
use super::bodies::{ErrorPage, Members, RequestBody};
use super::directory::Directory;
use super::ledger::QuotaLedger;
use super::own_incidents::OwnIncidents;
use super::shelf::Shelf;
use super::stats::ApiStats;

/// What all answers are made of.
pub(super) struct ApiState {
    pub(super) ledger: Arc<QuotaLedger>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) directory: Arc<Directory>,
    pub(super) incidents: OwnIncidents,
    pub(super) keys: RequestKeys,
    pub(super) tokens: ApiTokens,
    /// Records settlements before they end reservations; `None` without `[api.settlements]`.
    pub(super) settlements: Option<SettlementWriter>,
    pub(super) stats: Arc<ApiStats>,
    pub(super) on_stale: OnStale,
    /// Returns the time in ms since the epoch.
    pub(super) clock: fn() -> u64,
}

pub(super) type Shared = State<Arc<ApiState>>;

/// Makes an answer of JSON, which the body can always be.
pub(super) fn with_status(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Makes an answer of JSON whose tag is a hash of it, or says that the client has it.
pub(super) fn tagged(headers: &HeaderMap, body: &impl Serialize) -> Response {
    let Ok(body) = serde_json::to_vec(body) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let tag = tag(format_args!("{:x}", xxh3_128(&body)));
    if is_shown(headers, &tag) {
        return unchanged(tag);
    }
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, tag)];
    (headers, body).into_response()
}

/// Makes a weak tag of what tells versions of an answer from each other.
pub(super) fn tag(version: std::fmt::Arguments<'_>) -> HeaderValue {
    HeaderValue::try_from(format!("W/\"{version}\"")).unwrap_or(HeaderValue::from_static("W/\"\""))
}

/// Returns whether the client has the answer with a tag.
pub(super) fn is_shown(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let shown = headers.get_all(header::IF_NONE_MATCH).into_iter();
    let mut tags = shown.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tags.any(|shown| shown.trim_ascii() == tag.as_bytes())
}

/// Answers that the client has the answer with a tag.
pub(super) fn unchanged(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

/// Refuses a request, and says why.
pub(super) fn refuse(status: StatusCode, error: &'static str) -> Response {
    refuse_with(status, error)
}

/// Refuses a request with a reason that is made for it. It never has what the client sent.
pub(super) fn refuse_with(status: StatusCode, error: &str) -> Response {
    with_status(status, &ErrorPage { error })
}

pub(super) fn missing() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing: /v1/openapi.json has the paths")
}

/// Refuses a caller to whom checks aren't open. For consumers they don't exist.
pub(super) fn refused(caller: &ApiCaller) -> Option<Response> {
    if caller.may_check() {
        return None;
    }
    Some(match caller.customer {
        Some(_) => missing(),
        None => {
            refuse(StatusCode::FORBIDDEN, "the token's role doesn't open checks: it needs admin or check")
        }
    })
}

/// Refuses a caller to whom rows aren't open.
pub(super) fn refused_to_read(caller: &ApiCaller) -> Option<Response> {
    (!caller.may_read()).then(|| refuse(StatusCode::FORBIDDEN, "the token's role opens checks alone"))
}

/// A body of JSON, and the caller that sent it.
pub(super) struct SentBy<T>(pub(super) ApiCaller, pub(super) T);

/// The same of a caller to whom checks are open.
pub(super) struct Sent<T>(pub(super) ApiCaller, pub(super) T);

impl<T: RequestBody, S: Send + Sync> FromRequest<S> for SentBy<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (caller, body) = read(request, state, |_| None).await?;
        Ok(Self(caller, body))
    }
}

impl<T: RequestBody, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (caller, body) = read(request, state, refused).await?;
        Ok(Self(caller, body))
    }
}

/// Reads the body of a caller that isn't refused.
async fn read<T: RequestBody, S: Send + Sync>(
    mut request: Request,
    state: &S,
    refused: fn(&ApiCaller) -> Option<Response>,
) -> Result<(ApiCaller, T), Response> {
    let caller = request.extract_parts::<Extension<ApiCaller>>().await;
    let Extension(caller) = caller.map_err(IntoResponse::into_response)?;
    let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
    if let Some(refused) = refused(&caller) {
        return Err(refused);
    }
    match serde_json::from_slice(&body) {
        Ok(Members(body)) => Ok((caller, body)),
        Err(_) => Err(refuse(StatusCode::BAD_REQUEST, T::FORM)),
    }
}
