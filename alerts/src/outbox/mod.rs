//! The outbox: from transitions of incidents to mails and webhook requests, with queues, limits and retries.
//!
//! ```text
//!            ┌─> MailQueue     ──thread──> Mailer
//! notify() ──┤
//!            └─> WebhookQueue  ──thread──> Client      one for each webhook
//! ```
//! [`Outbox::notify`] puts a notice into bounded queues and returns; it never waits for a mail. Each queue has a thread
//! of its own, so a slow receiver delays no other. The queues (`mails.rs`, `hooks.rs`) decide which item goes out when.
//! They are pure states without clock, network or chance; the threads here only carry out their decisions.
//!
//! The queues live in memory. Items that are unsent when the process ends are lost; the view `incident_log` has them.

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

use keytide_config::{DefaultPolicy, Source};
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{ActionState, Change, Notice, Revocation};

use self::hooks::WebhookQueue;
pub use self::mailer::{MailError, Mailer};
use self::mails::{MailQueue, QueuedMail};
use crate::email::{Guide, MailOutcome, PlannedAction};
use crate::policy;
use crate::webhook::{Client, ClientError, WebhookBatch, WebhookOutcome};

/// Returns whether a transition is a notice: calls with a revoked key that are all refused. They do no harm, so a
/// notice gets no mail of its own.
fn is_notice(transition: &TransitionJson) -> bool {
    transition.level == "notice"
}

/// Returns whether people were told of the same lately. A rise in severity and a withdrawal are never a repeat.
fn is_repeat(transition: &TransitionJson) -> bool {
    transition.repeat && !matches!(transition.transition, Change::Raised | Change::Withdrawn)
}

/// Why an outbox can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("alerts.email: {0}")]
    Mail(#[from] MailError),
    #[error("alerts.webhook \"{name}\": {error}")]
    Webhook { name: String, error: ClientError },
    #[error("alerts: {0}")]
    Thread(#[from] io::Error),
}

/// The counters of one queue, and its present backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Counts mails or requests that the receiver accepted.
    pub sent: u64,
    pub digests: u64,
    /// Counts failed attempts that are repeated.
    pub retried: u64,
    /// Counts mails or rows that the receiver refused for good.
    pub refused: u64,
    /// Counts transitions without a mail or request of their own: digests list them or only count them.
    pub condensed: u64,
    /// Counts transitions that an owner missed because the queue had its maximum of recipients.
    pub untold: u64,
    /// Transitions that wait to be sent.
    pub queued: u64,
    /// Recipients that wait for an hourly limit.
    pub limited: u64,
    /// True while the last failure needs a person to mend the configuration or the server.
    pub misconfigured: bool,
}

/// The next step of a queue's thread.
#[derive(Clone, Debug, PartialEq)]
enum NextStep<T> {
    Do(T),
    /// Waits until this time, or with `None` until an item is added.
    Wait(Option<u64>),
}

/// A queue that its thread and the publisher share.
struct SharedQueue<Q> {
    state: Mutex<QueueState<Q>>,
    wake: Condvar,
    started: Instant,
}

struct QueueState<Q> {
    queue: Q,
    ending: Option<Instant>,
}

/// The part of a queue that [`SharedQueue`] drives. Times are milliseconds of [`SharedQueue::now`].
trait OutboundQueue {
    type Item;
    type Attempt;

    /// Each item that is handed out must be followed by one call of [`done`](Self::done).
    fn next(&mut self, now: u64) -> NextStep<Self::Item>;
    fn done(&mut self, item: &Self::Item, attempt: &Self::Attempt, now: u64);
    /// Makes everything due that waits for a time, because the process ends.
    fn hurry(&mut self, now: u64);
    fn stats(&self) -> QueueStats;
}

