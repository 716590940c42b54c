//! Rows as lines, in the order of their key columns' texts.
//!
//! Rows in memory are sorted by all threads. Runs on disk (see [`Runs`](super::runs::Runs)) are merged with them by
//! the same sort keys. So a view's file is the same wherever its rows were kept and in however many parts.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use keytide_config::{FileFormat, View};
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::sink::encode::Labels;
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{Decide, JobInfo};
use keytide_dataflow::*;
use rayon::prelude::*;

use super::accounts::account_views;
use super::collect::{Collect, Coverage, Keep, Rowset, WindowParts, late_line};
use super::figures::{FigureSums, Figures, Summed};
use super::incidents::{IncidentCounts, incident_views, scores_file};
use super::runs::{Ascending, Merge, RunReader};
use super::sort_key::{ViewRow, keyed};
use super::sorter::Sorter;
use super::view_file::{RowCounts, ViewFile, ViewFolder};

/// Rows that one thread formats at once.
const CHUNK: usize = 1 << 12;
/// Chunks for each thread that are written at once.
const CHUNKS: usize = 4;

/// The numbers of a run that wrote all views.
pub struct Written {
    pub rows: RowCounts,
    /// Sums over the dataflow's ticks.
    pub counts: Counts,
    pub incidents: IncidentCounts,
    pub figures: Figures,
    pub names: Names,
}

/// Writes all views to `folder`, and statements that show them to databases. Rows are formatted by `threads` threads.
pub fn write(
    collected: Vec<Collect>,
    job: JobInfo<'_>,
    folder: ViewFolder<'_>,
    threads: usize,
    decide: Decide<'_>,
) -> anyhow::Result<Written> {
    let (mut names, mut counts) = (Names::default(), Counts::default());
    let (mut late, mut dead_letters) = (Vec::new(), Vec::new());
    let (mut of_windows, mut accounts, mut of_incidents) = (WindowParts::default(), Vec::new(), Vec::new());
    for worker in collected {
        names.merge(worker.names);
        counts += worker.counts;
        accounts.push(worker.accounts);
        of_windows.push(worker.of_windows);
        late.push(worker.late);
        dead_letters.push(worker.dead_letters);
        of_incidents.push((worker.incidents, worker.transitions));
    }
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("starting threads failed")?;
    let mut rows = RowCounts::default();
    let of_incidents = incident_views(of_incidents, &names, job, folder, decide)?;
    rows[View::Incidents] = of_incidents.incidents;
    rows[View::IncidentLog] = of_incidents.incident_log;
    rows[View::Revocations] = of_incidents.revocations;
    rows[View::Audit] = of_incidents.audit;
    let mut sums = FigureSums::default();
    macro_rules! views {
        ($($view:ident $field:ident: $row:ty,)+) => {
            pool.install(|| {
                $(rows[View::$view] = folder.write(View::$view, |file| {
                    view(of_windows.$field, &names, file, &mut sums)
                })?;)+
                anyhow::Ok(())
            })?;
        };
    }
    views_of_windows!(views);
    account_views(accounts, folder, &mut rows)?;
    rows[View::Late] = folder.write(View::Late, |file| late_view(late, &names, job.partitions, file))?;
    rows[View::DeadLetters] =
        folder.write(View::DeadLetters, |file| Ok(Sorter::merge(dead_letters, |line| file.line(line))?))?;
    folder.write_statements(&rows)?;
    Ok(Written { rows, counts, incidents: of_incidents, figures: sums.finish(), names })
}

/// The results of a run that keeps only incidents.
pub struct WrittenIncidents {
    /// Rows of `scores.csv`.
    pub scores: u64,
    /// Sums over the dataflow's ticks.
    pub counts: Counts,
    pub coverage: Coverage,
    pub incidents: IncidentCounts,
    /// Sums over the rows; empty unless `keep` asks for scores.
    pub figures: Figures,
    pub names: Names,
}

