//! The calls of a world in the order of time, and the episodes that are staged in them.

pub(crate) mod episodes;
pub(crate) mod record;
pub(crate) mod scenario;
pub(crate) mod schedule;
pub(crate) mod traffic;

use self::episodes::{Label, Stage};
use self::record::Record;
use self::schedule::Even;
use self::traffic::Traffic;
use crate::draw::Draw;
use crate::world::habit::{self, Habit};
use crate::world::population::Population;
use crate::world::settings::{Scenario, Settings};

/// Who calls, and what is staged. Made once; [`generator`](Self::generator) makes the calls.
pub struct World {
    pub(crate) settings: Settings,
    pub(crate) population: Population,
    play: Option<Play>,
}

struct Play {
    habits: Vec<Habit>,
    stage: Stage,
}

impl World {
    /// Makes the world.
    ///
    /// # Errors
    /// If it is too small for its scenario.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let seed = settings.seed;
        let mut population = Population::new(&settings, Draw::new(seed, 0));
        let play = if settings.scenario == Scenario::Plain {
            episodes::none(&settings)?;
            None
        } else {
            let mut habits = habit::habits(&settings, &population, &mut Draw::new(seed, 3));
            let stage = Stage::new(&settings, &mut population, &mut habits, &mut Draw::new(seed, 4))?;
            Some(Play { habits, stage })
        };
        Ok(Self { settings, population, play })
    }

    /// The id of the key of the first episode, as views have it, if it is about a key.
    pub fn first_staged_key(&self) -> Option<String> {
        let key = self.play.as_ref()?.stage.episodes.first()?.key?;
        Some(self.population.keys[key as usize].id())
    }

    /// The calls, from the first: of `seed` in a plain world, of `chance` in a lively one.
    pub(crate) fn calls(&self, seed: u64, chance: &mut Draw) -> Calls<'_> {
        let (settings, population) = (&self.settings, &self.population);
        match &self.play {
            None => Calls::Even(Box::new(Even::new(settings, Draw::new(seed, 6)))),
            Some(Play { habits, stage }) => {
                Calls::Lively(Box::new(Traffic::new(settings, population, habits, stage, chance)))
            }
        }
    }

    /// How many of the calls made belong to leaks, or to look-alikes; `None` in a plain world.
    pub(crate) fn staged_calls(&self, calls: &Calls<'_>, leak: bool) -> Option<u64> {
        let calls = self.stage()?.episodes.iter().zip(calls.of_episodes()?);
        Some(calls.filter(|(episode, _)| episode.kind.leak == leak).map(|(_, calls)| calls).sum())
    }

    /// Labels of the episodes that had begun by `end_ms`, with the calls made of each; `None` in a plain world.
    ///
    /// # Errors
    /// If a time is beyond what can be written.
    pub(crate) fn labels(&self, calls: &Calls<'_>, end_ms: u64) -> anyhow::Result<Option<Vec<Label>>> {
        let staged = self.stage().zip(calls.of_episodes());
        staged.map(|(stage, calls)| stage.labels(&self.population, calls, end_ms)).transpose()
    }

    fn stage(&self) -> Option<&Stage> {
        self.play.as_ref().map(|play| &play.stage)
    }
}

/// Where calls come from.
pub(crate) enum Calls<'a> {
    Even(Box<Even>),
    Lively(Box<Traffic<'a>>),
}

impl Calls<'_> {
    pub(crate) fn next(&mut self, population: &Population, draw: &mut Draw) -> Option<Record> {
        match self {
            Self::Even(times) => Some(Record::draw(population, times.next()?, draw)),
            Self::Lively(traffic) => traffic.next(draw),
        }
    }
    /// The calls made of each episode; `None` in a plain world.
    fn of_episodes(&self) -> Option<&[u64]> {
        match self {
            Self::Even(_) => None,
            Self::Lively(traffic) => Some(&traffic.calls),
        }
    }
}
