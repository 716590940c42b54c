//! The sizes of states and the run times of operators, as the workers of a job report them.
//!
//! Workers report two things in [`WorkerStats`]: the size of each state, every [`FOOTPRINTS_MS`] of ticks, and how long
//! each operator ran, every [`BUSY`]. Run times come from timely's own log, which has two events for each run of an
//! operator: 320 for a tick without input, 600 for one of 16,384 events. At some 50 ns each (an estimate) that is
//! 0.03 ms a tick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use keytide_dataflow::state::{Footprint, StateId};
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

/// Ms of ticks between two reports of a worker's states.
pub(super) const FOOTPRINTS_MS: u64 = 5_000;
/// Time between two reports of a worker's operators.
const BUSY: Duration = Duration::from_secs(1);
/// Names of operators that have their own sum; further ones share `OTHERS`.
const OPERATORS: usize = 100;
const OTHERS: &str = "others";

/// How long operators ran, by name.
pub(super) type Busy = BTreeMap<Arc<str>, Duration>;

/// The newest reports of all workers, by worker.
#[derive(Debug, Default)]
pub struct WorkerStats(Mutex<BTreeMap<usize, OneWorker>>);

#[derive(Debug, Default)]
struct OneWorker {
    states: Vec<(StateId, Footprint)>,
    busy: Busy,
}

impl WorkerStats {
    /// Replaces the sizes of a worker's states.
    pub(super) fn report_states(&self, worker: usize, states: impl Iterator<Item = (StateId, Footprint)>) {
        let states = states.collect();
        self.workers().entry(worker).or_default().states = states;
    }

    fn report_busy(&self, worker: usize, busy: Busy) {
        self.workers().entry(worker).or_default().busy = busy;
    }

    /// Returns the sizes of states over all workers; empty before the first report.
    pub(super) fn states(&self) -> BTreeMap<StateId, Footprint> {
        let mut sums: BTreeMap<StateId, Footprint> = BTreeMap::new();
        for (state, footprint) in self.workers().values().flat_map(|of_worker| &of_worker.states) {
            *sums.entry(*state).or_default() += *footprint;
        }
        sums
    }

    /// Returns the run times of operators over all workers.
    pub(super) fn busy(&self) -> Busy {
        let mut sums = Busy::new();
        for (operator, busy) in self.workers().values().flat_map(|of_worker| &of_worker.busy) {
            *sums.entry(Arc::clone(operator)).or_default() += *busy;
        }
        sums
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<usize, OneWorker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures how long a worker's operators run. It must be called before the dataflow is built.
pub(super) fn watch_operators(worker: &Worker, observed: &Arc<WorkerStats>) {
    let index = worker.index();
    let observed = Arc::clone(observed);
    let mut stopwatch = Stopwatch::default();
    let mut reported = Duration::ZERO;
    let Some(mut registry) = worker.log_register() else { return };
    registry.insert::<TimelyEventBuilder, _>("timely", move |time, events| {
        for (at, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
            stopwatch.take(at, event);
        }
        if *time >= reported + BUSY {
            reported = *time;
            observed.report_busy(index, stopwatch.busy());
        }
    });
}

/// Sums up how long operators run, each without the operators inside it.
#[derive(Default)]
struct Stopwatch {
    /// Indexes in `busy` by the operator's number.
    indexes: HashMap<usize, usize>,
    busy: Vec<(Arc<str>, Duration)>,
    running: Vec<Running>,
}

struct Running {
    operator: usize,
    since: Duration,
    /// How long operators inside it ran.
    inside: Duration,
}

impl Stopwatch {
    fn take(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) => {
                let index = self.index(&operator.name);
                self.indexes.insert(operator.id, index);
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
        if let Some(index) = self.indexes.get(&operator) {
            self.busy[*index].1 += ran.saturating_sub(ended.inside);
        }
    }

    /// Returns the index of a name in `busy`, which all operators of that name share.
    fn index(&mut self, name: &str) -> usize {
        // The metrics write a label's value without escaping it.
        let name = name.replace(|c: char| c.is_control() || c == '"' || c == '\\', "_");
        let name = if self.busy.len() < OPERATORS { &name } else { OTHERS };
        self.busy.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            self.busy.push((name.into(), Duration::ZERO));
            self.busy.len() - 1
        })
    }

