//! The input of templates of mails about quotas, to the contacts of a subscription.
//!
//! A mail says how much of which quota is used, how much is left and until when, and what comes then. It contains the
//! customer's own names and numbers, and nothing else.
//!
//! Limits: a digest lists 50 quotas and counts the others.

use std::collections::BTreeMap;

use keytide_billing::{Currency, Measure, PeriodKind};
use keytide_config::Language;
use serde::Serialize;

use super::clean::{NAME, foreign, line};
use super::digest::LISTED;
use super::view::{Fact, SUBJECT, left_out};
use super::words::{Wording, bytes, number};
use crate::quota::QuotaNoticeRow;

const RED: &str = "#c0261c";
const AMBER: &str = "#b45309";

/// A quota in words of the recipient's language.
#[derive(Serialize)]
pub(crate) struct QuotaView {
    subscription: String,
    /// The quota, such as `monthly quota of calls`.
    quota: String,
    /// The threshold, such as `80 %`.
    percent: String,
    /// The used part of the limit, such as `81.2 %`. Never more than there is.
    share: String,
    /// The used part of the limit in percent, at most 100, for a bar.
    filled: u64,
    used: String,
    /// The same before `of` and the limit: without a unit where the limit has it.
    used_of: String,
    limit: String,
    left: String,
    /// By the clock of the subscription's zone, as the other times here.
    resets_at: String,
    /// True if nothing is left.
    used_up: bool,
    /// True if calls beyond the limit are refused.
    hard: bool,
    /// The expected use at the period's end; absent without a history.
    expected: Option<String>,
    /// When it is used up, if use goes on like that; absent if it lasts, is used up, or nothing is expected.
    runs_out_at: Option<String>,
}

impl QuotaView {
    fn new(row: &QuotaNoticeRow, language: Wording) -> Self {
        let amount = |quantity| language.quantity(row, quantity);
        let used_up = row.remaining == 0;
        let expected = row.expected.map(|expected| {
            // The last bytes of a forecast say nothing.
            let (expected, is_of_bytes) = match row.metric.parse() {
                Ok(Measure::BytesIn | Measure::BytesOut | Measure::Bytes) => (bytes(expected), true),
                _ => (amount(expected), false),
            };
            let bound = |bound| if is_of_bytes { bytes(bound) } else { plain_quantity(row, bound) };
            match row.low.zip(row.high) {
                Some((low, high)) => {
                    let (low, high) = (bound(low), bound(high));
                    language
                        .pick(format!("{expected} ({low} to {high})"), format!("{expected}({low} ~ {high})"))
                }
                None => expected,
            }
        });
        let runs_out_at = row.runs_out_at.as_deref().filter(|_| !used_up);
        Self {
            subscription: foreign(&row.subscription, NAME),
            quota: language.quota(row),
            percent: format!("{} %", number(row.percent.into())),
            share: tenths(row.permille),
            filled: (row.permille / 10).min(100),
            used: amount(row.used),
            used_of: match row.metric.parse() {
                Ok(Measure::Calls | Measure::Units) => number(row.used),
                _ => amount(row.used),
            },
            limit: amount(row.limit),
            left: amount(row.remaining),
            resets_at: language.time_in(&row.resets_at, row.time_zone.as_deref()),
            used_up,
            hard: row.hard,
            expected,
            runs_out_at: runs_out_at.map(|at| language.time_in(at, row.time_zone.as_deref())),
        }
    }

    /// Says what is with the quota: `80 % of the monthly quota of calls used`.
    fn words(&self, language: Wording) -> String {
        let Self { quota, percent, share, used_up, .. } = self;
        match used_up {
            true => language
                .pick(format!("the {quota} is used up ({share})"), format!("{quota}를 모두 사용함({share})")),
            false => {
                language.pick(format!("{percent} of the {quota} used"), format!("{quota}의 {percent} 사용"))
            }
        }
    }
}

/// A notice as templates see it.
#[derive(Serialize)]
pub(crate) struct QuotaMailView {
    language: &'static str,
    pub(crate) subject: String,
    title: String,
    accent: &'static str,
    quota: QuotaView,
    facts: Vec<Fact>,
}

