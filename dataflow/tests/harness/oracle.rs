//! Recounts the views event by event with plain maps, from the definitions of the views alone. The recount shares the
//! model's types with the dataflow, and nothing of its windows and operators.

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{Limits, Unproven, Windows};
use keytide_dataflow::model::*;
use keytide_dataflow::*;

use super::{AnyRow, TickInput, TickOutput};

#[derive(Clone, Default)]
struct Counted {
    events: Vec<AccessEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    Usage,
    ByRoute,
    LatencyKey,
    LatencyRoute,
    Geo,
    CallersKey,
    CallersRoute,
}

const VIEWS: [(View, &[Level]); 7] = [
    (View::Usage, &[Level::Minute, Level::Hour, Level::Day, Level::Month]),
    (View::ByRoute, &[Level::Hour, Level::Day]),
    (View::LatencyKey, &[Level::FiveMinutes, Level::Hour, Level::Day]),
    (View::LatencyRoute, &[Level::FiveMinutes, Level::Hour, Level::Day]),
    (View::Geo, &[Level::Hour, Level::Day]),
    (View::CallersKey, &[Level::Day]),
    (View::CallersRoute, &[Level::Day]),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Key(KeyId),
    KeyRoute(KeyRoute),
    Route(RouteId),
    KeyCountry(KeyCountry),
}

/// The views after all ticks, each row in its last version, and what each tick reported.
pub struct Recount {
    pub rows: Vec<AnyRow>,
    /// The calls that are booked, each with its subscription.
    pub booked: Vec<(AccessEvent, NameId)>,
    pub ticks: BTreeMap<Tick, TickOutput>,
}

/// The ids that were admitted so far, by period, in plain sets.
#[derive(Default)]
struct Admissions {
    routes: BTreeSet<(EventTime, RouteId)>,
    keys: BTreeSet<(EventTime, KeyId)>,
    key_routes: BTreeSet<(EventTime, KeyId, RouteId)>,
    key_countries: BTreeSet<(EventTime, KeyId, Country)>,
    /// The room that is taken: by 0 keys, 1 routes, 2 pairs with routes, 3 pairs with countries.
    taken: BTreeMap<(u8, EventTime, u8), usize>,
}

impl Admissions {
    fn take(&mut self, kind: u8, period: EventTime, bucket: u8, limit: usize) -> bool {
        let taken = self.taken.entry((kind, period, bucket)).or_default();
        let has_room = *taken < (limit / 256).max(1);
        *taken += usize::from(has_room);
        has_room
    }

    fn of(&self, kind: u8, period: EventTime) -> u64 {
        self.taken.range((kind, period, 0)..=(kind, period, 255)).map(|(_, taken)| *taken as u64).sum()
    }

