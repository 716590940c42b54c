//! The results' topics: made, compacted, refused; and the life of the topics that are read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use keytide_config::View;

use crate::broker::Broker;
use crate::harness::{DEADLINE, Job, MINUTE, START, VIEWS, call};
use crate::live::{CALLS, Running, calls_of_keys, config, last_values, results};
use crate::producer::{Producer, surviving_keys};

fn lines(calls: impl IntoIterator<Item = String>) -> String {
    calls.into_iter().map(|call| format!("{call}\n")).collect()
}

/// A table of keys that comes as a topic of upserts.
fn keys_table(broker: &Broker) -> (String, String) {
    let topic = broker.topic("keys", 1, &["cleanup.policy=compact"]);
    let section = format!(
        "[tables.keys]\nkind = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{topic}\"\nformat = \"json-upsert\"\n",
        broker.addresses()
    );
    (topic, section)
}

/// The value of a message that gives a key to a subscription, in force before any call.
fn owned(key: &str, subscription: &str) -> String {
    format!(r#"{{"key_id":"{key}","subscription":"{subscription}","valid_from":"2025-01-01T00:00:00Z"}}"#)
}

#[test]
fn topics_of_rows_are_made_compacted_and_those_of_records_are_not() {
    let broker = Broker::shared("policies");
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    Running::started(&job).stop();
    let described = broker.tool(&["configs", "--describe", "--all", "--entity-type", "topics"], "");
    let mut policies = BTreeMap::new();
    let mut view = None;
    for line in described.lines() {
        if let Some(rest) =
            line.trim().split("configs for ").nth(1).and_then(|rest| rest.strip_prefix("topic "))
        {
            let of_test = rest.strip_prefix(&format!("{}.", broker.name("out")));
            view = of_test.and_then(|rest| Some(rest.split_once(".v1")?.0.to_owned()));
        } else if let (Some(view), Some(policy)) = (&view, line.trim().strip_prefix("cleanup.policy=")) {
            policies.insert(view.clone(), policy.split(' ').next().unwrap().to_owned());
        }
    }
    let policy = |view: View| if view.is_upsert() { "compact" } else { "delete" };
    let expected: BTreeMap<_, _> =
        View::ALL.into_iter().map(|view| (view.name().to_owned(), policy(view).to_owned())).collect();
    assert_eq!(policies, expected, "{described}");
}

#[test]
fn a_compacted_topic_keeps_the_last_row_of_each_key() {
    let broker = Broker::shared("compaction");
    let topic = broker.topic("calls", 1, &[]);
    let cleaned = ["cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.01"];
    let usage = broker.topic("out.usage.v1", 1, &cleaned);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    let producer = Producer::new(&broker);
    let mut number = 0;
    let mut one_more = |key: &str| {
        producer.send(&topic, 0, None, call(number, &format!("r{number}"), key).as_bytes());
        producer.flush();
        number += 1;
        running.until("the row is published", |running| {
            running.count("keytide_events_total") >= Some(number)
                && running.count("keytide_sink_queued_records") == Some(0)
        });
    };
    for _ in 0..10 {
        one_more("k");
    }
    // The row of the minute is published at every tick; those of longer windows now and then.
    let rows = || {
        let of_minute = |key: &&String| key.contains(r#""key_id":"k","window":"1m""#);
        surviving_keys(&broker, &usage).iter().filter(of_minute).count()
    };
    assert!((1..=10).contains(&rows()));
    // A segment is closed by the next record, and only closed ones are cleaned.
    let deadline = Instant::now() + DEADLINE;
    loop {
        one_more("other");
        if rows() == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{} rows of one key are still there", rows());
    }
    running.stop();
}

#[test]
fn a_topic_that_would_lose_rows_is_refused_with_the_command_that_corrects_it() {
    let broker = Broker::shared("refused");
    let topic = broker.topic("calls", 1, &[]);
    broker.topic("out.usage.v1", 1, &["cleanup.policy=delete"]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let (code, log) = Running::start(&job).end();
    assert_eq!(code, Some(2), "{log}");
    let (_, command) = log.split_once("correct it: kafka-configs.sh ").expect(&log);
    let connected = format!("--bootstrap-server {} ", broker.addresses());
    let command = command.lines().next().unwrap().strip_prefix(&connected).expect(&log);
    let arguments: Vec<&str> = ["configs"].into_iter().chain(command.split_whitespace()).collect();
    broker.tool(&arguments, "");
    Running::started(&job).stop();
}

#[test]
fn missing_topics_that_may_not_be_made_are_named() {
    let broker = Broker::shared("missing");
    let topic = broker.topic("calls", 1, &[]);
    let config =
        config(&broker, &topic, "json", CALLS).replace("[sink.kafka]", "[sink.kafka]\ncreate_topics = false");
    let (code, log) = Running::start(&Job::with_config(&config)).end();
    assert_eq!(code, Some(2), "{log}");
    for view in VIEWS {
        assert!(log.contains(&format!("{}.{view}.v1", broker.name("out"))), "{view}: {log}");
    }
    let topics = broker.tool(&["topic", "--list"], "");
    assert!(!topics.contains(&broker.name("out")), "none was made: {topics}");
}

#[test]
fn rows_of_a_subscription_that_loses_its_key_are_retracted() {
    let broker = Broker::shared("retracted");
    let topic = broker.topic("calls", 1, &[]);
    let (keys, table) = keys_table(&broker);
    broker.produce_keyed(&keys, [("k", Some(&*owned("k", "a"))), ("other", Some(&*owned("other", "c")))]);
    let job = Job::with_config(&config(&broker, &topic, "json", &format!("{CALLS}{table}")));
    let running = Running::started(&job);
    // A minute is booked to its subscription once it is over: the last call, of nobody's key, ends it.
    let calls =
        [call(0, "r0", "k"), call(1, "r1", "k"), call(2, "r2", "other"), call(30 * MINUTE, "r3", "nobody")];
    broker.produce(&topic, &lines(calls));
    // Those of the hour come within half a minute; what wasn't published needn't be retracted.
    running.until("rows of the subscriptions are out", |running| {
        running.count("keytide_sink_records_total{view=\"subscription_usage\"}") >= Some(2)
    });
    let before = running.count("keytide_table_changes_total").unwrap();
    // A key that is deleted and given to somebody in one tick; one that is given and deleted.
    let records =
        [("k", None), ("k", Some(owned("k", "b"))), ("new", Some(owned("new", "d"))), ("new", None)];
    broker.produce_keyed(&keys, records.iter().map(|(key, value)| (*key, value.as_deref())));
    running.until("the table has changed", |running| {
        running.count("keytide_table_changes_total") >= Some(before + 4)
    });
    running.stop();

    let records = broker.records(&results(&broker));
    let rows = &last_values(&records)["subscription_usage"];
    let mut calls: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for row in rows.values() {
        let value = |name: &str| row.iter().find(|(column, _)| column == name).unwrap().1.clone();
        let of = calls.entry(value("subscription").as_str().unwrap().to_owned()).or_default();
        of.insert(value("calls").as_u64().unwrap());
    }
    let expected = BTreeMap::from([("b".to_owned(), [2].into()), ("c".to_owned(), [1].into())]);
    assert_eq!(calls, expected);
    let tombstones = records.iter().filter(|record| record.value.is_none());
    let keys: BTreeSet<_> = tombstones.map(|record| record.key.split(',').next().unwrap()).collect();
    assert_eq!(keys, [r#"{"subscription":"a""#].into(), "nothing else is ever taken back");
}

#[test]
fn a_job_that_starts_again_without_state_counts_the_same_again() {
    let broker = Broker::shared("again");
    let topic = broker.topic("calls", 2, &[]);
    broker.produce(&topic, &lines((0..50).map(|number| call(number, &format!("r{number}"), "k"))));
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let mut found = Vec::new();
    for _ in 0..2 {
        let running = Running::started(&job);
        running.until_count("keytide_events_total", 50);
        running.stop();
        found.push(last_values(&broker.records(&results(&broker))));
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(calls_of_keys(&broker, "1h"), BTreeMap::from([("k".to_owned(), 50)]));
}

#[test]
fn a_partition_that_is_added_is_read_from_its_beginning() {
    let broker = Broker::shared("added");
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    let producer = Producer::new(&broker);
    producer.send(&topic, 0, None, call(0, "r", "k").as_bytes());
    producer.flush();
    running.until_count("keytide_events_total", 1);
    broker.tool(&["topic", "--alter", "--topic", &topic, "--partitions", "3"], "");
    // It is there before the job knows of it.
    let producer = Producer::new(&broker);
    for (partition, number) in (1..3).flat_map(|partition| (0..20).map(move |number| (partition, number))) {
        let line = call(number, &format!("r{partition}-{number}"), "k");
        producer.send(&topic, partition, None, line.as_bytes());
    }
    producer.flush();
    running.until_count("keytide_events_total", 41);
    let log = running.stop();
    assert_eq!(log.matches("found a new partition").count(), 2, "{log}");
    assert_eq!(calls_of_keys(&broker, "1d"), BTreeMap::from([("k".to_owned(), 41)]));
}

#[test]
fn records_of_aborted_transactions_are_not_counted() {
    let broker = Broker::shared("transactions");
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    let producer = Producer::transactional(&broker);
    for (round, key) in ["aborted", "committed", "aborted", "committed"].into_iter().enumerate() {
        producer.begin();
        for number in 0..20 {
            producer.send(&topic, 0, None, call(number, &format!("r{round}-{number}"), key).as_bytes());
        }
        producer.flush();
        if key == "committed" { producer.commit() } else { producer.abort() }
    }
    // This one stays open: what is behind it in the partition isn't committed either.
    producer.begin();
    producer.send(&topic, 0, None, call(0, "open", "open").as_bytes());
    producer.flush();
    running.until_count("keytide_events_total", 40);
    running.stop();
    producer.abort();
    assert_eq!(calls_of_keys(&broker, "1d"), BTreeMap::from([("committed".to_owned(), 40)]));
}

#[test]
fn reading_starts_and_ends_as_configured() {
    let broker = Broker::shared("ranges");
    // Their times make the records older than any retention.
    let topic = broker.topic("calls", 2, &["retention.ms=-1"]);
    let producer = Producer::new(&broker);
    for (partition, number) in (0..2).flat_map(|partition| (0..10).map(move |number| (partition, number))) {
        let line = call(number, &format!("r{partition}-{number}"), &format!("k{partition}"));
        producer.send(&topic, partition, Some(START + number * 1_000), line.as_bytes());
    }
    producer.flush();
    // The records are a year old; those of the sixth second and later.
    let time = r#"start = "2025-06-02T08:00:06Z""#;
    for (start, of_each) in [(time, [4, 4]), ("start = { 0 = 4 }", [6, 10]), (r#"start = "latest""#, [0, 0])]
    {
        let source = config(&broker, &topic, "json", &format!("{start}\n{CALLS}"));
        let source = source.replace("prefix = \"", &format!("prefix = \"{}", of_each[0]));
        let running = Running::started(&Job::with_config(&source));
        // What comes later is read wherever the job started.
        for partition in 0..2 {
            let line = call(60_000, &format!("later-{}-{partition}", of_each[0]), "later");
            producer.send(&topic, partition, Some(START - 1), line.as_bytes());
        }
        producer.flush();
        let sent_later = match of_each {
            [4, 4] => 2,
            [6, 10] => 4,
            _ => 2,
        };
        running.until_count("keytide_events_total", of_each.iter().sum::<u64>() + sent_later);
        running.stop();
    }
    let range = "start = { 0 = 2 }\nend = { 0 = 7, 1 = 3 }\n";
    let job = Job::with_config(&config(&broker, &topic, "json", &format!("{range}{CALLS}")));
    let views = job.views();
    assert_eq!((views.count("events"), views.count("dead_letters")), (8, 0));
    let rows = views.window("usage", "1mo");
    let calls: Vec<_> = rows.iter().map(|row| (row.text("key_id"), row.number("calls"))).collect();
    assert_eq!(calls, [("k0", 5), ("k1", 3)]);
}
