//! Values that a key was never seen with: countries, networks, user agents, routes.
//!
//! After n calls with K distinct values, the next call has a new value with probability
//! (theta + sigma K)/(n + theta): the Pitman-Yor process (Pitman and Yor, 1997) with concentration theta = 1 and
//! discount sigma = 1/2. A key that keeps showing new values expects them, and silences itself.
//!
//! K stops at the values that are remembered while n grows, and most old calls may be of other habits. So the estimate
//! is never below the *discovery rate*, found/(recent + 1): of the calls of lately how many had a value that wasn't
//! remembered. Both counts halve every two days. A new value's surprise is -log2 of the larger of the two, once; less
//! where fewer than a quarter of the window's calls have it (see `profile`).
//!
//! **Probation.** A thief tries a key once, pauses, and comes back: his place would be known by then. So a value may be on
//! probation: it keeps the surprise that it had at first until it was seen on three days (UTC), or made a tenth of a
//! day's calls, and 100 at least.
//!
//! **Staying.** A visitor leaves, and an owner who moves takes the calls along. A thief who drains a key slowly stays beside
//! its owner. So a place on probation that called in 12 hours (UTC) says three bits more. Known places must have called, too,
//! six hours after its first call or later.
//!
//! Limits: 64 values are remembered; of more, those not seen for longest are forgotten first. Values are forgotten
//! after 30 days, and calls count half after 30 days. 24 bytes a value.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::decay::{MONTH, TWO_DAYS};
use super::{Bits, DAY_MS, MINUTE_MS};

const CONCENTRATION: f64 = 1.0;
const DISCOUNT: f64 = 0.5;
/// The most values that are remembered.
pub(super) const MOST: usize = 64;
const REMEMBERED_MS: u64 = 30 * DAY_MS;
/// The half-life of the discovery rate.
const DISCOVERED_MS: u64 = 2 * DAY_MS;
const DAY_MINUTES: u32 = (DAY_MS / MINUTE_MS) as u32;
const HOUR_MINUTES: u32 = 60;

/// The number of days on which a value that belongs to a key is seen.
const DAYS: u8 = 3;
/// The calls of a value that belongs to a key, as a share of those of a day.
const SHARE: f64 = 0.1;
/// The least of them: a rarely called key has too few to learn from.
const LEAST_CALLS: f64 = 100.0;

/// The hours in which a value stays: more than a visit or a day's work.
const STAYING_HOURS: u8 = 12;
/// How much later than the value's first call known values must call: its key's owner goes on.
const GOES_ON_MINUTES: u32 = 6 * HOUR_MINUTES;
/// The surprise of staying, in thousandths of a bit.
const STAYING: u32 = 3_000;

/// A value that is remembered. Minutes are counted since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    value: u64,
    /// The minute in which it was last seen.
    minute: u32,
    /// The minute in which it was first seen.
    since: u32,
    /// Its calls, halved at the end of every 30 days.
    calls: u32,
    /// The surprise that it had when it was new, in thousandths of a bit.
    bits: u16,
    /// The number of days on which it was seen while it is on probation; 0 once it is known.
    days: u8,
    /// The number of hours in which it was seen while it is on probation.
    hours: u8,
}

/// The values that a key was seen with lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownValues {
    /// In the order of values.
    seen: SmallVec<[Known; 1]>,
    calls: f64,
    /// Recent calls, of which half count after two days.
    recent: f64,
    /// Recent values that weren't remembered when they came.
    found: f64,
    /// All calls with a value, halved as those of a value are.
    counted: u64,
    updated_ms: u64,
}

/// The terms on which new values are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Known,
    OnProbation,
    /// The tables allow calls from there.
    Allowed,
}

/// What the time since values were learned leaves of their counts. All kinds of a key are learned at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elapsed {
    before_ms: u64,
    now_ms: u64,
    /// What is left of a month's calls.
    of_calls: f64,
    /// What is left of the discovery rate.
    of_rate: f64,
    /// Ends of 30 days that lie between.
    halvings: u32,
}

