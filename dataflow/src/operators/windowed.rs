//! Meters events in windows. This is the mechanism behind every view, and a [`Metric`] is a thin definition of one.
//!
//! State is one flat hash map per level and window, from group to accumulator. An event is added to *one*
//! window, at the finest level, while that window is open:
//!
//! ```text
//!            event                    close (watermark >= end)      evict (watermark >= end + hold)
//!              |  add                        |  merge upwards             |  last row, then forgotten
//!              v                             v                            v
//!   1m   [ open ] ... [ closed ] ... [ closed ] ...
//!   1h   [ open: own part + its open minutes ] [ closed ] ...
//! ```
//!
//! When a window closes, it is merged into its parent once, and stays for corrections until it is evicted. An event
//! that arrives for a closed window is added to it and to each ancestor up to the first open one. So a closed window's
//! map is its whole content. An open window's content is its own map plus that of its open descendants, of which there
//! are few. An event costs one look-up, a row one merge. Only the finest level costs anything per event.
//!
//! A group costs an entry of a map. So accumulators take 24 to 32 bytes while a group has few calls, and own memory
//! only beyond that; see the metrics.
//!
//! If the finest window of an event is evicted already, the event enters at the finest level that is still held. An
//! evicted window is never made again.
//!
//! [`Publish::Last`] publishes each row once, in its last version, when its window is evicted or the input ends. Levels
//! are then published from the finest to the coarsest. Each window's map is freed, or made the parent's, before the
//! next, so no two levels are held twice.
//!
//! [`Publish::Changes`] publishes changed rows at their level's cadence. Each of 256 buckets of groups has its own time
//! within the cadence, so that rows don't come in bursts. Some changes touch many rows at once: a window completes or
//! becomes final, an owner changes. These go through one queue, which is drained in the order (window, group), by at
//! most `bulk_rows` rows a tick and bucket. The limit belongs to a bucket, not to a worker.
//!
//! Every decision compares times with thresholds that the tick's [`TickInfo`] gives. So it depends neither on arrival
//! order within a tick nor on the number of workers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use super::parts::context::RowContext;
use super::parts::group::Group;
use crate::model::{AccessEvent, EventTime, TickInfo};
use crate::row::{Output, Row, Rows};
use crate::state::{CopyOnWrite, Durable, Footprint, PartId, RowsOut, Shard, StateId};
use crate::window::Level;

/// Decides when rows are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Publishes each row once, in its last version, for bounded runs.
    Last,
    /// Publishes changed rows at their level's cadence.
    Changes {
        /// The largest number of rows that the queue publishes per tick, view and bucket of groups. There are 256
        /// buckets.
        bulk_rows: usize,
    },
}

/// The settings that all metrics share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricSettings {
    pub(crate) allowed_lateness_ms: u64,
    /// The largest number of addresses of one row that are counted exactly.
    pub(crate) callers_exact: usize,
    pub(crate) publish: Publish,
}

/// The number of buckets that groups are dealt to.
const BUCKETS: usize = 256;

/// The content of a group in a window.
pub(crate) trait Accumulator:
    Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Adds the content of `other`, which is of other events. Any order and grouping gives the same.
    fn merge(&mut self, other: &Self);

    /// Returns the bytes that it owns beyond its size in a map.
    fn owned_bytes(&self) -> usize {
        0
    }
}

/// A metric defines the groups, the content and the windows of a view.
pub(crate) trait Metric: 'static {
    const ID: StateId;
    /// Its levels, finest first. Each window lies within one of the next level.
    const LEVELS: &'static [Level];
    /// True if windows feed the next level. Otherwise each level is given its content.
    const FEEDS: bool = true;

    type Group: Group;
    type Acc: Accumulator;
    type Context: RowContext;
    /// A group as rows of the view have it.
    type RowGroup;
    type Value: Clone + Serialize + DeserializeOwned;

    /// Returns the event's group, `None` if the metric doesn't count it.
    fn group(event: &AccessEvent) -> Option<Self::Group>;
    /// Adds one event to the content.
    fn observe(acc: &mut Self::Acc, event: &AccessEvent);
    /// Keeps the content within limits. It is called after events or other content were added.
    fn limit(_: &mut Self::Acc, _: &MetricSettings) {}
    /// Returns the subject whose facts a row is joined with.
    fn subject(group: &Self::Group) -> <Self::Context as RowContext>::Subject;
    fn row_group(group: Self::Group) -> Self::RowGroup;
    /// Returns the value of a row. `None` (no row) is only allowed where there is no content.
    fn value(
        acc: Option<&Self::Acc>,
        group: &Self::Group,
        start: EventTime,
        context: &Self::Context,
    ) -> Option<Self::Value>;
    /// Makes rows of the view.
    fn rows(rows: Vec<Row<Self::RowGroup, Self::Value>>) -> Rows;
}

