//! Where a demo happens: a folder, an in-process broker, the job's configuration; and what happens in it.
//!
//! ```text
//!             36 h before        live     +8 s   +20 s    event time
//!  100 keys   ───calls a minute───┼────────┼──────┼────►   the usual goes on
//!  one of them                             └─ 8 calls a second from a new country: stolen
//!  900 keys                       ┼──────────────────►    --rate calls a second, no history
//!                                                 └ a minute ends: what its calls say is final
//! ```
//! The detector judges no key in its first day, so those that matter come with a history, at the pace at which they go
//! on: there is no step that looks like a leak of all. The others only make traffic. Event times are those of the clock
//! less what it takes for a minute to end 20 s after live traffic began; the seed says which key is stolen.
//!
//! Demos shorter than [`SHORTEST_STORY_MS`] have no history and no leak. All others last until the leak is found, or by
//! event time [`STORY_MS`] of live traffic are over: a machine that has much else to do takes longer for the history.
//!
//! The broker is librdkafka's own, made for its tests: a listener on this machine that speaks Kafka's protocol. It
//! keeps at most 5 MiB of record batches of a partition (120 MiB in all), drops older ones without a word, knows neither
//! compaction nor transactions, and is gone with the process. That is why the traffic never runs ahead of the job: see
//! [`traffic`](super::traffic).

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::{JobConfig, View};
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_generator::{Configuration, GatewayFormat, Leak, Scenario, World, WorldSettings, create_folder};
use keytide_worker::exit::{Exit, failure};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::{DemoArgs, whole_ms};

/// The topic of calls.
pub(super) const TOPIC: &str = "access-events";
/// Its partitions.
pub(super) const PARTITIONS: u32 = 8;
const RESULT_PARTITIONS: u32 = 2;
/// The first call comes so much later: when the job is there to read it.
const LEAD_MS: u64 = 1_000;
/// There are calls for so much longer than the demo lasts: it ends by its own clock.
const SPARE_MS: u64 = 10_000;
/// The folder of mails.
pub(super) const MAILS: &str = "mails";
/// The results' topics are called `demo.<view>.v1`.
const PREFIX: &str = "demo";

/// Keys in all, and those of them with a history: the last ones.
const KEYS: u32 = 1_000;
pub(super) const KNOWN_KEYS: u32 = 100;
/// Their history: the day in which no key is judged, and half a day more.
pub(super) const HISTORY_MS: u64 = 36 * 3_600_000;
/// Their calls, and how evenly they share them.
const KNOWN_CALLS_PER_HOUR: u64 = 1_600;
const KNOWN_ZIPF: f64 = 0.3;
/// The stolen one is known by so many, at least: with fewer than 300 no key would be suspended.
const STOLEN_KNOWN_CALLS: u32 = 450;
/// The thief starts so long after live traffic does ...
pub(super) const LEAK_AFTER_MS: u64 = 8_000;
/// ... and calls so often.
const LEAK_CALLS_PER_HOUR: u32 = 8 * 3_600;
/// Live traffic starts so long before a minute ends, by event time.
const MINUTE_ENDS_AFTER_MS: u64 = 20_000;
/// A leak that wasn't found so long after live traffic started, by event time, won't be: the minute in which the thief
/// began is over, and the next one.
pub(super) const STORY_MS: u64 = MINUTE_ENDS_AFTER_MS + MINUTE_MS;
/// With history and leak all of it takes half a minute on a machine with nothing else to do.
pub(super) const SHORTEST_STORY_MS: u64 = 40_000;

/// All who call, and since when.
pub(super) struct Worlds {
    /// Keys with a history, one of which is stolen.
    pub(super) known: Option<World>,
    /// The others; without a history all.
    pub(super) busy: World,
    /// When live traffic starts, by event time.
    pub(super) live_ms: u64,
}

