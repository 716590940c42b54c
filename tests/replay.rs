//! `keytide replay` as a black box: files in, files out, exit codes, and what must never be in any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_dataflow::model::hex;
use keytide_generator::generate;
use mmdb_writer::Writer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::{
    BESIDE_VIEWS, Ended, HOUR, Job, Keytide, MINUTE, OF_INCIDENTS, Row, SECOND, START, Schema, VIEWS, Views,
    call, names, parquet, path, read, read_log, read_text, repository,
};

/// The run's time where a test gives one: after the example's and the jobs' events.
const NOW: &str = "--now 2025-06-10T00:00:00Z";

/// The views of accounts that have no rows on the first day: nothing is forecast without a history, and no bill is final.
const OF_DAYS: [&str; 2] = ["forecast", "adjustments"];

fn example() -> PathBuf {
    repository().join("config/examples")
}

/// The committed example's views.
fn first_run(folder: &TempDir) -> (Views, Ended) {
    let ended = Keytide::replay(&example().join("replay.toml"), folder.path()).with(NOW).succeed();
    (Views::new(folder.path()), ended)
}

/// A made-up log with its tables.
fn generated(arguments: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), arguments).unwrap();
    folder
}

#[test]
fn the_command_generate_writes_what_the_library_does_and_says_what_comes_next() {
    let options = "--events 500 --keys 20 --broken 0.01 --seed 5";
    let (by_library, by_command) = (generated(options), tempfile::tempdir().unwrap());
    let out = path(by_command.path());
    let ended = Keytide::new(&["generate", "--out", out]).with(options).succeed();
    for name in names(by_library.path()).iter().filter(|name| name.contains('.')) {
        assert_eq!(read(&by_library.path().join(name)), read(&by_command.path().join(name)), "{name}");
    }
    let next = format!("next: keytide replay {out}/keytide.toml --out {out}/views");
    assert!(ended.stdout.starts_with("500 events in ") && ended.stdout.contains(&next), "{}", ended.stdout);
}

/// The lines of all logs in a folder.
fn lines(folder: &Path) -> Vec<String> {
    let logs = names(folder).into_iter().filter(|name| name.starts_with("events"));
    logs.flat_map(|name| read_log(&folder.join(name)).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

// ---- what is written

#[test]
fn the_first_run_writes_each_view_a_summary_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (views, ended) = first_run(&folder);
    let rows = views.summary()["rows"].clone();
    let with_rows = VIEWS.iter().filter(|view| rows[**view] != 0);
    let mut expected: BTreeSet<String> = with_rows.map(|view| format!("{view}.jsonl")).collect();
    expected.extend(BESIDE_VIEWS.map(str::to_owned));
    assert_eq!(names(folder.path()), expected);
    assert!(!expected.contains("revocations.jsonl"), "a view without rows has no file");
    let told: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        told[0].starts_with("warning: 2 of 3032 records were refused (2 syntax), the first in "),
        "{told:?}"
    );
    assert!(told[1].starts_with("warning: 29 of 3030 calls have no key "), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");

    let summary = views.summary();
    assert_eq!(
        serde_json::from_str::<Value>(&ended.stdout).unwrap(),
        summary,
        "what is printed is what is written"
    );
    let said: Value = serde_json::from_str(&read_text(&example().join("data/generated.json"))).unwrap();
    for (counted, generated) in
        [("events", "events"), ("late", "late"), ("duplicates", "duplicates"), ("dead_letters", "broken")]
    {
        assert_eq!(summary[counted], said[generated], "{counted}");
    }
    assert_eq!(summary["bytes"], said["bytes"]);
    assert_eq!(summary["now"], "2025-06-10T00:00:00Z");
    for view in VIEWS {
        assert_eq!(summary["rows"][view], views.text(view).lines().count(), "{view}");
    }
    for measured in ["events_per_s", "wall_s"] {
        assert!(summary[measured].as_f64().unwrap() > 0.0, "{measured}");
    }
    assert!(cfg!(not(target_os = "linux")) || views.count("peak_memory_bytes") > 0);
}

#[test]
fn the_overview_is_what_the_views_say() {
    let folder = tempfile::tempdir().unwrap();
    let (views, _) = first_run(&folder);
    let overview = views.summary()["overview"].clone();
    let sum = |rows: &[Row], column: &str| rows.iter().map(|row| row.number(column)).sum::<u64>();
    let mut months = views.window("usage", "1mo");
    assert_eq!(overview["calls"], sum(&months, "calls"));
    assert_eq!(overview["errors"], sum(&months, "errors_4xx") + sum(&months, "errors_5xx"));
    months.retain(|row| row.text("key_id") != "anonymous");
    assert_eq!(overview["keys"], months.len(), "the log lies within a month");
    let anonymous = overview["calls"].as_u64().unwrap() - sum(&months, "calls");
    assert_eq!(overview["without_key"], anonymous);
    months.sort_by_key(|row| (std::cmp::Reverse(row.number("calls")), row.text("key_id").to_owned()));
    let busiest = overview["busiest_keys"].as_array().unwrap();
    assert_eq!(busiest.len(), 10);
    for (shown, row) in busiest.iter().zip(&months) {
        let key = row.text("key_id");
        assert_eq!((&shown["key_id"], &shown["calls"]), (&key.into(), &row.number("calls").into()));
        let of = |view: &str, column: &str| {
            let mut rows = views.window(view, "1d");
            rows.retain(|row| row.text(column) == key);
            rows
        };
        let latency = of("latency", "id");
        assert_eq!(shown["p99_us"], latency[0].number("p99_us"), "the log lies within a day");
        assert_eq!(shown["callers"], of("callers", "id")[0].number("callers"));
        let countries: Vec<_> =
            of("geo", "key_id").iter().map(|row| row.text("country").to_owned()).collect();
        let countries: Vec<_> = countries.into_iter().filter(|country| country != "ZZ").collect();
        assert_eq!(shown["countries"], json!(countries));
    }
    let mut routes = views.window("latency", "1d");
    routes.retain(|row| row.text("scope") == "route" && row.number("calls") >= 100);
    let slowest = routes.iter().map(|row| row.number("p99_us")).max();
    assert_eq!(overview["slowest_routes"][0]["p99_us"].as_u64(), slowest);
    assert_eq!(overview["not_judged"][0]["reason"], "history");
    let refused = json!([{"reason": "syntax", "records": 2}]);
    assert_eq!((&overview["refused"], &overview["records"]), (&refused, &3032.into()));
}

#[test]
fn calls_that_come_too_late_for_the_detector_are_named_with_the_setting_that_helps() {
    // Two servers write to one file, one of them 14 minutes after the other.
    let calls = || {
        let at = (0..7_200).map(|n| n / 2 * SECOND + if n % 2 == 0 { 14 * MINUTE } else { 0 });
        at.enumerate().map(|(n, at)| call(at, &format!("r{n}"), "k"))
    };
    let not_judged = |windows: &str| {
        let job = Job::new(windows).log(calls());
        let out = job.path("out");
        Keytide::replay(&job.path("keytide.toml"), &out).with(NOW).succeed();
        let all = Views::new(&out).summary()["overview"]["not_judged"].clone();
        let late = all.as_array().unwrap().iter().find(|of| of["reason"] == "late").cloned();
        late.map(|late| late["text"].as_str().unwrap().to_owned())
    };
    let text = not_judged("").unwrap();
    assert!(text.contains(" came too late for the detector, up to 14 min behind: "), "{text}");
    assert!(text.ends_with("windows.out_of_orderness = \"15m\" admits all of them."), "{text}");
    assert_eq!(not_judged("[windows]\nout_of_orderness = \"15m\"\n"), None);
}

#[test]
fn a_run_that_is_to_be_quiet_prints_no_result() {
    let job = Job::new("").log([call(MINUTE, "r", "k")]);
    let (config, out) = (job.path("keytide.toml"), job.path("out"));
    let replay = |arguments: &str| Keytide::replay(&config, &out).with(NOW).with(arguments);
    let ended = replay("--quiet").succeed();
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.lines().all(|line| line.starts_with("warning: ")), "{}", ended.stderr);
    let ended = replay("--json").succeed();
    assert_eq!(ended.stdout, read_text(&out.join("summary.json")));
    assert_eq!(replay("--json --quiet").run().code, Some(2));
}

