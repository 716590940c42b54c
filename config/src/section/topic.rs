//! Topics of events, and the range of records that is read.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::kafka::KafkaClient;
use super::prelude::*;

/// Bytes of a topic's name, as Kafka limits them.
const MAX_TOPIC_BYTES: usize = 249;
/// Numbers of partitions must be lower.
const MAX_PARTITIONS: u32 = 1 << 20;

/// A Kafka topic of access events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSource {
    pub client: KafkaClient,
    pub topic: String,
    pub start: Start,
    /// The end of a bounded run (`replay`), which a live job ignores.
    pub end: End,
    /// The reaction to records that are gone before they were read.
    pub on_gap: OnGap,
}

impl KafkaSource {
    /// Returns a source of all records that `topic` keeps, which stops at a gap.
    #[must_use]
    pub fn new(client: KafkaClient, topic: impl Into<String>) -> Self {
        Self {
            client,
            topic: topic.into(),
            start: Start::default(),
            end: End::default(),
            on_gap: OnGap::default(),
        }
    }
}

impl Fingerprint for KafkaSource {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { client, topic, start, end, on_gap } = self;
        encoder.add(client);
        encoder.add(topic);
        match start {
            Start::Earliest => encoder.text("earliest"),
            Start::Latest => encoder.text("latest"),
            Start::Time(time) => add_time(*time, encoder),
            Start::Offsets(offsets) => add_offsets(offsets, encoder),
        }
        match end {
            End::Latest => encoder.text("latest"),
            End::Time(time) => add_time(*time, encoder),
            End::Offsets(offsets) => add_offsets(offsets, encoder),
        }
        encoder.add(on_gap);
    }
}

fn add_time(time: u64, encoder: &mut Encoder) {
    encoder.text("time");
    encoder.number(time);
}

fn add_offsets(offsets: &BTreeMap<u32, u64>, encoder: &mut Encoder) {
    encoder.text("offsets");
    encoder.number(offsets.len() as u64);
    for (partition, offset) in offsets {
        encoder.number((*partition).into());
        encoder.number(*offset);
    }
}

/// The point of a topic at which reading starts, displayed as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// The earliest record that is kept.
    #[default]
    Earliest,
    /// The end of the topic at the start of the job.
    Latest,
    /// The first record whose Kafka timestamp is at or after this time, in ms since the epoch.
    Time(u64),
    /// Offsets by partition. Other partitions start at their earliest record.
    Offsets(BTreeMap<u32, u64>),
}

/// The point of a topic at which a bounded run ends, displayed as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum End {
    /// Behind the last record there is when the run starts.
    #[default]
    Latest,
    /// Before the first record whose Kafka timestamp is at or after this time, in ms since the epoch.
    Time(u64),
    /// Before these offsets by partition. Other partitions end behind their last record.
    Offsets(BTreeMap<u32, u64>),
}

choice! {
    /// The reaction to records that retention removed before they were read.
    #[derive(Default)]
    pub enum OnGap {
        /// The job ends with a definite error.
        #[default]
        Stop = "stop",
        /// The job goes on behind the gap, which becomes a dead letter and a metric.
        Skip = "skip",
    }
}

texts! {
    /// The name of a topic.
    TopicName if |text| is_topic(text, MAX_TOPIC_BYTES), format!("1 to {MAX_TOPIC_BYTES} of A-Z, a-z, 0-9, ., _ and -");
}

pub(crate) fn is_topic(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(text, "." | "..")
}

impl Scalar for Start {
    fn allowed() -> String {
        format!("\"earliest\", \"latest\", {POINTS}")
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        point(value, &[("earliest", Self::Earliest), ("latest", Self::Latest)], Self::Time, Self::Offsets)
    }
}

impl Scalar for End {
    fn allowed() -> String {
        format!("\"latest\", {POINTS}")
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        point(value, &[("latest", Self::Latest)], Self::Time, Self::Offsets)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => f.write_str(&time_text(*time)),
            Self::Offsets(offsets) => f.write_str(&offsets_text(offsets)),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(time) => f.write_str(&time_text(*time)),
            Self::Offsets(offsets) => f.write_str(&offsets_text(offsets)),
        }
    }
}

/// The points other than words, as messages name them.
const POINTS: &str =
    "a time with its offset such as \"2026-01-31T12:00:00Z\", or offsets by partition such as { 0 = 100 }";

