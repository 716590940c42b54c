//! Every format in, every view out: what a live job has published when it ends equals a replay of the same lines,
//! whether its tables are files or topics.

use std::collections::BTreeMap;
use std::path::Path;

use keytide_config::View;
use serde_json::{Map, Value};

use crate::broker::Broker;
use crate::harness::sample::{METERS, SAMPLES};
use crate::harness::{
    Job, Keytide, OF_INCIDENTS, Row, Schema, VIEWS, Views, names, read_log, read_text, repository,
};
use crate::live::{Running, config, last_values, meters, replayed, results};
use crate::producer::Producer;

/// How a job's tables come.
#[derive(Clone, Copy)]
enum Tables {
    Files,
    Upserts,
    Debezium,
}

/// The views of accounts, whose rows depend on the clock of a live job.
const OF_ACCOUNTS: [&str; 6] = [
    View::Quota.name(),
    View::Charges.name(),
    View::Bills.name(),
    View::Forecast.name(),
    View::Notices.name(),
    View::Adjustments.name(),
];

const TABLES: [(&str, &str); 3] = [("keys", "key_hash"), ("subscriptions", "id"), ("plans", "id")];

/// The rows of a table of the generator as JSON objects, by what names them. It quotes nothing in its tables.
fn rows(folder: &Path, table: &str, id: &str) -> BTreeMap<String, Map<String, Value>> {
    let text = read_text(&folder.join(format!("tables/{table}.csv")));
    assert!(!text.contains('"'), "{table} has quotes");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let mut row = Map::new();
        for (column, cell) in columns.iter().zip(line.split(',')).filter(|(_, cell)| !cell.is_empty()) {
            let list = ["allow_list", "contact", "contacts"].contains(column);
            let value = if list { cell.split(';').collect() } else { Value::from(cell) };
            row.insert((*column).to_owned(), value);
        }
        // A key may have several assignments, each with its own time.
        let from = row.get("valid_from").and_then(Value::as_str).unwrap_or_default();
        (row[id].as_str().unwrap().to_owned() + from, row)
    };
    lines.map(row).collect()
}

/// A row as the value of a message that writes it.
fn written(tables: Tables, row: &Map<String, Value>) -> String {
    match tables {
        Tables::Files | Tables::Upserts => Value::from(row.clone()).to_string(),
        Tables::Debezium => serde_json::json!({ "op": "u", "before": null, "after": row }).to_string(),
    }
}