    /// Admits what a tick's events bring, in the order of ids, and rewrites the rest.
    fn judge(
        &mut self,
        events: &mut [AccessEvent],
        watermark: EventTime,
        limits: &Limits,
        has_row: impl Fn(KeyId) -> bool,
    ) -> [u64; 3] {
        let month = |event: &AccessEvent| start_of(Level::Month, event.time);
        let day = |event: &AccessEvent| {
            Some(start_of(Level::Day, event.time)).filter(|day| held(Level::Day, *day, watermark))
        };
        let met: BTreeSet<_> = events.iter().filter_map(|event| Some((day(event)?, event.route))).collect();
        for (day, route) in met {
            if route != RouteId::OVERFLOW
                && !self.routes.contains(&(day, route))
                && self.take(1, day, route.bucket(), limits.routes)
            {
                self.routes.insert((day, route));
            }
        }
        let met: BTreeSet<_> = events.iter().map(|event| (month(event), event.key)).collect();
        for (month, key) in met.into_iter().filter(|(_, key)| !key.is_bucket()) {
            if !self.keys.contains(&(month, key))
                && (has_row(key) || self.take(0, month, key.bucket(), limits.keys))
            {
                self.keys.insert((month, key));
            }
        }
        let mut routes = BTreeSet::new();
        let mut countries = BTreeSet::new();
        for event in events.iter() {
            if let Some(day) = day(event)
                && self.keys.contains(&(month(event), event.key))
            {
                if self.routes.contains(&(day, event.route)) {
                    routes.insert((day, event.key, event.route));
                }
                if event.country != Country::UNKNOWN {
                    countries.insert((day, event.key, event.country));
                }
            }
        }
        for pair in routes {
            let (day, key, _) = pair;
            let of_key = self.key_routes.iter().filter(|(d, k, _)| (*d, *k) == (day, key)).count();
            if !self.key_routes.contains(&pair)
                && of_key < limits.routes_per_key
                && (has_row(key) || self.take(2, day, key.bucket(), limits.key_routes))
            {
                self.key_routes.insert(pair);
            }
        }
        for pair in countries {
            let (day, key, _) = pair;
            if !self.key_countries.contains(&pair)
                && (has_row(key) || self.take(3, day, key.bucket(), limits.key_countries))
            {
                self.key_countries.insert(pair);
            }
        }
        let mut overflows = [0; 3];
        for event in events {
            if !event.key.is_bucket() && !self.keys.contains(&(month(event), event.key)) {
                event.key = KeyId::OVERFLOW;
                overflows[0] += 1;
            }
            let Some(day) = day(event) else { continue };
            let in_bucket = event.key.is_bucket();
            if event.route != RouteId::OVERFLOW
                && !self.key_routes.contains(&(day, event.key, event.route))
                && !(in_bucket && self.routes.contains(&(day, event.route)))
            {
                event.route = RouteId::OVERFLOW;
                overflows[1] += 1;
            }
            if event.country != Country::UNKNOWN
                && !in_bucket
                && !self.key_countries.contains(&(day, event.key, event.country))
            {
                event.country = Country::OTHER;
                overflows[2] += 1;
            }
        }
        overflows
    }
}

/// Recounts with limits that nothing reaches. Percentiles are exact here.
pub fn recount(ticks: &[TickInput], windows: Windows) -> Recount {
    recount_with(ticks, windows, &Limits::default())
}

