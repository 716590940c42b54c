//! Messages of any type on a link. Each is one frame or more, so that no frame is too long.
//!
//! A frame has a piece of the message in postcard's format, and then a byte that is 1 if it is the last piece.
//!
//! Limits: a piece has at most 1 MiB, a message at most [`MAX_MESSAGE_BYTES`]. A message is held in memory.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frames::{FrameError, FrameReader, FrameWriter, Received};

/// The number of bytes of a message, at most: 1 GiB.
pub const MAX_MESSAGE_BYTES: usize = 1 << 30;
/// Bytes of a message in one frame.
const PIECE_BYTES: usize = 1 << 20;
const MORE: u8 = 0;
const LAST: u8 = 1;

/// The reason for which a link can't carry messages any more.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message has more than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    #[error("a message can't be read ({0}): the other process is another version, which is a bug; report it")]
    Unknown(String),
}

/// The outcome of one look for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    Message(T),
    /// Nothing came before the time limit of the stream. The next call goes on within the message.
    Silence,
    /// The other process closed the link between two messages.
    End,
}

/// Writes messages to a stream.
#[derive(Debug)]
pub struct MessageWriter<W: Write> {
    frames: FrameWriter<W>,
    bytes: Vec<u8>,
    frame: Vec<u8>,
}

impl<W: Write> MessageWriter<W> {
    /// Returns a writer that holds the bytes of one message.
    pub fn new(to: W) -> Self {
        Self { frames: FrameWriter::new(to), bytes: Vec::new(), frame: Vec::new() }
    }

    /// Writes a message and flushes it.
    ///
    /// # Errors
    /// If the message is too long, and then nothing of it is written. If the link fails; then it is of no more use.
    ///
    /// # Panics
    /// If the value can't be encoded, which plain data always can.
    pub fn write(&mut self, message: &impl Serialize) -> Result<(), MessageError> {
        self.bytes.clear();
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(message, bytes).expect("plain data can be written to memory");
        if self.bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong);
        }
        let last = self.bytes.len().saturating_sub(1) / PIECE_BYTES;
        for piece in 0..=last {
            let from = piece * PIECE_BYTES;
            let to = self.bytes.len().min(from + PIECE_BYTES);
            self.frame.clear();
            self.frame.extend_from_slice(&self.bytes[from..to]);
            self.frame.push(if piece == last { LAST } else { MORE });
            self.frames.write(&self.frame)?;
        }
        // One large message doesn't hold its memory for good.
        self.bytes.shrink_to(PIECE_BYTES);
        Ok(())
    }
}

/// Reads messages from a stream, which may have a time limit for its reads.
#[derive(Debug)]
pub struct MessageReader<R> {
    frames: FrameReader<R>,
    bytes: Vec<u8>,
}

impl<R: Read> MessageReader<R> {
    /// Returns a reader that holds the bytes of one message.
    pub fn new(from: R) -> Self {
        Self { frames: FrameReader::new(from), bytes: Vec::new() }
    }

    /// Returns the next message; or [`Heard::Silence`] or [`Heard::End`] if none came.
    ///
    /// # Errors
    /// If the link can't carry messages any more.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Heard<T>, MessageError> {
        loop {
            let mut frame = match self.frames.read()? {
                Received::Frame(frame) => frame,
                Received::Silence => return Ok(Heard::Silence),
                Received::End if self.bytes.is_empty() => return Ok(Heard::End),
                Received::End => return Err(FrameError::CutOff { arrived: self.bytes.len() }.into()),
            };
            let flag = frame.pop();
            let is_last = match flag {
                Some(MORE) => false,
                Some(LAST) => true,
                _ => return Err(MessageError::Unknown(format!("a frame ends with {flag:?}"))),
            };
            if self.bytes.len() + frame.len() > MAX_MESSAGE_BYTES {
                return Err(MessageError::TooLong);
            }
            let whole = if self.bytes.is_empty() {
                frame
            } else {
                self.bytes.extend_from_slice(&frame);
                if is_last { std::mem::take(&mut self.bytes) } else { continue }
            };
            if !is_last {
                self.bytes = whole;
                continue;
            }
            let read = postcard::take_from_bytes(&whole);
            let (message, rest) = read.map_err(|error| MessageError::Unknown(error.to_string()))?;
            if !rest.is_empty() {
                return Err(MessageError::Unknown(format!("{} bytes are left over", rest.len())));
            }
            return Ok(Heard::Message(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn written(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes);
        messages.iter().for_each(|message| writer.write(message).unwrap());
        drop(writer);
        bytes
    }

    #[test]
    fn messages_of_any_length_are_read_as_they_were_written() {
        // The length takes 3 to 4 bytes more.
        let lengths = [0, 1, PIECE_BYTES - 4, PIECE_BYTES - 3, PIECE_BYTES - 2, 3 * PIECE_BYTES + 5];
        let messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let mut reader = MessageReader::new(Cursor::new(written(&messages)));
        for message in messages {
            assert_eq!(reader.read().unwrap(), Heard::Message(message));
        }
        assert_eq!(reader.read::<Vec<u8>>().unwrap(), Heard::End);
    }

    #[test]
    fn a_message_that_is_cut_off_or_of_another_type_ends_the_link() {
        let bytes = written(&[vec![1; 2 * PIECE_BYTES]]);
        let first = &bytes[..4 + PIECE_BYTES + 1];
        let error = MessageReader::new(Cursor::new(first)).read::<Vec<u8>>().unwrap_err();
        assert!(matches!(error, MessageError::Frame(FrameError::CutOff { .. })), "{error}");
        let error = MessageReader::new(Cursor::new(written(&[vec![9; 3]]))).read::<bool>().unwrap_err();
        assert!(matches!(error, MessageError::Unknown(_)), "{error}");
        let error = MessageReader::new(Cursor::new(written(&[vec![9; 3]]))).read::<u8>().unwrap_err();
        assert!(error.to_string().contains("3 bytes are left over"), "{error}");
        // A frame with neither flag, and one that is empty.
        for frame in [&[0, 0, 0, 1, 2][..], &[0, 0, 0, 0][..]] {
            let error = MessageReader::new(Cursor::new(frame)).read::<u8>().unwrap_err();
            assert!(error.to_string().contains("a frame ends with"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = MessageReader::new(Cursor::new(bytes));
            while let Ok(Heard::Message(_)) = reader.read::<(u32, String)>() {}
        }
    }
}
