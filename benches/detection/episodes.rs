//! Alerts against labels: recall, precision, time to detect, false alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use keytide_dataflow::detect::Level;
use keytide_dataflow::model::KeyId;
use serde::Deserialize;

use super::references::{NAMES, References};
use super::{DAY_MS, HOUR_MS};

/// An incident that opened, or rose to a level.
pub(crate) struct Alert {
    pub(crate) key: KeyId,
    pub(crate) at_ms: u64,
    pub(crate) level: Level,
}

#[derive(Deserialize)]
struct Label {
    key_id: Option<String>,
    kind: String,
    leak: bool,
    from: String,
    to: String,
    multiple: Option<f64>,
    countries: Option<Vec<String>>,
    asns: Option<Vec<u32>>,
}

/// A file of the generator's, or of labels.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(64 << 20).read_to_string(&mut text)?;
    Ok(text)
}

fn millis(time: &str) -> anyhow::Result<u64> {
    Ok(u64::try_from(time.parse::<Timestamp>()?.as_millisecond())?)
}

/// One kind of episode.
#[derive(Default)]
struct Kind {
    episodes: usize,
    found: usize,
    would_revoke: usize,
    minutes: Vec<u64>,
    references: [Vec<f64>; 2],
}

/// What was found, and what was alerted without reason.
#[derive(Default)]
pub(crate) struct Episodes {
    /// By whether they are leaks (false: leak) and name.
    kinds: BTreeMap<(bool, String), Kind>,
    /// Leaks of at least three times the usual calls, or from new origins: found, all.
    plain: [usize; 2],
    false_alerts: usize,
    of_look_alikes: usize,
    alerts: usize,
    false_revocations: usize,
    key_days: f64,
    /// The references' highest scores by key and day without a leak.
    innocent: [Vec<f64>; 2],
}

impl Episodes {
    /// Judges a folder's alerts by its labels.
    pub(crate) fn read(
        folder: &Path,
        alerts: Vec<Alert>,
        references: &References,
        (first_ms, last_ms): (u64, u64),
        keys: usize,
    ) -> anyhow::Result<Self> {
        let labels = text(&folder.join("labels.jsonl")).context("the folder has no labels.jsonl")?;
        let labels: Vec<Label> = labels.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        // Nothing is staged in the first two fifths.
        let from_ms = first_ms + (last_ms - first_ms) * 2 / 5;
        let mut all =
            Self { key_days: keys as f64 * (last_ms - from_ms) as f64 / DAY_MS as f64, ..Self::default() };
        let (mut leaked, mut explained, mut alike) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut leak_hours = BTreeSet::new();
        for label in &labels {
            let kind = all.kinds.entry((!label.leak, label.kind.clone())).or_default();
            kind.episodes += 1;
            let Some(key) =
                label.key_id.as_deref().and_then(|id| u128::from_str_radix(id, 16).ok()).map(KeyId)
            else {
                continue;
            };
            let (from, to) = (millis(&label.from)?, millis(&label.to)? + HOUR_MS);
            let of_label: Vec<(usize, &Alert)> = (alerts.iter().enumerate())
                .filter(|(_, alert)| alert.key == key && (from..=to).contains(&alert.at_ms))
                .collect();
            if label.leak {
                leaked.insert(key);
                explained.extend(of_label.iter().map(|(at, _)| *at));
                leak_hours.extend((from / HOUR_MS..=to / HOUR_MS).map(|hour| (key, hour)));
                let plain = label.multiple.is_none_or(|multiple| multiple >= 3.0)
                    || label.countries.is_some()
                    || label.asns.is_some();
                if plain && label.kind != "slow_drip" {
                    all.plain[1] += 1;
                    all.plain[0] += usize::from(!of_label.is_empty());
                }
            } else {
                alike.extend(of_label.iter().map(|(at, _)| *at));
            }
            if let Some((_, first)) = of_label.first() {
                kind.found += 1;
                kind.minutes.push((first.at_ms - from) / 60_000);
            }
            kind.would_revoke += usize::from(of_label.iter().any(|(_, alert)| alert.level == Level::Revoke));
            for (reference, scores) in kind.references.iter_mut().enumerate() {
                let hours = from / HOUR_MS..=to / HOUR_MS;
                let of_hour =
                    |hour| references.scores.get(&(key, hour)).map_or(0.0, |scores| scores[reference]);
                scores.push(hours.map(of_hour).fold(0.0, f64::max));
            }
        }
        for (at, alert) in alerts.iter().enumerate().filter(|(_, alert)| alert.at_ms >= from_ms) {
            all.alerts += 1;
            if explained.contains(&at) {
                continue;
            }
            all.false_alerts += 1;
            all.of_look_alikes += usize::from(alike.contains(&at));
            all.false_revocations +=
                usize::from(alert.level == Level::Revoke && !leaked.contains(&alert.key));
        }
        let mut days: BTreeMap<(KeyId, u64), [f64; 2]> = BTreeMap::new();
        for ((key, hour), scores) in &references.scores {
            if hour * HOUR_MS >= from_ms && !leak_hours.contains(&(*key, *hour)) {
                let most = days.entry((*key, hour / 24)).or_default();
                (0..2).for_each(|at| most[at] = most[at].max(scores[at]));
            }
        }
        for (at, scores) in all.innocent.iter_mut().enumerate() {
            scores.extend(days.values().map(|most| most[at]));
        }
        Ok(all)
    }

