//! The end of a file of rows, where a killed process may have left half a row.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::super::SinkError;
use super::disk::{cut, failed, sync};

/// The note of a Parquet file that has the version of its last row.
pub(super) const VERSION: &str = "keytide.version";

/// The number of bytes that are searched at once for a file's last newline.
const TAIL_BYTES: u64 = 64 << 10;

/// Cuts off half a row at a file's end, which a killed process left; returns the byte behind the last row.
pub(super) fn repaired(path: &Path) -> Result<u64, SinkError> {
    let Repaired { rows_end, cut } = repair(path).map_err(|error| failed("repair", path, error))?;
    if cut > 0 {
        tracing::warn!(path = %path.display(), bytes = cut, "cut off a row that was half written");
    }
    Ok(rows_end)
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
        cut(&file, rows_end)?;
        sync(&file)?;
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
pub(super) fn last_version(path: &Path, rows_end: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let start = line_start(&mut file, rows_end - 1)?;
    let mut row = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(rows_end - start).read_to_end(&mut row)?;
    Ok(serde_json::from_slice(&row).map_or(0, |row: Versioned| row.version))
}
