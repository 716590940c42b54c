//! Alerts against labels, beside what the references make of the same minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::HOUR_MS;
use super::judge::{Alert, EpisodeLabel, Evaluation, counted_from, median};
use super::references::{NAMES, References};

/// A file of labels of series.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(64 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// What was found, by the detector and by the references.
#[derive(Default)]
pub(crate) struct Episodes {
    evaluation: Evaluation,
    /// The references' highest scores in the episodes, by kind.
    by_kind: BTreeMap<(bool, String), [Vec<f64>; 2]>,
    /// The references' highest scores by key and day without a leak.
    innocent: [Vec<f64>; 2],
}

impl Episodes {
    /// Judges a folder's alerts by its labels.
    pub(crate) fn read(
        folder: &Path,
        alerts: &[Alert],
        references: &References,
        run: (u64, u64),
        keys: usize,
    ) -> anyhow::Result<Self> {
        let labels = EpisodeLabel::read(&folder.join("labels.jsonl"))?;
        let evaluation = Evaluation::new(&labels, alerts, run, keys);
        let mut by_kind: BTreeMap<(bool, String), [Vec<f64>; 2]> = BTreeMap::new();
        let mut leak_hours = BTreeSet::new();
        for episode in &evaluation.episodes {
            let hours = episode.from_ms / HOUR_MS..=episode.to_ms / HOUR_MS;
            let Ok(key) = u128::from_str_radix(&episode.key, 16).map(keytide_dataflow::model::KeyId) else {
                continue;
            };
            if !episode.kind.0 {
                leak_hours.extend(hours.clone().map(|hour| (key, hour)));
            }
            let of_kind = by_kind.entry(episode.kind.clone()).or_default();
            for (reference, scores) in of_kind.iter_mut().enumerate() {
                let of_hour =
                    |hour| references.scores.get(&(key, hour)).map_or(0.0, |scores| scores[reference]);
                scores.push(hours.clone().map(of_hour).fold(0.0, f64::max));
            }
        }
        let mut days: BTreeMap<_, [f64; 2]> = BTreeMap::new();
        for ((key, hour), scores) in &references.scores {
            if hour * HOUR_MS >= counted_from(run) && !leak_hours.contains(&(*key, *hour)) {
                let most = days.entry((*key, hour / 24)).or_default();
                (0..2).for_each(|at| most[at] = most[at].max(scores[at]));
            }
        }
        let innocent = [0, 1].map(|at| days.values().map(|most| most[at]).collect());
        Ok(Self { evaluation, by_kind, innocent })
    }

    /// Adds another folder's.
    pub(crate) fn merge(&mut self, other: Self) {
        self.evaluation.merge(other.evaluation);
        for (name, scores) in other.by_kind {
            let into = self.by_kind.entry(name).or_default();
            into.iter_mut().zip(scores).for_each(|(into, scores)| into.extend(scores));
        }
        self.innocent.iter_mut().zip(other.innocent).for_each(|(into, scores)| into.extend(scores));
    }

    /// Prints the tables.
    pub(crate) fn report(mut self) {
        // The score that so many innocent key-days reach.
        let thresholds = self.innocent.each_mut().map(|scores| {
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.get(self.evaluation.false_alerts).copied().unwrap_or(f64::INFINITY)
        });
        println!(
            "\n| episode | number | found | would revoke | minutes to the alert, median | {} | {} |",
            NAMES[0], NAMES[1]
        );
        println!("|---|---|---|---|---|---|---|");
        let mut sums = [0; 5];
        for (name, kind) in &self.evaluation.kinds {
            let minutes = median(&kind.minutes).map_or("-".to_owned(), |minutes| minutes.to_string());
            let above = |at: usize| {
                let scores = self.by_kind.get(name).map_or(&[][..], |scores| &scores[at]);
                scores.iter().filter(|score| **score > thresholds[at]).count()
            };
            let of_kind = [kind.episodes, kind.found, kind.would_revoke, above(0), above(1)];
            let [episodes, found, would_revoke, gaussian, fixed] = of_kind;
            let what = if name.0 { "look-alike" } else { "leak" };
            println!(
                "| {what} `{}` | {episodes} | {found} | {would_revoke} | {minutes} | {gaussian} | {fixed} |",
                name.1
            );
            if !name.0 {
                sums.iter_mut().zip(of_kind).for_each(|(sum, of_kind)| *sum += of_kind);
            }
        }
        println!("| all leaks | {} | {} | {} | | {} | {} |", sums[0], sums[1], sums[2], sums[3], sums[4]);
        let Evaluation { plain, false_alerts, of_look_alikes, key_days, false_revocations, .. } =
            &self.evaluation;
        println!(
            "\nleaks of 3 times the usual calls or from new origins, but slow drips: {} of {}\n\
             false alerts: {false_alerts}, {of_look_alikes} of them of look-alikes; {:.3} per 1,000 key-days of {key_days:.0}; precision {:.3}\n\
             would-be revocations of innocent keys: {false_revocations}\n\
             the references' thresholds, for as many false alerts: {:.1} deviations, {:.0} calls a minute",
            plain[0],
            plain[1],
            self.evaluation.false_alert_rate(),
            self.evaluation.precision().unwrap_or(1.0),
            thresholds[0],
            thresholds[1],
        );
    }
}
