//! Sends lines as messages to a topic, as fast as possible or at a rate.
//!
//! Every line is sent. If the brokers are slow or down, sending waits and then catches up. A rate is kept in slices of
//! 10 ms. With `--start now` a line is sent when it arrives by event time, otherwise at an even rate.
//!
//! The caller can stop the calls early. Delayed calls are then still sent, and all messages are acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use keytide_config::{JobConfig, KafkaClient, SourceKind, environment};
use keytide_connectors::kafka::Producer;

use super::configuration::Configuration;
use super::folder;
use super::lines::Generated;
use super::progress::RunProgress;
use crate::args::{GenerateArgs, SendRate, StartTime};
use crate::story::World;
use crate::world::settings::WorldSettings;

/// Lines that are due within this time are sent together.
const SLICE: Duration = Duration::from_millis(10);
/// The longest wait for the brokers to acknowledge the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

/// A topic to which lines are sent.
pub struct TopicTarget {
    producer: Producer,
    source: TopicSource,
    stop: Arc<AtomicBool>,
}

/// The topic as the arguments describe it, from which the job's source is made.
pub(crate) struct TopicSource {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// Settings whose paths are absolute.
    pub(crate) librdkafka: Vec<(String, String)>,
}

impl TopicTarget {
    /// Looks up the topic that the arguments name. Returns `None` if they name none.
    ///
    /// # Errors
    /// If a setting isn't allowed, or the topic doesn't exist.
    pub fn open(args: &GenerateArgs) -> anyhow::Result<Option<Self>> {
        let (Some(brokers), Some(topic)) = (&args.kafka, &args.topic) else { return Ok(None) };
        let librdkafka = args.librdkafka.iter().map(absolute).collect::<Result<_, _>>()?;
        let source = TopicSource { brokers: brokers.clone(), topic: topic.clone(), librdkafka };
        let producer = Producer::open(&source.client()?, topic)?;
        Ok(Some(Self { producer, source, stop: Arc::default() }))
    }

    /// Describes the topic in words, for the report.
    pub fn description(&self) -> String {
        format!("sent to topic `{}` of {}", self.source.topic, self.source.brokers)
    }

    /// Returns a flag. Setting it to true stops the calls; delayed ones are still sent.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Writes the folder if one is named, and sends all calls. Returns the counts of lines, and the seconds that it took.
    ///
    /// # Errors
    /// If the folder isn't empty or can't be written to, if the world is too small for its scenario, or if the
    /// brokers refuse a line.
    pub fn run(&self, args: &GenerateArgs, now_ms: u64) -> anyhow::Result<(Generated, f64)> {
        let partitions = u32::try_from(self.producer.partitions()).unwrap_or(u32::MAX);
        let world = World::new(args.settings(now_ms, Some(partitions))?)?;
        let out = args.out.as_deref();
        if let Some(out) = out {
            folder::create(out, &world)?;
            folder::write(out, "keytide.toml", self.source.configuration(&world.settings, false))?;
        }
        let progress = RunProgress::new(&world.settings);
        let pace = match (args.start, args.rate.unwrap_or(SendRate::Max)) {
            (StartTime::Now, _) => SendPace::Live { start_ms: world.settings.start_ms },
            (_, SendRate::PerSecond(per_s)) => SendPace::Even { per_s },
            (_, SendRate::Max) => SendPace::Max,
        };
        let generated = self.send(&world, pace, out, &progress);
        progress.clear();
        Ok((generated?, progress.seconds()))
    }

    fn send(
        &self,
        world: &World,
        pace: SendPace,
        out: Option<&Path>,
        progress: &RunProgress,
    ) -> anyhow::Result<Generated> {
        let mut generator = world.generator();
        let mut clock = SendClock { began: Instant::now(), reached: Duration::ZERO };
        let (mut sent, mut stopped) = (0, false);
        while let Some(line) = generator.next_line() {
            if !stopped && let Some(due) = pace.due(sent, line.at_ms) {
                clock.wait(due, &self.stop, || progress.show(line.at_ms));
            }
            self.producer.send(line.partition, None, line.text())?;
            progress.at(line.at_ms);
            sent += 1;
            if !stopped && self.stop.load(Ordering::Relaxed) {
                stopped = true;
                generator.stop();
            }
        }
        self.producer.flush(FLUSH_TIMEOUT)?;
        if let Some(out) = out {
            folder::finish(out, &generator)?;
        }
        Ok(generator.generated())
    }
}

