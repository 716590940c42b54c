//! Counts latencies in integer log-linear histograms, and takes percentiles of them, for the view `latency`.
//!
//! A bucket is a latency's leading bit and the six bits after it. It is exact below 128 us, and above it 1/64 of an
//! octave wide. So the midpoint is within 1/128 (0.8 %) of any value in the bucket. Counts are integers and
//! histograms add. So the result is the same bit for bit, whatever the order and grouping in which events arrive. Up
//! to five latencies of a row are kept as they are, and summarised as the histogram that they would make. A
//! percentile is by nearest rank: the smallest value with at least p % of the calls at or below it.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::parts::few::{self, FEW};
use super::parts::group::Group;
use super::windowed::{Accumulator, Metric};
use crate::model::{AccessEvent, EventTime, KeyId, RouteId};
use crate::row::{Latency, Row, Rows, Scope};
use crate::state::{StateId, spilled};
use crate::window::Level;

const MANTISSA_BITS: u32 = 6;

fn bucket(value: u64) -> u16 {
    let exponent = (value | 1 << MANTISSA_BITS).ilog2() - MANTISSA_BITS;
    let index = (u64::from(exponent) << MANTISSA_BITS) + (value >> exponent);
    u16::try_from(index).expect("64 exponents of 64 buckets fit 16 bits")
}

fn midpoint(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let exponent = (bucket >> MANTISSA_BITS).saturating_sub(1);
    let low = (bucket - (exponent << MANTISSA_BITS)) << exponent;
    low + ((1 << exponent) - 1) / 2
}

/// A set of latencies in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Histogram {
    /// At most five, below 2^32 us (71 minutes), in ascending order.
    Few {
        len: u8,
        us: [u32; FEW],
    },
    Many(Box<LatencyBuckets>),
}

const _: () = assert!(size_of::<Histogram>() == 24);

impl Default for Histogram {
    fn default() -> Self {
        Self::Few { len: 0, us: [0; FEW] }
    }
}

/// A histogram with the exact maximum and the sum. The sum is exact up to 2^64 us (580,000 years).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LatencyBuckets {
    calls: u64,
    sum: u64,
    max: u64,
    /// (bucket, calls), in the order of buckets.
    calls_in: SmallVec<[(u16, u32); 6]>,
}

impl LatencyBuckets {
    fn of(few: &[u32]) -> Self {
        let mut buckets = Self::default();
        few.iter().for_each(|us| buckets.record((*us).into(), 1));
        buckets
    }

    #[inline]
    fn count(&mut self, bucket: u16, calls: u32) {
        match self.calls_in.binary_search_by_key(&bucket, |entry| entry.0) {
            // A full bucket loses precision: it has 2^32 calls of one key.
            Ok(index) => self.calls_in[index].1 = self.calls_in[index].1.saturating_add(calls),
            Err(index) => self.calls_in.insert(index, (bucket, calls)),
        }
    }

    #[inline]
    fn record(&mut self, value: u64, calls: u32) {
        self.calls += u64::from(calls);
        self.sum = self.sum.saturating_add(value.saturating_mul(calls.into()));
        self.max = self.max.max(value);
        self.count(bucket(value), calls);
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
        if self.calls_in.is_empty() {
            self.calls_in.clone_from(&other.calls_in);
        } else {
            for (bucket, calls) in &other.calls_in {
                self.count(*bucket, *calls);
            }
        }
    }

    fn summary(&self) -> Latency {
        let counted: u64 = self.calls_in.iter().map(|(_, calls)| u64::from(*calls)).sum();
        let mut entries = self.calls_in.iter();
        let mut below = 0;
        let mut value = 0;
        // Ranks ascend, so one pass over the buckets serves all.
        let mut percentile = |percent: u64| {
            let rank = (counted * percent).div_ceil(100);
            while below < rank {
                let Some((bucket, calls)) = entries.next() else { break };
                below += u64::from(*calls);
                value = midpoint(*bucket).min(self.max);
            }
            value
        };
        let [p50_us, p90_us, p95_us, p99_us] = [50, 90, 95, 99].map(&mut percentile);
        let mean_us = self.sum.checked_div(self.calls).unwrap_or(0);
        Latency { calls: self.calls, p50_us, p90_us, p95_us, p99_us, max_us: self.max, mean_us }
    }
}

impl Histogram {
    #[inline]
    fn record(&mut self, value: u64, calls: u32) {
        if let Self::Few { len, us: few } = self
            && let Ok(us) = u32::try_from(value)
            && few::has_room(*len, calls)
        {
            let index = few::listed(*len, few).partition_point(|known| *known < us);
            for _ in 0..calls {
                few::insert(len, few, index, us);
            }
            return;
        }
        self.buckets().record(value, calls);
    }

    fn buckets(&mut self) -> &mut LatencyBuckets {
        if let Self::Few { len, us } = self {
            *self = Self::Many(Box::new(LatencyBuckets::of(few::listed(*len, us))));
        }
        match self {
            Self::Many(buckets) => buckets,
            Self::Few { .. } => unreachable!("it was just made many"),
        }
    }

    fn summary(&self) -> Latency {
        match self {
            // The buckets round, so few latencies go by way of them, too: a row is the same if its calls came in one
            // tick.
            Self::Few { len, us } => LatencyBuckets::of(few::listed(*len, us)).summary(),
            Self::Many(buckets) => buckets.summary(),
        }
    }
}

