//! Reads all that a job's sources hold through its dataflow, as fast as possible.
//!
//! Every decision is made at a record (see `connectors::ingest`) or at a tick (see `dataflow`). So the rows of all
//! workers together depend neither on the number of workers nor on that of threads.

use std::cell::RefCell;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use keytide_config::{JobConfig, KafkaClient};
use keytide_connectors::decode;
use keytide_connectors::geo::{GeoDatabases, Unreadable};
use keytide_connectors::ingest::{DecodeThreads, Ingest, IngestError, IngestOptions, InputPartition, inputs};
use keytide_connectors::input::Message;
use keytide_connectors::kafka::ErrorClass;
use keytide_connectors::live::{LiveError, TableFeed as _, TopicFeed};
use keytide_connectors::sink::names::Names;
use keytide_connectors::tables::{self, TablesMemory, TablesRead, TopicTable};
use keytide_dataflow::model::{Definition, Tick};
use keytide_dataflow::{DetectorOptions, Publish, render};
use timely::worker::Worker;

use super::collect::{Collect, Keep};
use crate::exit::{Exit, failure, kafka_failure};

/// Ticks that may be closed and not done, so that one is read while others are worked on. Sparse input has a few
/// records a tick, and a round of a worker costs the same for one tick as for many.
const TICKS_IN_FLIGHT: u64 = 32;
/// Events that a worker may have taken since all its ticks were done. Beyond it the worker waits, however few ticks
/// they are of.
const EVENTS_IN_FLIGHT: usize = 200_000;
/// Ticks after which a worker takes a round.
const TICKS_A_ROUND: u64 = 16;
/// Events after which a worker takes a round, even within one tick.
const EVENTS_A_ROUND: usize = 8_192;
/// How long a poll for records of a table waits.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// Callbacks of the process that a run is part of.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub warn: fn(&dyn Display),
    /// Watches a run until its workers are gone, which closes the channel.
    pub watch: fn(&Ingest, &Receiver<()>),
    /// Ends the process. A worker that can't go on would leave the others waiting for ever.
    pub give_up: fn(&anyhow::Error) -> !,
}

/// A job's sources and tables, ready to be read to their end.
pub struct BoundedRun {
    job: JobConfig,
    process: Process,
    geo: GeoDatabases,
    tables: TablesRead,
    inputs: Vec<InputPartition>,
}

impl BoundedRun {
    /// Reads the tables and finds what the sources hold.
    ///
    /// # Errors
    /// If something that the configuration names can't be used.
    pub fn open(job: JobConfig, process: Process) -> anyhow::Result<Self> {
        let (geo, geo_warnings) = GeoDatabases::open(&job.geo).map_err(usage)?;
        let hashes = job.sources.iter().map(|source| &source.keys.hash);
        let mut tables = tables::read(&job.tables, hashes.clone()).map_err(usage)?;
        for (client, table) in TopicTable::configured(&job.tables, hashes) {
            tables.append(read_topic(client, table)?);
        }
        geo_warnings.iter().chain(&tables.warnings).for_each(|warning| (process.warn)(warning));
        let inputs = inputs(&job.sources).map_err(|error| match error {
            IngestError::Kafka(error) if error.class() == ErrorClass::Transient => {
                failure(Exit::Transient, error)
            }
            error => usage(error),
        })?;
        Ok(Self { job, process, geo, tables, inputs })
    }

    /// Returns the inputs that will be read.
    pub fn inputs(&self) -> &[InputPartition] {
        &self.inputs
    }

