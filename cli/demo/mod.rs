//! `keytide demo` runs the whole job over traffic of its own, with nothing to set up.
//!
//! ```text
//! traffic ── records ──► in-process broker ──► the job of `keytide run` ──┬──► result topics, DIR/views
//! (generator, paced)     (Kafka's protocol)                               └──► LiveView ──► live view or lines
//! ```
//! Nothing is short-circuited: records and results go over Kafka's protocol on a local socket, tables and geo databases
//! are files, and the configuration is parsed like any other. All files are left in a folder. The screen shows the rows
//! that are published, see [`view`].
//!
//! One minute shows how a leak is found. 100 keys have a history of 36 hours, which is read first, and one of them is
//! stolen 5 s after live traffic began; see [`world`]. Its thief uses up a quota, which the contacts are told of, and the
//! API can be asked meanwhile; see [`asking`]. [`ending`] has the rule of when it ends.
//!
//! `q`, Ctrl-C, SIGTERM, or the end of `--duration` once the leak is found, stop the traffic. Then the job reads the
//! records that are left, publishes its last tick, and restores the terminal. A second signal doesn't wait for that.

mod acting;
mod asking;
mod ending;
mod front;
mod incidents;
mod quotas;
mod screen;
mod summary;
mod traffic;
mod view;
mod world;

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::SignedDuration;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_worker::exit::{Exit, failure};
use keytide_worker::run::{ClusterView, Handle, LiveJob, Subscriber, SubscriberEvent};
use tracing_subscriber::EnvFilter;

use self::acting::Acting;
use self::asking::{Asking, free_addresses};
use self::ending::{Ending, StagedLeak};
use self::front::Front;
use self::screen::{Phase, Scene};
use self::traffic::SendProgress;
use self::traffic::TrafficThread;
use self::view::LiveView;
use self::world::{DemoBroker, HISTORY_MS, STORY_MS, Worlds};
use crate::clock::now;
use crate::exit;
use crate::signals::on_each;

/// Time between two frames, each of which polls keys and signals.
const FRAME: Duration = Duration::from_millis(100);
/// Workers of the job, or as many as the machine has cores, if these are fewer.
const WORKERS: usize = 2;

/// Shows the whole job at work: an in-process Kafka broker, generated traffic, a live view; needs nothing else
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// How long live traffic lasts, such as 60s or 5m; q and Ctrl-C end it earlier, and it waits for its leak
    #[arg(long, default_value = "1h", value_parser = duration)]
    duration: SignedDuration,
    /// Calls a second, about
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Another seed, other traffic
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for configuration, tables, views and log; made if it doesn't exist, else it must be empty [default: one
    /// for temporary files]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print a line a second instead of the live view
    #[arg(long)]
    headless: bool,
    /// Suspend the stolen key once `keytide actions` approves it: DIR/denied.txt has the keys that a gateway is to refuse
    #[arg(long, requires = "out")]
    act: bool,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    let duration = text.parse().ok().filter(|duration: &SignedDuration| {
        (SignedDuration::from_secs(1)..=SignedDuration::from_hours(24)).contains(duration)
    });
    duration.ok_or_else(|| "must be a duration such as 60s, 5m or 1h, from 1s to 24h".to_owned())
}

/// How long the link to a customer's page lasts, in ms: longer than most demos.
const LINK_MS: u64 = 86_400_000;

/// Runs a demo until its end.
///
/// # Errors
/// If the folder can't be used, or the job or its traffic end by an error.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (signal, signals) = mpsc::channel();
    on_each(move || signal.send(()).is_ok())?;
    let (folder, worlds) = world::create(args, now())?;
    log(&folder)?;
    let broker = DemoBroker::start()?;
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(WORKERS);
    let [api, http] = free_addresses()?;
    let asking = Asking { listen: api, subscription: worlds.shown_subscription() };
    let acting = args.act.then(|| Acting::prepare(&folder, worlds.stolen_secret(), http)).transpose()?;
    let config = world::configure(&folder, &broker.address(), workers, &asking, acting.as_ref())?;

    let view = Arc::new(Mutex::new(LiveView::new(config.job.tick_ms)));
    let subscriber: Subscriber = {
        let view = Arc::clone(&view);
        Box::new(move |heard| match heard {
            SubscriberEvent::Results(tick, outputs) => lock(&view).take(tick, outputs),
            SubscriberEvent::Notices(notices) => lock(&view).incidents.take(notices),
        })
    };
    let job = LiveJob::start(&config, Some(subscriber), now, &ClusterView::default())?;
    let handle = job.handle.clone();
    let path = handle.api.as_ref().and_then(|api| api.customer_path(&asking.subscription, now() + LINK_MS));
    exit::print(&asking.lines(path.as_deref()))?;
    if let Some(acting) = acting {
        acting.serve(&config, &handle)?;
    }
    let joiner = thread::Builder::new().name("joiner".to_owned()).spawn(move || job.join())?;
    let staged = Staged::of(&worlds);
    let traffic = TrafficThread::start(broker.address(), Arc::clone(&handle.live), worlds)?;
    let front = front(args)?;
    let demo = Demo { args, folder: &folder, workers, asking, started: Instant::now(), staged, handle, view };
    demo.show(front, &signals, &traffic, || joiner.is_finished())?;

    joiner.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the job panicked")))?;
    summary::print(&demo, &traffic.join()?)?;
    Ok(Exit::Done.into())
}

struct Demo<'a> {
    args: &'a DemoArgs,
    folder: &'a Path,
    workers: usize,
    asking: Asking,
    started: Instant,
    staged: Staged,
    handle: Handle,
    view: Arc<Mutex<LiveView>>,
}

