//! A web server's own log with leaks put into it: real traffic, and what isn't in it known to the call.
//!
//! Each client address is a key (the log's user), as nothing else in such a log tells callers apart. Keys with at least
//! [`LEAST`] calls before the third day are stolen, one after the other, from then on: half of them by a burst of 30 calls
//! a minute for ten minutes, half by one call a minute for two hours, from an address of the range for benchmarks, with
//! an agent of its own, over routes of the log. There is no geo database, so neither countries nor systems tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::fmt::strtime;
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};

use super::judge::Alert;
use super::{HOUR_MS, backtest};

const LEAST: usize = 40;
const TIME: &str = "%d/%b/%Y:%H:%M:%S %z";

struct Leak {
    key: String,
    kind: &'static str,
    from_ms: u64,
    to_ms: u64,
}

/// Prints what was found.
pub(crate) fn report(path: &Path) -> anyhow::Result<()> {
    let text = super::episodes::text(path)?;
    let mut lines: Vec<(u64, String)> = Vec::new();
    let mut by_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut routes = Vec::new();
    for line in text.lines() {
        let Some((address, rest)) = line.split_once(" - - ") else { continue };
        let Some(time) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { continue };
        let Ok(time) = strtime::parse(TIME, time.0).and_then(|time| time.to_timestamp()) else { continue };
        let time_ms = u64::try_from(time.as_millisecond())?;
        by_key.entry(address).or_default().push(time_ms);
        routes.extend(rest.split('"').nth(1));
        lines.push((time_ms, format!("{address} - {address} {rest}")));
    }
    let first_ms = lines.iter().map(|line| line.0).min().context("no line has a time")?;
    let last_ms = lines.iter().map(|line| line.0).max().unwrap_or(first_ms);
    let staged_ms = first_ms + 2 * DAY_MS;
    let keys =
        by_key.iter().filter(|(_, calls)| calls.iter().filter(|call| **call < staged_ms).count() >= LEAST);
    let mut leaks = Vec::new();
    for (number, (key, _)) in (0_u64..).zip(keys) {
        let (kind, minutes, calls) =
            if number.is_multiple_of(2) { ("burst", 10, 30) } else { ("slow", 120, 1) };
        let room_ms = (last_ms - staged_ms).saturating_sub(3 * HOUR_MS).max(1);
        let from_ms = staged_ms + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % room_ms;
        for call in 0..minutes * calls {
            let time_ms = from_ms + call * MINUTE_MS / calls;
            let time = strtime::format(
                TIME,
                &Timestamp::from_millisecond(time_ms.cast_signed())?.to_zoned(jiff::tz::TimeZone::UTC),
            )?;
            let route = routes[(number * 97 + call * 31) as usize % routes.len()];
            let line = format!(
                "198.18.{}.7 - {key} [{time}] \"{route}\" 200 1000 \"-\" \"collector/1.0\"",
                number % 250
            );
            lines.push((time_ms, line));
        }
        leaks.push(Leak { key: (*key).to_owned(), kind, from_ms, to_ms: from_ms + minutes * MINUTE_MS });
    }
    lines.sort_by_key(|line| line.0);

    let folder = tempfile::tempdir()?;
    let mut log = BufWriter::new(File::create(folder.path().join("access.log"))?);
    lines.iter().try_for_each(|(_, line)| writeln!(log, "{line}"))?;
    log.into_inner()?.sync_all()?;
    let config = folder.path().join("keytide.toml");
    std::fs::write(
        &config,
        "[keys]\nfrom = [\"user\"]\nhash = \"none\"\n\n[[source]]\nname = \"log\"\nkind = \"file\"\npath = \"access.log\"\nformat = \"combined\"\n",
    )?;
    let alerts = backtest(&config)?;
    let hit = |leak: &Leak, alert: &&Alert| {
        alert.key == leak.key && (leak.from_ms..=leak.to_ms + HOUR_MS).contains(&alert.at_ms)
    };
    println!("| leak | number | found | minutes to the alert, median |\n|---|---|---|---|");
    for kind in ["burst", "slow"] {
        let of_kind = leaks.iter().filter(|leak| leak.kind == kind);
        let number = of_kind.clone().count();
        let minutes: Vec<u64> = of_kind
            .filter_map(|leak| {
                alerts
                    .iter()
                    .find(|alert| hit(leak, alert))
                    .map(|alert| (alert.at_ms - leak.from_ms) / MINUTE_MS)
            })
            .collect();
        let median = super::judge::median(&minutes).map_or("-".to_owned(), |minutes| minutes.to_string());
        println!("| {kind} | {number} | {} | {median} |", minutes.len());
    }
    let innocent = alerts.iter().filter(|alert| !leaks.iter().any(|leak| hit(leak, alert)));
    let days = (last_ms - first_ms) as f64 / DAY_MS as f64;
    println!(
        "\n{} calls of {} keys in {days:.1} days; alerts without a leak: {}",
        lines.len(),
        by_key.len(),
        innocent.count()
    );
    Ok(())
}
