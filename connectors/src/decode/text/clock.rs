//! Reads times that a line has in parts, or in a format of its own. A time without a zone is in the source's.

use keytide_config::{TimePart, Zone};

use crate::time::{DAY_S, days, month, of_day, signed};

/// The parts of a time that were read so far.
#[derive(Clone, Copy, Default)]
pub(super) struct TimeParts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    half: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i32,
    /// Seconds east of UTC, or `None` for the source's zone.
    offset_seconds: Option<i64>,
    epoch_seconds: Option<i64>,
}

impl TimeParts {
    /// Reads `text`, which must consist of `parts` and nothing more.
    pub(super) fn read(&mut self, parts: &[TimePart], text: &str) -> Option<()> {
        let mut rest = text.as_bytes();
        for part in parts {
            match part {
                TimePart::Literal(literal) => {
                    let mut bytes = [0; 4];
                    rest = rest.strip_prefix(literal.encode_utf8(&mut bytes).as_bytes())?;
                }
                TimePart::Year => self.year = Some(digits(&mut rest, 4)?),
                TimePart::YearOfCentury => {
                    let year = digits(&mut rest, 2)?;
                    self.year = Some(if year < 70 { 2000 } else { 1900 } + year);
                }
                TimePart::Month => self.month = Some(digits(&mut rest, 2)?),
                TimePart::MonthName { .. } => self.month = Some(month_name(&mut rest)?),
                TimePart::Day => self.day = Some(digits(&mut rest, 2)?),
                TimePart::DayOfYear => self.day_of_year = Some(digits(&mut rest, 3)?),
                TimePart::Hour | TimePart::Hour12 => self.hour = digits(&mut rest, 2)?,
                TimePart::Half => {
                    let (half, left) = rest.split_at_checked(2)?;
                    self.half = Some(half.eq_ignore_ascii_case(b"PM"));
                    rest = left;
                }
                TimePart::Minute => self.minute = digits(&mut rest, 2)?,
                TimePart::Second => self.second = digits(&mut rest, 2)?,
                TimePart::Fraction(_) => self.nanos = fraction(&mut rest)?,
                TimePart::Offset { .. } => self.offset_seconds = Some(offset(&mut rest)?),
                TimePart::ZoneName => {
                    let names: [&[u8]; 3] = [b"UTC", b"GMT", b"Z"];
                    rest = names.iter().find_map(|name| rest.strip_prefix(*name))?;
                    self.offset_seconds = Some(0);
                }
                TimePart::Epoch => self.epoch_seconds = Some(digits(&mut rest, 11)?),
                TimePart::Weekday { .. } => {
                    let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
                    rest = &rest[length..];
                }
            }
        }
        rest.is_empty().then_some(())
    }

    /// Reads the digits behind the point of the second.
    pub(super) fn read_fraction(&mut self, text: &str) -> Option<()> {
        let mut rest = text.as_bytes();
        self.nanos = fraction(&mut rest)?;
        rest.is_empty().then_some(())
    }

    /// The milliseconds within the second.
    pub(super) fn fraction_ms(&self) -> i64 {
        i64::from(self.nanos / 1_000_000)
    }

    /// Returns the time in milliseconds since the epoch.
    pub(super) fn ms(&self, zone: &Zone) -> Option<i64> {
        let seconds = match (self.epoch_seconds, self.offset_seconds) {
            (Some(seconds), _) => seconds,
            (None, Some(offset)) => self.civil_seconds()? - offset,
            (None, None) => zone.utc_seconds(self.civil_seconds()?)?,
        };
        Some(seconds * 1_000 + self.fraction_ms())
    }

    /// Returns seconds since the epoch, as if the time were in UTC.
    fn civil_seconds(&self) -> Option<i64> {
        let year = self.year?;
        let date = match self.day_of_year {
            Some(day) => {
                let first = days(year, 1, 1)?;
                let date = first + day - 1;
                (first..days(year + 1, 1, 1)?).contains(&date).then_some(date)?
            }
            None => days(year, self.month?, self.day?)?,
        };
        let hour = match self.half {
            Some(after_noon) => self.hour % 12 + if after_noon { 12 } else { 0 },
            None => self.hour,
        };
        Some(date * DAY_S + of_day(hour, self.minute, self.second)?)
    }
}

/// Reads a number of one to `most` digits. One blank may stand for its first digit.
fn digits(rest: &mut &[u8], most: usize) -> Option<i64> {
    let padded = rest.strip_prefix(b" ").filter(|_| most == 2);
    let most = if padded.is_some() { most - 1 } else { most };
    let text = padded.unwrap_or(rest);
    let length = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..length].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    *rest = &text[length..];
    (length > 0).then_some(number)
}

