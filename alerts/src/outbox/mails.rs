//! The queue of mails decides which mail goes to which recipient next, and when. It is a pure state without clock,
//! network or chance, so a test can simulate all of them.
//!
//! Each recipient has a queue of its own:
//!
//! ```text
//!             calm                          one mail each
//! notice ──> waiting ───────────────────────────┬──> tried ──> sent, refused
//!               │ more than digest_after         │    ^  │
//!               v within a minute, or waiting    │    └──┘ again, unchanged
//!            collected ─────── one digest ───────┤
//!                                                │
//! refused calls of a revoked key ──> daily ──────┘ one digest in 24 hours, to security
//! ```
//! * A mail that was tried never changes, a digest neither. A later attempt sends the same mail with the same
//!   Message-ID, whatever became of the one before.
//! * The digests of one recipient are 1, 2, 4, 8, then 15 minutes apart during a storm. So they stay within the hourly
//!   limits.
//! * After a failure a recipient is paused (see `pace.rs`). After 8 failures of one mail the next mail is tried.
//! * If 3 mails to owners fail in a row, the queue tries none of them for a while: the server is probably down, and there
//!   may be thousands. The same holds for customers.
//! * Security comes before owners, and these come before customers, who are told of quotas. Owners and customers get at
//!   most three quarters of `per_hour`, and customers at most half of it.
//! * Owners are told of the opening and of the end (or the withdrawal) of an incident, not of what is between. If it
//!   opened as a notice, the rise out of that is its opening for them.
//! * A repeat (see `is_repeat`) is no mail. A notice (see `is_notice`) is a line of security's daily digest, one for each
//!   incident, by its newest transition. That digest leaves a day after its first line, never within 24 hours of the one
//!   before. At the end of the process it doesn't wait for its day to be over, but keeps that distance.
//! * A change of an action, and a gateway that is late, are told as transitions are. Owners are told of what is done, and
//!   of what is still answered after that. A gateway is never condensed: its mail is rare, and must come in a storm.
//! * A notice about a quota is for customers alone. Their digests list notices and nothing else.
//! * A transition, change or notice that is pushed again is ignored if it is among the last 65,536.
//!
//! [`MailMemory`] is what a restart needs. A queue that goes on with one is given the claims that were made since (see
//! `claims.rs`): mails that were settled are left out, and those that weren't are tried again. The transitions of either
//! are taken out of what waits, and left out when their ticks are pushed again. A mail lists its transitions by name. Those
//! that a digest only counts have no names, but a digest takes all that waits for its recipient, and ticks are pushed
//! whole. So all transitions up to the tick of its last one are in it or in a mail before it. The same holds for changes of
//! actions.
//!
//! Limits: 4,096 waiting transitions and changes, 2,000 of each in a digest of either kind and 16 tried mails for each
//! recipient; 10,000 recipients and 8,192 buffered transitions and changes in all. Notices about quotas have a limit of
//! 8,192 of their own, and no customer is added to 5,000 recipients. Beyond the limits in all, a recipient's digest still
//! takes one of each. Beyond its limits a digest keeps those that matter most and counts the others; owners and customers
//! beyond theirs are counted as `untold`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use keytide_config::EmailAlerts;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::Tick;
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};
use keytide_dataflow::{ActionState, Change};
use serde::{Deserialize, Serialize};

use super::pace::{Jitter, LONGEST_MS, SlidingHour, backoff_ms};
use super::{NextStep, OutboundQueue, QueueStats, Settled, is_notice, is_repeat};
use crate::actions::{ActionNotice, GatewayNotice};
use crate::email::{Audience, MailOutcome, PlannedAction, is_over, weight};
use crate::quota::QuotaNoticeRow;

const MAX_WAITING: usize = 4_096;
const MAX_COLLECTED: usize = 2_000;
const MAX_BUFFERED: usize = 8_192;
const MAX_TRIED: usize = 16;
const MAX_RECIPIENTS: usize = 10_000;
/// The number of recipients from which on no customer is added.
const MAX_WITH_CUSTOMERS: usize = 5_000;
const MAX_SEEN: usize = 65_536;
/// Failures of one mail after which the recipient's next mail is tried before it.
const MAX_BLOCKING_FAILURES: u32 = 8;
/// Consecutive failures of mails to owners, or to customers, after which all of that kind are paused.
const MAX_KIND_FAILURES: u32 = 3;
/// How long a mail with too many failures is set aside.
const SET_ASIDE_MS: u64 = 5 * MINUTE_MS;
/// The longest time between two digests of one recipient.
const MAX_DIGEST_INTERVAL_MS: u64 = 15 * MINUTE_MS;

/// Why an address gets mails. Those that sort first are served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum RecipientKind {
    Security,
    /// A contact of a key or of its subscription, about incidents.
    Owner,
    /// A contact of a subscription, about its quotas.
    Customer,
}

