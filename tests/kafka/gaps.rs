//! Records that are gone before they were read, and topics that are.

use std::collections::BTreeMap;
use std::fs;

use crate::broker::Broker;
use crate::harness::{Job, call, path};
use crate::live::{CALLS, Running, calls_of_keys, config, results};
use crate::producer::Producer;

/// A job that stands at offset 100 or a little later of partition 0, frozen, while all records before 200 are gone;
/// 300 were sent.
fn passed_by_retention(broker: &Broker, on_gap: &str) -> Running {
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(broker, &topic, "json", &format!("on_gap = \"{on_gap}\"\n{CALLS}")));
    let running = Running::started(&job);
    let producer = Producer::new(broker);
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            producer.send(&topic, 0, None, call(number, &format!("r{number}"), "k").as_bytes());
        }
        producer.flush();
    };
    send(0..100);
    running.until_count("keytide_events_total", 100);
    running.signal("STOP");
    // A request that it sent before may still be answered with these.
    send(100..101);
    send(101..300);
    let file = job.path("delete.json");
    let partition = format!(r#"{{"topic":"{topic}","partition":0,"offset":200}}"#);
    fs::write(&file, format!(r#"{{"partitions":[{partition}],"version":1}}"#)).unwrap();
    broker.tool(&["delete-records", "--offset-json-file", path(&file)], "");
    let first = broker.offsets(&topic, true).into_values().collect::<Vec<_>>();
    assert_eq!(first, [200]);
    running.signal("CONT");
    running
}

/// The first offset that is gone, from what is said of it.
fn wanted(text: &str) -> u64 {
    let (_, rest) = text.split_once("offset ").unwrap_or_else(|| panic!("no offset in {text}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn a_job_that_retention_passed_ends_and_names_the_offsets() {
    let broker = Broker::shared("gap-stop");
    let (code, log) = passed_by_retention(&broker, "stop").end();
    assert_eq!(code, Some(3), "{log}");
    let told = log.lines().find(|line| line.starts_with("error: ")).expect(&log);
    assert!(told.contains(&broker.name("calls")) && told.contains("200"), "{told}");
    let wanted = wanted(told);
    assert!((100..=101).contains(&wanted), "{told}");
    // What was read before is published.
    assert_eq!(calls_of_keys(&broker, "1d"), BTreeMap::from([("k".to_owned(), wanted)]));
}

#[test]
fn a_job_that_skips_gaps_goes_on_with_a_dead_letter() {
    let broker = Broker::shared("gap-skip");
    let running = passed_by_retention(&broker, "skip");
    running.until_count("keytide_events_total", 200);
    running.until_count("keytide_gaps_total", 1);
    running.stop();
    let records = broker.records(&results(&broker));
    let letters: Vec<_> = records.iter().filter(|record| record.view() == "dead_letters").collect();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = letters[0].value.as_deref().unwrap();
    assert!(letter.contains("gap: "), "{letter}");
    let wanted = wanted(letter);
    assert!((100..=101).contains(&wanted), "{letter}");
    assert_eq!(letters[0].header("__connect.errors.offset"), wanted.to_string());
    assert_eq!(calls_of_keys(&broker, "1d"), BTreeMap::from([("k".to_owned(), 100 + wanted)]));
}

#[test]
fn a_job_whose_topic_is_deleted_ends_and_names_it() {
    let broker = Broker::shared("deleted");
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    broker.produce(&topic, &format!("{}\n", call(0, "r", "k")));
    running.until_count("keytide_events_total", 1);
    broker.tool(&["topic", "--delete", "--topic", &topic], "");
    let (code, log) = running.end();
    let told = log.lines().find(|line| line.starts_with("error: ")).expect(&log);
    assert!(told.contains(&topic), "{told}");
    assert_eq!(code, Some(2), "{told}");
    assert_eq!(calls_of_keys(&broker, "1d"), BTreeMap::from([("k".to_owned(), 1)]));
}
