//! The input of templates: a transition in words, in which all text of strangers is harmless.
//!
//! The fields are a contract with authors of own templates. All text is ready to be shown.

use keytide_config::Language;
use keytide_dataflow::incident_row::{
    CountJson, EarlierJson, OtherKeysJson, SampleJson, SignalJson, TakenJson, TransitionJson, ValueJson,
};
use keytide_dataflow::{ActionState, Change};
use serde::Serialize;

use super::clean::{NAME, VALUE, foreign, line};
use super::guide::Guide;
use super::headline::{still_works, stolen_keys, strongest_first};
use super::words::{Wording, bytes, number};
use super::{Audience, PlannedAction, is_over};

/// The most signals in a mail.
const SIGNALS: usize = 12;
/// The most values of a signal, and the most samples, in a mail.
pub(super) const VALUES: usize = 5;
/// The most keys of a network that are named.
const NAMED: usize = 10;
/// The most methods, and the most statuses.
const COUNTS: usize = 8;
/// The most characters of an incident's id or a fingerprint, which have 32 at most.
pub(super) const ID: usize = 40;
/// The most characters of a caller's address: an IPv6 address with an IPv4 address in it.
pub(super) const CLIENT: usize = 45;
/// The most characters of a subject.
pub(super) const SUBJECT: usize = 200;

/// A labelled value, one line of a list of facts.
#[derive(Serialize)]
pub(crate) struct Fact {
    pub(super) label: &'static str,
    pub(super) value: String,
}

/// A signal as templates see it.
#[derive(Serialize)]
pub(crate) struct SignalView {
    title: String,
    family: String,
    /// A multiple such as `40x`, if calls were expected.
    ratio: Option<String>,
    measure: String,
    window: String,
    surprise: String,
    values: Vec<ValueView>,
    /// The values that the key's calls usually have, with shares; absent if the signal has no values.
    usual: Option<String>,
}

/// A value of a signal as templates see it.
#[derive(Serialize)]
pub(crate) struct ValueView {
    text: String,
    /// Absent if the value doesn't concern calls.
    calls: Option<String>,
    new: bool,
}

/// The position and outline of a sample record.
#[derive(Serialize)]
pub(crate) struct SampleView {
    at: String,
    client: Option<String>,
    status: u16,
    source: String,
    partition: u32,
    offset: u64,
    index: u32,
    /// The command that shows the record; absent if the place isn't known.
    command: Option<String>,
}

/// A route with its calls, as templates see it.
#[derive(Serialize)]
pub(crate) struct RouteView {
    route: String,
    calls: String,
}

/// The other keys of a network, as templates see them.
#[derive(Serialize)]
pub(crate) struct OtherKeysView {
    network: String,
    /// How many keys it called with for the first time, and how many it is usual for, in words.
    keys: String,
    named: Vec<OtherKeyView>,
    /// The number of keys that aren't named, in words; absent if all are.
    rest: Option<String>,
}

/// Another key of a network, as templates see it.
#[derive(Serialize)]
pub(crate) struct OtherKeyView {
    key: String,
    customer: Option<String>,
}

/// An earlier incident of the key, as templates see it.
#[derive(Serialize)]
pub(crate) struct EarlierView {
    opened_at: String,
    duration: String,
    severity: String,
    /// The state in which it is, `ended` or `withdrawn`.
    state: String,
    incident_id: String,
}

/// The planned action as templates see it.
#[derive(Serialize)]
pub(crate) struct PlannedView {
    /// One of `suspend`, `revoke`, `reinstate`.
    action: &'static str,
    /// True once the gateway did it.
    done: bool,
    /// Says why the action waits; absent if it doesn't.
    held: Option<String>,
    /// Says why the gateway can't do it; absent if it didn't fail.
    failed: Option<String>,
}

