//! Decides under caps which keys, and which of their routes and countries, are counted apart. Events beyond a cap are
//! rewritten before any metric sees them. So the caps bound the groups of every metric.
//!
//! ```text
//!                    owners, names, decided routes
//!                                 │
//!  unique events ──by bucket──► admission ──► events by key ─────────────► metrics
//!                                 └──► those of the key `overflow` ──by bucket──┘
//! ```
//! | cap | counted apart | beyond it |
//! |---|---|---|
//! | keys, by month | those with a row in the table of keys; `limits.keys` others | the key `overflow` |
//! | routes, by day | `limits.routes` over all keys (see `routes`) | the route `overflow` |
//! | routes of a key, by day | `limits.routes_per_key` | the route `overflow` |
//! | pairs of key and route, by day | `limits.key_routes` of keys without a row | the route `overflow` |
//! | pairs of key and country, by day | `limits.key_countries` of keys without a row | the country `XX` |
//!
//! The first and the last two limits are dealt to 256 fixed buckets of keys. A bucket has room for a 256th of the
//! limit, rounded down, at least one. A bucket is on one worker. Of a tick's new ids, the lowest (they are hashes) are
//! admitted while there is room. So the result depends neither on the number
//! of workers nor on the order of arrival within a tick.
//!
//! A key that has a row takes no room, and neither do its pairs; strangers can't take its room. A row that comes late
//! counts from its tick on: calls that were counted under `overflow` stay there. An id stays admitted for the month or
//! day, also when the row goes. Calls without a key and those of `overflow` keep their routes and countries, and take
//! no room. The country `ZZ` is always admitted.
//!
//! A month is forgotten with the hold of its windows, and so is a day. The keys are swept once when one is forgotten;
//! idle keys cost nothing in between. A key takes about 130 bytes a month, and more with more than one day, two routes
//! or four countries.
//!
//! The operator emits a tick's events at the tick, in the order of their keys, and remembers the admitted ids. After a
//! restore the operators that hold owners and routes send them again.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Concat as _, Exchange as _};

use super::parts::by_key;
use super::parts::by_tick::Closing;
use super::parts::cap::CapCounts;
use super::parts::context::RowContext as _;
use super::parts::owners::{OwnerChange, Owners};
use super::parts::texts::{AdmissionStatus, StoredText, Texts};
use super::routes::{ObservedRoute, RouteDecision};
use crate::model::{AccessEvent, Country, Definition, EventTime, Forgotten, KeyId, RouteId, Tick};
use crate::row::{Admitted, Counts, Output};
use crate::state::{Durable, Footprint, KeyChain, NeededKeys, PartId, RowsOut, Shard, StateId, spilled};
use crate::window::Level;

/// An input of the operator beside events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum AdmissionChange {
    Owner(OwnerChange),
    /// The string of a key whose id is a name.
    Named(Definition),
    /// A decision about a route, for the worker with this index.
    Route(u64, RouteDecision),
}

impl AdmissionChange {
    /// Returns the number of the shard that it belongs to.
    pub(crate) fn shard(&self) -> u64 {
        match self {
            Self::Owner(change) => change.0.0.shard(),
            Self::Named(Definition::Key { id, .. }) => id.shard(),
            Self::Named(_) => 0,
            Self::Route(worker, _) => *worker,
        }
    }
}

/// The months, routes and countries that a key was admitted to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct KeyAdmissions {
    months: SmallVec<[EventTime; 2]>,
    /// The days, in no particular order.
    days: SmallVec<[DayAdmissions; 1]>,
}

/// The routes and countries of a key on a day, in ascending order.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct DayAdmissions {
    day: EventTime,
    routes: SmallVec<[RouteId; 2]>,
    countries: SmallVec<[Country; 4]>,
}

impl KeyAdmissions {
    fn day(&self, day: EventTime) -> Option<&DayAdmissions> {
        self.days.iter().rev().find(|of_day| of_day.day == day)
    }

    fn day_mut(&mut self, day: EventTime) -> &mut DayAdmissions {
        let index = self.days.iter().position(|of_day| of_day.day == day).unwrap_or_else(|| {
            self.days.push(DayAdmissions { day, routes: SmallVec::new(), countries: SmallVec::new() });
            self.days.len() - 1
        });
        &mut self.days[index]
    }

