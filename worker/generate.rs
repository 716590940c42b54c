//! `keytide generate`: a made-up gateway's access log, with the tables and geo databases that belong to it.
//!
//! ```text
//! population  who calls: customers, keys and their habits, routes, networks   -> tables/*.csv, geo/*.mmdb
//!  habit      a lively world's: settings, rhythms, timetables
//! stage       leaks and look-alikes, by the catalogue of scenario             -> labels.jsonl
//! traffic     which call comes next: tide (rhythm), weather, episodes         \
//! record      one call of one key                                              > events*.jsonl, events*.log
//! schedule    into which file, and what goes wrong on the way                 /
//! format      the record as one line of a gateway's log                      /
//! ```
//!
//! A plain world has calls at an even rate and nothing else: it serves measurements. The others are lively:
//! [`Scenario`] says what happens in them, and `labels.jsonl` who did it and when.
//!
//! The same arguments give the same bytes on every machine: each stage has its own stream of one seeded
//! generator, weights are integers, time zones are part of the program, and powers, logarithms and exponentials
//! come from a portable library, not from the system's. `generated.json` says what is in the files, so that what
//! a job makes of them can be compared.
//!
//! Addresses are of the benchmark and documentation ranges 198.18.0.0/15 and 2001:db8::/32, AS numbers private,
//! keys and customers invented.
//!
//! Limits: 1,000,000 keys, 10,000 routes, 40 countries, 1,024 files, a span of 366 days, 1,000 leaks and as many
//! look-alikes. Memory depends on keys, not on calls or the span.

mod draw;
mod files;
mod format;
mod habit;
mod population;
mod record;
mod rhythm;
mod scenario;
mod schedule;
mod stage;
mod traffic;
mod weather;

use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use draw::Draw;
use files::Files;
use format::Formatter;
use population::{COUNTRIES, Population};
use record::Record;
pub(crate) use scenario::Scenario;
use schedule::Schedule;
use stage::Stage;
use traffic::Traffic;

const MAX_SPAN_MS: i64 = 366 * 86_400_000;
/// A record is sent again within so many records, as gateways do after an unclear answer.
const RESENT_WITHIN: usize = 16;

/// Writes a made-up access log with its tables and geo databases, ready for `keytide replay`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Folder to write to; made if it doesn't exist, else it must be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Calls; records sent again and broken lines come on top. Other scenarios than plain have about so many, and
    /// what they stage on top
    #[arg(long, default_value = "100000")]
    pub(crate) events: NonZeroU64,
    /// Keys
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,
    /// How unevenly calls spread over keys: the exponent of Zipf's law, 0 is evenly
    #[arg(long, default_value_t = 1.05, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Routes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) routes: u32,
    /// Countries
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=COUNTRIES.len() as i64))]
    pub(crate) countries: u32,
    /// Event time from the first call to the last
    #[arg(long, default_value = "1h", value_parser = span)]
    pub(crate) span: SignedDuration,
    /// Event time from the first call to the last, in days
    #[arg(long, conflicts_with = "span", value_parser = clap::value_parser!(u16).range(1..=366))]
    pub(crate) days: Option<u16>,
    /// What happens; labels.jsonl then says to which keys and when
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scenario: Scenario,
    /// Leaks, dealt over all kinds that fit into the span [default: as the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) leaks: Option<u32>,
    /// Harmless episodes that look like leaks, likewise
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) look_alikes: Option<u32>,
    /// Event time of the first call
    #[arg(long, value_name = "TIME", default_value = "2025-06-02T08:00:00Z", value_parser = start)]
    pub(crate) start: Timestamp,
    /// Another seed, another world
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The gateway's log format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Share of calls up to 4 s behind others of their file
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub(crate) out_of_order: f64,
    /// Share of calls 11 to 41 min behind others of their file: late under the default windows
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) late: f64,
    /// Share of calls whose record is sent twice
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of calls that are followed by a broken line
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) broken: f64,
    /// Files, each a partition
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) partitions: u32,
    /// Compress the files
    #[arg(long)]
    pub(crate) gzip: bool,
}

/// A gateway's log format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line, its fields named as in the examples
    #[default]
    Json,
    /// Apache APISIX
    Apisix,
    /// Kong
    Kong,
    /// The text line of NGINX and Apache httpd
    Combined,
}

