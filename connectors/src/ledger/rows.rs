//! Rows of ticks that are to be committed together, kept until they are.
//!
//! A transaction that is aborted is sent again as it was. So its rows stay until they are known to be committed. Their bytes
//! are in chunks: one buffer that grows would be copied again and again. A row costs 48 bytes beside its own.

use keytide_dataflow::model::Tick;

/// The value's length of a row that has none.
const NO_VALUE: u32 = u32::MAX;
/// The bytes of a chunk. A row that is larger has a chunk for itself.
const CHUNK_BYTES: usize = 1 << 20;
/// The number of chunks whose memory is kept for later rows.
const SPARE_CHUNKS: usize = 32;

/// A row on its way to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRow<'a> {
    /// The index of the topic in the list that the ledger was opened with.
    pub topic: usize,
    pub tick: Tick,
    /// The row's `keytide-id`, in its header as 32 hex digits.
    pub id: u128,
    pub key: &'a [u8],
    /// The row as JSON, or `None` if it is taken back.
    pub value: Option<&'a [u8]>,
    /// Headers beside `keytide-tick` and `keytide-id`.
    pub headers: KeptHeaders<'a>,
}

/// The further headers of a row: pairs of a name and a value, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptHeaders<'a>(&'a [u8]);

/// Rows of ticks, in the order in which they are sent.
#[derive(Clone, Debug, Default)]
pub struct KeptRows {
    /// The chunks that have rows.
    chunks: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// The bytes in all chunks.
    bytes: usize,
    index: Vec<Place>,
}

/// The place of a row: its key, value and headers follow one another in its chunk.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: u128,
    tick: Tick,
    chunk: u32,
    start: u32,
    key: u32,
    value: u32,
    headers: u32,
    topic: u32,
}

impl KeptRows {
    /// Adds a row. `headers` are further headers, each a name and its value.
    ///
    /// # Panics
    /// If a part of the row has 4 GiB or more. No topic takes one of these.
    pub fn push<'h>(
        &mut self,
        topic: usize,
        tick: Tick,
        id: u128,
        key: &[u8],
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    ) {
        let length = |length: usize| {
            let short = u32::try_from(length).ok().filter(|&length| length != NO_VALUE);
            short.expect("a part of a row has less than 4 GiB")
        };
        let value_bytes = value.unwrap_or_default();
        let chunk = self.chunk(key.len() + value_bytes.len());
        let start = chunk.len();
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value_bytes);
        let before = chunk.len();
        for (name, value) in headers {
            for text in [name, value] {
                chunk.extend_from_slice(&length(text.len()).to_le_bytes());
                chunk.extend_from_slice(text.as_bytes());
            }
        }
        let (headers, end) = (length(chunk.len() - before), chunk.len());
        self.bytes += end - start;
        self.index.push(Place {
            id,
            tick,
            chunk: length(self.chunks.len() - 1),
            start: length(start),
            key: length(key.len()),
            value: value.map_or(NO_VALUE, |value| length(value.len())),
            headers,
            topic: length(topic),
        });
    }

    /// Returns a chunk that has room for so many bytes, or an empty one.
    fn chunk(&mut self, bytes: usize) -> &mut Vec<u8> {
        let has_room = self.chunks.last().is_some_and(|chunk| chunk.len() + bytes <= CHUNK_BYTES);
        if !has_room {
            let chunk = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
            self.chunks.push(chunk);
        }
        self.chunks.last_mut().expect("there is one now")
    }

    /// Forgets all rows, and keeps some of the memory for the next ones.
    pub fn clear(&mut self) {
        let room = SPARE_CHUNKS.saturating_sub(self.spare.len());
        self.spare
            .extend(self.chunks.drain(..).filter(|chunk| chunk.capacity() <= 2 * CHUNK_BYTES).take(room));
        self.spare.iter_mut().for_each(Vec::clear);
        self.bytes = 0;
        self.index.clear();
        self.index.shrink_to(SPARE_CHUNKS * CHUNK_BYTES / size_of::<Place>());
    }

    /// Returns the bytes that the rows take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.index.len() * size_of::<Place>()
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there is no row at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the rows in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KeptRow<'_>> {
        self.index.iter().map(|place| {
            let chunk = &self.chunks[place.chunk as usize];
            let (key, rest) = chunk[place.start as usize..].split_at(place.key as usize);
            let has_value = place.value != NO_VALUE;
            let (value, rest) = rest.split_at(if has_value { place.value as usize } else { 0 });
            KeptRow {
                topic: place.topic as usize,
                tick: place.tick,
                id: place.id,
                key,
                value: has_value.then_some(value),
                headers: KeptHeaders(&rest[..place.headers as usize]),
            }
        })
    }
}

impl<'a> KeptHeaders<'a> {
    /// Returns the bytes of all names and values, and 8 for each pair.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0.len()
    }
}

impl<'a> Iterator for KeptHeaders<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = || {
            let (length, rest) = self.0.split_first_chunk::<4>()?;
            let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            self.0 = rest;
            Some(text)
        };
        let (name, value) = (text()?, text()?);
        Some((std::str::from_utf8(name).expect("a name was a string"), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_put_in() {
        let mut rows = KeptRows::default();
        rows.push(0, 7, u128::MAX, b"k", Some(b"value"), []);
        rows.push(3, 8, 1, b"", None, [("name", "value"), ("", "")]);
        rows.push(1, u64::MAX, 0, b"key", Some(b""), [("a", "b")]);
        let all: Vec<_> = rows.iter().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(
            (all[0].topic, all[0].tick, all[0].id, all[0].key, all[0].value),
            (0, 7, u128::MAX, &b"k"[..], Some(&b"value"[..]))
        );
        assert_eq!(all[0].headers.count(), 0);
        assert_eq!((all[1].key, all[1].value), (&b""[..], None));
        let headers: Vec<_> = all[1].headers.collect();
        assert_eq!(headers, [("name", &b"value"[..]), ("", &b""[..])]);
        assert_eq!((all[2].tick, all[2].value), (u64::MAX, Some(&b""[..])));
        assert_eq!(all[2].headers.bytes(), 10);
        assert!(rows.bytes() > 3 * size_of::<Place>());
        rows.clear();
        assert!(rows.is_empty() && rows.bytes() == 0);
    }

    #[test]
    fn rows_of_any_size_come_back_from_as_many_chunks_as_they_need_also_in_memory_that_is_used_again() {
        let mut rows = KeptRows::default();
        for round in 1..3_u8 {
            // Rows that fill chunks to the last byte, one that is larger, and small ones behind it.
            let sizes = [CHUNK_BYTES / 3; 7].into_iter().chain([CHUNK_BYTES, 0, 3 * CHUNK_BYTES, 1, 2]);
            let values: Vec<Vec<u8>> = (round..).zip(sizes).map(|(fill, size)| vec![fill; size]).collect();
            for value in &values {
                rows.push(0, 1, 0, b"", Some(value), [("name", "value")]);
            }
            let header = 4 + "name".len() + 4 + "value".len();
            let bytes: usize = values.iter().map(|value| value.len() + header).sum();
            assert_eq!(rows.bytes(), bytes + values.len() * size_of::<Place>());
            assert!(rows.iter().map(|row| row.value.unwrap()).eq(values.iter().map(Vec::as_slice)));
            assert!(rows.iter().all(|row| row.headers.eq([("name", &b"value"[..])])));
            rows.clear();
        }
        assert!(rows.spare.iter().all(|chunk| chunk.is_empty() && chunk.capacity() <= 2 * CHUNK_BYTES));
    }
}
