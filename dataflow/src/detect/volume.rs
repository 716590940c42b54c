//! How unusual a count is for the time of the week, by a key's own history.
//!
//! With a window's count x (a whole number, or what stands for one, not negative), y = ln(1 + x), and the slot s that the window lies in (workday or weekend, hour of the
//! owner's clock):
//! * the baseline is b = l + w S\[s\], the level l and the season's shift of the slot, weighted by how often the slot
//!   was seen: w = n/(n + 12);
//! * the spread is s2 = v + 1/(1 + e^b), v being learned and the second term the variance that ln(1 + x) has if x
//!   counts independent calls (delta method: Poisson variance over the square of the mean);
//! * z = (y - b)/sqrt(s2). Residuals are clipped at 4 sqrt(s2) before anything learns from them.
//!
//! Raw z-scores don't transfer between keys: batches, retries and gaps give each key a tail of its own. So the tail
//! is calibrated: Q is a running 99.5 % quantile of z by stochastic approximation (Robbins and Monro, 1951), B the
//! mean excess above it, and the tail beyond Q is taken as exponential (the peaks-over-threshold method with shape
//! 0; Pickands, 1975): bits = -log2(0.005) + (z - Q)/(B ln 2).
//!
//! A run of windows without calls is learned at once, as often as its first window. State: 104 bytes a scale, 480 bytes a season.

use serde::{Deserialize, Serialize};

use super::decay::WEEK;
use super::{Bits, DAY_MS, HOUR_MS};

/// Least variance of the residuals: a key on a timetable has none.
const LEAST_VARIANCE: f64 = 1e-3;
/// Residuals beyond so many standard deviations teach no more.
const CLIP: f64 = 4.0;
/// A slot counts half after so many windows.
const SLOT_WEIGHT: f64 = 12.0;
/// The quantile of z that tails start at.
const QUANTILE: f64 = 0.995;
/// Step of the quantile's approximation. With the density of a normal z at its quantile, 0.014, what is wrong with
/// the quantile halves every 1,000 windows.
const QUANTILE_STEP: f64 = 0.05;
/// The quantile and the mean excess of a normal z, to begin with.
const NORMAL_QUANTILE: f64 = 2.58;
const NORMAL_EXCESS: f64 = 0.4;
const LEAST_EXCESS: f64 = 0.2;
const EXCESS_GAIN: f64 = 0.05;
/// One excess counts so many times the mean at most.
const EXCESS_CLIP: f64 = 6.0;
/// -log2(1 - QUANTILE): what a count at the quantile says.
pub(crate) const TAIL_BITS: f64 = 7.643_856_189_774_724;

/// Workday or weekend, and the hour, by the clock of the key's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    weekend: bool,
    hour: u8,
}

impl Slot {
    /// The slot of a time by the clock that is so far ahead of UTC.
    #[must_use]
    pub fn at(time_ms: u64, ahead_of_utc_ms: i64) -> Self {
        let local = time_ms.saturating_add_signed(ahead_of_utc_ms);
        // The epoch was a Thursday.
        let weekend = (local / DAY_MS + 3) % 7 >= 5;
        Self { weekend, hour: (local / HOUR_MS % 24) as u8 }
    }

    /// Its index in arrays by day and hour.
    pub(super) fn index(self) -> (usize, usize) {
        (usize::from(self.weekend), usize::from(self.hour))
    }
}

/// What each slot adds to the level, shared by all scales of a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Season {
    shift: [[f64; 24]; 2],
    seen: [[u16; 24]; 2],
}

impl Season {
    fn shift(&self, slot: Slot) -> f64 {
        let (day, hour) = slot.index();
        let seen = f64::from(self.seen[day][hour]);
        seen / (seen + SLOT_WEIGHT) * self.shift[day][hour]
    }

    fn learn(&mut self, slot: Slot, residual: f64) {
        self.learn_run(slot, residual, 1);
    }

