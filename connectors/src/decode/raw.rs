//! What a format hands to the canonical step: values borrowed from the message, unconverted, everything
//! optional. Texts keep their escapes until somebody reads them, so that what nobody reads costs nothing.
//!
//! A [`RawEvent`] may hold raw keys: it has no `Debug`, and it never leaves the decoders.

use keytide_config::Unit;

use super::reader::{Caps, Reader};
use super::route::argument_value;

/// Values that the places of `[keys].from` may have in one record; more make it a dead letter.
pub(super) const PLACES: usize = 8;

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
    /// Only part of a content identity.
    Host,
}

const NAMES: usize = Name::ALL.len();

impl Name {
    /// All of them, in order.
    pub(super) const ALL: [Self; 21] = [
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
        Self::Host,
    ];
}

/// One value as it stands in the message.
#[derive(Clone, Copy, Default)]
pub(super) enum Value<'a> {
    /// Absent or null.
    #[default]
    Missing,
    /// `true` or `false`; what a gateway logs for a bare query argument.
    Flag,
    /// A number's digits.
    Number(&'a str),
    /// Text without escapes.
    Plain(&'a str),
    /// Text with JSON escapes, all of them well-formed.
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
    /// Whether it says nothing: absent, null, `""` or `-`.
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
                *buffer = String::from_utf8_lossy(&argument_value(buffer)).into_owned();
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
            Self::Flag | Self::Object => Err(WrongType),
        }
    }

    fn is_text(self) -> bool {
        !self.is_empty() && matches!(self, Self::Number(_) | Self::Plain(_) | Self::Json(_))
    }

    /// An array's elements; any other value is its own only element.
    pub(super) fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let (mut array, mut single) = match self {
            // It was read once already: nothing here can fail.
            Self::Array(text) => {
                let mut reader = Reader::new(text, Caps::NONE);
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
            Self::Missing | Self::Flag | Self::Object => "",
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
#[derive(Default)]
pub(super) struct RawEvent<'a> {
    values: [Value<'a>; NAMES],
    /// The rank of the place that a field was found in, where it was.
    ranks: [u8; NAMES],
    places: [(u16, Value<'a>); PLACES],
    places_len: usize,
    time_unit: Option<Unit>,
    latency_unit: Option<Unit>,
}

impl<'a> RawEvent<'a> {
    /// The value of a field.
    pub(super) fn get(&self, name: Name) -> Value<'a> {
        self.values[name as usize]
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
        if value.is_empty() || (self.ranks[at] < rank && !self.values[at].is_empty()) {
            return;
        }
        self.values[at] = value;
        self.ranks[at] = rank;
        match name {
            Name::Time => self.time_unit = unit,
            Name::Latency => self.latency_unit = unit,
            _ => {}
        }
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
        if !value.is_empty() {
            if let Some(place) = self.places.get_mut(self.places_len) {
                *place = (rule, value);
            }
            self.places_len += 1;
        }
    }

    /// The values found in places of `[keys].from`, with their rules; `None` if there were more than
    /// [`PLACES`].
    pub(super) fn places(&self) -> Option<&[(u16, Value<'a>)]> {
        self.places.get(..self.places_len)
    }
}

/// Unescapes the inside of a well-formed JSON string. A lone surrogate, which JSON's grammar allows and
/// UTF-8 doesn't, becomes U+FFFD.
pub(super) fn unescape_json(escaped: &str, out: &mut String) {
    out.clear();
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let code = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or("");
        match code {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let unit = hex4(rest);
                rest = rest.get(4..).unwrap_or("");
                let low = rest.strip_prefix("\\u").map(hex4).filter(|low| (0xDC00..0xE000).contains(low));
                let code = match (unit, low) {
                    (0xD800..0xDC00, Some(low)) => {
                        rest = &rest[6..];
                        0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    _ => unit,
                };
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
}

fn hex4(text: &str) -> u32 {
    text.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0xFFFD)
}

/// Unescapes a field of an httpd's log line. What isn't an escape stands for itself; bytes that aren't UTF-8
/// become U+FFFD.
fn unescape_log(escaped: &str, out: &mut String) {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, width) = match (first, tail) {
            (b'\\', [b'x', high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'\\', 1),
            },
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [quoted @ (b'"' | b'\\'), ..]) => (*quoted, 2),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[width..];
    }
    out.clear();
    out.push_str(&String::from_utf8_lossy(&bytes));
}

/// A hexadecimal digit's value.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(escaped: &str) -> String {
        let mut out = String::new();
        unescape_json(escaped, &mut out);
        out
    }

    fn log(escaped: &str) -> String {
        let mut out = String::new();
        unescape_log(escaped, &mut out);
        out
    }

    #[test]
    fn json_escapes() {
        assert_eq!(json(r#"a\"b\\c\/d\b\f\n\r\t"#), "a\"b\\c/d\u{8}\u{c}\n\r\t");
        assert_eq!(json(r"\u00e4\u0041"), "äA");
        assert_eq!(json(r"x\ud83d\ude00y"), "x😀y");
    }

    #[test]
    fn lone_surrogates_become_replacement_characters() {
        assert_eq!(json(r"\ud83d"), "\u{fffd}");
        assert_eq!(json(r"\ud83dx"), "\u{fffd}x");
        assert_eq!(json(r"\ude00\ud83d"), "\u{fffd}\u{fffd}");
        assert_eq!(json(r"\ud83d\u0041"), "\u{fffd}A");
    }

    #[test]
    fn log_escapes() {
        assert_eq!(log(r#"a\"b\\c\x41\t"#), "a\"b\\cA\t");
        assert_eq!(log(r"\xc3\xa4 \xff \xg1 \x4"), "ä \u{fffd} \\xg1 \\x4");
        assert_eq!(log("\\"), "\\");
    }

    #[test]
    fn the_first_element_that_says_something() {
        let mut buffer = String::new();
        assert_eq!(Value::Array(r#"["", "-", null, true, "a\/b", "c"]"#).text(&mut buffer), Ok(Some("a/b")));
        assert_eq!(Value::Array("[]").text(&mut buffer), Ok(None));
        assert_eq!(Value::Array("[[\"x\"], {}]").text(&mut buffer), Ok(None));
        assert_eq!(Value::Array("[7]").text(&mut buffer), Ok(Some("7")));
        assert_eq!(Value::Flag.text(&mut buffer), Err(WrongType));
        assert_eq!(Value::Object.text(&mut buffer), Err(WrongType));
    }

    #[test]
    fn places_are_bounded() {
        let mut raw = RawEvent::default();
        for rule in 0..8 {
            raw.set_place(rule, Value::Plain("x"));
        }
        raw.set_place(8, Value::Plain("-"));
        assert_eq!(raw.places().map(<[_]>::len), Some(PLACES));
        raw.set_place(8, Value::Plain("x"));
        assert!(raw.places().is_none());
    }
}
