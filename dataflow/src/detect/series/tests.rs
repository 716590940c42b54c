use proptest::prelude::*;

use super::*;
use crate::model::time::MINUTE_MS;

const FIVE_MINUTES_MS: u64 = 5 * MINUTE_MS;
/// Rows of 5 minutes in a day.
const DAY: u64 = 288;
/// 2025-06-02T00:02:17Z, a Monday.
const START_MS: u64 = 1_748_822_537_000;

/// Bits of rows of 5 minutes; those that aren't 0, with their numbers.
fn odd(count: impl Fn(u64) -> f64, rows: u64) -> Vec<(u64, f64)> {
    let mut series = Series::new(FIVE_MINUTES_MS);
    let bits = (0..rows).map(|row| (row, series.score(START_MS + row * FIVE_MINUTES_MS, count(row)).get()));
    bits.filter(|(_, bits)| *bits > 0.0).collect()
}

fn bits(odd: &[(u64, f64)]) -> Vec<f64> {
    odd.iter().map(|(_, bits)| *bits).collect()
}

/// SplitMix64 of seed and row.
fn noise(seed: u64, row: u64) -> u64 {
    let row = row.wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(row);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A day and a week, noise about as large as that of independent calls, and now and then a burst or an outage.
fn count(seed: u64, level: i64, row: u64, time_s: u64) -> i64 {
    let hour = (time_s / 3_600 % 24).cast_signed();
    let mut mean = level * (4 + hour.min(24 - hour)) / 10;
    if (time_s / 86_400 + 3) % 7 >= 5 {
        mean = mean * 2 / 5;
    }
    let hash = noise(seed, row);
    let bytes = [0, 8, 16, 24].map(|shift| (hash >> shift & 255).cast_signed());
    let sway = bytes.iter().sum::<i64>() - 510;
    let value = (mean + (sway * mean.isqrt()).div_euclid(148)).max(0);
    let event = noise(seed, 1_000_000 + row / 40);
    match event.is_multiple_of(10) && row % 40 < (event >> 8) % 8 {
        true => [0, value / 3, value * 3, value * 40][(event >> 16) as usize % 4],
        false => value,
    }
}

/// One of the cases of `expected.csv`.
struct Case {
    name: &'static str,
    step_s: u64,
    rows: u64,
    level: i64,
    divisor: i64,
    has_gaps: bool,
}

const fn case(name: &'static str, step_s: u64, rows: u64, level: i64) -> Case {
    Case { name, step_s, rows, level, divisor: 1, has_gaps: false }
}

const CASES: [Case; 7] = [
    case("five_minutes", 300, 10_080, 120),
    case("few_calls", 300, 8_064, 2),
    case("minutes", 60, 11_520, 40),
    case("hours", 3_600, 4_000, 900),
    case("days", 86_400, 900, 5_000),
    Case { divisor: 7, ..case("sevenths", 420, 6_000, 60) },
    Case { has_gaps: true, ..case("gaps", 300, 8_064, 120) },
];

/// An independent implementation in Python of the same formulas computed `expected.csv`:
/// `python3 benches/detection/series_reference.py > dataflow/src/detect/series/expected.csv`. It has the quarters of
/// bits of each row that isn't 0, and of each case a sum over its counts, which shows that both scored the same.
#[test]
fn bits_are_those_of_an_independent_implementation_to_the_quarter() {
    let mut lines = vec!["case,row,quarters".to_owned()];
    for (seed, case) in (0..).zip(CASES) {
        let mut series = Series::new(case.step_s * 1_000);
        let rows = (0..case.rows).filter(|row| {
            let missing = [1, 13, 60][(row / 500 % 3) as usize];
            !case.has_gaps || row % 500 < 500 - missing
        });
        let mut sum = 0;
        for (number, row) in (0..).zip(rows) {
            let time_s = START_MS / 1_000 + row * case.step_s;
            let count = count(seed, case.level, row, time_s);
            sum += (number + 1) * count;
            let bits = series.score(time_s * 1_000, count as f64 / case.divisor as f64);
            assert_eq!(bits.0 % 250, 0, "{}, row {number}: {bits:?}", case.name);
            if bits > Bits::NONE {
                lines.push(format!("{},{number},{}", case.name, bits.0 / 250));
            }
        }
        lines.push(format!("{},sum,{sum}", case.name));
    }
    let expected: Vec<&str> = include_str!("expected.csv").lines().collect();
    assert!(expected.len() > 150);
    let first = lines.iter().zip(&expected).find(|(line, expected)| line != expected);
    assert!(first.is_none() && lines.len() == expected.len(), "{first:?}");
}

#[test]
fn nothing_and_a_constant_are_never_odd() {
    assert_eq!(odd(|_| 0.0, 40 * DAY), []);
    assert_eq!(odd(|_| 50.0, 40 * DAY), []);
}

#[test]
fn a_constant_that_rises_by_three_tenths_is_odd_at_once() {
    let rise = odd(|row| if row < 15 * DAY { 1_000.0 } else { 1_300.0 }, 20 * DAY);
    assert_eq!(bits(&rise), [14.0, 17.0, 19.25]);
    assert!(rise.iter().all(|(row, _)| (15 * DAY..15 * DAY + 12).contains(row)), "{rise:?}");
}

#[test]
fn a_constant_that_falls_silent_is_a_ladder_that_climbs_to_the_weight_of_drops() {
    let silence = odd(|row| if row < 15 * DAY { 50.0 } else { 0.0 }, 20 * DAY);
    let falling: Vec<f64> = bits(&silence).into_iter().filter(|bits| *bits < 28.0).collect();
    assert_eq!(
        falling,
        [5.5, 7.25, 8.75, 10.25, 11.25, 12.75, 14.0, 15.25, 16.75, 18.75, 20.25, 22.0, 24.75]
    );
    assert!(silence.len() < 30 && silence[0].0 == 15 * DAY, "{silence:?}");
    assert_eq!(silence.last().unwrap().1, 28.0);
}

#[test]
fn one_call_after_ten_silent_days_is_one_row() {
    let once = odd(|row| f64::from(u8::from(row == 10 * DAY)), 20 * DAY);
    assert_eq!(once, [(10 * DAY, 9.25)]);
}

#[test]
fn a_huge_count_reaches_the_cap_and_the_next_one_too() {
    let huge = |row| if [15 * DAY, 20 * DAY].contains(&row) { 1e9 } else { 50.0 };
    let odd = odd(huge, 30 * DAY);
    let gravest: Vec<u64> = odd.iter().filter(|(_, bits)| *bits >= 7.0).map(|(row, _)| *row).collect();
    assert_eq!(gravest, [15 * DAY, 20 * DAY]);
    assert!(odd.iter().all(|(row, bits)| !gravest.contains(row) || *bits == 40.0), "{odd:?}");
}

#[test]
fn a_timetable_is_learned_and_its_doubling_is_odd() {
    let hourly = |calls: f64| move |row: u64| if row.is_multiple_of(12) { calls } else { 0.0 };
    let usual = bits(&odd(hourly(100.0), 30 * DAY));
    assert!(usual.iter().all(|bits| *bits < 6.0), "{usual:?}");
    let doubled = odd(|row| hourly(if row < 25 * DAY { 100.0 } else { 200.0 })(row), 30 * DAY);
    let (row, bits) = doubled.into_iter().find(|(_, bits)| *bits >= 7.0).unwrap();
    assert_eq!((row, bits), (25 * DAY, 13.75));
}

#[test]
fn the_first_day_is_not_judged_and_one_burst_is_one_row() {
    let first = odd(|row| if row == DAY - 1 { 5_000.0 } else { 50.0 }, DAY);
    assert_eq!(first, []);
    let burst = odd(|row| if row == 10 * DAY { 500.0 } else { (50 + row % 7) as f64 }, 11 * DAY);
    assert_eq!(
        burst.iter().filter(|(_, bits)| *bits >= 7.0).map(|(row, _)| *row).collect::<Vec<_>>(),
        [10 * DAY]
    );
}

#[test]
fn missing_rows_are_no_rows_of_nothing() {
    for missing in [1, 12, 13, DAY, 40 * DAY] {
        let is_missing = |row| (10 * DAY..10 * DAY + missing).contains(&row);
        let mut series = Series::new(FIVE_MINUTES_MS);
        for row in (0..(20 + missing) * DAY).filter(|row| !is_missing(*row)).take(20 * DAY as usize) {
            assert_eq!(series.score(START_MS + row * FIVE_MINUTES_MS, 50.0), Bits::NONE, "{missing}: {row}");
        }
        let zeros = odd(|row| if is_missing(row) { 0.0 } else { 50.0 }, 20 * DAY);
        assert!(zeros.iter().any(|(row, _)| is_missing(*row)), "{missing}: {zeros:?}");
    }
}

#[test]
fn sums_start_anew_after_more_than_an_hour_without_rows() {
    let scores = |missing_rows: u64| {
        let mut series = Series::new(FIVE_MINUTES_MS);
        for row in 0..10 * DAY {
            series.score(START_MS + row * FIVE_MINUTES_MS, 50.0);
        }
        let at = START_MS + (10 * DAY + missing_rows) * FIVE_MINUTES_MS;
        series.score(at, 75.0)
    };
    // One row of 75 among twelve of 50 is less than a row of 75 that stands for all twelve.
    assert_eq!(scores(12), scores(0));
    assert!(scores(13) > scores(12), "{:?} {:?}", scores(13), scores(12));
}

#[test]
fn a_late_row_is_no_interruption() {
    let last = |late_ms: u64| {
        let mut series = Series::new(FIVE_MINUTES_MS);
        for row in 0..10 * DAY {
            let late_ms = if row == 10 * DAY - 1 { late_ms } else { 0 };
            series.score(START_MS + row * FIVE_MINUTES_MS - late_ms, 50.0);
        }
        series.score(START_MS + 10 * DAY * FIVE_MINUTES_MS, 75.0)
    };
    assert_eq!(last(10 * HOUR_MS), last(0));
}

#[test]
fn the_recent_mean_learns_outliers_whole_and_its_variance_is_never_none() {
    let mut recent = Recent::default();
    let (row, readings) = Seasonal::new(DAY_MS).step(START_MS, 50.0);
    for number in 0..30 {
        recent.step(SeriesRow { number, ..row }, 0.5, readings[0]);
    }
    assert_eq!((recent.mean, recent.variance), (readings[0].y, 1e-4));

    // An outlier moves the mean whole, the variance by four deviations.
    let outlier = SeasonalReading { y: readings[0].y + 8.0, ..readings[0] };
    recent.step(SeriesRow { number: 30, gain: 0.5, ..row }, 0.5, outlier);
    assert_eq!(recent.mean, readings[0].y + 4.0);
    let square = (4.0 * (0.01 + RECENT_SLACK)) * (4.0 * (0.01 + RECENT_SLACK));
    assert!((recent.variance - (1e-4 + 0.5 * (square - 1e-4))).abs() < 1e-12, "{recent:?}");
}

#[test]
fn counts_that_are_none_are_missing_rows() {
    let mut series = Series::new(FIVE_MINUTES_MS);
    series.score(START_MS, 5.0);
    let before = series.clone();
    for count in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        assert_eq!(series.score(START_MS + DAY_MS, count), Bits::NONE);
        assert_eq!(series, before);
    }
}

