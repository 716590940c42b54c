//! The results of a live job: one topic a view, one series of files a view.
//!
//! ```text
//! workers ── TickOutput ──► Publisher ──► encode ──┬──► Topics   <prefix>.<view>.v1   acknowledged by the brokers
//!            (all of a tick)   names               ├──► Files    DIR/<view>-<n>.*     with the system; flush: on disk
//!                                                  └──► PlacedRow                     for answers at request time
//! ```
//! A [`Publisher`] runs on a thread of its own and may block. While Kafka is away it holds records of
//! `buffer_bytes` and then waits, for as long as it takes. No record is ever dropped to go on. Other threads read
//! its progress from its [`PublisherMonitor`].
//!
//! **Order.** Ticks are published one after the other, each with at most one row per key. A topic's records of one
//! key are in one partition, in the order of their ticks. The producer is idempotent: it never reorders and never
//! repeats a record that it sends again. Within a tick and view, rows are in the order of their ids, so that files
//! are the same for any number of workers.
//!
//! **A ledger** ([`crate::ledger`]) makes each tick visible as a whole. With [`Promise::Ledger`] a tick's rows are counted
//! and their ids summed, and with [`Promise::Transactions`] records for topics aren't sent: they are [kept](Publisher::take_kept)
//! for the ledger, which sends them in one transaction. A tick that an earlier life committed is published with
//! [`replay`](Publisher::replay): files get its rows, topics don't.
//!
//! **[`published`](Publisher::published)** is the last tick whose records, and those of all ticks before, were
//! acknowledged by all in-sync replicas and written to files. It is exact: each tick counts its unacknowledged
//! records.
//!
//! A row that is taken back is null on its topic. In a file it is a row of its key columns and `"retracted":true`. Views
//! whose rows may be taken back have the column `retracted` in their schemas.

pub mod accounts;
pub mod columns;
pub mod encode;
mod file;
mod incidents;
mod kafka;
pub mod names;
mod place;
pub mod sql;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keytide_billing::QuotaStanding;
use keytide_config::{KafkaSink, Sinks, Source, SourceKind, View};
use keytide_dataflow::model::{Definition, EventTime, Forgotten, KeyId, NameId, Tick};
use keytide_dataflow::*;

use self::accounts::AccountRows;
use self::encode::{DeadRow, EncodeRow, Labels, LateRow, RecordLocation};
pub use self::file::FilesMemory;
use self::file::SeriesOfViews;
pub use self::incidents::{IncidentRow, JobInfo, LogRow};
use self::kafka::{DeadHeaders, ResultRecord, Topics, identify};
use self::names::Names;
pub use self::place::{PlacedRow, RowPlace, RowSubject};
use self::topics::TopicNames;
use crate::decode::DeadLetter;
use crate::input::PartitionInfo;
use crate::kafka::{ErrorClass, KafkaError};
use crate::ledger::{KeptRows, RowTopic};
use crate::tables::TableDeadLetter;
use serde::{Deserialize, Serialize};

/// The most topics that a message names.
const LISTED: usize = 3;

/// The results of one worker for one tick.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TickOutput {
    pub tick: Tick,
    /// The watermark after the tick's records.
    pub watermark: EventTime,
    /// The rows, at most one per key.
    pub rows: Vec<Rows>,
    /// How quotas stand that have no row in this tick, after a restore.
    pub standings: Vec<Revision<QuotaKey, QuotaStanding>>,
    pub late: Vec<Late>,
    pub letters: Vec<DeadLetter>,
    pub table_letters: Vec<TableDeadLetter>,
    /// What people and gateways said about actions, in the order in which it came.
    pub inputs: Vec<ActionInput>,
    /// The strings behind the ids of this and later ticks.
    pub definitions: Vec<Definition>,
    /// The ids that no later tick has, unless it defines them anew.
    pub forgotten: Vec<Forgotten>,
    pub counts: Counts,
    /// The counts against the caps after the tick.
    pub admitted: Admitted,
    /// True if the state after the tick is stored.
    pub checkpoint: bool,
}

