//! Rows as JSON lines, in the order of their key columns.
//!
//! A view's rows are sorted by ranks: each name's place among all names. Rows that a long run wrote to runs
//! before its end (see [`Sorter`]) have no ranks; then the rest is sorted by bytes with them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use hashbrown::HashMap;
use keytide_connectors::ingest::PartitionInfo;
use keytide_connectors::sink::encode::{EncodeRow, Labels, OfScope};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{EventTime, KeyId, NameId, RouteId};
use keytide_dataflow::*;
use rayon::prelude::*;
use serde::Serialize;

use super::collect::{Collect, Rowset, late_line};
use super::sorter::Sorter;

/// Rows that are formatted at once by one thread.
const CHUNK: usize = 1 << 14;

/// Rows by view.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct RowCounts {
    pub(super) usage: u64,
    pub(super) usage_by_route: u64,
    pub(super) latency: u64,
    pub(super) geo: u64,
    pub(super) callers: u64,
    pub(super) subscription_usage: u64,
    pub(super) late: u64,
    pub(super) dead_letters: u64,
}

/// What was written.
pub(super) struct Written {
    pub(super) rows: RowCounts,
    pub(super) counts: Counts,
}

/// A view's rows as they are sorted.
pub(super) trait ViewRow: EncodeRow + Send + Sync + Sized {
    /// Its place by ranks: names first, then the window's.
    fn rank(&self, ranks: &Ranks) -> (u64, u64);
    /// The same order as bytes.
    fn key(&self, names: &Names, out: &mut Vec<u8>);
    /// Names it needs.
    fn need(&self, names: &mut Names);
}

/// Places of names in their order.
pub(super) struct Ranks {
    keys: HashMap<KeyId, u32>,
    routes: HashMap<RouteId, u32>,
    scopes: HashMap<Scope, u32>,
    names: HashMap<NameId, u32>,
}

impl Ranks {
    fn new(names: &Names) -> Self {
        fn ranked<I: Copy + Ord + std::hash::Hash, T: Ord>(
            ids: impl Iterator<Item = (T, I)>,
        ) -> HashMap<I, u32> {
            let mut ids: Vec<(T, I)> = ids.collect();
            // Ids break ties of texts, so that the order is the same in every run.
            ids.sort_unstable();
            (0..).zip(ids).map(|(rank, (_, id))| (id, rank)).collect()
        }
        let keys = || names.keys().map(|(id, name)| (&*name.text, *id));
        Self {
            keys: ranked(keys()),
            routes: ranked(
                names
                    .routes()
                    .map(|(id, route)| ((&route.api.text, &route.method.text, &route.route.text), *id)),
            ),
            scopes: ranked(
                keys()
                    .map(|(text, id)| ((0, text), Scope::Key(id)))
                    .chain(names.routes().map(|(id, route)| ((1, &*route.id.text), Scope::Route(*id)))),
            ),
            names: ranked(names.others().map(|(id, name)| (&*name.text, *id))),
        }
    }
}

/// A level's place among the labels in alphabetical order.
fn level_rank(level: Level) -> u8 {
    match level {
        Level::Day => 0,
        Level::Hour => 1,
        Level::Minute => 2,
        Level::Month => 3,
        Level::FiveMinutes => 4,
    }
}

fn window_rank(level: Level, start: EventTime) -> u64 {
    u64::from(level_rank(level)) << 56 | start
}

fn window_key(level: Level, start: EventTime, out: &mut Vec<u8>) {
    out.extend_from_slice(&window_rank(level, start).to_be_bytes());
}

