//! Results as files, `DIR/<view>-<number>.jsonl` or `.parquet`, written tick by tick.
//!
//! ```text
//! jsonl     usage-000001.jsonl  (closed)   usage-000002.jsonl       (open: rows of each tick are appended)
//! parquet   usage-000001.parquet (closed)  usage-000002.jsonl.open  (open: a journal of the same lines)
//!                                                └── when it is closed ──► usage-000002.parquet
//! ```
//! The first row of a view begins a file. It ends between ticks once it is long or old enough, and is never written
//! again. Numbers have six digits or more and only grow, also over restarts: a new run goes on with the last file.
//! If a killed process left half a row behind the last newline, it is cut off when the folder is opened. A file
//! without a row is removed.
//!
//! A row has two columns more than on its topic: its tick, and its version. Versions count the rows of a view from 1
//! on, and a new run goes on behind the last row. So of several rows of a key the one with the greatest version is the
//! newest, whatever became of the clock that ticks follow.
//!
//! **Parquet** can't be read before its end is written. So the open file is a journal of JSON lines, as safe as a file
//! of that format. When it is closed its rows become a Parquet file of a temporary name, which is renamed once it is on
//! disk; then the journal is removed. So readers never see half a file, and see a row when its file is closed: by size
//! (of the journal), by age, or at the end of the job. What a killed process left becomes a file when the folder is
//! opened again, and so does a journal if the format was changed.
//!
//! **Checkpoints.** A job with a state goes back to the [`FilesMemory`] of its checkpoint and writes the ticks behind it
//! again, so that its files are as if it had never been interrupted. Until three later checkpoints are stored, a restore
//! may need a file that was open in one of them. So the journal of a Parquet file is kept as `<view>-<number>.jsonl.kept`,
//! and `keep` deletes files of JSON lines later. A memory of another folder is ignored, and the files there go on as after a
//! stop without a state. Another format goes on from the memory, too.
//!
//! A tick's rows reach the system when the tick ends, and the disk when a file is closed, with a checkpoint, or on
//! [`flush`](SeriesOfViews::flush). Until then a crash of the machine, but not of the process, may lose them.
//!
//! The folder has the statements of [`sql`]. They are written anew when a view gets its first file.
//!
//! Limits: a file's age counts, in the time of ticks, from the first tick that this process or, with a state, an earlier
//! one wrote to it. At most 1 MiB of rows is held between writes. A row of a journal has at most 64 MiB. The publisher
//! waits while a Parquet file is made, 1.6 us of CPU a row and 0.3 s for 64 MiB of rows; `rotate_bytes` bounds them. A
//! folder belongs to one job.

mod death;
mod disk;
mod memory;
mod paths;
mod tail;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _};
use std::path::Path;

use keytide_config::{FileFormat, FileSink, View};
use keytide_dataflow::model::Tick;

use self::disk::{append, create, cut, failed, open_to_append, remove, rename, sync, sync_folder};
pub use self::memory::FilesMemory;
use self::memory::{OpenMemory, Restores, SeriesMemory};
use self::paths::{FileState, journal, kept, open_path, parse, path};
use self::tail::{VERSION, last_version, repaired};
use super::SinkError;
use super::columns::columns;
use super::encode::number;
use super::sql::{self, ViewFiles};
use crate::columnar::{Batch, ParquetFile, note};

/// The number of bytes of rows that are held between writes.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes of a row of a journal, at most.
const MAX_ROW_BYTES: u64 = 64 << 20;
/// Rows, and bytes of their texts, that are made into columns at once.
const BATCH: (usize, usize) = (4_096, 4 << 20);

/// The series of files of all views.
#[derive(Debug)]
pub(super) struct SeriesOfViews {
    sink: FileSink,
    series: [FileSeries; View::ALL.len()],
    /// The formats of each view's files when the statements were written.
    shown: Option<[Vec<FileFormat>; View::ALL.len()]>,
    restores: Restores,
}

