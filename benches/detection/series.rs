//! The score of `backtest --csv` on series of counts with windows that people labelled anomalous, judged as the Numenta
//! Anomaly Benchmark does (Lavin and Ahmad, 2015; its standard profile): the first detection in a window counts by
//! how early it comes, each detection outside costs, by how far behind a window it is, and what is missed costs one.
//! 100 is perfect, 0 is what never detecting anything gets. The first 15 % of a series (of 5,000 rows at most) aren't
//! scored. As there, one threshold is chosen for all series that are scored together.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use keytide_dataflow::detect::Series;

use super::episodes::text;

const COST_OF_FALSE: f64 = 0.11;
const STEP_MS: u64 = 300_000;

struct Labelled {
    name: String,
    scores: Vec<f64>,
    /// First and last row of each window.
    windows: Vec<(usize, usize)>,
    unscored: usize,
}

/// Prints the score of each pair of series, with the threshold of the other two and with its own best.
pub(crate) fn report(folder: &Path) -> anyhow::Result<()> {
    let labels = text(&folder.join("labels.json")).context("the folder has no labels.json")?;
    let labels: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(&labels)?;
    let all: Vec<Labelled> = labels
        .iter()
        .map(|(name, windows)| Labelled::read(folder, name, windows))
        .collect::<Result<_, _>>()?;
    println!(
        "| series | at the threshold that is best for the others | at its own best threshold |\n|---|---|---|"
    );
    for left_out in &all {
        let others: Vec<&Labelled> = all.iter().filter(|series| series.name != left_out.name).collect();
        let (threshold, _) = best(&others);
        let (_, own) = best(&[left_out]);
        println!("| {} | {:.1} | {own:.1} |", left_out.name, score(&[left_out], threshold));
    }
    let together: Vec<&Labelled> = all.iter().collect();
    let (threshold, own) = best(&together);
    println!("\nall series at their best threshold ({threshold:.1} bits): {own:.1}");
    Ok(())
}

/// The threshold with the highest score, and the score.
fn best(series: &[&Labelled]) -> (f64, f64) {
    let mut thresholds: Vec<f64> =
        series.iter().flat_map(|series| series.scores.iter().copied()).filter(|bits| *bits > 0.0).collect();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    let scored = thresholds.into_iter().map(|threshold| (threshold, score(series, threshold)));
    scored.fold((f64::INFINITY, 0.0), |best, of| if of.1 > best.1 { of } else { best })
}

/// The benchmark's score, normalised.
fn score(series: &[&Labelled], threshold: f64) -> f64 {
    let windows: usize = series.iter().map(|series| series.windows.len()).sum();
    let raw: f64 = series.iter().map(|series| series.raw(threshold)).sum();
    100.0 * (raw + windows as f64) / (2.0 * windows as f64)
}

/// 1 at the far left, 0 at a window's end, towards -1 behind it.
fn sigmoid(place: f64) -> f64 {
    2.0 / (1.0 + (5.0 * place).exp()) - 1.0
}

impl Labelled {
    fn read(folder: &Path, name: &str, windows: &[[String; 2]]) -> anyhow::Result<Self> {
        let mut times = Vec::new();
        let mut series = Series::new(STEP_MS);
        let mut scores = Vec::new();
        for row in csv::Reader::from_path(folder.join(name))?.records() {
            let row = row?;
            let time_ms = millis(&row[0])?;
            scores.push(series.score(time_ms, row[1].parse()?).get());
            times.push(time_ms);
        }
        let rows = |[from, to]: &[String; 2]| -> anyhow::Result<(usize, usize)> {
            let (from, to) = (millis(from)?, millis(to)?);
            let first = times.partition_point(|time| *time < from);
            Ok((first, times.partition_point(|time| *time <= to).saturating_sub(1)))
        };
        let windows = windows.iter().map(rows).collect::<Result<_, _>>()?;
        let unscored = (times.len() * 15 / 100).min(750);
        Ok(Self { name: name.to_owned(), scores, windows, unscored })
    }

    fn raw(&self, threshold: f64) -> f64 {
        let mut found: BTreeMap<usize, f64> = BTreeMap::new();
        let mut cost = 0.0;
        for (row, _) in
            self.scores.iter().enumerate().skip(self.unscored).filter(|(_, bits)| **bits >= threshold)
        {
            let within = self.windows.iter().position(|(first, last)| (*first..=*last).contains(&row));
            match within {
                Some(window) => {
                    let (first, last) = self.windows[window];
                    let place = -((last - row + 1) as f64) / (last - first + 1) as f64;
                    let value = sigmoid(place) / sigmoid(-1.0);
                    found.entry(window).and_modify(|best| *best = best.max(value)).or_insert(value);
                }
                None => {
                    let before = self.windows.iter().rfind(|(_, last)| *last < row);
                    let place =
                        before.map(|(first, last)| (row - last) as f64 / (last - first).max(1) as f64);
                    cost += place.filter(|place| *place < 3.0).map_or(-1.0, sigmoid);
                }
            }
        }
        found.values().sum::<f64>() - (self.windows.len() - found.len()) as f64 + COST_OF_FALSE * cost
    }
}

fn millis(text: &str) -> anyhow::Result<u64> {
    let time: DateTime = text.parse().with_context(|| format!("`{text}` isn't a time"))?;
    Ok(u64::try_from(time.to_zoned(TimeZone::UTC)?.timestamp().as_millisecond())?)
}
