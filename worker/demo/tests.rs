//! The live view with made-up results: what a row adds, and what the screen shows of it.

use std::path::Path;

use keytide_connectors::decode::DeadLetter;
use keytide_connectors::sink::TickOutput;
use keytide_dataflow::model::{Country, Definition, KeyId, NameId, Position, RequestId, RouteId, Tick};
use keytide_dataflow::{
    Counts, Geo, KeyCountry, Late, Latency, Level, OwnedUsage, Owner, Row, Rows, Scope, Usage,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::screen::{Phase, Scene, draw};
use super::traffic::{HELD_MS, HELD_ONE_IN, Held};
use super::view::{Calls, View};
use super::world::configure;

/// 2025-06-02T08:00:00Z.
const START: Tick = 1_748_851_200_000;
const SECOND: Tick = 1_000;
const MINUTE: Tick = 60 * SECOND;

fn key(number: u128) -> KeyId {
    KeyId((number * 0x9e37_79b9_7f4a_7c15) << 64 | number)
}

fn row<G, V>(group: G, level: Level, start: Tick, value: V) -> Row<G, V> {
    Row { group, level, start, value, complete: false, is_final: false }
}

/// The row of a key's minute.
fn minute(group: KeyId, start: Tick, calls: u64) -> Row<KeyId, OwnedUsage> {
    let usage = Usage {
        calls,
        errors_4xx: calls / 20,
        errors_5xx: calls / 50,
        bytes_out: calls * 2_000,
        latency_sum_us: calls * 23_400,
        latency_calls: calls,
        ..Usage::default()
    };
    row(group, Level::Minute, start, OwnedUsage { usage, owner: Owner::default() })
}

fn tick(tick: Tick, rows: Vec<Rows>) -> TickOutput {
    TickOutput { tick, rows, ..TickOutput::default() }
}

// ---- what rows add up to

#[test]
fn a_row_adds_what_its_last_version_did_not_have() {
    let mut view = View::new(SECOND);
    for (second, calls) in [(1, 10), (2, 25), (3, 25), (4, 40)] {
        let rows = vec![Rows::Usage(vec![minute(key(1), START, calls)])];
        view.take(START + second * SECOND, &[tick(START + second * SECOND, rows)]);
    }
    // Another worker's keys, and coarser windows, which hold the same calls again.
    let other = tick(START + 5 * SECOND, vec![Rows::Usage(vec![minute(key(2), START, 7)])]);
    let hour = Row { level: Level::Hour, ..minute(key(1), START, 40) };
    view.take(START + 5 * SECOND, &[other, tick(START + 5 * SECOND, vec![Rows::Usage(vec![hour])])]);
    assert_eq!(view.usage_calls(), 47);
    let top: Vec<u64> = view.top_keys(9).iter().map(|line| line.recent.calls).collect();
    assert_eq!(top, [40, 7]);
    assert_eq!(view.recent().mean_us(), Some(23_400));
}

#[test]
fn after_a_minute_calls_are_not_recent_any_more() {
    let mut view = View::new(SECOND);
    let one = |start, calls| vec![Rows::Usage(vec![minute(key(1), start, calls)])];
    view.take(START, &[tick(START, one(START, 10))]);
    view.take(START + MINUTE - 1, &[tick(START + MINUTE - 1, one(START, 12))]);
    assert_eq!(view.recent().calls, 12);
    view.take(START + MINUTE, &[tick(START + MINUTE, one(START + MINUTE, 5))]);
    assert_eq!(view.recent().calls, 7, "the first tick's ten are a minute old");
    view.take(START + 3 * MINUTE, &[tick(START + 3 * MINUTE, Vec::new())]);
    assert_eq!(view.recent(), Calls::default());
    assert!(view.top_keys(9).is_empty());
    assert_eq!(view.usage_calls(), 17);
}

#[test]
fn the_last_version_of_a_forgotten_window_adds_nothing() {
    let mut view = View::new(SECOND);
    let hours = 3 * 60 * MINUTE;
    view.take(START, &[tick(START, vec![Rows::Usage(vec![minute(key(1), START, 10)])])]);
    let late = START - 40 * MINUTE;
    view.take(START + 1, &[tick(START + 1, vec![Rows::Usage(vec![minute(key(1), late, 1)])])]);
    assert_eq!(view.usage_calls(), 11, "a late call's window isn't forgotten");
    let now = START + hours;
    let rows = vec![Rows::Usage(vec![minute(key(1), now, 5)])];
    view.take(now, &[tick(now, rows)]);
    let last = Row { complete: true, is_final: true, ..minute(key(1), START, 10) };
    view.take(now + 1, &[tick(now + 1, vec![Rows::Usage(vec![last])])]);
    assert_eq!(view.usage_calls(), 16);
}

#[test]
fn buckets_are_no_keys() {
    let mut view = View::new(SECOND);
    let rows = vec![minute(KeyId::ANONYMOUS, START, 30), minute(key(1), START, 20)];
    view.take(START, &[tick(START, vec![Rows::Usage(rows)])]);
    assert_eq!((view.keys(), view.anonymous(), view.unknown_keys()), (1, 30, 1));
    assert_eq!(view.top_keys(9).len(), 1);
}

// ---- what goes wrong on purpose

#[test]
fn what_is_held_back_comes_once_and_is_late_by_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let job = configure(folder.path(), "127.0.0.1:9092", 2).unwrap();
    let late_from_ms = job.windows.out_of_orderness_ms + job.windows.allowed_lateness_ms;
    assert!(HELD_MS > late_from_ms, "{late_from_ms} ms");

    let mut held = Held::default();
    let mut taken = Vec::new();
    for number in 1..=HELD_ONE_IN * 2 {
        if held.takes(START + number, 3, number.to_string().as_bytes()) {
            taken.push(number);
        }
    }
    assert_eq!(taken, [HELD_ONE_IN, HELD_ONE_IN * 2]);
    let due = START + HELD_ONE_IN + HELD_MS;
    assert_eq!(held.due(due - 1), None);
    assert_eq!(held.due(due), Some((3, HELD_ONE_IN.to_string().into_bytes().into())));
    assert_eq!(held.due(due), None);
    assert!(held.due(u64::MAX).is_some(), "in the end all are due");
    assert_eq!(held.due(u64::MAX), None);
}

