//! Frames of the links between processes: a length of 4 bytes, the highest first, and as many bytes.
//!
//! **Bad input**: any bytes may come. [`FrameDecoder`] keeps at most what arrived, never what a length announces. A
//! length above the limit is an error before a byte of its frame is kept. An error ends the link, since the place of
//! the next frame isn't known then.
//!
//! Limits: a frame has at most [`MAX_FRAME_BYTES`]. A decoder's memory is at most twice the bytes of its unfinished frame
//! that arrived.

use std::io::{self, BufWriter, ErrorKind, Read, Write};

/// The number of bytes of a frame, at most: 16 MiB.
pub const MAX_FRAME_BYTES: usize = 16 << 20;
/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;
/// Bytes that are read and written at once.
const BLOCK_BYTES: usize = 64 << 10;

/// The reason for which a link can't carry frames any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length is above the limit.
    #[error(
        "a frame has {bytes} bytes, and at most {MAX_FRAME_BYTES} are allowed; the link ends, since these can't be \
         bytes of a process of this job"
    )]
    TooLong { bytes: u64 },
    /// The other process closed the link within a frame.
    #[error("the link ended after {arrived} bytes of a frame; the other process went away, see its log")]
    CutOff { arrived: usize },
    #[error("the link failed: {0}; the other process or the network went away")]
    Io(#[from] io::Error),
}

/// Takes frames out of bytes that come in pieces of any length.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    body: Vec<u8>,
}

impl FrameDecoder {
    /// Takes bytes up to the end of a frame. Returns how many it took, and the frame if it is whole. After an error the
    /// decoder is of no more use.
    ///
    /// # Errors
    /// If the length of a frame is above the limit.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<Vec<u8>>), FrameError> {
        let of_header = bytes.len().min(HEADER_BYTES - self.header_bytes);
        let (header, rest) = bytes.split_at(of_header);
        self.header[self.header_bytes..][..of_header].copy_from_slice(header);
        self.header_bytes += of_header;
        if self.header_bytes < HEADER_BYTES {
            return Ok((of_header, None));
        }
        let announced = u32::from_be_bytes(self.header);
        let length = match usize::try_from(announced) {
            Ok(length) if length <= MAX_FRAME_BYTES => length,
            _ => return Err(FrameError::TooLong { bytes: u64::from(announced) }),
        };
        let of_body = rest.len().min(length - self.body.len());
        self.body.extend_from_slice(&rest[..of_body]);
        let frame = (self.body.len() == length).then(|| {
            self.header_bytes = 0;
            std::mem::take(&mut self.body)
        });
        Ok((of_header + of_body, frame))
    }

    /// Returns the bytes of an unfinished frame that arrived, its length included.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.header_bytes + self.body.len()
    }
}

/// The outcome of one look for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Frame(Vec<u8>),
    /// No more bytes came before the time limit of the stream. The next call goes on within the frame.
    Silence,
    /// The other process closed the link between two frames.
    End,
}

/// Reads frames from a stream, which may have a time limit for its reads.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    decoder: FrameDecoder,
    block: Box<[u8]>,
    /// The bytes of the block that weren't decoded, from one place to another.
    next: usize,
    end: usize,
}

impl<R: Read> FrameReader<R> {
    /// Returns a reader that holds a block of 64 KiB.
    pub fn new(from: R) -> Self {
        let block = vec![0; BLOCK_BYTES].into_boxed_slice();
        Self { from, decoder: FrameDecoder::default(), block, next: 0, end: 0 }
    }

