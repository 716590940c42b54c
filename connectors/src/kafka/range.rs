//! One partition of a topic from an offset to an offset, in blocks, for bounded runs.
//!
//! ```text
//! ranges ──► Range ── Consumer (opened late, closed at the end and while many others are read) ──► MessageBlock
//! ```
//! * The range is fixed when the topic is looked at: later records aren't part of it. An end that is in a hole
//!   (control records, compacted ones) counts as reached if the partition is read to its end.
//! * A message may hold any bytes, so blocks keep the end of each one. A null value is an empty message. Headers
//!   are kept if the source's format [reads](crate::decode::reads_headers) them. If they exceed the limit of a
//!   message, the message is too long.
//! * An outage of the brokers is waited out: blocks are empty meanwhile. So no call waits longer than [`READ_WAIT`]
//!   for records, and a run can be stopped at any time.
//! * A gap in the range ends the run. With `on_gap = "skip"` it is one entry with its first and its next offset.
//!
//! **Limits**: an open range has at most 2 MiB of records fetched ahead, one answer of 1 MiB (compressed) on top,
//! and about four threads of librdkafka. Closing a range drops the records fetched ahead.

use std::fmt;
use std::time::Duration;

use keytide_config::{KafkaClient, KafkaSource, OnGap};
use sha2::{Digest, Sha256};

use super::client::KafkaError;
use super::consumer::{Consumer, ConsumerEvent};
use super::headers::KeptHeaders;
use super::topic::Topic;
use crate::decode::Headers;
use crate::file::{Cut, Line, TooLong};

/// How long reading a block waits for the first record.
pub const READ_WAIT: Duration = Duration::from_millis(100);
/// How long a block waits for a look-up.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// The bounds on what a range's consumer fetches ahead. They are low because there may be many ranges.
const TUNING: [(&str, &str); 5] = [
    ("queued.max.messages.kbytes", "2048"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.min.messages", "20000"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "1048576"),
];

/// Asks the brokers for the partitions of a source's topic, and returns them as ranges in order.
///
/// # Errors
/// If the topic, a partition or an offset isn't there, or without a (good) answer.
pub fn ranges(source: &KafkaSource) -> Result<Vec<Range>, KafkaError> {
    let topic = Topic::open(&source.client, &source.topic)?;
    let partitions = topic.partitions()?;
    let starts = topic.starts(&source.start, &partitions)?;
    let ends = topic.ends(&source.end, &partitions)?;
    let range = |((partition, start), (_, end)): ((u32, u64), (u32, u64))| Range {
        client: source.client.clone(),
        topic: source.topic.clone(),
        on_gap: source.on_gap,
        partition,
        end,
        next: start,
        bytes_read: 0,
        at_end: false,
        with_headers: false,
        consumer: None,
    };
    Ok(starts.into_iter().zip(ends).map(range).collect())
}

/// A partition from one offset to another, read once.
pub struct Range {
    client: KafkaClient,
    topic: String,
    on_gap: OnGap,
    partition: u32,
    /// The first offset that isn't read.
    end: u64,
    /// The offset that is to be read next.
    next: u64,
    bytes_read: u64,
    /// True if the partition was read to its end before the range was.
    at_end: bool,
    with_headers: bool,
    consumer: Option<Consumer>,
}

/// A block of messages of one partition. Messages may hold raw keys, so it isn't `Debug`.
pub struct MessageBlock {
    /// The texts of the messages, one behind the other.
    text: Vec<u8>,
    entries: Vec<BlockEntry>,
    header_bytes: usize,
    /// The number of bytes of the messages, those included that were too long.
    pub bytes: u64,
    /// True if nothing follows in this range.
    pub last: bool,
}

enum BlockEntry {
    /// A message that ends at `end` in the text, and begins at the end of the one before it.
    Message {
        offset: u64,
        end: usize,
        headers: KeptHeaders,
    },
    TooLong(TooLong),
    Gap(Gap),
}

/// Offsets whose records were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first offset without a record.
    pub from: u64,
    /// The first offset that is read again.
    pub to: u64,
}

impl MessageBlock {
    fn new(mut text: Vec<u8>) -> Self {
        text.clear();
        Self { text, entries: Vec::new(), header_bytes: 0, bytes: 0, last: false }
    }

