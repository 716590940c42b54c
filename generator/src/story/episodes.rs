//! Plans the episodes of a run with their times, keys and addresses, and writes the lines of `labels.jsonl`.
//!
//! A key has at most one episode, and a history before it: episodes start when two fifths of the run are over. Keys with
//! too few usual calls until then aren't chosen. The same holds for the most popular 1 %, publishable keys, unlisted
//! keys, keys that change their subscription, and keys with a timetable, except that of continuous integration.
//!
//! The origins of a leak are new to its key: of a system and, if possible, of a country from which the key is never used.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use anyhow::ensure;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_dataflow::model::KeyState;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use serde::Serialize;

use super::scenario::{
    AgentChoice, CallOrigin, EpisodeCourse, EpisodeKind, EpisodeScope, KINDS, OwnerBehaviour,
};
use crate::draw::{Draw, mixed, whole};
use crate::world::habit::{AddressPool, Habit};
use crate::world::network::{NetworkKind, WorldNetworks};
use crate::world::population::{
    COUNTRIES, Key, LOAD_TOOL, Population, RESOURCES, SUSPENDED, Subscription, USUAL_AGENTS,
};
use crate::world::rhythm::{Clocks, Levels, Rhythm, RhythmClass, SLOT_MS, Surge};
use crate::world::settings::{Leak, Scenario, WorldSettings};

/// The fewest usual calls that a key must be expected to make before its episode. If its owner moves, the same holds for
/// the episode itself.
const USUAL_CALLS: f64 = 20.0;
/// The usual calls that an API is expected to get while it fails. Outages are prolonged until it does.
const NOTICED_CALLS: f64 = 20.0;
/// With fewer calls an outage isn't worth a label.
const LEAST_NOTICED_CALLS: f64 = 5.0;
/// The least days for which a dormant key is unused; the detector asks for 30.
const DORMANT_DAYS: u64 = 35;
/// A launch day, and a retry storm, comes at most once in this number of days.
const DAYS_PER_PLATFORM_EPISODE: u64 = 2;
/// A database of keys is stolen at most once in this number of days.
const DAYS_PER_DATABASE: u64 = 7;
/// The keys of a stolen database, and the time in which they are tried.
const DATABASE_KEYS: (u32, u32) = (8, 20);
const DATABASE_MS: u64 = 55 * MINUTE_MS;
/// At most one free key in this number is of a stolen database.
const DATABASE_SHARE: usize = 8;
/// The minutes between the first tries of a thief and the use of the key.
const PAUSE_MINUTES: (u32, u32) = (120, 360);
/// The time from one try to the next.
const PROBE_MS: u64 = 8_000;
/// A backlog comes in this time.
const BACKLOG_MS: u64 = MINUTE_MS;
/// The number of new routes after an upgrade.
pub(crate) const NEW_FEATURES: u32 = 3;
/// The time from an episode's start to its first call. Calls out of order are behind by less.
const LEAD_MS: u64 = 5_000;
const MAX_STAGED_CALLS: f64 = 10_000_000.0;

/// A planned episode of a key, an API, or everybody.
#[derive(Debug)]
pub(crate) struct StagedEpisode {
    pub(crate) kind: &'static EpisodeKind,
    /// `None` if the episode concerns an API or everybody.
    pub(crate) key: Option<u32>,
    /// Milliseconds since the epoch, from the first possible call to after the last.
    pub(crate) time: Range<u64>,
    /// The addresses of its calls; `None` means the usual ones.
    pub(crate) pool: Option<AddressPool>,
    pub(crate) agents: [u32; 2],
    /// The failing API, as an index into [`RESOURCES`].
    api: Option<usize>,
    /// The number drawn from the kind's range; 0 for episodes of a key.
    pub(crate) percent: u32,
    /// The usual calls of the key that are expected in the time of the episode.
    usual_calls: f64,
    /// The time at which the thief comes back after some tries.
    returns_at: Option<u64>,
}

/// Regular times of calls: a number of beats, each with the same number of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beats {
    /// The country whose clock the beats follow; `None` means UTC.
    pub(crate) country: Option<u32>,
    /// The start of the first beat by that clock.
    pub(crate) first: i64,
    /// Milliseconds from beat to beat; each beat lasts `lasts` milliseconds.
    pub(crate) every: u64,
    pub(crate) lasts: u64,
    pub(crate) beats: u32,
    /// Counts the calls of one beat.
    pub(crate) calls: u32,
    /// True if the calls of a beat come at a growing rate.
    pub(crate) growing: bool,
    /// The seed of beats that come at any time of their period, each with calls of its own number.
    pub(crate) scattered: Option<u64>,
}

