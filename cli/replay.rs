//! `keytide replay CONFIG --out DIR` runs a job over all that its sources hold, as fast as possible.
//!
//! The same input and `--now` give the same bytes, whatever the number of workers and threads (see
//! [`keytide_worker::replay`]). It writes to DIR and nowhere else.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use keytide_alerts::actions::ActionEngine;
use keytide_config::{FileFormat, JobConfig, View, environment};
use keytide_connectors::ingest::InputPartition;
use keytide_connectors::sink::{JobInfo, TickFacts};
use keytide_dataflow::model::Tick;
use keytide_worker::exit::{Exit, failure};
use keytide_worker::memory;
use keytide_worker::records::RecordCounts;
use keytide_worker::replay::{BoundedRun, Keep, RowCounts, ViewFolder, per_second, usage, write};
use serde::Serialize;

use crate::exit;
use crate::overview::{self, ListedIncidents, Overview, ShowArgs};
use crate::progress::process;
use crate::text::json;

/// Arguments of `keytide replay`.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    /// The job's configuration (TOML)
    config: PathBuf,
    /// Folder for the views and summary.json; files of an earlier run in it are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the views; keytide incident and keytide top read jsonl alone
    #[arg(long, value_name = "FORMAT", default_value = FileFormat::JsonLines.name(), value_parser = formats())]
    format: FileFormat,
    /// Timely workers [default: the configuration's]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Threads that only read and decode, beside the workers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256))]
    decode_threads: u16,
    /// The run's time (RFC 3339): events more than 5 minutes later are dead letters [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<jiff::Timestamp>,
    #[command(flatten)]
    show: ShowArgs,
}

/// Returns the parser of `--format`, with the names that `[sink.files]` has.
fn formats() -> impl clap::builder::TypedValueParser<Value = FileFormat> {
    PossibleValuesParser::new(FileFormat::ALL.map(FileFormat::name))
        .map(|name| FileFormat::named(&name).unwrap_or(FileFormat::JsonLines))
}

/// The content of `summary.json`, which is printed at the end unless standard output is a terminal.
#[derive(Serialize)]
struct Summary {
    job: String,
    /// The configuration, with which `keytide incident` finds the sources.
    config_path: String,
    now: String,
    workers: usize,
    decode_threads: usize,
    /// Accepted, unique events.
    events: u64,
    dead_letters: u64,
    table_dead_letters: u64,
    late: u64,
    /// Events that count, but came too late for the detector.
    detector_late: u64,
    duplicates: u64,
    incidents: u64,
    revocations: u64,
    /// Events beyond the caps, which count under `overflow` (countries: `XX`).
    overflow_keys: u64,
    overflow_routes: u64,
    overflow_countries: u64,
    bytes: u64,
    rows: RowCounts,
    events_per_s: u64,
    peak_memory_bytes: Option<u64>,
    wall_s: f64,
    overview: Overview,
}

