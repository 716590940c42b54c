//! Series of files of jobs that are killed, stopped, and go on from a checkpoint, against those of one that never was
//! interrupted.
//!
//! A life ends before any change of the disk, or within a write, also while an earlier memory is restored. A machine
//! that loses power takes what wasn't synced. The model of a job is: the newest stored memory, and the tick behind it.

use std::collections::BTreeMap;
use std::ops::Range;

use keytide_config::FileSink;
use proptest::prelude::*;
use serde_json::Value;

use super::death::{self, Death};
use super::*;
use crate::kafka::ErrorClass;
use crate::sink::tests::{json_rows, lines, parquet_rows, read};
use crate::store::KEPT;

const VIEWS: [View; 2] = [View::Usage, View::Callers];

/// A tick of a script.
#[derive(Clone, Debug)]
struct ScriptTick {
    /// The time since the tick before it, in ms.
    after_ms: u64,
    /// The rows of each of [`VIEWS`].
    rows: [u64; VIEWS.len()],
    checkpoint: Checkpoint,
}

/// The fate of the checkpoint at the end of a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Checkpoint {
    None,
    /// It can't be written, and its memory is lost.
    Failed,
    /// It is stored, which the files learn so many ticks later.
    Stored {
        after: usize,
    },
}

/// How a life of a job ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed {
        after: u64,
        last_bytes: usize,
    },
    /// The machine lost power, too: of the bytes that weren't synced so many thousandths are left.
    Crashed {
        after: u64,
        left: u64,
    },
    /// It was asked to stop before this tick.
    Stopped {
        before: usize,
    },
    AfterAll,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    format: FileFormat,
    /// The newest checkpoints that it doesn't go on from, because they were deleted.
    deleted: usize,
    end: End,
}

struct Script {
    sink: FileSink,
    ticks: Vec<ScriptTick>,
}

/// The durable state of a job: the memories of the newest checkpoints, each with the first tick that isn't in it.
#[derive(Default)]
struct Durable {
    checkpoints: Vec<(usize, FilesMemory)>,
}

impl Durable {
    fn store(&mut self, next: usize, memory: FilesMemory) {
        self.checkpoints.push((next, memory));
        let surplus = self.checkpoints.len().saturating_sub(KEPT);
        self.checkpoints.drain(..surplus);
    }

    /// Returns the newest one, after somebody has deleted so many that are newer.
    fn newest(&mut self, deleted: usize) -> Option<(usize, FilesMemory)> {
        let left = self.checkpoints.len().saturating_sub(deleted).max(1);
        self.checkpoints.truncate(left);
        self.checkpoints.last().cloned()
    }
}

fn row(view: View, number: u64) -> Vec<u8> {
    let start = r#""window":"1h","window_start":"2023-11-14T22:00:00Z""#;
    match view {
        View::Callers => format!(
            r#"{{"scope":"key","id":"k{number}",{start},"callers":{number},"exact":true,"complete":true,"final":false}}"#
        ),
        _ => format!(
            r#"{{"key_id":"k{number}",{start},"calls":{number},"errors_4xx":0,"errors_5xx":0,"bytes_in":4,"bytes_out":5,"latency_sum_us":0,"latency_calls":0,"free_calls":0,"units":0,"subscription":null,"customer":null,"plan":null,"complete":true,"final":false}}"#
        ),
    }
    .into_bytes()
}

impl Script {
    /// The time of a tick, and the numbers of its rows of a view.
    fn tick(&self, index: usize, view: usize) -> (Tick, Range<u64>) {
        let time = self.ticks[..=index].iter().map(|tick| tick.after_ms).sum::<u64>();
        let first = self.ticks[..index].iter().map(|tick| tick.rows[view]).sum::<u64>();
        (time, first..first + self.ticks[index].rows[view])
    }

    /// The lines of a view as they are without any interruption.
    fn expected(&self, view: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for index in 0..self.ticks.len() {
            let (tick, rows) = self.tick(index, view);
            lines.extend(rows.map(|number| {
                let row = String::from_utf8(row(VIEWS[view], number)).unwrap();
                format!("{},\"tick\":{tick},\"version\":{}}}", row.strip_suffix('}').unwrap(), number + 1)
            }));
        }
        lines
    }

