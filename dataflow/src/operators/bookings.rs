//! Books the usage of keys to the subscriptions that they belong to.
//!
//! The operator of `usage` by key has this second duty. Usage is booked once its minute is closed: by the close, or
//! late. It is booked to the subscription in force at the start of its hour, of its day and of its month. Bookings
//! are summed here per subscription and window. They are sent on as updates of a linear collection, at the cadence of
//! `subscription_usage`, and differential sums them over all workers. So the view follows `usage` within a minute of
//! event time. It costs work per changed minute of a key, not per event.
//!
//! A key's owner may change for a window that is held. Then the key's usage is taken back from the old subscription
//! and booked to the new. When a window is evicted, its bookings are taken out of the collection one tick later. That
//! frees memory and means nothing to readers, who have forgotten the window by then. It can't happen in the same
//! tick, which may bring the window's last bookings.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use super::parts::owners::OwnerChange;
use super::usage::{ByKey, CompactTotals, Totals, UsageMetric};
use super::windowed::{Metric, MetricSettings, Windowed, WindowedRow};
use crate::model::{AccessEvent, EventTime, KeyId, NameId, Owner, Tick};
use crate::row::OwnedUsage;
use crate::state::{Contains, Durable, Footprint, PartId, RowsOut, RowsWithin, Shard, StateId};
use crate::window::Level;

type ByKeyMetric = UsageMetric<ByKey>;

/// The first level of `usage` that `subscription_usage` has, too.
const FIRST: usize = 1;

/// A subscription in a window: (subscription, index of the level in `usage`, start).
pub(crate) type SubscriptionWindow = (NameId, u8, EventTime);

/// A booking as an update of a collection.
pub(crate) type Booking = (SubscriptionWindow, Tick, Booked);

/// Usage and distinct keys as a linear difference. Arithmetic wraps, so that a booking can be taken back exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Booked {
    pub(crate) usage: Totals,
    pub(crate) keys: u64,
}

impl IsZero for Booked {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Semigroup for Booked {
    fn plus_equals(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.keys = self.keys.wrapping_add(other.keys);
    }
}

impl Monoid for Booked {
    fn zero() -> Self {
        Self::default()
    }
}

impl Abelian for Booked {
    fn negate(&mut self) {
        self.usage.negate();
        self.keys = self.keys.wrapping_neg();
    }
}

/// The windows of `usage` by key, and the subscriptions that they are booked to.
pub(crate) struct Bookings {
    windowed: Windowed<ByKeyMetric>,
    booked_to: BookedTo,
    /// The bookings that wait for the cadence.
    pending: Sums,
    /// The sums of windows that the last tick evicted.
    evicted: Sums,
    /// The subscriptions of the keys of one hour: derived from `booked_to`.
    hour_cache: HourCache,
    /// True if rows were restored and aren't in the collection downstream yet.
    restored: bool,
}

/// The subscription by (level, start) and key. A key without an owner isn't booked.
type BookedTo = BTreeMap<(u8, EventTime), HashMap<KeyId, NameId>>;

/// The sums of bookings by subscription and window.
type Sums = HashMap<SubscriptionWindow, Booked>;

/// The subscriptions of a key's hour, day and month. [`NameId::NONE`] stands for none.
type BookedSubscriptions = [NameId; 3];

/// Caches the subscriptions of keys of one hour. Most bookings are of keys that were booked in the same hour already. They
/// take one look-up and one sum instead of three.
#[derive(Default)]
struct HourCache {
    hour: EventTime,
    subscriptions: HashMap<KeyId, BookedSubscriptions>,
    sums: HashMap<BookedSubscriptions, Totals>,
}

impl HourCache {
    /// Adds a booking of `hour`, and returns true if the key's subscriptions are known.
    fn book(&mut self, hour: EventTime, key: KeyId, usage: &Totals) -> bool {
        let subscriptions = if hour == self.hour { self.subscriptions.get(&key) } else { None };
        subscriptions.is_some_and(|subscriptions| {
            self.sums.entry(*subscriptions).or_default().add(usage);
            true
        })
    }

    /// Remembers a key's subscriptions, if `hour` is the latest so far.
    fn learn(&mut self, hour: EventTime, key: KeyId, subscriptions: BookedSubscriptions, pending: &mut Sums) {
        if hour > self.hour {
            self.forget(pending);
            self.hour = hour;
        }
        if hour == self.hour {
            self.subscriptions.insert(key, subscriptions);
        }
    }

    /// Moves the sums to `pending`, and forgets all else.
    fn forget(&mut self, pending: &mut Sums) {
        for (window, booked) in self.bookings() {
            add(pending, window, &booked, false);
        }
        self.sums.clear();
        self.subscriptions.clear();
    }

