//! What Kafka's console producer can't send: records to a partition of choice, with a time of choice, in a
//! transaction, while brokers are away.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::Broker;

/// How long brokers may take for anything.
const DEADLINE: Duration = Duration::from_secs(90);

/// A producer that waits for the brokers as long as it takes.
pub(crate) struct Producer(BaseProducer);

impl Producer {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self(config(broker).create().unwrap())
    }

    /// One whose records belong to transactions.
    pub(crate) fn transactional(broker: &Broker) -> Self {
        let mut config = config(broker);
        // Brokers take a time-out beyond which they abort, and messages none that is longer.
        config.set("transactional.id", broker.name("transactions")).set("message.timeout.ms", "60000");
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        Self(producer)
    }

    /// Hands over a record to a partition; when it was made, in ms since the epoch, where that matters.
    pub(crate) fn send(&self, topic: &str, partition: i32, time: Option<u64>, value: &[u8]) {
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
        if let Some(time) = time {
            record = record.timestamp(i64::try_from(time).unwrap());
        }
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Hands over a record with a key to partition 0.
    pub(crate) fn send_keyed(&self, topic: &str, key: &str, value: &str) {
        let record = BaseRecord::<str, str>::to(topic).partition(0).key(key).payload(value);
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Hands over a record with headers to partition 0.
    pub(crate) fn send_with(&self, topic: &str, headers: &[(&str, &str)], value: &[u8]) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, &(key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(value).headers(headers);
        self.0.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Lets time pass until something was acknowledged.
    pub(crate) fn poll(&self, most: Duration) {
        self.0.poll(most);
    }

    /// Waits until all is acknowledged.
    pub(crate) fn flush(&self) {
        self.0.flush(DEADLINE).unwrap();
        assert_eq!(self.0.in_flight_count(), 0);
    }

    pub(crate) fn begin(&self) {
        self.0.begin_transaction().unwrap();
    }

    pub(crate) fn commit(&self) {
        self.0.commit_transaction(DEADLINE).unwrap();
    }

    pub(crate) fn abort(&self) {
        self.0.abort_transaction(DEADLINE).unwrap();
    }
}

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.addresses())
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "5");
    config
}

/// Makes a consumer of the committed records of a partition, from its beginning to its end.
pub(crate) fn from_the_beginning(brokers: &str, topic: &str, partition: i32) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut beginning = TopicPartitionList::new();
    beginning.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&beginning).unwrap();
    consumer
}

/// The keys of the records that partition 0 of a topic still has, in the order of their offsets.
pub(crate) fn surviving_keys(broker: &Broker, topic: &str) -> Vec<String> {
    let consumer = from_the_beginning(broker.addresses(), topic, 0);
    let mut keys = Vec::new();
    loop {
        match consumer.poll(DEADLINE).expect("the brokers answer") {
            Ok(record) => keys.push(String::from_utf8(record.key().unwrap().to_vec()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => return keys,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
}
