//! From what happened to incidents to mails and requests: queues, limits, retries.
//!
//! ```text
//!            ┌─> mails    ──thread──> Composer, Transport
//! notify() ──┤
//!            └─> a queue  ──thread──> Client               for each webhook
//! ```
//! Nobody waits for a mail: [`Alerts::notify`] puts a notice into bounded queues and returns. Each queue has a thread of
//! its own, so a slow receiver holds up no other. What is to be sent when is decided by states without clock, network
//! or chance (`mails.rs`, `hooks.rs`); the threads here do what these say.
//!
//! All of it lives as long as the process: what wasn't sent when it ends is lost, and the log of incidents has it.

mod hooks;
mod mailer;
mod mails;
mod pace;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keytide_config::DefaultPolicy;
use keytide_dataflow::incident_row::Transition;
use keytide_dataflow::{ActionState, Notice, Revocation};

use self::hooks::Hooks;
pub use self::mailer::{MailError, Post};
use self::mails::Mails;
use crate::email::{Outcome, Planned};
use crate::policy;
use crate::webhook::{Client, ClientError, Delivery, Parcel};

/// Alerts that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    #[error("alerts.email: {0}")]
    Mail(#[from] MailError),
    #[error("alerts.webhook \"{name}\": {error}")]
    Webhook { name: String, error: ClientError },
    #[error("alerts: {0}")]
    Thread(#[from] io::Error),
}

/// What one queue did so far, and has before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Mails or requests that were taken.
    pub sent: u64,
    pub digests: u64,
    /// Attempts that failed and are repeated.
    pub retried: u64,
    /// Mails or rows that were refused for good.
    pub refused: u64,
    /// Transitions that had no mail or request of their own: they are in digests, or only counted there.
    pub condensed: u64,
    /// Transitions of which an owner wasn't told, as there were too many owners to tell.
    pub untold: u64,
    /// Transitions that are to be told.
    pub queued: u64,
    /// Recipients that wait for the limits of an hour.
    pub limited: u64,
    /// Whether the last failure was one that only a person can mend.
    pub misconfigured: bool,
}

/// What a queue says is to be done.
#[derive(Clone, Debug, PartialEq)]
enum Next<T> {
    Do(T),
    /// Nothing before that time; `None`: before something is put into it.
    Wait(Option<u64>),
}

/// A queue and what its thread is to do.
struct Outlet<Q> {
    state: Mutex<State<Q>>,
    wake: Condvar,
    started: Instant,
}

struct State<Q> {
    queue: Q,
    ending: Option<Instant>,
}

/// What [`Outlet`] needs of a queue.
trait Queued {
    type Item;
    type Outcome;

    fn next(&mut self, now: u64) -> Next<Self::Item>;
    fn done(&mut self, item: &Self::Item, outcome: &Self::Outcome, now: u64);
    fn hurry(&mut self, now: u64);
}

impl Queued for Mails {
    type Item = mails::Mail;
    type Outcome = Outcome;

    fn next(&mut self, now: u64) -> Next<mails::Mail> {
        Self::next(self, now)
    }

    fn done(&mut self, mail: &mails::Mail, outcome: &Outcome, now: u64) {
        Self::done(self, mail, outcome, now);
    }

    fn hurry(&mut self, now: u64) {
        Self::hurry(self, now);
    }
}

impl Queued for Hooks {
    type Item = Parcel;
    type Outcome = Delivery;

    fn next(&mut self, now: u64) -> Next<Parcel> {
        Self::next(self, now)
    }

    fn done(&mut self, _: &Parcel, delivery: &Delivery, now: u64) {
        Self::done(self, delivery, now);
    }

    fn hurry(&mut self, now: u64) {
        Self::hurry(self, now);
    }
}

