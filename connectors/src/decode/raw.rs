//! What a format hands to the canonical step: values borrowed from the message, unconverted, everything
//! optional. Texts keep their escapes until somebody reads them, so that what nobody reads costs nothing.
//!
//! A [`RawEvent`] may hold raw keys: it has no `Debug`, and it never leaves the decoders.

use std::ops::Range;

use keytide_config::Unit;

use super::bytes::push_bytes;
use super::escape::{unescape_json, unescape_log};
use super::reader::Reader;
use super::route::argument_value;
use super::text::set_request;

/// Values of places of `[keys].from` that are held without allocating.
const PLACES: usize = 4;

/// The canonical fields, and what else identifies a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    RequestId,
    Time,
    Key,
    Api,
    Route,
    Path,
    Method,
    Status,
    Latency,
    BytesIn,
    BytesOut,
    ClientIp,
    ForwardedFor,
    Country,
    UserAgent,
    Consumer,
    Credential,
    User,
    /// The query, where the path has none.
    Query,
    /// The request line, `GET /x HTTP/1.1`, where method and path don't stand on their own.
    Request,
    /// When the call ended.
    End,
    /// How many calls the record stands for.
    Count,
    /// The gateway's own name of the route, where the path is what routes are made of.
    GatewayRoute,
    /// Only part of a content identity.
    Host,
    /// The record itself, where this one is a wrapper: an object, an array, or a text that holds JSON.
    Wrapped,
}

/// How many there are.
pub(super) const NAMES: usize = Name::ALL.len();

impl Name {
    /// All of them, in order.
    pub(super) const ALL: [Self; 25] = [
        Self::RequestId,
        Self::Time,
        Self::Key,
        Self::Api,
        Self::Route,
        Self::Path,
        Self::Method,
        Self::Status,
        Self::Latency,
        Self::BytesIn,
        Self::BytesOut,
        Self::ClientIp,
        Self::ForwardedFor,
        Self::Country,
        Self::UserAgent,
        Self::Consumer,
        Self::Credential,
        Self::User,
        Self::Query,
        Self::Request,
        Self::End,
        Self::Count,
        Self::GatewayRoute,
        Self::Host,
        Self::Wrapped,
    ];

    /// What the field is called in messages: its name in `[source.fields]`, where it has one.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::Time => "time",
            Self::Key => "key",
            Self::Api => "api",
            Self::Route | Self::GatewayRoute => "route",
            Self::Path => "path",
            Self::Method => "method",
            Self::Status => "status",
            Self::Latency => "latency",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::ClientIp => "client_ip",
            Self::ForwardedFor => "forwarded_for",
            Self::Country => "country",
            Self::UserAgent => "user_agent",
            Self::Consumer => "consumer",
            Self::Credential => "credential",
            Self::User => "user",
            Self::Query => "query",
            Self::Request => "request",
            Self::End => "end",
            Self::Count => "count",
            Self::Host => "host",
            Self::Wrapped => "record",
        }
    }
}

