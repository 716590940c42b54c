//! A ledger in a topic: rows and records of ticks go out in transactions of one producer.
//!
//! ```text
//! topic   <prefix>.progress.v1, one partition, compacted
//! key     a tick's number mod 4,096, or `claim`
//! value   a LedgerRecord as JSON
//! ```
//! The producer's `transactional.id` is `<prefix>.<job>`. It must stay the same over all lives of a job: it is what
//! fences earlier ones, and what frees readers from their open transaction at once.
//!
//! The producer is polled by the thread that commits, since no other needs its events. Only errors are reported: all
//! records are acknowledged once none is in flight and none was refused.
//!
//! **The ledger is read** up to the high watermark of a client that reads uncommitted records, which is asked for after
//! the producer was made. A consumer of committed records reads until its position passes it. So the records of an
//! aborted transaction and the markers at its end are passed as well.
//!
//! **Limits**: a transaction takes at most 60 s, a call to commit 10 s. A record of a tick takes 8 MiB if the job made
//! the topic.

mod context;
pub(super) mod topic;

use std::time::{Duration, Instant};

use keytide_config::{KafkaClient, KafkaSink};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use self::context::LedgerContext;
use super::driver::{Driver, Stop};
use super::error::LedgerError;
use super::machine::{Answer, Rules, SLOW_COMMIT};
use super::reading::{KEPT_TICKS, Reading};
use super::record::LedgerRecord;
use super::rows::{KeptRow, KeptRows};
use crate::kafka::{
    Consumer, ConsumerEvent, ErrorClass, KafkaError, Topic, create_error, for_reading, result_headers,
    result_settings,
};

/// How long a transaction may take, before the brokers abort it.
const TRANSACTION_TIMEOUT_MS: u32 = 60_000;
/// How long a call to commit may take.
const COMMIT_WAIT: Duration = Duration::from_secs(10);
/// How long the brokers are waited for at once before the thread looks whether it has to stop.
const INIT_WAIT: Duration = Duration::from_secs(2);
/// How long a wait for acknowledgements takes at least.
const POLL: Duration = Duration::from_millis(5);
/// How long to wait before something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long to wait for records that are there.
const READ_WAIT: Duration = Duration::from_millis(100);
/// The bytes of a batch and a record in it, without key, value and headers.
const FRAMING_BYTES: usize = 128;
/// The size of a batch that topics take by default.
const TOPIC_BYTES: usize = 1_048_588;
/// The size of a record that librdkafka takes by default.
const RECORD_BYTES: usize = 1_000_000;
/// The size of a record in the ledger's topic, if the job made it.
const LEDGER_RECORD_BYTES: usize = 8 << 20;
/// The most events of librdkafka that are served at once.
const SERVED_EVENTS: usize = 64;

/// A topic that rows go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowTopic {
    pub name: String,
    /// The size of a batch that it takes, if that is known.
    pub limit: Option<usize>,
}

/// The options of a ledger in a topic.
#[derive(Clone, Debug)]
pub struct KafkaLedgerOptions {
    /// The name of the job.
    pub job: String,
    /// The topics that rows go to. A row names one by its index.
    pub topics: Vec<RowTopic>,
    transaction_timeout_ms: u32,
    rules: Rules,
}

impl KafkaLedgerOptions {
    /// Returns the options of a job's ledger, whose rows go to `topics`.
    #[must_use]
    pub fn new(job: &str, topics: Vec<RowTopic>) -> Self {
        Self {
            job: job.to_owned(),
            topics,
            transaction_timeout_ms: TRANSACTION_TIMEOUT_MS,
            rules: Rules::ALL,
        }
    }

    /// Lets the brokers abort a transaction after `ms` milliseconds.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_transaction_timeout_ms(self, ms: u32) -> Self {
        Self { transaction_timeout_ms: ms, ..self }
    }

    /// Leaves out the rule that a commit which may have been repeated needs a new producer. A test shows what happens.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn without_renewal(self) -> Self {
        let rules = Rules { renews_after_slow_commit: false, renews_after_trouble: false, ..self.rules };
        Self { rules, ..self }
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }
}

/// A ledger in a topic.
pub(super) struct KafkaLedger {
    client: KafkaClient,
    settings: ClientConfig,
    transactional_id: String,
    /// The topics of rows, and the largest record of each.
    topics: Vec<(String, usize)>,
    /// The ledger's own topic, and its largest record.
    topic: String,
    limit: usize,
    lookup: Topic,
    /// The offset that is read next, once one is known.
    next_offset: Option<u64>,
    producer: Option<BaseProducer<LedgerContext>>,
    stop: Stop,
}

