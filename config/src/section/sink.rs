//! The sections `[sink.*]` about the sinks of a live job.

use super::kafka::{Brokers, KafkaClient, LibrdkafkaSettings, Role};
use super::prelude::*;
use super::topic::is_topic;

/// Bytes of a prefix, which leave room for `.<view>.v1` with views of up to 45 characters.
const MAX_PREFIX_BYTES: usize = 200;
/// Replicas of a topic, which Kafka counts in 16 bits with a sign.
const MAX_REPLICATION: u64 = 32_767;

section! {
    /// The sections `[sink.*]`, each a sink of a live job.
    #[derive(Clone, Debug)]
    pub struct Sinks, RawSinks {
        other kafka: Option<KafkaSink> = kafka(RawKafkaSink) or None;
        other files: Option<FileSink> = files(RawFileSink) or None;
    }
}

section! {
    /// The section `[sink.kafka]`, a sink with one topic a view.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KafkaSink, RawKafkaSink, pub new(client: KafkaClient) {
        other client: KafkaClient;
        key brokers(Brokers);
        /// The prefix of the topics' names, which are `<prefix>.<view>.v1`.
        other prefix: String = prefix(Prefix) or "keytide".to_owned();
        /// The promise that a restart keeps about records. With `[state]` it is exactly once unless it is given.
        other delivery: Delivery = delivery(Delivery) or Delivery::AtLeastOnce;
        /// Partitions of topics that the job creates.
        other partitions: u32 = partitions(Count, 1..=10_000) or 6;
        /// Replicas of topics that the job creates; `None` for the default of the brokers.
        other replication: Option<u16> = replication(Count, 1..=MAX_REPLICATION) or None;
        /// If set, topics that are missing are created; otherwise they are an error.
        other create_topics: bool = create_topics(Flag) or true;
        /// Bytes of records that may wait to be sent; beyond them the job waits.
        other buffer_bytes: usize = buffer(Size, 1 << 20..=4 << 30) or 64 << 20;
        key librdkafka(LibrdkafkaSettings);
    }
}

section! {
    /// The section `[sink.files]`, a sink that writes series of files, `DIR/<view>-<number>`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FileSink, RawFileSink, pub new(dir: impl Into<PathBuf>) {
        /// The folder of the files.
        other dir: PathBuf = dir(PathText);
        /// The format of the files.
        other format: FileFormat = format(FileFormat) or FileFormat::JsonLines;
        /// Bytes of a file from which it is closed and the next one begun.
        other rotate_bytes: u64 = rotate_bytes(Size, 4 << 10..=64 << 30) or 64 << 20;
        /// The age at which a file is closed and the next one begun, in milliseconds.
        other rotate_after_ms: u64 = rotate_after(Millis, 1_000..=7 * DAY_MS) or HOUR_MS;
        /// How many closed files of a view are kept; 0 keeps all of them.
        other keep: u32 = keep(Count, 0..=1_000_000) or 0;
    }
}

choice! {
    /// The promise that a restart keeps about records of a sink.
    #[derive(Default)]
    pub enum Delivery {
        /// No record is lost, some may be sent again.
        #[default]
        AtLeastOnce = "at_least_once",
        /// No record is lost and none is sent again, for readers of committed records.
        ExactlyOnce = "exactly_once",
    }
}

choice! {
    /// A format of views in files.
    #[derive(PartialOrd, Ord, Hash)]
    pub enum FileFormat {
        /// One JSON object a line.
        JsonLines = "jsonl",
        Parquet = "parquet",
    }
}

impl KafkaSink {
    /// Returns the topic of the job's ledger, which an exactly-once sink has.
    #[must_use]
    pub fn progress_topic(&self) -> String {
        format!("{}.progress.v1", self.prefix)
    }
}

impl FileFormat {
    /// All formats, the default first.
    pub const ALL: [Self; 2] = [Self::JsonLines, Self::Parquet];

