//! The shipped binary: `keytide replay` from start to exit, the writing of every view included.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use keytide_config::View;
use serde::Deserialize;

use crate::KEYTIDE;
use crate::measure::{Cost, children, core_rate, median, rate, wall_ratio};

const ONE_WORKER_TARGET: f64 = 0.7;
const SECOND_CORE_TARGET: f64 = 1.0;
const WORKERS_TARGET: f64 = 1.7;
const MEMORY_TARGET_MIB: u64 = 1_024;

/// How the binary is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    workers: u8,
    decode_threads: u8,
}

impl How {
    pub(crate) const ONE_WORKER: Self = Self { workers: 1, decode_threads: 0 };
}

const HOWS: [How; 4] = [
    How { workers: 1, decode_threads: 0 },
    How { workers: 2, decode_threads: 0 },
    How { workers: 1, decode_threads: 1 },
    How { workers: 2, decode_threads: 1 },
];

/// Part of `summary.json`.
#[derive(Deserialize)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) peak_memory_bytes: u64,
}

#[derive(Default)]
struct Runs {
    costs: Vec<Cost>,
    peak_bytes: u64,
}

/// Runs the binary in each way, in turns.
pub(crate) fn run(input: &Path, out: &Path, rounds: u8) -> anyhow::Result<()> {
    let mut runs: [Runs; HOWS.len()] = Default::default();
    let mut first: Option<(u64, BTreeMap<&str, usize>)> = None;
    for _ in 0..rounds {
        for (how, runs) in HOWS.into_iter().zip(&mut runs) {
            if out.exists() {
                fs::remove_dir_all(out)?;
            }
            let (summary, cost) = children(|| replay(input, out, how))?;
            runs.costs.push(cost);
            runs.peak_bytes = runs.peak_bytes.max(summary.peak_memory_bytes);
            let result = (summary.events, rows(out)?);
            for (view, rows) in &result.1 {
                ensure!(*rows > 0, "`{view}` has no rows");
            }
            let first = first.get_or_insert_with(|| result.clone());
            ensure!(*first == result, "{how} gave {result:?}, the first run {first:?}");
        }
    }
    let (events, rows) = first.context("at least one round")?;
    println!("keytide replay, start to exit");
    println!(
        "  {:<28} {:>10} {:>15} {:>8} {:>8} {:>8}",
        "", "M events/s", "per core-second", "wall s", "CPU s", "peak MiB"
    );
    for (how, Runs { costs, peak_bytes }) in HOWS.into_iter().zip(&runs) {
        println!(
            "  {:<28} {:>10.3} {:>15.3} {:>8.2} {:>8.2} {:>8}",
            how.to_string(),
            rate(events, costs),
            core_rate(events, costs),
            median(costs.iter().map(|cost| cost.wall.as_secs_f64())),
            median(costs.iter().map(|cost| cost.cpu.as_secs_f64())),
            peak_bytes >> 20
        );
    }
    let [one, two, one_and_decoding, _] = &runs;
    let peak = runs.iter().map(|runs| runs.peak_bytes >> 20).max().unwrap_or(0);
    let target = |name: &str, value: f64, target: f64| {
        println!("  {name:<28} {value:>10.3}  (target >= {target})");
    };
    target("one worker, M events/s", rate(events, &one.costs), ONE_WORKER_TARGET);
    target("and a decode thread", rate(events, &one_and_decoding.costs), SECOND_CORE_TARGET);
    target("two workers / one", wall_ratio(&two.costs, &one.costs), WORKERS_TARGET);
    println!("  {:<28} {peak:>10}  (target < {MEMORY_TARGET_MIB})", "peak MiB of any");
    println!(
        "  rows: {}",
        rows.iter().map(|(view, rows)| format!("{view} {rows}")).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workers, decode_threads } = self;
        let plural = |count: u8| if count == 1 { "" } else { "s" };
        write!(f, "{workers} worker{}", plural(*workers))?;
        if *decode_threads > 0 {
            write!(f, " + {decode_threads} decode thread{}", plural(*decode_threads))?;
        }
        Ok(())
    }
}

pub(crate) fn replay(input: &Path, out: &Path, how: How) -> anyhow::Result<Summary> {
    let mut replay = Command::new(KEYTIDE);
    replay
        .arg("replay")
        .arg(input.join("keytide.toml"))
        .arg("--out")
        .arg(out)
        .args(["--workers", &how.workers.to_string(), "--decode-threads", &how.decode_threads.to_string()])
        .stdout(Stdio::null());
    let status = replay.status().with_context(|| format!("can't start {KEYTIDE}"))?;
    ensure!(status.success(), "`keytide replay` with {how} failed: {status}");
    Ok(serde_json::from_reader(BufReader::new(File::open(out.join("summary.json"))?))?)
}

/// Rows of each view, as they stand in the files.
fn rows(out: &Path) -> anyhow::Result<BTreeMap<&'static str, usize>> {
    let mut rows = BTreeMap::new();
    for view in View::NAMES {
        let path = out.join(format!("{view}.jsonl"));
        // A view without rows has no file.
        if !path.exists() {
            rows.insert(view, 0);
            continue;
        }
        let file = File::open(&path).with_context(|| format!("no {}", path.display()))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut count = 0;
        while let block = file.fill_buf()?
            && !block.is_empty()
        {
            count += block.iter().filter(|byte| **byte == b'\n').count();
            let length = block.len();
            file.consume(length);
        }
        rows.insert(view, count);
    }
    Ok(rows)
}
