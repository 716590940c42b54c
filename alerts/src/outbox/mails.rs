//! Which mail goes to whom next, and when: a state without clock, network or chance, so that a test can be its world.
//!
//! Each recipient has a queue:
//!
//! ```text
//!             calm                          one mail each
//! notice ──> waiting ───────────────────────────┬──> tried ──> sent, refused
//!               │ more than digest_after         │    ^  │
//!               v within a minute, or waiting    │    └──┘ again, as it was
//!            collected ─────── one digest ───────┘
//! ```
//! * A mail that was tried stays as it is, also a digest: whatever became of the attempt, the next one is the same mail
//!   with the same Message-ID.
//! * Digests of one recipient are a minute apart, then two, four, up to 15 while it goes on; so a storm is told of
//!   within the limits of an hour.
//! * A recipient whose mail failed is left alone for a while; after 8 failures of one mail the next one is tried.
//! * When mails to owners fail one after the other, none of them is tried for a while: the server is away, and there may
//!   be thousands of them.
//! * Security goes before owners, and owners take at most three quarters of `per_hour`.
//! * The same transition is told once, however often it is handed over, as long as it is among the last 65,536.
//!
//! Limits: 4,096 transitions that wait by themselves, 2,000 in a digest, 16 mails that were tried, for each recipient;
//! 8,192 and 10,000 recipients in all, so at
//! most one more for each of these. Beyond them a digest keeps those that matter most and says how many more there
//! were; owners beyond the limit are counted as untold.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use keytide_config::EmailAlerts;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::Transition;
use keytide_dataflow::model::time::MINUTE_MS;

use super::pace::{Hour, Jitter, backoff_ms};
use super::{Next, Stats};
use crate::email::{Audience, Outcome, Planned};

const MAX_WAITING: usize = 4_096;
const MAX_COLLECTED: usize = 2_000;
const MAX_HELD: usize = 8_192;
const MAX_TRIED: usize = 16;
const MAX_RECIPIENTS: usize = 10_000;
const MAX_SEEN: usize = 65_536;
/// Failures after which others are tried before a mail.
const STUBBORN: u32 = 8;
/// Owners' mails that fail one after the other before none is tried for a while.
const FEW: u32 = 3;
/// How long it is put aside for them.
const ASIDE_MS: u64 = 5 * MINUTE_MS;
/// The longest time between two digests.
const DIGESTS_MS: u64 = 15 * MINUTE_MS;

/// Who is told, and as what. Security comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Recipient {
    pub(super) audience: Audience,
    pub(super) address: String,
}

/// What a mail says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// One transition, and what is done about it.
    Single(Arc<Transition>, Option<Arc<Planned>>),
    /// Many, and how many more there were.
    Digest(Arc<[Arc<Transition>]>, u64),
}

impl Content {
    /// Transitions that it tells of.
    fn count(&self) -> u64 {
        match self {
            Self::Single(..) => 1,
            Self::Digest(transitions, more) => transitions.len() as u64 + more,
        }
    }

    fn listed(&self) -> usize {
        match self {
            Self::Single(..) => 1,
            Self::Digest(transitions, _) => transitions.len(),
        }
    }
}

/// A mail to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mail {
    pub(super) number: u64,
    pub(super) to: Recipient,
    pub(super) content: Content,
    /// Milliseconds since 1970.
    pub(super) date_ms: u64,
}

struct Tried {
    mail: Mail,
    failures: u32,
    due: u64,
}

struct Waiting {
    transition: Arc<Transition>,
    planned: Option<Arc<Planned>>,
    date_ms: u64,
}

#[derive(Default)]
struct Collected {
    transitions: Vec<Arc<Transition>>,
    more: u64,
    since: u64,
    date_ms: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    collected: Collected,
    tried: Vec<Tried>,
    /// When transitions arrived within the last minute, one more than makes a storm.
    arrivals: VecDeque<u64>,
    sent: Hour,
    digests: Hour,
    failures: u32,
    /// Nothing new is tried before.
    pause: u64,
}

/// All mails that are to be sent.
pub(super) struct Mails {
    per_recipient: usize,
    per_hour: usize,
    storm: usize,
    security: Vec<String>,
    owners: bool,
    queues: BTreeMap<Recipient, Queue>,
    sent: Hour,
    sent_to_owners: Hour,
    /// Mails to owners that failed one after the other, and until when none is tried for it.
    away: u32,
    away_until: u64,
    seen: HashSet<(Box<str>, u32)>,
    seen_order: VecDeque<(Box<str>, u32)>,
    /// Transitions that wait or are collected or in digests.
    held: usize,
    number: u64,
    /// The process ends: nothing waits for more.
    ending: bool,
    jitter: Jitter,
    stats: Stats,
}

