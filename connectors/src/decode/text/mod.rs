//! Formats whose records are lines of text. They are the combined log line, lines of a pattern, and three logs that
//! have a form of their own.
//!
//! ```text
//! line ─► combined | pattern | alb | w3c | haproxy ─► RawEvent ─► canonical
//! ```
//! * Each line is one record. Lines end with `\n` or `\r\n`, and empty ones are passed over. So are the directives of
//!   W3C extended logs (`#Fields: ...`), which name the columns of the lines that follow.
//! * Bytes that aren't UTF-8 are carried as [`super::bytes`] says.
//! * Equal lines are different calls, because only an id that the server made identifies a record. An id that a caller
//!   may have chosen is no identity here, as times of whole seconds could not distinguish such calls.
//! * `combined` reads the last three as well, and recognises them by their form if a line isn't a combined one.
//!
//! Limits: `limits.message_records`, as for JSON.

mod alb;
mod clock;
mod combined;
mod haproxy;
mod pattern;
#[cfg(test)]
mod tests;
mod w3c;

use keytide_config::{Field, Format, Source, Unit};

use self::pattern::Matcher;
use self::w3c::{W3c, W3cColumns};
use super::Context;
use super::bytes::carried;
use super::canonical::Canonical;
use super::fault::Fault;
use super::message::{Ledger, Outer, RecordReader};
use super::raw::{EventField, RawEvent, request_line, set_request};
use super::value::FieldValue;

/// The directive that names the columns of a W3C extended log.
pub(crate) const FIELDS: &[u8] = b"#Fields:";

/// Returns whether lines of a source depend on a header line before them.
pub(crate) fn has_header(format: Format) -> bool {
    matches!(format, Format::Combined | Format::Cloudfront)
}

/// Reads the lines of one source.
pub(super) struct TextRecords {
    layout: Layout,
    canonical: Canonical,
    w3c: W3c,
    /// Reads combined lines of a server that doesn't escape.
    unescaped: Option<Matcher>,
    /// The columns that the last header named.
    columns: Option<W3cColumns>,
    /// True if a header holds for the messages that follow, too.
    is_continued: bool,
    values: Values,
}

enum Layout {
    Combined,
    Pattern(Box<Matcher>),
    Alb,
    W3c,
    Haproxy(haproxy::Captures),
}

/// Buffers for values that don't stand in the line as they are, reused from line to line.
#[derive(Default)]
struct Values {
    number: String,
    texts: Vec<String>,
    captured: pattern::Captured,
}

impl Values {
    /// Writes a number that was computed.
    fn number(&mut self, number: u64) -> FieldValue<'_> {
        self.number.clear();
        self.number.push_str(itoa::Buffer::new().format(number));
        FieldValue::Number(&self.number)
    }
}

impl TextRecords {
    pub(super) fn new(source: &Source, format: Format, context: &Context) -> Self {
        let layout = match (format, &source.pattern) {
            (Format::Text, Some(pattern)) => Layout::Pattern(Box::new(Matcher::new(pattern, source))),
            (Format::Alb, _) => Layout::Alb,
            (Format::Cloudfront, _) => Layout::W3c,
            (Format::Haproxy, _) => Layout::Haproxy(haproxy::Captures::new(&source.keys)),
            _ => Layout::Combined,
        };
        let of = |field: &Option<Field>| field.as_ref().and_then(|field| field.unit).unwrap_or(Unit::Clf);
        let units = [of(&source.fields.time), of(&source.fields.end), Unit::Micros];
        Self {
            layout,
            // Each format sets its units itself, or has those of the combined line.
            canonical: Canonical::new(source, units, context),
            w3c: W3c::new(&source.keys),
            unescaped: matches!(format, Format::Combined).then(|| combined::unescaped(source)).flatten(),
            columns: None,
            is_continued: false,
            values: Values::default(),
        }
    }