/// Recounts ticks with limits of its own.
pub fn recount_with(ticks: &[TickInput], windows: Windows, limits: &Limits) -> Recount {
    // From when on an id is remembered, and the tick that saw it.
    let mut seen: BTreeMap<RequestId, (EventTime, Tick)> = BTreeMap::new();
    let mut counted: BTreeMap<(View, Level, EventTime, Group), Counted> = BTreeMap::new();
    let mut owners: BTreeMap<KeyId, BTreeMap<EventTime, NameId>> = BTreeMap::new();
    let mut subscription_rows: BTreeMap<NameId, Vec<SubscriptionRow>> = BTreeMap::new();
    let mut plans: BTreeMap<NameId, PlanRow> = BTreeMap::new();
    // As rows show them that were final when a tick ended.
    let mut frozen: BTreeMap<(KeyId, Level, EventTime), Owner> = BTreeMap::new();
    let mut frozen_infos = BTreeMap::new();
    // Each call, the subscription that it is booked to if its hour was gone already, and the levels that weren't.
    let mut calls: Vec<(AccessEvent, Option<NameId>, Vec<Level>)> = Vec::new();
    let mut admissions = Admissions::default();
    let mut reports = BTreeMap::new();
    let mut end = 0;

    for tick in ticks {
        let watermark = tick.info.watermark_before;
        let mut changes = tick.tables.clone();
        changes.sort_by_key(|change| change.offset);
        let mut of_keys: BTreeMap<KeyId, Vec<(KeyRow, bool)>> = BTreeMap::new();
        for change in changes {
            match change.row {
                TableRow::Key(row) => of_keys.entry(row.key).or_default().push((row, change.deleted)),
                TableRow::Subscription(row) => {
                    let rows = subscription_rows.entry(row.id).or_default();
                    // Without a date a row is all that the table has, as a deletion is.
                    if change.deleted || row.valid_from.is_none() {
                        rows.clear();
                    }
                    rows.extend((!change.deleted).then_some(row));
                }
                TableRow::Plan(row) if change.deleted => drop(plans.remove(&row.id)),
                TableRow::Plan(row) => drop(plans.insert(row.id, row)),
                TableRow::Leak(_) | TableRow::Quota(_) | TableRow::Price(_) | TableRow::Token(_) => {}
            }
        }
        let subscriptions = in_force(&subscription_rows, tick.info.cadence);
        for (key, rows) in of_keys {
            own(owners.entry(key).or_default(), &rows, tick.info.cadence);
        }
        let mut report = TickOutput::default();
        let mut events = tick.events.clone();
        events.sort_by_key(|event| event.position);
        let mut unique = Vec::new();
        for event in events {
            let with_id = event.request != RequestId::NONE;
            let proven = !with_id || watermark <= event.time + windows.dedupe_horizon_ms;
            let month_held = held(Level::Month, start_of(Level::Month, event.time), watermark);
            let late_ms =
                if event.late_ms > 0 { event.late_ms.into() } else { watermark.saturating_sub(event.time) };
            let mut late = Late {
                position: event.position,
                key: event.key,
                request: event.request,
                time: event.time,
                late_ms,
                counted: false,
                proven,
            };
            let known = with_id.then(|| seen.get(&event.request)).flatten();
            let known = known.filter(|(since, _)| watermark <= *since + windows.dedupe_horizon_ms);
            if !month_held || (!proven && windows.unproven == Unproven::List) {
                match known {
                    Some((_, number)) if *number < tick.info.tick => report.duplicates += 1,
                    _ => report.late.push(late),
                }
                continue;
            }
            if with_id {
                if known.is_some() {
                    report.duplicates += 1;
                    continue;
                }
                seen.insert(event.request, (event.time.max(watermark), tick.info.tick));
            }
            report.events += 1;
            if event.late_ms > 0 || !proven {
                late.counted = true;
                report.late.push(late);
            }
            unique.push(event);
        }
        let has_row = |key: KeyId| {
            let newest = owners.get(&key).and_then(|history| history.values().next_back());
            newest.is_some_and(|subscription| subscription.is_some())
        };
        report.overflows = admissions.judge(&mut unique, watermark, limits, has_row);
        for event in unique {
            let booked = [Level::Hour, Level::Day, Level::Month]
                .map(|level| held(level, start_of(level, event.time), watermark).then_some(level));
            let hour = start_of(Level::Hour, event.time);
            let late = booked[0].is_none().then(|| owner_at(&owners, event.key, hour));
            calls.push((event, late, booked.into_iter().flatten().collect()));
            for (view, levels) in VIEWS {
                let Some(group) = group(view, &event) else { continue };
                let held_levels = levels
                    .iter()
                    .skip_while(|level| !held(**level, start_of(**level, event.time), watermark));
                for level in held_levels {
                    counted
                        .entry((view, *level, start_of(*level, event.time), group))
                        .or_default()
                        .events
                        .push(event);
                }
            }
        }
        report.late_count = report.late.len() as u64;
        report.late.sort();
        reports.insert(tick.info.tick, report);
        end = tick.info.watermark;
        let (month, day) = (start_of(Level::Month, end), start_of(Level::Day, end));
        let report = reports.entry(tick.info.tick).or_default();
        report.admitted =
            [(0, month), (1, day), (2, day), (3, day)].map(|(kind, period)| admissions.of(kind, period));
        // Rows that become final keep the owner they have now, and what is known of it.
        for (view, level, start, group) in counted.keys() {
            if let (View::Usage, Group::Key(key)) = (view, group)
                && !frozen.contains_key(&(*key, *level, *start))
                && (!held(*level, *start, end) || tick.info.last)
            {
                let subscription = owner_at(&owners, *key, *start);
                let info = info(subscription, &subscriptions, &plans);
                let owner = Owner { subscription, customer: info.customer, plan: info.plan };
                frozen.insert((*key, *level, *start), owner);
                let facts = frozen_infos.entry((*level, *start));
                facts.or_insert_with(|| (subscriptions.clone(), plans.clone()));
            }
        }
    }

    // `usage_by_route` has levels of `usage`, so each of its windows was frozen there.
    let owner = |key: KeyId, level: Level, start: EventTime| frozen[&(key, level, start)];
    let mut rows = Vec::new();
    for ((view, level, start, group), counted) in &counted {
        let (level, start) = (*level, *start);
        let complete = end_of(level, start) + windows.allowed_lateness_ms <= end;
        let is_final = !held(level, start, end);
        let events = &counted.events;
        macro_rules! row {
            ($view:ident, $group:expr, $value:expr) => {
                rows.push(AnyRow::$view(Row {
                    group: $group,
                    level,
                    start,
                    value: $value,
                    complete,
                    is_final,
                }))
            };
        }
        match (view, group) {
            (View::Usage, Group::Key(key)) => {
                let value = OwnedUsage { usage: sum(events), owner: owner(*key, level, start) };
                row!(Usage, *key, value);
            }
            (View::ByRoute, Group::KeyRoute(group)) => {
                let value = OwnedUsage { usage: sum(events), owner: owner(group.key, level, start) };
                row!(UsageByRoute, *group, value);
            }
            (View::LatencyKey, Group::Key(key)) => row!(Latency, Scope::Key(*key), latency(events)),
            (View::LatencyRoute, Group::Route(route)) => row!(Latency, Scope::Route(*route), latency(events)),
            (View::Geo, Group::KeyCountry(group)) => {
                let mut asns: BTreeMap<u32, u64> = BTreeMap::new();
                for event in events.iter().filter(|event| event.asn != 0) {
                    *asns.entry(event.asn).or_default() += u64::from(event.count);
                }
                let mut top: Vec<(u32, u64)> = asns.into_iter().collect();
                top.sort_by_key(|(asn, calls)| (u64::MAX - calls, *asn));
                top.truncate(5);
                let errors =
                    calls_where(events, |event| (400..1_000).contains(&event.status) && event.status != 499);
                let calls = calls_where(events, |_| true);
                row!(Geo, *group, CountryCalls { calls, errors, asns: top.into_iter().collect() });
            }
            (View::CallersKey, Group::Key(key)) => row!(Callers, Scope::Key(*key), callers(events)),
            (View::CallersRoute, Group::Route(route)) => row!(Callers, Scope::Route(*route), callers(events)),
            _ => unreachable!("a view has one kind of group"),
        }
    }
    // A call is its subscription's that had the key in its hour, at all levels.
    let mut by_subscription: BTreeMap<(NameId, Level, EventTime), Vec<AccessEvent>> = BTreeMap::new();
    let mut booked = Vec::new();
    for (event, late, levels) in calls {
        let hour = start_of(Level::Hour, event.time);
        let subscription = late.unwrap_or_else(|| owner(event.key, Level::Hour, hour).subscription);
        if subscription.is_some() {
            booked.push((event, subscription));
        }
        for level in levels.into_iter().filter(|_| subscription.is_some()) {
            by_subscription
                .entry((subscription, level, start_of(level, event.time)))
                .or_default()
                .push(event);
        }
    }
    for ((subscription, level, start), events) in by_subscription {
        let (subscriptions, plans) = &frozen_infos[&(level, start)];
        let owner = info(subscription, subscriptions, plans);
        let keys = events.iter().map(|event| event.key).collect::<BTreeSet<_>>().len() as u64;
        rows.push(AnyRow::SubscriptionUsage(Row {
            group: subscription,
            level,
            start,
            value: Some(SubscriptionUsage { usage: sum(&events), keys, owner }),
            complete: end_of(level, start) + windows.allowed_lateness_ms <= end,
            is_final: !held(level, start, end),
        }));
    }
    rows.sort();
    Recount { rows, booked, ticks: reports }
}

