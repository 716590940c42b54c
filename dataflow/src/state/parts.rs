//! Parts of states: rows that are stored together, and again only if one of them changed.
//!
//! A state deals its rows to parts, such as a window each. A snapshot says of each part whether it changed since an
//! earlier snapshot that is stored. If it didn't, its rows stay where they are. Parts that a snapshot doesn't name are gone.
//!
//! A part has the rows of one worker. So a job that goes on with as many workers as before reads each part once.

use std::collections::BTreeMap;
use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::{Durable, StateId};

/// The number of bytes from which a block takes no further row. A block with one large row is larger.
const BLOCK_BYTES: usize = 1 << 20;
/// The name of the part of all rows that are in no other part.
const REST: &str = "rest";
/// The name of the part of what a state knows of its keys, and of those with what changed of them.
const KEYS: &str = "keys";
const CHANGES: &str = "changes";

/// Names a part within its state and worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartId {
    /// A window or another span of time that begins at `start` ms, of the level with this index.
    Span { level: u8, start: u64 },
    /// What the state knows of its keys: of all of them if `link` is 0, and else of those that changed after the link before.
    /// A row takes the place of one of its key in an earlier link; see `chain.rs`.
    Keys { link: u32 },
    /// All rows that are in no other part. It counts as changed in each snapshot.
    Rest,
}

/// Names a part of a worker's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartKey {
    pub state: StateId,
    pub part: PartId,
    pub worker: usize,
}

impl PartKey {
    /// Returns the name under which the part is stored.
    #[must_use]
    pub fn name(self) -> String {
        let (group, worker) = (self.group(), self.worker);
        match self.part {
            PartId::Span { start, .. } => format!("{group}-{start}-{worker}"),
            PartId::Keys { link: 0 } | PartId::Rest => format!("{group}-{worker}"),
            PartId::Keys { link } => format!("{group}-{link}-{worker}"),
        }
    }

    /// Returns the name that parts have in common which change and go at about the same time.
    #[must_use]
    pub fn group(self) -> String {
        let state = self.state.name();
        match self.part {
            PartId::Span { level, .. } => format!("{state}-{level}"),
            PartId::Keys { link: 0 } => format!("{state}-{KEYS}"),
            PartId::Keys { .. } => format!("{state}-{CHANGES}"),
            PartId::Rest => format!("{state}-{REST}"),
        }
    }

    /// Returns the part of a name; `None` if this version has no such part.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut words = name.split('-');
        let state = words.next()?;
        let state = *StateId::ALL.iter().find(|id| id.name() == state)?;
        let part = match words.next()? {
            REST => PartId::Rest,
            KEYS => PartId::Keys { link: 0 },
            CHANGES => PartId::Keys { link: words.next()?.parse().ok()? },
            level => PartId::Span { level: level.parse().ok()?, start: words.next()?.parse().ok()? },
        };
        let key = Self { state, part, worker: words.next()?.parse().ok()? };
        (key.name() == name).then_some(key)
    }
}

/// Says which parts a snapshot has to have with their rows. The snapshots of one life are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    pub number: u64,
    /// The number of the snapshot whose parts are stored. It is 0 for the states that were restored, and `None` if all
    /// parts are needed.
    pub since: Option<u64>,
}

impl SnapshotRequest {
    /// Asks for all parts in the first snapshot of a life.
    pub const ALL: Self = Self { number: 1, since: None };

    /// Returns whether a part is needed that changed before the snapshot with the number `changed`, and not later.
    #[must_use]
    pub fn needs(self, changed: u64) -> bool {
        self.since.is_none_or(|since| changed > since)
    }
}