    fn row(&self, key: KeyId) -> AdmissionRow {
        let day = |of_day: &DayAdmissions| (of_day.day, of_day.routes.to_vec(), of_day.countries.to_vec());
        AdmissionRow::Key(key, self.months.to_vec(), self.days.iter().map(day).collect())
    }

    fn owned_bytes(&self) -> usize {
        let of_days = self.days.iter().map(|of_day| spilled(&of_day.routes) + spilled(&of_day.countries));
        spilled(&self.months) + spilled(&self.days) + of_days.sum::<usize>()
    }
}

impl DayAdmissions {
    fn has_route(&self, route: RouteId) -> bool {
        is_bucket(route) || self.routes.binary_search(&route).is_ok()
    }

    fn has_country(&self, country: Country) -> bool {
        is_no_country(country) || self.countries.binary_search(&country).is_ok()
    }
}

fn is_bucket(route: RouteId) -> bool {
    route == RouteId::OVERFLOW
}

fn is_no_country(country: Country) -> bool {
    country == Country::UNKNOWN || country == Country::OTHER
}

fn insert<T: Ord + Copy, const N: usize>(list: &mut SmallVec<[T; N]>, value: T)
where
    [T; N]: smallvec::Array<Item = T>,
{
    if let Err(index) = list.binary_search(&value) {
        list.insert(index, value);
    }
}

/// Finds the month of one time after the other. Most times are of the month before.
#[derive(Default)]
struct Months {
    start: EventTime,
    end: EventTime,
}

impl Months {
    #[inline]
    fn of(&mut self, time: EventTime) -> EventTime {
        if !(self.start..self.end).contains(&time) {
            self.start = Level::Month.start(time);
            self.end = Level::Month.end(self.start);
        }
        self.start
    }
}

/// The rooms of buckets, and the limit of routes of one key.
#[derive(Clone, Copy)]
struct Caps {
    keys: usize,
    key_routes: usize,
    routes_per_key: usize,
    key_countries: usize,
}

/// The caps that keep a count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum CapKind {
    Keys,
    KeyRoutes,
    KeyCountries,
}

/// The keys that were admitted, on the worker that has their buckets.
pub(crate) struct Admission {
    caps: Caps,
    keys: HashMap<KeyId, KeyAdmissions>,
    /// The keys whose admissions or names changed.
    chain: KeyChain<KeyId>,
    /// The counts against the caps, without keys that have a row, and without their pairs.
    counted_keys: CapCounts,
    counted_routes: CapCounts,
    counted_countries: CapCounts,
    names: Texts<KeyId>,
    /// The keys that have a row in the table of keys: derived from the assignments.
    owners: Owners,
    /// The routes that are admitted: derived from the state of `routes`.
    routes: BTreeMap<EventTime, HashSet<RouteId>>,
    /// True if names were restored and have to be published again.
    restored: bool,
}

/// The batch of an event, and its index in the batch.
type EventIndex = (usize, usize);

impl Admission {
    pub(crate) fn new(limits: &keytide_config::Limits) -> Self {
        let keys = CapCounts::room(limits.keys);
        Self {
            caps: Caps {
                keys,
                key_routes: CapCounts::room(limits.key_routes),
                routes_per_key: limits.routes_per_key,
                key_countries: CapCounts::room(limits.key_countries),
            },
            keys: HashMap::new(),
            chain: KeyChain::new(),
            counted_keys: CapCounts::default(),
            counted_routes: CapCounts::default(),
            counted_countries: CapCounts::default(),
            names: Texts::new(keys),
            owners: Owners::default(),
            routes: BTreeMap::new(),
            restored: false,
        }
    }

