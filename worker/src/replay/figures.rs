//! Sums up the rows of a bounded run for people: who calls most, which routes are slow, how long the log is.
//!
//! Rows come in the order in which a view's file has them, so all rows of a key or route come one after the other.
//! One pass over each view therefore needs the sums of one key, and the best [`BUSIEST`] or [`SLOWEST`] so far.
//! Memory doesn't grow with the number of keys. `usage` comes first: the other views are read for its ten keys only.
//!
//! * Calls, errors and keys are exact: they are sums of the windows of a month, which count every counted call.
//! * Percentiles and callers can't be added up, so each is of one day: that with most calls, or with most callers.
//! * Countries are those of all days.

use std::cmp::Reverse;

use keytide_dataflow::model::time::DAY_MS;
use keytide_dataflow::model::{Country, EventTime, KeyId, NameId, Owner, RouteId};
use keytide_dataflow::*;

/// Keys that are listed, at most.
const BUSIEST: usize = 10;
/// Routes that are listed, at most.
const SLOWEST: usize = 5;
/// Calls of a route in its busiest day from which on its p99 is compared with that of others.
const COMPARED_CALLS: u64 = 100;
/// The history after which the detector judges a key by its habits.
pub const JUDGED_AFTER_MS: u64 = DAY_MS;

/// A value of one day, and the number of days that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfDay<V> {
    /// Start of the day in UTC.
    pub start_ms: EventTime,
    pub value: V,
    pub days: u64,
}

impl<V: Copy> OfDay<V> {
    /// Takes in another day, which replaces this one if `greater` says so.
    fn take(best: &mut Option<Self>, start_ms: EventTime, value: V, greater: impl Fn(&V, &V) -> bool) {
        let days = best.map_or(0, |best| best.days) + 1;
        match best {
            Some(best) if !greater(&value, &best.value) => best.days = days,
            _ => *best = Some(Self { start_ms, value, days }),
        }
    }
}

/// A key with its calls in the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyKey {
    pub key: KeyId,
    /// The owner in the newest day.
    pub owner: Owner,
    pub usage: Usage,
    /// Of the day with most calls; `None` if no latency is known.
    pub latency: Option<OfDay<Latency>>,
    /// Known countries, in the order of their codes, without `ZZ`. `XX` stands for more.
    pub countries: Vec<Country>,
    /// Of the day with most callers; `None` if no address is known.
    pub callers: Option<OfDay<Callers>>,
}

/// A route with its latencies over all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRoute {
    pub route: RouteId,
    /// Calls of all days whose latency is known.
    pub calls: u64,
    /// Of the day with most calls.
    pub latency: OfDay<Latency>,
}

/// The sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The sum over all keys and buckets.
    pub usage: Usage,
    /// Keys that called, without buckets.
    pub keys: u64,
    /// Calls of the buckets, by their place in [`KeyId::BUCKETS`].
    pub buckets: [u64; KeyId::BUCKETS.len()],
    /// Keys without a subscription in any day, and their calls.
    pub unowned_keys: u64,
    pub unowned_calls: u64,
    /// Keys whose first and last call lie less than [`JUDGED_AFTER_MS`] apart.
    pub young_keys: u64,
    /// Start of the first minute with a call and end of the last one; `None` without calls.
    pub span_ms: Option<(EventTime, EventTime)>,
    /// Most calls first; of equal keys the first by its text.
    pub busiest: Vec<BusyKey>,
    /// The route with the highest p99 comes first.
    pub slowest: Vec<SlowRoute>,
}

/// A span that grows by the windows with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallSpan(Option<(EventTime, EventTime)>);

impl CallSpan {
    pub(super) fn add(&mut self, start: EventTime, end: EventTime) {
        let (first, last) = self.0.unwrap_or((start, end));
        self.0 = Some((first.min(start), last.max(end)));
    }

    pub(super) fn merge(&mut self, other: Self) {
        if let Some((start, end)) = other.0 {
            self.add(start, end);
        }
    }

    pub(super) fn get(self) -> Option<(EventTime, EventTime)> {
        self.0
    }

    /// Returns whether the detector could never judge a key with these calls.
    pub(super) fn is_young(self) -> bool {
        self.0.is_some_and(|(first, last)| last - first < JUDGED_AFTER_MS)
    }
}

/// The rows of `usage` of the key that is being read.
#[derive(Debug)]
struct OpenKey {
    key: KeyId,
    usage: Usage,
    span: CallSpan,
    owner: Owner,
    owner_of: EventTime,
    is_owned: bool,
}

