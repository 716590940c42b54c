//! Keeps the history of what rows say about a subject, such as a key's owner or a subscription's plan.
//!
//! A table has the values of now; windows and bills need the value of their time. So each change becomes a fact (start,
//! value). Of a subject's rows the one with the latest `valid_from` that isn't in the future is in force. A row
//! without `valid_from` counts as older than any, and of several of these the newest wins. Two properties follow,
//! whatever the order in which the rows came:
//!
//! * **Now and later** the value is a function of the rows that are held, and of nothing else. A job that followed
//!   every change agrees with one that starts from the current table.
//! * **Before now** a row with `valid_from` holds since then, also if it comes late. A row without one holds since
//!   ever if it is a subject's first, else since it came. The past is only changed by rows that name a time.
//!
//! Changes of one tick are read in their order. Without a deletion among them they add to the history. From the last
//! deletion on they are a **statement**: the rows that follow it are all rows of the subject. If it is empty, there is
//! no value.

use serde::{Deserialize, Serialize};

use crate::model::{EventTime, KeyRow, NameId};

/// Facts of one subject in the order of their times, each in force until the next. The default value is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<T>(pub(crate) Vec<(EventTime, T)>);

/// The owners of a key; [`NameId::NONE`] is none.
pub type Ownership = History<NameId>;

/// A row's value, the time from which on it holds, and whether the row was deleted.
pub(crate) type DatedChange<T> = (T, Option<EventTime>, bool);

impl Ownership {
    /// Returns the owner at a time, [`NameId::NONE`] where there is none.
    #[must_use]
    pub fn owner(&self, at: EventTime) -> NameId {
        self.at(at)
    }

    /// Takes the changes of the tick with the time `now`: rows in their order, each with whether it was deleted.
    pub fn take(&mut self, changes: &[(&KeyRow, bool)], now: EventTime) {
        let changes: Vec<_> =
            changes.iter().map(|(row, deleted)| (row.subscription, row.valid_from, *deleted)).collect();
        self.take_changes(&changes, now);
    }
}

impl<T: Clone + Default + PartialEq> History<T> {
    /// Returns the value at a time.
    pub(crate) fn at(&self, at: EventTime) -> T {
        self.in_force(at).cloned().unwrap_or_default()
    }

    pub(crate) fn in_force(&self, at: EventTime) -> Option<&T> {
        let until = self.0.partition_point(|fact| fact.0 <= at);
        self.0[..until].last().map(|(_, value)| value)
    }

    /// Takes all rows that a subject has in the tick with the time `now`, each with the time from which on it holds.
    pub(crate) fn state(&mut self, rows: impl IntoIterator<Item = (T, Option<EventTime>)>, now: EventTime) {
        let deleted = (T::default(), None, true);
        let rows = rows.into_iter().map(|(value, from)| (value, from, false));
        self.take_changes(&[deleted].into_iter().chain(rows).collect::<Vec<_>>(), now);
    }

    fn take_changes(&mut self, changes: &[DatedChange<T>], now: EventTime) {
        let statement = changes.iter().rposition(|(.., deleted)| *deleted).map(|last| &changes[last + 1..]);
        let undated = |rows: &[DatedChange<T>]| {
            let undated = rows.iter().rfind(|(_, from, deleted)| !deleted && from.is_none());
            undated.map(|(value, ..)| value.clone())
        };
        if statement.is_some() {
            // A fact of the future that isn't stated again is withdrawn.
            self.0.retain(|fact| fact.0 <= now);
        }
        let rows = statement.unwrap_or(changes);
        let base = undated(rows);
        let is_first = self.in_force(now).is_none();
        if let Some(base) = base.clone().filter(|_| is_first) {
            self.insert(0, base);
        }
        for (value, from, _) in rows {
            if let Some(from) = from {
                self.insert(*from, value.clone());
            }
        }
        let holds = match statement {
            // A statement has all rows of the subject, so it decides the value now.
            Some(rows) => {
                let dated = rows.iter().filter_map(|(value, from, _)| Some(((*from)?, value)));
                let dated = dated.filter(|(from, _)| *from <= now).max_by_key(|(from, _)| *from);
                dated.map(|(_, value)| value.clone()).or(base).unwrap_or_default()
            }
            // Without a statement, only a row without a date can change the value now.
            None => match base.filter(|_| !is_first) {
                Some(base) => base,
                None => return,
            },
        };
        if self.at(now) != holds {
            self.insert(now, holds);
        }
    }

