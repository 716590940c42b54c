//! The input of the quota ledger beside tables: what a published tick says of use.

use keytide_billing::{BilledUse, QuotaStanding};
use keytide_dataflow::model::{EventTime, KeyId, NameId, Tick};
use keytide_dataflow::{Level, OwnedUsage, QuotaKey, Revision, Row};

/// What the ledger needs of a tick that was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct UseOfTick {
    /// The time of the tick, in ms since the epoch.
    pub tick: Tick,
    /// All minutes before this instant are booked, as far as they are known: the watermark. In ms since the epoch.
    pub through_ms: EventTime,
    /// Rows of the view `quota`.
    pub booked: Vec<BookedUse>,
    /// Rows of the view `usage` of single minutes.
    pub minutes: Vec<MinuteUse>,
}

/// The booked use of a quota in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookedUse {
    pub quota: QuotaKey,
    /// In units of the measure. Zero if the row was retracted.
    pub used: u128,
    /// The first instant after the period, in ms since the epoch.
    pub end_ms: EventTime,
}

/// The use of a key in one minute, and the subscription that it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinuteUse {
    pub key: KeyId,
    pub subscription: NameId,
    pub start_ms: EventTime,
    /// Without calls that are free.
    pub used: BilledUse,
}

impl BookedUse {
    /// Returns what a row of the view `quota` says.
    #[must_use]
    pub fn of(row: &Revision<QuotaKey, QuotaStanding>) -> Self {
        let (used, end_ms) = row.value.map_or((0, 0), |standing| (standing.used, standing.resets_at_ms));
        Self { quota: row.key, used, end_ms }
    }
}

impl MinuteUse {
    /// Returns what a row of the view `usage` says, if it is of a minute and of a subscription's key.
    #[must_use]
    pub fn of(row: &Row<KeyId, OwnedUsage>) -> Option<Self> {
        let OwnedUsage { usage, owner } = &row.value;
        let is_owned = row.level == Level::Minute && owner.subscription.is_some();
        let used = BilledUse {
            calls: usage.calls.saturating_sub(usage.free_calls).into(),
            bytes_in: usage.bytes_in.into(),
            bytes_out: usage.bytes_out.into(),
            units: usage.units.into(),
        };
        let (key, subscription) = (row.group, owner.subscription);
        is_owned.then_some(Self { key, subscription, start_ms: row.start, used })
    }
}
