//! A plain producer to one topic, for programs that make messages rather than results, such as a load generator.
//!
//! The caller chooses the partition. No message is left out: a full queue and an outage are waited out. A message
//! that the brokers refuse for good is an error of the next call. Without settings that ask for it there is no
//! idempotence. After an outage, messages without an answer can be there twice, and behind later ones.
//!
//! Limits: 100,000 messages and 64 MiB wait to be sent, unless the settings have other limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keytide_config::KafkaClient;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::client::{KafkaContext, KafkaError, client_config, create_error};
use super::rights::Right;
use super::topic::Topic;

/// The values of settings that the caller's settings don't have.
const DEFAULTS: [(&str, &str); 4] = [
    ("compression.codec", "lz4"),
    ("linger.ms", "5"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];
/// How long to wait before a full queue is tried again.
const ROOM_AFTER: Duration = Duration::from_millis(2);

/// A producer to a topic that exists.
pub struct Producer {
    producer: ThreadedProducer<DeliveryReports>,
    refused: Arc<Refused>,
    topic: String,
    partitions: Vec<i32>,
}

/// The first message that was refused for good.
#[derive(Default)]
struct Refused {
    any: AtomicBool,
    first: Mutex<Option<KafkaError>>,
}

impl Refused {
    fn report(&self, brokers: &str, topic: &str, error: &LibraryError) {
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let refused = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                KafkaError::Denied { brokers, right: Right::Write, topic }
            }
            _ => KafkaError::Refused {
                what: format!("take a message of topic `{topic}`"),
                brokers,
                mistake: None,
                reason: error.to_string(),
            },
        };
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
        self.any.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), KafkaError> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone().map_or(Ok(()), Err)
    }
}

impl Producer {
    /// Looks up the topic and starts a producer to it.
    ///
    /// # Errors
    /// If a setting is refused, if there is no such topic, or without a (good) answer.
    pub fn open(client: &KafkaClient, topic: &str) -> Result<Self, KafkaError> {
        let partitions = Topic::open(client, topic)?.partitions()?;
        let partitions = partitions.into_iter().filter_map(|number| i32::try_from(number).ok()).collect();
        let refused = Arc::<Refused>::default();
        let context = DeliveryReports { client: KafkaContext::new(client), refused: Arc::clone(&refused) };
        let producer = ThreadedProducer::from_config_and_context(&producer_config(client), context)
            .map_err(|error| create_error(client, error))?;
        Ok(Self { producer, refused, topic: topic.to_owned(), partitions })
    }