impl Elapsed {
    fn between(before_ms: u64, now_ms: u64) -> Self {
        let elapsed_ms = now_ms - before_ms.min(now_ms);
        let halvings = now_ms / REMEMBERED_MS - before_ms.min(now_ms) / REMEMBERED_MS;
        Self {
            before_ms,
            now_ms,
            of_calls: MONTH.left(elapsed_ms),
            of_rate: TWO_DAYS.left(elapsed_ms),
            halvings: u32::try_from(halvings).unwrap_or(u32::MAX),
        }
    }
}

/// A value that was new in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Novel {
    pub value: u64,
    /// Its calls in the window.
    pub calls: u32,
    /// Its surprise, before its share of the window is counted.
    pub bits: Bits,
}

impl KnownValues {
    /// Returns the calls of the last month, of which half count after 30 days.
    #[must_use]
    pub fn calls(&self) -> f64 {
        self.calls
    }

    fn find(&self, value: u64) -> Option<&Known> {
        let at = self.seen.binary_search_by_key(&value, |known| known.value).ok()?;
        Some(&self.seen[at])
    }

    /// Returns whether a value is remembered, and not on probation.
    #[must_use]
    pub fn knows(&self, value: u64) -> bool {
        self.find(value).is_some_and(|known| known.days == 0)
    }

    /// Returns the surprise of a value on probation that stays; `None` of all others. It was seen in 12 hours, and a known
    /// value six hours after its first call or later.
    pub(super) fn staying(&self, value: u64) -> Option<Bits> {
        let one = self.find(value).filter(|known| known.days > 0 && known.hours >= STAYING_HOURS)?;
        let mut at_home = self.seen.iter().filter(|known| known.days == 0);
        let goes_on = at_home.any(|known| known.minute >= one.since.saturating_add(GOES_ON_MINUTES));
        goes_on.then_some(Bits(u32::from(one.bits) + STAYING))
    }

    /// Returns whether a value has been remembered for a day at least.
    pub(super) fn is_familiar(&self, value: u64, now_ms: u64) -> bool {
        self.find(value).is_some_and(|known| known.since + minute_of(DAY_MS) <= minute_of(now_ms))
    }

    /// Returns the values with most calls that are known and not `is_new`, most first, each with its share of the calls
    /// with such values in thousandths.
    pub(super) fn usual(
        &self,
        most: usize,
        is_new: impl Fn(u64) -> bool,
    ) -> impl Iterator<Item = (u64, u64)> {
        let (mut seen, new): (SmallVec<[Known; 8]>, SmallVec<[Known; 8]>) =
            self.seen.iter().copied().partition(|known| known.days == 0 && !is_new(known.value));
        seen.sort_by_key(|known| (std::cmp::Reverse(known.calls), known.value));
        let new: u64 = new.iter().map(|known| u64::from(known.calls)).sum();
        let counted = self.counted.saturating_sub(new).max(1);
        seen.into_iter().take(most).map(move |known| (known.value, u64::from(known.calls) * 1_000 / counted))
    }

