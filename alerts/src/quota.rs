//! Rows of the view `notices`, as mails and webhooks read them back: a threshold of a quota that was crossed.
//!
//! Names of subscriptions, customers and plans come from tables and may be any text, so a reader that shows one has to
//! make it harmless. Unknown columns are ignored, as columns are added.

use keytide_dataflow::QuotaAlert;
use keytide_dataflow::model::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A row of `notices`. Quantities count units of the metric; of `cost` ten-thousandths of the currency's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNoticeRow {
    pub subscription: String,
    /// Counts the notices of a subscription.
    pub seq: u64,
    /// One of `calls`, `bytes_in`, `bytes_out`, `bytes`, `units`, `cost`.
    pub metric: String,
    /// One of `second`, `minute`, `hour`, `day`, `month`, `billing`.
    pub period: String,
    /// The period's first instant; RFC 3339, as all times here.
    pub period_start: String,
    /// The threshold, in percent of the limit.
    pub percent: u16,
    pub limit: u64,
    pub used: u64,
    pub remaining: u64,
    /// The used part of the limit in thousandths, cut.
    pub permille: u64,
    /// True if calls beyond the limit are to be refused.
    pub hard: bool,
    pub resets_at: String,
    /// The time at which the threshold was seen to be crossed.
    pub at: String,
    /// The expected use at the period's end. It is `None` without a history.
    pub expected: Option<u64>,
    /// One period of ten ends below.
    pub low: Option<u64>,
    /// One period of ten ends above.
    pub high: Option<u64>,
    /// When the expected use reaches the limit.
    pub runs_out_at: Option<String>,
    /// The currency of a limit of cost.
    pub currency: Option<String>,
    pub customer: Option<String>,
    pub plan: Option<String>,
    /// The subscription's time zone, in which periods begin; `None` for UTC.
    pub time_zone: Option<String>,
}

impl QuotaNoticeRow {
    /// Reads a row of the view `notices` back from its JSON.
    ///
    /// # Errors
    /// If the text isn't a row of `notices`.
    pub(crate) fn parse(alert: &QuotaAlert) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&alert.json)
    }

    /// Returns a name of the quota in its period, of letters and digits. Notices of one quota and period have the same.
    pub(crate) fn quota_id(&self) -> String {
        let Self { subscription, metric, period, period_start, .. } = self;
        let mut hash = Sha256::new();
        for part in [subscription, metric, period, period_start] {
            // The length keeps apart what would be one text when put together.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex(&hash.finalize()[..16])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::email::samples;

    fn alert(json: String) -> QuotaAlert {
        QuotaAlert { json, contacts: Vec::new() }
    }

    #[test]
    fn a_row_is_read_back_and_columns_that_are_added_are_ignored() {
        let row = samples::quotas().swap_remove(0);
        let mut json = serde_json::to_value(&row).unwrap();
        json["highest"] = true.into();
        assert_eq!(QuotaNoticeRow::parse(&alert(json.to_string())).unwrap(), row);
        for column in ["subscription", "limit", "resets_at"] {
            let mut json = json.clone();
            json[column].take();
            assert!(QuotaNoticeRow::parse(&alert(json.to_string())).is_err(), "{column}");
        }
    }

    #[test]
    fn the_notices_of_one_quota_and_period_have_one_name() {
        let row = samples::quotas().swap_remove(0);
        let name = row.quota_id();
        assert!(name.len() == 32 && name.bytes().all(|b| b.is_ascii_alphanumeric()));
        let later = QuotaNoticeRow { seq: 9, percent: 100, used: 10, limit: 20, ..row.clone() };
        assert_eq!(later.quota_id(), name);
        let other = QuotaNoticeRow { period_start: "2026-12-01T00:00:00Z".to_owned(), ..row.clone() };
        assert_ne!(other.quota_id(), name);
        // A customer can't take the name of another one's quota.
        let (subscription, metric) = (format!("{}c", row.subscription), "alls".to_owned());
        assert_ne!(QuotaNoticeRow { subscription, metric, ..row }.quota_id(), name);
    }

    proptest! {
        #[test]
        fn any_text_is_a_row_or_an_error(text in any::<String>()) {
            let _ = QuotaNoticeRow::parse(&alert(text));
        }
    }
}
