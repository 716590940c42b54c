//! Publishes the sums of [`bookings`](super::bookings) per subscription, as the view `subscription_usage`.
//!
//! Differential passes on each sum as it is after a tick. A sum that vanishes retracts its row, because its keys
//! turned out to belong to another subscription. A sum vanishes, too, a tick after its window was evicted. Then its
//! bookings were only forgotten, and the row's last version remains.

use hashbrown::HashMap;

use super::bookings::{Booked, SubscriptionWindow};
use super::parts::by_tick::Closing;
use super::parts::context::RowContext;
use super::parts::group::Group;
use super::windowed::{Accumulator, Metric, Windowed};
use crate::model::{AccessEvent, EventTime, NameId, Tick};
use crate::row::{Row, Rows, SubscriptionInfo, SubscriptionUsage};
use crate::state::{Footprint, StateId};
use crate::window::Level;

/// The sum of a subscription in a window, as an update of a collection.
pub(crate) type SumChange = ((SubscriptionWindow, Booked), Tick, isize);

/// The facts of a subscription, as an update of a collection.
pub(crate) type InfoChange = ((NameId, SubscriptionInfo), Tick, isize);

impl Accumulator for Booked {
    fn merge(&mut self, other: &Self) {
        differential_dataflow::difference::Semigroup::plus_equals(self, other);
    }
}

impl Group for NameId {
    type Packed = Self;

    fn pack(self) -> Self {
        self
    }
    fn unpack(packed: Self) -> Self {
        packed
    }
    fn bucket(&self) -> u8 {
        NameId::bucket(*self)
    }
}

/// The facts of subscriptions, by their ids.
#[derive(Default)]
pub(crate) struct Subscriptions(HashMap<NameId, SubscriptionInfo>);

impl RowContext for Subscriptions {
    type Subject = NameId;
    type Change = InfoChange;
    type Row = (NameId, SubscriptionInfo);

    fn apply(&mut self, mut changes: Vec<InfoChange>, all: bool) -> Vec<NameId> {
        let mut before_all = if all { std::mem::take(&mut self.0) } else { HashMap::new() };
        // Retractions come first, because inserted facts of the same tick take their place.
        changes.sort_unstable_by_key(|((id, _), _, diff)| (*id, *diff > 0));
        let mut changed = Vec::new();
        for of_one in changes.chunk_by(|a, b| a.0.0 == b.0.0) {
            let id = of_one[0].0.0;
            let before = if all { before_all.remove(&id) } else { self.0.get(&id).copied() };
            for ((_, info), _, diff) in of_one {
                if *diff > 0 {
                    self.0.insert(id, *info);
                } else if self.0.get(&id) == Some(info) {
                    self.0.remove(&id);
                }
            }
            if self.0.get(&id).copied() != before {
                changed.push(id);
            }
        }
        changed.extend(before_all.into_keys());
        changed
    }

    fn rows_out(&self, out: &mut dyn FnMut(Self::Row)) {
        for (id, info) in &self.0 {
            out((*id, *info));
        }
    }

    fn row_in(&mut self, (id, info): Self::Row) {
        self.0.insert(id, info);
    }

    fn shard(row: &Self::Row) -> u64 {
        row.0.bucket().into()
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_map(&self.0)
    }
}

/// The metric `subscription_usage` of subscriptions.
pub(crate) struct SubscriptionUsageMetric;

impl Metric for SubscriptionUsageMetric {
    const ID: StateId = StateId::SubscriptionUsage;
    const LEVELS: &'static [Level] = &[Level::Hour, Level::Day, Level::Month];
    const FEEDS: bool = false;
    type Group = NameId;
    type Acc = Booked;
    type Context = Subscriptions;
    type RowGroup = NameId;
    type Value = Option<SubscriptionUsage>;

    fn group(_: &AccessEvent) -> Option<NameId> {
        None // fed by sums, not by events
    }
    fn observe(_: &mut Booked, _: &AccessEvent) {}
    fn subject(group: &NameId) -> NameId {
        *group
    }
    fn row_group(group: NameId) -> NameId {
        group
    }
    fn value(
        acc: Option<&Booked>,
        group: &NameId,
        _: EventTime,
        context: &Subscriptions,
    ) -> Option<Option<SubscriptionUsage>> {
        let owner = context.0.get(group).copied().unwrap_or_default();
        Some(acc.map(|booked| SubscriptionUsage { usage: booked.usage.usage(), keys: booked.keys, owner }))
    }
    fn rows(rows: Vec<Row<NameId, Option<SubscriptionUsage>>>) -> Rows {
        Rows::SubscriptionUsage(rows)
    }
}

/// Returns the number by which a sum is exchanged.
pub(crate) fn shard(change: &SumChange) -> u64 {
    change.0.0.0.bucket().into()
}

/// Applies the sums of a tick, and publishes the rows.
pub(crate) fn apply_sums(
    state: &mut Windowed<SubscriptionUsageMetric>,
    sums: Vec<Vec<SumChange>>,
    infos: Vec<Vec<InfoChange>>,
    closing: Closing<'_, ()>,
) {
    state.change_context(infos.into_iter().flatten().collect());
    // After a restore the first tick brings every sum again; what it doesn't bring is gone.
    let mut gone = state.restored_rows();
    let mut sums: Vec<SumChange> = sums.into_iter().flatten().collect();
    sums.sort_unstable_by_key(|((window, _), _, diff)| (*window, *diff > 0));
    for of_window in sums.chunk_by(|a, b| a.0.0 == b.0.0) {
        let ((window, sum), _, diff) = of_window[of_window.len() - 1];
        let (subscription, index, start) = window;
        // Levels are counted as in `usage`, which has one finer level.
        let at = usize::from(index) - 1;
        if start < SubscriptionUsageMetric::LEVELS[at].held_from(closing.info.watermark_before) {
            continue;
        }
        if diff > 0 {
            gone.remove(&(at, start, subscription));
            state.set(at, start, subscription, sum);
        } else {
            state.remove(at, start, subscription);
        }
    }
    for (at, start, subscription) in gone {
        state.remove(at, start, subscription);
    }
    state.publish(closing.info, closing.output);
}