#[test]
fn a_state_has_a_fixed_size() {
    let (mut series, mut sizes) = (Series::new(FIVE_MINUTES_MS), Vec::new());
    for row in 0..60 * DAY {
        series.score(START_MS + row * FIVE_MINUTES_MS, (row % 1_000) as f64);
        if row % (20 * DAY) == 20 * DAY - 1 {
            let size = |bytes: postcard::Result<Vec<u8>>| bytes.unwrap().len();
            sizes.push((size(postcard::to_allocvec(&series.seasonal)), size(postcard::to_allocvec(&series))));
        }
    }
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|(seasonal, all)| *seasonal < 2_100 && *all < 4_000), "{sizes:?}");
    assert!(sizes[2].0 - sizes[1].0 < 100, "{sizes:?}");
    let finest = Series::new(0);
    assert_eq!(finest.drops, Drops::new(4 * 3_600));
}

/// A time after the one before, and a count, of which some are none.
fn row() -> impl Strategy<Value = (u64, f64)> {
    let elapsed_ms = prop_oneof![
        6 => Just(HOUR_MS),
        1 => prop::sample::select(vec![0, 1, MINUTE_MS, 7 * HOUR_MS, 40 * DAY_MS, u64::MAX, u64::MAX - HOUR_MS]),
    ];
    let count = prop_oneof![
        6 => (0_u32..200).prop_map(f64::from),
        1 => 0.0..1e9,
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -1.0, -0.0, 5e-324]),
    ];
    (elapsed_ms, count)
}