/// Reads a point of a topic: one of the words, a time, or offsets by partition.
fn point<T: Clone>(
    value: &TomlValue,
    words: &[(&str, T)],
    at_time: fn(u64) -> T,
    at_offsets: fn(BTreeMap<u32, u64>) -> T,
) -> Result<T, Refusal> {
    match value {
        TomlValue::Text(text) => {
            let word = words.iter().find(|(word, _)| word == text).map(|(_, point)| point.clone());
            word.or_else(|| time(text).map(at_time)).ok_or_else(|| Refusal {
                hint: did_you_mean(nearest(text, words.iter().map(|(word, _)| *word))),
                ..Refusal::default()
            })
        }
        TomlValue::Time(text) => refuse(time(text).map(at_time)),
        TomlValue::Table(table) => {
            let mut offsets = BTreeMap::new();
            for (name, node) in table.entries() {
                let Some(partition) = partition(name) else {
                    let hint = format!("{} is no number of a partition", quoted(name));
                    return Err(Refusal { hint: Some(hint), ..Refusal::default() });
                };
                let offset = match &node.value {
                    TomlValue::Integer(offset) => u64::try_from(*offset).ok(),
                    _ => None,
                };
                let Some(offset) = offset else {
                    let hint = format!("the offset of partition {partition} is no whole number");
                    return Err(Refusal { hint: Some(hint), ..Refusal::default() });
                };
                offsets.insert(partition, offset);
            }
            refuse((!offsets.is_empty()).then(|| at_offsets(offsets)))
        }
        _ => Err(Refusal::default()),
    }
}

/// Reads the number of a partition. Leading zeros are refused, so that no partition has two names.
fn partition(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number < MAX_PARTITIONS && number.to_string() == text).then_some(number)
}

/// Reads an RFC 3339 time as milliseconds since the epoch, rounded up to the first that isn't before it.
fn time(text: &str) -> Option<u64> {
    let plain = |b: u8| b.is_ascii_digit() || b"-:.+TtZz ".contains(&b);
    let time: Timestamp = text.bytes().all(plain).then(|| text.parse().ok())??;
    let millis = time.as_nanosecond().checked_add(999_999)?.div_euclid(1_000_000);
    u64::try_from(millis).ok()
}

fn time_text(millis: u64) -> String {
    let time = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| format!("{millis} ms after the epoch"), |time| time.to_string())
}

