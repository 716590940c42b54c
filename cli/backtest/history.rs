//! `keytide backtest CONFIG`: a job's detector over all that its sources hold, and a report of it.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use keytide_worker::replay::{BoundedRun, Keep, usage};

use super::BacktestArgs;
use super::judge::EpisodeLabel;
use super::observe::observe;
use super::pictures::{self, Picture, delays, incidents};
use super::report::BacktestReport;
use crate::exit;
use crate::progress::PROCESS;
use crate::replay::{Folder, load, time_of_run};

/// Written last.
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
    let bounded = BoundedRun::open(job.clone(), PROCESS)?;
    let out = Folder::new(&args.out, bounded.inputs(), REPORT)?;
    let run = observe(bounded, &job, now, args.decode_threads.into(), out.path(), Keep::Scores)?;
    let pictures = incidents(&run.gravest).chain(delays(&run, labels.as_deref()));
    let pictures = write(&out, pictures)?;
    let report = BacktestReport::new(&job.job.name, &run, labels.as_deref(), pictures);
    let text = report.markdown();
    out.write("report.md", text.as_bytes())?;
    out.write(REPORT, format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?;
    print(&text)?;
    Ok(exit::judge(&run.records, "").into())
}

/// Writes pictures in the place of an earlier run's; their names.
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

/// Prints a table.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // Nobody wants to read it; it is in the folder.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
