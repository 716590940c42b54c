//! Results as files, `DIR/<view>-<number>.jsonl`, with one row a line, appended tick by tick.
//!
//! The first row of a view begins a file. It ends between ticks once it is long or old enough, and is never written
//! again. Numbers have six digits or more and only grow, also over restarts: a new run goes on with the last file.
//! If a killed process left half a row behind the last newline, it is cut off when the folder is opened. A file
//! without a row is removed.
//!
//! A row has two columns more than on its topic: its tick, and its version. Versions count the rows of a view from 1
//! on, and a new run goes on behind the last row. So of several rows of a key the one with the greatest version is the
//! newest, whatever became of the clock that ticks follow.
//!
//! A tick's rows reach the system when the tick ends, and the disk when a file is closed or on
//! [`flush`](ViewFiles::flush). Until then a crash of the machine, but not of the process, may lose them.
//!
//! Limits: a file's age counts from the first tick that this process wrote to it, in the time of ticks. At most 1
//! MiB of rows is held between writes. A folder belongs to one job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use keytide_config::{FileSink, View};
use keytide_dataflow::model::Tick;
use serde::Deserialize;

use super::SinkError;
use super::encode::number;

/// The number of bytes of rows that are held between writes.
const BUFFER_BYTES: usize = 1 << 20;
/// The number of bytes that are searched at once for a file's last newline.
const TAIL_BYTES: u64 = 64 << 10;

/// The series of files of all views.
#[derive(Debug)]
pub(super) struct ViewFiles {
    sink: FileSink,
    series: [FileSeries; View::ALL.len()],
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
    closed: Vec<u64>,
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
}

impl ViewFiles {
    /// Makes the folder, and repairs files that a killed process left.
    pub(super) fn open(sink: &FileSink) -> Result<Self, SinkError> {
        let dir = &sink.dir;
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", dir, error))?;
        let mut series: [FileSeries; View::ALL.len()] = Default::default();
        for entry in fs::read_dir(dir).map_err(|error| failed("list", dir, error))? {
            let entry = entry.map_err(|error| failed("list", dir, error))?;
            if let Some((view, number)) = entry.file_name().to_str().and_then(parse) {
                series[view as usize].closed.push(number);
            }
        }
        let files = Self { sink: sink.clone(), series };
        files.with_newest()
    }

    fn with_newest(mut self) -> Result<Self, SinkError> {
        for view in View::ALL {
            let series = &mut self.series[view as usize];
            series.closed.sort_unstable();
            while let Some(number) = series.closed.pop() {
                let path = path(&self.sink.dir, view, number);
                let Repaired { rows_end, cut } =
                    repair(&path).map_err(|error| failed("repair", &path, error))?;
                if cut > 0 {
                    tracing::warn!(path = %path.display(), bytes = cut, "cut off a row that was half written");
                }
                // A number is used once, also by a file that turned out to have no row.
                series.number = series.number.max(number);
                if rows_end > 0 {
                    series.version =
                        last_version(&path, rows_end).map_err(|error| failed("read", &path, error))?;
                    series.is_earlier = series.number == number;
                    if !series.is_earlier {
                        series.closed.push(number);
                    }
                    break;
                }
                fs::remove_file(&path).map_err(|error| failed("delete", &path, error))?;
            }
        }
        Ok(self)
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
        Ok(())
    }

