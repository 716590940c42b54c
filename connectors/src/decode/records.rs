//! Splits a text of JSON into its records. A text is one object, an array of objects, or objects one after the other,
//! in any mixture. Objects may be newline-delimited, back to back, or joined by commas. Records may also stand within
//! records.
//!
//! One bad record is one dead letter. The others are read as far as their beginnings can be found:
//! * A record whose fields are wrong ends where its brackets end.
//! * A record that isn't JSON ends before a line that begins with `{` or `[`, as texts can't hold a raw line feed. In
//!   an array the beginning of the next element is unknown, so the rest of the text is one dead letter.
//!
//! **Wrappers.** A record that isn't a call's may hold one at a place that `unwrap` or `records` of the source name: an
//! object, an array, or a text that holds JSON. Then the inner record is read. So it is in a text of JSON that is a
//! record itself, and in the line of a container's log. A call's record is never taken for a wrapper, because its
//! caller may have written what it holds there.
//!
//! **Templates.** In a template that escapes no values, a caller can end its own value and write members, or whole
//! records. A line of such a format is one record, or many with the same names, as Firehose and some batching plugins
//! join them. A line that isn't JSON, or holds something else, is read by the order of the names in it
//! ([`super::unescaped`]).
//!
//! Limits: `limits.message_records` of a message's records (the rest is one dead letter), 4 wrappers within each other.
//! Time and memory are linear in the text's length. A record whose brackets aren't closed is read to the end of the
//! text before it is refused. Once that sums up to 64 times the text's length, the rest is one dead letter.

use std::ops::{ControlFlow, Range};

use keytide_config::Source;

use super::Context;
use super::bytes::carried;
use super::canonical::Canonical;
use super::container::behind_agents;
use super::message::{Ledger, Outer, RecordReader};
use super::raw::{EventField, RawEvent};
use super::reader::{JsonError, JsonReader};
use super::shape::{HIDDEN, RecordFormat, Shape, Template};
use super::unescaped::{self, MendedForm};
use super::value::FieldValue;

/// The number of wrappers within each other that are taken off.
pub(super) const WRAPPERS: usize = 4;
/// How often a text's length may be read in vain, behind records whose brackets aren't closed.
const READ_IN_VAIN: usize = 64;

/// The fields that objects state for all records within them, read once for all of these.
pub(super) type Around<'a> = Result<RawEvent<'a>, JsonError>;

/// Reads the records of one source whose format is JSON.
pub(super) struct JsonRecords {
    shape: Shape,
    canonical: Canonical,
    template: Template,
}

impl JsonRecords {
    pub(super) fn new(source: &Source, format: &RecordFormat, context: &Context) -> Self {
        let shape = Shape::new(source, format);
        let mut canonical = Canonical::new(source, shape.units, context);
        // An operator that maps the field vouches for it.
        if format.ids_of_callers && source.fields.request_id.is_none() {
            canonical.distrust_ids();
        }
        Self { shape, canonical, template: format.template }
    }

    /// Returns a visitor of the objects of a text.
    pub(super) fn objects<'o>(&mut self, outer: Outer<'o>, ledger: &Ledger<'_>) -> Objects<'_, 'o> {
        let Self { shape, canonical, template } = self;
        Objects {
            shape,
            canonical,
            template: *template,
            outer,
            first: ledger.records(),
            depth: 0,
            alike_to: 0,
        }
    }
}

impl RecordReader for JsonRecords {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        let mut objects = self.objects(outer, ledger);
        walk(&carried(text), ledger, &mut objects);
    }
}

/// Visits the objects of a text.
pub(super) trait ObjectVisitor {
    /// Moves the reader behind the object at which it stands, and accounts for it.
    ///
    /// # Errors
    /// Returns an error if it can't be read. Then nothing was accounted for.
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        in_array: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError>;

    /// Accounts for a text among the records if it holds records. Returns whether it does.
    fn text(&mut self, _text: FieldValue<'_>, _ledger: &mut Ledger<'_>) -> bool {
        false
    }

    /// Accepts the records before this byte without another look at what follows them.
    fn trust(&mut self, _to: usize) {}

    /// Tries to read a line that isn't JSON, or holds more than its record. Returns whether it could be read and was
    /// accounted for.
    ///
    /// # Errors
    /// Returns the reason if the line looks like a template's and can't be read.
    fn mend(
        &mut self,
        _line: &str,
        _fault: JsonError,
        _ledger: &mut Ledger<'_>,
    ) -> Result<bool, &'static str> {
        Ok(false)
    }
}

