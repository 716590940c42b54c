//! W3C extended logs, such as Amazon CloudFront's standard log and IIS's. `#Fields:` names the columns of later lines.
//!
//! * Columns are separated by tabs, or by blanks if the line has no tab. A column in quotes may hold blanks.
//! * Lines without a `#Fields:` before them have CloudFront's 33 columns.
//! * `date` and `time` are UTC, whole seconds, when the call ended. `timestamp` (s) and `timestamp(ms)` go before them.
//! * `time-taken` is in seconds if CloudFront's own columns (`x-edge-...`) are there or the value has a point, and
//!   otherwise in milliseconds. IIS writes whole milliseconds, and others follow the draft: seconds with a point.
//! * The request id is `x-edge-request-id`.
//! * CloudFront writes headers percent-encoded, which is undone. IIS writes `+` for blanks, which is undone in the
//!   agent alone, because in a key a plus may be a plus.
//! * A rule `header:NAME` reads the column `cs(NAME)`, `query:NAME` `cs-uri-query`, `user` `cs-username`.
//!
//! Limits: 128 columns. Further ones are passed over.

use keytide_config::{KeyFrom, KeyRules, Unit, header_name};

use super::super::bytes::push_bytes;
use super::super::route::percent_decoded;
use super::{EventField, Fault, FieldValue, RawEvent, Values};
use crate::time::rfc3339;

/// Beginnings of directives, which are no records.
pub(super) const DIRECTIVES: [&[u8]; 7] =
    [b"#Version:", b"#Software:", b"#Start-Date:", b"#End-Date:", b"#Date:", b"#Remark:", b"#Fields:"];

const MAX_COLUMNS: usize = 128;

/// The columns of CloudFront's standard log.
const CLOUDFRONT: &str = "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status \
    cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol \
    cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version \
    fle-status fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type \
    sc-content-len sc-range-start sc-range-end";

/// Reads these logs with the rules of one source.
pub(super) struct W3c {
    /// Rules of `[keys].from` that name headers.
    headers: Vec<(u16, String)>,
    default: W3cColumns,
}

/// The columns of a header line.
pub(super) struct W3cColumns {
    columns: Vec<W3cColumn>,
    is_cloudfront: bool,
}

#[derive(Default)]
struct W3cColumn {
    kind: ColumnKind,
    /// The rule of `[keys].from` that reads this column.
    rule: Option<u16>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ColumnKind {
    #[default]
    Other,
    Date,
    Clock,
    Epoch(Unit),
    Field(EventField),
    /// A header of the caller's, which the server encoded.
    Header(Option<EventField>),
    TimeTaken,
}

/// Returns whether a line looks like one of CloudFront's, with a date and a time between tabs.
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
            columns(CLOUDFRONT, &headers).unwrap_or(W3cColumns { columns: Vec::new(), is_cloudfront: true });
        Self { headers, default }
    }

    /// Returns the columns that a header line names.
    pub(super) fn columns(&self, header: &str) -> Option<W3cColumns> {
        columns(header, &self.headers)
    }

    /// Reads a line of these columns, or of CloudFront's if they are `None`.
    pub(super) fn read<'a>(
        &self,
        line: &'a str,
        columns: Option<&W3cColumns>,
        values: &'a mut Values,
    ) -> Result<RawEvent<'a>, Fault> {
        const TIME: Fault = Fault::new(
            "time",
            "must be yyyy-mm-dd and hh:mm:ss in the columns `date` and `time`, or a `timestamp`; is the line's \
             `#Fields:` above it?",
        );
        const COUNT: Fault =
            Fault::new("line", "must have as many columns as `#Fields:` names; without one, CloudFront's");
        let W3cColumns { columns, is_cloudfront } = columns.unwrap_or(&self.default);
        let tabs = memchr::memchr(b'\t', line.as_bytes()).is_some();
        let mut fields: [&str; MAX_COLUMNS] = [""; MAX_COLUMNS];
        let mut count = 0;
        let mut rest = Some(line);
        while let Some(text) = rest.filter(|text| count < MAX_COLUMNS && (tabs || !text.is_empty())) {
            (fields[count], rest) = split(text, tabs);
            count += 1;
        }
        // A server whose columns are changed begins with a new header.
        if count < columns.len() {
            return Err(COUNT);
        }
        let fields = &fields[..columns.len()];

        // Everything is decoded before the record is made, because the record borrows it.
        let Values { number, texts, .. } = values;
        let mut decoded = 0;
        let (mut date, mut clock) = ("", "");
        for (column, field) in columns.iter().zip(fields) {
            match column.kind {
                ColumnKind::Date => date = field,
                ColumnKind::Clock => clock = field,
                ColumnKind::Header(name) if is_encoded(field, tabs, name) => {
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
            raw.set_time(FieldValue::Number(number), Unit::Millis);
        }
        let mut texts = texts.iter();
        for (column, field) in columns.iter().zip(fields) {
            let field: &'a str = field;
            let value = match column.kind {
                ColumnKind::Header(name) if is_encoded(field, tabs, name) => {
                    FieldValue::Plain(texts.next().map_or("", String::as_str))
                }
                _ => FieldValue::Plain(field),
            };
            match column.kind {
                ColumnKind::Epoch(unit) if !value.is_empty() => raw.set_time(value, unit),
                ColumnKind::Field(name) | ColumnKind::Header(Some(name)) => raw.set(name, value),
                ColumnKind::TimeTaken => {
                    let seconds = *is_cloudfront || field.contains('.');
                    let unit = if seconds { Unit::Seconds } else { Unit::Millis };
                    raw.set_from(EventField::Latency, 0, value, Some(unit));
                }
                _ => {}
            }
            if let Some(rule) = column.rule {
                raw.set_key_value(rule, value);
            }
        }
        if raw.get(EventField::Time).is_empty() { Err(TIME) } else { Ok(raw) }
    }
}

