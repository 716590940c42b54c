//! The guide of a mail: a link, steps, and commands that answer an incident or an action or show sample records, all from
//! the configuration. No link acts: scanners of mail follow links, and send forms.
//!
//! Readers copy steps and commands into a shell. So every value that is filled in is one word of a POSIX shell: it has
//! plain characters, or stands in single quotes without any character that could end them. It never begins with a
//! hyphen, which would make it an option. No command has a user, a password or any other setting of a client.

use std::collections::BTreeMap;

use keytide_config::{Alerts, LinkTemplate, Source, SourceKind, Steps, fill_in};
use keytide_dataflow::incident_row::{SampleJson, TransitionJson};
use keytide_dataflow::{Action, ActionId, ActionState, Verb};

use super::clean::{foreign, line};
use super::{Audience, PlannedAction, is_over};
use crate::actions::ActionNotice;

/// The most characters of a value in a step or a command.
const WORD: usize = 128;

/// The parts of a mail that come from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Guide {
    link: Option<LinkTemplate>,
    steps: Steps,
    /// What `keytide actions` asks, if people may answer.
    asked: Option<String>,
    /// Where the records of a source are, by the source's name.
    records: BTreeMap<String, Records>,
}

/// The names that a step may have.
struct StepNames<'a> {
    key_id: &'a str,
    incident_id: &'a str,
    subscription: Option<&'a str>,
    customer: Option<&'a str>,
}

/// Where the records of a source are.
#[derive(Clone, Debug)]
enum Records {
    /// A topic, and one broker of its cluster.
    Topic { broker: String, topic: String },
    /// One file, whose number is always 0.
    File(String),
    /// The files of a pattern, by their number.
    Files(Vec<String>),
}

impl Guide {
    /// Returns the guide of a job with these sources.
    #[must_use]
    pub fn new(alerts: &Alerts, sources: &[Source]) -> Self {
        Self::of(alerts, sources.iter().map(|source| (source.name.as_str(), &source.kind)))
    }

