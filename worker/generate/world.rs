//! A world, and the lines of the calls that are made in it, one after the other: for files, a topic, a demonstration.

use std::collections::VecDeque;

use serde::Serialize;

use super::draw::{Draw, mixed};
use super::format::Formatter;
use super::habit::{self, Habit};
use super::population::Population;
use super::record::Record;
use super::schedule::{Arrival, Even, Schedule};
use super::stage::{self, Label, Stage};
use super::traffic::Traffic;
use super::{Scenario, Settings};

/// A record is sent again within so many records, as gateways do after an unclear answer.
const RESENT_WITHIN: usize = 16;

/// Who calls, and what is staged. Made once; [`generator`](Self::generator) makes the calls.
pub(crate) struct World {
    pub(super) settings: Settings,
    pub(super) population: Population,
    /// Of lively worlds.
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
    pub(crate) fn new(settings: Settings) -> anyhow::Result<Self> {
        let seed = settings.seed;
        let mut population = Population::new(&settings, Draw::new(seed, 0));
        let play = if settings.scenario == Scenario::Plain {
            stage::none(&settings)?;
            None
        } else {
            let mut habits = habit::habits(&settings, &population, &mut Draw::new(seed, 3));
            let stage = Stage::new(&settings, &mut population, &mut habits, &mut Draw::new(seed, 4))?;
            Some(Play { habits, stage })
        };
        Ok(Self { settings, population, play })
    }

    /// The id of the key of the first episode, as views have it, if it is about a key.
    pub(crate) fn first_staged_key(&self) -> Option<String> {
        let key = self.play.as_ref()?.stage.episodes.first()?.key?;
        Some(super::folder::hex(&self.population.keys[key as usize].hash()[..16]))
    }

    /// The calls, from the first.
    pub(crate) fn generator(&self) -> Generator<'_> {
        let (settings, population) = (&self.settings, &self.population);
        // Worlds of one population have other calls, with other ids, if others call.
        let seed = match settings.callers {
            None => settings.seed,
            Some((first, callers)) => mixed([settings.seed, first.into(), callers.into()]),
        };
        let mut chance = Draw::new(seed, 5);
        let calls = match &self.play {
            None => Calls::Even(Box::new(Even::new(settings, Draw::new(seed, 6)))),
            Some(Play { habits, stage }) => {
                Calls::Lively(Box::new(Traffic::new(settings, population, habits, stage, &mut chance)))
            }
        };
        Generator {
            world: self,
            calls,
            chance,
            schedule: Schedule::new(settings, Draw::new(seed, 1)),
            draw: Draw::new(seed, 2),
            formatter: Formatter::new(settings.format, population),
            sent: VecDeque::with_capacity(RESENT_WITHIN),
            planned: VecDeque::with_capacity(3),
            generated: Generated::default(),
            stopped_ms: None,
        }
    }
}

/// Where calls come from.
enum Calls<'a> {
    /// Of a plain world.
    Even(Box<Even>),
    Lively(Box<Traffic<'a>>),
}

impl Calls<'_> {
    fn next(&mut self, population: &Population, draw: &mut Draw) -> Option<Record> {
        match self {
            Self::Even(times) => Some(Record::draw(population, times.next()?, draw)),
            Self::Lively(traffic) => traffic.next(draw),
        }
    }
}

/// A line of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'l> {
    /// Counted from 0; below the settings' `partitions`.
    pub(crate) partition: usize,
    /// When it arrives, in milliseconds since the epoch: at the call's time, or later if that is out of order.
    pub(crate) at_ms: u64,
    /// With its end.
    pub(crate) bytes: &'l [u8],
}

impl<'l> Line<'l> {
    /// Without its end.
    pub(crate) fn text(&self) -> &'l [u8] {
        self.bytes.strip_suffix(b"\n").unwrap_or(self.bytes)
    }
}

/// What lines hold; `generated.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Generated {
    /// Calls.
    pub(crate) events: u64,
    /// Lines: calls, records sent again, broken ones.
    pub(crate) lines: u64,
    /// Calls without a key.
    pub(crate) anonymous: u64,
    /// Calls a little behind others of their partition.
    pub(crate) out_of_order: u64,
    /// Calls far behind others of their partition.
    pub(crate) late: u64,
    /// Records sent again.
    pub(crate) duplicates: u64,
    /// Lines that are no record.
    pub(crate) broken: u64,
    /// Bytes of all lines with their ends, before compression.
    pub(crate) bytes: u64,
    /// Calls that belong to leaks; a plain world has none to speak of, nor of the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leak_calls: Option<u64>,
    /// Calls that belong to look-alikes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) look_alike_calls: Option<u64>,
}

