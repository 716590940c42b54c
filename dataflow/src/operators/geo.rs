//! Counts calls by key and country, with the autonomous systems they came from, for the view `geo`.
//!
//! Systems are counted exactly and without a cap. Their number is bounded by the systems that the geo database has
//! for a country, some 20,000 for the largest. They are in a sorted list. A row of 20,000 takes 320 KB. It is made by
//! 20,000 insertions, which move at most 160 KB each: a second in all at the worst.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::parts::group::Group;
use super::usage::PackedKey;
use super::windowed::{Accumulator, Metric};
use crate::model::{AccessEvent, Country, EventTime};
use crate::row::{CountryCalls, KeyCountry, Row, Rows};
use crate::state::{StateId, spilled};
use crate::window::Level;

/// The number of autonomous systems that a row names.
const TOP_ASNS: usize = 5;

/// The sums of calls from a country.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CountrySums {
    /// Fewer than 2^32 calls, of at most one system that is known.
    One {
        calls: u32,
        errors: u32,
        asn: u32,
        asn_calls: u32,
    },
    Many(Box<Systems>),
}

const _: () = assert!(size_of::<CountrySums>() == 24);

/// The sums of calls from a country by system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Systems {
    calls: u64,
    errors: u64,
    /// (number, calls) in the order of numbers. System 0 is unknown and not listed.
    asns: SmallVec<[(u32, u64); 2]>,
}

impl Systems {
    #[inline]
    fn count(&mut self, asn: u32, calls: u64) {
        match self.asns.binary_search_by_key(&asn, |entry| entry.0) {
            Ok(index) => self.asns[index].1 += calls,
            Err(index) => self.asns.insert(index, (asn, calls)),
        }
    }

    #[inline]
    fn add(&mut self, calls: u64, errors: u64, asn: u32, asn_calls: u64) {
        self.calls += calls;
        self.errors += errors;
        if asn != 0 {
            self.count(asn, asn_calls);
        }
    }
}

impl Default for CountrySums {
    fn default() -> Self {
        Self::One { calls: 0, errors: 0, asn: 0, asn_calls: 0 }
    }
}

impl CountrySums {
    /// Adds calls of one system, which is 0 where unknown.
    #[inline]
    fn add(&mut self, more: u32, wrong: u32, system: u32, of_system: u32) {
        if let Self::One { calls, errors, asn, asn_calls } = self
            && (system == 0 || *asn == 0 || *asn == system)
            && let Some(sum) = calls.checked_add(more)
        {
            // Errors and calls of the system are never more than the calls.
            *calls = sum;
            *errors = errors.saturating_add(wrong);
            if system != 0 {
                *asn = system;
                *asn_calls = asn_calls.saturating_add(of_system);
            }
            return;
        }
        self.systems().add(more.into(), wrong.into(), system, of_system.into());
    }

    fn systems(&mut self) -> &mut Systems {
        if let Self::One { calls, errors, asn, asn_calls } = *self {
            let mut systems = Systems::default();
            systems.add(calls.into(), errors.into(), asn, asn_calls.into());
            *self = Self::Many(Box::new(systems));
        }
        match self {
            Self::Many(systems) => systems,
            Self::One { .. } => unreachable!("it was just made many"),
        }
    }

    fn geo(&self) -> CountryCalls {
        match self {
            Self::One { calls, errors, asn, asn_calls } => {
                let known = (*asn != 0).then_some((*asn, u64::from(*asn_calls)));
                CountryCalls {
                    calls: (*calls).into(),
                    errors: (*errors).into(),
                    asns: known.into_iter().collect(),
                }
            }
            Self::Many(systems) => {
                let mut asns: Vec<(u32, u64)> = systems.asns.to_vec();
                let most_first = |(asn, calls): &(u32, u64)| (std::cmp::Reverse(*calls), *asn);
                if asns.len() > TOP_ASNS {
                    asns.select_nth_unstable_by_key(TOP_ASNS, most_first);
                    asns.truncate(TOP_ASNS);
                }
                asns.sort_unstable_by_key(most_first);
                CountryCalls { calls: systems.calls, errors: systems.errors, asns: asns.into() }
            }
        }
    }
}

