//! OpenTelemetry's envelopes, as the collector's exporters write them.

use super::*;

const MS: u64 = 1_763_642_655_123;

/// An attribute as OTLP writes it.
fn attribute(name: &str, value: &str) -> String {
    format!(r#"{{"key":"{name}","value":{{"stringValue":"{value}"}}}}"#)
}

fn attributes(all: &[(&str, &str)]) -> String {
    let all: Vec<_> = all.iter().map(|(name, value)| attribute(name, value)).collect();
    format!(r#""attributes":[{}]"#, all.join(","))
}

/// A log record that is a call of `n` bytes, with attributes of its own.
fn record(n: usize, all: &[(&str, &str)]) -> String {
    let size = n.to_string();
    let all = [&[("http.request.method", "GET"), ("http.request.size", &size)], all].concat();
    format!(r#"{{"timeUnixNano":"{MS}000000",{}}}"#, attributes(&all))
}

/// The records of one scope of one resource, each with attributes.
fn logs(resource: &[(&str, &str)], scope: &[(&str, &str)], records: &[String]) -> String {
    format!(
        r#"{{"resource":{{{}}},"scopeLogs":[{{"scope":{{"name":"s",{}}},"logRecords":[{}]}}]}}"#,
        attributes(resource),
        attributes(scope),
        records.join(",")
    )
}

fn resource_logs(resources: &[String]) -> String {
    format!(r#"{{"resourceLogs":[{}]}}"#, resources.join(","))
}

/// Sizes of events, nothing for dead letters, in order.
fn read(message: impl AsRef<[u8]>) -> Vec<Option<u64>> {
    outcomes(&run(&source(Format::Otel), message))
}

/// API and route of each event.
fn routes(out: &Decoded) -> Vec<(&str, &str)> {
    let route = |event: &AccessEvent| {
        let of = |definition| match definition {
            &Definition::Route { id, ref api, ref route, .. } if id == event.route => {
                Some((&**api, &**route))
            }
            _ => None,
        };
        out.definitions.iter().find_map(of).unwrap()
    };
    out.events.iter().map(route).collect()
}

#[test]
fn what_a_record_does_not_say_its_scope_says_and_then_its_resource() {
    let resource = [("service.name", "orders"), ("http.route", "/resource"), ("client.address", "192.0.2.1")];
    let scope = [("http.route", "/scope"), ("user_agent.original", "scope")];
    let records = [
        record(1, &[("http.route", "/record"), ("service.name", "own"), ("client.address", "192.0.2.2")]),
        record(2, &[]),
        record(3, &[("user_agent.original", "record")]),
    ];
    let message = resource_logs(&[
        logs(&resource, &scope, &records),
        logs(&resource, &[], &[record(4, &[])]),
        logs(&[], &[], &[record(5, &[])]),
    ]);
    let out = run(&source(Format::Otel), &message);
    assert_eq!(outcomes(&out), [1, 2, 3, 4, 5].map(Some), "{:?}", out.dead_letters);
    assert_eq!(
        routes(&out),
        [("own", "/record"), ("orders", "/scope"), ("orders", "/scope"), ("orders", "/resource"), ("", "-")]
    );
    let clients: Vec<_> = out.events.iter().map(|event| event.client).collect();
    let (own, of_resource) = (v4("192.0.2.2"), v4("192.0.2.1"));
    assert_eq!(clients, [own, of_resource, of_resource, of_resource, 0], "said twice is not said by two");
    let agents: Vec<_> = out.events.iter().map(|event| event.user_agent).collect();
    let agent = NameId::new;
    assert_eq!(agents, [agent("scope"), agent("scope"), agent("record"), NameId::NONE, NameId::NONE]);
    assert!(out.events.iter().all(|event| event.time == MS));
    // Whatever stands first: records, or what describes them.
    let turned = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}],"scope":{{{}}}}}],"resource":{{{}}}}}]}}"#,
        records.join(","),
        attributes(&scope),
        attributes(&resource)
    );
    assert_eq!(run(&source(Format::Otel), turned).events, out.events[..3]);
    // Several, in an array, by lines, or compressed.
    for message in [format!("[{message},{message}]"), format!("{message}\n{message}\n")] {
        assert_eq!(read(&message).len(), 10);
        assert_eq!(read(compressed::gzip(&message)).len(), 10);
    }
}