fn offsets_text(offsets: &BTreeMap<u32, u64>) -> String {
    let pairs = offsets.iter().map(|(partition, offset)| format!("{partition} = {offset}"));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use crate::*;

    #[test]
    fn a_topic_needs_brokers_and_a_name() {
        assert_eq!(kafka_source(KAFKA), KafkaSource::new(client("kafka:9092", &[]), "events"));
        let source = KafkaSource::new(client("kafka:9092", &[]), "events");
        assert_eq!(
            (&source.start, &source.end, source.on_gap),
            (&Start::Earliest, &End::Latest, OnGap::Stop)
        );
        assert_eq!(
            problems("[[source]]\nname = \"gateway\"\nkind = \"kafka\"\nformat = \"apisix\"\npath = \"x\""),
            "line 1: source.\"gateway\".brokers: missing, allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"\n\
             line 1: source.\"gateway\".topic: missing, allowed: 1 to 249 of A-Z, a-z, 0-9, ., _ and -\n\
             line 5: source.\"gateway\".path: has no meaning here, allowed: only beside kind = \"file\""
        );
        assert_eq!(
            problems(&format!(
                "{SMALL}brokers = \"a:1\"\nstart = \"latest\"\nend = \"latest\"\non_gap = \"skip\"\n[source.librdkafka]"
            ))
            .matches("has no meaning here, allowed: only beside kind = \"kafka\"")
            .count(),
            5
        );
    }

    #[test]
    fn topics_have_names_that_kafka_takes() {
        let longest = "t".repeat(249);
        for (topic, allowed) in [
            ("Crm.public_Keys-1", true),
            (longest.as_str(), true),
            (&format!("{longest}t"), false),
            ("", false),
            (".", false),
            ("..", false),
            ("a b", false),
            ("a/b", false),
            ("^events.*", false),
            ("ключи", false),
        ] {
            assert_eq!(
                parse(&KAFKA.replace("\"events\"", &format!("\"{topic}\""))).is_ok(),
                allowed,
                "{topic}"
            );
        }
    }

    #[test]
    fn reading_starts_and_ends_at_a_word_a_time_or_offsets() {
        let offsets =
            |pairs: &[(u32, u64)]| pairs.iter().copied().collect::<std::collections::BTreeMap<_, _>>();
        const NOON: u64 = 1_769_860_800_000;
        for (written, start) in [
            ("\"earliest\"", Start::Earliest),
            ("\"latest\"", Start::Latest),
            ("\"2026-01-31T12:00:00Z\"", Start::Time(NOON)),
            ("2026-01-31T12:00:00Z", Start::Time(NOON)),
            ("\"2026-01-31T13:30:00+01:30\"", Start::Time(NOON)),
            ("\"2026-01-31T12:00:00.000000001Z\"", Start::Time(NOON + 1)),
            ("\"1970-01-01T00:00:00Z\"", Start::Time(0)),
            ("{ 0 = 100, 17 = 0 }", Start::Offsets(offsets(&[(0, 100), (17, 0)]))),
            ("{ \"3\" = 9223372036854775807 }", Start::Offsets(offsets(&[(3, i64::MAX.unsigned_abs())]))),
        ] {
            assert_eq!(kafka_source(&format!("{KAFKA}start = {written}")).start, start, "{written}");
            let again = format!("{KAFKA}start = {}", toml_of(&start.to_string()));
            assert_eq!(kafka_source(&again).start, start, "{start} is displayed as it is written");
        }
        assert_eq!(kafka_source(&format!("{KAFKA}end = \"2026-01-31T12:00:00Z\"")).end, End::Time(NOON));
        assert_eq!(kafka_source(&format!("{KAFKA}end = {{ 1 = 5 }}")).end, End::Offsets(offsets(&[(1, 5)])));
        assert_eq!(kafka_source(&format!("{KAFKA}end = {{ 1 = 5 }}")).end.to_string(), "{ 1 = 5 }");

        let points = "a time with its offset such as \"2026-01-31T12:00:00Z\", or offsets by partition such as { 0 = 100 }";
        let allowed = format!("allowed: \"earliest\", \"latest\", {points}");
        for (lines, expected) in [
            ("start = \"earlist\"", format!("start: found \"earlist\", {allowed}; did you mean \"earliest\"?")),
            ("start = \"2026-01-31T12:00:00\"", format!("start: found \"2026-01-31T12:00:00\", {allowed}")),
            ("start = 2026-01-31", format!("start: found 2026-01-31, {allowed}")),
            ("start = \"1969-12-31T23:59:59Z\"", format!("start: found \"1969-12-31T23:59:59Z\", {allowed}")),
            ("start = 7", format!("start: found 7, {allowed}")),
            ("start = {}", format!("start: found a section, {allowed}")),
            (
                "start = { a = 1 }",
                format!("start: found a section, {allowed}; \"a\" is no number of a partition"),
            ),
            (
                "start = { 00 = 1 }",
                format!("start: found a section, {allowed}; \"00\" is no number of a partition"),
            ),
            (
                "start = { 1048576 = 1 }",
                format!("start: found a section, {allowed}; \"1048576\" is no number of a partition"),
            ),
            (
                "start = { 0 = -1 }",
                format!("start: found a section, {allowed}; the offset of partition 0 is no whole number"),
            ),
            ("end = \"earliest\"", format!("end: found \"earliest\", allowed: \"latest\", {points}")),
            ("on_gap = \"go\"", "on_gap: found \"go\", allowed: stop, skip".to_owned()),
            (
                "start = 2026-01-31T12:00:00Z\nend = 2026-01-31T12:00:00Z",
                "end: found 2026-01-31T12:00:00Z, allowed: a time after `start`, which is 2026-01-31T12:00:00Z"
                    .to_owned(),
            ),
            (
                "start = { 0 = 10, 1 = 5 }\nend = { 0 = 9, 1 = 5, 2 = 0 }",
                "end: partition 0 ends at 9, allowed: at least 10, where it starts".to_owned(),
            ),
        ] {
            assert_eq!(kafka_problems(lines), expected, "{lines}");
        }
    }

    /// A displayed start as TOML: only tables stand without quotes.
    fn toml_of(text: &str) -> String {
        if text.starts_with('{') { text.to_owned() } else { format!("\"{text}\"") }
    }

    fn kafka_source(text: &str) -> KafkaSource {
        match job(text).sources.remove(0).kind {
            SourceKind::Kafka(source) => source,
            other => panic!("{other:?}"),
        }
    }
}
