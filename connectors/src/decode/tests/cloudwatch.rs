//! Subscriptions of Amazon CloudWatch Logs.

use super::compressed::gzip;
use super::*;

const ENVELOPE: &[u8] = include_bytes!("../../../../tests/data/samples/cloudwatch_logs_envelope.json");
const CONTROL: &[u8] = include_bytes!("../../../../tests/data/samples/cloudwatch_logs_control_message.json");
const CONCATENATED: &[u8] = include_bytes!("../../../../tests/data/samples/firehose_concatenated.json");
const MEMBERS: &[u8] = include_bytes!("../../../../tests/data/samples/firehose_multimember.gz");

fn cloudwatch() -> Source {
    let keys =
        KeyRules { from: vec![KeyFrom::Credential], hash: KeyHash::None, missing: MissingKey::Anonymous };
    Source { keys, ..source(Format::Cloudwatch) }
}

/// Log events whose messages are the records of [`json`].
fn of_json() -> Source {
    Source { format: Format::Cloudwatch, inner: Some(Format::Json), ..json() }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn log_event(id: &str, time: u64, message: &str) -> String {
    format!(r#"{{"id":"{id}","timestamp":{time},"message":{}}}"#, quoted(message))
}

fn envelope(events: &[String]) -> String {
    format!(
        r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","subscriptionFilters":[],"logEvents":[{}]}}"#,
        events.join(",")
    )
}

fn request(id: &str) -> RequestId {
    RequestId::new("gateway", id.as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        (0..4)
            .map(|at| if at <= group.len() { char::from(DIGITS[bits >> (18 - 6 * at) & 63]) } else { '=' })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn log_events_are_records() {
    let out = run(&cloudwatch(), ENVELOPE);
    let golden = AccessEvent {
        key: KeyId::from_name("a1b2c3d4e5"),
        route: RouteId::new("z9x8c7v6b5", "GET", "/v2/orders/{id}"),
        latency_us: LATENCY_UNKNOWN,
        bytes_out: 1_982,
        ..expected("JKJaXmPLvHcES0A=")
    };
    let nth = |index: u32| AccessEvent {
        request: request(&format!("JKJaXmPLvHcES{index}A=")),
        position: Position { index, ..START },
        ..golden
    };
    let events: Vec<_> =
        (0..).zip(&out.events).map(|(n, event)| AccessEvent { request: nth(n).request, ..*event }).collect();
    assert_eq!((events, out.dead_letters), (vec![nth(0), nth(1), nth(2)], vec![]));
    // A caller may choose a request id of API Gateway's, but not the log event's.
    let ids = |out: &Decoded| out.events.iter().map(|event| event.request).collect::<Vec<_>>();
    let envelope: serde_json::Value = serde_json::from_slice(ENVELOPE).unwrap();
    let expected: Vec<_> = envelope["logEvents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| request(event["id"].as_str().unwrap()))
        .collect();
    assert_eq!(ids(&run(&cloudwatch(), ENVELOPE)), expected);
    // What is delivered twice counts once, also within one file of Firehose's.
    assert_eq!(ids(&run(&cloudwatch(), CONCATENATED)), [&expected[..], &expected].concat());
}

#[test]
fn control_messages_are_passed_over() {
    let out = run(&cloudwatch(), CONTROL);
    assert_eq!((out.events.len(), out.dead_letters), (0, vec![]));
    let empty = run(&cloudwatch(), envelope(&[]));
    assert_eq!((empty.events.len(), empty.dead_letters), (0, vec![]));
}

#[test]
fn what_firehose_delivers_is_read_whole_however_it_is_put_together() {
    let concatenated = run(&cloudwatch(), CONCATENATED);
    let indexes: Vec<_> = concatenated.events.iter().map(|event| event.position.index).collect();
    assert_eq!((indexes, concatenated.dead_letters), (vec![0, 1, 2, 3, 4, 5], vec![]));
    let (control, data) = (std::str::from_utf8(CONTROL).unwrap(), std::str::from_utf8(ENVELOPE).unwrap());
    let body = |data: &[Vec<u8>]| {
        let records: Vec<_> = data.iter().map(|data| format!(r#"{{"data":"{}"}}"#, base64(data))).collect();
        format!(r#"{{"requestId":"r","timestamp":1578090901599,"records":[{}]}}"#, records.join(","))
    };
    for (message, name) in [
        (MEMBERS.to_vec(), "members"),
        (gzip(CONCATENATED), "one member"),
        (format!("{control}\n{data}\n{data}\n").into_bytes(), "lines"),
        (format!("[{control},{data}, {data}]").into_bytes(), "array"),
        (body(&[gzip(CONTROL), gzip(ENVELOPE), gzip(ENVELOPE)]).into_bytes(), "body"),
        (gzip(body(&[gzip(CONCATENATED)])), "compressed body"),
        (body(&[CONCATENATED.to_vec()]).into_bytes(), "body, not compressed"),
        (
            format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, base64(&gzip(CONCATENATED))).into_bytes(),
            "what Lambda is given",
        ),
    ] {
        let out = run(&cloudwatch(), message);
        assert_eq!((&out.events, out.dead_letters), (&concatenated.events, vec![]), "{name}");
    }
}

#[test]
fn a_record_without_a_request_id_or_a_time_takes_those_of_its_log_event() {
    let text = std::str::from_utf8(ENVELOPE).unwrap().replace(r"requestId", "-").replace("requestTime", "-");
    let out = run(&cloudwatch(), &text);
    let (first, second, third) = (out.events[0].request, out.events[1].request, out.events[2].request);
    assert!(first.is_some() && first != second && second != third);
    assert_eq!(run(&cloudwatch(), &text).events, out.events, "an event that is delivered again is the same");
    let times: Vec<_> = out.events.iter().map(|event| event.time).collect();
    assert_eq!(times, [1_763_642_655_123, 1_763_642_655_124, 1_763_642_655_125]);

    // What the record says itself counts; the time's unit is the log event's, whatever the record's is.
    let mut source = of_json();
    source.fields.time = field("/time", Some(Unit::Seconds));
    let both = [
        log_event("e1", 1_763_642_655_999, r#"{"method":"GET","in":1,"id":"r1","time":1763642655}"#),
        log_event("e2", 1_763_642_655_999, r#"{"method":"GET","in":2}"#),
        log_event("", 1_763_642_655_999, r#"{"method":"GET","in":3}"#),
        format!(r#"{{"message":{}}}"#, quoted(r#"{"method":"GET","in":4,"time":1763642655}"#)),
        format!(r#"{{"message":{}}}"#, quoted(r#"{"method":"GET","in":5}"#)),
    ];
    let out = run(&source, envelope(&both));
    assert_eq!(outcomes(&out), [Some(1), Some(2), Some(3), Some(4), None]);
    let seen: Vec<_> = out.events.iter().map(|event| (event.request, event.time % 10_000)).collect();
    let none = RequestId::NONE;
    assert_eq!(seen, [(request("r1"), 5_000), (request("e2"), 5_999), (none, 5_999), (none, 5_000)]);
    assert!(out.dead_letters[0].reason.starts_with("time: missing"));
}

#[test]
fn records_of_one_log_event_have_request_ids_of_their_own() {
    let records = [r#"{"path":"/1"}"#, r#"{"path":"/2"}"#, r#"{"path":"/3","id":"r3"}"#];
    for message in [format!("[{}]", records.join(",")), records.join("\n")] {
        let both = ["e1", "e2"].map(|id| log_event(id, 1_763_642_655_123, &message));
        let out = run(&of_json(), envelope(&both));
        assert_eq!(outcomes(&out).len(), 6);
        let ids: Vec<_> = out.events.iter().map(|event| event.request).collect();
        assert_eq!(ids, ["e1", "e1#1", "r3", "e2", "e2#1", "r3"].map(request));
    }
}

#[test]
fn a_bad_record_takes_no_neighbour_along() {
    let good = |n: usize| log_event(&format!("e{n}"), 1_763_642_655_123, &record(n));
    let call = r#"{"method":"GET"}"#;
    assert_eq!(outcomes(&run(&of_json(), envelope(&[log_event("e", 1_763_642_655_123, call)]))), [Some(0)]);
    for bad in [
        log_event("e", 1_763_642_655_123, "START RequestId: 6bc28136"),
        log_event("e", 1_763_642_655_123, ""),
        log_event("e", 1_763_642_655_123, "{\"a\":\"cut"),
        log_event("e", 1_763_642_655_123, r#"{"method":"GET","time":"soon"}"#),
        log_event("e", 1_763_642_655_123, r#"{"level":"info","message":"started"}"#),
        log_event("e", 1_763_642_655_123, &"[".repeat(1_000)),
        log_event("e", 1_763_642_655_123, &format!("{{\"x\":{}1{}", "[".repeat(64), "]".repeat(64))),
        "7".to_owned(),
        "null".to_owned(),
        "\"text\"".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"id":"e","timestamp":1763642655123}"#.to_owned(),
        r#"{"id":"e","timestamp":1763642655123,"message":null}"#.to_owned(),
        r#"{"id":"e","timestamp":1763642655123,"message":7}"#.to_owned(),
        r#"{"id":"e","timestamp":1763642655123,"message":{"id":"r","method":"GET"}}"#.to_owned(),
        log_event("e", 1_763_642_655_123, call).replace("\"e\"", "7"),
        log_event("e", 1_763_642_655_123, call).replace("1763642655123", "\"soon\""),
        log_event("e", 1_763_642_655_123, call).replace("1763642655123", "-1"),
    ] {
        let (before, after) = (envelope(&[good(1)]), envelope(&[good(4)]));
        let message = format!("{before}{}{after}", envelope(&[good(2), bad.clone(), good(3)]));
        let out = run(&of_json(), &message);
        assert_eq!(outcomes(&out), [Some(1), Some(2), None, Some(3), Some(4)], "{bad}");
    }
}

#[test]
fn dead_letters_are_of_the_record_and_not_of_what_wraps_it() {
    let bad = "no \"JSON\" at all";
    let letter = refused(&of_json(), envelope(&[log_event("e", 1_763_642_655_123, bad)]));
    let found = (letter.length, letter.sha256, CLASSES[letter.class()]);
    assert_eq!(found, (bad.len() as u64, Sha256::digest(bad).into(), "syntax"));
}

#[test]
fn what_is_no_envelope_is_one_dead_letter() {
    let good = envelope(&[log_event("e", 1_763_642_655_123, &record(1))]);
    for (bad, reason) in [
        ("{}".to_owned(), "messageType: missing"),
        (String::from_utf8(AWS.to_vec()).unwrap(), "messageType: missing"),
        (good.replace("DATA_MESSAGE", "OTHER_MESSAGE"), "messageType: must be"),
        (good.replace("\"DATA_MESSAGE\"", "7"), "messageType: must be"),
        (good.replace("\"DATA_MESSAGE\"", "{}"), "messageType: must be"),
        (good.replace("\"DATA_MESSAGE\"", "null"), "messageType: missing"),
        (good.replace("logEvents", "logevents"), "logEvents: must be an array"),
        (r#"{"messageType":"DATA_MESSAGE","logEvents":null}"#.to_owned(), "logEvents: must be an array"),
        (r#"{"messageType":"DATA_MESSAGE","logEvents":{"0":{}}}"#.to_owned(), "logEvents: must be an array"),
        ("[[]]".to_owned(), "a record must be a JSON object"),
        ("\"\"".to_owned(), "a record must be a JSON object"),
        (r#"{"records":[{"data":"%%%%"}]}"#.to_owned(), "base64:"),
        (r#"{"records":[{"data":7}]}"#.to_owned(), "base64:"),
        (r#"{"records":[7]}"#.to_owned(), "base64:"),
        (r#"{"awslogs":{}}"#.to_owned(), "base64:"),
        (format!(r#"{{"records":[{{"data":"{}"}}]}}"#, base64(b"")), "empty message"),
        (format!(r#"{{"records":[{{"data":"{}"}}]}}"#, base64(&gzip(&good)[..30])), "gzip:"),
        (
            format!(r#"{{"records":[{{"data":"{}"}}]}}"#, base64(br#"{"records":[{"data":"e30="}]}"#)),
            "messageType: missing",
        ),
    ] {
        let out = run(&of_json(), format!("{good}\n{bad}\n{good}"));
        assert_eq!(outcomes(&out), [Some(1), None, Some(1)], "{bad}");
        assert!(out.dead_letters[0].reason.starts_with(reason), "{bad}: {}", out.dead_letters[0].reason);
    }
    // An envelope that isn't JSON is one as a whole, also where some of it could be read.
    let cut = &good[..good.len() - 2];
    let out = run(&of_json(), format!("{good}\n{cut}\n{good}"));
    assert_eq!(outcomes(&out), [Some(1), None, Some(1)]);
    assert!(out.dead_letters[0].reason.starts_with("not JSON"));
    // The type may stand behind the events.
    let late = good.replace(r#""messageType":"DATA_MESSAGE","#, "");
    let late = format!(r#"{},"message\u0054ype":"DATA\u005fMESSAGE"}}"#, late.strip_suffix('}').unwrap());
    assert_eq!(outcomes(&run(&of_json(), late)), [Some(1)]);
}

#[test]
fn log_events_that_are_not_utf8() {
    let good = log_event("e", 1_763_642_655_123, &record(1));
    let odd =
        |text: &str| -> Vec<u8> { text.bytes().map(|byte| if byte == b'?' { 0xFF } else { byte }).collect() };
    let key = good.replace(r#"\"id\":"#, r#"\"key\":\"?\",\"id\":"#);
    let out = run(&of_json(), odd(&envelope(&[good.clone(), key, good.clone()])));
    assert_eq!(outcomes(&out), [Some(1); 3]);
    assert_eq!(out.events[1].key, KeyId::from_hash(&Sha256::digest(b"\xFF")));
    // What can't be read is told of by the bytes of the record.
    let cut = "{\"a\":\"?";
    let out = run(&of_json(), odd(&envelope(&[good.clone(), log_event("e", 1_763_642_655_123, cut), good])));
    assert_eq!(outcomes(&out), [Some(1), None, Some(1)]);
    assert_eq!(out.dead_letters[0].sha256, <[u8; 32]>::from(Sha256::digest(odd(cut))));
}

#[test]
fn log_events_are_lines_of_any_inner_format() {
    let mut combined = Source { inner: Some(Format::Combined), ..source(Format::Cloudwatch) };
    combined.keys.from = vec![KeyFrom::User];
    let event_ = event(&combined, envelope(&[log_event("e1", 1_763_642_655_123, LINE)]));
    assert_eq!(
        (event_.key, event_.request, event_.time),
        (sha256_id("ada"), request("e1"), 1_763_642_655_000)
    );

    let kong = Source { inner: Some(Format::Kong), ..source(Format::Cloudwatch) };
    let log = std::str::from_utf8(KONG).unwrap();
    let wrapped = event(&kong, envelope(&[log_event("e1", 7, log)]));
    assert_eq!(wrapped, event(&source(Format::Kong), KONG));

    let events = Source { inner: Some(Format::Cloudevents), ..source(Format::Cloudwatch) };
    let cloud_event = r#"{"specversion":"1.0","id":"1","source":"s"}"#;
    assert_eq!(
        event(&events, envelope(&[log_event("e1", 1_763_642_655_123, cloud_event)])).time,
        1_763_642_655_123
    );
}

#[test]
fn limits_of_an_envelope() {
    // Records are counted over the whole message.
    let limits = Limits { message_records: 20, ..Limits::default() };
    let events = |count: usize| -> Vec<_> {
        (0..count).map(|n| log_event(&format!("e{n}"), 1_763_642_655_123, &record(n))).collect()
    };
    for (count, letters) in [(19, 0), (20, 0), (21, 1), (40, 1)] {
        for message in [envelope(&events(count)), envelope(&events(5)) + &envelope(&events(count - 5))] {
            let out = run_with(&of_json(), &context(limits), message.as_bytes());
            assert_eq!((out.events.len(), out.dead_letters.len()), (count.min(20), letters), "{count}");
        }
    }
    for depth in [4, 500, 100_000] {
        let record = format!(r#"{{"x":{}1{},"method":"GET","in":9}}"#, "[".repeat(depth), "]".repeat(depth));
        let out = run(&of_json(), envelope(&[log_event("e", 1_763_642_655_123, &record)]));
        assert_eq!(outcomes(&out), [Some(9)], "{depth}");
    }
    let bomb = envelope(&[]).replace("[]}", &format!("{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)));
    assert_eq!(outcomes(&run(&of_json(), bomb + &envelope(&events(1)))), [None, Some(0)]);
}

#[test]
fn what_is_taken_out_of_wrappers_is_limited_together() {
    let good = envelope(&[log_event("e", 1_763_642_655_123, &record(1))]);
    let padded = good.clone() + &" ".repeat(10_000 - good.len());
    let data = base64(&gzip(&padded));
    for (room, read) in [(20_000, 2), (29_999, 2), (30_000, 3), (30_001, 3)] {
        let limits = Limits { decompressed_bytes: room, ..Limits::default() };
        let one = format!(r#"{{"data":"{data}"}}"#);
        let message = format!(r#"{{"records":[{one},{one},{one}]}}"#);
        for _ in 0..2 {
            let out = run_with(&of_json(), &context(limits), message.as_bytes());
            assert_eq!((out.events.len(), out.dead_letters.len()), (read, 3 - read), "{room}");
        }
    }
}

#[test]
fn no_raw_key_comes_out_of_log_events() {
    let mut source = Source { inner: Some(Format::Kong), ..source(Format::Cloudwatch) };
    source.keys.from = vec![KeyFrom::Header("apikey".into()), KeyFrom::Query("apikey".into())];
    let log = std::str::from_utf8(KONG).unwrap();
    assert!(log.contains(RAW_KEY));
    let message = envelope(&[
        log_event("e1", 7, log),
        log_event("e2", 7, &log.replace("\"latencies\":{", "\"latencies\":{\"request\":\"bad\",")),
    ]);
    assert!(!everything(&run(&source, &message)).contains(RAW_KEY));
    for end in (1..message.len()).step_by(7) {
        assert!(!everything(&run(&source, &message[..end])).contains(RAW_KEY));
    }
}

proptest! {
    #[test]
    fn damaged_envelopes_never_panic(at in 0_usize..10_000, byte: u8, cut in 0_usize..200) {
        for message in [CONCATENATED, br#"{"records":[{"data":"e30="},{"data":"H4sIAAAAAAAC"}]}"#] {
            let mut message = message.to_vec();
            let len = message.len();
            message[at % len] = byte;
            message.truncate(len - cut % len);
            let out = run(&cloudwatch(), &message);
            let positions = out.events.iter().map(|event| event.position);
            let letters = out.dead_letters.iter().filter(|letter| !letter.counted);
            let mut all: Vec<_> = positions.chain(letters.map(|letter| letter.position)).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count);
        }
    }
}
