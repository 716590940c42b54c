//! The memory of the series of files, with which a job goes on after a stop or a crash.
//!
//! It is taken between two ticks and is a part of the checkpoint of the first of them. A restore brings the folder back
//! to it, so that the ticks behind the checkpoint are written again, in the place and with the versions that they had:
//!
//! ```text
//! at the checkpoint   1 (closed)   2 (open, 700 bytes, version 51)
//! at the crash        1 (closed)   2 (closed, 980 bytes)             3 (open)
//! restored            1 (closed)   2 (open, 700 bytes, version 51)
//! ```
//! **It never goes on from less.** A file that is open in the memory must be there, be long enough, and have the
//! memory's version in its last row. All of them are looked at before one is changed. The bytes of a memory are on disk
//! when it is taken.
//!
//! **A restore may be killed** at any instant, and done again. It leaves more than the memory says, never less.
//!
//! Limits: a file that is closed in the memory is never looked at, so that readers may take such files away. A memory
//! says nothing of a view that its version of the program lacked: those files are left as they are.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use keytide_config::{FileFormat, View};
use keytide_dataflow::model::Tick;
use serde::{Deserialize, Serialize};

use super::super::SinkError;
use super::disk::{cut, failed, remove, rename, sync, sync_folder};
use super::paths::{journal, kept, parse, path};
use super::tail::{VERSION, last_version};
use crate::columnar::note;
use crate::store::KEPT;

/// The memories that were taken and may still be stored. A checkpoint counts once its tick is committed, which an outage
/// of the brokers puts off while further ones are written.
const TAKEN: usize = 256;

/// Where the series of files were at the end of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesMemory {
    /// The folder, as the configuration names it.
    pub(super) dir: String,
    /// The series by the names of their views, which are all that the program knew.
    pub(super) views: BTreeMap<String, SeriesMemory>,
}

/// Where the series of a view was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeriesMemory {
    /// The number of the newest file; 0 if there was none.
    pub(super) number: u64,
    /// The version of the last row; 0 if there was none.
    pub(super) version: u64,
    /// The newest file, unless it was closed.
    pub(super) open: Option<OpenMemory>,
}

/// The file to which the next row goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenMemory {
    /// Bytes of its rows, at least one.
    pub(super) length: u64,
    /// The tick from which its age counts; `None` for an earlier run's file, whose age counts from the next row.
    pub(super) begun: Option<Tick>,
}

/// The file of a series that was open.
struct Found {
    path: PathBuf,
    is_journal: bool,
}

impl FilesMemory {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.display().to_string(), views: BTreeMap::new() }
    }

    /// Returns whether it is about the files of a folder.
    pub(super) fn is_of(&self, dir: &Path) -> bool {
        self.dir == dir.display().to_string()
    }

    pub(super) fn series(&self, view: View) -> Option<&SeriesMemory> {
        self.views.get(view.name())
    }

    /// Returns whether a restore needs the rows of a file.
    fn needs(&self, view: View, number: u64) -> bool {
        self.series(view).is_some_and(|series| series.number == number && series.open.is_some())
    }

    /// Brings a folder back to this memory. A journal is there under its own name, unless its Parquet file has exactly
    /// the rows of the memory.
    pub(super) fn restore(&self, dir: &Path) -> Result<(), SinkError> {
        // STEP 1: find every open file, so that an error leaves the folder as it is.
        let mut cuts = Vec::new();
        for (view, series) in self.known() {
            if let Some(open) = series.open
                && let Some(found) = find(dir, view, series, open)?
            {
                cuts.push((view, series.number, open, found));
            }
        }
        // STEP 2: delete what came after the memory. It is written again.
        for entry in fs::read_dir(dir).map_err(|error| failed("list", dir, error))? {
            let entry = entry.map_err(|error| failed("list", dir, error))?;
            let Some((view, number, _)) = entry.file_name().to_str().and_then(parse) else { continue };
            if self.series(view).is_some_and(|series| number > series.number) {
                remove(&entry.path())?;
            }
        }
        // STEP 3: cut each open file to its length. A journal that was kept gets its name back before its Parquet file
        // goes, so that its rows always are in one of them.
        for (view, number, open, Found { path: found, is_journal }) in cuts {
            let mut at = found;
            if is_journal {
                let journal = journal(dir, view, number);
                if at != journal {
                    rename(&at, &journal).map_err(|error| failed("rename", &at, error))?;
                }
                remove(&path(dir, view, number, FileFormat::Parquet))?;
                at = journal;
            }
            let cut_off = || -> io::Result<()> {
                let file = File::options().write(true).open(&at)?;
                if file.metadata()?.len() > open.length {
                    cut(&file, open.length)?;
                }
                sync(&file)
            };
            cut_off().map_err(|error| failed("cut", &at, error))?;
        }
        // STEP 4: names of deleted files must not come back after a crash of the machine.
        sync_folder(dir).map_err(|error| failed("flush", dir, error))
    }

    /// Returns the series of the views that this program knows.
    fn known(&self) -> impl Iterator<Item = (View, &SeriesMemory)> {
        View::ALL.into_iter().filter_map(|view| Some((view, self.series(view)?)))
    }
}

