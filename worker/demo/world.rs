//! Where a demo happens: a folder, an in-process broker, the job's configuration.
//!
//! The broker is librdkafka's own, made for its tests: a listener on this machine that speaks Kafka's protocol. It
//! keeps at most 5 MiB of record batches of a partition (120 MiB in all), drops older ones without a word, knows neither
//! compaction nor transactions, and is gone with the process. That is why the traffic never runs ahead of the job: see
//! [`traffic`](super::traffic).

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::{JobConfig, VIEWS};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::{Args, whole_ms};
use crate::clock::now;
use crate::exit::{Exit, failure};
use crate::generate::{self, Scenario, Settings, World};

/// The topic of calls.
pub(super) const TOPIC: &str = "access-events";
/// Its partitions.
pub(super) const PARTITIONS: u32 = 8;
const RESULT_PARTITIONS: u32 = 2;
/// The first call comes so much later: when the job is there to read it.
const LEAD_MS: u64 = 1_000;
/// There are calls for so much longer than the demo lasts: it ends by its own clock.
const SPARE_MS: u64 = 10_000;
/// The results' topics are called `demo.<view>.v1`.
const PREFIX: &str = "demo";

/// Makes the demo's folder and the world whose tables and geo databases are written to it.
///
/// # Errors
/// If the folder isn't empty or can't be written to.
pub(super) fn create(args: &Args) -> anyhow::Result<(PathBuf, World)> {
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => tempfile::Builder::new()
            .prefix("keytide-demo-")
            .tempdir()
            .context("can't make a folder for temporary files; name another one with --out")?
            .keep(),
    };
    let world = world(args)?;
    generate::folder::create(&folder, &world)?;
    Ok((folder, world))
}

/// Usual traffic, with leaks and look-alikes in it if there is an hour for them and the world has enough keys that are
/// used enough.
fn world(args: &Args) -> anyhow::Result<World> {
    let span_ms = whole_ms(args.duration.unsigned_abs()) + SPARE_MS;
    let settings = Settings {
        events: NonZeroU64::new(u64::from(args.rate) * span_ms / 1_000).unwrap_or(NonZeroU64::MIN),
        start_ms: now() + LEAD_MS,
        span_ms,
        scenario: Scenario::Usual,
        seed: args.seed,
        broken: 0.000_5,
        partitions: PARTITIONS,
        ..Settings::DEFAULT
    };
    match World::new(Settings { scenario: Scenario::Mixed, ..settings.clone() }) {
        Ok(world) => Ok(world),
        Err(_) => World::new(settings),
    }
}

/// An in-process broker with the demo's topics; gone when dropped.
pub(super) struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Broker {
    pub(super) fn start() -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("starting the in-process broker failed")?;
        let results = VIEWS.map(|view| (format!("{PREFIX}.{view}.v1"), RESULT_PARTITIONS));
        for (topic, partitions) in results.into_iter().chain([(TOPIC.to_owned(), PARTITIONS)]) {
            cluster
                .create_topic(&topic, partitions.cast_signed(), 1)
                .with_context(|| format!("creating the topic {topic} failed"))?;
        }
        Ok(Self(cluster))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// Writes the job's configuration into the folder, and reads it as any other job's.
pub(super) fn configure(folder: &Path, brokers: &str, workers: usize) -> anyhow::Result<JobConfig> {
    let text = configuration(brokers, workers);
    let path = folder.join("keytide.toml");
    fs::write(&path, &text).with_context(|| format!("can't write {}", path.display()))?;
    // Overrides are for jobs that somebody configured.
    let loaded = JobConfig::parse(&text, folder, std::iter::empty())
        .map_err(|error| failure(Exit::Internal, error))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.job)
}

fn configuration(brokers: &str, workers: usize) -> String {
    format!(
        r#"# The job that `keytide demo` ran, whole. Its broker was part of the demo's process and is gone with it: to run
# the job, put the brokers of your own in both places.
#
#   keytide check keytide.toml

[job]
name = "demo"
tick = "1s"
workers = {workers}

[keys]
from = ["key"]                             # the field that [source.fields] maps
hash = "sha256"                            # raw keys end here

[[source]]
name = "gateway"
kind = "kafka"
brokers = "{brokers}"
topic = "{TOPIC}"
format = "json"

[source.fields]
request_id = "/requestId"
time = {{ at = "/requestTime", unit = "ms" }}
key = "/apiKey"
route = "/routeKey"
method = "/httpMethod"
status = "/status"
latency = {{ at = "/latencyMs", unit = "ms" }}
bytes_in = "/requestLength"
bytes_out = "/responseLength"
client_ip = "/ip"                          # looked up in the databases of [geo]
user_agent = "/userAgent"

[tables.keys]                              # whose key it is
kind = "file"
path = "tables/keys.csv"
format = "csv"

[tables.subscriptions]
kind = "file"
path = "tables/subscriptions.csv"
format = "csv"

[tables.plans]
kind = "file"
path = "tables/plans.csv"
format = "csv"

[geo]                                      # generated, over addresses that nobody has
country = "geo/country.mmdb"
asn = "geo/asn.mmdb"

[windows]
out_of_orderness = "5s"                    # the watermark is so far behind the latest call
allowed_lateness = "10s"                   # short, so that windows complete while somebody watches

[sink.kafka]                               # demo.usage.v1, demo.latency.v1, ...
brokers = "{brokers}"
prefix = "{PREFIX}"
partitions = {RESULT_PARTITIONS}

[sink.files]                               # the same rows: views/usage-000001.jsonl, ...
dir = "views"
rotate_bytes = "16MiB"
keep = 7                                   # of each view, so that a long demo doesn't fill the disk
"#
    )
}
