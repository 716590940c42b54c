//! The stages together: every kind of problem with its place, every example, and no input that panics or
//! leaks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::section::config::RawConfig;
use crate::toml::read::Raw;
use crate::toml::tree::{self, Table, Value};
use crate::*;

mod alerts;

/// The smallest job.
const SMALL: &str =
    "[[source]]\nname = \"gateway\"\nkind = \"file\"\npath = \"logs/*.log\"\nformat = \"apisix\"\n";
/// One whose fields can be replaced.
const JSON: &str = "[[source]]\nname = \"a\"\nkind = \"file\"\npath = \"a\"\nformat = \"json\"\n[source.fields]\ntime = { at = \"/t\", unit = \"ms\" }\nkey = \"/k\"\n";

/// One that reads a topic.
const KAFKA: &str = "[[source]]\nname = \"gateway\"\nkind = \"kafka\"\nbrokers = \"kafka:9092\"\ntopic = \"events\"\nformat = \"apisix\"\n";

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

fn parse_with(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    JobConfig::parse(text, Path::new("/etc/keytide"), env(pairs))
}

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    parse_with(text, &[])
}

fn job(text: &str) -> JobConfig {
    parse(text).unwrap_or_else(|error| panic!("{error}")).job
}

/// All problems, one per line; empty for a valid file.
fn problems(text: &str) -> String {
    parse(text).map_or_else(|error| error.to_string(), |_| String::new())
}

fn warnings(text: &str) -> String {
    let loaded = parse(text).unwrap_or_else(|error| panic!("{error}"));
    loaded.warnings.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    files
}

