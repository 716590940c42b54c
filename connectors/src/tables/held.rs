//! The rows that a table holds, so that it is known what a tombstone deletes and what a file no longer has.
//!
//! A row stands in a **slot**: the message key of a topic's record, or, where there is none, the row's own key
//! columns. A slot is overwritten and emptied as a whole. Several slots may hold a row of the same key or id,
//! such as one for each time from which a key belongs to somebody: a row ends when the last slot that holds
//! it is emptied; until then another slot's row takes its place.
//!
//! ```text
//! slot (hash of the message key) -> keys or ids -> the slots' rows, the newest last
//! ```
//!
//! What is put out for a key or id always ends with what holds now, so a reader that goes by the highest
//! offset has the table as it is. For keys that takes a statement without `valid_from`: rows with one are
//! facts of a history, which can't be withdrawn, and of which the last is in force. After a key was deleted,
//! or its row was set back to an earlier time, a fact alone would change nothing.
//!
//! Of several rows of a key the newest holds if it has no `valid_from`, else the one with the latest. A row
//! that is dated in the future and then withdrawn still comes into force: there is no clock here to tell it.
//!
//! Limits: a row takes 280 to 550 bytes, however long its message key is, and 32 for each element of its allow list.
//! Slots of different message keys are taken for the same with a probability of 2^-128 a pair.

use hashbrown::HashMap;
use keytide_dataflow::model::{EventTime, KeyRow, TableChange, TableRow};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

/// Tells hashes of message keys from those of rows.
const MESSAGE_SEED: u64 = 1;

/// Where a row stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u128);

impl Slot {
    /// The slot of a message key.
    pub(super) fn of_message(key: &[u8]) -> Self {
        Self(xxh3_128_with_seed(key, MESSAGE_SEED))
    }

    /// The slot of a row by its own key columns.
    pub(super) fn of_row(row: &TableRow) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&identity(row).0.to_be_bytes());
        if let Some(from) = valid_from(row) {
            hasher.update(&from.to_be_bytes());
        }
        Self(hasher.digest128())
    }
}

/// The key or id of a row. All rows here are of one table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Identity(u128);

fn identity(row: &TableRow) -> Identity {
    match row {
        TableRow::Key(row) => Identity(row.key.0),
        TableRow::Subscription(row) => Identity(row.id.0.into()),
        TableRow::Plan(row) => Identity(row.id.0.into()),
        TableRow::Leak(row) => Identity(row.key.0),
    }
}

fn valid_from(row: &TableRow) -> Option<EventTime> {
    match row {
        TableRow::Key(row) => row.valid_from,
        TableRow::Subscription(_) | TableRow::Plan(_) | TableRow::Leak(_) => None,
    }
}

/// Rows of one record: a key may have a name beside its hash.
pub(super) type RecordRows = SmallVec<[TableRow; 2]>;

/// The rows of one table.
#[derive(Default)]
pub(super) struct Held {
    slots: HashMap<Slot, SmallVec<[Identity; 1]>>,
    rows: HashMap<Identity, Holders>,
    next_offset: u64,
}

/// The slots with a row of one identity, the newest last.
type Holders = SmallVec<[(Slot, TableRow); 1]>;

/// What a row takes in hash tables that are full to 7/8, or to half of that when they just grew.
const ROW: usize = size_of::<(Slot, SmallVec<[Identity; 1]>)>() + size_of::<(Identity, Holders)>();
const _: () = assert!(ROW + 2 <= 242);

impl Held {
    /// Slots that hold something.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Overwrites a slot.
    pub(super) fn put(&mut self, slot: Slot, rows: RecordRows, changes: &mut Vec<TableChange>) {
        let now: SmallVec<[Identity; 1]> = rows.iter().map(identity).collect();
        let before = self.slots.insert(slot, now.clone()).unwrap_or_default();
        for row in rows {
            self.hold(slot, row, changes);
        }
        for identity in before.into_iter().filter(|identity| !now.contains(identity)) {
            self.release(slot, identity, changes);
        }
    }

