//! Raw events, which formats hand to the canonical step. All values are optional, unconverted, and borrowed from the
//! message. Texts keep their escapes until they are read, so that unread ones cost nothing.
//!
//! A [`RawEvent`] may hold raw keys, so it has no `Debug`, and it never leaves the decoders.

use std::ops::Range;

use keytide_config::Unit;

use super::route::UNKNOWN;
use super::value::FieldValue;

/// Values for rules of `[keys].from` that are held without allocating.
const INLINE_KEY_VALUES: usize = 4;

macro_rules! event_fields {
    ($($(#[$doc:meta])* $name:ident $label:literal,)+) => {
        /// The canonical fields, and further ones that identify a record.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum EventField {
            $($(#[$doc])* $name,)+
        }

        impl EventField {
            /// All fields, in the order of their numbers.
            pub(super) const ALL: [Self; [$($label),+].len()] = [$(Self::$name),+];

            /// Returns the field's name in messages, which is its name in `[source.fields]` if it has one there.
            pub(super) fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

event_fields! {
    RequestId "request_id",
    Time "time",
    Key "key",
    Api "api",
    Route "route",
    Path "path",
    Method "method",
    Status "status",
    Latency "latency",
    BytesIn "bytes_in",
    BytesOut "bytes_out",
    Units "units",
    ClientIp "client_ip",
    ForwardedFor "forwarded_for",
    Country "country",
    UserAgent "user_agent",
    Consumer "consumer",
    Credential "credential",
    User "user",
    /// The query, if the path has none.
    Query "query",
    /// The request line, `GET /x HTTP/1.1`, for records without a method and a path of their own.
    Request "request",
    End "end",
    /// The number of calls that the record stands for.
    Count "count",
    /// The gateway's own name of the route, for sources whose routes are made of the path.
    GatewayRoute "route",
    /// The host, which is only a part of content identities.
    Host "host",
    /// The record itself, if this one is a wrapper: an object, an array, or a text that holds JSON.
    Wrapped "record",
}

/// The number of canonical fields.
pub(super) const FIELDS: usize = EventField::ALL.len();

/// One record, borrowed from its message.
#[derive(Clone)]
pub(super) struct RawEvent<'a> {
    values: [FieldValue<'a>; FIELDS],
    /// For each field that was found, the rank of its place.
    ranks: [u8; FIELDS],
    /// Values that rules of `[keys].from` found, each with its rule. Those beyond the first few follow in a vector.
    key_values: [(u16, FieldValue<'a>); INLINE_KEY_VALUES],
    key_values_len: usize,
    more_key_values: Vec<(u16, FieldValue<'a>)>,
    /// Values that are secrets, but can't become the key.
    further: Vec<FieldValue<'a>>,
    time_unit: Option<Unit>,
    latency_unit: Option<Unit>,
    end_unit: Option<Unit>,
    /// A bit for each member that identifies the call and stood in the record, by [`IdentityIndex`].
    seen: [u64; IDENTITIES / 64],
    /// The field of the identity that stands twice, with different values.
    conflict: Option<EventField>,
    /// The second of two times.
    second_time: Option<(FieldValue<'a>, Option<Unit>)>,
    /// Places of texts that hold JSON with members that are read.
    pub(super) nested: Vec<Range<usize>>,
    /// True if its request id is that of its wrapper, which no caller chooses.
    pub(super) is_vouched_for: bool,
    /// True if it holds an unescaped quote, so it was read by the order of its names.
    pub(super) recovered: bool,
    /// A bit for each condition of `[source.only]` that the record meets.
    pub(super) met: u64,
}

/// Written out so that the kilobyte is made in place; a derived default would be made and then copied.
impl Default for RawEvent<'_> {
    #[inline]
    fn default() -> Self {
        Self {
            values: [FieldValue::Missing; FIELDS],
            ranks: [0; FIELDS],
            key_values: [(0, FieldValue::Missing); INLINE_KEY_VALUES],
            key_values_len: 0,
            more_key_values: Vec::new(),
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

/// The index of a member that identifies the call, among at most [`IDENTITIES`] of its shape.
pub(super) type IdentityIndex = u8;

/// The maximum of members that identify the call. No shape has as many. OpenTelemetry's has six places for each of 16
/// names, and for two of each of eight rules.
pub(super) const IDENTITIES: usize = 256;

impl<'a> RawEvent<'a> {
    /// Returns the value of a field.
    pub(super) fn get(&self, name: EventField) -> FieldValue<'a> {
        self.values[name as usize]
    }

    /// Returns the rank of the place at which a field was found.
    pub(super) fn rank(&self, name: EventField) -> Option<u8> {
        (!self.get(name).is_empty()).then(|| self.ranks[name as usize])
    }

    /// Sets a field, unless the value is empty.
    pub(super) fn set(&mut self, name: EventField, value: FieldValue<'a>) {
        if !value.is_empty() {
            self.values[name as usize] = value;
        }
    }

    /// Sets a field from one of several places, in the `unit` of this place if it has one of its own. Of places with a
    /// value the one of lowest rank counts, and of the same place its last value.
    #[inline]
    pub(super) fn set_from(&mut self, name: EventField, rank: u8, value: FieldValue<'a>, unit: Option<Unit>) {
        let at = name as usize;
        // A time of 0 is no time, as OTLP defines it, so any other goes before it.
        let rank = match (name, value) {
            (EventField::Time | EventField::End, FieldValue::Plain("0") | FieldValue::Number("0")) => u8::MAX,
            _ => rank,
        };
        if value.is_empty() || (self.ranks[at] < rank && !self.values[at].is_empty()) {
            return;
        }
        self.values[at] = value;
        self.ranks[at] = rank;
        match name {
            EventField::Time => self.time_unit = unit,
            EventField::Latency => self.latency_unit = unit,
            EventField::End => self.end_unit = unit,
            _ => {}
        }
    }

    /// Marks a member that identifies the call as seen. Returns whether it stood in the record before.
    #[inline]
    pub(super) fn is_repeated(&mut self, identity: IdentityIndex) -> bool {
        let (seen, bit) = (&mut self.seen[usize::from(identity) / 64], 1 << (identity % 64));
        let repeated = *seen & bit != 0;
        *seen |= bit;
        repeated
    }

    /// Takes a field of the call's identity that stands a second time in the same place. A caller may have written one
    /// of the two, so the first counts if they are equal, and otherwise they conflict.
    #[cold]
    pub(super) fn repeat(&mut self, name: EventField, rank: u8, value: FieldValue<'a>, unit: Option<Unit>) {
        let at = name as usize;
        let first = if self.ranks[at] == rank { self.values[at] } else { FieldValue::Missing };
        if !first.is_same_text(value) {
            self.conflict.get_or_insert(name);
            if name == EventField::Time {
                self.second_time.get_or_insert((value, unit));
            }
        }
        if first.is_empty() {
            self.set_from(name, rank, value, unit);
        }
    }

    /// Takes a second value of a place that a rule of `[keys].from` names. Both values are secrets.
    #[cold]
    pub(super) fn repeat_key_value(&mut self, rule: u16, value: FieldValue<'a>) {
        let first =
            self.key_values().find(|(of, _)| *of == rule).map_or(FieldValue::Missing, |(_, first)| first);
        if !first.is_same_text(value) {
            self.conflict.get_or_insert(EventField::Key);
        }
        self.set_key_value(rule, value);
    }

    /// Marks the identity as uncertain because of a field.
    pub(super) fn set_conflict(&mut self, name: EventField) {
        self.conflict.get_or_insert(name);
    }

    /// Returns the field because of which the identity is uncertain.
    pub(super) fn conflict(&self) -> Option<EventField> {
        self.conflict
    }

    /// Returns the second of two times.
    pub(super) fn second_time(&self) -> Option<(FieldValue<'a>, Option<Unit>)> {
        self.second_time
    }

    /// Sets the time, in a unit of its own.
    pub(super) fn set_time(&mut self, value: FieldValue<'a>, unit: Unit) {
        self.set(EventField::Time, value);
        self.time_unit = Some(unit);
    }

    /// The time's unit, if it isn't the source's.
    pub(super) fn time_unit(&self) -> Option<Unit> {
        self.time_unit
    }

    /// The latency's unit, if it isn't the source's.
    pub(super) fn latency_unit(&self) -> Option<Unit> {
        self.latency_unit
    }

    /// The unit of the call's end, if it isn't the time's.
    pub(super) fn end_unit(&self) -> Option<Unit> {
        self.end_unit
    }

    /// Takes method and path from the request line, as [`set_request`] does.
    pub(super) fn split_request(&mut self) {
        match self.get(EventField::Request) {
            FieldValue::Plain(line) => set_request(self, line, FieldValue::Plain),
            FieldValue::Json(line) => set_request(self, line, FieldValue::Json),
            FieldValue::Log(line) => set_request(self, line, FieldValue::Log),
            _ => {}
        }
    }

    /// Returns whether the record describes a call. Without a status, a method, a path and a route it is something else
    /// that has a time.
    pub(super) fn is_call(&self) -> bool {
        use EventField::{Count, GatewayRoute, Method, Path, Request, Route, Status};
        [Status, Method, Path, Route, GatewayRoute, Request, Count]
            .iter()
            .any(|name| !self.get(*name).is_empty())
    }

    /// Changes the time's unit from a text form to `unit`, if the time is a number.
    pub(super) fn number_is(&mut self, unit: Unit) {
        let number = match self.get(EventField::Time) {
            FieldValue::Number(_) => true,
            FieldValue::Plain(text) => text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
            _ => false,
        };
        if number && matches!(self.time_unit, Some(Unit::Rfc3339 | Unit::Clf)) {
            self.time_unit = Some(unit);
        }
    }

    /// Empties a field, whatever its value is.
    pub(super) fn clear(&mut self, name: EventField) {
        self.values[name as usize] = FieldValue::Missing;
    }

    /// Adds a value that rule `rule` of `[keys].from` found. Every value is kept, because all of them are secrets, even
    /// those that don't become the key.
    pub(super) fn set_key_value(&mut self, rule: u16, value: FieldValue<'a>) {
        if value.is_empty() {
            return;
        }
        match self.key_values.get_mut(self.key_values_len) {
            Some(slot) => {
                *slot = (rule, value);
                self.key_values_len += 1;
            }
            None => self.more_key_values.push((rule, value)),
        }
    }

    /// Iterates over the values that rules of `[keys].from` found, with their rules, in the order of the record.
    pub(super) fn key_values(&self) -> impl DoubleEndedIterator<Item = (u16, FieldValue<'a>)> {
        self.key_values[..self.key_values_len].iter().chain(&self.more_key_values).copied()
    }

    /// Adds a further value of a place, which is a secret and can't become the key.
    pub(super) fn add_secret(&mut self, value: FieldValue<'a>) {
        if !value.is_empty() {
            self.further.push(value);
        }
    }

    /// Iterates over all values at places where keys are looked for.
    pub(super) fn secrets(&self) -> impl Iterator<Item = FieldValue<'a>> {
        self.key_values().map(|(_, value)| value).chain(self.further.iter().copied())
    }
}

/// The method and the target of `METHOD TARGET HTTP/1.1`. The target may hold spaces.
pub(super) fn request_line(request: &str) -> Option<(&str, &str)> {
    let (method, rest) = request.split_once(' ')?;
    let (target, version) = rest.rsplit_once(' ')?;
    let token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (token && version.starts_with("HTTP/") && target != UNKNOWN).then_some((method, target))
}

/// Takes method and path from a request line, if they don't stand on their own. A line that isn't HTTP (`-`, the bytes
/// of a TLS handshake) is a call of method `OTHER` without a path.
pub(super) fn set_request<'a>(
    raw: &mut RawEvent<'a>,
    request: &'a str,
    value: fn(&'a str) -> FieldValue<'a>,
) {
    let (no_method, no_path) = (raw.get(EventField::Method).is_empty(), raw.get(EventField::Path).is_empty());
    match request_line(request) {
        Some((method, target)) => {
            if no_method {
                raw.set(EventField::Method, FieldValue::Plain(method));
            }
            // The target of CONNECT is a host, and any host at all.
            if no_path && method != "CONNECT" {
                raw.set(EventField::Path, value(target));
            }
        }
        None if no_method => raw.set(EventField::Method, FieldValue::Plain("OTHER")),
        None => {}
    }
}
