//! An in-process broker for tests: librdkafka's mock cluster. It has no transactions and no compaction, and drops
//! what is beyond 5 MiB of a partition, which makes a gap.

use std::collections::BTreeMap;
use std::time::Duration;

use keytide_config::{End, KafkaClient, KafkaSource, OnGap, Start};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// Longer than anything that works takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct MockBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl MockBroker {
    pub(crate) fn new() -> Self {
        Self { cluster: MockCluster::new(1).unwrap() }
    }

    pub(crate) fn client(&self) -> KafkaClient {
        KafkaClient { brokers: self.cluster.bootstrap_servers(), settings: BTreeMap::new() }
    }

    pub(crate) fn source(&self, topic: &str) -> KafkaSource {
        KafkaSource {
            client: self.client(),
            topic: topic.to_owned(),
            start: Start::Earliest,
            end: End::Latest,
            on_gap: OnGap::Stop,
        }
    }

    pub(crate) fn create(&self, topic: &str, partitions: i32) {
        self.cluster.create_topic(topic, partitions, 1).unwrap();
    }

    /// Answers that there is no such topic.
    pub(crate) fn forget(&self, topic: &str) {
        let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        self.cluster.topic_error(topic, error).unwrap();
    }

    /// Refuses producers the id that they need.
    pub(crate) fn refuse_ids(&self) {
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        self.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
    }

    pub(crate) fn down(&self) {
        self.cluster.broker_down(-1).unwrap();
    }

    pub(crate) fn up(&self) {
        self.cluster.broker_up(-1).unwrap();
    }

    pub(crate) fn produce(&self, topic: &str, partition: i32, values: &[&str]) {
        let records: Vec<_> = values.iter().map(|value| (Some(*value), 1_000)).collect();
        self.produce_at(topic, partition, &records);
    }

    /// Values (or none) with their Kafka timestamps.
    pub(crate) fn produce_at(&self, topic: &str, partition: i32, records: &[(Option<&str>, i64)]) {
        self.produce_with(topic, partition, "none", records);
    }

    /// One record with headers, some of which may be null.
    pub(crate) fn produce_headed(
        &self,
        topic: &str,
        partition: i32,
        headers: &[(&[u8], Option<&[u8]>)],
        value: Option<&[u8]>,
    ) {
        let mut config = ClientConfig::new();
        let producer: BaseProducer =
            config.set("bootstrap.servers", self.cluster.bootstrap_servers()).create().unwrap();
        let headers = super::headers::owned(headers);
        let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).headers(headers);
        record.payload = value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    }

    pub(crate) fn produce_with(
        &self,
        topic: &str,
        partition: i32,
        codec: &str,
        records: &[(Option<&str>, i64)],
    ) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("compression.codec", codec)
            .set("linger.ms", "5")
            .create()
            .unwrap();
        for &(value, time) in records {
            let mut record = BaseRecord::<(), str>::to(topic).partition(partition).timestamp(time);
            record.payload = value;
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(DEADLINE).unwrap();
    }
}
