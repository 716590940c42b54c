//! Forecasts of use that repeats, that scatters, and of any use at all.

use proptest::prelude::*;

use super::*;
use crate::calendar::tests::{any_zone, calendar, ms};

const DAY_MS: u64 = 86_400_000;

fn outlook<'a>(calendar: &'a Calendar, history: &'a [u64], now: &str, end: &str) -> Outlook<'a> {
    Outlook { calendar, now_ms: ms(now), end_ms: ms(end), used: 0, history, limit: None }
}

fn utc(history: &[u64], now: &str, end: &str) -> Forecast {
    outlook(&Calendar::utc(), history, now, end).forecast().unwrap()
}

#[test]
fn use_that_never_changes_is_expected_to_go_on() {
    let forecast = |days: usize| utc(&vec![1_000; days], "2026-03-11T00:00:00Z", "2026-04-01T00:00:00Z");
    for days in [2, 7, 13, 14, 30, 56, 300] {
        let found = forecast(days);
        assert_eq!((found.low, found.expected, found.high), (21_000, 21_000, 21_000), "{days}");
    }
    // A single day says nothing of scatter.
    let found = forecast(1);
    assert_eq!(found.expected, 21_000);
    assert!(found.low < 5_000 && found.high > 40_000, "{found:?}");
    assert!(
        outlook(&Calendar::utc(), &[], "2026-03-11T00:00:00Z", "2026-04-01T00:00:00Z").forecast().is_none()
    );
}

#[test]
fn days_are_expected_to_be_as_their_weekdays_were() {
    // The last day is a Tuesday, 2026-03-10. Weekends have a tenth.
    let weekday = |day: u64| if day % 7 == 5 || day % 7 == 6 { 100 } else { 1_000 };
    let history: Vec<u64> = (0..56).map(|day| weekday(day + 2)).collect();
    let found = utc(&history, "2026-03-11T00:00:00Z", "2026-03-14T00:00:00Z");
    assert_eq!((found.low, found.expected, found.high), (3_000, 3_000, 3_000));
    let found = utc(&history, "2026-03-11T00:00:00Z", "2026-03-16T00:00:00Z");
    assert_eq!((found.low, found.expected, found.high), (3_200, 3_200, 3_200));
    // Half of today, of which half is over.
    let found = utc(&history, "2026-03-11T12:00:00Z", "2026-03-12T00:00:00Z");
    assert_eq!(found.expected, 500);
}

#[test]
fn weeks_count_half_as_much_two_weeks_later() {
    // Of one weekday, 500 in the week before last, and nothing else in four weeks.
    let mut history = [0; 28];
    history[28 - 14] = 500;
    // 500 x 2^-0.5 / (1 + 2^-0.5 + 2^-1 + 2^-1.5) = 138.07
    let found = utc(&history, "2026-03-11T00:00:00Z", "2026-03-12T00:00:00Z");
    assert_eq!(found.expected, 138);
    for pair in WEIGHTS.windows(3) {
        assert!(pair[0].abs_diff(2 * pair[2]) <= 2);
    }
}

#[test]
fn a_short_history_is_the_mean_of_its_last_week() {
    let mut history = [100; 13];
    history[..6].fill(1_000_000);
    let found = utc(&history, "2026-03-11T00:00:00Z", "2026-03-14T00:00:00Z");
    assert_eq!((found.low, found.expected, found.high), (300, 300, 300));
}

#[test]
fn less_than_one_a_day_adds_up() {
    let mut history = [0; 7];
    history[3] = 1;
    let found = utc(&history, "2026-03-11T00:00:00Z", "2026-03-25T00:00:00Z");
    assert_eq!(found.expected, 2);
    assert_eq!(found.low, 0);
}

/// Two days: s^2 = 2 x 100^2 / 1. The variance of three days is s^2 x (3 + 3^2 / 2), and 1.2816 of its root 496.36.
#[test]
fn the_interval_is_that_of_a_prediction() {
    let found = utc(&[900, 1_100], "2026-03-11T00:00:00Z", "2026-03-14T00:00:00Z");
    assert_eq!((found.low, found.expected, found.high), (2_503, 3_000, 3_497));
}

