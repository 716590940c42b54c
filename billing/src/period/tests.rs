//! Periods: those of special days and zones, against jiff's calendar, and through changes of zone and anchor.

use jiff::civil::Date;
use proptest::prelude::*;

use super::*;
use crate::calendar::tests::{any_zone, calendar, days, ms};

fn anchor(day: u8) -> Anchor {
    Anchor::try_from(day).unwrap()
}

fn period(zone: &str, kind: PeriodKind, at: &str) -> (u64, u64) {
    let period = calendar(zone).period(kind, Anchor::FIRST, ms(at));
    (period.start_ms, period.end_ms)
}

fn setting(valid_from: &str, zone: &str, day: u8) -> PeriodSetting {
    PeriodSetting { valid_from_ms: ms(valid_from), calendar: Arc::new(calendar(zone)), anchor: anchor(day) }
}

#[test]
fn a_month_begins_and_ends_at_local_midnights() {
    let march = |zone| period(zone, PeriodKind::Month, "2026-03-15T12:00:00Z");
    assert_eq!(march("Europe/Berlin"), (ms("2026-02-28T23:00:00Z"), ms("2026-03-31T22:00:00Z")));
    assert_eq!(march("Asia/Kolkata"), (ms("2026-02-28T18:30:00Z"), ms("2026-03-31T18:30:00Z")));
    assert_eq!(march("UTC"), (ms("2026-03-01T00:00:00Z"), ms("2026-04-01T00:00:00Z")));
}

#[test]
fn days_have_23_24_or_25_hours() {
    let hours = |at| {
        let (start, end) = period("Europe/Berlin", PeriodKind::Day, at);
        (end - start) / 3_600_000
    };
    assert_eq!(
        ["2026-03-29T12:00:00Z", "2026-03-30T12:00:00Z", "2026-10-25T12:00:00Z"].map(hours),
        [23, 24, 25]
    );
}

#[test]
fn short_periods_begin_with_local_time_and_with_changes_of_offset() {
    let hour = |zone, at| period(zone, PeriodKind::Hour, at);
    assert_eq!(
        hour("Asia/Kolkata", "2026-01-01T10:29:59Z"),
        (ms("2026-01-01T09:30:00Z"), ms("2026-01-01T10:30:00Z"))
    );
    // Berlin shows the hour from 2 to 3 twice.
    let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(|at| hour("Europe/Berlin", at));
    assert_eq!(twice[0], (ms("2026-10-25T00:00:00Z"), ms("2026-10-25T01:00:00Z")));
    assert_eq!(twice[0].1, twice[1].0);
    // Lord Howe goes back from 02:00 to 01:30.
    assert_eq!(
        hour("Australia/Lord_Howe", "2026-04-04T15:10:00Z"),
        (ms("2026-04-04T15:00:00Z"), ms("2026-04-04T15:30:00Z"))
    );
    // St. John's went back at 00:01 local time: its first hour of the day is a minute.
    assert_eq!(
        hour("America/St_Johns", "2010-11-07T02:30:30Z"),
        (ms("2010-11-07T02:30:00Z"), ms("2010-11-07T02:31:00Z"))
    );
    let minute = period("Asia/Kathmandu", PeriodKind::Minute, "2026-01-01T10:29:59Z");
    assert_eq!(minute, (ms("2026-01-01T10:29:00Z"), ms("2026-01-01T10:30:00Z")));
    let second = period("UTC", PeriodKind::Second, "2026-01-01T10:29:59.999Z");
    assert_eq!(second, (ms("2026-01-01T10:29:59Z"), ms("2026-01-01T10:30:00Z")));
}

#[test]
fn the_31st_is_the_last_day_of_shorter_months() {
    let billing = |day, at| {
        let period = calendar("UTC").period(PeriodKind::Billing, anchor(day), ms(at));
        (period.start_ms, period.end_ms, period.days)
    };
    assert_eq!(
        billing(31, "2026-02-15T00:00:00Z"),
        (ms("2026-01-31T00:00:00Z"), ms("2026-02-28T00:00:00Z"), 28)
    );
    assert_eq!(
        billing(31, "2026-02-28T00:00:00Z"),
        (ms("2026-02-28T00:00:00Z"), ms("2026-03-31T00:00:00Z"), 31)
    );
    assert_eq!(
        billing(30, "2028-02-29T00:00:00Z"),
        (ms("2028-02-29T00:00:00Z"), ms("2028-03-30T00:00:00Z"), 30)
    );
    assert_eq!(
        billing(15, "2026-01-14T23:59:59Z"),
        (ms("2025-12-15T00:00:00Z"), ms("2026-01-15T00:00:00Z"), 31)
    );
    assert_eq!(
        billing(1, "2026-02-15T00:00:00Z"),
        (ms("2026-02-01T00:00:00Z"), ms("2026-03-01T00:00:00Z"), 28)
    );
    for day in [0, 32, 255] {
        assert_eq!(Anchor::try_from(day), Err(NotAnAnchor));
    }
}