    /// Reads all inputs by the job's workers and `decode_threads` more threads; returns what each worker collected.
    /// Rows that don't fit into memory go to temporary files in `folder`.
    ///
    /// # Errors
    /// If the input can't be read to its end, or the folder not be written to.
    pub fn run(
        self,
        now: Tick,
        decode_threads: usize,
        folder: &Path,
        keep: Keep,
    ) -> anyhow::Result<(Vec<Collect>, Arc<Ingest>)> {
        let Self { job, process, geo, tables, inputs } = self;
        let options = IngestOptions::new(now, job.windows, job.limits, job.job.workers);
        let unreadable = geo.unreadable().clone();
        let context = decode::Context::of(&job, Arc::new(geo));
        let sources = job.sources.clone();
        let ingest = Ingest::new(inputs, move |source| decode::decoder(&sources[source], &context), &options);
        let decode_threads =
            DecodeThreads::spawn(&ingest, decode_threads).context("starting decode threads failed")?;
        let collected = run_workers(&ingest, tables, (&job, process), now, folder, keep)?;
        drop(decode_threads);
        if let Some(warning) = Unreadable::warning(unreadable.count()) {
            (process.warn)(&warning);
        }
        Ok((collected, ingest))
    }
}

/// Reads a table's topic to its present end, before the first event, as a live job does.
fn read_topic(client: &KafkaClient, table: TopicTable) -> anyhow::Result<TablesRead> {
    let mut read = TablesRead::default();
    let mut feed = TopicFeed::open(client, table, &TablesMemory::default()).map_err(kafka_failure)?;
    while !feed.is_complete() {
        feed.poll(POLL_WAIT, &mut read).map_err(|error| match error {
            LiveError::Kafka(error) => kafka_failure(error),
            error => usage(error),
        })?;
    }
    Ok(read)
}

/// Gives an error the exit code of a mistake in configuration or usage.
pub fn usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    failure(Exit::Usage, error)
}

/// Runs the dataflow to the input's end; returns what each worker collected.
fn run_workers(
    ingest: &Arc<Ingest>,
    mut tables: TablesRead,
    (job, process): (&JobConfig, Process),
    now: Tick,
    out: &Path,
    keep: Keep,
) -> anyhow::Result<Vec<Collect>> {
    let (ended, running) = mpsc::channel::<()>();
    // Each worker sorts rows by names of its own accord, so all share the strings of tables. The dataflow needs none.
    let mut names = Names::default();
    let of_tables = tables.definitions.extract_if(.., |one| matches!(one, Definition::Name { .. }));
    of_tables.for_each(|definition| names.define(definition));
    // Each worker takes its own reference and drops it, so that the tables aren't held for the whole run.
    let tables = std::iter::repeat_n(Arc::new(tables), job.job.workers.get());
    let tables = Mutex::new(tables.collect::<Vec<_>>());
    let shared = Arc::new((Arc::clone(ingest), tables, names, out.to_owned(), ended));
    let options = keytide_dataflow::Options {
        windows: job.windows,
        limits: job.limits,
        publish: Publish::Last,
        accounts: (&job.billing).into(),
        detection: DetectorOptions { scores: keep == Keep::Scores, ..DetectorOptions::from(&job.detection) },
    };
    let guards = timely::execute(timely::Config::process(job.job.workers.get()), move |worker| {
        let (ingest, tables, names, out, ended) = &*shared;
        let _running = ended.clone();
        let tables = tables.lock().expect("no worker panics while it takes its tables").pop();
        let tables = tables.expect("there is one for each worker");
        work(worker, ingest, (tables, names), (options, keep), now, out).unwrap_or_else(|error| {
            // The other workers would wait for this one for ever, so its error ends the process.
            let error = error.context(format!("writing to {} failed", out.display()));
            (process.give_up)(&error)
        })
    })
    .map_err(|error| anyhow::anyhow!("starting workers failed: {error}"))?;
    (process.watch)(ingest, &running);
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
                IngestError::Kafka(error) if error.class() == ErrorClass::Transient => Exit::Transient,
                IngestError::Kafka(_) => Exit::Fatal,
                IngestError::Panicked => Exit::Internal,
            },
            anyhow::anyhow!("{error}"),
        )),
    }
}