    /// Learns a residual that `run` windows in a row had, of which there are 60 in a slot at most.
    fn learn_run(&mut self, slot: Slot, residual: f64, run: u64) {
        let (day, hour) = slot.index();
        let seen = &mut self.seen[day][hour];
        *seen = seen.saturating_add(u16::try_from(run).unwrap_or(u16::MAX));
        let gain = (run as f64 / f64::from(*seen)).clamp(0.01, 0.3) * 0.5;
        self.shift[day][hour] += gain * residual;
    }
}

/// What a scale says of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// ln(1 + x) of the calls that are expected.
    level: f64,
    /// Standard deviations above the baseline.
    pub z: f64,
    /// Surprise; none up to the key's own 99.5 % quantile.
    pub bits: Bits,
    /// How much of it a count that is e times as large adds; from the quantile on.
    pub slope: Bits,
    /// By how much ln(1 + x) was above its baseline.
    pub residual: f64,
}

impl Reading {
    /// Returns the calls that are expected.
    #[must_use]
    pub fn expected(&self) -> f64 {
        expected(self.level)
    }
}

/// A count beside what is expected of it. What reads and learns it needs the same logarithm and spread.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    y: f64,
    baseline: f64,
    spread: f64,
}

/// Returns the count of a level.
fn expected(level: f64) -> f64 {
    libm::expm1(level.clamp(0.0, 40.0))
}

/// Counts of windows of one width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    width_ms: u64,
    level: f64,
    variance: f64,
    windows: u64,
    quantile: f64,
    excess: f64,
}

impl Scale {
    /// A scale of windows of a width, which has seen none.
    #[must_use]
    pub fn new(width_ms: u64) -> Self {
        Self {
            width_ms,
            level: 0.0,
            variance: 1.0,
            windows: 0,
            quantile: NORMAL_QUANTILE,
            excess: NORMAL_EXCESS,
        }
    }

    /// Returns the number of windows that it learned from.
    #[must_use]
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// The count that is expected in a window of a slot.
    #[must_use]
    pub fn expected(&self, season: &Season, slot: Slot) -> f64 {
        expected(self.level + season.shift(slot))
    }

    /// How unusual a count would be; nothing learns from it.
    #[must_use]
    pub fn read(&self, season: &Season, slot: Slot, count: f64) -> Reading {
        self.read_at(self.sight(season, slot, count))
    }

    /// Returns a count beside what is expected now.
    #[must_use]
    pub fn sight(&self, season: &Season, slot: Slot, count: f64) -> Sight {
        let baseline = self.level + season.shift(slot);
        Sight { y: libm::log1p(count), baseline, spread: self.spread(baseline) }
    }

    /// How unusual a count would be; nothing learns from it.
    #[must_use]
    pub fn read_at(&self, Sight { y, baseline, spread }: Sight) -> Reading {
        if self.windows == 0 {
            return Reading::default();
        }
        let residual = y - baseline;
        let z = residual / spread;
        let a_standard_deviation = 1.0 / (self.excess * std::f64::consts::LN_2);
        let bits = match z > self.quantile {
            true => Bits::new(TAIL_BITS + (z - self.quantile) * a_standard_deviation),
            false => Bits::NONE,
        };
        let slope = Bits::new(a_standard_deviation / spread);
        Reading { level: baseline, z, bits, slope, residual }
    }

    fn spread(&self, baseline: f64) -> f64 {
        // e^b overflows to infinity, whose reciprocal is the right limit.
        (self.variance + 1.0 / (1.0 + libm::exp(baseline))).sqrt()
    }

