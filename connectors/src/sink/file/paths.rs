//! The names of the files of a series.

use std::path::{Path, PathBuf};

use keytide_config::{FileFormat, FileSink, View};

pub(super) fn path(dir: &Path, view: View, number: u64, format: FileFormat) -> PathBuf {
    dir.join(format!("{}-{number:06}.{}", view.name(), format.name()))
}

pub(super) fn journal(dir: &Path, view: View, number: u64) -> PathBuf {
    dir.join(format!("{}-{number:06}{JOURNAL}", view.name()))
}

/// Returns the path of a journal whose Parquet file is made, while a restore may need it.
pub(super) fn kept(dir: &Path, view: View, number: u64) -> PathBuf {
    dir.join(format!("{}-{number:06}{KEPT}", view.name()))
}

/// Returns the path of a file that is written to.
pub(super) fn open_path(sink: &FileSink, view: View, number: u64) -> PathBuf {
    match sink.format {
        FileFormat::JsonLines => path(&sink.dir, view, number, sink.format),
        FileFormat::Parquet => journal(&sink.dir, view, number),
    }
}

/// The end of a journal's name.
const JOURNAL: &str = ".jsonl.open";
/// The end of the name of a journal that is kept for a restore.
const KEPT: &str = ".jsonl.kept";
/// The end of the name of a Parquet file that isn't whole.
const PART: &str = ".parquet.part";

/// The state of a file, as its name says.
pub(super) enum FileState {
    Closed(FileFormat),
    Journal,
    /// A journal whose rows are in a Parquet file, too.
    Kept,
    /// A Parquet file that a killed process didn't end.
    Part,
}

/// Returns the view, the number and the state that a file's name says.
pub(super) fn parse(name: &str) -> Option<(View, u64, FileState)> {
    let (stem, end) = name.split_at(name.find('.')?);
    let state = match end {
        ".jsonl" => FileState::Closed(FileFormat::JsonLines),
        ".parquet" => FileState::Closed(FileFormat::Parquet),
        JOURNAL => FileState::Journal,
        KEPT => FileState::Kept,
        PART => FileState::Part,
        _ => return None,
    };
    let (view, number) = stem.rsplit_once('-')?;
    let view = View::named(view)?;
    let digits = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| digits && *number > 0)?;
    Some((view, number, state))
}
