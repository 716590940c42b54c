//! Counts distinct client addresses by key and by route, for the view `callers`. Numbers are exact up to
//! `limits.callers_exact`, then estimated.
//!
//! Up to the limit the addresses themselves are kept, so no hash can make two callers one. A row keeps five IPv4
//! addresses in place, and 32 of any kind in a list. More are in a hash set of some 20 to 40 bytes each. A row with
//! more than the limit keeps a [`Sketch`] of them instead, 4 KiB whatever their number, and has `exact` false. The
//! standard error is 1.63 %, and the number is never below the limit that was passed. Calls whose address isn't known
//! have no caller.
//!
//! The content of a row is a function of the set of its addresses, whatever the order and grouping in which they
//! came. Within the limit it is the set. Beyond the limit it is the sketch of the set: a set that passes the limit
//! enters the sketch whole, and a sketch never becomes a set again.
//!
//! The hash (XXH3, 64 bits, of the 16 bytes of the address) has no secret, and is the same in every process. So a
//! caller with a large network of IPv6 addresses can push an estimate either way, but never an exact number.

use std::marker::PhantomData;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::latency::ScopeOf;
use super::parts::few::{self, FEW};
use super::parts::sketch::Sketch;
use super::windowed::{Accumulator, Metric, MetricSettings};
use crate::model::{AccessEvent, EventTime};
use crate::row::{Callers, Row, Rows, Scope};
use crate::state::StateId;
use crate::window::Level;

const LISTED: usize = 32;

/// A set of addresses, or a sketch of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Addresses {
    /// At most five addresses, all of IPv4.
    Few { len: u8, v4: [u32; FEW] },
    /// At most [`LISTED`] addresses of any kind, in ascending order.
    Listed(Box<[u128]>),
    /// More than [`LISTED`] addresses, and at most the limit.
    Many(Box<HashSet<u128>>),
    /// A sketch of more addresses than the limit.
    Sketched(Box<Sketched>),
}

const _: () = assert!(size_of::<Addresses>() == 24);

/// A sketch of more addresses than a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sketched {
    sketch: Sketch,
    /// The limit that was passed: the number of addresses is certainly above it.
    more_than: u64,
}

impl Default for Addresses {
    fn default() -> Self {
        Self::Few { len: 0, v4: [0; FEW] }
    }
}

/// Returns the IPv4 address that is mapped into an IPv6 one.
fn v4(address: u128) -> Option<u32> {
    (address >> 32 == 0xffff).then_some(address as u32)
}

fn mapped(v4: u32) -> u128 {
    0xffff << 32 | u128::from(v4)
}

fn hash(address: u128) -> u64 {
    xxh3_64(&address.to_be_bytes())
}

impl Addresses {
    #[inline]
    fn insert(&mut self, address: u128) {
        match self {
            Self::Few { len, v4: few } => {
                let v4 = v4(address);
                let index = v4.map(|v4| few::listed(*len, few).binary_search(&v4));
                match (v4, index) {
                    (_, Some(Ok(_))) => {}
                    (Some(v4), Some(Err(index))) if few::insert(len, few, index, v4) => {}
                    _ => {
                        let listed = few::listed(*len, few).iter().map(|v4| mapped(*v4)).collect();
                        *self = Self::Listed(listed);
                        self.insert(address);
                    }
                }
            }
            Self::Listed(listed) => {
                let Err(index) = listed.binary_search(&address) else { return };
                if listed.len() < LISTED {
                    let mut longer = Vec::with_capacity(listed.len() + 1);
                    longer.extend_from_slice(&listed[..index]);
                    longer.push(address);
                    longer.extend_from_slice(&listed[index..]);
                    *listed = longer.into();
                } else {
                    *self = Self::Many(Box::new(listed.iter().copied().chain([address]).collect()));
                }
            }
            Self::Many(many) => {
                many.insert(address);
            }
            Self::Sketched(sketched) => sketched.sketch.insert(hash(address)),
        }
    }

    /// Returns the number of addresses, if they are kept.
    fn exact(&self) -> Option<usize> {
        match self {
            Self::Few { len, v4 } => Some(few::listed(*len, v4).len()),
            Self::Listed(listed) => Some(listed.len()),
            Self::Many(many) => Some(many.len()),
            Self::Sketched(_) => None,
        }
    }

    /// Keeps a sketch instead of more than `limit` addresses.
    #[inline]
    fn keep_at_most(&mut self, limit: usize) {
        if self.exact().is_some_and(|len| len > limit) {
            let mut sketch = Sketch::default();
            self.each(|address| sketch.insert(hash(address)));
            *self = Self::Sketched(Box::new(Sketched { sketch, more_than: limit as u64 }));
        }
    }

    /// Passes the addresses to `out`, if they are kept.
    fn each(&self, mut out: impl FnMut(u128)) {
        match self {
            Self::Few { len, v4 } => few::listed(*len, v4).iter().for_each(|v4| out(mapped(*v4))),
            Self::Listed(listed) => listed.iter().for_each(|address| out(*address)),
            Self::Many(many) => many.iter().for_each(|address| out(*address)),
            Self::Sketched(_) => {}
        }
    }

    fn callers(&self) -> Callers {
        match self {
            Self::Sketched(sketched) => {
                let callers = sketched.sketch.estimate().max(sketched.more_than.saturating_add(1));
                Callers { callers, exact: false }
            }
            _ => Callers { callers: self.exact().unwrap_or(0) as u64, exact: true },
        }
    }
}

