//! Tests caps by the same three tests over ticks that exceed every cap, and each cap at its edge. The recount admits
//! with plain sets.

use keytide_dataflow::model::time::DAY_MS;

use super::harness::oracle::recount_with;
use super::harness::{Outcome, run_with};
use super::*;

/// A month's first day.
const START: u64 = 1_748_736_000_000;

fn options(limits: Limits, publish: Publish, seed: u64) -> Options {
    Options {
        windows: windows(seed),
        limits,
        publish,
        detection: keytide_dataflow::DetectorOptions::default(),
        accounts: AccountOptions::default(),
    }
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn bounded_runs_beyond_the_caps_equal_the_recount(seed: u64, count in 1_u64..50, workers in 1_usize..4) {
        let (ticks, limits) = (scenario::crowded(seed, count, false), scenario::narrow(seed));
        let how = How { workers, batch: 7, shuffle: seed };
        let outcome = run_with(&ticks, options(limits, Publish::Last, seed), how, None);
        let expected = recount_with(&ticks, windows(seed), &limits);
        assert_same_reports(&outcome.ticks, &expected.ticks);
        let rows: Vec<AnyRow> = outcome.ticks.values().flat_map(|tick| tick.rows.clone()).collect();
        assert_same_rows(&rows, &expected.rows);
    }

    #[test]
    fn live_runs_beyond_the_caps_end_at_the_recount(seed: u64, count in 1_u64..50) {
        let (ticks, limits) = (scenario::crowded(seed, count, true), scenario::narrow(seed));
        let outcome = run_with(&ticks, options(limits, LIVE, seed), ONE, None);
        let expected = recount_with(&ticks, windows(seed), &limits);
        assert_same_reports(&outcome.ticks, &expected.ticks);
        assert_same_rows(&last_versions(outcome.ticks.values()), &expected.rows);
    }

    #[test]
    fn workers_batches_and_arrival_change_nothing_beyond_the_caps(seed: u64, count in 1_u64..40, live: bool) {
        let ticks = scenario::crowded(seed, count, live);
        let options = options(scenario::narrow(seed), if live { LIVE } else { Publish::Last }, seed);
        let expected = run_with(&ticks, options, ONE, None).ticks;
        for how in [
            How { workers: 2, batch: 1, shuffle: seed },
            How { workers: 3, batch: 1_000, shuffle: !seed },
            How { workers: 1, batch: 3, shuffle: seed ^ 1 },
        ] {
            let got = run_with(&ticks, options, how, None).ticks;
            for (tick, expected) in &expected {
                prop_assert_eq!(got.get(tick), Some(expected), "{:?}", how);
            }
        }
    }

    #[test]
    fn runs_beyond_the_caps_are_restored_as_if_uninterrupted(seed: u64, count in 2_u64..50, live: bool, from in 1_usize..4, to in 1_usize..4) {
        let ticks = scenario::crowded(seed, count, live);
        let options = options(scenario::narrow(seed), if live { LIVE } else { Publish::Last }, seed);
        let whole = run_with(&ticks, options, ONE, None);
        let (first, second) = ticks.split_at(ticks.len() / 2);
        let before = run_with(first, options, How { workers: from, batch: 10, shuffle: seed }, None);
        let after = run_with(second, options, How { workers: to, batch: 10, shuffle: seed }, Some(before.snapshot));
        let mut got = before.ticks;
        got.extend(after.ticks);
        for (tick, expected) in &whole.ticks {
            prop_assert_eq!(&got.remove(tick).unwrap_or_default(), expected, "tick {}", tick);
        }
        assert_restored_names(&whole.definitions, &after.definitions);
    }
}

#[test]
fn crowded_ticks_exceed_every_cap() {
    let mut overflows = [0; 3];
    for seed in 0..5 {
        let ticks = scenario::crowded(seed, 30, true);
        let outcome = run_with(&ticks, options(scenario::narrow(seed), Publish::Last, seed), ONE, None);
        for tick in outcome.ticks.values() {
            overflows = std::array::from_fn(|kind| overflows[kind] + tick.overflows[kind]);
        }
    }
    assert!(overflows.iter().all(|count| *count > 100), "{overflows:?}");
}

