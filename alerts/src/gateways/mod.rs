//! Gateways that refuse keys: each has a thread, which does what committed ticks request and reports what it did.
//!
//! ```text
//! committed tick ──► Orders ──► thread ── acts, if this life of the job still holds ──► reports: input of a later tick
//! ```
//! Orders are a state, not a queue: newer ones replace those that wait. So a gateway that was away gets what is right
//! now, and a key that was let in meanwhile is never denied by an old order.
//!
//! What can't be done now is tried again after 1 s, and then after twice as long each time, up to 1 min.

mod action_webhook;
mod admin;
mod apisix;
mod aws;
mod called;
mod deny_list;
mod file;
mod json;
mod kong;
mod mask;
mod procedure;
#[cfg(test)]
#[path = "../../tests/standins/mod.rs"]
mod standins;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keytide_config::{AdminApi, AwsApi, Endpoint, Gateway, GatewayKind, KeyHash};
use keytide_dataflow::model::KeyId;
use keytide_dataflow::{
    Action, ActionId, ActionInput, DenialState, GatewayOutcome, GatewayReport, IncidentId,
};

use self::action_webhook::ActionWebhook;
use self::admin::{AdminGateway, Dialect};
use self::apisix::Apisix;
use self::aws::Aws;
use self::called::{CalledGateway, GatewayCaller};
use self::file::Writer;
use self::kong::Kong;
use self::mask::Proof;
use crate::exchange::{ClientError, HttpClient};
use crate::outbox::{Claims, WallClock};

/// How long to wait after the first failure, and at most.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// What a gateway is to do after a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The keys that it is to refuse, by name.
    pub denied: Arc<BTreeMap<String, DenialState>>,
    /// The actions that are requested of it.
    pub requested: Vec<RequestedAction>,
}

/// An action that a gateway is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedAction {
    pub id: ActionId,
    /// A number that grows with each request of the same action.
    pub request: u64,
    pub action: Action,
    pub key: KeyId,
    /// The key as views name it.
    pub key_id: String,
    pub incident: IncidentId,
    /// Why it is to be done, in words.
    pub why: String,
    /// The name that the gateway has for the key's user, empty if the tables don't say.
    pub consumer: String,
    /// The name that the gateway's interface has for the key, empty if the tables don't say.
    pub credential: String,
    /// The suspension that it lifts.
    pub undo: Option<ActionId>,
}

/// What all gateways of a job share.
#[derive(Clone)]
pub struct GatewayContext {
    /// The claims of this life of the job, if it has a store. A gateway acts only while they hold.
    pub claims: Option<Arc<Claims>>,
    /// Takes the report of each action.
    pub reports: Sender<ActionInput>,
    pub clock: WallClock,
    /// How the sources of the job make ids of keys.
    pub hashes: Vec<KeyHash>,
}

/// A gateway that is at work, and its thread.
#[derive(Debug)]
pub struct RunningGateway {
    name: String,
    shared: Arc<OrdersSlot>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct OrdersSlot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    /// The newest orders that weren't carried out.
    orders: Option<Orders>,
    ends: bool,
}

/// Looks up the addresses of a server that is called.
///
/// # Errors
/// If it has none, or one that isn't allowed.
pub fn addresses(endpoint: &Endpoint) -> Result<Vec<IpAddr>, String> {
    HttpClient::new(endpoint).map_err(|error| error.to_string())?.resolve()
}

impl GatewayContext {
    /// Returns an error if another life of the job took over, or if that isn't known: it must not undo what that one did.
    fn may_act(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match &self.claims {
            Some(claims) if !claims.hold()? => Err("another process of the job took over".into()),
            _ => Ok(()),
        }
    }

    fn report(&self, action: ActionId, gateway: &str, outcome: GatewayOutcome) {
        let report = GatewayReport { action, gateway: gateway.to_owned(), outcome, at_ms: (self.clock)() };
        // A job that ends reads no more reports; its next life has them made again.
        let _ = self.reports.send(ActionInput::Report(report));
    }
}

