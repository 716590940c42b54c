//! Deals a cap to 256 fixed buckets of keys, and counts the ids admitted to each, by period.
//!
//! A bucket has room for a 256th of the limit, rounded down, at least one. A bucket is on one worker, so the result
//! doesn't depend on how many workers there are. A period takes 1 KiB.

use std::collections::BTreeMap;

use crate::model::EventTime;
use crate::state::Footprint;

/// The number of buckets that a cap is dealt to.
const BUCKETS: usize = 256;

/// The number of ids admitted under a cap, by period and bucket.
#[derive(Default)]
pub(crate) struct CapCounts(BTreeMap<EventTime, PeriodCounts>);

struct PeriodCounts {
    total: u64,
    counts: Box<[u32; BUCKETS]>,
}

impl CapCounts {
    /// Returns a bucket's share of a limit.
    pub(crate) fn room(limit: usize) -> usize {
        (limit / BUCKETS).max(1)
    }

    pub(crate) fn has_room(&self, period: EventTime, bucket: u8, room: usize) -> bool {
        self.0.get(&period).is_none_or(|buckets| (buckets.counts[usize::from(bucket)] as usize) < room)
    }

    /// Takes up room of a bucket for one id, and returns true if there was room.
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

    /// Returns the sum over the buckets of this worker.
    pub(crate) fn of(&self, period: EventTime) -> u64 {
        self.0.get(&period).map_or(0, |buckets| buckets.total)
    }

    pub(crate) fn forget_before(&mut self, period: EventTime) {
        self.0 = self.0.split_off(&period);
    }

    /// Returns the counts above 0 by period and bucket.
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