    /// Returns the messages in order, with the gaps between them.
    pub fn entries(&self) -> impl Iterator<Item = Result<Line<'_>, Gap>> {
        self.entries_with_headers().map(|(entry, _)| entry)
    }

    /// Returns the same as [`entries`](Self::entries), each with its headers.
    pub fn entries_with_headers(&self) -> impl Iterator<Item = (Result<Line<'_>, Gap>, &dyn Headers)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| match entry {
            BlockEntry::Message { offset, end, headers } => {
                let text = &self.text[start..*end];
                start = *end;
                (Ok(Line::Whole { offset: *offset, text }), headers as &dyn Headers)
            }
            BlockEntry::TooLong(message) => (Ok(Line::TooLong(message.clone())), &() as &dyn Headers),
            BlockEntry::Gap(gap) => (Err(*gap), &() as &dyn Headers),
        })
    }

    /// Returns the buffer, for the next block.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.text
    }

    fn push(&mut self, offset: u64, value: &[u8], headers: &dyn Headers, cut: &Cut) {
        let length = value.len() as u64;
        self.bytes += length;
        let headers = KeptHeaders::of(headers, cut.line_bytes).filter(|_| value.len() <= cut.line_bytes);
        self.entries.push(match headers {
            Some(headers) => {
                self.header_bytes += headers.bytes();
                self.text.extend_from_slice(value);
                BlockEntry::Message { offset, end: self.text.len(), headers }
            }
            None => BlockEntry::TooLong(TooLong { offset, length, sha256: Sha256::digest(value).into() }),
        });
    }

    fn is_full(&self, cut: &Cut) -> bool {
        self.text.len() + self.header_bytes >= cut.bytes || self.entries.len() >= cut.lines
    }
}

impl Range {
    /// Returns the number of the partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Keeps the headers of messages if `keep` is set.
    #[must_use]
    pub fn with_headers(mut self, keep: bool) -> Self {
        self.with_headers = keep;
        self
    }

    /// Returns the offsets that are left to be read.
    #[must_use]
    pub fn left(&self) -> std::ops::Range<u64> {
        self.next..self.end.max(self.next)
    }

    /// Returns the number of bytes of the messages read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the next block, in the buffer `text`. It is empty if there was no record for [`READ_WAIT`]. No call
    /// may follow the block that is `last`.
    ///
    /// # Errors
    /// If reading can't go on. The range must not be used after an error.
    pub fn next_block(&mut self, cut: &Cut, text: Vec<u8>) -> Result<MessageBlock, KafkaError> {
        let mut block = MessageBlock::new(text);
        let mut gap = None;
        while self.next < self.end && gap.is_none() && !block.is_full(cut) {
            if self.at_end {
                self.judge_end(&mut block)?;
                break;
            }
            let consumer = match &mut self.consumer {
                Some(consumer) => consumer,
                closed => {
                    let mut consumer = Consumer::tuned(&self.client, &self.topic, &TUNING)?;
                    consumer.add(self.partition, self.next)?;
                    closed.insert(consumer)
                }
            };
            let (next, end, at_end, keep) = (&mut self.next, self.end, &mut self.at_end, self.with_headers);
            // Records are taken one at a time: one that isn't taken here is never handed over again.
            let records = consumer.poll(READ_WAIT, 1, &mut |record| match record {
                ConsumerEvent::Message(message) => {
                    *next = (message.offset + 1).min(end);
                    if message.offset < end {
                        let headers = if keep { message.headers } else { &() };
                        block.push(message.offset, message.value.unwrap_or_default(), headers, cut);
                    }
                }
                ConsumerEvent::End { offset, .. } => {
                    *next = offset.clamp(*next, end);
                    *at_end = *next < end;
                }
                ConsumerEvent::Gap { wanted, low, high, .. } => gap = Some((wanted, low, high)),
            })?;
            if records == 0 {
                break;
            }
        }
        if let Some((wanted, low, high)) = gap {
            self.pass_gap(&mut block, wanted, low, high)?;
        }
        self.bytes_read += block.bytes;
        block.last = self.next >= self.end;
        if block.last {
            self.consumer = None;
        }
        Ok(block)
    }

    /// Closes the connection until the next block is asked for. The returned consumer takes time to drop.
    #[must_use = "dropping a consumer takes time: not while a lock is held"]
    pub fn pause(&mut self) -> Option<Consumer> {
        self.consumer.take()
    }

