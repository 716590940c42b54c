//! Estimates how much memory a state takes.
//!
//! A footprint costs one look at each collection, of which a state has some for each window. Collections know their
//! number of entries and the memory of their table. Entries may own more (a set that outgrew its place, a string).
//! That is estimated from at most [`SAMPLE`] of them, which hash order picks. The estimate is exact for smaller
//! collections, and blind for one huge entry among many. The process's resident memory measures the whole; footprints
//! divide it by state.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::ops::AddAssign;

use hashbrown::{HashMap, HashSet, HashTable};
use smallvec::SmallVec;

/// The largest number of entries of a collection that are asked for their bytes.
const SAMPLE: usize = 64;

/// The size of a state, of one worker or summed over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The number of entries: groups of windows, ids, facts, rows that wait for publication.
    pub rows: u64,
    /// The approximate memory of those entries.
    pub bytes: u64,
}

impl Footprint {
    fn new(rows: usize, bytes: usize) -> Self {
        Self { rows: rows as u64, bytes: bytes as u64 }
    }

    /// Returns the footprint of a map whose entries own nothing.
    pub(crate) fn of_map<K: Eq + Hash, V>(map: &HashMap<K, V>) -> Self {
        Self::new(map.len(), map.allocation_size())
    }

    /// Returns the footprint of a map whose values own `owned` bytes each.
    pub(crate) fn of_map_with<K: Eq + Hash, V>(map: &HashMap<K, V>, owned: impl Fn(&V) -> usize) -> Self {
        Self::new(map.len(), map.allocation_size() + estimate(map.values(), map.len(), owned))
    }

    /// Returns the footprint of a set whose values own nothing.
    pub(crate) fn of_set<T: Eq + Hash>(set: &HashSet<T>) -> Self {
        Self::new(set.len(), set.allocation_size())
    }

    /// Returns the footprint of a table whose values own nothing.
    pub(crate) fn of_table<T>(table: &HashTable<T>) -> Self {
        Self::new(table.len(), table.allocation_size())
    }

    /// Returns the footprint of an ordered map whose entries own nothing.
    pub(crate) fn of_tree<K, V>(tree: &BTreeMap<K, V>) -> Self {
        Self::in_nodes(tree.len(), size_of::<(K, V)>())
    }

    /// Returns the footprint of an ordered map whose values own `owned` bytes each.
    pub(crate) fn of_tree_with<K, V>(tree: &BTreeMap<K, V>, owned: impl Fn(&V) -> usize) -> Self {
        let mut footprint = Self::of_tree(tree);
        footprint.bytes += estimate(tree.values(), tree.len(), owned) as u64;
        footprint
    }

    /// Returns the footprint of an ordered set whose values own nothing.
    pub(crate) fn of_tree_set<T>(set: &BTreeSet<T>) -> Self {
        Self::in_nodes(set.len(), size_of::<T>())
    }

    /// Adds a third: nodes have room for 11 entries, of which 3 in 4 are taken.
    fn in_nodes(rows: usize, bytes: usize) -> Self {
        Self::new(rows, rows * bytes * 4 / 3)
    }
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

impl std::iter::Sum for Footprint {
    fn sum<I: Iterator<Item = Self>>(footprints: I) -> Self {
        let mut sum = Self::default();
        footprints.for_each(|footprint| sum += footprint);
        sum
    }
}

/// Estimates the bytes that `len` entries own, by at most [`SAMPLE`] of them.
fn estimate<T>(entries: impl Iterator<Item = T>, len: usize, owned: impl Fn(T) -> usize) -> usize {
    let asked = len.min(SAMPLE);
    let owned: usize = entries.take(asked).map(owned).sum();
    owned.saturating_mul(len).checked_div(asked).unwrap_or(0)
}

/// Returns the bytes that a list owns beyond its own size.
pub(crate) fn spilled<T, const N: usize>(list: &SmallVec<[T; N]>) -> usize
where
    [T; N]: smallvec::Array<Item = T>,
{
    if list.spilled() { list.capacity() * size_of::<T>() } else { 0 }
}
