//! Defines the reports of the operator of profiles to that of incidents: observations of odd keys, and sums over all
//! keys of a window or of a mark.
//!
//! Sums are integers, so they are the same whatever the order in which keys and workers are added.

use serde::{Deserialize, Serialize};

use super::network_keys::NetworkCall;
use crate::detect::{Judged, ObservedSignal, Signal, WINDOW_MS, first_address};
use crate::incident::{EvidenceValue, Point, Reason, Sample, Taken, UsualValue};
use crate::model::{CallerLocation, Country, EventTime, KeyId, KeyPlace, KeyState, NameId, Owner, RouteId};

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
    pub(crate) place: KeyPlace,
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
    /// The mark, in event time.
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
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) keys: u64,
    /// Keys whose volume can be judged, by z in quarters from -8 on.
    pub(crate) z: Bins,
    /// The same keys by ln of how many times as many calls they made, in eighths from -8 on.
    pub(crate) rise: Bins,
    /// Those of them that passed the gates of volume, in the same eighths.
    pub(crate) spiked: Bins,
    /// Keys of which a signal observed something new, in the order of [`Signal::ALL`].
    pub(crate) stirred: Bins,
}

pub(crate) const Z_STEP: f64 = 0.25;
pub(crate) const RISE_STEP: f64 = 0.125;
/// The lower end of the first bin of z and of a rise.
const LEAST: f64 = -8.0;
/// The number of bins of z and of a rise.
const BINS: u8 = 192;

impl Figures {
    pub(crate) fn add(&mut self, judged: &Judged) {
        self.keys += 1;
        if judged.is_known {
            let rise = bin(judged.residual, RISE_STEP);
            self.z.add(bin(judged.z, Z_STEP), 1);
            self.rise.add(rise, 1);
            if judged.spiked {
                self.spiked.add(rise, 1);
            }
        }
        let mut stirred = judged.stirred;
        while stirred != 0 {
            self.stirred.add(stirred.trailing_zeros() as u8, 1);
            stirred &= stirred - 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.keys += other.keys;
        self.z.merge(&other.z);
        self.rise.merge(&other.rise);
        self.spiked.merge(&other.spiked);
        self.stirred.merge(&other.stirred);
    }
}

/// The numbers of keys in bins, in the order of the bins. Empty bins take no room: a plan of few keys is in few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Bins(Vec<(u8, u64)>);

impl Bins {
    fn add(&mut self, bin: u8, keys: u64) {
        match self.0.binary_search_by_key(&bin, |known| known.0) {
            Ok(at) => self.0[at].1 += keys,
            Err(at) => self.0.insert(at, (bin, keys)),
        }
    }

    fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(bin, keys)| self.add(*bin, *keys));
    }

    /// Returns the bins with keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u64)> {
        self.0.iter().copied()
    }

    /// Returns the number of keys in all bins.
    pub(crate) fn keys(&self) -> u64 {
        self.0.iter().map(|(_, keys)| keys).sum()
    }

    /// Returns the upper end of the bin with the median of `step` wide bins; of the first bin if there are no keys.
    pub(crate) fn median(&self, step: f64) -> f64 {
        let half = self.keys().div_ceil(2);
        let mut sum = 0;
        let median = self.0.iter().find(|(_, keys)| {
            sum += keys;
            sum >= half
        });
        LEAST + (f64::from(median.map_or(0, |(bin, _)| *bin)) + 1.0) * step
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

fn bin(value: f64, step: f64) -> u8 {
    #[expect(clippy::cast_sign_loss, reason = "a cast saturates at 0")]
    let bin = ((value - LEAST) / step) as u8;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key's window, and the same beside a sum that has a place for each bin.
    fn judged() -> impl Strategy<Value = Judged> {
        let figures = (any::<bool>(), -20.0_f64..50.0, -20.0_f64..50.0, any::<bool>(), any::<u32>());
        figures.prop_map(|(is_known, z, residual, spiked, stirred)| Judged {
            is_known,
            z,
            residual,
            spiked,
            stirred: stirred & ((1 << Signal::ALL.len()) - 1),
            networks: Default::default(),
        })
    }

    /// Returns the places of a naive histogram that aren't empty.
    fn counted(bins: impl Iterator<Item = usize>) -> Vec<(u8, u64)> {
        let mut places = [0; 256];
        bins.for_each(|bin| places[bin] += 1);
        (0..=u8::MAX).zip(places).filter(|(_, keys)| *keys > 0).collect()
    }

    proptest! {
        #[test]
        fn sums_of_any_parts_in_any_order_equal_a_histogram_with_all_places(
            keys in prop::collection::vec(judged(), 1..200), parts in 1_usize..5, turned: bool,
        ) {
            let mut sums = vec![Figures::default(); parts];
            for (number, judged) in keys.iter().enumerate() {
                sums[number % parts].add(judged);
            }
            if turned {
                sums.reverse();
            }
            let mut all = Figures::default();
            sums.iter().for_each(|sum| all.merge(sum));
            let naive = |value: f64, step: f64| {
                (1..=191_u8).filter(|bin| value + 8.0 >= f64::from(*bin) * step).count()
            };
            let known = || keys.iter().filter(|one| one.is_known);
            let rise = |one: &Judged| naive(one.residual, 0.125);
            let expected = Figures {
                keys: keys.len() as u64,
                z: Bins(counted(known().map(|one| naive(one.z, 0.25)))),
                rise: Bins(counted(known().map(rise))),
                spiked: Bins(counted(known().filter(|one| one.spiked).map(rise))),
                stirred: Bins(counted(keys.iter().flat_map(|one| (0..32).filter(|bit| one.stirred >> bit & 1 == 1)))),
            };
            prop_assert_eq!(&all, &expected);
            let mut ordered: Vec<usize> = known().map(|one| naive(one.z, 0.25)).collect();
            ordered.sort_unstable();
            if !ordered.is_empty() {
                let median = ordered[(ordered.len() - 1) / 2];
                prop_assert_eq!(all.z.median(Z_STEP), -8.0 + (median + 1) as f64 * 0.25);
            }
        }
    }

    #[test]
    fn values_beyond_the_bins_and_no_numbers_are_in_the_last_and_the_first() {
        let bins = [f64::NEG_INFINITY, f64::NAN, -8.0, 39.99, 40.0, f64::INFINITY].map(|z| bin(z, Z_STEP));
        assert_eq!(bins, [0, 0, 0, 191, 191, 191]);
        assert_eq!(Bins::default().median(Z_STEP), -7.75);
    }
}
