//! The unit of numeric times, the zone of texts without one, and patterns of other forms.
//!
//! Zones come from the time zone database in the binary, never from the machine's, as the same input must give the same
//! rows everywhere. Local times that a change of the clocks skips or repeats are read by RFC 5545. A repeated time is
//! the first of the two. A skipped one counts by the offset before the change (02:30 becomes 03:30).
//!
//! Limits: names of 64 bytes, patterns of 128.

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::{Offset, TimeZone};

use crate::toml::near::nearest;
use crate::toml::tree::TomlValue;
use crate::toml::value::{Refusal, Scalar, choice, did_you_mean, text};

/// Bytes of a zone's name, at most.
const MAX_ZONE_BYTES: usize = 64;
/// Bytes of a pattern, at most.
const MAX_PATTERN_BYTES: usize = 128;

choice! {
    /// Units of times and latencies.
    pub enum Unit {
        /// Seconds, with or without a fraction.
        Seconds = "s",
        /// Whole milliseconds, or with a fraction.
        Millis = "ms",
        /// Whole microseconds, or with a fraction.
        Micros = "us",
        /// Whole nanoseconds, or with a fraction.
        Nanos = "ns",
        /// RFC 3339 text, or another unambiguous form of text (times only).
        Rfc3339 = "rfc3339",
        /// The same, after common log format such as `20/Nov/2025:12:44:15 +0000` (times only).
        Clf = "clf",
    }
}

/// The zone of times without one, which is UTC by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// In seconds, positive to the east of UTC.
    Offset(i32),
    Named(TimeZone),
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), rule: Rule::Offset(0) }
    }
}

impl Zone {
    /// Returns the zone of an IANA name (`Asia/Seoul`) or an offset from UTC (`+09:00`).
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if name.len() > MAX_ZONE_BYTES {
            return None;
        }
        if matches!(name, "UTC" | "GMT" | "Z") {
            return Some(Self::default());
        }
        if name.starts_with(['+', '-']) {
            return offset(name).map(|seconds| Self { name: name.to_owned(), rule: Rule::Offset(seconds) });
        }
        let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown())?;
        Some(Self { name: zone.iana_name().unwrap_or(name).to_owned(), rule: Rule::Named(zone) })
    }

    /// Returns the IANA name, or the offset as it was written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the second since the epoch at which the zone's clocks show `local`, which counts as if it were UTC;
    /// `None` beyond the years -9999 to 9999.
    #[must_use]
    pub fn utc_seconds(&self, local: i64) -> Option<i64> {
        match &self.rule {
            Rule::Offset(seconds) => local.checked_sub(i64::from(*seconds)),
            Rule::Named(zone) => {
                let civil = Offset::UTC.to_datetime(Timestamp::from_second(local).ok()?);
                Some(zone.to_ambiguous_timestamp(civil).compatible().ok()?.as_second())
            }
        }
    }
}

/// Reads `+09:00`, `+0900` or `+09` as seconds.
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "00"),
        4 => digits.split_at_checked(2)?,
        _ => digits.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?,
    };
    let number = |digits: &str, below: i32| -> Option<i32> {
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && *number < below)
    };
    Some(sign * (number(hours, 24)? * 3_600 + number(minutes, 60)? * 60))
}

impl Scalar for Zone {
    fn allowed() -> String {
        "an IANA time zone such as \"Asia/Seoul\", or an offset from UTC such as \"+09:00\"".to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let name = text(value)?;
        Self::new(name).ok_or_else(|| {
            let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let hint = did_you_mean(nearest(name, names.iter().map(String::as_str)));
            Refusal { hint, ..Refusal::default() }
        })
    }
}

/// The form of a time as a strptime pattern, such as `%Y/%m/%d %H:%M:%S%z`.
///
/// It must give at least a date, an hour and a minute, or the second since the epoch (`%s`). At its end, `%z` or
/// `%:z` stands for any zone that a text may end in, or none; elsewhere for `+0900` and `+09:00`. `%f` reads a
/// fraction of 1 to 9 digits, `%.f` an optional fraction with its point. Names of months and weekdays are English.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePattern {
    text: String,
    /// The pattern without the zone at its end.
    body: String,
    ends_in_zone: bool,
}

