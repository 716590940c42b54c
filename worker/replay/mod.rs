//! `keytide replay CONFIG --out DIR`: a bounded run over files, as fast as it goes.
//!
//! The same input and `--now` give the same bytes, whatever the number of workers and threads, because every
//! decision is made at a record (see `connectors::ingest`) or at a tick (see `dataflow`), and rows are
//! written in the order of their keys. Nothing is written but to DIR.

mod collect;
mod output;
mod runs;
mod sorter;

use std::cell::RefCell;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use keytide_config::{JobConfig, environment};
use keytide_connectors::decode;
use keytide_connectors::geo::Geo;
use keytide_connectors::ingest::{DecodeThreads, Ingest, IngestError, Input, Message, Options, inputs};
use keytide_connectors::kafka::Class;
use keytide_connectors::tables::{self, TablesRead};
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Output as _, Publish, render};
use serde::Serialize;
use timely::worker::Worker;

use self::collect::Collect;
use crate::exit::{self, Exit, failure};
use crate::memory;

/// Ticks that may be closed and not done: one is read while others are worked on. Sparse input has a few
/// records a tick, and each round of a worker costs the same for one tick as for many, so ...
const TICKS_IN_FLIGHT: u64 = 32;
/// ... a worker that was given so many events since all was done waits, however few their ticks are.
const EVENTS_IN_FLIGHT: usize = 200_000;
/// A worker takes a round after so many ticks ...
const TICKS_A_ROUND: u64 = 16;
/// ... or so many events.
const EVENTS_A_ROUND: usize = 8_192;

/// Arguments of `keytide replay`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job's configuration (TOML)
    config: PathBuf,
    /// Folder for the views and summary.json; files of an earlier run in it are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Timely workers [default: the configuration's]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Threads that only read and decode, beside the workers
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256))]
    decode_threads: u16,
    /// The run's time (RFC 3339): events more than 5 minutes later are dead letters [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<jiff::Timestamp>,
}

/// `summary.json`, and what is printed at the end.
#[derive(Serialize)]
struct Summary {
    job: String,
    now: String,
    workers: usize,
    decode_threads: usize,
    /// Accepted, unique events.
    events: u64,
    dead_letters: u64,
    table_dead_letters: u64,
    late: u64,
    duplicates: u64,
    /// Events beyond the caps, which count under `overflow` (countries: `XX`).
    overflow_keys: u64,
    overflow_routes: u64,
    overflow_countries: u64,
    bytes: u64,
    rows: output::RowCounts,
    events_per_s: u64,
    peak_memory_bytes: Option<u64>,
    wall_s: f64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let now = match args.now {
        Some(now) => u64::try_from(now.as_millisecond())
            .map_err(|_| failure(Exit::Usage, anyhow::anyhow!("--now lies before 1970")))?,
        None => crate::clock::now(),
    };
    let job = load(args)?;
    let workers = job.job.workers;
    let (geo, geo_warnings) = Geo::open(&job.geo).map_err(usage)?;
    let hashes = job.sources.iter().map(|source| &source.keys.hash);
    let tables = tables::read(&job.tables, hashes).map_err(usage)?;
    geo_warnings.iter().chain(&tables.warnings).for_each(|warning| exit::warn(warning));
    let inputs = inputs(&job.sources).map_err(|error| match error {
        IngestError::Kafka(error) if error.class() == Class::Transient => failure(Exit::Transient, error),
        error => usage(error),
    })?;
    let out = Folder::new(&args.out, &inputs)?;
    let decode_count = usize::from(args.decode_threads);

    let options = Options::new(now, job.windows, job.limits, workers);
    let context = decode::Context::new(&job.routes, &job.geo.trusted_proxies, job.limits, Arc::new(geo));
    let sources = job.sources.clone();
    let ingest = Ingest::new(inputs, move |source| decode::decoder(&sources[source], &context), &options);
    let decode_threads =
        DecodeThreads::spawn(&ingest, decode_count).context("starting decode threads failed")?;
    let collected = run_workers(&ingest, tables, &job, now, &out)?;
    drop(decode_threads);

