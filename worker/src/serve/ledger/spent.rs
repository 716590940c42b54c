//! What a subscription has spent that isn't booked yet: checks that were admitted, and reservations.
//!
//! Time is cut into slots, two of each minute: its first 58 s and its last 2 s. A quota's use is asked for from the start
//! of a period or from 2 s before a full minute. Both are borders of slots, so few slots answer exactly. The running
//! second is kept beside them, for quotas of a second.
//!
//! If bookings stand still, slots pile up. From [`SLOTS`] on the two oldest become one that has the later time. It counts
//! for longer then, so a limit is never passed by that.

use std::collections::VecDeque;

use keytide_billing::BilledUse;

/// The most slots: an hour and more.
const SLOTS: usize = 128;
const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;
/// Clocks of gateways may differ so much from this one.
pub(super) const SKEW_MS: u64 = 2 * SECOND_MS;

/// Adds two quantities. Sums of numbers below 2^64 don't reach the bound.
pub(super) fn plus(left: BilledUse, right: BilledUse) -> BilledUse {
    each(left, right, u128::saturating_add)
}

/// Takes a quantity from another one, of which it is a part.
pub(super) fn minus(left: BilledUse, right: BilledUse) -> BilledUse {
    each(left, right, u128::saturating_sub)
}

fn each(left: BilledUse, right: BilledUse, of: impl Fn(u128, u128) -> u128) -> BilledUse {
    BilledUse {
        calls: of(left.calls, right.calls),
        bytes_in: of(left.bytes_in, right.bytes_in),
        bytes_out: of(left.bytes_out, right.bytes_out),
        units: of(left.units, right.units),
    }
}

/// Use of one slot of time.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start_ms: u64,
    admitted: BilledUse,
    reserved: BilledUse,
}

/// Checks that were admitted, and reservations that are open.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// Slots of unbooked use, ascending by their start.
    slots: VecDeque<Slot>,
    /// The running second, and what was admitted or reserved in it.
    second: (u64, BilledUse),
}

/// Returns the start of the slot that holds an instant.
fn slot_start(at_ms: u64) -> u64 {
    let in_minute = at_ms % MINUTE_MS;
    let last = MINUTE_MS - SKEW_MS;
    at_ms - in_minute + if in_minute >= last { last } else { 0 }
}

/// Returns the first instant after the slot that begins there.
fn slot_end(start_ms: u64) -> u64 {
    let width_ms = if start_ms.is_multiple_of(MINUTE_MS) { MINUTE_MS - SKEW_MS } else { SKEW_MS };
    start_ms.saturating_add(width_ms)
}

impl Spent {
    /// Admits use of an instant.
    pub(super) fn admit(&mut self, at_ms: u64, used: BilledUse) {
        let slot = self.slot(slot_start(at_ms));
        slot.admitted = plus(slot.admitted, used);
    }

    /// Reserves use at an instant.
    pub(super) fn reserve(&mut self, at_ms: u64, used: BilledUse) {
        let slot = self.slot(slot_start(at_ms));
        slot.reserved = plus(slot.reserved, used);
    }

