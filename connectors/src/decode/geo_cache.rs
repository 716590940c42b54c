//! A cache of callers' locations. Callers call again, and a look-up in a geo database costs as much as parsing a third
//! of a record.
//!
//! The cache is a direct-mapped table of 4,096 addresses (128 KiB a decoder). An evicted address is looked up again. So
//! memory is bounded whoever calls, and an answer is always the database's.

use std::net::IpAddr;

use super::address::bits;
use super::{Locate, Located};

const BITS: u32 = 12;

/// The addresses that were looked up lately, each with its location.
pub(super) struct GeoCache(Vec<Option<(IpAddr, Located)>>);

const _: () = assert!(size_of::<Option<(IpAddr, Located)>>() << BITS == 128 << 10);

impl Default for GeoCache {
    fn default() -> Self {
        Self(vec![None; 1 << BITS])
    }
}

impl GeoCache {
    /// Returns the location that `geo` has for an address.
    pub(super) fn locate(&mut self, address: IpAddr, geo: &dyn Locate) -> Located {
        let bits = bits(address);
        // Fibonacci hashing of both halves.
        let mixed = ((bits >> 64) as u64 ^ bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entry = &mut self.0[(mixed >> (64 - BITS)) as usize];
        match entry {
            Some((known, located)) if *known == address => *located,
            _ => {
                let located = geo.locate(address);
                *entry = Some((address, located));
                located
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use keytide_dataflow::model::{CallerLocation, Country, NetworkClass};

    use super::*;

    fn located(asn: u32) -> Located {
        Located { country: Country::new("DE"), asn, place: CallerLocation::new(NetworkClass::Cloud, None) }
    }

    struct Counting(AtomicU32);

    impl Locate for Counting {
        fn locate(&self, address: IpAddr) -> Located {
            self.0.fetch_add(1, Ordering::Relaxed);
            located((bits(address) & 0xffff_ffff) as u32)
        }
    }

    #[test]
    fn every_answer_is_the_databases_and_repeats_cost_nothing() {
        let geo = Counting(AtomicU32::new(0));
        let mut cache = GeoCache::default();
        let asked = Cell::new(0);
        let mut ask = |number: u32| {
            asked.set(asked.get() + 1);
            assert_eq!(cache.locate(Ipv4Addr::from_bits(number).into(), &geo), located(number));
        };
        // More addresses than places, so that they take each other's.
        (0..10_000).for_each(&mut ask);
        (0..10_000).rev().for_each(&mut ask);
        let distinct = geo.0.load(Ordering::Relaxed);
        assert!((10_000..20_000).contains(&distinct), "{distinct}");
        ask(7);
        ask(7);
        ask(7);
        assert!(geo.0.load(Ordering::Relaxed) <= distinct + 1, "of {} questions", asked.get());
    }
}
