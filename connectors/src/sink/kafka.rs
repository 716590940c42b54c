//! Results as topics, by an idempotent producer. It never gives up a record that the brokers may still take.
//!
//! A record has these parts:
//! ```text
//! topic      <prefix>.<view>.v1
//! key        the row's key columns, a JSON object        partition   murmur2 of the key, as Java's clients do
//! value      the row, a JSON object; null: retracted     timestamp   the tick
//! headers    keytide-tick   the tick, decimal
//!            keytide-id     32 hex digits, the same whenever the record is made again: XXH3 (128 bits, seed 0) of
//!                           topic, a zero byte, tick, length of the key (both 8 bytes, big-endian), key, value
//! ```
//! Dead letters also carry the headers of Kafka Connect's dead letters, so that its tools can read them. Headers
//! contain the same as the row, and never a value of the record.
//!
//! **No record is lost.** `acks=all`, idempotence, and no timeout of messages: an outage is waited out. A tick
//! counts the records that aren't acknowledged; the reports come on librdkafka's polling thread. A record that the
//! brokers refuse for good ends the publisher, and its tick never counts as published. The exception is a record
//! that is larger than its topic allows. It is counted, logged and given up, since it could never fit. A whole
//! batch that is too large is no such record: the topic's limit was lowered, and a new start reads it.
//!
//! **Back-pressure.** At most `buffer_bytes` of records wait, [`RECORD_BYTES`] for each included; then
//! [`Topics::send`] waits.
//!
//! Limits: values of Connect's headers are cut to 256 bytes, its message to 1 KiB.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keytide_config::{KafkaSink, View};
use keytide_dataflow::model::Tick;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use super::encode::RecordLocation;
use super::topics::{self, BatchLimits, TopicNames};
use super::{SinkCounters, SinkError};
use crate::kafka::{self, ErrorClass, create_error, result_headers, result_settings};
use crate::ledger::KeptRows;

/// The memory of a record that waits, without its key, value and Connect's headers.
pub(super) const RECORD_BYTES: usize = 512;
/// The bytes of a batch and a record in it, without key, value and headers.
const FRAMING_BYTES: usize = 128;
/// The size of a batch that topics accept by default.
const DEFAULT_MAX_BYTES: usize = 1_048_588;
/// The number of bytes that are sent at once.
const BATCH_BYTES: usize = 1_000_000;
/// How often a waiting thread checks whether it was stopped.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// The most bytes of a value of Connect's headers.
const HEADER_BYTES: usize = 256;
/// The most bytes of Connect's message.
const MESSAGE_BYTES: usize = 1_024;

/// The contents of a dead letter's headers.
#[derive(Debug)]
pub(super) struct DeadHeaders<'a> {
    pub(super) job: &'a str,
    /// The topic of the source, or the source's name if it has none.
    pub(super) topic: &'a str,
    pub(super) location: &'a RecordLocation<'a>,
    pub(super) reason: &'a str,
}

/// The producer of all views' topics.
pub(super) struct Topics {
    producer: ThreadedProducer<SinkContext>,
    flight: Arc<Flight>,
    names: TopicNames,
    brokers: String,
    prefix: String,
    buffer_bytes: u64,
    tick: Arc<InFlight>,
}

/// The ticks that aren't acknowledged, and the reasons for stopping.
#[derive(Debug)]
struct Flight {
    counters: Arc<SinkCounters>,
    limits: BatchLimits,
    state: Mutex<FlightState>,
    changed: Condvar,
    /// True if `state.failure` is set or the producer has a fatal error.
    failed: AtomicBool,
    /// True if an error was reported that may be fatal: its code doesn't say.
    suspect: AtomicBool,
    /// True if the brokers reported an error since the last acknowledgement.
    troubled: AtomicBool,
}

#[derive(Debug, Default)]
struct FlightState {
    /// The ticks in ascending order.
    ticks: VecDeque<Arc<InFlight>>,
    failure: Option<RefusedRecord>,
}

/// A record that was refused for good.
#[derive(Clone, Debug)]
struct RefusedRecord {
    topic: String,
    code: RDKafkaErrorCode,
    reason: String,
}

/// A tick that isn't acknowledged.
#[derive(Debug)]
struct InFlight {
    tick: Tick,
    /// The number of unacknowledged records, plus one while the tick is open.
    open: AtomicU64,
}

