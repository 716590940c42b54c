//! `keytide generate`: a made-up gateway's access log, with the tables and geo databases that belong to it.
//!
//! ```text
//! population  who calls: customers, keys and their habits, routes, networks   -> tables/*.csv, geo/*.mmdb
//!  habit      a lively world's: settings, rhythms, timetables
//! stage       leaks and look-alikes, by the catalogue of scenario             -> labels.jsonl
//! traffic     which call comes next: tide (rhythm), weather, episodes         \
//! record      one call of one key                                              > events*.jsonl, events*.log,
//! schedule    in which order and partition, and what goes wrong on the way    /  or a topic
//! format      the record as one line of a gateway's log                      /
//!
//! settings    what was typed, made definite        world   all of the above: tables, and lines one by one
//! files, send the targets                          folder  what belongs to the events
//! ```
//!
//! A plain world has calls at an even rate and nothing else: it serves measurements. The others are lively:
//! [`Scenario`] says what happens in them, and `labels.jsonl` who did it and when.
//!
//! The same arguments give the same bytes on every machine: each stage has its own stream of one seeded
//! generator, weights are integers, time zones are part of the program, and powers, logarithms and exponentials
//! come from a portable library, not from the system's. `generated.json` says what is in the files, so that what
//! a job makes of them can be compared. A topic gets the same lines, partition by partition, as so many files do;
//! with `--start now` event times are the clock's, and nothing else.
//!
//! Addresses are of the benchmark and documentation ranges 198.18.0.0/15 and 2001:db8::/32, AS numbers private,
//! keys and customers invented.
//!
//! Limits: 1,000,000 keys, 10,000 routes, 40 countries, 1,024 partitions, a span of 366 days, 1,000 leaks and as
//! many look-alikes, 10,000,000 lines a second. Memory depends on keys, not on calls or the span, but for late calls:
//! those of an hour are held, 100 bytes each.

mod draw;
mod files;
pub(crate) mod folder;
mod format;
mod habit;
mod population;
mod progress;
mod record;
mod rhythm;
mod scenario;
mod schedule;
mod send;
mod settings;
mod stage;
mod traffic;
mod weather;
mod world;

use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};

use self::population::COUNTRIES;
use self::progress::{Progress, per_second};
pub(crate) use self::scenario::Scenario;
use self::send::Target;
use self::settings::MAX_SPAN_MS;
pub(crate) use self::settings::{Leak, Settings};
pub(crate) use self::world::{Generated, Generator, World};

const MAX_PARTITIONS: u32 = 1_024;
const MAX_RATE: u32 = 10_000_000;

/// Writes a made-up access log with its tables and geo databases, ready for `keytide replay` or, in a topic,
/// for `keytide run`.
#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// Folder to write to; made if it doesn't exist, else it must be empty. With --kafka it may be left out, and
    /// gets no events but all that belongs to them
    #[arg(long, value_name = "DIR", required_unless_present = "kafka")]
    pub(crate) out: Option<PathBuf>,
    /// Send the calls to these brokers (host:port, separated by commas) instead of writing them to files
    #[arg(long, value_name = "BROKERS", requires = "topic")]
    pub(crate) kafka: Option<String>,
    /// The topic to send to; all of its partitions are used
    #[arg(long, requires = "kafka")]
    pub(crate) topic: Option<String>,
    /// Lines to send a second, evenly: a number, or max
    #[arg(long, value_name = "N", requires = "kafka", value_parser = rate)]
    pub(crate) rate: Option<Rate>,
    /// A setting of the client library, such as security.protocol=ssl; values can be env:NAME or file:PATH,
    /// passwords must be. May be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "kafka", value_parser = setting)]
    pub(crate) librdkafka: Vec<(String, String)>,
    /// Calls; records sent again and broken lines come on top. Other scenarios than plain have about so many, and
    /// what they stage on top [default: 100000; with --start now: as many as --rate makes in the span]
    #[arg(long)]
    pub(crate) events: Option<NonZeroU64>,
    /// Keys
    #[arg(long, default_value_t = Settings::DEFAULT.keys, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,
    /// How unevenly calls spread over keys: the exponent of Zipf's law, 0 is evenly
    #[arg(long, default_value_t = Settings::DEFAULT.zipf, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Routes
    #[arg(long, default_value_t = Settings::DEFAULT.routes, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) routes: u32,
    /// Countries
    #[arg(long, default_value_t = Settings::DEFAULT.countries, value_parser = clap::value_parser!(u32).range(1..=COUNTRIES.len() as i64))]
    pub(crate) countries: u32,
    /// Event time from the first call to the last [default: 1h]
    #[arg(long, value_parser = span)]
    pub(crate) span: Option<SignedDuration>,
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
    /// Event time of the first call; or now: calls are sent when they happen, --rate of them a second in the mean
    #[arg(long, value_name = "TIME", default_value = "2025-06-02T08:00:00Z", value_parser = start)]
    pub(crate) start: Start,
    /// Another seed, another world
    #[arg(long, default_value_t = Settings::DEFAULT.seed)]
    pub(crate) seed: u64,
    /// The gateway's log format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Share of calls up to 4 s behind others of their partition
    #[arg(long, default_value_t = Settings::DEFAULT.out_of_order, value_parser = share)]
    pub(crate) out_of_order: f64,
    /// Share of calls 11 to 41 min behind others of their partition: late under the default windows. Spans up to
    /// 11 min have none
    #[arg(long, default_value_t = Settings::DEFAULT.late, value_parser = share)]
    pub(crate) late: f64,
    /// Share of calls whose record is sent twice
    #[arg(long, default_value_t = Settings::DEFAULT.duplicates, value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of calls that are followed by a broken line
    #[arg(long, default_value_t = Settings::DEFAULT.broken, value_parser = share)]
    pub(crate) broken: f64,
    /// Files, each a partition
    #[arg(long, default_value_t = Settings::DEFAULT.partitions, conflicts_with = "kafka",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    pub(crate) partitions: u32,
    /// Compress the files
    #[arg(long, conflicts_with = "kafka")]
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

