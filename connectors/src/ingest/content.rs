//! What a partition holds, wherever it is: a file's lines or a topic's messages, in blocks.

use crate::decode::Headers;
use crate::file::{self, Cut, Line, Partition};
use crate::kafka::{Consumer, Gap, MessageBlock, Range};

use super::IngestError;

/// What one partition holds.
#[derive(Debug)]
pub enum PartitionContent {
    /// A file or a stream.
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
    /// The file's path.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Self::File(partition) => partition.path(),
            Self::Topic(_) => None,
        }
    }

    /// Its size in bytes as stored; `None` where only its end will tell.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(partition) => partition.bytes(),
            Self::Topic(range) => range.left().is_empty().then_some(0),
        }
    }

    /// How many of them were read.
    pub(super) fn bytes_read(&self) -> u64 {
        match self {
            Self::File(partition) => partition.bytes_read(),
            Self::Topic(range) => range.bytes_read(),
        }
    }

    /// The next block, in the buffer `text`.
    ///
    /// # Errors
    /// If it can't be read. It must not be used after an error.
    pub(crate) fn next_block(&mut self, cut: &Cut, text: Vec<u8>) -> Result<InputBlock, IngestError> {
        Ok(match self {
            Self::File(partition) => InputBlock::Lines(partition.next_block(cut, text)?),
            Self::Topic(range) => InputBlock::Messages(range.next_block(cut, text)?),
        })
    }

    /// Closes it until the next block is asked for. What is returned takes time to drop.
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

/// Messages of one partition.
pub(crate) enum InputBlock {
    Lines(file::LineBlock),
    Messages(MessageBlock),
}

impl InputBlock {
    /// Bytes that it stands for.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Lines(block) => block.bytes,
            Self::Messages(block) => block.bytes,
        }
    }

    /// Nothing follows in its partition.
    pub(crate) fn last(&self) -> bool {
        match self {
            Self::Lines(block) => block.last,
            Self::Messages(block) => block.last,
        }
    }

    /// Of lines of a file: the header line before them. `None` of a topic.
    pub(super) fn lines_header(&self) -> Option<Option<&[u8]>> {
        match self {
            Self::Lines(block) => Some(block.header()),
            Self::Messages(_) => None,
        }
    }

    /// Hands over the messages with their headers, in order, and what is left of those that are gone.
    pub(crate) fn for_each(&self, mut each: impl FnMut(Result<Line<'_>, Gap>, &dyn Headers)) {
        match self {
            Self::Lines(block) => block.lines().for_each(|line| each(Ok(line), &())),
            Self::Messages(block) => {
                block.entries_with_headers().for_each(|(entry, headers)| each(entry, headers));
            }
        }
    }

    /// The buffer, for the next block.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Lines(block) => block.into_buffer(),
            Self::Messages(block) => block.into_buffer(),
        }
    }
}
