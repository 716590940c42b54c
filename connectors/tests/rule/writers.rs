//! A record of one call, as each gateway would write it.

use super::caller::{Caller, decoded, encoded};
use super::escapes;

/// One call: the caller's part and the gateway's.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a Caller,
    /// The key that the gateway saw.
    pub(crate) key: Vec<u8>,
    /// When it was served, in milliseconds since the epoch.
    pub(crate) ms: u64,
    /// A number of the gateway's own, another for each call.
    pub(crate) number: u64,
    /// Where a template has no order of its own: whether identity stands last, and not in the middle.
    pub(crate) identity_last: bool,
}

/// What becomes of what a writer writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// The record says what was sent.
    Yes,
    /// A caller can break out of its text, and the format knows that.
    No,
    /// The same, of records that may as well be an encoder's: only the order of their members helps.
    Unknown,
}

/// What a writer makes of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Any bytes are kept.
    Bytes,
    /// What isn't UTF-8 is replaced.
    Texts,
    /// A key is the gateway's own name for it, letters and digits.
    Ids,
}

/// A model of a writer.
pub(crate) struct Writer {
    pub(crate) name: &'static str,
    /// What stands in `[[source]]` behind its kind.
    pub(crate) source: &'static str,
    pub(crate) write: fn(&Call<'_>) -> Vec<u8>,
    pub(crate) keys: Keys,
    pub(crate) escapes: Escapes,
    /// Whether several records may be one message as a JSON array.
    pub(crate) in_arrays: bool,
    /// Whether times are whole seconds.
    pub(crate) in_seconds: bool,
    /// Whether there is no latency.
    pub(crate) is_untimed: bool,
}

impl Writer {
    const fn in_arrays(self) -> Self {
        Self { in_arrays: true, ..self }
    }

    const fn in_seconds(self) -> Self {
        Self { in_seconds: true, ..self }
    }

