//! A receiver that is sent each action as a signed request.
//!
//! The request is a POST with the headers of a webhook for incidents, and the action's id as `Keytide-Id`. It is the
//! same whenever it is sent again. The receiver's status is its answer:
//!
//! | status | means |
//! |---|---|
//! | 202 | it is taken; the receiver reports the outcome to `/v1/actions/ID/outcome` |
//! | any other 2xx | done |
//! | 409 | done already |
//! | 404 | failed: the receiver doesn't know the key |
//! | anything else, or none | it is sent again |

use hyper::{Method, StatusCode};
use keytide_config::Secret;
use serde::Serialize;

use super::RequestedAction;
use super::called::{CallOutcome, CalledGateway, MayAct};
use crate::exchange::{HttpCall, HttpClient, SecretBytes};
use crate::outbox::WallClock;
use crate::webhook::SignedRequest;

/// Sends actions to a receiver.
pub(super) struct ActionWebhook {
    client: HttpClient,
    target: Secret,
    secret: Secret,
    clock: WallClock,
}

/// The body of a request.
#[derive(Serialize)]
struct ActionBody<'a> {
    action: &'static str,
    key_id: &'a str,
    consumer: Option<&'a str>,
    credential: Option<&'a str>,
    incident: String,
    why: &'a str,
    /// The id of the suspension that a reinstatement lifts.
    undo: Option<String>,
}

impl ActionWebhook {
    pub(super) fn new(client: HttpClient, target: Secret, secret: Secret, clock: WallClock) -> Self {
        Self { client, target, secret, clock }
    }
}

impl CalledGateway for ActionWebhook {
    fn call(&mut self, action: &RequestedAction, may_act: MayAct<'_>) -> CallOutcome {
        if let Err(reason) = may_act() {
            return CallOutcome::Again { reason, after_ms: None };
        }
        let now_ms = (self.clock)();
        let request = SignedRequest::signed(
            Some(&self.secret),
            &action.id.to_string(),
            now_ms / 1_000,
            body_of(action),
        );
        let mut body = SecretBytes::with_capacity(request.body.len());
        body.push(&request.body);
        let target = self.target.reveal().to_owned();
        let call = HttpCall { method: Method::POST, target, headers: request.headers, body, reads: false };
        match self.client.send(call, now_ms) {
            Ok(answer) => judge(answer.status, answer.after_ms),
            Err(reason) => CallOutcome::Again { reason, after_ms: None },
        }
    }
}

fn body_of(action: &RequestedAction) -> Vec<u8> {
    let RequestedAction { action, key_id, incident, why, consumer, credential, undo, .. } = action;
    let known = |name: &'_ str| (!name.is_empty()).then_some(());
    let body = ActionBody {
        action: action.name(),
        key_id,
        consumer: known(consumer).map(|()| &**consumer),
        credential: known(credential).map(|()| &**credential),
        incident: incident.to_string(),
        why,
        undo: undo.map(|id| id.to_string()),
    };
    serde_json::to_vec(&body).expect("texts can always be written as JSON")
}

fn judge(status: StatusCode, after_ms: Option<u64>) -> CallOutcome {
    match status {
        StatusCode::ACCEPTED => CallOutcome::Taken,
        StatusCode::CONFLICT => CallOutcome::Done,
        StatusCode::NOT_FOUND => {
            CallOutcome::Failed(format!("the receiver answered {status}: it doesn't know the key"))
        }
        _ if status.is_success() => CallOutcome::Done,
        _ if status.is_redirection() => CallOutcome::Again {
            reason: format!("the receiver answered {status}; redirects aren't followed"),
            after_ms,
        },
        _ => CallOutcome::Again { reason: format!("the receiver answered {status}"), after_ms },
    }
}
