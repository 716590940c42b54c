//! The sections `[tables.*]` about the tables that calls are joined with.

use super::kafka::{Brokers, KafkaClient, LibrdkafkaSettings, Role};
use super::prelude::*;
use super::topic::TopicName;

section! {
    /// The sections `[tables.*]`, each a table that calls are joined with.
    #[derive(Clone, Debug)]
    pub struct Tables, RawTables then idle {
        /// Keys with their owners and subscriptions.
        results keys: Option<TableSource> = keys(RawTable) or None;
        /// Subscriptions, which keys refer to.
        results subscriptions: Option<TableSource> = subscriptions(RawTable) or None;
        /// Plans, which subscriptions refer to.
        results plans: Option<TableSource> = plans(RawTable) or None;
        results leaks: Option<TableSource> = leaks(RawTable) or None;
        /// How much plans and subscriptions may use.
        results quotas: Option<TableSource> = quotas(RawTable) or None;
        /// Prices of plans, a row for each tier.
        results prices: Option<TableSource> = prices(RawTable) or None;
        /// Tokens of the API, which no result depends on.
        other tokens: Option<TableSource> = tokens(RawTable) or None;
    }
}

keys! {
    /// The keys of one `[tables.*]`.
    RawTable {
        kind: TableKind,
        path: PathText,
        brokers: Brokers,
        topic: TopicName,
        librdkafka: LibrdkafkaSettings,
        format: RowFormat,
    }
}

/// The file or topic that a table is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableSource {
    /// A file, which a live job watches.
    File { path: PathBuf, format: TableFormat },
    /// A Kafka topic, read from its beginning.
    Kafka { client: KafkaClient, topic: String, format: TopicFormat },
}

choice! {
    /// The values of `kind` in a `[tables.*]`.
    pub(crate) enum TableKind {
        File = "file",
        Kafka = "kafka",
    }
}

choice! {
    /// The format of a table's file.
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
        /// Compacted upserts. A value is a row as a JSON object, and null deletes the row of the record's key.
        JsonUpsert = "json-upsert",
        /// Debezium's change events, as JSON, with or without a schema.
        Debezium = "debezium",
    }
}

/// The values of `format` in a `[tables.*]`, which are allowed for one kind each.
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
        let Self { keys, subscriptions, plans, leaks: _, quotas, prices, tokens: _ } = &spot.value;
        for (table, entry, needed, missing) in [
            ("subscriptions", subscriptions, "keys", keys.is_absent()),
            ("plans", plans, "subscriptions", subscriptions.is_absent()),
            ("quotas", quotas, "subscriptions", subscriptions.is_absent()),
            ("prices", prices, "subscriptions", subscriptions.is_absent()),
        ] {
            if let Some(spot) = entry.given().filter(|_| missing) {
                check.warn(spot, format!("has no effect: without tables.{needed} nothing refers to {table}"));
            }
        }
    }

    /// Returns the topics of all tables that have one.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Spot<TopicName>> {
        let Self { keys, subscriptions, plans, leaks, quotas, prices, tokens } = self;
        let tables = [keys, subscriptions, plans, leaks, quotas, prices, tokens];
        tables.into_iter().filter_map(|table| table.value()?.topic.given())
    }
}

impl Validate<TableSource> for RawTable {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<TableSource> {
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

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn tables_are_files_or_topics() {
        let table = |lines: &str| problems(&format!("{SMALL}[tables.keys]\n{lines}"));
        assert_eq!(
            table("kind = \"kafka\"\npath = \"x\"\nformat = \"csv\""),
            "line 6: tables.keys.brokers: missing, allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"\n\
             line 6: tables.keys.topic: missing, allowed: 1 to 249 of A-Z, a-z, 0-9, ., _ and -\n\
             line 8: tables.keys.path: has no meaning here, allowed: only beside kind = \"file\"\n\
             line 9: tables.keys.format: found \"csv\" with kind = \"kafka\", allowed: json-upsert, debezium"
        );
        assert_eq!(
            table(
                "kind = \"file\"\npath = \"x\"\nformat = \"json-upsert\"\nbrokers = \"a:1\"\ntopic = \"t\"\n[tables.keys.librdkafka]"
            ),
            "line 9: tables.keys.format: found \"json-upsert\" with kind = \"file\", allowed: csv, jsonl\n\
             line 10: tables.keys.brokers: has no meaning here, allowed: only beside kind = \"kafka\"\n\
             line 11: tables.keys.topic: has no meaning here, allowed: only beside kind = \"kafka\"\n\
             line 12: tables.keys.librdkafka: has no meaning here, allowed: only beside kind = \"kafka\""
        );
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (with("[tables]\nkeys = \"x\""), "line 7: tables.keys: found \"x\", allowed: a section"),
            (
                with("[tables.keys]\nkind = \"file\"\npath = \"\"\nformat = \"csv\""),
                "line 8: tables.keys.path: found \"\", allowed: a path, absolute or relative to the configuration file",
            ),
            (
                with("[tables.keys]\nkind = \"file\"\npath = \"x\"\nformat = \"debezium\""),
                "line 9: tables.keys.format: found \"debezium\" with kind = \"file\", allowed: csv, jsonl",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn suspicious_values_are_warnings() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (
                with("[tables.plans]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
                "line 6: tables.plans: has no effect: without tables.subscriptions nothing refers to plans",
            ),
            (
                with("[tables.quotas]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
                "line 6: tables.quotas: has no effect: without tables.subscriptions nothing refers to quotas",
            ),
            (
                with("[tables.tokens]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
                "line 6: tables.tokens: has no effect: without [api] nobody shows a token",
            ),
            (
                with("[tables.prices]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
                "line 6: tables.prices: has no effect: without tables.subscriptions nothing refers to prices",
            ),
            (
                with("[tables.subscriptions]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
                "line 6: tables.subscriptions: has no effect: without tables.keys nothing refers to subscriptions",
            ),
        ] {
            assert_eq!(warnings(&text), expected, "{text}");
        }
    }
}
