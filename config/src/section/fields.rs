//! The section `[source.fields]`, which locates the fields of a record, with unit or form.
//!
//! Limits: 16 places a field, pointers of 1,024 bytes.

use std::fmt;

use super::format::Format;
use super::prelude::*;
use crate::pattern::{LinePattern, Variable};
use crate::time::{TimePattern, Unit, Zone};

/// Bytes of a JSON pointer, at most.
const MAX_POINTER_BYTES: usize = 1_024;
/// Pointers of one field, or of one list of wrappers.
const MAX_POINTERS: usize = 16;
/// Decimal places of units, at most.
const MAX_SCALE: u64 = 9;
const LATENCY_UNITS: &[Unit] = &[Unit::Seconds, Unit::Millis, Unit::Micros, Unit::Nanos];

/// The default units of a time and of a latency.
type Units = (Option<Unit>, Option<Unit>);

/// Declares the fields of a record, each with the function that validates it.
macro_rules! fields {
    ($($(#[$doc:meta])+ $name:ident: $judge:ident,)+) => {
        /// The section `[source.fields]`, which locates each canonical field in a record.
        #[derive(Clone, Debug, Default)]
        pub struct FieldMap {
            $($(#[$doc])+ pub $name: Option<Field>,)+
        }

        impl FieldMap {
            const COUNT: usize = [$(stringify!($name)),+].len();

            /// Returns all fields with their names in `[source.fields]`, in a fixed order.
            #[must_use]
            pub fn named(&self) -> [(&'static str, Option<&Field>); Self::COUNT] {
                [$((stringify!($name), self.$name.as_ref())),+]
            }
        }

        keys! {
            /// The keys of `[source.fields]`.
            RawFields {
                $($name: FieldText,)+
            }
        }

        impl RawFields {
            fn entries(&self) -> [&Entry<FieldText>; FieldMap::COUNT] {
                [$(&self.$name),+]
            }

            fn judged(&self, units: Units, check: &mut Check<'_>) -> FieldMap {
                FieldMap {
                    $($name: self.$name.given().and_then(|spot| $judge(spot, units, check)),)+
                }
            }
        }

        impl Fingerprint for FieldMap {
            fn add_to(&self, encoder: &mut Encoder) {
                $(encoder.add(&self.$name);)+
            }
        }
    };
}

fields! {
    /// The id of the request, made by the gateway.
    request_id: plain,
    /// The event time of the call.
    time: time,
    /// The key, as the `key` rule of `[keys].from` reads it.
    key: plain,
    /// The API or service the route belongs to.
    api: plain,
    /// The route template as the gateway names it.
    route: plain,
    /// The path, with or without a query string. Without a route it becomes a route template.
    path: plain,
    /// The HTTP method of the request.
    method: plain,
    /// The HTTP status of the answer.
    status: plain,
    /// The time between request and answer.
    latency: latency,
    /// Bytes received from the caller.
    bytes_in: plain,
    /// Bytes sent to the caller.
    bytes_out: plain,
    /// Units of the call, such as tokens or its cost, which are summed up.
    units: scaled,
    /// The address of the peer.
    client_ip: plain,
    /// `X-Forwarded-For`, which counts if the peer is a trusted proxy.
    forwarded_for: plain,
    /// The country by ISO 3166-1 alpha-2, which replaces the geo lookup.
    country: plain,
    /// The user agent of the caller.
    user_agent: plain,
    /// The consumer that the gateway names.
    consumer: plain,
    /// The id of the gateway's credential.
    credential: plain,
    /// The user that the gateway authenticated.
    user: plain,
    /// The query, if the path has none.
    query: plain,
    /// A request line such as `GET /path HTTP/1.1`, for records without method and path.
    request: plain,
    /// The end of the call, from which the latency follows if the record has none.
    end: time,
    /// The number of calls that the record stands for. 0 passes over the record; unreadable counts as 1.
    count: plain,
}

/// The location of one field in a record, with its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The pointers to it, at least one. The first with a value wins.
    pub at: Vec<Pointer>,
    /// The unit of a time or a latency; `None` for other fields, and beside `format`.
    pub unit: Option<Unit>,
    /// The form of a time, instead of a unit.
    pub format: Option<TimePattern>,
    /// The zone of times without one; `None` for the source's zone.
    pub zone: Option<Zone>,
    /// The decimal places of units that count: 6 makes millionths of a dollar of dollars.
    pub scale: u32,
}

impl Field {
    /// Returns a field without a form and a zone of its own.
    #[must_use]
    pub fn new(at: Pointer, unit: Option<Unit>) -> Self {
        Self::at(&[at], unit)
    }

    fn at(at: &[Pointer], unit: Option<Unit>) -> Self {
        Self { at: at.to_vec(), unit, format: None, zone: None, scale: 0 }
    }
}

/// A JSON pointer (RFC 6901) as unescaped tokens, so that `/a~1b/0` is `["a/b", "0"]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer(pub Vec<String>);

impl Fingerprint for Pointer {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.add(&self.0);
    }
}

impl Fingerprint for Field {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { at, unit, format, zone, scale } = self;
        encoder.add(at);
        encoder.add(unit);
        encoder.add(format);
        encoder.add(zone);
        encoder.add(scale);
    }
}

keys! {
    /// The keys of a field, such as `{ at = "/requestTime", unit = "ms" }`.
    RawField {
        at: Pointers<1>,
        unit: Unit,
        format: TimePattern,
        zone: Zone,
        scale: Count,
    }
}

/// A value of `[source.fields]`: a pointer alone, or a table with a pointer and a unit.
pub(crate) struct FieldText(RawField);

impl FromToml for FieldText {
    fn expected() -> String {
        "a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }".to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        match node.value {
            TomlValue::Text(_) | TomlValue::List(_) => {
                match Entry::read(node, location.path.clone(), problems) {
                    Entry::Refused => None,
                    at => Some(Self(RawField { at, ..RawField::default() })),
                }
            }
            TomlValue::Table(_) => RawField::read(node, location, problems).map(Self),
            other => {
                problems.add(location, format!("found {}, allowed: {}", other.shown(), Self::expected()));
                None
            }
        }
    }
}

impl FieldMap {
    /// Validates the fields of a source's records, or of the records within if there is an `inner`.
    pub(crate) fn read(
        entry: &Entry<RawFields>,
        source: &Location,
        (format, inner): (Format, Option<Format>),
        pattern: Option<&LinePattern>,
        check: &mut Check<'_>,
    ) -> Option<Self> {
        let wrapped = inner.is_some();
        let format = inner.unwrap_or(format);
        if format.is_text() && format != Format::Text {
            if let Some(fields) = entry.given() {
                let message = format!("the {} format has no named fields, remove the section", format.name());
                check.refuse(fields, message);
                return None;
            }
            return Some(Self::default());
        }
        let absent = RawFields::default();
        let raw = match entry {
            Entry::Given(fields) => {
                // Log events that wrap a record have a time of their own.
                if format == Format::Json && !wrapped {
                    check.required(&fields.value.time, fields, "time");
                }
                &fields.value
            }
            Entry::Absent if format == Format::Json => {
                let location = Location { path: format!("{}.fields", source.path), at: source.at.clone() };
                let message = match wrapped {
                    true => "missing, required by inner = \"json\"",
                    false => "missing, required by format = \"json\" with at least `time`",
                };
                check.refuse(&location, message);
                return None;
            }
            Entry::Absent | Entry::Refused => &absent,
        };
        if let (Format::Text, Some(pattern)) = (format, pattern) {
            raw.are_variables_of(pattern, check);
        }
        Some(raw.judged(units(format), check))
    }
}

impl RawFields {
    /// Refuses fields that aren't variables of the line's pattern.
    fn are_variables_of(&self, pattern: &LinePattern, check: &mut Check<'_>) {
        for entry in self.entries() {
            let Some(at) = entry.given().and_then(|spot| spot.value.0.at.given()) else { continue };
            if let Some(other) = at.value.0.iter().find(|pointer| !names_variable(pointer, pattern)) {
                let pointer = |variable: &Variable| Pointer(vec![variable.name.clone()]).to_string();
                let names: Vec<String> = pattern.variables().map(pointer).collect();
                let message = format!(
                    "found {}, which is no variable of the pattern, allowed: {}",
                    quoted(&other.to_string()),
                    names.join(", ")
                );
                check.refuse(at, message);
            }
        }
    }
}

/// Validates a field without a unit.
fn plain(spot: &Spot<FieldText>, _: Units, check: &mut Check<'_>) -> Option<Field> {
    no_scale(&spot.value.0, check);
    pointed(spot, check)
}

/// Validates the field of units, which may have a scale.
fn scaled(spot: &Spot<FieldText>, _: Units, check: &mut Check<'_>) -> Option<Field> {
    let mut field = pointed(spot, check)?;
    check.fill(&mut field.scale, &spot.value.0.scale, 0..=MAX_SCALE);
    Some(field)
}

fn pointed(spot: &Spot<FieldText>, check: &mut Check<'_>) -> Option<Field> {
    let raw = &spot.value.0;
    if let Some(unit) = raw.unit.given() {
        check.refuse(unit, "only time, end and latency have a unit, remove it");
    }
    no_time(raw, check);
    let at = check.required(&raw.at, spot, "at")?;
    Some(Field::at(&at.0, None))
}

/// Validates the field of a time, which has a unit or a form.
fn time(spot: &Spot<FieldText>, (default, _): Units, check: &mut Check<'_>) -> Option<Field> {
    let raw = &spot.value.0;
    no_scale(raw, check);
    let zone = raw.zone.value().cloned();
    if raw.format.is_absent() {
        return Some(Field { zone, ..timed(spot, Unit::ALL, default, check)? });
    }
    if let Some(unit) = raw.unit.given() {
        check.refuse(unit, "stands beside `format`, allowed: one of them");
    }
    let at = check.required(&raw.at, spot, "at")?;
    Some(Field { format: Some(raw.format.value()?.clone()), zone, ..Field::at(&at.0, None) })
}

fn latency(spot: &Spot<FieldText>, (_, default): Units, check: &mut Check<'_>) -> Option<Field> {
    no_time(&spot.value.0, check);
    no_scale(&spot.value.0, check);
    timed(spot, LATENCY_UNITS, default, check)
}

/// Validates a field with one of `units`, or with `default` if it has none.
fn timed(
    spot: &Spot<FieldText>,
    units: &[Unit],
    default: Option<Unit>,
    check: &mut Check<'_>,
) -> Option<Field> {
    let raw = &spot.value.0;
    let at = check.required(&raw.at, spot, "at").cloned();
    if let Some(unit) = raw.unit.given().filter(|unit| !units.contains(&unit.value)) {
        check.refuse(unit, format!("found {}, allowed: {}", unit.shown, names(units)));
        return None;
    }
    if raw.unit.is_absent() && default.is_none() {
        let message = format!(
            "needs a unit, allowed: {{ at = {}, unit = … }} with one of {}",
            at.as_ref().map_or_else(|| "…".to_owned(), |at| quoted(&at.0[0].to_string())),
            names(units)
        );
        check.refuse(spot, message);
        return None;
    }
    Some(Field::at(&at?.0, raw.unit.value().copied().or(default)))
}

fn no_scale(raw: &RawField, check: &mut Check<'_>) {
    if let Some(scale) = raw.scale.given() {
        check.refuse(scale, "only units have a scale, remove it");
    }
}

/// Refuses the keys that only times have.
fn no_time(raw: &RawField, check: &mut Check<'_>) {
    let locations =
        [raw.format.given().map(|spot| &spot.location), raw.zone.given().map(|spot| &spot.location)];
    for location in locations.into_iter().flatten() {
        check.refuse(location, "only a time has one, remove it");
    }
}

/// Returns the units in which a gateway usually logs time and latency, for fields that are mapped without one.
fn units(format: Format) -> Units {
    match format {
        Format::Json
        | Format::Combined
        | Format::Text
        | Format::Alb
        | Format::Cloudfront
        | Format::Haproxy => (None, None),
        Format::Apisix | Format::Kong | Format::AwsApigateway | Format::Cloudwatch => {
            (Some(Unit::Millis), Some(Unit::Millis))
        }
        Format::Envoy | Format::Cloudevents => (Some(Unit::Rfc3339), Some(Unit::Millis)),
        Format::Nginx => (Some(Unit::Seconds), Some(Unit::Seconds)),
        Format::Otel => (Some(Unit::Nanos), Some(Unit::Seconds)),
    }
}

/// Returns whether a pointer is the name of one of the pattern's variables.
pub(crate) fn names_variable(at: &Pointer, pattern: &LinePattern) -> bool {
    matches!(&at.0[..], [name] if pattern.variables().any(|variable| variable.name == *name))
}

/// A JSON pointer, or a list of `LEAST` to 16 pointers.
#[derive(Clone)]
pub(crate) struct Pointers<const LEAST: usize>(pub(crate) Vec<Pointer>);

/// Pointers, of which there may be none.
pub(crate) type Wrappers = Pointers<0>;

impl<const LEAST: usize> FromToml for Pointers<LEAST> {
    fn expected() -> String {
        let least = if LEAST == 0 { "at most".to_owned() } else { format!("{LEAST} to") };
        format!("{}; or a list of {least} {MAX_POINTERS}", <Pointer as FromToml>::expected())
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        let message = match node.value {
            TomlValue::Text(_) => return Pointer::read(node, location, problems).map(|at| Self(vec![at])),
            TomlValue::List(_) => {
                let list = List::<Pointer>::read(node, location, problems).filter(|list| !list.refused)?;
                match list.items.len() {
                    count if count > MAX_POINTERS => {
                        format!("found {count} pointers, allowed: at most {MAX_POINTERS}")
                    }
                    count if count < LEAST => format!("is empty, allowed: {}", Self::expected()),
                    _ => return Some(Self(list.items.into_iter().map(|spot| spot.value).collect())),
                }
            }
            other => format!("found {}, allowed: {}", other.shown(), Self::expected()),
        };
        problems.add(location, message);
        None
    }
}

impl Scalar for Pointer {
    fn allowed() -> String {
        format!("a JSON pointer (RFC 6901) of at most {MAX_POINTER_BYTES} bytes, such as \"/request/id\"")
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        pointer(text).ok_or_else(|| Refusal {
            hint: (!text.starts_with('/')).then(|| "a pointer starts with /".to_owned()),
            ..Refusal::default()
        })
    }
}

pub(crate) fn pointer(text: &str) -> Option<Pointer> {
    if text.len() > MAX_POINTER_BYTES || text.contains(char::is_control) {
        return None;
    }
    text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>().map(Pointer)
}

/// Unescapes a token of a pointer: `~1` is `/`, `~0` is `~`, and any other `~` is an error.
fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        unescaped.push(c);
        unescaped.push_str(rest);
    }
    Some(unescaped)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::*;

    fn read(text: &str) -> Option<Pointer> {
        Pointer::parse(&TomlValue::Text(text.to_owned())).ok()
    }

    #[test]
    fn pointers_are_unescaped() {
        for (text, tokens) in [
            ("/a~1b/0", Some(vec!["a/b", "0"])),
            ("/m~0n", Some(vec!["m~n"])),
            ("/~01", Some(vec!["~1"])),
            ("/", Some(vec![""])),
            ("/a//b", Some(vec!["a", "", "b"])),
            ("/ü x", Some(vec!["ü x"])),
            ("", None),
            ("a", None),
            ("/a~", None),
            ("/a~2", None),
            ("/~é", None),
            ("/a\u{1b}[31m", None),
            ("/a\nb", None),
        ] {
            let tokens = tokens.map(|tokens| Pointer(tokens.into_iter().map(str::to_owned).collect()));
            assert_eq!(read(text), tokens, "{text}");
        }
        let longest = format!("/{}", "a".repeat(MAX_POINTER_BYTES - 1));
        assert!(read(&longest).is_some());
        assert!(read(&format!("{longest}a")).is_none());
    }

    proptest! {
        #[test]
        fn pointers_survive_being_shown(tokens in proptest::collection::vec("[a-z~/ 0-9é]{0,6}", 1..6)) {
            let pointer = Pointer(tokens);
            prop_assert_eq!(read(&pointer.to_string()), Some(pointer));
        }
    }

    #[test]
    fn gateway_formats_keep_their_units() {
        let fields = &job(&format!(
            "{SMALL}[source.fields]\ntime = \"/t\"\nlatency = {{ at = \"/l\", unit = \"us\" }}"
        ))
        .sources[0]
            .fields;
        assert_eq!(fields.time.as_ref().and_then(|field| field.unit), Some(Unit::Millis));
        assert_eq!(fields.latency.as_ref().and_then(|field| field.unit), Some(Unit::Micros));
    }

    #[test]
    fn times_have_a_zone_and_a_form() {
        let time = |lines: &str| {
            let source = job(&(SMALL.to_owned() + lines)).sources.remove(0);
            (source.zone, source.fields.time)
        };
        let zone = |name: &str| Zone::new(name).unwrap();
        let field = |unit, format: Option<&str>, zone| {
            let format = format.map(|format| TimePattern::new(format).unwrap());
            Some(Field { format, zone, ..Field::new(Pointer(vec!["t".to_owned()]), unit) })
        };
        assert_eq!(time(""), (Zone::default(), None));
        assert_eq!(
            time(
                "zone = \"+09:00\"\n[source.fields]\ntime = { at = \"/t\", unit = \"rfc3339\", zone = \"Europe/Berlin\" }"
            ),
            (zone("+09:00"), field(Some(Unit::Rfc3339), None, Some(zone("Europe/Berlin"))))
        );
        assert_eq!(
            time("[source.fields]\ntime = { at = \"/t\", format = \"%F %T%z\" }"),
            (Zone::default(), field(None, Some("%F %T%z"), None))
        );
    }

    #[test]
    fn fields_stand_in_several_places() {
        let fields = |lines: &str| job(&(JSON.to_owned() + lines)).sources.remove(0).fields;
        let shown = |field: &Option<Field>| {
            field.as_ref().map(|field| field.at.iter().map(Pointer::to_string).collect::<Vec<_>>())
        };
        let found = fields(
            "route = [\"/a\", \"/b\"]\nquery = { at = \"/q\" }\nrequest = \"/r\"\ncount = \"/n\"\nend = { at = [\"/e\", \"/f\"], format = \"%F %T\", zone = \"Asia/Seoul\" }",
        );
        assert_eq!(shown(&found.route), Some(vec!["/a".to_owned(), "/b".to_owned()]));
        assert_eq!(
            [&found.query, &found.request, &found.count].map(shown),
            ["/q", "/r", "/n"].map(|at| Some(vec![at.to_owned()]))
        );
        let end = found.end.unwrap();
        assert_eq!((end.at.len(), end.unit, end.zone), (2, None, Zone::new("Asia/Seoul")));
        assert_eq!(end.format.as_ref().map(TimePattern::text), Some("%F %T"));
        // The end's unit is the time's by default, where the format has one.
        let kong = job(&(SMALL.replace("apisix", "kong") + "[source.fields]\nend = \"/e\""));
        assert_eq!(kong.sources[0].fields.end.as_ref().and_then(|end| end.unit), Some(Unit::Millis));
        // A query or a request line is where a key may be found.
        let keyless = JSON.replace("key = \"/k\"\n", "");
        for field in ["path", "query", "request"] {
            assert_eq!(warnings(&format!("{keyless}{field} = \"/x\"")), "", "{field}");
        }
        assert_ne!(warnings(&keyless), "");
    }

    #[test]
    fn the_time_of_a_cloud_event_is_rfc_3339_unless_it_says_otherwise() {
        let time = |lines: &str| {
            let source = job(&(SMALL.replace("apisix", "cloudevents") + "[source.fields]\n" + lines));
            source.sources[0].fields.time.as_ref().and_then(|time| time.unit)
        };
        assert_eq!(time("time = \"/data/at\""), Some(Unit::Rfc3339));
        assert_eq!(time("time = { at = \"/data/at\", unit = \"s\" }"), Some(Unit::Seconds));
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (
                with("[source.fields]\ntime = 3"),
                "line 7: source.\"gateway\".fields.time: found 3, allowed: a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }",
            ),
            (
                with("[source.fields]\ntime = { unit = \"s\" }"),
                "line 7: source.\"gateway\".fields.time.at: missing, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of 1 to 16",
            ),
            (
                with("[source.fields]\nroute = []"),
                "line 7: source.\"gateway\".fields.route: is empty, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of 1 to 16",
            ),
            (
                with("[source.fields]\ncount = { at = \"/n\", unit = \"s\" }"),
                "line 7: source.\"gateway\".fields.count.unit: only time, end and latency have a unit, remove it",
            ),
            (
                with("[source.fields]\nend = { at = \"/e\", unit = \"m\" }"),
                "line 7: source.\"gateway\".fields.end.unit: found \"m\", allowed: s, ms, us, ns, rfc3339, clf",
            ),
            (
                JSON.to_owned() + "end = \"/e\"",
                "line 9: source.\"a\".fields.end: needs a unit, allowed: { at = \"/e\", unit = … } with one of s, ms, us, ns, rfc3339, clf",
            ),
            (
                with("[source.fields]\ntime = { at = \"/t\", format = \"%Y-%m-%d\" }"),
                "line 7: source.\"gateway\".fields.time.format: found \"%Y-%m-%d\", allowed: a strptime pattern such as \"%Y/%m/%d %H:%M:%S%z\"; it doesn't give a whole time: date, hour and minute",
            ),
            (
                with("[source.fields]\ntime = { at = \"/t\", format = \"%F %T %Z\" }"),
                "line 7: source.\"gateway\".fields.time.format: found \"%F %T %Z\", allowed: a strptime pattern such as \"%Y/%m/%d %H:%M:%S%z\"; a zone's name can't be read: leave it out and set `zone`",
            ),
            (
                with("[source.fields]\ntime = { at = \"/t\", format = \"%F %T\", unit = \"ms\" }"),
                "line 7: source.\"gateway\".fields.time.unit: stands beside `format`, allowed: one of them",
            ),
            (
                with("[source.fields]\nstatus = { at = \"/s\", zone = \"UTC\" }"),
                "line 7: source.\"gateway\".fields.status.zone: only a time has one, remove it",
            ),
            (
                with("[source.fields]\nlatency = { at = \"/s\", format = \"%F %T\" }"),
                "line 7: source.\"gateway\".fields.latency.format: only a time has one, remove it",
            ),
            (
                with("[source.fields]\nlatency = { at = \"/l\", unit = \"clf\" }"),
                "line 7: source.\"gateway\".fields.latency.unit: found \"clf\", allowed: s, ms, us, ns",
            ),
            (
                SMALL.replace("apisix", "cloudwatch") + "inner = \"json\"",
                "line 1: source.\"gateway\".fields: missing, required by inner = \"json\"",
            ),
            (
                SMALL.replace("apisix", "json"),
                "line 1: source.\"gateway\".fields: missing, required by format = \"json\" with at least `time`",
            ),
            (
                SMALL.replace("apisix", "combined") + "[source.fields]\nkey = \"/k\"",
                "line 6: source.\"gateway\".fields: the combined format has no named fields, remove the section",
            ),
            (
                JSON.replace("time = { at = \"/t\", unit = \"ms\" }\n", ""),
                "line 6: source.\"a\".fields.time: missing, allowed: a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }",
            ),
            (
                JSON.replace("{ at = \"/t\", unit = \"ms\" }", "\"/t\""),
                "line 7: source.\"a\".fields.time: needs a unit, allowed: { at = \"/t\", unit = … } with one of s, ms, us, ns, rfc3339, clf",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }
}