    /// Lives until the end of the life or its last tick; returns whether that was reached.
    fn live(&self, life: Life, durable: &mut Durable) -> bool {
        match life.end {
            End::Killed { after, last_bytes } => death::live(Some(Death { after, last_bytes })),
            End::Crashed { after, .. } => death::live(Some(Death { after, last_bytes: usize::MAX })),
            End::Stopped { .. } | End::AfterAll => death::live(None),
        }
        let result = self.try_live(life, durable);
        let is_dead = death::is_dead();
        death::live(None);
        match result {
            Ok(()) => !is_dead,
            Err(_) if is_dead => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_live(&self, life: Life, durable: &mut Durable) -> Result<(), SinkError> {
        let sink = FileSink { format: life.format, ..self.sink.clone() };
        let (first, memory) =
            durable.newest(life.deleted).map_or((0, None), |(first, memory)| (first, Some(memory)));
        let mut files = SeriesOfViews::open(&sink, memory.as_ref())?;
        if memory.is_none() {
            // No row is written before the first checkpoint.
            durable.store(0, files.memory()?);
        }
        // The memories of stored checkpoints, each with the tick at which the files learn it.
        let mut stored: Vec<(usize, FilesMemory)> = Vec::new();
        let last = match life.end {
            End::Stopped { before } => before.min(self.ticks.len()).max(first),
            _ => self.ticks.len(),
        };
        for index in first..last {
            let mut time = 0;
            for (at, view) in VIEWS.into_iter().enumerate() {
                let (tick, mut rows) = self.tick(index, at);
                rows.try_for_each(|number| files.row(view, tick, &row(view, number)))?;
                time = tick;
            }
            files.end_tick(time)?;
            let is_last = index + 1 == last;
            let checkpoint = self.ticks[index].checkpoint;
            if checkpoint != Checkpoint::None || is_last {
                let memory = files.memory()?;
                if checkpoint != Checkpoint::Failed || is_last {
                    durable.store(index + 1, memory.clone());
                }
                if let Checkpoint::Stored { after } = checkpoint {
                    stored.push((index + after, memory));
                }
            }
            let known = stored.iter().take_while(|(known, _)| *known <= index).count();
            stored.drain(..known).try_for_each(|(_, memory)| files.stored(&memory))?;
        }
        files.flush()?;
        if last == self.ticks.len() && matches!(life.end, End::AfterAll) {
            // Three checkpoints later no restore needs what came before.
            for _ in 0..=KEPT {
                let memory = files.memory()?;
                files.stored(&memory)?;
            }
        }
        Ok(())
    }

    /// Takes from the disk what a crash of the machine may take: bytes of files that weren't synced.
    fn lose_power(&self, left: u64) {
        for name in files(&self.sink.dir).into_keys() {
            let file = File::options().write(true).open(self.sink.dir.join(name)).unwrap();
            let (length, synced) = (file.metadata().unwrap().len(), death::synced(&file));
            file.set_len(synced + (length - synced) * left / 1_000).unwrap();
        }
    }

    /// Lives all lives, and then to the end.
    fn live_all(&self, lives: &[Life], format: FileFormat) {
        let mut durable = Durable::default();
        for life in lives {
            let _ = self.live(*life, &mut durable);
            if let End::Crashed { left, .. } = life.end {
                self.lose_power(left);
            }
        }
        assert!(self.live(Life { format, deleted: 0, end: End::AfterAll }, &mut durable), "it isn't killed");
    }

    /// Checks that the rows that are left are the newest, each once, and all of them if all are kept.
    fn check(&self) {
        let all = files(&self.sink.dir);
        let leftover = |name: &&String| [".open", ".kept", ".part"].iter().any(|end| name.ends_with(end));
        assert_eq!(all.keys().find(leftover), None);
        for (at, view) in VIEWS.into_iter().enumerate() {
            let expected = json_rows(view, &self.expected(at));
            let mut rows = Vec::new();
            for (name, _) in all.iter().filter(|(name, _)| parse(name).is_some_and(|(of, ..)| of == view)) {
                rows.extend(if name.ends_with(".parquet") {
                    parquet_rows(&self.sink.dir.join(name))
                } else {
                    json_rows(view, &lines(&self.sink.dir, name))
                });
            }
            let first = expected.len().checked_sub(rows.len());
            let first = first.unwrap_or_else(|| panic!("{} of {} rows", rows.len(), expected.len()));
            if self.sink.keep == 0 {
                assert_eq!(first, 0, "rows are missing");
            }
            if !expected.is_empty() {
                assert!(!rows.is_empty());
            }
            assert_eq!(rows, expected[first..]);
        }
    }
}

/// All files of a folder but the statements for databases.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| parse(name).is_some()).map(|name| (name.clone(), read(&dir.join(name)))).collect()
}

fn copy(from: &Path, to: &Path) {
    files(from).into_iter().for_each(|(name, bytes)| fs::write(to.join(name), bytes).unwrap());
}

fn sink(dir: &Path, rotate_bytes: u64, keep: u32) -> FileSink {
    FileSink { rotate_bytes, rotate_after_ms: 1_000, keep, ..FileSink::new(dir) }
}

fn ticks(ticks: &[(u64, u64, u64, Checkpoint)]) -> Vec<ScriptTick> {
    let tick =
        |&(after_ms, usage, callers, checkpoint)| ScriptTick { after_ms, rows: [usage, callers], checkpoint };
    ticks.iter().map(tick).collect()
}

/// A script with files that are closed by length, by age, and without a row; with stored and failed checkpoints.
fn small() -> Vec<ScriptTick> {
    use Checkpoint::{Failed, None, Stored};
    ticks(&[
        (100, 2, 1, None),
        (100, 1, 0, Stored { after: 0 }),
        (100, 1, 0, None),
        (100, 3, 1, None),
        (100, 1, 0, Failed),
        (599, 0, 0, Stored { after: 2 }),
        // The first file of callers is exactly as old as files get.
        (1, 1, 1, None),
        (100, 1, 1, Stored { after: 0 }),
        (100, 1, 0, None),
        (100, 2, 0, None),
    ])
}

/// The points of an uninterrupted run at which it can be killed.
fn points(format: FileFormat, ticks: Vec<ScriptTick>) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let script = Script { sink: sink(folder.path(), 1_000, 2), ticks };
    let never = End::Killed { after: u64::MAX, last_bytes: 0 };
    script.live(Life { format, deleted: 0, end: never }, &mut Durable::default());
    death::passed()
}

