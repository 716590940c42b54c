//! Half-lives: what is left of something after a time, if half of it is left after the half-life.
//!
//! Windows begin and end at whole minutes, and most keys are called again within hours. So the powers of two of whole
//! minutes are computed once, up to four hours, and looked up. A table has the bits that `libm` returns.
//!
//! Limits: 241 entries a half-life, 2 KB each: more would be looked up too rarely to stay in a processor's cache.

use std::sync::OnceLock;

use super::{DAY_MS, HOUR_MS, MINUTE_MS};

/// The entries of a table: four hours and none.
const MINUTES: usize = 241;

/// What is left of habits, whose half-life is a week.
pub(super) static WEEK: HalfLife = HalfLife::of(7 * DAY_MS);
/// What is left of remembered values: 30 days.
pub(super) static MONTH: HalfLife = HalfLife::of(30 * DAY_MS);
/// What is left of the discovery rate: two days.
pub(super) static TWO_DAYS: HalfLife = HalfLife::of(2 * DAY_MS);
/// What is left of a rate: four weeks.
pub(super) static FOUR_WEEKS: HalfLife = HalfLife::of(28 * DAY_MS);
/// What is left of an hour of a workday. It comes five times in a week's 168, so this is 5/168 of four weeks.
pub(super) static WORKDAY_HOUR: HalfLife = HalfLife::of(20 * HOUR_MS);
/// What is left of an hour of a weekend, which comes twice a week: 2/168 of four weeks.
pub(super) static WEEKEND_HOUR: HalfLife = HalfLife::of(8 * HOUR_MS);

/// A half-life with its powers of two.
pub(super) struct HalfLife {
    ms: u64,
    minutes: OnceLock<[f64; MINUTES]>,
}

impl HalfLife {
    const fn of(ms: u64) -> Self {
        Self { ms, minutes: OnceLock::new() }
    }

    /// Returns what is left after a time.
    pub(super) fn left(&self, elapsed_ms: u64) -> f64 {
        let minute = elapsed_ms / MINUTE_MS;
        if minute >= MINUTES as u64 || minute * MINUTE_MS != elapsed_ms {
            return decay(elapsed_ms, self.ms);
        }
        let of_minute = |minute| decay(minute as u64 * MINUTE_MS, self.ms);
        self.minutes.get_or_init(|| std::array::from_fn(of_minute))[minute as usize]
    }
}

/// Returns what is left of something after `elapsed_ms` if half of it is left after `half_life_ms`.
pub(super) fn decay(elapsed_ms: u64, half_life_ms: u64) -> f64 {
    libm::exp2(-(elapsed_ms as f64) / half_life_ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_bits_of_the_function() {
        for half_life in [&WEEK, &MONTH, &TWO_DAYS, &FOUR_WEEKS, &WORKDAY_HOUR, &WEEKEND_HOUR] {
            for minute in 0..2 * MINUTES as u64 {
                for elapsed_ms in [0, 1, MINUTE_MS / 2, MINUTE_MS - 1].map(|more| minute * MINUTE_MS + more) {
                    let exact = libm::exp2(-(elapsed_ms as f64) / half_life.ms as f64);
                    assert_eq!(half_life.left(elapsed_ms).to_bits(), exact.to_bits(), "{elapsed_ms}");
                }
            }
            assert_eq!(half_life.left(half_life.ms), 0.5);
            assert_eq!(half_life.left(u64::MAX), 0.0);
        }
    }

    #[test]
    fn hours_of_a_week_have_their_share_of_four_weeks() {
        for minute in 0..100_000 {
            let elapsed_ms = minute * MINUTE_MS;
            for (half_life, times) in [(&WORKDAY_HOUR, 5), (&WEEKEND_HOUR, 2)] {
                let exact = decay(elapsed_ms * 168 / times, FOUR_WEEKS.ms);
                assert_eq!(half_life.left(elapsed_ms).to_bits(), exact.to_bits(), "{minute} {times}");
            }
        }
    }
}
