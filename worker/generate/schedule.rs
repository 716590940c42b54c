//! Into which file each call goes, and what goes wrong on the way: disorder, delay, records sent again, broken
//! lines.
//!
//! Disorder is measured in a file, as the job does: a call out of order lies
//! behind the latest call of its file by less than the default `out_of_orderness` (5 s), a late one by more
//! than that and the default `allowed_lateness` (10 min) together, but less than the dedupe horizon (1 h).

use std::ops::RangeInclusive;

use jiff::SignedDuration;

use super::Args;
use super::draw::{Draw, Share, whole};

const OUT_OF_ORDER_MS: RangeInclusive<u32> = 1..=4_000;
const LATE_MS: RangeInclusive<u32> = 660_000..=2_460_000;

/// When one call happens and where it is written.
pub(super) struct Slot {
    /// Event time, in milliseconds since the epoch.
    pub(super) time: u64,
    pub(super) partition: usize,
    pub(super) out_of_order: bool,
    pub(super) late: bool,
}

/// The slots of a run, and what is written beside.
pub(super) struct Schedule {
    start_ms: u64,
    ms_per_call: f64,
    /// The latest call of each partition.
    latest: Vec<Option<u64>>,
    out_of_order: Share,
    late: Share,
    /// Whether a record is sent again now.
    pub(super) again: Share,
    /// Whether a broken line follows.
    pub(super) broken: Share,
    draw: Draw,
}

impl Schedule {
    pub(super) fn new(args: &Args, mut draw: Draw) -> Self {
        Self {
            start_ms: start_ms(args),
            ms_per_call: span_ms(args) as f64 / args.events.get() as f64,
            latest: vec![None; args.partitions as usize],
            out_of_order: Share::new(args.out_of_order, &mut draw),
            late: Share::new(args.late, &mut draw),
            again: Share::new(args.duplicates, &mut draw),
            broken: Share::new(args.broken, &mut draw),
            draw,
        }
    }

    /// When the call `index` happens if all come at an even rate.
    pub(super) fn even(&mut self, index: u64) -> u64 {
        self.start_ms + whole((index as f64 + self.draw.unit()) * self.ms_per_call)
    }

    /// The slot of a call that would be on time at `on_time`; to be asked for in the order of time.
    pub(super) fn slot(&mut self, on_time: u64) -> Slot {
        let partition = self.draw.below(self.latest.len() as u32) as usize;
        let (late, out_of_order) = (self.late.hit(), self.out_of_order.hit());
        let behind = match self.latest[partition] {
            Some(latest) if late => Some((latest, LATE_MS)),
            Some(latest) if out_of_order => Some((latest, OUT_OF_ORDER_MS)),
            _ => None,
        };
        let Some((latest, range)) = behind else {
            self.latest[partition] = Some(on_time);
            return Slot { time: on_time, partition, out_of_order: false, late: false };
        };
        let delay = range.start() + self.draw.below(range.end() - range.start() + 1);
        let time = latest.saturating_sub(u64::from(delay));
        Slot { time, partition, out_of_order: !late, late }
    }
}

/// Event time of the first call, in milliseconds since the epoch.
pub(super) fn start_ms(args: &Args) -> u64 {
    u64::try_from(args.start.as_millisecond()).unwrap_or(0)
}

/// Event time from the first call to the last, in milliseconds.
pub(super) fn span_ms(args: &Args) -> u64 {
    let span = args.days.map_or(args.span, |days| SignedDuration::from_hours(24 * i64::from(days)));
    u64::try_from(span.as_millis()).unwrap_or(0)
}
