//! The one step from a record's raw fields to an [`AccessEvent`], shared by all formats.
//!
//! | field | accepted | otherwise |
//! |---|---|---|
//! | time | years 2000 to 2199 in the configured unit | dead letter |
//! | status | 100 to 999; unknown is 0 | unknown |
//! | latency | 0 to 2^42 us, rounded to the nearest; a unit in the text wins | unknown |
//! | sizes | whole, 0 to 2^40; unknown is 0 | unknown |
//! | units | 0 to 2^42 after its decimal places are moved by `scale`, rounded to the nearest; unknown is 0 | unknown |
//! | count | whole, 1 to 2^32 - 1; with 0 the record is passed over | 1 |
//! | texts | text or a number | unknown for flags and objects |
//! | client address | with or without port and brackets | unknown |
//! | country | two letters | looked up |
//!
//! A value is unknown if it is absent, null, `""`, `-` or -1. Numbers may also be written as texts. Faults never quote
//! values, because values may be secrets.
//!
//! **Invariant**: only the time is essential. Any other field that can't be read is unknown, and its call counts. Such
//! fields are counted in [`Tally`]. One such record in 64, chosen by its position, is also reported as a row.
//!
//! Limits: texts are cut after `limits.text_bytes`. Of the keys whose id is a name, the latest 65,536 are remembered as
//! defined, each for its last two months of event time.

use std::net::IpAddr;

use hashbrown::HashMap;
use keytide_config::{Dedupe, Source, SourceKind, Unit};
use keytide_dataflow::Level;
use keytide_dataflow::model::{
    AccessEvent, Country, Definition, EventTime, KeyId, LATENCY_UNKNOWN, NameId, Position, RequestId,
};

use super::address;
use super::agent::{self, Agents};
use super::duration::duration_us;
use super::fault::Fault;
use super::geo_cache::GeoCache;
use super::is_large;
use super::keys::{KeyFinder, UNHASHED};
use super::number::{Numeric, numeric, short_whole_of};
use super::occurred::Occurred;
use super::raw::{EventField, RawEvent};
use super::route::{self, Announced, Memo};
use super::secrets::Secrets;
use super::tally::{Tally, Unread};
use super::time::{TimeReader, event_time, event_time_us};
use super::value::{FieldValue, WrongType};
use super::{Context, Decoded, Located};
use crate::decimal::Decimal;

const MAX_LATENCY_US: u64 = 1 << 42;
/// Bytes of a record in one direction, at most.
pub(crate) const MAX_BYTES: u64 = 1 << 40;
/// Units of a record, at most.
pub(crate) const MAX_UNITS: u64 = 1 << 42;
const DEFINED_KEYS: usize = 65_536;
/// One in this number of records with a field that can't be read is reported as a row.
const SAMPLED: u64 = 64;

/// Makes the events of one source.
pub(super) struct Canonical {
    source: String,
    time: TimeReader,
    end: TimeReader,
    latency: Unit,
    /// Decimal places of units that count.
    scale: i32,
    dedupe: Dedupe,
    /// True if a message is a line of a file, which is never sent again.
    is_line: bool,
    /// True if a request id may be the caller's choice.
    ids_of_callers: bool,
    keys: KeyFinder,
    context: Context,
    memo: Memo,
    geo_cache: GeoCache,
    agents: Agents,
    defined_keys: HashMap<KeyId, Announced>,
    scratch: Scratch,
}

/// Reused from record to record, so that no record allocates.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    secrets: Secrets,
    identity: Vec<u8>,
    agent: String,
    target: String,
    template: String,
    api: String,
    route: String,
    any: String,
}

impl Scratch {
    /// Frees the buffers if one long record made them large.
    fn forget_large(&mut self) {
        // Secrets forget what was long by themselves.
        let Self { key, secrets: _, identity, agent, target, template, api, route, any } = self;
        let texts =
            [agent, target, template, api, route, any].map(|text| text.capacity()).iter().sum::<usize>();
        if is_large(texts + key.capacity() + identity.capacity()) {
            *self = Self::default();
        }
    }
}