/// An error of publishing results.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A client of Kafka could not be made, or the brokers can't be asked about topics.
    #[error("sink.kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error(
        "sink.kafka: {topics} missing at {brokers}; set `create_topics = true`, or create each: kafka-topics.sh \
         --bootstrap-server {brokers} --create --topic {first} --config cleanup.policy={policy}",
        topics = topics.join(", "),
        first = topics.first().map_or("TOPIC", String::as_str)
    )]
    MissingTopics { brokers: String, topics: Vec<String>, policy: &'static str },
    #[error(
        "sink.kafka: creating topic {topic} at {brokers} failed: {reason}; allow it, or create it and set `create_topics = false`"
    )]
    CreateTopic {
        brokers: String,
        topic: String,
        /// The reason in the broker's words.
        reason: String,
        class: ErrorClass,
    },
    /// The user lacks a right that the job needs.
    #[error(
        "sink.kafka: the user has no right {right} on {} at {brokers}: add an ACL that allows it, for all topics with \
         the prefix `{prefix}.` at once{}",
        listed(topics),
        if right == "Create" { ", or create the topics and set `create_topics = false`" } else { "" }
    )]
    Denied {
        brokers: String,
        /// The operation, as ACLs name it.
        right: String,
        topics: Vec<String>,
        prefix: String,
    },
    /// Topics would have more replicas than there are brokers.
    #[error(
        "sink.kafka.replication: found {replication}, allowed: at most {count}, the number of brokers at {brokers}"
    )]
    Replication { replication: u16, brokers: String, count: usize },
    /// A topic would lose results, or keep all of them for ever.
    #[error(
        "sink.kafka: topic {topic} has cleanup.policy={found}, but {reason}; correct it: kafka-configs.sh \
         --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config \
         cleanup.policy={wanted}"
    )]
    CleanupPolicy {
        brokers: String,
        topic: String,
        found: String,
        wanted: &'static str,
        reason: &'static str,
    },
    /// The brokers refused a record for good, for another reason than its size.
    #[error(
        "sink.kafka: topic {topic} refused a record: {reason}; check that the topic exists, its settings and the ACLs"
    )]
    Refused {
        topic: String,
        /// The reason in librdkafka's words.
        reason: String,
        class: ErrorClass,
    },
    /// The brokers refuse the producer's id.
    #[error(
        "sink.kafka: the user has no right to a producer's id at {brokers}: add an ACL for Write on topics with the \
         prefix `{prefix}.`; before Kafka 3.0 it is IdempotentWrite on the cluster"
    )]
    NoProducerId { brokers: String, prefix: String },
    #[error("sink.kafka: the producer failed for good: {reason}")]
    Fatal {
        /// The reason in librdkafka's words.
        reason: String,
        class: ErrorClass,
    },
    #[error("sink.kafka: {records} records weren't acknowledged in {waited_ms} ms")]
    Unacknowledged {
        records: u64,
        /// How long they were waited for, in ms.
        waited_ms: u128,
    },
    #[error("sink.files: can't {what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    /// A file hasn't got the rows from which the job would go on.
    #[error(
        "sink.files: {} {reason}; bring the file back, or set another `dir`, where files begin anew behind the checkpoint",
        path.display()
    )]
    Files { path: PathBuf, reason: String },
    #[error("publishing was stopped")]
    Stopped,
}

/// Returns the first names of a list, and how many more there are.
fn listed(topics: &[String]) -> String {
    let (shown, more) = topics.split_at(topics.len().min(LISTED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("topic{} {}{more}", if topics.len() == 1 { "" } else { "s" }, shown.join(", "))
}

impl SinkError {
    /// Returns the class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Kafka(error) => error.class(),
            Self::MissingTopics { .. }
            | Self::CleanupPolicy { .. }
            | Self::Denied { .. }
            | Self::NoProducerId { .. }
            | Self::Replication { .. } => ErrorClass::Definite,
            Self::CreateTopic { class, .. } | Self::Refused { class, .. } | Self::Fatal { class, .. } => {
                *class
            }
            Self::Files { .. } => ErrorClass::Fatal,
            Self::File { .. } | Self::Unacknowledged { .. } | Self::Stopped => ErrorClass::Transient,
        }
    }
}