/// Sums up rows as they come.
#[derive(Debug, Default)]
pub(super) struct FigureSums {
    figures: Figures,
    /// By minutes, which a late call may have no longer, and by coarser windows.
    spans: [CallSpan; 3],
    open_key: Option<OpenKey>,
    open_route: Option<(RouteId, u64, Option<OfDay<Latency>>)>,
    /// Routes with few calls, which are listed if there are no others.
    rare: Vec<SlowRoute>,
}

impl FigureSums {
    /// Ends a view: what is open is complete.
    pub(super) fn end_view(&mut self) {
        self.close_key();
        self.close_route();
    }

    /// Returns the sums over all views.
    pub(super) fn finish(mut self) -> Figures {
        self.end_view();
        let [mut whole, hours, days] = self.spans;
        // A coarser window counts only where it lies outside of the finer ones: its own bounds are rough.
        for (coarser, level) in [(hours, Level::Hour), (days, Level::Day)] {
            let Some((start, end)) = coarser.get() else { continue };
            let (first, last) = whole.get().unwrap_or((start, end));
            let is_before = level.end(start) <= first;
            let is_after = level.start(end - 1) >= last;
            whole.add(if is_before { start } else { first }, if is_after { end } else { last });
        }
        self.figures.span_ms = whole.get();
        if self.figures.slowest.is_empty() {
            self.figures.slowest = self.rare;
        }
        self.figures
    }

    fn close_key(&mut self) {
        let Some(open) = self.open_key.take() else { return };
        let OpenKey { key, usage, span, owner, owner_of: _, is_owned } = open;
        let figures = &mut self.figures;
        figures.usage += usage;
        if let Some(bucket) = KeyId::BUCKETS.iter().position(|bucket| *bucket == key) {
            figures.buckets[bucket] += usage.calls;
            return;
        }
        figures.keys += 1;
        figures.young_keys += u64::from(span.is_young());
        if !is_owned {
            figures.unowned_keys += 1;
            figures.unowned_calls += usage.calls;
        }
        let busy = BusyKey { key, owner, usage, latency: None, countries: Vec::new(), callers: None };
        insert(&mut figures.busiest, busy, BUSIEST, |busy| Reverse(busy.usage.calls));
    }

    fn close_route(&mut self) {
        let Some((route, calls, Some(latency))) = self.open_route.take() else { return };
        let best = match latency.value.calls >= COMPARED_CALLS {
            true => &mut self.figures.slowest,
            false => &mut self.rare,
        };
        insert(best, SlowRoute { route, calls, latency }, SLOWEST, |slow| Reverse(slow.latency.value.p99_us));
    }

    fn busy(&mut self, key: KeyId) -> Option<&mut BusyKey> {
        self.figures.busiest.iter_mut().find(|busy| busy.key == key)
    }
}

/// Inserts an item into those with the lowest ranks. Of equal ranks the one that came first stays in front.
fn insert<T, K: Ord>(best: &mut Vec<T>, item: T, most: usize, rank: impl Fn(&T) -> K) {
    let at = best.partition_point(|other| rank(other) <= rank(&item));
    if at < most {
        best.insert(at, item);
        best.truncate(most);
    }
}

/// A row that takes part in the sums, unless its view has nothing to add.
pub(super) trait Summed {
    fn sum(&self, _: &mut FigureSums) {}

    /// Returns whether the sums need the row, so that a run that writes no views keeps no others.
    fn is_needed(&self) -> bool {
        false
    }
}

impl Summed for Row<KeyId, OwnedUsage> {
    fn sum(&self, sums: &mut FigureSums) {
        let &Self { group: key, level, start, value: OwnedUsage { usage, owner }, .. } = self;
        if sums.open_key.as_ref().is_none_or(|open| open.key != key) {
            sums.close_key();
            sums.open_key = Some(OpenKey {
                key,
                usage: Usage::default(),
                span: CallSpan::default(),
                owner: Owner::default(),
                owner_of: 0,
                is_owned: false,
            });
        }
        let Some(open) = &mut sums.open_key else { return };
        match level {
            Level::Minute => {
                sums.spans[0].add(start, level.end(start));
                open.span.add(start, level.end(start));
            }
            Level::Hour => sums.spans[1].add(start, level.end(start)),
            Level::Day => {
                sums.spans[2].add(start, level.end(start));
                open.is_owned |= owner.subscription != NameId::NONE;
                if start >= open.owner_of {
                    (open.owner, open.owner_of) = (owner, start);
                }
            }
            Level::Month => open.usage += usage,
            Level::FiveMinutes => {}
        }
    }

