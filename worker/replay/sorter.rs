//! Sorting lines that may not fit into memory: what exceeds a budget is written to unnamed files in the
//! output folder as sorted runs, and merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Bytes of lines and keys that are held in memory.
const BUDGET: usize = 32 << 20;

/// Lines by key.
pub(super) struct Sorter {
    folder: PathBuf,
    bytes: Vec<u8>,
    /// Start of the key, of the line, and end, in `bytes`.
    places: Vec<(u32, u32, u32)>,
    runs: Vec<File>,
}

impl Sorter {
    /// Runs are kept in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), bytes: Vec::new(), places: Vec::new(), runs: Vec::new() }
    }

    /// Adds a line with its key; each is written by a function.
    pub(super) fn add(
        &mut self,
        key: impl FnOnce(&mut Vec<u8>),
        line: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<()> {
        if self.bytes.len() >= BUDGET {
            self.spill()?;
        }
        let at = |length: usize| u32::try_from(length).map_err(|_| io::Error::other("a line of over 4 GiB"));
        let start = at(self.bytes.len())?;
        key(&mut self.bytes);
        let middle = at(self.bytes.len())?;
        line(&mut self.bytes);
        self.places.push((start, middle, at(self.bytes.len())?));
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.places.sort_by_key(|(start, middle, _)| &bytes[*start as usize..*middle as usize]);
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut run = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
        for (start, middle, end) in self.places.drain(..) {
            run.write_all(&(middle - start).to_le_bytes())?;
            run.write_all(&(end - middle).to_le_bytes())?;
            run.write_all(&self.bytes[start as usize..end as usize])?;
        }
        self.bytes.clear();
        let mut run = run.into_inner().map_err(io::IntoInnerError::into_error)?;
        run.rewind()?;
        self.runs.push(run);
        Ok(())
    }

    /// Hands the lines of all sorters to `write` in the order of their keys; returns how many.
    pub(super) fn merge<W: Write>(
        sorters: Vec<Self>,
        out: &mut W,
        mut write: impl FnMut(&[u8], &mut W) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut inputs: Vec<Lines> = Vec::new();
        for mut sorter in sorters {
            sorter.sort();
            inputs.push(Lines::Memory { bytes: sorter.bytes, places: sorter.places.into_iter() });
            inputs.extend(
                sorter.runs.into_iter().map(|run| Lines::Run(BufReader::with_capacity(1 << 16, run))),
            );
        }
        let mut heap = BinaryHeap::new();
        for (index, input) in inputs.iter_mut().enumerate() {
            heap.extend(input.next()?.map(|(key, line)| Reverse((key, index, line))));
        }
        let mut count = 0;
        while let Some(Reverse((_, index, line))) = heap.pop() {
            write(&line, out)?;
            count += 1;
            heap.extend(inputs[index].next()?.map(|(key, line)| Reverse((key, index, line))));
        }
        Ok(count)
    }
}

enum Lines {
    Memory { bytes: Vec<u8>, places: std::vec::IntoIter<(u32, u32, u32)> },
    Run(BufReader<File>),
}

impl Lines {
    /// The next key and line.
    fn next(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        match self {
            Self::Memory { bytes, places } => Ok(places.next().map(|(start, middle, end)| {
                let part = |from: u32, to: u32| bytes[from as usize..to as usize].to_vec();
                (part(start, middle), part(middle, end))
            })),
            Self::Run(run) => {
                let mut length = [0; 4];
                match run.read_exact(&mut length) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    result => result?,
                }
                let part = |length: [u8; 4]| vec![0; u32::from_le_bytes(length) as usize];
                let mut key = part(length);
                run.read_exact(&mut length)?;
                let mut line = part(length);
                run.read_exact(&mut key)?;
                run.read_exact(&mut line)?;
                Ok(Some((key, line)))
            }
        }
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
        assert_eq!(Sorter::merge(sorters, &mut out, |line, out| out.write_all(line)).unwrap(), 1_000);
        let expected: String = expected.iter().map(|(_, number)| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "runs have no names");
    }
}
