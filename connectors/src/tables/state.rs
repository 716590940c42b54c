//! The state of a table of upserts. It holds the rows, because neither a tombstone nor a file names a deleted row's
//! content.
//!
//! Each row is held in a **slot**. A slot is the message key of a topic's record, or the row's own key columns if there
//! is no message key. A slot is overwritten and emptied as a whole. Several slots may hold a row of the same key or id,
//! for example if a key changes its owner at several dates. A row ends when the last slot that holds it is emptied.
//! Until then another slot's row takes its place.
//!
//! ```text
//! slot (hash of the message key) -> keys or ids -> the slots' rows, the newest last
//! ```
//!
//! If a key has several rows, the one with the latest `valid_from` is in force, and the newest of several with the
//! same. A row without `valid_from` counts as older than any with it. The same goes for subscriptions, for quotas of one
//! holder, metric and period, and for tiers of one plan, item and bound. Of another id's rows the newest is in force. So the
//! row in force depends on the rows that are held, not on the order in which dated and undated ones came. A job that
//! followed every change and one that starts from the current rows have the same owners. A date in the future is judged
//! in [`ownership`](keytide_dataflow::ownership), where the time is known.
//!
//! The changes of a key or id end with the row in force. So a reader that goes by the highest offset has the current
//! table. If a key has or had a dated row, a change is a deletion, and then all its rows again. A single row couldn't
//! show which of the others are gone. So a change of a key with N rows takes N rows.
//!
//! Limits: a row takes 280 to 550 bytes, however long its message key is, and 32 for each element of its allow list.
//! Two different message keys have the same slot with a probability of 2^-128.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use hashbrown::HashMap;
use keytide_dataflow::model::{EventTime, QuotaHolder, QuotaRow, TableChange, TableRow};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

/// Keeps hashes of message keys apart from those of rows.
const MESSAGE_SEED: u64 = 1;

/// The hash of a message key, or of a row's key columns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowSlot(u128);

impl RowSlot {
    /// Returns the slot of a message key.
    pub(super) fn of_message(key: &[u8]) -> Self {
        Self(xxh3_128_with_seed(key, MESSAGE_SEED))
    }

    /// Returns the slot of a row by its own key columns.
    pub(super) fn of_row(row: &TableRow) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&row_id(row).0.to_be_bytes());
        if let Some(from) = valid_from(row) {
            hasher.update(&from.to_be_bytes());
        }
        Self(hasher.digest128())
    }
}

/// The key or id of a row. All rows here are of one table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RowId(u128);

fn row_id(row: &TableRow) -> RowId {
    match row {
        TableRow::Key(row) => RowId(row.key.0),
        TableRow::Subscription(row) => RowId(row.id.0.into()),
        TableRow::Plan(row) => RowId(row.id.0.into()),
        TableRow::Leak(row) => RowId(row.key.0),
        TableRow::Token(row) => {
            // The first half of a digest is as unique as an id.
            RowId(row.digest.0.first_chunk().map_or(0, |half| u128::from_be_bytes(*half)))
        }
        TableRow::Quota(QuotaRow { holder, measure, period, .. }) => {
            let (kind, id) = match holder {
                QuotaHolder::Plan(id) => (0, id),
                QuotaHolder::Subscription(id) => (1, id),
            };
            RowId(u128::from(id.0) << 64 | kind << 16 | (*measure as u128) << 8 | *period as u128)
        }
        TableRow::Price(row) => {
            let mut hasher = Xxh3::new();
            let up_to = row.tier.up_to;
            for part in [row.plan.0, row.item.0, up_to.is_some().into(), up_to.unwrap_or_default()] {
                hasher.update(&part.to_be_bytes());
            }
            RowId(hasher.digest128())
        }
    }
}

/// Returns since when a row counts, if it says so.
pub(super) fn valid_from(row: &TableRow) -> Option<EventTime> {
    match row {
        TableRow::Key(row) => row.valid_from,
        TableRow::Subscription(row) => row.valid_from,
        TableRow::Quota(row) => row.valid_from,
        TableRow::Price(row) => row.valid_from,
        TableRow::Plan(_) | TableRow::Leak(_) | TableRow::Token(_) => None,
    }
}

