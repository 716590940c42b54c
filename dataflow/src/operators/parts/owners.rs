//! Keeps the owners of keys over time, with which `usage` rows are joined.
//!
//! A window belongs to the subscription that was in force at its start. A key's first row counts from the beginning
//! unless it has a start. So an owner that becomes known late is filled in. A later change concerns windows that
//! start after it.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::context::RowContext;
use crate::model::{EventTime, KeyId, Owner, Tick};
use crate::state::{Footprint, spilled};

/// An owner of a key from a time on, as an update of a collection.
pub(crate) type OwnerChange = ((KeyId, EventTime, Owner), Tick, isize);

/// The owners of keys in the order of their times.
#[derive(Default)]
pub(crate) struct Owners(HashMap<KeyId, History>);

type History = SmallVec<[(EventTime, Owner); 1]>;

impl Owners {
    /// Returns true if there is a fact of the key.
    pub(crate) fn knows(&self, key: KeyId) -> bool {
        self.0.contains_key(&key)
    }

    /// Returns true if the key has a row in the table of keys, whatever it is valid from.
    pub(crate) fn has_row(&self, key: KeyId) -> bool {
        let newest = self.0.get(&key).and_then(|history| history.last());
        newest.is_some_and(|(_, owner)| owner.subscription.is_some())
    }

    /// Returns the owner in force at `time`.
    pub(crate) fn at(&self, key: KeyId, time: EventTime) -> Owner {
        let Some(history) = self.0.get(&key) else { return Owner::default() };
        let count = history.partition_point(|(from, _)| *from <= time);
        count.checked_sub(1).map_or_else(Owner::default, |last| history[last].1)
    }
}

impl RowContext for Owners {
    type Subject = KeyId;
    type Change = OwnerChange;
    type Row = (KeyId, EventTime, Owner);

    /// Applies changes of facts that are identified by (key, start). A retraction counts only if nothing takes its
    /// place.
    fn apply(&mut self, mut changes: Vec<OwnerChange>, all: bool) -> Vec<KeyId> {
        let mut before_all = if all { std::mem::take(&mut self.0) } else { HashMap::new() };
        changes.sort_unstable_by_key(|((key, from, _), _, diff)| (*key, *from, *diff > 0));
        let mut changed = Vec::new();
        for of_key in changes.chunk_by(|a, b| a.0.0 == b.0.0) {
            let key = of_key[0].0.0;
            let history = self.0.entry(key).or_default();
            let before = if all { before_all.remove(&key).unwrap_or_default() } else { history.clone() };
            for ((_, from, owner), _, diff) in of_key {
                match (history.binary_search_by_key(from, |fact| fact.0), *diff > 0) {
                    (Ok(index), true) => history[index].1 = *owner,
                    (Err(index), true) => history.insert(index, (*from, *owner)),
                    (Ok(index), false) if history[index].1 == *owner => {
                        history.remove(index);
                    }
                    (_, false) => {}
                }
            }
            if *history != before {
                changed.push(key);
            }
            if history.is_empty() {
                self.0.remove(&key);
            }
        }
        changed.extend(before_all.into_keys());
        changed
    }

    fn rows_out(&self, out: &mut dyn FnMut(Self::Row)) {
        for (key, history) in &self.0 {
            for (from, owner) in history {
                out((*key, *from, *owner));
            }
        }
    }

    fn row_in(&mut self, (key, from, owner): Self::Row) {
        let history = self.0.entry(key).or_default();
        let index = history.partition_point(|fact| fact.0 < from);
        history.insert(index, (from, owner));
    }

    fn shard(row: &Self::Row) -> u64 {
        row.0.shard()
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_map_with(&self.0, spilled)
    }
}
