//! What holds for every mail, whatever strangers wrote into an incident: see [`is_harmless`].

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::sync::LazyLock;

use keytide_config::Language;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::{
    CountJson, EarlierJson, EvidenceJson, OtherKeyJson, OtherKeysJson, PointJson, SampleJson, SignalJson,
    TakenJson, TransitionJson, UsualJson, ValueJson,
};
use lettre::message::Mailbox;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;

mod actions;
mod quotas;

const DATE_MS: u64 = 1_795_424_400_000;
const AUDIENCES: [Audience; 2] = [Audience::Security, Audience::Owner];
const LANGUAGES: [Language; 2] = [Language::En, Language::Ko];

static COMPOSER: LazyLock<Composer> =
    LazyLock::new(|| Composer::new("Keytide <keytide@example.com>".parse().unwrap(), None).unwrap());
static TO: LazyLock<Mailbox> = LazyLock::new(|| "security@example.org".parse().unwrap());

fn letter(transition: &TransitionJson, audience: Audience, language: Language) -> Letter<'_> {
    Letter { transition, planned: None, audience, language, to: &TO, date_ms: DATE_MS }
}

fn mail(transition: &TransitionJson, audience: Audience, language: Language) -> Mail {
    COMPOSER.incident(&letter(transition, audience, language)).unwrap()
}

/// A digest of incidents about which nothing is done.
fn storm<'a>(incidents: &[&'a TransitionJson]) -> StormDigest<'a> {
    let incidents = incidents.iter().map(|each| (*each, None)).collect();
    StormDigest { incidents, ..StormDigest::default() }
}

/// Every text of a transition. A field that is added doesn't compile until it is here.
fn texts(transition: &mut TransitionJson) -> Vec<&mut String> {
    let TransitionJson {
        incident_id,
        seq: _,
        transition: _,
        at,
        reason,
        early: _,
        repeat: _,
        catching_up: _,
        key_id,
        subscription,
        customer,
        plan,
        policy,
        key_state,
        level,
        score: _,
        state,
        opened_at,
        last_signal_at,
        ended_at,
        signals,
        evidence,
        reopenings: _,
        platform_event: _,
        detector_version: _,
    } = transition;
    let EvidenceJson {
        calls: _,
        known_since,
        known_calls: _,
        traffic,
        samples,
        taken,
        usual,
        other_keys,
        earlier,
        config,
    } = evidence;
    let mut texts =
        vec![incident_id, at, key_id, level, state, opened_at, last_signal_at, known_since, config];
    for text in [reason, subscription, customer, plan, policy, key_state, ended_at] {
        texts.push(text.get_or_insert_default());
    }
    for signal in signals {
        let SignalJson {
            signal,
            family,
            window_start,
            window_s: _,
            first_at,
            last_at,
            expected: _,
            seen: _,
            ratio: _,
            bits: _,
            weighted_bits: _,
            values,
        } = signal;
        texts.extend([signal, family, window_start, first_at, last_at]);
        for ValueJson { kind, value, calls: _, new: _ } in values {
            texts.extend([kind, value]);
        }
    }
    texts.extend(traffic.iter_mut().map(|PointJson { start, calls: _, expected: _ }| start));
    let TakenJson { from_new: _, usual: _, bytes_out: _, routes: _, methods, statuses, top_routes } = taken;
    for CountJson { value, calls: _ } in methods.iter_mut().chain(statuses).chain(top_routes) {
        texts.push(value);
    }
    for UsualJson { kind, value, share: _ } in usual {
        texts.extend([kind, value]);
    }
    for OtherKeysJson { network, usual_keys: _, keys: _, customers: _, named } in other_keys {
        texts.push(network);
        for OtherKeyJson { key_id, customer } in named {
            texts.extend([key_id, customer.get_or_insert_default()]);
        }
    }
    for EarlierJson { incident_id, opened_at, ended_at, level, state } in earlier {
        texts.extend([incident_id, opened_at, ended_at, level, state]);
    }
    for SampleJson { source, partition: _, offset: _, index: _, at, client, status: _ } in samples {
        texts.extend([source, at, client.get_or_insert_default()]);
    }
    texts
}