/// An incident as templates see it.
#[derive(Serialize)]
pub(crate) struct IncidentView {
    language: &'static str,
    /// One of `opened`, `raised`, `updated`, `reopened`, `ended`, `withdrawn`.
    change: &'static str,
    pub(crate) subject: String,
    pub(crate) headline: String,
    /// The headline with a capital letter.
    title: String,
    /// The sentence about other keys of the same network; absent if there are none, and for owners.
    story: Option<String>,
    /// The word at the start of the subject, such as `ALERT`.
    alarm: &'static str,
    /// The colour of the alarm.
    accent: &'static str,
    key: String,
    key_short: String,
    /// One of `active`, `suspended`, `revoked`; absent if the key has no row.
    key_state: Option<String>,
    /// True if the key is revoked and its calls are answered all the same.
    still_works: bool,
    policy: String,
    severity: String,
    /// The leak probability in percent; absent for owners.
    score: Option<u8>,
    /// The customer or the subscription; absent if the key has neither.
    owner_name: Option<String>,
    /// True if the key is one of many of several customers that one network calls with.
    many_keys: bool,
    opened_at: String,
    last_signal_at: String,
    ended_at: Option<String>,
    duration: String,
    /// How long no signal came before the end.
    quiet: String,
    /// The number of times that it came back within a week, in words; absent if it is 0.
    reopenings: Option<String>,
    calls: String,
    reason: Option<String>,
    early: bool,
    catching_up: bool,
    platform_event: bool,
    /// The summary: key, customer, times.
    facts: Vec<Fact>,
    signals: Vec<SignalView>,
    /// The calls, by what they asked for and how they were answered.
    taken: Vec<Fact>,
    /// The routes with most calls.
    routes: Vec<RouteView>,
    /// Other keys of the same networks; owners never see them.
    others: Vec<OtherKeysView>,
    earlier: Vec<EarlierView>,
    /// The configured steps; empty if there are none.
    steps: Vec<String>,
    /// The address of the incident in the reader's own tool; absent for owners, and if none is configured.
    link: Option<String>,
    /// The commands that answer; none for owners, and if nobody may answer.
    answers: Vec<AnswerView>,
    samples: Vec<SampleView>,
    /// True if a sample has a command.
    commands: bool,
    /// The ids and versions with which the incident is looked up.
    lookup: Vec<Fact>,
    planned: Option<PlannedView>,
    incident_id: String,
    /// The description of the chart; absent if there is no chart.
    pub(crate) chart: Option<String>,
    pub(crate) chart_id: Option<String>,
}

/// A command that answers an incident or an action, or shows actions.
#[derive(Serialize)]
pub(super) struct AnswerView {
    /// What it does, as an instruction.
    pub(super) what: &'static str,
    pub(super) command: String,
}

/// Returns the first eight digits of a key's id, or the name of a key that isn't a hash.
pub(super) fn short_key(key: &str) -> String {
    if key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        key[..8].to_owned()
    } else {
        line(key, 24)
    }
}

/// Returns the customer, or else the subscription; `None` if the key has neither.
pub(crate) fn owner_name(transition: &TransitionJson) -> Option<&str> {
    transition.customer.as_deref().or(transition.subscription.as_deref())
}

/// Formats the number of things that a list leaves out; `None` if it has all.
pub(super) fn left_out(rest: u64) -> Option<String> {
    (rest > 0).then(|| number(rest))
}

/// Formats the duration between two times; `?` if one of them is no time.
fn duration(from: &str, to: &str, language: Wording) -> String {
    language.between(from, to).unwrap_or_else(|| "?".to_owned())
}

/// Returns key, customer and plan as in subjects: `3f2a9c41 Acme (gold)`.
pub(super) fn whose(transition: &TransitionJson) -> String {
    key_of(&transition.key_id, owner_name(transition), transition.plan.as_deref())
}

/// Returns the same of a key with these names.
pub(super) fn key_of(key_id: &str, owner: Option<&str>, plan: Option<&str>) -> String {
    let mut whose = short_key(key_id);
    if let Some(name) = owner {
        whose.push(' ');
        whose.push_str(&line(name, 32));
    }
    if let Some(plan) = plan {
        whose.push_str(&format!(" ({})", line(plan, 16)));
    }
    whose
}

impl PlannedView {
    /// Owners see only what is being done or done, as all else is for security to decide.
    fn new(planned: &PlannedAction, audience: Audience, language: Wording) -> Option<Self> {
        let PlannedAction { id: _, action, state, why, is_decision: _ } = planned;
        let is_pending = matches!(state, ActionState::Held | ActionState::Failed);
        if audience == Audience::Owner && is_pending {
            return None;
        }
        let because = |of: ActionState| (*state == of).then(|| language.held(why));
        Some(Self {
            action: action.name(),
            done: matches!(state, ActionState::Done | ActionState::Confirmed),
            held: because(ActionState::Held),
            failed: because(ActionState::Failed),
        })
    }
}

