//! Quotas: how much of a limit is used, and which thresholds that crosses.
//!
//! A quota limits a measure in a period. A limit takes effect at once, and never changes what is used.
//!
//! With `used` and `limit` in units of the measure (cost: ten-thousandths of the currency's unit):
//!
//! ```text
//! remaining  max(0, limit - used)
//! permille   used x 1000 / limit, cut; with a limit of 0 at least 1000
//! threshold  crossed once used x 100 >= percent x limit and used > 0
//! ```
//!
//! Limits: 8 thresholds from 1 to 1,000 percent; limits below 2^63, as tools for SQL have no larger integer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exact::Exact;
use crate::measure::Measure;
use crate::period::Period;

/// The most thresholds of a quota.
const THRESHOLDS: usize = 8;
/// The highest threshold, in percent.
const HIGHEST_PERCENT: u16 = 1_000;
/// The word for no thresholds.
const NONE: &str = "none";

/// Percentages of a limit at which notice is given: ascending, each once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u16>", into = "Vec<u16>")]
pub struct QuotaThresholds(Box<[u16]>);

/// A list isn't one of thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotThresholds;

impl fmt::Display for NotThresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be at most 8 percentages from 1 to 1000 such as 80;90;100, or none")
    }
}

impl std::error::Error for NotThresholds {}

impl QuotaThresholds {
    /// Returns the percentages that a use crosses, ascending. The last one is the highest.
    #[must_use]
    pub fn crossed(&self, limit: u64, used: u128) -> &[u16] {
        let is_crossed =
            |percent: &u16| used > 0 && used.saturating_mul(100) >= u128::from(*percent) * u128::from(limit);
        &self.0[..self.0.partition_point(is_crossed)]
    }
}

/// 80, 90 and 100 percent.
impl Default for QuotaThresholds {
    fn default() -> Self {
        Self([80, 90, 100].into())
    }
}

impl TryFrom<Vec<u16>> for QuotaThresholds {
    type Error = NotThresholds;

    fn try_from(mut percents: Vec<u16>) -> Result<Self, NotThresholds> {
        percents.sort_unstable();
        percents.dedup();
        let is_one = percents.iter().all(|percent| (1..=HIGHEST_PERCENT).contains(percent));
        if is_one && percents.len() <= THRESHOLDS { Ok(Self(percents.into())) } else { Err(NotThresholds) }
    }
}

impl From<QuotaThresholds> for Vec<u16> {
    fn from(thresholds: QuotaThresholds) -> Self {
        thresholds.0.into()
    }
}

/// Reads percentages between `;`, with blanks around them and percent signs, in any order.
impl FromStr for QuotaThresholds {
    type Err = NotThresholds;

    fn from_str(text: &str) -> Result<Self, NotThresholds> {
        if text == NONE {
            return Ok(Self(Box::default()));
        }
        let percent = |part: &str| {
            let part = part.trim_matches(' ');
            let digits = part.strip_suffix('%').unwrap_or(part);
            digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))
        };
        // One more than allowed, so that a long list is seen to be too long, and isn't kept.
        let parts = text.split(';').take(4 * THRESHOLDS + 1).map(percent);
        let percents: Vec<u16> = parts.collect::<Option<_>>().ok_or(NotThresholds)?;
        if percents.len() > 4 * THRESHOLDS { Err(NotThresholds) } else { percents.try_into() }
    }
}

/// A text isn't a number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACount;

impl fmt::Display for NotACount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "must be a whole number below 2^63, such as 10000; a limit of cost an amount such as 49.90",
        )
    }
}

impl std::error::Error for NotACount {}

/// Reads a whole number: a limit, a bound of a tier, a size of a package. Some tools write 10000.0 or 1e4.
///
/// # Errors
///
/// The text isn't a whole number below 2^63, or has a point or an exponent and is above 10^12.
pub fn parse_count(text: &str) -> Result<u64, NotACount> {
    if text.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse().map_err(|_| NotACount).and_then(storable);
    }
    whole(text.parse().map_err(|_| NotACount)?)
}

