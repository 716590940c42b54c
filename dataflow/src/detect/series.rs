//! The volume signal over a series of counts that isn't a key's: for judging it on one's own history.
//!
//! The windows are the series' own: each count is taken as that of the time since the one before, at most of a day.
//! The first day is learned and not judged. Where fewer than 20 calls are expected, a count must be odd by the
//! gamma-Poisson rate as well.

use super::{Bits, DAY_MS, Rate, Scale, Season, Slot};

/// Counts below which the rate has a say.
pub(super) const FEW: f64 = 20.0;

/// Scores counts in the order of their times.
#[derive(Clone, Debug)]
pub struct Series {
    step_ms: u64,
    scale: Scale,
    season: Season,
    rate: Rate,
    first_ms: Option<u64>,
    last_ms: u64,
}

impl Series {
    /// A series with windows of `step_ms`.
    #[must_use]
    pub fn new(step_ms: u64) -> Self {
        let step_ms = step_ms.max(1);
        Self {
            step_ms,
            scale: Scale::new(step_ms),
            season: Season::default(),
            rate: Rate::default(),
            first_ms: None,
            last_ms: 0,
        }
    }

    /// The surprise of a count, not capped; then it is learned. Times (ms since the epoch, UTC) that stand still or
    /// go back count as the least step there is.
    pub fn score(&mut self, time_ms: u64, count: f64) -> Bits {
        let elapsed_ms = match self.first_ms {
            None => self.step_ms,
            Some(_) => time_ms.saturating_sub(self.last_ms).clamp(1, DAY_MS),
        };
        let first_ms = *self.first_ms.get_or_insert(time_ms);
        self.last_ms = time_ms.max(self.last_ms);
        let slot = Slot::at(time_ms, 0);
        let by_rate = self.rate.bits(slot, elapsed_ms, count);
        self.rate.learn(slot, elapsed_ms, count);
        let reading = self.scale.step(&mut self.season, slot, count, elapsed_ms);
        match (time_ms.saturating_sub(first_ms) < DAY_MS, reading.expected < FEW) {
            (true, _) => Bits::NONE,
            (false, true) => reading.bits.min(by_rate),
            (false, false) => reading.bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_day_is_not_judged_and_a_burst_later_is() {
        let mut series = Series::new(300_000);
        let mut at = 1_425_000_000_000;
        let mut score = |count: f64| {
            at += 300_000;
            series.score(at, count)
        };
        assert_eq!(score(5.0), Bits::NONE);
        assert_eq!(score(5_000.0), Bits::NONE);
        for n in 0..4_000 {
            score(f64::from(50 + n % 7));
        }
        assert_eq!(score(52.0), Bits::NONE);
        assert!(score(500.0) > Bits::new(15.0));
    }

    #[test]
    fn times_that_stand_still_or_go_back_are_no_trouble() {
        let mut series = Series::new(300_000);
        for at in [5, 5, 3, 1_000_000_000_000, 0, u64::MAX, 7] {
            let bits = series.score(at, 10.0);
            assert!(bits <= Bits::MOST);
        }
    }
}