    pub(super) fn of<'a>(alerts: &Alerts, sources: impl Iterator<Item = (&'a str, &'a SourceKind)>) -> Self {
        let records = sources.filter_map(|(name, kind)| {
            let records = match kind {
                SourceKind::Kafka(kafka) => Records::Topic {
                    broker: kafka.client.brokers.split(',').next().unwrap_or_default().to_owned(),
                    topic: kafka.topic.clone(),
                },
                // Which of several files has a number isn't known here.
                SourceKind::File { pattern } if !pattern.contains(['*', '?', '[']) => {
                    Records::File(pattern.clone())
                }
                SourceKind::File { .. } | SourceKind::Stdin => return None,
            };
            Some((name.to_owned(), records))
        });
        let (link, steps, asked) = (alerts.link.clone(), alerts.steps.clone(), alerts.asked.clone());
        Self { link, steps, asked, records: records.collect() }
    }

    /// Returns a guide that knows the files of a source, in the order of their numbers.
    #[must_use]
    pub fn with_files(mut self, source: &str, files: Vec<String>) -> Self {
        self.records.insert(source.to_owned(), Records::Files(files));
        self
    }

    /// Returns an incident's address in the reader's own tool.
    pub(crate) fn link(&self, incident_id: &str, key_id: &str) -> Option<String> {
        Some(self.link.as_ref()?.fill(incident_id, key_id))
    }

    /// Returns the scheme and host of all links.
    pub(super) fn origin(&self) -> Option<String> {
        self.link.as_ref().map(|link| link.origin().to_owned())
    }

    /// Returns the configured steps for a reader, filled in.
    pub(super) fn steps(&self, transition: &TransitionJson, audience: Audience) -> Vec<String> {
        let TransitionJson { key_id, incident_id, subscription, customer, .. } = transition;
        self.fill_steps(
            audience,
            &StepNames {
                key_id,
                incident_id,
                subscription: subscription.as_deref(),
                customer: customer.as_deref(),
            },
        )
    }

    /// Returns the configured steps for the owner of a key that is denied, filled in.
    pub(super) fn steps_of_owner(&self, notice: &ActionNotice) -> Vec<String> {
        let ActionNotice { key_id, incident, subscription, customer, .. } = notice;
        self.fill_steps(
            Audience::Owner,
            &StepNames {
                key_id,
                incident_id: &incident.to_string(),
                subscription: subscription.as_deref(),
                customer: customer.as_deref(),
            },
        )
    }

    fn fill_steps(&self, audience: Audience, names: &StepNames<'_>) -> Vec<String> {
        let steps = match audience {
            Audience::Security => &self.steps.security,
            Audience::Owner => &self.steps.owner,
        };
        steps.iter().map(|step| fill(step, names)).collect()
    }

    /// Returns the commands by which a person answers an incident, in the order in which they are listed. What is over is
    /// answered no more, unless an action was asked for.
    pub(crate) fn answers(
        &self,
        transition: &TransitionJson,
        planned: Option<&PlannedAction>,
    ) -> Vec<(Verb, String)> {
        let TransitionJson { incident_id, key_id, .. } = transition;
        let of_action = planned.and_then(|planned| Some((planned.id?, planned.action, planned.state)));
        let of_action = of_action.into_iter().flat_map(|(id, action, state)| about(id, action, state));
        let of_incident = [
            (Verb::Dismiss, incident_id.clone(), ""),
            (Verb::Accept, key_id.clone(), ""),
            (Verb::Mute, key_id.clone(), " --for 2h"),
        ];
        let of_incident = of_incident.into_iter().filter(|_| !is_over(transition));
        let all = of_action.chain(of_incident);
        all.filter_map(|(verb, target, more)| Some((verb, self.answer(verb, &target, more)?))).collect()
    }

    /// Returns the commands by which a person answers after a change of an action, in the order in which they are listed.
    pub(crate) fn answers_about(&self, notice: &ActionNotice) -> Vec<(Verb, String)> {
        let ActionNotice { id, action, state, .. } = *notice;
        let mut all = about(id, action, state);
        // A revocation is final, and what is let in again needs no more.
        if action == Action::Suspend && state != ActionState::Withdrawn {
            all.push((Verb::Dismiss, id.to_string(), ""));
        }
        all.into_iter()
            .filter_map(|(verb, target, more)| Some((verb, self.answer(verb, &target, more)?)))
            .collect()
    }

    /// Returns the command that holds every action; `None` if nobody may answer.
    pub(super) fn pause(&self) -> Option<String> {
        self.answer(Verb::Pause, "", "")
    }

    /// Returns the command that shows an action.
    pub(super) fn show(&self, id: ActionId) -> Option<String> {
        self.ask("show", &id.to_string(), "")
    }

    /// Returns the command that lists all actions.
    pub(crate) fn list(&self) -> Option<String> {
        self.ask("list", "", "")
    }

    /// Returns a command that gives an answer about a target, if it has one, with further options.
    fn answer(&self, verb: Verb, target: &str, more: &str) -> Option<String> {
        self.ask(verb.name(), target, &format!("{more} --why REASON"))
    }

    fn ask(&self, what: &str, target: &str, more: &str) -> Option<String> {
        let asked = self.asked.as_ref()?;
        // At an address the token says who asks.
        let token = if asked.contains("://") { " --token env:KEYTIDE_TOKEN" } else { "" };
        let target =
            if target.is_empty() { String::new() } else { format!(" {}", word(&line(target, WORD))) };
        Some(format!("keytide actions {} {what}{target}{more}{token}", word(asked)))
    }

    /// Returns the command that shows the record of a sample; `None` if its place isn't known.
    pub(super) fn command(&self, sample: &SampleJson) -> Option<String> {
        let SampleJson { partition, offset, .. } = sample;
        Some(match self.records.get(&sample.source)? {
            Records::Topic { broker, topic } => {
                format!("kcat -C -q -b {} -t {} -p {partition} -o {offset} -c 1", word(broker), word(topic))
            }
            Records::File(path) => of_file(path, *offset),
            Records::Files(paths) => of_file(paths.get(*partition as usize)?, *offset),
        })
    }
}

