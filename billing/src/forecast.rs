//! How much a period will have used at its end.
//!
//! Days of a week differ, so a day to come is expected to be as its weekday was. With `h` the totals of local days
//! and `d` a day to come:
//!
//! ```text
//! from 14 days of history on      mean(d) = sum w(k) h(d - 7k) / sum w(k),  w(k) = 2^(-k/2)
//!                                 over the last 56 days; k counts the weeks back, so the half-life is two weeks
//! before                          mean(d) = mean of the last 7 days
//! rest      = sum of mean(d) x (part of d before the period's end), today's part from now on
//! expected  = used + rest
//! ```
//!
//! The interval holds the end of four periods of five, if days scatter independently about their means:
//!
//! ```text
//! s^2       = sum of (h - mean)^2 / (n - m)    n days, m means (7, or 1); of a single day s = mean
//! variance  = s^2 x (sum of parts + sum over means of (its parts)^2 x sum w^2 / (sum w)^2)
//! low, high = expected -+ 1.2816 x sqrt(variance), low at least `used`
//! ```
//!
//! The first term is the scatter of the days to come, the second the error of the means themselves. Days that depend on
//! each other, such as a trend or a holiday, scatter more. (Montgomery, Peck, Vining, Introduction to Linear Regression
//! Analysis: prediction intervals.)
//!
//! It is computed in integers: means have 10 binary places, weights 16. So every machine gets the same result. Totals
//! from 2^40 on lose bits below their 40 highest ones, which is 10^-12 of them.
//!
//! Limits: 56 days of history, 62 days to come.

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;

/// Days of history that count.
const HISTORY_DAYS: usize = 56;
/// Days of history from which on weekdays are told apart.
const WEEKDAY_DAYS: usize = 14;
/// The number of days in a week.
const WEEK: usize = 7;
/// The longest time from now to the end of a period, in ms: 62 days.
const AHEAD_MS: u64 = 62 * 86_400_000;
/// More local days than that time can have, also with changes of offset.
const DAYS_AHEAD: usize = 66;
/// 2^(-k/2) x 2^16 for the last eight weeks.
const WEIGHTS: [u128; 8] = [65_536, 46_341, 32_768, 23_170, 16_384, 11_585, 8_192, 5_793];
/// Binary places of means and parts of days.
const PLACES: u32 = 10;
/// Bits of a total that count.
const TOTAL_BITS: u32 = 40;
/// The normal distribution's 90 % quantile, in ten-thousandths: 10 % of periods end beyond it on each side.
const QUANTILE: u128 = 12_816;

/// A period that isn't over, its use so far, and the use of earlier days.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    pub calendar: &'a Calendar,
    /// The instant up to which `used` counts, in ms since the epoch.
    pub now_ms: u64,
    /// The period's end, in ms since the epoch.
    pub end_ms: u64,
    /// The use of the period so far, today's included.
    pub used: u64,
    /// The use of each local day before today, the last one yesterday's. Begins with the subscription's first day.
    pub history: &'a [u64],
    pub limit: Option<u64>,
}

/// The expected use of a period at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forecast {
    pub expected: u64,
    /// One period of ten ends below.
    pub low: u64,
    /// One period of ten ends above.
    pub high: u64,
    /// When the expected use reaches the limit, in ms since the epoch: from `now_ms`, if it has, to the period's end.
    pub runs_out_at_ms: Option<u64>,
}

/// A part of a day to come.
struct Ahead {
    /// The day's place in `Means::means`.
    weekday: usize,
    start_ms: u64,
    part_ms: u64,
    /// The expected use, with binary places.
    expected: u128,
    /// The part of the day, with binary places.
    part: u128,
}

/// The expected use of days by weekday, with binary places, and how they scatter.
struct Means {
    /// By the number of days from today, modulo 7. All are equal if weekdays aren't told apart.
    means: [u128; WEEK],
    /// The sum of squared weights by the square of their sum, with binary places, likewise.
    errors: [u128; WEEK],
    /// True if all weekdays have one mean.
    is_one: bool,
    variance: u128,
}