/// What the files hold; `generated.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Generated {
    /// Calls.
    pub(crate) events: u64,
    /// Lines: calls, records sent again, broken ones.
    pub(crate) lines: u64,
    /// Calls without a key.
    pub(crate) anonymous: u64,
    /// Calls a little behind others of their file.
    pub(crate) out_of_order: u64,
    /// Calls far behind others of their file.
    pub(crate) late: u64,
    /// Records sent again.
    pub(crate) duplicates: u64,
    /// Lines that are no record.
    pub(crate) broken: u64,
    /// Bytes of all lines, before compression.
    pub(crate) bytes: u64,
    /// Calls that belong to leaks; a plain world has none to speak of, nor of the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leak_calls: Option<u64>,
    /// Calls that belong to look-alikes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) look_alike_calls: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// If the folder isn't empty or can't be written to, or if the world is too small for its scenario.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let generated = generate(args)?;
    let out = args.out.display();
    writeln!(
        io::stdout().lock(),
        "{} events in {} lines ({} MiB) under {out}\nnext: keytide replay {out}/keytide.toml --out {out}/views",
        generated.events,
        generated.lines,
        generated.bytes >> 20,
    )
    .context("can't write to standard output")
}

fn generate(args: &Args) -> anyhow::Result<Generated> {
    let mut population = Population::new(args, Draw::new(args.seed, 0));
    if args.scenario == Scenario::Plain {
        stage::none(args)?;
        let mut files = Files::create(args, &population)?;
        let generated = write(args, &population, &mut files, |index, schedule, draw| {
            (index < args.events.get()).then(|| Record::draw(&population, schedule.even(index), draw))
        })?;
        files.finish(&generated, None)?;
        return Ok(generated);
    }
    let mut habits = habit::habits(args, &population, &mut Draw::new(args.seed, 3));
    let stage = Stage::new(args, &mut population, &mut habits, &mut Draw::new(args.seed, 4))?;
    let mut draw = Draw::new(args.seed, 5);
    let mut traffic = Traffic::new(args, &population, &habits, &stage, &mut draw);
    let mut files = Files::create(args, &population)?;
    let mut generated = write(args, &population, &mut files, |_, _, _| traffic.next(&mut draw))?;
    let calls = |leak| {
        let calls = stage.episodes.iter().zip(&traffic.calls);
        Some(calls.filter(|(episode, _)| episode.kind.leak == leak).map(|(_, calls)| calls).sum())
    };
    (generated.leak_calls, generated.look_alike_calls) = (calls(true), calls(false));
    files.finish(&generated, Some(&stage.labels(&population, &traffic.calls)?))?;
    Ok(generated)
}

/// Writes the calls that `next` gives, in the order of time, and what goes wrong with them.
fn write(
    args: &Args,
    population: &Population,
    files: &mut Files<'_>,
    mut next: impl FnMut(u64, &mut Schedule, &mut Draw) -> Option<Record>,
) -> anyhow::Result<Generated> {
    let mut schedule = Schedule::new(args, Draw::new(args.seed, 1));
    let mut draw = Draw::new(args.seed, 2);
    let mut formatter = Formatter::new(args.format, population);
    let mut generated = Generated::default();
    let mut sent: Vec<(usize, Record)> = Vec::with_capacity(RESENT_WITHIN);
    while let Some(record) = next(generated.events, &mut schedule, &mut draw) {
        let slot = schedule.slot(record.time);
        let record = Record { time: slot.time, ..record };
        generated.anonymous += u64::from(record.key.is_none());
        generated.out_of_order += u64::from(slot.out_of_order);
        generated.late += u64::from(slot.late);
        files.write(slot.partition, formatter.line(&record))?;

        let place = (generated.events % RESENT_WITHIN as u64) as usize;
        if place < sent.len() {
            sent[place] = (slot.partition, record);
        } else {
            sent.push((slot.partition, record));
        }
        generated.events += 1;
        if schedule.again.hit() {
            let (partition, record) = &sent[draw.below(sent.len() as u32) as usize];
            files.write(*partition, formatter.line(record))?;
            generated.duplicates += 1;
        }
        if schedule.broken.hit() {
            files.write(slot.partition, formatter.broken_line(&record))?;
            generated.broken += 1;
        }
    }
    (generated.lines, generated.bytes) = (files.lines, files.bytes);
    Ok(generated)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent| (0.0..=10.0).contains(exponent));
    exponent.ok_or_else(|| "must be a number from 0 to 10".to_owned())
}

fn start(text: &str) -> Result<Timestamp, String> {
    let start = text.parse().ok().filter(|start: &Timestamp| start.as_second() >= 0);
    start.ok_or_else(|| "must be a time since 1970 such as 2025-06-02T08:00:00Z".to_owned())
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let span = text
        .parse()
        .ok()
        .filter(|span: &SignedDuration| (1..=i128::from(MAX_SPAN_MS)).contains(&span.as_millis()));
    span.ok_or_else(|| "must be a duration such as 90s, 15m or 2h, from 1ms to 8784h".to_owned())
}

#[cfg(test)]
mod tests;
