//! Cutting a byte stream into blocks of whole lines.
//!
//! A line ends with `\n` or `\r\n`, the last one also with the stream; its end is no part of it. Empty lines are
//! skipped. The stream is read straight into the block's buffer. Only the beginning of the line that the block cuts
//! is copied, to the next block.
//!
//! Records in JSON may be printed over several lines, as `jq` prints them. A file has them if its first line is a
//! bracket alone. Then a message reaches from such a line to the next one that begins with a closing bracket, and a
//! block holds whole messages. A message that is longer than a line may be makes the rest of the file be read line
//! by line.
//!
//! The lines of some formats depend on a header line before them. A block has the last header line before it, at
//! most 64 KiB of it.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use sha2::{Digest, Sha256};

/// The most bytes of a header line that are kept.
const HEADER_BYTES: usize = 64 << 10;

/// How a partition is cut into blocks. Lines and their positions don't depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The number of bytes in a block, which its last line may exceed.
    pub bytes: usize,
    /// The most lines in a block, empty ones not counted; `usize::MAX` if there is no limit.
    pub lines: usize,
    /// The most bytes of a line; longer ones are [`TooLong`].
    pub line_bytes: usize,
}

/// Whole lines of one partition, which may be followed by one that was too long to be kept. Lines may hold raw
/// keys, so it isn't `Debug`.
pub struct LineBlock {
    /// The position of the first byte in the stream.
    offset: u64,
    /// The lines are in `text[..len]`; the rest is spare room.
    text: Vec<u8>,
    len: usize,
    line_bytes: usize,
    streamed: Option<TooLong>,
    header: Option<Arc<[u8]>>,
    /// True if messages may be printed over several lines.
    is_printed: bool,
    /// The number of the stream's bytes that the block covers, ends of lines and skipped ones included.
    pub bytes: u64,
    /// True if nothing follows in this partition.
    pub last: bool,
}

/// The remains of a line that is longer than the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub offset: u64,
    /// The length in bytes, without the line's end.
    pub length: u64,
    pub sha256: [u8; 32],
}

/// A line of a block, whole or too long.
pub enum Line<'a> {
    Whole {
        offset: u64,
        /// The text without the line's end; never empty.
        text: &'a [u8],
    },
    TooLong(TooLong),
}

impl LineBlock {
    /// Returns the last header line before the block, without its end.
    #[must_use]
    pub fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// Returns the lines in the order of the stream.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let text = &self.text[..self.len];
        let mut start = 0;
        let mut streamed = self.streamed.clone();
        std::iter::from_fn(move || {
            while start < text.len() {
                let (offset, rest) = (self.offset + start as u64, &text[start..]);
                let end = match self.is_printed {
                    false => memchr(b'\n', rest).map(|end| end + 1),
                    true => printed(rest),
                };
                let end = end.unwrap_or(rest.len());
                start += end;
                let line = without_return(rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]));
                if line.len() > self.line_bytes {
                    let (length, sha256) = (line.len() as u64, Sha256::digest(line).into());
                    return Some(Line::TooLong(TooLong { offset, length, sha256 }));
                }
                if !line.is_empty() {
                    return Some(Line::Whole { offset, text: line });
                }
            }
            streamed.take().map(Line::TooLong)
        })
    }

    /// Returns the buffer, for the next block.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.text
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Returns the end of the message that `text` begins with, where messages may be printed over several lines; `None`
/// if `text` ends before the message.
fn printed(text: &[u8]) -> Option<usize> {
    let end = memchr(b'\n', text)? + 1;
    if !matches!(text[..end].trim_ascii_end(), b"{" | b"[") {
        return Some(end);
    }
    let closing = memchr_iter(b'\n', &text[end - 1..])
        .map(|newline| end + newline)
        .find(|line| matches!(text.get(*line), Some(b'}' | b']')))?;
    memchr(b'\n', &text[closing..]).map(|newline| closing + newline + 1)
}

/// The way in which a stream's messages are laid out in lines.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum MessageLayout {
    #[default]
    Lines,
    /// It isn't known before the first line.
    Unknown,
    Printed,
}

/// The state that is kept between two blocks.
#[derive(Default)]
pub(super) struct LineCutter {
    /// The position in the stream at which the next block starts.
    offset: u64,
    /// Bytes that were read beyond the previous block.
    carry: Vec<u8>,
    ended: bool,
    layout: MessageLayout,
    /// The text that header lines begin with.
    headers: Option<&'static [u8]>,
    /// The last header line in front of the next block.
    header: Option<Arc<[u8]>>,
}