#[test]
fn a_new_anchor_or_zone_takes_effect_at_the_end_of_the_running_period() {
    let first = setting("2025-01-01T00:00:00Z", "UTC", 1);
    let change = setting("2026-03-10T08:00:00Z", "UTC", 15);
    let periods = Periods::new(PeriodKind::Billing, first.clone(), &[change]);
    let at = |at| {
        let period = periods.at(ms(at));
        (period.start_ms, period.end_ms, period.days, period.full_days)
    };
    assert_eq!(at("2026-03-31T23:59:59Z"), (ms("2026-03-01T00:00:00Z"), ms("2026-04-01T00:00:00Z"), 31, 31));
    assert_eq!(at("2026-04-01T00:00:00Z"), (ms("2026-04-01T00:00:00Z"), ms("2026-04-15T00:00:00Z"), 14, 31));
    assert_eq!(at("2026-04-15T00:00:00Z"), (ms("2026-04-15T00:00:00Z"), ms("2026-05-15T00:00:00Z"), 30, 30));

    // West: the last day of March begins once more, for four hours.
    let west = setting("2026-03-10T08:00:00Z", "America/New_York", 1);
    let periods = Periods::new(PeriodKind::Month, first.clone(), &[west]);
    let march = periods.at(ms("2026-04-01T00:00:00Z"));
    assert_eq!((march.start_ms, march.end_ms), (ms("2026-04-01T00:00:00Z"), ms("2026-04-01T04:00:00Z")));
    assert_eq!((march.days, march.full_days), (1, 31));
    assert_eq!(periods.calendar(ms("2026-03-31T23:59:59Z")).name(), "UTC");
    assert_eq!(periods.calendar(ms("2026-04-01T00:00:00Z")).name(), "America/New_York");
    // A change that becomes valid with a period counts for it, and of several within a period the last one.
    let changes = [setting("2026-03-20T00:00:00Z", "UTC", 7), setting("2026-03-01T00:00:00Z", "UTC", 5)];
    let periods = Periods::new(PeriodKind::Billing, first.clone(), &changes);
    let ends = ["2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-25T00:00:00Z"]
        .map(|at| periods.at(ms(at)).end_ms);
    assert_eq!(ends, [ms("2026-03-01T00:00:00Z"), ms("2026-03-05T00:00:00Z"), ms("2026-04-05T00:00:00Z")]);
    let changes = [setting("2026-03-02T00:00:00Z", "UTC", 5), setting("2026-03-03T00:00:00Z", "UTC", 9)];
    let periods = Periods::new(PeriodKind::Billing, first, &changes);
    assert_eq!(periods.at(ms("2026-04-01T00:00:00Z")).end_ms, ms("2026-04-09T00:00:00Z"));
}

#[test]
fn kinds_have_names() {
    for kind in PeriodKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
        assert!(NotAPeriod.to_string().contains(kind.name()));
    }
    assert_eq!("week".parse::<PeriodKind>(), Err(NotAPeriod));
}

fn any_kind() -> impl Strategy<Value = PeriodKind> {
    proptest::sample::select(&PeriodKind::ALL[..])
}

/// Instants whose periods end before the year 10000, from which on instants aren't told apart.
fn any_instant() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..7_300_000_000_000, 1 => Just(0), 1 => 7_300_000_000_000_u64..253_399_000_000_000]
}

/// Checks a period and its neighbours.
fn check_tiling(period_at: &dyn Fn(u64) -> Period, at_ms: u64) -> Result<(), TestCaseError> {
    let period = period_at(at_ms);
    prop_assert!(period.start_ms <= at_ms && at_ms < period.end_ms, "{:?} {}", period, at_ms);
    prop_assert!(1 <= period.days && period.days <= period.full_days, "{:?}", period);
    prop_assert_eq!(period_at(period.start_ms), period);
    prop_assert_eq!(period_at(period.end_ms - 1), period);
    prop_assert_eq!(period_at(period.end_ms).start_ms, period.end_ms);
    if let Some(before) = period.start_ms.checked_sub(1) {
        prop_assert_eq!(period_at(before).end_ms, period.start_ms);
    }
    Ok(())
}

