//! Tests that memory comes back to its size at the start, once every window is evicted.
//!
//! *Footprints* are each state's rows, as it counts them itself. *Arrangements* are the updates that differential
//! dataflow holds in its traces, by its own log of batches, merges and drops. A trace merges lazily, as updates come,
//! and may hold an update and its retraction until then. So these workers merge when they are idle, too.
//!
//! A life is busy ticks, then quiet ones until nothing is held: windows for 36 days, profiles for 90 and until their
//! month ends. The second life must add nothing to the memory after the first. The test catches memory that is kept
//! for ever; it can't catch memory that is kept too long.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};
use keytide_dataflow::state::Footprint;
use timely::logging::{TimelyEvent, TimelyEventBuilder};

use super::*;

/// From a life to the next, in whole days. It is longer than a scenario and its quiet ticks, so that no watermark goes back.
const LIFE_MS: u64 = 300 * DAY_MS;
/// Quiet ticks of a life. The watermark passes three days in each.
const QUIET: u64 = 60;

/// The memory that is held at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Memory {
    states: BTreeMap<StateId, Footprint>,
    /// Updates in traces, by the operator's name.
    arranged: BTreeMap<String, i64>,
}

/// The arrangements by the logs of timely and differential dataflow.
#[derive(Default)]
struct Arrangements {
    names: BTreeMap<usize, String>,
    updates: BTreeMap<usize, i64>,
}

impl Arrangements {
    /// Follows a worker's arrangements from here on.
    fn follow(worker: &timely::worker::Worker) -> Rc<RefCell<Self>> {
        let arrangements = Rc::new(RefCell::new(Self::default()));
        let mut register = worker.log_register().expect("timely logs");
        let of_operators = Rc::clone(&arrangements);
        register.insert::<TimelyEventBuilder, _>("timely", move |_, events| {
            for (_, event) in events.iter().flatten() {
                if let TimelyEvent::Operates(operator) = event {
                    of_operators.borrow_mut().names.insert(operator.id, operator.name.clone());
                }
            }
        });
        let of_traces = Rc::clone(&arrangements);
        register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
            let length = |length: usize| i64::try_from(length).unwrap();
            for (_, event) in events.iter().flatten() {
                let (operator, change) = match event {
                    DifferentialEvent::Batch(batch) => (batch.operator, length(batch.length)),
                    DifferentialEvent::Drop(dropped) => (dropped.operator, -length(dropped.length)),
                    DifferentialEvent::Merge(merge) => {
                        let Some(merged) = merge.complete else { continue };
                        let before = merge.length1 + merge.length2;
                        (merge.operator, length(merged) - length(before))
                    }
                    _ => continue,
                };
                *of_traces.borrow_mut().updates.entry(operator).or_default() += change;
            }
        });
        drop(register);
        arrangements
    }

    fn held(&self) -> BTreeMap<String, i64> {
        let name =
            |(operator, updates): (&usize, &i64)| (format!("{operator} {}", self.names[operator]), *updates);
        self.updates.iter().map(name).collect()
    }
}

/// The tick of a scenario that has its tables, and every string that they use.
fn tables(scenario: &[TickInput]) -> TickInput {
    let names = scenario.iter().flat_map(|tick| tick.definitions.clone());
    let names = names.filter(|one| matches!(one, Definition::Name { .. })).collect();
    TickInput { definitions: names, ..scenario[0].clone() }
}

/// A scenario's other ticks, so much later.
fn later(scenario: &[TickInput], by_ms: u64) -> Vec<TickInput> {
    let mut ticks = scenario[1..].to_vec();
    for TickInput { info, events, tables, definitions, .. } in &mut ticks {
        (info.tick, info.watermark, info.cadence) =
            (info.tick + by_ms, info.watermark + by_ms, info.cadence + by_ms);
        info.last = false;
        events.iter_mut().for_each(|event| event.time += by_ms);
        for change in tables {
            if let TableRow::Key(KeyRow { valid_from: Some(from @ 1..), .. }) = &mut change.row {
                *from += by_ms;
            }
        }
        definitions.clear();
    }
    scenario::define(&mut ticks);
    ticks
}

/// The ticks, and then some in which nothing happens but that so much time passes in each.
fn then_quiet(mut ticks: Vec<TickInput>, count: u64, every_ms: u64) -> Vec<TickInput> {
    let mut last = ticks.last().unwrap().info;
    for _ in 0..count {
        (last.tick, last.cadence) = (last.tick + every_ms, last.cadence + every_ms);
        last.watermark += every_ms;
        let quiet = TickInput { events: Vec::new(), tables: Vec::new(), ..ticks[0].clone() };
        ticks.push(TickInput { info: last, definitions: Vec::new(), ..quiet });
    }
    ticks
}