impl RecipientKind {
    /// Returns the kind of reader for whom a mail about incidents and actions is written.
    pub(super) fn audience(self) -> Audience {
        match self {
            Self::Security => Audience::Security,
            // Customers get no such mail, and may read no more than owners.
            Self::Owner | Self::Customer => Audience::Owner,
        }
    }

    /// Returns the name in the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Owner => "owner",
            Self::Customer => "customer",
        }
    }
}

/// An address and the reason for which it gets mails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Recipient {
    pub(super) kind: RecipientKind,
    pub(super) address: String,
}

/// What one mail tells, unless it is a digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum MailItem {
    /// A transition, and the action that says what is done about its key.
    Incident(Arc<TransitionJson>, Option<Arc<PlannedAction>>),
    /// A change of an action.
    Action(Arc<ActionNotice>),
    Gateway(Arc<GatewayNotice>),
    Quota(Arc<QuotaNoticeRow>),
}

impl MailItem {
    /// Returns a name that is the same in each life of the job.
    pub(super) fn name(&self) -> (Box<str>, u32) {
        match self {
            Self::Incident(transition, _) => name_of(transition),
            Self::Action(notice) => name_of_action(notice),
            Self::Gateway(notice) => {
                let gateway = notice.gateway.as_deref().unwrap_or_default();
                (format!("gateway/{gateway}/{}", notice.first).into(), notice.count)
            }
            Self::Quota(row) => name_of_quota(row),
        }
    }
}

fn name_of(transition: &TransitionJson) -> (Box<str>, u32) {
    (transition.incident_id.as_str().into(), transition.seq)
}

fn name_of_action(notice: &ActionNotice) -> (Box<str>, u32) {
    (format!("action/{}", notice.id).into(), u32::try_from(notice.seq).unwrap_or(u32::MAX))
}

fn name_of_quota(row: &QuotaNoticeRow) -> (Box<str>, u32) {
    (format!("quota/{}", row.quota_id()).into(), u32::try_from(row.seq).unwrap_or(u32::MAX))
}

/// The content of a queued mail, before it is composed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum MailContent {
    Single(MailItem),
    Digest(Arc<DigestItems>),
    /// Lists the notices of a day.
    Daily(Arc<Notices>),
}

/// What a digest lists, and how many further ones it counts that weren't kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DigestItems {
    pub(super) incidents: Vec<(Arc<TransitionJson>, Option<Arc<PlannedAction>>)>,
    pub(super) more: u64,
    pub(super) actions: Vec<Arc<ActionNotice>>,
    pub(super) more_actions: u64,
    /// The actions of all these that wait for a person.
    pub(super) held: u64,
    /// Those of a customer. Digests of others have none.
    pub(super) quotas: Vec<Arc<QuotaNoticeRow>>,
    pub(super) more_quotas: u64,
}

impl DigestItems {
    fn count(&self) -> u64 {
        self.listed() as u64 + self.unlisted()
    }

    /// Returns the number of transitions, changes and notices that it counts and doesn't list.
    fn unlisted(&self) -> u64 {
        self.more + self.more_actions + self.more_quotas
    }

    /// Returns the names of what it lists, as single mails have them.
    pub(super) fn names(&self) -> impl Iterator<Item = (Box<str>, u32)> {
        let incidents = self.incidents.iter().map(|(each, _)| name_of(each));
        let actions = self.actions.iter().map(|each| name_of_action(each));
        incidents.chain(actions).chain(self.quotas.iter().map(|each| name_of_quota(each)))
    }

    /// Returns the number of transitions, changes and notices that it lists.
    fn listed(&self) -> usize {
        self.incidents.len() + self.actions.len() + self.quotas.len()
    }
}

/// The notices of a day: calls of revoked keys that were refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Notices {
    /// The newest transition of each incident, by its identity.
    pub(super) lines: BTreeMap<String, Arc<TransitionJson>>,
    /// Counts the transitions of incidents for which there is no room.
    pub(super) more: u64,
    /// Counts all transitions, those that a newer one of their incident replaced included.
    count: u64,
}

impl MailContent {
    /// Returns the number of transitions and changes that the mail lists or counts.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Single(_) => 1,
            Self::Digest(items) => items.count(),
            Self::Daily(notices) => notices.count,
        }
    }
}

