//! Merges the calls of a lively world in order of time. Only the next call of each stream is in memory.
//!
//! ```text
//! arrivals    usual calls, by popularity and rhythm        \
//! timetables  one stream a key: beats of calls on time      > the earliest is next -> record
//! episodes    one stream each                              /      | failed: tried again later
//! batches and retries, which follow from earlier calls    <───────┘
//! ```
//! Memory: a few bytes for each key with a timetable, each episode, each unfinished batch and each due retry. It doesn't
//! grow with the span.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};

use super::episodes::{Beats, EpisodePlan, NEW_FEATURES, StagedEpisode, known_routes};
use super::record::{self, CallRecord, CallRequest};
use super::scenario::{AgentChoice, EpisodeScope, OwnerBehaviour};
use crate::draw::{Draw, mixed, whole};
use crate::world::faults;
use crate::world::habit::{Caller, Habit};
use crate::world::population::{Population, RESOURCES};
use crate::world::rhythm::{ArrivalTimes, Clocks};
use crate::world::settings::WorldSettings;

/// One usual call in 64 starts a batch from one address: pages of a list, or a queue that is worked off. A batch has at
/// most 64 further calls, a quarter of that on average.
const BATCH: (u32, u32) = (64, 65);
/// The milliseconds from one call of a batch to the next.
const BATCH_GAP_MS: (u32, u32) = (20, 600);
/// The usual calls for each arrival, with its batch; retries come on top.
const CALLS_PER_ARRIVAL: f64 = 1.0 + (BATCH.1 as f64 - 1.0) / 4.0 / BATCH.0 as f64;
/// Two of three failed calls (429, 5xx) are tried again, at most 4 times. The waits are 1, 2, 4 and 8 seconds, and up to
/// half of that more.
const RETRIED_OF_THREE: u32 = 2;
const MAX_RETRIES: u8 = 4;
const RETRY_MS: u32 = 1_000;
/// After an upgrade one call in this number takes a new route.
const NEW_FEATURES_OF: u32 = 4;
/// On any day a key makes 0.7 to 1.3 of its mean calls: the least factor and its range, in 1,024ths.
const DAY_FACTOR: (u64, u64) = (717, 614);

/// A run of continuous integration lasts this long.
const RUN_MS: u64 = 8 * MINUTE_MS;

/// A stream of calls at set times.
struct CallStream {
    key: u32,
    episode: Option<u32>,
    beats: Beats,
    beat: u32,
    call: u32,
    began: u64,
}

impl CallStream {
    fn next(&mut self, clocks: &Clocks, draw: &mut Draw) -> Option<u64> {
        let Beats { country, first, every, beats, .. } = self.beats;
        if self.call == self.beats.calls_of(self.beat) {
            (self.beat, self.call) = (self.beat + 1, 0);
        }
        if self.beat == beats {
            return None;
        }
        if self.call == 0 {
            let local = first + (every * u64::from(self.beat)).cast_signed();
            let began = country.map_or(local.unsigned_abs(), |country| clocks.utc(country, local));
            self.began = began + self.beats.scattered_by(self.beat);
        }
        let time = self.began + self.beats.offset_ms(self.beat, self.call, draw);
        self.call += 1;
        Some(time)
    }
}

/// A call that is made later.
enum NextCall {
    /// The next call of the stream with this index.
    Stream(u32),
    Batch {
        key: u32,
        caller: Caller,
        left: u32,
    },
    /// A call that failed, tried again.
    Retry {
        call: CallRecord,
        attempt: u8,
    },
}

/// A scheduled call; ordered by time, then by the order in which calls were scheduled.
struct PendingCall {
    time: u64,
    number: u64,
    next: NextCall,
}

