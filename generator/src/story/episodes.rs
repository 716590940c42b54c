//! Which episodes a run has: when, of which keys, from which addresses; and what `labels.jsonl` says of them.
//!
//! No key has two episodes. Each has a history first: episodes start when two fifths of the run are over, and
//! keys with too few usual calls until then aren't chosen, nor are the most popular one in a hundred, publishable
//! ones, those in no table, those that change hands, those with a timetable.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::ensure;
use jiff::Timestamp;
use keytide_dataflow::model::KeyState;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use serde::Serialize;

use super::scenario::{
    AgentChoice, CallOrigin, EpisodeCourse, EpisodeKind, EpisodeScope, KINDS, OwnerBehaviour,
};
use crate::draw::{Draw, whole};
use crate::world::habit::{AddressPool, Habit, NetworkKind};
use crate::world::population::{
    COUNTRIES, Key, LOAD_TOOL, Network, Population, RESOURCES, SUSPENDED, USUAL_AGENTS,
};
use crate::world::rhythm::{Clocks, Levels, Rhythm, RhythmClass, SLOT_MS, Surge};
use crate::world::settings::{Leak, Scenario, WorldSettings};

/// Usual calls that a key is expected to make before its episode, and in it if they are what the episode is.
const USUAL_CALLS: f64 = 20.0;
/// Usual calls that are expected of an API while it fails: an outage lasts longer where they take longer.
const NOTICED_CALLS: f64 = 20.0;
/// Fewer of them aren't worth a label.
const LEAST_NOTICED_CALLS: f64 = 5.0;
/// Days that a dormant key sleeps at least; 30 is what calls for attention.
const DORMANT_DAYS: u64 = 35;
/// A launch day, and an API's retry storm, comes once in so many days at most.
const DAYS_PER_PLATFORM_EPISODE: u64 = 2;
/// From an episode's start to its first call: more than calls out of order are behind.
const LEAD_MS: u64 = 5_000;
const MAX_STAGED_CALLS: f64 = 10_000_000.0;

/// One episode.
#[derive(Debug)]
pub(crate) struct StagedEpisode {
    pub(crate) kind: &'static EpisodeKind,
    /// `None`: of an API, or of everybody.
    pub(crate) key: Option<u32>,
    /// Milliseconds since the epoch; from the first possible call to after the last.
    pub(crate) time: Range<u64>,
    /// Where its calls come from; `None`: from the usual addresses.
    pub(crate) pool: Option<AddressPool>,
    pub(crate) agents: [u32; 2],
    /// An index into [`RESOURCES`].
    api: Option<usize>,
    /// As drawn for a kind without a key.
    pub(crate) percent: u32,
    /// Calls of the key that are usual in the time of an episode.
    usual_calls: f64,
}

/// Times at which calls are made: so many a beat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beats {
    /// Whose clock they follow; `None`: UTC.
    pub(crate) country: Option<u32>,
    /// When the first begins, by that clock.
    pub(crate) first: i64,
    /// Milliseconds, as the next.
    pub(crate) every: u64,
    pub(crate) lasts: u64,
    pub(crate) beats: u32,
    pub(crate) calls: u32,
    /// Whether calls in a beat come at a growing rate.
    pub(crate) growing: bool,
}

impl Beats {
    /// When the call number `call` of a beat is made, from its start: calls of a beat are as far apart as they may be,
    /// each somewhere in its part.
    pub(crate) fn offset_ms(&self, call: u32, draw: &mut Draw) -> u64 {
        let part = (f64::from(call) + draw.unit()) / f64::from(self.calls);
        whole(if self.growing { part.sqrt() } else { part } * self.lasts as f64)
    }
}

/// All episodes of a run.
pub(crate) struct EpisodePlan {
    pub(crate) episodes: Vec<StagedEpisode>,
    /// With the index of the episode that makes them.
    pub(crate) beats: Vec<(u32, Beats)>,
    /// Outages by API, as indices of episodes.
    outages: Vec<Vec<u32>>,
    pub(crate) surges: Vec<Surge>,
}

/// A stage while it is planned.
struct Planner<'a> {
    settings: &'a WorldSettings,
    population: &'a mut Population,
    habits: &'a mut [Habit],
    draw: &'a mut Draw,
    /// Keys that may have an episode.
    free: Vec<u32>,
    clocks: Clocks,
    /// Once it is asked for.
    usage: Option<ApiUsage>,
    plan: EpisodePlan,
}

