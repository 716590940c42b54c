//! How far forecasts of a month's calls are off after five days, beside linear pace.
//!
//! ```text
//! cargo bench --bench forecast -- --events 2000000 --keys 200 --seed 1
//! ```
//! The traffic is that of `keytide generate --scenario usual` from April to September 2025. Each subscription's calls are
//! counted by its own local days, and forecast five days into each of its billing periods that has 51 days before it: then
//! 56 days of history count. Periods begin on any day of a month, so on every weekday. Linear pace expects the calls so far
//! times the period's days over five.

#![allow(clippy::print_stdout, reason = "a benchmark's output")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use keytide_billing::{Anchor, Calendar, Outlook, PeriodKind};
use keytide_generator::{Scenario, World, WorldSettings};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The days of a period that are over.
const DAYS_OVER: u64 = 5;
/// The days of history before a period, at least.
const DAYS_BEFORE: i64 = 51;
const DAYS: u64 = 183;
/// The fewest calls of the periods of a row of the table.
const LEAST_CALLS: [u64; 3] = [100, 1_000, 10_000];

#[derive(Deserialize)]
struct TimedCall {
    #[serde(rename = "apiKey")]
    key: Option<String>,
    #[serde(rename = "requestTime")]
    time: u64,
}

/// The calls of one subscription by local day.
type Days = BTreeMap<i64, u64>;

/// The time zone and the anchor of a subscription.
struct Setting {
    calendar: Calendar,
    anchor: Anchor,
}

/// The errors of a period's forecast and of linear pace, as shares of its calls.
struct Errors {
    calls: u64,
    forecast: f64,
    pace: f64,
}

fn main() -> anyhow::Result<()> {
    let (mut events, mut keys, mut seed) = (2_000_000, 200, 1);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let number = arguments.next().with_context(|| format!("{name} needs a number"))?;
        match name.as_str() {
            "--events" => events = number.parse()?,
            "--keys" => keys = number.parse()?,
            "--seed" => seed = number.parse()?,
            _ => anyhow::bail!("{name} isn't known: --events, --keys and --seed are"),
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-forecast");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let world = World::new(WorldSettings {
        events: NonZeroU64::new(events).context("--events must be at least 1")?,
        keys,
        scenario: Scenario::Usual,
        // 2025-04-01T00:00:00Z.
        start_ms: 1_743_465_600_000,
        span_ms: DAYS * 86_400_000,
        seed,
        duplicates: 0.0,
        ..WorldSettings::DEFAULT
    })?;
    keytide_generator::create_folder(&folder, &world)?;
    let settings = settings(&folder)?;
    let totals = totals(&world, &folder, &settings)?;
    fs::remove_dir_all(&folder)?;

    let errors: Vec<Errors> = totals.iter().flat_map(|(id, days)| errors(&settings[id], days)).collect();
    println!(
        "{events} events, {keys} keys, seed {seed}: median error of a period's calls after {DAYS_OVER} days"
    );
    println!("{:>9} {:>8} {:>10} {:>12} {:>6}", "calls", "periods", "forecast", "linear pace", "ratio");
    for least in LEAST_CALLS {
        let of = || errors.iter().filter(|error| error.calls >= least);
        let (forecast, pace) =
            (median(of().map(|error| error.forecast)), median(of().map(|error| error.pace)));
        let count = of().count();
        println!(">={least:>7} {count:>8} {forecast:>8.2} % {pace:>10.2} % {:>6.2}", forecast / pace);
    }
    Ok(())
}

/// Returns the errors of a subscription's billing periods.
fn errors(Setting { calendar, anchor }: &Setting, days: &Days) -> Vec<Errors> {
    let mut errors = Vec::new();
    // The first and the last day of the run are no whole days of the zone.
    let Some((began, ended)) = days.keys().next().zip(days.keys().last()) else { return errors };
    let (began, ended) = (began + 1, ended - 1);
    let mut period = calendar.period(PeriodKind::Billing, *anchor, calendar.day_start_ms(began));
    loop {
        let (first, end) = (calendar.day(period.start_ms), calendar.day(period.end_ms));
        if end > ended {
            return errors;
        }
        if first - began >= DAYS_BEFORE {
            errors.extend(error(calendar, days, began, first..end));
        }
        period = calendar.period(PeriodKind::Billing, *anchor, period.end_ms);
    }
}

fn error(calendar: &Calendar, days: &Days, began: i64, period: Range<i64>) -> Option<Errors> {
    let today = period.start + DAYS_OVER.cast_signed();
    let sum = |days_of: Range<i64>| days.range(days_of).map(|(_, calls)| calls).sum::<u64>();
    let (used, calls) = (sum(period.start..today), sum(period.clone()));
    let history: Vec<u64> = (began..today).map(|day| days.get(&day).copied().unwrap_or(0)).collect();
    let (now_ms, end_ms) = (calendar.day_start_ms(today), calendar.day_start_ms(period.end));
    let outlook = Outlook { calendar, now_ms, end_ms, used, history: &history, limit: None };
    let expected = outlook.forecast()?.expected as f64;
    let pace = used as f64 / DAYS_OVER as f64 * (period.end - period.start) as f64;
    let off = |expected: f64| (expected - calls as f64).abs() / calls as f64;
    (calls > 0).then(|| Errors { calls, forecast: off(expected), pace: off(pace) })
}

/// Returns the median in percent.
fn median(errors: impl Iterator<Item = f64>) -> f64 {
    let mut errors: Vec<f64> = errors.collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).map_or(f64::NAN, |error| error * 100.0)
}

/// Returns the settings of subscriptions by their ids.
fn settings(folder: &Path) -> anyhow::Result<HashMap<String, Setting>> {
    let mut settings = HashMap::new();
    for row in csv::Reader::from_path(folder.join("tables/subscriptions.csv"))?.records() {
        let row = row?;
        let setting =
            Setting { calendar: Calendar::of_zone(&row[4])?, anchor: row[5].parse::<u8>()?.try_into()? };
        settings.insert(row[0].to_owned(), setting);
    }
    Ok(settings)
}

/// Counts the calls of subscriptions by local day.
fn totals(
    world: &World,
    folder: &Path,
    settings: &HashMap<String, Setting>,
) -> anyhow::Result<BTreeMap<String, Days>> {
    // Each key's subscriptions, with the times from which they hold.
    let mut owners: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    for row in csv::Reader::from_path(folder.join("tables/keys.csv"))?.records() {
        let row = row?;
        let from = if row[7].is_empty() { 0 } else { row[7].parse::<Timestamp>()?.as_millisecond() };
        owners.entry(row[0].to_owned()).or_default().push((u64::try_from(from)?, row[1].to_owned()));
    }
    let mut by_key: HashMap<String, Vec<(u64, String)>> = HashMap::new();
    let mut totals: BTreeMap<String, Days> = BTreeMap::new();
    let mut lines = world.generator();
    while let Some(line) = lines.next_line() {
        let TimedCall { key: Some(key), time } = serde_json::from_slice(line.text())? else { continue };
        let of_key = by_key.entry(key).or_insert_with_key(|key| {
            let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
            owners.remove(&hash).unwrap_or_default()
        });
        let Some((_, owner)) = of_key.iter().rfind(|(from, _)| *from <= time) else { continue };
        let day = settings[owner].calendar.day(time);
        match totals.get_mut(owner) {
            Some(days) => *days.entry(day).or_default() += 1,
            None => drop(totals.insert(owner.clone(), Days::from([(day, 1)]))),
        }
    }
    Ok(totals)
}
