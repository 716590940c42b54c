//! Mails about actions and late gateways: they are as harmless as those of incidents, say who wanted what, and name the
//! commands that come next.

use keytide_dataflow::{IncidentId, Verb};

use super::*;
use crate::actions::{ActionNotice, Decided, GatewayNotice};

fn letter(notice: &ActionNotice, audience: Audience, language: Language) -> ActionLetter<'_> {
    ActionLetter { notice, audience, language, to: &TO, date_ms: DATE_MS }
}

fn mail(notice: &ActionNotice, audience: Audience, language: Language) -> Mail {
    COMPOSER.action(&letter(notice, audience, language)).unwrap()
}

fn guided() -> Composer {
    Composer::new("keytide@example.com".parse().unwrap(), None).unwrap().guided(samples::guide())
}

/// The text with one blank in place of each break.
fn flat(mail: &Mail) -> String {
    mail.text.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\ ", "")
}

/// A notice in which every text is a stranger's. A field that is added doesn't compile until it is here.
fn hostile(notice: &ActionNotice, text: &str) -> ActionNotice {
    let ActionNotice {
        id,
        seq,
        key_id: _,
        incident,
        action,
        from,
        state,
        at_ms,
        decided,
        is_explained,
        why: _,
        gateway: _,
        subscription: _,
        customer: _,
        plan: _,
        is_decision,
        contacts: _,
    } = notice.clone();
    let some = || Some(text.to_owned());
    ActionNotice {
        id,
        seq,
        key_id: text.to_owned(),
        incident,
        action,
        from,
        state,
        at_ms,
        decided: decided.map(|Decided { verb, who: _, at_ms }| Decided { verb, who: text.to_owned(), at_ms }),
        is_explained,
        why: text.to_owned(),
        gateway: some(),
        subscription: some(),
        customer: some(),
        plan: some(),
        is_decision,
        contacts: vec![text.to_owned()],
    }
}

fn are_harmless(text: &str) {
    let planned = PlannedAction { why: text.to_owned(), ..samples::planned() };
    let transition = samples::leak();
    for language in LANGUAGES {
        let notices: Vec<ActionNotice> =
            samples::actions().iter().map(|notice| hostile(notice, text)).collect();
        for audience in AUDIENCES {
            notices.iter().for_each(|notice| is_harmless(&mail(notice, audience, language)));
            let actions = notices.iter().collect();
            let digest = StormDigest {
                incidents: vec![(&transition, Some(&planned))],
                actions,
                held: 2,
                ..StormDigest::default()
            };
            is_harmless(&COMPOSER.digest(&digest, audience, language, &TO, DATE_MS).unwrap());
        }
        for mut notice in samples::gateways() {
            notice.gateway = notice.gateway.map(|_| text.to_owned());
            notice.named.iter_mut().for_each(|named| named.key_id = text.to_owned());
            is_harmless(&COMPOSER.gateway(&notice, language, &TO, DATE_MS).unwrap());
        }
    }
}

