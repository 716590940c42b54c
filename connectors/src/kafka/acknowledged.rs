//! A producer to one topic whose caller learns what became of each message.
//!
//! A message is acknowledged once all in-sync replicas have it. One that isn't within [`TIMEOUT`] is given up; it may have
//! been stored all the same. So messages must be of a kind that may be there twice.
//!
//! Limits: 10,000 messages and 16 MiB wait for their answers. Beyond, messages are refused at once.

use std::time::Duration;

use keytide_config::KafkaClient;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};

use super::client::{KafkaContext, KafkaError, client_config, create_error};

/// How long a message waits for its acknowledgement.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Learns whether a message was acknowledged. It is called on the producer's thread.
pub type Acknowledged = Box<dyn FnOnce(bool) + Send + Sync>;

/// A producer to a topic.
pub struct AcknowledgedProducer {
    producer: ThreadedProducer<AckContext>,
    topic: String,
}

impl AcknowledgedProducer {
    /// Starts a producer. It connects by itself, as soon as it can.
    ///
    /// # Errors
    /// If a setting is refused.
    pub fn start(client: &KafkaClient, topic: &str) -> Result<Self, KafkaError> {
        let mut config = client_config(client);
        config
            .set("acks", "all")
            .set("allow.auto.create.topics", "false")
            .set("linger.ms", "1")
            .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "16384")
            // Shorter than a message waits: the first one after an outage arrives.
            .set("reconnect.backoff.max.ms", "1000")
            .set("statistics.interval.ms", "0");
        let producer =
            ThreadedProducer::from_config_and_context(&config, AckContext(KafkaContext::new(client)))
                .map_err(|error| create_error(client, error))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Sends a message to the partition of its key. `done` is called once, with false if it can't be sent.
    pub fn send(&self, key: &[u8], value: &[u8], done: Acknowledged) {
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(done)).key(key).payload(value);
        if let Err((_, refused)) = self.producer.send(record) {
            (refused.delivery_opaque)(false);
        }
    }
}

impl std::fmt::Debug for AcknowledgedProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcknowledgedProducer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

struct AckContext(KafkaContext);

impl ClientContext for AckContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.0.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.generate_oauth_token(config)
    }
}

impl ProducerContext for AckContext {
    type DeliveryOpaque = Box<Acknowledged>;

    fn delivery(&self, result: &DeliveryResult<'_>, done: Self::DeliveryOpaque) {
        done(result.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::kafka::testing::{DEADLINE, MockBroker};

    #[test]
    fn a_caller_learns_what_became_of_each_message() {
        let broker = MockBroker::new();
        broker.create("settled", 2);
        let (sender, answers) = mpsc::channel();
        let send = |producer: &AcknowledgedProducer, value: &[u8]| {
            let sender = sender.clone();
            producer.send(b"key", value, Box::new(move |is_stored| sender.send(is_stored).unwrap()));
            answers.recv_timeout(DEADLINE).unwrap()
        };
        let producer = AcknowledgedProducer::start(&broker.client(), "settled").unwrap();
        assert!(send(&producer, b"one") && send(&producer, b"two"));
        // One that is larger than a message may be can't be sent.
        assert!(!send(&producer, &vec![b'x'; 2 << 20]));
        // Nor can one to brokers that are away.
        broker.down();
        assert!(!send(&producer, b"three"));
        broker.up();
        assert!(send(&producer, b"four"));
    }
}
