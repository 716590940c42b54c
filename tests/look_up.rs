//! `keytide incident` and `keytide key-id`: what they show of views on disk and of keys, and what they refuse.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use keytide_dataflow::model::hex;
use keytide_generator::generate;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Job, Keytide, Row, Views, call, path, read_text};

/// In place of a raw key.
const CANARY: &str = "kt_live_canary5c1f9e0b77d2a4e8";

/// A world with a leak, and the views of its replay below `out`.
static WORLD: LazyLock<TempDir> = LazyLock::new(|| {
    let world = tempfile::tempdir().unwrap();
    let leaks = "--scenario mixed --leaks 6 --look-alikes 0 --keys 40 --events 40000 --days 4 --seed 8";
    generate(world.path(), leaks).unwrap();
    let replay = Keytide::replay(&world.path().join("keytide.toml"), &world.path().join("out"));
    replay.with("--now 2025-07-01T00:00:00Z").succeed();
    world
});

fn views() -> PathBuf {
    WORLD.path().join("out")
}

fn incident(id: &str, from: &std::path::Path) -> Keytide {
    Keytide::new(&["incident", id, "--from", path(from)])
}

/// The incident with most transitions, and its rows in `incident_log`.
fn longest() -> (String, Vec<Row>) {
    let log = Views::new(&views()).rows("incident_log");
    let count = |id: &str| log.iter().filter(|row| row.text("incident_id") == id).count();
    let ids = log.iter().map(|row| row.text("incident_id").to_owned());
    let longest = ids.max_by_key(|id| count(id)).expect("a leak was found");
    let rows = log.into_iter().filter(|row| row.text("incident_id") == longest).collect();
    (longest, rows)
}

