//! Reads lines of a template that escapes nothing, by the order of the names in them.
//!
//! Amazon API Gateway and NGINX (`escape=none`) put a caller's user agent between the template's quotes as it is. So a
//! line with a quote in it isn't JSON, and a caller could go unmetered with one character. The template's own quotes
//! differ from a caller's by what stands around them. A value's end is followed by a comma and the next name,
//! `,"name":`, or by the end of the line.
//!
//! ```text
//! {"userAgent":"My "special" agent \ x","apiKeyId":"k1"}
//!  └── name ──┘ └────── value ───────┘ └── name ──┘
//! ```
//! A caller that knows the template can write names of its own into its value. Then these names stand twice in the
//! line. [`super::shape`] finds that the record's identity does, and the call counts under `conflicting`.
//!
//! In such a line a backslash is no escape. Time is linear in the line's length.

use std::fmt::Write as _;

use super::reader::JsonReader;

/// The reason of a template's line that can't be read.
pub(super) const UNESCAPED: &str = "unescaped: a value holds a quote that the log's template doesn't escape, and the names in the line don't tell \
     where it ends";

/// The most bytes of a member's name.
const NAME_BYTES: usize = 64;

/// The nesting of the JSON that is made of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MendedForm {
    Nested,
    /// All members stand in one object, so that a caller's brackets hide nothing.
    Flat,
}

/// Writes the line as well-formed JSON, if it looks like a record of a template.
///
/// # Errors
/// Returns the reason if it looks like one and can't be read.
pub(super) fn mend(line: &str, form: MendedForm) -> Result<Option<String>, &'static str> {
    let bytes = line.as_bytes();
    if !(bytes.first() == Some(&b'{') && bytes.last() == Some(&b'}')) || bytes.len() < 2 {
        return Ok(None);
    }
    let mut names = MemberNames { line, at: 0 };
    let Some(mut name) = names.next().filter(|name| line[1..name.start].trim_ascii().is_empty()) else {
        return Ok(None);
    };
    let mut json = String::from("{");
    loop {
        let next = names.next();
        let end = next.as_ref().map_or(line.len(), |next| next.start);
        write_member(line, &name, end, next.is_none(), form, &mut json).ok_or(UNESCAPED)?;
        match next {
            Some(next) => name = next,
            None => return Ok(Some(json)),
        }
    }
}

/// The offsets of a name's quotes, and of the value behind the colon.
struct MemberSpan {
    start: usize,
    name_end: usize,
    value: usize,
}

/// Iterates over the names of a line. A name is `"name":` behind a bracket or a comma.
struct MemberNames<'a> {
    line: &'a str,
    at: usize,
}

impl Iterator for MemberNames<'_> {
    type Item = MemberSpan;

    fn next(&mut self) -> Option<MemberSpan> {
        let bytes = self.line.as_bytes();
        loop {
            let start = self.at + memchr::memchr(b'"', &bytes[self.at..])?;
            self.at = start + 1;
            if !matches!(bytes[..start].trim_ascii_end().last(), Some(b'{' | b',')) {
                continue;
            }
            let window = &bytes[start + 1..bytes.len().min(start + 1 + NAME_BYTES)];
            let length = window.iter().take_while(|byte| is_of_name(**byte)).count();
            if length == 0 || window.get(length) != Some(&b'"') {
                continue;
            }
            let name_end = start + 1 + length;
            let behind = &bytes[name_end + 1..];
            let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if behind.get(blanks) == Some(&b':') {
                self.at = name_end + 1 + blanks + 1;
                return Some(MemberSpan { start, name_end, value: self.at });
            }
        }
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$' | b'@' | b':' | b'/')
}

/// Writes a member whose value ends before `end`, and the commas and brackets of the template that follow it.
fn write_member(
    line: &str,
    member: &MemberSpan,
    end: usize,
    is_last: bool,
    form: MendedForm,
    json: &mut String,
) -> Option<()> {
    let value = line[member.value..end].trim_ascii();
    if form == MendedForm::Flat {
        write_flat(&line[member.start..=member.name_end], value, is_last, json);
        return Some(());
    }
    json.push_str(&line[member.start..=member.name_end]);
    json.push(':');
    if value == "{" {
        json.push('{');
        return Some(());
    }
    let (value, structure) = match value.strip_prefix('"') {
        Some(inner) => {
            // The value ends with the last quote, behind which there are only commas and brackets.
            let close = inner.rfind('"')?;
            write_text(&inner[..close], json);
            ("", &inner[close + 1..])
        }
        None => {
            let close = value.find([',', '}']).unwrap_or(value.len());
            value.split_at(close)
        }
    };
    let value = value.trim_ascii();
    if !value.is_empty() {
        match value.as_bytes()[0] {
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => json.push_str(value),
            _ => write_text(value, json),
        }
    }
    // Brackets that a caller closes and opens don't divide the line, which is one record.
    let structure: String = structure.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match (structure.as_str(), is_last) {
        ("", _) => return None,
        (closers, true) if closers.bytes().all(|byte| byte == b'}') => json.push_str(closers),
        ("}{" | "},{", false) => json.push(','),
        (structure, false) => {
            let closers = structure.strip_suffix(',')?;
            if !closers.bytes().all(|byte| byte == b'}') {
                return None;
            }
            json.push_str(closers);
            json.push(',');
        }
        _ => return None,
    }
    Some(())
}