/// Runs one worker: takes messages, decodes while it waits, and steps the dataflow.
fn work(
    worker: &mut Worker,
    ingest: &Ingest,
    (tables, names): (Arc<TablesRead>, &Names),
    (options, keep): (keytide_dataflow::Options, Keep),
    now: Tick,
    out: &Path,
) -> anyhow::Result<Collect> {
    let index = worker.index();
    let workers = NonZeroUsize::new(worker.peers()).unwrap_or(NonZeroUsize::MIN);
    let collect = Rc::new(RefCell::new(Collect::new(out, ingest.partitions(), workers, keep, names)));
    let mut dataflow =
        worker.dataflow(|scope| render(scope, options, &collect, None)).expect("nothing is restored");
    let probe = dataflow.probe().clone();
    let mut local = ingest.enter_worker(index);
    dataflow.advance_to(now);
    if index == 0 {
        dataflow.definitions(&mut tables.definitions.clone());
        dataflow.tables(&mut tables.changes.clone());
        collect.borrow_mut().table_dead_letters(&tables.dead_letters)?;
    }
    drop(tables);
    let mut open: Tick = now;
    // Events since all ticks were done, and since the last round.
    let (mut in_flight, mut fresh) = (0, 0);
    let mut stepped: Tick = now;
    loop {
        if !probe.less_than(&open) {
            in_flight = 0;
        }
        let behind = probe.less_than(&open.saturating_sub(TICKS_IN_FLIGHT))
            || (in_flight >= EVENTS_IN_FLIGHT && probe.less_than(&open.saturating_sub(1)));
        // Enough is in flight: decode for others rather than take more.
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
            Some(Message::Tables { mut changes, letters, .. }) => {
                dataflow.tables(&mut changes);
                collect.borrow_mut().table_dead_letters(&letters)?;
            }
            Some(Message::Close { info, next, .. }) => {
                dataflow.end_tick(info);
                open = next;
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

/// Returns the mean rate of `count` over `seconds`, per second.
pub fn per_second(count: u64, seconds: f64) -> u64 {
    #[allow(clippy::cast_sign_loss, reason = "counts and durations aren't negative")]
    let rate = (count as f64 / seconds.max(1e-9)) as u64;
    rate
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keytide_config::{KeyHash, TableSource, Tables, TopicFormat};
    use keytide_dataflow::model::{NameId, TableRow};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

    use super::*;

    fn topic(cluster: &MockCluster<'static, DefaultProducerContext>, name: &str) -> Tables {
        let client = KafkaClient { brokers: cluster.bootstrap_servers(), settings: BTreeMap::new() };
        let format = TopicFormat::JsonUpsert;
        Tables {
            plans: Some(TableSource::Kafka { client, topic: name.to_owned(), format }),
            ..Tables::default()
        }
    }

    fn read(tables: &Tables) -> anyhow::Result<TablesRead> {
        let (client, table) = TopicTable::configured(tables, &[KeyHash::Sha256]).pop().expect("one table");
        read_topic(client, table)
    }

    #[test]
    fn the_topic_of_a_table_is_read_to_its_end() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("plans", 2, 1).unwrap();
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        for (partition, key, value) in [
            (0, "1", Some(r#"{"id":"old"}"#)),
            (0, "1", Some(r#"{"id":"gold","policy":"revoke"}"#)),
            (1, "2", Some(r#"{"id":"gone"}"#)),
            (1, "3", Some("{}")),
            (1, "2", None),
        ] {
            let record = BaseRecord::to("plans").partition(partition).key(key);
            let record = match value {
                Some(value) => record.payload(value),
                None => record,
            };
            producer.send::<str, str>(record).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();

        let read = read(&topic(&cluster, "plans")).unwrap();
        let [ref change] = read.changes[..] else { panic!("what is held at the end: {read:?}") };
        assert!(matches!(&change.row, TableRow::Plan(row) if row.id == NameId::new("gold")));
        assert_eq!((change.deleted, read.dead_letters.len()), (false, 1));
    }
}
