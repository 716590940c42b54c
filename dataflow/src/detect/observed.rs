//! Observed signals: the largest surprise of each within an hour, the values behind it, and the verdict of all.
//!
//! Limits: at most 12 signals that are about a value of their own.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::combine::{Family, SURE, Severity, Signal, Tuning, Verdict};
use super::facts::REFUSED;
use super::novelty::KnownValues;
use super::window::ValueCounts;
use super::{Bits, FIVE_MINUTES_MS, HOUR_MS, WINDOW_MS};

/// Signals about a value that are followed.
const FOLLOWED: usize = 12;
/// Calls from a new place that are more than a visit.
const STAYING_CALLS: u32 = 20;

/// A value beside a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shown {
    /// Its kind, as the signal that is about such values.
    pub kind: Signal,
    pub value: u64,
    /// Its calls in the window.
    pub calls: u32,
    /// True if it wasn't known before.
    pub is_new: bool,
}

/// One signal of the last hour, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObservedSignal {
    pub signal: Signal,
    /// The value that was new; 0 for signals that aren't about one, and for many values together.
    pub value: u64,
    /// Start of the window with the most bits.
    pub window_ms: u64,
    /// The last time at which it was observed: the start of a window.
    pub observed_ms: u64,
    /// The time from which it counts for an hour: of the most bits, or of the last call with a new value.
    pub(super) last_ms: u64,
    /// The first time at which it was observed.
    pub first_ms: u64,
    pub bits: Bits,
    /// The part of `bits` that enters the verdict.
    pub counted: Bits,
    /// Calls with the value since it was first observed.
    pub total: u32,
    /// Calls without it in the same time: they say whether the owner's go on.
    pub others: u32,
    /// Calls that the key usually makes in whole hours since then, in thousandths.
    pub(super) usual: u64,
    /// True if its usual calls have stopped since then.
    pub has_moved: bool,
    /// True of an agent or a route if no new country or system called in the window in which it was first observed.
    pub(super) is_apart: bool,
    /// The surprise if all calls had the value.
    pub(super) whole: Bits,
    /// The bits of a volume that go if the calls of all keys become e times as many.
    pub slope: Bits,
    /// The calls that were expected, in thousandths.
    pub expected: u64,
    /// The calls that were seen.
    pub seen: u64,
    /// True if nobody but the usual networks called in that window, or with the value.
    pub is_familiar: bool,
    /// The values of that window's calls, most calls first.
    pub shown: SmallVec<[Shown; 1]>,
}

impl ObservedSignal {
    /// Returns a signal of the window or block that starts at `start_ms`, about no value.
    pub(super) fn new(signal: Signal, start_ms: u64, bits: Bits) -> Self {
        // A block is judged at its end.
        let observed_ms = start_ms + width_ms(signal) - WINDOW_MS;
        Self {
            signal,
            value: 0,
            window_ms: start_ms,
            observed_ms,
            last_ms: observed_ms,
            first_ms: start_ms,
            bits,
            counted: bits,
            total: 0,
            others: 0,
            usual: 0,
            has_moved: false,
            is_apart: false,
            whole: bits,
            slope: Bits::NONE,
            expected: 0,
            seen: 0,
            is_familiar: false,
            shown: SmallVec::new(),
        }
    }

    /// Returns the width of the window that it is about.
    #[must_use]
    pub fn width_ms(&self) -> u64 {
        width_ms(self.signal)
    }
}

pub(super) fn width_ms(signal: Signal) -> u64 {
    match signal {
        Signal::VolumeFiveMinutes | Signal::FanOut => FIVE_MINUTES_MS,
        Signal::VolumeHour | Signal::Slow => HOUR_MS,
        _ => WINDOW_MS,
    }
}

/// Returns the verdict of an hour's signals. Without a hard fact it is an alert at most if the key isn't known well, or
/// if nobody stayed at a new place.
#[must_use]
pub fn verdict(tuning: &Tuning, observed: &[ObservedSignal], is_well_known: bool) -> Verdict {
    // Most windows show nothing that counts.
    let mut verdict = match observed.iter().all(|one| one.counted == Bits::NONE) {
        true => Verdict::of(tuning, []),
        false => Verdict::of(tuning, Signal::ALL.iter().copied().zip(sums(observed))),
    };
    // Nearly all verdicts are below both limits.
    if verdict.severity > Severity::Alert && !(is_well_known && is_occupied(tuning, observed)) {
        let hard = observed.iter().filter(|one| one.signal.family() == Family::Hard);
        if hard.map(|one| u64::from(one.counted.0)).sum::<u64>() < SURE {
            verdict.severity = Severity::Alert;
        }
    }
    if verdict.severity > Severity::Notice && is_refused(observed) {
        verdict.severity = Severity::Notice;
    }
    verdict
}

