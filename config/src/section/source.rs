//! The sections `[[source]]`, which locate records and say how they are decoded.
//!
//! Limits: 256 sources, 64 conditions a source.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use glob::Pattern;

use super::fields::{FieldMap, Pointer, RawFields, Wrappers, pointer};
use super::format::Format;
use super::kafka::{Brokers, KafkaClient, LibrdkafkaSettings, Role};
use super::keys::{KeyRules, Keys, RawKeys};
use super::prelude::*;
use super::routes::RoutesFrom;
use super::topic::{End, KafkaSource, OnGap, Start, TopicName};
use crate::pattern::LinePattern;
use crate::time::{Unit, Zone};

const MAX_SOURCES: usize = 256;
const MAX_CONDITIONS: usize = 64;

section! {
    /// A source of access events, which is one `[[source]]`.
    #[derive(Clone, Debug)]
    pub struct Source, RawSource, by hand {
        /// The name, which is unique in the job and part of an event's identity.
        results name: String = name(Name);
        results kind: SourceKind = kind(InputKind);
        key path(PathText);
        key brokers(Brokers);
        key topic(TopicName);
        key start(Start);
        key end(End);
        key on_gap(OnGap);
        key librdkafka(LibrdkafkaSettings);
        results format: Format = format(Format);
        /// The format of records that `cloudwatch` wraps, never `cloudwatch` itself; `None` in any other format.
        results inner: Option<Format> = inner(Format);
        /// The form of a line of `text`; `None` in any other format.
        results pattern: Option<LinePattern> = pattern(LinePattern);
        /// The fields of `[source.fields]`, which `json` requires. They replace the defaults of other JSON formats.
        results fields: FieldMap;
        /// The rules of `[source.keys]`, or those of `[keys]` if the source has none.
        results keys: KeyRules;
        /// The identity of a record that was sent twice.
        results dedupe: Dedupe = dedupe(Dedupe);
        /// The zone of times without one, for fields without a zone of their own.
        results zone: Zone;
        /// The origin of the source's routes.
        results routes: RoutesFrom;
        /// Pointers to the record within a wrapper: to an object, an array of records, or a text that is JSON or (for
        /// text formats) a line.
        results unwrap: Vec<Pointer> = unwrap(Wrappers);
        /// The same for wrappers of many records. The first pointer with a value wins.
        results records: Vec<Pointer> = records(Wrappers);
        /// The conditions of `[source.only]`, which a record must meet. Others are passed over.
        results only: Vec<Condition> = only(Only);
        key routes(RawSourceRoutes);
        key zone(Zone);
        key fields(RawFields);
        key keys(RawKeys);
    }
}

keys! {
    /// The keys of `[source.routes]`.
    RawSourceRoutes {
        from: RoutesFrom,
    }
}

impl Source {
    /// Returns pointers to the lines that log agents ship.
    #[must_use]
    pub fn default_unwrap() -> Vec<Pointer> {
        ["log", "message"].map(|name| Pointer(vec![name.to_owned()])).into()
    }

    /// Returns pointers to the records of Azure and `CloudTrail`.
    #[must_use]
    pub fn default_records() -> Vec<Pointer> {
        ["records", "Records"].map(|name| Pointer(vec![name.to_owned()])).into()
    }
}

/// A condition on a member of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub at: Pointer,
    /// The allowed values as text, with `*` for any characters and `?` for one.
    pub is: Vec<glob::Pattern>,
}

/// The kind of a source, with the address of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Files that match a glob pattern, each of them one partition. Files named `.gz` are decompressed.
    File {
        /// Absolute, or relative to the working folder; with `*`, `?`, `[..]` and `**`.
        pattern: String,
    },
    /// Standard input, one partition, one worker only.
    Stdin,
    Kafka(KafkaSource),
}

choice! {
    /// The values of `kind` in a `[[source]]`.
    pub(crate) enum InputKind {
        File = "file",
        Stdin = "stdin",
        Kafka = "kafka",
    }
}

choice! {
    /// The identity of a record that may arrive twice.
    #[derive(Default)]
    pub enum Dedupe {
        /// The gateway's request id. Records without one are identified by position and never deduplicated.
        #[default]
        RequestId = "request_id",
        /// Without a request id the bytes of the message and the record's index in it, as a message that is sent again
        /// has the same bytes. This is the default of topics.
        Message = "message",
        /// The same, but only for messages that are an array or hold several records. A line with one record is a call
        /// of its own, as nothing sends lines again. This is the default of files.
        Batch = "batch",
        /// Without a request id a hash of the record's content, and how often it occurred in its message before. Equal
        /// lines of a file are different calls.
        Content = "content",
    }
}