/// A line of `labels.jsonl`.
#[derive(Debug, Serialize)]
pub(crate) struct LabelLine {
    /// As in the views; null if it isn't about one key.
    key_id: Option<String>,
    kind: &'static str,
    leak: bool,
    from: String,
    to: String,
    /// Calls that the episode made, moved or failed; of everybody: all of its time.
    calls: u64,
    /// Those of the key as a multiple of its usual ones in the same time; of everybody: as drawn.
    multiple: Option<f64>,
    /// Addresses that it calls from, at most; null: the usual ones.
    origins: Option<u32>,
    /// Null: the usual ones, as the next.
    countries: Option<Vec<&'static str>>,
    asns: Option<Vec<u32>>,
    user_agent_new: bool,
    routes_new: bool,
    /// Share of its calls answered 401 or 403 on purpose.
    refused: f64,
    api: Option<&'static str>,
}

/// How many leaks and look-alikes are asked for.
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

/// A plain world has no stage.
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
    /// Plans the episodes and fits population and habits to them.
    ///
    /// # Errors
    /// If no key fits, or the run is too short.
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

    /// The outage of an API at `time`.
    pub(crate) fn outage(&self, api: usize, time: u64) -> Option<u32> {
        self.outages[api].iter().copied().find(|at| self.episodes[*at as usize].time.contains(&time))
    }

    /// Labels of the episodes that had begun when the run ended, with the calls of each.
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
    /// Deals `count` episodes over the kinds that fit into the run.
    fn deal(&mut self, leak: bool, count: usize) -> anyhow::Result<()> {
        let span = self.settings.span_ms;
        let fits = |kind: &&EpisodeKind| kind.leak == leak && span >= kind.span_h * HOUR_MS;
        let possible = count == 0 || KINDS.iter().any(|kind| fits(&kind));
        ensure!(possible, "episodes need a --span of 1h at least");
        let platform_episodes = 1 + (span / (DAYS_PER_PLATFORM_EPISODE * DAY_MS)) as usize;
        let wanted = self.plan.episodes.len() + count;
        for kind in KINDS.iter().filter(fits).cycle() {
            if self.plan.episodes.len() == wanted {
                break;
            }
            let of_kind = self.plan.episodes.iter().filter(|episode| episode.kind.name == kind.name).count();
            match kind.scope {
                EpisodeScope::Key => self.of_key(kind)?,
                _ if of_kind == platform_episodes => {}
                EpisodeScope::Api => self.of_api(kind)?,
                EpisodeScope::Everybody => self.of_everybody(kind),
            }
        }
        Ok(())
    }

    fn at_a_set_time(&mut self, leak: Leak) -> anyhow::Result<()> {
        let kind = &KINDS[0];
        let time = leak.from_ms.saturating_sub(LEAD_MS)..self.settings.start_ms + self.settings.span_ms;
        let Leak { calls_per_hour, known_calls, .. } = leak;
        let key = self.take_key(kind, &time, f64::from(known_calls), |key, habit| {
            // Used day and night and on every day, so that it is known, and from one place.
            matches!(habit.rhythm, Rhythm::Machine | Rhythm::Leisure)
                && habit.elsewhere.is_none()
                && !key.confined
        })?;
        let owner = self.population.keys[key as usize].subscription;
        self.population.subscriptions[owner as usize].plan = SUSPENDED;
        let calls = u64::from(calls_per_hour) * (time.end - leak.from_ms) / HOUR_MS;
        self.stage_key(kind, key, time, Some(calls));
        Ok(())
    }

    fn of_everybody(&mut self, kind: &'static EpisodeKind) {
        let time = self.time(kind);
        let (from, to) = (time.start / SLOT_MS * SLOT_MS, time.end.next_multiple_of(SLOT_MS));
        let percent = self.draw.between(kind.percent);
        self.plan.surges.push(Surge { from, to, percent });
        self.plan.episodes.push(StagedEpisode::of_all(kind, from..to, None, percent));
    }

    /// Busy APIs break, in turn, and for so long that it is noticed.
    fn of_api(&mut self, kind: &'static EpisodeKind) -> anyhow::Result<()> {
        let Range { start, mut end } = self.time(kind);
        let broken: usize = self.plan.outages.iter().map(Vec::len).sum();
        let percent = self.draw.between(kind.percent);
        let settings = self.settings;
        let usage = self.usage.get_or_insert_with(|| ApiUsage::new(settings, self.population, self.habits));
        // Busy at that time, by the clocks of those who call.
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
        let key = self.take_key(kind, &time, USUAL_CALLS, |_, _| true)?;
        self.stage_key(kind, key, time, None);
        Ok(())
    }

    /// Stages an episode of a key, with so many calls or as the kind says.
    fn stage_key(&mut self, kind: &'static EpisodeKind, key: u32, mut time: Range<u64>, set: Option<u64>) {
        let (start, end) = (self.settings.start_ms, self.settings.start_ms + self.settings.span_ms);
        let owner = &mut self.population.keys[key as usize];
        let habit = &mut self.habits[key as usize];
        let subscription = &self.population.subscriptions[owner.subscription as usize];
        let beats = beats(kind, &mut time, subscription.country, &self.clocks, end);

        let calls_per_ms = habit.share * self.settings.events.get() as f64 / (end - start) as f64;
        // At night the multiple is of the nights, every hour it is of the whole time.
        let relative_to = match kind.course {
            EpisodeCourse::Nights => beats.lasts * u64::from(beats.beats),
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

        let episode = self.plan.episodes.len() as u32;
        let calls = whole(calls) as u32;
        if calls > 0 {
            self.plan.beats.push((episode, Beats { calls, ..beats }));
        }
        match kind.owner {
            OwnerBehaviour::GoesOn => {}
            OwnerBehaviour::Moves => habit.detour = Some(episode),
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
        let agents = match kind.agent {
            AgentChoice::Usual => owner.agents,
            AgentChoice::Other => {
                let other = std::iter::repeat_with(|| self.draw.below(USUAL_AGENTS))
                    .find(|agent| !owner.agents.contains(agent))
                    .expect("two of sixteen are the owner's");
                [other; 2]
            }
            AgentChoice::LoadTool => [LOAD_TOOL; 2],
        };
        let pool = pool(kind, habit, subscription.country, &self.population.networks, self.draw);
        let usual_calls = if kind.owner == OwnerBehaviour::Sleeps { 0.0 } else { usual_calls };
        let episode =
            StagedEpisode { kind, key: Some(key), time, pool, agents, api: None, percent: 0, usual_calls };
        self.plan.episodes.push(episode);
    }

    /// A free key that fits, is expected to make so many calls before, and will do.
    fn take_key(
        &mut self,
        kind: &EpisodeKind,
        time: &Range<u64>,
        usual_calls: f64,
        will_do: impl Fn(&Key, &Habit) -> bool,
    ) -> anyhow::Result<u32> {
        let start = self.settings.start_ms;
        let fits = |key: u32| {
            let habit = &self.habits[key as usize];
            let calls_per_ms = habit.share * self.settings.events.get() as f64 / self.settings.span_ms as f64;
            let often = |time: u64, calls: f64| calls_per_ms * time as f64 >= calls;
            let key = &self.population.keys[key as usize];
            let owner = &self.population.subscriptions[key.subscription as usize];
            let age = start - owner.started_at;
            will_do(key, habit)
                && (kind.leak || !key.confined)
                && (kind.owner == OwnerBehaviour::Sleeps || often(time.start - start, usual_calls))
                && (kind.owner != OwnerBehaviour::Moves || often(time.end - time.start, USUAL_CALLS))
                && (kind.owner != OwnerBehaviour::Sleeps || age > (DORMANT_DAYS + 5) * DAY_MS)
                && (!kind.new_routes || u32::from(key.routes) < self.settings.routes)
                && (kind.course != EpisodeCourse::Nights || habit.rhythm == Rhythm::Office)
                && (kind.origin != CallOrigin::UsualNetwork || habit.setting == NetworkKind::Cloud)
        };
        let fitting: Vec<usize> = (0..self.free.len()).filter(|at| fits(self.free[*at])).collect();
        ensure!(
            !fitting.is_empty(),
            "no key is left that fits the episode `{}`: allow more --keys and --events, or stage fewer with --leaks \
             and --look-alikes",
            kind.name
        );
        // Popular ones rather: an episode then is a multiple of something.
        Ok(self.free.remove(fitting[self.draw.habit(fitting.len() as u32) as usize]))
    }

    /// When an episode takes place, if its course doesn't ask for something else.
    fn time(&mut self, kind: &EpisodeKind) -> Range<u64> {
        let (start, span) = (self.settings.start_ms, self.settings.span_ms);
        let earliest = start + span / 5 * 2;
        // Whole seconds, as tables have them.
        let second = |time: u64| time / 1_000 * 1_000;
        match kind.minutes {
            None => second(earliest + self.draw.part_of(span / 10 * 3))..start + span,
            Some(minutes) => {
                let lasts = (u64::from(self.draw.between(minutes)) * MINUTE_MS).min(span / 4);
                let from = second(earliest + self.draw.part_of(start + span - lasts - earliest));
                from..from + lasts
            }
        }
    }
}

impl StagedEpisode {
    fn of_all(kind: &'static EpisodeKind, time: Range<u64>, api: Option<usize>, percent: u32) -> Self {
        Self { kind, key: None, time, pool: None, agents: [0; 2], api, percent, usual_calls: 0.0 }
    }

    fn label(&self, population: &Population, calls: u64, end_ms: u64) -> anyhow::Result<LabelLine> {
        let kind = self.kind;
        let rounded = |number: f64| (number * 100.0).round() / 100.0;
        let networks = self.pool.map(|pool| {
            let first = pool.first_network as usize;
            &population.networks[first..first + pool.networks as usize]
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
                EpisodeScope::Key => {
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
            asns: networks.map(|networks| networks.iter().map(|network| network.asn).collect()),
            user_agent_new: kind.agent != AgentChoice::Usual,
            routes_new: kind.new_routes,
            refused: f64::from(kind.refused_permille) / 1_000.0,
            api: self.api.map(|api| RESOURCES[api]),
        })
    }
}

/// How much each API is usually called, by rhythms.
struct ApiUsage {
    levels: Levels,
    /// Of all calls, by API and class.
    shares: Vec<Vec<(RhythmClass, f64)>>,
    /// Of everybody, if all levels are 1.
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
        // All calls fall into the run, whatever the levels in it; over weeks they are about those of a week.
        let (start, span) = (settings.start_ms, settings.span_ms.min(7 * DAY_MS));
        let levels: f64 = (0..RESOURCES.len()).map(|api| usage.calls(api, start..start + span)).sum();
        let share: f64 = usage.shares.iter().flatten().map(|(_, share)| share).sum();
        let calls = share * settings.events.get() as f64 * span as f64 / settings.span_ms as f64;
        usage.calls_per_ms = calls / levels.max(f64::MIN_POSITIVE);
        usage
    }

    /// Usual calls of an API that are expected in a time.
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
            && habit.timetable.is_none()
    };
    ((count / 100).max(1)..count).filter(free).map(|rank| rank as u32).collect()
}