    fn insert(&mut self, from: EventTime, value: T) {
        match self.0.binary_search_by_key(&from, |fact| fact.0) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => {
                if self.0.is_empty() {
                    // Nearly all have one fact.
                    self.0.reserve_exact(1);
                }
                self.0.insert(index, (from, value));
            }
        }
    }

    /// Drops facts that were superseded before `held_from`: nothing that is held needs them.
    pub(crate) fn forget(&mut self, held_from: EventTime) {
        let in_force = self.0.partition_point(|fact| fact.0 <= held_from);
        self.0.drain(..in_force.saturating_sub(1));
    }

    /// Returns the time of the first fact after `at`.
    pub(crate) fn next(&self, at: EventTime) -> Option<EventTime> {
        let next = self.0.partition_point(|fact| fact.0 <= at);
        self.0.get(next).map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyId, KeyKind, KeyPlace, KeyState};

    fn row(name: u64, valid_from: Option<EventTime>) -> KeyRow {
        KeyRow {
            key: KeyId(1),
            subscription: NameId(name),
            valid_from,
            state: KeyState::Active,
            kind: KeyKind::Secret,
            created_at: None,
            revoked_at: None,
            last_used_at: None,
            place: KeyPlace::default(),
            allowed: Box::default(),
            contact: NameId::NONE,
        }
    }

    /// A change as subscription, start and whether it is deleted.
    type Change = (u64, Option<EventTime>, bool);

    /// Returns a history after ticks, each a time and its changes.
    fn after(ticks: &[(EventTime, &[Change])]) -> Vec<(EventTime, u64)> {
        let mut history = Ownership::default();
        for (now, changes) in ticks {
            let rows: Vec<(KeyRow, bool)> =
                changes.iter().map(|(name, from, gone)| (row(*name, *from), *gone)).collect();
            let changes: Vec<(&KeyRow, bool)> = rows.iter().map(|(row, gone)| (row, *gone)).collect();
            history.take(&changes, *now);
        }
        history.0.iter().map(|(from, name)| (*from, name.0)).collect()
    }

    #[test]
    fn the_first_row_holds_since_ever_and_another_since_it_came() {
        assert_eq!(after(&[(100, &[(1, None, false)])]), [(0, 1)]);
        assert_eq!(after(&[(100, &[(1, None, false)]), (200, &[(2, None, false)])]), [(0, 1), (200, 2)]);
        assert_eq!(after(&[(100, &[(1, None, false), (2, None, false)])]), [(0, 2)], "in one tick the last");
        assert_eq!(after(&[(100, &[(1, None, false)]), (200, &[(1, None, false)])]), [(0, 1)]);
    }

    #[test]
    fn a_key_without_rows_has_no_owner_from_now_on() {
        let gone = after(&[(100, &[(1, None, false)]), (200, &[(1, None, true)])]);
        assert_eq!(gone, [(0, 1), (200, 0)]);
        let back =
            after(&[(100, &[(1, None, false)]), (200, &[(1, None, true)]), (300, &[(2, None, false)])]);
        assert_eq!(back, [(0, 1), (200, 0), (300, 2)]);
        assert_eq!(after(&[(100, &[(1, None, true)])]), [], "one that never had any");
    }

    #[test]
    fn rows_with_a_date_hold_since_then_and_over_those_without() {
        let rows: &[_] = &[(1, None, false), (2, Some(50), false), (3, Some(500), false)];
        assert_eq!(after(&[(100, rows)]), [(0, 1), (50, 2), (500, 3)]);
        // The row without a date changes: what has one stays in force, and comes into force.
        let stated: &[_] = &[(4, None, true), (4, None, false), (2, Some(50), false), (3, Some(500), false)];
        assert_eq!(after(&[(100, rows), (200, stated)]), [(0, 1), (50, 2), (500, 3)]);
    }

    #[test]
    fn a_row_that_was_to_come_is_withdrawn() {
        let rows: &[_] = &[(1, None, false), (3, Some(500), false)];
        let stated: &[_] = &[(3, Some(500), true), (1, None, false)];
        assert_eq!(after(&[(100, rows), (200, stated)]), [(0, 1)]);
        assert_eq!(after(&[(100, rows), (600, stated)]), [(0, 1), (500, 3), (600, 1)], "it has come");
    }

    #[test]
    fn the_row_beneath_one_to_come_may_change() {
        let rows: &[_] = &[(1, None, false), (3, Some(500), false)];
        let stated: &[_] = &[(1, None, true), (2, None, false), (3, Some(500), false)];
        assert_eq!(after(&[(100, rows), (200, stated)]), [(0, 1), (200, 2), (500, 3)]);
    }

    #[test]
    fn only_what_held_windows_can_ask_for_is_kept() {
        let facts = |times: &[u64]| times.iter().map(|from| (*from, NameId(*from))).collect::<Vec<_>>();
        for (held_from, kept) in
            [(0, vec![0, 10, 20]), (9, vec![0, 10, 20]), (10, vec![10, 20]), (99, vec![20])]
        {
            let mut history = History(facts(&[0, 10, 20]));
            history.forget(held_from);
            assert_eq!(history.0, facts(&kept), "held from {held_from}");
        }
    }
}