    /// Adds another folder's.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, kind) in other.kinds {
            let into = self.kinds.entry(name).or_default();
            into.episodes += kind.episodes;
            into.found += kind.found;
            into.would_revoke += kind.would_revoke;
            into.minutes.extend(kind.minutes);
            for (into, scores) in into.references.iter_mut().zip(kind.references) {
                into.extend(scores);
            }
        }
        for (into, count) in self.plain.iter_mut().zip(other.plain) {
            *into += count;
        }
        self.false_alerts += other.false_alerts;
        self.of_look_alikes += other.of_look_alikes;
        self.alerts += other.alerts;
        self.false_revocations += other.false_revocations;
        self.key_days += other.key_days;
        for (into, scores) in self.innocent.iter_mut().zip(other.innocent) {
            into.extend(scores);
        }
    }

    /// Prints the tables.
    pub(crate) fn report(mut self) {
        // The score that so many innocent key-days reach.
        let thresholds = self.innocent.each_mut().map(|scores| {
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.get(self.false_alerts).copied().unwrap_or(f64::INFINITY)
        });
        println!(
            "\n| episode | number | found | would revoke | minutes to the alert, median | {} | {} |",
            NAMES[0], NAMES[1]
        );
        println!("|---|---|---|---|---|---|---|");
        let mut sums = [0; 5];
        for ((look_alike, name), kind) in &mut self.kinds {
            kind.minutes.sort_unstable();
            let median = kind.minutes.get(kind.minutes.len() / 2).map_or("-".to_owned(), u64::to_string);
            let by_reference: Vec<usize> = (0..2)
                .map(|at| kind.references[at].iter().filter(|score| **score > thresholds[at]).count())
                .collect();
            let what = if *look_alike { "look-alike" } else { "leak" };
            println!(
                "| {what} `{name}` | {} | {} | {} | {median} | {} | {} |",
                kind.episodes, kind.found, kind.would_revoke, by_reference[0], by_reference[1]
            );
            if !*look_alike {
                let of_kind =
                    [kind.episodes, kind.found, kind.would_revoke, by_reference[0], by_reference[1]];
                sums.iter_mut().zip(of_kind).for_each(|(sum, of_kind)| *sum += of_kind);
            }
        }
        println!("| all leaks | {} | {} | {} | | {} | {} |", sums[0], sums[1], sums[2], sums[3], sums[4]);
        println!(
            "\nleaks of 3 times the usual calls or from new origins, but slow drips: {} of {}\n\
             false alerts: {}, {} of them of look-alikes; {:.3} per 1,000 key-days of {:.0}; precision {:.3}\n\
             would-be revocations of innocent keys: {}\n\
             the references' thresholds, for as many false alerts: {:.1} deviations, {:.0} calls a minute",
            self.plain[0],
            self.plain[1],
            self.false_alerts,
            self.of_look_alikes,
            self.false_alerts as f64 / self.key_days * 1_000.0,
            self.key_days,
            1.0 - self.false_alerts as f64 / (self.alerts as f64).max(1.0),
            self.false_revocations,
            thresholds[0],
            thresholds[1],
        );
    }
}