impl Fingerprint for SourceKind {
    fn add_to(&self, encoder: &mut Encoder) {
        match self {
            Self::File { pattern } => {
                encoder.text("file");
                encoder.text(pattern);
            }
            Self::Stdin => encoder.text("stdin"),
            Self::Kafka(kafka) => {
                encoder.text("kafka");
                encoder.add(kafka);
            }
        }
    }
}

impl Fingerprint for Condition {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { at, is } = self;
        encoder.add(at);
        encoder.number(is.len() as u64);
        is.iter().for_each(|pattern| encoder.text(pattern.as_str()));
    }
}

/// The settings that all sources share: the rules of `[keys]`, and the origin of routes in `[routes]`.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) keys: &'a RawKeys,
    pub(crate) routes: Option<RoutesFrom>,
}

/// Validates all sources of a job with `workers` workers.
pub(crate) fn sources(
    entry: &Entry<List<RawSource>>,
    shared: Shared<'_>,
    workers: NonZeroUsize,
    check: &mut Check<'_>,
) -> Vec<Source> {
    let absent = RawKeys::default();
    let Entry::Given(Spot { value: list, location, .. }) = entry else {
        if entry.is_absent() {
            let location = Location { path: "source".to_owned(), at: At::Whole };
            check.refuse(&location, "missing, allowed: at least one [[source]]");
            Keys::new(&absent, shared.keys).rules(check);
        }
        return Vec::new();
    };
    if list.items.is_empty() && !list.refused {
        check.refuse(location, "is empty, allowed: at least one [[source]]");
    }
    if list.items.len() > MAX_SOURCES {
        let found = list.items.len();
        check.refuse(location, format!("found {found} sources, allowed: at most {MAX_SOURCES}"));
    }
    together(&list.items, workers, check);
    let sources = list.items.iter().filter_map(|spot| source(spot, shared, check)).collect();
    if !list.refused {
        unused_secrets(&list.items, shared.keys, check);
    }
    sources
}

/// Refuses secrets that no hash uses.
fn unused_secrets(sources: &[Spot<RawSource>], global: &RawKeys, check: &mut Check<'_>) {
    let absent = RawKeys::default();
    let used = |source: &Spot<RawSource>| {
        let own = source.value.keys.value().unwrap_or(&absent);
        Keys::new(own, global).used_secret().map(|secret| secret.location.path.clone())
    };
    let used: Vec<String> = sources.iter().filter_map(used).collect();
    let sections = sources.iter().filter_map(|source| source.value.keys.value()).chain([global]);
    for secret in sections.filter_map(|keys| keys.secret.given()) {
        if !used.contains(&secret.location.path) {
            check.refuse(secret, "no key is hashed with it, allowed: only with hash = \"hmac-sha256\"");
        }
    }
}

/// Refuses sources that exclude each other.
fn together(sources: &[Spot<RawSource>], workers: NonZeroUsize, check: &mut Check<'_>) {
    let mut named: HashMap<&str, &Spot<RawSource>> = HashMap::new();
    let mut patterns: HashMap<&str, &Spot<RawSource>> = HashMap::new();
    let mut topics: HashMap<(Vec<&str>, &str), &Spot<RawSource>> = HashMap::new();
    let mut stdin = None;
    for source in sources {
        if let Some(name) = source.value.name.given()
            && named.insert(&name.value.0, source).is_some()
        {
            let message = format!("{} names another source too, allowed: names that differ", name.shown);
            check.refuse(name, message);
        }
        if let Some(path) = source.value.path.given()
            && patterns.insert(&path.value.0, source).is_some()
        {
            check.warn(path, format!("another source reads {} too, so its events count twice", path.shown));
        }
        if let Some(brokers) = source.value.brokers.given()
            && let Some(topic) = source.value.topic.given()
            && topics.insert((brokers.value.sorted(), &topic.value.0), source).is_some()
        {
            let message = format!(
                "another source reads {} of these brokers too, so its events count twice",
                topic.shown
            );
            check.warn(topic, message);
        }
        if let Some(kind) = source.value.kind.given().filter(|kind| kind.value == InputKind::Stdin) {
            if stdin.replace(source).is_some() {
                check.refuse(kind, "found a second \"stdin\", allowed: one, as there is one standard input");
            }
            if workers.get() > 1 {
                let message = format!(
                    "found \"stdin\" with job.workers = {workers}, allowed: job.workers = 1 or kind = \"file\""
                );
                check.refuse(kind, message);
            }
        }
    }
}

