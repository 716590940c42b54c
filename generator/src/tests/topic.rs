//! To a topic, of librdkafka's mock of a broker, and back again by the job's own reader.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use keytide_connectors::file::{Cut, Line as Entry};
use keytide_connectors::kafka::ranges;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;
use crate::TopicTarget;
use crate::write::send::{SendPace, TopicSource, absolute};

const NOW_MS: u64 = 1_800_000_000_000;

struct Broker(MockCluster<'static, DefaultProducerContext>);

impl Broker {
    fn new(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("calls", partitions, 1).unwrap();
        Self(cluster)
    }

    fn args(&self, options: &str) -> GenerateArgs {
        let brokers = self.0.bootstrap_servers();
        typed(&format!("--kafka {brokers} --topic calls {options}"))
    }

    fn send(&self, options: &str) -> Generated {
        let args = self.args(options);
        TopicTarget::open(&args).unwrap().unwrap().run(&args, NOW_MS).unwrap().0
    }
}

/// The lines of each partition, read by the job that the folder describes.
fn read(out: &Path) -> Vec<Vec<String>> {
    let job = JobConfig::load(&out.join("keytide.toml"), std::iter::empty()).unwrap().job;
    let SourceKind::Kafka(source) = &job.sources[0].kind else { panic!("a topic") };
    let cut = Cut { bytes: 1 << 20, lines: 1_000, line_bytes: 1 << 16 };
    let lines = |mut range: keytide_connectors::kafka::Range| {
        let mut lines = Vec::new();
        loop {
            let block = range.next_block(&cut, Vec::new()).unwrap();
            for entry in block.entries() {
                let Ok(Entry::Whole { text, .. }) = entry else { panic!("not a line") };
                lines.push(String::from_utf8(text.to_vec()).unwrap());
            }
            if block.last {
                return lines;
            }
        }
    };
    ranges(source).unwrap().into_iter().map(lines).collect()
}

#[test]
fn a_topic_gets_what_files_get() {
    for options in
        ["--events 1500 --keys 50 --late 0.05 --broken 0.01", "--scenario leaks --leaks 2 --span 6h"]
    {
        let broker = Broker::new(3);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let reported = broker.send(&format!("{options} --out {}", out.display()));
        let (of_files, files) = generated(&format!("{options} --partitions 3"));
        assert_eq!(reported, of_files);
        let written: Vec<Vec<String>> = (0..3)
            .map(|partition| {
                text(&files, &format!("/events-{partition:04}.jsonl")).lines().map(str::to_owned)
            })
            .map(Iterator::collect)
            .collect();
        assert!(read(&out) == written, "{options}");
        let others = |mut files: BTreeMap<String, Vec<u8>>| {
            files.retain(|name, _| !name.starts_with("/events") && name != "/keytide.toml");
            files
        };
        assert!(others(contents(&out)) == others(files), "{options}");
    }
}

#[test]
fn calls_happen_now_at_the_rate_asked_for() {
    let broker = Broker::new(1);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let options = "--start now --rate 200000 --span 10ms --out-of-order 0 --duplicates 0";
    let reported = broker.send(&format!("{options} --out {}", out.display()));
    assert_eq!(reported.events, 2_000);
    let times: Vec<u64> = read(&out)[0]
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["requestTime"].as_u64().unwrap())
        .collect();
    assert_eq!(times.len(), 2_000);
    assert!(times.is_sorted() && times[0] == NOW_MS && times[1_999] == NOW_MS + 9, "{times:?}");
    assert_eq!(times.iter().filter(|time| **time == NOW_MS + 4).count(), 200);
}

#[test]
fn how_long_it_takes_follows_from_the_rate() {
    let settings = |options: &str| {
        let options = format!("--kafka 127.0.0.1:1 --topic t --start now {options}");
        typed(&options).settings(NOW_MS, Some(5_000))
    };
    for (options, span_ms, events) in [
        ("--rate 50", 3_600_000, 180_000),
        ("--rate 50 --days 2", 172_800_000, 8_640_000),
        ("--rate 50 --events 75", 1_500, 75),
        ("--rate 1 --span 1ms", 1, 1),
        ("--rate 10000000 --days 366", 31_622_400_000, 316_224_000_000_000),
    ] {
        let settings = settings(options).unwrap();
        assert_eq!((settings.start_ms, settings.span_ms, settings.events.get()), (NOW_MS, span_ms, events));
        assert_eq!(settings.partitions, 1_024);
    }
    for (options, says) in [
        ("", "--rate N"),
        ("--rate max", "--rate N"),
        ("--rate 5 --events 5 --span 5s", "leave out"),
        ("--rate 1 --events 40000000", "366 days"),
    ] {
        let error = settings(options).unwrap_err().to_string();
        assert!(error.contains(says), "{options}: {error}");
    }
}

