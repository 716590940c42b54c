//! The input of templates that list: the digest of a storm, and the daily one of revoked keys.
//!
//! Limits: a digest lists 50 incidents and 50 changes of actions, and counts the others.

use std::collections::BTreeSet;

use keytide_config::Language;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{ActionState, Change, Verb};
use serde::Serialize;

use super::action::ActionRowView;
use super::clean::{NAME, foreign, line};
use super::guide::Guide;
use super::headline::{refused, stolen_keys};
use super::view::{AnswerView, CLIENT, ID, SUBJECT, VALUES, left_out, owner_name, short_key, whose};
use super::words::{Wording, number};
use super::{Audience, PlannedAction, is_over};
use crate::actions::ActionNotice;

/// The most incidents that a digest lists, and the most changes of actions.
pub(super) const LISTED: usize = 50;

/// The incidents and actions that one digest tells instead of a mail for each.
#[derive(Clone, Debug, Default)]
pub struct StormDigest<'a> {
    /// Transitions of incidents, each with the action that says what is done about its key.
    pub incidents: Vec<(&'a TransitionJson, Option<&'a PlannedAction>)>,
    /// Transitions that are only known by number.
    pub more: u64,
    pub actions: Vec<&'a ActionNotice>,
    /// Changes of actions that are only known by number.
    pub more_actions: u64,
    /// The actions that wait for a person, those that are only known by number included.
    pub held: u64,
}

/// Ranks a change of an action by how little it matters: what failed, what waits, then the rest.
pub(crate) fn weight(state: ActionState) -> u8 {
    match state {
        ActionState::Failed => 0,
        ActionState::Held => 1,
        ActionState::Requested | ActionState::Done | ActionState::Confirmed => 2,
        ActionState::Withdrawn => 3,
    }
}

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
    /// What is done about the key; absent for owners, and if nothing is known of it.
    action: Option<String>,
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
    /// True if it tells of incidents, and not of actions alone.
    incidents: bool,
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
    /// The number of actions that wait, as `12 actions wait`; absent for owners, and if none does.
    held: Option<String>,
    /// The command that lists actions, and the one that holds all; none for owners, and if nobody may answer.
    answers: Vec<AnswerView>,
    /// Changes of actions, those that matter most first.
    actions: Vec<ActionRowView>,
    /// The number of changes in words.
    actions_count: String,
    /// The number of changes that aren't listed; absent if all are.
    actions_rest: Option<String>,
}

impl DigestView {
    /// Lists the most probable and busiest incidents first.
    pub(crate) fn new(
        digest: &StormDigest<'_>,
        audience: Audience,
        language: Wording,
        guide: &Guide,
    ) -> Self {
        let owner = audience == Audience::Owner;
        let StormDigest { incidents, more, actions, more_actions, held } = digest;
        let mut rows = incidents.clone();
        let rank = |transition: &TransitionJson| {
            (
                is_over(transition),
                transition.level != "revoke",
                u8::MAX - transition.score,
                u64::MAX - transition.evidence.calls,
            )
        };
        rows.sort_by(|(a, _), (b, _)| {
            rank(a).cmp(&rank(b)).then_with(|| (&a.incident_id, a.seq).cmp(&(&b.incident_id, b.seq)))
        });
        let sorted: Vec<&TransitionJson> = rows.iter().map(|(transition, _)| *transition).collect();
        let mut actions = actions.clone();
        actions.sort_by_key(|notice| (weight(notice.state), notice.id, notice.seq));
        let (count, key_count) = (number(sorted.len() as u64 + more), number(count_keys(&sorted) as u64));
        let alarms = sorted.iter().filter(|each| !is_over(each)).count();
        let changes = actions.len() as u64 + more_actions;
        let of_incidents = match (language.0, audience) {
            (Language::En, Audience::Security) => {
                format!(
                    "DIGEST {count} changes of incidents, {} alerts, of {key_count} keys",
                    number(alarms as u64)
                )
            }
            (Language::Ko, Audience::Security) => {
                format!("요약 키 {key_count}개의 사건 변동 {count}건(경보 {}건)", number(alarms as u64))
            }
            (Language::En, Audience::Owner) => format!("{key_count} of your API keys may have leaked"),
            (Language::Ko, Audience::Owner) => {
                format!("API 키 {key_count}개가 유출되었을 수 있습니다")
            }
        };
        let many = number(changes);
        let waiting = (*held > 0 && !owner).then(|| language.waiting(*held));
        let of_actions = match audience {
            Audience::Security => language.pick(
                if changes == 1 {
                    "1 change of an action".to_owned()
                } else {
                    format!("{many} changes of actions")
                },
                format!("조치 변동 {many}건"),
            ),
            Audience::Owner => language.pick(
                format!("{many} of your API keys were blocked or let in again"),
                format!("API 키 {many}개가 차단되거나 다시 허용되었습니다"),
            ),
        };
        let for_person = |waiting: &String| {
            language.pick(format!("{waiting} for a person"), format!("{waiting} 승인을 기다림"))
        };
        let has_incidents = !sorted.is_empty() || *more > 0;
        let parts = [
            has_incidents.then_some(of_incidents),
            waiting.as_ref().map(for_person),
            (changes > 0).then_some(of_actions.clone()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let digest_of = match has_incidents || owner {
            true => "",
            false => language.pick("DIGEST ", "요약 "),
        };
        let subject = line(&format!("[Keytide] {digest_of}{}", parts.join("; ")), SUBJECT);
        let list = language.pick("List the actions", "조치 목록 보기");
        let asked = (waiting.is_some() || changes > 0) && !owner;
        let answers = [
            guide.list().map(|command| AnswerView { what: list, command }),
            guide.pause().map(|command| AnswerView { what: language.answer(Verb::Pause), command }),
        ];
        let networks = sorted.iter().filter(|each| each.transition != Change::Withdrawn);
        let many = networks.filter_map(|each| Some((stolen_keys(each)?.keys, *each)));
        let story = many.max_by_key(|(keys, _)| *keys).and_then(|(_, each)| language.other_keys(each));
        let time = |at: Option<&str>| at.map(|at| language.time(at)).unwrap_or_default();
        Self {
            language: language.code(),
            owner,
            subject,
            accent: "#c0261c",
            incidents: has_incidents,
            count,
            keys: key_count,
            story: story.filter(|_| !owner),
            from: time(sorted.iter().map(|each| each.at.as_str()).min()),
            to: time(sorted.iter().map(|each| each.at.as_str()).max()),
            rest: left_out(rows.len().saturating_sub(LISTED) as u64 + more),
            held: waiting,
            answers: answers.into_iter().flatten().filter(|_| asked).collect(),
            actions_count: of_actions,
            actions_rest: left_out(actions.len().saturating_sub(LISTED) as u64 + more_actions),
            actions: actions
                .iter()
                .take(LISTED)
                .map(|notice| ActionRowView::new(notice, audience, language))
                .collect(),
            platform_event: sorted.iter().any(|each| each.platform_event),
            catching_up: sorted.iter().any(|each| each.catching_up),
            rows: rows
                .iter()
                .take(LISTED)
                .map(|(each, planned)| DigestRow {
                    alarm: language.alarm(each),
                    key: short_key(&each.key_id),
                    whose: match audience {
                        Audience::Security => whose(each),
                        Audience::Owner => short_key(&each.key_id),
                    },
                    headline: language.headline(each),
                    action: planned.filter(|_| !owner).map(|planned| language.planned(planned)),
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
