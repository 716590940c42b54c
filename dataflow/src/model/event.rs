//! Defines the canonical access event, which is the same from every gateway.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{EventTime, KeyId, NameId, RequestId, RouteId};

/// The `latency_us` of a call whose latency isn't known.
pub const LATENCY_UNKNOWN: u64 = u64::MAX;

/// The position of a record in the job's input. Positions are ordered: the lowest wins among duplicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Index in the job's list of partitions, over all sources.
    pub partition: u32,
    /// The Kafka offset, or the byte (after decompression) at which a file's line starts.
    pub offset: u64,
    /// The record within the message.
    pub index: u32,
}

/// An ISO 3166-1 alpha-2 country in upper case, where `ZZ` is unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Country(pub [u8; 2]);

impl Country {
    /// The country of a private address, or of any address that no database knows.
    pub const UNKNOWN: Self = Self(*b"ZZ");
    /// Stands for countries beyond a cap. ISO leaves this code to its users, so no data has it.
    pub const OTHER: Self = Self(*b"XX");

    /// Reads two ASCII letters in either case. Anything else is unknown, and so is `XX`.
    #[must_use]
    pub fn new(code: &str) -> Self {
        match code.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                let code = Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]);
                if code == Self::OTHER { Self::UNKNOWN } else { code }
            }
            _ => Self::UNKNOWN,
        }
    }

    /// Returns the two letters of the code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }
}

impl Default for Country {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Networks whose callers are elsewhere than their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NetworkClass {
    /// A network that isn't in the list.
    #[default]
    Unlisted,
    Vpn,
    Relay,
    /// A network of mobile phones.
    Mobile,
    Satellite,
    /// A provider of computing, whose servers make calls.
    Cloud,
    Tor,
}

/// A caller's location to a fiftieth of a degree, and the kind of its network, in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallerLocation(u32);

impl CallerLocation {
    const CLASSES: [NetworkClass; 8] = [
        NetworkClass::Unlisted,
        NetworkClass::Vpn,
        NetworkClass::Relay,
        NetworkClass::Mobile,
        NetworkClass::Satellite,
        NetworkClass::Cloud,
        NetworkClass::Tor,
        NetworkClass::Unlisted,
    ];

    /// Packs a location. `position` is latitude and longitude in degrees; one that isn't on earth is unknown.
    #[must_use]
    pub fn new(class: NetworkClass, position: Option<(f64, f64)>) -> Self {
        // There are 9,001 latitudes and 18,001 longitudes; 0 is unknown.
        let packed = match position {
            Some((latitude, longitude)) if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 => {
                #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
                let steps = |degrees: f64| (degrees * 50.0).round() as u32;
                (steps(latitude + 90.0) + 1) << 15 | steps(longitude + 180.0)
            }
            _ => 0,
        };
        Self(packed << 3 | class as u32)
    }

    /// Returns the kind of network that the caller is in.
    #[must_use]
    pub fn class(self) -> NetworkClass {
        Self::CLASSES[(self.0 & 7) as usize]
    }

    /// Returns latitude and longitude in hundredths of a degree, if known.
    #[must_use]
    pub fn position(self) -> Option<(i32, i32)> {
        Self::unpack(self.packed())
    }

    /// Returns the position alone, to be compared; 0 is unknown.
    pub(crate) fn packed(self) -> u32 {
        self.0 >> 3
    }

    /// Returns the position that [`packed`](Self::packed) stands for.
    pub(crate) fn unpack(packed: u32) -> Option<(i32, i32)> {
        let latitude = (packed >> 15).checked_sub(1)?.cast_signed();
        let longitude = (packed & 0x7fff).cast_signed();
        Some((latitude * 2 - 9_000, longitude * 2 - 18_000))
    }
}

/// One call of an API, or several that one record stands for, as every decoder delivers it. It takes 144 bytes and
/// has no pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessEvent {
    /// The key that called, by its id: an event never has the raw key.
    pub key: KeyId,
    /// Identifies the request for deduplication.
    pub request: RequestId,
    /// The caller's address as IPv6 (IPv4 mapped), zero where unknown.
    pub client: u128,
    /// The time at which the gateway received the call.
    pub time: EventTime,
    pub route: RouteId,
    pub user_agent: NameId,
    pub position: Position,
    /// Time to answer each of its calls in microseconds, or [`LATENCY_UNKNOWN`].
    pub latency_us: u64,
    /// Bytes received from the caller in all of its calls.
    pub bytes_in: u64,
    /// Bytes sent to the caller in all of its calls.
    pub bytes_out: u64,
    /// Units of all of its calls, such as tokens or their cost, as the source counts them. At most 2^42. Those of free
    /// calls aren't summed up.
    pub units: u64,
    /// The number of calls that the event stands for, from 1 to 2^32 - 1. They are alike in all that is known of
    /// them. Meters and profiles count each of them. The event remains one record, one unique event, and one caller.
    pub count: u32,
    /// Milliseconds behind its partition's running maximum if the event is late, else 0.
    pub late_ms: u32,
    /// Autonomous system of the caller, 0 where unknown.
    pub asn: u32,
    /// The HTTP status, 0 where the client went away.
    pub status: u16,
    /// True if it was answered with a status that makes a call free.
    pub is_free: bool,
    pub country: Country,
    pub place: CallerLocation,
}

const _: () = assert!(size_of::<AccessEvent>() == 144);

impl AccessEvent {
    /// Returns true for a client's error: 4xx, but not 499 (the client went away).
    #[must_use]
    pub fn is_4xx(&self) -> bool {
        (400..500).contains(&self.status) && self.status != 499
    }

    /// Returns true for a server's error: 5xx, or a number from 600 on. RFC 9110, section 15, has clients treat these
    /// as 5xx.
    #[must_use]
    pub fn is_5xx(&self) -> bool {
        self.status >= 500
    }

    /// Returns the latency in microseconds, if it is known.
    #[must_use]
    pub fn latency(&self) -> Option<u64> {
        (self.latency_us != LATENCY_UNKNOWN).then_some(self.latency_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_to_a_fiftieth_of_a_degree() {
        let of = |class, latitude, longitude| {
            let place = CallerLocation::new(class, Some((latitude, longitude)));
            (place.class(), place.position())
        };
        assert_eq!(of(NetworkClass::Tor, 52.52, 13.405), (NetworkClass::Tor, Some((5_252, 1_340))));
        assert_eq!(
            of(NetworkClass::Unlisted, -90.0, 180.0),
            (NetworkClass::Unlisted, Some((-9_000, 18_000)))
        );
        assert_eq!(of(NetworkClass::Cloud, 90.0, -180.0), (NetworkClass::Cloud, Some((9_000, -18_000))));
        assert_eq!(of(NetworkClass::Vpn, 91.0, 0.0), (NetworkClass::Vpn, None));
        assert_eq!(of(NetworkClass::Vpn, f64::NAN, 0.0), (NetworkClass::Vpn, None));
        assert_eq!(CallerLocation::default(), CallerLocation::new(NetworkClass::Unlisted, None));
    }

    #[test]
    fn no_data_has_the_country_of_those_beyond_a_cap() {
        for (code, expected) in
            [("de", "DE"), ("zz", "ZZ"), ("XX", "ZZ"), ("xX", "ZZ"), ("d", "ZZ"), ("1e", "ZZ")]
        {
            assert_eq!(Country::new(code).as_str(), expected);
        }
    }
}
