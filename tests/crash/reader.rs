//! Reads the results as a subscriber does: only what was committed, from the beginning, while the job lives and dies.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keytide_config::View;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Map, Value};

use super::oracle::{Seen, SeenRow, SeenTick};
use crate::broker::Broker;
use crate::harness::{DEADLINE, read_text};

/// How long a poll waits for a record.
const POLL: Duration = Duration::from_millis(100);

/// The topic of progress, beside those of the views.
pub(super) fn progress_topic(prefix: &str) -> String {
    format!("{prefix}.progress.v1")
}

/// Returns the partitions of the topics with a prefix that are there.
pub(super) fn partitions(broker: &Broker, prefix: &str) -> Vec<(String, i32)> {
    let metadata = consumer(broker, false).fetch_metadata(None, DEADLINE).unwrap();
    let topics = metadata.topics().iter().filter(|topic| topic.name().starts_with(&format!("{prefix}.")));
    topics
        .flat_map(|topic| {
            topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id()))
        })
        .collect()
}

fn consumer(broker: &Broker, ends: bool) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.addresses())
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", if ends { "true" } else { "false" })
        .create()
        .unwrap()
}

/// Follows all topics from their beginning. Once `is_enough`, it reads on to their ends.
///
/// A record of progress may be compacted away later, so it is read while it is new.
pub(super) fn follow(
    broker: &Broker,
    prefix: &str,
    partitions: &[(String, i32)],
    is_enough: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let mut next: BTreeMap<(String, i32), i64> =
        partitions.iter().map(|partition| (partition.clone(), 0)).collect();
    let following = consumer(broker, false);
    assign(&following, &next, |_| true);
    while !is_enough.load(Ordering::Acquire) {
        // While the broker is away there is an error, and the client goes on by itself.
        if let Some(Ok(record)) = following.poll(POLL) {
            take(&record, prefix, &mut seen, &mut next);
        }
    }
    drop(following);
    // An end names its partition alone, so topics come one after the other.
    let mut topics: Vec<&String> = partitions.iter().map(|(topic, _)| topic).collect();
    topics.dedup();
    for topic in topics {
        let finishing = consumer(broker, true);
        assign(&finishing, &next, |of| of == topic);
        let mut left = partitions.iter().filter(|(of, _)| of == topic).count();
        while left > 0 {
            match finishing.poll(DEADLINE).expect("the broker answers") {
                Ok(record) => take(&record, prefix, &mut seen, &mut next),
                Err(KafkaError::PartitionEOF(_)) => left -= 1,
                Err(error) => panic!("{topic}: {error}"),
            }
        }
    }
    seen
}

fn assign(consumer: &BaseConsumer, next: &BTreeMap<(String, i32), i64>, has: impl Fn(&str) -> bool) {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in next.iter().filter(|((topic, _), _)| has(topic)) {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    consumer.assign(&list).unwrap();
}

fn take(
    record: &BorrowedMessage<'_>,
    prefix: &str,
    seen: &mut Seen,
    next: &mut BTreeMap<(String, i32), i64>,
) {
    let topic = record.topic();
    next.insert((topic.to_owned(), record.partition()), record.offset() + 1);
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let value = text(record.payload());
    if topic == progress_topic(prefix) {
        if let Some(tick) = value.as_deref().and_then(SeenTick::parse) {
            seen.tick(tick);
        }
        return;
    }
    let header = |name: &str| {
        let headers = record.headers().unwrap();
        let header = headers.iter().find(|header| header.key == name).unwrap();
        String::from_utf8(header.value.unwrap().to_vec()).unwrap()
    };
    let view = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".v1"));
    seen.row(SeenRow {
        view: view.and_then(View::named).unwrap_or_else(|| panic!("{topic} is of no view")),
        topic: topic.to_owned(),
        tick: header("keytide-tick").parse().unwrap(),
        id: Some(u128::from_str_radix(&header("keytide-id"), 16).unwrap()),
        key: text(record.key()).unwrap(),
        value,
    });
}

/// Reads the files of a folder, as lines of JSON.
pub(super) fn files(folder: &Path) -> Seen {
    let mut seen = Seen::default();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let view = name.rsplit_once('-').and_then(|(view, _)| View::named(view)).unwrap();
        for line in read_text(file).lines() {
            let row: Map<String, Value> = serde_json::from_str(line).unwrap();
            let number = |column: &str| row[column].as_u64().unwrap();
            seen.version(view, number("version"));
            let key: Map<String, Value> =
                view.key().iter().map(|column| ((*column).to_owned(), row[*column].clone())).collect();
            let is_retracted = row.get("retracted") == Some(&Value::Bool(true));
            seen.row(SeenRow {
                view,
                topic: view.name().to_owned(),
                tick: number("tick"),
                id: None,
                key: Value::from(key).to_string(),
                value: (!is_retracted).then(|| line.to_owned()),
            });
        }
    }
    seen
}
