//! Samples of a running job, from which metrics and health are made.
//!
//! A sample costs the job nothing: it reads counters that the job's threads keep anyway. Of the API it also looks at each
//! standing, which takes 0.2 us each, about.
//!
//! **Invariant**: a sample holds numbers, names from the configuration and names of this program. It never holds a key,
//! a route, an address or any text of a record.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use keytide_connectors::decode::{CLASSES, Tally};
use keytide_connectors::live::Status;
use keytide_connectors::sink::SinkStats;
use keytide_dataflow::AnsweredCalls;
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{Footprint, StateId};

use super::cluster::{ClusterStatus, ClusterView};
use super::job::Handle;
use super::observe::Busy;
use super::watchdog::Watched;
use crate::memory;
use crate::serve::stats::ApiCounts;

/// All counters and states of a job at one time.
#[derive(Clone, Debug, Default)]
pub struct JobSample {
    /// When it was taken, in ms since the epoch.
    pub(super) now: Tick,
    /// Width of a tick in ms.
    pub(super) tick_ms: u64,
    pub(super) status: Status,
    pub(super) cluster: ClusterStatus,
    pub(super) is_stopping: bool,
    pub(super) read: ReadCounts,
    pub(super) results: Results,
    /// The last tick that the sinks acknowledged, 0 before the first.
    pub(super) published: Tick,
    pub(super) sinks: SinkStats,
    /// True while the sink's producer has no id, without which it can't send.
    pub(super) waits_for_id: bool,
    pub(super) alerts: keytide_alerts::outbox::OutboxStats,
    /// `None` in a process that doesn't publish.
    pub(super) actions: Option<keytide_alerts::actions::ActionCounts>,
    pub(super) checkpoints: CheckpointCounts,
    pub(super) ledger: LedgerCounts,
    /// `None` in a process that answers no gateways.
    pub(super) api: Option<ApiCounts>,
    pub(super) states: BTreeMap<StateId, Footprint>,
    pub(super) busy: Busy,
    /// Resident memory of the process, if the system says.
    pub(super) resident_bytes: Option<u64>,
    /// The memory that the process may take, if a control group bounds it.
    pub(super) memory_limit_bytes: Option<u64>,
    /// The kinds of sinks that the job has.
    pub(super) sink_kinds: &'static [&'static str],
}

/// Counts of the input so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadCounts {
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
    /// Oddities of records that count, by the source's index.
    pub(super) tallies: Vec<Tally>,
}

/// Counts of checkpoints so far, which are all 0 without `[state]`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CheckpointCounts {
    pub(super) written: u64,
    pub(super) failed: u64,
    /// The tick of the newest one, 0 before the first.
    pub(super) tick: Tick,
    /// The bytes of the newest one.
    pub(super) bytes: u64,
    /// The bytes that were written for all of them.
    pub(super) written_bytes: u64,
    /// How long the newest one took, in ms.
    pub(super) took_ms: u64,
    /// The longest pause of a worker for it, in ms.
    pub(super) pause_ms: u64,
}

/// Counts of a ledger so far, which are all 0 without `[state]`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LedgerCounts {
    /// The number of the last tick that was committed.
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) commits: u64,
    /// How long commits took, in microseconds.
    pub(super) commit_us: u64,
    /// Transactions that had to be repeated.
    pub(super) repeated: u64,
    /// Ticks that were made again.
    pub(super) replayed: u64,
    /// Ticks that are still to be made again.
    pub(super) to_replay: u64,
}

/// Counts of the results so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Results {
    pub(super) events: u64,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    /// Events that came too late for the detector.
    pub(super) detector_late: u64,
    /// Observations of odd keys for which the detector had no room.
    pub(super) detector_deferred: u64,
    pub(super) unbilled_calls: u64,
    /// By the classes of `AnsweredCalls`.
    pub(super) calls: [u64; AnsweredCalls::CLASSES.len()],
    /// Events beyond the caps of [`OVERFLOWS`](super::publish::OVERFLOWS).
    pub(super) overflows: [u64; 3],
    /// Values that count against the caps of [`CAPS`](super::publish::CAPS), and the caps.
    pub(super) admitted: [u64; 4],
    pub(super) limits: [u64; 4],
    /// Ticks that were handed to the sinks.
    pub(super) ticks: u64,
}

