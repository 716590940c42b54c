//! What Envoy, NGINX, Amazon API Gateway and OpenTelemetry write by default, and what each of them writes where
//! something is missing, repeated or of another type. None of these sources maps a field, but where the test is
//! about that.

use super::*;

const ENVOY: &str = include_str!("../../../tests/fixtures/decode/envoy_gateway_default.json");
const ISTIO: &str = include_str!("../../../tests/fixtures/decode/istio_envoy_default.json");
const NGINX: &str = include_str!("../../../tests/fixtures/decode/nginx_json_log.json");
const AWS: &str = include_str!("../../../tests/fixtures/decode/aws_apigw_rest_access_log.json");

fn with_keys(format: Format, from: &[KeyFrom]) -> Source {
    let mut source = source(format);
    source.keys.from = from.to_vec();
    source
}

fn header(name: &str) -> KeyFrom {
    KeyFrom::Header(name.to_owned())
}

fn query(name: &str) -> KeyFrom {
    KeyFrom::Query(name.to_owned())
}

/// The route's parts of the only event of a message.
fn parts(source: &Source, message: &str) -> (String, &'static str, String) {
    let out = run(source, message);
    assert_eq!((out.events.len(), out.dead_letters.as_slice()), (1, &[][..]), "{message}");
    let (_, api, method, template) = route(&out);
    let method = ["GET", "POST", "CONNECT", "OTHER", "-"].into_iter().find(|known| *known == method).unwrap();
    (api.to_owned(), method, template.to_owned())
}

fn changed(message: &str, from: &str, to: &str) -> String {
    assert!(message.contains(from), "{from}");
    message.replace(from, to)
}

// Envoy.

#[test]
fn envoy() {
    let envoy = with_keys(Format::Envoy, &[query("apikey")]);
    let golden = AccessEvent {
        key: KeyId::ANONYMOUS,
        route: RouteId::new("api.example.com", "GET", "/v2/orders/{id}"),
        user_agent: NameId::new("okhttp/4.12.0"),
        bytes_out: 1_982,
        ..expected("6b1f7c0e-7d11-4b7e-9a64-2f5c3f0e8a10")
    };
    for message in [ENVOY, ISTIO] {
        let event = event(&envoy, message);
        assert!(event.request.is_some());
        assert_eq!(AccessEvent { request: golden.request, ..event }, golden);
    }
}

#[test]
fn envoy_s_values_may_be_missing_or_texts() {
    let envoy = source(Format::Envoy);
    let texts = changed(ISTIO, ":200,", ":\"200\",");
    let texts =
        changed(&texts, "\"bytes_sent\":1982,\"duration\":19", "\"bytes_sent\":\"1982\",\"duration\":\"19\"");
    assert_eq!(event(&envoy, texts), event(&envoy, ISTIO));
    for missing in ["null", "\"-\"", "-"] {
        let message = format!(
            r#"{{"start_time":"2025-11-20T12:44:15.123Z","method":{missing},"path":{missing},"response_code":0,
            "bytes_received":{missing},"bytes_sent":{missing},"duration":{missing},"x_forwarded_for":{missing},
            "user_agent":{missing},"request_id":{missing},"authority":{missing},"downstream_remote_address":{missing}}}"#
        );
        let unknown = AccessEvent {
            key: KeyId::ANONYMOUS,
            request: RequestId::NONE,
            client: 0,
            route: RouteId::new("", "-", "-"),
            latency_us: LATENCY_UNKNOWN,
            status: 0,
            ..expected("")
        };
        assert_eq!(event(&envoy, message), unknown, "{missing}");
        let timeless = changed(ISTIO, "\"2025-11-20T12:44:15.123Z\"", missing);
        assert!(refused(&envoy, timeless).reason.starts_with("time: missing"));
    }
    // START_TIME has a format of the operator's own: it is read where it has one meaning, and not guessed at.
    for time in [
        "1763642655123",
        "\"1763642655.123\"",
        "\"2025/11/20T12:44:15.123+0000\"",
        "\"2025-11-20 12:44:15,123\"",
    ] {
        let own = changed(ISTIO, "\"2025-11-20T12:44:15.123Z\"", time);
        assert_eq!(event(&envoy, own).time, event(&envoy, ISTIO).time, "{time}");
    }
    for time in ["15123", "\"11/20/2025 12:44:15\"", "\"12:44:15\""] {
        let other = changed(ISTIO, "\"2025-11-20T12:44:15.123Z\"", time);
        assert!(refused(&envoy, other).reason.starts_with("time: must be a time, such as 2025-"), "{time}");
    }
}

