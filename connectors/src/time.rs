//! Parses times, as texts and as numbers, to milliseconds since the epoch, rounded down. Events and tables share it.
//!
//! | form | examples |
//! |---|---|
//! | RFC 3339 and relatives | `2025-11-20T12:44:15.123+01:00`, `2025/11/20 12:44:15,123 +0000 UTC`, `2025-11-20 12:44` |
//! | compact | `20251120T124415Z`, `20251120124415` |
//! | common log format | `[20/Nov/2025:12:44:15 +0000]`, `20/Nov/2025:12:44:15.123` |
//! | HTTP, mail | `Thu, 20 Nov 2025 12:44:15 GMT`, `Thursday, 20-Nov-25 12:44:15 GMT`, `20 Nov 2025 12:44:15 +0100` |
//! | asctime, `date` | `Thu Nov 20 12:44:15 2025`, `Thu Nov 20 12:44:15 UTC 2025` |
//! | numbers | seconds, milliseconds, microseconds, nanoseconds since the epoch, with any fraction |
//!
//! A form is read only if it has one meaning. If day and month are both numbers, the year must stand first. An offset
//! is `Z`, `UTC`, `GMT`, `UT`, or `+09`, `+0900`, `+09:00`, with or without space before it. A name or a comment behind
//! an offset is passed over, and so is a weekday. Other names of zones (`CST`) have several meanings and are refused. A
//! time without an offset is in the zone that the caller gives. A year of two digits is from 1970 to 2069.
//!
//! A leap second, `:60`, is the first second of the next minute, as POSIX counts.
//!
//! [`rfc3339`] and [`clf`] are the paths of nearly all records, and take no other form. Numbers are read exactly,
//! without an `f64` in between.

use keytide_config::{TimePattern, Zone};

use crate::decimal::Decimal;

pub(crate) const DAY_S: i64 = 86_400;

/// How a date without a time of day is read: not at all, or as its first moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dates {
    Refused,
    Midnight,
}

/// Parses a time in any of the forms of text.
pub(crate) fn parse(text: &[u8], zone: &Zone, dates: Dates) -> Option<i64> {
    rfc3339(text).or_else(|| clf(text)).or_else(|| general(text, zone, dates))
}

/// Parses a time in the form of a pattern.
pub(crate) fn by_pattern(text: &[u8], pattern: &TimePattern, zone: &Zone) -> Option<i64> {
    let text = text.trim_ascii();
    let read = pattern.read(text)?;
    let rest = text.get(read.length..)?;
    let offset = if pattern.ends_in_zone() { zone_suffix(rest)? } else { ZoneSuffix::None };
    if !pattern.ends_in_zone() && !rest.is_empty() {
        return None;
    }
    let seconds = if read.is_utc { read.seconds } else { offset.utc_seconds(read.seconds, zone)? };
    seconds.checked_mul(1_000)?.checked_add(read.milliseconds)
}

/// Converts a number to a time by its size. It is seconds, milliseconds, microseconds or nanoseconds since the epoch,
/// or also days if `days` is true. Each unit has the years 1990 to 9999, so no number has two meanings.
pub(crate) fn by_size(number: Decimal, days: bool) -> Option<i64> {
    const SECONDS: std::ops::Range<u64> = 631_152_000..253_402_300_800;
    const DAYS: std::ops::Range<u64> = 7_305..2_932_897;
    let whole = number.floor(0)?;
    let ms = if SECONDS.contains(&whole) {
        number.floor(3)?
    } else if days && DAYS.contains(&whole) {
        whole * DAY_S.unsigned_abs() * 1_000
    } else {
        [0, -3, -6].into_iter().find_map(|shift| {
            number.floor(shift - 3).filter(|seconds| SECONDS.contains(seconds))?;
            number.floor(shift)
        })?
    };
    i64::try_from(ms).ok()
}

