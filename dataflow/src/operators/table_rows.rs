//! Turns upserts of the tables of subscriptions and plans into a collection of the rows in force.
//!
//! A subscription may have several rows, each with a date. The one with the latest `valid_from` that isn't in the future
//! is in force. One without it counts as older than any. So all rows are held, and the collection changes at the first
//! tick that reaches a date. Time is that of the owners of keys: of the ticks in a live job, and of the events in a
//! bounded one.
//!
//! Changes of one tick are read in the order of their offsets. A deletion ends all rows of an id, a dated row is one
//! more, and an undated one takes the place of all (see [`crate::ownership`]).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use crate::model::{EventTime, NameId, QuotaHolder, TableChange, TableRow, Tick};
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};

/// A row as an update of a collection.
pub(crate) type TableRowChange = (TableRow, Tick, isize);

/// The rows of the tables on one worker.
#[derive(Default)]
pub(crate) struct TableRows {
    /// By id and date; a row without a date comes first.
    rows: BTreeMap<(TableRowId, Option<EventTime>), TableRow>,
    /// Dates that are still to come. A row may be gone before its date.
    to_come: BTreeSet<(EventTime, TableRowId)>,
    /// The time up to which the collection downstream is right.
    reached: EventTime,
    /// True if rows were restored and aren't in the collection downstream yet.
    restored: bool,
}

/// A table and the identity that its rows share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TableRowId {
    Subscription(NameId),
    Plan(NameId),
}

/// Returns the identity and the date of a row. Rows of keys and reports have none: they have operators of their own. Those
/// of tokens don't come here.
fn identity(row: &TableRow) -> Option<(TableRowId, Option<EventTime>)> {
    match row {
        TableRow::Key(_)
        | TableRow::Leak(_)
        | TableRow::Quota(_)
        | TableRow::Price(_)
        | TableRow::Token(_) => None,
        TableRow::Subscription(row) => Some((TableRowId::Subscription(row.id), row.valid_from)),
        TableRow::Plan(row) => Some((TableRowId::Plan(row.id), None)),
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
        TableRow::Token(row) => row.name.0,
    }
}

impl TableRows {
    pub(crate) fn apply_changes(
        state: &mut Self,
        changes: Vec<Vec<TableChange>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, TableRowChange>,
    ) {
        let changes = changes.into_iter().flatten().collect();
        let updates = state.advance(changes, closing.info.cadence);
        let tick = closing.info.tick;
        closing.downstream.push(updates.into_iter().map(|(row, diff)| (row, tick, diff)).collect());
    }

    /// Applies the changes of a tick with the time `now`, which never falls. Returns how the rows in force change.
    fn advance(&mut self, mut changes: Vec<TableChange>, now: EventTime) -> Vec<(TableRow, isize)> {
        let before = mem::replace(&mut self.reached, now);
        let restored = mem::take(&mut self.restored);
        changes.sort_by_key(|change| change.offset);
        let mut touched: BTreeSet<TableRowId> =
            changes.iter().filter_map(|change| identity(&change.row)).map(|(id, _)| id).collect();
        while let Some((from, id)) = self.to_come.first().copied().filter(|(from, _)| *from <= now) {
            self.to_come.remove(&(from, id));
            touched.insert(id);
        }
        if restored {
            touched.extend(self.rows.keys().map(|(id, _)| *id));
        }
        // Nothing of what was restored is downstream yet.
        let in_force = |id: TableRowId| (id, self.in_force(id, before).filter(|_| !restored).cloned());
        let old: Vec<(TableRowId, Option<TableRow>)> = touched.into_iter().map(in_force).collect();
        for TableChange { row, deleted, .. } in changes {
            let Some((id, from)) = identity(&row) else { continue };
            if deleted || from.is_none() {
                self.clear(id);
            }
            if !deleted {
                self.to_come.extend(from.filter(|from| *from > now).map(|from| (from, id)));
                self.rows.insert((id, from), row);
            }
        }
        let mut updates = Vec::new();
        for (id, old) in old {
            let new = self.in_force(id, now);
            if old.as_ref() != new {
                updates.extend(new.map(|row| (row.clone(), 1)));
                updates.extend(old.map(|row| (row, -1)));
            }
        }
        updates
    }

    fn in_force(&self, id: TableRowId, now: EventTime) -> Option<&TableRow> {
        self.rows.range((id, None)..=(id, Some(now))).next_back().map(|(_, row)| row)
    }