    /// Rewrites events beyond a cap, and puts the events in the order of their keys. A batch has events of the key
    /// `overflow` alone, or none of them.
    pub(crate) fn admit_and_rewrite(
        state: &mut Self,
        mut batches: Vec<Vec<AccessEvent>>,
        changes: Vec<Vec<AdmissionChange>>,
        closing: Closing<'_, AccessEvent>,
    ) {
        let info = closing.info;
        let held_from = Level::Day.held_from(info.watermark_before);
        state.learn(changes, info.tick, Level::Month.held_from(info.watermark_before), closing.output);
        // Most events are covered by earlier ticks; the others, in the order of their keys, are decided now.
        let order = by_key::order(&batches, info);
        let unsettled = state.unsettled(&batches, &order, held_from);
        if !unsettled.is_empty() {
            state.admit_keys(&batches, &unsettled, info.tick, closing.output);
            state.admit_pairs(&batches, &unsettled, held_from);
            let counts = state.rewrite(&mut batches, &unsettled, held_from);
            if counts != Counts::default() {
                closing.output.counts(info.tick, counts);
            }
        }
        by_key::gather(&batches, &order, closing.downstream);

        state.forget(info.watermark_before, info.watermark);
        // A key needs its name if it has a row or was admitted, or while its month still has room.
        let Self { caps, keys, names, owners, counted_keys, chain, .. } = state;
        let months_from = Level::Month.held_from(info.watermark);
        let forgotten = names.end_tick(|key, month| {
            owners.has_row(*key)
                || keys.get(key).is_some_and(|of_key| !of_key.months.is_empty())
                || (month >= months_from && counted_keys.has_room(month, key.bucket(), caps.keys))
        });
        if names.ticks() == 0 {
            // A sweep changes any of them.
            chain.mark_all();
        }
        if !forgotten.is_empty() {
            closing.output.forget(info.tick, forgotten.into_iter().map(Forgotten::Key).collect());
        }
        let day = Level::Day.start(info.watermark);
        let admitted = Admitted {
            keys: state.counted_keys.of(Level::Month.start(info.watermark)),
            routes: 0,
            key_routes: state.counted_routes.of(day),
            key_countries: state.counted_countries.of(day),
        };
        closing.output.admitted(info.tick, admitted);
    }

    /// Takes in owners, names and routes, as of this tick.
    fn learn(
        &mut self,
        changes: Vec<Vec<AdmissionChange>>,
        tick: Tick,
        months_from: EventTime,
        output: &mut dyn Output,
    ) {
        let mut owners = Vec::new();
        let mut names = Vec::new();
        let (mut defined, mut forgotten) = (Vec::new(), Vec::new());
        if std::mem::take(&mut self.restored) {
            defined.extend(self.names.published().cloned());
        }
        for change in changes.into_iter().flatten() {
            match change {
                AdmissionChange::Owner(change) => owners.push(change),
                AdmissionChange::Named(name) => names.push(name),
                AdmissionChange::Route(_, RouteDecision::Admit(ObservedRoute { day, route })) => {
                    self.routes.entry(day).or_default().insert(route);
                }
                AdmissionChange::Route(_, RouteDecision::Define(definition)) => defined.push(definition),
                AdmissionChange::Route(_, RouteDecision::Forget(route)) => {
                    forgotten.push(Forgotten::Route(route))
                }
            }
        }
        self.owners.apply(owners, false);
        for definition in names {
            let Definition::Key { id, month, .. } = definition else { continue };
            let period = month.unwrap_or(0);
            let has_month = |month| self.keys.get(&id).is_some_and(|of_key| of_key.months.contains(&month));
            let status = match month {
                // Tables are made by the operator of the job, so their names take no room.
                None => AdmissionStatus::Admitted,
                Some(month) if has_month(month) => AdmissionStatus::Admitted,
                Some(month) if month < months_from => AdmissionStatus::Closed,
                Some(_) if self.owners.has_row(id) => AdmissionStatus::Open,
                Some(month) if self.counted_keys.has_room(month, id.bucket(), self.caps.keys) => {
                    AdmissionStatus::Open
                }
                Some(_) => AdmissionStatus::Closed,
            };
            let announced = self.names.announce(id, definition, period, status);
            defined.extend(announced.publishes);
            match announced.dropped {
                Some(_) => self.chain.mark_all(),
                None if announced.is_changed => self.mark(id),
                None => {}
            }
        }
        if !defined.is_empty() {
            output.define(tick, defined);
        }
        if !forgotten.is_empty() {
            output.forget(tick, forgotten);
        }
    }

