//! The watermark of a live job: it takes how far partitions are at a cut, and returns the tick's [`TickInfo`].
//!
//! It is pure: no clock, no threads, no Kafka. A tick is decided by its cut alone: how far every partition was, and
//! whether it was at its end. So a recorded cut gives the same tick again.
//!
//! * **Watermark**: the minimum over *active* partitions of (running maximum - out_of_orderness). It is at most the
//!   tick and never goes back. A partition that never had an event holds it where it is.
//! * **Idle**: at its end without an event for `idle_ticks` ticks in a row, whatever else it has. An idle partition
//!   doesn't count, so a partition of bad records holds no other back. When all are idle or slow the clock takes
//!   over: max(previous, tick - out_of_orderness).
//! * **Slow**: more than `skew_ms` behind the others, at its end, for `idle_ticks` ticks in a row, and with events
//!   in the last of them. A gateway whose clock is slow would otherwise hold back all others for as long as it
//!   sends. Its events then count as corrections of windows that are closed, and are late for the detector. It
//!   counts again when it is no more than half of `skew_ms` behind. *The others* are the furthest running maximum
//!   of any partition. Idle partitions are included and leaps aren't, so one stray time makes no partition slow. A
//!   partition that reads a backlog isn't at its end, and holds the watermark.
//! * **Steps**: one tick raises the watermark by at most [`STEP_MS`], so that no operator sees more than one of the
//!   detector's windows close at once. A gap without events is jumped. The next ticks raise it further, and are
//!   then cut at once ([`ClosedTick::behind`]).
//!
//! Limits: memory is four numbers a partition, and one a minute of event time that is read ahead.

use std::collections::BTreeSet;

use keytide_dataflow::model::{EventTime, Tick, TickInfo};
use serde::{Deserialize, Serialize};

use crate::ledger::PartitionProgress;

/// How far one tick may raise the watermark.
pub const STEP_MS: u64 = 60_000;

/// The settings that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub struct TickerRules {
    pub out_of_orderness_ms: u64,
    pub idle_ticks: u32,
    pub skew_ms: u64,
}

/// A tick that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedTick {
    pub info: TickInfo,
    /// True if the step held the watermark back: further ticks are needed even without new records.
    pub behind: bool,
}

/// Decides the watermark of every tick of a live job.
#[derive(Debug)]
pub struct Ticker {
    rules: TickerRules,
    memory: TickerMemory,
}

/// Everything that a [`Ticker`] remembers from tick to tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickerMemory {
    paces: Vec<PartitionPace>,
    /// The minutes beyond the watermark that have events.
    minutes: BTreeSet<EventTime>,
    watermark: EventTime,
}

impl TickerMemory {
    /// Returns the watermark of the last tick.
    #[must_use]
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }
}

/// How a partition keeps up with the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PartitionPace {
    /// The number of ticks in a row that it was at its end without an event.
    quiet: u32,
    /// The number of ticks in a row that it was at its end and behind; those in which it is idle don't matter.
    behind: u32,
    behind_ms: u64,
    is_slow: bool,
}

impl PartitionPace {
    /// Updates the pace with how far the partition is, when the furthest one is at `front`.
    fn learn(&mut self, reached: &PartitionProgress, front: EventTime, rules: &TickerRules) {
        let PartitionProgress { maximum, at_end, events, .. } = *reached;
        self.quiet = if at_end && events == 0 { self.quiet.saturating_add(1) } else { 0 };
        if self.is_idle(rules) {
            return;
        }
        self.behind_ms = maximum.map_or(0, |maximum| front.saturating_sub(maximum));
        let is_behind = self.behind_ms > if self.is_slow { rules.skew_ms / 2 } else { rules.skew_ms };
        // A slow partition stays slow until it has caught up, also while it reads many events at once.
        self.behind = if is_behind && (at_end || self.is_slow) { self.behind.saturating_add(1) } else { 0 };
        self.is_slow = is_behind && (self.is_slow || events > 0 && self.behind >= rules.idle_ticks);
    }