#[test]
fn every_row_has_its_schema_and_its_place() {
    let example = tempfile::tempdir().unwrap();
    first_run(&example);
    let mut outputs = vec![example];
    for format in ["json", "apisix", "kong", "combined"] {
        let world = generated(&format!(
            "--events 2000 --keys 50 --span 4h --late 0.01 --broken 0.01 --partitions 2 --format {format}"
        ));
        let out = tempfile::tempdir().unwrap();
        Keytide::replay(&world.path().join("keytide.toml"), out.path()).succeed();
        outputs.push(out);
    }
    let schemas: BTreeSet<String> = VIEWS.iter().map(|view| format!("{view}.v1.schema.json")).collect();
    assert_eq!(names(&repository().join("schemas")), schemas, "each view has a schema");
    for view in VIEWS {
        let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
        let mut seen = 0;
        for out in &outputs {
            let rows = Views::new(out.path()).rows(view);
            for row in &rows {
                schema.check(row).unwrap_or_else(|problem| panic!("{view}: {problem}\n{row:?}"));
            }
            let keys: Vec<_> = rows.iter().map(|row| row.key(&schema.key)).collect();
            assert!(
                keys.is_sorted_by(|a, b| a < b),
                "{view}: rows stand in the order of their keys, each once"
            );
            seen += rows.len();
        }
        let may_be_empty = OF_INCIDENTS.contains(&view) || OF_DAYS.contains(&view);
        assert!(seen > 0 || may_be_empty, "{view} has no row to check");
    }
}

// ---- what is counted

/// Sums of one group, in the order of the view's columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums([u64; 9]);

const SUMS: [&str; 9] = [
    "calls",
    "errors_4xx",
    "errors_5xx",
    "bytes_in",
    "bytes_out",
    "latency_sum_us",
    "latency_calls",
    "free_calls",
    "units",
];

impl Sums {
    fn add(&mut self, other: &Self) {
        for (sum, term) in self.0.iter_mut().zip(other.0) {
            *sum += term;
        }
    }

    fn of(row: &Row) -> Self {
        Self(SUMS.map(|column| row.number(column)))
    }
}

/// One call of the example, read without the product's code.
struct Call {
    key: String,
    time: i64,
    method: String,
    route: String,
    client: String,
    country: String,
    latency_us: u64,
    sums: Sums,
}

impl Call {
    fn parse(line: &str) -> Option<(String, Self)> {
        let record: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        let key =
            record["apiKey"].as_str().map_or("anonymous".to_owned(), |key| hex(&Sha256::digest(key)[..16]));
        let status = record["status"].as_u64().unwrap();
        let latency_us = micros(&record["latencyMs"].to_string());
        let is = |class: u64| u64::from(status / 100 == class && status != 499);
        let number = |name: &str| record[name].as_u64().unwrap();
        let bytes = ["requestLength", "responseLength"].map(number);
        let sums = Sums([1, is(4), is(5), bytes[0], bytes[1], latency_us, 1, u64::from(status == 429), 0]);
        let call = Self {
            key,
            time: record["requestTime"].as_i64().unwrap(),
            method: text("httpMethod"),
            route: text("routeKey"),
            client: text("ip"),
            country: text("country"),
            latency_us,
            sums,
        };
        Some((text("requestId"), call))
    }

    /// Start of the window that holds the call.
    fn window(&self, width: &str) -> String {
        let at = |step: i64| Timestamp::from_millisecond(self.time - self.time % step).unwrap();
        let start = match width {
            "1m" => at(60_000),
            "5m" => at(300_000),
            "1h" => at(3_600_000),
            "1d" => at(86_400_000),
            "1mo" => {
                at(1).to_zoned(TimeZone::UTC).first_of_month().unwrap().start_of_day().unwrap().timestamp()
            }
            other => panic!("no window is called {other}"),
        };
        start.to_string()
    }

