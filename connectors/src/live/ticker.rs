//! The watermark of a live job: what the partitions reached at a cut in, the tick's [`TickInfo`] out.
//!
//! Pure: no clock, no threads, no Kafka. A tick is decided by its cut alone (what every partition had reached,
//! whether it was at its end), so a recorded cut gives the same tick again.
//!
//! * **Watermark**: the minimum over *active* partitions of (running maximum - out_of_orderness), at most the
//!   tick, never back. A partition without any event yet holds it where it is.
//! * **Idle**: at its end without an event for `idle_ticks` ticks in a row, whatever else it has (a partition of bad
//!   records holds nobody back); an idle partition doesn't count. When all are idle the clock takes over:
//!   max(previous, tick - out_of_orderness).
//! * **Steps**: one tick raises the watermark by at most [`STEP_MS`], so that no operator sees more than one of
//!   the detector's windows close at once; a gap in which no event lies is jumped. What is left is done by the
//!   next ticks, which are then cut at once ([`Closed::behind`]).
//!
//! Limits: memory is two numbers a partition and one a minute of event time that is read ahead.

use std::collections::BTreeSet;

use keytide_dataflow::model::{EventTime, Tick, TickInfo};

/// How far one tick may raise the watermark.
pub const STEP_MS: u64 = 60_000;

/// What the decisions depend on besides the cuts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `[windows].out_of_orderness`.
    pub out_of_orderness_ms: u64,
    /// `[windows].idle_ticks`.
    pub idle_ticks: u32,
}

/// What one partition had reached when a tick was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Its greatest event time so far; `None` before its first event.
    pub maximum: Option<EventTime>,
    /// The offset that is read next.
    pub next_offset: u64,
    /// It was read to its end, at some time since the last cut.
    pub at_end: bool,
    /// Events that were read for this tick.
    pub events: u64,
}

/// A tick that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The tick.
    pub info: TickInfo,
    /// The watermark was held back by its step: further ticks are needed although nothing new was read.
    pub behind: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Ticker {
    rules: Rules,
    /// By partition: ticks in a row that it was at its end without an event.
    quiet: Vec<u32>,
    /// Minutes beyond the watermark in which events lie.
    minutes: BTreeSet<EventTime>,
    watermark: EventTime,
}