fn source(spot: &Spot<RawSource>, shared: Shared<'_>, check: &mut Check<'_>) -> Option<Source> {
    let raw = &spot.value;
    let absent = RawKeys::default();
    let keys = Keys::new(raw.keys.value().unwrap_or(&absent), shared.keys);
    let name = check.required(&raw.name, spot, "name");
    let kind = check.required(&raw.kind, spot, "kind").and_then(|kind| source_kind(*kind, spot, check));
    let format = check.required(&raw.format, spot, "format").copied();
    let rules = keys.rules(check);
    let inner = format.and_then(|format| inner(raw, format, check));
    let pattern = format.and_then(|format| line_pattern(spot, inner.unwrap_or(format), check));
    let fields = format.and_then(|format| {
        FieldMap::read(&raw.fields, &spot.location, (format, inner), raw.pattern.value(), check)
    });
    let (format, pattern, fields) = (format?, pattern?, fields?);
    // The format of a record within its wrapper.
    let record = inner.unwrap_or(format);
    let clf = fields.time.as_ref().is_some_and(|time| time.unit == Some(Unit::Clf));
    let whole = pattern.as_ref().is_some_and(|pattern| !pattern.has_fractions());
    let whole_seconds = matches!(record, Format::Combined | Format::Cloudfront) || clf || whole;
    if let Some(dedupe) = raw.dedupe.given() {
        if dedupe.value == Dedupe::Content && whole_seconds {
            let message = format!(
                "found {} with times of whole seconds, so that equal calls would count once, allowed: request_id, \
                 batch",
                dedupe.shown
            );
            check.refuse(dedupe, message);
        }
        if dedupe.value == Dedupe::Message && whole_seconds {
            let message = "times are whole seconds: equal calls of one second that are messages of their own count once";
            check.warn(dedupe, message);
        }
    }
    if let Some(only) = raw.only.given() {
        if record.is_text() {
            check.refuse(only, "lines of text have no members, remove it");
        }
        let found = only.value.0.len();
        if found > MAX_CONDITIONS {
            check.refuse(only, format!("found {found} conditions, allowed: at most {MAX_CONDITIONS}"));
        }
    }
    let rules = rules?;
    let shown = raw.name.given().map_or("", |name| &name.shown);
    keys.judge(&rules, (&spot.location, shown), (record, pattern.as_ref()), &fields, check);
    let kind = kind?;
    // Equal lines of a text format are different calls: its times are whole seconds.
    let dedupe = raw.dedupe.value().copied().unwrap_or(match (record, &kind) {
        (text, _) if text.is_text() => Dedupe::RequestId,
        (_, SourceKind::Kafka(_)) if !whole_seconds => Dedupe::Message,
        (_, SourceKind::Kafka(_)) => Dedupe::Batch,
        (_, SourceKind::File { .. } | SourceKind::Stdin) => Dedupe::Batch,
    });
    // A route of Kong or APISIX often covers many endpoints, so the path is the better route.
    let routes = raw.routes.value().and_then(|routes| routes.from.value()).copied();
    let routes = routes.or(shared.routes).unwrap_or(match record {
        Format::Kong | Format::Apisix if fields.route.is_none() => RoutesFrom::Path,
        _ => RoutesFrom::Gateway,
    });
    Some(Source {
        name: name?.0.clone(),
        kind,
        format,
        inner,
        pattern,
        fields,
        keys: rules,
        dedupe,
        zone: raw.zone.value().cloned().unwrap_or_default(),
        routes,
        unwrap: raw.unwrap.value().map_or_else(Source::default_unwrap, |at| at.0.clone()),
        records: raw.records.value().map_or_else(Source::default_records, |at| at.0.clone()),
        only: raw.only.value().map(|only| only.0.clone()).unwrap_or_default(),
    })
}

