//! A live job as its operator sees it: a configuration, a process, its log, its metrics, its topics.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::broker::{Broker, Record};
use crate::harness::{DEADLINE, Job, LiveProcess, Row};

/// Fields of the records that [`call`](crate::harness::call) makes, and how keys are named in them.
pub(crate) const CALLS: &str =
    concat!("[keys]\nfrom = [\"key\"]\nhash = \"none\"\n\n", include_str!("../harness/fields.toml"),);

/// The configuration of a job that reads one topic. No partition becomes idle while a test lasts: event time is
/// that of the records alone, whenever they are sent. So none may be ahead of others by more than the skew, as the
/// job would wait for those.
pub(crate) fn config(broker: &Broker, topic: &str, format: &str, more_of_source: &str) -> String {
    let brokers = broker.addresses();
    let prefix = broker.name("out");
    format!(
        r#"
[job]
tick = "100ms"
workers = 2
reload = "1s"

[windows]
idle_ticks = 1000
skew = "1h"

[http]
listen = "127.0.0.1:0"

[sink.kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 2

[[source]]
name = "gateway"
kind = "kafka"
brokers = "{brokers}"
topic = "{topic}"
format = "{format}"
{more_of_source}
"#
    )
}

/// The results' topics of a test, as a regular expression.
pub(crate) fn results(broker: &Broker) -> String {
    format!("{}\\.[a-z_]+\\.v1", broker.name("out"))
}

/// A process that runs a job, with its metrics.
pub(crate) struct Running(LiveProcess);

impl Running {
    /// Starts `keytide run` with the job's configuration.
    pub(crate) fn start(job: &Job) -> Self {
        Self::start_with(job, &[])
    }

    /// Starts it with an environment, which holds secrets.
    pub(crate) fn start_with(job: &Job, env: &[(&str, &str)]) -> Self {
        Self(LiveProcess::start(&job.path("keytide.toml"), env))
    }

    /// Returns the address at which it serves metrics, once its log has it.
    pub(crate) fn address(&self) -> Option<String> {
        self.0.address()
    }

    /// Starts it and waits until the job runs, so that topics are made and it is known from where they are read.
    pub(crate) fn started(job: &Job) -> Self {
        let running = Self::start(job);
        running.until("the job runs", Self::runs);
        running
    }

    /// Returns whether its start is over. Metrics are served before.
    pub(crate) fn runs(&self) -> bool {
        self.log().contains(" INFO the job runs ")
    }

    /// Returns whether it leads the newest generation of its cluster of which its log knows.
    pub(crate) fn leads(&self) -> bool {
        self.0.leads()
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.0.log()
    }

    /// Waits for a condition until the deadline or the end of the process.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let found = self.0.find(what, || condition(self).then_some(()));
        found.unwrap_or_else(|problem| panic!("{problem}\n{:#?}", self.metrics()));
    }

    /// Its metrics, by name and labels; none while it can't be asked.
    pub(crate) fn metrics(&self) -> BTreeMap<String, String> {
        let Some(address) = self.0.address() else { return BTreeMap::new() };
        let ask = || {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.take(16 << 20).read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        };
        let answer = ask().unwrap_or_default();
        let lines = answer.lines().filter(|line| line.starts_with("keytide_"));
        let metric =
            |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
        lines.filter_map(metric).collect()
    }

    /// A metric that counts, summed over its labels; nothing while there is none.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        let named =
            |full: &str| full == name || full.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let metrics = self.metrics();
        let counts = metrics.iter().filter(|(full, _)| named(full)).map(|(_, value)| value.parse::<u64>());
        counts
            .map(|count| count.unwrap_or_else(|_| panic!("{name} is no count")))
            .reduce(|sum, count| sum + count)
    }

    /// Waits until a metric that counts is at least so much.
    pub(crate) fn until_count(&self, name: &str, least: u64) {
        self.until(&format!("{name} is {least}"), |running| running.count(name) >= Some(least));
    }

    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.0.signal(name);
    }

    /// Sends it a signal again and again until it ended; returns its exit code and its log.
    pub(crate) fn signalled_to_its_end(self, name: &str) -> (Option<i32>, String) {
        let look = || {
            self.0.signal(name);
            None::<()>
        };
        let problem = self.0.find("its end", look).unwrap_err();
        assert!(problem.contains("ended before"), "{problem}");
        self.0.end()
    }

    /// Returns whether it ends before a condition holds.
    pub(crate) fn ends_before(&self, condition: impl Fn() -> bool) -> bool {
        match self.0.find("the condition", || condition().then_some(())) {
            Ok(()) => false,
            Err(problem) => {
                assert!(problem.contains("ended before"), "{problem}");
                true
            }
        }
    }

    /// Waits until it ended; returns its exit code (none after a signal) and its log.
    pub(crate) fn end(self) -> (Option<i32>, String) {
        self.0.end()
    }

    /// Ends it by SIGTERM, expects exit code 0, and returns its log.
    pub(crate) fn stop(self) -> String {
        self.0.stop()
    }
}

/// What a view holds, by the key's columns: the last value, without what says how far the window is.
pub(crate) type LastValues = BTreeMap<String, Vec<(String, serde_json::Value)>>;

/// The last values in the results' topics, by view.
pub(crate) fn last_values(records: &[Record]) -> BTreeMap<&'static str, LastValues> {
    let mut views: BTreeMap<_, LastValues> = BTreeMap::new();
    for record in records {
        let rows = views.entry(record.view()).or_default();
        match &record.value {
            Some(value) => rows.insert(record.key.clone(), meters(&Row::parse(value))),
            None => rows.remove(&record.key),
        };
    }
    views
}

/// Calls by key, of windows of one width, as the topic of `usage` has them.
pub(crate) fn calls_of_keys(broker: &Broker, window: &str) -> BTreeMap<String, u64> {
    let records = broker.records(&format!("{}\\.usage\\.v1", broker.name("out")));
    let mut calls = BTreeMap::new();
    for row in last_values(&records).remove("usage").unwrap_or_default().into_values() {
        let row = Row(row);
        if row.text("window") == window {
            *calls.entry(row.text("key_id").to_owned()).or_default() += row.number("calls");
        }
    }
    calls
}

/// A row without the columns that say how far its window is: a bounded run closes all it can.
pub(crate) fn meters(row: &Row) -> Vec<(String, serde_json::Value)> {
    let is_value = |column: &str| column != "complete" && column != "final";
    row.0.iter().filter(|(column, _)| is_value(column)).cloned().collect()
}

/// A finished replay's rows of a view, as [`last_values`] has them.
pub(crate) fn replayed(rows: Vec<Row>, key: &[String]) -> LastValues {
    let key_text = |row: &Row| {
        let columns = key.iter().map(|column| format!("\"{column}\":{}", row.get(column)));
        format!("{{{}}}", columns.collect::<Vec<_>>().join(","))
    };
    rows.iter().map(|row| (key_text(row), meters(row))).collect()
}
