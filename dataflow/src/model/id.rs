//! Defines identities. Strings are interned to stable hashes, which are the same in every process and run, and never
//! to counters. The strings themselves travel once, as [`Definition`]s.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::{EventTime, id_of_digits};

/// The identity of a key: the first 16 bytes of its hash, or a hash of an identifier that is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u128);

impl KeyId {
    /// Stands for calls without a key.
    pub const ANONYMOUS: Self = Self(0);
    /// Stands for calls of keys beyond a cap.
    pub const OVERFLOW: Self = Self(1);
    /// Stands for calls whose record has two different values of its key, or of another member that identifies the
    /// caller.
    pub const CONFLICTING: Self = Self(2);
    /// Lists the three reserved ids.
    pub const BUCKETS: [Self; 3] = [Self::ANONYMOUS, Self::OVERFLOW, Self::CONFLICTING];

    /// Makes an id of a hash of at least 16 bytes, as the configured `hash` makes it. A hash that equals one of the
    /// three reserved ids becomes the next id after them.
    ///
    /// # Panics
    /// If `hash` is shorter than 16 bytes; every hash in use has 32.
    #[must_use]
    pub fn from_hash(hash: &[u8]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Self(u128::from_be_bytes(first).max(Self::CONFLICTING.0 + 1))
    }

    /// Makes an id of an identifier that is no secret (`hash = "none"`). The reserved names are themselves.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "anonymous" => Self::ANONYMOUS,
            "overflow" => Self::OVERFLOW,
            "conflicting" => Self::CONFLICTING,
            _ => Self(xxh3_128(name.as_bytes()).max(Self::CONFLICTING.0 + 1)),
        }
    }

    /// Returns the keys that views may name so: that of an identifier and, of 32 hexadecimal digits, that of a hash.
    #[must_use]
    pub fn of_text(text: &str) -> [Option<Self>; 2] {
        [Some(Self::from_name(text)), id_of_digits(text).map(Self)]
    }

    /// Returns true for a bucket of calls instead of one key. Buckets are metered, never profiled and never acted on.
    #[must_use]
    #[inline]
    pub fn is_bucket(self) -> bool {
        self.bucket_name().is_some()
    }

    /// Returns the reserved name, if this is a bucket of calls.
    #[must_use]
    #[inline]
    pub fn bucket_name(self) -> Option<&'static str> {
        match self {
            Self::ANONYMOUS => Some("anonymous"),
            Self::OVERFLOW => Some("overflow"),
            Self::CONFLICTING => Some("conflicting"),
            _ => None,
        }
    }

    /// Returns the one of 256 buckets that the key belongs to, whatever the number of workers. Caps and the limits of
    /// publication are per bucket.
    #[must_use]
    pub fn bucket(self) -> u8 {
        // Hashes are uniform in every byte, so any byte will do.
        (self.0 >> 24) as u8
    }

    /// Returns the number by which keys are dealt to workers. A worker has whole buckets, so beyond 256 workers some
    /// have none.
    #[must_use]
    pub fn shard(self) -> u64 {
        u64::from(self.bucket())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bucket_name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:032x}", self.0),
        }
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a request within the job: the lower 96 bits of a hash of source and request id. Zero stands for a
/// record without one.
///
/// Of 10^9 ids that are remembered together, two are the same by chance once in 10^11 times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// Words of 32 bits, the most significant first, leave an event room for its count.
pub struct RequestId([u32; 3]);

impl RequestId {
    /// Stands for a record without a request id.
    pub const NONE: Self = Self([0; 3]);

    /// Returns the identity with these bits. Bits above the lower 96 are dropped.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self([(bits >> 64) as u32, (bits >> 32) as u32, bits as u32])
    }

    /// Returns the 96 bits of the identity.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u128 {
        let [high, middle, low] = self.0;
        (high as u128) << 64 | (middle as u128) << 32 | low as u128
    }

    /// Returns the identity of the request `id` in `source`.
    #[must_use]
    pub fn new(source: &str, id: &[u8]) -> Self {
        match Self::from_bits(hash_of([source.as_bytes(), &[0], id])) {
            Self::NONE => Self::from_bits(1),
            id => id,
        }
    }

    /// Returns true if the record has a request id.
    #[inline]
    #[must_use]
    pub fn is_some(self) -> bool {
        self.bits() != 0
    }
}

/// Bytes up to which parts are hashed as one text.
const WHOLE_BYTES: usize = 128;

/// The hash of parts that follow each other. Short ones, which nearly all are, are put together first: the state of a
/// hasher that takes them one by one is half a kilobyte.
#[inline]
fn hash_of(parts: [&[u8]; 3]) -> u128 {
    let mut whole = [0; WHOLE_BYTES];
    let mut len = 0;
    for part in parts {
        match whole.get_mut(len..len + part.len()) {
            Some(room) => room.copy_from_slice(part),
            None => return hash_of_long(parts),
        }
        len += part.len();
    }
    xxh3_128(&whole[..len])
}

