//! Logs with a shape of their own, as their public documentation shows them.

use super::*;

const ALB: &[u8] = include_bytes!("../../../../tests/fixtures/decode/aws_alb.log");
const CLOUDFRONT: &[u8] = include_bytes!("../../../../tests/fixtures/decode/aws_cloudfront.log");
const HAPROXY: &[u8] = include_bytes!("../../../../tests/fixtures/decode/haproxy_httplog.log");
const IIS: &[u8] = include_bytes!("../../../../tests/fixtures/decode/iis_w3c.log");

/// Route, status, latency, bytes in and out of each call.
fn calls(source: &Source, text: &[u8]) -> Vec<(String, u16, u64, u64, u64)> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut decoder = decoder(source, &context());
    decoder.continue_after(None);
    let mut calls = Vec::new();
    for line in lines {
        let mut out = Decoded::default();
        decoder.decode(line, AT, &mut out);
        assert!(out.dead_letters.is_empty(), "{:?}: {}", out.dead_letters, String::from_utf8_lossy(line));
        for event in &out.events {
            let seen = seen_route(source, line, &out);
            calls.push((seen, event.status, event.latency_us, event.bytes_in, event.bytes_out));
        }
    }
    calls
}

/// The route of a decoder that has met it before, too.
fn seen_route(source: &Source, line: &[u8], out: &Decoded) -> String {
    let route = |out: &Decoded| {
        out.definitions.iter().find_map(|definition| match definition {
            Definition::Route { api, method, route, .. } => Some(format!("{api} {method} {route}")),
            _ => None,
        })
    };
    route(out).or_else(|| route(&run(source, line))).unwrap_or_default()
}

fn expected(calls: &[(&str, u16, u64, u64, u64)]) -> Vec<(String, u16, u64, u64, u64)> {
    calls.iter().map(|(route, a, b, c, d)| ((*route).to_owned(), *a, *b, *c, *d)).collect()
}