/// How fast lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    Max,
    PerSecond(u32),
}

/// Event time of the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// That of the clock: calls happen when they are sent.
    Now,
    At(Timestamp),
}

/// Runs the command.
///
/// # Errors
/// If the folder isn't empty or can't be written to, if the topic can't, or if the world is too small for its
/// scenario.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let text = match Target::open(args)? {
        Some(target) => {
            target.stop_on_signals()?;
            let (generated, seconds) = target.run(args, crate::clock::now())?;
            told(
                &generated,
                seconds,
                &target.place(),
                args.out.as_ref().map(|out| format!("keytide run {}/keytide.toml", out.display())),
            )
        }
        None => {
            let (generated, seconds) = generate(args)?;
            let out = args.out.as_deref().unwrap_or(std::path::Path::new("")).display();
            let next = format!("keytide replay {out}/keytide.toml --out {out}/views");
            told(&generated, seconds, &format!("under {out}"), Some(next))
        }
    };
    writeln!(io::stdout().lock(), "{text}").context("can't write to standard output")
}

/// What was made, and what to do with it.
fn told(generated: &Generated, seconds: f64, place: &str, next: Option<String>) -> String {
    let Generated { events, lines, bytes, .. } = generated;
    let mut text = format!(
        "{events} events in {lines} lines ({} MiB) {place} in {seconds:.1} s: {} events/s",
        bytes >> 20,
        per_second(*events, seconds),
    );
    if let Some(next) = next {
        text.extend(["\nnext: ", &next]);
    }
    text
}

/// Writes files; says what is in them, and how many seconds it took.
fn generate(args: &Args) -> anyhow::Result<(Generated, f64)> {
    let out = args.out.as_deref().context("--out DIR says where files go")?;
    let world = World::new(Settings::new(args, crate::clock::now(), None)?)?;
    let progress = Progress::new(&world.settings);
    let generated = files::write(&world, out, args.gzip, &progress)?;
    progress.clear();
    Ok((generated, progress.seconds()))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent| (0.0..=10.0).contains(exponent));
    exponent.ok_or_else(|| "must be a number from 0 to 10".to_owned())
}

fn start(text: &str) -> Result<Start, String> {
    if text == "now" {
        return Ok(Start::Now);
    }
    let start = text.parse().ok().filter(|start: &Timestamp| start.as_second() >= 0).map(Start::At);
    start.ok_or_else(|| "must be a time since 1970 such as 2025-06-02T08:00:00Z, or now".to_owned())
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let span = text
        .parse()
        .ok()
        .filter(|span: &SignedDuration| (1..=i128::from(MAX_SPAN_MS)).contains(&span.as_millis()));
    span.ok_or_else(|| "must be a duration such as 90s, 15m or 2h, from 1ms to 8784h".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let rate = text.parse().ok().filter(|rate| (1..=MAX_RATE).contains(rate)).map(Rate::PerSecond);
    rate.ok_or_else(|| format!("must be a number from 1 to {MAX_RATE}, or max"))
}

/// The message never quotes a value: it could be a password.
fn setting(text: &str) -> Result<(String, String), String> {
    let setting = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let setting = setting.map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    setting.ok_or_else(|| "must be NAME=VALUE".to_owned())
}

#[cfg(test)]
mod tests;
