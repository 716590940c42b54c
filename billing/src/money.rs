//! Currencies, and amounts in their smallest units.
//!
//! An amount is a whole number of minor units, such as cents. So amounts are added and taken back without a loss.
//! An [`Exact`] sum becomes an amount by one rounding, half away from zero. So 0.005 EUR is one cent, and -0.005 EUR is
//! minus one cent. A bill is the sum of its rounded lines, never a rounded sum.
//!
//! The table has the codes of ISO 4217, list one of 2026-01-01 (amendment 180), that have a minor unit. Metals, units
//! of account of banks and test codes have none; nothing is billed in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exact::{Exact, Overflow};

/// Codes by their digits behind the point: two, none, three, four. Each list is sorted.
const CODES: [(u8, &str); 4] = [
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF \
         CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL \
         HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU \
         MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR \
         SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED \
         VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    ),
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// The most digits that a currency has behind the point.
const COST_DIGITS: u32 = 4;

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 3]", into = "[u8; 3]")]
pub struct Currency {
    code: [u8; 3],
    digits: u8,
}

/// A text isn't the code of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACurrency;

impl fmt::Display for NotACurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be a current code of ISO 4217 in capitals, such as EUR, USD or KRW")
    }
}

impl std::error::Error for NotACurrency {}

impl Currency {
    /// The euro, in which plans are that name no currency, unless the configuration says another.
    pub const EURO: Self = Self { code: *b"EUR", digits: 2 };

    /// Returns the code, three capitals.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.code).unwrap_or_default()
    }

    /// Returns how many digits amounts have behind the point, 0 to 4.
    #[must_use]
    pub fn digits(self) -> u32 {
        self.digits.into()
    }

    /// Rounds a sum to minor units, half away from zero.
    ///
    /// # Errors
    ///
    /// The amount needs more than 127 bits.
    pub fn amount(self, sum: Exact) -> Result<i128, Overflow> {
        sum.rounded(self.digits())
    }

    /// Returns minor units as a sum.
    ///
    /// # Errors
    ///
    /// The amount is `i128::MIN`, which has no negative.
    pub fn sum(self, amount: i128) -> Result<Exact, Overflow> {
        Exact::fraction(amount, 10_i128.pow(self.digits()))
    }

    /// Returns minor units as a quantity of [`crate::Measure::Cost`], in ten-thousandths. A credit costs nothing.
    ///
    /// # Errors
    ///
    /// The quantity needs more than 128 bits.
    pub fn cost(self, amount: i128) -> Result<u128, Overflow> {
        let factor = 10_u128.pow(COST_DIGITS.saturating_sub(self.digits()));
        amount.max(0).unsigned_abs().checked_mul(factor).ok_or(Overflow)
    }

    /// Writes minor units as a decimal number with all digits of the currency, such as 1560.00.
    #[must_use]
    pub fn text(self, amount: i128) -> String {
        let sign = if amount < 0 { "-" } else { "" };
        let unit = 10_u128.pow(self.digits());
        let (whole, rest) = (amount.unsigned_abs() / unit, amount.unsigned_abs() % unit);
        if self.digits == 0 {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{rest:0>width$}", width = usize::from(self.digits))
        }
    }

    /// Writes a quantity of [`crate::Measure::Cost`], in ten-thousandths, with the currency's digits, and more only if they aren't
    /// zero: 49.90, 1.2345. A currency that isn't known has two digits.
    #[must_use]
    pub fn cost_text(currency: Option<Self>, cost: u64) -> String {
        let unit = 10_u64.pow(COST_DIGITS);
        let places = format!("{:0width$}", cost % unit, width = COST_DIGITS as usize);
        let digits = currency.map_or(2, Self::digits) as usize;
        let shown = places.trim_end_matches('0').len().max(digits);
        let point = if shown > 0 { "." } else { "" };
        format!("{}{point}{}", cost / unit, &places[..shown])
    }

    /// Returns every currency, by digits and then by code.
    pub fn all() -> impl Iterator<Item = Self> {
        CODES.into_iter().flat_map(|(digits, codes)| {
            let code = |code: &str| code.as_bytes().try_into().ok();
            codes.split(' ').filter_map(code).map(move |code| Self { code, digits })
        })
    }
}

