//! How well the detector's arithmetic tells leaks from look-alikes, on traffic of `keytide generate`, beside two
//! reference detectors on the same minutes: see benches/detection/README.md for what is measured, on which seeds.
//!
//! ```text
//! cargo bench --bench detection -- FOLDER ...        # each made by keytide generate --scenario mixed
//! cargo bench --bench detection -- --series FOLDER   # labelled series of counts: CSV files and labels.json
//! ```

#![allow(clippy::print_stdout)]

#[path = "detection/episodes.rs"]
mod episodes;
#[path = "../worker/backtest/judge.rs"]
#[allow(dead_code, reason = "the backtest needs more of it")]
mod judge;
#[path = "detection/references.rs"]
mod references;
#[path = "detection/series.rs"]
mod series;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use keytide_config::JobConfig;
use keytide_connectors::decode::{self, Decoded};
use keytide_connectors::geo::Geo;
use keytide_connectors::tables;
use keytide_dataflow::detect::{Facts, Level, Profile, Tuning, WINDOW_MS, Window};
use keytide_dataflow::model::{AccessEvent, KeyId, KeyKind, KeyState, Position, TableRow};

use self::episodes::Episodes;
use self::judge::Alert;
use self::references::References;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Calls may be so much out of order.
const DISORDER_MS: u64 = 5_000;
/// An incident ends so long after its last signal, and is the same one again within a day.
const QUIET_MS: u64 = HOUR_MS / 2;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => println!("nothing to do: name folders made by keytide generate, or --series FOLDER"),
        ["--series", folder] => series::report(Path::new(folder))?,
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

/// Folds a folder's calls minute by minute.
fn evaluate(folder: &Path) -> anyhow::Result<Episodes> {
    let started = Instant::now();
    let config = JobConfig::load(&folder.join("keytide.toml"), std::iter::empty())?.job;
    let geo = Arc::new(Geo::open(&config.geo)?.0);
    let context = decode::Context::new(&config.routes, &config.geo.trusted_proxies, config.limits, geo);
    let mut decoder = decode::decoder(&config.sources[0], &context);
    let mut fold = Fold { facts: facts(&config)?, ..Fold::default() };
    let mut seen = [HashSet::new(), HashSet::new()];
    let mut out = Decoded::default();
    for path in events(folder)? {
        for line in BufReader::with_capacity(1 << 20, File::open(&path)?).split(b'\n') {
            decoder.decode(&line?, Position::default(), &mut out);
            out.dead_letters.clear();
            out.definitions.clear();
            for event in out.events.drain(..) {
                let repeated = event.request.is_some()
                    && (seen[1].contains(&event.request) || !seen[0].insert(event.request));
                if !repeated {
                    fold.call(&event);
                }
            }
            if seen[0].len() > 1_000_000 {
                seen[1] = std::mem::take(&mut seen[0]);
            }
        }
    }
    fold.close_before(u64::MAX);
    println!(
        "{}: {} calls of {} keys, {:.1} s, of which folding {:.1} s",
        folder.display(),
        fold.calls,
        fold.profiles.len(),
        started.elapsed().as_secs_f64(),
        fold.folding.as_secs_f64()
    );
    Episodes::read(
        folder,
        &fold.alerts,
        &fold.references,
        (fold.first_ms, fold.latest_ms),
        fold.profiles.len(),
    )
}

/// The files of calls, in the order of their names.
fn events(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.retain(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events"))
            && path.extension().is_some_and(|extension| extension == "jsonl")
    });
    paths.sort();
    if paths.len() != 1 {
        bail!("one events.jsonl is expected: generate without --partitions and --gzip");
    }
    Ok(paths)
}

fn facts(config: &JobConfig) -> anyhow::Result<HashMap<KeyId, Facts>> {
    let hashes = config.sources.iter().map(|source| &source.keys.hash);
    let rows = tables::read(&config.tables, hashes)?.changes.into_iter();
    Ok(rows
        .filter_map(|change| match change.row {
            TableRow::Key(row) => Some((
                row.key,
                Facts {
                    revoked_ms: row.revoked_at.filter(|_| row.state == KeyState::Revoked),
                    last_used_ms: row.last_used_at,
                    publishable: row.kind == KeyKind::Publishable,
                    allowed: row.allowed,
                    reported_ms: None,
                },
            )),
            _ => None,
        })
        .collect())
}

#[derive(Default)]
struct Fold {
    facts: HashMap<KeyId, Facts>,
    open: BTreeMap<u64, HashMap<KeyId, Window>>,
    profiles: HashMap<KeyId, Profile>,
    /// Blocks of five minutes and of an hour that end, by their end.
    due: BTreeMap<u64, BTreeSet<KeyId>>,
    /// By key, the level of its incident and when it last alarmed.
    incidents: HashMap<KeyId, (Level, u64)>,
    alerts: Vec<Alert>,
    references: References,
    calls: u64,
    first_ms: u64,
    latest_ms: u64,
    folding: Duration,
}

impl Fold {
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
        self.open.entry(start_ms).or_default().entry(event.key).or_default().add(event, &[]);
        self.close_before(closed);
    }

    /// Closes the windows that end at or before `closed`.
    fn close_before(&mut self, closed: u64) {
        while let Some(entry) = self.open.first_entry() {
            if entry.key().saturating_add(WINDOW_MS) > closed {
                break;
            }
            let (start_ms, windows) = entry.remove_entry();
            let started = Instant::now();
            self.close(start_ms, windows.into_iter().collect());
            self.folding += started.elapsed();
        }
    }

    fn close(&mut self, start_ms: u64, windows: BTreeMap<KeyId, Window>) {
        let end_ms = start_ms + WINDOW_MS;
        for (key, window) in windows {
            let profile = self.profiles.entry(key).or_insert_with(|| Profile::new(start_ms));
            let facts = self.facts.entry(key).or_default();
            profile.step(start_ms, &window, facts, &Tuning::default());
            self.references.step(key, start_ms, window.calls);
            for width_ms in [5 * WINDOW_MS, HOUR_MS] {
                self.due.entry(start_ms - start_ms % width_ms + width_ms).or_default().insert(key);
            }
            self.judge(key, end_ms);
        }
        while let Some(entry) = self.due.first_entry() {
            if *entry.key() > end_ms {
                break;
            }
            let (due_ms, keys) = entry.remove_entry();
            for key in keys {
                let profile = self.profiles.get_mut(&key).expect("what is due was called");
                if profile.next_ms() < due_ms {
                    profile.close(due_ms, &Tuning::default());
                    self.judge(key, due_ms);
                }
            }
        }
    }

    fn judge(&mut self, key: KeyId, now_ms: u64) {
        let verdict = self.profiles[&key].verdict();
        let (level, last_ms) = self.incidents.entry(key).or_default();
        if now_ms > *last_ms + DAY_MS {
            *level = Level::None;
        }
        if verdict.level < Level::Alert {
            return;
        }
        let quiet = now_ms > *last_ms + QUIET_MS;
        if verdict.level > *level || (quiet && *level == Level::None) {
            self.alerts.push(Alert { key: key.to_string(), at_ms: now_ms, level: verdict.level });
        }
        *level = verdict.level.max(*level);
        *last_ms = now_ms;
    }
}