impl Accumulator for CountrySums {
    fn merge(&mut self, other: &Self) {
        match other {
            Self::One { calls, errors, asn, asn_calls } => self.add(*calls, *errors, *asn, *asn_calls),
            Self::Many(other) => {
                let systems = self.systems();
                systems.calls += other.calls;
                systems.errors += other.errors;
                for (asn, calls) in &other.asns {
                    systems.count(*asn, *calls);
                }
            }
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::One { .. } => 0,
            Self::Many(systems) => size_of::<Systems>() + spilled(&systems.asns),
        }
    }
}

impl Group for KeyCountry {
    type Packed = (PackedKey, Country);

    fn pack(self) -> (PackedKey, Country) {
        (PackedKey::pack(self.key), self.country)
    }
    fn unpack((key, country): (PackedKey, Country)) -> Self {
        Self { key: key.unpack(), country }
    }
    fn bucket(&self) -> u8 {
        self.key.bucket()
    }
}

/// The metric `geo` of keys and countries.
pub(crate) struct GeoMetric;

impl Metric for GeoMetric {
    const ID: StateId = StateId::Geo;
    const LEVELS: &'static [Level] = &[Level::Hour, Level::Day];
    type Group = KeyCountry;
    type Acc = CountrySums;
    type Context = ();
    type RowGroup = KeyCountry;
    type Value = CountryCalls;

    #[inline]
    fn group(event: &AccessEvent) -> Option<KeyCountry> {
        Some(KeyCountry { key: event.key, country: event.country })
    }
    #[inline]
    fn observe(acc: &mut CountrySums, event: &AccessEvent) {
        let errors = if event.is_4xx() || event.is_5xx() { event.count } else { 0 };
        acc.add(event.count, errors, event.asn, event.count);
    }
    fn subject(_: &KeyCountry) {}
    fn row_group(group: KeyCountry) -> KeyCountry {
        group
    }
    fn value(acc: Option<&CountrySums>, _: &KeyCountry, _: EventTime, (): &()) -> Option<CountryCalls> {
        acc.map(CountrySums::geo)
    }
    fn rows(rows: Vec<Row<KeyCountry, CountryCalls>>) -> Rows {
        Rows::Geo(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_of_twenty_thousand_systems_names_the_five_with_most_calls() {
        let mut sums = CountrySums::default();
        for asn in (1..=20_000).rev() {
            sums.add(1 + asn % 7, 0, asn, 1 + asn % 7);
        }
        let geo = sums.geo();
        assert_eq!(geo.asns.as_slice(), [(6, 7), (13, 7), (20, 7), (27, 7), (34, 7)]);
        assert_eq!(geo.calls, (1..=20_000).map(|asn| 1 + asn % 7).sum::<u64>());
    }

    #[test]
    fn calls_leave_32_bits_when_they_must() {
        let mut sums = CountrySums::default();
        sums.add(u32::MAX, 3, 9, u32::MAX);
        assert!(matches!(sums, CountrySums::One { .. }));
        sums.add(1, 1, 9, 1);
        let geo = sums.geo();
        assert_eq!((geo.calls, geo.errors, geo.asns.as_slice()), (1 << 32, 4, &[(9, 1 << 32)][..]));
    }

    proptest! {
        #[test]
        fn origins_add_up_in_any_grouping(
            calls in prop::collection::vec((0_u32..9, any::<bool>(), 0_usize..3), 0..40)
        ) {
            let mut groups = vec![CountrySums::default(); 3];
            for (asn, wrong, group) in &calls {
                groups[*group].add(1, u32::from(*wrong), *asn, 1);
            }
            let mut merged = CountrySums::default();
            groups.iter().rev().for_each(|group| merged.merge(group));
            let mut systems: BTreeMap<u32, u64> = BTreeMap::new();
            for (asn, _, _) in calls.iter().filter(|call| call.0 != 0) {
                *systems.entry(*asn).or_default() += 1;
            }
            let mut top: Vec<_> = systems.into_iter().collect();
            top.sort_by_key(|(asn, calls)| (u64::MAX - calls, *asn));
            top.truncate(5);
            let geo = merged.geo();
            prop_assert_eq!(geo.calls, calls.len() as u64);
            prop_assert_eq!(geo.errors, calls.iter().filter(|call| call.1).count() as u64);
            prop_assert_eq!(geo.asns.to_vec(), top);
        }
    }
}