/// Takes rows of a state.
pub trait RowOut<S: Durable> {
    fn row(&mut self, row: S::Row<'_>);
}

/// Rows of a state that are encoded once its worker has gone on.
pub(crate) type LaterRows<S> = Box<dyn FnOnce(&mut dyn RowOut<S>) + Send>;

/// Takes the rows of a state by their parts.
pub trait RowsOut<S: Durable>: RowOut<S> {
    /// Adds rows to the part that a thread other than the worker encodes. They must be as they are now.
    fn later(&mut self, rows: LaterRows<S>);

    /// Begins or continues a part, to which the following rows belong. It changed before the snapshot with the number
    /// `changed`, and not later. Returns false if its rows aren't needed. Then none may follow before another part.
    fn part(&mut self, part: PartId, changed: u64) -> bool;

    fn request(&self) -> SnapshotRequest;
}

/// A state that has another one, of type `I`, within it.
pub(crate) trait Contains<I: Durable>: Durable {
    /// Makes a row of one of the state within.
    fn outer_row(row: I::Row<'_>) -> Self::Row<'_>;
}

/// Turns the rows of a state that is within another one into rows of that.
pub(crate) struct RowsWithin<'a, O: ?Sized>(pub(crate) &'a mut O);

impl<I: Durable, S: Contains<I>> RowOut<I> for RowsWithin<'_, dyn RowOut<S> + '_> {
    fn row(&mut self, row: I::Row<'_>) {
        self.0.row(S::outer_row(row));
    }
}

impl<I: Durable, S: Contains<I>> RowOut<I> for RowsWithin<'_, dyn RowsOut<S> + '_> {
    fn row(&mut self, row: I::Row<'_>) {
        self.0.row(S::outer_row(row));
    }
}

impl<I: Durable, S: Contains<I>> RowsOut<I> for RowsWithin<'_, dyn RowsOut<S> + '_> {
    fn later(&mut self, rows: LaterRows<I>) {
        self.0.later(Box::new(move |out| rows(&mut RowsWithin(out))));
    }

    fn part(&mut self, part: PartId, changed: u64) -> bool {
        self.0.part(part, changed)
    }

    fn request(&self) -> SnapshotRequest {
        self.0.request()
    }
}

/// Encoded rows, one behind the other in blocks. A row says by itself where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRows {
    blocks: Vec<Vec<u8>>,
    count: u64,
}

impl StateRows {
    /// Makes the `count` rows of stored blocks.
    #[must_use]
    pub fn from_blocks(blocks: Vec<Vec<u8>>, count: u64) -> Self {
        Self { blocks, count }
    }

    /// Returns the blocks, to be stored.
    #[must_use]
    pub fn into_blocks(self) -> Vec<Vec<u8>> {
        self.blocks
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().map(Vec::as_slice)
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Returns whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, row: &impl Serialize) {
        if self.blocks.last().is_none_or(|block| block.len() >= BLOCK_BYTES) {
            // Only a block that follows another is likely to be filled.
            let bytes = if self.blocks.is_empty() { 0 } else { BLOCK_BYTES };
            self.blocks.push(Vec::with_capacity(bytes));
        }
        let block = self.blocks.last_mut().expect("there is one now");
        let encoded = postcard::serialize_with_flavor(row, AppendTo(block));
        encoded.expect("rows are plain data in memory: encoding can't fail");
        self.count += 1;
    }
}

/// Writes a row behind those of a block. Postcard's own way to do so takes each byte out of an iterator.
struct AppendTo<'a>(&'a mut Vec<u8>);

impl Flavor for AppendTo<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl<S: Durable> RowOut<S> for StateRows {
    fn row(&mut self, row: S::Row<'_>) {
        self.push(&row);
    }
}

/// Adds the rows to a part that were still to be encoded.
type EncodeLater = Box<dyn FnOnce(&mut StateRows) + Send>;

/// The rows of a part: those that its worker encoded, and those that are still to be.
#[derive(Default)]
pub(super) struct TakenRows {
    rows: StateRows,
    later: Vec<EncodeLater>,
}

impl TakenRows {
    fn encode(self) -> StateRows {
        let Self { mut rows, later } = self;
        later.into_iter().for_each(|later| later(&mut rows));
        rows
    }
}

