//! The topics that results go to. They are created if they are missing, and checked if they exist.
//!
//! An upsert view's topic is compacted: it keeps the newest row of every key for ever. With `compact,delete`, which
//! is accepted, the operator decided how long. An append view's topic (`incident_log`, `late`, `dead_letters`) is
//! never compacted: none of its records replaces another. Its retention is the brokers' default, because the number
//! of dead letters has no limit and they could fill the disks. To keep them longer, set `retention.ms`.
//!
//! If brokers don't return a topic's settings (no admin API, or no right DescribeConfigs), the log has a warning and
//! the topic counts as fit. A topic that may not even be described is an error: no record could be sent to it.
//!
//! Limits: 30 s for each of at most four requests, after the 20 s of a first look-up.

use std::time::Duration;

use keytide_config::{KafkaSink, View};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};

use super::{SinkCheck, SinkError};
use crate::kafka::{ErrorClass, KafkaContext, KafkaError, Right, Topic, TopicRights, admin_client, block_on};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The names of all views' topics.
pub(super) type TopicNames = [String; View::ALL.len()];
/// The size of a record batch that each topic accepts, if that is known.
pub(super) type BatchLimits = [Option<usize>; View::ALL.len()];

/// The settings of a topic, as far as the brokers return them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Topic {
        policy: Option<String>,
        max_bytes: Option<usize>,
    },
    Missing,
    /// The topic may not be described.
    Hidden,
    Unknown,
}

/// The purpose of a request to create topics: to create them, or to learn only if the brokers would.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CreateMode {
    Create,
    Try,
}

/// Makes sure that every topic is there and fit for its view.
pub(super) fn prepare(sink: &KafkaSink, names: &TopicNames) -> Result<BatchLimits, SinkError> {
    let brokers = &sink.client.brokers;
    // 1. An in-process broker has no admin API.
    if Topic::open(&sink.client, &names[0])?.cluster()?.is_mock {
        unchecked("the in-process broker has no admin API");
        return Ok(BatchLimits::default());
    }
    // 2. Look for missing topics, and create them if that is wanted.
    let admin = admin_client(&sink.client)?;
    let mut found = describe(&admin, brokers, names)?;
    let missing: Vec<View> =
        View::ALL.into_iter().filter(|view| found[*view as usize] == Found::Missing).collect();
    if !missing.is_empty() {
        if !sink.create_topics {
            return Err(missing_topics(sink, names, &missing));
        }
        if let Some(error) = create(&admin, sink, names, &missing, CreateMode::Create)?.into_iter().next() {
            return Err(error);
        }
        // Another process may have created them meanwhile, with other settings.
        found = describe(&admin, brokers, names)?;
    }
    // 3. Check the rights and the policies of all topics.
    let hidden = names.iter().zip(&found).filter(|(_, found)| **found == Found::Hidden);
    let hidden: Vec<String> = hidden.map(|(name, _)| name.clone()).collect();
    if !hidden.is_empty() {
        return Err(denied(sink, "Describe", hidden));
    }
    let mut limits = BatchLimits::default();
    for (view, found) in View::ALL.into_iter().zip(found) {
        match found {
            Found::Topic { policy, max_bytes } => {
                judge(view, brokers, &names[view as usize], policy.as_deref())?;
                limits[view as usize] = max_bytes;
            }
            Found::Hidden | Found::Missing | Found::Unknown => {}
        }
    }
    Ok(limits)
}

