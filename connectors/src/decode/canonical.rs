//! The one step from a record's raw fields to an [`AccessEvent`], shared by all formats.
//!
//! | field | accepted | otherwise |
//! |---|---|---|
//! | time | years 2000 to 2199 in the configured unit | dead letter |
//! | status | 0, 100 to 599; unknown is 0 | dead letter |
//! | latency | 0 to 2^42 us, rounded to the nearest; -1 is unknown | dead letter |
//! | sizes | whole, 0 to 2^40; unknown is 0 | dead letter |
//! | texts | text or a number | dead letter for flags and objects |
//! | client address | with or without port and brackets | unknown |
//! | country | two letters | looked up |
//!
//! Unknown is: absent, null, `""` or `-`. Numbers may be texts. No fault quotes a value: values may be secrets.
//!
//! Limits: texts count up to `limits.text_bytes`; of the keys whose id is a name, 65,536 are remembered as
//! defined, each for the two months of event time in which it was met last.

use std::fmt;
use std::net::IpAddr;

use hashbrown::HashMap;
use keytide_config::{Dedupe, Source, Unit};
use keytide_dataflow::Level;
use keytide_dataflow::model::{
    AccessEvent, Country, Definition, EventTime, KeyId, LATENCY_UNKNOWN, NameId, Position, RequestId,
};

use super::address;
use super::agent::{self, Agents};
use super::keys::Keys;
use super::number::{Numeric, numeric};
use super::place::Places;
use super::raw::{Name, RawEvent, Value, WrongType};
use super::route::{self, Announced, Memo};
use super::time::event_time;
use super::{Context, Decoded, Located};

const MAX_LATENCY_US: u64 = 1 << 42;
const MAX_BYTES: u64 = 1 << 40;
const DEFINED_KEYS: usize = 65_536;

/// Why a record can't be an event: a field, and what is wrong with it or allowed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    field: &'static str,
    problem: &'static str,
}

impl Fault {
    pub(super) const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Makes the events of one source.
pub(super) struct Canonical {
    source: String,
    time: Unit,
    latency: Unit,
    dedupe: Dedupe,
    /// Whether a request id may be the caller's choice.
    ids_of_callers: bool,
    keys: Keys,
    context: Context,
    memo: Memo,
    places: Places,
    agents: Agents,
    defined_keys: HashMap<KeyId, Announced>,
    scratch: Scratch,
}

/// Reused from record to record, so that no record allocates.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    identity: Vec<u8>,
    target: String,
    template: String,
    api: String,
    route: String,
    any: String,
}

impl Canonical {
    pub(super) fn new(source: &Source, time: Unit, latency: Unit, context: &Context) -> Self {
        Self {
            source: source.name.clone(),
            time,
            latency,
            dedupe: source.dedupe,
            ids_of_callers: false,
            keys: Keys::new(&source.keys),
            context: context.clone(),
            memo: Memo::default(),
            places: Places::default(),
            agents: Agents::default(),
            defined_keys: HashMap::new(),
            scratch: Scratch::default(),
        }
    }

    /// Tells records apart by their content as well where they have the same request id: callers may have chosen it.
    /// One that the gateway sends again is still the same.
    pub(super) fn distrust_ids(&mut self) {
        self.ids_of_callers = true;
    }