/// The rows of one record, which are two for a key with a name beside its hash.
pub(super) type RecordRows = SmallVec<[TableRow; 2]>;

/// The rows of one table as a checkpoint has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableMemory {
    /// The rows of each key or id together, in the order of their dates.
    rows: Vec<TableRow>,
    /// The offset of the next change.
    next_offset: u64,
    /// The SHA-256 of the rows that became dead letters, which don't become one again.
    pub(super) bad: BTreeSet<[u8; 32]>,
}

impl TableMemory {
    /// Returns the rows of each key or id together, in the order of their dates.
    pub(super) fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Returns a memory of bad rows alone, for a table whose rows are read again at each start.
    pub(super) fn of_bad(bad: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { bad: bad.into_iter().collect(), ..Self::default() }
    }

    /// Adds changes as [`UpsertState`] emits them: a deletion ends all rows of its key or id, a dated row is one more,
    /// and an undated one takes the place of all.
    pub(super) fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a TableChange>) {
        let mut rows: BTreeMap<RowId, Vec<TableRow>> = BTreeMap::new();
        for row in mem::take(&mut self.rows) {
            rows.entry(row_id(&row)).or_default().push(row);
        }
        for TableChange { offset, row, deleted } in changes {
            self.next_offset = offset + 1;
            let of_id = rows.entry(row_id(row)).or_default();
            if *deleted || valid_from(row).is_none() {
                of_id.clear();
            }
            of_id.extend((!deleted).then(|| row.clone()));
        }
        self.rows = rows.into_values().flatten().collect();
    }
}

/// The rows of one table, by slot and by key or id.
#[derive(Default)]
pub(super) struct UpsertState {
    slots: HashMap<RowSlot, SmallVec<[RowId; 1]>>,
    rows: HashMap<RowId, Holders>,
    next_offset: u64,
}

/// The slots with a row of one identity, the newest last.
type Holders = SmallVec<[(RowSlot, TableRow); 1]>;

/// The bytes of a row in its hash tables. These are full to 7/8, or to half of that when they just grew.
const ROW: usize = size_of::<(RowSlot, SmallVec<[RowId; 1]>)>() + size_of::<(RowId, Holders)>();
const _: () = assert!(ROW + 2 <= 242);

impl UpsertState {
    /// The number of slots that hold rows.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, slot: RowSlot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Puts the first rows into a state without any, each with its slot, of which the later one of two is taken. It emits
    /// nothing, as [`go_on`](Self::go_on) does that afterwards.
    pub(super) fn fill(&mut self, rows: impl ExactSizeIterator<Item = (RowSlot, TableRow)>) {
        self.slots.reserve(rows.len());
        self.rows.reserve(rows.len());
        let mut unseen = Vec::new();
        for (slot, row) in rows {
            if self.slots.contains_key(&slot) {
                self.put(slot, [row].into_iter().collect(), &mut unseen);
                unseen.clear();
            } else {
                let id = row_id(&row);
                self.slots.insert(slot, [id].into_iter().collect());
                self.rows.entry(id).or_default().push((slot, row));
            }
        }
    }

    /// Overwrites a slot with the rows of a record.
    pub(super) fn put(&mut self, slot: RowSlot, rows: RecordRows, changes: &mut Vec<TableChange>) {
        let now: SmallVec<[RowId; 1]> = rows.iter().map(row_id).collect();
        let before = self.slots.insert(slot, now.clone()).unwrap_or_default();
        for row in rows {
            self.insert(slot, row, changes);
        }
        for id in before.into_iter().filter(|id| !now.contains(id)) {
            self.release(slot, id, changes);
        }
    }

    /// Empties a slot, if it holds rows.
    pub(super) fn remove(&mut self, slot: RowSlot, changes: &mut Vec<TableChange>) {
        for id in self.slots.remove(&slot).unwrap_or_default() {
            self.release(slot, id, changes);
        }
    }

