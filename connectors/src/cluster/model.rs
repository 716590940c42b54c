//! The election against a model of processes, network and store: every order of events, and many random ones.
//!
//! ```text
//! process 1: Election ─┐                           ┌─ claims by generation; writes that arrive late
//! process 2: Election ─┼─ steps ──► ElectionModel ─┼─ control links, generations that run, the newest tick
//! process 3: Election ─┘◄─ events ─                └─ time, which jumps to the next instant that a process waits for
//! ```
//! At each step one process goes on by one request, or something happens: a process dies, comes back, freezes, is cut
//! off; a message is lost; the store doesn't answer, or a write arrives much later; time passes. A process that looks
//! and then leads does so at once: one that stops in between is fenced by the ledger, which has a model of its own.
//!
//! **Checked at each step**: a generation has one leader. It starts only as the newest one, with enough members, and
//! not short too early. A process never asks for a generation that it lost. No process claims over a generation that
//! runs and commits. A short generation ends for a spare after 5 min at the earliest. Once faults are over,
//! a generation must run with all processes that are alive, within a bound, and must not be disturbed.
//!
//! Each rule can be left out, and then the model finds what goes wrong. It can't find a driver that doesn't do what the
//! election says.

use std::collections::BTreeMap;
use std::hash::Hash as _;
use std::time::Duration;

use hashbrown::HashSet;
use xxhash_rust::xxh3::Xxh3;

use super::election::{
    AskAnswer, Election, ElectionEvent, ElectionRules, ElectionStep, ElectionTerms, NewestTick, SHORT_FOR,
    SeenClaim,
};

/// The time after the last fault in which a generation must run with all processes.
const CONVERGES_IN: Duration = Duration::from_secs(30 * 60);
/// How long it is watched then.
const WATCHED_FOR: Duration = Duration::from_secs(30 * 60);