impl Ticker {
    /// A job without a tick yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, quiet: Vec::new(), minutes: BTreeSet::new(), watermark: 0 }
    }

    /// The watermark so far.
    #[must_use]
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Closes a tick. `reached` has all partitions, in their order; new ones are at its end. `minutes` are the
    /// starts of the minutes (of event time) in which the tick's events lie.
    pub fn close(
        &mut self,
        tick: Tick,
        reached: &[Reached],
        minutes: impl IntoIterator<Item = EventTime>,
        last: bool,
    ) -> Closed {
        let before = self.watermark;
        self.minutes.extend(minutes.into_iter().filter(|minute| minute + STEP_MS > before));
        self.quiet.resize(reached.len(), 0);
        let mut lowest = Some(EventTime::MAX);
        let mut active = false;
        for (partition, quiet) in reached.iter().zip(&mut self.quiet) {
            *quiet = if partition.at_end && partition.events == 0 { quiet.saturating_add(1) } else { 0 };
            if *quiet >= self.rules.idle_ticks {
                continue;
            }
            active = true;
            lowest = lowest.zip(partition.maximum).map(|(lowest, maximum)| lowest.min(maximum));
        }
        let reachable = match lowest {
            Some(lowest) if active => lowest.min(tick.saturating_add(self.rules.out_of_orderness_ms)),
            // All are idle, or there are none.
            Some(_) => tick,
            None => 0,
        };
        let wanted = reachable.saturating_sub(self.rules.out_of_orderness_ms).max(before);
        self.watermark = wanted.min(self.reach(before));
        let passed = self.watermark;
        self.minutes.retain(|minute| minute + STEP_MS > passed);
        let behind = self.watermark < wanted;
        let info = TickInfo {
            tick,
            watermark_before: before,
            watermark: self.watermark,
            cadence: tick,
            catching_up: behind,
            last,
        };
        Closed { info, behind }
    }

    /// How far a tick may go: a step, from the first minute with events on.
    fn reach(&self, before: EventTime) -> EventTime {
        match self.minutes.first() {
            Some(&first) => before.max(first).saturating_add(STEP_MS),
            None => EventTime::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000;
    const NOW: Tick = 30_000_000 * MINUTE;

    fn ticker() -> Ticker {
        Ticker::new(Rules { out_of_orderness_ms: 5_000, idle_ticks: 3 })
    }

    fn at(maximum: EventTime, at_end: bool, events: u64) -> Reached {
        Reached { maximum: Some(maximum), next_offset: 0, at_end, events }
    }

    fn minute(time: EventTime) -> EventTime {
        time - time % MINUTE
    }

    #[test]
    fn the_slowest_active_partition_holds_the_watermark() {
        let mut ticker = ticker();
        let (slow, fast) = (NOW - 20_000, NOW - 1_000);
        let close = |ticker: &mut Ticker, tick, reached: &[Reached]| {
            ticker.close(tick, reached, [minute(slow), minute(fast)], false).info.watermark
        };
        assert_eq!(close(&mut ticker, NOW, &[at(slow, false, 1), Reached::default()]), 0, "one is unknown");
        assert_eq!(close(&mut ticker, NOW + 1, &[at(slow, true, 0), at(fast, true, 9)]), slow - 5_000);
        // The slow one is at its end for the second and the third tick: then it is idle.
        assert_eq!(close(&mut ticker, NOW + 2, &[at(slow, true, 0), at(fast, true, 9)]), slow - 5_000);
        assert_eq!(close(&mut ticker, NOW + 3, &[at(slow, true, 0), at(fast, true, 9)]), fast - 5_000);
        // Back with old events it can't take the watermark back.
        assert_eq!(close(&mut ticker, NOW + 4, &[at(slow, true, 3), at(fast, true, 9)]), fast - 5_000);
    }

    #[test]
    fn the_clock_takes_over_when_all_is_quiet_and_bounds_what_runs_ahead() {
        let mut ticker = ticker();
        let early = ticker.close(NOW, &[at(NOW + 240_000, false, 1)], [NOW], false);
        assert_eq!(early.info.watermark, NOW, "a gateway's clock may be ahead, the watermark isn't");
        for second in 1..3 {
            ticker.close(NOW + second * 1_000, &[at(NOW, true, 0)], [], false);
        }
        let idle = ticker.close(NOW + 60_000, &[at(NOW, true, 0)], [], false);
        assert_eq!(idle.info.watermark, NOW + 55_000);
        assert_eq!(ticker.close(NOW + 61_000, &[], [], false).info.watermark, NOW + 56_000, "no partitions");
    }

    #[test]
    fn history_is_walked_in_steps_and_gaps_are_jumped() {
        let mut ticker = ticker();
        let start = NOW - 10_000 * MINUTE;
        let times = [start, start + MINUTE, start + 2 * MINUTE, start + 3 * MINUTE, start + 5_000 * MINUTE];
        let end = [at(times[4] + 5_000, false, 5)];
        let first = ticker.close(NOW, &[at(start + 5_000, false, 1)], [start], false);
        assert_eq!((first.info.watermark, first.behind), (start, false));
        let mut marks = Vec::new();
        let mut tick = NOW;
        loop {
            tick += 1;
            let minutes = if marks.is_empty() { &times[..] } else { &[] };
            let closed = ticker.close(tick, &end, minutes.iter().copied(), false);
            assert_eq!(closed.info.watermark_before, *marks.last().unwrap_or(&start));
            marks.push(closed.info.watermark);
            if !closed.behind {
                break;
            }
        }
        assert_eq!(marks, [times[1], times[2], times[3], times[3] + MINUTE, times[4]]);
    }

    proptest! {
        #[test]
        fn watermarks_never_go_back_nor_pass_an_active_partition(
            cuts in prop::collection::vec(prop::collection::vec((0_u64..600_000, any::<bool>(), 0_u64..2), 1..4), 1..40)
        ) {
            let mut ticker = ticker();
            let mut maxima = [0; 4];
            for (number, cut) in (0_u64..).zip(&cuts) {
                let tick = NOW + number * 1_000;
                let reached: Vec<Reached> = cut.iter().zip(&mut maxima).map(|(&(behind, at_end, events), maximum)| {
                    if events > 0 { *maximum = (tick - behind).max(*maximum); }
                    Reached { maximum: (*maximum > 0).then_some(*maximum), next_offset: 0, at_end, events }
                }).collect();
                let minutes: Vec<_> = reached.iter().filter_map(|part| part.maximum).map(minute).collect();
                let before = ticker.watermark();
                let closed = ticker.close(tick, &reached, minutes, false);
                let after = closed.info.watermark;
                prop_assert!(after >= before && after <= tick);
                for (part, quiet) in reached.iter().zip(&ticker.quiet) {
                    if *quiet < 3 {
                        prop_assert!(after == before || part.maximum.is_some_and(|maximum| after + 5_000 <= maximum));
                    }
                }
                prop_assert!(!closed.behind || after >= before + STEP_MS);
            }
        }
    }
}