impl Accumulator for Histogram {
    fn merge(&mut self, other: &Self) {
        match other {
            Self::Few { len, us } => {
                few::listed(*len, us).iter().for_each(|us| self.record((*us).into(), 1));
            }
            Self::Many(other) => self.buckets().merge(other),
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::Few { .. } => 0,
            Self::Many(buckets) => size_of::<LatencyBuckets>() + spilled(&buckets.calls_in),
        }
    }
}

impl Group for RouteId {
    type Packed = Self;

    fn pack(self) -> Self {
        self
    }
    fn unpack(packed: Self) -> Self {
        packed
    }
    fn bucket(&self) -> u8 {
        RouteId::bucket(*self)
    }
}

/// The scope of rows of a view: keys, or routes over all keys.
pub(crate) trait ScopeOf: 'static {
    const LATENCY: StateId;
    const CALLERS: StateId;
    type Group: Group;
    fn of(event: &AccessEvent) -> Self::Group;
    fn scope(group: Self::Group) -> Scope;
}

/// The scope `key` of a view.
pub(crate) struct OfKey;

impl ScopeOf for OfKey {
    const LATENCY: StateId = StateId::LatencyByKey;
    const CALLERS: StateId = StateId::CallersByKey;
    type Group = KeyId;
    #[inline]
    fn of(event: &AccessEvent) -> KeyId {
        event.key
    }
    fn scope(group: KeyId) -> Scope {
        Scope::Key(group)
    }
}

/// The scope `route` of a view.
pub(crate) struct OfRoute;

impl ScopeOf for OfRoute {
    const LATENCY: StateId = StateId::LatencyByRoute;
    const CALLERS: StateId = StateId::CallersByRoute;
    type Group = RouteId;
    #[inline]
    fn of(event: &AccessEvent) -> RouteId {
        event.route
    }
    fn scope(group: RouteId) -> Scope {
        Scope::Route(group)
    }
}

/// The metric `latency` of one scope.
pub(crate) struct LatencyMetric<S>(PhantomData<S>);

impl<S: ScopeOf> Metric for LatencyMetric<S> {
    const ID: StateId = S::LATENCY;
    const LEVELS: &'static [Level] = &[Level::FiveMinutes, Level::Hour, Level::Day];
    type Group = S::Group;
    type Acc = Histogram;
    type Context = ();
    type RowGroup = Scope;
    type Value = Latency;

    #[inline]
    fn group(event: &AccessEvent) -> Option<S::Group> {
        event.latency().map(|_| S::of(event))
    }
    #[inline]
    fn observe(acc: &mut Histogram, event: &AccessEvent) {
        acc.record(event.latency_us, event.count);
    }
    fn subject(_: &S::Group) {}
    fn row_group(group: S::Group) -> Scope {
        S::scope(group)
    }
    fn value(acc: Option<&Histogram>, _: &S::Group, _: EventTime, (): &()) -> Option<Latency> {
        acc.map(Histogram::summary)
    }
    fn rows(rows: Vec<Row<Scope, Latency>>) -> Rows {
        Rows::Latency(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_and_the_ends_are_exact() {
        for value in 0..128 {
            assert_eq!(midpoint(bucket(value)), value);
        }
        assert!(bucket(u64::MAX) < u16::MAX);
    }

    proptest! {
        #[test]
        fn buckets_are_ordered_and_within_their_error(a in 0_u64..1 << 50, b in 0_u64..1 << 50) {
            prop_assert_eq!(a.min(b), if bucket(a) <= bucket(b) { a.min(b) } else { b });
            prop_assert!(midpoint(bucket(a)).abs_diff(a) * 128 <= a);
        }

        #[test]
        fn percentiles_are_those_of_nearest_rank(
            events in prop::collection::vec((0_u64..1 << 42, prop_oneof![3 => Just(1_u32), 1 => 1_u32..20]), 1..200)
        ) {
            let mut histogram = Histogram::default();
            let mut values = Vec::new();
            for (value, calls) in events {
                histogram.record(value, calls);
                values.extend((0..calls).map(|_| value));
            }
            values.sort_unstable();
            let summary = histogram.summary();
            for (percent, got) in [(50, summary.p50_us), (90, summary.p90_us), (95, summary.p95_us), (99, summary.p99_us)] {
                let exact = values[(values.len() * percent).div_ceil(100) - 1];
                prop_assert!(got.abs_diff(exact) * 100 <= exact, "p{percent}: {got} for {exact}");
            }
            prop_assert_eq!(summary.max_us, values[values.len() - 1]);
        }

        #[test]
        fn histograms_add_up_in_any_grouping(
            values in prop::collection::vec((0_u64..1 << 42, 1_u32..4, 0_usize..4), 0..200)
        ) {
            let mut whole = Histogram::default();
            let mut parts = vec![Histogram::default(); 4];
            for (value, calls, part) in values {
                (0..calls).for_each(|_| whole.record(value, 1));
                parts[part].record(value, calls);
            }
            let mut sum = Histogram::default();
            for part in parts.iter().rev() {
                sum.merge(part);
            }
            prop_assert_eq!(sum, whole);
        }
    }
}