/// A table as a topic in which nothing is as it ends: rows are written wrongly first, then rightly, and one that
/// isn't in the table is written and deleted. The row `but` isn't there. The topic's name.
fn table_topic(broker: &Broker, tables: Tables, folder: &Path, table: &str, id: &str, but: &str) -> String {
    let topic = broker.topic(table, 2, &["cleanup.policy=compact"]);
    let rows = rows(folder, table, id);
    let mut records = Vec::new();
    for (name, row) in &rows {
        let mut wrong = row.clone();
        for column in ["subscription", "customer", "plan", "name"] {
            wrong.entry(column).and_modify(|value| *value = "wrong".into());
        }
        records.push((name.clone(), Some(written(tables, &wrong))));
    }
    let mut gone = rows.values().next().unwrap().clone();
    let gone_name = if id == "id" { "gone".to_owned() } else { "e".repeat(64) };
    gone.insert(id.to_owned(), gone_name.clone().into());
    records.push((gone_name.clone(), Some(written(tables, &gone))));
    if matches!(tables, Tables::Debezium) {
        let deleted = serde_json::json!({ "op": "d", "before": { id: gone_name.clone() }, "after": null });
        records.push((gone_name.clone(), Some(deleted.to_string())));
    }
    records.push((gone_name, None));
    let right = rows.iter().filter(|(name, _)| *name != but);
    records.extend(right.map(|(name, row)| (name.clone(), Some(written(tables, row)))));
    if rows.contains_key(but) {
        records.push((but.to_owned(), None));
    }
    broker.produce_keyed(&topic, records.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
    topic
}

fn sections(broker: &Broker, tables: Tables, folder: &Path, but: &str) -> String {
    let section = |(table, id): (&str, &str)| match tables {
        Tables::Files => format!(
            "[tables.{table}]\nkind = \"file\"\npath = \"{}/tables/{table}.csv\"\nformat = \"csv\"\n",
            folder.display()
        ),
        Tables::Upserts | Tables::Debezium => {
            let topic = table_topic(broker, tables, folder, table, id, but);
            let format = if matches!(tables, Tables::Debezium) { "debezium" } else { "json-upsert" };
            format!(
                "[tables.{table}]\nkind = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{topic}\"\nformat = \"{format}\"\n",
                broker.addresses()
            )
        }
    };
    TABLES.map(section).concat()
}

/// A world of the generator: through a live job, and through a replay of its files.
fn equals_a_replay(format: &str, tables: Tables) {
    let broker = Broker::shared(format);
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let options = "--events 1500 --keys 60 --span 50m --broken 0.01 --duplicates 0.02";
    keytide_generator::generate(folder, &format!("{options} --format {format}")).unwrap();
    let file = names(folder).into_iter().find(|name| name.starts_with("events")).unwrap();
    let lines = read_log(&folder.join(file));

    // The generator's configuration says what is to be read how; only where from is another matter.
    let generated = read_text(&folder.join("keytide.toml"));
    let between = |from: &str, to: &str| {
        let (_, rest) = generated.split_once(from).unwrap();
        rest.split_once(to).unwrap().0.to_owned()
    };
    let keys = between("[keys]\n", "[[source]]");
    let fields = between(&format!("format = \"{format}\"\n"), "[tables.keys]");
    let topic = broker.topic("calls", 3, &[]);
    let but = "sub-00001";
    let more = format!(
        "{fields}\n[keys]\n{keys}\n{}\n[geo]\ncountry = \"{folder}/geo/country.mmdb\"\nasn = \"{folder}/geo/asn.mmdb\"\n",
        sections(&broker, tables, folder, but),
        folder = folder.display()
    );
    let job = Job::with_config(&config(&broker, &topic, format, &more));

    let running = Running::started(&job);
    broker.produce(&topic, &lines);
    running.until_count("keytide_messages_total", lines.lines().count() as u64);
    if !matches!(tables, Tables::Files) {
        // A row that comes after the calls it explains.
        let before = running.count("keytide_table_changes_total").unwrap();
        let row = written(tables, &rows(folder, "subscriptions", "id")[but]);
        broker.produce_keyed(&broker.name("subscriptions"), [(but, Some(row.as_str()))]);
        running.until_count("keytide_table_changes_total", before + 1);
    }
    let log = running.stop();
    assert!(!log.contains("ERROR"), "{log}");

    let out = folder.join("out");
    Keytide::replay(&folder.join("keytide.toml"), &out).succeed();
    let replay = Views::new(&out);
    let records = broker.records(&results(&broker));
    let live = last_values(&records);
    for view in VIEWS {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        let rows = replay.rows(view);
        // A combined log has no latencies, and nothing is late here.
        let is_empty = view == "late" || (view == "latency" && format == "combined");
        // What is told of keys names the configuration and where calls stand, which differ; and a live job's clock goes
        // on when the input ends, which ends periods, too. That ticks make no difference is a test of the dataflow. The
        // live job has no prices and no quotas.
        if OF_INCIDENTS.contains(&view) || OF_ACCOUNTS.contains(&view) {
            continue;
        }
        assert_eq!(rows.is_empty(), is_empty, "{view}");
        let found = live.get(view).cloned().unwrap_or_default();
        if view == "dead_letters" {
            // Where a record stands is another matter than what is wrong with it.
            let reasons = |values: Vec<Vec<(String, Value)>>| {
                let said =
                    |(column, _): &(String, Value)| ["reason", "length", "sha256"].contains(&&**column);
                let mut reasons: Vec<_> = values
                    .into_iter()
                    .map(|row| format!("{:?}", row.into_iter().filter(said).collect::<Vec<_>>()))
                    .collect();
                reasons.sort();
                reasons
            };
            let expected = reasons(rows.iter().map(meters).collect());
            assert_eq!(reasons(found.into_values().collect()), expected, "{view}");
            continue;
        }
        let expected = replayed(rows, &schema.key);
        for (key, row) in &expected {
            assert_eq!(found.get(key), Some(row), "{view}: {key}");
        }
        let more: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
        assert!(more.is_empty(), "{view}: rows that the replay doesn't have: {more:?}");
    }

    // A record that went to another view's topic would be told by its columns, not by its topic.
    let mut by_view: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        *by_view.entry(format!("{}.{}.v1", broker.name("out"), record.view())).or_default() += 1;
    }
    let mut by_topic: BTreeMap<String, u64> = BTreeMap::new();
    for ((topic, _), end) in broker.offsets(&results(&broker), false) {
        *by_topic.entry(topic).or_default() += end;
    }
    by_topic.retain(|_, end| *end > 0);
    assert_eq!(by_view, by_topic);
}

