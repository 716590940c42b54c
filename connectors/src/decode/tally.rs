//! Counts oddities of records whose calls count all the same.

use super::raw::{EventField, FIELDS};

/// The maximum of rules in a list of `keys.from`.
pub const KEY_RULES: usize = 8;

/// Counts of records besides events and dead letters, summed over those of a [`Decoded`](super::Decoded).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that aren't calls, by `[source.only]` or by their format.
    pub passed_over: u64,
    /// Events whose identity stands twice with different values, which count under `conflicting`.
    pub conflicting: u64,
    /// Events of records with an unescaped quote, which were read by the order of their names.
    pub recovered: u64,
    /// Events without a key, which count under `anonymous`.
    pub keyless: u64,
    /// Events whose key was found by a rule of `keys.from`, by the rule's index there.
    pub found_by: [u64; KEY_RULES],
    /// Events with a field that can't be read, by field.
    pub(super) unread: [u64; FIELDS],
}

/// Fields without which a call counts, in the order in which they are reported.
const OPTIONAL: [EventField; 14] = [
    EventField::RequestId,
    EventField::Key,
    EventField::Api,
    EventField::Route,
    EventField::Path,
    EventField::Method,
    EventField::Status,
    EventField::Latency,
    EventField::End,
    EventField::BytesIn,
    EventField::BytesOut,
    EventField::Units,
    EventField::UserAgent,
    EventField::Count,
];

impl Tally {
    /// Iterates over the fields that couldn't be read in some event, with the number of these events, in a fixed order.
    pub fn unread(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.optional().filter(|(_, events)| *events > 0)
    }

    /// Iterates over all fields that may be unknown, with the number of events in which they couldn't be read.
    pub fn optional(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OPTIONAL.into_iter().map(|name| (name.label(), self.unread[name as usize]))
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Self) {
        self.passed_over += other.passed_over;
        self.conflicting += other.conflicting;
        self.recovered += other.recovered;
        self.keyless += other.keyless;
        self.found_by.iter_mut().zip(other.found_by).for_each(|(sum, more)| *sum += more);
        self.unread.iter_mut().zip(other.unread).for_each(|(sum, more)| *sum += more);
    }
}

/// The fields of one record that can't be read.
#[derive(Default)]
pub(super) struct Unread(u32);

const _: () = assert!(FIELDS <= 32);

impl Unread {
    /// Returns the value, or `unknown` if it can't be read, which is noted.
    #[inline]
    pub(super) fn or<T, E>(&mut self, name: EventField, read: Result<T, E>, unknown: T) -> T {
        read.unwrap_or_else(|_| {
            self.0 |= 1 << name as u32;
            unknown
        })
    }

    /// Returns whether every field could be read.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    pub(super) fn names(&self) -> impl Iterator<Item = EventField> {
        EventField::ALL.into_iter().filter(|name| self.0 & 1 << *name as u32 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_summed_field_by_field() {
        let mut sum = Tally::default();
        assert_eq!(sum.unread().count(), 0);
        let mut one = Tally { passed_over: 1, conflicting: 2, recovered: 3, ..Tally::default() };
        one.unread[EventField::Status as usize] = 4;
        one.unread[EventField::Latency as usize] = 5;
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.passed_over, sum.conflicting, sum.recovered), (2, 4, 6));
        // They come in the order of the fields, whichever was met first, and without those that were read.
        assert_eq!(sum.unread().collect::<Vec<_>>(), [("status", 8), ("latency", 10)]);
        sum.add(&Tally::default());
        assert_eq!(sum.unread().map(|(_, events)| events).sum::<u64>(), 18);
    }

    #[test]
    fn each_field_of_a_record_is_unread_once() {
        let mut unread = Unread::default();
        assert_eq!(unread.or(EventField::Status, Ok::<_, ()>(200), 0), 200);
        assert!(unread.is_empty());
        for name in [EventField::Wrapped, EventField::RequestId, EventField::Status, EventField::Status] {
            assert_eq!(unread.or(name, Err::<u16, ()>(()), 7), 7);
        }
        let names: Vec<_> = unread.names().map(EventField::label).collect();
        assert_eq!(names, ["request_id", "status", "record"]);
    }
}