    /// Returns how many partitions the topic has, at least one.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Sends a message to a partition, counted from 0, modulo their number. Waits for room in the queue.
    ///
    /// # Errors
    /// If this message or one before was refused for good.
    pub fn send(&self, partition: usize, key: Option<&[u8]>, value: &[u8]) -> Result<(), KafkaError> {
        self.refused.check()?;
        let partition = self.partitions[partition % self.partitions.len()];
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition).payload(value);
        record.key = key;
        while let Err((error, returned)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                self.refused.report(self.brokers(), &self.topic, &error);
                return self.refused.check();
            }
            record = returned;
            std::thread::park_timeout(ROOM_AFTER);
            self.refused.check()?;
        }
        Ok(())
    }

    /// Waits until the brokers have all messages.
    ///
    /// # Errors
    /// If one was refused for good, or if it takes longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        let flushed = self.producer.flush(timeout);
        self.refused.check()?;
        flushed.map_err(|error| KafkaError::Unavailable {
            what: format!(
                "acknowledge {} messages of topic `{}` within {} s",
                self.producer.in_flight_count(),
                self.topic,
                timeout.as_secs()
            ),
            brokers: self.brokers().to_owned(),
            mistake: self.producer.context().client.mistake().map(|(mistake, ..)| mistake),
            reason: self.trouble().unwrap_or_else(|| error.to_string()),
        })
    }

    fn brokers(&self) -> &str {
        self.producer.context().client.brokers()
    }

    /// Returns the brokers' last error in librdkafka's words.
    fn trouble(&self) -> Option<String> {
        self.producer.context().client.trouble().map(|trouble| trouble.reason)
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn producer_config(client: &KafkaClient) -> ClientConfig {
    let mut config = client_config(client);
    for (name, value) in DEFAULTS {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
        .set("allow.auto.create.topics", "false")
        .set("message.timeout.ms", "0")
        .set("delivery.report.only.error", "true")
        .set("statistics.interval.ms", "0");
    config
}

/// The callbacks of the producer: reports messages that were refused.
struct DeliveryReports {
    client: KafkaContext,
    refused: Arc<Refused>,
}

impl ClientContext for DeliveryReports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.client.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.client.generate_oauth_token(config)
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, message)) = result {
            self.refused.report(self.client.brokers(), rdkafka::Message::topic(message), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use keytide_config::Secret;

    use super::*;
    use crate::file::{Cut, Line};
    use crate::kafka::ranges;
    use crate::kafka::testing::{DEADLINE, MockBroker};

    /// Returns the messages of each partition, in order.
    fn values(broker: &MockBroker, topic: &str) -> Vec<Vec<String>> {
        let cut = Cut { bytes: 1 << 16, lines: 1_000, line_bytes: 1 << 16 };
        let mut partitions = Vec::new();
        for mut range in ranges(&broker.source(topic)).unwrap() {
            let mut values = Vec::new();
            let started = Instant::now();
            loop {
                assert!(started.elapsed() < DEADLINE, "waited in vain; read: {values:?}");
                let block = range.next_block(&cut, Vec::new()).unwrap();
                for entry in block.entries() {
                    let Ok(Line::Whole { text, .. }) = entry else { panic!("not a message") };
                    values.push(String::from_utf8(text.to_vec()).unwrap());
                }
                if block.last {
                    break;
                }
            }
            partitions.push(values);
        }
        partitions
    }

    #[test]
    fn messages_go_to_their_partitions_in_order() {
        let broker = MockBroker::new();
        broker.create("calls", 3);
        let producer = Producer::open(&broker.client(), "calls").unwrap();
        assert_eq!(producer.partitions(), 3);
        for number in 0..1_000_usize {
            let key = format!("k{number}");
            let key = (number % 2 == 0).then_some(key.as_bytes());
            producer.send(number, key, number.to_string().as_bytes()).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
        let expected = |partition: usize| -> Vec<String> {
            (0..1_000).filter(|number| number % 3 == partition).map(|number| number.to_string()).collect()
        };
        assert_eq!(values(&broker, "calls"), (0..3).map(expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_and_an_outage_are_waited_out() {
        let broker = MockBroker::new();
        broker.create("calls", 1);
        let mut client = broker.client();
        client.settings.insert("queue.buffering.max.messages".to_owned(), Secret::new("10"));
        let producer = Producer::open(&client, "calls").unwrap();
        broker.down();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for number in 0..100 {
                    producer.send(0, None, number.to_string().as_bytes()).unwrap();
                }
            });
            let started = Instant::now();
            while producer.producer.in_flight_count() < 10 {
                assert!(started.elapsed() < DEADLINE, "the queue never filled");
                std::thread::yield_now();
            }
            assert!(!sender.is_finished());
            let error = producer.flush(Duration::ZERO).unwrap_err();
            assert!(matches!(error, KafkaError::Unavailable { .. }), "{error}");
            broker.up();
        });
        producer.flush(DEADLINE).unwrap();
        let mut values = values(&broker, "calls").remove(0);
        values.sort_by_key(|value| value.parse::<u32>().unwrap());
        values.dedup();
        assert_eq!(values, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_refused_is_told() {
        let broker = MockBroker::new();
        broker.create("calls", 1);
        let producer = Producer::open(&broker.client(), "calls").unwrap();
        let error = producer.send(0, None, &vec![b'x'; 2 << 20]).unwrap_err();
        assert!(error.to_string().contains("refused to take a message of topic `calls`"), "{error}");
        assert_eq!(producer.send(0, None, b"later").unwrap_err(), error, "nothing is left out in between");

        broker.forget("none");
        let error = Producer::open(&broker.client(), "none").unwrap_err();
        assert!(matches!(error, KafkaError::NoTopic { .. }), "{error}");
    }

    #[test]
    fn defaults_give_way_to_settings_and_guarantees_do_not() {
        let mut client = MockBroker::new().client();
        for (name, value) in [("compression.codec", "zstd"), ("message.timeout.ms", "1"), ("acks", "1")] {
            client.settings.insert(name.to_owned(), Secret::new(value));
        }
        let config = producer_config(&client);
        let found =
            ["compression.codec", "linger.ms", "acks", "message.timeout.ms"].map(|name| config.get(name));
        assert_eq!(found, [Some("zstd"), Some("5"), Some("1"), Some("0")]);
    }
}