    /// Empties the slots that `keep` refuses.
    pub(super) fn retain(&mut self, keep: impl Fn(&Self, RowSlot) -> bool, changes: &mut Vec<TableChange>) {
        let mut gone: Vec<RowSlot> = self.slots.keys().copied().filter(|slot| !keep(self, *slot)).collect();
        gone.sort_unstable();
        for slot in gone {
            self.remove(slot, changes);
        }
    }

    /// Empties all slots, in the order of their keys or ids.
    pub(super) fn clear(&mut self, changes: &mut Vec<TableChange>) {
        self.slots.clear();
        let mut rows: Vec<(RowId, Holders)> = self.rows.drain().collect();
        rows.sort_unstable_by_key(|(id, _)| *id);
        for (_, holders) in rows {
            self.emit(&effective(&holders), &[], changes);
        }
    }

    /// Emits every row as it is held now, for a reader without any earlier change. A key's rows come in the order of
    /// their dates, without those that they superseded.
    pub(super) fn snapshot(&mut self, changes: &mut Vec<TableChange>) {
        let mut ids: Vec<RowId> = self.rows.keys().copied().collect();
        ids.sort_unstable();
        self.next_offset = 0;
        for id in ids {
            for row in effective(&self.rows[&id]) {
                self.push(row, false, changes);
            }
        }
    }

    /// Returns the rows that are in force or will be, for a checkpoint. The rows of a key or id come together. `bad` are
    /// those that became dead letters.
    pub(super) fn memory(&self, bad: impl IntoIterator<Item = [u8; 32]>) -> TableMemory {
        let mut ids: Vec<RowId> = self.rows.keys().copied().collect();
        ids.sort_unstable();
        let rows = ids.into_iter().flat_map(|id| effective(&self.rows[&id])).collect();
        TableMemory { rows, next_offset: self.next_offset, bad: bad.into_iter().collect() }
    }

    /// Emits how the rows that are held differ from those that an earlier life of the job held. Offsets go on where it
    /// ended. Without an earlier life it emits every row, as [`snapshot`](Self::snapshot) does.
    pub(super) fn go_on(&mut self, earlier: &TableMemory, changes: &mut Vec<TableChange>) {
        if *earlier == TableMemory::default() {
            return self.snapshot(changes);
        }
        self.next_offset = earlier.next_offset;
        let mut before: Vec<(RowId, &[TableRow])> = earlier
            .rows
            .chunk_by(|a, b| row_id(a) == row_id(b))
            .map(|rows| (row_id(&rows[0]), rows))
            .collect();
        before.sort_unstable_by_key(|(id, _)| *id);
        // Nearly all rows are as they were, and these need neither a copy nor an order.
        let is_same = |id: &RowId, holders: &[(RowSlot, TableRow)]| {
            let [(_, row)] = holders else { return false };
            let found = before.binary_search_by_key(id, |(id, _)| *id);
            found.is_ok_and(|at| matches!(before[at].1, [earlier] if earlier == row))
        };
        let differing = self.rows.iter().filter(|(id, holders)| !is_same(id, holders)).map(|(id, _)| *id);
        let gone = before.iter().map(|(id, _)| *id).filter(|id| !self.rows.contains_key(id));
        let mut ids: Vec<RowId> = differing.chain(gone).collect();
        ids.sort_unstable();
        for id in ids {
            let found = before.binary_search_by_key(&id, |(id, _)| *id);
            let earlier = found.map_or(&[][..], |at| before[at].1);
            let now = self.rows.get(&id).map(|holders| effective(holders)).unwrap_or_default();
            self.emit(earlier, &now, changes);
        }
    }

    /// The first row of a slot.
    pub(super) fn row(&self, slot: RowSlot) -> Option<&TableRow> {
        let id = self.slots.get(&slot)?.first()?;
        self.rows.get(id)?.iter().find(|(holder, _)| *holder == slot).map(|(_, row)| row)
    }

    fn insert(&mut self, slot: RowSlot, row: TableRow, changes: &mut Vec<TableChange>) {
        let holders = self.rows.entry(row_id(&row)).or_default();
        let before = effective(holders);
        holders.retain(|(holder, _)| *holder != slot);
        holders.push((slot, row));
        let now = effective(holders);
        self.emit(&before, &now, changes);
    }

