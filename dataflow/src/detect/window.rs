//! What a key did in one window: counts, and which values occurred.
//!
//! A sum over events, so that it is the same in whatever order they came.
//!
//! Limits: of each kind the 256 least values (hashes, for most) are told apart, 16 places, and the networks of 8 samples.
//! The least, not the first: which they are, and how often they occurred, doesn't depend on the order either.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::kinds::ByKind;
use crate::model::{AccessEvent, Allowance, Country, EventTime, NetworkClass, Position, RouteId};

/// The most values of a kind that are counted apart.
const MOST: usize = 256;
/// Places that are told apart.
pub(super) const MOST_PLACES: usize = 16;
/// Networks that have a sample.
const MOST_SAMPLES: usize = 8;

/// Values with how often they occurred, in the order of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCounts(SmallVec<[(u64, u32); 1]>);

impl FromIterator<(u64, u32)> for ValueCounts {
    fn from_iter<T: IntoIterator<Item = (u64, u32)>>(counts: T) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(value, calls)| all.add(value, calls));
        all
    }
}

impl ValueCounts {
    /// Adds the calls of a value.
    #[inline]
    pub fn add(&mut self, value: u64, calls: u32) {
        // Most keys are called from one place.
        match &mut self.0[..] {
            [] => self.0.push((value, calls)),
            [(only, count)] if *only == value => *count = count.saturating_add(calls),
            _ => self.add_another(value, calls),
        }
    }

    /// Adds the calls of a value where there are others.
    fn add_another(&mut self, value: u64, calls: u32) {
        match self.0.binary_search_by_key(&value, |entry| entry.0) {
            Ok(at) => self.0[at].1 = self.0[at].1.saturating_add(calls),
            // It isn't, and never was, among the least.
            Err(MOST) => {}
            Err(at) => {
                self.0.insert(at, (value, calls));
                self.0.truncate(MOST);
            }
        }
    }

    /// Adds the values of another count.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(value, calls)| self.add(*value, *calls));
    }

    /// Returns the values with their calls, in the order of values.
    #[must_use]
    pub fn values(&self) -> &[(u64, u32)] {
        &self.0
    }
}

/// When calls came from a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) place: u32,
    pub(crate) first_ms: EventTime,
    pub(crate) last_ms: EventTime,
    /// Whether the key was never seen there before.
    pub(crate) is_new: bool,
}

/// A call, to be looked up where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub position: Position,
    pub time: EventTime,
    pub client: u128,
    /// With which status it was answered.
    pub status: u16,
}

impl Sighting {
    fn rank(&self) -> (EventTime, u64, u32, u32) {
        (self.time, self.position.offset, self.position.partition, self.position.index)
    }
}

impl ByKind<ValueCounts> {
    /// Adds the values of other calls.
    fn merge(&mut self, other: &Self) {
        self.all_mut().into_iter().zip(other.all()).for_each(|(into, (_, from))| into.merge(from));
    }
}

/// A key's calls in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// All calls; as all counts here, at most 2^32 - 1.
    pub calls: u32,
    /// Answered 401 or 403.
    pub refused: u32,
    /// Answered 429.
    pub throttled: u32,
    pub values: ByKind<ValueCounts>,
    /// Calls through exits of Tor.
    pub tor: u32,
    /// Calls from where the tables allow.
    pub allowed: u32,
    /// The values of allowed calls, which aren't among the others: they are learned, and never new.
    pub(super) of_allowed: Option<Box<ByKind<ValueCounts>>>,
    /// Bytes sent to the callers.
    pub bytes_out: u64,
    /// Calls by HTTP status; at most the 256 least.
    pub statuses: ValueCounts,
    /// Places, in order; only of networks that are listed nowhere.
    pub(crate) visits: SmallVec<[Visit; 0]>,
    /// The first call of each network, in the order of networks.
    pub(crate) samples: SmallVec<[(u64, Sighting); 1]>,
}

