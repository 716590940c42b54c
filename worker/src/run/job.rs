//! A live job's threads, how they start and how they end.
//!
//! ```text
//! reader-0..  tables  watch  coordinator      connectors::live
//! timely workers                              work.rs
//! publisher                                   publish.rs, notify.rs, connectors::sink
//! alerts-*                                    alerts::outbox
//! ```
//! They end by themselves after the last tick. Readers and tables end when they answered the last cut, workers when
//! they computed its tick. The publisher ends when the workers are gone and the sinks acknowledged all rows. A panic in
//! any of them must end the process.

use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use keytide_alerts::outbox::OutboxError;
use keytide_config::{JobConfig, Limits, Source, SourceKind};
use keytide_connectors::geo::Unreadable;
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::kafka::{Consumer, Topic};
use keytide_connectors::live::{
    self, Live, LiveError, PartitionReader, SourceFeed, TableReader, coordinate, watch_partitions,
};
use keytide_connectors::sink::{Publisher, PublisherMonitor, SinkError, TickOutput};
use keytide_dataflow::{Options, Publish};
use timely::communication::WorkerGuards;

use super::Clock;
use super::notify::Notifier;
use super::observe::WorkerStats;
use super::publish::{ResultCounters, Subscriber, Watchers, publish};
use super::tables::{GeoFeed, ReferenceData, decoders};
use super::top::LiveTop;
use super::work::work;
use crate::exit::{Exit, failure, kafka_failure};

/// Rows of a bulk change that are published per tick, view and bucket of groups.
const BULK_ROWS: usize = 128;
/// How often topics are asked for new partitions.
const WATCH: Duration = Duration::from_secs(10);

/// A live job that runs.
pub struct LiveJob {
    /// Lets other threads watch and stop the job.
    pub handle: Handle,
    threads: Vec<JoinHandle<()>>,
    workers: WorkerGuards<()>,
    publisher: JoinHandle<()>,
}

/// Watches and stops a running job from outside.
#[derive(Clone)]
pub struct Handle {
    pub live: Arc<Live>,
    pub results: Arc<ResultCounters>,
    pub observed: Arc<WorkerStats>,
    pub sinks: PublisherMonitor,
    pub alerts: keytide_alerts::outbox::OutboxMonitor,
    pub limits: Limits,
    /// The busiest keys, if the job has `[http]`.
    pub top: Option<LiveTop>,
    /// Look-ups of addresses that hit a damaged record.
    pub unreadable_places: Unreadable,
    pub(super) clock: Clock,
    /// Why the sinks can't go on.
    sink_error: Arc<Mutex<Option<SinkError>>>,
}

impl LiveJob {
    /// Starts a job; blocks until its topics are looked up. `subscriber` gets every tick's results. `clock` returns the
    /// time in milliseconds since the epoch.
    ///
    /// # Errors
    /// If something that the configuration names can't be used.
    pub fn start(config: &JobConfig, subscriber: Option<Subscriber>, clock: Clock) -> anyhow::Result<Self> {
        let publisher =
            Publisher::open(&config.sinks, &config.job.name, &config.sources, &config.fingerprint())
                .map_err(|error| failure(error.class().into(), error))?;
        let notifier =
            Notifier::open(config, clock).map_err(|error| failure(exit_of_alerts(&error), error))?;
        let tables = ReferenceData::open(config)?;
        let sources = kafka_sources(&config.sources)?;
        let workers = config.job.workers;
        let options = live::LiveOptions { tick_ms: config.job.tick_ms, windows: config.windows, workers };
        let live = Live::new(clock(), options);
        let mut known = Vec::new();
        for (index, name, topic, starts) in &sources {
            for (number, offset) in starts {
                let info =
                    PartitionInfo { source: name.clone(), source_index: *index, number: *number, path: None };
                live.add_partition(info, *offset);
            }
            tracing::info!(source = name, topic = topic.name(), partitions = starts.len(), "reads");
            known.push((*index, name.clone(), u32::try_from(starts.len()).unwrap_or(u32::MAX)));
        }

        let handle = Handle {
            live: Arc::clone(&live),
            results: Arc::default(),
            observed: Arc::default(),
            sinks: publisher.monitor(),
            alerts: notifier.monitor(),
            limits: config.limits,
            top: config.http.as_ref().map(|_| LiveTop::default()),
            unreadable_places: tables.watched_geo.unreadable().clone(),
            clock,
            sink_error: Arc::default(),
        };
        let decoders = decoders(config, tables.geo);
        let mut threads = Vec::new();
        for slot in 0..workers.get() {
            let feeds = feeds(&config.sources)?;
            let reader = PartitionReader::new(&live, slot, feeds, &*decoders);
            threads.push(spawn(format!("reader-{slot}"), move || reader.run())?);
        }
        let mut feeds = tables.feeds;
        feeds.push(Box::new(GeoFeed::new(tables.watched_geo, config, &live)));
        let reader = TableReader::new(&live, tables.first, feeds);
        threads.push(spawn("tables".to_owned(), move || reader.run())?);
        threads.push(watch(&live, sources, known)?);

        let (results, collected) = mpsc::channel();
        let publisher = {
            let handle = handle.clone();
            spawn("publisher".to_owned(), move || {
                handle.publish(publisher, notifier, &collected, workers.get(), subscriber);
            })?
        };
        let dataflow = Options {
            windows: config.windows,
            limits: config.limits,
            publish: Publish::Changes { bulk_rows: BULK_ROWS },
            detection: (&config.detection).into(),
        };
        let guards = start_workers(&handle, workers.get(), dataflow, results)?;
        {
            let live = Arc::clone(&live);
            threads.push(spawn("coordinator".to_owned(), move || coordinate(&live, clock))?);
        }
        Ok(Self { handle, threads, workers: guards, publisher })
    }

