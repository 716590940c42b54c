//! The ledger of a job on a real broker: transactions, fencing, aborts. The mock cluster has none of them.
//!
//! These tests know the connectors' code, unlike the rest of the suite: a fault within a transaction can't be timed from
//! outside of the process. A plain consumer with `read_committed` is the reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keytide_config::{KafkaClient, KafkaSink, Secret};
use keytide_connectors::ledger::{
    History, KafkaLedgerOptions, KeptRows, Ledger, LedgerError, RowTopic, TickRecord,
};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker::Broker;
use crate::mistakes::{PASSWORD, change_acl, make_user, variable};
use crate::producer::from_the_beginning;
use crate::proxy::Proxy;

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

    /// Makes a producer that fences the job's own.
    fn intruder(&self) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.sink.client.brokers)
            .set("transactional.id", format!("{}.orders", self.sink.prefix))
            .create()
            .unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer
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
    let consumer = from_the_beginning(&sink.client.brokers, topic, partition);
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

#[test]
fn an_older_life_that_wakes_up_ends_and_names_the_younger() {
    let broker = Broker::shared("ledger-zombie");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut older, _) = bench.live(bench.options(), 11);
    older.commit(10).unwrap();
    let (mut younger, _) = bench.live(bench.options(), 12);
    let error = older.commit(10).unwrap_err();
    let LedgerError::Superseded { host, pid: 12, generation: 2 } = error else { panic!("{error}") };
    assert_eq!(host, "here");
    younger.commit(10).unwrap();
    assert_eq!(bench.committed(), expected(2, 10));
}

/// The same error comes when the brokers abort a transaction that took too long.
#[test]
fn a_fenced_life_goes_on_if_no_other_claims_the_job() {
    let broker = Broker::shared("ledger-fenced");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut life, _) = bench.live(bench.options(), 1);
    life.commit(10).unwrap();
    drop(bench.intruder());
    assert_eq!(life.commit(10).unwrap(), 2, "the first transaction fails");
    assert_eq!(life.commit(10).unwrap(), 1);
    assert_eq!(bench.committed(), expected(3, 10));
}

#[test]
fn the_next_start_ends_the_open_transaction_of_a_life_that_was_killed() {
    let broker = Broker::shared("ledger-killed");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut life, _) = bench.live(bench.options(), 1);
    life.commit(10).unwrap();
    drop(life);
    // It sent a row of tick 2, and then it was gone.
    let killed = bench.intruder();
    killed.begin_transaction().unwrap();
    let row = BaseRecord::<[u8], [u8]>::to(&bench.rows).key(b"2-0").payload(b"torn");
    killed.send(row).map_err(|(error, _)| error).unwrap();
    killed.flush(DEADLINE).unwrap();
    std::mem::forget(killed);

    let (mut life, _) = bench.live(bench.options(), 2);
    life.commit(10).unwrap();
    // A reader that were still held up would miss tick 2.
    assert_eq!(bench.committed(), expected(2, 10));
}

#[test]
fn a_transaction_that_expires_is_sent_again() {
    let broker = Broker::shared("ledger-expiry");
    let ledger = broker.name("job.progress.v1");
    let proxy = Proxy::new(broker.addresses(), &ledger);
    let bench = Bench::new(&broker, proxy.address());
    let (mut life, _) = bench.live(bench.options().with_transaction_timeout_ms(10_000), 1);
    life.commit(10).unwrap();
    let id = format!("{}.orders", bench.sink.prefix);
    let is_open = || {
        let state = broker.tool(&["transactions", "describe", "--transactional-id", &id], "");
        state.contains("Ongoing")
    };
    let until = |open: bool| {
        let started = Instant::now();
        while is_open() != open {
            assert!(started.elapsed() < DEADLINE, "{id}: the transaction is open: {}", !open);
        }
    };
    // Its rows are sent, and the record of its tick isn't until the transaction has expired.
    proxy.stall(Some(&bench.rows));
    let attempts = thread::scope(|scope| {
        let committing = scope.spawn(|| life.commit(10).unwrap());
        until(true);
        proxy.stall(Some(&ledger));
        until(false);
        proxy.stall(None);
        committing.join().unwrap()
    });
    assert!(attempts > 1, "the first transaction fails");
    assert_eq!(life.commit(10).unwrap(), 1);
    assert_eq!(bench.committed(), expected(3, 10));
}

