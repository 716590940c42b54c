//! The input of templates that list incidents: the digest of a storm, and the daily one of revoked keys.
//!
//! Limits: a digest lists 50 incidents, and counts the others.

use std::collections::BTreeSet;

use keytide_config::Language;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use serde::Serialize;

use super::clean::{NAME, foreign, line};
use super::headline::{refused, stolen_keys};
use super::view::{CLIENT, ID, VALUES, left_out, owner_name, short_key, whose};
use super::words::{Wording, number};
use super::{Audience, is_over};

/// The most incidents that a digest lists.
pub(super) const LISTED: usize = 50;

/// Counts the keys of transitions, each of them once.
fn count_keys(transitions: &[&TransitionJson]) -> usize {
    transitions.iter().map(|each| each.key_id.as_str()).collect::<BTreeSet<_>>().len()
}

/// An incident in a digest as templates see it.
#[derive(Serialize)]
pub(crate) struct DigestRow {
    alarm: &'static str,
    key: String,
    whose: String,
    headline: String,
    at: String,
    /// The score in percent; absent for owners.
    score: Option<u8>,
    calls: String,
    incident_id: String,
}

/// A digest as templates see it.
#[derive(Serialize)]
pub(crate) struct DigestView {
    language: &'static str,
    /// True if the mail is for owners.
    owner: bool,
    pub(crate) subject: String,
    accent: &'static str,
    count: String,
    keys: String,
    /// The sentence about the network with most other keys, if these look like a stolen database; absent for owners.
    story: Option<String>,
    /// The time of the first transition; `to` has that of the last.
    from: String,
    to: String,
    rows: Vec<DigestRow>,
    /// The number of incidents that aren't listed; absent if all are.
    rest: Option<String>,
    platform_event: bool,
    catching_up: bool,
}

impl DigestView {
    /// Lists the most probable and busiest incidents first.
    pub(crate) fn new(
        transitions: &[&TransitionJson],
        more: u64,
        audience: Audience,
        language: Wording,
    ) -> Self {
        let mut sorted = transitions.to_vec();
        let rank = |transition: &TransitionJson| {
            (
                is_over(transition),
                transition.level != "revoke",
                u8::MAX - transition.score,
                u64::MAX - transition.evidence.calls,
            )
        };
        sorted.sort_by(|a, b| {
            rank(a).cmp(&rank(b)).then_with(|| (&a.incident_id, a.seq).cmp(&(&b.incident_id, b.seq)))
        });
        let (count, key_count) = (number(sorted.len() as u64 + more), number(count_keys(&sorted) as u64));
        let alarms = sorted.iter().filter(|each| !is_over(each)).count();
        let subject = match (language.0, audience) {
            (Language::En, Audience::Security) => {
                format!(
                    "[Keytide] DIGEST {count} changes of incidents, {} alerts, of {key_count} keys",
                    number(alarms as u64)
                )
            }
            (Language::Ko, Audience::Security) => {
                format!(
                    "[Keytide] 요약 키 {key_count}개의 사건 변동 {count}건(경보 {}건)",
                    number(alarms as u64)
                )
            }
            (Language::En, Audience::Owner) => {
                format!("[Keytide] {key_count} of your API keys may have leaked")
            }
            (Language::Ko, Audience::Owner) => {
                format!("[Keytide] API 키 {key_count}개가 유출되었을 수 있습니다")
            }
        };
        let networks = sorted.iter().filter(|each| each.transition != Change::Withdrawn);
        let many = networks.filter_map(|each| Some((stolen_keys(each)?.keys, *each)));
        let story = many.max_by_key(|(keys, _)| *keys).and_then(|(_, each)| language.other_keys(each));
        let time = |at: Option<&str>| at.map(|at| language.time(at)).unwrap_or_default();
        Self {
            language: language.code(),
            owner: audience == Audience::Owner,
            subject,
            accent: "#c0261c",
            count,
            keys: key_count,
            story: story.filter(|_| audience == Audience::Security),
            from: time(sorted.iter().map(|each| each.at.as_str()).min()),
            to: time(sorted.iter().map(|each| each.at.as_str()).max()),
            rest: left_out(sorted.len().saturating_sub(LISTED) as u64 + more),
            platform_event: sorted.iter().any(|each| each.platform_event),
            catching_up: sorted.iter().any(|each| each.catching_up),
            rows: sorted
                .iter()
                .take(LISTED)
                .map(|each| DigestRow {
                    alarm: language.alarm(each),
                    key: short_key(&each.key_id),
                    whose: match audience {
                        Audience::Security => whose(each),
                        Audience::Owner => short_key(&each.key_id),
                    },
                    headline: language.headline(each),
                    at: language.time(&each.at),
                    score: (audience == Audience::Security).then(|| each.score.min(100)),
                    calls: language.calls(each.evidence.calls),
                    incident_id: line(&each.incident_id, ID),
                })
                .collect(),
        }
    }
}