    /// Returns the values of a window that weren't seen since `since_ms`.
    pub(super) fn not_seen_since<'a>(
        &'a self,
        window: &'a [(u64, u32)],
        since_ms: u64,
    ) -> impl Iterator<Item = u64> + 'a {
        let since = minute_of(since_ms);
        let is_old = move |value: &u64| self.find(*value).is_none_or(|known| known.minute < since);
        window.iter().map(|(value, _)| *value).filter(is_old)
    }

    /// Returns the number of values that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns whether no value is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Returns the bytes that it takes beyond its own size.
    pub(super) fn owned_bytes(&self) -> usize {
        crate::state::spilled(&self.seen)
    }

    /// Returns the surprise of any new value.
    #[must_use]
    pub fn bits(&self) -> Bits {
        surprise(self.seen.len(), self.calls, self.found / (self.recent + 1.0))
    }

    /// Returns the values of a window that are new or on probation, in their order; nothing learns from it.
    pub fn novel<'a>(&'a self, window: &'a [(u64, u32)]) -> impl Iterator<Item = Novel> + 'a {
        // Most windows have no new value, so its logarithm waits for the first.
        let mut of_new = None;
        window.iter().filter_map(move |(value, calls)| {
            let bits = match self.find(*value) {
                Some(known) if known.days == 0 => return None,
                Some(known) => Bits(known.bits.into()),
                None => *of_new.get_or_insert_with(|| self.bits()),
            };
            Some(Novel { value: *value, calls: *calls, bits })
        })
    }

    /// Learns a window's values, each with its calls.
    pub fn learn(&mut self, window: &[(u64, u32)], now_ms: u64) {
        self.learn_as(window, now_ms, Learned::Known);
    }

    /// Learns a window's values, each with its calls.
    pub(super) fn learn_as(&mut self, window: &[(u64, u32)], now_ms: u64, learned: Learned) {
        self.learn_after(window, &mut None, now_ms, learned);
    }

    /// Learns a window's values, each with its calls. `elapsed` is that of other kinds of the key, if it is known.
    pub(super) fn learn_after(
        &mut self,
        window: &[(u64, u32)],
        elapsed: &mut Option<Elapsed>,
        now_ms: u64,
        learned: Learned,
    ) {
        // New values have the surprise of the window's begin. Few windows have one, so its logarithm waits.
        let (values, calls_before, discovered) =
            (self.seen.len(), self.calls, self.found / (self.recent + 1.0));
        let mut bits = None;
        let before_ms = std::mem::replace(&mut self.updated_ms, now_ms);
        let known = elapsed.filter(|known| (known.before_ms, known.now_ms) == (before_ms, now_ms));
        let elapsed = elapsed.insert(known.unwrap_or_else(|| Elapsed::between(before_ms, now_ms)));
        self.calls *= elapsed.of_calls;
        self.recent *= elapsed.of_rate;
        self.found *= elapsed.of_rate;
        if elapsed.halvings > 0 {
            self.halve(elapsed.halvings);
        }
        let minute = minute_of(now_ms);
        let oldest = minute.saturating_sub(minute_of(REMEMBERED_MS));
        if self.seen.iter().any(|known| known.minute < oldest) {
            self.seen.retain(|known| known.minute >= oldest);
        }
        for (value, calls) in window {
            self.calls += f64::from(*calls);
            self.recent += f64::from(*calls);
            self.counted += u64::from(*calls);
            match self.seen.binary_search_by_key(value, |known| known.value) {
                Ok(index) => {
                    let recent = self.recent;
                    let known = &mut self.seen[index];
                    let last = std::mem::replace(&mut known.minute, minute);
                    known.calls = known.calls.saturating_add(*calls);
                    if known.days > 0 {
                        let is_another_hour = last / HOUR_MINUTES != minute / HOUR_MINUTES;
                        known.hours = known.hours.saturating_add(u8::from(is_another_hour));
                        known.days += u8::from(last / DAY_MINUTES != minute / DAY_MINUTES);
                        let enough = (SHARE * calls_a_day(recent)).max(LEAST_CALLS);
                        if known.days >= DAYS || f64::from(known.calls) >= enough {
                            known.days = 0;
                        }
                    }
                }
                Err(index) => {
                    // What tables allow says nothing of how often new values come by themselves.
                    self.found += if learned == Learned::Allowed { 0.0 } else { 1.0 };
                    let days = u8::from(learned == Learned::OnProbation);
                    let bits = *bits.get_or_insert_with(|| {
                        u16::try_from(surprise(values, calls_before, discovered).0).unwrap_or(u16::MAX)
                    });
                    let (since, calls, hours) = (minute, *calls, days);
                    let known = Known { value: *value, minute, since, calls, bits, days, hours };
                    self.seen.insert(index, known);
                    if self.seen.len() > MOST {
                        // Of several that are as old the least value goes: any fixed choice would do.
                        let oldest = (0..self.seen.len())
                            .min_by_key(|index| (self.seen[*index].minute, self.seen[*index].value));
                        self.seen.remove(oldest.unwrap_or(0));
                    }
                }
            }
        }
    }

    /// Knows all values that it remembers, and has known them for a day.
    pub(super) fn accept(&mut self) {
        for known in &mut self.seen {
            known.days = 0;
            known.since = known.since.saturating_sub(DAY_MINUTES);
        }
    }

    fn halve(&mut self, times: u32) {
        self.counted = self.counted.checked_shr(times).unwrap_or(0);
        self.seen.iter_mut().for_each(|known| known.calls = known.calls.checked_shr(times).unwrap_or(0));
    }
}

/// Returns the calls of a day by the recent calls. A rate r with a half-life of h days adds up to r h/ln 2 calls.
fn calls_a_day(recent: f64) -> f64 {
    recent * DAY_MS as f64 / DISCOVERED_MS as f64 * std::f64::consts::LN_2
}