    fn clear(&mut self, id: TableRowId) {
        let gone: Vec<_> =
            self.rows.range((id, None)..=(id, Some(EventTime::MAX))).map(|(key, _)| *key).collect();
        for key in gone {
            self.rows.remove(&key);
        }
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
        if let Some((id, from)) = identity(&row) {
            self.to_come.extend(from.map(|from| (from, id)));
            self.rows.insert((id, from), row);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{PlanRow, Policy, SubscriptionRow};

    fn row(id: u64, plan: u64, valid_from: Option<EventTime>) -> TableRow {
        TableRow::Subscription(SubscriptionRow {
            id: NameId(id),
            customer: NameId::NONE,
            plan: NameId(plan),
            time_zone: NameId::NONE,
            billing_anchor: 0,
            valid_from,
            started_at: None,
            contacts: NameId::NONE,
        })
    }

    /// A change as id, plan, date and whether it is deleted.
    type Change = (u64, u64, Option<EventTime>, bool);

    fn changes(of: &[Change]) -> Vec<TableChange> {
        let change = |(offset, (id, plan, from, deleted)): (u64, &Change)| TableChange {
            offset,
            row: row(*id, *plan, *from),
            deleted: *deleted,
        };
        (0..).zip(of).map(change).collect()
    }

    /// The collection downstream: each row once.
    #[derive(Default, Debug, PartialEq)]
    struct Downstream(Vec<TableRow>);

    impl Downstream {
        fn apply(&mut self, updates: Vec<(TableRow, isize)>) {
            let (gone, new): (Vec<_>, Vec<_>) = updates.into_iter().partition(|(_, diff)| *diff < 0);
            for (row, _) in gone {
                let at = self.0.iter().position(|held| *held == row).expect("what is retracted was there");
                self.0.remove(at);
            }
            self.0.extend(new.into_iter().map(|(row, _)| row));
            self.0.sort();
        }
    }

    /// The rows that an earlier state stores, in another order.
    fn restored(state: &TableRows) -> TableRows {
        let mut restored = TableRows::default();
        for row in state.rows.values().rev() {
            let bytes = postcard::to_allocvec(&StoredRow(row.clone())).unwrap();
            restored.row_in(postcard::from_bytes(&bytes).unwrap());
        }
        restored
    }

    #[test]
    fn a_row_comes_into_force_at_its_date() {
        let mut state = TableRows::default();
        let (old, new) = (row(1, 1, None), row(1, 2, Some(50)));
        let both = changes(&[(1, 1, None, false), (1, 2, Some(50), false)]);
        assert_eq!(state.advance(both, 10), [(old.clone(), 1)]);
        assert_eq!(state.advance(Vec::new(), 49), []);
        assert_eq!(state.advance(Vec::new(), 50), [(new.clone(), 1), (old.clone(), -1)]);
        assert_eq!(state.advance(Vec::new(), 51), []);
        // The table withdraws it, and what came before holds again.
        let stated = changes(&[(1, 2, Some(50), true), (1, 1, None, false)]);
        assert_eq!(state.advance(stated, 60), [(old.clone(), 1), (new, -1)]);
        assert_eq!(state.advance(changes(&[(1, 1, None, true)]), 61), [(old, -1)]);
    }

    #[test]
    fn a_plan_has_one_row() {
        let plan = |name: u64| {
            let (policy, fees) = (Policy::Alert, Box::default());
            TableRow::Plan(PlanRow { id: NameId(1), name: NameId(name), policy, fees })
        };
        let change = |name| TableChange { offset: name, row: plan(name), deleted: false };
        let mut state = TableRows::default();
        assert_eq!(state.advance(vec![change(2), change(1)], 0), [(plan(2), 1)], "the highest offset counts");
        assert_eq!(state.advance(vec![change(2)], 0), []);
        assert_eq!(state.advance(vec![change(3)], 0), [(plan(3), 1), (plan(2), -1)]);
    }

    proptest! {
        /// Any changes, ticks and restarts lead to the rows that a recount finds.
        #[test]
        fn the_rows_in_force_are_those_of_a_recount(
            ticks in prop::collection::vec(
                (
                    prop::collection::vec((1_u64..4, 1_u64..4, prop::option::of(0_u64..60), prop::bool::weighted(0.2)), 0..4),
                    0_u64..12,
                    prop::bool::weighted(0.2),
                ),
                1..20,
            ),
        ) {
            let mut state = TableRows::default();
            let mut downstream = Downstream::default();
            // All changes so far, in their order.
            let mut all: Vec<Change> = Vec::new();
            let mut now = 0;
            for (of_tick, passed, restarts) in ticks {
                now += passed;
                if restarts {
                    state = restored(&state);
                    downstream = Downstream::default();
                }
                downstream.apply(state.advance(changes(&of_tick), now));
                all.extend(of_tick);
                let mut expected = Vec::new();
                for id in 1..4 {
                    let of_id: Vec<&Change> = all.iter().filter(|change| change.0 == id).collect();
                    // A deletion, or a row without a date, ends what came before.
                    let ends = of_id.iter().rposition(|(_, _, from, deleted)| *deleted || from.is_none());
                    let held = ends.map_or(&of_id[..], |at| &of_id[at..]);
                    let rows = held.iter().filter(|change| !change.3 && change.2.is_none_or(|from| from <= now));
                    // Of one date the last counts.
                    let newest = rows.max_by_key(|change| change.2);
                    expected.extend(newest.map(|(id, plan, from, _)| row(*id, *plan, *from)));
                }
                expected.sort();
                prop_assert_eq!(&downstream.0, &expected);
            }
        }
    }
}
