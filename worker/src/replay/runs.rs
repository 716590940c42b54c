//! Sorted runs of records that don't fit into memory, in an unnamed file of the output folder. The file is gone when
//! the process ends, however it ends.
//!
//! A record is its length (4 bytes) and its bytes; a run is a range of the file. However many runs there are, merging
//! reads them through buffers of [`BUFFERS`] bytes in all, at least 4 KiB each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;

/// Bytes of all buffers that runs are read through.
const BUFFERS: usize = 16 << 20;

/// The runs of one file.
#[derive(Default)]
pub(super) struct Runs {
    file: Option<File>,
    ranges: Vec<Range<u64>>,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Appends a run whose records `write` adds in their order.
    pub(super) fn add(
        &mut self,
        folder: &Path,
        write: impl FnOnce(&mut RunWriter<'_>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let append = || {
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(tempfile::tempfile_in(folder)?),
            };
            let start = self.ranges.last().map_or(0, |run| run.end);
            let mut file = file;
            file.seek(SeekFrom::Start(start))?;
            let mut writer = RunWriter { file: BufWriter::with_capacity(1 << 18, file), length: 0 };
            write(&mut writer)?;
            writer.file.flush()?;
            self.ranges.push(start..start + writer.length);
            io::Result::Ok(())
        };
        append().with_context(|| format!("writing a temporary file in {} failed", folder.display()))
    }
}

/// A run that is being written.
pub(super) struct RunWriter<'a> {
    file: BufWriter<&'a File>,
    length: u64,
}

impl RunWriter<'_> {
    /// Appends a record made of `parts`.
    pub(super) fn add(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let prefix =
            u32::try_from(length).map_err(|_| io::Error::other("a record of over 4 GiB"))?.to_le_bytes();
        self.file.write_all(&prefix)?;
        parts.iter().try_for_each(|part| self.file.write_all(part))?;
        self.length += (prefix.len() + length) as u64;
        Ok(())
    }
}

/// Reads the records of a run through a buffer.
pub(super) struct RunReader<'a> {
    file: &'a File,
    rest: Range<u64>,
    buffer: Vec<u8>,
    read: usize,
    capacity: usize,
}

impl<'a> RunReader<'a> {
    /// Returns readers of all runs of `files`.
    pub(super) fn all(files: impl Iterator<Item = &'a Runs> + Clone) -> Vec<Self> {
        let count: usize = files.clone().map(|runs| runs.ranges.len()).sum();
        let capacity = (BUFFERS / count.max(1)).clamp(4 << 10, 256 << 10);
        let ranges = files.filter_map(|runs| runs.file.as_ref().map(|file| (file, &runs.ranges)));
        ranges
            .flat_map(|(file, ranges)| ranges.iter().map(move |key| (file, key.clone())))
            .map(|(file, rest)| Self { file, rest, buffer: Vec::new(), read: 0, capacity })
            .collect()
    }

    /// Returns the next record; `None` at the run's end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.read == self.buffer.len() && self.rest.is_empty() {
            return Ok(None);
        }
        let mut prefix = [0; 4];
        prefix.copy_from_slice(self.take(4)?);
        self.take(u32::from_le_bytes(prefix) as usize).map(Some)
    }

    /// Returns the next `length` bytes, reading from the file if the buffer has fewer.
    fn take(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.read < length {
            self.buffer.drain(..self.read);
            self.read = 0;
            let wanted = self.capacity.max(length) - self.buffer.len();
            let wanted = (wanted as u64).min(self.rest.end - self.rest.start);
            self.file.seek(SeekFrom::Start(self.rest.start))?;
            self.rest.start += self.file.take(wanted).read_to_end(&mut self.buffer)? as u64;
            if self.buffer.len() < length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a temporary file was cut"));
            }
        }
        self.read += length;
        Ok(&self.buffer[self.read - length..self.read])
    }
}

/// Items in ascending order of their keys, which can be merged with others.
pub(super) trait Ascending {
    /// Orders the items.
    type Key: Ord;
    /// Comes out of the merge, without its key.
    type Item;

    /// Returns the next key and item; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(Self::Key, Self::Item)>>;
}

/// Merges inputs by key. Of equal keys that of the earlier input comes first.
pub(super) struct Merge<I: Ascending> {
    inputs: Vec<I>,
    heads: BinaryHeap<Reverse<(I::Key, usize)>>,
    items: Vec<Option<I::Item>>,
}

impl<I: Ascending> Merge<I> {
    pub(super) fn new(mut inputs: Vec<I>) -> io::Result<Self> {
        let (mut heads, mut items) = (BinaryHeap::new(), Vec::new());
        for (index, input) in inputs.iter_mut().enumerate() {
            let (key, item) = input.next()?.unzip();
            heads.extend(key.map(|key| Reverse((key, index))));
            items.push(item);
        }
        Ok(Self { inputs, heads, items })
    }

    /// Returns the next item of all inputs.
    pub(super) fn next(&mut self) -> io::Result<Option<I::Item>> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let index = head.0.1;
        match self.inputs[index].next()? {
            Some((key, item)) => {
                head.0.0 = key;
                Ok(self.items[index].replace(item))
            }
            None => {
                PeekMut::pop(head);
                Ok(self.items[index].take())
            }
        }
    }
}