    fn is_idle(&self, rules: &TickerRules) -> bool {
        self.quiet >= rules.idle_ticks
    }
}

impl Ticker {
    /// Starts a job that has no tick yet.
    #[must_use]
    pub fn new(rules: TickerRules) -> Self {
        Self::resume(rules, TickerMemory::default())
    }

    /// Goes on with the memory of an earlier life of the job.
    #[must_use]
    pub fn resume(rules: TickerRules, memory: TickerMemory) -> Self {
        Self { rules, memory }
    }

    /// Returns everything that it remembers.
    #[must_use]
    pub fn memory(&self) -> &TickerMemory {
        &self.memory
    }

    /// Returns the watermark of the last tick.
    #[must_use]
    pub fn watermark(&self) -> EventTime {
        self.memory.watermark
    }

    /// Returns how many ms each partition is behind the others if it is slow; 0 while it is idle as well.
    pub fn slow(&self) -> impl Iterator<Item = Option<u64>> {
        let behind_ms = |pace: &PartitionPace| if pace.is_idle(&self.rules) { 0 } else { pace.behind_ms };
        self.memory.paces.iter().map(move |pace| pace.is_slow.then(|| behind_ms(pace)))
    }

    /// Closes a tick, for which `reached` has all partitions in their order, new ones at its end. `minutes` are the
    /// starts of the minutes (of event time) that have events of the tick.
    pub fn close(
        &mut self,
        tick: Tick,
        reached: &[PartitionProgress],
        minutes: impl IntoIterator<Item = EventTime>,
        last: bool,
    ) -> ClosedTick {
        let before = self.memory.watermark;
        self.memory.minutes.extend(minutes.into_iter().filter(|minute| minute + STEP_MS > before));
        self.memory.paces.resize(reached.len(), PartitionPace::default());
        // A clock that is fast makes no partition slow.
        let front = reached.iter().filter_map(|partition| partition.settled).max().unwrap_or(0).min(tick);
        let mut lowest = Some(EventTime::MAX);
        let mut active = false;
        for (partition, pace) in reached.iter().zip(&mut self.memory.paces) {
            pace.learn(partition, front, &self.rules);
            if pace.is_idle(&self.rules) || pace.is_slow {
                continue;
            }
            active = true;
            lowest = lowest.zip(partition.maximum).map(|(lowest, maximum)| lowest.min(maximum));
        }
        let reachable = match lowest {
            Some(lowest) if active => lowest.min(tick.saturating_add(self.rules.out_of_orderness_ms)),
            // No partition is active.
            Some(_) => tick,
            None => 0,
        };
        let wanted = reachable.saturating_sub(self.rules.out_of_orderness_ms).max(before);
        let passed = wanted.min(self.reach(before));
        self.memory.watermark = passed;
        self.memory.minutes.retain(|minute| minute + STEP_MS > passed);
        let behind = passed < wanted;
        let info = TickInfo {
            tick,
            watermark_before: before,
            watermark: passed,
            cadence: tick,
            catching_up: behind,
            last,
        };
        ClosedTick { info, behind }
    }