/// A mail to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct QueuedMail {
    pub(super) number: u64,
    pub(super) to: Recipient,
    pub(super) content: MailContent,
    /// The tick of its last transition. Message-ID and bytes follow from the content and this date.
    pub(super) date_ms: Tick,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tried {
    mail: QueuedMail,
    failures: u32,
    due: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    item: MailItem,
    date_ms: Tick,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Collected {
    items: DigestItems,
    since: u64,
    date_ms: Tick,
}

/// The daily digest of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Daily {
    notices: Notices,
    since: u64,
    date_ms: Tick,
    /// When the last one was handed out or sent.
    last: Option<u64>,
    /// True while one is tried: the next must not overtake it.
    is_tried: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct RecipientQueue {
    waiting: VecDeque<Waiting>,
    collected: Collected,
    daily: Daily,
    tried: Vec<Tried>,
    /// The ticks of arrivals within the last minute, at most one more than a storm needs.
    arrivals: VecDeque<Tick>,
    sent: SlidingHour,
    digests: SlidingHour,
    failures: u32,
    /// No new mail is tried before this time.
    pause: u64,
}

/// The transitions and changes that were told to one recipient in ticks that are made again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ToldTransitions {
    /// What mails list, by name, each with the date of its mail.
    items: BTreeMap<(Box<str>, u32), Tick>,
    /// The newest notice of each incident in daily digests, with the date of the digest.
    notices: BTreeMap<Box<str>, (u32, Tick)>,
    /// A digest that counts more than it lists has all transitions and changes up to this tick.
    until: Tick,
    /// A daily digest that counts more than it lists has all notices up to this tick.
    notices_until: Tick,
}

/// The part of the queue that outlives the process. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MailMemory {
    queues: BTreeMap<Recipient, RecipientQueue>,
    sent: SlidingHour,
    owners: KindPace,
    customers: KindPace,
    seen: Recent<(Box<str>, u32)>,
    /// Incidents of which owners were told.
    told_owners: Recent<Box<str>>,
    /// The number of the last mail.
    number: u64,
    told: BTreeMap<Recipient, ToldTransitions>,
}

/// The pace of mails to one kind of recipients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct KindPace {
    /// Those that count against the share of this kind in the hourly limit.
    sent: SlidingHour,
    /// Mails that failed in a row.
    failures: u32,
    /// No mail is tried before this time.
    paused_until: u64,
}

/// The number of transitions, changes and notices that are waiting, collected or in tried digests.
#[derive(Clone, Copy, Debug, Default)]
struct BufferedItems {
    of_alerts: usize,
    /// Those about quotas have a room of their own: they can't take that of incidents.
    of_quotas: usize,
}

impl BufferedItems {
    fn of(&mut self, kind: RecipientKind) -> &mut usize {
        match kind {
            RecipientKind::Security | RecipientKind::Owner => &mut self.of_alerts,
            RecipientKind::Customer => &mut self.of_quotas,
        }
    }
}

/// All mails that are to be sent, by recipient.
pub(super) struct MailQueue {
    per_recipient: usize,
    per_hour: usize,
    storm: usize,
    security: Vec<String>,
    owners: bool,
    customers: bool,
    memory: MailMemory,
    buffered: BufferedItems,
    /// True once the process ends: digests no longer wait for more transitions.
    ending: bool,
    jitter: Jitter,
    stats: QueueStats,
}

/// Returns the transition without the evidence that digests don't show.
fn condensed(transition: &TransitionJson) -> Arc<TransitionJson> {
    let mut transition = transition.clone();
    transition.evidence.traffic = Vec::new();
    transition.evidence.samples = Vec::new();
    Arc::new(transition)
}

/// Ranks transitions by how much they matter to a digest: current incidents first, then level and score.
fn rank(transition: &TransitionJson) -> (bool, bool, u8) {
    (!is_over(transition), transition.level == "revoke", transition.score)
}

/// Returns the queue of a recipient for one more transition, change or notice; `None` if there are too many recipients.
/// Counts either. Customers can't take the room of others.
fn queue_of<'a>(
    queues: &'a mut BTreeMap<Recipient, RecipientQueue>,
    recipient: Recipient,
    stats: &mut QueueStats,
) -> Option<&'a mut RecipientQueue> {
    let most = match recipient.kind {
        RecipientKind::Security | RecipientKind::Owner => MAX_RECIPIENTS,
        RecipientKind::Customer => MAX_WITH_CUSTOMERS,
    };
    if queues.len() >= most && !queues.contains_key(&recipient) {
        stats.untold += 1;
        return None;
    }
    stats.queued += 1;
    Some(queues.entry(recipient).or_default())
}

impl MailQueue {
    pub(super) fn new(email: &EmailAlerts, jitter: Jitter) -> Self {
        Self {
            per_recipient: email.per_recipient as usize,
            per_hour: email.per_hour as usize,
            storm: (email.digest_after as usize).min(MAX_WAITING),
            security: email.to.clone(),
            owners: email.owners,
            customers: email.quota_notices,
            memory: MailMemory::default(),
            buffered: BufferedItems::default(),
            ending: false,
            jitter,
            stats: QueueStats::default(),
        }
    }

    /// Returns a queue that goes on with the memory of an earlier one. Mails to addresses that the configuration no longer
    /// names are dropped; the number of their transitions is returned.
    pub(super) fn restore(email: &EmailAlerts, memory: MailMemory, now: u64, jitter: Jitter) -> (Self, u64) {
        let mut queue = Self { memory, ..Self::new(email, jitter) };
        let before = queue.memory.count();
        let mut queues = std::mem::take(&mut queue.memory.queues);
        queues.retain(|to, _| queue.serves(to));
        queue.memory.queues = queues;
        queue.memory.not_after(now);
        queue.recount();
        let dropped = before - queue.stats.queued;
        (queue, dropped)
    }

