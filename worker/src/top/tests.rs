//! A state against a recount from nothing, rows against lines, and a page against its state.

use std::collections::BTreeMap;

use keytide_config::View;
use keytide_connectors::sink::encode::{EncodeRow, Labels};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS};
use keytide_dataflow::model::{Country, Definition, EventTime, KeyId, NameId, Owner, RouteId};
use keytide_dataflow::{
    Callers, CountryCalls, KeyCountry, Latency, Level, OwnedUsage, Row, Rows, Scope, Usage,
};
use proptest::prelude::*;

use super::*;

/// 2025-06-02T00:00:00Z.
const START: EventTime = 1_748_822_400_000;

fn row<G, V>(group: G, level: Level, start: EventTime, value: V) -> Row<G, V> {
    Row { group, level, start, value, complete: false, is_final: false }
}

fn usage(key: u128, level: Level, calls: u64, owner: Owner) -> Row<KeyId, OwnedUsage> {
    let usage = Usage { calls, errors_4xx: calls / 7, errors_5xx: calls / 11, ..Usage::default() };
    row(KeyId(key << 90), level, START, OwnedUsage { usage, owner })
}

fn names(owner: Owner) -> Names {
    let mut names = Names::default();
    for (id, text) in [(owner.subscription, "sub-1"), (owner.customer, "Kestrel \"Foods\"")] {
        names.define(Definition::Name { id, text: text.into() });
    }
    names.define(Definition::Key { id: KeyId(2 << 90), month: None, name: "a\u{1b}\"key".into() });
    names
}

/// Rows of three keys, one of which has a name, and of a route.
fn rows() -> (Vec<Rows>, Names) {
    let owner = Owner {
        subscription: NameId::new("sub-1"),
        customer: NameId::new("Kestrel \"Foods\""),
        plan: NameId::NONE,
    };
    let only_subscription = Owner { customer: NameId::NONE, ..owner };
    let levels = [Level::Minute, Level::Hour, Level::Day, Level::Month];
    let by_key = levels.into_iter().flat_map(|level| {
        [
            usage(1, level, 700, owner),
            usage(2, level, 80, only_subscription),
            usage(3, level, 80, Owner::default()),
        ]
    });
    let latency = |p99_us| Latency { calls: 5, p50_us: 12_000, p99_us, ..Latency::default() };
    let scope = |key: u128| Scope::Key(KeyId(key << 90));
    let of_key = |key: u128, country: &str| KeyCountry {
        key: KeyId(key << 90),
        country: if country == "XX" { Country::OTHER } else { Country::new(country) },
    };
    let calls = || CountryCalls { calls: 5, ..CountryCalls::default() };
    let route = Scope::Route(RouteId::new("", "GET", "/v1"));
    let rows = vec![
        Rows::Usage(by_key.collect()),
        Rows::Latency(
            [Level::FiveMinutes, Level::Hour, Level::Day]
                .into_iter()
                .flat_map(|level| {
                    [
                        row(scope(1), level, START, latency(90_000)),
                        row(scope(3), level, START, latency(95_000)),
                    ]
                })
                .chain([row(route, Level::Day, START, latency(1))])
                .collect(),
        ),
        Rows::Geo(
            [(1, "DE"), (1, "US"), (1, "ZZ"), (2, "XX"), (2, "FR"), (3, "ZZ")]
                .into_iter()
                .map(|(key, country)| row(of_key(key, country), Level::Day, START, calls()))
                .collect(),
        ),
        Rows::Callers(vec![
            row(scope(1), Level::Day, START, Callers { callers: 4, exact: true }),
            row(route, Level::Day, START, Callers { callers: 99, exact: false }),
        ]),
    ];
    (rows, names(owner))
}

fn lines<'a, G: 'a, V: 'a>(
    state: &mut TopState,
    view: View,
    rows: impl IntoIterator<Item = &'a Row<G, V>>,
    names: &Names,
) where
    Row<G, V>: EncodeRow,
{
    let mut labels = Labels::new(names);
    for row in rows {
        let mut line = Vec::new();
        row.line(&mut labels, &mut line);
        state.take_line(view, &line);
    }
}