/// The counts of what the sinks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// The number of rows handed to the sinks, by view: see [`View::ALL`].
    pub records: [u64; View::ALL.len()],
    /// The bytes of those rows, key columns and values once.
    pub bytes: u64,
    /// The number of records that Kafka hasn't acknowledged.
    pub queued_records: u64,
    /// The memory that those records take, in bytes, about.
    pub queued_bytes: u64,
    /// The number of records that were too large for the brokers, the only ones that are given up.
    pub rejected: u64,
    /// The number of errors of the brokers and of sending.
    pub errors: u64,
    /// The number of requests that were sent again.
    pub retries: u64,
}

/// Counters that several threads change.
#[derive(Debug, Default)]
struct SinkCounters {
    records: [AtomicU64; View::ALL.len()],
    bytes: AtomicU64,
    queued_records: AtomicU64,
    queued_bytes: AtomicU64,
    rejected: AtomicU64,
    errors: AtomicU64,
    retries: AtomicU64,
    /// The last tick that Kafka acknowledged, and the last that was written to files.
    acknowledged: AtomicU64,
    written: AtomicU64,
    stopped: AtomicBool,
    /// True while the producer has no id, without which it can't send.
    waits_for_id: AtomicBool,
}

/// A view of a [`Publisher`]'s progress for other threads. By default it is that of none.
#[derive(Clone, Debug, Default)]
pub struct PublisherMonitor(Arc<SinkCounters>);

impl PublisherMonitor {
    /// Returns the same as [`Publisher::published`].
    #[must_use]
    pub fn published(&self) -> Tick {
        self.0.acknowledged.load(Ordering::Acquire).min(self.0.written.load(Ordering::Acquire))
    }

    /// Returns the counts of what the sinks did.
    #[must_use]
    pub fn stats(&self) -> SinkStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let SinkCounters { records, bytes, queued_records, queued_bytes, rejected, errors, retries, .. } =
            &*self.0;
        SinkStats {
            records: records.each_ref().map(load),
            bytes: load(bytes),
            queued_records: load(queued_records),
            queued_bytes: load(queued_bytes),
            rejected: load(rejected),
            errors: load(errors),
            retries: load(retries),
        }
    }

    /// Returns whether the producer has no id of the brokers yet, without which it can't send. It is false without
    /// topics.
    #[must_use]
    pub fn waits_for_id(&self) -> bool {
        self.0.waits_for_id.load(Ordering::Acquire)
    }

    /// Makes a publisher that waits for Kafka give up, with [`SinkError::Stopped`]. It serves a job that has to end
    /// during an outage: unacknowledged records are lost to this run.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
    }
}

/// The findings of [`check`] about a sink's topics.
#[derive(Debug, Default)]
pub struct SinkCheck {
    /// The topics that a job would create.
    pub missing: Vec<String>,
    /// Every reason for which a job could not publish.
    pub problems: Vec<SinkError>,
    /// Reasons for which something could not be checked, one sentence each.
    pub warnings: Vec<String>,
}

/// Checks the topics of a sink and the user's rights on them. It creates nothing, and blocks while it asks the brokers.
///
/// # Errors
/// If the brokers can't be asked.
pub fn check(sink: &KafkaSink) -> Result<SinkCheck, SinkError> {
    topics::check(sink, &View::ALL.map(|view| view.topic(&sink.prefix)))
}

/// Who makes a job's ticks visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promise {
    /// Rows are visible as they are sent, and nothing is recorded.
    #[default]
    None,
    /// Rows are visible as they are sent, and a ledger records their tick.
    Ledger,
    /// A ledger sends the rows of topics, and makes them visible with their tick.
    Transactions,
}

/// The rows of a tick as a ledger records them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowTally {
    pub count: u64,
    /// The sum of the rows' ids, mod 2^128.
    pub digest: u128,
}

/// Looks up the topics of a sink, or creates them; returns each with the size of a batch that it takes. The order is
/// that of [`View::ALL`].
///
/// # Errors
/// If a topic can't be used, or (transient) not now.
pub fn prepare(sink: &KafkaSink) -> Result<Vec<RowTopic>, SinkError> {
    let names = topic_names(&sink.prefix);
    let limits = topics::prepare(sink, &names)?;
    Ok(names.into_iter().zip(limits).map(|(name, limit)| RowTopic { name, limit }).collect())
}

fn topic_names(prefix: &str) -> TopicNames {
    View::ALL.map(|view| view.topic(prefix))
}