/// Validates the format of the records that `cloudwatch` wraps.
fn inner(raw: &RawSource, format: Format, check: &mut Check<'_>) -> Option<Format> {
    if format != Format::Cloudwatch {
        if let Some(inner) = raw.inner.given() {
            check.refuse(inner, "has no meaning here, allowed: only beside format = \"cloudwatch\"");
        }
        return None;
    }
    if let Some(inner) = raw.inner.given().filter(|inner| inner.value == Format::Cloudwatch) {
        let others: Vec<Format> =
            Format::ALL.iter().copied().filter(|other| *other != Format::Cloudwatch).collect();
        check.refuse(inner, format!("found {}, allowed: {}", inner.shown, names(&others)));
    }
    Some(raw.inner.value().copied().unwrap_or(Format::AwsApigateway))
}

/// Validates the pattern of a record's format; `Some(None)` for formats without one.
fn line_pattern(
    spot: &Spot<RawSource>,
    record: Format,
    check: &mut Check<'_>,
) -> Option<Option<LinePattern>> {
    let entry = &spot.value.pattern;
    if record == Format::Text {
        return check.required(entry, spot, "pattern").cloned().map(Some);
    }
    if let Some(pattern) = entry.given() {
        check.refuse(pattern, "has no meaning here, allowed: only beside format = \"text\"");
    }
    Some(None)
}

fn source_kind(kind: InputKind, spot: &Spot<RawSource>, check: &mut Check<'_>) -> Option<SourceKind> {
    let raw = &spot.value;
    if kind != InputKind::Kafka {
        check.foreign(&raw.brokers, "kafka");
        check.foreign(&raw.topic, "kafka");
        check.foreign(&raw.start, "kafka");
        check.foreign(&raw.end, "kafka");
        check.foreign(&raw.on_gap, "kafka");
        check.foreign(&raw.librdkafka, "kafka");
    }
    match kind {
        InputKind::File => {
            check.required(&raw.path, spot, "path")?;
            Some(SourceKind::File { pattern: files(raw.path.given()?, check)? })
        }
        InputKind::Stdin => {
            if let Some(path) = raw.path.given() {
                check.refuse(path, "standard input has no path, allowed: only beside kind = \"file\"");
            }
            Some(SourceKind::Stdin)
        }
        InputKind::Kafka => {
            check.foreign(&raw.path, "file");
            let client = KafkaClient::read(&raw.brokers, &raw.librdkafka, spot, Role::Events, check);
            let topic = check.required(&raw.topic, spot, "topic");
            range(raw, check);
            Some(SourceKind::Kafka(KafkaSource {
                start: raw.start.value().cloned().unwrap_or_default(),
                end: raw.end.value().cloned().unwrap_or_default(),
                on_gap: raw.on_gap.value().copied().unwrap_or_default(),
                ..KafkaSource::new(client?, topic?.0.as_str())
            }))
        }
    }
}

/// Refuses a range in which a bounded run could read nothing.
fn range(raw: &RawSource, check: &mut Check<'_>) {
    let Some((start, end)) = raw.start.given().zip(raw.end.given()) else { return };
    let location = &end.location;
    match (&start.value, &end.value) {
        (Start::Time(from), End::Time(to)) if to <= from => {
            let message =
                format!("found {}, allowed: a time after `start`, which is {}", end.value, start.value);
            check.refuse(location, message);
        }
        (Start::Offsets(from), End::Offsets(to)) => {
            for (partition, to) in to {
                if let Some(from) = from.get(partition).filter(|from| to < from) {
                    let message = format!(
                        "partition {partition} ends at {to}, allowed: at least {from}, where it starts"
                    );
                    check.refuse(location, message);
                }
            }
        }
        _ => {}
    }
}

/// Validates a glob pattern. It is relative to the folder of the file, whose own name is no pattern.
fn files(path: &Spot<PathText>, check: &mut Check<'_>) -> Option<String> {
    if let Err(error) = Pattern::new(&path.value.0) {
        let message =
            format!("found {}, allowed: a glob pattern of *, ?, [..] and **: {}", path.shown, error.msg);
        check.refuse(path, message);
        return None;
    }
    if Path::new(&path.value.0).is_absolute() || check.base.as_os_str().is_empty() {
        return Some(path.value.0.clone());
    }
    let Some(base) = check.base.to_str() else {
        check.refuse(path, "the configuration file's folder isn't UTF-8, allowed: an absolute path");
        return None;
    };
    let pattern = Path::new(&Pattern::escape(base)).join(&path.value.0);
    pattern.into_os_string().into_string().ok()
}