#[test]
fn lines_are_due_evenly_or_when_they_arrive() {
    let ms = |pace: SendPace, sent, at_ms| pace.due(sent, at_ms).map(|due| due.as_micros());
    assert_eq!(ms(SendPace::Max, 5, 5), None);
    assert_eq!(ms(SendPace::Even { per_s: 3 }, 0, 7), Some(0));
    assert_eq!(ms(SendPace::Even { per_s: 3 }, 10, 7), Some(3_333_333));
    assert_eq!(ms(SendPace::Live { start_ms: 1_000 }, 9, 1_750), Some(750_000));
    assert_eq!(ms(SendPace::Live { start_ms: 1_000 }, 9, 900), Some(0));
}

#[test]
fn a_stopped_run_sends_the_delayed_calls_and_reports_the_counts() {
    let broker = Broker::new(2);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // At this rate it would take days, but for the first line.
    let args =
        broker.args(&format!("--scenario leaks --span 60h --start now --rate 1 --out {}", out.display()));
    let target = TopicTarget::open(&args).unwrap().unwrap();
    target.stop().store(true, Ordering::Relaxed);
    let (reported, _) = target.run(&args, NOW_MS).unwrap();
    let lines: usize = read(&out).iter().map(Vec::len).sum();
    assert!(reported.events >= 1 && reported.lines < 10 && reported.lines == lines as u64, "{reported:?}");
    let files = contents(&out);
    assert_eq!(text(&files, "/labels.jsonl"), "", "no leak had begun");
    assert_eq!(serde_json::to_string_pretty(&reported).unwrap() + "\n", text(&files, "/generated.json"));
}

#[test]
fn settings_reach_the_job_where_they_concern_its_connection() {
    let broker = Broker::new(1);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    broker.send(&format!(
        "--events 1 --out {} --librdkafka client.id=mine --librdkafka acks=1 --librdkafka compression.codec=zstd",
        out.display()
    ));
    let job = JobConfig::load(&out.join("keytide.toml"), std::iter::empty()).unwrap().job;
    let SourceKind::Kafka(source) = &job.sources[0].kind else { panic!("a topic") };
    let names: Vec<_> = source.client.settings.keys().collect();
    assert_eq!(names, ["client.id"]);
    assert!(job.sinks.files.is_some());

    let source = |name: &str, value: &str| TopicSource {
        brokers: "127.0.0.1:1".to_owned(),
        topic: "calls".to_owned(),
        librdkafka: vec![(name.to_owned(), value.to_owned())],
    };
    let folder = std::env::current_dir().unwrap();
    for (name, value, written) in [
        ("ssl.ca.location", "ca.pem", folder.join("ca.pem").display().to_string()),
        ("ssl.ca.location", "probe", "probe".to_owned()),
        ("sasl.password", "file:secret", format!("file:{}", folder.join("secret").display())),
        ("sasl.password", "env:SECRET", "env:SECRET".to_owned()),
    ] {
        let (name, value) = absolute(&(name.to_owned(), value.to_owned())).unwrap();
        assert_eq!(value, written);
        assert!(source(&name, &value).configuration(&WorldSettings::DEFAULT, false).contains(&written));
    }
}

#[test]
fn settings_that_are_refused_are_named_without_their_values() {
    let broker = Broker::new(1);
    let error = |options: &str| {
        let error = TopicTarget::open(&broker.args(options)).err().unwrap();
        format!("{error:#} {error:?}")
    };
    for (options, says) in [
        ("--librdkafka sasl.password=hunter2-canary", "env:NAME"),
        ("--librdkafka group.id=canary", "group.id"),
        ("--librdkafka no.such.setting=canary", "no.such.setting"),
    ] {
        let text = error(options);
        assert!(text.contains(says) && !text.contains("canary"), "{text}");
    }
}
