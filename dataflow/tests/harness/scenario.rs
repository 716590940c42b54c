//! Makes random ticks, with few keys and routes, so that groups collide. There are duplicates, late and very late
//! events, gaps of hours and days, and owners that appear, change and go.
//!
//! Half of the watermarks and of the events' times are on the very millisecond at which something changes sides, or on
//! the one before. These are a window's start, its end with lateness or hold, and the dedupe horizon after an earlier
//! watermark.
//! Of live tables' changes, one in ten or more is a deletion.

use std::collections::BTreeSet;

use keytide_config::Limits;
use keytide_dataflow::Level;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use keytide_dataflow::model::*;

use super::{SplitMix, TickInput};

pub const KEYS: u64 = 6;
const LEVELS: [Level; 5] = [Level::Minute, Level::FiveMinutes, Level::Hour, Level::Day, Level::Month];
/// The allowed lateness, and the dedupe horizons that the tests use.
const TOLERANCES_MS: [u64; 3] = [10 * MINUTE_MS, HOUR_MS, 25 * HOUR_MS];

pub const SUBSCRIPTIONS: u64 = 3;

pub fn key(index: u64) -> KeyId {
    KeyId(u128::from(index + 1) << 64 | u128::from(SplitMix(index).next()))
}

pub fn subscription(index: u64) -> NameId {
    NameId::new(&format!("subscription-{index}"))
}

/// A scenario of `count` ticks.
pub fn ticks(seed: u64, count: u64, live_tables: bool) -> Vec<TickInput> {
    let mut random = SplitMix(seed);
    // Late in a month, so that months end within a scenario.
    let mut watermark = 0;
    let mut now = 1_748_500_000_000 + random.below(3 * DAY_MS);
    let mut offset = 0;
    let mut tick = 0;
    let mut watermarks = Vec::new();
    let mut ticks = Vec::new();
    for index in 0..count {
        let before = watermark;
        let mut events = Vec::new();
        let mut tables = Vec::new();
        if index == 0 {
            tables = first_tables(&mut random);
        } else {
            now += match random.below(12) {
                0 => random.below(3 * DAY_MS),
                1 | 2 => random.below(2 * HOUR_MS),
                _ => random.below(MINUTE_MS),
            };
            for _ in 0..random.below(60) {
                offset += 1;
                events.push(event(&mut random, now, before, offset));
            }
            watermark = before.max(now - 5_000 - random.below(30_000));
            if random.below(2) == 0 {
                watermark = exact_watermark(&mut random, &watermarks, before, now).unwrap_or(watermark);
            }
            watermarks.push(watermark);
            if live_tables && random.below(3) == 0 {
                table_changes(&mut random, watermark, &mut tables);
            }
        }
        // Live ticks keep step with event time: what a table changes at a tick concerns windows that are held.
        tick = now.max(tick + 17_000);
        let info = TickInfo {
            tick,
            watermark_before: before,
            watermark,
            cadence: if live_tables { tick } else { watermark },
            catching_up: false,
            last: index + 1 == count,
        };
        let definitions = vec![Definition::Name {
            id: subscription(index % 3),
            text: format!("subscription-{}", index % 3).into(),
        }];
        ticks.push(TickInput { info, events, tables, decisions: Vec::new(), definitions });
    }
    define(&mut ticks);
    ticks
}

/// Gives each tick the strings of its events' keys and routes, as decoders do: more often than needed.
pub fn define(ticks: &mut [TickInput]) {
    for tick in ticks {
        let of_event = |event: &AccessEvent| {
            let (id, day) = (event.route, Level::Day.start(event.time));
            let (api, method) = ("api".into(), "GET".into());
            let route = format!("/{:x}", id.0).into();
            let month = Some(Level::Month.start(event.time));
            let key = Definition::Key { id: event.key, name: format!("key-{}", event.key).into(), month };
            [Definition::Route { id, day, api, method, route }, key]
        };
        let of_events: BTreeSet<Definition> = tick.events.iter().flat_map(of_event).collect();
        let no_buckets = |one: &Definition| !matches!(one, Definition::Key { id, .. } if id.is_bucket());
        tick.definitions.extend(of_events.into_iter().filter(no_buckets));
        let of_agent = |(number, day): (u64, EventTime)| Definition::Agent {
            id: agent(number),
            day,
            text: agent_text(number).into(),
        };
        let days: BTreeSet<EventTime> =
            tick.events.iter().map(|event| Level::Day.start(event.time)).collect();
        tick.definitions
            .extend(days.into_iter().flat_map(|day| [(0, day), (1, day), (2, day)]).map(of_agent));
    }
}

