//! The standing of one subscription: its limits, what is booked, and what isn't booked yet.
//!
//! ```text
//! used now = booked(through W) + max(rows of minutes since W, checks admitted since W - 2 s) + open reservations
//! ```
//! `W` is the watermark of the last tick. If rows show use of minutes that ended since the last row of `quota`, that row is
//! still to come, and `W` is the older one's: the view publishes so many rows a tick and no more. It is waited for
//! [`HOLD_MS`].
//!
//! Rows and admitted checks are lower bounds of the same calls, so they aren't added up. Quotas of a second count checks
//! alone, as no row is that short. Those of a minute and an hour are of rows of minutes instead of bookings. A quota of
//! cost counts what is booked: which price later use has isn't known before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use keytide_billing::{
    Anchor, BilledUse, Calendar, Measure, Period, PeriodKind, PeriodSetting, Periods, QuotaLimit,
    QuotaStanding,
};
use keytide_dataflow::ZoneCalendars;
use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS, SECOND_MS};
use keytide_dataflow::model::{EventTime, KeyId, NameId, QuotaHolder, SubscriptionRow};

use super::facts::{BookedUse, MinuteUse};
use super::limits::{LimitRows, limits_in_force};
use super::spent::{SKEW_MS, Spent, minus, plus};

/// How long a reservation holds.
pub const RESERVATION_MS: u64 = MINUTE_MS;
/// The most reservations of a subscription in that time. A further check counts as admitted at once.
const RESERVATIONS: usize = 65_536;
/// How long a row of `quota` may be behind.
const HOLD_MS: u64 = 3 * MINUTE_MS;
/// The most minutes with rows: those of an hour, and what clocks that run ahead add.
const MINUTES: usize = 256;
/// How much earlier than the question before it a question may have looked at the clock.
const OVERTAKEN_MS: u64 = 10 * SECOND_MS;
/// The most settings of a subscription: what was long ago has no period that runs.
const TERMS: usize = 64;

/// A subscription's plan, zone and anchor, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// `None` is since ever.
    pub(super) valid_from: Option<EventTime>,
    pub(super) customer: NameId,
    pub(super) plan: NameId,
    pub(super) calendar: Arc<Calendar>,
    pub(super) anchor: Anchor,
}

impl Terms {
    /// Returns what a row of the table of subscriptions says.
    pub(super) fn of(row: &SubscriptionRow, zones: &mut ZoneCalendars) -> Self {
        Self {
            valid_from: row.valid_from,
            customer: row.customer,
            plan: row.plan,
            calendar: zones.get(row.time_zone),
            anchor: Anchor::try_from(row.billing_anchor).unwrap_or(Anchor::FIRST),
        }
    }
}

/// How much a check asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedUse {
    /// Calls and the estimate of what else they use.
    pub used: BilledUse,
    /// True if the use is settled later.
    pub is_reserved: bool,
}

/// A quota as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaAnswer {
    pub measure: Measure,
    pub period: PeriodKind,
    /// When the running period began, in ms since the epoch.
    pub start_ms: u64,
    /// With the use that the check was allowed.
    pub standing: QuotaStanding,
    /// True if the check was denied because of it.
    pub is_exceeded: bool,
}

/// A limit that is in force, and its running period.
#[derive(Clone, Debug)]
struct Limit {
    measure: Measure,
    kind: PeriodKind,
    quota: QuotaLimit,
    period: Period,
}

/// The limits in force, and when they must be made anew.
#[derive(Debug, Default)]
struct InForce {
    revision: u64,
    from_ms: u64,
    /// 0 if they must be made.
    until_ms: u64,
    limits: Vec<Limit>,
}

/// Use of all keys in one minute.
#[derive(Debug, Default)]
struct MinuteSum {
    sum: BilledUse,
    /// Empty once the minute is booked.
    by_key: HashMap<KeyId, BilledUse>,
}

/// A reservation that may still be settled.
#[derive(Clone, Copy, Debug)]
struct OpenReservation {
    made_ms: u64,
    used: BilledUse,
}

/// The instants of a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instants {
    pub(super) now_ms: u64,
    /// All minutes before are booked.
    pub(super) through_ms: u64,
}

impl Instants {
    /// The instant from which on admitted checks may not be booked.
    fn unbooked_ms(self) -> u64 {
        self.through_ms.saturating_sub(SKEW_MS)
    }
}