/// The attributes and their values of a tag; panics at anything that isn't `name="value"`.
fn attributes(mut rest: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    while !rest.trim().is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{rest}"));
        let (value, after) = after.split_once('"').unwrap();
        found.push((name.trim(), value));
        rest = after;
    }
    found
}

/// What a mail may hold, and nothing else.
fn is_harmless(mail: &Mail) {
    let message = String::from_utf8(mail.message.formatted()).unwrap();
    assert!(message.is_ascii());
    assert!(!message.replace("\r\n", "").contains(['\r', '\n']));
    assert!(message.lines().all(|line| line.len() <= 998));
    assert!(message.len() < 400_000, "{} bytes", message.len());

    let (headers, _) = message.split_once("\r\n\r\n").unwrap();
    let names: BTreeSet<&str> = headers
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{headers}")).0)
        .collect();
    let allowed = BTreeSet::from([
        "From",
        "To",
        "Date",
        "Subject",
        "Message-ID",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "X-Auto-Response-Suppress",
        "X-Keytide-Incident",
        "X-Keytide-Change",
        "X-Keytide-Level",
        "MIME-Version",
        "Content-Type",
    ]);
    assert!(names.is_subset(&allowed), "{names:?}");
    assert_eq!(headers.matches("Message-ID:").count(), 1, "{headers}");
    assert!(headers.contains("\r\nTo: security@example.org\r\n"), "{headers}");
    assert!(mail.subject.chars().count() <= 201, "{}", mail.subject);
    assert!(mail.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)), "{}", mail.name);

    for (what, text) in [("text", &mail.text), ("subject", &mail.subject), ("html", &mail.html)] {
        let acting = |c: char| {
            (c.is_control() && !(c == '\n' && what != "subject"))
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        };
        assert!(!text.contains(acting), "{what}: {text:?}");
        assert!(!text.contains("://"), "{what}: {text}");
    }
    for line in mail.text.lines() {
        assert!(line.width() <= 72, "{line}");
        // A cell of a spreadsheet would be a formula.
        assert!(!line.trim_start().starts_with(['=', '+', '@']), "{line}");
    }

    let mut tags = mail.html.split('<');
    assert_eq!(tags.next(), Some(""));
    for tag in tags {
        let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("{tag}"));
        assert!(
            !text.trim_start().starts_with(['=', '+', '@']) || text.trim_start().starts_with("@media"),
            "{text}"
        );
        let (name, rest) = tag.split_at(tag.find(' ').unwrap_or(tag.len()));
        if let Some(name) = name.strip_prefix('/') {
            assert!(rest.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{tag}");
            continue;
        }
        match name {
            "!doctype" => assert_eq!(rest, " html"),
            "html" | "head" | "meta" | "title" | "style" | "body" | "div" | "span" | "strong" | "h1"
            | "h2" | "p" | "ol" | "li" | "img" | "code" => {
                for (name, value) in attributes(rest) {
                    match name {
                        "src" => assert!(value.starts_with("cid:chart."), "{tag}"),
                        "style" => assert!(!value.contains("url("), "{tag}"),
                        "class" | "charset" | "name" | "content" | "lang" | "alt" | "width" => {}
                        _ => panic!("{tag}"),
                    }
                }
            }
            _ => panic!("{tag}"),
        }
    }
    assert_eq!(mail.failed_template, None);
}