impl LineCutter {
    /// Looks for header lines, which begin with `begin`.
    pub(super) fn look_for_headers(&mut self, begin: Option<&'static [u8]>) {
        self.headers = begin;
    }

    /// Takes messages for JSON, which may be printed over several lines.
    pub(super) fn look_for_printed(&mut self, wanted: bool) {
        if wanted && self.offset == 0 {
            self.layout = MessageLayout::Unknown;
        }
    }

    /// Returns the position at which the next block starts.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Drops the bytes read ahead: the stream goes on at [`offset`](Self::offset).
    pub(super) fn forget_carry(&mut self) {
        self.carry = Vec::new();
        self.ended = false;
    }

    /// Returns the next block, in the buffer `text`.
    ///
    /// # Errors
    /// The errors of `input`. The stream must not be used after one.
    pub(super) fn next_block(
        &mut self,
        input: &mut impl Read,
        cut: &Cut,
        mut text: Vec<u8>,
    ) -> io::Result<LineBlock> {
        let mut filled = self.carry.len();
        let mut target = cut.bytes.max(filled).max(1);
        grow(&mut text, target);
        text[..filled].copy_from_slice(&self.carry);
        let mut searched = 0;
        loop {
            filled += self.fill(input, &mut text[filled..target])?;
            // The first line that isn't empty decides the layout.
            if self.layout == MessageLayout::Unknown {
                let first = text[..filled].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                let first = first.clone().find(|line| !line.is_empty());
                self.layout = match first {
                    Some(b"{" | b"[") => MessageLayout::Printed,
                    None if !self.ended => MessageLayout::Unknown,
                    _ => MessageLayout::Lines,
                };
            }
            let whole = match self.layout {
                MessageLayout::Lines | MessageLayout::Unknown => {
                    whole_lines(&text[..filled], searched, cut.lines)
                }
                MessageLayout::Printed => match whole_messages(&text[..filled], cut, self.ended) {
                    // A message that is too long is read line by line, and so is the rest of the file.
                    Some(WholeLines { bytes: 0, .. }) => {
                        (self.layout, searched) = (MessageLayout::Lines, 0);
                        continue;
                    }
                    whole => whole,
                },
            };
            // A block ends with the last whole line, the stream, or a line that is too long; else more is read.
            let end = match whole {
                Some(end) if !self.ended || end.full => end.bytes,
                _ if self.ended => filled,
                _ if filled > cut.line_bytes.saturating_add(1) && self.layout != MessageLayout::Printed => {
                    return self.skip_line(input, cut, text, filled);
                }
                _ => {
                    searched = filled;
                    // Room for the line's end; in a message of several lines it may not be the last one.
                    let beyond = if self.layout == MessageLayout::Printed { 3 } else { 2 };
                    target = target.saturating_mul(2).min(cut.line_bytes.saturating_add(beyond));
                    grow(&mut text, target);
                    continue;
                }
            };
            self.carry.clear();
            self.carry.extend_from_slice(&text[end..filled]);
            return Ok(self.block(text, end, end as u64, cut, None));
        }
    }

