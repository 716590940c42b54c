//! The decoders as their users see them: real messages of each gateway, hostile ones, and the promise that no
//! raw key comes out.

use keytide_config::{
    Dedupe, Field, FieldMap, KeyFrom, KeyHash, KeyRules, MissingKey, Pointer, Secret, SourceKind, Unit, Zone,
};
use keytide_dataflow::model::{KeyId, LATENCY_UNKNOWN, NameId, NetworkClass, RequestId, RouteId};
use proptest::prelude::*;

use super::*;

mod cloudevents;
mod cloudwatch;
mod compressed;

mod gateways;
mod only;
mod otlp;
mod secrets;

/// The key in the fixtures, which must never come out.
const RAW_KEY: &str = "kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

const APISIX: &[u8] = include_bytes!("../../../tests/fixtures/decode/apisix_kafka_logger_default.json");
const APISIX_BATCH: &[u8] = include_bytes!("../../../tests/fixtures/decode/apisix_kafka_logger_batch.json");
const KONG: &[u8] = include_bytes!("../../../tests/fixtures/decode/kong_http_log.json");
const KONG_BATCH: &[u8] = include_bytes!("../../../tests/fixtures/decode/kong_http_log_batch.json");
const NGINX: &[u8] = include_bytes!("../../../tests/fixtures/decode/nginx_json_log.json");
const AWS: &[u8] = include_bytes!("../../../tests/fixtures/decode/aws_apigw_rest_access_log.json");

fn source(format: Format) -> Source {
    let from = vec![KeyFrom::Header("apikey".into()), KeyFrom::Query("apikey".into()), KeyFrom::Key];
    Source {
        name: "gateway".to_owned(),
        kind: SourceKind::Stdin,
        format,
        inner: (format == Format::Cloudwatch).then_some(Format::AwsApigateway),
        pattern: None,
        fields: FieldMap::default(),
        keys: KeyRules { from, hash: KeyHash::Sha256, missing: MissingKey::Anonymous },
        dedupe: Dedupe::RequestId,
        routes: keytide_config::RoutesFrom::Gateway,
        unwrap: Source::default_unwrap(),
        records: Source::default_records(),
        only: Vec::new(),
        zone: Zone::default(),
    }
}

fn at(pointer: &str) -> Option<Field> {
    field(pointer, None)
}

fn field(pointer: &str, unit: Option<Unit>) -> Option<Field> {
    Some(Field::new(Pointer(pointer.split('/').skip(1).map(str::to_owned).collect()), unit))
}

/// Records of two levels with a member for each canonical field.
fn json() -> Source {
    let fields = FieldMap {
        request_id: at("/id"),
        time: field("/time", Some(Unit::Millis)),
        key: at("/key"),
        api: at("/api"),
        route: at("/route"),
        path: at("/path"),
        method: at("/method"),
        status: at("/response/status"),
        latency: field("/response/latency", Some(Unit::Millis)),
        bytes_in: at("/in"),
        bytes_out: at("/response/out"),
        units: at("/units").map(|field| Field { scale: 3, ..field }),
        client_ip: at("/ip"),
        forwarded_for: at("/xff"),
        country: at("/country"),
        user_agent: at("/agent"),
        consumer: at("/consumer"),
        credential: at("/credential"),
        user: at("/user"),
        end: field("/end", Some(Unit::Millis)),
        count: at("/count"),
        ..FieldMap::default()
    };
    Source { fields, ..source(Format::Json) }
}

fn context(limits: Limits) -> Context {
    Context::new(&Routes::default(), &[], limits, Arc::new(NoGeo))
}

const START: Position = Position { partition: 3, offset: 70, index: 0 };

fn run_with(source: &Source, context: &Context, message: &[u8]) -> Decoded {
    let mut out = Decoded::default();
    decoder(source, context).decode(message, START, &mut out);
    out
}

fn run(source: &Source, message: impl AsRef<[u8]>) -> Decoded {
    run_with(source, &context(Limits::default()), message.as_ref())
}

/// The only event of a message without dead letters.
fn event(source: &Source, message: impl AsRef<[u8]>) -> AccessEvent {
    let out = run(source, message);
    assert_eq!((out.events.len(), out.dead_letters.as_slice()), (1, &[][..]));
    out.events[0]
}

/// The only dead letter of a message without events.
fn refused(source: &Source, message: impl AsRef<[u8]>) -> DeadLetter {
    let mut out = run(source, message);
    assert_eq!((out.events.len(), out.dead_letters.len()), (0, 1), "{out:?}");
    out.dead_letters.remove(0)
}

/// The route that a decoder defined last.
fn route(out: &Decoded) -> (RouteId, &str, &str, &str) {
    let route = |definition| match definition {
        &Definition::Route { id, ref api, ref method, ref route, .. } => {
            Some((id, &**api, &**method, &**route))
        }
        _ => None,
    };
    out.definitions.iter().rev().find_map(route).unwrap()
}

/// The user agents that a decoder defined.
fn agents(out: &Decoded) -> Vec<(NameId, &str)> {
    let agent = |definition| match definition {
        &Definition::Agent { id, ref text, .. } => Some((id, &**text)),
        _ => None,
    };
    out.definitions.iter().filter_map(agent).collect()
}

fn v4(address: &str) -> u128 {
    address.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().to_bits()
}

fn sha256_id(key: &str) -> KeyId {
    KeyId::from_hash(&Sha256::digest(key))
}

fn expected(request: &str) -> AccessEvent {
    AccessEvent {
        key: sha256_id(RAW_KEY),
        request: RequestId::new("gateway", request.as_bytes()),
        client: v4("203.0.113.57"),
        time: 1_763_642_655_123,
        route: RouteId(0),
        user_agent: NameId::NONE,
        position: START,
        latency_us: 19_000,
        bytes_in: 0,
        bytes_out: 0,
        units: 0,
        count: 1,
        late_ms: 0,
        asn: 0,
        status: 200,
        is_free: false,
        country: Country::UNKNOWN,
        place: CallerLocation::default(),
    }
}

// Golden messages, one gateway after the other.

#[test]
fn apisix() {
    let out = run(&source(Format::Apisix), APISIX);
    let golden = AccessEvent {
        request: RequestId::NONE,
        route: RouteId::new("svc-orders", "GET", "orders-v2"),
        user_agent: NameId::new("AcmeMobile/7.4.1 (iPhone; iOS 18.5; Scale/3.00)"),
        bytes_in: 612,
        bytes_out: 2_318,
        ..expected("")
    };
    assert_eq!(out.events, [golden]);
    assert_eq!(route(&out), (golden.route, "svc-orders", "GET", "orders-v2"));

    let batch = run(&source(Format::Apisix), APISIX_BATCH);
    let second = AccessEvent {
        time: golden.time + 7,
        latency_us: 23_500,
        position: Position { index: 1, ..START },
        ..golden
    };
    assert_eq!((batch.events, batch.dead_letters), (vec![golden, second], vec![]));
    assert_eq!(batch.definitions.len(), 2, "the route and the user agent: each once");
}

#[test]
fn apisix_traps() {
    let mut apisix = source(Format::Apisix);
    apisix.keys.from = vec![KeyFrom::Credential, KeyFrom::Consumer, KeyFrom::Query("apikey".into())];
    assert_eq!(event(&apisix, APISIX).key, sha256_id("cred-7781"));
    // Without a consumer the header is the caller's own; `consumer` and `upstream_latency` can be absent.
    let forged =
        br#"{"start_time":1763642655123.25,"request":{"method":"GET","headers":{"x-credential-identifier":"cred-7781"}}}"#;
    assert_eq!(event(&apisix, forged).key, KeyId::ANONYMOUS);
    // A bare query argument is `true`, a repeated one an array.
    for (argument, key) in [("true", None), ("[true,\"\",\"k1\",\"k2\"]", Some("k1")), ("\"k3\"", Some("k3"))]
    {
        let message = format!(
            r#"{{"start_time":1763642655123,"request":{{"method":"GET","querystring":{{"apikey":{argument}}}}}}}"#
        );
        assert_eq!(event(&apisix, message).key, key.map_or(KeyId::ANONYMOUS, sha256_id), "{argument}");
    }
    // Header names in any case; repeated headers are arrays.
    let apisix = source(Format::Apisix);
    let message = br#"{"start_time":1763642655123,"request":{"method":"GET","headers":{"ApiKey":["","k1","k2"],"User-Agent":["a","b"]}}}"#;
    let event_ = event(&apisix, message);
    assert_eq!((event_.key, event_.user_agent), (sha256_id("k1"), NameId::new("a")));
    // The request id is a member of its own, never a header of the caller's. It may be the caller's all the same, so
    // it counts with the content; who maps it vouches for it.
    let message = r#"{"start_time":1763642655123,"request_id":"r-1","request":{"method":"GET","headers":{"x-request-id":"mine"}}}"#;
    let id = |source: &Source, message: &str| event(source, message).request;
    let unvouched = id(&apisix, message);
    assert_ne!(unvouched, RequestId::new("gateway", b"r-1"));
    assert_eq!(id(&apisix, &message.replace("mine", "other")), unvouched);
    assert_ne!(id(&apisix, &message.replace("r-1", "r-2")), unvouched);
    assert_eq!(id(&apisix, &message.replace("\"request_id\":\"r-1\",", "")), RequestId::NONE);
    let mut vouched = apisix.clone();
    vouched.fields.request_id = at("/request_id");
    assert_eq!(id(&vouched, message), RequestId::new("gateway", b"r-1"));
}