/// Parses `2025-11-20T12:44:15.123+01:00`. A space for the `T`, lower case, and an offset without a colon are accepted.
pub(crate) fn rfc3339(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b't' | b' ', time @ ..] = date_time else {
        return None;
    };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let seconds = seconds(year, number(&[*mo0, *mo1])?, number(&[*d0, *d1])?, time)?;
    let (fraction_ms, zone) = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, zone) = fraction.split_at(digits);
            let mut ms = 0;
            for place in 0..3 {
                ms = ms * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'));
            }
            (if digits == 0 { None } else { Some(ms) }?, zone)
        }
        zone => (0, zone),
    };
    let offset = match zone {
        [b'Z' | b'z'] => 0,
        [sign, h0, h1, b':', m0, m1] | [sign, h0, h1, m0, m1] => offset(*sign, &[*h0, *h1], &[*m0, *m1])?,
        _ => return None,
    };
    Some((seconds - offset) * 1_000 + fraction_ms)
}

/// Parses `20/Nov/2025:12:44:15 +0000`, with or without brackets around it.
pub(crate) fn clf(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]")).unwrap_or(text);
    let (date_time, zone) = text.split_at_checked(20)?;
    let [d0, d1, b'/', m0, m1, m2, b'/', y0, y1, y2, y3, b':', time @ ..] = date_time else {
        return None;
    };
    let month = month(&[*m0, *m1, *m2])?;
    let seconds = seconds(number(&[*y0, *y1, *y2, *y3])?, month, number(&[*d0, *d1])?, time)?;
    let [b' ', sign, h0, h1, m0, m1] = zone else { return None };
    Some((seconds - offset(*sign, &[*h0, *h1], &[*m0, *m1])?) * 1_000)
}

/// The zone behind a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ZoneSuffix {
    None,
    /// The seconds east of UTC.
    Offset(i64),
}

impl ZoneSuffix {
    fn utc_seconds(self, local: i64, zone: &Zone) -> Option<i64> {
        match self {
            Self::None => zone.utc_seconds(local),
            Self::Offset(offset) => Some(local - offset),
        }
    }
}

/// Parses the forms that [`rfc3339`] and [`clf`] don't read.
#[cold]
fn general(text: &[u8], zone: &Zone, dates: Dates) -> Option<i64> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]")).unwrap_or(text);
    let mut scan = Scan(text);
    scan.weekday();
    let (date, clock) = match scan.leading_digits() {
        0 => return month_first(scan, zone),
        14 => (scan.compact_date()?, scan.compact_clock()?),
        8 => {
            let date = scan.compact_date()?;
            match scan.0 {
                [] => return midnight(date, dates, scan.0, zone),
                [b'T' | b't' | b' ', ..] => scan.skip(1),
                _ => return None,
            }
            // `20251120 12:44:15` is as plain as `20251120T124415`.
            let clock =
                if matches!(scan.0, [_, _, b':', ..]) { scan.clock()? } else { scan.compact_clock()? };
            (date, clock)
        }
        4 => {
            let date = scan.year_first()?;
            match scan.0 {
                [] | [b'Z' | b'z' | b'+' | b'-', ..] => return midnight(date, dates, scan.0, zone),
                [b'T' | b't' | b' ', ..] => scan.skip(1),
                _ => return None,
            }
            scan.spaces();
            (date, scan.clock()?)
        }
        1 | 2 => {
            let date = scan.day_first()?;
            match scan.0 {
                [] => return midnight(date, dates, scan.0, zone),
                [b':' | b' ' | b'T', ..] => scan.skip(1),
                [b',', b' ', ..] => scan.skip(2),
                _ => return None,
            }
            scan.spaces();
            (date, scan.clock()?)
        }
        _ => return None,
    };
    at(date, clock, zone_suffix(scan.0)?, zone)
}

