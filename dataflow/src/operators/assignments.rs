//! Turns the table of keys into a history of the owners of keys.
//!
//! A fact is (key, start, subscription), and [`crate::ownership`] makes facts of a key's rows. Facts that no held
//! window needs are dropped.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use crate::model::{EventTime, KeyId, KeyRow, NameId, TableChange, TableRow, Tick};
use crate::ownership::Ownership;
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};
use crate::window::Level;

/// A fact of the history, as an update of a collection by subscription.
pub(crate) type AssignmentChange = ((NameId, (KeyId, EventTime)), Tick, isize);

/// The histories of keys on one worker.
#[derive(Default)]
pub(crate) struct Assignments {
    histories: HashMap<KeyId, Ownership>,
    /// True if rows were restored and aren't in the collection downstream yet.
    restored: bool,
}

impl Assignments {
    pub(crate) fn apply_changes(
        state: &mut Self,
        changes: Vec<Vec<TableChange>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, AssignmentChange>,
    ) {
        let tick = closing.info.tick;
        let mut updates = Vec::new();
        if std::mem::take(&mut state.restored) {
            for (key, history) in &state.histories {
                updates.extend(history.0.iter().map(|(from, name)| ((*name, (*key, *from)), tick, 1)));
            }
        }
        let mut rows: Vec<(KeyRow, u64, bool)> = changes
            .into_iter()
            .flatten()
            .filter_map(|change| match change.row {
                TableRow::Key(row) => Some((row, change.offset, change.deleted)),
                _ => None,
            })
            .collect();
        rows.sort_by_key(|(row, offset, _)| (row.key, *offset));
        for of_key in rows.chunk_by(|a, b| a.0.key == b.0.key) {
            let key = of_key[0].0.key;
            let history = state.histories.entry(key).or_default();
            let before = history.0.clone();
            let changes: Vec<(&KeyRow, bool)> =
                of_key.iter().map(|(row, _, deleted)| (row, *deleted)).collect();
            history.take(&changes, closing.info.cadence);
            history.forget(Level::Month.held_from(closing.info.watermark_before));
            updates.extend(before.iter().map(|(from, name)| ((*name, (key, *from)), tick, -1)));
            updates.extend(history.0.iter().map(|(from, name)| ((*name, (key, *from)), tick, 1)));
            if history.0.is_empty() {
                state.histories.remove(&key);
            }
        }
        closing.downstream.push(updates);
    }
}

/// A fact as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct AssignmentRow(KeyId, EventTime, NameId);

impl Durable for Assignments {
    const ID: StateId = StateId::Assignments;
    type Row<'a> = AssignmentRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for (key, history) in &self.histories {
            for (from, subscription) in &history.0 {
                out.row(AssignmentRow(*key, *from, *subscription));
            }
        }
    }

    fn row_in(&mut self, AssignmentRow(key, from, subscription): AssignmentRow) {
        let history = &mut self.histories.entry(key).or_default().0;
        let index = history.partition_point(|fact| fact.0 < from);
        history.insert(index, (from, subscription));
        self.restored = true;
    }

    fn shard(row: &AssignmentRow) -> Shard {
        Shard::Of(row.0.shard())
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_map_with(&self.histories, |history| {
            history.0.capacity() * size_of::<(EventTime, NameId)>()
        })
    }
}
