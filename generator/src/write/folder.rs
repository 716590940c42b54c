//! Writes the folder around the events: tables, geo databases, labels, counts, a configuration.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use keytide_dataflow::model::KeyState;
use mmdb_writer::{Value, Writer};

use super::accounts;
use super::lines::Generator;
use crate::story::World;
use crate::world::network::{Network, WorldNetworks};
use crate::world::population::{COUNTRIES, PLANS, Population, subscription_id};
use crate::world::settings::WorldSettings;

/// Creates a folder, which must be empty if it exists, and writes the tables and geo databases of a job into it.
///
/// # Errors
/// If the folder isn't empty or can't be written to.
pub fn create(out: &Path, world: &World) -> anyhow::Result<()> {
    // A folder that can't be listed can't be written to either; creating the subfolders reports why.
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} isn't empty: name another folder, or empty it", out.display());
    }
    for folder in [out.join("tables"), out.join("geo")] {
        fs::create_dir_all(&folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    }
    let World { settings, population, .. } = world;
    write(out, "tables/keys.csv", keys(settings, population)?)?;
    write(out, "tables/subscriptions.csv", subscriptions(population)?)?;
    write(out, "tables/plans.csv", accounts::plans())?;
    write(out, "tables/prices.csv", accounts::prices())?;
    write(out, "tables/quotas.csv", accounts::quotas(world)?)?;
    let country = |country: u32| {
        let code = COUNTRIES[country as usize].0;
        Value::map([("country", Value::map([("iso_code", Value::from(code))]))])
    };
    let networks = &population.networks;
    let true_countries = prefixes(networks, |network| country(network.country));
    // Later entries win.
    let misplaced = networks.misplaced().map(|(prefix, placed)| (prefix, country(placed)));
    write(out, "geo/country.mmdb", geo(settings, "Keytide-Country", true_countries.chain(misplaced))?)?;
    let asn = |network: &Network| Value::map([("autonomous_system_number", Value::from(network.asn))]);
    write(out, "geo/asn.mmdb", geo(settings, "Keytide-ASN", prefixes(networks, asn))?)
}

/// Writes the counts of the lines so far, and the labels of their episodes.
///
/// # Errors
/// If the folder can't be written to.
pub(crate) fn finish(out: &Path, generator: &Generator<'_>) -> anyhow::Result<()> {
    if let Some(labels) = generator.labels()? {
        let mut lines = Vec::new();
        for label in &labels {
            serde_json::to_writer(&mut lines, label)?;
            lines.push(b'\n');
        }
        write(out, "labels.jsonl", lines)?;
    }
    write(out, "generated.json", serde_json::to_string_pretty(&generator.generated())? + "\n")
}

/// Writes a file of the folder.
pub(crate) fn write(out: &Path, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let path = out.join(name);
    fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))
}

fn keys(settings: &WorldSettings, population: &Population) -> anyhow::Result<String> {
    let mut csv =
        "key_hash,subscription,state,kind,created_at,revoked_at,last_used_at,valid_from,allow_list,contact\n"
            .to_owned();
    let middle = settings.start_ms + settings.span_ms / 2;
    for key in population.keys.iter().filter(|key| key.listed) {
        let hash = key.hash();
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

/// Returns a domain for a customer, under a reserved top-level domain (RFC 2606).
fn domain(customer: &str) -> String {
    customer.to_lowercase().replace(' ', "-") + ".example"
}

/// Formats a time in whole seconds, which is precise enough for tables.
fn time(ms: u64) -> anyhow::Result<String> {
    Ok(Timestamp::from_second((ms / 1_000).cast_signed())?.to_string())
}

/// Returns the prefixes of all networks, each with its record.
fn prefixes(
    networks: &WorldNetworks,
    record: impl Fn(&Network) -> Value,
) -> impl Iterator<Item = (IpNet, Value)> {
    let of = move |network: &Network| network.prefixes().map(|prefix| (prefix, record(network)));
    networks.all().iter().flat_map(of)
}

fn geo(
    settings: &WorldSettings,
    kind: &str,
    records: impl Iterator<Item = (IpNet, Value)>,
) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::builder(kind)
        .description(&[("en", "generated, over addresses that nobody has")])
        .build_epoch(UNIX_EPOCH + Duration::from_millis(settings.start_ms))
        .build();
    for (prefix, record) in records {
        writer.insert_value(prefix, record)?;
    }
    Ok(writer.to_bytes()?)
}
