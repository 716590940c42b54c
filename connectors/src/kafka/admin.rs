//! The topics that a job writes to: their settings, and how missing ones are created.
//!
//! If brokers have no admin interface, or don't return a topic's settings (no right DescribeConfigs), the settings are
//! unknown, with the reason. What is wrong with a topic, the caller says.
//!
//! Limits: 30 s for a request. A topic that was just created is asked for again for 5 s, as a broker may learn of it later
//! than the one that created it.

use std::time::{Duration, Instant};

use keytide_config::KafkaClient;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};

use super::client::{ErrorClass, KafkaContext, KafkaError, client_config, create_error};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long topics that were created are asked for.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// How long to wait before they are asked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The settings of a topic, as far as the brokers return them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicSettings {
    Known {
        policy: Option<String>,
        /// The size of a record batch that it accepts.
        max_bytes: Option<usize>,
    },
    Missing,
    /// The topic may not be described.
    Hidden,
    Unknown {
        why: String,
    },
}

/// A topic that is to be created.
#[derive(Clone, Debug)]
pub(crate) struct PlannedTopic<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: u32,
    /// The brokers' default if it is `None`.
    pub(crate) replication: Option<u16>,
    pub(crate) settings: Vec<(&'static str, &'a str)>,
}

/// The purpose of a request to create topics: to create them, or to learn only if the brokers would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateMode {
    Create,
    Try,
}

/// The topics that brokers refused to create. Those that exist already are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusedTopics {
    /// The topics for which the user has no right.
    pub(crate) denied: Vec<String>,
    /// The others: name, reason, and whether asking again may help.
    pub(crate) others: Vec<(String, String, ErrorClass)>,
    /// True if the brokers can't create topics.
    pub(crate) is_unsupported: bool,
}

/// A client that looks at topics and creates them.
pub(crate) struct TopicAdmin {
    client: AdminClient<KafkaContext>,
    brokers: String,
}

impl TopicAdmin {
    /// Makes the client, which doesn't connect yet.
    ///
    /// # Errors
    /// If librdkafka refuses the settings.
    pub(crate) fn new(client: &KafkaClient) -> Result<Self, KafkaError> {
        let mut settings = client_config(client);
        // A request for a topic must not create it.
        settings.set("allow.auto.create.topics", "false");
        let admin = AdminClient::from_config_and_context(&settings, KafkaContext::new(client))
            .map_err(|error| create_error(client, error))?;
        Ok(Self { client: admin, brokers: client.brokers.clone() })
    }

    /// Returns the settings of topics, in their order.
    ///
    /// # Errors
    /// If the brokers gave no good answer.
    pub(crate) fn describe(&self, names: &[String]) -> Result<Vec<TopicSettings>, KafkaError> {
        let topics = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect::<Vec<_>>();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let described = match block_on(self.client.describe_configs(&topics, &options)) {
            Ok(described) => described,
            Err(error) if is_unsupported(&error) => {
                let why = "the brokers don't return the settings of topics".to_owned();
                return Ok(vec![TopicSettings::Unknown { why }; names.len()]);
            }
            Err(error) => return Err(self.unavailable("return the settings of topics", &error)),
        };
        // The answers come in the order of the questions.
        let mut found = Vec::new();
        for (resource, name) in described.into_iter().zip(names) {
            found.push(match resource {
                // rdkafka 0.39 drops the errors of single resources: one without settings was refused.
                Ok(resource) if resource.entries.is_empty() => self.without_settings(name)?,
                Ok(resource) => {
                    let value = |name| resource.get(name).and_then(|entry| entry.value.clone());
                    TopicSettings::Known {
                        policy: value("cleanup.policy"),
                        max_bytes: value("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
                    }
                }
                Err(code) => {
                    let error = LibraryError::AdminOp(code);
                    return Err(self.unavailable("return the settings of topics", &error));
                }
            });
        }
        let why = "the brokers don't return its settings".to_owned();
        found.resize(names.len(), TopicSettings::Unknown { why });
        Ok(found)
    }

    /// Returns the settings of topics of which some were just created.
    ///
    /// # Errors
    /// If the brokers gave no good answer.
    pub(crate) fn describe_created(&self, names: &[String]) -> Result<Vec<TopicSettings>, KafkaError> {
        let started = Instant::now();
        loop {
            let found = self.describe(names)?;
            let is_known =
                |of: &TopicSettings| !matches!(of, TopicSettings::Missing | TopicSettings::Unknown { .. });
            if found.iter().all(is_known) || started.elapsed() >= LOOK_FOR {
                return Ok(found);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Finds out about a topic whose settings weren't returned.
    fn without_settings(&self, name: &str) -> Result<TopicSettings, KafkaError> {
        let metadata = self
            .client
            .inner()
            .fetch_metadata(Some(name), TIMEOUT)
            .map_err(|error| self.unavailable("list their topics", &error))?;
        let error = metadata.topics().iter().find(|topic| topic.name() == name).map(|topic| topic.error());
        Ok(match error.map(|error| error.map(RDKafkaErrorCode::from)) {
            None | Some(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                TopicSettings::Missing
            }
            Some(Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => TopicSettings::Hidden,
            Some(error) => {
                let code = error.map(|code| format!(" ({code})")).unwrap_or_default();
                TopicSettings::Unknown { why: format!("the settings of {name} may not be read{code}") }
            }
        })
    }

    /// Creates topics, or tries to. Those that another process created meanwhile are there as well.
    ///
    /// # Errors
    /// If the brokers gave no good answer.
    pub(crate) fn create(
        &self,
        topics: &[PlannedTopic<'_>],
        mode: CreateMode,
    ) -> Result<RefusedTopics, KafkaError> {
        let mut refused = RefusedTopics::default();
        if topics.is_empty() {
            return Ok(refused);
        }
        let new = topics.iter().map(|topic| {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            // -1 is the brokers' default.
            let replication = TopicReplication::Fixed(topic.replication.map_or(-1, i32::from));
            let new = NewTopic::new(topic.name, partitions, replication);
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let options = AdminOptions::new()
            .request_timeout(Some(TIMEOUT))
            .operation_timeout(Some(TIMEOUT))
            .validate_only(mode == CreateMode::Try);
        let created = match block_on(self.client.create_topics(&new, &options)) {
            Ok(created) => created,
            Err(error) if is_unsupported(&error) => {
                return Ok(RefusedTopics { is_unsupported: true, ..refused });
            }
            Err(error) => return Err(self.unavailable("create topics", &error)),
        };
        for result in created {
            match result {
                Ok(topic) if mode == CreateMode::Create => tracing::info!(topic, "created"),
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((
                    topic,
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
                )) => refused.denied.push(topic),
                Err((topic, code)) => refused.others.push((topic, code.to_string(), class(code))),
            }
        }
        Ok(refused)
    }

    fn unavailable(&self, what: &str, error: &LibraryError) -> KafkaError {
        KafkaError::Unavailable {
            what: what.to_owned(),
            brokers: self.brokers.clone(),
            mistake: None,
            reason: error.to_string(),
        }
    }
}

/// Waits for a future on this thread, which must not be one of a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without drivers asks nothing of the system").block_on(future)
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