/// Publishes the results of one job, tick by tick.
#[derive(Debug)]
pub struct Publisher {
    names: Names,
    writers: SinkWriters,
    /// The name of each source of the configuration, and its topic, or its name again if it has none.
    topics_of_sources: Vec<(String, String)>,
    job: String,
    config: String,
}

/// What people may be told of a tick, once it is [`published`](Publisher::published).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickAlerts {
    /// Those of transitions, in the order of these.
    pub incidents: Vec<Notice>,
    /// Those of the highest thresholds that quotas crossed, in the order of the view's rows.
    pub quotas: Vec<QuotaAlert>,
}

/// What actions on keys follow from in a tick.
#[derive(Clone, Copy, Debug)]
pub struct TickFacts<'a> {
    /// Transitions of incidents in the order of their times.
    pub transitions: &'a [Transition],
    /// What people and gateways said, in the order in which it is recorded.
    pub inputs: &'a [ActionInput],
    /// Rows of `usage` in the order of keys, levels and windows. A bounded run has none.
    pub usage: &'a [Row<KeyId, OwnedUsage>],
    pub names: &'a Names,
}

/// Decides what is done about keys in a tick. It is asked in each tick of a live job, and returns rows in the order of
/// their key columns.
pub type Decide<'a> = &'a mut dyn FnMut(TickFacts<'_>) -> ActionRows;

/// The topics and files that rows are written to.
#[derive(Debug)]
struct SinkWriters {
    topics: TopicWriter,
    files: Option<SeriesOfViews>,
    counters: Arc<SinkCounters>,
    tick: Tick,
    line: Vec<u8>,
    names: TopicNames,
    /// The bytes that a record's id is the hash of.
    identity: Vec<u8>,
    has_ledger: bool,
    tally: RowTally,
    /// True for a tick whose rows are in the topics already.
    is_replay: bool,
    /// The newest rows of keys that replayed ticks made otherwise than they were published.
    changed: ChangedRows,
    /// The tick's rows that answers at request time have, if there are any.
    placed: Option<Vec<PlacedRow>>,
}

/// How rows come into topics.
#[derive(Debug)]
enum TopicWriter {
    None,
    Sent(Box<Topics>),
    Kept(KeptRows),
}

/// The newest row of each key that may have to be published again: its key columns and its value, by view.
#[derive(Debug, Default)]
struct ChangedRows {
    /// True if rows of replayed ticks are looked at, as another program or configuration made them first.
    is_watched: bool,
    /// Those of the replayed tick that is being published.
    of_tick: BTreeMap<(View, Vec<u8>), Option<Vec<u8>>>,
    /// Those of the ticks before that turned out otherwise.
    found: BTreeMap<(View, Vec<u8>), Option<Vec<u8>>>,
}

impl Publisher {
    /// Opens the sinks, and blocks while topics are checked and created. The headers of dead letters name `job` and
    /// `sources`. Incidents name `config`, the configuration's fingerprint. Files go back to where they were at `files`.
    ///
    /// # Errors
    /// If a sink can't be used, or (transient) not now.
    pub fn open(
        sinks: &Sinks,
        job: &str,
        sources: &[Source],
        config: &str,
        promise: Promise,
        files: Option<&FilesMemory>,
    ) -> Result<Self, SinkError> {
        let counters = Arc::new(SinkCounters::default());
        let files = sinks.files.as_ref().map(|sink| SeriesOfViews::open(sink, files)).transpose()?;
        let topics = match &sinks.kafka {
            None => TopicWriter::None,
            Some(_) if promise == Promise::Transactions => TopicWriter::Kept(KeptRows::default()),
            Some(sink) => TopicWriter::Sent(Box::new(Topics::open(sink, &counters)?)),
        };
        let names = topic_names(sinks.kafka.as_ref().map_or("keytide", |sink| &sink.prefix));
        let topic_of = |source: &Source| match &source.kind {
            SourceKind::Kafka(kafka) => kafka.topic.clone(),
            SourceKind::File { .. } | SourceKind::Stdin => source.name.clone(),
        };
        Ok(Self {
            names: Names::default(),
            writers: SinkWriters {
                topics,
                files,
                counters,
                tick: 0,
                line: Vec::new(),
                names,
                identity: Vec::new(),
                has_ledger: promise != Promise::None,
                tally: RowTally::default(),
                is_replay: false,
                changed: ChangedRows::default(),
                placed: None,
            },
            topics_of_sources: sources.iter().map(|source| (source.name.clone(), topic_of(source))).collect(),
            job: job.to_owned(),
            config: config.to_owned(),
        })
    }

    /// Adds the strings that outputs define, and takes them out. [`publish`](Self::publish) does so, too.
    pub fn define(&mut self, outputs: &mut [TickOutput]) {
        let definitions = outputs.iter_mut().flat_map(|output| mem::take(&mut output.definitions));
        definitions.for_each(|definition| self.names.define(definition));
    }

    /// Returns the strings behind the ids of the last tick, and of one whose strings are defined.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Says whether the next tick is one that an earlier life committed. Its rows are made, counted and written to
    /// files, and topics don't get them. With `is_other`, another program or configuration made them then.
    pub fn replay(&mut self, is_replay: bool, is_other: bool) {
        self.writers.is_replay = is_replay;
        self.writers.changed.is_watched = is_replay && is_other;
    }

    /// Decides about the last tick, a replayed one: if its rows turned out otherwise, those of views with one row a key
    /// are published again with the next tick that is no replay.
    pub fn replayed(&mut self, is_equal: bool) {
        let changed = &mut self.writers.changed;
        let of_tick = mem::take(&mut changed.of_tick);
        if is_equal {
            // What was published then is newer than what turned out otherwise before.
            changed.found.retain(|key, _| !of_tick.contains_key(key));
        } else {
            changed.found.extend(of_tick);
        }
    }

    /// Keeps the rows of each tick from now on that answers at request time have.
    pub fn place_rows(&mut self) {
        self.writers.placed.get_or_insert_default();
    }

    /// Takes the rows that were kept since it was called last, in the order in which they were published.
    pub fn take_placed(&mut self) -> Vec<PlacedRow> {
        self.writers.placed.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Returns the number of the last tick's rows and the sum of their ids, if there is a ledger.
    #[must_use]
    pub fn tally(&self) -> RowTally {
        self.writers.tally
    }

    /// Returns the rows of topics that the ledger has to send.
    #[must_use]
    pub fn kept(&self) -> Option<&KeptRows> {
        match &self.writers.topics {
            TopicWriter::Kept(rows) => Some(rows),
            TopicWriter::None | TopicWriter::Sent(_) => None,
        }
    }

    /// Takes the rows of topics that the ledger has to send. Those of later ticks are kept in `spare`, which is empty.
    pub fn take_kept(&mut self, spare: KeptRows) -> KeptRows {
        match &mut self.writers.topics {
            TopicWriter::Kept(rows) => mem::replace(rows, spare),
            TopicWriter::None | TopicWriter::Sent(_) => spare,
        }
    }

    /// Notes that the ledger has committed all ticks up to this one, with `rows` that were [taken](Self::take_kept).
    pub fn committed(&mut self, tick: Tick, rows: &KeptRows, rejected: u64) {
        if let TopicWriter::Kept(_) = &self.writers.topics {
            let counters = &self.writers.counters;
            counters.rejected.fetch_add(rejected, Ordering::Relaxed);
            counters.queued_records.fetch_sub(rows.len() as u64, Ordering::Relaxed);
            counters.queued_bytes.fetch_sub(rows.bytes() as u64, Ordering::Relaxed);
            counters.acknowledged.store(tick, Ordering::Release);
        }
    }

    /// Publishes a tick, of which `outputs` are those of all workers; ticks come in order. It blocks while the
    /// sinks are behind. `decide` makes the rows about actions. Returns the notifications, which may be sent once the
    /// tick is [`published`](Self::published).
    ///
    /// # Errors
    /// If the sinks can't go on. Then this tick isn't published as a whole, and no later one can be.
    ///
    /// # Panics
    /// If a position names none of `partitions`.
    pub fn publish(
        &mut self,
        tick: Tick,
        mut outputs: Vec<TickOutput>,
        partitions: &[PartitionInfo],
        decide: Decide<'_>,
    ) -> Result<TickAlerts, SinkError> {
        debug_assert!(tick > self.writers.tick, "ticks come in order");
        // 1. Join the workers' outputs, and define all strings before the first row needs one.
        self.define(&mut outputs);
        let mut views = Views::default();
        let mut forgotten = Vec::new();
        for output in outputs {
            forgotten.extend(output.forgotten);
            debug_assert_eq!(output.tick, tick, "the outputs of one tick come together");
            output.rows.into_iter().for_each(|rows| views.add(rows));
            views.late.extend(output.late);
            views.letters.extend(output.letters);
            views.table_letters.extend(output.table_letters);
            views.inputs.extend(output.inputs);
        }
        let Self { names, writers, topics_of_sources, job, config } = self;
        // 2. Write the rows of windows and of accounts, then incidents with what is done about them.
        let mut labels = Labels::new(names);
        writers.begin_tick(tick)?;
        views.rows.publish(writers, &mut labels)?;
        let quotas = writers.accounts(views.accounts, &mut labels)?;
        let info = JobInfo { config, partitions };
        let incidents = writers.incidents(
            views.incidents,
            views.transitions,
            (&views.inputs, &views.rows.usage),
            decide,
            info,
            &mut labels,
        )?;
        // 3. Write late events and dead letters in the order of their records.
        views.late.sort_unstable();
        for late in views.late {
            let location = RecordLocation::of(late.position, partitions);
            writers.row(&LateRow { location, late }, &mut labels, None)?;
        }
        views.letters.sort_by_key(|letter| letter.position);
        let letters = views.letters.iter().map(|letter| DeadRow::of(letter, partitions));
        for row in letters.chain(views.table_letters.iter().map(DeadRow::of_row)) {
            let topic = topics_of_sources.iter().find(|(name, _)| *name == row.location.source);
            let headers = DeadHeaders {
                job,
                topic: topic.map_or(&*row.location.source, |(_, topic)| topic),
                location: &row.location,
                reason: row.reason,
            };
            writers.row(&row, &mut labels, Some(&headers))?;
        }
        // 4. Forget ids, now that all workers' rows of the tick are written.
        forgotten.into_iter().for_each(|forgotten| names.forget(forgotten));
        writers.end_tick()?;
        Ok(TickAlerts { incidents, quotas })
    }

    /// Returns where the files are after the last tick, with all of that on disk; `None` without files.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn files_memory(&mut self) -> Result<Option<FilesMemory>, SinkError> {
        self.writers.files.as_mut().map(SeriesOfViews::memory).transpose()
    }

    /// Deletes files that were kept for a restore, now that a checkpoint is stored whose memory of the files this is.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn files_stored(&mut self, memory: &FilesMemory) -> Result<(), SinkError> {
        self.writers.files.as_mut().map_or(Ok(()), |files| files.stored(memory))
    }

    /// Waits until all records are acknowledged by Kafka and on disk.
    ///
    /// # Errors
    /// If that isn't in time, or the sinks can't go on.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), SinkError> {
        if let Some(files) = &mut self.writers.files {
            files.flush()?;
        }
        match &mut self.writers.topics {
            TopicWriter::Sent(topics) => topics.flush(timeout),
            TopicWriter::None | TopicWriter::Kept(_) => Ok(()),
        }
    }

    /// Returns the last tick that was acknowledged by Kafka and written to files, with all ticks before; 0 if there
    /// is none.
    #[must_use]
    pub fn published(&self) -> Tick {
        self.monitor().published()
    }

    /// Returns a view of the progress for other threads.
    #[must_use]
    pub fn monitor(&self) -> PublisherMonitor {
        PublisherMonitor(Arc::clone(&self.writers.counters))
    }
}