    /// Returns the events that earlier admissions don't cover.
    fn unsettled(
        &self,
        batches: &[Vec<AccessEvent>],
        order: &[u128],
        held_from: EventTime,
    ) -> Vec<EventIndex> {
        let mut unsettled = Vec::new();
        let mut months = Months::default();
        let (mut key, mut of_key) = (KeyId::ANONYMOUS, None);
        // The last event that was covered; events like it are, too.
        let mut last = None;
        for entry in order {
            let (b, i) = by_key::event_index(*entry);
            let event = &batches[b][i];
            let (month, day) = (months.of(event.time), Level::Day.start(event.time));
            let this = (event.key, month, day, event.route, event.country);
            if last == Some(this) {
                continue;
            }
            let is_settled = if event.key.is_bucket() {
                day < held_from || self.has_route(day, event.route)
            } else {
                if key != event.key {
                    (key, of_key) = (event.key, self.keys.get(&event.key));
                }
                of_key.is_some_and(|of_key| {
                    of_key.months.contains(&month)
                        && (day < held_from
                            || of_key.day(day).is_some_and(|of_day| {
                                of_day.has_route(event.route) && of_day.has_country(event.country)
                            }))
                })
            };
            if is_settled {
                last = Some(this);
            } else {
                unsettled.push((b, i));
            }
        }
        unsettled
    }

    /// Returns true if a route is admitted on a day.
    fn has_route(&self, day: EventTime, route: RouteId) -> bool {
        is_bucket(route) || self.routes.get(&day).is_some_and(|routes| routes.contains(&route))
    }

    fn mark(&mut self, key: KeyId) {
        self.chain.mark(key, self.keys.len());
    }

    fn has_month(&self, key: KeyId, month: EventTime) -> bool {
        self.keys.get(&key).is_some_and(|of_key| of_key.months.contains(&month))
    }

    fn admit_keys(
        &mut self,
        batches: &[Vec<AccessEvent>],
        unsettled: &[EventIndex],
        tick: Tick,
        output: &mut dyn Output,
    ) {
        // All candidates are collected before one is admitted: the lowest ids win, not the first.
        let mut months = Months::default();
        let mut new: Vec<(EventTime, KeyId)> = Vec::new();
        for (b, i) in unsettled {
            let event = &batches[*b][*i];
            let (key, month) = (event.key, months.of(event.time));
            if !key.is_bucket()
                && new.last() != Some(&(month, key))
                && !self.has_month(key, month)
                && (self.counted_keys.has_room(month, key.bucket(), self.caps.keys)
                    || self.owners.has_row(key))
            {
                new.push((month, key));
            }
        }
        new.sort_unstable();
        new.dedup();
        let mut defined = Vec::new();
        for (month, key) in new {
            if self.owners.has_row(key) || self.counted_keys.admit(month, key.bucket(), self.caps.keys) {
                self.keys.entry(key).or_default().months.push(month);
                defined.extend(self.names.admit(key));
                self.mark(key);
            }
        }
        if !defined.is_empty() {
            output.define(tick, defined);
        }
    }

