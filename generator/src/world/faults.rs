//! Spells of errors that come and go in usual traffic: an API that fails for minutes, a caller with a defect.
//!
//! Nothing is kept: whether a spell holds follows from the seed, who it is about, and the time.

use crate::draw::{Draw, mixed};

/// Spells of one kind: time is cut into blocks, and so many of them have a spell.
struct FaultPattern {
    period_ms: u64,
    once_in: u64,
    /// Within the period, with its end.
    shortest_ms: u64,
    longest_ms: u64,
}

/// Of an API: one in eight days.
const OUTAGE: FaultPattern =
    FaultPattern { period_ms: 14_400_000, once_in: 48, shortest_ms: 300_000, longest_ms: 1_500_000 };
/// Of a key: one a month.
const DEFECT: FaultPattern =
    FaultPattern { period_ms: 28_800_000, once_in: 90, shortest_ms: 600_000, longest_ms: 3_600_000 };

impl FaultPattern {
    fn holds(&self, seed: u64, whom: u64, time: u64) -> bool {
        let (period, offset) = (time / self.period_ms, time % self.period_ms);
        let bits = mixed([seed, whom, period]);
        if !bits.is_multiple_of(self.once_in) {
            return false;
        }
        let lasts = self.shortest_ms + (bits >> 8) % (self.longest_ms - self.shortest_ms);
        let from = (bits >> 32) % (self.period_ms - lasts);
        (from..from + lasts).contains(&offset)
    }
}

/// The status that an API's spell gives a call at `time`, if it has one: to three in ten.
pub(crate) fn of_api(seed: u64, api: usize, time: u64, draw: &mut Draw) -> Option<u16> {
    let fails = OUTAGE.holds(seed, api as u64, time) && draw.below(10) < 3;
    fails.then(|| [502, 503, 503, 504][draw.below(4) as usize])
}

/// The status that a caller's spell gives a usual call of a key at `time`, if it has one: to one in four.
pub(crate) fn of_key(seed: u64, key: u32, time: u64, draw: &mut Draw) -> Option<u16> {
    let fails = DEFECT.holds(!seed, u64::from(key), time) && draw.once_in(4);
    fails.then(|| [400, 404, 404, 429][draw.below(4) as usize])
}
