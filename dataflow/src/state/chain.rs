//! What a state knows of its keys as a chain of parts: a base with all keys, and links with those that changed.
//!
//! ```text
//!   base: all keys │ link 1: keys that changed since │ link 2: keys that changed since link 1 │ ...
//!   └────────── later rows of a key take the place of earlier ones ──────────────────────────►
//! ```
//! A snapshot adds a link with the keys that changed since the snapshot before. So its size follows from what is called,
//! and not from how many keys are known. The base is written anew, and links go, when
//!
//! * the links have more than 1/[`SHARE`] of its rows, or there are [`MAX_LINKS`] of them;
//! * a key was removed, as links can't say so;
//! * the snapshot before wasn't stored. Which keys it had isn't kept.
//!
//! So a restore reads at most half as much again as the base has, and a key costs three times its row at most.
//!
//! **Memory**: the keys that changed since the last snapshot. Once they are more than 1/[`SHARE`] of all, and as long as no
//! snapshot was taken, there is none.

use std::hash::Hash;

use hashbrown::HashSet;

use super::Durable;
use super::footprint::Footprint;
use super::parts::{PartId, RowsOut};

/// The links have at most one to this of the base's rows.
const SHARE: u64 = 2;
/// The most links of a chain.
const MAX_LINKS: usize = 64;

/// The changes of a state's keys, by which it is stored as a chain.
#[derive(Debug)]
pub(crate) struct KeyChain<K> {
    /// The keys that changed since the last snapshot; `None` if the next one has them all.
    changed: Option<HashSet<K>>,
    /// The number of rows of the base and of each link.
    links: Vec<u64>,
    /// The number of the snapshot that wrote the last of them; 0 if they were restored.
    snapshot: u64,
}

/// The keys of which a snapshot has to have the rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NeededKeys<K: Eq + Hash> {
    All,
    /// The keys that changed, which may be none.
    These(HashSet<K>),
}

impl<K: Eq + Hash> KeyChain<K> {
    /// Returns the chain of a state that nothing is stored of.
    pub(crate) fn new() -> Self {
        Self { changed: None, links: Vec::new(), snapshot: 0 }
    }

