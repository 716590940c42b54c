//! CloudEvents in all modes.

use super::*;

/// As `OpenMeter` has usage events.
const USAGE: &str = r#"{
  "specversion": "1.0", "type": "request", "id": "00001", "time": "2025-11-20T12:44:15.123Z",
  "source": "service-0", "subject": "customer-1",
  "data": {"duration_seconds": "0.019", "method": "GET", "route": "/hello"}
}"#;

struct Pairs<'a>(&'a [(&'a [u8], &'a [u8])]);

impl Headers for Pairs<'_> {
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| take(name, value));
    }
}

/// The same event as [`USAGE`], in binary mode.
const HEADERS: [(&[u8], &[u8]); 7] = [
    (b"ce_specversion", b"1.0"),
    (b"ce_type", b"request"),
    (b"ce_id", b"00001"),
    (b"ce_time", b"2025-11-20T12:44:15.123Z"),
    (b"ce_source", b"service-0"),
    (b"ce_subject", b"customer-1"),
    (b"content-type", b"application/json"),
];
const DATA: &str = r#"{"duration_seconds": "0.019", "method": "GET", "route": "/hello"}"#;

fn cloudevents() -> Source {
    let keys =
        KeyRules { from: vec![KeyFrom::Consumer], hash: KeyHash::None, missing: MissingKey::Anonymous };
    Source { keys, ..source(Format::Cloudevents) }
}

fn run_binary(source: &Source, headers: &[(&[u8], &[u8])], value: impl AsRef<[u8]>) -> Decoded {
    let mut out = Decoded::default();
    decoder(source, &context(Limits::default())).decode_with(
        value.as_ref(),
        &Pairs(headers),
        START,
        &mut out,
    );
    out
}

/// [`HEADERS`] with one of them changed, left out, or added.
fn headers_with<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> Vec<(&'a [u8], &'a [u8])> {
    let others = HEADERS.into_iter().filter(|(other, _)| *other != name);
    others.chain(value.map(|value| (name, value))).collect()
}

fn identity(source: &str, id: &str) -> RequestId {
    RequestId::new("gateway", format!("{}:{source}{id}", source.len()).as_bytes())
}

fn golden() -> AccessEvent {
    AccessEvent {
        key: KeyId::from_name("customer-1"),
        request: identity("service-0", "00001"),
        route: RouteId::new("service-0", "GET", "/hello"),
        client: 0,
        status: 0,
        ..expected("")
    }
}

fn reason(out: &Decoded) -> &str {
    assert_eq!((out.events.len(), out.dead_letters.len()), (0, 1), "{out:?}");
    &out.dead_letters[0].reason
}

#[test]
fn all_modes_say_the_same() {
    let source = cloudevents();
    assert_eq!(event(&source, USAGE), golden());
    let batch = run(&source, format!("[{USAGE}]"));
    assert_eq!((batch.events, batch.dead_letters), (vec![golden()], vec![]));
    for (headers, value) in [
        (&HEADERS[..], DATA),
        (&HEADERS[..6], DATA),
        (&headers_with(b"content-type", Some(b"text/plain")), DATA),
        (
            &headers_with(b"ce_id", Some(b"00001")),
            "\u{feff} {\"duration_seconds\":0.019,\"method\":\"GET\",\"route\":\"/hello\"}\n",
        ),
        (&[(b"content-type", b"application/cloudevents+json; charset=UTF-8"), (b"ce_id", b"other")], USAGE),
        (&[(b"Content-Type", b"Application/CloudEvents+JSON")], USAGE),
        (&[(b"content-type", b"application/cloudevents+json"), (b"ce_specversion", b"1.0")], USAGE),
        (&[(b"content-type", b"application/cloudevents-batch+json")], &format!("[{USAGE}]")),
        (&[(b"content-type", b"application/json")], USAGE),
        (&[(b"\xFF", b"\xFF"), (b"", b"")], USAGE),
    ] {
        let out = run_binary(&source, headers, value);
        assert_eq!((out.events, out.dead_letters), (vec![golden()], vec![]), "{value}");
    }
    let compressed = run_binary(&source, &HEADERS, super::compressed::gzip(DATA));
    assert_eq!((compressed.events, compressed.dead_letters), (vec![golden()], vec![]));
}