/// Writes a member of an object that holds all members. A value is a text up to its last quote, or a number or a word
/// up to the comma or bracket behind it. Brackets alone are a caller's and are left out. Anything else that isn't JSON
/// becomes null.
fn write_flat(name: &str, value: &str, is_last: bool, json: &mut String) {
    if value.starts_with(['{', '[']) && !is_last {
        return;
    }
    json.push_str(name);
    json.push(':');
    match value.strip_prefix('"') {
        Some(inner) => write_text(&inner[..inner.rfind('"').unwrap_or(inner.len())], json),
        None => {
            let scalar = value.split([',', '{', '}', '[', ']', '"']).next().unwrap_or_default().trim_ascii();
            let mut reader = JsonReader::new(scalar);
            let is_json = reader.value().is_ok() && reader.token().is_none();
            json.push_str(if is_json { scalar } else { "null" });
        }
    }
    json.push(if is_last { '}' } else { ',' });
}

/// Writes a text in which a backslash is no escape.
fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(line: &str) -> serde_json::Value {
        serde_json::from_str(&mend(line, MendedForm::Nested).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn quotes_and_backslashes_in_values() {
        let line = r#"{"a":"x","agent":"My "special" agent \ x","n":7,"m":-,"key":"k1"}"#;
        let json = mend(&line.replace(",\"m\":-", ""), MendedForm::Nested).unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["agent"], r#"My "special" agent \ x"#);
        assert_eq!((&value["key"], &value["n"]), (&"k1".into(), &7.into()));
        let nested = mended(r#"{"id": "1", "identity": {"agent": "a"b", "ip": "i"}, "path": "/"c"}"#);
        assert_eq!(nested["identity"]["agent"], "a\"b");
        assert_eq!((&nested["identity"]["ip"], &nested["path"]), (&"i".into(), &"/\"c".into()));
        assert_eq!(mended(r#"{"agent":""}"#)["agent"], "");
        assert_eq!(mended(r#"{"agent":"\","key":"k"}"#)["agent"], "\\");
    }

    #[test]
    fn what_a_caller_writes_stays_in_the_record() {
        for agent in [
            r#"x","key":"victim","z":"1"#,
            r#"x"}{"key":"victim","z":""y"#,
            r#"x"},{"key":"victim","z":""y"#,
            r#"x","key":"victim"#,
        ] {
            let json =
                mend(&format!(r#"{{"agent":"{agent}","key":"k1"}}"#), MendedForm::Nested).unwrap().unwrap();
            assert_eq!(json.matches("\"key\":").count(), 2, "{json}");
        }
    }

    #[test]
    fn a_flat_line_hides_nothing() {
        let line = r#"{"id":"x","z":{"a":"","time":"7","y":["","key":"k1","agent":"x"],"b":"x"},"c":""}"#;
        let json = mend(line, MendedForm::Flat).unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["time"], &value["key"], &value["c"]),
            (&"7".into(), &"k1".into(), &"".into()),
            "{json}"
        );
    }

    #[test]
    fn what_is_no_template() {
        for line in ["", "{", "}", "{}", "{x}", "garbage", r#"{"a":"cut"#, "[1,2]"] {
            assert_eq!(mend(line, MendedForm::Nested), Ok(None), "{line}");
        }
        for line in [r#"{"a":"x"y}"#, r#"{"a":[1,2],"b":1}"#, r#"{"a":{"b":"c"d},"e":1}"#] {
            assert!(
                mend(line, MendedForm::Nested).is_err()
                    || serde_json::from_str::<serde_json::Value>(
                        &mend(line, MendedForm::Nested).unwrap().unwrap()
                    )
                    .is_err(),
                "{line}"
            );
        }
    }

    proptest! {
        /// Whatever stands in a value, the members behind it are found.
        #[test]
        fn any_value_between_two_names(agent in r#"[ -~éß\t]{0,30}"#, path in r#"[a-z"\\{},:]{0,20}"#) {
            let line = format!(r#"{{"id":"7","path":"/{path}","agent":"{agent}","key":"k1"}}"#);
            // A name of the caller's own may end a value early.
            let mended = mend(&line, MendedForm::Nested);
            if !agent.contains("\":") && !path.contains("\":") {
                let value: serde_json::Value = serde_json::from_str(&mended.unwrap().unwrap()).unwrap();
                prop_assert_eq!(&value["agent"], &agent);
                prop_assert_eq!(&value["path"], &format!("/{path}"));
                prop_assert_eq!(&value["key"], "k1");
            }
        }

        /// Whatever brackets and quotes a caller writes, one object holds the members behind them.
        #[test]
        fn a_flat_line_is_json(agent in r#"([a-z"\\\\{}\[\],: 0-9-]|","a":|\{"b":"){0,30}"#) {
            let line = format!(r#"{{"id":"7","agent":"{agent}","key":"k1"}}"#);
            let json = mend(&line, MendedForm::Flat).unwrap().unwrap();
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&value["key"], "k1", "{}", json);
        }

        #[test]
        fn arbitrary_lines_never_panic(line in r#"\{"[ -~"\\:,{}]{0,60}\}"#) {
            let _ = (mend(&line, MendedForm::Nested), mend(&line, MendedForm::Flat));
        }
    }
}
