//! Hostile and broken data, end to end: what becomes of each record, at each limit and beside it, in the files that a
//! replay writes. What one decoder makes of one message is tested beside the decoders; arbitrary bytes in
//! `tests/fuzz/`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use keytide_dataflow::model::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{HOUR, Job, MINUTE, Row, START, Views, call, read_text};

const NOW: &str = "--now 2025-06-10T00:00:00Z";

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A record of the job with these members besides.
fn record(members: &str) -> String {
    format!(r#"{{"id":"x","t":{START},"k":"k","path":"/p",{members}}}"#)
}

fn run(job: &Job) -> Views {
    job.replay().with(NOW).succeed();
    job.out()
}

// ---- what a record may be

/// Records that can't be read, each with how the reason begins and which of its numbers are kept.
fn broken() -> Vec<(Vec<u8>, &'static str, Value)> {
    let nothing = Value::Null;
    let mut broken: Vec<(Vec<u8>, &str, Value)> = [
        // Bytes.
        (&b"{\"t\":1748851200000,\"path\":\"/\",\"k\":\"\xff"[..], "not JSON"),
        (b"\xff\xfe{\0\"\0t\0\"\0:\x001\0}\0", "not JSON"),
        (b"\0", "framed: "),
        (b"\0\0\0\0\x07\x02\x04", "framed: "),
        (b"\xef\xbb\xbf", "empty message"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not JSON"),
        // Text that ends too early, or isn't JSON.
        (b"{", "not JSON"),
        (b"{\"t\":17488512", "not JSON"),
        (b"{\"t\":1748851200000,\"k\":\"cut", "not JSON"),
        (b"[{\"t\":1748851200000", "not JSON"),
        (b"{'t':1748851200000}", "not JSON"),
        (b"{t:1748851200000}", "not JSON"),
        (b"{\"t\" 1748851200000}", "not JSON"),
        (b"{\"t\":1748851200000,\"x\":[1}", "not JSON"),
        (b"a line of text", "not JSON"),
        (b"   \t ", "empty message"),
        // JSON, but no record.
        (b"null", "a record must be"),
        (b"7", "a record must be"),
        (b"\"text\"", "a record must be"),
        (b"true", "a record must be"),
        // A record, but not of a call.
        (b"{}", "not a call: "),
        (b"{\"t\":null}", "not a call: "),
        (b"{\"t\":1748851200000,\"k\":\"k\",\"level\":\"info\"}", "not a call: "),
        (b"{\"t\":1748851200000,\"status\":null,\"path\":\"-\",\"route\":\"\"}", "not a call: "),
    ]
    .into_iter()
    .map(|(bytes, reason)| (bytes.to_vec(), reason, nothing.clone()))
    .collect();
    // Without its time no call can be counted. What else is known is kept.
    for time in [
        "null",
        "\"-\"",
        "0",
        "-1",
        "946684799999",
        "7258118400000",
        "18446744073709551616",
        "-9223372036854775808",
        "1e400",
        "\"NaN\"",
        "\"yesterday\"",
        "true",
        "{\"ms\":1748851200000}",
    ] {
        let record = format!(r#"{{"t":{time},"k":"k","status":200}}"#);
        broken.push((record.into_bytes(), "time: ", json!({ "status": 200 })));
    }
    broken
}

#[test]
fn each_broken_record_is_one_dead_letter_with_reason_source_offset_and_hash() {
    let (mut log, mut expected) = (Vec::new(), Vec::new());
    let broken = broken();
    for (n, (bytes, reason, kept)) in broken.iter().enumerate() {
        log.extend_from_slice(call(n as u64, &format!("r{n}"), "k").as_bytes());
        log.push(b'\n');
        expected.push((log.len() as u64, bytes, *reason, kept));
        log.extend_from_slice(bytes);
        log.push(b'\n');
    }
    let job = Job::new("").file("log.jsonl", &log);
    let views = run(&job);
    assert_eq!(views.count("events"), broken.len() as u64, "no neighbour is lost");
    let letters = views.rows("dead_letters");
    assert_eq!(views.count("dead_letters"), letters.len() as u64);
    let path = job.path("log.jsonl");
    for (letter, (offset, bytes, reason, kept)) in letters.iter().zip(&expected) {
        let text = String::from_utf8_lossy(bytes);
        assert!(letter.text("reason").starts_with(reason), "{text}: {letter:?}");
        assert_eq!((letter.text("source"), letter.number("partition")), ("log", 0));
        assert_eq!((letter.number("offset"), letter.number("index")), (*offset, 0), "{text}");
        assert_eq!(letter.text("path"), path.to_str().unwrap());
        assert_eq!(letter.get("kept"), *kept, "{text}");
        // Of a record, without the white space around it and the byte order mark before it.
        if letter.number("length") == bytes.len() as u64 {
            assert_eq!(letter.text("sha256"), sha256(bytes), "{text}");
        }
    }
    assert_eq!(letters.len(), expected.len());
}

/// What a caller chooses, or a gateway writes wrongly, costs no call: the field is unknown, whatever it holds. One such
/// record in 64 has a row that says so.
#[test]
fn a_field_that_can_t_be_read_is_unknown_and_its_call_counts() {
    let fields = [
        (
            "latency",
            vec!["-2", "-9223372036854775808", "9223372036854775807", "4398046511105", "1e400", "\"NaN\""],
        ),
        ("latency", vec!["\"-Infinity\"", "true", "{}", "NaN", "Infinity"]),
        ("status", vec!["-200", "99", "1000", "65736", "200.5", "18446744073709551816", "\"OK\"", "false"]),
        ("route", vec!["true", "{}"]),
        ("path", vec!["{}", "false"]),
        ("request_id", vec!["true", "{}"]),
    ];
    let members = |field: &str| {
        match field {
            "latency" => "us",
            "request_id" => "id",
            other => other,
        }
        .to_owned()
    };
    let mut lines = Vec::new();
    for (field, values) in &fields {
        for value in values {
            let id =
                if *field == "request_id" { String::new() } else { format!(r#""id":"r{}","#, lines.len()) };
            let base = format!(r#"{{{id}"t":{START},"k":"k","path":"/p""#);
            lines.push(format!(r#"{base},"{}":{value}}}"#, members(field)));
        }
    }
    // So often that rows of each field are among them.
    let lines: Vec<String> = (0..300)
        .flat_map(|n| lines.iter().map(move |line| line.replace(r#""id":"r"#, &format!(r#""id":"{n}-"#))))
        .collect();
    let views = run(&Job::new("").log(&lines));
    assert_eq!(views.count("events"), lines.len() as u64);
    let day = &views.window("usage", "1d")[0];
    assert_eq!((day.text("key_id"), day.number("calls")), ("k", lines.len() as u64));
    assert_eq!((day.number("latency_calls"), day.number("errors_4xx"), day.number("errors_5xx")), (0, 0, 0));
    let letters = views.rows("dead_letters");
    for (field, _) in &fields {
        let reason = format!("{field}: can't be read, counted as unknown (one such record in 64 has a row)");
        assert!(letters.iter().any(|letter| letter.text("reason") == reason), "{field}");
    }
    assert!(letters.iter().all(|letter| letter.flag("counted")));
    let expected = lines.len() / 64;
    assert!(
        (expected / 2..expected * 2).contains(&letters.len()),
        "{} rows of {}",
        letters.len(),
        lines.len()
    );
}

#[test]
fn odd_but_readable_records_are_events() {
    let lines = [
        // A byte order mark, and members that stand twice: the last that says something counts.
        format!(
            "\u{feff}{{\"id\":\"a\",\"t\":{START},\"k\":\"last\",\"path\":\"/\",\"us\":1,\"us\":2,\"us\":null}}"
        ),
        // Numbers as texts and with exponents, unknown ones as `-1`, `-`, an empty text or null.
        format!(r#"{{"id":"b","t":"{START}","k":"last","us":"2e0","status":2e2}}"#),
        r#"{"id":"c","t":1.7488512e12,"k":"last","us":-1,"status":"-","path":"/"}"#.to_owned(),
        format!(r#"{{"id":"d","t":{START}.999,"k":"last","us":"","status":null,"path":"/"}}"#),
        // Escapes, a lone surrogate, an unknown member with whatever in it.
        format!(
            r#"{{"\u0069d":"e","t":{START},"k":"\u006cast","x":["\ud83d",{{"t":0}}],"us":0.5,"path":"/"}}"#
        ),
        // Addresses that are none.
        record(r#""ip":"999.1.2.3""#).replace("\"k\":\"k\"", "\"k\":\"last\""),
        format!(r#"{{"id":"f","t":{START},"k":"last","path":"/","ip":["192.0.2.1","192.0.2.2"]}}"#),
        format!(r#"{{"id":"g","t":{START},"k":"last","path":"/","ip":{{}}}}"#),
        // What templates write: values that are empty or without quotes, escapes that JSON doesn't have, a last comma.
        format!(r#"{{"id":"h","t":{START},"k":"last","path":"/\x41\q","us":,"x":-,"y":0.1, 0.2,"z":01,}}"#),
        format!("{{\"id\":\"i\",\"t\":{START},\"k\":\"last\",\"path\":\"/\t\u{1}\"}}"),
    ];
    let mut log = lines.join("\n").into_bytes();
    // Bytes that aren't UTF-8.
    for (id, path) in [("j", &b"/\xff"[..]), ("k", b"/\xed\xa0\x80"), ("l", b"/\xc0\x80\xf4\x8f\xbf\xbf")] {
        log.extend(format!("\n{{\"id\":\"{id}\",\"t\":{START},\"k\":\"last\",\"path\":\"").bytes());
        log.extend([path, b"\"}"].concat());
    }
    let job = Job::new("").file("log.jsonl", log);
    let views = run(&job);
    assert_eq!(
        (views.count("events"), views.count("dead_letters")),
        (13, 0),
        "{}",
        views.text("dead_letters")
    );
    let day = &views.window("usage", "1d")[0];
    assert_eq!((day.text("key_id"), day.number("calls")), ("last", 13));
    // 2 + 2 + 1, a half rounded up.
    assert_eq!((day.number("latency_sum_us"), day.number("latency_calls")), (5, 3));
    assert_eq!(views.rows("callers")[0].number("callers"), 1);
}

// ---- limits

/// Events and reasons of a log under limits.
fn limited(limits: &str, log: &str) -> (u64, Vec<String>) {
    let job = Job::new(&format!("[limits]\n{limits}\n")).file("log.jsonl", log);
    let ended = job.replay().with(NOW).run();
    let views = job.out();
    let events = views.count("events");
    assert_eq!(ended.code, Some(if events > 0 { 0 } else { 3 }), "{}", ended.stderr);
    let reasons = views.rows("dead_letters").iter().map(|letter| letter.text("reason").to_owned()).collect();
    (events, reasons)
}

#[test]
fn a_limit_is_what_is_still_allowed() {
    let padded = |bytes: usize| {
        let bare = record(r#""x":"""#).len();
        record(&format!(r#""x":"{}""#, "x".repeat(bytes - bare)))
    };
    let many = |records: usize| {
        let records: Vec<String> = (0..records).map(|n| call(n as u64, &format!("r{n}"), "k")).collect();
        format!("[{}]", records.join(","))
    };
    let (limits, reason) = ("message_bytes = \"1KiB\"", "longer than 1024 bytes (limits.message_bytes)");
    assert_eq!(limited(limits, &padded(1_023)), (1, vec![]), "one less");
    assert_eq!(limited(limits, &padded(1_024)), (1, vec![]), "as many");
    assert_eq!(limited(limits, &padded(1_025)), (0, vec![reason.to_owned()]), "one more");
    // And takes no neighbour along.
    let between = format!("{}\n{}\n{}", call(0, "a", "k"), padded(1_025), call(1, "b", "k"));
    assert_eq!(limited(limits, &between), (2, vec![reason.to_owned()]));
    let rest = "more than 3 records in one message (limits.message_records)".to_owned();
    for (records, events, reasons) in
        [(2, 2, vec![]), (3, 3, vec![]), (4, 3, vec![rest.clone()]), (9, 3, vec![rest])]
    {
        assert_eq!(limited("message_records = 3", &many(records)), (events, reasons), "{records}");
    }
}

#[test]
fn a_text_is_cut_at_its_limit_and_rows_differ_nevertheless() {
    let route = |bytes: usize| {
        let line = record(&format!(r#""route":"{}""#, "r".repeat(bytes)));
        let job = Job::new("[limits]\ntext_bytes = 16\n").log([line]);
        let views = run(&job);
        views.window("usage_by_route", "1d")[0].text("route").to_owned()
    };
    assert_eq!([15, 16, 17].map(|bytes| route(bytes).len()), [15, 16, 16]);
    // Names of keys that are the same up to the limit, whole characters only.
    let keys = ["aaaaaaaaaaaaaaa-1", "aaaaaaaaaaaaaaa-2", "aaaaaaaaaaaaaaaä", "aaaaaaaaaaaaaaaa"];
    let lines = keys.iter().map(|key| format!(r#"{{"t":{START},"k":"{key}","status":200}}"#));
    let job = Job::new("[limits]\ntext_bytes = 16\n").log(lines);
    let names: Vec<String> =
        run(&job).window("usage", "1d").iter().map(|row| row.text("key_id").to_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 16 + 33), "{names:?}");
}

#[test]
fn however_many_values_stand_where_keys_are_looked_for_the_call_counts() {
    let config = read_text(&Job::new("").path("keytide.toml")).replace("[\"key\"]", "[\"field:/f\"]");
    let run = |fields: &str| {
        run(&Job::with_config(&config).log([format!(r#"{{"t":{START},"path":"/",{fields}}}"#)]))
    };
    for count in [1, 8, 9, 100_000] {
        let views = run(&vec![r#""f":"x""#; count].join(","));
        assert_eq!((views.count("events"), views.count("dead_letters")), (1, 0), "{count}");
        assert_eq!(views.rows("usage")[0].text("key_id"), "x");
        let elements = vec![r#""x""#; count].join(",");
        let views = run(&format!(r#""f":[{elements}]"#));
        assert_eq!(views.rows("usage")[0].text("key_id"), "x", "{count}");
        // One that differs was written by somebody else: then neither is the key.
        let views = run(&format!("{},\"f\":\"y\"", vec![r#""f":"x""#; count].join(",")));
        assert_eq!(views.rows("usage")[0].text("key_id"), "conflicting", "{count}");
        let letters = views.rows("dead_letters");
        assert_eq!((views.count("events"), letters.len()), (1, 1), "{count}");
        assert!(letters[0].flag("counted"));
        assert!(letters[0].text("reason").starts_with("conflicting: key stands twice"), "{letters:?}");
    }
}

// ---- size

/// A job's peak memory, events and dead letters.
fn peak(more: &str, log: &[u8]) -> (u64, u64, Vec<Row>) {
    let job = Job::new(more).file("log.jsonl.gz", log);
    let views = run(&job);
    (views.count("peak_memory_bytes"), views.count("events"), views.rows("dead_letters"))
}

/// `pieces`, each so many times, compressed.
fn gzip(pieces: &[(&[u8], usize)]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    for (piece, times) in pieces {
        // In large writes: small ones are slow.
        let block = piece.repeat((*times).min(10_000));
        for _ in 0..times / 10_000 {
            packer.write_all(&block).unwrap();
        }
        packer.write_all(&block[..piece.len() * (times % 10_000)]).unwrap();
    }
    packer.finish().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_too_large_is_refused_in_bounded_memory() {
    const MIB: usize = 1 << 20;
    let good = call(0, "r", "k");
    let before = (good.as_bytes(), 1);
    let (base, events, _) = peak("", &gzip(&[before]));
    assert_eq!(events, 1);
    let after = format!("\n{}", call(1, "s", "k"));
    let after = (after.as_bytes(), 1);
    // Compressed they are bombs: 100 MB and more of less than 1 MB.
    for (name, bomb, allowed) in [
        ("a line of 100 MB", vec![(&b"x"[..], 100 * MIB)], 48 * MIB),
        ("a text of 100 MB", vec![(b"{\"t\":\"", 1), (b"y", 100 * MIB), (b"\"}", 1)], 48 * MIB),
        ("10^7 brackets", vec![(b"[", 10_000_000)], 48 * MIB),
        ("10^7 members", vec![(b"{", 1), (b"\"a\":1,", 10_000_000), (b"\"b\":1}", 1)], 48 * MIB),
        ("10^8 empty lines", vec![(b"\n", 100_000_000)], 48 * MIB),
    ] {
        let mut pieces = vec![before, (b"\n", 1)];
        pieces.extend(bomb.iter().copied());
        pieces.push(after);
        let packed = gzip(&pieces);
        assert!(packed.len() < MIB, "{name}");
        let (peak, events, letters) = peak("", &packed);
        assert_eq!(events, 2, "{name}");
        if name != "10^8 empty lines" {
            let length: usize = bomb.iter().map(|(piece, times)| piece.len() * times).sum();
            assert_eq!(letters.len(), 1, "{name}");
            assert_eq!(letters[0].text("reason"), "longer than 8388608 bytes (limits.message_bytes)");
            assert_eq!(letters[0].number("length"), length as u64, "{name}");
        }
        assert!(peak < base + allowed as u64, "{name}: {peak} bytes, of which {base} are the job's own");
    }
}

#[test]
fn what_is_deep_or_wide_counts_however_long_a_line_may_be() {
    let limits = "[limits]\nmessage_bytes = \"64MiB\"\n";
    let with = |members: &str| format!(r#"{{{members}"t":{START},"k":"k","status":200}}"#);
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let lines = [
        (with(&format!("\"x\":{},", deep("{\"t\":", "}"))), None),
        (with(&format!("\"x\":{},", deep("[", "]"))), None),
        (with(&"\"member\":0,".repeat(1_000_000)), None),
        (with(&format!("\"x\":[{}0],", "\"\\u0000\",".repeat(1_000_000))), None),
        // Where something is asked for.
        (with(&format!("\"path\":{},", deep("[", "]"))), None),
        (with("").replace(&START.to_string(), &deep("[", "]")), Some("time: ")),
        (with("").replace(&START.to_string(), &deep("{\"t\":", "}")), Some("time: ")),
        (format!("{{\"x\":{}", "[".repeat(100_000)), Some("not JSON: ")),
    ];
    let mut log = Vec::new();
    for (n, (hostile, _)) in lines.iter().enumerate() {
        log.push(call(n as u64, &format!("r{n}"), "k"));
        log.push(hostile.clone());
    }
    let views = run(&Job::new(limits).log(&log));
    let refused: Vec<_> = lines.iter().filter_map(|(line, reason)| Some((line, (*reason)?))).collect();
    assert_eq!(views.count("events"), (log.len() - refused.len()) as u64);
    let letters = views.rows("dead_letters").into_iter().filter(|letter| !letter.flag("counted"));
    let letters: Vec<_> = letters.collect();
    assert_eq!(letters.len(), refused.len());
    for (letter, (hostile, reason)) in letters.iter().zip(&refused) {
        assert!(letter.text("reason").starts_with(reason), "{letter:?}");
        assert_eq!(
            (letter.number("length"), letter.text("sha256")),
            (hostile.len() as u64, &*sha256(hostile.as_bytes()))
        );
    }
}

// ---- meaning

#[test]
fn the_far_future_and_the_far_past_move_no_one_else() {
    // 63 strays are fewer than a leap needs; those after the run's time are dead letters anyway.
    let mut lines: Vec<String> = (0..64).map(|n| call(n, &format!("first-{n}"), "k")).collect();
    for n in 0..63 {
        lines.push(call(100 * HOUR, &format!("stray-{n}"), "stray"));
        lines.push(format!(r#"{{"id":"far-{n}","t":7258118399999,"k":"far","status":200}}"#));
        lines.push(format!(r#"{{"id":"past-{n}","t":946684800000,"k":"past","status":200}}"#));
        lines.push(call(n, &format!("r{n}"), "k"));
    }
    lines.push(call(MINUTE, "last", "k"));
    let views = run(&Job::new("").log(&lines));
    assert_eq!(views.count("dead_letters"), 63);
    for letter in views.rows("dead_letters") {
        assert!(letter.text("reason").starts_with("time: more than 5 minutes after"), "{letter:?}");
    }
    let late: Vec<String> = views.rows("late").iter().map(|row| row.text("event_time").to_owned()).collect();
    assert_eq!(late, vec!["2000-01-01T00:00:00Z"; 63], "only what is from the past is late");
    let calls = views.window("usage", "1d").into_iter().filter(|row| row.text("key_id") == "k");
    assert_eq!(calls.map(|row| row.number("calls")).sum::<u64>(), 128);
}

#[test]
fn a_constant_request_id_of_the_caller_s_hides_no_call() {
    let headers = r#""x-request-id":"same","x-amzn-requestid":"same","kong-request-id":"same","apikey":"k""#;
    let request = format!(r#""request":{{"method":"GET","headers":{{{headers}}}}}"#);
    let apisix = |n: u64| format!(r#"{{"start_time":{},{request}}}"#, START + n);
    let apisix_plugin = |n: u64| format!(r#"{{"start_time":{},"request_id":"same",{request}}}"#, START + n);
    let kong = |n: u64| format!(r#"{{"started_at":{},{request}}}"#, START + n);
    let envoy = |n: u64| {
        format!(
            r#"{{"start_time":"2025-06-02T08:00:00.{n:03}Z","method":"GET","request_id":"same","apikey":"k"}}"#
        )
    };
    let nginx = |n: u64| format!(r#"{{"msec":"1748851200.{n:03}","request_method":"GET",{headers}}}"#);
    let ingress =
        |n: u64| format!(r#"{{"msec":"1748851200.{n:03}","status":"200","req_id":"same","apikey":"k"}}"#);
    let aws = |n: u64| {
        format!(
            r#"{{"requestTimeEpoch":"{}","requestId":"same","httpMethod":"GET","apikey":"k"}}"#,
            START + n
        )
    };
    type Line<'a> = &'a dyn Fn(u64) -> String;
    for (format, line, resent) in [
        ("apisix", &apisix as Line<'_>, 0),
        ("apisix", &apisix_plugin, 1),
        ("kong", &kong, 0),
        ("envoy", &envoy, 1),
        ("nginx", &nginx, 0),
        ("nginx", &ingress, 1),
        ("aws-apigateway", &aws, 1),
    ] {
        // The last one stands there twice: an id counts with the content, and a line without one is a call. Where content
        // tells lines of a file, equal ones are different calls.
        for (dedupe, resent) in [("", resent), ("dedupe = \"content\"\n", 0)] {
            let config = format!(
                "[keys]\nfrom = [\"field:/apikey\"]\n[[source]]\nname = \"log\"\nkind = \"file\"\npath = \"log*\"\nformat = \"{format}\"\n{dedupe}"
            );
            let lines = (0..100).chain([99]).map(line);
            let views = run(&Job::with_config(&config).log(lines));
            let found = (views.count("events"), views.count("duplicates"));
            assert_eq!(found, (101 - resent, resent), "{format} {dedupe}");
        }
    }
}

#[test]
fn sums_of_the_largest_values_stay_exact() {
    let largest = format!(r#""us":{},"status":599"#, 1_u64 << 42);
    let lines = (0..1_000).map(|n| format!(r#"{{"id":"r{n}","t":{START},"k":"k",{largest}}}"#));
    let views = run(&Job::new("").log(lines));
    let day = &views.window("usage", "1d")[0];
    assert_eq!((day.number("calls"), day.number("errors_5xx")), (1_000, 1_000));
    assert_eq!(day.number("latency_sum_us"), 1_000 << 42);
    let latency = views.window("latency", "1d");
    assert_eq!((latency[0].number("max_us"), latency[0].number("mean_us")), (1 << 42, 1 << 42));
}

#[test]
fn user_agents_leave_nothing_behind() {
    let agents = |distinct: u64| {
        let lines = (0..100_000).map(|n| {
            let agent = n % distinct;
            format!(
                r#"{{"id":"r{n}","t":{START},"k":"k","route":"/r","ip":"192.0.2.1","agent":"agent/{agent}"}}"#
            )
        });
        let job = Job::new("").log(lines);
        let views = run(&job);
        assert_eq!(views.count("events"), 100_000);
        views.bytes()
    };
    let (one, many) = (agents(1), agents(100_000));
    assert!(one == many, "no view knows of user agents");
    assert!(many.values().all(|view| !String::from_utf8_lossy(view).contains("agent/")));
}
