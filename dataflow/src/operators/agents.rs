//! Keeps the strings of user agents that made calls in the last 31 days of event time. They are shown as evidence.
//! Callers choose their agents, so there are at most `limits.agents` of them.
//!
//! ```text
//!  unique events ──► observed agents ──by bucket──► agents ──to every worker──► output
//!                                                     ▲
//!  definitions of agents ────────by bucket────────────┘
//! ```
//! An agent belongs to one of 256 buckets, and a bucket to one worker. A bucket has room for `limits.agents` / 256
//! agents, at least one. Of a tick's new agents, those with the lowest ids (they are hashes) are admitted while there
//! is room. An agent stays admitted until no event had it for 31 days. So the
//! ticks alone decide: definitions don't, which may come ticks before the events that need them. An agent that isn't
//! admitted is shown by its hash; nothing else depends on it.
//!
//! A string that comes before an event with its agent waits. At most [`WAITING`] and the room of a bucket wait, those
//! of the lowest ids. In a full bucket no string waits. An agent takes 150 bytes and its text. At the default, and with the
//! longest texts of 256 bytes, that is 26 MiB, and as many again for strings that wait.
//!
//! The operator emits at a tick its decisions of the tick. After a restore the first tick emits all that hold.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use super::parts::cap::CapCounts;
use crate::model::{Definition, EventTime, Forgotten, NameId};
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};
use crate::window::Level;

/// The number of strings of a bucket that may wait, beyond the room of the bucket.
const WAITING: usize = 64;
/// How long an agent is remembered after its last call, in ms.
const KEPT_MS: u64 = 31 * 24 * 3_600_000;

/// A user agent that an event has, with the day of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ObservedAgent {
    pub(crate) agent: NameId,
    pub(crate) day: EventTime,
}

/// A decision that every worker is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum AgentDecision {
    /// The string of an agent, with the day of its last announcement.
    Define(NameId, EventTime, Box<str>),
    Forget(NameId),
}

/// An agent that is admitted, or a string that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentEntry {
    /// The last day on which an event had it, or on which a waiting string was announced.
    day: EventTime,
    text: Option<Box<str>>,
}

impl AgentEntry {
    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len())
    }
}

/// The user agents of this worker's buckets.
pub(crate) struct AdmittedAgents {
    room: usize,
    known: HashMap<NameId, AgentEntry>,
    /// The number of admitted agents of each bucket: derived from `known`.
    counts: Box<[usize; 256]>,
    waiting: BTreeMap<u8, BTreeMap<NameId, AgentEntry>>,
    /// True if rows were restored and their strings have to be published again.
    restored: bool,
}

impl AdmittedAgents {
    pub(crate) fn new(limits: &keytide_config::Limits) -> Self {
        Self {
            room: CapCounts::room(limits.agents),
            known: HashMap::new(),
            counts: Box::new([0; 256]),
            waiting: BTreeMap::new(),
            restored: false,
        }
    }

    pub(crate) fn decide(
        state: &mut Self,
        definitions: Vec<Vec<Definition>>,
        observed: Vec<Vec<ObservedAgent>>,
        closing: Closing<'_, AgentDecision>,
    ) {
        let mut decisions = Vec::new();
        if std::mem::take(&mut state.restored) {
            let again = state.known.iter().filter_map(|(id, agent)| {
                agent.text.clone().map(|text| AgentDecision::Define(*id, agent.day, text))
            });
            decisions.extend(again);
        }
        let before = held_from(closing.info.watermark_before);
        for definition in definitions.into_iter().flatten() {
            if let Definition::Agent { id, day, text } = definition {
                state.announce(id, day, text, before, &mut decisions);
            }
        }
        state.observe(observed.into_iter().flatten(), before, &mut decisions);
        let from = held_from(closing.info.watermark);
        if from > before {
            state.expire(from, &mut decisions);
        }
        closing.downstream.push(decisions);
    }

    fn has_room(&self, id: NameId) -> bool {
        self.counts[usize::from(id.bucket())] < self.room
    }