/// A record on its way to the brokers.
#[derive(Debug)]
struct SentRecord {
    tick: Arc<InFlight>,
    view: View,
    bytes: usize,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Topics {
    /// Prepares the topics and starts the producer.
    pub(super) fn open(sink: &KafkaSink, counters: &Arc<SinkCounters>) -> Result<Self, SinkError> {
        let names = View::ALL.map(|view| view.topic(&sink.prefix));
        let limits = topics::prepare(sink, &names)?;
        counters.waits_for_id.store(true, Ordering::Release);
        let flight = Arc::new(Flight {
            counters: Arc::clone(counters),
            limits,
            state: Mutex::default(),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
        });
        let context =
            SinkContext { client: kafka::KafkaContext::new(&sink.client), flight: Arc::clone(&flight) };
        let producer = ThreadedProducer::from_config_and_context(&producer_config(sink, &limits), context)
            .map_err(|error| create_error(&sink.client, error))?;
        Ok(Self {
            producer,
            flight,
            names,
            brokers: sink.client.brokers.clone(),
            prefix: sink.prefix.clone(),
            buffer_bytes: sink.buffer_bytes as u64,
            tick: Arc::new(InFlight { tick: 0, open: AtomicU64::new(0) }),
        })
    }

    /// Begins a tick, which is open until [`end_tick`](Self::end_tick).
    pub(super) fn begin_tick(&mut self, tick: Tick) {
        self.tick = Arc::new(InFlight { tick, open: AtomicU64::new(1) });
        self.flight.state().ticks.push_back(Arc::clone(&self.tick));
    }

    /// Sends a record of the open tick. Waits while the buffer is full.
    pub(super) fn send(&mut self, record: &ResultRecord<'_>) -> Result<(), SinkError> {
        let ResultRecord { view, tick, id, key, value, .. } = *record;
        let topic = &self.names[view as usize];
        // 1. The headers, whose bytes count against the buffer.
        let more = record.more_headers();
        let more_bytes: usize = more.iter().map(|(name, value)| name.len() + value.len()).sum();
        let headers = result_headers(tick, id, more.iter().map(|(name, value)| (*name, value.as_bytes())));
        let bytes = key.len() + value.map_or(0, <[u8]>::len) + more_bytes;
        self.wait_for_room((bytes + RECORD_BYTES) as u64)?;

        // 2. Count the record before librdkafka may acknowledge it.
        let sent = SentRecord { tick: Arc::clone(&self.tick), view, bytes };
        self.flight.depart(&sent);
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(sent))
            .key(key)
            .headers(headers)
            .timestamp(i64::try_from(tick).unwrap_or(i64::MAX));
        record.payload = value;
        // 3. Hand it over; librdkafka's own queue may still be full.
        while let Err((error, returned)) = self.producer.send(record) {
            record = returned;
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => self.wait()?,
                code => {
                    let code = code.unwrap_or(RDKafkaErrorCode::Fail);
                    self.flight.returned(&record.delivery_opaque, topic, code);
                    return self.check();
                }
            }
        }
        Ok(())
    }

    /// Ends the open tick, which counts as published once its records are acknowledged.
    pub(super) fn end_tick(&mut self) -> Result<(), SinkError> {
        self.flight.release(&self.tick);
        self.check()
    }

    /// Waits until all records are acknowledged.
    pub(super) fn flush(&mut self, timeout: Duration) -> Result<(), SinkError> {
        let started = Instant::now();
        loop {
            self.check()?;
            let records = self.flight.counters.queued_records.load(Ordering::Acquire);
            if records == 0 {
                return Ok(());
            }
            if started.elapsed() >= timeout {
                return Err(SinkError::Unacknowledged { records, waited_ms: timeout.as_millis() });
            }
            self.wait()?;
        }
    }

    /// Waits until there is room for `bytes`. A single record always finds room.
    fn wait_for_room(&self, bytes: u64) -> Result<(), SinkError> {
        loop {
            self.check()?;
            let queued = self.flight.counters.queued_bytes.load(Ordering::Acquire);
            if queued == 0 || queued + bytes <= self.buffer_bytes {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Waits until a record is acknowledged, or some time has passed.
    fn wait(&self) -> Result<(), SinkError> {
        let state = self.flight.state();
        drop(self.flight.changed.wait_timeout(state, LOOK_AROUND).unwrap_or_else(PoisonError::into_inner));
        self.check()
    }

    /// Returns an error if the producer can't go on.
    fn check(&self) -> Result<(), SinkError> {
        if self.flight.counters.stopped.load(Ordering::Acquire) {
            return Err(SinkError::Stopped);
        }
        if self.flight.suspect.load(Ordering::Acquire)
            && self.flight.suspect.swap(false, Ordering::AcqRel)
            && self.producer.client().fatal_error().is_some()
        {
            self.flight.failed.store(true, Ordering::Release);
        }
        if !self.flight.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let (brokers, prefix) = (self.brokers.clone(), self.prefix.clone());
        let failure = self.flight.state().failure.clone();
        // A right that was taken away says more than what librdkafka makes of it.
        if let Some(RefusedRecord { topic, code: RDKafkaErrorCode::TopicAuthorizationFailed, .. }) = failure {
            return Err(SinkError::Denied {
                brokers,
                right: "Write".to_owned(),
                topics: vec![topic],
                prefix,
            });
        }
        match (self.producer.client().fatal_error(), failure) {
            (Some((RDKafkaErrorCode::ClusterAuthorizationFailed, _)), _) => {
                Err(SinkError::NoProducerId { brokers, prefix })
            }
            (Some((code, reason)), _) => Err(SinkError::Fatal { reason, class: class(code) }),
            (None, Some(RefusedRecord { topic, code, reason })) => {
                Err(SinkError::Refused { topic, reason, class: class(code) })
            }
            (None, None) => Ok(()),
        }
    }
}

/// A row of a tick as a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultRecord<'a> {
    pub(super) view: View,
    pub(super) tick: Tick,
    pub(super) id: u128,
    pub(super) key: &'a [u8],
    /// The row; `None` if it is taken back.
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Option<&'a DeadHeaders<'a>>,
}

impl ResultRecord<'_> {
    /// Adds it to the rows that a ledger sends.
    pub(super) fn keep(&self, rows: &mut KeptRows) {
        let Self { view, tick, id, key, value, .. } = *self;
        let more = self.more_headers();
        let more = more.iter().map(|(name, value)| (*name, value.as_str()));
        rows.push(view as usize, tick, id, key, value, more);
    }

    fn more_headers(&self) -> Vec<(&'static str, String)> {
        self.headers.map(|dead| dead.headers().into()).unwrap_or_default()
    }
}