#[test]
fn a_job_that_is_killed_at_any_change_of_the_disk_ends_with_the_files_of_one_that_was_not() {
    for format in FileFormat::ALL {
        let reference = tempfile::tempdir().unwrap();
        let script = Script { sink: sink(reference.path(), 1_000, 2), ticks: small() };
        script.live_all(&[], format);
        script.check();
        let expected = files(reference.path());
        let points = points(format, small());
        assert!(points > 20, "{points}");
        for after in 0..=points {
            for last_bytes in [0, 1, 300, usize::MAX] {
                let folder = tempfile::tempdir().unwrap();
                let script = Script { sink: sink(folder.path(), 1_000, 2), ticks: small() };
                let life = Life { format, deleted: 0, end: End::Killed { after, last_bytes } };
                script.live_all(&[life], format);
                script.check();
                if format == FileFormat::JsonLines {
                    assert_eq!(files(folder.path()), expected, "{life:?}");
                }
            }
        }
    }
}

#[test]
fn a_restore_that_is_killed_itself_is_done_again() {
    for format in FileFormat::ALL {
        for after in (0..=points(format, small())).step_by(3) {
            for again in 0..14 {
                let folder = tempfile::tempdir().unwrap();
                let script = Script { sink: sink(folder.path(), 1_000, 0), ticks: small() };
                let killed = |after| Life { format, deleted: 0, end: End::Killed { after, last_bytes: 7 } };
                script.live_all(&[killed(after), killed(again)], format);
                script.check();
            }
        }
    }
}