impl TryFrom<[u8; 3]> for Currency {
    type Error = NotACurrency;

    fn try_from(code: [u8; 3]) -> Result<Self, NotACurrency> {
        Self::all().find(|currency| currency.code == code).ok_or(NotACurrency)
    }
}

impl From<Currency> for [u8; 3] {
    fn from(currency: Currency) -> Self {
        currency.code
    }
}

impl FromStr for Currency {
    type Err = NotACurrency;

    fn from_str(text: &str) -> Result<Self, NotACurrency> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| NotACurrency)?;
        code.try_into()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_has_each_code_once() {
        let codes: Vec<String> = Currency::all().map(|currency| currency.code().to_owned()).collect();
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
        assert!(codes.iter().all(|code| code.len() == 3 && code.bytes().all(|c| c.is_ascii_uppercase())));
        // The list has 178 codes, 13 of them without a minor unit.
        assert_eq!(codes.len(), 165);
        for (code, digits) in [("EUR", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("CLF", 4), ("HUF", 2)] {
            assert_eq!(code.parse::<Currency>().unwrap().digits(), digits, "{code}");
        }
        for code in ["", "eur", "EURO", "XAU", "XXX", "BGN", "€"] {
            assert_eq!(code.parse::<Currency>(), Err(NotACurrency), "{code}");
        }
    }

    #[test]
    fn amounts_are_written_with_the_digits_of_their_currency() {
        let text = |code: &str, amount| code.parse::<Currency>().unwrap().text(amount);
        assert_eq!(text("EUR", 156_000), "1560.00");
        assert_eq!(text("EUR", -5), "-0.05");
        assert_eq!(text("EUR", 0), "0.00");
        assert_eq!(text("KRW", -1_560), "-1560");
        assert_eq!(text("BHD", 1_001), "1.001");
        assert_eq!(text("CLF", i128::MIN), "-17014118346046923173168730371588410.5728");
    }

    #[test]
    fn cost_is_counted_alike_in_all_currencies() {
        let cost = |code: &str, amount| code.parse::<Currency>().unwrap().cost(amount);
        for (code, amount) in [("KRW", 7), ("EUR", 700), ("BHD", 7_000), ("CLF", 70_000)] {
            assert_eq!(cost(code, amount), Ok(70_000), "{code}");
            assert_eq!(cost(code, -amount), Ok(0), "{code}");
        }
        assert_eq!(cost("KRW", i128::MAX), Err(Overflow));
        assert!(Currency::all().all(|currency| currency.digits() <= COST_DIGITS));
    }

    proptest! {
        #[test]
        fn an_amount_is_at_most_half_a_minor_unit_away(
            numerator in -1_000_000_000_i128..1_000_000_000, denominator in 1_i128..10_000, which in 0_usize..165,
        ) {
            let currency = Currency::all().nth(which).unwrap();
            let sum = Exact::fraction(numerator, denominator).unwrap();
            let amount = currency.amount(sum).unwrap();
            let away = sum.minus(currency.sum(amount).unwrap()).unwrap();
            let half = Exact::fraction(1, 2 * 10_i128.pow(currency.digits())).unwrap();
            prop_assert!(away <= half && away >= half.negative());
            prop_assert_eq!(currency.amount(sum.negative()), Ok(-amount));
            // A rounded sum stays as it is.
            prop_assert_eq!(currency.amount(currency.sum(amount).unwrap()), Ok(amount));
            prop_assert_eq!(currency.text(amount.abs()).parse().ok(), currency.sum(amount.abs()).ok());
        }

        #[test]
        fn any_text_is_a_code_or_refused(text in "[A-Z]{3}|\\PC{0,8}") {
            if let Ok(currency) = text.parse::<Currency>() {
                prop_assert_eq!(currency.code(), text);
            }
        }
    }
}
