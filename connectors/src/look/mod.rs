//! Looks at a source's first records: whether they are accepted, and which format they seem to have.
//!
//! The records go through the source's own decoder, so the counts are those of a job. Beside it `sniff` looks at the
//! messages themselves, without regard to the configuration. [`hints`](Look::hints) names the differences between the
//! two.
//!
//! **Invariant**: hints never hold anything that a caller chose. They name formats, units, pointers of the
//! configuration, and members that most records have. Containers that callers fill (headers, arguments, bodies) are
//! left out.
//!
//! Limits: [`RECORDS`] records and [`BYTES`] of a source, from its first [`PARTITIONS`] partitions in equal parts. A
//! partition of a topic is left after `EMPTY_READS` reads of 100 ms that find nothing.

mod sniff;

use std::mem;
use std::slice;

use keytide_config::{Format, KeyFrom, Limits, Source, SourceKind};
use keytide_dataflow::model::{EventTime, Tick};

use self::sniff::Sniffed;
use crate::decode::{CLASSES, Context, Tally, decoder};
use crate::file::{Cut, Line};
use crate::ingest::{IngestError, PartitionContent, decode_block, inputs};
use crate::input::{FutureLimit, PartitionInfo};

/// About the number of records that are looked at, as those of a message are taken together.
pub const RECORDS: u64 = 1_000;
/// The number of bytes of messages that are looked at. The last message may exceed it.
pub const BYTES: u64 = 16 << 20;
/// The number of partitions that are looked at.
pub const PARTITIONS: usize = 32;
/// The number of reads of a topic's partition that may find nothing.
const EMPTY_READS: u32 = 20;
/// About the number of bytes that are read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// The counts of a source's first records, and the signs of their format.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub accepted: u64,
    /// Records that were refused, by the index of their class in [`CLASSES`].
    pub refused: [u64; CLASSES.len()],
    /// The partition and the offset of the first refused record.
    pub first_refused: Option<(PartitionInfo, u64)>,
    /// Oddities of records, calls by the rule that found their key, and calls without a key.
    pub tally: Tally,
    /// The earliest and the latest event time, in ms since the epoch.
    pub times: Option<(EventTime, EventTime)>,
    sniffed: Sniffed,
}

impl Look {
    /// Looks at a source's data. `now`, in ms since the epoch, is the time by which future-dated events are judged.
    /// Only regular files are read, and nothing of standard input.
    ///
    /// # Errors
    /// Returns an error if the source can't be read.
    pub fn at(source: &Source, context: &Context, limits: &Limits, now: Tick) -> Result<Self, IngestError> {
        let mut look = Self::default();
        if matches!(source.kind, SourceKind::Stdin) {
            return Ok(look);
        }
        let inputs = inputs(slice::from_ref(source))?;
        let is_readable = |path: &String| std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let inputs = inputs.into_iter().filter(|input| input.info.path.as_ref().is_none_or(is_readable));
        let inputs: Vec<_> = inputs.take(PARTITIONS).collect();
        let mut decoder = decoder(source, context);
        let (mut bytes, mut text, mut left) = (0, Vec::new(), RECORDS);
        let (partitions, latest) = (inputs.len() as u64, FutureLimit::at(now));
        for (number, mut input) in (0..).zip(inputs) {
            let share = left.div_ceil(partitions - number);
            let (mut records, mut empty) = (0, 0);
            while records < share && bytes < BYTES && empty <= EMPTY_READS {
                let lines = usize::try_from(share - records).unwrap_or(usize::MAX).min(1_000);
                let cut = Cut { bytes: BLOCK_BYTES, lines, line_bytes: limits.message_bytes };
                let block = input.content.next_block(&cut, mem::take(&mut text))?;
                let mut messages = 0_u64;
                block.for_each(|message, _| {
                    messages += 1;
                    if let Ok(Line::Whole { text, .. }) = message {
                        look.sniffed.see(text, source);
                    }
                });
                let decoded = decode_block(&block, 0, &mut *decoder, latest, limits.message_bytes, lines);
                look.accepted += decoded.events.len() as u64;
                records += decoded.events.len() as u64 + decoded.tally.passed_over;
                for letter in decoded.dead_letters.iter().filter(|letter| !letter.counted) {
                    records += 1;
                    look.refused[letter.class()] += 1;
                    look.first_refused.get_or_insert_with(|| (input.info.clone(), letter.position.offset));
                }
                look.tally.add(&decoded.tally);
                for time in decoded.events.iter().map(|event| event.time) {
                    let (first, last) = look.times.unwrap_or((time, time));
                    look.times = Some((first.min(time), last.max(time)));
                }
                bytes += block.bytes();
                empty = if messages == 0 { empty + 1 } else { 0 };
                let is_last = block.last();
                text = block.into_buffer();
                if is_last {
                    break;
                }
            }
            drop(PartitionContent::pause(&mut input.content));
            left = left.saturating_sub(records);
        }
        Ok(look)
    }