/// A time that a pattern has read from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Seconds since the epoch, or of a local time as if it were UTC, see `is_utc`.
    pub seconds: i64,
    /// Milliseconds beyond the second, rounded down.
    pub milliseconds: i64,
    /// Whether the text has an offset or an epoch, so that no zone is needed.
    pub is_utc: bool,
    /// Bytes of the text that were read. The zone may follow.
    pub length: usize,
}

impl TimePattern {
    /// Returns a pattern by which a time can be read.
    ///
    /// # Errors
    /// The reason why it can't be used, as a message.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(format!("it must have 1 to {MAX_PATTERN_BYTES} bytes"));
        }
        let body = text.strip_suffix("%z").or_else(|| text.strip_suffix("%:z"));
        // `%%z` is a percent sign and a z.
        let body = body.filter(|body| body.bytes().rev().take_while(|byte| *byte == b'%').count() % 2 == 0);
        let pattern = Self {
            text: text.to_owned(),
            body: body.unwrap_or(text).to_owned(),
            ends_in_zone: body.is_some(),
        };
        pattern.check().map(|()| pattern)
    }

    /// Returns the pattern as it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether the text may have a zone behind the part that [`read`](Self::read) reads.
    #[must_use]
    pub fn ends_in_zone(&self) -> bool {
        self.ends_in_zone
    }

    /// Reads a time at the start of a text.
    #[must_use]
    pub fn read(&self, text: &[u8]) -> Option<Matched> {
        let (time, length) = BrokenDownTime::parse_prefix(&self.body, text).ok()?;
        let nanoseconds = time.subsec_nanosecond().map_or(0, i64::from);
        let (seconds, is_utc) = match (time.timestamp(), time.offset()) {
            // The timestamp of `%s.%f` has no fraction; the fraction is read above.
            (Some(second), _) => (second.as_second(), true),
            (None, Some(offset)) => (offset.to_timestamp(whole_second(&time)?).ok()?.as_second(), true),
            (None, None) => (Offset::UTC.to_timestamp(whole_second(&time)?).ok()?.as_second(), false),
        };
        Some(Matched { seconds, milliseconds: nanoseconds / 1_000_000, is_utc, length })
    }

    /// Checks the pattern: writes a time by it and reads the text again.
    fn check(&self) -> Result<(), String> {
        let sample = Timestamp::from_second(SAMPLE_S).map_err(|error| error.to_string())?;
        let sample = sample.to_zoned(TimeZone::fixed(jiff::tz::offset(5)));
        let written = strtime::format(&self.body, &sample).map_err(|error| error.to_string())?;
        if let Err(error) = BrokenDownTime::parse_prefix(&self.body, &written) {
            return Err(error.to_string());
        }
        let read = self.read(written.as_bytes());
        let expected = |read: Matched| if read.is_utc { SAMPLE_S } else { SAMPLE_S + 5 * 3_600 };
        // A pattern may leave out the seconds.
        let minute = |second: i64| second.div_euclid(60);
        match read {
            Some(read) if minute(read.seconds) == minute(expected(read)) => Ok(()),
            _ => Err("it doesn't give a whole time: date, hour and minute".to_owned()),
        }
    }
}

/// The time 2025-11-30T13:44:35Z, in which all parts have different numbers.
const SAMPLE_S: i64 = 1_764_510_275;

/// Returns date and time of day without a fraction.
fn whole_second(time: &BrokenDownTime) -> Option<jiff::civil::DateTime> {
    let civil = time.to_datetime().ok()?;
    civil.with().subsec_nanosecond(0).build().ok()
}

