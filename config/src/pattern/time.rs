//! Times in patterns: the forms that servers have names for, and strftime formats of Apache httpd and Envoy.
//!
//! [`TimePattern`](crate::time::TimePattern) reads strptime patterns of `[source.fields]` and stays apart. It reads
//! one value by jiff's rules, without limits of width. Here a format is parsed into parts, by the servers' own rules
//! (`%3f`, `%E*S`, `%c`), so that a line can be split by widths.

use crate::time::Unit;

/// The form in which a variable writes the time, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineTime {
    /// Common log format: `17/May/2015:10:05:03 +0000`, with or without brackets.
    Clf,
    Rfc3339,
    /// A number of units since the epoch.
    Epoch(Unit),
    /// The digits behind the second's decimal point.
    Fraction,
    Parts(Vec<TimePart>),
}

/// A part of a strftime format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    Literal(char),
    Year,
    /// Two digits, which are of this century if they are below 70.
    YearOfCentury,
    Month,
    /// The English name of a month, in full or its first three letters.
    MonthName {
        long: bool,
    },
    /// Two digits, or a blank and one.
    Day,
    DayOfYear,
    /// Two digits, 0 to 23.
    Hour,
    /// Two digits, 1 to 12.
    Hour12,
    /// Half of the day, which is `AM` or `PM`.
    Half,
    Minute,
    Second,
    /// The digits behind the second's decimal point: a fixed number, or all digits.
    Fraction(Option<u8>),
    /// An offset such as `+0100`, `+01:00` or `Z`.
    Offset {
        colon: bool,
    },
    /// A zone's name. All but `UTC`, `GMT` and `Z` are refused.
    ZoneName,
    Epoch,
    /// The English name of a weekday, in full or its first three letters. Its value is ignored.
    Weekday {
        long: bool,
    },
}

/// Parses a strftime format into its parts.
pub(super) fn parts(format: &str) -> Result<Vec<TimePart>, String> {
    use TimePart as Part;
    let mut parts = Vec::new();
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            parts.push(Part::Literal(next));
            continue;
        }
        let mut code = rest.next();
        // Padding (`%-d`, `%Ez`, `%Oy`) makes no difference but in `%E*S`, a second with its fraction.
        if code == Some('E') && rest.as_str().starts_with("*S") {
            rest.nth(1);
            parts.extend([Part::Second, Part::Literal('.'), Part::Fraction(None)]);
            continue;
        }
        let mut colon = false;
        while let Some('-' | '_' | 'E' | 'O' | ':') = code {
            colon |= matches!(code, Some('E' | ':'));
            code = rest.next();
        }
        let width = code.and_then(|code| code.to_digit(10)).and_then(|digit| u8::try_from(digit).ok());
        if width.is_some() {
            code = rest.next();
        }
        match code {
            Some('f' | 'N' | 'L') => parts.push(Part::Fraction(width)),
            Some('Y') => parts.push(Part::Year),
            Some('y') => parts.push(Part::YearOfCentury),
            Some('m') => parts.push(Part::Month),
            Some('b' | 'h') => parts.push(Part::MonthName { long: false }),
            Some('B') => parts.push(Part::MonthName { long: true }),
            Some('d' | 'e') => parts.push(Part::Day),
            Some('j') => parts.push(Part::DayOfYear),
            Some('H' | 'k') => parts.push(Part::Hour),
            Some('I' | 'l') => parts.push(Part::Hour12),
            Some('p' | 'P') => parts.push(Part::Half),
            Some('M') => parts.push(Part::Minute),
            Some('S') => parts.push(Part::Second),
            Some('z') => parts.push(Part::Offset { colon }),
            Some('Z') => parts.push(Part::ZoneName),
            Some('s') => parts.push(Part::Epoch),
            Some('a') => parts.push(Part::Weekday { long: false }),
            Some('A') => parts.push(Part::Weekday { long: true }),
            Some('F') => parts.extend(self::parts("%Y-%m-%d")?),
            Some('T' | 'X') => parts.extend(self::parts("%H:%M:%S")?),
            Some('R') => parts.extend(self::parts("%H:%M")?),
            Some('D' | 'x') => parts.extend(self::parts("%m/%d/%y")?),
            Some('c') => parts.extend(self::parts("%a %b %d %H:%M:%S %Y")?),
            Some('t') => parts.push(Part::Literal('\t')),
            Some('n') => parts.push(Part::Literal('\n')),
            Some('%') => parts.push(Part::Literal('%')),
            _ => {
                return Err(format!(
                    "`%{}` is unknown in the format of a time, allowed: Y y m b d e j H I M S p f z Z s a F T R D, \
                     and a number before f",
                    code.map(String::from).unwrap_or_default()
                ));
            }
        }
    }
    Ok(parts)
}

/// Returns how many bytes a format always takes; `None` if the number differs between times.
pub(super) fn width(parts: &[TimePart]) -> Option<usize> {
    let width = |part: &TimePart| match part {
        TimePart::Literal(literal) => Some(literal.len_utf8()),
        TimePart::Year => Some(4),
        TimePart::DayOfYear | TimePart::MonthName { long: false } | TimePart::Weekday { long: false } => {
            Some(3)
        }
        TimePart::Fraction(digits) => digits.map(usize::from),
        TimePart::Epoch => Some(10),
        TimePart::Offset { colon: false } => Some(5),
        TimePart::Offset { colon: true }
        | TimePart::MonthName { long: true }
        | TimePart::Weekday { long: true }
        | TimePart::ZoneName => None,
        TimePart::YearOfCentury
        | TimePart::Month
        | TimePart::Day
        | TimePart::Hour
        | TimePart::Hour12
        | TimePart::Half
        | TimePart::Minute
        | TimePart::Second => Some(2),
    };
    parts.iter().map(width).sum()
}

impl LineTime {
    pub(super) fn has_fraction(&self) -> bool {
        match self {
            Self::Clf => false,
            // NGINX writes whole seconds and Envoy milliseconds, so a fraction is possible.
            Self::Rfc3339 | Self::Epoch(_) | Self::Fraction => true,
            Self::Parts(parts) => parts.iter().any(|part| matches!(part, TimePart::Fraction(_))),
        }
    }

    /// Returns whether it has a date, and whether it has a time of day.
    fn date_and_time(&self) -> (bool, bool) {
        match self {
            Self::Clf | Self::Rfc3339 | Self::Epoch(_) => (true, true),
            Self::Fraction => (false, false),
            Self::Parts(parts) => {
                let has = |wanted: &[TimePart]| parts.iter().any(|part| wanted.contains(part));
                let epoch = has(&[TimePart::Epoch]);
                let day = has(&[TimePart::Year, TimePart::YearOfCentury])
                    && (has(&[TimePart::DayOfYear])
                        || (parts
                            .iter()
                            .any(|part| matches!(part, TimePart::Month | TimePart::MonthName { .. }))
                            && has(&[TimePart::Day])));
                (epoch || day, epoch || has(&[TimePart::Hour, TimePart::Hour12]))
            }
        }
    }

    /// Returns whether it has both a date and a time of day.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.date_and_time() == (true, true)
    }
}

/// Returns whether some times together have a date and a time of day.
pub(super) fn is_complete(times: &[&LineTime]) -> bool {
    times.iter().any(|time| time.is_complete())
        || (times.iter().any(|time| time.date_and_time().0)
            && times.iter().any(|time| time.date_and_time().1))
}