/// Returns the answers that an action of a state has, with their targets and options.
fn about(id: ActionId, action: Action, state: ActionState) -> Vec<(Verb, String, &'static str)> {
    use ActionState::{Confirmed, Done, Failed, Held, Requested, Withdrawn};
    let verbs: &[Verb] = match (state, action) {
        (Held, _) => &[Verb::Approve],
        (Done | Confirmed, Action::Suspend) => &[Verb::Reinstate, Verb::Revoke],
        // The key is denied from the request on, whether or not the gateway can do it.
        (Requested | Failed, Action::Suspend) => &[Verb::Reinstate],
        (Requested | Done | Confirmed | Failed, Action::Revoke | Action::Reinstate) | (Withdrawn, _) => &[],
    };
    verbs.iter().map(|verb| (*verb, id.to_string(), "")).collect()
}

/// Returns the command that shows the line at a byte of a file.
fn of_file(path: &str, offset: u64) -> String {
    // `tail` counts bytes from 1.
    let (from, path) = (offset.saturating_add(1), word(path));
    match path.trim_end_matches('\'').ends_with(".gz") {
        true => format!("gzip -dc {path} | tail -c +{from} | head -n 1"),
        false => format!("tail -c +{from} {path} | head -n 1"),
    }
}

/// Fills a step with the names of an incident, each as one word of a shell.
fn fill(step: &str, names: &StepNames<'_>) -> String {
    let name = |name: Option<&str>| name.map_or_else(|| "unknown".to_owned(), |name| foreign(name, WORD));
    fill_in(step, |placeholder| {
        word(&match placeholder {
            "key_id" => line(names.key_id, WORD),
            "incident_id" => line(names.incident_id, WORD),
            "subscription" => name(names.subscription),
            _ => name(names.customer),
        })
    })
}

/// Returns a text as one word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@/-".contains(c);
    // Shells of other systems take typographic quotes for quotes, and act on some characters within them.
    let harmless = |c: char| c.is_alphanumeric() || " ._:@/-,()[]#+".contains(c);
    let mut out: String = text.chars().map(|c| if harmless(c) { c } else { '_' }).collect();
    if out.starts_with('-') && out.len() > 1 {
        out.replace_range(..1, "_");
    }
    match out.is_empty() || !out.chars().all(plain) {
        true => format!("'{out}'"),
        false => out,
    }
}

#[cfg(test)]
mod tests {
    use keytide_config::{JobConfig, Language};
    use lettre::message::Mailbox;
    use proptest::prelude::*;

    use super::*;
    use crate::email::{Composer, Letter, Mail, samples};

    const CONFIG: &str = "[[source]]\nname = \"gateway-seoul\"\nkind = \"kafka\"\nbrokers = \"kafka-1.example:9092,b:2\"\n\
        topic = \"access-events\"\nformat = \"apisix\"\n[source.librdkafka]\n\"sasl.password\" = \"env:CANARY\"\n\
        [[source]]\nname = \"gateway-tokyo\"\nkind = \"file\"\npath = \"/logs/one day.gz\"\nformat = \"apisix\"\n\
        [[source]]\nname = \"many\"\nkind = \"file\"\npath = \"/logs/*.log\"\nformat = \"apisix\"\n\
        [alerts]\nlink = \"https://soc.example.com/?i={incident_id}&k={key_id}\"\n[alerts.steps]\n\
        security = [\"Suspend it: ourctl keys suspend {key_id}\", \"Call {customer} ({subscription}).\"]\n\
        [alerts.email]\ndir = \"mails\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n";

    fn guide(config: &str) -> Guide {
        let env = [("CANARY".to_owned(), "canary-4f1c".to_owned())];
        let loaded = JobConfig::parse(config, std::path::Path::new("/etc"), env.into_iter()).unwrap();
        Guide::new(&loaded.job.alerts, &loaded.job.sources)
    }

