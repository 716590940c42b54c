//! How unusual a count is where few calls are expected: a gamma-Poisson rate, and a CUSUM for what is small and
//! lasts.
//!
//! **Rate.** A key's calls come at an unknown rate with a gamma prior of shape a0 = 1/2 (Jeffreys) and exposure
//! b0 = 1 hour. After X calls in T hours the posterior mean is (a0 + X)/(b0 + T), and the next count is negative
//! binomial of shape r = a0 + X. The probability of x or more calls where mu are expected is at most e^-D (Chernoff,
//! 1952), with D = x ln(x/mu) - (x + r) ln((x + r)/(mu + r)); as r grows, D tends to that of a Poisson count,
//! x ln(x/mu) - (x - mu). Surprise is D/ln 2 bits.
//!
//! Rates are by slot of the week, each drawn to the key's overall rate as if that had been seen for twelve hours.
//! Old calls count half after 28 days.
//!
//! **CUSUM** (Page, 1954): C = max(0, C + x ln 2 - mu) is the log likelihood ratio of twice the rate against the
//! rate itself since it was last in doubt. It alarms at 20 nats. Keys whose calls vary alarm often, so an alarm says how
//! rare it is: of n hours with calls a had one, and its surprise is log2((n + 1)/(a + 1)).

use serde::{Deserialize, Serialize};

use super::decay::{FOUR_WEEKS, WEEKEND_HOUR, WORKDAY_HOUR};
use super::volume::Slot;
use super::{Bits, HOUR_MS};

/// A slot's own rate counts half after so many hours of it.
const SLOT_HOURS: f64 = 12.0;
/// Nats at which the CUSUM alarms.
const ALARM: f64 = 20.0;
/// A window counts as so many times one call more than was expected, at most: bursts are others' matter.
const CLIP: f64 = 4.0;
/// Nats beyond which it doesn't grow: what lasted long must not take as long to be forgotten.
const MOST: f64 = 40.0;

/// The most hours with calls that are counted, those of four weeks.
const MOST_HOURS: u32 = 672;

/// Counts below which the rate has a say.
pub(super) const FEW: f64 = 20.0;
/// The prior's shape, in calls.
const PRIOR_CALLS: f64 = 0.5;
/// The prior's exposure, in hours.
const PRIOR_HOURS: f64 = 1.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    calls: f64,
    hours: f64,
}

impl Seen {
    fn add(&mut self, calls: f64, hours: f64, kept: f64) {
        self.calls = self.calls * kept + calls;
        self.hours = self.hours * kept + hours;
    }
}

/// A key's rate of calls. 840 bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    slots: [[Seen; 24]; 2],
    all: Seen,
    cusum: f64,
    /// Hours with calls, and those of them with an alarm. Both are halved when there are `MOST_HOURS`.
    hours: u32,
    alarms: u32,
}

impl Rate {
    /// Calls that are expected in `window_ms` of a slot.
    #[must_use]
    pub fn expected(&self, slot: Slot, window_ms: u64) -> f64 {
        let overall = (PRIOR_CALLS + self.all.calls) / (PRIOR_HOURS + self.all.hours);
        let (day, hour) = slot.index();
        let seen = self.slots[day][hour];
        (seen.calls + SLOT_HOURS * overall) / (seen.hours + SLOT_HOURS) * window_ms as f64 / HOUR_MS as f64
    }

    /// Returns the calls that are expected in `window_ms` of a slot, no fewer than were seen there. A young key's busy hours
    /// are drawn to its mean, and would seem to last for days.
    #[must_use]
    pub fn expected_by_slot(&self, slot: Slot, window_ms: u64) -> f64 {
        let (day, hour) = slot.index();
        let seen = self.slots[day][hour];
        let own = if seen.hours > 0.0 { seen.calls / seen.hours } else { 0.0 };
        self.expected(slot, window_ms).max(own * window_ms as f64 / HOUR_MS as f64)
    }

    /// Returns the calls of its owner that can be counted on in an hour of a slot: no more than were seen there.
    #[must_use]
    pub fn usual(&self, slot: Slot) -> f64 {
        let (day, hour) = slot.index();
        let seen = self.slots[day][hour];
        let own = if seen.hours > 0.0 { seen.calls / seen.hours } else { 0.0 };
        self.expected(slot, HOUR_MS).min(own)
    }

