//! Decodes messages as they arrive: checks their length, decompresses them, and accounts for their records.
//!
//! gzip is recognised by its first two bytes, `1f 8b`, with which no format's text begins. Members follow each other as
//! in `cat a.gz b.gz`. Their content may be compressed again, since both `CloudWatch` and Firehose compress. A message
//! whose compression is damaged, or that becomes too long, is one dead letter as a whole. It has the length and the
//! hash of the message as it arrived, and none of its records counts.
//!
//! **Identity.** A record without a request id is identified by its message. A gateway that sends again after an
//! unclear answer sends the same bytes. So the record's identity is the hash of the message and its index in it. The
//! message is hashed decompressed, with each raw key replaced by its id (see `secrets.rs`). Two records of one message
//! are never the same. Single lines of a file are never sent again, so each is a call of its own unless `dedupe =
//! "message"`.
//!
//! Limits: `limits.message_bytes` of a message as it arrived, `limits.decompressed_bytes` once it is decompressed,
//! `limits.message_records` gzip members, 3 layers of compression. Decompression stops at the first byte beyond. It
//! takes at most twice the limit in memory, of which 1 MiB is kept for the next message.

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

/// Layers of gzip within gzip that are decompressed.
const LAYERS: usize = 3;

/// Reads the records of texts in one format.
pub(super) trait RecordReader: Send {
    /// Reads all records of a text. `outer` holds the fields that their wrapper states for all of them.
    fn read(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>);

    /// Reads all records of a text that was taken out of a wrapper. A header line in it holds for that text alone.
    fn read_apart(&mut self, text: &[u8], outer: Outer<'_>, ledger: &mut Ledger<'_>) {
        self.read(text, outer, ledger);
    }

    /// Reads all records of a whole message, whose headers some formats need.
    fn read_message(&mut self, text: &[u8], _headers: &dyn Headers, ledger: &mut Ledger<'_>) {
        self.read(text, Outer::default(), ledger);
    }

    /// Does what [`Decoder::continue_after`] says.
    fn continue_after(&mut self, _header: Option<&[u8]>) {}
}

/// Fields that a wrapper states for the records within. They count where a record lacks them.
#[derive(Clone, Copy, Default)]
pub(super) struct Outer<'a> {
    /// Identifies the text that they stand in.
    pub(super) id: Option<&'a str>,
    pub(super) time_ms: FieldValue<'a>,
    /// Conditions of `[source.only]` that it meets.
    pub(super) met: u64,
}

impl<'a> Outer<'a> {
    /// The request id of record `number` of the text, which mostly has only one record.
    pub(super) fn request_id(&self, number: u32) -> Option<Cow<'a, str>> {
        let id = self.id?;
        Some(if number == 0 { id.into() } else { format!("{id}#{number}").into() })
    }

    /// Returns whether the wrapper states nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.id.is_none() && self.time_ms.is_empty() && self.met == 0
    }

    /// Returns a record with the request id and the time that it lacks. If its own id may be its caller's choice
    /// (`ids_of_callers`), the wrapper's id replaces it.
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
    /// The decompressed message, in a buffer that is used again.
    text: Vec<u8>,
}

impl MessageDecoder {
    pub(super) fn new(records: Box<dyn RecordReader>, source: &Source, limits: Limits) -> Self {
        let keys = KeyFinder::new(&source.keys);
        Self { records, source: source.name.clone(), dedupe: source.dedupe, limits, keys, text: Vec::new() }
    }

    /// Identifies the events of a message that have no request id by the message. `text` is the message, decompressed.
    /// `first` is the index of its first event, and `occurred` holds the identities of its records.
    fn identify(&self, text: &[u8], occurred: &Occurred, records: u32, first: usize, out: &mut Decoded) {
        let identified = match self.dedupe {
            Dedupe::Message => true,
            Dedupe::Batch => records > 1 || occurred.is_batch,
            Dedupe::RequestId | Dedupe::Content => false,
        };
        if !identified || out.events[first..].iter().all(|event| event.request.is_some()) {
            return;
        }
        // Request ids are texts, so 0xFF keeps this from being mistaken for one.
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

/// Returns the reason of a message that is too long.
pub(super) fn too_long(limit: usize) -> String {
    format!("longer than {limit} bytes (limits.message_bytes)")
}

/// Returns whether a message is compressed.
pub(super) fn is_gzip(message: &[u8]) -> bool {
    message.starts_with(&GZIP)
}

/// Decompresses all members of `message` into `text`, at most `room` bytes, up to 3 layers deep.
///
/// # Errors
/// Returns the reason if the message is damaged or too long.
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
        // Even an empty member costs time, so their number is limited.
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

/// The account of one message: the position of its next record, and the output of those before.
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

    /// Returns the number of records that were accounted for.
    pub(super) fn records(&self) -> u32 {
        self.next.index - self.first
    }

    /// Returns whether the message has as many records as it may have. If so, its rest is [`beyond`](Self::beyond).
    pub(super) fn is_full(&self) -> bool {
        self.records() as usize >= self.most
    }

    /// Accounts for the records beyond the limit as one dead letter.
    pub(super) fn beyond(&mut self, rest: &(impl RecordBytes + ?Sized)) {
        let limit = self.most;
        self.refuse(rest, format!("more than {limit} records in one message (limits.message_records)"));
    }

    /// Accounts for a record that could be read, which becomes an event or a dead letter.
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

    /// Accounts for a record that isn't a call's, and isn't expected to be.
    pub(super) fn pass_over(&mut self) {
        self.out.tally.passed_over += 1;
    }

    fn put(&mut self, record: &[u8], reason: String, kept: Option<Box<str>>, counted: bool) {
        dead_letter(self.out, self.next, record, reason, kept, counted);
        self.next.index = self.next.index.saturating_add(1);
    }
}
