//! The shelf: the newest published rows of each key and subscription, from which `[api]` answers.
//!
//! ```text
//! publisher ── PlacedRow, once its tick is acknowledged ──► 64 shards of (view, subject) -> series -> packed rows
//! ```
//! **Packed.** A row is kept as its JSON without what others have, too: names of columns are one number each, and the
//! subject and the time of the row are left out. What is left out is put in again byte by byte. So an answer has exactly
//! the rows of the topics, in a third of their memory.
//!
//! **Limits.** Of each series only the newest rows are kept, see [`RowPlace::kept`], and of a view and subject at most
//! [`SERIES`] series. Beyond the memory of `[api].memory` the subjects whose rows didn't change for longest are forgotten,
//! a tenth at once. Each answer says since when its subject's rows are complete.
//!
//! **A restart.** A checkpoint has the whole shelf, so rows of days that nothing changes any more are there again.

mod memory;
mod packed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};
use keytide_config::View;
use keytide_connectors::sink::columns::columns;
use keytide_connectors::sink::{PlacedRow, RowPlace, RowSubject};
use keytide_dataflow::model::Tick;
use serde::{Deserialize, Serialize};

pub use self::memory::ShelfMemory;
use self::packed::{Columns, PackedSeries, subject_length};

const SHARDS: usize = 64;
/// Series of a view and subject, at most. Those with the oldest rows are forgotten.
pub const SERIES: usize = 1_000;
/// The memory of a subject and of a series beside its rows, in bytes, about.
const SUBJECT_BYTES: usize = 192;
const SERIES_BYTES: usize = 80;

/// The rows of a view and a subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SubjectRows {
    /// The columns of the subject, with which all its rows begin.
    head: Arc<[u8]>,
    series: BTreeMap<u64, Arc<PackedSeries>>,
    /// The tick since which all newest rows are here.
    since: Tick,
    /// The last tick in which a row changed.
    changed: Tick,
}

impl SubjectRows {
    fn bytes(&self) -> usize {
        SUBJECT_BYTES
            + self.head.len()
            + self.series.values().map(|series| SERIES_BYTES + series.bytes()).sum::<usize>()
    }

    /// Takes a row, or takes it back. Returns by how many bytes it grew or shrank.
    fn put(&mut self, place: &RowPlace, line: Option<&[u8]>, columns: &Columns) -> isize {
        let mut added: isize = 0;
        let series = self.series.entry(place.series).or_insert_with(|| {
            added += SERIES_BYTES.cast_signed();
            Arc::default()
        });
        let before = series.bytes();
        // A checkpoint that is being written has its own.
        let rows = Arc::make_mut(series);
        let row = line.map(|line| columns.pack(line, &self.head, place.at));
        rows.put(place.at, row.as_deref(), place.kept);
        added -= before.cast_signed();
        if rows.is_empty() {
            self.series.remove(&place.series);
            added -= SERIES_BYTES.cast_signed();
        } else {
            added += rows.bytes().cast_signed();
        }
        if self.series.len() > SERIES {
            let oldest = self.series.iter().min_by_key(|(id, series)| (series.newest(), **id));
            if let Some(rows) = oldest.map(|(id, _)| *id).and_then(|id| self.series.remove(&id)) {
                added -= (SERIES_BYTES + rows.bytes()).cast_signed();
            }
        }
        added
    }
}

type Shard = HashMap<(View, RowSubject), SubjectRows>;

/// Takes a row of a tick. Returns by how many bytes the shard grew or shrank.
fn apply(shard: &mut Shard, tick: Tick, row: &PlacedRow, columns: &[Columns]) -> isize {
    let PlacedRow { view, place, line } = row;
    let mut added = 0;
    let of_subject = match shard.entry((*view, place.subject)) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let Some(line) = line else { return 0 };
            let head = Arc::from(&line[..subject_length(line, *view)]);
            let rows = SubjectRows { head, series: BTreeMap::new(), since: tick, changed: tick };
            added += rows.bytes().cast_signed();
            entry.insert(rows)
        }
    };
    of_subject.changed = tick;
    added + of_subject.put(place, line.as_deref(), &columns[*view as usize])
}

/// The newest rows of all keys and subscriptions.
#[derive(Debug)]
pub struct Shelf {
    shards: Vec<RwLock<Shard>>,
    hasher: DefaultHashBuilder,
    /// Tells this shelf from those of other lives of the job. It is random, and no secret.
    life: u64,
    /// The columns of each view, by its index.
    columns: Arc<[Columns]>,
    /// The most bytes that rows may take.
    memory: usize,
    bytes: AtomicUsize,
}

/// The rows of a view and a subject, as an answer has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShelvedRows {
    /// The tick since which all newest rows are here.
    pub since: Tick,
    /// Rows with their times or numbers, in the order of their series, then of their times.
    pub rows: Vec<(u64, Vec<u8>)>,
}