impl Generated {
    /// What the lines of two worlds hold.
    pub(crate) fn and(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| a.map(|a| a + b.unwrap_or(0)).or(b);
        Self {
            events: self.events + other.events,
            lines: self.lines + other.lines,
            anonymous: self.anonymous + other.anonymous,
            out_of_order: self.out_of_order + other.out_of_order,
            late: self.late + other.late,
            duplicates: self.duplicates + other.duplicates,
            broken: self.broken + other.broken,
            bytes: self.bytes + other.bytes,
            leak_calls: sum(self.leak_calls, other.leak_calls),
            look_alike_calls: sum(self.look_alike_calls, other.look_alike_calls),
        }
    }
}

/// What a line is.
#[derive(Clone, Copy)]
enum Kind {
    Call(Arrival),
    Again,
    Broken,
}

struct Planned {
    kind: Kind,
    at_ms: u64,
    partition: usize,
    record: Record,
}

/// The lines of a world, in the order in which they arrive. Of a seed, always the same.
pub(crate) struct Generator<'a> {
    world: &'a World,
    calls: Calls<'a>,
    chance: Draw,
    schedule: Schedule,
    draw: Draw,
    formatter: Formatter<'a>,
    /// The last records and their partitions.
    sent: VecDeque<(usize, Record)>,
    /// Lines that come before the next call.
    planned: VecDeque<Planned>,
    generated: Generated,
    stopped_ms: Option<u64>,
}

impl<'a> Generator<'a> {
    /// The next line.
    pub(crate) fn next_line(&mut self) -> Option<Line<'_>> {
        if self.planned.is_empty() {
            self.plan()?;
        }
        let Planned { kind, at_ms, partition, record } = self.planned.pop_front()?;
        let generated = &mut self.generated;
        match kind {
            Kind::Call(arrival) => {
                generated.events += 1;
                generated.anonymous += u64::from(record.key.is_none());
                generated.out_of_order += u64::from(arrival.out_of_order);
                generated.late += u64::from(arrival.late);
            }
            Kind::Again => generated.duplicates += 1,
            Kind::Broken => generated.broken += 1,
        }
        let bytes = match kind {
            Kind::Broken => self.formatter.broken_line(&record),
            Kind::Call(_) | Kind::Again => self.formatter.line(&record),
        };
        generated.lines += 1;
        generated.bytes += bytes.len() as u64;
        Some(Line { partition, at_ms, bytes })
    }

    /// Makes no more calls. Lines of those that were made still come.
    pub(crate) fn stop(&mut self) {
        self.schedule.stop();
        self.stopped_ms.get_or_insert(self.schedule.at_ms());
    }

    /// What the lines so far hold. Calls of episodes are those made, which is the same when no line is left.
    pub(crate) fn generated(&self) -> Generated {
        let calls = |leak| {
            let (stage, traffic) = self.play()?;
            let calls = stage.episodes.iter().zip(&traffic.calls);
            Some(calls.filter(|(episode, _)| episode.kind.leak == leak).map(|(_, calls)| calls).sum())
        };
        Generated { leak_calls: calls(true), look_alike_calls: calls(false), ..self.generated }
    }

    /// What was staged, and how many calls so far belong to it; `None` of a plain world. Of a run that was stopped,
    /// what had begun.
    ///
    /// # Errors
    /// If a time is beyond what can be written.
    pub(super) fn labels(&self) -> anyhow::Result<Option<Vec<Label>>> {
        let labels = self.play().map(|(stage, traffic)| {
            stage.labels(&self.world.population, &traffic.calls, self.stopped_ms.unwrap_or(u64::MAX))
        });
        labels.transpose()
    }

    fn play(&self) -> Option<(&'a Stage, &Traffic<'a>)> {
        match (&self.world.play, &self.calls) {
            (Some(play), Calls::Lively(traffic)) => Some((&play.stage, traffic)),
            _ => None,
        }
    }

    /// Plans the next call and what comes with it.
    fn plan(&mut self) -> Option<()> {
        let population = &self.world.population;
        let arrival = self.schedule.next(|| self.calls.next(population, &mut self.chance))?;
        let Arrival { record, partition, at_ms, .. } = arrival;
        self.planned.push_back(Planned { kind: Kind::Call(arrival), at_ms, partition, record });
        if self.sent.len() == RESENT_WITHIN {
            self.sent.pop_front();
        }
        self.sent.push_back((partition, record));
        if self.schedule.again.hit() {
            let (partition, record) = self.sent[self.draw.below(self.sent.len() as u32) as usize];
            self.planned.push_back(Planned { kind: Kind::Again, at_ms, partition, record });
        }
        if self.schedule.broken.hit() {
            self.planned.push_back(Planned { kind: Kind::Broken, at_ms, partition, record });
        }
        Some(())
    }
}