    fn bookings(&self) -> impl Iterator<Item = (SubscriptionWindow, Booked)> {
        self.sums.iter().flat_map(move |(subscriptions, usage)| {
            let windows = levels().map(|(at, index)| (index, ByKeyMetric::LEVELS[at].start(self.hour)));
            let known = subscriptions.iter().zip(windows).filter(|(party, _)| party.is_some());
            known.map(|(party, (index, start))| ((*party, index, start), Booked { usage: *usage, keys: 0 }))
        })
    }
}

fn add(sums: &mut Sums, window: SubscriptionWindow, booked: &Booked, take_back: bool) {
    let mut booked = *booked;
    if take_back {
        booked.negate();
    }
    sums.entry(window).or_default().plus_equals(&booked);
}

fn levels() -> impl Iterator<Item = (usize, u8)> {
    (FIRST..ByKeyMetric::LEVELS.len()).zip(1..)
}

impl Bookings {
    pub(crate) fn new(settings: MetricSettings) -> Self {
        Self {
            windowed: Windowed::new(settings),
            booked_to: BTreeMap::new(),
            pending: Sums::new(),
            evicted: Sums::new(),
            hour_cache: HourCache::default(),
            restored: false,
        }
    }

    pub(crate) fn book_and_publish(
        state: &mut Self,
        events: Vec<Rc<Vec<AccessEvent>>>,
        owners: Vec<Vec<OwnerChange>>,
        closing: Closing<'_, Booking>,
    ) {
        let info = closing.info;
        let mut sent_on = Sums::new();
        // STEP 1: after a restore everything is booked again; windows that the last tick evicted are taken out.
        if std::mem::take(&mut state.restored) {
            state.book_again(info.watermark_before, &mut sent_on);
        }
        for (window, booked) in state.evicted.drain() {
            add(&mut sent_on, window, &booked, true);
        }

        // STEP 2: owners change before usage is booked to them.
        let changed = state.windowed.change_context(owners.into_iter().flatten().collect());
        state.re_attribute(&changed, info.watermark_before);

        // STEP 3: usage is booked once its minute is closed. `windowed` can't be asked for owners while it adds, so
        // additions are collected first.
        let mut additions: Vec<(usize, EventTime, KeyId, CompactTotals)> = Vec::new();
        let mut collect = |level: usize, start: EventTime, key: &KeyId, counted: &CompactTotals| {
            additions.push((level, start, *key, counted.clone()));
        };
        state.windowed.add_events(events.iter().map(|batch| batch.as_slice()), info, &mut collect);
        state.windowed.close_windows(info, &mut collect);
        for (level, start, key, counted) in additions {
            state.book(level, start, key, counted.totals());
        }

        // STEP 4: bookings are sent on at the cadence. A window is evicted when the watermark enters another hour, and
        // its last bookings must be sent by then.
        let evicts = Level::Hour.start(info.watermark) > Level::Hour.start(info.watermark_before);
        if info.last || evicts || state.windowed.is_due(Level::Hour, info) {
            state.hour_cache.forget(&mut state.pending);
            for (window, booked) in state.pending.drain() {
                add(&mut sent_on, window, &booked, false);
            }
        }

        // STEP 5: rows of evicted windows have the usage that was booked, so their bookings are kept before they go.
        state.evict(info.watermark);
        state.windowed.publish(info, closing.output);

        let mut updates: Vec<Booking> =
            sent_on.into_iter().map(|(window, booked)| (window, info.tick, booked)).collect();
        updates.retain(|(_, _, booked)| !booked.is_zero());
        closing.downstream.push(updates);
    }

    /// Books what was added to a window of a level, and to its ancestors.
    fn book(&mut self, level: usize, start: EventTime, key: KeyId, usage: Totals) {
        let hour = Level::Hour.start(start);
        if level <= FIRST && self.hour_cache.book(hour, key, &usage) {
            return;
        }
        let Self { windowed, booked_to, pending, hour_cache, .. } = self;
        if !windowed.context.knows(key) {
            return;
        }
        let mut subscriptions = BookedSubscriptions::default();
        for (at, index) in levels().filter(|(at, _)| *at >= level) {
            let window = ByKeyMetric::LEVELS[at].start(start);
            let of_window = booked_to.entry((index, window)).or_default();
            let known = of_window.get(&key).copied();
            let subscription = known.unwrap_or_else(|| windowed.context.at(key, window).subscription);
            if subscription.is_some() {
                if known.is_none() {
                    of_window.insert(key, subscription);
                }
                let booked = Booked { usage, keys: u64::from(known.is_none()) };
                add(pending, (subscription, index, window), &booked, false);
            }
            subscriptions[at - FIRST] = subscription;
        }
        if level <= FIRST {
            hour_cache.learn(hour, key, subscriptions, pending);
        }
    }

    /// Moves the bookings of windows that are evicted at `watermark` to those that the next tick takes out.
    fn evict(&mut self, watermark: EventTime) {
        let Self { windowed, booked_to, evicted, .. } = self;
        for (at, index) in levels() {
            let held_from = ByKeyMetric::LEVELS[at].held_from(watermark);
            while let Some(window) =
                booked_to.range((index, 0)..(index, held_from)).next().map(|entry| *entry.0)
            {
                for (key, subscription) in booked_to.remove(&window).into_iter().flatten() {
                    let usage =
                        windowed.own(at, window.1, &key).map(CompactTotals::totals).unwrap_or_default();
                    add(evicted, (subscription, index, window.1), &Booked { usage, keys: 1 }, false);
                }
            }
        }
    }