impl Window {
    /// Counts an event's calls. What isn't known of it (address, country, system, agent) isn't a value. If where it came
    /// from is allowed its values are apart: the owner's load test may use any tool.
    pub fn add(&mut self, event: &AccessEvent, allowed: &[Allowance]) {
        let allowed = allowed.iter().any(|one| one.covers(event.client, event.country, event.asn));
        let of_network = network(event.client);
        let calls = event.count;
        let add = |sum: &mut u32, counts: bool| {
            if counts {
                *sum = sum.saturating_add(calls);
            }
        };
        add(&mut self.calls, true);
        add(&mut self.allowed, allowed);
        add(&mut self.refused, matches!(event.status, 401 | 403));
        add(&mut self.throttled, event.status == 429);
        let country = u64::from(u16::from_be_bytes(event.country.0));
        let values = match allowed {
            true => &mut **self.of_allowed.get_or_insert_default(),
            false => &mut self.values,
        };
        let known = [
            (country, event.country != Country::UNKNOWN),
            (event.asn.into(), event.asn != 0),
            (of_network, event.client != 0),
            (event.user_agent.0, event.user_agent.is_some()),
            (event.route.0, event.route != RouteId::OVERFLOW),
        ];
        for (counts, (value, is_known)) in values.all_mut().into_iter().zip(known) {
            if is_known {
                counts.add(value, calls);
            }
        }
        add(&mut self.tor, event.place.class() == NetworkClass::Tor && !allowed);
        if event.place.packed() != 0 && event.place.class() == NetworkClass::Unlisted && !allowed {
            self.visit(event.place.packed(), event.time);
        }
        self.bytes_out = self.bytes_out.saturating_add(event.bytes_out);
        self.statuses.add(event.status.into(), calls);
        let AccessEvent { position, time, client, status, .. } = *event;
        self.sample(of_network, Sighting { position, time, client, status });
    }

    /// Adds what another window of the same key counted: the same as if all of its events had come here.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.calls, other.calls),
            (&mut self.refused, other.refused),
            (&mut self.throttled, other.throttled),
            (&mut self.tor, other.tor),
            (&mut self.allowed, other.allowed),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.statuses.merge(&other.statuses);
        self.values.merge(&other.values);
        if let Some(other) = &other.of_allowed {
            self.of_allowed.get_or_insert_default().merge(other);
        }
        for visit in &other.visits {
            self.visit(visit.place, visit.first_ms);
            self.visit(visit.place, visit.last_ms);
        }
        other.samples.iter().for_each(|(network, sighting)| self.sample(*network, *sighting));
    }

    fn visit(&mut self, place: u32, time: EventTime) {
        match self.visits.binary_search_by_key(&place, |visit| visit.place) {
            Ok(at) => {
                let visit = &mut self.visits[at];
                (visit.first_ms, visit.last_ms) = (visit.first_ms.min(time), visit.last_ms.max(time));
            }
            Err(MOST_PLACES) => {}
            Err(at) => {
                self.visits.insert(at, Visit { place, first_ms: time, last_ms: time, is_new: false });
                self.visits.truncate(MOST_PLACES);
            }
        }
    }

    fn sample(&mut self, network: u64, sighting: Sighting) {
        match self.samples.binary_search_by_key(&network, |sample| sample.0) {
            Ok(at) if self.samples[at].1.rank() > sighting.rank() => self.samples[at].1 = sighting,
            Ok(_) | Err(MOST_SAMPLES) => {}
            Err(at) => {
                self.samples.insert(at, (network, sighting));
                self.samples.truncate(MOST_SAMPLES);
            }
        }
    }
}

/// The first address of a network, as IPv6 (IPv4 mapped).
pub(crate) fn first_address(network: u64) -> u128 {
    match network >> 32 == 0xffff_ffff {
        true => 0xffff << 32 | u128::from(network & 0xffff_ffff),
        false => u128::from(network) << 80,
    }
}

