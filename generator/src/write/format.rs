//! Formats a record as one line of a gateway's log. It is written by hand into one buffer, as the generator must be faster
//! than the job that it feeds.
//!
//! Nothing needs escaping: the population's texts have no quotes, backslashes or control characters.

use std::io::Write as _;
use std::net::IpAddr;

use keytide_dataflow::model::id_digits;

use crate::story::record::CallRecord;
use crate::world::population::{COUNTRIES, Population, RouteProfile};
use crate::world::settings::GatewayFormat;

/// Writes lines of one format.
pub(crate) struct Formatter<'a> {
    format: GatewayFormat,
    population: &'a Population,
    raw_keys: Vec<Box<str>>,
    line: Vec<u8>,
    /// Caches the last time in whole seconds with its text in the combined format.
    second: (u64, String),
}

impl<'a> Formatter<'a> {
    pub(crate) fn new(format: GatewayFormat, population: &'a Population) -> Self {
        let raw_keys = population.keys.iter().map(|key| key.raw().into()).collect();
        Self {
            format,
            population,
            raw_keys,
            line: Vec::with_capacity(2_048),
            second: (u64::MAX, String::new()),
        }
    }

    /// Formats a record as a line, with its line feed.
    pub(crate) fn line(&mut self, record: &CallRecord) -> &[u8] {
        self.line.clear();
        match self.format {
            GatewayFormat::Json => self.json(record),
            GatewayFormat::Apisix => self.apisix(record),
            GatewayFormat::Kong => self.kong(record),
            GatewayFormat::Combined => self.combined(record),
        }
        self.line.push(b'\n');
        &self.line
    }

    /// Formats the first third of a record's line, with a line feed.
    pub(crate) fn broken_line(&mut self, record: &CallRecord) -> &[u8] {
        let length = self.line(record).len() / 3;
        self.line.truncate(length);
        self.line.push(b'\n');
        &self.line
    }

    fn json(&mut self, record: &CallRecord) {
        self.text("{\"requestId\":\"");
        self.uuid(record.request_id);
        self.text("\",\"requestTime\":");
        self.number(record.time);
        if let Some(key) = record.key {
            self.text(",\"apiKey\":\"");
            self.key(key);
            self.text("\"");
        }
        let route = self.route(record);
        self.text(",\"routeKey\":\"");
        self.text(&route.template);
        self.text("\",\"httpMethod\":\"");
        self.text(route.method);
        self.text("\",\"status\":");
        self.number(record.status);
        self.text(",\"latencyMs\":");
        self.millis(record.latency_us);
        self.text(",\"requestLength\":");
        self.number(record.bytes_in);
        self.text(",\"responseLength\":");
        self.number(record.bytes_out);
        self.text(",\"ip\":\"");
        self.address(record);
        self.text("\",\"country\":\"");
        self.text(COUNTRIES[record.client.country as usize].0);
        self.text("\",\"userAgent\":\"");
        self.text(&self.population.agents[record.agent as usize]);
        self.text("\"}");
    }

    fn apisix(&mut self, record: &CallRecord) {
        let route = self.route(record);
        self.text("{\"client_ip\":\"");
        self.address(record);
        self.text("\",\"route_id\":\"");
        self.route_name(record);
        self.text("\",\"service_id\":\"svc-");
        self.text(route.api);
        self.text("\",\"start_time\":");
        self.number(record.time);
        self.text(",\"latency\":");
        self.millis(record.latency_us);
        self.text(",\"upstream_latency\":");
        self.number(record.latency_us / 1_250);
        self.text(",\"upstream\":\"10.20.3.14:8080\"");
        self.text(",\"request_id\":\"");
        self.uuid(record.request_id);
        self.text("\",\"request\":{\"method\":\"");
        self.text(route.method);
        self.text("\",\"uri\":\"");
        self.path(record);
        self.text("\",\"url\":\"https://api.example.com:9443");
        self.path(record);
        self.text("\",\"size\":");
        self.number(record.bytes_in);
        self.text(",\"querystring\":{},\"headers\":{\"host\":\"api.example.com:9443\",\"user-agent\":\"");
        self.text(&self.population.agents[record.agent as usize]);
        self.text("\",\"accept\":\"application/json\"");
        self.key_header(record);
        self.text("}},\"response\":{\"status\":");
        self.number(record.status);
        self.text(",\"size\":");
        self.number(record.bytes_out);
        self.text(",\"headers\":{\"content-type\":\"application/json\",\"server\":\"APISIX/3.13.0\"}}");
        self.text(",\"server\":{\"hostname\":\"apisix-0\",\"version\":\"3.13.0\"}}");
    }

