//! Books the usage of keys to the subscriptions that they belong to.
//!
//! The operator of `usage` by key has this second duty. Usage is booked once its minute is closed: by the close, or
//! late. It is booked to the subscription in force at the start of its hour. Bookings of hours are summed here per
//! subscription. They are sent on as updates of a linear collection when minutes close, and differential sums them over
//! all workers. It costs work per changed minute of a key, not per event.
//!
//! **A day and a month are the sums of their hours.** So what changes in the sum of an hour is added to its day and its
//! month where the sums arrive, and a key that changes hands counts for each owner what was its own. Only two things
//! can't be had from the hours, and are sent on as *additions* of their own:
//! * The number of distinct keys. Here is known to which subscriptions the hours of a key's day or month are booked.
//! * Calls whose hour is evicted already. They are booked to the subscription that had the key in their hour, in the
//!   day or the month that is still held, and to no hour.
//!
//! **Accounts** bill local days, of which most are whole hours of UTC. They get what changes in the sums of hours, and
//! two kinds of additions: calls of hours that are evicted, by their hour, and the part of an hour from a **midnight**
//! within it on. Zones with such midnights are few. While a subscription is in one of them, the part of each key is
//! kept in its one or two hours a day, so that it can be booked to another subscription. An hour that was booked before
//! its zone was known counts whole for the day in which it begins.
//!
//! A key's owner may change for an hour that is held. Then the key's usage is taken back from the old subscription
//! and booked to the new. What is booked of an hour when it is evicted never moves again. When an hour is evicted, its
//! bookings are taken out of the collection one tick later. That frees memory and means nothing to readers, who have
//! forgotten the hour by then. It can't happen in the same tick, which may bring the hour's last bookings.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};
use hashbrown::HashMap;
use keytide_billing::Calendar;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::parts::by_tick::Closing;
use super::parts::owners::OwnerChange;
use super::parts::zones::{Midnights, calendar, midnights_within};
use super::usage::{ByKey, CompactTotals, Totals, UsageMetric};
use super::windowed::{Metric, MetricSettings, Windowed, WindowedRow};
use crate::model::{AccessEvent, EventTime, KeyId, NameId, Owner, Tick};
use crate::row::{Counts, OwnedUsage, Usage};
use crate::state::{Contains, Durable, Footprint, PartId, RowsOut, RowsWithin, Shard, StateId, spilled};
use crate::window::Level;

type ByKeyMetric = UsageMetric<ByKey>;

/// The first level of `usage` that `subscription_usage` has, too: hours.
pub(crate) const HOURS: u8 = 1;

/// Stands for the index of a level in additions for accounts.
pub(crate) const FOR_ACCOUNTS: u8 = 0;

/// A change of owners, or a time zone with midnights within hours that a subscription has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum BookingsChange {
    Owner(OwnerChange),
    /// A worker and the zone's name.
    Zone(u64, NameId),
}

impl BookingsChange {
    /// Returns the number by which it is exchanged.
    pub(crate) fn shard(&self) -> u64 {
        match self {
            Self::Owner(change) => change.0.0.shard(),
            Self::Zone(worker, _) => *worker,
        }
    }
}

/// A subscription in a window: (subscription, index of the level in `usage`, start). In additions for accounts the index
/// is [`FOR_ACCOUNTS`], and the start is an hour, or a midnight within an hour, of which it is the rest.
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
    counted_for: CountedFor,
    /// The zones of subscriptions that have midnights within hours.
    zones: BTreeMap<NameId, Calendar>,
    /// By midnight and key, what was booked of the rest of the midnight's hour.
    rests: BTreeMap<EventTime, HashMap<KeyId, CompactTotals>>,
    /// The midnights within the hour that was booked last.
    midnights: (EventTime, Midnights),
    /// The bookings that wait to be sent on.
    pending: Sums,
    /// The sums of hours that the last tick evicted.
    evicted: Sums,
    /// The subscriptions of the keys of one hour: derived from `booked_to`.
    hour_cache: HourCache,
    /// True if rows were restored and aren't in the collection downstream yet.
    restored: bool,
}

/// The subscription by hour and key. A key without an owner isn't booked.
type BookedTo = BTreeMap<EventTime, HashMap<KeyId, NameId>>;

/// The subscriptions for which a key counts, by (level, start) of days and months, and key.
type CountedFor = BTreeMap<(u8, EventTime), HashMap<KeyId, Parties>>;

/// The sums of bookings by subscription and window.
type Sums = HashMap<SubscriptionWindow, Booked>;

