//! The rows of the table of quotas, of plans and subscriptions.
//!
//! Each change raises a number. A standing that was made with an older number makes its limits anew when it is asked, so
//! a new limit acts at the next check of each subscription.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hashbrown::HashMap;
use keytide_billing::{Measure, PeriodKind, QuotaLimit};
use keytide_dataflow::model::{EventTime, QuotaHolder, QuotaRow, TableChange, TableRow};

/// The quotas of all plans and subscriptions.
#[derive(Debug, Default)]
pub(super) struct LimitRows {
    revision: AtomicU64,
    rows: RwLock<HashMap<QuotaHolder, Vec<QuotaRow>>>,
}

impl LimitRows {
    /// Returns the number of changes so far.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Returns the rows of some holders.
    pub(super) fn of(&self, holders: &[QuotaHolder]) -> Vec<QuotaRow> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        holders.iter().filter_map(|holder| rows.get(holder)).flatten().cloned().collect()
    }

    /// Takes changes of one quota in one step: a deletion ends all its rows, and an undated row takes the place of all.
    pub(super) fn apply(&self, run: &[TableChange]) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for TableChange { row, deleted, .. } in run {
            if let TableRow::Quota(row) = row {
                apply(&mut rows, row, *deleted);
            }
        }
        self.revision.fetch_add(1, Ordering::Release);
    }
}

fn apply(rows: &mut HashMap<QuotaHolder, Vec<QuotaRow>>, row: &QuotaRow, deleted: bool) {
    let of_holder = rows.entry(row.holder).or_default();
    let is_other = |other: &QuotaRow| (other.measure, other.period) != (row.measure, row.period);
    if deleted || row.valid_from.is_none() {
        of_holder.retain(is_other);
    } else {
        of_holder.retain(|other| is_other(other) || other.valid_from != row.valid_from);
    }
    if !deleted {
        of_holder.push(row.clone());
    }
    if of_holder.is_empty() {
        rows.remove(&row.holder);
    }
}

/// Orders rows of one measure and period by which of them holds. The limit decides between equal ones.
fn rank(row: &QuotaRow) -> (bool, Option<EventTime>, &QuotaLimit) {
    (matches!(row.holder, QuotaHolder::Subscription(_)), row.valid_from, &row.limit)
}

/// Returns the limits that hold at an instant, given the rows of a subscription and of its plan in any order.
///
/// Of the rows of a holder, the one with the latest `valid_from` in the past holds. A row without one holds since ever. A
/// subscription's row wins over its plan's row of the same measure and period.
pub(super) fn limits_in_force<'a>(
    rows: impl IntoIterator<Item = &'a QuotaRow>,
    at_ms: u64,
) -> BTreeMap<(Measure, PeriodKind), &'a QuotaLimit> {
    let mut found: BTreeMap<(Measure, PeriodKind), &QuotaRow> = BTreeMap::new();
    for row in rows {
        if row.valid_from.is_some_and(|from| from > at_ms) {
            continue;
        }
        let held = found.entry((row.measure, row.period)).or_insert(row);
        if rank(row) > rank(held) {
            *held = row;
        }
    }
    found.into_iter().map(|(key, row)| (key, &row.limit)).collect()
}

#[cfg(test)]
mod tests {
    use keytide_billing::QuotaThresholds;
    use keytide_dataflow::model::NameId;
    use proptest::prelude::*;

    use super::*;

    const PLAN: QuotaHolder = QuotaHolder::Plan(NameId(1));
    const OWN: QuotaHolder = QuotaHolder::Subscription(NameId(2));

    fn row(holder: QuotaHolder, valid_from: Option<u64>, limit: u64) -> QuotaRow {
        let (measure, period) = (Measure::Calls, PeriodKind::Day);
        let limit = QuotaLimit { limit, hard: true, notify: QuotaThresholds::default() };
        QuotaRow { holder, measure, period, limit, valid_from }
    }

    #[test]
    fn a_subscription_s_limit_wins_and_the_latest_row_holds() {
        let rows = [row(OWN, Some(50), 3), row(PLAN, None, 1), row(PLAN, Some(10), 2), row(OWN, Some(90), 4)];
        let limit = |at_ms| {
            let limits = limits_in_force(&rows, at_ms);
            assert_eq!(limits.len(), 1);
            limits[&(Measure::Calls, PeriodKind::Day)].limit
        };
        assert_eq!([0, 9, 10, 49, 50, 89, 90, u64::MAX].map(limit), [1, 1, 2, 2, 3, 3, 4, 4]);
        let other = QuotaRow { period: PeriodKind::Month, ..row(PLAN, None, 7) };
        assert_eq!(limits_in_force(rows.iter().chain([&other]), 0).len(), 2);
        assert!(limits_in_force(&rows[..1], 0).is_empty());
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter(
            rows in proptest::collection::vec((any::<bool>(), proptest::option::of(0_u64..9), 0_u64..4), 0..6), at_ms in 0_u64..9,
        ) {
            let holder = |own| if own { OWN } else { PLAN };
            let rows: Vec<_> = rows.into_iter().map(|(own, from, limit)| row(holder(own), from, limit)).collect();
            let reversed: Vec<_> = rows.iter().rev().cloned().collect();
            prop_assert_eq!(limits_in_force(&rows, at_ms), limits_in_force(&reversed, at_ms));
        }
    }
}