/// Writes the bytes that a record's id is made of; returns the range of the key in them, and the id.
pub(super) fn identify(
    identity: &mut Vec<u8>,
    topic: &str,
    tick: Tick,
    key_columns: &[u8],
    value: Option<&[u8]>,
) -> (std::ops::Range<usize>, u128) {
    identity.clear();
    identity.extend_from_slice(topic.as_bytes());
    identity.push(0);
    identity.extend_from_slice(&tick.to_be_bytes());
    identity.extend_from_slice(&(key_columns.len() as u64 + 1).to_be_bytes());
    let start = identity.len();
    identity.extend_from_slice(key_columns);
    identity.push(b'}');
    let end = identity.len();
    identity.extend_from_slice(value.unwrap_or_default());
    (start..end, xxh3_128(identity))
}

fn producer_config(sink: &KafkaSink, limits: &BatchLimits) -> ClientConfig {
    let mut config = result_settings(&sink.client, limits.iter().flatten().copied(), "20");
    // No record is ever given up.
    config.set("message.timeout.ms", "0");
    // Records are counted here; this is a second line of defence.
    config.set("queue.buffering.max.messages", "0");
    config.set(
        "queue.buffering.max.kbytes",
        sink.buffer_bytes.div_ceil(1_024).clamp(1, 2_147_483_647).to_string(),
    );
    // They say when the producer has its id, before which the job isn't ready.
    config.set("statistics.interval.ms", "1000");
    config
}

impl DeadHeaders<'_> {
    /// Returns the headers as Kafka Connect names them. The stage is the one in which Connect turns bytes into a
    /// record.
    fn headers(&self) -> [(&'static str, String); 9] {
        let cut = |text: &str, bytes| text[..text.floor_char_boundary(bytes)].to_owned();
        [
            ("__connect.errors.topic", cut(self.topic, HEADER_BYTES)),
            ("__connect.errors.partition", self.location.partition.to_string()),
            ("__connect.errors.offset", self.location.offset.to_string()),
            ("__connect.errors.connector.name", cut(self.job, HEADER_BYTES)),
            ("__connect.errors.task.id", "0".to_owned()),
            ("__connect.errors.stage", "VALUE_CONVERTER".to_owned()),
            ("__connect.errors.class.name", "keytide.Decoder".to_owned()),
            ("__connect.errors.exception.class.name", "keytide.DeadLetter".to_owned()),
            ("__connect.errors.exception.message", cut(self.reason, MESSAGE_BYTES)),
        ]
    }
}