    /// Returns whether the configuration names a recipient.
    fn serves(&self, to: &Recipient) -> bool {
        match to.kind {
            RecipientKind::Security => self.security.contains(&to.address),
            RecipientKind::Owner => self.owners,
            RecipientKind::Customer => self.customers,
        }
    }

    /// Queues the transitions of the tick `date_ms`, one by one, for all of their recipients. `now` is in milliseconds of
    /// any clock; mails have the date of the tick.
    pub(super) fn push(
        &mut self,
        transition: TransitionJson,
        planned: Option<PlannedAction>,
        contacts: &[String],
        now: u64,
        date_ms: Tick,
    ) {
        self.memory.told.retain(|_, told| told.forget(date_ms));
        // STEP 1: ignore a transition that was pushed before, or of which people know.
        if !self.memory.seen.insert(name_of(&transition)) {
            return;
        }
        if is_notice(&transition) {
            self.collect_notice(transition, now, date_ms);
            return;
        }
        if is_repeat(&transition) {
            return;
        }
        // STEP 2: queue it for all who are told.
        let owners = if self.owners && self.concerns_owners(&transition) { contacts } else { &[] };
        let item = MailItem::Incident(Arc::new(transition), planned.map(Arc::new));
        self.queue(&item, true, (RecipientKind::Owner, owners), now, date_ms);
    }

    /// Queues a change of an action at the tick `date_ms`, after the transitions of that tick. `is_said` means that the
    /// mail of a transition says it to security.
    pub(super) fn push_action(&mut self, mut notice: ActionNotice, is_said: bool, now: u64, date_ms: Tick) {
        let contacts = std::mem::take(&mut notice.contacts);
        let owners = if self.owners && notice.concerns_owners() { contacts } else { Vec::new() };
        let item = MailItem::Action(Arc::new(notice));
        if self.memory.seen.insert(item.name()) {
            self.queue(&item, !is_said, (RecipientKind::Owner, &owners), now, date_ms);
        }
    }

    /// Queues for security that a gateway is late at the tick `date_ms`.
    pub(super) fn push_gateway(&mut self, notice: GatewayNotice, now: u64, date_ms: Tick) {
        let item = MailItem::Gateway(Arc::new(notice));
        if self.memory.seen.insert(item.name()) {
            self.queue(&item, true, (RecipientKind::Owner, &[]), now, date_ms);
        }
    }

    /// Queues a notice about a quota for the contacts of its subscription at the tick `date_ms`, if they are told.
    pub(super) fn push_quota(
        &mut self,
        row: Arc<QuotaNoticeRow>,
        contacts: &[String],
        now: u64,
        date_ms: Tick,
    ) {
        let item = MailItem::Quota(row);
        if self.customers && self.memory.seen.insert(item.name()) {
            self.queue(&item, false, (RecipientKind::Customer, contacts), now, date_ms);
        }
    }

    /// Queues an item for security, if it is for them, and for contacts. An earlier life may have told of it, or there may
    /// be too many recipients.
    fn queue(
        &mut self,
        item: &MailItem,
        is_for_security: bool,
        (kind, contacts): (RecipientKind, &[String]),
        now: u64,
        date_ms: Tick,
    ) {
        let security = if is_for_security { self.security.as_slice() } else { &[] };
        let recipients = [(RecipientKind::Security, security), (kind, contacts)];
        let recipients = recipients.into_iter().flat_map(|(kind, addresses)| {
            addresses.iter().map(move |address| Recipient { kind, address: address.clone() })
        });
        for recipient in recipients {
            if self.memory.told.get(&recipient).is_some_and(|told| told.has(item, date_ms)) {
                continue;
            }
            let buffered = self.buffered.of(recipient.kind);
            let Some(queue) = queue_of(&mut self.memory.queues, recipient, &mut self.stats) else { continue };
            let waiting = Waiting { item: item.clone(), date_ms };
            self.stats.condensed += queue.push(waiting, self.storm, buffered, now);
        }
    }

    /// Returns whether owners are told of a transition: of the first that is more than a notice, and of the end.
    fn concerns_owners(&mut self, transition: &TransitionJson) -> bool {
        let is_first = self.memory.told_owners.insert(transition.incident_id.as_str().into());
        match transition.transition {
            Change::Opened | Change::Ended | Change::Withdrawn => true,
            Change::Raised => is_first,
            Change::Updated | Change::Reopened => false,
        }
    }

