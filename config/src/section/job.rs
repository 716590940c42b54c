//! The section `[job]`: the name and the pace of a job.

use std::num::NonZeroUsize;

use super::prelude::*;

section! {
    /// The section `[job]` of a configuration.
    #[derive(Clone, Debug)]
    pub struct Job, RawJob {
        /// The name of the job in logs and metrics.
        other name: String = name(Name) or "keytide".to_owned();
        /// Width of a live tick, in milliseconds.
        results tick_ms: u64 = tick(Millis, 10..=MINUTE_MS) or 1_000;
        /// Timely workers in this process.
        other workers: NonZeroUsize = workers(Count, 1..=256) or NonZeroUsize::MIN;
        /// How often a live job checks table files and geo databases for changes, in milliseconds.
        other reload_ms: u64 = reload(Millis, 1_000..=HOUR_MS) or 10_000;
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (with("[job]\nworkers = 257"), "line 7: job.workers: found 257, allowed: 1 to 256"),
            (with("[job]\nworkers = -1"), "line 7: job.workers: found -1, allowed: a whole number"),
            (with("[job]\nworkers = 1.0"), "line 7: job.workers: found 1.0, allowed: a whole number"),
            (
                with("[job]\nworkers = 99999999999999999999"),
                "line 7: job.workers: found 99999999999999999999, allowed: a whole number",
            ),
            (with("[job]\ntick = \"9ms\""), "line 7: job.tick: found \"9ms\", allowed: 10ms to 1m"),
            (
                with("[job]\nname = 1979-05-27"),
                "line 7: job.name: found 1979-05-27, allowed: 1 to 64 of a-z, 0-9, _ and -",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn values_beyond_their_range_are_reported() {
        assert_eq!(
            problems(&format!("{SMALL}[job]\nreload = \"0s\"")),
            "line 7: job.reload: found \"0s\", allowed: 1s to 1h"
        );
    }
}