macro_rules! rows_by_view {
    ($($view:ident $field:ident: $row:ty,)+) => {
        /// The rows of windows, by view.
        #[derive(Default)]
        struct RowsByView { $($field: Vec<$row>,)+ }

        impl Views {
            fn add(&mut self, rows: Rows) {
                match rows {
                    $(Rows::$view(mut rows) => self.rows.$field.append(&mut rows),)+
                    Rows::Quota(mut rows) => self.accounts.quota.append(&mut rows),
                    Rows::Charges(mut rows) => self.accounts.charges.append(&mut rows),
                    Rows::Bills(mut rows) => self.accounts.bills.append(&mut rows),
                    Rows::Forecast(mut rows) => self.accounts.forecast.append(&mut rows),
                    Rows::Notices(mut rows) => self.accounts.notices.append(&mut rows),
                    Rows::Adjustments(mut rows) => self.accounts.adjustments.append(&mut rows),
                    Rows::Incidents(mut rows) => self.incidents.append(&mut rows),
                    Rows::IncidentLog(mut rows) => self.transitions.append(&mut rows),
                    // They are made only for a backtest.
                    Rows::Scores(_) => {}
                }
            }
        }

        impl RowsByView {
            /// Publishes the rows view by view.
            fn publish(
                &mut self,
                writers: &mut SinkWriters,
                labels: &mut Labels<'_>,
            ) -> Result<(), SinkError> {
                $(writers.rows(&mut self.$field, labels)?;)+
                Ok(())
            }
        }
    };
}
views_of_windows!(rows_by_view);