    /// Notes that a key was added or changed. The state has so many `keys`.
    #[inline]
    pub(crate) fn mark(&mut self, key: K, keys: usize) {
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
            if changed.len() as u64 * SHARE > keys as u64 {
                self.changed = None;
            }
        }
    }

    /// Notes that keys were removed, or that any may have changed.
    pub(crate) fn mark_all(&mut self) {
        self.changed = None;
    }

    /// Notes a part that is restored whole, with so many rows. Parts come in their order.
    pub(crate) fn expect(&mut self, part: PartId, rows: usize) {
        if let PartId::Keys { link } = part {
            debug_assert_eq!(usize::try_from(link), Ok(self.links.len()), "links come in their order");
            self.links.push(rows as u64);
            self.changed = Some(HashSet::new());
        }
    }

    /// Begins the part that the snapshot adds, and names those that stay. Returns the keys whose rows belong to it, of
    /// which there are so many in all.
    pub(crate) fn begin<S: Durable>(&mut self, out: &mut dyn RowsOut<S>, keys: usize) -> NeededKeys<K> {
        let request = out.request();
        let is_stored = request.since == Some(std::mem::replace(&mut self.snapshot, request.number));
        let changed = self.changed.replace(HashSet::new());
        let (base, linked) =
            self.links.split_first().map_or((0, 0), |(base, links)| (*base, links.iter().sum()));
        let fits = |changed: &HashSet<K>| {
            let has_room = self.links.len() <= MAX_LINKS || changed.is_empty();
            is_stored && !self.links.is_empty() && has_room && (linked + changed.len() as u64) * SHARE <= base
        };
        let Some(changed) = changed.filter(fits) else {
            self.links = vec![keys as u64];
            out.part(PartId::Keys { link: 0 }, request.number);
            return NeededKeys::All;
        };
        for link in 0..self.links.len() {
            out.part(Self::part(link), 0);
        }
        if !changed.is_empty() {
            out.part(Self::part(self.links.len()), request.number);
            self.links.push(changed.len() as u64);
        }
        NeededKeys::These(changed)
    }

    /// Returns the memory of what changed.
    pub(crate) fn bytes(&self) -> u64 {
        self.changed.as_ref().map_or(0, |changed| Footprint::of_set(changed).bytes)
    }

    fn part(link: usize) -> PartId {
        PartId::Keys { link: u32::try_from(link).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::state::parts::PartsEncoder;
    use crate::state::{Registry, Shard, Snapshot, SnapshotRequest, StateId, TakenSnapshot};

    /// A state with a number for each key.
    #[derive(Debug)]
    struct Numbers {
        of: BTreeMap<u64, u64>,
        chain: KeyChain<u64>,
    }

    impl Numbers {
        fn new() -> Self {
            Self { of: BTreeMap::new(), chain: KeyChain::new() }
        }

        fn set(&mut self, key: u64, number: u64) {
            self.of.insert(key, number);
            self.chain.mark(key, self.of.len());
        }
    }

    impl Durable for Numbers {
        const ID: StateId = StateId::Geo;
        type Row<'a> = (u64, u64);

        fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
            let needed = self.chain.begin(out, self.of.len());
            for (key, number) in &self.of {
                match &needed {
                    NeededKeys::These(keys) if !keys.contains(key) => {}
                    _ => out.row((*key, *number)),
                }
            }
            out.part(PartId::Rest, 0);
        }
        fn expect_rows(&mut self, part: PartId, rows: usize) {
            self.chain.expect(part, rows);
        }
        fn row_in(&mut self, (key, number): (u64, u64)) {
            self.of.insert(key, number);
        }
        fn shard((key, _): &(u64, u64)) -> Shard {
            Shard::Of(*key)
        }
        fn footprint(&self) -> Footprint {
            Footprint::default()
        }
    }

    fn taken(numbers: &mut Numbers, request: SnapshotRequest) -> Snapshot {
        let mut parts = BTreeMap::new();
        let mut encoder = PartsEncoder::new(Numbers::ID, 0, request, &mut parts);
        numbers.rows_out(&mut encoder);
        encoder.finish();
        TakenSnapshot::new(1, parts).encode()
    }

    /// What `workers` workers have after a restore, and the chain of the first one.
    fn restored(stored: &Snapshot, workers: usize) -> (BTreeMap<u64, u64>, KeyChain<u64>) {
        let mut of = BTreeMap::new();
        let mut chain = None;
        for worker in 0..workers {
            let mut registry = Registry::new(worker, workers, Some(stored));
            registry.register(Numbers::new()).unwrap().with(|numbers| {
                of.append(&mut numbers.of);
                chain.get_or_insert_with(|| std::mem::replace(&mut numbers.chain, KeyChain::new()));
            });
        }
        (of, chain.unwrap())
    }

    #[test]
    fn a_snapshot_has_what_changed_until_that_is_half_of_all() {
        let mut numbers = Numbers::new();
        (0..100).for_each(|key| numbers.set(key, 0));
        let mut request = SnapshotRequest::ALL;
        let mut stored = taken(&mut numbers, request);
        assert_eq!(stored.rows(Numbers::ID), 100);
        let mut written = Vec::new();
        for round in 1..=12 {
            if round != 3 {
                (0..10).for_each(|key| numbers.set(7 * round * key % 100, round));
            }
            request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
            let snapshot = taken(&mut numbers, request);
            written.push(snapshot.rows(Numbers::ID));
            stored = snapshot.over(&stored);
            assert!(stored.parts.values().all(Option::is_some));
            assert_eq!(restored(&stored, 1).0, numbers.of);
        }
        assert_eq!(written, [10, 10, 0, 10, 10, 10, 100, 10, 10, 10, 10, 10]);
        // Whole again: the one before wasn't stored, a key went, more than half changed.
        request.number += 2;
        assert_eq!(taken(&mut numbers, request).rows(Numbers::ID), 100);
        request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
        assert_eq!(taken(&mut numbers, request).rows(Numbers::ID), 0);
        numbers.of.remove(&5);
        numbers.chain.mark_all();
        request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
        assert_eq!(taken(&mut numbers, request).rows(Numbers::ID), 99);
        (0..60).for_each(|key| numbers.set(key, 9));
        assert!(numbers.chain.changed.is_none(), "what isn't needed takes no memory");
        request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
        assert_eq!(taken(&mut numbers, request).rows(Numbers::ID), 100);
    }

    #[test]
    fn there_is_a_bound_on_links() {
        let mut numbers = Numbers::new();
        (0..1_000).for_each(|key| numbers.set(key, 0));
        let mut request = SnapshotRequest::ALL;
        let mut most = 0;
        for round in 0..200 {
            let parts = taken(&mut numbers, request).parts;
            most = most.max(parts.keys().filter(|key| matches!(key.part, PartId::Keys { .. })).count());
            numbers.set(round, round);
            request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
        }
        assert_eq!(most, 1 + MAX_LINKS);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Set(u64),
        Remove(u64),
        Snapshot { is_stored: bool },
        Restart { workers: usize },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            12 => (0_u64..40).prop_map(Act::Set),
            1 => (0_u64..40).prop_map(Act::Remove),
            4 => prop::bool::weighted(0.8).prop_map(|is_stored| Act::Snapshot { is_stored }),
            1 => (1_usize..3).prop_map(|workers| Act::Restart { workers }),
        ]
    }

    proptest! {
        #[test]
        fn each_snapshot_over_those_before_it_is_the_state(acts in prop::collection::vec(act(), 0..200)) {
            let mut numbers = Numbers::new();
            let mut stored: Option<(Snapshot, BTreeMap<u64, u64>)> = None;
            let mut request = SnapshotRequest { number: 0, since: None };
            for (number, act) in (0..).zip(acts) {
                match act {
                    Act::Set(key) => numbers.set(key, number),
                    Act::Remove(key) => {
                        if numbers.of.remove(&key).is_some() {
                            numbers.chain.mark_all();
                        }
                    }
                    Act::Snapshot { is_stored } => {
                        request.number += 1;
                        let mut snapshot = taken(&mut numbers, request);
                        if let Some((stored, _)) = &stored {
                            snapshot = snapshot.over(stored);
                        }
                        prop_assert!(snapshot.parts.values().all(Option::is_some));
                        for workers in 1..3 {
                            prop_assert_eq!(&restored(&snapshot, workers).0, &numbers.of);
                        }
                        if is_stored {
                            stored = Some((snapshot, numbers.of.clone()));
                            request.since = Some(request.number);
                        }
                    }
                    Act::Restart { workers } => {
                        let Some((stored, of)) = &stored else { continue };
                        let (found, chain) = restored(stored, workers);
                        prop_assert_eq!(&found, of);
                        // Of another number of workers nothing is stored in parts of this one.
                        let since = (workers == 1).then_some(0);
                        numbers = Numbers { of: found, chain };
                        request = SnapshotRequest { number: 0, since };
                    }
                }
            }
            let links: BTreeSet<_> = stored.iter().flat_map(|(stored, _)| stored.parts.keys()).collect();
            prop_assert!(links.len() <= MAX_LINKS + 2);
        }
    }
}