/// Reads the objects as records of a shape.
pub(super) struct Objects<'r, 'o> {
    shape: &'r Shape,
    canonical: &'r mut Canonical,
    template: Template,
    outer: Outer<'o>,
    /// The number of the message's records before this text.
    first: u32,
    depth: usize,
    /// The end of the part of a line whose records are known to be alike.
    alike_to: usize,
}

impl Objects<'_, '_> {
    /// Returns whether a record may end where an object does. On a line of a template nothing follows, unless a caller
    /// wrote it. But Firehose puts API Gateway's records one behind the other, without anything between, and these are
    /// all alike.
    fn may_end(&mut self, text: &str, start: usize, end: usize) -> bool {
        // Only the first byte is looked at, as the line may have many records.
        let next = behind_blanks(&text[end..]);
        match self.template {
            _ if next.is_empty() || next.starts_with('\n') => true,
            Template::None => true,
            // Some batching plugins join what they encode by commas.
            Template::Escaped => match next.strip_prefix(',') {
                Some(joined) if behind_blanks(joined).starts_with('{') => self.are_alike(text, start..end),
                Some(_) => true,
                // Here another record begins, or a caller's quote ended this one.
                None => next.starts_with(['{', '[']),
            },
            Template::Line => false,
            Template::Unescaped => self.outer.id.is_none() && self.are_alike(text, start..end),
        }
    }

    /// Returns whether the objects that follow the one at `place` on its line are like it.
    fn are_alike(&mut self, text: &str, place: Range<usize>) -> bool {
        let rest = &text[place.end..];
        let rest = &rest[..memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len())];
        let end = place.end + rest.len();
        let alike = are_alike(&text[place], rest);
        if alike {
            self.alike_to = end;
        }
        alike
    }

    /// Reads the records in a wrapper that meets the conditions `met`.
    fn unwrapped(&mut self, text: &str, met: u64, ledger: &mut Ledger<'_>) {
        let outer = Outer { met: self.outer.met | met, ..self.outer };
        let Self { shape, canonical, template, first, depth, .. } = self;
        let mut objects = Objects {
            shape,
            canonical,
            template: *template,
            outer,
            first: *first,
            depth: *depth + 1,
            alike_to: 0,
        };
        walk(text, ledger, &mut objects);
    }

    /// Returns the fields of all records within an object. They are those that hold `outside` of it, and its own, which
    /// stand at `at` of the text. Its own are read as if they were the member `name` of each record.
    pub(super) fn around<'a>(
        &self,
        outside: &Around<'a>,
        name: &str,
        text: &'a str,
        at: Option<usize>,
    ) -> Around<'a> {
        let mut raw = outside.clone()?;
        if let Some(at) = at {
            let mut reader = JsonReader::new(text);
            reader.restart(at);
            self.shape.read_member(name, &mut reader, &mut raw)?;
        }
        Ok(raw)
    }

    /// Reads the record at which the reader stands, and moves the reader behind it. Fields that the record lacks are
    /// taken from `around` it.
    pub(super) fn within<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        around: &Around<'a>,
        ledger: &mut Ledger<'_>,
    ) {
        let start = reader.at();
        let whole;
        let mut read = around.clone().and_then(|mut raw| {
            self.shape.read(&mut reader.clone(), &mut raw)?;
            Ok(raw)
        });
        // Its brackets were matched before.
        let _ = reader.value();
        let record = &text[start..reader.at()];
        if let Ok(raw) = &read
            && let Some(text) = expanded(record, &raw.nested, start)
        {
            whole = text;
            read = around.clone().and_then(|mut raw| {
                self.shape.read(&mut JsonReader::new(&whole), &mut raw)?;
                Ok(raw)
            });
        }
        match read {
            Ok(raw) => self.enter(raw, record, ledger),
            Err(fault) => ledger.refuse(record, fault.reason(start)),
        }
    }

    #[inline]
    fn enter(&mut self, raw: RawEvent<'_>, record: &str, ledger: &mut Ledger<'_>) {
        if self.outer.is_empty() {
            // A raw event is a kilobyte, and mostly it isn't moved.
            return enter(self.shape, self.canonical, &raw, record, ledger);
        }
        let id = self.outer.request_id(ledger.records() - self.first);
        let raw = self.outer.completed(raw, id.as_deref(), self.canonical.ids_of_callers());
        enter(self.shape, self.canonical, &raw, record, ledger);
    }
}

