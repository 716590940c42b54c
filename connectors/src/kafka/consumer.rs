//! A consumer for one reader thread: partitions by hand, records with their offsets, ends, gaps.
//!
//! ```text
//! add ─► reading ⇄ paused          poll ─► Message | End (all is read for now) | Gap (the partition stops)
//!           └──gap──► stopped ── restart ─► reading
//! ```
//! * Partitions are assigned, never subscribed to: the job decides which reader reads what, and no other member of
//!   a group can take a partition away. Offsets aren't committed: the job has its own record of where to go on.
//! * Only committed records are delivered. Offsets of a partition ascend but aren't dense: control records, aborted
//!   ones and compacted ones leave holes. A partition goes on behind the last record or at the reported end,
//!   whichever is later.
//! * An outage is waited out: librdkafka reconnects and goes on where it was. It is logged once when it begins and
//!   once when it ends. A refusal (credentials, certificates, rights) ends a consumer that has never had an answer.
//!   Later it counts as an outage.
//! * A gap is an offset that the partition doesn't have any more, by retention, a topic created anew or a log that
//!   lost its end. librdkafka doesn't report the partition of a gap, so all watermarks are asked for. If no
//!   position is outside of them, all partitions are begun again at their positions.
//! * Every partition has a queue of its own, and a paused one isn't taken from: records that were fetched ahead
//!   stay. librdkafka's own pausing throws them away, which costs a catching-up job three quarters of its speed.
//!   Records reach the consumer's common queue first, until librdkafka has begun to fetch and the partition's queue
//!   is split off. The common queue is always taken from first. [`AssignedPartition`] knows which records of both
//!   were handed over.
//!
//! **Limits**: 4 MiB of records are fetched ahead for each partition, and one answer of 1 MiB (compressed) on top.
//! [`poll`](Consumer::poll) blocks for its timeout, and for at most 2 s a partition while a gap is looked into. Lag
//! is as old as the statistics: one second.
//!
//! A topic that was deleted and created anew while it wasn't read is a gap only if the old position isn't in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use hashbrown::HashMap;
use keytide_config::KafkaClient;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client::{KafkaContext, KafkaError, client_config, create_error, is_refusal};
use super::rights::Right;
use super::topic::{Topic, signed};
use crate::decode::Headers;

/// The name of our group for the brokers, which is never joined.
const GROUP: &str = "keytide";
const GAP_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before a gap is looked into again, if the brokers had no answer.
const GAP_LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// How long records may still reach the common queue after a partition's queue was split off.
const SPLIT_PAUSE: Duration = Duration::from_millis(100);

/// The defaults of settings that may be tuned.
const TUNING: [(&str, &str); 8] = [
    // Brokers send bytes as soon as there are any; this is how long they wait for the first.
    ("fetch.wait.max.ms", "100"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "16777216"),
    ("queued.min.messages", "100000"),
    ("queued.max.messages.kbytes", "4096"),
    // A queue that was full is looked at again after this time. With librdkafka's default of one second, a faster
    // reader waits for most of it.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "200"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// The settings that the guarantees above rest on.
const FIXED: [(&str, &str); 10] = [
    ("group.id", GROUP),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
    ("check.crcs", "true"),
    ("statistics.interval.ms", "1000"),
    ("partition.assignment.strategy", "range"),
];

/// An event that a consumer hands over.
#[derive(Clone, Copy)]
pub enum ConsumerEvent<'a> {
    Message(KafkaMessage<'a>),
    /// All records of a partition were read, for now.
    End {
        partition: u32,
        /// The offset that is to be read next.
        offset: u64,
    },
    /// The next record was deleted. The partition is stopped until it is [restarted](Consumer::restart).
    Gap {
        partition: u32,
        /// The offset that is to be read next.
        wanted: u64,
        /// The earliest offset that the partition has.
        low: u64,
        high: u64,
    },
}

/// A message of a topic. Its value may hold raw keys, so it isn't `Debug`.
#[derive(Clone, Copy)]
pub struct KafkaMessage<'a> {
    pub partition: u32,
    pub offset: u64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The headers, which cost time only when they are asked for.
    pub headers: &'a dyn Headers,
}

/// The lag of a consumer on one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    pub partition: u32,
    /// The number of committed records that weren't handed over yet, holes included.
    pub lag: u64,
    /// The offset behind the last record, committed or not.
    pub high_watermark: u64,
}