proptest! {
    #[test]
    fn whatever_is_counted_bits_are_quarters_of_0_to_40_and_a_cut_makes_no_difference(
        step_ms in prop::sample::select(vec![0, 1, MINUTE_MS, HOUR_MS, 7 * HOUR_MS, DAY_MS, u64::MAX]),
        rows in prop::collection::vec(row(), 1..200),
        cut in any::<prop::sample::Index>(),
    ) {
        // An overflow goes back in time.
        let times = rows.iter().scan(START_MS, |time_ms, (elapsed_ms, _)| {
            *time_ms = time_ms.wrapping_add(*elapsed_ms);
            Some(*time_ms)
        });
        let rows: Vec<(u64, f64)> = times.zip(&rows).map(|(time_ms, (_, count))| (time_ms, *count)).collect();
        let mut series = Series::new(step_ms);
        let whole: Vec<Bits> = rows.iter().map(|(time_ms, count)| series.score(*time_ms, *count)).collect();
        for bits in &whole {
            prop_assert!(*bits <= Bits::new(40.0) && bits.0 % 250 == 0, "{bits:?}");
        }

        let (before, after) = rows.split_at(cut.index(rows.len()));
        let mut again = Series::new(step_ms);
        let mut scores: Vec<Bits> = before.iter().map(|(time_ms, count)| again.score(*time_ms, *count)).collect();
        let bytes = postcard::to_allocvec(&again).unwrap();
        let mut restored: Series = postcard::from_bytes(&bytes).unwrap();
        scores.extend(after.iter().map(|(time_ms, count)| restored.score(*time_ms, *count)));
        prop_assert_eq!(scores, whole);
        prop_assert_eq!(&restored, &series);
        // NaN isn't equal to itself: a state that has one isn't equal to itself.
        prop_assert_eq!(series.clone(), series);
    }
}
