//! A message as it arrived: its length, its compression, and the account of its records.
//!
//! gzip is told by its first two bytes, `1f 8b`, whatever the format: no format's text begins with them. Members
//! follow each other as in `cat a.gz b.gz`, and what is inside may be compressed again: `CloudWatch` compresses, and so does
//! Firehose. A message whose compression is damaged, or that becomes too long, is one dead letter as a whole, with the
//! length and the hash of the message as it arrived: none of it counts.
//!
//! **Identity.** A record that has no request id is told from others by its message: a gateway that sends again after
//! an unclear answer sends the same bytes. So its identity is the hash of the message (decompressed, and with each raw key
//! replaced by its id, see `secrets.rs`) and its index in it; two records of one message are never the same. A message that is a single line of a file is no sending, and its
//! record is a call of its own unless `dedupe = "message"` says otherwise.
//!
//! Limits: `limits.message_bytes` of a message as it arrived, `limits.decompressed_bytes` of what becomes of it,
//! `limits.message_records` gzip members, 3 layers of compression. Decompression stops at the first byte beyond; it takes
//! at most twice the limit, of which 1 MiB is kept for the next message.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::GzDecoder;
use keytide_config::{Dedupe, Limits, Source, Unit};
use keytide_dataflow::model::{Position, RequestId};
use xxhash_rust::xxh3::xxh3_128;

use super::canonical::Canonical;
use super::keys::KeyFinder;
use super::occurred::Occurred;
use super::raw::{EventField, RawEvent};
use super::record::RecordBytes;
use super::value::FieldValue;
use super::{Decoded, Decoder, Headers, dead_letter, is_large};
use crate::framing::{GZIP, unframed};

/// gzip in gzip in gzip.
const LAYERS: usize = 3;

/// Reads the records of texts in one format.
pub(super) trait RecordReader: Send {
    /// Reads all records of a text. `outer` is what is known of them from what they were wrapped in.
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>);

    /// The same of a text that was taken out of a wrapper: a header line within it holds for nothing else.
    fn read_apart(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        self.read(text, outer, ledger);
    }

    /// Reads a whole message.
    fn read_message(&mut self, text: &[u8], _headers: &dyn Headers, ledger: &mut Ledger<'_>) {
        self.read(text, Outer::default(), ledger);
    }

    /// See [`Decoder::continue_after`].
    fn continue_after(&mut self, _header: Option<&[u8]>) {}
}

/// What a wrapper says of the records within: it counts where they say nothing themselves.
#[derive(Clone, Copy, Default)]
pub(super) struct Outer<'a> {
    /// Identifies the text that they stand in.
    pub(super) id: Option<&'a str>,
    /// Its time, in milliseconds.
    pub(super) time_ms: FieldValue<'a>,
    /// Conditions of `[source.only]` that it meets.
    pub(super) met: u64,
}

impl<'a> Outer<'a> {
    /// The request id of record `number` of the text; mostly there is one.
    pub(super) fn request_id(&self, number: u32) -> Option<Cow<'a, str>> {
        let id = self.id?;
        Some(if number == 0 { id.into() } else { format!("{id}#{number}").into() })
    }

    /// Returns whether it says nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.id.is_none() && self.time_ms.is_empty() && self.met == 0
    }

    /// A record with what it doesn't say itself: a request id, and the time. Where its own id may be its caller's
    /// (`ids_of_callers`), what wraps it knows better.
    pub(super) fn completed<'r>(
        &self,
        mut raw: RawEvent<'r>,
        request_id: Option<&'r str>,
        ids_of_callers: bool,
    ) -> RawEvent<'r>
    where
        'a: 'r,
    {
        if let Some(id) = request_id.filter(|_| ids_of_callers || raw.get(EventField::RequestId).is_empty()) {
            raw.set(EventField::RequestId, FieldValue::Plain(id));
            raw.is_vouched_for = true;
        }
        if raw.get(EventField::Time).is_empty() && !self.time_ms.is_empty() {
            raw.set_time(self.time_ms, Unit::Millis);
        }
        raw.met |= self.met;
        raw
    }
}

/// Decodes the messages of one source.
pub(super) struct MessageDecoder {
    records: Box<dyn RecordReader>,
    source: String,
    dedupe: Dedupe,
    limits: Limits,
    keys: KeyFinder,
    /// What became of a compressed message.
    text: Vec<u8>,
}

impl MessageDecoder {
    pub(super) fn new(records: Box<dyn RecordReader>, source: &Source, limits: Limits) -> Self {
        let keys = KeyFinder::new(&source.keys);
        Self { records, source: source.name.clone(), dedupe: source.dedupe, limits, keys, text: Vec::new() }
    }

    /// Gives the events of a message that have no request id the message's. `text` is the message, decompressed; `first`
    /// is the first of the events, `occurred` is of their records.
    fn identify(&self, text: &[u8], occurred: &Occurred, records: u32, first: usize, out: &mut Decoded) {
        let identified = match self.dedupe {
            Dedupe::Message => true,
            Dedupe::Batch => records > 1 || occurred.is_batch,
            Dedupe::RequestId | Dedupe::Content => false,
        };
        if !identified || out.events[first..].iter().all(|event| event.request.is_some()) {
            return;
        }
        // Not to be mistaken for the id of a request: these are texts.
        let mut identity = [0xFF; 21];
        let mut replaced = Vec::new();
        let secrets = &occurred.secrets;
        let text = if secrets.is_empty() {
            text
        } else {
            secrets.write_replaced(text, |secret| self.keys.secret_id(secret), &mut replaced);
            &replaced
        };
        identity[1..17].copy_from_slice(&xxh3_128(text).to_le_bytes());
        for event in out.events[first..].iter_mut().filter(|event| !event.request.is_some()) {
            identity[17..].copy_from_slice(&event.position.index.to_le_bytes());
            event.request = RequestId::new(&self.source, &identity);
        }
    }
}