#[test]
fn an_open_file_may_be_cut_anywhere_behind_the_memory() {
    for format in FileFormat::ALL {
        let ticks = || ticks(&[(1, 2, 1, Checkpoint::Stored { after: 0 }), (1, 2, 0, Checkpoint::None)]);
        let killed = |after| {
            let folder = tempfile::tempdir().unwrap();
            let script = Script { sink: sink(folder.path(), 1 << 20, 0), ticks: ticks() };
            let mut durable = Durable::default();
            let end = End::Killed { after, last_bytes: usize::MAX };
            script.live(Life { format, deleted: 0, end }, &mut durable);
            (folder, script, durable)
        };
        // Killed as late as possible before the second checkpoint, so at the end of the last write.
        let mut killed = (0..points(format, ticks())).rev().map(killed);
        let is_first = |(_, _, durable): &(_, _, Durable)| {
            durable.checkpoints.last().is_some_and(|(next, _)| *next == 1)
        };
        let (folder, script, mut durable) = killed.find(is_first).unwrap();
        let (next, memory) = durable.newest(0).unwrap();
        let series = memory.series(View::Usage).unwrap();
        let (number, synced) = (series.number, series.open.unwrap().length);
        let open = open_path(&FileSink { format, ..script.sink.clone() }, View::Usage, number);
        let name = open.file_name().unwrap();
        let length = fs::metadata(&open).unwrap().len();
        assert!(length > synced + 100, "{length}");
        for length in synced..=length {
            let copied = tempfile::tempdir().unwrap();
            copy(folder.path(), copied.path());
            let script = Script { sink: sink(copied.path(), 1 << 20, 0), ticks: ticks() };
            File::options().write(true).open(copied.path().join(name)).unwrap().set_len(length).unwrap();
            let memory = FilesMemory { dir: copied.path().display().to_string(), ..memory.clone() };
            let mut durable = Durable { checkpoints: vec![(next, memory)] };
            assert!(script.live(Life { format, deleted: 0, end: End::AfterAll }, &mut durable));
            script.check();
        }
    }
}

#[test]
fn a_job_never_goes_on_from_less_than_its_memory_and_then_changes_nothing() {
    for format in FileFormat::ALL {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let sink = FileSink { format, ..sink(dir, 1 << 20, 0) };
        let mut files_of_job = SeriesOfViews::open(&sink, None).unwrap();
        let write = |files: &mut SeriesOfViews, tick| {
            files.row(View::Usage, tick, &row(View::Usage, tick)).unwrap();
            files.row(View::Callers, tick, &row(View::Callers, tick)).unwrap();
            files.end_tick(tick).unwrap();
        };
        write(&mut files_of_job, 1);
        let memory = files_of_job.memory().unwrap();
        write(&mut files_of_job, 2);
        drop(files_of_job);
        let open = open_path(&sink, View::Callers, 1);
        let whole = read(&open);
        let first_row = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let cases: [(&str, Option<&[u8]>); 3] = [
            ("is missing", None),
            ("but the checkpoint goes on behind its first", Some(&whole[..first_row - 1])),
            ("has other rows", Some(&[&b" "[..], &whole[first_row..]].concat())),
        ];
        for (reason, bytes) in cases {
            match bytes {
                None => fs::remove_file(&open).unwrap(),
                Some(bytes) => fs::write(&open, bytes).unwrap(),
            }
            let before = files(dir);
            let error = SeriesOfViews::open(&sink, Some(&memory)).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Fatal);
            let error = error.to_string();
            assert!(error.contains(reason) && error.contains("callers-000001"), "{error}");
            assert_eq!(files(dir), before);
        }
        fs::write(&open, &whole).unwrap();
        SeriesOfViews::open(&sink, Some(&memory)).unwrap();
        assert_eq!(read(&open), whole[..first_row]);
    }
}