    /// Appends the event of `raw` and the definitions that it needs.
    pub(super) fn push(
        &mut self,
        raw: &RawEvent<'_>,
        position: Position,
        out: &mut Decoded,
    ) -> Result<(), Fault> {
        let limit = self.context.limits.text_bytes;
        let Scratch { key, identity, target, template, api, route, any } = &mut self.scratch;
        let time = event_time(raw.get(Name::Time), raw.time_unit().unwrap_or(self.time), any)?;
        let status = status(raw.get(Name::Status), any)?;
        let latency_us = latency(raw, self.latency, any)?;
        let bytes_in = size(raw.get(Name::BytesIn), "bytes_in", any)?;
        let bytes_out = size(raw.get(Name::BytesOut), "bytes_out", any)?;
        let user_agent = text(raw, Name::UserAgent, "user_agent", any)?.unwrap_or("");
        let user_agent = NameId::new(route::cut(user_agent, limit));
        let method = route::method(text(raw, Name::Method, "method", any)?);
        let client = client(raw, &self.context, any);
        let Located { country, asn, place } = place(raw, client, &mut self.places, &self.context, any);

        let target = text(raw, Name::Path, "path", target)?;
        self.keys.find(raw, target, client, key, any)?;
        let key_id = self.keys.id(key)?;
        let request = request(raw, &self.source, self.dedupe, self.ids_of_callers, identity, any)?;

        let api = text(raw, Name::Api, "api", api)?.unwrap_or("");
        let route = match (text(raw, Name::Route, "route", route)?, target) {
            (Some(route), _) => route,
            (None, Some(target)) => {
                self.context.templates.write(target, template);
                template
            }
            (None, None) => route::UNKNOWN,
        };
        let (mut redacted_api, mut redacted_route) = (None, None);
        if self.keys.are_secret() {
            self.keys.each_secret(raw, target, key, any, |secret| {
                redact(api, &mut redacted_api, secret);
                redact(route, &mut redacted_route, secret);
            });
        }
        let api = redacted_api.as_deref().unwrap_or(api);
        let route = redacted_route.as_deref().unwrap_or(route);
        let route = self.memo.id([api, method, route], time, limit, &mut out.definitions);
        if self.agents.is_new(user_agent, time) {
            let mut buffer = String::new();
            let text = text(raw, Name::UserAgent, "user_agent", &mut buffer)?.unwrap_or("");
            let mut redacted = None;
            if self.keys.are_secret() {
                self.keys.each_secret(raw, target, key, any, |secret| redact(text, &mut redacted, secret));
            }
            let text = redacted.as_deref().unwrap_or(text);
            out.definitions.push(agent::definition(user_agent, time, text, limit));
        }
        if !self.keys.are_secret() && !key_id.is_bucket() {
            define_key(key_id, key, time, limit, &mut self.defined_keys, &mut out.definitions);
        }
        out.events.push(AccessEvent {
            key: key_id,
            request,
            client: client.map_or(0, address::bits),
            time,
            route,
            user_agent,
            position,
            latency_us,
            bytes_in,
            bytes_out,
            count: 1,
            late_ms: 0,
            asn,
            status,
            country,
            place,
        });
        Ok(())
    }

    /// What is known of a record that can't be an event, as JSON: numbers and the method alone, so that no
    /// secret can be among it.
    pub(super) fn kept(&mut self, raw: &RawEvent<'_>) -> Option<Box<str>> {
        let any = &mut self.scratch.any;
        let mut members = Vec::new();
        if let Ok(time) = event_time(raw.get(Name::Time), raw.time_unit().unwrap_or(self.time), any) {
            members.push(format!("\"time_ms\":{time}"));
        }
        if let Ok(Some(method)) = raw.get(Name::Method).text(any) {
            members.push(format!("\"method\":\"{}\"", route::method(Some(method))));
        }
        let mut number = |name: Name, label: &str, value: Result<u64, Fault>| {
            if let (false, Ok(value)) = (raw.get(name).is_empty() || value == Ok(LATENCY_UNKNOWN), value) {
                members.push(format!("\"{label}\":{value}"));
            }
        };
        number(Name::Status, "status", status(raw.get(Name::Status), any).map(u64::from));
        number(Name::Latency, "latency_us", latency(raw, self.latency, any));
        number(Name::BytesIn, "bytes_in", size(raw.get(Name::BytesIn), "bytes_in", any));
        number(Name::BytesOut, "bytes_out", size(raw.get(Name::BytesOut), "bytes_out", any));
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")).into())
    }
}

fn text<'s>(
    raw: &RawEvent<'s>,
    name: Name,
    field: &'static str,
    buffer: &'s mut String,
) -> Result<Option<&'s str>, Fault> {
    raw.get(name).text(buffer).map_err(|WrongType| Fault::new(field, "must be text or a number"))
}

fn status(value: Value<'_>, buffer: &mut String) -> Result<u16, Fault> {
    const FAULT: Fault = Fault::new("status", "must be 0 or 100 to 599");
    match numeric(value, buffer).map_err(|WrongType| FAULT)? {
        Numeric::Unknown => Ok(0),
        Numeric::Known(number) => match number.integer().and_then(|status| u16::try_from(status).ok()) {
            Some(status) if status == 0 || (100..600).contains(&status) => Ok(status),
            _ => Err(FAULT),
        },
    }
}