#[test]
fn an_outage_is_waited_out_and_a_stop_ends_the_wait() {
    let broker = Broker::alone("ledger-outage");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut life, _) = bench.live(bench.options(), 1);
    for command in ["stop", "kill"] {
        life.commit(10).unwrap();
        broker.tool(&[command], "");
        thread::scope(|scope| {
            let committing = scope.spawn(|| life.commit(10).unwrap());
            broker.tool(&["start"], "");
            committing.join().unwrap();
        });
    }
    assert_eq!(bench.committed(), expected(4, 10));
    broker.tool(&["pause"], "");
    thread::scope(|scope| {
        let committing = scope.spawn(|| life.commit(10).unwrap_err());
        bench.stop.store(true, Ordering::Release);
        let error = committing.join().unwrap();
        assert!(matches!(error, LedgerError::Stopped), "{error}");
    });
}

#[test]
fn a_row_that_is_too_large_is_left_out_and_the_others_are_committed() {
    let broker = Broker::shared("ledger-too-large");
    let bench = Bench::new(&broker, broker.addresses());
    let mut options = bench.options();
    options.topics[0].limit = Some(100_000);
    let (mut life, _) = bench.live(options, 1);
    let mut rows = rows(1, 10);
    rows.push(0, 1_000, 99, b"large", Some(&vec![b'x'; 100_000]), []);
    rows.push(0, 1_000, 98, b"gone", None, []);
    let outcome = life.ledger.commit(&rows, &[life.record(1)]).unwrap();
    assert_eq!((outcome.rejected, outcome.attempts), (1, 1));
    let mut all = expected(1, 10);
    all.push(("1000".to_owned(), "gone".to_owned(), None));
    assert_eq!(bench.committed(), all);

    // The ledger's own topic takes larger records than others, up to 8 MiB.
    let long = |number, bytes| TickRecord { inputs: Some("x".repeat(bytes)), ..life.record(number) };
    let (fits, too_long) = (long(2, 4 << 20), long(3, 8 << 20));
    life.ledger.commit(&rows, std::slice::from_ref(&fits)).unwrap();
    let error = life.ledger.commit(&rows, &[too_long]).unwrap_err();
    assert!(matches!(error, LedgerError::RecordTooLarge { number: 3, .. }), "{error}");
    drop(life);
    let (_, history) = bench.live(bench.options(), 2);
    assert_eq!(history.ticks.last(), Some(&fits));
}

#[test]
fn a_topic_that_is_not_fit_is_refused_with_what_to_do() {
    let broker = Broker::shared("ledger-topic");
    let mut bench = Bench::new(&broker, broker.addresses());
    bench.sink.create_topics = false;
    let name = broker.name("job.progress.v1");
    let error = |bench: &Bench| bench.try_open(bench.options(), 1).unwrap_err();
    let missing = error(&bench);
    assert!(matches!(&missing, LedgerError::MissingTopic { topic, .. } if *topic == name), "{missing}");

    broker.topic("job.progress.v1", 1, &["cleanup.policy=delete"]);
    let policy = error(&bench);
    assert!(matches!(&policy, LedgerError::CleanupPolicy { found, .. } if found == "delete"), "{policy}");
    let compact = ["--add-config", "cleanup.policy=compact"];
    let alter = ["configs", "--alter", "--entity-type", "topics", "--entity-name", &name];
    broker.tool(&[&alter[..], &compact].concat(), "");
    bench.live(bench.options(), 1);

    let options = KafkaLedgerOptions::new("invoices", Vec::new());
    let other = bench.try_open(options, 2).unwrap_err();
    assert!(matches!(&other, LedgerError::OtherJob { found, .. } if found == "orders"), "{other}");

    broker.produce_keyed(&name, [("k", Some("{}"))]);
    let foreign = error(&bench).to_string();
    assert!(foreign.starts_with(&format!("topic {name}, offset ")), "{foreign}");
    assert!(foreign.contains("is no record of a ledger"), "{foreign}");

    bench.sink.prefix = broker.name("wide");
    broker.topic("wide.progress.v1", 2, &["cleanup.policy=compact"]);
    let wide = error(&bench);
    assert!(matches!(wide, LedgerError::Partitions { found: 2, .. }), "{wide}");
}

#[test]
fn a_topic_that_was_made_anew_is_no_ledger_of_what_was_committed() {
    let broker = Broker::shared("ledger-anew");
    let bench = Bench::new(&broker, broker.addresses());
    let (mut life, _) = bench.live(bench.options(), 1);
    life.commit(10).unwrap();
    broker.tool(&["topic", "--delete", "--topic", &broker.name("job.progress.v1")], "");
    broker.topic("job.progress.v1", 1, &["cleanup.policy=compact"]);
    // A life that is fenced reads the ledger.
    drop(bench.intruder());
    let error = life.commit(10).unwrap_err();
    assert!(matches!(error, LedgerError::Lost { number: 1, .. }), "{error}");
}

