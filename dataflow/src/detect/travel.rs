//! Travel: calls from A, then from B, then from A again within an hour, more than 500 km apart, there and back at more
//! than 1,000 km/h; if one of the two is new, and only between networks that are listed nowhere. Distances are those
//! of great circles (the haversine formula; Sinnott, 1984).
//!
//! Limits: 16 places of the last hour.

use smallvec::SmallVec;

use super::novelty::KnownValues;
use super::window::{MOST_PLACES, Visit, Window};
use super::{Bits, HOUR_MS, WINDOW_MS};
use crate::model::CallerLocation;

const TRAVEL_KM: f64 = 500.0;
const TRAVEL_KM_AN_HOUR: f64 = 1_000.0;
/// The surprise of an impossible journey. It is less of a key that is called from several networks all the time.
const TRAVEL: Bits = Bits(8_000);
const TRAVEL_OF_SERVERS: Bits = Bits(3_000);
const SERVER_NETWORKS: usize = 4;

/// Adds a window's places to those of the last hour, and learns them.
pub(super) fn visit(visits: &mut Vec<Visit>, places: &mut KnownValues, start_ms: u64, window: &Window) {
    visits.retain(|visit| visit.last_ms + HOUR_MS > start_ms + WINDOW_MS);
    for visit in &window.visits {
        match visits.iter_mut().find(|known| known.place == visit.place) {
            Some(known) => known.last_ms = visit.last_ms.max(known.last_ms),
            None => {
                let is_new = !places.knows(visit.place.into());
                visits.push(Visit { is_new, ..*visit });
            }
        }
    }
    let seen: SmallVec<[(u64, u32); 4]> = window.visits.iter().map(|visit| (visit.place.into(), 1)).collect();
    places.learn(&seen, start_ms);
    // Of too many the newest stay.
    visits.sort_by_key(|visit| (std::cmp::Reverse(visit.last_ms), visit.place));
    visits.truncate(MOST_PLACES);
}

/// Returns the longest impossible journey: its length in km, and its ends.
pub(super) fn farthest(visits: &[Visit]) -> Option<(f64, Visit, Visit)> {
    let mut farthest: Option<(f64, Visit, Visit)> = None;
    for away in visits {
        // The last call before, and the first after, at one place.
        for home in visits.iter().filter(|home| home.first_ms < away.first_ms && home.last_ms > away.last_ms)
        {
            let km = distance_km(home.place, away.place);
            let hours = (home.last_ms - home.first_ms).min(HOUR_MS) as f64 / HOUR_MS as f64;
            let is_new = home.is_new || away.is_new;
            let is_journey = is_new && km > TRAVEL_KM && 2.0 * km > TRAVEL_KM_AN_HOUR * hours;
            if is_journey && farthest.is_none_or(|(before, ..)| km > before) {
                farthest = Some((km, *home, *away));
            }
        }
    }
    farthest
}

/// Returns the surprise of a journey of a key that was called from `networks` networks.
pub(super) fn bits(networks: usize) -> Bits {
    if networks > SERVER_NETWORKS { TRAVEL_OF_SERVERS } else { TRAVEL }
}

/// Along a great circle of a sphere of 6,371 km.
pub(super) fn distance_km(from: u32, to: u32) -> f64 {
    let radians = |place: u32| {
        let (latitude, longitude) = CallerLocation::unpack(place).unwrap_or_default();
        let of = |hundredths: i32| f64::from(hundredths) / 100.0 * std::f64::consts::PI / 180.0;
        (of(latitude), of(longitude))
    };
    let ((lat1, lon1), (lat2, lon2)) = (radians(from), radians(to));
    let half = |difference: f64| {
        let sine = libm::sin(difference / 2.0);
        sine * sine
    };
    let chord = half(lat2 - lat1) + libm::cos(lat1) * libm::cos(lat2) * half(lon2 - lon1);
    2.0 * 6_371.0 * libm::asin(chord.clamp(0.0, 1.0).sqrt())
}
