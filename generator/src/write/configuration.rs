//! The configuration of a job that reads a generated log and what belongs to it.

use std::fmt;

use crate::world::settings::{GatewayFormat, WorldSettings};

/// A configuration, whose text its `Display` writes.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// The comment at its top, a line or several.
    pub comment: &'a str,
    /// The lines of `[job]`.
    pub job: &'a str,
    /// The format of the log.
    pub format: GatewayFormat,
    /// The lines of `[[source]]` that say where the log is.
    pub source: &'a str,
    /// Whether the country in a record counts. If not, its address is looked up.
    pub country: bool,
    /// The tables of the source.
    pub beneath: &'a str,
    pub rest: &'a str,
}

impl Configuration<'_> {
    /// The comment of a generated folder, with the command to try next.
    pub(crate) fn comment(settings: &WorldSettings, next: &str) -> String {
        format!("# Made by `keytide generate --seed {}`. Try: {next}\n", settings.seed)
    }
}

impl fmt::Display for Configuration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { comment, job, source, beneath, rest, .. } = self;
        let (format, key, fields) = match self.format {
            GatewayFormat::Json => ("json", "key", FIELDS),
            GatewayFormat::Apisix => ("apisix", "header:apikey", ""),
            GatewayFormat::Kong => ("kong", "header:apikey", ""),
            GatewayFormat::Combined => ("combined", "query:apikey", ""),
        };
        let fields = if self.country { fields.to_owned() } else { fields.replace(COUNTRY, "") };
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

/// `[source.fields]` of generated JSON.
const FIELDS: &str = concat!("\n", include_str!("fields.toml"));
/// The line of it for calls whose log has the country.
const COUNTRY: &str = "country = \"/country\"\n";
