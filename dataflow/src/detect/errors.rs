//! Answers that say no, against how often the key gets them: 401 and 403 (probing), 429.
//!
//! With e of a window's n calls refused and the key's own share p, the probability of so many or more is at most
//! 2^-(n KL(e/n || p)/ln 2) (Chernoff, 1952; KL is the divergence of two coins, in nats). p is smoothed as if the key
//! had made 200 calls before, one of them refused.

use serde::{Deserialize, Serialize};

use super::{Bits, decay};

const PRIOR_CALLS: f64 = 200.0;
const PRIOR_REFUSED: f64 = 1.0;

/// The share of a key's calls that are answered in one way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    calls: f64,
    refused: f64,
    updated_ms: u64,
}

impl Share {
    /// The share that is expected.
    #[must_use]
    pub fn expected(&self) -> f64 {
        (self.refused + PRIOR_REFUSED) / (self.calls + PRIOR_CALLS)
    }

    /// How unusual it would be that `refused` of `calls` are.
    #[must_use]
    pub fn bits(&self, refused: u32, calls: u32) -> Bits {
        let (expected, share) = (self.expected(), f64::from(refused) / f64::from(calls.max(1)));
        if share <= expected {
            return Bits::NONE;
        }
        Bits::new(f64::from(calls) * divergence(share, expected) / std::f64::consts::LN_2)
    }

    /// Expects from now on the share that was seen, `expected` being the refusals that were expected then, in thousandths.
    pub(super) fn step_to(&mut self, seen: u64, expected: u64) {
        let before = self.expected();
        let calls = expected as f64 / 1_000.0 / before;
        if calls > 0.0 {
            let share = (seen as f64 / calls).min(1.0);
            self.refused = self
                .refused
                .max(share * (self.calls + PRIOR_CALLS) - PRIOR_REFUSED)
                .min(self.calls + PRIOR_CALLS);
        }
    }

    /// Learns the share of one window.
    pub fn learn(&mut self, refused: u32, calls: u32, now_ms: u64) {
        let kept = decay::WEEK.left(now_ms.saturating_sub(self.updated_ms));
        self.updated_ms = now_ms;
        self.calls = self.calls * kept + f64::from(calls);
        self.refused = self.refused * kept + f64::from(refused);
    }
}

/// KL(share || expected) of two coins, in nats; `expected` lies strictly between 0 and 1.
fn divergence(share: f64, expected: f64) -> f64 {
    // x ln x is 0 where x is.
    let part = |x: f64, y: f64| if x <= 0.0 { 0.0 } else { x * libm::log(x / y) };
    part(share, expected) + part(1.0 - share, 1.0 - expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_against_the_keys_own_share() {
        let mut share = Share::default();
        assert_eq!(share.bits(0, 0), Bits::NONE);
        assert_eq!(share.bits(0, 100), Bits::NONE);
        // All of 10 refused where one in 200 is expected: 10 log2 200.
        assert!((share.bits(10, 10).get() - 10.0 * libm::log2(200.0)).abs() < 0.01);
        // Who is refused all the time isn't surprising by it.
        share.learn(900, 1_000, 0);
        assert_eq!(share.bits(7, 10), Bits::NONE);
        assert!(share.bits(10, 10) < Bits::new(6.0));
        // Nobody lives long enough for it to be certain.
        share.learn(u32::MAX, u32::MAX, 0);
        assert!(share.expected() < 1.0);
    }
}
