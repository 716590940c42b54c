//! Sums calls, errors, bytes, latencies and units for the views `usage` and `usage_by_route`.
//!
//! Totals are exact in 128 bits. Rows show at most 2^64 - 1, here as in `subscription_usage`. Decoders admit at most
//! 2^40 bytes and 2^42 units an event and 2^42 us a call, so it takes 2^22 such calls to reach that. A row keeps its sums in 32 bits
//! each while all of them fit.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::parts::group::Group;
use super::parts::owners::Owners;
use super::windowed::{Accumulator, Metric};
use crate::model::{AccessEvent, EventTime, KeyId, RouteId};
use crate::row::{KeyRoute, OwnedUsage, Row, Rows, Usage};
use crate::state::StateId;
use crate::window::Level;

/// The number of fields of [`Usage`].
const FIELDS: usize = 9;
/// The index of `latency_sum_us` among them.
const LATENCY_SUM: usize = 5;

/// Exact sums, in the order of the fields of [`Usage`]. Arithmetic wraps, so that an addition can be taken back. No
/// sum of calls comes near 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Totals(pub(crate) [u128; FIELDS]);

impl Totals {
    #[inline]
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, part) in self.0.iter_mut().zip(&other.0) {
            *sum = sum.wrapping_add(*part);
        }
    }

    pub(crate) fn negate(&mut self) {
        self.0 = self.0.map(u128::wrapping_neg);
    }

    /// Returns the sums as rows show them.
    pub(crate) fn usage(&self) -> Usage {
        let sums = self.0.map(|sum| u64::try_from(sum).unwrap_or(u64::MAX));
        let [
            calls,
            errors_4xx,
            errors_5xx,
            bytes_in,
            bytes_out,
            latency_sum_us,
            latency_calls,
            free_calls,
            units,
        ] = sums;
        Usage {
            calls,
            errors_4xx,
            errors_5xx,
            bytes_in,
            bytes_out,
            latency_sum_us,
            latency_calls,
            free_calls,
            units,
        }
    }
}

/// The sums of a row, in 32 bits each while that is enough.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Totals", into = "Totals")]
pub(crate) enum CompactTotals {
    Narrow([u32; FIELDS]),
    Wide(Box<Totals>),
}

const _: () = assert!(size_of::<CompactTotals>() == 40);

impl Default for CompactTotals {
    fn default() -> Self {
        Self::Narrow([0; FIELDS])
    }
}

impl From<Totals> for CompactTotals {
    fn from(sums: Totals) -> Self {
        let mut narrow = [0; FIELDS];
        for (narrow, sum) in narrow.iter_mut().zip(sums.0) {
            let Ok(sum) = u32::try_from(sum) else { return Self::Wide(Box::new(sums)) };
            *narrow = sum;
        }
        Self::Narrow(narrow)
    }
}

impl From<CompactTotals> for Totals {
    fn from(counted: CompactTotals) -> Self {
        counted.totals()
    }
}

impl CompactTotals {
    /// Adds the calls of an event. Its bytes and units are those of all of them; its latency is that of each.
    #[inline]
    fn observe(&mut self, event: &AccessEvent) {
        let calls = u64::from(event.count);
        let latency = event.latency();
        let calls_if = |counts: bool| if counts { calls } else { 0 };
        let parts = |latency_sum| {
            let AccessEvent { bytes_in, bytes_out, .. } = *event;
            let units = if event.is_free { 0 } else { event.units };
            let (errors_4xx, errors_5xx) = (calls_if(event.is_4xx()), calls_if(event.is_5xx()));
            let (latency_calls, free_calls) = (calls_if(latency.is_some()), calls_if(event.is_free));
            [
                calls,
                errors_4xx,
                errors_5xx,
                bytes_in,
                bytes_out,
                latency_sum,
                latency_calls,
                free_calls,
                units,
            ]
        };
        match latency.unwrap_or(0).checked_mul(calls) {
            Some(sum) => self.add(parts(sum)),
            None => {
                let mut sums = parts(0).map(u128::from);
                sums[LATENCY_SUM] = u128::from(event.latency_us) * u128::from(calls);
                self.widen().add(&Totals(sums));
            }
        }
    }

