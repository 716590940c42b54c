//! Views on disk: those of a bounded run (`VIEW.jsonl`), or of `[sink.files]` (`VIEW-000001.jsonl` and so on).
//!
//! A view without rows has no file, so a folder with any view, or with the statements for databases, has all of them.
//! Parquet isn't read: it is refused with what to do.
//!
//! A live job may write while they are read. So a file that is gone meanwhile is passed over, and so is a last line
//! that isn't whole yet.
//!
//! Limits: a line of 4 MiB; longer ones are passed over. One line is held at a time.

#[cfg(feature = "top")]
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::{FileFormat, JobConfig, View, environment};
use keytide_connectors::sink::sql;
use keytide_worker::replay::usage;
use serde::Deserialize;

/// Bytes of a line, at most.
const MAX_LINE: u64 = 4 << 20;
/// Bytes of `summary.json` and `report.json`, at most.
const MAX_SUMMARY: u64 = 64 << 20;
/// The files that a bounded run writes last.
const SUMMARIES: [&str; 2] = ["summary.json", "report.json"];

/// A folder with views, and the job that wrote them where it is known.
#[derive(Debug)]
pub(crate) struct ViewFolder {
    dir: PathBuf,
    /// The configuration of the job that wrote them.
    pub(crate) job: Option<JobConfig>,
    /// Why the configuration isn't known.
    pub(crate) why_no_job: Option<String>,
}

/// The member of a summary that names the configuration.
#[derive(Deserialize)]
struct Named {
    config_path: Option<PathBuf>,
}

impl ViewFolder {
    /// Opens a folder, or the one that a configuration's `[sink.files]` names.
    ///
    /// # Errors
    /// If there is no such folder or configuration, or the configuration names no folder.
    pub(crate) fn open(from: &Path) -> anyhow::Result<Self> {
        let shown = from.display();
        let kind = fs::metadata(from)
            .with_context(|| format!("{shown} can't be read: name a folder with views, or a configuration"))
            .map_err(usage)?;
        if !kind.is_dir() {
            let job = load(from)?;
            let Some(files) = &job.sinks.files else {
                return Err(usage(anyhow::anyhow!(
                    "{shown} has no [sink.files], so its job writes no views to a folder: name the folder that \
                     keytide replay --out wrote to"
                )));
            };
            let dir = files.dir.clone();
            return Ok(Self { dir, job: Some(job), why_no_job: None });
        }
        let (job, why_no_job) = match config_path(from) {
            None => {
                (None, Some(format!("{shown} doesn't say which; --from CONFIG does if it has [sink.files]")))
            }
            Some(config) => match load(&config) {
                Ok(job) => (Some(job), None),
                Err(error) => (None, Some(keytide_worker::exit::message(&error))),
            },
        };
        Ok(Self { dir: from.to_owned(), job, why_no_job })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the files of a view, oldest first; none if the view has no rows.
    ///
    /// # Errors
    /// If the folder can't be listed, has no views, or has the view as Parquet.
    pub(crate) fn files(&self, view: View) -> anyhow::Result<Vec<PathBuf>> {
        let shown = self.dir.display();
        let entries =
            fs::read_dir(&self.dir).with_context(|| format!("{shown} can't be listed")).map_err(usage)?;
        let name = view.name();
        let (mut files, mut has_views) = (Vec::new(), false);
        for entry in entries.flatten() {
            let Ok(file) = entry.file_name().into_string() else { continue };
            has_views |= file == sql::DUCKDB;
            let journal =
                file.strip_suffix(".open").and_then(|lines| number(lines, view, FileFormat::JsonLines));
            if number(&file, view, FileFormat::Parquet).or(journal).is_some() {
                return Err(usage(anyhow::anyhow!(
                    "{shown} has views as Parquet ({file}), and this command reads JSON lines alone: ask DuckDB with \
                     {}, or write them with --format jsonl (`format = \"jsonl\"` in [sink.files])",
                    sql::DUCKDB
                )));
            }
            if let Some(number) = number(&file, view, FileFormat::JsonLines) {
                files.push((number, entry.path()));
            }
        }
        files.sort_unstable();
        if files.is_empty() && !has_views {
            return Err(usage(anyhow::anyhow!(
                "{shown} has no view {name}: neither {name}.jsonl, as keytide replay and backtest write it, nor \
                 {name}-000001.jsonl, as [sink.files] does; name another folder"
            )));
        }
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }

    /// Hands each line of a view to `take`, oldest first; returns how many were too long.
    ///
    /// # Errors
    /// If there is no file of the view, or one can't be read.
    pub(crate) fn lines(&self, view: View, mut take: impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let mut too_long = 0;
        for path in self.files(view)? {
            too_long += read(&path, 0, u64::MAX, &mut take)?.too_long;
        }
        Ok(too_long)
    }
}

/// Follows the files of some views while a job writes them.
#[cfg(feature = "top")]
pub(crate) struct Follow {
    folder: ViewFolder,
    views: &'static [View],
    /// Bytes of whole lines that were read, by file.
    read: BTreeMap<PathBuf, u64>,
}

#[cfg(feature = "top")]
impl Follow {
    /// Follows `views`, of which the first must be there.
    ///
    /// # Errors
    /// If the folder has no file of it.
    pub(crate) fn new(folder: ViewFolder, views: &'static [View]) -> anyhow::Result<Self> {
        if let Some(first) = views.first() {
            folder.files(*first)?;
        }
        Ok(Self { folder, views, read: BTreeMap::new() })
    }

