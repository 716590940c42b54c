//! A row as its cells by column, and the forms that their values may have.
//!
//! A required column must be right, or the row is refused. An optional one is unknown if it can't be read. Then the row
//! counts, and a warning names the column. Losing a row would cost more, as its key would have no owner, or stay
//! active. Columns that bills depend on ([`RawRow::exact`]) must be right if they aren't empty: a price that is silently
//! unknown would bill wrongly.
//!
//! Databases have many forms of an absent value. Besides an empty one, they are `\N`, `NULL`, `null`, `NaN`, `NaT` and
//! `None`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keytide_config::Zone;
use keytide_dataflow::model::EventTime;

use super::{LIST_ELEMENTS, VALUE_BYTES};
use crate::decimal::Decimal;
use crate::time::{self, Dates};

/// Words that databases and their tools write for an absent value.
const NOTHING: [&str; 6] = ["\\N", "NULL", "null", "NaN", "NaT", "None"];
/// Debezium's placeholder for a value that it doesn't know, because it is large and didn't change.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The placeholder in a column of bytes, as base64 and as hexadecimal digits.
const UNAVAILABLE_BYTES: [&str; 3] = [
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ",
    "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
];
/// The most digits of a JSON number with a fraction or an exponent that come out as they were written.
const NUMBER_DIGITS: usize = 15;
/// The most bytes of a text that is only the placeholder and brackets around it.
const UNAVAILABLE_BYTES_AT_MOST: usize = 128;

/// The content of a cell.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    #[default]
    Missing,
    Text(Cow<'a, str>),
    /// A flag, or a number with a fraction, as text. It may be a value, but it identifies nothing.
    Loose(String),
    List(Vec<Cow<'a, str>>),
    /// The value that the column had before, which the database didn't repeat.
    Unchanged,
    /// A value of a type that no column has.
    Wrong,
}

impl<'a> Cell<'a> {
    pub(super) fn text(text: Cow<'a, str>) -> Self {
        if is_unavailable(&text) { Self::Unchanged } else { Self::Text(text) }
    }

    pub(super) fn list(elements: Vec<Cow<'a, str>>) -> Self {
        let kept = elements.iter().any(|element| is_unavailable(element));
        if kept { Self::Unchanged } else { Self::List(elements) }
    }
}

/// Returns whether a text is Debezium's placeholder, by itself or alone in an array or an object.
pub(super) fn is_unavailable(text: &str) -> bool {
    if text.len() > UNAVAILABLE_BYTES_AT_MOST {
        return false;
    }
    if !text.contains(UNAVAILABLE) {
        return UNAVAILABLE_BYTES.contains(&text);
    }
    text.replace(UNAVAILABLE, "").chars().all(|c| "[]{}\":, ".contains(c))
}

/// A row's cells, in the order of the table's columns.
pub(super) struct RawRow<'a> {
    pub(super) columns: &'a [&'static str],
    pub(super) cells: Vec<Cell<'a>>,
    /// True if the row itself states that it is deleted.
    pub(super) deleted: bool,
    /// The optional columns that couldn't be read, each with the reason.
    unread: RefCell<Vec<(&'static str, Fault)>>,
}

/// A problem of a row. It never quotes a cell.
pub(super) type Fault = String;

