//! How well leaks are told from look-alikes, on traffic of `keytide generate`: by `keytide backtest`, the job itself,
//! and beside it by two reference detectors on the same calls. See benches/detection/README.md for what is measured, on
//! which seeds.
//!
//! ```text
//! cargo bench --bench detection -- FOLDER ...        # each made by keytide generate --scenario mixed
//! cargo bench --bench detection -- --series FOLDER   # labelled series of counts: CSV files and labels.json
//! cargo bench --bench detection -- --log FILE        # a web server's combined log, with leaks put into it
//! ```

#![allow(clippy::print_stdout)]

#[path = "detection/episodes.rs"]
mod episodes;
#[path = "../cli/backtest/judge.rs"]
#[allow(dead_code, reason = "the backtest needs more of it")]
mod judge;
#[path = "detection/log.rs"]
mod log;
#[path = "detection/references.rs"]
mod references;
#[path = "detection/series.rs"]
mod series;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use keytide_config::JobConfig;
use keytide_connectors::decode::{self, Decoded};
use keytide_connectors::geo::GeoDatabases;
use keytide_dataflow::detect::{Severity, WINDOW_MS};
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{AccessEvent, KeyId, Position};
use serde::Deserialize;

use self::episodes::Episodes;
use self::judge::Alert;
use self::references::References;

/// Calls may be so much out of order.
const DISORDER_MS: u64 = 5_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => println!("nothing to do: name folders made by keytide generate, --series FOLDER or --log FILE"),
        ["--series", folder] => series::report(Path::new(folder))?,
        ["--log", file] => log::report(Path::new(file))?,
        folders => {
            let mut all = Episodes::default();
            for folder in folders {
                all.merge(evaluate(Path::new(folder)).with_context(|| (*folder).to_owned())?);
            }
            all.report();
        }
    }
    Ok(())
}

/// The files of calls, in the order of their names.
fn events(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["events.jsonl", "events.jsonl.gz"].contains(&&*name)
    });
    paths.sort();
    if paths.len() != 1 {
        bail!("one events.jsonl is expected: generate without --partitions");
    }
    Ok(paths)
}

/// Judges a folder: what the job tells, and what the references make of the same calls.
fn evaluate(folder: &Path) -> anyhow::Result<Episodes> {
    let config_path = folder.join("keytide.toml");
    let config = JobConfig::load(&config_path, std::iter::empty())?.job;
    let started = Instant::now();
    let alerts = backtest(&config_path)?;
    let backtest_s = started.elapsed().as_secs_f64();
    let counts = count(folder, &config)?;
    println!(
        "{}: {} calls of {} keys, backtest {backtest_s:.1} s",
        folder.display(),
        counts.calls,
        counts.keys.len()
    );
    let run = (counts.first_ms, counts.latest_ms);
    Episodes::read(folder, &alerts, &counts.references, run, counts.keys.len())
}

/// What a job tells of its history.
fn backtest(config: &Path) -> anyhow::Result<Vec<Alert>> {
    let out = tempfile::tempdir()?;
    let status = Command::new(env!("CARGO_BIN_EXE_keytide"))
        .args(["backtest", "--out"])
        .args([out.path(), config])
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "keytide backtest ended with {status}");
    alerts(&out.path().join("incident_log.jsonl"))
}

/// A row of `incident_log`.
#[derive(Deserialize)]
struct Entry {
    key_id: String,
    transition: String,
    at: String,
    level: String,
}

/// What people would have been told.
fn alerts(log: &Path) -> anyhow::Result<Vec<Alert>> {
    let mut alerts = Vec::new();
    // A view without rows has no file.
    if !log.exists() {
        return Ok(alerts);
    }
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        let entry: Entry = serde_json::from_slice(&line?)?;
        if matches!(entry.transition.as_str(), "opened" | "raised") {
            let level =
                if entry.level == Severity::Revoke.name() { Severity::Revoke } else { Severity::Alert };
            let at_ms = u64::try_from(entry.at.parse::<jiff::Timestamp>()?.as_millisecond())?;
            alerts.push(Alert { key: entry.key_id, at_ms, severity: level });
        }
    }
    Ok(alerts)
}

/// Counts a folder's calls by minute, for the references.
fn count(folder: &Path, config: &JobConfig) -> anyhow::Result<Counts> {
    let geo = Arc::new(GeoDatabases::open(&config.geo)?.0);
    let context = decode::Context::of(config, geo);
    let mut decoder = decode::decoder(&config.sources[0], &context);
    let mut counts = Counts::default();
    let mut seen = [HashSet::new(), HashSet::new()];
    let mut out = Decoded::default();
    for path in events(folder)? {
        let file = File::open(&path)?;
        let read: Box<dyn std::io::Read> = match path.extension().is_some_and(|extension| extension == "gz") {
            true => Box::new(flate2::read::MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        for line in BufReader::with_capacity(1 << 20, read).split(b'\n') {
            decoder.decode(&line?, Position::default(), &mut out);
            out.dead_letters.clear();
            out.definitions.clear();
            for event in out.events.drain(..) {
                let repeated = event.request.is_some()
                    && (seen[1].contains(&event.request) || !seen[0].insert(event.request));
                if !repeated {
                    counts.call(&event);
                }
            }
            if seen[0].len() > 1_000_000 {
                seen[1] = std::mem::take(&mut seen[0]);
            }
        }
    }
    counts.close_before(u64::MAX);
    Ok(counts)
}

/// Calls by minute.
#[derive(Default)]
struct Counts {
    open: BTreeMap<u64, HashMap<KeyId, u32>>,
    keys: HashSet<KeyId>,
    references: References,
    calls: u64,
    first_ms: u64,
    latest_ms: u64,
}

impl Counts {
    fn call(&mut self, event: &AccessEvent) {
        if self.calls == 0 {
            self.first_ms = event.time;
        }
        self.calls += 1;
        self.latest_ms = self.latest_ms.max(event.time);
        let closed = self.latest_ms.saturating_sub(DISORDER_MS);
        let start_ms = event.time - event.time % WINDOW_MS;
        if event.key.is_bucket() || start_ms + WINDOW_MS <= closed {
            return;
        }
        self.keys.insert(event.key);
        *self.open.entry(start_ms).or_default().entry(event.key).or_default() += 1;
        self.close_before(closed);
    }

    /// Hands over the minutes that end at or before `closed`.
    fn close_before(&mut self, closed: u64) {
        while let Some(entry) = self.open.first_entry() {
            if entry.key().saturating_add(WINDOW_MS) > closed {
                break;
            }
            let (start_ms, keys) = entry.remove_entry();
            keys.into_iter().for_each(|(key, calls)| self.references.step(key, start_ms, calls));
        }
    }
}
