//! Numbers as reports show them.
//!
//! Commas part thousands. A decimal number keeps all of its digits and never has an exponent. An absent number is
//! [`NONE`], which is another thing than zero.

use keytide_billing::{Currency, Measure, PriceUnit};

use super::words::Words;

/// An absent number, and a share of nothing.
pub(super) const NONE: &str = "-";
/// Decimal places of a quantity in a unit of bytes.
const PLACES: u32 = 3;

/// Formats a whole number: `1,234,567`.
pub(super) fn whole(number: impl Into<i128>) -> String {
    decimal(&number.into().to_string())
}

/// Formats a decimal number: `1234.5` as `1,234.5`. A text that is no number stays as it is.
pub(super) fn decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (before, places) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    if before.is_empty() || !before.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut grouped = String::from(sign);
    for (at, digit) in before.chars().enumerate() {
        if at > 0 && (before.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + places
}

/// Formats an amount with its currency: `1,234.57 EUR`.
pub(super) fn money(amount: &str, currency: &str) -> String {
    format!("{} {currency}", decimal(amount))
}

/// Reads an amount as minor units of its currency. An amount with another number of decimal places is none.
pub(super) fn minor_units(amount: &str, currency: Currency) -> Option<i128> {
    let (before, places) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = before.strip_prefix('-').unwrap_or(before);
    let is_number =
        !digits.is_empty() && digits.bytes().chain(places.bytes()).all(|byte| byte.is_ascii_digit());
    (is_number && places.len() == currency.digits() as usize)
        .then(|| format!("{before}{places}").parse().ok())?
}

/// Returns the name of a price's unit, if it is one of bytes that has a name.
fn byte_unit(measure: Measure, unit: u64) -> Option<&'static str> {
    let is_of_bytes = matches!(measure, Measure::BytesIn | Measure::BytesOut | Measure::Bytes);
    PriceUnit::bytes_name(unit).filter(|_| is_of_bytes)
}

/// Formats a quantity with the unit of its price: `1,234,567 calls`, `91.98 GiB`.
pub(super) fn quantity(quantity: i128, measure: Option<Measure>, unit: Option<u64>, words: &Words) -> String {
    let Some(measure) = measure else { return whole(quantity) };
    match unit.and_then(|unit| Some((unit, byte_unit(measure, unit)?))) {
        Some((unit, name)) => format!("{} {name}", in_units(quantity, unit)),
        None => counted(quantity, measure, words),
    }
}

/// Formats a quantity with the word of its measure: `1 call`, `98,765 bytes`.
pub(super) fn counted(quantity: i128, measure: Measure, words: &Words) -> String {
    let (one, many) = match measure {
        Measure::Calls => words.calls,
        Measure::BytesIn | Measure::BytesOut | Measure::Bytes => words.bytes,
        Measure::Units => words.units,
        Measure::Cost => ("", ""),
    };
    format!("{}{}", whole(quantity), if quantity == 1 { one } else { many })
}

/// Names the unit of a price: `GiB`, `call`, `1,000 calls`.
pub(super) fn unit_name(measure: Measure, unit: u64, words: &Words) -> String {
    match (byte_unit(measure, unit), unit) {
        (Some(name), _) => name.to_owned(),
        (None, 1) => counted(1, measure, words).trim_start_matches('1').trim_start().to_owned(),
        (None, _) => counted(unit.into(), measure, words),
    }
}

/// Formats a quantity in a unit, rounded to three decimal places, a half away from zero: `9.198`.
fn in_units(quantity: i128, unit: u64) -> String {
    let scale = 10_u128.pow(PLACES);
    let unit = u128::from(unit.max(1));
    let Some(scaled) = quantity.unsigned_abs().checked_mul(scale) else { return whole(quantity) };
    let scaled = (scaled + unit / 2) / unit;
    let sign = if quantity < 0 { "-" } else { "" };
    if scaled == 0 && quantity != 0 {
        return format!("< {sign}0.001");
    }
    let places = format!("{:03}", scaled % scale);
    let places = places.trim_end_matches('0');
    let point = if places.is_empty() { "" } else { "." };
    format!("{}{point}{places}", decimal(&format!("{sign}{}", scaled / scale)))
}

/// Formats the share of a part in percent, cut to a tenth; [`NONE`] of nothing.
pub(super) fn percent(part: u128, of: u128) -> String {
    let Some(permille) = part.checked_mul(1_000).and_then(|part| part.checked_div(of)) else {
        return NONE.to_owned();
    };
    let whole = decimal(&(permille / 10).to_string());
    match permille % 10 {
        0 => format!("{whole} %"),
        tenth => format!("{whole}.{tenth} %"),
    }
}

/// Formats the used part of a limit, `10,001 of 10,000: 100 %, 1 over`, given the used quantity and how others are shown.
pub(super) fn used_of(
    (used, limit): (u64, u64),
    used_text: &str,
    shown: impl Fn(u64) -> String,
    words: &Words,
) -> String {
    let share = percent(used.into(), limit.into());
    let rest = match used.cmp(&limit) {
        std::cmp::Ordering::Less => words.left.replace("{}", &shown(limit - used)),
        std::cmp::Ordering::Equal => words.none_left.to_owned(),
        std::cmp::Ordering::Greater => words.over.replace("{}", &shown(used - limit)),
    };
    words.used_of.replace("{used}", used_text).replace("{limit}", &shown(limit))
        + &format!(": {share}, {rest}")
}

