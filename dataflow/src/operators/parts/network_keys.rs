//! The keys that each network called with lately: whether a stranger has one key, or a list of them.
//!
//! A pair of network and key is noted once in six hours, and pairs are remembered by those six hours. So a pair whose
//! last call was within 24 hours is found, unless it was in the last hours of the six in which it was noted.
//!
//! Limits: 64 keys of a network and 131,072 pairs in six hours. Further ones aren't noted. Pairs come in the order of
//! event time, so which they are doesn't depend on how ticks are cut.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::detect::{NETWORK_SPAN_MS as SPAN_MS, first_address};
use crate::incident::{OtherKey, OtherKeys};
use crate::model::time::HOUR_MS;
use crate::model::{EventTime, KeyId, NameId};
use crate::state::Footprint;

const REMEMBERED_MS: u64 = 24 * HOUR_MS;
const MOST_KEYS: usize = 64;
const MOST_PAIRS: usize = 1 << 17;
/// The most keys of a network that are named.
const NAMED: usize = 10;

/// A key that a network called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkKey {
    pub(crate) key: KeyId,
    pub(crate) customer: NameId,
    /// True if the key had not been called from there until a day ago.
    pub(crate) is_new: bool,
    /// The address of the first call; 0 if it isn't known.
    client: u128,
    at_ms: EventTime,
}

/// A network that called with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NetworkCall {
    pub(crate) network: u64,
    pub(crate) key: KeyId,
    pub(crate) customer: NameId,
    pub(crate) is_new: bool,
    /// The address of the first call; 0 if it isn't known.
    pub(crate) client: u128,
}

/// The pairs of six hours.
#[derive(Default)]
struct PairSpan {
    networks: HashMap<u64, Vec<NetworkKey>>,
    pairs: usize,
}

/// The keys of all networks.
#[derive(Default)]
pub(crate) struct NetworkKeys {
    /// By the number of the six hours.
    spans: BTreeMap<u64, PairSpan>,
}

impl NetworkKeys {
    /// Notes that a network called with a key.
    pub(crate) fn note(&mut self, call: NetworkCall, at_ms: EventTime) {
        let NetworkCall { network, key, customer, is_new, client } = call;
        let span = self.spans.entry(at_ms / SPAN_MS).or_default();
        if span.pairs >= MOST_PAIRS {
            return;
        }
        let keys = span.networks.entry(network).or_default();
        if let Err(at) = keys.binary_search_by_key(&key, |known| known.key)
            && keys.len() < MOST_KEYS
        {
            keys.insert(at, NetworkKey { key, customer, is_new, client, at_ms });
            span.pairs += 1;
        }
    }

    /// Returns the other keys that networks called with in the 24 hours before `at_ms`.
    pub(crate) fn others(
        &self,
        key: KeyId,
        networks: impl Iterator<Item = u64>,
        at_ms: EventTime,
    ) -> Vec<OtherKeys> {
        networks.filter_map(|network| self.others_of(key, network, at_ms)).collect()
    }

    fn others_of(&self, key: KeyId, network: u64, at_ms: EventTime) -> Option<OtherKeys> {
        let mut all: BTreeMap<KeyId, (NameId, bool)> = BTreeMap::new();
        for one in self.lately(key, network, at_ms) {
            let (customer, is_new) = all.entry(one.key).or_default();
            (*customer, *is_new) = (one.customer, *is_new || one.is_new);
        }
        let (keys, usual): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, (_, is_new))| *is_new);
        let named = keys.iter().map(|(key, (customer, _))| OtherKey { key: *key, customer: *customer });
        let other = OtherKeys {
            network: first_address(network),
            usual_keys: usual.len().min(MOST_KEYS) as u32,
            keys: keys.len().min(MOST_KEYS) as u32,
            customers: count_distinct(keys.iter().map(|(_, (customer, _))| *customer)),
            named: named.take(NAMED).collect(),
        };
        (!keys.is_empty() || !usual.is_empty()).then_some(other)
    }

    /// Returns the number of other keys, and of their customers, that an address of a network called with for the first
    /// time in the 24 hours before `at_ms`.
    pub(crate) fn sharing(&self, key: KeyId, network: u64, client: u128, at_ms: EventTime) -> (u32, u32) {
        let shares = |one: &&NetworkKey| one.is_new && one.client == client;
        let keys: BTreeMap<KeyId, NameId> =
            self.lately(key, network, at_ms).filter(shares).map(|one| (one.key, one.customer)).collect();
        (keys.len() as u32, count_distinct(keys.into_values()))
    }

    /// Returns the pairs of a network with other keys than `key`, in the 24 hours before `at_ms` and their order. A key has
    /// several if it was noted in several spans.
    fn lately(&self, key: KeyId, network: u64, at_ms: EventTime) -> impl Iterator<Item = &NetworkKey> {
        let from_ms = at_ms.saturating_sub(REMEMBERED_MS);
        let spans = self.spans.range(from_ms / SPAN_MS..=at_ms / SPAN_MS);
        let keys = spans.filter_map(move |(_, span)| span.networks.get(&network)).flatten();
        keys.filter(move |one| one.key != key && (from_ms..=at_ms).contains(&one.at_ms))
    }

    /// Forgets what is older than 24 hours.
    pub(crate) fn forget(&mut self, now_ms: EventTime) {
        self.spans = self.spans.split_off(&(now_ms.saturating_sub(REMEMBERED_MS) / SPAN_MS));
    }

    /// Passes each pair on, with its network.
    pub(crate) fn pairs(&self, out: &mut dyn FnMut(u64, NetworkKey)) {
        for (network, keys) in self.spans.values().flat_map(|span| &span.networks) {
            keys.iter().for_each(|key| out(*network, *key));
        }
    }

    /// Notes a pair that [`pairs`](Self::pairs) passed on.
    pub(crate) fn restore(&mut self, network: u64, key: NetworkKey) {
        let NetworkKey { key, customer, is_new, client, at_ms } = key;
        self.note(NetworkCall { network, key, customer, is_new, client }, at_ms);
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::default();
        for span in self.spans.values() {
            let of_keys =
                Footprint::of_map_with(&span.networks, |keys| keys.capacity() * size_of::<NetworkKey>());
            footprint.bytes += of_keys.bytes;
            footprint.rows += span.pairs as u64;
        }
        footprint
    }
}

