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
//!   may be thousands.
//! * Security comes before owners, and owners get at most three quarters of `per_hour`.
//! * Owners are told of the opening and of the end (or the withdrawal) of an incident, not of what is between. If it
//!   opened as a notice, the rise out of that is its opening for them.
//! * A repeat (see `is_repeat`) is no mail. A notice (see `is_notice`) is a line of security's daily digest, one for each
//!   incident, by its newest transition. That digest leaves a day after its first line, never within 24 hours of the one
//!   before. At the end of the process it doesn't wait for its day to be over, but keeps that distance.
//! * A transition that is pushed again is ignored if it is among the last 65,536.
//!
//! Limits: 4,096 waiting transitions, 2,000 in a digest of either kind and 16 tried mails for each recipient; 10,000
//! recipients and 8,192 buffered transitions in all. Beyond the last, a recipient's digest still takes one. Beyond its
//! limits a digest keeps the transitions that matter most and counts the others; owners beyond theirs are counted as
//! `untold`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use keytide_config::EmailAlerts;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};

use super::pace::{Jitter, SlidingHour, backoff_ms};
use super::{NextStep, OutboundQueue, QueueStats, is_notice, is_repeat};
use crate::email::{Audience, MailOutcome, PlannedAction, is_over};

const MAX_WAITING: usize = 4_096;
const MAX_COLLECTED: usize = 2_000;
const MAX_BUFFERED: usize = 8_192;
const MAX_TRIED: usize = 16;
const MAX_RECIPIENTS: usize = 10_000;
const MAX_SEEN: usize = 65_536;
/// Failures of one mail after which the recipient's next mail is tried before it.
const MAX_BLOCKING_FAILURES: u32 = 8;
/// Consecutive failures of mails to owners after which all of them are paused.
const MAX_OWNER_FAILURES: u32 = 3;
/// How long a mail with too many failures is set aside.
const SET_ASIDE_MS: u64 = 5 * MINUTE_MS;
/// The longest time between two digests of one recipient.
const MAX_DIGEST_INTERVAL_MS: u64 = 15 * MINUTE_MS;

/// An address and the role in which it gets mails. Security sorts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recipient {
    pub(super) audience: Audience,
    pub(super) address: String,
}

/// The content of a queued mail, before it is composed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MailContent {
    Single(Arc<TransitionJson>, Option<Arc<PlannedAction>>),
    /// Lists transitions and counts further ones that weren't kept.
    Digest(Arc<[Arc<TransitionJson>]>, u64),
    /// Lists the notices of a day.
    Daily(Arc<Notices>),
}

/// The notices of a day: calls of revoked keys that were refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Notices {
    /// The newest transition of each incident, by its identity.
    pub(super) lines: BTreeMap<String, Arc<TransitionJson>>,
    /// Counts the transitions of incidents for which there is no room.
    pub(super) more: u64,
    /// Counts all transitions, those that a newer one of their incident replaced included.
    count: u64,
}

impl MailContent {
    /// Returns the number of transitions that the mail lists or counts.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Single(..) => 1,
            Self::Digest(transitions, more) => transitions.len() as u64 + more,
            Self::Daily(notices) => notices.count,
        }
    }
}

/// A mail to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueuedMail {
    pub(super) number: u64,
    pub(super) to: Recipient,
    pub(super) content: MailContent,
    pub(super) date_ms: u64,
}

struct Tried {
    mail: QueuedMail,
    failures: u32,
    due: u64,
}

struct Waiting {
    transition: Arc<TransitionJson>,
    planned: Option<Arc<PlannedAction>>,
    date_ms: u64,
}

#[derive(Default)]
struct Collected {
    transitions: Vec<Arc<TransitionJson>>,
    more: u64,
    since: u64,
    date_ms: u64,
}

/// The daily digest of one recipient.
#[derive(Default)]
struct Daily {
    notices: Notices,
    since: u64,
    date_ms: u64,
    /// When the last one was handed out or sent.
    last: Option<u64>,
    /// True while one is tried: the next must not overtake it.
    is_tried: bool,
}

#[derive(Default)]
struct RecipientQueue {
    waiting: VecDeque<Waiting>,
    collected: Collected,
    daily: Daily,
    tried: Vec<Tried>,
    /// The times of arrivals within the last minute, at most one more than a storm needs.
    arrivals: VecDeque<u64>,
    sent: SlidingHour,
    digests: SlidingHour,
    failures: u32,
    /// No new mail is tried before this time.
    pause: u64,
}

