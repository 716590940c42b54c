//! The logs that real servers wrote of one catalogue of calls, hostile and legal on the wire, through a replay each: no
//! value that a caller chose costs the record, hides it as a duplicate, or puts it on another key.
//!
//! `tests/writers/` has the catalogue, the servers' configurations and the command that made the logs in
//! `connectors/tests/fixtures/writers/`; its README says when, and by which versions. Each case has a key of its own, so
//! a call that is lost, counted twice or moved is told by its case. Of a log, `NAME.toml` is the job, `NAME.json` says
//! where it differs from the catalogue: cases that the server didn't log (`absent`), that it refused before it knew the
//! key (`anonymous`), whose key it wrote as another text (`other`), and, where the writer doesn't escape what callers
//! wrote, those whose line isn't sound JSON (`unsound`): such a call may count under its key, under `conflicting` or as
//! a dead letter, but under no other key.
//!
//! The fixtures can't catch what these versions of the servers don't write; `connectors/tests/rule/`
//! tries values at random, as models of the writers write them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use keytide_dataflow::model::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::{Job, names, read, read_text, repository};

const ANONYMOUS: &str = "anonymous";
const CONFLICTING: &str = "conflicting";
/// Bytes at a key's start that tell it from all others: `kt_demo_` and 16 digits.
const CANARY: usize = 24;

fn fixture(name: &str) -> PathBuf {
    repository().join("connectors/tests/fixtures/writers").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&read(&fixture(name))).unwrap()
}

/// The id of a key whose bytes stand as characters up to U+00FF; `anonymous` for none.
fn id(key: &Value) -> String {
    let Some(key) = key.as_str() else { return ANONYMOUS.to_owned() };
    let bytes: Vec<u8> = key.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    hex(&Sha256::digest(bytes)[..16])
}

/// What is right of the calls under one key id.
#[derive(Default)]
struct Right {
    cases: Vec<String>,
    /// Calls that must count.
    sound: u64,
    /// Calls that may.
    unsound: u64,
}

/// What is right of a log, by key id; and the keys that it holds where keys are looked for, as far as no escape changes
/// them.
fn right(catalogue: &Value, others: &Value) -> (BTreeMap<String, Right>, BTreeSet<String>) {
    let (mut right, mut canaries) = (BTreeMap::<String, Right>::new(), BTreeSet::new());
    for case in catalogue["cases"].as_array().unwrap() {
        let name = case["case"].as_str().unwrap();
        let other = |kind: &str| others.get(kind).and_then(|cases| cases.get(name));
        if other("absent").is_some() {
            continue;
        }
        let key = ["anonymous", "other", "unsound"].into_iter().find_map(other).unwrap_or(&case["key"]);
        let right = right.entry(id(key)).or_default();
        right.cases.push(name.to_owned());
        let calls = case["calls"].as_u64().unwrap();
        *(if other("unsound").is_some() { &mut right.unsound } else { &mut right.sound }) += calls;
        canaries.extend(key.as_str().and_then(|key| key.get(..CANARY)).map(str::to_owned));
    }
    (right, canaries)
}