impl Beats {
    /// Returns the number of calls of a beat. Scattered ones have 0.4 to 1.6 times the mean.
    pub(crate) fn calls_of(&self, beat: u32) -> u32 {
        let fifths = |seed| 2 + (mixed([seed, beat.into(), 0]) % 7) as u32;
        self.scattered.map_or(self.calls, |seed| (self.calls * fifths(seed) / 5).max(1))
    }

    /// Returns how far a beat is from its period's start, in milliseconds.
    pub(crate) fn scattered_by(&self, beat: u32) -> u64 {
        self.scattered.map_or(0, |seed| mixed([seed, beat.into(), 1]) % (self.every - self.lasts))
    }

    /// Draws the time of the call with index `call`, from the start of its beat. A beat is cut into equal parts with a call
    /// in each.
    pub(crate) fn offset_ms(&self, beat: u32, call: u32, draw: &mut Draw) -> u64 {
        let part = (f64::from(call) + draw.unit()) / f64::from(self.calls_of(beat));
        whole(if self.growing { part.sqrt() } else { part } * self.lasts as f64)
    }
}

/// All episodes of a run.
pub(crate) struct EpisodePlan {
    pub(crate) episodes: Vec<StagedEpisode>,
    /// Pairs of an episode's index and the times of its calls.
    pub(crate) beats: Vec<(u32, Beats)>,
    /// Indices of the episodes that are outages, by API.
    outages: Vec<Vec<u32>>,
    pub(crate) surges: Vec<Surge>,
}

/// An [`EpisodePlan`] in the making.
struct Planner<'a> {
    settings: &'a WorldSettings,
    population: &'a mut Population,
    habits: &'a mut [Habit],
    draw: &'a mut Draw,
    /// Keys that may still get an episode.
    free: Vec<u32>,
    clocks: Clocks,
    /// Computed when it is first needed.
    usage: Option<ApiUsage>,
    plan: EpisodePlan,
}

/// A line of `labels.jsonl`, which describes one episode.
#[derive(Debug, Serialize)]
pub(crate) struct LabelLine {
    /// The key's id as in the views; null if the episode doesn't concern one key.
    key_id: Option<String>,
    kind: &'static str,
    leak: bool,
    from: String,
    to: String,
    /// Counts the calls that the episode made, moved or failed. For one of everybody it counts all calls in its time.
    calls: u64,
    /// The episode's calls as a multiple of the key's usual ones; for episodes of everybody the planned multiple.
    multiple: Option<f64>,
    /// The most addresses that it calls from; null if they are the usual ones.
    origins: Option<u32>,
    /// The countries and the AS numbers of these addresses; null if they are the usual ones.
    countries: Option<Vec<&'static str>>,
    asns: Option<Vec<u32>>,
    user_agent_new: bool,
    routes_new: bool,
    /// The share of calls that are answered 401 or 403 on purpose.
    refused: f64,
    api: Option<&'static str>,
    /// The time at which a thief comes back who has tried the key from `from` on; null for all others.
    returns: Option<String>,
}

/// What the episodes of a stolen database have in common.
struct Thief {
    pool: AddressPool,
    /// The family of the user agent.
    agent: u32,
}

/// Returns the numbers of leaks and look-alikes that the settings ask for.
fn asked(settings: &WorldSettings) -> [u32; 2] {
    if settings.leak.is_some() {
        return [0, 0];
    }
    let of = |leak| KINDS.iter().filter(|kind| kind.leak == leak).count() as u32;
    let (leaks, look_alikes) = match settings.scenario {
        Scenario::Plain | Scenario::Usual => (0, 0),
        Scenario::Leaks => (of(true), 0),
        Scenario::Benign => (0, of(false)),
        Scenario::Mixed => (of(true), of(false)),
    };
    [settings.leaks.unwrap_or(leaks), settings.look_alikes.unwrap_or(look_alikes)]
}

/// Checks that a plain world has no episodes.
///
/// # Errors
/// If episodes are asked for.
pub(crate) fn none(settings: &WorldSettings) -> anyhow::Result<()> {
    ensure!(
        asked(settings) == [0, 0],
        "--leaks and --look-alikes need a scenario other than plain: --scenario usual, for one"
    );
    Ok(())
}