/// The beats of an episode, without their calls; hours and nights fit its time to theirs.
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
    };
    match kind.course {
        EpisodeCourse::Even | EpisodeCourse::Growing => once,
        EpisodeCourse::Hourly => {
            let first = time.start.next_multiple_of(HOUR_MS);
            time.start = first - LEAD_MS;
            let beats = (end - first).div_ceil(HOUR_MS) as u32;
            Beats { first: first.cast_signed(), every: HOUR_MS, lasts: MINUTE_MS, beats, ..once }
        }
        EpisodeCourse::Nights => {
            // Spans of four days have a night after two fifths of them; the last one that is whole will do.
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

/// Where an episode calls from. A network that is to be another one is none that the key uses: of the setting if
/// the country has one left, else any of the country, else (a world of one country has no abroad) any at all.
fn pool(
    kind: &EpisodeKind,
    habit: &Habit,
    home: u32,
    networks: &[Network],
    draw: &mut Draw,
) -> Option<AddressPool> {
    let addresses = draw.between(kind.addresses);
    let seed = draw.bits();
    let count = networks.len() as u32;
    let used =
        |network: u32| habit.usual.has(network) || habit.elsewhere.is_some_and(|pool| pool.has(network));
    let mut other = |abroad: bool, setting: NetworkKind| {
        let fit = |network: u32| {
            let country = networks[network as usize].country;
            u8::from((country != home) == abroad) * 2 + u8::from(network == setting.network(country))
        };
        let unused = || (0..count).filter(|network| !used(*network));
        // Of the country comes before of the setting.
        let best = unused().map(fit).max();
        let fitting: Vec<u32> = unused().filter(|network| Some(fit(*network)) == best).collect();
        AddressPool::of(fitting[draw.below(fitting.len() as u32) as usize], addresses, seed)
    };
    match kind.origin {
        CallOrigin::Usual => None,
        CallOrigin::UsualNetwork => Some(AddressPool::of(habit.usual.first_network, addresses, seed)),
        CallOrigin::HomeCountry(setting) => Some(other(false, setting)),
        CallOrigin::Abroad(setting) => Some(other(true, setting)),
        CallOrigin::Everywhere => {
            Some(AddressPool { networks: count, ..AddressPool::of(0, addresses, seed) })
        }
    }
}