#[test]
fn a_memory_of_another_folder_or_without_a_view_leaves_files_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink(folder.path(), 1 << 20, 0);
    let mut files_of_job = SeriesOfViews::open(&sink, None).unwrap();
    let memory = files_of_job.memory().unwrap();
    files_of_job.row(View::Usage, 1, &row(View::Usage, 0)).unwrap();
    files_of_job.row(View::Callers, 1, &row(View::Callers, 0)).unwrap();
    files_of_job.end_tick(1).unwrap();
    let before = files(folder.path());
    let elsewhere = FilesMemory { dir: "elsewhere".to_owned(), ..memory.clone() };
    SeriesOfViews::open(&sink, Some(&elsewhere)).unwrap();
    assert_eq!(files(folder.path()), before);
    let mut older = memory;
    older.views.remove(View::Callers.name());
    let mut files_of_job = SeriesOfViews::open(&sink, Some(&older)).unwrap();
    assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), ["callers-000001.jsonl"]);
    files_of_job.row(View::Callers, 2, &row(View::Callers, 1)).unwrap();
    files_of_job.end_tick(2).unwrap();
    let versions: Vec<Value> = json_rows(View::Callers, &lines(folder.path(), "callers-000001.jsonl"))
        .into_iter()
        .map(|row| row["version"].clone())
        .collect();
    assert_eq!(versions, [1, 2]);
}

#[test]
fn files_for_a_restore_stay_until_three_later_checkpoints_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink { format: FileFormat::Parquet, ..sink(folder.path(), 1, 1) };
    let names = || files(folder.path()).into_keys().collect::<Vec<_>>();
    let mut files_of_job =
        SeriesOfViews::open(&FileSink { rotate_bytes: 1 << 20, ..sink.clone() }, None).unwrap();
    files_of_job.row(View::Usage, 1, &row(View::Usage, 0)).unwrap();
    files_of_job.end_tick(1).unwrap();
    let first = files_of_job.memory().unwrap();
    drop(files_of_job);
    let mut files_of_job = SeriesOfViews::open(&sink, Some(&first)).unwrap();
    for tick in 2..5 {
        files_of_job.row(View::Usage, tick, &row(View::Usage, tick)).unwrap();
        files_of_job.end_tick(tick).unwrap();
    }
    assert_eq!(names(), ["usage-000001.jsonl.kept", "usage-000003.parquet"]);
    for stored in 1..=KEPT {
        assert_eq!(names().len(), 2, "after {stored} checkpoints, that of the earlier life included");
        let memory = files_of_job.memory().unwrap();
        files_of_job.stored(&memory).unwrap();
    }
    assert_eq!(names(), ["usage-000003.parquet"]);
    drop(files_of_job);
    // Lines that a restore needs aren't deleted as surplus before.
    let lines = FileSink { format: FileFormat::JsonLines, rotate_bytes: 1 << 20, ..sink.clone() };
    let mut files_of_job = SeriesOfViews::open(&lines, None).unwrap();
    files_of_job.row(View::Usage, 5, &row(View::Usage, 5)).unwrap();
    files_of_job.end_tick(5).unwrap();
    let open = files_of_job.memory().unwrap();
    files_of_job.stored(&open).unwrap();
    for tick in [2_000, 2_001, 3_001, 4_001] {
        files_of_job.row(View::Usage, tick, &row(View::Usage, tick)).unwrap();
        files_of_job.end_tick(tick).unwrap();
    }
    assert!(names().contains(&"usage-000004.jsonl".to_owned()), "{:?}", names());
    for _ in 0..KEPT {
        let memory = files_of_job.memory().unwrap();
        files_of_job.stored(&memory).unwrap();
    }
    assert!(!names().contains(&"usage-000004.jsonl".to_owned()), "{:?}", names());
}