/// The series of files of one view.
#[derive(Debug, Default)]
struct FileSeries {
    /// The number of the newest file; 0 if there is none.
    number: u64,
    /// True if the newest is an earlier run's, which may be continued.
    is_earlier: bool,
    /// The version of the last row; 0 if there is none.
    version: u64,
    /// Closed files, oldest first.
    closed: Vec<(u64, FileFormat)>,
    /// Journals of closed files that are kept for a restore.
    kept: Vec<u64>,
    /// The newest file, while it is written to.
    open: Option<OpenFile>,
    /// Rows of the open tick.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    length: u64,
    /// The first tick that was written to it.
    begun: Tick,
    /// True if the disk may lack some of it.
    dirty: bool,
    /// True if it is a file of JSON lines, and no journal.
    is_lines: bool,
}

impl SeriesOfViews {
    /// Makes the folder, and repairs files that a killed process left. With a `memory` of this folder, the files are
    /// brought back to it first, and their series go on exactly there.
    pub(super) fn open(sink: &FileSink, memory: Option<&FilesMemory>) -> Result<Self, SinkError> {
        let dir = &sink.dir;
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, error))?;
        let of_folder = memory.filter(|memory| memory.is_of(dir));
        if memory.is_some() && of_folder.is_none() {
            tracing::warn!(
                dir = %dir.display(),
                "the checkpoint was made with files in another folder: rows behind it may be in both"
            );
        }
        let memory = of_folder;
        if let Some(memory) = memory {
            memory.restore(dir)?;
        }
        let mut series: [FileSeries; View::ALL.len()] = Default::default();
        let mut journals = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| failed("list", dir, error))? {
            let entry = entry.map_err(|error| failed("list", dir, error))?;
            let Some((view, number, state)) = entry.file_name().to_str().and_then(parse) else { continue };
            match state {
                FileState::Closed(format) => series[view as usize].closed.push((number, format)),
                FileState::Journal => journals.push((view, number)),
                FileState::Kept if memory.is_some() => series[view as usize].kept.push(number),
                FileState::Kept | FileState::Part => remove(&entry.path())?,
            }
        }
        let restores = Restores::from(memory);
        let mut files = Self { sink: sink.clone(), series, shown: None, restores };
        let of_memory = |view| memory.and_then(|memory| memory.series(view));
        for (view, number) in journals {
            let goes_on =
                of_memory(view).is_some_and(|series| series.number == number && series.open.is_some());
            let is_closed = files.series[view as usize].closed.contains(&(number, FileFormat::Parquet));
            if is_closed || !goes_on || sink.format != FileFormat::Parquet {
                files.finish_journal(view, number)?;
            }
        }
        for view in View::ALL {
            files.find_newest(view)?;
            if let Some(memory) = of_memory(view) {
                files.go_on(view, memory)?;
            }
        }
        files.show()?;
        Ok(files)
    }

    /// Makes a file of a journal that an earlier run left.
    fn finish_journal(&mut self, view: View, number: u64) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let closed = &mut series[view as usize].closed;
        // It was killed between the last two steps.
        if closed.contains(&(number, FileFormat::Parquet)) {
            return self.retire(view, number);
        }
        let journal = journal(&sink.dir, view, number);
        let rows_end = repaired(&journal)?;
        if rows_end == 0 {
            return remove(&journal);
        }
        let to = path(&sink.dir, view, number, sink.format);
        let made = match sink.format {
            FileFormat::JsonLines => rename(&journal, &to).and_then(|()| sync_folder(&sink.dir)),
            FileFormat::Parquet => last_version(&journal, rows_end)
                .and_then(|version| make_parquet(view, &journal, &to, version)),
        };
        made.map_err(|error| failed("write", &to, error))?;
        closed.push((number, sink.format));
        if sink.format == FileFormat::Parquet { self.retire(view, number) } else { Ok(()) }
    }

    /// Puts away the journal of a Parquet file that is whole. A restore may need it; otherwise it is deleted.
    fn retire(&mut self, view: View, number: u64) -> Result<(), SinkError> {
        let Self { sink, series, restores, .. } = self;
        let journal = journal(&sink.dir, view, number);
        if !restores.need(view, number) {
            return remove(&journal);
        }
        let kept = kept(&sink.dir, view, number);
        rename(&journal, &kept).map_err(|error| failed("rename", &journal, error))?;
        series[view as usize].kept.push(number);
        Ok(())
    }

    /// Finds the newest file of a view, repairs it, and removes files without a row.
    fn find_newest(&mut self, view: View) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let series = &mut series[view as usize];
        series.closed.sort_unstable();
        while let Some((number, format)) = series.closed.pop() {
            let path = path(&sink.dir, view, number, format);
            // A number is used once, also by a file that turned out to have no row.
            let is_last = series.number < number;
            series.number = series.number.max(number);
            let version = match format {
                FileFormat::JsonLines => match repaired(&path)? {
                    0 => {
                        remove(&path)?;
                        continue;
                    }
                    rows_end => last_version(&path, rows_end),
                },
                FileFormat::Parquet => File::open(&path)
                    .and_then(|file| note(&file, VERSION))
                    .map(|version| version.and_then(|version| version.parse().ok()).unwrap_or(0)),
            };
            series.version = version.map_err(|error| failed("read", &path, error))?;
            series.is_earlier =
                is_last && (format, sink.format) == (FileFormat::JsonLines, FileFormat::JsonLines);
            if !series.is_earlier {
                series.closed.push((number, format));
            }
            break;
        }
        Ok(())
    }

    /// Lets a series go on where it was at a memory. The files are as the memory says already.
    fn go_on(&mut self, view: View, memory: &SeriesMemory) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let series = &mut series[view as usize];
        let earlier =
            std::mem::take(&mut series.is_earlier).then_some((series.number, FileFormat::JsonLines));
        series.number = memory.number;
        series.version = memory.version;
        let path = open_path(sink, view, memory.number);
        let open = memory.open.filter(|_| path.exists());
        let Some(OpenMemory { begun, .. }) = open else {
            // It was closed, or became a closed file at a stop or with another format.
            series.closed.extend(earlier);
            return Ok(());
        };
        match begun {
            None => series.is_earlier = true,
            Some(begun) => series.open = Some(OpenFile::open(sink, &path, begun)?),
        }
        Ok(())
    }

    /// Writes the statements that show the folder to databases, unless they are the same.
    fn show(&mut self) -> Result<(), SinkError> {
        let formats = self.series.each_ref().map(FileSeries::formats);
        if self.shown.as_ref() == Some(&formats) {
            return Ok(());
        }
        let files: Vec<ViewFiles> = View::ALL
            .into_iter()
            .map(|view| ViewFiles {
                view,
                patterns: formats[view as usize]
                    .iter()
                    .map(|format| (*format, format!("{}-*.{}", view.name(), format.name())))
                    .collect(),
            })
            .collect();
        for (name, text) in sql::statements(&files, true) {
            let (path, part) = (self.sink.dir.join(name), self.sink.dir.join(format!("{name}.part")));
            fs::write(&part, text)
                .and_then(|()| rename(&part, &path))
                .map_err(|error| failed("write", &path, error))?;
        }
        self.shown = Some(formats);
        Ok(())
    }

    /// Adds a row of `tick`, an object without a newline, with its tick and version as further columns.
    pub(super) fn row(&mut self, view: View, tick: Tick, row: &[u8]) -> Result<(), SinkError> {
        let series = &mut self.series[view as usize];
        series.version += 1;
        series.buffer.extend_from_slice(row.strip_suffix(b"}").unwrap_or(row));
        number(&mut series.buffer, r#","tick":"#, tick);
        number(&mut series.buffer, r#","version":"#, series.version);
        series.buffer.extend_from_slice(b"}\n");
        if series.buffer.len() >= BUFFER_BYTES { self.write(view, tick) } else { Ok(()) }
    }

    /// Hands the rows of a tick to the system, and closes files that are long or old enough.
    pub(super) fn end_tick(&mut self, tick: Tick) -> Result<(), SinkError> {
        for view in View::ALL {
            self.write(view, tick)?;
            let FileSink { rotate_bytes, rotate_after_ms, .. } = self.sink;
            let is_due = |open: &OpenFile| {
                open.length >= rotate_bytes || tick.saturating_sub(open.begun) >= rotate_after_ms
            };
            if self.series[view as usize].open.as_ref().is_some_and(is_due) {
                self.close(view)?;
            }
        }
        self.show()
    }

    /// Makes sure that all written rows are on disk, and in Parquet files if that is the format.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        for view in View::ALL {
            if self.sink.format == FileFormat::Parquet {
                self.close(view)?;
            }
            self.sync(view)?;
        }
        self.show()
    }

    /// Returns where the series are, between two ticks. All that it names is on disk. It waits for the disk once a view
    /// that has new rows.
    pub(super) fn memory(&mut self) -> Result<FilesMemory, SinkError> {
        let mut memory = FilesMemory::new(&self.sink.dir);
        for view in View::ALL {
            self.sync(view)?;
            let FileSeries { number, is_earlier, version, open, buffer, .. } = &self.series[view as usize];
            debug_assert!(buffer.is_empty(), "a memory is taken between ticks");
            let open = match open {
                Some(open) => Some(OpenMemory { length: open.length, begun: Some(open.begun) }),
                None if *is_earlier => {
                    let path = open_path(&self.sink, view, *number);
                    // It may be that only the system has what an earlier process wrote.
                    let on_disk = File::open(&path).and_then(|file| sync(&file).and(file.metadata()));
                    let length = on_disk.map_err(|error| failed("flush", &path, error))?.len();
                    Some(OpenMemory { length, begun: None })
                }
                None => None,
            };
            let series = SeriesMemory { number: *number, version: *version, open };
            memory.views.insert(view.name().to_owned(), series);
        }
        self.restores.taken(&memory);
        Ok(memory)
    }

    /// Deletes what was kept for restores and isn't needed any more, now that the checkpoint with `memory` is stored.
    pub(super) fn stored(&mut self, memory: &FilesMemory) -> Result<(), SinkError> {
        self.restores.stored(memory);
        for view in View::ALL {
            let Self { sink, series, restores, .. } = self;
            let kept_ones = &mut series[view as usize].kept;
            let unneeded: Vec<u64> =
                kept_ones.extract_if(.., |number| !restores.need(view, *number)).collect();
            unneeded.into_iter().try_for_each(|number| remove(&kept(&sink.dir, view, number)))?;
            self.delete_surplus(view)?;
        }
        Ok(())
    }

    /// Makes sure that the disk has all of an open file.
    fn sync(&mut self, view: View) -> Result<(), SinkError> {
        let FileSeries { open, number, .. } = &mut self.series[view as usize];
        if let Some(open) = open.as_mut().filter(|open| open.dirty) {
            let synced = sync(&open.file);
            synced.map_err(|error| failed("flush", &open_path(&self.sink, view, *number), error))?;
            open.dirty = false;
        }
        Ok(())
    }

    fn write(&mut self, view: View, tick: Tick) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let series = &mut series[view as usize];
        if series.buffer.is_empty() {
            return Ok(());
        }
        // An earlier run's last file goes on unless it is long enough; else the next number begins.
        if series.open.is_none() {
            let newest = open_path(sink, view, series.number);
            let goes_on = |newest| fs::metadata(newest).is_ok_and(|file| file.len() < sink.rotate_bytes);
            if !(series.is_earlier && goes_on(&newest)) {
                series.closed.extend(series.is_earlier.then_some((series.number, FileFormat::JsonLines)));
                series.number += 1;
            }
            series.is_earlier = false;
            let path = open_path(sink, view, series.number);
            series.open = Some(OpenFile::open(sink, &path, tick)?);
        }
        if let Some(open) = &mut series.open {
            if let Err(error) = append(&open.file, &series.buffer) {
                // As far as that is possible, no half-written row stays.
                let _ = cut(&open.file, open.length);
                return Err(failed("write to", &open_path(sink, view, series.number), error));
            }
            open.length += series.buffer.len() as u64;
            open.dirty = true;
        }
        series.buffer.clear();
        Ok(())
    }

    /// Closes a view's file, and deletes the oldest if there are too many.
    fn close(&mut self, view: View) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let series = &mut series[view as usize];
        let Some(open) = series.open.take() else { return Ok(()) };
        let opened = open_path(sink, view, series.number);
        sync(&open.file).map_err(|error| failed("flush", &opened, error))?;
        if sink.format == FileFormat::Parquet {
            let to = path(&sink.dir, view, series.number, sink.format);
            make_parquet(view, &opened, &to, series.version).map_err(|error| failed("write", &to, error))?;
        }
        let (number, format) = (series.number, sink.format);
        series.closed.push((number, format));
        if format == FileFormat::Parquet {
            self.retire(view, number)?;
        }
        self.delete_surplus(view)
    }

    /// Deletes the oldest closed files if there are too many, but for those that a restore may need.
    fn delete_surplus(&mut self, view: View) -> Result<(), SinkError> {
        let Self { sink, series, restores, .. } = self;
        let closed = &mut series[view as usize].closed;
        let keep = if sink.keep == 0 { usize::MAX } else { sink.keep as usize };
        let surplus = closed.len().saturating_sub(keep);
        // The rows of a Parquet file are in its journal, too, while a restore may need them.
        let is_unneeded = |(number, format): &mut (u64, FileFormat)| {
            *format == FileFormat::Parquet || !restores.need(view, *number)
        };
        for (number, format) in closed.extract_if(..surplus, is_unneeded).collect::<Vec<_>>() {
            remove(&path(&sink.dir, view, number, format))?;
        }
        Ok(())
    }
}

