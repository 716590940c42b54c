//! Daily and weekly rhythms: the share of a key's traffic in each hour of its owner's clock, and the arrival times that
//! follow from it.
//!
//! Keys of one [`Rhythm`] and time zone form a class and rise and fall together. The rate of a slot of five minutes is
//! the sum of the classes' levels, weighted by their shares. Within a slot, calls arrive by a Poisson process. The caller
//! is then drawn by popularity and accepted by its level. So each key has a process of its own, without memory for it.
//!
//! Levels are relative to the week's mean, so over whole weeks popularity alone decides how much a key calls. Weekends
//! are Saturday and Sunday everywhere.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_dataflow::model::time::DAY_MS;

use super::population::COUNTRIES;
use crate::draw::{Draw, whole};

/// The width of a slot.
pub(crate) const SLOT_MS: u64 = 300_000;
const SLOTS_PER_HOUR: usize = 12;
const SLOTS_PER_DAY: usize = 24 * SLOTS_PER_HOUR;
/// The level that stands for a week's mean.
const MEAN_LEVEL: f64 = 1_024.0;

/// The time of day and week at which a key is used. The numbers are indices into [`SHAPES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rhythm {
    /// Servers call all day, a little less at night.
    Machine = 0,
    Office = 1,
    /// People call in the evening and at weekends.
    Leisure = 2,
    /// Jobs run in the small hours.
    Night = 3,
    /// A person who works by day and goes on in the evening.
    Waking = 4,
}

/// Relative rates by hour, of workdays and weekends. All are above 0, because a caller must be found at any time.
const SHAPES: [[[u32; 24]; 2]; 5] = [
    [
        [
            80, 76, 74, 74, 76, 80, 88, 98, 108, 114, 116, 116, 114, 114, 116, 116, 114, 112, 110, 108, 104,
            98, 92, 86,
        ],
        [78, 74, 72, 72, 72, 74, 78, 84, 90, 94, 96, 98, 98, 98, 98, 98, 98, 98, 96, 94, 92, 88, 84, 80],
    ],
    [
        [3, 3, 3, 3, 4, 8, 25, 90, 210, 280, 290, 270, 200, 230, 290, 280, 250, 180, 80, 40, 25, 15, 8, 4],
        [3, 3, 3, 3, 3, 4, 5, 8, 12, 16, 18, 18, 16, 16, 16, 16, 14, 12, 10, 8, 8, 6, 4, 3],
    ],
    [
        [
            40, 22, 14, 10, 10, 16, 40, 70, 80, 80, 82, 90, 110, 100, 90, 90, 100, 130, 170, 210, 230, 210,
            150, 85,
        ],
        [
            70, 45, 28, 18, 14, 14, 24, 50, 90, 130, 160, 175, 185, 185, 180, 180, 185, 195, 210, 230, 240,
            215, 160, 105,
        ],
    ],
    [
        [220, 300, 340, 300, 200, 90, 30, 12, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 10, 12, 20, 40, 80, 140],
        [220, 300, 340, 300, 200, 90, 30, 12, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 10, 12, 20, 40, 80, 140],
    ],
    [
        [8, 4, 3, 3, 3, 4, 10, 40, 120, 200, 220, 210, 150, 190, 220, 210, 190, 150, 90, 70, 90, 90, 60, 25],
        [12, 6, 3, 3, 3, 3, 5, 15, 40, 70, 80, 80, 70, 70, 75, 75, 70, 60, 50, 60, 80, 80, 55, 30],
    ],
];

/// A rhythm in a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RhythmClass(u16);

impl RhythmClass {
    const COUNT: usize = SHAPES.len() * COUNTRIES.len() + 1;
    /// The class of keys that never call.
    pub(crate) const SILENT: Self = Self(Self::COUNT as u16 - 1);

    /// Creates a class; `country` is an index into [`COUNTRIES`].
    pub(crate) fn new(rhythm: Rhythm, country: u32) -> Self {
        Self((rhythm as usize * COUNTRIES.len() + country as usize) as u16)
    }
}