    fn kong(&mut self, record: &CallRecord) {
        let route = self.route(record);
        self.text("{\"request\":{\"id\":\"");
        self.hex(record.request_id);
        self.text("\",\"method\":\"");
        self.text(route.method);
        self.text("\",\"uri\":\"");
        self.path(record);
        self.text("\",\"url\":\"https://api.example.com:8443");
        self.path(record);
        self.text("\",\"size\":");
        self.number(record.bytes_in);
        self.text(",\"querystring\":{},\"headers\":{\"host\":\"api.example.com\",\"user-agent\":\"");
        self.text(&self.population.agents[record.agent as usize]);
        self.text("\",\"accept\":\"*/*\"");
        self.key_header(record);
        self.text("}},\"response\":{\"status\":");
        self.number(record.status);
        self.text(",\"size\":");
        self.number(record.bytes_out);
        self.text(",\"headers\":{\"content-type\":\"application/json\",\"via\":\"1.1 kong/3.9.0\"}}");
        self.text(",\"latencies\":{\"request\":");
        self.number(record.latency_us / 1_000);
        self.text(",\"kong\":1,\"proxy\":");
        self.number(record.latency_us / 1_250);
        self.text("},\"client_ip\":\"");
        self.address(record);
        self.text("\",\"started_at\":");
        self.number(record.time);
        self.text(",\"service\":{\"name\":\"");
        self.text(route.api);
        self.text("\"},\"route\":{\"name\":\"");
        self.route_name(record);
        self.text("\"}}");
    }

    fn combined(&mut self, record: &CallRecord) {
        self.address(record);
        self.text(" - - [");
        self.clf(record.time);
        self.text("] \"");
        self.text(self.route(record).method);
        self.text(" ");
        self.path(record);
        if let Some(key) = record.key {
            self.text("?apikey=");
            self.key(key);
        }
        self.text(" HTTP/1.1\" ");
        self.number(record.status);
        self.text(" ");
        self.number(record.bytes_out);
        self.text(" \"-\" \"");
        self.text(&self.population.agents[record.agent as usize]);
        self.text("\"");
    }

    fn route(&self, record: &CallRecord) -> &'a RouteProfile {
        &self.population.routes[record.route as usize]
    }

    /// Writes the gateway's name of the route, such as `get-v1-orders-id`.
    fn route_name(&mut self, record: &CallRecord) {
        let route = self.route(record);
        self.line.extend(route.method.bytes().map(|byte| byte.to_ascii_lowercase()));
        let slug = |byte: u8| match byte {
            b'/' => Some(b'-'),
            b'{' | b'}' => None,
            _ => Some(byte),
        };
        self.line.extend(route.template.bytes().filter_map(slug));
    }

    fn path(&mut self, record: &CallRecord) {
        let template = &self.route(record).template;
        match template.strip_suffix("{id}") {
            Some(parent) => {
                self.text(parent);
                self.number(record.item);
            }
            None => self.text(template),
        }
    }

    fn key(&mut self, key: u32) {
        self.line.extend_from_slice(self.raw_keys[key as usize].as_bytes());
    }

    fn key_header(&mut self, record: &CallRecord) {
        if let Some(key) = record.key {
            self.text(",\"apikey\":\"");
            self.key(key);
            self.text("\"");
        }
    }

    fn text(&mut self, text: &str) {
        self.line.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Writes microseconds as milliseconds with three decimals.
    fn millis(&mut self, us: u32) {
        self.number(us / 1_000);
        let rest = (us % 1_000) as u16;
        self.line.extend([b'.', digit(rest / 100), digit(rest / 10 % 10), digit(rest % 10)]);
    }

    fn hex(&mut self, number: u128) {
        self.line.extend(id_digits(number));
    }

    /// Writes random bits as a UUID (RFC 9562, version 4).
    fn uuid(&mut self, bits: u128) {
        let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let digits = id_digits(bits);
        for (index, group) in [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().enumerate() {
            if index > 0 {
                self.line.push(b'-');
            }
            self.line.extend_from_slice(&digits[group]);
        }
    }

    fn address(&mut self, record: &CallRecord) {
        match record.client.address {
            IpAddr::V4(address) => {
                for (index, octet) in address.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.line.push(b'.');
                    }
                    self.number(octet);
                }
            }
            IpAddr::V6(address) => write!(self.line, "{address}").expect("a buffer takes all"),
        }
    }

    fn clf(&mut self, time: u64) {
        let second = time / 1_000;
        if self.second.0 != second {
            let time =
                jiff::Timestamp::from_second(second.cast_signed()).expect("event times are before 9999");
            self.second = (second, time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string());
        }
        self.line.extend_from_slice(self.second.1.as_bytes());
    }
}

fn digit(number: u16) -> u8 {
    b'0' + number as u8
}