/// The subscriptions to which the hours of a key's day or month are booked, each with the number of these hours. Nearly
/// all keys have one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Parties {
    One { hours: u32, subscription: NameId },
    Several(Box<SmallVec<[(NameId, u32); 4]>>),
}

const _: () = assert!(size_of::<Parties>() == 16);

/// Is set in a number of hours once a call was booked to the day or the month alone, which is never taken back.
const WITHOUT_HOUR: u32 = 1 << 31;

impl Parties {
    fn entries(&self) -> Vec<(NameId, u32)> {
        match self {
            Self::One { hours, subscription } => vec![(*subscription, *hours)],
            Self::Several(parties) => parties.to_vec(),
        }
    }

    /// Returns the number of hours of a subscription, which is to be changed.
    fn hours(&mut self, of: NameId) -> &mut u32 {
        if let Self::One { hours, subscription } = self
            && *subscription != of
        {
            *self = Self::Several(Box::new(smallvec![(*subscription, *hours)]));
        }
        match self {
            Self::One { hours, .. } => hours,
            Self::Several(parties) => {
                let index = parties.iter().position(|(party, _)| *party == of).unwrap_or_else(|| {
                    parties.push((of, 0));
                    parties.len() - 1
                });
                &mut parties[index].1
            }
        }
    }

    fn owned_bytes(&self) -> usize {
        match self {
            Self::One { .. } => 0,
            Self::Several(parties) => size_of_val(&**parties) + spilled(parties),
        }
    }

    /// Forgets subscriptions without hours. Returns false if none is left.
    fn tidy(&mut self) -> bool {
        match self {
            Self::One { hours, .. } => *hours > 0,
            Self::Several(parties) => {
                parties.retain(|(_, hours)| *hours > 0);
                if let [(subscription, hours)] = parties[..] {
                    *self = Self::One { hours, subscription };
                    return true;
                }
                !parties.is_empty()
            }
        }
    }
}

/// Caches the subscriptions of keys of one hour. Most bookings are of keys that were booked in the same hour already. They
/// take one look-up and one sum instead of four.
#[derive(Default)]
struct HourCache {
    hour: EventTime,
    /// [`NameId::NONE`] stands for none.
    subscriptions: HashMap<KeyId, NameId>,
    sums: HashMap<NameId, Totals>,
}

impl HourCache {
    /// Adds a booking of `hour`, and returns true if the key's subscription is known.
    fn book(&mut self, hour: EventTime, key: KeyId, usage: &Totals) -> bool {
        let subscription = if hour == self.hour { self.subscriptions.get(&key) } else { None };
        subscription.is_some_and(|subscription| {
            if subscription.is_some() {
                self.sums.entry(*subscription).or_default().add(usage);
            }
            true
        })
    }

    /// Remembers a key's subscription, if `hour` is the latest so far.
    fn learn(&mut self, hour: EventTime, key: KeyId, subscription: NameId, pending: &mut Sums) {
        if hour > self.hour {
            self.forget(pending);
            self.hour = hour;
        }
        if hour == self.hour {
            self.subscriptions.insert(key, subscription);
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
        let hour = self.hour;
        self.sums.iter().map(move |(party, usage)| ((*party, HOURS, hour), Booked { usage: *usage, keys: 0 }))
    }
}

fn add(sums: &mut Sums, window: SubscriptionWindow, booked: &Booked, take_back: bool) {
    let mut booked = *booked;
    if take_back {
        booked.negate();
    }
    sums.entry(window).or_default().plus_equals(&booked);
}

/// Returns the levels above hours, each with its index in `usage`.
fn coarser() -> impl Iterator<Item = (u8, Level)> {
    (0..).zip(ByKeyMetric::LEVELS.iter().copied()).filter(|(index, _)| *index > HOURS)
}

/// Counts a key of a window for a subscription, which has so many more hours of it.
fn count_key(
    (counted_for, pending): (&mut CountedFor, &mut Sums),
    (subscription, index, start): SubscriptionWindow,
    key: KeyId,
    count: impl FnOnce(&mut u32),
) {
    let of_window = counted_for.entry((index, start)).or_default();
    let parties = of_window.entry(key).or_insert(Parties::One { hours: 0, subscription });
    let hours = parties.hours(subscription);
    let had = *hours > 0;
    count(hours);
    let has = *hours > 0;
    if !has && !parties.tidy() {
        of_window.remove(&key);
    }
    if had != has {
        add(pending, (subscription, index, start), &Booked { usage: Totals::default(), keys: 1 }, had);
    }
}

impl Bookings {
    pub(crate) fn new(settings: MetricSettings) -> Self {
        Self {
            windowed: Windowed::new(settings),
            booked_to: BTreeMap::new(),
            counted_for: BTreeMap::new(),
            zones: BTreeMap::new(),
            rests: BTreeMap::new(),
            midnights: (EventTime::MAX, Midnights::new()),
            pending: Sums::new(),
            evicted: Sums::new(),
            hour_cache: HourCache::default(),
            restored: false,
        }
    }