    /// Adds a notice to security's daily digests.
    fn collect_notice(&mut self, mut transition: TransitionJson, now: u64, date_ms: Tick) {
        // The samples stay, as they say who calls.
        transition.evidence.traffic = Vec::new();
        let transition = Arc::new(transition);
        for address in &self.security {
            let recipient = Recipient { kind: RecipientKind::Security, address: address.clone() };
            if self.memory.told.get(&recipient).is_some_and(|told| told.has_notice(&transition, date_ms)) {
                continue;
            }
            let Some(queue) = queue_of(&mut self.memory.queues, recipient, &mut self.stats) else { continue };
            let daily = &mut queue.daily;
            if daily.notices.count == 0 {
                daily.since = now;
            }
            daily.date_ms = date_ms;
            daily.notices.add(&transition);
            self.stats.condensed += 1;
        }
    }

    /// Puts off a mail whose attempt failed, and others that would probably fail, too.
    fn failed(&mut self, mail: &QueuedMail, now: u64) {
        let memory = &mut self.memory;
        let queue = memory.queues.get_mut(&mail.to).expect("a mail that was tried keeps its queue");
        let tried = queue.tried.iter_mut().find(|tried| tried.mail.number == mail.number);
        let tried = tried.expect("a mail that was handed out was tried");
        tried.failures = tried.failures.saturating_add(1);
        queue.failures = queue.failures.saturating_add(1);
        queue.pause = now + backoff_ms(queue.failures, &mut self.jitter);
        let stubborn = tried.failures.is_multiple_of(MAX_BLOCKING_FAILURES);
        tried.due = queue.pause + if stubborn { SET_ASIDE_MS } else { 0 };
        self.stats.retried += 1;
        if let Some(pace) = memory.pace(mail.to.kind) {
            pace.failures = pace.failures.saturating_add(1);
            let failures = pace.failures.saturating_sub(MAX_KIND_FAILURES);
            let wait = if failures > 0 { backoff_ms(failures, &mut self.jitter) } else { 0 };
            pace.paused_until = now + wait;
        }
    }

    /// Notes in the memory that a mail went out or was given up.
    fn settle(&mut self, mail: &QueuedMail, settled: Settled, now: u64) {
        let memory = &mut self.memory;
        let queue = memory.queues.get_mut(&mail.to).expect("a mail that was tried keeps its queue");
        queue.tried.retain(|tried| tried.mail.number != mail.number);
        if settled == Settled::Sent {
            (queue.failures, queue.pause) = (0, now);
            queue.sent.add(now);
            memory.sent.add(now);
            for pace in [&mut memory.owners, &mut memory.customers] {
                (pace.failures, pace.paused_until) = (0, now);
            }
            match mail.to.kind {
                RecipientKind::Security => {}
                RecipientKind::Owner => memory.owners.sent.add(now),
                RecipientKind::Customer => {
                    memory.owners.sent.add(now);
                    memory.customers.sent.add(now);
                }
            }
        }
        if let MailContent::Daily(_) = &mail.content {
            (queue.daily.last, queue.daily.is_tried) = (Some(now), false);
        }
    }
}

impl MailMemory {
    /// Returns the pace of a kind of recipients; `None` of security, which has no other than that of each recipient.
    fn pace(&mut self, kind: RecipientKind) -> Option<&mut KindPace> {
        match kind {
            RecipientKind::Security => None,
            RecipientKind::Owner => Some(&mut self.owners),
            RecipientKind::Customer => Some(&mut self.customers),
        }
    }

    /// Returns the number of transitions that wait, those that are only counted included.
    fn count(&self) -> u64 {
        self.queues.values().map(RecipientQueue::count).sum()
    }

    /// Moves times that a clock which was set back has not reached. Nothing waits longer than it would have.
    fn not_after(&mut self, now: u64) {
        let latest = now + LONGEST_MS + SET_ASIDE_MS;
        self.sent.not_after(now);
        for pace in [&mut self.owners, &mut self.customers] {
            pace.sent.not_after(now);
            pace.paused_until = pace.paused_until.min(latest);
        }
        for queue in self.queues.values_mut() {
            queue.sent.not_after(now);
            queue.digests.not_after(now);
            queue.pause = queue.pause.min(latest);
            queue.tried.iter_mut().for_each(|tried| tried.due = tried.due.min(latest));
            queue.collected.since = queue.collected.since.min(now);
            queue.daily.since = queue.daily.since.min(now);
            queue.daily.last = queue.daily.last.map(|last| last.min(now));
        }
    }
}

impl ToldTransitions {
    fn add(&mut self, QueuedMail { content, date_ms, .. }: &QueuedMail) {
        match content {
            MailContent::Single(item) => {
                self.items.insert(item.name(), *date_ms);
            }
            MailContent::Digest(items) => {
                self.items.extend(items.names().map(|name| (name, *date_ms)));
                self.until = if items.unlisted() > 0 { *date_ms } else { self.until };
            }
            MailContent::Daily(notices) => {
                let lines = notices.lines.values().map(|line| name_of(line));
                self.notices.extend(lines.map(|(incident, seq)| (incident, (seq, *date_ms))));
                self.notices_until = if notices.more > 0 { *date_ms } else { self.notices_until };
            }
        }
    }