/// Reads a limit in units of its measure. Of cost it is an amount, and is kept in ten-thousandths.
///
/// # Errors
///
/// The text isn't a whole number, or an amount with at most 12 digits before the point and 4 behind it.
pub fn parse_limit(measure: Measure, text: &str) -> Result<u64, NotACount> {
    if measure != Measure::Cost {
        return parse_count(text);
    }
    let amount: Exact = text.parse().map_err(|_| NotACount)?;
    whole(amount.times(10_000).map_err(|_| NotACount)?)
}

fn whole(sum: Exact) -> Result<u64, NotACount> {
    let (numerator, denominator) = sum.into();
    let whole = if denominator == 1 { u64::try_from(numerator) } else { return Err(NotACount) };
    whole.map_err(|_| NotACount).and_then(storable)
}

/// Returns a number that databases can store.
fn storable(count: u64) -> Result<u64, NotACount> {
    i64::try_from(count).map_or(Err(NotACount), |_| Ok(count))
}

/// How much may be used in a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaLimit {
    /// In units of the measure; of cost in ten-thousandths of the currency's unit.
    pub limit: u64,
    /// True if calls beyond the limit are to be refused.
    pub hard: bool,
    pub notify: QuotaThresholds,
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaStanding {
    /// In units of the measure, as the next two.
    pub limit: u64,
    pub used: u128,
    pub remaining: u64,
    /// The used part of the limit in thousandths, cut.
    pub permille: u64,
    pub hard: bool,
    /// When use counts from zero again, in ms since the epoch.
    pub resets_at_ms: u64,
}

impl QuotaStanding {
    /// Returns the standing of a quota, given what is used of it in the running period.
    #[must_use]
    pub fn new(quota: &QuotaLimit, used: u128, period: &Period) -> Self {
        let limit = quota.limit;
        let remaining = u128::from(limit).saturating_sub(used);
        let permille = match used.saturating_mul(1_000).checked_div(limit.into()) {
            Some(permille) => permille,
            None => used.saturating_mul(1_000).max(1_000),
        };
        Self {
            limit,
            used,
            remaining: u64::try_from(remaining).unwrap_or(limit),
            permille: u64::try_from(permille).unwrap_or(u64::MAX),
            hard: quota.hard,
            resets_at_ms: period.end_ms,
        }
    }

