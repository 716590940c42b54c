//! Parts of states: rows that are stored together, and again only if one of them changed.
//!
//! A state deals its rows to parts, such as a window each. A snapshot says of each part whether it changed since an
//! earlier snapshot that is stored. If it didn't, its rows stay where they are. Parts that a snapshot doesn't name are gone.
//!
//! A part has the rows of one worker. So a job that goes on with as many workers as before reads each part once.

use std::collections::BTreeMap;

use serde::Serialize;

use super::StateId;

/// The number of bytes from which a block takes no further row. A block with one large row is larger.
const BLOCK_BYTES: usize = 4 << 20;
/// The name of the part of all rows that are in no other part.
const REST: &str = "rest";

/// Names a part within its state and worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartId {
    /// A window or another span of time that begins at `start` ms, of the level with this index.
    Span { level: u8, start: u64 },
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
            PartId::Rest => format!("{group}-{worker}"),
        }
    }

    /// Returns the name that parts have in common which change and go at about the same time.
    #[must_use]
    pub fn group(self) -> String {
        let state = self.state.name();
        match self.part {
            PartId::Span { level, .. } => format!("{state}-{level}"),
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
            level => PartId::Span { level: level.parse().ok()?, start: words.next()?.parse().ok()? },
        };
        let key = Self { state, part, worker: words.next()?.parse().ok()? };
        (key.name() == name).then_some(key)
    }
}

/// Says which parts a snapshot has to have with their rows. The snapshots of one life are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Takes the rows of a state.
pub trait RowsOut<R> {
    fn row(&mut self, row: R);

    /// Begins or continues a part, to which the following rows belong. It changed before the snapshot with the number
    /// `changed`, and not later. Returns false if its rows aren't needed. Then none may follow before another part.
    fn part(&mut self, part: PartId, changed: u64) -> bool;

    fn request(&self) -> SnapshotRequest;
}

/// Turns the rows of a state that is within another one into rows of that.
pub(crate) struct MappedRows<'a, R, F> {
    pub(crate) out: &'a mut dyn RowsOut<R>,
    pub(crate) map: F,
}

impl<A, R, F: FnMut(A) -> R> RowsOut<A> for MappedRows<'_, R, F> {
    fn row(&mut self, row: A) {
        self.out.row((self.map)(row));
    }

    fn part(&mut self, part: PartId, changed: u64) -> bool {
        self.out.part(part, changed)
    }

    fn request(&self) -> SnapshotRequest {
        self.out.request()
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
        let block = self.blocks.pop_if(|block| block.len() < BLOCK_BYTES).unwrap_or_default();
        let block =
            postcard::to_extend(row, block).expect("rows are plain data in memory: encoding can't fail");
        self.blocks.push(block);
        self.count += 1;
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
    parts: &'a mut BTreeMap<PartKey, Option<StateRows>>,
    /// The part of the following rows, which isn't in `parts` meanwhile.
    current: (PartKey, StateRows),
}

impl<'a> PartsEncoder<'a> {
    pub(super) fn new(
        state: StateId,
        worker: usize,
        request: SnapshotRequest,
        parts: &'a mut BTreeMap<PartKey, Option<StateRows>>,
    ) -> Self {
        let current = (PartKey { state, part: PartId::Rest, worker }, StateRows::default());
        Self { request, parts, current }
    }

    pub(super) fn finish(self) {
        self.parts.insert(self.current.0, Some(self.current.1));
    }
}

impl<R: Serialize> RowsOut<R> for PartsEncoder<'_> {
    fn row(&mut self, row: R) {
        self.current.1.push(&row);
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