/// Returns whether the key is revoked, and all of its calls are turned away.
fn is_refused(observed: &[ObservedSignal]) -> bool {
    observed.iter().any(|one| one.signal == Signal::Revoked && one.bits <= REFUSED)
}

/// The surprise of each further key that an address of a new network called with for the first time. A carrier or a cloud
/// gives an address to one customer, then to another; hardly to four within a day.
const SHARED: u32 = 4_000;
/// The most surprise of a network that other keys share.
pub(crate) const SHARED_MOST: u32 = 12_000;

/// Returns the signal that an address of a network which is new to the key called for the first time with `keys` other
/// keys as well.
#[must_use]
pub(crate) fn shared_network(window_ms: u64, network: u64, keys: u32) -> Option<ObservedSignal> {
    let bits = Bits(keys.saturating_sub(1).saturating_mul(SHARED).min(SHARED_MOST));
    let shown = Shown { kind: Signal::Network, value: network, calls: 0, is_new: true };
    (bits > Bits::NONE).then(|| ObservedSignal {
        seen: keys.into(),
        shown: std::iter::once(shown).collect(),
        ..ObservedSignal::new(Signal::SharedNetwork, window_ms, bits)
    })
}

/// Returns whether signals of such a severity make an incident: an alert does, and a revoked key that is turned away.
#[must_use]
pub fn is_incident(severity: Severity, observed: &[ObservedSignal]) -> bool {
    severity >= Severity::Alert || severity == Severity::Notice && is_refused(observed)
}

/// Returns whether a key may be taken by those new countries, systems and agents alone that stay: with 20 calls at least,
/// in two windows at least. A visit is no reason to take a key from anybody. Nor is a client that came without a new
/// place: it is the owner's, and a place that comes later is another matter.
fn is_occupied(tuning: &Tuning, observed: &[ObservedSignal]) -> bool {
    let stays = |one: &&ObservedSignal| match one.signal {
        Signal::Country | Signal::Asn | Signal::Agent => {
            one.total >= STAYING_CALLS && one.observed_ms > one.first_ms && !one.is_apart
        }
        _ => !one.is_apart,
    };
    let staying = sums(observed.iter().filter(stays));
    Verdict::of(tuning, Signal::ALL.iter().copied().zip(staying)).severity > Severity::Alert
}

/// Returns the counted bits of each signal. Values of one kind share their windows, so their bits add up.
pub(super) fn sums<'a>(observed: impl IntoIterator<Item = &'a ObservedSignal>) -> [Bits; Signal::ALL.len()] {
    let mut sums = [Bits::NONE; Signal::ALL.len()];
    for one in observed {
        let sum = &mut sums[one.signal as usize];
        *sum = Bits((sum.0 + one.counted.0).min(Bits::MOST.0));
    }
    sums
}

/// Decides how much of the signals of an hour enters the verdict:
/// 1. a value that was first observed before `learned_ms`, on the key's first day, counts nothing;
/// 2. where the key's systems are known and none of them is new, a new country counts half: networks are assigned to
///    countries with errors, and a system has customers in several;
/// 3. there, new networks and how many of them there are count nothing: addresses of a known system are no news;
/// 4. volume, agents, routes and their mix count half where nobody but networks called that the key has known for a day:
///    a stranger calls from elsewhere;
/// 5. a new country, system or network counts half if the usual calls stopped when it came, and volume with a country or
///    system: an owner who moves takes the calls along, and a thief adds to them;
/// 6. beside a new country or system, an agent or a route that came without one counts a quarter: a stranger brings the
///    client along, and two oddities apart are each as common as before;
/// 7. of several new countries, systems or agents all but the most surprising count a quarter: a traveller shows several
///    at once.
pub(super) fn count(observed: &mut [ObservedSignal], learned_ms: u64, knows_systems: bool) {
    let (mut has_new_system, mut counts) = (false, false);
    for one in observed.iter_mut() {
        let is_early = is_value(one.signal) && one.first_ms < learned_ms;
        one.counted = if is_early { Bits::NONE } else { one.bits };
        counts |= one.counted > Bits::NONE;
        has_new_system |= one.signal == Signal::Asn && one.counted > Bits::NONE;
    }
    // On a key's first day nearly nothing does, and no rule makes more of it.
    if !counts {
        return;
    }
    let is_at_home = knows_systems && !has_new_system;
    let is_place = |one: &ObservedSignal| matches!(one.signal, Signal::Country | Signal::Asn);
    let has_place = observed.iter().any(|one| is_place(one) && one.counted > Bits::NONE);
    let has_moved = observed.iter().any(|one| one.has_moved && is_place(one) && one.counted > Bits::NONE);
    // Of the kinds with several values that count: how many do, and the most surprising one.
    let mut several = [(Signal::Country, 0, None), (Signal::Asn, 0, None), (Signal::Agent, 0, None)];
    for one in observed.iter_mut().filter(|one| one.counted > Bits::NONE) {
        one.counted = match one.signal {
            Signal::Country if is_at_home => Bits(one.counted.0 / 2),
            Signal::Network | Signal::FanOut if is_at_home => Bits::NONE,
            signal if matches!(signal.family(), Family::Volume | Family::Behaviour) => {
                counted_burst(one.counted, one.is_familiar)
            }
            _ => one.counted,
        };
        if one.has_moved || has_moved && one.signal.family() == Family::Volume {
            one.counted = Bits(one.counted.0 / 2);
        }
        if one.is_apart && has_place {
            one.counted = Bits(one.counted.0 / 4);
        }
        if let Some((_, values, most)) = several.iter_mut().find(|kind| kind.0 == one.signal) {
            *values += 1;
            *most = (*most).max(Some((one.counted, Reverse(one.value))));
        }
    }
    for (signal, _, most) in several.into_iter().filter(|(_, values, _)| *values > 1) {
        let is_less = |one: &&mut ObservedSignal| {
            one.signal == signal && Some(Reverse(one.value)) != most.map(|most| most.1)
        };
        observed.iter_mut().filter(is_less).for_each(|one| one.counted = Bits(one.counted.0 / 4));
    }
}

