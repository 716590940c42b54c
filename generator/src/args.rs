//! The arguments of `keytide generate`, and the [`WorldSettings`] that follow from them.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args as _, Command, FromArgMatches as _};
use jiff::{SignedDuration, Timestamp};

use crate::world::population::COUNTRIES;
use crate::world::settings::{GatewayFormat, MAX_PARTITIONS, MAX_SPAN_MS, Scenario, WorldSettings};

const MAX_RATE: u32 = 10_000_000;

/// Writes a made-up access log with its tables and geo databases, ready for `keytide replay` or, in a topic,
/// for `keytide run`.
#[derive(clap::Args, Clone)]
pub struct GenerateArgs {
    /// Folder to write to; it is created, or must be empty. With --kafka it is optional, and gets tables, geo databases
    /// and labels but no events
    #[arg(long, value_name = "DIR", required_unless_present = "kafka")]
    pub out: Option<PathBuf>,
    /// Send the calls to these brokers (host:port, separated by commas) instead of writing them to files
    #[arg(long, value_name = "BROKERS", requires = "topic")]
    pub kafka: Option<String>,
    /// Topic to send to; all of its partitions are used
    #[arg(long, requires = "kafka")]
    pub(crate) topic: Option<String>,
    /// Lines to send per second, evenly spaced: a number, or max
    #[arg(long, value_name = "N", requires = "kafka", value_parser = rate)]
    pub(crate) rate: Option<SendRate>,
    /// Setting of the client library, such as security.protocol=ssl. Values can be env:NAME or file:PATH; passwords
    /// must be one of these. Can be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "kafka", value_parser = setting)]
    pub(crate) librdkafka: Vec<(String, String)>,
    /// Number of calls, without duplicate records and broken lines. Scenarios other than plain make it approximately, and
    /// add the calls of their episodes [default: 100000; with --start now: as many as --rate makes in the span]
    #[arg(long)]
    pub(crate) events: Option<NonZeroU64>,
    /// Number of API keys
    #[arg(long, default_value_t = WorldSettings::DEFAULT.keys, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,
    /// Exponent of Zipf's law, by which calls spread over keys; 0 spreads them evenly
    #[arg(long, default_value_t = WorldSettings::DEFAULT.zipf, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Number of API routes
    #[arg(long, default_value_t = WorldSettings::DEFAULT.routes, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) routes: u32,
    /// Number of countries that calls come from
    #[arg(long, default_value_t = WorldSettings::DEFAULT.countries, value_parser = clap::value_parser!(u32).range(1..=COUNTRIES.len() as i64))]
    pub(crate) countries: u32,
    /// Event time from the first call to the last [default: 1h]
    #[arg(long, value_parser = span)]
    pub(crate) span: Option<SignedDuration>,
    /// Event time from the first call to the last, in days
    #[arg(long, conflicts_with = "span", value_parser = clap::value_parser!(u16).range(1..=366))]
    pub(crate) days: Option<u16>,
    /// Kind of traffic; labels.jsonl lists the keys and times of all episodes in it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) scenario: Scenario,
    /// Number of leaks, dealt over all kinds that fit into the span; a stolen database of several keys is one of them
    /// [default: as the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) leaks: Option<u32>,
    /// Number of harmless episodes that look like leaks, dealt in the same way [default: as the scenario says]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) look_alikes: Option<u32>,
    /// Event time of the first call; or now, to send calls when they happen, --rate of them per second on average
    #[arg(long, value_name = "TIME", default_value = "2025-06-02T08:00:00Z", value_parser = start)]
    pub(crate) start: StartTime,
    /// Seed of all randomness: another seed gives another world
    #[arg(long, default_value_t = WorldSettings::DEFAULT.seed)]
    pub(crate) seed: u64,
    /// Share of networks that the geo databases place in another country. Scenario plain has none
    #[arg(long, default_value_t = WorldSettings::DEFAULT.misplaced, value_parser = share)]
    pub(crate) misplaced: f64,
    /// Log format of the gateway
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: GatewayFormat,
    /// Share of calls up to 4 s behind others of their partition
    #[arg(long, default_value_t = WorldSettings::DEFAULT.out_of_order, value_parser = share)]
    pub(crate) out_of_order: f64,
    /// Share of calls 11 to 41 min behind others of their partition: late under the default windows. Spans up to
    /// 11 min have none
    #[arg(long, default_value_t = WorldSettings::DEFAULT.late, value_parser = share)]
    pub(crate) late: f64,
    /// Share of calls whose record is sent twice
    #[arg(long, default_value_t = WorldSettings::DEFAULT.duplicates, value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of calls that are followed by a broken line
    #[arg(long, default_value_t = WorldSettings::DEFAULT.broken, value_parser = share)]
    pub(crate) broken: f64,
    /// Number of files, each of which is a partition
    #[arg(long, default_value_t = WorldSettings::DEFAULT.partitions, conflicts_with = "kafka",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARTITIONS)))]
    pub(crate) partitions: u32,
    /// Compress the files with gzip
    #[arg(long, conflicts_with = "kafka")]
    pub(crate) gzip: bool,
}