#[test]
fn a_field_is_addressed_alike_in_all_modes() {
    let mut source = cloudevents();
    source.fields = FieldMap {
        request_id: at("/data/call/id"),
        status: at("/data/call/code"),
        latency: field("/data/ms", Some(Unit::Millis)),
        key: at("/tenant"),
        ..FieldMap::default()
    };
    source.keys =
        KeyRules { from: vec![KeyFrom::Key], hash: KeyHash::Sha256, missing: MissingKey::DeadLetter };
    let data = r#"{"call":{"id":"r-1","code":"404"},"ms":"1.5"}"#;
    let structured = USAGE.replace(DATA, data).replace(r#""type""#, r#""tenant":"t-1","type""#);
    let found = event(&source, structured);
    let AccessEvent { key, request, status, latency_us, .. } = found;
    assert_eq!((key, status, latency_us), (sha256_id("t-1"), 404, 1_500));
    assert_eq!(request, RequestId::new("gateway", b"r-1"));
    let binary = run_binary(&source, &headers_with(b"ce_tenant", Some(b"t-1")), data);
    assert_eq!((binary.events, binary.dead_letters), (vec![found], vec![]));
}

#[test]
fn an_event_is_identified_by_source_and_id_together() {
    let source = cloudevents();
    let with =
        |from: &str, id: &str| event(&source, USAGE.replace("service-0", from).replace("00001", id)).request;
    assert_eq!(with("service-0", "00001"), golden().request);
    let mut seen = vec![with("a", "bc"), with("ab", "c"), with("abc", "-"), with("1:a", "c"), with("a", "-")];
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    // However it is written.
    assert_eq!(with(r"service\u002d0", r"0000\u0031"), golden().request);
}

#[test]
fn what_is_no_event_of_version_1_0_is_a_dead_letter() {
    let source = cloudevents();
    for (from, to, expected) in [
        (r#""id": "00001""#, r#""x": 1"#, "id: missing"),
        ("\"00001\"", "\"\"", "id: missing"),
        ("\"00001\"", "7", "id: missing"),
        ("\"00001\"", "null", "id: missing"),
        (r#""source": "service-0""#, r#""x": 1"#, "source: missing"),
        ("\"service-0\"", "\"\"", "source: missing"),
        ("\"service-0\"", "{}", "source: missing"),
        (r#""specversion": "1.0""#, r#""x": 1"#, "specversion: missing"),
        ("\"1.0\"", "\"0.3\"", "specversion: must be 1.0"),
        ("\"1.0\"", "1.0", "specversion: must be 1.0"),
        ("\"1.0\"", "[\"1.0\"]", "specversion: must be 1.0"),
        ("\"1.0\"", "\"\"", "specversion: must be 1.0"),
        ("\"data\"", "\"data_base64\": \"e30=\", \"data\"", "data_base64: "),
        (r#""time": "2025-11-20T12:44:15.123Z""#, r#""x": 1"#, "time: missing"),
        ("2025-11-20T12:44:15.123Z", "1763642", "time: must be a time"),
    ] {
        assert!(USAGE.contains(from), "{from}");
        let bad = USAGE.replace(from, to);
        let out = run(&source, &bad);
        assert!(reason(&out).starts_with(expected), "{}", reason(&out));
        // A batch goes on.
        let out = run(&source, format!("[{USAGE},{bad},{USAGE}]"));
        assert_eq!((out.events.len(), out.dead_letters.len(), out.events[1].position.index), (2, 1, 2));
    }
    for (name, expected) in
        [(&b"ce_id"[..], "id: missing"), (b"ce_source", "source: missing"), (b"ce_time", "time: missing")]
    {
        for value in [None, Some(&b""[..])] {
            assert!(reason(&run_binary(&source, &headers_with(name, value), DATA)).starts_with(expected));
        }
    }
    // Without a version it isn't binary mode, and the data is no event.
    let out = run_binary(&source, &headers_with(b"ce_specversion", None), DATA);
    assert!(reason(&out).starts_with("specversion: missing"));
    let out = run_binary(&source, &headers_with(b"ce_specversion", Some(b"0.3")), DATA);
    assert!(reason(&out).starts_with("specversion: must be"));
    // Any other attribute may hold anything.
    let out = run(&source, USAGE.replace("\"0.019\"", "\"soon\""));
    assert_eq!(out.events, [AccessEvent { latency_us: LATENCY_UNKNOWN, ..golden() }]);
    assert_eq!(out.tally.unread().collect::<Vec<_>>(), [("latency", 1)]);
    let mut hashed = source.clone();
    hashed.keys.hash = KeyHash::Sha256;
    let out = run_binary(&hashed, &headers_with(b"ce_subject", Some(b"\xFF")), DATA);
    assert_eq!(out.events[0].key, KeyId::from_hash(&Sha256::digest(b"\xFF")));
    let out = run_binary(&source, &[(b"content-type", b"application/cloudevents+avro")], USAGE);
    assert!(reason(&out).starts_with("content-type: "));
    for value in ["", " ", "7", "\"x\"", "{}"] {
        assert!(!reason(&run(&source, value)).is_empty());
    }
}

#[test]
fn data_in_binary_mode_is_one_json_value_and_no_more() {
    let source = cloudevents();
    for value in
        ["{", "nothing", "{}{}", "{}\n{}", "{},", "{}}", "1,\"id\":\"forged\"", "{}}{\"id\":\"forged\""]
    {
        let letter = reason(&run_binary(&source, &HEADERS, value)).to_owned();
        assert!(letter.starts_with("not JSON: expected "), "{value}: {letter}");
    }
    let out = run_binary(&source, &HEADERS, b"{\"method\":\"\xFF\",\"route\":\"/a\xFF\"}");
    assert_eq!((out.events.len(), route(&out).2, route(&out).3), (1, "OTHER", "/a\u{fffd}"));
    let cut = b"{\"method\":\"\xFF\"";
    let out = run_binary(&source, &HEADERS, cut);
    assert!(reason(&out).starts_with("not JSON: expected "));
    assert_eq!(out.dead_letters[0].sha256, <[u8; 32]>::from(Sha256::digest(cut)));
    // Headers that would be the payload aren't; an event may have none, or one without members.
    let forged = headers_with(b"ce_data", Some(b"{\"method\":\"PUT\"}"));
    assert_eq!(run_binary(&source, &forged, DATA).events, [golden()]);
    for value in ["", " ", "null", "7", "[]"] {
        let out = run_binary(&source, &HEADERS, value);
        let bare = AccessEvent {
            route: RouteId::new("service-0", "OTHER", "-"),
            latency_us: LATENCY_UNKNOWN,
            ..golden()
        };
        assert_eq!(
            out.events.iter().map(|event| event.request).collect::<Vec<_>>(),
            [bare.request],
            "{value:?}"
        );
        assert_eq!(out.events[0].latency_us, LATENCY_UNKNOWN);
    }
}

#[test]
fn the_last_of_several_headers_counts_and_names_are_as_specified() {
    let source = cloudevents();
    let mut headers = HEADERS.to_vec();
    headers.insert(0, (b"ce_id", b"first"));
    headers.extend([
        (&b"ce_ID"[..], &b"other"[..]),
        (b"CE_id", b"other"),
        (b"id", b"other"),
        (b"ce_", b"other"),
    ]);
    assert_eq!(run_binary(&source, &headers, DATA).events, [golden()]);
    let quoted = headers_with(b"ce_subject", Some(b"a \"quoted\" \\ \n name"));
    let out = run_binary(&source, &quoted, DATA);
    assert_eq!(out.events[0].key, KeyId::from_name("a \"quoted\" \\ \n name"));
}

#[test]
fn headers_are_limited() {
    let limits = Limits { message_bytes: 4_096, ..Limits::default() };
    let used: usize = HEADERS.iter().map(|(name, value)| name.len() + value.len()).sum();
    for (spare, accepted) in [(1, true), (0, true), (-1, false)] {
        let long = vec![b'x'; (4_096 - used - b"ce_long".len()).checked_add_signed(-spare).unwrap()];
        let headers = headers_with(b"ce_long", Some(&long));
        let mut out = Decoded::default();
        decoder(&cloudevents(), &context(limits)).decode_with(
            DATA.as_bytes(),
            &Pairs(&headers),
            START,
            &mut out,
        );
        assert_eq!(out.events.len(), usize::from(accepted), "{spare}");
        if !accepted {
            assert_eq!(reason(&out), "longer than 4096 bytes (limits.message_bytes)");
        }
    }
}

#[test]
fn depth_and_width_cost_no_event_in_binary_mode() {
    for depth in [3, 500, 100_000] {
        let value = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(run_binary(&cloudevents(), &HEADERS, &value).events.len(), 1, "{depth}");
        let cut = &value[..value.len() - 1];
        assert_eq!(run_binary(&cloudevents(), &HEADERS, cut).dead_letters.len(), 1, "{depth}");
    }
    let members: Vec<_> = (0..20_000).map(|n| format!("\"x{n}\":1")).collect();
    let value = format!("{{{}}}", members.join(","));
    assert_eq!(run_binary(&cloudevents(), &HEADERS, &value).events.len(), 1);
}

#[test]
fn no_raw_key_comes_out_of_events() {
    let mut source = cloudevents();
    source.keys =
        KeyRules { from: vec![KeyFrom::Key], hash: KeyHash::Sha256, missing: MissingKey::Anonymous };
    source.fields.key = at("/data/key");
    let data = format!(r#"{{"key":"{RAW_KEY}","route":"/{RAW_KEY}","status":"bad"}}"#);
    for data in [&data, &data.replace("bad", "200"), &data[..60].to_owned()] {
        let out = run_binary(&source, &HEADERS, data);
        assert!(!everything(&out).contains(RAW_KEY), "{out:?}");
        let out = run(&source, USAGE.replace(DATA, data));
        assert!(!everything(&out).contains(RAW_KEY), "{out:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_headers_never_panic(
        headers in prop::collection::vec((prop_oneof![Just(b"ce_specversion".to_vec()), Just(b"ce_id".to_vec()), prop::collection::vec(any::<u8>(), 0..8)],
            prop_oneof![Just(b"1.0".to_vec()), prop::collection::vec(any::<u8>(), 0..8)]), 0..8),
        value in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let out = run_binary(&cloudevents(), &headers, value);
        prop_assert!(!out.dead_letters.is_empty() || !out.events.is_empty());
    }
}
