//! The keys of each section.

use crate::job::*;
use crate::pattern::LinePattern;
use crate::scalar::*;
pub(crate) use crate::section::alerts::RawAlerts;
pub(crate) use crate::section::detection::RawDetection;
pub(crate) use crate::section::geo::RawGeo;
pub(crate) use crate::section::http::RawHttp;
pub(crate) use crate::section::job::RawJob;
pub(crate) use crate::section::kafka::{Brokers, Settings};
pub(crate) use crate::section::limits::RawLimits;
pub(crate) use crate::section::log::RawLog;
pub(crate) use crate::section::routes::RawRoutes;
pub(crate) use crate::section::sink::RawSinks;
pub(crate) use crate::section::tables::RawTables;
pub(crate) use crate::section::topic::TopicName;
pub(crate) use crate::section::windows::RawWindows;
use crate::time::{TimePattern, Zone};
use crate::toml::problem::{Place, Problems};
pub(crate) use crate::toml::read::{Entry, List, Raw, Spot};
use crate::toml::read::{Section, join, keys};
use crate::toml::tree::{Node, Value, quoted};

keys! {
    /// The whole file.
    RawConfig {
        job: RawJob,
        keys: RawKeys,
        source: List<RawSource>,
        tables: RawTables,
        geo: RawGeo,
        routes: RawRoutes,
        windows: RawWindows,
        limits: RawLimits,
        sink: RawSinks,
        detection: RawDetection,
        alerts: RawAlerts,
        http: RawHttp,
        log: RawLog,
    }
    later cluster;
    later state;
}

keys! {
    /// `[keys]` and `[source.keys]`.
    RawKeys {
        from: List<KeyFrom>,
        hash: HashKind,
        secret: SecretRef,
        missing: MissingKey,
    }
}

keys! {
    /// `[[source]]`.
    RawSource {
        name: Name,
        kind: InputKind,
        path: PathText,
        brokers: Brokers,
        topic: TopicName,
        start: Start,
        end: End,
        on_gap: OnGap,
        librdkafka: Settings,
        format: Format,
        inner: Format,
        pattern: LinePattern,
        dedupe: Dedupe,
        unwrap: Wrappers,
        records: Wrappers,
        only: Only,
        routes: RawSourceRoutes,
        zone: Zone,
        fields: RawFields,
        keys: RawKeys,
    }
}

keys! {
    /// `[source.routes]`.
    RawSourceRoutes {
        from: RoutesFrom,
    }
}

/// Pointers of one field, or of one list of wrappers.
const MAX_POINTERS: usize = 16;

/// A JSON pointer, or a list of 1 to 16.
#[derive(Clone)]
pub(crate) struct Pointers(pub(crate) Vec<Pointer>);

impl Raw for Pointers {
    fn expected() -> String {
        format!("{}; or a list of 1 to {MAX_POINTERS}", <Pointer as Raw>::expected())
    }

    fn read(node: Node, place: &Place, problems: &mut Problems) -> Option<Self> {
        let pointers = pointers(node, place, problems, &Self::expected())?;
        if pointers.is_empty() {
            problems.add(place, format!("is empty, allowed: {}", Self::expected()));
            return None;
        }
        Some(Self(pointers))
    }
}

/// The same, where an empty list says that there are none.
#[derive(Clone)]
pub(crate) struct Wrappers(pub(crate) Vec<Pointer>);

impl Raw for Wrappers {
    fn expected() -> String {
        format!("{}; or a list of at most {MAX_POINTERS}", <Pointer as Raw>::expected())
    }

    fn read(node: Node, place: &Place, problems: &mut Problems) -> Option<Self> {
        pointers(node, place, problems, &Self::expected()).map(Self)
    }
}