    const fn untimed(self) -> Self {
        Self { is_untimed: true, ..self }
    }
}

macro_rules! keys {
    ($format:literal, $from:literal) => {
        concat!("format = \"", $format, "\"\n[source.keys]\nfrom = [", $from, "]\n")
    };
}

macro_rules! source {
    ($format:literal) => {
        keys!($format, "\"header:apikey\", \"query:apikey\"")
    };
}

macro_rules! query {
    ($format:literal) => {
        keys!($format, "\"query:apikey\"")
    };
}

macro_rules! credential {
    ($format:literal) => {
        keys!($format, "\"credential\"")
    };
}

const CONSUMER: &str = keys!("cloudevents", "\"consumer\"");
const HAPROXY: &str = keys!("haproxy", "\"field:/request_headers/0\"");

const HAND_WRITTEN: &str = r#"format = "json"
[source.fields]
request_id = "/id"
time = { at = "/time", unit = "s" }
path = "/path"
method = "/method"
status = "/status"
latency = { at = "/ms", unit = "ms" }
client_ip = "/client_ip"
user_agent = "/user_agent"
[source.keys]
from = ["field:/key", "query:apikey"]
"#;

const FIELDS: &str = r#"format = "json"
[source.fields]
request_id = "/id"
time = { at = "/ts", unit = "s" }
path = "/request/uri"
method = "/request/method"
status = "/status"
latency = { at = "/duration", unit = "s" }
client_ip = "/request/remote_ip"
forwarded_for = "/request/headers/X-Forwarded-For"
user_agent = "/request/headers/User-Agent"
[source.keys]
from = ["field:/request/headers/Apikey", "query:apikey"]
"#;

const NGINX_LINE: &str = r#"format = "text"
pattern = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "$http_apikey" $request_time $request_id'
[source.keys]
from = ["header:apikey", "query:apikey"]
"#;

const APACHE_LINE: &str = r#"format = "text"
pattern = '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" "%{apikey}i" %D'
[source.keys]
from = ["header:apikey", "query:apikey"]
"#;

const ENVOY_LINE: &str = r#"format = "text"
pattern = '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(APIKEY)%" "%DOWNSTREAM_REMOTE_ADDRESS%"'
[source.keys]
from = ["header:apikey"]
"#;

const AWS_LINE: &str = r#"format = "text"
pattern = '$context.identity.sourceIp - - [$context.requestTime] "$context.httpMethod $context.path $context.protocol" $context.status $context.responseLength $context.requestId "$context.identity.userAgent" $context.responseLatency $context.identity.apiKeyId'
[source.keys]
from = ["credential"]
"#;

pub(crate) const WRITERS: &[Writer] = {
    use Escapes::{No, Unknown, Yes};
    use Keys::{Bytes, Ids, Texts};
    &[
        writer("apisix", source!("apisix"), Bytes, Yes, apisix).in_arrays(),
        writer("kong", source!("kong"), Bytes, Yes, kong).in_arrays(),
        writer("envoy", source!("envoy"), Bytes, Yes, |call| envoy(call, escapes::envoy)),
        writer("envoy by protobuf", source!("envoy"), Texts, Yes, |call| {
            envoy(call, escapes::envoy_protobuf)
        }),
        writer("nginx json", source!("nginx"), Bytes, Yes, |call| nginx(call, escapes::nginx_json)),
        writer("nginx default", source!("nginx"), Bytes, Yes, |call| nginx(call, escapes::nginx)),
        writer("nginx none", source!("nginx"), Ids, No, |call| nginx(call, escapes::none)),
        writer("json by go", FIELDS, Texts, Yes, caddy),
        writer("json by haproxy", HAND_WRITTEN, Ids, Unknown, haproxy_json),
        writer("aws", credential!("aws-apigateway"), Ids, No, aws),
        writer("cloudwatch", credential!("cloudwatch"), Ids, No, cloudwatch),
        writer("cloudevents", CONSUMER, Texts, Yes, cloudevents).in_arrays(),
        writer("otel", source!("otel"), Texts, Yes, otel),
        writer("otlp", source!("otel"), Texts, Yes, otlp),
        writer("combined by nginx", query!("combined"), Bytes, Yes, |call| combined(call, escapes::nginx))
            .in_seconds()
            .untimed(),
        writer("combined by apache", query!("combined"), Bytes, Yes, |call| combined(call, escapes::apache))
            .in_seconds()
            .untimed(),
        writer("text by nginx", NGINX_LINE, Bytes, Yes, nginx_line).in_seconds(),
        writer("text by apache", APACHE_LINE, Bytes, Yes, apache_line).in_seconds(),
        writer("text by envoy", ENVOY_LINE, Ids, No, envoy_line),
        writer("text by aws", AWS_LINE, Ids, No, aws_line),
        writer("haproxy", HAPROXY, Bytes, Yes, haproxy),
        writer("alb", query!("alb"), Bytes, Yes, alb),
        writer("cloudfront", query!("cloudfront"), Bytes, Yes, cloudfront).in_seconds(),
    ]
};

const fn writer(
    name: &'static str,
    source: &'static str,
    keys: Keys,
    escapes: Escapes,
    write: fn(&Call<'_>) -> Vec<u8>,
) -> Writer {
    Writer { name, source, write, keys, escapes, in_arrays: false, in_seconds: false, is_untimed: false }
}

/// Members of a record, in order.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn new() -> Self {
        Self(b"{".to_vec())
    }

    fn name(&mut self, name: &[u8]) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
        self.0.extend([b"\"", name, b"\":"].concat());
    }

    /// A member that stands as it is.
    fn raw(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.name(name.as_bytes());
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// A text that is escaped already.
    fn text(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.name(name.as_ref());
        self.0.extend([b"\"", value.as_ref(), b"\""].concat());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// A table of lua-nginx-module as lua-cjson writes it: names once, repeated ones as arrays, `true` for bare ones.
fn table(pairs: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> Vec<u8> {
    let mut names: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    for (name, value) in pairs {
        let value = value.map_or(b"true".to_vec(), |value| [b"\"", &*escapes::cjson(&value), b"\""].concat());
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => names.push((name, vec![value])),
        }
    }
    let mut record = Record::new();
    for (name, values) in names {
        record.name(&escapes::cjson(&name));
        match &*values {
            [value] => record.0.extend_from_slice(value),
            values => record.0.extend([b"[", &*values.join(&b','), b"]"].concat()),
        }
    }
    record.end()
}

/// At most 100 headers, as lua-nginx-module reads them by default; a proxy's own are among them.
fn headers<'a>(call: &'a Call<'_>) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> + 'a {
    let caller = call.caller;
    let own = [
        ("apikey", &call.key),
        ("user-agent", &caller.agent),
        ("referer", &caller.referer),
        ("x-forwarded-for", &caller.forwarded),
        ("x-request-id", &caller.id),
    ];
    let more =
        caller.headers.iter().map(|(name, value)| (name.to_ascii_lowercase().into_bytes(), value.clone()));
    let own = own.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone()));
    own.chain(more).take(100).map(|(name, value)| (name, Some(value)))
}