/// A part of a group's content, accumulated where the events are, before it travels to its group's worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Partial<G, A> {
    level: u8,
    start: EventTime,
    pub(crate) group: G,
    acc: A,
}

/// The identity of a row that waits: (start, index of its level, group).
type Queued<M> = (EventTime, u8, <M as Metric>::Group);

/// The changed rows of one level and bucket.
type ChangedGroups<M> = HashSet<(EventTime, <M as Metric>::Group)>;

type Groups<M> = HashMap<<<M as Metric>::Group as Group>::Packed, <M as Metric>::Acc>;

/// Returns the index of a level as rows of the state have it.
fn index_of(at: usize) -> u8 {
    u8::try_from(at).expect("a metric has a handful of levels")
}

/// Returns the entries of a map.
fn entries<M: Metric>(groups: &Groups<M>) -> impl Iterator<Item = (M::Group, &M::Acc)> {
    groups.iter().map(|(packed, acc)| (M::Group::unpack(*packed), acc))
}

/// The largest number of rows that are passed to the output at once.
const ROWS: usize = 4_096;

/// The groups of a window.
struct Window<M: Metric> {
    start: EventTime,
    groups: CopyOnWrite<Groups<M>>,
    /// The number of the first snapshot since they changed; 0 if they were restored.
    changed: u64,
}

/// The windows of a level in the order of their starts. Few are held, so a search finds one.
struct LevelWindows<M: Metric> {
    windows: Vec<Window<M>>,
    /// The index of the window that was used last.
    recent: usize,
    /// The number of the next snapshot.
    snapshot: u64,
}

impl<M: Metric> LevelWindows<M> {
    fn get(&self, start: EventTime) -> Option<&Groups<M>> {
        let index = self.windows.binary_search_by_key(&start, |window| window.start).ok()?;
        Some(&self.windows[index].groups)
    }

    /// Returns the groups of a window that is restored.
    fn restore(&mut self, start: EventTime) -> &mut Groups<M> {
        let snapshot = std::mem::replace(&mut self.snapshot, 0);
        self.get_or_open(start);
        self.snapshot = snapshot;
        self.windows[self.recent].groups.get_mut()
    }

    /// Returns the groups of a window, which are about to change.
    fn get_or_open(&mut self, start: EventTime) -> &mut Groups<M> {
        if self.windows.get(self.recent).is_none_or(|window| window.start != start) {
            self.recent =
                self.windows.binary_search_by_key(&start, |window| window.start).unwrap_or_else(|index| {
                    // Room for as many groups as in the window before: growing a map costs more than its room.
                    let newest = self.windows.last().filter(|_| index == self.windows.len());
                    let groups = newest.map_or(0, |before| before.groups.len());
                    let groups = CopyOnWrite::new(HashMap::with_capacity(groups));
                    self.windows.insert(index, Window { start, groups, changed: 0 });
                    index
                });
        }
        let window = &mut self.windows[self.recent];
        window.changed = self.snapshot;
        window.groups.get_mut()
    }

    /// Takes out the windows that start before `bound`.
    fn split_before(
        &mut self,
        bound: EventTime,
    ) -> impl Iterator<Item = (EventTime, CopyOnWrite<Groups<M>>)> + use<M> {
        let count = self.windows.partition_point(|window| window.start < bound);
        self.recent = 0;
        let taken: Vec<_> = self.windows.drain(..count).collect();
        taken.into_iter().map(|window| (window.start, window.groups))
    }
}

/// The starts of the first windows of each level that are held, open, or incomplete.
struct Thresholds {
    held: Vec<EventTime>,
    open: Vec<EventTime>,
    incomplete: Vec<EventTime>,
}

