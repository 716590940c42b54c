//! What a running job lets be seen of itself: one [`Sample`] holds everything that metrics and health are made of.
//!
//! Nothing is counted for it: counters are those that the job's threads keep anyway, read when somebody asks. Two
//! things only workers know, and tell in [`Observed`]: how much each state holds, every [`FOOTPRINTS_MS`] of ticks, and
//! how long each operator was at work, every [`BUSY`]. The latter follows from timely's own log, two events for each
//! time that an operator runs, which is once per batch and tick, not per event.
//!
//! **Invariant**: a sample holds numbers, names from the configuration and names that this program gives. No key, no
//! route, no address, no text of a record.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keytide_connectors::decode::CLASSES;
use keytide_connectors::live::Status;
use keytide_connectors::sink::SinkStats;
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{Footprint, StateId};
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use super::Handle;
use crate::clock::now;

/// A worker says so often, by ticks, how much its states hold.
pub(super) const FOOTPRINTS_MS: u64 = 5_000;
/// A worker says so often how long its operators were at work.
const BUSY: Duration = Duration::from_secs(1);
/// Names of operators that are told apart; further ones are one.
const OPERATORS: usize = 100;
/// The name of further ones.
const OTHERS: &str = "others";

/// How long operators were at work, by name.
type Busy = BTreeMap<Arc<str>, Duration>;

/// What workers tell.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<BTreeMap<usize, OfWorker>>);

#[derive(Debug, Default)]
struct OfWorker {
    states: Vec<(StateId, Footprint)>,
    busy: Busy,
}

impl Observed {
    /// A worker's states.
    pub(super) fn tell_states(&self, worker: usize, states: impl Iterator<Item = (StateId, Footprint)>) {
        let states = states.collect();
        self.workers().entry(worker).or_default().states = states;
    }

    fn tell_busy(&self, worker: usize, busy: Busy) {
        self.workers().entry(worker).or_default().busy = busy;
    }

    /// Over all workers; empty before any of them told.
    fn states(&self) -> BTreeMap<StateId, Footprint> {
        let mut sums: BTreeMap<StateId, Footprint> = BTreeMap::new();
        for (state, footprint) in self.workers().values().flat_map(|of_worker| &of_worker.states) {
            *sums.entry(*state).or_default() += *footprint;
        }
        sums
    }

    /// Over all workers.
    fn busy(&self) -> Busy {
        let mut sums = Busy::new();
        for (operator, busy) in self.workers().values().flat_map(|of_worker| &of_worker.busy) {
            *sums.entry(Arc::clone(operator)).or_default() += *busy;
        }
        sums
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<usize, OfWorker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows how long a worker's operators are at work. To be called before its dataflow is built.
pub(super) fn watch_operators(worker: &Worker, observed: &Arc<Observed>) {
    let index = worker.index();
    let observed = Arc::clone(observed);
    let mut stopwatch = Stopwatch::default();
    let mut told = Duration::ZERO;
    let Some(mut registry) = worker.log_register() else { return };
    registry.insert::<TimelyEventBuilder, _>("timely", move |time, events| {
        for (at, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
            stopwatch.take(at, event);
        }
        if *time >= told + BUSY {
            told = *time;
            observed.tell_busy(index, stopwatch.busy());
        }
    });
}

/// Sums up how long operators run, each without what runs inside it.
#[derive(Default)]
struct Stopwatch {
    /// By the operator's number, its place in `busy`.
    places: HashMap<usize, usize>,
    busy: Vec<(Arc<str>, Duration)>,
    /// What runs, outermost first.
    running: Vec<Running>,
}

struct Running {
    operator: usize,
    since: Duration,
    /// How long others ran inside it.
    inside: Duration,
}

impl Stopwatch {
    fn take(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) => {
                let place = self.place(&operator.name);
                self.places.insert(operator.id, place);
            }
            TimelyEvent::Schedule(event) => match event.start_stop {
                StartStop::Start => {
                    self.running.push(Running { operator: event.id, since: at, inside: Duration::ZERO });
                }
                StartStop::Stop => self.stop(event.id, at),
            },
            _ => {}
        }
    }

    fn stop(&mut self, operator: usize, at: Duration) {
        let Some(ended) = self.running.pop_if(|running| running.operator == operator) else { return };
        let ran = at.saturating_sub(ended.since);
        if let Some(outer) = self.running.last_mut() {
            outer.inside += ran;
        }
        if let Some(place) = self.places.get(&operator) {
            self.busy[*place].1 += ran.saturating_sub(ended.inside);
        }
    }

    /// Operators of one name share a place.
    fn place(&mut self, name: &str) -> usize {
        let name = if self.busy.len() < OPERATORS { name } else { OTHERS };
        self.busy.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            self.busy.push((name.into(), Duration::ZERO));
            self.busy.len() - 1
        })
    }

    fn busy(&self) -> Busy {
        self.busy.iter().cloned().collect()
    }
}

/// A look at a job.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// When, in ms since the epoch.
    pub(super) now: Tick,
    /// Width of a tick in ms.
    pub(super) tick_ms: u64,
    /// Where it is.
    pub(super) status: Status,
    /// It is to end.
    pub(super) is_stopping: bool,
    /// What was read.
    pub(super) read: Read_,
    /// What became of it.
    pub(super) counted: Counts,
    /// The last tick that the sinks have for good, 0 before the first.
    pub(super) published: Tick,
    /// What the sinks did.
    pub(super) sinks: SinkStats,
    /// By state.
    pub(super) states: BTreeMap<StateId, Footprint>,
    /// By operator.
    pub(super) busy: Busy,
    /// Memory of the process, where the system tells.
    pub(super) resident_bytes: Option<u64>,
}
