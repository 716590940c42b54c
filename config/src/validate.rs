//! From what is written to what a job can rely on: ranges, relations between keys, defaults, paths, secrets.
//!
//! Every check runs, whatever the others found; a value that was refused before is passed over, so that one
//! mistake is one problem. The result exists only where no problem was found.
//!
//! Limits beside those of single values (`scalar.rs`) and of librdkafka's settings (`kafka.rs`): 256 workers, 256
//! sources, 8 key rules a list, 10,000 route templates, 1,024 trusted proxies, 64 KiB a secret. A tick lasts 10
//! ms to 1 min. At most 1 h out of order; at most 3 h late, as the finest windows can't change after that; at
//! most 7 d of remembered request ids. Partitions idle after 1 to 1,000 ticks and are read 1 min to 1 h ahead. A
//! sink's topics have 1 to 10,000 partitions; 1 MiB to 4 GiB wait to be sent. Its files are closed at 4 KiB to 64
//! GiB, after 1 s to 7 d; up to 1,000,000 of a view are kept. Those of alerts: `validate/alerts.rs`.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::Path;

use glob::Pattern;

use crate::job::*;
use crate::pattern::{LineField, LinePattern, Variable, header_name};
use crate::raw::*;
use crate::scalar::*;
use crate::section::check::Check;
use crate::section::kafka::Role;
use crate::toml::problem::{Place, Problems};
use crate::toml::tree::{At, quoted};
use crate::toml::value::{Choice, Scalar, names};

const MAX_SOURCES: usize = 256;
const MAX_RULES: usize = 8;
const MAX_CONDITIONS: usize = 64;