    /// Ends a reservation that was made at that instant.
    pub(super) fn release(&mut self, made_ms: u64, used: BilledUse) {
        let start_ms = slot_start(made_ms);
        // A slot that was joined with others has a later start.
        let place = self.slots.partition_point(|slot| slot.start_ms < start_ms);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.reserved = minus(slot.reserved, used);
        }
    }

    /// Counts use of the running second.
    pub(super) fn count_second(&mut self, at_ms: u64, used: BilledUse) {
        let second = at_ms - at_ms % SECOND_MS;
        if self.second.0 != second {
            self.second = (second, BilledUse::default());
        }
        self.second.1 = plus(self.second.1, used);
    }

    /// Takes use back from the second of that instant, if it still runs.
    pub(super) fn uncount_second(&mut self, at_ms: u64, used: BilledUse) {
        if self.second.0 == at_ms - at_ms % SECOND_MS {
            self.second.1 = minus(self.second.1, used);
        }
    }

    /// Returns what was admitted or reserved in the second that begins there.
    pub(super) fn in_second(&self, start_ms: u64) -> BilledUse {
        if self.second.0 == start_ms { self.second.1 } else { BilledUse::default() }
    }

    /// Returns what was admitted from an instant on.
    pub(super) fn admitted_from(&self, from_ms: u64) -> BilledUse {
        self.from(from_ms, |slot| slot.admitted)
    }

    /// Returns what has been reserved from an instant on, and is still open.
    pub(super) fn reserved_from(&self, from_ms: u64) -> BilledUse {
        self.from(from_ms, |slot| slot.reserved)
    }

    fn from(&self, from_ms: u64, of: impl Fn(&Slot) -> BilledUse) -> BilledUse {
        let newest = self.slots.iter().rev().take_while(|slot| slot_end(slot.start_ms) > from_ms);
        newest.fold(BilledUse::default(), |sum, slot| plus(sum, of(slot)))
    }

    /// Forgets what was admitted before an instant.
    pub(super) fn forget_before(&mut self, before_ms: u64) {
        let is_old =
            |slot: &Slot| slot_end(slot.start_ms) <= before_ms && slot.reserved == BilledUse::default();
        while self.slots.front().is_some_and(is_old) {
            self.slots.pop_front();
        }
    }

    /// Returns the slot that begins there, which is made if there is none.
    fn slot(&mut self, start_ms: u64) -> &mut Slot {
        let mut place = self.slots.partition_point(|slot| slot.start_ms < start_ms);
        if self.slots.get(place).is_none_or(|slot| slot.start_ms != start_ms) {
            let none = BilledUse::default();
            self.slots.insert(place, Slot { start_ms, admitted: none, reserved: none });
            if self.slots.len() > SLOTS
                && let Some(oldest) = self.slots.pop_front()
            {
                let next = &mut self.slots[0];
                next.admitted = plus(next.admitted, oldest.admitted);
                next.reserved = plus(next.reserved, oldest.reserved);
                place = place.saturating_sub(1);
            }
        }
        &mut self.slots[place]
    }

    /// Returns whether no slot has use, so that all of it is booked.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(calls: u128) -> BilledUse {
        BilledUse { calls, ..BilledUse::default() }
    }

    #[test]
    fn slots_tile_time() {
        for at_ms in [0, 1, 57_999, 58_000, 59_999, 60_000, 117_999, 118_000, 1_700_000_012_345] {
            let start_ms = slot_start(at_ms);
            assert!(start_ms <= at_ms && at_ms < slot_end(start_ms), "{at_ms}");
            assert_eq!(slot_start(slot_end(start_ms)), slot_end(start_ms));
        }
    }

    #[test]
    fn use_counts_from_a_border_of_slots_on_exactly() {
        let mut spent = Spent::default();
        for (at_ms, used) in [(57_999, 1), (58_000, 10), (60_000, 100), (117_999, 1_000), (118_000, 10_000)] {
            spent.admit(at_ms, calls(used));
        }
        for (from_ms, sum) in [(0, 11_111), (58_000, 11_110), (60_000, 11_100), (118_000, 10_000)] {
            assert_eq!(spent.admitted_from(from_ms), calls(sum), "{from_ms}");
        }
        assert_eq!(spent.admitted_from(120_000), calls(0));
        spent.forget_before(60_000);
        assert_eq!(spent.admitted_from(0), calls(11_100));
    }

    #[test]
    fn slots_are_bounded_and_none_of_their_use_is_lost() {
        let mut spent = Spent::default();
        for minute in 0..1_000 {
            spent.admit(minute * MINUTE_MS, calls(1));
            spent.reserve(minute * MINUTE_MS + 59_000, calls(1));
        }
        assert_eq!(spent.slots(), SLOTS);
        assert_eq!((spent.admitted_from(0), spent.reserved_from(0)), (calls(1_000), calls(1_000)));
        // An old instant is counted with the oldest slot.
        spent.admit(5, calls(3));
        assert_eq!((spent.slots(), spent.admitted_from(0)), (SLOTS, calls(1_003)));
        for minute in 0..1_000 {
            spent.release(minute * MINUTE_MS + 59_000, calls(1));
        }
        assert_eq!(spent.reserved_from(0), calls(0));
        spent.forget_before(u64::MAX);
        assert_eq!(spent.slots(), 0);
    }

    #[test]
    fn a_second_counts_alone() {
        let mut spent = Spent::default();
        spent.count_second(1_200, calls(2));
        spent.count_second(1_999, calls(1));
        assert_eq!((spent.in_second(1_000), spent.in_second(2_000)), (calls(3), calls(0)));
        spent.uncount_second(1_000, calls(1));
        assert_eq!(spent.in_second(1_000), calls(2));
        spent.count_second(2_000, calls(5));
        spent.uncount_second(1_999, calls(2));
        assert_eq!((spent.in_second(1_000), spent.in_second(2_000)), (calls(0), calls(5)));
    }
}
