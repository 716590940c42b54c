//! The headline of an incident: one line of at most 160 characters that says why its key is suspected.
//!
//! It begins with the fact that counts most, with its ratio. Mails, messages for Slack and the demo have it. Signals that
//! count nothing are left out, unless none counts. A place is one clause, whatever number of signals speaks of it. A
//! clause for which there is no room loses what stands in brackets, or is left out.

use keytide_config::Language;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::{OtherKeysJson, SignalJson, TransitionJson, ValueJson};

use super::clean::{NAME, foreign, line};
use super::is_over;
use super::words::{Wording, expected, number};

/// The most characters of a headline.
const HEADLINE: usize = 160;
/// The most characters of a name within a headline.
const PART: usize = 40;
/// The bits of a fact beyond doubt. A revoked key whose calls are refused has fewer.
const CERTAIN: f64 = 40.0;
/// Other keys of one network, and their customers, from which on a stolen database is suspected. Fewer may be an agency
/// that works for two customers.
const MANY_KEYS: u32 = 5;
const MANY_CUSTOMERS: u32 = 3;

/// Returns the headline of an incident, without anything that acts on its reader.
#[must_use]
pub fn headline(transition: &TransitionJson, language: Language) -> String {
    Wording(language).headline(transition)
}

/// Returns the sentence about other keys of the same network, for security only. `None` if there are none, or if the
/// incident was no leak.
#[must_use]
pub fn other_keys(transition: &TransitionJson, language: Language) -> Option<String> {
    Wording(language).other_keys(transition)
}

/// Returns the network with most other keys.
fn busiest(transition: &TransitionJson) -> Option<&OtherKeysJson> {
    transition
        .evidence
        .other_keys
        .iter()
        .max_by_key(|network| network.keys)
        .filter(|network| network.keys > 0)
}

/// Returns the network with most other keys, if these look like a stolen database.
pub(super) fn stolen_keys(transition: &TransitionJson) -> Option<&OtherKeysJson> {
    busiest(transition).filter(|network| network.keys >= MANY_KEYS && network.customers >= MANY_CUSTOMERS)
}

/// Returns the signals of an incident, those that count most first.
pub(super) fn strongest_first(transition: &TransitionJson) -> Vec<&SignalJson> {
    let mut signals: Vec<&SignalJson> = transition.signals.iter().collect();
    signals.sort_by(|a, b| b.weighted_bits.total_cmp(&a.weighted_bits));
    signals
}

/// Returns whether a revoked key is answered all the same.
pub(super) fn still_works(transition: &TransitionJson) -> bool {
    transition.signals.iter().any(|signal| signal.signal == "revoked" && signal.bits >= CERTAIN)
}

/// The kinds of clauses. A headline has at most one of each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    Fact,
    Volume,
    Place,
    Behaviour,
    Errors,
}

impl Clause {
    fn of(signal: &SignalJson) -> Self {
        match (signal.family.as_str(), signal.signal.as_str()) {
            (_, "revoked" | "dormant" | "reported" | "tor") | ("hard", _) => Self::Fact,
            (_, "country" | "asn" | "network" | "travel" | "fan_out" | "shared_network") | ("origin", _) => {
                Self::Place
            }
            (_, "volume_1m" | "volume_5m" | "volume_1h" | "slow") | ("volume", _) => Self::Volume,
            (_, "refused" | "throttled") | ("errors", _) => Self::Errors,
            _ => Self::Behaviour,
        }
    }
}

impl Wording {
    /// Composes the headline of an incident.
    pub(crate) fn headline(self, transition: &TransitionJson) -> String {
        self.headline_within(transition, HEADLINE)
    }