#[test]
fn content_identity() {
    let apisix = Source { dedupe: Dedupe::Content, ..source(Format::Apisix) };
    let text = std::str::from_utf8(APISIX).unwrap();
    let first = event(&apisix, text).request;
    assert!(first.is_some());
    assert_eq!(event(&apisix, text).request, first);
    for (from, to) in [
        ("\"start_time\":1763642655123", "\"start_time\":1763642655123.001"),
        ("\"client_ip\":\"203.0.113.57\"", "\"client_ip\":\"203.0.113.58\""),
        ("\"method\":\"GET\"", "\"method\":\"PUT\""),
        ("\"uri\":\"/v2/orders/48151623?", "\"uri\":\"/v2/orders/48151624?"),
        ("\"size\":612", "\"size\":613"),
        ("\"size\":2318", "\"size\":2319"),
        ("18.999814987183", "18.999814987184"),
        ("\"host\":\"api.", "\"host\":\"apj."),
    ] {
        assert!(text.contains(from), "{from}");
        assert_ne!(event(&apisix, text.replace(from, to)).request, first, "{from}");
    }
    // A request id that a caller may have chosen is part of the content; one that is vouched for, the better identity.
    let message = br#"{"start_time":1763642655123,"request_id":"r-1","request":{"method":"GET"}}"#;
    assert!(![RequestId::new("gateway", b"r-1"), RequestId::NONE].contains(&event(&apisix, message).request));
    let fields = FieldMap { request_id: at("/request_id"), ..FieldMap::default() };
    let vouched = Source { fields, ..apisix };
    assert_eq!(event(&vouched, message).request, RequestId::new("gateway", b"r-1"));
}

#[test]
fn kong() {
    let out = run(&source(Format::Kong), KONG);
    let golden = AccessEvent {
        route: RouteId::new("orders", "GET", "orders-v2"),
        user_agent: NameId::new("okhttp/4.12.0"),
        bytes_in: 412,
        bytes_out: 1_982,
        ..expected("2f6946328ffc4946b8c9120704a4a155")
    };
    assert_eq!(out.events, [golden]);
    assert_eq!(route(&out), (golden.route, "orders", "GET", "orders-v2"));

    let batch = run(&source(Format::Kong), KONG_BATCH);
    let second = AccessEvent {
        time: golden.time + 7,
        request: RequestId::new("gateway", b"2f6946328ffc4946b8c9120704a4a150"),
        position: Position { index: 1, ..START },
        ..golden
    };
    assert_eq!((batch.events, batch.dead_letters), (vec![golden, second], vec![]));
}

