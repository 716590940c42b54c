//! CloudEvents 1.0 are read in three modes: structured (`application/cloudevents+json`), batched (a JSON array of
//! them), and binary over Kafka. In binary mode the attributes are headers `ce_...`, and the value is the data. The
//! payload is a usage event as `OpenMeter` has it.
//!
//! **One addressing for all modes.** A record in binary mode is read as if it were structured: attributes at the root
//! (`/time`, `/subject`, `/type`, extensions by their names), the payload below `/data`.
//!
//! | field | by default |
//! |---|---|
//! | request id | the event's identity, (source, id): both must be there |
//! | time | `/time`, RFC 3339 |
//! | consumer | `/subject` |
//! | API | `/source` |
//! | method, route, path, status | `/data/method`, `/data/route`, `/data/path`, `/data/status` |
//! | latency | `/data/duration_seconds`, `/data/duration_ms` |
//!
//! * The header `content-type` decides the mode. `application/cloudevents+json` and
//!   `application/cloudevents-batch+json` are structured; other forms of `application/cloudevents` are dead letters. In
//!   their absence a header `ce_specversion` means binary. Without either the value is read as structured, one event or
//!   many. Of headers of one name the last counts.
//! * `specversion` must be `1.0`, `id` and `source` texts that aren't empty; anything else is a dead letter. So is data
//!   that isn't JSON, in the value or as `data_base64`. An event without data has only its attributes.
//!
//! Limits: those of JSON records, and `limits.message_bytes` of a record's headers.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use keytide_config::{Source, Unit};

use super::bytes::carried;
use super::canonical::Canonical;
use super::is_large;
use super::message::{Ledger, Outer, RecordReader, too_long};
use super::raw::{EventField, RawEvent};
use super::reader::{JsonError, JsonReader};
use super::record::RecordBytes;
use super::records::{ObjectVisitor, walk};
use super::shape::{RecordFormat, Shape};
use super::value::{FieldValue, WrongType};
use super::{Context, Headers};

const FORMAT: RecordFormat = RecordFormat {
    fields: &[
        (EventField::Time, &["/time"]),
        (EventField::Api, &["/source"]),
        (EventField::Route, &["/data/route"]),
        (EventField::Path, &["/data/path"]),
        (EventField::Method, &["/data/method"]),
        (EventField::Status, &["/data/status"]),
        (EventField::Latency, &["/data/duration_seconds", "/data/duration_ms"]),
        (EventField::Consumer, &["/subject"]),
    ],
    units: &[("/time", Unit::Rfc3339), ("/data/duration_seconds", Unit::Seconds)],
    ..RecordFormat::EMPTY
};

/// Reads CloudEvents of one source, in all three modes.
pub(super) struct CloudEvents {
    events: Events,
    message_bytes: usize,
    /// A record in binary mode as if it were structured.
    structured: String,
}

/// Reads single events, whatever their mode.
struct Events {
    shape: Shape,
    canonical: Canonical,
    identity: String,
}

impl CloudEvents {
    pub(super) fn new(source: &Source, context: &Context) -> Self {
        let shape = Shape::new(source, &FORMAT);
        let canonical = Canonical::new(source, shape.units, context);
        Self {
            events: Events { shape, canonical, identity: String::new() },
            message_bytes: context.limits.message_bytes,
            structured: String::new(),
        }
    }
}

impl RecordReader for CloudEvents {
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        walk(&carried(text), ledger, &mut Structured { events: &mut self.events, outer });
    }

    fn read_message(&mut self, value: &[u8], headers: &dyn Headers, ledger: &mut Ledger<'_>) {
        let read = match self.attributes(headers) {
            Ok(Mode::Structured) => return self.read(value, Outer::default(), ledger),
            Ok(Mode::Binary) => self.binary(value, ledger),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = read {
            ledger.refuse(value, reason);
        }
        if is_large(self.structured.capacity()) {
            self.structured = String::new();
        }
    }
}

/// Reads objects that are events.
struct Structured<'r, 'o> {
    events: &'r mut Events,
    outer: Outer<'o>,
}

impl ObjectVisitor for Structured<'_, '_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        _: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        let start = reader.at();
        let mut raw = RawEvent::default();
        let judged = self.events.read(reader, &mut raw)?;
        self.events.enter(raw, judged, self.outer, &text[start..reader.at()], ledger);
        Ok(ControlFlow::Continue(()))
    }
}

enum Mode {
    Structured,
    Binary,
}

