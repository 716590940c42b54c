//! Decimal numbers, read exactly, without an `f64` between the digits in the message and the integer in the event.
//!
//! Limits: 38 significant digits, of which further ones are cut (towards zero). Exponents saturate at 10^6.

/// A finite decimal number, `mantissa` x 10^`exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

/// Digits that a `u128` holds, whichever they are.
const MAX_DIGITS: u32 = 38;
const MAX_EXPONENT: i32 = 1_000_000;

impl Decimal {
    /// Parses an optional sign, digits with at most one point, and an optional exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(number) = Self::parse_short(text.as_bytes()) {
            return Some(number);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let mut number = Self { negative, mantissa: 0, exponent: 0 };
        let (mut significant, mut any, mut point) = (0, false, false);
        for (at, byte) in unsigned.bytes().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    if significant < MAX_DIGITS {
                        number.mantissa = number.mantissa * 10 + u128::from(byte - b'0');
                        significant += u32::from(number.mantissa != 0);
                        number.exponent -= i32::from(point);
                    } else {
                        number.exponent += i32::from(!point);
                    }
                }
                b'.' if !point => point = true,
                b'e' | b'E' => {
                    number.exponent = number.exponent.saturating_add(parse_exponent(&unsigned[at + 1..])?);
                    break;
                }
                _ => return None,
            }
        }
        any.then_some(number)
    }

    /// The fast path for nearly all numbers: at most 18 digits, which a `u64` holds, and perhaps a point.
    #[inline]
    fn parse_short(text: &[u8]) -> Option<Self> {
        if text.len() > 19 {
            return None;
        }
        // The digits before and behind the point are read apart, so that a digit costs one comparison.
        let digits_from = |mut at: usize, mut mantissa: u64| {
            while let Some(digit) =
                text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
            {
                mantissa = mantissa * 10 + u64::from(digit);
                at += 1;
            }
            (at, mantissa)
        };
        let (point, mut mantissa) = digits_from(0, 0);
        let (mut places, mut digits) = (0, point);
        if text.get(point) == Some(&b'.') {
            let end;
            (end, mantissa) = digits_from(point + 1, mantissa);
            places = end - point - 1;
            digits += places;
            if end < text.len() {
                return None;
            }
        } else if point < text.len() {
            return None;
        }
        let exponent = -i32::try_from(places).ok()?;
        (1..19).contains(&digits).then_some(Self {
            negative: false,
            mantissa: u128::from(mantissa),
            exponent,
        })
    }

    /// Returns whether it is exactly -1, which gateways write for unknown values.
    pub(crate) fn is_minus_one(self) -> bool {
        self.negative && Self { negative: false, ..self }.integer() == Some(1)
    }

    /// Returns `factor` times the number, if its digits have room.
    pub(crate) fn times(self, factor: u64) -> Option<Self> {
        Some(Self { mantissa: self.mantissa.checked_mul(factor.into())?, ..self })
    }

    /// Returns the number x 10^`shift`, rounded down; `None` if it is negative or beyond `u64`.
    pub(crate) fn floor(self, shift: i32) -> Option<u64> {
        self.scaled(shift).map(|(whole, _)| whole)
    }

    /// Returns the number x 10^`shift`, rounded to the nearest integer, halves up; `None` as `floor` returns it.
    pub(crate) fn round(self, shift: i32) -> Option<u64> {
        let (whole, rest) = self.scaled(shift)?;
        whole.checked_add(u64::from(rest == Remainder::HalfOrMore))
    }

    /// Returns the number if it is a whole one that is neither negative nor beyond `u64`.
    pub(crate) fn integer(self) -> Option<u64> {
        self.scaled(0).filter(|(_, rest)| *rest == Remainder::Zero).map(|(whole, _)| whole)
    }

    /// Returns the whole part of the number x 10^`shift`, and the remainder.
    fn scaled(self, shift: i32) -> Option<(u64, Remainder)> {
        if self.mantissa == 0 {
            return Some((0, Remainder::Zero));
        }
        if self.negative {
            return None;
        }
        let exponent = self.exponent.checked_add(shift)?;
        // Nearly all numbers fit into integers of 64 bits, where a division is ten times as fast.
        if let (Ok(mantissa), -18..=0) = (u64::try_from(self.mantissa), exponent) {
            let unit = 10_u64.pow(exponent.unsigned_abs());
            return Some((mantissa / unit, Remainder::of(u128::from(mantissa % unit), u128::from(unit))));
        }
        let power = 10_u128.checked_pow(exponent.unsigned_abs());
        if exponent >= 0 {
            let whole = self.mantissa.checked_mul(power?)?;
            return Some((u64::try_from(whole).ok()?, Remainder::Zero));
        }
        // A unit beyond u128 is more than ten times any mantissa.
        let Some(unit) = power else { return Some((0, Remainder::BelowHalf)) };
        Some((u64::try_from(self.mantissa / unit).ok()?, Remainder::of(self.mantissa % unit, unit)))
    }
}

