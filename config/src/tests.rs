//! The stages together: every kind of problem with its place, every example, and no input that panics or
//! leaks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::section::config::RawConfig;
use crate::toml::read::FromToml;
use crate::toml::tree::{self, TomlTable, TomlValue};
use crate::*;

/// The smallest job.
pub(crate) const SMALL: &str =
    "[[source]]\nname = \"gateway\"\nkind = \"file\"\npath = \"logs/*.log\"\nformat = \"apisix\"\n";
/// One whose fields can be replaced.
pub(crate) const JSON: &str = "[[source]]\nname = \"a\"\nkind = \"file\"\npath = \"a\"\nformat = \"json\"\n[source.fields]\ntime = { at = \"/t\", unit = \"ms\" }\nkey = \"/k\"\n";

/// One that reads a topic.
pub(crate) const KAFKA: &str = "[[source]]\nname = \"gateway\"\nkind = \"kafka\"\nbrokers = \"kafka:9092\"\ntopic = \"events\"\nformat = \"apisix\"\n";

pub(crate) fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

pub(crate) fn parse_with(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    JobConfig::parse(text, Path::new("/etc/keytide"), env(pairs))
}

pub(crate) fn parse(text: &str) -> Result<Loaded, ConfigError> {
    parse_with(text, &[])
}

pub(crate) fn job(text: &str) -> JobConfig {
    parse(text).unwrap_or_else(|error| panic!("{error}")).job
}

/// All problems, one per line; empty for a valid file.
pub(crate) fn problems(text: &str) -> String {
    parse(text).map_or_else(|error| error.to_string(), |_| String::new())
}