    /// Empties a slot; does nothing if it is.
    pub(super) fn remove(&mut self, slot: Slot, changes: &mut Vec<TableChange>) {
        for identity in self.slots.remove(&slot).unwrap_or_default() {
            self.release(slot, identity, changes);
        }
    }

    /// Empties the slots that aren't to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(Slot) -> bool, changes: &mut Vec<TableChange>) {
        let mut gone: Vec<Slot> = self.slots.keys().copied().filter(|slot| !keep(*slot)).collect();
        gone.sort_unstable();
        for slot in gone {
            self.remove(slot, changes);
        }
    }

    /// Empties all slots.
    pub(super) fn clear(&mut self, changes: &mut Vec<TableChange>) {
        self.slots.clear();
        let mut rows: Vec<(Identity, Holders)> = self.rows.drain().collect();
        rows.sort_unstable_by_key(|(identity, _)| *identity);
        for row in rows.iter().filter_map(|(_, holders)| in_force(holders)) {
            self.change(row.clone(), true, changes);
        }
    }

    /// Puts out every row as it is held, for a reader that was told nothing yet: a key's rows without what they
    /// superseded, those without a date first, in whatever order they came.
    pub(super) fn state(&mut self, changes: &mut Vec<TableChange>) {
        let mut identities: Vec<Identity> = self.rows.keys().copied().collect();
        identities.sort_unstable();
        self.next_offset = 0;
        for identity in identities {
            let mut rows: Vec<TableRow> = self.rows[&identity].iter().map(|(_, row)| row.clone()).collect();
            rows.sort_by_key(valid_from);
            for row in rows {
                self.change(row, false, changes);
            }
        }
    }

    fn hold(&mut self, slot: Slot, row: TableRow, changes: &mut Vec<TableChange>) {
        let holders = self.rows.entry(identity(&row)).or_default();
        let before = in_force(holders).cloned();
        let place = holders.iter().position(|(holder, _)| *holder == slot);
        let replaced = place.map(|place| holders.remove(place).1);
        holders.push((slot, row.clone()));
        let now = in_force(holders).cloned();
        if replaced.as_ref() == Some(&row) && before == now {
            return;
        }
        let is_dated = valid_from(&row).is_some();
        self.change(row, false, changes);
        // A row without a date is in force by being the newest.
        if let Some(now) = now.filter(|_| is_dated) {
            self.change(undated(now), false, changes);
        }
    }

    fn release(&mut self, slot: Slot, identity: Identity, changes: &mut Vec<TableChange>) {
        let Some(holders) = self.rows.get_mut(&identity) else { return };
        let Some(place) = holders.iter().position(|(holder, _)| *holder == slot) else { return };
        let (_, released) = holders.remove(place);
        if let Some(now) = in_force(holders) {
            let now = undated(now.clone());
            self.change(now, false, changes);
        } else {
            self.rows.remove(&identity);
            self.change(released, true, changes);
        }
    }

    fn change(&mut self, row: TableRow, deleted: bool, changes: &mut Vec<TableChange>) {
        changes.push(TableChange { offset: self.next_offset, row, deleted });
        self.next_offset += 1;
    }
}

/// The row that holds, of those with the same identity.
fn in_force(holders: &[(Slot, TableRow)]) -> Option<&TableRow> {
    let newest = holders.last().map(|(_, row)| row);
    // Of equal times the newest.
    newest
        .filter(|row| valid_from(row).is_none())
        .or_else(|| holders.iter().map(|(_, row)| row).max_by_key(|row| valid_from(row)))
}

/// The same row, as holding from now on.
fn undated(row: TableRow) -> TableRow {
    match row {
        TableRow::Key(row) => TableRow::Key(KeyRow { valid_from: None, ..row }),
        row @ (TableRow::Subscription(_) | TableRow::Plan(_) | TableRow::Leak(_)) => row,
    }
}
