//! Lines of patterns: of NGINX, Apache httpd, Envoy and Amazon API Gateway.

use super::*;

const INGRESS: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id"#;
const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"#;
const NGINX_KEY: &str = r#"$msec $request_id $remote_addr "$request_method $request_uri $server_protocol" $status $request_time "$http_user_agent" "$http_x_api_key""#;
const ENVOY_KEY: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %DURATION% "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(X-API-KEY)%""#;

const SECOND: u64 = 1_763_642_655_000;

#[test]
fn ingress_nginx() {
    let ingress = pattern(INGRESS, &["query:apikey"]);
    let line = r#"203.0.113.57 - - [20/Nov/2025:12:44:15 +0000] "GET /v2/orders/7?apikey=acme HTTP/1.1" 200 934 "-" "curl/8.5.0" 210 0.044 [shop-orders-80] [] 10.0.0.5:8080 934 0.043 200 9b1a0000000000000000000000000001"#;
    let expected = Seen {
        key: "acme".to_owned(),
        time: SECOND,
        route: "shop-orders-80 GET /v2/orders/{id}".to_owned(),
        status: 200,
        latency_us: 44_000,
        bytes: (210, 934),
        client: "203.0.113.57".to_owned(),
        agent: "curl/8.5.0".to_owned(),
        has_id: false,
    };
    assert_eq!(seen(&ingress, line), expected);
    // A server that was tried in vain, and one asked behind an internal redirect.
    let retried = line.replace(
        "10.0.0.5:8080 934 0.043 200",
        "10.0.0.5:8080, 10.0.0.6:8080 : 10.0.0.7:80 0, 934 : 5 0.001, 0.042 : 0.001 502, 200 : 200",
    );
    assert_eq!(seen(&ingress, retried), expected);
    let unreached = line.replace("10.0.0.5:8080 934 0.043 200", "- - - -");
    assert_eq!(seen(&ingress, unreached), expected);
    // Users hold blanks, brackets, and what looks like a time.
    for user in ["a b", "x [20/Nov/2024:00:00:00 +0000] y", "[", "] \\x22GET"] {
        assert_eq!(seen(&ingress, line.replacen(" - - [", &format!(" - {user} ["), 1)), expected, "{user}");
    }
    // An id that a caller chose.
    for id in ["", "-", "a b", "10.0.0.1:1, 10.0.0.2:2 0, 5 0.1, 0.2 502, 200 x", ", , :", "] [x]"] {
        let line = line.replace("9b1a0000000000000000000000000001", id);
        assert_eq!(seen(&ingress, line), expected, "{id}");
    }
    // Requests that aren't HTTP.
    for request in [r"\x16\x03\x01\x02", "-", "", "GET /", "x"] {
        let line = line.replace("GET /v2/orders/7?apikey=acme HTTP/1.1", request);
        let other = Seen {
            key: "anonymous".to_owned(),
            route: "shop-orders-80 OTHER -".to_owned(),
            ..expected.clone()
        };
        assert_eq!(seen(&ingress, line), other, "{request}");
    }
}