/// The standing of one subscription.
#[derive(Debug)]
pub(super) struct Standing {
    subscription: NameId,
    /// The time of the newest question.
    asked_ms: u64,
    /// By their dates. Empty if the table doesn't have the subscription.
    terms: Vec<Terms>,
    in_force: InForce,
    booked: Vec<BookedUse>,
    /// The watermark of the newest row of `quota`.
    booked_through_ms: u64,
    minutes: BTreeMap<u64, MinuteSum>,
    spent: Spent,
    reservations: HashMap<u64, OpenReservation>,
    /// When reservations end, and their numbers, ascending.
    ends: VecDeque<(u64, u64)>,
}

impl Standing {
    pub(super) fn new(subscription: NameId) -> Self {
        Self {
            subscription,
            asked_ms: 0,
            terms: Vec::new(),
            in_force: InForce::default(),
            booked: Vec::new(),
            booked_through_ms: 0,
            minutes: BTreeMap::new(),
            spent: Spent::default(),
            reservations: HashMap::new(),
            ends: VecDeque::new(),
        }
    }

    pub(super) fn subscription(&self) -> NameId {
        self.subscription
    }

    /// Returns whether the table has the subscription.
    pub(super) fn is_known(&self) -> bool {
        !self.terms.is_empty()
    }

    /// Returns the customer of the newest row.
    pub(super) fn customer(&self) -> NameId {
        self.terms.last().map_or(NameId::NONE, |terms| terms.customer)
    }

    /// Forgets all rows of the table of subscriptions.
    pub(super) fn end(&mut self) {
        self.terms.clear();
        self.in_force.until_ms = 0;
    }

    /// Takes a row of the table of subscriptions. An undated one takes the place of all. If it has another zone or
    /// anchor, these take effect when the running billing period ends.
    pub(super) fn put(&mut self, row: Terms, now_ms: u64) {
        let mut row = row;
        let is_same = |old: &Terms| (&old.calendar, old.anchor) == (&row.calendar, row.anchor);
        if row.valid_from.is_none() {
            match self.terms.pop() {
                Some(old) if !is_same(&old) => {
                    let (plan, customer) = (row.plan, row.customer);
                    row.valid_from = Some(now_ms);
                    self.terms = vec![Terms { valid_from: None, plan, customer, ..old }];
                }
                _ => self.terms.clear(),
            }
        }
        self.terms.retain(|old| old.valid_from != row.valid_from);
        let place = self.terms.partition_point(|old| old.valid_from < row.valid_from);
        self.terms.insert(place, row);
        if self.terms.len() > TERMS {
            self.terms.remove(0);
        }
        self.in_force.until_ms = 0;
    }

    /// Takes a row of the view `quota` and the watermark of its tick. Of a measure and a kind of periods the newest two periods are kept.
    pub(super) fn book(&mut self, row: BookedUse, through_ms: u64) {
        self.booked_through_ms = self.booked_through_ms.max(through_ms);
        let kind = |row: &BookedUse| (row.quota.measure, row.quota.period);
        match self.booked.iter_mut().find(|known| known.quota == row.quota) {
            Some(known) => *known = row,
            None => {
                self.booked.push(row);
                let starts = self.booked.iter().filter(|known| kind(known) == kind(&row));
                let starts: Vec<u64> = starts.map(|known| known.quota.start_ms).collect();
                if starts.len() > 2 {
                    let oldest = starts.into_iter().min().unwrap_or(0);
                    self.booked.retain(|known| kind(known) != kind(&row) || known.quota.start_ms != oldest);
                }
                // The row says when its period begins and ends.
                self.in_force.until_ms = 0;
            }
        }
    }

    /// Takes a row of the view `usage` of a minute. Of a minute that is booked already it changes nothing.
    /// Nothing is kept for a subscription without limits.
    pub(super) fn count(&mut self, row: &MinuteUse, (rows, at): (&LimitRows, Instants)) {
        let at = self.advance(at);
        self.refresh(rows, at.now_ms);
        let is_booked = row.start_ms.saturating_add(MINUTE_MS) <= at.through_ms;
        let is_full = self.minutes.len() >= MINUTES && !self.minutes.contains_key(&row.start_ms);
        if is_booked || is_full || self.in_force.limits.is_empty() {
            return;
        }
        let minute = self.minutes.entry(row.start_ms).or_default();
        let before = minute.by_key.insert(row.key, row.used).unwrap_or_default();
        minute.sum = plus(minus(minute.sum, before), row.used);
    }

