//! Times that a line has in parts, or in a format of its own. A time without a zone is in the source's.

use jiff::civil::Date;
use keytide_config::{TimePart, Zone};

/// What the parts of a time say.
#[derive(Clone, Copy, Default)]
pub(super) struct Clock {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    day_of_year: Option<i16>,
    hour: i8,
    half: Option<bool>,
    minute: i8,
    second: i8,
    nanos: i32,
    /// `None`: the zone's.
    offset_seconds: Option<i64>,
    epoch_seconds: Option<i64>,
}

impl Clock {
    /// Reads `text`, which must be what `parts` say and nothing more.
    pub(super) fn read(&mut self, parts: &[TimePart], text: &str) -> Option<()> {
        let mut rest = text.as_bytes();
        for part in parts {
            match part {
                TimePart::Literal(literal) => {
                    let mut bytes = [0; 4];
                    rest = rest.strip_prefix(literal.encode_utf8(&mut bytes).as_bytes())?;
                }
                TimePart::Year => self.year = Some(digits(&mut rest, 4)?.try_into().ok()?),
                TimePart::YearOfCentury => {
                    let year = digits(&mut rest, 2)?;
                    self.year = Some((if year < 70 { 2000 } else { 1900 } + year).try_into().ok()?);
                }
                TimePart::Month => self.month = Some(digits(&mut rest, 2)?.try_into().ok()?),
                TimePart::MonthName { .. } => self.month = Some(month(&mut rest)?),
                TimePart::Day => self.day = Some(digits(&mut rest, 2)?.try_into().ok()?),
                TimePart::DayOfYear => self.day_of_year = Some(digits(&mut rest, 3)?.try_into().ok()?),
                TimePart::Hour | TimePart::Hour12 => self.hour = digits(&mut rest, 2)?.try_into().ok()?,
                TimePart::Half => {
                    let (half, left) = rest.split_at_checked(2)?;
                    self.half = Some(half.eq_ignore_ascii_case(b"PM"));
                    rest = left;
                }
                TimePart::Minute => self.minute = digits(&mut rest, 2)?.try_into().ok()?,
                TimePart::Second => self.second = digits(&mut rest, 2)?.try_into().ok()?,
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

    /// Reads digits behind the point of the second.
    pub(super) fn read_fraction(&mut self, text: &str) -> Option<()> {
        let mut rest = text.as_bytes();
        self.nanos = fraction(&mut rest)?;
        rest.is_empty().then_some(())
    }

    /// The milliseconds of the second.
    pub(super) fn fraction_ms(&self) -> i64 {
        i64::from(self.nanos / 1_000_000)
    }

    /// The time in milliseconds since the epoch.
    pub(super) fn ms(&self, zone: &Zone) -> Option<i64> {
        let seconds = match (self.epoch_seconds, self.offset_seconds) {
            (Some(seconds), _) => seconds,
            (None, Some(offset)) => self.civil_seconds()? - offset,
            (None, None) => zone.utc_seconds(self.civil_seconds()?)?,
        };
        Some(seconds * 1_000 + self.fraction_ms())
    }

    /// Seconds since the epoch, as if in UTC.
    fn civil_seconds(&self) -> Option<i64> {
        let year = self.year?;
        let date = match self.day_of_year {
            Some(day) => Date::new(year, 1, 1).ok()?.with().day_of_year(day).build().ok()?,
            None => Date::new(year, self.month?, self.day?).ok()?,
        };
        let hour = match self.half {
            Some(after_noon) => self.hour % 12 + if after_noon { 12 } else { 0 },
            None => self.hour,
        };
        // A leap second is the first second of the next minute.
        if !(0..24).contains(&hour) || self.minute > 59 || self.second > 60 {
            return None;
        }
        let midnight = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        let of_day = i64::from(hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second);
        Some(midnight.as_second() + of_day)
    }
}

/// A number of one to `most` digits; one blank may stand for its first.
fn digits(rest: &mut &[u8], most: usize) -> Option<i64> {
    let padded = rest.strip_prefix(b" ").filter(|_| most == 2);
    let most = if padded.is_some() { most - 1 } else { most };
    let text = padded.unwrap_or(rest);
    let length = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..length].iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    *rest = &text[length..];
    (length > 0).then_some(number)
}

fn month(rest: &mut &[u8]) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let length = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (name, left) = rest.split_at(length);
    *rest = left;
    let is = |month: &str| name == month.as_bytes() || name == &month.as_bytes()[..3];
    let at = MONTHS.iter().position(|month| is(month))?;
    i8::try_from(at + 1).ok()
}

/// Nanoseconds of digits behind a point; those beyond nine are cut.
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
    let seconds = hours * 3_600 + minutes * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
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
        let mut clock = Clock::default();
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