    pub(crate) fn book_and_publish(
        state: &mut Self,
        events: Vec<Rc<Vec<AccessEvent>>>,
        changes: Vec<Vec<BookingsChange>>,
        closing: Closing<'_, Booking>,
    ) {
        let info = closing.info;
        let mut sent_on = Sums::new();
        let mut owners = Vec::new();
        for change in changes.into_iter().flatten() {
            match change {
                BookingsChange::Owner(change) => owners.push(change),
                BookingsChange::Zone(_, zone) => state.learn_zone(zone),
            }
        }
        state.midnights.0 = EventTime::MAX;
        // STEP 1: after a restore every hour is booked again; hours that the last tick evicted are taken out.
        if std::mem::take(&mut state.restored) {
            state.book_again(&mut sent_on);
        }
        for (window, booked) in state.evicted.drain() {
            add(&mut sent_on, window, &booked, true);
        }

        // STEP 2: owners change before usage is booked to them.
        let changed = state.windowed.change_context(owners);
        state.re_attribute(&changed);

        // STEP 3: usage is booked once its minute is closed. `windowed` can't be asked for owners while it adds, so
        // additions are collected first.
        let mut additions: Vec<(usize, EventTime, KeyId, CompactTotals)> = Vec::new();
        let mut collect = |level: usize, time: EventTime, key: &KeyId, counted: &CompactTotals| {
            additions.push((level, time, *key, counted.clone()));
        };
        state.windowed.add_events(events.iter().map(|batch| batch.as_slice()), info, &mut collect);
        state.windowed.close_windows(info, &mut collect);
        for (level, time, key, counted) in additions {
            state.book(level, time, key, counted.totals());
        }

        // STEP 4: bookings are sent on when minutes closed, which brings nearly all of them. A window is evicted when the
        // watermark enters another hour, and its last bookings must be sent by then. If only last rows are published,
        // that is soon enough.
        let level = if state.windowed.is_live() { Level::Minute } else { Level::Hour };
        if info.last || level.start(info.watermark) > level.start(info.watermark_before) {
            state.hour_cache.forget(&mut state.pending);
            for (window, booked) in state.pending.drain() {
                add(&mut sent_on, window, &booked, false);
            }
        }

        // STEP 5: rows of evicted windows have the usage that was booked, so their bookings are kept before they go.
        let unbilled_calls = state.evict(info.watermark);
        if unbilled_calls > 0 {
            closing.output.counts(info.tick, Counts { unbilled_calls, ..Counts::default() });
        }
        state.windowed.publish(info, closing.output);

        let mut updates: Vec<Booking> =
            sent_on.into_iter().map(|(window, booked)| (window, info.tick, booked)).collect();
        updates.retain(|(_, _, booked)| !booked.is_zero());
        closing.downstream.push(updates);
    }

    /// Books what was added at a level. `time` is that of the calls, at least to the hour.
    fn book(&mut self, level: usize, time: EventTime, key: KeyId, usage: Totals) {
        let hour = Level::Hour.start(time);
        let has_hour = level <= usize::from(HOURS);
        self.book_rest(has_hour, time, key, &usage);
        if has_hour && self.hour_cache.book(hour, key, &usage) {
            return;
        }
        let Self { windowed, booked_to, counted_for, pending, hour_cache, .. } = self;
        if !windowed.context.knows(key) {
            return;
        }
        let booked = Booked { usage, keys: 0 };
        if !has_hour {
            let subscription = windowed.context.at(key, hour).subscription;
            if subscription.is_some() {
                add(pending, (subscription, FOR_ACCOUNTS, hour), &booked, false);
            }
            for (index, level) in
                coarser().filter(|(index, _)| subscription.is_some() && usize::from(*index) >= level)
            {
                let window = (subscription, index, level.start(time));
                add(pending, window, &booked, false);
                count_key((counted_for, pending), window, key, |hours| *hours |= WITHOUT_HOUR);
            }
            return;
        }
        let of_hour = booked_to.entry(hour).or_default();
        let known = of_hour.get(&key).copied();
        let subscription = known.unwrap_or_else(|| windowed.context.at(key, hour).subscription);
        if subscription.is_some() {
            add(pending, (subscription, HOURS, hour), &booked, false);
            if known.is_none() {
                of_hour.insert(key, subscription);
                Self::count_hour(counted_for, pending, (subscription, hour), key, false);
            }
        }
        hour_cache.learn(hour, key, subscription, pending);
    }

