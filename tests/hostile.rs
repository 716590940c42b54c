//! Hostile and broken data, end to end: what becomes of each record, at each limit and beside it, in the files that a
//! replay writes. What one decoder makes of one message is tested beside the decoders; arbitrary bytes in
//! `tests/fuzz/`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{HOUR, Job, MINUTE, Row, START, Views, call, read_text};

const NOW: &str = "--now 2025-06-10T00:00:00Z";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record of the job with these members besides.
fn record(members: &str) -> String {
    format!(r#"{{"id":"x","t":{START},"k":"k",{members}}}"#)
}

fn run(job: &Job) -> Views {
    job.replay().with(NOW).succeed();
    job.out()
}

// ---- what a record may be

/// Records that can't be read, each with how the reason begins and which of its numbers are kept.
fn broken() -> Vec<(Vec<u8>, &'static str, Value)> {
    let nothing = Value::Null;
    let time = || json!({ "time_ms": START });
    let mut broken: Vec<(Vec<u8>, &str, Value)> = [
        // Bytes.
        (&b"{\"t\":1748851200000,\"k\":\"\xff\"}"[..], "not UTF-8"),
        (b"{\"t\":1748851200000,\"k\":\"\xed\xa0\x80\"}", "not UTF-8"),
        (b"\xff\xfe{\0\"\0t\0\"\0:\x001\0}\0", "not JSON"),
        (b"\0", "not JSON"),
        (b"{\"t\":1748851200000,\"k\":\"\0\"}", "not JSON"),
        (b"\xef\xbb\xbf", "empty message"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not JSON"),
        // Text that ends too early, or isn't JSON.
        (b"{", "not JSON"),
        (b"{\"t\":17488512", "not JSON"),
        (b"{\"t\":1748851200000,\"k\":\"cut", "not JSON"),
        (b"[{\"t\":1748851200000", "not JSON"),
        (b"{\"t\":1748851200000,\"us\":NaN}", "not JSON"),
        (b"{\"t\":1748851200000,\"us\":Infinity}", "not JSON"),
        (b"{\"t\":1748851200000,\"us\":+1}", "not JSON"),
        (b"{\"t\":1748851200000,\"us\":01}", "not JSON"),
        (b"{'t':1748851200000}", "not JSON"),
        (b"a line of text", "not JSON"),
        (b"   \t ", "empty message"),
        // JSON, but no record.
        (b"null", "a record must be"),
        (b"7", "a record must be"),
        (b"\"text\"", "a record must be"),
        (b"true", "a record must be"),
        (b"{}", "time: missing"),
        (b"{\"t\":null}", "time: missing"),
        // Times.
        (b"{\"t\":0}", "time: "),
        (b"{\"t\":-1}", "time: "),
        (b"{\"t\":946684799999}", "time: "),
        (b"{\"t\":7258118400000}", "time: "),
        (b"{\"t\":18446744073709551616}", "time: "),
        (b"{\"t\":-9223372036854775808}", "time: "),
        (b"{\"t\":1e400}", "time: "),
        (b"{\"t\":\"NaN\"}", "time: "),
        (b"{\"t\":\"yesterday\"}", "time: "),
        (b"{\"t\":true}", "time: "),
        (b"{\"t\":{\"ms\":1748851200000}}", "time: "),
    ]
    .into_iter()
    .map(|(bytes, reason)| (bytes.to_vec(), reason, nothing.clone()))
    .collect();
    // Numbers and types of the other fields: the time is known, and kept.
    for (members, reason) in [
        (r#""us":-2"#, "latency: "),
        (r#""us":-9223372036854775808"#, "latency: "),
        (r#""us":9223372036854775807"#, "latency: "),
        (r#""us":4398046511105"#, "latency: "),
        (r#""us":1e400"#, "latency: "),
        (r#""us":"NaN""#, "latency: "),
        (r#""us":"-Infinity""#, "latency: "),
        (r#""us":true"#, "latency: "),
        (r#""us":{}"#, "latency: "),
        (r#""status":-200"#, "status: "),
        (r#""status":99"#, "status: "),
        (r#""status":600"#, "status: "),
        (r#""status":65736"#, "status: "),
        (r#""status":200.5"#, "status: "),
        (r#""status":18446744073709551816"#, "status: "),
        (r#""status":"OK""#, "status: "),
        (r#""status":false"#, "status: "),
        (r#""k":{}"#, "key: "),
        (r#""k":true,"k":{}"#, "key: "),
        (r#""route":true"#, "route: "),
        (r#""path":{}"#, "path: "),
        (r#""id":true"#, "request_id: "),
    ] {
        broken.push((record(members).into_bytes(), reason, time()));
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

#[test]
fn odd_but_readable_records_are_events() {
    let lines = [
        // A byte order mark, and members that stand twice: the last that says something counts.
        format!(
            "\u{feff}{{\"id\":\"a\",\"t\":{START},\"k\":\"first\",\"k\":\"last\",\"us\":1,\"us\":2,\"us\":null}}"
        ),
        // Numbers as texts and with exponents, unknown ones as `-1`, `-`, an empty text or null.
        format!(r#"{{"id":"b","t":"{START}","k":"last","us":"2e0","status":2e2}}"#),
        r#"{"id":"c","t":1.7488512e12,"k":"last","us":-1,"status":"-"}"#.to_owned(),
        format!(r#"{{"id":"d","t":{START}.999,"k":"last","us":"","status":null}}"#),
        // Escapes, a lone surrogate, an unknown member with whatever in it.
        format!(r#"{{"\u0069d":"e","t":{START},"k":"\u006cast","x":["\ud83d",{{"t":0}}],"us":0.5}}"#),
        // Addresses that are none.
        record(r#""ip":"999.1.2.3""#).replace("\"k\":\"k\"", "\"k\":\"last\""),
        format!(r#"{{"id":"f","t":{START},"k":"last","ip":["192.0.2.1","192.0.2.2"]}}"#),
        format!(r#"{{"id":"g","t":{START},"k":"last","ip":{{}}}}"#),
    ];
    let job = Job::new("").log(&lines);
    let views = run(&job);
    assert_eq!(
        (views.count("events"), views.count("dead_letters")),
        (8, 0),
        "{}",
        views.text("dead_letters")
    );
    let day = &views.window("usage", "1d")[0];
    assert_eq!((day.text("key_id"), day.number("calls")), ("last", 8));
    // 2 + 2 + 1, a half rounded up.
    assert_eq!((day.number("latency_sum_us"), day.number("latency_calls")), (5, 3));
    assert_eq!(views.rows("callers")[0].number("callers"), 1);
}

// ---- limits

/// Events and reasons of a log under limits.
fn limited(limits: &str, log: &str) -> (u64, Vec<String>) {
    let views = run(&Job::new(&format!("[limits]\n{limits}\n")).file("log.jsonl", log));
    let reasons = views.rows("dead_letters").iter().map(|letter| letter.text("reason").to_owned()).collect();
    (views.count("events"), reasons)
}

#[test]
fn a_limit_is_what_is_still_allowed() {
    let padded = |bytes: usize| {
        let bare = record(r#""x":"""#).len();
        record(&format!(r#""x":"{}""#, "x".repeat(bytes - bare)))
    };
    // With the record's own object; in it `id`, `t` and `k` are three members.
    let deep =
        |levels: usize| record(&format!(r#""x":{}{}"#, "[".repeat(levels - 1), "]".repeat(levels - 1)));
    let wide = |members: usize| record(&vec![r#""x":1"#; members - 3].join(","));
    let many = |records: usize| {
        let records: Vec<String> = (0..records).map(|n| call(n as u64, &format!("r{n}"), "k")).collect();
        format!("[{}]", records.join(","))
    };
    type Make<'a> = &'a dyn Fn(usize) -> String;
    for (limits, limit, make, reason) in [
        (
            "message_bytes = \"1KiB\"",
            1_024,
            &padded as Make<'_>,
            "longer than 1024 bytes (limits.message_bytes)",
        ),
        ("json_depth = 5", 5, &deep, "nested more than 5 levels deep (limits.json_depth)"),
        ("json_depth = 128", 128, &deep, "nested more than 128 levels deep (limits.json_depth)"),
        ("json_fields = 10", 10, &wide, "more than 10 members (limits.json_fields)"),
    ] {
        assert_eq!(limited(limits, &make(limit - 1)), (1, vec![]), "{limits}: one less");
        assert_eq!(limited(limits, &make(limit)), (1, vec![]), "{limits}: as many");
        assert_eq!(limited(limits, &make(limit + 1)), (0, vec![reason.to_owned()]), "{limits}: one more");
        // And takes no neighbour along.
        let between = format!("{}\n{}\n{}", call(0, "a", "k"), make(limit + 1), call(1, "b", "k"));
        assert_eq!(limited(limits, &between), (2, vec![reason.to_owned()]));
    }
    let rest = "more than 3 records in one message (limits.message_records)".to_owned();
    for (records, events, reasons) in
        [(2, 2, vec![]), (3, 3, vec![]), (4, 3, vec![rest.clone()]), (9, 3, vec![rest])]
    {
        assert_eq!(limited("message_records = 3", &many(records)), (events, reasons), "{records}");
    }
}

#[test]
fn a_text_is_cut_at_its_limit_and_rows_are_told_apart_nevertheless() {
    let route = |bytes: usize| {
        let line = record(&format!(r#""route":"{}""#, "r".repeat(bytes)));
        let job = Job::new("[limits]\ntext_bytes = 16\n").log([line]);
        let views = run(&job);
        views.window("usage_by_route", "1d")[0].text("route").to_owned()
    };
    assert_eq!([15, 16, 17].map(|bytes| route(bytes).len()), [15, 16, 16]);
    // Names of keys that are the same up to the limit, whole characters only.
    let keys = ["aaaaaaaaaaaaaaa-1", "aaaaaaaaaaaaaaa-2", "aaaaaaaaaaaaaaaä", "aaaaaaaaaaaaaaaa"];
    let lines = keys.iter().map(|key| format!(r#"{{"t":{START},"k":"{key}"}}"#));
    let job = Job::new("[limits]\ntext_bytes = 16\n").log(lines);
    let names: Vec<String> =
        run(&job).window("usage", "1d").iter().map(|row| row.text("key_id").to_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|name| name.len() <= 16 + 33), "{names:?}");
}

#[test]
fn more_than_eight_values_where_keys_are_looked_for_are_a_dead_letter() {
    for (count, events) in [(7, 1), (8, 1), (9, 0), (100_000, 0)] {
        let config = read_text(&Job::new("").path("keytide.toml")).replace("[\"key\"]", "[\"field:/f\"]");
        let config = format!("{config}\n[limits]\njson_fields = 1000000\n");
        let fields = vec![r#""f":"x""#; count].join(",");
        let job = Job::with_config(&config).log([format!(r#"{{"t":{START},{fields}}}"#)]);
        let views = run(&job);
        assert_eq!((views.count("events"), views.count("dead_letters")), (events, 1 - events), "{count}");
        if events == 0 {
            assert!(views.rows("dead_letters")[0].text("reason").starts_with("key: more than 8"));
        }
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
            assert_eq!(letters[0].text("reason"), "longer than 1048576 bytes (limits.message_bytes)");
            assert_eq!(letters[0].number("length"), length as u64, "{name}");
        }
        assert!(peak < base + allowed as u64, "{name}: {peak} bytes, of which {base} are the job's own");
    }
}

#[test]
fn what_is_deep_or_wide_is_refused_however_long_a_line_may_be() {
    let limits = "[limits]\nmessage_bytes = \"64MiB\"\n";
    let deep_objects = "{\"t\":".repeat(100_000) + &"}".repeat(100_000);
    let deep_arrays = format!("{{\"t\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let open = format!("{{\"x\":{}", "[".repeat(100_000));
    let wide = format!("{{{}\"t\":{START}}}", "\"member\":0,".repeat(1_000_000));
    let texts = format!("{{\"x\":[{}0]}}", "\"\\u0000\",".repeat(1_000_000));
    let reasons = [
        (deep_objects, "nested more than 64 levels deep (limits.json_depth)"),
        (deep_arrays, "nested more than 64 levels deep (limits.json_depth)"),
        (open, "nested more than 64 levels deep (limits.json_depth)"),
        (wide, "more than 4096 members (limits.json_fields)"),
        (texts, "time: missing"),
    ];
    let mut lines = Vec::new();
    for (n, (hostile, _)) in reasons.iter().enumerate() {
        lines.push(call(n as u64, &format!("r{n}"), "k"));
        lines.push(hostile.clone());
    }
    let views = run(&Job::new(limits).log(&lines));
    assert_eq!(views.count("events"), reasons.len() as u64);
    let letters = views.rows("dead_letters");
    assert_eq!(letters.len(), reasons.len());
    for (letter, (hostile, reason)) in letters.iter().zip(&reasons) {
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
        lines.push(format!(r#"{{"id":"far-{n}","t":7258118399999,"k":"far"}}"#));
        lines.push(format!(r#"{{"id":"past-{n}","t":946684800000,"k":"past"}}"#));
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
    let apisix = |n: u64| format!(r#"{{"start_time":{},"request":{{"headers":{{{headers}}}}}}}"#, START + n);
    let kong = |n: u64| format!(r#"{{"started_at":{},"request":{{"headers":{{{headers}}}}}}}"#, START + n);
    let envoy = |n: u64| {
        format!(r#"{{"start_time":"2025-06-02T08:00:00.{n:03}Z","request_id":"same","apikey":"k"}}"#)
    };
    let nginx = |n: u64| format!(r#"{{"msec":"1748851200.{n:03}",{headers}}}"#);
    let aws = |n: u64| format!(r#"{{"requestTimeEpoch":"{}","requestId":"same","apikey":"k"}}"#, START + n);
    type Line<'a> = &'a dyn Fn(u64) -> String;
    for (format, line, resent) in [
        ("apisix", &apisix as Line<'_>, 0),
        ("kong", &kong, 0),
        ("envoy", &envoy, 1),
        ("nginx", &nginx, 0),
        ("aws-apigateway", &aws, 1),
    ] {
        let config = format!(
            "[keys]\nfrom = [\"field:/apikey\"]\n[[source]]\nname = \"log\"\nkind = \"file\"\npath = \"log*\"\nformat = \"{format}\"\n"
        );
        // The last one is sent again by the gateway: without a request id that can't be told from a call.
        let lines = (0..100).chain([99]).map(line);
        let views = run(&Job::with_config(&config).log(lines));
        assert_eq!((views.count("events"), views.count("duplicates")), (101 - resent, resent), "{format}");
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
        let config = read_text(&Job::new("").path("keytide.toml"));
        let lines = (0..100_000).map(|n| {
            let agent = n % distinct;
            format!(
                r#"{{"id":"r{n}","t":{START},"k":"k","route":"/r","ip":"192.0.2.1","agent":"agent/{agent}"}}"#
            )
        });
        let job = Job::with_config(&format!("{config}user_agent = \"/agent\"\n")).log(lines);
        let views = run(&job);
        assert_eq!(views.count("events"), 100_000);
        views.bytes()
    };
    let (one, many) = (agents(1), agents(100_000));
    assert!(one == many, "no view knows of user agents");
    assert!(many.values().all(|view| !String::from_utf8_lossy(view).contains("agent/")));
}
