//! The input of templates of mails about actions, and about gateways that are late with them.
//!
//! A mail about an action says what became of it, who wanted it, and what to do now. Owners read that their key is
//! suspended, revoked or let in again, or still answered. They read neither people's names and reasons nor gateways.

use jiff::Timestamp;
use keytide_config::Language;
use keytide_dataflow::model::EventTime;
use keytide_dataflow::{Action, ActionState, Verb};
use serde::Serialize;

use super::clean::{NAME, REASON, foreign, line};
use super::guide::Guide;
use super::view::{AnswerView, Fact, ID, SUBJECT, key_of, left_out, short_key};
use super::words::{Wording, number};
use super::{Audience, PlannedAction};
use crate::actions::{ActionNotice, GatewayNotice};

const RED: &str = "#c0261c";
const GREEN: &str = "#1b7f4b";
const GREY: &str = "#4b5563";

/// A change of an action as templates see it.
#[derive(Serialize)]
pub(crate) struct ActionMailView {
    language: &'static str,
    /// True if the mail is for owners.
    owner: bool,
    /// One of `suspend`, `revoke`, `reinstate`.
    action: &'static str,
    /// One of `held`, `done`, `failed`, `withdrawn`.
    state: &'static str,
    /// True if it was done, and calls with the key are answered all the same.
    still_answered: bool,
    pub(crate) subject: String,
    title: String,
    /// The word at the start of the subject, such as `SUSPENDED`; absent for owners.
    alarm: Option<&'static str>,
    accent: &'static str,
    key: String,
    /// Says who wanted it, as a clause; absent for owners.
    by: Option<String>,
    /// Says why it is in this state, or was asked for; absent for owners, and if there is nothing to say.
    why: Option<String>,
    gateway: Option<String>,
    facts: Vec<Fact>,
    /// The configured steps of owners of a key that is denied; empty if there are none.
    steps: Vec<String>,
    link: Option<String>,
    /// The commands that answer; none for owners, and if nobody may answer.
    answers: Vec<AnswerView>,
    /// The ids with which the action is looked up; none for owners.
    lookup: Vec<Fact>,
    /// The command that shows the action; absent for owners, and if nobody may answer.
    show: Option<String>,
}

impl ActionMailView {
    pub(crate) fn new(notice: &ActionNotice, audience: Audience, language: Wording, guide: &Guide) -> Self {
        let owner = audience == Audience::Owner;
        let incident = notice.incident.to_string();
        let security = |text: String| Some(text).filter(|text| !owner && !text.is_empty());
        let mut view = Self {
            language: language.code(),
            owner,
            action: notice.action.name(),
            state: notice.state.name(),
            still_answered: notice.was_done() && notice.state == ActionState::Failed,
            subject: String::new(),
            title: language.title(notice, audience),
            alarm: (!owner).then(|| language.turn(notice)),
            accent: match (notice.state, notice.action) {
                (ActionState::Done, Action::Reinstate) => GREEN,
                (ActionState::Withdrawn, _) => GREY,
                _ => RED,
            },
            key: line(&notice.key_id, NAME),
            by: (!owner).then(|| language.by(notice)),
            why: security(language.why(notice)),
            gateway: notice.gateway.as_deref().filter(|_| !owner).map(|name| foreign(name, NAME)),
            facts: Vec::new(),
            steps: Vec::new(),
            link: None,
            answers: Vec::new(),
            lookup: Vec::new(),
            show: None,
        };
        view.subject = view.subject(notice, language);
        view.facts = view.facts(notice, language);
        if owner {
            if notice.action != Action::Reinstate {
                view.steps = guide.steps_of_owner(notice);
            }
            return view;
        }
        view.link = guide.link(&incident, &notice.key_id);
        let answers = guide.answers_about(notice).into_iter();
        view.answers = answers.map(|(verb, command)| answer(language.answer(verb), command)).collect();
        view.show = guide.show(notice.id);
        let fact = |en, ko, value| Fact { label: language.pick(en, ko), value };
        view.lookup = vec![
            fact("Action", "조치", notice.id.to_string()),
            fact("Step", "단계", notice.seq.to_string()),
            fact("Incident", "사건", incident),
        ];
        view
    }