/// Accounts for a record that could be read.
#[inline]
pub(super) fn enter(
    shape: &Shape,
    canonical: &mut Canonical,
    raw: &RawEvent<'_>,
    record: &str,
    ledger: &mut Ledger<'_>,
) {
    if !shape.is_wanted(raw) || canonical.stands_for_none(raw) {
        ledger.pass_over();
    } else if shape.is_call(raw) {
        ledger.enter(canonical, raw, record);
    } else {
        ledger.refuse(record, NOT_A_CALL.to_owned());
    }
}

/// Cuts off blanks at the start of a text, but no line ends.
fn behind_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\x0C'])
}

/// The expectation that a record with something behind it on its line doesn't meet.
const LINE_END: &str = "the line's end behind its record";

/// The reason of a record that has a time and nothing of a call.
pub(super) const NOT_A_CALL: &str = "not a call: neither status nor method, path or route; `[source.only]` can say \
                                     which records are calls, so that others are passed over";

impl ObjectVisitor for Objects<'_, '_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        in_array: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        let start = reader.at();
        let mut raw = RawEvent::default();
        self.shape.read(reader, &mut raw)?;
        let end = reader.at();
        let record = &text[start..end];
        if !in_array && end >= self.alike_to && !self.may_end(text, start, end) {
            return Err(JsonError { expected: LINE_END, at: end });
        }
        if !raw.nested.is_empty()
            && self.depth < WRAPPERS
            && let Some(expanded) = expanded(record, &raw.nested, start)
        {
            self.unwrapped(&expanded, raw.met, ledger);
            return Ok(ControlFlow::Continue(()));
        }
        // An agent's `path` alone makes no call, as every call's record has its time.
        let is_call = raw.is_call() && !(raw.get(EventField::Time).is_empty() && self.outer.is_empty());
        if !raw.get(EventField::Wrapped).is_empty() && !is_call && self.depth < WRAPPERS {
            let mut buffer = String::new();
            if let Some(inner) = json(raw.get(EventField::Wrapped), &mut buffer) {
                self.unwrapped(inner, raw.met, ledger);
                return Ok(ControlFlow::Continue(()));
            }
        }
        self.enter(raw, record, ledger);
        Ok(ControlFlow::Continue(()))
    }

    fn trust(&mut self, to: usize) {
        self.alike_to = to + 1;
    }

    fn text(&mut self, text: FieldValue<'_>, ledger: &mut Ledger<'_>) -> bool {
        let mut buffer = String::new();
        match json(text, &mut buffer) {
            Some(inner) if self.depth < WRAPPERS => {
                self.unwrapped(inner, 0, ledger);
                true
            }
            _ => false,
        }
    }

    fn mend(&mut self, line: &str, fault: JsonError, ledger: &mut Ledger<'_>) -> Result<bool, &'static str> {
        if self.template == Template::None {
            return Ok(false);
        }
        let is_hidden = fault.expected == HIDDEN;
        let form = if is_hidden { MendedForm::Flat } else { MendedForm::Nested };
        // A caller's brackets needn't match each other.
        let may_be_flat = !is_hidden && self.template != Template::Escaped && has_brackets(line);
        let flat = JsonError { expected: HIDDEN, at: fault.at };
        let mended = match unescaped::mend(line, form) {
            Ok(Some(mended)) => mended,
            // It is an encoder's record that something follows.
            Err(_) if self.template == Template::Escaped && fault.expected == LINE_END => return Ok(false),
            Ok(None) => return Ok(false),
            Err(_) if may_be_flat => return self.mend(line, flat, ledger),
            Err(reason) => return Err(reason),
        };
        let mut reader = JsonReader::new(&mended);
        let mut raw = RawEvent::default();
        let read = self.shape.read(&mut reader, &mut raw);
        let is_read = read.is_ok() && reader.token().is_none();
        // A name that wasn't found leaves a value that is too long, and perhaps no field of a call.
        if !is_read || self.shape.is_wanted(&raw) && !self.shape.is_call(&raw) {
            if may_be_flat {
                return self.mend(line, flat, ledger);
            }
            // Without an odd quote the line is damaged otherwise.
            return if mended.contains('\\') { Err(unescaped::UNESCAPED) } else { Ok(false) };
        }
        raw.recovered = true;
        if is_hidden {
            raw.set_conflict(EventField::Key);
        }
        self.enter(raw, line, ledger);
        Ok(true)
    }
}

/// Returns whether there are brackets within the outermost ones.
fn has_brackets(line: &str) -> bool {
    let inner = line.get(1..line.len().saturating_sub(1)).unwrap_or_default();
    inner.contains(['{', '}', '[', ']'])
}

