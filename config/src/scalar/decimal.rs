//! Numbers with up to three decimals, held in thousandths.

use crate::toml::tree::Value;
use crate::toml::value::{Refusal, Scalar, refuse};

/// A number that isn't negative, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) u64);

impl Scalar for Decimal {
    fn allowed() -> String {
        "a number with at most three decimals, such as 0.65".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::Integer(integer) => {
                refuse(u64::try_from(*integer).ok().and_then(|number| number.checked_mul(1_000)).map(Self))
            }
            Value::Number(text) => refuse(thousandths(text).map(Self)),
            _ => Err(Refusal::default()),
        }
    }
}

fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 3 || !is_plain(whole) || !is_plain(decimals) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(format!("{decimals:0<3}").parse().ok()?)
}

/// As it is written.
pub(crate) fn decimal_text(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_three_decimals() {
        for (text, number) in [
            ("17", 17_000),
            ("0.65", 650),
            ("0.125", 125),
            ("4.0", 4_000),
            ("0", 0),
            ("18446744073709551.615", u64::MAX),
        ] {
            assert_eq!(thousandths(text), Some(number), "{text}");
        }
        for text in
            ["", ".5", "-1", "1e3", "0.1234", "inf", "NaN", "18446744073709551.616", "18446744073709552"]
        {
            assert_eq!(thousandths(text), None, "{text}");
        }
        assert_eq!([650, 4_000, 125, 0].map(decimal_text), ["0.65", "4", "0.125", "0"]);
    }
}