#[test]
fn mails_about_actions_are_harmless_whatever_strangers_wrote() {
    let long = "A".repeat(100_000);
    for payload in [
        "x\r\nBcc: victim@example.net\r\n\r\n<html>",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "'><a href='https://evil.example/'>click</a>",
        "{{ 7 * 7 }}{% include \"layout.html\" %}",
        "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
        "abc\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}",
        "=HYPERLINK(\"https://evil.example\")",
        "\0",
        "",
        long.as_str(),
    ] {
        are_harmless(payload);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_makes_a_harmless_mail_about_an_action(text in any::<String>()) {
        are_harmless(&text);
    }
}

#[test]
fn a_mail_about_an_action_is_in_the_thread_of_its_incident_and_has_an_id_of_its_own() {
    let [held, suspended, ..] = &*samples::actions() else { panic!("samples") };
    for audience in AUDIENCES {
        let of_incident = super::mail(&samples::leak(), audience, Language::En).message_id;
        let mail = |notice| mail(notice, audience, Language::En);
        let header = |mail: &Mail, name| mail.message.headers().get_raw(name).map(str::to_owned);
        let name = audience.name();
        let id = format!("<action-00000000000000000000000000000007.1.{name}@example.com>");
        assert_eq!(mail(suspended).message_id, id);
        assert_ne!(mail(held).message_id, id);
        for header_name in ["In-Reply-To", "References"] {
            assert_eq!(header(&mail(suspended), header_name).as_ref(), Some(&of_incident));
        }
        assert_eq!(header(&mail(suspended), "X-Keytide-Change").as_deref(), Some("suspend-done"));
        assert_eq!(mail(suspended).message.formatted(), mail(suspended).message.formatted());
    }
    let [first, again, _] = &*samples::gateways() else { panic!("samples") };
    let mail = |notice| COMPOSER.gateway(notice, Language::En, &TO, DATE_MS).unwrap();
    let header = |mail: &Mail| mail.message.headers().get_raw("In-Reply-To").map(str::to_owned);
    assert_eq!((header(&mail(first)), header(&mail(again))), (None, Some(mail(first).message_id)));
}

#[test]
fn subjects_say_what_became_of_which_key_and_by_whom() {
    let subjects = |audience, language| -> Vec<String> {
        samples::actions().iter().map(|notice| mail(notice, audience, language).subject).collect()
    };
    let key = "key 3f2a9c41 Acme Logistics (gold)";
    assert_eq!(
        subjects(Audience::Security, Language::En),
        [
            format!(
                "[Keytide] HELD {key}: suspending it: the breaker lets pass 10 keys an hour, of 1200 in use"
            ),
            format!("[Keytide] SUSPENDED {key}: as its policy says"),
            format!("[Keytide] SUSPENDED {key}: approved by alice"),
            format!("[Keytide] LET IN AGAIN {key}: reinstated by bob"),
            format!("[Keytide] REVOKED {key}: revoked by alice"),
            format!("[Keytide] FAILED {key}: suspending it: the gateway has no such credential"),
            format!("[Keytide] STILL ANSWERED {key}: 3 of 40 calls in a minute"),
            format!("[Keytide] VOID {key}: suspending it: nobody decided about it within a day"),
        ]
    );
    let korean = subjects(Audience::Security, Language::Ko);
    assert_eq!(korean[2], "[Keytide] 정지 키 3f2a9c41 Acme Logistics (gold): alice 승인");
    let owner = subjects(Audience::Owner, Language::En);
    assert_eq!(owner[1], "[Keytide] Your API key 3f2a9c41 is suspended");
    assert_eq!(owner[3], "[Keytide] Your API key 3f2a9c41 is let in again");
    assert_eq!(owner[6], "[Keytide] Your API key 3f2a9c41 is suspended and still answered");
    let owner = subjects(Audience::Owner, Language::Ko);
    assert_eq!(owner[1], "[Keytide] API 키(3f2a9c41)가 정지되었습니다");
    let late: Vec<String> = samples::gateways()
        .iter()
        .map(|notice| COMPOSER.gateway(notice, Language::En, &TO, DATE_MS).unwrap().subject)
        .collect();
    assert_eq!(
        late,
        [
            "[Keytide] LATE gateway kong-seoul: 1 action not done since 2026-11-21 14:08 UTC",
            "[Keytide] LATE gateway kong-seoul: 1,204 actions not done since 2026-11-21 14:08 UTC",
            "[Keytide] LATE no gateway: 1 action not done since 2026-11-21 14:08 UTC",
        ]
    );
}

#[test]
fn security_reads_the_commands_that_come_next_and_the_link_and_owners_neither() {
    let composer = guided();
    let id = "00000000000000000000000000000007";
    let commands = [
        &["approve", "dismiss", "show"][..],
        &["reinstate", "revoke", "dismiss", "show"],
        &["reinstate", "revoke", "dismiss", "show"],
        &["show"],
        &["show"],
        &["reinstate", "dismiss", "show"],
        &["reinstate", "dismiss", "show"],
        &["show"],
    ];
    for language in LANGUAGES {
        for (notice, expected) in samples::actions().iter().zip(commands) {
            let mail = composer.action(&letter(notice, Audience::Security, language)).unwrap();
            let text = flat(&mail);
            let asked = |verb: &str| {
                let reason = if verb == "show" { "" } else { " --why REASON" };
                format!(
                    "keytide actions http://keytide.example.com:9464 {verb} {id}{reason} --token env:KEYTIDE_TOKEN"
                )
            };
            for verb in ["approve", "dismiss", "reinstate", "revoke", "show"] {
                assert_eq!(text.contains(&asked(verb)), expected.contains(&verb), "{verb}: {text}");
            }
            assert_eq!(text.matches("keytide actions").count(), expected.len(), "{text}");
            let link = "https://soc.example.com/incidents/8c4f21d97a06b35e19f2c0a4d7e86b13";
            assert!(mail.text.lines().any(|line| line == link), "{text}");
            let owner = composer.action(&letter(notice, Audience::Owner, language)).unwrap();
            for part in [&owner.text, &owner.html, &owner.subject] {
                for hidden in [
                    "keytide actions",
                    "soc.example.com",
                    id,
                    "alice",
                    "bob",
                    "kong-seoul",
                    "4711",
                    "breaker",
                    "Acme",
                ] {
                    assert!(!part.contains(hidden), "{hidden}: {part}");
                }
            }
        }
        let late = flat(&composer.gateway(&samples::gateways()[0], language, &TO, DATE_MS).unwrap());
        for verb in ["list", "pause --why REASON"] {
            let command = format!("keytide actions http://keytide.example.com:9464 {verb} --token");
            assert!(late.contains(&command), "{late}");
        }
    }
}

#[test]
fn owners_are_asked_to_do_what_the_configuration_says_if_their_key_is_blocked() {
    let step = "Make a new key in the console, put it in place, and revoke 3f2a9c41d0b7e85566f1a2903c4d7e1b.";
    for (notice, name) in samples::actions().iter().zip(samples::ACTION_NAMES) {
        let text = flat(&guided().action(&letter(notice, Audience::Owner, Language::En)).unwrap());
        assert_eq!(text.contains(step), name != "lifted", "{name}: {text}");
    }
}

#[test]
fn a_mail_says_who_lets_a_key_in_again() {
    let of = |decided: Option<(Verb, &str)>, is_explained, why: &str| {
        let decided = decided.map(|(verb, who)| Decided { verb, who: who.to_owned(), at_ms: 0 });
        let why = why.to_owned();
        let notice = ActionNotice { decided, is_explained, why, ..samples::actions().swap_remove(3) };
        LANGUAGES.map(|language| flat(&mail(&notice, Audience::Security, language)))
    };
    let [en, ko] = of(Some((Verb::Dismiss, "bob")), false, "a load test");
    assert!(en.contains("The key is let in again, dismissed by bob (a load test)."), "{en}");
    assert!(ko.contains("키가 다시 허용되었습니다(bob 기각: a load test)."), "{ko}");
    let allowed = keytide_dataflow::Reason::Allowed.name();
    let [en, ko] = of(None, true, allowed);
    assert!(en.contains(&format!("as its incident was withdrawn ({allowed}).")), "{en}");
    assert!(ko.contains("(사건이 철회됨: 호출한 곳이 이 키의 허용 목록에 있습니다)."), "{ko}");
    let [en, ko] = of(None, false, "nobody decided about it within a day");
    assert!(en.contains("as its suspension lapsed (nobody decided about it within a day)."), "{en}");
    assert!(ko.contains("(정지가 무효가 됨: 하루 동안 아무도 결정하지 않았습니다)."), "{ko}");
}

#[test]
fn an_incidents_mail_says_how_far_its_action_is() {
    let transition = samples::leak();
    let of = |action, state, audience| {
        let why = "the table is stale".to_owned();
        let planned = PlannedAction { action, state, why, ..samples::planned() };
        let letter = Letter { planned: Some(&planned), ..super::letter(&transition, audience, Language::En) };
        flat(&COMPOSER.incident(&letter).unwrap())
    };
    use ActionState::{Done, Failed, Held, Requested};
    let (security, owner) = (Audience::Security, Audience::Owner);
    for (action, state, audience, expected) in [
        (Action::Suspend, Held, security, "would be suspended; that is held: the table is stale."),
        (Action::Suspend, Requested, security, "The key is being suspended."),
        (Action::Revoke, Done, security, "The key was revoked."),
        (Action::Reinstate, Done, security, "The key was let in again."),
        (Action::Suspend, Failed, security, "The key couldn't be suspended: the table is stale."),
        (Action::Suspend, Held, owner, "The key still works: it has not been blocked."),
        (Action::Suspend, Failed, owner, "The key still works: it has not been blocked."),
        (Action::Suspend, Requested, owner, "The key is being blocked. You get a mail once that is done."),
        (Action::Suspend, Done, owner, "The key is suspended: calls with it are refused."),
        (Action::Revoke, Done, owner, "The key is revoked: calls with it are refused."),
        (Action::Reinstate, Done, owner, "The key was let in again: calls with it work."),
    ] {
        let text = of(action, state, audience);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_digest_of_actions_lists_what_failed_first_and_says_how_many_wait() {
    let notices = samples::actions();
    let of = |digest: &StormDigest<'_>, audience, language| {
        guided().digest(digest, audience, language, &TO, DATE_MS).unwrap()
    };
    let digest = StormDigest { actions: notices.iter().collect(), held: 1, ..StormDigest::default() };
    let mail = of(&digest, Audience::Security, Language::En);
    assert_eq!(mail.subject, "[Keytide] DIGEST 1 action waits for a person; 8 changes of actions");
    let text = flat(&mail);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(at("* STILL ANSWERED") < at("* HELD") && at("* HELD") < at("* LET IN AGAIN"), "{text}");
    assert!(text.contains("keytide actions http://keytide.example.com:9464 list"), "{text}");
    let mail = of(&digest, Audience::Owner, Language::Ko);
    assert_eq!(mail.subject, "[Keytide] API 키 8개가 차단되거나 다시 허용되었습니다");
    assert!(!mail.text.contains("keytide actions") && !mail.text.contains("alice"), "{}", mail.text);
    let other = StormDigest { more_actions: 7, ..digest.clone() };
    assert_eq!(of(&other, Audience::Owner, Language::Ko).message_id, mail.message_id);
    let fewer = StormDigest { actions: notices[1..].iter().collect(), ..digest };
    assert_ne!(of(&fewer, Audience::Owner, Language::Ko).message_id, mail.message_id);
}

#[test]
fn samples_of_actions_are_about_the_sample_of_a_leak() {
    let leak = IncidentId::parse(&samples::leak().incident_id).unwrap();
    assert!(samples::actions().iter().all(|notice| notice.incident == leak));
    let names: Vec<GatewayNotice> = samples::gateways();
    assert_eq!((samples::ACTION_NAMES.len(), names.len()), (samples::actions().len(), 3));
}
