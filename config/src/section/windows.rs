//! The section `[windows]` about tolerances of event time, in milliseconds.
//!
//! Records are at most 3 h late, as the finest windows can't change after that.

use super::prelude::*;

section! {
    /// The section `[windows]` with tolerances of event time, in milliseconds.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Windows, RawWindows then horizon {
        /// How far events of one partition may be out of order before the watermark.
        results out_of_orderness_ms: u64 = out_of_orderness(Millis, 0..=HOUR_MS) or 5_000;
        /// How far behind the watermark an event may be without being late.
        results allowed_lateness_ms: u64 = allowed_lateness(Millis, 0..=3 * HOUR_MS) or 10 * MINUTE_MS;
        /// How long a request id is remembered after its arrival, which is at least `allowed_lateness_ms`.
        results dedupe_horizon_ms: u64 = dedupe_horizon(Millis, 0..=7 * DAY_MS) or HOUR_MS;
        /// The treatment of records that are older than the dedupe horizon.
        results unproven: Unproven = unproven(Unproven) or Unproven::Count;
        /// Ticks after which a partition of a live source no longer holds the watermark back. In all of them it must
        /// be at its end, without an event or more than `skew_ms` behind the others.
        results idle_ticks: u32 = idle_ticks(Count, 1..=1_000) or 5;
        /// How far the partitions of live sources may be apart in event time. No partition is read further ahead of
        /// the watermark. One that is at its end and further behind the others is slow.
        results skew_ms: u64 = skew(Millis, MINUTE_MS..=HOUR_MS) or 5 * MINUTE_MS;
    }
}

choice! {
    /// The treatment of a record that is older than the dedupe horizon, so that an earlier copy may have counted.
    #[derive(Default)]
    pub enum Unproven {
        /// It counts, and is listed in `late`.
        #[default]
        Count = "count",
        /// It is listed in `late` and doesn't count.
        List = "list",
    }
}

impl RawWindows {
    fn horizon(spot: &Spot<Self>, windows: &mut Windows, check: &mut Check<'_>) {
        let (horizon, lateness) = (&spot.value.dedupe_horizon, &spot.value.allowed_lateness);
        let refused = matches!(horizon, Entry::Refused) || matches!(lateness, Entry::Refused);
        // One of the two may be a default: the written one has the problem.
        if let Some(spot) = horizon.given().or(lateness.given())
            && windows.dedupe_horizon_ms < windows.allowed_lateness_ms
            && !refused
        {
            let message = format!(
                "a dedupe_horizon of {} is shorter than the allowed_lateness of {}, so that late events could count \
                 twice; allowed: at least as long",
                duration_text(windows.dedupe_horizon_ms),
                duration_text(windows.allowed_lateness_ms)
            );
            check.refuse(spot, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (
                with("[windows]\nallowed_lateness = \"181m\"\ndedupe_horizon = \"4h\""),
                "line 7: windows.allowed_lateness: found \"181m\", allowed: 0s to 3h",
            ),
            (
                with("[windows]\ndedupe_horizon = \"8d\""),
                "line 7: windows.dedupe_horizon: found \"8d\", allowed: 0s to 7d",
            ),
            (
                with("[windows]\nout_of_orderness = \"61m\""),
                "line 7: windows.out_of_orderness: found \"61m\", allowed: 0s to 1h",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn values_beyond_their_range_are_reported() {
        for (lines, expected) in [
            (
                "[windows]\nunproven = \"drop\"".to_owned(),
                "line 7: windows.unproven: found \"drop\", allowed: count, list",
            ),
            (
                "[windows]\nidle_ticks = 0".to_owned(),
                "line 7: windows.idle_ticks: found 0, allowed: 1 to 1000",
            ),
            (
                "[windows]\nskew = \"59s\"".to_owned(),
                "line 7: windows.skew: found \"59s\", allowed: 1m to 1h",
            ),
        ] {
            assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
        }
    }
}
