//! The demo as somebody meets it who has nothing set up: what it prints, what it leaves, how it ends.
//!
//! It goes by the clock, so nothing here depends on how many calls there were: only on that all numbers agree, and that
//! what is staged is found.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Keytide, Row, Schema, VIEWS, names, path, read, read_text, repository};
use crate::quotas::ask;

/// The rows of a view, as they were published.
fn rows(out: &Path, view: &str) -> Vec<Row> {
    let folder = out.join("views");
    let files = names(&folder).into_iter().filter(|name| {
        name.rsplit_once('-').is_some_and(|(of, number)| of == view && number.ends_with(".jsonl"))
    });
    files.flat_map(|name| read_text(&folder.join(name)).lines().map(Row::parse).collect::<Vec<_>>()).collect()
}

fn summary(out: &Path) -> Value {
    serde_json::from_slice(&read(&out.join("summary.json"))).unwrap()
}

/// Calls by the last versions of the minutes of `usage`.
fn calls(out: &Path) -> u64 {
    let minutes = rows(out, "usage").into_iter().filter(|row| row.text("window") == "1m");
    let last: BTreeMap<_, _> = minutes
        .map(|row| {
            ((row.text("key_id").to_owned(), row.text("window_start").to_owned()), row.number("calls"))
        })
        .collect();
    last.values().sum()
}

/// That the job counted what was sent, and that its files say the same.
fn assert_all_is_counted(out: &Path) {
    let summary = summary(out);
    let number = |pointer: &str| {
        summary.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}"))
    };
    assert!(number("/sent/events") > 0);
    assert_eq!(number("/events"), number("/sent/events"));
    assert_eq!(number("/duplicates"), number("/sent/duplicates"));
    assert_eq!(number("/dead_letters"), number("/sent/broken"));
    assert_eq!(number("/usage_calls"), number("/events"), "what was shown is what was counted");
    assert_eq!(calls(out), number("/events"), "what was published is what was counted");
    for view in VIEWS {
        assert_eq!(rows(out, view).len() as u64, number(&format!("/rows/{view}")), "{view}");
    }
    assert_eq!(rows(out, "late").len() as u64, number("/late"));
    assert_eq!(rows(out, "dead_letters").len() as u64, number("/dead_letters"));
}

#[test]
fn a_demo_counts_what_it_sent_and_its_last_lines_are_commands_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let demo = Keytide::new(&["demo", "--headless", "--out", path(&out)]);
    let ended = demo.with("--duration 3s --rate 500 --seed 1").succeed();
    assert_eq!(ended.stderr, "");
    for second in ["00:01 ", "00:02 "] {
        assert!(ended.stdout.lines().any(|line| line.starts_with(second)), "{}", ended.stdout);
    }
    assert_all_is_counted(&out);
    assert!(rows(&out, "latency").iter().any(|row| row.text("scope") == "route"));
    assert!(rows(&out, "geo").iter().any(|row| row.text("country") != "ZZ"), "addresses are looked up");
    for view in VIEWS {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        for row in rows(&out, view) {
            schema.check(&row).unwrap_or_else(|problem| panic!("{view}: {problem}\n{row:?}"));
        }
    }

    let (_, next) = ended.stdout.split_once("try next\n").expect("what to try next");
    assert_eq!(next.lines().count(), 6, "{next}");
    assert!(
        next.lines().all(|line| line.len() <= 80 || line.contains(env!("CARGO_BIN_EXE_keytide"))),
        "{next}"
    );
    let folder = next.lines().next().unwrap().trim().strip_prefix("cd ").unwrap();
    assert_eq!(Path::new(folder), out);
    let shell = Command::new("sh").args(["-ec", next]).current_dir("/").output().unwrap();
    let shown = String::from_utf8(shell.stdout).unwrap() + &String::from_utf8(shell.stderr).unwrap();
    assert!(shell.status.success(), "{shown}");
    assert!(shown.contains("\"key_id\":") && out.join("replayed/summary.json").is_file(), "{shown}");
}

#[test]
fn without_a_terminal_there_are_lines_and_a_folder_for_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Keytide::new(&["demo"]).with("--duration 1s --rate 200").env("TMPDIR", path(folder.path()));
    let ended = demo.succeed();
    assert!(ended.stderr.starts_with("note: ") && ended.stderr.contains("--headless"), "{}", ended.stderr);
    let made = names(folder.path());
    let [name] = &made.iter().collect::<Vec<_>>()[..] else { panic!("{made:?}") };
    let out = folder.path().join(name);
    assert!(ended.stdout.contains(&format!("files in {}\n", out.display())), "{}", ended.stdout);
    let expected = ["demo.log", "geo", "keytide.toml", "summary.json", "tables", "views"];
    assert_eq!(names(&out), expected.map(str::to_owned).into());
}

#[test]
fn what_is_in_the_way_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "").unwrap();
    let ended = Keytide::new(&["demo", "--headless", "--out", path(folder.path())]).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("isn't empty"), "{}", ended.stderr);
    for arguments in ["--duration 0s", "--duration soon", "--rate 0", "--rate -1"] {
        let ended = Keytide::new(&["demo"]).with(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments}: {}", ended.stderr);
    }
}