/// The lines below the heading HISTORY.
fn history(page: &str) -> Vec<&str> {
    page.lines().skip_while(|line| *line != "HISTORY").skip(1).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn the_evidence_of_an_incident_is_shown_from_the_views_of_a_replay() {
    let (id, rows) = longest();
    let newest = rows.last().unwrap();
    let page = incident(&id, &views()).succeed().stdout;
    for part in
        ["HISTORY", "WHAT THE POLICY DID", "WHAT SPEAKS FOR A LEAK", "WHAT WAS TAKEN", "SOME OF THE CALLS"]
    {
        assert!(page.contains(&format!("\n{part}\n")), "{part}\n{page}");
    }
    assert!(page.contains(newest.text("key_id")) && page.contains(newest.text("customer")), "{page}");
    let history = history(&page);
    assert_eq!(history.len(), rows.len(), "{page}");
    for (line, row) in history.iter().zip(&rows) {
        assert!(line.contains(&format!("  {}, ", row.text("transition"))), "{line}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 80 || line.contains("tail -c")), "{page}");

    // The command shows the record of the sample.
    let sample = &newest.get("evidence")["samples"][0];
    let command =
        page.lines().find(|line| line.contains("tail -c")).expect("the summary names the configuration");
    let shown = Command::new("sh").args(["-c", command.trim()]).output().unwrap();
    let record: Value =
        serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {command}"));
    assert_eq!(record["status"], sample["status"], "{command}");

    // Its first digits do, and upper case does.
    assert_eq!(incident(&id[..8].to_uppercase(), &views()).succeed().stdout, page);
    let json: Value = serde_json::from_str(&incident(&id, &views()).with("--json").succeed().stdout).unwrap();
    assert_eq!(json["incident"]["seq"], newest.number("seq"));
    assert_eq!(json["history"].as_array().unwrap().len(), rows.len());
}

#[test]
fn views_of_a_live_job_are_read_in_the_order_of_their_files() {
    let (id, rows) = longest();
    // As a live job writes them.
    let log: String = (1..)
        .zip(Views::new(&views()).text("incident_log").lines())
        .map(|(version, row)| {
            format!("{},\"tick\":1,\"version\":{version}}}\n", row.strip_suffix('}').unwrap())
        })
        .collect();
    let job = Job::new("\n[sink.files]\ndir = \"views\"\n");
    let (first, rest) = log.split_at(log.find('\n').unwrap() + 1);
    let job = job
        .file("views/incident_log-000001.jsonl", first)
        // A job that was started again publishes the same again, and writes just now.
        .file("views/incident_log-000002.jsonl", format!("{log}{}", &rest[..100]));
    let page = incident(&id, &job.path("keytide.toml")).succeed().stdout;
    assert_eq!(history(&page).len(), rows.len(), "{page}");
    assert_eq!(incident(&id, &job.path("views")).succeed().stdout.lines().next(), page.lines().next());
}

#[test]
fn what_is_not_there_is_said_with_what_to_do() {
    let (id, rows) = longest();
    let refused = |ended: Keytide, said: &str| {
        let ended = ended.run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{said}\n{}", ended.stderr);
    };
    let last = if id.ends_with('0') { '1' } else { '0' };
    let mistyped = format!("{}{last}", &id[..31]);
    refused(incident(&mistyped, &views()), &format!("has no incident {mistyped}: did you mean {id}?"));
    let key = rows[0].text("key_id");
    refused(incident(&key[..10], &views()), &format!("it is the id of a key, of which there are: {id}"));
    refused(incident("../../etc", &views()), "this is no id of an incident");
    refused(incident("abc", &views()), "this is no id of an incident");
    refused(incident(&id, WORLD.path()), "has no view incident_log: neither incident_log.jsonl");
    refused(incident(&id, &WORLD.path().join("gone")), "gone can't be read: name a folder with views");
    refused(incident(&id, &WORLD.path().join("keytide.toml")), "has no [sink.files]");
    let quiet = Job::new("").log([call(0, "r", "k")]);
    quiet.views();
    refused(incident(&id, &quiet.path("out")), "the log there is empty, as no key was suspected");
    let parquet = tempfile::tempdir().unwrap();
    let replay = Keytide::replay(&WORLD.path().join("keytide.toml"), parquet.path());
    replay.with("--now 2025-07-01T00:00:00Z --format parquet").succeed();
    refused(
        incident(&id, parquet.path()),
        "has views as Parquet (incident_log.parquet), and this command reads",
    );
    let live =
        Job::new("").file("views/incident_log-000001.jsonl.open", "").file("views/views.duckdb.sql", "");
    refused(incident(&id, &live.path("views")), "has views as Parquet (incident_log-000001.jsonl.open)");
}

#[cfg(feature = "top")]
#[test]
fn a_screen_without_a_terminal_or_views_is_refused() {
    for (from, said) in [
        (views(), "keytide top needs a terminal for its screen"),
        (WORLD.path().to_owned(), "has no view usage: neither usage.jsonl"),
        (WORLD.path().join("gone"), "gone can't be read: name a folder with views"),
    ] {
        let ended = Keytide::new(&["top", path(&from)]).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{said}\n{}", ended.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (id, _) = longest();
    let out = WORLD.path().join("piped");
    let config = WORLD.path().join("keytide.toml");
    let now = "2025-07-01T00:00:00Z";
    for arguments in [
        vec!["incident", &id, "--from", path(&views())],
        vec!["replay", path(&config), "--out", path(&out), "--now", now],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytide"));
        command
            .args(&arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_key_from_standard_input_has_the_names_that_views_and_tables_have() {
    let config = format!(
        "[keys]\nfrom = [\"key\"]\n\n[[source]]\nname = \"plain\"\nkind = \"file\"\npath = \"log*\"\nformat = \"json\"\n{}\n\
         [[source]]\nname = \"keyed\"\nkind = \"file\"\npath = \"other*\"\nformat = \"json\"\n\
         keys = {{ hash = \"hmac-sha256\", secret = \"env:PEPPER\" }}\n{}",
        crate::harness::FIELDS,
        crate::harness::FIELDS
    );
    let job = Job::with_config(&config)
        .log([call(0, "r", CANARY)])
        .file("other.jsonl", call(0, "r", CANARY) + "\n");
    let pepper = "a pepper of many bytes";
    let file = job.path("keytide.toml");
    let out = job.path("out");
    Keytide::replay(&file, &out).env("PEPPER", pepper).succeed();
    let mut of_views: Vec<String> =
        Views::new(&out).window("usage", "1d").iter().map(|row| row.text("key_id").to_owned()).collect();

    let key_id = || {
        Keytide::new(&["key-id", path(&file)]).env("PEPPER", pepper).input(format!(" {CANARY}\n").as_bytes())
    };
    let json: Value = serde_json::from_str(&key_id().with("--json").succeed().stdout).unwrap();
    let mut named: Vec<String> =
        json.as_array().unwrap().iter().map(|of| of["key_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(json[0]["key_hash"], hex(&Sha256::digest(CANARY)));
    let page = key_id().succeed().stdout;
    assert!(named.iter().all(|id| page.contains(&format!("  key_id    {id}\n"))), "{page}");
    assert!(!page.contains("canary"), "{page}");
    named.sort();
    of_views.sort();
    assert_eq!(named, of_views);
}

#[test]
fn a_key_that_is_an_argument_is_refused_and_not_repeated() {
    let job = Job::new("");
    let config = job.path("keytide.toml");
    let config = path(&config);
    for (arguments, said) in [
        (
            vec!["key-id", config, CANARY],
            "a key must not be an argument: other users of this machine see arguments",
        ),
        (vec!["key-id", CANARY], "a key must not be an argument but come on standard input"),
        (vec!["key-id", config], "standard input holds no key"),
    ] {
        let ended = Keytide::new(&arguments).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
    let long = CANARY.repeat(1_000);
    let ended = Keytide::new(&["key-id", config]).input(long.as_bytes()).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("more than a key of 4,096 bytes") && !ended.stderr.contains("canary"));
    // An identifier is no secret, but nobody knows that this is one.
    let ended = Keytide::new(&["key-id", config]).input(CANARY.as_bytes()).succeed();
    assert!(ended.stdout.contains("the key_id is the identifier itself") && !ended.stdout.contains("canary"));
}

#[test]
fn the_views_are_left_as_they_are() {
    let before = read_text(&views().join("summary.json"));
    let listed = |folder: &PathBuf| {
        let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let names = listed(&views());
    incident(&longest().0, &views()).succeed();
    assert_eq!((listed(&views()), read_text(&views().join("summary.json"))), (names, before));
}