    fn subject(&self, notice: &ActionNotice, language: Wording) -> String {
        let Some(alarm) = self.alarm else {
            let short = short_key(&notice.key_id);
            let outcome = language.outcome(notice);
            let subject = language.pick(
                format!("[Keytide] Your API key {short} {outcome}"),
                format!("[Keytide] API 키({short}){} {outcome}", particle(notice)),
            );
            return line(&subject, SUBJECT);
        };
        let whose = key_of(&notice.key_id, owner_of(notice), notice.plan.as_deref());
        let begin = language.pick(format!("{alarm} key {whose}"), format!("{alarm} 키 {whose}"));
        let tail = match notice.state {
            ActionState::Done => self.by.clone(),
            _ => self.why.clone(),
        };
        // What waits or failed isn't named by the first word.
        let what = match (notice.state, self.still_answered) {
            (ActionState::Held | ActionState::Failed | ActionState::Withdrawn, false) => {
                format!("{}: ", language.doing(notice.action))
            }
            _ => String::new(),
        };
        line(&format!("[Keytide] {begin}: {what}{}", tail.unwrap_or_default()), SUBJECT)
    }

    fn facts(&self, notice: &ActionNotice, language: Wording) -> Vec<Fact> {
        let name = |name: &Option<String>| name.as_deref().map(|name| foreign(name, NAME));
        let mut facts = Vec::new();
        let mut add = |en, ko, value: Option<String>| {
            facts.extend(value.map(|value| Fact { label: language.pick(en, ko), value }));
        };
        add("Key", "키", Some(self.key.clone()));
        add("Subscription", "구독", name(&notice.subscription));
        if !self.owner {
            add("Customer", "고객", name(&notice.customer));
            add("Plan", "요금제", name(&notice.plan));
            add("Gateway", "게이트웨이", self.gateway.clone());
        }
        add("Time", "시각", Some(language.moment(notice.at_ms)));
        facts
    }
}

fn answer(what: &'static str, command: String) -> AnswerView {
    AnswerView { what, command }
}

/// Returns the customer, or else the subscription; `None` if the key has neither.
pub(crate) fn owner_of(notice: &ActionNotice) -> Option<&str> {
    notice.customer.as_deref().or(notice.subscription.as_deref())
}

/// A change of an action in words, for messages that are no mails.
pub(crate) struct ActionWords {
    /// What became of it, such as `SUSPENDED`.
    pub(crate) turn: &'static str,
    /// What became of the key, why, and by which gateway: `is suspended: approved by alice (seen in public), edge`.
    pub(crate) sentence: String,
}

/// Words a change of an action.
pub(crate) fn action_words(notice: &ActionNotice, language: Language) -> ActionWords {
    let language = Wording(language);
    let (outcome, why) = (language.outcome(notice), language.why(notice));
    let because = match notice.state {
        ActionState::Done if why.is_empty() => language.by(notice),
        ActionState::Done => format!("{} ({why})", language.by(notice)),
        _ => why,
    };
    let gateway = notice.gateway.as_deref().map(|name| format!(", {}", foreign(name, NAME)));
    let sentence = format!("{outcome}: {because}{}", gateway.unwrap_or_default());
    ActionWords { turn: language.turn(notice), sentence }
}

/// Words that a gateway is late.
pub(crate) fn gateway_words(notice: &GatewayNotice, language: Language) -> String {
    let view = GatewayMailView::new(notice, Wording(language), &Guide::default());
    Wording(language).pick(
        format!("{}: {} since {}.", view.title, view.late, view.since),
        format!("{}: {}부터 {}.", view.title, view.since, view.late),
    )
}

/// Words what is done about a key.
pub(crate) fn planned_words(planned: &PlannedAction, language: Language) -> String {
    Wording(language).planned(planned)
}

/// A change of an action in a digest as templates see it.
#[derive(Serialize)]
pub(crate) struct ActionRowView {
    /// The word for it, such as `SUSPENDED`; absent for owners.
    alarm: Option<&'static str>,
    whose: String,
    /// What became of it, as a clause.
    text: String,
    at: String,
    action_id: Option<String>,
}

impl ActionRowView {
    pub(super) fn new(notice: &ActionNotice, audience: Audience, language: Wording) -> Self {
        let owner = audience == Audience::Owner;
        let why = match notice.state {
            ActionState::Done => language.by(notice),
            _ => language.why(notice),
        };
        let outcome = language.outcome(notice);
        Self {
            alarm: (!owner).then(|| language.turn(notice)),
            whose: match audience {
                Audience::Security => key_of(&notice.key_id, owner_of(notice), notice.plan.as_deref()),
                Audience::Owner => short_key(&notice.key_id),
            },
            text: if owner || why.is_empty() { outcome } else { format!("{outcome}: {why}") },
            at: language.moment(notice.at_ms),
            action_id: (!owner).then(|| notice.id.to_string()),
        }
    }
}

/// A gateway that is late as templates see it.
#[derive(Serialize)]
pub(crate) struct GatewayMailView {
    language: &'static str,
    pub(crate) subject: String,
    title: String,
    alarm: &'static str,
    accent: &'static str,
    /// Absent if the job has no gateway any more for the actions.
    gateway: Option<String>,
    /// The number of actions in words.
    late: String,
    /// The time at which the oldest of them was requested.
    since: String,
    /// True if it was told before.
    again: bool,
    rows: Vec<LateView>,
    /// The number of actions that aren't listed; absent if all are.
    rest: Option<String>,
    answers: Vec<AnswerView>,
}