    /// Composes a headline of at most `most` characters.
    pub(super) fn headline_within(self, transition: &TransitionJson, most: usize) -> String {
        // STEP 1: the signals that count, most first.
        let mut signals = strongest_first(transition);
        if signals.iter().any(|signal| signal.weighted_bits > 0.0) {
            signals.retain(|signal| signal.weighted_bits > 0.0);
        }
        // STEP 2: a clause of each kind, by its strongest signal.
        let mut kinds: Vec<Clause> = Vec::new();
        for signal in &signals {
            let kind = Clause::of(signal);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let of = |kind| signals.iter().copied().filter(move |signal| Clause::of(signal) == kind);
        let clauses = kinds.into_iter().map(|kind| match kind {
            Clause::Fact => self.facts(transition, of(kind)),
            Clause::Volume => of(kind).next().map(|signal| self.volume(signal)),
            Clause::Place => self.place(&of(kind).collect::<Vec<_>>()),
            Clause::Behaviour => self.behaviour(&of(kind).collect::<Vec<_>>()),
            Clause::Errors => of(kind).next().map(|signal| self.refusals(signal)),
        });
        // STEP 3: as many clauses as there is room for, and whether the owner's calls go on.
        let taken = &transition.evidence.taken;
        let tail = match taken.usual > 0 && taken.from_new > 0 && !is_over(transition) {
            true => self.pick("; the usual calls go on", "; 평소의 호출도 계속됨"),
            false => "",
        };
        let room = most.saturating_sub(tail.chars().count());
        let mut text = String::new();
        for clause in clauses.flatten() {
            let long = text.chars().count() + 2;
            if text.is_empty() {
                text = clause;
            } else if let Some(clause) =
                [clause.clone(), brief(&clause)].iter().find(|clause| long + clause.chars().count() <= room)
            {
                text = format!("{text}, {clause}");
            }
        }
        // STEP 4: no subject may be empty, whatever signals there are.
        if text.is_empty() {
            self.pick("unusual calls", "평소와 다른 호출").clone_into(&mut text);
        }
        if text.chars().count() <= room {
            text.push_str(tail);
        }
        // A cut line has one character more, which says so.
        line(&text, most.saturating_sub(1))
    }

    /// Words the facts: those beyond doubt first, of these a revoked key.
    fn facts<'a>(
        self,
        transition: &TransitionJson,
        facts: impl Iterator<Item = &'a SignalJson>,
    ) -> Option<String> {
        let mut facts: Vec<&SignalJson> = facts.collect();
        facts.sort_by_key(|fact| (fact.bits < CERTAIN, fact.signal != "revoked"));
        let words: Vec<String> = facts
            .into_iter()
            .map(|fact| match fact.signal.as_str() {
                "revoked" => self.revoked(transition, fact),
                "dormant" => self
                    .pick("in use again after more than 30 days of silence", "30일 넘게 쉬던 키가 다시 쓰임")
                    .to_owned(),
                "tor" => self.pick("called through Tor", "Tor를 통한 호출").to_owned(),
                "reported" => self.pick("found in public", "공개된 곳에서 발견됨").to_owned(),
                other => self.signal(other),
            })
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// Words the calls of a revoked key, which are refused or, worse, answered.
    fn revoked(self, transition: &TransitionJson, fact: &SignalJson) -> String {
        // An incident that is older than the revocation counts other calls, too, which were answered or refused rightly.
        let is_first = transition.signals.iter().all(|signal| signal.first_at >= fact.first_at);
        if fact.bits < CERTAIN {
            let calls = if is_first { refused(transition).max(fact.seen) } else { fact.seen };
            let calls = number(calls);
            return self.pick(
                format!("calls with a revoked key, all refused: {calls}"),
                format!("폐기된 키로 한 호출 {calls}회, 모두 거부됨"),
            );
        }
        match answered(transition) {
            calls if calls > 0 && is_first => self.pick(
                format!("a revoked key still works: {} answered", self.calls(calls)),
                format!("폐기된 키가 아직 작동함: {} 응답됨", self.calls(calls)),
            ),
            _ => {
                let (calls, width) = (self.calls(fact.seen), self.width(fact.window_s));
                self.pick(
                    format!("a revoked key still works: {calls} in {width}"),
                    format!("폐기된 키가 아직 작동함: {width} {calls}"),
                )
            }
        }
    }

    fn volume(self, signal: &SignalJson) -> String {
        let (seen, width) = (number(signal.seen), self.width(signal.window_s));
        let slow = signal.signal == "slow";
        match (signal.ratio.and_then(|ratio| self.ratio(ratio)), expected(signal)) {
            (Some(ratio), Some(expected)) => self.pick(
                format!(
                    "{ratio} its usual calls{} ({seen} in {width}, {expected} expected)",
                    if slow { " for hours" } else { "" }
                ),
                format!(
                    "호출이{} 평소의 {ratio}({width} {seen}회, 평소 {expected}회)",
                    if slow { " 여러 시간" } else { "" }
                ),
            ),
            _ if slow => {
                self.pick("more calls than usual for hours", "평소보다 많은 호출이 이어짐").to_owned()
            }
            _ => {
                self.pick(format!("{} in {width}", self.calls(signal.seen)), format!("{width} 호출 {seen}회"))
            }
        }
    }

    /// Words the place of the calls as one clause: countries and systems, or else the next best of it.
    fn place(self, signals: &[&SignalJson]) -> Option<String> {
        let find = |name: &str| find(signals, name);
        let country = find("country").map(|signal| {
            let new = new_values(signal);
            (new.len().max(1), new.iter().map(|value| self.country_in_text(&value.value)).collect::<Vec<_>>())
        });
        let system = find("asn").map(|signal| {
            let new = new_values(signal);
            (new.len().max(1), new.first().map(|value| foreign(&value.value, PART)))
        });
        let systems = |(count, name): (usize, Option<String>)| match (count, name) {
            (1, Some(name)) => (format!("a system never seen ({name})"), format!("통신망({name})")),
            (1, None) => ("a system never seen".to_owned(), "통신망".to_owned()),
            _ => (format!("{count} systems never seen"), format!("통신망 {count}곳")),
        };
        Some(match (country, system) {
            (Some((1, names)), None) => match names.first() {
                Some(name) => self.pick(
                    format!("from {name}, a country never seen"),
                    format!("처음 보는 국가({name})에서 호출"),
                ),
                None => self.pick("from a country never seen", "처음 보는 국가에서 호출").to_owned(),
            },
            (Some((count, names)), None) => {
                let all = names.join(", ");
                self.pick(
                    format!("from {count} countries never seen ({all})"),
                    format!("처음 보는 국가 {count}곳({all})에서 호출"),
                )
            }
            (Some((count, names)), Some(system)) => {
                let (en, ko) = systems(system);
                let (first, first_ko) = match (count, names.first()) {
                    (1, Some(name)) => (name.clone(), format!("국가({name})와")),
                    (1, None) => ("a country".to_owned(), "국가와".to_owned()),
                    (count, _) => (format!("{count} countries"), format!("국가 {count}곳과")),
                };
                self.pick(format!("from {first} and {en}"), format!("처음 보는 {first_ko} {ko}에서 호출"))
            }
            (None, Some(system)) => {
                let (en, ko) = systems(system);
                self.pick(format!("from {en}"), format!("처음 보는 {ko}에서 호출"))
            }
            (None, None) => match (find("network"), find("fan_out"), find("travel")) {
                (Some(signal), ..) => {
                    let new = new_values(signal);
                    match new.as_slice() {
                        [] => self.pick("from addresses never seen", "처음 보는 주소에서 호출").to_owned(),
                        [value] => {
                            let name = foreign(&value.value, PART);
                            self.pick(
                                format!("from a network never seen ({name})"),
                                format!("처음 보는 주소 대역({name})에서 호출"),
                            )
                        }
                        many => {
                            let count = many.len();
                            self.pick(
                                format!("from {count} networks never seen"),
                                format!("처음 보는 주소 대역 {count}곳에서 호출"),
                            )
                        }
                    }
                }
                (None, Some(signal), _) => {
                    let seen = number(signal.seen);
                    self.pick(
                        format!("from {seen} networks at once"),
                        format!("주소 대역 {seen}곳에서 동시에 호출"),
                    )
                }
                (None, None, Some(signal)) => {
                    let seen = number(signal.seen);
                    self.pick(
                        format!("from places {seen} km apart within an hour"),
                        format!("1시간 안에 {seen}km 떨어진 곳에서 번갈아 호출"),
                    )
                }
                (None, None, None) => signals.first().map(|signal| self.signal(&signal.signal))?,
            },
        })
    }

    /// Returns a country's name as it stands in a sentence: `the Netherlands`.
    fn country_in_text(self, code: &str) -> String {
        let name = self.country_name(code);
        let has_article = name.starts_with("United ")
            || ["Islands", "Republic", "Territory", "Territories"].iter().any(|end| name.ends_with(end))
            || ["Netherlands", "Philippines", "Bahamas", "Maldives", "Gambia"].contains(&name.as_str());
        if has_article { format!("the {name}") } else { name }
    }

    fn behaviour(self, signals: &[&SignalJson]) -> Option<String> {
        let find = |name: &str| find(signals, name);
        let count = |signal: &SignalJson| new_values(signal).len();
        if let Some(signal) = find("user_agent") {
            return Some(match count(signal) {
                0 | 1 => self.pick("with a user agent never seen", "처음 보는 사용자 에이전트").to_owned(),
                n => self.pick(
                    format!("with {n} user agents never seen"),
                    format!("처음 보는 사용자 에이전트 {n}개"),
                ),
            });
        }
        if let Some(signal) = find("route") {
            return Some(match count(signal) {
                0 | 1 => self.pick("calling a route that it never called", "처음 호출된 경로").to_owned(),
                n => self.pick(
                    format!("calling {n} routes that it never called"),
                    format!("처음 호출된 경로 {n}개"),
                ),
            });
        }
        if find("mix").is_some() {
            return Some(self.pick("calling other routes than usual", "평소와 다른 경로 호출").to_owned());
        }
        signals.first().map(|signal| self.signal(&signal.signal))
    }

    fn refusals(self, signal: &SignalJson) -> String {
        let seen = self.calls(signal.seen);
        let (en, ko) = match signal.signal.as_str() {
            "throttled" => (format!("{seen} over the limit"), format!("한도를 넘은 {seen}")),
            "refused" => (format!("{seen} refused"), format!("거부된 {seen}")),
            other => return self.signal(other),
        };
        match expected(signal) {
            Some(usual) => self.pick(format!("{en} ({usual} expected)"), format!("{ko}(평소 {usual}회)")),
            None => self.pick(en, ko),
        }
    }

    /// Words a window's width as in `481 in a minute`.
    fn width(self, seconds: u64) -> String {
        match seconds {
            60 => self.pick("a minute", "1분간").to_owned(),
            300 => self.pick("five minutes", "5분간").to_owned(),
            3_600 => self.pick("an hour", "1시간 동안").to_owned(),
            other => {
                let minutes = number(other / 60);
                self.pick(format!("{minutes} minutes"), format!("{minutes}분간"))
            }
        }
    }

    /// Composes the sentence about other keys of the same network.
    pub(crate) fn other_keys(self, transition: &TransitionJson) -> Option<String> {
        let network = busiest(transition).filter(|_| transition.transition != Change::Withdrawn)?;
        let name = foreign(&network.network, NAME);
        let (keys, customers) = (self.other(network.keys), self.customers(network.customers));
        let question = match stolen_keys(transition) {
            Some(_) => self.pick(": a stolen database?", ". 데이터베이스 유출일 수 있습니다"),
            None => "",
        };
        let sentence = self.pick(
            format!("The same network ({name}) called with {keys} of {customers} within 24 hours{question}"),
            format!("같은 주소 대역({name})이 24시간 안에 {customers}의 {keys}로도 호출했습니다{question}"),
        );
        Some(if sentence.ends_with('?') { sentence } else { format!("{sentence}.") })
    }

    /// Words how many keys a network called with for the first time, and how many it is usual for.
    pub(super) fn keys_of_network(self, network: &OtherKeysJson) -> String {
        let (keys, customers) = (self.other(network.keys), self.customers(network.customers));
        let first = self.pick(
            format!("first calls with {keys} of {customers}"),
            format!("{keys}({customers})에 첫 호출"),
        );
        let usual = self.other(network.usual_keys);
        let usual = self.pick(format!("usual for {usual}"), format!("{usual}가 평소에 쓰는 대역"));
        match (network.keys, network.usual_keys) {
            (_, 0) => first,
            (0, _) => usual,
            _ => format!("{first}; {usual}"),
        }
    }

    fn customers(self, customers: u32) -> String {
        let number = number(customers.into());
        self.pick(
            if customers == 1 { "1 customer".to_owned() } else { format!("{number} customers") },
            format!("고객 {number}곳"),
        )
    }

    /// Words a number of other keys, which is exact below 64.
    pub(super) fn other(self, keys: u32) -> String {
        match keys {
            1 => self.pick("1 other key", "다른 키 1개").to_owned(),
            64.. => self.pick("64 or more other keys", "다른 키 64개 이상").to_owned(),
            _ => self.pick(format!("{keys} other keys"), format!("다른 키 {keys}개")),
        }
    }
}

/// Leaves out what stands in brackets, with the blank before it.
fn brief(clause: &str) -> String {
    let mut out = String::with_capacity(clause.len());
    let mut rest = clause;
    while let Some((before, after)) = rest.split_once('(') {
        let Some((_, after)) = after.split_once(')') else { break };
        out.push_str(before.trim_end());
        rest = after;
    }
    out + rest
}

fn find<'a>(signals: &[&'a SignalJson], name: &str) -> Option<&'a SignalJson> {
    signals.iter().copied().find(|signal| signal.signal == name)
}