impl Flight {
    fn state(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a record that is handed to librdkafka.
    fn depart(&self, sent: &SentRecord) {
        sent.tick.open.fetch_add(1, Ordering::AcqRel);
        self.counters.queued_bytes.fetch_add((sent.bytes + RECORD_BYTES) as u64, Ordering::AcqRel);
        self.counters.queued_records.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a record that librdkafka holds no longer.
    fn arrive(&self, sent: &SentRecord) {
        self.counters.queued_bytes.fetch_sub((sent.bytes + RECORD_BYTES) as u64, Ordering::AcqRel);
        self.counters.queued_records.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_all();
    }

    fn acknowledged(&self, sent: &SentRecord) {
        self.release(&sent.tick);
        self.arrive(sent);
    }

    /// Counts one reason less for which a tick isn't published.
    fn release(&self, tick: &InFlight) {
        if tick.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.state();
        while let Some(done) = state.ticks.pop_front_if(|tick| tick.open.load(Ordering::Acquire) == 0) {
            self.counters.acknowledged.store(done.tick, Ordering::Release);
        }
    }

    /// Handles a record that wasn't taken by the brokers.
    fn returned(&self, sent: &SentRecord, topic: &str, code: RDKafkaErrorCode) {
        if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
            // The producer ends, and so does the job.
            self.arrive(sent);
            return;
        }
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        if code == RDKafkaErrorCode::MessageSizeTooLarge
            && is_too_large(sent.bytes, self.limits[sent.view as usize])
        {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                topic,
                tick = sent.tick.tick,
                bytes = sent.bytes,
                "a record is larger than the topic accepts and was given up: raise its max.message.bytes, and \
                 message.max.bytes in [sink.kafka.librdkafka]"
            );
            self.acknowledged(sent);
            return;
        }
        // Its tick stays open.
        let mut reason = code.to_string();
        if code == RDKafkaErrorCode::MessageSizeTooLarge {
            reason.push_str("; set batch.size in [sink.kafka.librdkafka] to the topic's max.message.bytes");
        }
        let failure = RefusedRecord { topic: topic.to_owned(), code, reason };
        self.state().failure.get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
        self.arrive(sent);
    }
}

/// Returns whether a record alone is larger than its topic accepts.
fn is_too_large(bytes: usize, limit: Option<usize>) -> bool {
    // librdkafka refuses by its own message.max.bytes, which is a little less than the brokers' default.
    bytes + FRAMING_BYTES > limit.unwrap_or(DEFAULT_MAX_BYTES).min(BATCH_BYTES)
}

/// Returns whether a final error needs another right, a person or a new producer.
fn class(code: RDKafkaErrorCode) -> ErrorClass {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            ErrorClass::Definite
        }
        RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::InvalidTimestamp
        | RDKafkaErrorCode::InvalidRecord => ErrorClass::Fatal,
        _ => ErrorClass::Transient,
    }
}

/// The callbacks of the producer.
struct SinkContext {
    client: kafka::KafkaContext,
    flight: Arc<Flight>,
}

/// The part of librdkafka's statistics that we read.
#[derive(Deserialize)]
struct ProducerStatistics {
    #[serde(default)]
    brokers: hashbrown::HashMap<String, BrokerStatistics>,
    #[serde(default)]
    eos: IdempotenceStatistics,
}

/// How far the producer is with its id.
#[derive(Default, Deserialize)]
struct IdempotenceStatistics {
    #[serde(default)]
    idemp_state: String,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    #[serde(default)]
    txretries: u64,
}

impl ClientContext for SinkContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<ProducerStatistics>(statistics) {
            Ok(statistics) => {
                let retries = statistics.brokers.values().map(|broker| broker.txretries).sum();
                self.flight.counters.retries.store(retries, Ordering::Relaxed);
                if statistics.eos.idemp_state == "Assigned" {
                    self.flight.counters.waits_for_id.store(false, Ordering::Release);
                }
            }
            Err(error) => tracing::debug!(target: "librdkafka", %error, "statistics can't be read"),
        }
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.flight.counters.errors.fetch_add(1, Ordering::Relaxed);
        self.flight.troubled.store(true, Ordering::Release);
        self.flight.suspect.store(true, Ordering::Release);
        self.client.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.client.generate_oauth_token(config)
    }
}

impl ProducerContext for SinkContext {
    type DeliveryOpaque = Box<SentRecord>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        match result {
            Ok(_) => {
                self.flight.counters.waits_for_id.store(false, Ordering::Release);
                if self.flight.troubled.swap(false, Ordering::AcqRel) {
                    self.client.recovered();
                }
                self.flight.acknowledged(&sent);
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                self.flight.returned(&sent, rdkafka::Message::topic(message), code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_that_fits_into_no_batch_of_its_topic_is_too_large() {
        assert!(is_too_large(1_000_000, None));
        assert!(!is_too_large(10_000, None), "then it was its batch, or a limit that we don't know");
        assert!(is_too_large(10_000, Some(10_000)));
        assert!(!is_too_large(9_000, Some(10_000)));
    }
}
