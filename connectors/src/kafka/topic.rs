//! The partitions and offsets of a topic, asked of the brokers by a thread that may wait.
//!
//! High watermarks are those of committed records (the last stable offset), since the consumer reads no others.
//! Records of an open transaction are behind every end that is answered here.
//!
//! The first question of a client waits until its connection stands, and for no longer than that can help. A certain
//! [`Mistake`](super::Mistake) ends the wait at once; if `brokers` names several, the others have [`GRACE`] to
//! answer. Signs of an uncertain one must last for [`DOUBT`], as they are also seen while a broker starts.
//!
//! Limits: a question waits for at most 20 s. Partitions are asked one after the other, so a topic of P partitions
//! takes about P round trips.

use std::slice;
use std::time::{Duration, Instant};

use keytide_config::{End, KafkaClient, Start};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{KafkaContext, KafkaError, client_config, create_error, is_refusal};
use super::rights::{Right, TopicRights, rights};
use super::settings::for_reading;

/// How long one question waits for its answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a question waits before librdkafka's log lines are looked at first. It waits twice as long each time, so
/// that slow brokers are given time to answer.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The same for offsets of a partition, which are asked one after the other.
const OFFSETS_WAIT: Duration = Duration::from_secs(2);
/// How long other brokers may answer after one refused for certain.
const GRACE: Duration = Duration::from_secs(1);
/// How long signs of an uncertain mistake are doubted.
const DOUBT: Duration = Duration::from_secs(5);
/// The beginning of the id of librdkafka's in-process cluster.
const MOCK: &str = "mockCluster";
/// The most events of librdkafka that are served between two questions.
const SERVED_EVENTS: usize = 64;

/// A cluster of brokers, as it describes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The number of brokers that are up.
    pub brokers: usize,
    /// True of librdkafka's in-process cluster. It has no controller, for which an admin request would wait in vain.
    pub is_mock: bool,
}

/// Looks up a topic of some brokers.
pub struct Topic {
    lookup: BaseConsumer<KafkaContext>,
    client: KafkaClient,
    name: String,
}

impl Topic {
    /// Makes a client for look-ups of `topic`, which doesn't connect yet.
    ///
    /// # Errors
    /// If librdkafka refuses the settings.
    pub fn open(client: &KafkaClient, topic: &str) -> Result<Self, KafkaError> {
        Self::with_isolation(client, topic, "read_committed")
    }

    /// Makes a client whose high watermarks include records of open transactions.
    ///
    /// # Errors
    /// If librdkafka refuses the settings.
    pub(crate) fn open_uncommitted(client: &KafkaClient, topic: &str) -> Result<Self, KafkaError> {
        Self::with_isolation(client, topic, "read_uncommitted")
    }

    fn with_isolation(client: &KafkaClient, topic: &str, isolation: &str) -> Result<Self, KafkaError> {
        let mut config = client_config(&for_reading(client));
        config
            .set("allow.auto.create.topics", "false")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .remove("group.id");
        let lookup = config
            .create_with_context(KafkaContext::new(client))
            .map_err(|error| create_error(client, error))?;
        Ok(Self { lookup, client: client.clone(), name: topic.to_owned() })
    }