impl Thresholds {
    fn new(levels: &[Level], watermark: EventTime, allowed_lateness_ms: u64) -> Self {
        Self {
            held: levels.iter().map(|level| level.held_from(watermark)).collect(),
            open: levels.iter().map(|level| level.open_from(watermark)).collect(),
            incomplete: levels
                .iter()
                .map(|level| level.incomplete_from(watermark, allowed_lateness_ms))
                .collect(),
        }
    }
}

/// The durable state of a metric on one worker.
pub(crate) struct Windowed<M: Metric> {
    settings: MetricSettings,
    levels: Vec<LevelWindows<M>>,
    pub(crate) context: M::Context,
    /// By level and bucket, groups that changed since they were last published.
    dirty: Vec<Vec<ChangedGroups<M>>>,
    /// The subjects whose rows are to be published again.
    changed: BTreeSet<<M::Context as RowContext>::Subject>,
    /// By bucket, rows that wait for publication. Rows of held windows have no value (`None`). Those of evicted
    /// windows have the value of the time when they became final.
    queue: BTreeMap<u8, BTreeMap<Queued<M>, Option<M::Value>>>,
    /// The clock of cadences at the previous tick.
    cadence: u64,
    /// True if rows were restored and no tick has ended since.
    restored: bool,
}

/// Called for all content that is counted once its minute is closed. The arguments are the index of the level, a time
/// in the window, the group, and the content that was added. The time is that of late calls, else their minute.
pub(crate) type BookingCallback<'a, M> =
    &'a mut dyn FnMut(usize, EventTime, &<M as Metric>::Group, &<M as Metric>::Acc);

impl<M: Metric> Windowed<M> {
    pub(crate) fn new(settings: MetricSettings) -> Self {
        Self {
            settings,
            levels: M::LEVELS
                .iter()
                .map(|_| LevelWindows { windows: Vec::new(), recent: 0, snapshot: 1 })
                .collect(),
            context: M::Context::default(),
            dirty: M::LEVELS.iter().map(|_| (0..BUCKETS).map(|_| HashSet::new()).collect()).collect(),
            changed: BTreeSet::new(),
            queue: BTreeMap::new(),
            cadence: 0,
            restored: false,
        }
    }

    /// Returns true if changed rows of a bucket are published in this tick.
    fn is_bucket_due(&self, level: Level, bucket: usize, info: &TickInfo) -> bool {
        // The phase is the same at all levels. So a row that is due at a coarse level is due at the finer ones, too,
        // on which `mark_dirty` relies.
        let phase = Level::Day.cadence() * bucket as u64 / BUCKETS as u64;
        self.is_live() && crosses(level.cadence(), self.cadence + phase, info.cadence + phase)
    }