impl KafkaLedger {
    /// Prepares the topic. No producer is made yet.
    pub(super) fn open(
        sink: &KafkaSink,
        options: KafkaLedgerOptions,
        stop: Stop,
    ) -> Result<Self, LedgerError> {
        let KafkaLedgerOptions { job, topics, transaction_timeout_ms, rules: _ } = options;
        let name = sink.progress_topic();
        let limit = topic::prepare(sink, &name)?;
        let transactional_id = format!("{}.{job}", sink.prefix);

        let limits = topics.iter().filter_map(|topic| topic.limit).chain(limit);
        let mut settings = result_settings(&sink.client, limits, "5");
        let largest = sink.client.settings.get("message.max.bytes");
        let largest = largest.and_then(|bytes| bytes.reveal().trim().parse().ok()).unwrap_or(RECORD_BYTES);
        let timeout = transaction_timeout_ms.to_string();
        for (name, value) in [
            ("transactional.id", transactional_id.as_str()),
            ("transaction.timeout.ms", &timeout),
            ("message.timeout.ms", &timeout),
            // A request to commit is repeated so late that the duration of the call reveals it.
            ("retry.backoff.ms", "1000"),
            ("retry.backoff.max.ms", "1000"),
            ("delivery.report.only.error", "true"),
            // A lost connection is known by its log line.
            ("log.connection.close", "true"),
            ("message.max.bytes", &largest.max(LEDGER_RECORD_BYTES).to_string()),
            ("queue.buffering.max.messages", "0"),
            (
                "queue.buffering.max.kbytes",
                &sink.buffer_bytes.div_ceil(1_024).clamp(1, 2_147_483_647).to_string(),
            ),
            ("statistics.interval.ms", "0"),
        ] {
            settings.set(name, value);
        }
        let largest_row = |topic: RowTopic| {
            let limit = topic.limit.unwrap_or(TOPIC_BYTES).min(largest);
            (topic.name, limit.saturating_sub(FRAMING_BYTES))
        };
        Ok(Self {
            lookup: Topic::open_uncommitted(&sink.client, &name)?,
            client: sink.client.clone(),
            settings,
            transactional_id,
            topics: topics.into_iter().map(largest_row).collect(),
            topic: name,
            limit: limit.unwrap_or(TOPIC_BYTES).saturating_sub(FRAMING_BYTES),
            next_offset: None,
            producer: None,
            stop,
        })
    }
}

impl Driver for KafkaLedger {
    fn name(&self) -> String {
        format!("topic {}", self.topic)
    }

    fn max_ticks(&self) -> usize {
        usize::MAX
    }

    /// Makes a producer, which ends all earlier ones of the job and their open transaction.
    fn new_producer(&mut self) -> Result<Answer, LedgerError> {
        self.producer = None;
        let context = LedgerContext::new(&self.client);
        let producer = BaseProducer::from_config_and_context(&self.settings, context)
            .map_err(|error| create_error(&self.client, error))?;
        loop {
            serve(&producer);
            let error = match producer.init_transactions(INIT_WAIT) {
                Ok(()) => break,
                Err(error) => error,
            };
            self.check_stop()?;
            serve(&producer);
            let code = code(&error);
            if let Some(error) = self.refusal(code, None) {
                return Err(error);
            }
            let may_go_on = matches!(&error, LibraryError::Transaction(error) if error.is_retriable());
            if !may_go_on {
                tracing::debug!(%error, "no producer");
                if is_fenced(code) {
                    return Ok(Answer::Fenced);
                }
                std::thread::park_timeout(RETRY_AFTER);
                return Ok(Answer::Failed);
            }
        }
        producer.context().recovered();
        self.producer = Some(producer);
        Ok(Answer::Done)
    }

    fn read(&mut self, reading: &mut Reading) -> Result<(), LedgerError> {
        // 1. Where the ledger begins and ends.
        let (low, high) = loop {
            self.check_stop()?;
            match self.lookup.watermarks(0) {
                Ok(marks) => break marks,
                Err(error) => self.wait_out(error)?,
            }
        };
        let next = self.next_offset.unwrap_or(low);
        if next >= high {
            return if next > high { Err(self.lost()) } else { Ok(()) };
        }
        // 2. The records up to there.
        let mut consumer = Consumer::new(&for_reading(&self.client), &self.topic)?;
        consumer.add(0, next)?;
        let (mut next, mut problem) = (next, None);
        while next < high {
            self.check_stop()?;
            let name = self.name();
            let polled = consumer.poll(READ_WAIT, 1_000, &mut |event| match event {
                ConsumerEvent::Message(message) => {
                    next = next.max(message.offset + 1);
                    let place = || format!("{name}, offset {}", message.offset);
                    let taken = match message.value {
                        Some(value) => reading.take(value, &name, place, |record| {
                            message.key == Some(record.key(KEPT_TICKS).as_bytes())
                        }),
                        None => Err(LedgerError::Foreign { place: place(), reason: "it is null".to_owned() }),
                    };
                    if let Err(error) = taken {
                        problem.get_or_insert(error);
                    }
                }
                ConsumerEvent::End { offset, .. } => next = next.max(offset),
                ConsumerEvent::Gap { .. } => {
                    problem.get_or_insert(self.lost());
                }
            });
            if let Some(problem) = problem {
                return Err(problem);
            }
            match polled {
                Ok(_) => {}
                Err(error) => {
                    // It goes on with another consumer.
                    self.wait_out(error)?;
                    consumer = Consumer::new(&for_reading(&self.client), &self.topic)?;
                    consumer.add(0, next)?;
                }
            }
        }
        self.next_offset = Some(next);
        Ok(())
    }

