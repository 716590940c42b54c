//! The rows of the table of quotas, of plans and subscriptions.
//!
//! Each change raises a number. A standing that was made with an older number makes its limits anew when it is asked, so
//! a new limit acts at the next check of each subscription.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hashbrown::HashMap;
use keytide_billing::{self as billing};
use keytide_dataflow::model::{QuotaHolder, QuotaRow, TableChange, TableRow};

/// The quotas of all plans and subscriptions.
#[derive(Debug, Default)]
pub(super) struct LimitRows {
    revision: AtomicU64,
    rows: RwLock<HashMap<QuotaHolder, Vec<billing::QuotaRow>>>,
}

impl LimitRows {
    /// Returns the number of changes so far.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Returns the rows of some holders.
    pub(super) fn of(&self, holders: &[QuotaHolder]) -> Vec<billing::QuotaRow> {
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

fn apply(rows: &mut HashMap<QuotaHolder, Vec<billing::QuotaRow>>, row: &QuotaRow, deleted: bool) {
    let holder = match row.holder {
        QuotaHolder::Plan(_) => billing::QuotaHolder::Plan,
        QuotaHolder::Subscription(_) => billing::QuotaHolder::Subscription,
    };
    let of_holder = rows.entry(row.holder).or_default();
    let is_other = |other: &billing::QuotaRow| (other.measure, other.period) != (row.measure, row.period);
    if deleted || row.valid_from.is_none() {
        of_holder.retain(is_other);
    } else {
        of_holder.retain(|other| is_other(other) || other.valid_from_ms != row.valid_from);
    }
    if !deleted {
        of_holder.push(billing::QuotaRow {
            holder,
            measure: row.measure,
            period: row.period,
            valid_from_ms: row.valid_from,
            limit: row.limit.clone(),
        });
    }
    if of_holder.is_empty() {
        rows.remove(&row.holder);
    }
}