    /// Checks and admits use in one step.
    pub(super) fn check(
        &mut self,
        asked: AskedUse,
        number: impl FnOnce() -> u64,
        (rows, at): (&LimitRows, Instants),
        denies_hard: bool,
    ) -> (Vec<QuotaAnswer>, Result<Option<u64>, CheckDenial>) {
        let at = self.advance(at);
        self.refresh(rows, at.now_ms);
        let mut answers: Vec<QuotaAnswer> =
            self.in_force.limits.iter().map(|limit| self.answer(limit, &asked.used, at)).collect();
        let is_denied = answers.iter().any(|answer| answer.is_exceeded);
        let is_stale = denies_hard && answers.iter().any(|answer| answer.standing.hard);
        if is_denied || is_stale {
            // An answer shows what is used without the calls that are denied.
            for (answer, limit) in answers.iter_mut().zip(&self.in_force.limits) {
                let standing = self.answer(limit, &BilledUse::default(), at).standing;
                *answer = QuotaAnswer { standing, ..*answer };
            }
            let denial = if is_denied { CheckDenial::Exceeded } else { CheckDenial::Stale };
            return (answers, Err(denial));
        }
        self.spent.count_second(at.now_ms, asked.used);
        let is_reserved = asked.is_reserved && self.ends.len() < RESERVATIONS;
        if !is_reserved {
            self.spent.admit(at.now_ms, asked.used);
            return (answers, Ok(None));
        }
        let number = number();
        self.spent.reserve(at.now_ms, asked.used);
        self.reservations.insert(number, OpenReservation { made_ms: at.now_ms, used: asked.used });
        self.ends.push_back((at.now_ms.saturating_add(RESERVATION_MS), number));
        (answers, Ok(Some(number)))
    }

    /// Ends a reservation with the use that `actual` makes of what was reserved. Returns false if it isn't open.
    pub(super) fn settle(
        &mut self,
        number: u64,
        actual: impl FnOnce(BilledUse) -> BilledUse,
        at: Instants,
    ) -> bool {
        let at = self.advance(at);
        let Some(open) = self.reservations.remove(&number) else { return false };
        let actual = actual(open.used);
        self.end_reservation(open, actual, at);
        self.spent.uncount_second(open.made_ms, open.used);
        if open.made_ms / SECOND_MS == at.now_ms / SECOND_MS {
            self.spent.count_second(open.made_ms, actual);
        }
        true
    }

    /// Returns the use of a reservation that nobody has ended.
    pub(super) fn reserved(&self, number: u64) -> Option<BilledUse> {
        self.reservations.get(&number).map(|open| open.used)
    }

    /// Returns whether nothing would be lost with it: the table doesn't have it, and its use is all of periods that are over.
    pub(super) fn is_over(&mut self, at: Instants) -> bool {
        let at = self.advance(at);
        !self.is_known()
            && self.reservations.is_empty()
            && self.minutes.is_empty()
            && self.spent.is_empty()
            && self.booked.iter().all(|row| row.end_ms <= at.now_ms)
    }

    /// Returns the number of reservations that are open, after those whose time is over ended.
    pub(super) fn open_reservations(&mut self, at: Instants) -> u64 {
        self.advance(at);
        self.reservations.len() as u64
    }

    /// Returns the number of limits in force of whose running period nothing is left.
    pub(super) fn quotas_over(&mut self, rows: &LimitRows, at: Instants) -> u64 {
        let at = self.advance(at);
        self.refresh(rows, at.now_ms);
        let is_over = |limit: &&Limit| self.used(limit, at) >= limit.quota.limit.into();
        self.in_force.limits.iter().filter(is_over).count() as u64
    }

    fn end_reservation(&mut self, open: OpenReservation, actual: BilledUse, at: Instants) {
        self.spent.release(open.made_ms, open.used);
        // The record of a long call comes after it. So its use counts until the next minute is booked.
        self.spent.admit(open.made_ms.max(at.unbooked_ms()), actual);
    }

