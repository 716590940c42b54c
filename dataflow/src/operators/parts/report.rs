//! Defines the reports of the operator of profiles to that of incidents: observations of odd keys, and sums over all
//! keys of a window or of a mark.
//!
//! Sums are integers, so they are the same whatever the order in which keys and workers are added.

use serde::{Deserialize, Serialize};

use super::network_keys::NetworkCall;
use crate::detect::{Judged, ObservedSignal, Signal, WINDOW_MS, first_address};
use crate::incident::{EvidenceValue, Point, Reason, Sample, Taken, UsualValue};
use crate::model::{CallerLocation, Country, EventTime, KeyId, KeyState, NameId, Owner, RouteId};

/// The occasion on which a key is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Occasion {
    Reconsidered(Reason),
    /// Its window is over.
    Closed,
    /// The window isn't over, and beyond doubt at a mark.
    Early,
}

/// The state of a key whose severity is alert, or was until the tables changed; or of a revoked key that is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Observation {
    /// When, by event time: the end of the window, or the mark at which it was judged. Observations are ordered by it.
    pub(crate) at_ms: EventTime,
    pub(crate) key: KeyId,
    pub(crate) occasion: Occasion,
    /// Start of the window that was evaluated.
    pub(crate) window_ms: EventTime,
    pub(crate) calls: u64,
    pub(crate) taken: Taken,
    pub(crate) usual: Vec<UsualValue>,
    pub(crate) observed: Vec<ObservedSignal>,
    pub(crate) is_well_known: bool,
    pub(crate) owner: Owner,
    pub(crate) key_state: Option<KeyState>,
    pub(crate) contact: NameId,
    pub(crate) report: (NameId, NameId),
    pub(crate) traffic: Vec<Point>,
    pub(crate) samples: Vec<Sample>,
    /// New networks that called in the window, each with the address of its first call.
    pub(crate) strangers: Vec<(u64, u128)>,
    pub(crate) known_since_ms: EventTime,
    pub(crate) known_calls: u64,
}

impl Observation {
    /// Returns the end of the last window in which a signal was observed; 0 if there is none.
    pub(crate) fn observed_ms(&self) -> EventTime {
        self.observed.iter().map(|one| one.observed_ms + WINDOW_MS).max().unwrap_or(0)
    }
}

/// The number of keys that fired at a mark of an open window: those of a plan, or all without a plan. Those are counted,
/// too, for whose observation there was no room.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fired {
    /// The mark.
    pub(crate) at_ms: EventTime,
    /// Start of the window.
    pub(crate) window_ms: EventTime,
    pub(crate) plan: NameId,
    pub(crate) keys: u64,
}

/// The sums of a window over many keys: those of a plan, or of all without a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) window_ms: EventTime,
    pub(crate) plan: NameId,
    pub(crate) figures: Figures,
}

/// The sums over the keys that were called in a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) keys: u64,
    /// Keys whose volume can be judged, by z in quarters from -8 on.
    pub(crate) z: Vec<u64>,
    /// The same keys by ln of how many times as many calls they made, in eighths from -8 on.
    pub(crate) rise: Vec<u64>,
    /// Those of them that passed the gates of volume, in the same eighths.
    pub(crate) spiked: Vec<u64>,
    /// Keys of which a signal observed something new, in the order of [`Signal::ALL`].
    pub(crate) stirred: Vec<u64>,
}

/// The number of bins of a histogram.
const BINS: usize = 192;
pub(crate) const Z_STEP: f64 = 0.25;
pub(crate) const RISE_STEP: f64 = 0.125;
pub(crate) const LEAST: f64 = -8.0;

impl Default for Figures {
    fn default() -> Self {
        Self {
            keys: 0,
            z: vec![0; BINS],
            rise: vec![0; BINS],
            spiked: vec![0; BINS],
            stirred: vec![0; Signal::ALL.len()],
        }
    }
}

impl Figures {
    pub(crate) fn add(&mut self, judged: &Judged) {
        self.keys += 1;
        if judged.is_known {
            self.z[bin(judged.z, Z_STEP)] += 1;
            self.rise[bin(judged.residual, RISE_STEP)] += 1;
            if judged.spiked {
                self.spiked[bin(judged.residual, RISE_STEP)] += 1;
            }
        }
        if judged.stirred != 0 {
            for (signal, keys) in self.stirred.iter_mut().enumerate() {
                *keys += u64::from(judged.stirred >> signal & 1);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.keys += other.keys;
        for (into, from) in [
            (&mut self.z, &other.z),
            (&mut self.rise, &other.rise),
            (&mut self.spiked, &other.spiked),
            (&mut self.stirred, &other.stirred),
        ] {
            into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        }
    }
}

/// Returns a value of a window as rows have it.
pub(crate) fn evidence_value(kind: Signal, value: u64) -> Option<EvidenceValue> {
    Some(match kind {
        Signal::Country => EvidenceValue::Country(Country((value as u16).to_be_bytes())),
        Signal::Asn => EvidenceValue::Asn(value as u32),
        Signal::Network => EvidenceValue::Network(first_address(value)),
        Signal::Agent => EvidenceValue::Agent(NameId(value)),
        Signal::Route => EvidenceValue::Route(RouteId(value)),
        Signal::Travel => {
            let (latitude, longitude) = CallerLocation::unpack(value as u32)?;
            EvidenceValue::Place(latitude, longitude)
        }
        _ => return None,
    })
}

fn bin(value: f64, step: f64) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "a cast saturates at 0")]
    let bin = ((value - LEAST) / step) as usize;
    bin.min(BINS - 1)
}

/// A report to the operator of incidents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ProfileReport {
    Observed(Box<Observation>),
    Crowd(Box<Crowd>),
    Fired(Fired),
    /// Networks, each with a key that it called with: once in six hours.
    Networks {
        at_ms: EventTime,
        calls: Vec<NetworkCall>,
    },
    /// By how much the number of keys that were called in this or the last day changed with a minute's end.
    Active {
        at_ms: EventTime,
        change: i64,
    },
}
