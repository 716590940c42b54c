//! The schedule decides in which order and partition calls arrive, and adds faults on the way: disorder, delay, duplicate
//! records, broken lines.
//!
//! Calls are made in order of time. A call that is to be out of order or late is delayed and arrives behind others of its
//! partition. Its content stays the same, so labels stay true. Disorder is measured in a partition, as the job does. A
//! call out of order is behind the latest call of its partition by less than the default `out_of_orderness` (5 s). A late
//! one is behind by more than this plus the default `allowed_lateness` (10 min), but by less than the dedupe horizon
//! (1 h).
//!
//! If no other call of the partition comes meanwhile, the delay has no effect. Such a call counts as neither, and another
//! one is delayed for it. In partitions with less than a call in ten minutes, a call may be delayed too little to be
//! late. It counts as neither, too.
//!
//! Limits: no call of a run's last 11 minutes is late, for which more of the earlier ones are. The late calls of at most
//! 59 minutes are in memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::record::CallRecord;
use crate::draw::{Draw, EvenShare, whole};
use crate::world::settings::WorldSettings;

const OUT_OF_ORDER_MS: (u32, u32) = (1, 4_000);
const LATE_MS: (u32, u32) = (660_000, 2_460_000);
/// A call that is behind by at most this counts as out of order.
const MAX_OUT_OF_ORDER_MS: u64 = 5_000;
/// A call that is behind by more than this counts as late.
const MIN_LATE_MS: u64 = 605_000;
/// A call that isn't late enough yet is delayed by this once more.
const LONGER_MS: u64 = 60_000;
/// No call is delayed by more than this.
const LONGEST_MS: u64 = 3_540_000;

/// A call as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) record: CallRecord,
    pub(crate) partition: usize,
    /// The time of arrival, in milliseconds since the epoch. It is never before the call or the previous arrival.
    pub(crate) at_ms: u64,
    pub(crate) out_of_order: bool,
    pub(crate) late: bool,
}

/// A delayed call; ordered by arrival, then by the order in which calls were made.
struct DelayedCall {
    until_ms: u64,
    number: u64,
    partition: usize,
    late: bool,
    record: CallRecord,
}

impl Ord for DelayedCall {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.until_ms, self.number).cmp(&(other.until_ms, other.number))
    }
}

impl PartialOrd for DelayedCall {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for DelayedCall {}

impl PartialEq for DelayedCall {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

/// One sort of disorder, with the number of calls that still need it.
struct Disorder {
    share: EvenShare,
    /// Counts calls that were delayed without effect.
    owed: u64,
    /// Counts calls that are delayed now.
    delayed: u64,
}

impl Disorder {
    fn new(share: f64, draw: &mut Draw) -> Self {
        Self { share: EvenShare::new(share, draw), owed: 0, delayed: 0 }
    }

    /// Decides whether a call is delayed. Owed delays come one at a time, so that other calls remain to overtake them.
    fn wants(&mut self) -> bool {
        let due = self.share.hit();
        let repaid = !due && self.owed > 0 && self.delayed == 0;
        self.owed -= u64::from(repaid);
        self.delayed += u64::from(due || repaid);
        due || repaid
    }
}

/// The arrivals of a run, and the duplicates and broken lines between them.
pub(crate) struct Schedule {
    /// Later calls are never delayed to be late.
    late_until_ms: u64,
    end_ms: u64,
    /// The time of the latest call of each partition.
    latest: Vec<Option<u64>>,
    out_of_order: Disorder,
    late: Disorder,
    delayed: BinaryHeap<Reverse<DelayedCall>>,
    /// The next call, if it was drawn already.
    ahead: Option<CallRecord>,
    ended: bool,
    numbered: u64,
    at_ms: u64,
    /// Decides whether a duplicate record follows.
    pub(crate) again: EvenShare,
    /// Decides whether a broken line follows.
    pub(crate) broken: EvenShare,
    draw: Draw,
}

impl Schedule {
    pub(crate) fn new(settings: &WorldSettings, mut draw: Draw) -> Self {
        let (start_ms, end_ms) = (settings.start_ms, settings.start_ms + settings.span_ms);
        let late_until_ms = end_ms.saturating_sub(u64::from(LATE_MS.0)).max(start_ms);
        // The calls that can be late make up for those that can't.
        let late = match late_until_ms - start_ms {
            0 => 0.0,
            part => (settings.late * settings.span_ms as f64 / part as f64).min(1.0),
        };
        Self {
            late_until_ms,
            end_ms,
            latest: vec![None; settings.partitions as usize],
            out_of_order: Disorder::new(settings.out_of_order, &mut draw),
            late: Disorder::new(late, &mut draw),
            delayed: BinaryHeap::new(),
            ahead: None,
            ended: false,
            numbered: 0,
            at_ms: start_ms,
            again: EvenShare::new(settings.duplicates, &mut draw),
            broken: EvenShare::new(settings.broken, &mut draw),
            draw,
        }
    }