    fn scopes(&self) -> [(&'static str, String); 2] {
        [("key", self.key.clone()), ("route", format!("{} {}", self.method, self.route))]
    }
}

/// Milliseconds, with a fraction of up to three digits, in microseconds.
fn micros(millis: &str) -> u64 {
    let (whole, fraction) = millis.split_once('.').unwrap_or((millis, ""));
    assert!(fraction.len() <= 3, "{millis} is finer than a microsecond");
    format!("{whole}{fraction:0<3}").parse().unwrap()
}

/// The example's calls, each once.
fn calls() -> Vec<Call> {
    let unique: BTreeMap<String, Call> =
        lines(&example().join("data")).iter().filter_map(|line| Call::parse(line)).collect();
    assert_eq!(unique.len(), 3_000);
    unique.into_values().collect()
}

type Group = Vec<String>;

fn group(row: &Row, columns: &[&str]) -> Group {
    columns.iter().map(|column| row.text(column).to_owned()).collect()
}

#[test]
fn usage_equals_a_recount() {
    let folder = tempfile::tempdir().unwrap();
    let (views, _) = first_run(&folder);
    let calls = calls();
    for (view, columns, widths) in [
        ("usage", &["key_id", "window", "window_start"][..], &["1m", "1h", "1d", "1mo"][..]),
        ("usage_by_route", &["key_id", "api", "method", "route", "window", "window_start"], &["1h", "1d"]),
    ] {
        let mut expected: BTreeMap<Group, Sums> = BTreeMap::new();
        for call in &calls {
            for width in widths {
                let mut group = vec![call.key.clone()];
                if view == "usage_by_route" {
                    group.extend([String::new(), call.method.clone(), call.route.clone()]);
                }
                group.extend([(*width).to_owned(), call.window(width)]);
                expected.entry(group).or_default().add(&call.sums);
            }
        }
        let found: BTreeMap<Group, Sums> =
            views.rows(view).iter().map(|row| (group(row, columns), Sums::of(row))).collect();
        assert_eq!(found, expected, "{view}");
    }
}

#[test]
fn latency_geo_and_callers_equal_a_recount() {
    let folder = tempfile::tempdir().unwrap();
    let (views, _) = first_run(&folder);
    let mut latencies: BTreeMap<Group, Vec<u64>> = BTreeMap::new();
    let mut clients: BTreeMap<Group, BTreeSet<String>> = BTreeMap::new();
    let mut countries: BTreeMap<Group, (u64, u64)> = BTreeMap::new();
    for call in calls() {
        for (scope, id) in call.scopes() {
            let group =
                |width: &str| vec![scope.to_owned(), id.clone(), width.to_owned(), call.window(width)];
            for width in ["5m", "1h", "1d"] {
                latencies.entry(group(width)).or_default().push(call.latency_us);
            }
            clients.entry(group("1d")).or_default().insert(call.client.clone());
        }
        for width in ["1h", "1d"] {
            let group = vec![call.key.clone(), call.country.clone(), width.to_owned(), call.window(width)];
            let (calls, errors) = countries.entry(group).or_default();
            *calls += 1;
            *errors += call.sums.0[1] + call.sums.0[2];
        }
    }

    let rows = views.rows("latency");
    assert_eq!(rows.len(), latencies.len());
    for row in rows {
        let latencies = latencies.get_mut(&group(&row, &["scope", "id", "window", "window_start"])).unwrap();
        latencies.sort_unstable();
        let count = latencies.len();
        assert_eq!(row.number("calls"), count as u64);
        assert_eq!(row.number("max_us"), latencies[count - 1]);
        assert_eq!(row.number("mean_us"), latencies.iter().sum::<u64>() / count as u64);
        for percent in [50, 90, 95, 99] {
            let exact = latencies[(count * percent).div_ceil(100) - 1];
            let found = row.number(&format!("p{percent}_us"));
            assert!(found.abs_diff(exact) * 1_000 <= exact * 8, "p{percent} is {exact}: {row:?}");
        }
    }

    let found: BTreeMap<Group, u64> = views
        .rows("callers")
        .iter()
        .map(|row| (group(row, &["scope", "id", "window", "window_start"]), row.number("callers")))
        .collect();
    assert_eq!(found, clients.into_iter().map(|(group, clients)| (group, clients.len() as u64)).collect());

    let rows = views.rows("geo");
    let found: BTreeMap<Group, (u64, u64)> = rows
        .iter()
        .map(|row| {
            let counts = (row.number("calls"), row.number("errors"));
            (group(row, &["key_id", "country", "window", "window_start"]), counts)
        })
        .collect();
    assert_eq!(found, countries);
    assert!(
        rows.iter().any(|row| !row.get("asns").as_array().unwrap().is_empty()),
        "addresses were looked up"
    );
}

#[test]
fn a_subscription_s_usage_is_that_of_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (views, _) = first_run(&folder);
    let mut expected: BTreeMap<Group, (Sums, u64)> = BTreeMap::new();
    for row in views.rows("usage") {
        if row.text("window") != "1m" && !row.get("subscription").is_null() {
            let (sums, keys) =
                expected.entry(group(&row, &["subscription", "window", "window_start"])).or_default();
            sums.add(&Sums::of(&row));
            *keys += 1;
        }
    }
    let found: BTreeMap<Group, (Sums, u64)> = views
        .rows("subscription_usage")
        .iter()
        .map(|row| {
            (group(row, &["subscription", "window", "window_start"]), (Sums::of(row), row.number("keys")))
        })
        .collect();
    assert_eq!(found, expected);
}

// ---- what the result depends on