/// Checks the topics as a job would find them, and creates none. Missing ones are tried, with their settings.
///
/// # Errors
/// If the brokers can't be asked. Everything that is wrong with topics and rights is in the answer.
pub(super) fn check(sink: &KafkaSink, names: &TopicNames) -> Result<SinkCheck, SinkError> {
    let mut found = SinkCheck::default();
    let lookup = Topic::open(&sink.client, &names[0])?;
    let cluster = lookup.cluster()?;
    if cluster.is_mock {
        found
            .warnings
            .push("sink.kafka: the in-process broker has no admin API: topics can't be checked".to_owned());
        return Ok(found);
    }
    // 1. Rights, each with the topics that lack it.
    let needed = [Right::Describe, Right::Write, Right::DescribeConfigs];
    let rights = lookup.rights_on(names)?;
    for right in needed {
        let without = names.iter().zip(&rights).filter(|(_, rights)| rights.lacks(&needed).contains(&right));
        let without: Vec<String> = without.map(|(name, _)| name.clone()).collect();
        if without.is_empty() {
            continue;
        }
        let name = right.to_string();
        if right == Right::DescribeConfigs {
            // A job goes on without it.
            let denied = denied(sink, &name, without);
            found.warnings.push(format!("{denied}; without it their cleanup.policy can't be checked"));
        } else {
            found.problems.push(denied(sink, &name, without));
        }
    }
    // 2. Missing topics, as they would be created. Those that may not be described may be missing, too.
    let is_absent =
        |view: &View| matches!(rights[*view as usize], TopicRights::Missing | TopicRights::Hidden);
    let is_missing = |view: &View| rights[*view as usize] == TopicRights::Missing;
    let missing: Vec<View> = View::ALL.into_iter().filter(is_missing).collect();
    let admin = admin_client(&sink.client)?;
    let too_many = sink.replication.filter(|replicas| usize::from(*replicas) > cluster.brokers);
    if sink.create_topics {
        let absent: Vec<View> = View::ALL.into_iter().filter(is_absent).collect();
        match too_many {
            Some(replication) if !absent.is_empty() => found.problems.push(SinkError::Replication {
                replication,
                brokers: sink.client.brokers.clone(),
                count: cluster.brokers,
            }),
            _ => {
                found.problems.extend(create(&admin, sink, names, &absent, CreateMode::Try)?);
            }
        }
        found.missing = missing.iter().map(|view| names[*view as usize].clone()).collect();
    } else if !missing.is_empty() {
        found.problems.push(missing_topics(sink, names, &missing));
    }
    // 3. The policies of those that exist.
    let brokers = &sink.client.brokers;
    for (view, settings) in View::ALL.into_iter().zip(describe(&admin, brokers, names)?) {
        if let Found::Topic { policy, .. } = settings {
            found.problems.extend(judge(view, brokers, &names[view as usize], policy.as_deref()).err());
        }
    }
    Ok(found)
}

fn missing_topics(sink: &KafkaSink, names: &TopicNames, missing: &[View]) -> SinkError {
    SinkError::MissingTopics {
        brokers: sink.client.brokers.clone(),
        topics: missing.iter().map(|view| names[*view as usize].clone()).collect(),
        policy: missing.first().map_or("compact", |view| policy(*view)),
    }
}

fn denied(sink: &KafkaSink, right: &str, topics: Vec<String>) -> SinkError {
    let (brokers, prefix) = (sink.client.brokers.clone(), sink.prefix.clone());
    SinkError::Denied { brokers, right: right.to_owned(), topics, prefix }
}

/// Returns the policy that a view's topic needs.
fn policy(view: View) -> &'static str {
    if view.is_upsert() { "compact" } else { "delete" }
}

fn judge(view: View, brokers: &str, topic: &str, found: Option<&str>) -> Result<(), SinkError> {
    let Some(found) = found else { return Ok(()) };
    let is_compacted = found.split(',').any(|policy| policy.trim() == "compact");
    if is_compacted == view.is_upsert() {
        return Ok(());
    }
    Err(SinkError::CleanupPolicy {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        found: found.to_owned(),
        wanted: policy(view),
        reason: if view.is_upsert() {
            "holds one row per key, of which only the newest counts"
        } else {
            "holds records of which none replaces another"
        },
    })
}

fn describe(
    admin: &AdminClient<KafkaContext>,
    brokers: &str,
    names: &TopicNames,
) -> Result<Vec<Found>, SinkError> {
    let topics = names.each_ref().map(|name| ResourceSpecifier::Topic(name));
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = match block_on(admin.describe_configs(&topics, &options)) {
        Ok(described) => described,
        Err(error) if is_unsupported(&error) => {
            unchecked("the brokers don't return the settings of topics");
            return Ok(vec![Found::Unknown; names.len()]);
        }
        Err(error) => return Err(unavailable("return the settings of topics", brokers, &error)),
    };
    let mut found = Vec::new();
    // The answers come in the order of the questions.
    for (resource, name) in described.into_iter().zip(names) {
        found.push(match resource {
            // rdkafka 0.39 drops the errors of single resources: one without settings was refused.
            Ok(resource) if resource.entries.is_empty() => exists(admin, brokers, name)?,
            Ok(resource) => {
                let value = |name| resource.get(name).and_then(|entry| entry.value.clone());
                Found::Topic {
                    policy: value("cleanup.policy"),
                    max_bytes: value("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
                }
            }
            Err(code) => {
                let error = LibraryError::AdminOp(code);
                return Err(unavailable("return the settings of topics", brokers, &error));
            }
        });
    }
    found.resize(names.len(), Found::Unknown);
    Ok(found)
}

/// Checks whether a topic exists whose settings weren't returned.
fn exists(admin: &AdminClient<KafkaContext>, brokers: &str, name: &str) -> Result<Found, SinkError> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(name), TIMEOUT)
        .map_err(|error| unavailable("list their topics", brokers, &error))?;
    let error = metadata.topics().iter().find(|topic| topic.name() == name).map(|topic| topic.error());
    match error.map(|error| error.map(RDKafkaErrorCode::from)) {
        None | Some(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
            Ok(Found::Missing)
        }
        Some(Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => Ok(Found::Hidden),
        Some(error) => {
            let why = error.map(|code| format!(" ({code})")).unwrap_or_default();
            unchecked(&format!("the settings of {name} may not be read{why}"));
            Ok(Found::Unknown)
        }
    }
}