#[test]
fn mails_of_every_kind_are_harmless_whatever_strangers_wrote() {
    let long = "A".repeat(100_000);
    let payloads = [
        "x\r\nBcc: victim@example.net\r\n\r\n<html>",
        "x\nSubject: other",
        "\r\n.\r\nMAIL FROM:<x@example.net>",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "'><a href='https://evil.example/'>click</a>",
        "javascript:alert(1)//https://evil.example",
        "{{ 7 * 7 }}{% include \"layout.html\" %}",
        "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
        "abc\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}",
        "=HYPERLINK(\"https://evil.example\")",
        "+1+cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd",
        "=?utf-8?q?=0d=0aBcc:_x?=",
        "한글과 \u{1f525} and Ünïcödé\u{301}\u{301}\u{301}\u{301}\u{301}",
        "\0",
        "",
        long.as_str(),
    ];
    for transition in samples::all() {
        for (i, payload) in payloads.iter().enumerate() {
            let mut hostile = transition.clone();
            for text in texts(&mut hostile) {
                (*payload).clone_into(text);
            }
            // The names of signals choose the words; here they are known ones in half of the cases.
            if i % 2 == 0 {
                for (signal, known) in hostile.signals.iter_mut().zip(&transition.signals) {
                    signal.signal.clone_from(&known.signal);
                }
            }
            let planned = PlannedAction { why: (*payload).to_owned(), ..samples::planned() };
            for audience in AUDIENCES {
                for language in LANGUAGES {
                    let letter = Letter { planned: Some(&planned), ..letter(&hostile, audience, language) };
                    is_harmless(&COMPOSER.incident(&letter).unwrap());
                    let many = vec![&hostile; 3];
                    is_harmless(&COMPOSER.digest(&storm(&many), audience, language, &TO, DATE_MS).unwrap());
                    is_harmless(&COMPOSER.daily(&many, 1, language, &TO, DATE_MS).unwrap());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_and_number_makes_a_harmless_mail(
        words in proptest::collection::vec(any::<String>(), 1..12),
        counts in proptest::collection::vec(any::<u64>(), 1..8),
        floats in proptest::collection::vec(any::<f64>(), 1..8),
        which in 0..samples::NAMES.len(),
        kind in 0_usize..4,
        keep in any::<u64>(),
    ) {
        let mut transition = samples::all().swap_remove(which);
        for (i, text) in texts(&mut transition).into_iter().enumerate() {
            // Some stay as they are: a time that is one, a signal that is known.
            if keep >> (i % 64) & 1 == 0 {
                text.clone_from(&words[i % words.len()]);
            }
        }
        let (mut counts, mut floats) = (counts.iter().cycle(), floats.iter().cycle());
        let mut count = || *counts.next().unwrap();
        let mut float = || *floats.next().unwrap();
        transition.seq = count() as u32;
        transition.score = count() as u8;
        transition.evidence.calls = count();
        transition.evidence.known_calls = count();
        for signal in &mut transition.signals {
            signal.window_s = count();
            signal.seen = count();
            signal.expected = signal.expected.map(|_| float());
            signal.ratio = signal.ratio.map(|_| float());
            (signal.bits, signal.weighted_bits) = (float(), float());
        }
        for point in &mut transition.evidence.traffic {
            (point.calls, point.expected) = (count(), float());
        }
        let (audience, language) = (AUDIENCES[kind / 2], LANGUAGES[kind % 2]);
        is_harmless(&mail(&transition, audience, language));
        is_harmless(&COMPOSER.digest(&storm(&[&transition]), audience, language, &TO, count()).unwrap());
        is_harmless(&COMPOSER.daily(&[&transition], count(), language, &TO, count()).unwrap());
    }
}

#[test]
fn whatever_an_incident_lists_a_mail_is_of_bounded_size() {
    let mut transition = samples::leak();
    let signal = SignalJson {
        values: vec![transition.signals[1].values[0].clone(); 500],
        ..transition.signals[1].clone()
    };
    transition.signals = vec![signal; 500];
    transition.evidence.samples = vec![transition.evidence.samples[0].clone(); 500];
    transition.evidence.traffic = transition.evidence.traffic.iter().cycle().take(50_000).cloned().collect();
    is_harmless(&mail(&transition, Audience::Security, Language::En));
}

#[test]
fn the_same_letter_is_the_same_mail() {
    for transition in samples::all() {
        let [one, two] =
            [(); 2].map(|()| mail(&transition, Audience::Security, Language::Ko).message.formatted());
        assert_eq!(one, two);
    }
}

#[test]
fn places_that_another_signal_names_are_not_listed_again() {
    let mut transition = samples::leak();
    let place = transition.signals[1].values[0].clone();
    let other = ValueJson { value: "NL".to_owned(), ..place.clone() };
    transition.signals[0].values = vec![place, other];
    let text = mail(&transition, Audience::Security, Language::En).text;
    assert_eq!(
        (text.matches("Brazil (BR), ").count(), text.matches("Netherlands (NL), ").count()),
        (1, 1),
        "{text}"
    );
}

#[test]
fn answers_go_where_the_configuration_says() {
    let header = |composer: &Composer| {
        let transition = samples::leak();
        let mail = composer.incident(&letter(&transition, Audience::Owner, Language::En)).unwrap();
        mail.message.headers().get_raw("Reply-To").map(str::to_owned)
    };
    assert_eq!(header(&COMPOSER), None);
    let composer = Composer::new("keytide@example.com".parse().unwrap(), None).unwrap();
    let composer = composer.replied_to(Some("soc@example.com".parse().unwrap()));
    assert_eq!(header(&composer).as_deref(), Some("soc@example.com"));
}

#[test]
fn an_incidents_mails_are_one_thread_for_each_audience() {
    let [opened, raised] = [0, 1].map(|i| samples::all().swap_remove(i));
    for audience in AUDIENCES {
        let first = mail(&opened, audience, Language::En);
        let second = mail(&raised, audience, Language::Ko);
        let expected = format!("<{}.0.{}@example.com>", opened.incident_id, audience.name());
        assert_eq!(first.message_id, expected);
        assert_ne!(second.message_id, expected);
        let header = |mail: &Mail, name| mail.message.headers().get_raw(name).map(str::to_owned);
        assert_eq!(header(&first, "In-Reply-To"), None);
        assert_eq!(header(&second, "In-Reply-To").as_ref(), Some(&expected));
        assert_eq!(header(&second, "References").as_ref(), Some(&expected));
        assert_eq!(header(&second, "Auto-Submitted").as_deref(), Some("auto-generated"));
        assert_eq!(header(&second, "Date").as_deref(), Some("Mon, 23 Nov 2026 09:00:00 +0000"));
    }
    let ids = AUDIENCES.map(|audience| mail(&opened, audience, Language::En).message_id);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn subjects_name_kind_key_owner_and_the_findings() {
    let all = samples::all();
    let subject = |i: usize, audience, language| mail(&all[i], audience, language).subject;
    const LEAK: &str = "40x its usual calls (4,856 in five minutes, 121 expected), from 2 countries and a system never \
                        seen (AS64500); the usual calls go on";
    let others = "key 3f2a9c41 Acme Logistics (gold)";
    let expected = [
        format!("[Keytide] ALERT {others}: {LEAK}"),
        format!("[Keytide] CRITICAL {others}: {LEAK}"),
        format!("[Keytide] ENDED {others}: 80,214 calls in 1 h 28 min"),
        format!("[Keytide] CRITICAL {others}: {LEAK}"),
        format!("[Keytide] WITHDRAWN {others}: the key's allow-list covers where the calls came from"),
    ];
    for (i, expected) in expected.into_iter().enumerate() {
        assert_eq!(subject(i, Audience::Security, Language::En), expected);
    }
    assert_eq!(
        subject(9, Audience::Security, Language::En),
        "[Keytide] CRITICAL key 3f2a9c41 Acme Logistics (gold) and 14 other keys: from 2 countries and a system never \
         seen (AS64500), with a user agent never seen, 214 calls refused; the usual calls go on"
    );
    assert_eq!(
        subject(0, Audience::Security, Language::Ko),
        "[Keytide] 경보 키 3f2a9c41 Acme Logistics (gold): 호출이 평소의 40배(5분간 4,856회, 평소 121회), 처음 보는 국가 2곳과 통신망(AS64500)에서 호출, 처음 보는 사용자 에이전트, 거부된 호출 214회(평소 0.6회); 평소의 호출도 계속됨"
    );
    assert_eq!(
        subject(2, Audience::Owner, Language::Ko),
        "[Keytide] API 키(3f2a9c41): 평소와 다른 호출이 멈췄습니다: 1시간 28분 동안 호출 80,214회"
    );
}

#[test]
fn owners_read_no_scores_no_evidence_and_nothing_of_others() {
    let mut transition = samples::leak();
    transition.score = 93;
    transition.detector_version = 77_777;
    for secret in [&mut transition.evidence.config, &mut transition.evidence.samples[0].source] {
        "c0ffee".clone_into(secret);
    }
    let planned = PlannedAction { action: Action::Revoke, why: "c0ffee".to_owned(), ..samples::planned() };
    for language in LANGUAGES {
        let letter = Letter { planned: Some(&planned), ..letter(&transition, Audience::Owner, language) };
        let owner = COMPOSER.incident(&letter).unwrap();
        let storm = StormDigest { incidents: vec![(&transition, Some(&planned))], ..StormDigest::default() };
        let digest = COMPOSER.digest(&storm, Audience::Owner, language, &TO, DATE_MS).unwrap();
        let security = COMPOSER.incident(&Letter { audience: Audience::Security, ..letter }).unwrap();
        let hidden = ["c0ffee", "93 %", "203.0.113.77", "23.5", "77777"];
        for text in [&security.text, &security.html] {
            assert!(hidden.iter().all(|hidden| text.contains(hidden)), "{text}");
        }
        for text in [&owner.text, &owner.html, &digest.text, &digest.html] {
            assert!(!hidden.iter().any(|hidden| text.contains(hidden)), "{text}");
            assert!(text.contains(&transition.key_id[..8]), "{text}");
        }
    }
}

#[test]
fn a_digest_lists_fifty_and_counts_the_rest() {
    let many: Vec<TransitionJson> = (0..53)
        .map(|i| TransitionJson { incident_id: format!("{i:032x}"), score: 50 + i, ..samples::leak() })
        .collect();
    let mut many: Vec<&TransitionJson> = many.iter().collect();
    let digest = |many: &[&TransitionJson]| {
        COMPOSER.digest(&storm(many), Audience::Security, Language::En, &TO, DATE_MS)
    };
    let mail = digest(&many).unwrap();
    assert_eq!(mail.text.matches("* ALERT").count(), 50);
    assert!(mail.text.contains("And 3 more that aren't listed here."), "{}", mail.text);
    // The least probable ones are those left out.
    assert!(mail.text.contains(&format!("{:032x}", 52)) && !mail.text.contains(&format!("{:032x}", 2)));
    assert_eq!(mail.subject, "[Keytide] DIGEST 53 changes of incidents, 53 alerts, of 1 keys");
    many.reverse();
    assert_eq!(digest(&many).unwrap().message.formatted(), mail.message.formatted());
    assert_ne!(digest(&many[1..]).unwrap().message_id, mail.message_id);
    assert!(matches!(digest(&[]), Err(ComposeError::Empty)));
}

#[test]
fn every_change_says_what_it_is() {
    for (transition, expected) in samples::all().iter().zip([
        "in the wrong hands",
        "More speaks for a leak",
        "the incident is over, after 1 h 28 min and 80,214 calls",
        "signs of a leak have come back",
        "This is no leak after all: the key's allow-list covers",
        "catching up",
        "is revoked, and calls with it are answered",
    ]) {
        let text = mail(transition, Audience::Security, Language::En).text.replace('\n', " ");
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(samples::all()[2].transition, Change::Ended);
}

fn composer(folder: &std::path::Path) -> Result<Composer, TemplateError> {
    Composer::new("keytide@example.com".parse().unwrap(), Some(folder))
}

#[test]
fn own_templates_replace_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("ko")).unwrap();
    fs::write(folder.path().join("ko/owner.txt"), "보안팀입니다. {{ headline }}").unwrap();
    let composer = composer(folder.path()).unwrap();
    let transition = samples::leak();
    let text = |audience, language| composer.incident(&letter(&transition, audience, language)).unwrap().text;
    assert!(text(Audience::Owner, Language::Ko).starts_with("보안팀입니다. 호출이 평소의 40배"));
    assert_eq!(
        text(Audience::Security, Language::Ko),
        mail(&transition, Audience::Security, Language::Ko).text
    );
}

#[test]
fn errors_of_templates_name_file_and_line() {
    let error = |name: &str, source: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, source).unwrap();
        let error = composer(folder.path()).unwrap_err().to_string();
        error.strip_prefix(&format!("{}", path.display())).unwrap_or(&error).to_owned()
    };
    assert!(error("en/owner.html", "one\n{% if early %}\nthree").starts_with(":3: syntax error"));
    assert!(error("en/owner.html", "one\ntwo\n{{ nothing }}").starts_with(":3: undefined value"));
    assert!(
        error("signals.txt", "{% for signal in signals %}\n{{ signal.nothing }}{% endfor %}")
            .starts_with(":2: undefined")
    );
    assert!(error("en/owners.html", "").starts_with(": no template is called so; allowed: layout.html"));
    assert!(error("en/owner.txt", &"x".repeat(300_000)).ends_with("it has more than 256 KiB"));
    let missing = composer(std::path::Path::new("/nonexistent/templates")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/templates: "), "{missing}");
}

#[test]
fn an_own_template_that_fails_later_doesnt_hold_an_alert_back() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("en")).unwrap();
    fs::write(folder.path().join("en/security.txt"), "{% if key == 'odd' %}\n{{ nothing }}{% endif %}")
        .unwrap();
    let composer = composer(folder.path()).unwrap();
    let odd = TransitionJson { key_id: "odd".to_owned(), ..samples::leak() };
    let mail = composer.incident(&letter(&odd, Audience::Security, Language::En)).unwrap();
    assert!(
        matches!(mail.failed_template, Some(TemplateError::Broken { line: 2, .. })),
        "{:?}",
        mail.failed_template
    );
    assert!(mail.text.contains("in the wrong hands"));
}

/// Compares mails with the files of `alerts/goldens`, or writes these if `KEYTIDE_GOLDEN=write` is set.
#[test]
fn mails_are_those_that_were_looked_at() {
    let write = std::env::var("KEYTIDE_GOLDEN").is_ok_and(|value| value == "write");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let from = "Keytide <keytide@example.com>".parse().unwrap();
    let composer = Composer::new(from, None).unwrap();
    let guided =
        Composer::new("keytide@example.com".parse().unwrap(), None).unwrap().guided(samples::guide());
    let planned = samples::planned();
    let incidents: Vec<TransitionJson> = (0..53_u8)
        .zip(samples::all().into_iter().cycle())
        .map(|(i, row)| TransitionJson { incident_id: format!("{i:032x}"), score: 50 + i % 50, ..row })
        .collect();
    let incidents: Vec<&TransitionJson> = incidents.iter().collect();
    let mut goldens: Vec<(String, String)> = Vec::new();
    for language in LANGUAGES {
        let mut add = |name: &str, mail: Mail| {
            let of = |kind: &str| format!("{}/{name}.{kind}", language.name());
            goldens.push((of("txt"), format!("Subject: {}\n\n{}", mail.subject, mail.text)));
            goldens.push((of("html"), mail.html));
        };
        for (row, name) in samples::all().iter().zip(samples::NAMES) {
            for audience in AUDIENCES {
                // The leak has all that the configuration can bring, the others what mails have without it.
                let (composer, planned) = match name {
                    "leak" => (&guided, Some(&planned)),
                    _ => (&composer, None),
                };
                let wanted = match audience {
                    Audience::Security => {
                        !matches!(name, "raised" | "reopened" | "launch" | "revoked-refused")
                    }
                    Audience::Owner => {
                        matches!(name, "leak" | "drip" | "revoked-answered" | "end" | "withdrawn")
                    }
                };
                if wanted {
                    let letter = Letter { planned, ..letter(row, audience, language) };
                    let mail = composer.incident(&letter).unwrap();
                    add(&format!("{name}-{}", audience.name()), mail);
                }
            }
        }
        for audience in AUDIENCES {
            let digest = StormDigest { more: 7, ..storm(&incidents) };
            let mail = composer.digest(&digest, audience, language, &TO, DATE_MS).unwrap();
            add(&format!("storm-{}", audience.name()), mail);
        }
        for (notice, name) in samples::actions().iter().zip(samples::ACTION_NAMES) {
            for audience in AUDIENCES {
                let wanted = match audience {
                    Audience::Security => !matches!(name, "suspended" | "revoked" | "void"),
                    Audience::Owner => matches!(name, "suspended" | "lifted" | "still-answered"),
                };
                if wanted {
                    let letter = ActionLetter { notice, audience, language, to: &TO, date_ms: DATE_MS };
                    add(&format!("action-{name}-{}", audience.name()), guided.action(&letter).unwrap());
                }
            }
        }
        let late = guided.gateway(&samples::gateways()[1], language, &TO, DATE_MS).unwrap();
        add("gateway-late", late);
        let quotas = samples::quotas();
        for (row, name) in quotas.iter().zip(samples::QUOTA_NAMES) {
            let letter = QuotaLetter { row, language, to: &TO, date_ms: DATE_MS };
            add(&format!("quota-{name}"), composer.quota(&letter).unwrap());
        }
        let rows: Vec<_> = quotas.iter().collect();
        add("quotas", composer.quotas(&rows, 7, language, &TO, DATE_MS).unwrap());
        let of_actions = samples::actions();
        let digest = StormDigest {
            incidents: incidents[..3].iter().map(|each| (*each, Some(&planned))).collect(),
            actions: of_actions.iter().collect(),
            more_actions: 9_990,
            held: 9_985,
            ..StormDigest::default()
        };
        for audience in AUDIENCES {
            let mail = guided.digest(&digest, audience, language, &TO, DATE_MS).unwrap();
            add(&format!("storm-actions-{}", audience.name()), mail);
        }
        let refused = samples::refused();
        let mut other = samples::refused();
        (other.incident_id, other.key_id) = ("00ff".repeat(8), "partner-batch".to_owned());
        (other.evidence.calls, other.state) = (4, "ended".to_owned());
        other.evidence.taken.statuses[0].calls = 4;
        other.signals[0].values.clear();
        let mail = composer.daily(&[&refused, &other], 0, language, &TO, DATE_MS).unwrap();
        add("revoked-refused-daily", mail);
    }
    let internal = keytide_dataflow::detect::Signal::ALL.iter().map(|signal| signal.name());
    let internal: Vec<&str> = internal.filter(|name| name.contains('_')).collect();
    for (name, mail) in &goldens {
        assert!(!internal.iter().any(|internal| mail.contains(internal)), "{name}");
        let path = folder.join(name);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, mail).unwrap();
        }
        let mut golden = String::new();
        if let Ok(file) = fs::File::open(&path) {
            file.take(1 << 20).read_to_string(&mut golden).unwrap();
        }
        assert!(
            golden == *mail,
            "alerts/goldens/{name} isn't what is composed; to look at: KEYTIDE_GOLDEN=write"
        );
    }
    let files: BTreeSet<String> = LANGUAGES
        .iter()
        .flat_map(|language| {
            fs::read_dir(folder.join(language.name())).unwrap().map(|file| (language.name(), file))
        })
        .map(|(language, file)| format!("{language}/{}", file.unwrap().file_name().to_string_lossy()))
        .collect();
    assert_eq!(files, goldens.into_iter().map(|(name, _)| name).collect(), "a golden that no mail has");
}