impl Ord for PendingCall {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

impl PartialOrd for PendingCall {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for PendingCall {}

impl PartialEq for PendingCall {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

/// The calls of a run of a lively world.
pub(crate) struct LivelyTraffic<'a> {
    population: &'a Population,
    habits: &'a [Habit],
    plan: &'a EpisodePlan,
    seed: u64,
    start_ms: u64,
    end_ms: u64,
    clocks: Clocks,
    arrivals: ArrivalTimes,
    /// The time of the next usual call.
    arrival: Option<u64>,
    streams: Vec<CallStream>,
    pending: BinaryHeap<Reverse<PendingCall>>,
    planned: u64,
    everybodys: Vec<u32>,
    /// Counts the calls so far of each episode.
    pub(crate) calls: Vec<u64>,
}

impl<'a> LivelyTraffic<'a> {
    pub(crate) fn new(
        settings: &WorldSettings,
        population: &'a Population,
        habits: &'a [Habit],
        plan: &'a EpisodePlan,
        draw: &mut Draw,
    ) -> Self {
        let (start_ms, end_ms) = (settings.start_ms, settings.start_ms + settings.span_ms);
        let usual = || habits.iter().filter(|habit| habit.timetable.is_none());
        let arrivals =
            usual().map(|habit| habit.share).sum::<f64>() * settings.events.get() as f64 / CALLS_PER_ARRIVAL;
        let weights = usual().map(|habit| (habit.class, habit.share));
        let mut arrivals = ArrivalTimes::new((start_ms, end_ms), arrivals, weights, plan.surges.clone());
        let clocks = Clocks::new();
        let of_episodes = plan.beats.iter().map(|(episode, beats)| {
            let key = plan.episodes[*episode as usize].key.expect("only those of a key have beats");
            (key, Some(*episode), *beats)
        });
        let timetables = timetables(settings, population, habits, &clocks, draw);
        let streams: Vec<CallStream> = timetables
            .into_iter()
            .map(|(key, beats)| (key, None, beats))
            .chain(of_episodes)
            .map(|(key, episode, beats)| CallStream { key, episode, beats, beat: 0, call: 0, began: 0 })
            .collect();
        let arrival = arrivals.next(draw);
        let mut traffic = Self {
            population,
            habits,
            plan,
            seed: mixed([settings.seed, 0, 0]),
            start_ms,
            end_ms,
            clocks,
            arrivals,
            arrival,
            pending: BinaryHeap::with_capacity(streams.len()),
            streams,
            planned: 0,
            everybodys: (0..)
                .zip(&plan.episodes)
                .filter(|(_, episode)| episode.kind.scope == EpisodeScope::Everybody)
                .map(|(at, _)| at)
                .collect(),
            calls: vec![0; plan.episodes.len()],
        };
        for stream in 0..traffic.streams.len() as u32 {
            traffic.go_on(stream, draw);
        }
        traffic
    }

    /// Returns the number of scheduled calls.
    #[cfg(test)]
    pub(crate) fn pending_calls(&self) -> usize {
        self.pending.len()
    }

    /// Returns the next call in order of time.
    pub(crate) fn next(&mut self, draw: &mut Draw) -> Option<CallRecord> {
        let due = self.pending.peek().map(|Reverse(pending)| pending.time);
        if let Some(time) = self.arrival.filter(|arrival| due.is_none_or(|due| *arrival <= due)) {
            self.arrival = self.arrivals.next(draw);
            return Some(self.arrived(time, draw));
        }
        let Reverse(PendingCall { time, next, .. }) = self.pending.pop()?;
        Some(match next {
            NextCall::Stream(at) => {
                let CallStream { key, episode, .. } = self.streams[at as usize];
                self.go_on(at, draw);
                match episode {
                    Some(episode) => self.staged(time, episode, key, draw),
                    None => {
                        let caller = self.caller(key, time, draw);
                        self.usual(time, key, caller, draw)
                    }
                }
            }
            NextCall::Batch { key, caller, left } => {
                self.batch(time, key, caller, left - 1, draw);
                self.usual(time, key, caller, draw)
            }
            NextCall::Retry { call, attempt } => self.again(time, call, attempt, draw),
        })
    }

    /// Draws the caller of an arrival, and makes its call.
    fn arrived(&mut self, time: u64, draw: &mut Draw) -> CallRecord {
        let day = time / DAY_MS;
        let key = loop {
            let key = self.population.caller(draw);
            let factor = DAY_FACTOR.0 + mixed([self.seed, u64::from(key), day]) % DAY_FACTOR.1;
            if self.arrivals.accepts(self.habits[key as usize].class, factor as u32, draw)
                && !self.gave_up(key, time)
            {
                break key;
            }
        };
        let mut caller = self.caller(key, time, draw);
        if let Some(episode) = self.detour(key, time) {
            let StagedEpisode { kind, pool, agents, .. } = &self.plan.episodes[episode];
            if let Some(pool) = pool {
                caller.address = pool.client(&self.population.networks, time, draw);
            }
            if kind.owner == OwnerBehaviour::Upgrades {
                caller.agents = *agents;
            }
        }
        if record::anonymous(draw) {
            return self.anonymous(time, key, caller, draw);
        }
        if draw.once_in(BATCH.0) {
            let left = draw.habit(BATCH.1);
            self.batch(time, key, caller, left, draw);
        }
        self.usual(time, key, caller, draw)
    }

    /// Draws address and client of a usual call.
    fn caller(&self, key: u32, time: u64, draw: &mut Draw) -> Caller {
        let owner = &self.population.keys[key as usize];
        self.habits[key as usize].caller(owner, &self.population.networks, &self.clocks, time, draw)
    }