    /// Handles a partition that ended before the range did: there are holes up to the end, or the log lost its end.
    fn judge_end(&mut self, block: &mut MessageBlock) -> Result<(), KafkaError> {
        let lookup = Topic::open(&self.client, &self.topic)?;
        match lookup.watermarks_within(self.partition, LOOKUP_WAIT) {
            Ok((_, high)) if high >= self.end => {
                self.next = self.end;
                Ok(())
            }
            Ok((low, high)) => self.pass_gap(block, self.next, low, high),
            // The next block asks again.
            Err(KafkaError::Unavailable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Goes on behind a gap, if the source allows it.
    fn pass_gap(
        &mut self,
        block: &mut MessageBlock,
        wanted: u64,
        low: u64,
        high: u64,
    ) -> Result<(), KafkaError> {
        if self.on_gap == OnGap::Stop {
            let (topic, partition) = (self.topic.clone(), self.partition);
            return Err(KafkaError::Gap { topic, partition, wanted, low, high });
        }
        // If the log lost its end, later records aren't those that were there when the run began.
        let to = if wanted < low { low.min(self.end) } else { self.end };
        block.entries.push(BlockEntry::Gap(Gap { from: wanted, to }));
        self.next = to;
        match &mut self.consumer {
            Some(consumer) if to < self.end => consumer.restart(self.partition, to),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Range {
    /// Shows the partition and never its messages, which may hold raw keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use keytide_config::{End, Start};

    use super::*;
    use crate::kafka::testing::{DEADLINE, MockBroker};

    const CUT: Cut = Cut { bytes: 1 << 10, lines: usize::MAX, line_bytes: 64 };

    /// An entry as the tests compare it.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Message(u64, Vec<u8>),
        TooLong(u64, u64),
        Gap(u64, u64),
    }

    fn message(offset: u64, text: &str) -> Seen {
        Seen::Message(offset, text.as_bytes().to_vec())
    }

    /// Reads the range to its end; calls `between` after every block.
    fn read(
        range: &mut Range,
        cut: &Cut,
        mut between: impl FnMut(&mut Range),
    ) -> Result<Vec<Seen>, KafkaError> {
        let (mut seen, mut text) = (Vec::new(), Vec::new());
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < DEADLINE, "waited in vain; seen: {seen:?}");
            let block = range.next_block(cut, text)?;
            seen.extend(block.entries().map(|entry| match entry {
                Ok(Line::Whole { offset, text }) => Seen::Message(offset, text.to_vec()),
                Ok(Line::TooLong(TooLong { offset, length, .. })) => Seen::TooLong(offset, length),
                Err(Gap { from, to }) => Seen::Gap(from, to),
            }));
            if block.last {
                return Ok(seen);
            }
            text = block.into_buffer();
            between(range);
        }
    }

    fn only(source: &KafkaSource) -> Range {
        let mut ranges = ranges(source).unwrap();
        assert_eq!(ranges.len(), 1);
        ranges.remove(0)
    }

    #[test]
    fn a_range_is_what_there_was_whatever_comes_later_and_however_it_is_cut() {
        let long = "x".repeat(65);
        let values = [Some("a\nb"), None, Some(""), Some(&long), Some("last")];
        for cut in [CUT, Cut { lines: 1, ..CUT }, Cut { bytes: 1, ..CUT }] {
            let broker = MockBroker::new();
            broker.create("events", 1);
            broker.produce_at("events", 0, &values.map(|value| (value, 1)));
            let mut range = only(&broker.source("events"));
            broker.produce("events", 0, &["later"]);
            let seen = read(&mut range, &cut, |_| {}).unwrap();
            let expected = [
                message(0, "a\nb"),
                message(1, ""),
                message(2, ""),
                Seen::TooLong(3, 65),
                message(4, "last"),
            ];
            assert_eq!(seen, expected, "{cut:?}");
            assert_eq!(range.bytes_read(), 3 + 65 + 4, "{cut:?}");
        }
    }

    #[test]
    fn a_range_within_the_topic_starts_and_ends_where_it_says() {
        let broker = MockBroker::new();
        broker.create("events", 2);
        broker.produce("events", 0, &["a", "b", "c", "d"]);
        let mut source = broker.source("events");
        source.start = Start::Offsets(BTreeMap::from([(0, 1)]));
        source.end = End::Offsets(BTreeMap::from([(0, 3)]));
        let mut ranges = ranges(&source).unwrap();
        assert_eq!(ranges.iter().map(Range::left).collect::<Vec<_>>(), [1..3, 0..0]);
        assert_eq!(read(&mut ranges[0], &CUT, |_| {}).unwrap(), [message(1, "b"), message(2, "c")]);
        // Nothing to read: no connection is made.
        assert_eq!(read(&mut ranges[1], &CUT, |_| {}).unwrap(), []);
    }

    #[test]
    fn headers_are_kept_where_they_are_asked_for_and_within_the_limit_of_a_message() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        let long = "x".repeat(64);
        for value in ["a", &long[..63], &long] {
            broker.produce_headed("events", 0, &[(b"h", Some(value.as_bytes()))], Some(b"value"));
        }
        let headers = |keep: bool| {
            let mut range = only(&broker.source("events")).with_headers(keep);
            let mut seen = Vec::new();
            loop {
                let block = range.next_block(&CUT, Vec::new()).unwrap();
                for (entry, headers) in block.entries_with_headers() {
                    let mut bytes = 0;
                    headers.each(&mut |name, value| bytes += name.len() + value.len());
                    seen.push((matches!(entry, Ok(Line::Whole { text: b"value", .. })), bytes));
                }
                if block.last {
                    return seen;
                }
            }
        };
        assert_eq!(headers(false), [(true, 0), (true, 0), (true, 0)]);
        assert_eq!(headers(true), [(true, 2), (true, 64), (false, 0)]);
    }

    #[test]
    fn a_paused_range_goes_on_where_it_was() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b", "c"]);
        let mut range = only(&broker.source("events"));
        let one = Cut { lines: 1, ..CUT };
        let seen = read(&mut range, &one, |range| drop(range.pause())).unwrap();
        assert_eq!(seen, [message(0, "a"), message(1, "b"), message(2, "c")]);
    }

    #[test]
    fn an_outage_is_waited_out_with_empty_blocks() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b"]);
        let mut range = only(&broker.source("events"));
        broker.down();
        for _ in 0..3 {
            let block = range.next_block(&CUT, Vec::new()).unwrap();
            assert!(block.entries().next().is_none() && !block.last);
        }
        broker.up();
        assert_eq!(read(&mut range, &CUT, |_| {}).unwrap(), [message(0, "a"), message(1, "b")]);
    }

