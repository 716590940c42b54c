//! Sources as somebody configures them, right and wrong, over messages of real shapes.

use std::io::Write as _;
use std::sync::Arc;

use keytide_config::JobConfig;
use tempfile::TempDir;

use super::*;
use crate::decode::NoGeo;

const NOW: Tick = 1_800_000_000_000;
const RAW_KEY: &str = "kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913";
const COMBINED: &str = "198.51.100.7 - alice [20/Nov/2025:12:44:15 +0000] \"GET /v1/x?k=1 HTTP/1.1\" 200 512 \"-\" \"curl/8.5.0\"";

/// What a source over a file with this content looks like, with its hints.
fn looked(source: &str, content: &[u8]) -> (Look, Vec<String>) {
    let folder = TempDir::new().unwrap();
    std::fs::File::create(folder.path().join("log")).unwrap().write_all(content).unwrap();
    let config = format!("[[source]]\nname = \"gateway\"\nkind = \"file\"\npath = \"log\"\n{source}");
    let job = JobConfig::parse(&config, folder.path(), std::iter::empty()).unwrap().job;
    let context = Context::new(&job.routes, &[], job.limits, Arc::new(NoGeo));
    let look = Look::at(&job.sources[0], &context, &job.limits, NOW).unwrap();
    let hints = look.hints(&job.sources[0]);
    let told = format!("{:?} {hints:?}", look.members());
    assert!(!told.contains(RAW_KEY) && !told.contains("stranger"), "{told}");
    (look, hints)
}