/// The network of an address: 24 bits of IPv4 behind 32 ones, which begin no network of IPv6; 48 bits of IPv6.
fn network(client: u128) -> u64 {
    const V4_MAPPED: u128 = 0xffff;
    match client >> 32 == V4_MAPPED {
        true => 0xffff_ffff << 32 | (client as u64 & 0xffff_ff00),
        false => (client >> 80) as u64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{CallerLocation, KeyId, NameId, RequestId};

    fn event(count: u32, status: u16, place: u64) -> AccessEvent {
        AccessEvent {
            units: 0,
            is_free: false,
            key: KeyId::from_name("acme"),
            request: RequestId::NONE,
            client: u128::from(place + 1) << 80,
            time: 1_748_822_400_000,
            route: RouteId(2 + place),
            user_agent: NameId(1 + place),
            position: Position::default(),
            latency_us: 1,
            bytes_in: 0,
            bytes_out: 0,
            count,
            late_ms: 0,
            asn: 64_500 + place as u32,
            status,
            country: Country([b'A', b'A' + (place % 26) as u8]),
            place: CallerLocation::new(NetworkClass::Tor, None),
        }
    }

    #[test]
    fn an_event_of_many_calls_is_as_many_events_and_no_sum_passes_its_end() {
        for status in [200, 403, 429] {
            let (mut once, mut each) = (Window::default(), Window::default());
            once.add(&event(7, status, 3), &[]);
            (0..7).for_each(|_| each.add(&event(1, status, 3), &[]));
            assert_eq!((once.calls, &once), (7, &each));
        }
        let mut full = Window::default();
        for place in 0..20 {
            full.add(&event(u32::MAX, 403, place), &[]);
            full.add(&event(u32::MAX, 429, place), &[]);
        }
        assert_eq!([full.calls, full.refused, full.throttled, full.tor], [u32::MAX; 4]);
        let tuning = crate::detect::Tuning::default();
        let mut profile = crate::detect::Profile::new(0);
        for minute in 0..200 {
            profile.step(minute * 60_000, &full, &crate::detect::Facts::default(), &tuning);
        }
        // All but the last two hours, and the hour of the Tor exit.
        assert!(profile.known_calls() > 50 * u64::from(u32::MAX));
    }

    #[test]
    fn networks_of_both_families() {
        let of = |text: &str| {
            let address: std::net::IpAddr = text.parse().unwrap();
            network(match address {
                std::net::IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                std::net::IpAddr::V6(address) => address.to_bits(),
            })
        };
        assert_eq!(of("203.0.113.57"), of("203.0.113.1"));
        assert_ne!(of("203.0.113.57"), of("203.0.114.57"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1::"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
        for (text, first) in [("203.0.113.57", "203.0.113.0"), ("2001:db8:1:2::3", "2001:db8:1::")] {
            let address: std::net::IpAddr = first.parse().unwrap();
            let expected = match address {
                std::net::IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                std::net::IpAddr::V6(address) => address.to_bits(),
            };
            assert_eq!(first_address(of(text)), expected);
        }
    }

    proptest! {
        #[test]
        fn a_window_in_parts_is_the_whole_window(
            calls in prop::collection::vec((1_u32..4, 0_usize..3, 0_u64..300, 0_u64..60_000, 0_usize..3), 0..400),
        ) {
            let (mut whole, mut parts) = (Window::default(), vec![Window::default(); 3]);
            for (number, (count, status, place, later_ms, part)) in (0..).zip(calls) {
                let class = [NetworkClass::Tor, NetworkClass::Unlisted][place as usize % 2];
                let event = AccessEvent {
                    time: 1_748_822_400_000 + later_ms,
                    position: Position { partition: 0, offset: number, index: 0 },
                    place: CallerLocation::new(class, Some((place as f64 / 4.0, 8.0))),
                    ..event(count, [200, 403, 429][status], place)
                };
                whole.add(&event, &[]);
                parts[part].add(&event, &[]);
            }
            let mut merged = Window::default();
            parts.iter().for_each(|part| merged.merge(part));
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn order_and_grouping_make_no_difference(
            values in prop::collection::vec((0_u64..600, 1_u32..5), 0..900), cut in 0_usize..900,
        ) {
            let tally = |values: &[(u64, u32)]| {
                let mut tally = ValueCounts::default();
                values.iter().for_each(|(value, calls)| tally.add(*value, *calls));
                tally
            };
            let whole = tally(&values);
            let (first, rest) = values.split_at(cut.min(values.len()));
            let mut merged = tally(rest);
            merged.merge(&tally(first));
            prop_assert_eq!(&whole, &merged);
            let backwards: Vec<_> = values.iter().rev().copied().collect();
            prop_assert_eq!(&whole, &tally(&backwards));
            let mut counts = std::collections::BTreeMap::new();
            values.iter().for_each(|(value, calls)| *counts.entry(*value).or_insert(0) += calls);
            prop_assert_eq!(whole.values().to_vec(), counts.into_iter().take(MOST).collect::<Vec<_>>());
        }
    }
}