#[test]
fn rows_and_lines_of_views_make_the_same_state() {
    let (rows, names) = rows();
    let (mut of_rows, mut of_lines) = (TopState::default(), TopState::default());
    for rows in &rows {
        of_rows.take_rows(rows, &names);
        match rows {
            Rows::Usage(rows) => lines(&mut of_lines, View::Usage, rows, &names),
            Rows::Latency(rows) => lines(&mut of_lines, View::Latency, rows, &names),
            Rows::Geo(rows) => lines(&mut of_lines, View::Geo, rows, &names),
            Rows::Callers(rows) => lines(&mut of_lines, View::Callers, rows, &names),
            _ => {}
        }
    }
    assert_eq!(TopPage::of(&of_rows), TopPage::of(&of_lines));
    let shown = of_rows.keys(Level::Day, Column::Calls, 9);
    let texts = shown.iter().map(|row| (row.key_id.clone(), &*row.owner, row.countries));
    let expected = [
        (KeyId(1 << 90).to_string(), "Kestrel \"Foods\"", 2),
        (KeyId(3 << 90).to_string(), "", 0),
        ("a\u{1b}\"key".to_owned(), "sub-1", 2),
    ];
    assert!(texts.eq(expected), "{shown:#?}");
    assert_eq!((shown[0].p99_us, shown[0].callers, shown[2].p99_us), (Some(90_000), 4, None));
}

#[test]
fn a_page_shows_what_its_state_does_up_to_its_limit() {
    let mut state = TopState::default();
    let many = 3 * PAGE_KEYS as u64;
    for key in 0..many {
        // The order by errors is the reverse of that by calls.
        let usage = Usage { calls: 1_000 + key, errors_5xx: many - key, ..Usage::default() };
        let value = OwnedUsage { usage, owner: Owner::default() };
        let rows = Rows::Usage(vec![row(KeyId(u128::from(key) << 90), Level::Hour, START, value)]);
        state.take_rows(&rows, &Names::default());
    }
    let page = TopPage::of(&state);
    let sent: TopPage = serde_json::from_slice(&serde_json::to_vec(&page).unwrap()).unwrap();
    assert_eq!(sent, page);
    for by in [Column::Calls, Column::Errors] {
        assert_eq!(page.keys(Level::Hour, by, 2 * PAGE_KEYS), state.keys(Level::Hour, by, PAGE_KEYS));
    }
    assert_eq!(page.totals(Level::Hour), state.totals(Level::Hour));
    assert_eq!(page.totals(Level::Day), None);
}

#[test]
fn a_window_that_begins_forgets_the_keys_that_were_dropped() {
    let mut state = TopState::keeping(2);
    let mut take = |key, start, calls| {
        let usage = Usage { calls, ..Usage::default() };
        let rows = [row(KeyId(key), Level::Day, start, OwnedUsage { usage, owner: Owner::default() })];
        state.take_rows(&Rows::Usage(rows.into()), &Names::default());
        state.totals(Level::Day).unwrap()
    };
    for key in 1..=5 {
        take(key, START, 10 * u64::try_from(key).unwrap());
    }
    let totals = take(6, START, 1);
    assert_eq!((totals.keys, totals.calls, totals.has_more), (3, 120, true), "too few calls to be kept");
    let totals = take(1, START + DAY_MS, 1);
    assert_eq!((totals.keys, totals.calls, totals.has_more), (1, 1, false));
    assert_eq!(take(2, START + HOUR_MS, 7).keys, 1, "a row of a window before");
}

proptest! {
    #[test]
    fn the_busiest_keys_are_exact_however_many_are_dropped(
        calls in prop::collection::vec((0..40_u64, 1..20_u64), 1..400),
        kept in 1..12_usize,
    ) {
        let (mut state, mut counts) = (TopState::keeping(kept), BTreeMap::<u64, u64>::new());
        for (key, more) in calls {
            let count = counts.entry(key).or_default();
            *count += more;
            let value = OwnedUsage {
                usage: Usage { calls: *count, ..Usage::default() },
                owner: Owner::default(),
            };
            let rows = vec![row(KeyId(u128::from(key) << 64 | 1 << 127), Level::Day, START, value)];
            state.take_rows(&Rows::Usage(rows), &Names::default());

            let mut most: Vec<u64> = counts.values().copied().collect();
            most.sort_unstable_by(|a, b| b.cmp(a));
            most.truncate(kept);
            let shown: Vec<u64> =
                state.keys(Level::Day, Column::Calls, kept).iter().map(|row| row.calls).collect();
            prop_assert_eq!(shown, most);
            let totals = state.totals(Level::Day).unwrap();
            prop_assert!(totals.keys <= 2 * kept as u64);
            prop_assert_eq!(totals.has_more, totals.keys < counts.len() as u64);
        }
    }
}