impl<'a> RawRow<'a> {
    pub(super) fn new(columns: &'a [&'static str]) -> Self {
        let cells = vec![Cell::Missing; columns.len()];
        Self { columns, cells, deleted: false, unread: RefCell::default() }
    }

    fn cell(&self, column: &str) -> &Cell<'a> {
        self.columns
            .iter()
            .position(|name| *name == column)
            .map_or(&Cell::Missing, |index| &self.cells[index])
    }

    /// Iterates over the columns whose value the database didn't repeat.
    pub(super) fn unchanged(&self) -> impl Iterator<Item = &'static str> {
        let cells = self.columns.iter().zip(&self.cells);
        cells.filter(|(_, cell)| **cell == Cell::Unchanged).map(|(column, _)| *column)
    }

    /// Makes values that the database didn't repeat unknown, because a file has no earlier row.
    pub(super) fn forget_unchanged(&mut self) {
        for (column, cell) in
            self.columns.iter().zip(&mut self.cells).filter(|(_, cell)| **cell == Cell::Unchanged)
        {
            *cell = Cell::Missing;
            let fault = format!("`{column}` was left out because it didn't change");
            self.unread.get_mut().push((column, fault));
        }
    }

    /// Returns the columns that couldn't be read, each with the reason.
    pub(super) fn unread(&self) -> Vec<(&'static str, Fault)> {
        self.unread.take()
    }

    /// The value of a column that identifies something, or `None` if it is empty.
    pub(super) fn text(&self, column: &str) -> Result<Option<&str>, Fault> {
        match self.cell(column) {
            Cell::Loose(_) => Err(wrong(column)),
            _ => self.text_of(column, VALUE_BYTES),
        }
    }

    /// The value of a column, of at most `limit` bytes, or `None` if it is empty.
    pub(super) fn text_of(&self, column: &str, limit: usize) -> Result<Option<&str>, Fault> {
        match self.cell(column) {
            Cell::Missing | Cell::Unchanged => Ok(None),
            Cell::Text(text) => value(column, text, limit),
            Cell::Loose(text) => value(column, text, limit),
            Cell::List(_) => Err(format!("`{column}` is an array: it must be one value")),
            Cell::Wrong => Err(wrong(column)),
        }
    }

    /// The value of a column that may not be empty. In a deleted row, or if the database didn't repeat the value, it is
    /// empty all the same.
    pub(super) fn required(&self, column: &str) -> Result<&str, Fault> {
        match self.text(column) {
            Ok(Some(text)) => Ok(text),
            _ if self.deleted || *self.cell(column) == Cell::Unchanged => Ok(""),
            Ok(None) => Err(format!("`{column}` is empty")),
            Err(fault) => Err(fault),
        }
    }

    /// The name in a column, or `None` if it is empty. If the database didn't repeat it, it is an empty text.
    pub(super) fn name(&self, column: &str) -> Result<Option<&str>, Fault> {
        if *self.cell(column) == Cell::Unchanged { Ok(Some("")) } else { self.text(column) }
    }

    /// The parsed value of a column that bills depend on, or `None` if it is empty. A value that can't be parsed refuses
    /// the row, but not a deleted one, whose values don't matter.
    pub(super) fn exact<T, E: fmt::Display>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Fault> {
        match self.identifying(column, parse) {
            Err(_) if self.deleted => Ok(None),
            parsed => parsed,
        }
    }

    /// The parsed value of a column by which rows are told apart, or `None` if it is empty. It must be right in a deleted
    /// row, too.
    pub(super) fn identifying<T, E: fmt::Display>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Fault> {
        let cell = self.cell(column);
        // Databases leave out large values only, so a number or a word that is left out is a mistake.
        if *cell == Cell::Unchanged || self.unread.borrow().iter().any(|(of, _)| *of == column) {
            return Err(format!("`{column}` was left out because it didn't change"));
        }
        if let Cell::Loose(text) = cell
            && is_rounded(text)
        {
            return Err(format!("`{column}` has more digits than a JSON number keeps: write it as a text"));
        }
        let Some(text) = self.text_of(column, VALUE_BYTES)? else { return Ok(None) };
        parse(text).map(Some).map_err(|fault| format!("`{column}` {fault}"))
    }

    /// The value of an optional column, of at most 512 bytes.
    pub(super) fn optional(&self, column: &'static str) -> Option<&str> {
        self.optional_of(column, VALUE_BYTES)
    }

    /// The value of an optional column, of at most `limit` bytes.
    pub(super) fn optional_of(&self, column: &'static str, limit: usize) -> Option<&str> {
        self.or_unread(column, self.text_of(column, limit))
    }

    /// The parsed value of an optional column. `expected` completes the warning if it can't be parsed.
    pub(super) fn parsed<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Option<T> {
        let text = self.optional(column)?;
        self.or_unread(column, parse(text).map(Some).ok_or_else(|| format!("`{column}` must be {expected}")))
    }

    /// The parsed value of an optional column, by a parser that says how a text is wrong.
    pub(super) fn known<T, E: fmt::Display>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.optional(column)?;
        self.or_unread(column, parse(text).map(Some).map_err(|fault| format!("`{column}` {fault}")))
    }

    /// The value of an optional column, or `None` and a warning if it couldn't be read.
    pub(super) fn or_unread<T>(&self, column: &'static str, found: Result<Option<T>, Fault>) -> Option<T> {
        found.unwrap_or_else(|fault| {
            self.unread.borrow_mut().push((column, fault));
            None
        })
    }

    /// The time in a column. It is a text of any form, a date (its first moment, UTC), or a number since the epoch. The
    /// number's size decides between days, seconds, milliseconds, microseconds and nanoseconds.
    pub(super) fn time(&self, column: &'static str) -> Option<EventTime> {
        self.known(column, parse_time)
    }

    /// The value that goes with a name, in any case, or the default if the cell is empty or has another name.
    pub(super) fn one_of<T: Copy + Default>(&self, column: &'static str, names: &[(&str, T)]) -> T {
        let expected = format!("one of {}", first_words(names));
        self.parsed(column, |text| word_of(text, names), &expected).unwrap_or_default()
    }

    /// The elements of a list. They are separated by `;` or else by `,`, or the list is an array: of JSON, of JSON in a
    /// text, or as PostgreSQL writes it (`{a,"b c"}`). Empty elements, and those that can't be read, are left out.
    pub(super) fn list<T>(
        &self,
        column: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        let mut fault = None;
        let mut element = |element: &str| match value(column, element, VALUE_BYTES) {
            Ok(None) => {}
            _ if parsed.len() == LIST_ELEMENTS => {
                fault = Some(format!("`{column}` has more than {LIST_ELEMENTS} elements"));
            }
            Ok(Some(text)) => match parse(text) {
                Some(value) => parsed.push(value),
                None => fault = Some(format!("`{column}` must be a list of {expected}")),
            },
            Err(wrong) => fault = Some(wrong),
        };
        match self.cell(column) {
            Cell::Missing | Cell::Unchanged => {}
            Cell::Text(text) => elements(text).iter().for_each(|text| element(text)),
            Cell::Loose(text) => element(text),
            Cell::List(elements) => elements.iter().for_each(|text| element(text)),
            Cell::Wrong => fault = Some(wrong(column)),
        }
        self.unread.borrow_mut().extend(fault.map(|fault| (column, fault)));
        parsed
    }
}