    /// How unusual so many calls would be in `window_ms` of a slot.
    #[must_use]
    pub fn bits(&self, slot: Slot, window_ms: u64, calls: f64) -> Bits {
        let expected = self.expected(slot, window_ms);
        Bits::new(chernoff(calls, expected, PRIOR_CALLS + self.all.calls) / std::f64::consts::LN_2)
    }

    /// Learns the calls of `window_ms` of a slot.
    pub fn learn(&mut self, slot: Slot, window_ms: u64, calls: f64) {
        let hours = window_ms as f64 / HOUR_MS as f64;
        self.all.add(calls, hours, FOUR_WEEKS.left(window_ms));
        let (day, hour) = slot.index();
        let of_slot = if day == 0 { &WORKDAY_HOUR } else { &WEEKEND_HOUR };
        self.slots[day][hour].add(calls, hours, of_slot.left(window_ms));
    }

    /// Passes over a time without calls, whatever the slots.
    pub fn doze(&mut self, span_ms: u64) {
        self.all.add(0.0, span_ms as f64 / HOUR_MS as f64, FOUR_WEEKS.left(span_ms));
        self.cusum = 0.0;
    }

    /// Expects so many calls an hour in a slot from now on, if they are more than were expected there. All slots rise with
    /// it, and nothing is in doubt any more.
    pub(super) fn step_to(&mut self, slot: Slot, calls: f64) {
        let factor = calls / self.expected_by_slot(slot, HOUR_MS);
        if factor > 1.0 {
            let slots = self.slots.iter_mut().flatten();
            slots.chain([&mut self.all]).for_each(|seen| seen.calls *= factor);
        }
        self.cusum = 0.0;
    }

    /// Moves the CUSUM by calls where `expected` were expected, of which there count as many as can be small and last.
    pub fn watch(&mut self, expected: f64, calls: f64) {
        let calls = calls.min(CLIP * (expected + 1.0));
        self.cusum = (self.cusum + calls * std::f64::consts::LN_2 - expected).clamp(0.0, MOST);
    }

    /// Returns the surprise of an alarm of the CUSUM; nothing if there is none.
    #[must_use]
    pub fn slow(&self) -> Bits {
        match self.cusum >= ALARM {
            true => Bits::new(libm::log2(f64::from(self.hours + 1) / f64::from(self.alarms + 1))),
            false => Bits::NONE,
        }
    }

    /// Learns whether an hour with calls had an alarm.
    pub fn learn_alarm(&mut self) {
        if self.hours >= MOST_HOURS {
            (self.hours, self.alarms) = (self.hours / 2, self.alarms / 2);
        }
        self.hours += 1;
        self.alarms += u32::from(self.cusum >= ALARM);
    }

    /// Returns the calls of the history, of which old ones count less.
    #[must_use]
    pub fn calls(&self) -> f64 {
        self.all.calls
    }
}