    let counts = ingest.counts();
    let threads = workers.get() + decode_count;
    let written = output::write(collected, ingest.partitions(), out.path(), threads)?;
    let wall_s = started.elapsed().as_secs_f64();
    let summary = Summary {
        job: job.job.name,
        now: keytide_connectors::sink::encode::time(now),
        workers: workers.get(),
        decode_threads: decode_count,
        events: written.counts.events,
        dead_letters: counts.dead_letters,
        table_dead_letters: written.rows.dead_letters - counts.dead_letters,
        late: written.counts.late,
        duplicates: written.counts.duplicates,
        overflow_keys: written.counts.overflow_keys,
        overflow_routes: written.counts.overflow_routes,
        overflow_countries: written.counts.overflow_countries,
        bytes: counts.bytes,
        rows: written.rows,
        events_per_s: per_second(written.counts.events, wall_s),
        peak_memory_bytes: memory::peak_bytes(),
        wall_s: (wall_s * 1_000.0).round() / 1_000.0,
    };
    let text = serde_json::to_string_pretty(&summary)?;
    out.write(SUMMARY, format!("{text}\n").as_bytes())?;
    match writeln!(io::stdout(), "{text}") {
        // Nobody wants to read it; it is in the folder.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done.into()),
    }
}

fn load(args: &Args) -> anyhow::Result<JobConfig> {
    let workers = args.workers.map(|workers| ("KEYTIDE_JOB__WORKERS".to_owned(), workers.to_string()));
    let loaded = JobConfig::load(&args.config, environment().chain(workers)).map_err(usage)?;
    loaded.warnings.iter().for_each(|warning| exit::warn(warning));
    Ok(loaded.job)
}

fn usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    failure(Exit::Usage, error)
}

/// Runs the dataflow to the input's end; what each worker collected.
fn run_workers(
    ingest: &Arc<Ingest>,
    tables: TablesRead,
    job: &JobConfig,
    now: Tick,
    out: &Folder,
) -> anyhow::Result<Vec<Collect>> {
    let (ended, running) = mpsc::channel::<()>();
    // One for each worker: what it leaves behind isn't held for the whole run.
    let tables = std::iter::repeat_n(Arc::new(tables), job.job.workers.get());
    let tables = Mutex::new(tables.collect::<Vec<_>>());
    let shared = Arc::new((Arc::clone(ingest), tables, out.path().to_owned(), ended));
    let options =
        keytide_dataflow::Options { windows: job.windows, limits: job.limits, publish: Publish::Last };
    let guards = timely::execute(timely::Config::process(job.job.workers.get()), move |worker| {
        let (ingest, tables, out, ended) = &*shared;
        let _running = ended.clone();
        let tables = tables.lock().expect("no worker panics while it takes its tables").pop();
        let tables = tables.expect("there is one for each worker");
        work(worker, ingest, tables, options, now, out).unwrap_or_else(|error| {
            // The others would wait for this worker for ever, so its error is the process's.
            let error = error.context(format!("writing to {} failed", out.display()));
            exit::report(&error);
            std::process::exit(exit::classify(&error) as i32)
        })
    })
    .map_err(|error| anyhow::anyhow!("starting workers failed: {error}"))?;
    show_progress(ingest, &running);
    let mut collected = Vec::new();
    for result in guards.join() {
        match result {
            Ok(worker) => collected.push(worker),
            Err(panic) => anyhow::bail!("a worker ended early: {panic}"),
        }
    }
    match ingest.error() {
        None => Ok(collected),
        Some(error) => Err(failure(
            match &*error {
                IngestError::File(_) => Exit::Fatal,
                IngestError::Kafka(error) if error.class() == Class::Transient => Exit::Transient,
                IngestError::Kafka(_) => Exit::Fatal,
                IngestError::Panicked => Exit::Internal,
            },
            anyhow::anyhow!("{error}"),
        )),
    }
}