#[cold]
fn hash_of_long(parts: [&[u8]; 3]) -> u128 {
    let mut hasher = Xxh3::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.digest128()
}

/// The identity of API, method and route template together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteId(pub u64);

impl RouteId {
    /// Stands for routes that are beyond a cap.
    pub const OVERFLOW: Self = Self(1);
    /// The API, method and template that [`OVERFLOW`](Self::OVERFLOW) is written as.
    pub const OVERFLOW_PARTS: [&'static str; 3] = ["", "-", "overflow"];

    /// Returns the identity of a route. The reserved name is itself.
    #[must_use]
    pub fn new(api: &str, method: &str, route: &str) -> Self {
        if [api, method, route] == Self::OVERFLOW_PARTS {
            return Self::OVERFLOW;
        }
        let mut hasher = Xxh3::new();
        for part in [api, method, route] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        Self(hasher.digest().max(2))
    }

    /// Returns the one of 256 buckets that the route belongs to, whatever the number of workers.
    #[must_use]
    pub fn bucket(self) -> u8 {
        self.0 as u8
    }
}

/// The identity of any other string (subscription, customer, plan, user agent). Zero is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NameId(pub u64);

impl NameId {
    /// Stands for a string that is unknown.
    pub const NONE: Self = Self(0);

    /// Returns the identity of `name`. The empty string is unknown.
    #[must_use]
    pub fn new(name: &str) -> Self {
        if name.is_empty() { Self::NONE } else { Self(xxh3_64(name.as_bytes()).max(1)) }
    }

    /// Returns true if the string is known.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }

    /// Returns the one of 256 buckets that it belongs to, whatever the number of workers.
    #[must_use]
    pub fn bucket(self) -> u8 {
        self.0 as u8
    }
}

/// The string behind an identity. It is sent before, or with, the first record that uses it. Strings of routes and
/// user agents are sent anew for each day of event time, those of keys for each month. A cap admits an id for such a
/// period, and its string is forgotten with it. Sending it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Definition {
    /// A key whose id is a name (`hash = "none"`).
    Key {
        id: KeyId,
        name: Box<str>,
        /// The start of the event-time month in which it is met, `None` if a table names it.
        month: Option<EventTime>,
    },
    Route {
        id: RouteId,
        /// The start of the event-time day in which it is met.
        day: EventTime,
        /// The API or service, empty where the gateway names none.
        api: Box<str>,
        method: Box<str>,
        route: Box<str>,
    },
    /// Callers choose user agents, so these are apart from other names. They neither displace a name nor are
    /// forgotten with one.
    Agent {
        id: NameId,
        /// The start of the event-time day in which it is met.
        day: EventTime,
        text: Box<str>,
    },
    Name {
        id: NameId,
        text: Box<str>,
    },
}

/// An id that needs its string no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Forgotten {
    Key(KeyId),
    Route(RouteId),
    Agent(NameId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_keys_are_no_hash_and_have_their_names() {
        let names = ["anonymous", "overflow", "conflicting"];
        for (key, name) in KeyId::BUCKETS.into_iter().zip(names) {
            assert_eq!((key.to_string().as_str(), KeyId::from_name(name)), (name, key));
            assert!(key.is_bucket());
            let mut hash = [0; 32];
            hash[15] = key.0 as u8;
            assert!(!KeyId::from_hash(&hash).is_bucket(), "{name}");
        }
        assert!(!KeyId::from_name("acme").is_bucket() && !KeyId::from_name("").is_bucket());
    }

    #[test]
    fn parts_are_hashed_alike_whatever_their_length() {
        let text: Vec<u8> = (0..600_u32).map(|n| (n * 7 % 251) as u8).collect();
        for length in [0, 1, 16, 17, 100, 127, 128, 129, 130, 240, 241, 256, 257, 600] {
            for (first, second) in [(0, 0), (0, length), (length / 3, length / 2), (length, length)] {
                let parts = [&text[..first], &text[first..second], &text[second..length]];
                let whole = xxh3_128(&text[..length]);
                assert_eq!((hash_of(parts), hash_of_long(parts)), (whole, whole), "{length} bytes");
            }
        }
    }

    #[test]
    fn a_request_is_known_by_96_bits_and_never_none() {
        let id = RequestId::from_bits(u128::MAX - 5);
        assert_eq!((id.bits(), RequestId::from_bits(id.bits())), ((1 << 96) - 6, id));
        assert!(RequestId::new("gateway", b"").is_some() && !RequestId::from_bits(1 << 96).is_some());
        assert_ne!(RequestId::new("gateway", b"1"), RequestId::new("gateway", b"2"));
        assert!(RequestId::from_bits(1 << 64) > RequestId::from_bits(u64::MAX.into()));
    }
}