    /// Returns whether so much more use stays within the limit.
    #[must_use]
    pub fn admits(&self, more: u64) -> bool {
        self.used.saturating_add(more.into()) <= self.limit.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(text: &str) -> QuotaThresholds {
        text.parse().unwrap()
    }

    fn quota(limit: u64) -> QuotaLimit {
        QuotaLimit { limit, hard: true, notify: QuotaThresholds::default() }
    }

    fn period() -> Period {
        Period { start_ms: 0, end_ms: 1_000, days: 1, full_days: 1 }
    }

    #[test]
    fn thresholds_are_read_in_any_order() {
        assert_eq!(thresholds("80;90;100"), QuotaThresholds::default());
        assert_eq!(thresholds(" 100 ; 80%;90;80"), QuotaThresholds::default());
        assert_eq!(Vec::from(thresholds("1000;1")), [1, 1_000]);
        assert_eq!(Vec::from(thresholds("none")), [0; 0]);
        let many = (1..10).map(|percent| percent.to_string()).collect::<Vec<_>>().join(";");
        let repeated = "5;".repeat(1_000_000);
        for text in
            ["", ";", "80;", "0", "1001", "+80", "-80", "80.5", "80,90", "eighty", "80%%", &many, &repeated]
        {
            assert_eq!(
                text.parse::<QuotaThresholds>(),
                Err(NotThresholds),
                "{}",
                &text[..text.len().min(40)]
            );
        }
    }

    #[test]
    fn a_threshold_is_crossed_once_it_is_reached() {
        let default = QuotaThresholds::default();
        for (used, crossed) in [
            (0, &[][..]),
            (799, &[]),
            (800, &[80]),
            (899, &[80]),
            (999, &[80, 90]),
            (1_000, &[80, 90, 100]),
            (u128::MAX, &[80, 90, 100]),
        ] {
            assert_eq!(default.crossed(1_000, used), crossed, "{used}");
        }
        // Not a call too early where the percentage isn't a whole number.
        assert_eq!(thresholds("33").crossed(10, 3), [0; 0]);
        assert_eq!(thresholds("33").crossed(10, 4), [33]);
        assert_eq!(default.crossed(0, 0), [0; 0]);
        assert_eq!(default.crossed(0, 1), [80, 90, 100]);
    }

    #[test]
    fn limits_are_read_in_units_of_their_measure() {
        for (text, count) in [
            ("0", Ok(0)),
            ("9223372036854775807", Ok(9_223_372_036_854_775_807)),
            ("9223372036854775808", Err(NotACount)),
            ("18446744073709551616", Err(NotACount)),
            ("10000.0", Ok(10_000)),
            ("1e6", Ok(1_000_000)),
            ("0.5", Err(NotACount)),
            ("-1", Err(NotACount)),
            ("+1", Err(NotACount)),
            ("", Err(NotACount)),
        ] {
            assert_eq!(parse_count(text), count, "{text}");
            assert_eq!(parse_limit(Measure::Bytes, text), count, "{text}");
        }
        for (text, limit) in [
            ("49.90", Ok(499_000)),
            ("50", Ok(500_000)),
            ("0.00005", Err(NotACount)),
            ("999999999999", Ok(9_999_999_999_990_000)),
        ] {
            assert_eq!(parse_limit(Measure::Cost, text), limit, "{text}");
        }
    }

    #[test]
    fn a_standing_says_what_remains() {
        let standing = |limit, used| QuotaStanding::new(&quota(limit), used, &period());
        let full = standing(1_000, 1_234);
        assert_eq!((full.remaining, full.permille, full.resets_at_ms), (0, 1_234, 1_000));
        assert!(full.hard && !full.admits(1) && !full.admits(0));
        let part = standing(3, 2);
        assert_eq!((part.remaining, part.permille), (1, 666));
        assert!(part.admits(1) && !part.admits(2));
        assert_eq!((standing(0, 0).permille, standing(0, 5).permille), (1_000, 5_000));
        assert_eq!(standing(1, u128::MAX).permille, u64::MAX);
        assert!(!standing(u64::MAX, u128::MAX).admits(u64::MAX));
        assert_eq!(standing(u64::MAX, 0).remaining, u64::MAX);
    }

    proptest! {
        #[test]
        fn thresholds_are_crossed_in_order(
            percents in proptest::collection::vec(1_u16..1_001, 0..9), limit in any::<u64>(),
            used in any::<u64>(), more in any::<u64>(),
        ) {
            let Ok(thresholds) = QuotaThresholds::try_from(percents) else { return Ok(()) };
            let (used, more) = (u128::from(used), u128::from(more));
            let crossed = thresholds.crossed(limit, used);
            let expected: Vec<u16> = Vec::from(thresholds.clone()).into_iter()
                .filter(|percent| used > 0 && used * 100 >= u128::from(*percent) * u128::from(limit)).collect();
            prop_assert_eq!(crossed, &expected[..]);
            // More use never takes one back.
            prop_assert!(thresholds.crossed(limit, used + more).starts_with(crossed));
        }

        #[test]
        fn a_standing_adds_up(limit in any::<u64>(), used in any::<u64>(), more in any::<u64>()) {
            let standing = QuotaStanding::new(&quota(limit), used.into(), &period());
            prop_assert_eq!(standing.remaining, limit.saturating_sub(used));
            prop_assert_eq!(standing.admits(more), u128::from(used) + u128::from(more) <= limit.into());
            let after = QuotaStanding::new(&quota(limit), u128::from(used) + u128::from(more), &period());
            prop_assert!(after.remaining <= standing.remaining && after.permille >= standing.permille);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9;% ]{0,30}|[0-9.e+-]{0,20}|\\PC{0,40}") {
            if let Ok(thresholds) = text.parse::<QuotaThresholds>() {
                prop_assert!(thresholds.0.windows(2).all(|pair| pair[0] < pair[1]));
            }
            let _ = (parse_count(&text), parse_limit(Measure::Cost, &text));
        }
    }
}
