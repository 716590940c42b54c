//! Times as texts, to milliseconds since the epoch, rounded down: RFC 3339 and common log format.
//!
//! A leap second, `:60`, is the first second of the next minute, as POSIX counts.

/// `2025-11-20T12:44:15.123+01:00`; a space for the `T`, lower case, and an offset without a colon are
/// accepted.
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

/// `20/Nov/2025:12:44:15 +0000`, with or without brackets around it.
pub(crate) fn clf(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]")).unwrap_or(text);
    let (date_time, zone) = text.split_at_checked(20)?;
    let [d0, d1, b'/', m0, m1, m2, b'/', y0, y1, y2, y3, b':', time @ ..] = date_time else {
        return None;
    };
    let month = match &[*m0, *m1, *m2] {
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
    };
    let seconds = seconds(number(&[*y0, *y1, *y2, *y3])?, month, number(&[*d0, *d1])?, time)?;
    let [b' ', sign, h0, h1, m0, m1] = zone else { return None };
    Some((seconds - offset(*sign, &[*h0, *h1], &[*m0, *m1])?) * 1_000)
}

/// Seconds since the epoch of a date and `HH:MM:SS`, as if in UTC.
fn seconds(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    let [h0, h1, b':', m0, m1, b':', s0, s1] = time else { return None };
    let (hour, minute, second) = (number(&[*h0, *h1])?, number(&[*m0, *m1])?, number(&[*s0, *s1])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since the epoch of a Gregorian date (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// 2013).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
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

/// An offset from UTC in seconds.
fn offset(sign: u8, hours: &[u8], minutes: &[u8]) -> Option<i64> {
    let (hours, minutes) = (number(hours)?, number(minutes)?);
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

        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,40}") {
            rfc3339(text.as_bytes());
            clf(text.as_bytes());
        }
    }
}
