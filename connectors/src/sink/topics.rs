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
//! Limits: 30 s for each of at most four requests, after the 20 s of a first look-up, and 5 s for topics that were created.

use keytide_config::{KafkaSink, View};

use super::{SinkCheck, SinkError};
use crate::kafka::{
    CreateMode, PlannedTopic, RefusedTopics, Right, Topic, TopicAdmin, TopicRights, TopicSettings,
};

/// The names of all views' topics.
pub(super) type TopicNames = [String; View::ALL.len()];
/// The size of a record batch that each topic accepts, if that is known.
pub(super) type BatchLimits = [Option<usize>; View::ALL.len()];

/// Makes sure that every topic is there and fit for its view.
pub(super) fn prepare(sink: &KafkaSink, names: &TopicNames) -> Result<BatchLimits, SinkError> {
    let brokers = &sink.client.brokers;
    // 1. An in-process broker has no admin API.
    if Topic::open(&sink.client, &names[0])?.cluster()?.is_mock {
        unchecked("the in-process broker has no admin API");
        return Ok(BatchLimits::default());
    }
    // 2. Look for missing topics, and create them if that is wanted.
    let admin = TopicAdmin::new(&sink.client)?;
    let mut found = admin.describe(names)?;
    let missing: Vec<View> =
        View::ALL.into_iter().filter(|view| found[*view as usize] == TopicSettings::Missing).collect();
    if !missing.is_empty() {
        if !sink.create_topics {
            return Err(missing_topics(sink, names, &missing));
        }
        if let Some(error) = create(&admin, sink, names, &missing, CreateMode::Create)?.into_iter().next() {
            return Err(error);
        }
        // Another process may have created them meanwhile, with other settings.
        found = admin.describe_created(names)?;
    }
    // 3. Check the rights and the policies of all topics.
    say_unknown(&found);
    let hidden = names.iter().zip(&found).filter(|(_, found)| **found == TopicSettings::Hidden);
    let hidden: Vec<String> = hidden.map(|(name, _)| name.clone()).collect();
    if !hidden.is_empty() {
        return Err(denied(sink, "Describe", hidden));
    }
    let mut limits = BatchLimits::default();
    for (view, found) in View::ALL.into_iter().zip(found) {
        match found {
            TopicSettings::Known { policy, max_bytes } => {
                judge(view, brokers, &names[view as usize], policy.as_deref())?;
                limits[view as usize] = max_bytes;
            }
            TopicSettings::Hidden | TopicSettings::Missing | TopicSettings::Unknown { .. } => {}
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
    let admin = TopicAdmin::new(&sink.client)?;
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
    let described = admin.describe(names)?;
    say_unknown(&described);
    for (view, settings) in View::ALL.into_iter().zip(described) {
        if let TopicSettings::Known { policy, .. } = settings {
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

/// Creates topics, or tries to; returns an error for each that is refused. Rights that are missing make one error.
fn create(
    admin: &TopicAdmin,
    sink: &KafkaSink,
    names: &TopicNames,
    missing: &[View],
    mode: CreateMode,
) -> Result<Vec<SinkError>, SinkError> {
    let planned = missing.iter().map(|view| PlannedTopic {
        name: &names[*view as usize],
        partitions: sink.partitions,
        replication: sink.replication,
        settings: vec![("cleanup.policy", policy(*view))],
    });
    let RefusedTopics { denied: without_right, others, is_unsupported } =
        admin.create(&planned.collect::<Vec<_>>(), mode)?;
    if is_unsupported {
        unchecked("the brokers can't create topics");
    }
    let denied = (!without_right.is_empty()).then(|| denied(sink, "Create", without_right));
    let others = others.into_iter().map(|(topic, reason, class)| SinkError::CreateTopic {
        brokers: sink.client.brokers.clone(),
        topic,
        reason,
        class,
    });
    Ok(denied.into_iter().chain(others).collect())
}

/// Says which topics can't be checked, and why: what is the same for all of them, once.
fn say_unknown(found: &[TopicSettings]) {
    let mut said: Vec<&str> = Vec::new();
    for settings in found {
        if let TopicSettings::Unknown { why } = settings
            && !said.contains(&why.as_str())
        {
            unchecked(why);
            said.push(why);
        }
    }
}

fn unchecked(why: &str) {
    tracing::warn!(
        "{why}, so topics can't be checked: those of upsert views must be compacted; incident_log, late and dead_letters must not"
    );
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
