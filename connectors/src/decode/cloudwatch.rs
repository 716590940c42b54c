//! Log events of a subscription of Amazon CloudWatch Logs. Each is one record in the source's inner format.
//!
//! ```text
//! {"messageType":"DATA_MESSAGE", .., "logEvents":[{"id":"..","timestamp":MS,"message":"{\"requestId\": .. }"}, ..]}
//! ```
//! * Envelopes come one by one, in arrays, newline-delimited, or back to back as Firehose writes them by default. They
//!   may be compressed.
//! * CloudWatch probes a destination with a `CONTROL_MESSAGE`, which is passed over. Any other type but `DATA_MESSAGE`
//!   is a dead letter, and so is an object that is no envelope.
//! * A log event's `message` is a text in the inner format, which is a line or JSON. `id` is the request id of a record
//!   that has none, or one that its caller may have chosen. `timestamp` (ms) is the time of a record without one. If a
//!   message holds several records, those behind the first have the request ids `id#1`, `id#2`, ...
//! * A log event must have a text `message`; its `id`, if present, must be a text, and its `timestamp` a number. Any
//!   other is one dead letter, and so is a bad record in it. Its neighbours are still read. An envelope that isn't JSON
//!   is one dead letter as a whole.
//! * Two wrappers carry envelopes as base64 of (mostly compressed) bytes and are taken off. One is the request that
//!   Firehose sends to HTTP endpoints, `{"records":[{"data":".."}]}`. The other is the event of a Lambda function,
//!   `{"awslogs":{"data":".."}}`. Wrappers within wrappers stay.
//!
//! Limits: those of JSON records, for the envelope without its log events, for each log event, and for the record in
//! it. `limits.decompressed_bytes` holds for everything together that is taken out of the base64 of one text.

use std::ops::{ControlFlow, Range};

use keytide_config::Limits;

use super::Context;
use super::base64;
use super::bytes::{carried, restored};
use super::is_large;
use super::message::{Ledger, Outer, RecordReader, inflate, is_gzip};
use super::reader::{JsonError, JsonReader};
use super::records::{ObjectVisitor, each, walk};
use super::value::FieldValue;

/// Reads the log events of CloudWatch's envelopes as records of the inner format.
pub(super) struct CloudWatch {
    limits: Limits,
    events: LogEvents,
    wrapped: Wrapped,
}

/// Reads single log events as records.
struct LogEvents {
    inner: Box<dyn RecordReader>,
    message: String,
    id: String,
}

/// Takes wrappers off, into buffers that are used again.
#[derive(Default)]
struct Wrapped {
    /// The number of bytes that may still be decompressed.
    room: usize,
    base64: String,
    bytes: Vec<u8>,
    inflated: Vec<u8>,
}

impl CloudWatch {
    pub(super) fn new(inner: Box<dyn RecordReader>, context: &Context) -> Self {
        let events = LogEvents { inner, message: String::new(), id: String::new() };
        Self { limits: context.limits, events, wrapped: Wrapped::default() }
    }
}

impl RecordReader for CloudWatch {
    fn read(&mut self, text: &[u8], _: Outer<'_>, ledger: &mut Ledger<'_>) {
        let Self { limits, events, wrapped } = self;
        wrapped.room = limits.decompressed_bytes;
        walk(&carried(text), ledger, &mut EnvelopeWrappers { limits, events, wrapped });
        if is_large(wrapped.base64.capacity() + wrapped.bytes.capacity() + wrapped.inflated.capacity()) {
            *wrapped = Wrapped::default();
        }
        if is_large(events.message.capacity()) {
            events.message = String::new();
        }
    }
}

/// An object of a message: an envelope, or a wrapper of envelopes.
struct CloudWatchObject<'a> {
    place: Range<usize>,
    kind: FieldValue<'a>,
    /// Where the array of log events begins.
    events: Option<usize>,
    /// Where what is wrapped begins.
    wrapped: Option<usize>,
}

impl<'a> CloudWatchObject<'a> {
    fn read(reader: &mut JsonReader<'a>) -> Result<Self, JsonError> {
        let start = reader.at();
        let names = ["messageType", "logEvents", "records", "awslogs"];
        let [(_, kind), events, records, awslogs] = reader.members(names)?;
        let array = |(at, value)| matches!(value, FieldValue::Array(_)).then_some(at);
        let object = |(at, value)| matches!(value, FieldValue::Object).then_some(at);
        Ok(Self {
            place: start..reader.at(),
            kind,
            events: array(events),
            wrapped: array(records).or(object(awslogs)),
        })
    }
}

/// Reads objects that are envelopes, or wrappers of them.
struct EnvelopeWrappers<'r> {
    limits: &'r Limits,
    events: &'r mut LogEvents,
    wrapped: &'r mut Wrapped,
}