/// All mails that are to be sent, by recipient.
pub(super) struct MailQueue {
    per_recipient: usize,
    per_hour: usize,
    storm: usize,
    security: Vec<String>,
    owners: bool,
    queues: BTreeMap<Recipient, RecipientQueue>,
    sent: SlidingHour,
    sent_to_owners: SlidingHour,
    /// Mails to owners that failed in a row.
    owner_failures: u32,
    /// Mails to owners aren't tried before this time.
    owners_paused_until: u64,
    seen: Recent<(Box<str>, u32)>,
    /// Incidents of which owners were told.
    told_owners: Recent<Box<str>>,
    /// Transitions that are waiting, collected or in tried digests.
    buffered: usize,
    number: u64,
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

/// Returns the queue of a recipient for one more transition; `None` if there are too many recipients. Counts either.
fn queue_of<'a>(
    queues: &'a mut BTreeMap<Recipient, RecipientQueue>,
    recipient: Recipient,
    stats: &mut QueueStats,
) -> Option<&'a mut RecipientQueue> {
    if queues.len() >= MAX_RECIPIENTS && !queues.contains_key(&recipient) {
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
            queues: BTreeMap::new(),
            sent: SlidingHour::default(),
            sent_to_owners: SlidingHour::default(),
            owner_failures: 0,
            owners_paused_until: 0,
            seen: Recent::default(),
            told_owners: Recent::default(),
            buffered: 0,
            number: 0,
            ending: false,
            jitter,
            stats: QueueStats::default(),
        }
    }

    /// Queues a transition for all of its recipients. `now` is in milliseconds of any clock; mails bear `date_ms`.
    pub(super) fn push(
        &mut self,
        transition: TransitionJson,
        planned: Option<PlannedAction>,
        contacts: &[String],
        now: u64,
        date_ms: u64,
    ) {
        // STEP 1: ignore a transition that was pushed before, or of which people know.
        if !self.seen.insert((transition.incident_id.as_str().into(), transition.seq)) {
            return;
        }
        if is_notice(&transition) {
            self.collect_notice(transition, now, date_ms);
            return;
        }
        if is_repeat(&transition) {
            return;
        }
        // STEP 2: find the recipients, which share the transition.
        let owners = if self.owners && self.concerns_owners(&transition) { contacts } else { &[] };
        let (transition, planned) = (Arc::new(transition), planned.map(Arc::new));
        let recipients: Vec<Recipient> =
            [(Audience::Security, self.security.as_slice()), (Audience::Owner, owners)]
                .into_iter()
                .flat_map(|(audience, addresses)| {
                    addresses.iter().map(move |address| Recipient { audience, address: address.clone() })
                })
                .collect();
        // STEP 3: queue it for each, unless there are too many of them.
        for recipient in recipients {
            let Some(queue) = queue_of(&mut self.queues, recipient, &mut self.stats) else { continue };
            let waiting = Waiting { transition: transition.clone(), planned: planned.clone(), date_ms };
            self.stats.condensed += queue.push(waiting, self.storm, &mut self.buffered, now);
        }
    }

    /// Returns whether owners are told of a transition: of the first that is more than a notice, and of the end.
    fn concerns_owners(&mut self, transition: &TransitionJson) -> bool {
        let is_first = self.told_owners.insert(transition.incident_id.as_str().into());
        match transition.transition {
            Change::Opened | Change::Ended | Change::Withdrawn => true,
            Change::Raised => is_first,
            Change::Updated | Change::Reopened => false,
        }
    }

    /// Adds a notice to security's daily digests.
    fn collect_notice(&mut self, mut transition: TransitionJson, now: u64, date_ms: u64) {
        // The samples stay, as they say who calls.
        transition.evidence.traffic = Vec::new();
        let transition = Arc::new(transition);
        for address in &self.security {
            let recipient = Recipient { audience: Audience::Security, address: address.clone() };
            let Some(queue) = queue_of(&mut self.queues, recipient, &mut self.stats) else { continue };
            let daily = &mut queue.daily;
            if daily.notices.count == 0 {
                daily.since = now;
            }
            daily.date_ms = date_ms;
            daily.notices.add(&transition);
            self.stats.condensed += 1;
        }
    }
}

