//! The bill of a subscription's period as a document.
//!
//! A bill has one of three states. A **draft** can still change. A **final** bill never does, and has the number 1. What came
//! after it was final are adjustments, and each tick that found some makes a **corrected** bill with the next number. It
//! shows what the period costs by all use. The difference is due with the bill of the period that was running then, so a
//! correction never changes a bill's own total.
//!
//! **Sums.** The total is that of the row of `bills`. It is also the sum of the lines' amounts and of the adjustments that
//! are due with the bill. Rows of which this isn't true come from two moments, and make no document.
//!
//! **Days** are those of the subscription's time zone. An hour belongs to the day in which it begins. Where only days of UTC
//! are known, these are shown, and `by_day.time_zone` says so.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_billing::{Calendar, Currency, Measure};
use keytide_dataflow::model::EventTime;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS};
use serde::Serialize;

use super::name::file_stem;
use super::numbers::minor_units;
use super::rows::{AdjustmentColumns, BillColumns, ChargeColumns, SubscriptionRows, UseColumns, date};

/// The form of the document. It grows if a member is renamed or removed.
const VERSION: u32 = 1;

/// A bill, as its JSON file has it. Times are RFC 3339, amounts and prices decimal texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BillDocument {
    report: &'static str,
    version: u32,
    pub subscription: String,
    pub customer: Option<String>,
    pub plan: Option<String>,
    pub plan_name: Option<String>,
    pub period: ReportPeriod,
    pub currency: Option<String>,
    pub state: BillState,
    /// 1 for the first final bill, and one more for each correction; null for a draft.
    pub number: Option<u64>,
    /// True if what still comes is late.
    pub complete: bool,
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The reason why there is no total, and what to do.
    pub fault: Option<String>,
    pub lines: Vec<Charged>,
    /// The sum of the lines' amounts; null if there is a fault.
    pub charges: Option<String>,
    /// What corrects earlier bills and is due with this one.
    pub adjustments: Vec<Adjusted>,
    pub adjustments_total: Option<String>,
    /// What is due: charges and adjustments. Null if there is a fault.
    pub total: Option<String>,
    /// What corrects this bill and is due with later ones.
    pub corrections: Vec<Correction>,
    /// The charges with all corrections; null without any.
    pub corrected_charges: Option<String>,
    pub quotas: Vec<PeriodQuota>,
    /// The use of each day; null if none is known.
    pub by_day: Option<UseByDay>,
    pub counted: CountedUse,
}

/// The state of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BillState {
    Draft,
    Final,
    Corrected,
}

impl BillState {
    /// Returns the name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Final => "final",
            Self::Corrected => "corrected",
        }
    }
}

/// The period of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportPeriod {
    pub start: String,
    pub end: String,
    pub start_local: String,
    pub end_local: String,
    pub time_zone: String,
    pub first_day: String,
    pub last_day: String,
}

/// A line of a bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Charged {
    pub item: String,
    pub metric: Option<&'static str>,
    /// The quantity that a unit price is for.
    pub unit: Option<u64>,
    pub model: Option<String>,
    /// Null for fees and bounds.
    pub quantity: Option<u64>,
    /// The part of the quantity that is in no tier, since it is included in the price; null if there is none.
    pub included: Option<u64>,
    pub tiers: Vec<TierCharged>,
    /// The sum before it is rounded to the currency's digits.
    pub exact: String,
    pub amount: String,
}

/// The part of a line that one tier of a plan's price makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TierCharged {
    pub plan: Option<String>,
    pub tier: u64,
    pub quantity: i128,
    pub unit_price: String,
    pub exact: String,
}

/// An amount that corrects the line of a final bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjusted {
    pub seq: u64,
    /// The period whose bill it corrects.
    pub period_start: String,
    pub period_first_day: String,
    pub item: String,
    pub amount: String,
    /// The tick that found it.
    pub at: String,
}

/// What one tick changed of a final bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Correction {
    /// The number of the corrected bill.
    pub number: u64,
    pub at: String,
    /// The period with whose bill it is due.
    pub due_with: String,
    pub due_with_first_day: String,
    pub lines: Vec<Adjusted>,
    pub amount: Option<String>,
}