impl EpisodePlan {
    /// Plans the episodes, and adapts population and habits to them.
    ///
    /// # Errors
    /// If no key fits an episode, or the run is too short.
    pub(crate) fn new(
        settings: &WorldSettings,
        population: &mut Population,
        habits: &mut [Habit],
        draw: &mut Draw,
    ) -> anyhow::Result<Self> {
        let plan = Self {
            episodes: Vec::new(),
            beats: Vec::new(),
            outages: vec![Vec::new(); RESOURCES.len()],
            surges: Vec::new(),
        };
        let free = free_keys(population, habits);
        let mut planner =
            Planner { settings, population, habits, draw, free, clocks: Clocks::new(), usage: None, plan };
        if let Some(leak) = settings.leak {
            planner.at_a_set_time(leak)?;
        }
        for (leak, count) in [true, false].into_iter().zip(asked(settings)) {
            planner.deal(leak, count as usize)?;
        }
        Ok(planner.plan)
    }

    /// Returns the outage of an API at `time`, if there is one.
    pub(crate) fn outage(&self, api: usize, time: u64) -> Option<u32> {
        self.outages[api].iter().copied().find(|at| self.episodes[*at as usize].time.contains(&time))
    }

    /// Returns the labels of the episodes that had begun by `end_ms`. `calls` has the calls of each episode.
    pub(crate) fn labels(
        &self,
        population: &Population,
        calls: &[u64],
        end_ms: u64,
    ) -> anyhow::Result<Vec<LabelLine>> {
        let begun = self.episodes.iter().zip(calls).filter(|(episode, _)| episode.time.start < end_ms);
        begun.map(|(episode, calls)| episode.label(population, *calls, end_ms)).collect()
    }
}