/// Runs the command, and prints a summary.
pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let now = time_of_run(args.now)?;
    let job = load(&args.config, args.workers)?;
    let workers = job.job.workers;
    let name = job.job.name.clone();
    let config = job.fingerprint();
    // The policy decides as in a live job, but its actions are only written.
    let mut actions = ActionEngine::new(job.alerts.policy, None);
    let bounded = BoundedRun::open(job.clone(), process(args.show.quiet))?;
    let out = Folder::new(&args.out, bounded.inputs(), SUMMARY)?;
    let decode_count = usize::from(args.decode_threads);
    let (collected, ingest) = bounded.run(now, decode_count, out.path(), Keep::Views)?;

    let counts = ingest.counts();
    let threads = workers.get() + decode_count;
    let info = JobInfo { config: &config, partitions: ingest.partitions() };
    let mut listed = ListedIncidents::default();
    let mut decide = |TickFacts { transitions, inputs, names, .. }: TickFacts<'_>| {
        listed.note(transitions);
        actions.fold(0, inputs, transitions, &|key| names.key_text(key).into_owned()).0
    };
    let views = ViewFolder { path: out.path(), format: args.format };
    let written = write(collected, info, views, threads, &mut decide)?;
    let records = RecordCounts::of(&counts, ingest.partitions());
    let overview = Overview::new(&overview::Run {
        job: &job,
        figures: &written.figures,
        names: &written.names,
        counts: written.counts,
        records: &records,
        lags: counts.lags,
        incidents: &written.incidents,
        listed: &listed,
        info,
    });
    let wall_s = started.elapsed().as_secs_f64();
    let summary = Summary {
        job: name,
        config_path: absolute(&args.config),
        now: keytide_connectors::sink::encode::time(now),
        workers: workers.get(),
        decode_threads: decode_count,
        events: written.counts.events,
        dead_letters: counts.dead_letters,
        table_dead_letters: written.rows[View::DeadLetters] - counts.dead_letters - counts.noted,
        late: written.counts.late,
        detector_late: written.counts.detector_late,
        duplicates: written.counts.duplicates,
        incidents: written.rows[View::Incidents],
        revocations: written.rows[View::Revocations],
        overflow_keys: written.counts.overflow_keys,
        overflow_routes: written.counts.overflow_routes,
        overflow_countries: written.counts.overflow_countries,
        bytes: counts.bytes,
        rows: written.rows,
        events_per_s: per_second(written.counts.events, wall_s),
        peak_memory_bytes: memory::peak_bytes(),
        wall_s: (wall_s * 1_000.0).round() / 1_000.0,
        overview,
    };
    let text = json(&summary)?;
    out.write(SUMMARY, text.as_bytes())?;
    let files = files(args, &summary);
    let shown = args
        .show
        .print(|look| overview::render(&summary.overview, "keytide replay", &[], &files, look), &text)?;
    let rows = format!("dead_letters.{} has a row of each, ", args.format.name());
    Ok(exit::judge(&records, &rows, shown).into())
}

/// Says where the whole result is.
fn files(args: &ReplayArgs, summary: &Summary) -> Vec<String> {
    let (shown, format) = (args.out.display(), args.format.name());
    let mut files = vec![format!(
        "{shown} has a file of each view with rows, and their tables in SQL; its summary.json has this page for \
         programs."
    )];
    if summary.dead_letters > 0 {
        files.push(format!("{shown}/dead_letters.{format} has a row of each refused record."));
    }
    if args.format == FileFormat::JsonLines {
        files.extend(summary.overview.evidence(&args.out));
    }
    files
}

/// Returns an absolute path as text.
pub(crate) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Returns the time of `--now`, or that of the clock without it.
pub(crate) fn time_of_run(given: Option<jiff::Timestamp>) -> anyhow::Result<Tick> {
    match given {
        Some(now) => u64::try_from(now.as_millisecond())
            .map_err(|_| failure(Exit::Usage, anyhow::anyhow!("--now lies before 1970"))),
        None => Ok(crate::clock::now()),
    }
}

pub(crate) fn load(config: &Path, workers: Option<NonZeroUsize>) -> anyhow::Result<JobConfig> {
    let workers = workers.map(|workers| ("KEYTIDE_JOB__WORKERS".to_owned(), workers.to_string()));
    let loaded = JobConfig::load(config, environment().chain(workers)).map_err(usage)?;
    loaded.warnings.iter().for_each(|warning| exit::warn(warning));
    Ok(loaded.job)
}

/// Written last, so that it always belongs to a run that ended.
const SUMMARY: &str = "summary.json";

/// The output folder.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder. It may hold files of an earlier run, but no input, which the output could replace. The file
    /// `last` of an earlier run is removed, as it always belongs to a run that ended.
    pub(crate) fn new(path: &Path, inputs: &[InputPartition], last: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("can't make the output folder {}", path.display()))
            .map_err(usage)?;
        let resolved = fs::canonicalize(path)?;
        for input in inputs.iter().filter_map(|input| input.info.path.as_deref()) {
            if fs::canonicalize(input)?.parent() == Some(&resolved) {
                let out = path.display();
                return Err(usage(anyhow::anyhow!(
                    "{input} is read, so {out} can't be written to: name another folder"
                )));
            }
        }
        let folder = Self(path.to_owned());
        folder.remove(last)?;
        Ok(folder)
    }

    /// Removes a file of an earlier run.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let error = anyhow::Error::new(error);
                Err(usage(error.context(format!("can't remove {} of an earlier run", path.display()))))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(name);
        fs::write(&path, content).with_context(|| format!("writing {} failed", path.display()))
    }
}