impl Worlds {
    /// The worlds of a demo that begins now.
    ///
    /// # Errors
    /// If there is no key to steal.
    pub(super) fn new(duration_ms: u64, rate: u32, seed: u64, now_ms: u64) -> anyhow::Result<Self> {
        let has_story = duration_ms >= SHORTEST_STORY_MS;
        let live_ms = match has_story {
            // The last time before now after which a minute ends so soon.
            true => (now_ms + MINUTE_ENDS_AFTER_MS) / MINUTE_MS * MINUTE_MS - MINUTE_ENDS_AFTER_MS,
            false => now_ms + LEAD_MS,
        };
        // On a busy machine it goes on until the leak is found.
        let span_ms = if has_story { duration_ms.max(STORY_MS) } else { duration_ms } + SPARE_MS;
        let usual = WorldSettings {
            events: calls(u64::from(rate) * span_ms / 1_000),
            start_ms: live_ms,
            span_ms,
            keys: KEYS,
            scenario: Scenario::Usual,
            seed,
            broken: 0.000_5,
            partitions: PARTITIONS,
            ..WorldSettings::DEFAULT
        };
        if !has_story {
            return Ok(Self { known: None, busy: World::new(usual)?, live_ms });
        }
        let busy_keys = KEYS - KNOWN_KEYS;
        let known_ms = HISTORY_MS + span_ms;
        let known = WorldSettings {
            events: calls(KNOWN_CALLS_PER_HOUR * known_ms / 3_600_000),
            start_ms: live_ms - HISTORY_MS,
            span_ms: known_ms,
            callers: Some((busy_keys, KNOWN_KEYS)),
            zipf: KNOWN_ZIPF,
            leak: Some(Leak {
                from_ms: live_ms + LEAK_AFTER_MS,
                calls_per_hour: LEAK_CALLS_PER_HOUR,
                known_calls: STOLEN_KNOWN_CALLS,
            }),
            ..usual.clone()
        };
        let busy = WorldSettings { callers: Some((0, busy_keys)), ..usual };
        Ok(Self { known: Some(World::new(known)?), busy: World::new(busy)?, live_ms })
    }

    /// The stolen key, as views have it.
    pub(super) fn stolen(&self) -> Option<String> {
        self.known.as_ref()?.first_staged_key()
    }

    /// When the first of them calls, by event time.
    pub(super) fn start_ms(&self) -> u64 {
        if self.known.is_some() { self.live_ms - HISTORY_MS } else { self.live_ms }
    }

    /// The world whose tables are those of all.
    pub(super) fn whole(&self) -> &World {
        self.known.as_ref().unwrap_or(&self.busy)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &World> {
        self.known.iter().chain([&self.busy])
    }
}

fn calls(calls: u64) -> NonZeroU64 {
    NonZeroU64::new(calls).unwrap_or(NonZeroU64::MIN)
}

/// Makes the demo's folder with tables and geo databases, and the worlds that they are of.
///
/// # Errors
/// If the folder isn't empty or can't be written to.
pub(super) fn create(args: &DemoArgs, now_ms: u64) -> anyhow::Result<(PathBuf, Worlds)> {
    let folder = match &args.out {
        Some(out) => out.clone(),
        None => tempfile::Builder::new()
            .prefix("keytide-demo-")
            .tempdir()
            .context("can't make a folder for temporary files; name another one with --out")?
            .keep(),
    };
    let worlds = Worlds::new(whole_ms(args.duration.unsigned_abs()), args.rate, args.seed, now_ms)?;
    create_folder(&folder, worlds.whole())?;
    Ok((folder, worlds))
}

/// An in-process broker with the demo's topics; gone when dropped.
pub(super) struct DemoBroker(MockCluster<'static, DefaultProducerContext>);

impl DemoBroker {
    pub(super) fn start() -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("starting the in-process broker failed")?;
        let results = View::ALL.map(|view| (view.topic(PREFIX), RESULT_PARTITIONS));
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
    let configuration = Configuration {
        comment: r"# The job that `keytide demo` ran, whole. Its broker was part of the demo's process and is gone with it: to run
# the job, put the brokers of your own in both places.
#
#   keytide check keytide.toml
",
        job: &format!("name = \"demo\"\ntick = \"1s\"\nworkers = {workers}\n"),
        format: GatewayFormat::Json,
        source: &format!("kind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{TOPIC}\"\n"),
        // The country of an address is looked up in the generated database.
        country: false,
        beneath: "",
        rest: &rest(brokers),
    };
    configuration.to_string()
}

/// The sections that a generated log's job doesn't have.
fn rest(brokers: &str) -> String {
    format!(
        r#"
[windows]
out_of_orderness = "5s"                    # the watermark is so far behind the latest call
allowed_lateness = "10s"                   # short, so that windows complete while somebody watches
idle_ticks = 1000                          # ticks without calls after which the clock takes over: not while ticks
                                           # of a history follow each other at once
skew = "1h"                                # how far ahead of the watermark history is read

[alerts.email]                             # nothing leaves this machine: a mail is a file
dir = "{MAILS}"
from = "Keytide <keytide@example.com>"
to = ["security@example.com"]
owners = true                              # and those whose key it is

[alerts.policy]                            # what plans say may be done; in this version it isn't
default = "alert"                          # for plans that say nothing

[detection]
alert = 4                                  # stricter than by default: a demo's keys have a day and a half of history

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
