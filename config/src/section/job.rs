//! `[job]`: the name and the pace of a job.

use std::num::NonZeroUsize;

use super::prelude::*;

section! {
    /// `[job]`.
    #[derive(Clone, Debug)]
    pub struct Job, RawJob {
        /// Names the job in logs and metrics.
        other name: String = name(Name) or "keytide".to_owned();
        /// Width of a live tick, in milliseconds.
        results tick_ms: u64 = tick(Millis, 10..=MINUTE_MS) or 1_000;
        /// Timely workers in this process.
        other workers: NonZeroUsize = workers(Count, 1..=256) or NonZeroUsize::MIN;
        /// How often a live job looks whether table files and geo databases changed, in milliseconds.
        other reload_ms: u64 = reload(Millis, 1_000..=HOUR_MS) or 10_000;
    }
}
