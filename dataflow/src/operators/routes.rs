//! Decides which routes are counted apart, by day of event time, and keeps the strings behind them.
//!
//! ```text
//!  unique events ──► observed routes ──by bucket──► routes ──to every worker──► admission
//!                                                    ▲
//!  definitions of routes ─────────by bucket──────────┘
//! ```
//! A route belongs to one of 256 buckets, and a bucket to one worker. A day and bucket has room for
//! `limits.routes` / 256 routes, at least one. Of a tick's new routes, those with the lowest ids (they are hashes) are
//! admitted while there is room. So the ticks alone decide: definitions don't,
//! which may come ticks before the events that need them. A route stays admitted for the day. A day is forgotten, as
//! its windows are, when the watermark passes its hold.
//!
//! The operator emits at a tick its decisions of the tick. After a restore the first tick emits all that hold.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::agents::ObservedAgent;
use super::parts::by_tick::Closing;
use super::parts::cap::CapCounts;
use super::parts::texts::{AdmissionStatus, StoredText, Texts};
use crate::model::{AccessEvent, Definition, EventTime, NameId, RouteId, Tick};
use crate::row::Admitted;
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};
use crate::window::Level;

/// The number of routes, and of user agents, that are remembered per batch. One that is observed again is sent again
/// only if another took its slot.
const RECENT: usize = 1_024;

/// A route that an event has, with the day of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ObservedRoute {
    pub(crate) day: EventTime,
    pub(crate) route: RouteId,
}

/// Passes events on, and emits their routes and user agents, each at least once a tick.
pub(crate) fn observe_routes<'scope>(
    events: StreamVec<'scope, Tick, AccessEvent>,
) -> (
    StreamVec<'scope, Tick, AccessEvent>,
    StreamVec<'scope, Tick, ObservedRoute>,
    StreamVec<'scope, Tick, ObservedAgent>,
) {
    let mut builder = OperatorBuilder::new("Met".to_owned(), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (events_output, events) = builder.new_output();
    let (routes_output, observed) = builder.new_output();
    let (agents_output, agents) = builder.new_output();
    builder.build(move |_capabilities| {
        let mut events_output =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<AccessEvent>>>::from(events_output);
        let mut routes_output =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<ObservedRoute>>>::from(routes_output);
        let mut agents_output =
            OutputBuilder::<_, CapacityContainerBuilder<Vec<ObservedAgent>>>::from(agents_output);
        move |_frontiers| {
            let (mut events_output, mut routes_output) = (events_output.activate(), routes_output.activate());
            let mut agents_output = agents_output.activate();
            input.for_each_time(|capability, batches| {
                let mut events_session = events_output.session(&capability);
                let mut routes_session = routes_output.session(&capability);
                let mut agents_session = agents_output.session(&capability);
                let mut recent_routes =
                    vec![ObservedRoute { day: EventTime::MAX, route: RouteId(0) }; RECENT];
                let mut recent_agents =
                    vec![ObservedAgent { day: EventTime::MAX, agent: NameId::NONE }; RECENT];
                for batch in batches {
                    for event in batch.iter() {
                        let day = Level::Day.start(event.time);
                        let observed = ObservedAgent { day, agent: event.user_agent };
                        let slot = &mut recent_agents[observed.agent.0 as usize % RECENT];
                        if *slot != observed && observed.agent.is_some() {
                            *slot = observed;
                            agents_session.give(observed);
                        }
                        let observed = ObservedRoute { day, route: event.route };
                        let slot = &mut recent_routes[event.route.0 as usize % RECENT];
                        if *slot != observed {
                            *slot = observed;
                            routes_session.give(observed);
                        }
                    }
                    events_session.give_container(batch);
                }
            });
        }
    });
    (events, observed, agents)
}

/// A decision that every worker is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum RouteDecision {
    /// Admits a route on a day.
    Admit(ObservedRoute),
    Define(Definition),
    /// Forgets a string that nothing needs any more.
    Forget(RouteId),
}

/// The routes of this worker's buckets.
pub(crate) struct AdmittedRoutes {
    room: usize,
    days: BTreeMap<EventTime, HashSet<RouteId>>,
    /// The number of admitted routes of each bucket: derived from `days`.
    counted: CapCounts,
    texts: Texts<RouteId>,
    /// True if rows were restored and their decisions have to be sent again.
    restored: bool,
}

