//! A map of few entries, in one allocation that is no larger than they need.
//!
//! A node of a B-tree has room for eleven entries, which a million maps of one entry each pay for. Here entries lie in the
//! order of their keys in a vector that grows by a half, and by one entry at least. Look-ups are binary searches. Adding an
//! entry that isn't the last one moves those behind it: **limits** are some hundred entries.
//!
//! It is stored like any map.

use std::ops::Range;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    /// Returns the value of a key, which is made if there is none.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = self.place(&key).unwrap_or_else(|place| self.add(place, key, V::default()));
        &mut self.0[place].1
    }

    /// Sets the value of a key, and returns the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.add(place, key, value);
                None
            }
        }
    }

    fn add(&mut self, place: usize, key: K, value: V) -> usize {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(self.0.len() / 2 + 1);
        }
        self.0.insert(place, (key, value));
        place
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Returns the entries of keys within a range, ascending.
    pub(crate) fn range(&self, keys: Range<K>) -> impl Iterator<Item = (&K, &V)> {
        let start = self.0.partition_point(|(key, _)| *key < keys.start);
        self.0[start..].iter().take_while(move |(key, _)| *key < keys.end).map(|(key, value)| (key, value))
    }

    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| keeps(key, value));
    }

    /// Removes the entries of keys before this one.
    pub(crate) fn remove_before(&mut self, key: &K) {
        let gone = self.0.partition_point(|(other, _)| other < key);
        self.0.drain(..gone);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes that the entries take.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(K, V)>()
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It does what a map does, and is stored as one.
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec((0_u8..6, 0_u64..12, 0_u32..9), 0..80)) {
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            for (step, key, value) in steps {
                match step {
                    0 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    1 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    2 => {
                        *map.get_or_default(key) += value;
                        *model.entry(key).or_default() += value;
                    }
                    3 => {
                        map.remove_before(&key);
                        model = model.split_off(&key);
                    }
                    4 => {
                        map.retain(|key, kept| key % 2 == 0 || *kept != value);
                        model.retain(|key, kept| key % 2 == 0 || *kept != value);
                    }
                    _ => {
                        let (from, to) = (key.min(u64::from(value)), key.max(u64::from(value)));
                        let (of_map, of_model) = (map.range(from..to), model.range(from..to));
                        prop_assert_eq!(of_map.collect::<Vec<_>>(), of_model.collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert!(map.iter().eq(model.iter()) && map.keys().rev().eq(model.keys().rev()));
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
            let stored = postcard::to_stdvec(&map).unwrap();
            prop_assert_eq!(&stored, &postcard::to_stdvec(&model).unwrap());
            prop_assert_eq!(postcard::from_bytes::<SortedMap<u64, u32>>(&stored).unwrap(), map.clone());
            prop_assert!(map.into_iter().eq(model));
        }
    }
}
