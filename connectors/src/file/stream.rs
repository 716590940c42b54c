//! The bytes of one partition: opened when first read, decompressed if gzip, closed while others are read.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::lines::LineCutter;
use super::{Cut, FileError, LineBlock};
use crate::framing::GZIP;

/// A gzip file that is paused within these first bytes is read from its beginning again. Beyond them its state is
/// kept.
const REWIND_BYTES: u64 = 1 << 20;
/// The number of compressed bytes read at once.
const GZIP_BUFFER_BYTES: usize = 64 << 10;
/// The first bytes of a file that is decompressed: gzip by deflate, its only method.
const GZIP_DEFLATE: [u8; 3] = [GZIP[0], GZIP[1], 8];

/// One file or stream, read once from beginning to end.
pub struct Partition {
    origin: StreamOrigin,
    stream: Option<ByteStream>,
    /// The number of the origin's bytes that were read; those read twice count once.
    bytes_read: u64,
    lines: LineCutter,
}

/// The origin of the bytes.
#[derive(Clone)]
enum StreamOrigin {
    /// A regular file as it was when it was listed.
    File(Arc<ListedFile>),
    Device(Arc<PathBuf>),
    Stream,
}

struct ListedFile {
    path: PathBuf,
    bytes: u64,
    identity: (u64, u64),
}

enum ByteStream {
    Plain(RawReader),
    Gzip(Box<Gunzip>),
    /// The content is gzip in gzip: `CloudWatch` compresses, and so does Firehose.
    Twice(Box<MultiGzDecoder<BufReader<Gunzip>>>),
}

/// The content of a gzip file. It begins with the bytes that were looked at first.
struct Gunzip {
    decoder: MultiGzDecoder<BufReader<RawReader>>,
    pushed_back: Vec<u8>,
}

impl Gunzip {
    fn raw(&self) -> &RawReader {
        self.decoder.get_ref().get_ref()
    }

    fn raw_mut(&mut self) -> &mut RawReader {
        self.decoder.get_mut().get_mut()
    }
}

impl Read for Gunzip {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.pushed_back.is_empty() {
            return self.decoder.read(room);
        }
        let bytes = room.len().min(self.pushed_back.len());
        room[..bytes].copy_from_slice(&self.pushed_back[..bytes]);
        self.pushed_back.drain(..bytes);
        Ok(bytes)
    }
}

impl Partition {
    pub(super) fn file(path: PathBuf, metadata: &Metadata) -> Self {
        let origin = if metadata.is_file() {
            StreamOrigin::File(Arc::new(ListedFile {
                path,
                bytes: metadata.len(),
                identity: identity(metadata),
            }))
        } else {
            StreamOrigin::Device(Arc::new(path))
        };
        Self { origin, stream: None, bytes_read: 0, lines: LineCutter::default() }
    }

    /// Reads a stream without a path, such as standard input.
    #[must_use]
    pub fn stream(reader: Box<dyn Read + Send>) -> Self {
        let raw = RawReader {
            origin: StreamOrigin::Stream,
            reader: Some(reader),
            position: 0,
            pushed_back: Vec::new(),
        };
        Self {
            origin: StreamOrigin::Stream,
            stream: Some(ByteStream::Plain(raw)),
            bytes_read: 0,
            lines: LineCutter::default(),
        }
    }

    /// Reads JSON messages that are printed over several lines as one each, if the first one is.
    #[must_use]
    pub fn with_printed(mut self, wanted: bool) -> Self {
        self.lines.look_for_printed(wanted);
        self
    }

    /// Adds to each block the last line before it that begins with `begin`.
    #[must_use]
    pub fn with_headers(mut self, begin: Option<&'static [u8]>) -> Self {
        self.lines.look_for_headers(begin);
        self
    }