#[derive(Default)]
struct AssignedPartition {
    /// The offset behind everything that was handed over, or the end that was reported.
    next: u64,
    /// The next offset from the common queue.
    common_next: u64,
    /// The next offset from the partition's own queue.
    own_next: u64,
    /// The first offset that came from the own queue. The common queue has no record from there on.
    own_from: Option<u64>,
    own: Option<PartitionQueue<KafkaContext>>,
    split_at: Option<Instant>,
    paused: bool,
    stopped: bool,
}

impl AssignedPartition {
    fn new(offset: u64, paused: bool) -> Self {
        Self { next: offset, common_next: offset, own_next: offset, paused, ..Self::default() }
    }

    /// Returns whether a record is to be handed over. Records that were fetched before a restart aren't.
    fn takes(&mut self, offset: u64, own: bool) -> bool {
        if self.stopped {
            return false;
        }
        let cursor = if own { &mut self.own_next } else { &mut self.common_next };
        if offset < *cursor || !own && self.own_from.is_some_and(|from| offset >= from) {
            return false;
        }
        *cursor = offset + 1;
        if own {
            self.own_from.get_or_insert(offset);
        }
        self.next = self.next.max(offset + 1);
        true
    }
}

/// Reads partitions of one topic, each from its own position.
pub struct Consumer {
    consumer: Arc<BaseConsumer<KafkaContext>>,
    /// True if partitions have queues of their own.
    splits: bool,
    /// Counts polls, so that every partition's queue is taken from first in its turn.
    turn: usize,
    /// The thread that waits in [`poll`](Self::poll).
    waiting: Arc<Mutex<Option<Thread>>>,
    topic: String,
    client: KafkaClient,
    partitions: HashMap<u32, AssignedPartition>,
    /// True if the brokers have ever answered.
    proven: bool,
    /// True if there was an error since the last answer.
    troubled: bool,
    /// The time at which to look for gaps, if some partition has one.
    gap_lookup: Option<Instant>,
}

impl Consumer {
    /// Makes a consumer without partitions, which connects in the background.
    ///
    /// # Errors
    /// If librdkafka refuses the settings.
    pub fn new(client: &KafkaClient, topic: &str) -> Result<Self, KafkaError> {
        Ok(Self { splits: true, ..Self::tuned(client, topic, &TUNING)? })
    }

    /// Makes a consumer with its own defaults for settings that may be tuned. Its partitions share one queue and
    /// can't be paused.
    pub(super) fn tuned(
        client: &KafkaClient,
        topic: &str,
        tuning: &[(&str, &str)],
    ) -> Result<Self, KafkaError> {
        Ok(Self {
            consumer: Arc::new(
                consumer_config(client, tuning)
                    .create_with_context(KafkaContext::new(client))
                    .map_err(|error| create_error(client, error))?,
            ),
            splits: false,
            turn: 0,
            waiting: Arc::default(),
            topic: topic.to_owned(),
            client: client.clone(),
            partitions: HashMap::new(),
            proven: false,
            troubled: false,
            gap_lookup: None,
        })
    }

    /// Begins to read `partition` at `offset`. A partition that is read already is [restarted](Self::restart).
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub fn add(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        if self.partitions.contains_key(&partition) {
            return self.restart(partition, offset);
        }
        self.assign(partition, offset)?;
        self.partitions.insert(partition, AssignedPartition::new(offset, false));
        self.split(partition);
        Ok(())
    }

    /// Goes on at `offset`, behind a gap for instance. A paused partition stays paused.
    ///
    /// # Errors
    /// If librdkafka refuses, or if the partition wasn't added.
    pub fn restart(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        let Some(assigned) = self.partitions.get(&partition) else {
            return Err(self.fatal(format!("partition {partition} isn't read")));
        };
        let (paused, stopped) = (assigned.paused, assigned.stopped);
        if !stopped {
            self.unassign(partition)?;
        }
        self.assign(partition, offset)?;
        self.partitions.insert(partition, AssignedPartition::new(offset, paused));
        self.split(partition);
        Ok(())
    }

    /// Pauses a partition, or lets it go on. Records that reached the common queue before still come. A partition
    /// that wasn't added is ignored.
    pub fn pause(&mut self, partition: u32, paused: bool) {
        if let Some(assigned) = self.partitions.get_mut(&partition) {
            assigned.paused = paused;
        }
    }