/// Returns what counts of a burst or a habit: half if nobody but usual networks called.
pub(super) fn counted_burst(bits: Bits, is_familiar: bool) -> Bits {
    if is_familiar { Bits(bits.0 / 2) } else { bits }
}

/// Returns whether a signal is about values that were never seen.
fn is_value(signal: Signal) -> bool {
    matches!(signal, Signal::Country | Signal::Asn | Signal::Network | Signal::Agent | Signal::Route)
}

/// Returns the values with most calls, most first.
pub(super) fn top(
    tally: &ValueCounts,
    kind: Signal,
    known: &KnownValues,
    most: usize,
) -> SmallVec<[Shown; 1]> {
    let shown = |(value, calls): &(u64, u32)| Shown {
        kind,
        value: *value,
        calls: *calls,
        is_new: !known.knows(*value),
    };
    let mut all: SmallVec<[Shown; 8]> = tally.values().iter().map(shown).collect();
    all.sort_by_key(|shown| (std::cmp::Reverse(shown.calls), shown.value));
    all.truncate(most);
    all.into_iter().collect()
}

/// Keeps a signal. Of several about the same value, the one of which most counts stays.
pub(super) fn keep(all: &mut Vec<ObservedSignal>, observed: ObservedSignal) {
    let same = |other: &&mut ObservedSignal| (other.signal, other.value) == (observed.signal, observed.value);
    if let Some(before) = all.iter_mut().find(same) {
        before.observed_ms = observed.observed_ms;
        let total = before.total.saturating_add(observed.total);
        let others = before.others.saturating_add(observed.others);
        // Fewer bits than before count again once those are an hour old.
        let weight = |one: &ObservedSignal| counted_burst(one.bits, one.is_familiar);
        if weight(&observed) >= weight(before) {
            let &mut ObservedSignal { first_ms, usual, has_moved, is_apart, .. } = before;
            *before = ObservedSignal { first_ms, usual, has_moved, is_apart, ..observed };
        }
        (before.total, before.others) = (total, others);
        return;
    }
    let followed = all.iter().filter(|observed| observed.value != 0).count();
    if observed.value != 0 && followed >= FOLLOWED {
        // Where calls come from is never crowded out by what they ask for.
        let is_place = |one: &ObservedSignal| matches!(one.signal, Signal::Country | Signal::Asn);
        let least = (0..all.len()).filter(|at| all[*at].value != 0 && !is_place(&all[*at]));
        match least.min_by_key(|at| all[*at].bits).filter(|_| is_place(&observed)) {
            Some(least) => drop(all.remove(least)),
            None => return,
        }
    }
    all.push(observed);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts rule by rule, over all signals each time.
    fn count_naively(observed: &mut [ObservedSignal], learned_ms: u64, knows_systems: bool) {
        for one in observed.iter_mut() {
            one.counted = one.bits;
            if is_value(one.signal) && one.first_ms < learned_ms {
                one.counted = Bits::NONE;
            }
        }
        let is_new_system = |one: &ObservedSignal| one.signal == Signal::Asn && one.counted > Bits::NONE;
        let is_at_home = knows_systems && !observed.iter().any(is_new_system);
        let counts = |one: &ObservedSignal| one.has_moved && one.counted > Bits::NONE;
        let has_moved =
            observed.iter().any(|one| counts(one) && [Signal::Country, Signal::Asn].contains(&one.signal));
        let is_place = |one: &ObservedSignal| [Signal::Country, Signal::Asn].contains(&one.signal);
        let has_place = observed.iter().any(|one| is_place(one) && one.counted > Bits::NONE);
        for one in observed.iter_mut() {
            let (behaviour, volume) = (Family::Behaviour, Family::Volume);
            let halves = one.signal == Signal::Country && is_at_home
                || [behaviour, volume].contains(&one.signal.family()) && one.is_familiar;
            let moves = one.has_moved || has_moved && one.signal.family() == volume;
            one.counted = Bits(one.counted.0 / if halves { 2 } else { 1 });
            one.counted = Bits(one.counted.0 / if moves { 2 } else { 1 });
            one.counted = Bits(one.counted.0 / if one.is_apart && has_place { 4 } else { 1 });
            if [Signal::Network, Signal::FanOut].contains(&one.signal) && is_at_home {
                one.counted = Bits::NONE;
            }
        }
        for kind in [Signal::Country, Signal::Asn, Signal::Agent] {
            let of_kind = observed.iter_mut().filter(|one| one.signal == kind);
            let mut of_kind: Vec<&mut ObservedSignal> = of_kind.collect();
            of_kind.sort_by_key(|one| (Reverse(one.counted), one.value));
            of_kind.iter_mut().skip(1).for_each(|one| one.counted = Bits(one.counted.0 / 4));
        }
    }

    fn verdict_naively(observed: &[ObservedSignal], is_well_known: bool) -> Verdict {
        let mut verdict = Verdict::of(&Tuning::default(), Signal::ALL.iter().copied().zip(sums(observed)));
        let hard = observed.iter().filter(|one| one.signal.family() == Family::Hard);
        let hard: u64 = hard.map(|one| u64::from(one.counted.0)).sum();
        // Only what stays may act.
        let mut staying = observed.to_vec();
        staying.retain(|one| {
            ![Signal::Country, Signal::Asn, Signal::Agent].contains(&one.signal)
                || one.total >= 20 && one.observed_ms > one.first_ms
        });
        // The owner's new client takes no key.
        staying.retain(|one| !one.is_apart);
        let staying = Verdict::of(&Tuning::default(), Signal::ALL.iter().copied().zip(sums(&staying)));
        let is_limited = hard < SURE && !(is_well_known && staying.severity == Severity::Revoke);
        let most = if is_limited { Severity::Alert } else { Severity::Revoke };
        verdict.severity = verdict.severity.min(most);
        if is_refused(observed) {
            Verdict { severity: verdict.severity.min(Severity::Notice), ..verdict }
        } else {
            verdict
        }
    }

    fn signals() -> impl Strategy<Value = Vec<ObservedSignal>> {
        let bits = prop_oneof![Just(0_u32), 1_u32..4, 1_u32..40_000];
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        let one = (0..Signal::ALL.len(), 0_u64..4, bits, 0_u64..3, flags, 0_u32..40);
        prop::collection::vec(one, 0..14).prop_map(|all| {
            let mut signals: Vec<ObservedSignal> = Vec::new();
            for (signal, value, bits, minute, (is_familiar, has_moved, is_apart), total) in all {
                let signal = Signal::ALL[signal];
                let value = if is_value(signal) { value } else { 0 };
                if signals.iter().any(|one| (one.signal, one.value) == (signal, value)) {
                    continue;
                }
                let new = ObservedSignal::new(signal, 0, Bits(bits));
                let (first_ms, observed_ms) = (minute * WINDOW_MS, 2 * WINDOW_MS);
                let has_moved = has_moved && is_value(signal);
                let is_apart = is_apart && [Signal::Agent, Signal::Route].contains(&signal);
                signals.push(ObservedSignal {
                    value,
                    first_ms,
                    observed_ms,
                    is_familiar,
                    has_moved,
                    is_apart,
                    total,
                    ..new
                });
            }
            signals
        })
    }

    proptest! {
        #[test]
        fn what_counts_is_what_the_rules_say_one_by_one(
            signals in signals(), learned in 0_u64..3, knows_systems in any::<bool>(), is_well_known in any::<bool>(),
        ) {
            let (mut counted, mut naive) = (signals.clone(), signals);
            count(&mut counted, learned * WINDOW_MS, knows_systems);
            count_naively(&mut naive, learned * WINDOW_MS, knows_systems);
            prop_assert_eq!(&counted, &naive);
            let verdict = verdict(&Tuning::default(), &counted, is_well_known);
            prop_assert_eq!(verdict, verdict_naively(&counted, is_well_known));
        }
    }
}