    fn learn_zone(&mut self, zone: NameId) {
        self.zones.entry(zone).or_insert_with(|| calendar(zone));
    }

    /// Books the rest of an hour from a midnight within it on, if the time is in one.
    fn book_rest(&mut self, has_hour: bool, time: EventTime, key: KeyId, usage: &Totals) {
        let hour = Level::Hour.start(time);
        if self.midnights.0 != hour {
            self.midnights = (hour, midnights_within(self.zones.values(), hour));
        }
        for midnight in self.midnights.1.clone().into_iter().filter(|midnight| *midnight <= time) {
            if has_hour {
                let rest = self.rests.entry(midnight).or_default().entry(key).or_default();
                let mut sum = rest.totals();
                sum.add(usage);
                *rest = sum.into();
            }
            let known = self.booked_to.get(&hour).and_then(|keys| keys.get(&key)).copied();
            let subscription = known.unwrap_or_else(|| self.windowed.context.at(key, hour).subscription);
            if subscription.is_some() {
                let booked = Booked { usage: *usage, keys: 0 };
                add(&mut self.pending, (subscription, FOR_ACCOUNTS, midnight), &booked, false);
            }
        }
    }

    /// Counts a key for a subscription that has an hour of it, or has it no more.
    fn count_hour(
        counted_for: &mut CountedFor,
        pending: &mut Sums,
        (subscription, hour): (NameId, EventTime),
        key: KeyId,
        take_back: bool,
    ) {
        let one = Booked { usage: Totals::default(), keys: 1 };
        add(pending, (subscription, HOURS, hour), &one, take_back);
        for (index, level) in coarser() {
            count_key((counted_for, pending), (subscription, index, level.start(hour)), key, |hours| {
                *hours = if take_back { hours.saturating_sub(1) } else { *hours + 1 };
            });
        }
    }

    /// Moves the bookings of hours that are evicted at `watermark` to those that the next tick takes out, and forgets days
    /// and months that are evicted. Returns the number of the hours' calls that nobody was booked for, without free ones.
    fn evict(&mut self, watermark: EventTime) -> u64 {
        let Self { windowed, booked_to, counted_for, evicted, rests, .. } = self;
        let held_from = Level::Hour.held_from(watermark);
        *rests = rests.split_off(&held_from);
        let mut unbilled = Totals::default();
        let hours = windowed.starts(usize::from(HOURS)).into_iter().filter(|hour| *hour < held_from);
        for hour in hours {
            let booked = booked_to.get(&hour);
            windowed.for_each_own(usize::from(HOURS), hour, |key, counted| {
                if booked.is_none_or(|booked| !booked.contains_key(&key)) {
                    unbilled.add(&counted.totals());
                }
            });
        }
        let held = booked_to.split_off(&held_from);
        for (hour, keys) in std::mem::replace(booked_to, held) {
            for (key, subscription) in keys {
                let booked = booked_of(windowed, hour, &key).unwrap_or_default();
                add(evicted, (subscription, HOURS, hour), &booked, false);
            }
        }
        counted_for.retain(|(index, start), _| {
            *start >= ByKeyMetric::LEVELS[usize::from(*index)].held_from(watermark)
        });
        let Usage { calls, free_calls, .. } = unbilled.usage();
        calls.saturating_sub(free_calls)
    }

    /// Books again every hour that was sent on before a restore, as if for the first time.
    fn book_again(&self, sums: &mut Sums) {
        for (window, booked) in self.pending.iter().filter(|(window, _)| window.1 == HOURS) {
            add(sums, *window, booked, true);
        }
        for (hour, keys) in &self.booked_to {
            for (key, subscription) in keys {
                let booked = booked_of(&self.windowed, *hour, key).unwrap_or_default();
                add(sums, (*subscription, HOURS, *hour), &booked, false);
            }
        }
    }

