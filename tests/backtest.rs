//! `keytide backtest` over a job's sources: what it writes, and what it leaves alone.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use keytide_alerts::{Outbox, email};
use keytide_config::{EmailAlerts, Sender};
use keytide_dataflow::Notice;
use keytide_dataflow::model::hex;
use keytide_generator::generate;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Job, Keytide, MINUTE, OF_INCIDENTS, Row, Schema, Views, call, names, path, read, read_text, repository,
};

fn backtest(job: &Job) -> Keytide {
    let config = job.path("keytide.toml");
    let out = job.path("out");
    Keytide::new(&["backtest", path(&config), "--out", path(&out)]).with("--now 2025-06-10T00:00:00Z")
}

fn report(job: &Job) -> Value {
    serde_json::from_str(&read_text(&job.path("out/report.json"))).unwrap()
}

fn steady() -> Job {
    Job::new("").log((0..120).map(|n| call(n * MINUTE, &format!("r{n}"), "steady")))
}

#[test]
fn it_writes_incidents_scores_and_a_report_and_prints_it_for_programs_into_a_pipe() {
    let job = steady();
    let ended = backtest(&job).succeed();
    let expected = ["report.json", "report.md", "scores.csv", "views.duckdb.sql", "views.postgresql.sql"];
    assert_eq!(names(&job.path("out")), expected.map(str::to_owned).into());
    assert_eq!(ended.stdout, read_text(&job.path("out/report.json")));
    let report = report(&job);
    let overview = &report["overview"];
    assert_eq!((&overview["calls"], &overview["keys"]), (&120.into(), &1.into()));
    let busiest = &overview["busiest_keys"][0];
    assert_eq!((&busiest["calls"], &busiest["callers"]), (&120.into(), &1.into()));
    assert_eq!(overview["not_judged"][0]["reason"], "history");
    assert_eq!(backtest(&job).with("--quiet").succeed().stdout, "");
    assert_eq!((&report["events"], &report["keys"]), (&120.into(), &1.into()));
    assert_eq!(report["from"], "2025-06-02T08:00:00Z");
    assert_eq!(report["to"], "2025-06-02T10:00:00Z");
    assert_eq!(report["labels"], Value::Null);
    assert!(read_text(&job.path("out/scores.csv")).starts_with("key_id,window_start,score,level\n"));
}

#[test]
fn leaks_are_found_and_a_live_job_a_replay_and_a_backtest_would_say_the_same_of_them() {
    let world = tempfile::tempdir().unwrap();
    let leaks = "--scenario mixed --leaks 12 --look-alikes 0 --keys 40 --events 40000 --days 4 --seed 8";
    generate(world.path(), leaks).unwrap();
    let config = world.path().join("keytide.toml");
    let replayed = tempfile::tempdir().unwrap();
    let replay = Keytide::replay(&config, replayed.path());
    replay.with("--now 2025-07-01T00:00:00Z --workers 1").succeed();
    let out = world.path().join("backtest");
    let labels = world.path().join("labels.jsonl");
    let backtest = Keytide::new(&["backtest", path(&config), "--out", path(&out), "--labels", path(&labels)]);
    backtest.with("--now 2025-07-01T00:00:00Z --workers 3").succeed();

    let views = Views::new(replayed.path());
    for view in OF_INCIDENTS {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        let rows = views.rows(view);
        // A bounded run acts on nothing.
        assert_eq!(rows.is_empty(), view == "denied", "{view}");
        if rows.is_empty() {
            continue;
        }
        for row in &rows {
            schema.check(row).unwrap_or_else(|problem| panic!("{view}: {problem}\n{row:?}"));
        }
        let keys: Vec<_> = rows.iter().map(|row| row.key(&schema.key)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{view}: in the order of their keys, each once");
        assert_eq!(views.text(view), read_text(&out.join(format!("{view}.jsonl"))), "{view}");
    }
    for line in views.text("incident_log").lines() {
        serde_json::from_str::<keytide_dataflow::incident_row::TransitionJson>(line)
            .unwrap_or_else(|error| panic!("{error} in {line}"));
    }
    // The newest of an incident's transitions is what the view of incidents says.
    let log = views.rows("incident_log");
    for incident in views.rows("incidents") {
        let of_incident =
            log.iter().rev().find(|row| row.text("incident_id") == incident.text("incident_id"));
        let last = of_incident.unwrap();
        for column in ["key_id", "level", "state", "opened_at", "detector_version"] {
            assert_eq!(incident.get(column), last.get(column), "{column}");
        }
    }
    let count = |view: &str| views.rows(view).len() as u64;
    assert_eq!(views.count("incidents"), count("incidents"));
    assert_eq!(views.count("revocations"), count("revocations"));

    let report: Value = serde_json::from_str(&read_text(&out.join("report.json"))).unwrap();
    assert_eq!(report["incidents"]["total"], count("incidents"));
    let alerted = |row: &&Row| ["opened", "raised", "reopened"].contains(&row.text("transition"));
    assert_eq!(report["alerts"], log.iter().filter(alerted).count());
    let done: u64 =
        report["actions"].as_array().unwrap().iter().map(|of| of["count"].as_u64().unwrap()).sum();
    assert_eq!(done, count("revocations"));
    let scores = read_text(&out.join("scores.csv"));
    assert_eq!(report["scores"], scores.lines().count() - 1);
    assert!(scores.lines().skip(1).is_sorted_by(|a, b| a < b), "by key and window, each once");
    let found = report["labels"]["found"].as_u64().unwrap();
    assert_eq!(report["labels"]["leaks"], 12);
    assert!(found >= 7, "{found} of 12 leaks");
    for picture in report["pictures"].as_array().unwrap() {
        let png = read(&out.join(picture[0].as_str().unwrap()));
        assert!(png.starts_with(b"\x89PNG"), "{picture}");
    }
    assert_eq!(report["pictures"].as_array().unwrap().len(), 7);
}

#[test]
fn a_sweep_has_a_row_for_each_point() {
    let job = steady();
    let ended = backtest(&job).with("--sweep detection.alert=3,4.5 --sweep detection.prior=17,20").succeed();
    assert_eq!(names(&job.path("out")), ["sweep.csv", "sweep.md"].map(str::to_owned).into());
    assert_eq!(ended.stdout, read_text(&job.path("out/sweep.md")));
    let table = read_text(&job.path("out/sweep.csv"));
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("detection.alert,detection.prior,alerts,alerts_per_1000_key_days,"),
        "{table}"
    );
    let points: Vec<&str> =
        lines[1..].iter().map(|line| &line[..line.match_indices(',').nth(1).unwrap().0]).collect();
    assert_eq!(points, ["3,17", "3,20", "4.5,17", "4.5,20"]);
    let ended = backtest(&job).with("--sweep detection.alert=4,99999").run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("with detection.alert = 99999"), "{}", ended.stderr);
}