proptest! {
    #[test]
    fn periods_tile_time(name in any_zone(), kind in any_kind(), day in 1_u8..32, at_ms in any_instant()) {
        let calendar = calendar(name);
        check_tiling(&|at_ms| calendar.period(kind, anchor(day), at_ms), at_ms)?;
    }

    /// Near the settings' own times, where periods are cut.
    #[test]
    fn periods_tile_time_through_changes(
        first in (any_zone(), 1_u8..32), kind in any_kind(),
        changes in proptest::collection::vec((any_zone(), 1_u8..32, 0_u64..12_000_000_000), 0..5),
        away_ms in 0_u64..12_000_000_000,
    ) {
        let start = ms("2025-11-15T00:00:00Z");
        let setting = |(name, day): (&str, u8), valid_from_ms| PeriodSetting {
            valid_from_ms, calendar: Arc::new(calendar(name)), anchor: anchor(day),
        };
        let changes: Vec<_> =
            changes.into_iter().map(|(name, day, after)| setting((name, day), start + after)).collect();
        let periods = Periods::new(kind, setting(first, u64::MAX), &changes);
        check_tiling(&|at_ms| periods.at(at_ms), start + away_ms)?;
        for change in &changes {
            check_tiling(&|at_ms| periods.at(at_ms), change.valid_from_ms)?;
            // The setting that is valid at a period's start decides its end.
            let next = periods.at(periods.at(change.valid_from_ms).end_ms);
            let valid = changes.iter().filter(|change| change.valid_from_ms <= next.start_ms);
            let valid = valid.max_by_key(|change| change.valid_from_ms).unwrap();
            let tied = changes.iter().filter(|other| other.valid_from_ms == valid.valid_from_ms).count();
            let end = valid.calendar.period(kind, valid.anchor, next.start_ms).end_ms;
            prop_assert!(tied > 1 || end == next.end_ms);
        }
    }

    /// Periods of every kind end where a setting takes effect, so days tile months and billing periods.
    #[test]
    fn days_tile_longer_periods_through_changes(
        first in (any_zone(), 1_u8..32), kind in any_kind(),
        changes in proptest::collection::vec((any_zone(), 1_u8..32, 0_u64..12_000_000_000), 0..5),
        away_ms in 0_u64..12_000_000_000,
    ) {
        let start = ms("2025-11-15T00:00:00Z");
        let setting = |(name, day): (&str, u8), valid_from_ms| PeriodSetting {
            valid_from_ms, calendar: Arc::new(calendar(name)), anchor: anchor(day),
        };
        let changes: Vec<_> =
            changes.into_iter().map(|(name, day, after)| setting((name, day), start + after)).collect();
        let periods = Periods::new(PeriodKind::Billing, setting(first, u64::MAX), &changes);
        check_tiling(&|at_ms| periods.of_kind(kind, at_ms), start + away_ms)?;
        for change in &changes {
            check_tiling(&|at_ms| periods.of_kind(kind, at_ms), change.valid_from_ms)?;
        }
        for kind in [PeriodKind::Day, PeriodKind::Month, PeriodKind::Billing] {
            let long = periods.of_kind(kind, start + away_ms);
            let (first, last) = (long.start_ms, long.end_ms - 1);
            prop_assert_eq!(periods.of_kind(PeriodKind::Day, first).start_ms, first);
            prop_assert_eq!(periods.of_kind(PeriodKind::Day, last).end_ms, long.end_ms);
        }
    }

    /// A billing period begins on the anchor's day, or the month's last, by jiff's dates.
    #[test]
    fn billing_periods_begin_on_the_anchor(day in 1_u8..32, offset in 0_i64..80_000) {
        let at = Date::constant(1970, 1, 1).checked_add(days(offset)).unwrap();
        let in_month = |date: Date| {
            let first = date.first_of_month();
            first.checked_add(days(i64::from(day).min(first.days_in_month().into()) - 1)).unwrap()
        };
        let mut start = in_month(at);
        if at < start {
            start = in_month(at.first_of_month().yesterday().unwrap());
        }
        let end = in_month(start.last_of_month().tomorrow().unwrap());
        let period = calendar("UTC").period(PeriodKind::Billing, anchor(day), offset.unsigned_abs() * 86_400_000);
        let ms = |date: Date| i64::from((date - Date::constant(1970, 1, 1)).get_days()).max(0).unsigned_abs() * 86_400_000;
        prop_assert_eq!((period.start_ms, period.end_ms), (ms(start), ms(end)));
    }

    #[test]
    fn any_instant_and_setting_has_a_period(
        name in any_zone(), kind in any_kind(), day in 1_u8..32, at_ms in any::<u64>(), valid_from_ms in any::<u64>(),
    ) {
        let setting = PeriodSetting { valid_from_ms, calendar: Arc::new(calendar(name)), anchor: anchor(day) };
        let periods = Periods::new(kind, setting.clone(), &[setting.clone(), setting]);
        let period = periods.at(at_ms);
        prop_assert!(period.start_ms < period.end_ms);
    }

    #[test]
    fn any_text_is_a_kind_or_refused(text in "[a-z]{0,8}|\\PC{0,20}") {
        prop_assert!(text.parse::<PeriodKind>().map_or(true, |kind| kind.name() == text));
    }
}