fn text_key(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn key_key(key: KeyId, names: &Names, out: &mut Vec<u8>) {
    text_key(&names.key_text(key), out);
    out.extend_from_slice(&key.0.to_be_bytes());
}

impl ViewRow for Row<KeyId, OwnedUsage> {
    fn rank(&self, ranks: &Ranks) -> (u64, u64) {
        (u64::from(ranks.keys[&self.group]), window_rank(self.level, self.start))
    }
    fn key(&self, names: &Names, out: &mut Vec<u8>) {
        key_key(self.group, names, out);
        window_key(self.level, self.start, out);
    }
    fn need(&self, names: &mut Names) {
        names.need_key(self.group);
    }
}

impl ViewRow for Row<KeyRoute, OwnedUsage> {
    fn rank(&self, ranks: &Ranks) -> (u64, u64) {
        let (key, route) = (ranks.keys[&self.group.key], ranks.routes[&self.group.route]);
        (u64::from(key) << 32 | u64::from(route), window_rank(self.level, self.start))
    }
    fn key(&self, names: &Names, out: &mut Vec<u8>) {
        key_key(self.group.key, names, out);
        let route = names.route(self.group.route);
        for part in [&route.api, &route.method, &route.route] {
            text_key(&part.text, out);
        }
        window_key(self.level, self.start, out);
    }
    fn need(&self, names: &mut Names) {
        names.need_key(self.group.key);
        names.need_route(self.group.route);
    }
}

fn need_scope(scope: Scope, names: &mut Names) {
    match scope {
        Scope::Key(key) => names.need_key(key),
        Scope::Route(route) => names.need_route(route),
    }
}

fn scope_key(scope: Scope, names: &Names, out: &mut Vec<u8>) {
    out.push(u8::from(matches!(scope, Scope::Route(_))));
    text_key(&names.scope_text(scope), out);
    match scope {
        Scope::Key(key) => out.extend_from_slice(&key.0.to_be_bytes()),
        Scope::Route(route) => out.extend_from_slice(&route.0.to_be_bytes()),
    }
}

impl<V: OfScope> ViewRow for Row<Scope, V> {
    fn rank(&self, ranks: &Ranks) -> (u64, u64) {
        (u64::from(ranks.scopes[&self.group]), window_rank(self.level, self.start))
    }
    fn key(&self, names: &Names, out: &mut Vec<u8>) {
        scope_key(self.group, names, out);
        window_key(self.level, self.start, out);
    }
    fn need(&self, names: &mut Names) {
        need_scope(self.group, names);
    }
}

impl ViewRow for Row<KeyCountry, Geo> {
    fn rank(&self, ranks: &Ranks) -> (u64, u64) {
        let country = u64::from(u16::from_be_bytes(self.group.country.0));
        (u64::from(ranks.keys[&self.group.key]) << 16 | country, window_rank(self.level, self.start))
    }
    fn key(&self, names: &Names, out: &mut Vec<u8>) {
        key_key(self.group.key, names, out);
        out.extend_from_slice(&self.group.country.0);
        window_key(self.level, self.start, out);
    }
    fn need(&self, names: &mut Names) {
        names.need_key(self.group.key);
    }
}

impl ViewRow for Row<NameId, SubscriptionUsage> {
    fn rank(&self, ranks: &Ranks) -> (u64, u64) {
        (
            u64::from(ranks.names.get(&self.group).copied().unwrap_or(u32::MAX)),
            window_rank(self.level, self.start),
        )
    }
    fn key(&self, names: &Names, out: &mut Vec<u8>) {
        text_key(names.text(self.group), out);
        window_key(self.level, self.start, out);
    }
    fn need(&self, _: &mut Names) {}
}

/// Writes all views.
pub(super) fn write(
    collected: Vec<Collect>,
    partitions: &[PartitionInfo],
    folder: &Path,
    threads: usize,
) -> anyhow::Result<Written> {
    let mut collected = collected.into_iter();
    let mut all = collected.next().context("a run has at least one worker")?;
    for other in collected {
        all.merge(other);
    }
    all.need();
    let ranks = Ranks::new(&all.names);
    let Collect { names, counts, usage, usage_by_route, latency, geo, callers, subscription_usage, .. } = all;
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("starting threads failed")?;
    let file = |view: &str| folder.join(format!("{view}.jsonl"));
    let rows = pool.install(|| {
        let (mut labels, mut line) = (Labels::new(&names), Vec::new());
        anyhow::Ok(RowCounts {
            usage: view(usage, &names, &ranks, &file("usage"))?,
            usage_by_route: view(usage_by_route, &names, &ranks, &file("usage_by_route"))?,
            latency: view(latency, &names, &ranks, &file("latency"))?,
            geo: view(geo, &names, &ranks, &file("geo"))?,
            callers: view(callers, &names, &ranks, &file("callers"))?,
            subscription_usage: view(subscription_usage, &names, &ranks, &file("subscription_usage"))?,
            late: merged(all.late, &file("late"), |late, out| {
                line.clear();
                late_line(late, &mut labels, partitions, &mut line);
                out.write_all(&line)
            })?,
            dead_letters: merged(all.dead_letters, &file("dead_letters"), |line, out| out.write_all(line))?,
        })
    })?;
    Ok(Written { rows, counts })
}

fn view<R: ViewRow>(rowset: Rowset<R>, names: &Names, ranks: &Ranks, path: &Path) -> anyhow::Result<u64> {
    let Rowset { rows, mut spilled } = rowset;
    if !spilled.is_empty() {
        let mut rest = Sorter::new(path.parent().unwrap_or(path));
        add_lines(&rows, names, &mut rest)?;
        spilled.push(rest);
        return merged(spilled, path, |line, out| out.write_all(line));
    }
    let mut order: Vec<((u64, u64), usize)> =
        rows.par_iter().enumerate().map(|(index, row)| (row.rank(ranks), index)).collect();
    order.par_sort_unstable();
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        for part in order.chunks(CHUNK * 2 * rayon::current_num_threads()) {
            let texts: Vec<Vec<u8>> = part
                .par_chunks(CHUNK)
                .map(|chunk| {
                    let mut labels = Labels::new(names);
                    let mut text = Vec::with_capacity(chunk.len() * 320);
                    for (_, index) in chunk {
                        rows[*index].line(&mut labels, &mut text);
                    }
                    text
                })
                .collect();
            for text in texts {
                file.write_all(&text)?;
            }
        }
        Ok(())
    };
    write().with_context(|| format!("writing {} failed", path.display()))?;
    Ok(rows.len() as u64)
}