impl Canonical {
    pub(super) fn new(source: &Source, [time, end, latency]: [Unit; 3], context: &Context) -> Self {
        Self {
            source: source.name.clone(),
            time: TimeReader::new(source, source.fields.time.as_ref(), time),
            end: TimeReader::new(source, source.fields.end.as_ref(), end),
            latency,
            scale: source.fields.units.as_ref().map_or(0, |field| field.scale.cast_signed()),
            dedupe: source.dedupe,
            is_line: !matches!(source.kind, SourceKind::Kafka(_)),
            ids_of_callers: false,
            keys: KeyFinder::new(&source.keys),
            context: context.clone(),
            memo: Memo::default(),
            geo_cache: GeoCache::default(),
            agents: Agents::default(),
            defined_keys: HashMap::new(),
            scratch: Scratch::default(),
        }
    }

    /// Lets records of the same request id differ by their content, because callers may have chosen the id. A record
    /// that the gateway sends again is still the same.
    pub(super) fn distrust_ids(&mut self) {
        self.ids_of_callers = true;
    }

    /// Returns whether the record states a count of 0 calls, as a meter does that counted nothing.
    pub(super) fn stands_for_none(&mut self, raw: &RawEvent<'_>) -> bool {
        let value = raw.get(EventField::Count);
        !value.is_empty()
            && matches!(numeric(value, &mut self.scratch.any), Ok(Numeric::Known(number)) if number.integer() == Some(0))
    }

    /// Returns whether request ids may be their callers'.
    pub(super) fn ids_of_callers(&self) -> bool {
        self.ids_of_callers
    }

