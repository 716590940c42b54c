//! `[tables.*]`: the relations that calls are joined with.

use super::kafka::{Brokers, KafkaClient, Role, Settings};
use super::prelude::*;
use super::topic::TopicName;

section! {
    /// `[tables.*]`.
    #[derive(Clone, Debug)]
    pub struct Tables, RawTables then idle {
        /// Keys and who owns them.
        results keys: Option<TableSource> = keys(RawTable) or None;
        /// Subscriptions, which keys refer to.
        results subscriptions: Option<TableSource> = subscriptions(RawTable) or None;
        /// Plans, which subscriptions refer to.
        results plans: Option<TableSource> = plans(RawTable) or None;
        /// Reports of leaked keys.
        results leaks: Option<TableSource> = leaks(RawTable) or None;
    }
}

keys! {
    /// `[tables.*]`.
    RawTable {
        kind: TableKind,
        path: PathText,
        brokers: Brokers,
        topic: TopicName,
        librdkafka: Settings,
        format: RowFormat,
    }
}

/// Where a table comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableSource {
    /// A file; a live job watches it.
    File {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: TableFormat,
    },
    /// A Kafka topic, read from its beginning.
    Kafka {
        /// How its brokers are reached.
        client: KafkaClient,
        /// The topic.
        topic: String,
        /// Its records' format.
        format: TopicFormat,
    },
}

choice! {
    /// `kind` of a `[tables.*]`.
    pub(crate) enum TableKind {
        File = "file",
        Kafka = "kafka",
    }
}

choice! {
    /// A table file's format.
    pub enum TableFormat {
        /// CSV with a header line.
        Csv = "csv",
        /// One JSON object per line.
        Jsonl = "jsonl",
    }
}

choice! {
    /// The format of a table topic's records.
    pub enum TopicFormat {
        /// Compacted upserts: the value is the row as a JSON object, null deletes the row of the record's key.
        JsonUpsert = "json-upsert",
        /// Debezium's change events, as JSON, with or without a schema.
        Debezium = "debezium",
    }
}

/// `format` of a `[tables.*]`; which of them are allowed depends on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    File(TableFormat),
    Topic(TopicFormat),
}

impl Choice for RowFormat {
    const ALL: &'static [Self] = &[
        Self::File(TableFormat::Csv),
        Self::File(TableFormat::Jsonl),
        Self::Topic(TopicFormat::JsonUpsert),
        Self::Topic(TopicFormat::Debezium),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::File(format) => format.name(),
            Self::Topic(format) => format.name(),
        }
    }
}

impl RawTables {
    fn idle(spot: &Spot<Self>, _: &mut Tables, check: &mut Check<'_>) {
        let Self { keys, subscriptions, plans, leaks: _ } = &spot.value;
        for (table, entry, needed, missing) in [
            ("subscriptions", subscriptions, "keys", keys.is_absent()),
            ("plans", plans, "subscriptions", subscriptions.is_absent()),
        ] {
            if let Some(spot) = entry.given().filter(|_| missing) {
                check.warn(spot, format!("has no effect: without tables.{needed} nothing refers to {table}"));
            }
        }
    }

    /// The topics of all tables that have one.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Spot<TopicName>> {
        let Self { keys, subscriptions, plans, leaks } = self;
        [keys, subscriptions, plans, leaks].into_iter().filter_map(|table| table.value()?.topic.given())
    }
}

impl Gives<TableSource> for RawTable {
    fn give(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<TableSource> {
        let raw = &spot.value;
        let kind = check.required(&raw.kind, spot, "kind").copied();
        let format = check.required(&raw.format, spot, "format");
        match kind? {
            TableKind::File => {
                check.foreign(&raw.brokers, "kafka");
                check.foreign(&raw.topic, "kafka");
                check.foreign(&raw.librdkafka, "kafka");
                let path = check.required(&raw.path, spot, "path").map(|path| check.base.join(&path.0));
                let format = match format? {
                    RowFormat::File(format) => Some(*format),
                    RowFormat::Topic(_) => wrong_format(&raw.format, "file", TableFormat::ALL, check),
                };
                Some(TableSource::File { path: path?, format: format? })
            }
            TableKind::Kafka => {
                check.foreign(&raw.path, "file");
                let client = KafkaClient::read(&raw.brokers, &raw.librdkafka, spot, Role::Table, check);
                let topic = check.required(&raw.topic, spot, "topic").map(|topic| topic.0.clone());
                let format = match format? {
                    RowFormat::Topic(format) => Some(*format),
                    RowFormat::File(_) => wrong_format(&raw.format, "kafka", TopicFormat::ALL, check),
                };
                Some(TableSource::Kafka { client: client?, topic: topic?, format: format? })
            }
        }
    }
}

/// Refuses a format of another kind.
fn wrong_format<T: Choice>(
    entry: &Entry<RowFormat>,
    kind: &str,
    allowed: &[T],
    check: &mut Check<'_>,
) -> Option<T> {
    let spot = entry.given()?;
    let allowed = names(allowed);
    check.refuse(spot, format!("found {} with kind = \"{kind}\", allowed: {allowed}", spot.shown));
    None
}

impl Fingerprint for TableSource {
    fn add_to(&self, encoder: &mut Encoder) {
        match self {
            Self::File { path, format } => {
                encoder.text("file");
                encoder.add(path);
                encoder.add(format);
            }
            Self::Kafka { client, topic, format } => {
                encoder.text("kafka");
                encoder.add(client);
                encoder.add(topic);
                encoder.add(format);
            }
        }
    }
}