#[test]
fn a_right_that_is_missing_is_named() {
    let broker = Broker::shared("ledger-rights");
    let mut bench = Bench::new(&broker, &variable("KEYTIDE_TEST_SASL"));
    let user = broker.name("ledger-user");
    make_user(&broker, &user);
    let ca = variable("KEYTIDE_TEST_CA_FILE");
    let settings = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", &user),
        ("sasl.password", PASSWORD),
        ("ssl.ca.location", &ca),
    ];
    bench.sink.client.settings =
        settings.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect();
    let denied = |bench: &Bench| bench.try_open(bench.options(), 1).unwrap_err().to_string();

    let topics = ["--resource-pattern-type", "prefixed", "--topic", &bench.sink.prefix];
    change_acl(&broker, "--add", &user, &["Create", "Describe", "Write"], &topics);
    let error = denied(&bench);
    assert!(
        error.contains(&format!("no right Read on topic `{}.progress.v1`", bench.sink.prefix)),
        "{error}"
    );
    change_acl(&broker, "--add", &user, &["Read", "DescribeConfigs"], &topics);
    let id = format!("{}.orders", bench.sink.prefix);
    let error = denied(&bench);
    assert!(error.contains(&format!("no right Write on transactional id {id}")), "{error}");
    change_acl(&broker, "--add", &user, &["Write", "Describe"], &["--transactional-id", &id]);
    let (mut life, _) = bench.live(bench.options(), 1);
    life.commit(10).unwrap();
}

/// Commits three ticks. A request to commit the second one is held up and repeated, and delivered when all rows of the
/// third are acknowledged.
fn commit_with_a_late_request(test: &str, change: fn(KafkaLedgerOptions) -> KafkaLedgerOptions) -> Vec<Row> {
    let broker = Broker::shared(test);
    let proxy = Proxy::new(broker.addresses(), &broker.name("job.progress.v1"));
    let bench = Bench::new(&broker, proxy.address());
    let (mut life, _) = bench.live(change(bench.options()), 1);
    life.commit(10).unwrap();
    proxy.arm();
    assert_eq!(life.commit(10).unwrap(), 1, "librdkafka repeats the request by itself");
    life.commit(10).unwrap();
    assert_eq!(proxy.delivered(), 1);
    bench.committed()
}

#[test]
fn a_request_to_commit_that_arrives_late_ends_no_later_transaction() {
    assert_eq!(commit_with_a_late_request("ledger-late", |options| options), expected(3, 10));
}

#[test]
fn without_a_new_producer_a_request_to_commit_that_arrives_late_tears_the_next_transaction() {
    let rows = commit_with_a_late_request("ledger-torn", KafkaLedgerOptions::without_renewal);
    let third = rows.iter().filter(|(tick, ..)| tick == "3000").count();
    assert_eq!(third, 20, "the rows of tick 3 are there twice: {rows:?}");
}

/// Lost requests, lost answers and late ends of transactions, by a seed. Each life has a zombie before it.
#[test]
fn lives_in_a_storm_of_faults_commit_each_tick_once() {
    let broker = Broker::shared("ledger-storm");
    let proxy = Proxy::new(broker.addresses(), &broker.name("job.progress.v1"));
    let bench = Bench::new(&broker, proxy.address());
    let seed = variable_or("KEYTIDE_LEDGER_STORM", 1);
    println!("seed {seed}");
    let mut zombie: Option<Life> = None;
    for nonce in 1..=4 {
        let (mut life, history) = bench.live(bench.options(), nonce);
        proxy.storm(Some(seed * 1_000 + nonce));
        assert_eq!(history.ticks.len() as u64, (nonce - 1) * 6);
        for tick in 1..=6 {
            life.commit(10).unwrap();
            if tick == 3
                && let Some(mut zombie) = zombie.take()
            {
                let error = zombie.commit(10).unwrap_err();
                assert!(matches!(error, LedgerError::Superseded { .. }), "{error}");
            }
        }
        zombie = Some(life);
        proxy.storm(None);
    }
    assert!(proxy.delivered() > 0, "no request was late");
    assert_eq!(bench.committed(), expected(24, 10));
}

fn variable_or(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}
