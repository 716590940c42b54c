//! Incidents, their log and the actions on them of a bounded run.
//!
//! They are kept as they come, on disk if there are many, and written when all is read: a string that a row needs may
//! be known to another worker only. Then one pass reads the log in the order of its ticks, and within a tick by time,
//! incident and number. So `decide` sees the transitions as in a live job. Nothing is acted on, so no key is denied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use keytide_config::View;
use keytide_connectors::sink::encode::{EncodeRow, Labels, time};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{Decide, IncidentRow, JobInfo, LogRow, TickFacts};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{
    ActionId, AuditEntry, Incident, IncidentId, IncidentState, Revocation, Score, Transition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sorter::Sorter;
use super::view_file::{ViewFile, ViewFolder};
use crate::cells::untrusted;

/// Numbers of rows that were written, by view.
#[derive(Clone, Debug, Default)]
pub struct IncidentCounts {
    pub incidents: u64,
    /// Incidents by the highest severity that they reached.
    pub by_severity: BTreeMap<Severity, u64>,
    /// Incidents that a change of the tables took back.
    pub withdrawn: u64,
    pub incident_log: u64,
    pub revocations: u64,
    pub audit: u64,
}

fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    let bytes = postcard::to_extend(value, std::mem::take(out));
    *out = bytes.expect("a value can always be written to memory");
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

/// Keeps a version of an incident, sorted by incident and tick.
pub(super) fn keep_incident(sorter: &mut Sorter, tick: Tick, incident: &Incident) -> anyhow::Result<()> {
    sorter.add(
        |key| {
            key.extend_from_slice(&incident.id.0.to_be_bytes());
            key.extend_from_slice(&tick.to_be_bytes());
        },
        |line| write(incident, line),
    )
}

/// Keeps a transition, sorted by tick, time, incident and number.
pub(super) fn keep_transition(
    sorter: &mut Sorter,
    tick: Tick,
    transition: &Transition,
) -> anyhow::Result<()> {
    let (at_ms, id, seq) = transition.order();
    sorter.add(
        |key| {
            key.extend_from_slice(&tick.to_be_bytes());
            key.extend_from_slice(&at_ms.to_be_bytes());
            log_key(id, seq, key);
        },
        |line| write(&(tick, transition), line),
    )
}

fn log_key(id: IncidentId, seq: u32, key: &mut Vec<u8>) {
    key.extend_from_slice(&id.0.to_be_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
}

/// Keeps a score as a line of CSV. The key's name is known, because it is defined before any row of the key.
pub(super) fn keep_score(sorter: &mut Sorter, names: &Names, score: &Score) -> anyhow::Result<()> {
    let key_id = names.key_text(score.key);
    // The detector's own exponential, so that a score is the same on every machine.
    let probability = 1.0 / (1.0 + libm::exp2(-(score.verdict.odds as f64) / 1_000.0));
    sorter.add(
        |key| {
            key.extend_from_slice(key_id.as_bytes());
            key.push(0);
            key.extend_from_slice(&score.window_ms.to_be_bytes());
        },
        |line| {
            let row = format!(
                "{},{},{probability:.6},{}\n",
                untrusted(&key_id),
                time(score.window_ms),
                score.verdict.severity.name()
            );
            line.extend_from_slice(row.as_bytes());
        },
    )
}

/// Writes `scores.csv`, which has a row for each key and window with a score above 0.
pub(super) fn scores_file(scores: Vec<Sorter>, folder: &Path) -> anyhow::Result<u64> {
    let path = folder.join("scores.csv");
    let written = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        file.write_all(b"key_id,window_start,score,level\n")?;
        let count = Sorter::merge(scores, |line| file.write_all(line))?;
        file.flush()?;
        anyhow::Ok(count)
    };
    written().with_context(|| format!("writing {} failed", path.display()))
}

/// Writes the views of incidents of all workers, each with its incidents and transitions.
pub(super) fn incident_views(
    workers: Vec<(Sorter, Sorter)>,
    names: &Names,
    job: JobInfo<'_>,
    folder: ViewFolder<'_>,
    decide: Decide<'_>,
) -> anyhow::Result<IncidentCounts> {
    let (incidents, transitions): (Vec<Sorter>, Vec<Sorter>) = workers.into_iter().unzip();
    let mut labels = Labels::new(names);
    let (mut by_severity, mut withdrawn) = (BTreeMap::new(), 0);
    let incidents = folder.write(View::Incidents, |file| {
        let (mut count, mut newest) = (0, None::<Incident>);
        let mut put = |incident: Option<Incident>, file: &mut ViewFile| match incident {
            None => Ok(()),
            Some(incident) => {
                let mut line = Vec::new();
                IncidentRow { incident: &incident, job }.line(&mut labels, &mut line);
                count += 1;
                *by_severity.entry(incident.severity).or_default() += 1;
                withdrawn += u64::from(incident.state == IncidentState::Withdrawn);
                file.line(&line)
            }
        };
        Sorter::merge(incidents, |record| {
            let incident: Incident = read(record)?;
            let before = newest.replace(incident);
            // Only the newest version of an incident is written.
            let before = before.filter(|before| newest.as_ref().is_some_and(|newest| newest.id != before.id));
            put(before, file)
        })?;
        put(newest, file)?;
        Ok(count)
    })?;

    let mut lines = Sorter::new(folder.path);
    let mut revocations: BTreeMap<ActionId, Revocation> = BTreeMap::new();
    let mut audit: Vec<AuditEntry> = Vec::new();
    let mut decide = |of_tick: &[Transition]| {
        if !of_tick.is_empty() {
            let rows = decide(TickFacts { transitions: of_tick, inputs: &[], usage: &[], names });
            revocations.extend(rows.revocations.into_iter().map(|action| (action.id, action)));
            audit.extend(rows.audit);
        }
    };
    let (mut open, mut of_tick): (Tick, Vec<Transition>) = (0, Vec::new());
    let read_through = Sorter::merge(transitions, |record| {
        let (tick, transition): (Tick, Transition) = read(record)?;
        if tick != open {
            decide(&of_tick);
            of_tick.clear();
            open = tick;
        }
        let key = |key: &mut Vec<u8>| log_key(transition.incident.id, transition.seq, key);
        let row = LogRow { transition: &transition, job };
        lines.add(key, |line| row.line(&mut labels, line)).map_err(io::Error::other)?;
        of_tick.push(transition);
        Ok(())
    });
    read_through.with_context(|| format!("sorting in {} failed", folder.path.display()))?;
    decide(&of_tick);
    let incident_log =
        folder.write(View::IncidentLog, |file| Ok(Sorter::merge(vec![lines], |line| file.line(line))?))?;
    audit.sort_by(|one, other| one.order().cmp(&other.order()));
    let revocations = write_rows(folder, revocations.values(), &mut labels)?;
    let audit = write_rows(folder, audit.iter(), &mut labels)?;
    Ok(IncidentCounts { incidents, by_severity, withdrawn, incident_log, revocations, audit })
}

/// Writes the rows of a view, and returns their number.
fn write_rows<'a, R: EncodeRow + 'a>(
    folder: ViewFolder<'_>,
    rows: impl ExactSizeIterator<Item = &'a R>,
    labels: &mut Labels<'_>,
) -> anyhow::Result<u64> {
    folder.write(R::VIEW, |file| {
        let (mut line, count) = (Vec::new(), rows.len());
        for row in rows {
            line.clear();
            row.line(labels, &mut line);
            file.line(&line)?;
        }
        Ok(count as u64)
    })
}
