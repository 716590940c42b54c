//! The price of an item: a pure function of the quantity that a period has so far.
//!
//! An item is priced by the rows of a table, one row a tier. Let `q` be the quantity of the item's measure in the
//! period. The columns `up_to`, `included` and `package` count units of `unit`.
//!
//! ```text
//! b = max(0, q - included)                       what is billed; nothing costs nothing
//! unit:       unit_price x b / unit + flat_price
//! package:    unit_price x ceil(b / (package x unit)) + flat_price
//! graduated:  over the tiers that b reaches: unit_price x (b within the tier) / unit + flat_price
//! volume:     of the one tier that b lies in: unit_price x b / unit + flat_price
//! ```
//!
//! A tier has an upper bound and begins where the one before ends, so there are no gaps. Its bound belongs to it: with
//! `up_to` 10,000, unit 10,001 is the first of the next tier. A tier is reached when something lies in it. So a
//! `flat_price` is due with the first unit of its tier, and the price of no use is always 0. Fees without use are the
//! base fee of a plan. These are the models that Stripe calls per unit, graduated, volume and package pricing.
//!
//! `price` never falls under the models unit, graduated and package. Under volume it falls where a cheaper tier begins.
//!
//! Limits: 64 tiers an item; `up_to`, `included` and `package` below 2^64; units of at most 10^15.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exact::{Exact, Overflow};
use crate::measure::Measure;
use crate::money::Currency;

/// The most tiers of an item.
pub const TIERS: usize = 64;
/// The largest unit, as a quantity.
const LARGEST_UNIT: u64 = 1_000_000_000_000_000;

/// How the tiers of an item make its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PriceModel {
    /// Each unit costs the same.
    Unit,
    /// Each unit costs as the tier says that it lies in.
    Graduated,
    /// All units cost as the tier says that the last of them lies in.
    Volume,
    /// Packages are sold whole and count once they are begun.
    Package,
}

impl PriceModel {
    /// Every model, in the order of documents.
    pub const ALL: [Self; 4] = [Self::Unit, Self::Graduated, Self::Volume, Self::Package];

    /// Returns the name in tables and views.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Graduated => "graduated",
            Self::Volume => "volume",
            Self::Package => "package",
        }
    }
}

/// A text isn't the name of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAModel;

impl fmt::Display for NotAModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be one of unit, graduated, volume, package")
    }
}

impl std::error::Error for NotAModel {}

impl FromStr for PriceModel {
    type Err = NotAModel;

    fn from_str(text: &str) -> Result<Self, NotAModel> {
        Self::ALL.into_iter().find(|model| model.name() == text).ok_or(NotAModel)
    }
}

/// The quantity that a unit price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PriceUnit(u64);

/// Names of units: decimal multiples as of SI, binary ones as of IEC 80000-13.
const UNITS: [(&str, u64); 8] = [
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A text isn't a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAUnit;

impl fmt::Display for NotAUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a whole number from 1 to 10^15, or one of KB, MB, GB, TB, KiB, MiB, GiB, TiB")
    }
}

impl std::error::Error for NotAUnit {}

impl PriceUnit {
    /// One of the measure, such as a call.
    pub const ONE: Self = Self(1);

    /// Returns the unit as a quantity, 1 to 10^15.
    #[must_use]
    pub fn quantity(self) -> u64 {
        self.0
    }

    /// Returns the name of a quantity of bytes, such as `GiB`, if it has one.
    #[must_use]
    pub fn bytes_name(quantity: u64) -> Option<&'static str> {
        UNITS.iter().find(|(_, of)| *of == quantity).map(|(name, _)| *name)
    }
}

impl TryFrom<u64> for PriceUnit {
    type Error = NotAUnit;

    fn try_from(quantity: u64) -> Result<Self, NotAUnit> {
        if (1..=LARGEST_UNIT).contains(&quantity) { Ok(Self(quantity)) } else { Err(NotAUnit) }
    }
}

