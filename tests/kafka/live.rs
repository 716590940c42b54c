//! A live job as its operator has it: a configuration, a process, its log, its metrics, its topics.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Record};
use crate::harness::{Job, Row, path, repository};

/// How long a test waits for anything; a machine that is busy with others may need most of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);
/// How long a look at a condition waits for the job to say something.
const LOOK_AROUND: Duration = Duration::from_millis(50);

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

/// A process that runs a job.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    told: RefCell<String>,
}

impl Running {
    /// Starts `keytide run` with the job's configuration.
    pub(crate) fn start(job: &Job) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keytide"))
            .args(["run", path(&job.path("keytide.toml"))])
            .env_clear()
            .current_dir(repository())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, told: RefCell::default() }
    }

    /// Starts it and waits until its metrics can be asked for.
    pub(crate) fn started(job: &Job) -> Self {
        let running = Self::start(job);
        running.until("it serves metrics", |running| running.address().is_some());
        running
    }

    /// What the process logged so far.
    pub(crate) fn log(&self) -> String {
        while let Ok(line) = self.lines.try_recv() {
            self.tell(&line);
        }
        self.told.borrow().clone()
    }

    fn tell(&self, line: &str) {
        let mut told = self.told.borrow_mut();
        told.push_str(line);
        told.push('\n');
    }

    /// Waits for a condition, under a deadline. That the process ends is the end of waiting, too.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            match self.lines.recv_timeout(LOOK_AROUND) {
                Ok(line) => self.tell(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    assert!(condition(self), "{what}: the job ended before\n{}", self.log());
                    return;
                }
            }
            assert!(
                started.elapsed() < DEADLINE,
                "{what}: not within {DEADLINE:?}\n{}\n{:#?}",
                self.log(),
                self.metrics()
            );
        }
    }

    fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once("serves http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    }

    /// Its metrics, by name and labels; none while it can't be asked.
    pub(crate) fn metrics(&self) -> BTreeMap<String, String> {
        let Some(address) = self.address() else { return BTreeMap::new() };
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

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "{name}");
    }

    /// Waits until it ended; its exit code (none after a signal) and what it logged.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.tell(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it doesn't end\n{}", self.log()),
            }
        }
        (self.child.wait().unwrap().code(), self.log())
    }

    /// Tells it to end, and expects that it does so well; what it logged.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a view holds, by the key's columns: the last value, without what says how far the window is.
pub(crate) type Held = BTreeMap<String, Vec<(String, serde_json::Value)>>;

/// The last values in the results' topics, by view.
pub(crate) fn held(records: &[Record]) -> BTreeMap<&'static str, Held> {
    let mut views: BTreeMap<_, Held> = BTreeMap::new();
    for record in records {
        let held = views.entry(record.view()).or_default();
        match &record.value {
            Some(value) => held.insert(record.key.clone(), meters(&Row::parse(value))),
            None => held.remove(&record.key),
        };
    }
    views
}

/// Calls by key, of windows of one width, as the topic of `usage` has them.
pub(crate) fn calls_of_keys(broker: &Broker, window: &str) -> BTreeMap<String, u64> {
    let records = broker.records(&format!("{}\\.usage\\.v1", broker.name("out")));
    let mut calls = BTreeMap::new();
    for row in held(&records).remove("usage").unwrap_or_default().into_values() {
        let row = Row(row);
        if row.text("window") == window {
            *calls.entry(row.text("key_id").to_owned()).or_default() += row.number("calls");
        }
    }
    calls
}

/// A row without the columns that say how far its window is: a bounded run closes all it can.
pub(crate) fn meters(row: &Row) -> Vec<(String, serde_json::Value)> {
    let said = |column: &str| column != "complete" && column != "final";
    row.0.iter().filter(|(column, _)| said(column)).cloned().collect()
}

/// A finished replay's rows of a view, as [`held`] has them.
pub(crate) fn replayed(rows: Vec<Row>, key: &[String]) -> Held {
    let key_text = |row: &Row| {
        let columns = key.iter().map(|column| format!("\"{column}\":{}", row.get(column)));
        format!("{{{}}}", columns.collect::<Vec<_>>().join(","))
    };
    rows.iter().map(|row| (key_text(row), meters(row))).collect()
}