    fn has(&self, item: &MailItem, tick: Tick) -> bool {
        tick <= self.until || self.items.contains_key(&item.name())
    }

    fn has_notice(&self, notice: &TransitionJson, tick: Tick) -> bool {
        let newest = self.notices.get(notice.incident_id.as_str());
        tick <= self.notices_until || newest.is_some_and(|(seq, _)| notice.seq <= *seq)
    }

    /// Forgets mails all of whose ticks come before `tick`. Returns whether something is left.
    fn forget(&mut self, tick: Tick) -> bool {
        self.items.retain(|_, date| *date >= tick);
        self.notices.retain(|_, (_, date)| *date >= tick);
        let until = self.until.max(self.notices_until);
        !self.items.is_empty() || !self.notices.is_empty() || until >= tick
    }
}

/// The last [`MAX_SEEN`] values, each of them once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "VecDeque<T>", into = "VecDeque<T>")]
#[serde(bound(
    serialize = "T: Clone + Serialize",
    deserialize = "T: Clone + Eq + std::hash::Hash + Deserialize<'de>"
))]
struct Recent<T: Clone + Eq + std::hash::Hash> {
    values: HashSet<T>,
    order: VecDeque<T>,
}

impl<T: Clone + Eq + std::hash::Hash> Default for Recent<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> From<VecDeque<T>> for Recent<T> {
    fn from(order: VecDeque<T>) -> Self {
        Self { values: order.iter().cloned().collect(), order }
    }
}

impl<T: Clone + Eq + std::hash::Hash> From<Recent<T>> for VecDeque<T> {
    fn from(recent: Recent<T>) -> Self {
        recent.order
    }
}

impl<T: Clone + Eq + std::hash::Hash> Recent<T> {
    /// Adds a value; returns whether it is new. The oldest one is forgotten for it.
    fn insert(&mut self, value: T) -> bool {
        if !self.values.insert(value.clone()) {
            return false;
        }
        self.order.push_back(value);
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        true
    }
}

impl Notices {
    fn add(&mut self, transition: &Arc<TransitionJson>) {
        self.count += 1;
        let has_room = self.lines.len() < MAX_COLLECTED;
        match self.lines.get_mut(&transition.incident_id) {
            Some(line) => *line = transition.clone(),
            None if has_room => {
                self.lines.insert(transition.incident_id.clone(), transition.clone());
            }
            None => self.more += 1,
        }
    }
}

impl Daily {
    /// Returns when the next digest can be tried; `None` if there is none, or if one is tried already.
    fn ready(&self, ending: bool) -> Option<u64> {
        if self.notices.count == 0 || self.is_tried {
            return None;
        }
        let day = if ending { self.since } else { self.since + DAY_MS };
        Some(self.last.map_or(day, |last| day.max(last + DAY_MS)))
    }
}

impl OutboundQueue for MailQueue {
    type Item = QueuedMail;
    type Attempt = MailOutcome;
    type Memory = MailMemory;

    fn number(mail: &QueuedMail) -> u64 {
        mail.number
    }

    fn memory(&self) -> MailMemory {
        self.memory.clone()
    }

    fn claimed(&mut self, mail: QueuedMail, at: u64) {
        // The memory has a mail with a lower number: it is tried still, or was settled.
        if mail.number <= self.memory.number {
            return;
        }
        self.memory.number = mail.number;
        if !self.serves(&mail.to) {
            return;
        }
        self.memory.told.entry(mail.to.clone()).or_default().add(&mail);
        let queue = self.memory.queues.entry(mail.to.clone()).or_default();
        match &mail.content {
            MailContent::Single(item) => {
                let name = item.name();
                queue.waiting.retain(|waiting| waiting.item.name() != name);
            }
            // A digest takes everything that waits.
            MailContent::Digest(_) => {
                queue.waiting.clear();
                queue.collected = Collected::default();
                queue.digests.add(at);
            }
            MailContent::Daily(_) => {
                queue.daily.notices = Notices::default();
                (queue.daily.last, queue.daily.is_tried) = (Some(at), true);
            }
        }
        queue.tried.push(Tried { mail, failures: 0, due: at });
    }

    fn settled(&mut self, number: u64, settled: Settled, at: u64) {
        let mut tried = self.memory.queues.values().flat_map(|queue| &queue.tried);
        let Some(mail) = tried.find(|tried| tried.mail.number == number).map(|tried| tried.mail.clone())
        else {
            return;
        };
        self.settle(&mail, settled, at);
    }

    fn recount(&mut self) {
        self.buffered = BufferedItems::default();
        for (recipient, queue) in &self.memory.queues {
            *self.buffered.of(recipient.kind) += queue.buffered();
        }
        self.stats = QueueStats { queued: self.memory.count(), ..QueueStats::default() };
    }

    /// Ends all pauses and the intervals of digests. The hourly limits stay.
    fn hurry(&mut self, now: u64) {
        self.ending = true;
        (self.memory.owners.paused_until, self.memory.customers.paused_until) = (now, now);
        for queue in self.memory.queues.values_mut() {
            queue.pause = now;
            queue.tried.iter_mut().for_each(|tried| tried.due = now);
        }
    }