impl CloudEvents {
    /// Reads the mode from the headers, and writes the attributes as the beginning of a structured event.
    fn attributes(&mut self, headers: &dyn Headers) -> Result<Mode, String> {
        let Self { structured, message_bytes, .. } = self;
        structured.clear();
        structured.push('{');
        let (mut binary, mut length, mut content_type) = (false, 0, None);
        headers.each(&mut |name, value| {
            length += name.len() + value.len();
            if name.eq_ignore_ascii_case(b"content-type") {
                content_type = Some(String::from_utf8_lossy(value).trim().to_ascii_lowercase());
            }
            let Some(attribute) = name.strip_prefix(b"ce_").and_then(attribute) else { return };
            binary |= attribute == "specversion";
            if length <= *message_bytes {
                let _ = write!(structured, "\"{attribute}\":{},", serde_json::Value::from(&*carried(value)));
            }
        });
        if let Some(format) =
            content_type.as_deref().and_then(|kind| kind.strip_prefix("application/cloudevents"))
        {
            let format = format.split_once(';').map_or(format, |(format, _)| format).trim_end();
            return match format {
                "+json" | "-batch+json" => Ok(Mode::Structured),
                _ => Err("content-type: of cloudevents only application/cloudevents+json and \
                          application/cloudevents-batch+json are read"
                    .to_owned()),
            };
        }
        match binary {
            false => Ok(Mode::Structured),
            true if length > *message_bytes => Err(too_long(*message_bytes)),
            true => Ok(Mode::Binary),
        }
    }

    /// Reads an event in binary mode, whose attributes stand in `structured`.
    fn binary(&mut self, value: &[u8], ledger: &mut Ledger<'_>) -> Result<(), String> {
        let Self { events, structured, .. } = self;
        let data = carried(value);
        structured.push_str("\"data\":");
        // The data must be one whole value, so that none of it is taken for an attribute.
        match one_value(&data) {
            Ok(data) => structured.push_str(data),
            Err(fault) => return Err(fault.reason(0)),
        }
        structured.push('}');
        let mut reader = JsonReader::new(structured);
        let mut raw = RawEvent::default();
        match events.read(&mut reader, &mut raw) {
            Ok(judged) => events.enter(raw, judged, Outer::default(), value, ledger),
            Err(fault) => return Err(fault.reason(0)),
        }
        Ok(())
    }
}

/// The name of an attribute as the specification has it. The payload `data` is no attribute.
fn attribute(name: &[u8]) -> Option<&str> {
    let name = str::from_utf8(name).ok()?;
    let valid = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    (valid && !name.is_empty() && name != "data").then_some(name)
}

/// The only JSON value of a text, or null if the text is empty.
fn one_value(text: &str) -> Result<&str, JsonError> {
    let mut reader = JsonReader::new(text);
    if reader.token().is_none() {
        return Ok("null");
    }
    let start = reader.at();
    reader.value()?;
    let end = reader.at();
    match reader.token() {
        None => Ok(&text[start..end]),
        Some(_) => Err(JsonError { expected: "one JSON value as the data, and its end", at: end }),
    }
}

/// The reason why an event is refused, if it is.
type Judged = Result<(), &'static str>;

impl Events {
    /// Reads the event at which the reader stands, and writes its identity.
    fn read<'a>(&mut self, reader: &mut JsonReader<'a>, raw: &mut RawEvent<'a>) -> Result<Judged, JsonError> {
        let names = ["specversion", "id", "source", "data_base64"];
        let found = reader.clone().members(names)?;
        self.shape.read(reader, raw)?;
        Ok(judge(found.map(|(_, value)| value), &mut self.identity))
    }

    fn enter(
        &mut self,
        raw: RawEvent<'_>,
        judged: Judged,
        outer: Outer<'_>,
        record: &(impl RecordBytes + ?Sized),
        ledger: &mut Ledger<'_>,
    ) {
        if let Err(reason) = judged {
            return ledger.refuse(record, reason.to_owned());
        }
        let raw = outer.completed(raw, Some(&self.identity), false);
        if self.shape.is_wanted(&raw) {
            ledger.enter(&mut self.canonical, &raw, record);
        } else {
            ledger.pass_over();
        }
    }
}

/// Judges an event by its version, its id, its source and its data, and writes its identity.
fn judge([version, id, source, base64]: [FieldValue<'_>; 4], identity: &mut String) -> Judged {
    const ID: &str = "id: missing; an event needs a text that isn't empty";
    const SOURCE: &str = "source: missing; an event needs a text that isn't empty";
    let mut text = String::new();
    match (version, written(version, &mut text)) {
        (_, Ok("1.0")) => {}
        (FieldValue::Missing, _) => return Err("specversion: missing; expected an event of CloudEvents 1.0"),
        _ => return Err("specversion: must be 1.0"),
    }
    let source = written(source, &mut text).map_err(|WrongType| SOURCE)?;
    // With the length before it, so that no two pairs are written alike.
    identity.clear();
    let _ = write!(identity, "{}:{source}", source.len());
    identity.push_str(written(id, &mut text).map_err(|WrongType| ID)?);
    match base64 {
        FieldValue::Missing => Ok(()),
        _ => Err("data_base64: binary data isn't read, allowed: JSON as `data`"),
    }
}

/// A text that isn't empty.
fn written<'t>(value: FieldValue<'t>, buffer: &'t mut String) -> Result<&'t str, WrongType> {
    value.string(buffer).filter(|text| !text.is_empty()).ok_or(WrongType)
}
