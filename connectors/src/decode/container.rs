//! Lines of a container's log, and what else agents put before JSON.

use super::syslog::json_behind_syslog;

/// Returns the text that a container wrote, from a line of its log as Kubernetes keeps it (CRI). Time, stream and tag
/// are cut off. Returns `None` if `line` is no such line, or only a part of one.
pub(super) fn container_line(line: &[u8]) -> Option<&[u8]> {
    if !line.first()?.is_ascii_digit() {
        return None;
    }
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_time = time.get(10) == Some(&b'T') && crate::time::rfc3339(time).is_some();
    (is_time
        && matches!(stream, b"stdout" | b"stderr")
        && tag.split(|byte| *byte == b':').next() == Some(b"F"))
    .then_some(text)
}

/// Cuts off what a container's log, or syslog, puts before JSON.
pub(super) fn behind_agents(text: &str) -> &str {
    match container_line(text.as_bytes()) {
        Some(line) => &text[text.len() - line.len()..],
        None => json_behind_syslog(text).unwrap_or(text),
    }
}