/// A call; `id` makes it unique.
fn call(id: u64, key: u64, route: u64, country: &str, time: u64) -> AccessEvent {
    AccessEvent {
        key: stranger(key),
        request: RequestId::new("gateway", &id.to_le_bytes()),
        client: 1,
        time,
        route: path(route),
        user_agent: NameId::NONE,
        position: Position { partition: 0, offset: id, index: 0 },
        latency_us: 1_000,
        bytes_in: 0,
        bytes_out: 0,
        units: 0,
        count: 1,
        late_ms: 0,
        asn: 0,
        status: 200,
        is_free: false,
        country: Country::new(country),
        place: CallerLocation::default(),
    }
}

/// Keys and routes of bucket 0, in the order of their numbers.
fn stranger(number: u64) -> KeyId {
    KeyId(KeyId::CONFLICTING.0 + 1 + u128::from(number))
}

fn path(number: u64) -> RouteId {
    RouteId((number + 1) << 8)
}

fn row_of(key: KeyId, deleted: bool) -> TableChange {
    let row = TableRow::Key(KeyRow {
        key,
        subscription: NameId::new("gold"),
        valid_from: None,
        state: KeyState::Active,
        kind: KeyKind::Secret,
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    });
    TableChange { offset: u64::from(deleted), row, deleted }
}

/// Ticks of a second: (watermark, events, changes of tables). The last tick ends the input.
fn timed(inputs: Vec<(u64, Vec<AccessEvent>, Vec<TableChange>)>) -> Vec<TickInput> {
    let count = inputs.len();
    let mut before = 0;
    let mut ticks = Vec::new();
    for (index, (watermark, events, tables)) in inputs.into_iter().enumerate() {
        let tick = 1_900_000_000_000 + index as u64 * 1_000;
        let last = index + 1 == count;
        let info = TickInfo {
            tick,
            watermark_before: before,
            watermark,
            cadence: watermark,
            catching_up: false,
            last,
        };
        before = watermark;
        ticks.push(TickInput { info, events, tables, decisions: Vec::new(), definitions: Vec::new() });
    }
    scenario::define(&mut ticks);
    ticks
}

fn bounded(inputs: Vec<(u64, Vec<AccessEvent>, Vec<TableChange>)>, limits: Limits) -> Outcome {
    let how = How { workers: 2, batch: 3, shuffle: 5 };
    // With a dedupe horizon of 25 h.
    run_with(&timed(inputs), options(limits, Publish::Last, 2), how, None)
}

/// The calls of a day, by key and route or country.
fn daily<T: Ord>(outcome: &Outcome, of: impl Fn(&AnyRow) -> Option<(T, Level, u64)>) -> BTreeMap<T, u64> {
    let rows = outcome.ticks.values().flat_map(|tick| &tick.rows).filter_map(of);
    rows.filter(|(_, level, _)| *level == Level::Day).map(|(group, _, calls)| (group, calls)).collect()
}

fn keys(outcome: &Outcome) -> BTreeMap<KeyId, u64> {
    daily(outcome, |row| match row {
        AnyRow::Usage(row) => Some((row.group, row.level, row.value.usage.calls)),
        _ => None,
    })
}

fn routes(outcome: &Outcome) -> BTreeMap<(KeyId, RouteId), u64> {
    daily(outcome, |row| match row {
        AnyRow::UsageByRoute(row) => {
            Some(((row.group.key, row.group.route), row.level, row.value.usage.calls))
        }
        _ => None,
    })
}

fn countries(outcome: &Outcome) -> BTreeMap<(KeyId, Country), u64> {
    daily(outcome, |row| match row {
        AnyRow::Geo(row) => Some(((row.group.key, row.group.country), row.level, row.value.calls)),
        _ => None,
    })
}

const ROOM: u64 = 3;
const NOON: u64 = START + DAY_MS / 2;

/// One tick with calls, then the end.
fn one_tick(events: Vec<AccessEvent>, tables: Vec<TableChange>, limits: Limits) -> Outcome {
    bounded(vec![(0, Vec::new(), tables), (NOON, events, Vec::new())], limits)
}