/// Finds the file of a series that was open. Returns `None` if it is a Parquet file by now that has exactly the rows of
/// the memory, as after a stop.
fn find(dir: &Path, view: View, series: &SeriesMemory, open: OpenMemory) -> Result<Option<Found>, SinkError> {
    let SeriesMemory { number, version, .. } = *series;
    let parquet = path(dir, view, number, FileFormat::Parquet);
    match File::open(&parquet).and_then(|file| note(&file, VERSION)) {
        Ok(Some(noted)) if noted.parse() == Ok(version) => return Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("read", &parquet, error)),
        _ => {}
    }
    let lines = path(dir, view, number, FileFormat::JsonLines);
    let mut candidates =
        [(journal(dir, view, number), true), (kept(dir, view, number), true), (lines.clone(), false)];
    let found = candidates.iter_mut().find(|(path, _)| path.exists());
    let Some((path, is_journal)) = found else {
        let reason = format!("is missing, but the checkpoint goes on behind its first {} bytes", open.length);
        return Err(SinkError::Files { path: lines, reason });
    };
    let unreadable = |error| failed("read", path, error);
    let length = fs::metadata(&*path).map_err(unreadable)?.len();
    let reason = if length < open.length {
        format!("has {length} bytes, but the checkpoint goes on behind its first {}", open.length)
    } else if last_version(path, open.length).map_err(unreadable)? != version {
        format!("has other rows than the checkpoint says in its first {} bytes", open.length)
    } else {
        return Ok(Some(Found { path: std::mem::take(path), is_journal: *is_journal }));
    };
    Err(SinkError::Files { path: path.clone(), reason })
}

/// The memories to which a restore may go back, by which files are kept for it.
///
/// A job goes on from its newest checkpoint, or from one before it if that is damaged. So files are kept for the [`KEPT`] checkpoints of the store, and for those that aren't stored yet.
#[derive(Debug, Default)]
pub(super) struct Restores {
    /// The memories of checkpoints in the store, the oldest first.
    stored: VecDeque<FilesMemory>,
    /// Those that were taken since.
    taken: VecDeque<FilesMemory>,
    /// True if an earlier life stored checkpoints that aren't in `stored`.
    is_continued: bool,
}

impl Restores {
    /// For a job that goes on from a memory, or begins anew.
    pub(super) fn from(memory: Option<&FilesMemory>) -> Self {
        Self {
            stored: memory.cloned().into_iter().collect(),
            taken: VecDeque::new(),
            is_continued: memory.is_some(),
        }
    }

    pub(super) fn taken(&mut self, memory: &FilesMemory) {
        if self.taken.len() == TAKEN {
            self.taken.pop_front();
        }
        self.taken.push_back(memory.clone());
    }

    /// Notes that a memory, and none that was taken before it, is the newest in the store.
    pub(super) fn stored(&mut self, memory: &FilesMemory) {
        if let Some(at) = self.taken.iter().position(|taken| taken == memory) {
            self.taken.drain(..=at);
        }
        self.stored.push_back(memory.clone());
        if self.stored.len() > KEPT {
            self.stored.pop_front();
        }
    }

    /// Returns whether a restore may need the rows of a file.
    pub(super) fn need(&self, view: View, number: u64) -> bool {
        // Memories of an earlier life, which aren't known, need no file behind the one with which this life began.
        let of_earlier = self.stored.front().filter(|_| self.is_continued && self.stored.len() < KEPT);
        let is_earlier =
            |memory: &FilesMemory| memory.series(view).is_some_and(|series| number <= series.number);
        of_earlier.is_some_and(is_earlier)
            || self.stored.iter().chain(&self.taken).any(|memory| memory.needs(view, number))
    }
}