/// Hands over the elements of the array at `at`, or the one value that stands there instead. It stops once the message
/// has as many records as it may have. The array's brackets were matched before. `element` moves the reader behind the
/// element.
pub(super) fn each<'a>(
    text: &'a str,
    at: usize,
    ledger: &mut Ledger<'_>,
    mut element: impl FnMut(&mut JsonReader<'a>, &mut Ledger<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut reader = JsonReader::new(text);
    reader.restart(at);
    let is_array = reader.token() == Some(b'[') && reader.enter_array().is_ok();
    let mut first = true;
    loop {
        if is_array {
            let start = reader.at();
            match reader.element(&mut first) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Continue(()),
                Err(fault) => {
                    ledger.refuse(&text[start..], fault.reason(start));
                    return ControlFlow::Break(());
                }
            }
        }
        if ledger.is_full() {
            ledger.beyond(&text[reader.at()..]);
            return ControlFlow::Break(());
        }
        let before = reader.at();
        element(&mut reader, ledger)?;
        if !is_array {
            return ControlFlow::Continue(());
        }
        if reader.at() == before {
            // An element that can't be skipped ends the array.
            ledger.refuse(&text[before..], JsonError { expected: "a value", at: before }.reason(before));
            return ControlFlow::Break(());
        }
    }
}

/// Returns whether there is one value of JSON and nothing else.
pub(super) fn is_one_value(text: &str) -> bool {
    let mut reader = JsonReader::new(text);
    reader.value().is_ok() && reader.token().is_none()
}

/// Replaces a record's texts at `nested` by the JSON in them, where they hold one whole value. Returns `None` if none
/// does. The places are those of a text in which the record starts at `start`.
fn expanded(record: &str, nested: &[Range<usize>], start: usize) -> Option<String> {
    let (mut expanded, mut copied) = (String::with_capacity(record.len()), 0);
    let mut buffer = String::new();
    let end = start + record.len();
    // Other places are outside of the record.
    for place in nested.iter().filter(|place| place.start >= start && place.end <= end) {
        let text = &record[place.start - start..place.end - start];
        let inner = JsonReader::new(text).value().ok().and_then(|value| json(value, &mut buffer));
        if let Some(inner) = inner.filter(|inner| is_one_value(inner)) {
            expanded.push_str(&record[copied..place.start - start]);
            expanded.push_str(inner);
            copied = place.end - start;
        }
    }
    expanded.push_str(&record[copied..]);
    (copied > 0).then_some(expanded)
}

/// Returns whether the rest of a line is objects whose members have the names of `first`. Before each there is nothing,
/// or a comma.
fn are_alike(first: &str, rest: &str) -> bool {
    let Some(names) = names(&mut JsonReader::new(first)) else { return false };
    let mut reader = JsonReader::new(rest);
    while let Some(token) = reader.token() {
        if token == b',' {
            reader.restart(reader.at() + 1);
            if reader.token().is_none() {
                return true;
            }
        }
        if self::names(&mut reader).is_none_or(|others| others != names) {
            return false;
        }
    }
    true
}

/// The sorted names of the members of the object at which the reader stands, still escaped.
fn names<'a>(reader: &mut JsonReader<'a>) -> Option<Vec<&'a str>> {
    let mut names = Vec::new();
    reader.enter_object().ok()?;
    let mut first = true;
    while reader.member(&mut first).ok()? {
        names.push(reader.name().ok()?.verbatim());
        reader.value().ok()?;
    }
    names.sort_unstable();
    Some(names)
}

/// The JSON that a value is, or holds as text, unescaped into `buffer`.
fn json<'t>(value: FieldValue<'t>, buffer: &'t mut String) -> Option<&'t str> {
    let text = match value {
        FieldValue::Array(text) => text,
        text => text.string(buffer)?,
    };
    let inner = behind_agents(text);
    matches!(inner.trim_ascii_start().as_bytes().first(), Some(b'{' | b'[' | b'"')).then_some(inner)
}

/// Hands all objects of a text over, one after the other. Anything else, and objects that `visit` can't read, are
/// accounted for here.
pub(super) fn walk(text: &str, ledger: &mut Ledger<'_>, visit: &mut impl ObjectVisitor) {
    let text = behind_agents(text);
    let mut reader = JsonReader::new(text);
    if reader.token().is_none() {
        return ledger.refuse(text, "empty message; expected a JSON object".to_owned());
    }
    let mut walk = Walk { text, ledger, visit, in_vain: 0 };
    let mut behind_record = false;
    while let Some(token) = reader.token() {
        let flow = match token {
            b'[' => walk.array(&mut reader),
            b',' if behind_record => {
                reader.restart(reader.at() + 1);
                behind_record = false;
                // A comma may end the text.
                if matches!(reader.token(), Some(b'{' | b'[') | None) {
                    continue;
                }
                let at = reader.at();
                let fault = JsonError { expected: "a record behind `,`", at };
                walk.recover(fault, at, &mut reader, false)
            }
            _ => walk.record(&mut reader, false),
        };
        behind_record = matches!(token, b'{' | b'[');
        if flow.is_break() {
            break;
        }
    }
}