/// Creates topics, or tries to; returns an error for each that is refused. Rights that are missing make one error.
fn create(
    admin: &AdminClient<KafkaContext>,
    sink: &KafkaSink,
    names: &TopicNames,
    missing: &[View],
    mode: CreateMode,
) -> Result<Vec<SinkError>, SinkError> {
    let brokers = &sink.client.brokers;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    // -1 is the brokers' default.
    let replication = sink.replication.map_or(-1, i32::from);
    let partitions = i32::try_from(sink.partitions).unwrap_or(i32::MAX);
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|view| {
            NewTopic::new(&names[*view as usize], partitions, TopicReplication::Fixed(replication))
                .set("cleanup.policy", policy(*view))
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
        .validate_only(mode == CreateMode::Try);
    let created = match block_on(admin.create_topics(&topics, &options)) {
        Ok(created) => created,
        Err(error) if is_unsupported(&error) => {
            unchecked("the brokers can't create topics");
            return Ok(Vec::new());
        }
        Err(error) => return Err(unavailable("create topics", brokers, &error)),
    };
    let (mut errors, mut refused) = (Vec::new(), Vec::new());
    for result in created {
        match result {
            Ok(topic) if mode == CreateMode::Create => tracing::info!(topic, "created"),
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((
                topic,
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
            )) => refused.push(topic),
            Err((topic, code)) => errors.push(SinkError::CreateTopic {
                brokers: brokers.clone(),
                topic,
                reason: code.to_string(),
                class: class(code),
            }),
        }
    }
    if !refused.is_empty() {
        errors.insert(0, denied(sink, "Create", refused));
    }
    Ok(errors)
}

fn unchecked(why: &str) {
    tracing::warn!(
        "{why}, so topics can't be checked: those of upsert views must be compacted; incident_log, late and dead_letters must not"
    );
}

fn is_unsupported(error: &LibraryError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion)
    )
}

/// Returns whether asking again may create a topic.
fn class(code: RDKafkaErrorCode) -> ErrorClass {
    match code {
        RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::BrokerNotAvailable
        | RDKafkaErrorCode::NotController
        | RDKafkaErrorCode::ThrottlingQuotaExceeded => ErrorClass::Transient,
        _ => ErrorClass::Definite,
    }
}

fn unavailable(what: &str, brokers: &str, error: &LibraryError) -> SinkError {
    SinkError::Kafka(KafkaError::Unavailable {
        what: what.to_owned(),
        brokers: brokers.to_owned(),
        mistake: None,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_does_not_fit_is_an_error_with_the_command_that_corrects_it() {
        let judge = |view, policy| judge(view, "kafka:9092", "k.view.v1", policy);
        for accepted in ["compact", "compact,delete", "delete, compact"] {
            judge(View::Usage, Some(accepted)).unwrap();
            let error = judge(View::Late, Some(accepted)).unwrap_err();
            assert!(error.to_string().ends_with("--add-config cleanup.policy=delete"), "{error}");
        }
        judge(View::DeadLetters, Some("delete")).unwrap();
        let error = judge(View::Geo, Some("delete")).unwrap_err().to_string();
        assert!(
            error.contains(
                "kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type topics --entity-name \
                 k.view.v1 --add-config cleanup.policy=compact"
            ),
            "{error}"
        );
        judge(View::Usage, None).unwrap();
    }
}