    /// Books the held hours of keys whose owners changed to their new owners.
    fn re_attribute(&mut self, changed: &[KeyId]) {
        if changed.is_empty() {
            return;
        }
        let Self { windowed, booked_to, counted_for, pending, hour_cache, zones, rests, .. } = self;
        hour_cache.forget(pending);
        for hour in windowed.starts(usize::from(HOURS)) {
            for key in changed {
                let Some(booked) = booked_of(windowed, hour, key) else { continue };
                let now = windowed.context.at(*key, hour).subscription;
                let of_hour = booked_to.entry(hour).or_default();
                let before = if now.is_some() { of_hour.insert(*key, now) } else { of_hour.remove(key) };
                if before == Some(now) {
                    continue;
                }
                let usage = Booked { keys: 0, ..booked };
                let midnights = midnights_within(zones.values(), hour);
                for (party, take_back) in
                    before.map(|before| (before, true)).into_iter().chain([(now, false)])
                {
                    if party.is_some() {
                        add(pending, (party, HOURS, hour), &usage, take_back);
                        for midnight in &midnights {
                            let rest = rests.get(midnight).and_then(|keys| keys.get(key));
                            let rest = rest.map(CompactTotals::totals).unwrap_or_default();
                            let booked = Booked { usage: rest, keys: 0 };
                            add(pending, (party, FOR_ACCOUNTS, *midnight), &booked, take_back);
                        }
                        Self::count_hour(counted_for, pending, (party, hour), *key, take_back);
                    }
                }
            }
        }
    }
}

/// Returns what is booked of a key's hour. An hour has in its own map what its closed minutes brought, and that is booked.
fn booked_of(windowed: &Windowed<ByKeyMetric>, hour: EventTime, key: &KeyId) -> Option<Booked> {
    let usage = windowed.own(usize::from(HOURS), hour, key)?.totals();
    Some(Booked { usage, keys: 1 })
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum BookingsRow<'a> {
    Window(WindowedRow<'a, KeyId, CompactTotals, OwnedUsage, KeyId, (KeyId, EventTime, Owner)>),
    BookedTo { hour: EventTime, key: KeyId, subscription: NameId },
    CountedFor { level: u8, start: EventTime, key: KeyId, subscription: NameId, hours: u32 },
    Pending { window: SubscriptionWindow, booked: Booked },
    Zone(NameId),
    Rest { midnight: EventTime, key: KeyId, usage: CompactTotals },
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
        for (hour, keys) in &self.booked_to {
            for (key, subscription) in keys {
                out.row(BookingsRow::BookedTo { hour: *hour, key: *key, subscription: *subscription });
            }
        }
        for ((level, start), keys) in &self.counted_for {
            for (key, parties) in keys {
                for (subscription, hours) in parties.entries() {
                    out.row(BookingsRow::CountedFor {
                        level: *level,
                        start: *start,
                        key: *key,
                        subscription,
                        hours,
                    });
                }
            }
        }
        for zone in self.zones.keys() {
            out.row(BookingsRow::Zone(*zone));
        }
        for (midnight, keys) in &self.rests {
            for (key, usage) in keys {
                out.row(BookingsRow::Rest { midnight: *midnight, key: *key, usage: usage.clone() });
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
            BookingsRow::BookedTo { hour, key, subscription } => {
                self.booked_to.entry(hour).or_default().insert(key, subscription);
            }
            BookingsRow::CountedFor { level, start, key, subscription, hours } => {
                let of_window = self.counted_for.entry((level, start)).or_default();
                let parties = of_window.entry(key).or_insert(Parties::One { hours: 0, subscription });
                *parties.hours(subscription) = hours;
            }
            // Several workers may have stored one window: sums add up.
            BookingsRow::Pending { window, booked } => add(&mut self.pending, window, &booked, false),
            BookingsRow::Zone(zone) => self.learn_zone(zone),
            BookingsRow::Rest { midnight, key, usage } => {
                self.rests.entry(midnight).or_default().insert(key, usage);
            }
        }
    }

    fn shard(row: &BookingsRow<'static>) -> Shard {
        match row {
            BookingsRow::Window(row) => <Windowed<ByKeyMetric> as Durable>::shard(row),
            BookingsRow::BookedTo { key, .. } | BookingsRow::CountedFor { key, .. } => Shard::Of(key.shard()),
            BookingsRow::Pending { window, .. } => Shard::Of(window.0.0),
            BookingsRow::Zone(_) => Shard::All,
            BookingsRow::Rest { key, .. } => Shard::Of(key.shard()),
        }
    }

    fn footprint(&self) -> Footprint {
        let Self { windowed, booked_to, counted_for, rests, pending, evicted, hour_cache, .. } = self;
        let sums = [Footprint::of_map(pending), Footprint::of_map(evicted)];
        let derived = [Footprint::of_map(&hour_cache.subscriptions), Footprint::of_map(&hour_cache.sums)];
        let mut footprint: Footprint =
            booked_to.values().map(Footprint::of_map).chain(sums).chain(derived).sum();
        footprint +=
            counted_for.values().map(|keys| Footprint::of_map_with(keys, Parties::owned_bytes)).sum();
        footprint += rests.values().map(Footprint::of_map).sum();
        footprint += windowed.footprint();
        footprint
    }
}