fn held(level: Level, start: EventTime, watermark: EventTime) -> bool {
    let hours = match level {
        Level::Minute | Level::FiveMinutes => 3,
        Level::Hour => 48,
        Level::Day => 3 * 24,
        Level::Month => 5 * 24,
    };
    end_of(level, start) + hours * 3_600_000 > watermark
}

/// Start and end of the window that holds a time, by a calendar of its own.
fn bounds(level: Level, time: EventTime) -> (EventTime, EventTime) {
    let minutes = match level {
        Level::Minute => 1,
        Level::FiveMinutes => 5,
        Level::Hour => 60,
        Level::Day => 24 * 60,
        Level::Month => return month(time),
    };
    let width = minutes * 60_000;
    (time / width * width, (time / width + 1) * width)
}

/// A month of 2025 or 2026; what lies before is one.
fn month(time: EventTime) -> (EventTime, EventTime) {
    let (mut start, mut end) = (0, 1_735_689_600_000);
    for days in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter().cycle() {
        if time < end {
            break;
        }
        (start, end) = (end, end + days * 86_400_000);
    }
    (start, end)
}

fn start_of(level: Level, time: EventTime) -> EventTime {
    bounds(level, time).0
}

fn end_of(level: Level, start: EventTime) -> EventTime {
    bounds(level, start).1
}

