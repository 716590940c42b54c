//! The ceiling: the least that five of the meters can cost on one core.
//!
//! Plain loops over flat hash maps: one to drop duplicates, then one a metric over what is left, tick by tick.
//! There is one window level each instead of several, no watermark, nothing late, no correction, no tables, no
//! exchange, no rows out, no state to restore. What the operators do beyond that (eight metrics, all levels,
//! bookings to subscriptions, rows with their owners) is in their figure and not in this one, so their ratio to
//! it is no share of waste: it says how far any dataflow could get.

use hashbrown::{HashMap, HashSet};
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::model::{AccessEvent, Country, EventTime, KeyId, RequestId, RouteId};

#[derive(Default)]
struct Usage {
    calls: u64,
    errors_4xx: u64,
    errors_5xx: u64,
    bytes_in: u64,
    bytes_out: u64,
    latency_sum_us: u64,
    latency_calls: u64,
}

impl Usage {
    fn add(&mut self, event: &AccessEvent) {
        self.calls += 1;
        self.errors_4xx += u64::from(event.is_4xx());
        self.errors_5xx += u64::from(event.is_5xx());
        self.bytes_in += event.bytes_in;
        self.bytes_out += event.bytes_out;
        if let Some(latency) = event.latency() {
            self.latency_sum_us += latency;
            self.latency_calls += 1;
        }
    }
}

/// The meters' maps.
#[derive(Default)]
pub(crate) struct Ceiling {
    seen: HashSet<RequestId>,
    unique: Vec<AccessEvent>,
    usage: HashMap<(EventTime, KeyId), Usage>,
    by_route: HashMap<(EventTime, KeyId, RouteId), Usage>,
    /// (bucket, calls) in the order of buckets.
    latency: HashMap<(EventTime, KeyId), Vec<(u16, u32)>>,
    geo: HashMap<(EventTime, KeyId, Country), (u64, u64)>,
    callers: HashSet<(EventTime, KeyId, u128)>,
}

impl Ceiling {
    /// Meters one tick.
    pub(crate) fn tick(&mut self, batches: &[&[AccessEvent]]) {
        self.unique.clear();
        for event in batches.iter().copied().flatten() {
            if self.seen.insert(event.request) {
                self.unique.push(*event);
            }
        }
        for event in &self.unique {
            self.usage.entry((start(event, MINUTE_MS), event.key)).or_default().add(event);
        }
        for event in &self.unique {
            let group = (start(event, 60 * MINUTE_MS), event.key, event.route);
            self.by_route.entry(group).or_default().add(event);
        }
        for event in &self.unique {
            let Some(latency) = event.latency() else { continue };
            let buckets = self.latency.entry((start(event, 5 * MINUTE_MS), event.key)).or_default();
            let bucket = bucket(latency);
            match buckets.binary_search_by_key(&bucket, |entry| entry.0) {
                Ok(index) => buckets[index].1 += 1,
                Err(index) => buckets.insert(index, (bucket, 1)),
            }
        }
        for event in &self.unique {
            let group = (start(event, 60 * MINUTE_MS), event.key, event.country);
            let (calls, errors) = self.geo.entry(group).or_default();
            *calls += 1;
            *errors += u64::from(event.is_4xx() || event.is_5xx());
        }
        for event in &self.unique {
            self.callers.insert((start(event, 24 * 60 * MINUTE_MS), event.key, event.client));
        }
    }

    /// Calls that were metered.
    pub(crate) fn calls(&self) -> u64 {
        self.usage.values().map(|usage| usage.calls).sum()
    }

    /// Groups of all metrics.
    pub(crate) fn groups(&self) -> usize {
        let Self { usage, by_route, latency, geo, callers, .. } = self;
        usage.len() + by_route.len() + latency.len() + geo.len() + callers.len()
    }
}

fn start(event: &AccessEvent, width: u64) -> EventTime {
    event.time - event.time % width
}

/// Log-linear with six mantissa bits, as the meters' histograms.
fn bucket(latency_us: u64) -> u16 {
    let exponent = (latency_us | 64).ilog2() - 6;
    ((u64::from(exponent) << 6) + (latency_us >> exponent)) as u16
}