    fn line(&mut self, line: &[u8], outer: Outer<'_>, id: Option<&str>, ledger: &mut Ledger<'_>) {
        let Self { layout, canonical, w3c, columns, values, .. } = self;
        let text = carried(line);
        // HAProxy escapes with a sign of its own.
        let mut rewritten = String::new();
        let text = match layout {
            Layout::Haproxy(_) => haproxy::unescaped(&text, &mut rewritten),
            _ => &text,
        };
        let raw = match layout {
            Layout::Pattern(matcher) => matcher.read(text, values),
            Layout::Alb => alb::read(text, values),
            Layout::W3c => w3c.read(text, columns.as_ref(), values),
            Layout::Haproxy(captures) => haproxy::read(text, captures),
            Layout::Combined => match columns {
                Some(columns) => w3c.read(text, Some(columns), values),
                None => match combined::read(text) {
                    Err(fault) => return self.shaped(line, fault, outer, id, ledger),
                    read => read,
                },
            },
        };
        match raw {
            Ok(raw) => ledger.enter(canonical, &outer.completed(raw, id, false), line),
            Err(fault) => ledger.refuse(line, fault.to_string()),
        }
    }

    /// Reads a line that isn't a combined one as another of a known form, or refuses it with `fault`.
    #[cold]
    fn shaped(
        &mut self,
        line: &[u8],
        fault: Fault,
        outer: Outer<'_>,
        id: Option<&str>,
        ledger: &mut Ledger<'_>,
    ) {
        let text = &*carried(line);
        let mut rewritten = String::new();
        let values = &mut self.values;
        let read = if alb::is_like(text) {
            alb::read(text, values)
        } else if w3c::is_like(text) {
            self.w3c.read(text, None, values)
        } else if haproxy::is_like(text) {
            haproxy::read(haproxy::unescaped(text, &mut rewritten), &haproxy::Captures::default())
        } else if let Some(matcher) = self.unescaped.as_ref().filter(|_| combined::is_like(text)) {
            matcher.read(text, values)
        } else {
            Err(fault)
        };
        match read {
            Ok(raw) => ledger.enter(&mut self.canonical, &outer.completed(raw, id, false), line),
            Err(fault) => ledger.refuse(line, fault.to_string()),
        }
    }

    /// Returns whether a line is a directive. If it names columns, they are kept.
    fn is_directive(&mut self, line: &[u8]) -> bool {
        if line.first() != Some(&b'#') || !matches!(self.layout, Layout::Combined | Layout::W3c) {
            return false;
        }
        if line.starts_with(FIELDS) {
            self.columns = self.w3c.columns(&String::from_utf8_lossy(line));
            return true;
        }
        w3c::DIRECTIVES.iter().any(|directive| line.starts_with(directive))
    }
}

impl RecordReader for TextRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let first = ledger.records();
        if !self.is_continued {
            self.columns = None;
        }
        let mut start = text.strip_prefix(b"\xEF\xBB\xBF").map_or(0, |rest| text.len() - rest.len());
        let mut directives = false;
        while start < text.len() {
            let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |newline| start + newline);
            let line = text[start..end].strip_suffix(b"\r").unwrap_or(&text[start..end]);
            if self.is_directive(line) {
                directives = true;
            } else if !line.is_empty() {
                if ledger.is_full() {
                    return ledger.beyond(&text[start..]);
                }
                let id = outer.request_id(ledger.records() - first);
                self.line(line, outer, id.as_deref(), ledger);
            }
            start = end + 1;
        }
        if ledger.records() == first && !directives {
            ledger.refuse(text, "empty message; expected a line of text".to_owned());
        }
    }

    fn read_apart(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        // A header in a wrapper holds for that text alone, as files are cut into blocks without looking into wrappers.
        let columns = self.columns.take();
        self.read(text, outer, ledger);
        self.columns = columns;
    }

    fn continue_after(&mut self, header: Option<&[u8]>) {
        self.is_continued = true;
        self.columns = header.and_then(|header| self.w3c.columns(&String::from_utf8_lossy(header)));
    }
}

/// Returns a field as a value, which may have escapes.
fn log(text: &str) -> FieldValue<'_> {
    if text.contains('\\') { FieldValue::Log(text) } else { FieldValue::Plain(text) }
}

/// Splits off the quoted text at the start, still escaped and without its quotes.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let end = closing_quote(inner.as_bytes(), 0)?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// The offset of the first quote from `at` on that isn't escaped.
fn closing_quote(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}