impl ObjectVisitor for EnvelopeWrappers<'_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        _: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        let Self { limits, events, wrapped } = self;
        let object = CloudWatchObject::read(reader)?;
        Ok(match object.wrapped {
            Some(at) if object.kind.is_empty() => each(text, at, ledger, |reader, ledger| {
                let start = reader.at();
                match wrapped.take_off(reader, limits) {
                    Ok(data) => walk(&carried(data), ledger, &mut CloudWatchEnvelopes(events)),
                    Err(reason) => ledger.refuse(&text[start..reader.at()], reason),
                }
                ControlFlow::Continue(())
            }),
            _ => events.envelope(&object, text, ledger),
        })
    }
}

/// Reads objects that are envelopes.
struct CloudWatchEnvelopes<'r>(&'r mut LogEvents);

impl ObjectVisitor for CloudWatchEnvelopes<'_> {
    fn object<'a>(
        &mut self,
        reader: &mut JsonReader<'a>,
        text: &'a str,
        _: bool,
        ledger: &mut Ledger<'_>,
    ) -> Result<ControlFlow<()>, JsonError> {
        let object = CloudWatchObject::read(reader)?;
        Ok(self.0.envelope(&object, text, ledger))
    }
}

/// The values of some members of the object at which the reader stands, or `None` if it is no object.
fn members<'a, const N: usize>(reader: &mut JsonReader<'a>, names: [&str; N]) -> Option<[FieldValue<'a>; N]> {
    let mut object = reader.clone();
    // Its brackets were matched before.
    let _ = reader.value();
    Some(object.members(names).ok()?.map(|(_, value)| value))
}

impl LogEvents {
    /// Reads the log events of an envelope.
    fn envelope(
        &mut self,
        object: &CloudWatchObject<'_>,
        text: &str,
        ledger: &mut Ledger<'_>,
    ) -> ControlFlow<()> {
        let reason = match object.kind.text(&mut self.id) {
            Ok(Some("CONTROL_MESSAGE")) => return ControlFlow::Continue(()),
            Ok(Some("DATA_MESSAGE")) => match object.events {
                Some(at) => {
                    return each(text, at, ledger, |reader, ledger| {
                        self.log_event(reader, text, ledger);
                        ControlFlow::Continue(())
                    });
                }
                None => "logEvents: must be an array",
            },
            Ok(None) => "messageType: missing; expected what a subscription of CloudWatch Logs delivers",
            _ => "messageType: must be DATA_MESSAGE or CONTROL_MESSAGE",
        };
        ledger.refuse(&text[object.place.clone()], reason.to_owned());
        ControlFlow::Continue(())
    }

    fn log_event(&mut self, reader: &mut JsonReader<'_>, text: &str, ledger: &mut Ledger<'_>) {
        const SHAPE: &str =
            "logEvents: each must be an object with a text `message`, a text `id` and a number `timestamp`";
        let Self { inner, message, id } = self;
        let start = reader.at();
        let found = members(reader, ["id", "timestamp", "message"]);
        match found.and_then(|found| log_event(found, id, message)) {
            Some((outer, message)) => inner.read(&restored(message), outer, ledger),
            None => ledger.refuse(&text[start..reader.at()], SHAPE.to_owned()),
        }
    }
}

/// A log event's own members and its message, or `None` if one of them has a wrong type.
fn log_event<'t>(
    [id, time_ms, message]: [FieldValue<'t>; 3],
    id_buffer: &'t mut String,
    message_buffer: &'t mut String,
) -> Option<(Outer<'t>, &'t str)> {
    let id = match id {
        FieldValue::Missing => None,
        id => Some(id.string(id_buffer)?).filter(|id| !id.is_empty()),
    };
    let known = matches!(time_ms, FieldValue::Missing | FieldValue::Number(_));
    Some((Outer { id, time_ms: known.then_some(time_ms)?, met: 0 }, message.string(message_buffer)?))
}

impl Wrapped {
    /// Returns the bytes in the wrapper at which the reader stands.
    ///
    /// # Errors
    /// Returns the reason if they can't be decoded, or are too long.
    fn take_off(&mut self, reader: &mut JsonReader<'_>, limits: &Limits) -> Result<&[u8], String> {
        let Self { room, base64, bytes, inflated } = self;
        let data = members(reader, ["data"]).and_then(|[data]| data.string(base64));
        data.and_then(|data| base64::decode(data.as_bytes(), bytes))
            .ok_or("base64: a wrapper of envelopes must hold it as a text `data`")?;
        if !is_gzip(bytes) {
            return Ok(bytes);
        }
        inflate(bytes, limits, *room, inflated)?;
        *room -= inflated.len();
        Ok(inflated)
    }
}