/// One value as it stands in the message.
// In three whole words: with a flag beside a tag of one byte, what is behind the tag is moved by words that begin at its
// second byte, and each such move waits for the stores before it.
#[repr(u64)]
#[derive(Clone, Copy, Default)]
pub(super) enum Value<'a> {
    /// Absent or null.
    #[default]
    Missing,
    /// `true` or `false`; the former is what a gateway logs for a bare query argument.
    Flag(bool),
    /// A number's digits.
    Number(&'a str),
    /// Text without escapes.
    Plain(&'a str),
    /// Text with the escapes of a JSON text.
    Json(&'a str),
    /// Text with the escapes of an httpd's log: `\"`, `\xHH`.
    Log(&'a str),
    /// A query argument as it stands in the query, percent-encoded, in a JSON text.
    Argument(&'a str),
    /// A JSON array, brackets included; what a gateway logs for a repeated header.
    Array(&'a str),
    /// A JSON object.
    Object,
}

/// A value of a type that its field can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

impl<'a> Value<'a> {
    /// Returns whether it says nothing: absent, null, `""` or `-`.
    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Missing | Self::Plain("" | "-"))
    }

    /// The value as text, unescaped into `buffer` where it has escapes; `None` where it says nothing. Of an
    /// array it is the first element that says something.
    #[inline]
    pub(super) fn text<'s>(self, buffer: &'s mut String) -> Result<Option<&'s str>, WrongType>
    where
        'a: 's,
    {
        match self {
            Self::Missing | Self::Plain("" | "-") => Ok(None),
            Self::Number(text) | Self::Plain(text) => Ok(Some(text)),
            other => other.converted(buffer),
        }
    }

    /// The rarer half of [`text`](Self::text).
    fn converted(self, buffer: &mut String) -> Result<Option<&str>, WrongType> {
        match self {
            Self::Missing | Self::Number(_) | Self::Plain(_) => Ok(None),
            Self::Json(escaped) => {
                unescape_json(escaped, buffer);
                Ok(Some(buffer))
            }
            Self::Log(escaped) => {
                unescape_log(escaped, buffer);
                Ok(Some(buffer))
            }
            Self::Argument(escaped) => {
                unescape_json(escaped, buffer);
                let value = argument_value(buffer);
                buffer.clear();
                push_bytes(&value, buffer);
                Ok(Some(buffer))
            }
            Self::Array(_) => match self.elements().find(|element| element.is_text()) {
                Some(Value::Number(text) | Value::Plain(text)) => {
                    buffer.clear();
                    buffer.push_str(text);
                    Ok(Some(buffer))
                }
                Some(element) => element.converted(buffer),
                None => Ok(None),
            },
            Self::Flag(_) | Self::Object => Err(WrongType),
        }
    }

    /// Returns whether it says the same as another value, as text.
    fn says_as(self, other: Self) -> bool {
        let (mut one, mut two) = (String::new(), String::new());
        self.text(&mut one) == other.text(&mut two)
    }

    fn is_text(self) -> bool {
        !self.is_empty() && matches!(self, Self::Number(_) | Self::Plain(_) | Self::Json(_))
    }

    /// An array's elements; any other value is its own only element.
    pub(super) fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let (mut array, mut single) = match self {
            // It was read once already: nothing here can fail.
            Self::Array(text) => {
                let mut reader = Reader::new(text);
                (reader.enter_array().ok().map(|()| (reader, true)), None)
            }
            other => (None, Some(other)),
        };
        std::iter::from_fn(move || match &mut array {
            Some((reader, first)) => reader.element(first).ok()?.then(|| reader.value().ok()).flatten(),
            None => single.take(),
        })
    }

    /// The value's text as it stands in the message, escapes and all.
    pub(super) fn verbatim(self) -> &'a str {
        match self {
            Self::Missing | Self::Flag(_) | Self::Object => "",
            Self::Number(text)
            | Self::Plain(text)
            | Self::Json(text)
            | Self::Log(text)
            | Self::Argument(text)
            | Self::Array(text) => text,
        }
    }
}