    fn announce(
        &mut self,
        id: NameId,
        day: EventTime,
        text: Box<str>,
        held_from: EventTime,
        decisions: &mut Vec<AgentDecision>,
    ) {
        let has_room = self.has_room(id);
        if let Some(agent) = self.known.get_mut(&id) {
            if agent.text.is_none() {
                decisions.push(AgentDecision::Define(id, day, text.clone()));
                agent.text = Some(text);
            }
        } else if day >= held_from && has_room {
            let waiting = self.waiting.entry(id.bucket()).or_default();
            let agent = waiting.entry(id).or_insert(AgentEntry { day, text: Some(text) });
            agent.day = agent.day.max(day);
            if waiting.len() > self.room.saturating_add(WAITING) {
                waiting.pop_last();
            }
        }
    }

    fn observe(
        &mut self,
        observed: impl Iterator<Item = ObservedAgent>,
        held_from: EventTime,
        decisions: &mut Vec<AgentDecision>,
    ) {
        let mut new = Vec::new();
        for observed in observed {
            if let Some(agent) = self.known.get_mut(&observed.agent) {
                agent.day = agent.day.max(observed.day);
            } else if observed.day >= held_from && self.has_room(observed.agent) {
                new.push(observed);
            }
        }
        new.sort_unstable();
        for of_agent in new.chunk_by(|a, b| a.agent == b.agent) {
            let ObservedAgent { agent: id, day } = of_agent[of_agent.len() - 1];
            let bucket = id.bucket();
            if self.has_room(id) {
                self.counts[usize::from(bucket)] += 1;
                let waiting = self.waiting.get_mut(&bucket).and_then(|waiting| waiting.remove(&id));
                let text = waiting.and_then(|waiting| waiting.text);
                decisions.extend(text.clone().map(|text| AgentDecision::Define(id, day, text)));
                self.known.insert(id, AgentEntry { day, text });
            }
            if !self.has_room(id) {
                self.waiting.remove(&bucket);
            }
        }
    }

    /// Forgets agents that no event had since, and strings that weren't announced since.
    fn expire(&mut self, held_from: EventTime, decisions: &mut Vec<AgentDecision>) {
        let mut forgotten = Vec::new();
        self.known.retain(|id, agent| {
            let keep = agent.day >= held_from;
            if !keep {
                self.counts[usize::from(id.bucket())] -= 1;
                forgotten.extend(agent.text.is_some().then_some(*id));
            }
            keep
        });
        forgotten.sort_unstable();
        decisions.extend(forgotten.into_iter().map(AgentDecision::Forget));
        self.waiting.retain(|_, waiting| {
            waiting.retain(|_, agent| agent.day >= held_from);
            !waiting.is_empty()
        });
    }
}

/// Returns the first day that is remembered.
fn held_from(watermark: EventTime) -> EventTime {
    Level::Day.start(watermark).saturating_sub(KEPT_MS)
}

