//! Names of sections in a list, which messages and variables use.

use super::tree::TomlValue;

/// Bytes of a source's or a job's name, at most.
pub(crate) const MAX_NAME_BYTES: usize = 64;

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// Returns the name of a section in a list; `None` if it has no well-formed one.
pub(crate) fn name_of(section: &TomlValue) -> Option<&str> {
    let TomlValue::Table(table) = section else { return None };
    let TomlValue::Text(name) = &table.get("name")?.value else { return None };
    is_name(name).then_some(name)
}