impl AdmittedRoutes {
    pub(crate) fn new(limits: &keytide_config::Limits) -> Self {
        let room = CapCounts::room(limits.routes);
        Self {
            room,
            days: BTreeMap::new(),
            counted: CapCounts::default(),
            texts: Texts::new(room),
            restored: false,
        }
    }

    pub(crate) fn decide(
        state: &mut Self,
        definitions: Vec<Vec<Definition>>,
        observed: Vec<Vec<ObservedRoute>>,
        closing: Closing<'_, RouteDecision>,
    ) {
        let info = closing.info;
        let held_from = Level::Day.held_from(info.watermark_before);
        let mut decisions = Vec::new();
        if std::mem::take(&mut state.restored) {
            let admitted = |(day, routes): (&EventTime, &HashSet<RouteId>)| {
                let day = *day;
                routes
                    .iter()
                    .map(move |route| RouteDecision::Admit(ObservedRoute { day, route: *route }))
                    .collect::<Vec<_>>()
            };
            decisions.extend(state.days.iter().flat_map(admitted));
            decisions.extend(state.texts.published().cloned().map(RouteDecision::Define));
        }
        for definition in definitions.into_iter().flatten() {
            if let Definition::Route { id, day, .. } = definition {
                let status = state.status(id, day, held_from);
                let published = state.texts.announce(id, definition, day, status).publishes;
                decisions.extend(published.map(RouteDecision::Define));
            }
        }
        let mut new: Vec<ObservedRoute> = observed.into_iter().flatten().collect();
        new.retain(|observed| state.status(observed.route, observed.day, held_from) == AdmissionStatus::Open);
        new.sort_unstable();
        new.dedup();
        for observed in new {
            if state.counted.admit(observed.day, observed.route.bucket(), state.room) {
                state.days.entry(observed.day).or_default().insert(observed.route);
                decisions.push(RouteDecision::Admit(observed));
                decisions.extend(state.texts.admit(observed.route).map(RouteDecision::Define));
            }
        }

        let held_from = Level::Day.held_from(info.watermark);
        state.days = state.days.split_off(&held_from);
        state.counted.forget_before(held_from);
        let Self { room, days, counted, texts, .. } = state;
        let forgotten = texts.end_tick(|route, day| {
            days.values().any(|routes| routes.contains(route))
                || (day >= held_from && counted.has_room(day, route.bucket(), *room))
        });
        decisions.extend(forgotten.into_iter().map(RouteDecision::Forget));
        let routes = counted.of(Level::Day.start(info.watermark));
        closing.output.admitted(info.tick, Admitted { routes, ..Admitted::default() });
        closing.downstream.push(decisions);
    }

    fn status(&self, route: RouteId, day: EventTime, held_from: EventTime) -> AdmissionStatus {
        if self.days.get(&day).is_some_and(|routes| routes.contains(&route)) {
            AdmissionStatus::Admitted
        } else if day >= held_from
            && route != RouteId::OVERFLOW
            && self.counted.has_room(day, route.bucket(), self.room)
        {
            AdmissionStatus::Open
        } else {
            AdmissionStatus::Closed
        }
    }
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum RoutesRow {
    Admitted(ObservedRoute),
    Text(RouteId, StoredText),
    Clock(u32),
}

impl Durable for AdmittedRoutes {
    const ID: StateId = StateId::Routes;
    type Row<'a> = RoutesRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for (day, routes) in &self.days {
            routes
                .iter()
                .for_each(|route| out.row(RoutesRow::Admitted(ObservedRoute { day: *day, route: *route })));
        }
        self.texts.rows().for_each(|(route, text)| out.row(RoutesRow::Text(*route, text.clone())));
        out.row(RoutesRow::Clock(self.texts.ticks()));
    }

    fn row_in(&mut self, row: RoutesRow) {
        self.restored = true;
        match row {
            RoutesRow::Admitted(ObservedRoute { day, route }) => {
                self.days.entry(day).or_default().insert(route);
                self.counted.add(day, route.bucket(), 1);
            }
            RoutesRow::Text(route, text) => self.texts.insert(route, text),
            RoutesRow::Clock(ticks) => self.texts.set_ticks(ticks),
        }
    }

    fn shard(row: &RoutesRow) -> Shard {
        match row {
            RoutesRow::Admitted(ObservedRoute { route, .. }) | RoutesRow::Text(route, _) => {
                Shard::Of(route.bucket().into())
            }
            RoutesRow::Clock(_) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let mut footprint: Footprint = self.days.values().map(Footprint::of_set).sum();
        footprint += self.texts.footprint();
        footprint.bytes += self.counted.footprint().bytes;
        footprint
    }
}