fn narrow(change: impl FnOnce(&mut Limits, usize)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits, 256 * ROOM as usize + 255);
    limits
}

#[test]
fn the_keys_with_the_lowest_ids_are_admitted_while_there_is_room() {
    let limits = narrow(|limits, limit| limits.keys = limit);
    for (met, beyond) in [(ROOM - 1, 0), (ROOM, 0), (ROOM + 1, 1), (ROOM + 9, 9)] {
        let calls = (0..met).rev().map(|key| call(key, key, 0, "DE", NOON)).collect();
        let outcome = one_tick(calls, Vec::new(), limits);
        let mut expected: BTreeMap<_, _> = (0..met.min(ROOM)).map(|key| (stranger(key), 1)).collect();
        if beyond > 0 {
            expected.insert(KeyId::OVERFLOW, beyond);
        }
        assert_eq!(keys(&outcome), expected);
        let overflows: u64 = outcome.ticks.values().map(|tick| tick.overflows[0]).sum();
        assert_eq!(overflows, beyond);
    }
}

#[test]
fn routes_over_all_keys_are_admitted_while_there_is_room() {
    let limits = narrow(|limits, limit| limits.routes = limit);
    for (met, beyond) in [(ROOM - 1, 0), (ROOM, 0), (ROOM + 1, 1), (ROOM + 9, 9)] {
        let calls = (0..met).rev().map(|route| call(route, route % 2, route, "DE", NOON)).collect();
        let outcome = one_tick(calls, Vec::new(), limits);
        let of_route = |wanted| -> u64 {
            routes(&outcome).iter().filter(|((_, route), _)| *route == wanted).map(|(_, calls)| calls).sum()
        };
        assert_eq!(of_route(RouteId::OVERFLOW), beyond);
        for route in 0..met {
            assert_eq!(of_route(path(route)), u64::from(route < ROOM), "{route} of {met}");
        }
    }
}

#[test]
fn routes_of_one_key_are_admitted_while_there_is_room() {
    let limits = narrow(|limits, _| limits.routes_per_key = ROOM as usize);
    for (met, beyond) in [(ROOM - 1, 0), (ROOM, 0), (ROOM + 1, 1), (ROOM + 9, 9)] {
        let mut calls: Vec<_> = (0..met).rev().map(|route| call(route, 0, route, "DE", NOON)).collect();
        calls.push(call(met, 1, met, "DE", NOON));
        // The table of keys doesn't exempt a key from what one key may have.
        for tables in [Vec::new(), vec![row_of(stranger(0), false)]] {
            let mut expected: BTreeMap<_, _> =
                (0..met.min(ROOM)).map(|route| ((stranger(0), path(route)), 1)).collect();
            expected.insert((stranger(1), path(met)), 1);
            if beyond > 0 {
                expected.insert((stranger(0), RouteId::OVERFLOW), beyond);
            }
            assert_eq!(routes(&one_tick(calls.clone(), tables, limits)), expected);
        }
    }
}

#[test]
fn pairs_of_keys_and_routes_are_admitted_while_there_is_room() {
    let limits = narrow(|limits, limit| limits.key_routes = limit);
    for (met, beyond) in [(ROOM - 1, 0), (ROOM, 0), (ROOM + 1, 1), (ROOM + 9, 9)] {
        let calls = (0..met).rev().map(|pair| call(pair, pair / 2, pair % 2, "DE", NOON)).collect();
        let outcome = one_tick(calls, Vec::new(), limits);
        let pairs = routes(&outcome);
        let overflow: u64 =
            pairs.iter().filter(|((_, route), _)| *route == RouteId::OVERFLOW).map(|(_, calls)| calls).sum();
        assert_eq!(overflow, beyond);
        for pair in 0..met {
            let told_apart = pairs.contains_key(&(stranger(pair / 2), path(pair % 2)));
            assert_eq!(told_apart, pair < ROOM, "{pair} of {met}");
        }
    }
}