/// Validates a file that lies in `base`. Problems go to `problems`, what is allowed but suspicious to
/// `warnings`.
pub(crate) fn validate(
    raw: &RawConfig,
    base: &Path,
    env: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Option<JobConfig> {
    let mut check = Check { base, env, problems, warnings, secrets_used: Vec::new() };
    let job: Job = check.section(&raw.job);
    let sources = check.sources(raw, job.workers);
    let tables = check.section(&raw.tables);
    let geo = check.section(&raw.geo);
    let routes = check.section(&raw.routes);
    let windows = check.section(&raw.windows);
    let limits = check.section(&raw.limits);
    let sinks = check.section(&raw.sink);
    let detection = check.section(&raw.detection);
    let alerts = check.section(&raw.alerts);
    let http = check.section(&raw.http);
    let log = check.section(&raw.log);
    check.loops(raw, &sources, &sinks);
    problems.is_empty().then_some(JobConfig {
        job,
        sources,
        tables,
        geo,
        routes,
        windows,
        limits,
        sinks,
        detection,
        alerts,
        http,
        log,
    })
}

impl Check<'_> {
    fn sources(&mut self, raw: &RawConfig, workers: NonZeroUsize) -> Vec<Source> {
        let absent = RawKeys::default();
        let global = section(&raw.keys, &absent);
        let routes = raw.routes.value().and_then(|routes| routes.from.value()).copied();
        let Entry::Given(Spot { value: list, place, .. }) = &raw.source else {
            if raw.source.is_absent() {
                let place = Place { path: "source".to_owned(), at: At::Whole };
                self.problems.add(&place, "missing, allowed: at least one [[source]]");
                self.key_rules(global, &absent);
            }
            return Vec::new();
        };
        if list.items.is_empty() && !list.refused {
            self.problems.add(place, "is empty, allowed: at least one [[source]]");
        }
        if list.items.len() > MAX_SOURCES {
            let found = list.items.len();
            self.problems.add(place, format!("found {found} sources, allowed: at most {MAX_SOURCES}"));
        }
        self.together(&list.items, workers);
        let sources: Vec<Source> =
            list.items.iter().filter_map(|source| self.source(source, global, routes)).collect();
        if !list.refused {
            let sections = list.items.iter().filter_map(|source| source.value.keys.value()).chain([global]);
            for secret in sections.filter_map(|keys| keys.secret.given()) {
                if !self.secrets_used.contains(&secret.place.path) {
                    let message = "no key is hashed with it, allowed: only with hash = \"hmac-sha256\"";
                    self.problems.add(&secret.place, message);
                }
            }
        }
        sources
    }

    /// What sources must not be beside each other.
    fn together(&mut self, sources: &[Spot<RawSource>], workers: NonZeroUsize) {
        let mut named: HashMap<&str, &Spot<RawSource>> = HashMap::new();
        let mut patterns: HashMap<&str, &Spot<RawSource>> = HashMap::new();
        let mut topics: HashMap<(Vec<&str>, &str), &Spot<RawSource>> = HashMap::new();
        let mut stdin = None;
        for source in sources {
            if let Some(name) = source.value.name.given()
                && named.insert(&name.value.0, source).is_some()
            {
                let message = format!("{} names another source too, allowed: names that differ", name.shown);
                self.problems.add(&name.place, message);
            }
            if let Some(path) = source.value.path.given()
                && patterns.insert(&path.value.0, source).is_some()
            {
                let message = format!("another source reads {} too, so its events count twice", path.shown);
                self.warnings.add(&path.place, message);
            }
            if let Some(brokers) = source.value.brokers.given()
                && let Some(topic) = source.value.topic.given()
                && topics.insert((brokers.value.sorted(), &topic.value.0), source).is_some()
            {
                let message = format!(
                    "another source reads {} of these brokers too, so its events count twice",
                    topic.shown
                );
                self.warnings.add(&topic.place, message);
            }
            if let Some(kind) = source.value.kind.given().filter(|kind| kind.value == InputKind::Stdin) {
                if stdin.replace(source).is_some() {
                    self.problems.add(
                        &kind.place,
                        "found a second \"stdin\", allowed: one, as there is one standard input",
                    );
                }
                if workers.get() > 1 {
                    let message = format!(
                        "found \"stdin\" with job.workers = {workers}, allowed: job.workers = 1 or kind = \"file\""
                    );
                    self.problems.add(&kind.place, message);
                }
            }
        }
    }

    fn source(
        &mut self,
        spot: &Spot<RawSource>,
        global: &RawKeys,
        routes: Option<RoutesFrom>,
    ) -> Option<Source> {
        let raw = &spot.value;
        let absent = RawKeys::default();
        let own = section(&raw.keys, &absent);
        let name = self.required(&raw.name, spot, "name");
        let kind = self.required(&raw.kind, spot, "kind").and_then(|kind| self.source_kind(*kind, spot));
        let format = self.required(&raw.format, spot, "format").copied();
        let rules = self.key_rules(global, own);
        let inner = format.and_then(|format| self.inner(raw, format));
        let pattern = format.and_then(|format| self.line_pattern(spot, inner.unwrap_or(format)));
        let fields = format.and_then(|format| self.fields(spot, format, inner));
        let (format, pattern, fields) = (format?, pattern?, fields?);
        // What a record of the gateway's is like.
        let record = inner.unwrap_or(format);
        let clf = fields.time.as_ref().is_some_and(|time| time.unit == Some(Unit::Clf));
        let whole = pattern.as_ref().is_some_and(|pattern| !pattern.has_fractions());
        let whole_seconds = matches!(record, Format::Combined | Format::Cloudfront) || clf || whole;
        if let Some(dedupe) = raw.dedupe.given() {
            if dedupe.value == Dedupe::Content && whole_seconds {
                let message = format!(
                    "found {} with times of whole seconds, so that equal calls would count once, allowed: \
                     request_id, batch",
                    dedupe.shown
                );
                self.problems.add(&dedupe.place, message);
            }
            if dedupe.value == Dedupe::Message && whole_seconds {
                let message = "times are whole seconds: equal calls of one second that are messages of their own count once";
                self.warnings.add(&dedupe.place, message);
            }
        }
        if let Some(only) = raw.only.given().filter(|_| record.is_text()) {
            self.problems.add(&only.place, "lines of text have no members, remove it");
        }
        if let Some(only) = raw.only.given().filter(|only| only.value.0.len() > MAX_CONDITIONS) {
            let message =
                format!("found {} conditions, allowed: at most {MAX_CONDITIONS}", only.value.0.len());
            self.problems.add(&only.place, message);
        }
        let rules = rules?;
        self.key_rules_fit(spot, (record, pattern.as_ref()), &fields, &rules, global, own);
        let kind = kind?;
        // Equal lines of a text format are different calls: its times are whole seconds.
        let dedupe = raw.dedupe.value().copied().unwrap_or(match (record, &kind) {
            (text, _) if text.is_text() => Dedupe::RequestId,
            (_, SourceKind::Kafka(_)) if !whole_seconds => Dedupe::Message,
            (_, SourceKind::Kafka(_)) => Dedupe::Batch,
            (_, SourceKind::File { .. } | SourceKind::Stdin) => Dedupe::Batch,
        });
        Some(Source {
            name: name?.0.clone(),
            kind,
            format,
            inner,
            pattern,
            routes: routes_from(raw, routes, record, &fields),
            fields,
            keys: rules,
            dedupe,
            zone: raw.zone.value().cloned().unwrap_or_default(),
            unwrap: raw.unwrap.value().map_or_else(Source::default_unwrap, |at| at.0.clone()),
            records: raw.records.value().map_or_else(Source::default_records, |at| at.0.clone()),
            only: raw.only.value().map(|only| only.0.clone()).unwrap_or_default(),
        })
    }

    /// What `cloudwatch` wraps.
    fn inner(&mut self, raw: &RawSource, format: Format) -> Option<Format> {
        if format != Format::Cloudwatch {
            if let Some(inner) = raw.inner.given() {
                let message = "has no meaning here, allowed: only beside format = \"cloudwatch\"";
                self.problems.add(&inner.place, message);
            }
            return None;
        }
        if let Some(inner) = raw.inner.given().filter(|inner| inner.value == Format::Cloudwatch) {
            let others: Vec<Format> =
                Format::ALL.iter().copied().filter(|other| *other != Format::Cloudwatch).collect();
            self.problems.add(&inner.place, format!("found {}, allowed: {}", inner.shown, names(&others)));
        }
        Some(raw.inner.value().copied().unwrap_or(Format::AwsApigateway))
    }

    /// The pattern of a record's format; `Some(None)` where it has none.
    fn line_pattern(&mut self, spot: &Spot<RawSource>, record: Format) -> Option<Option<LinePattern>> {
        let entry = &spot.value.pattern;
        if record == Format::Text {
            return self.required(entry, spot, "pattern").cloned().map(Some);
        }
        if let Some(pattern) = entry.given() {
            self.problems.add(&pattern.place, "has no meaning here, allowed: only beside format = \"text\"");
        }
        Some(None)
    }

    fn source_kind(&mut self, kind: InputKind, spot: &Spot<RawSource>) -> Option<SourceKind> {
        let raw = &spot.value;
        if kind != InputKind::Kafka {
            self.foreign(&raw.brokers, "kafka");
            self.foreign(&raw.topic, "kafka");
            self.foreign(&raw.start, "kafka");
            self.foreign(&raw.end, "kafka");
            self.foreign(&raw.on_gap, "kafka");
            self.foreign(&raw.librdkafka, "kafka");
        }
        match kind {
            InputKind::File => {
                self.required(&raw.path, spot, "path")?;
                Some(SourceKind::File { pattern: self.pattern(raw.path.given()?)? })
            }
            InputKind::Stdin => {
                if let Some(path) = raw.path.given() {
                    self.problems
                        .add(&path.place, "standard input has no path, allowed: only beside kind = \"file\"");
                }
                Some(SourceKind::Stdin)
            }
            InputKind::Kafka => {
                self.foreign(&raw.path, "file");
                let client = KafkaClient::read(&raw.brokers, &raw.librdkafka, spot, Role::Events, self);
                let topic = self.required(&raw.topic, spot, "topic");
                self.range(raw);
                Some(SourceKind::Kafka(KafkaSource {
                    start: raw.start.value().cloned().unwrap_or_default(),
                    end: raw.end.value().cloned().unwrap_or_default(),
                    on_gap: raw.on_gap.value().copied().unwrap_or_default(),
                    ..KafkaSource::new(client?, topic?.0.as_str())
                }))
            }
        }
    }

    /// Whether a bounded run could read anything between `start` and `end`.
    fn range(&mut self, raw: &RawSource) {
        let Some((start, end)) = raw.start.given().zip(raw.end.given()) else { return };
        let place = &end.place;
        match (&start.value, &end.value) {
            (Start::Time(from), End::Time(to)) if to <= from => {
                let message =
                    format!("found {}, allowed: a time after `start`, which is {}", end.value, start.value);
                self.problems.add(place, message);
            }
            (Start::Offsets(from), End::Offsets(to)) => {
                for (partition, to) in to {
                    if let Some(from) = from.get(partition).filter(|from| to < from) {
                        let message = format!(
                            "partition {partition} ends at {to}, allowed: at least {from}, where it starts"
                        );
                        self.problems.add(place, message);
                    }
                }
            }
            _ => {}
        }
    }

    /// A glob pattern below `base`, whose own name is taken literally.
    fn pattern(&mut self, path: &Spot<PathText>) -> Option<String> {
        if let Err(error) = Pattern::new(&path.value.0) {
            let message =
                format!("found {}, allowed: a glob pattern of *, ?, [..] and **: {}", path.shown, error.msg);
            self.problems.add(&path.place, message);
            return None;
        }
        if Path::new(&path.value.0).is_absolute() || self.base.as_os_str().is_empty() {
            return Some(path.value.0.clone());
        }
        let Some(base) = self.base.to_str() else {
            self.problems
                .add(&path.place, "the configuration file's folder isn't UTF-8, allowed: an absolute path");
            return None;
        };
        let pattern = Path::new(&Pattern::escape(base)).join(&path.value.0);
        pattern.into_os_string().into_string().ok()
    }

    /// The fields of a record: of `inner` where there is one.
    fn fields(&mut self, spot: &Spot<RawSource>, format: Format, inner: Option<Format>) -> Option<FieldMap> {
        let entry = &spot.value.fields;
        let wrapped = inner.is_some();
        let format = inner.unwrap_or(format);
        if format.is_text() && format != Format::Text {
            if let Some(fields) = entry.given() {
                let message = format!("the {} format has no named fields, remove the section", format.name());
                self.problems.add(&fields.place, message);
                return None;
            }
            return Some(FieldMap::default());
        }
        let absent = RawFields::default();
        let raw = match entry {
            Entry::Given(fields) => {
                // A log event has a time of its own.
                if format == Format::Json && !wrapped {
                    self.required(&fields.value.time, fields, "time");
                }
                &fields.value
            }
            Entry::Absent if format == Format::Json => {
                let place = Place { path: format!("{}.fields", spot.place.path), at: spot.place.at.clone() };
                let message = match wrapped {
                    true => "missing, required by inner = \"json\"",
                    false => "missing, required by format = \"json\" with at least `time`",
                };
                self.problems.add(&place, message);
                return None;
            }
            Entry::Absent | Entry::Refused => &absent,
        };
        if let (Format::Text, Some(pattern)) = (format, spot.value.pattern.value()) {
            self.named_variables(raw, pattern);
        }
        let (time, latency) = units(format);
        Some(FieldMap {
            request_id: self.plain(&raw.request_id),
            time: self.time(&raw.time, time),
            key: self.plain(&raw.key),
            api: self.plain(&raw.api),
            route: self.plain(&raw.route),
            path: self.plain(&raw.path),
            method: self.plain(&raw.method),
            status: self.plain(&raw.status),
            latency: self.latency(&raw.latency, latency),
            bytes_in: self.plain(&raw.bytes_in),
            bytes_out: self.plain(&raw.bytes_out),
            client_ip: self.plain(&raw.client_ip),
            forwarded_for: self.plain(&raw.forwarded_for),
            country: self.plain(&raw.country),
            user_agent: self.plain(&raw.user_agent),
            consumer: self.plain(&raw.consumer),
            credential: self.plain(&raw.credential),
            user: self.plain(&raw.user),
            query: self.plain(&raw.query),
            request: self.plain(&raw.request),
            end: self.time(&raw.end, time),
            count: self.plain(&raw.count),
        })
    }

    /// Whether the fields of a line are variables of its pattern.
    fn named_variables(&mut self, raw: &RawFields, pattern: &LinePattern) {
        let RawFields { request_id, time, key, api, route, path, method, status, latency, .. } = raw;
        let RawFields { bytes_in, bytes_out, client_ip, forwarded_for, country, user_agent, .. } = raw;
        let RawFields { consumer, credential, user, query, request, end, count, .. } = raw;
        let entries = [
            request_id,
            time,
            key,
            api,
            route,
            path,
            method,
            status,
            latency,
            bytes_in,
            bytes_out,
            client_ip,
            forwarded_for,
            country,
            user_agent,
            consumer,
            credential,
            user,
            query,
            request,
            end,
            count,
        ];
        for entry in entries {
            let Some(at) = entry.given().and_then(|spot| spot.value.0.at.given()) else { continue };
            if let Some(other) = at.value.0.iter().find(|pointer| !names_variable(pointer, pattern)) {
                let pointer = |variable: &Variable| Pointer(vec![variable.name.clone()]).to_string();
                let names: Vec<String> = pattern.variables().map(pointer).collect();
                let message = format!(
                    "found {}, which is no variable of the pattern, allowed: {}",
                    quoted(&other.to_string()),
                    names.join(", ")
                );
                self.problems.add(&at.place, message);
            }
        }
    }

    /// A field without a unit.
    fn plain(&mut self, entry: &Entry<FieldText>) -> Option<Field> {
        let spot = entry.given()?;
        if let Some(unit) = spot.value.0.unit.given() {
            self.problems.add(&unit.place, "only time, end and latency have a unit, remove it");
        }
        self.no_text(&spot.value.0);
        let at = self.required(&spot.value.0.at, spot, "at")?;
        Some(field(at, None))
    }

    /// Refuses what only times have.
    fn no_text(&mut self, raw: &RawField) {
        let places = [raw.format.given().map(|spot| &spot.place), raw.zone.given().map(|spot| &spot.place)];
        for place in places.into_iter().flatten() {
            self.problems.add(place, "only a time has one, remove it");
        }
    }

    /// The field of a time: in a unit, or of a form of its own.
    fn time(&mut self, entry: &Entry<FieldText>, default: Option<Unit>) -> Option<Field> {
        let spot = entry.given()?;
        let raw = &spot.value.0;
        let zone = raw.zone.value().cloned();
        if raw.format.is_absent() {
            return Some(Field { zone, ..self.timed(entry, Unit::ALL, default)? });
        }
        if let Some(unit) = raw.unit.given() {
            self.problems.add(&unit.place, "stands beside `format`, allowed: one of them");
        }
        let at = self.required(&raw.at, spot, "at")?;
        Some(Field { at: at.0.clone(), unit: None, format: Some(raw.format.value()?.clone()), zone })
    }

    fn latency(&mut self, entry: &Entry<FieldText>, default: Option<Unit>) -> Option<Field> {
        const UNITS: &[Unit] = &[Unit::Seconds, Unit::Millis, Unit::Micros, Unit::Nanos];
        self.no_text(&entry.value()?.0);
        self.timed(entry, UNITS, default)
    }

    /// A field with one of `units`, or `default` where it has none.
    fn timed(&mut self, entry: &Entry<FieldText>, units: &[Unit], default: Option<Unit>) -> Option<Field> {
        let spot = entry.given()?;
        let raw = &spot.value.0;
        let at = self.required(&raw.at, spot, "at").cloned();
        if let Some(unit) = raw.unit.given().filter(|unit| !units.contains(&unit.value)) {
            self.problems.add(&unit.place, format!("found {}, allowed: {}", unit.shown, names(units)));
            return None;
        }
        if raw.unit.is_absent() && default.is_none() {
            let message = format!(
                "needs a unit, allowed: {{ at = {}, unit = … }} with one of {}",
                at.as_ref().map_or_else(|| "…".to_owned(), |at| quoted(&at.0[0].to_string())),
                names(units)
            );
            self.problems.add(&spot.place, message);
            return None;
        }
        Some(field(&at?, raw.unit.value().copied().or(default)))
    }

    /// `[source.keys]` with `[keys]` behind it, key by key.
    fn key_rules(&mut self, global: &RawKeys, own: &RawKeys) -> Option<KeyRules> {
        let from = match either(&own.from, &global.from).given() {
            Some(list) => self.key_list(list),
            None => Some(default_rules()),
        };
        let hash = either(&own.hash, &global.hash);
        let secret = either(&own.secret, &global.secret);
        if let Some(secret) = secret.given()
            && matches!(hash, Entry::Refused | Entry::Given(Spot { value: HashKind::HmacSha256, .. }))
        {
            self.secrets_used.push(secret.place.path.clone());
        }
        let hash = match hash.given().map(|hash| (hash.value, hash)) {
            None | Some((HashKind::Sha256, _)) => Some(KeyHash::Sha256),
            Some((HashKind::Prehashed, _)) => Some(KeyHash::Prehashed),
            Some((HashKind::None, _)) => Some(KeyHash::None),
            Some((HashKind::HmacSha256, hash)) => {
                if secret.is_absent() {
                    let allowed = SecretRef::allowed();
                    self.problems.add(
                        &hash.place,
                        format!("hmac-sha256 needs a `secret` beside it, allowed: {allowed}"),
                    );
                }
                secret
                    .given()
                    .and_then(|secret| self.secret(secret))
                    .map(|secret| KeyHash::HmacSha256 { secret })
            }
        };
        let missing = either(&own.missing, &global.missing).value().copied().unwrap_or_default();
        Some(KeyRules { from: from?, hash: hash?, missing })
    }

    fn key_list(&mut self, list: &Spot<List<KeyFrom>>) -> Option<Vec<KeyFrom>> {
        let found = list.value.items.len();
        if !list.value.refused && !(1..=MAX_RULES).contains(&found) {
            self.problems.add(&list.place, format!("found {found} rules, allowed: 1 to {MAX_RULES}"));
            return None;
        }
        Some(list.value.items.iter().map(|rule| rule.value.clone()).collect())
    }

    /// Whether the rules fit the format, and what `hash = "none"` would make of a raw key.
    fn key_rules_fit(
        &mut self,
        spot: &Spot<RawSource>,
        (format, pattern): (Format, Option<&LinePattern>),
        fields: &FieldMap,
        rules: &KeyRules,
        global: &RawKeys,
        own: &RawKeys,
    ) {
        let usable = || {
            rules.from.iter().filter(|rule| match pattern {
                Some(pattern) => finds_keys_in_line(rule, pattern, fields),
                None => finds_keys(rule, format, fields),
            })
        };
        if usable().next().is_none() {
            let listed = rules.from.iter().map(KeyFrom::to_string).collect::<Vec<_>>().join(", ");
            let place = either(&own.from, &global.from).given().map_or(&spot.place, |from| &from.place);
            let message = format!(
                "source {}: no rule of keys.from ({listed}) can find a key in format {}, so that no call has one",
                spot.value.name.given().map_or("", |name| &name.shown),
                format.name()
            );
            self.warnings.add(place, message);
        }
        let hash = either(&own.hash, &global.hash).given();
        let Some(hash) = hash.filter(|hash| hash.value == HashKind::None) else { return };
        let list =
            if either(&own.from, &global.from).is_absent() { "the default keys.from" } else { "keys.from" };
        for rule in usable() {
            // What a header is called is a convention; a field of the log may well hold a name under it.
            match rule {
                KeyFrom::Header(name) | KeyFrom::Query(name) if names_secret(name) => {
                    let message = format!(
                        "found \"none\" with {rule} in {list}, which usually holds a raw key: it would stand \
                         in every output; allowed: another hash, or a rule that finds an identifier"
                    );
                    self.problems.add(&hash.place, message);
                }
                KeyFrom::Field(at) if !at.0.last().is_some_and(|name| names_secret(name)) => {}
                KeyFrom::Header(_) | KeyFrom::Query(_) | KeyFrom::Key | KeyFrom::Field(_) => {
                    let message = format!(
                        "found \"none\" with {rule} in {list}: what stands there is written to every output as it is, \
                         make sure that it is an identifier and no raw key"
                    );
                    self.warnings.add(&hash.place, message);
                }
                KeyFrom::Consumer | KeyFrom::Credential | KeyFrom::User | KeyFrom::ClientIp => {}
            }
        }
    }

    /// Whether the job would read what it writes.
    fn loops(&mut self, raw: &RawConfig, sources: &[Source], sinks: &Sinks) {
        let tables = raw.tables.value();
        let spots = raw.source.value().map_or(&[][..], |list| &list.items);
        if let Some(sink) = &sinks.kafka {
            let of_sources = spots.iter().filter_map(|source| source.value.topic.given());
            let of_tables = tables.into_iter().flat_map(RawTables::topics);
            for topic in of_sources.chain(of_tables) {
                if VIEWS.iter().any(|view| sink.topic(view) == topic.value.0) {
                    let message = format!(
                        "found {}, which the job writes itself, allowed: another topic, or another sink.kafka.prefix \
                         than {}",
                        topic.shown,
                        quoted(&sink.prefix)
                    );
                    self.problems.add(&topic.place, message);
                }
            }
        }
        if let Some(sink) = &sinks.files {
            for source in sources {
                let SourceKind::File { pattern } = &source.kind else { continue };
                let Ok(glob) = Pattern::new(pattern) else { continue };
                let reads = |view: &&str| glob.matches_path(&sink.dir.join(format!("{view}-000001.jsonl")));
                let spot =
                    spots.iter().find(|spot| spot.value.name.value().is_some_and(|n| n.0 == source.name));
                if let Some(path) = spot.and_then(|spot| spot.value.path.given())
                    && VIEWS.iter().any(reads)
                {
                    let message = format!(
                        "found {}, which matches files that sink.files writes, allowed: another pattern, or another \
                         sink.files.dir",
                        path.shown
                    );
                    self.problems.add(&path.place, message);
                }
            }
        }
    }
}

