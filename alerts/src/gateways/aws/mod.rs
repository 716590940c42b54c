//! API keys of Amazon API Gateway, by its own API.
//!
//! | | |
//! |---|---|
//! | look | `GET /apikeys/ID?includeValue=true` |
//! | suspend, reinstate | `PATCH` of `/enabled` to `false` or `true` |
//! | revoke | `DELETE`, which is answered with 202 |
//!
//! `ID` is the credential; the key itself stands in no path. A key that is disabled is a suspended one, whoever disabled
//! it. The errors of AWS have names, by which they are told apart: a 404 of another server says nothing about a key.
//!
//! Limits: 5 requests a second, as AWS deletes as many for an account.

mod keys;
mod sign;

use hyper::{Method, StatusCode};
use keytide_config::AwsCredentials;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::keys::AwsKeys;
use self::sign::{AwsScope, sign};
use super::RequestedAction;
use super::admin::{AdminRequest, Dialect, Stop, not_let_in, segment, stop};
use super::json::text_of;
use super::mask::{KeyChange, SeenKey};
use crate::exchange::{HttpAnswer, SecretBytes};

/// The most requests of a second.
pub(super) const CALLS_PER_SECOND: usize = 5;

/// The dialect of Amazon API Gateway.
pub(super) struct Aws {
    region: String,
    credentials: AwsCredentials,
}

/// The part of an API key that is read.
#[derive(Deserialize)]
struct ApiKey<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    enabled: bool,
}

impl Aws {
    pub(super) fn new(region: String, credentials: AwsCredentials) -> Self {
        Self { region, credentials }
    }
}

impl Dialect for Aws {
    const API: &'static str = "API Gateway";
    const OPENED_BY: &'static str = "the access key is wrong, or has";
    const LOOK: &'static str = "includeValue=true";

    fn path(&self, action: &RequestedAction) -> Result<String, String> {
        Ok(format!("/apikeys/{}", segment(&action.credential, "credential")?))
    }

    fn headers(&self, request: &AdminRequest<'_>) -> Result<Vec<(&'static str, String)>, String> {
        let scope = AwsScope { region: &self.region, service: "apigateway" };
        let mut headers = sign(request, &AwsKeys::now(&self.credentials)?, &scope);
        headers.push(("Accept", "application/json".to_owned()));
        Ok(headers)
    }

    fn key(&self, body: &[u8]) -> Option<SeenKey> {
        let key: ApiKey<'_> = serde_json::from_slice(body).ok()?;
        Some(SeenKey { raw: text_of(key.value)?, is_suspended: !key.enabled })
    }

    fn write(&self, _: &[u8], change: &KeyChange<'_>) -> Option<(Method, SecretBytes)> {
        let enabled = if change.suspends { "false" } else { "true" };
        let text =
            format!(r#"{{"patchOperations":[{{"op":"replace","path":"/enabled","value":"{enabled}"}}]}}"#);
        let mut body = SecretBytes::with_capacity(text.len());
        body.push(text.as_bytes());
        Some((Method::PATCH, body))
    }

    fn is_missing(answer: &HttpAnswer) -> bool {
        answer.status == StatusCode::NOT_FOUND && answer.error.as_deref() == Some("NotFoundException")
    }

    fn stop(answer: &HttpAnswer) -> Stop {
        let HttpAnswer { status, after_ms, error, body: _ } = answer;
        let error = error.as_deref().unwrap_or("an error without a name");
        let away =
            || Stop::Away { reason: format!("API Gateway answered {status}: {error}"), after_ms: *after_ms };
        match (*status, error) {
            // A token is too old until its file is renewed, and a request if this clock is wrong.
            (_, "ExpiredToken" | "ExpiredTokenException" | "RequestExpired") => away(),
            // Somebody else changes the same key now, or this isn't AWS.
            (StatusCode::CONFLICT | StatusCode::NOT_FOUND, _) => away(),
            (
                StatusCode::BAD_REQUEST,
                "ThrottlingException" | "TooManyRequestsException" | "RequestAbortedException",
            ) => away(),
            (
                StatusCode::BAD_REQUEST,
                "AccessDeniedException"
                | "IncompleteSignature"
                | "IncompleteSignatureException"
                | "UnrecognizedClientException"
                | "NotAuthorized",
            ) => not_let_in::<Self>(answer),
            _ => stop::<Self>(answer),
        }
    }
}
