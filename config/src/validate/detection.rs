//! `[detection]`.
//!
//! Limits: bits up to 1,000, weights up to 100, a grace of up to 1 h; a notice needs no more than an alert, an alert no
//! more than acting.

use super::section;
use crate::job::Detection;
use crate::raw::{Entry, RawCaps, RawDetection, RawWeights};
use crate::scalar::{Decimal, decimal_text, duration_text};
use crate::section::check::{Check, HOUR_MS};

const MAX_BITS: u64 = 1_000_000;
const MAX_WEIGHT: u64 = 100_000;
/// What the levels begin at unless they are given.
const LEVELS: [u64; 3] = [0, 2_000, 10_000];

impl Check<'_> {
    pub(super) fn detection(&mut self, raw: &RawDetection) -> Detection {
        let default = Detection::default();
        let grace_ms = self.ranged(&raw.grace, |grace| grace.0, default.grace_ms, 0..=HOUR_MS, duration_text);
        let prior = self.decimal(&raw.prior, MAX_BITS);
        let levels = [("notice", &raw.notice), ("alert", &raw.alert), ("revoke", &raw.revoke)];
        let found = levels.map(|(_, entry)| self.decimal(entry, MAX_BITS));
        for (below, above) in [(0, 1), (1, 2)] {
            let (least, most) =
                (found[below].unwrap_or(LEVELS[below]), found[above].unwrap_or(LEVELS[above]));
            let given = levels[above].1.given().or_else(|| levels[below].1.given());
            if let Some(spot) = given.filter(|_| least > most) {
                let message = format!(
                    "`{}` begins at {} bits and `{}` at {}, allowed: at most as many",
                    levels[below].0,
                    decimal_text(least),
                    levels[above].0,
                    decimal_text(most)
                );
                self.problems.add(&spot.place, message);
            }
        }
        let [notice, alert, revoke] = found;
        let (no_caps, no_weights) = (RawCaps::default(), RawWeights::default());
        let caps = section(&raw.caps, &no_caps).named();
        let weights = section(&raw.weights, &no_weights).named();
        Detection {
            enabled: raw.enabled.value().is_none_or(|flag| flag.0),
            grace_ms,
            prior,
            notice,
            alert,
            revoke,
            caps: self.named(caps, MAX_BITS),
            weights: self.named(weights, MAX_WEIGHT),
        }
    }

    fn decimal(&mut self, entry: &Entry<Decimal>, most: u64) -> Option<u64> {
        let number = self.ranged(entry, |number| number.0, 0, 0..=most, decimal_text);
        entry.given().map(|_| number)
    }

    fn named(
        &mut self,
        entries: Vec<(&'static str, &Entry<Decimal>)>,
        most: u64,
    ) -> Vec<(&'static str, u64)> {
        entries.into_iter().filter_map(|(name, entry)| Some((name, self.decimal(entry, most)?))).collect()
    }
}
