//! Guesses the format of messages, without regard to the configuration.
//!
//! JSON is judged by its members, and a line of text by its beginning. A guess needs more than half of the messages.
//!
//! Limits: 100 messages, the first 256 KiB of each, 10 records of a message. 4,096 different pointers are counted, of
//! at most three names with 32 characters each.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use keytide_config::{Field, Source, Unit};
use serde_json::{Map, Value};

use crate::decode::json_behind_syslog;
use crate::framing::{GZIP, unframed};

/// The number of messages that are looked at.
const MESSAGES: u64 = 100;
const MESSAGE_BYTES: usize = 256 << 10;
/// The number of records of a message that are looked at.
const RECORDS: usize = 10;
/// The most names in a pointer.
const DEPTH: usize = 3;
const NAME_CHARS: usize = 32;
/// The most digits in a name, as keys have more.
const NAME_DIGITS: usize = 4;
const POINTERS: usize = 4_096;
/// The fewest commas in a line of CSV.
const CSV_COMMAS: usize = 3;
/// The most pointers that are listed.
const LISTED: usize = 40;

/// Parts of the names of containers that callers fill, whose members aren't listed.
const OF_CALLERS: [&str; 9] =
    ["header", "query", "arg", "param", "cookie", "body", "form", "trailer", "baggage"];
/// Names of members that hold keys, in lower case, without `-` and `_` and without a prefix before a dot.
const OF_KEYS: [&str; 13] = [
    "accesstoken",
    "apikey",
    "apitoken",
    "appkey",
    "authorization",
    "clientkey",
    "consumerkey",
    "ocpapimsubscriptionkey",
    "subscriptionkey",
    "xapikey",
    "xapitoken",
    "xauthtoken",
    "xrapidapikey",
];

/// A format that messages seem to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    /// The format's name in the configuration, or nothing if it has none there.
    pub(super) name: &'static str,
    /// The format's name in a sentence.
    pub(super) label: &'static str,
}

/// Counts of formats and members that were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Sniffed {
    messages: u64,
    looks: BTreeMap<&'static str, (Looks, u64)>,
    objects: Vec<Map<String, Value>>,
    members: BTreeMap<String, u64>,
    key_places: BTreeMap<String, u64>,
    times: BTreeMap<(&'static str, &'static str), u64>,
    timed: u64,
}

impl Sniffed {
    /// Counts the format and the members of a message.
    pub(super) fn see(&mut self, message: &[u8], source: &Source) {
        if self.messages >= MESSAGES {
            return;
        }
        self.messages += 1;
        let mut inflated = Vec::new();
        let mut message = &message[..message.len().min(MESSAGE_BYTES)];
        if message.starts_with(&GZIP) {
            // A damaged message is looked at as far as it can be decompressed.
            let _ = MultiGzDecoder::new(message).take(MESSAGE_BYTES as u64).read_to_end(&mut inflated);
            message = &inflated;
        }
        let Ok(message) = unframed(message) else { return self.count(FRAMED) };
        let text = String::from_utf8_lossy(message);
        let text = json_behind_syslog(&text).unwrap_or(&text);
        let values: Vec<Value> = serde_json::Deserializer::from_str(text)
            .into_iter()
            .take(RECORDS)
            .map_while(Result::ok)
            .collect();
        if !values.iter().any(|value| value.is_object() || value.is_array()) {
            if let Some(looks) = of_text(text) {
                self.count(looks);
            }
            return;
        }
        let mut found = None;
        for value in values {
            let records = match value {
                Value::Array(records) => records,
                record => vec![record],
            };
            for record in records.into_iter().take(RECORDS) {
                let Value::Object(record) = unwrapped(record, source) else { continue };
                found = found.or_else(|| of_object(&record));
                self.record(record, source);
            }
        }
        if let Some(looks) = found {
            self.count(looks);
        }
    }

    fn count(&mut self, looks: Looks) {
        self.looks.entry(looks.label).or_insert((looks, 0)).1 += 1;
    }

    fn record(&mut self, record: Map<String, Value>, source: &Source) {
        self.walk(&record, &mut Vec::new(), 0);
        if let Some(time) = &source.fields.time {
            self.time(&record, time);
        }
        if self.objects.len() < MESSAGES as usize {
            self.objects.push(record);
        }
    }

