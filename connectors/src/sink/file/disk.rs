//! Changes of files on disk. Each is a point at which a test may kill the process, see `death.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use super::super::SinkError;
use super::death;

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> SinkError {
    SinkError::File { what, path: path.to_owned(), source }
}

/// Opens a file to append to it, and makes it if it is missing.
pub(super) fn open_to_append(path: &Path) -> io::Result<File> {
    death::point()?;
    OpenOptions::new().append(true).create(true).open(path).inspect(death::made)
}

/// Makes a file, which replaces another of its name.
pub(super) fn create(path: &Path) -> io::Result<File> {
    death::point()?;
    File::create(path).inspect(death::made)
}

/// Appends bytes to a file. A process that is killed meanwhile leaves some of them.
pub(super) fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    match death::point() {
        Ok(()) => file.write_all(bytes),
        Err(error) => file.write_all(death::last_written(bytes)).and(Err(error)),
    }
}

/// Cuts off the bytes of a file behind `length`.
pub(super) fn cut(file: &File, length: u64) -> io::Result<()> {
    death::point()?;
    file.set_len(length)
}

/// Renames a file, which replaces another of its new name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    death::point()?;
    fs::rename(from, to)
}

/// Deletes a file, which may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), SinkError> {
    match death::point().and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", path, error)),
        _ => Ok(()),
    }
}

/// Makes sure that the disk has all of a file.
pub(super) fn sync(file: &File) -> io::Result<()> {
    death::point()?;
    death::sync(file)
}

/// Makes sure that names of files that were made, renamed or deleted are on disk.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    death::point()?;
    death::sync(&File::open(dir)?)
}