impl Decoder for MessageDecoder {
    fn continue_after(&mut self, header: Option<&[u8]>) {
        self.records.continue_after(header);
    }

    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        self.decode_with(message, &(), at, out);
    }

    fn decode_with(&mut self, message: &[u8], headers: &dyn Headers, at: Position, out: &mut Decoded) {
        if message.len() > self.limits.message_bytes {
            return dead_letter(out, at, message, too_long(self.limits.message_bytes), None, false);
        }
        let first = out.events.len();
        let mut ledger = Ledger::new(at, self.limits.message_records, out);
        ledger.occurred.is_batch = is_array(message);
        let mut read = message;
        if is_gzip(message) {
            match inflate(message, &self.limits, self.limits.decompressed_bytes, &mut self.text) {
                Ok(()) => {
                    read = &self.text;
                    self.records.read_message(&self.text, headers, &mut ledger);
                }
                Err(reason) => ledger.refuse(message, reason),
            }
        } else {
            match unframed(message) {
                Ok(text) => self.records.read_message(text, headers, &mut ledger),
                Err(reason) => ledger.refuse(message, format!("framed: {reason}")),
            }
        }
        let (records, occurred) = (ledger.records(), ledger.occurred);
        self.identify(read, &occurred, records, first, out);
        if is_large(self.text.capacity()) {
            self.text = Vec::new();
        }
    }
}

fn is_array(message: &[u8]) -> bool {
    message.trim_ascii_start().first() == Some(&b'[')
}

/// Why a message is longer than it may be.
pub(super) fn too_long(limit: usize) -> String {
    format!("longer than {limit} bytes (limits.message_bytes)")
}

/// Returns whether it is compressed.
pub(super) fn is_gzip(message: &[u8]) -> bool {
    message.starts_with(&GZIP)
}

/// Decompresses all members of `message` into `text`, at most `room` bytes, and what is in them where that is
/// compressed as well.
///
/// # Errors
/// Why it can't be read.
pub(super) fn inflate(
    message: &[u8],
    limits: &Limits,
    room: usize,
    text: &mut Vec<u8>,
) -> Result<(), String> {
    inflate_once(message, limits, room, text)?;
    for _ in 1..LAYERS {
        if !is_gzip(text) {
            return Ok(());
        }
        let inner = std::mem::take(text);
        inflate_once(&inner, limits, room, text)?;
    }
    if is_gzip(text) { Err(format!("gzip: compressed more than {LAYERS} times")) } else { Ok(()) }
}

fn inflate_once(message: &[u8], limits: &Limits, room: usize, text: &mut Vec<u8>) -> Result<(), String> {
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
    Ok(())
}

/// The account of one message: where its next record stands, and what became of those before.
pub(super) struct Ledger<'o> {
    out: &'o mut Decoded,
    occurred: Occurred,
    next: Position,
    first: u32,
    most: usize,
}

impl<'o> Ledger<'o> {
    pub(super) fn new(first: Position, most: usize, out: &'o mut Decoded) -> Self {
        Self { out, occurred: Occurred::default(), next: first, first: first.index, most }
    }

    /// How many records were accounted for.
    pub(super) fn records(&self) -> u32 {
        self.next.index - self.first
    }

    /// Returns whether the message has as many records as it may have; if so, its rest is [`beyond`](Self::beyond).
    pub(super) fn is_full(&self) -> bool {
        self.records() as usize >= self.most
    }

    /// Accounts for the records beyond the limit.
    pub(super) fn beyond(&mut self, rest: &(impl RecordBytes + ?Sized)) {
        let limit = self.most;
        self.refuse(rest, format!("more than {limit} records in one message (limits.message_records)"));
    }

    /// Accounts for a record that could be read: an event, or a dead letter.
    #[inline]
    pub(super) fn enter(
        &mut self,
        canonical: &mut Canonical,
        raw: &RawEvent<'_>,
        record: &(impl RecordBytes + ?Sized),
    ) {
        match canonical.push(raw, self.next, &mut self.occurred, self.out) {
            Ok(None) => self.next.index = self.next.index.saturating_add(1),
            Ok(Some(reason)) => self.put(&record.bytes(), reason, None, true),
            Err(fault) => self.put(&record.bytes(), fault.to_string(), canonical.kept(raw), false),
        }
    }

    /// Accounts for a record that couldn't be read.
    pub(super) fn refuse(&mut self, record: &(impl RecordBytes + ?Sized), reason: String) {
        self.put(&record.bytes(), reason, None, false);
    }

    /// Accounts for a record that is none of a call's, and isn't expected to be.
    pub(super) fn pass_over(&mut self) {
        self.out.tally.passed_over += 1;
    }

    fn put(&mut self, record: &[u8], reason: String, kept: Option<Box<str>>, counted: bool) {
        dead_letter(self.out, self.next, record, reason, kept, counted);
        self.next.index = self.next.index.saturating_add(1);
    }
}