/// The bounds of a model, and the rules of its processes.
#[derive(Clone, Copy, Debug)]
struct ModelSetup {
    rules: ElectionRules,
    /// The store writes an object only if it isn't there.
    puts_if_absent: bool,
    /// The newest claim is never cleaned up.
    keeps_newest: bool,
    terms: ElectionTerms,
    processes: usize,
    /// Processes that are cut off from all others and reach the store, as bits.
    isolated: u8,
    /// From the start of a generation to its first tick.
    restore: Duration,
    /// Deaths, freezes, and cuts of the network, at most.
    deaths: u8,
    freezes: u8,
    cuts: u8,
    /// Requests that fail or arrive late, at most.
    failures: u8,
    /// No event is tried after this time.
    horizon: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl ModelSetup {
    /// Small enough for every order of events.
    const SMALL: Self = Self {
        rules: ElectionRules::ALL,
        puts_if_absent: true,
        keeps_newest: true,
        terms: ElectionTerms { processes: 2, min_processes: 1, settle: seconds(1), dead_after: seconds(1) },
        processes: 2,
        isolated: 0,
        restore: Duration::ZERO,
        deaths: 1,
        freezes: 0,
        cuts: 0,
        failures: 1,
        horizon: Duration::from_millis(3_500),
    };

    /// Too large for every order of events, so that random ones are tried.
    const LARGE: Self = Self {
        terms: ElectionTerms { processes: 3, min_processes: 2, settle: seconds(10), dead_after: seconds(10) },
        processes: 4,
        deaths: 6,
        freezes: 4,
        cuts: 3,
        failures: 12,
        horizon: seconds(3_600),
        ..Self::SMALL
    };

    /// One process of three reaches only the store, and a generation takes longer to restore than `settle` and
    /// `dead_after` together.
    const ISOLATED: Self = Self {
        processes: 3,
        isolated: 0b100,
        restore: seconds(30),
        deaths: 0,
        freezes: 0,
        cuts: 0,
        failures: 2,
        ..Self::LARGE
    };

    /// Generations begin short, as processes come late.
    const SHORT: Self = Self {
        terms: ElectionTerms { processes: 3, min_processes: 2, settle: seconds(1), dead_after: seconds(1) },
        processes: 3,
        deaths: 2,
        freezes: 0,
        cuts: 0,
        failures: 0,
        ..Self::LARGE
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PeerStatus {
    Up,
    Down,
    Frozen { since: Duration },
}

/// A control link to the leader of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ToLeader {
    process: usize,
    nonce: u64,
    generation: u64,
}

/// A generation that this process started as its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Led {
    generation: u64,
    since: Duration,
    /// The processes with their nonces, the leader first.
    members: Vec<(usize, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Participant {
    status: PeerStatus,
    nonce: u64,
    election: Election,
    link: Option<ToLeader>,
    led: Option<Led>,
    /// The generation that its leader started with it.
    started: Option<u64>,
    /// The newest generation that it knows to be lost.
    lost: u64,
    /// The generation, members and spares of which it was told last.
    told: (u64, usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StoredClaim {
    process: usize,
    nonce: u64,
    at: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ElectionModel {
    now: Duration,
    claims: BTreeMap<u64, StoredClaim>,
    /// Writes that are on their way.
    late: Vec<(u64, usize, u64)>,
    /// The nonce of the life that committed the newest tick, and when.
    tick: Option<(u64, Duration)>,
    /// The generations that were led so far, by their leaders' nonces.
    leads: BTreeMap<u64, u64>,
    processes: Vec<Participant>,
    /// The process that is cut off for now, and since when.
    cut: Option<(usize, Duration)>,
    next_nonce: u64,
    deaths: u8,
    freezes: u8,
    cuts: u8,
    failures: u8,
}

/// A thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelEvent {
    /// A process does its step, and all is well.
    Step(usize),
    /// Its request fails; a write is applied later or never.
    Fail(usize),
    /// A write arrives that was on its way.
    Arrive(usize),
    /// A process notices that its link or its generation is over.
    Notice(usize),
    Die(usize),
    Return(usize),
    Freeze(usize),
    Thaw(usize),
    Cut(usize),
    Heal,
    /// Time passes until the next instant that a process waits for.
    Pass,
}

impl ModelEvent {
    fn is_fault(self) -> bool {
        matches!(self, Self::Fail(_) | Self::Die(_) | Self::Freeze(_) | Self::Cut(_))
    }
}

impl ElectionModel {
    fn new(setup: &ModelSetup) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            claims: BTreeMap::new(),
            late: Vec::new(),
            tick: None,
            leads: BTreeMap::new(),
            processes: Vec::new(),
            cut: None,
            next_nonce: 1,
            deaths: setup.deaths,
            freezes: setup.freezes,
            cuts: setup.cuts,
            failures: setup.failures,
        };
        for _ in 0..setup.processes {
            let process = world.life(setup, 0);
            world.processes.push(process);
        }
        world
    }

    /// Returns a hash that stands for the state: there is no room for so many whole ones.
    fn digest(&self) -> u128 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.digest128()
    }

    /// Returns a process that begins, with a nonce of its own.
    fn life(&mut self, setup: &ModelSetup, lost: u64) -> Participant {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        let election = Election::with_rules(setup.terms, nonce, lost, setup.rules);
        let (status, link, led, started) = (PeerStatus::Up, None, None, None);
        Participant { status, nonce, election, link, led, started, lost, told: (0, 1, 0) }
    }

    fn step_of(&self, index: usize) -> ElectionStep {
        self.processes[index].election.step(self.now)
    }

    fn is_up(&self, index: usize) -> bool {
        self.processes[index].status == PeerStatus::Up
    }

    fn reach(&self, setup: &ModelSetup, one: usize, other: usize) -> bool {
        let is_cut = |index: usize| {
            setup.isolated & (1 << index) != 0 || self.cut.is_some_and(|(cut, _)| cut == index)
        };
        one == other || !is_cut(one) && !is_cut(other)
    }

    /// Returns whether beats of one process have been missing at another for `dead_after`.
    fn is_silent(&self, setup: &ModelSetup, one: usize, other: usize) -> bool {
        let over = |since: Duration| self.now >= since + setup.terms.dead_after;
        let is_cut = |(cut, since)| (cut == one || cut == other) && over(since);
        let is_frozen = matches!(self.processes[other].status, PeerStatus::Frozen { since } if over(since));
        one != other && (is_frozen || self.cut.is_some_and(is_cut))
    }

    fn newest(&self) -> Option<(u64, StoredClaim)> {
        self.claims.last_key_value().map(|(generation, claim)| (*generation, *claim))
    }

    /// Returns whether a link of a process that waits or is a spare is over for it.
    fn is_link_over(&self, setup: &ModelSetup, index: usize) -> bool {
        let Some(link) = self.processes[index].link else { return true };
        let leader = &self.processes[link.process];
        let is_there = leader.status != PeerStatus::Down
            && leader.nonce == link.nonce
            && leader.election.hosts() == Some(link.generation);
        !is_there || self.is_silent(setup, index, link.process)
    }

    /// The generation with this number that runs, if its leader still is in it.
    fn led(&self, generation: u64) -> Option<(usize, &Led)> {
        self.processes.iter().enumerate().find_map(|(index, process)| {
            let led = process.led.as_ref().filter(|led| led.generation == generation)?;
            (process.status != PeerStatus::Down).then_some((index, led))
        })
    }

    /// Returns whether a generation can't go on, so that its members notice it.
    fn is_generation_over(&self, setup: &ModelSetup, index: usize, generation: u64) -> bool {
        let Some((leader, led)) = self.led(generation) else { return true };
        let is_fenced = self.leads.keys().any(|newer| *newer > generation);
        let is_gone = |&(member, nonce): &(usize, u64)| {
            let of = &self.processes[member];
            of.status == PeerStatus::Down
                || of.nonce != nonce
                || of.started != Some(generation)
                || self.is_silent(setup, leader, member)
                || self.is_silent(setup, index, member)
        };
        index == leader && is_fenced || led.members.iter().any(is_gone)
    }

    /// The generation that runs and commits ticks, if there is one.
    fn healthy(&self, setup: &ModelSetup) -> Option<u64> {
        let generation = *self.leads.last_key_value()?.0;
        let (leader, led) = self.led(generation)?;
        let is_well = |&(member, nonce): &(usize, u64)| {
            let of = &self.processes[member];
            let is_same = of.nonce == nonce && of.started == Some(generation);
            is_same && of.status == PeerStatus::Up && self.reach(setup, leader, member)
        };
        (led.members.iter().all(is_well) && self.now >= led.since + setup.restore).then_some(generation)
    }

    fn can_step(&self, index: usize) -> bool {
        let is_waiting = matches!(
            self.step_of(index),
            ElectionStep::Rest { .. }
                | ElectionStep::Gather { .. }
                | ElectionStep::Follow { .. }
                | ElectionStep::Run { .. }
                | ElectionStep::Exit
        );
        self.is_up(index) && !is_waiting
    }

    fn can_notice(&self, setup: &ModelSetup, index: usize) -> bool {
        if !self.is_up(index) {
            return false;
        }
        match self.step_of(index) {
            ElectionStep::Follow { .. } => self.is_link_over(setup, index),
            ElectionStep::Run { generation, .. } | ElectionStep::EndAtCheckpoint { generation } => {
                self.is_generation_over(setup, index, generation)
            }
            _ => false,
        }
    }

    /// The next instant that something waits for.
    fn next_instant(&self, setup: &ModelSetup) -> Option<Duration> {
        let of_steps = (0..self.processes.len()).filter(|index| self.is_up(*index)).filter_map(|index| {
            match self.step_of(index) {
                ElectionStep::Rest { until } | ElectionStep::Gather { until, .. } => Some(until),
                ElectionStep::Run { until, .. } => until,
                _ => None,
            }
        });
        let silence = |since: Duration| since + setup.terms.dead_after;
        let of_frozen = self.processes.iter().filter_map(|process| match process.status {
            PeerStatus::Frozen { since } => Some(silence(since)),
            _ => None,
        });
        let of_cut = self.cut.map(|(_, since)| silence(since));
        let restored = self.processes.iter().filter_map(|process| process.led.as_ref());
        let restored = restored.map(|led| led.since + setup.restore);
        let later = of_steps.chain(of_frozen).chain(of_cut).chain(restored).filter(|at| *at > self.now);
        later.min()
    }

    /// Lists what can happen next.
    fn events(&self, setup: &ModelSetup, events: &mut Vec<ModelEvent>) {
        events.clear();
        if self.now >= setup.horizon {
            return;
        }
        for index in 0..self.processes.len() {
            match self.processes[index].status {
                PeerStatus::Down => events.push(ModelEvent::Return(index)),
                PeerStatus::Frozen { .. } => events.push(ModelEvent::Thaw(index)),
                PeerStatus::Up => {}
            }
            if self.can_step(index) {
                events.push(ModelEvent::Step(index));
                let can_fail = matches!(
                    self.step_of(index),
                    ElectionStep::Look
                        | ElectionStep::Put { .. }
                        | ElectionStep::Ask { .. }
                        | ElectionStep::ReadTick
                );
                if can_fail && self.failures > 0 {
                    events.push(ModelEvent::Fail(index));
                }
            }
            if self.can_notice(setup, index) {
                events.push(ModelEvent::Notice(index));
            }
            if self.is_up(index) {
                if self.deaths > 0 {
                    events.push(ModelEvent::Die(index));
                }
                if self.freezes > 0 {
                    events.push(ModelEvent::Freeze(index));
                }
                if self.cuts > 0 && self.cut.is_none() {
                    events.push(ModelEvent::Cut(index));
                }
            }
        }
        events.extend((0..self.late.len()).map(ModelEvent::Arrive));
        if self.cut.is_some() {
            events.push(ModelEvent::Heal);
        }
        if self.next_instant(setup).is_some() {
            events.push(ModelEvent::Pass);
        }
    }

    /// Applies an event to the world. Returns what is wrong, if something is.
    fn apply(&mut self, setup: &ModelSetup, event: ModelEvent) -> Result<(), String> {
        match event {
            ModelEvent::Step(index) => self.step(setup, index)?,
            ModelEvent::Fail(index) => {
                self.failures -= 1;
                self.fail(setup, index)?;
            }
            ModelEvent::Arrive(at) => {
                let (generation, index, nonce) = self.late.remove(at);
                self.put(setup, generation, index, nonce);
            }
            ModelEvent::Notice(index) => {
                let before = self.processes[index].link.take();
                match self.step_of(index) {
                    ElectionStep::Run { generation, .. } | ElectionStep::EndAtCheckpoint { generation } => {
                        self.leave(index, generation);
                        // A follower notices by its link, a leader by those of others.
                        let event = match before {
                            Some(_) => ElectionEvent::LinkLost,
                            None => ElectionEvent::GenerationOver,
                        };
                        self.tell(setup, index, event)?;
                    }
                    _ => self.tell(setup, index, ElectionEvent::LinkLost)?,
                }
            }
            ModelEvent::Die(index) => {
                self.deaths -= 1;
                let process = &mut self.processes[index];
                (process.status, process.link, process.led) = (PeerStatus::Down, None, None);
            }
            ModelEvent::Return(index) => self.processes[index] = self.life(setup, 0),
            ModelEvent::Freeze(index) => {
                self.freezes -= 1;
                self.processes[index].status = PeerStatus::Frozen { since: self.now };
            }
            ModelEvent::Thaw(index) => self.thaw(setup, index)?,
            ModelEvent::Cut(index) => {
                self.cuts -= 1;
                self.cut = Some((index, self.now));
            }
            ModelEvent::Heal => self.cut = None,
            ModelEvent::Pass => self.pass(setup),
        }
        self.tell_presence(setup)
    }

    /// Takes a process out of a generation that is over for it.
    fn leave(&mut self, index: usize, generation: u64) {
        let process = &mut self.processes[index];
        (process.lost, process.led, process.started) = (generation, None, None);
    }

    /// A process that finds that it slept for `dead_after` begins anew.
    fn thaw(&mut self, setup: &ModelSetup, index: usize) -> Result<(), String> {
        let PeerStatus::Frozen { since } = self.processes[index].status else { return Ok(()) };
        let generation = self.processes[index].started;
        self.processes[index].status = PeerStatus::Up;
        if self.now >= since + setup.terms.dead_after {
            let lost = self.processes[index].lost.max(generation.unwrap_or(0));
            self.processes[index] = self.life(setup, lost);
        } else if let (Some(of), ElectionStep::Follow { generation }) = (generation, self.step_of(index))
            && of == generation
        {
            self.tell(setup, index, ElectionEvent::Started)?;
        }
        Ok(())
    }

    fn pass(&mut self, setup: &ModelSetup) {
        let Some(next) = self.next_instant(setup) else { return };
        // A generation that is well all the while commits until then.
        self.now = next;
        if let Some(generation) = self.healthy(setup) {
            self.tick = Some((self.leads[&generation], next));
        }
    }

    fn put(&mut self, setup: &ModelSetup, generation: u64, process: usize, nonce: u64) {
        let claim = StoredClaim { process, nonce, at: self.now };
        if !self.claims.contains_key(&generation) || !setup.puts_if_absent {
            self.claims.insert(generation, claim);
        }
    }

    /// Lets a process do its step.
    fn step(&mut self, setup: &ModelSetup, index: usize) -> Result<(), String> {
        let nonce = self.processes[index].nonce;
        let event = match self.step_of(index) {
            ElectionStep::Look => {
                let seen = self.newest().map(|(generation, claim)| SeenClaim {
                    generation,
                    by: Some((claim.nonce, claim.process.to_string())),
                });
                ElectionEvent::Looked(seen)
            }
            ElectionStep::Put { generation } => {
                self.put(setup, generation, index, nonce);
                ElectionEvent::Put
            }
            ElectionStep::Ask { generation, address } => {
                ElectionEvent::Asked(self.ask(setup, index, generation, &address)?)
            }
            ElectionStep::ReadTick => ElectionEvent::Tick(match self.tick {
                None => NewestTick::Absent,
                Some((nonce, at)) => NewestTick::Committed { age: self.now - at, nonce },
            }),
            ElectionStep::Lead { generation, .. } => return self.lead(setup, index, generation),
            ElectionStep::EndAtCheckpoint { generation } => {
                let since = self.processes[index].led.as_ref().map_or(self.now, |led| led.since);
                if self.now < since + SHORT_FOR {
                    return Err(format!("generation {generation} ends too early for a spare"));
                }
                self.leave(index, generation);
                ElectionEvent::GenerationOver
            }
            ElectionStep::BeginAnew { lost } => {
                if lost < self.processes[index].lost {
                    return Err(format!("process {index} forgets that generation {lost} is lost"));
                }
                self.processes[index] = self.life(setup, lost);
                return Ok(());
            }
            ElectionStep::Rest { .. }
            | ElectionStep::Gather { .. }
            | ElectionStep::Follow { .. }
            | ElectionStep::Run { .. }
            | ElectionStep::Exit => return Ok(()),
        };
        self.tell(setup, index, event)
    }

    /// Lets the request of a process fail.
    fn fail(&mut self, setup: &ModelSetup, index: usize) -> Result<(), String> {
        let event = match self.step_of(index) {
            ElectionStep::Look => ElectionEvent::LookFailed,
            ElectionStep::Put { generation } => {
                self.late.push((generation, index, self.processes[index].nonce));
                ElectionEvent::Put
            }
            ElectionStep::Ask { .. } => ElectionEvent::Asked(AskAnswer::NoAnswer),
            _ => ElectionEvent::Tick(NewestTick::Unknown),
        };
        self.tell(setup, index, event)
    }

    /// Connects to the process at an address.
    fn ask(
        &mut self,
        setup: &ModelSetup,
        index: usize,
        generation: u64,
        address: &str,
    ) -> Result<AskAnswer, String> {
        if generation <= self.processes[index].lost {
            return Err(format!("process {index} asks for generation {generation}, which it lost"));
        }
        let other: usize = address.parse().unwrap();
        let asked = &self.processes[other];
        Ok(match asked.status {
            _ if !self.reach(setup, index, other) => AskAnswer::NoAnswer,
            PeerStatus::Frozen { .. } => AskAnswer::NoAnswer,
            PeerStatus::Up if other != index && asked.election.hosts() == Some(generation) => {
                let link = ToLeader { process: other, nonce: asked.nonce, generation };
                self.processes[index].link = Some(link);
                AskAnswer::Accepted
            }
            PeerStatus::Up | PeerStatus::Down => AskAnswer::Gone,
        })
    }

    /// Starts a generation with the processes that are linked to its leader.
    fn lead(&mut self, setup: &ModelSetup, index: usize, generation: u64) -> Result<(), String> {
        let nonce = self.processes[index].nonce;
        let others = self.linked(index, generation);
        let members = 1 + others.len();
        // 1. One leader a generation, and only of the newest one.
        if let Some(before) = self.leads.insert(generation, nonce) {
            return Err(format!("generation {generation} is led by {before} and by {nonce}"));
        }
        let newest = self.newest();
        if newest.is_none_or(|(newest, claim)| newest != generation || claim.nonce != nonce) {
            return Err(format!("generation {generation} starts although {newest:?} is the newest claim"));
        }
        if self.leads.last_key_value().is_some_and(|(newest, _)| *newest != generation) {
            return Err(format!("generation {generation} starts after a newer one"));
        }
        // 2. With enough members.
        let claimed = self.claims[&generation].at;
        let is_short = members < setup.terms.processes;
        if members < setup.terms.min_processes || is_short && self.now < claimed + setup.terms.settle {
            return Err(format!("generation {generation} starts with {members} members at {:?}", self.now));
        }
        // 3. It cleans up.
        let keeps = if setup.keeps_newest { generation } else { generation + 1 };
        self.claims.retain(|claim, _| *claim >= keeps);
        // 4. All of them learn it.
        let with_nonce = |index: &usize| (*index, self.processes[*index].nonce);
        let members = [index].iter().chain(&others).map(with_nonce).collect();
        self.processes[index].led = Some(Led { generation, since: self.now, members });
        self.processes[index].started = Some(generation);
        self.tell(setup, index, ElectionEvent::Started)?;
        for other in others {
            self.processes[other].started = Some(generation);
            if self.is_up(other) {
                self.tell(setup, other, ElectionEvent::Started)?;
            }
        }
        Ok(())
    }

    /// The processes that have a link to a leader.
    fn linked(&self, leader: usize, generation: u64) -> Vec<usize> {
        let link = ToLeader { process: leader, nonce: self.processes[leader].nonce, generation };
        (0..self.processes.len()).filter(|index| self.processes[*index].link == Some(link)).collect()
    }

    /// Hands an event to a process, and checks what it decides. A start that a look allows is done at once.
    fn tell(&mut self, setup: &ModelSetup, index: usize, event: ElectionEvent) -> Result<(), String> {
        let (now, before) = (self.now, self.step_of(index));
        self.processes[index].election.take(event, now);
        match self.step_of(index) {
            step if step == before => Ok(()),
            ElectionStep::Lead { generation, .. } => self.lead(setup, index, generation),
            // One that finds nothing at the newest claim's address claims at once, as the order of claims says no more. That can
            // end an older generation that still runs, which costs a start and no data.
            ElectionStep::Put { generation } if before == ElectionStep::ReadTick => {
                let is_next = self.newest().is_none_or(|(newest, _)| generation > newest);
                let is_fresh = self.tick.is_some_and(|(_, at)| now <= at + setup.terms.dead_after);
                match self.healthy(setup) {
                    Some(runs) if is_next && is_fresh => Err(format!(
                        "process {index} claims generation {generation} although {runs} runs and commits"
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Says to each leader how many links it has.
    fn tell_presence(&mut self, setup: &ModelSetup) -> Result<(), String> {
        for index in 0..self.processes.len() {
            let hosts = self.processes[index].election.hosts();
            let Some(generation) = hosts.filter(|_| self.is_up(index)) else { continue };
            let links = self.linked(index, generation);
            let told = match &self.processes[index].led {
                None => (generation, 1 + links.len(), 0),
                Some(led) => {
                    let is_member =
                        |link: &&usize| led.members.contains(&(**link, self.processes[**link].nonce));
                    let members = links.iter().filter(is_member).count();
                    (generation, 1 + members, links.len() - members)
                }
            };
            if self.processes[index].told != told {
                self.processes[index].told = told;
                let (_, members, spares) = told;
                self.tell(setup, index, ElectionEvent::Present { members, spares })?;
            }
        }
        Ok(())
    }

    /// Returns whether a generation runs with all processes that are alive and can take part.
    fn is_converged(&self, setup: &ModelSetup) -> bool {
        let reachable = (0..self.processes.len()).filter(|index| setup.isolated & (1 << index) == 0).count();
        let expected = reachable.min(setup.terms.processes);
        let healthy = self.healthy(setup).and_then(|generation| self.led(generation));
        healthy.is_some_and(|(_, led)| led.members.len() >= expected)
    }
}

/// A state that must not be, and how it came about.
#[derive(Debug)]
struct Violation {
    what: String,
    events: Vec<ModelEvent>,
}

/// Tries every order of events. Returns the number of states, or a violation.
fn explore(setup: &ModelSetup) -> Result<usize, Violation> {
    let world = ElectionModel::new(setup);
    let mut known: HashSet<u128> = HashSet::from_iter([world.digest()]);
    // The events that led to each state are found by the state before it.
    let mut before: Vec<(usize, ModelEvent)> = vec![(0, ModelEvent::Pass)];
    let mut open = vec![(world, 0)];
    let mut events = Vec::new();
    while let Some((world, id)) = open.pop() {
        world.events(setup, &mut events);
        for &event in &events {
            let mut next = world.clone();
            if let Err(what) = next.apply(setup, event) {
                let (mut past, mut at) = (vec![event], id);
                while at != 0 {
                    let (earlier, event) = before[at];
                    past.push(event);
                    at = earlier;
                }
                past.reverse();
                return Err(Violation { what, events: past });
            }
            if known.insert(next.digest()) {
                before.push((id, event));
                open.push((next, before.len() - 1));
            }
        }
    }
    Ok(known.len())
}

/// SplitMix64, which makes good numbers of any seed.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }
}

/// Tries one order of events, of which the seed chooses each, and then lets the processes go on without faults. Returns
/// the number of generations, and how long it took after the last fault.
fn wander(setup: &ModelSetup, seed: u64) -> Result<(usize, Duration), Violation> {
    let mut world = ElectionModel::new(setup);
    let (mut random, mut events, mut past) = (Random(seed), Vec::new(), Vec::new());
    // 1. With faults, as long as there are some left.
    for _ in 0..400 {
        world.events(setup, &mut events);
        if events.is_empty() {
            break;
        }
        let event = loop {
            let event = events[random.below(events.len())];
            // Faults are seldom, or all of them would come before the first claim. So is what takes time.
            let is_slow = matches!(
                event,
                ModelEvent::Pass | ModelEvent::Heal | ModelEvent::Thaw(_) | ModelEvent::Return(_)
            );
            let one_in = if event.is_fault() { 200 } else { [1, 12][usize::from(is_slow)] };
            if random.below(one_in) == 0 {
                break event;
            }
        };
        past.push(event);
        if let Err(what) = world.apply(setup, event) {
            return Err(Violation { what, events: past });
        }
    }
    // 2. All come back, and everything that is possible happens before time passes.
    let healed = world.now;
    let mut converged = None;
    let mut leads = 0;
    let mut calm = |world: &mut ElectionModel, past: &mut Vec<ModelEvent>| -> Result<(), String> {
        let setup = ModelSetup { horizon: Duration::MAX, ..*setup };
        world.events(&setup, &mut events);
        events.retain(|event| !event.is_fault());
        if events.len() > 1 {
            events.retain(|event| *event != ModelEvent::Pass);
        }
        let Some(&event) = events.get(random.below(events.len().max(1))) else {
            return Err("nothing can happen any more".to_owned());
        };
        past.push(event);
        world.apply(&setup, event)
    };
    loop {
        if world.is_converged(setup) && converged.is_none() {
            (converged, leads) = (Some(world.now), world.leads.len());
        }
        let is_disturbed = converged.is_some() && world.leads.len() > leads;
        let what = match converged {
            Some(_) if is_disturbed => Some("a generation that runs with all is disturbed"),
            Some(at) if world.now >= at + WATCHED_FOR || world.next_instant(setup).is_none() => {
                return Ok((leads, at - healed));
            }
            None if world.now >= healed + CONVERGES_IN => Some("no generation runs with all that are alive"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(Violation { what: format!("{what}: {:?}", world.processes), events: past });
        }
        if let Err(what) = calm(&mut world, &mut past) {
            return Err(Violation { what, events: past });
        }
    }
}

/// Returns the first seed up to `seeds` that finds what is expected.
fn first_found(setup: &ModelSetup, expected: &str, seeds: u64) -> Option<u64> {
    let finds = |seed: &u64| wander(setup, *seed).is_err_and(|violation| violation.what.contains(expected));
    (0..seeds).find(finds)
}

/// `KEYTIDE_ELECTION_SEEDS=100000 cargo test -p keytide-connectors elections_of_random_orders` tries as many.
#[test]
fn elections_of_random_orders_of_events_end_with_one_generation_of_all() {
    let seeds = std::env::var("KEYTIDE_ELECTION_SEEDS").map_or(300, |seeds| seeds.parse().unwrap());
    for setup in [ModelSetup::LARGE, ModelSetup::ISOLATED, ModelSetup::SHORT] {
        let mut generations = 0;
        for seed in 0..seeds {
            let (led, _) = wander(&setup, seed).unwrap_or_else(|violation| {
                panic!("seed {seed}: {} after {:?}", violation.what, violation.events)
            });
            generations += led;
        }
        assert!(generations as u64 >= seeds, "{generations} generations");
    }
}

#[test]
fn elections_of_every_order_of_events_have_one_leader_a_generation() {
    let mut states = 0;
    for (deaths, freezes, cuts, horizon_ms) in [(1, 0, 0, 3_500), (0, 1, 0, 3_500), (0, 0, 1, 2_500)] {
        let horizon = Duration::from_millis(horizon_ms);
        let setup = ModelSetup { deaths, freezes, cuts, horizon, ..ModelSetup::SMALL };
        states += explore(&setup).unwrap_or_else(|violation| panic!("{violation:?}"));
    }
    // The model must not become empty unnoticed.
    assert!(states > 60_000, "{states}");
}

/// Each rule, left out in every order of events of a small model, with the words of what goes wrong.
#[test]
fn each_rule_of_the_election_is_needed() {
    type LeaveOut = fn(&mut ModelSetup);
    let table: [(&str, LeaveOut, &str); 9] = [
        ("a claim only if there is none", |setup| setup.puts_if_absent = false, "generation 1 "),
        ("the newest claim is kept", |setup| setup.keeps_newest = false, "is led by"),
        ("a look before the start", |setup| setup.rules.looks_before_lead = false, "is the newest claim"),
        ("the older one yields", |setup| setup.rules.yields = false, "is the newest claim"),
        ("no question to the lost", |setup| setup.rules.avoids_lost = false, "which it lost"),
        (
            "ticks are heeded",
            |setup| (setup.rules.heeds_ticks, setup.deaths, setup.failures) = (false, 0, 2),
            "runs and commits",
        ),
        (
            "enough members",
            |setup| (setup.terms.min_processes, setup.rules.waits_for_least) = (2, false),
            "starts with 1 members",
        ),
        ("time for all", |setup| setup.rules.waits_for_all = false, "starts with 1 members"),
        ("no end for a spare at once", |setup| setup.rules.ends_short_late = false, "too early"),
    ];
    for (rule, leave_out, expected) in table {
        let mut setup = ModelSetup::SMALL;
        leave_out(&mut setup);
        let violation = explore(&setup).expect_err(rule);
        assert!(violation.what.contains(expected), "{rule}: {violation:?}");
    }
}

/// Without it nothing wrong happens, and yet something is missing. So the end of random orders of events shows it.
#[test]
fn without_a_rule_for_them_processes_stay_spares_or_alone() {
    let mut setup = ModelSetup::SHORT;
    setup.rules.ends_short = false;
    let found = first_found(&setup, "no generation runs with all", 1_000);
    assert!(found.is_some(), "a spare takes part in the end");
    let mut setup = ModelSetup::ISOLATED;
    setup.rules.is_patient = false;
    let found = first_found(&setup, "no generation runs with all", 1_000);
    assert!(found.is_some(), "a process that is cut off disturbs the others for ever");
}