    /// Returns true if rows are published as they change.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.settings.publish, Publish::Changes { .. })
    }

    /// Applies changes of the context, and returns the subjects whose facts changed.
    pub(crate) fn change_context(
        &mut self,
        changes: Vec<<M::Context as RowContext>::Change>,
    ) -> Vec<<M::Context as RowContext>::Subject> {
        let changed = self.context.apply(changes, self.restored);
        if self.is_live() {
            self.changed.extend(changed.iter().copied());
        }
        changed
    }

    /// Adds the events of a tick.
    pub(crate) fn add_events<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a [AccessEvent]>,
        info: &TickInfo,
        booked: BookingCallback<'_, M>,
    ) {
        let before = Thresholds::new(M::LEVELS, info.watermark_before, self.settings.allowed_lateness_ms);
        let open_from = before.open[0];
        let live = self.is_live();
        let mut touched = Vec::new();
        for batch in batches {
            let mut events = batch.iter().peekable();
            while let Some(event) = events.next() {
                let Some(group) = M::group(event) else { continue };
                if event.time >= open_from {
                    let start = M::LEVELS[0].start(event.time);
                    let end = M::LEVELS[0].end(start);
                    let acc = self.levels[0].get_or_open(start).entry(group.pack()).or_default();
                    M::observe(acc, event);
                    // Events come in the order of their keys: those of the same row need no look-up.
                    while let Some(same) = events
                        .next_if(|next| (start..end).contains(&next.time) && M::group(next) == Some(group))
                    {
                        M::observe(acc, same);
                    }
                    M::limit(acc, &self.settings);
                    if live {
                        touched.push((start, group));
                    }
                } else if let Some(level) = before.held.iter().position(|held| event.time >= *held) {
                    let mut acc = M::Acc::default();
                    M::observe(&mut acc, event);
                    self.add(level, event.time, group, &acc, &before, booked);
                }
            }
        }
        for (start, group) in touched {
            self.mark_dirty(0, start, group);
        }
    }

    /// Adds a tick's partial accumulations, made with [`partials`].
    pub(crate) fn add_partials(&mut self, batches: Vec<Vec<Partial<M::Group, M::Acc>>>, info: &TickInfo) {
        let before = Thresholds::new(M::LEVELS, info.watermark_before, self.settings.allowed_lateness_ms);
        for Partial { level, start, group, acc } in batches.into_iter().flatten() {
            self.add(usize::from(level), start, group, &acc, &before, &mut |_, _, _, _| {});
        }
    }

    /// Adds to the window of a level that holds `time`, which is held, and to the ancestors that it was merged into already.
    fn add(
        &mut self,
        level: usize,
        time: EventTime,
        group: M::Group,
        acc: &M::Acc,
        before: &Thresholds,
        booked: BookingCallback<'_, M>,
    ) {
        let mut at = level;
        loop {
            let window = M::LEVELS[at].start(time);
            let own = self.levels[at].get_or_open(window).entry(group.pack()).or_default();
            own.merge(acc);
            M::limit(own, &self.settings);
            if window >= before.open[at] || at + 1 == M::LEVELS.len() {
                break;
            }
            at += 1;
        }
        if level > 0 || at > 0 {
            booked(level, time, &group, acc);
        }
        if self.is_live() {
            self.mark_dirty(level, time, group);
        }
    }

    /// Replaces a row's content, for metrics whose levels don't feed each other.
    pub(crate) fn set(&mut self, level: usize, start: EventTime, group: M::Group, acc: M::Acc)
    where
        M::Acc: PartialEq,
    {
        let known = self.own(level, start, &group);
        let is_changed = known.map_or_else(|| acc != M::Acc::default(), |known| *known != acc);
        if is_changed || known.is_none() {
            self.levels[level].get_or_open(start).insert(group.pack(), acc);
        }
        if is_changed && self.is_live() {
            self.mark_dirty(level, start, group);
        }
    }

    /// Returns every row that is held, if this is the first tick after a restore.
    pub(crate) fn restored_rows(&self) -> BTreeSet<(usize, EventTime, M::Group)> {
        let levels = self.levels.iter().enumerate().filter(|_| self.restored);
        levels
            .flat_map(|(at, level)| {
                level.windows.iter().map(move |window| (at, window.start, &*window.groups))
            })
            .flat_map(|(at, start, groups)| entries::<M>(groups).map(move |(group, _)| (at, start, group)))
            .collect()
    }

    /// Removes a row, for metrics whose levels don't feed each other.
    pub(crate) fn remove(&mut self, level: usize, start: EventTime, group: M::Group) {
        if self.own(level, start, &group).is_some() {
            self.levels[level].get_or_open(start).remove(&group.pack());
            if self.is_live() {
                self.mark_dirty(level, start, group);
            }
        }
    }

    fn mark_dirty(&mut self, level: usize, time: EventTime, group: M::Group) {
        let last = if M::FEEDS { M::LEVELS.len() } else { level + 1 };
        for at in level..last {
            // A row that waits at a level waits at the coarser ones: whenever it is due there it is due here, too.
            if !self.dirty[at][usize::from(group.bucket())].insert((M::LEVELS[at].start(time), group)) {
                break;
            }
        }
    }

    /// Ends the tick, in which it completes, publishes and evicts windows.
    pub(crate) fn publish(&mut self, info: &TickInfo, output: &mut dyn Output) {
        match self.settings.publish {
            Publish::Last => self.publish_last(info, output),
            Publish::Changes { bulk_rows } => self.publish_changes(info, bulk_rows, output),
        }
        self.cadence = info.cadence;
        self.restored = false;
    }

    /// Merges windows that the watermark passed into their parents, finest level first. At the end of a bounded input
    /// all are closed, because nothing more can come. Those that the watermark didn't pass are then merged when they
    /// are published.
    pub(crate) fn close_windows(&mut self, info: &TickInfo, booked: BookingCallback<'_, M>) {
        if !M::FEEDS {
            return;
        }
        for (at, &level) in M::LEVELS.iter().enumerate() {
            let from = level.open_from(info.watermark_before);
            let passed = level.open_from(info.watermark);
            let closed = if info.last { EventTime::MAX } else { passed };
            let merged = if self.is_live() { closed } else { passed };
            let (finer, coarser) = self.levels.split_at_mut(at + 1);
            for Window { start, groups, .. } in &finer[at].windows {
                if *start < from || *start >= closed {
                    continue;
                }
                if at == 0 {
                    entries::<M>(groups).for_each(|(group, acc)| booked(0, *start, &group, acc));
                }
                if let Some(parents) = coarser.first_mut()
                    && *start < merged
                {
                    let parent = parents.get_or_open(M::LEVELS[at + 1].start(*start));
                    merge_groups::<M>(parent, groups, &self.settings);
                }
            }
        }
    }

    fn publish_last(&mut self, info: &TickInfo, output: &mut dyn Output) {
        for (at, &level) in M::LEVELS.iter().enumerate() {
            let bound = if info.last { EventTime::MAX } else { level.held_from(info.watermark) };
            let merged = level.open_from(info.watermark);
            for (start, groups) in self.levels[at].split_before(bound) {
                let mut rows = Vec::new();
                for (group, acc) in entries::<M>(&groups) {
                    if let Some(value) = M::value(Some(acc), &group, start, &self.context) {
                        rows.push(self.row(at, start, group, value, info));
                    }
                    if rows.len() == ROWS {
                        output.rows(info.tick, M::rows(std::mem::take(&mut rows)));
                    }
                }
                output.rows(info.tick, M::rows(rows));
                if M::FEEDS && start >= merged && at + 1 < M::LEVELS.len() {
                    let parent = self.levels[at + 1].get_or_open(M::LEVELS[at + 1].start(start));
                    if parent.is_empty() {
                        *parent = groups.into_inner();
                    } else {
                        merge_groups::<M>(parent, &groups, &self.settings);
                    }
                }
            }
        }
    }

    fn publish_changes(&mut self, info: &TickInfo, bulk_rows: usize, output: &mut dyn Output) {
        let mut after = Thresholds::new(M::LEVELS, info.watermark, self.settings.allowed_lateness_ms);
        if info.last {
            after.open.fill(EventTime::MAX); // all were closed
        }
        let mut rows = Vec::new();
        let mut published = Vec::new();

        // STEP 1: changed rows of the buckets that are due. Rows of windows that are evicted now are left to step 2.
        for (at, &level) in M::LEVELS.iter().enumerate() {
            for bucket in 0..BUCKETS {
                if self.dirty[at][bucket].is_empty()
                    || !(info.last || self.is_bucket_due(level, bucket, info))
                {
                    continue;
                }
                let held_from = after.held[at];
                let due: Vec<_> =
                    self.dirty[at][bucket].extract_if(|(start, _)| *start >= held_from).collect();
                for (start, group) in due {
                    rows.extend(self.current_row(at, start, group, &after.open, info));
                    published.push((start, index_of(at), group));
                }
            }
        }

        // STEP 2: what changes many rows at once is queued: facts of subjects, windows that complete, evictions.
        if info.last || crosses(RE_ISSUE_MS, self.cadence, info.cadence) {
            self.queue_changed();
        }
        self.queue_completed_and_evicted(info.watermark_before, &after);

        // STEP 3: each bucket of the queue is drained by at most `bulk_rows`. A row that step 1 published isn't
        // published twice.
        let mut due = Vec::new();
        self.queue.retain(|_, bucket| {
            let count = if info.last { bucket.len() } else { bucket.len().min(bulk_rows) };
            due.extend((0..count).filter_map(|_| bucket.pop_first()));
            !bucket.is_empty()
        });
        if !due.is_empty() {
            let published: HashSet<Queued<M>> = published.into_iter().collect();
            due.retain(|(queued, _)| !published.contains(queued));
        }
        for ((start, index, group), last_version) in due {
            let at = usize::from(index);
            rows.extend(match last_version {
                Some(value) => Some(self.row(at, start, group, value, info)),
                None => self.current_row(at, start, group, &after.open, info),
            });
        }
        if !rows.is_empty() {
            output.rows(info.tick, M::rows(rows));
        }
    }

    /// Queues the rows of windows that complete, and the last versions of rows of windows that are evicted.
    fn queue_completed_and_evicted(&mut self, watermark_before: EventTime, after: &Thresholds) {
        let before = Thresholds::new(M::LEVELS, watermark_before, self.settings.allowed_lateness_ms);
        for at in 0..M::LEVELS.len() {
            let index = index_of(at);
            for Window { start, groups, .. } in &self.levels[at].windows {
                if (before.incomplete[at]..after.incomplete[at]).contains(start) {
                    for (group, _) in entries::<M>(groups) {
                        self.queue.entry(group.bucket()).or_default().insert((*start, index, group), None);
                    }
                }
            }
            let evicted = self.dirty[at].iter_mut();
            for (start, group) in
                evicted.flat_map(|dirty| dirty.extract_if(|(start, _)| *start < after.held[at]))
            {
                // A removed row has nothing to evict, but its retraction is still to be published.
                if self.levels[at].get(start).is_none_or(|groups| !groups.contains_key(&group.pack()))
                    && let Some(value) = M::value(None, &group, start, &self.context)
                {
                    self.queue.entry(group.bucket()).or_default().insert((start, index, group), Some(value));
                }
            }
            for (start, groups) in self.levels[at].split_before(after.held[at]) {
                for (group, acc) in entries::<M>(&groups) {
                    let value = M::value(Some(acc), &group, start, &self.context);
                    self.queue.entry(group.bucket()).or_default().insert((start, index, group), value);
                }
            }
        }
    }

    /// Queues the rows of subjects whose facts changed.
    fn queue_changed(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return;
        }
        for (at, windows) in self.levels.iter().enumerate() {
            let last = if M::FEEDS { M::LEVELS.len() } else { at + 1 };
            for Window { start, groups, .. } in &windows.windows {
                let of_changed = entries::<M>(groups).map(|(group, _)| group);
                for group in of_changed.filter(|group| changed.contains(&M::subject(group))) {
                    for coarser in at..last {
                        let start = M::LEVELS[coarser].start(*start);
                        let bucket = self.queue.entry(group.bucket()).or_default();
                        bucket.entry((start, index_of(coarser), group)).or_insert(None);
                    }
                }
            }
        }
    }

    /// Returns a group's content in a window: that of its own map, and that of open descendants.
    fn content(&self, at: usize, start: EventTime, group: &M::Group, open: &[EventTime]) -> Option<M::Acc> {
        let mut content = self.levels[at].get(start).and_then(|groups| groups.get(&group.pack())).cloned();
        if M::FEEDS && at > 0 && start >= open[at] {
            // An open child may exist through its own children alone, so every one that could is asked.
            let level = M::LEVELS[at - 1];
            let end = M::LEVELS[at].end(start);
            let latest = self.latest_start(at - 1);
            let mut child = open[at - 1].max(start);
            while child < end && child <= latest {
                if let Some(part) = self.content(at - 1, child, group, open) {
                    let content = content.get_or_insert_default();
                    content.merge(&part);
                    M::limit(content, &self.settings);
                }
                child = level.end(child);
            }
        }
        content
    }

    /// Returns the latest start of a window at or below this level.
    fn latest_start(&self, at: usize) -> EventTime {
        self.levels[..=at]
            .iter()
            .filter_map(|windows| windows.windows.last())
            .map(|window| window.start)
            .max()
            .unwrap_or(0)
    }

    /// Returns the content of a window's own map, which is all of it if the window is closed.
    pub(crate) fn own(&self, at: usize, start: EventTime, group: &M::Group) -> Option<&M::Acc> {
        self.levels[at].get(start)?.get(&group.pack())
    }

    /// Passes each group of a window with its own content to `each`, in no order.
    pub(crate) fn for_each_own(&self, at: usize, start: EventTime, mut each: impl FnMut(M::Group, &M::Acc)) {
        if let Some(groups) = self.levels[at].get(start) {
            entries::<M>(groups).for_each(|(group, acc)| each(group, acc));
        }
    }

    /// Returns the starts of the windows that have content of their own at a level.
    pub(crate) fn starts(&self, at: usize) -> Vec<EventTime> {
        self.levels[at].windows.iter().map(|window| window.start).collect()
    }

    /// Returns the row of a window as it stands, if it has one.
    fn current_row(
        &self,
        at: usize,
        start: EventTime,
        group: M::Group,
        open: &[EventTime],
        info: &TickInfo,
    ) -> Option<Row<M::RowGroup, M::Value>> {
        let content = self.content(at, start, &group, open);
        let value = M::value(content.as_ref(), &group, start, &self.context)?;
        Some(self.row(at, start, group, value, info))
    }

    fn row(
        &self,
        at: usize,
        start: EventTime,
        group: M::Group,
        value: M::Value,
        info: &TickInfo,
    ) -> Row<M::RowGroup, M::Value> {
        let level = M::LEVELS[at];
        let end = level.end(start);
        Row {
            group: M::row_group(group),
            level,
            start,
            value,
            complete: end + self.settings.allowed_lateness_ms <= info.watermark,
            is_final: end + level.hold() <= info.watermark,
        }
    }
}