/// A transition without what digests don't show.
fn condensed(transition: &Transition) -> Arc<Transition> {
    let mut transition = transition.clone();
    transition.evidence.traffic = Vec::new();
    transition.evidence.samples = Vec::new();
    Arc::new(transition)
}

/// What a digest keeps rather: what began before what is over, then levels and scores.
fn value(transition: &Transition) -> (bool, bool, u8) {
    let over = matches!(transition.transition, Change::Ended | Change::Withdrawn);
    (!over, transition.level == "revoke", transition.score)
}

impl Mails {
    pub(super) fn new(email: &EmailAlerts, jitter: Jitter) -> Self {
        Self {
            per_recipient: email.per_recipient as usize,
            per_hour: email.per_hour as usize,
            storm: (email.digest_after as usize).min(MAX_WAITING),
            security: email.to.clone(),
            owners: email.owners,
            queues: BTreeMap::new(),
            sent: Hour::default(),
            sent_to_owners: Hour::default(),
            away: 0,
            away_until: 0,
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            held: 0,
            number: 0,
            ending: false,
            jitter,
            stats: Stats::default(),
        }
    }

    /// Takes what is to be told. `now` is any clock in milliseconds, `date_ms` what a mail is dated.
    pub(super) fn push(
        &mut self,
        transition: Transition,
        planned: Option<Planned>,
        contacts: &[String],
        now: u64,
        date_ms: u64,
    ) {
        let identity = (transition.incident_id.as_str().into(), transition.seq);
        if !self.seen.insert(identity.clone()) {
            return;
        }
        self.seen_order.push_back(identity);
        if self.seen_order.len() > MAX_SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let (transition, planned) = (Arc::new(transition), planned.map(Arc::new));
        let owners = if self.owners { contacts } else { &[] };
        let recipients: Vec<Recipient> =
            [(Audience::Security, self.security.as_slice()), (Audience::Owner, owners)]
                .into_iter()
                .flat_map(|(audience, addresses)| {
                    addresses.iter().map(move |address| Recipient { audience, address: address.clone() })
                })
                .collect();
        for recipient in recipients {
            if self.queues.len() >= MAX_RECIPIENTS && !self.queues.contains_key(&recipient) {
                self.stats.untold += 1;
                continue;
            }
            let waiting = Waiting { transition: transition.clone(), planned: planned.clone(), date_ms };
            let queue = self.queues.entry(recipient).or_default();
            self.stats.queued += 1;
            self.stats.condensed += queue.push(waiting, self.storm, &mut self.held, now);
        }
    }

