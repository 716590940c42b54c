//! A gateway whose credentials are changed by its Admin API, or what it has in place of one.
//!
//! [`Endpoint`] says where that is, [`Dialect`] what a gateway calls things, and
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
use keytide_config::Endpoint;
use keytide_dataflow::{Action, ActionId};
use rustls::crypto::SecureRandom;

use super::RequestedAction;
use super::called::{CallOutcome, CalledGateway, MayAct};
use super::mask::{KeyChange, Proof, SeenKey};
use super::procedure::{Ending, Procedure, ProcedureStep, SeenCredential};
use crate::exchange::{HttpAnswer, HttpCall, HttpClient, SecretBytes};
use crate::outbox::WallClock;

/// How often a change is tried that the gateway doesn't keep.
const UNKEPT: u32 = 3;

/// What a gateway's Admin API calls things.
pub(super) trait Dialect: Send {
    /// The name of the API in messages.
    const API: &'static str = "the Admin API";
    /// What is wrong if it lets nobody in, as messages say it before `too few rights`.
    const OPENED_BY: &'static str = "admin_token is wrong, or has";
    /// The query by which a look shows the key, without a `?`.
    const LOOK: &'static str = "";

    /// Returns the path of a key below the API's URL, or why there is none.
    fn path(&self, action: &RequestedAction) -> Result<String, String>;

    /// Returns the headers that let a request in, or why there are none now.
    fn headers(&self, request: &AdminRequest<'_>) -> Result<Vec<(&'static str, String)>, String>;

    /// Reads the key out of the body of an answer; `None` if it can't be read.
    fn key(&self, body: &[u8]) -> Option<SeenKey>;

    /// Returns the method and the body of the request that makes a change. `before` is the body that was read.
    fn write(&self, before: &[u8], change: &KeyChange<'_>) -> Option<(Method, SecretBytes)>;

    /// Returns whether an answer says that there is no such credential.
    fn is_missing(answer: &HttpAnswer) -> bool {
        answer.status == StatusCode::NOT_FOUND
    }

    /// Judges an answer that isn't one of those that are expected.
    fn stop(answer: &HttpAnswer) -> Stop {
        stop::<Self>(answer)
    }
}

/// A request that is about to be sent.
pub(super) struct AdminRequest<'a> {
    pub(super) method: &'a Method,
    /// The value of the header `Host`.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
    /// The time at which it is made, in milliseconds since 1970.
    pub(super) now_ms: u64,
}

/// Changes credentials of a gateway.
pub(super) struct AdminGateway<D> {
    dialect: D,
    client: HttpClient,
    /// The path of the URL, without a `/` at its end.
    base: String,
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
pub(super) enum Stop {
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
        endpoint: &Endpoint,
        proof: Proof,
        clock: WallClock,
    ) -> Self {
        Self {
            dialect,
            client,
            base: endpoint.url.target.reveal().trim_end_matches('/').to_owned(),
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
        let mut random = [0; 16];
        self.random.fill(&mut random).map_err(|_| Stop::Away {
            reason: "the system gives no random bytes".to_owned(),
            after_ms: None,
        })?;
        let proof = self.proof.clone();
        let mut procedure = Procedure::new(action, &proof);
        loop {
            // STEP 1: look.
            let before = self.look(path)?;
            let seen = match &before {
                None => SeenCredential::Missing,
                Some(body) => {
                    self.dialect.key(body.as_ref()).map_or(SeenCredential::NoKey, SeenCredential::Key)
                }
            };
            // STEP 2: prove, and act.
            let suspends = match procedure.seen(&seen) {
                ProcedureStep::End(ending) => return Ok(ending),
                ProcedureStep::Delete => {
                    self.change(path, (Method::DELETE, SecretBytes::with_capacity(0)), may_act)?;
                    continue;
                }
                ProcedureStep::Suspend => true,
                ProcedureStep::LetIn => false,
            };
            let written = match (&before, &seen) {
                (Some(before), SeenCredential::Key(key)) => {
                    let change = KeyChange { raw: key.raw.as_ref(), suspends, random };
                    self.dialect.write(before.as_ref(), &change)
                }
                _ => None,
            };
            let written =
                written.ok_or_else(|| Stop::Refused("the credential can't be written back".to_owned()))?;
            self.change(path, written, may_act)?;
            // STEP 3: read back, as the next look.
        }
    }

    /// Reads a credential; `None` if there is none.
    fn look(&self, path: &str) -> Result<Option<SecretBytes>, Stop> {
        let answer = self.ask(path, Method::GET, SecretBytes::with_capacity(0))?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            _ if D::is_missing(&answer) => Ok(None),
            _ => Err(D::stop(&answer)),
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
            status if status.is_success() || D::is_missing(&answer) => Ok(()),
            _ => Err(D::stop(&answer)),
        }
    }

    fn ask(&self, path: &str, method: Method, body: SecretBytes) -> Result<HttpAnswer, Stop> {
        let away = |reason| Stop::Away { reason, after_ms: None };
        self.client.pace();
        let now_ms = (self.clock)();
        let path = format!("{}{path}", self.base);
        let reads = method == Method::GET;
        let query = if reads { D::LOOK } else { "" };
        let host = self.client.host();
        let request =
            AdminRequest { method: &method, host: &host, path: &path, query, body: body.as_ref(), now_ms };
        let headers = self.dialect.headers(&request).map_err(away)?;
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let call = HttpCall { method, target, headers, body, reads };
        self.client.send(call, now_ms).map_err(away)
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

/// Judges an answer that isn't one of those that are expected, as most gateways mean it.
pub(super) fn stop<D: Dialect + ?Sized>(answer: &HttpAnswer) -> Stop {
    let (api, status) = (D::API, answer.status);
    match status {
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT => {
            let why = match status {
                StatusCode::METHOD_NOT_ALLOWED => ": it changes no credentials, as one without a database",
                StatusCode::CONFLICT => ": another credential has that key",
                _ => "",
            };
            Stop::Refused(format!("{api} answered {status}{why}"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => not_let_in::<D>(answer),
        _ => Stop::Away { reason: format!("{api} answered {status}"), after_ms: answer.after_ms },
    }
}

/// Says that the settings which open an API don't, or don't let it do enough.
pub(super) fn not_let_in<D: Dialect + ?Sized>(answer: &HttpAnswer) -> Stop {
    Stop::Unauthorized(format!("{} answered {}: {} too few rights", D::API, answer.status, D::OPENED_BY))
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