    /// Ends reservations whose time is over, and forgets what is booked. A reservation that nobody settled counts as
    /// admitted: its call was probably made.
    fn advance(&mut self, at: Instants) -> Instants {
        let at = self.in_order(at);
        while let Some((_, number)) = self.ends.pop_front_if(|(end_ms, _)| *end_ms <= at.now_ms) {
            if let Some(open) = self.reservations.remove(&number) {
                self.end_reservation(open, open.used, at);
            }
        }
        // A minute's quota counts from its start, also if that is booked.
        let running_ms = at.now_ms.saturating_sub(MINUTE_MS + SECOND_MS);
        let held_ms = self.held_ms(at);
        self.spent.forget_before(held_ms.saturating_sub(SKEW_MS).min(running_ms));
        let is_of_hour = self.in_force.limits.iter().any(|limit| limit.kind == PeriodKind::Hour);
        let keep_ms = match is_of_hour {
            true => held_ms.min(at.now_ms.saturating_sub(HOUR_MS + MINUTE_MS)),
            false => held_ms.min(running_ms),
        };
        while self.minutes.first_key_value().is_some_and(|(start_ms, _)| start_ms + MINUTE_MS <= keep_ms) {
            self.minutes.pop_first();
        }
        for (_, minute) in self.minutes.range_mut(..at.through_ms.saturating_sub(MINUTE_MS - 1)) {
            minute.by_key = HashMap::new();
        }
        at
    }

    /// Returns the instants of a question, whose time isn't before that of the question before.
    ///
    /// Threads look at the clock before they wait for the standing, so a question may overtake another one. The second
    /// or the period that the other one saw is over then, and would begin anew for both. A clock that was set back
    /// further goes on from there.
    fn in_order(&mut self, at: Instants) -> Instants {
        if at.now_ms < self.asked_ms && self.asked_ms - at.now_ms <= OVERTAKEN_MS {
            return Instants { now_ms: self.asked_ms, ..at };
        }
        self.asked_ms = at.now_ms;
        at
    }

    /// Makes the limits anew if a row came, one becomes valid, or a period ended.
    fn refresh(&mut self, rows: &LimitRows, now_ms: u64) {
        let revision = rows.revision();
        let InForce { revision: known, from_ms, until_ms, .. } = self.in_force;
        if known == revision && from_ms <= now_ms && now_ms < until_ms {
            return;
        }
        let current =
            self.terms.iter().rev().find(|terms| terms.valid_from.is_none_or(|from| from <= now_ms));
        // The first row of a subscription holds since ever.
        let current = current.or(self.terms.first());
        let plan = current.map_or(NameId::NONE, |terms| terms.plan);
        let holders = [QuotaHolder::Plan(plan), QuotaHolder::Subscription(self.subscription)];
        let quotas = rows.of(&holders);
        let dates = quotas.iter().map(|row| row.valid_from);
        let dates = dates.chain(self.terms.iter().map(|terms| terms.valid_from)).flatten();
        let (mut from_ms, mut until_ms) = (0, u64::MAX);
        for date in dates {
            if date <= now_ms {
                from_ms = from_ms.max(date);
            } else {
                until_ms = until_ms.min(date);
            }
        }
        let limits = limits_in_force(&quotas, now_ms).into_iter().map(|((measure, kind), quota)| {
            let period = self.period(measure, kind, now_ms);
            from_ms = from_ms.max(period.start_ms);
            until_ms = until_ms.min(period.end_ms);
            Limit { measure, kind, quota: quota.clone(), period }
        });
        let limits = limits.collect();
        self.in_force = InForce { revision, from_ms, until_ms, limits };
    }

    /// Returns the running period: that of the row of `quota` if there is one, as bookings are by it.
    fn period(&self, measure: Measure, kind: PeriodKind, now_ms: u64) -> Period {
        let booked = self.booked.iter().find(|row| {
            (row.quota.measure, row.quota.period) == (measure, kind)
                && (row.quota.start_ms..row.end_ms).contains(&now_ms)
        });
        if let Some(row) = booked {
            return Period { start_ms: row.quota.start_ms, end_ms: row.end_ms, days: 1, full_days: 1 };
        }
        let setting = |terms: &Terms| PeriodSetting {
            valid_from_ms: terms.valid_from.unwrap_or(0),
            calendar: Arc::clone(&terms.calendar),
            anchor: terms.anchor,
        };
        let mut settings = self.terms.iter().map(setting);
        let utc =
            || PeriodSetting { valid_from_ms: 0, calendar: Arc::new(Calendar::utc()), anchor: Anchor::FIRST };
        let first = settings.next().unwrap_or_else(utc);
        // As accounts have it: a new zone or anchor waits for the billing period's end, whatever the kind.
        Periods::new(PeriodKind::Billing, first, &settings.collect::<Vec<_>>()).of_kind(kind, now_ms)
    }

