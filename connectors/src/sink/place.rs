//! The place of a row among the rows of a key, a subscription or the job, by which answers at request time find it.
//!
//! A series has the rows of one view that differ by their time alone, such as a key's hours. Of each, the newest
//! [`kept`](RowPlace::kept) rows are worth keeping in memory: what a page shows. All others are in topics and files.

use keytide_billing::ChargeItem;
use keytide_config::View;
use keytide_dataflow::model::{Country, KeyId, NameId};
use keytide_dataflow::{BillKey, ChargeKey, IncidentId, Level, QuotaKey};
use serde::{Deserialize, Serialize};

/// Billing periods of which rows are kept: those of a year, the running one, and one that isn't final.
const PERIODS: usize = 14;
/// Rows of a log that are kept.
const ENTRIES: usize = 100;

/// The subject of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowSubject {
    Key(KeyId),
    Subscription(NameId),
    /// The row is about the whole job.
    Job,
}

/// The place of a row of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPlace {
    pub subject: RowSubject,
    /// Tells the subject's series from each other.
    pub series: u64,
    /// Orders the rows of a series, in each of which it is another: a time in ms since the epoch, or a row's number.
    pub at: u64,
    /// The newest rows of the series that are kept.
    pub kept: usize,
}

/// A row in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRow {
    pub view: View,
    pub place: RowPlace,
    /// The row as JSON; `None` takes it back.
    pub line: Option<Vec<u8>>,
}

/// Returns the newest windows of a level that are kept.
fn windows(level: Level) -> usize {
    match level {
        Level::Minute => 60,
        Level::FiveMinutes | Level::Hour => 72,
        Level::Day => 62,
        Level::Month => PERIODS,
    }
}

impl RowPlace {
    /// Returns whether a series is one of windows of this level, if it is one of windows.
    #[must_use]
    pub fn is_of_level(series: u64, level: Level) -> bool {
        series & 0xFF == level as u64
    }

    pub(super) fn of_window(subject: RowSubject, level: Level, start: u64) -> Self {
        Self { subject, series: level as u64, at: start, kept: windows(level) }
    }

    pub(super) fn of_country(key: KeyId, country: Country, level: Level, start: u64) -> Self {
        let country = u64::from(u16::from_be_bytes(country.0));
        let series = country << 8 | level as u64;
        Self { series, ..Self::of_window(RowSubject::Key(key), level, start) }
    }

    /// Of a quota only the running period is kept.
    pub(super) fn of_quota(key: &QuotaKey) -> Self {
        let series = (key.measure as u64) << 8 | key.period as u64;
        Self { subject: RowSubject::Subscription(key.subscription), series, at: key.start_ms, kept: 1 }
    }

    pub(super) fn of_bill(key: &BillKey) -> Self {
        let subject = RowSubject::Subscription(key.subscription);
        Self { subject, series: 0, at: key.start_ms, kept: PERIODS }
    }

    pub(super) fn of_charge(key: &ChargeKey) -> Self {
        let series = match key.item {
            // The ids of names are hashes, of which none is as small.
            ChargeItem::BaseFee => 1,
            ChargeItem::Minimum => 2,
            ChargeItem::Maximum => 3,
            ChargeItem::Item(name) => name.0,
        };
        Self { series, ..Self::of_bill(&key.bill) }
    }

    pub(super) fn of_entry(subscription: NameId, seq: u64) -> Self {
        Self { subject: RowSubject::Subscription(subscription), series: 0, at: seq, kept: ENTRIES }
    }

    /// Each incident is a series of its own.
    pub(super) fn of_incident(id: IncidentId, opened_ms: u64) -> Self {
        Self { subject: RowSubject::Job, series: id.0 as u64, at: opened_ms, kept: 1 }
    }
}