    /// Everything that waits for a time is due, apart from the limits.
    pub(super) fn hurry(&mut self, now: u64) {
        (self.ending, self.away_until) = (true, now);
        for queue in self.queues.values_mut() {
            queue.pause = now;
            queue.tried.iter_mut().for_each(|tried| tried.due = now);
        }
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// What to do at `now`. Each mail that is handed out is to be followed by [`Self::done`].
    pub(super) fn next(&mut self, now: u64) -> Next<Mail> {
        let all = self.sent.room(self.per_hour, now);
        let owners = (self.per_hour * 3 / 4).max(1);
        let owners = self.sent_to_owners.room(owners, now).max(all).max(self.away_until);
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
        let Some(to) = chosen else { return Next::Wait((earliest < u64::MAX).then_some(earliest)) };
        let queue = self.queues.get_mut(&to).expect("it was chosen among them");
        if let Some(tried) = queue.tried.iter().filter(|tried| tried.due <= now).min_by_key(|tried| tried.due)
        {
            return Next::Do(tried.mail.clone());
        }
        let (content, date_ms) = match queue.waiting.pop_front() {
            Some(Waiting { transition, planned, date_ms }) => {
                self.held -= 1;
                (Content::Single(transition, planned), date_ms)
            }
            None => {
                queue.digests.add(now);
                let Collected { transitions, more, date_ms, .. } = std::mem::take(&mut queue.collected);
                (Content::Digest(transitions.into(), more), date_ms)
            }
        };
        self.number += 1;
        let mail = Mail { number: self.number, to, content, date_ms };
        queue.tried.push(Tried { mail: mail.clone(), failures: 0, due: now });
        Next::Do(mail)
    }

    /// What became of a mail.
    pub(super) fn done(&mut self, mail: &Mail, outcome: &Outcome, now: u64) {
        let queue = self.queues.get_mut(&mail.to).expect("a mail that was tried keeps its queue");
        let index = queue.tried.iter().position(|tried| tried.mail.number == mail.number);
        let index = index.expect("a mail that was handed out was tried");
        match outcome {
            Outcome::Retry(_) | Outcome::Misconfigured(_) => {
                let tried = &mut queue.tried[index];
                tried.failures = tried.failures.saturating_add(1);
                queue.failures = queue.failures.saturating_add(1);
                queue.pause = now + backoff_ms(queue.failures, &mut self.jitter);
                let stubborn = tried.failures.is_multiple_of(STUBBORN);
                tried.due = queue.pause + if stubborn { ASIDE_MS } else { 0 };
                self.stats.retried += 1;
                self.stats.misconfigured = matches!(outcome, Outcome::Misconfigured(_));
                if mail.to.audience == Audience::Owner {
                    self.away = self.away.saturating_add(1);
                    let failures = self.away.saturating_sub(FEW);
                    let wait = if failures > 0 { backoff_ms(failures, &mut self.jitter) } else { 0 };
                    self.away_until = now + wait;
                }
                return;
            }
            Outcome::Sent { .. } => {
                (queue.failures, queue.pause) = (0, now);
                (self.away, self.away_until) = (0, now);
                queue.sent.add(now);
                self.sent.add(now);
                if mail.to.audience == Audience::Owner {
                    self.sent_to_owners.add(now);
                }
                self.stats.misconfigured = false;
                self.stats.sent += 1;
                self.stats.digests += u64::from(matches!(mail.content, Content::Digest(..)));
            }
            Outcome::Refused(_) => self.stats.refused += 1,
        }
        queue.tried.swap_remove(index);
        self.stats.queued -= mail.content.count();
        if let Content::Digest(..) = mail.content {
            self.held -= mail.content.listed();
        }
    }
}

impl Queue {
    /// Returns how many transitions lost their own mail by it.
    fn push(&mut self, waiting: Waiting, storm: usize, held: &mut usize, now: u64) -> u64 {
        while self.arrivals.front().is_some_and(|time| time + MINUTE_MS <= now) {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(now);
        if self.arrivals.len() > storm + 1 {
            self.arrivals.pop_front();
        }
        let calm = self.arrivals.len() <= storm && self.waiting.len() < storm && *held < MAX_HELD;
        if calm && self.collected.count() == 0 {
            self.waiting.push_back(waiting);
            *held += 1;
            return 0;
        }
        if self.collected.count() == 0 {
            (self.collected.since, self.collected.date_ms) = (now, waiting.date_ms);
        }
        let mut condensed = 1;
        for waiting in self.waiting.drain(..) {
            *held -= 1;
            condensed += 1;
            self.collected.add(&waiting.transition, held);
        }
        self.collected.date_ms = waiting.date_ms;
        self.collected.add(&waiting.transition, held);
        condensed
    }

    /// When there is something to be tried.
    fn ready(&mut self, ending: bool) -> Option<u64> {
        let again = self.tried.iter().map(|tried| tried.due).min();
        let new = match (self.tried.len() < MAX_TRIED, self.waiting.is_empty(), self.collected.count()) {
            (false, ..) | (true, true, 0) => None,
            (true, false, _) => Some(self.pause),
            (true, true, _) => {
                let since = self.collected.since;
                let before = self.digests.count(since).min(4);
                let interval = if ending { 0 } else { (MINUTE_MS << before).min(DIGESTS_MS) };
                Some(self.pause.max(since + interval))
            }
        };
        again.into_iter().chain(new).min()
    }

    fn is_idle(&mut self, now: u64) -> bool {
        self.waiting.is_empty()
            && self.tried.is_empty()
            && self.collected.count() == 0
            && self.sent.count(now) == 0
    }
}

impl Collected {
    fn count(&self) -> u64 {
        self.transitions.len() as u64 + self.more
    }

    fn add(&mut self, transition: &Transition, held: &mut usize) {
        let room = self.transitions.len() < MAX_COLLECTED && *held < MAX_HELD;
        if room || self.transitions.is_empty() {
            self.transitions.push(condensed(transition));
            *held += 1;
            return;
        }
        self.more += 1;
        let least = self.transitions.iter_mut().min_by_key(|other| value(other));
        if let Some(least) = least.filter(|least| value(least) < value(transition)) {
            *least = condensed(transition);
        }
    }
}