/// Parses `Nov 20 12:44:15 2025`, `Nov 20 12:44:15 UTC 2025`, `Nov 20, 2025 12:44:15`, and
/// `Nov 20 2025 12:44:15 GMT+0100`.
fn month_first(mut scan: Scan<'_>, zone: &Zone) -> Option<i64> {
    let month = scan.month()?;
    scan.spaces();
    let day = scan.number(1, 2)?;
    if scan.0.first() == Some(&b',') {
        scan.skip(1);
    }
    scan.spaces();
    if scan.leading_digits() == 4 {
        let date = days(scan.number(4, 4)?, month, day)?;
        if scan.0.first() == Some(&b',') {
            scan.skip(1);
        }
        scan.spaces();
        let clock = scan.clock()?;
        return at(date, clock, zone_suffix(scan.0)?, zone);
    }
    let clock = scan.clock()?;
    // The year stands at the end, perhaps behind a zone.
    let space = scan.0.iter().rposition(|byte| *byte == b' ')?;
    let (between, year) = scan.0.split_at(space);
    let mut year = Scan(&year[1..]);
    let date = days(year.number(4, 4)?, month, day)?;
    year.is_empty().then(|| at(date, clock, zone_suffix(between)?, zone))?
}

/// Returns the first moment of a date, if dates are times.
fn midnight(date: i64, dates: Dates, rest: &[u8], zone: &Zone) -> Option<i64> {
    (dates == Dates::Midnight).then(|| at(date, (0, 0), zone_suffix(rest)?, zone))?
}

/// Combines a day since the epoch, and a clock's seconds and milliseconds, to a time.
fn at(date: i64, (seconds, ms): (i64, i64), zone_suffix: ZoneSuffix, zone: &Zone) -> Option<i64> {
    zone_suffix.utc_seconds(date * DAY_S + seconds, zone)?.checked_mul(1_000)?.checked_add(ms)
}

/// Parses the text behind a clock's time, which is empty or a zone.
fn zone_suffix(text: &[u8]) -> Option<ZoneSuffix> {
    let mut scan = Scan(without_monotonic(text).trim_ascii());
    if scan.is_empty() {
        return Some(ZoneSuffix::None);
    }
    let mut offset = None;
    let letters = scan.0.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    if letters > 0 {
        let (name, rest) = scan.0.split_at(letters);
        if !["Z", "UTC", "GMT", "UT"].iter().any(|utc| name.eq_ignore_ascii_case(utc.as_bytes())) {
            return None;
        }
        (offset, scan.0) = (Some(0), rest);
    }
    if let [b'+' | b'-', ..] = scan.0 {
        offset = Some(scan.offset()?);
    }
    // `+0900 KST`, `GMT+0900 (Korean Standard Time)`, `+09:00[Asia/Seoul]`: the offset is known.
    let names_it = match scan.0.trim_ascii() {
        [] | [b'(', .., b')'] | [b'[', .., b']'] => true,
        name => {
            scan.0.first() == Some(&b' ')
                && name.len() <= 6
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-'))
        }
    };
    names_it.then_some(ZoneSuffix::Offset(offset?))
}

/// Cuts off the reading of the monotonic clock that Go puts behind a time (`m=+0.012345`).
fn without_monotonic(text: &[u8]) -> &[u8] {
    let Some(at) = text.windows(3).position(|window| window == b" m=") else { return text };
    match &text[at + 3..] {
        [b'+' | b'-', digits @ ..] if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') => {
            &text[..at]
        }
        _ => text,
    }
}

/// The rest of a text that is being parsed.
#[derive(Clone, Copy)]
struct Scan<'t>(&'t [u8]);

