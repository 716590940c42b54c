//! The reader of the tables: it watches files and follows topics. What people and gateways say about actions comes the
//! same way.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use keytide_config::{End, KafkaClient, Start};
use keytide_dataflow::model::Tick;

use super::{Live, LiveError, add};
use crate::kafka::{Consumer, ConsumerEvent, KafkaError, KafkaMessage, Topic};
use crate::tables::{TablesMemory, TablesRead, TopicTable, WatchedTables};

/// How long a round waits for changes.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// The same while ticks follow each other at once: each would wait for it.
const POLL_WAIT_BEHIND: Duration = Duration::from_millis(1);
/// The most records of a topic that are taken at once.
const POLL_RECORDS: usize = 4_096;
/// The number of changes from which they are handed over.
const BATCH_CHANGES: usize = 8_192;

/// A source of changes of tables, or of what people and gateways say.
pub trait TableFeed: Send {
    /// Adds new changes to `read`; waits for them for at most `wait`.
    ///
    /// # Errors
    /// Any error that can't be waited out.
    fn poll(&mut self, wait: Duration, read: &mut TablesRead) -> Result<(), LiveError>;
    /// Returns whether everything was read that was there at the start.
    fn is_complete(&self) -> bool;
    /// Adds the rows that are held, for a checkpoint.
    fn remember(&self, memory: &mut TablesMemory);
}

/// Tables from files, which are read again at intervals.
pub struct FileFeed {
    watched: WatchedTables,
    every: Duration,
    looked: Instant,
}

impl FileFeed {
    /// Watches files that were read for the first time.
    #[must_use]
    pub fn new(watched: WatchedTables, every: Duration) -> Self {
        Self { watched, every, looked: Instant::now() }
    }
}

