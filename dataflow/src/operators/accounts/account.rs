//! The account of one subscription: what it used by local day, and the rows that follow from that.
//!
//! Everything here is a function of the days, of what tables say over time, and of the watermark; but for three logs that
//! must not be told twice. These are bills that are final, thresholds that fired, and rows that are published.
//!
//! **Days** are local days by the zone in effect, named by their first instant. A new zone or anchor takes effect when
//! the billing period ends, for periods of all kinds, so days tile each period. Before a subscription has a row its days
//! are those of UTC, and its hours are kept for 48 h: a zone that becomes known then holds since ever.
//!
//! **Quotas** are of the periods day, month and billing. A row is there once anything was used in the period; of the
//! running month and billing period also before.
//!
//! **Bills** are of billing periods in which a plan has terms. A bill is final `close_after` past its period's end, and
//! then never moves. What changes it later becomes adjustments that are due with the running period's bill.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hashbrown::HashSet;
use keytide_billing::{
    Anchor, Bill, BillFault, BilledUse, ChargeItem, Currency, DatedTerms, Exact, Forecast, Measure, Outlook,
    Overflow, Period, PeriodKind, PeriodSetting, Periods, PlanSegment, PlanTerms, QuotaLimit, QuotaStanding,
    days_by_terms,
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::plans::{Plans, QuotaFacts, QuotaSubject, Quotas, Terms, replace};
use crate::account_row::{
    AccountFault, Adjustment, BillKey, BillRow, Charge, ChargeKey, ChargePart, ForecastRow, QuotaKey,
    QuotaNotice, Revision,
};
use crate::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::model::{EventTime, NameId, QuotaRow, SubscriptionRow};
use crate::operators::parts::sorted_map::SortedMap;
use crate::operators::parts::zones::ZoneCalendars;
use crate::operators::subscription_usage::UseChange;
use crate::operators::usage::Totals;
use crate::ownership::History;

/// How long days are kept after they began, in ms: the running billing period, and the one before it.
const KEEP_MS: u64 = 64 * DAY_MS;
/// How long hours are kept while a subscription has no row, as long as hours by key.
const HOURS_MS: u64 = 48 * HOUR_MS;
/// A watermark is behind the clock. An account that begins so shortly before a period's end owes no fee of it.
const START_MS: u64 = 5 * MINUTE_MS;
/// The history that forecasts use, in ms.
const HISTORY_MS: u64 = 57 * DAY_MS;
/// The kinds of periods that have rows.
const KINDS: [PeriodKind; 3] = [PeriodKind::Day, PeriodKind::Month, PeriodKind::Billing];
/// The measures that bills can depend on, without sums of others.
const COUNTED: [Measure; 4] = [Measure::Calls, Measure::BytesIn, Measure::BytesOut, Measure::Units];

/// The options of accounts, which the configuration has in `[billing]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountOptions {
    /// The currency of plans that name none.
    pub currency: Currency,
    /// The time from a billing period's end until its bill is final, in ms.
    pub close_after_ms: u64,
}

impl Default for AccountOptions {
    fn default() -> Self {
        Self { currency: Currency::EURO, close_after_ms: 5 * DAY_MS }
    }
}

impl From<&keytide_config::Billing> for AccountOptions {
    fn from(config: &keytide_config::Billing) -> Self {
        let keytide_config::Billing { currency, close_after_ms, .. } = *config;
        Self { currency, close_after_ms }
    }
}

/// What accounts are read with, in one tick.
pub(super) struct AccountTick<'a> {
    pub(super) plans: &'a Plans,
    pub(super) zones: &'a mut ZoneCalendars,
    pub(super) watermark: EventTime,
    /// The time by which rows without a date count.
    pub(super) now: EventTime,
    pub(super) lateness_ms: u64,
    pub(super) close_after_ms: u64,
    /// True in the last tick of a bounded input.
    pub(super) is_last: bool,
}

/// The rows of accounts that a tick leads to.
#[derive(Debug, Default)]
pub(super) struct AccountRows {
    pub(super) quotas: Vec<Revision<QuotaKey, QuotaStanding>>,
    pub(super) charges: Vec<Revision<ChargeKey, Charge>>,
    pub(super) bills: Vec<Revision<BillKey, BillRow>>,
    pub(super) forecasts: Vec<Revision<QuotaKey, ForecastRow>>,
    pub(super) notices: Vec<QuotaNotice>,
    pub(super) adjustments: Vec<Adjustment>,
}

/// The account of a subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    rows: Vec<SubscriptionRow>,
    plan: History<NameId>,
    setting: History<(NameId, u8)>,
    quotas: Quotas,
    /// By the first instant of the local day.
    days: SortedMap<EventTime, DayUse>,
    /// What was used of each hour or rest of one, as long as there is no row.
    hours: SortedMap<EventTime, DayUse>,
    /// Of periods that ended before, only those with use have bills: a moment after the first watermark that the
    /// account saw.
    since: EventTime,
    /// The start of the earliest billing period whose bill isn't final.
    open_from: EventTime,
    finals: BTreeMap<EventTime, FinalBill>,
    /// By the start of the period with whose bill they are due, the sums of adjustments.
    dues: BTreeMap<EventTime, (Currency, i128)>,
    fired: BTreeSet<FiredThreshold>,
    notices: u64,
    adjustments: u64,
    /// A hash of each row that may still change, as it was published.
    published: SortedMap<PublishedRow, u64>,
    /// The days that changed since quotas and bills were last published.
    changed_days: BTreeSet<EventTime>,
    changed_bills: BTreeSet<EventTime>,
    /// True if tables changed since.
    facts_changed: bool,
    /// The time of the next change that the watermark alone brings.
    pub(super) due: EventTime,
    #[serde(skip)]
    periods: Option<Rc<Periods>>,
}

/// What was used in a local day, without free calls. Arithmetic wraps, so that it can be taken back exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum DayUse {
    Narrow([u64; 4]),
    Wide(Box<[u128; 4]>),
}

const _: () = assert!(size_of::<DayUse>() == 40);

