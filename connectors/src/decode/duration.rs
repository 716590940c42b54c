//! Latencies as texts may name their unit, which wins over the configured one.
//!
//! | form | examples |
//! |---|---|
//! | a number and a unit | `0.058901s`, `14.25ms`, `0.005 s`, `12us`, `12 µs`, `500ns` |
//! | several, each in a smaller unit than the one before (Go) | `1m2.5s`, `1h0m0.5s`, `1 min 2 s` |
//! | ISO 8601 | `PT0.05S`, `PT1M2.5S`, `P1DT2H` |
//! | hours, minutes, seconds (.NET) | `00:00:00.0589010` |
//!
//! Units are ns, us, ms, s, m, h and their longer names, in any case. Only the last number may have parts of a
//! microsecond. It is rounded to the nearest one, halves up, without an `f64` in between.

use keytide_config::Unit;

use crate::decimal::Decimal;

/// Units from the largest, each with its names in lower case, a factor, and a shift of the decimal point. Together
/// the last two turn a number into microseconds.
const UNITS: [(&[&str], u64, i32); 6] = [
    (&["h", "hr", "hrs", "hour", "hours"], 3_600, 6),
    (&["m", "min", "mins", "minute", "minutes"], 60, 6),
    (&["s", "sec", "secs", "second", "seconds"], 1, 6),
    (&["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"], 1, 3),
    (&["us", "µs", "μs", "usec", "usecs", "micros", "microsecond", "microseconds"], 1, 0),
    (&["ns", "nsec", "nsecs", "nanos", "nanosecond", "nanoseconds"], 1, -3),
];
/// Bytes of the longest text that can be a duration; a number may have many digits.
const MAX_BYTES: usize = 128;

/// The microseconds of a latency: a number in the unit `default`, or a text with a unit of its own. `None` if it is
/// neither, negative, or beyond `u64`.
pub(super) fn duration_us(text: &str, default: Unit) -> Option<u64> {
    match Decimal::parse(text) {
        Some(number) => number.round(shift(default)),
        None => with_unit(text),
    }
}

fn shift(unit: Unit) -> i32 {
    match unit {
        Unit::Seconds => 6,
        Unit::Micros => 0,
        Unit::Nanos => -3,
        Unit::Millis | Unit::Rfc3339 | Unit::Clf => 3,
    }
}

#[cold]
fn with_unit(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.len() > MAX_BYTES {
        return None;
    }
    match text.strip_prefix(['P', 'p']) {
        Some(period) => iso(period),
        None if text.contains(':') => clock(text),
        None => parts(text, 0),
    }
}

/// Parses numbers with units, such as `1m2.5s`. The first unit may be as large as unit `largest`.
fn parts(text: &str, largest: usize) -> Option<u64> {
    let mut sum = 0_u64;
    let (mut rest, mut next) = (text, largest);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (name, tail) = tail.split_at(letters);
        let name = name.to_lowercase();
        let unit =
            UNITS.iter().position(|(names, ..)| names.contains(&&*name)).filter(|unit| *unit >= next)?;
        let (_, factor, shift) = UNITS[unit];
        let number = Decimal::parse(number)?.times(factor)?;
        rest = tail.trim_start();
        next = unit + 1;
        if rest.is_empty() {
            return sum.checked_add(number.round(shift)?);
        }
        sum = sum.checked_add(number.integer()?.checked_mul(10_u64.pow(u32::try_from(shift).ok()?))?)?;
    }
}

/// Parses the rest of an ISO 8601 duration behind its `P`. Years, months and weeks are refused.
fn iso(period: &str) -> Option<u64> {
    let (days, time) = match period.split_once(['T', 't']) {
        Some((days, time)) if !time.is_empty() => (days, Some(time)),
        Some(_) => return None,
        None => (period, None),
    };
    let days = match (days.strip_suffix(['D', 'd']), time) {
        (Some(days), Some(_)) => Decimal::parse(days)?.integer()?.checked_mul(DAY_US)?,
        (Some(days), None) => return Decimal::parse(days)?.times(DAY_S)?.round(6),
        (None, Some(_)) if days.is_empty() => 0,
        _ => return None,
    };
    // ISO's comma is as good as its point.
    let time = time.unwrap_or_default().replace(',', ".");
    let is_short = |c: char| c.is_ascii_digit() || matches!(c.to_ascii_uppercase(), '.' | 'H' | 'M' | 'S');
    time.chars().all(is_short).then(|| parts(&time, 0))??.checked_add(days)
}