#[test]
fn a_page_of_evidence_fits_its_columns_and_says_everything() {
    let step = |at: &str, transition| Step { at: at.to_owned(), transition, level: "revoke".to_owned() };
    let history =
        [step("2026-11-21T14:05:00Z", Change::Opened), step("2026-11-21T14:09:00Z", Change::Raised)];
    let action = ActionRow {
        action_id: "0".repeat(32),
        incident_id: "0".repeat(32),
        action: "suspend".to_owned(),
        state: "held".to_owned(),
        reason: "would have suspended the key; held: acting is off".to_owned(),
        at: "2026-11-21T14:09:00Z".to_owned(),
    };
    let guide = samples::guide();
    for transition in samples::all() {
        for actions in [&[][..], std::slice::from_ref(&action)] {
            let page = |columns| {
                Evidence { newest: &transition, history: &history, actions, guide: &guide }.page(columns)
            };
            let (wide, narrow) = (page(80).unwrap(), page(40).unwrap());
            for part in ["HISTORY", "WHAT THE POLICY DID", "LOOK IT UP", "2026-11-21 14:05 UTC"] {
                assert!(wide.contains(part) && narrow.contains(part), "{part}: {wide}");
            }
            let says = if actions.is_empty() { "Nothing: " } else { "would have suspended the key" };
            assert!(wide.contains(says), "{wide}");
            assert!(!wide.contains("\n\n\n"), "{wide}");
            // A link and the parts of a command may be copied, so they are never broken.
            let is_command = |line: &str| {
                line.contains("://") || line.contains("kcat") || line.contains(" -") || line.ends_with('\\')
            };
            for (columns, page) in [(80, &wide), (40, &narrow)] {
                for line in page.lines().filter(|line| !is_command(line)) {
                    assert!(line.width() <= columns, "{columns}: {line}");
                    assert!(!line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }
}
