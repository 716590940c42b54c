//! Takes lines of text out of the wrappers that log agents and containers put around them. A wrapper is a member of a
//! JSON record, a text of JSON, or a line of a container's log.
//!
//! ```text
//! {"log":"192.0.2.7 - - [..] \"GET / HTTP/1.1\" 200 5\n","stream":"stdout"}
//! "192.0.2.7 - - [..] ..."
//! 2025-11-20T12:44:15.123456789Z stdout F 192.0.2.7 - - [..] ...
//! ```
//! Up to 4 wrappers may be around each other, and an array may hold many.
//!
//! A line may begin with a quote or a bracket of its own. So it is taken for a wrapper only if the message is one whole
//! value of JSON. A record without a text at the places that `unwrap` of the source names is a dead letter.

use std::ops::ControlFlow;

use keytide_config::{Pointer, Source};

use super::bytes::{carried, restored};
use super::container::container_line;
use super::message::{Ledger, Outer, RecordReader};
use super::reader::{JsonError, JsonReader};
use super::records::{ObjectVisitor, WRAPPERS, is_one_value, walk};
use super::value::FieldValue;

/// Takes wrappers off lines of text.
pub(super) struct WrappedLines {
    lines: Box<dyn RecordReader>,
    places: Vec<Pointer>,
}

impl WrappedLines {
    /// Wraps `lines`, which reads the text in the wrappers.
    pub(super) fn new(lines: Box<dyn RecordReader>, source: &Source) -> Self {
        Self { lines, places: source.unwrap.iter().chain(&source.records).cloned().collect() }
    }
}

impl RecordReader for WrappedLines {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let Self { lines, places } = self;
        if let Some(line) = container_line(text) {
            return lines.read_apart(line, outer, ledger);
        }
        let is_wrapped = match text.trim_ascii_start() {
            // A line may begin with a quote, too, but a wrapper is one text and no more.
            [b'"', ..] => is_one_value(&carried(text)),
            [b'{', rest @ ..] => rest.trim_ascii_start().first() == Some(&b'"'),
            [b'[', rest @ ..] => {
                matches!(rest.trim_ascii_start(), [b'{' | b'"', ..]) && is_one_value(&carried(text))
            }
            _ => false,
        };
        if is_wrapped {
            walk(&carried(text), ledger, &mut LineWrappers { lines, places, outer, depth: 1 });
        } else {
            lines.read(text, outer, ledger);
        }
    }

    fn continue_after(&mut self, header: Option<&[u8]>) {
        self.lines.continue_after(header);
    }
}

struct LineWrappers<'r, 'o> {
    lines: &'r mut Box<dyn RecordReader>,
    places: &'r [Pointer],
    outer: Outer<'o>,
    depth: usize,
}

impl ObjectVisitor for LineWrappers<'_, '_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        _: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        let start = reader.at();
        let mut record = reader.clone();
        reader.value()?;
        for place in self.places {
            match at(&mut record.clone(), &place.0)? {
                Some(FieldValue::Array(records)) if self.depth < WRAPPERS => self.within(records, ledger),
                Some(value) if self.text(value, ledger) => {}
                _ => continue,
            }
            return Ok(ControlFlow::Continue(()));
        }
        // All of the record must be JSON, even if it has none of the places.
        let _ = at(&mut record, &[String::new()])?;
        ledger.refuse(&text[start..reader.at()], NO_LINE.to_owned());
        Ok(ControlFlow::Continue(()))
    }

    fn text(&mut self, value: FieldValue<'_>, ledger: &mut Ledger<'_>) -> bool {
        let mut buffer = String::new();
        let Some(line) = value.string(&mut buffer) else { return false };
        let line = restored(line);
        let line = container_line(&line).unwrap_or(&line);
        // The text may be a wrapper again, such as Docker's record in Filebeat's. All of it must be JSON, as no line
        // is.
        let text = std::str::from_utf8(line).ok().filter(|text| {
            self.depth < WRAPPERS && text.trim_ascii_start().starts_with(['{', '[']) && is_one_value(text)
        });
        match text {
            Some(text) => self.within(text, ledger),
            None => self.lines.read_apart(line, self.outer, ledger),
        }
        true
    }
}

impl LineWrappers<'_, '_> {
    /// Takes off the wrappers within a wrapper.
    fn within(&mut self, text: &str, ledger: &mut Ledger<'_>) {
        let Self { lines, places, outer, depth } = self;
        walk(text, ledger, &mut LineWrappers { lines, places, outer: *outer, depth: *depth + 1 });
    }
}

/// The reason of a record without a line.
const NO_LINE: &str = "not a line: a JSON record without a text where `unwrap` says";

/// Returns the value behind a pointer in the object at which the reader stands.
fn at<'a>(reader: &mut JsonReader<'a>, pointer: &[String]) -> Result<Option<FieldValue<'a>>, JsonError> {
    let Some((name, rest)) = pointer.split_first() else { return Ok(None) };
    if reader.token() != Some(b'{') {
        return Ok(None);
    }
    let mut behind = reader.clone();
    let [(at_value, value)] = behind.members([name.as_str()])?;
    if rest.is_empty() {
        return Ok(Some(value));
    }
    reader.restart(at_value);
    if matches!(value, FieldValue::Object) { at(reader, rest) } else { Ok(None) }
}