#[test]
fn it_writes_to_no_sink() {
    let sinks = "[sink.files]\ndir = \"published\"\n[sink.kafka]\nbrokers = \"127.0.0.1:1\"\n";
    let job = Job::new(sinks).log([call(0, "r", "k")]);
    backtest(&job).succeed();
    assert!(!job.path("published").exists());
}

#[test]
fn labels_that_cannot_be_read_are_refused_before_anything_runs() {
    let job = steady().file("labels.jsonl", "{\"kind\":\"x\"}\n");
    let labels = job.path("labels.jsonl");
    let ended = backtest(&job).with(&format!("--labels {}", path(&labels))).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("labels.jsonl, line 1, is no label"), "{}", ended.stderr);
    assert!(!job.path("out").exists());
}

#[test]
fn labels_show_missed_leaks() {
    let label = |from: &str, to: &str| {
        format!(
            r#"{{"key_id":"quiet","kind":"probing","leak":true,"from":"{from}","to":"{to}","multiple":3.5}}"#
        )
    };
    let job = steady().file("labels.jsonl", label("2025-06-02T09:00:00Z", "2025-06-02T09:30:00Z"));
    let labels = job.path("labels.jsonl");
    let ended = backtest(&job).with(&format!("--labels {}", path(&labels))).succeed();
    let of_labels = &report(&job)["labels"];
    assert_eq!((&of_labels["leaks"], &of_labels["found"]), (&1.into(), &0.into()));
    assert_eq!((&of_labels["plain_leaks"], &of_labels["recall"]), (&1.into(), &0.0.into()));
    let markdown = read_text(&job.path("out/report.md"));
    assert!(markdown.contains("| leaks found | 0 of 1 (0.0 %) |"), "{markdown}");
    assert_eq!(ended.stdout, read_text(&job.path("out/report.json")));
}

#[test]
fn an_earlier_report_is_gone_while_another_run_could_fail() {
    let job = steady();
    backtest(&job).succeed();
    let job = job.file("log.jsonl.gz", b"\x1f\x8b\x08damaged");
    assert_eq!(backtest(&job).run().code, Some(3));
    assert!(!job.path("out/report.json").exists());
}

#[test]
fn mistyped_arguments_are_reported() {
    let job = steady();
    let refused = |arguments: &str, said: &str| {
        let ended = backtest(&job).with(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments}\n{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments}\n{}", ended.stderr);
    };
    refused("--sweep limits.keys=1,2", "such as detection.alert=3,4,5");
    refused("--sweep detection.alert=low,high", "\"low\" is no number");
    refused("--sweep detection.no_such_key=1,2", "no_such_key");
    refused("--csv in.csv", "cannot be used with");
    let ended = Keytide::new(&["backtest", "--out", "x"]).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(fs::exists(job.path("out")).is_ok_and(|there| !there), "nothing is written");
}

/// What somebody who calls may write into names, user agents and routes.
const PAYLOADS: [&str; 9] = [
    "a\r\nBcc: x@evil.example",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "=cmd|' /C calc'!A0",
    "\u{1b}[31mred\u{1b}]0;title\u{7}",
    "abc\u{202e}gnp.exe",
    "nul\0nul\u{85}\u{2028}",
    "[click](javascript:alert(1)) | `x` <!channel> *b*",
    "@SUM(1+9)*cmd|' /C calc'!A0",
];

