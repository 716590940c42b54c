//! Rows of a series in one buffer, each without what can be put in again.
//!
//! ```text
//! at: u64 | length: u32 | row          little endian; one after the other, in the order of `at`
//! ```
//! In a row the byte 0xFF never stands for itself, as UTF-8 hasn't got it. It and the byte behind it stand for a text: the
//! name of a column, the head that all rows of the subject have, or the time of the row. Putting these in again reverses
//! that exactly, wherever in the row they were.

use keytide_config::View;
use keytide_connectors::sink::encode::time;
use serde::{Deserialize, Serialize};

/// Begins what stands for a text.
const CODE: u8 = 0xFF;
/// Stands for the columns of the subject.
const HEAD: u8 = 0xFE;
/// Stands for the time of the row in quotes.
const TIME: u8 = 0xFD;
/// Columns that have a number, at most.
const COLUMNS: usize = 0xFD;
/// The bytes of `at` and of the length before a row.
const ROW_HEADER: usize = 12;

/// The columns of a view, each with a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Columns {
    names: Vec<String>,
    /// The names as they stand between two columns, `,"name":`.
    labels: Vec<Vec<u8>>,
}

impl Columns {
    pub(super) fn new(names: Vec<String>) -> Self {
        let label = |name: &String| format!(",\"{name}\":").into_bytes();
        Self { labels: names.iter().take(COLUMNS).map(label).collect(), names }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Packs a row at a time, whose subject has the columns `head`.
    pub(super) fn pack(&self, line: &[u8], head: &[u8], at: u64) -> Vec<u8> {
        let mut packed = Vec::with_capacity(line.len() / 2);
        let of_time = format!("\"{}\"", time(at));
        let of_time = of_time.as_bytes();
        let mut rest = line;
        if let Some(behind) = rest.strip_prefix(head).filter(|_| !head.is_empty()) {
            packed.extend([CODE, HEAD]);
            rest = behind;
        }
        // Columns mostly come in their order.
        let mut next = 0;
        while let Some(first) = rest.first() {
            let number = match first {
                b',' if rest.get(1) == Some(&b'"') => self.label(rest, next),
                _ => None,
            };
            if let Some(number) = number {
                packed.extend([CODE, number as u8]);
                rest = &rest[self.labels[number].len()..];
                next = number + 1;
            } else if *first == b'"' && rest.starts_with(of_time) {
                packed.extend([CODE, TIME]);
                rest = &rest[of_time.len()..];
            } else {
                packed.push(*first);
                rest = &rest[1..];
            }
        }
        packed
    }

    /// Returns the number of the column whose name `rest` begins with.
    fn label(&self, rest: &[u8], next: usize) -> Option<usize> {
        let is_it = |number: &usize| self.labels.get(*number).is_some_and(|label| rest.starts_with(label));
        Some(next).filter(is_it).or_else(|| (0..self.labels.len()).find(is_it))
    }

    /// Makes a row again that was packed with the same columns, head and time.
    pub(super) fn unpack(&self, packed: &[u8], head: &[u8], at: u64) -> Vec<u8> {
        let mut line = Vec::with_capacity(packed.len() * 4);
        let mut bytes = packed.iter();
        while let Some(byte) = bytes.next() {
            if *byte != CODE {
                line.push(*byte);
                continue;
            }
            match bytes.next() {
                Some(&HEAD) => line.extend_from_slice(head),
                Some(&TIME) => {
                    line.push(b'"');
                    line.extend_from_slice(time(at).as_bytes());
                    line.push(b'"');
                }
                Some(number) => {
                    line.extend_from_slice(self.labels.get(usize::from(*number)).map_or(&[], Vec::as_slice));
                }
                None => {}
            }
        }
        line
    }
}

/// Returns the length of the columns of the subject, with which a row of a view begins.
pub(super) fn subject_length(line: &[u8], view: View) -> usize {
    let columns = match view {
        View::Incidents => 0,
        View::Latency => 2,
        _ => 1,
    };
    // Each has a name and a text.
    let mut length = 0;
    for _ in 0..2 * columns {
        length += line[length..].iter().position(|byte| *byte == b'"').map_or(0, |quote| quote + 1);
        let mut is_escaped = false;
        let end = line[length..].iter().position(|byte| {
            let is_end = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            is_end
        });
        length += end.map_or(0, |end| end + 1);
    }
    length
}

/// The rows of a series, in the order of their times or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PackedSeries(Vec<u8>);

impl PackedSeries {
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the packed rows with their times or numbers.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.places().map(|(start, at, end)| (at, &self.0[start + ROW_HEADER..end]))
    }

    /// Returns the time or number of the newest row.
    pub(super) fn newest(&self) -> Option<u64> {
        self.places().last().map(|(_, at, _)| at)
    }

    /// Returns where each row starts, its time or number, and where it ends.
    fn places(&self) -> impl Iterator<Item = (usize, u64, usize)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let header = self.0.get(start..start + ROW_HEADER)?;
            let (at, length) = header.split_at(8);
            let at = u64::from_le_bytes(at.try_into().ok()?);
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            let place = (start, at, start + ROW_HEADER + length);
            start = place.2;
            Some(place)
        })
    }

    /// Puts a row in the place of the one at the same time, or takes that away. Only the newest `kept` rows stay.
    pub(super) fn put(&mut self, at: u64, row: Option<&[u8]>, kept: usize) {
        let found = self.places().find(|(_, other, _)| *other >= at);
        let range = match found {
            Some((start, other, end)) if other == at => start..end,
            Some((start, ..)) => start..start,
            None => self.0.len()..self.0.len(),
        };
        let mut packed = Vec::new();
        if let Some(row) = row {
            packed.reserve_exact(ROW_HEADER + row.len());
            packed.extend(at.to_le_bytes());
            packed.extend(u32::try_from(row.len()).unwrap_or(u32::MAX).to_le_bytes());
            packed.extend_from_slice(row);
        }
        self.0.reserve_exact(packed.len().saturating_sub(range.len()));
        self.0.splice(range, packed);
        let beyond = self.places().count().saturating_sub(kept);
        if let Some(end) = beyond.checked_sub(1).and_then(|last| self.places().nth(last)).map(|place| place.2)
        {
            self.0.drain(..end);
            self.0.shrink_to_fit();
        }
    }

    /// Returns the series with each row packed anew.
    pub(super) fn map(&self, with: impl Fn(u64, &[u8]) -> Vec<u8>) -> Self {
        let mut mapped = Self::default();
        for (at, row) in self.rows() {
            mapped.put(at, Some(&with(at, row)), usize::MAX);
        }
        mapped
    }
}