/// Whatever is wrong about a log's replay, a line each.
fn wrong(writer: &str) -> Vec<String> {
    let catalogue = json("catalogue.json");
    let (right, canaries) = right(&catalogue, &json(&format!("{writer}.json")));
    let victim = id(&catalogue["victim"]);
    let job = Job::with_config(&read_text(&fixture(&format!("{writer}.toml"))))
        .file("log.gz", read(&fixture(&format!("{writer}.log.gz"))));
    let mut wrong = Vec::new();
    let time = |name: &str| catalogue[name].as_i64().unwrap();
    let now = jiff::Timestamp::from_second(time("ended") + 3600).unwrap();
    let ended = job.replay().with(&format!("--now {now}")).run();
    if ended.code != Some(0) {
        return vec![format!("exit code {:?}: {}", ended.code, ended.stderr)];
    }
    let views = job.out();

    let mut calls = BTreeMap::<String, u64>::new();
    for row in views.window("usage", "1h") {
        *calls.entry(row.text("key_id").to_owned()).or_default() += row.number("calls");
        let start: jiff::Timestamp = row.text("window_start").parse().unwrap();
        if start.as_second() + 3600 <= time("began") || start.as_second() > time("ended") {
            wrong.push(format!("{} calls at {start}, when none was made", row.number("calls")));
        }
    }
    let conflicting = calls.remove(CONFLICTING).unwrap_or(0);
    let mut lost = Vec::new();
    for (key, Right { cases, sound, unsound }) in &right {
        let calls = calls.remove(key).unwrap_or(0);
        let cases = cases.join(", ");
        if calls == 0 && *sound > 0 {
            lost.push(cases);
        } else if calls < *sound || (calls > sound + unsound && key != ANONYMOUS) {
            // What isn't sound may have lost its key: `anonymous` may have more.
            wrong.push(format!("{calls} calls, right: {sound} (and up to {unsound}), of {cases}"));
        }
    }
    if !lost.is_empty() {
        lost.sort();
        wrong.push(format!("no call of {}", lost.join(", ")));
    }
    for (key, calls) in calls {
        let of = if key == victim { " of the victim" } else { "" };
        wrong.push(format!("{calls} calls under the key {key}{of}, which made none"));
    }
    let sum = |of: fn(&Right) -> u64| right.values().map(of).sum::<u64>();
    let (sound, unsound) = (sum(|right| right.sound), sum(|right| right.unsound));
    // Of a call that counts, a dead letter says what was odd.
    let letters = views.rows("dead_letters").into_iter().filter(|letter| !letter.flag("counted"));
    let letters: Vec<_> = letters.collect();
    let (events, lost) = (views.count("events"), letters.len() as u64);
    // A line that isn't sound may come apart in two, where it could be two records of an encoder.
    let (all, at_most) = (sound + unsound, sound + 2 * unsound);
    let is_right = (all..=at_most).contains(&(events + lost)) && lost + conflicting <= unsound;
    if !is_right || views.count("duplicates") > 0 {
        wrong.push(format!(
            "{events} events, {} duplicates, {lost} dead letters, {conflicting} conflicting; \
             right: {sound} sound and {unsound} unsound",
            views.count("duplicates"),
        ));
        let mut reasons = BTreeMap::<String, u64>::new();
        for letter in letters {
            let reason = letter.text("reason");
            let kind = reason.split_once(" at byte ").map_or(reason, |(kind, _)| kind);
            *reasons.entry(kind.to_owned()).or_default() += 1;
        }
        wrong.extend(reasons.iter().map(|(reason, count)| format!("{count} dead letters: {reason}")));
    }

    let files = names(&job.path("out"));
    let texts = files.iter().map(|name| (name.clone(), read_text(&job.path("out").join(name))));
    let said = [("standard output", ended.stdout), ("standard error", ended.stderr)];
    for (name, text) in texts.chain(said.map(|(name, text)| (name.to_owned(), text))) {
        for canary in &canaries {
            if text.contains(canary.as_str()) {
                wrong.push(format!("the key {canary} is in {name}"));
            }
        }
    }
    wrong
}

macro_rules! writers {
    ($($test:ident: $name:literal,)*) => {
        const WRITERS: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                let wrong = wrong($name);
                assert!(wrong.is_empty(), "{}:\n  {}", $name, wrong.join("\n  "));
            }
        )*
    };
}

writers! {
    apache_combined: "apache-combined",
    apache_combined_with_the_key: "apache-combined-key",
    apache_json: "apache-json",
    apisix: "apisix",
    apisix_in_batches: "apisix-batch",
    apisix_with_bodies: "apisix-body",
    caddy: "caddy",
    haproxy_json: "haproxy-json",
    haproxy_json_by_converters: "haproxy-json-converter",
    haproxy_json_with_flags: "haproxy-json-flags",
    haproxy_lines_that_are_cut: "haproxy-short",
    haproxy_text: "haproxy-text",
    kong: "kong",
    kong_in_batches: "kong-batch",
    nginx_combined: "nginx-combined",
    nginx_combined_with_the_key: "nginx-combined-key",
    nginx_ingress: "nginx-ingress",
    nginx_json: "nginx-json",
    nginx_json_without_escape: "nginx-json-default",
    nginx_json_that_escapes_nothing: "nginx-json-none",
    nginx_json_without_quotes: "nginx-json-unquoted",
}

#[test]
fn every_log_has_its_test() {
    let logs =
        names(&fixture("")).into_iter().filter_map(|name| name.strip_suffix(".log.gz").map(str::to_owned));
    assert_eq!(logs.collect::<BTreeSet<_>>(), WRITERS.iter().map(|&name| name.to_owned()).collect());
}
