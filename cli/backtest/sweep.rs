//! Runs several configurations over the same input, one after the other, and compares their alerts.
//!
//! Every point of the grid is a run of its own, which reads tables and sources anew. So its row has the numbers of
//! `keytide backtest` with that configuration. Limits: 100 points.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use keytide_config::{JobConfig, environment};
use keytide_dataflow::detect::Severity;
use keytide_worker::cells::quoted;
use keytide_worker::exit::{Exit, failure};
use keytide_worker::replay::{BoundedRun, Keep, usage};

use super::BacktestArgs;
use super::history::labels;
use super::judge::EpisodeLabel;
use super::observe::{DetectorRun, observe};
use super::report::{LabelReport, alert_rate, key_days, table};
use crate::exit;
use crate::progress::process;
use crate::replay::{Folder, time_of_run};

/// Points of a grid, at most.
const MAX_POINTS: usize = 100;
/// Written last, so that it always belongs to a sweep that ended.
const TABLE: &str = "sweep.csv";

/// A key of `[detection]` and the numbers to try for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    key: String,
    values: Vec<String>,
}

/// Reads `detection.KEY=N,N`.
pub(super) fn parse(text: &str) -> Result<Axis, String> {
    let expected = "must be KEY=N,N,... with a key of [detection], such as detection.alert=3,4,5";
    let (key, values) = text.split_once('=').ok_or(expected)?;
    let mut parts = key.trim().split('.');
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    if parts.next() != Some("detection") || parts.clone().next().is_none() || !parts.all(is_name) {
        return Err(expected.to_owned());
    }
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    match values.iter().find(|value| !value.parse().is_ok_and(f64::is_finite)) {
        Some(value) => Err(format!("{value:?} is no number: {expected}")),
        None => Ok(Axis { key: key.trim().to_owned(), values }),
    }
}

/// Returns all combinations of the axes' values; the last axis changes fastest.
fn grid(axes: &[Axis]) -> Vec<Vec<&str>> {
    axes.iter().fold(vec![Vec::new()], |points, axis| {
        let extended = points.iter().flat_map(|point: &Vec<&str>| {
            axis.values.iter().map(move |value| point.iter().copied().chain([&**value]).collect())
        });
        extended.collect()
    })
}

/// Returns the environment variable that overrides a key.
fn variable(key: &str) -> String {
    format!("KEYTIDE_{}", key.replace('.', "__").to_uppercase())
}

/// Runs the command over a grid of configurations.
pub(super) fn run(args: &BacktestArgs, config: &Path) -> anyhow::Result<ExitCode> {
    let points = grid(&args.sweep);
    if points.len() > MAX_POINTS {
        let count = points.len();
        return Err(usage(anyhow::anyhow!("--sweep: {count} combinations, allowed: at most {MAX_POINTS}")));
    }
    if let Some(twice) =
        (1..args.sweep.len()).find(|at| args.sweep[..*at].iter().any(|axis| axis.key == args.sweep[*at].key))
    {
        return Err(usage(anyhow::anyhow!("--sweep: {} is named twice", args.sweep[twice].key)));
    }
    let now = time_of_run(args.now)?;
    let labels = labels(args)?;
    // Every configuration is checked before the first one runs.
    let jobs: Vec<JobConfig> =
        points.iter().map(|point| load(args, config, point)).collect::<anyhow::Result<_>>()?;
    let mut rows = Vec::new();
    let (mut out, mut end) = (None, Exit::Done);
    for (at, (point, job)) in points.iter().zip(jobs).enumerate() {
        let bounded = BoundedRun::open(job.clone(), process(args.show.quiet))?;
        let folder = match &out {
            Some(folder) => folder,
            None => &*out.insert(Folder::new(&args.out, bounded.inputs(), TABLE)?),
        };
        // The run's own files go to a temporary folder, as a sweep keeps only its table.
        let of_run = tempfile::tempdir_in(folder.path())
            .with_context(|| format!("can't make a folder in {}", folder.path().display()))?;
        if !args.show.quiet {
            exit::note(&format!("{} of {}: {}", at + 1, points.len(), named(&args.sweep, point)));
        }
        let run = observe(bounded, &job, now, args.decode_threads.into(), of_run.path(), Keep::Incidents)?;
        if at == 0 {
            // All points read the same records.
            end = exit::judge(&run.records, "", false);
        }
        let values = point.iter().map(|value| (*value).to_owned());
        rows.push(values.chain(row(&run, labels.as_deref())).collect::<Vec<String>>());
    }
    let folder = out.expect("a grid has a point");
    let keys = args.sweep.iter().map(|axis| &*axis.key);
    let head: Vec<&str> = keys.chain(columns(labels.is_some())).collect();
    let mut text = String::new();
    table(&mut text, &head, rows.clone())?;
    folder.write("sweep.md", text.as_bytes())?;
    let mut csv = String::new();
    for row in [head.iter().map(|name| (*name).to_owned()).collect()].into_iter().chain(rows) {
        let row: Vec<_> = row.iter().map(|cell| quoted(cell)).collect();
        writeln!(csv, "{}", row.join(","))?;
    }
    folder.write(TABLE, csv.as_bytes())?;
    args.show.print(|_| text.clone(), &text)?;
    Ok(end.into())
}