/// How much of a billing period's quota is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeriodQuota {
    pub metric: &'static str,
    /// Of the metric cost in ten-thousandths of the currency's unit, as `used` is.
    pub limit: u64,
    pub used: u64,
    pub hard: bool,
}

/// The use of each day of a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UseByDay {
    /// The zone whose days they are: that of the period, or UTC.
    pub time_zone: String,
    /// True if an hour may belong to two days, and is shown with the one in which it begins.
    pub splits_hours: bool,
    pub days: Vec<DayUse>,
}

/// The use of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DayUse {
    pub date: String,
    /// Null if no row says anything about the day.
    #[serde(rename = "use")]
    pub used: Option<Used>,
}

/// Sums of use, in calls, bytes and the source's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    pub calls: u128,
    /// Calls that are billed: all but free ones.
    pub billed_calls: u128,
    pub free_calls: u128,
    pub errors_4xx: u128,
    pub errors_5xx: u128,
    pub bytes_in: u128,
    pub bytes_out: u128,
    pub units: u128,
}

impl From<&UseColumns> for Used {
    fn from(row: &UseColumns) -> Self {
        let UseColumns { calls, errors_4xx, errors_5xx, bytes_in, bytes_out, free_calls, units } = *row;
        Self {
            calls: calls.into(),
            billed_calls: calls.saturating_sub(free_calls).into(),
            free_calls: free_calls.into(),
            errors_4xx: errors_4xx.into(),
            errors_5xx: errors_5xx.into(),
            bytes_in: bytes_in.into(),
            bytes_out: bytes_out.into(),
            units: units.into(),
        }
    }
}

impl AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        let Self { calls, billed_calls, free_calls, errors_4xx, errors_5xx, bytes_in, bytes_out, units } =
            other;
        for (sum, part) in [
            (&mut self.calls, calls),
            (&mut self.billed_calls, billed_calls),
            (&mut self.free_calls, free_calls),
            (&mut self.errors_4xx, errors_4xx),
            (&mut self.errors_5xx, errors_5xx),
            (&mut self.bytes_in, bytes_in),
            (&mut self.bytes_out, bytes_out),
            (&mut self.units, units),
        ] {
            *sum += part;
        }
    }
}

/// How a bill was counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CountedUse {
    /// The use of the whole period; null if it isn't known.
    #[serde(rename = "use")]
    pub used: Option<Used>,
    /// The end of the last hour, or day, with calls, by the clock of the zone.
    pub counted_to: Option<String>,
    /// The number of adjustments that late calls and later rows of tables made.
    pub late_changes: usize,
    /// The lines of a shell that recount the bill from the log.
    pub recount: Vec<String>,
}

/// The reason why rows make no bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotABill {
    /// There is no row of `bills`.
    Missing,
    /// There are fewer or more charges than the bill says.
    Lines { expected: u64, found: usize },
    /// Charges and adjustments aren't the total.
    Sum { total: String, sum: String },
    /// An amount hasn't the digits of its currency.
    Amount(String),
}

impl fmt::Display for NotABill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such bill"),
            Self::Lines { expected, found } => {
                write!(
                    f,
                    "the bill has {expected} lines and {found} rows of charges: they are of two moments"
                )
            }
            Self::Sum { total, sum } => {
                write!(
                    f,
                    "the bill's total is {total} and its lines add up to {sum}: they are of two moments"
                )
            }
            Self::Amount(amount) => write!(f, "{amount} isn't an amount of its currency"),
        }
    }
}

impl std::error::Error for NotABill {}

/// Local time of a subscription.
struct LocalTime {
    calendar: Calendar,
    zone: TimeZone,
}

impl LocalTime {
    fn of(bill: &BillColumns) -> Self {
        let calendar = bill.calendar();
        let zone = TimeZone::get(calendar.name()).unwrap_or(TimeZone::UTC);
        Self { calendar, zone }
    }

