//! `keytide backtest CONFIG` runs a job's detector over all that its sources hold, and writes a report.

use std::path::Path;
use std::process::ExitCode;

use keytide_worker::replay::{BoundedRun, Keep, usage};

use super::BacktestArgs;
use super::judge::EpisodeLabel;
use super::observe::observe;
use super::pictures::{self, Picture, delays, incidents};
use super::report::BacktestReport;
use crate::exit;
use crate::overview::render;
use crate::progress::process;
use crate::replay::{Folder, absolute, load, time_of_run};
use crate::text::json;

/// Written last, so that it always belongs to a run that ended.
const REPORT: &str = "report.json";

/// Reads the labels, if there are any.
pub(super) fn labels(args: &BacktestArgs) -> anyhow::Result<Option<Vec<EpisodeLabel>>> {
    args.labels.as_deref().map(EpisodeLabel::read).transpose().map_err(usage)
}

/// Runs the command over one configuration.
pub(super) fn run(args: &BacktestArgs, config: &Path) -> anyhow::Result<ExitCode> {
    let now = time_of_run(args.now)?;
    let labels = labels(args)?;
    let job = load(config, args.workers)?;
    let bounded = BoundedRun::open(job.clone(), process(args.show.quiet))?;
    let out = Folder::new(&args.out, bounded.inputs(), REPORT)?;
    let run = observe(bounded, &job, now, args.decode_threads.into(), out.path(), Keep::Scores)?;
    let pictures = incidents(&run.gravest).chain(delays(&run, labels.as_deref()));
    let pictures = write(&out, pictures)?;
    let report = BacktestReport::new((&job.job.name, absolute(config)), &run, labels.as_deref(), pictures);
    out.write("report.md", report.markdown().as_bytes())?;
    let json = json(&report)?;
    out.write(REPORT, json.as_bytes())?;
    let mut files = vec![format!("{} has report.md with all tables, and report.json.", out.path().display())];
    files.extend(report.overview().evidence(out.path()));
    let text = |look| render(report.overview(), "keytide backtest", &report.lines(), &files, look);
    let shown = args.show.print(text, &json)?;
    Ok(exit::judge(&run.records, "", shown).into())
}

/// Replaces the pictures of an earlier run; returns the names of the new ones and what they show.
fn write(out: &Folder, pictures: impl Iterator<Item = Picture>) -> anyhow::Result<Vec<(String, String)>> {
    for name in pictures::names() {
        out.remove(&name)?;
    }
    pictures
        .map(|Picture { name, shows, png }| {
            out.write(&name, &png)?;
            Ok((name, shows))
        })
        .collect()
}