/// The local clocks of the [`COUNTRIES`].
pub(crate) struct Clocks(Vec<TimeZone>);

impl Clocks {
    pub(crate) fn new() -> Self {
        let zone =
            |rule: &&str| TimeZone::posix(rule).expect("the table of countries has rules that are valid");
        Self(COUNTRIES.iter().map(|(_, _, rule)| zone(rule)).collect())
    }

    /// Converts UTC to local time, both in milliseconds since 1970-01-01T00:00 of their clock.
    pub(crate) fn local(&self, country: u32, time: u64) -> i64 {
        let time = time.cast_signed();
        time + self.offset_ms(country, time)
    }

    /// Converts local time to UTC. Around a change of the clock it returns one of the possible answers.
    pub(crate) fn utc(&self, country: u32, local: i64) -> u64 {
        let near = local - self.offset_ms(country, local);
        u64::try_from(local - self.offset_ms(country, near)).unwrap_or(0)
    }

    fn offset_ms(&self, country: u32, time: i64) -> i64 {
        let time = Timestamp::from_millisecond(time).expect("event times are before 9999");
        i64::from(self.0[country as usize].to_offset(time).seconds()) * 1_000
    }
}

/// The levels of all classes, by slot.
pub(crate) struct Levels {
    clocks: Clocks,
    shapes: Vec<[[u32; SLOTS_PER_DAY]; 2]>,
}

impl Levels {
    pub(crate) fn new() -> Self {
        Self { clocks: Clocks::new(), shapes: shapes() }
    }

    /// Returns the level of a class at `time`; 1 is the week's mean.
    pub(crate) fn level(&self, class: RhythmClass, time: u64) -> f64 {
        let class = usize::from(class.0);
        f64::from(self.at(class, self.clocks.local((class % COUNTRIES.len()) as u32, time))) / MEAN_LEVEL
    }

    /// Returns the level at a local time of the class; [`MEAN_LEVEL`] is the week's mean.
    fn at(&self, class: usize, local: i64) -> u32 {
        let (day, time) = (local.div_euclid(DAY_MS.cast_signed()), local.rem_euclid(DAY_MS.cast_signed()));
        // The epoch was a Thursday.
        let weekend = (day + 3).rem_euclid(7) >= 5;
        let slot = time.unsigned_abs() / SLOT_MS;
        self.shapes[class / COUNTRIES.len()][usize::from(weekend)][slot as usize]
    }
}

/// A time in which all keys call more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surge {
    /// Milliseconds since the epoch.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) percent: u32,
}

/// The arrival times of usual calls.
pub(crate) struct ArrivalTimes {
    levels: Levels,
    /// The share of each class in all calls.
    shares: Vec<f64>,
    surges: Vec<Surge>,
    end_ms: u64,
    /// The rate at the mean level.
    calls_per_ms: f64,
    slot: RateSlot,
    /// The position of the next call, in expected calls since the slot's start.
    ahead: f64,
}

struct RateSlot {
    from: u64,
    to: u64,
    calls: f64,
    levels: Vec<u32>,
    highest: u32,
}