/// Returns the value that goes with a word, in any case. Several words for a value are separated by blanks.
pub(super) fn word_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Option<T> {
    let is = |name: &str| name.eq_ignore_ascii_case(text);
    names.iter().find(|(words, _)| words.split(' ').any(is)).map(|(_, value)| *value)
}

/// Returns the first word for each value.
pub(super) fn first_words<T>(names: &[(&str, T)]) -> String {
    let first: Vec<&str> = names.iter().filter_map(|(words, _)| words.split(' ').next()).collect();
    first.join(", ")
}

/// Returns whether a JSON number that was read with a fraction or an exponent may have been written with more digits.
fn is_rounded(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len() > NUMBER_DIGITS
}

/// Parses a time as [`RawRow::time`] reads it. The error says how it is wrong.
pub(super) fn parse_time(text: &str) -> Result<EventTime, &'static str> {
    let ms = time_ms(text).ok_or(
        "must be a time, such as 2025-06-02T08:00:00Z, or a number of days, s, ms, us or ns since 1970",
    )?;
    EventTime::try_from(ms).map_err(|_| "is before 1970")
}

/// Parses a flag by its usual words, in any case. The error says how it is wrong.
pub(super) fn parse_flag(text: &str) -> Result<bool, &'static str> {
    let is_one = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match () {
        () if is_one(&["true", "t", "yes", "y", "1", "on"]) => Ok(true),
        () if is_one(&["false", "f", "no", "n", "0", "off"]) => Ok(false),
        () => Err("must be true or false"),
    }
}

fn wrong(column: &str) -> Fault {
    format!("`{column}` must be text, or an array of texts if it is a list")
}

/// A value without the white space around it, or `None` if the rest is empty or a word for an absent value.
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
    Ok(Some(text).filter(|text| !text.is_empty() && !NOTHING.contains(text)))
}

/// Parses a time to milliseconds since the epoch.
fn time_ms(text: &str) -> Option<i64> {
    let of_text = || time::parse(text.as_bytes(), &Zone::default(), Dates::Midnight);
    match Decimal::parse(text) {
        // 14 digits are a date and a time of day, as they would lie beyond the year 2280 in milliseconds.
        Some(number) => {
            let compact = (text.len() == 14).then(of_text).flatten();
            compact.or_else(|| time::by_size(number, true)).or_else(of_text)
        }
        // It may be a database's decimal without its scale, which is 0 because times are whole numbers.
        None => of_text().or_else(|| time::by_size(Decimal::parse(&database_decimal(text, 0)?)?, false)),
    }
}

/// Converts a decimal of Kafka Connect and Debezium. Its digits are a whole number in two's complement, big endian, in
/// base64. `scale` is the number of digits behind the point.
pub(super) fn database_decimal(base64: &str, scale: i32) -> Option<String> {
    /// The most digits that a scale may add.
    const MAX_SCALE: i32 = 130;
    let bytes = STANDARD.decode(base64).ok().filter(|bytes| (1..=16).contains(&bytes.len()))?;
    let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut whole = [fill; 16];
    whole[16 - bytes.len()..].copy_from_slice(&bytes);
    let number = i128::from_be_bytes(whole);
    let (sign, mut digits) = (if number < 0 { "-" } else { "" }, number.unsigned_abs().to_string());
    if !(-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        return None;
    }
    let places = usize::try_from(scale.unsigned_abs()).ok()?;
    if scale <= 0 {
        digits.push_str(&"0".repeat(if number == 0 { 0 } else { places }));
        return Some(format!("{sign}{digits}"));
    }
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// Splits a text into the elements of a list.
fn elements(text: &str) -> Vec<Cow<'_, str>> {
    let text = text.trim();
    if text.starts_with('[')
        && let Ok(serde_json::Value::Array(elements)) = serde_json::from_str(text)
    {
        let element = |element| match element {
            serde_json::Value::String(text) => Cow::Owned(text),
            serde_json::Value::Null => Cow::Borrowed(""),
            other => Cow::Owned(other.to_string()),
        };
        return elements.into_iter().map(element).collect();
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        return array(inner).into_iter().map(Cow::Owned).collect();
    }
    let separator = if text.contains(';') { ';' } else { ',' };
    text.split(separator).map(Cow::Borrowed).collect()
}