impl From<PriceUnit> for u64 {
    fn from(unit: PriceUnit) -> Self {
        unit.0
    }
}

impl FromStr for PriceUnit {
    type Err = NotAUnit;

    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        if let Some((_, quantity)) = UNITS.iter().find(|(name, _)| *name == text) {
            return Ok(Self(*quantity));
        }
        // Rust's own parser would read a sign.
        let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
        let quantity = text.parse::<u64>().ok().filter(|_| is_number);
        quantity.ok_or(NotAUnit)?.try_into()
    }
}

/// Writes the unit as a quantity.
impl fmt::Display for PriceUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A row of the table of prices: one tier of an item.
///
/// `None` is an empty cell. Columns that describe the item may be given in one of its rows, or alike in several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TierRow {
    pub measure: Measure,
    pub model: PriceModel,
    /// One, unless a row says another.
    pub unit: Option<PriceUnit>,
    /// The last unit of the tier. `None` is the last tier, which has no end.
    pub up_to: Option<u64>,
    /// The price of a unit, or of a package.
    pub unit_price: Exact,
    /// The fee that is due once the tier is reached.
    pub flat_price: Exact,
    /// Units of the period that cost nothing.
    pub included: Option<u64>,
    /// The number of units in a package.
    pub package: Option<u64>,
    /// The currency, where the table has it. It must be the plan's.
    pub currency: Option<Currency>,
}

/// Rows aren't the price of an item. Tiers are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceFault {
    NoTiers,
    TooManyTiers,
    /// A column that describes the item has another value than in an earlier tier.
    Differs {
        tier: usize,
        column: &'static str,
    },
    /// The bound isn't above that of the tier before.
    NotAscending {
        tier: usize,
    },
    /// A tier without a bound has a successor.
    NotLast {
        tier: usize,
    },
    /// The last tier has a bound.
    NoLast {
        tier: usize,
    },
    /// The model has a single price.
    OneTierOnly {
        model: PriceModel,
    },
    /// A package has no size.
    NoPackage,
    /// Only the model package has packages.
    NeedlessPackage,
    /// Cost is a measure without a price.
    PriceOfCost,
    /// A price of a tier is negative.
    Negative {
        tier: usize,
        column: &'static str,
    },
}

impl fmt::Display for PriceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTiers => f.write_str("the item has no tier: give it a row without `up_to`"),
            Self::TooManyTiers => write!(f, "the item has more than {TIERS} tiers: join some"),
            Self::Differs { tier, column } => write!(
                f,
                "tier {tier}: `{column}` differs from an earlier tier's: give all tiers of an item the same"
            ),
            Self::NotAscending { tier } => write!(
                f,
                "tier {tier}: `up_to` must be greater than 0 and than that of the tier before: \
                 put the tiers in ascending order, each bound once"
            ),
            Self::NotLast { tier } => write!(
                f,
                "tier {tier}: only the last tier has no `up_to`: give the tier a bound, or move it to the end"
            ),
            Self::NoLast { tier } => write!(
                f,
                "tier {tier}: the last tier must have no `up_to`: leave it empty, or add a tier for what lies beyond"
            ),
            Self::OneTierOnly { model } => write!(
                f,
                "the model {} has one tier: keep one row, or use graduated or volume",
                model.name()
            ),
            Self::NoPackage => f.write_str("the model package needs a `package` of at least 1 unit"),
            Self::NeedlessPackage => {
                f.write_str("`package` is only for the model package: leave it empty, or change `model`")
            }
            Self::Negative { tier, column } => {
                write!(f, "tier {tier}: `{column}` must not be negative: leave it empty, or lower the other prices")
            }
            Self::PriceOfCost => f.write_str(
                "`metric` must not be cost, which has no price: use calls, bytes_in, bytes_out, bytes or units",
            ),
        }
    }
}

impl std::error::Error for PriceFault {}