fn columns(header: &str, headers: &[(u16, String)]) -> Option<W3cColumns> {
    let names = header.strip_prefix("#Fields:")?.split_ascii_whitespace().take(MAX_COLUMNS);
    let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    let columns: Vec<W3cColumn> = names
        .iter()
        .map(|name| {
            let header = name.strip_prefix("cs(").and_then(|name| name.strip_suffix(')'));
            let header = header_name(header.unwrap_or(name));
            let rule = headers.iter().find(|(_, wanted)| *wanted == header).map(|(rule, _)| *rule);
            W3cColumn { kind: kind(name), rule }
        })
        .collect();
    let is_cloudfront = names.iter().any(|name| name.starts_with("x-edge-"));
    (!columns.is_empty()).then_some(W3cColumns { columns, is_cloudfront })
}

fn kind(name: &str) -> ColumnKind {
    match name {
        "date" => ColumnKind::Date,
        "time" => ColumnKind::Clock,
        "timestamp" => ColumnKind::Epoch(Unit::Seconds),
        "timestamp(ms)" => ColumnKind::Epoch(Unit::Millis),
        "time-taken" => ColumnKind::TimeTaken,
        "x-edge-request-id" => ColumnKind::Field(EventField::RequestId),
        // CloudFront writes the distribution's own name here, and the host that the caller named in x-host-header.
        "cs(host)" | "s-sitename" => ColumnKind::Field(EventField::Api),
        "x-host-header" | "cs-host" => ColumnKind::Field(EventField::Host),
        "cs-uri-stem" | "cs-uri" => ColumnKind::Field(EventField::Path),
        "cs-uri-query" => ColumnKind::Field(EventField::Query),
        "cs-method" => ColumnKind::Field(EventField::Method),
        "sc-status" => ColumnKind::Field(EventField::Status),
        "sc-bytes" => ColumnKind::Field(EventField::BytesOut),
        "cs-bytes" => ColumnKind::Field(EventField::BytesIn),
        "c-ip" => ColumnKind::Field(EventField::ClientIp),
        "c-country" => ColumnKind::Field(EventField::Country),
        "cs-username" => ColumnKind::Field(EventField::User),
        "x-forwarded-for" | "cs(x-forwarded-for)" => ColumnKind::Header(Some(EventField::ForwardedFor)),
        "cs(user-agent)" => ColumnKind::Header(Some(EventField::UserAgent)),
        _ if name.starts_with("cs(") => ColumnKind::Header(None),
        _ => ColumnKind::Other,
    }
}

/// Splits off the column at the start.
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

/// Returns whether the server encoded a header's value.
fn is_encoded(field: &str, tabs: bool, name: Option<EventField>) -> bool {
    if tabs { field.contains('%') } else { name == Some(EventField::UserAgent) && field.contains('+') }
}

fn decode(field: &str, tabs: bool, name: Option<EventField>, out: &mut String) {
    out.clear();
    if !tabs {
        out.push_str(field);
        *out = out.replace('+', " ");
        return;
    }
    let decoded = percent_decoded(field);
    push_bytes(&decoded, out);
    // Older logs have agents that are encoded twice.
    if name == Some(EventField::UserAgent) && out.contains("%20") {
        *out = out.replace("%20", " ");
    }
}

/// Returns the milliseconds since the epoch of `yyyy-mm-dd` and `hh:mm:ss`.
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