fn named(axes: &[Axis], point: &[&str]) -> String {
    let named: Vec<String> =
        axes.iter().zip(point).map(|(axis, value)| format!("{} = {value}", axis.key)).collect();
    named.join(", ")
}

fn load(args: &BacktestArgs, config: &Path, point: &[&str]) -> anyhow::Result<JobConfig> {
    let workers = args.workers.map(|workers| ("KEYTIDE_JOB__WORKERS".to_owned(), workers.to_string()));
    let overrides =
        args.sweep.iter().zip(point).map(|(axis, value)| (variable(&axis.key), (*value).to_owned()));
    let env = environment().chain(workers).chain(overrides);
    let loaded = JobConfig::load(config, env).map_err(|error| {
        let error = anyhow::Error::new(error);
        failure(Exit::Usage, error.context(format!("with {}", named(&args.sweep, point))))
    })?;
    Ok(loaded.job)
}

fn columns<'a>(labelled: bool) -> impl Iterator<Item = &'a str> {
    let of_all =
        ["alerts", "alerts_per_1000_key_days", "incidents", "incidents_revoke", "key_days"].into_iter();
    let of_labels = [
        "recall",
        "plain_recall",
        "precision",
        "false_alerts_per_1000_key_days",
        "would_be_revocations_of_innocent_keys",
        "minutes_median",
        "minutes_p90",
    ];
    of_all.chain(of_labels.into_iter().filter(move |_| labelled))
}

fn row(run: &DetectorRun, labels: Option<&[EpisodeLabel]>) -> Vec<String> {
    let number = |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.3}"));
    let count = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
    let revoke = run.incidents.values().filter(|incident| incident.severity == Severity::Revoke).count();
    let mut row = vec![
        run.alerts.len().to_string(),
        number(alert_rate(run)),
        run.incidents.len().to_string(),
        revoke.to_string(),
        format!("{:.0}", key_days(run)),
    ];
    if let Some(labels) = labels {
        let of = LabelReport::new(labels, run);
        let plain = (of.plain_leaks > 0).then(|| of.plain_found as f64 / of.plain_leaks as f64);
        row.extend([
            number(of.recall),
            number(plain),
            number(of.precision),
            number(of.false_alerts_per_1000_key_days),
            of.would_be_revocations_of_innocent_keys.to_string(),
            count(of.minutes_median),
            count(of.minutes_p90),
        ]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_each_combination_once() {
        let axes =
            [parse("detection.alert=3,4.5").unwrap(), parse("detection.caps.volume= 20 , 24").unwrap()];
        assert_eq!(grid(&axes), [["3", "20"], ["3", "24"], ["4.5", "20"], ["4.5", "24"]]);
        assert_eq!(named(&axes, &["3", "20"]), "detection.alert = 3, detection.caps.volume = 20");
        assert_eq!(variable("detection.caps.volume_1m"), "KEYTIDE_DETECTION__CAPS__VOLUME_1M");
    }

    #[test]
    fn only_numbers_of_the_detection_are_tried() {
        for text in [
            "detection.alert",
            "detection=3",
            "detection.=3",
            "detection.alert=",
            "detection.alert=3,,4",
            "detection.alert=NaN",
            "detection.alert=many",
            "limits.keys=3",
            "detection.Alert=3",
            "detection.a b=3",
        ] {
            assert!(parse(text).unwrap_err().contains("must be KEY=N,N"), "{text}");
        }
    }
}
