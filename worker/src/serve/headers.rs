//! The headers that say how a quota stands: `RateLimit-Policy` and `RateLimit` of the IETF's draft
//! (draft-ietf-httpapi-ratelimit-headers-10), the older `X-RateLimit-*`, and `Retry-After`.
//!
//! A policy is named by measure and period, such as `"calls-day"`. Its unit is requests unless `qu` says otherwise. The
//! older headers have the quota that decides alone. All times are in seconds from now on, rounded up.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use keytide_billing::Measure;

use super::ledger::{CheckAnswer, CheckVerdict, QuotaAnswer};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const USED: HeaderName = HeaderName::from_static("x-ratelimit-used");
/// How long a caller is to wait while the ledger is stale.
const STALE_SECONDS: u64 = 10;

/// Returns the seconds until an instant, rounded up.
pub(super) fn seconds_until(at_ms: u64, now_ms: u64) -> u64 {
    at_ms.saturating_sub(now_ms).div_ceil(1_000)
}

/// Returns how long to wait after a denial, if that helps.
pub(super) fn retry_after(answer: &CheckAnswer, now_ms: u64) -> Option<u64> {
    match answer.verdict {
        CheckVerdict::Exceeded => {
            answer.decisive().map(|quota| seconds_until(quota.standing.resets_at_ms, now_ms).max(1))
        }
        CheckVerdict::Stale => Some(STALE_SECONDS),
        CheckVerdict::Allowed | CheckVerdict::Suspended | CheckVerdict::Revoked => None,
    }
}

/// Adds the headers of an answer.
pub(super) fn add_headers(answer: &CheckAnswer, now_ms: u64, headers: &mut HeaderMap) {
    if let Some(seconds) = retry_after(answer, now_ms) {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    let Some(decisive) = answer.decisive() else { return };
    let (mut policy, mut state) = (String::new(), String::new());
    for quota in &answer.quotas {
        add_policy(quota, now_ms, &mut policy, &mut state);
    }
    // Both are of names and digits.
    let text = |text: String| HeaderValue::try_from(text).ok();
    let number = |number: u64| Some(HeaderValue::from(number));
    let standing = &decisive.standing;
    for (name, value) in [
        (POLICY, text(policy)),
        (STATE, text(state)),
        (LIMIT, number(standing.limit)),
        (REMAINING, number(standing.remaining)),
        (RESET, number(seconds_until(standing.resets_at_ms, now_ms))),
        (USED, text(standing.used.to_string())),
    ] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

fn add_policy(quota: &QuotaAnswer, now_ms: u64, policy: &mut String, state: &mut String) {
    let separator = if policy.is_empty() { "" } else { ", " };
    let (measure, period) = (quota.measure.name(), quota.period.name());
    let width = seconds_until(quota.standing.resets_at_ms, quota.start_ms);
    let unit = match quota.measure {
        Measure::Calls => "",
        Measure::BytesIn | Measure::BytesOut | Measure::Bytes => ";qu=\"content-bytes\"",
        Measure::Units => ";qu=\"units\"",
        Measure::Cost => ";qu=\"cost\"",
    };
    // Writing to a string can't fail.
    let _ = write!(policy, "{separator}\"{measure}-{period}\";q={};w={width}{unit}", quota.standing.limit);
    let reset = seconds_until(quota.standing.resets_at_ms, now_ms);
    let _ = write!(state, "{separator}\"{measure}-{period}\";r={};t={reset}", quota.standing.remaining);
}

#[cfg(test)]
mod tests {
    use keytide_billing::{PeriodKind, QuotaStanding};

    use super::*;

    fn quota(
        measure: Measure,
        period: PeriodKind,
        (limit, used): (u64, u128),
        resets_at_ms: u64,
    ) -> QuotaAnswer {
        let remaining = u128::from(limit).saturating_sub(used) as u64;
        let standing = QuotaStanding { limit, used, remaining, permille: 0, hard: true, resets_at_ms };
        QuotaAnswer { measure, period, start_ms: 0, standing, is_exceeded: false }
    }

    fn headers(answer: &CheckAnswer, now_ms: u64) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        add_headers(answer, now_ms, &mut headers);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        headers.iter().map(text).collect()
    }

    #[test]
    fn all_policies_and_the_one_that_decides_are_named() {
        let quotas = vec![
            quota(Measure::Calls, PeriodKind::Day, (100, 101), 86_400_000),
            quota(Measure::Bytes, PeriodKind::Minute, (5_000, 10), 60_000),
        ];
        let answer = CheckAnswer { verdict: CheckVerdict::Exceeded, quotas, ..CheckAnswer::default() };
        let expected = [
            ("retry-after", "86341"),
            (
                "ratelimit-policy",
                "\"calls-day\";q=100;w=86400, \"bytes-minute\";q=5000;w=60;qu=\"content-bytes\"",
            ),
            ("ratelimit", "\"calls-day\";r=0;t=86341, \"bytes-minute\";r=4990;t=1"),
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "86341"),
            ("x-ratelimit-used", "101"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&answer, 59_001), expected);
    }

    #[test]
    fn without_quotas_there_are_no_headers_and_waiting_helps_no_revoked_key() {
        for verdict in [CheckVerdict::Allowed, CheckVerdict::Suspended, CheckVerdict::Revoked] {
            assert_eq!(headers(&CheckAnswer { verdict, ..CheckAnswer::default() }, 0), []);
        }
        let stale = CheckAnswer { verdict: CheckVerdict::Stale, ..CheckAnswer::default() };
        assert_eq!(headers(&stale, 0), [("retry-after".to_owned(), "10".to_owned())]);
        // A period that ended just now is over at once.
        let quotas = vec![quota(Measure::Calls, PeriodKind::Second, (0, 0), 1_000)];
        let over = CheckAnswer { verdict: CheckVerdict::Exceeded, quotas, ..CheckAnswer::default() };
        assert_eq!(retry_after(&over, 1_000), Some(1));
    }
}