    /// Books again all that was sent on before a restore, as if for the first time.
    fn book_again(&self, watermark: EventTime, sums: &mut Sums) {
        for (window, booked) in &self.pending {
            add(sums, *window, booked, true);
        }
        for ((index, start), keys) in &self.booked_to {
            for (key, subscription) in keys {
                let usage =
                    self.booked_usage(usize::from(*index), *start, key, watermark).unwrap_or_default();
                add(sums, (*subscription, *index, *start), &Booked { usage, keys: 1 }, false);
            }
        }
    }

    /// Books the held windows of keys whose owners changed to their new owners.
    fn re_attribute(&mut self, changed: &[KeyId], watermark: EventTime) {
        if changed.is_empty() {
            return;
        }
        self.hour_cache.forget(&mut self.pending);
        for (at, index) in levels() {
            for start in self.windowed.starts(at, FIRST) {
                for key in changed {
                    let Some(usage) = self.booked_usage(at, start, key, watermark) else { continue };
                    let now = self.windowed.context.at(*key, start).subscription;
                    let of_window = self.booked_to.entry((index, start)).or_default();
                    let before =
                        if now.is_some() { of_window.insert(*key, now) } else { of_window.remove(key) };
                    if before == Some(now) {
                        continue;
                    }
                    let booked = Booked { usage, keys: 1 };
                    if let Some(before) = before {
                        add(&mut self.pending, (before, index, start), &booked, true);
                    }
                    if now.is_some() {
                        add(&mut self.pending, (now, index, start), &booked, false);
                    }
                }
            }
        }
    }

    /// Returns a key's usage in a window, as far as its minutes are closed.
    fn booked_usage(&self, at: usize, start: EventTime, key: &KeyId, watermark: EventTime) -> Option<Totals> {
        let open: Vec<EventTime> =
            ByKeyMetric::LEVELS.iter().map(|level| level.open_from(watermark)).collect();
        self.windowed.content(at, start, key, &open, FIRST).map(|counted| counted.totals())
    }
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum BookingsRow<'a> {
    Window(WindowedRow<'a, KeyId, CompactTotals, OwnedUsage, KeyId, (KeyId, EventTime, Owner)>),
    BookedTo { level: u8, start: EventTime, key: KeyId, subscription: NameId },
    Pending { window: SubscriptionWindow, booked: Booked },
}

impl Contains<Windowed<ByKeyMetric>> for Bookings {
    fn outer_row(row: <Windowed<ByKeyMetric> as Durable>::Row<'_>) -> BookingsRow<'_> {
        BookingsRow::Window(row)
    }
}

impl Durable for Bookings {
    const ID: StateId = StateId::Usage;
    type Row<'a> = BookingsRow<'a>;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        self.windowed.rows_out(&mut RowsWithin(out));
        for ((level, start), keys) in &self.booked_to {
            for (key, subscription) in keys {
                out.row(BookingsRow::BookedTo {
                    level: *level,
                    start: *start,
                    key: *key,
                    subscription: *subscription,
                });
            }
        }
        for (window, booked) in
            self.pending.iter().map(|(window, booked)| (*window, *booked)).chain(self.hour_cache.bookings())
        {
            out.row(BookingsRow::Pending { window, booked });
        }
    }

    fn expect_rows(&mut self, part: PartId, rows: usize) {
        self.windowed.expect_rows(part, rows);
    }

    fn row_in(&mut self, row: BookingsRow<'static>) {
        self.restored = true;
        match row {
            BookingsRow::Window(row) => self.windowed.row_in(row),
            BookingsRow::BookedTo { level, start, key, subscription } => {
                self.booked_to.entry((level, start)).or_default().insert(key, subscription);
            }
            // Several workers may have stored one window: sums add up.
            BookingsRow::Pending { window, booked } => add(&mut self.pending, window, &booked, false),
        }
    }

    fn shard(row: &BookingsRow<'static>) -> Shard {
        match row {
            BookingsRow::Window(row) => <Windowed<ByKeyMetric> as Durable>::shard(row),
            BookingsRow::BookedTo { key, .. } => Shard::Of(key.shard()),
            BookingsRow::Pending { window, .. } => Shard::Of(window.0.0),
        }
    }

    fn footprint(&self) -> Footprint {
        let Self { windowed, booked_to, pending, evicted, hour_cache, .. } = self;
        let sums = [Footprint::of_map(pending), Footprint::of_map(evicted)];
        let derived = [Footprint::of_map(&hour_cache.subscriptions), Footprint::of_map(&hour_cache.sums)];
        let mut footprint: Footprint =
            booked_to.values().map(Footprint::of_map).chain(sums).chain(derived).sum();
        footprint += windowed.footprint();
        footprint
    }
}