impl Shelf {
    /// Makes an empty shelf of at most so many bytes.
    #[must_use]
    pub fn new(memory: usize) -> Self {
        let names = |view: View| columns(view).live.iter().map(|column| column.name.clone()).collect();
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            hasher: DefaultHashBuilder::default(),
            // One of its own: answers show what is made of it.
            life: DefaultHashBuilder::default().hash_one(0_u64),
            columns: View::ALL.map(|view| Columns::new(names(view))).into(),
            memory,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes the rows of a tick that was acknowledged. Ticks come in order.
    pub fn apply(&self, tick: Tick, rows: &[PlacedRow]) {
        for row in rows {
            let subject = (row.view, row.place.subject);
            let mut shard = self.shard(&subject).write().unwrap_or_else(PoisonError::into_inner);
            self.add(apply(&mut shard, tick, row, &self.columns));
        }
        self.forget();
    }

    fn add(&self, bytes: isize) {
        match usize::try_from(bytes) {
            Ok(more) => self.bytes.fetch_add(more, Ordering::Relaxed),
            Err(_) => self.bytes.fetch_sub(bytes.unsigned_abs(), Ordering::Relaxed),
        };
    }

    /// Beyond the memory, forgets the subjects whose rows didn't change for longest, until a tenth of it is free. Incidents
    /// come last.
    fn forget(&self) {
        if self.bytes() <= self.memory {
            return;
        }
        let mut subjects = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let of = |(subject, rows): (&(View, RowSubject), &SubjectRows)| {
                (subject.1 == RowSubject::Job, rows.changed, *subject, rows.bytes())
            };
            subjects.extend(shard.iter().map(of));
        }
        subjects.sort_unstable();
        let target = self.memory - self.memory / 10;
        for (_, _, subject, bytes) in subjects {
            if self.bytes() <= target {
                break;
            }
            self.shard(&subject).write().unwrap_or_else(PoisonError::into_inner).remove(&subject);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Returns the rows of a view and a subject for whose series and time or number `wanted` is true; `None` if there are none
    /// at all.
    #[must_use]
    pub fn rows(
        &self,
        view: View,
        subject: RowSubject,
        wanted: impl Fn(u64, u64) -> bool,
    ) -> Option<ShelvedRows> {
        let columns = &self.columns[view as usize];
        let shard = self.shard(&(view, subject)).read().unwrap_or_else(PoisonError::into_inner);
        let of_subject = shard.get(&(view, subject))?;
        let SubjectRows { head, series, since, .. } = of_subject;
        let mut rows = Vec::new();
        for (id, series) in series {
            let of_series = series.rows().filter(|(at, _)| wanted(*id, *at));
            rows.extend(of_series.map(|(at, row)| (at, columns.unpack(row, head, at))));
        }
        Some(ShelvedRows { since: *since, rows })
    }

    /// Returns the last tick in which a row of a view and a subject changed.
    #[must_use]
    pub fn changed(&self, view: View, subject: RowSubject) -> Option<Tick> {
        let shard = self.shard(&(view, subject)).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&(view, subject)).map(|rows| rows.changed)
    }

    /// Returns the time or number of the newest row of a view and a subject among the series for which `wanted` is true.
    #[must_use]
    pub fn newest(&self, view: View, subject: RowSubject, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let shard = self.shard(&(view, subject)).read().unwrap_or_else(PoisonError::into_inner);
        let series = shard.get(&(view, subject))?.series.iter();
        series.filter(|(id, _)| wanted(**id)).filter_map(|(_, series)| series.newest()).max()
    }

    /// Returns the number that tells it from those of other lives of the job.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Returns the bytes that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the shelf for a checkpoint. Rows aren't copied before they change.
    #[must_use]
    pub fn memory(&self) -> ShelfMemory {
        let copy = |shard: &RwLock<Shard>| shard.read().unwrap_or_else(PoisonError::into_inner).clone();
        ShelfMemory {
            shards: self.shards.iter().map(copy).collect(),
            hasher: self.hasher.clone(),
            columns: Arc::clone(&self.columns),
        }
    }

    /// Takes the rows of a checkpoint, as the first ones.
    ///
    /// # Errors
    /// If another version wrote them.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), postcard::Error> {
        memory::decode(bytes, &self.columns, |subject, rows| {
            self.add(rows.bytes().cast_signed());
            self.shard(&subject).write().unwrap_or_else(PoisonError::into_inner).insert(subject, rows);
        })?;
        self.forget();
        Ok(())
    }

    fn shard(&self, subject: &(View, RowSubject)) -> &RwLock<Shard> {
        &self.shards[shard_of(&self.hasher, subject)]
    }
}

fn shard_of(hasher: &DefaultHashBuilder, subject: &(View, RowSubject)) -> usize {
    (hasher.hash_one(subject) >> 32) as usize % SHARDS
}
