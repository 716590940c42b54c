//! Events per second of each decoder on one core, over lines made in memory, beside serde_json into a
//! borrowed struct (which makes no event of them) in the same run:
//! `cargo run --release -p keytide-connectors --example decode_bench [FORMAT]`.
//!
//! Each figure is the best of several rounds: other work on the machine only ever makes a round slower.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use keytide_config::{
    Dedupe, Field, FieldMap, Format, KeyFrom, KeyHash, KeyRules, Limits, LinePattern, MissingKey, Pointer,
    Routes, Source, SourceKind, Unit,
};
use keytide_connectors::decode::{Context, Decoded, NoGeo, decoder};
use keytide_dataflow::model::Position;
use serde::Deserialize;

const RECORDS: usize = 100_000;
const ROUNDS: usize = 9;

fn main() {
    let json = lines(|n| {
        format!(
            r#"{{"requestId":"{:016x}-{n:06}","requestTime":{},"apiKey":"kt_{:032x}","routeKey":"orders-v{}","httpMethod":"GET","status":200,"latencyMs":{}.25,"requestLength":{},"responseLength":{},"ip":"203.0.{}.{}","country":"DE","userAgent":"okhttp/4.12.0 (Android 15)"}}"#,
            (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            1_763_642_655_123_u64 + n as u64,
            n % 1_000,
            n % 20,
            n % 90,
            n % 4_096,
            n % 65_536,
            n % 256,
            n / 256 % 256,
        )
    });
    let apisix = fixture(include_str!("../tests/fixtures/decode/apisix_kafka_logger_default.json"));
    let kong = fixture(include_str!("../tests/fixtures/decode/kong_http_log.json"));
    let combined = lines(|n| {
        format!(
            r#"203.0.{}.{} - user{} [20/Nov/2025:12:{:02}:{:02} +0000] "GET /v2/orders/{n}?expand=items HTTP/1.1" 200 {} "https://www.example.com/shop/" "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36""#,
            n % 256,
            n / 256 % 256,
            n % 1_000,
            n / 60 % 60,
            n % 60,
            n % 65_536,
        )
    });
    let ingress = lines(|n| {
        format!(
            r#"203.0.{}.{} - - [20/Nov/2025:12:{:02}:{:02} +0000] "GET /v2/orders/{n}?apikey=kt_{:04} HTTP/1.1" 200 {} "-" "okhttp/4.12.0 (Android 15)" 210 0.044 [shop-orders-80] [] 10.0.0.5:8080 934 0.043 200 9b1a0000000000000000000000000001"#,
            n % 256,
            n / 256 % 256,
            n / 60 % 60,
            n % 60,
            n % 4_096,
            n % 65_536,
        )
    });
    let yardstick = best(&json, |line| {
        let text = simdutf8::basic::from_utf8(line).expect("the lines are UTF-8");
        black_box(serde_json::from_str::<Borrowed<'_>>(text).expect("the lines are JSON"));
    });
    report("serde_json derive", &json, yardstick, yardstick);
    let only = std::env::args().nth(1);
    for (name, format, messages) in [
        ("json", Format::Json, &json),
        ("apisix", Format::Apisix, &apisix),
        ("kong", Format::Kong, &kong),
        ("combined", Format::Combined, &combined),
        ("text", Format::Text, &combined),
        ("ingress", Format::Text, &ingress),
    ] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let context = Context::new(&Routes::default(), &[], Limits::default(), Arc::new(NoGeo));
        let mut source = source(format);
        source.pattern = pattern(name);
        let mut decoder = decoder(&source, &context);
        let mut out = Decoded::default();
        let rate = best(messages, |line| {
            decoder.decode(line, Position::default(), &mut out);
            if out.events.len() == 1_000 {
                assert!(out.dead_letters.is_empty(), "{:?}", out.dead_letters.first());
                black_box(&out.events);
                out.events.clear();
            }
        });
        report(name, messages, rate, yardstick);
    }
}

fn lines(line: impl Fn(usize) -> String) -> Vec<Vec<u8>> {
    (0..RECORDS).map(|n| line(n).into_bytes()).collect()
}

/// Copies of one record, each with memory of its own.
fn fixture(record: &str) -> Vec<Vec<u8>> {
    vec![record.trim().as_bytes().to_vec(); RECORDS / 8]
}

fn best(lines: &[Vec<u8>], mut decode: impl FnMut(&[u8])) -> f64 {
    (0..ROUNDS).fold(0.0, |best: f64, _| {
        let start = Instant::now();
        lines.iter().for_each(|line| decode(line));
        best.max(lines.len() as f64 / start.elapsed().as_secs_f64())
    })
}

fn report(name: &str, lines: &[Vec<u8>], rate: f64, yardstick: f64) {
    let bytes = lines.iter().map(Vec::len).sum::<usize>() / lines.len();
    println!(
        "{name:<18} {:>7.3} M events/s  {:>5.0} ns  {bytes:>5} B/record  {:>5.2} x serde_json's rate on `json`",
        rate / 1e6,
        1e9 / rate,
        rate / yardstick
    );
}

/// What the lines of a text format look like.
fn pattern(name: &str) -> Option<LinePattern> {
    let text = match name {
        "text" => {
            r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#
        }
        "ingress" => {
            r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id"#
        }
        _ => return None,
    };
    Some(LinePattern::parse(text).expect("a pattern of NGINX's"))
}

fn source(format: Format) -> Source {
    let at = |member: &str, unit| Some(Field::new(Pointer(vec![member.to_owned()]), unit));
    let fields = match format {
        Format::Json => FieldMap {
            request_id: at("requestId", None),
            time: at("requestTime", Some(Unit::Millis)),
            key: at("apiKey", None),
            route: at("routeKey", None),
            method: at("httpMethod", None),
            status: at("status", None),
            latency: at("latencyMs", Some(Unit::Millis)),
            bytes_in: at("requestLength", None),
            bytes_out: at("responseLength", None),
            client_ip: at("ip", None),
            country: at("country", None),
            user_agent: at("userAgent", None),
            ..FieldMap::default()
        },
        _ => FieldMap::default(),
    };
    let from = vec![
        KeyFrom::Header("apikey".to_owned()),
        KeyFrom::Query("apikey".to_owned()),
        KeyFrom::Key,
        KeyFrom::User,
    ];
    Source {
        name: "bench".to_owned(),
        kind: SourceKind::Stdin,
        format,
        inner: None,
        pattern: None,
        fields,
        keys: KeyRules { from, hash: KeyHash::Sha256, missing: MissingKey::Anonymous },
        dedupe: Dedupe::RequestId,
        routes: keytide_config::RoutesFrom::Gateway,
        unwrap: Source::default_unwrap(),
        records: Source::default_records(),
        only: Vec::new(),
        zone: keytide_config::Zone::default(),
    }
}

/// The members that `source` maps, as serde reads them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "read by the deserializer only")]
struct Borrowed<'a> {
    request_id: &'a str,
    request_time: u64,
    api_key: &'a str,
    route_key: &'a str,
    http_method: &'a str,
    status: u16,
    latency_ms: f64,
    request_length: u64,
    response_length: u64,
    ip: &'a str,
    country: &'a str,
    user_agent: &'a str,
}