    /// Returns the number of records that were refused.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Returns the number of all records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.accepted + self.refusals() + self.tally.passed_over
    }

    /// Returns whether there are records, but none of them is a call.
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        self.accepted == 0 && self.records() > 0
    }

    /// Returns JSON pointers of members that at least half of the records have, sorted, at most 40.
    #[must_use]
    pub fn members(&self) -> Vec<String> {
        self.sniffed.members()
    }

    /// Returns differences between the configuration and the records, a sentence each, without a full stop.
    #[must_use]
    pub fn hints(&self, source: &Source) -> Vec<String> {
        let mut hints = Vec::new();
        // A pattern of its own that reads every line is right, even if no line has a key.
        let is_keyless = self.tally.keyless >= self.accepted && source.format != Format::Text;
        let is_odd = self.accepted < self.records() || is_keyless;
        if let Some(looks) = self.sniffed.looks().filter(|looks| is_odd && looks.name != source.format.name())
        {
            hints.push(format!(
                "lines look like {}, and the format is `{}`",
                looks.label,
                source.format.name()
            ));
        }
        if let Some((found, configured)) = self.sniffed.time_unit() {
            hints.push(format!("the time looks like {found}, and is configured as {configured}"));
        }
        for (field, places) in mapped(source) {
            if self.sniffed.lacks(&places) {
                let places: Vec<String> = places.iter().map(|place| sniff::written(place)).collect();
                hints.push(format!("none of the records has {} ({field})", places.join(" or ")));
            }
        }
        if self.tally.keyless > 0 {
            let named = |place: &String| is_named(source, place);
            let places: Vec<_> =
                self.sniffed.key_places().into_iter().filter(|place| !named(place)).collect();
            if !places.is_empty() {
                hints.push(format!("keys may stand at {}", places.join(", ")));
            }
        }
        hints
    }
}

/// Returns whether keys are looked for at a place, or under its last name.
fn is_named(source: &Source, place: &str) -> bool {
    let last = place.rsplit(['/', '.']).next().unwrap_or(place);
    let is_mapped =
        mapped(source).iter().any(|(_, places)| places.iter().any(|at| sniff::written(at) == place));
    is_mapped
        || source.keys.from.iter().any(|rule| match rule {
            KeyFrom::Header(name) => name.eq_ignore_ascii_case(last) && place.contains("header"),
            KeyFrom::Query(name) => {
                let is_argument = ["query", "arg", "param"].iter().any(|word| place.contains(word));
                is_argument && name.eq_ignore_ascii_case(last)
            }
            _ => false,
        })
}

/// Returns the places that the configuration names, each with the setting that names it.
fn mapped(source: &Source) -> Vec<(String, Vec<&[String]>)> {
    let fields = source.fields.named().into_iter().filter_map(|(name, field)| {
        let places = field?.at.iter().map(|place| &place.0[..]);
        Some((format!("fields.{name}"), places.collect()))
    });
    let rules = source.keys.from.iter().filter_map(|rule| match rule {
        KeyFrom::Field(place) => Some((format!("keys.from {rule}"), vec![&place.0[..]])),
        _ => None,
    });
    fields.chain(rules).collect()
}

#[cfg(test)]
mod tests;