    fn busy(&self) -> Busy {
        self.busy.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use keytide_connectors::live::{self, Live, PartitionReader, TableReader, coordinate};
    use keytide_connectors::tables::TablesRead;
    use keytide_dataflow::model::{NameId, PlanRow, Policy, TableChange, TableRow};
    use keytide_dataflow::{Options, Publish};
    use timely::logging::{OperatesEvent, ScheduleEvent};

    use super::super::checkpoint::Pieces;
    use super::super::publish::{PublishEvent, Results};
    use super::super::work::work;
    use super::*;

    fn operates(id: usize, name: &str) -> TimelyEvent {
        OperatesEvent { id, addr: vec![id], name: name.to_owned() }.into()
    }

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn an_operator_is_at_work_without_what_runs_inside_it() {
        let mut stopwatch = Stopwatch::default();
        for (id, name) in [(0, "Dataflow"), (1, "Usage"), (2, "Map"), (3, "Map")] {
            stopwatch.take(ms(0), operates(id, name));
        }
        let runs = [(10, 0, true), (12, 1, true), (17, 1, false), (17, 2, true), (18, 2, false)];
        let more = [(18, 3, true), (20, 3, false), (21, 0, false)];
        for (at, id, starts) in runs.into_iter().chain(more) {
            let event = if starts { ScheduleEvent::start(id) } else { ScheduleEvent::stop(id) };
            stopwatch.take(ms(at), event.into());
        }
        let busy: Vec<_> = stopwatch.busy().into_iter().collect();
        assert_eq!(busy, [("Dataflow".into(), ms(3)), ("Map".into(), ms(3)), ("Usage".into(), ms(5))]);
    }

    #[test]
    fn a_stop_without_a_start_is_nothing() {
        let mut stopwatch = Stopwatch::default();
        stopwatch.take(ms(0), operates(1, "Usage"));
        stopwatch.take(ms(5), ScheduleEvent::stop(1).into());
        assert_eq!(stopwatch.busy()["Usage"], Duration::ZERO);
    }

    #[test]
    fn a_name_fits_a_label() {
        let mut stopwatch = Stopwatch::default();
        stopwatch.take(ms(0), operates(1, "Map: \"a\\b\"\n"));
        assert_eq!(stopwatch.busy().into_keys().collect::<Vec<_>>(), ["Map: _a_b__".into()]);
    }

    #[test]
    fn the_number_of_operators_is_bounded() {
        let mut stopwatch = Stopwatch::default();
        for id in 0..3 * OPERATORS {
            stopwatch.take(ms(0), operates(id, &format!("Operator{id}")));
        }
        assert_eq!(stopwatch.busy().len(), OPERATORS + 1);
        assert!(stopwatch.busy().contains_key(OTHERS));
    }

    #[test]
    fn workers_are_summed_up() {
        let observed = WorkerStats::default();
        for worker in 0..2 {
            // A report replaces the worker's earlier one.
            for rows in [1, 10] {
                let footprint = Footprint { rows, bytes: 100 };
                observed.report_states(worker, [(StateId::Usage, footprint)].into_iter());
                observed.report_busy(worker, [("Usage".into(), ms(rows))].into());
            }
        }
        assert_eq!(observed.states()[&StateId::Usage], Footprint { rows: 20, bytes: 200 });
        assert_eq!(observed.busy()["Usage"], ms(20));
    }

    #[test]
    fn a_workers_operators_are_watched() {
        let observed = Arc::new(WorkerStats::default());
        let watching = Arc::clone(&observed);
        timely::execute_directly(move |worker| {
            use timely::dataflow::operators::{Inspect as _, ToStream as _};
            watch_operators(worker, &watching);
            worker.dataflow::<u64, _, _>(|scope| {
                (0..10).to_stream(scope).container::<Vec<_>>().inspect(|_| {});
            });
            while watching.busy().is_empty() {
                worker.step_or_park(Some(ms(100)));
            }
        });
        let operators: Vec<_> = observed.busy().into_keys().collect();
        assert!(operators.iter().any(|name| &**name == "InspectBatch"), "{operators:?}");
    }

    #[test]
    fn a_worker_reports_its_states_and_operators_while_it_works() {
        let windows = keytide_config::Windows::default();
        let options = live::testing::options(windows);
        let live = Live::new(FOOTPRINTS_MS, options);
        let plan = PlanRow {
            id: NameId::new("free"),
            name: NameId::new("free"),
            policy: Policy::Alert,
            fees: Box::default(),
        };
        let change = TableChange { offset: 0, row: TableRow::Plan(plan), deleted: false };
        let tables = TablesRead { changes: vec![change], ..TablesRead::default() };
        let reader = PartitionReader::new(&live, 0, Vec::new(), &|_| unreachable!("there is no source"));
        let tables = TableReader::new(&live, tables, Vec::new(), BTreeMap::new());
        let observed = Arc::new(WorkerStats::default());
        let (results, collected) = mpsc::channel();
        let results = Results::new(results);
        let (working, watched) = (Arc::clone(&live), Arc::clone(&observed));
        thread::scope(|scope| {
            scope.spawn(|| reader.run());
            let clock = AtomicU64::new(FOOTPRINTS_MS);
            let live = &live;
            scope.spawn(move || coordinate(live, || clock.fetch_add(1_000, Ordering::Relaxed)));
            scope.spawn(|| {
                timely::execute_directly(move |worker| {
                    let limits = keytide_config::Limits::default();
                    let options = Options {
                        windows,
                        limits,
                        detection: keytide_dataflow::DetectorOptions::default(),
                        accounts: keytide_dataflow::AccountOptions::default(),
                        publish: Publish::Changes { bulk_rows: 1 },
                    };
                    work(worker, &working, options, &watched, &results, &Pieces::default(), None);
                });
            });
            // No tick closes before the tables are read.
            let works = |_| live.wait_for_stop(ms(10)) || !observed.busy().is_empty();
            assert!((0..6_000).any(works), "the worker tells nothing");
            scope.spawn(|| tables.run());
            for event in collected {
                if let PublishEvent::Output(output) = event {
                    live.published(output.tick);
                    live.stop();
                }
            }
        });
        let states = observed.states();
        assert_eq!(states.keys().copied().collect::<Vec<_>>(), StateId::ALL);
        assert_eq!(states[&StateId::TableRows].rows, 1);
        assert!(states[&StateId::TableRows].bytes > 0 && states[&StateId::Usage].rows == 0);
        assert!(observed.busy()["TableRows"] > Duration::ZERO);
    }
}