    /// Hands new lines to `take`, until about `most` bytes were read. Returns `None` if a file was replaced, after
    /// which everything comes again. Else returns whether there is more.
    ///
    /// # Errors
    /// If a file can't be read.
    pub(crate) fn lines(
        &mut self,
        most: u64,
        mut take: impl FnMut(View, &[u8]),
    ) -> anyhow::Result<Option<bool>> {
        let mut left = most;
        for view in self.views {
            for path in self.folder.files(*view).unwrap_or_default() {
                let from = self.read.get(&path).copied().unwrap_or(0);
                let length = fs::metadata(&path).map_or(0, |file| file.len());
                if length < from {
                    self.read.clear();
                    return Ok(None);
                }
                if length == from {
                    continue;
                }
                let read = read(&path, from, left, &mut |line: &[u8]| take(*view, line))?;
                self.read.insert(path, from + read.bytes);
                left = left.saturating_sub(read.bytes);
                if left == 0 {
                    return Ok(Some(true));
                }
            }
        }
        Ok(Some(false))
    }
}

/// How much of a file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinesRead {
    /// Bytes of whole lines, with their ends.
    bytes: u64,
    /// Lines that were too long.
    too_long: u64,
}

/// Hands the whole lines of a file from a byte on to `take`, until `most` bytes are read. A file that is gone is empty.
fn read(path: &Path, from: u64, most: u64, take: &mut impl FnMut(&[u8])) -> anyhow::Result<LinesRead> {
    let mut lines = || -> io::Result<LinesRead> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LinesRead::default()),
            file => file?,
        };
        file.seek(SeekFrom::Start(from))?;
        each_line(BufReader::with_capacity(1 << 16, file), most, take)
    };
    lines().with_context(|| format!("{} can't be read", path.display()))
}

/// Hands each whole line to `take`, until `most` bytes are read.
fn each_line(mut file: impl io::BufRead, most: u64, take: &mut impl FnMut(&[u8])) -> io::Result<LinesRead> {
    let (mut line, mut read) = (Vec::new(), LinesRead::default());
    while read.bytes < most {
        line.clear();
        let length = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') {
            take(&line[..length - 1]);
        } else if (length as u64) < MAX_LINE {
            // The end, or a line that is being written.
            break;
        } else {
            read.too_long += 1;
            read.bytes += skip_line(&mut file)?;
        }
        read.bytes += length as u64;
    }
    Ok(read)
}

/// Passes over the rest of a line; returns its bytes.
fn skip_line(file: &mut impl io::BufRead) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        let buffer = file.fill_buf()?;
        let (used, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        file.consume(used);
        bytes += used as u64;
        if is_end {
            return Ok(bytes);
        }
    }
}

/// Returns the number of a view's file, 0 for that of a bounded run; `None` for files of other kinds.
fn number(name: &str, view: View, format: FileFormat) -> Option<u64> {
    let stem = name.strip_suffix(format.name())?.strip_suffix('.')?;
    match stem.strip_prefix(view.name())? {
        "" => Some(0),
        rest => rest.strip_prefix('-').filter(|digits| digits.len() >= 6)?.parse().ok(),
    }
}

/// Loads a configuration without its warnings, which `check` and the job itself print.
pub(crate) fn load(config: &Path) -> anyhow::Result<JobConfig> {
    JobConfig::load(config, environment()).map(|loaded| loaded.job).map_err(usage)
}

/// Returns the configuration that the run in a folder names.
fn config_path(dir: &Path) -> Option<PathBuf> {
    SUMMARIES.iter().find_map(|name| {
        let file = File::open(dir.join(name)).ok()?;
        let named: Named = serde_json::from_reader(BufReader::new(file.take(MAX_SUMMARY))).ok()?;
        named.config_path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_are_whole_and_not_too_long() {
        let long = vec![b'x'; usize::try_from(MAX_LINE).unwrap() + 5];
        let text = [b"a\n\nb\n".as_slice(), &long, b"\nc\nhalf a row"].concat();
        let mut lines = Vec::new();
        let read =
            each_line(text.as_slice(), u64::MAX, &mut |line: &[u8]| lines.push(line.to_vec())).unwrap();
        assert_eq!(lines, [b"a".to_vec(), b"".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!((read.too_long, read.bytes), (1, (text.len() - b"half a row".len()) as u64));
        let one = each_line(text.as_slice(), 1, &mut |_: &[u8]| {}).unwrap();
        assert_eq!(one, LinesRead { bytes: 2, too_long: 0 });
    }

    #[test]
    fn files_of_a_view_are_told_by_name() {
        let of = |name| number(name, View::Usage, FileFormat::JsonLines);
        assert_eq!(
            [of("usage.jsonl"), of("usage-000012.jsonl"), of("usage-1000000.jsonl")],
            [Some(0), Some(12), Some(1_000_000)]
        );
        assert_eq!([of("usage_by_route.jsonl"), of("usage-12.jsonl"), of("usage.csv")], [None; 3]);
        assert_eq!([of("usage.parquet"), of("usagejsonl"), of("usage-000001.jsonl.open")], [None; 3]);
        assert_eq!(number("usage-000012.parquet", View::Usage, FileFormat::Parquet), Some(12));
    }
}