impl QuotaMailView {
    pub(crate) fn new(row: &QuotaNoticeRow, language: Wording) -> Self {
        let quota = QuotaView::new(row, language);
        let subscription = &quota.subscription;
        let words = quota.words(language);
        let subject = language.pick(
            format!("[Keytide] Subscription {subscription}: {words}"),
            format!("[Keytide] 구독 {subscription}: {words}"),
        );
        let title = match quota.used_up {
            true => language.pick(
                format!("Your {} is used up", quota.quota),
                format!("{}를 모두 사용했습니다", quota.quota),
            ),
            false => language.pick(
                format!("{} of your {} is used", quota.percent, quota.quota),
                format!("{}의 {}를 사용했습니다", quota.quota, quota.percent),
            ),
        };
        let mut facts = Vec::new();
        let mut add = |en, ko, value: Option<String>| {
            facts.extend(value.map(|value| Fact { label: language.pick(en, ko), value }));
        };
        add("Subscription", "구독", Some(subscription.clone()));
        add("Plan", "요금제", row.plan.as_deref().map(|plan| foreign(plan, NAME)));
        add("Limit", "한도", Some(quota.limit.clone()));
        add("Used", "사용량", Some(format!("{}, {}", quota.used, quota.share)));
        add("Left", "남은 양", Some(quota.left.clone()));
        let local = |at: &str| language.time_in(at, row.time_zone.as_deref());
        let resets_at = language.time(&row.resets_at);
        let resets_at = match quota.resets_at == resets_at {
            true => resets_at,
            false => format!("{}, {resets_at}", quota.resets_at),
        };
        add("Counted from", "집계 시작", Some(local(&row.period_start)));
        add("Resets", "초기화", Some(resets_at));
        add("Expected by then", "그때까지 예상", quota.expected.clone());
        add("Used up at this pace", "이 추세면 소진", quota.runs_out_at.clone());
        add("As of", "기준 시각", Some(local(&row.at)));
        Self {
            language: language.code(),
            subject: line(&subject, SUBJECT),
            title,
            accent: if quota.used_up { RED } else { AMBER },
            quota,
            facts,
        }
    }
}

/// A digest of notices as templates see it.
#[derive(Serialize)]
pub(crate) struct QuotaDigestView {
    language: &'static str,
    pub(crate) subject: String,
    accent: &'static str,
    /// The number of quotas in words.
    count: String,
    /// The number of those that are used up; absent if there is none.
    used_up: Option<String>,
    rows: Vec<QuotaRowView>,
    /// The number of notices that aren't listed; absent if all are.
    rest: Option<String>,
}

/// A quota in a digest as templates see it.
#[derive(Serialize)]
struct QuotaRowView {
    words: String,
    quota: QuotaView,
}

impl QuotaDigestView {
    /// Lists each quota by its newest notice, those with the largest used part first. `more` further notices are only
    /// known by number.
    pub(crate) fn new(notices: &[&QuotaNoticeRow], more: u64, language: Wording) -> Self {
        let mut newest: BTreeMap<String, &QuotaNoticeRow> = BTreeMap::new();
        for row in notices {
            let held = newest.entry(row.quota_id()).or_insert(row);
            if held.seq < row.seq {
                *held = row;
            }
        }
        let used_up = newest.values().filter(|row| row.remaining == 0).count() as u64;
        let count = newest.len() as u64;
        let mut rows: Vec<(String, &QuotaNoticeRow)> = newest.into_iter().collect();
        rows.sort_by(|(a, left), (b, right)| (right.permille, a).cmp(&(left.permille, b)));
        let rest = rows.len().saturating_sub(LISTED) as u64 + more;
        let many = number(count + more);
        let count = language.pick(
            if count + more == 1 { "1 quota".to_owned() } else { format!("{many} quotas") },
            format!("한도 {many}개"),
        );
        let used_up = (used_up > 0).then(|| number(used_up));
        let subject = match &used_up {
            Some(used_up) => language.pick(
                format!("[Keytide] Notice of {count} of your subscriptions, {used_up} of them used up"),
                format!("[Keytide] 구독 {count} 알림({used_up}개 소진)"),
            ),
            None => language.pick(
                format!("[Keytide] Notice of {count} of your subscriptions"),
                format!("[Keytide] 구독 {count} 알림"),
            ),
        };
        let row = |(_, row): &(String, &QuotaNoticeRow)| {
            let quota = QuotaView::new(row, language);
            QuotaRowView { words: quota.words(language), quota }
        };
        Self {
            language: language.code(),
            subject,
            accent: if used_up.is_some() { RED } else { AMBER },
            count,
            used_up,
            rows: rows.iter().take(LISTED).map(row).collect(),
            rest: left_out(rest),
        }
    }
}