impl Planner<'_> {
    /// Deals `count` episodes over the kinds that fit into the run. There may be fewer, as platform episodes are limited.
    /// A stolen database counts as one, although each of its keys has an episode.
    fn deal(&mut self, leak: bool, count: usize) -> anyhow::Result<()> {
        let (span, countries) = (self.settings.span_ms, self.settings.countries);
        let fits = |kind: &&EpisodeKind| {
            kind.leak == leak
                && span >= kind.span_h * HOUR_MS
                && (kind.origin != CallOrigin::NewRegion || countries > 1)
        };
        let possible = count == 0 || KINDS.iter().any(|kind| fits(&kind));
        ensure!(possible, "episodes need a --span of 1h at least");
        let at_most = |days: u64| 1 + (span / (days * DAY_MS)) as usize;
        let mut dealt: Vec<&str> = Vec::with_capacity(count);
        for kind in KINDS.iter().filter(fits).cycle() {
            if dealt.len() == count {
                break;
            }
            let of_kind = dealt.iter().filter(|name| **name == kind.name).count();
            match kind.scope {
                EpisodeScope::Key => self.of_key(kind)?,
                EpisodeScope::Database if of_kind == at_most(DAYS_PER_DATABASE) => continue,
                EpisodeScope::Database => self.of_database(kind)?,
                _ if of_kind == at_most(DAYS_PER_PLATFORM_EPISODE) => continue,
                EpisodeScope::Api => self.of_api(kind)?,
                EpisodeScope::Everybody => self.of_everybody(kind),
            }
            dealt.push(kind.name);
        }
        Ok(())
    }

    fn at_a_set_time(&mut self, leak: Leak) -> anyhow::Result<()> {
        let kind = &KINDS[0];
        let time = leak.from_ms.saturating_sub(LEAD_MS)..self.settings.start_ms + self.settings.span_ms;
        let Leak { calls_per_hour, known_calls, .. } = leak;
        let key = self.take_key(kind, &time, f64::from(known_calls), |_, key, habit| {
            // The key is used every day and night, so that the detector knows it, and from one network only.
            habit.customer.rhythm == Rhythm::Machine && habit.is_steady() && !key.confined
        })?;
        // Nobody else uses the subscription's quota, and its billing period began before the run and ends after it.
        let of_key = &mut self.population.keys[key as usize];
        let owner = &self.population.subscriptions[of_key.subscription as usize];
        let began =
            Timestamp::from_millisecond(self.settings.start_ms.saturating_sub(7 * DAY_MS).cast_signed())?;
        let alone = Subscription {
            customer: owner.customer.clone(),
            plan: SUSPENDED,
            country: owner.country,
            billing_anchor: began.to_zoned(TimeZone::UTC).day().clamp(1, 28).cast_unsigned().into(),
            started_at: owner.started_at,
        };
        of_key.subscription = self.population.subscriptions.len() as u32;
        of_key.moves_to = None;
        self.population.subscriptions.push(alone);
        let calls = u64::from(calls_per_hour) * (time.end - leak.from_ms) / HOUR_MS;
        self.stage_key(kind, key, time, Some(calls), None);
        Ok(())
    }

    fn of_everybody(&mut self, kind: &'static EpisodeKind) {
        let time = self.time(kind);
        let percent = self.draw.between(kind.percent);
        if kind.course == EpisodeCourse::Backlog {
            let burst = time.end - BACKLOG_MS.min((time.end - time.start) / 2);
            let held = u64::from(percent) * (burst - time.start) / (time.end - burst);
            let multiple = 100 + held as u32;
            let surges = [(time.start, burst, 100 - percent), (burst, time.end, multiple)];
            self.plan.surges.extend(surges.map(|(from, to, percent)| Surge { from, to, percent }));
            self.plan.episodes.push(StagedEpisode::of_all(kind, time, None, multiple));
            return;
        }
        let (from, to) = (time.start / SLOT_MS * SLOT_MS, time.end.next_multiple_of(SLOT_MS));
        self.plan.surges.push(Surge { from, to, percent });
        self.plan.episodes.push(StagedEpisode::of_all(kind, from..to, None, percent));
    }

    /// Lets a thief try the keys of several customers one by one.
    fn of_database(&mut self, kind: &'static EpisodeKind) -> anyhow::Result<()> {
        let (start, span) = (self.settings.start_ms, self.settings.span_ms);
        let earliest = start + span / 5 * 2;
        let from = earliest + self.draw.part_of(start + span - DATABASE_MS - earliest);
        // A cloud somewhere, which is foreign to all of the keys.
        let networks = &self.population.networks;
        let country = self.draw.below(self.settings.countries);
        let network = NetworkKind::Cloud.network(country, self.draw.below(64));
        let asn = networks.get(network).asn;
        let addresses = self.draw.between(kind.addresses);
        let pool = AddressPool { placed: true, ..AddressPool::of(network, addresses, self.draw.bits()) };
        let agent = self.draw.below(USUAL_AGENTS);
        let most = (self.free.len() / DATABASE_SHARE).max(1) as u32;
        for _ in 0..self.draw.between(DATABASE_KEYS).min(most) {
            let lasts = u64::from(self.draw.between(kind.minutes.unwrap_or((5, 15)))) * MINUTE_MS;
            let first = (from + self.draw.part_of(DATABASE_MS - lasts)) / 1_000 * 1_000;
            let time = first..first + lasts;
            let foreign = self.settings.countries > 1;
            let key = self.take_key(kind, &time, USUAL_CALLS, |population, key, habit| {
                let home = population.subscriptions[key.subscription as usize].country;
                (!foreign || home != country)
                    && !habit.uses_agent(key, agent)
                    && !habit.uses_system(&population.networks, asn)
            })?;
            self.stage_key(kind, key, time, None, Some(&Thief { pool, agent }));
        }
        Ok(())
    }

    /// Lets busy APIs fail in turn, each long enough to be noticed.
    fn of_api(&mut self, kind: &'static EpisodeKind) -> anyhow::Result<()> {
        let Range { start, mut end } = self.time(kind);
        let broken: usize = self.plan.outages.iter().map(Vec::len).sum();
        let percent = self.draw.between(kind.percent);
        let settings = self.settings;
        let usage = self.usage.get_or_insert_with(|| ApiUsage::new(settings, self.population, self.habits));
        // How busy an API is depends on the callers' clocks at that time.
        let mut apis: Vec<_> = (0..RESOURCES.len()).map(|api| (usage.calls(api, start..end), api)).collect();
        apis.sort_by(|(calls, _), (other, _)| other.total_cmp(calls));
        let busy = apis.iter().take_while(|(calls, _)| *calls >= NOTICED_CALLS).count();
        let (mut calls, api) = apis[broken % busy.max(1)];
        let latest_end = (start + settings.span_ms / 4).min(settings.start_ms + settings.span_ms);
        while calls < NOTICED_CALLS && end < latest_end {
            let until = (end + MINUTE_MS).min(latest_end);
            calls += usage.calls(api, end..until);
            end = until;
        }
        ensure!(
            calls >= LEAST_NOTICED_CALLS,
            "no API is called often enough for the episode `{}`: allow more --events, or stage fewer with \
             --look-alikes",
            kind.name
        );
        self.plan.outages[api].push(self.plan.episodes.len() as u32);
        self.plan.episodes.push(StagedEpisode::of_all(kind, start..end, Some(api), percent));
        Ok(())
    }

    fn of_key(&mut self, kind: &'static EpisodeKind) -> anyhow::Result<()> {
        let time = self.time(kind);
        let key = self.take_key(kind, &time, USUAL_CALLS, |_, _, _| true)?;
        self.stage_key(kind, key, time, None, None);
        Ok(())
    }

    /// Stages an episode of a key. `set` is the number of its calls; with `None` the kind decides.
    /// A thief brings origin and agent.
    fn stage_key(
        &mut self,
        kind: &'static EpisodeKind,
        key: u32,
        mut time: Range<u64>,
        set: Option<u64>,
        thief: Option<&Thief>,
    ) {
        let (start, end) = (self.settings.start_ms, self.settings.start_ms + self.settings.span_ms);
        let owner = &mut self.population.keys[key as usize];
        let habit = &mut self.habits[key as usize];
        let subscription = &self.population.subscriptions[owner.subscription as usize];
        let mut beats = beats(kind, &mut time, subscription.country, &self.clocks, end);
        let mut probes = None;
        if kind.probes > 0 {
            let pause = u64::from(self.draw.between(PAUSE_MINUTES)) * MINUTE_MS;
            let probing = u64::from(kind.probes) * PROBE_MS;
            probes = Some(Beats { calls: kind.probes, lasts: probing, ..beats });
            beats.first += (probing + pause).cast_signed();
            beats.lasts -= probing + u64::from(PAUSE_MINUTES.1) * MINUTE_MS;
            time.end = beats.first.unsigned_abs() + beats.lasts;
        }
        let returns_at = probes.is_some().then_some(beats.first.unsigned_abs());

        // STEP 1: the number of calls, from the usual ones in the same time.
        let calls_per_ms = habit.share * self.settings.events.get() as f64 / (end - start) as f64;
        // At night the multiple is of the nights, every hour it is of the whole time.
        let relative_to = match kind.course {
            EpisodeCourse::Nights => beats.lasts * u64::from(beats.beats),
            _ if kind.probes > 0 => beats.lasts,
            _ => time.end - time.start,
        } as f64;
        let usual_calls = calls_per_ms * relative_to;
        let at_least = match kind.course {
            EpisodeCourse::Hourly => f64::from(kind.calls_per_hour) * f64::from(beats.beats),
            _ => f64::from(kind.calls_per_hour) * relative_to / HOUR_MS as f64,
        };
        let calls = usual_calls * f64::from(self.draw.between(kind.percent)) / 100.0;
        let calls = set.map_or(calls.max(at_least), |set| set as f64);
        let calls = calls.min(MAX_STAGED_CALLS) / f64::from(beats.beats);

        // STEP 2: the times of the calls, and the owner's behaviour.
        let episode = self.plan.episodes.len() as u32;
        let calls = whole(calls) as u32;
        self.plan.beats.extend(probes.map(|probes| (episode, probes)));
        if calls > 0 {
            self.plan.beats.push((episode, Beats { calls, ..beats }));
        }
        match kind.owner {
            OwnerBehaviour::GoesOn => {}
            OwnerBehaviour::Moves | OwnerBehaviour::Upgrades => habit.detour = Some(episode),
            OwnerBehaviour::Sleeps => {
                habit.class = RhythmClass::SILENT;
                owner.created_at = subscription.started_at;
                let age = start - owner.created_at - DORMANT_DAYS * DAY_MS;
                owner.last_used_at = owner.created_at + self.draw.part_of(age);
            }
            OwnerBehaviour::Revokes => {
                habit.detour = Some(episode);
                (owner.state, owner.revoked_at) = (KeyState::Revoked, time.start);
            }
        }
        // STEP 3: the agents and addresses of the calls.
        let networks = &self.population.networks;
        let agents = match kind.agent {
            _ if let Some(thief) = thief => [thief.agent; 2],
            AgentChoice::Usual => owner.agents,
            AgentChoice::Other => {
                let other = std::iter::repeat_with(|| self.draw.below(USUAL_AGENTS))
                    .find(|agent| !habit.uses_agent(owner, *agent))
                    .expect("at most five of sixteen are the owner's");
                [other; 2]
            }
            AgentChoice::LoadTool => [LOAD_TOOL; 2],
        };
        let pool = match thief {
            Some(thief) => Some(thief.pool),
            None => pool(kind, habit, subscription.country, networks, self.draw),
        };
        let usual_calls = if kind.owner == OwnerBehaviour::Sleeps { 0.0 } else { usual_calls };
        self.plan.episodes.push(StagedEpisode {
            kind,
            key: Some(key),
            time,
            pool,
            agents,
            api: None,
            percent: 0,
            usual_calls,
            returns_at,
        });
    }

    /// Takes a free key that fits the kind, satisfies `will_do`, and is expected to make `usual_calls` before the episode.
    fn take_key(
        &mut self,
        kind: &EpisodeKind,
        time: &Range<u64>,
        usual_calls: f64,
        will_do: impl Fn(&Population, &Key, &Habit) -> bool,
    ) -> anyhow::Result<u32> {
        let (start, end) = (self.settings.start_ms, self.settings.start_ms + self.settings.span_ms);
        let fits = |key: u32| {
            let habit = &self.habits[key as usize];
            let calls_per_ms = habit.share * self.settings.events.get() as f64 / self.settings.span_ms as f64;
            let often = |time: u64, calls: f64| calls_per_ms * time as f64 >= calls;
            let key = &self.population.keys[key as usize];
            let owner = &self.population.subscriptions[key.subscription as usize];
            let age = start - owner.started_at;
            will_do(self.population, key, habit)
                && (kind.leak || !key.confined)
                && (kind.owner == OwnerBehaviour::Sleeps || often(time.start - start, usual_calls))
                && (!matches!(kind.owner, OwnerBehaviour::Moves | OwnerBehaviour::Upgrades)
                    || often(time.end - time.start, USUAL_CALLS))
                && (kind.owner != OwnerBehaviour::Sleeps || age > (DORMANT_DAYS + 5) * DAY_MS)
                && (!kind.new_routes || known_routes(key, habit, end) < self.settings.routes)
                && (kind.course != EpisodeCourse::Nights
                    || matches!(habit.customer.rhythm, Rhythm::Office | Rhythm::Waking))
                // Runs of continuous integration come at night, too, and go on whatever happens.
                && (habit.timetable.is_none()
                    || kind.owner == OwnerBehaviour::GoesOn && kind.course != EpisodeCourse::Nights)
                && match kind.origin {
                    CallOrigin::UsualNetwork | CallOrigin::NewRegion => habit.is_of_servers(),
                    _ => true,
                }
        };
        let fitting: Vec<usize> = (0..self.free.len()).filter(|at| fits(self.free[*at])).collect();
        ensure!(
            !fitting.is_empty(),
            "no key is left that fits the episode `{}`: allow more --keys and --events, or stage fewer with --leaks \
             and --look-alikes",
            kind.name
        );
        // Popular keys are preferred: a multiple of very few calls would mean little.
        Ok(self.free.remove(fitting[self.draw.habit(fitting.len() as u32) as usize]))
    }

    /// Draws the time of an episode, which its course may still change.
    fn time(&mut self, kind: &EpisodeKind) -> Range<u64> {
        let (start, span) = (self.settings.start_ms, self.settings.span_ms);
        let earliest = start + span / 5 * 2;
        // Whole seconds, as tables have them.
        let second = |time: u64| time / 1_000 * 1_000;
        match kind.minutes {
            None => second(earliest + self.draw.part_of(span / 10 * 3))..start + span,
            Some((least, most)) => {
                // The thief's tries and the longest pause come before.
                let more = u32::from(kind.probes > 0) * (PAUSE_MINUTES.1 + 5);
                let minutes = (least + more, most + more);
                let lasts = (u64::from(self.draw.between(minutes)) * MINUTE_MS).min(span / 4);
                let from = second(earliest + self.draw.part_of(start + span - lasts - earliest));
                from..from + lasts
            }
        }
    }
}