    /// Returns the standing of a limit after more use, and whether that exceeds it.
    fn answer(&self, limit: &Limit, more: &BilledUse, at: Instants) -> QuotaAnswer {
        let used = self.used(limit, at);
        let more_of = of(more, limit.measure);
        let bound = u128::from(limit.quota.limit);
        // A call without an estimate of a measure uses some of it all the same.
        let uses_some = more_of > 0 || (more.calls > 0 && limit.measure != Measure::Calls);
        let is_over = used.saturating_add(more_of) > bound || (uses_some && used >= bound);
        let standing = QuotaStanding::new(&limit.quota, used.saturating_add(more_of), &limit.period);
        QuotaAnswer {
            measure: limit.measure,
            period: limit.kind,
            start_ms: limit.period.start_ms,
            standing,
            is_exceeded: limit.quota.hard && is_over,
        }
    }

    /// Returns the instant before which all minutes are certainly booked.
    fn held_ms(&self, at: Instants) -> u64 {
        self.booked_through_ms.max(at.through_ms.saturating_sub(HOLD_MS)).min(at.through_ms)
    }

    fn used(&self, Limit { measure, kind, period, .. }: &Limit, at: Instants) -> u128 {
        let start_ms = period.start_ms;
        if *kind == PeriodKind::Second {
            return of(&self.spent.in_second(start_ms), *measure);
        }
        // From here on nothing is booked.
        let through_ms = match kind {
            PeriodKind::Second | PeriodKind::Minute | PeriodKind::Hour => at.through_ms,
            PeriodKind::Day | PeriodKind::Month | PeriodKind::Billing => {
                let held_ms = self.held_ms(at);
                let waits = of(&self.rows(held_ms, at.through_ms), *measure) > 0;
                if waits { held_ms } else { at.through_ms }
            }
        };
        let open_ms = match kind {
            PeriodKind::Second | PeriodKind::Minute => start_ms,
            _ => through_ms.max(start_ms),
        };
        let booked = match kind {
            PeriodKind::Second | PeriodKind::Minute => 0,
            PeriodKind::Hour => of(&self.rows(start_ms, open_ms), *measure),
            PeriodKind::Day | PeriodKind::Month | PeriodKind::Billing => {
                let is_of = |row: &&BookedUse| {
                    let quota = &row.quota;
                    (quota.measure, quota.period, quota.start_ms) == (*measure, *kind, start_ms)
                };
                self.booked.iter().find(is_of).map_or(0, |row| row.used)
            }
        };
        let admitted_ms = match kind {
            PeriodKind::Second | PeriodKind::Minute => start_ms,
            _ => through_ms.saturating_sub(SKEW_MS).max(start_ms),
        };
        let rows = of(&self.rows(open_ms, period.end_ms), *measure);
        let admitted = of(&self.spent.admitted_from(admitted_ms), *measure);
        let reserved = of(&self.spent.reserved_from(start_ms), *measure);
        booked.saturating_add(rows.max(admitted)).saturating_add(reserved)
    }

    /// Returns the sum of rows of minutes that begin within a span.
    fn rows(&self, from_ms: u64, to_ms: u64) -> BilledUse {
        let rows = self.minutes.range(from_ms..to_ms.max(from_ms));
        rows.fold(BilledUse::default(), |sum, (_, minute)| plus(sum, minute.sum))
    }
}

fn of(used: &BilledUse, measure: Measure) -> u128 {
    used.of(measure).unwrap_or(u128::MAX)
}

/// Why a check was denied because of quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckDenial {
    /// A hard quota would be exceeded.
    Exceeded,
    /// There is a hard quota, and what is used may be much more than is known.
    Stale,
}
