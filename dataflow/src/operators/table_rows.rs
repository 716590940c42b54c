//! Turns upserts of the tables of subscriptions and plans into a collection of current rows.
//!
//! Of several changes of a row in one tick the one with the highest offset counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use crate::model::{NameId, QuotaHolder, TableChange, TableRow, Tick};
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};

/// A row as an update of a collection.
pub(crate) type TableRowChange = (TableRow, Tick, isize);

/// The current rows of the tables on one worker.
#[derive(Default)]
pub(crate) struct TableRows {
    rows: BTreeMap<TableRowId, TableRow>,
    /// True if rows were restored and aren't in the collection downstream yet.
    restored: bool,
}

/// A table and a row's identity in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TableRowId {
    Subscription(NameId),
    Plan(NameId),
}

/// Returns the row's identity. Rows of keys and reports have none: they have operators of their own.
fn identity(row: &TableRow) -> Option<TableRowId> {
    match row {
        TableRow::Key(_) | TableRow::Leak(_) | TableRow::Quota(_) | TableRow::Price(_) => None,
        TableRow::Subscription(row) => Some(TableRowId::Subscription(row.id)),
        TableRow::Plan(row) => Some(TableRowId::Plan(row.id)),
    }
}

/// Returns the number by which a change of any table is exchanged.
pub(crate) fn shard(row: &TableRow) -> u64 {
    match row {
        TableRow::Key(row) => row.key.shard(),
        TableRow::Subscription(row) => row.id.0,
        TableRow::Plan(row) => row.id.0,
        TableRow::Leak(row) => row.key.shard(),
        TableRow::Quota(row) => match row.holder {
            QuotaHolder::Plan(id) | QuotaHolder::Subscription(id) => id.0,
        },
        TableRow::Price(row) => row.plan.0,
    }
}

impl TableRows {
    pub(crate) fn apply_changes(
        state: &mut Self,
        changes: Vec<Vec<TableChange>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, TableRowChange>,
    ) {
        let tick = closing.info.tick;
        let mut updates = Vec::new();
        if std::mem::take(&mut state.restored) {
            updates.extend(state.rows.values().map(|row| (row.clone(), tick, 1)));
        }
        let mut changes: Vec<TableChange> = changes.into_iter().flatten().collect();
        changes.sort_by_key(|change| change.offset);
        let mut newest = BTreeMap::new();
        for change in changes {
            if let Some(identity) = identity(&change.row) {
                newest.insert(identity, change);
            }
        }
        for (identity, change) in newest {
            let old = if change.deleted {
                state.rows.remove(&identity)
            } else {
                updates.push((change.row.clone(), tick, 1));
                state.rows.insert(identity, change.row)
            };
            updates.extend(old.map(|row| (row, tick, -1)));
        }
        closing.downstream.push(updates);
    }
}

/// A row of a table as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredRow(TableRow);

impl Durable for TableRows {
    const ID: StateId = StateId::TableRows;
    type Row<'a> = StoredRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for row in self.rows.values() {
            out.row(StoredRow(row.clone()));
        }
    }

    fn row_in(&mut self, StoredRow(row): StoredRow) {
        if let Some(identity) = identity(&row) {
            self.rows.insert(identity, row);
            self.restored = true;
        }
    }

    fn shard(row: &StoredRow) -> Shard {
        Shard::Of(shard(&row.0))
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_tree(&self.rows)
    }
}