    #[inline]
    fn add(&mut self, parts: [u64; FIELDS]) {
        if let Self::Narrow(narrow) = self {
            let mut sums = [0; FIELDS];
            let mut all = 0;
            for ((sum, narrow), part) in sums.iter_mut().zip(&*narrow).zip(parts) {
                *sum = u64::from(*narrow).saturating_add(part);
                all |= *sum;
            }
            if all <= u64::from(u32::MAX) {
                // `map` over an array is a call for each of its elements here.
                for (narrow, sum) in narrow.iter_mut().zip(sums) {
                    *narrow = sum as u32;
                }
                return;
            }
        }
        self.widen().add(&Totals(parts.map(u128::from)));
    }

    fn widen(&mut self) -> &mut Totals {
        if let Self::Narrow(_) = self {
            *self = Self::Wide(Box::new(self.totals()));
        }
        match self {
            Self::Wide(sums) => sums,
            Self::Narrow(_) => unreachable!("it was just widened"),
        }
    }

    /// Returns the sums, in whichever way they are kept.
    #[inline]
    pub(crate) fn totals(&self) -> Totals {
        match self {
            Self::Narrow(narrow) => Totals(narrow.map(u128::from)),
            Self::Wide(sums) => **sums,
        }
    }
}

impl Accumulator for CompactTotals {
    #[inline]
    fn merge(&mut self, other: &Self) {
        match other {
            Self::Narrow(narrow) => {
                let mut parts = [0; FIELDS];
                for (part, narrow) in parts.iter_mut().zip(narrow) {
                    *part = u64::from(*narrow);
                }
                self.add(parts);
            }
            Self::Wide(sums) => self.widen().add(sums),
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::Narrow(_) => 0,
            Self::Wide(_) => size_of::<Totals>(),
        }
    }
}

/// The id of a key in words of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PackedKey(u64, u64);

impl PackedKey {
    pub(crate) fn pack(key: KeyId) -> Self {
        Self((key.0 >> 64) as u64, key.0 as u64)
    }

    pub(crate) fn unpack(self) -> KeyId {
        KeyId(u128::from(self.0) << 64 | u128::from(self.1))
    }
}

impl Group for KeyId {
    type Packed = PackedKey;

    fn pack(self) -> PackedKey {
        PackedKey::pack(self)
    }
    fn unpack(packed: PackedKey) -> Self {
        packed.unpack()
    }
    fn bucket(&self) -> u8 {
        KeyId::bucket(*self)
    }
}

impl Group for KeyRoute {
    type Packed = (PackedKey, RouteId);

    fn pack(self) -> (PackedKey, RouteId) {
        (PackedKey::pack(self.key), self.route)
    }
    fn unpack((key, route): (PackedKey, RouteId)) -> Self {
        Self { key: key.unpack(), route }
    }
    fn bucket(&self) -> u8 {
        self.key.bucket()
    }
}

/// The difference between the two views of usage.
pub(crate) trait UsageBy: 'static {
    const ID: StateId;
    const LEVELS: &'static [Level];
    type Group: Group;
    fn group(event: &AccessEvent) -> Self::Group;
    fn key(group: &Self::Group) -> KeyId;
    fn rows(rows: Vec<Row<Self::Group, OwnedUsage>>) -> Rows;
}

/// Groups of the view `usage`.
pub(crate) struct ByKey;

impl UsageBy for ByKey {
    const ID: StateId = StateId::Usage;
    const LEVELS: &'static [Level] = &[Level::Minute, Level::Hour, Level::Day, Level::Month];
    type Group = KeyId;
    #[inline]
    fn group(event: &AccessEvent) -> KeyId {
        event.key
    }
    fn key(group: &KeyId) -> KeyId {
        *group
    }
    fn rows(rows: Vec<Row<KeyId, OwnedUsage>>) -> Rows {
        Rows::Usage(rows)
    }
}

