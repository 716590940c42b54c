//! Publishes the sums of [`bookings`](super::bookings) per subscription, as the view `subscription_usage`.
//!
//! Differential passes on the sum of each hour as it is after a tick. The difference to the sum before is added to the
//! hour's day and month, too, with the additions that belong to no hour. A sum that becomes nothing retracts its row,
//! because its keys turned out to belong to another subscription. A sum of an hour vanishes, too, a tick after the hour
//! was evicted. Then its bookings were only forgotten, and the row's last version remains.

use std::collections::BTreeMap;

use differential_dataflow::difference::{Abelian, IsZero, Semigroup};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::bookings::{Booked, Booking, HOURS, SubscriptionWindow};
use super::parts::by_tick::Closing;
use super::parts::context::RowContext;
use super::parts::group::Group;
use super::usage::Totals;
use super::windowed::{Accumulator, Metric, Windowed};
use crate::model::{AccessEvent, EventTime, NameId, Tick};
use crate::row::{Row, Rows, SubscriptionInfo, SubscriptionUsage};
use crate::state::{Footprint, StateId};
use crate::window::Level;

/// The sum of a subscription in a window, as an update of a collection.
pub(crate) type SumChange = ((SubscriptionWindow, Booked), Tick, isize);

/// The facts of a subscription, as an update of a collection.
pub(crate) type InfoChange = ((NameId, SubscriptionInfo), Tick, isize);

/// A change of what a subscription used, for its account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UseChange {
    pub(crate) subscription: NameId,
    /// The start of an hour; or a midnight within an hour, of which it is the rest.
    pub(crate) from: EventTime,
    /// The difference. Arithmetic wraps.
    pub(crate) usage: Totals,
}

/// A change beside the sums of hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum SubscriptionChange {
    Info(InfoChange),
    /// An addition to a day or a month.
    Added(Booking),
}

impl SubscriptionChange {
    /// Returns the number by which it is exchanged.
    pub(crate) fn shard(&self) -> u64 {
        let (Self::Info(((id, _), _, _)) | Self::Added(((id, _, _), _, _))) = self;
        id.bucket().into()
    }
}

impl Accumulator for Booked {
    fn merge(&mut self, other: &Self) {
        self.plus_equals(other);
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
    changes: Vec<Vec<SubscriptionChange>>,
    closing: Closing<'_, UseChange>,
) {
    // Levels are counted as in `usage`, which has one finer level.
    let at = |index: u8| usize::from(index - HOURS);
    let mut infos = Vec::new();
    let mut additions: BTreeMap<(usize, EventTime, NameId), Booked> = BTreeMap::new();
    for change in changes.into_iter().flatten() {
        match change {
            SubscriptionChange::Info(info) => infos.push(info),
            SubscriptionChange::Added(((subscription, index, start), _, booked)) => {
                additions.entry((at(index), start, subscription)).or_default().plus_equals(&booked);
            }
        }
    }
    state.change_context(infos);

    // STEP 1: the sums of hours. After a restore the first tick brings every one again; what it doesn't bring is gone.
    let restored = state.restored_rows().into_iter().filter(|(level, _, _)| *level == 0);
    let mut used = Vec::new();
    let mut hours: BTreeMap<(EventTime, NameId), Booked> =
        restored.map(|(_, hour, subscription)| ((hour, subscription), Booked::default())).collect();
    let mut sums: Vec<SumChange> = sums.into_iter().flatten().collect();
    sums.sort_unstable_by_key(|((window, _), _, diff)| (*window, *diff > 0));
    for of_window in sums.chunk_by(|a, b| a.0.0 == b.0.0) {
        let (((subscription, _, hour), sum), _, diff) = of_window[of_window.len() - 1];
        hours.insert((hour, subscription), if diff > 0 { sum } else { Booked::default() });
    }
    for ((hour, subscription), sum) in hours {
        // An hour that was evicted has no sum here either, so its bookings are taken out without a change.
        let mut change = state.own(0, hour, &subscription).copied().unwrap_or_default();
        change.negate();
        change.plus_equals(&sum);
        if change.usage != Totals::default() {
            used.push(UseChange { subscription, from: hour, usage: change.usage });
        }
        // Its distinct keys aren't those of the day: these are additions.
        let of_hour = change;
        change.keys = 0;
        for (at, coarser) in SubscriptionUsageMetric::LEVELS.iter().enumerate().skip(1) {
            additions.entry((at, coarser.start(hour), subscription)).or_default().plus_equals(&change);
        }
        additions.entry((0, hour, subscription)).or_default().plus_equals(&of_hour);
    }

    closing.downstream.push(used);

    // STEP 2: what changed, by window.
    for ((at, start, subscription), change) in additions {
        let mut sum = state.own(at, start, &subscription).copied().unwrap_or_default();
        sum.plus_equals(&change);
        if sum.is_zero() {
            state.remove(at, start, subscription);
        } else {
            state.set(at, start, subscription, sum);
        }
    }
    state.publish(closing.info, closing.output);
}
