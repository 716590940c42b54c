//! `keytide run CONFIG` runs the live job until a signal ends it.
//!
//! The main thread runs a small tokio runtime beside the job's threads, for signals, metrics and health. SIGTERM and
//! SIGINT end the job: its last tick is cut, computed, published and acknowledged, and the process exits with 0. A
//! second signal doesn't wait for that, unless it comes within a second of the first. After [`END_PATIENCE`] the
//! process ends as well, as sinks that are away would keep it for ever.
//!
//! The process listens to signals before the job starts, which may wait for brokers. A signal that comes meanwhile ends
//! the process at once with 0, as nothing was read. A member of a cluster that starts ends with the others instead.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use keytide_config::{JobConfig, environment};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::run::{ClusterView, Handle, HttpServer, JobSample, LiveJob};
use tokio::sync::oneshot;

use crate::clock::now;
use crate::log;
use crate::signals::Signals;

/// How long a job may take for its end.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `keytide run`.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// The job's configuration (TOML)
    config: PathBuf,
    /// Timely workers [default: the configuration's]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
}

/// Runs the job until its end.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let workers = args.workers.map(|workers| ("KEYTIDE_JOB__WORKERS".to_owned(), workers.to_string()));
    let loaded = JobConfig::load(&args.config, environment().chain(workers))
        .map_err(|error| failure(Exit::Usage, error))?;
    log::start(&loaded.job.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.job;
    if config.sinks.kafka.is_none() && config.sinks.files.is_none() {
        tracing::warn!("there is no [sink.kafka] and no [sink.files]: results go nowhere");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime for signals and HTTP failed")?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    let server = config.http.as_ref().map(HttpServer::bind).transpose()?;
    let view = ClusterView::default();
    let (started, start) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let tick_ms = config.job.tick_ms;
    let of_joiner = view.clone();
    let joiner = std::thread::Builder::new().name("joiner".to_owned()).spawn(move || {
        let result = start_and_join(&config, started, &of_joiner);
        let _ = ended.send(());
        result
    })?;
    let end = runtime.block_on(async {
        let job = Arc::<OnceLock<Handle>>::default();
        if let Some(server) = server {
            serve(server, (Arc::clone(&job), view.clone()), tick_ms)?;
        }
        let runs = |handle: &Handle| {
            let _ = job.set(handle.clone());
        };
        until_the_end(signals, start, end, &view, runs).await
    })?;
    if end == RunEnd::BeforeStart {
        tracing::info!("told to end before the job ran: nothing was read");
        return Ok(Exit::Done.into());
    }
    let result = joiner.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the job panicked")));
    if result.is_ok() {
        tracing::info!("the job ended, everything it read is published");
    }
    result.map(|()| Exit::Done.into())
}

/// Starts the job, sends its handle, and waits for its end.
fn start_and_join(
    config: &JobConfig,
    started: oneshot::Sender<Handle>,
    view: &ClusterView,
) -> anyhow::Result<()> {
    let job = LiveJob::start(config, None, now, view)?;
    tracing::info!(
        job = config.job.name,
        workers = config.job.workers,
        version = env!("CARGO_PKG_VERSION"),
        "the job runs"
    );
    let _ = started.send(job.handle.clone());
    job.join()
}

/// Serves metrics, health, status, the busiest keys and actions from the start on; `job` is set once it runs.
///
/// # Errors
/// If the system doesn't say which port it is.
pub(crate) fn serve(
    server: HttpServer,
    (job, view): (Arc<OnceLock<Handle>>, ClusterView),
    tick_ms: u64,
) -> anyhow::Result<()> {
    let address = server.address().context("asking for the port of [http] failed")?;
    tracing::info!(
        "serves http://{address}/metrics, /healthz, /readyz, /status and /top.json, and a page at /"
    );
    let of_actions = Arc::clone(&job);
    let actions = Arc::new(move || of_actions.get().and_then(|job| job.actions.clone()));
    let of_top = Arc::clone(&job);
    let top = Arc::new(move || of_top.get().and_then(|job| job.top.clone()).unwrap_or_default());
    let sampler = Arc::new(move || match job.get() {
        Some(job) => JobSample::take(job, tick_ms),
        None => JobSample::starting(&view),
    });
    tokio::spawn(async move {
        if let Err(error) = server.serve(sampler, top, actions).await {
            tracing::error!("serving HTTP failed: {error}");
        }
    });
    Ok(())
}

/// How a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RunEnd {
    /// By a signal while the job started.
    BeforeStart,
    /// Its threads ended, or its start failed.
    OfTheJob,
}

/// Waits for the job's end.
///
/// 1. Waits for the job's start, and gives its handle to `runs`.
/// 2. Stops the job at the first signal. One that comes before the start ends the process, unless it is a member of a
///    cluster that starts.
/// 3. Gives it up at the second signal, or after [`END_PATIENCE`].
async fn until_the_end(
    mut signals: Signals,
    mut start: oneshot::Receiver<Handle>,
    mut end: oneshot::Receiver<()>,
    view: &ClusterView,
    runs: impl FnOnce(&Handle),
) -> anyhow::Result<RunEnd> {
    let mut is_told = false;
    let handle = loop {
        tokio::select! {
            handle = &mut start => match handle {
                Ok(handle) => break handle,
                // The start failed; its thread knows why.
                Err(_) => return Ok(RunEnd::OfTheJob),
            },
            () = signals.next() => {
                if is_told || !view.tell_member_to_end() {
                    return Ok(RunEnd::BeforeStart);
                }
                is_told = true;
                tracing::info!("told to end while the job starts: all processes end once it runs");
            }
        }
    };
    runs(&handle);
    if !is_told {
        tokio::select! {
            _ = &mut end => return Ok(RunEnd::OfTheJob),
            () = signals.next() => {}
        }
    }
    tracing::info!(
        "told to end: finishing the tick; another signal ends at once, from a second after this one"
    );
    handle.stop();
    let why = tokio::select! {
        _ = end => return Ok(RunEnd::OfTheJob),
        () = signals.next() => "by a second signal",
        () = tokio::time::sleep(END_PATIENCE) => "because the sinks didn't take the last ticks in time",
    };
    let reason = format!("ended {why}: what isn't acknowledged is lost to this run");
    handle.give_up(&reason);
    Err(failure(Exit::Transient, anyhow::anyhow!(reason)))
}