/// Splits an array of PostgreSQL's. Its elements are separated by commas and may be in quotes, with `\` before a quote.
fn array(inner: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => {
                quoted = !quoted;
                continue;
            }
            ',' if !quoted => {
                elements.push(String::new());
                continue;
            }
            _ => {}
        }
        elements.last_mut().expect("it never gets empty").push(c);
    }
    elements
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_of_databases() {
        for (base64, scale, expected) in [
            ("Bw==", 0, Some("7")),
            ("AA==", 0, Some("0")),
            ("AA==", -3, Some("0")),
            ("/w==", 0, Some("-1")),
            ("AP8=", 0, Some("255")),
            ("BNI=", 2, Some("12.34")),
            ("BNI=", 6, Some("0.001234")),
            ("Bw==", -3, Some("7000")),
            ("Arw=", 2, Some("7")),
            ("7Bw==", 0, None),
            ("", 0, None),
            ("Bw==", 1_000, None),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", 0, None),
        ] {
            assert_eq!(database_decimal(base64, scale).as_deref(), expected, "{base64} {scale}");
        }
    }

    #[test]
    fn times_of_databases() {
        let noon = 1_763_642_655_000;
        for (text, ms) in [
            ("2025-11-20T12:44:15Z", noon),
            ("2025-11-20 12:44:15.000000", noon),
            ("2025-11-20 12:44:15+00", noon),
            ("20251120124415", noon),
            ("1763642655", noon),
            ("1763642655000", noon),
            ("1763642655000000", noon),
            ("1763642655000000000", noon),
            ("1763642655.0004", noon),
            ("2025-11-20", noon - 45_855_000),
            ("20412", noon - 45_855_000),
            // The milliseconds in base64.
            ("AZqhS0EY", noon),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(time_ms(text), Some(ms), "{text}");
        }
        for text in ["", "0", "soon", "12", "infinity", "0000-00-00 00:00:00", "Bw=="] {
            assert_eq!(time_ms(text), None, "{text}");
        }
    }

    #[test]
    fn lists_in_texts() {
        for (text, expected) in [
            ("a;b; c", vec!["a", "b", " c"]),
            ("a,b", vec!["a", "b"]),
            ("a,b;c", vec!["a,b", "c"]),
            (r#"["a","b\"c",7,null]"#, vec!["a", "b\"c", "7", ""]),
            ("{a,b}", vec!["a", "b"]),
            (r#"{"a b","c\"d,e",NULL}"#, vec!["a b", "c\"d,e", "NULL"]),
            ("{}", vec![""]),
            ("[a", vec!["[a"]),
            ("", vec![""]),
        ] {
            assert_eq!(elements(text), expected, "{text}");
        }
    }

    #[test]
    fn what_debezium_does_not_know() {
        for text in [
            "__debezium_unavailable_value",
            "[\"__debezium_unavailable_value\"]",
            "{__debezium_unavailable_value}",
            "{\"__debezium_unavailable_value\": \"__debezium_unavailable_value\"}",
            "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
            "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
        ] {
            assert!(is_unavailable(text), "{text}");
        }
        for text in ["", "[]", "debezium_unavailable_value", "x __debezium_unavailable_value", "__debezium"] {
            assert!(!is_unavailable(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_agree_with_numbers(number: i128) {
            let base64 = STANDARD.encode(number.to_be_bytes());
            prop_assert_eq!(database_decimal(&base64, 0), Some(number.to_string()));
        }

        /// What PostgreSQL's `array_out` writes of texts comes out again.
        #[test]
        fn arrays_round_trip(texts in proptest::collection::vec(".{0,8}", 1..6)) {
            let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let written: Vec<String> = texts.iter().map(quoted).collect();
            prop_assert_eq!(array(&written.join(",")), texts);
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in ".{0,40}", alike in "[{\\[]?[a-z\"\\\\,;]{0,12}[}\\]]?") {
            for text in [text, alike] {
                elements(&text);
                time_ms(&text);
                database_decimal(&text, 3);
                is_unavailable(&text);
            }
        }
    }
}