impl StagedEpisode {
    fn of_all(kind: &'static EpisodeKind, time: Range<u64>, api: Option<usize>, percent: u32) -> Self {
        Self {
            kind,
            key: None,
            time,
            pool: None,
            agents: [0; 2],
            api,
            percent,
            usual_calls: 0.0,
            returns_at: None,
        }
    }

    fn label(&self, population: &Population, calls: u64, end_ms: u64) -> anyhow::Result<LabelLine> {
        let kind = self.kind;
        let rounded = |number: f64| (number * 100.0).round() / 100.0;
        let networks = self.pool.map(|pool| {
            let first = pool.first_network as usize;
            &population.networks.all()[first..first + pool.networks as usize]
        });
        let time = |ms: u64| anyhow::Ok(Timestamp::from_millisecond(ms.cast_signed())?.to_string());
        Ok(LabelLine {
            key_id: self.key.map(|key| population.keys[key as usize].id()),
            kind: kind.name,
            leak: kind.leak,
            from: time(self.time.start)?,
            to: time(self.time.end.min(end_ms))?,
            calls,
            multiple: match kind.scope {
                EpisodeScope::Key | EpisodeScope::Database => {
                    (self.usual_calls > 0.0).then(|| rounded(calls as f64 / self.usual_calls))
                }
                EpisodeScope::Api => None,
                EpisodeScope::Everybody => Some(f64::from(self.percent) / 100.0),
            },
            origins: self.pool.map(|pool| pool.addresses),
            countries: networks.map(|networks| {
                let mut countries: Vec<_> =
                    networks.iter().map(|network| COUNTRIES[network.country as usize].0).collect();
                countries.dedup();
                countries
            }),
            asns: networks.map(|networks| {
                let asns: BTreeSet<_> = networks.iter().map(|network| network.asn).collect();
                asns.into_iter().collect()
            }),
            user_agent_new: kind.agent != AgentChoice::Usual,
            routes_new: kind.new_routes,
            refused: f64::from(kind.refused_permille) / 1_000.0,
            api: self.api.map(|api| RESOURCES[api]),
            returns: self.returns_at.filter(|at| *at < end_ms).map(time).transpose()?,
        })
    }
}