/// The answers to the two commands that a demo prints: to a check, and how quotas stand.
fn asked(told: &str) -> [Value; 2] {
    let commands = told.lines().filter_map(|line| line.strip_prefix("  curl "));
    let answers = commands.map(|command| {
        let (body, url) = match command.strip_prefix("-d '").and_then(|rest| rest.split_once("' ")) {
            Some((body, url)) => (body, url),
            None => ("", command),
        };
        let (address, page) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let (status, answer) = ask(address, method, &format!("/{page}"), body).unwrap();
        assert_eq!(status, 200, "{command}: {answer}");
        answer
    });
    answers.collect::<Vec<_>>().try_into().unwrap()
}

/// Runs a demo until it prints a line with `until`, asks its API, and ends it by a signal; all lines and the answers.
fn until(out: &Path, arguments: &str, until: &str) -> (String, [Value; 2]) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_keytide"))
        .args(["demo", "--headless", "--out", path(out)])
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let (mut told, mut line) = (String::new(), String::new());
    while !line.contains(until) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended by itself:\n{told}");
        told.push_str(&line);
    }
    let answers = asked(&told);
    let killed = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lines.read_to_string(&mut told).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{told}");
    assert!(told.contains("try next"), "{told}");
    (told, answers)
}

#[test]
fn a_signal_ends_it_with_everything_counted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let (_, [check, standing]) = until(&out, "--rate 500", "  top key ");
    assert_all_is_counted(&out);
    // The history of the key that is about to be stolen used most of its owner's quota, and the check one call.
    assert_eq!((&check["allowed"], &check["reason"]), (&true.into(), &"ok".into()), "{check}");
    let quota = &standing["quotas"][0];
    let number = |column: &str| quota[column].as_u64().unwrap();
    assert!(number("used") > number("limit") / 2 && number("remaining") > 0, "{quota}");
    assert_eq!(quota["hard"], true);
}

#[test]
fn a_demo_that_is_as_short_as_may_be_ends_by_itself_with_its_leak_found() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let demo = Keytide::new(&["demo", "--headless", "--out", path(&out)]);
    let ended = demo.with("--duration 40s --rate 100 --seed 2").succeed();
    assert_all_is_counted(&out);
    let summary = summary(&out);
    let stolen = summary["stolen_key"].as_str().unwrap();
    let leak_calls = summary["sent"]["leak_calls"].as_u64().unwrap();
    for line in [
        format!("stolen   key {}: somebody in another country called with it, too, ", &stolen[..8]),
        format!("found    key {} of ", &stolen[..8]),
    ] {
        assert!(ended.stdout.contains(&line), "{line}\n{}", ended.stdout);
    }
    assert!(leak_calls > 0 && ended.stdout.contains(" never seen"), "{}", ended.stdout);
    // On a busy machine there are minutes of live traffic, in which another key may stand out as well.
    let log = rows(&out, "incident_log");
    assert!(log.iter().any(|row| row.text("key_id") == stolen && row.text("level") != "notice"), "{log:?}");
}

#[test]
fn a_stolen_key_is_found_notified_and_not_suspended() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    // The incident is an alert first, and is raised when calls stay at the new place for a second minute.
    let (told, [check, standing]) = until(&out, "--rate 200 --duration 1h", "would suspend the key");
    assert_all_is_counted(&out);
    let summary = summary(&out);
    let stolen = summary["stolen_key"].as_str().unwrap();
    assert!(told.contains(&format!("INCIDENT  key {}", &stolen[..8])), "{told}");
    assert!(told.contains(": would suspend the key; held: acting is off\n"), "{told}");
    assert_eq!((&summary["incidents"], &summary["held_actions"]), (&1.into(), &1.into()), "{told}");
    let log = rows(&out, "incident_log");
    assert!(log.iter().all(|row| row.text("key_id") == stolen));
    assert_eq!((log[0].text("level"), log[0].text("policy")), ("alert", "suspend"));
    assert_eq!((log[1].text("transition"), log[1].text("level")), ("raised", "revoke"));
    let [action] = &rows(&out, "revocations")[..] else { panic!("one is held") };
    assert_eq!(
        (action.text("action"), action.text("state"), action.text("key_id")),
        ("suspend", "held", stolen)
    );
    let mails = names(&out.join("mails"));
    assert!(mails.iter().any(|name| name.contains(".security-")), "{mails:?}");
    assert!(mails.iter().any(|name| name.contains(".owner-")), "{mails:?}");

    // The thief used up the quota of the key's owner, who was told at 80 %.
    assert_eq!((&check["allowed"], &check["reason"]), (&false.into(), &"quota".into()), "{check}");
    assert_eq!(standing["quotas"][0]["exceeded"], true, "{standing}");
    assert!(mails.iter().any(|name| name.contains(".customer-")), "{mails:?}");
    let percents: Vec<u64> = rows(&out, "notices").iter().map(|row| row.number("percent")).collect();
    assert!(percents.starts_with(&[80]), "{percents:?}");
    let subscription = log[0].text("subscription");
    assert!(told.contains(&format!("QUOTA     {subscription} of ")), "{told}");
    assert_eq!(summary["quota"]["subscription"], *subscription);
    assert!(summary["quota"]["bill"].as_str().unwrap().ends_with(" EUR"), "{}", summary["quota"]);
    assert!(told.contains(&format!("bill     {subscription}: ")), "{told}");
}
