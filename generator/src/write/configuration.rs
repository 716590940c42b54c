//! Writes the configuration of a job that reads a generated log, with its tables and geo databases.

use std::fmt;

use crate::world::settings::{GatewayFormat, WorldSettings};

/// The variable parts of a configuration, whose text `Display` writes.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// The comment at the top, with `#` on each line.
    pub comment: &'a str,
    pub job: &'a str,
    pub format: GatewayFormat,
    /// The lines of `[[source]]` that name the place of the log.
    pub source: &'a str,
    /// True if the job takes the country from records. Otherwise it looks up their addresses.
    pub country: bool,
    /// The subtables of `[[source]]`.
    pub beneath: &'a str,
    pub rest: &'a str,
}

impl Configuration<'_> {
    /// Returns the comment of a generated folder, with the command to try next.
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

[tables.prices]
kind = "file"
path = "tables/prices.csv"
format = "csv"

[tables.quotas]
kind = "file"
path = "tables/quotas.csv"
format = "csv"

[geo]
country = "geo/country.mmdb"
asn = "geo/asn.mmdb"
{rest}"#
        )
    }
}

/// The table `[source.fields]` for generated JSON.
const FIELDS: &str = concat!("\n", include_str!("fields.toml"));
/// The line of [`FIELDS`] that takes the country from records.
const COUNTRY: &str = "country = \"/country\"\n";