    /// Draws the route of a usual call.
    fn route(&self, key: u32, time: u64, draw: &mut Draw) -> u32 {
        let (owner, habit) = (&self.population.keys[key as usize], &self.habits[key as usize]);
        let upgraded = self
            .detour(key, time)
            .is_some_and(|episode| self.plan.episodes[episode].kind.owner == OwnerBehaviour::Upgrades);
        if upgraded && draw.once_in(NEW_FEATURES_OF) {
            let known = known_routes(owner, habit, self.end_ms) - u32::from(owner.routes);
            return self.population.route_beyond(owner, known + draw.below(NEW_FEATURES));
        }
        habit.route(self.population, owner, time, draw)
    }

    /// Makes a usual call of a key.
    fn usual(&mut self, time: u64, key: u32, caller: Caller, draw: &mut Draw) -> CallRecord {
        let route = self.route(key, time, draw);
        let Caller { address: client, agents } = caller;
        let status = self.status(time, key, route, draw);
        let request = CallRequest { id: draw.wide(), time, key: Some(key), client, route, agents, status };
        let call = CallRecord::of(request, self.population, draw);
        self.count(key, time);
        self.try_again(call, 0, draw);
        call
    }

    /// Makes a call without a key, by an owner of one. One in three is of a public route; the others are refused.
    fn anonymous(&mut self, time: u64, who: u32, caller: Caller, draw: &mut Draw) -> CallRecord {
        let Caller { address: client, agents } = caller;
        let route = self.population.usual_route(&self.population.keys[who as usize], draw);
        let success = self.population.routes[route as usize].success;
        let status = if draw.once_in(3) { self.trouble(time, route, draw).unwrap_or(success) } else { 401 };
        let request = CallRequest { id: draw.wide(), time, key: None, client, route, agents, status };
        CallRecord::of(request, self.population, draw)
    }

    /// Makes a failed call again.
    fn again(&mut self, time: u64, failed: CallRecord, attempt: u8, draw: &mut Draw) -> CallRecord {
        let key = failed.key.expect("calls without a key aren't tried again");
        let CallRecord { client, route, agent, item, .. } = failed;
        let status = self.status(time, key, route, draw);
        let agents = [agent; 2];
        let request = CallRequest { id: draw.wide(), time, key: Some(key), client, route, agents, status };
        let call = CallRecord { item, ..CallRecord::of(request, self.population, draw) };
        self.count(key, time);
        self.try_again(call, attempt, draw);
        call
    }

    /// Makes a call of an episode.
    fn staged(&mut self, time: u64, episode: u32, key: u32, draw: &mut Draw) -> CallRecord {
        let calls = &mut self.calls[episode as usize];
        *calls += 1;
        let item = *calls as u32;
        let plan = self.plan;
        let StagedEpisode { kind, pool, agents, .. } = &plan.episodes[episode as usize];
        let owner = &self.population.keys[key as usize];
        let routes = &self.population.routes;
        let usual = self.caller(key, time, draw);
        let client = match pool {
            Some(pool) => pool.client(&self.population.networks, time, draw),
            None => usual.address,
        };
        let agents = if kind.agent == AgentChoice::Usual { usual.agents } else { *agents };
        let route = if kind.new_routes {
            let known = known_routes(owner, &self.habits[key as usize], self.end_ms);
            let new = draw.below(routes.len() as u32 - known);
            self.population.route_beyond(owner, known - u32::from(owner.routes) + new)
        } else {
            self.population.usual_route(owner, draw)
        };
        let success = routes[route as usize].success;
        let refused = match kind.refused_permille {
            1_000 => Some(401),
            _ if draw.below(1_000) < kind.refused_permille => Some([401, 403][draw.below(2) as usize]),
            _ => None,
        };
        // The gateway refuses a call before its API can fail, and an API that is down fails for all callers.
        let status = refused
            .or_else(|| self.trouble(time, route, draw))
            .unwrap_or_else(|| record::status(success, draw.below(1_000)));
        let request = CallRequest { id: draw.wide(), time, key: Some(key), client, route, agents, status };
        let call = CallRecord::of(request, self.population, draw);
        if kind.new_routes { CallRecord { item, ..call } } else { call }
    }

    /// Draws the status of a usual call.
    fn status(&mut self, time: u64, key: u32, route: u32, draw: &mut Draw) -> u16 {
        let success = self.population.routes[route as usize].success;
        self.trouble(time, route, draw)
            .or_else(|| faults::of_key(self.seed, key, time, draw))
            .unwrap_or_else(|| record::status(success, draw.below(1_000)))
    }

