//! The section `[billing]`: which calls are billed, in which currency, and when a bill is final.

use keytide_billing::Currency;

use super::prelude::*;

section! {
    /// The section `[billing]` of a configuration.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Billing, RawBilling {
        /// Statuses of calls that are free, because the gateway refused them. Views count them apart.
        results free_statuses: Vec<u16> = free_statuses(List<Status>, AtMost(64, "statuses")) or vec![429];
        /// The currency of plans that name none: a code of ISO 4217.
        results currency: Currency = currency(Currency) or Currency::EURO;
        /// How long after its period's end a bill is final, in milliseconds.
        results close_after_ms: u64 = close_after(Millis, DAY_MS..=30 * DAY_MS) or 5 * DAY_MS;
    }
}

parsed! {
    Currency: |code| code.parse().ok(), "a current code of ISO 4217 in capitals, such as EUR, USD or KRW";
}

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        for (value, found) in
            [("[429, 99]", "99"), ("[1000]", "1000"), ("[\"4xx\"]", "\"4xx\""), ("429", "429")]
        {
            let text = format!("{SMALL}[billing]\nfree_statuses = {value}");
            let problems = problems(&text);
            assert!(problems.starts_with("line 7: billing.free_statuses"), "{problems}");
            assert!(problems.contains(&format!("found {found}, allowed: ")), "{problems}");
        }
        assert_eq!(job(&format!("{SMALL}[billing]\nfree_statuses = []")).billing.free_statuses, [0_u16; 0]);
    }

    #[test]
    fn a_currency_has_a_code_and_a_bill_an_end() {
        for value in ["eur", "XAU", "EURO", "", "EUR USD"] {
            assert_eq!(
                problems(&format!("{SMALL}[billing]\ncurrency = \"{value}\"")),
                format!(
                    "line 7: billing.currency: found \"{value}\", allowed: a current code of ISO 4217 in capitals, such as \
                     EUR, USD or KRW"
                )
            );
        }
        for value in ["23h", "31d"] {
            assert_eq!(
                problems(&format!("{SMALL}[billing]\nclose_after = \"{value}\"")),
                format!("line 7: billing.close_after: found \"{value}\", allowed: 1d to 30d")
            );
        }
        let billing = job(&format!("{SMALL}[billing]\ncurrency = \"KRW\"\nclose_after = \"36h\"")).billing;
        assert_eq!((billing.currency.code(), billing.close_after_ms), ("KRW", 36 * 3_600_000));
        assert_eq!(job(SMALL).billing.currency.code(), "EUR");
    }
}