    /// Returns how far a tick may go: a step from the first minute with events.
    fn reach(&self, before: EventTime) -> EventTime {
        match self.memory.minutes.first() {
            Some(&first) => before.max(first).saturating_add(STEP_MS),
            None => EventTime::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};
    use proptest::prelude::*;

    use super::*;

    const NOW: Tick = 30_000_000 * MINUTE_MS;

    fn ticker() -> Ticker {
        Ticker::new(TickerRules { out_of_orderness_ms: 5_000, idle_ticks: 3, skew_ms: 5 * MINUTE_MS })
    }

    fn at(maximum: EventTime, at_end: bool, events: u64) -> PartitionProgress {
        PartitionProgress { maximum: Some(maximum), settled: Some(maximum), next_offset: 0, at_end, events }
    }

    fn minute(time: EventTime) -> EventTime {
        time - time % MINUTE_MS
    }

    #[test]
    fn the_slowest_active_partition_holds_the_watermark() {
        let mut ticker = ticker();
        let (slow, fast) = (NOW - 20_000, NOW - 1_000);
        let close = |ticker: &mut Ticker, tick, reached: &[PartitionProgress]| {
            ticker.close(tick, reached, [minute(slow), minute(fast)], false).info.watermark
        };
        assert_eq!(
            close(&mut ticker, NOW, &[at(slow, false, 1), PartitionProgress::default()]),
            0,
            "one is unknown"
        );
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

    /// Runs ticks in which each partition is behind by some ms, is at its end or not, and has some events. Returns
    /// for each tick how many ms the watermark is behind it, and which partitions are slow.
    fn run(
        ticker: &mut Ticker,
        ticks: std::ops::Range<u64>,
        cut: &[(u64, bool, u64)],
    ) -> Vec<(u64, Vec<bool>)> {
        ticks
            .map(|number| {
                let tick = NOW + number * 1_000;
                let reached: Vec<PartitionProgress> =
                    cut.iter().map(|(behind, at_end, events)| at(tick - behind, *at_end, *events)).collect();
                let minutes: Vec<_> = reached.iter().filter_map(|part| part.maximum).map(minute).collect();
                ticker.close(tick, &reached, minutes, false);
                let slow = ticker.slow().map(|behind| behind.is_some()).collect();
                (tick - ticker.watermark(), slow)
            })
            .collect()
    }

    #[test]
    fn a_slow_clock_holds_nobody_back_for_longer_than_idle_ticks() {
        let mut ticker = ticker();
        let slow = |behind| [(0, true, 5), (behind, true, 5)];
        let ticks = run(&mut ticker, 0..6, &slow(HOUR_MS));
        assert_eq!(ticks[1], (HOUR_MS + 5_000, vec![false; 2]));
        assert_eq!(ticks[2].1, [false, true]);
        // The minutes between are walked, of which few have events.
        assert_eq!(ticks[5], (5_000, vec![false, true]));
        assert_eq!(ticker.slow().collect::<Vec<_>>(), [None, Some(HOUR_MS)]);
        run(&mut ticker, 6..9, &[(0, true, 5), (HOUR_MS, true, 0)]);
        assert_eq!(ticker.slow().collect::<Vec<_>>(), [None, Some(0)], "and idle");
        // It stays slow while it reads what came in a heap, and until it is half of the skew behind.
        for (behind, at_end, is_slow) in [
            (HOUR_MS, false, true),
            (4 * MINUTE_MS, true, true),
            (150_001, true, true),
            (150_000, true, false),
        ] {
            let last = run(&mut ticker, 4..5, &[(0, true, 5), (behind, at_end, 5)]).pop().unwrap();
            assert_eq!(last.1, [false, is_slow], "{behind}");
            run(&mut ticker, 5..6, &slow(HOUR_MS));
        }
        // Not before it is more than the skew behind.
        let mut ticker = self::ticker();
        assert_eq!(run(&mut ticker, 0..9, &slow(5 * MINUTE_MS)), vec![(305_000, vec![false; 2]); 9]);
        assert_eq!(run(&mut ticker, 9..15, &slow(5 * MINUTE_MS + 1)).pop(), Some((5_000, vec![false, true])));
    }

    #[test]
    fn a_backlog_that_is_read_holds_the_watermark_and_one_that_came_late_is_not_slow() {
        let mut ticker = ticker();
        let reading = run(&mut ticker, 0..20, &[(0, true, 5), (2 * HOUR_MS, false, 500)]);
        assert_eq!(reading, vec![(2 * HOUR_MS + 5_000, vec![false; 2]); 20]);
        // A heap in one tick, and then nothing: it is idle.
        let mut ticker = self::ticker();
        run(&mut ticker, 0..1, &[(0, true, 5), (2 * HOUR_MS, true, 300)]);
        assert_eq!(
            run(&mut ticker, 1..9, &[(0, true, 5), (2 * HOUR_MS, true, 0)]).pop(),
            Some((5_000, vec![false; 2]))
        );
    }

    #[test]
    fn partitions_that_are_equally_behind_and_stray_times_make_nobody_slow() {
        let mut ticker = ticker();
        let all = run(&mut ticker, 0..20, &[(HOUR_MS, true, 5), (HOUR_MS + 5 * MINUTE_MS, true, 5)]);
        assert!(all.iter().all(|(_, slow)| !slow.contains(&true)), "{all:?}");
        let mut ticker = self::ticker();
        for second in 0..20 {
            let tick = NOW + second * 1_000;
            let stray = PartitionProgress { maximum: Some(tick), ..at(tick - HOUR_MS, true, 5) };
            ticker.close(tick, &[stray, at(tick - HOUR_MS, true, 5)], [minute(tick - HOUR_MS)], false);
            assert_eq!(ticker.slow().collect::<Vec<_>>(), [None, None]);
        }
        // A clock that is fast is no more than the tick.
        let mut ticker = Ticker::new(TickerRules { skew_ms: MINUTE_MS, ..self::ticker().rules });
        for second in 0..20 {
            let tick = NOW + second * 1_000;
            ticker.close(
                tick,
                &[at(tick + 240_000, true, 5), at(tick - 2_000, true, 5)],
                [minute(tick)],
                false,
            );
            assert_eq!(ticker.slow().collect::<Vec<_>>(), [None, None]);
        }
    }

    #[test]
    fn recorded_cuts_give_the_same_ticks() {
        let mut random = 7_u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let cuts: Vec<Vec<PartitionProgress>> = (0..500)
            .map(|second| {
                let tick = NOW + second * 1_000;
                let behind = [0, 20 * MINUTE_MS * (second / 100 % 2)];
                behind.map(|behind| at(tick - behind - below(9_000), below(8) > 0, below(3))).to_vec()
            })
            .collect();
        let replay = |mut ticker: Ticker| -> Vec<(ClosedTick, Vec<Option<u64>>)> {
            (0..)
                .zip(&cuts)
                .map(|(second, cut): (u64, _)| {
                    let minutes = cut.iter().filter_map(|part| part.maximum).map(minute);
                    let closed = ticker.close(NOW + second * 1_000, cut, minutes, false);
                    (closed, ticker.slow().collect())
                })
                .collect()
        };
        let first = replay(ticker());
        assert_eq!(first, replay(ticker()));
        let slow = first.iter().filter(|(_, slow)| slow.iter().any(Option::is_some)).count();
        assert!((100..400).contains(&slow), "{slow}");
    }

    #[test]
    fn history_is_walked_in_steps_and_gaps_are_jumped() {
        let mut ticker = ticker();
        let start = NOW - 10_000 * MINUTE_MS;
        let times = [
            start,
            start + MINUTE_MS,
            start + 2 * MINUTE_MS,
            start + 3 * MINUTE_MS,
            start + 5_000 * MINUTE_MS,
        ];
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
        assert_eq!(marks, [times[1], times[2], times[3], times[3] + MINUTE_MS, times[4]]);
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
                let reached: Vec<PartitionProgress> = cut.iter().zip(&mut maxima).map(|(&(behind, at_end, events), maximum)| {
                    if events > 0 { *maximum = (tick - behind).max(*maximum); }
                    let maximum = (*maximum > 0).then_some(*maximum);
                    PartitionProgress { maximum, settled: maximum, next_offset: 0, at_end, events }
                }).collect();
                let minutes: Vec<_> = reached.iter().filter_map(|part| part.maximum).map(minute).collect();
                let before = ticker.watermark();
                let closed = ticker.close(tick, &reached, minutes, false);
                let after = closed.info.watermark;
                prop_assert!(after >= before && after <= tick);
                for (part, pace) in reached.iter().zip(&ticker.memory.paces) {
                    if pace.quiet < 3 && !pace.is_slow {
                        prop_assert!(after == before || part.maximum.is_some_and(|maximum| after + 5_000 <= maximum));
                    }
                }
                prop_assert!(!closed.behind || after >= before + STEP_MS);
            }
        }
    }
}
