//! The content of a partition in blocks, whether it is a file's lines or a topic's messages.

use crate::decode::Headers;
use crate::file::{self, Cut, Line, Partition};
use crate::kafka::{Consumer, Gap, MessageBlock, Range};

use super::IngestError;

/// The content of one partition of a source.
#[derive(Debug)]
pub enum PartitionContent {
    /// The lines of a file or a stream.
    File(Box<Partition>),
    /// A partition of a topic, from an offset to an offset.
    Topic(Box<Range>),
}

impl From<Partition> for PartitionContent {
    fn from(partition: Partition) -> Self {
        Self::File(Box::new(partition))
    }
}

impl From<Range> for PartitionContent {
    fn from(range: Range) -> Self {
        Self::Topic(Box::new(range))
    }
}

impl PartitionContent {
    /// Returns the path of a file.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Self::File(partition) => partition.path(),
            Self::Topic(_) => None,
        }
    }

    /// Returns the size in bytes as stored; `None` if it isn't known before the end.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(partition) => partition.bytes(),
            Self::Topic(range) => range.left().is_empty().then_some(0),
        }
    }

    /// Returns how many of these bytes were read.
    pub(super) fn bytes_read(&self) -> u64 {
        match self {
            Self::File(partition) => partition.bytes_read(),
            Self::Topic(range) => range.bytes_read(),
        }
    }

    /// Returns the next block, in the buffer `text`.
    ///
    /// # Errors
    /// If the content can't be read. It must not be used after an error.
    pub(crate) fn next_block(&mut self, cut: &Cut, text: Vec<u8>) -> Result<InputBlock, IngestError> {
        Ok(match self {
            Self::File(partition) => InputBlock::Lines(partition.next_block(cut, text)?),
            Self::Topic(range) => InputBlock::Messages(range.next_block(cut, text)?),
        })
    }

    /// Closes the content until the next block is asked for. The returned consumer takes time to drop.
    #[must_use = "dropping a consumer takes time: not while a lock is held"]
    pub(crate) fn pause(&mut self) -> Option<Consumer> {
        match self {
            Self::File(partition) => {
                partition.pause();
                None
            }
            Self::Topic(range) => range.pause(),
        }
    }
}

/// A block of messages of one partition.
pub(crate) enum InputBlock {
    Lines(file::LineBlock),
    Messages(MessageBlock),
}

impl InputBlock {
    /// Returns the number of bytes that the block covers.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Lines(block) => block.bytes,
            Self::Messages(block) => block.bytes,
        }
    }

    /// Returns whether nothing follows in the partition.
    pub(crate) fn last(&self) -> bool {
        match self {
            Self::Lines(block) => block.last,
            Self::Messages(block) => block.last,
        }
    }

    /// Returns the header line before the lines of a file, if there is one. The outer `None` is a topic's.
    pub(super) fn lines_header(&self) -> Option<Option<&[u8]>> {
        match self {
            Self::Lines(block) => Some(block.header()),
            Self::Messages(_) => None,
        }
    }

    /// Hands over the messages with their headers, in order, and the gaps between them.
    pub(crate) fn for_each(&self, mut each: impl FnMut(Result<Line<'_>, Gap>, &dyn Headers)) {
        match self {
            Self::Lines(block) => block.lines().for_each(|line| each(Ok(line), &())),
            Self::Messages(block) => {
                block.entries_with_headers().for_each(|(entry, headers)| each(entry, headers));
            }
        }
    }

    /// Returns the buffer, for the next block.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Lines(block) => block.into_buffer(),
            Self::Messages(block) => block.into_buffer(),
        }
    }
}
