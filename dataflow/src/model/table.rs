//! Rows of the tables that events are joined with.

use serde::{Deserialize, Serialize};

use super::{Country, EventTime, KeyId, NameId};

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyState {
    #[default]
    Active,
    Suspended,
    Revoked,
}

/// What a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    #[default]
    Secret,
    /// Meant to be public (in a browser or an app).
    Publishable,
}

/// What may be done about an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Record only.
    Observe,
    #[default]
    Alert,
    Suspend,
    Revoke,
}

/// A row of `keys`: who owns a key, and since when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: KeyId,
    /// The subscription it is assigned to.
    pub subscription: NameId,
    /// Since when; `None`: since the row was first seen (the first row of a key: since ever).
    pub valid_from: Option<EventTime>,
    pub state: KeyState,
    pub kind: KeyKind,
    pub created_at: Option<EventTime>,
    pub revoked_at: Option<EventTime>,
    /// When it was last used before the job saw it.
    pub last_used_at: Option<EventTime>,
    /// Who uses it, as the gateway calls them.
    pub consumer: NameId,
    /// The key, as the gateway's interface calls it.
    pub credential: NameId,
    /// From where it is meant to be used.
    pub allowed: Box<[Allowance]>,
    /// Whom to tell: addresses, separated by `;`.
    pub contact: NameId,
}

/// A place that a key is meant to be used from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Allowance {
    /// Addresses that share so many first bits with this, as IPv6 (IPv4 mapped).
    Network(u128, u8),
    Country(Country),
    Asn(u32),
}

impl Allowance {
    /// Whether it covers a caller: its address (zero: unknown), country and autonomous system.
    #[must_use]
    pub fn covers(&self, client: u128, country: Country, asn: u32) -> bool {
        match *self {
            Self::Network(first, bits) => {
                client != 0
                    && u128::BITS.checked_sub(bits.into()).is_some_and(|rest| {
                        (first ^ client).checked_shr(rest).is_none_or(|differing| differing == 0)
                    })
            }
            Self::Country(allowed) => allowed == country && country != Country::UNKNOWN,
            Self::Asn(allowed) => allowed == asn && asn != 0,
        }
    }
}

/// A row of `subscriptions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionRow {
    pub id: NameId,
    /// The customer it belongs to.
    pub customer: NameId,
    pub plan: NameId,
    pub time_zone: NameId,
    /// Day of the month on which it is billed, 1 to 31; 0 where unknown.
    pub billing_anchor: u8,
    pub started_at: Option<EventTime>,
    /// Whom to tell: addresses, separated by `;`.
    pub contacts: NameId,
}

/// A row of `plans`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanRow {
    pub id: NameId,
    /// Its name; the id where it has none.
    pub name: NameId,
    /// What may be done about an incident of its keys.
    pub policy: Policy,
}

/// A row of `leaks`: a report that a key was found where everybody can read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeakRow {
    pub key: KeyId,
    pub source: NameId,
    pub url: NameId,
    pub reported_at: Option<EventTime>,
}

/// A row of any table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TableRow {
    /// `keys`.
    Key(KeyRow),
    /// `subscriptions`.
    Subscription(SubscriptionRow),
    /// `plans`.
    Plan(PlanRow),
    /// `leaks`.
    Leak(LeakRow),
}

/// An upsert, or a tombstone, of one table row. Of several changes of a row in one tick the highest
/// `offset` wins. Assignments of a key with different `valid_from` are different rows, of which the last in a tick
/// says what the key is like; a tombstone of a key takes all of them, and what follows it in the tick is all the key
/// has (see [`crate::ownership`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableChange {
    /// Order within the table's input.
    pub offset: u64,
    pub row: TableRow,
    /// Whether the row is gone.
    pub deleted: bool,
}
