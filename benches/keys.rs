//! What many keys cost: the shipped binary over the same number of calls of few and of many keys, and over days.
//!
//! The calls of the first part are made here, because `keytide generate` can't be told how many calls a key
//! makes: each key as many as any other, at random moments of one hour, from random addresses, on 100 routes.
//! At 1,000,000 keys a key calls twice, so nearly every call makes rows of its own: the worst case of memory.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use keytide_dataflow::model::time::HOUR_MS;

use crate::KEYTIDE;
use crate::fields::FIELDS;
use crate::measure::{Cost, children, core_rate, rate};
use crate::processes::{How, Summary, replay};

/// Keys of the throughput table.
const KEYS: [u64; 3] = [1_000, 100_000, 1_000_000];
const MEMORY_TARGET_MIB: u64 = 2_048;
/// 2025-06-02T08:00:00Z.
const START_MS: u64 = 1_748_851_200_000;
const ROUTES: u64 = 100;
const COUNTRIES: [&str; 15] =
    ["DE", "FR", "GB", "US", "NL", "PL", "ES", "IT", "SE", "KR", "JP", "BR", "IN", "CA", "AU"];

const CONFIG: &str = r#"[job]
name = "keys"

[keys]
from = ["key"]
hash = "sha256"

[[source]]
name = "gateway"
kind = "file"
path = "events.jsonl"
format = "json"
"#;

/// A small random number generator (SplitMix64; Steele, Lea, Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Writes the calls and the configuration to `folder`.
fn make(folder: &Path, events: u64, keys: u64, with_ids: bool) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("can't empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("keytide.toml"), format!("{CONFIG}{FIELDS}"))?;
    let mut random = SplitMix(keys);
    let mut of_call: Vec<u64> = (0..events).map(|call| call % keys).collect();
    for i in (1..of_call.len()).rev() {
        of_call.swap(i, random.below(i as u64 + 1) as usize);
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("events.jsonl"))?);
    let mut line = String::new();
    for (call, key) in (0_u64..).zip(of_call) {
        line.clear();
        let time = START_MS + call * HOUR_MS / events;
        if with_ids {
            write!(line, r#"{{"requestId":"{:016x}{call:016x}","#, random.next())?;
        } else {
            line.push('{');
        }
        let route = random.below(ROUTES);
        let status = [200, 200, 200, 200, 200, 200, 201, 204, 404, 500][random.below(10) as usize];
        let [a, b, c, d] = (random.next() as u32).to_be_bytes();
        writeln!(
            line,
            r#""requestTime":{time},"apiKey":"key-{key:08}","routeKey":"/v1/things/{route}","httpMethod":"GET","status":{status},"latencyMs":{},"requestLength":{},"responseLength":{},"ip":"{}.{b}.{c}.{d}","country":"{}"}}"#,
            1 + random.below(400),
            random.below(2_000),
            random.below(100_000),
            a.max(1),
            COUNTRIES[random.below(COUNTRIES.len() as u64) as usize],
        )?;
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// The table by number of keys, and the memory of a million.
pub(crate) fn run(events: u64, folder: &Path, rounds: u8) -> anyhow::Result<()> {
    let inputs: Vec<(u64, bool)> =
        KEYS.map(|keys| (keys, true)).into_iter().chain([(KEYS[2], false)]).collect();
    for (keys, with_ids) in &inputs {
        make(&input_folder(folder, *keys, *with_ids), events, *keys, *with_ids)?;
    }
    let mut runs: Vec<(Vec<Cost>, u64)> = inputs.iter().map(|_| (Vec::new(), 0)).collect();
    for _ in 0..rounds {
        for ((keys, with_ids), (costs, peak)) in inputs.iter().zip(&mut runs) {
            let out = folder.join("views");
            if out.exists() {
                fs::remove_dir_all(&out)?;
            }
            let input = input_folder(folder, *keys, *with_ids);
            let (summary, cost): (Summary, Cost) = children(|| replay(&input, &out, How::ONE_WORKER))?;
            ensure!(summary.events == events, "{} events of {events}", summary.events);
            costs.push(cost);
            *peak = (*peak).max(summary.peak_memory_bytes >> 20);
        }
    }
    println!("keytide replay, one worker, by number of keys");
    println!(
        "  {:<32} {:>10} {:>15} {:>8} {:>13}",
        "", "M events/s", "per core-second", "peak MiB", "bytes a call"
    );
    for ((keys, with_ids), (costs, peak)) in inputs.iter().zip(&runs) {
        let name = format!("{keys} keys{}", if *with_ids { "" } else { ", no request ids" });
        println!(
            "  {name:<32} {:>10.3} {:>15.3} {peak:>8} {:>13}",
            rate(events, costs),
            core_rate(events, costs),
            (peak << 20) / events
        );
    }
    println!("  {:<32} {:>35}  (target < {MEMORY_TARGET_MIB})\n", "peak MiB of 1000000 keys", runs[2].1);
    Ok(())
}

fn input_folder(folder: &Path, keys: u64, with_ids: bool) -> std::path::PathBuf {
    folder.join(format!("keys-{keys}-{with_ids}"))
}

/// Days of event time that are replayed.
const DAYS: u32 = 6;
/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of the series.
const PARTS: u64 = 12;

/// Replays days of event time; prints what the process held on the way.
pub(crate) fn days(events: u64, keys: u32, folder: &Path) -> anyhow::Result<()> {
    let (input, out) = (folder.join("days"), folder.join("views"));
    for path in [&input, &out] {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    keytide_generator::generate(&input, &format!("--days {DAYS} --events {events} --keys {keys}"))?;

    let started = Instant::now();
    let mut child = Command::new(KEYTIDE)
        .arg("replay")
        .arg(input.join("keytide.toml"))
        .arg("--out")
        .arg(&out)
        .args(["--workers", "1"])
        .stdout(Stdio::null())
        .spawn()?;
    let (_never, look) = mpsc::channel::<()>();
    let mut seen: Vec<(Duration, u64)> = Vec::new();
    while child.try_wait()?.is_none() {
        seen.extend(resident(child.id()).map(|bytes| (started.elapsed(), bytes)));
        let _ = look.recv_timeout(LOOK);
    }
    ensure!(child.wait()?.success(), "`keytide replay` failed");
    let end = started.elapsed();
    println!(
        "keytide replay, one worker, {DAYS} days of event time, {events} events, {keys} keys, {:.1} s",
        end.as_secs_f64()
    );
    println!("  {:<28} {:>12}", "part of the run", "resident MiB");
    for part in 1..=PARTS {
        let until = end * u32::try_from(part)? / u32::try_from(PARTS)?;
        let from = end * u32::try_from(part - 1)? / u32::try_from(PARTS)?;
        let most =
            seen.iter().filter(|(at, _)| *at > from && *at <= until).map(|(_, bytes)| bytes >> 20).max();
        println!(
            "  {:<28} {:>12}",
            format!("{part}/{PARTS}"),
            most.map_or("-".to_owned(), |mib| mib.to_string())
        );
    }
    println!();
    Ok(())
}

/// What a process holds resident.
fn resident(process: u32) -> Option<u64> {
    let mut status = String::new();
    File::open(format!("/proc/{process}/status")).ok()?.take(1 << 16).read_to_string(&mut status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
