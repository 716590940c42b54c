//! `[source.only]`: which records are of calls.

use keytide_config::Condition;

use super::*;

fn condition(at: &[&str], is: &[&str]) -> Condition {
    let is = is.iter().map(|pattern| glob::Pattern::new(pattern).unwrap()).collect();
    Condition { at: Pointer(at.iter().map(|name| (*name).to_owned()).collect()), is }
}

fn only(format: Format, conditions: Vec<Condition>) -> Source {
    let source = if format == Format::Json { json() } else { source(format) };
    Source { only: conditions, ..source }
}

/// Events, dead letters, and records passed over.
fn counts(source: &Source, message: &str) -> (usize, usize, u64) {
    let out = run(source, message);
    (out.events.len(), out.dead_letters.len(), out.tally.passed_over)
}

const WANTED: (usize, usize, u64) = (1, 0, 0);
const PASSED: (usize, usize, u64) = (0, 0, 1);

#[test]
fn a_value_of_any_type_is_compared_as_text() {
    for (is, value, expected) in [
        ("access", r#""access""#, WANTED),
        ("access", r#""acc\u0065ss""#, WANTED),
        ("access", r#""Access""#, PASSED),
        ("acc*", r#""access""#, WANTED),
        ("*", r#""a/b c""#, WANTED),
        ("acc*", r#""/access""#, PASSED),
        ("a?c[0-9]", r#""abc7""#, WANTED),
        ("200", "200", WANTED),
        ("200", r#""200""#, WANTED),
        ("200", "200.0", PASSED),
        ("true", "true", WANTED),
        ("true", "false", PASSED),
        ("access", r#"["", "access", "other"]"#, WANTED),
        ("other", r#"["access", "other"]"#, PASSED),
        // Nothing is said there, which is no text at all.
        ("*", "null", PASSED),
        ("*", r#""""#, PASSED),
        ("*", r#""-""#, PASSED),
        ("*", "{}", PASSED),
        ("*", "[]", PASSED),
    ] {
        let source = only(Format::Json, vec![condition(&["kind"], &["other kind", is])]);
        assert_eq!(counts(&source, &with(&format!(r#""kind":{value}"#))), expected, "{is}: {value}");
    }
}

#[test]
fn all_conditions_must_be_met_wherever_they_look() {
    let source = only(
        Format::Json,
        vec![condition(&["a", "1", "b/c"], &["x", "y"]), condition(&["response", "status"], &["[45]*"])],
    );
    let message = |b: &str, status: u16| {
        with(&format!(r#""a":[{{}},{{"b/c":"{b}"}}],"response":{{"status":{status}}}"#))
    };
    for (b, status, expected) in
        [("x", 404, WANTED), ("y", 500, WANTED), ("x", 200, PASSED), ("z", 404, PASSED), ("z", 200, PASSED)]
    {
        assert_eq!(counts(&source, &message(b, status)), expected, "{b} {status}");
    }
    // A field that is asked for is read all the same.
    assert_eq!(run(&source, message("x", 404)).events[0].status, 404);
    assert_eq!(counts(&source, &with(r#""a":7"#)), PASSED);
    // A caller can't hide a call by writing the member again.
    let twice = with(r#""a":[{},{"b/c":"x","b/c":"z"}],"response":{"status":404}"#);
    assert_eq!(counts(&source, &twice), WANTED);
}

#[test]
fn what_is_passed_over_is_judged_no_further() {
    let source = only(Format::Json, vec![condition(&["kind"], &["access"])]);
    let records = [
        with(r#""kind":"access","in":1"#),
        r#"{"kind":"log","level":"info"}"#.to_owned(),
        r#"{"kind":"access","level":"info"}"#.to_owned(),
        r#"{"kind":"log","time":"soon","method":"GET"}"#.to_owned(),
        r#"{"kind":"access","time":"soon","method":"GET"}"#.to_owned(),
        with(r#""kind":"access","in":2"#),
    ];
    let expected = [Some(1), None, None, Some(2)];
    for message in [records.join("\n"), format!("[{}]", records.join(",")), records.concat()] {
        let out = run(&source, &message);
        assert_eq!((outcomes(&out), out.tally.passed_over), (expected.to_vec(), 2));
        let classes: Vec<_> = out.dead_letters.iter().map(|letter| CLASSES[letter.class()]).collect();
        assert_eq!(classes, ["not_a_call", "field"]);
    }
    // What isn't JSON can't say what it is.
    assert_eq!(counts(&source, "garbage"), (0, 1, 0));
    assert_eq!(counts(&source, "7"), (0, 1, 0));
}

#[test]
fn every_format_has_its_conditions() {
    let cloudevent = |kind: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"{kind}","time":"2025-11-20T12:44:15Z","data":{{"method":"GET"}}}}"#
        )
    };
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let kong = |kind: &str| {
        format!(r#"{{"started_at":1763642655123,"type":"{kind}","request":{{"method":"GET"}}}}"#)
    };
    let otel = |kind: &str| format!(r#"{{"time":1763642655123456789,"type":"{kind}","http.method":"GET"}}"#);
    let log_event = |kind: &str| {
        format!(
            r#"{{"messageType":"DATA_MESSAGE","logEvents":[{{"id":"e","timestamp":1763642655123,"message":{}}}]}}"#,
            quoted(&kong(kind))
        )
    };
    let envelope =
        |kind: &str| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, otel(kind));
    type Message<'a> = &'a dyn Fn(&str) -> String;
    for (format, message) in [
        (Format::Cloudevents, &cloudevent as Message<'_>),
        (Format::Kong, &kong),
        (Format::Otel, &otel),
        (Format::Otel, &envelope),
        (Format::Cloudwatch, &log_event),
    ] {
        let mut source = only(format, vec![condition(&["type"], &["call*"])]);
        source.inner = source.inner.map(|_| Format::Kong);
        assert_eq!(counts(&source, &message("call.made")), WANTED, "{format:?}");
        assert_eq!(counts(&source, &message("started")), PASSED, "{format:?}");
    }
}
