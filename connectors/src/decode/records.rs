//! From a text of JSON to its records: one object, an array of objects, or objects one after the other
//! (newline-delimited or back to back), in any mixture.
//!
//! One bad record is one dead letter; the others go on as far as they can be told apart:
//! * a record whose fields are wrong, or that the caps refuse, ends where its brackets end;
//! * a record that isn't JSON ends where a line begins with `{` or `[`: texts can't hold a raw newline. In an
//!   array nothing tells where the next element begins: the rest of the text is one dead letter;
//! * a record with bytes that aren't UTF-8 is delimited as if they were question marks.
//!
//! Limits: `limits.message_records` of a message's records (the rest is one dead letter), `limits.json_depth` and
//! `limits.json_fields` of a record; time and memory are linear in the text's length.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use keytide_config::Source;

use super::Context;
use super::canonical::Canonical;
use super::message::{Ledger, Outer, Records};
use super::raw::RawEvent;
use super::reader::{Caps, Reader, Unreadable};
use super::shape::{Format, Shape};

/// Reads the records of one source whose format is JSON.
pub(super) struct JsonRecords {
    shape: Shape,
    canonical: Canonical,
    caps: Caps,
}

impl JsonRecords {
    pub(super) fn new(source: &Source, format: &Format, context: &Context) -> Self {
        let shape = Shape::new(source, format);
        let mut canonical = Canonical::new(source, shape.time, shape.latency, context);
        // Who maps the field vouches for it.
        if format.ids_of_callers && source.fields.request_id.is_none() {
            canonical.distrust_ids();
        }
        Self { shape, canonical, caps: caps(context) }
    }
}

impl Records for JsonRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let Self { shape, canonical, caps } = self;
        let first = ledger.records();
        walk(text, *caps, ledger, |reader, text, ledger| {
            let start = reader.at();
            let id = outer.request_id(ledger.records() - first);
            let mut raw = RawEvent::default();
            shape.read(reader, &mut raw)?;
            match text.record(start..reader.at()) {
                Ok(record) if outer.is_silent() => ledger.enter(canonical, &raw, record),
                Ok(record) => ledger.enter(canonical, &outer.completed(raw, id.as_deref()), record),
                Err(record) => ledger.refuse(record, NOT_UTF8.to_owned()),
            }
            Ok(ControlFlow::Continue(()))
        });
    }
}

/// Why a record is refused that has other bytes.
pub(super) const NOT_UTF8: &str = "not UTF-8";

/// What one record may hold.
pub(super) fn caps(context: &Context) -> Caps {
    Caps { depth: context.limits.json_depth, members: context.limits.json_fields }
}

/// A text whose objects are read.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    text: &'a str,
    /// Whether all of it is UTF-8.
    clean: bool,
}

impl<'a> Text<'a> {
    /// The bytes of a part of it; an error where they aren't UTF-8.
    #[inline]
    pub(super) fn record(&self, part: Range<usize>) -> Result<&'a [u8], &'a [u8]> {
        let record = &self.bytes[part];
        if self.clean || simdutf8::basic::from_utf8(record).is_ok() { Ok(record) } else { Err(record) }
    }

    /// The bytes of a part of it, whatever they are.
    pub(super) fn bytes(&self, part: Range<usize>) -> &'a [u8] {
        &self.bytes[part]
    }

    /// The text, with question marks for bytes that aren't UTF-8.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }
}

/// Hands all objects of a text over, one after the other: `object` is called with the reader at an object, moves it
/// behind the object and accounts for it. What isn't an object, and objects that `object` can't read, are accounted
/// for here.
pub(super) fn walk(
    bytes: &[u8],
    caps: Caps,
    ledger: &mut Ledger<'_>,
    object: impl FnMut(&mut Reader<'_>, &Text<'_>, &mut Ledger<'_>) -> Result<ControlFlow<()>, Unreadable>,
) {
    let (text, clean) = match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), true),
        Err(_) => (Cow::Owned(with_question_marks(bytes)), false),
    };
    let mut reader = Reader::new(&text, caps);
    if reader.token().is_none() {
        return ledger.refuse(bytes, "empty message; expected a JSON object".to_owned());
    }
    let mut walk = Walk { text: Text { bytes, text: &text, clean }, caps, ledger, object };
    while let Some(token) = reader.token() {
        let flow = if token == b'[' { walk.array(&mut reader) } else { walk.record(&mut reader, false) };
        if flow.is_break() {
            break;
        }
    }
}

