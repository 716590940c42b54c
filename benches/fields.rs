//! Where calls that are made for a measurement have their fields.

/// `[source.fields]` of such calls.
pub(crate) const FIELDS: &str = r#"
[source.fields]
request_id = "/requestId"
time = { at = "/requestTime", unit = "ms" }
key = "/apiKey"
route = "/routeKey"
method = "/httpMethod"
status = "/status"
latency = { at = "/latencyMs", unit = "ms" }
bytes_in = "/requestLength"
bytes_out = "/responseLength"
client_ip = "/ip"
country = "/country"
user_agent = "/userAgent"
"#;
