//! `keytide backtest` runs the detector over history, so that thresholds can be chosen and a change of configuration
//! judged before it goes live. It writes to its output and nowhere else: no sink, no mail, no webhook.
//!
//! ```text
//! CONFIG  history   the job's own dataflow over its recorded sources    -> incidents, scores, a report
//!         judge     alerts against labels                               -> recall, precision, delays
//!         sweep     several configurations one after the other          -> a table
//! --csv   series    a model of counts over a history of them            -> the history with scores
//! ```

mod drawn;
mod history;
mod judge;
mod observe;
mod pictures;
mod report;
mod series;
mod sweep;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::overview::ShowArgs;

/// Arguments of `keytide backtest`.
#[derive(clap::Args)]
pub(crate) struct BacktestArgs {
    /// The job's configuration (TOML): its detector reads what the sources hold
    #[arg(required_unless_present = "csv", conflicts_with_all = ["csv", "time_column", "value_column"])]
    config: Option<PathBuf>,
    /// Instead of a job: a history of counts, CSV with a header, one row a window. Each is scored by how unusual a
    /// person would find it; a look is worth it from 0.215 on (7 bits). Keys are judged by other signals
    #[arg(long, value_name = "FILE", conflicts_with_all = ["labels", "sweep", "workers", "decode_threads", "now", "json"])]
    csv: Option<PathBuf>,
    /// Folder for incidents, scores and report; with --csv the file for the history with its scores. What is there of
    /// an earlier run is replaced
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The true leaks, in the format of keytide generate's labels.jsonl: the report then has recall, precision and
    /// delays
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Numbers to try for a key of `[detection]`, such as detection.alert=3,4,5; several make a grid. Writes one table
    /// instead of incidents
    #[arg(long, value_name = "KEY=N,N", value_parser = sweep::parse, conflicts_with = "json")]
    sweep: Vec<sweep::Axis>,
    /// Timely workers [default: the configuration's]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Threads that only read and decode, beside the workers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256))]
    decode_threads: u16,
    /// The run's time (RFC 3339): events more than 5 minutes later are dead letters [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<jiff::Timestamp>,
    /// With --csv, the column of times, RFC 3339, or without a zone (UTC), or seconds or milliseconds since the epoch
    #[arg(long, value_name = "NAME", default_value = "timestamp")]
    time_column: String,
    /// With --csv, the column of counts
    #[arg(long, value_name = "NAME", default_value = "value")]
    value_column: String,
    #[command(flatten)]
    show: ShowArgs,
}

/// Runs the command over a configuration, a grid of them, or a history of counts.
pub(crate) fn run(args: &BacktestArgs) -> anyhow::Result<ExitCode> {
    match (&args.csv, &args.config) {
        (Some(csv), _) => series::run(&series::SeriesArgs {
            csv: csv.clone(),
            out: args.out.clone(),
            time_column: args.time_column.clone(),
            value_column: args.value_column.clone(),
        }),
        (None, Some(config)) if args.sweep.is_empty() => history::run(args, config),
        (None, Some(config)) => sweep::run(args, config),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}