    /// Counts the members of an object. `inside` is the number of containers around it that callers fill.
    fn walk<'v>(&mut self, object: &'v Map<String, Value>, path: &mut Vec<&'v str>, inside: u8) {
        for (name, value) in object {
            path.push(name);
            let of_callers = OF_CALLERS.iter().any(|word| name.to_lowercase().contains(word));
            if is_plain(name) {
                if inside <= 1 && is_of_key(name, inside == 0) {
                    add(&mut self.key_places, path);
                }
                let is_container = value.is_object() && path.len() < DEPTH && !of_callers;
                // A dotted name has its container before the dot.
                if inside == 0 && !is_container && !(of_callers && name.contains('.')) {
                    add(&mut self.members, path);
                }
                if let (Value::Object(inner), true) = (value, path.len() < DEPTH) {
                    self.walk(inner, path, inside + u8::from(of_callers || inside > 0));
                }
            }
            path.pop();
        }
    }

    /// Counts the unit that a time seems to have. Texts, and numbers that fit no unit, aren't counted.
    fn time(&mut self, record: &Map<String, Value>, field: &Field) {
        let configured = match field.unit {
            Some(Unit::Seconds) => "s",
            Some(Unit::Millis) => "ms",
            Some(Unit::Micros) => "us",
            Some(Unit::Nanos) => "ns",
            Some(Unit::Rfc3339 | Unit::Clf) | None => return,
        };
        let number = match field.at.iter().find_map(|place| at(record, &place.0)) {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let Some(found) = number.and_then(epoch_unit) else { return };
        self.timed += 1;
        if found != configured {
            *self.times.entry((found, configured)).or_default() += 1;
        }
    }

    /// Returns the format that more than half of the messages seem to have.
    pub(super) fn looks(&self) -> Option<Looks> {
        let most = self.looks.values().max_by_key(|(_, count)| *count);
        most.filter(|(_, count)| count * 2 > self.messages).map(|(looks, _)| *looks)
    }

    /// Returns the unit that most times seem to have, and the configured one, if they differ.
    pub(super) fn time_unit(&self) -> Option<(&'static str, &'static str)> {
        let most = self.times.iter().max_by_key(|(_, count)| **count);
        most.filter(|(_, count)| **count * 2 > self.timed).map(|(units, _)| *units)
    }

    /// Returns whether there are JSON records, and every one of them lacks all of these places.
    pub(super) fn lacks(&self, places: &[&[String]]) -> bool {
        let has = |record: &Map<String, Value>| places.iter().any(|place| at(record, place).is_some());
        !self.objects.is_empty() && !self.objects.iter().any(has)
    }

    pub(super) fn members(&self) -> Vec<String> {
        self.common(&self.members)
    }

    /// Returns the places at which keys may be.
    pub(super) fn key_places(&self) -> Vec<String> {
        // One record with a key is enough, as the others may have none.
        self.key_places.keys().take(LISTED).cloned().collect()
    }

    fn common(&self, counts: &BTreeMap<String, u64>) -> Vec<String> {
        let half = (self.objects.len() as u64).div_ceil(2);
        counts
            .iter()
            .filter(|(_, count)| **count >= half)
            .take(LISTED)
            .map(|(place, _)| place.clone())
            .collect()
    }
}

/// Returns whether a name is one of keys. If `is_dotted`, any prefix before its last dot is ignored.
fn is_of_key(name: &str, is_dotted: bool) -> bool {
    let name = if is_dotted { name.rsplit('.').next().unwrap_or(name) } else { name };
    let letters = name.chars().filter(|letter| !matches!(letter, '-' | '_'));
    OF_KEYS.contains(&&*letters.flat_map(char::to_lowercase).collect::<String>())
}

fn add(counts: &mut BTreeMap<String, u64>, path: &[&str]) {
    let place = written(path);
    if counts.len() < POINTERS || counts.contains_key(&place) {
        *counts.entry(place).or_default() += 1;
    }
}

/// Writes a pointer as in a configuration.
pub(super) fn written(path: &[impl AsRef<str>]) -> String {
    path.iter().map(|name| format!("/{}", name.as_ref().replace('~', "~0").replace('/', "~1"))).collect()
}

/// Returns whether a name may be listed, because it is a word and not like a key.
fn is_plain(name: &str) -> bool {
    name.len() <= NAME_CHARS
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.:@$".contains(letter))
        && name.chars().filter(char::is_ascii_digit).count() <= NAME_DIGITS
}

fn at<'v>(record: &'v Map<String, Value>, place: &[String]) -> Option<&'v Value> {
    let (first, rest) = place.split_first()?;
    let mut value = record.get(first)?;
    for name in rest {
        value = match value {
            Value::Object(object) => object.get(name)?,
            Value::Array(elements) => elements.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    (!value.is_null()).then_some(value)
}

/// Returns the record in a log agent's wrapper, or the record itself.
fn unwrapped(record: Value, source: &Source) -> Value {
    let Value::Object(object) = &record else { return record };
    for place in source.unwrap.iter().chain(&source.records) {
        let inner = match at(object, &place.0) {
            Some(Value::String(text)) => serde_json::from_str(text).ok(),
            Some(Value::Array(records)) => records.first().cloned(),
            Some(inner) => Some(inner.clone()),
            None => None,
        };
        if let Some(inner) = inner.filter(Value::is_object) {
            return inner;
        }
    }
    record
}

/// Returns the unit in which a number is a time since the epoch between 2001 and 2100.
fn epoch_unit(number: f64) -> Option<&'static str> {
    let units = [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)];
    units.into_iter().find(|(_, unit)| (1e9 * unit..4.1e9 * unit).contains(&number)).map(|(name, _)| name)
}