impl<Q: Queued> Outlet<Q> {
    fn new(queue: Q) -> Arc<Self> {
        let state = Mutex::new(State { queue, ending: None });
        Arc::new(Self { state, wake: Condvar::new(), started: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, State<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds on a clock that never goes back.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn put(&self, put: impl FnOnce(&mut Q, u64)) {
        put(&mut self.lock().queue, self.now());
        self.wake.notify_one();
    }

    fn end(&self, at: Instant) {
        let mut state = self.lock();
        state.ending = Some(at);
        state.queue.hurry(self.now());
        drop(state);
        self.wake.notify_one();
    }

    /// Does what the queue says until it is to end and has nothing more to do, or no more time.
    fn run(&self, mut work: impl FnMut(&Q::Item) -> Q::Outcome) {
        while let Some(item) = self.next() {
            let outcome = work(&item);
            let now = self.now();
            self.lock().queue.done(&item, &outcome, now);
        }
    }

    fn next(&self) -> Option<Q::Item> {
        let mut state = self.lock();
        loop {
            if state.ending.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            let now = self.now();
            let until = match state.queue.next(now) {
                Next::Do(item) => return Some(item),
                Next::Wait(_) if state.ending.is_some() => return None,
                Next::Wait(until) => until,
            };
            state = match until {
                Some(until) => {
                    let wait = Duration::from_millis(until.saturating_sub(now).max(1));
                    self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The time in milliseconds since 1970: mails and requests bear it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Tells people of incidents.
pub struct Alerts {
    default: DefaultPolicy,
    mails: Option<Arc<Outlet<Mails>>>,
    hooks: Vec<(String, Arc<Outlet<Hooks>>)>,
    clock: Clock,
    /// Each thread drops its end when it is done.
    threads: Receiver<()>,
}

impl std::fmt::Debug for Alerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerts").field("monitor", &self.monitor().stats()).finish_non_exhaustive()
    }
}

impl Alerts {
    /// As configured. Without mails and webhooks it does nothing.
    ///
    /// # Errors
    /// If templates, certificates or a folder can't be used, or there are no threads.
    pub fn open(config: &keytide_config::Alerts, clock: Clock) -> Result<Self, AlertsError> {
        let (done, threads) = channel();
        // What can fail by the configuration comes before the first thread.
        let post = config.email.as_ref().map(|email| Ok((email, Post::new(email)?)));
        let post: Option<(_, Post)> = post.transpose().map_err(AlertsError::Mail)?;
        let mut clients = Vec::new();
        for webhook in &config.webhooks {
            let name = webhook.name.clone();
            let client = Client::new(webhook).map_err(|error| AlertsError::Webhook { name, error })?;
            clients.push((webhook, client));
        }
        let default = config.policy.default;
        let mut alerts = Self { default, mails: None, hooks: Vec::new(), clock: clock.clone(), threads };
        if let Some((email, post)) = post {
            let outlet = Outlet::new(Mails::new(email, pace::jitter()));
            alerts.mails = Some(outlet.clone());
            spawn("mails", &done, outlet, move |mail: &mails::Mail| {
                let outcome = post.send(mail);
                tell_mail(mail, &outcome);
                outcome
            })?;
        }
        for (webhook, client) in clients {
            let (name, clock) = (webhook.name.clone(), clock.clone());
            let outlet = Outlet::new(Hooks::new(webhook.format, pace::jitter()));
            alerts.hooks.push((name.clone(), outlet.clone()));
            spawn("webhook", &done, outlet, move |parcel: &Parcel| {
                let delivery = client.send(parcel, clock());
                tell_request(&name, parcel, &delivery);
                delivery
            })?;
        }
        Ok(alerts)
    }

    /// Puts a notice into the queues. Nobody is told of keys whose policy is `observe`.
    pub fn notify(&self, notice: Notice) {
        if self.mails.is_none() && self.hooks.is_empty() {
            return;
        }
        let mut transition: Transition = match serde_json::from_slice(&notice.json) {
            Ok(transition) => transition,
            Err(error) => {
                tracing::error!(%error, "a row of incident_log can't be read back; nobody is told of it");
                return;
            }
        };
        let policy = transition.policy.get_or_insert_with(|| self.default.name().to_owned());
        if policy == DefaultPolicy::Observe.name() {
            return;
        }
        let json: Arc<[u8]> = notice.json.into();
        for (_, outlet) in &self.hooks {
            outlet.put(|hooks, _| hooks.push(&transition, json.clone()));
        }
        if let Some(outlet) = &self.mails {
            let planned = planned(&notice.actions);
            let date_ms = (self.clock)();
            outlet.put(|mails, now| mails.push(transition, planned, &notice.contacts, now, date_ms));
        }
    }

    /// What tells other threads how it goes.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor { mails: self.mails.clone(), hooks: self.hooks.clone() }
    }

    /// Sends what can be sent without waiting, for at most so long; returns how much is left, in transitions. A mail
    /// or request that is under way then is left behind.
    pub fn stop(self, within: Duration) -> u64 {
        let end = Instant::now() + within;
        self.mails.iter().for_each(|outlet| outlet.end(end));
        self.hooks.iter().for_each(|(_, outlet)| outlet.end(end));
        // Ends when all threads have dropped their ends, or at the time.
        let _ = self.threads.recv_timeout(within);
        let Observed { mails, webhooks } = self.monitor().stats();
        mails.map_or(0, |stats| stats.queued) + webhooks.iter().map(|(_, stats)| stats.queued).sum::<u64>()
    }
}

impl Drop for Alerts {
    fn drop(&mut self) {
        let now = Instant::now();
        self.mails.iter().for_each(|outlet| outlet.end(now));
        self.hooks.iter().for_each(|(_, outlet)| outlet.end(now));
    }
}

/// The action that mails tell of.
fn planned(actions: &[Revocation]) -> Option<Planned> {
    let action = actions.iter().find(|action| action.state == ActionState::Held)?;
    Some(Planned { action: action.action, held: Some(policy::held(&action.reason).to_owned()) })
}

fn spawn<Q: Queued + Send + 'static>(
    name: &str,
    done: &Sender<()>,
    outlet: Arc<Outlet<Q>>,
    work: impl FnMut(&Q::Item) -> Q::Outcome + Send + 'static,
) -> io::Result<()> {
    let done = done.clone();
    thread::Builder::new().name(format!("alerts-{name}")).spawn(move || {
        outlet.run(work);
        drop(done);
    })?;
    Ok(())
}

fn tell_mail(mail: &mails::Mail, outcome: &Outcome) {
    let audience = mail.to.audience.name();
    match outcome {
        Outcome::Sent { unfiled: None } => tracing::debug!(audience, "a mail was sent"),
        Outcome::Sent { unfiled: Some(reason) } => {
            tracing::warn!(audience, %reason, "a mail was sent, but its file can't be written");
        }
        Outcome::Retry(reason) => {
            tracing::warn!(audience, %reason, "a mail can't be sent now, it is tried again")
        }
        Outcome::Misconfigured(reason) => {
            tracing::error!(audience, %reason, "no mail can be sent until somebody changes this; it is tried again");
        }
        Outcome::Refused(reason) => {
            tracing::error!(audience, %reason, "a mail was refused for good, it is given up");
        }
    }
}

fn tell_request(webhook: &str, parcel: &Parcel, delivery: &Delivery) {
    let id = parcel.id.as_str();
    match delivery {
        Delivery::Sent => tracing::debug!(webhook, id, "a webhook was told"),
        Delivery::Retry { reason, .. } => {
            tracing::warn!(webhook, id, %reason, "a webhook can't be told now, it is tried again");
        }
        Delivery::Refused(reason) => {
            tracing::error!(webhook, id, %reason, "a webhook refused a request for good, it is given up");
        }
    }
}

/// Tells other threads what [`Alerts`] do.
#[derive(Clone)]
pub struct Monitor {
    mails: Option<Arc<Outlet<Mails>>>,
    hooks: Vec<(String, Arc<Outlet<Hooks>>)>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Monitor").field(&self.stats()).finish()
    }
}

/// What all queues did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `None`: there are no mails.
    pub mails: Option<Stats>,
    /// By name, in the order of the configuration.
    pub webhooks: Vec<(String, Stats)>,
}

impl Monitor {
    /// What they did so far.
    #[must_use]
    pub fn stats(&self) -> Observed {
        let mails = self.mails.as_ref().map(|outlet| outlet.lock().queue.stats());
        let webhooks = self.hooks.iter().map(|(name, outlet)| (name.clone(), outlet.lock().queue.stats()));
        Observed { mails, webhooks: webhooks.collect() }
    }
}
