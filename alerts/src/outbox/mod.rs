//! The outbox: from transitions of incidents, changes of actions and notices about quotas to mails and webhook requests,
//! with queues, limits and retries.
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
//! Without a store the queues live in memory. Items that are unsent when the process ends are lost; the views
//! `incident_log` and `notices` have them.
//!
//! With a store an outbox goes on where an earlier life of the job was, see [`Outbox::resume`]. Checkpoints hold its
//! [`OutboxMemory`], and `claims.rs` what went out since. Each transition, change and notice is told once to each recipient. Only a mail or
//! request that was under way at a crash may come twice, with the same id and date. Alerts wait while the store is away.

mod claims;
mod hooks;
#[cfg(test)]
mod lives;
mod mailer;
mod mails;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keytide_config::{DefaultPolicy, EmailAlerts, Source, Webhook};
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{ActionId, ActionState, Change, Notice, QuotaAlert, Revocation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::claims::{AppendError, Channel, ClaimEntry, ClaimEvent, FORMAT, Settled};
pub use self::claims::{ClaimStore, Claims, ClaimsError, EntryKind, StoreFault};
use self::hooks::{QueuedBatch, WebhookMemory, WebhookQueue};
pub use self::mailer::{MailError, Mailer};
use self::mails::{MailMemory, MailQueue, QueuedMail};
use crate::actions::{self, ActionNotice, ActionNotices};
use crate::email::{Guide, MailOutcome, PlannedAction};
use crate::exchange::ClientError;
use crate::quota::QuotaNoticeRow;
use crate::webhook::{Client, WebhookOutcome};

/// The waits between attempts to write a claim double from the first to the second.
const WRITTEN_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// The wait between these attempts once the process ends.
const WRITTEN_AT_LAST: Duration = Duration::from_millis(250);

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
    #[error("gateway \"{name}\": {error}")]
    Gateway { name: String, error: ClientError },
    #[error("alerts: {0}")]
    Thread(#[from] io::Error),
    #[error("state.url: {0}")]
    Claims(#[from] ClaimsError),
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
    /// Counts transitions and notices without a mail or request of their own: digests list them or only count them.
    pub condensed: u64,
    /// Counts transitions and notices that a contact missed because the queue had its maximum of recipients.
    pub untold: u64,
    /// Transitions, changes of actions and notices that wait to be sent.
    pub queued: u64,
    /// Recipients that wait for an hourly limit.
    pub limited: u64,
    /// True while the last failure needs a person to mend the configuration or the server.
    pub misconfigured: bool,
    /// True while nothing goes out since the store doesn't take claims.
    pub blocked: bool,
}

/// The next step of a queue's thread.
#[derive(Clone, Debug, PartialEq)]
enum NextStep<T> {
    Do(T),
    /// Waits until this time, or with `None` until an item is added.
    Wait(Option<u64>),
}

/// The claims of one queue.
type QueueClaims = (Arc<Claims>, Channel);

/// A queue that its thread and the publisher share.
struct SharedQueue<Q> {
    state: Mutex<QueueState<Q>>,
    wake: Condvar,
    /// The time in milliseconds since 1970 at which it began, and that time by the monotonic clock.
    began: (u64, Instant),
}

struct QueueState<Q> {
    queue: Q,
    ending: Option<Instant>,
    /// True while a claim can't be stored.
    blocked: bool,
}

/// The part of a queue that [`SharedQueue`] drives. Times are milliseconds of [`SharedQueue::now`].
trait OutboundQueue {
    type Item: Serialize + DeserializeOwned;
    type Attempt;
    /// The part of the queue that outlives the process.
    type Memory;

    /// Each item that is handed out must be followed by one call of [`done`](Self::done). It is handed out again until
    /// that one says that it is settled.
    fn next(&mut self, now: u64) -> NextStep<Self::Item>;
    fn done(&mut self, item: &Self::Item, attempt: &Self::Attempt, now: u64) -> Option<Settled>;
    /// Makes everything due that waits for a time, because the process ends.
    fn hurry(&mut self, now: u64);
    fn stats(&self) -> QueueStats;

    /// Returns the number of an item. The numbers of a queue ascend through all lives of the job.
    fn number(item: &Self::Item) -> u64;
    fn memory(&self) -> Self::Memory;
    /// Takes an item that an earlier life claimed after it made the memory. Its attempts may have succeeded.
    fn claimed(&mut self, item: Self::Item, at: u64);
    /// Takes that an earlier life settled an item, which is unknown if the memory is younger than that.
    fn settled(&mut self, number: u64, settled: Settled, at: u64);
    /// Counts what waits anew, after the last call of these two.
    fn recount(&mut self);
}

impl<Q: OutboundQueue> SharedQueue<Q> {
    fn new(queue: Q, now: u64) -> Arc<Self> {
        let state = Mutex::new(QueueState { queue, ending: None, blocked: false });
        Arc::new(Self { state, wake: Condvar::new(), began: (now, Instant::now()) })
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<Q>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns milliseconds since 1970. They never go back while the process runs, whatever happens to the clock.
    fn now(&self) -> u64 {
        let (at, began) = &self.began;
        at.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
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
        let state = self.lock();
        QueueStats { blocked: state.blocked, ..state.queue.stats() }
    }

    fn memory(&self) -> Q::Memory {
        self.lock().queue.memory()
    }

    /// Carries out the queue's steps until it is told to end and either is idle or has run out of time.
    fn run(&self, claims: Option<QueueClaims>, mut work: impl FnMut(&Q::Item) -> Q::Attempt) {
        // The items that this life claimed and didn't settle.
        let mut claimed = BTreeSet::new();
        while let Some(item) = self.next() {
            // STEP 1: claim it. The lock is free meanwhile: the store may be away for long.
            let number = Q::number(&item);
            if let Some((claims, channel)) = claims.as_ref().filter(|_| !claimed.contains(&number)) {
                let bytes = postcard::to_stdvec(&item).expect("plain data can be written to memory");
                let claim = ClaimEvent::Claim { channel: channel.clone(), item: bytes };
                if !self.write(claims, claim) {
                    return;
                }
                claimed.insert(number);
            }
            // STEP 2: try it, which may take minutes.
            let attempt = work(&item);
            let now = self.now();
            let settled = self.lock().queue.done(&item, &attempt, now);
            // STEP 3: write its outcome. If that isn't possible, the next life tries it again.
            if let (Some(settled), Some((claims, channel))) = (settled, &claims) {
                claimed.remove(&number);
                if !self.write(claims, ClaimEvent::Outcome { channel: channel.clone(), number, settled }) {
                    return;
                }
            }
        }
    }

    /// Writes an entry, however long that takes. Returns false if the process ends meanwhile, or another one took over.
    fn write(&self, claims: &Claims, event: ClaimEvent) -> bool {
        let entry = claims.entry(event, self.now());
        let [mut wait, longest] = WRITTEN_AGAIN;
        loop {
            let written = claims.append(&entry);
            let mut state = self.lock();
            state.blocked = matches!(written, Err(AppendError::Later(_)));
            match written {
                Ok(()) => return true,
                Err(AppendError::Superseded) => {
                    tracing::error!(
                        "another process goes on with the job: this one sends no more mails and requests"
                    );
                    return false;
                }
                Err(AppendError::Later(error)) => {
                    tracing::error!("mails and requests wait, since their claims can't be stored: {error}");
                }
            }
            let ending = state.ending;
            let pause = if ending.is_some() { WRITTEN_AT_LAST } else { wait };
            let waited = self.wake.wait_timeout_while(state, pause, |state| state.ending == ending);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ending.is_some_and(|at| at <= Instant::now()) {
                return false;
            }
            wait = (wait * 2).min(longest);
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

/// The state of an [`Outbox`], as checkpoints hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutboxMemory {
    format: u32,
    /// The number of the first claim or outcome that it may lack.
    position: u64,
    mails: Option<MailMemory>,
    /// Pairs of a webhook's name and the memory of its queue.
    webhooks: Vec<(String, WebhookMemory)>,
    /// Notices that were not put into the queues, by their ticks.
    waiting: Vec<(Tick, TickNotices)>,
}

/// What people are told of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickNotices {
    /// Transitions of incidents. The actions of each are those that say what is done about its key.
    pub incidents: Vec<Notice>,
    pub actions: ActionNotices,
    /// Thresholds of quotas that were crossed.
    pub quotas: Vec<QuotaAlert>,
}

impl TickNotices {
    /// Returns whether nothing is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.actions.is_empty() && self.quotas.is_empty()
    }
}

impl From<Vec<Notice>> for TickNotices {
    fn from(incidents: Vec<Notice>) -> Self {
        Self { incidents, ..Self::default() }
    }
}

impl Default for OutboxMemory {
    fn default() -> Self {
        Self { format: FORMAT, position: 0, mails: None, webhooks: Vec::new(), waiting: Vec::new() }
    }
}

impl OutboxMemory {
    /// Returns the number of the first entry in the store of claims that a start with this memory needs.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// Sends notices of incidents and quotas as mails and webhook requests.
pub struct Outbox {
    default: DefaultPolicy,
    claims: Option<Arc<Claims>>,
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
        let senders = Senders::new(config, sources)?;
        senders.start(config, clock, None, (OutboxMemory::default(), &[]))
    }

    /// Sets up the same, and goes on with the memory of an earlier life of the job, and with what it claimed since. `life`
    /// is a random number that tells this life from all others.
    ///
    /// # Errors
    /// Also if claims can't be read or written, or another version wrote them or the memory.
    pub fn resume(
        config: &keytide_config::Alerts,
        sources: &[Source],
        clock: WallClock,
        mut memory: OutboxMemory,
        (store, life): (Arc<dyn ClaimStore>, u64),
    ) -> Result<Self, OutboxError> {
        if memory.format != FORMAT {
            return Err(ClaimsError::Memory { found: memory.format }.into());
        }
        let senders = Senders::new(config, sources)?;
        let (claims, entries) = Claims::open(store, life, memory.position, clock())?;
        let waiting = std::mem::take(&mut memory.waiting);
        let outbox = senders.start(config, clock, Some(Arc::new(claims)), (memory, &entries))?;
        waiting.into_iter().for_each(|(tick, notices)| outbox.notify(tick, notices));
        Ok(outbox)
    }

    /// Returns the claims, if there is a store of them.
    #[must_use]
    pub fn claims(&self) -> Option<Arc<Claims>> {
        self.claims.clone()
    }

    /// Returns the memory for a checkpoint. `waiting` are notices that belong to it, but aren't to be sent yet. It waits for
    /// neither mails nor the store.
    #[must_use]
    pub fn memory(&self, waiting: Vec<(Tick, TickNotices)>) -> OutboxMemory {
        // The position must be read before the queues, see `claims.rs`.
        let position = self.claims.as_ref().map_or(0, |claims| claims.position());
        let OutboxMonitor { mails, webhooks } = &self.monitor;
        let webhooks = webhooks.iter().map(|(name, queue)| (name.clone(), queue.memory()));
        OutboxMemory {
            format: FORMAT,
            position,
            mails: mails.as_ref().map(|queue| queue.memory()),
            webhooks: webhooks.collect(),
            waiting,
        }
    }

    /// Puts the notices of a tick into all queues, except those of keys whose policy is `observe`. What the mail of a
    /// transition says is no mail of its own: the decision that it led to.
    pub fn notify(&self, tick: Tick, notices: impl Into<TickNotices>) {
        let OutboxMonitor { mails, webhooks } = &self.monitor;
        if mails.is_none() && webhooks.is_empty() {
            return;
        }
        let TickNotices { incidents, actions: ActionNotices { actions, gateways }, quotas } = notices.into();
        let decisions: BTreeSet<ActionId> =
            actions.iter().filter(|notice| notice.is_decision).map(|notice| notice.id).collect();
        let mut said = BTreeSet::new();
        let mut told = Vec::with_capacity(incidents.len());
        for Notice { json, contacts, actions } in incidents {
            let mut transition: TransitionJson = match serde_json::from_slice(&json) {
                Ok(transition) => transition,
                Err(error) => {
                    tracing::error!(
                        %error,
                        "a row of incident_log can't be read back; no notification is sent for it"
                    );
                    continue;
                }
            };
            let policy = transition.policy.get_or_insert_with(|| self.default.name().to_owned());
            if policy == DefaultPolicy::Observe.name() {
                continue;
            }
            let mut planned = planned(&actions);
            if let Some(planned) = &mut planned {
                planned.is_decision = planned.id.is_some_and(|id| decisions.contains(&id));
                let has_mail = !is_notice(&transition) && !is_repeat(&transition);
                said.extend(planned.id.filter(|_| has_mail && planned.is_decision));
            }
            told.push((transition, Arc::<[u8]>::from(json), contacts, planned));
        }
        let quotas = read_quotas(quotas);
        for (_, queue) in webhooks {
            queue.put(|queue, _| {
                for (transition, json, _, planned) in &told {
                    queue.push(transition, planned.as_ref(), json.clone(), tick);
                }
                actions.iter().for_each(|notice| queue.push_action(notice, is_said(notice, &said), tick));
                gateways.iter().for_each(|notice| queue.push_gateway(notice, tick));
                quotas.iter().for_each(|(row, json, _)| queue.push_quota(row, json.clone(), tick));
            });
        }
        if let Some(queue) = mails {
            // All of a tick at once: a digest in between would not have all of what it counts.
            queue.put(|queue, now| {
                for (transition, _, contacts, planned) in told {
                    queue.push(transition, planned, &contacts, now, tick);
                }
                for notice in actions {
                    let is_said = is_said(&notice, &said);
                    queue.push_action(notice, is_said, now, tick);
                }
                for notice in gateways {
                    queue.push_gateway(notice, now, tick);
                }
                for (row, _, contacts) in quotas {
                    queue.push_quota(row, &contacts, now, tick);
                }
            });
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

/// The parts that send, before their threads are started. Errors of the configuration surface here.
struct Senders<'a> {
    mailer: Option<(&'a EmailAlerts, Mailer)>,
    clients: Vec<(&'a Webhook, Client)>,
}

impl<'a> Senders<'a> {
    fn new(config: &'a keytide_config::Alerts, sources: &[Source]) -> Result<Self, OutboxError> {
        let guide = Guide::new(config, sources);
        let mailer = config.email.as_ref().map(|email| Ok((email, Mailer::new(email, guide.clone())?)));
        let mailer = mailer.transpose().map_err(OutboxError::Mail)?;
        let mut clients = Vec::new();
        for webhook in &config.webhooks {
            let name = webhook.name.clone();
            let client =
                Client::new(webhook, guide.clone()).map_err(|error| OutboxError::Webhook { name, error })?;
            clients.push((webhook, client));
        }
        Ok(Self { mailer, clients })
    }

    /// Starts the threads of queues that go on with a memory and the entries since.
    fn start(
        self,
        config: &keytide_config::Alerts,
        clock: WallClock,
        claims: Option<Arc<Claims>>,
        (memory, entries): (OutboxMemory, &[ClaimEntry]),
    ) -> Result<Outbox, OutboxError> {
        let (done, threads) = channel();
        let now = clock();
        let OutboxMemory { mails: of_mails, webhooks: mut of_webhooks, .. } = memory;
        let mut monitor = OutboxMonitor { mails: None, webhooks: Vec::new() };
        if let Some((email, mailer)) = self.mailer {
            let of_mails = of_mails.unwrap_or_default();
            let (mut queue, dropped) = MailQueue::restore(email, of_mails, now, pace::jitter());
            if dropped > 0 {
                tracing::warn!(
                    transitions = dropped,
                    "mails to addresses that the configuration no longer names are dropped"
                );
            }
            go_on(&mut queue, &Channel::Mails, entries, now)?;
            let queue = SharedQueue::new(queue, now);
            monitor.mails = Some(queue.clone());
            let claims = claims.clone().map(|claims| (claims, Channel::Mails));
            spawn("mails", &done, (queue, claims), move |mail: &QueuedMail| {
                let outcome = mailer.send(mail);
                log_mail(mail, &outcome);
                outcome
            })?;
        }
        for (webhook, client) in self.clients {
            let (name, clock) = (webhook.name.clone(), clock.clone());
            let earlier = of_webhooks.iter().position(|(of, _)| *of == name);
            let memory = earlier.map(|at| of_webhooks.swap_remove(at).1).unwrap_or_default();
            let mut queue = WebhookQueue::restore(webhook.into(), memory, now, pace::jitter());
            let channel = Channel::Webhook(name.clone());
            go_on(&mut queue, &channel, entries, now)?;
            let queue = SharedQueue::new(queue, now);
            monitor.webhooks.push((name.clone(), queue.clone()));
            let claims = claims.clone().map(|claims| (claims, channel));
            spawn("webhook", &done, (queue, claims), move |batch: &QueuedBatch| {
                let outcome = client.send(&batch.batch, clock());
                log_request(&name, batch, &outcome);
                outcome
            })?;
        }
        Ok(Outbox { default: config.policy.default, claims, monitor, threads })
    }
}

/// Lets a queue take what earlier lives claimed and settled since they made its memory.
fn go_on<Q: OutboundQueue>(
    queue: &mut Q,
    channel: &Channel,
    entries: &[ClaimEntry],
    now: u64,
) -> Result<(), ClaimsError> {
    for ClaimEntry { at_ms, event, .. } in entries {
        // A clock may have been set back since.
        let at = now.min(*at_ms);
        match event {
            ClaimEvent::Claim { channel: of, item } if of == channel => {
                queue.claimed(postcard::from_bytes(item).map_err(|_| ClaimsError::Item)?, at);
            }
            ClaimEvent::Outcome { channel: of, number, settled } if of == channel => {
                queue.settled(*number, *settled, at);
            }
            ClaimEvent::Life | ClaimEvent::Claim { .. } | ClaimEvent::Outcome { .. } => {}
        }
    }
    queue.recount();
    Ok(())
}

/// A notice about a quota, its row as it was published, and the contacts of its subscription.
type ToldQuota = (Arc<QuotaNoticeRow>, Arc<[u8]>, Vec<String>);

/// Reads notices about quotas back. One that can't be is told to nobody.
fn read_quotas(quotas: Vec<QuotaAlert>) -> Vec<ToldQuota> {
    let mut read = Vec::with_capacity(quotas.len());
    for alert in quotas {
        match QuotaNoticeRow::parse(&alert) {
            Ok(row) => read.push((Arc::new(row), alert.json.into_bytes().into(), alert.contacts)),
            Err(error) => {
                tracing::error!(%error, "a row of notices can't be read back; nobody is told of it");
            }
        }
    }
    read
}

/// Returns whether the mail of a transition says what a notice does, as `said` are the actions that such mails announce.
fn is_said(notice: &ActionNotice, said: &BTreeSet<ActionId>) -> bool {
    notice.is_decision && said.contains(&notice.id)
}

/// Returns the action of a notice that its mails announce: the first that isn't withdrawn.
fn planned(actions: &[Revocation]) -> Option<PlannedAction> {
    let of = |action: &Revocation| {
        let why = match action.state {
            ActionState::Held => actions::held(&action.reason),
            ActionState::Failed => actions::failed(&action.reason),
            ActionState::Requested | ActionState::Done | ActionState::Confirmed => "",
            ActionState::Withdrawn => return None,
        };
        let id = (!actions::is_only_shown(&action.reason)).then_some(action.id);
        let (action, state, why) = (action.action, action.state, why.to_owned());
        Some(PlannedAction { id, action, state, why, is_decision: false })
    };
    actions.iter().find_map(of)
}

fn spawn<Q: OutboundQueue + Send + 'static>(
    name: &str,
    done: &Sender<()>,
    (queue, claims): (Arc<SharedQueue<Q>>, Option<QueueClaims>),
    work: impl FnMut(&Q::Item) -> Q::Attempt + Send + 'static,
) -> io::Result<()> {
    let done = done.clone();
    thread::Builder::new().name(format!("alerts-{name}")).spawn(move || {
        queue.run(claims, work);
        drop(done);
    })?;
    Ok(())
}

fn log_mail(mail: &QueuedMail, outcome: &MailOutcome) {
    let audience = mail.to.kind.name();
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

fn log_request(webhook: &str, batch: &QueuedBatch, outcome: &WebhookOutcome) {
    let id = batch.batch.id.as_str();
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

/// A handle on the counters of an [`Outbox`], for other threads. By default it is that of none.
#[derive(Clone, Default)]
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
