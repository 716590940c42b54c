//! How many events a second: the parts one by one in this process, then the shipped binary as a whole.
//!
//! ```text
//! cargo bench --bench core                                  # everything, 2,000,000 events, 3 rounds
//! cargo bench --bench core -- --only operators --rounds 5   # one part
//! ```
//! The input is made as by `keytide generate` into the build folder at each start (a second for 2,000,000 events),
//! so it is never stale. What is compared is measured in turns, A B A B, in one run: other work on the machine
//! then falls on both. Figures are medians. Time on the CPU is the kernel's account of the thread or of the
//! process, so it says what the work costs even where wall time says how busy the machine was.
//!
//! Every part asserts that it did the work: the same unique events, and rows in every view. No figure is
//! asserted; targets are printed beside them. Linux only (CPU time is read from `/proc`).
//!
//! Memory: the decoded events three times over (128 bytes each), about 1 GiB for 2,000,000.

#![allow(clippy::print_stdout, reason = "a benchmark's output is what it is for")]

mod ceiling;
mod fields;
mod keys;
mod measure;
mod parts;
mod processes;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

/// As in the binary under test.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The binary under test: built with the profile of benchmarks, which has the settings of `dist`, that is shipped.
const KEYTIDE: &str = env!("CARGO_BIN_EXE_keytide");

/// Measures events per second.
#[derive(Parser)]
struct Args {
    /// Calls; records sent again (0.5 %) come on top
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Keys
    #[arg(long, default_value_t = 20_000)]
    keys: u32,
    /// Rounds of each comparison
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// One part instead of all
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Lines in memory to events
    Decode,
    /// The dataflow over decoded events, beside bare loops
    Operators,
    /// The shipped binary
    Processes,
    /// The shipped binary over a thousand to a million keys
    Keys,
    /// The shipped binary over days of event time: what it holds on the way
    Days,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wants = |part| args.only.is_none_or(|only| only == part);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-core");
    if wants(Part::Keys) {
        keys::run(args.events, &folder, args.rounds)?;
    }
    if wants(Part::Days) {
        keys::days(args.events, args.keys, &folder)?;
    }
    if args.only.is_some_and(|only| matches!(only, Part::Keys | Part::Days)) {
        return Ok(());
    }
    let input = generate(&args, &folder)?;
    if wants(Part::Decode) {
        parts::decode(&input, args.rounds)?;
    }
    if wants(Part::Operators) {
        parts::operators(&input, args.rounds)?;
    }
    if wants(Part::Processes) {
        processes::run(&input, &folder.join("views"), args.rounds)?;
    }
    Ok(())
}

/// The folder with the events, and the configuration in it.
fn generate(args: &Args, folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("can't empty {}", folder.display()))?;
    }
    let input = folder.join("input");
    // So few late and broken ones that they don't matter, but some: these views aren't empty either.
    let options = format!(
        "--events {} --keys {} --zipf 1.05 --routes 100 --countries 15 --span 1h --late 0.0002 --broken 0.0002",
        args.events, args.keys
    );
    keytide_generator::generate(&input, &options)?;
    let bytes = fs::metadata(input.join("events.jsonl"))?.len();
    println!(
        "{} events, {} keys, {} MiB of JSON lines, {} cores\n",
        args.events,
        args.keys,
        bytes >> 20,
        std::thread::available_parallelism()?
    );
    Ok(input)
}