const DAY_S: u64 = 86_400;
const DAY_US: u64 = DAY_S * 1_000_000;

/// Parses the form `[days.]hours:minutes:seconds[.fraction]`.
fn clock(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let whole = |text: &str, below: u64| {
        let plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| plain && *number < below)
    };
    let minutes = whole(days, 1_000_000)? * 1_440 + whole(hours, 24)? * 60 + whole(minutes, 60)?;
    let plain = seconds.starts_with(|digit: char| digit.is_ascii_digit())
        && seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = Decimal::parse(seconds)
        .filter(|seconds| plain && seconds.floor(0).is_some_and(|second| second < 60))?;
    let is_over = parts.next().is_none();
    is_over.then(|| seconds.round(6))??.checked_add(minutes * 60_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_unit_of_the_text_wins() {
        for (text, us) in [
            ("0.058901s", 58_901),
            ("14.25ms", 14_250),
            ("0.005 s", 5_000),
            ("12us", 12),
            ("12 µs", 12),
            ("12μs", 12),
            ("500ns", 1),
            ("499ns", 0),
            ("1m2.5s", 62_500_000),
            ("1h0m0.5s", 3_600_500_000),
            ("1 min 2 s", 62_000_000),
            ("1.5 hours", 5_400_000_000),
            ("1.5m2s", 92_000_000),
            ("44 MS", 44_000),
            ("PT0.05S", 50_000),
            ("PT1M2,5S", 62_500_000),
            ("PT0S", 0),
            ("P1DT2H", 93_600_000_000),
            ("P0.5D", 43_200_000_000),
            ("00:00:00.0589010", 58_901),
            ("1.02:03:04", 93_784_000_000),
            (" 3 ms ", 3_000),
            ("0.00000049999999999999999999999999999999999s", 0),
        ] {
            for unit in [Unit::Seconds, Unit::Millis, Unit::Nanos] {
                assert_eq!(duration_us(text, unit), Some(us), "{text}");
            }
        }
    }

    #[test]
    fn a_number_alone_is_in_the_configured_unit() {
        for (unit, us) in
            [(Unit::Seconds, 1_500_000), (Unit::Millis, 1_500), (Unit::Micros, 2), (Unit::Nanos, 0)]
        {
            assert_eq!(duration_us("1.5", unit), Some(us));
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "-",
            "s",
            "ms",
            "-1ms",
            "-0.5",
            "1 2ms",
            "2s1m",
            "1s1s",
            "0.0001us5ns",
            "12 parsecs",
            "1ms,",
            "P",
            "PT",
            "PT1",
            "P1M",
            "P1Y",
            "P1W",
            "P1DT",
            "00:00",
            "00:60:00",
            "00:00:60",
            "24:00:00",
            "1:2:3:4",
            "1:2:1e1",
            "::",
            "99999999999999999999s",
            "0x1s",
            "1e3",
        ] {
            let expected = if text == "1e3" { Some(1_000_000) } else { None };
            assert_eq!(duration_us(text, Unit::Millis), expected, "{text}");
        }
        assert_eq!(duration_us(&format!("{}s", "1".repeat(MAX_BYTES)), Unit::Millis), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,40}", alike in "P?T?[0-9]{0,20}[.:,]?[0-9]{0,20} ?[a-zµ]{0,4}[0-9.]{0,8}[smhDHMS]?") {
            duration_us(&text, Unit::Millis);
            duration_us(&alike, Unit::Seconds);
        }

        /// However it is written, the same time comes out: as Go, as ISO 8601, as .NET and as a number.
        #[test]
        fn every_form_says_the_same(us in 0_u64..86_400_000_000) {
            let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
            let (hours, minutes, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            for text in [
                format!("{seconds}.{rest:06}s"),
                format!("{}.{:03} ms", us / 1_000, us % 1_000),
                format!("{us}µs"),
                format!("{us}000ns"),
                format!("{hours}h{minutes}m{second}.{rest:06}s"),
                format!("PT{hours}H{minutes}M{second}.{rest:06}S"),
                format!("{hours:02}:{minutes:02}:{second:02}.{rest:06}0"),
            ] {
                prop_assert_eq!(duration_us(&text, Unit::Nanos), Some(us), "{}", text);
            }
            prop_assert_eq!(duration_us(&us.to_string(), Unit::Micros), Some(us));
        }
    }
}