impl TopicSource {
    /// Returns the client's configuration, which is checked like that of a job.
    fn client(&self) -> anyhow::Result<KafkaClient> {
        let text = self.configuration(&WorldSettings::DEFAULT, true);
        // Variables that override a job's configuration don't apply here; those with secrets do.
        let environment =
            environment().filter(|(name, _)| !(name.starts_with("KEYTIDE_") && name.contains("__")));
        let loaded = JobConfig::parse(&text, Path::new(""), environment).map_err(|error| {
            // As text, so that the exit code says that the user's input is wrong, whatever the cause.
            anyhow!("--kafka, --topic, --librdkafka: {error}")
        })?;
        let kafka = loaded.job.sources.into_iter().find_map(|source| match source.kind {
            SourceKind::Kafka(kafka) => Some(kafka.client),
            _ => None,
        });
        kafka.context("the configuration has a source of this kind")
    }

    /// Returns a configuration whose source is the topic. The producer's has all settings, a job's only those that concern
    /// the connection.
    pub(crate) fn configuration(&self, settings: &WorldSettings, for_producer: bool) -> String {
        let Self { brokers, topic, librdkafka } = self;
        let source = format!("kind = \"kafka\"\nbrokers = {}\ntopic = {}\n", text(brokers), text(topic));
        let concerns = |name: &str| {
            ["security.", "sasl.", "ssl.", "client.", "broker.", "socket.", "keytide."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let mut beneath = String::new();
        for (name, value) in librdkafka.iter().filter(|(name, _)| for_producer || concerns(name)) {
            if beneath.is_empty() {
                beneath.push_str("\n[source.librdkafka]\n");
            }
            beneath.push_str(&format!("{} = {}\n", text(name), text(value)));
        }
        let rest = "\n[sink.files]\ndir = \"views\"\n";
        let configuration = Configuration {
            comment: &Configuration::comment(settings, "keytide run keytide.toml"),
            job: "name = \"generated\"\n",
            format: settings.format,
            source: &source,
            country: true,
            beneath: &beneath,
            rest,
        };
        configuration.to_string()
    }
}

/// Quotes a text for TOML, whose escapes are those of JSON.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Makes the path in a setting absolute, if it has one.
pub(crate) fn absolute((name, value): &(String, String)) -> anyhow::Result<(String, String)> {
    let path = match value.strip_prefix("file:") {
        Some(path) => Some(("file:", path)),
        None => (name.ends_with(".location") || name.ends_with(".file")).then_some(("", value.as_str())),
    };
    let Some((prefix, path)) = path.filter(|(_, path)| !path.is_empty() && *path != "probe") else {
        return Ok((name.clone(), value.clone()));
    };
    let path = std::path::absolute(path).with_context(|| format!("the path of {name} can't be resolved"))?;
    Ok((name.clone(), format!("{prefix}{}", path.display())))
}

/// The times at which lines are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SendPace {
    Max,
    Even {
        per_s: u32,
    },
    /// Lines are sent when they arrive by event time; `start_ms` is now.
    Live {
        start_ms: u64,
    },
}

impl SendPace {
    /// Returns when the line after `sent` others is due, from the start of sending, or `None` if at once.
    pub(crate) fn due(self, sent: u64, at_ms: u64) -> Option<Duration> {
        match self {
            Self::Max => None,
            Self::Even { per_s } => {
                let per_s = u64::from(per_s);
                let nanos = sent % per_s * 1_000_000_000 / per_s;
                Some(Duration::from_secs(sent / per_s) + Duration::from_nanos(nanos))
            }
            Self::Live { start_ms } => Some(Duration::from_millis(at_ms.saturating_sub(start_ms))),
        }
    }
}

/// The time since sending began. The system's clock is read only when it matters.
struct SendClock {
    began: Instant,
    reached: Duration,
}

impl SendClock {
    /// Waits until `due`, or until `stop` is true.
    fn wait(&mut self, due: Duration, stop: &AtomicBool, mut meanwhile: impl FnMut()) {
        while self.reached < due && !stop.load(Ordering::Relaxed) {
            self.reached = self.began.elapsed();
            if self.reached < due {
                meanwhile();
                std::thread::park_timeout(SLICE);
            }
        }
    }
}