/// `everything.toml` as it is, or with its commented-out keys in force.
fn everything(with_alternatives: bool) -> String {
    let text = include_str!("../examples/everything.toml");
    let uncomment =
        |line: &'static str| line.strip_prefix("# ").filter(|_| with_alternatives).unwrap_or(line);
    text.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

/// The secrets that the commented-out keys refer to.
const ALTERNATIVES: &[(&str, &str)] = &[
    ("KEYTIDE_KEY_SECRET", "0123456789abcdef"),
    ("KEYTIDE_SASL_PASSWORD", "a password"),
    ("KEYTIDE_HTTP_TOKEN", "0123456789abcdef"),
    ("KEYTIDE_MAIL_PASSWORD", "a password"),
    ("KEYTIDE_WEBHOOK_SECRET", "0123456789abcdef"),
];

#[test]
fn defaults_are_those_of_the_contract() {
    let job = job(SMALL);
    assert_eq!((job.job.name.as_str(), job.job.tick_ms, job.job.workers.get()), ("keytide", 1_000, 1));
    assert_eq!(job.windows, Windows::default());
    assert_eq!(job.limits, Limits::default());
    let [source] = job.sources.as_slice() else { panic!("one source") };
    assert_eq!(source.kind, SourceKind::File { pattern: "/etc/keytide/logs/*.log".to_owned() });
    assert_eq!((source.format, source.dedupe), (Format::Apisix, Dedupe::Batch));
    assert_eq!((source.routes, source.only.as_slice()), (RoutesFrom::Path, &[][..]));
    let pointers = |pointers: &[Pointer]| pointers.iter().map(Pointer::to_string).collect::<Vec<_>>();
    assert_eq!(pointers(&source.unwrap), ["/log", "/message"]);
    assert_eq!(pointers(&source.records), ["/records", "/Records"]);
    assert_eq!(job.limits.message_bytes, 8 << 20);
    let rules: Vec<String> = source.keys.from.iter().map(KeyFrom::to_string).collect();
    assert_eq!(rules, ["header:apikey", "query:apikey", "key"]);
    assert!(matches!(source.keys.hash, KeyHash::Sha256));
    assert_eq!(source.keys.missing, MissingKey::Anonymous);
    assert!(job.tables.keys.is_none() && job.geo.country.is_none() && job.routes.templates.is_empty());
    assert_eq!(format!("{:?}", job.job), format!("{:?}", Job::default()));
    assert!(job.sinks.kafka.is_none() && job.sinks.files.is_none() && job.http.is_none());
    assert_eq!(job.log, Log { format: LogFormat::Pretty, level: LogLevel::Info });
}

#[test]
fn everything_is_read_and_states_the_defaults() {
    let job = job(&everything(false));
    let small = self::job(SMALL);
    assert_eq!(format!("{:?}", job.job), format!("{:?}", small.job));
    assert_eq!(job.windows, small.windows);
    assert_eq!(job.limits, small.limits);
    assert!(job.geo.trusted_proxies.is_empty() && job.routes.templates.is_empty());
    let at = |pointer: &str| Pointer(vec![pointer.to_owned()]);
    let fields = &job.sources[0].fields;
    assert_eq!(fields.time, Some(Field::new(at("requestTime"), Some(Unit::Millis))));
    assert_eq!(fields.latency, Some(Field::new(at("latencyMs"), Some(Unit::Millis))));
    for (field, name) in [
        (&fields.request_id, "requestId"),
        (&fields.key, "apiKey"),
        (&fields.api, "api"),
        (&fields.route, "routeKey"),
        (&fields.path, "path"),
        (&fields.method, "httpMethod"),
        (&fields.status, "status"),
        (&fields.bytes_in, "requestLength"),
        (&fields.bytes_out, "responseLength"),
        (&fields.client_ip, "ip"),
        (&fields.forwarded_for, "forwardedFor"),
        (&fields.country, "country"),
        (&fields.user_agent, "userAgent"),
        (&fields.consumer, "consumer"),
        (&fields.credential, "credential"),
        (&fields.user, "user"),
        (&fields.query, "query"),
        (&fields.request, "request"),
        (&fields.count, "count"),
    ] {
        assert_eq!(*field, Some(Field::new(at(name), None)));
    }
    let end = Field { at: vec![at("end"), at("ended")], ..Field::new(at("end"), Some(Unit::Millis)) };
    assert_eq!(fields.end, Some(end));
    let [json, topic, delivered, lines] = job.sources.as_slice() else { panic!("four sources") };
    assert_eq!((lines.dedupe, lines.pattern.is_some()), (Dedupe::RequestId, true));
    assert_eq!(
        (json.dedupe, topic.dedupe, delivered.dedupe),
        (Dedupe::Batch, Dedupe::Message, Dedupe::Batch)
    );
    let defaults = (Source::default_unwrap(), Source::default_records());
    assert_eq!((&json.unwrap, &json.records), (&defaults.0, &defaults.1));
    assert_eq!((json.routes, json.only.len(), topic.only.len()), (RoutesFrom::Gateway, 1, 0));
    assert_eq!(
        job.tables.plans,
        Some(TableSource::File {
            path: "/etc/keytide/tables/plans.jsonl".into(),
            format: TableFormat::Jsonl
        })
    );
    assert_eq!(job.geo.asn.as_deref(), Some(Path::new("/etc/keytide/geo/asn.mmdb")));
    let brokers = "kafka-1:9092,kafka-2:9092";
    let plain = client(brokers, &[("security.protocol", "plaintext")]);
    assert_eq!(job.sources[1].kind, SourceKind::Kafka(KafkaSource::new(plain.clone(), "access-events")));
    assert_eq!(
        job.tables.subscriptions,
        Some(TableSource::Kafka {
            client: plain,
            topic: "subscriptions".to_owned(),
            format: TopicFormat::JsonUpsert
        })
    );
    let compressed = client(brokers, &[("compression.type", "lz4")]);
    assert_eq!(job.sinks.kafka, Some(KafkaSink::new(compressed)));
    assert_eq!(job.sinks.files, Some(FileSink::new("/etc/keytide/out")));
    assert_eq!((job.http, job.log), (Some(Http::default()), Log::default()));
    let sender = Sender { name: "Keytide".to_owned(), address: "keytide@example.com".to_owned() };
    let email = job.alerts.email.unwrap();
    let server = MailServer {
        host: "smtp.example.com".to_owned(),
        port: 587,
        tls: MailTls::Starttls,
        credentials: None,
        ca: None,
    };
    let told = EmailAlerts::new(sender, vec!["security@example.com".to_owned()]);
    assert_eq!(email, EmailAlerts { server: Some(server), ..told });
    assert_eq!(job.alerts.policy, PolicyRules::default());
}

fn client(brokers: &str, settings: &[(&str, &str)]) -> KafkaClient {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
    KafkaClient { settings: settings.collect(), ..KafkaClient::new(brokers) }
}

#[test]
fn everything_shows_every_key() {
    fn collect(table: Table, path: &str, keys: &mut BTreeSet<String>) {
        for (key, node) in table.into_entries() {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            keys.insert(path.clone());
            match node.value {
                Value::Table(inner) => collect(inner, &path, keys),
                Value::List(items) => {
                    for item in items {
                        if let Value::Table(inner) = item.value {
                            collect(inner, &path, keys);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let text = everything(true);
    let mut shown = BTreeSet::new();
    collect(tree::parse(&text, &mut crate::toml::problem::Problems::default()).unwrap(), "", &mut shown);
    let mut keys = Vec::new();
    RawConfig::keys("", &mut keys);
    // Tables have the same keys; each shows those of one kind.
    let any_table = |key: &str| match key.strip_prefix("tables.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => format!("tables.*.{rest}"),
        None => key.to_owned(),
    };
    let shown: BTreeSet<String> = shown.iter().map(|key| any_table(key)).collect();
    // `secret` is shown where its hash is.
    let missing: Vec<_> =
        keys.iter().filter(|key| !shown.contains(&any_table(key)) && *key != "keys.secret").collect();
    assert!(missing.is_empty(), "config/examples/everything.toml doesn't show {missing:?}");

    let loaded = parse_with(&text, ALTERNATIVES).unwrap_or_else(|error| panic!("{error}"));
    assert!(
        matches!(&loaded.job.sources[0].keys.hash, KeyHash::HmacSha256 { secret } if secret.reveal() == "0123456789abcdef")
    );
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples = examples();
    for name in ["apisix", "combined", "everything", "json", "kafka", "kong", "text"] {
        assert!(examples.iter().any(|path| path.file_stem().unwrap() == name), "{name}");
    }
    for path in examples {
        let loaded = JobConfig::load(&path, env(&[])).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{}", path.display());
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[job]
name = "Key Tide"
wrokers = 2
tick = 5

[keys]
from = ["headers:apikey", 3]
hash = "sha-256"

[[source]]
name = "gateway"
kind = "file"
format = "json"
[source.fields]
time = { at = "/t", unit = "msec" }
status = { at = "status", unit = "s" }
latency = "/latency"
satus = "/x"

[[source]]
name = "gateway"
kind = "stdin"
path = 7
format = "jsn"

[source.keys]
hash = "hmac-sha256"

[tables.keys]
kind = "file"
format = "parquet"

[windows]
allowed_lateness = "2h"

[limits]
json_depth = 64
message_bytes = "65MiB"

[kyes]
"#;
    let expected = r#"line 3: job.name: found "Key Tide", allowed: 1 to 64 of a-z, 0-9, _ and -
line 4: job.wrokers: unknown key, allowed here: name, tick, workers, reload; did you mean workers?
line 5: job.tick: found 5, allowed: a whole number with ms, s, m, h or d, such as "10m"
line 8: keys.from[0]: found "headers:apikey", allowed: header:NAME, query:NAME, key, field:/POINTER, consumer, credential, user, client_ip; did you mean "header"?
line 8: keys.from[1]: found 3, allowed: header:NAME, query:NAME, key, field:/POINTER, consumer, credential, user, client_ip
line 9: keys.hash: found a value that is not shown, allowed: sha256, hmac-sha256, prehashed, none; did you mean "sha256"?
line 11: source."gateway".path: missing, allowed: a path, absolute or relative to the configuration file
line 16: source."gateway".fields.time.unit: found "msec", allowed: s, ms, us, ns, rfc3339, clf
line 17: source."gateway".fields.status.at: found "status", allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as "/request/id"; a pointer starts with /
line 17: source."gateway".fields.status.unit: only time, end and latency have a unit, remove it
line 18: source."gateway".fields.latency: needs a unit, allowed: { at = "/latency", unit = … } with one of s, ms, us, ns
line 19: source."gateway".fields.satus: unknown key, allowed here: request_id, time, key, api, route, path, method, status, latency, bytes_in, bytes_out, client_ip, forwarded_for, country, user_agent, consumer, credential, user, query, request, end, count; did you mean status?
line 22: source."gateway".name: "gateway" names another source too, allowed: names that differ
line 24: source."gateway".path: found 7, allowed: a path, absolute or relative to the configuration file
line 25: source."gateway".format: found "jsn", allowed: json, apisix, kong, envoy, nginx, aws-apigateway, otel, cloudwatch, cloudevents, combined, text, alb, cloudfront, haproxy; did you mean "json"?
line 28: source."gateway".keys.hash: hmac-sha256 needs a `secret` beside it, allowed: "env:NAME" or "file:PATH", never the secret itself
line 30: tables.keys.path: missing, allowed: a path, absolute or relative to the configuration file
line 32: tables.keys.format: found "parquet", allowed: csv, jsonl, json-upsert, debezium
line 35: windows.allowed_lateness: a dedupe_horizon of 1h is shorter than the allowed_lateness of 2h, so that late events could count twice; allowed: at least as long
line 38: limits.json_depth: isn't available in this version, remove it
line 39: limits.message_bytes: found "65MiB", allowed: 1KiB to 64MiB
line 41: kyes: unknown key, allowed here: job, keys, source, tables, geo, routes, windows, limits, sink, detection, alerts, http, log; did you mean keys?"#;
    let found = problems(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found, expected);
}

#[test]
fn each_problem_is_told_where_it_stands() {
    let with = |lines: &str| format!("{SMALL}{lines}");
    for (text, expected) in [
        (String::new(), "source: missing, allowed: at least one [[source]]"),
        ("source = []".to_owned(), "line 1: source: is empty, allowed: at least one [[source]]"),
        ("[source]".to_owned(), "line 1: source: found a section, allowed: a list, written [[source]]"),
        ("source = [3]".to_owned(), "line 1: source[0]: found 3, allowed: a section"),
        (with("[keys]\nfrom = []"), "line 7: keys.from: found 0 rules, allowed: 1 to 8"),
        (with("[keys]\nfrom = \"key\""), "line 7: keys.from: found \"key\", allowed: a list, written […, …]"),
        (
            with("dedupe = true"),
            "line 6: source.\"gateway\".dedupe: found true, allowed: request_id, message, batch, content",
        ),
        (with("[job]\nworkers = 257"), "line 7: job.workers: found 257, allowed: 1 to 256"),
        (with("[job]\nworkers = -1"), "line 7: job.workers: found -1, allowed: a whole number"),
        (with("[job]\nworkers = 1.0"), "line 7: job.workers: found 1.0, allowed: a whole number"),
        (
            with("[job]\nworkers = 99999999999999999999"),
            "line 7: job.workers: found 99999999999999999999, allowed: a whole number",
        ),
        (with("[job]\ntick = \"9ms\""), "line 7: job.tick: found \"9ms\", allowed: 10ms to 1m"),
        (
            with("[job]\nname = 1979-05-27"),
            "line 7: job.name: found 1979-05-27, allowed: 1 to 64 of a-z, 0-9, _ and -",
        ),
        (
            with("job = 3"),
            "line 6: source.\"gateway\".job: unknown key, allowed here: name, kind, path, brokers, topic, start, end, on_gap, librdkafka, format, inner, pattern, dedupe, unwrap, records, only, routes, zone, fields, keys",
        ),
        (
            with("[windows]\nallowed_lateness = \"181m\"\ndedupe_horizon = \"4h\""),
            "line 7: windows.allowed_lateness: found \"181m\", allowed: 0s to 3h",
        ),
        (
            with("[windows]\ndedupe_horizon = \"8d\""),
            "line 7: windows.dedupe_horizon: found \"8d\", allowed: 0s to 7d",
        ),
        (
            with("[windows]\nout_of_orderness = \"61m\""),
            "line 7: windows.out_of_orderness: found \"61m\", allowed: 0s to 1h",
        ),
        (
            with("[geo]\ntrusted_proxies = [\"10.0.0.0/8\", \"office\"]"),
            "line 7: geo.trusted_proxies[1]: found \"office\", allowed: an address or a CIDR, such as \"10.0.0.0/8\"",
        ),
        (
            with("[geo]\ncity = \"\""),
            "line 7: geo.city: found \"\", allowed: a path, absolute or relative to the configuration file",
        ),
        (with("[state]\nurl = \"x\""), "line 6: state: isn't available in this version, remove it"),
        (with("[tables]\nkeys = \"x\""), "line 7: tables.keys: found \"x\", allowed: a section"),
        (
            with("[tables.keys]\nkind = \"file\"\npath = \"\"\nformat = \"csv\""),
            "line 8: tables.keys.path: found \"\", allowed: a path, absolute or relative to the configuration file",
        ),
        (
            with("[tables.keys]\nkind = \"file\"\npath = \"x\"\nformat = \"debezium\""),
            "line 9: tables.keys.format: found \"debezium\" with kind = \"file\", allowed: csv, jsonl",
        ),
        (
            with("[source.fields]\ntime = 3"),
            "line 7: source.\"gateway\".fields.time: found 3, allowed: a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }",
        ),
        (
            with("[source.fields]\ntime = { unit = \"s\" }"),
            "line 7: source.\"gateway\".fields.time.at: missing, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of 1 to 16",
        ),
        (
            with("unwrap = 3"),
            "line 6: source.\"gateway\".unwrap: found 3, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of at most 16",
        ),
        (
            with("records = [\"/a\", \"b\"]"),
            "line 6: source.\"gateway\".records[1]: found \"b\", allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; a pointer starts with /",
        ),
        (
            with(&format!("unwrap = [{}]", vec!["\"/a\""; 17].join(","))),
            "line 6: source.\"gateway\".unwrap: found 17 pointers, allowed: at most 16",
        ),
        (
            with("[source.fields]\nroute = []"),
            "line 7: source.\"gateway\".fields.route: is empty, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of 1 to 16",
        ),
        (
            with("[source.fields]\ncount = { at = \"/n\", unit = \"s\" }"),
            "line 7: source.\"gateway\".fields.count.unit: only time, end and latency have a unit, remove it",
        ),
        (
            with("[source.fields]\nend = { at = \"/e\", unit = \"m\" }"),
            "line 7: source.\"gateway\".fields.end.unit: found \"m\", allowed: s, ms, us, ns, rfc3339, clf",
        ),
        (
            JSON.to_owned() + "end = \"/e\"",
            "line 9: source.\"a\".fields.end: needs a unit, allowed: { at = \"/e\", unit = … } with one of s, ms, us, ns, rfc3339, clf",
        ),
        (
            with("only = \"/logger\""),
            "line 6: source.\"gateway\".only: found \"/logger\", allowed: a section",
        ),
        (
            with("[source.only]\nlogger = \"x\""),
            "line 7: source.\"gateway\".only.\"logger\": isn't a JSON pointer, allowed: names such as \"/logger\"; a pointer starts with /",
        ),
        (
            with("[source.only]\n\"/a~2\" = \"x\""),
            "line 7: source.\"gateway\".only.\"/a~2\": isn't a JSON pointer, allowed: names such as \"/logger\"",
        ),
        (
            with("[source.only]\n\"/logger\" = []"),
            "line 7: source.\"gateway\".only.\"/logger\": is empty, so that no record would count, allowed: a text (with *, ? and [..] for other characters), a whole number, true or false, or a list of such",
        ),
        (
            with("[source.only]\n\"/logger\" = [\"x\", 1.5]"),
            "line 7: source.\"gateway\".only.\"/logger\": found 1.5, allowed: a text (with *, ? and [..] for other characters), a whole number, true or false, or a list of such",
        ),
        (
            with("[source.only]\n\"/logger\" = \"[a\""),
            "line 7: source.\"gateway\".only.\"/logger\": found \"[a\", allowed: a text (with *, ? and [..] for other characters), a whole number, true or false: invalid range pattern",
        ),
        (
            with("[source.routes]\nfrom = \"paths\""),
            "line 7: source.\"gateway\".routes.from: found \"paths\", allowed: gateway, path; did you mean \"path\"?",
        ),
        (
            with("[source.routes]\ntemplates = []"),
            "line 7: source.\"gateway\".routes.templates: unknown key, allowed here: from",
        ),
        (
            with("[routes]\nfrom = \"gatway\""),
            "line 7: routes.from: found \"gatway\", allowed: gateway, path; did you mean \"gateway\"?",
        ),
        (
            with("[limits]\njson_fields = 4096"),
            "line 7: limits.json_fields: isn't available in this version, remove it",
        ),
        (
            with("zone = \"Asia/Soul\""),
            "line 6: source.\"gateway\".zone: found \"Asia/Soul\", allowed: an IANA time zone such as \"Asia/Seoul\", or an offset from UTC such as \"+09:00\"; did you mean \"Asia/Seoul\"?",
        ),
        (
            with("[source.fields]\ntime = { at = \"/t\", format = \"%Y-%m-%d\" }"),
            "line 7: source.\"gateway\".fields.time.format: found \"%Y-%m-%d\", allowed: a strptime pattern such as \"%Y/%m/%d %H:%M:%S%z\"; it doesn't give a whole time: date, hour and minute",
        ),
        (
            with("[source.fields]\ntime = { at = \"/t\", format = \"%F %T %Z\" }"),
            "line 7: source.\"gateway\".fields.time.format: found \"%F %T %Z\", allowed: a strptime pattern such as \"%Y/%m/%d %H:%M:%S%z\"; a zone's name can't be read: leave it out and set `zone`",
        ),
        (
            with("[source.fields]\ntime = { at = \"/t\", format = \"%F %T\", unit = \"ms\" }"),
            "line 7: source.\"gateway\".fields.time.unit: stands beside `format`, allowed: one of them",
        ),
        (
            with("[source.fields]\nstatus = { at = \"/s\", zone = \"UTC\" }"),
            "line 7: source.\"gateway\".fields.status.zone: only a time has one, remove it",
        ),
        (
            with("[source.fields]\nlatency = { at = \"/s\", format = \"%F %T\" }"),
            "line 7: source.\"gateway\".fields.latency.format: only a time has one, remove it",
        ),
        (
            with("[source.fields]\nlatency = { at = \"/l\", unit = \"clf\" }"),
            "line 7: source.\"gateway\".fields.latency.unit: found \"clf\", allowed: s, ms, us, ns",
        ),
        (
            SMALL.replace("file", "s3"),
            "line 3: source.\"gateway\".kind: found \"s3\", allowed: file, stdin, kafka",
        ),
        (
            with("topic = \"events\""),
            "line 6: source.\"gateway\".topic: has no meaning here, allowed: only beside kind = \"kafka\"",
        ),
        (
            with("inner = \"kong\""),
            "line 6: source.\"gateway\".inner: has no meaning here, allowed: only beside format = \"cloudwatch\"",
        ),
        (
            SMALL.replace("apisix", "cloudwatch") + "inner = \"cloudwatch\"",
            "line 6: source.\"gateway\".inner: found \"cloudwatch\", allowed: json, apisix, kong, envoy, nginx, aws-apigateway, otel, cloudevents, combined, text, alb, cloudfront, haproxy",
        ),
        (
            SMALL.replace("apisix", "cloudwatch") + "inner = \"json\"",
            "line 1: source.\"gateway\".fields: missing, required by inner = \"json\"",
        ),
        (
            SMALL.replace("apisix", "cloudwatch") + "inner = \"combined\"\ndedupe = \"content\"",
            "line 7: source.\"gateway\".dedupe: found \"content\" with times of whole seconds, so that equal calls would count once, allowed: request_id, batch",
        ),
        (
            SMALL.replace("apisix", "json"),
            "line 1: source.\"gateway\".fields: missing, required by format = \"json\" with at least `time`",
        ),
        (
            SMALL.replace("logs/*", "logs/[").clone(),
            "line 4: source.\"gateway\".path: found \"logs/[.log\", allowed: a glob pattern of *, ?, [..] and **: invalid range pattern",
        ),
        (
            SMALL.replace("logs/*", "a\\u001b[31m"),
            "line 4: source.\"gateway\".path: found \"a\\u{1b}[31m.log\", allowed: a path, absolute or relative to the configuration file",
        ),
        (
            SMALL.replace("apisix", "combined") + "[source.fields]\nkey = \"/k\"",
            "line 6: source.\"gateway\".fields: the combined format has no named fields, remove the section",
        ),
        (
            SMALL.replace("file", "stdin"),
            "line 4: source.\"gateway\".path: standard input has no path, allowed: only beside kind = \"file\"",
        ),
        (
            SMALL.replace("\"file\"\npath = \"logs/*.log\"", "\"stdin\"") + "[job]\nworkers = 2",
            "line 3: source.\"gateway\".kind: found \"stdin\" with job.workers = 2, allowed: job.workers = 1 or kind = \"file\"",
        ),
        (
            with("[keys]\nsecret = \"env:X\""),
            "line 7: keys.secret: no key is hashed with it, allowed: only with hash = \"hmac-sha256\"",
        ),
        (
            with("[keys]\nhash = \"hmac-sha256\"\nsecret = \"env:NOT_THERE\""),
            "line 8: keys.secret: environment variable NOT_THERE isn't set",
        ),
        (
            with("[keys]\nhash = \"none\""),
            "line 7: keys.hash: found \"none\" with header:apikey in the default keys.from, which usually holds a raw key: it would stand in every output; allowed: another hash, or a rule that finds an identifier\nline 7: keys.hash: found \"none\" with query:apikey in the default keys.from, which usually holds a raw key: it would stand in every output; allowed: another hash, or a rule that finds an identifier",
        ),
        (
            with("[routes]\ntemplates = [\"/a\", \"b\"]"),
            "line 7: routes.templates[1]: found \"b\", allowed: a path of at most 512 bytes whose segments are literal or a whole {name}, such as \"/orders/{id}\"",
        ),
        (
            JSON.replace("time = { at = \"/t\", unit = \"ms\" }\n", ""),
            "line 6: source.\"a\".fields.time: missing, allowed: a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }",
        ),
        (
            JSON.replace("{ at = \"/t\", unit = \"ms\" }", "\"/t\""),
            "line 7: source.\"a\".fields.time: needs a unit, allowed: { at = \"/t\", unit = … } with one of s, ms, us, ns, rfc3339, clf",
        ),
    ] {
        assert_eq!(problems(&text), expected, "{text}");
    }
}

#[test]
fn two_standard_inputs_are_one_too_many() {
    let stdin = |name: &str| format!("[[source]]\nname = \"{name}\"\nkind = \"stdin\"\nformat = \"kong\"\n");
    assert_eq!(
        problems(&(stdin("a") + &stdin("b"))),
        "line 7: source.\"b\".kind: found a second \"stdin\", allowed: one, as there is one standard input"
    );
}

#[test]
fn limits_hold_on_both_sides() {
    let sources = |count: usize| {
        (0..count).fold(String::new(), |mut text, index| {
            let _ = write!(
                text,
                "[[source]]\nname = \"s{index}\"\nkind = \"file\"\npath = \"{index}\"\nformat = \"kong\"\n"
            );
            text
        })
    };
    assert_eq!(problems(&sources(256)), "");
    assert_eq!(problems(&sources(257)), "line 1: source: found 257 sources, allowed: at most 256");
    let lists = |rules: usize, templates: usize, proxies: usize| {
        let list = |item: &dyn Fn(usize) -> String, count| {
            (0..count).map(|i| format!("\"{}\"", item(i))).collect::<Vec<_>>().join(",")
        };
        format!(
            "{SMALL}[keys]\nfrom = [{}]\n[routes]\ntemplates = [{}]\n[geo]\ntrusted_proxies = [{}]\n",
            list(&|i| format!("header:h{i}"), rules),
            list(&|i| format!("/r{i}"), templates),
            list(&|i| format!("10.0.{}.{}", i / 256, i % 256), proxies)
        )
    };
    assert_eq!(problems(&lists(8, 10_000, 1_024)), "");
    assert_eq!(
        problems(&lists(9, 10_001, 1_025)),
        "line 7: keys.from: found 9 rules, allowed: 1 to 8\n\
         line 9: routes.templates: found 10001 templates, allowed: at most 10000\n\
         line 11: geo.trusted_proxies: found 1025 ranges, allowed: at most 1024"
    );
}

#[test]
fn many_problems_are_counted_not_shown() {
    let text = (0..1_005).fold(SMALL.to_owned(), |text, index| text + &format!("u{index} = 1\n"));
    let found = problems(&text);
    assert_eq!(found.lines().count(), 1_001);
    assert_eq!(found.lines().last(), Some("5 more problems aren't shown"));
}

#[test]
fn broken_syntax_is_reported_with_lines_and_without_content() {
    let text = "[job]\nname = hunter2 canary\nname = \"x\n[keys]\nsecret = \"canary-canary\n[keys]\n";
    let found = problems(text);
    assert!(found.starts_with("line 2: "), "{found}");
    assert!(found.lines().count() > 1, "{found}");
    assert!(!found.contains("canary") && !found.contains("hunter2"), "{found}");
    assert_eq!(problems("[job]\nname = \"a\"\nname = \"b\""), "line 3: duplicate key");
}

#[test]
fn suspicious_settings_are_warnings() {
    let with = |lines: &str| format!("{SMALL}{lines}");
    for (text, expected) in [
        (SMALL.to_owned(), ""),
        (
            with("[tables.plans]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
            "line 6: tables.plans: has no effect: without tables.subscriptions nothing refers to plans",
        ),
        (
            with("[tables.subscriptions]\nkind = \"file\"\npath = \"p\"\nformat = \"csv\""),
            "line 6: tables.subscriptions: has no effect: without tables.keys nothing refers to subscriptions",
        ),
        (
            with("[geo]\ntrusted_proxies = [\"::/0\"]"),
            "line 7: geo.trusted_proxies[0]: \"::/0\" trusts every peer, so that any caller can choose the address it is counted under",
        ),
        (
            with("[routes]\ntemplates = [\"/a/{x}\", \"/a/{y}\"]"),
            "line 7: routes.templates[1]: \"/a/{y}\" never matches: \"/a/{x}\" stands before it and matches the same paths",
        ),
        (
            with("[keys]\nhash = \"none\"\nfrom = [\"header:x-client-id\", \"consumer\"]"),
            "line 7: keys.hash: found \"none\" with header:x-client-id in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
        ),
        (
            with("[keys]\nhash = \"none\"\nfrom = [\"field:/request/headers/X-Api-Key\"]"),
            "line 7: keys.hash: found \"none\" with field:/request/headers/X-Api-Key in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
        ),
        (
            with(
                "[keys]\nhash = \"none\"\nfrom = [\"consumer\", \"credential\", \"user\", \"client_ip\", \"field:/id\"]",
            ),
            "",
        ),
        (
            JSON.replace("key = \"/k\"\n", ""),
            "line 1: source.\"a\": source \"a\": no rule of keys.from (header:apikey, query:apikey, key) can find a key in format json, so that no call has one",
        ),
        (
            JSON.to_owned() + "[keys]\nhash = \"none\"\nfrom = [\"key\"]",
            "line 10: keys.hash: found \"none\" with key in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
        ),
        (
            SMALL.to_owned() + &SMALL.replace("gateway", "other"),
            "line 9: source.\"other\".path: another source reads \"logs/*.log\" too, so its events count twice",
        ),
    ] {
        assert_eq!(warnings(&text), expected, "{text}");
    }
}

#[test]
fn a_source_overrides_key_by_key() {
    let text = format!(
        "[keys]\nfrom = [\"consumer\"]\nhash = \"prehashed\"\nmissing = \"dead_letter\"\n{SMALL}[source.keys]\nhash = \"sha256\"\n{}",
        SMALL.replace("gateway", "other").replace("logs", "other")
    );
    let job = job(&text);
    let [first, second] = job.sources.as_slice() else { panic!("two sources") };
    for rules in [&first.keys, &second.keys] {
        assert_eq!(rules.from, [KeyFrom::Consumer]);
        assert_eq!(rules.missing, MissingKey::DeadLetter);
    }
    assert_eq!((first.keys.hash.name(), second.keys.hash.name()), ("sha256", "prehashed"));
}

#[test]
fn one_secret_serves_the_sources_that_hash_with_it() {
    let text = format!(
        "[keys]\nsecret = \"env:SECRET\"\n{SMALL}[source.keys]\nhash = \"hmac-sha256\"\n{}",
        SMALL.replace("gateway", "other").replace("logs", "other")
    );
    let loaded = parse_with(&text, &[("SECRET", "an old and long secret")]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        (loaded.job.sources[0].keys.hash.name(), loaded.job.sources[1].keys.hash.name()),
        ("hmac-sha256", "sha256")
    );
}

#[test]
fn gateway_formats_keep_their_units() {
    let fields =
        &job(&format!("{SMALL}[source.fields]\ntime = \"/t\"\nlatency = {{ at = \"/l\", unit = \"us\" }}"))
            .sources[0]
            .fields;
    assert_eq!(fields.time.as_ref().and_then(|field| field.unit), Some(Unit::Millis));
    assert_eq!(fields.latency.as_ref().and_then(|field| field.unit), Some(Unit::Micros));
}

#[test]
fn times_have_a_zone_and_a_form() {
    let time = |lines: &str| {
        let source = job(&(SMALL.to_owned() + lines)).sources.remove(0);
        (source.zone, source.fields.time)
    };
    let zone = |name: &str| Zone::new(name).unwrap();
    let field = |unit, format: Option<&str>, zone| {
        let format = format.map(|format| TimePattern::new(format).unwrap());
        Some(Field { format, zone, ..Field::new(Pointer(vec!["t".to_owned()]), unit) })
    };
    assert_eq!(time(""), (Zone::default(), None));
    assert_eq!(
        time(
            "zone = \"+09:00\"\n[source.fields]\ntime = { at = \"/t\", unit = \"rfc3339\", zone = \"Europe/Berlin\" }"
        ),
        (zone("+09:00"), field(Some(Unit::Rfc3339), None, Some(zone("Europe/Berlin"))))
    );
    assert_eq!(
        time("[source.fields]\ntime = { at = \"/t\", format = \"%F %T%z\" }"),
        (Zone::default(), field(None, Some("%F %T%z"), None))
    );
}

#[test]
fn records_are_identified_by_their_messages() {
    let dedupe = |text: &str| job(text).sources.remove(0).dedupe;
    let stdin = "[[source]]\nname = \"a\"\nkind = \"stdin\"\nformat = \"kong\"\n";
    assert_eq!([KAFKA, SMALL, stdin].map(dedupe), [Dedupe::Message, Dedupe::Batch, Dedupe::Batch]);
    // Equal lines of a log with times of whole seconds are different calls.
    for text in [KAFKA, SMALL] {
        assert_eq!(dedupe(&text.replace("apisix", "combined")), Dedupe::RequestId);
        for (name, expected) in
            [("message", Dedupe::Message), ("batch", Dedupe::Batch), ("content", Dedupe::Content)]
        {
            assert_eq!(dedupe(&format!("{text}dedupe = \"{name}\"")), expected);
        }
        assert_eq!(dedupe(&(text.replace("apisix", "combined") + "dedupe = \"batch\"")), Dedupe::Batch);
    }
}

#[test]
fn wrappers_and_conditions_are_pointers() {
    let source = |lines: &str| job(&(SMALL.to_owned() + lines)).sources.remove(0);
    let shown = |pointers: &[Pointer]| pointers.iter().map(Pointer::to_string).collect::<Vec<_>>();
    let one = source("unwrap = \"/a\"\nrecords = [\"/b/c\", \"/d\"]");
    assert_eq!(
        (shown(&one.unwrap), shown(&one.records)),
        (vec!["/a".to_owned()], vec!["/b/c".to_owned(), "/d".to_owned()])
    );
    let none = source("unwrap = []\nrecords = []");
    assert!(none.unwrap.is_empty() && none.records.is_empty());
    let only = source(
        "[source.only]\n\"/logger\" = [\"http.log.*\", \"x\"]\n\"/a~1b\" = true\n\"/level\" = 30\n\"/kind\" = \"\"",
    );
    let conditions = only.only.iter().map(|condition| {
        (condition.at.to_string(), condition.is.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>())
    });
    let expected = [
        ("/logger", vec!["http.log.*", "x"]),
        ("/a~1b", vec!["true"]),
        ("/level", vec!["30"]),
        ("/kind", vec![""]),
    ];
    let mut conditions: Vec<_> = conditions.collect();
    conditions.sort();
    let mut expected: Vec<_> = expected.map(|(at, is)| (at.to_owned(), is)).into();
    expected.sort();
    assert_eq!(conditions, expected);
    let conditions = |count: usize| {
        (0..count).fold(format!("{SMALL}[source.only]\n"), |text, n| text + &format!("\"/c{n}\" = \"x\"\n"))
    };
    assert_eq!(problems(&conditions(64)), "");
    assert_eq!(
        problems(&conditions(65)),
        "line 6: source.\"gateway\".only: found 65 conditions, allowed: at most 64"
    );
}

#[test]
fn routes_are_of_the_path_where_a_gateway_s_route_covers_many() {
    let routes =
        |format: &str, lines: &str| job(&(SMALL.replace("apisix", format) + lines)).sources.remove(0).routes;
    for (format, lines, expected) in [
        ("apisix", "", RoutesFrom::Path),
        ("kong", "", RoutesFrom::Path),
        ("cloudwatch", "inner = \"kong\"", RoutesFrom::Path),
        ("nginx", "", RoutesFrom::Gateway),
        ("aws-apigateway", "", RoutesFrom::Gateway),
        ("otel", "", RoutesFrom::Gateway),
        // A route that is mapped is one.
        ("kong", "[source.fields]\nroute = \"/r\"", RoutesFrom::Gateway),
        ("kong", "[routes]\nfrom = \"gateway\"", RoutesFrom::Gateway),
        ("nginx", "[routes]\nfrom = \"path\"", RoutesFrom::Path),
        ("kong", "[source.routes]\nfrom = \"path\"\n[routes]\nfrom = \"gateway\"", RoutesFrom::Path),
        ("kong", "[source.routes]\nfrom = \"gateway\"", RoutesFrom::Gateway),
    ] {
        assert_eq!(routes(format, lines), expected, "{format}: {lines}");
    }
}

#[test]
fn fields_stand_in_several_places() {
    let fields = |lines: &str| job(&(JSON.to_owned() + lines)).sources.remove(0).fields;
    let shown = |field: &Option<Field>| {
        field.as_ref().map(|field| field.at.iter().map(Pointer::to_string).collect::<Vec<_>>())
    };
    let found = fields(
        "route = [\"/a\", \"/b\"]\nquery = { at = \"/q\" }\nrequest = \"/r\"\ncount = \"/n\"\nend = { at = [\"/e\", \"/f\"], format = \"%F %T\", zone = \"Asia/Seoul\" }",
    );
    assert_eq!(shown(&found.route), Some(vec!["/a".to_owned(), "/b".to_owned()]));
    assert_eq!(
        [&found.query, &found.request, &found.count].map(shown),
        ["/q", "/r", "/n"].map(|at| Some(vec![at.to_owned()]))
    );
    let end = found.end.unwrap();
    assert_eq!((end.at.len(), end.unit, end.zone), (2, None, Zone::new("Asia/Seoul")));
    assert_eq!(end.format.as_ref().map(TimePattern::text), Some("%F %T"));
    // The end's unit is the time's by default, where the format has one.
    let kong = job(&(SMALL.replace("apisix", "kong") + "[source.fields]\nend = \"/e\""));
    assert_eq!(kong.sources[0].fields.end.as_ref().and_then(|end| end.unit), Some(Unit::Millis));
    // A query or a request line is where a key may be found.
    let keyless = JSON.replace("key = \"/k\"\n", "");
    for field in ["path", "query", "request"] {
        assert_eq!(warnings(&format!("{keyless}{field} = \"/x\"")), "", "{field}");
    }
    assert_ne!(warnings(&keyless), "");
}

#[test]
fn cloudwatch_wraps_another_format() {
    let with = |lines: &str| job(&(SMALL.replace("apisix", "cloudwatch") + lines)).sources.remove(0);
    assert_eq!((with("").format, with("").inner), (Format::Cloudwatch, Some(Format::AwsApigateway)));
    assert_eq!(with("inner = \"combined\"").inner, Some(Format::Combined));
    // A log event has a time of its own.
    let json = with("inner = \"json\"\n[source.fields]\nkey = \"/k\"");
    assert_eq!((json.inner, json.fields.time), (Some(Format::Json), None));
    assert_eq!(job(SMALL).sources[0].inner, None);
}

#[test]
fn the_time_of_a_cloud_event_is_rfc_3339_unless_it_says_otherwise() {
    let time = |lines: &str| {
        let source = job(&(SMALL.replace("apisix", "cloudevents") + "[source.fields]\n" + lines));
        source.sources[0].fields.time.as_ref().and_then(|time| time.unit)
    };
    assert_eq!(time("time = \"/data/at\""), Some(Unit::Rfc3339));
    assert_eq!(time("time = { at = \"/data/at\", unit = \"s\" }"), Some(Unit::Seconds));
}

#[test]
fn paths_are_relative_to_the_file_whose_folder_is_no_pattern() {
    let folder = tempfile::Builder::new().prefix("odd[1]*").tempdir().unwrap();
    let file = folder.path().join("keytide.toml");
    let text = format!(
        "{SMALL}[tables.keys]\nkind = \"file\"\npath = \"../keys.csv\"\nformat = \"csv\"\n[geo]\ncountry = \"/geo/c.mmdb\""
    );
    std::fs::write(&file, text).unwrap();
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    std::fs::write(folder.path().join("logs/a.log"), "").unwrap();
    let job = JobConfig::load(&file, env(&[])).unwrap().job;
    let SourceKind::File { pattern } = &job.sources[0].kind else { panic!("a file source") };
    let matches: Vec<PathBuf> = glob::glob(pattern).unwrap().map(Result::unwrap).collect();
    assert_eq!(matches, [folder.path().join("logs/a.log")]);
    let path = folder.path().join("../keys.csv");
    assert_eq!(job.tables.keys, Some(TableSource::File { path, format: TableFormat::Csv }));
    assert_eq!(job.geo.country.unwrap(), Path::new("/geo/c.mmdb"));
}

#[test]
fn files_that_are_no_configuration_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, content: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        JobConfig::load(&file, env(&[]))
            .unwrap_err()
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(error("a.toml", b"[job]\nname = \"\xff\""), "a.toml:2: isn't UTF-8 text");
    assert_eq!(
        error("b.toml", b"[job]\nx = 1\n"),
        "b.toml: source: missing, allowed: at least one [[source]]\nb.toml:2: job.x: unknown key, allowed here: name, tick, workers, reload"
    );
    let mut long = SMALL.as_bytes().to_vec();
    long.resize(1 << 20, b'\n');
    let file = folder.path().join("c.toml");
    std::fs::write(&file, &long).unwrap();
    assert!(JobConfig::load(&file, env(&[])).is_ok());
    long.push(b'\n');
    assert_eq!(error("c.toml", &long), "c.toml: is too long, allowed: 1048576 bytes");
    let absent = JobConfig::load(&folder.path().join("absent.toml"), env(&[])).unwrap_err();
    assert!(matches!(absent, ConfigError::Read { .. }), "{absent}");
}

#[test]
fn line_ends_and_marks_of_other_systems_are_accepted() {
    assert_eq!(problems(&SMALL.replace('\n', "\r\n")), "");
    assert_eq!(problems(&format!("\u{feff}{SMALL}")), "");
    assert_eq!(
        problems(&format!("\u{feff}{SMALL}x = 1\n").replace('\n', "\r\n")).split(": ").next(),
        Some("line 6")
    );
}

#[test]
fn variables_override_the_file() {
    let text = SMALL.replace("gateway", "gate-way");
    let job = parse_with(
        &text,
        &[
            ("KEYTIDE_JOB__WORKERS", "4"),
            ("KEYTIDE_JOB__NAME", "night"),
            ("KEYTIDE_WINDOWS__ALLOWED_LATENESS", "30m"),
            ("KEYTIDE_SOURCE__GATE_WAY__PATH", "/logs/*.log"),
            ("KEYTIDE_SOURCE__GATE_WAY__KEYS__FROM", "[\"consumer\"]"),
            ("KEYTIDE_SOURCE__GATE_WAY__FIELDS__TIME", "{ at = \"/t\", unit = \"s\" }"),
            ("KEYTIDE_TABLES__KEYS__PATH", "keys.csv"),
            ("KEYTIDE_TABLES__KEYS__KIND", "file"),
            ("KEYTIDE_TABLES__KEYS__FORMAT", "csv"),
            ("KEYTIDE_LOG", "debug"),
            ("KEYTIDE_LOG__LEVEL", "debug"),
            ("KEYTIDE_HTTP__LISTEN", "[::1]:80"),
            ("KEYTIDE_SINK__FILES__DIR", "results"),
            ("KEYTIDE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("OTHER__THING", "x"),
        ],
    )
    .unwrap_or_else(|error| panic!("{error}"))
    .job;
    assert_eq!((job.job.name.as_str(), job.job.workers.get()), ("night", 4));
    assert_eq!(job.windows.allowed_lateness_ms, 1_800_000);
    let source = &job.sources[0];
    assert_eq!(source.kind, SourceKind::File { pattern: "/logs/*.log".to_owned() });
    assert_eq!(source.keys.from, [KeyFrom::Consumer]);
    assert_eq!(source.fields.time.as_ref().and_then(|time| time.unit), Some(Unit::Seconds));
    let path = "/etc/keytide/keys.csv".into();
    assert_eq!(job.tables.keys, Some(TableSource::File { path, format: TableFormat::Csv }));
    assert_eq!(job.log, Log { level: LogLevel::Debug, ..Log::default() });
    assert_eq!(job.http, Some(Http { listen: "[::1]:80".parse().unwrap(), token: None }));
    assert_eq!(job.sinks.files, Some(FileSink::new("/etc/keytide/results")));
}

#[test]
fn an_override_replaces_a_wrong_value() {
    let text = format!("{SMALL}[job]\nworkers = \"many\"");
    assert_ne!(problems(&text), "");
    assert_eq!(parse_with(&text, &[("KEYTIDE_JOB__WORKERS", "3")]).unwrap().job.job.workers.get(), 3);
}

#[test]
fn wrong_variables_are_named() {
    for (variable, value, expected) in [
        (
            "KEYTIDE_JOB__WORKERS",
            "many",
            "KEYTIDE_JOB__WORKERS: job.workers: found \"many\", allowed: a whole number",
        ),
        ("KEYTIDE_JOB__WORKERS", "0", "KEYTIDE_JOB__WORKERS: job.workers: found 0, allowed: 1 to 256"),
        (
            "KEYTIDE_JBO__X",
            "1",
            "KEYTIDE_JBO__X: jbo: unknown key, allowed here: job, keys, source, tables, geo, routes, windows, limits, sink, detection, alerts, http, log; did you mean job?",
        ),
        (
            "KEYTIDE_SINK__KAFKA__PREFIX",
            "x",
            "KEYTIDE_SINK__KAFKA__PREFIX: sink.kafka.brokers: missing, allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"",
        ),
        ("KEYTIDE_STATE__URL", "x", "KEYTIDE_STATE__URL: state: isn't available in this version, remove it"),
        (
            "KEYTIDE_SOURCE__GATWAY__PATH",
            "x",
            "KEYTIDE_SOURCE__GATWAY__PATH: no source is called `gatway`, sources with a name: gateway",
        ),
        ("KEYTIDE_SOURCE__GATEWAY", "x", "KEYTIDE_SOURCE__GATEWAY: names a source but none of its keys"),
        (
            "KEYTIDE_SOURCE__GATEWAY__NAME__X",
            "x",
            "KEYTIDE_SOURCE__GATEWAY__NAME__X: `name` isn't a section, so nothing in it can be set",
        ),
        (
            "KEYTIDE_job__workers",
            "1",
            "KEYTIDE_job__workers: isn't the name of a key, allowed: KEYTIDE_SECTION__KEY in upper case, such as KEYTIDE_JOB__WORKERS",
        ),
        (
            "KEYTIDE___WORKERS",
            "1",
            "KEYTIDE___WORKERS: isn't the name of a key, allowed: KEYTIDE_SECTION__KEY in upper case, such as KEYTIDE_JOB__WORKERS",
        ),
        ("KEYTIDE_JOB__NAME", "\u{fffd}", "KEYTIDE_JOB__NAME: isn't UTF-8 text"),
        (
            "KEYTIDE_KEYS__SECRET",
            "canary",
            "KEYTIDE_KEYS__SECRET: keys.secret: found a value that is not shown, allowed: \"env:NAME\" or \"file:PATH\", never the secret itself",
        ),
    ] {
        let found = parse_with(SMALL, &[(variable, value)]).unwrap_err().to_string();
        assert_eq!(found, expected);
    }
    let twins = format!("{}{}", SMALL.replace("gateway", "a-b"), SMALL.replace("gateway", "a_b"));
    assert_eq!(
        parse_with(&twins, &[("KEYTIDE_SOURCE__A_B__PATH", "x")]).unwrap_err().to_string(),
        "KEYTIDE_SOURCE__A_B__PATH: more than one source is called `a_b` here, rename one of them"
    );
    assert_eq!(
        parse_with("", &[("KEYTIDE_SOURCE__A__PATH", "x")]).unwrap_err().to_string(),
        "KEYTIDE_SOURCE__A__PATH: no source is called `a`, sources with a name: none\n\
         KEYTIDE_SOURCE__A__PATH: source: is empty, allowed: at least one [[source]]"
    );
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let load = |secret: &str, content: Option<&[u8]>| {
        let file = folder.path().join("keytide.toml");
        std::fs::write(&file, format!("{SMALL}[keys]\nhash = \"hmac-sha256\"\nsecret = \"{secret}\""))
            .unwrap();
        if let Some(content) = content {
            std::fs::write(folder.path().join("secret"), content).unwrap();
        }
        JobConfig::load(&file, env(&[("HMAC", "from the environment"), ("EMPTY", "")])).map(|loaded| {
            let KeyHash::HmacSha256 { secret } = &loaded.job.sources[0].keys.hash else { panic!("hmac") };
            (secret.reveal().to_owned(), loaded.warnings.len())
        })
    };
    let problem = |secret: &str, content: Option<&[u8]>| {
        let found = load(secret, content).unwrap_err().to_string();
        found.split_once("keys.secret: ").unwrap().1.to_owned()
    };
    assert_eq!(load("env:HMAC", None).unwrap(), ("from the environment".to_owned(), 0));
    assert_eq!(
        load("file:secret", Some(b"from a file, long\r\n")).unwrap(),
        ("from a file, long".to_owned(), 0)
    );
    assert_eq!(load("file:secret", Some(b" two\n\n")).unwrap(), (" two\n".to_owned(), 1));
    assert_eq!(load("file:secret", Some(b"one\r")).unwrap(), ("one\r".to_owned(), 1));
    assert_eq!(problem("env:EMPTY", None), "what it refers to is empty");
    assert_eq!(problem("env:ABSENT", None), "environment variable ABSENT isn't set");
    assert_eq!(problem("file:secret", Some(b"\n")), "what it refers to is empty");
    assert!(problem("file:secret", Some(b"\xff")).starts_with("file \"secret\" can't be read: "));
    assert!(problem("file:absent", None).starts_with("file \"absent\" can't be read: "));
    assert!(load("file:secret", Some(&[b'x'; 64 << 10])).is_ok());
    assert!(
        problem("file:secret", Some(&[b'x'; (64 << 10) + 1]))
            .ends_with("it is too long, allowed: 65536 bytes")
    );
}

/// What a careless user could do with a secret, and no output may repeat.
#[test]
fn secrets_are_never_shown() {
    const CANARY: &str = "canary-4f1c9e";
    let places = [
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = \"{CANARY}\""),
        format!("[keys]\nhash = \"{CANARY}\""),
        format!("[keys]\nhash = \"hmac-sha256:{CANARY}\""),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = [\"{CANARY}\"]"),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = {{ value = \"{CANARY}\" }}"),
        format!("[keys]\nhmac_secret = \"{CANARY}\""),
        "[keys]\nsecret = \"env:HELD\"".to_owned(),
        "[keys]\nhash = \"hmac-sha256\"\nsecret = \"env:HELD\"".to_owned(),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = \"env:{CANARY}\""),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = \"{CANARY}"),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = {CANARY}"),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret = \"\"\"{CANARY}"),
        format!("[keys]\nhash = \"hmac-sha256\"\nsecret: {CANARY}"),
        format!("[sink.kafka]\npassword = \"{CANARY}\""),
        format!("[sink.kafka]\nbrokers = \"user:{CANARY}@kafka:9092\""),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"sasl.password\" = \"{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\nsasl.password = \"{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"sasl.pasword\" = \"{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"group.id\" = \"{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"client.id\" = [\"{CANARY}\"]"
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"client.id\" = \"env:{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"sasl.mechanism\" = \"{CANARY}\""
        ),
        format!(
            "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"security.protocol\" = \"{CANARY}\""
        ),
        "[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"sasl.password\" = \"env:HELD\""
            .to_owned(),
        format!("[sink.kafka]\nbrokers = \"kafka:9092\"\nlibrdkafka = \"{CANARY}\""),
        format!("[http]\ntoken = \"{CANARY}\""),
        "[http]\ntoken = \"env:HELD\"".to_owned(),
    ];
    let variables: [&[(&str, &str)]; 6] = [
        &[("HELD", CANARY), ("KEYTIDE_SINK__KAFKA__LIBRDKAFKA__SASL_PASSWORD", CANARY)],
        &[("HELD", CANARY), ("KEYTIDE_HTTP__TOKEN", CANARY)],
        &[("HELD", CANARY)],
        &[("HELD", CANARY), ("KEYTIDE_KEYS__SECRET", CANARY)],
        &[("HELD", CANARY), ("KEYTIDE_KEYS__SECERT", CANARY)],
        &[("HELD", CANARY), ("KEYTIDE_KEYS__SECRET__X", CANARY)],
    ];
    for place in &places {
        for variables in variables {
            let result = parse_with(&format!("{SMALL}{place}"), variables);
            let mut output = format!("{result:?}");
            match result {
                Ok(loaded) => output += &loaded.job.fingerprint(),
                Err(error) => output += &error.to_string(),
            }
            assert!(!output.contains(CANARY), "{place}\n{output}");
        }
    }
}

#[test]
fn the_fingerprint_tells_results_apart() {
    let text = everything(true);
    let fingerprint = |text: &str, secret: &str| {
        let mut variables = ALTERNATIVES.to_vec();
        variables[0].1 = secret;
        let loaded = parse_with(text, &variables).unwrap_or_else(|error| panic!("{error}"));
        loaded.job.fingerprint()
    };
    let original = fingerprint(&text, "0123456789abcdef");
    assert_eq!(original.len(), 32);
    for (from, to) in [
        ("workers = 1 ", "workers = 2 "),
        ("name = \"keytide\"", "name = \"other\""),
        ("block_bytes = \"128KiB\"", "block_bytes = \"64KiB\""),
        ("reload = \"10s\"", "reload = \"20s\""),
        ("\"plaintext\"", "\"ssl\""),
        ("prefix = \"keytide\"", "prefix = \"other\""),
        ("partitions = 6", "partitions = 7"),
        ("buffer = \"64MiB\"", "buffer = \"32MiB\""),
        ("dir = \"out\"", "dir = \"elsewhere\""),
        ("127.0.0.1:9464", "127.0.0.1:9465"),
        ("level = \"info\"", "level = \"warn\""),
        ("security@example.com", "others@example.com"),
        ("hooks.example.com", "hooks.example.org"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(fingerprint(&text.replacen(from, to, 1), "0123456789abcdef"), original, "{from}");
    }
    assert_ne!(fingerprint(&text, "0123456789abcdeF"), original);
    let mut seen = BTreeSet::from([original]);
    for (from, to) in [
        ("tick = \"1s\"", "tick = \"2s\""),
        ("name = \"gateway\"", "name = \"gate\""),
        ("logs/gateway", "logs/gate"),
        ("format = \"json\"\n", "format = \"kong\"\n"),
        ("inner = \"aws-apigateway\"", "inner = \"otel\""),
        ("dedupe = \"batch\"", "dedupe = \"content\""),
        ("dedupe = \"batch\"", "dedupe = \"message\""),
        ("dedupe = \"batch\"", "dedupe = \"request_id\""),
        ("unwrap = [\"/log\", \"/message\"]", "unwrap = [\"/message\", \"/log\"]"),
        ("unwrap = [\"/log\", \"/message\"]", "unwrap = []"),
        ("records = [\"/records\", \"/Records\"]", "records = [\"/records\"]"),
        ("\"http.log.access*\"", "\"http.log.*\""),
        ("\"http.log.access*\"", "[\"http.log.access*\", \"x\"]"),
        ("\"/logger\" = ", "\"/kind\" = "),
        ("from = \"gateway\" ", "from = \"path\" "),
        ("query = \"/query\"", "query = \"/q\""),
        ("request = \"/request\"", "request = \"/r\""),
        ("at = [\"/end\", \"/ended\"]", "at = [\"/ended\", \"/end\"]"),
        ("at = [\"/end\", \"/ended\"]", "at = [\"/end\"]"),
        ("count = \"/count\"", ""),
        ("\"/requestId\"", "\"/id\""),
        ("\"/routeKey\"", "\"/route/Key\""),
        ("api = \"/api\"", ""),
        ("unit = \"ms\"", "unit = \"us\""),
        ("unit = \"ms\"", "format = \"%F %T\""),
        ("unit = \"ms\"", "unit = \"ms\", zone = \"Asia/Seoul\""),
        ("from = [\"key\"]", "from = [\"key\", \"user\"]"),
        ("missing = \"anonymous\"\n\n[[source", "missing = \"dead_letter\"\n\n[[source"),
        ("tables/keys.csv", "tables/key.csv"),
        ("brokers = \"kafka-1:9092,kafka-2:9092\" ", "brokers = \"kafka-3:9092\" "),
        ("topic = \"access-events\"", "topic = \"events\""),
        ("start = \"earliest\"", "start = \"latest\""),
        ("start = \"earliest\"", "start = \"2026-01-31T12:00:00Z\""),
        ("start = \"earliest\"", "start = { 0 = 1769860800000 }"),
        ("start = \"earliest\"", "start = { 0 = 1, 1 = 0 }"),
        ("end = \"latest\"", "end = \"2026-01-31T12:00:00Z\""),
        ("end = \"latest\"", "end = { 0 = 1769860800000 }"),
        ("on_gap = \"stop\"", "on_gap = \"skip\""),
        ("topic = \"subscriptions\"", "topic = \"subs\""),
        ("format = \"json-upsert\"", "format = \"debezium\""),
        ("idle_ticks = 5", "idle_ticks = 6"),
        ("skew = \"5m\"", "skew = \"6m\""),
        ("tables/plans.jsonl\"\nformat = \"jsonl\"", "tables/plans.jsonl\"\nformat = \"csv\""),
        ("tables/leaks.csv", "tables/leak.csv"),
        ("geo/country.mmdb", "geo/c.mmdb"),
        ("geo/city.mmdb", "geo/c.mmdb"),
        ("geo/networks.csv", "geo/n.csv"),
        ("trusted_proxies = []", "trusted_proxies = [\"10.0.0.0/8\"]"),
        ("templates = []", "templates = [\"/\"]"),
        ("out_of_orderness = \"5s\"", "out_of_orderness = \"6s\""),
        ("allowed_lateness = \"10m\"", "allowed_lateness = \"9m\""),
        ("dedupe_horizon = \"1h\"", "dedupe_horizon = \"2h\""),
        ("unproven = \"count\"", "unproven = \"list\""),
        ("message_bytes = \"8MiB\"", "message_bytes = \"2MiB\""),
        ("tick_records = 100000", "tick_records = 100001"),
        ("decompressed_bytes = \"16MiB\"", "decompressed_bytes = \"17MiB\""),
        ("\nkeys = 1250000", "\nkeys = 1250001"),
        ("\nroutes = 100000", "\nroutes = 100001"),
        ("key_routes = 2500000", "key_routes = 2500001"),
        ("routes_per_key = 2000", "routes_per_key = 2001"),
        ("key_countries = 2500000", "key_countries = 2500001"),
        ("agents = 65536", "agents = 65537"),
        ("callers_exact = 4096", "callers_exact = 4097"),
        ("default = \"alert\"", "default = \"suspend\""),
        ("keys_per_hour = 10", "keys_per_hour = 11"),
        ("percent_per_hour = 1 ", "percent_per_hour = 2 "),
        ("cooldown = \"24h\"", "cooldown = \"25h\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(seen.insert(fingerprint(&text.replacen(from, to, 1), "0123456789abcdef")), "{from}");
    }
}

/// A fingerprint is kept in journals: the same configuration has the same one in every build of a version.
#[test]
fn the_fingerprint_of_a_configuration_never_changes() {
    let of = |text: &str, variables: &[(&str, &str)]| {
        parse_with(text, variables).unwrap_or_else(|error| panic!("{error}")).job.fingerprint()
    };
    for (text, fingerprint) in [
        (SMALL.to_owned(), "f88f44a74881405c7737a7ea4bf39219"),
        (
            KAFKA.to_owned() + "start = { 0 = 7 }\nend = \"2026-01-31T12:00:00Z\"\non_gap = \"skip\"",
            "c4de7ddc8b9a7dfb5c78be7332bb6885",
        ),
        (text_source("pattern = '$msec $status'\nzone = \"Asia/Seoul\""), "120c5d2977121adbcbd822a07a5f70a5"),
        (everything(false), "fea3ff3eb661faeec095fbb537e7e0da"),
        (everything(true), "2cf24e445c81b91ed02f832b98e4b86e"),
    ] {
        assert_eq!(of(&text, ALTERNATIVES), fingerprint, "{text}");
    }
}

/// Problems of `KAFKA` with `lines` behind it, without where they stand.
fn kafka_problems(lines: &str) -> String {
    let found = problems(&format!("{KAFKA}{lines}"));
    let told = |line: &str| line.split_once("\"gateway\".").map_or(line, |(_, told)| told).to_owned();
    found.lines().map(told).collect::<Vec<_>>().join("\n")
}

fn kafka_source(text: &str) -> KafkaSource {
    match job(text).sources.remove(0).kind {
        SourceKind::Kafka(source) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_needs_brokers_and_a_name() {
    assert_eq!(kafka_source(KAFKA), KafkaSource::new(client("kafka:9092", &[]), "events"));
    let source = KafkaSource::new(client("kafka:9092", &[]), "events");
    assert_eq!((&source.start, &source.end, source.on_gap), (&Start::Earliest, &End::Latest, OnGap::Stop));
    assert_eq!(
        problems("[[source]]\nname = \"gateway\"\nkind = \"kafka\"\nformat = \"apisix\"\npath = \"x\""),
        "line 1: source.\"gateway\".brokers: missing, allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"\n\
         line 1: source.\"gateway\".topic: missing, allowed: 1 to 249 of A-Z, a-z, 0-9, ., _ and -\n\
         line 5: source.\"gateway\".path: has no meaning here, allowed: only beside kind = \"file\""
    );
    assert_eq!(
        problems(&format!(
            "{SMALL}brokers = \"a:1\"\nstart = \"latest\"\nend = \"latest\"\non_gap = \"skip\"\n[source.librdkafka]"
        ))
        .matches("has no meaning here, allowed: only beside kind = \"kafka\"")
        .count(),
        5
    );
}

#[test]
fn brokers_are_hosts_with_ports() {
    for (text, brokers) in [
        ("a:1", Some("a:1")),
        (
            " kafka-1.example:9092 , [::1]:9093,10.0.0.1:65535 ",
            Some("kafka-1.example:9092,[::1]:9093,10.0.0.1:65535"),
        ),
        ("", None),
        ("kafka", None),
        ("kafka:", None),
        (":9092", None),
        ("kafka:0", None),
        ("kafka:65536", None),
        ("kafka:+1", None),
        ("a:1,", None),
        ("::1:9092", None),
        ("a b:1", None),
        ("[kafka]:1", None),
    ] {
        let found = parse(&KAFKA.replace("kafka:9092", text));
        let found = found.ok().map(|mut loaded| match loaded.job.sources.remove(0).kind {
            SourceKind::Kafka(source) => source.client.brokers,
            other => panic!("{other:?}"),
        });
        assert_eq!(found.as_deref(), brokers, "{text}");
    }
    let list = |count: usize| KAFKA.replace("kafka:9092", &vec!["a:1"; count].join(","));
    assert_eq!(problems(&list(64)), "");
    assert_ne!(problems(&list(65)), "");
    let allowed = "allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"";
    for (brokers, expected) in [
        (
            "SASL_SSL://kafka:9092",
            format!(
                "found \"SASL_SSL://kafka:9092\", {allowed}; the protocol stands in `librdkafka`: security.protocol"
            ),
        ),
        (
            "me:hunter2@kafka:9092",
            format!(
                "found a value that is not shown, {allowed}; users and passwords stand in `librdkafka`: sasl.username, sasl.password"
            ),
        ),
    ] {
        assert_eq!(
            problems(&KAFKA.replace("kafka:9092", brokers)),
            format!("line 4: source.\"gateway\".brokers: {expected}")
        );
    }
}

#[test]
fn topics_have_names_that_kafka_takes() {
    let longest = "t".repeat(249);
    for (topic, allowed) in [
        ("Crm.public_Keys-1", true),
        (longest.as_str(), true),
        (&format!("{longest}t"), false),
        ("", false),
        (".", false),
        ("..", false),
        ("a b", false),
        ("a/b", false),
        ("^events.*", false),
        ("ключи", false),
    ] {
        assert_eq!(parse(&KAFKA.replace("\"events\"", &format!("\"{topic}\""))).is_ok(), allowed, "{topic}");
    }
}

#[test]
fn reading_starts_and_ends_at_a_word_a_time_or_offsets() {
    let offsets = |pairs: &[(u32, u64)]| pairs.iter().copied().collect::<std::collections::BTreeMap<_, _>>();
    const NOON: u64 = 1_769_860_800_000;
    for (written, start) in [
        ("\"earliest\"", Start::Earliest),
        ("\"latest\"", Start::Latest),
        ("\"2026-01-31T12:00:00Z\"", Start::Time(NOON)),
        ("2026-01-31T12:00:00Z", Start::Time(NOON)),
        ("\"2026-01-31T13:30:00+01:30\"", Start::Time(NOON)),
        ("\"2026-01-31T12:00:00.000000001Z\"", Start::Time(NOON + 1)),
        ("\"1970-01-01T00:00:00Z\"", Start::Time(0)),
        ("{ 0 = 100, 17 = 0 }", Start::Offsets(offsets(&[(0, 100), (17, 0)]))),
        ("{ \"3\" = 9223372036854775807 }", Start::Offsets(offsets(&[(3, i64::MAX.unsigned_abs())]))),
    ] {
        assert_eq!(kafka_source(&format!("{KAFKA}start = {written}")).start, start, "{written}");
        let again = format!("{KAFKA}start = {}", toml_of(&start.to_string()));
        assert_eq!(kafka_source(&again).start, start, "{start} is displayed as it is written");
    }
    assert_eq!(kafka_source(&format!("{KAFKA}end = \"2026-01-31T12:00:00Z\"")).end, End::Time(NOON));
    assert_eq!(kafka_source(&format!("{KAFKA}end = {{ 1 = 5 }}")).end, End::Offsets(offsets(&[(1, 5)])));
    assert_eq!(kafka_source(&format!("{KAFKA}end = {{ 1 = 5 }}")).end.to_string(), "{ 1 = 5 }");

    let points = "a time with its offset such as \"2026-01-31T12:00:00Z\", or offsets by partition such as { 0 = 100 }";
    let allowed = format!("allowed: \"earliest\", \"latest\", {points}");
    for (lines, expected) in [
        ("start = \"earlist\"", format!("start: found \"earlist\", {allowed}; did you mean \"earliest\"?")),
        ("start = \"2026-01-31T12:00:00\"", format!("start: found \"2026-01-31T12:00:00\", {allowed}")),
        ("start = 2026-01-31", format!("start: found 2026-01-31, {allowed}")),
        ("start = \"1969-12-31T23:59:59Z\"", format!("start: found \"1969-12-31T23:59:59Z\", {allowed}")),
        ("start = 7", format!("start: found 7, {allowed}")),
        ("start = {}", format!("start: found a section, {allowed}")),
        (
            "start = { a = 1 }",
            format!("start: found a section, {allowed}; \"a\" is no number of a partition"),
        ),
        (
            "start = { 00 = 1 }",
            format!("start: found a section, {allowed}; \"00\" is no number of a partition"),
        ),
        (
            "start = { 1048576 = 1 }",
            format!("start: found a section, {allowed}; \"1048576\" is no number of a partition"),
        ),
        (
            "start = { 0 = -1 }",
            format!("start: found a section, {allowed}; the offset of partition 0 is no whole number"),
        ),
        ("end = \"earliest\"", format!("end: found \"earliest\", allowed: \"latest\", {points}")),
        ("on_gap = \"go\"", "on_gap: found \"go\", allowed: stop, skip".to_owned()),
        (
            "start = 2026-01-31T12:00:00Z\nend = 2026-01-31T12:00:00Z",
            "end: found 2026-01-31T12:00:00Z, allowed: a time after `start`, which is 2026-01-31T12:00:00Z"
                .to_owned(),
        ),
        (
            "start = { 0 = 10, 1 = 5 }\nend = { 0 = 9, 1 = 5, 2 = 0 }",
            "end: partition 0 ends at 9, allowed: at least 10, where it starts".to_owned(),
        ),
    ] {
        assert_eq!(kafka_problems(lines), expected, "{lines}");
    }
}

/// A displayed start as TOML: only tables stand without quotes.
fn toml_of(text: &str) -> String {
    if text.starts_with('{') { text.to_owned() } else { format!("\"{text}\"") }
}

#[test]
fn settings_of_the_client_reach_it_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keytide.toml");
    std::fs::write(folder.path().join("password"), "from a file\n").unwrap();
    let text = format!(
        "{KAFKA}[source.librdkafka]\n\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
         \"sasl.username\" = \"env:USER_NAME\"\n\"sasl.password\" = \"file:password\"\n\"fetch.max.bytes\" = 1000\n\
         \"socket.keepalive.enable\" = true\n\"ssl.ca.location\" = \"ca.pem\"\n\"ssl.key.location\" = \"/etc/key.pem\"\n\
         debug = \"broker\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let loaded =
        JobConfig::load(&file, env(&[("USER_NAME", "me")])).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    let SourceKind::Kafka(source) = &loaded.job.sources[0].kind else { panic!("a topic") };
    let settings: Vec<_> =
        source.client.settings.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    let authority = folder.path().join("ca.pem");
    assert_eq!(
        settings,
        [
            ("debug", "broker"),
            ("fetch.max.bytes", "1000"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.password", "from a file"),
            ("sasl.username", "me"),
            ("security.protocol", "SASL_SSL"),
            ("socket.keepalive.enable", "true"),
            ("ssl.ca.location", authority.to_str().unwrap()),
            ("ssl.key.location", "/etc/key.pem"),
        ]
    );
    assert!(!format!("{source:?}").contains("from a file") && !format!("{source:?}").contains("\"me\""));
}

#[test]
fn settings_that_guarantees_rest_on_are_refused_with_the_reason() {
    for (name, reason) in [
        ("bootstrap.servers", "is what `brokers` says, remove it"),
        ("metadata.broker.list", "is what `brokers` says, remove it"),
        (
            "group.id",
            "can't be set: the job deals partitions to its workers itself and joins no group, remove it",
        ),
        (
            "enable.auto.commit",
            "can't be set: which offsets are done depends on the results, which the library doesn't know, remove it",
        ),
        (
            "auto.offset.reset",
            "can't be set: it would pass over records without a trace, allowed: `start`, and `on_gap` for records that are gone",
        ),
        ("enable.partition.eof", "can't be set: the job must learn where a partition ends, remove it"),
        ("isolation.level", "can't be set: reading uncommitted records would meter aborted ones, remove it"),
        ("check.crcs", "can't be set: damaged records must be noticed, remove it"),
        ("statistics.interval.ms", "can't be set: metrics of lag rest on it, remove it"),
        ("allow.auto.create.topics", "can't be set: a misspelt topic would come into being, remove it"),
        ("plugin.library.paths", "can't be set: it loads code that the job can't answer for, remove it"),
        (
            "enable.sasl.oauthbearer.unsecure.jwt",
            "can't be set: a token that nobody signed proves nothing, allowed: keytide.oauth.token.file",
        ),
        ("sasl.jaas.config", "is for Java clients, allowed: sasl.username and sasl.password"),
        (
            "sasl.kerberos.principal",
            "can't be set: Kerberos isn't in this build, allowed: another sasl.mechanism",
        ),
        ("test.mock.num.brokers", "can't be set: it replaces the brokers by a mock, remove it"),
        ("keytide.oauth.token", "is none of ours, allowed: keytide.oauth.token.file"),
        ("Client.Id", "isn't the name of a setting, allowed: 1 to 128 of a-z, 0-9, ., _ and -"),
        ("sasl.password", "holds a secret, which may not stand here, write \"env:NAME\" or \"file:PATH\""),
    ] {
        let found = kafka_problems(&format!("[source.librdkafka]\n\"{name}\" = \"1\""));
        assert_eq!(found, format!("librdkafka.\"{name}\": {reason}"));
    }
    for (name, reason) in [
        (
            "enable.idempotence",
            "can't be set: without idempotence and its order an older row could overwrite a newer one, remove it",
        ),
        ("acks", "can't be set: what fewer than all replicas acknowledge can be lost, remove it"),
        ("transactional.id", "can't be set: transactions are the matter of `delivery`, remove it"),
        ("delivery.timeout.ms", "can't be set: an outage is waited out, and no record given up, remove it"),
        (
            "queue.buffering.max.kbytes",
            "can't be set: what waits to be sent is bounded in one place, allowed: `buffer`",
        ),
        ("queue.buffering.max.ms", "is the old name of a setting, allowed: linger.ms"),
        ("partitioner", "can't be set: a row's key must always lie in the same partition, remove it"),
        ("dr_msg_cb", "can't be set: the job must learn what was delivered, remove it"),
        (
            "allow.auto.create.topics",
            "can't be set: topics need the right cleanup policy, allowed: `create_topics`",
        ),
        (
            "group.id",
            "can't be set: the job deals partitions to its workers itself and joins no group, remove it",
        ),
    ] {
        let text =
            format!("{SMALL}[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"{name}\" = 1");
        assert_eq!(problems(&text), format!("line 9: sink.kafka.librdkafka.\"{name}\": {reason}"));
    }
    let table = "[tables.keys]\nkind = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"keys\"\nformat = \"debezium\"\n[tables.keys.librdkafka]\n\"auto.offset.reset\" = \"latest\"";
    assert_eq!(
        problems(&format!("{SMALL}{table}")),
        "line 12: tables.keys.librdkafka.\"auto.offset.reset\": can't be set: a table is read from its beginning, and a sink reads nothing, remove it"
    );
    let many = |count: usize| (0..count).map(|i| format!("\"x.{i}\" = 1\n")).collect::<String>();
    assert_eq!(kafka_problems(&format!("[source.librdkafka]\n{}", many(128))), "");
    assert_eq!(
        kafka_problems(&format!("[source.librdkafka]\n{}", many(129))),
        "librdkafka: found 129 settings, allowed: at most 128"
    );
}

#[test]
fn settings_fit_each_other() {
    let mechanisms = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER";
    for (lines, expected) in [
        (
            "security.protocol = \"ssl\"",
            "librdkafka.\"security\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"; a name with dots is written in quotes".to_owned(),
        ),
        (
            "\"client.id\" = 1.5",
            "librdkafka.\"client.id\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"".to_owned(),
        ),
        (
            "\"client.id\" = \"env:\"",
            "librdkafka.\"client.id\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"".to_owned(),
        ),
        ("\"client.id\" = \"env:NOT_THERE\"", "librdkafka.\"client.id\": environment variable NOT_THERE isn't set".to_owned()),
        (
            "\"security.protocol\" = \"tls\"",
            "librdkafka.\"security.protocol\": found a value that is not shown, allowed: plaintext, ssl, sasl_plaintext, sasl_ssl".to_owned(),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"",
            format!("librdkafka.\"security.protocol\": needs \"sasl.mechanism\" beside it, allowed: {mechanisms}"),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanisms\" = \"GSSAPI\"",
            format!("librdkafka.\"sasl.mechanisms\": Kerberos isn't in this build, allowed: {mechanisms}"),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"scram\"",
            format!("librdkafka.\"sasl.mechanism\": found a value that is not shown, allowed: {mechanisms}"),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"PLAIN\"",
            "librdkafka.\"sasl.mechanism\": needs \"sasl.username\" beside it\nlibrdkafka.\"sasl.mechanism\": needs \"sasl.password\" beside it".to_owned(),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"",
            "librdkafka.\"sasl.mechanism\": needs \"keytide.oauth.token.file\" beside it".to_owned(),
        ),
        (
            "\"sasl.oauthbearer.method\" = \"OIDC\"",
            "librdkafka.\"sasl.oauthbearer.method\": oidc isn't in this build, allowed: \"keytide.oauth.token.file\", a file whose token somebody else renews".to_owned(),
        ),
        (
            "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"keytide.oauth.token.file\" = \"token\"",
            String::new(),
        ),
    ] {
        assert_eq!(kafka_problems(&format!("[source.librdkafka]\n{lines}")), expected, "{lines}");
    }
    for (lines, expected) in [
        (
            "\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"keytide.oauth.token.file\" = \"token\"",
            "line 8: source.\"gateway\".librdkafka.\"sasl.mechanism\": has no effect: nobody logs in without security.protocol = \"sasl_ssl\"",
        ),
        (
            "\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"me\"\n\"sasl.password\" = \"env:PASSWORD\"",
            "line 9: source.\"gateway\".librdkafka.\"sasl.mechanism\": sends the password in clear: sasl_ssl wouldn't",
        ),
        (
            "\"enable.ssl.certificate.verification\" = false\n\"ssl.endpoint.identification.algorithm\" = \"none\"",
            "line 8: source.\"gateway\".librdkafka.\"enable.ssl.certificate.verification\": enable.ssl.certificate.verification is off, so that anybody can pose as a broker\n\
             line 9: source.\"gateway\".librdkafka.\"ssl.endpoint.identification.algorithm\": ssl.endpoint.identification.algorithm is off, so that anybody can pose as a broker",
        ),
    ] {
        let loaded =
            parse_with(&format!("{KAFKA}[source.librdkafka]\n{lines}"), &[("PASSWORD", "p")]).unwrap();
        let found: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
        assert_eq!(found.join("\n"), expected);
    }
}

#[test]
fn variables_reach_brokers_topics_and_settings() {
    let job = parse_with(
        KAFKA,
        &[
            ("KEYTIDE_SOURCE__GATEWAY__BROKERS", "127.0.0.1:9092"),
            ("KEYTIDE_SOURCE__GATEWAY__TOPIC", "calls"),
            ("KEYTIDE_SOURCE__GATEWAY__START", "{ 0 = 7 }"),
            ("KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__SASL_PASSWORD", "env:PASSWORD"),
            ("KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__DEBUG", "all"),
            ("PASSWORD", "p"),
            ("KEYTIDE_TABLES__KEYS__KIND", "kafka"),
            ("KEYTIDE_TABLES__KEYS__BROKERS", "kafka:1"),
            ("KEYTIDE_TABLES__KEYS__TOPIC", "keys"),
            ("KEYTIDE_TABLES__KEYS__FORMAT", "debezium"),
            ("KEYTIDE_TABLES__KEYS__LIBRDKAFKA__CLIENT_ID", "me"),
            ("KEYTIDE_SINK__KAFKA__BROKERS", "kafka:2"),
            ("KEYTIDE_SINK__KAFKA__REPLICATION", "3"),
            ("KEYTIDE_SINK__KAFKA__LIBRDKAFKA__LINGER_MS", "5"),
        ],
    )
    .unwrap_or_else(|error| panic!("{error}"))
    .job;
    let offsets = Start::Offsets([(0, 7)].into());
    let events = client("127.0.0.1:9092", &[("debug", "all"), ("sasl.password", "p")]);
    assert_eq!(
        job.sources[0].kind,
        SourceKind::Kafka(KafkaSource { start: offsets, ..KafkaSource::new(events, "calls") })
    );
    assert_eq!(
        job.tables.keys,
        Some(TableSource::Kafka {
            client: client("kafka:1", &[("client.id", "me")]),
            topic: "keys".to_owned(),
            format: TopicFormat::Debezium
        })
    );
    let sink = KafkaSink { replication: Some(3), ..KafkaSink::new(client("kafka:2", &[("linger.ms", "5")])) };
    assert_eq!(job.sinks.kafka, Some(sink));

    let text = format!("{KAFKA}[source.librdkafka]\n\"client.id\" = \"a\"");
    let overridden = parse_with(&text, &[("KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__CLIENT_ID", "b")]).unwrap();
    assert_eq!(
        overridden.job.sources[0].kind,
        SourceKind::Kafka(KafkaSource::new(client("kafka:9092", &[("client.id", "b")]), "events"))
    );
    for (variable, value, expected) in [
        (
            "KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__GROUP_ID",
            "x",
            "source.\"gateway\".librdkafka.\"group.id\": can't be set: the job deals partitions to its workers itself and joins no group, remove it",
        ),
        (
            "KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__SASL_PASSWORD",
            "hunter2",
            "source.\"gateway\".librdkafka.\"sasl.password\": holds a secret, which may not stand here, write \"env:NAME\" or \"file:PATH\"",
        ),
    ] {
        let found = parse_with(KAFKA, &[(variable, value)]).unwrap_err().to_string();
        assert_eq!(found, format!("{variable}: {expected}"));
    }
}

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
fn sinks_and_services_have_ranges() {
    let sink = "[sink.kafka]\nbrokers = \"a:1\"\n";
    let files = "[sink.files]\ndir = \"out\"\n";
    for (lines, expected) in [
        (
            "[sink.files]".to_owned(),
            "line 6: sink.files.dir: missing, allowed: a path, absolute or relative to the configuration file",
        ),
        ("[sink.redis]".to_owned(), "line 6: sink.redis: unknown key, allowed here: kafka, files"),
        (
            format!("{sink}delivery = \"exactly_once\""),
            "line 8: sink.kafka.delivery: \"exactly_once\" isn't available in this version, allowed: at_least_once; results aren't committed in transactions yet, so that a restart may send some again",
        ),
        (
            format!("{sink}delivery = \"at_least_onc\""),
            "line 8: sink.kafka.delivery: found \"at_least_onc\", allowed: at_least_once; did you mean \"at_least_once\"?",
        ),
        (format!("{sink}partitions = 0"), "line 8: sink.kafka.partitions: found 0, allowed: 1 to 10000"),
        (
            format!("{sink}partitions = 10001"),
            "line 8: sink.kafka.partitions: found 10001, allowed: 1 to 10000",
        ),
        (format!("{sink}replication = 0"), "line 8: sink.kafka.replication: found 0, allowed: 1 to 32767"),
        (
            format!("{sink}replication = 32768"),
            "line 8: sink.kafka.replication: found 32768, allowed: 1 to 32767",
        ),
        (
            format!("{sink}create_topics = \"yes\""),
            "line 8: sink.kafka.create_topics: found \"yes\", allowed: true, false",
        ),
        (
            format!("{sink}buffer = \"1023KiB\""),
            "line 8: sink.kafka.buffer: found \"1023KiB\", allowed: 1MiB to 4GiB",
        ),
        (
            format!("{sink}buffer = \"5GiB\""),
            "line 8: sink.kafka.buffer: found \"5GiB\", allowed: 1MiB to 4GiB",
        ),
        (
            format!("{sink}prefix = \"a b\""),
            "line 8: sink.kafka.prefix: found \"a b\", allowed: 1 to 200 of A-Z, a-z, 0-9, ., _ and -",
        ),
        (
            format!("{files}rotate_bytes = 1"),
            "line 8: sink.files.rotate_bytes: found 1, allowed: 4KiB to 64GiB",
        ),
        (
            format!("{files}rotate_after = \"8d\""),
            "line 8: sink.files.rotate_after: found \"8d\", allowed: 1s to 7d",
        ),
        (
            format!("{files}rotate_after = \"999ms\""),
            "line 8: sink.files.rotate_after: found \"999ms\", allowed: 1s to 7d",
        ),
        (format!("{files}keep = 1000001"), "line 8: sink.files.keep: found 1000001, allowed: 0 to 1000000"),
        ("[job]\nreload = \"0s\"".to_owned(), "line 7: job.reload: found \"0s\", allowed: 1s to 1h"),
        (
            "[windows]\nunproven = \"drop\"".to_owned(),
            "line 7: windows.unproven: found \"drop\", allowed: count, list",
        ),
        ("[windows]\nidle_ticks = 0".to_owned(), "line 7: windows.idle_ticks: found 0, allowed: 1 to 1000"),
        ("[windows]\nskew = \"59s\"".to_owned(), "line 7: windows.skew: found \"59s\", allowed: 1m to 1h"),
        (
            "[log]\nlevel = \"trace\"".to_owned(),
            "line 7: log.level: found \"trace\", allowed: error, warn, info, debug",
        ),
        ("[log]\nformat = \"text\"".to_owned(), "line 7: log.format: found \"text\", allowed: pretty, json"),
        (
            "[http]\nlisten = \"localhost:9464\"".to_owned(),
            "line 7: http.listen: found \"localhost:9464\", allowed: an address with a port, such as \"127.0.0.1:9464\"",
        ),
        (
            "[http]\nlisten = \"0.0.0.0:9464\"".to_owned(),
            "line 7: http.listen: found 0.0.0.0:9464, which others can reach, without a `token`, allowed: a loopback address, or token = \"env:NAME\" or \"file:PATH\", never the secret itself",
        ),
    ] {
        assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
    }
    let text = format!("{SMALL}[http]\nlisten = \"0.0.0.0:9464\"\ntoken = \"env:TOKEN\"");
    let token = "a-long-and-random-token";
    let http = parse_with(&text, &[("TOKEN", token)]).unwrap().job.http.unwrap();
    assert_eq!(http.token.as_ref().map(Secret::reveal), Some(token));
    assert!(!format!("{http:?}").contains(token));
    assert_eq!(
        parse_with(&text, &[("TOKEN", "no token of sixteen bytes")]).unwrap_err().to_string(),
        "line 8: http.token: what it refers to is no token, allowed: visible ASCII characters without blanks"
    );
}

#[test]
fn a_job_does_not_read_what_it_writes() {
    let with_prefix = |prefix: &str| format!("[sink.kafka]\nbrokers = \"b:1\"\nprefix = \"{prefix}\"\n");
    for view in VIEWS {
        let topic = format!("\"a.b.{view}.v1\"");
        let text = KAFKA.replace("\"events\"", &topic) + &with_prefix("a.b");
        assert_eq!(
            problems(&text),
            format!(
                "line 5: source.\"gateway\".topic: found {topic}, which the job writes itself, allowed: another topic, or another sink.kafka.prefix than \"a.b\""
            )
        );
        assert_eq!(problems(&(KAFKA.replace("\"events\"", &topic) + &with_prefix("a"))), "");
    }
    let table = "[tables.plans]\nkind = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"keytide.geo.v1\"\nformat = \"json-upsert\"\n";
    assert!(problems(&format!("{SMALL}{table}[sink.kafka]\nbrokers = \"b:1\"")).starts_with(
        "line 9: tables.plans.topic: found \"keytide.geo.v1\", which the job writes itself, allowed: "
    ));
    let files =
        |path: &str| problems(&format!("{}[sink.files]\ndir = \"out\"", SMALL.replace("logs/*.log", path)));
    assert_eq!(files("logs/*.jsonl"), "");
    assert_eq!(
        files("**/*.jsonl"),
        "line 4: source.\"gateway\".path: found \"**/*.jsonl\", which matches files that sink.files writes, allowed: another pattern, or another sink.files.dir"
    );
}

#[test]
fn a_topic_that_is_read_twice_is_a_warning() {
    let other = |brokers: &str| {
        let first = KAFKA.replace("kafka:9092", "a:1,b:2");
        warnings(&(first + &KAFKA.replace("gateway", "other").replace("kafka:9092", brokers)))
    };
    assert_eq!(
        other("b:2, a:1"),
        "line 11: source.\"other\".topic: another source reads \"events\" of these brokers too, so its events count twice"
    );
    assert_eq!(other("c:3"), "");
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        "[".repeat(100_000),
        "a = ".to_owned() + &"[".repeat(100_000),
        format!("{} = 1", "a.".repeat(100_000) + "a"),
        format!("[{}a]", "a.".repeat(100_000)),
        "a = ".to_owned() + &"{a=".repeat(100_000),
    ] {
        assert_ne!(problems(&text), "");
        assert!(parse_with(SMALL, &[("KEYTIDE_JOB__NAME", &text)]).is_err());
    }
}

/// An example with a few of its bytes replaced, removed or repeated.
fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> =
        examples().iter().map(|path| std::io::read_to_string(File::open(path).unwrap()).unwrap()).collect();
    let edit = (
        any::<prop::sample::Index>(),
        0_u8..3,
        prop::sample::select(b"\"'[]{}=#.,\n\\~/0a-_ \xff".as_slice()),
    );
    (prop::sample::select(texts), prop::collection::vec(edit, 1..8)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #[test]
    fn arbitrary_text_is_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(parse(&text).is_err());
    }

    #[test]
    fn mutated_examples_are_judged_alike_every_time(text in mutated(), value in "\\PC{0,20}|[\\[\\]{}\"=a-z0-9/.]{0,20}") {
        let variables = [("KEYTIDE_SOURCE__GATEWAY__PATH", value.as_str()), ("KEYTIDE_JOB__WORKERS", "2")];
        let once = format!("{:?}", parse_with(&text, &variables));
        prop_assert_eq!(once, format!("{:?}", parse_with(&text, &variables)));
    }
}

/// A source of text lines, with more keys behind its own.
fn text_source(more: &str) -> String {
    format!("[[source]]\nname = \"web\"\nkind = \"file\"\npath = \"*.log\"\nformat = \"text\"\n{more}")
}

#[test]
fn patterns_of_text_lines() {
    let pattern = r#"pattern = '$msec $request_id "$request" $status "$http_x_api_key"'"#;
    let rules = "\n[source.keys]\nfrom = [\"header:x-api-key\"]";
    let loaded = parse_with(&text_source(&format!("{pattern}{rules}")), &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.job.sources[0].pattern.as_ref().unwrap().variables().count(), 5);
    let unread = "\n[source.keys]\nfrom = [\"header:x-other\"]";
    let loaded = parse_with(&text_source(&format!("{pattern}{unread}")), &[]).unwrap();
    assert!(
        loaded.warnings[0].to_string().contains("can find a key in format text"),
        "{:?}",
        loaded.warnings
    );
    let mapped = "\n[source.fields]\nuser = \"/request_id\"\ntime = { at = \"/msec\", unit = \"s\" }";
    assert!(parse_with(&text_source(&format!("{pattern}{mapped}")), &[]).is_ok());
    for (more, expected) in [
        (String::new(), "pattern: missing".to_owned()),
        (
            "pattern = '$status'".to_owned(),
            "has no variable for the time, and every record needs its time; allowed: one such as $time_iso8601 or $msec".to_owned(),
        ),
        ("pattern = '$msec $status$request'".to_owned(), "at character 14: nothing stands between".to_owned()),
        (
            format!("{pattern}\n[source.fields]\nuser = \"/remote_user\""),
            "which is no variable of the pattern, allowed: /msec, /request_id".to_owned(),
        ),
        (
            "pattern = '$time_local $status'\ndedupe = \"content\"".to_owned(),
            "times of whole seconds".to_owned(),
        ),
    ] {
        let error = parse_with(&text_source(&more), &[]).unwrap_err().to_string();
        assert!(error.contains(&expected), "{error}");
    }
    let foreign = text_source(pattern).replace("\"text\"", "\"combined\"");
    assert!(parse_with(&foreign, &[]).unwrap_err().to_string().contains("only beside format = \"text\""));
}