    /// Waits for the first record for at most `timeout`. Hands it over, and then the records that are there
    /// already. Returns their number, at most `max_records`. It must be called at least every few seconds, even if
    /// all is paused: errors, statistics and tokens come this way.
    ///
    /// # Errors
    /// If reading can't go on: the topic is gone, the brokers refuse us from the beginning, or librdkafka gave up.
    /// An outage isn't an error.
    pub fn poll(
        &mut self,
        timeout: Duration,
        max_records: usize,
        each: &mut impl FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        // Without own queues librdkafka waits; with them only a callback of theirs can end the wait.
        let mut records =
            self.take_common(if self.splits { Duration::ZERO } else { timeout }, max_records, each)?;
        records += self.take_own(max_records - records, each)?;
        if self.splits && records == 0 {
            self.waiting().replace(thread::current());
            thread::park_timeout(timeout);
            records = self.take_common(Duration::ZERO, max_records, each)?;
            records += self.take_own(max_records - records, each)?;
        }
        if self.gap_lookup.is_some_and(|when| when <= Instant::now()) {
            records += self.find_gaps(each)?;
        }
        Ok(records)
    }

    /// Takes from the common queue, and splits off the queues of the partitions whose records it holds.
    fn take_common(
        &mut self,
        mut timeout: Duration,
        most: usize,
        each: &mut impl FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        let (mut records, mut nothing) = (0, 0);
        // An event that isn't a record looks like none. Only several in a row mean that the queue is empty.
        while records < most && nothing < 3 {
            let Some(event) = consumer.poll(timeout) else {
                nothing += 1;
                if !self.splits {
                    break;
                }
                continue;
            };
            (timeout, nothing) = (Duration::ZERO, 0);
            let partition = event.as_ref().ok().map(|message| message.partition());
            records += self.take(event, false, each)?;
            if let Some(partition) = partition.and_then(|partition| u32::try_from(partition).ok()) {
                self.split(partition);
            }
        }
        Ok(records)
    }

    /// Takes from the partitions' own queues, in turns.
    fn take_own(
        &mut self,
        most: usize,
        each: &mut impl FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        if !self.splits || most == 0 {
            return Ok(0);
        }
        let mut open: Vec<u32> = self
            .partitions
            .iter()
            .filter(|(_, assigned)| !assigned.paused)
            .map(|(&number, _)| number)
            .collect();
        open.sort_unstable();
        self.turn = self.turn.wrapping_add(1);
        let count = open.len();
        // A full queue must not keep the others from their share.
        let (share, mut records) = ((most / count.max(1)).max(1), 0);
        for step in 0..count {
            let number = open[(self.turn + step) % count];
            let Some(own) = self.partitions.get_mut(&number).and_then(|assigned| assigned.own.take()) else {
                continue;
            };
            let mut taken = 0;
            while taken < share
                && records < most
                && let Some(event) = own.poll(Duration::ZERO)
            {
                let count = self.take(event, true, each)?;
                (taken, records) = (taken + 1, records + count);
            }
            if let Some(assigned) = self.partitions.get_mut(&number)
                && assigned.own.is_none()
            {
                assigned.own = Some(own);
            }
        }
        Ok(records)
    }

    /// Takes one event, and returns how many records it was.
    fn take(
        &mut self,
        event: Result<BorrowedMessage<'_>, LibraryError>,
        own: bool,
        each: &mut impl FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        match event {
            Ok(message) => {
                let (Ok(partition), Ok(offset)) =
                    (u32::try_from(message.partition()), u64::try_from(message.offset()))
                else {
                    return Ok(0);
                };
                let Some(assigned) = self.partitions.get_mut(&partition) else { return Ok(0) };
                if !assigned.takes(offset, own) {
                    return Ok(0);
                }
                let (key, value) = (message.key(), message.payload());
                each(ConsumerEvent::Message(KafkaMessage {
                    partition,
                    offset,
                    key,
                    value,
                    headers: &message,
                }));
                self.proven = true;
                if self.troubled {
                    self.troubled = false;
                    self.consumer.context().recovered();
                }
                Ok(1)
            }
            Err(LibraryError::PartitionEOF(partition)) => {
                self.proven = true;
                if mem::take(&mut self.troubled) {
                    self.consumer.context().recovered();
                }
                let end = self.consumer.context().take_end_offset();
                let assigned =
                    u32::try_from(partition).ok().and_then(|partition| self.partitions.get_mut(&partition));
                let Some(assigned) = assigned.filter(|assigned| !assigned.stopped) else { return Ok(0) };
                assigned.next = assigned.next.max(end.unwrap_or(0));
                each(ConsumerEvent::End { partition: partition.cast_unsigned(), offset: assigned.next });
                Ok(1)
            }
            Err(error) => self.judge(&error).map(|()| 0),
        }
    }

