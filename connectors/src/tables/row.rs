//! One row: cells by column, and what may stand in them.

use std::borrow::Cow;

use keytide_dataflow::model::EventTime;

use super::{LIST_ELEMENTS, VALUE_BYTES};

/// What stands in a cell.
#[derive(Clone, Default)]
pub(super) enum Cell<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    /// A JSON array.
    List(Vec<Cow<'a, str>>),
}

/// A row's cells, in the order of the table's columns.
pub(super) struct Row<'a> {
    pub(super) columns: &'a [&'static str],
    pub(super) cells: Vec<Cell<'a>>,
}

/// What is wrong with a row. Never quotes a cell.
pub(super) type Fault = String;

impl<'a> Row<'a> {
    pub(super) fn new(columns: &'a [&'static str]) -> Self {
        Self { columns, cells: vec![Cell::Missing; columns.len()] }
    }

    fn cell(&self, column: &str) -> &Cell<'a> {
        self.columns
            .iter()
            .position(|name| *name == column)
            .map_or(&Cell::Missing, |index| &self.cells[index])
    }

    /// The value of a column, `None` if it is empty.
    pub(super) fn text(&self, column: &str) -> Result<Option<&str>, Fault> {
        self.text_of(column, VALUE_BYTES)
    }

    /// The same, of a value that may have so many bytes.
    pub(super) fn text_of(&self, column: &str, limit: usize) -> Result<Option<&str>, Fault> {
        match self.cell(column) {
            Cell::Missing => Ok(None),
            Cell::Text(text) => value(column, text, limit),
            Cell::List(_) => Err(format!("`{column}` is an array: it must be one value")),
        }
    }

    /// The value of a column that may not be empty.
    pub(super) fn required(&self, column: &str) -> Result<&str, Fault> {
        self.text(column)?.ok_or_else(|| format!("`{column}` is empty"))
    }

    /// A time.
    pub(super) fn time(&self, column: &str) -> Result<Option<EventTime>, Fault> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            format!("`{column}` is not a time: it must be RFC 3339, such as 2025-06-02T08:00:00Z")
        })?;
        let time =
            EventTime::try_from(time.as_millisecond()).map_err(|_| format!("`{column}` is before 1970"))?;
        Ok(Some(time))
    }

    /// One of some names; the default if it is empty.
    pub(super) fn one_of<T: Copy + Default>(&self, column: &str, names: &[(&str, T)]) -> Result<T, Fault> {
        let Some(text) = self.text(column)? else { return Ok(T::default()) };
        names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            format!("`{column}` must be one of {}", names.join(", "))
        })
    }

    /// The elements of a list: separated by `;`, or a JSON array. Empty elements don't count.
    pub(super) fn list<'s, T>(
        &'s self,
        column: &str,
        parse: impl Fn(&'s str) -> Option<T>,
        expected: &str,
    ) -> Result<Vec<T>, Fault> {
        let mut parsed = Vec::new();
        let mut element = |element: &'s str| {
            let Some(element) = value(column, element, VALUE_BYTES)? else { return Ok(()) };
            if parsed.len() == LIST_ELEMENTS {
                return Err(format!("`{column}` has more than {LIST_ELEMENTS} elements"));
            }
            let wrong = || format!("`{column}` must be a list of {expected}");
            parsed.push(parse(element).ok_or_else(wrong)?);
            Ok(())
        };
        match self.cell(column) {
            Cell::Missing => {}
            Cell::Text(text) => text.split(';').try_for_each(&mut element)?,
            Cell::List(elements) => elements.iter().try_for_each(|text| element(text))?,
        }
        Ok(parsed)
    }
}

/// A value without the white space around it, `None` if nothing is left.
fn value<'t>(column: &str, text: &'t str, limit: usize) -> Result<Option<&'t str>, Fault> {
    let text = text.trim();
    if text.len() > limit {
        return Err(format!("`{column}` is longer than {limit} bytes"));
    }
    if text.contains(char::is_control) {
        return Err(format!(
            "`{column}` holds a line break or control character: is a closing quote missing?"
        ));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}