#[test]
fn a_checkpoint_that_may_be_stored_already_keeps_its_files_while_the_next_is_taken() {
    let memory = |number| {
        let open = Some(OpenMemory { length: 9, begun: None });
        let series = SeriesMemory { number, version: number, open };
        FilesMemory { dir: String::new(), views: BTreeMap::from([(View::Usage.name().to_owned(), series)]) }
    };
    let mut restores = Restores::from(None);
    assert!(!restores.need(View::Usage, 1), "nothing is kept without a checkpoint");
    restores.taken(&memory(1));
    restores.taken(&memory(2));
    let needs = |restores: &Restores| {
        (1..=4).filter(|number| restores.need(View::Usage, *number)).collect::<Vec<_>>()
    };
    assert_eq!(needs(&restores), [1, 2]);
    restores.stored(&memory(2));
    assert_eq!(needs(&restores), [2], "the first one never was stored");
    for number in 3..=4 {
        restores.taken(&memory(number));
        restores.stored(&memory(number));
    }
    assert_eq!(needs(&restores), [2, 3, 4]);
    restores.taken(&memory(5));
    restores.stored(&memory(5));
    assert_eq!(needs(&restores), [3, 4]);
    assert_eq!(needs(&Restores::from(Some(&memory(3)))), [1, 2, 3], "an earlier checkpoint may need them");
}

#[test]
fn a_memory_survives_its_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let mut files_of_job = SeriesOfViews::open(&sink(folder.path(), 1 << 20, 0), None).unwrap();
    files_of_job.row(View::Usage, 7, &row(View::Usage, 0)).unwrap();
    files_of_job.end_tick(7).unwrap();
    let memory = files_of_job.memory().unwrap();
    let bytes = postcard::to_stdvec(&memory).unwrap();
    assert_eq!(postcard::from_bytes::<FilesMemory>(&bytes).unwrap(), memory);
}

fn arbitrary_tick() -> impl Strategy<Value = ScriptTick> {
    let checkpoint = prop_oneof![
        4 => Just(Checkpoint::None),
        1 => Just(Checkpoint::Failed),
        3 => (0..3_usize).prop_map(|after| Checkpoint::Stored { after }),
    ];
    let after_ms = prop_oneof![4 => 1..200_u64, 1 => 900..1_100_u64];
    let rows = [prop_oneof![1 => Just(0), 3 => 1..6_u64], prop_oneof![3 => Just(0), 1 => 1..3_u64]];
    (after_ms, rows, checkpoint).prop_map(|(after_ms, rows, checkpoint)| ScriptTick {
        after_ms,
        rows,
        checkpoint,
    })
}

fn arbitrary_end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => (0..120_u64, 0..600_usize).prop_map(|(after, last_bytes)| End::Killed { after, last_bytes }),
        2 => (0..120_u64, 0..=1_000_u64).prop_map(|(after, left)| End::Crashed { after, left }),
        1 => (0..30_usize).prop_map(|before| End::Stopped { before }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_job_that_is_interrupted_any_number_of_times_ends_with_the_rows_of_one_that_was_not(
        ticks in prop::collection::vec(arbitrary_tick(), 1..30),
        rotate_bytes in prop_oneof![2 => 1..3_000_u64, 1 => Just(1 << 20)],
        keep in 0..3_u32,
        formats in prop::collection::vec(any::<bool>(), 6),
        is_mixed in any::<bool>(),
        ends in prop::collection::vec((arbitrary_end(), prop_oneof![4 => Just(0), 1 => 1..3_usize]), 0..6),
    ) {
        let format = |life: usize| match formats[if is_mixed { life } else { 0 }] {
            true => FileFormat::Parquet,
            false => FileFormat::JsonLines,
        };
        let life = |(at, (end, deleted)): (usize, &(End, usize))| Life { format: format(at), deleted: *deleted, end: *end };
        let lives: Vec<Life> = ends.iter().enumerate().map(life).collect();
        let folder = tempfile::tempdir().unwrap();
        let script = Script { sink: sink(folder.path(), rotate_bytes, keep), ticks: ticks.clone() };
        script.live_all(&lives, format(5));
        script.check();
        if (0..6).all(|life| format(life) == FileFormat::JsonLines) {
            let reference = tempfile::tempdir().unwrap();
            let script = Script { sink: sink(reference.path(), rotate_bytes, keep), ticks };
            script.live_all(&[], FileFormat::JsonLines);
            assert_eq!(files(folder.path()), files(reference.path()));
        }
    }
}
