//! Assignments: the table of keys as a history of who a key belongs to, and since when.
//!
//! The table says what holds now; windows ask what held at their start. So each change becomes a fact
//! (key, since when, subscription): since `valid_from` where the row has one, since ever for a key's first
//! row, else since the tick that brought it. A deleted row ends its assignment. Facts that no held window
//! can ask for any more are dropped.
//!
//! Of several rows of a key in one tick that don't say since when, the one with the highest offset counts.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::by_tick::Closing;
use crate::model::{EventTime, KeyId, KeyRow, NameId, TableChange, TableRow, Tick};
use crate::state::{Durable, Footprint, Shard, StateId};
use crate::window::Level;

/// A fact of the history, as an update of a collection keyed by subscription.
pub(crate) type AssignmentChange = ((NameId, (KeyId, EventTime)), Tick, isize);

/// Histories of keys on one worker.
#[derive(Default)]
pub(crate) struct Assignments {
    histories: HashMap<KeyId, Vec<(EventTime, NameId)>>,
    /// Rows were taken back and aren't in the collection downstream yet.
    restored: bool,
}

impl Assignments {
    pub(crate) fn close(
        state: &mut Self,
        changes: Vec<Vec<TableChange>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, AssignmentChange>,
    ) {
        let tick = closing.info.tick;
        let mut updates = Vec::new();
        if std::mem::take(&mut state.restored) {
            for (key, history) in &state.histories {
                updates.extend(history.iter().map(|(from, name)| ((*name, (*key, *from)), tick, 1)));
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
            let before = history.clone();
            let dated = |row: &(KeyRow, u64, bool)| row.0.valid_from.is_some() && !row.2;
            let last_undated = of_key.iter().rposition(|row| !dated(row));
            for (index, row) in of_key.iter().enumerate() {
                let (from, subscription) = match row {
                    (row, _, false) if row.valid_from.is_some() => {
                        (row.valid_from.unwrap_or(0), row.subscription)
                    }
                    _ if Some(index) != last_undated => continue,
                    (row, _, deleted) => {
                        let current = history.last().map(|last| last.1);
                        let subscription = if *deleted { NameId::NONE } else { row.subscription };
                        if current.unwrap_or(NameId::NONE) == subscription {
                            continue;
                        }
                        (if current.is_none() { 0 } else { closing.info.cadence }, subscription)
                    }
                };
                match history.binary_search_by_key(&from, |fact| fact.0) {
                    Ok(place) => history[place].1 = subscription,
                    Err(place) => history.insert(place, (from, subscription)),
                }
            }
            forget_unasked(history, Level::Month.held_from(closing.info.watermark_before));
            updates.extend(before.iter().map(|(from, name)| ((*name, (key, *from)), tick, -1)));
            updates.extend(history.iter().map(|(from, name)| ((*name, (key, *from)), tick, 1)));
            if history.is_empty() {
                state.histories.remove(&key);
            }
        }
        closing.downstream.push(updates);
    }
}

/// Drops facts that were superseded before the earliest window that is held.
fn forget_unasked(history: &mut Vec<(EventTime, NameId)>, held_from: EventTime) {
    let in_force = history.partition_point(|fact| fact.0 <= held_from);
    history.drain(..in_force.saturating_sub(1));
}

/// A fact.
#[derive(Serialize, Deserialize)]
pub(crate) struct AssignmentRow(KeyId, EventTime, NameId);

impl Durable for Assignments {
    const ID: StateId = StateId::Assignments;
    type Row = AssignmentRow;

    fn rows_out(&self, out: &mut dyn FnMut(AssignmentRow)) {
        for (key, history) in &self.histories {
            for (from, subscription) in history {
                out(AssignmentRow(*key, *from, *subscription));
            }
        }
    }

    fn row_in(&mut self, AssignmentRow(key, from, subscription): AssignmentRow) {
        let history = self.histories.entry(key).or_default();
        let place = history.partition_point(|fact| fact.0 < from);
        history.insert(place, (from, subscription));
        self.restored = true;
    }

    fn shard(row: &AssignmentRow) -> Shard {
        Shard::Of(row.0.shard())
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_map_with(&self.histories, |history| {
            history.capacity() * size_of::<(EventTime, NameId)>()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_held_windows_can_ask_for_is_kept() {
        let facts = |times: &[u64]| times.iter().map(|from| (*from, NameId(*from))).collect::<Vec<_>>();
        for (held_from, kept) in
            [(0, vec![0, 10, 20]), (9, vec![0, 10, 20]), (10, vec![10, 20]), (99, vec![20])]
        {
            let mut history = facts(&[0, 10, 20]);
            forget_unasked(&mut history, held_from);
            assert_eq!(history, facts(&kept), "held from {held_from}");
        }
    }
}