/// An action with which a gateway is late, as templates see it.
#[derive(Serialize)]
struct LateView {
    action: String,
    key: String,
    action_id: String,
}

impl GatewayMailView {
    pub(crate) fn new(notice: &GatewayNotice, language: Wording, guide: &Guide) -> Self {
        let GatewayNotice { gateway, first: _, count, since, late, named } = notice;
        let gateway = gateway.as_deref().map(|name| foreign(name, NAME));
        let many = number(*late);
        let late_words = language.pick(
            if *late == 1 { "1 action".to_owned() } else { format!("{many} actions") },
            format!("조치 {many}건"),
        );
        let since = language.moment(*since);
        let alarm = language.pick("LATE", "지연");
        let (title, subject) = match &gateway {
            Some(name) => language.pick(
                (
                    format!("The gateway {name} doesn't do what is asked of it"),
                    format!("[Keytide] {alarm} gateway {name}: {late_words} not done since {since}"),
                ),
                (
                    format!("게이트웨이 {name}에서 요청한 조치가 처리되지 않고 있습니다"),
                    format!("[Keytide] {alarm} 게이트웨이 {name}: {since}부터 {late_words}이 처리되지 않음"),
                ),
            ),
            None => language.pick(
                (
                    "No gateway does what is asked for".to_owned(),
                    format!("[Keytide] {alarm} no gateway: {late_words} not done since {since}"),
                ),
                (
                    "요청한 조치를 처리할 게이트웨이가 없습니다".to_owned(),
                    format!("[Keytide] {alarm} 게이트웨이 없음: {since}부터 {late_words}이 처리되지 않음"),
                ),
            ),
        };
        let list = language.pick("List the actions", "조치 목록 보기");
        let list = guide.list().map(|command| answer(list, command));
        let pause = guide.pause().map(|command| answer(language.answer(Verb::Pause), command));
        let rows: Vec<LateView> = named
            .iter()
            .map(|of| LateView {
                action: language.pick(of.action.name(), language.doing(of.action)).to_owned(),
                key: line(&of.key_id, NAME),
                action_id: line(&of.id.to_string(), ID),
            })
            .collect();
        Self {
            language: language.code(),
            subject: line(&subject, SUBJECT),
            title,
            alarm,
            accent: RED,
            gateway,
            late: late_words,
            since,
            again: *count > 0,
            rest: left_out(late.saturating_sub(rows.len() as u64)),
            rows,
            answers: list.into_iter().chain(pause).collect(),
        }
    }
}

impl Wording {
    /// Formats a time in milliseconds since 1970 as `2026-11-21 14:05 UTC`.
    fn moment(self, at_ms: EventTime) -> String {
        let at = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
        at.map_or_else(|| "?".to_owned(), |at| self.time(&at.to_string()))
    }