/// Takes a tick's rows of one key, at which it is `now`, into who owned it since when. A deletion takes all rows that
/// the key had, and the tick's rows after it are all it has.
fn own(history: &mut BTreeMap<EventTime, NameId>, rows: &[(KeyRow, bool)], now: EventTime) {
    let rows: Vec<_> = rows.iter().map(|(row, gone)| (row.subscription, row.valid_from, *gone)).collect();
    say(history, &rows, now);
}

/// Takes a tick's rows of one subject, at which it is `now`: values, since when each holds, and whether it is deleted.
pub fn say<T: Clone + Default + PartialEq>(
    history: &mut BTreeMap<EventTime, T>,
    rows: &[(T, Option<EventTime>, bool)],
    now: EventTime,
) {
    let had_owner = history.range(..=now).next().is_some();
    let is_statement = rows.iter().any(|(.., deleted)| *deleted);
    let rows = match rows.iter().rposition(|(.., deleted)| *deleted) {
        Some(last) => &rows[last + 1..],
        None => rows,
    };
    if is_statement {
        history.retain(|from, _| *from <= now);
    }
    let undated = rows.iter().rev().find(|(_, from, _)| from.is_none()).map(|(value, ..)| value.clone());
    // A first row without a date holds since ever.
    if let (Some(value), false) = (&undated, had_owner) {
        history.insert(0, value.clone());
    }
    let dated: BTreeMap<EventTime, T> =
        rows.iter().filter_map(|(value, from, _)| Some(((*from)?, value.clone()))).collect();
    history.extend(dated.clone());
    // Of all rows that a key has, the latest date that has come is in force; without a date a row is older than any.
    let in_force = match is_statement {
        true => dated.range(..=now).next_back().map(|(_, value)| value.clone()).or(undated.clone()),
        false => undated.clone(),
    };
    if is_statement || (undated.is_some() && had_owner) {
        let in_force = in_force.unwrap_or_default();
        let holds = history.range(..=now).next_back().map_or(T::default(), |(_, value)| value.clone());
        if holds != in_force {
            history.insert(now, in_force);
        }
    }
}

/// Returns the row of each subscription with the latest date up to now; of one date it is the last.
fn in_force(
    rows: &BTreeMap<NameId, Vec<SubscriptionRow>>,
    now: EventTime,
) -> BTreeMap<NameId, SubscriptionRow> {
    let of_one = |(id, rows): (&NameId, &Vec<SubscriptionRow>)| {
        let rows = rows.iter().filter(|row| row.valid_from.unwrap_or_default() <= now);
        Some((*id, rows.max_by_key(|row| row.valid_from)?.clone()))
    };
    rows.iter().filter_map(of_one).collect()
}