impl Default for DayUse {
    fn default() -> Self {
        Self::Narrow([0; 4])
    }
}

impl DayUse {
    fn of(totals: &Totals) -> Self {
        let [calls, _, _, bytes_in, bytes_out, _, _, free_calls, units] = totals.0;
        Self::wide([calls.wrapping_sub(free_calls), bytes_in, bytes_out, units])
    }

    fn wide(sums: [u128; 4]) -> Self {
        let mut narrow = [0; 4];
        for (narrow, sum) in narrow.iter_mut().zip(sums) {
            let Ok(sum) = u64::try_from(sum) else { return Self::Wide(Box::new(sums)) };
            *narrow = sum;
        }
        Self::Narrow(narrow)
    }

    fn sums(&self) -> [u128; 4] {
        match self {
            Self::Narrow(sums) => sums.map(u128::from),
            Self::Wide(sums) => **sums,
        }
    }

    fn add(&mut self, other: &Self) {
        let (own, others) = (self.sums(), other.sums());
        *self = Self::wide(std::array::from_fn(|index| own[index].wrapping_add(others[index])));
    }

    fn negative(&self) -> Self {
        Self::wide(self.sums().map(u128::wrapping_neg))
    }

    fn billed(&self) -> BilledUse {
        // A sum whose parts are still under way may be negative for a tick.
        let [calls, bytes_in, bytes_out, units] =
            self.sums().map(|sum| if sum > u128::MAX / 2 { 0 } else { sum });
        BilledUse { calls, bytes_in, bytes_out, units }
    }
}

/// A bill that never moves again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct FinalBill {
    end_ms: EventTime,
    /// `None` as long as nothing was billed.
    currency: Option<Currency>,
    /// What is billed by line, adjustments included.
    amounts: BTreeMap<ChargeItem<NameId>, i128>,
}

/// A threshold of a quota's limit in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FiredThreshold {
    period: (EventTime, PeriodKind),
    measure: Measure,
    limit: u64,
    percent: u16,
}

impl FiredThreshold {
    fn of(key: &QuotaKey, limit: u64, percent: u16) -> Self {
        Self { period: (key.start_ms, key.period), measure: key.measure, limit, percent }
    }
}

/// Names a row that may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum PublishedRow {
    Quota(EventTime, Measure, PeriodKind),
    Forecast(EventTime, Measure, PeriodKind),
    Bill(EventTime),
    Charge(EventTime, ChargeItem<NameId>),
}

impl PublishedRow {
    fn start(self) -> EventTime {
        let (Self::Quota(start, ..) | Self::Forecast(start, ..) | Self::Bill(start) | Self::Charge(start, _)) =
            self;
        start
    }
}

/// A bill, and the segments that its lines name by their places.
type BillOfSegments = (Bill<NameId>, Vec<Segment>);

/// The days of a period that have one plan's terms.
struct Segment {
    plan: NameId,
    terms: Rc<PlanTerms<NameId>>,
    days: u32,
    start_ms: EventTime,
    end_ms: EventTime,
}