    /// Returns the word at the start of subjects: what became of an action.
    pub(crate) fn turn(self, notice: &ActionNotice) -> &'static str {
        match (notice.state, notice.action) {
            (ActionState::Held, _) => self.pick("HELD", "보류"),
            (ActionState::Failed, _) if notice.was_done() => self.pick("STILL ANSWERED", "계속 응답됨"),
            (ActionState::Failed, _) => self.pick("FAILED", "실패"),
            (ActionState::Withdrawn, _) => self.pick("VOID", "무효"),
            (_, Action::Suspend) => self.pick("SUSPENDED", "정지"),
            (_, Action::Revoke) => self.pick("REVOKED", "폐기"),
            (_, Action::Reinstate) => self.pick("LET IN AGAIN", "복구"),
        }
    }

    /// Names an action by its verb: `suspending it`.
    fn doing(self, action: Action) -> &'static str {
        match action {
            Action::Suspend => self.pick("suspending it", "정지"),
            Action::Revoke => self.pick("revoking it", "폐기"),
            Action::Reinstate => self.pick("letting it in again", "복구"),
        }
    }

    /// Words what became of an action, as it stands behind a key: `is suspended`.
    pub(crate) fn outcome(self, notice: &ActionNotice) -> String {
        let (done, ko) = match notice.action {
            Action::Suspend => ("suspended", "정지"),
            Action::Revoke => ("revoked", "폐기"),
            Action::Reinstate => ("let in again", "복구"),
        };
        match notice.state {
            ActionState::Held => self.pick(
                format!("isn't {done} until a person decides"),
                format!("{ko}하려면 담당자의 승인이 필요합니다"),
            ),
            ActionState::Failed if notice.was_done() => self.pick(
                format!("is {done} and still answered"),
                format!("{ko}되었는데도 호출이 응답되고 있습니다"),
            ),
            ActionState::Failed => self.pick(format!("couldn't be {done}"), format!("{ko}하지 못했습니다")),
            ActionState::Withdrawn => self.pick(format!("isn't {done}"), format!("{ko}하지 않습니다")),
            ActionState::Requested => self.pick(format!("is being {done}"), format!("{ko} 중입니다")),
            ActionState::Done | ActionState::Confirmed => {
                self.pick(format!("is {done}"), format!("{ko}되었습니다"))
            }
        }
    }

    /// Words what is done about a key, as it stands in a digest.
    pub(super) fn planned(self, planned: &PlannedAction) -> String {
        let PlannedAction { id: _, action, state, why, is_decision: _ } = planned;
        let doing = self.doing(*action);
        let why = self.held(why);
        match state {
            ActionState::Held => self.pick(format!("held: {doing}: {why}"), format!("{doing} 보류: {why}")),
            ActionState::Failed => {
                self.pick(format!("failed: {doing}: {why}"), format!("{doing} 실패: {why}"))
            }
            ActionState::Requested => self.pick(format!("now {doing}"), format!("{doing} 중")),
            ActionState::Done | ActionState::Confirmed => {
                self.pick(format!("done: {doing}"), format!("{doing} 완료"))
            }
            ActionState::Withdrawn => self.pick(format!("void: {doing}"), format!("{doing} 무효")),
        }
    }

    /// Words a number of actions that wait: `12 actions wait`.
    pub(super) fn waiting(self, held: u64) -> String {
        let many = number(held);
        self.pick(
            if held == 1 { "1 action waits".to_owned() } else { format!("{many} actions wait") },
            format!("조치 {many}건이"),
        )
    }

    fn title(self, notice: &ActionNotice, audience: Audience) -> String {
        let (outcome, particle) = (self.outcome(notice), particle(notice));
        match audience {
            Audience::Security => self.pick(format!("The key {outcome}"), format!("키{particle} {outcome}")),
            Audience::Owner => {
                self.pick(format!("Your API key {outcome}"), format!("API 키{particle} {outcome}"))
            }
        }
    }

    /// Words who wanted an action: `approved by alice`.
    pub(crate) fn by(self, notice: &ActionNotice) -> String {
        let asked = notice.decided.as_ref().filter(|decided| match notice.action {
            // A suspension that was lifted since has the decision of the person who lifted it.
            Action::Suspend | Action::Revoke => matches!(decided.verb, Verb::Approve | Verb::Revoke),
            Action::Reinstate => true,
        });
        let Some(decided) = asked else {
            return match notice.action {
                Action::Suspend | Action::Revoke => self.pick("as its policy says", "정책에 따름").to_owned(),
                Action::Reinstate if notice.is_explained => {
                    self.pick("as its incident was withdrawn", "사건이 철회됨").to_owned()
                }
                Action::Reinstate => self.pick("as its suspension lapsed", "정지가 무효가 됨").to_owned(),
            };
        };
        let who = foreign(&decided.who, NAME);
        let (en, ko) = match decided.verb {
            Verb::Approve => ("approved", "승인"),
            Verb::Revoke => ("revoked", "폐기"),
            Verb::Dismiss => ("dismissed", "기각"),
            Verb::Accept => ("accepted", "정상으로 승인"),
            Verb::Reinstate => ("reinstated", "복구"),
            Verb::Mute | Verb::Pause | Verb::Resume => ("decided", "결정"),
        };
        self.pick(format!("{en} by {who}"), format!("{who} {ko}"))
    }

    /// Words why an action is in its state, or why it was asked for. Empty if there is nothing to say.
    pub(crate) fn why(self, notice: &ActionNotice) -> String {
        match (notice.state, &notice.decided, notice.action) {
            // What a person wrote isn't translated.
            (ActionState::Done, Some(_), _) => foreign(&notice.why, REASON),
            (ActionState::Done, None, Action::Reinstate) if notice.is_explained => self.reason(&notice.why),
            (ActionState::Failed, ..) if self.0 == Language::En => {
                let why = notice.why.strip_prefix("still answered: ").unwrap_or(&notice.why);
                self.held(why)
            }
            _ => self.held(&notice.why),
        }
    }
}

/// Returns the Korean particle of the key before what became of it.
fn particle(notice: &ActionNotice) -> &'static str {
    match notice.state {
        ActionState::Failed if notice.was_done() => "가",
        ActionState::Held | ActionState::Failed | ActionState::Withdrawn | ActionState::Requested => "를",
        ActionState::Done | ActionState::Confirmed => "가",
    }
}
