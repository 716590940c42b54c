//! Backoff between attempts, and limits on the number of sends within any hour.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};
use serde::{Deserialize, Serialize};

const FIRST_MS: u64 = 2_000;
/// The longest wait after a failure.
pub(super) const LONGEST_MS: u64 = 5 * MINUTE_MS;

/// Returns the wait after `failures` failures in a row. It doubles from [`FIRST_MS`] to [`LONGEST_MS`]; jitter takes away
/// up to half of it, so that senders that failed together don't come back together.
pub(super) fn backoff_ms(failures: u32, jitter: &mut Jitter) -> u64 {
    let most = FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_MS);
    most - jitter(most / 2)
}

/// A source of random numbers below the one that it is given; 0 for 0.
pub(super) type Jitter = Box<dyn FnMut(u64) -> u64 + Send>;

/// Returns a source that is random enough to spread retries.
pub(super) fn jitter() -> Jitter {
    let state = RandomState::new();
    let mut number = 0_u64;
    Box::new(move |below| {
        number += 1;
        state.hash_one(number).checked_rem(below).unwrap_or(0)
    })
}

/// The times of the sends within the last hour, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SlidingHour(VecDeque<u64>);

impl SlidingHour {
    pub(super) fn add(&mut self, now: u64) {
        self.forget(now);
        self.0.push_back(now);
    }

    /// Moves times that a clock which was set back has not reached.
    pub(super) fn not_after(&mut self, now: u64) {
        self.0.iter_mut().for_each(|time| *time = (*time).min(now));
    }

    fn forget(&mut self, now: u64) {
        while self.0.front().is_some_and(|time| time + HOUR_MS <= now) {
            self.0.pop_front();
        }
    }

    /// Returns the earliest time at which one more send is within `limit`.
    pub(super) fn room(&mut self, limit: usize, now: u64) -> u64 {
        self.forget(now);
        match self.0.len().checked_sub(limit) {
            None => now,
            Some(over) => self.0.get(over).map_or(u64::MAX, |time| time + HOUR_MS),
        }
    }

    pub(super) fn count(&mut self, now: u64) -> usize {
        self.forget(now);
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_vary_by_half() {
        let (mut none, mut all): (Jitter, Jitter) = (Box::new(|_| 0), Box::new(|below| below));
        let longest: Vec<u64> = (1..=10).map(|failures| backoff_ms(failures, &mut none)).collect();
        assert_eq!(
            longest,
            [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]
        );
        assert_eq!(backoff_ms(1, &mut all), 1_000);
        assert_eq!(backoff_ms(u32::MAX, &mut all), 150_000);
        let mut random = jitter();
        assert!((0..1_000).all(|_| (150_000..=300_000).contains(&backoff_ms(50, &mut random))));
    }

    #[test]
    fn an_hour_has_room_for_its_limit() {
        let mut hour = SlidingHour::default();
        for now in [0, 10, 20] {
            assert_eq!(hour.room(3, now), now);
            hour.add(now);
        }
        assert_eq!(hour.room(3, 30), HOUR_MS);
        assert_eq!(hour.room(2, 30), HOUR_MS + 10);
        assert_eq!(hour.room(0, 30), u64::MAX);
        assert_eq!((hour.room(3, HOUR_MS), hour.count(HOUR_MS)), (HOUR_MS, 2));
    }
}
