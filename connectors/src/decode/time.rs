//! Reads event times, which are epochs in four units or texts of [`crate::time`]. They become milliseconds since the
//! epoch, rounded down.
//!
//! Times from 2000-01-01 (inclusive) to 2200-01-01 (exclusive), UTC, are accepted. Those that lie too far in the future
//! are judged elsewhere, against the tick.

use keytide_config::{Field, Source, TimePattern, Unit, Zone};
use keytide_dataflow::model::EventTime;

use super::fault::Fault;
use super::number::short_whole;
use super::value::FieldValue;
use crate::decimal::Decimal;
use crate::time::{Dates, by_pattern, by_size, clf, parse, rfc3339};

/// The first time that is accepted, 2000-01-01T00:00:00Z.
const EARLIEST_MS: i64 = 946_684_800_000;
/// The first time that isn't accepted any more, 2200-01-01T00:00:00Z.
const END_MS: i64 = 7_258_118_400_000;

/// Reads the times of one field of a source.
pub(super) struct TimeReader {
    unit: Unit,
    pattern: Option<TimePattern>,
    zone: Zone,
}

impl TimeReader {
    /// Returns a reader of the times of `field`, if it is mapped. `unit` is that of the mapped field, or else of the
    /// format.
    pub(super) fn new(source: &Source, field: Option<&Field>, unit: Unit) -> Self {
        Self {
            unit,
            pattern: field.and_then(|field| field.format.clone()),
            zone: field.and_then(|field| field.zone.as_ref()).unwrap_or(&source.zone).clone(),
        }
    }

    /// Reads a time in `unit`, a unit of the field's place, or else in the source's.
    ///
    /// The form of the unit is tried first, then every form that has only one meaning. So no record is lost because a
    /// gateway writes its times in another form than it used to. A configured pattern allows no other form.
    fn ms(&self, text: &str, unit: Option<Unit>) -> Result<i64, Fault> {
        if let (None, Some(pattern)) = (unit, &self.pattern) {
            let fault = Fault::new("time", "must be of the configured format");
            return by_pattern(text.as_bytes(), pattern, &self.zone).ok_or(fault);
        }
        let unit = unit.unwrap_or(self.unit);
        if let (Unit::Millis, Some(ms)) = (unit, short_whole(text)) {
            return Ok(ms.cast_signed());
        }
        let shift = match unit {
            Unit::Seconds => 3,
            Unit::Millis => 0,
            Unit::Micros => -3,
            Unit::Nanos => -6,
            Unit::Rfc3339 => return self.text(text, rfc3339),
            Unit::Clf => return self.text(text, clf),
        };
        if let Some(number) = Decimal::parse(text) {
            // Below zero or beyond u64 it is still a number, which is out of range.
            return Ok(number.floor(shift).and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MIN));
        }
        parse(text.as_bytes(), &self.zone, Dates::Refused)
            .ok_or(Fault::new("time", "must be a number in the configured unit, or text that is a time"))
    }

    fn text(&self, text: &str, usual: impl Fn(&[u8]) -> Option<i64>) -> Result<i64, Fault> {
        usual(text.as_bytes())
            .or_else(|| parse(text.as_bytes(), &self.zone, Dates::Refused))
            .or_else(|| by_size(Decimal::parse(text)?, false))
            .ok_or(Fault::new("time", "must be a time, such as 2025-11-20T12:44:15.123Z"))
    }
}

/// The event time that `value` states, in `unit` if its place has one of its own.
///
/// # Errors
/// Returns a fault if it is missing, malformed, or out of range.
pub(super) fn event_time(
    value: FieldValue<'_>,
    reader: &TimeReader,
    unit: Option<Unit>,
    buffer: &mut String,
) -> Result<EventTime, Fault> {
    let text = match value.text(buffer) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(Fault::new("time", "missing; every record needs its time")),
        Err(_) => return Err(Fault::new("time", "must be a number or text")),
    };
    let ms = reader.ms(text, unit)?;
    if (EARLIEST_MS..END_MS).contains(&ms) {
        Ok(ms.unsigned_abs())
    } else {
        Err(Fault::new("time", "out of range; allowed are the years 2000 to 2199, in the configured unit"))
    }
}