/// One record, borrowed from its message.
#[derive(Clone)]
pub(super) struct RawEvent<'a> {
    values: [Value<'a>; NAMES],
    /// The rank of the place that a field was found in, where it was.
    ranks: [u8; NAMES],
    /// What was found in places of `[keys].from`, by rule: the first ones, and those that no longer fit.
    places: [(u16, Value<'a>); PLACES],
    places_len: usize,
    more_places: Vec<(u16, Value<'a>)>,
    /// Secrets that can't become the key.
    further: Vec<Value<'a>>,
    time_unit: Option<Unit>,
    latency_unit: Option<Unit>,
    end_unit: Option<Unit>,
    /// A bit for each member that identifies the call, by [`Identity`]: it stood in the record.
    seen: [u64; IDENTITIES / 64],
    /// What of the identity stands twice, with different values.
    conflict: Option<Name>,
    /// The time that stands second, where two do.
    second_time: Option<(Value<'a>, Option<Unit>)>,
    /// Where texts stand that hold JSON of which something is asked for.
    pub(super) nested: Vec<Range<usize>>,
    /// True if its request id is that of what wraps it, which no caller chooses.
    pub(super) is_vouched_for: bool,
    /// True if it holds an unescaped quote, so that it was read by the order of its names.
    pub(super) recovered: bool,
    /// A bit for each condition of `[source.only]` that the record meets.
    pub(super) met: u64,
}

/// Without a field. Written out so that it is made where it stands: what derives makes is a kilobyte that is copied.
impl Default for RawEvent<'_> {
    #[inline]
    fn default() -> Self {
        Self {
            values: [Value::Missing; NAMES],
            ranks: [0; NAMES],
            places: [(0, Value::Missing); PLACES],
            places_len: 0,
            more_places: Vec::new(),
            further: Vec::new(),
            time_unit: None,
            latency_unit: None,
            end_unit: None,
            seen: [0; IDENTITIES / 64],
            conflict: None,
            second_time: None,
            nested: Vec::new(),
            is_vouched_for: false,
            recovered: false,
            met: 0,
        }
    }
}

/// A member that identifies the call: which of at most [`IDENTITIES`] of its shape.
pub(super) type Identity = u8;

/// Members that identify the call, at most. No shape has as many: OpenTelemetry's has six places for each of 16 names,
/// and for two of each of eight rules.
pub(super) const IDENTITIES: usize = 256;

impl<'a> RawEvent<'a> {
    /// The value of a field.
    pub(super) fn get(&self, name: Name) -> Value<'a> {
        self.values[name as usize]
    }

    /// Which of its places a field was found in.
    pub(super) fn rank(&self, name: Name) -> Option<u8> {
        (!self.get(name).is_empty()).then(|| self.ranks[name as usize])
    }

    /// Sets a field. A value that says nothing doesn't replace one that does.
    pub(super) fn set(&mut self, name: Name, value: Value<'a>) {
        if !value.is_empty() {
            self.values[name as usize] = value;
        }
    }

    /// Sets a field from one of several places, in the `unit` of this place where it has one of its own. Of places
    /// that say something the one of lowest rank counts, and of the same place its last value.
    #[inline]
    pub(super) fn set_from(&mut self, name: Name, rank: u8, value: Value<'a>, unit: Option<Unit>) {
        let at = name as usize;
        // A time of 0 is none, as OTLP defines it: any other goes before it.
        let rank = match (name, value) {
            (Name::Time | Name::End, Value::Plain("0") | Value::Number("0")) => u8::MAX,
            _ => rank,
        };
        if value.is_empty() || (self.ranks[at] < rank && !self.values[at].is_empty()) {
            return;
        }
        self.values[at] = value;
        self.ranks[at] = rank;
        match name {
            Name::Time => self.time_unit = unit,
            Name::Latency => self.latency_unit = unit,
            Name::End => self.end_unit = unit,
            _ => {}
        }
    }

    /// Returns whether a member that identifies the call stood in the record before; from now on it did.
    #[inline]
    pub(super) fn is_repeated(&mut self, identity: Identity) -> bool {
        let (seen, bit) = (&mut self.seen[usize::from(identity) / 64], 1 << (identity % 64));
        let repeated = *seen & bit != 0;
        *seen |= bit;
        repeated
    }

    /// A field of the call's identity that stands a second time in the same place: a caller may have written one of
    /// the two. The first counts, unless they differ: then neither does.
    #[cold]
    pub(super) fn again(&mut self, name: Name, rank: u8, value: Value<'a>, unit: Option<Unit>) {
        let at = name as usize;
        let first = if self.ranks[at] == rank { self.values[at] } else { Value::Missing };
        if !first.says_as(value) {
            self.conflict.get_or_insert(name);
            if name == Name::Time {
                self.second_time.get_or_insert((value, unit));
            }
        }
        if first.is_empty() {
            self.set_from(name, rank, value, unit);
        }
    }

    /// A place of `[keys].from` that stands a second time. Both values are secrets.
    #[cold]
    pub(super) fn place_again(&mut self, rule: u16, value: Value<'a>) {
        let first = self.places().find(|(of, _)| *of == rule).map_or(Value::Missing, |(_, first)| first);
        if !first.says_as(value) {
            self.conflict.get_or_insert(Name::Key);
        }
        self.set_place(rule, value);
    }

    /// The identity can't be told.
    pub(super) fn set_conflict(&mut self, name: Name) {
        self.conflict.get_or_insert(name);
    }

    /// What of the identity stands twice with different values.
    pub(super) fn conflict(&self) -> Option<Name> {
        self.conflict
    }

    /// The time that stands second, where two do.
    pub(super) fn second_time(&self) -> Option<(Value<'a>, Option<Unit>)> {
        self.second_time
    }

    /// Sets the time, in a unit of its own.
    pub(super) fn set_time(&mut self, value: Value<'a>, unit: Unit) {
        self.set(Name::Time, value);
        self.time_unit = Some(unit);
    }

    /// The time's unit, where it isn't the source's.
    pub(super) fn time_unit(&self) -> Option<Unit> {
        self.time_unit
    }

    /// The latency's unit, where it isn't the source's.
    pub(super) fn latency_unit(&self) -> Option<Unit> {
        self.latency_unit
    }

    /// The unit of the call's end, where it isn't the time's.
    pub(super) fn end_unit(&self) -> Option<Unit> {
        self.end_unit
    }

    /// Takes method and path from the request line, as [`set_request`] does.
    pub(super) fn split_request(&mut self) {
        match self.get(Name::Request) {
            Value::Plain(line) => set_request(self, line, Value::Plain),
            Value::Json(line) => set_request(self, line, Value::Json),
            Value::Log(line) => set_request(self, line, Value::Log),
            _ => {}
        }
    }

    /// Returns whether it says anything of a call: without a status, a method, a path and a route it is something else that
    /// has a time.
    pub(super) fn is_call(&self) -> bool {
        use Name::{Count, GatewayRoute, Method, Path, Request, Route, Status};
        [Status, Method, Path, Route, GatewayRoute, Request, Count]
            .iter()
            .any(|name| !self.get(*name).is_empty())
    }

    /// A time of a place whose unit is a text form is in `unit` after all where it is a number.
    pub(super) fn number_is(&mut self, unit: Unit) {
        let number = match self.get(Name::Time) {
            Value::Number(_) => true,
            Value::Plain(text) => text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
            _ => false,
        };
        if number && matches!(self.time_unit, Some(Unit::Rfc3339 | Unit::Clf)) {
            self.time_unit = Some(unit);
        }
    }

    /// Forgets a field.
    pub(super) fn clear(&mut self, name: Name) {
        self.values[name as usize] = Value::Missing;
    }

    /// Sets what was found in the place that rule `rule` of `[keys].from` names. Every value is kept: all of
    /// them are secrets, also those that don't become the key.
    pub(super) fn set_place(&mut self, rule: u16, value: Value<'a>) {
        if value.is_empty() {
            return;
        }
        match self.places.get_mut(self.places_len) {
            Some(place) => {
                *place = (rule, value);
                self.places_len += 1;
            }
            None => self.more_places.push((rule, value)),
        }
    }

    /// The values found in places of `[keys].from`, with their rules, as they were found.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = (u16, Value<'a>)> {
        self.places[..self.places_len].iter().chain(&self.more_places).copied()
    }

    /// A further value of a place: a secret that can't become the key.
    pub(super) fn add_secret(&mut self, value: Value<'a>) {
        if !value.is_empty() {
            self.further.push(value);
        }
    }

    /// Everything that was found in places of `[keys].from`.
    pub(super) fn secrets(&self) -> impl Iterator<Item = Value<'a>> {
        self.places().map(|(_, value)| value).chain(self.further.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_that_says_something() {
        let mut buffer = String::new();
        assert_eq!(Value::Array(r#"["", "-", null, true, "a\/b", "c"]"#).text(&mut buffer), Ok(Some("a/b")));
        assert_eq!(Value::Array("[]").text(&mut buffer), Ok(None));
        assert_eq!(Value::Array("[[\"x\"], {}]").text(&mut buffer), Ok(None));
        assert_eq!(Value::Array("[7]").text(&mut buffer), Ok(Some("7")));
        assert_eq!(Value::Flag(true).text(&mut buffer), Err(WrongType));
        assert_eq!(Value::Object.text(&mut buffer), Err(WrongType));
    }
}