/// D of the module's formula, in nats; 0 where no more happened than was expected.
fn chernoff(calls: f64, expected: f64, shape: f64) -> f64 {
    if calls <= expected || expected <= 0.0 {
        return 0.0;
    }
    (calls * libm::log(calls / expected) - (calls + shape) * libm::log((calls + shape) / (expected + shape)))
        .max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOT_AT_MS: u64 = 1_748_851_200_000;

    fn slot() -> Slot {
        Slot::at(SLOT_AT_MS, 0)
    }

    #[test]
    fn the_bound_is_that_of_a_poisson_count_where_the_rate_is_known() {
        let poisson = |x: f64, mu: f64| x * libm::log(x / mu) - (x - mu);
        for (x, mu) in [(1.0, 0.1), (10.0, 2.0), (1_000.0, 900.0), (1e6, 1.0)] {
            let known = chernoff(x, mu, 1e12);
            assert!((known / poisson(x, mu) - 1.0).abs() < 1e-2, "{x} {mu}: {known}");
            assert!(chernoff(x, mu, 5.0) < known);
        }
    }

    #[test]
    fn edges() {
        for (calls, expected) in [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (5.0, 6.0)] {
            assert_eq!(chernoff(calls, expected, 0.5), 0.0, "{calls} {expected}");
        }
        assert!(chernoff(1.0, 1e-300, 0.5).is_finite());
        assert!(Rate::default().bits(slot(), 60_000, 1e18).0 > 0);
    }

    #[test]
    fn a_rate_is_learned_by_the_slot() {
        let mut rate = Rate::default();
        // Two weeks: 60 calls an hour from 8 to 9, nothing else.
        for minute in 0..14 * 24 * 60 {
            let at = SLOT_AT_MS + minute * 60_000;
            let slot = Slot::at(at, 0);
            let calls = f64::from(u8::from(at / HOUR_MS % 24 == 8));
            rate.learn(slot, 60_000, calls);
        }
        let at = |hour: u64| rate.expected(Slot::at(SLOT_AT_MS + hour * HOUR_MS, 0), HOUR_MS);
        assert!(at(0) > 20.0 && at(0) < 60.0, "{}", at(0));
        assert!(at(6) < 2.0, "{}", at(6));
    }

    #[test]
    fn twice_the_rate_alarms_in_the_end_and_the_rate_itself_never() {
        let run = |calls_per_hour: f64| {
            let mut rate = Rate::default();
            for hour in 0..14 * 24 {
                rate.learn(Slot::at(SLOT_AT_MS + hour * HOUR_MS, 0), HOUR_MS, 4.0);
                rate.learn_alarm();
            }
            let mut most = Bits::NONE;
            for hour in 0..48 {
                let slot = Slot::at(SLOT_AT_MS + (14 * 24 + hour) * HOUR_MS, 0);
                let expected = rate.expected_by_slot(slot, HOUR_MS);
                rate.watch(expected, calls_per_hour);
                most = most.max(rate.slow());
                rate.learn_alarm();
            }
            most
        };
        assert_eq!(run(4.0), Bits::NONE);
        // The first alarm comes after two weeks of hours and a few more.
        assert!(run(8.0) > Bits::new(libm::log2(337.0)), "{:?}", run(8.0));
    }

    #[test]
    fn an_alarm_says_how_seldom_there_was_one() {
        let mut rate = Rate::default();
        (0..31).for_each(|_| rate.learn_alarm());
        assert_eq!(rate.slow(), Bits::NONE);
        (0..9).for_each(|_| rate.watch(1.0, 8.0));
        assert_eq!(rate.slow(), Bits::new(5.0));
        // It goes on: 8 of 39 hours had one.
        (0..8).for_each(|_| rate.learn_alarm());
        assert_eq!(rate.slow(), Bits::new(libm::log2(40.0 / 9.0)));
        for _ in 0..10 * MOST_HOURS {
            rate.learn_alarm();
            assert!(rate.alarms <= rate.hours && rate.hours <= MOST_HOURS);
        }
        assert!(rate.slow() < Bits::new(0.1));
    }

    #[test]
    fn usual_calls_are_no_more_than_the_slot_had() {
        let mut rate = Rate::default();
        let at = |hour: u64| Slot::at(SLOT_AT_MS + hour * HOUR_MS, 0);
        // Two weeks: 60 calls in one hour of the day, none in the others.
        for hour in 0..14 * 24 {
            rate.learn(at(hour), HOUR_MS, if hour % 24 == 0 { 60.0 } else { 0.0 });
        }
        assert!(rate.usual(at(0)) > 20.0 && rate.usual(at(0)) <= 60.0, "{}", rate.usual(at(0)));
        assert_eq!(rate.usual(at(5)), 0.0);
        assert_eq!(Rate::default().usual(at(0)), 0.0);
    }

    proptest! {
        #[test]
        fn more_calls_are_never_less_surprising(
            history in prop::collection::vec(0_u64..1_000, 0..50), calls in 0_u64..100_000, more in 1_u64..100_000,
        ) {
            let mut rate = Rate::default();
            for calls in history {
                rate.learn(slot(), 60_000, calls as f64);
            }
            let bits = |calls: u64| rate.bits(slot(), 60_000, calls as f64);
            prop_assert!(bits(calls) <= bits(calls + more));
        }
    }
}