/// The results of all workers for one tick, by view.
#[derive(Default)]
struct Views {
    rows: RowsByView,
    accounts: AccountRows,
    incidents: Vec<Incident>,
    transitions: Vec<Transition>,
    late: Vec<Late>,
    letters: Vec<DeadLetter>,
    table_letters: Vec<TableDeadLetter>,
    inputs: Vec<ActionInput>,
}

impl SinkWriters {
    fn begin_tick(&mut self, tick: Tick) -> Result<(), SinkError> {
        self.tick = tick;
        self.tally = RowTally::default();
        if let TopicWriter::Sent(topics) = &mut self.topics {
            topics.begin_tick(tick);
        }
        if self.changed.is_watched {
            return Ok(());
        }
        // The first tick of this program and configuration has them, also if an earlier life made it.
        for ((view, key), value) in mem::take(&mut self.changed.found) {
            self.send(view, &key, value.as_deref(), None)?;
        }
        Ok(())
    }

    fn rows<G: Ord + Copy, V>(
        &mut self,
        rows: &mut [Row<G, V>],
        labels: &mut Labels<'_>,
    ) -> Result<(), SinkError>
    where
        Row<G, V>: EncodeRow,
    {
        rows.sort_unstable_by_key(|row| (row.group, row.level, row.start));
        debug_assert!(
            rows.windows(2).all(|pair| {
                (pair[0].group, pair[0].level, pair[0].start) < (pair[1].group, pair[1].level, pair[1].start)
            }),
            "a tick has at most one row per key"
        );
        rows.iter().try_for_each(|row| self.row(row, labels, None))
    }