#[test]
fn envoy_s_keys_and_callers() {
    let from = [header("x-api-key"), query("api_key")];
    let envoy = with_keys(Format::Envoy, &from);
    let asked = changed(ENVOY, "?expand=items", &format!("?api_key={RAW_KEY}&expand=items"));
    assert_eq!(event(&envoy, &asked).key, sha256_id(RAW_KEY));
    assert_eq!(parts(&envoy, &asked).2, "/v2/orders/{id}");
    for member in ["x-api-key", "x_api_key"] {
        let logged = changed(ENVOY, "{\"start", &format!("{{\"{member}\":\"k1\",\"start"));
        assert_eq!(event(&envoy, &logged).key, sha256_id("k1"), "{member}");
    }
    let proxies = ["203.0.113.0/24".parse().unwrap()];
    let context = Context::new(&Routes::default(), &proxies, Limits::default(), Arc::new(NoGeo));
    for (message, header) in [(ENVOY, "x-forwarded-for"), (ISTIO, "x_forwarded_for")] {
        let forwarded = changed(
            message,
            &format!("\"{header}\":\"203.0.113.57\""),
            &format!("\"{header}\":\"1.1.1.1,198.51.100.7\""),
        );
        assert_eq!(run_with(&envoy, &context, forwarded.as_bytes()).events[0].client, v4("198.51.100.7"));
        assert_eq!(event(&envoy, forwarded).client, v4("203.0.113.57"));
    }
}

#[test]
fn a_hash_that_is_too_short_is_told() {
    let mut envoy = with_keys(Format::Envoy, &[KeyFrom::Field(Pointer(vec!["api_key_hash".into()]))]);
    envoy.keys.hash = KeyHash::Prehashed;
    // The call counts, and rows of some of these records say what is wrong.
    let mut letters = Vec::new();
    for offset in 0..1_000 {
        let mut out = Decoded::default();
        let mut decoder = decoder(&envoy, &context(Limits::default()));
        decoder.decode(ENVOY.as_bytes(), Position { offset, ..START }, &mut out);
        let counted: Vec<_> = out.events.iter().map(|event| event.key).collect();
        assert_eq!(
            (counted, out.tally.unread().collect::<Vec<_>>()),
            (vec![KeyId::ANONYMOUS], vec![("key", 1)])
        );
        letters.append(&mut out.dead_letters);
    }
    assert!((5..40).contains(&letters.len()), "{}", letters.len());
    for letter in letters {
        assert_eq!(
            letter.reason,
            "key: must be a hash, at least 32 hexadecimal digits, optionally behind `sha256:`; counted under \
             `anonymous` (one such record in 64 has a row)"
        );
        assert_eq!((CLASSES[letter.class()], letter.counted), ("key", true));
    }
    let digits = "4bd1c0f2".repeat(8);
    let whole = changed(ENVOY, "4bd1c0f2", &digits);
    assert_eq!(event(&envoy, whole).key.to_string(), digits[..32]);
    assert_eq!(event(&source(Format::Envoy), ENVOY).key, KeyId::ANONYMOUS);
}

// NGINX.