fn count_distinct(customers: impl Iterator<Item = NameId>) -> u32 {
    customers.collect::<BTreeSet<_>>().len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 80 * SPAN_MS;

    fn call(network: u64, key: u128, customer: u64, is_new: bool) -> NetworkCall {
        NetworkCall { network, key: KeyId(key), customer: NameId(customer), is_new, client: 7 }
    }

    fn others(keys: &NetworkKeys, key: u128, network: u64, at_ms: u64) -> Option<(u32, u32, Vec<u128>)> {
        let found = keys.others(KeyId(key), [network].into_iter(), at_ms);
        found
            .first()
            .map(|one| (one.keys, one.customers, one.named.iter().map(|named| named.key.0).collect()))
    }

    #[test]
    fn the_other_keys_of_a_day_are_found() {
        let mut keys = NetworkKeys::default();
        for (key, customer, hour) in [(1, 7, 0), (2, 7, 5), (3, 8, 20), (2, 7, 21)] {
            keys.note(call(9, key, customer, true), START + hour * HOUR_MS);
        }
        keys.note(call(9, 4, 9, false), START + 20 * HOUR_MS);
        assert_eq!(others(&keys, 1, 9, START + 22 * HOUR_MS), Some((2, 2, vec![2, 3])));
        assert_eq!(others(&keys, 3, 9, START + 25 * HOUR_MS), Some((1, 1, vec![2])));
        assert_eq!(keys.others(KeyId(1), [9].into_iter(), START + 22 * HOUR_MS)[0].usual_keys, 1);
        assert_eq!(keys.sharing(KeyId(1), 9, 7, START + 22 * HOUR_MS), (2, 2));
        assert_eq!(keys.sharing(KeyId(1), 9, 8, START + 22 * HOUR_MS), (0, 0));
        // Neither what comes later nor another network.
        assert_eq!(others(&keys, 3, 9, START), Some((1, 1, vec![1])));
        assert_eq!(others(&keys, 1, 10, START + HOUR_MS), None);
        keys.forget(START + 47 * HOUR_MS);
        assert_eq!(others(&keys, 1, 9, START + 44 * HOUR_MS), Some((2, 2, vec![2, 3])));
        keys.forget(START + 100 * HOUR_MS);
        assert!(keys.spans.is_empty());
    }

    #[test]
    fn no_network_and_no_crowd_of_them_takes_more_than_its_share() {
        let mut keys = NetworkKeys::default();
        for key in 0..100 {
            keys.note(call(9, key, 0, true), START);
        }
        assert_eq!(others(&keys, 1, 9, START).map(|found| (found.0, found.2.len())), Some((63, NAMED)));
        for network in 0..2 * MOST_PAIRS as u64 {
            keys.note(call(network + 10, 1, 0, false), START);
        }
        let mut pairs = 0;
        keys.pairs(&mut |_, _| pairs += 1);
        assert_eq!(pairs, MOST_PAIRS);
        assert_eq!(keys.footprint().rows, MOST_PAIRS as u64);
    }
}