impl RunningGateway {
    /// Starts the thread of a gateway. `None` if the gateway needs no orders, as it follows a topic.
    ///
    /// # Errors
    /// If the thread can't be started, or the gateway can't be called from this system.
    pub fn start(gateway: &Gateway, context: GatewayContext) -> Result<Option<Self>, ClientError> {
        let name = gateway.name.clone();
        let work: Box<dyn FnOnce(&OrdersSlot) + Send> = match &gateway.kind {
            GatewayKind::Topic => return Ok(None),
            GatewayKind::File { path } => {
                let writer = Writer::new(name, path.clone(), context);
                Box::new(move |orders| writer.run(orders))
            }
            GatewayKind::Webhook { endpoint, secret } => {
                let target = endpoint.url.target.clone();
                let client = HttpClient::new(endpoint)?;
                let clock = context.clock.clone();
                calls(name, ActionWebhook::new(client, target, secret.clone(), clock), context)
            }
            GatewayKind::Kong(AdminApi { endpoint, token, unproven }) => {
                let dialect = Kong { token: token.clone() };
                calls(
                    name,
                    admin(dialect, HttpClient::new(endpoint)?, endpoint, *unproven, &context),
                    context,
                )
            }
            GatewayKind::Apisix(AdminApi { endpoint, token, unproven }) => {
                let dialect = Apisix { token: token.clone() };
                calls(
                    name,
                    admin(dialect, HttpClient::new(endpoint)?, endpoint, *unproven, &context),
                    context,
                )
            }
            GatewayKind::Aws(AwsApi { endpoint, region, credentials, unproven }) => {
                let dialect = Aws::new(region.clone(), credentials.clone());
                let client = HttpClient::new(endpoint)?.at_most(aws::CALLS_PER_SECOND);
                calls(name, admin(dialect, client, endpoint, *unproven, &context), context)
            }
        };
        Ok(Some(Self::spawn(gateway.name.clone(), work)?))
    }

    fn spawn(name: String, work: Box<dyn FnOnce(&OrdersSlot) + Send>) -> io::Result<Self> {
        let shared = Arc::<OrdersSlot>::default();
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("alerts-gateway".to_owned());
        let thread = thread.spawn(move || work(&of_thread))?;
        Ok(Self { name, shared, thread: Some(thread) })
    }

    /// Returns its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands over what is to be done after a committed tick. It never waits.
    pub fn order(&self, orders: Orders) {
        self.shared.state().orders = Some(orders);
        self.shared.changed.notify_all();
    }
}

impl Drop for RunningGateway {
    /// Writes the last deny list, if that works at once. A call that is under way is awaited, and none is begun.
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the work of a thread that calls a gateway.
fn calls(
    name: String,
    gateway: impl CalledGateway + 'static,
    context: GatewayContext,
) -> Box<dyn FnOnce(&OrdersSlot) + Send> {
    let caller = GatewayCaller::new(name, Box::new(gateway), context);
    Box::new(move |orders| caller.run(orders))
}

fn admin<D: Dialect>(
    dialect: D,
    client: HttpClient,
    endpoint: &Endpoint,
    unproven: bool,
    context: &GatewayContext,
) -> AdminGateway<D> {
    let proof = Proof::new(context.hashes.clone(), unproven);
    AdminGateway::new(dialect, client, endpoint, proof, context.clock.clone())
}

impl OrdersSlot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the gateway is to end.
    fn ends(&self) -> bool {
        self.state().ends
    }

    /// Waits for orders until that time, or for the end. Returns them, and whether it is the end.
    fn wait(&self, until: Option<Instant>) -> (Option<Orders>, bool) {
        let mut state = self.state();
        while state.orders.is_none() && !state.ends {
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        (state.orders.take(), state.ends)
    }
}

/// Returns how long to wait after a number of failures in a row.
fn retry_after(failures: u32) -> Duration {
    let [first, most] = RETRY_AFTER;
    (first * 2_u32.pow(failures.saturating_sub(1).min(6))).min(most)
}
