//! `callers`: distinct client addresses by key and by route, exact.
//!
//! The addresses themselves are kept (16 bytes each), so no hash can make two callers one. Up to 32 stand in
//! a sorted list, more in a hash set. Calls whose address isn't known have no caller.

use std::marker::PhantomData;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::latency::{OfKey, OfRoute, ScopeOf};
use super::windowed::{Accumulator, Metric};
use crate::model::{AccessEvent, EventTime};
use crate::row::{Callers, Row, Rows, Scope};
use crate::state::{StateId, spilled};
use crate::window::Level;

const LISTED: usize = 32;

/// A set of addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Addresses {
    /// In ascending order.
    Few(SmallVec<[u128; 1]>),
    Many(HashSet<u128>),
}

impl Default for Addresses {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Addresses {
    #[inline]
    fn insert(&mut self, address: u128) {
        match self {
            Self::Few(few) => {
                let Err(index) = few.binary_search(&address) else { return };
                if few.len() < LISTED {
                    few.insert(index, address);
                } else {
                    *self = Self::Many(few.iter().copied().chain([address]).collect());
                }
            }
            Self::Many(many) => {
                many.insert(address);
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }
}

impl Accumulator for Addresses {
    fn merge(&mut self, other: &Self) {
        match other {
            Self::Few(few) => few.iter().for_each(|address| self.insert(*address)),
            Self::Many(many) => many.iter().for_each(|address| self.insert(*address)),
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::Few(few) => spilled(few),
            Self::Many(many) => many.allocation_size(),
        }
    }
}

/// `callers` of one scope.
pub(crate) struct CallersMetric<S>(PhantomData<S>);

pub(crate) trait CallersState: ScopeOf {
    const ID: StateId;
}
impl CallersState for OfKey {
    const ID: StateId = StateId::CallersByKey;
}
impl CallersState for OfRoute {
    const ID: StateId = StateId::CallersByRoute;
}

impl<S: CallersState> Metric for CallersMetric<S> {
    const ID: StateId = S::ID;
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
    fn subject(_: &S::Group) {}
    fn row_group(group: S::Group) -> Scope {
        S::scope(group)
    }
    fn value(acc: Option<&Addresses>, _: &S::Group, _: EventTime, (): &()) -> Option<Callers> {
        acc.map(|addresses| Callers { callers: addresses.len() as u64, exact: true })
    }
    fn rows(rows: Vec<Row<Scope, Callers>>) -> Rows {
        Rows::Callers(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_counts_each_address_once(a in prop::collection::vec(0_u128..90, 0..120), b in prop::collection::vec(0_u128..90, 0..120)) {
            let collect = |addresses: &[u128]| {
                let mut set = Addresses::default();
                addresses.iter().for_each(|address| set.insert(*address));
                set
            };
            let mut merged = collect(&a);
            merged.merge(&collect(&b));
            let distinct: std::collections::BTreeSet<_> = a.iter().chain(&b).collect();
            prop_assert_eq!(merged.len(), distinct.len());
        }
    }
}