    /// Draws the status of a call that fails with its route's API at `time`.
    fn trouble(&mut self, time: u64, route: u32, draw: &mut Draw) -> Option<u16> {
        let api = route as usize % RESOURCES.len();
        if let Some(episode) = self.plan.outage(api, time)
            && draw.below(100) < self.plan.episodes[episode as usize].percent
        {
            self.calls[episode as usize] += 1;
            return Some(503);
        }
        faults::of_api(self.seed, api, time, draw)
    }

    /// Counts a usual call for the episodes to which it belongs.
    fn count(&mut self, key: u32, time: u64) {
        if let Some(episode) = self.detour(key, time) {
            self.calls[episode] += 1;
        }
        for episode in &self.everybodys {
            let time_of = &self.plan.episodes[*episode as usize].time;
            self.calls[*episode as usize] += u64::from(time_of.contains(&time));
        }
    }

    /// Returns the index of the episode in which the owner calls in another way at `time`.
    fn detour(&self, key: u32, time: u64) -> Option<usize> {
        let detour = self.habits[key as usize].detour? as usize;
        let episode = &self.plan.episodes[detour];
        let differs = matches!(episode.kind.owner, OwnerBehaviour::Moves | OwnerBehaviour::Upgrades);
        (differs && episode.time.contains(&time)).then_some(detour)
    }

    /// Returns whether the owner has had the key revoked by `time`.
    fn gave_up(&self, key: u32, time: u64) -> bool {
        self.habits[key as usize].detour.is_some_and(|detour| {
            let episode = &self.plan.episodes[detour as usize];
            episode.kind.owner == OwnerBehaviour::Revokes && time >= episode.time.start
        })
    }

    fn batch(&mut self, time: u64, key: u32, caller: Caller, left: u32, draw: &mut Draw) {
        if left > 0 {
            let time = time + u64::from(draw.between(BATCH_GAP_MS));
            if !self.gave_up(key, time) {
                self.schedule(time, NextCall::Batch { key, caller, left });
            }
        }
    }

    fn try_again(&mut self, call: CallRecord, attempt: u8, draw: &mut Draw) {
        let (Some(key), 429 | 500..) = (call.key, call.status) else { return };
        if attempt < MAX_RETRIES && draw.below(3) < RETRIED_OF_THREE {
            let wait = RETRY_MS << attempt;
            let time = call.time + u64::from(draw.between((wait, wait + wait / 2)));
            if !self.gave_up(key, time) {
                self.schedule(time, NextCall::Retry { call, attempt: attempt + 1 });
            }
        }
    }

    /// Schedules the next call of a stream, if it has one in the run.
    fn go_on(&mut self, stream: u32, draw: &mut Draw) {
        while let Some(time) = self.streams[stream as usize].next(&self.clocks, draw) {
            if time >= self.start_ms {
                return self.schedule(time, NextCall::Stream(stream));
            }
        }
    }

    /// Schedules a call, unless it is after the run's end.
    fn schedule(&mut self, time: u64, next: NextCall) {
        if time < self.end_ms {
            self.planned += 1;
            self.pending.push(Reverse(PendingCall { time, number: self.planned, next }));
        }
    }
}

/// Draws the timetables of the keys that have one: the same minute of every 5, 15 or 60 minutes, or of every night by
/// the owner's clock. Runs of continuous integration come at any time of their period.
fn timetables(
    settings: &WorldSettings,
    population: &Population,
    habits: &[Habit],
    clocks: &Clocks,
    draw: &mut Draw,
) -> Vec<(u32, Beats)> {
    let (start, span) = (settings.start_ms, settings.span_ms);
    let keys = (0..).zip(habits).filter_map(|(key, habit)| Some((key, habit, habit.timetable?)));
    keys.map(|(key, habit, every)| {
        let runners = habit.is_of_runners();
        let daily = every == DAY_MS && !runners;
        let owner = &population.keys[key as usize];
        let country = population.subscriptions[owner.subscription as usize].country;
        let minute = if daily { draw.below(5 * 60) } else { draw.below((every / MINUTE_MS) as u32) };
        let local = if daily { clocks.local(country, start) } else { start.cast_signed() };
        let calls = habit.share * settings.events.get() as f64 * every as f64 / span as f64;
        let beats = Beats {
            country: daily.then_some(country),
            first: local.div_euclid(every.cast_signed()) * every.cast_signed()
                + (if runners { 0 } else { u64::from(minute) * MINUTE_MS }).cast_signed(),
            every,
            lasts: if runners { RUN_MS } else { MINUTE_MS / 2 },
            beats: (span / every) as u32 + 2,
            calls: whole(calls + 0.5) as u32,
            growing: false,
            scattered: runners.then(|| draw.bits()),
        };
        (key, beats)
    })
    .collect()
}
