//! How unusual counts are for the hour of the week: the seasonal part S of the model.
//!
//! Four scales, 5, 15, 30 and 60 minutes, sum the last rows. Of each sum y = ln(1 + x) is compared with its baseline
//! b = l + s, the level l and the season's shift s; z = (y - b)/sqrt(v + 1/(1 + e^b)); and z with the scale's own
//! [`Tail`]. S is the mean of the four scales' bits: one that finds nothing counts 0.
//!
//! **Season.** 48 slots, workday or weekend and hour, hold a shift each. A row lies between the middles of two hours, at
//! a distance a from that of its own hour, so that s doesn't jump at the full hour:
//!
//! ```text
//! s = (1 - a) w(k0) S[k0] + a w(k1) S[k1]      w(k) = n/(n + 12), n rows seen in slot k
//! ```
//!
//! **Learning.** A row is scored first and learned after. Level and variance keep a half-life of 28 days, and residuals
//! are clipped at 4 standard deviations. The first day's worth of rows is learned and not judged.
//!
//! A row is an interval, whether there was a call in it or not: of a key that is silent, zeros are counted.
//!
//! State: 2 KB at rows of 5 minutes, of which 768 bytes are shifts and 768 the bins of tails, both in `f32`. At finer
//! rows the sums grow, by 8 bytes for each row of 110 minutes.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Residual};
use super::sum::MovingSum;
use super::tail::Tail;
use crate::detect::decay::decay;
use crate::detect::{DAY_MS, HOUR_MS, Slot};
use crate::model::time::MINUTE_MS;

/// The widths of the scales in ms.
pub(crate) const SCALES_MS: [u64; 4] = [5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS];
/// The scale whose season drops are compared with, an hour's.
const SLOWEST: usize = SCALES_MS.len() - 1;
/// The half-life of levels, variances and tails in days.
const HALF_LIFE_DAYS: u64 = 28;
/// A slot's shift counts half after so many rows.
const SLOT_WEIGHT: f64 = 12.0;

/// How many rows of `step_ms` make `span_ms`, at least one.
pub(super) fn rows(span_ms: u64, step_ms: u64) -> u32 {
    #[expect(clippy::cast_sign_loss, reason = "it isn't negative")]
    let rows = (span_ms as f64 / step_ms as f64).round_ties_even() as u32;
    rows.max(1)
}

/// Slots of the week: two kinds of days, 24 hours.
type Slots<T> = [[T; 24]; 2];

/// A row's place in the week, between the middles of two hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    day: usize,
    /// The row's own hour, and the nearer of its neighbours. Both count as the same kind of day.
    hours: [usize; 2],
    /// The parts of the two in the row's shift, which add up to 1.
    parts: [f64; 2],
    /// The same, times how well their slots are known.
    weights: [f64; 2],
}

impl Place {
    fn new(time_ms: u64, seen: &Slots<u32>) -> Self {
        let (day, hour) = Slot::at(time_ms, 0).index();
        let phase = (time_ms % HOUR_MS) as f64 / HOUR_MS as f64 - 0.5;
        let neighbour = if phase > 0.0 { (hour + 1) % 24 } else { (hour + 23) % 24 };
        let (hours, parts) = ([hour, neighbour], [1.0 - phase.abs(), phase.abs()]);
        let weight = |place: usize| {
            let rows = f64::from(seen[day][hours[place]]);
            parts[place] * rows / (rows + SLOT_WEIGHT)
        };
        Self { day, hours, parts, weights: [weight(0), weight(1)] }
    }

    /// A level with the season's shift.
    fn above(&self, level: f64, shifts: &Slots<f32>) -> f64 {
        let shift = |place: usize| self.weights[place] * f64::from(shifts[self.day][self.hours[place]]);
        level + shift(0) + shift(1)
    }

    fn learn(&self, shifts: &mut Slots<f32>, gain: f64, residual: f64) {
        for (hour, part) in self.hours.into_iter().zip(self.parts) {
            let shift = &mut shifts[self.day][hour];
            *shift = (f64::from(*shift) + gain * part * residual) as f32;
        }
    }
}

