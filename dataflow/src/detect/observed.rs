//! Signals as they were observed: what each said most, with the values behind it, and what all add up to.
//!
//! Limits: at most 12 signals that are about a value of their own.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::combine::{Family, Level, SURE, Signal, Tuning, Verdict};
use super::novelty::Values;
use super::window::{Tally, Window};
use super::{Bits, FIVE_MINUTES_MS, HOUR_MS, WINDOW_MS};

/// Signals about a value that are followed.
const FOLLOWED: usize = 12;

/// A value beside a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shown {
    /// Its kind, as the signal that is about such values.
    pub kind: Signal,
    /// The value.
    pub value: u64,
    /// Its calls in the window.
    pub calls: u32,
    /// Whether it wasn't known.
    pub is_new: bool,
}

/// One signal of the last hour, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spoken {
    /// Which.
    pub signal: Signal,
    /// The value that was new; 0 for signals that aren't about one, and for many values together.
    pub value: u64,
    /// Start of the window in which it said most.
    pub window_ms: u64,
    /// When it last spoke.
    pub heard_ms: u64,
    /// When it said most, or a new value was last seen: from then on it counts for an hour.
    pub(super) last_ms: u64,
    /// When it first spoke.
    pub first_ms: u64,
    /// The most it said.
    pub bits: Bits,
    /// What a value's calls would say if they were all there are.
    pub(super) whole: Bits,
    /// How much of a volume's bits go if everybody's calls become e times as many.
    pub slope: Bits,
    /// What was expected, in thousandths of a call.
    pub expected: u64,
    /// What was seen instead.
    pub seen: u64,
    /// What the calls of that window were, most first.
    pub shown: SmallVec<[Shown; 1]>,
}

impl Spoken {
    /// How wide the window is that it speaks of.
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

/// What signals of an hour add up to; a key that isn't known well alerts at most, unless by a hard fact.
#[must_use]
pub fn verdict(
    tuning: &Tuning,
    spoken: impl Iterator<Item = (Signal, Bits)> + Clone,
    is_well_known: bool,
) -> Verdict {
    let hard = spoken.clone().filter(|(signal, _)| signal.family() == Family::Hard);
    let hard = hard.map(|(_, bits)| u64::from(bits.0)).sum::<u64>() >= SURE;
    let mut verdict = Verdict::of(tuning, Signal::ALL.iter().copied().zip(sums(spoken)));
    if !hard && !is_well_known {
        verdict.level = verdict.level.min(Level::Alert);
    }
    verdict
}

pub(super) fn sums(spoken: impl Iterator<Item = (Signal, Bits)>) -> [Bits; Signal::ALL.len()] {
    let mut sums = [Bits::NONE; Signal::ALL.len()];
    for (signal, bits) in spoken {
        let sum = &mut sums[signal as usize];
        *sum = Bits((sum.0 + bits.0).min(Bits::MOST.0));
    }
    sums
}

pub(super) fn values_of(window: &Window, signal: Signal) -> Option<&Tally> {
    match signal {
        Signal::Country => Some(&window.countries),
        Signal::Asn => Some(&window.asns),
        Signal::Network => Some(&window.networks),
        Signal::Agent => Some(&window.agents),
        Signal::Route => Some(&window.routes),
        _ => None,
    }
}

/// A tally's values with most calls.
pub(super) fn top(tally: &Tally, kind: Signal, known: &Values, most: usize) -> SmallVec<[Shown; 1]> {
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

/// Keeps a signal: of several about the same, the one that said most.
pub(super) fn keep(all: &mut Vec<Spoken>, spoken: Spoken) {
    let same = |other: &&mut Spoken| (other.signal, other.value) == (spoken.signal, spoken.value);
    if let Some(before) = all.iter_mut().find(same) {
        before.heard_ms = spoken.heard_ms;
        // What says less than before is heard again once that is an hour ago.
        if spoken.bits >= before.bits {
            *before = Spoken { first_ms: before.first_ms, ..spoken };
        }
        return;
    }
    let followed = all.iter().filter(|spoken| spoken.value != 0).count();
    if spoken.value != 0 && followed >= FOLLOWED {
        // Where calls come from is never crowded out by what they ask for.
        let is_place = |one: &Spoken| matches!(one.signal, Signal::Country | Signal::Asn);
        let least = (0..all.len()).filter(|at| all[*at].value != 0 && !is_place(&all[*at]));
        match least.min_by_key(|at| all[*at].bits).filter(|_| is_place(&spoken)) {
            Some(least) => drop(all.remove(least)),
            None => return,
        }
    }
    all.push(spoken);
}