/// Writes the views of incidents, and the scores of windows if `keep` asks for them.
pub fn write_incidents(
    collected: Vec<Collect>,
    job: JobInfo<'_>,
    folder: &Path,
    keep: Keep,
    decide: Decide<'_>,
) -> anyhow::Result<WrittenIncidents> {
    let (mut names, mut counts, mut coverage) = (Names::default(), Counts::default(), Coverage::default());
    let (mut of_incidents, mut scores, mut of_windows) = (Vec::new(), Vec::new(), WindowParts::default());
    for worker in collected {
        names.merge(worker.names);
        counts += worker.counts;
        coverage.merge(worker.coverage);
        of_incidents.push((worker.incidents, worker.transitions));
        scores.push(worker.scores);
        of_windows.push(worker.of_windows);
    }
    let views = ViewFolder { path: folder, format: FileFormat::JsonLines };
    let incidents = incident_views(of_incidents, &names, job, views, decide)?;
    let mut rows = RowCounts::default();
    rows[View::Incidents] = incidents.incidents;
    rows[View::IncidentLog] = incidents.incident_log;
    rows[View::Revocations] = incidents.revocations;
    rows[View::Audit] = incidents.audit;
    views.write_statements(&rows)?;
    let scores = if keep == Keep::Scores { scores_file(scores, folder)? } else { 0 };
    let mut sums = FigureSums::default();
    macro_rules! sum {
        ($($view:ident $field:ident: $row:ty,)+) => {
            $(each_batch(&of_windows.$field, &names, |rows| {
                rows.iter().for_each(|row| row.sum(&mut sums));
                Ok(())
            }).context("reading a temporary file failed")?;
            sums.end_view();)+
        };
    }
    views_of_windows!(sum);
    let mut figures = sums.finish();
    (figures.span_ms, figures.young_keys) = (coverage.span_ms(), coverage.young_keys());
    Ok(WrittenIncidents { scores, counts, coverage, incidents, figures, names })
}

/// Rows in the order of their sort keys: those in memory, or those of a run.
enum SortedRows<'a, 'r, R: ViewRow> {
    Memory(std::vec::IntoIter<(R::SortKey<'a>, &'r R)>),
    Run(RunReader<'r>, &'a Names),
}

impl<'a, R: ViewRow> Ascending for SortedRows<'a, '_, R> {
    type Key = R::SortKey<'a>;
    type Item = R;

    fn next(&mut self) -> io::Result<Option<(R::SortKey<'a>, R)>> {
        Ok(match self {
            Self::Memory(rows) => rows.next().map(|(sort_key, row)| (sort_key, row.clone())),
            Self::Run(run, names) => match run.next()? {
                None => None,
                Some(record) => {
                    let row: R = postcard::from_bytes(record).map_err(io::Error::other)?;
                    Some((row.sort_key(names), row))
                }
            },
        })
    }
}

/// Writes a view, of which every worker has a part, and sums its rows up; returns their number.
fn view<R: ViewRow + Summed>(
    parts: Vec<Rowset<R>>,
    names: &Names,
    file: &mut ViewFile,
    sums: &mut FigureSums,
) -> anyhow::Result<u64> {
    let mut count = 0;
    each_batch(&parts, names, |rows| {
        rows.iter().for_each(|row| row.sum(sums));
        count += rows.len() as u64;
        file.texts(lines(rows, names))
    })?;
    sums.end_view();
    Ok(count)
}

/// Hands the rows of a view to `take`, some thousands at once, in the order of their sort keys.
fn each_batch<R: ViewRow>(
    parts: &[Rowset<R>],
    names: &Names,
    mut take: impl FnMut(&[&R]) -> io::Result<()>,
) -> io::Result<()> {
    let mut in_memory = keyed(parts.iter().flat_map(Rowset::rows), names);
    in_memory.par_sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let batch = CHUNK * CHUNKS * rayon::current_num_threads();
    // Without runs there is nothing to merge, and no row needs a clone.
    if parts.iter().all(|part| part.runs.is_empty()) {
        return in_memory.chunks(batch).try_for_each(|part| {
            let rows: Vec<&R> = part.iter().map(|(_, row)| *row).collect();
            take(&rows)
        });
    }
    let mut inputs = vec![SortedRows::Memory(in_memory.into_iter())];
    inputs.extend(
        RunReader::all(parts.iter().map(|part| &part.runs))
            .into_iter()
            .map(|run| SortedRows::Run(run, names)),
    );
    let mut merge = Merge::new(inputs)?;
    loop {
        let mut rows: Vec<R> = Vec::with_capacity(batch);
        while rows.len() < batch
            && let Some(row) = merge.next()?
        {
            rows.push(row);
        }
        if rows.is_empty() {
            return Ok(());
        }
        take(&rows.iter().collect::<Vec<_>>())?;
    }
}

