//! The coordinator, the one place where ticks are cut.
//!
//! A tick's timestamp is the clock's time, but ticks only go forward. After the clock was set back they go on at
//! half their pace until it has caught up. Otherwise they would stand still, and so would the watermark and the
//! limit for events from the future.

use std::mem;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use keytide_config::duration_text;
use keytide_dataflow::model::{Tick, TickInfo};
use keytide_dataflow::state::SnapshotRequest;

use super::messages::LeadMessage;
use super::ticker::{Ticker, TickerRules};
use super::{
    CHECKPOINT_TICKS, Cut, InputMemory, LOOK_AROUND, Live, LiveState, NamedDecoders, PartitionMemory,
    TICK_EVENTS, TICKS_UNSTORED, add,
};
use crate::input::PartitionInfo;
use crate::ledger::{AddedPartition, PartitionProgress, TickRecord};

/// Cuts ticks until the job ends. `clock` returns the time in ms since the epoch.
pub fn coordinate(live: &Live, clock: impl Fn() -> Tick) {
    let rules = TickerRules {
        out_of_orderness_ms: live.options.windows.out_of_orderness_ms,
        idle_ticks: live.options.windows.idle_ticks,
        skew_ms: live.options.windows.skew_ms,
    };
    let mut ticker = Ticker::resume(rules, mem::take(&mut live.state().ticker));
    let width = Duration::from_millis(live.options.tick_ms);
    let mut opened = Instant::now();
    let mut due = opened + width;
    loop {
        // 1. Wait until the open tick is due, and the workers and sinks aren't too far behind.
        let last = wait_until_due(live, due);
        due = next_due(due, width, Instant::now());

        // 2. Name the next tick, and ask every reader for the cut.
        let mut state = live.state();
        let tick = state.open;
        let earlier = state.replay.next().cloned();
        // Behind a clock that was set back, ticks go on at half their pace.
        let paced = u64::try_from(opened.elapsed().as_millis() / 2).unwrap_or(0);
        let replayed = state.replay.ticks.get(state.replay.closed + 1).map(|record| record.tick);
        state.next = replayed.unwrap_or_else(|| clock().max(tick + paced.max(1)));
        opened = Instant::now();
        state.cut += 1;
        state.at_ceiling = false;
        state.last = last;
        let new_decoders = if earlier.is_some() {
            state.replay.decoders.remove(&tick)
        } else {
            state.begin_checkpoint(live.options.checkpoints.is_some());
            state.new_decoders.take()
        };
        let decoders = new_decoders.as_ref().map(|new| new.name.clone());
        if let Some(new) = new_decoders {
            if live.options.checkpoints.is_some() {
                state.inputs.entry(tick).or_default().replace_decoders(new.name.clone());
            }
            state.use_decoders(new);
        }
        state.tell_of_cut(decoders);
        live.changed.notify_all();
        let asked = Instant::now();
        // 3. Wait for all answers: every event of the tick is in a queue then.
        while !state.is_answered() {
            if earlier.is_some() && state.stopping && !state.last {
                // Half of a tick that was committed is no tick. Every reader answers at once, and once more.
                state.last = true;
                state.cut += 1;
                state.tell_of_cut(None);
                live.changed.notify_all();
            }
            state = live.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if earlier.is_some() && state.last {
            state.over = true;
            state.tell(&LeadMessage::Ended);
            live.changed.notify_all();
            return;
        }

        // 4. Decide the watermark.
        let LiveState { reached, minutes, .. } = &mut *state;
        let reached = earlier.as_ref().map_or(&reached[..], |earlier| &earlier.reached);
        // A job that goes on later leaves open what is open.
        let is_end = last && live.options.checkpoints.is_none();
        let closed = ticker.close(tick, reached, mem::take(minutes), is_end);
        let slow: Vec<Option<u64>> = ticker.slow().collect();
        warn_of_changes(&state.partitions, &state.slow, &slow);
        state.slow = slow;
        // 5. Close the tick for every worker, and open the next one.
        state.watermark = closed.info.watermark;
        state.keep_cut(tick, earlier, live.options.checkpoints.is_some());
        let checkpoint = state.remember(tick, &ticker);
        let published = state.published.1;
        let (info, behind) = (closed.info, closed.behind);
        state.tell(&LeadMessage::Close { info, behind, checkpoint, published });
        state.close(info, behind, checkpoint);
        live.changed.notify_all();
        drop(state);
        tracing::debug!(tick, us = asked.elapsed().as_micros(), "closed a tick after its cut");
        add(&live.counters.ticks, 1);
        if last {
            return;
        }
    }
}

impl LiveState {
    /// Gives the readers other decoders, for the records after the cut that is asked for.
    pub(super) fn use_decoders(&mut self, new: NamedDecoders) {
        let NamedDecoders { name, decoders } = new;
        self.decoders = (self.decoders.0 + 1, Some(decoders));
        self.decoders_name = name;
    }

    /// Asks the followers for the cut that is asked for.
    fn tell_of_cut(&self, decoders: Option<String>) {
        let Self { cut, next, last, .. } = *self;
        let checkpoint = self.checkpoint.is_asked;
        self.tell(&LeadMessage::Cut { cut, next, last, checkpoint, decoders });
    }

    /// Closes the open tick for every worker of this process, and opens the next one.
    pub(super) fn close(&mut self, info: TickInfo, behind: bool, checkpoint: Option<SnapshotRequest>) {
        self.open = self.next;
        self.open_events = 0;
        self.watermark = info.watermark;
        self.behind = behind;
        self.closed = info.tick;
        self.closed_count += 1;
        self.over = self.last;
        self.queues.close(info, self.next, checkpoint);
    }

    /// Makes the cut that is asked for one of a checkpoint, if that is due. The last tick always is, unless a
    /// checkpoint is under way: [`wait_until_due`] waits for that.
    fn begin_checkpoint(&mut self, has_checkpoints: bool) {
        let is_due = self.checkpoint.is_due() || self.checkpoint.ticks >= CHECKPOINT_TICKS;
        let is_asked = has_checkpoints && !self.checkpoint.is_busy && (self.last || is_due);
        self.checkpoint.is_asked = is_asked;
        self.checkpoint.is_busy |= is_asked;
        self.checkpoint.ticks += 1;
        if is_asked {
            self.checkpoint.ticks = 0;
            (self.checkpoint.lanes, self.checkpoint.tables) = (Vec::new(), None);
        }
    }

    /// Keeps what a ledger records of the tick that is closed.
    fn keep_cut(&mut self, tick: Tick, earlier: Option<TickRecord>, has_ledger: bool) {
        self.replay.closed += usize::from(earlier.is_some());
        if !has_ledger {
            return;
        }
        self.number += 1;
        let reached =
            earlier.as_ref().map_or_else(|| self.reached.clone(), |earlier| earlier.reached.clone());
        let added = (self.numbered_partitions..reached.len()).map(|index| AddedPartition {
            source: self.partitions[index].source.clone(),
            number: self.partitions[index].number,
            offset: self.begun[index],
        });
        let record = TickRecord {
            number: self.number,
            tick,
            watermark: self.watermark,
            added: added.collect(),
            reached,
            ..TickRecord::default()
        };
        self.numbered_partitions = record.reached.len();
        let inputs = self.inputs.remove(&tick).unwrap_or_default();
        self.cuts.push_back(Cut { record, inputs, earlier });
    }

    /// Keeps the input of the tick that is closed, if its cut was one of a checkpoint. Returns whether the workers are
    /// to store their states.
    fn remember(&mut self, tick: Tick, ticker: &Ticker) -> Option<SnapshotRequest> {
        if !mem::take(&mut self.checkpoint.is_asked) {
            return None;
        }
        // A job that is stopped before its tables are read has nothing to go on from.
        let Some(tables) = self.checkpoint.tables.take().filter(|_| self.tables_read) else {
            self.checkpoint.is_busy = false;
            return None;
        };
        let mut lanes = mem::take(&mut self.checkpoint.lanes).into_iter();
        let memory = |(info, reached): (&PartitionInfo, &PartitionProgress)| PartitionMemory {
            source: info.source.clone(),
            number: info.number,
            next_offset: reached.next_offset,
            lane: lanes.next().flatten(),
        };
        let partitions = self.partitions.iter().zip(&self.reached).map(memory).collect();
        let decoders = self.decoders_name.clone();
        let input =
            InputMemory { tick, number: self.number, ticker: ticker.memory().clone(), partitions, decoders };
        self.checkpoint.input = Some((input, tables));
        self.checkpoint.snapshots += 1;
        Some(SnapshotRequest { number: self.checkpoint.snapshots, since: self.checkpoint.since })
    }
}

/// Logs which partitions became slow, and which aren't any more.
fn warn_of_changes(partitions: &[PartitionInfo], before: &[Option<u64>], slow: &[Option<u64>]) {
    for (index, (partition, behind_ms)) in partitions.iter().zip(slow).enumerate() {
        let was_slow = before.get(index).is_some_and(Option::is_some);
        let PartitionInfo { source, number, .. } = partition;
        match behind_ms {
            Some(behind_ms) if !was_slow => {
                let behind = duration_text(behind_ms / 1_000 * 1_000);
                tracing::warn!(
                    source,
                    partition = number,
                    "events of this partition are {behind} behind those of the others: is its gateway's clock slow? They \
                     still count, as corrections; nobody waits for them, and they aren't judged for leaks"
                );
            }
            None if was_slow => {
                tracing::info!(source, partition = number, "this partition has caught up with the others");
            }
            _ => {}
        }
    }
}

/// Returns when the tick that opens now is due: one width after the last due time, which keeps step. A tick that
/// took long doesn't make the next ones hurry, and ticks that were cut early don't put it off.
fn next_due(due: Instant, width: Duration, now: Instant) -> Instant {
    (due + width).clamp(now, now + width)
}

/// Waits until the open tick is due or the job is to end. Returns true if it is the last.
fn wait_until_due(live: &Live, due: Instant) -> bool {
    let mut state = live.state();
    loop {
        // The last tick is a checkpoint of its own, which waits for the one under way.
        if state.stopping && !state.checkpoint.is_busy {
            return true;
        }
        let now = Instant::now();
        let is_due = now >= due
            || state.replay.next().is_some()
            || state.behind
            || state.is_at_ceiling()
            || state.all_open_events() >= TICK_EVENTS;
        if is_due && state.may_cut() {
            return false;
        }
        if state.wait_for_checkpoint() {
            tracing::error!(
                ticks = TICKS_UNSTORED,
                "the job waits for a checkpoint: none could be stored for so many ticks, and after more of them a crash could \
                 not be made good. It is tried again; the log says why it fails, most often the disk of state.url is full"
            );
        }
        let most = if is_due || state.stopping { LOOK_AROUND } else { due - now };
        state = live.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_step_without_hurry_or_delay() {
        let width = Duration::from_secs(1);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(next_due(at(1_000), width, at(1_003)), at(2_000), "in step");
        assert_eq!(next_due(at(1_000), width, at(9_500)), at(9_500), "late: at once, but one only");
        assert_eq!(next_due(next_due(at(1_000), width, at(9_500)), width, at(9_600)), at(10_500));
        let early = (0..60).fold(at(1_000), |due, tick| next_due(due, width, at(tick)));
        assert_eq!(early, at(1_059), "sixty early ticks cost nothing");
    }
}
