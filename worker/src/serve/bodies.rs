//! The bodies of requests and answers.
//!
//! A request's body is an object: [`Members`] refuses the arrays that serde would take for one. In it a member that is null
//! is as absent, as many clients write what they don't have so. A whole number may have a fraction of zero or an exponent.
//! JSON knows no other integers, and Lua writes large ones as `1e+15`.

use std::marker::PhantomData;

use keytide_billing::BilledUse;
use keytide_connectors::sink::encode::time;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::headers::{retry_after, seconds_until};
use super::ledger::{CheckAnswer, CheckVerdict, QuotaAnswer};

/// The most calls that a check asks for.
pub(super) const MOST_HITS: u64 = 1 << 63;
/// The most bytes of a request's id.
pub(super) const REQUEST_ID_BYTES: usize = 256;

/// A body that a request may have.
pub(super) trait RequestBody: serde::de::DeserializeOwned {
    /// The words for what it must be, to those who send another one.
    const FORM: &'static str;
}

impl RequestBody for CheckBody {
    const FORM: &'static str = "the body must be JSON with one of key_hash, key_id and subscription, and optionally hits, estimate \
                                {units, bytes_in, bytes_out} and request_id";
}

const SETTLE_FORM: &str = "the body must be JSON with reservation, and to settle optionally actual {hits, units, bytes_in, \
                           bytes_out} and, with [api.settlements], one of key_hash and key_id";

impl RequestBody for SettleBody {
    const FORM: &'static str = SETTLE_FORM;
}

impl RequestBody for LinkBody {
    const FORM: &'static str =
        "the body must be JSON with customer, and optionally expires_in, 60 to 86,400 seconds";
}

impl RequestBody for RollbackBody {
    const FORM: &'static str = SETTLE_FORM;
}

/// A check: may this key, or this subscription, make these calls now?
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    /// The hash of the raw key as tables have it, in hexadecimal digits.
    pub(super) key_hash: Option<String>,
    /// The key as views name it.
    pub(super) key_id: Option<String>,
    /// The id as the table of subscriptions has it.
    pub(super) subscription: Option<String>,
    /// How many calls; 0 asks how quotas stand.
    #[serde(default, deserialize_with = "whole")]
    pub(super) hits: Option<u64>,
    /// With an estimate, which may be `{}`, the use is reserved for 60 s.
    pub(super) estimate: Option<Members<EstimateBody>>,
    /// A request that is asked again with the same id has the same answer for 60 s, and counts once.
    pub(super) request_id: Option<String>,
}

/// What calls will use beside themselves.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EstimateBody {
    #[serde(deserialize_with = "whole")]
    pub(super) bytes_in: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) bytes_out: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) units: Option<u64>,
}

/// A settlement of a reservation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleBody {
    pub(super) reservation: String,
    pub(super) actual: Option<Members<ActualBody>>,
    /// The key, where settlements are recorded: by the hash as tables have it,
    pub(super) key_hash: Option<String>,
    /// or as views name it.
    pub(super) key_id: Option<String>,
}

/// What calls used. An absent member is as it was reserved.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ActualBody {
    #[serde(deserialize_with = "whole")]
    pub(super) hits: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) bytes_in: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) bytes_out: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) units: Option<u64>,
}

/// The end of a reservation whose calls weren't made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    pub(super) reservation: String,
}

/// A link by which a customer sees its page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkBody {
    pub(super) customer: String,
    /// Seconds, an hour without it.
    #[serde(default, deserialize_with = "whole")]
    pub(super) expires_in: Option<u64>,
}

/// The answer to a check.
#[derive(Debug, Serialize)]
pub(super) struct CheckPage {
    pub(super) allowed: bool,
    /// One of ok, unknown, quota, suspended, revoked and stale.
    pub(super) reason: &'static str,
    /// True if no tick was applied in the last 60 s.
    pub(super) stale: bool,
    /// The limit of the quota that decides, and the next three likewise; null without a quota.
    pub(super) limit: Option<u64>,
    pub(super) used: Option<u128>,
    pub(super) remaining: Option<u64>,
    /// Seconds until the quota's period ends.
    pub(super) reset: Option<u64>,
    /// Seconds after which a denied check may be allowed.
    pub(super) retry_after: Option<u64>,
    pub(super) reservation: Option<String>,
    pub(super) quotas: Vec<QuotaPage>,
}

