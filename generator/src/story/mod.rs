//! The calls of a world in order of time, and the episodes that are staged in them.

pub(crate) mod episodes;
pub(crate) mod record;
pub(crate) mod scenario;
pub(crate) mod schedule;
pub(crate) mod traffic;

use self::episodes::{EpisodePlan, LabelLine};
use self::record::CallRecord;
use self::schedule::EvenTimes;
use self::traffic::LivelyTraffic;
use crate::draw::Draw;
use crate::world::habit::{self, Habit};
use crate::world::population::Population;
use crate::world::settings::{Scenario, WorldSettings};

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