/// The price of an item as a function of a period's quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    measure: Measure,
    model: PriceModel,
    unit: PriceUnit,
    /// The part of the period's quantity that costs nothing.
    included: u128,
    /// The size of a package as a quantity; of other models one.
    package: u128,
    currency: Option<Currency>,
    tiers: Vec<Tier>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tier {
    /// The last quantity of the tier.
    up_to: u128,
    unit_price: Exact,
    flat_price: Exact,
}

/// The part of a price that is of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierPart {
    /// The place of the tier, from 0.
    pub tier: usize,
    /// The quantity that is billed in the tier. Negative where it was billed before, and now is in another tier.
    pub quantity: i128,
    /// The part of the price, with the tier's flat price.
    pub exact: Exact,
}

impl Price {
    /// Makes the price of an item from its rows: ascending by `up_to`, the one without it last.
    ///
    /// # Errors
    ///
    /// The rows aren't a price; the fault names the tier and the remedy.
    pub fn new(rows: &[TierRow]) -> Result<Self, PriceFault> {
        let (first, last) = rows.first().zip(rows.last()).ok_or(PriceFault::NoTiers)?;
        if rows.len() > TIERS {
            return Err(PriceFault::TooManyTiers);
        }
        let differs = |column, of: fn(&TierRow, &TierRow) -> bool| {
            let tier = rows.iter().position(|row| of(row, first));
            tier.map_or(Ok(()), |tier| Err(PriceFault::Differs { tier: tier + 1, column }))
        };
        differs("metric", |row, first| row.measure != first.measure)?;
        differs("model", |row, first| row.model != first.model)?;
        let unit = said(rows, "unit", |row| row.unit)?.unwrap_or(PriceUnit::ONE);
        let included = said(rows, "included", |row| row.included)?.unwrap_or_default();
        let package = said(rows, "package", |row| row.package)?;
        let currency = said(rows, "currency", |row| row.currency)?;

        if first.measure == Measure::Cost {
            return Err(PriceFault::PriceOfCost);
        }
        let model = first.model;
        if matches!(model, PriceModel::Unit | PriceModel::Package) && rows.len() > 1 {
            return Err(PriceFault::OneTierOnly { model });
        }
        let quantity = |units: u64| u128::from(units) * u128::from(unit.0);
        let package = match (model, package) {
            (PriceModel::Package, None | Some(0)) => return Err(PriceFault::NoPackage),
            (PriceModel::Package, Some(package)) => quantity(package),
            (_, Some(_)) => return Err(PriceFault::NeedlessPackage),
            (_, None) => 1,
        };
        for (tier, row) in (1..).zip(rows) {
            let prices = [("unit_price", row.unit_price), ("flat_price", row.flat_price)];
            if let Some((column, _)) = prices.into_iter().find(|(_, price)| *price < Exact::ZERO) {
                return Err(PriceFault::Negative { tier, column });
            }
        }
        let mut before = 0;
        for (tier, row) in (1..).zip(&rows[..rows.len() - 1]) {
            let up_to = row.up_to.ok_or(PriceFault::NotLast { tier })?;
            if up_to <= before {
                return Err(PriceFault::NotAscending { tier });
            }
            before = up_to;
        }
        if last.up_to.is_some() {
            return Err(PriceFault::NoLast { tier: rows.len() });
        }
        let tiers = rows.iter().map(|row| Tier {
            up_to: row.up_to.map_or(u128::MAX, quantity),
            unit_price: row.unit_price,
            flat_price: row.flat_price,
        });
        let tiers = tiers.collect();
        Ok(Self {
            measure: first.measure,
            model,
            unit,
            included: quantity(included),
            package,
            currency,
            tiers,
        })
    }

    /// Returns what is measured for the price.
    #[must_use]
    pub fn measure(&self) -> Measure {
        self.measure
    }

    /// Returns how the tiers make the price.
    #[must_use]
    pub fn model(&self) -> PriceModel {
        self.model
    }