/// Adds a window's content to its parent's.
fn merge_groups<M: Metric>(parent: &mut Groups<M>, groups: &Groups<M>, settings: &MetricSettings) {
    if parent.is_empty() {
        parent.reserve(groups.len());
    }
    for (group, acc) in groups {
        let merged = parent.entry(*group).or_default();
        merged.merge(acc);
        M::limit(merged, settings);
    }
}

/// The least time in ms between two publications of rows whose facts changed.
const RE_ISSUE_MS: u64 = 30_000;

/// Returns true if a multiple of `every` lies in (`before`, `now`], or if `every` is 0.
pub(crate) fn crosses(every: u64, before: u64, now: u64) -> bool {
    every == 0 || now / every > before / every
}

/// Accumulates a tick's events by level, window and group, where they are.
pub(crate) fn partials<M: Metric>(
    batches: &[std::rc::Rc<Vec<AccessEvent>>],
    info: &TickInfo,
) -> Vec<Partial<M::Group, M::Acc>> {
    let held: Vec<EventTime> = M::LEVELS.iter().map(|level| level.held_from(info.watermark_before)).collect();
    let mut sums: HashMap<(u8, EventTime, M::Group), M::Acc> = HashMap::new();
    for event in batches.iter().flat_map(|batch| batch.iter()) {
        let Some(group) = M::group(event) else { continue };
        let Some(at) = held.iter().position(|held| event.time >= *held) else { continue };
        let window = (index_of(at), M::LEVELS[at].start(event.time), group);
        M::observe(sums.entry(window).or_default(), event);
    }
    sums.into_iter().map(|((level, start, group), acc)| Partial { level, start, group, acc }).collect()
}