// ---- what the screen shows

/// A minute and a half of a world with twelve keys.
fn world() -> View {
    let mut view = View::new(SECOND);
    let customers = ["Amber Bank 1", "Kestrel Foods 2", "Meridian Analytics 3", "Cedar Games 4"];
    let routes = [
        ("GET", "/v1/orders/{id}"),
        ("POST", "/v1/payments"),
        ("GET", "/v1/customers"),
        ("DELETE", "/v1/carts/{id}"),
    ];
    let countries = [("US", 50), ("DE", 21), ("GB", 12), ("FR", 8), ("IN", 5), ("JP", 3), ("ZZ", 1)];
    let name = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
    let mut definitions: Vec<_> = customers.into_iter().chain(["free", "team", "sub"]).map(name).collect();
    definitions.extend(routes.map(|(method, route)| Definition::Route {
        id: RouteId::new("", method, route),
        day: 0,
        api: "".into(),
        method: method.into(),
        route: route.into(),
    }));
    for second in 1..=90_u64 {
        let now = START + second * SECOND;
        let start = Level::Minute.start(now);
        let passed = second - (start - START) / SECOND + 1;
        let mut usage: Vec<_> = (1..=12_u64)
            .map(|number| {
                let mut row = minute(key(number.into()), start, passed * 1_200 / number);
                let at = number as usize % customers.len();
                row.value.owner = Owner {
                    subscription: NameId::new(if number == 5 { "" } else { "sub" }),
                    customer: NameId::new(if number == 5 { "" } else { customers[at] }),
                    plan: NameId::new(if number == 5 { "" } else { ["free", "team"][at % 2] }),
                };
                if number == 7 {
                    row.value.usage.errors_5xx = row.value.usage.calls / 4;
                }
                row
            })
            .collect();
        usage.push(minute(KeyId::ANONYMOUS, start, passed * 40));
        let mut output = tick(now, vec![Rows::Usage(usage)]);
        output.definitions = std::mem::take(&mut definitions);
        output.counts = Counts {
            events: 3_700 + second * 37 % 900,
            duplicates: second % 3,
            late: u64::from(second % 30 == 0),
            ..Counts::default()
        };
        if second % 30 == 0 {
            let latency = |place: u64| Latency {
                calls: 90_000 / (place + 1) * second / 30,
                p50_us: 9_300 + place * 4_000,
                p90_us: 31_000 + place * 9_000,
                p95_us: 48_000 + place * 9_000,
                p99_us: 120_000 + place * 40_000,
                max_us: 1_900_000 + place * 4_000_000,
                mean_us: 14_000 + place * 4_000,
            };
            let of_routes = (0..).zip(routes).map(|(place, (method, route))| {
                let scope = Scope::Route(RouteId::new("", method, route));
                row(scope, Level::FiveMinutes, START, latency(place))
            });
            let of_keys = (1..=12_u64).map(|number| {
                row(Scope::Key(key(number.into())), Level::FiveMinutes, START, latency(number))
            });
            output.rows.push(Rows::Latency(of_routes.chain(of_keys).collect()));
            let geo = countries.map(|(country, share)| {
                let group = KeyCountry { key: key(1), country: Country::new(country) };
                let geo = Geo { calls: share * second * 41, errors: share, ..Geo::default() };
                row(group, Level::Hour, START, geo)
            });
            output.rows.push(Rows::Geo(geo.into()));
            output.late.push(Late {
                position: Position { partition: 1, offset: second, index: 0 },
                key: key(3),
                request: RequestId(7),
                time: now - 14 * MINUTE,
                late_ms: 14 * MINUTE,
                counted: true,
            });
            output.letters.push(DeadLetter {
                position: Position { partition: 2, offset: second, index: 0 },
                events_before: 0,
                reason: "not JSON: it ends too early at byte 109".to_owned(),
                length: 109,
                sha256: [0; 32],
                kept: None,
            });
        }
        view.take(now, &[output]);
    }
    view
}