#[test]
fn the_limit_is_reached_when_the_expected_use_has_come() {
    let calendar = Calendar::utc();
    let runs_out = |used, limit| {
        let period = outlook(&calendar, &[1_000; 20], "2026-03-11T12:00:00Z", "2026-04-01T00:00:00Z");
        Outlook { used, limit: Some(limit), ..period }.forecast().unwrap().runs_out_at_ms
    };
    assert_eq!(runs_out(10_000, 10_250), Some(ms("2026-03-11T18:00:00Z")));
    assert_eq!(runs_out(10_000, 10_500), Some(ms("2026-03-12T00:00:00Z")));
    assert_eq!(runs_out(10_000, 12_000), Some(ms("2026-03-13T12:00:00Z")));
    assert_eq!(runs_out(10_000, 30_500), Some(ms("2026-04-01T00:00:00Z")));
    assert_eq!(runs_out(10_000, 30_501), None);
    assert_eq!(runs_out(10_000, 10_000), Some(ms("2026-03-11T12:00:00Z")));
    assert_eq!(runs_out(10_001, 10_000), Some(ms("2026-03-11T12:00:00Z")));
}

#[test]
fn days_of_23_hours_and_days_that_are_missing_count_as_such() {
    let berlin = calendar("Europe/Berlin");
    // The night of the change: from 00:00 to 24:00 is one whole day.
    let night = outlook(&berlin, &[2_300; 7], "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    assert_eq!(night.forecast().unwrap().expected, 2_300);
    let apia = calendar("Pacific/Apia");
    let missing = outlook(&apia, &[1_000; 7], "2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z");
    assert_eq!(missing.forecast().unwrap().expected, 3_000);
}

#[test]
fn a_period_that_is_over_has_what_it_used() {
    let calendar = Calendar::utc();
    let over = outlook(&calendar, &[7; 20], "2026-04-01T00:00:00Z", "2026-04-01T00:00:00Z");
    let found = Outlook { used: 5, ..over }.forecast().unwrap();
    assert_eq!((found.low, found.expected, found.high), (5, 5, 5));
    let far = |ms| Outlook { end_ms: over.now_ms + 62 * DAY_MS + ms, ..over }.forecast();
    assert_eq!(far(0).map(|found| found.expected), Some(7 * 62));
    assert_eq!(far(1), None);
}

/// On the fifth day of a month that began on a weekend, the linear pace is far off.
#[test]
fn weekdays_are_told_apart_from_a_linear_pace() {
    // 2026-08-01 is a Saturday. A year of weeks with a scatter of a tenth, from a fixed generator.
    let mut state = 1_u64;
    let mut total = |weekday: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let base = if weekday >= 5 { 1_000 } else { 10_000 };
        base * (900 + (state >> 33) % 201) / 1_000
    };
    // The first day is a Saturday, too.
    let days: Vec<u64> = (0..56 + 31).map(|day| total((day + 5) % 7)).collect();
    let month = &days[56..];
    let used: u64 = month[..5].iter().sum();
    let calendar = Calendar::utc();
    let period = outlook(&calendar, &days[..61], "2026-08-06T00:00:00Z", "2026-09-01T00:00:00Z");
    let found = Outlook { used, ..period }.forecast().unwrap();
    let actual: u64 = month.iter().sum();
    let pace = used * 31 / 5;
    assert!(found.expected.abs_diff(actual) * 4 < pace.abs_diff(actual), "{found:?} {pace} {actual}");
    assert!(found.low <= actual && actual <= found.high, "{found:?} {actual}");
}

