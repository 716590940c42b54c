//! The folder that is written: events, tables, geo databases, labels, a configuration for `keytide replay`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use mmdb_writer::{Value, Writer};

use super::population::{COUNTRIES, KeyState, Network, PLANS, Population};
use super::schedule::{span_ms, start_ms};
use super::stage::Label;
use super::{Args, Format, Generated};

const BUFFER_BYTES: usize = 256 << 10;

enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

/// The files of events, open, and the folder around them.
pub(super) struct Files<'a> {
    out: &'a Path,
    events: Vec<Output>,
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl<'a> Files<'a> {
    /// Writes everything but the events.
    pub(super) fn create(args: &'a Args, population: &Population) -> anyhow::Result<Self> {
        let out = args.out.as_path();
        // A folder that can't be listed can't be written to either: making the others says why.
        if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} isn't empty: name another folder, or empty it", out.display());
        }
        for folder in [out.join("tables"), out.join("geo")] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("can't make the folder {}", folder.display()))?;
        }
        write(out, "tables/keys.csv", keys(args, population)?)?;
        write(out, "tables/subscriptions.csv", subscriptions(population)?)?;
        write(out, "tables/plans.csv", plans())?;
        let country = |network: &Network| {
            let code = COUNTRIES[network.country as usize].0;
            Value::map([("country", Value::map([("iso_code", Value::from(code))]))])
        };
        write(out, "geo/country.mmdb", geo(args, population, "Keytide-Country", country)?)?;
        let asn = |network: &Network| Value::map([("autonomous_system_number", Value::from(network.asn))]);
        write(out, "geo/asn.mmdb", geo(args, population, "Keytide-ASN", asn)?)?;
        write(out, "keytide.toml", configuration(args))?;

        let events = (0..args.partitions).map(|partition| open(args, partition)).collect::<Result<_, _>>()?;
        Ok(Self { out, events, lines: 0, bytes: 0 })
    }

    /// Adds a line to the file of a partition.
    pub(super) fn write(&mut self, partition: usize, line: &[u8]) -> anyhow::Result<()> {
        self.lines += 1;
        self.bytes += line.len() as u64;
        match &mut self.events[partition] {
            Output::Plain(file) => file.write_all(line),
            Output::Gzip(file) => file.write_all(line),
        }
        .with_context(|| format!("can't write events to {}", self.out.display()))
    }

    /// Closes the files and says what is in them.
    pub(super) fn finish(self, generated: &Generated, labels: Option<&[Label]>) -> anyhow::Result<()> {
        for output in self.events {
            match output {
                Output::Plain(mut file) => file.flush(),
                Output::Gzip(file) => file.finish().and_then(|mut file| file.flush()),
            }
            .with_context(|| format!("can't write events to {}", self.out.display()))?;
        }
        if let Some(labels) = labels {
            let mut lines = Vec::new();
            for label in labels {
                serde_json::to_writer(&mut lines, label)?;
                lines.push(b'\n');
            }
            write(self.out, "labels.jsonl", lines)?;
        }
        write(self.out, "generated.json", serde_json::to_string_pretty(generated)? + "\n")
    }
}

fn open(args: &Args, partition: u32) -> anyhow::Result<Output> {
    let number = if args.partitions == 1 { String::new() } else { format!("-{partition:04}") };
    let path = args.out.join(format!("events{number}{}", extension(args)));
    let file = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
    Ok(if args.gzip {
        Output::Gzip(GzEncoder::new(file, Compression::default()))
    } else {
        Output::Plain(file)
    })
}

fn extension(args: &Args) -> String {
    let format = if args.format == Format::Combined { ".log" } else { ".jsonl" };
    format!("{format}{}", if args.gzip { ".gz" } else { "" })
}

fn write(out: &Path, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let path = out.join(name);
    fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))
}