/// One worker: takes messages, decodes while it waits, and steps the dataflow.
fn work(
    worker: &mut Worker,
    ingest: &Ingest,
    tables: Arc<TablesRead>,
    options: keytide_dataflow::Options,
    now: Tick,
    out: &Path,
) -> anyhow::Result<Collect> {
    let index = worker.index();
    let workers = NonZeroUsize::new(worker.peers()).unwrap_or(NonZeroUsize::MIN);
    let collect = Rc::new(RefCell::new(Collect::new(out, ingest.partitions(), workers)));
    let mut dataflow =
        worker.dataflow(|scope| render(scope, options, &collect, None)).expect("nothing is restored");
    let probe = dataflow.probe().clone();
    collect.borrow_mut().define(now, tables.definitions.clone());
    let mut local = ingest.enter_worker(index);
    dataflow.advance_to(now);
    if index == 0 {
        dataflow.definitions(&mut tables.definitions.clone());
        dataflow.tables(&mut tables.changes.clone());
        collect.borrow_mut().table_dead_letters(&tables.dead_letters)?;
    }
    drop(tables);
    let mut open: Tick = now;
    // Since all ticks were done, and since the last round.
    let (mut in_flight, mut fresh) = (0, 0);
    let mut stepped: Tick = now;
    loop {
        if !probe.less_than(&open) {
            in_flight = 0;
        }
        let behind = probe.less_than(&open.saturating_sub(TICKS_IN_FLIGHT))
            || (in_flight >= EVENTS_IN_FLIGHT && probe.less_than(&open.saturating_sub(1)));
        if behind {
            if !worker.step() || !ingest.work(&mut local) {
                worker.step_or_park(None);
            }
            continue;
        }
        match ingest.next(index) {
            Some(Message::Definitions(mut definitions)) => dataflow.definitions(&mut definitions),
            Some(Message::Events { mut events, .. }) => {
                in_flight += events.len();
                fresh += events.len();
                dataflow.events(&mut events);
            }
            Some(Message::DeadLetters { letters, .. }) => {
                collect.borrow_mut().dead_letters(&letters)?;
            }
            Some(Message::Tick(info)) => {
                dataflow.close(info);
                open = info.tick + 1;
                if open - stepped >= TICKS_A_ROUND || fresh >= EVENTS_A_ROUND {
                    (stepped, fresh) = (open, 0);
                    worker.step();
                }
                collect.borrow_mut().failure()?;
            }
            None if ingest.is_closed(index) => break,
            None if ingest.work(&mut local) => {}
            None => {
                worker.step_or_park(None);
            }
        }
    }
    drop(dataflow);
    while !probe.done() {
        worker.step_or_park(None);
    }
    let mut collected = collect.take();
    collected.failure()?;
    Ok(collected)
}

/// Shows how far the input was read, on a terminal, until the workers are done.
fn show_progress(ingest: &Ingest, running: &mpsc::Receiver<()>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let bar = match ingest.progress().total {
        Some(total) => {
            ProgressBar::new(total).with_style(style("{bar:30} {percent:>3} %  {msg}  {eta} left"))
        }
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}")),
    };
    let started = Instant::now();
    while running.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
        bar.set_position(ingest.progress().bytes);
        let records = ingest.counts().records();
        bar.set_message(format!(
            "{records} records, {}/s",
            per_second(records, started.elapsed().as_secs_f64())
        ));
    }
    bar.finish_and_clear();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is a constant that a run has shown to be right")
}

fn per_second(count: u64, seconds: f64) -> u64 {
    #[allow(clippy::cast_sign_loss, reason = "counts and durations aren't negative")]
    let rate = (count as f64 / seconds.max(1e-9)) as u64;
    rate
}

/// Written last.
const SUMMARY: &str = "summary.json";

/// The output folder.
struct Folder(PathBuf);

impl Folder {
    /// Makes the folder. It may hold files of an earlier run, but none that is read: what is written would
    /// replace it. An earlier summary goes at once, so that a summary always tells of a run that ended.
    fn new(path: &Path, inputs: &[Input]) -> anyhow::Result<Self> {
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
        match fs::remove_file(resolved.join(SUMMARY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(usage(error)),
            _ => Ok(Self(path.to_owned())),
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(name);
        fs::write(&path, content).with_context(|| format!("writing {} failed", path.display()))
    }
}
