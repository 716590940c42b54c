//! Rows of JSON, taken apart into columns.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Column, ColumnKind};

/// A row that doesn't fit the columns.
#[derive(Debug, thiserror::Error)]
#[error("a row doesn't fit the columns of its table: {0}")]
pub struct RowError(#[from] serde_json::Error);

/// Some rows of a table, by column.
#[derive(Debug)]
pub struct Batch<'c> {
    columns: &'c [Column],
    pub(super) cells: Vec<Cells>,
    rows: usize,
}

/// The values of one column in a batch.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) values: Values,
    /// For each row 1, or 0 if it has no value; empty if every row must have one.
    pub(super) levels: Vec<i16>,
    rows: usize,
}

#[derive(Debug)]
pub(super) enum Values {
    /// Whole numbers, and times in milliseconds.
    Whole(Vec<i64>),
    Boolean(Vec<bool>),
    /// Texts behind each other, and the end of each.
    Text {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    },
}

impl<'c> Batch<'c> {
    /// Makes a batch of a table that has no row.
    #[must_use]
    pub fn new(columns: &'c [Column]) -> Self {
        let cells = columns.iter().map(|column| {
            let values = match column.kind {
                ColumnKind::Integer | ColumnKind::Time => Values::Whole(Vec::new()),
                ColumnKind::Boolean => Values::Boolean(Vec::new()),
                ColumnKind::Text | ColumnKind::Json => Values::Text { bytes: Vec::new(), ends: Vec::new() },
            };
            Cells { values, levels: Vec::new(), rows: 0 }
        });
        Self { columns, cells: cells.collect(), rows: 0 }
    }

    /// Makes a batch of lines, each a row.
    ///
    /// # Errors
    /// If a row doesn't fit the columns.
    pub fn of_lines(columns: &'c [Column], lines: &[u8]) -> Result<Self, RowError> {
        let mut batch = Self::new(columns);
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.into_iter().try_for_each(|line| batch.add(line))?;
        Ok(batch)
    }

    /// Adds a row, an object whose members are columns. Columns that it lacks have no value.
    ///
    /// # Errors
    /// If it has a member that is no column, or lacks a value that it must have. Then the batch can't be used any more.
    pub fn add(&mut self, row: &[u8]) -> Result<(), RowError> {
        let mut row = serde_json::Deserializer::from_slice(row);
        row.deserialize_map(RowVisitor(self))?;
        row.end()?;
        self.rows += 1;
        Ok(())
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the bytes of all texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let bytes = |cells: &Cells| match &cells.values {
            Values::Text { bytes, .. } => bytes.len(),
            Values::Whole(_) | Values::Boolean(_) => 0,
        };
        self.cells.iter().map(bytes).sum()
    }
}

impl Cells {
    fn value(&mut self, column: &Column) {
        if column.is_optional {
            self.levels.push(1);
        }
        self.rows += 1;
    }

    fn none<E: serde::de::Error>(&mut self, column: &Column) -> Result<(), E> {
        if !column.is_optional {
            return Err(E::custom(format_args!("column {} has no value", column.name)));
        }
        self.levels.push(0);
        self.rows += 1;
        Ok(())
    }
}

struct RowVisitor<'b, 'c>(&'b mut Batch<'c>);

impl<'de> Visitor<'de> for RowVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Batch { columns, cells, rows } = self.0;
        // Members mostly come in the order of the columns.
        let mut expected = 0;
        while let Some(at) = members.next_key_seed(ColumnSeed { columns, expected })? {
            let (column, cells) = (&columns[at], &mut cells[at]);
            if cells.rows > *rows {
                return Err(A::Error::custom(format_args!("column {} stands twice", column.name)));
            }
            members.next_value_seed(CellSeed { column, cells })?;
            expected = at + 1;
        }
        for (column, cells) in columns.iter().zip(cells) {
            if cells.rows == *rows {
                cells.none(column)?;
            }
        }
        Ok(())
    }
}

/// Reads a member's name as the index of a column.
struct ColumnSeed<'a> {
    columns: &'a [Column],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<usize, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for ColumnSeed<'_> {
    type Value = usize;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the name of a column")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<usize, E> {
        if self.columns.get(self.expected).is_some_and(|column| column.name == name) {
            return Ok(self.expected);
        }
        let found = self.columns.iter().position(|column| column.name == name);
        found.ok_or_else(|| E::custom(format_args!("there is no column {name}")))
    }
}

/// Reads a member's value into a column.
struct CellSeed<'a> {
    column: &'a Column,
    cells: &'a mut Cells,
}

