//! Finds out whether a part of a live job hangs.
//!
//! A tick that stays open for [`STUCK_MS`] is stuck if nothing outside of the job is waited for: an outage of Kafka, of the
//! store or of a sink is none of the job's. A job that ends waits for its sinks, which have a deadline of their own.

use keytide_connectors::live::{Status, TICKS_PUBLISHED};
use keytide_dataflow::model::Tick;

/// How long a tick may be open before it is stuck, in ms; `STUCK_TICKS` ticks if that is longer.
pub(super) const STUCK_MS: u64 = 120_000;
const STUCK_TICKS: u64 = 20;

/// What it takes to judge whether a part hangs.
pub(super) struct Watched<'a> {
    /// The time in ms since the epoch.
    pub(super) now: Tick,
    /// Width of a tick in ms.
    pub(super) tick_ms: u64,
    pub(super) status: &'a Status,
    pub(super) is_stopping: bool,
    /// The number of ticks that were closed and aren't handed to the sinks.
    pub(super) in_flight: u64,
}

impl Watched<'_> {
    /// Returns a sentence about the part that hangs, if one does.
    pub(super) fn hang(&self) -> Option<String> {
        let status = self.status;
        let waits_for_others = self.is_stopping
            || !status.tables_read
            || status.is_held_up
            || status.waits_for_leader
            || self.waits_for_sinks()
            || status.open == 0;
        let open_ms = self.now.saturating_sub(status.open);
        if waits_for_others || open_ms <= STUCK_MS.max(self.tick_ms.saturating_mul(STUCK_TICKS)) {
            return None;
        }
        let (part, processes) = if status.computed < status.closed {
            let computed = status.computed_by.iter().enumerate();
            let late = computed.filter(|(_, computed)| **computed < status.closed);
            ("a worker doesn't finish the one before", late.map(|(process, _)| process).collect())
        } else {
            ("a reader doesn't answer", status.unanswered.clone())
        };
        let of_process = match (&*processes, status.computed_by.len()) {
            ([first, ..], 2..) => format!(" in process {first}"),
            _ => String::new(),
        };
        Some(format!("the tick has been open for {} s: {part}{of_process}", open_ms / 1_000))
    }

    /// Returns whether the next tick can't close before the sinks take another one.
    fn waits_for_sinks(&self) -> bool {
        self.in_flight >= TICKS_PUBLISHED && self.status.computed == self.status.closed
    }
}
