//! Event times: epochs in four units and the texts of [`crate::time`], all to milliseconds since the epoch, rounded
//! down.
//!
//! Accepted: from 2000-01-01 (inclusive) to 2200-01-01 (exclusive), UTC. Whether a time lies too far in the
//! future is judged elsewhere, against the tick.

use keytide_config::Unit;
use keytide_dataflow::model::EventTime;

use super::canonical::Fault;
use super::number::Decimal;
use super::raw::Value;
use crate::time::{clf, rfc3339};

/// 2000-01-01T00:00:00Z.
const EARLIEST_MS: i64 = 946_684_800_000;
/// 2200-01-01T00:00:00Z.
const END_MS: i64 = 7_258_118_400_000;

/// The event time that `value` states in `unit`.
///
/// # Errors
/// If it is missing, malformed, or out of range.
pub(super) fn event_time(value: Value<'_>, unit: Unit, buffer: &mut String) -> Result<EventTime, Fault> {
    let text = match value.text(buffer) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(Fault::new("time", "missing; every record needs its time")),
        Err(_) => return Err(Fault::new("time", "must be a number or text")),
    };
    let number = |shift| match Decimal::parse(text) {
        // Beyond u64 or below zero is a number, only out of range.
        Some(number) => Ok(number.floor(shift).and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MIN)),
        None => Err(Fault::new("time", "must be a number, or text that is one, in the configured unit")),
    };
    let ms = match unit {
        Unit::Seconds => number(3)?,
        Unit::Millis => number(0)?,
        Unit::Micros => number(-3)?,
        Unit::Nanos => number(-6)?,
        Unit::Rfc3339 => rfc3339(text.as_bytes())
            .ok_or(Fault::new("time", "must be RFC 3339, such as 2025-11-20T12:44:15.123Z"))?,
        Unit::Clf => clf(text.as_bytes())
            .ok_or(Fault::new("time", "must be common log format, such as 20/Nov/2025:12:44:15 +0000"))?,
    };
    if (EARLIEST_MS..END_MS).contains(&ms) {
        Ok(ms.unsigned_abs())
    } else {
        Err(Fault::new("time", "out of range; allowed are the years 2000 to 2199, in the configured unit"))
    }
}

/// The same in microseconds since the epoch, as far as the value states them; nothing if it can't be read.
pub(super) fn event_time_us(value: Value<'_>, unit: Unit, buffer: &mut String) -> Option<u64> {
    let ms = event_time(value, unit, buffer).ok()?;
    let shift = match unit {
        Unit::Seconds => 6,
        Unit::Millis => 3,
        Unit::Micros => 0,
        Unit::Nanos => -3,
        Unit::Rfc3339 | Unit::Clf => return Some(ms * 1_000),
    };
    Decimal::parse(value.text(buffer).ok()??)?.floor(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(value: Value<'_>, unit: Unit) -> Option<u64> {
        event_time(value, unit, &mut String::new()).ok()
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
            assert_eq!(time(Value::Number(digits), unit), Some(1_763_642_655_123), "{digits}");
            assert_eq!(time(Value::Plain(digits), unit), Some(1_763_642_655_123), "{digits}");
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
            assert_eq!(time(Value::Plain(ms), Unit::Millis).is_some(), accepted, "{ms}");
        }
        for value in [Value::Missing, Value::Flag, Value::Object, Value::Array("[]")] {
            assert_eq!(time(value, Unit::Millis), None);
        }
    }
}
