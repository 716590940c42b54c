//! The errors of a ledger.

use crate::kafka::{ErrorClass, KafkaError};
use crate::store::StoreError;

/// An error of a ledger. An outage is no error: it is waited out.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A client of Kafka could not be made, or the brokers can't be asked about the topic.
    #[error("sink.kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("{0}")]
    Store(#[from] StoreError),
    /// librdkafka's in-process cluster has no transactions.
    #[error(
        "sink.kafka: the broker at {brokers} is an in-process one, which has no transactions: set `delivery = \"at_least_once\"`"
    )]
    NoTransactions { brokers: String },
    #[error(
        "sink.kafka: {topic} missing at {brokers}; set `create_topics = true`, or create it: kafka-topics.sh \
         --bootstrap-server {brokers} --create --topic {topic} --partitions 1 --config cleanup.policy=compact"
    )]
    MissingTopic { brokers: String, topic: String },
    #[error(
        "sink.kafka: creating topic {topic} at {brokers} failed: {reason}; allow it, or create it and set \
         `create_topics = false`"
    )]
    CreateTopic {
        brokers: String,
        topic: String,
        /// The reason in the broker's words.
        reason: String,
        class: ErrorClass,
    },
    #[error(
        "sink.kafka: topic {topic} has {found} partitions, allowed: 1; it orders the job's ticks: delete it and let the \
         job create it, or set another `prefix`"
    )]
    Partitions { topic: String, found: usize },
    #[error(
        "sink.kafka: topic {topic} has cleanup.policy={found}, but holds what a restart needs; correct it: kafka-configs.sh \
         --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config \
         cleanup.policy=compact"
    )]
    CleanupPolicy { brokers: String, topic: String, found: String },
    /// A record isn't one of a ledger.
    #[error(
        "{place} is no record of a ledger: {reason}. Something else writes there: give the job a place of its own, by \
         another `prefix` or another folder"
    )]
    Foreign {
        /// The topic and the offset, or the object.
        place: String,
        reason: String,
    },
    #[error(
        "{ledger} belongs to the job `{found}`, and this is the job `{job}`: give each job a place of its own, by another \
         `prefix` or another folder"
    )]
    OtherJob { ledger: String, found: String, job: String },
    /// Another life of the job has taken over.
    #[error(
        "process {pid} on {host} took over the job (generation {generation}): this process ends, since only one may \
         commit results"
    )]
    Superseded { host: String, pid: u32, generation: u64 },
    /// An earlier life committed ticks after this one read the ledger.
    #[error(
        "another process of the job went on to commit ticks while this one started: end the other one, and start again"
    )]
    Moved,
    #[error(
        "{ledger} has ticks of another process behind tick number {number}, the last one of this process: this process ends"
    )]
    Ticks { ledger: String, number: u64 },
    /// The ledger lacks what was committed.
    #[error(
        "{ledger} lacks records that this process committed, up to tick number {number}: was it deleted or made anew? A \
         start with its checkpoints needs it whole"
    )]
    Lost { ledger: String, number: u64 },
    /// The brokers refused a record for good.
    #[error("sink.kafka: topic {topic} refused a record: {reason}")]
    Refused {
        topic: String,
        /// The reason in librdkafka's words, and what to do.
        reason: String,
    },
    #[error(
        "sink.kafka: the record of tick number {number} has {bytes} bytes, and topic {topic} takes {limit}: raise its \
         max.message.bytes"
    )]
    RecordTooLarge { topic: String, number: u64, bytes: usize, limit: usize },
    #[error(
        "sink.kafka: the user has no right {right} on {resource} at {brokers}: add an ACL that allows it"
    )]
    Denied {
        brokers: String,
        /// The operation, as ACLs name it.
        right: &'static str,
        /// The kind of resource and its name.
        resource: String,
    },
    #[error("sink.kafka: the brokers at {brokers} refuse transactions: {reason}")]
    Transactions {
        brokers: String,
        /// The reason in librdkafka's words.
        reason: String,
    },
    #[error("committing results was stopped")]
    Stopped,
}

impl LedgerError {
    /// Returns whether another process of the job took over.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::Superseded { .. } | Self::Moved | Self::Ticks { .. })
    }

    /// Returns the class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Kafka(error) => error.class(),
            Self::Store(StoreError::Damaged { .. }) => ErrorClass::Fatal,
            Self::Store(error) if error.is_refusal() => ErrorClass::Definite,
            Self::Store(_) | Self::Stopped => ErrorClass::Transient,
            Self::CreateTopic { class, .. } => *class,
            Self::NoTransactions { .. }
            | Self::MissingTopic { .. }
            | Self::Partitions { .. }
            | Self::CleanupPolicy { .. }
            | Self::Foreign { .. }
            | Self::OtherJob { .. }
            | Self::Refused { .. }
            | Self::RecordTooLarge { .. }
            | Self::Denied { .. }
            | Self::Transactions { .. } => ErrorClass::Definite,
            Self::Superseded { .. } | Self::Moved | Self::Ticks { .. } | Self::Lost { .. } => {
                ErrorClass::Fatal
            }
        }
    }
}