    /// Appends the event of `raw` and the definitions that it needs. If the event is also reported as a row although it
    /// counts, the reason is returned.
    ///
    /// 1. The fields are converted; those that can't be read are unknown.
    /// 2. The key is found and becomes an id; all secrets of the record are collected.
    /// 3. The request id is made, of the record's content where no trusted id is there.
    /// 4. The route and the agent get ids, without secrets in their texts, and new ones a definition.
    /// 5. The event is appended and counted.
    pub(super) fn push(
        &mut self,
        raw: &RawEvent<'_>,
        position: Position,
        occurred: &mut Occurred,
        out: &mut Decoded,
    ) -> Result<Option<String>, Fault> {
        let limit = self.context.limits.text_bytes;
        self.scratch.forget_large();
        let Scratch { key, secrets, identity, agent, target, template, api, route, any } = &mut self.scratch;
        let mut unread = Unread::default();
        // 1. Only the time must be there; a record without one is refused here.
        let time = time(raw, &self.time, any)?;
        let count = unread.or(EventField::Count, count(raw.get(EventField::Count), any), 1);
        let status = unread.or(EventField::Status, status(raw.get(EventField::Status), any), 0);
        let latency_us = match raw.get(EventField::Latency).is_empty() && !raw.get(EventField::End).is_empty()
        {
            false => unread.or(EventField::Latency, latency(raw, self.latency, any), LATENCY_UNKNOWN),
            true => unread.or(EventField::End, duration(raw, [&self.time, &self.end], any), LATENCY_UNKNOWN),
        };
        let bytes_in = unread.or(EventField::BytesIn, size(raw.get(EventField::BytesIn), any), 0);
        let bytes_out = unread.or(EventField::BytesOut, size(raw.get(EventField::BytesOut), any), 0);
        let units = unread.or(EventField::Units, units(raw.get(EventField::Units), self.scale, any), 0);
        let agent =
            unread.or(EventField::UserAgent, text(raw, EventField::UserAgent, agent), None).unwrap_or("");
        let method = route::method(unread.or(EventField::Method, text(raw, EventField::Method, any), None));
        let client = client(raw, &self.context, any);
        let Located { country, asn, place } = locate(raw, client, &mut self.geo_cache, &self.context, any);

        // 2. Secrets are collected before any text that may hold them is shown or hashed.
        let target = unread.or(EventField::Path, text(raw, EventField::Path, target), None);
        let found = self.keys.find(raw, target, client, key, any);
        let (key_id, rule) = match raw.conflict() {
            Some(_) => (KeyId::CONFLICTING, None),
            None => {
                let rule = found?;
                let id = self.keys.id(key);
                // Without a valid hash the call has no key, which the configuration may refuse.
                if let (Err(fault), true) = (&id, self.keys.are_needed()) {
                    return Err(*fault);
                }
                (unread.or(EventField::Key, id, KeyId::ANONYMOUS), rule)
            }
        };
        secrets.clear();
        if self.keys.are_secret() {
            self.keys.each_secret(raw, target, key, any, |form, secret| secrets.add(form, secret));
        }
        let agent = secrets.redacted(agent);
        let user_agent = NameId::new(route::cut(&agent, limit));
        // 3. An id of the gateway's is enough; one that a caller may have chosen counts with the content.
        let id = unread.or(EventField::RequestId, text(raw, EventField::RequestId, any), None);
        let id = id.filter(|_| raw.conflict().is_none());
        let request = match (id, self.dedupe) {
            (Some(id), _) if !self.ids_of_callers || raw.is_vouched_for => {
                RequestId::new(&self.source, id.as_bytes())
            }
            (None, Dedupe::RequestId) => RequestId::NONE,
            // Its message's bytes make its identity.
            (None, Dedupe::Message | Dedupe::Batch) => {
                occurred.secrets.extend(secrets);
                RequestId::NONE
            }
            (id, _) => {
                identity.clear();
                identity.extend_from_slice(&key_id.0.to_le_bytes());
                let keys = &self.keys;
                each_text_of_identity(raw, id, |text| {
                    // With its length, so that no two records are written alike.
                    identity.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    secrets.write_replaced(text.as_bytes(), |secret| keys.secret_id(secret), identity);
                });
                // Equal lines of a file are different calls: there is no message in which to tell them apart.
                if self.is_line && !occurred.is_batch && self.dedupe == Dedupe::Content {
                    identity.extend_from_slice(&position.offset.to_le_bytes());
                }
                occurred.next(RequestId::new(&self.source, identity), &self.source, identity)
            }
        };

        // 4. The texts behind the ids are without secrets, since they are shown.
        let gateway_route = raw.get(EventField::GatewayRoute);
        let api_name = if gateway_route.is_empty() { EventField::Api } else { EventField::GatewayRoute };
        let api = unread.or(EventField::Api, text(raw, api_name, api), None).unwrap_or("");
        let route = match (unread.or(EventField::Route, text(raw, EventField::Route, route), None), target) {
            (Some(route), _) => route,
            (None, Some(target)) => {
                self.context.templates.write(target, template);
                template
            }
            // Without a path the route's own name, which is the API here, is the route as well.
            (None, None) if !api.is_empty() && !gateway_route.is_empty() => api,
            (None, None) => route::UNKNOWN,
        };
        let (api, route) = (secrets.redacted(api), secrets.redacted(route));
        let route = self.memo.id([&api, method, &route], time, limit, &mut out.definitions);
        if self.agents.is_new(user_agent, time) {
            out.definitions.push(agent::definition(user_agent, time, &agent, limit));
        }
        if !self.keys.are_secret() && !key_id.is_bucket() {
            define_key(key_id, key, time, limit, &mut self.defined_keys, &mut out.definitions);
        }
        // 5. From here on nothing can fail, so the counts agree with the events.
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
            units,
            count,
            late_ms: 0,
            asn,
            status,
            is_free: self.context.free_statuses.contains(&status),
            country,
            place,
        });
        match rule.and_then(|rule| out.tally.found_by.get_mut(rule)) {
            _ if key_id == KeyId::ANONYMOUS => out.tally.keyless += 1,
            Some(found) => *found += 1,
            None => {}
        }
        Ok(noted(raw, &unread, position, &mut out.tally))
    }

    /// Returns the known fields of a record that can't be an event, as JSON. Only numbers and the method are kept, so
    /// that no secret can be among them.
    pub(super) fn kept(&mut self, raw: &RawEvent<'_>) -> Option<Box<str>> {
        let any = &mut self.scratch.any;
        let mut members = Vec::new();
        if let Ok(time) = event_time(raw.get(EventField::Time), &self.time, raw.time_unit(), any) {
            members.push(format!("\"time_ms\":{time}"));
        }
        if let Ok(Some(method)) = raw.get(EventField::Method).text(any) {
            members.push(format!("\"method\":\"{}\"", route::method(Some(method))));
        }
        let mut number = |name: EventField, label: &str, value: Result<u64, WrongType>| {
            if let (false, Ok(value)) = (raw.get(name).is_empty() || value == Ok(LATENCY_UNKNOWN), value) {
                members.push(format!("\"{label}\":{value}"));
            }
        };
        number(EventField::Status, "status", status(raw.get(EventField::Status), any).map(u64::from));
        number(EventField::Latency, "latency_us", latency(raw, self.latency, any));
        number(EventField::BytesIn, "bytes_in", size(raw.get(EventField::BytesIn), any));
        number(EventField::BytesOut, "bytes_out", size(raw.get(EventField::BytesOut), any));
        number(EventField::Units, "units", units(raw.get(EventField::Units), self.scale, any));
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")).into())
    }
}

