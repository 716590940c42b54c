//! Sorts lines that may not fit into memory. Beyond a budget they are written as sorted runs.

use std::io;
use std::path::{Path, PathBuf};

use super::runs::{Ascending, Merge, RunReader, Runs};

/// Bytes of lines and keys that a sorter holds in memory.
const BUDGET: usize = 8 << 20;

/// Sorts lines by their keys.
#[derive(Default)]
pub(super) struct Sorter {
    folder: PathBuf,
    bytes: Vec<u8>,
    /// Offsets in `bytes`: the key's start, the line's start, the line's end.
    lines: Vec<(u32, u32, u32)>,
    runs: Runs,
}

impl Sorter {
    /// Returns an empty sorter that keeps its runs in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..Self::default() }
    }

    /// Adds a line with its key; each function appends its part.
    pub(super) fn add(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        line: impl FnOnce(&mut Vec<u8>),
    ) -> anyhow::Result<()> {
        if self.bytes.len() >= BUDGET {
            self.spill()?;
        }
        let at = |length: usize| u32::try_from(length).map_err(|_| io::Error::other("a line of over 4 GiB"));
        let start = at(self.bytes.len())?;
        key(&mut self.bytes);
        let middle = at(self.bytes.len())?;
        line(&mut self.bytes);
        self.lines.push((start, middle, at(self.bytes.len())?));
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.lines.sort_by_key(|(start, middle, _)| &bytes[*start as usize..*middle as usize]);
    }

    fn spill(&mut self) -> anyhow::Result<()> {
        self.sort();
        let Self { folder, bytes, lines, runs } = self;
        runs.add(folder, |run| {
            lines.drain(..).try_for_each(|(start, middle, end)| {
                run.add(&[&(middle - start).to_le_bytes(), &bytes[start as usize..end as usize]])
            })
        })?;
        bytes.clear();
        Ok(())
    }

    /// Hands the lines of all sorters to `write` in the order of their keys; returns their number.
    pub(super) fn merge(
        mut sorters: Vec<Self>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        sorters.iter_mut().for_each(Self::sort);
        let in_memory = sorters.iter().map(|sorter| SortedLines::Memory(&sorter.bytes, sorter.lines.iter()));
        let runs = RunReader::all(sorters.iter().map(|sorter| &sorter.runs));
        let mut lines = Merge::new(in_memory.chain(runs.into_iter().map(SortedLines::Run)).collect())?;
        let mut count = 0;
        while let Some(line) = lines.next()? {
            write(&line)?;
            count += 1;
        }
        Ok(count)
    }
}

enum SortedLines<'a> {
    Memory(&'a [u8], std::slice::Iter<'a, (u32, u32, u32)>),
    Run(RunReader<'a>),
}

impl Ascending for SortedLines<'_> {
    type Key = Vec<u8>;
    type Item = Vec<u8>;

    fn next(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        Ok(match self {
            Self::Memory(bytes, lines) => lines.next().map(|(start, middle, end)| {
                let part = |from: u32, to: u32| bytes[from as usize..to as usize].to_vec();
                (part(*start, *middle), part(*middle, *end))
            }),
            Self::Run(run) => run.next()?.and_then(|record| {
                let (length, record) = record.split_first_chunk()?;
                let (key, line) = record.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                Some((key.to_vec(), line.to_vec()))
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_in_the_order_of_their_keys_from_memory_and_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorters = vec![Sorter::new(folder.path()), Sorter::new(folder.path())];
        let mut expected = Vec::new();
        for number in 0..1_000_u64 {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let sorter = &mut sorters[(number % 2) as usize];
            sorter
                .add(
                    |bytes| bytes.extend(key.to_be_bytes()),
                    |bytes| bytes.extend(format!("{number}\n").as_bytes()),
                )
                .unwrap();
            if number % 300 == 7 {
                sorter.spill().unwrap();
            }
            expected.push((key, number));
        }
        expected.sort_unstable();
        let mut out = Vec::new();
        let count = Sorter::merge(sorters, |line| {
            out.extend_from_slice(line);
            Ok(())
        });
        assert_eq!(count.unwrap(), 1_000);
        let expected: String = expected.iter().map(|(_, number)| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "runs have no names");
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(&folder.path().join("gone"));
        sorter.add(|key| key.push(1), |line| line.push(b'\n')).unwrap();
        let error = sorter.spill().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("writing a temporary file in ") && text.ends_with("gone failed"), "{text}");
    }
}
