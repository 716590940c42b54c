//! The bill of a period, in which plans may have changed.
//!
//! A change of plan, or of a plan's prices, splits a period at a local day ([`days_by_terms`]). Each segment is priced by
//! its own plan, at the period's quantity after it less the quantity before it:
//!
//! ```text
//! segment = price(before + own) - price(before)
//! ```
//!
//! So included units and tiers count from the period's start whichever plan was in force: nothing is granted twice. If
//! the plan stays the same, segments add up to the price of the whole. So a change to the same plan changes nothing.
//!
//! Fees go by days. With `n` the days of a full period, and `d` those of a segment:
//!
//! ```text
//! base fee   sum over segments of base_fee x d / n
//! minimum    sum over segments with one of minimum x d / n
//! maximum    sum over segments with one of maximum x d / n, and of the others together the greater of
//!            what they cost (with base fees) and their minimums; no maximum if no segment has one
//! ```
//!
//! A period that is shorter than a full one, and days without a plan, thus cost their share. Minimum and maximum bound
//! the bill as a whole, base fee included. A line of the bill adds what is missing to the minimum, or takes back what is
//! beyond the maximum. As sums over days they don't depend on how the period is split.
//!
//! Each line is rounded once, half away from zero, and a bill is the sum of its rounded lines. Under the model volume a
//! segment can cost less than nothing, where its quantity makes earlier units cheaper.
//!
//! A final bill never changes. Later use is billed as the difference of two bills, line by line ([`Bill::since`]). So the
//! bill and its adjustments always are the bill of all use.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;
use crate::exact::{Exact, Overflow};
use crate::measure::BilledUse;
use crate::money::Currency;
use crate::period::Period;
use crate::price::{Price, TierPart};

/// The prices and fees of a plan, between two changes of its rows. `I` names an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanTerms<I> {
    currency: Currency,
    base_fee: Exact,
    minimum: Option<Exact>,
    maximum: Option<Exact>,
    prices: BTreeMap<I, Price>,
}

/// Rows aren't the terms of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermsFault<I> {
    /// The prices of an item are in another currency than the plan.
    OtherCurrency { item: I },
    /// The minimum is above the maximum.
    Bounds,
    /// A fee or a bound is negative.
    Negative { column: &'static str },
}

impl<I: Copy> TermsFault<I> {
    /// Returns the item whose prices are at fault, if it is one alone.
    #[must_use]
    pub fn item(&self) -> Option<I> {
        match self {
            Self::OtherCurrency { item } => Some(*item),
            Self::Bounds | Self::Negative { .. } => None,
        }
    }
}

/// Says what is wrong, but not of which item.
impl<I> fmt::Display for TermsFault<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCurrency { .. } => f.write_str(
                "`currency` differs from the plan's: give a plan and all of its prices one currency",
            ),
            Self::Bounds => {
                f.write_str("`minimum` must not be greater than `maximum`: lower it, or leave one empty")
            }
            Self::Negative { column } => {
                write!(f, "`{column}` must not be negative: leave it empty, or lower the prices")
            }
        }
    }
}

impl<I: fmt::Debug> std::error::Error for TermsFault<I> {}

impl<I: Ord + Clone> PlanTerms<I> {
    /// Makes the terms of a plan.
    ///
    /// # Errors
    ///
    /// The prices are in another currency, a fee is negative, or the bounds exclude each other.
    pub fn new(
        currency: Currency,
        base_fee: Exact,
        minimum: Option<Exact>,
        maximum: Option<Exact>,
        prices: BTreeMap<I, Price>,
    ) -> Result<Self, TermsFault<I>> {
        let fees = [("base_fee", Some(base_fee)), ("minimum", minimum), ("maximum", maximum)];
        if let Some((column, _)) = fees.into_iter().find(|(_, fee)| fee.is_some_and(|fee| fee < Exact::ZERO))
        {
            return Err(TermsFault::Negative { column });
        }
        if minimum.zip(maximum).is_some_and(|(minimum, maximum)| minimum > maximum) {
            return Err(TermsFault::Bounds);
        }
        let is_other = |price: &Price| price.currency().is_some_and(|named| named != currency);
        if let Some((item, _)) = prices.iter().find(|(_, price)| is_other(price)) {
            return Err(TermsFault::OtherCurrency { item: item.clone() });
        }
        Ok(Self { currency, base_fee, minimum, maximum, prices })
    }

    /// Returns the currency of all prices and fees.
    #[must_use]
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Returns the prices by item.
    #[must_use]
    pub fn prices(&self) -> &BTreeMap<I, Price> {
        &self.prices
    }
}

/// Days of a period with the terms of one plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanSegment<'a, I> {
    pub terms: &'a PlanTerms<I>,
    /// The number of local days.
    pub days: u32,
    /// The use of these days.
    pub used: BilledUse,
}

