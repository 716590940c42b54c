//! The calls of a world in order of time, and the episodes that are staged in them.

pub(crate) mod episodes;
pub(crate) mod record;
pub(crate) mod scenario;
pub(crate) mod schedule;
pub(crate) mod traffic;

use std::iter;

use self::episodes::{EpisodePlan, LabelLine};
use self::record::CallRecord;
use self::schedule::EvenTimes;
use self::traffic::LivelyTraffic;
use crate::draw::Draw;
use crate::world::habit::{self, Habit};
use crate::world::population::{PLANS_WITH_CALLS, Population, subscription_id};
use crate::world::settings::{Scenario, WorldSettings};

/// The stream of the chances by which calls come.
pub(crate) const CHANCE: u64 = 5;
/// The status of calls that are free, as a gateway refused them.
const FREE_STATUS: u16 = 429;

/// The callers and the planned episodes of a run. [`generator`](Self::generator) makes the calls, as often as needed.
pub struct World {
    pub(crate) settings: WorldSettings,
    pub(crate) population: Population,
    lively: Option<LivelyWorld>,
}

struct LivelyWorld {
    habits: Vec<Habit>,
    plan: EpisodePlan,
}

impl World {
    /// Draws the population and plans the episodes.
    ///
    /// # Errors
    /// If the world is too small for its scenario.
    pub fn new(settings: WorldSettings) -> anyhow::Result<Self> {
        let seed = settings.seed;
        let mut population = Population::new(&settings, Draw::new(seed, 0));
        let lively = if settings.scenario == Scenario::Plain {
            episodes::none(&settings)?;
            None
        } else {
            let mut habits = habit::habits(&settings, &population, &mut Draw::new(seed, 3));
            let plan = EpisodePlan::new(&settings, &mut population, &mut habits, &mut Draw::new(seed, 4))?;
            Some(LivelyWorld { habits, plan })
        };
        Ok(Self { settings, population, lively })
    }

    /// Returns the id of the key of the first episode, as views have it, if that episode concerns a key.
    pub fn first_staged_key(&self) -> Option<String> {
        let key = self.lively.as_ref()?.plan.episodes.first()?.key?;
        Some(self.population.keys[key as usize].id())
    }

    /// Returns the id of the subscription whose key is stolen at a set time, as tables have it.
    #[must_use]
    pub fn stolen_subscription_id(&self) -> Option<String> {
        self.stolen_subscription().map(subscription_id)
    }

    /// Returns the id of the subscription of the busiest key whose plan has a quota of calls.
    #[must_use]
    pub fn busy_subscription_id(&self) -> Option<String> {
        let Population { keys, subscriptions, .. } = &self.population;
        let mut owners = keys.iter().filter(|key| key.listed).map(|key| key.subscription);
        owners.find(|owner| subscriptions[*owner as usize].plan < PLANS_WITH_CALLS).map(subscription_id)
    }

    /// Returns the subscription whose key is stolen at a set time, and which has no other key.
    pub(crate) fn stolen_subscription(&self) -> Option<u32> {
        self.settings.leak?;
        Some(self.population.keys[self.plan()?.episodes.first()?.key? as usize].subscription)
    }

    /// Counts the calls of the key of the first episode up to a time, without those that are free.
    pub(crate) fn calls_of_stolen_key(&self, until_ms: u64) -> u64 {
        let stolen = self.plan().and_then(|plan| plan.episodes.first()?.key);
        let seed = self.settings.seed_of_calls();
        let mut chance = Draw::new(seed, CHANCE);
        let mut calls = self.calls(seed, &mut chance);
        let calls = iter::from_fn(|| calls.next(&self.population, &mut chance));
        let calls = calls.take_while(|call| call.time < until_ms);
        calls.filter(|call| call.key.is_some() && call.key == stolen && call.status != FREE_STATUS).count()
            as u64
    }

    /// Returns the same key as callers show it, for who wants to call with it.
    #[must_use]
    pub fn first_staged_secret(&self) -> Option<String> {
        let key = self.lively.as_ref()?.plan.episodes.first()?.key?;
        Some(self.population.keys[key as usize].raw())
    }

    /// Returns the calls from the first. `seed` decides them in a plain world, `chance` in a lively one.
    pub(crate) fn calls(&self, seed: u64, chance: &mut Draw) -> CallSource<'_> {
        let (settings, population) = (&self.settings, &self.population);
        match &self.lively {
            None => CallSource::Even(Box::new(EvenTimes::new(settings, Draw::new(seed, 6)))),
            Some(LivelyWorld { habits, plan }) => {
                CallSource::Lively(Box::new(LivelyTraffic::new(settings, population, habits, plan, chance)))
            }
        }
    }

    /// Counts the calls so far that belong to leaks, or to look-alikes. Returns `None` in a plain world.
    pub(crate) fn staged_calls(&self, calls: &CallSource<'_>, leak: bool) -> Option<u64> {
        let calls = self.plan()?.episodes.iter().zip(calls.of_episodes()?);
        Some(calls.filter(|(episode, _)| episode.kind.leak == leak).map(|(_, calls)| calls).sum())
    }

    /// Returns the labels of the episodes that had begun by `end_ms`, with the calls so far of each, or `None` in a plain
    /// world.
    ///
    /// # Errors
    /// If a time can't be written as text.
    pub(crate) fn labels(
        &self,
        calls: &CallSource<'_>,
        end_ms: u64,
    ) -> anyhow::Result<Option<Vec<LabelLine>>> {
        let staged = self.plan().zip(calls.of_episodes());
        staged.map(|(plan, calls)| plan.labels(&self.population, calls, end_ms)).transpose()
    }

    /// Returns the habits of all keys, and the episodes, or `None` in a plain world.
    #[cfg(test)]
    pub(crate) fn lively(&self) -> Option<(&[Habit], &EpisodePlan)> {
        self.lively.as_ref().map(|LivelyWorld { habits, plan }| (&habits[..], plan))
    }

    fn plan(&self) -> Option<&EpisodePlan> {
        self.lively.as_ref().map(|lively| &lively.plan)
    }
}

/// The source of a world's calls.
pub(crate) enum CallSource<'a> {
    Even(Box<EvenTimes>),
    Lively(Box<LivelyTraffic<'a>>),
}

impl CallSource<'_> {
    pub(crate) fn next(&mut self, population: &Population, draw: &mut Draw) -> Option<CallRecord> {
        match self {
            Self::Even(times) => Some(CallRecord::draw(population, times.next()?, draw)),
            Self::Lively(traffic) => traffic.next(draw),
        }
    }

    /// Returns the number of calls so far of each episode, or `None` in a plain world.
    fn of_episodes(&self) -> Option<&[u64]> {
        match self {
            Self::Even(_) => None,
            Self::Lively(traffic) => Some(&traffic.calls),
        }
    }
}
