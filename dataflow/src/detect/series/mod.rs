//! The score of a series of counts that isn't a key's, made for people who look at its plot.
//!
//! ```text
//!           ┌► sums of 5, 15, 30, 60 min ─┬► zS  against the hour of the week ──► tail ► S ─┐
//! counts ─┬─┘                             └► min(zS, zE)  zE against four days ─► tail ► M ─┼► max(M, 0.8 S, 0.7 D)
//!         └──► sum of 4 h ──────────────────► -zS ──────────────────────────────► tail ► D ─┘      └► hold ► bits
//! ```
//!
//! [`Seasonal`] computes S, [`Tail`] the bits of a z-score. The other parts:
//! * **M**, the less surprising of two references. e and u are mean and variance of y = ln(1 + x) with half-lives of 4 and 28
//!   days; zE = (y - e)/(sqrt(u) + 0.1). Counts that are unusual for the hour but were common in these days
//!   seldom mean anything to a person. M is the mean of the four scales' bits.
//! * **D**, drops. A sum of 4 hours has a level of its own and the season of the hourly sum.
//! * **Hold.** For 12 hours after a row that passed, only rows that exceed it by more than a bit pass. Others are 0. So
//!   one event is one row, or a few that climb.
//!
//! A row is scored first and learned after; its score depends on rows before it alone. Bits are rounded down to
//! quarters, as finer ones would make a threshold hang on chance.
//!
//! The sources: an exponential tail beyond a high quantile is the peaks-over-threshold method (Pickands, 1975). The
//! constants were found on the count series of the Numenta Anomaly Benchmark (Lavin and Ahmad, 2015).
//!
//! **Gaps.** A missing row isn't a row of 0: nothing is stepped for it. If more than an hour is missing, sums start anew.
//!
//! Limits: 0 to 40 bits, none on the first day. Steps below a second count as one, counts above 10^18 as 10^18. State:
//! 3.5 KB at rows of 5 minutes, and at finer ones 8 bytes more for each row of 350 minutes.

mod baseline;
mod seasonal;
mod sum;
mod tail;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::baseline::{Baseline, CLIP};
use self::seasonal::{SCALES_MS, Seasonal, SeasonalReading, SeriesRow, mean_bits, rows};
use self::sum::MovingSum;
use self::tail::Tail;
use super::decay::decay;
use super::{Bits, DAY_MS, HOUR_MS};

/// The parts of S and D in the score; M counts whole.
const SEASONAL_WEIGHT: f64 = 0.8;
const DROPS_WEIGHT: f64 = 0.7;
/// The half-life of the mean that M compares with.
const RECENT_HALF_LIFE_MS: u64 = 4 * DAY_MS;
const LEAST_RECENT_VARIANCE: f64 = 1e-4;
/// Added to the deviation from the mean of these days, in units of ln(1 + x).
const RECENT_SLACK: f64 = 0.1;
/// The width of the sum whose drops are judged.
const DROPS_MS: u64 = 4 * HOUR_MS;
/// How long a row holds back others that aren't more surprising.
const HOLD_MS: u64 = 12 * HOUR_MS;
/// By more than this a row must exceed the one that holds it back, in bits.
const RUNG_BITS: f64 = 1.0;
/// Bits are rounded down to multiples of 1/4.
const PARTS_OF_A_BIT: f64 = 4.0;
/// Sums start anew when more than this is missing between two rows.
const INTERRUPTION_MS: u64 = HOUR_MS;
/// The least step: finer rows would need more than 21,000 rows of memory.
const LEAST_STEP_MS: u64 = 1_000;
/// Larger counts could make a sum infinite.
const MOST_CALLS: f64 = 1e18;

/// Scores counts in the order of their times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    step_ms: u64,
    last_ms: Option<u64>,
    seasonal: Seasonal,
    recent: [Recent; SCALES_MS.len()],
    recent_gain: f64,
    drops: Drops,
    hold: Hold,
}

impl Series {
    /// A series whose rows are `step_ms` apart, as most are.
    #[must_use]
    pub fn new(step_ms: u64) -> Self {
        let step_ms = step_ms.max(LEAST_STEP_MS);
        Self {
            step_ms,
            last_ms: None,
            seasonal: Seasonal::new(step_ms),
            recent: Default::default(),
            recent_gain: 1.0 - decay(step_ms, RECENT_HALF_LIFE_MS),
            drops: Drops::new(rows(DROPS_MS, step_ms)),
            hold: Hold { rows: rows(HOLD_MS, step_ms), passed: None },
        }
    }