/// The section `[source.only]`: pointers with the values that a record must have there.
pub(crate) struct Only(Vec<Condition>);

impl FromToml for Only {
    const SECTION: bool = true;

    fn expected() -> String {
        "a section of JSON pointers with what stands there, such as \"/logger\" = \"http.log.access*\""
            .to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        let mut conditions = Vec::new();
        for (name, location, node) in Section::open(node, location, problems)?.into_named() {
            let Some(at) = pointer(&name) else {
                let message = "isn't a JSON pointer, allowed: names such as \"/logger\"";
                let hint = if name.starts_with('/') { "" } else { "; a pointer starts with /" };
                problems.add(&location, format!("{message}{hint}"));
                continue;
            };
            let values = match node.value {
                TomlValue::List(nodes) => nodes.into_iter().map(|node| node.value).collect(),
                other => vec![other],
            };
            if values.is_empty() {
                problems.add(
                    &location,
                    format!("is empty, so that no record would count, allowed: {PATTERN}, or a list of such"),
                );
            }
            let is = values.iter().filter_map(|value| pattern(value, &location, problems)).collect();
            conditions.push(Condition { at, is });
        }
        Some(Self(conditions))
    }
}

const PATTERN: &str = "a text (with *, ? and [..] for other characters), a whole number, true or false";

/// Reads a value of `[source.only]` as a pattern.
fn pattern(value: &TomlValue, location: &Location, problems: &mut Problems) -> Option<glob::Pattern> {
    let text = match value {
        TomlValue::Text(text) => text.clone(),
        TomlValue::Boolean(flag) => flag.to_string(),
        TomlValue::Integer(number) => number.to_string(),
        other => {
            problems.add(location, format!("found {}, allowed: {PATTERN}, or a list of such", other.shown()));
            return None;
        }
    };
    match glob::Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.add(location, format!("found {}, allowed: {PATTERN}: {}", value.shown(), error.msg));
            None
        }
    }
}