#[test]
fn calls_beyond_the_limits_count_under_overflow_the_same_however_they_are_computed() {
    // A customer, and somebody who tries keys and paths: both without end.
    let calls = (0..6_000_u64).map(|n| {
        let call = |key: &str, path: String| {
            let time = START + n * SECOND;
            format!(r#"{{"id":"r{n}","t":{time},"k":"{key}","path":"{path}","status":200,"us":1000,"ip":"192.0.2.1"}}"#)
        };
        if n % 3 == 0 { call("acme", format!("/v1/x{}", n % 9)) } else { call(&format!("k{n}"), format!("/y{n}")) }
    });
    let limits = "[limits]\nkeys = 256\nroutes = 512\nkey_routes = 256\n";
    let tables = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n";
    let job = Job::new(&format!("{limits}{tables}"))
        .log(calls)
        .file("keys.csv", "key_id,subscription\nacme,gold\n");
    let run = |arguments: &str, block_bytes: &str| {
        job.replay().with(NOW).with(arguments).env("KEYTIDE_LIMITS__BLOCK_BYTES", block_bytes).succeed();
        let overflows = ["overflow_keys", "overflow_routes"].map(|name| job.out().count(name));
        (job.out().bytes(), overflows)
    };
    let (bytes, overflows) = run("--workers 1", "128KiB");
    let usage = job.out().window("usage", "1d");
    let calls = |key: &str| -> u64 {
        usage.iter().filter(|row| row.text("key_id") == key).map(|row| row.number("calls")).sum()
    };
    assert_eq!((calls("acme"), calls("overflow")), (2_000, overflows[0]));
    assert_eq!(usage.iter().map(|row| row.number("calls")).sum::<u64>(), 6_000);
    assert!((200..=258).contains(&usage.len()), "{} keys", usage.len());
    let routes = job.out().window("latency", "1d");
    let overflow = routes.iter().find(|row| row.text("scope") == "route" && row.text("id") == "overflow");
    assert_eq!(overflow.unwrap().number("calls"), overflows[1]);
    let names = routes.iter().filter(|row| row.text("scope") == "route").map(|row| row.text("id"));
    assert!(names.clone().all(|id| id == "overflow" || id.starts_with("- /")), "{names:?}");
    for (arguments, block_bytes) in
        [("--workers 2", "4KiB"), ("--workers 3 --decode-threads 2", "5000"), ("--workers 2", "1MiB")]
    {
        assert!(run(arguments, block_bytes) == (bytes.clone(), overflows), "{arguments}, {block_bytes}");
    }
}

#[test]
fn the_same_input_and_time_give_the_same_bytes_however_they_are_computed() {
    let world = generated(
        "--events 8000 --keys 200 --span 3h --out-of-order 0.3 --late 0.02 --duplicates 0.05 --broken 0.01 \
         --partitions 3 --gzip",
    );
    let config = world.path().join("keytide.toml");
    let run = |arguments: &str, block_bytes: &str| {
        let out = tempfile::tempdir().unwrap();
        Keytide::replay(&config, out.path())
            .with(NOW)
            .with(arguments)
            .env("KEYTIDE_LIMITS__BLOCK_BYTES", block_bytes)
            .succeed();
        let views = Views::new(out.path());
        let mut summary = views.summary();
        for varying in ["workers", "decode_threads", "events_per_s", "peak_memory_bytes", "wall_s"] {
            summary.as_object_mut().unwrap().remove(varying).unwrap();
        }
        (views.bytes(), summary)
    };
    let (bytes, summary) = run("--workers 1", "128KiB");
    // Nobody's key leaks here: see the tests of the backtest.
    for view in VIEWS.into_iter().filter(|view| !OF_INCIDENTS.contains(view) && !OF_DAYS.contains(view)) {
        assert!(!bytes[view].is_empty(), "{view} has rows to compare");
    }
    for (arguments, block_bytes) in [
        ("--workers 1", "128KiB"),
        ("--workers 1 --decode-threads 2", "4KiB"),
        ("--workers 2", "4KiB"),
        ("--workers 2 --decode-threads 1", "1MiB"),
        ("--workers 3", "64KiB"),
        ("--workers 3 --decode-threads 3", "5000"),
    ] {
        let again = run(arguments, block_bytes);
        for view in VIEWS {
            assert!(
                again.0[view] == bytes[view],
                "{view} differs with {arguments} and blocks of {block_bytes}"
            );
        }
        assert_eq!(again.1, summary, "{arguments}, {block_bytes}");
    }
}

#[test]
fn order_and_repetition_within_the_tolerances_change_no_meter() {
    let calls: Vec<String> =
        (0..2_000_u64).map(|n| call(n * 1_500, &format!("r{n}"), &format!("key-{}", n % 17))).collect();
    // Groups of three calls, 3 s wide, reversed; every seventh call twice.
    let mut shuffled = Vec::new();
    for (n, group) in calls.chunks(3).enumerate() {
        shuffled.extend(group.iter().rev().cloned());
        if n % 7 == 0 {
            shuffled.push(group[0].clone());
        }
    }
    let repeated = (shuffled.len() - calls.len()) as u64;
    let (plain, shuffled) = (Job::new("").log(calls), Job::new("").log(shuffled));
    let (plain, shuffled) = (plain.views(), shuffled.views());
    assert_eq!((plain.count("duplicates"), shuffled.count("duplicates")), (0, repeated));
    assert_eq!(plain.count("events"), 2_000);
    assert_eq!(shuffled.count("late"), 0);
    assert_eq!(shuffled.bytes(), plain.bytes());
}

#[test]
fn compression_and_standard_input_change_nothing() {
    let lines: Vec<String> = (0..500).map(|n| call(n * 1_000, &format!("r{n}"), "k")).collect();
    let text = lines.join("\n");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let plain = Job::new("").file("log.jsonl", &text);
    let packed = Job::new("").file("log.jsonl.gz", gzip.finish().unwrap());
    let config = read_text(&plain.path("keytide.toml"));
    let piped = Job::with_config(&config.replace("\"file\"\npath = \"log*\"", "\"stdin\""));
    piped.replay().input(text.as_bytes()).succeed();

    let bytes = plain.views().bytes();
    assert_eq!(packed.views().bytes(), bytes);
    assert_eq!(piped.out().bytes(), bytes);
    assert_eq!(piped.out().count("events"), 500);
    assert_eq!(packed.out().count("bytes"), plain.out().count("bytes"), "bytes count after decompression");
}

// ---- secrets

#[test]
fn no_raw_key_is_in_anything_that_comes_out() {
    for format in ["json", "apisix", "kong", "combined"] {
        let world =
            generated(&format!("--events 1500 --keys 60 --broken 0.05 --duplicates 0.05 --format {format}"));
        let out = world.path().join("views");
        let ended = Keytide::replay(&world.path().join("keytide.toml"), &out).with("--workers 2").succeed();
        let mark = "kt_live_";
        let marked = lines(world.path()).iter().filter(|line| line.contains(mark)).count();
        assert!(marked > 1_000, "{format}: keys stand in the input: {marked}");
        assert!(Views::new(&out).count("dead_letters") > 0, "{format}");
        for (name, text) in everything(&out, &ended) {
            assert!(!text.contains(mark), "{format}: a raw key is in {name}");
        }
    }
}

#[test]
fn no_raw_key_comes_out_of_records_that_are_refused_or_odd() {
    const CANARY: &str = "canary-5c1f9e0b";
    let job = Job::new("[limits]\nmessage_bytes = \"1KiB\"\n");
    let config = read_text(&job.path("keytide.toml")).replace("\"none\"", "\"sha256\"");
    let record = |more: &str| format!(r#"{{"id":"r","t":{START},"k":"{CANARY}","path":"/p",{more}}}"#);
    let job = job.file("keytide.toml", config).log([
        record(r#""status":200"#),
        record(&format!(r#""status":201,"path":"/a/{CANARY}/b?key={CANARY}""#)),
        record(&format!(r#""status":202,"route":"/r/{CANARY}""#)),
        record(&format!(r#""status":"{CANARY}""#)),
        record(&format!(r#""us":"{CANARY}""#)),
        record(&format!(r#""ip":"{CANARY}""#)),
        record(&format!(r#""k":"{CANARY}-again""#)),
        record(&format!(r#""filler":"{}{CANARY}""#, "x".repeat(2_000))),
        format!(r#"{{"t":"{CANARY}","k":"{CANARY}","status":200}}"#),
        format!(r#"{{"t":{START},"k":"{CANARY}","level":"{CANARY}"}}"#),
        format!(r#"{{"t":{START},"k":"{CANARY}""#),
        format!(r#"{{"{CANARY}":"#),
        CANARY.to_owned(),
    ]);
    let ended = job.replay().succeed();
    assert!(job.out().count("dead_letters") >= 6, "{}", ended.stdout);
    for (name, text) in everything(&job.path("out"), &ended) {
        assert!(!text.contains("canary"), "a raw key is in {name}: {text}");
    }
}

/// All that a run left: its files, standard output and error.
fn everything(out: &Path, ended: &Ended) -> Vec<(String, String)> {
    let files = names(out).into_iter().map(|name| (name.clone(), read_text(&out.join(&name))));
    files
        .chain([("stdout".to_owned(), ended.stdout.clone()), ("stderr".to_owned(), ended.stderr.clone())])
        .collect()
}

// ---- time

#[test]
fn an_event_from_the_future_is_a_dead_letter_and_moves_nothing() {
    let lines =
        [call(0, "a", "k"), call(HOUR, "b", "k"), call(6 * MINUTE, "c", "k"), call(4 * MINUTE, "d", "k")];
    let job = Job::new("").log(lines);
    job.replay().with("--now 2025-06-02T08:00:00Z").succeed();
    let views = job.out();
    // What lies at most 5 minutes ahead is accepted.
    let letters = views.rows("dead_letters");
    assert_eq!((views.count("events"), letters.len(), views.count("late")), (2, 2, 0));
    for letter in &letters {
        assert!(letter.text("reason").starts_with("time: more than 5 minutes after"), "{letter:?}");
        assert_eq!(letter.get("kept")["status"], json!(200));
    }
}

#[test]
fn late_events_are_listed_and_count_also_where_they_cannot_be_proven_new() {
    let windows =
        "[windows]\nout_of_orderness = \"5s\"\nallowed_lateness = \"1m\"\ndedupe_horizon = \"1h\"\n";
    // A call a minute for three hours, then stragglers.
    let mut lines: Vec<String> = (0..=180).map(|n| call(n * MINUTE, &format!("r{n}"), "steady")).collect();
    let last = 180 * MINUTE;
    lines.push(call(last - 60 * SECOND, "in-time", "slow"));
    lines.push(call(last - 10 * MINUTE, "late", "slow"));
    lines.push(call(last - 10 * MINUTE, "late", "slow"));
    lines.push(call(last - 2 * HOUR, "too-late", "slow"));
    lines.push(call(last - 2 * HOUR, "", "nameless"));
    // It came after this one, so it is remembered.
    lines.push(call(last - 2 * HOUR, "too-late", "slow"));
    let run = |more: &str| {
        let views = Job::new(&format!("{windows}{more}")).log(lines.clone()).views();
        let late: Vec<(u64, [bool; 3])> = views
            .rows("late")
            .iter()
            .map(|row| {
                let has_id = !row.get("request_id_hash").is_null();
                (row.number("lateness_ms"), [has_id, row.flag("counted"), row.flag("proven")])
            })
            .collect();
        let month: BTreeMap<String, u64> = views
            .window("usage", "1mo")
            .iter()
            .map(|row| (row.text("key_id").to_owned(), row.number("calls")))
            .collect();
        (late, ["events", "late", "duplicates"].map(|name| views.count(name)), month)
    };
    let month = |slow| [("nameless", 1), ("slow", slow), ("steady", 181)].map(|(key, n)| (key.to_owned(), n));
    let late = |counted| {
        let unproven = (2 * HOUR, [true, counted, false]);
        [(10 * MINUTE, [true, true, true]), unproven, (2 * HOUR, [false, true, true]), unproven]
    };
    assert_eq!(run(""), (late(true)[..3].to_vec(), [181 + 4, 3, 2], month(3).into()));
    let listed = run("unproven = \"list\"\n");
    assert_eq!(listed, (late(false).to_vec(), [181 + 3, 4, 1], month(2).into()));
}

#[test]
fn windows_become_complete_and_final_by_event_time() {
    // Five hours: the first minute can't change any more 3 h after its end.
    let lines = (0..=300).map(|n| call(n * MINUTE, &format!("r{n}"), "k"));
    let views = Job::new("").log(lines).views();
    let at = |minute: u64| {
        let start = Timestamp::from_millisecond((START + minute * MINUTE).cast_signed()).unwrap().to_string();
        let rows = views.window("usage", "1m");
        let row = rows.iter().find(|row| row.text("window_start") == start).unwrap();
        assert_eq!(row.number("calls"), 1);
        (row.flag("complete"), row.flag("final"))
    };
    // The watermark ends at 300 min, as nothing can come out of order any more.
    assert_eq!(at(0), (true, true));
    assert_eq!(at(118), (true, true));
    assert_eq!(at(120), (true, false));
    assert_eq!(at(288), (true, false));
    assert_eq!(at(290), (false, false));
    assert_eq!(at(300), (false, false));
}

// ---- tables and geo

#[test]
fn a_window_belongs_to_whom_the_key_belonged_at_its_start() {
    let tables = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n\
                  [tables.subscriptions]\nkind = \"file\"\npath = \"subscriptions.jsonl\"\nformat = \"jsonl\"\n\
                  [tables.plans]\nkind = \"file\"\npath = \"plans.csv\"\nformat = \"csv\"\n";
    let views = Job::new(tables)
        .file(
            "keys.csv",
            "key_id,subscription,valid_from\n\
             moved,s-old,\n\
             moved,s-new,2025-06-02T09:30:00Z\n\
             alone,s-unlisted,\n",
        )
        .file(
            "subscriptions.jsonl",
            "{\"id\":\"s-old\",\"customer\":\"Old & Sons\",\"plan\":\"basic\"}\n\
             {\"id\":\"s-new\",\"customer\":\"New Ltd\",\"plan\":\"unlisted\"}\n",
        )
        .file("plans.csv", "id,name\nbasic,Basic\n")
        .log(["moved", "alone", "stranger"].iter().flat_map(|key| {
            [0, 95, 150].map(|minute| call(minute * MINUTE, &format!("{key}-{minute}"), key))
        }))
        .views();

    let owner = |row: &Row| {
        let columns = ["subscription", "customer", "plan"];
        let owner = columns.map(|column| row.get(column).as_str().unwrap_or("?"));
        (row.text("window_start")[11..16].to_owned(), owner.join(" / "))
    };
    let hours = |key: &str| {
        let rows = views.window("usage", "1h").into_iter().filter(|row| row.text("key_id") == key);
        rows.map(|row| owner(&row)).collect::<Vec<_>>()
    };
    let at = |times: [&str; 3], owners: [&str; 3]| -> Vec<(String, String)> {
        times.iter().zip(owners).map(|(time, owner)| ((*time).to_owned(), owner.to_owned())).collect()
    };
    let times = ["08:00", "09:00", "10:00"];
    // 09:35 lies after the change, but in an hour that began before it.
    assert_eq!(
        hours("moved"),
        at(times, ["s-old / Old & Sons / basic", "s-old / Old & Sons / basic", "s-new / New Ltd / unlisted"])
    );
    assert_eq!(hours("alone"), at(times, ["s-unlisted / ? / ?"; 3]));
    assert_eq!(hours("stranger"), at(times, ["? / ? / ?"; 3]));

    let subscriptions: BTreeMap<String, (u64, Value)> = views
        .window("subscription_usage", "1h")
        .iter()
        .map(|row| {
            let at = format!("{} {}", row.text("subscription"), &row.text("window_start")[11..16]);
            (at, (row.number("calls"), row.get("plan_name").clone()))
        })
        .collect();
    let expected = [
        ("s-new 10:00", json!(null)),
        ("s-old 08:00", json!("Basic")),
        ("s-old 09:00", json!("Basic")),
        ("s-unlisted 08:00", json!(null)),
        ("s-unlisted 09:00", json!(null)),
        ("s-unlisted 10:00", json!(null)),
    ];
    assert_eq!(subscriptions, expected.map(|(at, plan)| (at.to_owned(), (1, plan))).into());
}

#[test]
fn a_bad_row_of_a_table_is_a_dead_letter_with_its_line() {
    let tables = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n";
    let job = Job::new(tables)
        .file("keys.csv", "key_id,subscription,state\na,s,active\n,asleep,active\nc,s,active\n")
        .log([call(0, "r", "c")]);
    let views = job.views();
    let letters = views.rows("dead_letters");
    assert_eq!((letters.len(), views.count("table_dead_letters"), views.count("dead_letters")), (1, 1, 0));
    assert_eq!((letters[0].text("source"), letters[0].number("offset")), ("tables.keys", 3));
    assert!(!letters[0].text("reason").contains("asleep"), "no value of a table is quoted");
    assert_eq!(views.rows("usage")[0].text("subscription"), "s");
}

#[test]
fn nobody_s_addresses_are_of_no_country_whatever_a_database_says() {
    // A database of the whole world, private addresses included.
    let mut world = Writer::builder("World-Country").description(&[("en", "everything is Iceland")]).build();
    for half in ["::/1", "8000::/1"] {
        world
            .insert_value(half.parse::<IpNet>().unwrap(), mmdb_writer::Value::map([("country_code", "IS")]))
            .unwrap();
    }
    let nobodys =
        ["10.1.2.3", "192.168.0.9", "172.16.4.4", "127.0.0.1", "100.64.0.1", "::1", "fe80::1", "fd00::7"];
    let unknown = ["not one", ""];
    let public = ["9.9.9.9", "2a00::1"];
    let line = |address: &str| format!(r#"{{"t":{START},"k":"k","status":200,"ip":"{address}"}}"#);
    let views = Job::new("[geo]\ncountry = \"world.mmdb\"\n")
        .file("world.mmdb", world.to_bytes().unwrap())
        .log(nobodys.iter().chain(&unknown).chain(&public).map(|address| line(address)))
        .views();
    let rows = views.window("geo", "1d");
    let found: Vec<_> = rows.iter().map(|row| (row.text("country"), row.number("calls"))).collect();
    assert_eq!(found, [("IS", 2), ("ZZ", 10)]);
    assert!(rows.iter().all(|row| row.get("asns") == &json!([])), "there is no database of systems");
    let callers: Vec<_> = views.rows("callers").iter().map(|row| row.number("callers")).collect();
    assert_eq!(callers, [10, 10], "an address that isn't known is no caller");
    assert_eq!(views.rows("latency"), [], "a call whose latency isn't known is none of `latency`");
}

#[test]
fn a_damaged_geo_database_is_warned_of_and_costs_no_call() {
    let mut world = Writer::builder("World-Country").description(&[("en", "half of it is damaged")]).build();
    for (half, country) in [("0.0.0.0/1", mmdb_writer::Value::from("IS")), ("128.0.0.0/1", 7_u32.into())] {
        let record = mmdb_writer::Value::map([("country_code", country)]);
        world.insert_value(half.parse::<IpNet>().unwrap(), record).unwrap();
    }
    let line = |address: &str| format!(r#"{{"t":{START},"k":"k","status":200,"ip":"{address}"}}"#);
    let job = Job::new("[geo]\ncountry = \"world.mmdb\"\n")
        .file("world.mmdb", world.to_bytes().unwrap())
        .log(["9.9.9.9", "198.51.101.1", "198.51.101.2"].iter().map(|address| line(address)));
    let told = job.replay().succeed().stderr;
    assert!(told.contains("warning: [geo] 2 look-ups of addresses hit a damaged record"), "{told}");
    let rows = job.out().window("geo", "1d");
    let found: Vec<_> = rows.iter().map(|row| (row.text("country"), row.number("calls"))).collect();
    assert_eq!(found, [("IS", 1), ("ZZ", 2)]);
}

#[test]
fn calls_without_a_key_and_unclear_statuses_are_counted_as_what_they_are() {
    let statuses = [0, 200, 304, 404, 429, 499, 500, 503];
    let line = |n: usize, status: u64| format!(r#"{{"id":"r{n}","t":{START},"status":{status}}}"#);
    let views = Job::new("").log(statuses.iter().enumerate().map(|(n, status)| line(n, *status))).views();
    let rows = views.window("usage", "1d");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].text("key_id"), "anonymous");
    assert_eq!(Sums::of(&rows[0]), Sums([8, 2, 2, 0, 0, 0, 0, 1, 0]));
}

#[test]
fn one_bad_record_takes_no_neighbour_along() {
    let mut bytes = Vec::new();
    for bad in [
        &b"{\"id\":\"x\",\"t\":1748851200000,\"status\":200,\"k\":\"\xff"[..],
        b"\0\0\0",
        b"\xef\xbb\xbf{",
        b"null",
        b"{\"id\":\"x\"}",
        b"{\"id\":\"x\",\"status\":200}",
        b"{\"id\":\"x\",\"t\":-1,\"status\":200}",
        b"{\"id\":\"x\",\"t\":1e400,\"status\":200}",
        b"{\"id\":\"x\",\"t\":1748851200000,\"level\":\"info\"}",
    ] {
        let good = call(0, &format!("r{}", bytes.len()), "k");
        bytes.extend_from_slice(good.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(bad);
        bytes.push(b'\n');
    }
    let deep = format!("{}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    bytes.extend_from_slice(deep.as_bytes());
    let job = Job::new("").file("log.jsonl", bytes);
    let views = job.views();
    assert_eq!((views.count("events"), views.count("dead_letters")), (9, 10));
    for letter in views.rows("dead_letters") {
        assert!(
            !letter.text("reason").is_empty() && letter.text("path").ends_with("log.jsonl"),
            "{letter:?}"
        );
    }
}

// ---- what goes wrong

#[test]
fn a_bad_configuration_is_refused_with_all_its_problems() {
    let job = Job::with_config(
        "[job]\nworkers = 0\ntick = \"soon\"\n[[source]]\nname = \"s\"\nkind = \"file\"\nformat = \"xml\"\n",
    );
    let ended = job.replay().run();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    for part in ["job.workers", "job.tick", "source", "path", "xml"] {
        assert!(ended.stderr.contains(part), "{part} is missing in\n{}", ended.stderr);
    }
    assert!(!job.path("out").exists(), "nothing is written");
}

#[test]
fn what_is_wrong_with_a_run_shows_in_its_exit_code() {
    let no_log = Job::new("");
    let no_table =
        Job::new("[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n").log([""]);
    let damaged = Job::new("").file("log.gz", b"\x1f\x8b\x08damaged");
    let no_folder = Job::new("").log([call(0, "r", "k")]).file("out", "in the way");
    for (job, code, said) in [
        (&no_log, 2, "log* matches no file"),
        (&no_table, 2, "keys.csv"),
        (&no_folder, 2, "out"),
        (&damaged, 3, "log.gz"),
    ] {
        let ended = job.replay().run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
        assert!(ended.stderr.replace('`', "").contains(said), "{said} is missing in\n{}", ended.stderr);
        assert!(ended.stderr.lines().any(|line| line.starts_with("error: ")), "{}", ended.stderr);
    }
    for arguments in [
        &[][..],
        &["fly"],
        &["replay"],
        &["replay", "keytide.toml"],
        &["replay", "missing.toml", "--out", "x"],
    ] {
        let ended = Keytide::new(arguments).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}\n{}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
    for arguments in ["--now yesterday", "--now 1969-12-31T00:00:00Z", "--workers 0", "--workers 257"] {
        let ended = Job::new("").log([""]).replay().with(arguments).run();
        assert_eq!(ended.code, Some(2), "{arguments}\n{}", ended.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_ends_the_run_with_an_error_that_names_the_file() {
    let out = tempfile::tempdir().unwrap();
    // No file grows beyond 8 KiB, and writing on is an error instead of a signal.
    let script = format!(
        "ulimit -f 16; trap '' XFSZ; exec {} replay {} --out {} {NOW}",
        env!("CARGO_BIN_EXE_keytide"),
        path(&example().join("replay.toml")),
        path(out.path()),
    );
    let ended = std::process::Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(75), "{said}");
    assert!(said.starts_with("error: writing ") && said.contains(".jsonl failed: "), "{said}");
    assert!(!names(out.path()).contains("summary.json"), "a summary tells of a run that ended");
}

#[test]
fn an_earlier_run_is_replaced_and_nothing_else_is_touched() {
    let job = Job::new("").log((0..100).map(|n| call(n * MINUTE, &format!("r{n}"), "k")));
    let many = job.views().text("usage");
    fs::write(job.path("out/notes.txt"), "mine").unwrap();
    let job = job.log([call(0, "r", "k")]);
    let few = job.views();
    assert!(many.lines().count() > few.text("usage").lines().count());
    assert_eq!((few.count("events"), few.window("usage", "1m").len()), (1, 1));
    assert_eq!(read_text(&job.path("out/notes.txt")), "mine");
    let with_rows = VIEWS.iter().filter(|view| few.summary()["rows"][view] != 0).count();
    assert_eq!(names(&job.path("out")).len(), with_rows + BESIDE_VIEWS.len() + 1);

    // Files of a view that has no rows any more go, and so do those of the other format.
    let folder = job.path("out");
    fs::write(folder.join("dead_letters.jsonl"), "").unwrap();
    job.replay().with("--format parquet").succeed();
    let of_views = |end: &str| names(&folder).iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((of_views(".jsonl"), of_views(".parquet")), (0, with_rows));
    job.replay().succeed();
    assert_eq!((of_views(".jsonl"), of_views(".parquet")), (with_rows, 0));
    assert!(folder.join("notes.txt").exists());
}

#[test]
fn parquet_files_have_the_rows_of_the_json_lines_for_any_number_of_workers() {
    let leaks =
        generated("--scenario mixed --leaks 6 --look-alikes 0 --keys 40 --events 40000 --days 4 --seed 8");
    let mut seen = BTreeSet::new();
    for config in [example().join("replay.toml"), leaks.path().join("keytide.toml")] {
        let [as_lines, one, three] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        for (out, arguments) in [
            (&as_lines, "--workers 1"),
            (&one, "--workers 1 --format parquet"),
            (&three, "--workers 3 --decode-threads 1 --format parquet"),
        ] {
            Keytide::replay(&config, out.path()).with("--now 2025-07-01T00:00:00Z").with(arguments).succeed();
        }
        let of_lines = Views::new(as_lines.path());
        for view in VIEWS {
            let lines: Vec<Value> =
                of_lines.text(view).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let name = format!("{view}.parquet");
            assert_eq!(one.path().join(&name).exists(), !lines.is_empty(), "{view}");
            if lines.is_empty() {
                continue;
            }
            seen.insert(view);
            let rows = parquet::rows(&one.path().join(&name));
            assert_eq!(rows.len(), lines.len(), "{view}");
            for (row, line) in rows.iter().zip(&lines) {
                assert_eq!(row, line, "{view}");
            }
            assert!(
                read(&one.path().join(&name)) == read(&three.path().join(&name)),
                "{view}: the same bytes"
            );
        }
    }
    // A bounded run acts on nothing, so no key is denied; and no call comes after its bill is final.
    assert_eq!(seen, VIEWS.into_iter().filter(|view| !["denied", "adjustments"].contains(view)).collect());
}

#[test]
fn a_format_that_there_is_not_is_refused_with_those_that_there_are() {
    let job = Job::new("").log([call(0, "r", "k")]);
    let ended = job.replay().with("--format avro").run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("jsonl, parquet"), "{}", ended.stderr);
}

#[test]
fn an_empty_input_gives_empty_views() {
    let views = Job::new("").log([] as [&str; 0]).views();
    for view in VIEWS {
        assert_eq!(views.text(view), "", "{view}");
    }
    assert_eq!((views.count("events"), views.count("bytes")), (0, 0));
}

#[test]
fn a_run_that_accepted_nothing_ends_with_3_and_says_what_it_read() {
    let nothing = Job::new("").log([r#"{"time":1748851200000,"k":"kt_demo_canary"}"#, "kt_demo_canary"]);
    let passed_over = Job::new("[source.only]\n\"/status\" = 201\n").log([call(0, "r", "k")]);
    for (job, told) in [
        (&nothing, "error: nothing was accepted: 2 of 2 records were refused ("),
        (&passed_over, "error: nothing was accepted: 1 records were passed over, "),
    ] {
        let ended = job.replay().run();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(told), "{told}\n{}", ended.stderr);
        assert_eq!(job.out().count("events"), 0, "the summary is there");
        let (config, out) = (job.path("keytide.toml"), job.path("report"));
        let tried = Keytide::new(&["backtest", path(&config), "--out", path(&out)]).with(NOW).run();
        assert_eq!(tried.code, Some(3), "{}", tried.stderr);
        assert!(
            tried.stderr.contains(told) && read_text(&out.join("report.json")).len() > 2,
            "{}",
            tried.stderr
        );
        let checked = Keytide::new(&["check", path(&config)]).run();
        assert_eq!(checked.code, Some(3), "{}", checked.stdout);
        for said in [ended.stderr, tried.stderr, checked.stdout] {
            assert!(!said.contains("canary"), "{said}");
        }
    }
    let some = Job::new("").log(["nonsense".to_owned(), call(0, "r", "k"), call(1, "s", "")]);
    let ended = some.replay().succeed();
    assert!(
        ended.stderr.contains("warning: 1 of 3 records was refused (1 syntax), the first in "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("log.jsonl at byte 0; "), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: 1 of 2 calls have no key "), "{}", ended.stderr);
}

#[test]
fn check_judges_the_examples_as_replay_would() {
    let valid = Keytide::new(&["check", "config/examples/replay.toml"]).succeed();
    assert!(valid.stdout.starts_with("config/examples/replay.toml is valid\n"), "{}", valid.stdout);
    let job = Job::with_config("[job]\nworkers = 0\n");
    let ended = Keytide::new(&["check", path(&job.path("keytide.toml"))]).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stdout.contains("job.workers"), "{}", ended.stdout);
    assert_eq!(names(job.folder()).len(), 1, "check writes nothing");
}