impl ArrivalTimes {
    /// Creates arrivals from `start_ms` on; `weights` are pairs of a class and the share of its keys in all calls.
    pub(crate) fn new(
        (start_ms, end_ms): (u64, u64),
        calls: f64,
        weights: impl Iterator<Item = (RhythmClass, f64)>,
        surges: Vec<Surge>,
    ) -> Self {
        let mut shares = vec![0.0; RhythmClass::COUNT];
        for (class, weight) in weights {
            shares[usize::from(class.0)] += weight;
        }
        shares[usize::from(RhythmClass::SILENT.0)] = 0.0;
        let total: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= total);
        let slot = RateSlot {
            from: start_ms,
            to: start_ms,
            calls: 0.0,
            levels: vec![0; RhythmClass::COUNT],
            highest: 0,
        };
        let mut arrivals = Self {
            levels: Levels::new(),
            shares,
            surges: Vec::new(),
            end_ms,
            calls_per_ms: 1.0,
            slot,
            ahead: 0.0,
        };
        // A first pass over the run finds the rate at which it has `calls` calls.
        let mut expected = 0.0;
        while arrivals.advance() {
            expected += arrivals.slot.calls;
        }
        (arrivals.slot.from, arrivals.slot.to, arrivals.slot.calls) = (start_ms, start_ms, 0.0);
        arrivals.calls_per_ms = calls / expected;
        arrivals.surges = surges;
        arrivals
    }

    /// Returns the time of the next usual call, or `None` at the end of the run.
    pub(crate) fn next(&mut self, draw: &mut Draw) -> Option<u64> {
        self.ahead -= libm::log(1.0 - draw.unit());
        while self.ahead >= self.slot.calls {
            self.ahead -= self.slot.calls;
            self.slot.calls = 0.0;
            if !self.advance() {
                return None;
            }
        }
        let RateSlot { from, to, calls, .. } = self.slot;
        Some(from + whole(self.ahead / calls * (to - from) as f64).min(to - from - 1))
    }

    /// Decides whether a key of the class, drawn by popularity, calls now. `factor` is how busy it is today, in 1,024ths
    /// and at most 2,048.
    pub(crate) fn accepts(&self, class: RhythmClass, factor: u32, draw: &mut Draw) -> bool {
        let level = u64::from(self.slot.levels[usize::from(class.0)]) * u64::from(factor);
        u64::from(draw.below(self.slot.highest * 2)) * 1_024 < level
    }

    fn advance(&mut self) -> bool {
        let from = self.slot.to;
        if from >= self.end_ms {
            return false;
        }
        // A surge that begins or ends within a slot cuts it.
        let edges = self.surges.iter().flat_map(|surge| [surge.from, surge.to]).filter(|edge| *edge > from);
        let to = edges.min().unwrap_or(u64::MAX).min((from / SLOT_MS + 1) * SLOT_MS).min(self.end_ms);
        let mut offsets = [None; COUNTRIES.len()];
        let (mut highest, mut mean) = (0, 0.0);
        for (class, share) in self.shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let country = class % COUNTRIES.len();
            let local =
                *offsets[country].get_or_insert_with(|| self.levels.clocks.local(country as u32, from));
            let level = self.levels.at(class, local);
            self.slot.levels[class] = level;
            highest = highest.max(level);
            mean += share * f64::from(level);
        }
        let surge = self.surges.iter().filter(|surge| (surge.from..surge.to).contains(&from));
        let percent = surge.map(|surge| surge.percent).max().unwrap_or(100);
        self.slot.calls =
            mean / MEAN_LEVEL * f64::from(percent) / 100.0 * self.calls_per_ms * (to - from) as f64;
        (self.slot.from, self.slot.to, self.slot.highest) = (from, to, highest);
        true
    }
}

/// Interpolates the shapes from hours to slots, and scales them to a week's mean of [`MEAN_LEVEL`].
fn shapes() -> Vec<[[u32; SLOTS_PER_DAY]; 2]> {
    let shape = |[workday, weekend]: &[[u32; 24]; 2]| {
        let week: u32 = 5 * workday.iter().sum::<u32>() + 2 * weekend.iter().sum::<u32>();
        let scale = MEAN_LEVEL * f64::from(7 * 24) / f64::from(week);
        [workday, weekend].map(|hours| {
            std::array::from_fn(|slot| {
                let (hour, part) = (slot / SLOTS_PER_HOUR, (slot % SLOTS_PER_HOUR) as u32);
                let twelve = hours[hour] * (SLOTS_PER_HOUR as u32 - part) + hours[(hour + 1) % 24] * part;
                whole(f64::from(twelve) / SLOTS_PER_HOUR as f64 * scale).max(1) as u32
            })
        })
    };
    SHAPES.iter().map(shape).collect()
}
