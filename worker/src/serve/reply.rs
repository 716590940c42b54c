//! The data of all answers, and the forms that answers have in common.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use keytide_config::OnStale;
use keytide_connectors::decode::RequestKeys;
use serde::Serialize;

use super::auth::ApiTokens;
use super::bodies::ErrorPage;
use super::ledger::QuotaLedger;
use super::shelf::Shelf;

/// What all answers are made of.
pub(super) struct ApiState {
    pub(super) ledger: Arc<QuotaLedger>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) keys: RequestKeys,
    pub(super) tokens: ApiTokens,
    pub(super) on_stale: OnStale,
    /// Returns the time in ms since the epoch.
    pub(super) clock: fn() -> u64,
}

pub(super) type Shared = State<Arc<ApiState>>;

/// Makes an answer of JSON.
pub(super) fn with_status(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

pub(super) fn refuse(status: StatusCode, error: &'static str) -> Response {
    with_status(status, &ErrorPage { error })
}

pub(super) fn missing() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing: /v1/openapi.json has the paths")
}