impl IncidentView {
    pub(crate) fn new(
        transition: &TransitionJson,
        planned: Option<&PlannedAction>,
        audience: Audience,
        language: Wording,
        guide: &Guide,
    ) -> Self {
        let owner = audience == Audience::Owner;
        // Signals that count nothing stand last, and owners don't see them.
        let mut signals = strongest_first(transition);
        signals.retain(|signal| !owner || signal.weighted_bits > 0.0);
        signals.truncate(SIGNALS);
        let headline = language.headline(transition);
        let until = transition.ended_at.as_deref().unwrap_or(&transition.at);
        let calls = language.calls(transition.evidence.calls);
        let is_withdrawn = transition.transition == Change::Withdrawn;
        let reason = transition.reason.as_deref().map(|reason| language.reason(reason));
        let mut view = Self {
            language: language.code(),
            change: transition.transition.name(),
            subject: String::new(),
            title: capital(&headline),
            story: (!owner).then(|| language.other_keys(transition)).flatten(),
            alarm: language.alarm(transition),
            accent: match transition.transition {
                Change::Ended => "#4b5563",
                Change::Withdrawn => "#1b7f4b",
                _ => "#c0261c",
            },
            key: line(&transition.key_id, NAME),
            key_short: short_key(&transition.key_id),
            key_state: transition.key_state.as_deref().map(|state| line(state, NAME)),
            still_works: still_works(transition),
            policy: language.policy(transition.policy.as_deref()),
            severity: language.severity(&transition.level),
            score: (!owner).then(|| transition.score.min(100)),
            owner_name: owner_name(transition).map(|name| foreign(name, NAME)),
            many_keys: !owner && !is_withdrawn && stolen_keys(transition).is_some(),
            opened_at: language.time(&transition.opened_at),
            last_signal_at: language.time(&transition.last_signal_at),
            ended_at: transition.ended_at.as_deref().map(|at| language.time(at)),
            duration: duration(&transition.opened_at, &transition.last_signal_at, language),
            quiet: duration(&transition.last_signal_at, until, language),
            reopenings: (transition.reopenings > 0).then(|| language.times(transition.reopenings)),
            calls,
            reason,
            early: transition.early,
            catching_up: transition.catching_up,
            platform_event: transition.platform_event,
            facts: Vec::new(),
            signals: signals
                .iter()
                .map(|signal| {
                    SignalView::new(
                        signal,
                        &without_repetition(signal, transition),
                        transition,
                        audience,
                        language,
                    )
                })
                .collect(),
            // A withdrawn incident was no leak, so nothing was taken.
            taken: if is_withdrawn { Vec::new() } else { taken(&transition.evidence.taken, language) },
            routes: if is_withdrawn { Vec::new() } else { routes(&transition.evidence.taken, language) },
            others: Vec::new(),
            earlier: Vec::new(),
            steps: guide.steps(transition, audience),
            link: None,
            answers: Vec::new(),
            samples: Vec::new(),
            commands: false,
            lookup: Vec::new(),
            planned: None,
            incident_id: line(&transition.incident_id, ID),
            chart: None,
            chart_id: None,
            headline,
        };
        view.subject = view.subject(transition, audience, language);
        view.facts = view.facts(transition, audience, language);
        view.planned = planned.and_then(|planned| PlannedView::new(planned, audience, language));
        // Owners see no records, no versions, no link of security's, and nothing of other keys.
        if !owner {
            view.link = guide.link(&transition.incident_id, &transition.key_id);
            let answers = guide.answers(transition, planned).into_iter();
            view.answers =
                answers.map(|(verb, command)| AnswerView { what: language.answer(verb), command }).collect();
            if !is_withdrawn {
                view.others = others(&transition.evidence.other_keys, language);
            }
            view.earlier = transition
                .evidence
                .earlier
                .iter()
                .take(VALUES)
                .map(|earlier| EarlierView::new(earlier, language))
                .collect();
            view.samples = transition
                .evidence
                .samples
                .iter()
                .take(VALUES)
                .map(|sample| SampleView::new(sample, language, guide))
                .collect();
            view.commands = view.samples.iter().any(|sample| sample.command.is_some());
            view.lookup = view.lookup(transition, language);
        }
        view
    }