/// The rate at which lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendRate {
    Max,
    PerSecond(u32),
}

/// Event time of the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartTime {
    /// Calls happen when they are sent.
    Now,
    At(Timestamp),
}

impl GenerateArgs {
    /// Parses arguments, without the names of program and command.
    ///
    /// # Errors
    /// If an option isn't known, or a value isn't allowed.
    pub fn typed(
        options: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("generate").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(options)?)
    }

    /// Returns the settings that the arguments mean at `now_ms`. `partitions` are those of a topic; files have none.
    ///
    /// # Errors
    /// If calls happen now, but the arguments don't say how many or for how long.
    pub(crate) fn settings(&self, now_ms: u64, partitions: Option<u32>) -> anyhow::Result<WorldSettings> {
        let days = self.days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        let span_ms = days.or(self.span).and_then(|span| u64::try_from(span.as_millis()).ok());
        let (start_ms, span_ms, events) = match self.start {
            StartTime::At(start) => (
                u64::try_from(start.as_millisecond()).unwrap_or(0),
                span_ms.unwrap_or(WorldSettings::DEFAULT.span_ms),
                self.events.unwrap_or(WorldSettings::DEFAULT.events),
            ),
            StartTime::Now => {
                let Some(SendRate::PerSecond(rate)) = self.rate else {
                    bail!("--start now needs --kafka and --rate N: calls then happen when they are sent");
                };
                let (span_ms, events) = live(rate, span_ms, self.events)?;
                (now_ms, span_ms, events)
            }
        };
        Ok(WorldSettings {
            events,
            keys: self.keys,
            callers: None,
            zipf: self.zipf,
            routes: self.routes,
            countries: self.countries,
            start_ms,
            span_ms,
            scenario: self.scenario,
            leaks: self.leaks,
            look_alikes: self.look_alikes,
            leak: None,
            quota_calls: None,
            seed: self.seed,
            settled: false,
            misplaced: self.misplaced,
            format: self.format,
            out_of_order: self.out_of_order,
            late: self.late,
            duplicates: self.duplicates,
            broken: self.broken,
            partitions: partitions.unwrap_or(self.partitions).clamp(1, MAX_PARTITIONS),
        })
    }
}

/// Returns the span in milliseconds and the number of calls of a run that makes `rate` calls a second.
fn live(rate: u32, span_ms: Option<u64>, events: Option<NonZeroU64>) -> anyhow::Result<(u64, NonZeroU64)> {
    let rate = u64::from(rate);
    match (span_ms, events) {
        (Some(_), Some(_)) => bail!(
            "with --start now, --rate and --events say how long it takes: leave out --span and --days, or --events"
        ),
        (None, Some(events)) => {
            let span_ms = (u128::from(events.get()) * 1_000).div_ceil(u128::from(rate));
            let span_ms = u64::try_from(span_ms).unwrap_or(u64::MAX);
            ensure!(span_ms <= MAX_SPAN_MS, "--events would take more than 366 days at this --rate");
            Ok((span_ms, events))
        }
        (span_ms, None) => {
            let span_ms = span_ms.unwrap_or(WorldSettings::DEFAULT.span_ms);
            Ok((span_ms, NonZeroU64::new(span_ms * rate / 1_000).unwrap_or(NonZeroU64::MIN)))
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent| (0.0..=10.0).contains(exponent));
    exponent.ok_or_else(|| "must be a number from 0 to 10".to_owned())
}

fn start(text: &str) -> Result<StartTime, String> {
    if text == "now" {
        return Ok(StartTime::Now);
    }
    let start = text.parse().ok().filter(|start: &Timestamp| start.as_second() >= 0).map(StartTime::At);
    start.ok_or_else(|| "must be a time since 1970 such as 2025-06-02T08:00:00Z, or now".to_owned())
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let span = text
        .parse()
        .ok()
        .filter(|span: &SignedDuration| (1..=i128::from(MAX_SPAN_MS)).contains(&span.as_millis()));
    span.ok_or_else(|| "must be a duration such as 90s, 15m or 2h, from 1ms to 8784h".to_owned())
}

fn rate(text: &str) -> Result<SendRate, String> {
    if text == "max" {
        return Ok(SendRate::Max);
    }
    let rate = text.parse().ok().filter(|rate| (1..=MAX_RATE).contains(rate)).map(SendRate::PerSecond);
    rate.ok_or_else(|| format!("must be a number from 1 to {MAX_RATE}, or max"))
}

/// The message never quotes a value: it could be a password.
fn setting(text: &str) -> Result<(String, String), String> {
    let setting = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let setting = setting.map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    setting.ok_or_else(|| "must be NAME=VALUE".to_owned())
}