    /// Returns the next frame, or that there is none for now or for good.
    ///
    /// # Errors
    /// If the link can't carry frames any more.
    pub fn read(&mut self) -> Result<Received, FrameError> {
        loop {
            // 1. The rest of the block.
            while self.next < self.end {
                let (taken, frame) = self.decoder.push(&self.block[self.next..self.end])?;
                self.next += taken;
                if let Some(frame) = frame {
                    return Ok(Received::Frame(frame));
                }
            }
            // 2. The next block.
            match self.from.read(&mut self.block) {
                Ok(0) => {
                    return match self.decoder.unfinished() {
                        0 => Ok(Received::End),
                        arrived => Err(FrameError::CutOff { arrived }),
                    };
                }
                Ok(bytes) => (self.next, self.end) = (0, bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(Received::Silence);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Writes frames to a stream.
#[derive(Debug)]
pub struct FrameWriter<W: Write> {
    to: BufWriter<W>,
}

impl<W: Write> FrameWriter<W> {
    /// Returns a writer that joins what is smaller than 64 KiB, so that a small frame is one packet.
    pub fn new(to: W) -> Self {
        Self { to: BufWriter::with_capacity(BLOCK_BYTES, to) }
    }

    /// Writes a frame and flushes it.
    ///
    /// # Errors
    /// If the frame is above the limit, and then nothing of it is written. If the stream fails, or its time limit for
    /// writes is over. Then the link is of no more use, since a part of the frame may be on its way.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        let length = match u32::try_from(frame.len()) {
            Ok(length) if frame.len() <= MAX_FRAME_BYTES => length,
            _ => return Err(FrameError::TooLong { bytes: frame.len() as u64 }),
        };
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(frame)?;
        Ok(self.to.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        frames.iter().for_each(|frame| writer.write(frame).unwrap());
        drop(writer);
        bytes
    }

    /// Returns all frames of bytes that come in pieces, and checks the memory at each.
    fn decoded(bytes: &[u8], pieces: &[usize]) -> Result<(Vec<Vec<u8>>, usize), FrameError> {
        let (mut decoder, mut frames) = (FrameDecoder::default(), Vec::new());
        let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (mut piece, after) = rest.split_at(size);
            rest = after;
            while !piece.is_empty() {
                let (taken, frame) = decoder.push(piece)?;
                assert!(taken > 0, "it goes on");
                piece = &piece[taken..];
                frames.extend(frame);
                assert!(decoder.body.capacity() <= 2 * decoder.body.len() + 8, "{decoder:?}");
            }
        }
        Ok((frames, decoder.unfinished()))
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_sent_in_pieces_of_any_length(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            pieces in prop::collection::vec(1_usize..30, 1..8),
            lost in 0_usize..60,
        ) {
            let bytes = encoded(&frames);
            prop_assert_eq!(decoded(&bytes, &pieces).unwrap(), (frames.clone(), 0));
            // A link that ends early has a beginning of the frames, and says what it lacks.
            let short = &bytes[..bytes.len().saturating_sub(lost)];
            let (found, unfinished) = decoded(short, &pieces).unwrap();
            prop_assert!(frames.starts_with(&found));
            prop_assert_eq!(encoded(&found).len() + unfinished, short.len());
            let mut reader = FrameReader::new(Cursor::new(short));
            for frame in found {
                prop_assert_eq!(reader.read().unwrap(), Received::Frame(frame));
            }
            match (reader.read(), unfinished) {
                (Ok(Received::End), 0) => {}
                (Err(FrameError::CutOff { arrived }), _) => prop_assert_eq!(arrived, unfinished),
                (other, _) => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_and_take_no_more_memory_than_they_are(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..400),
            pieces in prop::collection::vec(1_usize..50, 1..8),
        ) {
            if let Ok((frames, unfinished)) = decoded(&bytes, &pieces) {
                prop_assert_eq!(encoded(&frames).len() + unfinished, bytes.len());
            }
        }
    }

    #[test]
    fn the_limit_is_exact_and_holds_on_both_sides() {
        let largest = vec![7; MAX_FRAME_BYTES];
        let bytes = encoded(std::slice::from_ref(&largest));
        assert!(decoded(&bytes, &[BLOCK_BYTES]).unwrap() == (vec![largest], 0));
        let mut written = Vec::new();
        let refused = FrameWriter::new(&mut written).write(&vec![7; MAX_FRAME_BYTES + 1]);
        assert!(matches!(refused, Err(FrameError::TooLong { bytes: 16_777_217 })), "{refused:?}");
        assert!(written.is_empty());
        for length in [MAX_FRAME_BYTES as u32 + 1, u32::MAX] {
            let error = FrameDecoder::default().push(&length.to_be_bytes()).unwrap_err();
            assert!(matches!(error, FrameError::TooLong { bytes } if bytes == u64::from(length)), "{error}");
        }
    }

    /// A stream whose reads are given.
    struct Given(Vec<io::Result<Vec<u8>>>);

    impl Read for Given {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = if self.0.is_empty() { Vec::new() } else { self.0.remove(0)? };
            into[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    #[test]
    fn a_time_limit_within_a_frame_loses_nothing() {
        let silent = |kind: ErrorKind| Err(io::Error::from(kind));
        let mut reader = FrameReader::new(Given(vec![
            Ok(vec![0, 0]),
            silent(ErrorKind::WouldBlock),
            Ok(vec![0, 2, 8]),
            silent(ErrorKind::Interrupted),
            silent(ErrorKind::TimedOut),
            Ok(vec![9, 0, 0, 0, 0]),
            silent(ErrorKind::ConnectionReset),
        ]));
        assert_eq!(reader.read().unwrap(), Received::Silence);
        assert_eq!(reader.read().unwrap(), Received::Silence);
        assert_eq!(reader.read().unwrap(), Received::Frame(vec![8, 9]));
        assert_eq!(reader.read().unwrap(), Received::Frame(Vec::new()));
        assert!(matches!(reader.read(), Err(FrameError::Io(_))));
    }
}