    fn stats(&self) -> QueueStats {
        self.stats
    }

    fn next(&mut self, now: u64) -> NextStep<QueuedMail> {
        // STEP 1: find the first recipient with a due mail and room within all limits, or the earliest time for one.
        let all = self.memory.sent.room(self.per_hour, now);
        let room = |pace: &mut KindPace, share: usize| {
            pace.sent.room(share.max(1), now).max(all).max(pace.paused_until)
        };
        let owners = room(&mut self.memory.owners, self.per_hour * 3 / 4);
        // What counts for customers counts for owners, so that these two never take what is for security.
        let of_both = self.memory.owners.sent.room((self.per_hour * 3 / 4).max(1), now);
        let customers = room(&mut self.memory.customers, self.per_hour / 2).max(of_both);
        let mut earliest = u64::MAX;
        let mut chosen = None;
        let mut limited = 0;
        self.memory.queues.retain(|_, queue| !queue.is_idle(now));
        for (recipient, queue) in &mut self.memory.queues {
            let Some(ready) = queue.ready(self.ending) else { continue };
            let room = match recipient.kind {
                RecipientKind::Security => all,
                RecipientKind::Owner => owners,
                RecipientKind::Customer => customers,
            };
            let room = room.max(queue.sent.room(self.per_recipient, now));
            limited += u64::from(room > now && ready <= now);
            let due = ready.max(room);
            if due <= now {
                chosen = chosen.or_else(|| Some(recipient.clone()));
            } else {
                earliest = earliest.min(due);
            }
        }
        self.stats.limited = limited;
        let Some(to) = chosen else { return NextStep::Wait((earliest < u64::MAX).then_some(earliest)) };
        // STEP 2: a mail that was tried before comes first.
        let queue = self.memory.queues.get_mut(&to).expect("it was chosen among them");
        if let Some(tried) = queue.tried.iter().filter(|tried| tried.due <= now).min_by_key(|tried| tried.due)
        {
            return NextStep::Do(tried.mail.clone());
        }
        // STEP 3: else make the next one, which counts as tried from now on.
        let is_daily = !queue.has_new(self.ending, now);
        let (content, date_ms) = match queue.waiting.pop_front() {
            Some(Waiting { item, date_ms }) => {
                *self.buffered.of(to.kind) -= 1;
                (MailContent::Single(item), date_ms)
            }
            None if is_daily => {
                (queue.daily.last, queue.daily.is_tried) = (Some(now), true);
                let notices = std::mem::take(&mut queue.daily.notices);
                (MailContent::Daily(Arc::new(notices)), queue.daily.date_ms)
            }
            None => {
                queue.digests.add(now);
                let Collected { items, date_ms, .. } = std::mem::take(&mut queue.collected);
                (MailContent::Digest(Arc::new(items)), date_ms)
            }
        };
        self.memory.number += 1;
        let mail = QueuedMail { number: self.memory.number, to, content, date_ms };
        queue.tried.push(Tried { mail: mail.clone(), failures: 0, due: now });
        NextStep::Do(mail)
    }

    fn done(&mut self, mail: &QueuedMail, outcome: &MailOutcome, now: u64) -> Option<Settled> {
        let settled = match outcome {
            MailOutcome::Retry(_) | MailOutcome::Misconfigured(_) => {
                self.failed(mail, now);
                self.stats.misconfigured = matches!(outcome, MailOutcome::Misconfigured(_));
                return None;
            }
            MailOutcome::Sent { .. } => {
                self.stats.misconfigured = false;
                self.stats.sent += 1;
                self.stats.digests += u64::from(!matches!(mail.content, MailContent::Single(_)));
                Settled::Sent
            }
            MailOutcome::Refused(_) => {
                self.stats.refused += 1;
                Settled::GivenUp
            }
        };
        self.settle(mail, settled, now);
        self.stats.queued -= mail.content.count();
        if let MailContent::Digest(items) = &mail.content {
            *self.buffered.of(mail.to.kind) -= items.listed();
        }
        Some(settled)
    }
}