    /// Returns the file's path, lossily if it isn't UTF-8; `None` for a stream.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match &self.origin {
            StreamOrigin::File(file) => Some(file.path.display().to_string()),
            StreamOrigin::Device(path) => Some(path.display().to_string()),
            StreamOrigin::Stream => None,
        }
    }

    /// Returns its size in (compressed) bytes; `None` if the size isn't known before the end.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        match &self.origin {
            StreamOrigin::File(file) => Some(file.bytes),
            StreamOrigin::Device(_) | StreamOrigin::Stream => None,
        }
    }

    /// Returns the number of (compressed) bytes read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the next block of whole lines, in the buffer `text`. No call may follow the block that is `last`.
    ///
    /// # Errors
    /// If the file can't be opened or read, is damaged, or isn't the one that was listed. The partition must not be
    /// used after an error.
    pub fn next_block(&mut self, cut: &Cut, text: Vec<u8>) -> Result<LineBlock, FileError> {
        let mut stream = match self.stream.take() {
            Some(ByteStream::Plain(raw))
                if matches!(self.origin, StreamOrigin::Stream) && raw.position == 0 =>
            {
                self.detect(raw)?
            }
            Some(stream) => stream,
            None => self.open()?,
        };
        let block = self.lines.next_block(&mut stream, cut, text);
        let block = block.map_err(|error| self.read_error(&stream, error))?;
        self.bytes_read = self.bytes_read.max(stream.raw().position);
        if !block.last {
            self.stream = Some(stream);
        }
        Ok(block)
    }

    /// Closes the file until the next block is asked for. Pipes and streams stay open.
    pub fn pause(&mut self) {
        if !matches!(self.origin, StreamOrigin::File(_)) {
            return;
        }
        match &mut self.stream {
            Some(ByteStream::Gzip(gzip)) if self.lines.offset() > REWIND_BYTES => {
                gzip.raw_mut().reader = None
            }
            Some(ByteStream::Twice(gzip)) if self.lines.offset() > REWIND_BYTES => {
                gzip.get_mut().get_mut().raw_mut().reader = None;
            }
            stream => {
                *stream = None;
                self.lines.forget_carry();
            }
        }
    }

    /// Opens the stream at the next line.
    fn open(&self) -> Result<ByteStream, FileError> {
        let raw =
            RawReader { origin: self.origin.clone(), reader: None, position: 0, pushed_back: Vec::new() };
        let mut stream = self.detect(raw)?;
        let offset = self.lines.offset();
        let passed = match &mut stream {
            ByteStream::Plain(raw) if offset > 0 => {
                raw.pushed_back = Vec::new();
                raw.reader = None;
                raw.position = offset;
                Ok(offset)
            }
            ByteStream::Plain(_) => Ok(0),
            compressed => io::copy(&mut compressed.by_ref().take(offset), &mut io::sink()),
        };
        match passed {
            Ok(passed) if passed == offset => Ok(stream),
            Ok(_) => Err(FileError::Changed { path: self.name() }),
            Err(error) => Err(self.read_error(&stream, error)),
        }
    }

    /// Checks whether the bytes are gzip.
    fn detect(&self, mut raw: RawReader) -> Result<ByteStream, FileError> {
        let mut magic = Vec::new();
        let read = raw.by_ref().take(GZIP_DEFLATE.len() as u64).read_to_end(&mut magic);
        let is_gzip = magic == GZIP_DEFLATE;
        raw.pushed_back = magic;
        if let Err(error) = read {
            return Err(self.read_error(&ByteStream::Plain(raw), error));
        }
        if is_gzip {
            let buffered = BufReader::with_capacity(GZIP_BUFFER_BYTES, raw);
            return self
                .detect_inner(Gunzip { decoder: MultiGzDecoder::new(buffered), pushed_back: Vec::new() });
        }
        if self.path().is_some_and(|path| path.ends_with(".gz")) {
            return Err(FileError::NotGzip { path: self.name() });
        }
        Ok(ByteStream::Plain(raw))
    }

    /// Checks whether the content of a gzip file is gzip again.
    fn detect_inner(&self, mut gzip: Gunzip) -> Result<ByteStream, FileError> {
        let mut magic = Vec::new();
        let read = gzip.by_ref().take(GZIP_DEFLATE.len() as u64).read_to_end(&mut magic);
        let is_gzip = magic == GZIP_DEFLATE;
        gzip.pushed_back = magic;
        match read {
            Err(error) => Err(self.read_error(&ByteStream::Gzip(Box::new(gzip)), error)),
            Ok(_) if is_gzip => {
                let buffered = BufReader::with_capacity(GZIP_BUFFER_BYTES, gzip);
                Ok(ByteStream::Twice(Box::new(MultiGzDecoder::new(buffered))))
            }
            Ok(_) => Ok(ByteStream::Gzip(Box::new(gzip))),
        }
    }

    fn name(&self) -> String {
        self.path().unwrap_or_else(|| "standard input".to_owned())
    }

    fn read_error(&self, stream: &ByteStream, error: io::Error) -> FileError {
        let path = self.name();
        let byte = stream.position();
        match error.downcast::<RawError>() {
            Ok(RawError::Changed) => FileError::Changed { path },
            Ok(RawError::Open(source)) => FileError::Open { path, source },
            Ok(RawError::Read(source)) => FileError::Read { path, byte, source },
            // It doesn't come from the file itself, so it comes from the decompression.
            Err(source) => FileError::Gzip { path, byte, source },
        }
    }
}