impl JobSample {
    /// Returns what there is to see of a job that starts.
    #[must_use]
    pub fn starting(cluster: &ClusterView) -> Self {
        Self { cluster: cluster.status(), ..Self::default() }
    }

    /// Reads all counters of a job.
    pub fn take(job: &Handle, tick_ms: u64) -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Counters at the end of the path are read first, so no difference of two counters is ever negative.
        let (results, limits) = (&job.results, &job.limits);
        let results = Results {
            events: load(&results.events),
            duplicates: load(&results.duplicates),
            late: load(&results.late),
            detector_late: load(&results.detector_late),
            detector_deferred: load(&results.detector_deferred),
            unbilled_calls: load(&results.unbilled_calls),
            calls: results.calls.each_ref().map(load),
            overflows: results.overflows.each_ref().map(load),
            admitted: results.admitted.each_ref().map(load),
            limits: [limits.keys, limits.routes, limits.key_routes, limits.key_countries]
                .map(|limit| limit as u64),
            ticks: load(&results.ticks),
        };
        let counters = &job.live.counters;
        let read = ReadCounts {
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
        let published = job.sinks.published();
        let status = job.live.status();
        Self {
            tick_ms,
            // A process that follows hears of it.
            published: if job.live.is_following() { status.published } else { published },
            sinks: job.sinks.stats(),
            waits_for_id: job.sinks.waits_for_id(),
            alerts: job.alerts.stats(),
            actions: *job.action_counts.lock().unwrap_or_else(PoisonError::into_inner),
            checkpoints: CheckpointCounts {
                written: load(&job.checkpoints.written),
                failed: load(&job.checkpoints.failed),
                tick: load(&job.checkpoints.tick),
                bytes: load(&job.checkpoints.bytes),
                written_bytes: load(&job.checkpoints.written_bytes),
                took_ms: load(&job.checkpoints.took_ms),
                pause_ms: load(&job.checkpoints.pause_ms),
            },
            ledger: LedgerCounts {
                number: load(&job.ledger.number),
                generation: load(&job.ledger.generation),
                commits: load(&job.ledger.commits),
                commit_us: load(&job.ledger.commit_us),
                repeated: load(&job.ledger.repeated),
                replayed: load(&job.ledger.replayed),
                to_replay: load(&job.ledger.to_replay),
            },
            status,
            cluster: job.cluster.status(),
            is_stopping: job.live.is_stopping(),
            read,
            results,
            api: job.api.as_ref().map(|api| api.counts((job.clock)())),
            states: job.observed.states(),
            busy: job.observed.busy(),
            resident_bytes: memory::resident_bytes(),
            memory_limit_bytes: memory::limit_bytes(),
            sink_kinds: job.sink_kinds,
            now: (job.clock)(),
        }
    }

    /// Returns the number of ticks that were closed and aren't handed to the sinks.
    pub(super) fn ticks_in_flight(&self) -> u64 {
        self.read.ticks.saturating_sub(self.results.ticks)
    }

    /// Returns a sentence about the part of the job that hangs, if one does.
    pub(super) fn hang(&self) -> Option<String> {
        let Self { now, tick_ms, ref status, is_stopping, .. } = *self;
        Watched { now, tick_ms, status, is_stopping, in_flight: self.ticks_in_flight() }.hang()
    }

    /// Returns the age in ms of the last acknowledged tick.
    pub(super) fn tick_age_ms(&self) -> Option<u64> {
        (self.published > 0).then(|| self.now.saturating_sub(self.published))
    }

    /// Returns the number of records that the topics are known to hold and the job hasn't read.
    pub(super) fn lag(&self) -> u64 {
        self.status.lags.iter().filter_map(|(_, lag)| *lag).sum()
    }
}
