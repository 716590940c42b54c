//! What people decided about keys, as far as it keeps incidents from being opened: dismissals and mutes.
//!
//! A dismissal covers the signals of its incident. A new value is covered for 30 days, as long as the key's profile
//! remembers it. A signal about no value is covered for a day, up to four times the ratio that it had. A mute covers
//! everything that is observed before its end. A report that the key leaked ends both: nobody knew of it.
//!
//! Limits: 65,536 dismissals and as many mutes, of which the oldest are forgotten first; 64 values a dismissal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::Observation;
use crate::detect::{ObservedSignal, Signal};
use crate::model::time::DAY_MS;
use crate::model::{EventTime, KeyId};
use crate::state::Footprint;

/// How long the values of a dismissed incident are covered.
const VALUES_MS: u64 = 30 * DAY_MS;
/// How long its signals about no value are covered, and how long a mute is remembered after its end: new values count
/// for a day at most.
const SIGNALS_MS: u64 = DAY_MS;
/// How many times the dismissed ratio is another story.
const GROWN: u64 = 4;
/// The most keys with a dismissal, and the most with a mute.
const MOST_KEYS: usize = 1 << 16;
/// The most values of a dismissal.
pub(crate) const MOST_VALUES: usize = 64;

/// The signals of dismissed incidents of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dismissal {
    /// The event time of the last dismissal.
    pub(crate) at_ms: EventTime,
    /// Signals about no value, each with its ratio of seen to expected calls in thousandths; 0 if it has none.
    pub(crate) signals: Vec<(Signal, u64)>,
    /// Signals with their new values.
    pub(crate) values: Vec<(Signal, u64)>,
}

impl Dismissal {
    /// Returns whether a signal was dismissed.
    fn covers(&self, one: &ObservedSignal) -> bool {
        if one.value != 0 && self.values.contains(&(one.signal, one.value)) {
            return true;
        }
        if one.observed_ms >= self.at_ms + SIGNALS_MS {
            return false;
        }
        one.first_ms < self.at_ms
            || self.signals.iter().any(|(signal, ratio)| {
                *signal == one.signal && one.value == 0 && ratio_of(one.seen, one.expected) <= ratio * GROWN
            })
    }

    /// Adds another dismissal, which is later.
    fn extend(&mut self, later: Self) {
        self.at_ms = later.at_ms;
        for (signal, ratio) in later.signals {
            match self.signals.iter_mut().find(|known| known.0 == signal) {
                Some(known) => known.1 = known.1.max(ratio),
                None => self.signals.push((signal, ratio)),
            }
        }
        self.values.retain(|known| !later.values.contains(known));
        self.values.extend(later.values);
        let surplus = self.values.len().saturating_sub(MOST_VALUES);
        self.values.drain(..surplus);
    }
}

/// Returns the ratio of seen to expected calls in thousandths, `expected` being in thousandths; 0 if nothing is expected.
pub(crate) fn ratio_of(seen: u64, expected: u64) -> u64 {
    seen.saturating_mul(1_000_000).checked_div(expected).unwrap_or(0)
}

/// The dismissals and mutes of all keys.
#[derive(Default)]
pub(crate) struct Dismissals {
    dismissed: BTreeMap<KeyId, Dismissal>,
    /// The event time at which each mute ends.
    muted: BTreeMap<KeyId, EventTime>,
}

impl Dismissals {
    pub(crate) fn dismiss(&mut self, key: KeyId, dismissal: Dismissal) {
        match self.dismissed.get_mut(&key) {
            Some(known) => known.extend(dismissal),
            None => {
                self.dismissed.insert(key, dismissal);
                bound(&mut self.dismissed, |one| one.at_ms);
            }
        }
    }

    /// Mutes a key until an event time. A time that is over ends a mute.
    pub(crate) fn mute(&mut self, key: KeyId, until_ms: EventTime) {
        self.muted.insert(key, until_ms);
        bound(&mut self.muted, |until_ms| *until_ms);
    }

    /// Forgets what was decided about a key of which a leak is reported.
    pub(crate) fn end(&mut self, key: KeyId) {
        self.dismissed.remove(&key);
        self.muted.remove(&key);
    }

    /// Returns whether the key is muted, or was when the last of the signals was observed.
    pub(crate) fn is_muted(&self, observation: &Observation) -> bool {
        let until_ms = self.muted.get(&observation.key).copied();
        until_ms
            .is_some_and(|until_ms| observation.at_ms <= until_ms || observation.observed_ms() <= until_ms)
    }

    /// Takes the signals out of an observation that were dismissed.
    pub(crate) fn take_from(&self, observation: &mut Observation) {
        if let Some(dismissal) = self.dismissed.get(&observation.key) {
            observation.observed.retain(|one| !dismissal.covers(one));
        }
    }

    /// Forgets what covers nothing any more.
    pub(crate) fn forget(&mut self, watermark: EventTime) {
        self.dismissed.retain(|_, one| one.at_ms + VALUES_MS > watermark);
        self.muted.retain(|_, until_ms| *until_ms + SIGNALS_MS > watermark);
    }

    /// Returns all dismissals, by key.
    pub(crate) fn dismissed(&self) -> impl Iterator<Item = (KeyId, &Dismissal)> {
        self.dismissed.iter().map(|(key, one)| (*key, one))
    }

    /// Returns all mutes, by key, with their ends.
    pub(crate) fn muted(&self) -> impl Iterator<Item = (KeyId, EventTime)> {
        self.muted.iter().map(|(key, until_ms)| (*key, *until_ms))
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_tree(&self.dismissed);
        footprint += Footprint::of_tree(&self.muted);
        footprint
    }
}

/// Forgets the oldest of too many.
fn bound<T>(all: &mut BTreeMap<KeyId, T>, time: impl Fn(&T) -> EventTime) {
    if all.len() > MOST_KEYS
        && let Some(key) = all.iter().min_by_key(|(key, one)| (time(one), **key)).map(|(key, _)| *key)
    {
        all.remove(&key);
    }
}
