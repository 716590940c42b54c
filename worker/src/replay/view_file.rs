//! The file of one view of a bounded run, as JSON lines or as Parquet.
//!
//! Its first row makes the file, so a view without rows has none. Files of the view that an earlier run left are
//! replaced, or removed if they aren't, whatever their format.
//!
//! Rows come as lines. For Parquet they are taken apart by all threads. Columns are cut at the same rows whatever the
//! number of threads, so the bytes are the same as well.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::mem;
use std::ops::{Index, IndexMut};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::{FileFormat, View};
use keytide_connectors::columnar::{Batch, Column, ParquetFile};
use keytide_connectors::sink::columns::columns;
use keytide_connectors::sink::sql::{self, ViewFiles};
use rayon::prelude::*;
use serde::{Serialize, Serializer};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Rows, and bytes of their lines, that are made into columns at once if they come one by one.
const BATCH: (usize, usize) = (1 << 12, 4 << 20);

/// Numbers of rows by view; in JSON an object with a member for each view.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowCounts([u64; View::ALL.len()]);

impl Index<View> for RowCounts {
    type Output = u64;

    fn index(&self, view: View) -> &u64 {
        &self.0[view as usize]
    }
}

impl IndexMut<View> for RowCounts {
    fn index_mut(&mut self, view: View) -> &mut u64 {
        &mut self.0[view as usize]
    }
}

impl Serialize for RowCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(View::ALL.map(|view| (view.name(), self[view])))
    }
}

/// The folder that views are written to, and their format.
#[derive(Clone, Copy, Debug)]
pub struct ViewFolder<'a> {
    pub path: &'a Path,
    pub format: FileFormat,
}

impl ViewFolder<'_> {
    fn file(&self, view: View, format: FileFormat) -> PathBuf {
        self.path.join(format!("{}.{}", view.name(), format.name()))
    }

    /// Writes a view by `rows`; returns what this returns.
    pub(super) fn write<T>(
        &self,
        view: View,
        rows: impl FnOnce(&mut ViewFile) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut file =
            ViewFile { path: self.file(view, self.format), view, format: self.format, out: Out::None };
        let written = rows(&mut file).and_then(|result| {
            for format in FileFormat::ALL {
                if format != self.format || matches!(file.out, Out::None) {
                    remove(&self.file(view, format))?;
                }
            }
            mem::replace(&mut file.out, Out::None).finish()?;
            Ok(result)
        });
        written.with_context(|| format!("writing {} failed", file.path.display()))
    }

    /// Writes the statements that show the folder to databases.
    pub(super) fn write_statements(&self, rows: &RowCounts) -> anyhow::Result<()> {
        let files: Vec<ViewFiles> = View::ALL
            .into_iter()
            .map(|view| ViewFiles {
                view,
                patterns: (rows[view] > 0)
                    .then(|| (self.format, format!("{}.{}", view.name(), self.format.name())))
                    .into_iter()
                    .collect(),
            })
            .collect();
        for (name, text) in sql::statements(&files, false) {
            let path = self.path.join(name);
            fs::write(&path, text).with_context(|| format!("writing {} failed", path.display()))?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file of one view, while it is written.
pub(super) struct ViewFile {
    path: PathBuf,
    view: View,
    format: FileFormat,
    out: Out,
}

enum Out {
    /// There was no row, so there is no file.
    None,
    Lines(BufWriter<File>),
    Parquet {
        file: Box<ParquetFile<'static, BufWriter<File>>>,
        columns: &'static [Column],
        /// Lines that came one by one, and their number.
        lines: Vec<u8>,
        rows: usize,
    },
}

impl ViewFile {
    fn out(&mut self) -> io::Result<&mut Out> {
        if matches!(self.out, Out::None) {
            let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&self.path)?);
            let columns = &columns(self.view).common;
            self.out = match self.format {
                FileFormat::JsonLines => Out::Lines(file),
                FileFormat::Parquet => Out::Parquet {
                    file: Box::new(ParquetFile::new(file, self.view.name(), columns)?),
                    columns,
                    lines: Vec::new(),
                    rows: 0,
                },
            };
        }
        Ok(&mut self.out)
    }

    /// Writes a row, a line with its newline.
    pub(super) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self.out()? {
            Out::None => Ok(()),
            Out::Lines(file) => file.write_all(line),
            Out::Parquet { file, columns, lines, rows } => {
                lines.extend_from_slice(line);
                *rows += 1;
                if *rows >= BATCH.0 || lines.len() >= BATCH.1 {
                    file.add(Batch::of_lines(columns, lines).map_err(io::Error::other)?)?;
                    lines.clear();
                    *rows = 0;
                }
                Ok(())
            }
        }
    }

    /// Writes texts of many lines each.
    pub(super) fn texts(&mut self, texts: Vec<Vec<u8>>) -> io::Result<()> {
        if texts.iter().all(Vec::is_empty) {
            return Ok(());
        }
        match self.out()? {
            Out::None => Ok(()),
            Out::Lines(file) => texts.iter().try_for_each(|text| file.write_all(text)),
            Out::Parquet { file, columns, .. } => {
                let columns: &'static [Column] = columns;
                let batches: Vec<_> =
                    texts.into_par_iter().map(|text| Batch::of_lines(columns, &text)).collect();
                batches.into_iter().try_for_each(|batch| file.add(batch.map_err(io::Error::other)?))
            }
        }
    }
}

impl Out {
    fn finish(self) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Lines(mut file) => file.flush(),
            Self::Parquet { mut file, columns, lines, .. } => {
                file.add(Batch::of_lines(columns, &lines).map_err(io::Error::other)?)?;
                file.finish(None)?.flush()
            }
        }
    }
}