    fn subject(&self, transition: &TransitionJson, audience: Audience, language: Wording) -> String {
        let (short, alarm) = (&self.key_short, self.alarm);
        // Many keys of several customers are one story, which a reader must see first.
        let others = stolen_keys(transition).filter(|_| !is_over(transition));
        let others = others.map(|network| language.other(network.keys));
        let begin = match (audience, language.0, transition.transition) {
            (Audience::Security, Language::En, _) => {
                let others = others.map_or(String::new(), |others| format!(" and {others}"));
                format!("{alarm} key {}{others}: ", whose(transition))
            }
            (Audience::Security, Language::Ko, _) => {
                let others = others.map_or(String::new(), |others| format!(", {others}"));
                format!("{alarm} 키 {}{others}: ", whose(transition))
            }
            (Audience::Owner, Language::En, Change::Ended) => {
                format!("Your API key {short}: unusual calls have stopped: ")
            }
            (Audience::Owner, Language::Ko, Change::Ended) => {
                format!("API 키({short}): 평소와 다른 호출이 멈췄습니다: ")
            }
            (Audience::Owner, Language::En, Change::Withdrawn) => {
                format!("Your API key {short}: no leak after all")
            }
            (Audience::Owner, Language::Ko, Change::Withdrawn) => {
                format!("API 키({short}): 유출이 아닌 것으로 확인되었습니다")
            }
            (Audience::Owner, Language::En, _) => format!("Your API key {short} may have leaked: "),
            (Audience::Owner, Language::Ko, _) => format!("API 키({short})가 유출되었을 수 있습니다: "),
        };
        let begin = line(&format!("[Keytide] {begin}"), SUBJECT);
        let tail = match (transition.transition, audience) {
            (Change::Ended, _) => language.pick(
                format!("{} in {}", self.calls, self.duration),
                format!("{} 동안 {}", self.duration, self.calls),
            ),
            (Change::Withdrawn, Audience::Security) => self.reason.clone().unwrap_or_default(),
            (Change::Withdrawn, Audience::Owner) => String::new(),
            // The blank after the colon is one of the characters.
            _ => language.headline_within(transition, SUBJECT.saturating_sub(begin.chars().count() + 1)),
        };
        line(&format!("{begin} {tail}"), SUBJECT)
    }

    fn facts(&self, transition: &TransitionJson, audience: Audience, language: Wording) -> Vec<Fact> {
        let name = |name: &Option<String>| name.as_deref().map(|name| foreign(name, NAME));
        let mut facts = Vec::new();
        let mut add = |en, ko, value: Option<String>| {
            if let Some(value) = value {
                facts.push(Fact { label: language.pick(en, ko), value });
            }
        };
        add("Key", "키", Some(self.key.clone()));
        add("Subscription", "구독", name(&transition.subscription));
        if audience == Audience::Security {
            add("Customer", "고객", name(&transition.customer));
            add("Plan", "요금제", name(&transition.plan));
            add("Severity", "심각도", Some(self.severity.clone()));
            let score = transition.score.min(100);
            add("Leak probability", "유출 확률", Some(format!("{score} %")));
            add("Key's state", "키 상태", Some(language.key_state(transition.key_state.as_deref())));
        }
        add("First sign", "첫 신호", Some(self.opened_at.clone()));
        add("Last sign", "마지막 신호", Some(self.last_signal_at.clone()));
        add("Ended", "종료", self.ended_at.clone());
        add("Came back", "재발", self.reopenings.clone());
        add("Calls meanwhile", "그동안의 호출", Some(number(transition.evidence.calls)));
        if audience == Audience::Security {
            let since = language.day(&transition.evidence.known_since);
            let calls = language.calls(transition.evidence.known_calls);
            add(
                "Known since",
                "이력",
                Some(language.pick(
                    format!("{since}; {calls} in the last month"),
                    format!("{since}부터, 최근 한 달 {calls}"),
                )),
            );
        }
        facts
    }

    fn lookup(&self, transition: &TransitionJson, language: Wording) -> Vec<Fact> {
        let fact = |en, ko, value| Fact { label: language.pick(en, ko), value };
        vec![
            fact("Incident", "사건", self.incident_id.clone()),
            fact("Step", "단계", transition.seq.to_string()),
            fact(
                "Detector",
                "탐지기",
                language.pick(
                    format!("version {}", transition.detector_version),
                    format!("버전 {}", transition.detector_version),
                ),
            ),
            fact("Configuration", "설정", line(&transition.evidence.config, ID)),
        ]
    }
}

/// Returns the values of a signal. Of a signal of counts these are only the ones that no signal of values has, which are
/// the same places and programs again.
fn without_repetition<'a>(signal: &'a SignalJson, transition: &TransitionJson) -> Vec<&'a ValueJson> {
    let is_of_values = |signal: &SignalJson| {
        matches!(
            signal.signal.as_str(),
            "country" | "asn" | "network" | "user_agent" | "route" | "fan_out" | "mix"
        )
    };
    let elsewhere = |value: &ValueJson| {
        let others =
            transition.signals.iter().filter(|other| is_of_values(other) && other.weighted_bits > 0.0);
        others.flat_map(|other| other.values.iter().take(VALUES)).any(|other| {
            (other.kind.as_str(), other.value.as_str()) == (value.kind.as_str(), value.value.as_str())
        })
    };
    let is_whole = is_of_values(signal) || signal.family == "hard";
    signal.values.iter().filter(|value| is_whole || !elsewhere(value)).collect()
}

