//! Builds operators that remember something between ticks. The shell stashes input by tick, and acts once per closed
//! tick, in order.
//!
//! **Time contract.** The operator acts on tick `t` when no input can bring more of `t`. It acts in the order of
//! ticks, exactly once for *every* tick of the control stream, with records or without. Its output carries time `t`.
//! It holds a capability for a tick from the tick's control record until it acted on it.
//!
//! Records of ticks without a control record would be held for ever. So the driver sends one for each tick before it
//! closes the tick.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use timely::Container;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{ParallelizationContract, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Stream, StreamVec};

use crate::model::{Tick, TickInfo};
use crate::row::Output;
use crate::state::Registered;

/// Receives a worker's results from all of its operators.
pub(crate) type SharedOutput = Rc<RefCell<dyn Output>>;

/// The means that an operator has while a tick closes.
pub(crate) struct Closing<'a, D> {
    pub(crate) info: &'a TickInfo,
    /// Containers for the operator's output stream.
    pub(crate) downstream: &'a mut Vec<Vec<D>>,
    /// Results that leave the dataflow.
    pub(crate) output: &'a mut dyn Output,
}

/// The streams and handles that all operators of a graph share.
pub(crate) struct Shell<'scope> {
    pub(crate) control: StreamVec<'scope, Tick, TickInfo>,
    pub(crate) output: SharedOutput,
}

impl<'scope> Shell<'scope> {
    /// Builds an operator with one durable state and two data inputs. `logic` is a `fn`, so it can remember nothing but
    /// `state`.
    pub(crate) fn operator<S, A, PA, B, PB, D>(
        &self,
        name: &str,
        (first, first_pact): (Stream<'scope, Tick, A>, PA),
        (second, second_pact): (Stream<'scope, Tick, B>, PB),
        state: Registered<S>,
        logic: fn(&mut S, Vec<A>, Vec<B>, Closing<'_, D>),
    ) -> StreamVec<'scope, Tick, D>
    where
        S: 'static,
        A: Container,
        B: Container,
        PA: ParallelizationContract<Tick, A> + 'static,
        PB: ParallelizationContract<Tick, B> + 'static,
        D: Clone + 'static,
    {
        let mut builder = OperatorBuilder::new(name.to_owned(), self.control.scope());
        let mut control_input = builder.new_input(self.control.clone(), Pipeline);
        let mut first_input = builder.new_input(first, first_pact);
        let mut second_input = builder.new_input(second, second_pact);
        let (downstream_output, stream) = builder.new_output();
        let output = Rc::clone(&self.output);
        builder.build(move |_capabilities| {
            let mut downstream_output =
                OutputBuilder::<_, CapacityContainerBuilder<Vec<D>>>::from(downstream_output);
            let mut ticks = BTreeMap::new();
            let mut first_stash: BTreeMap<Tick, Vec<A>> = BTreeMap::new();
            let mut second_stash: BTreeMap<Tick, Vec<B>> = BTreeMap::new();
            move |frontiers| {
                // STEP 1: stash every input by tick; a control record brings the capability of its tick.
                control_input.for_each(|capability, infos| {
                    for info in infos.drain(..) {
                        ticks.insert(info.tick, (capability.retain(0), info));
                    }
                });
                first_input.for_each(|capability, data| {
                    first_stash.entry(*capability.time()).or_default().push(std::mem::take(data));
                });
                second_input.for_each(|capability, data| {
                    second_stash.entry(*capability.time()).or_default().push(std::mem::take(data));
                });
                // STEP 2: act on the ticks that no input can bring more of, in order.
                let mut downstream = Vec::new();
                let mut session_output = downstream_output.activate();
                while let Some(entry) = ticks.first_entry() {
                    if frontiers.iter().any(|frontier| frontier.less_equal(entry.key())) {
                        break;
                    }
                    let (tick, (capability, info)) = entry.remove_entry();
                    state.with(|state| {
                        logic(
                            state,
                            first_stash.remove(&tick).unwrap_or_default(),
                            second_stash.remove(&tick).unwrap_or_default(),
                            Closing {
                                info: &info,
                                downstream: &mut downstream,
                                output: &mut *output.borrow_mut(),
                            },
                        );
                    });
                    // STEP 3: send the output at the tick, whose capability is dropped then.
                    let mut session = session_output.session(&capability);
                    for mut container in downstream.drain(..) {
                        if !container.is_empty() {
                            session.give_container(&mut container);
                        }
                    }
                }
            }
        });
        stream
    }
}