#[test]
fn kong_traps() {
    let mut kong = source(Format::Kong);
    kong.keys.from = vec![KeyFrom::Credential, KeyFrom::Consumer];
    assert_eq!(event(&kong, KONG).key, sha256_id("c62c1455-9b1d-4f2d-8797-509ba83b8ae8"));
    // Sizes as texts, unknown latency, escaped slashes, ids where names are missing, null where nothing matched.
    let message = br#"{"started_at":1763642655123,"latencies":{"request":-1,"proxy":-1},
        "request":{"size":"412","uri":"\/v2\/orders\/7?x=\/y","method":"get"},"response":{"size":"9","status":"404"},
        "service":{"id":"svc","name":null},"route":null,"consumer":{"id":"c-1","custom_id":"x"}}"#;
    let out = run(&kong, message);
    assert_eq!(route(&out), (out.events[0].route, "svc", "GET", "/v2/orders/{id}"));
    let AccessEvent { key, status, latency_us, bytes_in, bytes_out, .. } = out.events[0];
    assert_eq!((key, status, latency_us), (sha256_id("c-1"), 404, LATENCY_UNKNOWN));
    assert_eq!((bytes_in, bytes_out), (412, 9));
    for (order, name) in
        [(r#""name":"n","id":"i""#, "n"), (r#""id":"i","name":"n""#, "n"), (r#""id":"i""#, "i")]
    {
        let out = run(&kong, format!(r#"{{"started_at":1763642655123,"route":{{{order}}}}}"#));
        assert_eq!(route(&out).3, name);
    }
}

#[test]
fn nginx_by_fields() {
    let mut nginx = source(Format::Json);
    nginx.fields = FieldMap {
        request_id: at("/request_id"),
        time: field("/msec", Some(Unit::Seconds)),
        key: at("/http_x_api_key"),
        path: at("/request_uri"),
        method: at("/request_method"),
        status: at("/status"),
        latency: field("/request_time", Some(Unit::Seconds)),
        bytes_out: at("/body_bytes_sent"),
        client_ip: at("/remote_addr"),
        user_agent: at("/http_user_agent"),
        ..FieldMap::default()
    };
    let golden = AccessEvent {
        route: RouteId::new("", "GET", "/v2/orders/{id}"),
        user_agent: NameId::new("okhttp/4.12.0"),
        bytes_out: 1_982,
        ..expected("6b1f7c0e7d114b7e9a642f5c3f0e8a10")
    };
    assert_eq!(event(&nginx, NGINX), golden);
    nginx.fields.time = field("/time_iso8601", Some(Unit::Rfc3339));
    assert_eq!(event(&nginx, NGINX).time, golden.time - 123);
}

#[test]
fn aws_by_fields() {
    let mut aws = source(Format::Json);
    aws.keys = KeyRules { from: vec![KeyFrom::Key], hash: KeyHash::None, missing: MissingKey::DeadLetter };
    aws.fields = FieldMap {
        request_id: at("/requestId"),
        time: field("/requestTimeEpoch", Some(Unit::Millis)),
        key: at("/apiKeyId"),
        api: at("/apiId"),
        route: at("/resourcePath"),
        method: at("/httpMethod"),
        status: at("/status"),
        latency: field("/responseLatency", Some(Unit::Millis)),
        bytes_out: at("/responseLength"),
        client_ip: at("/ip"),
        user: at("/user"),
        end: field("/end", Some(Unit::Millis)),
        count: at("/count"),
        ..FieldMap::default()
    };
    let out = run(&aws, AWS);
    let golden = AccessEvent {
        key: KeyId::from_name("a1b2c3d4e5"),
        route: RouteId::new("z9x8c7v6b5", "GET", "/v2/orders/{id}"),
        latency_us: LATENCY_UNKNOWN,
        bytes_out: 1_982,
        ..expected("JKJaXmPLvHcESHA=")
    };
    assert_eq!(out.events, [golden]);
    assert!(out.definitions.contains(&named(golden.key, "a1b2c3d4e5", golden.time)));
    aws.fields.time = field("/requestTime", Some(Unit::Clf));
    assert_eq!(event(&aws, AWS).time, golden.time - 123);
    // Missing values of a free-text template: quoted, or bare where a number would stand.
    let text = std::str::from_utf8(AWS).unwrap();
    assert_eq!(event(&aws, text.replace("\"1982\"", "-")).bytes_out, 0);
    assert_eq!(event(&aws, text.replace("\"1982\"", "\"-\"")).bytes_out, 0);
    refused(&aws, text.replace("a1b2c3d4e5", "-"));
}

const LINE: &str = r#"203.0.113.57 - ada [20/Nov/2025:12:44:15 +0000] "GET /v2/orders/7?x=1 HTTP/1.1" 200 1982 "-" "okhttp/4.12.0""#;

#[test]
fn combined() {
    let mut combined = source(Format::Combined);
    combined.keys.from = vec![KeyFrom::Query("apikey".into()), KeyFrom::User];
    let golden = AccessEvent {
        key: sha256_id("ada"),
        request: RequestId::NONE,
        time: 1_763_642_655_000,
        route: RouteId::new("", "GET", "/v2/orders/{id}"),
        user_agent: NameId::new("okhttp/4.12.0"),
        latency_us: LATENCY_UNKNOWN,
        bytes_out: 1_982,
        ..expected("")
    };
    assert_eq!(event(&combined, LINE), golden);
    assert_eq!(event(&combined, format!("{LINE} 0.019 \"more\"\r\n")), golden);
    let with = |from: &str, to: &str| {
        assert!(LINE.contains(from));
        event(&combined, LINE.replace(from, to))
    };
    assert_eq!(with("ada", "-").key, KeyId::ANONYMOUS);
    assert_eq!(with("ada", "ada [x] lovelace").key, sha256_id("ada [x] lovelace"));
    assert_eq!(with("ada", r"a\xc3\xa4").key, sha256_id("aä"));
    assert_eq!(with("x=1", "apikey=k%31").key, sha256_id("k1"));
    assert_eq!(with("1982", "-").bytes_out, 0);
    assert_eq!(with("200", "-").status, 0);
    assert_eq!(with("200", "000").status, 0);
    assert_eq!(with("okhttp/4.12.0", r#"a \"b\" \\"#).user_agent, NameId::new(r#"a "b" \"#));
    assert_eq!(with("203.0.113.57", "host.example.com").client, 0);
    assert_eq!(with("203.0.113.57", "2001:db8::1").client, 0x2001_0db8 << 96 | 1);
}

#[test]
fn request_lines_that_are_not_http() {
    let combined = source(Format::Combined);
    for (request, method, expected) in [
        ("-", "OTHER", "-"),
        ("", "OTHER", "-"),
        (r"\x16\x03\x01\x02", "OTHER", "-"),
        (r"\x16\x03 \x01 \x02", "OTHER", "-"),
        ("GET /half", "OTHER", "-"),
        ("CONNECT evil.example:443 HTTP/1.1", "CONNECT", "-"),
        ("PROPFIND /a HTTP/1.1", "OTHER", "/a"),
        ("OPTIONS * HTTP/1.1", "OPTIONS", "/*"),
        ("GET http://a.example/b?c HTTP/1.1", "GET", "/b"),
        ("GET /a b HTTP/2.0", "GET", "/a b"),
        (r"GET /a\x1b[31m HTTP/1.1", "GET", "/a\u{fffd}[31m"),
    ] {
        let out = run(&combined, LINE.replace("GET /v2/orders/7?x=1 HTTP/1.1", request));
        assert!(out.dead_letters.is_empty(), "{request}");
        assert_eq!(route(&out), (out.events[0].route, "", method, expected), "{request}");
    }
}

#[test]
fn malformed_lines() {
    let combined = source(Format::Combined);
    for bad in [
        LINE.trim_end_matches('"'),
        &LINE[..60],
        "",
        "\n\r\n",
        "x",
        "a b c",
        &LINE.replace("Nov", "Nun"),
        &LINE.replace("] ", "]"),
        &LINE.replace(" 1982 ", " "),
        &LINE.replace(" \"-\"", ""),
        &format!("{LINE}x"),
        &LINE.replace("2025", "1999"),
    ] {
        refused(&combined, bad);
    }
    // A field that can't be read is unknown.
    for (from, to, field) in
        [(" 200 ", " 20x ", "status"), (" 200 ", " 99 ", "status"), (" 1982 ", " -5 ", "bytes_out")]
    {
        let out = run(&combined, LINE.replace(from, to));
        assert_eq!((out.events.len(), out.tally.unread().collect::<Vec<_>>()), (1, vec![(field, 1)]), "{to}");
        let expected = if field == "status" { (0, 1_982) } else { (200, 0) };
        assert_eq!((out.events[0].status, out.events[0].bytes_out), expected, "{to}");
    }
    let message = format!("{LINE}\n\n{LINE}\r\nbroken\n{LINE}\n");
    let out = run(&combined, &message);
    assert_eq!((out.events.len(), out.dead_letters.len(), out.dead_letters[0].events_before), (3, 1, 2));
    assert_eq!(out.events.iter().map(|event| event.position.index).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(out.dead_letters[0].sha256, <[u8; 32]>::from(Sha256::digest("broken")));
    // Bytes that aren't UTF-8 are carried; what can't be read is told of by its own bytes.
    let mut odd = message.clone().into_bytes();
    odd[5] = 0xFF;
    let out = run(&combined, odd);
    assert_eq!((out.events.len(), out.events[0].client, out.dead_letters.len()), (3, 0, 1));
    let letter = refused(&combined, b"br\xFFken");
    assert_eq!((letter.length, letter.sha256), (6, Sha256::digest(b"br\xFFken").into()));
    let limits = Limits { message_records: 2, ..Limits::default() };
    let out = run_with(&combined, &context(limits), message.as_bytes());
    assert_eq!((out.events.len(), out.dead_letters.len()), (2, 1));
    assert_eq!(out.dead_letters[0].length, (message.len() - 2 * LINE.len() - 4) as u64);
}

// Fields.

fn with(member: &str) -> String {
    format!(r#"{{"time":1763642655123,"method":"GET",{member}}}"#)
}

#[test]
fn limits_of_numbers() {
    let json = json();
    let latency = |value: &str| {
        let out = run(&json, with(&format!(r#""response":{{"latency":{value}}}"#)));
        out.events.first().map(|event| event.latency_us)
    };
    for (value, expected) in [
        ("0", Some(0)),
        ("-0.0", Some(0)),
        ("18.9995", Some(19_000)),
        ("\"18.9994\"", Some(18_999)),
        ("0.0004999", Some(0)),
        ("4398046511.104", Some(1 << 42)),
        ("4398046511.105", Some(LATENCY_UNKNOWN)),
        ("1e400", Some(LATENCY_UNKNOWN)),
        ("-1", Some(LATENCY_UNKNOWN)),
        ("\"-1\"", Some(LATENCY_UNKNOWN)),
        ("\"-\"", Some(LATENCY_UNKNOWN)),
        ("\"\"", Some(LATENCY_UNKNOWN)),
        ("null", Some(LATENCY_UNKNOWN)),
        ("-2", Some(LATENCY_UNKNOWN)),
        ("-9223372036854775808", Some(LATENCY_UNKNOWN)),
        ("\"NaN\"", Some(LATENCY_UNKNOWN)),
        ("\"inf\"", Some(LATENCY_UNKNOWN)),
        ("nan", Some(LATENCY_UNKNOWN)),
        ("true", Some(LATENCY_UNKNOWN)),
        ("{}", Some(LATENCY_UNKNOWN)),
        ("\"0.0189994s\"", Some(18_999)),
    ] {
        assert_eq!(latency(value), expected, "{value}");
    }
    let size = |value: &str| {
        run(&json, with(&format!(r#""in":{value}"#))).events.first().map(|event| event.bytes_in)
    };
    for (value, expected) in [
        ("7", Some(7)),
        ("\"7\"", Some(7)),
        ("7.0", Some(7)),
        ("7.5", Some(0)),
        ("1099511627776", Some(1 << 40)),
        ("1099511627777", Some(0)),
        ("-1", Some(0)),
        ("\"unknown\"", Some(0)),
        ("null", Some(0)),
        ("\"-\"", Some(0)),
        ("false", Some(0)),
    ] {
        assert_eq!(size(value), expected, "{value}");
    }
    let status = |value: &str| {
        let out = run(&json, with(&format!(r#""response":{{"status":{value}}}"#)));
        out.events.first().map(|event| event.status)
    };
    for (value, expected) in [
        ("0", Some(0)),
        ("\"000\"", Some(0)),
        ("100", Some(100)),
        ("599", Some(599)),
        ("\"499\"", Some(499)),
        ("null", Some(0)),
        ("\"-\"", Some(0)),
        ("-1", Some(0)),
        ("99", Some(0)),
        ("600", Some(600)),
        ("999", Some(999)),
        ("1000", Some(0)),
        ("1", Some(0)),
        ("65736", Some(0)),
        ("200.5", Some(0)),
        ("-200", Some(0)),
        ("[]", Some(0)),
    ] {
        assert_eq!(status(value), expected, "{value}");
    }
}

#[test]
fn only_the_time_is_essential() {
    let json = json();
    for (member, field) in [
        (r#""response":{"latency":"canary"}"#, "latency"),
        (r#""response":{"status":"canary"}"#, "status"),
        (r#""in":"canary""#, "bytes_in"),
        (r#""response":{"out":{"canary":1}}"#, "bytes_out"),
        (r#""agent":{"canary":1}"#, "user_agent"),
        (r#""path":true"#, "path"),
        (r#""id":{}"#, "request_id"),
        (r#""count":-3"#, "count"),
        (r#""count":2.5"#, "count"),
        (r#""end":"canary""#, "end"),
    ] {
        let out = run(&json, with(member));
        assert_eq!((out.events.len(), out.tally.unread().collect::<Vec<_>>()), (1, vec![(field, 1)]));
        // One in 64 records has a row, whatever is read beside it.
        let mut sampled = 0;
        for offset in 0..1_000 {
            let mut out = Decoded::default();
            decoder(&json, &context(Limits::default())).decode(
                with(member).as_bytes(),
                Position { offset, ..START },
                &mut out,
            );
            assert!(out.dead_letters.iter().all(|letter| letter.counted && letter.reason.starts_with(field)));
            assert!(!format!("{:?}", out.dead_letters).contains("canary"));
            sampled += out.dead_letters.len();
        }
        assert!((5..40).contains(&sampled), "{sampled}");
    }
    // Lines of any length are sampled.
    for length in [1, 62, 64, 100, 128, 1_000, 4_096, 65_537] {
        let mut out = Decoded::default();
        let mut decoder = decoder(&json, &context(Limits::default()));
        for line in 0..4_000 {
            decoder.decode(
                with(r#""in":"x""#).as_bytes(),
                Position { offset: line * length, ..START },
                &mut out,
            );
        }
        assert!((30..100).contains(&out.dead_letters.len()), "{length}: {}", out.dead_letters.len());
    }
    for member in [r#""time":"canary""#, r#""time":0"#, r#""time":{}"#] {
        let letter = refused(&json, format!("{{{member},\"method\":\"GET\"}}"));
        assert!(letter.reason.starts_with("time: ") && !letter.counted, "{}", letter.reason);
        assert!(!format!("{letter:?}").contains("canary"));
    }
    assert!(refused(&json, r#"{"method":"GET"}"#).reason.starts_with("time: missing"));
    // A flag or an object is no key.
    assert_eq!(event(&json, with(r#""key":{"canary":1}"#)).key, KeyId::ANONYMOUS);
}

#[test]
fn what_is_none_of_a_call() {
    let out = run(&json(), r#"{"time":1763642655123,"level":"info","msg":"started"}"#);
    assert_eq!((out.events.len(), CLASSES[out.dead_letters[0].class()]), (0, "not_a_call"));
    for member in [r#""method":"GET""#, r#""path":"/""#, r#""route":"r""#, r#""response":{"status":0}"#] {
        assert_eq!(run(&json(), format!(r#"{{"time":1763642655123,{member}}}"#)).events.len(), 1, "{member}");
    }
    // A mapping without any of these takes every record for a call.
    let mut meter = json();
    meter.fields = FieldMap {
        time: field("/time", Some(Unit::Millis)),
        key: at("/key"),
        count: at("/count"),
        ..FieldMap::default()
    };
    let counted = event(&meter, r#"{"time":1763642655123,"key":"k","count":"25"}"#);
    assert_eq!((counted.count, counted.key), (25, sha256_id("k")));
    let out = run(&meter, r#"{"time":1763642655123,"key":"k","count":0}"#);
    assert_eq!((out.events.len(), out.dead_letters.len(), out.tally.passed_over), (0, 0, 1));
    // What a source says are calls.
    let mut only = json();
    let pattern = |text| glob::Pattern::new(text).unwrap();
    only.only = vec![
        keytide_config::Condition {
            at: Pointer(vec!["logger".into()]),
            is: vec![pattern("http.log.*"), pattern("x")],
        },
        keytide_config::Condition { at: Pointer(vec!["ok".into()]), is: vec![pattern("true")] },
    ];
    for (members, passed) in [
        (r#""logger":"http.log.access","ok":true"#, false),
        (r#""logger":"x","ok":"true""#, false),
        (r#""logger":"http.log.access","ok":false"#, true),
        (r#""logger":"admin","ok":true"#, true),
        (r#""ok":true"#, true),
    ] {
        let out = run(&only, with(members));
        assert_eq!((out.events.len(), out.dead_letters.len()), (usize::from(!passed), 0), "{members}");
        assert_eq!(out.tally.passed_over, u64::from(passed));
    }
}

#[test]
fn what_is_kept_of_a_bad_record() {
    let record = format!(
        r#"{{"time":7,"key":"{RAW_KEY}","method":"{RAW_KEY}","response":{{"status":200,"out":7,"latency":1}},"in":-7}}"#
    );
    let letter = refused(&json(), format!(" {record} "));
    assert_eq!(
        letter.kept.as_deref(),
        Some(r#"{"method":"OTHER","status":200,"latency_us":1000,"bytes_out":7}"#)
    );
    assert_eq!((letter.length, letter.position), (record.len() as u64, START));
    assert_eq!(letter.sha256, <[u8; 32]>::from(Sha256::digest(&record)));
}

#[test]
fn addresses_and_places() {
    struct Tester;
    impl Locate for Tester {
        fn locate(&self, address: IpAddr) -> Located {
            match address {
                IpAddr::V4(_) => Located { country: Country(*b"DE"), asn: 64_500, place: berlin() },
                IpAddr::V6(_) => Located { asn: 64_501, ..Located::default() },
            }
        }
    }
    fn berlin() -> CallerLocation {
        CallerLocation::new(NetworkClass::Vpn, Some((52.52, 13.405)))
    }
    let proxies = ["10.0.0.0/8".parse().unwrap()];
    let context = Context::new(&Routes::default(), &proxies, Limits::default(), Arc::new(Tester));
    let place = |members: &str| {
        let out = run_with(&json(), &context, with(members).as_bytes());
        let expected = if out.events[0].asn == 64_500 { berlin() } else { CallerLocation::default() };
        assert_eq!(out.events[0].place, expected, "whatever country the record states");
        (out.events[0].client, out.events[0].country.as_str().to_owned(), out.events[0].asn)
    };
    let expected = |client, country: &str, asn| (client, country.to_owned(), asn);
    assert_eq!(place(r#""ip":"203.0.113.57:8080""#), expected(v4("203.0.113.57"), "DE", 64_500));
    assert_eq!(place(r#""ip":"::ffff:203.0.113.57""#), expected(v4("203.0.113.57"), "DE", 64_500));
    assert_eq!(
        place(r#""ip":"[2001:db8::1]:1","country":"-""#),
        expected(0x2001_0db8 << 96 | 1, "ZZ", 64_501)
    );
    assert_eq!(place(r#""ip":"203.0.113.57","country":"fr""#), expected(v4("203.0.113.57"), "FR", 64_500));
    assert_eq!(
        place(r#""ip":"10.0.0.1","xff":"1.2.3.4, 203.0.113.57""#),
        expected(v4("203.0.113.57"), "DE", 64_500)
    );
    assert_eq!(place(r#""ip":"192.0.2.1","xff":"1.2.3.4""#), expected(v4("192.0.2.1"), "DE", 64_500));
    for unknown in [r#""ip":"unix:""#, r#""ip":null"#, r#""ip":{}"#, r#""ip":"10.0.0.1","xff":"unknown""#] {
        assert_eq!(place(unknown), expected(0, "ZZ", 0), "{unknown}");
    }
}

#[test]
fn keys_that_are_names() {
    let mut json = json();
    json.keys =
        KeyRules { from: vec![KeyFrom::ClientIp], hash: KeyHash::None, missing: MissingKey::Anonymous };
    let out = run(&json, with(r#""ip":"::ffff:203.0.113.57","path":"/203.0.113.57""#));
    let id = KeyId::from_name("203.0.113.57");
    assert_eq!(out.events[0].key, id);
    assert!(out.definitions.contains(&named(id, "203.0.113.57", out.events[0].time)));
    assert_eq!(event(&json, with(r#""ip":"-""#)).key, KeyId::ANONYMOUS);
    // The id is that of the whole name; the name is cut, and ends in the id: rows are told apart by it.
    json.keys.from = vec![KeyFrom::Key];
    let long = "ä".repeat(300);
    let out = run(&json, with(&format!(r#""key":"{long}""#)).repeat(2));
    let id = KeyId::from_name(&long);
    let keys: Vec<_> = out.definitions.iter().filter(|one| matches!(one, Definition::Key { .. })).collect();
    let name = format!("{}~{:032x}", "ä".repeat(256), id.0);
    assert_eq!(keys, [&named(id, &name, out.events[0].time)]);
    assert_eq!(out.events[1].key, id);
    // A name is told anew in each month, but not for two months in turn.
    const MONTH: u64 = 31 * 86_400_000;
    let times = [0, 0, 1, 0, 1, 5, 1].map(|month| 1_763_642_655_123 + month * MONTH);
    let lines = times.map(|time| format!(r#"{{"time":{time},"method":"GET","key":"acme"}}"#)).join("\n");
    let out = run(&json, lines);
    let told = out.definitions.into_iter().filter(|one| matches!(one, Definition::Key { .. }));
    let expected = [0, 2, 5].map(|index| named(KeyId::from_name("acme"), "acme", times[index]));
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

/// The name of a key that is met at `time`.
fn named(id: KeyId, name: &str, time: u64) -> Definition {
    Definition::Key { id, name: name.into(), month: Some(keytide_dataflow::Level::Month.start(time)) }
}

#[test]
fn user_agents_are_told_once_without_the_keys_in_them() {
    let out = run(&json(), with(r#""agent":"curl/8.0","key":"k1""#).repeat(2));
    assert_eq!(agents(&out), [(NameId::new("curl/8.0"), "curl/8.0")]);
    let agent = format!("client {RAW_KEY}");
    let out = run(&json(), with(&format!(r#""agent":"x/{agent}","key":"{RAW_KEY}""#)));
    assert_eq!(out.events[0].user_agent, NameId::new("x/{key}"), "nothing of the key is in its id");
    assert_eq!(agents(&out), [(out.events[0].user_agent, "x/{key}")]);
    assert!(agents(&run(&json(), with(r#""agent":"-""#))).is_empty());
}

/// Two raw keys that have one id as hashes, of which the first 32 digits count.
const EQUAL_HASHES: [&str; 2] = ["00112233445566778899aabbccddeeff0", "00112233445566778899aabbccddeeff1"];

#[test]
fn nothing_of_a_raw_key_is_in_the_ids_of_records_and_agents() {
    let templates = [
        r#""key":"KEY","agent":"curl/8.0""#,
        r#""key":"KEY","agent":"app KEY","path":"/a/KEY?key=KEY&page=1""#,
        r#""key":"sha256:KEY","agent":"app/sha256:KEY""#,
        r#""key":"\u0073ha256:KEY","agent":"app/sha256:KEY""#,
        r#""key":"KEY","query":"key=%30KEY&key=KEY""#,
    ];
    for dedupe in [Dedupe::Message, Dedupe::Batch, Dedupe::Content] {
        let mut json = json();
        json.keys.hash = KeyHash::Prehashed;
        json.keys.from = vec![KeyFrom::Key, KeyFrom::Query("key".into())];
        json.dedupe = dedupe;
        for template in templates {
            let messages = |key: &str| {
                let one = with(&template.replace("KEY", key));
                let two = [&one[..], &with(r#""key":"other""#)].concat();
                [one.clone().into_bytes(), two.into_bytes(), compressed::gzip(&one)]
            };
            let ids = |key: &str| {
                let events = messages(key).map(|message| run(&json, message).events);
                events
                    .concat()
                    .iter()
                    .map(|event| (event.key, event.request, event.user_agent))
                    .collect::<Vec<_>>()
            };
            let [one, other] = EQUAL_HASHES.map(ids);
            assert_eq!(one, other, "{dedupe:?}: {template}");
            assert_eq!(one[0].0, KeyId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff), "{template}");
            // Other keys make other records.
            let another = ids("ffeeddccbbaa99887766554433221100f");
            let is_told = dedupe != Dedupe::Batch;
            assert!(!is_told || one[0].1 != another[0].1, "{dedupe:?}: {template}");
            assert_ne!(one[1].1, another[1].1, "{dedupe:?}: {template}");
        }
    }
}

#[test]
fn nothing_of_a_raw_key_is_in_an_id_that_its_caller_chose() {
    let mut envoy = source(Format::Envoy);
    envoy.keys.hash = KeyHash::Prehashed;
    envoy.keys.from = vec![KeyFrom::Query("key".into())];
    let id = |key: &str| {
        let message = format!(
            r#"{{"start_time":"2025-11-20T12:44:15.123Z","method":"GET","path":"/a?key={key}","request_id":"{key}"}}"#
        );
        event(&envoy, message).request
    };
    let [one, other] = EQUAL_HASHES.map(id);
    assert_eq!(one, other);
    assert_ne!(one, id("ffeeddccbbaa99887766554433221100f"));
}

#[test]
fn pointers_into_arrays_and_escaped_names() {
    let mut json = json();
    json.fields.user_agent = at("/agents/1/name");
    json.keys.from =
        vec![KeyFrom::Field(Pointer(vec!["a/b".into(), "0".into()])), KeyFrom::Field(Pointer(vec![]))];
    let message = with(r#""agents":[{"name":"x"},{"name":"y"},{}],"a\u002fb":["k"],"\u0069n":7"#);
    let AccessEvent { key, user_agent, bytes_in, .. } = event(&json, message);
    assert_eq!((key, user_agent, bytes_in), (sha256_id("k"), NameId::new("y"), 7));
}

#[test]
fn a_name_is_no_piece_of_json() {
    let mut json = json();
    json.fields.bytes_in = Some(Field::new(Pointer(vec![r#"a":1,"b"#.into()]), None));
    // The first record teaches the decoder which member to expect.
    let message = [r#""a\":1,\"b":5"#, r#""a":1,"b":6"#, r#""a\":1,\u0022b" : 7"#].map(with).concat();
    assert_eq!(run(&json, message).events.iter().map(|event| event.bytes_in).collect::<Vec<_>>(), [5, 0, 7]);
}

#[test]
fn members_that_stand_twice() {
    let out = run(&json(), with(r#""in":1,"in":2,"in":null,"key":"raw-key-1","key":"raw-key\u002d1""#));
    assert_eq!((out.events[0].bytes_in, out.events[0].key), (2, sha256_id("raw-key-1")), "the same twice");
    let mut apisix = source(Format::Apisix);
    apisix.keys.from.push(KeyFrom::Header("authorization".into()));
    let message = br#"{"start_time":1763642655123,"request":{"uri":"/first-raw-key/second-raw-key/third-raw-key",
        "headers":{"apikey":"first-raw-key","ApiKey":"second-raw-key","authorization":"Basic third-raw-key"}}}"#;
    let out = run(&apisix, message);
    // Also a value that doesn't count is a secret.
    assert_eq!((out.events[0].key, route(&out).3), (KeyId::CONFLICTING, "/{key}/{key}/{key}"));
}

#[test]
fn an_identity_that_stands_twice_is_none() {
    let mut json = json();
    json.keys.from = vec![KeyFrom::Key, KeyFrom::Consumer, KeyFrom::Credential, KeyFrom::User];
    for members in [
        r#""key":"a","key":"victim""#,
        r#""key":"-","key":"victim""#,
        r#""key":"victim","key":null"#,
        r#""key":"a","key":{"x":1}"#,
        r#""key":"a","k\u0065y":"victim""#,
        r#""key":"a","consumer":"b","consumer":"victim""#,
        r#""key":"a","credential":"b","credential":"victim""#,
        r#""key":"a","user":"b","user":"victim""#,
        r#""key":"a","id":"r1","id":"r2""#,
        r#""key":"a","time":1763642655124"#,
        r#""key":"a","time":"forged""#,
        r#""key":"a","ip":"192.0.2.1","ip":"192.0.2.2""#,
    ] {
        let out = run(&json, with(members));
        assert_eq!((out.events.len(), out.events[0].key), (1, KeyId::CONFLICTING), "{members}");
        assert_eq!((out.events[0].time, out.events[0].request), (1_763_642_655_123, RequestId::NONE));
        assert_eq!((out.dead_letters.len(), out.tally.conflicting), (1, 1));
        let letter = &out.dead_letters[0];
        assert!(letter.counted && letter.reason.starts_with("conflicting: "), "{}", letter.reason);
        assert_eq!((letter.position, letter.events_before), (out.events[0].position, 1));
        assert!(!format!("{letter:?}").contains("victim"));
    }
    // An object whose members identify the call can stand twice as well.
    let mut apisix = source(Format::Apisix);
    apisix.keys.from = vec![KeyFrom::Consumer];
    let message = r#"{"start_time":1763642655123,"request":{"uri":"/"},"consumer":{"username":"a"},"consumer":{"username":"victim"}}"#;
    assert_eq!(run(&apisix, message).events[0].key, KeyId::CONFLICTING);
    // Of all places that a format has for it.
    let otel = source(Format::Otel);
    for at in [
        "",
        r#""attributes":{"#,
        r#""scope":{"attributes":{"#,
        r#""resource":{"attributes":{"#,
        r#""Resource":{"#,
    ] {
        let close = "}".repeat(at.matches('{').count());
        let message = format!(
            r#"{{"timeUnixNano":"1763642655123000000","http.route":"/",{at}"http.client_ip":"192.0.2.1","http.client_ip":"192.0.2.2"{close}}}"#
        );
        assert_eq!(run(&otel, message).events[0].key, KeyId::CONFLICTING, "{at}");
    }
    // What a caller chooses anyway may stand twice.
    assert_eq!(
        event(&json, with(r#""key":"a","agent":"x","agent":"y","path":"/a","path":"/b""#)).key,
        sha256_id("a")
    );
}

#[test]
fn a_template_that_escapes_nothing_gives_one_record_a_line() {
    let mut aws = source(Format::AwsApigateway);
    aws.keys =
        KeyRules { from: vec![KeyFrom::Credential], hash: KeyHash::None, missing: MissingKey::Anonymous };
    let line = |agent: &str| {
        format!(
            r#"{{"requestId":"r1","requestTimeEpoch":"1763642655123","httpMethod":"GET","resourcePath":"/","status":"200","userAgent":"{agent}","apiKeyId":"k1"}}"#
        )
    };
    let forged = r#"{"requestId":"r2","requestTimeEpoch":"1763642655123","httpMethod":"GET","resourcePath":"/","status":"200","apiKeyId":"victim","userAgent":"y"#;
    for (agent, key) in [
        ("curl/8.5.0".to_owned(), KeyId::from_name("k1")),
        (r#"My "special" agent \ x"#.to_owned(), KeyId::from_name("k1")),
        (r"ends in \".to_owned(), KeyId::from_name("k1")),
        ("tab\tand \u{1}".to_owned(), KeyId::from_name("k1")),
        (r#"x","apiKeyId":"victim","z":"1"#.to_owned(), KeyId::CONFLICTING),
        (r#"x","apiKeyId":"victim","z":"1" and a quote""#.to_owned(), KeyId::CONFLICTING),
        (format!(r#"x"}}{forged}"#), KeyId::CONFLICTING),
        (format!(r#"x"}},{forged}"#), KeyId::CONFLICTING),
        (format!(r#"x","apiKeyId":"victim"}} {forged}"#), KeyId::CONFLICTING),
    ] {
        let out = run(&aws, line(&agent));
        let found: Vec<_> = out.events.iter().map(|event| event.key).collect();
        assert_eq!(found, [key], "{agent}: {:?}", out.dead_letters);
        assert!(out.dead_letters.iter().all(|letter| letter.counted));
        let lines = format!("{}\n{}\n{}\n", line("a"), line(&agent), line("b"));
        assert_eq!(run(&aws, lines).events.len(), 3, "{agent}");
        let wrapped =
            Source { inner: Some(Format::AwsApigateway), format: Format::Cloudwatch, ..aws.clone() };
        let message = serde_json::to_string(&line(&agent)).unwrap();
        let envelope = format!(
            r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"id":"e","timestamp":1763642655123,"message":{message}}}]}}"#
        );
        let found: Vec<_> = run(&wrapped, envelope).events.iter().map(|event| event.key).collect();
        assert_eq!(found, [key], "{agent}");
    }
    let letter = refused(
        &aws,
        r#"{"requestTimeEpoch":"1763642655123","a":"x"y"z" "status":"200"}"#.replace("\"a\"", "a"),
    );
    assert_eq!(CLASSES[letter.class()], "unescaped", "{}", letter.reason);
}

#[test]
fn whatever_brackets_a_caller_writes_its_call_counts() {
    let aws = source(Format::AwsApigateway);
    for agent in [
        r#"","a":{"b":""#,
        r#"","a":[{"b":""#,
        r#"","a":{{"b":""#,
        r#"","a" : [[ {"b":1,"c":""#,
        r#"","apiKeyId":{"x":""#,
        r#"","requestTimeEpoch":{"x":""#,
        r#"","requestTimeEpoch":-1e,"x":""#,
        r#""}]},{"x":""#,
        r#"" {"x":"y"#,
        r#"\","a":{"b":"x"#,
    ] {
        for count in [1, 2, 9] {
            let message = format!(
                r#"{{"requestTimeEpoch":"1763642655123","httpMethod":"GET","userAgent":"{}","apiKeyId":"k1"}}"#,
                agent.repeat(count)
            );
            let out = run(&aws, &message);
            let [event] = &out.events[..] else { panic!("{message}: {:?}", out.dead_letters) };
            let is_own = event.key == sha256_id("k1");
            assert!(is_own || out.tally.conflicting == 1, "{message}");
        }
    }
}

#[test]
fn records_around_records() {
    let nginx = source(Format::Nginx);
    let line = r#"{"msec":"1763642655.123","request_method":"GET","request_uri":"/a/7","http_apikey":"k1"}"#;
    let text = serde_json::to_string(line).unwrap();
    let fluent = |member: &str, value: &str| {
        format!(r#"{{"@timestamp":"2020-01-01T00:00:00Z","{member}":{value},"stream":"stdout"}}"#)
    };
    for message in [
        line.to_owned(),
        text.clone(),
        fluent("log", &text),
        fluent("message", &text),
        fluent("log", line),
        fluent("log", &format!("[{line}]")),
        fluent("log", &serde_json::to_string(&format!("{line}\n")).unwrap()),
        format!(r#"{{"records":[{line}]}}"#),
        format!(r#"{{"Records":{text}}}"#),
        fluent("message", &serde_json::to_string(&format!(r#"{{"records":[{line}]}}"#)).unwrap()),
        format!("2025-11-20T12:44:15.123456789Z stdout F {line}"),
        format!("2025-11-20T12:44:15.123456789+09:00 stderr F {line}\n"),
        fluent("log", &serde_json::to_string(&format!("2025-11-20T12:44:15.1Z stdout F {line}")).unwrap()),
        // Filebeat has an object of its own there, Logstash a path.
        fluent("message", &format!(r#"{text},"log":{{"offset":1,"file":{{"path":"/k.log"}}}}"#)),
        fluent("log", &format!(r#"{{"offset":1}},"message":{text}"#)),
        fluent("log", &format!(r#"{line},"message":"[info] handled""#)),
        fluent("message", &format!(r#"{text},"request_uri":"/var/log/k.log""#)),
        format!("<190>Nov 20 12:44:15 gw-1 nginx: {line}"),
        format!("2025-11-20T12:44:15.123Z {line}"),
        fluent("log", &serde_json::to_string(&format!("Nov 20 12:44:15 gw-1 nginx[7]: {line}")).unwrap()),
        format!("\0\0\0\0\x07{line}"),
        format!("\0\0\0\n\x07 [{line}]"),
        format!("\u{feff}{line}"),
    ] {
        let event = event(&nginx, &message);
        assert_eq!((event.key, event.time), (sha256_id("k1"), 1_763_642_655_123), "{message}");
    }
    let out = run(&nginx, format!(r#"{{"records":[{line},{text},7,{line}]}}"#));
    assert_eq!((out.events.len(), out.dead_letters.len()), (3, 1));
    // What a call's record holds there may be its caller's.
    let forged = line.replace("k1", "victim");
    let own = line.replacen(
        '{',
        &format!(r#"{{"message":{},"log":{forged},"#, serde_json::to_string(&forged).unwrap()),
        1,
    );
    assert_eq!(event(&nginx, own).key, sha256_id("k1"));
    // Neither is unwrapped where the source says so, nor what isn't JSON.
    let bare = Source { unwrap: vec![], records: vec![], ..source(Format::Nginx) };
    refused(&bare, fluent("log", &text));
    refused(&nginx, fluent("log", "\"started\""));
    let mut nested = line.to_owned();
    for _ in 0..6 {
        nested = fluent("log", &serde_json::to_string(&nested).unwrap());
    }
    assert_eq!(CLASSES[refused(&nginx, nested).class()], "not_a_call");
    for avro in [&b"\0\0\0\0\x07\x02\x04"[..], b"\0\0\0\0\x07", b"\0\0\0\0\x07\0\x08{}"] {
        assert!(refused(&nginx, avro).reason.starts_with("framed: "), "{avro:?}");
    }
    // A condition may be about the wrapper.
    let only = keytide_config::Condition {
        at: Pointer(vec!["stream".into()]),
        is: vec![glob::Pattern::new("stdout").unwrap()],
    };
    let only = Source { only: vec![only], ..source(Format::Nginx) };
    assert_eq!(event(&only, fluent("log", &text)).key, sha256_id("k1"));
    assert_eq!(run(&only, fluent("log", &text).replace("stdout", "stderr")).tally.passed_over, 1);
}

#[test]
fn pointers_into_texts_that_hold_json() {
    let mut json = json();
    json.fields.status = at("/properties/code");
    json.keys.from = vec![KeyFrom::Field(Pointer(vec!["properties".into(), "key".into()]))];
    let inner = serde_json::to_string(r#"{"code":404,"key":"k\u0031","x":"{"}"#).unwrap();
    let found = event(&json, with(&format!(r#""properties":{inner},"in":7"#)));
    assert_eq!((found.status, found.key, found.bytes_in), (404, sha256_id("k1"), 7));
    // However long what a text holds is: each of these pairs takes four bytes more than its escapes.
    for pairs in 0..8 {
        let inner = format!(r#"{{"code":404,"key":"k1","x":"{}"}}"#, "PAIR".repeat(pairs));
        let inner = serde_json::to_string(&inner).unwrap().replace("PAIR", r"\udbff\udfff\/");
        let found = event(&json, with(&format!(r#""properties":{inner}"#)));
        assert_eq!((found.status, found.key), (404, sha256_id("k1")), "{pairs}");
    }
    for text in [r#""{\"code\":404""#, r#""{\"code\":404}{\"code\":500}""#, r#""{}""#] {
        assert_eq!(event(&json, with(&format!(r#""properties":{text}"#))).status, 0, "{text}");
    }
}

#[test]
fn request_ids_and_messages() {
    let id = |out: &Decoded| out.events.iter().map(|event| event.request).collect::<Vec<_>>();
    let distinct = |ids: &[RequestId]| ids.iter().collect::<std::collections::HashSet<_>>().len();
    let record = r#"{"start_time":1763642655123,"request_id":"same","request":{"uri":"/","method":"GET"}}"#;
    let plain = record.replace(r#""request_id":"same","#, "");
    let batch = format!("[{record},{record},{plain},{plain}]");
    let topic =
        SourceKind::Kafka(keytide_config::KafkaSource::new(keytide_config::KafkaClient::new("b:1"), "t"));
    let other = record.replace("\"/\"", "\"/b\"");
    for dedupe in [Dedupe::Message, Dedupe::Batch, Dedupe::Content] {
        for kind in [SourceKind::Stdin, topic.clone()] {
            let is_topic = kind != SourceKind::Stdin;
            let apisix = Source { dedupe, kind, ..source(Format::Apisix) };
            let first = id(&run(&apisix, &batch));
            assert!(first.iter().all(|id| id.is_some()), "{dedupe:?}");
            assert_eq!(distinct(&first), 4, "records of one message are never the same");
            assert_eq!(id(&run(&apisix, &batch)), first, "what is sent again is the same");
            // An id that a caller may have chosen counts with the content, in any message; but for lines of a file
            // that are told by their content, as equal ones are different calls.
            let mut elsewhere = Decoded::default();
            let at = Position { offset: START.offset + 100, ..START };
            decoder(&apisix, &context(Limits::default())).decode(record.as_bytes(), at, &mut elsewhere);
            assert_eq!(id(&elsewhere) == first[..1], is_topic || dedupe != Dedupe::Content, "{dedupe:?}");
            assert_ne!(id(&run(&apisix, &other)), first[..1]);
        }
        let keyed = |key: &str| record.replacen('{', &format!(r#"{{"consumer":{{"username":"{key}"}},"#), 1);
        let mut apisix = Source { dedupe, kind: topic.clone(), ..source(Format::Apisix) };
        apisix.keys.from = vec![KeyFrom::Consumer];
        assert_ne!(id(&run(&apisix, keyed("a"))), id(&run(&apisix, keyed("b"))), "other callers");
    }
    // A single record: the same bytes are the same message of a topic, but other calls in a file.
    let of_topic = |dedupe| Source { dedupe, kind: topic.clone(), ..source(Format::Apisix) };
    assert!(id(&run(&of_topic(Dedupe::Message), &plain))[0].is_some());
    assert_eq!(id(&run(&of_topic(Dedupe::Batch), &plain)), [RequestId::NONE]);
    assert_eq!(id(&run(&of_topic(Dedupe::RequestId), &batch))[2], RequestId::NONE);
    let content = Source { dedupe: Dedupe::Content, ..source(Format::Apisix) };
    let mut out = Decoded::default();
    let mut lines = decoder(&content, &context(Limits::default()));
    for offset in [0, 100] {
        lines.decode(plain.as_bytes(), Position { offset, ..START }, &mut out);
    }
    assert_eq!(distinct(&id(&out)), 2, "equal lines of a file are different calls");
    let of_topic = of_topic(Dedupe::Content);
    assert_eq!(id(&run(&of_topic, &plain)), id(&run(&of_topic, &plain)));
}

#[test]
fn routes_of_paths() {
    let mut kong = source(Format::Kong);
    kong.routes = keytide_config::RoutesFrom::Path;
    let out = run(&kong, KONG);
    assert_eq!(route(&out), (out.events[0].route, "orders-v2", "GET", "/v2/orders/{id}"));
    let out = run(&kong, br#"{"started_at":1763642655123,"route":{"name":"r"},"service":{"name":"s"}}"#);
    assert_eq!((route(&out).1, route(&out).3), ("r", "r"));
}

#[test]
fn the_end_makes_the_latency() {
    let latency = |members: &str| event(&json(), with(members)).latency_us;
    assert_eq!(latency(r#""end":1763642655167"#), 44_000);
    assert_eq!(latency(r#""end":"2025-11-20T12:44:15.167Z""#), 44_000);
    assert_eq!(latency(r#""end":1763642655167,"response":{"latency":3}"#), 3_000);
    for unknown in [r#""end":1763642655122"#, r#""end":0"#, r#""end":null"#] {
        assert_eq!(latency(unknown), LATENCY_UNKNOWN, "{unknown}");
    }
}

// Messages.

fn record(n: usize) -> String {
    with(&format!(r#""id":"r{n}","in":{n}"#))
}

/// What becomes of each record, in order: the `in` of an event, or nothing for a dead letter.
fn outcomes(out: &Decoded) -> Vec<Option<u64>> {
    let mut outcomes: Vec<_> = out.events.iter().map(|event| Some(event.bytes_in)).collect();
    for (before, letter) in out.dead_letters.iter().enumerate() {
        outcomes.insert(before + letter.events_before, None);
    }
    let positions = out.events.iter().map(|event| event.position.index);
    let mut indexes: Vec<_> =
        positions.chain(out.dead_letters.iter().map(|letter| letter.position.index)).collect();
    indexes.sort_unstable();
    assert!(indexes.iter().zip(0..).all(|(index, expected)| *index == expected), "{indexes:?}");
    outcomes
}

#[test]
fn shapes_of_a_message() {
    let (one, two, three) = (record(1), record(2), record(3));
    let all = [Some(1), Some(2), Some(3)];
    for (message, expected) in [
        (format!("{one}{two}{three}"), &all[..]),
        (format!("{one}\n{two}\r\n{three}\n\n"), &all),
        (format!("[{one},{two},{three}]"), &all),
        (format!(" [ {one} ,\n{two} ]\n[{three}] [] "), &all),
        (format!("\u{feff}{one}[{two}]{three}"), &all),
        ("[]".to_owned(), &[]),
        (
            format!("[{one},null,[{two}],7,\"x\",{{}},{three}]"),
            &[Some(1), None, None, None, None, None, Some(3)],
        ),
        (format!("{one}null{two}"), &[Some(1), None, Some(2)]),
        (format!("2025-11-20T12:44:15Z stdout P {{\"x\":\n{one}"), &[None, Some(1)]),
        (format!("{one}\n17 18 19 and so on\n{two}"), &[Some(1), None, Some(2)]),
        (format!("{one}\ngarbage {two}\n{three}"), &[Some(1), None, Some(3)]),
        (format!("{one}\n{{\"a\":\"cut\n{two}\n{three}"), &[Some(1), None, Some(2), Some(3)]),
        (format!("{one}\n{{\"a\":7\n{two}"), &[Some(1), None, Some(2)]),
        (format!("{one}\n{{\n  bad\n  {{}}\n}}\n{two}"), &[Some(1), None, Some(2)]),
        (format!("[{one},{{bad}},{two}]\n{three}"), &[Some(1), None]),
        (format!("[{one},{two}"), &[Some(1), Some(2), None]),
        (format!("[{one} {two}]"), &[Some(1), None]),
        (format!("[{one},]"), &[Some(1), None]),
        (format!("{one}]"), &[Some(1), None]),
        (format!("{one}\0"), &[Some(1), None]),
        // Joined by commas, as some batching plugins do; a last comma is nothing.
        (format!("{one},{two}"), &all[..2]),
        (format!("{one} ,\n{two},\n[{three}]"), &all),
        (format!("[{one},{two}],[{three}]"), &all),
        (format!("{one},{two},{three},\n"), &all),
        (format!("{one},null\n{two}"), &[Some(1), None, Some(2)]),
        (format!("{one},,{two}"), &[Some(1), None]),
        (format!(",{one}"), &[None]),
    ] {
        let out = run(&json(), &message);
        assert_eq!(outcomes(&out), expected, "{message}");
    }
    for message in [
        "",
        " \n\t",
        "\u{feff}",
        "null",
        "7",
        "\"x\"",
        "\0",
        "{",
        "[",
        "]",
        "{}}",
        "nul",
        "\u{feff}\u{feff}{}",
    ] {
        assert!(!run(&json(), message).dead_letters.is_empty(), "{message:?}");
    }
}

#[test]
fn brackets_that_are_never_closed_are_not_looked_for_without_end() {
    // One truncated record doesn't cost the next ones, nor do a few.
    let open = "{\"a\":[\n";
    let few = format!("{}{}\n", open.repeat(60), record(1));
    assert_eq!(outcomes(&run(&json(), few)).last(), Some(&Some(1)));
    let many = open.repeat(5_000);
    let out = run(&json(), &many);
    assert!((60..80).contains(&out.dead_letters.len()), "{}", out.dead_letters.len());
    assert!(out.dead_letters.last().is_some_and(|rest| rest.length > many.len() as u64 * 9 / 10));
}

#[test]
fn bytes_that_are_not_utf8() {
    let (one, two) = (record(1), record(2));
    let odd = |inner: &[u8]| {
        [
            &br#"{"time":1763642655123,"method":"GET","body":""#[..],
            inner,
            br#"","key":"a"#,
            inner,
            br#"","path":"/x/"#,
            inner,
            br#"","agent":"b"#,
            inner,
            br#""}"#,
        ]
        .concat()
    };
    for inner in [&b"\xFF"[..], b"\xC3", b"\xED\xA0\x80", b"\xC0\x80", "\u{10FFFF}".as_bytes(), b"\xF4\x8F"] {
        let odd = odd(inner);
        let key = KeyId::from_hash(&Sha256::digest([b"a", inner].concat()));
        for message in [
            [one.as_bytes(), b"\n", &odd, b"\n", two.as_bytes()].concat(),
            [b"[", one.as_bytes(), b",", &odd, b",", two.as_bytes(), b"]"].concat(),
        ] {
            let out = run(&json(), message);
            assert_eq!(outcomes(&out), [Some(1), Some(0), Some(2)], "{inner:?}");
            assert_eq!(out.events[1].key, key, "{inner:?}");
            let shown = String::from_utf8_lossy(inner);
            assert_eq!(agents(&out)[0].1, format!("b{shown}"));
            let is_shown = |one: &Definition| matches!(one, Definition::Route { route, .. } if **route == format!("/x/{shown}"));
            assert!(out.definitions.iter().any(is_shown), "{:?}", out.definitions);
        }
        // What can't be read is told of by its own bytes.
        let cut = &odd[..odd.len() - 1];
        assert_eq!(refused(&json(), cut).sha256, <[u8; 32]>::from(Sha256::digest(cut)));
    }
    // A key of other bytes in the path is a secret as well.
    let message = b"{\"time\":1763642655123,\"key\":\"raw-key-\xFF\",\"path\":\"/a/raw-key-\xFF\",\"agent\":\"raw-key-%FF\"}";
    let out = run(&json(), message);
    assert_eq!((route(&out).3, agents(&out)[0].1), ("/a/{key}", "{key}"));
    assert!(!run(&json(), b"\xFF").dead_letters.is_empty());
    assert!(!run(&json(), b"\xEF\xBB").dead_letters.is_empty());
}

#[test]
fn nothing_that_is_not_read_costs_the_record() {
    let nested = |depth: usize| with(&format!(r#""x":{}1{},"in":9"#, "[".repeat(depth), "]".repeat(depth)));
    let wide = |members: usize| with(&format!(r#""x":{{{}}},"in":9"#, vec![r#""a":1"#; members].join(",")));
    let many = |members: usize| with(&format!(r#"{},"in":9"#, vec![r#""a":1"#; members].join(",")));
    for odd in [nested(70), nested(100_000), wide(100_000), many(100_000)] {
        for message in
            [format!("{}{odd}{}", record(1), record(2)), format!("[{},{odd},{}]", record(1), record(2))]
        {
            assert_eq!(outcomes(&run(&json(), message)), [Some(1), Some(9), Some(2)]);
        }
    }
    // A bomb that doesn't end takes no neighbour along where lines tell them apart.
    let message = format!("{}\n{{\"x\":{}\n{}", record(1), "[".repeat(1_000), record(2));
    assert_eq!(outcomes(&run(&json(), message)), [Some(1), None, Some(2)]);
    for bomb in ["[".repeat(200_000), "{\"a\":".repeat(100_000), format!("{{\"x\":{}", "[".repeat(200_000))] {
        assert_eq!(outcomes(&run(&json(), bomb)), [None]);
    }
    assert_eq!(outcomes(&run(&json(), "[".repeat(200_000) + &"]".repeat(200_000))), [None]);
}

#[test]
fn caps_of_a_message() {
    let message = record(1);
    for (spare, accepted) in [(1, true), (0, true), (-1, false)] {
        let limits =
            Limits { message_bytes: message.len().checked_add_signed(spare).unwrap(), ..Limits::default() };
        let out = run_with(&json(), &context(limits), message.as_bytes());
        assert_eq!(
            (out.events.len(), out.dead_letters.len()),
            (usize::from(accepted), usize::from(!accepted))
        );
    }
    let limits = Limits { message_records: 3, ..Limits::default() };
    for separator in [",", ""] {
        for records in 2..6 {
            let all: Vec<_> = (0..records).map(record).collect();
            let all = all.join(separator);
            let message = if separator == "," { format!("[{all}]") } else { all };
            let out = run_with(&json(), &context(limits), message.as_bytes());
            assert_eq!(
                (out.events.len(), out.dead_letters.len()),
                (records.min(3), usize::from(records > 3))
            );
        }
    }
}

#[test]
fn many_values_where_keys_are_looked_for() {
    let mut apisix = source(Format::Apisix);
    for count in [1, 8, 64, 65, 70, 5_000] {
        let arguments = (0..count).map(|n| format!("apikey=secret-value-{n}")).collect::<Vec<_>>().join("&");
        let values = (0..count).map(|n| format!("\"secret-value-{n}\"")).collect::<Vec<_>>().join(",");
        let last = count - 1;
        for headers in [r#""apikey":"k1""#, ""] {
            let message = format!(
                r#"{{"start_time":1763642655123,"request":{{"uri":"/a/secret-value-{last}?{arguments}","querystring":{{"apikey":[{values}]}},"headers":{{{headers}}}}}}}"#
            );
            let out = run(&apisix, message);
            let key = if headers.is_empty() { "secret-value-0" } else { "k1" };
            assert_eq!((out.events[0].key, route(&out).3), (sha256_id(key), "/a/{key}"), "{count}");
        }
    }
    // Where looking for secrets would take too long, nothing of the texts is shown.
    apisix.keys.from = vec![KeyFrom::Header("apikey".into()), KeyFrom::Query("apikey".into())];
    let (path, arguments) = ("/a".repeat(100_000), "apikey=xyz&".repeat(10_000));
    let out = run(
        &apisix,
        format!(
            r#"{{"start_time":1763642655123,"service_id":"s","request":{{"method":"GET","uri":"{path}?{arguments}","headers":{{"apikey":"k1"}}}},"route_id":"{path}"}}"#
        ),
    );
    assert_eq!((out.events[0].key, route(&out).3), (sha256_id("k1"), "{key}"));
}

// Secrets.

/// Everything that comes out, as text.
fn everything(out: &Decoded) -> String {
    format!("{out:?}")
}

#[test]
fn no_raw_key_comes_out() {
    let canary = RAW_KEY;
    let encoded = canary.replace('_', "%5F");
    let tail = r#""latency":"bad","start_time":1763642655123,"started_at":1763642655123"#;
    let mut messages = vec![APISIX.to_vec(), APISIX_BATCH.to_vec(), KONG.to_vec(), KONG_BATCH.to_vec()];
    for route in ["", r#""route":{"name":"kept"},"route_id":"kept","#] {
        for uri in [
            format!("/v1/x?apikey={canary}"),
            format!("/v1/{canary}/x?apikey={canary}"),
            format!("/v1/{encoded}?apikey={encoded}"),
            format!("https://{canary}@host/v1/bot{canary}?apikey={canary}#{canary}"),
            format!("/v1%2F{encoded}%3Fapikey={encoded}"),
        ] {
            for tail in ["\"start_time\":1763642655123,\"started_at\":1763642655123", tail] {
                let uri = serde_json::to_string(&uri).unwrap();
                messages.push(
                    format!(
                        r#"{{{route}"request":{{"method":"{canary}","uri":{uri},"url":{uri},"querystring":{{"apikey":"{canary}"}},
                        "headers":{{"APIKEY":["{canary}"],"user-agent":"{canary}"}}}},"latencies":{{"request":1}},{tail}}}"#
                    )
                    .into_bytes(),
                );
            }
        }
    }
    for format in [Format::Apisix, Format::Kong] {
        for from in [KeyFrom::Header("apikey".into()), KeyFrom::Query("apikey".into())] {
            let mut source = source(format);
            source.keys.from = vec![from];
            for message in &messages {
                let text = String::from_utf8_lossy(message);
                let out = everything(&run(&source, message));
                assert!(!out.contains(canary) && !out.contains(&encoded), "{text}\n{out}");
                // Cut anywhere, the record is a dead letter without the key.
                for end in (1..message.len()).step_by(7) {
                    assert!(!everything(&run(&source, &message[..end])).contains(canary));
                }
            }
        }
    }
    let mut combined = source(Format::Combined);
    combined.keys.from = vec![KeyFrom::User, KeyFrom::Query("apikey".into())];
    for line in [
        LINE.replace("ada", canary).replace("/v2", &format!("/{canary}/v2")),
        LINE.replace("ada", "-").replace("x=1", &format!("apikey={canary}")),
        LINE.replace("ada", canary).replace(" 200 ", " bad "),
        LINE.replace("GET", canary).replace("x=1", &format!("apikey={canary}")),
    ] {
        assert!(!everything(&run(&combined, line)).contains(canary));
    }
    let mut json = json();
    for hash in [KeyHash::Sha256, KeyHash::HmacSha256 { secret: Secret::new("s") }, KeyHash::Prehashed] {
        json.keys.hash = hash;
        for member in ["route", "api", "path", "agent", "id", "user", "method", "country", "ip", "consumer"] {
            let message = with(&format!(r#""{member}":"/a/{canary}","key":"{canary}""#));
            assert!(!everything(&run(&json, &message)).contains(canary), "{member}");
        }
    }
}

// Properties.

/// A record that is accepted or refused, with whether it is accepted; always well-formed JSON.
fn any_record() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        3 => (0_usize..50, "[a-z \\\\/\"{}\\[\\],äé]{0,12}").prop_map(|(n, text)| {
            let text = serde_json::to_string(&text).unwrap();
            (with(&format!(r#""in":{n},"id":"r{n}","agent":{text},"path":{text},"key":{text}"#)), true)
        }),
        1 => prop_oneof![
            Just("null"), Just("7"), Just("[]"), Just("\"}{\""), Just("{}"), Just("{\"time\":{}}"), Just("[[1],{}]"),
        ].prop_map(|bad| (bad.to_owned(), false)),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
        for source in [json(), source(Format::Apisix), source(Format::Kong), source(Format::Combined)] {
            let out = run(&source, &message);
            prop_assert!(!out.dead_letters.is_empty() || !out.events.is_empty() || message.contains(&b'['));
        }
    }

    #[test]
    fn damaged_messages_never_panic(at in 0_usize..5_000, byte: u8, cut in 0_usize..5_000) {
        for (format, message) in [(Format::Apisix, APISIX_BATCH), (Format::Kong, KONG_BATCH), (Format::Combined, LINE.as_bytes())] {
            let mut message = message.to_vec();
            let len = message.len();
            message[at % len] = byte;
            message.truncate(len - cut % 20);
            let out = run(&source(format), &message);
            prop_assert!(!out.events.is_empty() || !out.dead_letters.is_empty());
        }
    }

    /// However records are put into messages, they decode as one by one; k bad ones give k dead letters.
    #[test]
    fn batches_are_their_records(records in prop::collection::vec(any_record(), 1..12), separator in 0_usize..3) {
        let texts: Vec<_> = records.iter().map(|(text, _)| text.as_str()).collect();
        // Numbers and arrays can't stand back to back at the top level.
        let message = match separator {
            0 => format!("[{}]", texts.join(",")),
            1 => format!("[\n {} ]\n", texts.join(" ,\n ")),
            _ => texts.iter().filter(|text| text.starts_with('{')).copied().collect::<Vec<_>>().join("\n"),
        };
        let records: Vec<_> =
            records.iter().filter(|(text, _)| separator < 2 || text.starts_with('{')).collect();
        prop_assume!(!records.is_empty());
        let json = json();
        let batch = run(&json, &message);
        let bad = records.iter().filter(|(_, accepted)| !accepted).count();
        prop_assert_eq!((batch.events.len(), batch.dead_letters.len()), (records.len() - bad, bad));
        let (mut events, mut letters) = (Vec::new(), Vec::new());
        for ((text, _), index) in records.iter().zip(0..) {
            // In an array of its own, which is what makes a record of an array.
            let mut one = run(&json, format!("[{text}]"));
            one.events.iter_mut().for_each(|event| event.position.index = index);
            one.dead_letters.iter_mut().for_each(|letter| {
                letter.position.index = index;
                letter.events_before = events.len();
            });
            events.append(&mut one.events);
            letters.append(&mut one.dead_letters);
        }
        prop_assert_eq!((batch.events, batch.dead_letters), (events, letters));
    }

    /// A decoder that has seen other records decodes as a fresh one does.
    #[test]
    fn records_leave_no_trace(records in prop::collection::vec(any_record(), 1..12)) {
        let (json, context) = (json(), context(Limits::default()));
        let mut used = decoder(&json, &context);
        for (text, _) in &records {
            let mut out = Decoded::default();
            used.decode(text.as_bytes(), START, &mut out);
            let fresh = run(&json, text);
            prop_assert_eq!((out.events, out.dead_letters), (fresh.events, fresh.dead_letters));
        }
    }
}

#[test]
fn lines_of_text_in_what_agents_put_around_them() {
    let combined = Source { format: Format::Combined, ..source(Format::Combined) };
    let text = serde_json::to_string(&format!("{LINE}\n")).unwrap();
    for message in [
        text.clone(),
        format!(r#"{{"log":{text},"stream":"stdout"}}"#),
        format!(r#"{{"@timestamp":"x","message":{text}}}"#),
        format!("2025-11-20T12:44:15.123456789Z stdout F {LINE}"),
        format!(
            r#"{{"log":{}}}"#,
            serde_json::to_string(&format!("2025-11-20T12:44:15Z stdout F {LINE}")).unwrap()
        ),
    ] {
        assert_eq!(event(&combined, &message).time, 1_763_642_655_000, "{message}");
    }
    let nested =
        Source { unwrap: vec![Pointer(vec!["event".into(), "original".into()])], ..combined.clone() };
    assert_eq!(event(&nested, format!(r#"{{"event":{{"original":{text}}}}}"#)).status, 200);
    for message in
        [r#"{"log":7}"#, r#"{"msg":"x"}"#, r#"{"log":"#, r#"{"log":"garbage"}"#, r#""garbage""#, "{"]
    {
        refused(&combined, message);
    }
    let odd = [&b"{\"log\":"[..], text.replace("okhttp", "\u{e9}").as_bytes(), b"}"].concat();
    assert_eq!(event(&combined, odd).status, 200);
}

#[test]
fn units_are_rounded_to_their_scale_and_free_calls_are_those_that_were_refused() {
    let with =
        |units: &str| format!(r#"{{"time":1763642655000,"units":{units},"response":{{"status":200}}}}"#);
    for (units, expected) in [
        ("0", 0),
        ("1", 1_000),
        ("0.0123", 12),
        ("0.0125", 13),
        ("1e-4", 0),
        ("\"17.5\"", 17_500),
        ("4398046511.104", 1 << 42),
        ("-1", 0),
        ("null", 0),
        ("\"-\"", 0),
    ] {
        let out = run(&json(), with(units));
        assert_eq!((out.events[0].units, out.tally.unread().count()), (expected, 0), "{units}");
    }
    for unreadable in ["-2", "4398046511.105", "1e400", "true", "{}", "\"many\""] {
        let out = run(&json(), with(unreadable));
        let unread: Vec<_> = out.tally.unread().collect();
        assert_eq!((out.events[0].units, unread), (0, vec![("units", 1)]), "{unreadable}");
    }
    let is_free = |status: &str| event(&json(), with("0").replace("200", status)).is_free;
    assert_eq!(["200", "429", "403", "503"].map(is_free), [false, true, false, false]);
}
