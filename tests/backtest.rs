//! `keytide backtest` over a job's sources: what it writes, and what it leaves alone.

use std::fs;

use serde_json::Value;

use crate::harness::{Job, Keytide, MINUTE, call, names, path, read_text};

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