/// Terms, and since when they are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatedTerms<T> {
    /// In ms since the epoch; `None` is since ever.
    pub valid_from_ms: Option<u64>,
    /// `None` ends the terms before: there is no plan.
    pub terms: Option<T>,
}

/// Splits a period by the terms of its days, and leaves out days without any.
///
/// Terms count from the local day on in which they become valid. Of several on a day the latest count, and of equally
/// late ones the last. `calendar` is the one in effect in the period. Days are numbered as [`Calendar::day`] does.
#[must_use]
pub fn days_by_terms<'a, T>(
    calendar: &Calendar,
    period: &Period,
    dated: &'a [DatedTerms<T>],
) -> Vec<(Range<i64>, &'a T)> {
    let first = calendar.day(period.start_ms);
    let end = first + i64::from(period.days);
    let mut dated: Vec<&DatedTerms<T>> = dated.iter().collect();
    dated.sort_by_key(|dated| dated.valid_from_ms);
    let from = |dated: &DatedTerms<T>| dated.valid_from_ms.map_or(first, |at_ms| calendar.day(at_ms));
    let starts = dated.iter().map(|dated| from(dated).max(first));
    let ends = dated.iter().skip(1).map(|next| from(next).clamp(first, end)).chain([end]);
    let days = starts.zip(ends).zip(&dated).filter(|((start, end), _)| start < end);
    days.filter_map(|((start, end), dated)| Some((start..end, dated.terms.as_ref()?))).collect()
}

/// The subject of a line of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChargeItem<I> {
    /// The plans' fees without use.
    BaseFee,
    /// An item that has a price.
    Item(I),
    /// The amount that is missing to the minimum.
    Minimum,
    /// The amount beyond the maximum, negative.
    Maximum,
}

/// A line of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeLine<I> {
    pub item: ChargeItem<I>,
    /// The quantity in the segments that have the item; of fees and bounds zero.
    pub quantity: u128,
    /// Parts of the price, each with the place of its segment, in the order of segments and tiers.
    pub parts: Vec<(usize, TierPart)>,
    /// The sum before rounding. Of a bound it is the amount, because a bound starts from rounded lines.
    pub exact: Exact,
    /// Minor units of the currency.
    pub amount: i128,
}

/// The bill of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill<I> {
    pub currency: Currency,
    /// Lines in the order of their items, each item once.
    pub lines: Vec<ChargeLine<I>>,
    /// Minor units of the currency: the sum of the lines.
    pub total: i128,
}

/// A period has no bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillFault {
    /// A sum can't be computed exactly.
    Overflow,
    /// Two plans of the period are in different currencies.
    TwoCurrencies(Currency, Currency),
    /// No segment says which currency the bill has.
    NoSegment,
    /// The segments have more days than a full period, or that has none.
    Days { found: u64, full: u32 },
}

impl fmt::Display for BillFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow => write!(f, "the bill: {Overflow}"),
            Self::TwoCurrencies(first, other) => write!(
                f,
                "the bill has plans in {} and {}: let a plan in another currency begin with a period",
                first.code(),
                other.code()
            ),
            Self::NoSegment => f.write_str("the period has no plan on any day: give the subscription a plan"),
            Self::Days { found, full } => {
                write!(f, "the segments have {found} days, but must have at most the {full} of a full period")
            }
        }
    }
}

impl std::error::Error for BillFault {}

impl From<Overflow> for BillFault {
    fn from(_: Overflow) -> Self {
        Self::Overflow
    }
}

/// The bounds of a bill, summed over its segments.
#[derive(Default)]
struct Bounds {
    minimum: Exact,
    /// Of the segments with a maximum.
    maximum: Exact,
    has_maximum: bool,
    /// Costs and minimums of the segments without a maximum.
    unbounded: Exact,
    unbounded_minimum: Exact,
}

impl Bounds {
    /// Adds a segment that costs `cost`; `share` is a fee's part for its days.
    fn add<I>(
        &mut self,
        terms: &PlanTerms<I>,
        cost: Exact,
        share: impl Fn(Exact) -> Result<Exact, Overflow>,
    ) -> Result<(), Overflow> {
        let minimum = share(terms.minimum.unwrap_or_default())?;
        self.minimum = self.minimum.plus(minimum)?;
        if let Some(maximum) = terms.maximum {
            self.has_maximum = true;
            self.maximum = self.maximum.plus(share(maximum)?)?;
        } else {
            self.unbounded = self.unbounded.plus(cost)?;
            self.unbounded_minimum = self.unbounded_minimum.plus(minimum)?;
        }
        Ok(())
    }

    /// Returns the least and the greatest total, the former at most the latter.
    fn totals(self) -> Result<(Exact, Option<Exact>), Overflow> {
        let maximum = self.maximum.plus(self.unbounded.max(self.unbounded_minimum))?;
        Ok((self.minimum, self.has_maximum.then_some(maximum)))
    }
}

