//! A message of each gateway, as it is logged by default, through a replay whose configuration names the format and
//! where the key is, and nothing else: how many events, and what the views say of them.
//!
//! What the views say stands in `tests/data/golden/`, one line a row behind its view's name. `KEYTIDE_GOLDEN=write
//! cargo test --test keytide samples` writes these files anew; look at the difference before it is committed. The
//! messages are in `tests/data/samples/`; their addresses are of ranges for documentation, their keys invented.

use std::collections::BTreeSet;
use std::fs;

use keytide_dataflow::model::hex;
use sha2::{Digest, Sha256};

use crate::harness::sample::{CLIENT_IP, HEADER, METERS, SAMPLES, Sample, data};
use crate::harness::{Job, Keytide, names, read, read_text};

/// The key in the samples, which must never come out.
const RAW_KEY: &str = "kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

/// After all events.
const NOW: &str = "--now 2025-11-21T00:00:00Z";

fn sample(name: &str) -> Vec<u8> {
    read(&data("samples").join(name))
}

/// A job that reads `log*` in a format, with `keys` as its `[keys]`; `more` stands behind its source.
fn job(format: &str, keys: &str, more: &str) -> Job {
    Job::with_config(&format!(
        "[keys]\n{keys}\n[[source]]\nname = \"gateway\"\nkind = \"file\"\npath = \"log*\"\nformat = \"{format}\"\n{more}"
    ))
}

/// Runs a job to its end and searches all that it left for the raw key: its views, one line a row behind the
/// view's name.
fn meters(job: &Job) -> String {
    let ended = job.replay().with(NOW).succeed();
    for name in names(&job.path("out")) {
        let text = read_text(&job.path("out").join(&name));
        assert!(!text.contains(RAW_KEY), "the raw key is in {name}: {text}");
    }
    assert!(!ended.stdout.contains(RAW_KEY) && !ended.stderr.contains(RAW_KEY));
    let lines = |view: &&str| -> Vec<String> {
        job.out().text(view).lines().map(|row| format!("{view} {row}\n")).collect()
    };
    METERS.iter().flat_map(lines).collect()
}

/// Counts of the last run: events, duplicates, dead letters.
fn counts(job: &Job) -> (u64, u64, u64) {
    let out = job.out();
    (out.count("events"), out.count("duplicates"), out.count("dead_letters"))
}

#[test]
fn every_sample_is_read_without_mapped_fields() {
    let write = std::env::var("KEYTIDE_GOLDEN").is_ok_and(|value| value == "write");
    for sample in SAMPLES {
        let Sample { name, format, keys, events, duplicates } = sample;
        let job = job(format, keys, "").file("log", sample.message());
        let found = meters(&job);
        assert_eq!(counts(&job), (*events, *duplicates, 0), "{name}: {}", job.out().text("dead_letters"));
        let golden = sample.golden();
        if write {
            fs::write(&golden, found).unwrap();
        } else {
            assert_eq!(found, read_text(&golden), "{name}: not what {} holds", golden.display());
        }
    }
}

#[test]
fn every_sample_and_every_golden_file_has_its_case() {
    let samples = SAMPLES.iter().map(|sample| sample.name.to_owned()).collect();
    assert_eq!(names(&data("samples")), samples);
    let golden =
        SAMPLES.iter().map(|sample| sample.golden().file_name().unwrap().display().to_string()).collect();
    assert_eq!(names(&data("golden")), golden);
}

/// The key ids of `usage`, each once.
fn key_ids(job: &Job) -> BTreeSet<String> {
    job.out().rows("usage").iter().map(|row| row.text("key_id").to_owned()).collect()
}

fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

#[test]
fn keys_that_the_gateway_hashed_are_read_as_they_are() {
    let text = String::from_utf8(sample("envoy_gateway_default.json")).unwrap();
    let hash = sha256(RAW_KEY);
    let whole = text.replace("sha256:4bd1c0f2", &format!("sha256:{hash}"));
    assert_ne!(text, whole);
    let keys = "from = [\"field:/api_key_hash\"]\nhash = \"prehashed\"";
    let job =
        job("envoy", keys, "").file("log", format!("{text}\n{}\n", whole.replace("6b1f7c0e", "7b1f7c0e")));
    meters(&job);
    // What is no hash counts under `anonymous`; the first such record has a row, which is no dead letter.
    assert_eq!((counts(&job), job.out().count("table_dead_letters")), ((2, 0, 0), 0));
    assert_eq!(key_ids(&job), [hash[..32].to_owned(), "anonymous".to_owned()].into());
    let letters = job.out().rows("dead_letters");
    assert!(letters[0].text("reason").starts_with("key: must be a hash, at least 32 "), "{letters:?}");
    assert!(letters[0].flag("counted"));
}

#[test]
fn each_source_may_have_keys_of_its_own() {
    let secret = "0123456789abcdef0123456789abcdef";
    let kong = "[source.keys]\nfrom = [\"credential\"]\nhash = \"none\"\n\
        [[source]]\nname = \"other\"\nkind = \"file\"\npath = \"apisix*\"\nformat = \"apisix\"\n\
        [source.keys]\nhash = \"hmac-sha256\"\nsecret = \"file:secret\"\n\
        [[source]]\nname = \"third\"\nkind = \"file\"\npath = \"nginx*\"\nformat = \"nginx\"\n";
    let job = job("kong", "from = [\"header:apikey\", \"header:x-api-key\"]", kong)
        .file("secret", secret)
        .file("log", sample("kong_http_log.json"))
        .file("apisix", sample("apisix_kafka_logger_default.json"))
        .file("nginx", sample("nginx_json_log.json"));
    meters(&job);
    assert_eq!(counts(&job), (3, 0, 0));
    // HMAC-SHA-256 of the samples' key under the secret, by OpenSSL.
    let hmac = "3319d62c1175b5e3441ef98467d5e0ba";
    let expected = ["c62c1455-9b1d-4f2d-8797-509ba83b8ae8", hmac, &sha256(RAW_KEY)[..32]].map(str::to_owned);
    assert_eq!(key_ids(&job), expected.into());
}