/// Counts the oddities of a record that counts. Returns the reason of its row, if it has one.
fn noted(raw: &RawEvent<'_>, unread: &Unread, position: Position, tally: &mut Tally) -> Option<String> {
    if let Some(name) = raw.conflict() {
        tally.conflicting += 1;
        let label = name.label();
        return Some(format!(
            "conflicting: {label} stands twice with different values, so that the call counts under `conflicting`; \
             does the log's template escape what callers send?"
        ));
    }
    if unread.is_empty() && !raw.recovered {
        return None;
    }
    tally.recovered += u64::from(raw.recovered);
    unread.names().for_each(|name| tally.unread[name as usize] += 1);
    // Chosen by position, so that every replay reports the same rows.
    let mixed = (position.offset ^ u64::from(position.index) << 40 ^ u64::from(position.partition) << 52)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32).is_multiple_of(SAMPLED).then(|| match unread.names().next() {
        Some(EventField::Key) => {
            format!("{UNHASHED}; counted under `anonymous` (one such record in {SAMPLED} has a row)")
        }
        Some(name) => format!(
            "{}: can't be read, counted as unknown (one such record in {SAMPLED} has a row)",
            name.label()
        ),
        None => format!(
            "recovered: a value holds an unescaped quote; read by the order of the names (one such record in \
             {SAMPLED} has a row)"
        ),
    })
}

fn text<'s>(
    raw: &RawEvent<'s>,
    name: EventField,
    buffer: &'s mut String,
) -> Result<Option<&'s str>, WrongType> {
    raw.get(name).text(buffer)
}

/// Returns the event time. If the record states two times, the first that can be read wins.
fn time(raw: &RawEvent<'_>, reader: &TimeReader, buffer: &mut String) -> Result<EventTime, Fault> {
    let first = event_time(raw.get(EventField::Time), reader, raw.time_unit(), buffer);
    match (first, raw.second_time()) {
        (Err(_), Some((second, unit))) => event_time(second, reader, unit, buffer),
        (first, _) => first,
    }
}

fn count(value: FieldValue<'_>, buffer: &mut String) -> Result<u32, WrongType> {
    match numeric(value, buffer)? {
        Numeric::Unknown => Ok(1),
        Numeric::Known(number) => number
            .integer()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0)
            .ok_or(WrongType),
    }
}

/// The whole number of a value, which is 0 if it is unknown, or `None` if it isn't whole.
#[inline]
fn whole(value: FieldValue<'_>, buffer: &mut String) -> Result<Option<u64>, WrongType> {
    if let Some(number) = short_whole_of(value) {
        return Ok(Some(number));
    }
    Ok(match numeric(value, buffer)? {
        Numeric::Known(number) if !number.is_minus_one() => number.integer(),
        _ => Some(0),
    })
}

