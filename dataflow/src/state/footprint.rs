//! How much is remembered: what a state says of its own size.
//!
//! A footprint costs one look at each collection, of which a state has some for each window: collections know their
//! number of entries and the memory of their table. What entries own beyond that (a set that outgrew its place, a
//! string) is estimated from at most [`SAMPLE`] of them, which hash order picks: exact for collections that are
//! smaller, blind for one huge entry among many. The process's resident memory is the measure of what is really
//! used; footprints say by what.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::ops::AddAssign;

use hashbrown::{HashMap, HashSet, HashTable};
use smallvec::SmallVec;

/// Entries of a collection that are asked what they own.
const SAMPLE: usize = 64;

/// The size of a state, of one worker or summed over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Entries: windows' groups, ids, facts, what waits to be put out.
    pub rows: u64,
    /// Memory of those entries, about.
    pub bytes: u64,
}

impl Footprint {
    fn new(rows: usize, bytes: usize) -> Self {
        Self { rows: rows as u64, bytes: bytes as u64 }
    }

    /// Of a map whose entries own nothing.
    pub(crate) fn of_map<K: Eq + Hash, V>(map: &HashMap<K, V>) -> Self {
        Self::new(map.len(), map.allocation_size())
    }

    /// Of a map whose values own `owned` bytes each.
    pub(crate) fn of_map_with<K: Eq + Hash, V>(map: &HashMap<K, V>, owned: impl Fn(&V) -> usize) -> Self {
        Self::new(map.len(), map.allocation_size() + estimate(map.values(), map.len(), owned))
    }

    /// Of a set whose values own nothing.
    pub(crate) fn of_set<T: Eq + Hash>(set: &HashSet<T>) -> Self {
        Self::new(set.len(), set.allocation_size())
    }

    /// Of a table whose values own nothing.
    pub(crate) fn of_table<T>(table: &HashTable<T>) -> Self {
        Self::new(table.len(), table.allocation_size())
    }

    /// Of an ordered map whose entries own nothing.
    pub(crate) fn of_tree<K, V>(tree: &BTreeMap<K, V>) -> Self {
        Self::in_nodes(tree.len(), size_of::<(K, V)>())
    }

    /// Of an ordered map whose values own `owned` bytes each.
    pub(crate) fn of_tree_with<K, V>(tree: &BTreeMap<K, V>, owned: impl Fn(&V) -> usize) -> Self {
        let mut footprint = Self::of_tree(tree);
        footprint.bytes += estimate(tree.values(), tree.len(), owned) as u64;
        footprint
    }

    /// Of an ordered set whose values own nothing.
    pub(crate) fn of_tree_set<T>(set: &BTreeSet<T>) -> Self {
        Self::in_nodes(set.len(), size_of::<T>())
    }

    /// Nodes have 11 places; about 3 in 4 are taken.
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

/// What `len` entries own, judged by some of them.
fn estimate<T>(entries: impl Iterator<Item = T>, len: usize, owned: impl Fn(T) -> usize) -> usize {
    let asked = len.min(SAMPLE);
    let owned: usize = entries.take(asked).map(owned).sum();
    owned.saturating_mul(len).checked_div(asked).unwrap_or(0)
}

/// Bytes that a list owns beyond its place.
pub(crate) fn spilled<T, const N: usize>(list: &SmallVec<[T; N]>) -> usize
where
    [T; N]: smallvec::Array<Item = T>,
{
    if list.spilled() { list.capacity() * size_of::<T>() } else { 0 }
}