/// At most 100 arguments.
fn arguments(call: &Call<'_>) -> Vec<u8> {
    let query = call.caller.query();
    let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(100);
    table(pairs.filter_map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = decoded(parts.next().unwrap_or_default());
        (!name.is_empty()).then(|| (name, parts.next().map(decoded)))
    }))
}

fn apisix(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let target = escapes::cjson(&caller.target());
    let request = Record::new()
        .text("url", [b"http:\\/\\/api.example.com:9080", &*target].concat())
        .text("uri", target)
        .text("method", &caller.method)
        .raw("headers", table(headers(call)))
        .raw("querystring", arguments(call))
        .text("body", escapes::cjson(&caller.body))
        .raw("size", "210");
    Record::new()
        .text("client_ip", "192.0.2.7")
        .raw("request", request.end())
        .raw("response", r#"{"status":200,"size":320,"headers":{"content-type":"application\/json"}}"#)
        .raw("start_time", call.ms.to_string())
        .raw("latency", "19")
        .text("service_id", "shop")
        .text("route_id", "1")
        // log_format_extra with the caller's own header.
        .text("request_id", escapes::cjson(&caller.id))
        .end()
}

fn kong(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let target = escapes::cjson(&caller.target());
    let request = Record::new()
        .text("id", format!("{:032x}", call.number))
        .text("uri", &target)
        .text("url", [b"http:\\/\\/api.example.com:8000", &*target].concat())
        .text("method", &caller.method)
        .raw("headers", table(headers(call)))
        .raw("querystring", arguments(call))
        .raw("size", "210");
    Record::new()
        .raw("started_at", call.ms.to_string())
        .raw("request", request.end())
        .raw("response", r#"{"status":200,"size":"320"}"#)
        .raw("latencies", r#"{"request":19,"proxy":-1,"kong":1}"#)
        .text("client_ip", "192.0.2.7")
        .end()
}

/// RFC 3339 with milliseconds.
fn rfc3339(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap())
        .unwrap()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// A value of Envoy's: absent is null.
fn envoy(call: &Call<'_>, escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let caller = call.caller;
    let record = Record::new()
        .text("start_time", rfc3339(call.ms))
        .text("method", escape(caller.method.as_bytes()))
        .text("path", escape(&caller.target()))
        .raw("response_code", "200")
        .raw("duration", "19")
        .text("x_forwarded_for", escape(&caller.forwarded))
        .text("user_agent", escape(&caller.agent))
        .text("request_id", escape(&caller.id))
        .text("referer", escape(&caller.referer))
        .text("downstream_remote_address", "192.0.2.7:4711");
    record.text("apikey", escape(&call.key)).end()
}

fn nginx(call: &Call<'_>, escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let caller = call.caller;
    let record = Record::new()
        .text("msec", format!("{}.{:03}", call.ms / 1000, call.ms % 1000))
        .text("request_id", escape(&caller.id))
        .text("request_method", &caller.method)
        .text("request_uri", escape(&caller.target()));
    let record = if call.identity_last { record } else { record.text("http_apikey", escape(&call.key)) };
    let record = record
        .text("status", "200")
        .text("request_time", "0.019")
        .raw("upstream_response_time", "")
        .text("remote_addr", "192.0.2.7")
        .text("http_x_forwarded_for", escape(&caller.forwarded))
        .text("http_referer", escape(&caller.referer))
        .text("http_user_agent", escape(&caller.agent))
        .text("remote_user", escape(&caller.user));
    if call.identity_last { record.text("http_apikey", escape(&call.key)).end() } else { record.end() }
}

/// Traefik and Caddy: headers are arrays under their canonical names.
fn caddy(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let array = |value: &[u8]| [b"[\"", &*escapes::go(value), b"\"]"].concat();
    let mut headers = Record::new().raw("User-Agent", array(&caller.agent)).raw("Apikey", array(&call.key));
    for (name, value) in &caller.headers {
        if !name.eq_ignore_ascii_case("apikey") {
            headers = headers.raw(&format!("X-{}", name.replace('"', "")), array(value));
        }
    }
    let headers = headers.raw("X-Forwarded-For", array(&caller.forwarded)).end();
    let request = Record::new()
        .text("remote_ip", "192.0.2.7")
        .text("method", &caller.method)
        .text("uri", escapes::go(&caller.target()))
        .raw("headers", headers);
    Record::new()
        .text("level", "info")
        .raw("ts", format!("{}.{:03}", call.ms / 1000, call.ms % 1000))
        .text("id", format!("{:x}", call.number))
        .text("msg", "handled request")
        .raw("request", request.end())
        .raw("duration", "0.019")
        .raw("status", "200")
        .end()
}

/// `log-format` without flags: nothing is escaped.
fn haproxy_json(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let record = Record::new()
        .raw("time", format!("{}.{:03}", call.ms / 1000, call.ms % 1000))
        .text("trace", &caller.id)
        .text("client_ip", "192.0.2.7")
        .text("method", &caller.method)
        .text("path", caller.target());
    let record = if call.identity_last { record } else { record.text("key", &call.key) };
    let record = record
        .text("id", format!("{:032x}", call.number))
        .raw("status", "200")
        .raw("ms", "19")
        .text("referer", &caller.referer)
        .text("user_agent", &caller.agent);
    if call.identity_last { record.text("key", &call.key).end() } else { record.end() }
}

/// A template, in which nothing is escaped. The credential's id is the gateway's.
fn aws(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let record = Record::new()
        .text("requestId", escapes::lossy(&caller.id))
        .text("requestTimeEpoch", call.ms.to_string())
        .text("apiId", "a1")
        .text("httpMethod", &caller.method)
        .text("path", escapes::lossy(&caller.path));
    let record = if call.identity_last { record } else { record.text("apiKeyId", &call.key) };
    let record = record
        .text("resourcePath", "/v2/orders/{id}")
        .text("status", "200")
        .text("responseLatency", "19")
        .text("ip", "192.0.2.7")
        .text("userAgent", escapes::lossy(&caller.agent));
    if call.identity_last { record.text("apiKeyId", &call.key).end() } else { record.end() }
}

fn cloudwatch(call: &Call<'_>) -> Vec<u8> {
    let event = Record::new()
        .text("id", format!("{:056}", call.number))
        .raw("timestamp", call.ms.to_string())
        .text("message", escapes::java(&aws(call)));
    Record::new()
        .text("messageType", "DATA_MESSAGE")
        .text("owner", "123456789012")
        .text("logGroup", "api")
        .text("logStream", "s")
        .raw("subscriptionFilters", r#"["f"]"#)
        .raw("logEvents", [b"[", &*event.end(), b"]"].concat())
        .end()
}

/// A service's own event of a call.
fn cloudevents(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let data = Record::new()
        .text("method", &caller.method)
        .text("path", escapes::go(&caller.target()))
        .text("status", "200")
        .text("duration_ms", "19")
        .text("agent", escapes::go(&caller.agent))
        .text("body", escapes::go(&caller.body));
    Record::new()
        .text("specversion", "1.0")
        .text("type", "request")
        .text("id", format!("{:x}", call.number))
        .text("source", "service-0")
        .text("time", rfc3339(call.ms))
        .text("subject", escapes::go(&call.key))
        .raw("data", data.end())
        .end()
}

fn attributes(call: &Call<'_>, array: impl Fn(Record, &str, &[u8]) -> Record) -> Record {
    let caller = call.caller;
    let mut record = Record::new();
    for (name, value) in [
        ("http.request.method", caller.method.as_bytes()),
        ("url.path", &caller.path),
        ("url.query", &caller.query()),
        ("user_agent.original", &caller.agent),
        ("client.address", b"192.0.2.7"),
    ] {
        record = record.text(name, escapes::go(value));
    }
    for (name, value) in &caller.headers {
        let name = name.to_ascii_lowercase();
        if name != "apikey" {
            record = array(record, &format!("http.request.header.x-{name}"), value);
        }
    }
    let record = array(record, "http.request.header.apikey", &call.key);
    array(record, "http.request.header.x-forwarded-for", &caller.forwarded)
}

/// A log record, its attributes an object.
fn otel(call: &Call<'_>) -> Vec<u8> {
    let array = |record: Record, name: &str, value: &[u8]| {
        record.raw(name, [b"[\"", &*escapes::go(value), b"\"]"].concat())
    };
    let attributes = attributes(call, array)
        .raw("http.response.status_code", "200")
        .raw("http.server.request.duration", "0.019");
    Record::new()
        .text("timeUnixNano", format!("{}000000", call.ms))
        .text("body", escapes::go(&call.caller.body))
        .raw("attributes", attributes.end())
        .end()
}

/// As the collector's exporters write: many around one, attributes as pairs.
fn otlp(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let mut pairs = Vec::new();
    let mut pair = |name: &str, value: Vec<u8>| {
        let pair = Record::new().text("key", escapes::go(name.as_bytes())).raw("value", value);
        pairs.push(pair.end());
    };
    let text = |value: &[u8]| Record::new().text("stringValue", escapes::go(value)).end();
    let array = |value: &[u8]| [br#"{"arrayValue":{"values":["#, &*text(value), b"]}}"].concat();
    pair("http.request.method", text(caller.method.as_bytes()));
    pair("url.path", text(&caller.path));
    pair("url.query", text(&caller.query()));
    pair("user_agent.original", text(&caller.agent));
    pair("client.address", text(b"192.0.2.7"));
    pair("http.response.status_code", br#"{"intValue":"200"}"#.to_vec());
    pair("http.server.request.duration", br#"{"doubleValue":0.019}"#.to_vec());
    for (name, value) in &caller.headers {
        pair(&format!("http.request.header.x-{}", name.to_ascii_lowercase()), array(value));
    }
    pair("http.request.header.apikey", array(&call.key));
    let record = Record::new()
        .text("timeUnixNano", format!("{}000000", call.ms))
        .raw("body", text(&caller.body))
        .raw("attributes", [b"[", &*pairs.join(&b','), b"]"].concat());
    let scope = Record::new().raw("scope", "{}").raw("logRecords", [b"[", &*record.end(), b"]"].concat());
    let resource = r#"{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}"#;
    let resource =
        Record::new().raw("resource", resource).raw("scopeLogs", [b"[", &*scope.end(), b"]"].concat());
    Record::new().raw("resourceLogs", [b"[", &*resource.end(), b"]"].concat()).end()
}

/// Common log format.
fn clf(ms: u64) -> Vec<u8> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
    time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string().into_bytes()
}

/// A text as it is shown, `-` for none.
fn shown(text: &[u8], escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    if text.is_empty() { b"-".to_vec() } else { escape(text) }
}

/// Path and query, the key first among the arguments and percent-encoded.
fn target_with_key(call: &Call<'_>) -> Vec<u8> {
    [&call.caller.path, &b"?apikey="[..], &encoded(&call.key), b"&", &call.caller.query()].concat()
}

/// What Apache's and NGINX's lines begin with.
fn common(call: &Call<'_>, target: &[u8], escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let caller = call.caller;
    [
        b"192.0.2.7 - ",
        &*shown(&caller.user, escape),
        b" [",
        &clf(call.ms),
        b"] \"",
        caller.method.as_bytes(),
        b" ",
        &*escape(target),
        b" HTTP/1.1\" 200 320 \"",
        &*shown(&caller.referer, escape),
        b"\" \"",
        &*shown(&caller.agent, escape),
        b"\"",
    ]
    .concat()
}

fn combined(call: &Call<'_>, escape: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    common(call, &target_with_key(call), escape)
}

fn nginx_line(call: &Call<'_>) -> Vec<u8> {
    let line = common(call, &call.caller.target(), escapes::nginx);
    let id = format!("{:032x}", call.number);
    [&*line, b" \"", &escapes::nginx(&call.key), b"\" 0.019 ", id.as_bytes()].concat()
}

fn apache_line(call: &Call<'_>) -> Vec<u8> {
    let line = common(call, &call.caller.target(), escapes::apache);
    [&*line, b" \"", &escapes::apache(&call.key), b"\" 19000"].concat()
}

/// Envoy escapes nothing in lines.
fn envoy_line(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    [
        b"[",
        rfc3339(call.ms).as_bytes(),
        b"] \"",
        caller.method.as_bytes(),
        b" ",
        &caller.target(),
        b" HTTP/1.1\" 200 - 210 320 19 \"",
        &*shown(&caller.forwarded, escapes::none),
        b"\" \"",
        &*shown(&caller.agent, escapes::none),
        b"\" \"",
        &*shown(&caller.id, escapes::none),
        b"\" \"",
        &call.key,
        b"\" \"192.0.2.7:4711\"",
    ]
    .concat()
}

fn aws_line(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    [
        b"192.0.2.7 - - [",
        &*clf(call.ms),
        b"] \"",
        caller.method.as_bytes(),
        b" ",
        &escapes::lossy(&caller.path),
        b" HTTP/1.1\" 200 320 11111111-2222-4333-8444-000000000001 \"",
        &*shown(&caller.agent, escapes::lossy),
        b"\" 19 ",
        &call.key,
    ]
    .concat()
}

/// `option httplog` with two captured headers.
fn haproxy(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let time = jiff::Timestamp::from_millisecond(i64::try_from(call.ms).unwrap()).unwrap();
    let time = time.strftime("%d/%b/%Y:%H:%M:%S%.3f").to_string();
    [
        b"192.0.2.7:4711 [",
        time.as_bytes(),
        b"] web api/s1 0/0/1/18/19 200 320 - - ---- 1/1/0/0/0 0/0 {",
        &escapes::haproxy_header(&call.key),
        b"|",
        &escapes::haproxy_header(&caller.agent),
        b"} \"",
        caller.method.as_bytes(),
        b" ",
        &escapes::haproxy(&caller.target()),
        b" HTTP/1.1\"",
    ]
    .concat()
}

/// Quotes and what isn't printable as NGINX writes them.
fn alb(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    [
        b"https ",
        rfc3339(call.ms).as_bytes(),
        b" app/web/50dc6c495c0c9188 192.0.2.7:2817 10.0.0.1:80 0.000 0.018 0.001 200 200 34 366 \"",
        caller.method.as_bytes(),
        b" https://api.example.com:443",
        &escapes::nginx(&target_with_key(call)),
        b" HTTP/1.1\" \"",
        &*shown(&caller.agent, escapes::nginx),
        b"\" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:x \"Root=1-58337262-36d228ad5d99923122bbe354\" \"-\" \"-\" 0 ",
        rfc3339(call.ms).as_bytes(),
        b" \"forward\" \"-\" \"-\" \"10.0.0.1:80\" \"200\" \"-\" \"-\"",
    ]
    .concat()
}

/// CloudFront's standard log: tabs between columns, everything else percent-encoded.
fn cloudfront(call: &Call<'_>) -> Vec<u8> {
    let caller = call.caller;
    let time = jiff::Timestamp::from_millisecond(i64::try_from(call.ms).unwrap()).unwrap();
    let time = time.strftime("%Y-%m-%d\t%H:%M:%S").to_string();
    let query = [b"apikey=", &*encoded(&call.key), b"&", &caller.query()].concat();
    let id = format!("{:032x}", call.number);
    [
        time.as_bytes(),
        b"\tFRA2-C1\t320\t192.0.2.7\t",
        caller.method.as_bytes(),
        b"\td111111abcdef8.cloudfront.net\t",
        &escapes::cloudfront(&caller.path),
        b"\t200\t",
        &*shown(&caller.referer, escapes::cloudfront),
        b"\t",
        &*shown(&caller.agent, escapes::cloudfront),
        b"\t",
        &escapes::cloudfront(&query),
        b"\t-\tHit\t",
        id.as_bytes(),
        b"\tapi.example.com\thttps\t210\t0.019\t",
        &*shown(&caller.forwarded, escapes::cloudfront),
        b"\tTLSv1.2\tECDHE\tHit\tHTTP/1.1\t-\t-\t11040\t0.019\tHit\ttext/html\t78\t-\t-",
    ]
    .concat()
}