    /// Splits a partition's queue off the common one. librdkafka joins them when it begins to fetch, some time
    /// after the assignment. So this is repeated as long as records reach the common queue.
    fn split(&mut self, partition: u32) {
        let Some(assigned) = self.partitions.get_mut(&partition).filter(|_| self.splits) else { return };
        if assigned.split_at.is_some_and(|when| when.elapsed() < SPLIT_PAUSE) {
            return;
        }
        assigned.split_at = Some(Instant::now());
        assigned.own = None;
        if let Some(mut own) = self.consumer.split_partition_queue(&self.topic, signed(partition)) {
            let waiting = Arc::clone(&self.waiting);
            own.set_nonempty_callback(move || {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(thread) = waiting.take() {
                    thread.unpark();
                }
            });
            assigned.own = Some(own);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Thread>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lag of the partitions that are in the brokers' statistics, in the order of the partitions.
    /// Before the first statistics it is empty.
    #[must_use]
    pub fn lag(&self) -> Vec<PartitionLag> {
        let read = |statistics: &super::client::ConsumerStatistics| {
            let topic = statistics.topics.get(&self.topic)?;
            let of = |(&partition, assigned): (&u32, &AssignedPartition)| {
                let known = topic.partitions.get(&signed(partition))?;
                let lag = u64::try_from(known.ls_offset).ok()?.saturating_sub(assigned.next);
                let high_watermark = u64::try_from(known.hi_offset).ok()?;
                Some(PartitionLag { partition, lag, high_watermark })
            };
            Some(self.partitions.iter().filter_map(of).collect::<Vec<_>>())
        };
        let mut lag = self.consumer.context().with_statistics(read).flatten().unwrap_or_default();
        lag.sort_unstable_by_key(|lag| lag.partition);
        lag
    }

    /// Returns an error if `error` ends the consumer.
    fn judge(&mut self, error: &LibraryError) -> Result<(), KafkaError> {
        if let Some((_, reason)) = self.consumer.client().fatal_error() {
            return Err(self.fatal(self.consumer.context().redact(&reason).into_owned()));
        }
        let Some(code) = error.rdkafka_error_code() else {
            return Err(self.fatal(error.to_string()));
        };
        match code {
            RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::LogTruncation => {
                self.gap_lookup.get_or_insert_with(Instant::now);
            }
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition => {
                let brokers = self.client.brokers.clone();
                return Err(KafkaError::NoTopic { topic: self.topic.clone(), brokers });
            }
            code if is_refusal(code) && !self.proven => {
                let brokers = self.client.brokers.clone();
                if code == RDKafkaErrorCode::TopicAuthorizationFailed {
                    let topic = self.topic.clone();
                    return Err(KafkaError::Denied { brokers, right: Right::Read, topic });
                }
                let context = self.consumer.context();
                return Err(KafkaError::Refused {
                    what: format!("let us read topic `{}`", self.topic),
                    brokers,
                    mistake: context
                        .mistake()
                        .map(|(mistake, ..)| mistake.settled(&client_config(&self.client))),
                    reason: context.trouble().map_or_else(|| code.to_string(), |trouble| trouble.reason),
                });
            }
            _ => {}
        }
        // The context has logged it.
        self.troubled = true;
        Ok(())
    }

    /// Looks for the partitions that have a gap, and stops and reports them.
    fn find_gaps(&mut self, each: &mut impl FnMut(ConsumerEvent<'_>)) -> Result<usize, KafkaError> {
        self.gap_lookup = None;
        let lookup = Topic::open(&self.client, &self.topic)?;
        let mut read: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, assigned)| !assigned.stopped)
            .map(|(&number, _)| number)
            .collect();
        read.sort_unstable();
        let mut gaps = 0;
        for &partition in &read {
            let (low, high) = match lookup.watermarks_within(partition, GAP_LOOKUP_TIMEOUT) {
                Ok(watermarks) => watermarks,
                Err(KafkaError::Unavailable { .. }) => {
                    self.gap_lookup = Some(Instant::now() + GAP_LOOKUP_PAUSE);
                    return Ok(gaps);
                }
                Err(error) => return Err(error),
            };
            let wanted = self.partitions[&partition].next;
            if (low..=high).contains(&wanted) {
                continue;
            }
            self.unassign(partition)?;
            if let Some(assigned) = self.partitions.get_mut(&partition) {
                assigned.stopped = true;
            }
            tracing::warn!(topic = self.topic, partition, wanted, low, high, "records are gone");
            each(ConsumerEvent::Gap { partition, wanted, low, high });
            gaps += 1;
        }
        // All positions are within their watermarks, so every partition is begun again at its position.
        if gaps == 0 {
            tracing::warn!(topic = self.topic, "an offset was refused that is there: assigned it again");
            for &partition in &read {
                self.restart(partition, self.partitions[&partition].next)?;
            }
        }
        Ok(gaps)
    }

    fn assign(&self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, signed(partition), offset)
            .and_then(|()| self.consumer.incremental_assign(&list))
            .map_err(|error| self.refused("begin", &error))
    }