#[test]
fn application_load_balancer() {
    let golden = expected(&[
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 200, 1_000, 34, 366),
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 200, 86_000 + 48_000 + 37_000, 0, 57),
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 200, 2_000, 5, 257),
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 101, 1_000 + 3_000, 218, 587),
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 101, 1_000 + 8_000, 218, 786),
        ("app/my-loadbalancer/50dc6c495c0c9188 GET /", 200, LATENCY_UNKNOWN, 34, 366),
        ("my-loadbalancer GET /", 200, 73 + 1_048 + 57, 0, 29),
    ]);
    assert_eq!(calls(&source(Format::Alb, &["query:k"]), ALB), golden);
    assert_eq!(calls(&source(Format::Combined, &["query:k"]), ALB), golden);

    let alb = source(Format::Alb, &["query:k"]);
    let line = String::from_utf8(ALB.split(|byte| *byte == b'\n').next().unwrap().to_vec()).unwrap();
    let found = seen(&alb, line.replace("80/ HTTP", "80/v2/orders/7?k=a%20b HTTP"));
    assert_eq!((found.key.as_str(), found.client.as_str(), found.has_id), ("a b", "192.168.131.39", false));
    assert_eq!((found.agent.as_str(), found.time), ("curl/7.46.0", 1_530_570_180_186));
    // Whatever is in the request and the agent, the call counts.
    for (from, to) in [
        ("GET http://www.example.com:80/ HTTP/1.1", "- http://www.example.com:80- - "),
        ("curl/7.46.0", r#"a" "b" "c"#),
        ("80/ HTTP", r#"80/"x" HTTP"#),
    ] {
        assert_eq!(seen(&alb, line.replace(from, to)).status, 200, "{to}");
    }
    assert_eq!(seen(&alb, line.replace("80/ HTTP", r#"80/?k=acme&x=" HTTP"#)).key, "acme");
    for bad in [
        "http 2018-07-02T22:23:00.186641Z app/x 192.168.131.39:2817",
        "http x",
        &line.replace("2018-07-02T", "2018-07-02 "),
    ] {
        refused(&alb, bad);
    }
}

#[test]
fn cloudfront() {
    let golden = expected(&[
        ("d111111abcdef8.cloudfront.net GET /index.html", 200, 1_000, 23, 392),
        ("d111111abcdef8.cloudfront.net GET /index.html", 200, 1_000, 23, 392),
        ("d111111abcdef8.cloudfront.net GET /v2/orders/{id}", 502, 1_118_000, 75, 820),
    ]);
    for format in [Format::Cloudfront, Format::Combined] {
        assert_eq!(calls(&source(format, &["query:apikey"]), CLOUDFRONT), golden);
    }
    let lines: Vec<&[u8]> = CLOUDFRONT.split(|byte| *byte == b'\n').collect();
    // As a message of its own, a line has the default columns.
    let found = seen(&source(Format::Cloudfront, &["query:apikey"]), lines[4]);
    assert_eq!((found.key.as_str(), found.has_id, found.time), ("acme", true, 1_575_493_372_000));
    assert_eq!((found.agent.as_str(), found.client.as_str()), ("curl/8.5.0 (é)", "192.0.2.24"));
    let short = b"#Fields: time date c-ip cs-method cs(X-Api-Key) sc-status time-taken\n12:44:15\t2025-11-20\t192.0.2.7\tGET\ta%20b\t200\t0.044";
    let found = seen(&source(Format::Cloudfront, &["header:x-api-key"]), short);
    assert_eq!((found.key.as_str(), found.latency_us), ("a b", 44_000));
    // A header is of its message alone.
    let header = &b"#Fields: date time"[..];
    let mut decoder = decoder(&source(Format::Cloudfront, &["user"]), &context());
    let mut out = Decoded::default();
    for message in [header, lines[4], header, b"2025-11-20 12:44:15"] {
        decoder.decode(message, AT, &mut out);
    }
    assert_eq!((out.events.len(), out.dead_letters.len()), (1, 1), "{:?}", out.dead_letters);
    // ... unless they are lines of a file.
    decoder.continue_after(Some(header));
    decoder.decode(b"2025-11-20 12:44:15", AT, &mut out);
    assert_eq!((out.events.len(), out.dead_letters.len()), (2, 1));
}

#[test]
fn other_w3c_logs() {
    let iis = source(Format::Cloudfront, &["user"]);
    let golden = expected(&[
        (" GET /v2/orders/{id}", 200, 44_000, 210, 934),
        (" POST /v2/orders", 404, 0, 703, 1_245),
    ]);
    assert_eq!(calls(&iis, IIS), golden);
    let text = "#Fields: date time cs-method cs-uri c-ip cs(User-Agent) time-taken x-more\n2025-11-20 12:44:15 GET /a 192.0.2.7 \"an \"\"agent\"\" (x)\" 0.044 -\n";
    let found = seen(&iis, text);
    assert_eq!((found.latency_us, found.agent.as_str()), (44_000, "an \"\"agent\"\" (x)"));
    assert!(refused(&iis, "#Fields: date time cs-method\n2025-11-20 12:44:15").reason.contains("#Fields:"));
    assert!(refused(&iis, "#Fields: time cs-method\n12:44:15 GET").reason.starts_with("time: "));
    assert_eq!(run(&iis, "#Version: 1.0\n#Date: 2025-11-20 12:44:15\n").dead_letters, []);
}

#[test]
fn haproxy_http() {
    let golden = expected(&[
        ("static GET /index.html", 200, 109_000, 0, 2_750),
        ("static GET /v2/orders/{id}", 200, 109_000, 0, 2_750),
        ("static GET /index.html", 200, 109_000, 0, 2_750),
        ("http-in OTHER -", 400, LATENCY_UNKNOWN, 0, 187),
        ("app POST /v2/orders", 0, 30_001_000, 0, 0),
        ("app GET /v2/orders", 200, 9_000, 0, 314),
    ]);
    let mut haproxy = source(Format::Haproxy, &["field:/request_headers/1"]);
    assert_eq!(calls(&haproxy, HAPROXY), golden);
    haproxy.format = Format::Combined;
    assert_eq!(calls(&haproxy, HAPROXY), golden);

    let haproxy = source(Format::Haproxy, &["field:/request_headers/1", "query:k"]);
    let line = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] in~ app/srv1 0/0/1/8/9 200 314 - - ---- 1/1/0/0/0 0/0 {x|acme#7Cb#C3#A9} {y} \"GET /a?k=7 HTTP/1.1\"";
    let found = seen(&haproxy, line);
    assert_eq!(
        (found.key.as_str(), found.time, found.client.as_str()),
        ("acme|bé", 1_233_922_454_655, "10.0.1.2")
    );
    assert_eq!(seen(&haproxy, line.replace("acme#7Cb#C3#A9", "")).key, "7");
    assert_eq!(seen(&haproxy, line.replace("acme#7Cb#C3#A9", r"a\x41#5")).key, r"a\x41#5");
    // Cut off by the length of a line of syslog.
    assert_eq!(seen(&haproxy, line.replace(" HTTP/1.1\"", "")).route, "app GET /a");
    // ... within the headers, before the request, and where a key may be cut off.
    let cut = |to: &str| line[..line.find(to).unwrap() + to.len()].to_owned();
    let found = seen(&haproxy, cut("{x|acme#7Cb#C3#A9} {"));
    assert_eq!((found.key.as_str(), found.status, found.route.as_str()), ("acme|bé", 200, "app - -"));
    assert_eq!(seen(&haproxy, cut("{x|acme#7Cb")).key, "conflicting");
    assert_eq!(seen(&haproxy, cut("{x")).key, "anonymous");
    assert_eq!(seen(&haproxy, cut("?k=7").replace("acme#7Cb#C3#A9", "")).key, "conflicting");
    assert_eq!(seen(&haproxy, cut("?k=7").replace("acme#7Cb#C3#A9", "").replace("?k=7", "?k=7&x=")).key, "7");
    for bad in [
        "Feb  6 12:12:56 localhost haproxy[14387]: 10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 0/0/5007 212 -- 0/0/0/0/3 0/0",
        "Nov 20 12:44:15 lb haproxy[7]: Proxy http-in started.",
        "Dec  3 18:27:14 lb haproxy[6103]: 127.0.0.1:56059 [03/Dec/2012:17:35:10.380] frt/f1: Connection error during SSL handshake",
    ] {
        assert!(refused(&haproxy, bad).reason.starts_with("line: "), "{bad}");
    }
}

#[test]
fn combined_lines_of_a_server_that_does_not_escape() {
    let combined = source(Format::Combined, &["user"]);
    let line = |request: &str, agent: &str| {
        format!(r#"203.0.113.57 - acme [20/Nov/2025:12:44:15 +0000] "{request}" 200 934 "-" "{agent}""#)
    };
    let found = seen(&combined, line("GET /v2/orders/7 HTTP/1.1", r#"an "agent" of mine"#));
    assert_eq!(
        (found.key.as_str(), found.status, found.agent.as_str()),
        ("acme", 200, r#"an "agent" of mine"#)
    );
    let found = seen(&combined, line(r#"GET /a"b/c HTTP/1.1"#, "curl"));
    assert_eq!((found.route.as_str(), found.status), (r#" GET /a"b/c"#, 200));
    for bad in [line("GET / HTTP/1.1", "x").trim_end_matches('"'), "a b c \"x\""] {
        assert!(refused(&combined, bad).reason.starts_with("line: "), "{bad}");
    }
}
