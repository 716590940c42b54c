//! `keytide backtest` over a job's sources: what it writes, and what it leaves alone.

use std::fs;

use serde_json::Value;

use crate::harness::{
    Job, Keytide, MINUTE, Row, Schema, Views, call, names, path, read, read_text, repository,
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
fn it_writes_incidents_scores_and_a_report_and_prints_the_report() {
    let job = steady();
    let ended = backtest(&job).succeed();
    let expected = [
        "incident_log.jsonl",
        "incidents.jsonl",
        "report.json",
        "report.md",
        "revocations.jsonl",
        "scores.csv",
    ];
    assert_eq!(names(&job.path("out")), expected.map(str::to_owned).into());
    assert_eq!(ended.stdout, read_text(&job.path("out/report.md")));
    let report = report(&job);
    assert_eq!((&report["events"], &report["keys"]), (&120.into(), &1.into()));
    assert_eq!(report["from"], "2025-06-02T08:00:00Z");
    assert_eq!(report["to"], "2025-06-02T10:00:00Z");
    assert_eq!(report["labels"], Value::Null);
    assert!(read_text(&job.path("out/scores.csv")).starts_with("key_id,window_start,score,level\n"));
}

#[test]
fn leaks_are_found_and_a_live_job_a_replay_and_a_backtest_would_say_the_same_of_them() {
    let world = tempfile::tempdir().unwrap();
    let leaks = "--scenario mixed --leaks 18 --look-alikes 0 --keys 60 --events 12000 --days 4 --seed 3";
    Keytide::new(&["generate", "--out", path(world.path())]).with(leaks).succeed();
    let config = world.path().join("keytide.toml");
    let replayed = tempfile::tempdir().unwrap();
    let replay = Keytide::replay(&config, replayed.path());
    replay.with("--now 2025-07-01T00:00:00Z --workers 1").succeed();
    let out = world.path().join("backtest");
    let labels = world.path().join("labels.jsonl");
    let backtest = Keytide::new(&["backtest", path(&config), "--out", path(&out), "--labels", path(&labels)]);
    backtest.with("--now 2025-07-01T00:00:00Z --workers 3").succeed();

    let views = Views::new(replayed.path());
    for view in ["incidents", "incident_log", "revocations"] {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        let rows = views.rows(view);
        assert!(!rows.is_empty(), "{view}");
        for row in &rows {
            schema.check(row).unwrap_or_else(|problem| panic!("{view}: {problem}\n{row:?}"));
        }
        let keys: Vec<_> = rows.iter().map(|row| row.key(&schema.key)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{view}: in the order of their keys, each once");
        assert_eq!(views.text(view), read_text(&out.join(format!("{view}.jsonl"))), "{view}");
    }
    for line in views.text("incident_log").lines() {
        serde_json::from_str::<keytide_alerts::incident::Transition>(line)
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
    assert_eq!(report["labels"]["leaks"], 18);
    assert!(found >= 9, "{found} of 18 leaks");
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
fn labels_tell_what_was_missed() {
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
    assert!(ended.stdout.contains("| leaks found | 0 of 1 (0.0 %) |"), "{}", ended.stdout);
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
fn what_is_typed_wrongly_is_told() {
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
