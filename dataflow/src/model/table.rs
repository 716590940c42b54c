//! Defines rows of the tables that events are joined with.

use std::fmt;

use keytide_billing::{Currency, Exact, Measure, PeriodKind, QuotaLimit, TierRow};
use serde::{Deserialize, Serialize};

use super::{Country, EventTime, KeyId, NameId};

/// The state of a key, which decides if it may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyState {
    #[default]
    Active,
    Suspended,
    Revoked,
}

impl_name!(KeyState { Active = "active", Suspended = "suspended", Revoked = "revoked" });

/// The kind of a key: secret or public.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    #[default]
    Secret,
    /// Public by design, as in a browser or an app.
    Publishable,
}

/// The most that may be done about an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Incidents are recorded and raise no alert.
    Observe,
    #[default]
    Alert,
    Suspend,
    Revoke,
}

impl_name!(Policy { Observe = "observe", Alert = "alert", Suspend = "suspend", Revoke = "revoke" });

/// A row of `keys`: the owner of a key, and since when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: KeyId,
    /// The subscription it is assigned to.
    pub subscription: NameId,
    /// The start of the assignment. `None` is the time at which the row was first seen; a key's first row holds since
    /// ever.
    pub valid_from: Option<EventTime>,
    pub state: KeyState,
    pub kind: KeyKind,
    pub created_at: Option<EventTime>,
    pub revoked_at: Option<EventTime>,
    /// The last use before the job saw the key.
    pub last_used_at: Option<EventTime>,
    pub place: KeyPlace,
    /// The callers that it is meant to be used by.
    pub allowed: Box<[Allowance]>,
    /// E-mail addresses, separated by `;`.
    pub contact: NameId,
}

/// Where a gateway has a key, as the table of keys says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyPlace {
    /// The name that the configuration has for the gateway.
    pub gateway: NameId,
    /// The name that the gateway has for the key's user.
    pub consumer: NameId,
    /// The name that the gateway's interface has for the key.
    pub credential: NameId,
}

/// Callers that a key is meant to be used by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Allowance {
    /// An address as IPv6 (IPv4 mapped), and the length of the prefix in bits.
    Network(u128, u8),
    Country(Country),
    Asn(u32),
}

impl Allowance {
    /// Returns true if it covers a caller: its address (zero if unknown), country and autonomous system.
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

/// A row of the table of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionRow {
    pub id: NameId,
    /// The customer it belongs to.
    pub customer: NameId,
    pub plan: NameId,
    pub time_zone: NameId,
    /// The day of the month on which it is billed, 1 to 31, or 0 where unknown.
    pub billing_anchor: u8,
    /// The start of its plan, time zone and anchor. `None` is the time at which the row was first seen; a subscription's
    /// first row holds since ever.
    pub valid_from: Option<EventTime>,
    pub started_at: Option<EventTime>,
    /// E-mail addresses, separated by `;`.
    pub contacts: NameId,
}

/// A row of the table of plans.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanRow {
    pub id: NameId,
    /// The name, or the id where it has none.
    pub name: NameId,
    /// The most that may be done about incidents of its keys.
    pub policy: Policy,
    pub fees: Box<PlanFees>,
}

/// The fees of a plan, and the bounds of a period's bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanFees {
    /// The currency of the plan and its prices; `None` is that of the configuration.
    pub currency: Option<Currency>,
    /// Due in each period, also without use.
    pub base_fee: Exact,
    pub minimum: Option<Exact>,
    pub maximum: Option<Exact>,
}

/// The holder of a quota. A subscription's own quota wins over its plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuotaHolder {
    Plan(NameId),
    Subscription(NameId),
}

/// A row of the table of quotas: how much of a measure may be used in a period.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuotaRow {
    pub holder: QuotaHolder,
    pub measure: Measure,
    pub period: PeriodKind,
    pub limit: QuotaLimit,
    /// `None` is the time at which the row was first seen; the first row of a quota holds since ever.
    pub valid_from: Option<EventTime>,
}

/// A row of the table of prices: one tier of an item of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PriceRow {
    pub plan: NameId,
    pub item: NameId,
    pub tier: TierRow,
    /// `None` is the time at which the row was first seen; the first rows of an item hold since ever.
    pub valid_from: Option<EventTime>,
}

/// A row of `leaks`: a report that a key was found in a public place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeakRow {
    pub key: KeyId,
    pub source: NameId,
    pub url: NameId,
    pub reported_at: Option<EventTime>,
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenDigest(pub [u8; 32]);

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The requests that a token of the table opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TokenRole {
    Admin,
    Ops,
    Check,
    /// Opens what belongs to this customer.
    Consumer(NameId),
}

/// A row of the table of tokens, which the API alone reads. No result depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenRow {
    pub digest: TokenDigest,
    /// The name of its holder, or none. Tokens of one name have their requests' ids together.
    pub name: NameId,
    pub role: TokenRole,
    /// The first instant at which it opens nothing more.
    pub expires_at: Option<EventTime>,
    /// Only an active one opens anything.
    pub state: KeyState,
}

/// A row of any table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TableRow {
    Key(KeyRow),
    Subscription(SubscriptionRow),
    Plan(PlanRow),
    Leak(LeakRow),
    Quota(QuotaRow),
    Price(Box<PriceRow>),
    Token(TokenRow),
}

/// An upsert, or a tombstone, of one table row. Of several changes of a row in one tick the highest `offset` wins.
///
/// Assignments of a key with different `valid_from` are different rows. The last of them in a tick has the key's
/// other columns. A tombstone of a key deletes all of its rows. The rows that follow it in the tick are all rows of
/// the key (see [`crate::ownership`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableChange {
    /// Orders the changes within the table's input.
    pub offset: u64,
    pub row: TableRow,
    /// True for a tombstone.
    pub deleted: bool,
}