/// The headers of mails that don't begin with `X-`.
const HEADERS: [&str; 10] = [
    "From",
    "To",
    "Date",
    "Subject",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
];

/// A world with leaks whose keys are names that their callers chose; the thieves' user agents and routes are no better.
fn hostile_world(folder: &std::path::Path) {
    let leaks = "--scenario leaks --leaks 9 --keys 60 --events 12000 --days 4 --seed 3";
    generate(folder, leaks).unwrap();
    let labels = read_text(&folder.join("labels.jsonl"));
    let labels = labels.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let leaked: Vec<String> = labels.map(|label| label["key_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(leaked.len(), PAYLOADS.len());
    let mut events = String::new();
    for line in read_text(&folder.join("events.jsonl")).lines() {
        let Ok(Value::Object(mut event)) = serde_json::from_str(line) else { continue };
        let Some(key) = event.get("apiKey").and_then(Value::as_str) else { continue };
        let hash = hex(&Sha256::digest(key)[..16]);
        if let Some(at) = leaked.iter().position(|leaked| *leaked == hash) {
            event.insert("apiKey".to_owned(), PAYLOADS[at].into());
            for (member, shift) in [("userAgent", 1), ("routeKey", 2)] {
                event.insert(member.to_owned(), PAYLOADS[(at + shift) % PAYLOADS.len()].into());
            }
        }
        events.push_str(&format!("{}\n", Value::Object(event)));
    }
    fs::write(folder.join("events.jsonl"), events).unwrap();
    let config = read_text(&folder.join("keytide.toml")).replace("\"sha256\"", "\"none\"");
    let (before, tables) = config.split_once("[tables.keys]").unwrap();
    let (_, after) = tables.split_once("[geo]").unwrap();
    // Thieves with the owner's agent and routes, and keys with few calls: what is wanted are incidents, right or wrong.
    let easily = "[detection]\nprior = 8\n";
    fs::write(folder.join("keytide.toml"), format!("{before}[geo]{after}\n{easily}")).unwrap();
}

#[test]
fn what_callers_wrote_acts_in_no_report_and_no_mail() {
    let world = tempfile::tempdir().unwrap();
    hostile_world(world.path());
    let (config, out) = (world.path().join("keytide.toml"), world.path().join("out"));
    let ended = Keytide::new(&["backtest", path(&config), "--out", path(&out)])
        .with("--now 2025-07-01T00:00:00Z")
        .succeed();
    let log = read_text(&out.join("incident_log.jsonl"));
    let told = |row: &str| serde_json::from_str::<Value>(row).unwrap()["key_id"].as_str().map(str::to_owned);
    let told: BTreeSet<String> = log.lines().filter_map(told).collect();
    let count = PAYLOADS.iter().filter(|payload| told.contains(**payload)).count();
    assert!(count >= 5, "{told:?}");

    let acting = |text: &str| text.chars().filter(|c| *c != '\n' && email::acts(*c)).collect::<String>();
    assert_eq!(acting(&ended.stdout), "");
    let scores = read_text(&out.join("scores.csv"));
    assert_eq!(acting(&scores), "");
    for line in scores.lines().skip(1) {
        let cell = line.trim_start_matches('"');
        assert!(!cell.starts_with(['=', '+', '-', '@']), "{line}");
    }
    assert!(scores.contains("\n'=cmd|"), "a name that would be a formula is among them");

    let from = Sender { name: "Keytide".to_owned(), address: "keytide@example.com".to_owned() };
    let mails = world.path().join("mails");
    let email = EmailAlerts {
        dir: Some(mails.clone()),
        owners: true,
        ..EmailAlerts::new(from, vec!["security@example.com".to_owned()])
    };
    let config = keytide_config::Alerts { email: Some(email), ..Default::default() };
    let alerts = Outbox::open(&config, &[], Arc::new(|| 1_751_328_000_000)).unwrap();
    for row in log.lines() {
        let contacts =
            vec!["owner@example.com".to_owned(), "a@example.com\r\nBcc: x@evil.example".to_owned()];
        let notice = Notice { json: row.as_bytes().to_vec(), contacts, actions: Vec::new() };
        alerts.notify(1_751_328_000_000, vec![notice]);
    }
    // What the limits of an hour hold back doesn't matter here.
    alerts.stop(Duration::from_secs(600));
    let files = names(&mails);
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let mail = read_text(&mails.join(&file));
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        for line in head.split("\r\n").filter(|line| !line.starts_with(' ')) {
            let (name, _) = line.split_once(": ").unwrap();
            assert!(name.starts_with("X-") || HEADERS.contains(&name), "{file}: {line}");
        }
        assert!(mail.split("\r\n").all(|line| line.len() <= 998 && acting(line).is_empty()), "{file}");
        let (_, html) = mail.split_once("Content-Type: text/html").unwrap();
        assert!(
            !html.contains("<script") && !html.contains("<img src=3D\"x") && !html.contains("<img src=3Dx"),
            "{file}"
        );
    }
}
