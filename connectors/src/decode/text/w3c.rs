//! W3C extended logs: Amazon CloudFront's standard log, IIS, and others. `#Fields:` names the columns of what follows.
//!
//! * Columns are separated by tabs, or by blanks where the line has no tab. A column in quotes may hold blanks.
//! * Lines without a `#Fields:` before them have CloudFront's 33 columns.
//! * `date` and `time` are UTC, whole seconds, when the call ended. `timestamp` (s) and `timestamp(ms)` count first.
//! * `time-taken` is in seconds where CloudFront's own columns (`x-edge-...`) are there or the value has a point, else in
//!   milliseconds: what IIS writes is whole milliseconds, what others write by the draft is seconds with a point.
//! * The request id is `x-edge-request-id`.
//! * CloudFront writes headers percent-encoded, which is undone; IIS writes `+` for blanks, which is undone in the agent
//!   alone: in a key a plus may be a plus.
//! * A rule `header:NAME` reads the column `cs(NAME)`, `query:NAME` `cs-uri-query`, `user` `cs-username`.
//!
//! Limits: 128 columns; further ones are passed over.

use keytide_config::{KeyFrom, KeyRules, Unit, header_name};

use super::super::bytes::push_bytes;
use super::super::route::percent_decoded;
use super::{Fault, Name, RawEvent, Value, Values};
use crate::time::rfc3339;

/// Directives, which are no records.
pub(super) const DIRECTIVES: [&[u8]; 7] =
    [b"#Version:", b"#Software:", b"#Start-Date:", b"#End-Date:", b"#Date:", b"#Remark:", b"#Fields:"];

const MAX_COLUMNS: usize = 128;

/// CloudFront's standard log.
const CLOUDFRONT: &str = "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status \
    cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol \
    cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version \
    fle-status fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type \
    sc-content-len sc-range-start sc-range-end";

/// What a source looks for in these logs.
pub(super) struct W3c {
    /// Rules of `[keys].from` that name headers.
    headers: Vec<(u16, String)>,
    default: Columns,
}

/// The columns of a header line.
pub(super) struct Columns {
    columns: Vec<Column>,
    is_cloudfront: bool,
}

#[derive(Default)]
struct Column {
    kind: Kind,
    /// The rule of `[keys].from` that looks here.
    rule: Option<u16>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Date,
    Clock,
    Epoch(Unit),
    Field(Name),
    /// A field that the server encoded, as it came from the caller.
    Header(Option<Name>),
    TimeTaken,
}

/// Whether a line looks like one of CloudFront's: a date and a time between tabs.
pub(super) fn is_like(line: &str) -> bool {
    let mut columns = line.split('\t');
    let (date, time) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
    ms(date, time).is_some()
}

impl W3c {
    pub(super) fn new(keys: &KeyRules) -> Self {
        let header = |(rule, from): (u16, &KeyFrom)| match from {
            KeyFrom::Header(name) => Some((rule, header_name(name))),
            _ => None,
        };
        let headers: Vec<(u16, String)> = (0..).zip(&keys.from).filter_map(header).collect();
        let default =
            columns(CLOUDFRONT, &headers).unwrap_or(Columns { columns: Vec::new(), is_cloudfront: true });
        Self { headers, default }
    }

    /// The columns that a header line names.
    pub(super) fn columns(&self, header: &str) -> Option<Columns> {
        columns(header, &self.headers)
    }

    /// Reads a line of some columns; `None`: CloudFront's.
    pub(super) fn read<'a>(
        &self,
        line: &'a str,
        columns: Option<&Columns>,
        values: &'a mut Values,
    ) -> Result<RawEvent<'a>, Fault> {
        const TIME: Fault = Fault::new(
            "time",
            "must be yyyy-mm-dd and hh:mm:ss in the columns `date` and `time`, or a `timestamp`; is the line's \
             `#Fields:` above it?",
        );
        const COUNT: Fault =
            Fault::new("line", "must have as many columns as `#Fields:` names; without one, CloudFront's");
        let Columns { columns, is_cloudfront } = columns.unwrap_or(&self.default);
        let tabs = memchr::memchr(b'\t', line.as_bytes()).is_some();
        let mut fields: [&str; MAX_COLUMNS] = [""; MAX_COLUMNS];
        let mut count = 0;
        let mut rest = Some(line);
        while let Some(text) = rest.filter(|text| count < MAX_COLUMNS && (tabs || !text.is_empty())) {
            (fields[count], rest) = split(text, tabs);
            count += 1;
        }
        // A server that was told to log more, or less, begins a new header.
        if count < columns.len() {
            return Err(COUNT);
        }
        let fields = &fields[..columns.len()];

        // Decoded first: a record borrows what was decoded.
        let Values { number, texts, .. } = values;
        let mut decoded = 0;
        let (mut date, mut clock) = ("", "");
        for (column, field) in columns.iter().zip(fields) {
            match column.kind {
                Kind::Date => date = field,
                Kind::Clock => clock = field,
                Kind::Header(name) if is_encoded(field, tabs, name) => {
                    if texts.len() == decoded {
                        texts.push(String::new());
                    }
                    decode(field, tabs, name, &mut texts[decoded]);
                    decoded += 1;
                }
                _ => {}
            }
        }
        number.clear();
        let mut raw = RawEvent::default();
        if let Some(ms) = ms(date, clock) {
            number.push_str(itoa::Buffer::new().format(ms));
            raw.set_time(Value::Number(number), Unit::Millis);
        }
        let mut texts = texts.iter();
        for (column, field) in columns.iter().zip(fields) {
            let field: &'a str = field;
            let value = match column.kind {
                Kind::Header(name) if is_encoded(field, tabs, name) => {
                    Value::Plain(texts.next().map_or("", String::as_str))
                }
                _ => Value::Plain(field),
            };
            match column.kind {
                Kind::Epoch(unit) if !value.is_empty() => raw.set_time(value, unit),
                Kind::Field(name) | Kind::Header(Some(name)) => raw.set(name, value),
                Kind::TimeTaken => {
                    let seconds = *is_cloudfront || field.contains('.');
                    let unit = if seconds { Unit::Seconds } else { Unit::Millis };
                    raw.set_from(Name::Latency, 0, value, Some(unit));
                }
                _ => {}
            }
            if let Some(rule) = column.rule {
                raw.set_place(rule, value);
            }
        }
        if raw.get(Name::Time).is_empty() { Err(TIME) } else { Ok(raw) }
    }
}

