//! Reading from Kafka: look-ups of a topic, a consumer for one reader thread, ranges for bounded runs.
//!
//! ```text
//! KafkaClient ──client_config──► librdkafka's settings       KafkaContext: its log lines, errors, statistics, tokens
//!      └──refused_settings──► those that librdkafka refuses, without a connection
//! Mistake   what is wrong with a connection or a right, recognised in librdkafka's words
//! Topic     blocking look-ups: partitions, watermarks, where to start and to end, rights
//! TopicAdmin  the settings of topics for results, and how missing ones are created
//! Consumer  live: partitions by hand (never a group's), records, ends, gaps
//! Range     bounded: one partition from an offset to an offset, in blocks as a file gives them
//! Producer  messages to a topic, as they come: of the load generator, not of results (see `sink`)
//! AcknowledgedProducer  the same, with an answer about each message: settlements of the API
//! ```
//! A reader ends at an error that asking again won't mend ([`ErrorClass`]). An outage of the brokers is waited out
//! and logged once.
//!
//! **Invariant**: no error or log line contains the value of a setting, secret or not. Errors name the setting, and
//! the secrets are removed from librdkafka's messages.

mod acknowledged;
mod admin;
mod client;
mod consumer;
mod headers;
mod inherit;
mod mistake;
mod producer;
mod range;
mod results;
mod rights;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod topic;

pub use acknowledged::{Acknowledged, AcknowledgedProducer};
pub(crate) use admin::{CreateMode, PlannedTopic, RefusedTopics, TopicAdmin, TopicSettings};
pub use client::{ErrorClass, KafkaContext, KafkaError, client_config, create_error, refused_settings};
pub use consumer::{Consumer, ConsumerEvent, KafkaMessage, PartitionLag};
pub(crate) use headers::KeptHeaders;
pub use inherit::close_on_exec;
pub use mistake::Mistake;
pub use producer::Producer;
pub use range::{Gap, MessageBlock, READ_WAIT, Range, ranges};
pub(crate) use results::{result_headers, result_settings};
pub use rights::{Right, TopicRights};
pub(crate) use settings::for_reading;
pub use topic::{Cluster, Topic};

/// Returns the version of librdkafka, which is built into the program.
#[must_use]
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