struct Walk<'w, 'a, 'o, V> {
    text: &'a str,
    ledger: &'w mut Ledger<'o>,
    visit: &'w mut V,
    /// The number of bytes that have to be read again.
    in_vain: usize,
}

impl<'a, V: ObjectVisitor> Walk<'_, 'a, '_, V> {
    fn array(&mut self, reader: &mut JsonReader<'a>) -> ControlFlow<()> {
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
                    let fault = JsonError { expected, at: reader.at() };
                    self.refuse(fault, reader.at(), self.text.len());
                    return ControlFlow::Break(());
                }
            }
            first = false;
            self.record(reader, true)?;
        }
    }

    /// Lets the visitor read the record at which the reader stands, and moves the reader behind it.
    fn record(&mut self, reader: &mut JsonReader<'a>, in_array: bool) -> ControlFlow<()> {
        let start = reader.at();
        if self.ledger.is_full() {
            self.ledger.beyond(&self.text[start..]);
            return ControlFlow::Break(());
        }
        let read = match reader.token() {
            Some(b'{') => self.visit.object(reader, self.text, in_array, self.ledger),
            _ => reader.value().map(|value| {
                let is_text = matches!(value, FieldValue::Plain(_) | FieldValue::Json(_));
                if !(is_text && self.visit.text(value, self.ledger)) {
                    // A line that only begins like JSON, such as one with a date, is one dead letter.
                    if !in_array && !matches!(reader.token(), None | Some(b'{' | b'[')) {
                        reader.restart(next_line(self.text, start).unwrap_or(self.text.len()));
                    }
                    let record = self.text[start..reader.at()].trim_end();
                    self.ledger.refuse(record, "a record must be a JSON object".to_owned());
                }
                ControlFlow::Continue(())
            }),
        };
        match read {
            Ok(flow) => flow,
            Err(fault) => self.recover(fault, start, reader, in_array),
        }
    }

    /// Accounts for the record at `start`, which can't be read, and moves the reader to a place where the next may
    /// begin.
    #[cold]
    fn recover(
        &mut self,
        fault: JsonError,
        start: usize,
        reader: &mut JsonReader<'a>,
        in_array: bool,
    ) -> ControlFlow<()> {
        let text = self.text;
        let mut unescaped = None;
        if !in_array {
            let end = memchr::memchr(b'\n', &text.as_bytes()[start..]).map_or(text.len(), |end| start + end);
            match self.visit.mend(text[start..end].trim_ascii_end(), fault, self.ledger) {
                Ok(true) => {
                    reader.restart(end);
                    return ControlFlow::Continue(());
                }
                // The record is whole, and the text behind it isn't its own.
                Ok(false) if fault.expected == LINE_END => {
                    self.visit.trust(end);
                    reader.restart(start);
                    return ControlFlow::Continue(());
                }
                Ok(false) => {}
                Err(reason) => unescaped = Some(reason),
            }
        }
        // Something missing at a line's end is noticed at the next line's beginning, or at the end of the text.
        let from = fault.at.saturating_sub(1).max(start);
        let end = (!in_array).then(|| next_line(text, from).or_else(|| next_line(text, start))).flatten();
        self.in_vain += end.map_or(0, |end| fault.at.saturating_sub(end));
        let end = end.filter(|_| self.in_vain / READ_IN_VAIN <= text.len());
        match unescaped {
            Some(reason) => {
                let end = end.unwrap_or(text.len());
                self.ledger.refuse(text[start..end].trim_end(), reason.to_owned());
            }
            None => self.refuse(fault, start, end.unwrap_or(text.len())),
        }
        reader.restart(end.unwrap_or(text.len()));
        if end.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn refuse(&mut self, fault: JsonError, start: usize, end: usize) {
        self.ledger.refuse(self.text[start..end].trim_end(), fault.reason(start));
    }
}

/// The offset of the next line that begins with a bracket.
fn next_line(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|newline| from + newline + 1)
        .find(|line| matches!(bytes.get(*line), Some(b'{' | b'[')))
}
