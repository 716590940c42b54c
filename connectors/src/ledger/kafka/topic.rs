//! The topic of a ledger. It is created if it is missing, and checked if it exists.

use std::time::{Duration, Instant};

use keytide_config::KafkaSink;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};

use super::LEDGER_RECORD_BYTES;
use crate::kafka::{KafkaContext, KafkaError, Right, Topic, admin_client, block_on};
use crate::ledger::error::LedgerError;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before brokers are asked again for a topic that was created.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The size of a segment. Only closed segments are compacted, and a start reads the topic whole.
const SEGMENT_BYTES: &str = "16777216";

/// Makes sure that the topic is there and fit; returns the largest record batch that it takes, if that is known.
pub(super) fn prepare(sink: &KafkaSink, name: &str) -> Result<Option<usize>, LedgerError> {
    if let Some(found) = look(sink, name)? {
        return Ok(found);
    }
    create(&admin_client(&sink.client)?, sink, name)?;
    wait_until_known(&Topic::open(&sink.client, name)?)?;
    // Not every broker knows its settings at once.
    Ok(Some(LEDGER_RECORD_BYTES))
}

/// Looks at the topic; returns the largest record batch that it takes if that is known, or `None` if a job would make it.
///
/// The right to the transactional id isn't tried, because that would end a job that runs.
pub(crate) fn look(sink: &KafkaSink, name: &str) -> Result<Option<Option<usize>>, LedgerError> {
    let brokers = &sink.client.brokers;
    let lookup = Topic::open(&sink.client, name)?;
    if lookup.cluster()?.is_mock {
        return Err(LedgerError::NoTransactions { brokers: brokers.clone() });
    }
    // 1. The topic, with its one partition.
    let admin = admin_client(&sink.client)?;
    let partitions = match lookup.partitions() {
        Err(KafkaError::NoTopic { .. }) if sink.create_topics => return Ok(None),
        Err(KafkaError::NoTopic { .. }) => {
            let (brokers, topic) = (brokers.clone(), name.to_owned());
            return Err(LedgerError::MissingTopic { brokers, topic });
        }
        partitions => partitions?.len(),
    };
    if partitions != 1 {
        return Err(LedgerError::Partitions { topic: name.to_owned(), found: partitions });
    }
    // 2. The rights on it.
    check_rights(&lookup)?;
    // 3. Its settings, as far as the brokers return them.
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options));
    let described = described.ok().and_then(|resources| resources.into_iter().next()?.ok());
    let value = |name| described.as_ref()?.get(name)?.value.clone();
    let Some(found) = value("cleanup.policy") else {
        tracing::warn!("the settings of {name} may not be read: it must be compacted");
        return Ok(Some(None));
    };
    // With `compact,delete` a tick's record may go before its checkpoint.
    if found.trim() != "compact" {
        let (brokers, topic) = (brokers.clone(), name.to_owned());
        return Err(LedgerError::CleanupPolicy { brokers, topic, found });
    }
    Ok(Some(value("max.message.bytes").and_then(|bytes| bytes.parse().ok())))
}

/// Checks the rights on a topic that was created. A broker may learn of it later than the one that created it.
fn wait_until_known(lookup: &Topic) -> Result<(), LedgerError> {
    let started = Instant::now();
    loop {
        let partitions = lookup.partitions().map_err(LedgerError::from);
        match partitions.and_then(|_| check_rights(lookup)) {
            Err(LedgerError::Kafka(KafkaError::NoTopic { .. })) if started.elapsed() < TIMEOUT => {
                std::thread::park_timeout(LOOK_AGAIN);
            }
            known => return known,
        }
    }
}

fn check_rights(lookup: &Topic) -> Result<(), LedgerError> {
    let needed = [Right::Describe, Right::Read, Right::Write];
    let denied = lookup.denied(&needed)?.into_iter().next();
    denied.map_or(Ok(()), |denied| Err(denied.into()))
}

fn create(admin: &AdminClient<KafkaContext>, sink: &KafkaSink, name: &str) -> Result<(), LedgerError> {
    let failed = |reason: String| LedgerError::CreateTopic {
        brokers: sink.client.brokers.clone(),
        topic: name.to_owned(),
        reason,
    };
    // -1 is the brokers' default.
    let replication = TopicReplication::Fixed(sink.replication.map_or(-1, i32::from));
    let bytes = LEDGER_RECORD_BYTES.to_string();
    let topic = NewTopic::new(name, 1, replication)
        .set("cleanup.policy", "compact")
        .set("segment.bytes", SEGMENT_BYTES)
        .set("max.message.bytes", &bytes);
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let created = block_on(admin.create_topics([&topic], &options));
    match created.map(|results| results.into_iter().next()) {
        Ok(Some(Ok(topic))) => tracing::info!(topic, "created"),
        Ok(None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) => {}
        Ok(Some(Err((
            _,
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
        )))) => {
            return Err(LedgerError::Denied {
                brokers: sink.client.brokers.clone(),
                right: "Create",
                resource: format!("topic {name}"),
            });
        }
        Ok(Some(Err((_, code)))) => return Err(failed(code.to_string())),
        Err(error) => return Err(failed(reason(&error))),
    }
    Ok(())
}

fn reason(error: &LibraryError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::testing::MockBroker;

    #[test]
    fn a_broker_without_transactions_is_refused_with_what_to_do() {
        let broker = MockBroker::new();
        let sink = KafkaSink::new(broker.client());
        for error in [look(&sink, "p").map(drop).unwrap_err(), prepare(&sink, "p").map(drop).unwrap_err()] {
            assert!(error.to_string().contains("set `delivery = \"at_least_once\"`"), "{error}");
        }
    }
}