    fn admit_pairs(&mut self, batches: &[Vec<AccessEvent>], unsettled: &[EventIndex], held_from: EventTime) {
        // As with keys, all candidates are collected before one is admitted.
        let mut months = Months::default();
        let mut new_routes: Vec<(EventTime, KeyId, RouteId)> = Vec::new();
        let mut new_countries: Vec<(EventTime, KeyId, Country)> = Vec::new();
        for (b, i) in unsettled {
            let event = &batches[*b][*i];
            let (key, month, day) = (event.key, months.of(event.time), Level::Day.start(event.time));
            let Some(of_key) = self.keys.get(&key).filter(|of_key| of_key.months.contains(&month)) else {
                continue;
            };
            if key.is_bucket() || day < held_from {
                continue;
            }
            let of_day = of_key.day(day);
            let has_row = self.owners.has_row(key);
            let has_room = |counted: &CapCounts, room| has_row || counted.has_room(day, key.bucket(), room);
            if of_day.is_none_or(|of_day| {
                !of_day.has_route(event.route) && of_day.routes.len() < self.caps.routes_per_key
            }) && !is_bucket(event.route)
                && has_room(&self.counted_routes, self.caps.key_routes)
                && self.has_route(day, event.route)
            {
                new_routes.push((day, key, event.route));
            }
            if of_day.is_none_or(|of_day| !of_day.has_country(event.country))
                && !is_no_country(event.country)
                && has_room(&self.counted_countries, self.caps.key_countries)
            {
                new_countries.push((day, key, event.country));
            }
        }
        new_routes.sort_unstable();
        new_routes.dedup();
        for (day, key, route) in new_routes {
            let Some(of_key) = self.keys.get_mut(&key) else { continue };
            if of_key.day(day).is_none_or(|of_day| of_day.routes.len() < self.caps.routes_per_key)
                && (self.owners.has_row(key)
                    || self.counted_routes.admit(day, key.bucket(), self.caps.key_routes))
            {
                insert(&mut of_key.day_mut(day).routes, route);
                self.mark(key);
            }
        }
        new_countries.sort_unstable();
        new_countries.dedup();
        for (day, key, country) in new_countries {
            let Some(of_key) = self.keys.get_mut(&key) else { continue };
            if self.owners.has_row(key)
                || self.counted_countries.admit(day, key.bucket(), self.caps.key_countries)
            {
                insert(&mut of_key.day_mut(day).countries, country);
                self.mark(key);
            }
        }
    }

    /// Rewrites keys, routes and countries that weren't admitted.
    fn rewrite(
        &self,
        batches: &mut [Vec<AccessEvent>],
        unsettled: &[EventIndex],
        held_from: EventTime,
    ) -> Counts {
        let mut counts = Counts::default();
        let mut months = Months::default();
        for (b, i) in unsettled {
            let event = &mut batches[*b][*i];
            let (month, day) = (months.of(event.time), Level::Day.start(event.time));
            if !event.key.is_bucket() && !self.has_month(event.key, month) {
                event.key = KeyId::OVERFLOW;
                counts.overflow_keys += 1;
            }
            // No held window has routes or countries of such a day.
            if day < held_from {
                continue;
            }
            let (has_route, has_country) = if event.key.is_bucket() {
                (self.has_route(day, event.route), true)
            } else {
                let of_day = self.keys.get(&event.key).and_then(|of_key| of_key.day(day));
                (
                    is_bucket(event.route) || of_day.is_some_and(|of_day| of_day.has_route(event.route)),
                    is_no_country(event.country)
                        || of_day.is_some_and(|of_day| of_day.has_country(event.country)),
                )
            };
            if !has_route {
                event.route = RouteId::OVERFLOW;
                counts.overflow_routes += 1;
            }
            if !has_country {
                event.country = Country::OTHER;
                counts.overflow_countries += 1;
            }
        }
        counts
    }

    /// Forgets months and days whose windows are no longer held.
    fn forget(&mut self, before: EventTime, watermark: EventTime) {
        let (month, day) = (Level::Month.held_from(watermark), Level::Day.held_from(watermark));
        if day == Level::Day.held_from(before) && month == Level::Month.held_from(before) {
            return;
        }
        self.chain.mark_all();
        self.keys.retain(|_, of_key| {
            of_key.months.retain(|start| *start >= month);
            of_key.days.retain(|of_day| of_day.day >= day);
            !(of_key.months.is_empty() && of_key.days.is_empty())
        });
        self.counted_keys.forget_before(month);
        self.counted_routes.forget_before(day);
        self.counted_countries.forget_before(day);
        self.routes = self.routes.split_off(&day);
    }

    fn counted(&mut self, kind: CapKind) -> &mut CapCounts {
        match kind {
            CapKind::Keys => &mut self.counted_keys,
            CapKind::KeyRoutes => &mut self.counted_routes,
            CapKind::KeyCountries => &mut self.counted_countries,
        }
    }
}