    fn mail(transition: &TransitionJson, audience: Audience, language: Language) -> Mail {
        let composer = Composer::new("a@example.com".parse().unwrap(), None).unwrap().guided(guide(CONFIG));
        let to: Mailbox = "b@example.com".parse().unwrap();
        let letter = Letter { transition, planned: None, audience, language, to: &to, date_ms: 0 };
        composer.incident(&letter).unwrap()
    }

    #[test]
    fn commands_answer_an_incident_and_owners_get_none() {
        let planned = |held: Option<&str>| PlannedAction {
            id: Some(ActionId(7)),
            action: Action::Suspend,
            state: if held.is_some() { ActionState::Held } else { ActionState::Requested },
            why: held.unwrap_or_default().to_owned(),
            is_decision: true,
        };
        let leak = samples::leak();
        let asked = |asked: &str| Guide { asked: Some(asked.to_owned()), ..Guide::default() };
        let (id, key) = (&leak.incident_id, &leak.key_id);
        let commands = |guide: &Guide, planned: Option<&PlannedAction>| -> Vec<String> {
            guide.answers(&leak, planned).into_iter().map(|(_, command)| command).collect()
        };
        assert_eq!(
            commands(&asked("/etc/key tide.toml"), Some(&planned(Some("the breaker")))),
            [
                "keytide actions '/etc/key tide.toml' approve 00000000000000000000000000000007 --why REASON"
                    .to_owned(),
                format!("keytide actions '/etc/key tide.toml' dismiss {id} --why REASON"),
                format!("keytide actions '/etc/key tide.toml' accept {key} --why REASON"),
                format!("keytide actions '/etc/key tide.toml' mute {key} --for 2h --why REASON"),
            ]
        );
        let of_url = commands(&asked("http://job:9464"), Some(&planned(None)));
        assert_eq!(
            of_url[0],
            "keytide actions http://job:9464 reinstate 00000000000000000000000000000007 --why REASON \
             --token env:KEYTIDE_TOKEN"
        );
        // Nobody can approve what is only shown, and nobody answers where no people are.
        let shown = PlannedAction { id: None, ..planned(Some("acting is off")) };
        assert_eq!(commands(&asked("a.toml"), Some(&shown)).len(), 3);
        assert_eq!(commands(&Guide::default(), Some(&shown)), [""; 0]);
        let over = TransitionJson { transition: keytide_dataflow::Change::Ended, ..leak.clone() };
        assert_eq!(asked("a.toml").answers(&over, None), []);

        let composer = Composer::new("a@example.com".parse().unwrap(), None).unwrap().guided(asked("a.toml"));
        let to: Mailbox = "b@example.com".parse().unwrap();
        for (audience, language) in [
            (Audience::Security, Language::En),
            (Audience::Security, Language::Ko),
            (Audience::Owner, Language::En),
        ] {
            let letter = Letter { transition: &leak, planned: None, audience, language, to: &to, date_ms: 0 };
            let mail = composer.incident(&letter).unwrap();
            let has_commands =
                [&mail.text, &mail.html].map(|part| part.contains("keytide actions a.toml dismiss"));
            assert_eq!(has_commands, [audience == Audience::Security; 2], "{}", mail.text);
        }
    }

    #[test]
    fn records_are_shown_by_a_command_without_secrets() {
        let guide = guide(CONFIG);
        let [kafka, .., file] = &*samples::leak().evidence.samples else { panic!("samples") };
        let many = SampleJson { source: "many".to_owned(), ..kafka.clone() };
        let shown = [kafka, file, &many].map(|sample| guide.command(sample));
        assert_eq!(
            shown,
            [
                Some(format!(
                    "kcat -C -q -b kafka-1.example:9092 -t access-events -p {} -o {} -c 1",
                    kafka.partition, kafka.offset
                )),
                Some(format!("gzip -dc '/logs/one day.gz' | tail -c +{} | head -n 1", file.offset + 1)),
                None,
            ]
        );
        assert!(!format!("{guide:?}").contains("canary"), "{guide:?}");
    }

