//! The configuration of a job that reads a generated log and what belongs to it.

use std::fmt;

use crate::world::settings::{Format, Settings};

/// A configuration, whose text its `Display` writes.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// The comment at its top, a line or several.
    pub comment: &'a str,
    /// The lines of `[job]`.
    pub job: &'a str,
    /// The format of the log.
    pub format: Format,
    /// The lines of `[[source]]` that say where the log is.
    pub source: &'a str,
    /// Whether the country in a record counts. If not, its address is looked up.
    pub country: bool,
    /// The tables of the source.
    pub beneath: &'a str,
    /// The sections that follow.
    pub rest: &'a str,
}

impl Configuration<'_> {
    /// The comment of a generated folder, with the command to try next.
    pub(crate) fn comment(settings: &Settings, next: &str) -> String {
        format!("# Made by `keytide generate --seed {}`. Try: {next}\n", settings.seed)
    }
}

impl fmt::Display for Configuration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { comment, job, source, beneath, rest, .. } = self;
        let country = if self.country { "country = \"/country\"\n" } else { "" };
        let (format, key, fields) = match self.format {
            Format::Json => ("json", "key", [FIELDS, country, AGENT]),
            Format::Apisix => ("apisix", "header:apikey", [""; 3]),
            Format::Kong => ("kong", "header:apikey", [""; 3]),
            Format::Combined => ("combined", "query:apikey", [""; 3]),
        };
        let fields = fields.concat();
        write!(
            f,
            r#"{comment}
[job]
{job}
[keys]
from = ["{key}"]
hash = "sha256"

[[source]]
name = "gateway"
{source}format = "{format}"
{fields}{beneath}
[tables.keys]
kind = "file"
path = "tables/keys.csv"
format = "csv"

[tables.subscriptions]
kind = "file"
path = "tables/subscriptions.csv"
format = "csv"

[tables.plans]
kind = "file"
path = "tables/plans.csv"
format = "csv"

[geo]
country = "geo/country.mmdb"
asn = "geo/asn.mmdb"
{rest}"#
        )
    }
}

const FIELDS: &str = r#"
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
"#;
const AGENT: &str = "user_agent = \"/userAgent\"\n";
