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
//! A tick's rows reach the system when the tick ends, and the disk when a file is closed or on
//! [`flush`](SeriesOfViews::flush). Until then a crash of the machine, but not of the process, may lose them.
//!
//! The folder has the statements of [`sql`]. They are written anew when a view gets its first file.
//!
//! Limits: a file's age counts from the first tick that this process wrote to it, in the time of ticks. At most 1
//! MiB of rows is held between writes. A row of a journal has at most 64 MiB. The publisher waits while a Parquet file
//! is made, 1.6 us of CPU a row and 0.3 s for 64 MiB of rows; `rotate_bytes` bounds them. A folder belongs to one job.

mod disk;
mod paths;
mod tail;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use keytide_config::{FileFormat, FileSink, View};
use keytide_dataflow::model::Tick;

use self::disk::{failed, remove, sync_folder};
use self::paths::{FileState, journal, open_path, parse, path};
use self::tail::{last_version, repaired};
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
/// The note of a Parquet file that has the version of its last row.
const VERSION: &str = "keytide.version";

/// The series of files of all views.
#[derive(Debug)]
pub(super) struct SeriesOfViews {
    sink: FileSink,
    series: [FileSeries; View::ALL.len()],
    /// The formats of each view's files when the statements were written.
    shown: Option<[Vec<FileFormat>; View::ALL.len()]>,
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
    /// Makes the folder, and repairs files that a killed process left.
    pub(super) fn open(sink: &FileSink) -> Result<Self, SinkError> {
        let dir = &sink.dir;
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, error))?;
        let mut series: [FileSeries; View::ALL.len()] = Default::default();
        let mut journals = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| failed("list", dir, error))? {
            let entry = entry.map_err(|error| failed("list", dir, error))?;
            let Some((view, number, state)) = entry.file_name().to_str().and_then(parse) else { continue };
            match state {
                FileState::Closed(format) => series[view as usize].closed.push((number, format)),
                FileState::Journal => journals.push((view, number)),
                FileState::Part => remove(&entry.path())?,
            }
        }
        let mut files = Self { sink: sink.clone(), series, shown: None };
        for (view, number) in journals {
            files.finish_journal(view, number)?;
        }
        for view in View::ALL {
            files.find_newest(view)?;
        }
        files.show()?;
        Ok(files)
    }

    /// Makes a file of a journal that an earlier run left.
    fn finish_journal(&mut self, view: View, number: u64) -> Result<(), SinkError> {
        let Self { sink, series, .. } = self;
        let closed = &mut series[view as usize].closed;
        let journal = journal(&sink.dir, view, number);
        // It was killed between the last two steps.
        if closed.contains(&(number, FileFormat::Parquet)) {
            return remove(&journal);
        }
        let rows_end = repaired(&journal)?;
        if rows_end == 0 {
            return remove(&journal);
        }
        let to = path(&sink.dir, view, number, sink.format);
        let made = match sink.format {
            FileFormat::JsonLines => fs::rename(&journal, &to).and_then(|()| sync_folder(&sink.dir)),
            FileFormat::Parquet => last_version(&journal, rows_end)
                .and_then(|version| make_parquet(view, &journal, &to, version)),
        };
        made.map_err(|error| failed("write", &to, error))?;
        closed.push((number, sink.format));
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
                .and_then(|()| fs::rename(&part, &path))
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
            let FileSeries { open, number, .. } = &mut self.series[view as usize];
            if let Some(open) = open.as_mut().filter(|open| open.dirty) {
                open.file
                    .sync_all()
                    .map_err(|error| failed("flush", &open_path(&self.sink, view, *number), error))?;
                open.dirty = false;
            }
        }
        self.show()
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
            let open = || -> io::Result<OpenFile> {
                let file = OpenOptions::new().append(true).create(true).open(&path)?;
                sync_folder(&sink.dir)?;
                let length = file.metadata()?.len();
                let is_lines = sink.format == FileFormat::JsonLines;
                Ok(OpenFile { file, length, begun: tick, dirty: false, is_lines })
            };
            series.open = Some(open().map_err(|error| failed("open", &path, error))?);
        }
        if let Some(open) = &mut series.open {
            if let Err(error) = open.file.write_all(&series.buffer) {
                // As far as that is possible, no half-written row stays.
                let _ = open.file.set_len(open.length);
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
        open.file.sync_all().map_err(|error| failed("flush", &opened, error))?;
        if sink.format == FileFormat::Parquet {
            let to = path(&sink.dir, view, series.number, sink.format);
            make_parquet(view, &opened, &to, series.version).map_err(|error| failed("write", &to, error))?;
        }
        series.closed.push((series.number, sink.format));
        let keep = if sink.keep == 0 { usize::MAX } else { sink.keep as usize };
        let surplus = series.closed.len().saturating_sub(keep);
        for (number, format) in series.closed.drain(..surplus) {
            remove(&path(&sink.dir, view, number, format))?;
        }
        Ok(())
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

/// Makes a Parquet file of a journal, whose last row has `version`, and removes the journal.
fn make_parquet(view: View, journal: &Path, to: &Path, version: u64) -> io::Result<()> {
    // STEP 1: write it under a name that no reader looks for.
    let part = to.with_extension("parquet.part");
    let columns = &columns(view).live;
    let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(&part)?);
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
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    // STEP 2: only a whole file gets its name.
    fs::rename(&part, to)?;
    if let Some(dir) = to.parent() {
        sync_folder(dir)?;
    }
    // STEP 3: the journal isn't needed any more. If this doesn't happen, the next run sees both and does it.
    fs::remove_file(journal)
}