/// The usual calls of each API, by rhythms.
struct ApiUsage {
    levels: Levels,
    /// The shares in all calls, by API and class.
    shares: Vec<Vec<(RhythmClass, f64)>>,
    /// The rate of all calls while all levels are 1.
    calls_per_ms: f64,
}

impl ApiUsage {
    fn new(settings: &WorldSettings, population: &Population, habits: &[Habit]) -> Self {
        let mut shares = vec![HashMap::<RhythmClass, f64>::new(); RESOURCES.len()];
        let called =
            population.keys.iter().zip(habits).filter(|(_, habit)| habit.class != RhythmClass::SILENT);
        for (key, habit) in called {
            for (route, share) in population.usual_routes(key) {
                *shares[route as usize % RESOURCES.len()].entry(habit.class).or_default() +=
                    share * habit.share;
            }
        }
        let of_api = |shares: HashMap<RhythmClass, f64>| {
            let mut shares: Vec<_> = shares.into_iter().collect();
            // Sums of floats depend on their order.
            shares.sort_unstable_by_key(|(class, _)| *class);
            shares
        };
        let shares = shares.into_iter().map(of_api).collect();
        let mut usage = Self { levels: Levels::new(), shares, calls_per_ms: 1.0 };
        // The run has all calls, whatever its levels are. Over several weeks the levels are about those of one week.
        let (start, span) = (settings.start_ms, settings.span_ms.min(7 * DAY_MS));
        let levels: f64 = (0..RESOURCES.len()).map(|api| usage.calls(api, start..start + span)).sum();
        let share: f64 = usage.shares.iter().flatten().map(|(_, share)| share).sum();
        let calls = share * settings.events.get() as f64 * span as f64 / settings.span_ms as f64;
        usage.calls_per_ms = calls / levels.max(f64::MIN_POSITIVE);
        usage
    }