fn columns(header: &str, headers: &[(u16, String)]) -> Option<Columns> {
    let names = header.strip_prefix("#Fields:")?.split_ascii_whitespace().take(MAX_COLUMNS);
    let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    let columns: Vec<Column> = names
        .iter()
        .map(|name| {
            let header = name.strip_prefix("cs(").and_then(|name| name.strip_suffix(')'));
            let header = header_name(header.unwrap_or(name));
            let rule = headers.iter().find(|(_, wanted)| *wanted == header).map(|(rule, _)| *rule);
            Column { kind: kind(name), rule }
        })
        .collect();
    let is_cloudfront = names.iter().any(|name| name.starts_with("x-edge-"));
    (!columns.is_empty()).then_some(Columns { columns, is_cloudfront })
}

fn kind(name: &str) -> Kind {
    match name {
        "date" => Kind::Date,
        "time" => Kind::Clock,
        "timestamp" => Kind::Epoch(Unit::Seconds),
        "timestamp(ms)" => Kind::Epoch(Unit::Millis),
        "time-taken" => Kind::TimeTaken,
        "x-edge-request-id" => Kind::Field(Name::RequestId),
        // CloudFront writes the distribution's own name here, and what the caller named in x-host-header.
        "cs(host)" | "s-sitename" => Kind::Field(Name::Api),
        "x-host-header" | "cs-host" => Kind::Field(Name::Host),
        "cs-uri-stem" | "cs-uri" => Kind::Field(Name::Path),
        "cs-uri-query" => Kind::Field(Name::Query),
        "cs-method" => Kind::Field(Name::Method),
        "sc-status" => Kind::Field(Name::Status),
        "sc-bytes" => Kind::Field(Name::BytesOut),
        "cs-bytes" => Kind::Field(Name::BytesIn),
        "c-ip" => Kind::Field(Name::ClientIp),
        "c-country" => Kind::Field(Name::Country),
        "cs-username" => Kind::Field(Name::User),
        "x-forwarded-for" | "cs(x-forwarded-for)" => Kind::Header(Some(Name::ForwardedFor)),
        "cs(user-agent)" => Kind::Header(Some(Name::UserAgent)),
        _ if name.starts_with("cs(") => Kind::Header(None),
        _ => Kind::Other,
    }
}

/// The column at the start, and what follows it.
fn split(text: &str, tabs: bool) -> (&str, Option<&str>) {
    if tabs {
        return text.split_once('\t').map_or((text, None), |(field, rest)| (field, Some(rest)));
    }
    // Quotes within quotes are doubled.
    if let Some(inner) = text.strip_prefix('"') {
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'"', &inner.as_bytes()[from..]).map(|at| from + at) {
            let rest = &inner[at + 1..];
            if rest.is_empty() || rest.starts_with(' ') {
                return (&inner[..at], Some(rest.trim_start_matches(' ')));
            }
            from = at + if rest.starts_with('"') { 2 } else { 1 };
        }
    }
    text.split_once(' ').map_or((text, None), |(field, rest)| (field, Some(rest.trim_start_matches(' '))))
}

/// Whether the server wrote a header's value otherwise than it came.
fn is_encoded(field: &str, tabs: bool, name: Option<Name>) -> bool {
    if tabs { field.contains('%') } else { name == Some(Name::UserAgent) && field.contains('+') }
}

fn decode(field: &str, tabs: bool, name: Option<Name>, out: &mut String) {
    out.clear();
    if !tabs {
        out.push_str(field);
        *out = out.replace('+', " ");
        return;
    }
    let decoded = percent_decoded(field);
    push_bytes(&decoded, out);
    // Older logs have agents that are encoded twice.
    if name == Some(Name::UserAgent) && out.contains("%20") {
        *out = out.replace("%20", " ");
    }
}

/// Milliseconds of `yyyy-mm-dd` and `hh:mm:ss`.
fn ms(date: &str, time: &str) -> Option<i64> {
    let mut text = [b'Z'; 32];
    let length = date.len() + 1 + time.len() + 1;
    if date.len() != 10 || length > text.len() {
        return None;
    }
    text[..10].copy_from_slice(date.as_bytes());
    text[10] = b'T';
    text[11..11 + time.len()].copy_from_slice(time.as_bytes());
    rfc3339(&text[..length])
}
