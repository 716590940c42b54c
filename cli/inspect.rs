//! `keytide inspect STATE` shows the checkpoints of a job: which there are, what the newest one holds, the last committed
//! tick, and from where the job would go on. It reads every byte of the newest one, so it also says whether that is sound. It needs no lock and
//! changes nothing. Credentials of a bucket come from the environment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use keytide_config::StatePlace;
use keytide_connectors::ledger::{self, Claim, History, TickRecord};
use keytide_connectors::sink::encode::time;
use keytide_connectors::store::{Manifest, Store};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::run::restore::{ResumePoint, exit_of, resume_point};
use serde::Serialize;

use crate::exit;
use crate::text::{counted, grouped, harmless, json};

#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    /// Place of the checkpoints, as state.url names it: a folder, or s3://, gs:// or az://
    #[arg(value_name = "STATE")]
    state: String,
    /// Print the manifests and the offsets as JSON
    #[arg(long)]
    json: bool,
}

/// The checkpoints of a folder, as `--json` prints them.
#[derive(Serialize)]
struct Inspection {
    /// The checkpoints, the newest last.
    checkpoints: Vec<ListedCheckpoint>,
    /// From where the job would go on; absent without a checkpoint.
    resume: Option<ResumePoint>,
    /// The last tick that was committed; absent if the ledger is a topic.
    committed: Option<TickRecord>,
    /// The last life of the job; absent if the ledger is a topic.
    life: Option<Claim>,
}

/// A checkpoint by its manifest.
#[derive(Serialize)]
struct ListedCheckpoint {
    #[serde(flatten)]
    manifest: Manifest,
    /// The bytes of the parts that changed since the checkpoint before, and were written for this one.
    written_bytes: u64,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let refused = |error| failure(exit_of(&error), error);
    let place = StatePlace::parse(&args.state, Path::new("")).with_context(|| {
        format!(
            "{} is no place of a state, allowed: a folder, or s3://BUCKET/PREFIX, gs://, az://",
            harmless(&args.state)
        )
    });
    let place = place.map_err(|error| failure(Exit::Usage, error))?;
    let store = Store::look_at(&place, &BTreeMap::new()).map_err(|error| failure(Exit::Usage, error))?;
    let store = Arc::new(store);
    let (mut checkpoints, mut newest) = (Vec::new(), None);
    for id in store.folders().map_err(refused)? {
        if let Some(manifest) = store.manifest(id).map_err(refused)? {
            newest = Some((id, manifest.clone()));
            let written_bytes = manifest.bytes_of(id);
            checkpoints.push(ListedCheckpoint { manifest, written_bytes });
        }
    }
    let history = match &newest {
        None => History::default(),
        Some((_, newest)) => ledger::look(Arc::clone(&store), &newest.info.job)
            .map_err(|error| failure(error.class().into(), error))?,
    };
    let newest = newest.map(|(id, manifest)| store.read(id, manifest)).transpose().map_err(refused)?;
    let resume = newest.map(|newest| resume_point(&newest)).transpose()?;
    let History { mut ticks, last_claim: life } = history;
    let inspection = Inspection { checkpoints, resume, committed: ticks.pop(), life };
    let page = if args.json { json(&inspection)? } else { inspection.page(&place) };
    exit::print(&page)?;
    Ok(ExitCode::SUCCESS)
}

impl Inspection {
    fn page(&self, state: &StatePlace) -> String {
        let mut page = String::new();
        let mut line =
            |text: std::fmt::Arguments<'_>| writeln!(page, "{text}").expect("memory takes any text");
        let Some((newest, resume)) = self.checkpoints.last().zip(self.resume.as_ref()) else {
            return format!("{} has no checkpoint: a job with it begins anew\n", state);
        };
        let checkpoints = counted(self.checkpoints.len() as u64, "checkpoint", "checkpoints");
        line(format_args!("{}: {checkpoints}, all bytes of the newest are sound", state));
        for ListedCheckpoint { manifest, written_bytes } in &self.checkpoints {
            let (at, job) = (&manifest.info.at, harmless(&manifest.info.job));
            line(format_args!(
                "{at}  {:>16} bytes, {:>16} of them written for it  job {job}, keytide {}",
                grouped(manifest.bytes()),
                grouped(*written_bytes),
                manifest.info.program
            ));
        }
        line(format_args!(
            "\nThe newest, of {} workers, configuration {}",
            newest.manifest.info.workers, newest.manifest.info.config
        ));
        line(format_args!("{:<28}{:>8}{:>16}{:>20}", "object", "parts", "rows", "bytes"));
        for (name, (parts, rows, bytes)) in by_object(&newest.manifest) {
            line(format_args!("{name:<28}{parts:>8}{:>16}{:>20}", grouped(rows), grouped(bytes)));
        }
        match (&self.committed, &self.life) {
            (Some(tick), Some(Claim { generation, host, pid, .. })) => line(format_args!(
                "\nThe last committed tick is number {}, {}, by life {generation} (process {pid} on {})",
                tick.number,
                time(tick.tick),
                harmless(host)
            )),
            _ => line(format_args!(
                "\nThe ledger isn't here: it is the topic PREFIX.progress.v1, which says what counts"
            )),
        }
        line(format_args!("\nA job goes on behind the watermark {} at", resume.watermark));
        for partition in &resume.partitions {
            let source = harmless(&partition.source);
            line(format_args!(
                "{source}, partition {}: offset {}",
                partition.number,
                grouped(partition.next_offset)
            ));
        }
        page
    }
}

/// Sums up parts, their rows and their bytes by the name of their object, over the checkpoints in which that is.
fn by_object(manifest: &Manifest) -> BTreeMap<&str, (u64, u64, u64)> {
    let mut sums = BTreeMap::new();
    for part in manifest.parts.values() {
        let object = part.object.rsplit_once('/').map_or(&*part.object, |(_, object)| object);
        let (parts, rows, bytes) = sums.entry(object).or_insert((0, 0, 0));
        *parts += 1;
        *rows += part.rows;
        *bytes += part.bytes;
    }
    sums
}