pub(crate) fn warnings(text: &str) -> String {
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
    ("KEYTIDE_ALICE_TOKEN", "fedcba9876543210"),
    ("KEYTIDE_EDGE_TOKEN", "fedcba9876543211"),
    ("KEYTIDE_ACME_TOKEN", "fedcba9876543212"),
    ("KEYTIDE_LINK_SECRET", "fedcba9876543213"),
    ("KEYTIDE_MAIL_PASSWORD", "a password"),
    ("KEYTIDE_WEBHOOK_SECRET", "0123456789abcdef"),
    ("KEYTIDE_RECEIVER_SECRET", "0123456789abcdef"),
    ("KEYTIDE_RECEIVER_TOKEN", "0f1e2d3c4b5a6978"),
    ("KEYTIDE_ADMIN_TOKEN", "0123456789abcdef"),
    ("KEYTIDE_AWS_KEY_ID", "AKIAEXAMPLE"),
    ("KEYTIDE_AWS_SECRET", "0123456789abcdef"),
    ("KEYTIDE_CLUSTER_SECRET", "0123456789abcdef0123456789abcdef"),
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

pub(crate) fn client(brokers: &str, settings: &[(&str, &str)]) -> KafkaClient {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
    KafkaClient { settings: settings.collect(), ..KafkaClient::new(brokers) }
}

#[test]
fn everything_shows_every_key() {
    fn collect(table: TomlTable, path: &str, keys: &mut BTreeSet<String>) {
        for (key, node) in table.into_entries() {
            let path = if path.is_empty() { key } else { format!("{path}.{key}") };
            keys.insert(path.clone());
            match node.value {
                TomlValue::Table(inner) => collect(inner, &path, keys),
                TomlValue::List(items) => {
                    for item in items {
                        if let TomlValue::Table(inner) = item.value {
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
line 19: source."gateway".fields.satus: unknown key, allowed here: request_id, time, key, api, route, path, method, status, latency, bytes_in, bytes_out, units, client_ip, forwarded_for, country, user_agent, consumer, credential, user, query, request, end, count; did you mean status?
line 22: source."gateway".name: "gateway" names another source too, allowed: names that differ
line 24: source."gateway".path: found 7, allowed: a path, absolute or relative to the configuration file
line 25: source."gateway".format: found "jsn", allowed: json, apisix, kong, envoy, nginx, aws-apigateway, otel, cloudwatch, cloudevents, combined, text, alb, cloudfront, haproxy; did you mean "json"?
line 28: source."gateway".keys.hash: hmac-sha256 needs a `secret` beside it, allowed: "env:NAME" or "file:PATH", never the secret itself
line 30: tables.keys.path: missing, allowed: a path, absolute or relative to the configuration file
line 32: tables.keys.format: found "parquet", allowed: csv, jsonl, json-upsert, debezium
line 35: windows.allowed_lateness: a dedupe_horizon of 1h is shorter than the allowed_lateness of 2h, so that late events could count twice; allowed: at least as long
line 38: limits.json_depth: isn't available in this version, remove it
line 39: limits.message_bytes: found "65MiB", allowed: 1KiB to 64MiB
line 41: kyes: unknown key, allowed here: job, keys, source, tables, geo, routes, billing, windows, limits, sink, detection, alerts, gateway, http, api, pages, state, cluster, log; did you mean keys?"#;
    let found = problems(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found, expected);
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
fn files_that_are_no_configuration_are_reported() {
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
    assert_eq!(job.http, Some(Http { listen: "[::1]:80".parse().unwrap(), ..Http::default() }));
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
            "KEYTIDE_JBO__X: jbo: unknown key, allowed here: job, keys, source, tables, geo, routes, billing, windows, limits, sink, detection, alerts, gateway, http, api, pages, state, cluster, log; did you mean job?",
        ),
        (
            "KEYTIDE_SINK__KAFKA__PREFIX",
            "x",
            "KEYTIDE_SINK__KAFKA__PREFIX: sink.kafka.brokers: missing, allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"",
        ),
        (
            "KEYTIDE_LIMITS__JSON_DEPTH",
            "x",
            "KEYTIDE_LIMITS__JSON_DEPTH: limits.json_depth: isn't available in this version, remove it",
        ),
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
    let locations = [
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
    for location in &locations {
        for variables in variables {
            let result = parse_with(&format!("{SMALL}{location}"), variables);
            let mut output = format!("{result:?}");
            match result {
                Ok(loaded) => output += &loaded.job.fingerprint(),
                Err(error) => output += &error.to_string(),
            }
            assert!(!output.contains(CANARY), "{location}\n{output}");
        }
    }
}

#[test]
fn the_fingerprint_differs_with_the_results() {
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
        ("tables/quotas.csv", "tables/quota.csv"),
        ("tables/prices.csv", "tables/price.csv"),
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
        ("free_statuses = [429]", "free_statuses = []"),
        ("currency = \"EUR\"", "currency = \"KRW\""),
        ("close_after = \"5d\"", "close_after = \"6d\""),
        ("scale = 0", "scale = 1"),
        ("mode = \"dry_run\"  ", "mode = \"live\"  "),
        ("name = \"gateway\"\nkind = \"file\"", "name = \"edge\"\nkind = \"file\""),
        // A gateway that is elsewhere is on probation again.
        ("denied.txt", "elsewhere.txt"),
        ("probation = true ", "probation = false "),
        ("confirm_after = \"60s\"", "confirm_after = \"61s\""),
        ("keys_per_hour = 10                        ## optional", "keys_per_hour = 11 ##"),
        (
            "percent_per_hour = 1                      ## the same in percent of all",
            "percent_per_hour = 2 ##",
        ),
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
    let known = [
        (SMALL.to_owned(), "2369bc8333e00e81b5ccfacb2a4a1a23"),
        (
            KAFKA.to_owned() + "start = { 0 = 7 }\nend = \"2026-01-31T12:00:00Z\"\non_gap = \"skip\"",
            "600b2bdb4ca14123192d011d17f49df6",
        ),
        (text_source("pattern = '$msec $status'\nzone = \"Asia/Seoul\""), "79d36ae9f4e7bbae11ba681a032ab8b1"),
        (everything(false), "bae1ab108ebcf3b0bc9b813ef8e975e6"),
        (everything(true), "8f2c6c52c996810f0c9ad3f9f6cc5d1f"),
    ];
    assert_eq!(
        known.each_ref().map(|(text, _)| of(text, ALTERNATIVES)),
        known.map(|(_, fingerprint)| fingerprint)
    );
}

/// Problems of `KAFKA` with `lines` behind it, without where they stand.
pub(crate) fn kafka_problems(lines: &str) -> String {
    let found = problems(&format!("{KAFKA}{lines}"));
    let told = |line: &str| line.split_once("\"gateway\".").map_or(line, |(_, told)| told).to_owned();
    found.lines().map(told).collect::<Vec<_>>().join("\n")
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
pub(crate) fn text_source(more: &str) -> String {
    format!("[[source]]\nname = \"web\"\nkind = \"file\"\npath = \"*.log\"\nformat = \"text\"\n{more}")
}