impl Account {
    /// Makes the account of a subscription of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            plan: History::default(),
            setting: History::default(),
            quotas: Quotas::new(),
            days: SortedMap::default(),
            hours: SortedMap::default(),
            since: EventTime::MAX,
            open_from: EventTime::MAX,
            finals: BTreeMap::new(),
            dues: BTreeMap::new(),
            fired: BTreeSet::new(),
            notices: 0,
            adjustments: 0,
            published: SortedMap::default(),
            changed_days: BTreeSet::new(),
            changed_bills: BTreeSet::new(),
            facts_changed: false,
            due: EventTime::MAX,
            periods: None,
        }
    }

    /// Takes a change of a row of the table of subscriptions.
    pub(super) fn take_row(&mut self, row: SubscriptionRow, deleted: bool) {
        let is_dated = row.valid_from.is_some();
        replace(&mut self.rows, row, deleted, is_dated);
    }

    /// Takes a change of a row of the subscription's own quotas.
    pub(super) fn take_quota(&mut self, row: QuotaRow, deleted: bool) {
        self.quotas.entry((row.measure, row.period)).or_default().take(row, deleted);
    }

    /// Reads the rows as they are after the tick with the time `now`, in which some of them changed.
    pub(super) fn read_rows(&mut self, zones: &mut ZoneCalendars, now: EventTime) {
        let is_first = self.setting.0.is_empty();
        self.plan.state(self.rows.iter().map(|row| (row.plan, row.valid_from)), now);
        // A subscription that is deleted keeps its zone: its last bill is of its own days.
        if !self.rows.is_empty() {
            // Days can't be cut anew. So a setting of the past counts from now on, unless it is the first.
            let setting = |row: &SubscriptionRow| (row.time_zone, row.billing_anchor);
            let later = self.rows.iter().filter(|row| row.valid_from.is_some_and(|from| from > now));
            let settings: Vec<_> = self
                .row(now)
                .map(|row| (setting(row), None))
                .into_iter()
                .chain(later.map(|row| (setting(row), row.valid_from)))
                .collect();
            self.setting.state(settings, now);
            self.periods = None;
        }
        if is_first && !self.rows.is_empty() {
            self.place_hours(zones);
            // Nothing was billed without a plan, and periods may begin at other instants.
            self.finals.clear();
            let first = self.days.keys().next().map_or(self.since, |day| self.since.min(*day));
            self.open_from =
                if first < EventTime::MAX { self.periods(zones).at(first).start_ms } else { first };
        }
        for quota in self.quotas.values_mut() {
            quota.read(now);
        }
        self.facts_changed = true;
    }

    /// Notes that a plan changed. Returns whether the account depends on it.
    pub(super) fn plan_changed(&mut self, plans: &BTreeSet<NameId>) -> bool {
        let has_plan = self.plan.0.iter().any(|(_, plan)| plans.contains(plan));
        self.facts_changed |= has_plan;
        has_plan
    }

    /// Adds a change of use to its local day.
    pub(super) fn take_use(&mut self, change: &UseChange, zones: &mut ZoneCalendars) {
        let used = DayUse::of(&change.usage);
        if self.setting.0.is_empty() {
            self.hours.get_or_default(change.from).add(&used);
        }
        self.place(change.from, &used, zones);
    }

    /// Returns the periods of the subscription.
    fn periods(&mut self, zones: &mut ZoneCalendars) -> Rc<Periods> {
        if let Some(periods) = &self.periods {
            return Rc::clone(periods);
        }
        let mut setting = |(from, (zone, anchor)): &(EventTime, (NameId, u8))| PeriodSetting {
            valid_from_ms: *from,
            calendar: zones.get(*zone),
            anchor: Anchor::try_from(*anchor).unwrap_or(Anchor::FIRST),
        };
        let unknown = (0, (NameId::NONE, 0));
        let first = setting(self.setting.0.first().unwrap_or(&unknown));
        let later: Vec<PeriodSetting> = self.setting.0.iter().skip(1).map(setting).collect();
        let periods = Rc::new(Periods::new(PeriodKind::Billing, first, &later));
        self.periods = Some(Rc::clone(&periods));
        periods
    }

    /// Adds use to its local day. The rest of an hour from a midnight on moves from the day before it to the next.
    fn place(&mut self, from: EventTime, used: &DayUse, zones: &mut ZoneCalendars) {
        let periods = self.periods(zones);
        let day = |at: EventTime| periods.of_kind(PeriodKind::Day, at).start_ms;
        if from.is_multiple_of(HOUR_MS) {
            self.add(day(from), used);
        } else if day(from) == from {
            self.add(from, used);
            // In the hour of a new zone, two days may begin.
            self.add(day(from - 1), &used.negative());
        }
        let start_ms = periods.at(from).start_ms;
        if start_ms < self.open_from && !self.finals.contains_key(&start_ms) {
            self.open_from = start_ms;
        }
    }

    fn add(&mut self, day: EventTime, used: &DayUse) {
        self.days.get_or_default(day).add(used);
        self.changed_days.insert(day);
        self.changed_bills.insert(day);
    }

    /// Places what was used before the first row by that row's zone.
    fn place_hours(&mut self, zones: &mut ZoneCalendars) {
        let hours = std::mem::take(&mut self.hours);
        if hours.is_empty() {
            return;
        }
        for (from, used) in hours.iter() {
            // Under UTC each hour was of its day, and no midnight is within an hour.
            if from % HOUR_MS == 0 {
                self.add(from - from % DAY_MS, &used.negative());
            }
        }
        for (from, used) in hours.iter() {
            self.place(*from, used, zones);
        }
        self.days.retain(|_, used| *used != DayUse::default());
    }

    /// Returns the row in force.
    fn row(&self, now: EventTime) -> Option<&SubscriptionRow> {
        let in_force = self.rows.iter().filter(|row| row.valid_from.is_none_or(|from| from <= now));
        in_force.max_by_key(|row| row.valid_from)
    }

    /// Returns the time zone whose days a billing period has. The first one that is known holds since ever.
    fn zone(&self, start_ms: EventTime) -> NameId {
        let setting = self.setting.in_force(start_ms).or(self.setting.0.first().map(|(_, first)| first));
        setting.map(|(zone, _)| *zone).unwrap_or_default()
    }

    /// Returns the use of the days that begin within a span.
    fn used(&self, start_ms: EventTime, end_ms: EventTime) -> Result<BilledUse, Overflow> {
        let mut days = self.days.range(start_ms..end_ms.max(start_ms)).map(|(_, used)| used.billed());
        days.try_fold(BilledUse::default(), |sum, day| sum.plus(&day))
    }

    /// Makes the rows that changed, of bills only with `with_bills`. Sets when the account is due next.
    pub(super) fn publish(
        &mut self,
        subscription: NameId,
        with_bills: bool,
        closing: &mut AccountTick<'_>,
        rows: &mut AccountRows,
    ) {
        let periods = self.periods(closing.zones);
        if closing.is_last {
            // Nothing more can come of days that the watermark didn't reach.
            let last = self.days.iter().rfind(|(_, used)| **used != DayUse::default());
            let last = last.map_or(0, |(day, _)| *day);
            closing.watermark = closing.watermark.max(last);
        }
        if closing.watermark == 0 {
            return;
        }
        if self.since == EventTime::MAX {
            self.since = closing.watermark.saturating_add(START_MS);
            self.open_from = self.open_from.min(periods.at(self.since).start_ms);
        }
        self.publish_quotas(subscription, &periods, closing, rows);
        let is_due = closing.watermark >= self.due;
        if with_bills || is_due || self.facts_changed {
            self.publish_bills(subscription, &periods, closing, rows);
            self.publish_forecasts(subscription, &periods, closing, rows);
            self.changed_bills.clear();
        }
        self.changed_days.clear();
        self.facts_changed = false;
        self.forget(closing.watermark);
        self.due = self.next_due(&periods, closing);
    }

    /// Returns whether nothing depends on the account any more. Logs of notices and adjustments go on where they ended, so
    /// an account that has told something stays.
    pub(super) fn is_gone(&self) -> bool {
        self.rows.is_empty()
            && self.quotas.values().all(QuotaFacts::is_empty)
            && self.days.is_empty()
            && self.hours.is_empty()
            && self.published.is_empty()
            && self.dues.is_empty()
            && self.finals.values().all(|bill| bill.amounts.is_empty())
            && self.notices + self.adjustments == 0
    }

    /// Returns whether bills changed since they were published.
    pub(super) fn has_changed_bills(&self) -> bool {
        !self.changed_bills.is_empty()
    }

    // Quotas.

    /// Returns the limits that hold at a time.
    fn limits<'a>(&'a self, plans: &'a Plans, at: EventTime) -> BTreeMap<QuotaSubject, &'a QuotaLimit> {
        let mut limits = BTreeMap::new();
        let of_plan = plans.quotas(self.plan.at(at));
        for (subject, quota) in of_plan.into_iter().flatten().chain(&self.quotas) {
            if let Some(limit) = quota.limits.in_force(at).and_then(Option::as_ref) {
                limits.insert(*subject, limit);
            }
        }
        limits
    }

    fn publish_quotas(
        &mut self,
        subscription: NameId,
        periods: &Periods,
        closing: &mut AccountTick<'_>,
        rows: &mut AccountRows,
    ) {
        let has_quotas = |plan: &NameId| closing.plans.quotas(*plan).is_some_and(|quotas| !quotas.is_empty());
        let is_limited = !self.quotas.is_empty() || self.plan.0.iter().any(|(_, plan)| has_quotas(plan));
        if !is_limited && !self.published.keys().any(|row| matches!(row, PublishedRow::Quota(..))) {
            return;
        }
        let watermark = closing.watermark;
        let now = self.limits(closing.plans, watermark);
        let mut wanted: BTreeSet<(PeriodKind, EventTime)> =
            KINDS.iter().map(|kind| (*kind, periods.of_kind(*kind, watermark).start_ms)).collect();
        // A table may say something about any day, and so may the end of a period.
        let all = self.facts_changed || watermark >= self.due;
        let changed: Vec<EventTime> = if all {
            self.days.keys().copied().collect()
        } else {
            self.changed_days.iter().copied().collect()
        };
        for day in changed {
            wanted.extend(KINDS.iter().map(|kind| (*kind, periods.of_kind(*kind, day).start_ms)));
        }
        let published: Vec<(EventTime, Measure, PeriodKind)> = self
            .published
            .keys()
            .filter_map(|row| match row {
                PublishedRow::Quota(start, measure, kind) => Some((*start, *measure, *kind)),
                _ => None,
            })
            .collect();
        if all {
            wanted.extend(published.iter().map(|(start, _, kind)| (*kind, *start)));
        }
        let mut looked_at = BTreeMap::new();
        for (kind, start) in &wanted {
            // A zone that became known may have moved it.
            let period = periods.of_kind(*kind, *start);
            if period.start_ms >= held_from(watermark) {
                looked_at.insert((*kind, period.start_ms), period);
            }
        }
        let mut current = HashSet::new();
        let mut counted = Vec::new();
        for ((kind, start_ms), period) in looked_at {
            let is_running = period.start_ms <= watermark && watermark < period.end_ms;
            let past;
            let limits = if is_running {
                &now
            } else {
                past = self.limits(closing.plans, period.end_ms - 1);
                &past
            };
            for ((measure, _), limit) in limits.iter().filter(|((_, of), _)| *of == kind) {
                let used = self.quantity(*measure, &period, periods, closing);
                if used > 0 || is_running && kind != PeriodKind::Day {
                    let key = QuotaKey { subscription, measure: *measure, period: kind, start_ms };
                    current.insert((start_ms, *measure, kind));
                    let standing = QuotaStanding::new(limit, used, &period);
                    counted.push((key, period, standing, self.crossed(&key, limit, used)));
                }
            }
        }
        for (key, period, standing, crossed) in counted {
            let row = PublishedRow::Quota(key.start_ms, key.measure, key.period);
            if self.is_news(row, Some(&standing)) {
                rows.quotas.push(Revision { key, value: Some(standing) });
            }
            if let Some(highest) = crossed.last() {
                let notice = self.notice(key, standing, *highest, &period, periods, closing);
                for percent in &crossed {
                    self.fired.insert(FiredThreshold::of(&key, standing.limit, *percent));
                    self.notices += 1;
                    let is_highest = percent == highest;
                    rows.notices.push(QuotaNotice {
                        seq: self.notices,
                        percent: *percent,
                        is_highest,
                        ..notice
                    });
                }
            }
        }
        let is_gone = |row: &(EventTime, Measure, PeriodKind)| {
            wanted.contains(&(row.2, row.0)) && row.0 >= held_from(watermark) && !current.contains(row)
        };
        for (start, measure, kind) in published.into_iter().filter(is_gone) {
            self.published.remove(&PublishedRow::Quota(start, measure, kind));
            let key = QuotaKey { subscription, measure, period: kind, start_ms: start };
            rows.quotas.push(Revision { key, value: None });
        }
    }

    /// Adds how the quotas of running periods stand that have a row.
    pub(super) fn standings(
        &mut self,
        subscription: NameId,
        closing: &mut AccountTick<'_>,
        out: &mut Vec<Revision<QuotaKey, QuotaStanding>>,
    ) {
        let periods = self.periods(closing.zones);
        let limits = self.limits(closing.plans, closing.watermark);
        for row in self.published.keys() {
            let PublishedRow::Quota(start_ms, measure, kind) = *row else { continue };
            let period = periods.of_kind(kind, start_ms);
            let Some(limit) = limits.get(&(measure, kind)) else { continue };
            if closing.watermark < period.end_ms {
                let used = self.quantity(measure, &period, &periods, closing);
                let key = QuotaKey { subscription, measure, period: kind, start_ms };
                out.push(Revision { key, value: Some(QuotaStanding::new(limit, used, &period)) });
            }
        }
    }

    /// Returns the quantity of a measure that was used in a period. What can't be counted is more than any limit.
    fn quantity(
        &self,
        measure: Measure,
        period: &Period,
        periods: &Periods,
        closing: &AccountTick<'_>,
    ) -> u128 {
        if measure == Measure::Cost {
            return self.cost(period, periods, closing.plans).unwrap_or_default();
        }
        let used = self.used(period.start_ms, period.end_ms).and_then(|used| used.of(measure));
        used.unwrap_or(u128::MAX)
    }

    /// Returns the thresholds that are crossed for the first time, ascending.
    fn crossed(&self, key: &QuotaKey, limit: &QuotaLimit, used: u128) -> SmallVec<[u16; 8]> {
        let crossed = limit.notify.crossed(limit.limit, used).iter().copied();
        crossed
            .filter(|percent| !self.fired.contains(&FiredThreshold::of(key, limit.limit, *percent)))
            .collect()
    }

    /// Returns the notice of a threshold.
    fn notice(
        &self,
        key: QuotaKey,
        standing: QuotaStanding,
        percent: u16,
        period: &Period,
        periods: &Periods,
        closing: &AccountTick<'_>,
    ) -> QuotaNotice {
        let watermark = closing.watermark;
        let row = self.row(closing.now);
        let (customer, contacts) = row.map(|row| (row.customer, row.contacts)).unwrap_or_default();
        let is_expected = watermark < period.end_ms && key.measure != Measure::Cost;
        let forecast = is_expected.then(|| {
            let history = self.history(periods, watermark);
            self.forecast(key.measure, period, periods, watermark, Some(standing.limit), &history)
        });
        QuotaNotice {
            key,
            seq: 0,
            percent,
            standing,
            at_ms: closing.now,
            is_highest: true,
            forecast: forecast.flatten(),
            currency: self.currency(key.measure, period, periods, closing.plans),
            customer,
            plan: self.plan.at(watermark),
            contacts,
            time_zone: self.setting.at(watermark).0,
        }
    }

    /// Returns the currency of a limit of cost.
    fn currency(
        &self,
        measure: Measure,
        period: &Period,
        periods: &Periods,
        plans: &Plans,
    ) -> Option<Currency> {
        if measure != Measure::Cost {
            return None;
        }
        let billing = periods.at(period.start_ms);
        let segments = self.segments(&billing, periods, plans).ok()?;
        segments.first().map(|segment| segment.terms.currency())
    }

    // Bills.

    /// Returns the terms of a period's days, by segment. Days without a plan, or whose plan has no terms, have none.
    fn segments(
        &self,
        period: &Period,
        periods: &Periods,
        plans: &Plans,
    ) -> Result<Vec<Segment>, Rc<AccountFault>> {
        let calendar = periods.calendar(period.start_ms);
        let started = self.rows.last().and_then(|row| row.started_at).unwrap_or_default();
        let mut dated: Vec<DatedTerms<(NameId, Terms)>> = Vec::new();
        for (index, (from, plan)) in self.plan.0.iter().enumerate() {
            let until = self.plan.0.get(index + 1).map_or(EventTime::MAX, |next| next.0);
            if until <= started {
                continue;
            }
            if !plan.is_some() {
                // The day on which a plan ends is its last one.
                let end = calendar.day_start_ms(calendar.day(*from) + 1).min(until);
                dated.push(DatedTerms { valid_from_ms: Some(end), terms: None });
                continue;
            }
            plans.terms(*plan, (*from).max(started), until, &mut dated);
        }
        let mut segments = Vec::new();
        for (days, (plan, terms)) in days_by_terms(calendar, period, &dated) {
            let terms = match terms {
                Terms::Of(terms) => Rc::clone(terms),
                Terms::Faulty(fault) => return Err(Rc::clone(fault)),
            };
            segments.push(Segment {
                plan: *plan,
                terms,
                days: u32::try_from(days.end - days.start).unwrap_or_default(),
                start_ms: calendar.day_start_ms(days.start).max(period.start_ms),
                end_ms: calendar.day_start_ms(days.end).min(period.end_ms),
            });
        }
        Ok(segments)
    }

    /// Returns a period's bill and its segments; `None` where no plan has terms. `more` is added to the last segment.
    fn bill(
        &self,
        period: &Period,
        periods: &Periods,
        plans: &Plans,
        more: &BilledUse,
    ) -> Result<Option<BillOfSegments>, AccountFault> {
        let segments = self.segments(period, periods, plans).map_err(|fault| (*fault).clone())?;
        if segments.is_empty() {
            return Ok(None);
        }
        let fault = |fault: BillFault| AccountFault {
            plan: NameId::NONE,
            item: NameId::NONE,
            text: fault.to_string().into(),
        };
        let mut priced = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate() {
            let mut used = self.used(segment.start_ms, segment.end_ms).map_err(|over| fault(over.into()))?;
            if index + 1 == segments.len() {
                used = used.plus(more).map_err(|over| fault(over.into()))?;
            }
            priced.push(PlanSegment { terms: &*segment.terms, days: segment.days, used });
        }
        let bill = Bill::new(&priced, period.full_days).map_err(fault)?;
        Ok(Some((bill, segments)))
    }

    /// The same of a period that is billed: one that ended before anything was known is, if it has use.
    fn due_bill(
        &self,
        period: &Period,
        periods: &Periods,
        plans: &Plans,
    ) -> Result<Option<BillOfSegments>, AccountFault> {
        let none = BilledUse::default();
        if period.end_ms <= self.since && self.used(period.start_ms, period.end_ms) == Ok(none) {
            return Ok(None);
        }
        self.bill(period, periods, plans, &none)
    }

    /// Returns the price of the use in a period, without fees, in ten-thousandths of the currency's unit. A period that
    /// is shorter than a billing period costs what it adds to that one's price.
    fn cost(&self, period: &Period, periods: &Periods, plans: &Plans) -> Option<u128> {
        let mut sum = Exact::ZERO;
        let mut at = period.start_ms;
        while at < period.end_ms {
            let billing = periods.at(at);
            let segments = self.segments(&billing, periods, plans).ok()?;
            let end = billing.end_ms.min(period.end_ms);
            let price = |until| self.price(&segments, until, &BilledUse::default());
            sum = sum.plus(price(end)?).ok()?;
            if at > billing.start_ms {
                sum = sum.minus(price(at)?).ok()?;
            }
            at = end;
        }
        ten_thousandths(sum)
    }

    /// Returns the price of what was used in a billing period until a day, without fees. `more` is added to the last of
    /// its segments.
    fn price(&self, segments: &[Segment], until: EventTime, more: &BilledUse) -> Option<Exact> {
        let (mut sum, mut before) = (Exact::ZERO, BilledUse::default());
        for (index, segment) in segments.iter().enumerate() {
            let mut used = self.used(segment.start_ms, segment.end_ms.min(until)).ok()?;
            if index + 1 == segments.len() {
                used = used.plus(more).ok()?;
            }
            for price in segment.terms.prices().values() {
                let (start, own) = (before.of(price.measure()).ok()?, used.of(price.measure()).ok()?);
                for part in price.segment(start, own).ok()? {
                    sum = sum.plus(part.exact).ok()?;
                }
            }
            before = before.plus(&used).ok()?;
        }
        Some(sum)
    }

    fn publish_bills(
        &mut self,
        subscription: NameId,
        periods: &Periods,
        closing: &AccountTick<'_>,
        rows: &mut AccountRows,
    ) {
        let running = periods.at(closing.watermark);
        self.adjust(subscription, &running, periods, closing, rows);
        let mut at = self.open_from;
        let mut first_open = None;
        loop {
            let period = periods.at(at);
            if period.start_ms > closing.watermark {
                break;
            }
            // A bill that couldn't be made for so long stays as it is.
            let is_held = period.start_ms >= held_from(closing.watermark);
            if is_held && !self.finals.contains_key(&period.start_ms) {
                let is_final = self.publish_bill(subscription, &period, periods, closing, rows);
                if !is_final {
                    first_open.get_or_insert(period.start_ms);
                }
            }
            at = period.end_ms;
        }
        self.open_from = first_open.unwrap_or(at);
    }

    /// Publishes the bill of a period that isn't final, and returns whether it is now.
    fn publish_bill(
        &mut self,
        subscription: NameId,
        period: &Period,
        periods: &Periods,
        closing: &AccountTick<'_>,
        rows: &mut AccountRows,
    ) -> bool {
        let key = BillKey { subscription, start_ms: period.start_ms };
        let bill = self.due_bill(period, periods, closing.plans);
        let is_over = closing.watermark >= period.end_ms.saturating_add(closing.close_after_ms);
        let complete = closing.watermark >= period.end_ms.saturating_add(closing.lateness_ms);
        let due = self.dues.get(&period.start_ms).copied();
        let mut row = BillRow {
            end_ms: period.end_ms,
            currency: due.map(|(currency, _)| currency),
            total: due.map(|(_, amount)| amount),
            lines: 0,
            adjustments: due.map_or(0, |(_, amount)| amount),
            complete,
            is_final: is_over,
            fault: None,
            customer: self.row(closing.now).map(|row| row.customer).unwrap_or_default(),
            plan: NameId::NONE,
            time_zone: self.zone(period.start_ms),
        };
        let mut charges: BTreeMap<ChargeItem<NameId>, Charge> = BTreeMap::new();
        let mut amounts = BTreeMap::new();
        match bill {
            Ok(None) => {}
            Ok(Some((bill, segments))) => {
                amounts = bill.amounts();
                row.lines = u32::try_from(bill.lines.len()).unwrap_or(u32::MAX);
                row.currency = Some(bill.currency);
                row.plan = segments.last().map(|segment| segment.plan).unwrap_or_default();
                row.total = match due {
                    None => Some(bill.total),
                    Some((currency, amount)) if currency == bill.currency => bill.total.checked_add(amount),
                    Some(_) => None,
                };
                if row.total.is_none() {
                    let text = "adjustments of earlier bills are in another currency, or the sum is too large: credit \
                                them by hand";
                    row.fault = Some(fault(text));
                }
                charges = bill.lines.iter().map(|line| (line.item, charge(line, &bill, &segments))).collect();
            }
            Err(fault) => (row.total, row.fault) = (None, Some(fault)),
        }
        row.is_final &= row.fault.is_none();
        let exists = row.currency.is_some() || row.fault.is_some();
        let value = exists.then(|| row.clone());
        if self.is_news(PublishedRow::Bill(period.start_ms), value.as_ref()) {
            rows.bills.push(Revision { key, value });
        }
        self.publish_charges(key, charges, rows);
        if row.is_final {
            let currency = row.currency.filter(|_| !amounts.is_empty());
            self.finals.insert(period.start_ms, FinalBill { end_ms: period.end_ms, currency, amounts });
            self.published.retain(|row, _| {
                !matches!(row, PublishedRow::Bill(start) | PublishedRow::Charge(start, _) if *start == period.start_ms)
            });
        }
        row.is_final
    }

    fn publish_charges(
        &mut self,
        bill: BillKey,
        charges: BTreeMap<ChargeItem<NameId>, Charge>,
        rows: &mut AccountRows,
    ) {
        let of_bill = |row: &PublishedRow| match row {
            PublishedRow::Charge(start, item) if *start == bill.start_ms => Some(*item),
            _ => None,
        };
        let published: Vec<ChargeItem<NameId>> = self.published.keys().filter_map(of_bill).collect();
        for item in published.into_iter().filter(|item| !charges.contains_key(item)) {
            self.published.remove(&PublishedRow::Charge(bill.start_ms, item));
            rows.charges.push(Revision { key: ChargeKey { bill, item }, value: None });
        }
        for (item, charge) in charges {
            if self.is_news(PublishedRow::Charge(bill.start_ms, item), Some(&charge)) {
                rows.charges.push(Revision { key: ChargeKey { bill, item }, value: Some(charge) });
            }
        }
    }

    /// Compares final bills with what they would be now. The differences are due with the running period's bill.
    fn adjust(
        &mut self,
        subscription: NameId,
        running: &Period,
        periods: &Periods,
        closing: &AccountTick<'_>,
        rows: &mut AccountRows,
    ) {
        let starts: Vec<EventTime> = self.finals.keys().copied().collect();
        for start_ms in starts {
            let Some(known) = self.finals.get(&start_ms) else { continue };
            let is_changed =
                self.facts_changed || self.changed_bills.range(start_ms..known.end_ms).next().is_some();
            // A bill of which days are gone can't be made again.
            if !is_changed || start_ms < held_from(closing.watermark) {
                continue;
            }
            let Ok(bill) = self.due_bill(&periods.at(start_ms), periods, closing.plans) else { continue };
            let (currency, changed, amounts) = match bill {
                Some((bill, _)) => (Some(bill.currency), bill.since(&known.amounts), bill.amounts()),
                // Nothing is billed any more, so all of it is taken back.
                None => (known.currency, Ok(negated(&known.amounts)), BTreeMap::new()),
            };
            let Some((currency, changed)) = currency.zip(changed.ok()) else { continue };
            let is_other = known.currency.is_some_and(|known| known != currency);
            if is_other || changed.is_empty() {
                continue;
            }
            let due = self.dues.entry(running.start_ms).or_insert((currency, 0));
            let sum = changed.values().try_fold(due.1, |sum, amount| sum.checked_add(*amount));
            let Some(sum) = sum.filter(|_| due.0 == currency) else { continue };
            due.1 = sum;
            for (item, amount) in changed {
                self.adjustments += 1;
                rows.adjustments.push(Adjustment {
                    bill: BillKey { subscription, start_ms },
                    seq: self.adjustments,
                    item,
                    amount,
                    currency,
                    due_with_ms: running.start_ms,
                    at_ms: closing.now,
                });
            }
            if let Some(known) = self.finals.get_mut(&start_ms) {
                (known.currency, known.amounts) = (Some(currency), amounts);
            }
        }
    }

    // Forecasts.

    fn publish_forecasts(
        &mut self,
        subscription: NameId,
        periods: &Periods,
        closing: &AccountTick<'_>,
        rows: &mut AccountRows,
    ) {
        let watermark = closing.watermark;
        let limits = self.limits(closing.plans, watermark);
        let limits = limits.into_iter().filter(|((_, kind), _)| KINDS.contains(kind));
        let mut subjects: BTreeMap<QuotaSubject, Option<u64>> =
            limits.map(|(subject, limit)| (subject, Some(limit.limit))).collect();
        let running = periods.at(watermark);
        let segments = self.segments(&running, periods, closing.plans).unwrap_or_default();
        let history = match subjects.is_empty() && segments.is_empty() {
            true => Vec::new(),
            false => self.history(periods, watermark),
        };
        let expected = match segments.is_empty() {
            true => None,
            false => self.expected_use(&running, periods, watermark, &history),
        };
        let bill = expected.as_ref().and_then(|[expected, ..]| {
            let (bill, _) = self.bill(&running, periods, closing.plans, expected).ok()??;
            Some((bill.total, bill.currency))
        });
        if bill.is_some() {
            subjects.entry((Measure::Cost, PeriodKind::Billing)).or_default();
        }
        let mut values: BTreeMap<PublishedRow, (QuotaKey, ForecastRow)> = BTreeMap::new();
        for ((measure, kind), limit) in subjects {
            let period = periods.of_kind(kind, watermark);
            let forecast = match (measure, kind, &expected) {
                // The price of use is expected for billing periods alone.
                (Measure::Cost, PeriodKind::Billing, Some(expected)) => {
                    self.expected_cost(&segments, expected, watermark, limit)
                }
                (Measure::Cost, ..) => None,
                _ => self.forecast(measure, &period, periods, watermark, limit, &history),
            };
            let Some(forecast) = forecast else { continue };
            let amount = bill.filter(|_| kind == PeriodKind::Billing);
            let row = ForecastRow {
                forecast,
                expected_amount: amount.map(|(amount, _)| amount),
                currency: amount.map(|(_, currency)| currency),
            };
            let key = QuotaKey { subscription, measure, period: kind, start_ms: period.start_ms };
            values.insert(PublishedRow::Forecast(period.start_ms, measure, kind), (key, row));
        }
        let is_forecast = |row: &&PublishedRow| matches!(row, PublishedRow::Forecast(..));
        let published: Vec<PublishedRow> = self.published.keys().filter(is_forecast).copied().collect();
        for row in published.into_iter().filter(|row| !values.contains_key(row)) {
            self.published.remove(&row);
            let PublishedRow::Forecast(start_ms, measure, period) = row else { continue };
            // A period that is over has use, and no forecast.
            let key = QuotaKey { subscription, measure, period, start_ms };
            rows.forecasts.push(Revision { key, value: None });
        }
        for (row, (key, value)) in values {
            if self.is_news(row, Some(&value)) {
                rows.forecasts.push(Revision { key, value: Some(value) });
            }
        }
    }

    /// Returns the use of each local day before today that forecasts look back at, the oldest first.
    fn history(&self, periods: &Periods, watermark: EventTime) -> Vec<BilledUse> {
        let today = periods.of_kind(PeriodKind::Day, watermark).start_ms;
        let known = self.days.keys().next().map_or(self.since, |day| self.since.min(*day));
        let mut day = periods.of_kind(PeriodKind::Day, known.max(today.saturating_sub(HISTORY_MS)));
        let mut history = Vec::new();
        while day.start_ms < today {
            history.push(self.days.get(&day.start_ms).map(DayUse::billed).unwrap_or_default());
            day = periods.of_kind(PeriodKind::Day, day.end_ms);
        }
        history
    }

    /// Returns the forecast of a measure that is counted.
    fn forecast(
        &self,
        measure: Measure,
        period: &Period,
        periods: &Periods,
        watermark: EventTime,
        limit: Option<u64>,
        history: &[BilledUse],
    ) -> Option<Forecast> {
        let quantity = |used: &BilledUse| saturated(used.of(measure).unwrap_or(u128::MAX));
        let used = self.used(period.start_ms, period.end_ms).ok()?;
        let history: Vec<u64> = history.iter().map(quantity).collect();
        let outlook = Outlook {
            calendar: periods.calendar(watermark),
            now_ms: watermark,
            end_ms: period.end_ms,
            used: quantity(&used),
            history: &history,
            limit,
        };
        outlook.forecast()
    }

    /// Returns the use that is expected until a period's end, in addition to what was used: the expected one, and the
    /// ends of its interval.
    fn expected_use(
        &self,
        period: &Period,
        periods: &Periods,
        watermark: EventTime,
        history: &[BilledUse],
    ) -> Option<[BilledUse; 3]> {
        let used = self.used(period.start_ms, period.end_ms).ok()?;
        let mut more = [BilledUse::default(); 3];
        for measure in COUNTED {
            let Forecast { expected, low, high, .. } =
                self.forecast(measure, period, periods, watermark, None, history)?;
            for (more, end) in more.iter_mut().zip([expected, low, high]) {
                let rest = u128::from(end).saturating_sub(used.of(measure).ok()?);
                match measure {
                    Measure::Calls => more.calls = rest,
                    Measure::BytesIn => more.bytes_in = rest,
                    Measure::BytesOut => more.bytes_out = rest,
                    Measure::Units => more.units = rest,
                    Measure::Bytes | Measure::Cost => {}
                }
            }
        }
        Some(more)
    }

    /// Returns the forecast of the price of use in a billing period, of which more is expected.
    fn expected_cost(
        &self,
        segments: &[Segment],
        expected: &[BilledUse; 3],
        watermark: EventTime,
        limit: Option<u64>,
    ) -> Option<Forecast> {
        let priced = |more: &BilledUse| {
            let price = self.price(segments, EventTime::MAX, more)?;
            ten_thousandths(price).map(saturated)
        };
        let used = priced(&BilledUse::default())?;
        let [expected, low, high] = expected;
        let is_reached = limit.is_some_and(|limit| used >= limit);
        Some(Forecast {
            expected: priced(expected)?,
            low: priced(low)?,
            high: priced(high)?,
            runs_out_at_ms: is_reached.then_some(watermark),
        })
    }

    // All rows.

    /// Notes a row's version, and returns whether it differs from the one that was published.
    fn is_news<V: Serialize>(&mut self, row: PublishedRow, value: Option<&V>) -> bool {
        let Some(value) = value else { return self.published.remove(&row).is_some() };
        let bytes = postcard::to_stdvec(value).expect("plain data can be written to memory");
        let hash = xxh3_64(&bytes);
        self.published.insert(row, hash) != Some(hash)
    }

    /// Drops what no row can depend on any more.
    fn forget(&mut self, watermark: EventTime) {
        let held_from = held_from(watermark);
        self.days.remove_before(&held_from);
        self.hours.remove_before(&watermark.saturating_sub(HOURS_MS));
        self.fired.retain(|fired| fired.period.0 >= held_from);
        self.published.retain(|row, _| row.start() >= held_from);
        self.finals.retain(|start, _| *start >= held_from);
        self.dues.retain(|start, _| *start >= held_from);
        self.plan.forget(held_from);
        for quota in self.quotas.values_mut() {
            quota.limits.forget(held_from);
        }
    }

    /// Returns when the watermark alone changes something.
    fn next_due(&self, periods: &Periods, closing: &AccountTick<'_>) -> EventTime {
        let watermark = closing.watermark;
        let mut times = vec![periods.at(watermark).end_ms];
        let mut at = self.open_from;
        while at <= watermark {
            let period = periods.at(at);
            times.push(period.end_ms.saturating_add(closing.lateness_ms));
            times.push(period.end_ms.saturating_add(closing.close_after_ms));
            at = period.end_ms;
        }
        if self.limits(closing.plans, watermark).keys().any(|(_, kind)| *kind == PeriodKind::Month) {
            times.push(periods.of_kind(PeriodKind::Month, watermark).end_ms);
        }
        times.extend(self.plan.next(watermark));
        times.extend(self.setting.next(watermark));
        times.extend(self.quotas.values().filter_map(|quota| quota.limits.next(watermark)));
        times.extend(closing.plans.next_change(self.plan.at(watermark), watermark));
        times.into_iter().filter(|time| *time > watermark).min().unwrap_or(EventTime::MAX)
    }

    /// Returns the memory that it owns, about.
    pub(super) fn owned_bytes(&self) -> usize {
        size_of::<Self>()
            + self.days.owned_bytes()
            + self.hours.owned_bytes()
            + self.published.owned_bytes()
            + self.fired.len() * size_of::<FiredThreshold>() * 3 / 2
            + self.rows.capacity() * size_of::<SubscriptionRow>()
    }
}