fn status(value: FieldValue<'_>, buffer: &mut String) -> Result<u16, WrongType> {
    match whole(value, buffer)?.and_then(|status| u16::try_from(status).ok()) {
        // RFC 9110, section 15: three digits; those from 600 on are taken for 5xx.
        Some(status) if status == 0 || (100..1_000).contains(&status) => Ok(status),
        _ => Err(WrongType),
    }
}

fn latency(raw: &RawEvent<'_>, unit: Unit, buffer: &mut String) -> Result<u64, WrongType> {
    match raw.get(EventField::Latency).text(buffer)? {
        None => Ok(LATENCY_UNKNOWN),
        Some(text) if text.starts_with('-') && Decimal::parse(text).is_some_and(Decimal::is_minus_one) => {
            Ok(LATENCY_UNKNOWN)
        }
        Some(text) => duration_us(text, raw.latency_unit().unwrap_or(unit))
            .filter(|us| *us <= MAX_LATENCY_US)
            .ok_or(WrongType),
    }
}

/// Returns the microseconds from the call's time to its end.
fn duration(
    raw: &RawEvent<'_>,
    [time, end]: [&TimeReader; 2],
    buffer: &mut String,
) -> Result<u64, WrongType> {
    let start = event_time_us(raw.get(EventField::Time), time, raw.time_unit(), buffer);
    let end = event_time_us(raw.get(EventField::End), end, raw.end_unit(), buffer);
    let us = end.zip(start).and_then(|(end, start)| end.checked_sub(start));
    us.filter(|us| *us <= MAX_LATENCY_US).ok_or(WrongType)
}

fn size(value: FieldValue<'_>, buffer: &mut String) -> Result<u64, WrongType> {
    whole(value, buffer)?.filter(|bytes| *bytes <= MAX_BYTES).ok_or(WrongType)
}

#[inline]
fn units(value: FieldValue<'_>, scale: i32, buffer: &mut String) -> Result<u64, WrongType> {
    match numeric(value, buffer)? {
        Numeric::Known(number) if !number.is_minus_one() => {
            number.round(scale).filter(|units| *units <= MAX_UNITS).ok_or(WrongType)
        }
        _ => Ok(0),
    }
}

fn client(raw: &RawEvent<'_>, context: &Context, buffer: &mut String) -> Option<IpAddr> {
    let peer = address::parse(raw.get(EventField::ClientIp).text(buffer).ok()??)?;
    address::client(peer, raw.get(EventField::ForwardedFor), &context.trusted_proxies, buffer)
}

fn locate(
    raw: &RawEvent<'_>,
    client: Option<IpAddr>,
    geo_cache: &mut GeoCache,
    context: &Context,
    buffer: &mut String,
) -> Located {
    let mut located = client.map_or_else(Located::default, |client| geo_cache.locate(client, &*context.geo));
    let stated =
        raw.get(EventField::Country).text(buffer).ok().flatten().map_or(Country::UNKNOWN, Country::new);
    if stated != Country::UNKNOWN {
        located.country = stated;
    }
    located
}

/// Calls `each` with the texts that identify a record, besides the key. They are a request id that its caller may have
/// chosen, and the content that is the same if the record is sent again.
fn each_text_of_identity(raw: &RawEvent<'_>, id: Option<&str>, mut each: impl FnMut(&str)) {
    use EventField::{
        BytesIn, BytesOut, ClientIp, Host, Latency, Method, Path, Query, Request, Status, Time, UserAgent,
    };
    each(id.unwrap_or_default());
    let content =
        [Host, Time, ClientIp, Method, Path, Query, Request, Status, UserAgent, BytesIn, BytesOut, Latency];
    content.into_iter().for_each(|name| each(raw.get(name).verbatim()));
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
        // Names distinguish rows, so one that is cut or shown otherwise ends in its id.
        let name = match route::cut(&name, limit) {
            cut if cut.len() == name.len() && cut.as_bytes() == key => cut.into(),
            cut => format!("{cut}~{:032x}", id.0).into(),
        };
        definitions.push(Definition::Key { id, name, month: Some(month) });
    }
}
