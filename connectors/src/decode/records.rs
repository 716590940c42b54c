//! From a message of JSON to its records: one object, an array of objects, or objects one after the other
//! (newline-delimited or back to back), in any mixture.
//!
//! One bad record is one dead letter; the others go on as far as they can be told apart:
//! * a record whose fields are wrong, or that the caps refuse, ends where its brackets end;
//! * a record that isn't JSON ends where a line begins with `{` or `[`: texts can't hold a raw newline. In an
//!   array nothing tells where the next element begins: the rest of the message is one dead letter;
//! * a record with bytes that aren't UTF-8 is delimited as if they were question marks.
//!
//! Limits: `limits.message_bytes` of a message, `limits.message_records` of its records (the rest is one dead
//! letter), `limits.json_depth` and `limits.json_fields` of a record; time and memory are linear in the
//! message's length.

use std::borrow::Cow;
use std::ops::ControlFlow;

use keytide_config::Source;
use keytide_dataflow::model::Position;

use super::canonical::Canonical;
use super::raw::RawEvent;
use super::reader::{Caps, Reader, Unreadable};
use super::shape::{Format, Shape};
use super::{Context, Decoded, Decoder, dead_letter, too_long};

/// Decodes the messages of one source whose format is JSON.
pub(super) struct JsonDecoder {
    shape: Shape,
    canonical: Canonical,
    caps: Caps,
    message_bytes: usize,
    message_records: usize,
}

impl JsonDecoder {
    pub(super) fn new(source: &Source, format: &Format, context: &Context) -> Self {
        let shape = Shape::new(source, format);
        let canonical = Canonical::new(source, shape.time, shape.latency, context);
        let limits = context.limits;
        Self {
            shape,
            canonical,
            caps: Caps { depth: limits.json_depth, members: limits.json_fields },
            message_bytes: limits.message_bytes,
            message_records: limits.message_records,
        }
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        if message.len() > self.message_bytes {
            return dead_letter(out, at, message, too_long(self.message_bytes), None);
        }
        let (text, clean) = match simdutf8::basic::from_utf8(message) {
            Ok(text) => (Cow::Borrowed(text), true),
            Err(_) => (Cow::Owned(with_question_marks(message)), false),
        };
        let mut reader = Reader::new(&text, self.caps);
        let mut run = Run { decoder: self, message, text: &text, clean, position: at, records: 0, out };
        if reader.token().is_none() {
            return dead_letter(
                run.out,
                at,
                message,
                "empty message; expected a JSON object".to_owned(),
                None,
            );
        }
        while let Some(token) = reader.token() {
            let flow = if token == b'[' { run.array(&mut reader) } else { run.record(&mut reader, false) };
            if flow.is_break() {
                break;
            }
        }
    }
}

/// The decoding of one message.
struct Run<'d, 'a> {
    decoder: &'d mut JsonDecoder,
    message: &'a [u8],
    text: &'a str,
    /// Whether the whole message is UTF-8.
    clean: bool,
    /// Of the next record.
    position: Position,
    records: usize,
    out: &'d mut Decoded,
}

impl<'a> Run<'_, 'a> {
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
                    return self.refuse(fault, reader.at(), self.text.len());
                }
            }
            first = false;
            self.record(reader, true)?;
        }
    }

    /// Decodes the record at which the reader stands, and moves the reader behind it.
    fn record(&mut self, reader: &mut Reader<'a>, in_array: bool) -> ControlFlow<()> {
        let start = reader.at();
        if self.records == self.decoder.message_records {
            let limit = self.decoder.message_records;
            let reason = format!("more than {limit} records in one message (limits.message_records)");
            self.push_dead_letter(start, self.text.len(), reason, None);
            return ControlFlow::Break(());
        }
        self.records += 1;
        reader.restart(start);
        if reader.token() != Some(b'{') {
            return match reader.value() {
                Ok(_) => {
                    let reason = "a record must be a JSON object".to_owned();
                    self.push_dead_letter(start, reader.at(), reason, None);
                    ControlFlow::Continue(())
                }
                Err(fault) => self.recover(fault, start, reader, in_array),
            };
        }
        let mut raw = RawEvent::default();
        match self.decoder.shape.read(reader, &mut raw) {
            Ok(()) => {
                let end = reader.at();
                if !self.clean && simdutf8::basic::from_utf8(&self.message[start..end]).is_err() {
                    self.push_dead_letter(start, end, "not UTF-8".to_owned(), None);
                } else if let Err(fault) = self.decoder.canonical.push(&raw, self.position, self.out) {
                    let kept = self.decoder.canonical.kept(&raw);
                    self.push_dead_letter(start, end, fault.to_string(), kept);
                } else {
                    self.position.index = self.position.index.saturating_add(1);
                }
                ControlFlow::Continue(())
            }
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
        let end = match fault {
            Unreadable::Syntax { at, .. } if !in_array => next_line(self.text, at),
            Unreadable::Syntax { .. } => None,
            Unreadable::TooDeep | Unreadable::TooManyMembers => {
                let failed_at = reader.at();
                reader.delimit(start).or_else(|| next_line(self.text, failed_at).filter(|_| !in_array))
            }
        };
        let flow = self.refuse(fault, start, end.unwrap_or(self.text.len()));
        reader.restart(end.unwrap_or(self.text.len()));
        if end.is_some() { ControlFlow::Continue(()) } else { flow }
    }

    fn refuse(&mut self, fault: Unreadable, start: usize, end: usize) -> ControlFlow<()> {
        let end = start + self.text[start..end].trim_end().len();
        let Caps { depth, members } = self.decoder.caps;
        let reason = match fault {
            Unreadable::Syntax { expected, at } => {
                format!("not JSON: expected {expected} at byte {}", at.saturating_sub(start))
            }
            Unreadable::TooDeep => format!("nested more than {depth} levels deep (limits.json_depth)"),
            Unreadable::TooManyMembers => format!("more than {members} members (limits.json_fields)"),
        };
        self.push_dead_letter(start, end, reason, None);
        ControlFlow::Break(())
    }

    fn push_dead_letter(&mut self, start: usize, end: usize, reason: String, kept: Option<Box<str>>) {
        dead_letter(self.out, self.position, &self.message[start..end], reason, kept);
        self.position.index = self.position.index.saturating_add(1);
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