    /// Returns a range from offset 0, whose beginning was deleted, and the watermarks.
    fn with_a_gap(broker: &MockBroker, on_gap: OnGap) -> (Range, u64, u64) {
        broker.create("events", 1);
        let value = "x".repeat(100_000);
        broker.produce("events", 0, &[value.as_str(); 10]);
        let mut source = broker.source("events");
        source.on_gap = on_gap;
        let mut range = only(&source);
        // The broker keeps 5 MiB of a partition.
        for _ in 0..7 {
            broker.produce("events", 0, &[value.as_str(); 10]);
        }
        let (low, high) = Topic::open(&broker.client(), "events").unwrap().watermarks(0).unwrap();
        assert!(low > 0 && high == 80, "the broker dropped nothing: {low} to {high}");
        range.end = low + 2;
        (range, low, high)
    }

    #[test]
    fn a_gap_ends_a_range_that_must_be_whole() {
        let broker = MockBroker::new();
        let (mut range, low, high) = with_a_gap(&broker, OnGap::Stop);
        let error = read(&mut range, &CUT, |_| {}).unwrap_err();
        let expected = KafkaError::Gap { topic: "events".to_owned(), partition: 0, wanted: 0, low, high };
        assert_eq!(error, expected);
    }

    #[test]
    fn a_gap_is_one_entry_where_it_may_be_skipped() {
        let broker = MockBroker::new();
        let (mut range, low, _) = with_a_gap(&broker, OnGap::Skip);
        let seen = read(&mut range, &CUT, |_| {}).unwrap();
        let expected = [Seen::Gap(0, low), Seen::TooLong(low, 100_000), Seen::TooLong(low + 1, 100_000)];
        assert_eq!(seen, expected);

        // The log has lost its end.
        let mut range = only(&broker.source("events"));
        range.on_gap = OnGap::Skip;
        (range.next, range.end) = (90, 95);
        assert_eq!(read(&mut range, &CUT, |_| {}).unwrap(), [Seen::Gap(90, 95)]);
    }

    #[test]
    fn an_end_in_a_hole_is_reached_and_one_that_was_lost_is_a_gap() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        broker.produce("events", 0, &["a", "b"]);
        let mut range = only(&broker.source("events"));
        range.at_end = true;
        assert!(range.next_block(&CUT, Vec::new()).unwrap().last);

        let mut range = only(&broker.source("events"));
        range.end = 3;
        let error = read(&mut range, &CUT, |_| {}).unwrap_err();
        assert!(matches!(error, KafkaError::Gap { wanted: 2, low: 0, high: 2, .. }), "{error}");
    }
}