const JSON: &str = "\
format = \"json\"
[source.keys]
from = [\"header:apikey\", \"key\", \"field:/alt/key\"]
[source.fields]
time = { at = \"/t\", unit = \"ms\" }
key = \"/k\"
path = \"/p\"
";

#[test]
fn records_are_counted_by_what_becomes_of_them_and_keys_by_their_rules() {
    let mut log = String::new();
    for number in 0..600_u64 {
        let time = 1_763_642_655_000 + number;
        let key = match number % 3 {
            0 => format!(r#""k":"{RAW_KEY}","#),
            1 => format!(r#""alt":{{"key":"{RAW_KEY}"}},"#),
            _ => String::new(),
        };
        log.push_str(&format!("{{{key}\"t\":{time},\"p\":\"/stranger\",\"status\":200}}\n"));
    }
    log.push_str("{\"p\":\"/stranger\"}\nnonsense\n");
    let (look, hints) = looked(JSON, log.as_bytes());
    assert_eq!((look.accepted, look.refusals(), look.records()), (600, 2, 602));
    assert_eq!((look.tally.found_by[..3].to_vec(), look.tally.keyless), (vec![0, 200, 200], 200));
    assert_eq!(look.times, Some((1_763_642_655_000, 1_763_642_655_599)));
    let (partition, offset) = look.first_refused.clone().unwrap();
    assert!(partition.path.unwrap().ends_with("/log") && offset > 0);
    assert!(!look.has_nothing());
    assert_eq!(look.members(), ["/p", "/status", "/t"]);
    assert_eq!(hints, Vec::<String>::new());
}

#[test]
fn no_more_is_read_than_is_looked_at() {
    let line = |time: u64| format!("{{\"t\":{time},\"k\":\"{RAW_KEY}\",\"p\":\"/\"}}\n");
    let log: String = (0..5_000).map(|number| line(1_763_642_655_000 + number)).collect();
    let (look, _) = looked(JSON, log.as_bytes());
    assert_eq!(look.records(), RECORDS);
    let wide = format!("{{\"t\":1763642655000,\"p\":\"/{}\"}}\n", "x".repeat(1 << 20)).repeat(40);
    let (look, _) = looked(JSON, wide.as_bytes());
    assert!((16..40).contains(&look.records()), "{}", look.records());
    let (look, hints) = looked(JSON, b"");
    assert!(!look.has_nothing() && look.records() == 0 && hints.is_empty());
}

#[test]
#[allow(clippy::disallowed_methods, reason = "fixtures are the repository's own")]
fn another_format_is_told_by_its_lines() {
    let fixture = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decode/");
        std::fs::read_to_string(format!("{folder}{name}.json")).unwrap()
    };
    let alb = "h2 2025-11-20T12:44:15.123456Z app/my/50dc6c495c0c9188 198.51.100.7:2817 10.0.0.1:80 0.0 0.0 0.0 200 200 \
               34 366 \"GET https://stranger.example:443/ HTTP/1.1\" \"curl\" - -";
    let haproxy = "Nov 20 12:44:15 lb haproxy[14389]: 198.51.100.7:33317 [20/Nov/2025:12:44:15.655] in app/srv1 \
                   10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 \"GET /stranger HTTP/1.1\"";
    for (log, told) in [
        (fixture("apisix_kafka_logger_default"), "`apisix`"),
        (fixture("kong_http_log"), "`kong`"),
        (fixture("aws_apigw_rest_access_log"), "`aws-apigateway`"),
        (format!("2025-11-20T12:44:15.123Z {}", fixture("aws_apigw_rest_access_log")), "`aws-apigateway`"),
        (fixture("istio_envoy_default"), "`envoy`"),
        (fixture("nginx_json_log"), "`nginx`"),
        (r#"{"messageType":"DATA_MESSAGE","logEvents":[]}"#.to_owned(), "`cloudwatch`"),
        (r#"{"specversion":"1.0","type":"a","source":"/b","id":"1"}"#.to_owned(), "`cloudevents`"),
        (r#"{"resourceLogs":[]}"#.to_owned(), "`otel`"),
        (COMBINED.to_owned(), "`combined`"),
        (
            COMBINED.replace(" \"-\" \"curl/8.5.0\"", ""),
            "the common log format, `combined` without referrer and agent",
        ),
        (alb.to_owned(), "the log of an AWS load balancer (ALB)"),
        (haproxy.to_owned(), "HAProxy's HTTP log"),
        ("#Version: 1.0\n#Fields: date time".to_owned(), "CloudFront's standard log (W3C)"),
        (
            format!("2025-11-20T12:44:15.1Z stdout F {COMBINED}"),
            "lines of a container runtime (CRI) around the log's own",
        ),
        (
            "time,key,path,status\n1763642655000,a,/stranger,200".to_owned(),
            "comma-separated values (CSV), which no source reads",
        ),
        ("[2025-11-20T12:44:15.123Z] \"GET /stranger HTTP/1.1\" 200 - 0 5".to_owned(), "Envoy's log as text"),
        (
            "\0\0\0\0\u{7}Hstranger".to_owned(),
            "binary messages of a schema registry, such as Avro or Protobuf",
        ),
    ] {
        let (look, hints) = looked(JSON, log.replace("\r\n", "\n").as_bytes());
        let told = format!("lines look like {told}, and the format is `json`");
        assert!(hints.contains(&told), "{told}: {hints:?}\n{look:?}");
    }
    let (look, hints) = looked("format = \"combined\"\nkeys = { from = [\"user\"] }", COMBINED.as_bytes());
    assert_eq!((look.accepted, look.tally.found_by[0], hints), (1, 1, Vec::new()));
    // As that of ingress-nginx, a pattern may begin like `combined`.
    let pattern = r#"'$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_time'"#;
    let text = format!("format = \"text\"\npattern = {pattern}\nkeys = {{ from = [\"header:x-api-key\"] }}");
    let line = format!("{} 0.034\n", COMBINED.trim_end());
    let (look, hints) = looked(&text, line.as_bytes());
    assert_eq!((look.accepted, look.tally.keyless, hints), (1, 1, Vec::new()));
    let (look, hints) = looked(&text, COMBINED.as_bytes());
    let told = "lines look like `combined`, and the format is `text`".to_owned();
    assert_eq!((look.accepted, hints), (0, vec![told]));
}

#[test]
fn a_mapping_that_fits_no_record_is_told_by_names() {
    let record = |time: &str| {
        format!(
            "{{\"requestTime\":{time},\"identity\":{{\"apiKey\":\"{RAW_KEY}\",\"sourceIp\":\"198.51.100.7\"}},\
             \"headers\":{{\"x-api-key\":\"{RAW_KEY}\",\"x-stranger\":\"1\",\"stranger.apikey\":1}},\"query\":{{\"{RAW_KEY}\":true}},\
             \"{RAW_KEY}\":1,\"p\":\"/stranger\"}}\n"
        )
    };
    for (time, hint) in [
        ("1763642655000", "the time looks like ms, and is configured as s"),
        ("\"1763642655000000\"", "the time looks like us, and is configured as s"),
    ] {
        let source = JSON.replace("\"/t\", unit = \"ms\"", "\"/requestTime\", unit = \"s\"");
        let (look, hints) = looked(&source, record(time).repeat(3).as_bytes());
        assert!(hints.iter().any(|told| told == hint), "{hints:?}");
        assert!(hints.contains(&"none of the records has /k (fields.key)".to_owned()), "{hints:?}");
        assert!(
            hints.contains(&"none of the records has /alt/key (keys.from field:/alt/key)".to_owned()),
            "{hints:?}"
        );
        assert_eq!(
            look.members(),
            ["/headers", "/identity/apiKey", "/identity/sourceIp", "/p", "/query", "/requestTime"]
        );
    }
    let right = JSON.replace("\"/t\"", "\"/requestTime\"");
    let (look, hints) = looked(&right, record("1763642655000").as_bytes());
    assert_eq!((look.accepted, look.tally.keyless), (1, 1));
    assert!(
        hints.contains(&"keys may stand at /headers/x-api-key, /identity/apiKey".to_owned()),
        "{hints:?}"
    );
    let right = right.replace("\"key\", ", "\"header:x-api-key\", ").replace("/alt/key", "/identity/apiKey");
    let (look, hints) = looked(&right, record("1763642655000").replace(RAW_KEY, "").as_bytes());
    assert_eq!(look.tally.keyless, 1);
    assert!(!hints.iter().any(|told| told.contains("may stand")), "{hints:?}");
}

#[test]
fn what_is_wrapped_compressed_or_odd_is_looked_at_as_well() {
    let record = format!("{{\"t\":1763642655000,\"k\":\"{RAW_KEY}\",\"p\":\"/\"}}");
    let wrapped = serde_json::json!({ "log": record, "stream": "stdout" }).to_string();
    let (look, _) = looked(JSON, wrapped.as_bytes());
    assert_eq!(look.members(), ["/k", "/p", "/t"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(record.as_bytes()).unwrap();
    let (look, _) = looked(JSON, &gzip.finish().unwrap());
    assert_eq!((look.accepted, look.members().len()), (1, 3));
    let deep = "[".repeat(100_000);
    for odd in [&b"\xff\xfe\x00"[..], b"null", b"[[[]]]", b"0 1 2", deep.as_bytes()] {
        let (look, _) = looked(JSON, odd);
        assert_eq!(look.accepted, 0);
        assert!(look.has_nothing(), "{odd:?}");
    }
}