    /// Fills `room` as far as the stream reaches; returns the number of bytes.
    fn fill(&mut self, input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < room.len() && !self.ended {
            match input.read(&mut room[filled..]) {
                Ok(0) => self.ended = true,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Skips the line that begins in `text[..filled]`, and hashes it.
    fn skip_line(
        &mut self,
        input: &mut impl Read,
        cut: &Cut,
        mut text: Vec<u8>,
        mut filled: usize,
    ) -> io::Result<LineBlock> {
        let mut line = LineHash::default();
        let mut passed = 0;
        self.carry.clear();
        loop {
            if let Some(end) = memchr(b'\n', &text[..filled]) {
                line.update(&text[..end]);
                passed += end as u64 + 1;
                self.carry.extend_from_slice(&text[end + 1..filled]);
                break;
            }
            line.update(&text[..filled]);
            passed += filled as u64;
            if self.ended {
                break;
            }
            filled = self.fill(input, &mut text)?;
        }
        let too_long = line.finish(self.offset);
        Ok(self.block(text, 0, passed, cut, Some(too_long)))
    }

    fn block(
        &mut self,
        text: Vec<u8>,
        len: usize,
        passed: u64,
        cut: &Cut,
        streamed: Option<TooLong>,
    ) -> LineBlock {
        let offset = self.offset;
        self.offset += passed;
        let last = self.ended && self.carry.is_empty();
        let header = self.header.clone();
        if let Some(begin) = self.headers
            && let Some(next) = last_header(&text[..len], begin)
        {
            self.header = Some(next[..next.len().min(HEADER_BYTES)].into());
        }
        let is_printed = self.layout == MessageLayout::Printed;
        LineBlock {
            offset,
            text,
            len,
            line_bytes: cut.line_bytes,
            streamed,
            header,
            is_printed,
            bytes: passed,
            last,
        }
    }
}

/// Returns the last line of `text` that begins with `begin`.
fn last_header<'t>(text: &'t [u8], begin: &[u8]) -> Option<&'t [u8]> {
    // A decoder skips a byte order mark, so a header may follow one.
    let is_start = |at: &usize| {
        let before = &text[..*at];
        let before = before.strip_suffix(b"\xEF\xBB\xBF").unwrap_or(before);
        before.last().is_none_or(|byte| *byte == b'\n')
    };
    let start = Finder::new(begin).find_iter(text).filter(is_start).last()?;
    let line = &text[start..];
    Some(without_return(&line[..memchr(b'\n', line).unwrap_or(line.len())]))
}

/// Makes `text` at least `bytes` long; a buffer that comes back is zeroed only once.
fn grow(text: &mut Vec<u8>, bytes: usize) {
    if text.len() < bytes {
        text.resize(bytes, 0);
    }
}

struct WholeLines {
    bytes: usize,
    /// True if there are as many lines as a block may have.
    full: bool,
}

/// Returns the whole lines at the beginning of `text`, at most `limit` that aren't empty. No line ends before
/// `searched`.
fn whole_lines(text: &[u8], searched: usize, limit: usize) -> Option<WholeLines> {
    if limit == usize::MAX {
        return memrchr(b'\n', &text[searched..])
            .map(|end| WholeLines { bytes: searched + end + 1, full: false });
    }
    let (mut bytes, mut lines) = (0, 0);
    for end in memchr_iter(b'\n', &text[searched..]) {
        let end = searched + end;
        lines += usize::from(!without_return(&text[bytes..end]).is_empty());
        bytes = end + 1;
        if lines >= limit {
            return Some(WholeLines { bytes, full: true });
        }
    }
    (bytes > 0).then_some(WholeLines { bytes, full: false })
}

/// Returns the whole messages at the beginning of `text`, up to one that is too long. It has no bytes if that is
/// the first, so the same message is too long wherever the text is cut.
fn whole_messages(text: &[u8], cut: &Cut, is_all: bool) -> Option<WholeLines> {
    let (mut bytes, mut messages) = (0, 0);
    loop {
        let rest = &text[bytes..];
        let end = printed(rest);
        let message = &rest[..end.unwrap_or(rest.len())];
        let length = without_return(message.strip_suffix(b"\n").unwrap_or(message)).len();
        // The end of this message isn't there yet, so its last byte may belong to the end of the line.
        let is_long = length > cut.line_bytes
            && (end.is_some() || is_all || rest.len() > cut.line_bytes.saturating_add(1));
        let Some(end) = end.filter(|_| !is_long) else {
            return (bytes > 0 || is_long).then_some(WholeLines { bytes, full: is_long });
        };
        messages += usize::from(!message.trim_ascii().is_empty());
        bytes += end;
        if messages >= cut.lines {
            return Some(WholeLines { bytes, full: true });
        }
    }
}

/// The length and the hash of a line that comes in pieces. It holds back a `\r` before the line's end.
#[derive(Default)]
struct LineHash {
    hash: Sha256,
    length: u64,
    held_return: bool,
}

impl LineHash {
    fn update(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        if std::mem::take(&mut self.held_return) {
            self.hash.update(b"\r");
            self.length += 1;
        }
        let line = without_return(piece);
        self.held_return = line.len() < piece.len();
        self.hash.update(line);
        self.length += line.len() as u64;
    }

