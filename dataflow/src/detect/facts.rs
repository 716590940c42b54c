//! Hard facts: signals that aren't a matter of degree, and the facts of the tables behind them.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::combine::Signal;
use super::novelty::KnownValues;
use super::window::{Window, first_address};
use super::{Bits, DAY_MS, WINDOW_MS};
use crate::model::{Allowance, Country};

/// A key without calls for so long is dormant.
const DORMANT_MS: u64 = 30 * DAY_MS;
/// The surprise of a hard fact.
pub(super) const HARD: Bits = Bits(40_000);
/// The surprise of an exit of Tor, and of a dormant key of which no system is known: an alert by itself, no more.
const DOUBTFUL: Bits = Bits(24_000);
/// The surprise of a revoked key that is turned away: a notice by itself. An old client may not know, and who is turned
/// away takes nothing.
pub(super) const REFUSED: Bits = Bits(17_000);

/// The facts that tables have of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was revoked, if it is.
    pub revoked_ms: Option<u64>,
    /// When it was last used before the job saw it.
    pub last_used_ms: Option<u64>,
    /// True if it is meant to be public. It has no hard facts then.
    pub publishable: bool,
    /// Since when it is known to be readable by everybody.
    pub reported_ms: Option<u64>,
    /// From where it is meant to be used: such calls come from nowhere new.
    pub allowed: Box<[Allowance]>,
}

/// The past of a key, as far as hard facts are judged by it.
pub(super) struct Past<'a> {
    /// When it was last called.
    pub(super) last_call_ms: u64,
    /// When it was last called through Tor.
    pub(super) tor_ms: u64,
    /// The systems it was called from.
    pub(super) asns: &'a KnownValues,
    /// The networks it was called from, which tell where no database knows systems.
    pub(super) networks: &'a KnownValues,
}

/// Returns false only if no window with calls of a key that was last called at `last_call_ms` has a hard fact then. `has_tor`
/// says whether one called through Tor.
pub(crate) fn may_have_hard_facts(last_call_ms: u64, start_ms: u64, has_tor: bool, facts: &Facts) -> bool {
    !facts.publishable
        && (facts.revoked_ms.is_some()
            || facts.reported_ms.is_some()
            || has_tor
            || is_dormant(last_call_ms, start_ms, facts))
}

/// Returns whether the key was silent for so long that a new system is a fact.
fn is_dormant(last_call_ms: u64, start_ms: u64, facts: &Facts) -> bool {
    let last_ms = last_call_ms.max(facts.last_used_ms.unwrap_or(0));
    last_ms > 0 && start_ms.saturating_sub(last_ms) > DORMANT_MS
}

/// Returns the hard facts of a window, with their bits.
pub(super) fn hard_facts(
    past: &Past<'_>,
    start_ms: u64,
    window: &Window,
    facts: &Facts,
) -> SmallVec<[(Signal, Bits); 4]> {
    let mut hard = SmallVec::new();
    if facts.publishable || window.calls == 0 {
        return hard;
    }
    if facts.revoked_ms.is_some_and(|revoked| start_ms >= revoked + WINDOW_MS) {
        let is_answered = window.statuses.values().iter().any(|(status, _)| (100..400).contains(status));
        hard.push((Signal::Revoked, if is_answered { HARD } else { REFUSED }));
    }
    if facts.reported_ms.is_some_and(|reported| start_ms + WINDOW_MS > reported) {
        hard.push((Signal::Reported, HARD));
    }
    if window.tor > 0 && (past.tor_ms == 0 || start_ms > past.tor_ms + DORMANT_MS) {
        hard.push((Signal::Tor, DOUBTFUL));
    }
    let is_elsewhere = || {
        let (known, now) = match window.values.asns.values() {
            [] => (past.networks, window.values.networks.values()),
            asns => (past.asns, asns),
        };
        now.iter().any(|(value, _)| !known.knows(*value))
    };
    if is_dormant(past.last_call_ms, start_ms, facts) && is_elsewhere() {
        // Who knows a key by the tables alone can't say what is new of it.
        hard.push((Signal::Dormant, if past.asns.is_empty() { DOUBTFUL } else { HARD }));
    }
    hard
}

/// Returns whether an allowance covers the new value that a signal is about.
pub(super) fn covers(signal: Signal, value: u64, allowance: &Allowance) -> bool {
    match (signal, allowance) {
        (Signal::Country, Allowance::Country(country)) => u64::from(u16::from_be_bytes(country.0)) == value,
        (Signal::Asn, Allowance::Asn(asn)) => u64::from(*asn) == value,
        (Signal::Network, Allowance::Network(..)) => {
            allowance.covers(first_address(value), Country::UNKNOWN, 0)
        }
        _ => false,
    }
}