#[test]
fn pairs_of_keys_and_countries_are_admitted_while_there_is_room() {
    let limits = narrow(|limits, limit| limits.key_countries = limit);
    let codes = ["AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AR", "AT", "AU", "AW"];
    for (met, beyond) in [(ROOM - 1, 0), (ROOM, 0), (ROOM + 1, 1), (ROOM + 9, 9)] {
        let mut calls: Vec<_> =
            (0..met).rev().map(|country| call(country, 0, 0, codes[country as usize], NOON)).collect();
        calls.push(call(met, 0, 0, "ZZ", NOON));
        let mut expected: BTreeMap<_, _> = codes[..met.min(ROOM) as usize]
            .iter()
            .map(|code| ((stranger(0), Country::new(code)), 1))
            .collect();
        expected.insert((stranger(0), Country::UNKNOWN), 1);
        if beyond > 0 {
            expected.insert((stranger(0), Country::OTHER), beyond);
        }
        assert_eq!(countries(&one_tick(calls, Vec::new(), limits)), expected);
    }
}

#[test]
fn a_new_day_and_a_new_month_have_room_again_and_an_earlier_one_keeps_its_own() {
    let limits = narrow(|limits, _| (limits.keys, limits.routes) = (256, 256));
    let next_month = START + 30 * DAY_MS;
    let outcome = bounded(
        vec![
            (NOON, vec![call(0, 0, 0, "DE", NOON)], Vec::new()),
            (NOON + DAY_MS, vec![call(1, 1, 1, "DE", NOON + DAY_MS)], Vec::new()),
            // A late event of the first day finds that day full, and its own key admitted.
            (NOON + DAY_MS, vec![call(2, 0, 1, "DE", NOON + 1)], Vec::new()),
            (next_month, vec![call(3, 1, 2, "DE", next_month)], Vec::new()),
        ],
        limits,
    );
    let expected = [
        ((stranger(0), path(0)), 1),
        ((stranger(0), RouteId::OVERFLOW), 1),
        ((KeyId::OVERFLOW, path(1)), 1),
        ((stranger(1), path(2)), 1),
    ];
    assert_eq!(routes(&outcome), expected.into());
    let admitted: Vec<[u64; 2]> =
        outcome.ticks.values().map(|tick| [tick.admitted[0], tick.admitted[1]]).collect();
    assert_eq!(admitted, [[1, 1], [1, 1], [1, 1], [1, 1]]);
}

#[test]
fn an_attack_with_random_keys_leaves_a_customers_key_unharmed() {
    let limits = narrow(|limits, _| {
        (limits.keys, limits.key_routes, limits.key_countries) = (256, 256, 256);
    });
    let customer = stranger(1_000);
    let attack =
        |from: u64| (from..from + 500).map(|id| call(id, id, id % 3, "KP", NOON)).collect::<Vec<_>>();
    let of_customer = |id, route, country| AccessEvent { key: customer, ..call(id, 0, route, country, NOON) };
    let mut second = attack(500);
    second.extend([of_customer(5_000, 0, "DE"), of_customer(5_001, 4, "FR"), of_customer(5_002, 1, "KP")]);
    let outcome = bounded(
        vec![
            (0, Vec::new(), vec![row_of(customer, false)]),
            (NOON, attack(0), Vec::new()),
            (NOON, second, Vec::new()),
        ],
        limits,
    );
    assert_eq!(keys(&outcome), [(stranger(0), 1), (KeyId::OVERFLOW, 999), (customer, 3)].into());
    let of_customer: Vec<_> = routes(&outcome)
        .into_iter()
        .filter(|((key, _), _)| *key == customer)
        .map(|((_, route), _)| route)
        .collect();
    assert_eq!(of_customer, [path(0), path(1), path(4)]);
    let of_customer: Vec<_> = countries(&outcome)
        .into_keys()
        .filter(|(key, _)| *key == customer)
        .map(|(_, country)| country)
        .collect();
    assert_eq!(of_customer, ["DE", "FR", "KP"].map(Country::new));
    // Calls beyond the cap keep their routes.
    assert_eq!(routes(&outcome)[&(KeyId::OVERFLOW, path(2))], 333);
    assert!(outcome.ticks.values().all(|tick| tick.admitted[0] <= 1));
}