/// Lists the calls by what they asked for and how they were answered.
fn taken(taken: &TakenJson, language: Wording) -> Vec<Fact> {
    let TakenJson { from_new, usual, bytes_out, routes, methods, statuses, top_routes: _ } = taken;
    let mut facts = Vec::new();
    let mut add = |en, ko, value: String| facts.push(Fact { label: language.pick(en, ko), value });
    if *from_new > 0 {
        let calls = language.calls(*from_new);
        let value = match *usual {
            0 => calls,
            usual => {
                let usual = number(usual);
                language.pick(
                    format!("{calls}, beside {usual} usual ones"),
                    format!("{calls}(평소와 같은 호출 {usual}회)"),
                )
            }
        };
        add("New places or agents", "새 출처·에이전트", value);
    }
    if *bytes_out > 0 {
        add("Sent to the callers", "보낸 데이터", bytes(*bytes_out));
    }
    let counts = |counts: &[CountJson]| {
        let counts = counts
            .iter()
            .take(COUNTS)
            .map(|count| format!("{} ({})", foreign(&count.value, NAME), number(count.calls)));
        counts.collect::<Vec<_>>().join(", ")
    };
    if !methods.is_empty() {
        add("Calls by method", "메서드별 호출", counts(methods));
    }
    if !statuses.is_empty() {
        add("Calls by status", "상태별 호출", counts(statuses));
    }
    match *routes {
        0 => {}
        256.. => {
            add("Different routes", "서로 다른 경로", language.pick("256 or more", "256개 이상").to_owned())
        }
        routes => add("Different routes", "서로 다른 경로", number(routes)),
    }
    facts
}

fn routes(taken: &TakenJson, language: Wording) -> Vec<RouteView> {
    let routes = taken.top_routes.iter().take(VALUES);
    routes
        .map(|route| RouteView { route: foreign(&route.value, VALUE), calls: language.calls(route.calls) })
        .collect()
}

fn others(networks: &[OtherKeysJson], language: Wording) -> Vec<OtherKeysView> {
    networks
        .iter()
        .take(VALUES)
        .map(|network| {
            let named: Vec<OtherKeyView> = network
                .named
                .iter()
                .take(NAMED)
                .map(|other| OtherKeyView {
                    key: line(&other.key_id, NAME),
                    customer: other.customer.as_deref().map(|customer| foreign(customer, NAME)),
                })
                .collect();
            OtherKeysView {
                network: foreign(&network.network, NAME),
                keys: language.keys_of_network(network),
                rest: left_out((network.keys as usize).saturating_sub(named.len()) as u64)
                    .map(|rest| language.pick(format!("and {rest} more"), format!("외 {rest}개"))),
                named,
            }
        })
        .collect()
}

impl EarlierView {
    fn new(earlier: &EarlierJson, language: Wording) -> Self {
        let EarlierJson { incident_id, opened_at, ended_at, level, state } = earlier;
        Self {
            opened_at: language.time(opened_at),
            duration: duration(opened_at, ended_at, language),
            severity: language.severity(level),
            state: line(state, NAME),
            incident_id: line(incident_id, ID),
        }
    }
}

impl SignalView {
    fn new(
        signal: &SignalJson,
        values: &[&ValueJson],
        transition: &TransitionJson,
        audience: Audience,
        language: Wording,
    ) -> Self {
        Self {
            usual: language.usual(&signal.signal, &transition.evidence.usual),
            title: language.signal(&signal.signal),
            family: language.family(&signal.family),
            ratio: signal.ratio.and_then(|ratio| language.ratio(ratio)),
            measure: language.measure(signal),
            window: language.window(&signal.window_start, signal.window_s),
            surprise: match audience {
                Audience::Security => language.surprise(signal),
                Audience::Owner => String::new(),
            },
            values: values
                .iter()
                .take(VALUES)
                .map(|value| ValueView {
                    text: language.value(value),
                    calls: (value.calls > 0).then(|| language.calls(value.calls)),
                    new: value.new && value.calls > 0,
                })
                .collect(),
        }
    }
}

impl SampleView {
    fn new(sample: &SampleJson, language: Wording, guide: &Guide) -> Self {
        Self {
            command: guide.command(sample),
            at: language.second(&sample.at),
            client: sample.client.as_deref().map(|client| line(client, CLIENT)),
            status: sample.status,
            source: foreign(&sample.source, NAME),
            partition: sample.partition,
            offset: sample.offset,
            index: sample.index,
        }
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