    /// Returns the surprise of a count, 0 to 40 bits in quarters, and learns it. Times are ms since the epoch (UTC). Rows
    /// whose time stands still or goes back are rows like others. A count that is negative or no number is a missing row.
    pub fn score(&mut self, time_ms: u64, count: f64) -> Bits {
        if count.is_nan() || count < 0.0 {
            return Bits::NONE;
        }
        let last_ms = self.last_ms.unwrap_or(time_ms);
        self.last_ms = Some(last_ms.max(time_ms));
        let missing_ms = time_ms.saturating_sub(last_ms).saturating_sub(self.step_ms);
        if missing_ms > INTERRUPTION_MS {
            self.seasonal.interrupt();
            self.drops.sum.clear();
        }

        let count = count.min(MOST_CALLS);
        let (row, readings) = self.seasonal.step(time_ms, count);
        let gain = self.recent_gain.max(row.least_gain);
        let mut recent_bits = 0.0;
        for (recent, reading) in self.recent.iter_mut().zip(readings) {
            recent_bits += recent.step(row, gain, reading);
        }
        let drops_bits = self.drops.step(&self.seasonal, row, count);
        let raw = (recent_bits / SCALES_MS.len() as f64)
            .max(SEASONAL_WEIGHT * mean_bits(&readings))
            .max(DROPS_WEIGHT * drops_bits);
        match self.hold.lets_pass(row.number, raw) {
            true => Bits::new((raw * PARTS_OF_A_BIT).floor() / PARTS_OF_A_BIT),
            false => Bits::NONE,
        }
    }
}

/// One scale against the mean of these days.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Recent {
    mean: f64,
    variance: f64,
    tail: Tail,
}

impl Recent {
    /// Returns the bits of the less surprising of the two references, and learns the row.
    fn step(&mut self, row: SeriesRow, gain: f64, reading: SeasonalReading) -> f64 {
        if row.number == 0 {
            (self.mean, self.variance) = (reading.y, 1.0);
        }
        let (residual, deviation) = (reading.y - self.mean, self.variance.sqrt() + RECENT_SLACK);
        let bits = self.tail.judge(reading.z.min(residual / deviation), row.judged);
        if let Some(kept) = row.kept {
            self.tail.age(kept);
        }
        let clipped = residual.clamp(-CLIP * deviation, CLIP * deviation);
        self.variance =
            (self.variance + row.gain * (clipped * clipped - self.variance)).max(LEAST_RECENT_VARIANCE);
        self.mean += gain * residual;
        bits
    }
}

/// The sum that falls when a series does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drops {
    sum: MovingSum,
    baseline: Baseline,
    tail: Tail,
}

impl Drops {
    fn new(rows: u32) -> Self {
        Self { sum: MovingSum::new(rows), baseline: Baseline::new(0.0), tail: Tail::default() }
    }

    /// Returns the bits of a drop, and learns the row, which the season has learned before.
    fn step(&mut self, seasonal: &Seasonal, row: SeriesRow, count: f64) -> f64 {
        let y = self.sum.push(count);
        if row.number == 0 {
            self.baseline = Baseline::new(y);
        }
        let residual = seasonal.residual(&self.baseline, row, y);
        let bits = self.tail.judge(-residual.z(), row.judged);
        if let Some(kept) = row.kept {
            self.tail.age(kept);
        }
        self.baseline.learn(residual, row.gain);
        bits
    }
}

/// Holds rows back that say the same as one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Hold {
    rows: u32,
    /// Number and bits of the last row that passed, however few its bits: there is no threshold.
    passed: Option<(u64, f64)>,
}

impl Hold {
    fn lets_pass(&mut self, row: u64, raw: f64) -> bool {
        let holding = self.passed.filter(|(at, _)| row.saturating_sub(*at) <= u64::from(self.rows));
        let passes = holding.is_none_or(|(_, bits)| raw > bits + RUNG_BITS);
        if passes {
            self.passed = Some((row, raw));
        }
        passes
    }
}