fn pointers(node: Node, place: &Place, problems: &mut Problems, expected: &str) -> Option<Vec<Pointer>> {
    match node.value {
        Value::Text(_) => <Pointer as Raw>::read(node, place, problems).map(|at| vec![at]),
        Value::List(_) => {
            let list = List::<Pointer>::read(node, place, problems).filter(|list| !list.refused)?;
            let count = list.items.len();
            if count > MAX_POINTERS {
                problems.add(place, format!("found {count} pointers, allowed: at most {MAX_POINTERS}"));
                return None;
            }
            Some(list.items.into_iter().map(|spot| spot.value).collect())
        }
        other => {
            problems.add(place, format!("found {}, allowed: {expected}", other.shown()));
            None
        }
    }
}

/// `[source.only]`: a pointer, and what stands there in a record of a call.
pub(crate) struct Only(pub(crate) Vec<Condition>);

impl Raw for Only {
    const SECTION: bool = true;

    fn expected() -> String {
        "a section of JSON pointers with what stands there, such as \"/logger\" = \"http.log.access*\""
            .to_owned()
    }

    fn read(node: Node, place: &Place, problems: &mut Problems) -> Option<Self> {
        let section = Section::open(node, place, problems)?;
        let mut conditions = Vec::new();
        for (name, node) in section.table.into_entries() {
            let place = Place { path: join(&section.place.path, &quoted(&name)), at: node.at.clone() };
            let Some(at) = crate::scalar::pointer(&name) else {
                let message = "isn't a JSON pointer, allowed: names such as \"/logger\"";
                let hint = if name.starts_with('/') { "" } else { "; a pointer starts with /" };
                problems.add(&place, format!("{message}{hint}"));
                continue;
            };
            let values = match node.value {
                Value::List(nodes) => nodes.into_iter().map(|node| node.value).collect(),
                other => vec![other],
            };
            if values.is_empty() {
                problems.add(
                    &place,
                    format!("is empty, so that no record would count, allowed: {PATTERN}, or a list of such"),
                );
            }
            let is = values.iter().filter_map(|value| pattern(value, &place, problems)).collect();
            conditions.push(Condition { at, is });
        }
        Some(Self(conditions))
    }
}

const PATTERN: &str = "a text (with *, ? and [..] for other characters), a whole number, true or false";

/// A pattern of `[source.only]`.
fn pattern(value: &Value, place: &Place, problems: &mut Problems) -> Option<glob::Pattern> {
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        other => {
            problems.add(place, format!("found {}, allowed: {PATTERN}, or a list of such", other.shown()));
            return None;
        }
    };
    match glob::Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.add(place, format!("found {}, allowed: {PATTERN}: {}", value.shown(), error.msg));
            None
        }
    }
}

keys! {
    /// `[source.fields]`.
    RawFields {
        request_id: FieldText,
        time: FieldText,
        key: FieldText,
        api: FieldText,
        route: FieldText,
        path: FieldText,
        method: FieldText,
        status: FieldText,
        latency: FieldText,
        bytes_in: FieldText,
        bytes_out: FieldText,
        client_ip: FieldText,
        forwarded_for: FieldText,
        country: FieldText,
        user_agent: FieldText,
        consumer: FieldText,
        credential: FieldText,
        user: FieldText,
        query: FieldText,
        request: FieldText,
        end: FieldText,
        count: FieldText,
    }
}

keys! {
    /// `{ at = "/requestTime", unit = "ms" }`.
    RawField {
        at: Pointers,
        unit: Unit,
        format: TimePattern,
        zone: Zone,
    }
}

/// One of `[source.fields]`: a pointer alone, or a pointer with a unit.
pub(crate) struct FieldText(pub(crate) RawField);

impl Raw for FieldText {
    fn expected() -> String {
        "a JSON pointer, a list of such, or { at = \"/requestTime\", unit = \"ms\" }".to_owned()
    }

    fn read(node: Node, place: &Place, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Text(_) | Value::List(_) => match Entry::read(node, place.path.clone(), problems) {
                Entry::Refused => None,
                at => Some(Self(RawField { at, ..RawField::default() })),
            },
            Value::Table(_) => RawField::read(node, place, problems).map(Self),
            other => {
                problems.add(place, format!("found {}, allowed: {}", other.shown(), Self::expected()));
                None
            }
        }
    }
}