/// Sends the events of the key `overflow` to the worker of its bucket. They are on the workers of the keys that they
/// were of. All other events stay, and their batches aren't looked into.
pub(crate) fn exchange_overflow<'scope>(
    events: StreamVec<'scope, Tick, AccessEvent>,
) -> StreamVec<'scope, Tick, AccessEvent> {
    let mut builder = OperatorBuilder::new("Overflow".to_owned(), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (stay_output, stay) = builder.new_output();
    let (go_output, go) = builder.new_output();
    builder.build(move |_capabilities| {
        let mut stay_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(stay_output);
        let mut go_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<_>>>::from(go_output);
        move |_frontiers| {
            let (mut stay_output, mut go_output) = (stay_output.activate(), go_output.activate());
            input.for_each_time(|capability, batches| {
                let mut stay = stay_output.session(&capability);
                let mut go = go_output.session(&capability);
                for batch in batches {
                    if batch.first().is_some_and(|event: &AccessEvent| event.key == KeyId::OVERFLOW) {
                        go.give_container(batch);
                    } else {
                        stay.give_container(batch);
                    }
                }
            });
        }
    });
    stay.concat(go.exchange(|event| event.key.shard()))
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum AdmissionRow {
    Key(KeyId, Vec<EventTime>, Vec<(EventTime, Vec<RouteId>, Vec<Country>)>),
    Counted(StoredCount),
    Name(KeyId, StoredText),
    Clock(u32),
}

/// The number of ids that were admitted of a bucket.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredCount {
    kind: CapKind,
    period: EventTime,
    bucket: u8,
    count: u32,
}

impl Durable for Admission {
    const ID: StateId = StateId::Admission;
    type Row<'a> = AdmissionRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        let Self { chain, keys, names, .. } = self;
        match chain.begin(out, keys.len()) {
            NeededKeys::All => {
                keys.iter().for_each(|(key, of_key)| out.row(of_key.row(*key)));
                names.rows().for_each(|(key, text)| out.row(AdmissionRow::Name(*key, text.clone())));
            }
            NeededKeys::These(changed) => {
                for key in changed {
                    if let Some(of_key) = keys.get(&key) {
                        out.row(of_key.row(key));
                    }
                    if let Some(text) = names.get(&key) {
                        out.row(AdmissionRow::Name(key, text.clone()));
                    }
                }
            }
        }
        out.part(PartId::Rest, 0);
        let counted = [
            (CapKind::Keys, &self.counted_keys),
            (CapKind::KeyRoutes, &self.counted_routes),
            (CapKind::KeyCountries, &self.counted_countries),
        ];
        for (kind, counted) in counted {
            for (period, bucket, count) in counted.entries() {
                out.row(AdmissionRow::Counted(StoredCount { kind, period, bucket, count }));
            }
        }
        out.row(AdmissionRow::Clock(self.names.ticks()));
    }

    fn expect_rows(&mut self, part: PartId, rows: usize) {
        self.chain.expect(part, rows);
    }

    fn row_in(&mut self, row: AdmissionRow) {
        self.restored = true;
        match row {
            AdmissionRow::Key(key, months, days) => {
                let days = days.into_iter().map(|(day, routes, countries)| DayAdmissions {
                    day,
                    routes: routes.into(),
                    countries: countries.into(),
                });
                self.keys.insert(key, KeyAdmissions { months: months.into(), days: days.collect() });
            }
            AdmissionRow::Counted(StoredCount { kind, period, bucket, count }) => {
                self.counted(kind).add(period, bucket, count);
            }
            AdmissionRow::Name(key, text) => self.names.insert(key, text),
            AdmissionRow::Clock(ticks) => self.names.set_ticks(ticks),
        }
    }

    fn shard(row: &AdmissionRow) -> Shard {
        match row {
            AdmissionRow::Key(key, ..) | AdmissionRow::Name(key, _) => Shard::Of(key.shard()),
            AdmissionRow::Counted(stored) => Shard::Of(stored.bucket.into()),
            AdmissionRow::Clock(_) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let counted = [&self.counted_keys, &self.counted_routes, &self.counted_countries];
        let mut footprint: Footprint = counted.into_iter().map(CapCounts::footprint).sum();
        footprint += Footprint::of_map_with(&self.keys, KeyAdmissions::owned_bytes);
        footprint += self.names.footprint();
        // Owners and routes take memory, but their rows belong to other states.
        footprint.bytes += self.owners.footprint().bytes + self.chain.bytes();
        footprint.bytes += self.routes.values().map(|routes| Footprint::of_set(routes).bytes).sum::<u64>();
        footprint
    }
}