    fn release(&mut self, slot: RowSlot, id: RowId, changes: &mut Vec<TableChange>) {
        let Some(holders) = self.rows.get_mut(&id) else { return };
        let before = effective(holders);
        holders.retain(|(holder, _)| *holder != slot);
        let now = effective(holders);
        if holders.is_empty() {
            self.rows.remove(&id);
        }
        self.emit(&before, &now, changes);
    }

    /// Emits the change between two lists of rows of a key or id.
    fn emit(&mut self, before: &[TableRow], now: &[TableRow], changes: &mut Vec<TableChange>) {
        if before == now {
            return;
        }
        let is_plain = |rows: &[TableRow]| match rows {
            [] => true,
            [row] => valid_from(row).is_none(),
            _ => false,
        };
        match (before.last(), now) {
            (_, [row]) if is_plain(before) && is_plain(now) => self.push(row.clone(), false, changes),
            (last, now) => {
                if let Some(gone) = last.or(now.last()) {
                    self.push(gone.clone(), true, changes);
                }
                for row in now {
                    self.push(row.clone(), false, changes);
                }
            }
        }
    }

    fn push(&mut self, row: TableRow, deleted: bool, changes: &mut Vec<TableChange>) {
        changes.push(TableChange { offset: self.next_offset, row, deleted });
        self.next_offset += 1;
    }
}

/// The rows of one key or id that aren't superseded, the one in force last.
fn effective(holders: &[(RowSlot, TableRow)]) -> SmallVec<[TableRow; 1]> {
    // They are visited from the newest, so of one date the first that is met counts.
    let mut rows: SmallVec<[&TableRow; 1]> = SmallVec::new();
    for (_, row) in holders.iter().rev() {
        if let Err(place) = rows.binary_search_by_key(&valid_from(row), |row| valid_from(row)) {
            rows.insert(place, row);
        }
    }
    rows.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::{KeyId, KeyRow, NameId, PlanRow, Policy};
    use proptest::prelude::*;

    use super::*;
    use crate::tables::tests::plain_key;

    fn key_row(key: u128, valid_from: Option<EventTime>, subscription: u64) -> TableRow {
        TableRow::Key(KeyRow { valid_from, subscription: NameId(subscription), ..plain_key(KeyId(key), "") })
    }

    fn plan_row(id: u64, name: u64) -> TableRow {
        TableRow::Plan(PlanRow {
            id: NameId(id),
            name: NameId(name),
            policy: Policy::Alert,
            fees: Box::default(),
        })
    }

    proptest! {
        /// A job that makes ticks again has only the changes in them, and must end with the rows that were held.
        #[test]
        fn changes_lead_to_the_rows_that_are_held(
            steps in prop::collection::vec((0_u8..6, 0_u128..3, prop::option::of(0_u64..4), 0_u64..4), 1..60),
            cuts in prop::collection::vec(1_usize..9, 1..9),
        ) {
            let (mut keys, mut plans) = (UpsertState::default(), UpsertState::default());
            let (mut of_keys, mut of_plans) = (TableMemory::default(), TableMemory::default());
            let mut cuts = cuts.into_iter().cycle();
            let mut left = steps.as_slice();
            while !left.is_empty() {
                let (now, later) = left.split_at(cuts.next().unwrap().min(left.len()));
                left = later;
                let (mut key_changes, mut plan_changes) = (Vec::new(), Vec::new());
                for &(slot, key, valid_from, value) in now {
                    let slot = RowSlot(slot.into());
                    if value == 0 {
                        keys.remove(slot, &mut key_changes);
                        plans.remove(slot, &mut plan_changes);
                    } else {
                        let rows = [key_row(key, valid_from, value)].into_iter().collect();
                        keys.put(slot, rows, &mut key_changes);
                        let id = u64::try_from(key).unwrap();
                        plans.put(slot, [plan_row(id, value)].into_iter().collect(), &mut plan_changes);
                    }
                }
                of_keys.apply(&key_changes);
                of_plans.apply(&plan_changes);
                prop_assert_eq!(&of_keys, &keys.memory([]));
                prop_assert_eq!(&of_plans, &plans.memory([]));
            }
        }
    }
}