    #[test]
    fn security_reads_link_steps_and_commands_and_owners_none_of_them() {
        let transition = samples::leak();
        for language in [Language::En, Language::Ko] {
            let security = mail(&transition, Audience::Security, language);
            let owner = mail(&transition, Audience::Owner, language);
            let link = "https://soc.example.com/?i=8c4f21d97a06b35e19f2c0a4d7e86b13&k=3f2a9c41d0b7e85566f1a2903c4d7e1b";
            // An address in one piece, or a mail program can't open it.
            assert!(security.text.lines().any(|line| line == link), "{}", security.text);
            for expected in [
                "ourctl keys suspend",
                "'Acme Logistics' (sub-1042)",
                "kcat -C -q -b kafka-1.example:9092",
                "soc.example.com",
                "203.0.113.0/24",
                "91f2ee07ba6c4d31885a0b7c6d5e4f30",
                "Borealis Foods",
                "40e1a7730cbb1d5f8e96f21b66a3c0d9",
            ] {
                assert!(security.text.contains(expected), "{expected}: {}", security.text);
                let html = security.html.replace("&#x2f;", "/").replace("&#x27;", "'");
                assert!(html.contains(expected), "{expected}: {html}");
            }
            for hidden in [
                "ourctl",
                "kcat",
                "soc.example.com",
                "91f2ee07",
                "77a1c0de",
                "Borealis",
                "40e1a773",
                "partner-batch",
            ] {
                assert!(
                    !owner.text.contains(hidden) && !owner.html.contains(hidden),
                    "{hidden}: {}",
                    owner.text
                );
                assert!(!owner.subject.contains(hidden), "{}", owner.subject);
            }
            assert!(
                !owner.subject.contains("other key") && !owner.subject.contains("다른 키"),
                "{}",
                owner.subject
            );
            assert!(owner.text.contains("1.8 GiB") && security.text.contains("1.8 GiB"), "{}", owner.text);
        }
    }

    #[test]
    fn the_only_link_is_the_configured_one() {
        let mut transition = samples::leak();
        transition.key_id = "x\" onclick=\"y://evil.example/".to_owned();
        let mail = mail(&transition, Audience::Security, Language::En);
        assert_eq!(mail.html.matches("<a ").count(), 1, "{}", mail.html);
        let href = "href=\"https:&#x2f;&#x2f;soc.example.com&#x2f;?i=";
        assert_eq!(mail.html.matches("href=").count(), mail.html.matches(href).count(), "{}", mail.html);
        assert!(mail.text.matches("://").count() == 1 && mail.text.contains("https://soc.example.com/?i="));
    }

    proptest! {
        /// As a POSIX shell reads it: one word, in which nothing is expanded.
        #[test]
        fn a_value_is_one_word_of_a_shell(text in any::<String>()) {
            let word = word(&text);
            prop_assert!(!word.is_empty() && (!word.starts_with('-') || word == "-"), "{}", word);
            let inner = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            match inner {
                Some(inner) => prop_assert!(!inner.contains(['\'', '\\', '\n', '$', '`', '"', '%', '!', '\u{2018}', '\u{2019}']), "{}", word),
                None => prop_assert!(word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@/-".contains(&b)), "{}", word),
            }
        }

        #[test]
        fn a_step_says_what_it_says_whatever_the_names_are(key in any::<String>(), customer in any::<String>()) {
            let names = StepNames { key_id: &key, incident_id: "", subscription: None, customer: Some(&customer) };
            let filled = fill("a {key_id} b {customer} c", &names);
            prop_assert!(filled.starts_with("a ") && filled.ends_with(" c") && filled.contains(" b "), "{}", filled);
            prop_assert!(!filled.contains(['{', '}', '$', '`', ';', '|', '&', '<', '>']), "{}", filled);
        }
    }
}