    /// Learns a count that was seen after everything that was learned before. The season learns from one scale of a key,
    /// by [`step`](Self::step).
    pub fn learn_at(&mut self, Sight { y, baseline, spread }: Sight, elapsed_ms: u64) -> f64 {
        if self.windows == 0 {
            self.windows = 1;
            self.level = y;
            return 0.0;
        }
        let residual = (y - baseline).clamp(-CLIP * spread, CLIP * spread);
        self.windows += 1;
        let gain = (1.0 - WEEK.left(elapsed_ms.max(1))).max(1.0 / self.windows as f64);
        self.level += gain * residual;
        self.variance = (self.variance + gain * (residual * residual - self.variance)).max(LEAST_VARIANCE);
        let z = (y - baseline) / spread;
        if z > self.quantile {
            let excess = (z - self.quantile).min(EXCESS_CLIP * self.excess);
            self.excess = (self.excess + EXCESS_GAIN * (excess - self.excess)).max(LEAST_EXCESS);
            self.quantile += QUANTILE_STEP * QUANTILE;
        } else {
            self.quantile -= QUANTILE_STEP * (1.0 - QUANTILE);
        }
        residual
    }

    /// Learns a run of windows of one slot without calls: what the first teaches, as often as they are many.
    pub fn learn_silence(&mut self, season: &mut Season, teach: bool, slot: Slot, run: u64) {
        if self.windows == 0 {
            return;
        }
        let baseline = self.level + season.shift(slot);
        let spread = self.spread(baseline);
        let residual = (-baseline).clamp(-CLIP * spread, CLIP * spread);
        self.windows += run;
        let gain = (1.0 - WEEK.left(run * self.width_ms)).max(run as f64 / self.windows as f64);
        self.level += gain * residual;
        self.variance = (self.variance + gain * (residual * residual - self.variance)).max(LEAST_VARIANCE);
        self.quantile -= run as f64 * QUANTILE_STEP * (1.0 - QUANTILE);
        if teach {
            season.learn_run(slot, residual, run);
        }
    }

    /// Passes over a time that nothing is learned from but that calls have become rare.
    pub fn doze(&mut self, span_ms: u64) {
        self.level *= WEEK.left(span_ms);
    }

    /// Expects a count in a slot from now on, if it is more than what was expected there.
    pub(super) fn step_to(&mut self, season: &Season, slot: Slot, count: f64) {
        self.level = self.level.max(libm::log1p(count) - season.shift(slot));
        self.windows = self.windows.max(1);
    }