/// Returns the facts of a subscription in the tables.
fn info(
    subscription: NameId,
    subscriptions: &BTreeMap<NameId, SubscriptionRow>,
    plans: &BTreeMap<NameId, PlanRow>,
) -> SubscriptionInfo {
    let row = subscriptions.get(&subscription);
    let plan = row.map_or(NameId::NONE, |row| row.plan);
    SubscriptionInfo {
        customer: row.map_or(NameId::NONE, |row| row.customer),
        plan,
        plan_name: plans.get(&plan).map_or(NameId::NONE, |plan| plan.name),
    }
}

fn owner_at(owners: &BTreeMap<KeyId, BTreeMap<EventTime, NameId>>, key: KeyId, start: EventTime) -> NameId {
    owners
        .get(&key)
        .and_then(|history| history.range(..=start).next_back())
        .map_or(NameId::NONE, |(_, subscription)| *subscription)
}

fn group(view: View, event: &AccessEvent) -> Option<Group> {
    match view {
        View::Usage => Some(Group::Key(event.key)),
        View::ByRoute => Some(Group::KeyRoute(KeyRoute { key: event.key, route: event.route })),
        View::LatencyKey => (event.latency_us != LATENCY_UNKNOWN).then_some(Group::Key(event.key)),
        View::LatencyRoute => (event.latency_us != LATENCY_UNKNOWN).then_some(Group::Route(event.route)),
        View::Geo => Some(Group::KeyCountry(KeyCountry { key: event.key, country: event.country })),
        View::CallersKey => (event.client != 0).then_some(Group::Key(event.key)),
        View::CallersRoute => (event.client != 0).then_some(Group::Route(event.route)),
    }
}

/// Calls of the events that are wanted.
fn calls_where(events: &[AccessEvent], wanted: impl Fn(&AccessEvent) -> bool) -> u64 {
    events.iter().filter(|event| wanted(event)).map(|event| u64::from(event.count)).sum()
}

fn sum(events: &[AccessEvent]) -> Usage {
    let timed = events.iter().filter(|event| event.latency_us != LATENCY_UNKNOWN);
    Usage {
        calls: calls_where(events, |_| true),
        errors_4xx: calls_where(events, |event| event.status / 100 == 4 && event.status != 499),
        errors_5xx: calls_where(events, |event| event.status / 100 == 5),
        bytes_in: events.iter().map(|event| event.bytes_in).sum(),
        bytes_out: events.iter().map(|event| event.bytes_out).sum(),
        latency_sum_us: timed.map(|event| event.latency_us * u64::from(event.count)).sum(),
        latency_calls: calls_where(events, |event| event.latency_us != LATENCY_UNKNOWN),
        free_calls: calls_where(events, |event| event.is_free),
        units: events.iter().filter(|event| !event.is_free).map(|event| event.units).sum(),
    }
}

fn latency(events: &[AccessEvent]) -> Latency {
    let mut values: Vec<(u64, u64)> =
        events.iter().map(|event| (event.latency_us, event.count.into())).collect();
    values.sort_unstable();
    let calls: u64 = values.iter().map(|(_, calls)| calls).sum();
    let rank = |percent: u64| {
        let mut left = (calls * percent).div_ceil(100);
        let at = values.iter().find(|(_, calls)| {
            left = left.saturating_sub(*calls);
            left == 0
        });
        at.expect("a percentile is of some call").0
    };
    Latency {
        calls,
        p50_us: rank(50),
        p90_us: rank(90),
        p95_us: rank(95),
        p99_us: rank(99),
        max_us: values[values.len() - 1].0,
        mean_us: values.iter().map(|(us, calls)| us * calls).sum::<u64>() / calls,
    }
}

fn callers(events: &[AccessEvent]) -> Callers {
    let distinct: BTreeSet<u128> = events.iter().map(|event| event.client).collect();
    Callers { callers: distinct.len() as u64, exact: true }
}