    /// Returns the usual calls of an API that are expected in a time.
    fn calls(&self, api: usize, time: Range<u64>) -> f64 {
        let slots = (time.start / SLOT_MS..time.end.div_ceil(SLOT_MS)).map(|slot| {
            let from = (slot * SLOT_MS).max(time.start);
            (from, ((slot + 1) * SLOT_MS).min(time.end) - from)
        });
        let calls = slots.map(|(from, ms)| {
            let shares = self.shares[api].iter();
            shares.map(|(class, share)| share * self.levels.level(*class, from)).sum::<f64>() * ms as f64
        });
        calls.sum::<f64>() * self.calls_per_ms
    }
}

fn free_keys(population: &Population, habits: &[Habit]) -> Vec<u32> {
    let count = population.keys.len();
    let free = |rank: &usize| {
        let (key, habit) = (&population.keys[*rank], &habits[*rank]);
        key.state == KeyState::Active
            && key.listed
            && !key.publishable
            && key.moves_to.is_none()
            && (habit.timetable.is_none() || habit.is_of_runners())
    };
    ((count / 100).max(1)..count).filter(free).map(|rank| rank as u32).collect()
}

/// Returns the beats of an episode, still without calls. Hourly and nightly ones also adapt its time to their beats.
fn beats(kind: &EpisodeKind, time: &mut Range<u64>, country: u32, clocks: &Clocks, end: u64) -> Beats {
    let first = (time.start + LEAD_MS).min(time.end - 1);
    let once = Beats {
        country: None,
        first: first.cast_signed(),
        every: u64::MAX,
        lasts: time.end - first,
        beats: 1,
        calls: 0,
        growing: kind.course == EpisodeCourse::Growing,
        scattered: None,
    };
    match kind.course {
        EpisodeCourse::Even | EpisodeCourse::Growing | EpisodeCourse::Backlog => once,
        EpisodeCourse::Hourly => {
            let first = time.start.next_multiple_of(HOUR_MS);
            time.start = first - LEAD_MS;
            let beats = (end - first).div_ceil(HOUR_MS) as u32;
            Beats { first: first.cast_signed(), every: HOUR_MS, lasts: MINUTE_MS, beats, ..once }
        }
        EpisodeCourse::Nights => {
            // Runs of four days or more have a whole night after two fifths of them. If the next night ends after the
            // run, an earlier one is taken.
            let day = DAY_MS.cast_signed();
            let night = |midnight: i64| {
                clocks.utc(country, midnight)..clocks.utc(country, midnight + 5 * HOUR_MS.cast_signed())
            };
            let mut midnight = (clocks.local(country, time.start).div_euclid(day) + 1) * day;
            while night(midnight).end > end {
                midnight -= day;
            }
            let mut beats = 1;
            while u64::from(beats) < (time.end - time.start).div_ceil(DAY_MS)
                && night(midnight + i64::from(beats) * day).end <= end
            {
                beats += 1;
            }
            *time = night(midnight).start..night(midnight + i64::from(beats - 1) * day).end;
            Beats {
                country: Some(country),
                first: midnight + LEAD_MS.cast_signed(),
                every: DAY_MS,
                lasts: 5 * HOUR_MS - LEAD_MS,
                beats,
                ..once
            }
        }
    }
}