/// Where a series stands when a row comes; all parts of the model go by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesRow {
    /// How many rows came before.
    pub(super) number: u64,
    /// False for the first day's worth of rows.
    pub(super) judged: bool,
    /// How much levels and variances learn of it.
    pub(super) gain: f64,
    /// The least part that is learned of it: the first rows count alike.
    pub(super) least_gain: f64,
    /// What older rows count after this one, if it ends a day's worth of them.
    pub(super) kept: Option<f64>,
    pub(super) place: Place,
}

/// What one scale says of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeasonalReading {
    /// ln(1 + x) of the scale's sum.
    pub(super) y: f64,
    /// Standard deviations above what is usual for the hour.
    pub(super) z: f64,
    pub(super) bits: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SeasonalScale {
    sum: MovingSum,
    baseline: Baseline,
    shifts: Slots<f32>,
    tail: Tail,
}

impl SeasonalScale {
    fn new(rows: u32) -> Self {
        let (sum, baseline) = (MovingSum::new(rows), Baseline::new(0.0));
        Self { sum, baseline, shifts: Slots::default(), tail: Tail::default() }
    }

    fn step(&mut self, row: SeriesRow, slot_gain: f64, count: f64) -> SeasonalReading {
        let y = self.sum.push(count);
        if row.number == 0 {
            self.baseline = Baseline::new(y);
        }
        let residual = self.baseline.residual(y, row.place.above(self.baseline.mean, &self.shifts));
        let z = residual.z();
        let bits = self.tail.judge(z, row.judged);
        let clipped = self.baseline.learn(residual, row.gain);
        row.place.learn(&mut self.shifts, slot_gain, clipped);
        if let Some(kept) = row.kept {
            self.tail.age(kept);
        }
        SeasonalReading { y, z, bits }
    }
}

/// The history of a count, by the hour of the week.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seasonal {
    rows: u64,
    day_rows: u32,
    /// How much levels and variances learn of a row.
    gain: f64,
    /// What the bins of tails keep of a day's worth of rows.
    kept: f64,
    seen: Slots<u32>,
    scales: [SeasonalScale; SCALES_MS.len()],
}

impl Seasonal {
    /// A history without rows, each of which will stand for `step_ms`.
    pub(crate) fn new(step_ms: u64) -> Self {
        Self {
            rows: 0,
            day_rows: rows(DAY_MS, step_ms),
            gain: 1.0 - decay(step_ms, HALF_LIFE_DAYS * DAY_MS),
            kept: decay(1, HALF_LIFE_DAYS),
            seen: Slots::default(),
            scales: SCALES_MS.map(|width_ms| SeasonalScale::new(rows(width_ms, step_ms))),
        }
    }

    /// Judges a row's count, a finite number that isn't negative, and learns it. Times are ms since the epoch.
    pub(crate) fn step(
        &mut self,
        time_ms: u64,
        count: f64,
    ) -> (SeriesRow, [SeasonalReading; SCALES_MS.len()]) {
        let (number, day_rows) = (self.rows, u64::from(self.day_rows));
        let least_gain = 1.0 / (number as f64 + 2.0);
        let place = Place::new(time_ms, &self.seen);
        let row = SeriesRow {
            number,
            judged: number >= day_rows,
            gain: self.gain.max(least_gain),
            least_gain,
            kept: (number + 1).is_multiple_of(day_rows).then_some(self.kept),
            place,
        };
        let seen = &mut self.seen[place.day][place.hours[0]];
        let slot_gain = 0.5 * (1.0 / (f64::from(*seen) + 1.0)).clamp(0.01, 0.3);
        *seen = seen.saturating_add(1);
        self.rows += 1;
        (row, self.scales.each_mut().map(|scale| scale.step(row, slot_gain, count)))
    }

    /// Compares ln(1 + x) of a longer sum with a level of its own and the season of an hour's.
    pub(super) fn residual(&self, baseline: &Baseline, row: SeriesRow, y: f64) -> Residual {
        baseline.residual(y, row.place.above(baseline.mean, &self.scales[SLOWEST].shifts))
    }

    /// Starts the sums anew: the next row doesn't follow the one before.
    pub(crate) fn interrupt(&mut self) {
        for scale in &mut self.scales {
            scale.sum.clear();
        }
    }
}

/// S of the module's formula, in bits.
pub(crate) fn mean_bits(readings: &[SeasonalReading; SCALES_MS.len()]) -> f64 {
    readings.iter().map(|reading| reading.bits).sum::<f64>() / SCALES_MS.len() as f64
}
