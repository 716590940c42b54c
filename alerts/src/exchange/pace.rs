//! How fast requests may follow each other, for servers that count them. It is a pure state.
//!
//! The times of the last requests are kept, as many as a second may have. The next one waits until the oldest of them is
//! a second ago. So no second has more, wherever it begins, and a few requests after a rest wait for nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// The times of the last requests.
pub(super) struct Pace {
    per_second: usize,
    sent: VecDeque<Instant>,
}

impl Pace {
    /// Creates the state of a server that takes `per_second` requests, at least one.
    pub(super) fn new(per_second: usize) -> Self {
        Self { per_second, sent: VecDeque::with_capacity(per_second) }
    }

    /// Returns how long the next request has to wait, and notes that it is sent then.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let oldest = if self.sent.len() >= self.per_second { self.sent.pop_front() } else { None };
        let at = oldest.map_or(now, |oldest| now.max(oldest + SECOND));
        self.sent.push_back(at);
        at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_has_more_requests(per_second in 1..8_usize, gaps in prop::collection::vec(0..700_u64, 1..60)) {
            let start = Instant::now();
            let (mut pace, mut now, mut sent) = (Pace::new(per_second), start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                let wait = pace.next(now);
                now += wait;
                let earlier: Vec<&Instant> = sent.iter().filter(|at| now - **at < SECOND).collect();
                prop_assert!(earlier.len() < per_second);
                // It waits only for what a second has too many of, and no longer than needed.
                prop_assert!(wait.is_zero() || sent.iter().any(|at| now - *at == SECOND));
                sent.push(now);
            }
        }
    }
}