    fn revisions<K: Ord + Copy, V>(
        &mut self,
        mut rows: Vec<Revision<K, V>>,
        labels: &mut Labels<'_>,
    ) -> Result<(), SinkError>
    where
        Revision<K, V>: EncodeRow,
    {
        rows.sort_unstable_by_key(|row| row.key);
        debug_assert!(
            rows.windows(2).all(|pair| pair[0].key < pair[1].key),
            "a tick has at most one row per key"
        );
        rows.iter().try_for_each(|row| self.row(row, labels, None))
    }

    /// Publishes the rows of accounts, and returns the notifications.
    fn accounts(&mut self, rows: AccountRows, labels: &mut Labels<'_>) -> Result<Vec<QuotaAlert>, SinkError> {
        let AccountRows { quota, charges, bills, forecast, mut notices, mut adjustments } = rows;
        self.revisions(quota, labels)?;
        self.revisions(charges, labels)?;
        self.revisions(bills, labels)?;
        self.revisions(forecast, labels)?;
        notices.sort_unstable_by_key(|notice| (notice.key.subscription, notice.seq));
        let mut alerts = Vec::new();
        for notice in &notices {
            self.row(notice, labels, None)?;
            if notice.is_highest {
                let json = String::from_utf8_lossy(&self.line).into_owned();
                let contacts = contact_addresses([labels.names().text(notice.contacts)]);
                alerts.push(QuotaAlert { json, contacts });
            }
        }
        adjustments.sort_unstable_by_key(|adjustment| (adjustment.bill.subscription, adjustment.seq));
        adjustments.iter().try_for_each(|adjustment| self.row(adjustment, labels, None))?;
        Ok(alerts)
    }