/// Ends a metric's tick: context first, then events, then time.
pub(crate) fn fold_events<M: Metric>(
    state: &mut Windowed<M>,
    events: Vec<std::rc::Rc<Vec<AccessEvent>>>,
    context: Vec<Vec<<M::Context as RowContext>::Change>>,
    closing: Closing<'_, ()>,
) {
    state.change_context(context.into_iter().flatten().collect());
    state.add_events(events.iter().map(|batch| batch.as_slice()), closing.info, &mut |_, _, _, _| {});
    state.close_windows(closing.info, &mut |_, _, _, _| {});
    state.publish(closing.info, closing.output);
}

/// Ends the tick of a metric that arrives in parts.
pub(crate) fn fold_partials<M: Metric<Context = ()>>(
    state: &mut Windowed<M>,
    parts: Vec<Vec<Partial<M::Group, M::Acc>>>,
    _: Vec<Vec<()>>,
    closing: Closing<'_, ()>,
) {
    state.add_partials(parts, closing.info);
    state.close_windows(closing.info, &mut |_, _, _, _| {});
    state.publish(closing.info, closing.output);
}

/// A metric's state as rows.
#[derive(Serialize, Deserialize)]
pub(crate) enum WindowedRow<'a, G, A: Clone, V, S, C> {
    Slot { level: u8, start: EventTime, group: G, acc: Cow<'a, A> },
    Dirty { level: u8, start: EventTime, group: G },
    Queued { level: u8, start: EventTime, group: G, last_version: Option<V> },
    Changed(S),
    Context(C),
    Cadence(u64),
}