impl Scalar for LinePattern {
    fn allowed() -> String {
        "the server's own format of a log line: of NGINX, Apache httpd, Envoy or Amazon API Gateway"
            .to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        Self::parse(text(value)?)
            .map_err(|fault| Refusal { hint: Some(fault.to_string()), ..Refusal::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use crate::*;

    #[test]
    fn two_standard_inputs_are_one_too_many() {
        let stdin =
            |name: &str| format!("[[source]]\nname = \"{name}\"\nkind = \"stdin\"\nformat = \"kong\"\n");
        assert_eq!(
            problems(&(stdin("a") + &stdin("b"))),
            "line 7: source.\"b\".kind: found a second \"stdin\", allowed: one, as there is one standard input"
        );
    }

    #[test]
    fn records_are_identified_by_their_messages() {
        let dedupe = |text: &str| job(text).sources.remove(0).dedupe;
        let stdin = "[[source]]\nname = \"a\"\nkind = \"stdin\"\nformat = \"kong\"\n";
        assert_eq!([KAFKA, SMALL, stdin].map(dedupe), [Dedupe::Message, Dedupe::Batch, Dedupe::Batch]);
        // Equal lines of a log with times of whole seconds are different calls.
        for text in [KAFKA, SMALL] {
            assert_eq!(dedupe(&text.replace("apisix", "combined")), Dedupe::RequestId);
            for (name, expected) in
                [("message", Dedupe::Message), ("batch", Dedupe::Batch), ("content", Dedupe::Content)]
            {
                assert_eq!(dedupe(&format!("{text}dedupe = \"{name}\"")), expected);
            }
            assert_eq!(dedupe(&(text.replace("apisix", "combined") + "dedupe = \"batch\"")), Dedupe::Batch);
        }
    }

    #[test]
    fn wrappers_and_conditions_are_pointers() {
        let source = |lines: &str| job(&(SMALL.to_owned() + lines)).sources.remove(0);
        let shown = |pointers: &[Pointer]| pointers.iter().map(Pointer::to_string).collect::<Vec<_>>();
        let one = source("unwrap = \"/a\"\nrecords = [\"/b/c\", \"/d\"]");
        assert_eq!(
            (shown(&one.unwrap), shown(&one.records)),
            (vec!["/a".to_owned()], vec!["/b/c".to_owned(), "/d".to_owned()])
        );
        let none = source("unwrap = []\nrecords = []");
        assert!(none.unwrap.is_empty() && none.records.is_empty());
        let only = source(
            "[source.only]\n\"/logger\" = [\"http.log.*\", \"x\"]\n\"/a~1b\" = true\n\"/level\" = 30\n\"/kind\" = \"\"",
        );
        let conditions = only.only.iter().map(|condition| {
            (
                condition.at.to_string(),
                condition.is.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(),
            )
        });
        let expected = [
            ("/logger", vec!["http.log.*", "x"]),
            ("/a~1b", vec!["true"]),
            ("/level", vec!["30"]),
            ("/kind", vec![""]),
        ];
        let mut conditions: Vec<_> = conditions.collect();
        conditions.sort();
        let mut expected: Vec<_> = expected.map(|(at, is)| (at.to_owned(), is)).into();
        expected.sort();
        assert_eq!(conditions, expected);
        let conditions = |count: usize| {
            (0..count)
                .fold(format!("{SMALL}[source.only]\n"), |text, n| text + &format!("\"/c{n}\" = \"x\"\n"))
        };
        assert_eq!(problems(&conditions(64)), "");
        assert_eq!(
            problems(&conditions(65)),
            "line 6: source.\"gateway\".only: found 65 conditions, allowed: at most 64"
        );
    }

    #[test]
    fn routes_are_of_the_path_where_a_gateway_s_route_covers_many() {
        let routes = |format: &str, lines: &str| {
            job(&(SMALL.replace("apisix", format) + lines)).sources.remove(0).routes
        };
        for (format, lines, expected) in [
            ("apisix", "", RoutesFrom::Path),
            ("kong", "", RoutesFrom::Path),
            ("cloudwatch", "inner = \"kong\"", RoutesFrom::Path),
            ("nginx", "", RoutesFrom::Gateway),
            ("aws-apigateway", "", RoutesFrom::Gateway),
            ("otel", "", RoutesFrom::Gateway),
            // A route that is mapped is one.
            ("kong", "[source.fields]\nroute = \"/r\"", RoutesFrom::Gateway),
            ("kong", "[routes]\nfrom = \"gateway\"", RoutesFrom::Gateway),
            ("nginx", "[routes]\nfrom = \"path\"", RoutesFrom::Path),
            ("kong", "[source.routes]\nfrom = \"path\"\n[routes]\nfrom = \"gateway\"", RoutesFrom::Path),
            ("kong", "[source.routes]\nfrom = \"gateway\"", RoutesFrom::Gateway),
        ] {
            assert_eq!(routes(format, lines), expected, "{format}: {lines}");
        }
    }

    #[test]
    fn cloudwatch_wraps_another_format() {
        let with = |lines: &str| job(&(SMALL.replace("apisix", "cloudwatch") + lines)).sources.remove(0);
        assert_eq!((with("").format, with("").inner), (Format::Cloudwatch, Some(Format::AwsApigateway)));
        assert_eq!(with("inner = \"combined\"").inner, Some(Format::Combined));
        // A log event has a time of its own.
        let json = with("inner = \"json\"\n[source.fields]\nkey = \"/k\"");
        assert_eq!((json.inner, json.fields.time), (Some(Format::Json), None));
        assert_eq!(job(SMALL).sources[0].inner, None);
    }

    #[test]
    fn paths_are_relative_to_the_file_whose_folder_is_no_pattern() {
        let folder = tempfile::Builder::new().prefix("odd[1]*").tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        let text = format!(
            "{SMALL}[tables.keys]\nkind = \"file\"\npath = \"../keys.csv\"\nformat = \"csv\"\n[geo]\ncountry = \"/geo/c.mmdb\""
        );
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        std::fs::write(folder.path().join("logs/a.log"), "").unwrap();
        let job = JobConfig::load(&file, env(&[])).unwrap().job;
        let SourceKind::File { pattern } = &job.sources[0].kind else { panic!("a file source") };
        let matches: Vec<PathBuf> = glob::glob(pattern).unwrap().map(Result::unwrap).collect();
        assert_eq!(matches, [folder.path().join("logs/a.log")]);
        let path = folder.path().join("../keys.csv");
        assert_eq!(job.tables.keys, Some(TableSource::File { path, format: TableFormat::Csv }));
        assert_eq!(job.geo.country.unwrap(), Path::new("/geo/c.mmdb"));
    }

    #[test]
    fn a_topic_that_is_read_twice_is_a_warning() {
        let other = |brokers: &str| {
            let first = KAFKA.replace("kafka:9092", "a:1,b:2");
            warnings(&(first + &KAFKA.replace("gateway", "other").replace("kafka:9092", brokers)))
        };
        assert_eq!(
            other("b:2, a:1"),
            "line 11: source.\"other\".topic: another source reads \"events\" of these brokers too, so its events count twice"
        );
        assert_eq!(other("c:3"), "");
    }

    #[test]
    fn patterns_of_text_lines() {
        let pattern = r#"pattern = '$msec $request_id "$request" $status "$http_x_api_key"'"#;
        let rules = "\n[source.keys]\nfrom = [\"header:x-api-key\"]";
        let loaded = parse_with(&text_source(&format!("{pattern}{rules}")), &[]).unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.job.sources[0].pattern.as_ref().unwrap().variables().count(), 5);
        let unread = "\n[source.keys]\nfrom = [\"header:x-other\"]";
        let loaded = parse_with(&text_source(&format!("{pattern}{unread}")), &[]).unwrap();
        assert!(
            loaded.warnings[0].to_string().contains("can find a key in format text"),
            "{:?}",
            loaded.warnings
        );
        let mapped = "\n[source.fields]\nuser = \"/request_id\"\ntime = { at = \"/msec\", unit = \"s\" }";
        assert!(parse_with(&text_source(&format!("{pattern}{mapped}")), &[]).is_ok());
        for (more, expected) in [
            (String::new(), "pattern: missing".to_owned()),
            (
                "pattern = '$status'".to_owned(),
                "has no variable for the time, and every record needs its time; allowed: one such as $time_iso8601 or $msec".to_owned(),
            ),
            ("pattern = '$msec $status$request'".to_owned(), "at character 14: nothing stands between".to_owned()),
            (
                format!("{pattern}\n[source.fields]\nuser = \"/remote_user\""),
                "which is no variable of the pattern, allowed: /msec, /request_id".to_owned(),
            ),
            (
                "pattern = '$time_local $status'\ndedupe = \"content\"".to_owned(),
                "times of whole seconds".to_owned(),
            ),
        ] {
            let error = parse_with(&text_source(&more), &[]).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
        }
        let foreign = text_source(pattern).replace("\"text\"", "\"combined\"");
        assert!(parse_with(&foreign, &[]).unwrap_err().to_string().contains("only beside format = \"text\""));
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (String::new(), "source: missing, allowed: at least one [[source]]"),
            ("source = []".to_owned(), "line 1: source: is empty, allowed: at least one [[source]]"),
            ("[source]".to_owned(), "line 1: source: found a section, allowed: a list, written [[source]]"),
            ("source = [3]".to_owned(), "line 1: source[0]: found 3, allowed: a section"),
            (
                with("dedupe = true"),
                "line 6: source.\"gateway\".dedupe: found true, allowed: request_id, message, batch, content",
            ),
            (
                with("job = 3"),
                "line 6: source.\"gateway\".job: unknown key, allowed here: name, kind, path, brokers, topic, start, end, on_gap, librdkafka, format, inner, pattern, dedupe, unwrap, records, only, routes, zone, fields, keys",
            ),
            (
                with("unwrap = 3"),
                "line 6: source.\"gateway\".unwrap: found 3, allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; or a list of at most 16",
            ),
            (
                with("records = [\"/a\", \"b\"]"),
                "line 6: source.\"gateway\".records[1]: found \"b\", allowed: a JSON pointer (RFC 6901) of at most 1024 bytes, such as \"/request/id\"; a pointer starts with /",
            ),
            (
                with(&format!("unwrap = [{}]", vec!["\"/a\""; 17].join(","))),
                "line 6: source.\"gateway\".unwrap: found 17 pointers, allowed: at most 16",
            ),
            (
                with("only = \"/logger\""),
                "line 6: source.\"gateway\".only: found \"/logger\", allowed: a section",
            ),
            (
                with("[source.only]\nlogger = \"x\""),
                "line 7: source.\"gateway\".only.\"logger\": isn't a JSON pointer, allowed: names such as \"/logger\"; a pointer starts with /",
            ),
            (
                with("[source.only]\n\"/a~2\" = \"x\""),
                "line 7: source.\"gateway\".only.\"/a~2\": isn't a JSON pointer, allowed: names such as \"/logger\"",
            ),
            (
                with("[source.only]\n\"/logger\" = []"),
                "line 7: source.\"gateway\".only.\"/logger\": is empty, so that no record would count, allowed: a text (with *, ? and [..] for other characters), a whole number, true or false, or a list of such",
            ),
            (
                with("[source.only]\n\"/logger\" = [\"x\", 1.5]"),
                "line 7: source.\"gateway\".only.\"/logger\": found 1.5, allowed: a text (with *, ? and [..] for other characters), a whole number, true or false, or a list of such",
            ),
            (
                with("[source.only]\n\"/logger\" = \"[a\""),
                "line 7: source.\"gateway\".only.\"/logger\": found \"[a\", allowed: a text (with *, ? and [..] for other characters), a whole number, true or false: invalid range pattern",
            ),
            (
                with("[source.routes]\nfrom = \"paths\""),
                "line 7: source.\"gateway\".routes.from: found \"paths\", allowed: gateway, path; did you mean \"path\"?",
            ),
            (
                with("[source.routes]\ntemplates = []"),
                "line 7: source.\"gateway\".routes.templates: unknown key, allowed here: from",
            ),
            (
                with("zone = \"Asia/Soul\""),
                "line 6: source.\"gateway\".zone: found \"Asia/Soul\", allowed: an IANA time zone such as \"Asia/Seoul\", or an offset from UTC such as \"+09:00\"; did you mean \"Asia/Seoul\"?",
            ),
            (
                SMALL.replace("file", "s3"),
                "line 3: source.\"gateway\".kind: found \"s3\", allowed: file, stdin, kafka",
            ),
            (
                with("topic = \"events\""),
                "line 6: source.\"gateway\".topic: has no meaning here, allowed: only beside kind = \"kafka\"",
            ),
            (
                with("inner = \"kong\""),
                "line 6: source.\"gateway\".inner: has no meaning here, allowed: only beside format = \"cloudwatch\"",
            ),
            (
                SMALL.replace("apisix", "cloudwatch") + "inner = \"cloudwatch\"",
                "line 6: source.\"gateway\".inner: found \"cloudwatch\", allowed: json, apisix, kong, envoy, nginx, aws-apigateway, otel, cloudevents, combined, text, alb, cloudfront, haproxy",
            ),
            (
                SMALL.replace("apisix", "cloudwatch") + "inner = \"combined\"\ndedupe = \"content\"",
                "line 7: source.\"gateway\".dedupe: found \"content\" with times of whole seconds, so that equal calls would count once, allowed: request_id, batch",
            ),
            (
                SMALL.replace("logs/*", "logs/[").clone(),
                "line 4: source.\"gateway\".path: found \"logs/[.log\", allowed: a glob pattern of *, ?, [..] and **: invalid range pattern",
            ),
            (
                SMALL.replace("logs/*", "a\\u001b[31m"),
                "line 4: source.\"gateway\".path: found \"a\\u{1b}[31m.log\", allowed: a path, absolute or relative to the configuration file",
            ),
            (
                SMALL.replace("file", "stdin"),
                "line 4: source.\"gateway\".path: standard input has no path, allowed: only beside kind = \"file\"",
            ),
            (
                SMALL.replace("\"file\"\npath = \"logs/*.log\"", "\"stdin\"") + "[job]\nworkers = 2",
                "line 3: source.\"gateway\".kind: found \"stdin\" with job.workers = 2, allowed: job.workers = 1 or kind = \"file\"",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn suspicious_values_are_warnings() {
        for (text, expected) in [
            (
                JSON.replace("key = \"/k\"\n", ""),
                "line 1: source.\"a\": source \"a\": no rule of keys.from (header:apikey, query:apikey, key) can find a key in format json, so that no call has one",
            ),
            (
                SMALL.to_owned() + &SMALL.replace("gateway", "other"),
                "line 9: source.\"other\".path: another source reads \"logs/*.log\" too, so its events count twice",
            ),
        ] {
            assert_eq!(warnings(&text), expected, "{text}");
        }
    }
}
