//! `geo`: calls by key and country, with the autonomous systems they came from.
//!
//! Systems are counted exactly and without a cap: their number is bounded by what the geo database knows
//! for a country (the largest has some 20,000), whoever sends the traffic.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::windowed::{Accumulator, Group, Metric};
use crate::model::{AccessEvent, EventTime};
use crate::row::{Geo, KeyCountry, Row, Rows};
use crate::state::{StateId, spilled};
use crate::window::Level;

/// How many autonomous systems a row names.
const TOP_ASNS: usize = 5;

/// Calls from a country.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    calls: u64,
    errors: u64,
    /// (number, calls), in the order of numbers; system 0 is unknown and not listed.
    asns: SmallVec<[(u32, u64); 1]>,
}

impl Origin {
    #[inline]
    fn count(&mut self, asn: u32, calls: u64) {
        match self.asns.binary_search_by_key(&asn, |entry| entry.0) {
            Ok(index) => self.asns[index].1 += calls,
            Err(index) => self.asns.insert(index, (asn, calls)),
        }
    }

    fn top(&self) -> SmallVec<[(u32, u64); 2]> {
        let mut asns: SmallVec<[(u32, u64); 2]> = self.asns.iter().copied().collect();
        asns.sort_unstable_by_key(|(asn, calls)| (std::cmp::Reverse(*calls), *asn));
        asns.truncate(TOP_ASNS);
        asns
    }
}

impl Accumulator for Origin {
    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        for (asn, calls) in &other.asns {
            self.count(*asn, *calls);
        }
    }

    fn owned_bytes(&self) -> usize {
        spilled(&self.asns)
    }
}

impl Group for KeyCountry {
    fn shard(&self) -> u64 {
        self.key.shard()
    }
}

/// `geo`.
pub(crate) struct GeoMetric;

impl Metric for GeoMetric {
    const ID: StateId = StateId::Geo;
    const LEVELS: &'static [Level] = &[Level::Hour, Level::Day];
    type Group = KeyCountry;
    type Acc = Origin;
    type Context = ();
    type RowGroup = KeyCountry;
    type Value = Geo;

    #[inline]
    fn group(event: &AccessEvent) -> Option<KeyCountry> {
        Some(KeyCountry { key: event.key, country: event.country })
    }
    #[inline]
    fn observe(acc: &mut Origin, event: &AccessEvent) {
        acc.calls += 1;
        acc.errors += u64::from(event.is_4xx() || event.is_5xx());
        if event.asn != 0 {
            acc.count(event.asn, 1);
        }
    }
    fn subject(_: &KeyCountry) {}
    fn row_group(group: KeyCountry) -> KeyCountry {
        group
    }
    fn value(acc: Option<&Origin>, _: &KeyCountry, _: EventTime, (): &()) -> Option<Geo> {
        acc.map(|origin| Geo { calls: origin.calls, errors: origin.errors, asns: origin.top() })
    }
    fn rows(rows: Vec<Row<KeyCountry, Geo>>) -> Rows {
        Rows::Geo(rows)
    }
}