    /// Returns the format of a name; `None` for other names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

texts! {
    /// The beginning of the names of a sink's topics.
    Prefix if |text| is_topic(text, MAX_PREFIX_BYTES), format!("1 to {MAX_PREFIX_BYTES} of A-Z, a-z, 0-9, ., _ and -");
}

impl Validate<KafkaSink> for RawKafkaSink {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<KafkaSink> {
        let raw = &spot.value;
        let client = KafkaClient::read(&raw.brokers, &raw.librdkafka, spot, Role::Sink, check);
        // The other keys are checked even if the brokers are missing.
        let is_whole = client.is_some();
        let mut sink = KafkaSink::new(client.unwrap_or_else(|| KafkaClient::new("")));
        raw.fill(&mut sink, check);
        is_whole.then_some(sink)
    }
}

impl Validate<FileSink> for RawFileSink {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<FileSink> {
        let dir = check.required(&spot.value.dir, spot, "dir").map(|dir| check.base.join(&dir.0));
        let is_whole = dir.is_some();
        let mut sink = FileSink::new(dir.unwrap_or_default());
        spot.value.fill(&mut sink, check);
        is_whole.then_some(sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn exactly_once_needs_a_state_and_is_the_default_with_it() {
        let sink = "[sink.kafka]\nbrokers = \"a:1\"\n";
        let state = "[state]\nurl = \"state\"\n";
        let delivery = |more: &str| {
            parse_with(&format!("{SMALL}{more}"), &[]).unwrap().job.sinks.kafka.unwrap().delivery
        };
        assert_eq!(delivery(sink), Delivery::AtLeastOnce);
        assert_eq!(delivery(&format!("{sink}{state}")), Delivery::ExactlyOnce);
        assert_eq!(delivery(&format!("{sink}delivery = \"at_least_once\"\n{state}")), Delivery::AtLeastOnce);
    }

    #[test]
    fn values_beyond_their_range_are_reported() {
        let sink = "[sink.kafka]\nbrokers = \"a:1\"\n";
        let files = "[sink.files]\ndir = \"out\"\n";
        for (lines, expected) in [
            (
                "[sink.files]".to_owned(),
                "line 6: sink.files.dir: missing, allowed: a path, absolute or relative to the configuration file",
            ),
            ("[sink.redis]".to_owned(), "line 6: sink.redis: unknown key, allowed here: kafka, files"),
            (
                format!("{sink}delivery = \"exactly_once\""),
                "line 8: sink.kafka.delivery: found \"exactly_once\" without [state], allowed: at_least_once; a job that keeps no state begins anew and publishes again, so add [state] or remove this",
            ),
            (
                format!("{sink}delivery = \"at_least_onc\""),
                "line 8: sink.kafka.delivery: found \"at_least_onc\", allowed: at_least_once, exactly_once; did you mean \"at_least_once\"?",
            ),
            (format!("{sink}partitions = 0"), "line 8: sink.kafka.partitions: found 0, allowed: 1 to 10000"),
            (
                format!("{sink}partitions = 10001"),
                "line 8: sink.kafka.partitions: found 10001, allowed: 1 to 10000",
            ),
            (
                format!("{sink}replication = 0"),
                "line 8: sink.kafka.replication: found 0, allowed: 1 to 32767",
            ),
            (
                format!("{sink}replication = 32768"),
                "line 8: sink.kafka.replication: found 32768, allowed: 1 to 32767",
            ),
            (
                format!("{sink}create_topics = \"yes\""),
                "line 8: sink.kafka.create_topics: found \"yes\", allowed: true, false",
            ),
            (
                format!("{sink}buffer = \"1023KiB\""),
                "line 8: sink.kafka.buffer: found \"1023KiB\", allowed: 1MiB to 4GiB",
            ),
            (
                format!("{sink}buffer = \"5GiB\""),
                "line 8: sink.kafka.buffer: found \"5GiB\", allowed: 1MiB to 4GiB",
            ),
            (
                format!("{sink}prefix = \"a b\""),
                "line 8: sink.kafka.prefix: found \"a b\", allowed: 1 to 200 of A-Z, a-z, 0-9, ., _ and -",
            ),
            (
                format!("{files}rotate_bytes = 1"),
                "line 8: sink.files.rotate_bytes: found 1, allowed: 4KiB to 64GiB",
            ),
            (
                format!("{files}rotate_after = \"8d\""),
                "line 8: sink.files.rotate_after: found \"8d\", allowed: 1s to 7d",
            ),
            (
                format!("{files}rotate_after = \"999ms\""),
                "line 8: sink.files.rotate_after: found \"999ms\", allowed: 1s to 7d",
            ),
            (
                format!("{files}format = \"avro\""),
                "line 8: sink.files.format: found \"avro\", allowed: jsonl, parquet",
            ),
            (
                format!("{files}keep = 1000001"),
                "line 8: sink.files.keep: found 1000001, allowed: 0 to 1000000",
            ),
        ] {
            assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
        }
    }
}
