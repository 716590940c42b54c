//! The rights that a client's user has on topics, as the brokers tell them (KIP-430).
//!
//! Brokers list a topic's rights only for a user that may describe it. Without that right the answer is a refusal, for
//! a topic that exists as for one that doesn't. The right to read or to write includes the one to describe.
//!
//! Limits: one request, which waits for 20 s.

#![allow(unsafe_code, reason = "rdkafka 0.39 has no way to rights on topics")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_AclOperation_t as AclOperation, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_AdminOptions_set_request_timeout,
    rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_authorized_operations,
    rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name, rd_kafka_admin_op_t,
    rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_event_DescribeTopics_result,
    rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_t, rd_kafka_queue_destroy,
    rd_kafka_queue_new, rd_kafka_queue_poll,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// How long the request may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How much later than librdkafka's own timeout its answer may come.
const MARGIN: Duration = Duration::from_secs(2);

/// A right on a topic that a job needs, by its name in Kafka's ACLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Describe,
    Read,
    Write,
    DescribeConfigs,
}

impl Right {
    fn code(self) -> u32 {
        let operation = match self {
            Self::Describe => AclOperation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            Self::Read => AclOperation::RD_KAFKA_ACL_OPERATION_READ,
            Self::Write => AclOperation::RD_KAFKA_ACL_OPERATION_WRITE,
            Self::DescribeConfigs => AclOperation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
        };
        operation as u32
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Describe => "Describe",
            Self::Read => "Read",
            Self::Write => "Write",
            Self::DescribeConfigs => "DescribeConfigs",
        })
    }
}

/// The answer about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRights {
    Listed {
        /// The operations that the user may do, by Kafka's numbers. Without an authorizer they are all.
        codes: Vec<u32>,
    },
    Missing,
    /// The user may not describe the topic, which may exist or not.
    Hidden,
    /// The brokers don't list rights, or not those of this topic.
    Unknown,
}

impl TopicRights {
    /// Returns those of `needed` that the user doesn't have. None is missing of a topic about which nothing is known.
    #[must_use]
    pub fn lacks(&self, needed: &[Right]) -> Vec<Right> {
        match self {
            Self::Listed { codes } => {
                needed.iter().copied().filter(|right| !codes.contains(&right.code())).collect()
            }
            Self::Hidden => needed.to_vec(),
            Self::Missing | Self::Unknown => Vec::new(),
        }
    }
}

/// Returns the rights on each of `topics`, in their order.
///
/// # Errors
/// The code of the brokers' or librdkafka's error.
pub(crate) fn rights<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
) -> Result<Vec<TopicRights>, RDKafkaErrorCode> {
    let names = topics.iter().map(|name| CString::new(name.as_str()));
    let names: Vec<CString> = names.collect::<Result<_, _>>().map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let milliseconds = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    let mut reason = [0; 128];
    // SAFETY: `client` outlives the calls, and `pointers` the names of the collection, which copies them. Everything
    // that is made here is destroyed once, at the end. The event is read before that.
    unsafe {
        let rk = client.native_ptr();
        let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd_kafka_AdminOptions_set_request_timeout(
            options,
            milliseconds(TIMEOUT),
            reason.as_mut_ptr(),
            reason.len(),
        );
        let refused = rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !refused.is_null() {
            rd_kafka_error_destroy(refused);
        }
        let collection = rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = rd_kafka_queue_new(rk);
        rd_kafka_DescribeTopics(rk, collection, options, queue);
        let event = rd_kafka_queue_poll(queue, milliseconds(TIMEOUT + MARGIN));
        let answers = if event.is_null() { Err(RDKafkaErrorCode::OperationTimedOut) } else { answers(event) };
        if !event.is_null() {
            rd_kafka_event_destroy(event);
        }
        rd_kafka_queue_destroy(queue);
        rd_kafka_TopicCollection_destroy(collection);
        rd_kafka_AdminOptions_destroy(options);
        let answers = answers?;
        Ok(topics.iter().map(|name| answers.get(name).cloned().unwrap_or(TopicRights::Unknown)).collect())
    }
}

/// Copies the answers about topics out of an event, by their names.
///
/// # Safety
/// The event must be one that isn't destroyed.
unsafe fn answers(event: *mut rd_kafka_event_t) -> Result<BTreeMap<String, TopicRights>, RDKafkaErrorCode> {
    let mut found = BTreeMap::new();
    // SAFETY: the event lives, so its parts do; all counts are librdkafka's own.
    unsafe {
        match rd_kafka_event_error(event) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            code => return Err(code.into()),
        }
        let result = rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let topics = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for index in 0..count {
            let topic = *topics.add(index);
            let name = CStr::from_ptr(rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
            let error = rd_kafka_TopicDescription_error(topic);
            let code = (!error.is_null()).then(|| RDKafkaErrorCode::from(rd_kafka_error_code(error)));
            let answer = match code {
                None | Some(RDKafkaErrorCode::NoError) => {
                    let mut count = 0;
                    let operations = rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
                    match operations {
                        operations if operations.is_null() => TopicRights::Unknown,
                        // As numbers: a newer broker may know operations that aren't in the enumeration.
                        operations => TopicRights::Listed {
                            codes: (0..count).map(|at| *operations.cast::<u32>().add(at)).collect(),
                        },
                    }
                }
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    TopicRights::Missing
                }
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => TopicRights::Hidden,
                Some(_) => TopicRights::Unknown,
            };
            found.insert(name, answer);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_are_missing_are_those_that_a_broker_does_not_list() {
        let needed = [Right::Describe, Right::Write, Right::DescribeConfigs];
        let listed = TopicRights::Listed { codes: vec![Right::Describe.code(), Right::Read.code(), 99] };
        assert_eq!(listed.lacks(&needed), [Right::Write, Right::DescribeConfigs]);
        assert_eq!(TopicRights::Hidden.lacks(&needed), needed);
        assert_eq!(TopicRights::Missing.lacks(&needed), []);
        assert_eq!(TopicRights::Unknown.lacks(&needed), []);
        // Kafka's own numbers, org.apache.kafka.common.acl.AclOperation.
        assert_eq!(needed.map(Right::code), [8, 4, 10]);
    }
}
