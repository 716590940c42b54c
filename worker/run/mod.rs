//! `keytide run CONFIG`: the live job, until it is told to end.
//!
//! The main thread runs a small tokio runtime beside the job's threads: signals, metrics and health. SIGTERM and
//! SIGINT end the job: its last tick is cut, computed, published and acknowledged, and the process exits with 0. A
//! second signal doesn't wait for that, and after [`END_PATIENCE`] nobody does: sinks that are away would keep the
//! process for ever.

mod first;
#[cfg(test)]
mod gateways;
mod gather;
mod health;
mod http;
mod job;
mod log;
mod metrics;
mod observe;
mod publish;
mod tables;
mod tell;
mod work;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keytide_config::{JobConfig, environment};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use self::http::Server;
pub(crate) use self::job::{Handle, Job};
use self::observe::Sample;
pub(crate) use self::publish::{Heard, Tap};
use crate::exit::{Exit, failure};

/// How long a job that was told to end may take for it.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `keytide run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job's configuration (TOML)
    config: PathBuf,
    /// Timely workers [default: the configuration's]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
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
    let server = config.http.as_ref().map(Server::bind).transpose()?;
    let job = Job::start(&config, None)?;
    tracing::info!(
        job = config.job.name,
        workers = config.job.workers,
        version = env!("CARGO_PKG_VERSION"),
        "the job runs"
    );
    let handle = job.handle.clone();
    let (ended, end) = oneshot::channel();
    let joiner = std::thread::Builder::new().name("joiner".to_owned()).spawn(move || {
        let result = job.join();
        let _ = ended.send(());
        result
    })?;
    runtime.block_on(async {
        if let Some(server) = server {
            serve(server, handle.clone(), config.job.tick_ms)?;
        }
        until_the_end(&handle, end).await
    })?;
    let result = joiner.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the job panicked")));
    if result.is_ok() {
        tracing::info!("the job ended, everything it read is published");
    }
    result.map(|()| Exit::Done.into())
}

/// Serves metrics and health beside the job.
fn serve(server: Server, job: Handle, tick_ms: u64) -> anyhow::Result<()> {
    let address = server.address().context("asking for the port of [http] failed")?;
    tracing::info!("serves http://{address}/metrics, /healthz and /readyz");
    let look = Arc::new(move || Sample::take(&job, tick_ms));
    tokio::spawn(async move {
        if let Err(error) = server.serve(look).await {
            tracing::error!("serving metrics and health failed: {error}");
        }
    });
    Ok(())
}

/// Stops the job at the first signal, gives it up at the second or when its time is over.
async fn until_the_end(handle: &Handle, mut end: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM failed")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT failed")?;
    tokio::select! {
        _ = &mut end => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to end: finishing the tick; a second signal ends at once");
    handle.stop();
    let why = tokio::select! {
        _ = end => return Ok(()),
        _ = terminate.recv() => "by a second signal",
        _ = interrupt.recv() => "by a second signal",
        () = tokio::time::sleep(END_PATIENCE) => "because the sinks didn't take the last ticks in time",
    };
    handle.sinks.stop();
    Err(failure(Exit::Transient, anyhow::anyhow!("ended {why}: what isn't acknowledged is lost to this run")))
}
