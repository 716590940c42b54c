//! A message as it arrived: its length, its compression, and the account of its records.
//!
//! gzip is told by its first two bytes, `1f 8b`, whatever the format: no format's text begins with them. Members
//! follow each other as in `cat a.gz b.gz`. A message whose compression is damaged, or that becomes too long, is one
//! dead letter as a whole, with the length and the hash of the message as it arrived: none of it counts.
//!
//! Limits: `limits.message_bytes` of a message as it arrived, `limits.decompressed_bytes` of what becomes of it,
//! `limits.message_records` gzip members. Decompression stops at the first byte beyond; it takes at most twice the
//! limit, of which 1 MiB is kept for the next message. What is compressed twice isn't read.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::GzDecoder;
use keytide_config::{Limits, Unit};
use keytide_dataflow::model::Position;

use super::canonical::Canonical;
use super::raw::{Name, RawEvent, Value};
use super::{Decoded, Decoder, Headers, dead_letter};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Buffers beyond this aren't kept.
const KEPT_BYTES: usize = 1 << 20;

/// Reads the records of texts in one format.
pub(super) trait Records: Send {
    /// Reads all records of a text. `outer` is what is known of them from what they were wrapped in.
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>);

    /// Reads a whole message.
    fn read_message(&mut self, text: &[u8], _headers: &dyn Headers, ledger: &mut Ledger<'_>) {
        self.read(text, Outer::default(), ledger);
    }
}

/// What a wrapper says of the records within: it counts where they say nothing themselves.
#[derive(Clone, Copy, Default)]
pub(super) struct Outer<'a> {
    /// Identifies the text that they stand in.
    pub(super) id: Option<&'a str>,
    /// Its time, in milliseconds.
    pub(super) time_ms: Value<'a>,
}

impl<'a> Outer<'a> {
    /// The request id of record `number` of the text; mostly there is one.
    pub(super) fn request_id(&self, number: u32) -> Option<Cow<'a, str>> {
        let id = self.id?;
        Some(if number == 0 { id.into() } else { format!("{id}#{number}").into() })
    }

    /// Whether it says nothing.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        self.id.is_none() && self.time_ms.is_empty()
    }

    /// A record with what it doesn't say itself: a request id, and the time.
    pub(super) fn completed<'r>(&self, mut raw: RawEvent<'r>, request_id: Option<&'r str>) -> RawEvent<'r>
    where
        'a: 'r,
    {
        if let Some(id) = request_id.filter(|_| raw.get(Name::RequestId).is_empty()) {
            raw.set(Name::RequestId, Value::Plain(id));
        }
        if raw.get(Name::Time).is_empty() && !self.time_ms.is_empty() {
            raw.set_time(self.time_ms, Unit::Millis);
        }
        raw
    }
}

/// Decodes the messages of one source.
pub(super) struct Messages {
    records: Box<dyn Records>,
    limits: Limits,
    /// What became of a compressed message.
    text: Vec<u8>,
}

impl Messages {
    pub(super) fn new(records: Box<dyn Records>, limits: Limits) -> Self {
        Self { records, limits, text: Vec::new() }
    }
}

impl Decoder for Messages {
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        self.decode_with(message, &(), at, out);
    }

    fn decode_with(&mut self, message: &[u8], headers: &dyn Headers, at: Position, out: &mut Decoded) {
        if message.len() > self.limits.message_bytes {
            return dead_letter(out, at, message, too_long(self.limits.message_bytes), None);
        }
        let mut ledger = Ledger::new(at, self.limits.message_records, out);
        if !is_gzip(message) {
            return self.records.read_message(message, headers, &mut ledger);
        }
        match inflate(message, &self.limits, self.limits.decompressed_bytes, &mut self.text) {
            Ok(()) => self.records.read_message(&self.text, headers, &mut ledger),
            Err(reason) => ledger.refuse(message, reason),
        }
        if is_large(self.text.capacity()) {
            self.text = Vec::new();
        }
    }
}

/// Why a message is longer than it may be.
pub(super) fn too_long(limit: usize) -> String {
    format!("longer than {limit} bytes (limits.message_bytes)")
}

/// Whether it is compressed.
pub(super) fn is_gzip(message: &[u8]) -> bool {
    message.starts_with(&GZIP_MAGIC)
}

/// Whether a buffer of so many bytes isn't kept for the next message.
pub(super) fn is_large(capacity: usize) -> bool {
    capacity > KEPT_BYTES
}

/// Decompresses all members of `message` into `text`, at most `room` bytes.
///
/// # Errors
/// Why it can't be read.
pub(super) fn inflate(
    message: &[u8],
    limits: &Limits,
    room: usize,
    text: &mut Vec<u8>,
) -> Result<(), String> {
    text.clear();
    let mut rest = message;
    let mut members = 0;
    while !rest.is_empty() {
        // A member costs time even where nothing is in it.
        if members == limits.message_records {
            return Err(format!("more than {members} gzip members (limits.message_records)"));
        }
        members += 1;
        let mut member = GzDecoder::new(rest);
        let left = (room - text.len()) as u64;
        let read = member.by_ref().take(left.saturating_add(1)).read_to_end(text);
        if text.len() > room {
            let limit = limits.decompressed_bytes;
            return Err(format!("longer than {limit} bytes when decompressed (limits.decompressed_bytes)"));
        }
        if read.is_err() {
            return Err("gzip: damaged, cut off, or followed by something else".to_owned());
        }
        rest = member.into_inner();
    }
    if is_gzip(text) {
        return Err("gzip: compressed twice, allowed: once".to_owned());
    }
    Ok(())
}

/// The account of one message: where its next record stands, and what became of those before.
pub(super) struct Ledger<'o> {
    out: &'o mut Decoded,
    next: Position,
    first: u32,
    most: usize,
}

impl<'o> Ledger<'o> {
    pub(super) fn new(first: Position, most: usize, out: &'o mut Decoded) -> Self {
        Self { out, next: first, first: first.index, most }
    }

    /// How many records were accounted for.
    pub(super) fn records(&self) -> u32 {
        self.next.index - self.first
    }

    /// Whether the message has as many records as it may have; if so, its rest is [`beyond`](Self::beyond).
    pub(super) fn is_full(&self) -> bool {
        self.records() as usize >= self.most
    }

    /// Accounts for the records beyond the limit.
    pub(super) fn beyond(&mut self, rest: &[u8]) {
        let limit = self.most;
        self.refuse(rest, format!("more than {limit} records in one message (limits.message_records)"));
    }

    /// Accounts for a record that could be read: an event, or a dead letter.
    #[inline]
    pub(super) fn enter(&mut self, canonical: &mut Canonical, raw: &RawEvent<'_>, record: &[u8]) {
        match canonical.push(raw, self.next, self.out) {
            Ok(()) => self.next.index = self.next.index.saturating_add(1),
            Err(fault) => self.refuse_with(record, fault.to_string(), canonical.kept(raw)),
        }
    }

    /// Accounts for a record that couldn't be read.
    pub(super) fn refuse(&mut self, record: &[u8], reason: String) {
        self.refuse_with(record, reason, None);
    }

    fn refuse_with(&mut self, record: &[u8], reason: String, kept: Option<Box<str>>) {
        dead_letter(self.out, self.next, record, reason, kept);
        self.next.index = self.next.index.saturating_add(1);
    }
}
