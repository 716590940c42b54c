//! Runs one timely worker of a live job.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keytide_connectors::input::Message;
use keytide_connectors::live::Live;
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{Snapshot, SnapshotRequest};
use keytide_dataflow::{ActionInput, Dataflow, Options, PersonAnswer, render};
use timely::worker::Worker;

use super::checkpoint::{Piece, Pieces};
use super::gather::Gather;
use super::observe::{FOOTPRINTS_MS, WorkerStats, watch_operators};
use super::publish::Results;

/// How long a worker sleeps at most. A message for it wakes it earlier.
const PARK: Duration = Duration::from_millis(100);
/// Events between two rounds of the operators.
const EVENTS_A_ROUND: usize = 16_384;

/// Takes messages, steps the dataflow, and hands over each tick that is done, until the job is over.
pub(super) fn work(
    worker: &mut Worker,
    live: &Live,
    options: Options,
    observed: &Arc<WorkerStats>,
    results: &Results,
    pieces: &Pieces,
    restored: Option<Arc<Snapshot>>,
) {
    watch_operators(worker, observed);
    let index = worker.index() - live.first_worker();
    let gather = Rc::new(RefCell::new(Gather::default()));
    let dataflow = worker.dataflow(|scope| render(scope, options, &gather, restored.as_deref()));
    drop(restored);
    let dataflow = match dataflow {
        Ok(dataflow) => dataflow,
        Err(error) => {
            // The job doesn't wait for a checkpoint to which this worker adds nothing, nor the others for this one.
            live.fail(error.into());
            drop_dataflows(worker);
            return pieces.send(Piece::GivenUp);
        }
    };
    let open = live.enter_worker(index);
    let mut this = LiveWorker {
        index,
        live,
        observed,
        results,
        pieces,
        gather,
        probe: dataflow.probe().clone(),
        dataflow: Some(dataflow),
        open,
        early: Vec::new(),
        closed: VecDeque::new(),
        checkpoint: None,
        fresh: 0,
        reported: 0,
    };
    this.begin(open);
    loop {
        let mut idle = true;
        // Nothing of the next tick is taken before the states of this one are stored.
        while this.checkpoint.is_none()
            && let Some(message) = live.next(index)
        {
            idle = false;
            if this.take(message) {
                break;
            }
        }
        if idle {
            if is_given_up(live) {
                return drop_dataflows(worker);
            }
            worker.step_or_park(Some(PARK));
        } else {
            worker.step();
        }
        this.hand_over();
        if this.checkpoint.is_none() && live.is_over(index) {
            break;
        }
    }
    this.dataflow = None;
    while !this.probe.done() {
        if is_given_up(live) {
            return drop_dataflows(worker);
        }
        worker.step_or_park(Some(PARK));
    }
    this.hand_over();
}

/// Returns whether another worker couldn't take its states in. Then no tick ends.
fn is_given_up(live: &Live) -> bool {
    live.error().is_some_and(|error| error.gives_up())
}

/// Drops a dataflow that never ends, since another worker has none.
fn drop_dataflows(worker: &mut Worker) {
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}

struct LiveWorker<'a> {
    index: usize,
    live: &'a Live,
    observed: &'a WorkerStats,
    results: &'a Results,
    pieces: &'a Pieces,
    gather: Rc<RefCell<Gather>>,
    probe: timely::dataflow::ProbeHandle<Tick>,
    dataflow: Option<Dataflow>,
    open: Tick,
    /// Messages for the next tick that came before this one was closed.
    early: Vec<Message>,
    /// Ticks that were closed and aren't done.
    closed: VecDeque<Tick>,
    /// The tick whose states are to be stored, until they are.
    checkpoint: Option<(Tick, SnapshotRequest)>,
    /// Events since the last round.
    fresh: usize,
    /// The tick after which the worker last reported its states.
    reported: Tick,
}

impl LiveWorker<'_> {
    fn begin(&mut self, tick: Tick) {
        self.open = tick;
        if let Some(dataflow) = &mut self.dataflow {
            dataflow.advance_to(tick);
        }
    }

    /// Takes a message; returns whether the operators should have a round.
    fn take(&mut self, message: Message) -> bool {
        let tick = match &message {
            Message::Events { tick, .. }
            | Message::DeadLetters { tick, .. }
            | Message::Tables { tick, .. } => *tick,
            Message::Definitions(_) | Message::Close { .. } => self.open,
        };
        if tick != self.open {
            self.early.push(message);
            return false;
        }
        let Some(dataflow) = &mut self.dataflow else { return false };
        match message {
            Message::Definitions(mut definitions) => dataflow.definitions(&mut definitions),
            Message::Events { mut events, .. } => {
                self.fresh += events.len();
                dataflow.events(&mut events);
            }
            Message::DeadLetters { letters, .. } => self.gather.borrow_mut().letters(tick, letters),
            Message::Tables { mut changes, letters, inputs, .. } => {
                dataflow.tables(&mut changes);
                let answers = inputs.iter().filter_map(|input| match input {
                    ActionInput::Answer(answer) => Some(answer),
                    ActionInput::Report(_) => None,
                });
                dataflow.decisions(&mut answers.flat_map(PersonAnswer::decisions).collect());
                let mut gather = self.gather.borrow_mut();
                gather.table_letters(tick, letters);
                gather.inputs(tick, inputs);
            }
            Message::Close { info, next, checkpoint } => {
                dataflow.end_tick(info);
                self.gather.borrow_mut().watermark(info.tick, info.watermark);
                self.closed.push_back(info.tick);
                self.begin(next);
                self.fresh = EVENTS_A_ROUND;
                match checkpoint {
                    Some(request) => self.checkpoint = Some((info.tick, request)),
                    None => self.take_early(),
                }
            }
        }
        let round = self.fresh >= EVENTS_A_ROUND;
        if round {
            self.fresh = 0;
        }
        round
    }

    /// Takes the messages of the open tick that came before the last one was closed.
    fn take_early(&mut self) {
        for message in std::mem::take(&mut self.early) {
            self.take(message);
        }
    }

    /// Hands over the output of ticks that are done, in their order.
    fn hand_over(&mut self) {
        while let Some(&tick) = self.closed.front() {
            if self.probe.less_than(&(tick + 1)) {
                return;
            }
            self.closed.pop_front();
            let mut output = self.gather.borrow_mut().take(tick);
            if let Some((_, request)) = self.checkpoint.take_if(|(of, _)| *of == tick) {
                output.checkpoint = true;
                if let Some(dataflow) = &self.dataflow {
                    let begun = Instant::now();
                    let snapshot = dataflow.states().snapshot(request);
                    self.pieces.send(Piece::States { tick, snapshot, took: begun.elapsed() });
                }
                self.take_early();
            }
            if let Some(dataflow) = self.dataflow.as_ref().filter(|_| tick >= self.reported + FOOTPRINTS_MS) {
                self.reported = tick;
                self.observed.report_states(self.index, dataflow.states().footprints());
            }
            self.live.computed(self.index, tick);
            self.results.send(output);
        }
    }
}