/// Returns the surprise of a new value after `calls` with so many values, `discovered` being the discovery rate.
fn surprise(values: usize, calls: f64, discovered: f64) -> Bits {
    let new = (CONCENTRATION + DISCOUNT * values as f64) / (calls + CONCENTRATION);
    Bits::new(-libm::log2(new.max(discovered)))
}

/// Returns the minute of a time. Minutes of 32 bits last for 8,000 years.
fn minute_of(time_ms: u64) -> u32 {
    u32::try_from(time_ms / MINUTE_MS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Learns step by step: the surprise first, then each value by looking at all that are remembered.
    fn learn_naively(values: &mut KnownValues, window: &[(u64, u32)], now_ms: u64, learned: Learned) {
        let bits = values.bits().0.min(u16::MAX.into()) as u16;
        let before_ms = std::mem::replace(&mut values.updated_ms, now_ms);
        values.calls *= libm::exp2(-((now_ms - before_ms) as f64) / REMEMBERED_MS as f64);
        let lately = libm::exp2(-((now_ms - before_ms) as f64) / DISCOVERED_MS as f64);
        (values.recent, values.found) = (values.recent * lately, values.found * lately);
        for _ in before_ms / REMEMBERED_MS..now_ms / REMEMBERED_MS {
            values.halve(1);
        }
        let minute = minute_of(now_ms);
        values.seen.retain(|known| known.minute + minute_of(REMEMBERED_MS) >= minute);
        for (value, calls) in window {
            values.calls += f64::from(*calls);
            values.recent += f64::from(*calls);
            values.counted += u64::from(*calls);
            if let Some(known) = values.seen.iter_mut().find(|known| known.value == *value) {
                let is_another_day = known.minute / DAY_MINUTES != minute / DAY_MINUTES;
                let is_another_hour = known.minute / HOUR_MINUTES != minute / HOUR_MINUTES;
                (known.minute, known.calls) = (minute, known.calls + calls);
                let enough = (SHARE * calls_a_day(values.recent)).max(LEAST_CALLS);
                if known.days > 0 {
                    known.hours = known.hours.saturating_add(u8::from(is_another_hour));
                    known.days += u8::from(is_another_day);
                    let is_known = known.days >= DAYS || f64::from(known.calls) >= enough;
                    known.days = if is_known { 0 } else { known.days };
                }
                continue;
            }
            values.found += if learned == Learned::Allowed { 0.0 } else { 1.0 };
            let days = u8::from(learned == Learned::OnProbation);
            let (since, calls, hours) = (minute, *calls, days);
            values.seen.push(Known { value: *value, minute, since, calls, bits, days, hours });
            values.seen.sort_by_key(|known| known.value);
            if values.seen.len() > MOST {
                let oldest = values.seen.iter().map(|known| (known.minute, known.value)).min();
                values.seen.retain(|known| Some((known.minute, known.value)) != oldest);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_learned_is_what_a_naive_fold_learns(
            windows in prop::collection::vec(
                (
                    prop_oneof![0_u64..3, 0_u64..300, 0_u64..50_000],
                    prop::collection::btree_map(0_u64..90, 1_u32..60, 0..40),
                    prop::sample::select(vec![Learned::Known, Learned::OnProbation, Learned::Allowed]),
                ),
                1..40,
            ),
        ) {
            let (mut values, mut naive) = (KnownValues::default(), KnownValues::default());
            let mut now_ms = 20_000 * DAY_MS;
            for (minutes, window, learned) in windows {
                now_ms += minutes * MINUTE_MS;
                let window: Vec<(u64, u32)> = window.into_iter().collect();
                let bits = values.bits();
                let of = |novel: &Novel| values.find(novel.value).map_or(bits, |known| Bits(known.bits.into()));
                let is_right = values.novel(&window).all(|novel| novel.bits == of(&novel));
                prop_assert!(is_right);
                values.learn_as(&window, now_ms, learned);
                learn_naively(&mut naive, &window, now_ms, learned);
                prop_assert_eq!(&values, &naive);
            }
        }
    }

    #[test]
    fn the_more_is_known_the_more_a_new_value_says() {
        let mut values = KnownValues::default();
        assert_eq!(values.bits(), Bits::NONE);
        values.learn(&[(7, 1_000)], 0);
        // (1 + 0.5)/(1000 + 1)
        assert!((values.bits().get() - 9.382).abs() < 0.001, "{:?}", values.bits());
        assert_eq!(values.novel(&[(7, 5)]).count(), 0);
        let novel: Vec<_> = values.novel(&[(6, 2), (7, 5), (8, 1)]).collect();
        assert_eq!(
            novel.iter().map(|novel| (novel.value, novel.calls)).collect::<Vec<_>>(),
            [(6, 2), (8, 1)]
        );
    }

    #[test]
    fn who_always_shows_new_values_says_nothing_by_them() {
        let mut values = KnownValues::default();
        for value in 0..60 {
            values.learn(&[(value, 1)], value);
        }
        assert!(values.bits() < Bits::new(1.0), "{:?}", values.bits());
    }

    #[test]
    fn what_was_not_seen_for_longest_is_forgotten() {
        let mut values = KnownValues::default();
        for value in 0..64 {
            values.learn(&[(value, 1)], value * MINUTE_MS);
        }
        values.learn(&[(0, 1)], 64 * MINUTE_MS);
        values.learn(&[(64, 1)], 65 * MINUTE_MS);
        assert_eq!(values.len(), MOST);
        assert!(values.knows(0) && !values.knows(1) && values.knows(64));
        values.learn(&[(65, 1)], 66 * MINUTE_MS + REMEMBERED_MS);
        assert_eq!(values.len(), 1);
        assert!(values.calls() < 40.0);
    }

    #[test]
    fn a_value_on_probation_is_new_for_three_days_or_a_tenth_of_a_days_calls() {
        let hour_ms = 60 * MINUTE_MS;
        let mut values = KnownValues::default();
        for hour in 0..20 * 24 {
            values.learn(&[(7, 40)], hour * hour_ms);
        }
        let begun_ms = 20 * DAY_MS;
        let calls_a_day = calls_a_day(values.recent);
        assert!((calls_a_day - 960.0).abs() < 48.0, "{calls_a_day}");
        let first = values.bits();
        let is_new = |values: &KnownValues| {
            let novel: Vec<Novel> = values.novel(&[(7, 1), (9, 1)]).collect();
            assert!(novel.iter().all(|novel| novel.value == 9 && novel.bits == first), "{novel:?}");
            !values.knows(9) && novel.len() == 1
        };
        let mut by_calls = values.clone();
        by_calls.learn_as(&[(9, 1)], begun_ms, Learned::OnProbation);
        assert!(is_new(&by_calls));
        by_calls.learn_as(&[(9, 90)], begun_ms + hour_ms, Learned::OnProbation);
        assert!(is_new(&by_calls));
        by_calls.learn_as(&[(9, 9)], begun_ms + 2 * hour_ms, Learned::OnProbation);
        assert!(by_calls.knows(9));
        for (day, is_known) in [(0, false), (0, false), (1, false), (1, false), (2, true)] {
            values.learn_as(&[(9, 1)], begun_ms + day * DAY_MS, Learned::OnProbation);
            assert_eq!(!is_new(&values), is_known, "{day}");
        }
        // Known from its first call on where nobody asks for a probation.
        values.learn(&[(11, 1)], begun_ms + 3 * DAY_MS);
        assert!(values.knows(11) && !values.is_familiar(11, begun_ms + 3 * DAY_MS));
        assert!(values.is_familiar(11, begun_ms + 4 * DAY_MS));
    }

    #[test]
    fn usual_values_have_shares_of_about_a_month() {
        let mut values = KnownValues::default();
        values.learn(&[(1, 60), (2, 30), (3, 10)], 0);
        values.learn_as(&[(4, 900)], MINUTE_MS, Learned::OnProbation);
        assert_eq!(values.usual(2, |_| false).collect::<Vec<_>>(), [(1, 600), (2, 300)]);
        assert_eq!(values.usual(2, |value| value == 1).collect::<Vec<_>>(), [(2, 750), (3, 250)]);
        values.learn(&[(2, 500)], REMEMBERED_MS);
        assert_eq!(values.usual(2, |_| false).collect::<Vec<_>>(), [(2, 936), (1, 54)]);
    }
}