impl<M: Metric> Durable for Windowed<M> {
    const ID: StateId = M::ID;
    type Row<'a> = WindowedRow<
        'a,
        M::Group,
        M::Acc,
        M::Value,
        <M::Context as RowContext>::Subject,
        <M::Context as RowContext>::Row,
    >;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for (level, windows) in (0..).zip(&mut self.levels) {
            for window in &mut windows.windows {
                let start = window.start;
                if !out.part(PartId::Span { level, start }, window.changed) {
                    continue;
                }
                let groups = window.groups.share();
                out.later(Box::new(move |out| {
                    for (group, acc) in entries::<M>(&groups) {
                        out.row(WindowedRow::Slot { level, start, group, acc: Cow::Borrowed(acc) });
                    }
                }));
            }
            windows.snapshot = out.request().number + 1;
        }
        out.part(PartId::Rest, 0);
        // There is one for nearly each group of a day and a month. To copy them takes less time than to encode them.
        let dirty = (0..).zip(&self.dirty);
        let dirty: Vec<(u8, EventTime, M::Group)> = dirty
            .flat_map(|(level, dirty)| {
                dirty.iter().flatten().map(move |(start, group)| (level, *start, *group))
            })
            .collect();
        out.later(Box::new(move |out| {
            for (level, start, group) in dirty {
                out.row(WindowedRow::Dirty { level, start, group });
            }
        }));
        for ((start, level, group), last_version) in self.queue.values().flatten() {
            let last_version = last_version.clone();
            out.row(WindowedRow::Queued { level: *level, start: *start, group: *group, last_version });
        }
        for subject in &self.changed {
            out.row(WindowedRow::Changed(*subject));
        }
        self.context.rows_out(&mut |row| out.row(WindowedRow::Context(row)));
        out.row(WindowedRow::Cadence(self.cadence));
    }

    fn expect_rows(&mut self, part: PartId, rows: usize) {
        if let PartId::Span { level, start } = part
            && let Some(windows) = self.levels.get_mut(usize::from(level)).filter(|_| rows > 0)
        {
            windows.restore(start).reserve(rows);
        }
    }

    fn row_in(&mut self, row: Self::Row<'static>) {
        self.restored = true;
        match row {
            WindowedRow::Slot { level, start, group, acc } => {
                self.levels[usize::from(level)].restore(start).insert(group.pack(), acc.into_owned());
            }
            WindowedRow::Dirty { level, start, group } => {
                self.dirty[usize::from(level)][usize::from(group.bucket())].insert((start, group));
            }
            WindowedRow::Queued { level, start, group, last_version } => {
                self.queue.entry(group.bucket()).or_default().insert((start, level, group), last_version);
            }
            WindowedRow::Changed(subject) => {
                self.changed.insert(subject);
            }
            WindowedRow::Context(row) => self.context.row_in(row),
            WindowedRow::Cadence(cadence) => self.cadence = self.cadence.max(cadence),
        }
    }

    fn shard(row: &Self::Row<'static>) -> Shard {
        match row {
            WindowedRow::Slot { group, .. }
            | WindowedRow::Dirty { group, .. }
            | WindowedRow::Queued { group, .. } => Shard::Of(group.shard()),
            WindowedRow::Context(row) => Shard::Of(M::Context::shard(row)),
            // Subjects that a worker doesn't know have no rows there, and the clock is the same on all workers.
            WindowedRow::Changed(_) | WindowedRow::Cadence(_) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let windows = self.levels.iter().flat_map(|level| &level.windows);
        let mut footprint: Footprint = windows
            .map(|window| Footprint::of_map_with(&window.groups, Accumulator::owned_bytes))
            .chain(self.dirty.iter().flatten().map(Footprint::of_set))
            .chain(self.queue.values().map(Footprint::of_tree))
            .chain([Footprint::of_tree_set(&self.changed)])
            .sum();
        footprint += self.context.footprint();
        footprint
    }
}