impl Scan<'_> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    fn spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn leading_digits(self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Takes a number, all of whose digits must be `least` to `most`.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits = self.leading_digits();
        (least..=most).contains(&digits).then(|| self.taken(digits))?
    }

    /// Takes a number of exactly `digits` digits, whatever follows.
    fn taken(&mut self, digits: usize) -> Option<i64> {
        let (taken, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number(taken)
    }

    /// Passes over `Thu, `, `Thursday, ` or `Thu `.
    fn weekday(&mut self) {
        const NAMES: [&str; 7] =
            ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        let letters = self.0.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let (word, rest) = self.0.split_at(letters);
        let is_weekday = NAMES.iter().any(|name| {
            word.eq_ignore_ascii_case(name.as_bytes()) || word.eq_ignore_ascii_case(&name.as_bytes()[..3])
        });
        if is_weekday {
            self.0 = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        }
    }

    /// Takes the first three letters of a month, in any case.
    fn month(&mut self) -> Option<i64> {
        let (name, rest) = self.0.split_at_checked(3)?;
        let name: [u8; 3] = name.try_into().ok()?;
        let [first, second, third] = name;
        let name = [first.to_ascii_uppercase(), second.to_ascii_lowercase(), third.to_ascii_lowercase()];
        self.0 = rest;
        month(&name)
    }

    /// Takes a date such as `20251120`, and returns the day since the epoch.
    fn compact_date(&mut self) -> Option<i64> {
        days(self.taken(4)?, self.taken(2)?, self.taken(2)?)
    }

    /// Takes a date such as `2025-11-20` or `2025/1/5`.
    fn year_first(&mut self) -> Option<i64> {
        let year = self.number(4, 4)?;
        let separator = *self.0.first().filter(|byte| matches!(byte, b'-' | b'/' | b'.'))?;
        self.skip(1);
        let month = self.number(1, 2)?;
        (self.0.first() == Some(&separator)).then(|| self.skip(1))?;
        days(year, month, self.number(1, 2)?)
    }

    /// Takes a date such as `20/Nov/2025`, `20-Nov-25` or `20 Nov 2025`.
    fn day_first(&mut self) -> Option<i64> {
        let day = self.number(1, 2)?;
        let separator = *self.0.first().filter(|byte| matches!(byte, b'-' | b'/' | b' '))?;
        self.skip(1);
        let month = self.month()?;
        (self.0.first() == Some(&separator)).then(|| self.skip(1))?;
        let year = match self.leading_digits() {
            2 => match self.taken(2)? {
                year @ 70.. => 1_900 + year,
                year => 2_000 + year,
            },
            _ => self.number(4, 4)?,
        };
        days(year, month, day)
    }

    /// Takes a time of day such as `12:44:15.123` or `12:44`, and returns seconds of the day, and milliseconds.
    fn clock(&mut self) -> Option<(i64, i64)> {
        let hour = self.number(1, 2)?;
        (self.0.first() == Some(&b':')).then(|| self.skip(1))?;
        let minute = self.number(2, 2)?;
        if self.0.first() != Some(&b':') {
            return Some((of_day(hour, minute, 0)?, 0));
        }
        self.skip(1);
        let second = self.number(2, 2)?;
        Some((of_day(hour, minute, second)?, self.fraction()?))
    }

    /// Takes a time of day such as `124415.123` or `1244`.
    fn compact_clock(&mut self) -> Option<(i64, i64)> {
        let digits = self.leading_digits();
        let (hour, minute) = (self.taken(2)?, self.taken(2)?);
        let second = match digits {
            4 => 0,
            6 => self.taken(2)?,
            _ => return None,
        };
        Some((of_day(hour, minute, second)?, self.fraction()?))
    }

    /// Takes a fraction such as `.123` or `,123`, if there is one, and returns its milliseconds.
    fn fraction(&mut self) -> Option<i64> {
        let [b'.' | b',', rest @ ..] = self.0 else { return Some(0) };
        let mut fraction = Scan(rest);
        let digits = fraction.leading_digits();
        let ms = (0..3).fold(0, |ms, place| {
            ms * 10 + rest.get(place).filter(|_| place < digits).map_or(0, |digit| i64::from(digit - b'0'))
        });
        fraction.skip(digits);
        self.0 = fraction.0;
        (digits > 0).then_some(ms)
    }

    /// Takes an offset such as `+09`, `+9`, `+0900` or `+09:00`.
    fn offset(&mut self) -> Option<i64> {
        let sign = *self.0.first()?;
        self.skip(1);
        let (hours, minutes) = match self.leading_digits() {
            4 => (self.taken(2)?, self.taken(2)?),
            1 | 2 => {
                let hours = self.number(1, 2)?;
                let minutes = if self.0.first() == Some(&b':') {
                    self.skip(1);
                    self.number(2, 2)?
                } else {
                    0
                };
                (hours, minutes)
            }
            _ => return None,
        };
        signed(sign, hours, minutes)
    }
}