    /// Returns the name of the topic.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the numbers of the partitions, in order.
    ///
    /// # Errors
    /// If there is no such topic, or no (good) answer.
    pub fn partitions(&self) -> Result<Vec<u32>, KafkaError> {
        let what = || format!("look up topic `{}`", self.name);
        let metadata = self
            .answer(FIRST_WAIT, |wait| self.lookup.fetch_metadata(Some(&self.name), wait))
            .map_err(|error| self.error(what(), &error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.name);
        let topic = topic.ok_or_else(|| self.no_topic())?;
        if let Some(error) = topic.error() {
            return Err(self.error(what(), &LibraryError::MetadataFetch(error.into())));
        }
        let numbers = topic.partitions().iter().filter_map(|partition| u32::try_from(partition.id()).ok());
        let mut partitions: Vec<_> = numbers.collect();
        if partitions.is_empty() {
            return Err(self.no_topic());
        }
        partitions.sort_unstable();
        self.lookup.context().recovered();
        Ok(partitions)
    }

    /// Waits for an answer of the cluster, and returns what it says about itself.
    ///
    /// # Errors
    /// If there is no (good) answer.
    pub fn cluster(&self) -> Result<Cluster, KafkaError> {
        let what = || "describe their cluster".to_owned();
        let metadata = self
            .answer(FIRST_WAIT, |wait| self.lookup.fetch_metadata(Some(&self.name), wait))
            .map_err(|error| self.error(what(), &error))?;
        self.lookup.context().recovered();
        // It was in the answer.
        let id = self.lookup.client().fetch_cluster_id(FIRST_WAIT);
        let is_mock = id.is_some_and(|id| id.starts_with(MOCK));
        Ok(Cluster { brokers: metadata.brokers().len(), is_mock })
    }

    /// Returns an error for each of the rights `needed` that the client's user doesn't have on the topic. There is none
    /// if the brokers don't list rights, or the topic doesn't exist.
    ///
    /// # Errors
    /// If there is no (good) answer.
    pub fn denied(&self, needed: &[Right]) -> Result<Vec<KafkaError>, KafkaError> {
        let rights = self.rights_on(slice::from_ref(&self.name))?;
        let lacks = rights.first().map(|rights| rights.lacks(needed)).unwrap_or_default();
        let (brokers, topic) = (&self.client.brokers, &self.name);
        let denied = |right| KafkaError::Denied { brokers: brokers.clone(), right, topic: topic.clone() };
        Ok(lacks.into_iter().map(denied).collect())
    }

    /// Returns the rights on each of `topics`, in their order.
    ///
    /// # Errors
    /// If there is no (good) answer.
    pub fn rights_on(&self, topics: &[String]) -> Result<Vec<TopicRights>, KafkaError> {
        // The in-process broker knows no rights, and might not answer.
        if self.cluster()?.is_mock {
            return Ok(vec![TopicRights::Unknown; topics.len()]);
        }
        match rights(self.lookup.client(), topics) {
            Ok(answers) => Ok(answers),
            Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
                Ok(vec![TopicRights::Unknown; topics.len()])
            }
            Err(code) => Err(self.error("list rights on topics".to_owned(), &LibraryError::AdminOp(code))),
        }
    }

    /// Returns the offset of the earliest record and the one behind the last record.
    ///
    /// # Errors
    /// If there is no such partition, or no (good) answer.
    pub fn watermarks(&self, partition: u32) -> Result<(u64, u64), KafkaError> {
        // The leader may be another broker than the one that answered so far.
        self.marks(partition, || {
            self.answer(OFFSETS_WAIT, |wait| {
                self.lookup.fetch_watermarks(&self.name, signed(partition), wait)
            })
        })
    }

    pub(super) fn watermarks_within(
        &self,
        partition: u32,
        timeout: Duration,
    ) -> Result<(u64, u64), KafkaError> {
        self.serve();
        self.marks(partition, || self.lookup.fetch_watermarks(&self.name, signed(partition), timeout))
    }