impl fmt::Debug for Partition {
    /// Shows the path and never the content: lines may hold raw keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl ByteStream {
    fn raw(&self) -> &RawReader {
        match self {
            Self::Plain(raw) => raw,
            Self::Gzip(gzip) => gzip.raw(),
            Self::Twice(gzip) => gzip.get_ref().get_ref().raw(),
        }
    }

    /// Returns how many of the origin's bytes were used.
    fn position(&self) -> u64 {
        let gunzip = match self {
            Self::Plain(raw) => return raw.position - raw.pushed_back.len() as u64,
            Self::Gzip(gzip) => gzip,
            Self::Twice(gzip) => gzip.get_ref().get_ref(),
        };
        let unused = gunzip.decoder.get_ref().buffer().len() + gunzip.raw().pushed_back.len();
        self.raw().position - unused as u64
    }
}

impl Read for ByteStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(room),
            Self::Gzip(gzip) => gzip.read(room),
            Self::Twice(gzip) => gzip.read(room),
        }
    }
}

/// The bytes of the origin, which opens itself when it is read and isn't open. All of its errors are [`RawError`]s,
/// unlike those of decompression.
struct RawReader {
    origin: StreamOrigin,
    reader: Option<Box<dyn Read + Send>>,
    /// The number of bytes read from the origin.
    position: u64,
    /// Bytes that were read and are to be read again.
    pushed_back: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
enum RawError {
    #[error("the file changed")]
    Changed,
    #[error(transparent)]
    Open(io::Error),
    #[error(transparent)]
    Read(io::Error),
}

impl StreamOrigin {
    fn open_at(&self, position: u64) -> Result<Box<dyn Read + Send>, RawError> {
        match self {
            Self::File(listed) => {
                let mut file = File::open(&listed.path).map_err(RawError::Open)?;
                let metadata = file.metadata().map_err(RawError::Open)?;
                if identity(&metadata) != listed.identity || metadata.len() < listed.bytes {
                    return Err(RawError::Changed);
                }
                file.seek(SeekFrom::Start(position)).map_err(RawError::Open)?;
                Ok(Box::new(file))
            }
            Self::Device(path) => Ok(Box::new(File::open(path.as_ref()).map_err(RawError::Open)?)),
            Self::Stream => Err(RawError::Open(ErrorKind::NotSeekable.into())),
        }
    }
}

impl Read for RawReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if !self.pushed_back.is_empty() {
            let bytes = room.len().min(self.pushed_back.len());
            room[..bytes].copy_from_slice(&self.pushed_back[..bytes]);
            self.pushed_back.drain(..bytes);
            return Ok(bytes);
        }
        let left = match &self.origin {
            StreamOrigin::File(listed) => usize::try_from(listed.bytes - self.position).unwrap_or(usize::MAX),
            StreamOrigin::Device(_) | StreamOrigin::Stream => usize::MAX,
        };
        let wanted = room.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            closed => closed.insert(self.origin.open_at(self.position).map_err(io::Error::other)?),
        };
        let bytes = match reader.read(&mut room[..wanted]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            read => read.map_err(|error| io::Error::other(RawError::Read(error)))?,
        };
        if bytes == 0 && left != usize::MAX {
            return Err(io::Error::other(RawError::Changed));
        }
        self.position += bytes as u64;
        Ok(bytes)
    }
}