    fn begin(&mut self) -> Answer {
        let Some(producer) = &self.producer else { return Answer::Failed };
        // Log lines from before aren't about this transaction.
        serve(producer);
        producer.context().begin();
        match producer.begin_transaction() {
            Ok(()) => Answer::Done,
            Err(error) if is_fenced(code(&error)) => Answer::Fenced,
            Err(_) => Answer::Failed,
        }
    }

    fn send_rows(
        &mut self,
        rows: &KeptRows,
        is_first: bool,
        rejected: &mut u64,
    ) -> Result<Answer, LedgerError> {
        for row in rows.iter() {
            let (topic, limit) = &self.topics[row.topic];
            let bytes = bytes(&row);
            if bytes > *limit {
                if is_first {
                    *rejected += 1;
                    tracing::error!(
                        topic,
                        tick = row.tick,
                        bytes,
                        "a record is larger than the topic accepts and was given up: raise its max.message.bytes, and \
                         message.max.bytes in [sink.kafka.librdkafka]"
                    );
                }
                continue;
            }
            let mut record = BaseRecord::with_opaque_to(topic, row.topic)
                .key(row.key)
                .headers(headers(&row))
                .timestamp(i64::try_from(row.tick).unwrap_or(i64::MAX));
            record.payload = row.value;
            if let Some(answer) = self.send(record)? {
                return Ok(answer);
            }
        }
        self.wait()
    }

    fn send_records(&mut self, records: &[LedgerRecord]) -> Result<Answer, LedgerError> {
        let topic = self.topic.clone();
        for record in records {
            let (key, value) = (record.key(KEPT_TICKS), record.encode());
            if let LedgerRecord::Tick(tick) = record
                && value.len() > self.limit
            {
                let (number, bytes, limit) = (tick.number, value.len(), self.limit);
                return Err(LedgerError::RecordTooLarge { topic, number, bytes, limit });
            }
            let record = BaseRecord::with_opaque_to(&topic, self.topics.len())
                .partition(0)
                .key(key.as_bytes())
                .payload(&value[..]);
            if let Some(answer) = self.send(record)? {
                return Ok(answer);
            }
        }
        self.wait()
    }

    fn commit(&mut self, took: &mut Duration) -> Result<Answer, LedgerError> {
        let Some(producer) = &self.producer else { return Ok(Answer::Failed) };
        let started = Instant::now();
        let committed = producer.commit_transaction(COMMIT_WAIT);
        *took = started.elapsed();
        serve(producer);
        let error = match committed {
            Ok(()) => {
                let (slow, troubled) = (*took >= SLOW_COMMIT, producer.context().is_troubled());
                return Ok(Answer::Committed { slow, troubled });
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "the outcome of a commit isn't known");
        self.check_stop()?;
        let code = code(&error);
        match self.refusal(code, None) {
            Some(error) => Err(error),
            None if is_fenced(code) => Ok(Answer::Fenced),
            None => Ok(Answer::Failed),
        }
    }

    fn forget(&mut self, _: u64) -> Result<(), LedgerError> {
        Ok(())
    }
}

impl KafkaLedger {
    /// Hands a record to librdkafka; waits while its queue is full. Returns an answer if sending can't go on.
    fn send(&self, mut record: BaseRecord<'_, [u8], [u8], usize>) -> Result<Option<Answer>, LedgerError> {
        let Some(producer) = &self.producer else { return Ok(Some(Answer::Failed)) };
        while let Err((error, returned)) = producer.send(record) {
            record = returned;
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            if code == RDKafkaErrorCode::QueueFull {
                producer.poll(POLL);
                if let Some(answer) = self.look_around(producer)? {
                    return Ok(Some(answer));
                }
                continue;
            }
            return match self.refusal(code, Some(record.delivery_opaque)) {
                Some(error) => Err(error),
                None if is_fenced(code) => Ok(Some(Answer::Fenced)),
                None => Ok(Some(Answer::Failed)),
            };
        }
        Ok(None)
    }