    fn finish(self, offset: u64) -> TooLong {
        TooLong { offset, length: self.length, sha256: self.hash.finalize().into() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line as the tests compare it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Whole(u64, Vec<u8>),
        TooLong(TooLong),
    }

    /// Reads in pieces of the given sizes, over and over, with interruptions between them.
    struct Pieces<'a> {
        text: &'a [u8],
        sizes: Vec<usize>,
        turn: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Err(ErrorKind::Interrupted.into());
            }
            let size = self.sizes[self.turn % self.sizes.len()].max(1);
            let (now, rest) = self.text.split_at(size.min(room.len()).min(self.text.len()));
            room[..now.len()].copy_from_slice(now);
            self.text = rest;
            Ok(now.len())
        }
    }

    fn read(text: &[u8], cut: &Cut, sizes: &[usize]) -> Vec<Seen> {
        let mut input = Pieces { text, sizes: sizes.to_vec(), turn: 0 };
        let mut lines = LineCutter::default();
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        loop {
            let block = lines.next_block(&mut input, cut, buffer).unwrap();
            let before = seen.len();
            seen.extend(block.lines().map(|line| match line {
                Line::Whole { offset, text } => Seen::Whole(offset, text.to_vec()),
                Line::TooLong(line) => Seen::TooLong(line),
            }));
            assert!(seen.len() - before <= cut.lines, "a block of too many lines");
            assert!(block.text.len() <= cut.bytes.max(cut.line_bytes + 2), "a buffer beyond its bound");
            if block.last {
                assert_eq!(lines.offset(), text.len() as u64);
                return seen;
            }
            buffer = block.into_buffer();
        }
    }

    /// The same by the book: the whole text in memory.
    fn model(text: &[u8], line_bytes: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut offset = 0;
        for line in text.split(|&byte| byte == b'\n') {
            let start = offset;
            offset += line.len() as u64 + 1;
            let line = without_return(line);
            if line.len() > line_bytes {
                let (length, sha256) = (line.len() as u64, Sha256::digest(line).into());
                seen.push(Seen::TooLong(TooLong { offset: start, length, sha256 }));
            } else if !line.is_empty() {
                seen.push(Seen::Whole(start, line.to_vec()));
            }
        }
        seen
    }

    fn cut(bytes: usize, line_bytes: usize) -> Cut {
        Cut { bytes, lines: usize::MAX, line_bytes }
    }

    #[test]
    fn ends_of_lines_are_no_part_of_them() {
        let seen = read(b"a\r\n\n\r\nbc\nd\re\n\rf", &cut(64, 16), &[64]);
        let whole = |offset, text: &[u8]| Seen::Whole(offset, text.to_vec());
        assert_eq!(seen, [whole(0, b"a"), whole(6, b"bc"), whole(9, b"d\re"), whole(13, b"\rf")]);
        assert_eq!(read(b"", &cut(64, 16), &[1]), []);
        assert_eq!(read(b"\n\r\n\n", &cut(1, 16), &[1]), []);
    }

    #[test]
    fn the_limit_is_exact_whether_a_line_fits_the_block_or_streams_by() {
        for block in [1, 8, 9, 10, 11, 64] {
            for end in ["", "\n", "\r\n", "\r", "\r\nnext\n"] {
                for length in [7, 8, 9, 300] {
                    let text = [&b"xy\n"[..], &vec![b'a'; length], end.as_bytes()].concat();
                    let seen = read(&text, &cut(block, 8), &[3, 1, 64]);
                    assert_eq!(seen, model(&text, 8), "block {block}, end {end:?}, length {length}");
                    let kept = matches!(&seen[1], Seen::Whole(3, _));
                    assert_eq!(kept, length <= 8, "block {block}, end {end:?}, length {length}");
                }
            }
        }
    }

    /// Reads a text whose messages may be printed over several lines.
    fn read_printed(text: &[u8], cut: &Cut, sizes: &[usize]) -> Vec<(u64, String)> {
        let mut input = Pieces { text, sizes: sizes.to_vec(), turn: 0 };
        let mut lines = LineCutter::default();
        lines.look_for_printed(true);
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        loop {
            let block = lines.next_block(&mut input, cut, buffer).unwrap();
            seen.extend(block.lines().map(|line| match line {
                Line::Whole { offset, text } => (offset, String::from_utf8(text.to_vec()).unwrap()),
                Line::TooLong(line) => (line.offset, format!("{} bytes", line.length)),
            }));
            if block.last {
                return seen;
            }
            buffer = block.into_buffer();
        }
    }

    #[test]
    fn messages_may_be_printed_over_several_lines() {
        let one = "{\n  \"a\": {\n    \"b\": 1\n  }\n}";
        let text = format!("\n{one}\n{{\"c\":2}}\n\n[\r\n  {one}\r\n]\r\n{one}");
        let array = format!("[\r\n  {}", "{");
        for bytes in [1, 7, 20, 64, 1_000] {
            for lines in [1, 2, usize::MAX] {
                let cut = Cut { bytes, lines, line_bytes: 100 };
                let seen = read_printed(text.as_bytes(), &cut, &[5, 1, 9]);
                let expected = [one, "{\"c\":2}"].map(str::to_owned);
                assert_eq!(seen.iter().map(|(_, text)| text.clone()).take(2).collect::<Vec<_>>(), expected);
                // Only what begins a line closes a message: the inner object is printed as if it were at the top.
                assert!(seen[2].1.starts_with(&array) && seen.last().unwrap().1 == one, "{seen:?}");
                let at = text.find("{\"c\"").unwrap() as u64;
                assert_eq!((seen[0].0, seen[1].0), (1, at), "block of {bytes}");
            }
        }
        // Lines of a file that begins otherwise are lines.
        let lines = read_printed(format!("{{\"c\":2}}\n{one}\n").as_bytes(), &cut(64, 100), &[9]);
        assert_eq!(lines.len(), 6);
        // What is too long is read line by line.
        let long = format!("{{\n{}}}\n", "  \"a\": 1,\n".repeat(30));
        assert_eq!(read_printed(long.as_bytes(), &cut(64, 100), &[9]).len(), 32);
        assert_eq!(read_printed(b"{\n  \"a\": 1\n", &cut(64, 100), &[9]).len(), 1, "cut off");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_lines_of_the_whole_text(
            text in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 1 => any::<u8>(), 2 => Just(b'\n'), 1 => Just(b'\r')], 0..400),
            sizes in proptest::collection::vec(1usize..50, 1..5),
            bytes in 1usize..80,
            lines in prop_oneof![1usize..6, Just(usize::MAX)],
            line_bytes in 1usize..60,
        ) {
            let seen = read(&text, &Cut { bytes, lines, line_bytes }, &sizes);
            prop_assert_eq!(seen, model(&text, line_bytes));
        }
    }

    proptest! {
        /// Wherever messages over several lines are cut, too long ones or not, they are the same.
        #[test]
        fn any_cut_gives_the_messages_of_the_whole_text(
            lines in proptest::collection::vec(
                prop_oneof!["[{\\[]", "[}\\]]", "[a{ ]{1,9}\r?", Just("  \"a\": 1,".to_owned()), Just(String::new())], 0..40),
            open in "[{\\[]\r?\n",
            sizes in proptest::collection::vec(1usize..50, 1..5),
            bytes in 1usize..80,
            most in prop_oneof![1usize..6, Just(usize::MAX)],
            line_bytes in 5usize..60,
            ended in any::<bool>(),
        ) {
            let text = format!("{open}{}{}", lines.join("\n"), if ended { "\n" } else { "" });
            let seen = read_printed(text.as_bytes(), &Cut { bytes, lines: most, line_bytes }, &sizes);
            let whole = Cut { bytes: 1 << 20, lines: usize::MAX, line_bytes };
            prop_assert_eq!(seen, read_printed(text.as_bytes(), &whole, &[1 << 20]));
        }
    }

    #[test]
    fn each_block_says_which_header_stands_before_it() {
        let long = format!("#H {}", "x".repeat(70_000));
        let text = format!("\u{feff}#H marked\na\n#H one\r\nb #H no\n\n#H two\n#Hx\nc\nd\n{long}\ne\n");
        for (bytes, lines) in [(1, 1), (1, usize::MAX), (8, 2), (13, usize::MAX), (1 << 20, 1), (1 << 20, 3)]
        {
            let cut = Cut { bytes, lines, line_bytes: 100_000 };
            let mut input = text.as_bytes();
            let mut reader = LineCutter::default();
            reader.look_for_headers(Some(b"#H "));
            let mut last: Option<Vec<u8>> = None;
            loop {
                let block = reader.next_block(&mut input, &cut, Vec::new()).unwrap();
                assert_eq!(block.header(), last.as_deref(), "{cut:?}");
                for line in block.lines() {
                    if let Line::Whole { text, .. } = line
                        && let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
                        && text.starts_with(b"#H ")
                    {
                        last = Some(text[..text.len().min(HEADER_BYTES)].to_vec());
                    }
                }
                if block.last {
                    break;
                }
            }
        }
    }
}