/// Limits that [`crowded`] ticks exceed, differently by seed.
pub fn narrow(seed: u64) -> Limits {
    let mut random = SplitMix(seed);
    let mut limit = |most: u64| 256 * (1 + random.below(most)) as usize + 255;
    Limits {
        keys: limit(6),
        routes: limit(5),
        key_routes: limit(12),
        routes_per_key: limit(5) / 256,
        key_countries: limit(12),
        ..Limits::default()
    }
}

/// The same with many keys, routes and countries, all in two buckets.
pub fn crowded(seed: u64, count: u64, live_tables: bool) -> Vec<TickInput> {
    let mut ticks = ticks(seed, count, live_tables);
    let mut random = SplitMix(!seed);
    for tick in &mut ticks {
        tick.definitions.retain(|definition| matches!(definition, Definition::Name { .. }));
        for event in &mut tick.events {
            if random.below(3) > 0 && !event.key.is_bucket() {
                event.key = key(KEYS + random.below(16));
            }
            event.key = crowd(event.key);
            event.route = RouteId(SplitMix(random.below(12)).next() & !0xfe);
            event.country = Country([b'A', b'A' + random.below(8) as u8]);
            if random.below(9) == 0 {
                event.country = Country::UNKNOWN;
            }
        }
        for change in &mut tick.tables {
            if let TableRow::Key(row) = &mut change.row {
                row.key = crowd(row.key);
            }
        }
    }
    define(&mut ticks);
    ticks
}

/// The key in one of two buckets.
pub fn crowd(key: KeyId) -> KeyId {
    if key.is_bucket() { key } else { KeyId(key.0 & !(0xfe << 24)) }
}

/// One of three user agents.
fn agent(number: u64) -> NameId {
    NameId::new(&agent_text(number))
}

fn agent_text(number: u64) -> String {
    format!("agent/{}", number % 3)
}

/// A watermark after `before`, and not after `now`, at which something changes sides.
fn exact_watermark(random: &mut SplitMix, earlier: &[u64], before: u64, now: u64) -> Option<u64> {
    let level = LEVELS[random.below(5) as usize];
    let tolerance = TOLERANCES_MS[random.below(3) as usize];
    let exact = match random.below(4) {
        0 if !earlier.is_empty() => earlier[random.below(earlier.len() as u64) as usize] + tolerance,
        1 => level.start(now - tolerance) + tolerance,
        2 => level.start(now - level.hold()) + level.hold(),
        _ => level.start(now),
    };
    let exact = exact - random.below(4) / 3;
    (exact > before && exact <= now).then_some(exact)
}

/// A time at which a watermark's decision changes sides, or the one before.
fn exact_time(random: &mut SplitMix, now: u64, watermark: u64) -> u64 {
    let level = LEVELS[random.below(5) as usize];
    let tolerance = TOLERANCES_MS[random.below(3) as usize];
    let exact = match random.below(8) {
        0 => watermark - tolerance,
        1 => level.held_from(watermark),
        2 => level.open_from(watermark),
        3 => watermark,
        4 => level.start(now - random.below(3 * DAY_MS)),
        _ => Level::Minute.start(now - random.below(2 * MINUTE_MS)),
    };
    exact - random.below(2)
}

fn event(random: &mut SplitMix, now: u64, watermark: u64, offset: u64) -> AccessEvent {
    let behind = match random.below(20) {
        0 => random.below(40 * DAY_MS),
        1 => random.below(3 * DAY_MS),
        2 => random.below(5 * HOUR_MS),
        3 => random.below(20 * MINUTE_MS),
        _ => random.below(4_000),
    };
    let time = match random.below(2) {
        0 if watermark > 0 => exact_time(random, now, watermark),
        _ => now - behind,
    };
    let request = match random.below(10) {
        0 => RequestId::NONE,
        1 => RequestId::new("gateway", &random.below(20).to_le_bytes()),
        2 => RequestId::new("gateway", &(offset.saturating_sub(random.below(30))).to_le_bytes()),
        _ => RequestId::new("gateway", &offset.to_le_bytes()),
    };
    let magnitude = 1 + random.below(30);
    let latency_us = random.below(1 << magnitude);
    AccessEvent {
        key: match random.below(30) {
            0 => KeyId::ANONYMOUS,
            1 => KeyId::CONFLICTING,
            _ => key(random.below(KEYS)),
        },
        request,
        client: u128::from(random.below(50)) % 47,
        time,
        route: RouteId::new("api", "GET", ["/a", "/b", "/c"][random.below(3) as usize]),
        user_agent: agent(offset),
        position: Position {
            partition: (offset % 3) as u32,
            offset: offset / 3,
            index: random.below(2) as u32,
        },
        latency_us: if random.below(8) == 0 { LATENCY_UNKNOWN } else { latency_us },
        bytes_in: random.below(1_000),
        bytes_out: random.below(100_000),
        units: random.below(1 << 20),
        is_free: random.below(4) == 0,
        count: match random.below(16) {
            0 => 1 + random.below(6) as u32,
            1 => 1 + random.below(1 << 20) as u32,
            _ => 1,
        },
        late_ms: if time + 605_000 < watermark {
            u32::try_from(watermark - time).unwrap_or(u32::MAX)
        } else {
            0
        },
        asn: random.below(9) as u32,
        status: [200, 201, 404, 403, 429, 499, 500, 503, 0][random.below(9) as usize],
        country: Country::new(["DE", "FR", "KR", "zz"][random.below(4) as usize]),
        place: CallerLocation::default(),
    }
}