/// Returns the memory that is held with tables alone, after a life from then on, and after another.
fn lives(seed: u64, count: u64, live_tables: bool, publish: Publish) -> [Memory; 3] {
    let scenario = scenario::ticks(seed, count, live_tables);
    let begin = then_quiet(vec![tables(&scenario)], 3, MINUTE_MS);
    let [first, second] =
        [LIFE_MS, 2 * LIFE_MS].map(|by_ms| then_quiet(later(&scenario, by_ms), QUIET, 3 * DAY_MS));
    held_after(few_callers(seed, publish), vec![begin, first, second]).try_into().unwrap()
}

/// Returns the memory that one worker holds after each part of the ticks.
fn held_after(options: Options, parts: Vec<Vec<TickInput>>) -> Vec<Memory> {
    let mut config = timely::Config::thread();
    let effort = Some(1 << 20);
    differential_dataflow::configure(
        &mut config.worker,
        &differential_dataflow::Config { idle_merge_effort: effort },
    );
    let parts = std::sync::Mutex::new(parts);
    let workers = timely::execute(config, move |worker| {
        let arrangements = Arrangements::follow(worker);
        let output = Rc::new(RefCell::new(Nothing));
        let mut dataflow = worker.dataflow(|scope| render(scope, options, &output, None)).unwrap();
        let mut held = Vec::new();
        let mut before = 0;
        for part in std::mem::take(&mut *parts.lock().unwrap()) {
            for mut tick in part {
                tick.info.watermark_before = std::mem::replace(&mut before, tick.info.watermark);
                assert!(tick.info.watermark_before <= tick.info.watermark, "a watermark never goes back");
                dataflow.advance_to(tick.info.tick);
                dataflow.events(&mut tick.events);
                dataflow.tables(&mut tick.tables);
                dataflow.definitions(&mut tick.definitions);
                dataflow.end_tick(tick.info);
                while dataflow.probe().less_than(&(tick.info.tick + 1)) {
                    worker.step();
                }
            }
            // Merges that idle workers do take some steps; more change nothing.
            (0..100).for_each(|_| {
                worker.step();
            });
            worker.log_register().unwrap().flush();
            let states = dataflow.states().footprints().collect();
            held.push(Memory { states, arranged: arrangements.borrow().held() });
        }
        drop(dataflow);
        while worker.step() {}
        held
    });
    workers.unwrap().join().remove(0).unwrap()
}

/// States with strings, which go 7,200 ticks after their last use; each life has the same.
const OF_STRINGS: [StateId; 3] = [StateId::Agents, StateId::Routes, StateId::Admission];

/// Rows of all states but some.
fn rows(held: &Memory, but: &[StateId]) -> BTreeMap<StateId, u64> {
    let states = held.states.iter().filter(|(state, _)| !but.contains(state));
    states.map(|(state, footprint)| (*state, footprint.rows)).collect()
}

proptest! {
    #![proptest_config(cases(5))]

    #[test]
    fn what_is_held_returns_to_its_size_at_the_start(seed: u64, count in 10_u64..40, bounded: bool) {
        let publish = if bounded { Publish::Last } else { LIVE };
        let [start, first, second] = lives(seed, count, false, publish);
        prop_assert_eq!(rows(&first, &OF_STRINGS), rows(&start, &OF_STRINGS));
        prop_assert_eq!(rows(&second, &[]), rows(&first, &[]));
        for state in StateId::ALL {
            let bytes = [&first, &second].map(|held| held.states[state].bytes);
            // A hash table doubles once if the places of what was removed are in its way.
            prop_assert!(bytes[1] <= 2 * bytes[0], "{}: {:?} bytes", state.name(), bytes);
        }
        prop_assert_eq!(&first.arranged, &start.arranged);
        prop_assert_eq!(&second.arranged, &start.arranged);
    }

    #[test]
    fn bookings_are_gone_once_their_windows_are_whatever_owners_did(seed: u64, count in 10_u64..40, bounded: bool) {
        let publish = if bounded { Publish::Last } else { LIVE };
        for held in lives(seed, count, true, publish) {
            let of_sums: Vec<_> = held.arranged.iter().filter(|(operator, _)| operator.ends_with("Count")).collect();
            prop_assert_eq!(of_sums.len(), 2);
            prop_assert!(of_sums.iter().all(|(_, updates)| **updates == 0), "{:?}", of_sums);
        }
    }
}