fn latency(raw: &RawEvent<'_>, unit: Unit, buffer: &mut String) -> Result<u64, Fault> {
    const FAULT: Fault =
        Fault::new("latency", "must be a number from 0 to 2^42 us (50 days), or -1 where unknown");
    let shift = match raw.latency_unit().unwrap_or(unit) {
        Unit::Seconds => 6,
        Unit::Micros => 0,
        Unit::Nanos => -3,
        Unit::Millis | Unit::Rfc3339 | Unit::Clf => 3,
    };
    match numeric(raw.get(Name::Latency), buffer).map_err(|WrongType| FAULT)? {
        Numeric::Unknown => Ok(LATENCY_UNKNOWN),
        Numeric::Known(number) if number.is_minus_one() => Ok(LATENCY_UNKNOWN),
        Numeric::Known(number) => number.round(shift).filter(|us| *us <= MAX_LATENCY_US).ok_or(FAULT),
    }
}

fn size(value: Value<'_>, field: &'static str, buffer: &mut String) -> Result<u64, Fault> {
    let fault = Fault::new(field, "must be a whole number from 0 to 2^40");
    match numeric(value, buffer).map_err(|WrongType| fault)? {
        Numeric::Unknown => Ok(0),
        Numeric::Known(number) => number.integer().filter(|bytes| *bytes <= MAX_BYTES).ok_or(fault),
    }
}

fn client(raw: &RawEvent<'_>, context: &Context, buffer: &mut String) -> Option<IpAddr> {
    let peer = address::parse(raw.get(Name::ClientIp).text(buffer).ok()??)?;
    address::client(peer, raw.get(Name::ForwardedFor), &context.trusted_proxies, buffer)
}

fn place(
    raw: &RawEvent<'_>,
    client: Option<IpAddr>,
    places: &mut Places,
    context: &Context,
    buffer: &mut String,
) -> Located {
    let mut located = client.map_or_else(Located::default, |client| places.locate(client, &*context.geo));
    let stated = raw.get(Name::Country).text(buffer).ok().flatten().map_or(Country::UNKNOWN, Country::new);
    if stated != Country::UNKNOWN {
        located.country = stated;
    }
    located
}

fn request(
    raw: &RawEvent<'_>,
    source: &str,
    dedupe: Dedupe,
    ids_of_callers: bool,
    identity: &mut Vec<u8>,
    buffer: &mut String,
) -> Result<RequestId, Fault> {
    match (text(raw, Name::RequestId, "request_id", buffer)?, dedupe) {
        (Some(id), _) if !ids_of_callers => Ok(RequestId::new(source, id.as_bytes())),
        (None, Dedupe::RequestId) => Ok(RequestId::NONE),
        (id, _) => {
            use Name::{BytesIn, BytesOut, ClientIp, Host, Latency, Method, Path, Query, Time};
            identity.clear();
            identity.extend_from_slice(id.unwrap_or_default().as_bytes());
            // NUL stands in none of them, so that different records differ.
            for name in [Host, Time, ClientIp, Method, Path, Query, BytesIn, BytesOut, Latency] {
                identity.push(0);
                identity.extend_from_slice(raw.get(name).verbatim().as_bytes());
            }
            Ok(RequestId::new(source, identity))
        }
    }
}

/// Redacts `text`, or what was `redacted` of it already, if it holds `secret`.
fn redact(text: &str, redacted: &mut Option<String>, secret: &[u8]) {
    let current = redacted.as_deref().unwrap_or(text);
    if route::holds(current, secret) {
        *redacted = Some(route::redacted(current, secret));
    }
}

fn define_key(
    id: KeyId,
    key: &[u8],
    time: EventTime,
    limit: usize,
    defined: &mut HashMap<KeyId, Announced>,
    definitions: &mut Vec<Definition>,
) {
    if defined.len() >= DEFINED_KEYS {
        defined.clear();
    }
    // A name holds for a month of event time, as the key's admission does.
    let month = Level::Month.start(time);
    let mut is_new = false;
    let announced = defined.entry(id).or_insert_with(|| {
        is_new = true;
        Announced::new(month)
    });
    if is_new || announced.is_new(month) {
        let name = String::from_utf8_lossy(key);
        // Names are what rows are told apart by, so one that is cut ends in its id.
        let name = match route::cut(&name, limit) {
            cut if cut.len() == name.len() => cut.into(),
            cut => format!("{cut}~{:032x}", id.0).into(),
        };
        definitions.push(Definition::Key { id, name, month: Some(month) });
    }
}
