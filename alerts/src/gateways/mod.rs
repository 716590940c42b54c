//! Gateways that refuse keys: each has a thread, which does what committed ticks request and reports what it did.
//!
//! ```text
//! committed tick ──► Orders ──► thread ── acts, if this life of the job still holds ──► reports: input of a later tick
//! ```
//! Orders are a state, not a queue: newer ones replace those that wait. So a gateway that was away gets what is right
//! now, and a key that was let in meanwhile is never denied by an old order.
//!
//! What can't be done now is tried again after 1 s, and then after twice as long each time, up to 1 min.

mod deny_list;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keytide_dataflow::{ActionId, ActionInput, DenialState, GatewayReport};

use self::deny_list::DenyList;
use crate::outbox::{Claims, WallClock};

/// How often a deny list is compared with what it should be.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after the first failure, and at most.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// What a gateway is to do after a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The keys that it is to refuse, by name.
    pub denied: BTreeMap<String, DenialState>,
    /// The actions that are requested of it.
    pub requested: Vec<ActionId>,
}

/// A gateway that reads the keys to refuse from a file, and the thread that writes it.
#[derive(Debug)]
pub struct FileGateway {
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

impl FileGateway {
    /// Starts the thread of the gateway `name`. It sends a report of each action to `reports`, and writes only while
    /// `claims` are those of the job's newest life.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(
        name: String,
        path: PathBuf,
        claims: Option<Arc<Claims>>,
        reports: Sender<ActionInput>,
        clock: WallClock,
    ) -> io::Result<Self> {
        let shared = Arc::<OrdersSlot>::default();
        let writer = Writer { name, list: DenyList::new(path), claims, reports, clock };
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("alerts-gateway".to_owned());
        let thread = thread.spawn(move || writer.run(&of_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over what is to be done after a committed tick. It never waits.
    pub fn order(&self, orders: Orders) {
        self.shared.state().orders = Some(orders);
        self.shared.changed.notify_all();
    }
}

impl Drop for FileGateway {
    /// Carries out the last orders, if that works at once.
    fn drop(&mut self) {
        self.shared.state().ends = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl OrdersSlot {
    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The thread of a gateway.
struct Writer {
    name: String,
    list: DenyList,
    claims: Option<Arc<Claims>>,
    reports: Sender<ActionInput>,
    clock: WallClock,
}

impl Writer {
    fn run(self, shared: &OrdersSlot) {
        let mut orders: Option<Orders> = None;
        let mut until = None;
        let mut failures = 0_u32;
        loop {
            let (newer, ends) = shared.wait(until);
            let is_new = newer.is_some();
            orders = newer.or(orders);
            let Some(of) = &mut orders else {
                if ends {
                    return;
                }
                continue;
            };
            match self.carry_out(of) {
                Ok(has_changed) => {
                    if has_changed && !is_new && failures == 0 {
                        tracing::warn!(
                            gateway = self.name,
                            path = %self.list.path().display(),
                            "somebody changed the deny list, which is written again: only the job may write it"
                        );
                    }
                    failures = 0;
                    until = Some(Instant::now() + LOOK_EVERY);
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::error!(
                            gateway = self.name,
                            path = %self.list.path().display(),
                            "the deny list can't be written, keys stay as they were; it is tried again: {error}"
                        );
                    }
                    let [first, most] = RETRY_AFTER;
                    until = Some(Instant::now() + (first * 2_u32.pow(failures.min(6))).min(most));
                    failures += 1;
                }
            }
            if ends {
                return;
            }
        }
    }

    /// Makes the file what it should be, and reports the actions that this does. Returns whether it was otherwise.
    fn carry_out(&self, orders: &mut Orders) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let is_right = self.list.holds(&orders.denied)?;
        if !is_right {
            // A life of the job that was superseded must not undo what the newer one wrote.
            if let Some(claims) = &self.claims
                && !claims.hold()?
            {
                return Err("another process of the job took over".into());
            }
            self.list.write(&orders.denied)?;
        }
        let at_ms = (self.clock)();
        for action in orders.requested.drain(..) {
            let report = GatewayReport { action, gateway: self.name.clone(), failure: None, at_ms };
            // A job that ends reads no more reports; its next life has them made again.
            let _ = self.reports.send(ActionInput::Report(report));
        }
        Ok(!is_right)
    }
}