/// Returns what takes the amounts back, without lines of nothing.
fn negated(amounts: &BTreeMap<ChargeItem<NameId>, i128>) -> BTreeMap<ChargeItem<NameId>, i128> {
    let amounts = amounts.iter().filter(|(_, amount)| **amount != 0);
    amounts.map(|(item, amount)| (*item, amount.saturating_neg())).collect()
}

/// Returns the earliest start of a period whose days are all kept.
fn held_from(watermark: EventTime) -> EventTime {
    watermark.saturating_sub(KEEP_MS)
}

fn fault(text: &str) -> AccountFault {
    AccountFault { plan: NameId::NONE, item: NameId::NONE, text: text.into() }
}

/// Returns a line of a bill as a row.
fn charge(line: &keytide_billing::ChargeLine<NameId>, bill: &Bill<NameId>, segments: &[Segment]) -> Charge {
    let item = match line.item {
        ChargeItem::Item(item) => Some(item),
        ChargeItem::BaseFee | ChargeItem::Minimum | ChargeItem::Maximum => None,
    };
    let prices: Vec<_> = segments.iter().filter_map(|segment| segment.terms.prices().get(&item?)).collect();
    let alike =
        |of: fn(&keytide_billing::Price) -> u64| prices.windows(2).all(|pair| of(pair[0]) == of(pair[1]));
    let first = prices.first().copied();
    Charge {
        quantity: line.quantity,
        measure: first.map(|price| price.measure()).filter(|_| alike(|price| price.measure() as u64)),
        unit: first.map(|price| price.unit()).filter(|_| alike(|price| price.unit().quantity())),
        model: first.map(|price| price.model()).filter(|_| alike(|price| price.model() as u64)),
        parts: line
            .parts
            .iter()
            .filter_map(|(place, part)| {
                let segment = segments.get(*place)?;
                let price = segment.terms.prices().get(&item?)?;
                Some(ChargePart {
                    plan: segment.plan,
                    tier: u32::try_from(part.tier + 1).unwrap_or(u32::MAX),
                    quantity: part.quantity,
                    unit_price: price.unit_price(part.tier)?,
                    exact: part.exact,
                })
            })
            .collect(),
        exact: line.exact,
        amount: line.amount,
        currency: bill.currency,
    }
}

fn saturated(quantity: u128) -> u64 {
    u64::try_from(quantity).unwrap_or(u64::MAX)
}

/// Returns a sum in ten-thousandths of the currency's unit. A credit costs nothing.
fn ten_thousandths(sum: Exact) -> Option<u128> {
    Some(sum.rounded(4).ok()?.max(0).unsigned_abs())
}