    /// Returns the quantity that a unit price is for.
    #[must_use]
    pub fn unit(&self) -> PriceUnit {
        self.unit
    }

    /// Returns the price of a unit or a package in a tier, by its place from 0.
    #[must_use]
    pub fn unit_price(&self, tier: usize) -> Option<Exact> {
        self.tiers.get(tier).map(|tier| tier.unit_price)
    }

    /// Returns the currency that the rows name.
    #[must_use]
    pub fn currency(&self) -> Option<Currency> {
        self.currency
    }

    /// Returns the price of the quantity that a period has so far.
    ///
    /// # Errors
    ///
    /// The price can't be computed exactly.
    pub fn of(&self, quantity: u128) -> Result<Exact, Overflow> {
        self.parts(quantity)?.into_iter().try_fold(Exact::ZERO, |sum, part| sum.plus(part.exact))
    }

    /// Returns the parts of the price by tier, of the tiers that are reached.
    ///
    /// # Errors
    ///
    /// The price can't be computed exactly.
    pub fn parts(&self, quantity: u128) -> Result<Vec<TierPart>, Overflow> {
        let billed = quantity.saturating_sub(self.included);
        let mut parts = Vec::new();
        if billed == 0 {
            return Ok(parts);
        }
        let mut before = 0;
        for (place, tier) in self.tiers.iter().enumerate() {
            let is_last_reached = billed <= tier.up_to;
            let own = match self.model {
                PriceModel::Graduated => Some(billed.min(tier.up_to) - before),
                _ if is_last_reached => Some(billed),
                _ => None,
            };
            if let Some(own) = own {
                parts.push(self.part(place, tier, own)?);
            }
            if is_last_reached {
                break;
            }
            before = tier.up_to;
        }
        Ok(parts)
    }

    fn part(&self, place: usize, tier: &Tier, own: u128) -> Result<TierPart, Overflow> {
        let price = match self.model {
            PriceModel::Package => tier.unit_price.times(own.div_ceil(self.package))?,
            // The price of one first: its division by the unit may cancel with the quantity.
            _ => tier.unit_price.over(self.unit.0.into())?.times(own)?,
        };
        let quantity = i128::try_from(own).map_err(|_| Overflow)?;
        Ok(TierPart { tier: place, quantity, exact: price.plus(tier.flat_price)? })
    }

    /// Returns the parts by tier of what comes after the quantity `before`: price(before + own) - price(before).
    ///
    /// The sum of consecutive segments is the price of all of them, so nothing is granted or charged twice.
    ///
    /// # Errors
    ///
    /// The price can't be computed exactly.
    pub fn segment(&self, before: u128, own: u128) -> Result<Vec<TierPart>, Overflow> {
        let mut parts = self.parts(before.checked_add(own).ok_or(Overflow)?)?;
        for earlier in self.parts(before)? {
            match parts.iter_mut().find(|part| part.tier == earlier.tier) {
                Some(part) => {
                    part.quantity -= earlier.quantity;
                    part.exact = part.exact.minus(earlier.exact)?;
                }
                None => {
                    let (quantity, exact) = (-earlier.quantity, earlier.exact.negative());
                    parts.push(TierPart { tier: earlier.tier, quantity, exact });
                }
            }
        }
        parts.retain(|part| part.quantity != 0 || part.exact != Exact::ZERO);
        parts.sort_unstable_by_key(|part| part.tier);
        Ok(parts)
    }
}

/// Returns the value of a column that describes the item, where a row says it.
fn said<T: Copy + PartialEq>(
    rows: &[TierRow],
    column: &'static str,
    of: impl Fn(&TierRow) -> Option<T>,
) -> Result<Option<T>, PriceFault> {
    let mut found = None;
    for (tier, row) in (1..).zip(rows) {
        let value = of(row);
        if found.is_some() && value.is_some() && value != found {
            return Err(PriceFault::Differs { tier, column });
        }
        found = found.or(value);
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests;