/// Reads a month's English name, in full or its first three letters.
fn month_name(rest: &mut &[u8]) -> Option<i64> {
    const ENDS: [&[u8]; 12] =
        [b"uary", b"ruary", b"ch", b"il", b"", b"e", b"y", b"ust", b"tember", b"ober", b"ember", b"ember"];
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (name, left) = rest.split_at(length);
    *rest = left;
    let (first, end) = name.split_first_chunk()?;
    let month = month(first)?;
    let in_full = ENDS.get(usize::try_from(month - 1).ok()?)?;
    (end.is_empty() || end == *in_full).then_some(month)
}

/// Reads the nanoseconds of digits behind a point. Digits beyond nine are cut.
fn fraction(rest: &mut &[u8]) -> Option<i32> {
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, left) = rest.split_at(length);
    *rest = left;
    let place = |at: usize| digits.get(at).map_or(0, |digit| i32::from(digit - b'0'));
    (length > 0).then(|| (0..9).fold(0, |nanos, at| nanos * 10 + place(at)))
}

fn offset(rest: &mut &[u8]) -> Option<i64> {
    if let Some(left) = rest.strip_prefix(b"Z") {
        *rest = left;
        return Some(0);
    }
    let (sign, digits_) = rest.split_first()?;
    let mut left = digits_;
    let hours = digits(&mut left, 2)?;
    left = left.strip_prefix(b":").unwrap_or(left);
    let minutes = digits(&mut left, 2)?;
    *rest = left;
    signed(*sign, hours, minutes)
}

#[cfg(test)]
mod tests {
    use keytide_config::{LineField, LinePattern, LineTime};
    use proptest::prelude::*;

    use super::*;

    fn ms(format: &str, text: &str) -> Option<i64> {
        let pattern = LinePattern::parse(&format!("%{{{format}}}t")).unwrap();
        let variable = pattern.variables().next().unwrap();
        let Some((LineField::Time(LineTime::Parts(parts)), _)) = &variable.field else { panic!("{format}") };
        let mut clock = TimeParts::default();
        clock.read(parts, text)?;
        clock.ms(&Zone::default())
    }

    #[test]
    fn formats() {
        let expected = Some(1_763_642_655_000);
        for (format, text) in [
            ("%Y-%m-%d %H:%M:%S", "2025-11-20 12:44:15"),
            ("%d/%b/%Y:%T %z", "20/Nov/2025:13:44:15 +0100"),
            ("%d %B %Y %I:%M:%S %p", "20 November 2025 12:44:15 PM"),
            ("%a %b %e %H:%M:%S %Y", "Thu Nov 20 12:44:15 2025"),
            ("%FT%T%:z", "2025-11-20T07:14:15-05:30"),
            ("%y%j %R:%S %Z", "25324 12:44:15 UTC"),
            ("%s", "1763642655"),
        ] {
            assert_eq!(ms(format, text), expected, "{format}");
        }
        assert_eq!(ms("%s.%3f", "1763642655.123"), Some(1_763_642_655_123));
        assert_eq!(ms("%FT%R:%E*S", "2025-11-20T12:44:15.123456"), Some(1_763_642_655_123));
        for (format, text) in [
            ("%F %T", "2025-11-20 12:44:15 "),
            ("%F %T", "2025-11-20 24:44:15"),
            ("%F %T", "2025-02-30 12:44:15"),
            ("%F %T", "2025-11-20T12:44:15"),
            ("%Y-%j %T", "2025-000 12:44:15"),
            ("%Y-%j %T", "2025-366 12:44:15"),
            ("%d %b %Y %T", "20 Novem 2025 12:44:15"),
            ("%F %T %Z", "2025-11-20 12:44:15 CET"),
            ("%F %T %z", "2025-11-20 12:44:15 +2500"),
        ] {
            assert_eq!(ms(format, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_jiff_writes_is_read(seconds in 946_684_800_i64..7_258_118_400, minutes in -1_439_i32..1_440) {
            let zone = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
            let time = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(zone.to_time_zone());
            for format in ["%Y-%m-%d %H:%M:%S %z", "%d/%b/%Y:%T %z", "%A %B %e %I:%M:%S %p %Y %z"] {
                let text = time.strftime(format).to_string();
                prop_assert_eq!(ms(format, &text), Some(seconds * 1_000), "{}", text);
            }
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in "([0-9]{0,5}|.){0,12}") {
            for format in ["%Y-%m-%d %H:%M:%S %z", "%y%j %s %p%H %f", "%B%e%Y%H %Z"] {
                ms(format, &text);
            }
        }
    }
}