impl Accumulator for Addresses {
    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Sketched(sketched), Self::Sketched(other)) => {
                sketched.sketch.merge(&other.sketch);
                sketched.more_than = sketched.more_than.max(other.more_than);
            }
            (_, Self::Sketched(other)) => {
                let mut merged = other.clone();
                self.each(|address| merged.sketch.insert(hash(address)));
                *self = Self::Sketched(merged);
            }
            _ => other.each(|address| self.insert(address)),
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::Few { .. } => 0,
            Self::Listed(listed) => size_of_val(&**listed),
            Self::Many(many) => size_of::<HashSet<u128>>() + many.allocation_size(),
            Self::Sketched(_) => size_of::<Sketched>() + Sketch::BYTES,
        }
    }
}

/// The metric `callers` of one scope.
pub(crate) struct CallersMetric<S>(PhantomData<S>);

impl<S: ScopeOf> Metric for CallersMetric<S> {
    const ID: StateId = S::CALLERS;
    const LEVELS: &'static [Level] = &[Level::Day];
    type Group = S::Group;
    type Acc = Addresses;
    type Context = ();
    type RowGroup = Scope;
    type Value = Callers;

    #[inline]
    fn group(event: &AccessEvent) -> Option<S::Group> {
        (event.client != 0).then(|| S::of(event))
    }
    #[inline]
    fn observe(acc: &mut Addresses, event: &AccessEvent) {
        acc.insert(event.client);
    }
    #[inline]
    fn limit(acc: &mut Addresses, settings: &MetricSettings) {
        acc.keep_at_most(settings.callers_exact);
    }
    fn subject(_: &S::Group) {}
    fn row_group(group: S::Group) -> Scope {
        S::scope(group)
    }
    fn value(acc: Option<&Addresses>, _: &S::Group, _: EventTime, (): &()) -> Option<Callers> {
        acc.map(Addresses::callers)
    }
    fn rows(rows: Vec<Row<Scope, Callers>>) -> Rows {
        Rows::Callers(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    fn collect(addresses: impl IntoIterator<Item = u128>, limit: usize) -> Addresses {
        let mut set = Addresses::default();
        for address in addresses {
            set.insert(address);
            set.keep_at_most(limit);
        }
        set
    }

    /// Returns an address of a number. A third of them are of IPv4.
    fn address(number: u64) -> u128 {
        if number.is_multiple_of(3) { mapped(number as u32) } else { u128::from(number) << 64 | 1 }
    }

    #[test]
    fn a_row_is_exact_up_to_the_limit_and_an_estimate_from_there() {
        let of = |count: u64| collect((0..count).map(address), LIMIT).callers();
        assert_eq!(of(LIMIT as u64 - 1), Callers { callers: 63, exact: true });
        assert_eq!(of(LIMIT as u64), Callers { callers: 64, exact: true });
        let beyond = of(LIMIT as u64 + 1);
        assert!(!beyond.exact && (65..=67).contains(&beyond.callers), "{beyond:?}");
    }

    #[test]
    fn an_estimate_is_never_below_what_is_certain() {
        let mut low = collect((0..65).map(address), LIMIT);
        let Addresses::Sketched(sketched) = &mut low else { panic!("{low:?}") };
        sketched.sketch = Sketch::default();
        assert_eq!(low.callers(), Callers { callers: 65, exact: false });
    }

    #[test]
    fn estimates_are_within_four_standard_errors() {
        let limit = 4_096;
        let sigma = 1.04 / 64.0;
        for (count, seeds) in [(limit as u64 + 1, 100), (10_000, 100), (100_000, 20), (1_000_000, 2)] {
            let mut squares = 0.0;
            for seed in 0..seeds {
                let addresses = (0..count).map(|number| address(seed << 32 | number));
                let callers = collect(addresses, limit).callers();
                assert!(!callers.exact);
                let error = (callers.callers as f64 - count as f64) / count as f64;
                assert!(error.abs() <= 4.0 * sigma, "{callers:?} of {count}, seed {seed}");
                squares += error * error;
            }
            let spread = (squares / seeds as f64).sqrt();
            assert!(spread < 1.5 * sigma, "{spread} at {count}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_row_is_a_function_of_its_set_of_addresses(
            numbers in prop::collection::vec((0_u64..120, 0_usize..3), 0..200), limit in 1_usize..100
        ) {
            let distinct: BTreeSet<u128> = numbers.iter().map(|(number, _)| address(*number)).collect();
            let in_order = collect(distinct.iter().copied(), limit);
            let as_they_come = collect(numbers.iter().map(|(number, _)| address(*number)), limit);
            prop_assert_eq!(&as_they_come, &in_order);
            for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
                let mut merged = Addresses::default();
                for part in order {
                    let of_part = numbers.iter().rev().filter(|number| number.1 == part);
                    merged.merge(&collect(of_part.map(|(number, _)| address(*number)), limit));
                    merged.keep_at_most(limit);
                }
                prop_assert_eq!(&merged, &in_order);
            }
            let callers = in_order.callers();
            prop_assert_eq!(callers.exact, distinct.len() <= limit);
            if callers.exact {
                prop_assert_eq!(callers.callers, distinct.len() as u64);
            }
        }

        #[test]
        fn a_row_leaves_and_re_enters_as_it_was(count in 0_u64..150) {
            let set = collect((0..count).map(address), LIMIT);
            let bytes = postcard::to_stdvec(&set).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Addresses>(&bytes).unwrap(), set);
        }
    }
}
