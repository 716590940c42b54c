//! The ledger of a job on a real broker: transactions, fencing, aborts. The mock cluster has none of them.
//!
//! These tests know the connectors' code, unlike the rest of the suite: a fault within a transaction can't be timed from
//! outside of the process. What readers see is read by a plain consumer with `read_committed`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keytide_config::{KafkaClient, KafkaSink};
use keytide_connectors::ledger::{
    History, KafkaLedgerOptions, KeptRows, Ledger, LedgerError, RowTopic, TickRecord,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::Broker;

/// How long brokers may take for anything.
const DEADLINE: Duration = Duration::from_secs(90);

/// A job with one topic of rows.
struct Bench {
    sink: KafkaSink,
    rows: String,
    stop: Arc<AtomicBool>,
}

impl Bench {
    fn new(broker: &Broker, brokers: &str) -> Self {
        let mut sink = KafkaSink::new(KafkaClient::new(brokers));
        sink.prefix = broker.name("job");
        let rows = broker.topic("job.rows.v1", 2, &["retention.ms=-1"]);
        Self { sink, rows, stop: Arc::default() }
    }

    fn options(&self) -> KafkaLedgerOptions {
        KafkaLedgerOptions::new("orders", vec![RowTopic { name: self.rows.clone(), limit: None }])
    }

    fn try_open(&self, options: KafkaLedgerOptions, nonce: u64) -> Result<(Ledger, History), LedgerError> {
        let stop = Arc::clone(&self.stop);
        Ledger::open_topic(&self.sink, options, nonce, Arc::new(move || stop.load(Ordering::Acquire)))
    }

    /// Opens the ledger and claims it, as a life that calls itself by its nonce.
    fn live(&self, options: KafkaLedgerOptions, nonce: u64) -> (Life, History) {
        let (mut ledger, history) = self.try_open(options, nonce).unwrap();
        let pid = u32::try_from(nonce).unwrap();
        let generation = ledger.claim("here", pid, 1_000).unwrap().generation;
        let next = history.ticks.last().map_or(0, |tick| tick.number) + 1;
        (Life { ledger, generation, nonce, next }, history)
    }

    /// Returns the rows that a reader of committed records sees, in the order of their ticks.
    fn committed(&self) -> Vec<Row> {
        let mut rows: Vec<Row> =
            (0..2).flat_map(|partition| read(&self.sink, &self.rows, partition)).collect();
        rows.sort_unstable();
        rows
    }
}

/// The tick in the header, the key and the value of a row.
type Row = (String, String, Option<String>);

/// Reads a partition up to its last committed record.
fn read(sink: &KafkaSink, topic: &str, partition: i32) -> Vec<Row> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &sink.client.brokers)
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut from_the_beginning = TopicPartitionList::new();
    from_the_beginning.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from_the_beginning).unwrap();
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    loop {
        match consumer.poll(DEADLINE).expect("the brokers answer") {
            Ok(record) => {
                let tick = record.headers().unwrap().get(0);
                assert_eq!(tick.key, "keytide-tick");
                let tick = text(tick.value.unwrap());
                rows.push((tick, text(record.key().unwrap()), record.payload().map(text)));
            }
            Err(KafkaError::PartitionEOF(_)) => return rows,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
}

struct Life {
    ledger: Ledger,
    generation: u64,
    nonce: u64,
    next: u64,
}

impl Life {
    fn record(&self, number: u64) -> TickRecord {
        let Self { generation, nonce, .. } = *self;
        TickRecord { number, tick: number * 1_000, generation, nonce, ..TickRecord::default() }
    }

    /// Commits a tick with `count` rows.
    fn commit(&mut self, count: u64) -> Result<u64, LedgerError> {
        let record = self.record(self.next);
        let rows = rows(self.next, count);
        let attempts = self.ledger.commit(&rows, &[record])?.attempts;
        self.next += 1;
        Ok(u64::from(attempts))
    }
}

fn rows(number: u64, count: u64) -> KeptRows {
    let mut rows = KeptRows::default();
    for row in 0..count {
        let key = format!("{number}-{row}");
        rows.push(0, number * 1_000, u128::from(row), key.as_bytes(), Some(b"{}"), [("more", "1")]);
    }
    rows
}

/// Returns the rows of ticks 1 to `ticks` with `count` rows each, in the order of [`Bench::committed`].
fn expected(ticks: u64, count: u64) -> Vec<Row> {
    let row = |number: u64, row: u64| {
        ((number * 1_000).to_string(), format!("{number}-{row}"), Some("{}".to_owned()))
    };
    let mut rows: Vec<Row> =
        (1..=ticks).flat_map(|number| (0..count).map(move |index| row(number, index))).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn what_a_life_commits_is_the_history_of_the_next() {
    let broker = Broker::shared("ledger");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut life, history) = bench.live(bench.options(), 1);
    assert_eq!(history, History::default());
    assert_eq!(life.generation, 1);
    for _ in 0..3 {
        assert_eq!(life.commit(10).unwrap(), 1);
    }
    // Two ticks at once, of which one has no rows.
    let ticks = [life.record(4), life.record(5)];
    life.ledger.commit(&rows(4, 10), &ticks).unwrap();
    let claim = life.ledger.claimed().unwrap().clone();
    drop(life);

    let started = Instant::now();
    let (life, history) = bench.live(bench.options(), 2);
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(history.ticks.iter().map(|tick| tick.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(history.ticks[3..], ticks);
    assert_eq!(history.last_claim, Some(claim));
    assert_eq!((life.generation, life.next), (2, 6));
    assert_eq!(bench.committed(), expected(4, 10));
}