/// Publishes the decisions on each worker.
pub(crate) fn publish_texts(
    (): &mut (),
    decisions: Vec<Vec<(u64, AgentDecision)>>,
    _: Vec<Vec<()>>,
    closing: Closing<'_, ()>,
) {
    let (mut definitions, mut forgotten) = (Vec::new(), Vec::new());
    for (_, decisions) in decisions.into_iter().flatten() {
        match decisions {
            AgentDecision::Define(id, day, text) => definitions.push(Definition::Agent { id, day, text }),
            AgentDecision::Forget(id) => forgotten.push(Forgotten::Agent(id)),
        }
    }
    if !definitions.is_empty() {
        closing.output.define(closing.info.tick, definitions);
    }
    if !forgotten.is_empty() {
        closing.output.forget(closing.info.tick, forgotten);
    }
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum AgentsRow {
    Known(NameId, AgentEntry),
    Waiting(NameId, AgentEntry),
}

impl Durable for AdmittedAgents {
    const ID: StateId = StateId::Agents;
    type Row<'a> = AgentsRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for (id, agent) in &self.known {
            out.row(AgentsRow::Known(*id, agent.clone()));
        }
        for (id, agent) in self.waiting.values().flatten() {
            out.row(AgentsRow::Waiting(*id, agent.clone()));
        }
    }

    fn row_in(&mut self, row: AgentsRow) {
        match row {
            AgentsRow::Known(id, agent) => {
                self.restored = true;
                self.counts[usize::from(id.bucket())] += 1;
                self.known.insert(id, agent);
            }
            AgentsRow::Waiting(id, agent) => {
                self.waiting.entry(id.bucket()).or_default().insert(id, agent);
            }
        }
    }

    fn shard(row: &AgentsRow) -> Shard {
        let (AgentsRow::Known(id, _) | AgentsRow::Waiting(id, _)) = row;
        Shard::Of(id.bucket().into())
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.known, AgentEntry::bytes);
        for waiting in self.waiting.values() {
            footprint += Footprint::of_tree_with(waiting, AgentEntry::bytes);
        }
        footprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY_MS;

    const ROOM: usize = 3;

    fn agents() -> AdmittedAgents {
        let mut agents = AdmittedAgents::new(&keytide_config::Limits::default());
        agents.room = ROOM;
        agents
    }

    /// Returns an id of the one bucket of these tests, in the order of the numbers.
    fn of(number: u64) -> NameId {
        NameId((number + 1) << 8)
    }

    fn announce(agents: &mut AdmittedAgents, number: u64, day: u64) -> usize {
        let mut decisions = Vec::new();
        agents.announce(of(number), day * DAY_MS, format!("agent/{number}").into(), 0, &mut decisions);
        decisions.len()
    }

    fn observe(agents: &mut AdmittedAgents, numbers: impl IntoIterator<Item = u64>, day: u64) -> Vec<u64> {
        let mut decisions = Vec::new();
        let observed =
            numbers.into_iter().map(|number| ObservedAgent { agent: of(number), day: day * DAY_MS });
        agents.observe(observed, 0, &mut decisions);
        let defined = decisions.into_iter().map(|decisions| match decisions {
            AgentDecision::Define(id, _, text) => {
                let number = (id.0 >> 8) - 1;
                assert_eq!(*text, format!("agent/{number}"));
                number
            }
            AgentDecision::Forget(id) => panic!("{id:?} was met"),
        });
        defined.collect()
    }

    #[test]
    fn a_tick_admits_the_lowest_ids_while_there_is_room() {
        for (observed, admitted) in [(ROOM - 1, ROOM - 1), (ROOM, ROOM), (ROOM + 1, ROOM)] {
            let mut agents = agents();
            let numbers = || (0..observed as u64).rev();
            numbers().for_each(|number| assert_eq!(announce(&mut agents, number, 1), 0));
            let expected: Vec<u64> = (0..admitted as u64).collect();
            assert_eq!(observe(&mut agents, numbers(), 1), expected);
            assert_eq!(observe(&mut agents, numbers(), 1), [0; 0], "each once");
            assert_eq!(agents.waiting.is_empty(), admitted == ROOM, "where there is no room none wait");
        }
    }

    #[test]
    fn any_number_of_agents_takes_no_more_memory_than_the_cap() {
        let mut agents = agents();
        for number in 0..100_000 {
            announce(&mut agents, number, 1);
        }
        assert_eq!(agents.footprint().rows as usize, ROOM + WAITING);
        for number in 0..100_000 {
            announce(&mut agents, number, 1);
            observe(&mut agents, [number], 1);
        }
        assert_eq!(agents.footprint().rows as usize, ROOM);
    }

    #[test]
    fn what_no_call_met_for_31_days_makes_room() {
        let mut agents = agents();
        (0..ROOM as u64).for_each(|number| _ = announce(&mut agents, number, 1));
        observe(&mut agents, 0..ROOM as u64, 1);
        observe(&mut agents, [1], 2);
        observe(&mut agents, [1], 1);
        let mut expire = |day: u64| {
            let mut decisions = Vec::new();
            agents.expire(held_from(day * DAY_MS + 5), &mut decisions);
            let forgotten = decisions.into_iter().map(|decisions| match decisions {
                AgentDecision::Forget(id) => (id.0 >> 8) - 1,
                AgentDecision::Define(id, ..) => panic!("{id:?} expired"),
            });
            forgotten.collect::<Vec<_>>()
        };
        assert_eq!(expire(32), [0; 0]);
        assert_eq!(expire(33), [0, 2]);
        announce(&mut agents, 9, 33);
        assert_eq!(observe(&mut agents, [9], 33), [9]);
    }

    #[test]
    fn a_string_that_comes_after_its_agent_is_published_then() {
        let mut agents = agents();
        assert_eq!(observe(&mut agents, [7], 1), [0; 0]);
        assert_eq!(announce(&mut agents, 7, 2), 1);
        assert_eq!(announce(&mut agents, 7, 3), 0);
    }
}