    /// Learns a count that was seen after everything that was learned before, and the season with it.
    pub fn step(&mut self, season: &mut Season, slot: Slot, sight: Sight, elapsed_ms: u64) {
        let residual = self.learn_at(sight, elapsed_ms);
        season.learn(slot, residual);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::time::MINUTE_MS;

    /// 2025-06-02T00:00:00Z, a Monday.
    const MONDAY_MS: u64 = 1_748_822_400_000;

    /// Folds counts of minutes from Monday on.
    fn fold(counts: impl IntoIterator<Item = u64>) -> (Scale, Season, Vec<Reading>) {
        let (mut scale, mut season) = (Scale::new(MINUTE_MS), Season::default());
        let readings = (0..)
            .zip(counts)
            .map(|(minute, count)| {
                let slot = Slot::at(MONDAY_MS + minute * MINUTE_MS, 0);
                let sight = scale.sight(&season, slot, count as f64);
                let reading = scale.read_at(sight);
                scale.step(&mut season, slot, sight, MINUTE_MS);
                reading
            })
            .collect();
        (scale, season, readings)
    }

    /// Independent counts with a mean, by SplitMix64 and inversion (Devroye, 1986).
    fn poisson(mean: f64, seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
            let (mut count, mut term, mut sum) = (0_u32, (-mean).exp(), (-mean).exp());
            while unit > sum && count < 1_000 {
                count += 1;
                term *= mean / f64::from(count);
                sum += term;
            }
            u64::from(count)
        })
    }

    #[test]
    fn slots_follow_the_owners_clock() {
        let at = |hours: i64| Slot::at(MONDAY_MS, hours * 3_600_000).index();
        assert_eq!([at(0), at(9), at(-1)], [(0, 0), (0, 9), (1, 23)]);
        assert_eq!(Slot::at(0, -3_600_000).index(), (0, 0));
    }

    #[test]
    fn a_burst_stands_out_and_usual_counts_seldom_do() {
        for mean in [0.05, 1.0, 30.0, 400.0] {
            let (scale, season, readings) = fold(poisson(mean, 7).take(7 * 1_440));
            let odd = readings[1_440..].iter().filter(|reading| reading.bits > Bits::NONE).count();
            assert!(odd < 6 * 1_440 / 50, "{mean}: {odd}");
            let slot = Slot::at(MONDAY_MS + 7 * DAY_MS, 0);
            let burst = scale.read(&season, slot, mean * 20.0 + 60.0);
            assert!(burst.bits > Bits::new(20.0), "{mean}: {burst:?}");
            assert!(burst.expected() < mean * 1.5 + 1.0, "{mean}: {burst:?}");
        }
    }

    #[test]
    fn days_are_learned() {
        let counts = |minutes: u64| (0..minutes).map(|minute| if minute / 60 % 24 < 12 { 10 } else { 200 });
        let (scale, season, _) = fold(counts(14 * 1_440));
        let read = |hour: u64, count| {
            scale.read(&season, Slot::at(MONDAY_MS + 14 * DAY_MS + hour * HOUR_MS, 0), f64::from(count))
        };
        assert!(read(20, 200).bits < read(3, 200).bits);
        assert!(read(3, 200).bits > Bits::new(8.0), "{:?}", read(3, 200));
        assert_eq!(read(20, 200).bits, Bits::NONE);
    }

    #[test]
    fn a_timetable_without_any_variance_stays_finite() {
        let (scale, season, readings) = fold(std::iter::repeat_n(12, 3 * 1_440));
        assert!(readings.iter().all(|reading| reading.z.is_finite()));
        assert!(scale.variance >= LEAST_VARIANCE);
        assert!(scale.read(&season, Slot::at(MONDAY_MS, 0), 13.0).bits < Bits::new(8.0));
    }

    #[test]
    fn one_enormous_count_teaches_next_to_nothing() {
        let usual = || poisson(30.0, 3).take(1_440);
        let (before, season, _) = fold(usual());
        let (after, season_after, _) = fold(usual().chain([u64::MAX]).chain(poisson(30.0, 5).take(60)));
        let slot = Slot::at(MONDAY_MS + DAY_MS, 0);
        let (before, after) = (before.read(&season, slot, 300.0), after.read(&season_after, slot, 300.0));
        assert!(after.bits.get() > 0.8 * before.bits.get(), "{before:?} {after:?}");
    }

    #[test]
    fn silence_lowers_the_level() {
        let (mut scale, mut season, _) = fold(poisson(30.0, 3).take(1_440));
        let slot = Slot::at(MONDAY_MS + DAY_MS, 0);
        let before = scale.expected(&season, slot);
        (0..24).for_each(|_| scale.learn_silence(&mut season, true, slot, 60));
        let (after, variance) = (scale.expected(&season, slot), scale.variance);
        assert!(after < 0.5 * before, "{before} {after}");
        scale.doze(30 * DAY_MS);
        assert!(scale.level >= 0.0 && scale.expected(&season, slot) < after && scale.variance == variance);
    }

    proptest! {
        #[test]
        fn whatever_is_counted_readings_are_numbers(
            counts in prop::collection::vec(prop_oneof![0_u64..5, 0_u64..10_000, any::<u64>()], 1..200),
        ) {
            let (scale, season, readings) = fold(counts);
            prop_assert!(readings.iter().all(|reading| reading.z.is_finite() && reading.expected().is_finite()));
            let more = scale.read(&season, Slot::at(MONDAY_MS, 0), f64::MAX);
            prop_assert!(more.z.is_finite() && scale.variance.is_finite());
        }
    }
}
