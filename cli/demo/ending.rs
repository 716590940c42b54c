//! The rule by which a demo ends, without clock and job.
//!
//! Its duration counts from the moment at which the job has read the history. Then it waits for its leak, as long as the
//! leak can be found: that is a matter of the traffic's time, not of the clock. So a busy machine takes longer, and ends
//! with the incident all the same.

use std::time::Duration;

/// What is known of the staged leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StagedLeak {
    None,
    Awaited,
    Found,
    /// The time in which it could be found is over.
    Missed,
}

/// The end of a demo, which comes some time after live traffic began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    duration: Duration,
    /// Time from the demo's start to live traffic.
    live_after: Option<Duration>,
}

impl Ending {
    /// Returns the ending of a demo with `duration` of live traffic.
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, live_after: None }
    }

    /// Takes in whether the job still reads the history, so long after the start.
    pub(super) fn look(&mut self, elapsed: Duration, is_reading: bool) {
        if !is_reading {
            self.live_after.get_or_insert(elapsed);
        }
    }

    /// Returns how long after the start the duration is over; `None` while the job reads the history.
    pub(super) fn expected(&self) -> Option<Duration> {
        Some(self.live_after? + self.duration)
    }

    /// Returns whether the demo is over.
    pub(super) fn is_over(&self, elapsed: Duration, leak: StagedLeak) -> bool {
        self.expected().is_some_and(|end| elapsed >= end) && leak != StagedLeak::Awaited
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::{MINUTE_ENDS_AFTER_MS, STORY_MS};
    use super::*;

    /// A machine on which a demo runs.
    struct Machine {
        reading_ms: u64,
        /// How much of a second of traffic the job reads in a second, in percent.
        speed: u64,
        /// Time between two looks at the clock.
        frame_ms: u64,
    }

    /// Runs a demo; returns the leak at its end, and how long after live traffic began it ended, in ms.
    fn end(machine: &Machine, duration_ms: u64, found_at_ms: Option<u64>) -> (StagedLeak, u64) {
        let mut ending = Ending::new(Duration::from_millis(duration_ms));
        for frame in 0.. {
            let elapsed_ms = frame * machine.frame_ms;
            let elapsed = Duration::from_millis(elapsed_ms);
            ending.look(elapsed, elapsed_ms < machine.reading_ms);
            let read_ms = elapsed_ms.saturating_sub(machine.reading_ms) * machine.speed / 100;
            let leak = match found_at_ms {
                Some(found_at_ms) if read_ms >= found_at_ms => StagedLeak::Found,
                _ if read_ms >= STORY_MS => StagedLeak::Missed,
                _ => StagedLeak::Awaited,
            };
            if ending.is_over(elapsed, leak) {
                return (leak, elapsed_ms - machine.reading_ms);
            }
        }
        unreachable!("frames don't end")
    }

    #[test]
    fn a_slow_clock_and_a_starved_worker_still_end_with_the_incident() {
        let found_at_ms = MINUTE_ENDS_AFTER_MS + 6_000;
        for reading_ms in [2_000, 30_000, 600_000] {
            for speed in [100, 50, 10, 1] {
                for frame_ms in [100, 7_000, 60_000] {
                    let machine = Machine { reading_ms, speed, frame_ms };
                    let (leak, after_ms) = end(&machine, 40_000, Some(found_at_ms));
                    assert_eq!(leak, StagedLeak::Found, "{reading_ms} {speed} {frame_ms}");
                    let least_ms = (found_at_ms * 100 / speed).max(40_000);
                    assert!((least_ms..=least_ms + 2 * frame_ms).contains(&after_ms), "{after_ms}");
                }
            }
        }
    }

    #[test]
    fn a_leak_that_is_not_found_is_waited_for_a_minute_longer_than_it_takes() {
        let machine = Machine { reading_ms: 5_000, speed: 100, frame_ms: 100 };
        assert_eq!(end(&machine, 40_000, None), (StagedLeak::Missed, MINUTE_ENDS_AFTER_MS + 60_000));
        assert_eq!(end(&machine, 600_000, None), (StagedLeak::Missed, 600_000));
    }

    #[test]
    fn the_history_does_not_count() {
        let mut ending = Ending::new(Duration::from_secs(40));
        ending.look(Duration::from_secs(100), true);
        assert!(ending.expected().is_none() && !ending.is_over(Duration::from_secs(100), StagedLeak::None));
        ending.look(Duration::from_secs(101), false);
        ending.look(Duration::from_secs(120), true);
        assert_eq!(ending.expected(), Some(Duration::from_secs(141)));
        assert!(!ending.is_over(Duration::from_secs(140), StagedLeak::None));
        assert!(ending.is_over(Duration::from_secs(141), StagedLeak::None));
    }
}
