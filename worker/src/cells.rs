//! Cells of CSV files.

use std::borrow::Cow;

use keytide_alerts::email::{acts, begins_formula};

/// Returns a cell as CSV has it: between quotes if it holds a comma, a quote or a line's end.
pub fn quoted(cell: &str) -> Cow<'_, str> {
    match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")).into(),
        false => cell.into(),
    }
}

/// Returns text that callers chose as a cell: nothing in it acts in a terminal, and no spreadsheet takes it for a
/// formula.
pub fn untrusted(cell: &str) -> String {
    let mut shown = String::with_capacity(cell.len());
    for c in cell.chars() {
        if shown.is_empty() && begins_formula(c) {
            shown.push('\'');
        }
        if acts(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    quoted(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_write_neither_formulas_nor_controls() {
        for (written, cell) in [
            ("dc9086f4ba5832ec2bf121873d351ee8", "dc9086f4ba5832ec2bf121873d351ee8"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("\u{ff0b}1", "'\u{ff0b}1"),
            ("-1,\"2\"", "\"'-1,\"\"2\"\"\""),
            ("a\r\n=1", "a\\u{d}\\u{a}=1"),
            ("\t=1", "\\u{9}=1"),
            ("\u{1b}[31m\u{202e}b", "\\u{1b}[31m\\u{202e}b"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(untrusted(written), cell, "{written:?}");
        }
    }
}