impl RecipientQueue {
    /// Queues an item. Returns how many lose their own mail to a digest by it.
    fn push(&mut self, waiting: Waiting, storm: usize, buffered: &mut usize, now: u64) -> u64 {
        // By their ticks, since ticks that are made again come faster.
        let tick = waiting.date_ms;
        while self.arrivals.front().is_some_and(|time| time + MINUTE_MS <= tick) {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(tick);
        if self.arrivals.len() > storm + 1 {
            self.arrivals.pop_front();
        }
        let calm = self.arrivals.len() <= storm && self.waiting.len() < storm && *buffered < MAX_BUFFERED;
        let is_alone = matches!(waiting.item, MailItem::Gateway(_));
        if calm && self.collected.count() == 0 || is_alone {
            self.waiting.push_back(waiting);
            *buffered += 1;
            return 0;
        }
        if self.collected.count() == 0 {
            (self.collected.since, self.collected.date_ms) = (now, waiting.date_ms);
        }
        let mut condensed = 1;
        for waiting in std::mem::take(&mut self.waiting) {
            if matches!(waiting.item, MailItem::Gateway(_)) {
                self.waiting.push_back(waiting);
                continue;
            }
            *buffered -= 1;
            condensed += 1;
            self.collected.add(waiting.item, buffered);
        }
        self.collected.date_ms = waiting.date_ms;
        self.collected.add(waiting.item, buffered);
        condensed
    }

    /// Returns when the next mail can be tried, apart from the limits, or `None` if there is none.
    fn ready(&mut self, ending: bool) -> Option<u64> {
        let again = self.tried.iter().map(|tried| tried.due).min();
        let has_room = self.tried.len() < MAX_TRIED;
        let new = self.ready_new(ending).into_iter().chain(self.daily.ready(ending)).min();
        let new = new.filter(|_| has_room).map(|new| new.max(self.pause));
        again.into_iter().chain(new).min()
    }

    /// Returns when the next single mail or digest of a storm can be tried, apart from pauses.
    fn ready_new(&mut self, ending: bool) -> Option<u64> {
        if !self.waiting.is_empty() {
            return Some(0);
        }
        if self.collected.count() == 0 {
            return None;
        }
        let since = self.collected.since;
        let before = self.digests.count(since).min(4);
        let interval = if ending { 0 } else { (MINUTE_MS << before).min(MAX_DIGEST_INTERVAL_MS) };
        Some(since + interval)
    }

    /// Returns whether a single mail or the digest of a storm is due.
    fn has_new(&mut self, ending: bool, now: u64) -> bool {
        self.ready_new(ending).is_some_and(|due| due <= now)
    }

    /// Returns the number of transitions that wait, those that are only counted included.
    fn count(&self) -> u64 {
        let tried: u64 = self.tried.iter().map(|tried| tried.mail.content.count()).sum();
        self.waiting.len() as u64 + self.collected.count() + self.daily.notices.count + tried
    }

    /// Returns the number of transitions that are held for single mails and digests that aren't daily.
    fn buffered(&self) -> usize {
        let of_tried = |tried: &Tried| match &tried.mail.content {
            MailContent::Digest(items) => items.listed(),
            MailContent::Single(_) | MailContent::Daily(_) => 0,
        };
        let tried: usize = self.tried.iter().map(of_tried).sum();
        self.waiting.len() + self.collected.items.listed() + tried
    }

    fn is_idle(&mut self, now: u64) -> bool {
        self.waiting.is_empty()
            && self.tried.is_empty()
            && self.collected.count() == 0
            && self.daily.notices.count == 0
            && self.daily.last.is_none_or(|last| last + DAY_MS <= now)
            && self.sent.count(now) == 0
    }
}

impl Collected {
    fn count(&self) -> u64 {
        self.items.count()
    }

    /// Adds a transition or a change. If there is no room for it, the one that matters least is only counted.
    fn add(&mut self, item: MailItem, buffered: &mut usize) {
        let DigestItems { incidents, more, actions, more_actions, held, quotas, more_quotas } =
            &mut self.items;
        let has_room = |listed: usize, buffered: &usize| {
            listed == 0 || listed < MAX_COLLECTED && *buffered < MAX_BUFFERED
        };
        match item {
            MailItem::Incident(transition, planned) => {
                *held += u64::from(planned.as_ref().is_some_and(|planned| planned.begins_to_wait()));
                if has_room(incidents.len(), buffered) {
                    incidents.push((condensed(&transition), planned));
                    *buffered += 1;
                    return;
                }
                *more += 1;
                let least = incidents.iter_mut().min_by_key(|(other, _)| rank(other));
                if let Some(least) = least.filter(|(other, _)| rank(other) < rank(&transition)) {
                    *least = (condensed(&transition), planned);
                }
            }
            MailItem::Action(notice) => {
                *held += u64::from(notice.state == ActionState::Held);
                if has_room(actions.len(), buffered) {
                    actions.push(notice);
                    *buffered += 1;
                    return;
                }
                *more_actions += 1;
                let least = actions.iter_mut().max_by_key(|other| weight(other.state));
                if let Some(least) = least.filter(|other| weight(other.state) > weight(notice.state)) {
                    *least = notice;
                }
            }
            MailItem::Quota(row) => {
                if has_room(quotas.len(), buffered) {
                    quotas.push(row);
                    *buffered += 1;
                    return;
                }
                *more_quotas += 1;
                let least = quotas.iter_mut().min_by_key(|other| other.permille);
                if let Some(least) = least.filter(|other| other.permille < row.permille) {
                    *least = row;
                }
            }
            // It has a mail of its own, see `push`.
            MailItem::Gateway(_) => {}
        }
    }
}
