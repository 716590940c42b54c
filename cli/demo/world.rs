//! The world of a demo: its folder, its in-process broker, the job's configuration, and the staged traffic.
//!
//! ```text
//!             36 h before        live     +5 s   +17 s    event time
//!  100 keys   ───calls a minute───┼────────┼──────┼────►   the usual goes on
//!  one of them                             └─ 8 calls a second from a new country: stolen
//!  900 keys                       ┼──────────────────►    --rate calls a second, no history
//!                                                 └ a minute and five minutes end
//! ```
//! The detector judges no key in its first day, so 100 keys come with a history. They go on at the same pace, as a step
//! would look like a leak of all of them. The others only make traffic. Event times lag behind the clock by up to five
//! minutes, so that a minute ends 17 s after live traffic began, and five minutes do. The leak is an alert then: the few
//! calls of its first minute alone aren't, and it would be found 10 s later. The seed chooses the key that is stolen. Of
//! its owner's quota some 86 % are used when that minute ends, and more than all of it a minute later.
//!
//! Demos shorter than [`SHORTEST_STORY_MS`] have no history and no leak. All others last until the leak is found, or
//! until [`STORY_MS`] of live event time are over: a busy machine takes longer for the same traffic.
//!
//! The broker is librdkafka's own for tests: a listener on this machine that speaks Kafka's protocol. It keeps at most
//! 5 MiB of record batches of a partition (120 MiB in all) and drops older ones silently. It has neither compaction nor
//! transactions, and ends with the process. So the traffic must never run ahead of the job: see
//! [`traffic`](super::traffic).

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::{JobConfig, View};
use keytide_dataflow::Level;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_generator::{Configuration, GatewayFormat, Leak, Scenario, World, WorldSettings, create_folder};
use keytide_worker::exit::{Exit, failure};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::acting::Acting;
use super::asking::Asking;
use super::incidents::MAIL_FOLDER;
use super::{DemoArgs, whole_ms};

/// The topic of calls, which has `PARTITIONS` partitions.
pub(super) const TOPIC: &str = "access-events";
pub(super) const PARTITIONS: u32 = 8;
const RESULT_PARTITIONS: u32 = 2;
/// How long after the demo's start the first call comes, in ms, so that the job is there to read it.
const LEAD_MS: u64 = 1_000;
/// How much longer than the demo the calls last, in ms, so that the demo ends by its own clock. A busy machine may read
/// the history for another minute when live traffic has begun.
const SPARE_MS: u64 = 60_000;
/// The results' topics are called `demo.<view>.v1`.
const PREFIX: &str = "demo";

/// Where keys are: in a field of records, and in a header of the requests that gateways ask about.
const KEYS_OF_REQUESTS: &str = "\n[source.keys]\nfrom = [\"key\", \"header:apikey\"]\n";

/// Keys of all worlds; the last `KNOWN_KEYS` have a history.
const KEYS: u32 = 1_000;
pub(super) const KNOWN_KEYS: u32 = 100;
/// Length of the history: the day in which no key is judged, and half a day more.
pub(super) const HISTORY_MS: u64 = 36 * 3_600_000;
/// Calls of all keys with a history.
const KNOWN_CALLS_PER_HOUR: u64 = 1_600;
/// How unevenly these keys share the calls.
const KNOWN_ZIPF: f64 = 0.3;
/// Least calls in the history of the stolen key. No key with fewer than 300 would be suspended.
const STOLEN_KNOWN_CALLS: u32 = 450;
/// How long after the start of live traffic the thief starts.
pub(super) const LEAK_AFTER_MS: u64 = 5_000;
const LEAK_CALLS_PER_HOUR: u32 = 8 * 3_600;
/// How long after the start of live traffic a minute and five minutes end, by event time.
pub(super) const MINUTE_ENDS_AFTER_MS: u64 = 17_000;
/// Event time of live traffic after which the leak can't be found any more: the minute in which the thief started is
/// over, and the next one.
pub(super) const STORY_MS: u64 = MINUTE_ENDS_AFTER_MS + MINUTE_MS;
/// Least duration of a demo with history and leak.
pub(super) const SHORTEST_STORY_MS: u64 = 40_000;

/// The callers of a demo.
pub(super) struct Worlds {
    /// Keys with a history, one of which is stolen.
    pub(super) known: Option<World>,
    /// The other keys, or all if there is no history.
    pub(super) busy: World,
    /// The event time at which live traffic starts.
    pub(super) live_ms: u64,
}