impl TableFeed for FileFeed {
    fn poll(&mut self, wait: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        let left = self.every.saturating_sub(self.looked.elapsed());
        if !left.is_zero() {
            std::thread::park_timeout(left.min(wait));
            return Ok(());
        }
        self.looked = Instant::now();
        if let Some(new) = self.watched.poll() {
            read.append(new);
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn remember(&self, memory: &mut TablesMemory) {
        self.watched.remember(memory);
    }
}

/// A table from a topic: read from its beginning, and followed. Its partitions are those it has at the start. Once
/// the content at the start is read, its newest state is handed over at once, without the changes that led to it.
pub struct TopicFeed {
    table: TopicTable,
    consumer: Consumer,
    /// The end that each partition had at the start, if that isn't reached yet.
    ahead: HashMap<u32, u64>,
    /// The content that was read so far, until all of that is reached.
    first: Option<TablesRead>,
    /// The rows that an earlier life of the job held, until then.
    earlier: TablesMemory,
}

impl TopicFeed {
    /// Looks up the topic and starts to read it.
    ///
    /// # Errors
    /// If the look-up fails.
    pub fn open(client: &KafkaClient, table: TopicTable, earlier: &TablesMemory) -> Result<Self, KafkaError> {
        let topic = Topic::open(client, table.topic())?;
        let partitions = topic.partitions()?;
        let starts = topic.starts(&Start::Earliest, &partitions)?;
        let ends = topic.ends(&End::Latest, &partitions)?;
        let mut consumer = Consumer::new(client, table.topic())?;
        for &(partition, offset) in &starts {
            consumer.add(partition, offset)?;
        }
        let begins: HashMap<u32, u64> = starts.into_iter().collect();
        let ahead =
            ends.into_iter().filter(|(partition, end)| begins.get(partition).is_none_or(|at| at < end));
        let earlier = earlier.of(table.name());
        Ok(Self { table, consumer, ahead: ahead.collect(), first: Some(TablesRead::default()), earlier })
    }
}

impl TableFeed for TopicFeed {
    fn poll(&mut self, wait: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        let Self { table, consumer, ahead, first, earlier } = self;
        let mut gap = None;
        let out = first.as_mut().unwrap_or(&mut *read);
        consumer.poll(wait, POLL_RECORDS, &mut |record| {
            let (partition, next) = match record {
                ConsumerEvent::Message(KafkaMessage { partition, offset, key, value, .. }) => {
                    table.apply(partition, offset, key, value, out);
                    (partition, offset + 1)
                }
                ConsumerEvent::End { partition, offset } => (partition, offset),
                ConsumerEvent::Gap { partition, wanted, low, high } => {
                    let topic = table.topic().to_owned();
                    gap = Some(KafkaError::Gap { topic, partition, wanted, low, high });
                    return;
                }
            };
            if ahead.get(&partition).is_some_and(|end| next >= *end) {
                ahead.remove(&partition);
            }
        })?;
        if ahead.is_empty()
            && let Some(mut first) = first.take()
        {
            first.changes.clear();
            table.go_on(&mem::take(earlier), &mut first);
            read.append(first);
        }
        gap.map_or(Ok(()), |gap| Err(gap.into()))
    }

    fn is_complete(&self) -> bool {
        self.first.is_none()
    }

    fn remember(&self, memory: &mut TablesMemory) {
        self.table.remember(memory);
    }
}

/// Reads all tables for worker 0.
pub struct TableReader {
    live: Arc<Live>,
    slot: usize,
    feeds: Vec<Box<dyn TableFeed>>,
    read: TablesRead,
    /// The changes in the ticks of an earlier life.
    recorded: BTreeMap<Tick, TablesRead>,
    tick: Tick,
    answered: u64,
}

impl TableReader {
    /// Makes the reader of all tables; `first` was read of them already. `recorded` has their changes in the ticks of
    /// an earlier life that are made again.
    #[must_use]
    pub fn new(
        live: &Arc<Live>,
        first: TablesRead,
        feeds: Vec<Box<dyn TableFeed>>,
        recorded: BTreeMap<Tick, TablesRead>,
    ) -> Self {
        let tick = live.state().open;
        let slot = live.table_slot();
        Self { live: Arc::clone(live), slot, feeds, read: first, recorded, tick, answered: 0 }
    }

    /// Reads until the job ends. No tick is closed before the tables are complete. An error ends the job.
    pub fn run(mut self) {
        let started = Instant::now();
        let mut complete = false;
        let mut failed = false;
        loop {
            let orders = self.live.orders(self.slot);
            if !complete && self.feeds.iter().all(|feed| feed.is_complete()) {
                complete = true;
                self.live.state().tables_read = true;
                tracing::info!(ms = started.elapsed().as_millis(), "tables are read");
            }
            let is_replay = orders.recorded(self.tick).is_some();
            if orders.cut != self.answered && (complete || orders.stopping || is_replay) {
                if is_replay {
                    if let Some(recorded) = self.recorded.remove(&self.tick) {
                        self.send(recorded);
                    }
                } else {
                    self.flush();
                }
                if orders.checkpoint {
                    let mut memory = TablesMemory::default();
                    self.feeds.iter().for_each(|feed| feed.remember(&mut memory));
                    self.live.remember_tables(memory);
                }
                (self.tick, ..) = self.live.answer(self.slot, orders.cut, [], []);
                self.answered = orders.cut;
                if orders.last {
                    return;
                }
            }
            if failed || orders.stopping || self.feeds.is_empty() {
                self.live.wait_for_cut(self.answered);
            } else if let Err(error) = self.poll(if orders.behind { POLL_WAIT_BEHIND } else { POLL_WAIT }) {
                failed = true;
                self.live.fail(error);
            }
            if self.read.changes.len() >= BATCH_CHANGES && orders.recorded(self.tick).is_none() {
                self.flush();
            }
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<(), LiveError> {
        let wait = wait / u32::try_from(self.feeds.len()).unwrap_or(u32::MAX);
        for feed in &mut self.feeds {
            feed.poll(wait, &mut self.read)?;
        }
        for warning in self.read.warnings.drain(..) {
            tracing::warn!("{warning}");
        }
        Ok(())
    }

    /// Hands over the changes that were read, to worker 0.
    fn flush(&mut self) {
        let read = mem::take(&mut self.read);
        self.send(read);
    }

    fn send(&self, read: TablesRead) {
        add(&self.live.counters.table_unread, read.unread);
        if read.changes.is_empty()
            && read.definitions.is_empty()
            && read.dead_letters.is_empty()
            && read.inputs.is_empty()
        {
            return;
        }
        self.live.note_inputs(self.tick, &read);
        let TablesRead { changes, definitions, dead_letters, inputs, .. } = read;
        add(&self.live.counters.table_changes, changes.len() as u64);
        add(&self.live.counters.table_dead_letters, dead_letters.len() as u64);
        let definitions = super::Message::Definitions(definitions);
        let tables = super::Message::Tables { tick: self.tick, changes, letters: dead_letters, inputs };
        self.live.send(0, [definitions, tables]);
    }
}