impl<I: Ord + Clone> Bill<I> {
    /// Bills a period from its segments in their order, of which a full period has `full_days` days.
    ///
    /// # Errors
    ///
    /// There is no segment, their currencies differ, they have too many days, or a sum can't be computed exactly.
    pub fn new(segments: &[PlanSegment<'_, I>], full_days: u32) -> Result<Self, BillFault> {
        let currency = segments.first().ok_or(BillFault::NoSegment)?.terms.currency;
        if let Some(other) = segments.iter().find(|segment| segment.terms.currency != currency) {
            return Err(BillFault::TwoCurrencies(currency, other.terms.currency));
        }
        let found = segments.iter().map(|segment| u64::from(segment.days)).sum();
        if full_days == 0 || found > full_days.into() {
            return Err(BillFault::Days { found, full: full_days });
        }

        let mut lines: BTreeMap<ChargeItem<I>, ChargeLine<I>> = BTreeMap::new();
        let mut bounds = Bounds::default();
        let mut before = BilledUse::default();
        for (place, segment) in segments.iter().enumerate() {
            let terms = segment.terms;
            let share = |fee: Exact| fee.times(segment.days.into())?.over(full_days.into());
            let base_fee = share(terms.base_fee)?;
            let mut cost = base_fee;
            if base_fee != Exact::ZERO {
                line(&mut lines, ChargeItem::BaseFee).add(0, base_fee)?;
            }
            for (item, price) in &terms.prices {
                let own = segment.used.of(price.measure())?;
                let line = line(&mut lines, ChargeItem::Item(item.clone()));
                line.add(own, Exact::ZERO)?;
                for part in price.segment(before.of(price.measure())?, own)? {
                    line.add(0, part.exact)?;
                    line.parts.push((place, part));
                    cost = cost.plus(part.exact)?;
                }
            }
            bounds.add(terms, cost, share)?;
            before = before.plus(&segment.used)?;
        }
        for line in lines.values_mut() {
            line.amount = currency.amount(line.exact)?;
        }
        let mut bill = Self { currency, lines: lines.into_values().collect(), total: 0 };
        bill.total = bill.sum()?;
        bill.bound(bounds)?;
        Ok(bill)
    }

    /// Adds the line that brings the total to its bounds, if it is beyond them.
    fn bound(&mut self, bounds: Bounds) -> Result<(), BillFault> {
        let (minimum, maximum) = bounds.totals()?;
        let minimum = self.currency.amount(minimum)?;
        let maximum = maximum.map(|maximum| self.currency.amount(maximum)).transpose()?;
        let (item, bound) = match maximum {
            _ if self.total < minimum => (ChargeItem::Minimum, minimum),
            Some(maximum) if self.total > maximum => (ChargeItem::Maximum, maximum),
            _ => return Ok(()),
        };
        let amount = bound.checked_sub(self.total).ok_or(BillFault::Overflow)?;
        let exact = self.currency.sum(amount)?;
        self.lines.push(ChargeLine { item, quantity: 0, parts: Vec::new(), exact, amount });
        self.total = self.sum()?;
        Ok(())
    }

    fn sum(&self) -> Result<i128, Overflow> {
        self.lines.iter().try_fold(0_i128, |sum, line| sum.checked_add(line.amount)).ok_or(Overflow)
    }

    /// Returns the amounts by line, in minor units.
    #[must_use]
    pub fn amounts(&self) -> BTreeMap<ChargeItem<I>, i128> {
        self.lines.iter().map(|line| (line.item.clone(), line.amount)).collect()
    }

    /// Returns what the bill has more than the amounts `billed` so far, by line, without lines that didn't change.
    ///
    /// # Errors
    ///
    /// A difference needs more than 127 bits.
    pub fn since(
        &self,
        billed: &BTreeMap<ChargeItem<I>, i128>,
    ) -> Result<BTreeMap<ChargeItem<I>, i128>, Overflow> {
        let mut differences = self.amounts();
        for (item, amount) in billed {
            let difference = differences.entry(item.clone()).or_default();
            *difference = difference.checked_sub(*amount).ok_or(Overflow)?;
        }
        differences.retain(|_, amount| *amount != 0);
        Ok(differences)
    }
}

/// Returns the line of an item, which may be new.
fn line<I: Ord + Clone>(
    lines: &mut BTreeMap<ChargeItem<I>, ChargeLine<I>>,
    item: ChargeItem<I>,
) -> &mut ChargeLine<I> {
    lines.entry(item).or_insert_with_key(|item| ChargeLine {
        item: item.clone(),
        quantity: 0,
        parts: Vec::new(),
        exact: Exact::ZERO,
        amount: 0,
    })
}

impl<I> ChargeLine<I> {
    fn add(&mut self, quantity: u128, exact: Exact) -> Result<(), Overflow> {
        self.quantity = self.quantity.checked_add(quantity).ok_or(Overflow)?;
        self.exact = self.exact.plus(exact)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
