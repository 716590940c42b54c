//! Cells of CSV files.

use std::borrow::Cow;

/// A cell as CSV.
pub(crate) fn quoted(cell: &str) -> Cow<'_, str> {
    match cell.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")).into(),
        false => cell.into(),
    }
}