#[test]
fn calls_of_a_json_log_with_tables_in_files_give_what_a_replay_gives() {
    equals_a_replay("json", Tables::Files);
}

#[test]
fn calls_of_apisix_with_tables_as_upserts_give_what_a_replay_gives() {
    equals_a_replay("apisix", Tables::Upserts);
}

#[test]
fn calls_of_kong_with_tables_as_change_events_give_what_a_replay_gives() {
    equals_a_replay("kong", Tables::Debezium);
}

#[test]
fn calls_of_a_combined_log_with_tables_in_files_give_what_a_replay_gives() {
    equals_a_replay("combined", Tables::Files);
}

/// Calls, by the rows of days.
fn calls<'a>(rows: impl IntoIterator<Item = &'a Row>) -> u64 {
    let days = rows.into_iter().filter(|row| row.text("window") == "1d");
    days.map(|row| row.number("calls")).sum()
}

/// What the views say of a sample that is read from a file.
fn calls_in_golden_rows() -> u64 {
    let golden: String = SAMPLES.iter().map(|sample| read_text(&sample.golden())).collect();
    calls(&golden.lines().filter_map(|line| line.strip_prefix("usage ")).map(Row::parse).collect::<Vec<_>>())
}

#[test]
fn every_gateway_s_message_counts_in_a_topic_as_in_a_file() {
    let broker = Broker::shared("samples");
    let producer = Producer::new(&broker);
    let mut sources = Vec::new();
    for (number, sample) in SAMPLES.iter().enumerate() {
        let topic = broker.topic(&format!("sample{number}"), 1, &[]);
        producer.send(&topic, 0, None, &sample.message());
        sources.push((topic, sample.format, sample.keys));
    }
    // What no file can be: attributes in headers, and data that may be compressed; twice, as gateways send.
    let topic = broker.topic("binary", 1, &[]);
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "7"),
        ("ce_source", "service-0"),
        ("ce_time", "2025-11-20T12:44:15.123Z"),
        ("ce_subject", "customer-1"),
        ("content-type", "application/json"),
    ];
    let data = br#"{"duration_seconds":"0.019","method":"GET","route":"/v2/orders/{id}"}"#;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, data).unwrap();
    producer.send_with(&topic, &headers, data);
    producer.send_with(&topic, &headers, &packed.finish().unwrap());
    producer.flush();
    sources.push((topic, "cloudevents", "from = [\"consumer\"]\nhash = \"none\""));
    let (events, duplicates) = SAMPLES.iter().fold((1, 1), |(events, duplicates), sample| {
        (events + sample.events, duplicates + sample.duplicates)
    });

    let (first, more) = sources.split_first().unwrap();
    let more = more.iter().zip(1..).map(|((topic, format, keys), number)| {
        format!(
            "[[source]]\nname = \"s{number}\"\nkind = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{topic}\"\n\
             format = \"{format}\"\n[source.keys]\n{keys}\n",
            broker.addresses()
        )
    });
    let more = format!("[source.keys]\n{}\n{}", first.2, more.collect::<String>());
    let job = Job::with_config(&config(&broker, &first.0, first.1, &more));
    let ended = job.replay().run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let replay = job.out();
    let counted = (replay.count("events"), replay.count("duplicates"), replay.count("dead_letters"));
    assert_eq!(counted, (events, duplicates, 0), "{}", replay.text("dead_letters"));
    assert_eq!(calls(&replay.rows("usage")), events);
    assert_eq!(calls_in_golden_rows() + 1, events);

    let running = Running::started(&job);
    running.until_count("keytide_messages_total", SAMPLES.len() as u64 + 2);
    let log = running.stop();
    assert!(!log.contains("ERROR"), "{log}");
    let live = last_values(&broker.records(&results(&broker)));
    assert_eq!(live.get("dead_letters"), None);
    for view in METERS {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        let expected = replayed(replay.rows(view), &schema.key);
        assert!(!expected.is_empty(), "{view}");
        assert_eq!(live.get(view), Some(&expected), "{view}");
    }
}
