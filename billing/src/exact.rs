//! Exact sums of money: fractions of integers.
//!
//! A price per unit divides. 98,765,432,109 bytes at 0.10 a GiB cost a number of 31 decimal places. A third of a month's
//! fee has no last place. A decimal type would round such values inside, and round them again to cents. Here a sum stays
//! a fraction in lowest terms until it is rounded, once.
//!
//! Limits: numerator and denominator have at most 127 bits. An operation whose result needs more is an [`Overflow`].
//! A price has at most 12 digits before its point and 12 behind it. So a price of 24 digits can be multiplied by
//! 10^14, and one of 12 digits by 10^26.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most digits before the point of a price.
const WHOLE_DIGITS: i32 = 12;
/// The most digits behind the point of a price, trailing zeros aside.
const PLACES: i32 = 12;
/// The most bytes of a price's text.
const TEXT_BYTES: usize = 64;
/// The most places that a text of a sum has.
const SHOWN_PLACES: usize = 28;

/// An exact sum of money, in whole units of its currency.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(i128, i128)", into = "(i128, i128)")]
pub struct Exact {
    /// Never `i128::MIN`, so that each sum has its negative.
    numerator: i128,
    /// Positive, and without a divisor in common with the numerator.
    denominator: i128,
}

/// A result is too large to be computed exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sum needs more than 127 bits: use fewer digits in prices, or check the quantity")
    }
}

impl std::error::Error for Overflow {}

/// A text isn't a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPrice;

impl fmt::Display for NotAPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "must be a decimal number such as 0.002, not negative, \
             with at most 12 digits before the point and 12 behind it",
        )
    }
}

impl std::error::Error for NotAPrice {}

impl Exact {
    /// The sum without any summand: zero.
    pub const ZERO: Self = Self { numerator: 0, denominator: 1 };

