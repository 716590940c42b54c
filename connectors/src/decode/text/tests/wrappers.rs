//! Lines within what log shippers put around them.

use super::*;

const LINE: &str =
    r#"203.0.113.57 - acme [20/Nov/2025:12:44:15 +0000] \"GET /a HTTP/1.1\" 200 934 \"-\" \"curl\""#;

#[test]
fn lines_in_wrappers() {
    let combined = source(Format::Combined, &["user"]);
    for wrapper in [
        r#"{"log":"LINE\n","stream":"stdout","time":"2025-11-20T12:44:16.1Z"}"#,
        r#"{"@timestamp":"2025-11-20T12:44:16.1Z","message":"LINE","kubernetes":{"pod":"x"}}"#,
        r#"{"message":"2025-11-20T12:44:16.123456789Z stdout F LINE"}"#,
    ] {
        let message = wrapper.replace("LINE", LINE);
        assert_eq!(seen(&combined, &message).key, "acme", "{wrapper}");
        let many = run(&combined, format!("{message}\n{message}\n"));
        assert_eq!((many.events.len(), many.dead_letters.len()), (2, 0), "{wrapper}");
    }
    let line = LINE.replace("\\\"", "\"");
    assert_eq!(seen(&combined, format!("2025-11-20T12:44:16.123456789Z stdout F {line}")).key, "acme");
    let text = pattern(r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i""#, &["user"]);
    assert_eq!(seen(&text, format!(r#"{{"log":"{LINE}"}}"#)).key, "acme");
    for bad in ["{}", r#"{"log":""}"#, r#"{"log":7}"#, r#"{"log":{"x":1}}"#, "{\"log\":\"x"] {
        assert_eq!(run(&combined, bad).events.len(), 0, "{bad}");
        assert_eq!(run(&combined, bad).dead_letters.len(), 1, "{bad}");
    }
    // A caller's agent is no wrapper.
    let agent = line.replace("curl", r#"{\"log\":\"x\"}"#);
    assert_eq!(seen(&combined, agent).key, "acme");
    let keyed = pattern(r#"{"at":"$msec","user":"$remote_user","log":"$http_x_log"}"#, &["user"]);
    assert_eq!(seen(&keyed, r#"{"at":"1763642655.1","user":"acme","log":"x"}"#).key, "acme");
}

#[test]
fn a_header_in_a_wrapper_holds_for_its_own_text() {
    let call = |time| format!("2025-11-20 12:44:{time} GET /a 200");
    let header = "#Fields: date time cs-method cs-uri-stem sc-status";
    let wrapped = |text: &str| format!(r#"{{"log":"{text}"}}"#);
    let all = |messages: &[String], block: usize| {
        let (mut decoder, mut out) =
            (decoder(&source(Format::Cloudfront, &["user"]), &context()), Decoded::default());
        for block in messages.chunks(block) {
            decoder.continue_after(None);
            block.iter().for_each(|message| decoder.decode(message.as_bytes(), AT, &mut out));
        }
        (out.events.len(), out.dead_letters.len())
    };
    let messages = [
        wrapped(header),
        wrapped(&call("15")),
        wrapped(&format!("{header}\\n{}", call("16"))),
        format!("2025-11-20T12:44:16.123456789Z stdout F {header}"),
        wrapped(&call("17")),
    ];
    for block in 1..=messages.len() {
        assert_eq!(all(&messages, block), (1, 2), "however the lines are cut into blocks: {block}");
    }
}

#[test]
fn wrappers_around_wrappers_and_arrays_of_them() {
    let combined = source(Format::Combined, &["user"]);
    let docker = format!(r#"{{"log":"{LINE}\n","stream":"stdout"}}"#);
    let text = serde_json::to_string(&docker).unwrap();
    for (message, events) in [
        (format!(r#"{{"message":{text},"log":{{"offset":7}}}}"#), 1),
        (format!("[{docker},{docker}]"), 2),
        (format!(r#"[ "{LINE}",{docker}]"#), 2),
        (format!(r#"{{"records":[{docker},{docker},"{LINE}"]}}"#), 3),
        (format!(r#"{{"log":{}}}"#, serde_json::to_string(&format!("[{docker}]")).unwrap()), 1),
    ] {
        let out = run(&combined, &message);
        assert_eq!((out.events.len(), out.dead_letters.len()), (events, 0), "{message}");
    }
    let mut nested = docker;
    for _ in 0..6 {
        nested = format!(r#"{{"log":{}}}"#, serde_json::to_string(&nested).unwrap());
    }
    let deep = run(&combined, nested);
    assert_eq!((deep.events.len(), deep.dead_letters.len()), (0, 1), "four are taken off");
    // A line is no array, although it begins like one.
    let bracketed = pattern(r#"["$time_local"] $remote_user "$request" $status"#, &["user"]);
    assert_eq!(seen(&bracketed, r#"["20/Nov/2025:12:44:15 +0000"] acme "GET /a HTTP/1.1" 200"#).key, "acme");
}