#[test]
fn a_row_that_comes_late_counts_from_then_on_and_one_that_goes_leaves_the_key_its_month() {
    let limits = narrow(|limits, _| limits.keys = 256);
    let calls = |id: u64, time| (0..3).map(|key| call(10 * id + key, key, 0, "DE", time)).collect::<Vec<_>>();
    let next_month = START + 30 * DAY_MS;
    let outcome = bounded(
        vec![
            (NOON, calls(1, NOON), Vec::new()),
            (NOON, calls(2, NOON), vec![row_of(stranger(1), false)]),
            (NOON, calls(3, NOON), vec![row_of(stranger(1), true)]),
            (next_month, calls(4, next_month), Vec::new()),
        ],
        limits,
    );
    let months: BTreeMap<(KeyId, u64), u64> = outcome
        .ticks
        .values()
        .flat_map(|tick| &tick.rows)
        .filter_map(|row| match row {
            AnyRow::Usage(row) if row.level == Level::Month => {
                Some(((row.group, row.start), row.value.usage.calls))
            }
            _ => None,
        })
        .collect();
    let expected = [
        ((stranger(0), START), 3),
        ((stranger(1), START), 2),
        ((KeyId::OVERFLOW, START), 4),
        ((stranger(0), next_month), 1),
        ((KeyId::OVERFLOW, next_month), 2),
    ];
    assert_eq!(months, expected.into());
}

#[test]
fn strings_of_what_is_beyond_a_cap_are_never_handed_out() {
    let limits = narrow(|limits, _| (limits.keys, limits.routes) = (256, 256));
    let calls = (0..2_000).map(|id| call(id, id, id, "DE", NOON)).collect();
    let outcome = one_tick(calls, Vec::new(), limits);
    let all: BTreeSet<_> = outcome.definitions.iter().flatten().collect();
    assert_eq!(all.len(), 2, "{all:?}");
    for (state, least) in [(StateId::Routes, 1), (StateId::Admission, 1)] {
        // The room and 1,024 a bucket bound the strings that wait.
        let rows = outcome.snapshot.rows(state);
        assert!((least..1_100).contains(&rows), "{}: {rows}", state.name());
    }
}

#[test]
fn strings_are_forgotten_when_no_row_can_need_them_and_come_again() {
    let limits = Limits::default();
    let next = START + 40 * DAY_MS;
    let mut inputs = vec![(NOON, vec![call(0, 0, 0, "DE", NOON)], Vec::new())];
    inputs.push((next, vec![call(1, 1, 1, "DE", next)], Vec::new()));
    inputs.extend((0..7_300).map(|_| (next, Vec::new(), Vec::new())));
    inputs.push((next, vec![call(2, 0, 0, "DE", next)], Vec::new()));
    let outcome = bounded(inputs, limits);
    for worker in &outcome.forgotten {
        let routes = worker.iter().filter(|(_, id)| matches!(id, Forgotten::Route(_)));
        let ticks: Vec<_> = routes.map(|(tick, id)| ((tick - 1_900_000_000_000) / 1_000, *id)).collect();
        assert_eq!(ticks, [(7_199, Forgotten::Route(path(0)))]);
    }
    let keys: Vec<_> =
        outcome.forgotten.iter().flatten().filter(|(_, id)| matches!(id, Forgotten::Key(_))).collect();
    assert!(matches!(keys[..], [(_, Forgotten::Key(key))] if *key == stranger(0)), "{keys:?}");
    for worker in &outcome.definitions {
        let of_route = |wanted| {
            worker.iter().filter(|one| matches!(one, Definition::Route { id, .. } if *id == wanted)).count()
        };
        assert_eq!((of_route(path(0)), of_route(path(1))), (2, 1));
    }
}

/// Ids of user agents, all of bucket 0, in the order of their numbers.
fn agent(number: u64) -> NameId {
    NameId((number + 1) << 8)
}

