//! Reads numbers of a record, from its values and from texts that are one.

use super::value::{FieldValue, WrongType};
use crate::decimal::Decimal;

/// The content of a numeric field.
pub(super) enum Numeric {
    /// Absent, null, `""` or `-`.
    Unknown,
    Known(Decimal),
}

/// Parses a text of 1 to 18 digits and nothing else, as nearly all whole numbers are.
#[inline]
pub(super) fn short_whole(text: &str) -> Option<u64> {
    if !(1..19).contains(&text.len()) {
        return None;
    }
    let digit = |byte: u8| Some(u64::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    text.bytes().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

/// Parses a value that is 1 to 18 digits and nothing else.
#[inline]
pub(super) fn short_whole_of(value: FieldValue<'_>) -> Option<u64> {
    match value {
        FieldValue::Number(text) | FieldValue::Plain(text) => short_whole(text),
        _ => None,
    }
}

/// The value as a number, if it is one or a text that is one.
pub(super) fn numeric(value: FieldValue<'_>, buffer: &mut String) -> Result<Numeric, WrongType> {
    match value.text(buffer)? {
        None => Ok(Numeric::Unknown),
        Some(text) => Decimal::parse(text).map(Numeric::Known).ok_or(WrongType),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way to a whole number is the long one's.
        #[test]
        fn short_wholes_are_those_of_decimals(text in prop_oneof!["[0-9]{0,20}", "[0-9.e+-]{0,5}"]) {
            if let Some(number) = short_whole(&text) {
                prop_assert_eq!(Decimal::parse(&text).unwrap().integer(), Some(number));
                prop_assert_eq!(Decimal::parse(&text).unwrap().floor(0), Some(number));
            } else {
                prop_assert!(!(1..19).contains(&text.len()) || text.contains(['.', 'e', '+', '-']));
            }
        }
    }
}
