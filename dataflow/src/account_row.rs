//! Rows of the accounts of subscriptions: quotas, charges, bills, forecasts, notices and adjustments.
//!
//! Quantities count units of their measure; of [`Measure::Cost`] ten-thousandths of the currency's unit. Amounts are
//! minor units of the currency, such as cents.

use keytide_billing::{
    ChargeItem, Currency, Exact, Forecast, Measure, PeriodKind, PriceModel, PriceUnit, QuotaStanding,
};
use serde::{Deserialize, Serialize};

use crate::model::{EventTime, NameId};

/// The newest version of a row by its key; without a value the row is retracted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision<K, V> {
    pub key: K,
    pub value: Option<V>,
}

/// A quota of a subscription in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaKey {
    pub subscription: NameId,
    pub measure: Measure,
    pub period: PeriodKind,
    /// The period's first instant, in ms since the epoch.
    pub start_ms: EventTime,
}

/// A billing period of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BillKey {
    pub subscription: NameId,
    /// The period's first instant, in ms since the epoch.
    pub start_ms: EventTime,
}

/// A line of a bill, named by the period and the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChargeKey {
    pub bill: BillKey,
    pub item: ChargeItem<NameId>,
}

/// A line of a bill.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Charge {
    /// The quantity in the days of the plans that price the item; of fees and bounds zero.
    pub quantity: u128,
    /// `None` for fees and bounds, and where plans of the period differ in it. So are the next two.
    pub measure: Option<Measure>,
    pub unit: Option<PriceUnit>,
    pub model: Option<PriceModel>,
    /// The parts of the price, in the order of plans in the period and of tiers.
    pub parts: Vec<ChargePart>,
    /// The sum before rounding, in whole units of the currency.
    pub exact: Exact,
    pub amount: i128,
    pub currency: Currency,
}

/// The part of a charge that one tier of a plan's price makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChargePart {
    pub plan: NameId,
    /// The tier's place, from 1.
    pub tier: u32,
    /// The quantity that is billed in the tier. Negative where a change of plan moved it to another tier.
    pub quantity: i128,
    /// The price of a unit or a package.
    pub unit_price: Exact,
    /// The part of the sum, with the tier's flat price.
    pub exact: Exact,
}

/// The bill of a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BillRow {
    /// The first instant after the period, in ms since the epoch.
    pub end_ms: EventTime,
    pub currency: Option<Currency>,
    /// The sum of the charges and of `adjustments`; `None` if there is a fault.
    pub total: Option<i128>,
    /// The number of the bill's charges, without adjustments.
    pub lines: u32,
    /// The sum of what came after earlier bills were final, and is due with this one.
    pub adjustments: i128,
    /// True once the watermark passed the period's end + allowed lateness.
    pub complete: bool,
    /// True once the bill can't change any more.
    pub is_final: bool,
    /// The reason why there is no bill.
    pub fault: Option<AccountFault>,
    /// The subscription's customer; [`NameId::NONE`] if no row of a table says so.
    pub customer: NameId,
    /// The plan of the period's last days that are billed; [`NameId::NONE`] if no plan has terms.
    pub plan: NameId,
    /// The time zone whose days the period has, [`NameId::NONE`] for UTC.
    pub time_zone: NameId,
}

/// A reason why there is no bill, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountFault {
    /// The plan at fault; [`NameId::NONE`] if it is no single one.
    pub plan: NameId,
    /// The item of the plan, likewise.
    pub item: NameId,
    pub text: Box<str>,
}

/// The expected use of a quota's period at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ForecastRow {
    pub forecast: Forecast,
    /// The expected bill of a billing period, with fees.
    pub expected_amount: Option<i128>,
    pub currency: Option<Currency>,
}

/// A threshold of a quota that was crossed for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaNotice {
    pub key: QuotaKey,
    /// Counts the notices of a subscription, from 1.
    pub seq: u64,
    /// The threshold, in percent of the limit.
    pub percent: u16,
    pub standing: QuotaStanding,
    /// The time of the tick, in ms since the epoch.
    pub at_ms: EventTime,
    /// False if a higher threshold of the same quota was crossed in the same tick, which people are told of instead.
    pub is_highest: bool,
    /// The expected use of the period, where there is a history.
    pub forecast: Option<Forecast>,
    /// The currency of a limit of cost.
    pub currency: Option<Currency>,
    pub customer: NameId,
    pub plan: NameId,
    /// E-mail addresses of the subscription, separated by `;`.
    pub contacts: NameId,
    /// The subscription's time zone, [`NameId::NONE`] for UTC.
    pub time_zone: NameId,
}

/// A notice that people are told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaAlert {
    /// The row of `notices`, as it was published.
    pub json: String,
    /// The addresses of the subscription's contacts, each once.
    pub contacts: Vec<String>,
}

/// An amount that came after a bill was final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Adjustment {
    /// The bill that was final before.
    pub bill: BillKey,
    /// Counts the adjustments of a subscription, from 1.
    pub seq: u64,
    pub item: ChargeItem<NameId>,
    /// The amount by which the line should be higher. It is negative where the line was too high.
    pub amount: i128,
    pub currency: Currency,
    /// The first instant of the period with whose bill the amount is due.
    pub due_with_ms: EventTime,
    /// The time of the tick, in ms since the epoch.
    pub at_ms: EventTime,
}