pub fn key_row(index: u64, subscription_index: u64, valid_from: Option<u64>) -> TableRow {
    TableRow::Key(KeyRow {
        key: key(index),
        subscription: subscription(subscription_index),
        valid_from,
        state: KeyState::Active,
        kind: KeyKind::Secret,
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    })
}

pub fn subscription_row(index: u64, plan: u64) -> TableRow {
    dated_subscription_row(index, plan, None)
}

fn dated_subscription_row(index: u64, plan: u64, valid_from: Option<u64>) -> TableRow {
    TableRow::Subscription(SubscriptionRow {
        id: subscription(index),
        customer: NameId::new(&format!("customer-{index}")),
        plan: NameId::new(&format!("plan-{plan}")),
        time_zone: NameId::NONE,
        billing_anchor: 0,
        valid_from,
        started_at: None,
        contacts: NameId::NONE,
    })
}

fn plan_row(index: u64) -> TableRow {
    TableRow::Plan(PlanRow {
        id: NameId::new(&format!("plan-{index}")),
        name: NameId::new(["Gold", "Silver", "Bronze"][index as usize]),
        policy: Policy::Alert,
        fees: Box::default(),
    })
}

fn first_tables(random: &mut SplitMix) -> Vec<TableChange> {
    let mut changes = Vec::new();
    let mut push = |row| changes.push(TableChange { offset: changes.len() as u64, row, deleted: false });
    // Plan 1 has no row; subscription 2 has none; the last key has no owner yet.
    push(plan_row(0));
    for index in 0..SUBSCRIPTIONS - 1 {
        push(subscription_row(index, index));
    }
    for index in 0..KEYS - 1 {
        push(key_row(index, random.below(SUBSCRIPTIONS), None));
        if random.below(3) == 0 {
            push(key_row(
                index,
                random.below(SUBSCRIPTIONS),
                Some(1_748_600_000_000 + random.below(2 * DAY_MS)),
            ));
        }
    }
    changes
}

/// One change of a live table: of the rows of one key, of a subscription, or of a plan.
fn table_changes(random: &mut SplitMix, watermark: u64, changes: &mut Vec<TableChange>) {
    let mut push = |row, deleted| changes.push(TableChange { offset: changes.len() as u64, row, deleted });
    let index = random.below(KEYS);
    let subscription_index = random.below(SUBSCRIPTIONS);
    // Half of the dates are those of a window's start.
    let mut since = watermark.saturating_sub(random.below(2 * DAY_MS));
    if random.below(2) == 0 {
        since = LEVELS[random.below(5) as usize].start(since);
    }
    match random.below(10) {
        // A key goes, and may come back in the same tick with other rows.
        0 => {
            push(key_row(index, subscription_index, None), true);
            if random.below(2) == 0 {
                push(key_row(index, random.below(SUBSCRIPTIONS), None), false);
            }
            if random.below(3) == 0 {
                push(key_row(index, random.below(SUBSCRIPTIONS), Some(since)), false);
            }
        }
        1 => push(subscription_row(subscription_index, random.below(3)), true),
        // A subscription's rows are stated anew, some with dates that are past or to come.
        2 => {
            push(subscription_row(subscription_index, random.below(3)), true);
            if random.below(2) == 0 {
                push(subscription_row(subscription_index, random.below(3)), false);
            }
            for from in [since, watermark + random.below(2 * HOUR_MS), watermark + random.below(2 * DAY_MS)] {
                if random.below(2) == 0 {
                    push(dated_subscription_row(subscription_index, random.below(3), Some(from)), false);
                }
            }
        }
        3 => push(plan_row(random.below(3)), true),
        4 => push(plan_row(random.below(3)), false),
        // A row that replaces the one without a date holds from now on.
        5 => push(key_row(index, subscription_index, None), false),
        // The last key's owner becomes known late: from the beginning. Others move at a time that is named.
        6 => push(subscription_row(subscription_index, random.below(3)), false),
        _ => {
            let valid_from = if index == KEYS - 1 { Some(0) } else { Some(since) };
            push(key_row(index, subscription_index, valid_from), false);
        }
    }
}