    /// Publishes incidents, their transitions and the actions on them, and returns the notifications.
    fn incidents(
        &mut self,
        mut incidents: Vec<Incident>,
        mut transitions: Vec<Transition>,
        (inputs, usage): (&[ActionInput], &[Row<KeyId, OwnedUsage>]),
        decide: Decide<'_>,
        job: JobInfo<'_>,
        labels: &mut Labels<'_>,
    ) -> Result<Vec<Notice>, SinkError> {
        incidents.sort_unstable_by_key(|incident| incident.id);
        for incident in &incidents {
            self.row(&IncidentRow { incident, job }, labels, None)?;
        }
        transitions.sort_unstable_by_key(Transition::order);
        let mut notices = Vec::with_capacity(transitions.len());
        for transition in &transitions {
            self.row(&LogRow { transition, job }, labels, None)?;
            let contacts = incidents::contacts(transition, labels.names());
            notices.push(Notice { json: self.line.clone(), contacts, actions: Vec::new() });
        }
        let names = labels.names();
        let ActionRows { revocations, denied, audit } =
            decide(TickFacts { transitions: &transitions, inputs, usage, names });
        denied.iter().try_for_each(|row| self.row(row, labels, None))?;
        audit.iter().try_for_each(|row| self.row(row, labels, None))?;
        for action in revocations {
            self.row(&action, labels, None)?;
            let asked_for = |transition: &Transition| transition.incident.id == action.incident;
            if let Some(at) = transitions.iter().rposition(asked_for) {
                notices[at].actions.push(action);
            }
        }
        Ok(notices)
    }

    fn row<R: EncodeRow>(
        &mut self,
        row: &R,
        labels: &mut Labels<'_>,
        headers: Option<&DeadHeaders<'_>>,
    ) -> Result<(), SinkError> {
        let mut line = mem::take(&mut self.line);
        line.clear();
        row.key_columns(labels, &mut line);
        let key_length = line.len();
        row.value_columns(labels, &mut line);
        let view = R::VIEW;
        self.counters.records[view as usize].fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        if let Some(files) = &mut self.files {
            files.row(view, self.tick, &line)?;
        }
        if let Some((placed, place)) = self.placed.as_mut().zip(row.place()) {
            placed.push(PlacedRow { view, place, line: (!row.is_retracted()).then(|| line.clone()) });
        }
        let sent = self.send(view, &line[..key_length], (!row.is_retracted()).then_some(&line), headers);
        self.line = line;
        sent
    }

    /// Sends a row to its topic, or keeps it for the ledger. `key_columns` is an object that isn't closed.
    fn send(
        &mut self,
        view: View,
        key_columns: &[u8],
        value: Option<&[u8]>,
        headers: Option<&DeadHeaders<'_>>,
    ) -> Result<(), SinkError> {
        if !self.has_ledger && matches!(self.topics, TopicWriter::None) {
            return Ok(());
        }
        let (key, id) =
            identify(&mut self.identity, &self.names[view as usize], self.tick, key_columns, value);
        self.tally.count += 1;
        self.tally.digest = self.tally.digest.wrapping_add(id);
        if self.is_replay {
            if self.changed.is_watched && view.is_upsert() {
                self.changed.of_tick.insert((view, key_columns.to_vec()), value.map(<[u8]>::to_vec));
            }
            return Ok(());
        }
        let record = ResultRecord { view, tick: self.tick, id, key: &self.identity[key], value, headers };
        match &mut self.topics {
            TopicWriter::None => Ok(()),
            TopicWriter::Sent(topics) => topics.send(&record),
            TopicWriter::Kept(rows) => {
                let before = rows.bytes();
                record.keep(rows);
                self.counters.queued_records.fetch_add(1, Ordering::Relaxed);
                self.counters.queued_bytes.fetch_add((rows.bytes() - before) as u64, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn end_tick(&mut self) -> Result<(), SinkError> {
        if let Some(files) = &mut self.files {
            files.end_tick(self.tick)?;
        }
        self.counters.written.store(self.tick, Ordering::Release);
        match &mut self.topics {
            TopicWriter::Sent(topics) => topics.end_tick(),
            TopicWriter::Kept(_) if !self.is_replay => Ok(()),
            TopicWriter::Kept(_) | TopicWriter::None => {
                self.counters.acknowledged.store(self.tick, Ordering::Release);
                Ok(())
            }
        }
    }
}