#[cfg(test)]
mod tests {
    use keytide_config::Language;
    use proptest::prelude::*;

    use super::*;

    fn words(language: Language) -> &'static Words {
        Words::of(language)
    }

    #[test]
    fn numbers_are_written_for_people() {
        let (en, ko) = (words(Language::En), words(Language::Ko));
        assert_eq!(quantity(1_234_567, Some(Measure::Calls), Some(1), en), "1,234,567 calls");
        assert_eq!(quantity(1_234_567, Some(Measure::Calls), Some(1), ko), "1,234,567건");
        assert_eq!(quantity(1, Some(Measure::Calls), Some(1), en), "1 call");
        assert_eq!(quantity(9_876_543_211, Some(Measure::BytesOut), Some(1 << 30), en), "9.198 GiB");
        assert_eq!(quantity(98_765_432_109, Some(Measure::Bytes), Some(1_000_000_000), ko), "98.765 GB");
        assert_eq!(quantity(-(5 << 30), Some(Measure::Bytes), Some(1 << 30), en), "-5 GiB");
        assert_eq!(quantity(7, Some(Measure::Bytes), Some(1 << 30), en), "< 0.001 GiB");
        assert_eq!(quantity(0, Some(Measure::Bytes), Some(1 << 30), en), "0 GiB");
        assert_eq!(quantity(12, Some(Measure::Bytes), Some(500), en), "12 bytes");
        assert_eq!(quantity(12, None, None, en), "12");
        // A thousand calls have no name of their own.
        assert_eq!(quantity(2_000, Some(Measure::Calls), Some(1_000), en), "2,000 calls");
        assert_eq!(unit_name(Measure::Calls, 1_000, en), "1,000 calls");
        assert_eq!(
            (unit_name(Measure::Calls, 1, en), unit_name(Measure::Calls, 1, ko)),
            ("call".into(), "건".into())
        );
        assert_eq!(unit_name(Measure::BytesIn, 1_000_000_000_000, en), "TB");
        assert_eq!(whole(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(decimal("0.0008"), "0.0008");
        assert_eq!(decimal("-1234567.8901"), "-1,234,567.8901");
        assert_eq!(["", "8e-4", "-", ".5"].map(decimal), ["", "8e-4", "-", ".5"]);
        assert_eq!(money("1234.57", "EUR"), "1,234.57 EUR");
        assert_eq!(money("-1560", "KRW"), "-1,560 KRW");
    }

    #[test]
    fn shares_are_cut_and_nothing_has_none() {
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(0, 5), "0 %");
        assert_eq!(percent(812, 1_000), "81.2 %");
        assert_eq!(percent(99_999, 100_000), "99.9 %");
        let of = |used: u64| used_of((used, 10_000), &whole(used), whole, words(Language::En));
        assert_eq!(of(10_000), "10,000 of 10,000: 100 %, none left");
        assert_eq!(of(10_001), "10,001 of 10,000: 100 %, 1 over");
        assert_eq!(of(9_999), "9,999 of 10,000: 99.9 %, 1 left");
        assert_eq!(
            used_of((10_001, 10_000), "10,001", whole, words(Language::Ko)),
            "10,000 중 10,001: 100 %, 1 초과"
        );
        assert_eq!(used_of((0, 0), "0", whole, words(Language::En)), "0 of 0: -, none left");
    }

    #[test]
    fn amounts_have_the_digits_of_their_currency() {
        let (euro, won): (Currency, Currency) = ("EUR".parse().unwrap(), "KRW".parse().unwrap());
        assert_eq!(minor_units("-0.05", euro), Some(-5));
        assert_eq!(minor_units("1234.57", euro), Some(123_457));
        assert_eq!(minor_units("1560", won), Some(1_560));
        for (amount, currency) in
            [("1", euro), ("1.234", euro), ("1.0", won), ("1e2", won), ("", won), ("--1", won)]
        {
            assert_eq!(minor_units(amount, currency), None, "{amount}");
        }
    }

    proptest! {
        #[test]
        fn a_grouped_number_is_the_same_number(number: i128, which in 0_usize..165) {
            prop_assert_eq!(whole(number).replace(',', ""), number.to_string());
            let currency = Currency::all().nth(which).unwrap();
            let text = currency.text(number);
            prop_assert_eq!(minor_units(&text, currency), Some(number));
            prop_assert_eq!(decimal(&text).replace(',', ""), text);
        }

        #[test]
        fn a_quantity_in_units_is_off_by_at_most_half_a_thousandth(quantity: u64, unit in 1_u64..1 << 45) {
            let text = in_units(quantity.into(), unit).replace(',', "");
            if let Some(rest) = text.strip_prefix("< ") {
                prop_assert!(rest == "0.001" && u128::from(quantity) * 2_000 < unit.into());
            } else {
                let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
                let shown: u128 = format!("{whole}{places:0<3}").parse().unwrap();
                let off = (shown * u128::from(unit)).abs_diff(u128::from(quantity) * 1_000);
                prop_assert!(off * 2 <= unit.into(), "{}", text);
            }
        }
    }
}