impl<'de> DeserializeSeed<'de> for CellSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match (self.column.kind, &mut self.cells.values) {
            (ColumnKind::Json, Values::Text { bytes, ends }) => {
                let json: &RawValue = serde::Deserialize::deserialize(value)?;
                if json.get() == "null" {
                    return self.cells.none(self.column);
                }
                bytes.extend_from_slice(json.get().as_bytes());
                ends.push(bytes.len());
                self.cells.value(self.column);
                Ok(())
            }
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for CellSeed<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.column.kind {
            ColumnKind::Text | ColumnKind::Json => "a text",
            ColumnKind::Integer => "a whole number",
            ColumnKind::Boolean => "true or false",
            ColumnKind::Time => "a time",
        };
        write!(to, "{kind} in column {}", self.column.name)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.cells.none(self.column)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match &mut self.cells.values {
            Values::Boolean(values) => values.push(value),
            _ => return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
        self.cells.value(self.column);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match (self.column.kind, &mut self.cells.values) {
            (ColumnKind::Integer, Values::Whole(values)) => {
                values.push(i64::try_from(value).unwrap_or(i64::MAX));
            }
            _ => return Err(E::invalid_type(serde::de::Unexpected::Unsigned(value), &self)),
        }
        self.cells.value(self.column);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match (self.column.kind, &mut self.cells.values) {
            (ColumnKind::Text, Values::Text { bytes, ends }) => {
                bytes.extend_from_slice(value.as_bytes());
                ends.push(bytes.len());
            }
            (ColumnKind::Time, Values::Whole(values)) => match value.parse::<jiff::Timestamp>() {
                Ok(time) => values.push(time.as_millisecond()),
                Err(_) => return Err(E::invalid_value(serde::de::Unexpected::Other("another text"), &self)),
            },
            _ => return Err(E::invalid_type(serde::de::Unexpected::Other("a text"), &self)),
        }
        self.cells.value(self.column);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind, is_optional| Column { name: name.to_owned(), kind, is_optional };
        vec![
            column("id", ColumnKind::Text, false),
            column("at", ColumnKind::Time, false),
            column("n", ColumnKind::Integer, true),
            column("ok", ColumnKind::Boolean, true),
            column("json", ColumnKind::Json, true),
        ]
    }

    #[test]
    fn a_row_that_does_not_fit_is_refused_with_its_column_and_without_its_value() {
        let columns = columns();
        for (row, said) in [
            (r#"{"id":"a"}"#, "column at has no value"),
            (r#"{"id":null,"at":"2025-06-02T08:00:00Z"}"#, "column id has no value"),
            (r#"{"id":"a","id":"a","at":"2025-06-02T08:00:00Z"}"#, "column id stands twice"),
            (r#"{"id":"a","at":"2025-06-02T08:00:00Z","x":1}"#, "there is no column x"),
            (r#"{"id":"a","at":"kt_live_canary"}"#, "a time in column at"),
            (r#"{"id":"a","at":5}"#, "a time in column at"),
            (r#"{"id":7,"at":"2025-06-02T08:00:00Z"}"#, "a text in column id"),
            (r#"{"id":{"a":1},"at":"2025-06-02T08:00:00Z"}"#, "a text in column id"),
            (r#"{"id":"a","at":"2025-06-02T08:00:00Z","n":-1}"#, "a whole number in column n"),
            (r#"{"id":"a","at":"2025-06-02T08:00:00Z","n":1.5}"#, "a whole number in column n"),
            (r#"{"id":"a","at":"2025-06-02T08:00:00Z","ok":"kt_live_canary"}"#, "true or false in column ok"),
            (r#"["a"]"#, "an object"),
            (r#"{"id":"a""#, "EOF"),
            (r#"{"id":"a","at":"2025-06-02T08:00:00Z"} 5"#, "trailing"),
        ] {
            let error = Batch::new(&columns).add(row.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("canary"), "{row}: {error}");
        }
    }

    #[test]
    fn members_may_come_in_any_order_and_those_without_a_value_are_counted() {
        let columns = columns();
        let lines = concat!(
            r#"{"at":"1970-01-01T00:00:00.5Z","id":"ä\n","json":{"a":[1.50]},"n":18446744073709551615}"#,
            "\n",
            r#"{"id":"","at":"1970-01-01T00:00:01Z","n":null,"ok":true,"json":null}"#,
            "\n"
        );
        let batch = Batch::of_lines(&columns, lines.as_bytes()).unwrap();
        assert_eq!((batch.rows(), batch.text_bytes()), (2, "ä\n".len() + r#"{"a":[1.50]}"#.len()));
        let levels: Vec<&[i16]> = batch.cells.iter().map(|cells| &*cells.levels).collect();
        assert_eq!(levels, [&[][..], &[], &[1, 0], &[0, 1], &[1, 0]]);
        let Values::Whole(times) = &batch.cells[1].values else { panic!("times are numbers") };
        let Values::Whole(numbers) = &batch.cells[2].values else { panic!("numbers are") };
        assert_eq!((&times[..], &numbers[..]), (&[500, 1_000][..], &[i64::MAX][..]));
    }
}
