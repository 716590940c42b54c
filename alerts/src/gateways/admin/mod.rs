//! A gateway whose credentials are changed by its Admin API.
//!
//! [`AdminApi`] says where that is, [`Dialect`] what a gateway calls things, and
//! [`Procedure`] what is done in which order.
//!
//! A write that isn't answered may still come into force, after a look that didn't see it. So a reinstatement that finds
//! nothing to undo, or follows such a write, is done only once the key was seen without a mask twice, the endpoint's
//! timeout apart.
//!
//! Limits: a change that the gateway takes and doesn't keep is tried 3 times in a life of the job.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hyper::{Method, StatusCode};
use keytide_config::AdminApi;
use keytide_dataflow::{Action, ActionId};
use rustls::crypto::SecureRandom;

use super::RequestedAction;
use super::called::{CallOutcome, CalledGateway, MayAct};
use super::mask::Proof;
use super::procedure::{Ending, Procedure, ProcedureStep, SeenCredential};
use crate::exchange::{HttpAnswer, HttpCall, HttpClient, SecretBytes};
use crate::outbox::WallClock;

/// How often a change is tried that the gateway doesn't keep.
const UNKEPT: u32 = 3;

/// What a gateway's Admin API calls things.
pub(super) trait Dialect: Send {
    /// The name of the header that shows the token.
    const TOKEN: &'static str;

    /// Returns the path of a key below the API's URL, or why there is none.
    fn path(&self, action: &RequestedAction) -> Result<String, String>;

    /// Reads the key out of the body of an answer; `None` if it can't be read.
    fn key(&self, action: &RequestedAction, body: &[u8]) -> Option<SecretBytes>;

    /// Returns the method and the body of the request that writes a key. `before` is the body that was read.
    fn write(&self, action: &RequestedAction, before: &[u8], key: &[u8]) -> Option<(Method, SecretBytes)>;
}

/// Changes credentials of a gateway.
pub(super) struct AdminGateway<D> {
    dialect: D,
    client: HttpClient,
    /// The path of the URL, without a `/` at its end.
    base: String,
    token: Option<keytide_config::Secret>,
    timeout_ms: u64,
    proof: Proof,
    clock: WallClock,
    random: &'static dyn SecureRandom,
    /// How often the gateway didn't keep a change.
    unkept: BTreeMap<ActionId, u32>,
    /// The reinstatements that look a second time.
    seen_open: BTreeSet<ActionId>,
    /// Paths of keys that were written without an answer.
    unanswered: BTreeSet<String>,
}

/// The reason for which a procedure stops.
enum Stop {
    /// The gateway will never do it.
    Refused(String),
    /// The gateway refused the token.
    Unauthorized(String),
    /// The gateway couldn't do it now, so it is tried again.
    Away { reason: String, after_ms: Option<u64> },
}

impl<D: Dialect> AdminGateway<D> {
    pub(super) fn new(
        dialect: D,
        client: HttpClient,
        api: &AdminApi,
        proof: Proof,
        clock: WallClock,
    ) -> Self {
        let AdminApi { endpoint, token, unproven: _ } = api;
        Self {
            dialect,
            client,
            base: endpoint.url.target.reveal().trim_end_matches('/').to_owned(),
            token: token.clone(),
            timeout_ms: endpoint.timeout_ms,
            proof,
            clock,
            random: rustls::crypto::ring::default_provider().secure_random,
            unkept: BTreeMap::new(),
            seen_open: BTreeSet::new(),
            unanswered: BTreeSet::new(),
        }
    }