#[test]
fn nginx() {
    let nginx = with_keys(Format::Nginx, &[header("x-api-key")]);
    let golden = AccessEvent {
        route: RouteId::new("", "GET", "/v2/orders/{id}"),
        user_agent: NameId::new("okhttp/4.12.0"),
        bytes_out: 1_982,
        ..expected("6b1f7c0e7d114b7e9a642f5c3f0e8a10")
    };
    let event = event(&nginx, NGINX);
    assert!(event.request.is_some());
    assert_eq!(AccessEvent { request: golden.request, ..event }, golden);
}

#[test]
fn nginx_s_times() {
    let nginx = source(Format::Nginx);
    let time = |members: &str| event(&nginx, format!(r#"{{"request_method":"GET",{members}}}"#)).time;
    let (msec, iso, local) = (
        r#""msec":"1763642655.123""#,
        r#""time_iso8601":"2025-11-20T12:44:16+00:00""#,
        r#""time_local":"20/Nov/2025:12:44:17 +0000""#,
    );
    // The finest counts, wherever it stands.
    assert_eq!(time(&[iso, msec, local].join(",")), 1_763_642_655_123);
    assert_eq!(time(&[msec, local, iso].join(",")), 1_763_642_655_123);
    assert_eq!(time(&[local, iso].join(",")), 1_763_642_656_000);
    assert_eq!(time(local), 1_763_642_657_000);
    assert_eq!(time(&format!(r#"{iso},"msec":"-""#)), 1_763_642_656_000);
    assert_eq!(time(&format!(r#""msec":1763642655.123,{iso}"#)), 1_763_642_655_123);
}

#[test]
fn nginx_s_latencies() {
    let nginx = source(Format::Nginx);
    let latency = |request: &str, upstream: &str| {
        let message = changed(NGINX, "\"0.019\"", request);
        event(&nginx, changed(&message, "\"0.017\"", upstream)).latency_us
    };
    assert_eq!(latency("\"0.019\"", "\"0.001, 0.002 : 0.003\""), 19_000);
    assert_eq!(latency("0.019", "-"), 19_000);
    assert_eq!(latency("\"\"", "\"0.017\""), 17_000);
    for several in
        ["\"0.001, 0.002\"", "\"0.001 : 0.003\"", "\"0.001, 0.002 : 0.003\"", "\"-, 0.002\"", "\"-\""]
    {
        assert_eq!(latency("\"-\"", several), LATENCY_UNKNOWN, "{several}");
    }
}

#[test]
fn nginx_s_keys() {
    let nginx = with_keys(Format::Nginx, &[header("authorization"), query("key")]);
    let with = |member: &str| changed(NGINX, "{\"time", &format!("{{{member},\"time"));
    for member in [
        r#""http_authorization":"Bearer k+1""#,
        r#""arg_key":"k%2B1""#,
        r#""args":"x=1&key=k%2b1""#,
        r#""query_string":"?key=k%2B1""#,
        r#""request":"GET /x?key=k%2B1 HTTP/1.1""#,
    ] {
        // Where the query stands on its own the path has none.
        let message = changed(&with(member), "?expand=items", "");
        let message =
            if member.contains("GET") { changed(&message, "request_uri", "other") } else { message };
        let event_ = event(&nginx, &message);
        assert_eq!(event_.key, sha256_id("k+1"), "{member}");
        assert!(!everything(&run(&nginx, &message)).contains("k+1"));
    }
    let asked = changed(NGINX, "?expand=items", "?key=k%2B1");
    assert_eq!(event(&nginx, asked).key, sha256_id("k+1"));
    // What stands where keys are looked for is no part of a route, whichever of them is the key.
    let both = with(r#""http_authorization":"Bearer first-raw-key","arg_key":"second%2Draw-key""#);
    let both = changed(&both, "/v2/orders", "/first-raw-key/second-raw-key");
    assert_eq!(parts(&nginx, &both).2, "/{key}/{key}/{id}");
}

#[test]
fn nginx_s_request_line() {
    let nginx = source(Format::Nginx);
    let message = changed(
        NGINX,
        "\"request_method\":\"GET\",\"request_uri\":\"/v2/orders/48151623?expand=items\"",
        "LINE",
    );
    for (line, method, path) in [
        ("POST /v2/orders/7?x=1 HTTP/1.1", "POST", "/v2/orders/{id}"),
        (r#"POST /a\"b\/c HTTP/2.0"#, "POST", "/a\"b/c"),
        ("CONNECT evil.example:443 HTTP/1.1", "CONNECT", "-"),
        (r"\u0016\u0003\u0001", "OTHER", "-"),
    ] {
        let line = changed(&message, "LINE", &format!("\"request\":\"{line}\""));
        assert_eq!(parts(&nginx, &line), (String::new(), method, path.to_owned()), "{line}");
    }
    let nothing = changed(&message, "LINE", r#""request":"-""#);
    assert_eq!(parts(&nginx, &nothing), (String::new(), "-", "-".to_owned()));
    // What stands on its own counts.
    let both = changed(NGINX, "{\"time", r#"{"request":"POST /other HTTP/1.1","time"#);
    let (both, alone) = (event(&nginx, both), event(&nginx, NGINX));
    assert_eq!(both, AccessEvent { request: both.request, ..alone });
}

// Amazon API Gateway.

#[test]
fn aws() {
    let mut aws = with_keys(Format::AwsApigateway, &[KeyFrom::Credential]);
    aws.keys.hash = KeyHash::None;
    let golden = AccessEvent {
        key: KeyId::from_name("a1b2c3d4e5"),
        route: RouteId::new("z9x8c7v6b5", "GET", "/v2/orders/{id}"),
        latency_us: LATENCY_UNKNOWN,
        bytes_out: 1_982,
        ..expected("JKJaXmPLvHcESHA=")
    };
    let event = event(&aws, AWS);
    assert!(event.request.is_some());
    assert_eq!(AccessEvent { request: golden.request, ..event }, golden);
}

#[test]
fn aws_times_and_latencies() {
    let aws = source(Format::AwsApigateway);
    let clf = changed(AWS, "\"requestTimeEpoch\":\"1763642655123\",", "");
    assert_eq!(event(&aws, &clf).time, 1_763_642_655_000);
    for unknown in ["\"-\"", "-"] {
        let message = changed(AWS, "\"1763642655123\"", unknown);
        assert_eq!(event(&aws, &message).time, 1_763_642_655_000);
    }
    for epoch in ["1763642655123", "\"1763642655123\""] {
        let message = changed(&clf, "\"20/Nov/2025:12:44:15 +0000\"", epoch);
        assert_eq!(event(&aws, &message).time, 1_763_642_655_123);
    }
    let latency = |members: &str| {
        event(&aws, changed(AWS, "{\"requestId", &format!("{{{members},\"requestId"))).latency_us
    };
    assert_eq!(latency(r#""integrationLatency":"17","responseLatency":"19""#), 19_000);
    assert_eq!(latency(r#""responseLatency":-,"integrationLatency":17"#), 17_000);
    assert_eq!(latency(r#""responseLatency":"-","integrationLatency":"-""#), LATENCY_UNKNOWN);
}

#[test]
fn aws_routes() {
    let aws = source(Format::AwsApigateway);
    let rest = "\"httpMethod\":\"GET\",\"resourcePath\":\"/v2/orders/{id}\"";
    let routed = |members: &str| {
        let (_, method, template) = parts(&aws, &changed(AWS, rest, members));
        (method, template)
    };
    let expected = |method: &'static str, template: &str| (method, template.to_owned());
    assert_eq!(routed(r#""routeKey":"POST /v2/orders/{id}""#), expected("POST", "/v2/orders/{id}"));
    assert_eq!(
        routed(r#""httpMethod":"GET","routeKey":"ANY \/v2\/{proxy+}""#),
        expected("GET", "/v2/{proxy+}")
    );
    assert_eq!(routed(r#""routeKey":"ANY /v2/{proxy+}""#), expected("-", "/v2/{proxy+}"));
    assert_eq!(
        routed(r#""routeKey":"$default","path":"/v2/orders/7","httpMethod":"GET""#),
        expected("GET", "/v2/orders/{id}")
    );
    assert_eq!(routed(r#""routeKey":"$default","httpMethod":"GET""#), expected("GET", "$default"));
    // WebSocket APIs.
    assert_eq!(routed(r#""routeKey":"$connect""#), expected("-", "$connect"));
    assert_eq!(routed(r#""routeKey":"send a message""#), expected("-", "send a message"));
    assert_eq!(routed(r#""resourcePath":"-","routeKey":"-","path":"/x/7""#), expected("-", "/x/{id}"));
}

#[test]
fn aws_identities() {
    let rules = [KeyFrom::Credential, KeyFrom::User];
    let aws = with_keys(Format::AwsApigateway, &rules);
    assert_eq!(event(&aws, AWS).key, sha256_id("a1b2c3d4e5"));
    let unnamed = changed(AWS, "\"a1b2c3d4e5\"", "\"-\"");
    assert_eq!(event(&aws, &unnamed).key, KeyId::ANONYMOUS);
    for member in [
        r#""sub":"s-1""#,
        r#""principalId":"s-1""#,
        r#""authorizer.principalId":"s-1""#,
        r#""authorizer":{"principalId":"s-1"}"#,
    ] {
        let message = changed(&unnamed, "{\"requestId\"", &format!("{{{member},\"requestId\""));
        assert_eq!(event(&aws, &message).key, sha256_id("s-1"), "{member}");
        let user = changed(&message, "\"user\":\"-\"", "\"user\":\"u-1\"");
        assert_eq!(event(&aws, user).key, sha256_id("u-1"), "{member}");
    }
    // A template that logs the key itself.
    let aws = with_keys(Format::AwsApigateway, &[KeyFrom::Key]);
    for member in ["apiKey", "identity.apiKey"] {
        let message = changed(AWS, "{\"requestId\"", &format!("{{\"{member}\":\"{RAW_KEY}\",\"requestId\""));
        assert_eq!(event(&aws, &message).key, sha256_id(RAW_KEY), "{member}");
    }
}

// OpenTelemetry.

const OTEL: &str = r#"{"timeUnixNano":"1763642655123456789","log.record.uid":"01ARZ3NDEKTSV4RRFFQ69G5FAV",
"http.request.method":"GET","http.response.status_code":200,"http.route":"/v2/orders/{id}","url.path":"/v2/orders/7",
"url.query":"apikey=kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913","client.address":"203.0.113.57",
"user_agent.original":"okhttp/4.12.0","http.server.request.duration":0.019,"http.request.body.size":12,
"http.response.body.size":1982,"service.name":"orders","http.request.header.x-api-key":["k1","k2"]}"#;

const OTEL_OLD: &str = r#"{"timestamp":"2025-11-20T12:44:15.123456789Z","log.record.uid":"01ARZ3NDEKTSV4RRFFQ69G5FAV",
"http.method":"GET","http.status_code":"200","http.route":"/v2/orders/{id}",
"http.target":"/v2/orders/7?apikey=kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913","http.client_ip":"203.0.113.57",
"http.user_agent":"okhttp/4.12.0","http.server.duration":19,"http.request_content_length":12,
"http.response_content_length":"1982","service.name":"orders","http.request.header.x_api_key":"k1"}"#;

const OTLP: &str = r#"{"timeUnixNano":"1763642655123456789","severityText":"INFO","body":{"stringValue":"x"},"attributes":[
{"key":"log.record.uid","value":{"stringValue":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}},
{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"http.response.status_code","value":{"intValue":"200"}},
{"value":{"stringValue":"/v2/orders/{id}"},"key":"http.route"},7,{"key":"odd"},{"key":"url.scheme","value":{"boolValue":true}},
{"key":"url.query","value":{"stringValue":"apikey=kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913"}},
{"key":"client.address","value":{"stringValue":"203.0.113.57"}},
{"key":"user_agent.original","value":{"stringValue":"okhttp\/4.12.0"}},
{"key":"http.server.request.duration","value":{"doubleValue":0.019}},
{"key":"http.request.body.size","value":{"intValue":12}},{"key":"http.response.body.size","value":{"intValue":"1982"}},
{"key":"http.request.header.x-api-key","value":{"arrayValue":{"values":[{"stringValue":""},{"stringValue":"k1"},{"stringValue":"k2"}]}}}],
"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}}]}}"#;

#[test]
fn otel() {
    let otel = source(Format::Otel);
    let golden = AccessEvent {
        route: RouteId::new("orders", "GET", "/v2/orders/{id}"),
        user_agent: NameId::new("okhttp/4.12.0"),
        bytes_in: 12,
        bytes_out: 1_982,
        ..expected("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    };
    let nested = changed(OTEL, "\"log.record", "\"attributes\":{\"log.record") + "}";
    let model = changed(&nested, "\"attributes\"", "\"Attributes\"");
    let model = changed(&model, "\"timeUnixNano\"", "\"Timestamp\"");
    for message in [OTEL, OTEL_OLD, OTLP, &nested, &model] {
        assert_eq!(event(&otel, message), golden, "{message}");
    }
    let otel = with_keys(Format::Otel, &[header("x-api-key")]);
    for message in [OTEL, OTEL_OLD, OTLP, &nested, &model] {
        assert_eq!(event(&otel, message).key, sha256_id("k1"), "{message}");
    }
}

#[test]
fn otel_times() {
    let otel = source(Format::Otel);
    let with = |member: &str| format!(r#"{{"http.method":"GET",{member}}}"#);
    let time = |member: &str| event(&otel, with(member)).time;
    for member in [
        r#""time":"2025-11-20T12:44:15.123Z""#,
        r#""time":1763642655123456789"#,
        r#""time":"1763642655123456789""#,
        r#""@timestamp":"2025-11-20T13:44:15.123+01:00""#,
        r#""observedTimeUnixNano":"1763642655999000000","timeUnixNano":1763642655123456789"#,
        r#""startTimeUnixNano":"1763642655123456789","endTimeUnixNano":"1763642655142456789""#,
        r#""timeUnixNano":null,"ObservedTimestamp":"1763642655123456789""#,
        r#""timeUnixNano":"2025-11-20T12:44:15.123Z""#,
    ] {
        assert_eq!(time(member), 1_763_642_655_123, "{member}");
    }
    // Not nanoseconds: told, not guessed.
    for member in [r#""time":1763642655123"#, r#""timeUnixNano":"12:44:15""#, r#""spanId":"x""#] {
        assert!(refused(&otel, with(member)).reason.starts_with("time: "), "{member}");
    }
}

#[test]
fn otlp_values_that_are_odd_never_panic_and_hide_no_secret() {
    let otel = with_keys(Format::Otel, &[header("x-api-key")]);
    let attributes = |attributes: &str| {
        format!(r#"{{"time":1763642655123456789,"http.status_code":200,"attributes":{attributes}}}"#)
    };
    for odd in [
        "[]",
        "{}",
        "null",
        "\"x\"",
        "[null,[],{},{\"key\":7,\"value\":7}]",
        r#"[{"key":"http.method","value":"GET"}]"#,
        r#"[{"key":"http.method","value":{"kvlistValue":{"values":[{"key":"a","value":{"stringValue":"b"}}]}}}]"#,
        r#"[{"key":"http.method","value":{"arrayValue":[]}}]"#,
        r#"[{"key":"http.method","value":{"arrayValue":{"values":{}}}}]"#,
    ] {
        assert_eq!(parts(&otel, &attributes(odd)).1, "-", "{odd}");
    }
    let values = |count: usize| vec![r#"{"stringValue":"some-raw-key"}"#; count].join(",");
    let keys = |count: usize| {
        attributes(&format!(
            r#"[{{"key":"http.route","value":{{"stringValue":"/a/some-raw-key"}}}},
            {{"key":"http.request.header.x-api-key","value":{{"arrayValue":{{"values":[{}]}}}}}}]"#,
            values(count)
        ))
    };
    assert_eq!(parts(&otel, &keys(8)).2, "/a/{key}");
    for count in [9, 64, 5_000] {
        assert_eq!(parts(&otel, &keys(count)).2, "/a/{key}", "{count}");
    }
    let nested = format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(30), "]}}".repeat(30));
    let message = attributes(&format!(r#"[{{"key":"http.method","value":{nested}}}]"#));
    assert_eq!(parts(&otel, &message).1, "-", "too deep to be a method");
}

// All of them.

#[test]
fn any_single_field_can_be_mapped() {
    for (format, message, request) in [
        (Format::Envoy, ISTIO, "6b1f7c0e-7d11-4b7e-9a64-2f5c3f0e8a10"),
        (Format::Nginx, NGINX, "6b1f7c0e7d114b7e9a642f5c3f0e8a10"),
        (Format::AwsApigateway, AWS, "JKJaXmPLvHcESHA="),
        (Format::Otel, OTEL, "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
    ] {
        let plain = source(format);
        let message = message.replacen('{', r#"{"own":{"time":1763642000,"ms":7,"id":"r-1"},"#, 1);
        // An id that callers may have chosen counts with all of the record.
        let event = |source: &Source, message: &String| {
            let event = event(source, message);
            let with_content = matches!(format, Format::Envoy | Format::Nginx | Format::AwsApigateway)
                && source.fields.request_id.is_none();
            if with_content {
                AccessEvent { request: RequestId::new("gateway", request.as_bytes()), ..event }
            } else {
                event
            }
        };
        let before = event(&plain, &message);
        assert_eq!(before.request, RequestId::new("gateway", request.as_bytes()));
        let mut mapped = plain.clone();
        mapped.fields.time = field("/own/time", Some(Unit::Seconds));
        assert_eq!(event(&mapped, &message), AccessEvent { time: 1_763_642_000_000, ..before }, "{format:?}");
        let mut mapped = plain.clone();
        mapped.fields.latency = field("/own/ms", Some(Unit::Millis));
        assert_eq!(event(&mapped, &message), AccessEvent { latency_us: 7_000, ..before }, "{format:?}");
        let mut mapped = plain.clone();
        mapped.fields.request_id = at("/own/id");
        let request = RequestId::new("gateway", b"r-1");
        assert_eq!(event(&mapped, &message), AccessEvent { request, ..before }, "{format:?}");
        // What is mapped takes the place of all defaults.
        let mut mapped = plain.clone();
        mapped.fields.request_id = at("/own/none");
        assert_eq!(
            event(&mapped, &message),
            AccessEvent { request: RequestId::NONE, ..before },
            "{format:?}"
        );
    }
}

proptest! {
    #[test]
    fn damaged_messages_of_gateways_never_panic(at in 0_usize..5_000, byte: u8, cut in 0_usize..5_000) {
        for (format, message) in [
            (Format::Envoy, ENVOY), (Format::Nginx, NGINX), (Format::AwsApigateway, AWS), (Format::Otel, OTLP),
        ] {
            let mut message = message.as_bytes().to_vec();
            let len = message.len();
            message[at % len] = byte;
            message.truncate(len - cut % 20);
            let out = run(&source(format), &message);
            prop_assert!(!out.events.is_empty() || !out.dead_letters.is_empty());
        }
    }
}