/// Ticks of a day each: calls of agents that come, come again and stay away, more than there is room for.
fn days_of_agents() -> Vec<TickInput> {
    let mut id = 0;
    let mut met_on = |day: u64, agents: &mut dyn Iterator<Item = u64>| {
        let time = NOON + day * DAY_MS;
        let calls = agents.map(|number| {
            id += 1;
            AccessEvent { user_agent: agent(number), ..call(id, number % 2, 0, "DE", time) }
        });
        (time, calls.collect::<Vec<_>>(), Vec::new())
    };
    let mut inputs = vec![met_on(0, &mut (1..ROOM).rev()), met_on(1, &mut [0, 7, 9, 7].into_iter())];
    inputs.extend((2..40).map(|day| met_on(day, &mut [7, 11, day, 0].into_iter())));
    let mut ticks = timed(inputs);
    for index in 0..ticks.len() {
        let definitions: Vec<Definition> = ticks[index]
            .events
            .iter()
            .map(|event| Definition::Agent {
                id: event.user_agent,
                day: Level::Day.start(event.time),
                text: format!("agent/{}", (event.user_agent.0 >> 8) - 1).into(),
            })
            .collect();
        ticks[index].definitions.retain(|one| !matches!(one, Definition::Agent { .. }));
        // Some come a tick before they are needed.
        let ahead = usize::from(index > 0 && index % 2 == 0);
        ticks[index - ahead].definitions.extend(definitions);
    }
    ticks
}

/// Returns the user agents that workers were given: numbers that were defined, and those forgotten by tick. All
/// workers are given the same.
fn agents_given(outcome: &Outcome) -> (BTreeSet<u64>, Vec<(Tick, u64)>) {
    let number = |id: &NameId| (id.0 >> 8) - 1;
    let of_worker = |worker: usize| {
        let defined = outcome.definitions[worker].iter().filter_map(|definition| match definition {
            Definition::Agent { id, text, .. } => {
                assert_eq!(**text, *format!("agent/{}", number(id)));
                Some(number(id))
            }
            _ => None,
        });
        let forgotten = outcome.forgotten[worker].iter().filter_map(|(tick, id)| match id {
            Forgotten::Agent(id) => Some((*tick, number(id))),
            _ => None,
        });
        (defined.collect::<BTreeSet<_>>(), forgotten.collect::<Vec<_>>())
    };
    let first = of_worker(0);
    for worker in 1..outcome.definitions.len() {
        assert_eq!(of_worker(worker), first);
    }
    first
}

#[test]
fn user_agents_are_bounded_and_the_same_for_any_workers_and_after_a_restore() {
    let limits = narrow(|limits, limit| limits.agents = limit);
    let options = options(limits, Publish::Last, 2);
    let ticks = days_of_agents();
    let whole = run_with(&ticks, options, ONE, None);
    let (defined, forgotten) = agents_given(&whole);
    // 1 and 2 came first, 0 was the lowest of those that came when there was room for one more. 1 wasn't met since
    // the first day and 2 since the third; day by day there was no room for anybody else before.
    assert_eq!(defined, BTreeSet::from([0, 1, 2, 7, 11]));
    let days: Vec<(u64, u64)> = forgotten
        .iter()
        .map(|(tick, number)| (ticks.iter().position(|one| one.info.tick == *tick).unwrap() as u64, *number))
        .collect();
    assert_eq!(days, [(32, 1), (34, 2)]);
    assert_eq!(whole.snapshot.rows(StateId::Agents), ROOM);
    for workers in [2, 3] {
        let how = How { workers, batch: 1, shuffle: 9 };
        assert_eq!(agents_given(&run_with(&ticks, options, how, None)), (defined.clone(), forgotten.clone()));
    }
    for at in [1, 20, 33] {
        let (first, second) = ticks.split_at(at);
        let before = run_with(first, options, How { workers: 3, batch: 2, shuffle: 1 }, None);
        let after = run_with(
            second,
            options,
            How { workers: 2, batch: 2, shuffle: 1 },
            Some(before.snapshot.clone()),
        );
        let ((one, gone), (two, gone_later)) = (agents_given(&before), agents_given(&after));
        assert_eq!(one.union(&two).copied().collect::<BTreeSet<_>>(), defined);
        assert_eq!([gone, gone_later].concat(), forgotten);
        // Workers that start anew are given all that hold.
        assert!(at == 33 || two.is_superset(&BTreeSet::from([0, 2])), "{two:?}");
    }
}