/// Returns the number of routes that a key has by habit at the end of the run.
pub(crate) fn known_routes(key: &Key, habit: &Habit, end_ms: u64) -> u32 {
    u32::from(key.routes) + habit.deployed(end_ms)
}

/// Returns the addresses of an episode. A new network is never of a system that the key uses. If possible it has the
/// right country and kind and, abroad, a country where the key isn't used; else the right country. Otherwise any will
/// do: in a world of one country nothing is abroad. Geo databases know all of these networks.
fn pool(
    kind: &EpisodeKind,
    habit: &Habit,
    home: u32,
    networks: &WorldNetworks,
    draw: &mut Draw,
) -> Option<AddressPool> {
    let addresses = draw.between(kind.addresses);
    let seed = draw.bits();
    let count = networks.count();
    let sites: Vec<AddressPool> = habit.sites(networks.countries()).collect();
    let used = || sites.iter().map(|site| networks.get(site.first_network));
    let of = |network: u32| AddressPool { placed: true, ..AddressPool::of(network, addresses, seed) };
    let mut best = |possible: &dyn Fn(u32) -> bool, fit: &dyn Fn(u32) -> u8| {
        let possible = || (0..count).filter(|network| possible(*network));
        let best = possible().map(fit).max();
        let fitting: Vec<u32> = possible().filter(|network| Some(fit(*network)) == best).collect();
        of(fitting[draw.below(fitting.len() as u32) as usize])
    };
    let known_country = |network: u32| used().any(|used| used.country == networks.get(network).country);
    let mut other = |abroad: bool, setting: NetworkKind| {
        let unused = |network: u32| used().all(|used| used.asn != networks.get(network).asn);
        // The country matters more than the kind of network.
        let fit = |network: u32| {
            let of = networks.get(network);
            u8::from((of.country != home) == abroad) * 4
                + u8::from(abroad && !known_country(network)) * 2
                + u8::from(of.kind == Some(setting))
        };
        best(&unused, &fit)
    };
    let usual = sites[0].first_network;
    match kind.origin {
        CallOrigin::Usual => None,
        CallOrigin::UsualNetwork => Some(of(usual)),
        CallOrigin::HomeCountry(setting) => Some(other(false, setting)),
        CallOrigin::Abroad(setting) => Some(other(true, setting)),
        CallOrigin::NewRegion => {
            let same_cloud = |network: u32| networks.get(network).asn == networks.get(usual).asn;
            Some(best(&same_cloud, &|network| u8::from(!known_country(network))))
        }
        CallOrigin::Everywhere => Some(AddressPool { networks: count, ..of(0) }),
    }
}
