//! Names of sections that stand in a list: messages and variables call them by these.

use super::tree::TomlValue;

/// Characters of a source's or a job's name.
pub(crate) const MAX_NAME_BYTES: usize = 64;

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// The name of a list's section that has a well-formed one.
pub(crate) fn name_of(section: &TomlValue) -> Option<&str> {
    let TomlValue::Table(table) = section else { return None };
    let TomlValue::Text(name) = &table.get("name")?.value else { return None };
    is_name(name).then_some(name)
}