fn screen(view: &View, phase: Phase, width: u16, height: u16) -> String {
    let now = START + 90 * SECOND + 400;
    let scene = Scene {
        view,
        phase,
        now,
        elapsed_ms: 91_400,
        duration_ms: 91_000,
        rate: 4_000,
        unread: 312,
        watermark: now - 5_900,
        rows: 61_234,
        row_bytes: 23 << 20,
        workers: 2,
        folder: Path::new("/tmp/keytide-demo-a1B2c3"),
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(&scene, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for line in buffer.content().chunks(usize::from(width.max(1))) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[test]
fn at_80_by_24_all_panels_are_there() {
    let shown = screen(&world(), Phase::Running, 80, 24);
    assert!(
        shown == include_str!("screens/80x24.txt"),
        "worker/demo/screens/80x24.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_160_by_50_there_is_more_in_them() {
    let shown = screen(&world(), Phase::Ending, 160, 50);
    assert!(
        shown == include_str!("screens/160x50.txt"),
        "worker/demo/screens/160x50.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn no_size_and_no_lack_of_results_is_too_much() {
    for (width, height) in [(0, 0), (1, 1), (20, 5), (79, 10), (400, 120)] {
        screen(&world(), Phase::Running, width, height.max(1));
        screen(&View::new(SECOND), Phase::Running, width.max(1), height);
    }
}
