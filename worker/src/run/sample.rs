//! A look at a running job: one [`Sample`] holds everything that metrics and health are made of.
//!
//! Nothing is counted for it: counters are those that the job's threads keep anyway, read when somebody asks.
//!
//! **Invariant**: a sample holds numbers, names from the configuration and names that this program gives. No key, no
//! route, no address, no text of a record.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use keytide_connectors::decode::{CLASSES, Tally};
use keytide_connectors::live::Status;
use keytide_connectors::sink::SinkStats;
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{Footprint, StateId};

use super::job::Handle;
use super::observe::Busy;
use crate::memory;

/// A look at a job.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When, in ms since the epoch.
    pub(super) now: Tick,
    /// Width of a tick in ms.
    pub(super) tick_ms: u64,
    pub(super) status: Status,
    pub(super) is_stopping: bool,
    pub(super) read: Input,
    pub(super) results: Results,
    /// The last tick that the sinks have for good, 0 before the first.
    pub(super) published: Tick,
    pub(super) sinks: SinkStats,
    /// What became of mails and webhooks.
    pub(super) alerts: keytide_alerts::outbox::OutboxStats,
    pub(super) states: BTreeMap<StateId, Footprint>,
    pub(super) busy: Busy,
    /// Memory of the process, where the system tells.
    pub(super) resident_bytes: Option<u64>,
}

/// What was read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) dead_letters: [u64; CLASSES.len()],
    pub(super) table_dead_letters: u64,
    pub(super) table_unread: u64,
    pub(super) table_changes: u64,
    pub(super) gaps: u64,
    /// Look-ups of addresses that hit a damaged record of a geo database.
    pub(super) unreadable_places: u64,
    pub(super) ticks: u64,
    /// What was odd about records that count, by source (its index).
    pub(super) tallies: Vec<Tally>,
}

/// What became of it so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    pub(super) events: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    /// Events that the detector came too late for.
    pub(super) detector_late: u64,
    /// Events beyond the caps of [`OVERFLOWS`](super::publish::OVERFLOWS).
    pub(super) overflows: [u64; 3],
    /// What counts against the caps of [`CAPS`](super::publish::CAPS), and what may.
    pub(super) admitted: [u64; 4],
    pub(super) limits: [u64; 4],
    /// Ticks that were handed to the sinks.
    pub(super) ticks: u64,
}

impl Sample {
    /// Looks at a job.
    pub fn take(job: &Handle, tick_ms: u64) -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What comes later in the path first: so no difference of two counters is ever negative.
        let (counted, limits) = (&job.counted, &job.limits);
        let results = Results {
            events: load(&counted.events),
            duplicates: load(&counted.duplicates),
            late: load(&counted.late),
            detector_late: load(&counted.detector_late),
            overflows: counted.overflows.each_ref().map(load),
            admitted: counted.admitted.each_ref().map(load),
            limits: [limits.keys, limits.routes, limits.key_routes, limits.key_countries]
                .map(|limit| limit as u64),
            ticks: load(&counted.ticks),
        };
        let counters = &job.live.counters;
        let read = Input {
            bytes: load(&counters.bytes),
            messages: load(&counters.messages),
            dead_letters: counters.dead_letters.each_ref().map(load),
            table_dead_letters: load(&counters.table_dead_letters),
            table_unread: load(&counters.table_unread),
            table_changes: load(&counters.table_changes),
            gaps: load(&counters.gaps),
            unreadable_places: job.unreadable_places.count(),
            ticks: load(&counters.ticks),
            tallies: counters.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        Self {
            tick_ms,
            published: job.sinks.published(),
            sinks: job.sinks.stats(),
            alerts: job.alerts.stats(),
            status: job.live.status(),
            is_stopping: job.live.is_stopping(),
            read,
            results,
            states: job.observed.states(),
            busy: job.observed.busy(),
            resident_bytes: memory::resident_bytes(),
            now: (job.clock)(),
        }
    }

    /// Ticks that were closed and aren't handed to the sinks.
    pub(super) fn ticks_in_flight(&self) -> u64 {
        self.read.ticks.saturating_sub(self.results.ticks)
    }

    /// Age in ms of the last tick that the sinks have for good.
    pub(super) fn tick_age_ms(&self) -> Option<u64> {
        (self.published > 0).then(|| self.now.saturating_sub(self.published))
    }

    /// Records that are known to be there and weren't read.
    pub(super) fn lag(&self) -> u64 {
        self.status.lags.iter().filter_map(|(_, lag)| *lag).sum()
    }
}