/// Says in one line what a notice does, for messages that are no mails.
pub(crate) fn quota_words(row: &QuotaNoticeRow, language: Language) -> String {
    let language = Wording(language);
    let quota = QuotaView::new(row, language);
    let QuotaView { used, used_of, limit, left, resets_at, expected, runs_out_at, .. } = &quota;
    let mut words = language.pick(
        format!("{}, {used_of} of {limit}. Left until {resets_at}: {left}.", quota.words(language)),
        format!("{}, {limit} 중 {used}. {resets_at}까지 남은 양: {left}.", quota.words(language)),
    );
    if let Some(expected) = expected {
        words +=
            &language.pick(format!(" Expected by then: {expected}."), format!(" 그때까지 예상: {expected}."));
    }
    if let Some(at) = runs_out_at {
        words += &language.pick(format!(" At this pace used up on {at}."), format!(" 이 추세면 소진: {at}."));
    }
    words += match (row.hard, language.0) {
        (true, Language::En) => " Calls beyond it are refused.",
        (false, Language::En) => " Calls beyond it are answered and billed.",
        (true, Language::Ko) => " 초과한 호출은 거부됩니다.",
        (false, Language::Ko) => " 초과한 호출도 응답되며 과금됩니다.",
    };
    words
}

/// Formats thousandths as `81.2 %`.
fn tenths(permille: u64) -> String {
    let whole = number(permille / 10);
    match permille % 10 {
        0 => format!("{whole} %"),
        tenths => format!("{whole}.{tenths} %"),
    }
}

/// Formats a quantity of a quota without its unit, but amounts with their currency.
fn plain_quantity(row: &QuotaNoticeRow, quantity: u64) -> String {
    match row.metric.parse() {
        Ok(Measure::Cost) => money(quantity, row.currency.as_deref()),
        _ => number(quantity),
    }
}

/// Formats a quantity of cost with its currency.
fn money(cost: u64, currency: Option<&str>) -> String {
    let amount = Currency::cost_text(currency.and_then(|code| code.parse().ok()), cost);
    let places = amount.split_once('.').map_or_else(String::new, |(_, places)| format!(".{places}"));
    let code = currency.map(|code| format!(" {}", foreign(code, NAME)));
    format!("{}{places}{}", number(cost / 10_000), code.unwrap_or_default())
}

impl Wording {
    /// Formats a quantity of a quota as `8,123 calls`, `1,024 bytes (1 KiB)` or `49.90 EUR`.
    fn quantity(self, row: &QuotaNoticeRow, quantity: u64) -> String {
        let many = number(quantity);
        match row.metric.parse() {
            Ok(Measure::Calls) => self.calls(quantity),
            Ok(Measure::BytesIn | Measure::BytesOut | Measure::Bytes) => {
                let exact = match quantity {
                    1 => self.pick("1 byte", "1바이트").to_owned(),
                    _ => self.pick(format!("{many} bytes"), format!("{many}바이트")),
                };
                let about = self.pick(" ", "");
                if quantity < 1 << 10 { exact } else { format!("{exact}{about}({})", bytes(quantity)) }
            }
            Ok(Measure::Units) if quantity == 1 => self.pick("1 unit", "1단위").to_owned(),
            Ok(Measure::Units) => self.pick(format!("{many} units"), format!("{many}단위")),
            Ok(Measure::Cost) => money(quantity, row.currency.as_deref()),
            Err(_) => many,
        }
    }

    /// Names a quota by its period and metric: `monthly quota of calls`.
    fn quota(self, row: &QuotaNoticeRow) -> String {
        let period = match row.period.parse() {
            Ok(PeriodKind::Second) => self.pick("per-second", "초당"),
            Ok(PeriodKind::Minute) => self.pick("per-minute", "분당"),
            Ok(PeriodKind::Hour) => self.pick("hourly", "시간당"),
            Ok(PeriodKind::Day) => self.pick("daily", "일간"),
            Ok(PeriodKind::Month) => self.pick("monthly", "월간"),
            Ok(PeriodKind::Billing) => self.pick("billing period's", "청구 기간"),
            Err(_) => return self.pick("quota", "한도").to_owned(),
        };
        let metric = match row.metric.parse() {
            Ok(Measure::Calls) => self.pick("quota of calls", "호출 한도"),
            Ok(Measure::BytesIn) => self.pick("quota of request bytes", "요청 바이트 한도"),
            Ok(Measure::BytesOut) => self.pick("quota of response bytes", "응답 바이트 한도"),
            Ok(Measure::Bytes) => self.pick("quota of bytes", "바이트 한도"),
            Ok(Measure::Units) => self.pick("quota of units", "사용 단위 한도"),
            Ok(Measure::Cost) => self.pick("spending limit", "비용 한도"),
            Err(_) => self.pick("quota", "한도"),
        };
        format!("{period} {metric}")
    }
}