    /// Waits until all threads ended.
    ///
    /// # Errors
    /// The reason, if the job ended without a stop.
    pub fn join(self) -> anyhow::Result<()> {
        // A thread that panics ends the process.
        for thread in self.threads {
            let _ = thread.join();
        }
        drop(self.workers.join());
        let _ = self.publisher.join();
        let sink_error = self.handle.sink_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = sink_error {
            return Err(failure(error.class().into(), error));
        }
        match self.handle.live.error() {
            None => Ok(()),
            Some(error) => {
                let exit = match &*error {
                    LiveError::Kafka(error) => error.class().into(),
                    LiveError::Table(_) => Exit::Fatal,
                };
                Err(failure(exit, anyhow::anyhow!("{error}")))
            }
        }
    }
}

impl Handle {
    /// Ends the job after its last tick is cut, computed and published.
    pub fn stop(&self) {
        self.live.stop();
    }

    fn publish(
        &self,
        mut publisher: Publisher,
        mut notifier: Notifier,
        results: &mpsc::Receiver<TickOutput>,
        workers: usize,
        subscriber: Option<Subscriber>,
    ) {
        let watchers = Watchers { subscriber, top: self.top.clone() };
        let published =
            publish(&mut publisher, results, workers, &self.live, &self.results, &mut notifier, watchers);
        if let Err(error) = published {
            tracing::error!("{error}");
            *self.sink_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.live.stop();
        }
        notifier.stop();
    }
}

/// Returns the exit code for alerts that can't be set up.
fn exit_of_alerts(error: &OutboxError) -> Exit {
    match error {
        OutboxError::Thread(_) => Exit::Transient,
        OutboxError::Mail(_) | OutboxError::Webhook { .. } => Exit::Usage,
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run)
}

type KafkaSources = Vec<(usize, String, Topic, Vec<(u32, u64)>)>;

/// Opens the sources' topics; returns each with the start of its partitions.
fn kafka_sources(sources: &[Source]) -> anyhow::Result<KafkaSources> {
    let mut found = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let SourceKind::Kafka(kafka) = &source.kind else {
            let message = format!(
                "source \"{}\" is bounded: `run` reads Kafka topics, `replay` reads files and standard input",
                source.name
            );
            return Err(failure(Exit::Usage, anyhow::anyhow!(message)));
        };
        let topic = Topic::open(&kafka.client, &kafka.topic).map_err(kafka_failure)?;
        let partitions = topic.partitions().map_err(kafka_failure)?;
        let starts = topic.starts(&kafka.start, &partitions).map_err(kafka_failure)?;
        found.push((index, source.name.clone(), topic, starts));
    }
    Ok(found)
}

/// Makes the consumers of one reader.
fn feeds(sources: &[Source]) -> anyhow::Result<Vec<SourceFeed>> {
    let kafka = sources.iter().enumerate().filter_map(|(index, source)| match &source.kind {
        SourceKind::Kafka(kafka) => Some((index, kafka)),
        SourceKind::File { .. } | SourceKind::Stdin => None,
    });
    kafka
        .map(|(source, kafka)| {
            let feed = Box::new(Consumer::new(&kafka.client, &kafka.topic).map_err(kafka_failure)?);
            Ok(SourceFeed { name: kafka.topic.clone(), source, feed, on_gap: kafka.on_gap })
        })
        .collect()
}

fn watch(
    live: &Arc<Live>,
    sources: KafkaSources,
    known: Vec<(usize, String, u32)>,
) -> io::Result<JoinHandle<()>> {
    let live = Arc::clone(live);
    spawn("watch".to_owned(), move || {
        let topic = |index: usize| {
            &sources.iter().find(|(source, ..)| *source == index).expect("every known source is listed").2
        };
        watch_partitions(
            &live,
            WATCH,
            known,
            |source| topic(source).partitions().map(|found| u32::try_from(found.len()).unwrap_or(u32::MAX)),
            |source, partition| topic(source).watermarks(partition).map(|(low, _)| low),
        );
    })
}

fn start_workers(
    job: &Handle,
    workers: usize,
    options: Options,
    results: mpsc::Sender<TickOutput>,
) -> anyhow::Result<WorkerGuards<()>> {
    let (live, observed) = (Arc::clone(&job.live), Arc::clone(&job.observed));
    // Each worker clones the sender, so the channel closes with the last worker.
    let results = Mutex::new(results);
    timely::execute(timely::Config::process(workers), move |worker| {
        let results = results.lock().unwrap_or_else(PoisonError::into_inner).clone();
        work(worker, &live, options, &observed, &results);
    })
    .map_err(|error| anyhow::anyhow!(error))
    .context("starting workers failed")
}