/// Groups of the view `usage_by_route`.
pub(crate) struct ByRoute;

impl UsageBy for ByRoute {
    const ID: StateId = StateId::UsageByRoute;
    const LEVELS: &'static [Level] = &[Level::Hour, Level::Day];
    type Group = KeyRoute;
    #[inline]
    fn group(event: &AccessEvent) -> KeyRoute {
        KeyRoute { key: event.key, route: event.route }
    }
    fn key(group: &KeyRoute) -> KeyId {
        group.key
    }
    fn rows(rows: Vec<Row<KeyRoute, OwnedUsage>>) -> Rows {
        Rows::UsageByRoute(rows)
    }
}

/// The metric of either view of usage.
pub(crate) struct UsageMetric<B>(PhantomData<B>);

impl<B: UsageBy> Metric for UsageMetric<B> {
    const ID: StateId = B::ID;
    const LEVELS: &'static [Level] = B::LEVELS;
    type Group = B::Group;
    type Acc = CompactTotals;
    type Context = Owners;
    type RowGroup = B::Group;
    type Value = OwnedUsage;

    #[inline]
    fn group(event: &AccessEvent) -> Option<B::Group> {
        Some(B::group(event))
    }
    #[inline]
    fn observe(acc: &mut CompactTotals, event: &AccessEvent) {
        acc.observe(event);
    }
    fn subject(group: &B::Group) -> KeyId {
        B::key(group)
    }
    fn row_group(group: B::Group) -> B::Group {
        group
    }
    fn value(
        acc: Option<&CompactTotals>,
        group: &B::Group,
        start: EventTime,
        owners: &Owners,
    ) -> Option<OwnedUsage> {
        acc.map(|counted| OwnedUsage {
            usage: counted.totals().usage(),
            owner: owners.at(B::key(group), start),
        })
    }
    fn rows(rows: Vec<Row<B::Group, OwnedUsage>>) -> Rows {
        B::rows(rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_leave_32_bits_when_they_must_and_saturate_only_where_they_are_shown() {
        let mut counted = CompactTotals::default();
        counted.add([1, 0, 0, u64::from(u32::MAX), 0, 0, 0, 0, 0]);
        assert!(matches!(counted, CompactTotals::Narrow(_)));
        counted.add([0, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert!(matches!(counted, CompactTotals::Wide(_)));
        assert_eq!(counted.totals().usage().bytes_in, 1 << 32);
        counted.add([0, 0, 0, u64::MAX, 0, u64::MAX, 0, 0, 0]);
        counted.merge(&counted.clone());
        assert_eq!(counted.totals().0[3], ((1 << 32) + u128::from(u64::MAX)) * 2);
        let Usage { calls, bytes_in, latency_sum_us, .. } = counted.totals().usage();
        assert_eq!((calls, bytes_in, latency_sum_us), (2, u64::MAX, u64::MAX));
    }

    proptest! {
        #[test]
        fn sums_are_the_same_in_any_grouping(
            parts in prop::collection::vec((prop::array::uniform9(0_u64..1 << 33), 0_usize..3), 0..40)
        ) {
            let mut whole = CompactTotals::default();
            let mut groups = vec![CompactTotals::default(); 3];
            for (part, group) in &parts {
                whole.add(*part);
                groups[*group].add(*part);
            }
            let mut merged = CompactTotals::default();
            groups.iter().rev().for_each(|group| merged.merge(group));
            prop_assert_eq!(merged.totals(), whole.totals());
            for field in 0..FIELDS {
                let sum: u128 = parts.iter().map(|(part, _)| u128::from(part[field])).sum();
                prop_assert_eq!(whole.totals().0[field], sum);
            }
            let same: CompactTotals = postcard::from_bytes(&postcard::to_stdvec(&whole).unwrap()).unwrap();
            prop_assert_eq!(std::mem::discriminant(&same), std::mem::discriminant(&whole));
            prop_assert_eq!(same.totals(), whole.totals());
        }
    }
}