    fn unassign(&self, partition: u32) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, signed(partition));
        self.consumer.incremental_unassign(&list).map_err(|error| self.refused("end", &error))
    }

    fn refused(&self, what: &str, error: &LibraryError) -> KafkaError {
        self.fatal(format!("librdkafka can't {what} a partition: {error}"))
    }

    fn fatal(&self, reason: String) -> KafkaError {
        KafkaError::Fatal { topic: self.topic.clone(), reason }
    }
}

fn consumer_config(client: &KafkaClient, tuning: &[(&str, &str)]) -> ClientConfig {
    let mut config = client_config(client);
    for &(name, value) in tuning.iter().chain(&TUNING) {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    for (name, value) in FIXED {
        config.set(name, value);
    }
    config
}

impl fmt::Debug for Consumer {
    /// Shows the topic and never its records.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::testing::{DEADLINE, MockBroker};

    /// An event as the tests compare it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Message(u32, u64, Option<String>),
        End(u32, u64),
        Gap(u32, u64, u64, u64),
    }

    impl From<ConsumerEvent<'_>> for Seen {
        fn from(record: ConsumerEvent<'_>) -> Self {
            match record {
                ConsumerEvent::Message(KafkaMessage { partition, offset, value, .. }) => {
                    let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    Self::Message(partition, offset, value)
                }
                ConsumerEvent::End { partition, offset } => Self::End(partition, offset),
                ConsumerEvent::Gap { partition, wanted, low, high } => {
                    Self::Gap(partition, wanted, low, high)
                }
            }
        }
    }

    fn message(partition: u32, offset: u64, value: &str) -> Seen {
        Seen::Message(partition, offset, Some(value.to_owned()))
    }

    /// Polls until `done` returns true.
    fn read(consumer: &mut Consumer, mut done: impl FnMut(&Consumer, &[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = Vec::new();
        let started = Instant::now();
        while !done(consumer, &seen) {
            assert!(started.elapsed() < DEADLINE, "waited in vain; seen: {seen:?}");
            consumer.poll(Duration::from_millis(50), 100, &mut |record| seen.push(record.into())).unwrap();
        }
        seen
    }

    fn read_to_end(consumer: &mut Consumer, partition: u32) -> Vec<Seen> {
        read(consumer, |_, seen| seen.iter().any(|seen| matches!(seen, Seen::End(at, _) if *at == partition)))
    }

    fn consumer(broker: &MockBroker) -> Consumer {
        Consumer::new(&broker.client(), "events").unwrap()
    }

    #[test]
    fn records_come_from_the_offset_to_the_end_and_null_is_a_record() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce_at("events", 0, &[(Some("a"), 1), (Some("b"), 2), (None, 3), (Some(""), 4)]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 1).unwrap();
        let seen = read_to_end(&mut consumer, 0);
        let expected = [message(0, 1, "b"), Seen::Message(0, 2, None), message(0, 3, ""), Seen::End(0, 4)];
        assert_eq!(seen, expected);
        let next = consumer.partitions.iter().map(|(&partition, assigned)| (partition, assigned.next));
        assert_eq!(next.collect::<Vec<_>>(), [(0, 4)]);

        broker.produce("events", 0, &["c"]);
        assert_eq!(read_to_end(&mut consumer, 0), [message(0, 4, "c"), Seen::End(0, 5)]);
    }

    #[test]
    fn records_of_every_codec_are_read() {
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            let broker = MockBroker::new();
            broker.create("events", 1);
            let value = "compressible ".repeat(100);
            broker.produce_with("events", 0, codec, &vec![(Some(value.as_str()), 1); 50]);
            let mut consumer = consumer(&broker);
            consumer.add(0, 0).unwrap();
            let mut seen = read_to_end(&mut consumer, 0);
            assert_eq!(seen.pop(), Some(Seen::End(0, 50)), "{codec}");
            assert_eq!(seen.len(), 50, "{codec}");
            assert!(
                seen.iter().all(|seen| matches!(seen, Seen::Message(0, _, Some(text)) if *text == value))
            );
        }
    }

    #[test]
    fn a_partition_can_be_added_while_others_are_read() {
        let broker = MockBroker::new();
        broker.create("events", 2);
        broker.produce("events", 0, &["a"]);
        broker.produce("events", 1, &["x", "y"]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 0).unwrap();
        assert_eq!(read_to_end(&mut consumer, 0), [message(0, 0, "a"), Seen::End(0, 1)]);
        consumer.add(1, 1).unwrap();
        assert_eq!(read_to_end(&mut consumer, 1), [message(1, 1, "y"), Seen::End(1, 2)]);
        broker.produce("events", 0, &["b"]);
        assert_eq!(read_to_end(&mut consumer, 0), [message(0, 1, "b"), Seen::End(0, 2)]);
    }

    /// Produces until records come from the partition's own queue; returns how many there are.
    fn split(broker: &MockBroker, consumer: &mut Consumer, partition: u32) -> u64 {
        let started = Instant::now();
        loop {
            let next = consumer.partitions[&partition].next;
            if consumer.partitions[&partition].own_from.is_some() {
                return next;
            }
            assert!(started.elapsed() < DEADLINE, "its queue isn't split off");
            broker.produce("events", i32::try_from(partition).unwrap(), &["more"]);
            read(consumer, |consumer, _| consumer.partitions[&partition].next > next);
        }
    }

    #[test]
    fn a_paused_partition_is_silent_and_goes_on_where_it_was() {
        let broker = MockBroker::new();
        broker.create("events", 2);
        let mut consumer = consumer(&broker);
        consumer.add(0, 0).unwrap();
        let next = split(&broker, &mut consumer, 0);
        read_to_end(&mut consumer, 0);
        consumer.pause(0, true);
        consumer.pause(9, true);
        broker.produce("events", 0, &["b", "c"]);

        // Another partition's end shows that the consumer is alive meanwhile.
        broker.produce("events", 1, &["x"]);
        consumer.add(1, 0).unwrap();
        assert_eq!(read_to_end(&mut consumer, 1), [message(1, 0, "x"), Seen::End(1, 1)]);
        consumer.pause(0, false);
        let expected = [message(0, next, "b"), message(0, next + 1, "c"), Seen::End(0, next + 2)];
        assert_eq!(read_to_end(&mut consumer, 0), expected);
    }

    #[test]
    fn a_restart_goes_back_and_keeps_a_pause() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b"]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 0).unwrap();
        read_to_end(&mut consumer, 0);
        consumer.restart(0, 1).unwrap();
        assert_eq!(read_to_end(&mut consumer, 0), [message(0, 1, "b"), Seen::End(0, 2)]);

        consumer.pause(0, true);
        consumer.restart(0, 0).unwrap();
        assert!(consumer.partitions[&0].paused);
        consumer.pause(0, false);
        let expected = [message(0, 0, "a"), message(0, 1, "b"), Seen::End(0, 2)];
        assert_eq!(read_to_end(&mut consumer, 0), expected);
        assert!(matches!(consumer.restart(7, 0).unwrap_err(), KafkaError::Fatal { .. }));
    }

    #[test]
    fn many_records_arrive_once_and_in_order_whatever_queue_they_come_by() {
        let broker = MockBroker::new();
        broker.create("events", 3);
        let values: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let mut consumer = consumer(&broker);
        let mut seen = Vec::new();
        for partition in 0..3 {
            consumer.add(partition, 0).unwrap();
            for part in values.chunks(500) {
                broker.produce("events", i32::try_from(partition).unwrap(), part);
                consumer.pause(seen.len() as u32 % 3, seen.len().is_multiple_of(2));
                consumer.poll(Duration::from_millis(5), 300, &mut |record| seen.push(record.into())).unwrap();
            }
        }
        (0..3).for_each(|partition| consumer.pause(partition, false));
        let is_message = |seen: &&Seen| matches!(seen, Seen::Message(..));
        let before = seen.iter().filter(is_message).count();
        seen.extend(read(&mut consumer, |_, seen| seen.iter().filter(is_message).count() + before >= 15_000));
        for partition in 0..3 {
            let of: Vec<&Seen> = seen
                .iter()
                .filter(|seen| matches!(seen, Seen::Message(at, ..) if *at == partition))
                .collect();
            let expected: Vec<Seen> =
                (0..).zip(&values).map(|(offset, value)| message(partition, offset, value)).collect();
            assert!(of.into_iter().eq(&expected), "partition {partition}");
        }
        assert!(consumer.partitions.values().any(|assigned| assigned.own_from.is_some()));
    }

    #[test]
    fn what_two_queues_hold_is_taken_once() {
        let mut assigned = AssignedPartition::new(10, false);
        let mut taken = Vec::new();
        // The common queue's rest comes behind what the own queue had.
        for (offset, own) in
            [(9, false), (10, false), (12, true), (11, false), (12, false), (13, true), (12, true)]
        {
            if assigned.takes(offset, own) {
                taken.push(offset);
            }
        }
        assert_eq!((taken, assigned.next), (vec![10, 12, 11, 13], 14));
    }

    #[test]
    fn an_outage_is_survived() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a"]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 0).unwrap();
        read_to_end(&mut consumer, 0);
        broker.down();
        assert_eq!(read(&mut consumer, |consumer, _| consumer.troubled), []);
        broker.up();
        broker.produce("events", 0, &["b"]);
        let seen = read(&mut consumer, |_, seen| seen.contains(&message(0, 1, "b")));
        assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Message(..))).count(), 1);
        assert!(!consumer.troubled);
    }

    #[test]
    fn a_gap_stops_its_partition_alone_until_it_is_restarted() {
        let broker = MockBroker::new();
        broker.create("events", 2);
        // The broker keeps 5 MiB of a partition.
        let value = "x".repeat(100_000);
        for _ in 0..8 {
            broker.produce("events", 0, &[value.as_str(); 10]);
        }
        broker.produce("events", 1, &["a"]);
        let (low, high) = Topic::open(&broker.client(), "events").unwrap().watermarks(0).unwrap();
        assert!(low > 0 && high == 80, "the broker dropped nothing: {low} to {high}");

        let mut consumer = consumer(&broker);
        consumer.add(1, 0).unwrap();
        read_to_end(&mut consumer, 1);
        consumer.add(0, 0).unwrap();
        let is_gap = |seen: &Seen| matches!(seen, Seen::Gap(..));
        let seen = read(&mut consumer, |_, seen| seen.iter().any(is_gap));
        assert_eq!(seen, [Seen::Gap(0, 0, low, high)]);
        broker.produce("events", 1, &["b"]);
        assert_eq!(read_to_end(&mut consumer, 1), [message(1, 1, "b"), Seen::End(1, 2)]);

        consumer.restart(0, low).unwrap();
        let seen = read_to_end(&mut consumer, 0);
        assert_eq!(seen.first(), Some(&message(0, low, &value)));
        assert_eq!(seen.last(), Some(&Seen::End(0, high)));
    }

    #[test]
    fn an_offset_behind_the_end_is_a_gap() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a"]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 5).unwrap();
        let seen = read(&mut consumer, |_, seen| !seen.is_empty());
        assert_eq!(seen, [Seen::Gap(0, 5, 0, 1)]);
    }

    #[test]
    fn lag_is_what_was_not_handed_over() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b", "c"]);
        let mut consumer = consumer(&broker);
        consumer.add(0, 0).unwrap();
        assert_eq!(consumer.lag(), []);
        let lag = PartitionLag { partition: 0, lag: 0, high_watermark: 3 };
        read(&mut consumer, |consumer, _| consumer.lag() == [lag]);
    }

    #[test]
    fn settings_that_guarantees_rest_on_are_ours_and_the_rest_may_be_tuned() {
        let broker = MockBroker::new();
        let mut client = broker.client();
        for (name, value) in [("isolation.level", "read_uncommitted"), ("fetch.wait.max.ms", "7")] {
            client.settings.insert(name.to_owned(), keytide_config::Secret::new(value));
        }
        let config = consumer_config(&client, &TUNING);
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("4096"));
    }
}