#[test]
fn istio_text() {
    let istio = pattern(ISTIO, &["client_ip"]);
    let line = r#"[2025-11-20T12:44:15.123Z] "GET /v2/orders/7?x=1 HTTP/1.1" 200 - via_upstream - "-" 210 934 44 43 "203.0.113.57" "curl/8.5.0" "9b1a0000-0000-4000-8000-000000000001" "api.example.com" "10.0.0.5:8080" outbound|80||orders.shop.svc.cluster.local 10.0.0.1:44312 10.0.0.5:8080 10.0.0.9:51234 - default"#;
    let expected = Seen {
        key: "203.0.113.57".to_owned(),
        time: SECOND + 123,
        route: "api.example.com GET /v2/orders/{id}".to_owned(),
        status: 200,
        latency_us: 44_000,
        bytes: (210, 934),
        client: "203.0.113.57".to_owned(),
        agent: "curl/8.5.0".to_owned(),
        has_id: false,
    };
    assert_eq!(seen(&istio, line), expected);
    assert_eq!(seen(&istio, format!("{line}\n")), expected);
    let gone =
        line.replace(" 200 - via_upstream", " 0 DC downstream_remote_disconnect").replace(" 44 43 ", " - - ");
    assert_eq!(seen(&istio, gone), Seen { status: 0, latency_us: LATENCY_UNKNOWN, ..expected.clone() });
    // Envoy writes agents as they come: quotes that don't look like the pattern change nothing.
    for agent in [r#"say "hi""#, r#"""#, r#"""""#, r#"a\"#, r#"\"x\""#, "a\u{b}é", r#"" 5 ""#] {
        let found = seen(&istio, line.replace("curl/8.5.0", agent));
        assert_eq!(
            Seen { agent: String::new(), ..found.clone() },
            Seen { agent: String::new(), ..expected.clone() },
            "{agent}"
        );
    }
    // ... and those that do leave what is uncertain unknown, not the call.
    let found = seen(&pattern(ISTIO, &["query:x"]), line.replace("curl/8.5.0", r#"a" "b" "c" "d"#));
    assert_eq!((found.key.as_str(), found.status, found.agent.as_str()), ("1", 200, ""));
    // The caller behind the proxy is one of these.
    let uncertain = line.replace(r#""203.0.113.57""#, r#""203.0.113.57" "198.51.100.1""#);
    let found = seen(&pattern(ISTIO, &["query:x"]), &uncertain);
    assert_eq!(found.client, "::");
    assert_eq!(seen(&istio, &uncertain).key, "conflicting");
    // Istio logs connections too.
    let connection = r#"[2025-11-20T12:44:15.123Z] "- - -" 0 - - - "-" 210 934 44 - "-" "-" "-" "-" "10.0.0.5:3306" outbound|3306||db.shop.svc.cluster.local 10.0.0.1:44312 10.0.0.5:3306 10.0.0.9:51234 - -"#;
    assert!(refused(&istio, connection).reason.starts_with("not a call: "));
}

#[test]
fn a_key_is_never_one_that_stands_beside_it() {
    let envoy = pattern(ENVOY_KEY, &["header:x-api-key"]);
    let line = |agent: &str, id: &str, key: &str| {
        format!(r#"[2025-11-20T12:44:15.123Z] "GET /a HTTP/2" 200 7 "{agent}" "{id}" "{key}""#)
    };
    assert_eq!(seen(&envoy, line("curl", "i", "mine")).key, "mine");
    assert_eq!(seen(&envoy, line(r#"a "quoted" agent"#, "i", "mine")).key, "mine");
    for (agent, id, key) in
        [("a", "i", r#"x" "victim"#), (r#"a" "b"#, "i", "mine"), ("a", r#"i" "victim"#, "mine")]
    {
        assert_eq!(seen(&envoy, line(agent, id, key)).key, "conflicting", "{agent} {id} {key}");
    }
    // NGINX escapes: the same values are no riddle.
    let nginx = pattern(NGINX_KEY, &["header:x-api-key"]);
    let line = r#"1763642655.123 r1 203.0.113.57 "GET /a HTTP/1.1" 200 0.007 "a\x22 \x22b" "mine\x22 \x22x""#;
    let found = seen(&nginx, line);
    assert_eq!((found.key.as_str(), found.agent.as_str(), found.has_id), (r#"mine" "x"#, r#"a" "b"#, true));
    // With escape=none they are.
    assert_eq!(seen(&nginx, line.replace("\\x22", "\"")).key, "conflicting");
}

#[test]
fn apache() {
    let apache = pattern(
        r#"%v:%p %{X-Forwarded-For}i %a %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %I %D \"%{X-Api-Key}i\""#,
        &["header:x-api-key"],
    );
    let line = r#"api.example.com:443 203.0.113.57, 10.1.1.1 10.0.0.1 - ab [20/Nov/2025:13:44:15 +0100] "GET /v2/orders/7 HTTP/1.1" 200 934 "-" "say \"hi\" \xe9" 210 44123 "acme\\1""#;
    let found = seen(&apache, line);
    assert_eq!(
        found,
        Seen {
            key: r"acme\1".to_owned(),
            time: SECOND,
            route: "api.example.com GET /v2/orders/{id}".to_owned(),
            status: 200,
            latency_us: 44_123,
            bytes: (210, 934),
            client: "203.0.113.57".to_owned(),
            agent: found.agent.clone(),
            has_id: false,
        }
    );
    assert!(found.agent.starts_with(r#"say "hi" "#), "{}", found.agent);
    for (latency, value, us) in [("%T", "3", 3_000_000), ("%{ms}T", "44", 44_000), ("%{us}T", "44", 44)] {
        let apache = pattern(&format!("%h %t %r %s {latency}"), &["client_ip"]);
        let line = format!("h [20/Nov/2025:12:44:15 +0000] GET /a?b=%20 HTTP/1.1 200 {value}");
        assert_eq!(seen(&apache, line).latency_us, us);
    }
    let parts = pattern(r#"%a [%{%Y-%m-%dT%H:%M:%S}t.%{msec_frac}t%{%z}t] "%m %U%q %H" %s"#, &["query:k"]);
    let found = seen(&parts, r#"203.0.113.57 [2025-11-20T13:44:15.123+0100] "GET /a/7?k=acme HTTP/1.1" 200"#);
    assert_eq!(
        (found.key.as_str(), found.time, found.route.as_str()),
        ("acme", SECOND + 123, " GET /a/{id}")
    );
    let clf = pattern("%a %t %{usec_frac}t %>s %m %U %q", &["query:k"]);
    let found = seen(&clf, "203.0.113.57 [20/Nov/2025:12:44:15 +0000] 123456 200 GET /a ?k=acme");
    assert_eq!((found.key.as_str(), found.time), ("acme", SECOND + 123));
    let id = pattern("%a %t %{UNIQUE_ID}e %r", &["client_ip"]);
    assert!(seen(&id, "203.0.113.57 [20/Nov/2025:12:44:15 +0000] aSb1 GET / HTTP/1.0").has_id);
}

#[test]
fn envoy_times_and_truncation() {
    for (format, text) in [
        ("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2025/11/20T12:44:15+0000 1763642655"),
        ("%START_TIME(%s.%3f)%", "1763642655.000"),
        ("%START_TIME(%FT%T.%9fZ)%", "2025-11-20T12:44:15.000000001Z"),
        ("%START_TIME(%s)%", "1763642655"),
    ] {
        let envoy = pattern(&format!("{format} %REQ(:PATH):5% %RESPONSE_CODE% %UNIQUE_ID%"), &["query:k"]);
        let found = seen(&envoy, format!("{text} /ab/c 200 u-1"));
        assert_eq!((found.time, found.route.as_str(), found.has_id), (SECOND, " - /ab/c", true), "{format}");
    }
}

#[test]
fn amazon_api_gateway() {
    let clf = r#"$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime]"$context.httpMethod $context.resourcePath $context.protocol" $context.status $context.responseLength $context.requestId"#;
    let gateway = pattern(clf, &["user"]);
    let line = r#"203.0.113.57 - acme [20/Nov/2025:12:44:15 +0000]"GET /orders/{id} HTTP/1.1" 200 934 c6af9ac6-7b61-11e6-9a41-93e8deadbeef"#;
    let found = seen(&gateway, line);
    assert_eq!((found.key.as_str(), found.route.as_str()), ("acme", " GET /orders/{id}"));
    assert_eq!((found.time, found.status, found.bytes, found.has_id), (SECOND, 200, (0, 934), false));
    let http = pattern(
        "$context.requestTimeEpoch,$context.routeKey,$context.path,$context.status,$context.extendedRequestId",
        &["client_ip"],
    );
    let found = seen(&http, "1763642655123,GET /orders/{id},/orders/7,200,JKJaXmPLvHcESHA=");
    assert_eq!((found.time, found.route.as_str(), found.has_id), (SECOND + 123, " - /orders/{id}", true));
    assert_eq!(seen(&http, "1763642655123,$default,/orders/7,200,x").route, " - /orders/{id}");
}

#[test]
fn patterns_without_quotes() {
    let pipes =
        pattern("${msec}|$status|$host$request_uri|$http_x_api_key|$request_time", &["header:x-api-key"]);
    let found = seen(&pipes, "1763642655.123|204|api.example.com/a/7?x=1|acme|0.5");
    assert_eq!((found.key.as_str(), found.status, found.route.as_str()), ("acme", 204, " - /a/{id}"));
    // Two values of callers: bars within the one are bars within either.
    assert_eq!(seen(&pipes, "1763642655.123|204|api.example.com/a|b|acme|0.5").key, "conflicting");
    let ports = pattern("$remote_addr:$remote_port $msec $status $request_uri", &["client_ip"]);
    assert_eq!(seen(&ports, "2001:db8::7:4711 1763642655 200 /").client, "2001:db8::7");
}

#[test]
fn a_line_with_too_many_readings_is_refused() {
    let envoy = pattern(ENVOY_KEY, &["header:x-api-key"]);
    let line = |quotes: usize| {
        format!(
            r#"[2025-11-20T12:44:15.123Z] "GET /a HTTP/2" 200 7 "{}" "i" "mine""#,
            r#"" ""#.repeat(quotes)
        )
    };
    assert_eq!(seen(&envoy, line(20_000)).key, "conflicting");
    assert!(refused(&envoy, line(400_000)).reason.starts_with("unescaped: more than"));
    let words = pattern("$msec ${host}-${server_name}-$scheme x", &["client_ip"]);
    assert_eq!(seen(&words, "1763642655 a-b-c x").status, 0);
    assert!(refused(&words, format!("1763642655 {} x", "-".repeat(5_000))).reason.starts_with("unescaped"));
}

#[test]
fn mapped_variables() {
    let mut mapped = pattern(r#"$msec $req_id $status $my_user "$request""#, &["field:/my_user"]);
    let at = |name: &str| Some(Field::new(keytide_config::Pointer(vec![name.to_owned()]), None));
    mapped.fields.request_id = at("req_id");
    let line = r#"1763642655.1 id-1 200 acme "GET / HTTP/1.1""#;
    let found = seen(&mapped, line);
    assert_eq!((found.key.as_str(), found.has_id, found.time), ("acme", true, SECOND + 100));
    mapped.fields.time = Some(Field { unit: Some(Unit::Seconds), ..at("my_user").unwrap() });
    assert_eq!(seen(&mapped, line.replace("acme", "1763642655")).time, SECOND);
}

#[test]
fn what_is_no_line_of_the_pattern() {
    let ingress = pattern(INGRESS, &["query:apikey"]);
    for line in
        ["x", "I1120 12:44:15.123 1 main.go:7] started", "{}", "2025/11/20 12:44:15 [error] 7#7: \"x\""]
    {
        assert!(refused(&ingress, line).reason.starts_with("not a line of the pattern"), "{line}");
    }
    refused(&ingress, "");
}

#[test]
fn bytes_that_are_no_utf8_cost_nothing() {
    let nginx = pattern(NGINX_KEY, &["header:x-api-key"]);
    let line =
        b"1763642655.123 r1 203.0.113.57 \"GET /\xE9/\xFF?\xC3 HTTP/1.1\" 200 0.007 \"\xF0\x9F\" \"acme\"";
    assert_eq!(seen(&nginx, line).key, "acme");
    let keys: std::collections::BTreeSet<String> = [&b"k\xFE"[..], b"k\xFF", b"k\xEF\xBF\xBD", b"k"]
        .iter()
        .map(|key| {
            let line = [&b"1763642655 r1 203.0.113.57 \"GET / HTTP/1.1\" 200 0.007 \"-\" \""[..], key, b"\""]
                .concat();
            format!("{:?}", run(&nginx, line).events[0].key)
        })
        .collect();
    assert_eq!(keys.len(), 4, "keys of different bytes are different keys");
    let combined = source(Format::Combined, &["user"]);
    let line =
        b"203.0.113.57 - acme [20/Nov/2025:12:44:15 +0000] \"GET /\xE9 HTTP/1.1\" 200 934 \"\xFF\" \"\xFE\"";
    assert_eq!(seen(&combined, line).key, "acme");
}

/// What a caller can send in a field, as bytes of a header or a URL can be.
fn sent() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\" \"".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\\x22".to_owned()),
        Just(" HTTP/1.1\" 200 7 \"".to_owned()),
        Just("] [".to_owned()),
        Just("[20/Nov/2024:12:44:15 +0000] \"".to_owned()),
        Just(", 10.0.0.1:80".to_owned()),
        "[ -~]{0,6}",
        "\\PC{0,3}",
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat().trim().to_owned())
}

/// As NGINX writes a value (`escape=default`).
fn nginx(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' | 0..32 | 127.. => format!("\\x{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    if text.is_empty() { "-".to_owned() } else { text.bytes().map(escape).collect() }
}

/// As Apache httpd writes a value (`ap_escape_logitem`).
fn httpd(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(byte)),
        b'\n' => "\\n".to_owned(),
        b'\t' => "\\t".to_owned(),
        0..32 | 127.. => format!("\\x{byte:02x}"),
        _ => char::from(byte).to_string(),
    };
    if text.is_empty() { "-".to_owned() } else { text.bytes().map(escape).collect() }
}

fn or_anonymous(key: &str) -> String {
    if matches!(key, "" | "-") { "anonymous".to_owned() } else { key.to_owned() }
}

proptest! {
    /// A server that escapes leaves nothing uncertain: each value reads back as it was sent.
    #[test]
    fn what_nginx_and_httpd_escape_reads_back(
        key in sent(), agent in sent(), user in sent(), id in sent(), target in "/[a-z/]{0,8}", status in 100_u16..600,
    ) {
        let nginx_source = pattern(&INGRESS.replace("$http_referer", "$http_x_api_key"), &["header:x-api-key"]);
        let line = format!(
            "203.0.113.57 - {} [20/Nov/2025:12:44:15 +0000] \"GET {target} HTTP/1.1\" {status} 934 \"{}\" \"{}\" 210 0.044 [a] [] 10.0.0.5:80 934 0.043 200 {}",
            nginx(&user), nginx(&key), nginx(&agent), nginx(&id),
        );
        let httpd_source = pattern(
            r#"%a %l %u %t "%r" %>s %b "%{X-Api-Key}i" "%{User-Agent}i" %I %{ms}T "%{X-Request-Id}i""#,
            &["header:x-api-key"],
        );
        let other = format!(
            "203.0.113.57 - {} [20/Nov/2025:12:44:15 +0000] \"GET {target} HTTP/1.1\" {status} 934 \"{}\" \"{}\" 210 44 \"{}\"",
            httpd(&user), httpd(&key), httpd(&agent), httpd(&id),
        );
        for found in [seen(&nginx_source, line), seen(&httpd_source, other)] {
            // Names are shown without control characters, cut after a length: the id is of the whole.
            let is_shown = key.len() < 300 && !key.contains(char::is_control);
            prop_assert!(!is_shown || found.key == or_anonymous(&key), "{} is not {key}", found.key);
            prop_assert_eq!((found.status, found.latency_us, found.bytes), (status, 44_000, (210, 934)));
            prop_assert_eq!(found.time, SECOND);
        }
    }

    /// A server that doesn't escape: the call counts under its own key, or its line is refused as uncertain.
    #[test]
    fn what_envoy_does_not_escape_is_never_forged(key in "[a-z]{1,8}", agent in sent(), id in sent(), path in "/[a-z\"]{0,8}") {
        let envoy = pattern(ENVOY_KEY, &["header:x-api-key"]);
        let line = format!("[2025-11-20T12:44:15.123Z] \"GET {path} HTTP/2\" 200 7 \"{agent}\" \"{id}\" \"{key}\"");
        let out = run(&envoy, &line);
        prop_assert_eq!(out.events.len(), 1, "{:?}", out.dead_letters);
        let (own, found) = (KeyId::from_name(&key), out.events[0].key);
        prop_assert!(found == own || found == KeyId::CONFLICTING, "{}", line);
        prop_assert!([0, 200].contains(&out.events[0].status));
        // With the key in front of everything that callers choose, nothing costs the record.
        let first = pattern(&format!("%REQ(X-API-KEY)% {}", ENVOY_KEY.replace("%REQ(X-API-KEY)%", "%REQ(X-OTHER)%")), &["header:x-api-key"]);
        let found = seen(&first, format!("{key} {line}"));
        prop_assert_eq!(found.key, key);
    }

    /// Any bytes: no panic, and one record a line.
    #[test]
    fn each_line_is_one_record(
        lines in proptest::collection::vec(proptest::collection::vec(prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            Just(b"\" \"".to_vec()), Just(b" [".to_vec()), Just(b"[20/Nov/2025:12:44:15 +0000] \"".to_vec()),
            Just(b"[2025-11-20T12:44:15.123Z] \"GET /".to_vec()), Just(b" 200 7 ".to_vec()), Just(b"1763642655.1 ".to_vec()),
            Just(b"\t".to_vec()), Just(b"2025-11-20".to_vec()), Just(b"#Fields: date time".to_vec()), Just(b"{".to_vec()),
            Just(b"https 2025-11-20T12:44:15Z ".to_vec()), Just(b" [06/Feb/2009:12:14:14.655] a b/c 1/1/1/1/1".to_vec()),
        ], 0..12), 1..4),
    ) {
        let line = |pieces: &Vec<Vec<u8>>| -> Vec<u8> {
            pieces.concat().into_iter().filter(|byte| *byte != b'\n').collect()
        };
        let text = lines.iter().map(line).collect::<Vec<_>>().join(&b'\n');
        let is_call = |line: &&[u8]| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            !line.is_empty() && !w3c::DIRECTIVES.iter().any(|directive| line.starts_with(directive))
        };
        let expected = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text).split(|byte| *byte == b'\n').filter(is_call).count();
        // Other than a wrapper, which is JSON, and than what a frame or gzip begins with: these are of the whole message.
        let is_wrapper = matches!(text.trim_ascii(), [b'{', ..] | [b'"', .., b'"']);
        let is_whole = is_wrapper || matches!(text[..], [0 | 1, ..] | [0x1f, 0x8b, ..]);
        prop_assume!(expected > 0 && !is_whole);
        let sources = [
            pattern(INGRESS, &["query:k"]), pattern(ISTIO, &["query:k"]), pattern(ENVOY_KEY, &["header:x-api-key"]),
            pattern("${msec}|$request|$http_x|$status", &["header:x"]),
            source(Format::Combined, &["user"]), source(Format::Alb, &["query:k"]),
            source(Format::Cloudfront, &["header:x"]), source(Format::Haproxy, &["field:/request_headers/0"]),
        ];
        for source in sources {
            let out = run(&source, &text);
            let is_w3c = matches!(source.format, Format::Combined | Format::Cloudfront);
            let all = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text).split(|byte| *byte == b'\n')
                .filter(|line| !line.strip_suffix(b"\r").unwrap_or(line).is_empty()).count();
            let refused = out.dead_letters.iter().filter(|letter| !letter.counted).count();
            prop_assert_eq!(out.events.len() + refused, if is_w3c { expected } else { all });
        }
    }
}
