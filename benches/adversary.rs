//! What a hostile caller costs: the shipped binary over traffic of strangers, beside an ordinary mix of the same size.
//!
//! ```text
//! cargo bench --bench adversary                          # 2,000,000 calls each, 3 rounds
//! cargo bench --bench adversary -- --events 10000000 --rounds 1
//! ```
//! The mixes differ in nothing but who calls what; lines are as long, an hour of event time, without request ids, so that
//! memory is that of the meters:
//!
//! | mix | keys | routes |
//! |---|---|---|
//! | ordinary | 20,000, every second call by the first 200 | 100 |
//! | one key | the same, but 99 % of the calls by one | 100 |
//! | random keys | each call another | 100 |
//! | random routes | as ordinary | each call another |
//! | random both | each call another | each call another |
//!
//! Mixes and numbers of workers are run in turns, so that other work on the machine falls on all. The ratio is of rates,
//! in one round each, to the ordinary mix with as many workers; figures are medians. Peak memory is the process's own
//! account. Every run asserts that no event was lost. No figure is asserted. Linux only. It needs about 250 bytes of disk
//! a call and mix.

#![allow(clippy::print_stdout, reason = "a benchmark's output is what it is for")]
#![allow(dead_code, reason = "what is measured is shared with the other benchmarks")]

mod measure;

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Parser;
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use self::measure::{Cost, children, median, rate};

/// The binary under test.
const KEYTIDE: &str = env!("CARGO_BIN_EXE_keytide");

const KEYS: u64 = 20_000;
/// Keys that make half of the calls.
const BUSY_KEYS: u64 = 200;
const ROUTES: u64 = 100;
/// 2025-06-02T08:00:00Z, in milliseconds, and an hour.
const START_MS: u64 = 1_748_851_200_000;
const SPAN_MS: u64 = 3_600_000;

const CONFIG: &str = r#"
[keys]
from = ["key"]
hash = "sha256"

[[source]]
name = "log"
kind = "file"
path = "events.jsonl"
format = "json"

[source.fields]
time = { at = "/time", unit = "ms" }
key = "/key"
path = "/path"
method = "/method"
status = "/status"
latency = { at = "/latency", unit = "us" }
bytes_in = "/in"
bytes_out = "/out"
client_ip = "/ip"
"#;

/// Measures what strangers cost.
#[derive(Parser)]
struct Args {
    /// Calls of each mix
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Who calls what.
#[derive(Clone, Copy)]
struct Mix {
    name: &'static str,
    /// Of 100 calls those of one key.
    of_one: u64,
    random_keys: bool,
    random_routes: bool,
}

const ORDINARY: Mix = Mix { name: "ordinary", of_one: 0, random_keys: false, random_routes: false };

const MIXES: [Mix; 5] = [
    ORDINARY,
    Mix { name: "one key", of_one: 99, ..ORDINARY },
    Mix { name: "random keys", random_keys: true, ..ORDINARY },
    Mix { name: "random routes", random_routes: true, ..ORDINARY },
    Mix { name: "random both", random_keys: true, random_routes: true, ..ORDINARY },
];

const WORKERS: [u8; 2] = [1, 2];

/// Part of `summary.json`.
#[derive(Deserialize)]
struct Summary {
    events: u64,
    dead_letters: u64,
    peak_memory_bytes: u64,
}

#[derive(Default)]
struct Runs {
    costs: Vec<Cost>,
    peak_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-adversary");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't empty {}", folder.display()))?;
    }
    let mut inputs: Vec<PathBuf> = Vec::new();
    for (number, mix) in MIXES.iter().enumerate() {
        let input = folder.join(number.to_string());
        fs::create_dir_all(&input)?;
        write(&input, *mix, args.events)
            .with_context(|| format!("can't write the calls of {}", input.display()))?;
        inputs.push(input);
    }
    println!(
        "keytide replay, start to exit, {} calls a mix, {} cores\n",
        args.events,
        std::thread::available_parallelism()?
    );

    let mut runs: [[Runs; WORKERS.len()]; MIXES.len()] = Default::default();
    for _ in 0..args.rounds {
        for (mix, input) in inputs.iter().enumerate() {
            for (at, workers) in WORKERS.into_iter().enumerate() {
                let (summary, cost) = children(|| replay(input, &folder.join("views"), workers))?;
                ensure!(
                    (summary.events, summary.dead_letters) == (args.events, 0),
                    "{} events and {} dead letters of {} calls ({})",
                    summary.events,
                    summary.dead_letters,
                    args.events,
                    MIXES[mix].name
                );
                let runs = &mut runs[mix][at];
                runs.costs.push(cost);
                runs.peak_bytes = runs.peak_bytes.max(summary.peak_memory_bytes);
            }
        }
    }
    println!(
        "  {:<14} {:>8} {:>10} {:>18} {:>8} {:>8}",
        "mix", "workers", "M events/s", "of the ordinary", "CPU s", "peak MiB"
    );
    let [ordinary, ..] = &runs;
    for (mix, runs) in MIXES.iter().zip(&runs) {
        for (at, workers) in WORKERS.into_iter().enumerate() {
            let Runs { costs, peak_bytes } = &runs[at];
            let usual = &ordinary[at].costs;
            let ratios = usual.iter().zip(costs).map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64());
            println!(
                "  {:<14} {workers:>8} {:>10.3} {:>16.0} % {:>8.2} {:>8}",
                mix.name,
                rate(args.events, costs),
                median(ratios) * 100.0,
                median(costs.iter().map(|cost| cost.cpu.as_secs_f64())),
                peak_bytes >> 20
            );
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Writes a mix's calls and the configuration of their job.
fn write(input: &Path, mix: Mix, events: u64) -> anyhow::Result<()> {
    fs::write(input.join("keytide.toml"), CONFIG)?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(input.join("events.jsonl"))?);
    for n in 0..events {
        let time = START_MS + n * SPAN_MS / events.max(1);
        let key = if mix.random_keys {
            random.random::<u64>()
        } else if random.random_range(0..100) < mix.of_one {
            0
        } else if random.random() {
            random.random_range(0..BUSY_KEYS)
        } else {
            random.random_range(0..KEYS)
        };
        let route = if mix.random_routes { random.random::<u64>() } else { random.random_range(0..ROUTES) };
        // A prefix that keeps the route from being taken for a number.
        writeln!(
            out,
            r#"{{"time":{time},"key":"kt_{key:020}","path":"/v1/r{route:020}","method":"GET","status":200,"latency":{},"in":{},"out":{},"ip":"10.{}.{}.9"}}"#,
            random.random_range(500..200_000),
            random.random_range(100..2_000),
            random.random_range(200..20_000),
            random.random_range(0..8),
            random.random_range(0..256),
        )?;
    }
    out.flush()?;
    Ok(())
}

fn replay(input: &Path, out: &Path, workers: u8) -> anyhow::Result<Summary> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let mut replay = Command::new(KEYTIDE);
    replay
        .arg("replay")
        .arg(input.join("keytide.toml"))
        .arg("--out")
        .arg(out)
        .args(["--workers", &workers.to_string(), "--now", "2025-06-10T00:00:00Z"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = replay.status().with_context(|| format!("can't start {KEYTIDE}"))?;
    ensure!(status.success(), "`keytide replay` with {workers} workers failed: {status}");
    Ok(serde_json::from_reader(BufReader::new(File::open(out.join("summary.json"))?))?)
}