/// The staged part of a demo's traffic.
#[derive(Clone, Debug)]
struct Staged {
    /// The event time at which live traffic starts.
    live_ms: u64,
    has_history: bool,
    /// The id of the key that is stolen.
    key: Option<String>,
}

impl Staged {
    fn of(worlds: &Worlds) -> Self {
        Self { live_ms: worlds.live_ms, has_history: worlds.known.is_some(), key: worlds.stolen() }
    }
}

/// The steps to the end of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lifecycle {
    Running,
    /// The traffic stops, and the job reads the rest.
    Draining,
    /// The job stops.
    Stopping,
}

impl Demo<'_> {
    /// Shows the demo until it is over.
    fn show(
        &self,
        mut front: Front,
        signals: &Receiver<()>,
        traffic: &TrafficThread,
        is_over: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let live = &self.handle.live;
        let mut ending = Ending::new(self.args.duration.unsigned_abs());
        let mut stage = Lifecycle::Running;
        loop {
            ending.look(self.started.elapsed(), self.is_reading(live.status().watermark));
            self.frame(&mut front, stage == Lifecycle::Running, &ending, &traffic.sent)?;
            let end_requested = front.end_is_requested(signals, FRAME)?;
            if end_requested && stage != Lifecycle::Running {
                self.handle.sinks.stop();
                return Err(failure(Exit::Transient, anyhow::anyhow!("ended by a second signal")));
            }
            let read = live.counters.messages.load(Ordering::Relaxed);
            stage = match stage {
                // A job that stops by itself returns its error when it is joined.
                _ if live.is_stopping() => Lifecycle::Stopping,
                Lifecycle::Running if end_requested || traffic.is_finished() => Lifecycle::Draining,
                Lifecycle::Running if ending.is_over(self.started.elapsed(), self.leak()) => {
                    Lifecycle::Draining
                }
                Lifecycle::Draining
                    if traffic.is_finished()
                        && (read >= traffic.sent.records() || traffic.sent.has_failed()) =>
                {
                    self.handle.stop();
                    Lifecycle::Stopping
                }
                stage => stage,
            };
            if stage != Lifecycle::Running {
                traffic.sent.stop();
            }
            if stage == Lifecycle::Stopping && is_over() && traffic.is_finished() {
                return Ok(());
            }
        }
    }

    fn frame(
        &self,
        front: &mut Front,
        is_running: bool,
        ending: &Ending,
        sent: &SendProgress,
    ) -> anyhow::Result<()> {
        let live = &self.handle.live;
        let sinks = self.handle.sinks.stats();
        let watermark = live.status().watermark;
        let behind_ms = sent.behind_ms();
        let phase = match is_running {
            false => Phase::Ending,
            true if self.is_reading(watermark) => Phase::Reading(self.percent_read(watermark)),
            true => Phase::Running,
        };
        let mut view = lock(&self.view);
        if phase == Phase::Running {
            view.go_live();
        }
        view.incidents.look_for_mails(self.folder);
        let mut lines = view.incidents.take_lines();
        lines.extend(view.quotas.take_lines());
        let scene = Scene {
            view: &view,
            phase,
            now: now().saturating_sub(behind_ms.unwrap_or(0)),
            behind_ms: behind_ms.unwrap_or(0),
            elapsed_ms: whole_ms(self.started.elapsed()),
            end_ms: ending.expected().map(whole_ms),
            rate: self.args.rate,
            staged: &self.staged,
            unread: sent.records().saturating_sub(live.counters.messages.load(Ordering::Relaxed)),
            watermark,
            rows: sinks.records.iter().sum(),
            row_bytes: sinks.bytes,
            workers: self.workers,
            asking: &self.asking,
            folder: self.folder,
        };
        front.show(&scene, lines)
    }
}

impl Demo<'_> {
    /// Returns whether the job still reads the history.
    fn is_reading(&self, watermark: u64) -> bool {
        self.staged.has_history && watermark + MINUTE_MS <= self.staged.live_ms
    }

    /// Returns what is known of the staged leak.
    fn leak(&self) -> StagedLeak {
        let watermark = self.handle.live.status().watermark;
        match &self.staged.key {
            None => StagedLeak::None,
            Some(stolen) if lock(&self.view).incidents.contains(stolen) => StagedLeak::Found,
            Some(_) if watermark >= self.staged.live_ms + STORY_MS => StagedLeak::Missed,
            Some(_) => StagedLeak::Awaited,
        }
    }

    /// Returns how much of the history the job has read, in percent.
    fn percent_read(&self, watermark: u64) -> u64 {
        let from_ms = self.staged.live_ms - HISTORY_MS;
        (watermark.saturating_sub(from_ms) * 100 / HISTORY_MS).min(100)
    }
}

/// Returns a duration in ms, rounded down.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Locks the view. The lock is never poisoned, as a panic of the publisher ends the process.
fn lock(view: &Mutex<LiveView>) -> MutexGuard<'_, LiveView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::print_stderr, reason = "a note to a user who expects the live view")]
fn front(args: &DemoArgs) -> anyhow::Result<Front> {
    let lines = Front::Lines { printed: 0 };
    if args.headless {
        return Ok(lines);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        eprintln!(
            "note: this is no terminal, so there is a line a second instead of the live view, as with --headless"
        );
        return Ok(lines);
    }
    Ok(Front::Screen(crate::terminal::Screen::take().context("try --headless")?))
}

/// Sends the log of job and libraries to a file, as the live view has the terminal.
fn log(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("demo.log");
    let file = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("warn,keytide=info,keytide_connectors=info"))
        .with_ansi(false)
        .with_target(false)
        .with_writer(Mutex::new(file))
        .init();
    Ok(())
}

#[cfg(test)]
mod tests;