/// A quota in the answer to a check.
#[derive(Debug, Serialize)]
pub(super) struct QuotaPage {
    pub(super) metric: &'static str,
    pub(super) period: &'static str,
    pub(super) period_start: String,
    pub(super) limit: u64,
    pub(super) used: u128,
    pub(super) remaining: u64,
    pub(super) hard: bool,
    pub(super) resets_at: String,
    /// True if the check was denied because of it.
    pub(super) exceeded: bool,
}

/// How a subscription's quotas stand.
#[derive(Debug, Serialize)]
pub(super) struct StandingPage {
    /// True if no tick was applied in the last 60 s.
    pub(super) stale: bool,
    pub(super) quotas: Vec<QuotaPage>,
}

/// The state of the ledger.
#[derive(Debug, Serialize)]
pub(super) struct StatusPage {
    /// The time of the last tick that was applied; null before the first.
    pub(super) tick: Option<String>,
    pub(super) tick_age_ms: Option<u64>,
    /// True if no tick was applied in the last 60 s.
    pub(super) stale: bool,
    /// All minutes before are booked.
    pub(super) booked_through: Option<String>,
    /// The answer to checks of hard quotas while it is stale.
    pub(super) on_stale: &'static str,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
pub(super) struct ErrorPage<'a> {
    pub(super) error: &'a str,
}

/// What stands in an object, and in nothing else.
#[derive(Debug)]
pub(super) struct Members<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Members<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Members)
    }
}

/// A number of calls, bytes or units as JSON may write it.
struct WholeNumber(u64);

impl<'de> Deserialize<'de> for WholeNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor).map(Self)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a whole number below 2^64")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    #[allow(clippy::cast_sign_loss, reason = "the next line finds what is lost")]
    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        // Those that aren't whole, negative or too large come back as another number.
        let whole = number as u64;
        if whole as f64 == number && whole < u64::MAX {
            Ok(whole)
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &self))
        }
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<WholeNumber>::deserialize(deserializer)?.map(|number| number.0))
}

impl ActualBody {
    /// Returns the use of a reservation.
    pub(super) fn of(self, reserved: BilledUse) -> BilledUse {
        let or = |actual: Option<u64>, reserved| actual.map_or(reserved, u128::from);
        BilledUse {
            calls: or(self.hits, reserved.calls),
            bytes_in: or(self.bytes_in, reserved.bytes_in),
            bytes_out: or(self.bytes_out, reserved.bytes_out),
            units: or(self.units, reserved.units),
        }
    }
}

/// Returns the word for why a check is allowed or denied.
pub(super) fn reason(answer: &CheckAnswer) -> &'static str {
    match answer.verdict {
        CheckVerdict::Allowed if !answer.is_known => "unknown",
        CheckVerdict::Allowed => "ok",
        CheckVerdict::Exceeded => "quota",
        CheckVerdict::Suspended => "suspended",
        CheckVerdict::Revoked => "revoked",
        CheckVerdict::Stale => "stale",
    }
}

impl CheckPage {
    pub(super) fn of(answer: &CheckAnswer, now_ms: u64) -> Self {
        let decisive = answer.decisive().map(|quota| &quota.standing);
        Self {
            allowed: answer.is_allowed(),
            reason: reason(answer),
            stale: answer.is_stale,
            limit: decisive.map(|standing| standing.limit),
            used: decisive.map(|standing| standing.used),
            remaining: decisive.map(|standing| standing.remaining),
            reset: decisive.map(|standing| seconds_until(standing.resets_at_ms, now_ms)),
            retry_after: retry_after(answer, now_ms),
            reservation: answer.reservation.map(|id| id.to_string()),
            quotas: answer.quotas.iter().map(QuotaPage::of).collect(),
        }
    }
}

impl StandingPage {
    pub(super) fn of(answer: &CheckAnswer) -> Self {
        let quotas = answer.quotas.iter().map(QuotaPage::of).collect();
        Self { stale: answer.is_stale, quotas }
    }
}

impl QuotaPage {
    pub(super) fn of(QuotaAnswer { measure, period, start_ms, standing, is_exceeded }: &QuotaAnswer) -> Self {
        Self {
            metric: measure.name(),
            period: period.name(),
            period_start: time(*start_ms),
            limit: standing.limit,
            used: standing.used,
            remaining: standing.remaining,
            hard: standing.hard,
            resets_at: time(standing.resets_at_ms),
            exceeded: *is_exceeded,
        }
    }
}