    /// Runs the procedure of an action to its end.
    fn run(&mut self, path: &str, action: &RequestedAction, may_act: MayAct<'_>) -> Result<Ending, Stop> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|_| Stop::Away {
            reason: "the system gives no random bytes".to_owned(),
            after_ms: None,
        })?;
        let (proof, random) = (self.proof.clone(), move || bytes);
        let mut procedure = Procedure::new(action, &proof, &random);
        loop {
            // STEP 1: look.
            let before = self.look(path)?;
            let seen = match &before {
                None => SeenCredential::Missing,
                Some(body) => {
                    self.dialect.key(action, body.as_ref()).map_or(SeenCredential::NoKey, SeenCredential::Key)
                }
            };
            // STEP 2: prove, and act.
            match procedure.seen(&seen) {
                ProcedureStep::End(ending) => return Ok(ending),
                ProcedureStep::Write(key) => {
                    let body = before.as_ref().map_or(&[][..], |body| body.as_ref());
                    let written = self.dialect.write(action, body, key.as_ref());
                    let Some((method, body)) = written else {
                        return Err(Stop::Refused("the credential can't be written back".to_owned()));
                    };
                    self.change(path, (method, body), may_act)?;
                }
                ProcedureStep::Delete => {
                    self.change(path, (Method::DELETE, SecretBytes::with_capacity(0)), may_act)?;
                }
            }
            // STEP 3: read back, as the next look.
        }
    }

    /// Reads a credential; `None` if there is none.
    fn look(&self, path: &str) -> Result<Option<SecretBytes>, Stop> {
        let answer = self.ask(path, Method::GET, SecretBytes::with_capacity(0))?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(stop(&answer)),
        }
    }

    /// Changes a credential. One that is gone by then is left to the look that follows.
    fn change(
        &mut self,
        path: &str,
        (method, body): (Method, SecretBytes),
        may_act: MayAct<'_>,
    ) -> Result<(), Stop> {
        may_act().map_err(|reason| Stop::Away { reason, after_ms: None })?;
        let answered = self.ask(path, method, body);
        // A server between may have lost the answer of the gateway.
        if answered.as_ref().map_or(true, |answer| answer.status.is_server_error()) {
            self.unanswered.insert(path.to_owned());
        }
        let answer = answered?;
        match answer.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(stop(&answer)),
        }
    }

    fn ask(&self, path: &str, method: Method, body: SecretBytes) -> Result<HttpAnswer, Stop> {
        let token = self.token.iter().map(|token| (D::TOKEN, token.reveal().to_owned()));
        let target = format!("{}{path}", self.base);
        let reads = method == Method::GET;
        let call = HttpCall { method, target, headers: token.collect(), body, reads };
        self.client.send(call, (self.clock)()).map_err(|reason| Stop::Away { reason, after_ms: None })
    }

    /// Decides what an ending means.
    fn ended(&mut self, path: &str, action: &RequestedAction, ending: Ending) -> CallOutcome {
        let is_first_look = action.action == Action::Reinstate
            && (ending == Ending::NothingToUndo || self.unanswered.contains(path))
            && matches!(ending, Ending::Done | Ending::NothingToUndo);
        if is_first_look && self.seen_open.insert(action.id) {
            return CallOutcome::Later(self.timeout_ms);
        }
        let outcome = match ending {
            Ending::Done | Ending::NothingToUndo => CallOutcome::Done,
            Ending::Failed(reason) => CallOutcome::Failed(reason),
            Ending::NotKept => {
                let times = self.unkept.entry(action.id).or_default();
                *times += 1;
                let reason = "the gateway took the change, and the credential isn't changed".to_owned();
                if *times < UNKEPT {
                    return CallOutcome::Again { reason, after_ms: None };
                }
                CallOutcome::Failed(reason)
            }
        };
        self.forget(path, action.id);
        outcome
    }

    fn forget(&mut self, path: &str, action: ActionId) {
        self.unkept.remove(&action);
        if self.seen_open.remove(&action) {
            self.unanswered.remove(path);
        }
    }
}

impl<D: Dialect> CalledGateway for AdminGateway<D> {
    fn call(&mut self, action: &RequestedAction, may_act: MayAct<'_>) -> CallOutcome {
        let path = match self.dialect.path(action) {
            Ok(path) => path,
            Err(reason) => return CallOutcome::Failed(reason),
        };
        match self.run(&path, action, may_act) {
            Ok(ending) => self.ended(&path, action, ending),
            Err(Stop::Refused(reason)) => {
                self.forget(&path, action.id);
                CallOutcome::Failed(reason)
            }
            Err(Stop::Unauthorized(reason)) => CallOutcome::Refused(reason),
            Err(Stop::Away { reason, after_ms }) => CallOutcome::Again { reason, after_ms },
        }
    }
}

/// Judges an answer that isn't one of those that are expected.
fn stop(answer: &HttpAnswer) -> Stop {
    let status = answer.status;
    match status {
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT => {
            let why = match status {
                StatusCode::METHOD_NOT_ALLOWED => ": it changes no credentials, as one without a database",
                StatusCode::CONFLICT => ": another credential has that key",
                _ => "",
            };
            Stop::Refused(format!("the Admin API answered {status}{why}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Stop::Unauthorized(format!(
            "the Admin API answered {status}: admin_token is wrong, or has too few rights"
        )),
        _ => Stop::Away { reason: format!("the Admin API answered {status}"), after_ms: answer.after_ms },
    }
}

/// Returns a name as a segment of a path, or why it can't be one. `what` names its column.
pub(super) fn segment(name: &str, what: &str) -> Result<String, String> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(format!("the table of keys has no {what} of the key"));
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => segment.push(byte.into()),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(segment)
}