impl OpenFile {
    /// Opens a file whose age counts from `begun`, and makes it if it is missing.
    fn open(sink: &FileSink, path: &Path, begun: Tick) -> Result<Self, SinkError> {
        let open = || -> io::Result<Self> {
            let file = open_to_append(path)?;
            sync_folder(&sink.dir)?;
            let length = file.metadata()?.len();
            Ok(Self { file, length, begun, dirty: false, is_lines: sink.format == FileFormat::JsonLines })
        };
        open().map_err(|error| failed("open", path, error))
    }
}

impl FileSeries {
    /// Returns the formats of the files that readers see, in the order of [`FileFormat::ALL`].
    fn formats(&self) -> Vec<FileFormat> {
        let has_lines = |file: &OpenFile| file.is_lines;
        let is_there = |format: &FileFormat| {
            let is_open = self.is_earlier || self.open.as_ref().is_some_and(has_lines);
            self.closed.iter().any(|(_, closed)| closed == format)
                || (*format == FileFormat::JsonLines && is_open)
        };
        FileFormat::ALL.into_iter().filter(is_there).collect()
    }
}

/// Makes a Parquet file of a journal, whose last row has `version`.
fn make_parquet(view: View, journal: &Path, to: &Path, version: u64) -> io::Result<()> {
    // STEP 1: write it under a name that no reader looks for.
    let part = to.with_extension("parquet.part");
    let columns = &columns(view).live;
    let out = BufWriter::with_capacity(BUFFER_BYTES, create(&part)?);
    let mut parquet = ParquetFile::new(out, view.name(), columns)?;
    let mut rows = BufReader::with_capacity(BUFFER_BYTES, File::open(journal)?);
    let (mut batch, mut row) = (Batch::new(columns), Vec::new());
    while (&mut rows).take(MAX_ROW_BYTES).read_until(b'\n', &mut row)? > 0 {
        batch.add(&row).map_err(io::Error::other)?;
        row.clear();
        if batch.rows() >= BATCH.0 || batch.text_bytes() >= BATCH.1 {
            parquet.add(std::mem::replace(&mut batch, Batch::new(columns)))?;
        }
    }
    parquet.add(batch)?;
    let out = parquet.finish(Some((VERSION, version.to_string())))?;
    sync(&out.into_inner().map_err(io::IntoInnerError::into_error)?)?;
    // STEP 2: only a whole file gets its name.
    rename(&part, to)?;
    to.parent().map_or(Ok(()), sync_folder)
}
