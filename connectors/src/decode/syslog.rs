//! JSON behind the head that syslog puts before a message. HAProxy and NGINX send their logs so, and a relay may keep
//! it. An export of CloudWatch Logs puts a time there alone.
//!
//! ```text
//! <134>Nov 20 12:44:15 gw-1 haproxy[7]: {..}                RFC 3164; rsyslog's files lack the number
//! 2025-11-20T12:44:15.123+00:00 gw-1 nginx: @cee: {..}       rsyslog's files
//! <134>1 2025-11-20T12:44:15.123Z gw-1 haproxy 7 - - {..}    RFC 5424
//! 2025-11-20T12:44:15.123Z {..}                              files of an export of CloudWatch Logs
//! ```
//! Such a head ends before the first bracket of JSON, so callers can't write any of it.
//!
//! Limit: a head of 512 bytes.

use crate::time::rfc3339;

const HEAD_BYTES: usize = 512;

/// The JSON behind a head of syslog's, or `None` if there is no such head.
pub(crate) fn json_behind_syslog(line: &str) -> Option<&str> {
    if !matches!(line.as_bytes().first()?, b'<' | b'0'..=b'9' | b'A'..=b'Z') {
        return None;
    }
    let window = &line.as_bytes()[..line.len().min(HEAD_BYTES)];
    let at = memchr::memchr(b'{', window)?;
    let (head, json) = (&line[..at], &line[at..]);
    let number = head.strip_prefix('<').and_then(|head| head.split_once('>'));
    let is_head = match number {
        Some((number, _)) if number.parse::<u8>().is_err() => false,
        Some((_, head)) => head.strip_prefix("1 ").map_or_else(|| is_rfc3164(head), is_rfc5424),
        None => is_rfc3164(head),
    };
    is_head.then_some(json)
}

/// Returns whether a head is like `Nov 20 12:44:15 gw-1 haproxy[7]: `. The host may be missing, and the time may be RFC
/// 3339. A time of RFC 3339 may stand alone.
fn is_rfc3164(head: &str) -> bool {
    let bytes = head.as_bytes();
    let words = if bytes.first().is_some_and(u8::is_ascii_digit) {
        let Some((time, words)) = head.split_once(' ') else { return false };
        if rfc3339(time.as_bytes()).is_none() {
            return false;
        }
        if words.is_empty() {
            return true;
        }
        words
    } else {
        let is_time = bytes.len() > 16
            && bytes[..3].iter().all(u8::is_ascii_alphabetic)
            && [3, 6, 15].iter().all(|at| bytes[*at] == b' ')
            && [9, 12].iter().all(|at| bytes[*at] == b':');
        match head.get(16..) {
            Some(words) if is_time => words,
            _ => return false,
        }
    };
    let words = words.trim_end().strip_suffix("@cee:").unwrap_or(words).trim_end();
    words.ends_with(':') && words.split_ascii_whitespace().count() <= 2 && !words.contains('"')
}

/// Returns whether a head is like `2025-11-20T12:44:15.123Z gw-1 haproxy 7 - - `, behind the version.
fn is_rfc5424(head: &str) -> bool {
    let mut words = head.splitn(6, ' ');
    let is_time = words.next().is_some_and(|time| time == "-" || rfc3339(time.as_bytes()).is_some());
    let data = words.nth(4).map(|data| data.trim_end_matches('\u{feff}').trim_end());
    is_time && data.is_some_and(|data| data == "-" || data.starts_with('[') && data.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_syslog() {
        for head in [
            "<134>Nov 20 12:44:15 gw-1 haproxy[7]: ",
            "<190>Nov  2 12:44:15 nginx: ",
            "Nov 20 12:44:15 gw-1 kong:",
            "2025-11-20T12:44:15.123456+00:00 gw-1 haproxy[7]: @cee: ",
            "2025-11-20T12:44:15.123Z ",
            "<134>1 2025-11-20T12:44:15Z gw-1 haproxy 7 - - ",
            "<134>1 - - haproxy - - [meta sequenceId=\"1\"] \u{feff}",
        ] {
            assert_eq!(json_behind_syslog(&format!("{head}{{\"a\":1}}\n")), Some("{\"a\":1}\n"), "{head}");
        }
    }

    #[test]
    fn what_is_no_head() {
        for head in [
            "",
            "{",
            "<",
            "<134>",
            "<1340>Nov 20 12:44:15 gw-1 haproxy: ",
            "2025/11/20 12:44:15 [error] 7#7: ",
            "Nov 20 12:44:15 gw-1 nginx: 2025/11/20 12:44:15 [error] 7#7: \"GET /",
            "Nov 20 12:44:15 gw-1 nginx",
            "Nov 20 12:44:15é gw-1 nginx: ",
            "2025-11-20T12:44:15Z stdout P ",
            "2025-11-20T12:44:15Z",
            "2025-11-20T12:44:15Z  ",
            "2025-11-20 ",
            "<134>1 2025-11-20T12:44:15Z gw-1 haproxy 7 - ",
            "GET /",
        ] {
            assert_eq!(json_behind_syslog(&format!("{head}{{\"a\":1}}")), None, "{head}");
        }
        assert_eq!(json_behind_syslog(&format!("Nov 20 12:44:15 {}: {{}}", "x".repeat(600))), None);
    }
}
