//! A cap that is dealt to 256 fixed buckets of keys: how many were admitted to each, by period.
//!
//! A bucket has room for a 256th of the limit, rounded down, at least one. A bucket is on one worker, so the result
//! doesn't depend on how many workers there are. 1 KiB a period.

use std::collections::BTreeMap;

use crate::model::EventTime;
use crate::state::Footprint;

/// PeriodCounts that a cap is dealt to.
const BUCKETS: usize = 256;

/// How many were admitted against a cap, by period and bucket.
#[derive(Default)]
pub(crate) struct CapCounts(BTreeMap<EventTime, PeriodCounts>);

struct PeriodCounts {
    total: u64,
    counts: Box<[u32; BUCKETS]>,
}

impl CapCounts {
    /// A bucket's share of a limit.
    pub(crate) fn room(limit: usize) -> usize {
        (limit / BUCKETS).max(1)
    }

    pub(crate) fn has_room(&self, period: EventTime, bucket: u8, room: usize) -> bool {
        self.0.get(&period).is_none_or(|buckets| (buckets.counts[usize::from(bucket)] as usize) < room)
    }

    /// Takes a place in a bucket, if there is one.
    pub(crate) fn admit(&mut self, period: EventTime, bucket: u8, room: usize) -> bool {
        let has_room = self.has_room(period, bucket, room);
        if has_room {
            self.add(period, bucket, 1);
        }
        has_room
    }

    pub(crate) fn add(&mut self, period: EventTime, bucket: u8, count: u32) {
        let buckets =
            self.0.entry(period).or_insert_with(|| PeriodCounts { total: 0, counts: Box::new([0; BUCKETS]) });
        buckets.counts[usize::from(bucket)] += count;
        buckets.total += u64::from(count);
    }

    /// Over the buckets of this worker.
    pub(crate) fn of(&self, period: EventTime) -> u64 {
        self.0.get(&period).map_or(0, |buckets| buckets.total)
    }

    pub(crate) fn forget_before(&mut self, period: EventTime) {
        self.0 = self.0.split_off(&period);
    }

    /// By period and bucket, where there is something.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (EventTime, u8, u32)> {
        self.0.iter().flat_map(|(period, buckets)| {
            let counts = (0..=u8::MAX).zip(*buckets.counts).filter(|(_, count)| *count > 0);
            counts.map(move |(bucket, count)| (*period, bucket, count))
        })
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let bytes = self.0.len() * (size_of::<PeriodCounts>() + size_of::<[u32; BUCKETS]>());
        Footprint { rows: self.entries().count() as u64, bytes: bytes as u64 }
    }
}