    fn is_needed(&self) -> bool {
        matches!(self.level, Level::Day | Level::Month)
    }
}

impl Summed for Row<KeyRoute, OwnedUsage> {}

impl Summed for Row<Scope, Latency> {
    fn sum(&self, sums: &mut FigureSums) {
        if self.level != Level::Day {
            return;
        }
        let has_more = |new: &Latency, best: &Latency| new.calls > best.calls;
        match self.group {
            Scope::Key(key) => {
                if let Some(busy) = sums.busy(key) {
                    OfDay::take(&mut busy.latency, self.start, self.value, has_more);
                }
            }
            Scope::Route(route) => {
                if sums.open_route.is_none_or(|(open, ..)| open != route) {
                    sums.close_route();
                    sums.open_route = Some((route, 0, None));
                }
                if let Some((_, calls, latency)) = &mut sums.open_route {
                    *calls += self.value.calls;
                    OfDay::take(latency, self.start, self.value, has_more);
                }
            }
        }
    }

    fn is_needed(&self) -> bool {
        self.level == Level::Day
    }
}

impl Summed for Row<KeyCountry, CountryCalls> {
    fn sum(&self, sums: &mut FigureSums) {
        let KeyCountry { key, country } = self.group;
        if self.level != Level::Day || country == Country::UNKNOWN {
            return;
        }
        // Rows of a key come by country, so a country that was added is the last one.
        if let Some(busy) = sums.busy(key)
            && busy.countries.last() != Some(&country)
        {
            busy.countries.push(country);
        }
    }

    fn is_needed(&self) -> bool {
        self.level == Level::Day
    }
}

impl Summed for Row<Scope, Callers> {
    fn sum(&self, sums: &mut FigureSums) {
        let Scope::Key(key) = self.group else { return };
        if let Some(busy) = sums.busy(key) {
            OfDay::take(&mut busy.callers, self.start, self.value, |new, best| new.callers > best.callers);
        }
    }

    fn is_needed(&self) -> bool {
        matches!(self.group, Scope::Key(_))
    }
}

