//! In which order calls arrive, in which partition, and what goes wrong on the way: disorder, delay, records sent
//! again, broken lines.
//!
//! Calls are made in the order of time. One that is to be out of order or late is held back and arrives behind others
//! of its partition: what it says stays true, of a label's times too. Disorder is measured in a partition, as
//! the job does: a call out of order lies behind the latest call of its partition by less than the default
//! `out_of_orderness` (5 s), a late one by more than that and the default `allowed_lateness` (10 min) together, but
//! by less than the dedupe horizon (1 h).
//!
//! A call that was held back in vain, because none of its partition came meanwhile, counts as neither, and another
//! one is held back for it. Where calls are so few that ten minutes have none, one that is to be late
//! may be behind by less than late ones are: then it counts as neither too.
//!
//! Limits: no call of a run's last 11 minutes is late, the earlier ones make up for it; held are the late calls
//! of 59 minutes at most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::record::CallRecord;
use crate::draw::{Draw, EvenShare, whole};
use crate::world::settings::WorldSettings;

const OUT_OF_ORDER_MS: (u32, u32) = (1, 4_000);
const LATE_MS: (u32, u32) = (660_000, 2_460_000);
/// Behind by up to this counts as out of order ...
const MAX_OUT_OF_ORDER_MS: u64 = 5_000;
/// ... and by more than this as late.
const MIN_LATE_MS: u64 = 605_000;
/// A call that isn't late yet is held back for so long once more ...
const LONGER_MS: u64 = 60_000;
/// ... but for no longer than this in all.
const LONGEST_MS: u64 = 3_540_000;

/// One call, as it arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) record: CallRecord,
    pub(crate) partition: usize,
    /// When, in milliseconds since the epoch: never before the call, nor before the arrival before.
    pub(crate) at_ms: u64,
    pub(crate) out_of_order: bool,
    pub(crate) late: bool,
}

/// A call that arrives later; ordered by when, then by when it was made.
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

/// A sort of disorder, and how much of it is due.
struct Disorder {
    share: EvenShare,
    /// Calls that were held back in vain.
    owed: u64,
    /// Calls that are held back now.
    delayed: u64,
}

impl Disorder {
    fn new(share: f64, draw: &mut Draw) -> Self {
        Self { share: EvenShare::new(share, draw), owed: 0, delayed: 0 }
    }

    /// Whether a call is to be held back. For what is owed one at a time is, lest none be left to be behind of.
    fn wants(&mut self) -> bool {
        let due = self.share.hit();
        let repaid = !due && self.owed > 0 && self.delayed == 0;
        self.owed -= u64::from(repaid);
        self.delayed += u64::from(due || repaid);
        due || repaid
    }
}

/// The arrivals of a run, and what is sent beside.
pub(crate) struct Schedule {
    /// Calls are late only until then.
    late_until_ms: u64,
    end_ms: u64,
    /// The latest call of each partition.
    latest: Vec<Option<u64>>,
    out_of_order: Disorder,
    late: Disorder,
    delayed: BinaryHeap<Reverse<DelayedCall>>,
    /// The next call, where one is known.
    ahead: Option<CallRecord>,
    ended: bool,
    numbered: u64,
    at_ms: u64,
    /// Whether a record is sent again now.
    pub(crate) again: EvenShare,
    /// Whether a broken line follows.
    pub(crate) broken: EvenShare,
    draw: Draw,
}

impl Schedule {
    pub(crate) fn new(settings: &WorldSettings, mut draw: Draw) -> Self {
        let (start_ms, end_ms) = (settings.start_ms, settings.start_ms + settings.span_ms);
        let late_until_ms = end_ms.saturating_sub(u64::from(LATE_MS.0)).max(start_ms);
        // Those that can be late make up for those that can't.
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

    /// The next arrival of the calls that `next` gives, in the order of time.
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

    /// When the last arrival was, in milliseconds since the epoch.
    pub(crate) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Takes no more calls: what is held back arrives, then there is nothing more.
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

    /// A call arrives that was held back, unless it is to be late and isn't yet.
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
        // What is held back when the run ends early arrives at once.
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

/// Times of calls at an even rate.
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

    /// When the next call happens, in milliseconds since the epoch.
    fn next(&mut self) -> Option<u64> {
        if self.made == self.calls {
            return None;
        }
        let time = self.start_ms + whole((self.made as f64 + self.draw.unit()) * self.ms_per_call);
        self.made += 1;
        Some(time)
    }
}
