//! Periods of quotas and bills, in local time.
//!
//! A period is a second, a minute, an hour, a day or a month of a time zone. Or it is a month that begins on a day of the
//! subscription's ([`Anchor`]). Given an instant, [`Calendar::period`] returns the period that holds it. Periods of a
//! kind tile time: each begins where the one before ends, and none is empty.
//!
//! **Days.** A day begins at the first instant at which the local clock shows its date or a later one
//! ([`Calendar`]). Months and billing periods begin with a day. So the day of a change to summer time has 23 hours. A
//! day without a midnight begins behind the gap.
//!
//! **Shorter periods** begin at full local seconds, minutes and hours, and at each change of the zone's offset. An hour
//! that the clock shows twice is two periods. A change by a part of an hour makes hours shorter, never longer.
//!
//! **Changes.** A new zone or anchor takes effect at the end of the period that runs when it becomes valid
//! ([`Periods`]). If no period of the new setting begins there, the first one is short. It counts its own days, of the
//! days of a full period.
//!
//! **Cost.** A calendar answers by a binary search in at most 600 changes of offset and integer arithmetic, without an
//! allocation. A caller with a million subscriptions keeps the end of each running period, and asks again when it is
//! reached. Subscriptions of a zone share its calendar.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calendar::{Calendar, LATEST_MS, first_of_month, month_of};

/// The kind of a period: the values of a column `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeriodKind {
    Second,
    Minute,
    Hour,
    Day,
    /// A calendar month of the zone.
    Month,
    /// A month from the anchor's day.
    Billing,
}

impl PeriodKind {
    /// Every kind, the shortest first.
    pub const ALL: [Self; 6] =
        [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Month, Self::Billing];

    /// Returns the name in tables and views.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Billing => "billing",
        }
    }
}

/// A text isn't the name of a kind of periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPeriod;

impl fmt::Display for NotAPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be one of second, minute, hour, day, month, billing")
    }
}

impl std::error::Error for NotAPeriod {}

impl FromStr for PeriodKind {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(NotAPeriod)
    }
}

/// The day of the month on which billing periods begin, 1 to 31. In a shorter month it is the last day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Anchor(u8);

/// A number isn't a day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAnchor;

impl fmt::Display for NotAnAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a day of the month, 1 to 31")
    }
}

impl std::error::Error for NotAnAnchor {}

impl Anchor {
    /// The first of the month, with which billing periods are calendar months.
    pub const FIRST: Self = Self(1);

    /// Returns the anchor's day in a month of `days` days.
    fn in_month(self, days: i64) -> i64 {
        i64::from(self.0).min(days)
    }
}

impl TryFrom<u8> for Anchor {
    type Error = NotAnAnchor;

    fn try_from(day: u8) -> Result<Self, NotAnAnchor> {
        if (1..=31).contains(&day) { Ok(Self(day)) } else { Err(NotAnAnchor) }
    }
}

impl From<Anchor> for u8 {
    fn from(anchor: Anchor) -> Self {
        anchor.0
    }
}

/// A span of time for which a quota holds or a bill is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    /// The first instant, in ms since the epoch, UTC.
    pub start_ms: u64,
    /// The first instant after the period, in ms since the epoch, UTC.
    pub end_ms: u64,
    /// The local days that it has. Of periods shorter than a day it is one.
    pub days: u32,
    /// The local days of a full period. It is more than `days` only after a change of zone or anchor.
    pub full_days: u32,
}

impl Calendar {
    /// Returns the period that holds an instant, in ms since the epoch.
    ///
    /// Instants from the year 10000 on are taken for its beginning.
    #[must_use]
    pub fn period(&self, kind: PeriodKind, anchor: Anchor, at_ms: u64) -> Period {
        match kind {
            PeriodKind::Second => self.short(1_000, at_ms),
            PeriodKind::Minute => self.short(60_000, at_ms),
            PeriodKind::Hour => self.short(3_600_000, at_ms),
            PeriodKind::Day => {
                let day = self.day(at_ms);
                self.of_days(day, day + 1)
            }
            PeriodKind::Month => self.billing(Anchor::FIRST, at_ms),
            PeriodKind::Billing => self.billing(anchor, at_ms),
        }
    }

    fn billing(&self, anchor: Anchor, at_ms: u64) -> Period {
        let day = self.day(at_ms);
        let month = month_of(day);
        let start_in = |month: i64| {
            let first = first_of_month(month);
            first + anchor.in_month(first_of_month(month + 1) - first) - 1
        };
        let start = start_in(month);
        if day < start {
            self.of_days(start_in(month - 1), start)
        } else {
            self.of_days(start, start_in(month + 1))
        }
    }