    fn marks(
        &self,
        partition: u32,
        ask: impl FnOnce() -> Result<(i64, i64), LibraryError>,
    ) -> Result<(u64, u64), KafkaError> {
        let what = || format!("look up the offsets of partition {partition} of topic `{}`", self.name);
        let marks = ask();
        let (low, high) = marks.map_err(|error| self.error(what(), &error))?;
        self.lookup.context().recovered();
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(low), Ok(high)) => Ok((low, high.max(low))),
            _ => Err(self.unavailable(what(), "an answer without offsets".to_owned())),
        }
    }

    /// Returns the offset at which reading starts, for each of `partitions`.
    ///
    /// # Errors
    /// If a configured offset isn't there, if `start` names a partition that doesn't exist, or without a (good)
    /// answer.
    pub fn starts(&self, start: &Start, partitions: &[u32]) -> Result<Vec<(u32, u64)>, KafkaError> {
        match start {
            Start::Earliest => self.of_each(partitions, |(low, _)| low),
            Start::Latest => self.of_each(partitions, |(_, high)| high),
            Start::Time(time_ms) => self.first_since(*time_ms, partitions),
            Start::Offsets(offsets) => {
                self.check_named(offsets.keys(), partitions)?;
                self.given(partitions, |partition, (low, _)| offsets.get(&partition).copied().unwrap_or(low))
            }
        }
    }

    /// Returns the first offset that a bounded run doesn't read, for each of `partitions`.
    ///
    /// # Errors
    /// The same as those of [`starts`](Self::starts).
    pub fn ends(&self, end: &End, partitions: &[u32]) -> Result<Vec<(u32, u64)>, KafkaError> {
        match end {
            End::Latest => self.of_each(partitions, |(_, high)| high),
            End::Time(time_ms) => self.first_since(*time_ms, partitions),
            End::Offsets(offsets) => {
                self.check_named(offsets.keys(), partitions)?;
                self.given(partitions, |partition, (_, high)| {
                    offsets.get(&partition).copied().unwrap_or(high)
                })
            }
        }
    }

    fn of_each(
        &self,
        partitions: &[u32],
        choose: impl Fn((u64, u64)) -> u64,
    ) -> Result<Vec<(u32, u64)>, KafkaError> {
        partitions.iter().map(|&partition| Ok((partition, choose(self.watermarks(partition)?)))).collect()
    }

    /// Returns the configured offsets, checked.
    fn given(
        &self,
        partitions: &[u32],
        choose: impl Fn(u32, (u64, u64)) -> u64,
    ) -> Result<Vec<(u32, u64)>, KafkaError> {
        let check = |&partition: &u32| {
            let (low, high) = self.watermarks(partition)?;
            let offset = choose(partition, (low, high));
            if (low..=high).contains(&offset) {
                return Ok((partition, offset));
            }
            Err(KafkaError::OutOfRange { topic: self.name.clone(), partition, offset, low, high })
        };
        partitions.iter().map(check).collect()
    }

    fn check_named<'a>(
        &self,
        mut named: impl Iterator<Item = &'a u32>,
        partitions: &[u32],
    ) -> Result<(), KafkaError> {
        match named.find(|partition| !partitions.contains(partition)) {
            None => Ok(()),
            Some(&partition) => Err(KafkaError::NoPartition {
                topic: self.name.clone(),
                partition,
                partitions: partitions.len(),
            }),
        }
    }

    /// Returns the first offset of each partition whose record's timestamp is at or after `time_ms`; the high
    /// watermark if there is none.
    fn first_since(&self, time_ms: u64, partitions: &[u32]) -> Result<Vec<(u32, u64)>, KafkaError> {
        self.serve();
        let what = || format!("look up times in topic `{}`", self.name);
        let time = Offset::Offset(i64::try_from(time_ms).unwrap_or(i64::MAX));
        let mut times = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            times
                .add_partition_offset(&self.name, signed(partition), time)
                .map_err(|error| self.error(what(), &error))?;
        }
        let answer = self
            .lookup
            .offsets_for_times(times, LOOKUP_TIMEOUT)
            .map_err(|error| self.error(what(), &error))?;
        let first = |&partition: &u32| {
            let element = answer.find_partition(&self.name, signed(partition));
            let element =
                element.ok_or_else(|| self.unavailable(what(), "an incomplete answer".to_owned()))?;
            element.error().map_err(|error| self.error(what(), &error))?;
            let (low, high) = self.watermarks(partition)?;
            let offset = match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).unwrap_or(high),
                _ => high,
            };
            Ok((partition, offset.clamp(low, high)))
        };
        partitions.iter().map(first).collect()
    }

    /// Asks until there is an answer, or asking again can't help. It waits for `wait` first, then twice as long each
    /// time.
    fn answer<T>(
        &self,
        mut wait: Duration,
        ask: impl Fn(Duration) -> Result<T, LibraryError>,
    ) -> Result<T, LibraryError> {
        let started = Instant::now();
        loop {
            self.serve();
            let left = LOOKUP_TIMEOUT.saturating_sub(started.elapsed());
            // A doubt ends in time.
            let doubt =
                self.lookup.context().mistake().map_or(left, |(_, since, _)| DOUBT.saturating_sub(since));
            let error = match ask(wait.min(left).min(doubt.max(FIRST_WAIT))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.serve();
            let is_silence = matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure
                        | RDKafkaErrorCode::OperationTimedOut
                        | RDKafkaErrorCode::AllBrokersDown
                )
            );
            if !is_silence || self.is_hopeless() || started.elapsed() >= LOOKUP_TIMEOUT {
                return Err(error);
            }
            wait = wait.saturating_mul(2);
        }
    }

    /// Returns whether a mistake or a refusal is there that waiting can't mend.
    fn is_hopeless(&self) -> bool {
        let context = self.lookup.context();
        let grace = if self.client.brokers.contains(',') { GRACE } else { Duration::ZERO };
        match context.mistake() {
            Some((mistake, since, _)) if mistake.is_certain() => since >= grace,
            Some((_, since, _)) => since >= DOUBT,
            None => context.trouble().is_some_and(|trouble| trouble.is_refusal()),
        }
    }

    /// Serves librdkafka's events: log lines, errors, requests for a token.
    fn serve(&self) {
        for _ in 0..SERVED_EVENTS {
            let _ = self.lookup.poll(Duration::ZERO);
        }
    }

    fn no_topic(&self) -> KafkaError {
        KafkaError::NoTopic { topic: self.name.clone(), brokers: self.lookup.context().brokers().to_owned() }
    }

    fn unavailable(&self, what: String, reason: String) -> KafkaError {
        let brokers = self.lookup.context().brokers().to_owned();
        KafkaError::Unavailable { what, brokers, mistake: None, reason }
    }

    /// Returns the error that a failed look-up means. If librdkafka reported an error meanwhile, that explains more
    /// than a timeout.
    fn error(&self, what: String, error: &LibraryError) -> KafkaError {
        self.serve();
        let context = self.lookup.context();
        let code = error.rdkafka_error_code();
        if matches!(
            code,
            Some(
                RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::InvalidTopic
            )
        ) {
            return self.no_topic();
        }
        let brokers = context.brokers().to_owned();
        if let Some(code) = code.filter(|code| is_refusal(*code)) {
            if code == RDKafkaErrorCode::TopicAuthorizationFailed {
                return KafkaError::Denied { brokers, right: Right::Describe, topic: self.name.clone() };
            }
            return KafkaError::Refused { what, brokers, mistake: None, reason: code.to_string() };
        }
        match (context.mistake(), context.trouble()) {
            (Some((mistake, _, reason)), _) if mistake.is_certain() => KafkaError::Refused {
                what,
                brokers,
                mistake: Some(mistake.settled(&client_config(&self.client))),
                reason,
            },
            (Some((mistake, _, reason)), _) => {
                KafkaError::Unavailable { what, brokers, mistake: Some(mistake), reason }
            }
            (None, Some(trouble)) if trouble.is_refusal() => {
                KafkaError::Refused { what, brokers, mistake: None, reason: trouble.reason }
            }
            (None, Some(trouble)) if trouble.code != RDKafkaErrorCode::AllBrokersDown => {
                KafkaError::Unavailable { what, brokers, mistake: None, reason: trouble.reason }
            }
            (None, _) => {
                let waited = LOOKUP_TIMEOUT.as_secs();
                let reason = format!(
                    "no answer within {waited} s: correct `brokers`, or let the network between pass the connection"
                );
                KafkaError::Unavailable { what, brokers, mistake: None, reason }
            }
        }
    }
}