/// The event time in microseconds since the epoch, as far as a number states them, or `None` if it can't be read.
pub(super) fn event_time_us(
    value: FieldValue<'_>,
    reader: &TimeReader,
    unit: Option<Unit>,
    buffer: &mut String,
) -> Option<u64> {
    let ms = event_time(value, reader, unit, buffer).ok()?;
    let shift = match unit.unwrap_or(reader.unit) {
        Unit::Seconds => 6,
        Unit::Millis => 3,
        Unit::Micros => 0,
        Unit::Nanos => -3,
        Unit::Rfc3339 | Unit::Clf => return Some(ms * 1_000),
    };
    // A text in a numeric unit, or a number whose unit its size decided, has milliseconds.
    let us = Decimal::parse(value.text(buffer).ok()??).and_then(|number| number.floor(shift));
    Some(us.filter(|us| us / 1_000 == ms).unwrap_or(ms * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(value: FieldValue<'_>, unit: Unit) -> Option<u64> {
        read(value, unit, None, Zone::default())
    }

    fn read(value: FieldValue<'_>, unit: Unit, pattern: Option<&str>, zone: Zone) -> Option<u64> {
        let pattern = pattern.map(|pattern| TimePattern::new(pattern).unwrap());
        event_time(value, &TimeReader { unit, pattern, zone }, None, &mut String::new()).ok()
    }

    #[test]
    fn units_are_exact() {
        for (digits, unit) in [
            ("1763642655.123", Unit::Seconds),
            ("1763642655123", Unit::Millis),
            ("1763642655123.999999999999", Unit::Millis),
            ("1.763642655123E12", Unit::Millis),
            ("1763642655123999.9", Unit::Micros),
            ("1763642655123999999", Unit::Nanos),
        ] {
            assert_eq!(time(FieldValue::Number(digits), unit), Some(1_763_642_655_123), "{digits}");
            assert_eq!(time(FieldValue::Plain(digits), unit), Some(1_763_642_655_123), "{digits}");
        }
    }

    #[test]
    fn the_range_is_half_open() {
        for (ms, accepted) in [
            ("946684799999", false),
            ("946684800000", true),
            ("7258118399999", true),
            ("7258118399999.9", true),
            ("7258118400000", false),
            ("-9223372036854775808", false),
            ("99999999999999999999999999999999999999999999", false),
            ("1e999999999999", false),
            ("1e-999999999999", false),
            ("0", false),
            ("-1", false),
            ("NaN", false),
            ("inf", false),
            ("", false),
            ("0x1", false),
            (" 1763642655123", false),
        ] {
            assert_eq!(time(FieldValue::Plain(ms), Unit::Millis).is_some(), accepted, "{ms}");
        }
        for value in
            [FieldValue::Missing, FieldValue::Flag(true), FieldValue::Object, FieldValue::Array("[]")]
        {
            assert_eq!(time(value, Unit::Millis), None);
        }
    }

    #[test]
    fn what_has_one_meaning_is_read_in_any_unit() {
        for unit in [Unit::Seconds, Unit::Millis, Unit::Micros, Unit::Nanos, Unit::Rfc3339, Unit::Clf] {
            for text in
                ["2025/11/20T12:44:15+0000", "20/Nov/2025:12:44:15 +0000", "Thu, 20 Nov 2025 12:44:15 GMT"]
            {
                assert_eq!(time(FieldValue::Plain(text), unit), Some(1_763_642_655_000), "{text}");
            }
        }
        for unit in [Unit::Rfc3339, Unit::Clf] {
            for number in ["1763642655", "1763642655000", "1763642655000000", "1763642655000000000"] {
                assert_eq!(time(FieldValue::Number(number), unit), Some(1_763_642_655_000), "{number}");
            }
            // Days are no times of calls, and what is no epoch has no unit.
            for number in ["20412", "0", "17636426", "99999999999999999999"] {
                assert_eq!(time(FieldValue::Number(number), unit), None, "{number}");
            }
        }
        assert_eq!(time(FieldValue::Plain("2025-11-20"), Unit::Rfc3339), None, "a date is no time of a call");
        // A number is in the unit that the configuration says, and no other.
        assert_eq!(time(FieldValue::Number("1763642655000"), Unit::Seconds), None);
    }

    #[test]
    fn zones_and_patterns() {
        let seoul = || Zone::new("Asia/Seoul").unwrap();
        let noon = Some(1_763_642_655_000);
        for (text, pattern, zone) in [
            ("2025-11-20T21:44:15", None, seoul()),
            ("2025-11-20T12:44:15Z", None, seoul()),
            ("20.11.2025 21:44:15", Some("%d.%m.%Y %H:%M:%S"), seoul()),
            ("20.11.2025 21:44:15", Some("%d.%m.%Y %H:%M:%S%z"), seoul()),
            ("20.11.2025 12:44:15 UTC", Some("%d.%m.%Y %H:%M:%S%z"), seoul()),
            ("20.11.2025 12:44:15+00", Some("%d.%m.%Y %H:%M:%S%z"), seoul()),
            ("20.11.2025 13:44:15+01:00", Some("%d.%m.%Y %H:%M:%S%:z"), Zone::default()),
            ("1763642655.000", Some("%s.%3f"), seoul()),
        ] {
            assert_eq!(read(FieldValue::Plain(text), Unit::Millis, pattern, zone), noon, "{text}");
        }
        for text in ["2025-11-20T12:44:15Z", "20.11.2025 12:44:15 x", "20.11.2025 12:44", "1763642655"] {
            let read =
                read(FieldValue::Plain(text), Unit::Millis, Some("%d.%m.%Y %H:%M:%S"), Zone::default());
            assert_eq!(read, None, "{text}");
        }
    }
}