impl<Q: OutboundQueue> SharedQueue<Q> {
    fn new(queue: Q) -> Arc<Self> {
        let state = Mutex::new(QueueState { queue, ending: None });
        Arc::new(Self { state, wake: Condvar::new(), started: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns milliseconds of a monotonic clock.
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

    fn stats(&self) -> QueueStats {
        self.lock().queue.stats()
    }

    /// Carries out the queue's steps until it is told to end and either is idle or has run out of time.
    fn run(&self, mut work: impl FnMut(&Q::Item) -> Q::Attempt) {
        while let Some(item) = self.next() {
            // The lock is free meanwhile: `work` may take minutes.
            let attempt = work(&item);
            let now = self.now();
            self.lock().queue.done(&item, &attempt, now);
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
                NextStep::Do(item) => return Some(item),
                NextStep::Wait(_) if state.ending.is_some() => return None,
                NextStep::Wait(until) => until,
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

/// Returns the time in milliseconds since 1970, which mails and requests bear.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Sends notices of incidents as mails and webhook requests.
pub struct Outbox {
    default: DefaultPolicy,
    clock: WallClock,
    monitor: OutboxMonitor,
    /// Disconnects once all threads have ended, as each drops its sender then.
    threads: Receiver<()>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("monitor", &self.monitor.stats()).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Sets up the configured queues and starts their threads. Without mails and webhooks the outbox does nothing. Mails
    /// have commands that show records of the `sources`.
    ///
    /// # Errors
    /// If templates, certificates or a folder can't be used, or if a thread can't be started.
    pub fn open(
        config: &keytide_config::Alerts,
        sources: &[Source],
        clock: WallClock,
    ) -> Result<Self, OutboxError> {
        let (done, threads) = channel();
        // Configuration errors must surface before the first thread starts.
        let mailer =
            config.email.as_ref().map(|email| Ok((email, Mailer::new(email, Guide::new(config, sources))?)));
        let mailer: Option<(_, Mailer)> = mailer.transpose().map_err(OutboxError::Mail)?;
        let mut clients = Vec::new();
        for webhook in &config.webhooks {
            let name = webhook.name.clone();
            let client = Client::new(webhook, config.link.as_ref())
                .map_err(|error| OutboxError::Webhook { name, error })?;
            clients.push((webhook, client));
        }
        let mut monitor = OutboxMonitor { mails: None, webhooks: Vec::new() };
        if let Some((email, mailer)) = mailer {
            let queue = SharedQueue::new(MailQueue::new(email, pace::jitter()));
            monitor.mails = Some(queue.clone());
            spawn("mails", &done, queue, move |mail: &QueuedMail| {
                let outcome = mailer.send(mail);
                log_mail(mail, &outcome);
                outcome
            })?;
        }
        for (webhook, client) in clients {
            let (name, clock) = (webhook.name.clone(), clock.clone());
            let queue = SharedQueue::new(WebhookQueue::new(webhook.format, pace::jitter()));
            monitor.webhooks.push((name.clone(), queue.clone()));
            spawn("webhook", &done, queue, move |batch: &WebhookBatch| {
                let outcome = client.send(batch, clock());
                log_request(&name, batch, &outcome);
                outcome
            })?;
        }
        Ok(Self { default: config.policy.default, clock, monitor, threads })
    }

    /// Puts a notice into all queues, except that of a key whose policy is `observe`.
    pub fn notify(&self, notice: Notice) {
        let OutboxMonitor { mails, webhooks } = &self.monitor;
        if mails.is_none() && webhooks.is_empty() {
            return;
        }
        let mut transition: TransitionJson = match serde_json::from_slice(&notice.json) {
            Ok(transition) => transition,
            Err(error) => {
                tracing::error!(%error, "a row of incident_log can't be read back; no notification is sent for it");
                return;
            }
        };
        let policy = transition.policy.get_or_insert_with(|| self.default.name().to_owned());
        if policy == DefaultPolicy::Observe.name() {
            return;
        }
        let json: Arc<[u8]> = notice.json.into();
        for (_, queue) in webhooks {
            queue.put(|queue, _| queue.push(&transition, json.clone()));
        }
        if let Some(queue) = mails {
            let planned = planned(&notice.actions);
            let date_ms = (self.clock)();
            queue.put(|queue, now| queue.push(transition, planned, &notice.contacts, now, date_ms));
        }
    }

    /// Returns a handle with which other threads read the counters.
    #[must_use]
    pub fn monitor(&self) -> OutboxMonitor {
        self.monitor.clone()
    }

    /// Sends what needs no waiting, for at most `within`, and returns how many transitions are left. A mail or request
    /// that is under way at the end of that time is abandoned.
    pub fn stop(self, within: Duration) -> u64 {
        self.monitor.end(Instant::now() + within);
        // Returns when all threads have dropped their senders, or when the time is over.
        let _ = self.threads.recv_timeout(within);
        let OutboxStats { mails, webhooks } = self.monitor.stats();
        mails.map_or(0, |stats| stats.queued) + webhooks.iter().map(|(_, stats)| stats.queued).sum::<u64>()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.monitor.end(Instant::now());
    }
}

/// Returns the held action of a notice, which its mails announce.
fn planned(actions: &[Revocation]) -> Option<PlannedAction> {
    let action = actions.iter().find(|action| action.state == ActionState::Held)?;
    Some(PlannedAction { action: action.action, held: Some(policy::held(&action.reason).to_owned()) })
}

fn spawn<Q: OutboundQueue + Send + 'static>(
    name: &str,
    done: &Sender<()>,
    queue: Arc<SharedQueue<Q>>,
    work: impl FnMut(&Q::Item) -> Q::Attempt + Send + 'static,
) -> io::Result<()> {
    let done = done.clone();
    thread::Builder::new().name(format!("alerts-{name}")).spawn(move || {
        queue.run(work);
        drop(done);
    })?;
    Ok(())
}

fn log_mail(mail: &QueuedMail, outcome: &MailOutcome) {
    let audience = mail.to.audience.name();
    match outcome {
        MailOutcome::Sent { unfiled: None } => tracing::debug!(audience, "a mail was sent"),
        MailOutcome::Sent { unfiled: Some(reason) } => {
            tracing::warn!(audience, %reason, "a mail was sent, but its file can't be written");
        }
        MailOutcome::Retry(reason) => {
            tracing::warn!(audience, %reason, "a mail can't be sent now; it is tried again later");
        }
        MailOutcome::Misconfigured(reason) => {
            tracing::error!(
                audience, %reason,
                "no mail can be sent until the configuration or the server is changed; they are tried again later"
            );
        }
        MailOutcome::Refused(reason) => {
            tracing::error!(audience, %reason, "a mail was refused for good; it is given up");
        }
    }
}

fn log_request(webhook: &str, batch: &WebhookBatch, outcome: &WebhookOutcome) {
    let id = batch.id.as_str();
    match outcome {
        WebhookOutcome::Sent => tracing::debug!(webhook, id, "a webhook took a request"),
        WebhookOutcome::Retry { reason, .. } => {
            tracing::warn!(webhook, id, %reason, "a webhook can't take a request now; it is tried again later");
        }
        WebhookOutcome::Refused(reason) => {
            tracing::error!(webhook, id, %reason, "a webhook refused a request for good; it is given up");
        }
    }
}

/// A handle on the counters of an [`Outbox`], for other threads.
#[derive(Clone)]
pub struct OutboxMonitor {
    mails: Option<Arc<SharedQueue<MailQueue>>>,
    webhooks: Vec<(String, Arc<SharedQueue<WebhookQueue>>)>,
}

impl std::fmt::Debug for OutboxMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OutboxMonitor").field(&self.stats()).finish()
    }
}

/// The counters of all queues of an [`Outbox`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// `None` means that no mails are configured.
    pub mails: Option<QueueStats>,
    /// Pairs of a webhook's name and its counters, in the order of the configuration.
    pub webhooks: Vec<(String, QueueStats)>,
}

impl OutboxMonitor {
    /// Returns the counters as they are now.
    #[must_use]
    pub fn stats(&self) -> OutboxStats {
        let mails = self.mails.as_ref().map(|queue| queue.stats());
        let webhooks = self.webhooks.iter().map(|(name, queue)| (name.clone(), queue.stats()));
        OutboxStats { mails, webhooks: webhooks.collect() }
    }

    fn end(&self, at: Instant) {
        self.mails.iter().for_each(|queue| queue.end(at));
        self.webhooks.iter().for_each(|(_, queue)| queue.end(at));
    }
}