/// The states of one worker as they were at the end of a tick, of which the large ones are still to be encoded.
///
/// Any thread may do that. Meanwhile a worker that changes them needs a copy.
pub struct TakenSnapshot {
    workers: usize,
    parts: BTreeMap<PartKey, Option<TakenRows>>,
}

impl fmt::Debug for TakenSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.keys()).finish()
    }
}

impl TakenSnapshot {
    pub(super) fn new(workers: usize, parts: BTreeMap<PartKey, Option<TakenRows>>) -> Self {
        Self { workers, parts }
    }

    /// Encodes what is left, and returns the rows of all parts.
    #[must_use]
    pub fn encode(self) -> Snapshot {
        let parts = self.parts.into_iter().map(|(key, rows)| (key, rows.map(TakenRows::encode)));
        Snapshot { workers: self.workers, parts: parts.collect() }
    }
}

/// The states of one worker, or of several, by their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The number of workers whose parts they are.
    pub workers: usize,
    /// The rows of each part; `None` if they are those of the snapshot that is stored.
    pub parts: BTreeMap<PartKey, Option<StateRows>>,
}

impl Snapshot {
    /// Adds the parts of another worker.
    pub fn merge(&mut self, mut other: Self) {
        self.workers = self.workers.max(other.workers);
        self.parts.append(&mut other.parts);
    }

    /// Adds the parts of the snapshot that is stored to one that names only those that didn't change.
    #[must_use]
    pub fn over(mut self, stored: &Self) -> Self {
        for (key, rows) in &mut self.parts {
            if rows.is_none() {
                rows.clone_from(stored.parts.get(key).unwrap_or(&None));
            }
        }
        self
    }

    /// Returns the number of rows of a state that the snapshot has.
    #[must_use]
    pub fn rows(&self, state: StateId) -> u64 {
        let parts = self.parts.iter().filter(|(key, _)| key.state == state);
        parts.filter_map(|(_, rows)| rows.as_ref()).map(StateRows::len).sum()
    }
}

/// Encodes the rows of a state of one worker.
pub(super) struct PartsEncoder<'a> {
    request: SnapshotRequest,
    parts: &'a mut BTreeMap<PartKey, Option<TakenRows>>,
    /// The part of the following rows, which isn't in `parts` meanwhile.
    current: (PartKey, TakenRows),
}

impl<'a> PartsEncoder<'a> {
    pub(super) fn new(
        state: StateId,
        worker: usize,
        request: SnapshotRequest,
        parts: &'a mut BTreeMap<PartKey, Option<TakenRows>>,
    ) -> Self {
        let current = (PartKey { state, part: PartId::Rest, worker }, TakenRows::default());
        Self { request, parts, current }
    }

    pub(super) fn finish(self) {
        self.parts.insert(self.current.0, Some(self.current.1));
    }
}

impl<S: Durable> RowOut<S> for PartsEncoder<'_> {
    fn row(&mut self, row: S::Row<'_>) {
        self.current.1.rows.push(&row);
    }
}

impl<S: Durable> RowsOut<S> for PartsEncoder<'_> {
    fn later(&mut self, rows: LaterRows<S>) {
        self.current.1.later.push(Box::new(|out| rows(out)));
    }

    fn part(&mut self, part: PartId, changed: u64) -> bool {
        let key = PartKey { part, ..self.current.0 };
        let is_needed = part == PartId::Rest || self.request.needs(changed);
        if !is_needed {
            self.parts.insert(key, None);
        } else if key != self.current.0 {
            let rows = self.parts.remove(&key).flatten().unwrap_or_default();
            let (before, rows) = std::mem::replace(&mut self.current, (key, rows));
            self.parts.insert(before, Some(rows));
        }
        is_needed
    }

    fn request(&self) -> SnapshotRequest {
        self.request
    }
}