impl Outlook<'_> {
    /// Returns the forecast of the period, unless there is no history, or the period ends in more than 62 days.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let history = &self.history[self.history.len().saturating_sub(HISTORY_DAYS)..];
        let most = history.iter().max()?;
        let shift = (u64::BITS - most.leading_zeros()).saturating_sub(TOTAL_BITS);
        let history: Vec<u128> = history.iter().map(|total| u128::from(total >> shift) << PLACES).collect();
        let means = Means::new(&history);
        let days = self.days_ahead(&means)?;

        let rest: u128 = days.iter().map(|day| day.expected).sum();
        let margin = means.variance_of(&days).isqrt() * QUANTILE / 10_000;
        let half = 1 << (PLACES - 1);
        let whole = |rest: u128| u64::try_from((rest << shift) >> PLACES).unwrap_or(u64::MAX);
        let up = (1 << PLACES) - 1;
        Some(Forecast {
            expected: self.used.saturating_add(whole(rest + half)),
            low: self.used.saturating_add(whole(rest.saturating_sub(margin))),
            high: self.used.saturating_add(whole(rest + margin + up)),
            runs_out_at_ms: self.runs_out_at_ms(&days, shift),
        })
    }

    /// Returns the parts of days between now and the period's end.
    fn days_ahead(&self, means: &Means) -> Option<Vec<Ahead>> {
        if self.end_ms.saturating_sub(self.now_ms) > AHEAD_MS {
            return None;
        }
        let today = self.calendar.day(self.now_ms);
        let mut days = Vec::new();
        for (from_today, day) in (0..DAYS_AHEAD).zip(today..) {
            let (first_ms, next_ms) = (self.calendar.day_start_ms(day), self.calendar.day_start_ms(day + 1));
            let (start_ms, end_ms) = (first_ms.max(self.now_ms), next_ms.min(self.end_ms));
            if start_ms >= self.end_ms {
                return Some(days);
            }
            // A date that the zone left out has no length.
            let Some(length_ms) = next_ms.checked_sub(first_ms).filter(|length_ms| *length_ms > 0) else {
                continue;
            };
            let part_ms = end_ms.saturating_sub(start_ms);
            let weekday = from_today % WEEK;
            let of_day = |sum: u128| sum * u128::from(part_ms) / u128::from(length_ms);
            let (expected, part) = (of_day(means.means[weekday]), of_day(1 << PLACES));
            days.push(Ahead { weekday, start_ms, part_ms, expected, part });
        }
        None
    }

    /// Returns when the limit is reached, if each day's use is spread evenly over it.
    fn runs_out_at_ms(&self, days: &[Ahead], shift: u32) -> Option<u64> {
        let Some(left) = self.limit?.checked_sub(self.used).filter(|left| *left > 0) else {
            return Some(self.now_ms);
        };
        let mut left = (u128::from(left) << PLACES) >> shift;
        for day in days {
            if left <= day.expected {
                let after_ms = (u128::from(day.part_ms) * left).checked_div(day.expected).unwrap_or_default();
                return Some(day.start_ms + u64::try_from(after_ms).unwrap_or(day.part_ms));
            }
            left -= day.expected;
        }
        None
    }
}

impl Means {
    /// Makes the means of a history that isn't empty, oldest day first.
    fn new(history: &[u128]) -> Self {
        if history.len() >= WEEKDAY_DAYS { Self::by_weekday(history) } else { Self::of_last_week(history) }
    }

    fn by_weekday(history: &[u128]) -> Self {
        let (mut means, mut errors, mut squares) = ([0; WEEK], [0; WEEK], 0);
        for weekday in 0..WEEK {
            // Yesterday is as the day six days from today.
            let of_weekday = || history.iter().rev().skip(WEEK - 1 - weekday).step_by(WEEK);
            let weighted = || of_weekday().zip(WEIGHTS);
            let weights: u128 = weighted().map(|(_, weight)| weight).sum();
            let sum: u128 = weighted().map(|(total, weight)| total * weight).sum();
            let mean = (sum + weights / 2) / weights;
            let square: u128 = weighted().map(|(_, weight)| weight * weight).sum();
            means[weekday] = mean;
            errors[weekday] = (square << PLACES) / (weights * weights);
            squares += of_weekday().map(|total| total.abs_diff(mean).pow(2)).sum::<u128>();
        }
        Self { means, errors, is_one: false, variance: squares / (history.len() - WEEK) as u128 }
    }

    fn of_last_week(history: &[u128]) -> Self {
        let week = &history[history.len().saturating_sub(WEEK)..];
        let count = week.len() as u128;
        let mean = (week.iter().sum::<u128>() + count / 2) / count;
        let squares: u128 = week.iter().map(|total| total.abs_diff(mean).pow(2)).sum();
        // A single day says nothing of scatter.
        let variance = squares.checked_div(count - 1).unwrap_or(mean.pow(2));
        Self { means: [mean; WEEK], errors: [(1 << PLACES) / count; WEEK], is_one: true, variance }
    }

    /// Returns the variance of the use of days.
    fn variance_of(&self, days: &[Ahead]) -> u128 {
        let mut parts = [0; WEEK];
        for day in days {
            parts[if self.is_one { 0 } else { day.weekday }] += day.part;
        }
        // Below 2^106 x 2^16: each product loses its places before the next.
        let times = |variance: u128, factor: u128| (variance * factor) >> PLACES;
        let scatter = times(self.variance, parts.iter().sum());
        let of_mean =
            |(part, error): (&u128, &u128)| times(times(times(self.variance, *part), *part), *error);
        scatter + parts.iter().zip(&self.errors).map(of_mean).sum::<u128>()
    }
}

#[cfg(test)]
mod tests;