impl Summed for Row<NameId, Option<SubscriptionUsage>> {}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};

    use super::*;

    /// 2025-06-02T00:00:00Z.
    const MONDAY: EventTime = 1_748_822_400_000;

    fn row<G, V>(group: G, level: Level, start: EventTime, value: V) -> Row<G, V> {
        Row { group, level, start: level.start(start), value, complete: true, is_final: true }
    }

    fn usage(key: KeyId, level: Level, start: EventTime, calls: u64, owner: u64) -> Row<KeyId, OwnedUsage> {
        let owner = Owner { subscription: NameId(owner), ..Owner::default() };
        let value = OwnedUsage { usage: Usage { calls, errors_5xx: calls / 10, ..Usage::default() }, owner };
        row(key, level, start, value)
    }

    fn latency(group: Scope, start: EventTime, calls: u64, p99_us: u64) -> Row<Scope, Latency> {
        row(group, Level::Day, start, Latency { calls, p99_us, ..Latency::default() })
    }

    #[test]
    fn calls_are_those_of_months_and_keys_are_counted_once() {
        let mut sums = FigureSums::default();
        // In the order of the file: days, hours, minutes, months.
        for (number, calls) in [(11_u128, 30_u64), (12, 50), (13, 30)] {
            let key = KeyId(number);
            let owner = if number == 13 { NameId::NONE.0 } else { number as u64 };
            usage(key, Level::Day, MONDAY, calls, owner).sum(&mut sums);
            usage(key, Level::Hour, MONDAY, calls, owner).sum(&mut sums);
            usage(key, Level::Minute, MONDAY, calls - 1, owner).sum(&mut sums);
            usage(key, Level::Month, MONDAY, calls, owner).sum(&mut sums);
            usage(key, Level::Month, MONDAY + 40 * DAY_MS, 1, owner).sum(&mut sums);
        }
        usage(KeyId::ANONYMOUS, Level::Month, MONDAY, 7, NameId::NONE.0).sum(&mut sums);
        let figures = sums.finish();
        assert_eq!((figures.usage.calls, figures.keys, figures.buckets), (31 + 51 + 31 + 7, 3, [7, 0, 0]));
        assert_eq!((figures.unowned_keys, figures.unowned_calls), (1, 31));
        assert_eq!(figures.young_keys, 3);
        let order: Vec<u128> = figures.busiest.iter().map(|busy| busy.key.0).collect();
        assert_eq!(order, [12, 11, 13], "of equal keys the one that came first");
        assert_eq!(figures.busiest[0].owner.subscription, NameId(12));
    }

    #[test]
    fn only_the_busiest_keys_are_held_however_many_there_are() {
        let mut sums = FigureSums::default();
        for number in 0..5_000_u64 {
            let calls = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000;
            usage(KeyId(u128::from(number) + 10), Level::Month, MONDAY, calls, 1).sum(&mut sums);
            assert!(sums.figures.busiest.len() <= BUSIEST);
        }
        let figures = sums.finish();
        let mut all: Vec<u64> =
            (0..5_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000).collect();
        all.sort_unstable_by_key(|calls| Reverse(*calls));
        let found: Vec<u64> = figures.busiest.iter().map(|busy| busy.usage.calls).collect();
        assert_eq!(found, all[..BUSIEST]);
        assert_eq!(figures.usage.calls, all.iter().sum::<u64>());
    }

    #[test]
    fn percentiles_and_callers_are_of_one_day_and_countries_of_all() {
        let mut sums = FigureSums::default();
        let key = KeyId(20);
        usage(key, Level::Month, MONDAY, 300, 1).sum(&mut sums);
        sums.end_view();
        for (day, calls, p99_us) in [(0, 100, 9), (1, 150, 5), (2, 150, 7)] {
            latency(Scope::Key(key), MONDAY + day * DAY_MS, calls, p99_us).sum(&mut sums);
        }
        latency(Scope::Key(KeyId(21)), MONDAY, 1_000, 1).sum(&mut sums);
        sums.end_view();
        for (country, day) in [("DE", 0), ("DE", 1), ("US", 0), ("ZZ", 0)] {
            let group = KeyCountry { key, country: Country::new(country) };
            row(group, Level::Day, MONDAY + day * DAY_MS, CountryCalls::default()).sum(&mut sums);
        }
        for (day, callers) in [(0, 3), (1, 8), (2, 4)] {
            let value = Callers { callers, exact: true };
            row(Scope::Key(key), Level::Day, MONDAY + day * DAY_MS, value).sum(&mut sums);
        }
        let figures = sums.finish();
        let [busy] = figures.busiest.as_slice() else { panic!("one key") };
        let latency = busy.latency.unwrap();
        assert_eq!((latency.start_ms, latency.value.p99_us, latency.days), (MONDAY + DAY_MS, 5, 3));
        assert_eq!(busy.callers.unwrap().value.callers, 8);
        assert_eq!(busy.countries, [Country::new("DE"), Country::new("US")]);
    }

    #[test]
    fn a_route_with_few_calls_is_slow_only_if_no_route_has_more() {
        let routes = |last: u64| {
            let mut sums = FigureSums::default();
            for (route, calls, p99_us) in [(1, 99, 90), (2, 5, 80), (3, last, 7), (4, last, 9)] {
                latency(Scope::Route(RouteId(route)), MONDAY, calls, p99_us).sum(&mut sums);
            }
            sums.finish().slowest.iter().map(|slow| slow.route.0).collect::<Vec<_>>()
        };
        assert_eq!(routes(COMPARED_CALLS), [4, 3]);
        assert_eq!(routes(COMPARED_CALLS - 1), [1, 2, 4, 3]);
    }

    #[test]
    fn the_span_is_that_of_minutes_unless_a_call_came_too_late_for_one() {
        let span = |hours: &[u64], minutes: &[u64]| {
            let mut sums = FigureSums::default();
            let key = KeyId(20);
            hours.iter().for_each(|hour| {
                usage(key, Level::Hour, MONDAY + hour * HOUR_MS, 1, 1).sum(&mut sums);
            });
            minutes.iter().for_each(|minute| {
                usage(key, Level::Minute, MONDAY + minute * MINUTE_MS, 1, 1).sum(&mut sums);
            });
            sums.finish().span_ms.map(|(from, to)| ((from - MONDAY) / MINUTE_MS, (to - MONDAY) / MINUTE_MS))
        };
        assert_eq!(span(&[], &[]), None);
        assert_eq!(span(&[8], &[490, 510]), Some((490, 511)));
        assert_eq!(span(&[7, 8], &[490, 510]), Some((420, 511)));
        assert_eq!(span(&[8, 9], &[490, 510]), Some((490, 600)));
        assert_eq!(span(&[8], &[]), Some((480, 540)));
    }
}