    /// Waits until no record is in flight.
    fn wait(&self) -> Result<Answer, LedgerError> {
        let Some(producer) = &self.producer else { return Ok(Answer::Failed) };
        loop {
            // A report that isn't served counts as in flight.
            let in_flight = producer.in_flight_count();
            if let Some(answer) = self.look_around(producer)? {
                return Ok(answer);
            }
            if in_flight == 0 {
                return Ok(Answer::Done);
            }
            producer.poll(POLL);
        }
    }

    /// Returns an answer if a record was refused or the producer is of no more use.
    fn look_around(&self, producer: &BaseProducer<LedgerContext>) -> Result<Option<Answer>, LedgerError> {
        self.check_stop()?;
        let fatal = producer.client().fatal_error().map(|(code, _)| (code, None));
        let refused = producer.context().refused().map(|(code, topic)| (code, Some(topic)));
        let Some((code, topic)) = fatal.or(refused) else { return Ok(None) };
        match self.refusal(code, topic) {
            Some(error) => Err(error),
            None if is_fenced(code) => Ok(Some(Answer::Fenced)),
            None => {
                tracing::debug!(%code, "a record wasn't taken");
                Ok(Some(Answer::Failed))
            }
        }
    }

    /// Returns the error that a code means if sending again can't mend it. `topic` is the index of the record's topic.
    fn refusal(&self, code: RDKafkaErrorCode, topic: Option<usize>) -> Option<LedgerError> {
        use RDKafkaErrorCode as Code;
        let brokers = self.client.brokers.clone();
        let topic = topic.map(|topic| self.topics.get(topic).map_or(&self.topic, |(name, _)| name).clone());
        let refused =
            |topic, reason: &str| Some(LedgerError::Refused { topic, reason: format!("{code}; {reason}") });
        match (code, topic) {
            (Code::TransactionalIdAuthorizationFailed, _) => Some(LedgerError::Denied {
                brokers,
                right: "Write",
                resource: format!("transactional id {}", self.transactional_id),
            }),
            (Code::ClusterAuthorizationFailed, _) => Some(LedgerError::Denied {
                brokers,
                right: "IdempotentWrite",
                resource: "the cluster".to_owned(),
            }),
            (Code::TopicAuthorizationFailed, topic) => Some(LedgerError::Denied {
                brokers,
                right: "Write",
                resource: format!("topic {}", topic.as_ref().unwrap_or(&self.topic)),
            }),
            (Code::InvalidTransactionTimeout | Code::UnsupportedFeature | Code::UnsupportedVersion, _) => {
                Some(LedgerError::Transactions { brokers, reason: code.to_string() })
            }
            (Code::MessageSizeTooLarge, Some(topic)) => refused(
                topic,
                "its max.message.bytes was lowered: start again, or set batch.size in [sink.kafka.librdkafka] to it",
            ),
            (
                Code::InvalidTopic
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::PolicyViolation
                | Code::InvalidRecord
                | Code::InvalidTimestamp,
                Some(topic),
            ) => refused(topic, "check that the topic exists, and its settings"),
            _ => None,
        }
    }

    /// Waits before something is tried again that failed for want of an answer; returns other errors.
    fn wait_out(&self, error: KafkaError) -> Result<(), LedgerError> {
        if error.class() != ErrorClass::Transient {
            return Err(error.into());
        }
        tracing::warn!("the ledger can't be read yet: {error}");
        self.check_stop()?;
        std::thread::park_timeout(RETRY_AFTER);
        Ok(())
    }

    /// Returns the error of a topic that lost records that were read. The ledger knows the number of its last tick.
    fn lost(&self) -> LedgerError {
        LedgerError::Lost { ledger: self.name(), number: 0 }
    }

    fn check_stop(&self) -> Result<(), LedgerError> {
        if (self.stop)() { Err(LedgerError::Stopped) } else { Ok(()) }
    }
}

/// Serves the events that are there: log lines, errors, reports, requests for a token.
fn serve(producer: &BaseProducer<LedgerContext>) {
    for _ in 0..SERVED_EVENTS {
        producer.poll(Duration::ZERO);
    }
}

fn headers(row: &KeptRow<'_>) -> rdkafka::message::OwnedHeaders {
    let more: Vec<_> = row.headers.collect();
    result_headers(row.tick, row.id, more.into_iter())
}

/// Returns the bytes of a row's record: its key, its value, and its headers.
fn bytes(row: &KeptRow<'_>) -> usize {
    row.key.len() + row.value.map_or(0, <[u8]>::len) + row.headers.bytes()
}

fn code(error: &LibraryError) -> RDKafkaErrorCode {
    match error {
        LibraryError::Transaction(error) => error.code(),
        error => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
    }
}

/// Returns whether a code means that a later producer has taken over, or the brokers ended the transaction.
fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