    /// Returns a fraction in lowest terms.
    ///
    /// # Errors
    ///
    /// The denominator is zero, or a part needs more than 127 bits.
    pub fn fraction(numerator: i128, denominator: i128) -> Result<Self, Overflow> {
        if denominator == 0 || numerator == i128::MIN || denominator == i128::MIN {
            return Err(Overflow);
        }
        let divisor = common_divisor(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| Overflow)? * denominator.signum();
        Ok(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    /// Returns the sum of two sums.
    ///
    /// # Errors
    ///
    /// The result needs more than 127 bits.
    pub fn plus(self, other: Self) -> Result<Self, Overflow> {
        let divisor = common_divisor(self.denominator.unsigned_abs(), other.denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).map_err(|_| Overflow)?;
        let (left, right) = (self.denominator / divisor, other.denominator / divisor);
        let numerator = product(self.numerator, right)?.checked_add(product(other.numerator, left)?);
        Self::fraction(numerator.ok_or(Overflow)?, product(self.denominator, right)?)
    }

    /// Returns the sum less another one.
    ///
    /// # Errors
    ///
    /// The result needs more than 127 bits.
    pub fn minus(self, other: Self) -> Result<Self, Overflow> {
        self.plus(other.negative())
    }

    /// Returns the sum with the other sign.
    #[must_use]
    pub fn negative(self) -> Self {
        Self { numerator: -self.numerator, ..self }
    }

    /// Returns the product of the sum and a whole number.
    ///
    /// # Errors
    ///
    /// The result needs more than 127 bits.
    pub fn times(self, factor: u128) -> Result<Self, Overflow> {
        // Dividing first keeps the product small.
        let divisor = common_divisor(factor, self.denominator.unsigned_abs());
        let factor = i128::try_from(factor / divisor).map_err(|_| Overflow)?;
        let divisor = i128::try_from(divisor).map_err(|_| Overflow)?;
        Self::fraction(product(self.numerator, factor)?, self.denominator / divisor)
    }

    /// Returns the quotient of the sum and a whole number.
    ///
    /// # Errors
    ///
    /// The divisor is zero, or the result needs more than 127 bits.
    pub fn over(self, divisor: u128) -> Result<Self, Overflow> {
        let common = common_divisor(divisor, self.numerator.unsigned_abs()).max(1);
        let divisor = i128::try_from(divisor / common).map_err(|_| Overflow)?;
        let common = i128::try_from(common).map_err(|_| Overflow)?;
        Self::fraction(self.numerator / common, product(self.denominator, divisor)?)
    }

    /// Returns the sum in units of 10^-`digits`, rounded to the nearest; a half is rounded away from zero.
    ///
    /// Thus a sum that is taken back is rounded as it was when it was charged.
    ///
    /// # Errors
    ///
    /// The result needs more than 127 bits.
    pub fn rounded(self, digits: u32) -> Result<i128, Overflow> {
        let (mut rounded, mut rest, denominator) = self.parts();
        for _ in 0..digits {
            let digit;
            (digit, rest) = next_digit(rest, denominator);
            rounded = rounded.checked_mul(10).and_then(|sum| sum.checked_add(digit)).ok_or(Overflow)?;
        }
        let up = rest >= denominator - rest;
        let rounded = rounded.checked_add(u128::from(up)).ok_or(Overflow)?;
        let rounded = i128::try_from(rounded).map_err(|_| Overflow)?;
        Ok(rounded * self.numerator.signum())
    }

    /// Returns the whole part of the absolute value, what remains over the denominator, and the denominator.
    fn parts(self) -> (u128, u128, u128) {
        let (numerator, denominator) = (self.numerator.unsigned_abs(), self.denominator.unsigned_abs());
        (numerator / denominator, numerator % denominator, denominator)
    }
}

/// Returns the next decimal digit of `rest / denominator`, and what then remains.
fn next_digit(rest: u128, denominator: u128) -> (u128, u128) {
    // Ten additions instead of a multiplication, which could overflow: both are below 2^127.
    let (mut digit, mut sum) = (0, 0);
    for _ in 0..10 {
        sum += rest;
        if sum >= denominator {
            sum -= denominator;
            digit += 1;
        }
    }
    (digit, sum)
}

fn product(left: i128, right: i128) -> Result<i128, Overflow> {
    left.checked_mul(right).ok_or(Overflow)
}

/// Returns the greatest common divisor by Euclid; of zero and a number it is the number.
fn common_divisor(mut left: u128, mut right: u128) -> u128 {
    while right != 0 {
        // Numbers of 64 bits divide several times as fast.
        if let (Ok(mut short), Ok(mut other)) = (u64::try_from(left), u64::try_from(right)) {
            while other != 0 {
                (short, other) = (other, short % other);
            }
            return short.into();
        }
        (left, right) = (right, left % right);
    }
    left
}

impl Default for Exact {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<u64> for Exact {
    fn from(whole: u64) -> Self {
        Self { numerator: whole.into(), denominator: 1 }
    }
}

impl From<Exact> for (i128, i128) {
    fn from(sum: Exact) -> Self {
        (sum.numerator, sum.denominator)
    }
}

impl TryFrom<(i128, i128)> for Exact {
    type Error = Overflow;

    fn try_from((numerator, denominator): (i128, i128)) -> Result<Self, Overflow> {
        Self::fraction(numerator, denominator)
    }
}

/// Compares by value, without products, which could overflow: by the digits of both continued fractions.
impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut left, mut right) =
            ((self.numerator, self.denominator), (other.numerator, other.denominator));
        loop {
            let whole = left.0.div_euclid(left.1).cmp(&right.0.div_euclid(right.1));
            let rests = (left.0.rem_euclid(left.1), right.0.rem_euclid(right.1));
            if whole.is_ne() || rests.0 == 0 || rests.1 == 0 {
                return whole.then(rests.0.cmp(&rests.1));
            }
            // Of two fractions below one, that with the larger reciprocal is smaller.
            (left, right) = ((right.1, rests.1), (left.1, rests.0));
        }
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Writes the decimal number: all its places, or the first 28 and no rounding.
impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut rest, denominator) = self.parts();
        let mut places = String::new();
        while rest != 0 && places.len() < SHOWN_PLACES {
            let digit;
            (digit, rest) = next_digit(rest, denominator);
            places.push(char::from(b'0' + u8::try_from(digit).unwrap_or_default()));
        }
        let places = places.trim_end_matches('0');
        let sign = if self.numerator < 0 && (whole, places) != (0, "") { "-" } else { "" };
        let point = if places.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{places}")
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

/// Reads a price: digits, perhaps a point and digits, perhaps an exponent, as databases and their tools write them.
impl FromStr for Exact {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        if text.len() > TEXT_BYTES {
            return Err(NotAPrice);
        }
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, parse_exponent(exponent).ok_or(NotAPrice)?),
            None => (text, 0),
        };
        let (whole, places) = number.split_once('.').unwrap_or((number, ""));
        let digits = || whole.bytes().chain(places.bytes());
        if number.ends_with('.') || whole.is_empty() || !digits().all(|digit| digit.is_ascii_digit()) {
            return Err(NotAPrice);
        }
        let zeros = digits().rev().take_while(|digit| *digit == b'0').count();
        let length = whole.len() + places.len() - zeros;
        let mut mantissa = 0_i128;
        for digit in digits().take(length) {
            mantissa = mantissa.checked_mul(10).ok_or(NotAPrice)?;
            mantissa = mantissa.checked_add((digit - b'0').into()).ok_or(NotAPrice)?;
        }
        if mantissa == 0 {
            return Ok(Self::ZERO);
        }
        // The text has at most 64 bytes, so that these fit.
        let scale = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        let power = exponent + scale(zeros) - scale(places.len());
        let significant = scale(mantissa.ilog10() as usize + 1);
        if power < -PLACES || power + significant > WHOLE_DIGITS {
            return Err(NotAPrice);
        }
        let ten = 10_i128.pow(power.unsigned_abs());
        let sum = if power < 0 { Self::fraction(mantissa, ten) } else { Self::fraction(mantissa * ten, 1) };
        sum.map_err(|_| NotAPrice)
    }
}

