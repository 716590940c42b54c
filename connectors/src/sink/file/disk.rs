//! Changes of files on disk.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::super::SinkError;

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> SinkError {
    SinkError::File { what, path: path.to_owned(), source }
}

/// Deletes a file, which may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), SinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path, error)),
        _ => Ok(()),
    }
}

/// Makes sure that a new file's name is on disk.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