/// A revoked key that is still called with, as templates see it.
#[derive(Serialize)]
pub(crate) struct NoticeRow {
    key: String,
    /// The customer or the subscription; absent if the key has neither.
    owner: Option<String>,
    /// The number of refused calls in words.
    calls: String,
    /// The start of the calls.
    since: String,
    /// The time of the last call that is known.
    last: String,
    /// One of `open`, `ended`, `withdrawn`.
    state: String,
    /// The networks, programs or addresses that called.
    callers: Vec<String>,
    incident_id: String,
}

/// The daily digest as templates see it.
#[derive(Serialize)]
pub(crate) struct DailyView {
    language: &'static str,
    pub(crate) subject: String,
    accent: &'static str,
    /// The number of keys in words.
    keys: String,
    calls: String,
    rows: Vec<NoticeRow>,
    /// The number of changes that aren't listed; absent if all are.
    rest: Option<String>,
}

impl DailyView {
    /// Lists the busiest keys first.
    pub(crate) fn new(notices: &[&TransitionJson], more: u64, language: Wording) -> Self {
        let mut sorted = notices.to_vec();
        sorted.sort_by(|a, b| {
            NoticeRow::calls(b).cmp(&NoticeRow::calls(a)).then_with(|| a.incident_id.cmp(&b.incident_id))
        });
        let all = sorted.iter().fold(0, |all: u64, each| all.saturating_add(each.evidence.calls));
        let calls = language.calls(all);
        let keys = match count_keys(&sorted) as u64 {
            1 => language.pick("1 revoked key", "폐기된 키 1개").to_owned(),
            keys => {
                let keys = number(keys);
                language.pick(format!("{keys} revoked keys"), format!("폐기된 키 {keys}개"))
            }
        };
        let notice = language.pick("NOTICE", "참고");
        Self {
            language: language.code(),
            subject: language.pick(
                format!("[Keytide] {notice} {keys} still called with: {calls} refused"),
                format!("[Keytide] {notice} {keys}로 한 {calls}가 거부됨"),
            ),
            accent: "#4b5563",
            keys,
            calls,
            rest: left_out(sorted.len().saturating_sub(LISTED) as u64 + more),
            rows: sorted.iter().take(LISTED).map(|each| NoticeRow::new(each, language)).collect(),
        }
    }
}

impl NoticeRow {
    /// Counts the refused calls of a revoked key, which are all of its calls.
    fn calls(notice: &TransitionJson) -> u64 {
        refused(notice).max(notice.evidence.calls)
    }

    fn new(notice: &TransitionJson, language: Wording) -> Self {
        let values = notice.signals.iter().flat_map(|signal| &signal.values);
        let values = values.filter(|value| matches!(value.kind.as_str(), "network" | "user_agent" | "asn"));
        let mut callers: Vec<String> = values.map(|value| language.value(value)).collect();
        if callers.is_empty() {
            let clients = notice.evidence.samples.iter().filter_map(|sample| sample.client.as_deref());
            callers.extend(clients.map(|client| line(client, CLIENT)));
        }
        let mut seen = BTreeSet::new();
        callers.retain(|caller| seen.insert(caller.clone()));
        callers.truncate(VALUES);
        Self {
            key: line(&notice.key_id, NAME),
            owner: owner_name(notice).map(|name| foreign(name, NAME)),
            calls: language.calls(Self::calls(notice)),
            since: language.time(&notice.opened_at),
            last: language.time(&notice.last_signal_at),
            state: line(&notice.state, NAME),
            callers,
            incident_id: line(&notice.incident_id, ID),
        }
    }
}