#[test]
fn a_span_of_a_server_is_a_call_from_its_start_to_its_end() {
    let span = |kind: &str, times: &str, more: &[(&str, &str)]| {
        format!(
            r#"{{"traceId":"t","spanId":"s",{kind}"name":"GET /x",{times},{}}}"#,
            attributes(&[&[("http.request.method", "GET"), ("http.request.size", "7")], more].concat())
        )
    };
    let times = format!(r#""startTimeUnixNano":"{MS}000000","endTimeUnixNano":"{}750000""#, MS + 19);
    let envelope = |spans: &[String]| {
        format!(
            r#"{{"resourceSpans":[{{"resource":{{{}}},"scopeSpans":[{{"scope":{{}},"spans":[{}]}}]}}]}}"#,
            attributes(&[("service.name", "orders")]),
            spans.join(",")
        )
    };
    let kinds = ["", "\"kind\":2,", "\"kind\":0,", "\"kind\":\"SPAN_KIND_SERVER\","];
    let out = run(&source(Format::Otel), envelope(&kinds.map(|kind| span(kind, &times, &[]))));
    assert_eq!((out.events.len(), out.dead_letters.as_slice()), (4, &[][..]));
    for event in &out.events {
        assert_eq!((event.time, event.latency_us, event.request), (MS, 19_750, RequestId::NONE));
    }
    assert_eq!(routes(&out)[0].0, "orders");
    // What was called from here, or done within, is none of a call that was served here.
    let others = [
        "1",
        "3",
        "4",
        "5",
        "\"SPAN_KIND_CLIENT\"",
        "\"SPAN_KIND_INTERNAL\"",
        "\"SPAN_KIND_PRODUCER\"",
        "\"SPAN_KIND_CONSUMER\"",
    ]
    .map(|kind| span(&format!("\"kind\":{kind},"), &times, &[]));
    let mixed = [&others[..], &[span("\"kind\":2,", &times, &[])]].concat();
    let out = run(&source(Format::Otel), envelope(&mixed));
    assert_eq!(
        (out.events.len(), out.dead_letters.len(), out.tally.passed_over),
        (1, 0, others.len() as u64)
    );
    assert_eq!(out.events[0].position.index, 0);
    // A duration that is stated counts, and one that can't be is unknown.
    let latency = |times: &str, more: &[(&str, &str)]| {
        let out = run(&source(Format::Otel), envelope(&[span("", times, more)]));
        (out.events[0].latency_us, out.tally.unread().next())
    };
    assert_eq!(latency(&times, &[("http.server.request.duration", "0.5")]), (500_000, None));
    let start = format!(r#""startTimeUnixNano":"{MS}000000""#);
    assert_eq!(latency(&start, &[]), (LATENCY_UNKNOWN, None));
    for end in ["0", "1", "\"soon\"", "\"1763642655122999999\""] {
        let times = format!(r#"{start},"endTimeUnixNano":{end}"#);
        assert_eq!(latency(&times, &[]), (LATENCY_UNKNOWN, Some(("end", 1))), "{end}");
    }
}

#[test]
fn a_bad_record_in_an_envelope_takes_no_neighbour_along() {
    for bad in [
        "7",
        "null",
        "\"text\"",
        "[]",
        "{}",
        "{bad}",
        "{\"timeUnixNano\":\"soon\",\"http.method\":\"GET\"}",
        "{\"http.method\":\"GET\"}",
        "{\"timeUnixNano\":\"1763642655123000000\",\"body\":{\"stringValue\":\"started\"}}",
        "{\"attributes\":[{\"key\" \"http.method\"}]}",
    ] {
        let logs = logs(&[], &[], &[record(1, &[]), bad.to_owned(), record(2, &[])]);
        let message = resource_logs(&[logs.clone(), logs]);
        assert_eq!(read(&message), [Some(1), None, Some(2), Some(1), None, Some(2)], "{bad}");
        let letter = &run(&source(Format::Otel), &message).dead_letters[0];
        assert_eq!(letter.sha256, <[u8; 32]>::from(Sha256::digest(bad)), "of the record alone: {bad}");
    }
}

#[test]
fn the_nearest_key_is_that_of_the_call() {
    let key = |key| [("http.request.header.apikey", key)];
    let message = resource_logs(&[
        logs(&key("resource"), &key("scope"), &[record(1, &key("record")), record(2, &[])]),
        logs(&key("resource"), &[], &[record(3, &[])]),
    ]);
    let out = run(&source(Format::Otel), message);
    let keys: Vec<_> = out.events.iter().map(|event| event.key).collect();
    assert_eq!(keys, ["record", "scope", "resource"].map(sha256_id));
}

#[test]
fn what_holds_no_records_is_told_unless_it_is_empty() {
    let good = logs(&[], &[], &[record(1, &[])]);
    for empty in [
        "{}",
        r#"{"resource":{}}"#,
        r#"{"scopeLogs":[]}"#,
        r#"{"scopeLogs":[{}]}"#,
        r#"{"scopeLogs":[{"logRecords":[]}]}"#,
        r#"{"scopeLogs":null}"#,
    ] {
        assert_eq!(
            read(resource_logs(&[good.clone(), empty.to_owned(), good.clone()])),
            [Some(1); 2],
            "{empty}"
        );
    }
    for (bad, reason) in [
        ("7", "not JSON: "),
        ("null", "not JSON: "),
        (r#"{"scopeLogs":{}}"#, "scopeLogs: must be an array"),
        (r#"{"scopeLogs":"x"}"#, "scopeLogs: must be an array"),
        (r#"{"scopeLogs":[{"logRecords":7}]}"#, "logRecords: must be an array"),
        (r#"{"scopeLogs":[7]}"#, "not JSON: "),
        (r#"{"scopeLogs":[{"logRecords"}]}"#, "not JSON: "),
    ] {
        let message = resource_logs(&[good.clone(), bad.to_owned(), good.clone()]);
        assert_eq!(read(&message), [Some(1), None, Some(1)], "{bad}");
        let letter = &run(&source(Format::Otel), &message).dead_letters[0];
        assert!(letter.reason.starts_with(reason), "{bad}: {}", letter.reason);
    }
    assert!(read(r#"{"resourceLogs":[]}"#).is_empty());
    // Metrics are no calls.
    assert_eq!(read(r#"{"resourceMetrics":[{"scopeMetrics":[]}]}"#), [None]);
    // A cut envelope is one dead letter, as nothing tells where it would go on.
    let whole = resource_logs(std::slice::from_ref(&good));
    assert_eq!(read(format!("{whole}\n{}\n{whole}", &whole[..whole.len() - 2])), [Some(1), None, Some(1)]);
}

#[test]
fn a_body_that_holds_json_and_names_from_before() {
    let body = r#"{\"msec\":\"1763642655.123\",\"size\":7,\"verb\":\"GET\",\"key\":\"k1\"}"#;
    let text = format!(r#"{{"timeUnixNano":"0","body":{{"stringValue":"{body}"}}}}"#);
    let below = |name: &str| format!("/body/stringValue/{name}");
    let mut otel = source(Format::Otel);
    otel.fields.time = field(&below("msec"), Some(Unit::Seconds));
    otel.fields.method = at(&below("verb"));
    otel.fields.bytes_in = at(&below("size"));
    otel.keys.from =
        vec![KeyFrom::Field(Pointer(below("key").split('/').skip(1).map(str::to_owned).collect()))];
    let message = resource_logs(&[logs(&[], &[], &[text.clone(), text])]);
    let out = run(&otel, &message);
    assert_eq!(outcomes(&out), [Some(7), Some(7)], "{:?}", out.dead_letters);
    assert!(out.events.iter().all(|event| event.key == sha256_id("k1") && event.time == MS));

    let before = resource_logs(&[logs(&[], &[], &[record(1, &[])])]);
    assert_eq!(read(before.replace("scopeLogs", "instrumentationLibraryLogs")), [Some(1)]);
    // A time of 0 is none: the observed one counts.
    let observed = before.replace(
        &format!(r#""timeUnixNano":"{MS}000000""#),
        &format!(r#""observedTimeUnixNano":"{MS}000000","timeUnixNano":"0""#),
    );
    assert_eq!(run(&source(Format::Otel), observed).events[0].time, MS);
}

#[test]
fn records_of_envelopes_are_limited_as_any() {
    let limits = Limits { message_records: 3, ..Limits::default() };
    for (count, events, letters) in [(2, 2, 0), (3, 3, 0), (4, 3, 1), (40, 3, 1)] {
        let records: Vec<_> = (0..count).map(|n| record(n, &[])).collect();
        let together = resource_logs(&[logs(&[], &[], &records)]);
        let apart: Vec<_> =
            records.iter().map(|record| logs(&[], &[], std::slice::from_ref(record))).collect();
        for message in [together, resource_logs(&apart)] {
            let out = run_with(&source(Format::Otel), &context(limits), message.as_bytes());
            assert_eq!((out.events.len(), out.dead_letters.len()), (events, letters), "{count}");
            for letter in out.dead_letters {
                assert!(letter.reason.ends_with("(limits.message_records)"), "{}", letter.reason);
            }
        }
    }
}

#[test]
fn no_raw_key_comes_out_of_an_envelope() {
    let mut otel = source(Format::Otel);
    otel.keys.from =
        vec![KeyFrom::Header("x-api-key".into()), KeyFrom::Query("apikey".into()), KeyFrom::User];
    let route = format!("/v1/{RAW_KEY}/x");
    let url = format!("/v1/{RAW_KEY}?apikey={RAW_KEY}");
    let all = [
        ("http.request.header.x-api-key", RAW_KEY),
        ("enduser.id", RAW_KEY),
        ("url.path", &*url),
        ("service.name", RAW_KEY),
        ("user_agent.original", RAW_KEY),
        ("http.route", &*route),
    ];
    let none: [(&str, &str); 0] = [];
    let (good, bad) = (record(1, &all), record(1, &all).replace(&MS.to_string(), "soon"));
    for message in [
        logs(&none, &none, &[good.clone(), bad.clone()]),
        logs(&all, &none, &[record(1, &none), bad.clone()]),
        logs(&none, &all, &[record(1, &none), bad.clone()]),
        logs(&all, &all, &[good, bad, format!("\"{RAW_KEY}\""), format!("{{\"{RAW_KEY}\":1}}")]),
        format!(r#"{{"scopeLogs":"{RAW_KEY}"}}"#),
    ] {
        let message = resource_logs(&[message]);
        let out = run(&otel, &message);
        assert!(!everything(&out).contains(RAW_KEY), "{message}\n{out:?}");
        if let Some(event) = out.events.first() {
            assert_eq!(event.key, sha256_id(RAW_KEY), "wherever it stands: {message}");
        }
        for end in (1..message.len()).step_by(11) {
            assert!(!everything(&run(&otel, &message[..end])).contains(RAW_KEY));
        }
    }
}

proptest! {
    #[test]
    fn damaged_envelopes_never_panic(at in 0_usize..10_000, byte: u8, cut in 0_usize..200) {
        let all = [("http.route", "/x"), ("http.request.header.x-api-key", "k")];
        let mut message = resource_logs(&[logs(&all, &all, &[record(1, &all), record(2, &all)])]).into_bytes();
        let len = message.len();
        message[at % len] = byte;
        message.truncate(len - cut % len);
        let out = run(&source(Format::Otel), &message);
        let positions = out.events.iter().map(|event| event.position);
        let letters = out.dead_letters.iter().filter(|letter| !letter.counted).map(|letter| letter.position);
        let mut all: Vec<_> = positions.chain(letters).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len(), count);
    }
}