fn is_date(text: &str) -> bool {
    let digits = |from: usize, to: usize| {
        text.get(from..to).is_some_and(|part| part.bytes().all(|digit| digit.is_ascii_digit()))
    };
    (digits(0, 4) && text.get(4..5) == Some("-") && digits(5, 7))
        || (digits(0, 2) && text.get(2..3) == Some("/") && text.get(6..7) == Some("/") && digits(7, 11))
}

const fn format(name: &'static str, label: &'static str) -> Looks {
    Looks { name, label }
}

const APISIX: Looks = format("apisix", "`apisix`");
const KONG: Looks = format("kong", "`kong`");
const ENVOY: Looks = format("envoy", "`envoy`");
const NGINX: Looks = format("nginx", "`nginx`");
const AWS_APIGATEWAY: Looks = format("aws-apigateway", "`aws-apigateway`");
const OTEL: Looks = format("otel", "`otel`");
const CLOUDWATCH: Looks = format("cloudwatch", "`cloudwatch`");
const CLOUDEVENTS: Looks = format("cloudevents", "`cloudevents`");
const COMBINED: Looks = format("combined", "`combined`");
const COMMON: Looks = format("text", "the common log format, `combined` without referrer and agent");
const ALB: Looks = format("alb", "the log of an AWS load balancer (ALB)");
const CLOUDFRONT: Looks = format("cloudfront", "CloudFront's standard log (W3C)");
const HAPROXY: Looks = format("haproxy", "HAProxy's HTTP log");
const ENVOY_TEXT: Looks = format("text", "Envoy's log as text");
const CRI: Looks = format("", "lines of a container runtime (CRI) around the log's own");
const CSV: Looks = format("", "comma-separated values (CSV), which no source reads");
const FRAMED: Looks = format("", "binary messages of a schema registry, such as Avro or Protobuf");

/// Guesses the format of a JSON object.
fn of_object(object: &Map<String, Value>) -> Option<Looks> {
    let has = |name: &str| object.contains_key(name);
    let count = |names: &[&str]| names.iter().filter(|name| has(name)).count();
    let holds = |outer: &str, inner: &str| object.get(outer).and_then(|value| value.get(inner)).is_some();
    let looks = if has("specversion") && has("type") && has("source") {
        CLOUDEVENTS
    } else if has("messageType") && has("logEvents") {
        CLOUDWATCH
    } else if has("resourceLogs") || has("resourceSpans") {
        OTEL
    } else if object.get("latencies").is_some_and(Value::is_object) && has("request") {
        KONG
    } else if holds("request", "uri")
        && count(&["route_id", "service_id", "client_ip", "apisix_latency"]) >= 2
    {
        APISIX
    } else if count(&["resourcePath", "routeKey", "httpMethod", "protocol", "requestId", "requestTime"]) >= 4
        && has("requestId")
        && (has("resourcePath") || has("routeKey"))
    {
        AWS_APIGATEWAY
    } else if count(&["upstream_cluster", "upstream_host", "response_flags", "response_code", "start_time"])
        >= 3
    {
        ENVOY
    } else if count(&[
        "request_uri",
        "remote_addr",
        "request_time",
        "msec",
        "time_iso8601",
        "http_user_agent",
    ]) >= 3
    {
        NGINX
    } else if holds("attributes", "http.request.method") || holds("attributes", "http.method") {
        OTEL
    } else {
        return None;
    };
    Some(looks)
}

/// Guesses the format of a text by its first line.
fn of_text(text: &str) -> Option<Looks> {
    let line = text.lines().next().unwrap_or("").trim_end();
    let mut words = line.split(' ');
    let first = words.next().unwrap_or("");
    let second = words.next().unwrap_or("");
    let quoted = line.matches('"').count();
    let looks = if line.starts_with("#Version:") || line.starts_with("#Fields:") {
        CLOUDFRONT
    } else if ["http", "https", "h2", "grpcs", "ws", "wss"].contains(&first) && is_date(second) {
        ALB
    } else if is_date(first) && line.split('\t').count() > 10 {
        CLOUDFRONT
    } else if is_date(first) && ["stdout", "stderr"].contains(&second) {
        CRI
    } else if line.contains("haproxy[") && quoted >= 2 {
        HAPROXY
    } else if line.strip_prefix('[').is_some_and(is_date) && quoted >= 2 {
        ENVOY_TEXT
    } else if line.split_once('[').is_some_and(|(_, rest)| is_date(rest)) && quoted >= 2 {
        let accepts_time = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let has_fraction = accepts_time.is_some_and(|(time, _)| time.contains('.'));
        match quoted {
            _ if has_fraction => HAPROXY,
            2 | 3 => COMMON,
            _ => COMBINED,
        }
    } else if is_csv(line) {
        CSV
    } else {
        return None;
    };
    Some(looks)
}

/// Returns whether a line has more commas than blanks, and is no part of a JSON text.
fn is_csv(line: &str) -> bool {
    let count = |wanted: char| line.matches(wanted).count();
    count(',') >= CSV_COMMAS && count(',') > count(' ') && !line.contains(['{', '}', '[', ']'])
}
