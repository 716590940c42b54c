//! Faults in usual traffic that come and go: an API that fails for minutes, a caller with a defect.
//!
//! They need no memory: the seed, the API or key, and the time decide whether there is a fault.

use crate::draw::{Draw, mixed};

/// Recurring faults of one kind: time is cut into periods, of which one in `once_in` has a fault.
struct FaultPattern {
    period_ms: u64,
    once_in: u64,
    /// A fault never crosses the end of its period.
    shortest_ms: u64,
    longest_ms: u64,
}

/// An API fails once in eight days.
const OUTAGE: FaultPattern =
    FaultPattern { period_ms: 14_400_000, once_in: 48, shortest_ms: 300_000, longest_ms: 1_500_000 };
/// The calls of a key are defective once a month.
const DEFECT: FaultPattern =
    FaultPattern { period_ms: 28_800_000, once_in: 90, shortest_ms: 600_000, longest_ms: 3_600_000 };

impl FaultPattern {
    fn holds(&self, seed: u64, subject: u64, time: u64) -> bool {
        let (period, offset) = (time / self.period_ms, time % self.period_ms);
        let bits = mixed([seed, subject, period]);
        if !bits.is_multiple_of(self.once_in) {
            return false;
        }
        let lasts = self.shortest_ms + (bits >> 8) % (self.longest_ms - self.shortest_ms);
        let from = (bits >> 32) % (self.period_ms - lasts);
        (from..from + lasts).contains(&offset)
    }
}

/// Returns the status of a call at `time` that fails with its API. During a fault three in ten do.
pub(crate) fn of_api(seed: u64, api: usize, time: u64, draw: &mut Draw) -> Option<u16> {
    let fails = OUTAGE.holds(seed, api as u64, time) && draw.below(10) < 3;
    fails.then(|| [502, 503, 503, 504][draw.below(4) as usize])
}

/// Returns the status of a usual call at `time` that fails by a defect of its caller. During a fault one in four does.
pub(crate) fn of_key(seed: u64, key: u32, time: u64, draw: &mut Draw) -> Option<u16> {
    let fails = DEFECT.holds(!seed, u64::from(key), time) && draw.once_in(4);
    fails.then(|| [400, 404, 404, 429][draw.below(4) as usize])
}