/// Parses an exponent of at most three digits.
fn parse_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_short = (1..=3).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| is_short)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(text: &str) -> Exact {
        text.parse().unwrap()
    }

    #[test]
    fn prices_are_read_exactly_and_written_back() {
        for (text, written) in [
            ("0", "0"),
            ("0.002", "0.002"),
            ("00012.50", "12.5"),
            ("1.", ""),
            (".5", ""),
            ("", ""),
            ("-1", ""),
            ("+1", ""),
            ("1e", ""),
            ("1e-05", "0.00001"),
            ("2.5E+3", "2500"),
            ("1e13", ""),
            ("1e-13", ""),
            ("1e9999", ""),
            ("0e999", "0"),
            ("0.000000000001", "0.000000000001"),
            ("0.0000000000001", ""),
            // As PostgreSQL writes a numeric(38, 18).
            ("0.002000000000000000", "0.002"),
            ("999999999999.999999999999", "999999999999.999999999999"),
            ("1000000000000", ""),
            ("1_000", ""),
            ("1,5", ""),
            ("NaN", ""),
            ("1.2.3", ""),
            ("٣", ""),
        ] {
            let read = text.parse::<Exact>();
            assert_eq!(read.map(|sum| sum.to_string()).unwrap_or_default(), written, "{text}");
        }
        let long = format!("0.{}", "0".repeat(TEXT_BYTES));
        assert_eq!(long.parse::<Exact>(), Err(NotAPrice));
    }

    #[test]
    fn a_half_is_rounded_away_from_zero() {
        for (text, digits, rounded) in [
            ("0.005", 2, 1),
            ("0.0049999", 2, 0),
            ("4.69", 2, 469),
            ("0.5", 0, 1),
            ("1.5", 0, 2),
            ("2.5", 0, 3),
            ("1234.567", 2, 123_457),
            ("1.0005", 3, 1_001),
            ("7", 4, 70_000),
        ] {
            assert_eq!(sum(text).rounded(digits), Ok(rounded), "{text}");
            assert_eq!(sum(text).negative().rounded(digits), Ok(-rounded), "-{text}");
        }
    }

    /// A value that a type of 28 places would round up to a half, and then to a cent.
    #[test]
    fn a_sum_is_rounded_only_once() {
        let below = Exact::fraction(5 * 10_i128.pow(30) - 1, 10_i128.pow(33)).unwrap();
        assert_eq!(below.rounded(2), Ok(0));
        assert_eq!(below.to_string(), "0.0049999999999999999999999999");
    }

    #[test]
    fn too_large_sums_are_errors() {
        let most = Exact::fraction(i128::MAX, 1).unwrap();
        assert_eq!(most.plus(Exact::from(1)), Err(Overflow));
        assert_eq!(most.times(2), Err(Overflow));
        assert_eq!(most.rounded(1), Err(Overflow));
        assert_eq!(most.times(u128::MAX), Err(Overflow));
        assert_eq!(Exact::fraction(i128::MIN, 1), Err(Overflow));
        assert_eq!(Exact::fraction(1, 0), Err(Overflow));
        assert_eq!(Exact::fraction(1, i128::MAX).unwrap().over(2), Err(Overflow));
        assert_eq!(sum("1").over(0), Err(Overflow));
        assert_eq!(Exact::ZERO.over(0), Err(Overflow));
        // The largest price and the largest counter meet.
        assert_eq!(sum("0.002").times(1 << 63).unwrap().to_string(), "18446744073709551.616");
        let small = Exact::fraction(1, i128::MAX).unwrap();
        assert!(small > Exact::ZERO && small < Exact::fraction(1, i128::MAX - 1).unwrap());
        assert_eq!(small.rounded(9), Ok(0));
        assert_eq!(small.to_string(), "0");
        assert_eq!(small.negative().to_string(), "0");
    }

    proptest! {
        /// Small fractions are compared with integers over a common denominator.
        #[test]
        fn arithmetic_agrees_with_cross_multiplication(
            a in -1_000_000_i128..1_000_000, b in 1_i128..5_000, c in -1_000_000_i128..1_000_000, d in 1_i128..5_000,
            factor in 0_u32..10_000, digits in 0_u32..6,
        ) {
            let (left, right) = (Exact::fraction(a, b).unwrap(), Exact::fraction(c, d).unwrap());
            prop_assert_eq!(left.plus(right), Exact::fraction(a * d + c * b, b * d));
            prop_assert_eq!(left.minus(right), Exact::fraction(a * d - c * b, b * d));
            prop_assert_eq!(left.times(factor.into()), Exact::fraction(a * i128::from(factor), b));
            prop_assert_eq!(left.over(d.unsigned_abs()), Exact::fraction(a, b * d));
            prop_assert_eq!(left.cmp(&right), (a * d).cmp(&(c * b)));
            // Twice the numerator and one half more, cut towards zero.
            let ten = 10_i128.pow(digits);
            let half = (2 * a.abs() * ten + b) / (2 * b);
            prop_assert_eq!(left.rounded(digits), Ok(half * a.signum()));
        }

        #[test]
        fn a_decimal_number_is_read_and_written_back(mantissa in 0_u64..1_000_000_000_000, places in 0_usize..12) {
            let digits = format!("{mantissa:0>width$}", width = places + 1);
            let (whole, rest) = digits.split_at(digits.len() - places);
            let text = format!("{whole}.{rest}").trim_end_matches('0').trim_end_matches('.').to_owned();
            let read: Exact = text.parse().unwrap();
            prop_assert_eq!(read.to_string(), text);
            prop_assert_eq!(Ok(read), Exact::fraction(mantissa.into(), 10_i128.pow(u32::try_from(places).unwrap())));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9+.eE-]{0,20}|\\PC{0,80}") {
            if let Ok(read) = text.parse::<Exact>() {
                prop_assert!(read >= Exact::ZERO);
                prop_assert_eq!(read.to_string().parse(), Ok(read));
            }
        }
    }
}
