//! KnownValues that a key was never seen with: countries, networks, user agents, routes.
//!
//! After n calls with K distinct values, the next call has a new value with probability
//! (theta + sigma K)/(n + theta): the Pitman-Yor process (Pitman and Yor, 1997) with concentration theta = 1 and
//! discount sigma = 1/2. A key that keeps showing new values expects them, and silences itself.
//!
//! K stops at the values that are remembered while n grows, and most old calls may be of other habits. So the estimate
//! is never below the *discovery rate*, found/(recent + 1): of the calls of lately how many had a value that wasn't
//! remembered. Both counts halve every two days. A new value's surprise is -log2 of the larger of the two, once; less
//! where fewer than a quarter of the window's calls have it (see `profile`).
//!
//! Limits: 64 values are remembered; of more, those not seen for longest are forgotten first. KnownValues are forgotten
//! after 30 days, and calls count half after 30 days. 16 bytes a value.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Bits, DAY_MS, decay};

const CONCENTRATION: f64 = 1.0;
const DISCOUNT: f64 = 0.5;
/// The most values that are remembered.
pub(super) const MOST: usize = 64;
const REMEMBERED_MS: u64 = 30 * DAY_MS;
/// The half-life of the discovery rate.
const DISCOVERED_MS: u64 = 2 * DAY_MS;

/// The values that a key was seen with lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownValues {
    /// (value, when it was last seen), in the order of values.
    seen: SmallVec<[(u64, u64); 1]>,
    calls: f64,
    /// Recent calls, of which half count after two days.
    recent: f64,
    /// Recent values that weren't remembered when they came.
    found: f64,
    updated_ms: u64,
}

/// A value that was new in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Novel {
    pub value: u64,
    /// Its calls in the window.
    pub calls: u32,
    /// Its surprise, before its share of the window is counted.
    pub bits: Bits,
}

impl KnownValues {
    /// Returns the calls of the last month, of which half count after 30 days.
    #[must_use]
    pub fn calls(&self) -> f64 {
        self.calls
    }

    /// Returns whether a value is remembered.
    #[must_use]
    pub fn knows(&self, value: u64) -> bool {
        self.seen.binary_search_by_key(&value, |entry| entry.0).is_ok()
    }

    /// Returns the number of values that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns whether no value is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Returns the bytes that it takes beyond its own size.
    pub(super) fn owned_bytes(&self) -> usize {
        crate::state::spilled(&self.seen)
    }

    /// Returns the surprise of any new value.
    #[must_use]
    pub fn bits(&self) -> Bits {
        let new = (CONCENTRATION + DISCOUNT * self.seen.len() as f64) / (self.calls + CONCENTRATION);
        let discovered = self.found / (self.recent + 1.0);
        Bits::new(-libm::log2(new.max(discovered)))
    }

    /// What is new among a window's values, in their order; nothing learns from it.
    pub fn novel<'a>(&'a self, window: &'a [(u64, u32)]) -> impl Iterator<Item = Novel> + 'a {
        let bits = self.bits();
        window.iter().filter(|(value, _)| !self.knows(*value)).map(move |(value, calls)| Novel {
            value: *value,
            calls: *calls,
            bits,
        })
    }

    /// Forgets a value, as if it had never been seen.
    pub(super) fn unlearn(&mut self, value: u64) {
        if let Ok(at) = self.seen.binary_search_by_key(&value, |entry| entry.0) {
            self.seen.remove(at);
        }
    }

    /// Learns a window's values, each with its calls.
    pub fn learn(&mut self, window: &[(u64, u32)], now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.updated_ms);
        self.calls *= decay(elapsed_ms, REMEMBERED_MS);
        let lately = decay(elapsed_ms, DISCOVERED_MS);
        self.recent *= lately;
        self.found *= lately;
        self.updated_ms = now_ms;
        let oldest = now_ms.saturating_sub(REMEMBERED_MS);
        self.seen.retain(|entry| entry.1 >= oldest);
        for (value, calls) in window {
            self.calls += f64::from(*calls);
            self.recent += f64::from(*calls);
            match self.seen.binary_search_by_key(value, |entry| entry.0) {
                Ok(index) => self.seen[index].1 = now_ms,
                Err(index) => {
                    self.found += 1.0;
                    self.seen.insert(index, (*value, now_ms));
                    if self.seen.len() > MOST {
                        // Of several that are as old the least value goes: any fixed choice would do.
                        let oldest = (0..self.seen.len())
                            .min_by_key(|index| (self.seen[*index].1, self.seen[*index].0));
                        self.seen.remove(oldest.unwrap_or(0));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_is_known_the_more_a_new_value_says() {
        let mut values = KnownValues::default();
        assert_eq!(values.bits(), Bits::NONE);
        values.learn(&[(7, 1_000)], 0);
        // (1 + 0.5)/(1000 + 1)
        assert!((values.bits().get() - 9.382).abs() < 0.001, "{:?}", values.bits());
        assert_eq!(values.novel(&[(7, 5)]).count(), 0);
        let novel: Vec<_> = values.novel(&[(6, 2), (7, 5), (8, 1)]).collect();
        assert_eq!(
            novel.iter().map(|novel| (novel.value, novel.calls)).collect::<Vec<_>>(),
            [(6, 2), (8, 1)]
        );
    }

    #[test]
    fn who_always_shows_new_values_says_nothing_by_them() {
        let mut values = KnownValues::default();
        for value in 0..60 {
            values.learn(&[(value, 1)], value);
        }
        assert!(values.bits() < Bits::new(1.0), "{:?}", values.bits());
    }

    #[test]
    fn what_was_not_seen_for_longest_is_forgotten() {
        let mut values = KnownValues::default();
        for value in 0..64 {
            values.learn(&[(value, 1)], value);
        }
        values.learn(&[(0, 1)], 64);
        values.learn(&[(64, 1)], 65);
        assert_eq!(values.len(), MOST);
        assert!(values.knows(0) && !values.knows(1) && values.knows(64));
        values.learn(&[(65, 1)], 64 + REMEMBERED_MS + 2);
        assert_eq!(values.len(), 1);
        assert!(values.calls() < 40.0);
    }
}