/// A section, or `default` where it is absent or was refused.
fn section<'a, T>(entry: &'a Entry<T>, default: &'a T) -> &'a T {
    entry.value().unwrap_or(default)
}

/// The source's own key, or the one of `[keys]`.
fn either<'a, T>(own: &'a Entry<T>, global: &'a Entry<T>) -> &'a Entry<T> {
    if own.is_absent() { global } else { own }
}

/// Where keys usually stand: a header or a query argument called `apikey`, or the field mapped as `key`.
fn default_rules() -> Vec<KeyFrom> {
    vec![KeyFrom::Header("apikey".to_owned()), KeyFrom::Query("apikey".to_owned()), KeyFrom::Key]
}

/// In what a gateway mostly logs a time and a latency: the units of fields that are mapped without one.
fn units(format: Format) -> (Option<Unit>, Option<Unit>) {
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

/// Whether records of a format have what the rule looks at.
fn finds_keys(rule: &KeyFrom, format: Format, fields: &FieldMap) -> bool {
    let gateway = matches!(format, Format::Apisix | Format::Kong);
    match rule {
        // What headers Envoy and NGINX log is the operator's choice.
        KeyFrom::Header(_) => {
            gateway || matches!(format, Format::Envoy | Format::Nginx | Format::Otel | Format::Cloudfront)
        }
        KeyFrom::Query(_) => {
            !matches!(format, Format::Json | Format::Cloudevents | Format::AwsApigateway)
                || [&fields.path, &fields.query, &fields.request].iter().any(|field| field.is_some())
        }
        KeyFrom::Key => format == Format::AwsApigateway || fields.key.is_some(),
        KeyFrom::Field(_) => !matches!(format, Format::Combined | Format::Alb | Format::Cloudfront),
        KeyFrom::Consumer => gateway || format == Format::Cloudevents || fields.consumer.is_some(),
        KeyFrom::Credential => gateway || format == Format::AwsApigateway || fields.credential.is_some(),
        KeyFrom::User => {
            let known =
                [Format::Combined, Format::AwsApigateway, Format::Nginx, Format::Otel, Format::Cloudfront];
            known.contains(&format) || fields.user.is_some()
        }
        KeyFrom::ClientIp => {
            !matches!(format, Format::Json | Format::Cloudevents) || fields.client_ip.is_some()
        }
    }
}

/// Whether lines of a pattern have what the rule looks at.
fn finds_keys_in_line(rule: &KeyFrom, pattern: &LinePattern, fields: &FieldMap) -> bool {
    let has = |wanted: fn(&LineField) -> bool| {
        pattern.variables().any(|variable| variable.field.as_ref().is_some_and(|(field, _)| wanted(field)))
    };
    match rule {
        KeyFrom::Header(name) => {
            pattern.variables().any(|variable| variable.headers.contains(&header_name(name)))
        }
        KeyFrom::Query(name) => {
            has(|field| matches!(field, LineField::Path | LineField::Query | LineField::Request))
                || pattern.variables().any(|variable| variable.argument.as_ref() == Some(name))
                || fields.path.is_some()
        }
        KeyFrom::Field(at) => names_variable(at, pattern),
        KeyFrom::Key => has(|field| *field == LineField::Key) || fields.key.is_some(),
        KeyFrom::Consumer => fields.consumer.is_some(),
        KeyFrom::Credential => has(|field| *field == LineField::Credential) || fields.credential.is_some(),
        KeyFrom::User => has(|field| *field == LineField::User) || fields.user.is_some(),
        KeyFrom::ClientIp => has(|field| *field == LineField::ClientIp) || fields.client_ip.is_some(),
    }
}

/// Whether a pointer is the name of one of the pattern's variables.
fn names_variable(at: &Pointer, pattern: &LinePattern) -> bool {
    matches!(&at.0[..], [name] if pattern.variables().any(|variable| variable.name == *name))
}

/// Whether a header, a query argument or a field is called as those that hold secrets usually are.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    let parts = ["apikey", "authorization", "cookie", "password", "secret", "token", "subscriptionkey"];
    !name.ends_with("id")
        && (matches!(name.as_str(), "key" | "auth") || parts.iter().any(|part| name.contains(part)))
}

/// What routes are made of: a route of Kong's or APISIX's often covers many endpoints.
fn routes_from(raw: &RawSource, all: Option<RoutesFrom>, record: Format, fields: &FieldMap) -> RoutesFrom {
    let own = raw.routes.value().and_then(|routes| routes.from.value());
    own.copied().or(all).unwrap_or(match record {
        Format::Kong | Format::Apisix if fields.route.is_none() => RoutesFrom::Path,
        _ => RoutesFrom::Gateway,
    })
}

/// A field at places, in a unit.
fn field(at: &Pointers, unit: Option<Unit>) -> Field {
    Field { at: at.0.clone(), unit, format: None, zone: None }
}
