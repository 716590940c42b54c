//! Reports: documents for people, made of rows of views.
//!
//! ```text
//! lines of views --rows.rs--> rows of a subscription --bill.rs--> document --+-- html.rs --> NAME.html
//!                                                                            +-- csv.rs ---> NAME.csv
//!                                                                            +-- serde ----> NAME.json
//! ```
//! Everything here is pure. A report depends on the rows and on the language alone, so the same rows give the same bytes,
//! on any machine and at any time. Quantities are integers and amounts decimal texts: no number passes through floating
//! point.
//!
//! Texts of strangers, such as names of customers, items and plans, are shown as text in each of the three files.
//!
//! Limits: a name is shown with at most 500 characters in HTML. The hours of a subscription take 64 bytes each.

mod bill;
mod csv;
mod html;
mod name;
mod numbers;
mod rows;
mod svg;
#[cfg(test)]
mod tests;
mod words;

use keytide_config::Language;

pub use self::bill::{
    Adjusted, BillDocument, BillState, Charged, Correction, CountedUse, DayUse, NotABill, PeriodQuota,
    ReportPeriod, TierCharged, UseByDay,
};
pub use self::name::file_stem;
pub use self::rows::{BILL_VIEWS, ReportRows, SubscriptionRows};

/// The three files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    /// A page that needs no other file, and prints on A4.
    pub html: String,
    /// A table for spreadsheets, by RFC 4180.
    pub csv: String,
    /// The document itself, which programs read.
    pub json: String,
}

impl ReportFiles {
    /// Returns each file's extension and content.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &str); 3] {
        [("html", &self.html), ("csv", &self.csv), ("json", &self.json)]
    }
}

impl BillDocument {
    /// Makes the three files of the bill.
    ///
    /// # Errors
    /// If the document can't be written as JSON.
    pub fn files(&self, language: Language) -> serde_json::Result<ReportFiles> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(ReportFiles { html: html::bill(self, language), csv: csv::bill(self), json })
    }
}