impl Worlds {
    /// Makes the worlds of a demo that starts at `now_ms`.
    ///
    /// # Errors
    /// If there is no key to steal.
    pub(super) fn new(duration_ms: u64, rate: u32, seed: u64, now_ms: u64) -> anyhow::Result<Self> {
        let has_story = duration_ms >= SHORTEST_STORY_MS;
        let live_ms = match has_story {
            // The last time before now that is `MINUTE_ENDS_AFTER_MS` before the end of five minutes.
            true => Level::FiveMinutes.start(now_ms + MINUTE_ENDS_AFTER_MS) - MINUTE_ENDS_AFTER_MS,
            false => now_ms + LEAD_MS,
        };
        // On a busy machine the demo goes on until the leak is found.
        let span_ms = if has_story { duration_ms.max(STORY_MS) } else { duration_ms } + SPARE_MS;
        let usual = WorldSettings {
            events: calls(u64::from(rate) * span_ms / 1_000),
            start_ms: live_ms,
            span_ms,
            keys: KEYS,
            scenario: Scenario::Usual,
            // As if live traffic had lasted as long as the history: no quota of a plan is used up in a short demo.
            quota_calls: Some(u64::from(rate) * HISTORY_MS / 1_000),
            settled: true,
            misplaced: 0.0,
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

    /// Returns the id of the stolen key, as views have it.
    pub(super) fn stolen(&self) -> Option<String> {
        self.known.as_ref()?.first_staged_key()
    }

    /// Returns the stolen key as its callers show it.
    pub(super) fn stolen_secret(&self) -> Option<String> {
        self.known.as_ref()?.first_staged_secret()
    }

    /// Returns the id of the subscription that users are shown: that of the stolen key, or else a busy one.
    pub(super) fn shown_subscription(&self) -> String {
        let whole = self.whole();
        whole.stolen_subscription_id().or_else(|| whole.busy_subscription_id()).unwrap_or_default()
    }

    /// Returns the event time of the first call.
    pub(super) fn start_ms(&self) -> u64 {
        if self.known.is_some() { self.live_ms - HISTORY_MS } else { self.live_ms }
    }

    /// Returns the world whose tables have all keys.
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

/// Makes the demo's folder with tables and geo databases, and its worlds.
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

/// An in-process broker with the demo's topics; dropping it ends it.
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

    /// Returns the address at which it listens.
    pub(super) fn address(&self) -> String {
        self.0.bootstrap_servers()
    }
}

/// Writes the job's configuration into the folder, and reads it like any other.
pub(super) fn configure(
    folder: &Path,
    brokers: &str,
    workers: usize,
    asking: &Asking,
    acting: Option<&Acting>,
) -> anyhow::Result<JobConfig> {
    let text = configuration(brokers, workers, asking, acting);
    let path = folder.join("keytide.toml");
    fs::write(&path, &text).with_context(|| format!("can't write {}", path.display()))?;
    // No environment: variables are meant for the user's own jobs.
    let loaded = JobConfig::parse(&text, folder, std::iter::empty())
        .map_err(|error| failure(Exit::Internal, error))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.job)
}

fn configuration(brokers: &str, workers: usize, asking: &Asking, acting: Option<&Acting>) -> String {
    let rest = rest(brokers, acting.is_some())
        + &asking.section()
        + &acting.map_or_else(String::new, Acting::sections);
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
        beneath: KEYS_OF_REQUESTS,
        rest: &rest,
    };
    configuration.to_string()
}

/// Returns the sections that the configuration of a generated log doesn't have.
fn rest(brokers: &str, has_state: bool) -> String {
    let delivery = match has_state {
        true => "delivery = \"at_least_once\"                 # the demo's broker has no transactions\n",
        false => "",
    };
    format!(
        r#"
[windows]
out_of_orderness = "5s"                    # the watermark is so far behind the latest call
allowed_lateness = "10s"                   # short, so that windows complete while somebody watches
idle_ticks = 1000                          # ticks without calls after which the clock takes over: not while ticks
                                           # of a history follow each other at once
skew = "1h"                                # how far ahead of the watermark history is read

[alerts.email]                             # nothing leaves this machine: a mail is a file
dir = "{MAIL_FOLDER}"
from = "Keytide <keytide@example.com>"
to = ["security@example.com"]
owners = true                              # and those whose key it is
quota_notices = true                       # and those whose quota is nearly used up

[alerts.policy]                            # what plans say may be done; only shown without a live [[gateway]]
default = "alert"                          # for plans that say nothing

[detection]
alert = 4                                  # stricter than by default: a demo's keys have a day and a half of history

[sink.kafka]                               # demo.usage.v1, demo.latency.v1, ...
brokers = "{brokers}"
prefix = "{PREFIX}"
partitions = {RESULT_PARTITIONS}
{delivery}
[sink.files]                               # the same rows: views/usage-000001.jsonl, ...
dir = "views"
rotate_bytes = "16MiB"
keep = 7                                   # of each view, so that a long demo doesn't fill the disk
"#
    )
}
