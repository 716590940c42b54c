//! The topic of a ledger. It is created if it is missing, and checked if it exists.

use std::time::{Duration, Instant};

use keytide_config::KafkaSink;

use super::LEDGER_RECORD_BYTES;
use crate::kafka::{
    CreateMode, ErrorClass, KafkaError, PlannedTopic, Right, Topic, TopicAdmin, TopicSettings,
};
use crate::ledger::error::LedgerError;

/// How long a topic that was created is looked for.
const LOOK_FOR: Duration = Duration::from_secs(30);
/// How long to wait before brokers are asked again for a topic that was created.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The size of a segment. Only closed segments are compacted, and a start reads the topic whole.
const SEGMENT_BYTES: &str = "16777216";

/// Makes sure that the topic is there and fit; returns the largest record batch that it takes, if that is known.
pub(super) fn prepare(sink: &KafkaSink, name: &str) -> Result<Option<usize>, LedgerError> {
    if let Some(found) = look(sink, name)? {
        return Ok(found);
    }
    create(sink, name)?;
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
    let described = TopicAdmin::new(&sink.client)?.describe(&[name.to_owned()]);
    let described = described.ok().and_then(|found| found.into_iter().next());
    let Some(TopicSettings::Known { policy: Some(found), max_bytes }) = described else {
        tracing::warn!("the settings of {name} may not be read: it must be compacted");
        return Ok(Some(None));
    };
    // With `compact,delete` a tick's record may go before its checkpoint.
    if found.trim() != "compact" {
        let (brokers, topic) = (brokers.clone(), name.to_owned());
        return Err(LedgerError::CleanupPolicy { brokers, topic, found });
    }
    Ok(Some(max_bytes))
}

/// Checks the rights on a topic that was created. A broker may learn of it later than the one that created it.
fn wait_until_known(lookup: &Topic) -> Result<(), LedgerError> {
    let started = Instant::now();
    loop {
        let partitions = lookup.partitions().map_err(LedgerError::from);
        match partitions.and_then(|_| check_rights(lookup)) {
            Err(LedgerError::Kafka(KafkaError::NoTopic { .. })) if started.elapsed() < LOOK_FOR => {
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

fn create(sink: &KafkaSink, name: &str) -> Result<(), LedgerError> {
    let bytes = LEDGER_RECORD_BYTES.to_string();
    let planned = PlannedTopic {
        name,
        partitions: 1,
        replication: sink.replication,
        settings: vec![
            ("cleanup.policy", "compact"),
            ("segment.bytes", SEGMENT_BYTES),
            ("max.message.bytes", &bytes),
        ],
    };
    let brokers = sink.client.brokers.clone();
    let refused = TopicAdmin::new(&sink.client)?.create(&[planned], CreateMode::Create)?;
    if let Some(topic) = refused.denied.into_iter().next() {
        return Err(LedgerError::Denied { brokers, right: "Create", resource: format!("topic {topic}") });
    }
    match refused.others.into_iter().next() {
        Some((topic, reason, class)) => Err(LedgerError::CreateTopic { brokers, topic, reason, class }),
        None if refused.is_unsupported => Err(LedgerError::CreateTopic {
            brokers,
            topic: name.to_owned(),
            reason: "they can't create topics".to_owned(),
            class: ErrorClass::Definite,
        }),
        None => Ok(()),
    }
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