/// Returns an identity that differs for a file that takes another's place.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Returns the same for every file: only lengths are compared here.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::{Line, resolve};
    use super::*;

    const CUT: Cut = Cut { bytes: 64, lines: usize::MAX, line_bytes: 32 };

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> Partition {
        fs::write(folder.join(name), bytes).unwrap();
        resolve(&folder.join(name).display().to_string()).unwrap().remove(0)
    }

    /// All lines and their offsets; `between` is called between two blocks.
    fn read(
        partition: &mut Partition,
        cut: &Cut,
        mut between: impl FnMut(&mut Partition),
    ) -> Result<Vec<(u64, String)>, FileError> {
        let mut seen = Vec::new();
        loop {
            let block = partition.next_block(cut, Vec::new())?;
            seen.extend(block.lines().map(|line| match line {
                Line::Whole { offset, text } => (offset, String::from_utf8(text.to_vec()).unwrap()),
                Line::TooLong(line) => (line.offset, format!("{} bytes", line.length)),
            }));
            if block.last {
                return Ok(seen);
            }
            between(partition);
        }
    }

    fn numbered(lines: usize) -> (String, Vec<(u64, String)>) {
        let (mut text, mut expected) = (String::new(), Vec::new());
        for line in 0..lines {
            let line = format!("line {line}");
            expected.push((text.len() as u64, line.clone()));
            text.push_str(&line);
            text.push('\n');
        }
        (text, expected)
    }

    #[test]
    fn gzip_is_told_by_its_bytes_and_may_have_several_members() {
        let folder = tempfile::tempdir().unwrap();
        let members = [gzip(b"one\ntw"), gzip(b""), gzip(b"o\nthree")].concat();
        let expected = [(0, "one".to_owned()), (4, "two".to_owned()), (8, "three".to_owned())];
        for name in ["a.gz", "a.log"] {
            let mut partition = file(folder.path(), name, &members);
            assert_eq!(partition.bytes(), Some(members.len() as u64));
            assert_eq!(read(&mut partition, &CUT, |_| {}).unwrap(), expected);
            assert_eq!(partition.bytes_read(), members.len() as u64);
        }
        let mut piped = Partition::stream(Box::new(io::Cursor::new(members)));
        assert_eq!(read(&mut piped, &CUT, |_| {}).unwrap(), expected);
        let mut plain = Partition::stream(Box::new(&b"a\nb"[..]));
        assert_eq!(read(&mut plain, &CUT, |_| {}).unwrap(), [(0, "a".to_owned()), (2, "b".to_owned())]);
        assert_eq!(plain.bytes_read(), 3);
    }

    #[test]
    fn gzip_in_gzip_is_read_and_may_be_paused() {
        let folder = tempfile::tempdir().unwrap();
        let (text, expected) = numbered(150_000);
        let (one, other) = text.split_at(text.len() / 3);
        let twice = gzip(&[gzip(one.as_bytes()), gzip(other.as_bytes())].concat());
        let cut = Cut { bytes: 50_000, ..CUT };
        let mut partition = file(folder.path(), "twice.gz", &twice);
        assert_eq!(read(&mut partition, &cut, |_| {}).unwrap(), expected);
        assert_eq!(partition.bytes_read(), twice.len() as u64);
        let mut paused = file(folder.path(), "paused.gz", &twice);
        assert_eq!(read(&mut paused, &cut, Partition::pause).unwrap(), expected);
        let mut damaged = gzip(one.as_bytes());
        damaged.truncate(damaged.len() - 9);
        let mut partition = file(folder.path(), "damaged.gz", &gzip(&damaged));
        assert!(matches!(read(&mut partition, &cut, |_| {}), Err(FileError::Gzip { .. })));
    }

    #[test]
    fn damaged_gzip_is_an_error_with_file_and_byte() {
        let folder = tempfile::tempdir().unwrap();
        let whole = gzip(numbered(100).0.as_bytes());
        let mut flipped = whole.clone();
        let checksum = whole.len() - 6;
        flipped[checksum] ^= 1;
        let trailing = [&whole[..], b"trailing"].concat();
        for (bytes, name) in [
            (&whole[..whole.len() - 1], "cut-in-footer.gz"),
            (&whole[..whole.len() / 2], "cut-in-body.gz"),
            (&whole[..5], "cut-in-header.gz"),
            (&flipped, "checksum.gz"),
            (&trailing, "trailing.gz"),
        ] {
            let mut partition = file(folder.path(), name, bytes);
            let error = read(&mut partition, &CUT, |_| {}).unwrap_err();
            let FileError::Gzip { path, byte, .. } = &error else { panic!("{name}: {error}") };
            assert!(path.ends_with(name));
            assert!((1..=bytes.len() as u64).contains(byte), "{name}: byte {byte} of {}", bytes.len());
        }
        for bytes in [&b""[..], b"text\n"] {
            let mut partition = file(folder.path(), "not.gz", bytes);
            let error = read(&mut partition, &CUT, |_| {}).unwrap_err();
            assert!(matches!(error, FileError::NotGzip { .. }), "{error}");
        }
    }

    #[test]
    fn a_paused_partition_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        // Beyond `REWIND_BYTES`, so that both ways of pausing are taken.
        let (text, expected) = numbered(150_000);
        assert!(text.len() as u64 > REWIND_BYTES);
        let cut = Cut { bytes: 50_000, ..CUT };
        for (name, bytes) in [("plain.log", text.as_bytes()), ("packed.gz", &gzip(text.as_bytes()))] {
            let mut partition = file(folder.path(), name, bytes);
            let mut heads = 0;
            let seen = read(&mut partition, &cut, |partition| {
                partition.pause();
                partition.pause();
                heads += 1;
            });
            assert_eq!(seen.unwrap(), expected);
            assert!(heads > 10);
            assert_eq!(partition.bytes_read(), bytes.len() as u64);
        }
    }

    #[test]
    fn a_file_is_read_to_the_length_it_was_listed_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut partition = file(folder.path(), "a.log", b"one\ntwo\n");
        fs::write(folder.path().join("a.log"), "one\ntwo\nthree\n").unwrap();
        assert_eq!(read(&mut partition, &CUT, |_| {}).unwrap().len(), 2);
        let mut empty = file(folder.path(), "empty.log", b"");
        assert_eq!(read(&mut empty, &CUT, |_| {}).unwrap(), []);
    }

    #[test]
    fn a_file_that_vanished_shrank_or_was_replaced_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let text = numbered(100).0;

        let mut partition = file(folder.path(), "a.log", text.as_bytes());
        fs::remove_file(&path).unwrap();
        let error = read(&mut partition, &CUT, |_| {}).unwrap_err();
        assert!(matches!(&error, FileError::Open { path, .. } if path.ends_with("a.log")), "{error}");

        let mut partition = file(folder.path(), "a.log", text.as_bytes());
        let error = read(&mut partition, &CUT, |_| fs::write(&path, "short\n").unwrap()).unwrap_err();
        assert!(matches!(error, FileError::Changed { .. }), "{error}");

        let mut partition = file(folder.path(), "a.log", text.as_bytes());
        let replaced = read(&mut partition, &CUT, |partition| {
            partition.pause();
            fs::write(folder.path().join("new"), &text).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        });
        assert!(matches!(replaced.unwrap_err(), FileError::Changed { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_read_to_its_end() {
        let mut device = resolve("/dev/null").unwrap().remove(0);
        assert_eq!((device.path().as_deref(), device.bytes()), (Some("/dev/null"), None));
        assert_eq!(read(&mut device, &CUT, Partition::pause).unwrap(), []);
    }

    #[test]
    fn an_error_in_the_middle_names_the_byte() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cable pulled"))
            }
        }
        let mut partition = Partition::stream(Box::new(b"one\ntwo\n".chain(Broken)));
        let error = read(&mut partition, &CUT, |_| {}).unwrap_err();
        assert!(matches!(error, FileError::Read { byte: 8, .. }), "{error}");
        assert_eq!(error.to_string(), "reading standard input failed at byte 8: cable pulled");
    }
}
