//! The arithmetic of bills, quotas and forecasts.
//!
//! Pure: no input, no output, no clock, and no number of floating point. A result depends on nothing but the
//! arguments, so that a replay on another machine gives the same bill. A sum that can't be computed exactly is
//! an [`Overflow`], never a wrong number.

mod calendar;
mod exact;
mod forecast;
mod measure;
mod money;
mod period;
mod price;
mod quota;
mod segment;

pub use self::calendar::{Calendar, HourDays, UnknownZone, zone_name, zone_names, zone_version};
pub use self::exact::{Exact, NotAPrice, Overflow};
pub use self::forecast::{Forecast, Outlook};
pub use self::measure::{BilledUse, Measure, NotAMeasure};
pub use self::money::{Currency, NotACurrency};
pub use self::period::{Anchor, NotAPeriod, NotAnAnchor, Period, PeriodKind, PeriodSetting, Periods};
pub use self::price::{
    NotAModel, NotAUnit, Price, PriceFault, PriceModel, PriceUnit, TIERS, TierPart, TierRow,
};
pub use self::quota::{
    NotACount, NotThresholds, QuotaLimit, QuotaStanding, QuotaThresholds, parse_count, parse_limit,
};
pub use self::segment::{
    Bill, BillFault, ChargeItem, ChargeLine, DatedTerms, PlanSegment, PlanTerms, TermsFault, days_by_terms,
};

#[cfg(test)]
mod tests;