/// The last [`MAX_SEEN`] values, each of them once.
struct Recent<T> {
    values: HashSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), order: VecDeque::new() }
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

    /// Ends all pauses and the intervals of digests. The hourly limits stay.
    fn hurry(&mut self, now: u64) {
        (self.ending, self.owners_paused_until) = (true, now);
        for queue in self.queues.values_mut() {
            queue.pause = now;
            queue.tried.iter_mut().for_each(|tried| tried.due = now);
        }
    }

    fn stats(&self) -> QueueStats {
        self.stats
    }

    fn next(&mut self, now: u64) -> NextStep<QueuedMail> {
        // STEP 1: find the first recipient with a due mail and room within all limits, or the earliest time for one.
        let all = self.sent.room(self.per_hour, now);
        let owners = (self.per_hour * 3 / 4).max(1);
        let owners = self.sent_to_owners.room(owners, now).max(all).max(self.owners_paused_until);
        let mut earliest = u64::MAX;
        let mut chosen = None;
        let mut limited = 0;
        self.queues.retain(|_, queue| !queue.is_idle(now));
        for (recipient, queue) in &mut self.queues {
            let Some(ready) = queue.ready(self.ending) else { continue };
            let room = match recipient.audience {
                Audience::Security => all,
                Audience::Owner => owners,
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
        let queue = self.queues.get_mut(&to).expect("it was chosen among them");
        if let Some(tried) = queue.tried.iter().filter(|tried| tried.due <= now).min_by_key(|tried| tried.due)
        {
            return NextStep::Do(tried.mail.clone());
        }
        // STEP 3: else make the next one, which counts as tried from now on.
        let is_daily = !queue.has_new(self.ending, now);
        let (content, date_ms) = match queue.waiting.pop_front() {
            Some(Waiting { transition, planned, date_ms }) => {
                self.buffered -= 1;
                (MailContent::Single(transition, planned), date_ms)
            }
            None if is_daily => {
                (queue.daily.last, queue.daily.is_tried) = (Some(now), true);
                let notices = std::mem::take(&mut queue.daily.notices);
                (MailContent::Daily(Arc::new(notices)), queue.daily.date_ms)
            }
            None => {
                queue.digests.add(now);
                let Collected { transitions, more, date_ms, .. } = std::mem::take(&mut queue.collected);
                (MailContent::Digest(transitions.into(), more), date_ms)
            }
        };
        self.number += 1;
        let mail = QueuedMail { number: self.number, to, content, date_ms };
        queue.tried.push(Tried { mail: mail.clone(), failures: 0, due: now });
        NextStep::Do(mail)
    }

    fn done(&mut self, mail: &QueuedMail, outcome: &MailOutcome, now: u64) {
        let queue = self.queues.get_mut(&mail.to).expect("a mail that was tried keeps its queue");
        let index = queue.tried.iter().position(|tried| tried.mail.number == mail.number);
        let index = index.expect("a mail that was handed out was tried");
        match outcome {
            MailOutcome::Retry(_) | MailOutcome::Misconfigured(_) => {
                let tried = &mut queue.tried[index];
                tried.failures = tried.failures.saturating_add(1);
                queue.failures = queue.failures.saturating_add(1);
                queue.pause = now + backoff_ms(queue.failures, &mut self.jitter);
                let stubborn = tried.failures.is_multiple_of(MAX_BLOCKING_FAILURES);
                tried.due = queue.pause + if stubborn { SET_ASIDE_MS } else { 0 };
                self.stats.retried += 1;
                self.stats.misconfigured = matches!(outcome, MailOutcome::Misconfigured(_));
                if mail.to.audience == Audience::Owner {
                    self.owner_failures = self.owner_failures.saturating_add(1);
                    let failures = self.owner_failures.saturating_sub(MAX_OWNER_FAILURES);
                    let wait = if failures > 0 { backoff_ms(failures, &mut self.jitter) } else { 0 };
                    self.owners_paused_until = now + wait;
                }
                return;
            }
            MailOutcome::Sent { .. } => {
                (queue.failures, queue.pause) = (0, now);
                (self.owner_failures, self.owners_paused_until) = (0, now);
                queue.sent.add(now);
                self.sent.add(now);
                if mail.to.audience == Audience::Owner {
                    self.sent_to_owners.add(now);
                }
                self.stats.misconfigured = false;
                self.stats.sent += 1;
                self.stats.digests += u64::from(!matches!(mail.content, MailContent::Single(..)));
            }
            MailOutcome::Refused(_) => self.stats.refused += 1,
        }
        queue.tried.swap_remove(index);
        self.stats.queued -= mail.content.count();
        match &mail.content {
            MailContent::Single(..) => {}
            MailContent::Digest(transitions, _) => self.buffered -= transitions.len(),
            MailContent::Daily(_) => (queue.daily.last, queue.daily.is_tried) = (Some(now), false),
        }
    }
}

impl RecipientQueue {
    /// Queues a transition. Returns how many transitions lose their own mail to a digest by it.
    fn push(&mut self, waiting: Waiting, storm: usize, buffered: &mut usize, now: u64) -> u64 {
        while self.arrivals.front().is_some_and(|time| time + MINUTE_MS <= now) {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(now);
        if self.arrivals.len() > storm + 1 {
            self.arrivals.pop_front();
        }
        let calm = self.arrivals.len() <= storm && self.waiting.len() < storm && *buffered < MAX_BUFFERED;
        if calm && self.collected.count() == 0 {
            self.waiting.push_back(waiting);
            *buffered += 1;
            return 0;
        }
        if self.collected.count() == 0 {
            (self.collected.since, self.collected.date_ms) = (now, waiting.date_ms);
        }
        let mut condensed = 1;
        for waiting in self.waiting.drain(..) {
            *buffered -= 1;
            condensed += 1;
            self.collected.add(&waiting.transition, buffered);
        }
        self.collected.date_ms = waiting.date_ms;
        self.collected.add(&waiting.transition, buffered);
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
        self.transitions.len() as u64 + self.more
    }

    fn add(&mut self, transition: &TransitionJson, buffered: &mut usize) {
        let room = self.transitions.len() < MAX_COLLECTED && *buffered < MAX_BUFFERED;
        if room || self.transitions.is_empty() {
            self.transitions.push(condensed(transition));
            *buffered += 1;
            return;
        }
        self.more += 1;
        let least = self.transitions.iter_mut().min_by_key(|other| rank(other));
        if let Some(least) = least.filter(|least| rank(least) < rank(transition)) {
            *least = condensed(transition);
        }
    }
}
