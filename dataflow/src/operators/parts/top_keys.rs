//! Keeps of many keys at one moment those that say most: at most 64 of each of the 256 buckets of keys.
//!
//! One worker judges the observations of all keys. If everything is odd at once, it would get one of each key; so it gets
//! 16,384 at most. A bucket is on one worker and keys have a total order. So the number of workers and the order in
//! which keys come make no difference to which are kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::detect::{Bits, Family, Profile};
use crate::model::KeyId;

/// The most keys of a bucket.
const MOST: usize = 64;

/// The order of keys: those with a hard fact last, then by odds. Of equals the lower id is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    is_hard: bool,
    /// The odds of a leak, in thousandths of a bit.
    odds: i64,
    key: Reverse<KeyId>,
}

impl Rank {
    pub(crate) fn new(key: KeyId, profile: &Profile) -> Self {
        let mut counted = profile.observed().iter().filter(|one| one.counted > Bits::NONE);
        let is_hard = counted.any(|one| one.signal.family() == Family::Hard);
        Self { is_hard, odds: profile.verdict().odds, key: Reverse(key) }
    }
}

/// What is kept of each key, by bucket.
pub(crate) struct TopKeys<T> {
    buckets: BTreeMap<u8, BTreeMap<Rank, T>>,
}

impl<T> Default for TopKeys<T> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new() }
    }
}

impl<T> TopKeys<T> {
    /// Adds a key with what `make` returns, if its bucket has room or a key of a lower rank. Returns the key of the lowest
    /// rank if the bucket is full.
    pub(crate) fn add(&mut self, rank: Rank, make: impl FnOnce() -> T) -> Option<KeyId> {
        let bucket = self.buckets.entry(rank.key.0.bucket()).or_default();
        if bucket.len() >= MOST && bucket.first_key_value().is_some_and(|(least, _)| *least > rank) {
            return Some(rank.key.0);
        }
        bucket.insert(rank, make());
        if bucket.len() <= MOST {
            return None;
        }
        bucket.pop_first().map(|(least, _)| least.key.0)
    }

    /// Takes out what is kept.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.buckets).into_values().flat_map(BTreeMap::into_values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a key of one of two buckets.
    fn rank(number: u128, is_hard: bool, odds: i64) -> Rank {
        let key = KeyId((number / 2) | ((number % 2) << 24));
        Rank { is_hard, odds, key: Reverse(key) }
    }

    proptest! {
        #[test]
        fn in_any_order_the_first_of_each_bucket_stay_and_all_others_are_returned(
            ranks in prop::collection::vec((any::<bool>(), -9_i64..9), 0..400),
            order in any::<prop::sample::Index>(),
        ) {
            let mut ranks: Vec<Rank> =
                (0..).zip(ranks).map(|(number, (is_hard, odds))| rank(number, is_hard, odds)).collect();
            if !ranks.is_empty() {
                let at = order.index(ranks.len());
                ranks.rotate_left(at);
            }
            let mut top = TopKeys::default();
            let mut left_out: Vec<KeyId> =
                ranks.iter().filter_map(|rank| top.add(*rank, || rank.key.0)).collect();
            let mut kept: Vec<KeyId> = top.take().collect();
            // Naively: hard facts first, then the highest odds, then the lowest ids.
            ranks.sort_by_key(|rank| (!rank.is_hard, Reverse(rank.odds), rank.key.0));
            let buckets: std::collections::BTreeSet<u8> = ranks.iter().map(|rank| rank.key.0.bucket()).collect();
            let of = |bucket| ranks.iter().map(|rank| rank.key.0).filter(move |key| key.bucket() == bucket);
            let mut first: Vec<KeyId> = buckets.iter().flat_map(|bucket| of(*bucket).take(MOST)).collect();
            let mut others: Vec<KeyId> = buckets.iter().flat_map(|bucket| of(*bucket).skip(MOST)).collect();
            [&mut kept, &mut left_out, &mut first, &mut others].into_iter().for_each(|keys| keys.sort_unstable());
            prop_assert_eq!((kept, left_out), (first, others));
            prop_assert_eq!(top.take().count(), 0);
        }
    }

    #[test]
    fn a_hard_fact_comes_before_any_guess() {
        let mut top = TopKeys::default();
        for number in 0..200 {
            top.add(rank(2 * number, false, 47_000), || number);
        }
        assert_eq!(top.add(rank(2 * 200, true, 9_000), || 200), Some(KeyId(63)));
        assert_eq!(top.take().last(), Some(200));
    }
}