/// In floats and by the formulas of the header, which the integers must agree with.
fn by_formula(history: &[u64], whole_days: usize) -> (f64, f64) {
    let history: Vec<f64> =
        history[history.len().saturating_sub(56)..].iter().map(|total| *total as f64).collect();
    let count = history.len();
    let weeks = |ahead: usize| {
        (1..)
            .map(move |week| (week, (count + ahead).checked_sub(7 * week)))
            .filter(move |(_, at)| at.is_none_or(|at| at < count))
            .map_while(|(week, at)| Some((week, at?)))
    };
    if count < 14 {
        let week = &history[count.saturating_sub(7)..];
        let mean = week.iter().sum::<f64>() / week.len() as f64;
        let squares: f64 = week.iter().map(|total| (total - mean).powi(2)).sum();
        let variance = if week.len() == 1 { mean * mean } else { squares / (week.len() - 1) as f64 };
        let days = whole_days as f64;
        return (mean * days, (variance * (days + days * days / week.len() as f64)).sqrt());
    }
    let weight = |week: usize| 0.5_f64.powf(week as f64 / 2.0);
    let (mut rest, mut squares, mut errors) = (0.0, 0.0, 0.0);
    for weekday in 0..7 {
        let days = (weekday..whole_days).step_by(7).count() as f64;
        let of_weekday: Vec<_> = weeks(weekday).collect();
        let weights: f64 = of_weekday.iter().map(|(week, _)| weight(*week)).sum();
        let mean = of_weekday.iter().map(|(week, at)| weight(*week) * history[*at]).sum::<f64>() / weights;
        rest += mean * days;
        squares += of_weekday.iter().map(|(_, at)| (history[*at] - mean).powi(2)).sum::<f64>();
        errors += days * days * of_weekday.iter().map(|(week, _)| weight(*week).powi(2)).sum::<f64>()
            / weights.powi(2);
    }
    (rest, (squares / (count - 7) as f64 * (whole_days as f64 + errors)).sqrt())
}

proptest! {
    #[test]
    fn integers_agree_with_the_formulas(
        history in proptest::collection::vec(0_u64..1_000_000, 1..80), whole_days in 0_usize..60,
    ) {
        let start = ms("2026-03-11T00:00:00Z");
        let calendar = Calendar::utc();
        let end_ms = start + whole_days as u64 * DAY_MS;
        let period = Outlook { calendar: &calendar, now_ms: start, end_ms, used: 0, history: &history, limit: None };
        let found = period.forecast().unwrap();
        let (rest, deviation) = by_formula(&history, whole_days);
        let close = |found: u64, expected: f64| (found as f64 - expected.max(0.0)).abs() <= 2.0 + rest * 1e-4 + deviation * 1e-2;
        prop_assert!(close(found.expected, rest), "{:?} {}", found, rest);
        prop_assert!(close(found.high, rest + 1.2816 * deviation), "{:?} {} {}", found, rest, deviation);
        prop_assert!(close(found.low, rest - 1.2816 * deviation), "{:?} {} {}", found, rest, deviation);
    }

    #[test]
    fn any_forecast_is_within_its_bounds(
        zone in any_zone(), history in proptest::collection::vec(any::<u64>(), 1..70), used in any::<u64>(),
        limit in proptest::option::of(any::<u64>()), now_ms in 0_u64..7_000_000_000_000, length_ms in 0..=62 * DAY_MS,
    ) {
        let calendar = calendar(zone);
        let end_ms = now_ms + length_ms;
        let period = Outlook { calendar: &calendar, now_ms, end_ms, used, history: &history, limit };
        let found = period.forecast().unwrap();
        prop_assert!(used <= found.low && found.low <= found.expected && found.expected <= found.high, "{:?}", found);
        if let Some(at_ms) = found.runs_out_at_ms {
            prop_assert!(now_ms <= at_ms && at_ms <= end_ms);
            prop_assert!(at_ms == now_ms || found.high >= limit.unwrap_or_default());
        }
        // Earlier use of the period is only added.
        let unused = Outlook { used: 0, ..period }.forecast().unwrap();
        prop_assert_eq!(found.expected, unused.expected.saturating_add(used));
    }

    #[test]
    fn any_instants_have_a_forecast_or_none(now_ms in any::<u64>(), end_ms in any::<u64>(), used in any::<u64>()) {
        let calendar = calendar("Australia/Lord_Howe");
        for history in [&[][..], &[u64::MAX], &[u64::MAX; 14]] {
            let _ = Outlook { calendar: &calendar, now_ms, end_ms, used, history, limit: Some(u64::MAX) }.forecast();
        }
    }
}
