//! The answer to a check.

use std::fmt;

use super::standing::QuotaAnswer;

/// Why a check is allowed or denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckVerdict {
    /// No hard quota is exceeded.
    #[default]
    Allowed,
    /// A hard quota would be exceeded.
    Exceeded,
    Suspended,
    Revoked,
    /// There is a hard quota, and the ledger is too old to decide.
    Stale,
}

/// The number of a reservation. Those of an earlier life of the job are unknown to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub u128);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The answer to a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckAnswer {
    pub verdict: CheckVerdict,
    /// False if no table has the key or the subscription. Then nothing is limited.
    pub is_known: bool,
    /// True if no tick was applied in the last 60 s.
    pub is_stale: bool,
    /// The quotas in force, the one first that decides: which was exceeded and resets last, or of which least is left.
    pub quotas: Vec<QuotaAnswer>,
    pub reservation: Option<ReservationId>,
}

impl CheckAnswer {
    /// Returns whether the call may be made.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == CheckVerdict::Allowed
    }

    /// Returns the quota that decides.
    #[must_use]
    pub fn decisive(&self) -> Option<&QuotaAnswer> {
        self.quotas.first()
    }
}