fn keys(args: &Args, population: &Population) -> anyhow::Result<String> {
    let mut csv =
        "key_hash,subscription,state,kind,created_at,revoked_at,last_used_at,valid_from,allow_list,contact\n"
            .to_owned();
    let middle = start_ms(args) + span_ms(args) / 2;
    for key in population.keys.iter().filter(|key| key.listed) {
        let hash = hex(&key.hash());
        let state = match key.state {
            KeyState::Active => "active",
            KeyState::Suspended => "suspended",
            KeyState::Revoked => "revoked",
        };
        let kind = if key.publishable { "publishable" } else { "secret" };
        let revoked_at = if key.state == KeyState::Revoked { time(key.revoked_at)? } else { String::new() };
        let home = COUNTRIES[population.subscriptions[key.subscription as usize].country as usize].0;
        let allowed = if key.confined { home } else { "" };
        let moved = key.moves_to.map(|to| time(middle).map(|from| (to, from))).transpose()?;
        let assignments = [Some((key.subscription, String::new())), moved];
        for (subscription, valid_from) in assignments.into_iter().flatten() {
            writeln!(
                csv,
                "{hash},{},{state},{kind},{},{revoked_at},{},{valid_from},{allowed},ops@{}",
                subscription_id(subscription),
                time(key.created_at)?,
                time(key.last_used_at)?,
                domain(&population.subscriptions[subscription as usize].customer),
            )?;
        }
    }
    Ok(csv)
}

fn subscriptions(population: &Population) -> anyhow::Result<String> {
    let mut csv = "id,customer,plan,contacts,time_zone,billing_anchor,started_at\n".to_owned();
    for (index, subscription) in (0..).zip(&population.subscriptions) {
        let domain = domain(&subscription.customer);
        writeln!(
            csv,
            "{},{},{},ops@{domain};billing@{domain},{},{},{}",
            subscription_id(index),
            subscription.customer,
            PLANS[subscription.plan].0,
            COUNTRIES[subscription.country as usize].1,
            subscription.billing_anchor,
            time(subscription.started_at)?,
        )?;
    }
    Ok(csv)
}

fn plans() -> String {
    let mut csv = "id,name,policy\n".to_owned();
    for (id, name, policy) in PLANS {
        csv.extend([id, ",", name, ",", policy, "\n"]);
    }
    csv
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn subscription_id(index: u32) -> String {
    format!("sub-{:05}", index + 1)
}

/// A domain that nobody has (RFC 2606).
fn domain(customer: &str) -> String {
    customer.to_lowercase().replace(' ', "-") + ".example"
}

/// To the second: a fraction of one says nothing here.
fn time(ms: u64) -> anyhow::Result<String> {
    Ok(Timestamp::from_second((ms / 1_000).cast_signed())?.to_string())
}

fn geo(
    args: &Args,
    population: &Population,
    kind: &str,
    record: impl Fn(&Network) -> Value,
) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::builder(kind)
        .description(&[("en", "generated, over addresses that nobody has")])
        .build_epoch(UNIX_EPOCH + Duration::from_millis(start_ms(args)))
        .build();
    for network in &population.networks {
        for prefix in network.prefixes() {
            writer.insert_value(prefix, record(network))?;
        }
    }
    Ok(writer.to_bytes()?)
}

/// A configuration for `keytide replay`.
fn configuration(args: &Args) -> String {
    let (format, key, fields) = match args.format {
        Format::Json => ("json", "key", FIELDS),
        Format::Apisix => ("apisix", "header:apikey", ""),
        Format::Kong => ("kong", "header:apikey", ""),
        Format::Combined => ("combined", "query:apikey", ""),
    };
    format!(
        r#"# Made by `keytide generate --seed {}`. Try: keytide replay keytide.toml --out views

[job]
name = "generated"

[keys]
from = ["{key}"]
hash = "sha256"

[[source]]
name = "gateway"
kind = "file"
path = "events*{}"
format = "{format}"
{fields}
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
"#,
        args.seed,
        extension(args),
    )
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
country = "/country"
user_agent = "/userAgent"
"#;