/// Returns the seconds since the epoch of a date and `HH:MM:SS`, as if in UTC.
fn seconds(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    let [h0, h1, b':', m0, m1, b':', s0, s1] = time else { return None };
    let (hour, minute, second) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?, number(&[*s0, *s1])?);
    Some(days(year, month, day)? * DAY_S + of_day(hour, minute, second)?)
}

/// Returns the seconds of a day, or `None` if there is no such time.
#[inline]
pub(crate) fn of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour <= 23 && minute <= 59 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
}

/// Returns the month of an English name's first three letters.
#[inline]
pub(crate) fn month(name: &[u8; 3]) -> Option<i64> {
    Some(match name {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    })
}

/// Returns the days since the epoch of a Gregorian date (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// 2013).
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Parses an offset from UTC, in seconds.
fn offset(sign: u8, hours: &[u8], minutes: &[u8]) -> Option<i64> {
    signed(sign, number(hours)?, number(minutes)?)
}

/// Returns an offset from UTC in seconds, from hours and minutes and the sign before them.
pub(crate) fn signed(sign: u8, hours: i64, minutes: i64) -> Option<i64> {
    if hours > 23 || minutes > 59 {
        return None;
    }
    match sign {
        b'+' => Some(hours * 3_600 + minutes * 60),
        b'-' => Some(-(hours * 3_600 + minutes * 60)),
        _ => None,
    }
}