/// Adds rows to a sorter of lines.
pub(super) fn add_lines<R: ViewRow>(rows: &[R], names: &Names, sorter: &mut Sorter) -> io::Result<()> {
    let mut labels = Labels::new(names);
    for row in rows {
        sorter.add(|key| row.key(names, key), |line| row.line(&mut labels, line))?;
    }
    Ok(())
}

fn merged(
    sorters: Vec<Sorter>,
    path: &Path,
    line: impl FnMut(&[u8], &mut BufWriter<File>) -> io::Result<()>,
) -> anyhow::Result<u64> {
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let count = Sorter::merge(sorters, &mut file, line)?;
        file.flush()?;
        io::Result::Ok(count)
    };
    write().with_context(|| format!("writing {} failed", path.display()))
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::{Definition, Position, RequestId, Tick};

    use super::*;

    const TICK: Tick = 1;

    /// Two workers' results: rows of a key that has a name on the first, its late event on the second.
    fn results(folder: &Path, partitions: &[PartitionInfo], spill_after: &[u64]) -> Vec<Collect> {
        let mut workers = [Collect::new(folder, partitions), Collect::new(folder, partitions)];
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
                request: RequestId(u128::from(number)),
                time: number,
                late_ms: 1,
                counted: true,
            };
            workers[(number / 2 % 2) as usize].late(TICK, vec![late]);
            if spill_after.contains(&number) {
                workers.iter_mut().for_each(|worker| worker.spill().unwrap());
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
            let written = super::write(collected, &partitions, folder.path(), threads).unwrap();
            assert_eq!((written.rows.usage, written.rows.late), (40, 20));
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