    /// Makes sure that all written rows are on disk.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        for view in View::ALL {
            let FileSeries { open, number, .. } = &mut self.series[view as usize];
            if let Some(open) = open.as_mut().filter(|open| open.dirty) {
                open.file
                    .sync_all()
                    .map_err(|error| failed("flush", &path(&self.sink.dir, view, *number), error))?;
                open.dirty = false;
            }
        }
        Ok(())
    }

    fn write(&mut self, view: View, tick: Tick) -> Result<(), SinkError> {
        let Self { sink, series } = self;
        let series = &mut series[view as usize];
        if series.buffer.is_empty() {
            return Ok(());
        }
        // An earlier run's last file goes on unless it is long enough; else the next number begins.
        if series.open.is_none() {
            let newest = path(&sink.dir, view, series.number);
            let goes_on = |newest| fs::metadata(newest).is_ok_and(|file| file.len() < sink.rotate_bytes);
            if !(series.is_earlier && goes_on(&newest)) {
                series.closed.extend(series.is_earlier.then_some(series.number));
                series.number += 1;
            }
            series.is_earlier = false;
            let path = path(&sink.dir, view, series.number);
            let open = || -> io::Result<OpenFile> {
                let file = OpenOptions::new().append(true).create(true).open(&path)?;
                sync_folder(&sink.dir)?;
                let length = file.metadata()?.len();
                Ok(OpenFile { file, length, begun: tick, dirty: false })
            };
            series.open = Some(open().map_err(|error| failed("open", &path, error))?);
        }
        if let Some(open) = &mut series.open {
            if let Err(error) = open.file.write_all(&series.buffer) {
                // As far as that is possible, no half-written row stays.
                let _ = open.file.set_len(open.length);
                return Err(failed("write to", &path(&sink.dir, view, series.number), error));
            }
            open.length += series.buffer.len() as u64;
            open.dirty = true;
        }
        series.buffer.clear();
        Ok(())
    }

    /// Closes a view's file, and deletes the oldest if there are too many.
    fn close(&mut self, view: View) -> Result<(), SinkError> {
        let Self { sink, series } = self;
        let series = &mut series[view as usize];
        let Some(open) = series.open.take() else { return Ok(()) };
        open.file
            .sync_all()
            .map_err(|error| failed("flush", &path(&sink.dir, view, series.number), error))?;
        series.closed.push(series.number);
        let keep = if sink.keep == 0 { usize::MAX } else { sink.keep as usize };
        let surplus = series.closed.len().saturating_sub(keep);
        for number in series.closed.drain(..surplus) {
            let path = path(&sink.dir, view, number);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("delete", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> SinkError {
    SinkError::File { what, path: path.to_owned(), source }
}

fn path(dir: &Path, view: View, number: u64) -> PathBuf {
    dir.join(format!("{}-{number:06}.jsonl", view.name()))
}

/// Returns the view and number in a file's name.
fn parse(name: &str) -> Option<(View, u64)> {
    let (view, number) = name.strip_suffix(".jsonl")?.rsplit_once('-')?;
    let view = View::named(view)?;
    let digits = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| digits && *number > 0)?;
    Some((view, number))
}

/// Makes sure that a new file's name is on disk.
fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The result of a repair.
struct Repaired {
    /// The byte behind the last whole row.
    rows_end: u64,
    /// The number of bytes that were cut off.
    cut: u64,
}

/// Cuts off the bytes behind the last newline.
fn repair(path: &Path) -> io::Result<Repaired> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let rows_end = line_start(&mut file, length)?;
    if rows_end < length {
        file.set_len(rows_end)?;
        file.sync_all()?;
    }
    Ok(Repaired { rows_end, cut: length - rows_end })
}

/// Returns the start of the line that `end` lies in: the byte behind the last newline before it.
fn line_start(file: &mut File, mut end: u64) -> io::Result<u64> {
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(TAIL_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The column by which rows of a series of files are ordered.
#[derive(Deserialize)]
struct Versioned {
    /// Rows of Keytide's first versions have none.
    #[serde(default)]
    version: u64,
}

/// Returns the version of the last row, which ends with a newline before `rows_end`; 0 if it has none.
fn last_version(path: &Path, rows_end: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let start = line_start(&mut file, rows_end - 1)?;
    let mut row = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(rows_end - start).read_to_end(&mut row)?;
    Ok(serde_json::from_slice(&row).map_or(0, |row: Versioned| row.version))
}
