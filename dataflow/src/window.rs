//! Defines the levels of windows, where their windows lie in event time, and how long they are held.
//!
//! All windows are aligned to UTC. A window is named by its level and start. The watermark `w` decides its state:
//! * A window is *closed* once `w` passed its end. Its content has then been merged into the next coarser level.
//! * A window is *complete* once `w` passed its end + allowed lateness.
//! * A window is *final*, and forgotten, once `w` passed its end + [`Level::hold`].
//!
//! Windows of a level are contiguous. So a window's start is compared with one instant a level and tick
//! (`level.start(w - ...)`), and nothing is looked up per window.

use serde::{Deserialize, Serialize};

use crate::model::EventTime;
use crate::model::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// Lists the widths of windows, finest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    Minute,
    FiveMinutes,
    Hour,
    Day,
    Month,
}

impl Level {
    /// Returns the label that views show.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Month => "1mo",
        }
    }

    /// Returns the start of the window that holds `time`.
    #[must_use]
    pub fn start(self, time: EventTime) -> EventTime {
        match self {
            Self::Minute => time - time % MINUTE_MS,
            Self::FiveMinutes => time - time % (5 * MINUTE_MS),
            Self::Hour => time - time % HOUR_MS,
            Self::Day => time - time % DAY_MS,
            Self::Month => {
                let day = time / DAY_MS;
                (day - u64::from(day_of_month(day))) * DAY_MS
            }
        }
    }

    /// Returns the exclusive end of the window that starts at `start`.
    #[must_use]
    pub fn end(self, start: EventTime) -> EventTime {
        match self {
            Self::Minute => start + MINUTE_MS,
            Self::FiveMinutes => start + 5 * MINUTE_MS,
            Self::Hour => start + HOUR_MS,
            Self::Day => start + DAY_MS,
            // The 1st plus 31 days lies in the next month, whichever month it is.
            Self::Month => self.start(start + 31 * DAY_MS),
        }
    }

    /// Returns how long a window is held after its end, in ms: its correction horizon.
    #[must_use]
    pub fn hold(self) -> u64 {
        match self {
            Self::Minute | Self::FiveMinutes => 3 * HOUR_MS,
            Self::Hour => 48 * HOUR_MS,
            Self::Day => 3 * DAY_MS,
            Self::Month => 5 * DAY_MS,
        }
    }

    /// Returns the least time between two publications of a changed row, in ms. At 0 ms each tick publishes it.
    #[must_use]
    pub fn cadence(self) -> u64 {
        match self {
            Self::Minute => 0,
            Self::FiveMinutes | Self::Hour => 30 * SECOND_MS,
            Self::Day | Self::Month => 5 * MINUTE_MS,
        }
    }

    /// Returns the start of the earliest window that is still held at `watermark`.
    #[must_use]
    pub fn held_from(self, watermark: EventTime) -> EventTime {
        self.start(watermark.saturating_sub(self.hold()))
    }

    /// Returns the start of the earliest window that isn't closed at `watermark`.
    #[must_use]
    pub fn open_from(self, watermark: EventTime) -> EventTime {
        self.start(watermark)
    }

    /// Returns the start of the earliest window that isn't complete at `watermark`.
    #[must_use]
    pub fn incomplete_from(self, watermark: EventTime, allowed_lateness: u64) -> EventTime {
        self.start(watermark.saturating_sub(allowed_lateness))
    }
}

/// Returns the day of the month, counted from 0, of a day counted since the epoch. The calendar is the proleptic
/// Gregorian one, in eras of 400 years that begin on 1 March. The algorithm is that of Howard Hinnant,
/// "chrono-compatible low-level date algorithms", 2013.
fn day_of_month(days_since_epoch: u64) -> u32 {
    let day_of_era = (days_since_epoch + 719_468) % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    u32::try_from(day_of_year - (153 * month_from_march + 2) / 5).expect("a month has at most 31 days")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn months_follow_the_calendar() {
        // Walk 1970 to 2200 a day at a time beside a naive calendar.
        let mut day = 0_u64;
        for year in 1970..2200_u64 {
            let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            for length in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                let start = day * DAY_MS;
                for within in [0, 1, DAY_MS * (length / 2), DAY_MS * length - 1] {
                    assert_eq!(Level::Month.start(start + within), start, "{year}");
                }
                assert_eq!(Level::Month.end(start), start + length * DAY_MS, "{year}");
                day += length;
            }
        }
    }

    proptest! {
        #[test]
        fn a_window_holds_its_time_and_levels_nest(time in 0_u64..7_258_118_400_000) {
            let levels = [Level::Minute, Level::FiveMinutes, Level::Hour, Level::Day, Level::Month];
            for level in levels {
                let start = level.start(time);
                prop_assert!(start <= time && time < level.end(start));
                prop_assert_eq!(level.start(level.end(start)), level.end(start));
            }
            for pair in levels.windows(2) {
                prop_assert!(pair[1].start(time) <= pair[0].start(time));
                prop_assert!(pair[0].end(pair[0].start(time)) <= pair[1].end(pair[1].start(time)));
            }
        }

        #[test]
        fn thresholds_agree_with_their_definitions(watermark in 0_u64..4_000_000_000_000, back in 0_u64..700) {
            for level in [Level::Minute, Level::FiveMinutes, Level::Hour, Level::Day, Level::Month] {
                // At random, where a window changes sides, and a millisecond before.
                let exact = [0, level.hold(), 600_000].map(|after| level.start(watermark) + after);
                let watermarks = exact.into_iter().flat_map(|exact| [exact, exact.saturating_sub(1)]);
                for watermark in watermarks.chain([watermark]) {
                    for behind in [back * HOUR_MS / 2, 1, level.hold() + 1, 600_001] {
                        let start = level.start(watermark.saturating_sub(behind));
                        let end = level.end(start);
                        prop_assert_eq!(start >= level.held_from(watermark), end + level.hold() > watermark);
                        prop_assert_eq!(start >= level.open_from(watermark), end > watermark);
                        prop_assert_eq!(start >= level.incomplete_from(watermark, 600_000), end + 600_000 > watermark);
                    }
                }
            }
        }
    }
}