#[test]
fn what_apisix_sends_twice_counts_once_and_equal_lines_of_a_file_are_calls() {
    let record = String::from_utf8(sample("apisix_kafka_logger_default.json")).unwrap();
    // Two equal calls at once, in one batch that is sent twice; then two lines, which nothing sends again.
    let log = format!("[{record},{record}]\n[{record},{record}]\n{record}\n{record}\n");
    for (dedupe, expected) in [
        ("", (4, 2, 0)),
        ("dedupe = \"batch\"\n", (4, 2, 0)),
        ("dedupe = \"message\"\n", (3, 3, 0)),
        ("dedupe = \"content\"\n", (4, 2, 0)),
        ("dedupe = \"request_id\"\n", (6, 0, 0)),
    ] {
        let job = job("apisix", HEADER, dedupe).file("log", &log);
        meters(&job);
        assert_eq!(counts(&job), expected, "{dedupe}");
    }
}

#[test]
fn equal_lines_of_the_combined_format_are_different_calls() {
    let line = "203.0.113.57 - ada [20/Nov/2025:12:44:15 +0000] \"GET /a?k=1 HTTP/1.1\" 200 7 \"-\" \"-\"\n";
    let combined = |more: &str| job("combined", "from = [\"user\"]", more).file("log", line.repeat(3));
    let counted = combined("");
    meters(&counted);
    assert_eq!(counts(&counted), (3, 0, 0));
    let refused = combined("dedupe = \"content\"\n");
    let ended = Keytide::new(&["check", refused.path("keytide.toml").to_str().unwrap()]).run();
    assert_eq!(ended.code, Some(2));
    assert!(ended.stdout.contains("times of whole seconds"), "{}", ended.stdout);
}

#[test]
fn a_time_that_is_mapped_without_a_unit_is_in_the_gateway_s() {
    for (format, time, latency, status) in [
        ("apisix", "1763642655123", "19", r#""response":{"status":200}"#),
        ("kong", "1763642655123", "19", r#""response":{"status":200}"#),
        ("envoy", "\"2025-11-20T12:44:15.123Z\"", "19", r#""response_code":200"#),
        ("nginx", "1763642655.123", "0.019", r#""status":"200""#),
        ("aws-apigateway", "\"1763642655123\"", "\"19\"", r#""status":"200""#),
        ("otel", "\"1763642655123456789\"", "0.019", r#""http.status_code":200"#),
    ] {
        let job =
            job(format, CLIENT_IP, "[source.fields]\ntime = \"/t\"\nlatency = \"/l\"\nclient_ip = \"/ip\"\n");
        let job = job.file("log", format!(r#"{{"t":{time},"l":{latency},{status},"ip":"203.0.113.57"}}"#));
        meters(&job);
        assert_eq!(counts(&job), (1, 0, 0), "{format}: {}", job.out().text("dead_letters"));
        let minute = &job.out().window("usage", "1m")[0];
        assert_eq!(minute.text("window_start"), "2025-11-20T12:44:00Z", "{format}");
        assert_eq!(minute.number("latency_sum_us"), 19_000, "{format}");
    }
}

#[test]
fn a_header_names_the_columns_of_all_lines_behind_it_whoever_reads_them() {
    let line = |second: u32, columns: &str| {
        columns.replace("SECOND", &format!("{:02}:{:02}", second / 60, second % 60))
    };
    let mut log = String::from("#Version: 1.0\n#Fields: date time cs-username sc-status time-taken\n");
    (0..900).for_each(|second| log += &line(second, "2025-11-20 12:SECOND ada 200 7\n"));
    // The server was told to log otherwise.
    log += "#Fields: sc-status time-taken date time cs-username\n";
    (900..1_800).for_each(|second| log += &line(second, "404 0.007 2025-11-20 12:SECOND bob\n"));
    let mut outputs = Vec::new();
    for (workers, block) in [(1, "64MiB"), (1, "4KiB"), (3, "4KiB")] {
        let limits = format!("[job]\nworkers = {workers}\n[limits]\nblock_bytes = \"{block}\"\n");
        let keys = "from = [\"user\"]\nhash = \"none\"";
        let job = job("cloudfront", keys, &limits).file("log", &log);
        meters(&job);
        assert_eq!(counts(&job), (1_800, 0, 0), "{workers} workers, {block}");
        let mut rows: Vec<(String, u64, u64, u64)> = Vec::new();
        for row in job.out().window("usage", "1d") {
            let key = row.text("key_id").to_owned();
            rows.push((key, row.number("calls"), row.number("errors_4xx"), row.number("latency_sum_us")));
        }
        assert_eq!(rows, [("ada".to_owned(), 900, 0, 6_300_000), ("bob".to_owned(), 900, 900, 6_300_000)]);
        outputs.push(job.out().bytes());
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}