    /// Returns the date of an instant.
    fn date(&self, at: EventTime) -> String {
        date(self.calendar.day(at))
    }

    /// Formats an instant by the clock of the zone, with its offset.
    fn time(&self, at: EventTime) -> String {
        let local = timestamp(at).to_zoned(self.zone.clone());
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

fn timestamp(at: EventTime) -> Timestamp {
    let at = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    at.unwrap_or(Timestamp::MAX)
}

fn utc(at: EventTime) -> String {
    timestamp(at).to_string()
}

impl BillDocument {
    /// Makes the bill of the period that begins at `start`.
    ///
    /// # Errors
    /// If there is no such bill, or if its rows don't add up to its total.
    pub fn new(subscription: &str, start: EventTime, rows: &SubscriptionRows) -> Result<Self, NotABill> {
        let bill = rows.bills.get(&start).ok_or(NotABill::Missing)?;
        let local = LocalTime::of(bill);
        let currency = bill.currency();
        let lines: Vec<Charged> = rows.charges(start).map(|(item, row)| charged(item, row)).collect();
        let due: Vec<(u64, &AdjustmentColumns)> = rows
            .adjustments
            .iter()
            .filter(|(_, row)| row.due_with == start)
            .map(|(seq, row)| (*seq, row))
            .collect();
        let charges = match (bill.fault.is_none(), currency) {
            (true, Some(currency)) => Some(checked_charges(bill, currency, &lines)?),
            _ => None,
        };
        let corrections = corrections(start, rows, &local);
        let state = match (bill.is_final, corrections.is_empty()) {
            (false, _) => BillState::Draft,
            (true, true) => BillState::Final,
            (true, false) => BillState::Corrected,
        };
        let corrected = charges.zip(currency).filter(|_| state == BillState::Corrected);
        let corrected = corrected.and_then(|(charges, currency)| {
            let all = corrections.iter().flat_map(|correction| &correction.lines);
            sum(all.map(|line| line.amount.as_str()), currency)?.checked_add(charges)
        });
        let text =
            |amount: Option<i128>| amount.zip(currency).map(|(amount, currency)| currency.text(amount));
        let by_day = use_by_day(bill, start, rows, &local);
        let counted = counted(subscription, bill, start, rows, &local, by_day.as_ref());
        Ok(Self {
            report: "bill",
            version: VERSION,
            subscription: subscription.to_owned(),
            customer: bill.customer.clone(),
            plan: bill.plan.clone(),
            plan_name: bill.plan.as_ref().and_then(|plan| rows.plan_names.get(plan)).cloned(),
            period: period(bill, start, &local),
            currency: bill.currency.clone(),
            state,
            number: (state != BillState::Draft).then_some(1 + corrections.len() as u64),
            complete: bill.complete,
            is_final: bill.is_final,
            fault: bill.fault.clone(),
            charges: text(charges),
            lines,
            adjustments: due.iter().map(|(seq, row)| adjusted(*seq, row, &local)).collect(),
            adjustments_total: bill.adjustments.clone(),
            total: bill.total.clone(),
            corrected_charges: text(corrected),
            corrections,
            quotas: quotas(start, rows),
            by_day,
            counted,
        })
    }

    /// Returns the name of the bill's files without their extension.
    #[must_use]
    pub fn file_stem(&self) -> String {
        let ReportPeriod { start_local, first_day, .. } = &self.period;
        // A period that follows a change of zone begins within a day, which may have two such beginnings.
        let clock = start_local.get(11..16).filter(|clock| *clock != "00:00").unwrap_or_default();
        let clock = if clock.is_empty() { String::new() } else { format!("t{}", clock.replace(':', "")) };
        file_stem("bill", &self.subscription, &format!("{first_day}{clock}"))
    }

    /// Returns what the rows of adjustments leave open of the sum that is due with the bill. The API keeps the newest of
    /// them alone.
    pub(super) fn unlisted_adjustments(&self) -> Option<String> {
        let currency: Currency = self.currency.as_deref()?.parse().ok()?;
        let listed = sum(self.adjustments.iter().map(|row| row.amount.as_str()), currency)?;
        let rest = minor_units(self.adjustments_total.as_deref()?, currency)?.checked_sub(listed)?;
        (rest != 0).then(|| currency.text(rest))
    }
}

/// Adds amounts, in minor units of their currency.
fn sum<'a>(mut amounts: impl Iterator<Item = &'a str>, currency: Currency) -> Option<i128> {
    amounts.try_fold(0_i128, |sum, amount| sum.checked_add(minor_units(amount, currency)?))
}

/// Returns the sum of the lines, which must be what the bill says.
fn checked_charges(bill: &BillColumns, currency: Currency, lines: &[Charged]) -> Result<i128, NotABill> {
    if lines.len() as u64 != bill.lines {
        return Err(NotABill::Lines { expected: bill.lines, found: lines.len() });
    }
    let units = |amount: &str| {
        minor_units(amount, currency).ok_or_else(|| NotABill::Amount(format!("{amount} {}", currency.code())))
    };
    let mut charges = 0_i128;
    for line in lines {
        charges = charges.saturating_add(units(&line.amount)?);
    }
    let adjustments = units(bill.adjustments.as_deref().unwrap_or_default())?;
    let total = bill.total.as_deref().unwrap_or_default();
    let all = charges.saturating_add(adjustments);
    if units(total)? != all {
        return Err(NotABill::Sum { total: total.to_owned(), sum: currency.text(all) });
    }
    Ok(charges)
}

fn charged(item: &str, row: &ChargeColumns) -> Charged {
    let ChargeColumns { metric, unit, model, quantity, tiers, exact, amount } = row;
    let is_fee = metric.is_none() && tiers.is_empty();
    let tier = |tier: &super::rows::TierColumns| TierCharged {
        plan: tier.plan.clone(),
        tier: tier.tier,
        quantity: tier.quantity,
        unit_price: tier.unit_price.clone(),
        exact: tier.exact.clone(),
    };
    // A quantity at the end of its range stands for more, too.
    let in_tiers = tiers.iter().try_fold(0_i128, |sum, tier| sum.checked_add(tier.quantity));
    let included = in_tiers.filter(|_| metric.is_some() && *quantity < u64::MAX);
    let included = included.and_then(|in_tiers| i128::from(*quantity).checked_sub(in_tiers));
    Charged {
        item: item.to_owned(),
        included: included.and_then(|included| u64::try_from(included).ok()).filter(|included| *included > 0),
        metric: metric.map(Measure::name),
        unit: *unit,
        model: model.clone(),
        quantity: (!is_fee).then_some(*quantity),
        tiers: tiers.iter().map(tier).collect(),
        exact: exact.clone(),
        amount: amount.clone(),
    }
}

fn adjusted(seq: u64, row: &AdjustmentColumns, local: &LocalTime) -> Adjusted {
    Adjusted {
        seq,
        period_start: utc(row.period_start),
        period_first_day: local.date(row.period_start),
        item: row.item.clone(),
        amount: row.amount.clone(),
        at: utc(row.at),
    }
}

/// Returns what changed of the bill since it was final, by tick.
fn corrections(start: EventTime, rows: &SubscriptionRows, local: &LocalTime) -> Vec<Correction> {
    let mut by_tick: BTreeMap<(EventTime, EventTime), Vec<(u64, &AdjustmentColumns)>> = BTreeMap::new();
    for (seq, row) in rows.adjustments.iter().filter(|(_, row)| row.period_start == start) {
        by_tick.entry((row.at, row.due_with)).or_default().push((*seq, row));
    }
    let numbered = by_tick.into_iter().zip(2..);
    numbered
        .map(|(((at, due_with), changed), number)| {
            let currency: Option<Currency> = changed.first().and_then(|(_, row)| row.currency.parse().ok());
            let amounts = || changed.iter().map(|(_, row)| row.amount.as_str());
            let amount = currency.and_then(|currency| Some(currency.text(sum(amounts(), currency)?)));
            Correction {
                number,
                at: utc(at),
                due_with: utc(due_with),
                due_with_first_day: local.date(due_with),
                lines: changed.iter().map(|(seq, row)| adjusted(*seq, row, local)).collect(),
                amount,
            }
        })
        .collect()
}

fn period(bill: &BillColumns, start: EventTime, local: &LocalTime) -> ReportPeriod {
    let end = bill.period_end;
    ReportPeriod {
        start: utc(start),
        end: utc(end),
        start_local: local.time(start),
        end_local: local.time(end),
        time_zone: local.calendar.name().to_owned(),
        first_day: local.date(start),
        last_day: local.date(end.saturating_sub(1)),
    }
}

fn quotas(start: EventTime, rows: &SubscriptionRows) -> Vec<PeriodQuota> {
    let of_period = rows.quotas.iter().filter(|((of, _), _)| *of == start);
    let quota = |((_, measure), row): (&(EventTime, Measure), &super::rows::QuotaColumns)| PeriodQuota {
        metric: measure.name(),
        limit: row.limit,
        used: row.used,
        hard: row.hard,
    };
    of_period.map(quota).collect()
}

/// Returns the use of each day of the period; `None` if no row says anything.
fn use_by_day(
    bill: &BillColumns,
    start: EventTime,
    rows: &SubscriptionRows,
    local: &LocalTime,
) -> Option<UseByDay> {
    let end = bill.period_end;
    let hours = rows.hours.within(start - start % HOUR_MS, end);
    let first_day = start - start % DAY_MS;
    let days = rows.days.within(first_day, end);
    // An hour that is gone would make a day look idle.
    let is_whole = |(day, used): &(EventTime, UseColumns)| {
        let is_inside = *day >= start && day + DAY_MS <= end;
        let hours = rows.hours.within(*day, day + DAY_MS).iter().map(|(_, hour)| u128::from(hour.calls));
        !is_inside || hours.sum::<u128>() == u128::from(used.calls)
    };
    let by_hours = !hours.is_empty() && (rows.has_all_hours || days.iter().all(is_whole));
    let utc = Calendar::utc();
    let (calendar, windows) = if by_hours { (&local.calendar, hours) } else { (&utc, days) };
    // A day of UTC at an end of the period may have only calls of another period.
    if windows.is_empty() || rows.has_all_hours && !by_hours {
        return None;
    }
    let mut used: BTreeMap<i64, Used> = BTreeMap::new();
    for (at, row) in windows {
        *used.entry(calendar.day((*at).max(start))).or_default() += row.into();
    }
    let (first, last) = (calendar.day(start), calendar.day(end.saturating_sub(1)));
    let day = |day| DayUse { date: date(day), used: used.get(&day).copied() };
    Some(UseByDay {
        time_zone: calendar.name().to_owned(),
        splits_hours: by_hours && calendar.splits_hours(),
        days: (first..=last).map(day).collect(),
    })
}

fn counted(
    subscription: &str,
    bill: &BillColumns,
    start: EventTime,
    rows: &SubscriptionRows,
    local: &LocalTime,
    by_day: Option<&UseByDay>,
) -> CountedUse {
    let (hours, days) = (rows.hours.within(start, bill.period_end), rows.days.within(start, bill.period_end));
    let last = hours.last().map(|(at, _)| at + HOUR_MS).or(days.last().map(|(at, _)| at + DAY_MS));
    // Days of UTC aren't those of the period in other zones.
    let days = by_day.filter(|by_day| by_day.time_zone == local.calendar.name()).map(|by_day| &by_day.days);
    let used = days.map(|days| {
        let mut sum = Used::default();
        days.iter().filter_map(|day| day.used).for_each(|day| sum += day);
        sum
    });
    let month: String = local.date(start).chars().take(7).collect();
    CountedUse {
        used,
        counted_to: last.map(|at| local.time(at)),
        late_changes: rows.adjustments.values().filter(|row| row.period_start == start).count(),
        recount: vec![
            "keytide replay CONFIG --out recount".to_owned(),
            format!("keytide report month --from recount --subscription={} \\", shell_word(subscription)),
            format!("    --month {month} --out recounted"),
        ],
    }
}

/// Returns a text as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
