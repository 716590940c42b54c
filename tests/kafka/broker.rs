//! The session's broker, a test's topics on it, and Kafka's own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio, id};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use keytide_config::View;
use serde_json::{Map, Value};

use crate::harness::{read_text, repository};

/// Tests that use the broker share it; one that ends or freezes it has it to itself.
static BROKER: RwLock<()> = RwLock::new(());

/// The broker, as one test has it.
pub(crate) struct Broker {
    test: String,
    addresses: String,
    control: String,
    turn: Turn,
}

enum Turn {
    Shared { _turn: RwLockReadGuard<'static, ()> },
    Alone { _turn: RwLockWriteGuard<'static, ()> },
}

/// A record as Kafka's console consumer shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) headers: BTreeMap<String, String>,
    /// JSON.
    pub(crate) key: String,
    /// JSON; nothing in a tombstone.
    pub(crate) value: Option<String>,
}

impl Record {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"))
    }

    /// A line of the console consumer.
    fn parse(line: &str) -> Self {
        let parts: Vec<&str> = line.split('\t').collect();
        let [headers, key, value] = parts[..] else { panic!("the console consumer says {line}") };
        let header = |header: &str| {
            let (name, value) = header.split_once(':').unwrap_or_else(|| panic!("a header of {line}"));
            (name.to_owned(), value.to_owned())
        };
        let headers = if headers == "NO_HEADERS" { "" } else { headers };
        Self {
            headers: headers.split('\u{1f}').filter(|header| !header.is_empty()).map(header).collect(),
            key: key.to_owned(),
            value: (value != "NULL").then(|| value.to_owned()),
        }
    }

    /// The view it belongs to: that of its key columns whose schema lists its other columns.
    pub(crate) fn view(&self) -> &'static str {
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let (key, value) = (object(&self.key), object(self.value.as_deref().unwrap_or("{}")));
        let is_of = |view: &View| {
            view.key().len() == key.len()
                && view.key().iter().all(|column| key.contains_key(*column))
                && value.keys().all(|column| columns(*view).contains(column))
        };
        let view = View::ALL.into_iter().find(is_of);
        view.unwrap_or_else(|| panic!("{self:?} belongs to no view")).name()
    }
}

/// The columns of a view's schema.
fn columns(view: View) -> &'static BTreeSet<String> {
    static COLUMNS: LazyLock<[BTreeSet<String>; View::ALL.len()]> = LazyLock::new(|| {
        View::NAMES.map(|view| {
            let schema = repository().join(format!("schemas/{view}.v1.schema.json"));
            let schema: Value = serde_json::from_str(&read_text(&schema)).unwrap();
            schema["properties"].as_object().unwrap().keys().cloned().collect()
        })
    });
    &COLUMNS[view as usize]
}

impl Broker {
    /// For a test that leaves the broker alone; its topics' names begin with `test`.
    pub(crate) fn shared(test: &str) -> Self {
        let turn = BROKER.read().unwrap_or_else(PoisonError::into_inner);
        Self::new(test, Turn::Shared { _turn: turn })
    }

    /// For a test that ends or freezes the broker.
    pub(crate) fn alone(test: &str) -> Self {
        let turn = BROKER.write().unwrap_or_else(PoisonError::into_inner);
        Self::new(test, Turn::Alone { _turn: turn })
    }

    fn new(test: &str, turn: Turn) -> Self {
        let variable =
            |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/kafka/run.sh"));
        // The process tells two runs on one broker apart.
        let test = format!("{test}-{}", id());
        let (addresses, control) = (variable("KEYTIDE_TEST_BROKERS"), variable("KEYTIDE_TEST_KAFKA"));
        Self { test, addresses, control, turn }
    }

    /// Its address, as a client wants it.
    pub(crate) fn addresses(&self) -> &str {
        &self.addresses
    }

    /// The name of a topic of the test's own.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.test)
    }

    /// Runs a command of the session or one of Kafka's tools to its good end; what it printed.
    pub(crate) fn tool(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(&self.control)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && written.is_ok(), "{arguments:?}: {}\n{told}", output.status);
        // The producer's tool ends well whatever became of its records.
        assert!(!told.contains("ERROR"), "{arguments:?}\n{told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a topic; its name.
    pub(crate) fn topic(&self, what: &str, partitions: u32, settings: &[&str]) -> String {
        let (name, partitions) = (self.name(what), partitions.to_string());
        let mut arguments = vec!["topic", "--create", "--topic", &name, "--partitions", &partitions];
        arguments.extend(settings.iter().flat_map(|setting| ["--config", setting]));
        self.tool(&arguments, "");
        name
    }

    /// Sends lines without keys.
    pub(crate) fn produce(&self, topic: &str, lines: &str) {
        self.tool(&["console-producer", "--topic", topic], lines);
    }

    /// Sends records with keys; nothing is a tombstone.
    pub(crate) fn produce_keyed<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) {
        let line = |(key, value): (&str, Option<&str>)| format!("{key}\t{}\n", value.unwrap_or("NULL"));
        let lines: String = records.into_iter().map(line).collect();
        let keyed = ["--property", "parse.key=true", "--property", "null.marker=NULL"];
        self.tool(&[&["console-producer", "--topic", topic][..], &keyed].concat(), &lines);
    }

    /// By topic and partition, the offset behind the last record (or that of the first) of all topics whose name
    /// fits a regular expression.
    pub(crate) fn offsets(&self, topics: &str, first: bool) -> BTreeMap<(String, u32), u64> {
        let time = if first { "-2" } else { "-1" };
        let told = self.tool(&["offsets", "--topic-partitions", topics, "--time", time], "");
        let offset = |line: &str| {
            let mut parts = line.rsplitn(3, ':');
            let offset = parts.next()?.parse().ok()?;
            let partition = parts.next()?.parse().ok()?;
            Some(((parts.next()?.to_owned(), partition), offset))
        };
        told.lines()
            .map(|line| offset(line).unwrap_or_else(|| panic!("GetOffsetShell says {line}")))
            .collect()
    }

    /// All records of all topics whose name fits a regular expression; none of them may be gone or belong to a
    /// transaction. In the order of their offsets within a partition.
    pub(crate) fn records(&self, topics: &str) -> Vec<Record> {
        let number = self.offsets(topics, false).values().sum::<u64>().to_string();
        if number == "0" {
            return Vec::new();
        }
        let all = ["--include", topics, "--from-beginning", "--max-messages", &number];
        let shown = ["headers", "key", "value"].map(|part| format!("print.{part}=true"));
        let shape = ["key.separator=\t", "headers.separator=\u{1f}", "null.literal=NULL"];
        let mut arguments = [&["console-consumer"][..], &all].concat();
        for property in shown.iter().map(String::as_str).chain(shape) {
            arguments.extend(["--property", property]);
        }
        let records: Vec<_> = self.tool(&arguments, "").lines().map(Record::parse).collect();
        assert_eq!(records.len().to_string(), number, "{topics}");
        records
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if matches!(self.turn, Turn::Alone { .. }) {
            // Where the test failed, those that follow need it nevertheless.
            for command in ["resume", "start"] {
                let _ = Command::new(&self.control).arg(command).status();
            }
        }
    }
}