impl Scalar for TimePattern {
    fn allowed() -> String {
        "a strptime pattern such as \"%Y/%m/%d %H:%M:%S%z\"".to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        Self::new(text(value)?).map_err(|reason| {
            // A zone's name gives no offset, and the zone has a key of its own.
            let zone = "a zone's name can't be read: leave it out and set `zone`";
            let hint = if text(value).is_ok_and(|text| text.contains("%Z") || text.contains("%Q")) {
                zone.to_owned()
            } else {
                reason
            };
            Refusal { hint: Some(hint), ..Refusal::default() }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zones_by_name_and_offset() {
        let noon = 1_763_640_000;
        for (name, hours) in
            [("UTC", 0), ("Asia/Seoul", 9), ("asia/seoul", 9), ("+09:00", 9), ("-0330", -3), ("+14", 14)]
        {
            let zone = Zone::new(name).unwrap();
            let minutes = if name == "-0330" { -30 } else { 0 };
            assert_eq!(zone.utc_seconds(noon), Some(noon - hours * 3_600 - minutes * 60), "{name}");
        }
        assert_eq!(Zone::new("asia/seoul").unwrap().name(), "Asia/Seoul");
        for wrong in [
            "",
            "Asia",
            "Asia/Soul",
            "+9",
            "+24:00",
            "+09:60",
            "+09:0",
            "09:00",
            "++9:00",
            "Etc/Unknown",
            "+1é",
        ] {
            assert_eq!(Zone::new(wrong), None, "{wrong}");
        }
    }

    /// New York's clocks went from 2:00 to 3:00 on 2025-03-09 and from 2:00 back to 1:00 on 2025-11-02.
    #[test]
    fn a_repeated_time_is_the_first_and_a_skipped_one_counts_by_the_offset_before() {
        let zone = Zone::new("America/New_York").unwrap();
        let utc = |local: &str| {
            let local: jiff::civil::DateTime = local.parse().unwrap();
            let local = Offset::UTC.to_timestamp(local).unwrap().as_second();
            Timestamp::from_second(zone.utc_seconds(local).unwrap()).unwrap().to_string()
        };
        assert_eq!(utc("2025-11-02T01:30:00"), "2025-11-02T05:30:00Z");
        assert_eq!(utc("2025-11-02T02:00:00"), "2025-11-02T07:00:00Z");
        assert_eq!(utc("2025-03-09T02:30:00"), "2025-03-09T07:30:00Z");
        assert_eq!(utc("2025-03-09T03:30:00"), "2025-03-09T07:30:00Z");
    }

    #[test]
    fn patterns_that_give_a_time() {
        for (pattern, text, seconds, milliseconds, is_utc) in [
            ("%Y/%m/%d %H:%M:%S%z", "2025/11/20 12:44:15+0000", 1_763_642_655, 0, false),
            ("%d.%m.%Y %H:%M:%S,%f", "20.11.2025 12:44:15,123456", 1_763_642_655, 123, false),
            ("%d/%m/%y %H:%M", "20/11/25 12:44", 1_763_642_640, 0, false),
            ("%b %d, %Y %I:%M:%S %p", "Nov 20, 2025 12:44:15 PM", 1_763_642_655, 0, false),
            ("%FT%T%.f", "2025-11-20T12:44:15.9999", 1_763_642_655, 999, false),
            ("%FT%T%.f", "2025-11-20T12:44:15", 1_763_642_655, 0, false),
            ("%z %F %T", "+0900 2025-11-20 21:44:15", 1_763_642_655, 0, true),
            ("%s.%3f", "1763642655.123", 1_763_642_655, 123, true),
            ("%s", "1763642655", 1_763_642_655, 0, true),
        ] {
            let read = TimePattern::new(pattern).unwrap().read(text.as_bytes());
            let read = read.map(|read| (read.seconds, read.milliseconds, read.is_utc));
            assert_eq!(read, Some((seconds, milliseconds, is_utc)), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_give_none() {
        for pattern in [
            "",
            "%Y-%m-%d",
            "%H:%M:%S",
            "%Y-%m-%d %I:%M:%S",
            "%Y-%m-%d %H:%M:%S %Z",
            "%!",
            "%",
            "%m-%d %H:%M",
            "%c",
            "text",
        ] {
            assert!(TimePattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(TimePattern::new(&"%T ".repeat(100)).is_err());
        assert!(!TimePattern::new("%F %T%%z").unwrap().ends_in_zone());
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(pattern in ".{0,20}", specifiers in "(%[a-zA-Z:.]{1,2}){0,4}", text in ".{0,30}") {
            for pattern in [pattern, specifiers] {
                if let Ok(pattern) = TimePattern::new(&pattern) {
                    let _ = pattern.read(text.as_bytes());
                }
            }
            let _ = Zone::new(&text);
        }
    }
}
