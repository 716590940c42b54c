//! `usage` and `usage_by_route`: calls, errors, bytes and latency sums.

use std::marker::PhantomData;

use super::owners::Owners;
use super::windowed::{Accumulator, Group, Metric};
use crate::model::{AccessEvent, EventTime, KeyId};
use crate::row::{KeyRoute, OwnedUsage, Row, Rows, Usage};
use crate::state::StateId;
use crate::window::Level;

impl Accumulator for Usage {
    #[inline]
    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors_4xx += other.errors_4xx;
        self.errors_5xx += other.errors_5xx;
        // Decoders admit at most 2^40 bytes and 2^42 us a call: 2^22 such calls saturate, no other input does.
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.latency_sum_us = self.latency_sum_us.saturating_add(other.latency_sum_us);
        self.latency_calls += other.latency_calls;
    }
}

impl Usage {
    /// The usage of one call.
    #[inline]
    #[must_use]
    pub fn of(event: &AccessEvent) -> Self {
        let latency = event.latency();
        Self {
            calls: 1,
            errors_4xx: u64::from(event.is_4xx()),
            errors_5xx: u64::from(event.is_5xx()),
            bytes_in: event.bytes_in,
            bytes_out: event.bytes_out,
            latency_sum_us: latency.unwrap_or(0),
            latency_calls: u64::from(latency.is_some()),
        }
    }
}

impl Group for KeyId {
    fn shard(&self) -> u64 {
        KeyId::shard(*self)
    }
}

impl Group for KeyRoute {
    fn shard(&self) -> u64 {
        self.key.shard()
    }
}

/// What distinguishes the two views.
pub(crate) trait UsageBy: 'static {
    const ID: StateId;
    const LEVELS: &'static [Level];
    type Group: Group;
    fn group(event: &AccessEvent) -> Self::Group;
    fn key(group: &Self::Group) -> KeyId;
    fn rows(rows: Vec<Row<Self::Group, OwnedUsage>>) -> Rows;
}

/// `usage`.
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

/// `usage_by_route`.
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

/// Either view's metric.
pub(crate) struct UsageMetric<B>(PhantomData<B>);

impl<B: UsageBy> Metric for UsageMetric<B> {
    const ID: StateId = B::ID;
    const LEVELS: &'static [Level] = B::LEVELS;
    type Group = B::Group;
    type Acc = Usage;
    type Context = Owners;
    type RowGroup = B::Group;
    type Value = OwnedUsage;

    #[inline]
    fn group(event: &AccessEvent) -> Option<B::Group> {
        Some(B::group(event))
    }
    #[inline]
    fn observe(acc: &mut Usage, event: &AccessEvent) {
        acc.merge(&Usage::of(event));
    }
    fn subject(group: &B::Group) -> KeyId {
        B::key(group)
    }
    fn row_group(group: B::Group) -> B::Group {
        group
    }
    fn value(acc: Option<&Usage>, group: &B::Group, start: EventTime, owners: &Owners) -> Option<OwnedUsage> {
        acc.map(|usage| OwnedUsage { usage: *usage, owner: owners.at(B::key(group), start) })
    }
    fn rows(rows: Vec<Row<B::Group, OwnedUsage>>) -> Rows {
        B::rows(rows)
    }
}