/// The part that rounding takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remainder {
    Zero,
    BelowHalf,
    HalfOrMore,
}

impl Remainder {
    fn of(rest: u128, unit: u128) -> Self {
        match rest {
            0 => Self::Zero,
            rest if rest >= unit / 2 => Self::HalfOrMore,
            _ => Self::BelowHalf,
        }
    }
}

fn parse_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(MAX_EXPONENT).min(MAX_EXPONENT);
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn rounding() {
        assert_eq!(parse("18.999814987183").round(3), Some(19_000));
        assert_eq!(parse("18.999814987183").floor(3), Some(18_999));
        assert_eq!(parse("0.0005").round(3), Some(1));
        assert_eq!(parse("0.00049999999999999999999999999999999999999999999999").round(3), Some(0));
        assert_eq!(parse("1499").round(-3), Some(1));
        assert_eq!(parse("1500").round(-3), Some(2));
        assert_eq!(parse("1e-60").round(0), Some(0));
        assert_eq!(parse("9e-39").round(0), Some(0));
        assert_eq!(parse("18446744073709551615").round(0), Some(u64::MAX));
        assert_eq!(parse("18446744073709551615.5").round(0), None);
        assert_eq!(parse("18446744073709551616").floor(0), None);
        assert_eq!(parse("0e999999999999").floor(3), Some(0));
    }

    #[test]
    fn whole_and_negative_numbers() {
        for (text, expected) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("1.2e1", Some(12)),
            ("70e-1", Some(7)),
            ("7.5", None),
            ("1e-3", None),
        ] {
            assert_eq!(parse(text).integer(), expected, "{text}");
        }
        assert!(parse("-1").is_minus_one() && parse("-1.0").is_minus_one() && parse("-10e-1").is_minus_one());
        assert!(!parse("1").is_minus_one() && !parse("-2").is_minus_one() && !parse("-1.5").is_minus_one());
        assert_eq!(parse("-0").integer(), Some(0));
        assert_eq!(parse("-9223372036854775808").floor(0), None);
    }

    #[test]
    fn no_numbers() {
        for text in
            ["", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "NaN", "inf", "1 ", " 1", "1_000", "--1"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,40}") {
            Decimal::parse(&text);
        }

        #[test]
        fn integers_are_exact(number: u64, places in 0_usize..6, cut in 0_i32..6) {
            let text = format!("{number}.{}", "0".repeat(places));
            prop_assert_eq!(parse(&text).integer(), Some(number));
            prop_assert_eq!(parse(&text).floor(-cut), Some(number / 10_u64.pow(cut.unsigned_abs())));
        }

        /// Rounding a decimal fraction is rounding the integer that its digits are.
        #[test]
        fn fractions_round_as_integers(whole in 0_u64..1_000_000_000, fraction in 0_u64..1_000_000_000) {
            let number = parse(&format!("{whole}.{fraction:09}"));
            prop_assert_eq!(number.round(3), Some((whole * 1_000_000_000 + fraction + 500_000) / 1_000_000));
            prop_assert_eq!(number.floor(3), Some((whole * 1_000_000_000 + fraction) / 1_000_000));
        }
    }
}