/// Returns rows as texts of [`CHUNK`] lines each, the last of which may have less.
fn lines<R: ViewRow>(rows: &[&R], names: &Names) -> Vec<Vec<u8>> {
    let format = |chunk: &[&R]| {
        let mut labels = Labels::new(names);
        let mut text = Vec::with_capacity(chunk.len() * 320);
        chunk.iter().for_each(|row| row.line(&mut labels, &mut text));
        text
    };
    rows.par_chunks(CHUNK).map(format).collect()
}

fn late_view(
    late: Vec<Sorter>,
    names: &Names,
    partitions: &[PartitionInfo],
    file: &mut ViewFile,
) -> anyhow::Result<u64> {
    let (mut labels, mut line) = (Labels::new(names), Vec::new());
    let count = Sorter::merge(late, |late| {
        line.clear();
        late_line(late, &mut labels, partitions, &mut line);
        file.line(&line)
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::num::NonZeroUsize;

    use keytide_dataflow::model::{Definition, KeyId, Position, RequestId, Tick};

    use super::*;

    const TICK: Tick = 1;

    /// Two workers' results: rows of a key that has a name on the first, its late event on the second.
    fn results(folder: &Path, partitions: &[PartitionInfo], spill_after: &[u64]) -> Vec<Collect> {
        let new = || Collect::new(folder, partitions, NonZeroUsize::MIN, Keep::Views, &Names::default());
        let mut workers = [new(), new()];
        for number in 0..20_u64 {
            let name = format!("key-{}", number * 7 % 20);
            let key = KeyId::from_name(&name);
            let owner = &mut workers[(number % 2) as usize];
            owner.define(TICK, vec![Definition::Key { id: key, name: name.into(), month: None }]);
            let value =
                OwnedUsage { usage: Usage { calls: number, ..Usage::default() }, owner: Owner::default() };
            let row = |level, start| Row { group: key, level, start, value, complete: true, is_final: false };
            owner.rows(TICK, Rows::Usage(vec![row(Level::Hour, 3_600_000), row(Level::Minute, 3_660_000)]));
            let late = Late {
                position: Position { partition: (number % 3) as u32, offset: 100 - number, index: 0 },
                key,
                request: RequestId::from_bits(number.into()),
                time: number,
                late_ms: 1,
                counted: true,
                proven: number % 2 == 0,
            };
            workers[(number / 2 % 2) as usize].late(TICK, vec![late]);
            if spill_after.contains(&number) {
                workers.iter_mut().for_each(|worker| worker.spill_largest().unwrap());
            }
        }
        workers.into()
    }

    #[test]
    fn rows_that_were_spilled_are_written_as_if_they_had_not_been() {
        let partition = |source: &str, number| PartitionInfo {
            source: source.into(),
            source_index: 0,
            number,
            path: None,
        };
        let partitions = [partition("b", 0), partition("b", 1), partition("a", 0)];
        let write = |spill_after: &[u64], threads| {
            let folder = tempfile::tempdir().unwrap();
            let collected = results(folder.path(), &partitions, spill_after);
            let job = JobInfo { config: "", partitions: &partitions };
            let views = ViewFolder { path: folder.path(), format: FileFormat::JsonLines };
            let written =
                super::write(collected, job, views, threads, &mut |_| ActionRows::default()).unwrap();
            assert_eq!((written.rows[View::Usage], written.rows[View::Late]), (40, 20));
            ["usage", "late"].map(|view| {
                let mut text = String::new();
                let mut file = File::open(folder.path().join(format!("{view}.jsonl"))).unwrap();
                io::Read::read_to_string(&mut file, &mut text).unwrap();
                text
            })
        };
        let [usage, late] = write(&[], 1);
        assert!(usage.starts_with(r#"{"key_id":"key-0","window":"1h""#), "{usage}");
        assert!(late.starts_with(r#"{"source":"a","partition":0,"offset":83,"#), "{late}");
        assert!(late.contains(r#""key_id":"key-19""#), "{late}");
        for spill_after in [&[3][..], &[19], &[0, 9, 10, 18]] {
            assert_eq!(write(spill_after, 2), [usage.clone(), late.clone()], "{spill_after:?}");
        }
    }
}