fn new_values(signal: &SignalJson) -> Vec<&ValueJson> {
    signal.values.iter().filter(|value| value.new).collect()
}

/// Counts the calls whose answers have a status in a range.
fn answers(transition: &TransitionJson, range: std::ops::Range<u16>) -> u64 {
    let statuses = transition.evidence.taken.statuses.iter();
    let within = statuses.filter(|count| count.value.parse().is_ok_and(|status| range.contains(&status)));
    within.fold(0, |all, count| all.saturating_add(count.calls))
}

fn answered(transition: &TransitionJson) -> u64 {
    answers(transition, 100..400)
}

/// Counts the calls that were refused.
pub(super) fn refused(transition: &TransitionJson) -> u64 {
    answers(transition, 400..600)
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::detect::Signal;
    use proptest::prelude::*;

    use super::*;
    use crate::email::samples;

    const LANGUAGES: [Language; 2] = [Language::En, Language::Ko];

    /// A leak of one signal, which has no values.
    fn only(signal: Signal) -> TransitionJson {
        let mut row = samples::leak();
        row.signals.truncate(1);
        signal.name().clone_into(&mut row.signals[0].signal);
        signal.family().name().clone_into(&mut row.signals[0].family);
        row.evidence.taken.usual = 0;
        row
    }

    #[test]
    fn what_counts_most_leads_and_what_counts_nothing_is_not_said() {
        let mut row = samples::leak();
        let en = |row: &TransitionJson| headline(row, Language::En);
        assert_eq!(
            en(&row),
            "40x its usual calls (4,856 in five minutes, 121 expected), from 2 countries and a system never seen \
             (AS64500), 214 calls refused; the usual calls go on"
        );
        assert_eq!(
            headline(&row, Language::Ko),
            "호출이 평소의 40배(5분간 4,856회, 평소 121회), 처음 보는 국가 2곳과 통신망(AS64500)에서 호출, 처음 보는 사용자 \
             에이전트, 거부된 호출 214회(평소 0.6회); 평소의 호출도 계속됨"
        );
        row.signals[0].weighted_bits = 1.0;
        row.evidence.taken.usual = 0;
        assert_eq!(
            en(&row),
            "from 2 countries and a system never seen (AS64500), with a user agent never seen, 214 calls refused (0.6 \
             expected), 40x its usual calls"
        );
        row.signals.iter_mut().for_each(|signal| signal.weighted_bits = 0.0);
        row.signals[6].weighted_bits = 0.1;
        assert_eq!(en(&row), "214 calls refused (0.6 expected)");
        let mut dutch = samples::drip();
        "NL".clone_into(&mut dutch.signals[0].values[0].value);
        assert!(en(&dutch).starts_with("from the Netherlands and a system"), "{}", en(&dutch));
        assert_eq!(
            en(&samples::drip()),
            "from Italy and a system never seen (AS64511), 3.7x its usual calls for hours (52 in an hour, 14 expected); \
             the usual calls go on"
        );
    }

    #[test]
    fn a_revoked_key_is_said_to_work_only_if_it_does() {
        let en = |row: &TransitionJson| headline(row, Language::En);
        assert_eq!(en(&samples::answered()), "a revoked key still works: 96 calls answered, found in public");
        assert_eq!(en(&samples::refused()), "calls with a revoked key, all refused: 386");
        assert_eq!(headline(&samples::refused(), Language::Ko), "폐기된 키로 한 호출 386회, 모두 거부됨");
        let mut late = samples::refused();
        late.signals.push(samples::leak().signals.swap_remove(1));
        "2026-11-21T12:00:00Z".clone_into(&mut late.signals[1].first_at);
        assert!(en(&late).ends_with("calls with a revoked key, all refused: 12"), "{}", en(&late));
        // Calls before the revocation were answered rightly.
        let mut older = samples::answered();
        let country = samples::leak().signals.swap_remove(1);
        "2026-11-21T12:00:00Z".clone_into(&mut older.signals[1].first_at);
        older.signals.push(country);
        assert_eq!(
            en(&older),
            "a revoked key still works: 17 calls in five minutes, found in public, from 2 countries never seen (Brazil, \
             Vietnam)"
        );
    }

    #[test]
    fn many_keys_of_several_customers_look_like_a_stolen_database() {
        let row = samples::database();
        let en = other_keys(&row, Language::En).unwrap();
        assert_eq!(
            en,
            "The same network (203.0.113.0/24) called with 14 other keys of 5 customers within 24 hours: a stolen \
             database?"
        );
        assert!(other_keys(&row, Language::Ko).unwrap().contains("고객 5곳의 다른 키 14개"));
        let mut row = row;
        (row.evidence.other_keys[0].keys, row.evidence.other_keys[0].customers) = (2, 1);
        let en = other_keys(&row, Language::En).unwrap();
        assert_eq!(
            en,
            "The same network (203.0.113.0/24) called with 2 other keys of 1 customer within 24 hours."
        );
        row.transition = Change::Withdrawn;
        assert_eq!(other_keys(&row, Language::En), None);
        (row.transition, row.evidence.other_keys) = (Change::Opened, Vec::new());
        assert_eq!(other_keys(&row, Language::En), None);
    }

    #[test]
    fn every_signal_has_words_of_its_own_and_no_internal_name() {
        let mut all = std::collections::BTreeSet::new();
        for &signal in Signal::ALL {
            for language in LANGUAGES {
                let text = headline(&only(signal), language);
                for name in Signal::ALL.iter().map(|signal| signal.name()).filter(|name| name.contains('_')) {
                    assert!(!text.contains(name), "{text}");
                }
                assert!(language == Language::En || !text.is_ascii(), "{text}");
                let unusual = Wording(language).pick("unusual calls", "평소와 다른 호출");
                assert_ne!(text, unusual, "{signal:?}");
                all.insert(text);
            }
        }
        // The three widths of volume may share their words.
        assert!(all.len() >= 2 * (Signal::ALL.len() - 2), "{all:#?}");
    }

    proptest! {
        #[test]
        fn a_headline_is_never_longer_than_160_characters(
            which in 0..samples::NAMES.len(),
            value in any::<String>(),
            seen in any::<u64>(),
            bits in prop::collection::vec(0.0_f64..1e9, 7),
            copies in 1_usize..6,
        ) {
            let mut row = samples::all().swap_remove(which);
            for (signal, bits) in row.signals.iter_mut().zip(bits) {
                (signal.seen, signal.weighted_bits) = (seen, bits);
                signal.values.iter_mut().for_each(|each| each.value.clone_from(&value));
                signal.values = signal.values.iter().cycle().take(copies * signal.values.len()).cloned().collect();
            }
            for language in LANGUAGES {
                let text = headline(&row, language);
                prop_assert!(!text.is_empty() && text.chars().count() <= HEADLINE, "{}", text);
            }
        }
    }
}