struct Walk<'w, 'a, 'o, F> {
    text: Text<'a>,
    caps: Caps,
    ledger: &'w mut Ledger<'o>,
    object: F,
}

impl<'a, F> Walk<'_, 'a, '_, F>
where
    F: FnMut(&mut Reader<'_>, &Text<'_>, &mut Ledger<'_>) -> Result<ControlFlow<()>, Unreadable>,
{
    fn array(&mut self, reader: &mut Reader<'a>) -> ControlFlow<()> {
        reader.restart(reader.at() + 1);
        let mut first = true;
        loop {
            match (reader.token(), first) {
                (Some(b']'), _) => {
                    reader.restart(reader.at() + 1);
                    return ControlFlow::Continue(());
                }
                (Some(b','), false) => {
                    reader.restart(reader.at() + 1);
                    reader.token();
                }
                (Some(_), true) => {}
                (token, _) => {
                    let expected = if token.is_some() { "`,` or `]` behind a record" } else { "`]`" };
                    let fault = Unreadable::Syntax { expected, at: reader.at() };
                    self.refuse(fault, reader.at(), self.text.text.len());
                    return ControlFlow::Break(());
                }
            }
            first = false;
            self.record(reader, true)?;
        }
    }

    /// Has the record read at which the reader stands, and moves the reader behind it.
    fn record(&mut self, reader: &mut Reader<'a>, in_array: bool) -> ControlFlow<()> {
        let start = reader.at();
        if self.ledger.is_full() {
            self.ledger.beyond(&self.text.bytes[start..]);
            return ControlFlow::Break(());
        }
        reader.restart(start);
        let read = if reader.token() == Some(b'{') {
            (self.object)(reader, &self.text, self.ledger)
        } else {
            reader.value().map(|_| {
                let record = &self.text.bytes[start..reader.at()];
                self.ledger.refuse(record, "a record must be a JSON object".to_owned());
                ControlFlow::Continue(())
            })
        };
        match read {
            Ok(flow) => flow,
            Err(fault) => self.recover(fault, start, reader, in_array),
        }
    }

    /// Makes the record at `start` a dead letter and moves the reader to where the next may begin.
    #[cold]
    fn recover(
        &mut self,
        fault: Unreadable,
        start: usize,
        reader: &mut Reader<'a>,
        in_array: bool,
    ) -> ControlFlow<()> {
        let text = self.text.text;
        let end = match fault {
            // What is missing at the end of a line is missed where the next one begins.
            Unreadable::Syntax { at, .. } if !in_array && at > start => next_line(text, at - 1),
            Unreadable::Syntax { at, .. } if !in_array => next_line(text, at),
            Unreadable::Syntax { .. } => None,
            Unreadable::TooDeep | Unreadable::TooManyMembers => {
                let failed_at = reader.at();
                reader.delimit(start).or_else(|| next_line(text, failed_at).filter(|_| !in_array))
            }
        };
        self.refuse(fault, start, end.unwrap_or(text.len()));
        reader.restart(end.unwrap_or(text.len()));
        if end.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn refuse(&mut self, fault: Unreadable, start: usize, end: usize) {
        let end = start + self.text.text[start..end].trim_end().len();
        self.ledger.refuse(&self.text.bytes[start..end], told(fault, start, self.caps));
    }
}

/// Why the record at `start` can't be read.
pub(super) fn told(fault: Unreadable, start: usize, caps: Caps) -> String {
    let Caps { depth, members } = caps;
    match fault {
        Unreadable::Syntax { expected, at } => {
            format!("not JSON: expected {expected} at byte {}", at.saturating_sub(start))
        }
        Unreadable::TooDeep => format!("nested more than {depth} levels deep (limits.json_depth)"),
        Unreadable::TooManyMembers => format!("more than {members} members (limits.json_fields)"),
    }
}

/// Where the next line that begins with a bracket begins.
fn next_line(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|newline| from + newline + 1)
        .find(|line| matches!(bytes.get(*line), Some(b'{' | b'[')))
}

/// The message with a question mark for each byte that isn't UTF-8: everything else stays where it is.
fn with_question_marks(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for chunk in message.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}
