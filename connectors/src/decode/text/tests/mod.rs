//! Lines as their servers write them, hostile ones, and the promise that each line is exactly one record.

use std::sync::Arc;

use keytide_config::{
    Dedupe, FieldMap, KeyFrom, KeyHash, KeyRules, Limits, LinePattern, MissingKey, Routes, SourceKind,
};
use keytide_dataflow::model::{AccessEvent, Definition, KeyId, LATENCY_UNKNOWN, Position, RequestId};
use proptest::prelude::*;

use super::super::{DeadLetter, Decoded, NoGeo, decoder};
use super::*;

mod patterns;
mod shapes;
mod wrappers;

const AT: Position = Position { partition: 0, offset: 0, index: 0 };

fn source(format: Format, from: &[&str]) -> Source {
    let rule = |rule: &&str| match rule.split_once(':') {
        Some(("header", name)) => KeyFrom::Header(name.to_owned()),
        Some(("query", name)) => KeyFrom::Query(name.to_owned()),
        Some((_, name)) => {
            KeyFrom::Field(keytide_config::Pointer(name.split('/').skip(1).map(str::to_owned).collect()))
        }
        None if *rule == "user" => KeyFrom::User,
        None => KeyFrom::ClientIp,
    };
    Source {
        name: "gateway".to_owned(),
        kind: SourceKind::Stdin,
        format,
        inner: None,
        pattern: None,
        fields: FieldMap::default(),
        keys: KeyRules {
            from: from.iter().map(rule).collect(),
            hash: KeyHash::None,
            missing: MissingKey::Anonymous,
        },
        dedupe: Dedupe::RequestId,
        routes: keytide_config::RoutesFrom::Gateway,
        unwrap: Source::default_unwrap(),
        records: Source::default_records(),
        only: Vec::new(),
        zone: keytide_config::Zone::default(),
    }
}

fn pattern(text: &str, from: &[&str]) -> Source {
    let pattern = LinePattern::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    Source { pattern: Some(pattern), ..source(Format::Text, from) }
}

fn context() -> Context {
    let proxies = ["10.0.0.0/8".parse().unwrap()];
    Context::new(&Routes::default(), &proxies, Limits::default(), Arc::new(NoGeo))
}

fn run(source: &Source, message: impl AsRef<[u8]>) -> Decoded {
    let mut out = Decoded::default();
    decoder(source, &context()).decode(message.as_ref(), AT, &mut out);
    out
}

/// What a test looks at.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    key: String,
    time: u64,
    route: String,
    status: u16,
    latency_us: u64,
    bytes: (u64, u64),
    client: String,
    agent: String,
    has_id: bool,
}

/// The call of a message that holds only one.
fn seen(source: &Source, message: impl AsRef<[u8]>) -> Seen {
    let message = message.as_ref();
    let out = run(source, message);
    let shown = String::from_utf8_lossy(message);
    let refused = out.dead_letters.iter().filter(|letter| !letter.counted).count();
    assert_eq!((out.events.len(), refused), (1, 0), "{shown}: {:?}", out.dead_letters);
    let event: AccessEvent = out.events[0];
    let mut seen = Seen {
        key: if event.key == KeyId::CONFLICTING { "conflicting" } else { "anonymous" }.to_owned(),
        time: event.time,
        route: String::new(),
        status: event.status,
        latency_us: event.latency_us,
        bytes: (event.bytes_in, event.bytes_out),
        client: std::net::Ipv6Addr::from_bits(event.client).to_canonical().to_string(),
        agent: String::new(),
        has_id: event.request != RequestId::NONE,
    };
    for definition in &out.definitions {
        match definition {
            Definition::Key { name, .. } => seen.key = name.to_string(),
            Definition::Route { api, method, route, .. } => seen.route = format!("{api} {method} {route}"),
            Definition::Agent { text, .. } => seen.agent = text.to_string(),
            Definition::Name { .. } => {}
        }
    }
    seen
}

/// The dead letter of a message that holds no call.
fn refused(source: &Source, message: impl AsRef<[u8]>) -> DeadLetter {
    let mut out = run(source, message);
    assert_eq!((out.events.len(), out.dead_letters.len()), (0, 1), "{out:?}");
    assert!(!out.dead_letters[0].counted);
    out.dead_letters.remove(0)
}