    /// Returns the next arrival. `next` makes the calls, in order of time.
    pub(crate) fn next(&mut self, mut next: impl FnMut() -> Option<CallRecord>) -> Option<Arrival> {
        loop {
            if self.ahead.is_none() && !self.ended {
                self.ahead = next();
                self.ended = self.ahead.is_none();
            }
            let due_ms = self.delayed.peek().map(|Reverse(delayed)| delayed.until_ms);
            let arrival = match self.ahead.take_if(|call| due_ms.is_none_or(|due_ms| call.time < due_ms)) {
                Some(call) => self.send(call),
                None => {
                    let Reverse(delayed) = self.delayed.pop()?;
                    self.release(delayed)
                }
            };
            if arrival.is_some() {
                return arrival;
            }
        }
    }

    /// Returns the time of the last arrival, in milliseconds since the epoch.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Takes no more calls. The delayed ones still arrive.
    pub(crate) fn stop(&mut self) {
        self.ended = true;
    }

    fn send(&mut self, record: CallRecord) -> Option<Arrival> {
        let partition = self.draw.below(self.latest.len() as u32) as usize;
        let left_ms = self.end_ms.saturating_sub(record.time);
        let late = record.time < self.late_until_ms && self.late.wants();
        let delay_ms = if late {
            Some(u64::from(self.draw.between(LATE_MS)).min(left_ms))
        } else if self.out_of_order.wants() {
            Some(u64::from(self.draw.between(OUT_OF_ORDER_MS)))
        } else {
            None
        };
        let Some(delay_ms) = delay_ms else {
            return Some(self.arrive(record, partition, record.time));
        };
        self.numbered += 1;
        let until_ms = record.time + delay_ms;
        self.delayed.push(Reverse(DelayedCall { until_ms, number: self.numbered, partition, late, record }));
        None
    }

    /// Lets a delayed call arrive, or delays it again if it is to be late and isn't yet.
    fn release(&mut self, delayed: DelayedCall) -> Option<Arrival> {
        let DelayedCall { until_ms, partition, late, record, .. } = delayed;
        let latest = self.latest[partition].unwrap_or(0);
        let longer_ms = until_ms + LONGER_MS;
        if late && !self.ended && latest <= record.time + MIN_LATE_MS && longer_ms <= record.time + LONGEST_MS
        {
            self.delayed.push(Reverse(DelayedCall { until_ms: longer_ms, ..delayed }));
            return None;
        }
        let arrival = self.arrive(record, partition, until_ms);
        let sort = if late { &mut self.late } else { &mut self.out_of_order };
        sort.delayed -= 1;
        sort.owed += u64::from(if late { !arrival.late } else { !arrival.out_of_order });
        Some(arrival)
    }

    fn arrive(&mut self, record: CallRecord, partition: usize, at_ms: u64) -> Arrival {
        // If the run is stopped, all delayed calls arrive at once.
        self.at_ms = if self.ended { self.at_ms } else { self.at_ms.max(at_ms) };
        let latest = self.latest[partition].unwrap_or(0).max(record.time);
        self.latest[partition] = Some(latest);
        let behind_ms = latest - record.time;
        Arrival {
            record,
            partition,
            at_ms: self.at_ms,
            out_of_order: (1..=MAX_OUT_OF_ORDER_MS).contains(&behind_ms),
            late: behind_ms > MIN_LATE_MS,
        }
    }
}

/// The times of calls at an even rate.
pub(crate) struct EvenTimes {
    start_ms: u64,
    ms_per_call: f64,
    calls: u64,
    made: u64,
    draw: Draw,
}

impl EvenTimes {
    pub(crate) fn new(settings: &WorldSettings, draw: Draw) -> Self {
        let calls = settings.events.get();
        let ms_per_call = settings.span_ms as f64 / calls as f64;
        Self { start_ms: settings.start_ms, ms_per_call, calls, made: 0, draw }
    }
}

impl Iterator for EvenTimes {
    type Item = u64;

    /// Returns the time of the next call, in milliseconds since the epoch.
    fn next(&mut self) -> Option<u64> {
        if self.made == self.calls {
            return None;
        }
        let time = self.start_ms + whole((self.made as f64 + self.draw.unit()) * self.ms_per_call);
        self.made += 1;
        Some(time)
    }
}