    fn of_days(&self, first: i64, end: i64) -> Period {
        let days = u32::try_from(end - first).unwrap_or_default();
        Period { start_ms: self.day_start_ms(first), end_ms: self.day_start_ms(end), days, full_days: days }
    }

    fn short(&self, width_ms: i64, at_ms: u64) -> Period {
        let (start_ms, end_ms) = self.local_span(width_ms, at_ms);
        Period { start_ms, end_ms, days: 1, full_days: 1 }
    }
}

/// A zone and an anchor, and since when a subscription has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodSetting {
    /// In ms since the epoch. The first setting of a subscription counts since ever.
    pub valid_from_ms: u64,
    pub calendar: Arc<Calendar>,
    pub anchor: Anchor,
}

/// The periods of one kind of a subscription, through changes of its zone and anchor.
///
/// The setting that is valid at a period's start decides its end. So a new setting takes effect when the running
/// period ends, or at once if a period begins just then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Periods {
    kind: PeriodKind,
    /// Settings and when they take effect, in ms, ascending; the first since ever.
    in_effect: Vec<PeriodSetting>,
}

impl Periods {
    /// Returns the periods of a subscription that had `first` since ever, and later other settings in any order.
    ///
    /// Of settings that become valid at the same instant the last one counts.
    #[must_use]
    pub fn new(kind: PeriodKind, first: PeriodSetting, later: &[PeriodSetting]) -> Self {
        let mut later = later.to_vec();
        for setting in &mut later {
            setting.valid_from_ms = setting.valid_from_ms.min(LATEST_MS.unsigned_abs());
        }
        later.sort_by_key(|setting| setting.valid_from_ms);
        let mut periods = Self { kind, in_effect: vec![PeriodSetting { valid_from_ms: 0, ..first }] };
        let mut next = 0;
        while let Some(change) = later.get(next) {
            let running = periods.at(change.valid_from_ms);
            let is_start = running.start_ms == change.valid_from_ms;
            let effect_ms = if is_start { running.start_ms } else { running.end_ms };
            // Of several changes within a period the last one decides the next.
            let valid = later.partition_point(|setting| setting.valid_from_ms <= effect_ms);
            let setting = PeriodSetting { valid_from_ms: effect_ms, ..later[valid - 1].clone() };
            periods.in_effect.push(setting);
            next = valid;
        }
        periods
    }

    /// Returns the period that holds an instant, in ms since the epoch.
    #[must_use]
    pub fn at(&self, at_ms: u64) -> Period {
        self.of_kind(self.kind, at_ms)
    }

    /// Returns the period of another kind that holds an instant, under the same settings. Where a new one takes effect,
    /// a period ends, whatever its kind. So the days of a subscription tile each of its periods.
    #[must_use]
    pub fn of_kind(&self, kind: PeriodKind, at_ms: u64) -> Period {
        let (setting, next_ms) = self.setting(at_ms);
        let calendar = &setting.calendar;
        let full = calendar.period(kind, setting.anchor, at_ms);
        let start_ms = full.start_ms.max(setting.valid_from_ms);
        let end_ms = full.end_ms.min(next_ms.unwrap_or(u64::MAX));
        if (start_ms, end_ms) == (full.start_ms, full.end_ms) {
            return full;
        }
        // The first period after a change begins with the change, and within a day. The last one before it ends there.
        let days = match kind {
            PeriodKind::Second | PeriodKind::Minute | PeriodKind::Hour | PeriodKind::Day => full.days,
            PeriodKind::Month | PeriodKind::Billing => {
                let last = calendar.day(end_ms.saturating_sub(1));
                u32::try_from(last + 1 - calendar.day(start_ms)).unwrap_or_default().min(full.days)
            }
        };
        Period { start_ms, end_ms, days, ..full }
    }

    /// Returns the calendar in effect at an instant, in ms since the epoch.
    #[must_use]
    pub fn calendar(&self, at_ms: u64) -> &Arc<Calendar> {
        &self.setting(at_ms).0.calendar
    }

    /// Returns the setting in effect, and when the next one takes effect.
    fn setting(&self, at_ms: u64) -> (&PeriodSetting, Option<u64>) {
        let at_ms = at_ms.min(LATEST_MS.unsigned_abs());
        let later = self.in_effect.partition_point(|setting| setting.valid_from_ms <= at_ms).max(1);
        // The first counts since ever.
        (&self.in_effect[later - 1], self.in_effect.get(later).map(|next| next.valid_from_ms))
    }
}

#[cfg(test)]
mod tests;