#[inline]
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2000-01-01T00:00:00Z.
    const EARLIEST_MS: i64 = 946_684_800_000;
    /// 2200-01-01T00:00:00Z.
    const END_MS: i64 = 7_258_118_400_000;

    #[test]
    fn texts() {
        let expected = Some(1_763_642_655_000);
        for text in
            ["20/Nov/2025:12:44:15 +0000", "[20/Nov/2025:13:14:15 +0030]", "20/Nov/2025:00:44:15 -1200"]
        {
            assert_eq!(clf(text.as_bytes()), expected, "{text}");
        }
        for text in [
            "2025-11-20T12:44:15Z",
            "2025-11-20t12:44:15.000999z",
            "2025-11-20 12:44:15+00:00",
            "2025-11-20T13:44:15+0100",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(rfc3339(b"2025-11-20T12:44:15.1234567890123456789-00:30"), Some(1_763_644_455_123));
        assert_eq!(rfc3339(b"2016-12-31T23:59:60Z"), rfc3339(b"2017-01-01T00:00:00Z"));
        for bad in [
            "",
            "2025-11-20",
            "2025-11-20T12:44:15",
            "2025-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-00-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-04-31T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:60:00Z",
            "2025-01-01T00:00:61Z",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:00+00:60",
            "+025-01-01T00:00:00Z",
            "2025-01-01T00:00:00ZZ",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00.-00:00",
        ] {
            assert_eq!(rfc3339(bad.as_bytes()), None, "{bad}");
        }
        for bad in [
            "",
            "-",
            "20/nov/2025:12:44:15 +0000",
            "31/Nov/2025:12:44:15 +0000",
            "20/Nov/2025:12:44:15",
            "20/Nov/2025:12:44:15 0000",
            "20/Nov/2025:12:44:15 +000",
            "20/Nov/2025:12:44:15 +0000]",
        ] {
            assert_eq!(clf(bad.as_bytes()), None, "{bad}");
        }
        assert!(rfc3339(b"2024-02-29T00:00:00Z").is_some());
        assert!(rfc3339(b"2000-02-29T00:00:00Z").is_some());
    }

    /// 2025-11-20T12:44:15Z.
    const NOON_MS: i64 = 1_763_642_655_000;

    fn utc(text: &str) -> Option<i64> {
        parse(text.as_bytes(), &Zone::default(), Dates::Refused)
    }

    #[test]
    fn every_form_that_has_one_meaning() {
        for text in [
            "2025-11-20T12:44:15",
            "2025-11-20 12:44:15 Z",
            "2025-11-20 12:44:15+00",
            "2025-11-20 12:44:15 +00",
            "2025-11-20 12:44:15 +0000",
            "2025-11-20 12:44:15 +00:00",
            "2025-11-20 12:44:15 UTC",
            "2025-11-20 12:44:15 GMT",
            "2025-11-20 12:44:15Z",
            "2025-11-20 12:44:15 +0000 UTC",
            "2025-11-20 21:44:15 +0900 KST",
            "2025-11-20 21:44:15 +0900 +09",
            "2025-11-20T21:44:15+09:00[Asia/Seoul]",
            "2025/11/20T12:44:15+0000",
            "2025/11/20 12:44:15",
            "2025.11.20 12:44:15",
            "2025-11-20  12:44:15",
            " 2025-11-20 12:44:15\t",
            "20251120T124415Z",
            "20251120T124415",
            "20251120T134415+0100",
            "20251120124415",
            "20251120124415Z",
            "20251120 12:44:15",
            "20/Nov/2025:12:44:15",
            "[20/Nov/2025:12:44:15]",
            "20/nov/2025:12:44:15 +0000",
            "20/Nov/2025:12:44:15Z",
            "20/Nov/2025 12:44:15",
            "20-Nov-2025 12:44:15",
            "Thu, 20 Nov 2025 12:44:15 GMT",
            "Thu, 20 Nov 2025 13:44:15 +0100 (CET)",
            "20 Nov 2025 12:44:15 UT",
            "Thursday, 20-Nov-25 12:44:15 GMT",
            "Thu Nov 20 12:44:15 2025",
            "Thu Nov 20 12:44:15.000 2025",
            "Thu Nov 20 12:44:15 UTC 2025",
            "Thu Nov 20 2025 21:44:15 GMT+0900 (Korean Standard Time)",
            "Nov 20, 2025 12:44:15",
        ] {
            assert_eq!(utc(text), Some(NOON_MS), "{text}");
        }
        for text in ["2025-11-20 12:44", "2025-11-20T12:44Z", "20251120T1244Z", "2025/11/20 13:44 +01"] {
            assert_eq!(utc(text), Some(NOON_MS - 15_000), "{text}");
        }
        for text in [
            "2025-11-20T12:44:15,123Z",
            "2025-11-20T12:44:15.1239",
            "2025-11-20 12:44:15.123456 UTC",
            "2025-11-20 12:44:15.123456789123456789 +0000 UTC",
            "2025-11-20 21:44:15.123456789 +0900 KST m=+0.000123",
            "20/Nov/2025:12:44:15.123",
            "20251120T124415.123Z",
            "Thu Nov 20 12:44:15.123456 2025",
        ] {
            assert_eq!(utc(text), Some(NOON_MS + 123), "{text}");
        }
        assert_eq!(utc("Sun Nov  6 08:49:37 1994"), Some(784_111_777_000));
        assert_eq!(utc("Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(utc("2016-12-31 23:59:60"), utc("2017-01-01 00:00"));
    }

    #[test]
    fn what_has_no_meaning_or_several() {
        for text in [
            "",
            "-",
            "now",
            "11/20/2025 12:44:15",
            "20/11/2025 12:44:15",
            "20-11-2025 12:44:15",
            "2025-11/20 12:44:15",
            "2025-11-20 12:44:15 CST",
            "2025-11-20 12:44:15 EST",
            "2025-11-20 12:44:15 KST",
            "2025-11-20 12:44:15 +000",
            "2025-11-20 12:44:15 +24",
            "2025-11-20 12:44:15 +00:0",
            "2025-11-20 12:44:15 +00 and more",
            "2025-11-20 12:44:15 0000",
            "2025-11-20 12:44:15 PM",
            "2025-11-20 12:44:15.",
            "2025-11-20 12:44:15..1",
            "2025-11-20 24:00:00",
            "2025-11-20T12",
            "2025-11-20",
            "2025-02-29 12:00",
            "0000-00-00 00:00:00",
            "20251120",
            "202511201244",
            "1763642655",
            "Thu, 20 Nov 12:44:15",
            "Nov 20 12:44:15",
            "Thu Nov 20 12:44:15 25",
            "Thu Nov 20 12:44:15 KST 2025",
            "20/Nov/2025",
            "20251120T1",
            "2025-11-20T12:44:15[Asia/Seoul]",
            "Donnerstag, 20 Nov 2025 12:44:15 GMT",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_alone_where_dates_are_wanted() {
        let date = |text: &str| parse(text.as_bytes(), &Zone::default(), Dates::Midnight);
        for text in ["2025-11-20", "2025/11/20", "20251120", "20-Nov-2025", "20 Nov 2025", "2025-11-20Z"] {
            assert_eq!(date(text), Some(1_763_596_800_000), "{text}");
        }
        assert_eq!(
            parse(b"2025-11-20", &Zone::new("+09:00").unwrap(), Dates::Midnight),
            Some(1_763_564_400_000)
        );
    }

    #[test]
    fn the_zone_holds_for_times_without_one_alone() {
        let zone = Zone::new("Asia/Seoul").unwrap();
        let seoul = |text: &str| parse(text.as_bytes(), &zone, Dates::Refused);
        for text in
            ["2025-11-20 21:44:15", "20/Nov/2025:21:44:15", "Thu Nov 20 21:44:15 2025", "20251120T214415"]
        {
            assert_eq!(seoul(text), Some(NOON_MS), "{text}");
        }
        for text in ["2025-11-20 12:44:15Z", "20/Nov/2025:12:44:15 +0000", "Thu, 20 Nov 2025 12:44:15 GMT"] {
            assert_eq!(seoul(text), Some(NOON_MS), "{text}");
        }
    }

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let sized = |number: &str| by_size(Decimal::parse(number).unwrap(), true);
        for number in
            ["1763642655", "1763642655000", "1763642655000000", "1763642655000000000", "1763642655.0009"]
        {
            assert_eq!(sized(number), Some(NOON_MS), "{number}");
        }
        assert_eq!(sized("20089"), Some(1_735_689_600_000), "2025-01-01 in days");
        assert_eq!(by_size(Decimal::parse("20089").unwrap(), false), None);
        // 1990 and the end of 9999 in every unit; a step beyond there is no time.
        let (first, last) = (631_152_000_000_i64, 253_402_300_799_000);
        for (digits, least, most) in
            [(0, "631152000", "253402300799"), (3, "631152000000", "253402300799000")]
        {
            assert_eq!((sized(least), sized(most)), (Some(first), Some(last)), "{digits}");
        }
        assert_eq!((sized("631152000000000"), sized("253402300799000000")), (Some(first), Some(last)));
        assert_eq!(sized("631152000000000000"), Some(first));
        assert_eq!((sized("7305"), sized("2932896")), (Some(first), Some(253_402_214_400_000)));
        for number in [
            "0",
            "-1",
            "1",
            "7304",
            "2932897",
            "631151999",
            "253402300800",
            "631151999999",
            "253402300800000",
            "631151999999999",
            "253402300800000000",
            "631151999999999999",
            "1e400",
        ] {
            assert_eq!(sized(number), None, "{number}");
        }
    }

    proptest! {
        /// Another library, written independently, reads the same instant.
        #[test]
        fn agrees_with_jiff(ms in EARLIEST_MS..END_MS, offset_minutes in -1_439_i32..1_440) {
            let zone = jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap();
            let civil = zone.to_datetime(jiff::Timestamp::from_millisecond(ms).unwrap());
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
            let text = format!("{civil:.3}{sign}{hours:02}:{minutes:02}");
            prop_assert_eq!(rfc3339(text.as_bytes()), Some(ms), "{}", text);
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
                [usize::try_from(civil.month() - 1).unwrap()];
            let text = format!(
                "{:02}/{month}/{}:{:02}:{:02}:{:02} {sign}{hours:02}{minutes:02}",
                civil.day(), civil.year(), civil.hour(), civil.minute(), civil.second(),
            );
            prop_assert_eq!(clf(text.as_bytes()), Some(ms - ms % 1_000), "{}", text);
        }

        /// What jiff writes in any of the forms is read as the instant that it was.
        #[test]
        fn every_form_of_an_instant_is_read_as_it(ms in EARLIEST_MS..END_MS, offset_minutes in -1_439_i32..1_440, form in 0_usize..24) {
            const FORMS: [&str; 24] = [
                "%FT%T%.3f%:z", "%F %T%.3f %z", "%F %T%.9f%z", "%Y/%m/%d %T%.3f%:z", "%Y/%m/%dT%T%.6f %:z",
                "%Y%m%dT%H%M%S%.3f%z", "%Y%m%d%H%M%S%.3f%z", "%Y%m%d %T%.3f%z", "%d/%b/%Y:%T%.3f %z",
                "[%d/%b/%Y:%T%.3f %z]", "%a, %d %b %Y %T%.3f %z", "%A, %d-%b-%y %T%.3f %z", "%a %b %e %T%.3f %z %Y",
                "%e %b %Y %T%.3f GMT%z", "%b %e, %Y %T%.3f%:z", "%a %b %d %Y %T%.3f GMT%z (somewhere)",
                // Without a zone: in the caller's.
                "%F %T%.3f", "%FT%T%.3f", "%Y/%m/%d %T%.3f", "%d/%b/%Y:%T%.3f", "%a %b %e %T%.3f %Y",
                "%Y%m%dT%H%M%S%.3f", "%a, %d %b %Y %T%.3f", "%d-%b-%Y %T%.3f",
            ];
            let offset = jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap();
            let zoned = jiff::Timestamp::from_millisecond(ms).unwrap().to_zoned(jiff::tz::TimeZone::fixed(offset));
            // Two digits of a year are a century's.
            prop_assume!(!FORMS[form].contains("%y") || zoned.year() < 2069);
            let text = jiff::fmt::strtime::format(FORMS[form], &zoned).unwrap();
            let (sign, minutes) = (if offset_minutes < 0 { '-' } else { '+' }, offset_minutes.abs());
            let zone = Zone::new(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)).unwrap();
            prop_assert_eq!(parse(text.as_bytes(), &zone, Dates::Refused), Some(ms), "{}", text);
            let pattern = TimePattern::new(FORMS[form]).unwrap();
            let read = by_pattern(text.as_bytes(), &pattern, &zone);
            prop_assert_eq!(read, Some(ms), "{} by {}", text, FORMS[form]);
        }

        /// Zones with changes of the clock, as jiff has them.
        #[test]
        fn local_times_are_those_of_the_zone(ms in EARLIEST_MS..END_MS, name in 0_usize..4) {
            let name = ["Europe/Berlin", "America/New_York", "Asia/Seoul", "Australia/Lord_Howe"][name];
            let zoned = jiff::Timestamp::from_millisecond(ms).unwrap().in_tz(name).unwrap();
            let text = jiff::fmt::strtime::format("%F %T%.3f", &zoned).unwrap();
            let read = parse(text.as_bytes(), &Zone::new(name).unwrap(), Dates::Refused);
            // A time that comes twice is the first of the two.
            let expected = zoned.time_zone().to_ambiguous_timestamp(zoned.datetime()).compatible().unwrap();
            prop_assert_eq!(read, Some(expected.as_millisecond()), "{} in {}", text, name);
        }

        #[test]
        fn the_unit_of_an_instant_is_told(ms in EARLIEST_MS..END_MS) {
            for number in [
                format!("{ms}"),
                format!("{}.{:03}", ms / 1_000, ms % 1_000),
                format!("{ms}999"),
                format!("{ms}999999"),
            ] {
                prop_assert_eq!(by_size(Decimal::parse(&number).unwrap(), true), Some(ms), "{}", number);
            }
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,40}", alike in "[A-Za-z]{0,3},? ?[0-9]{1,14}[-/ ][0-9A-Za-z]{0,3}[-/ ][0-9]{0,4}[T :]?[0-9:.,]{0,16} ?[-+A-Z0-9:]{0,8}") {
            for text in [text, alike] {
                rfc3339(text.as_bytes());
                clf(text.as_bytes());
                parse(text.as_bytes(), &Zone::new("Asia/Seoul").unwrap(), Dates::Midnight);
            }
        }
    }
}
