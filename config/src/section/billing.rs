//! The section `[billing]`: which calls are billed.

use super::prelude::*;

section! {
    /// The section `[billing]` of a configuration.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Billing, RawBilling {
        /// Statuses of calls that are free, because the gateway refused them. Views count them apart.
        results free_statuses: Vec<u16> = free_statuses(List<Status>, AtMost(64, "statuses")) or vec![429];
    }
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
}