/// Returns a partition's number as librdkafka has it. All numbers come from librdkafka, so none is out of range.
pub(super) fn signed(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kafka::ErrorClass;
    use crate::kafka::testing::MockBroker;

    #[test]
    fn partitions_and_watermarks_are_the_brokers() {
        let broker = MockBroker::new();
        broker.create("events", 3);
        broker.produce("events", 1, &["a", "b"]);
        let topic = Topic::open(&broker.client(), "events").unwrap();
        assert_eq!(topic.partitions().unwrap(), [0, 1, 2]);
        assert_eq!(topic.watermarks(0).unwrap(), (0, 0));
        assert_eq!(topic.watermarks(1).unwrap(), (0, 2));
    }

    #[test]
    fn starts_and_ends_are_found_in_every_way() {
        let broker = MockBroker::new();
        broker.create("events", 2);
        broker.produce_at("events", 0, &[(Some("a"), 1_000), (Some("b"), 2_000), (Some("c"), 3_000)]);
        broker.produce_at("events", 1, &[(Some("d"), 9_000)]);
        let topic = Topic::open(&broker.client(), "events").unwrap();
        let starts = |start| topic.starts(&start, &[0, 1]).unwrap();
        let ends = |end| topic.ends(&end, &[0, 1]).unwrap();
        assert_eq!(starts(Start::Earliest), [(0, 0), (1, 0)]);
        assert_eq!(starts(Start::Latest), [(0, 3), (1, 1)]);
        assert_eq!(ends(End::Latest), [(0, 3), (1, 1)]);
        assert_eq!(starts(Start::Offsets(BTreeMap::from([(0, 2)]))), [(0, 2), (1, 0)]);
        assert_eq!(ends(End::Offsets(BTreeMap::from([(0, 2)]))), [(0, 2), (1, 1)]);
    }

    #[test]
    fn an_offset_that_is_not_there_is_refused_with_what_is() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b"]);
        let topic = Topic::open(&broker.client(), "events").unwrap();
        let error = topic.starts(&Start::Offsets(BTreeMap::from([(0, 3)])), &[0]).unwrap_err();
        let expected =
            KafkaError::OutOfRange { topic: "events".to_owned(), partition: 0, offset: 3, low: 0, high: 2 };
        assert_eq!(error, expected);
        let error = topic.ends(&End::Offsets(BTreeMap::from([(7, 1)])), &[0]).unwrap_err();
        assert_eq!(error.to_string(), "topic `events` has no partition 7; it has 1, counted from 0");
    }

    #[test]
    fn a_topic_that_is_not_there_is_a_definite_error() {
        let broker = MockBroker::new();
        let topic = Topic::open(&broker.client(), "nothing").unwrap();
        broker.forget("nothing");
        let error = topic.partitions().unwrap_err();
        assert!(matches!(error, KafkaError::NoTopic { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Definite);
    }
}
