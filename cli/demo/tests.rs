//! The live view with made-up results: what a row adds, and what the screen shows of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keytide_alerts::actions::ActionEngine;
use keytide_billing::{Measure, PeriodKind, QuotaStanding};
use keytide_config::SourceKind;
use keytide_connectors::decode::DeadLetter;
use keytide_connectors::live::STEP_MS;
use keytide_connectors::sink::{JobInfo, TickFacts, TickOutput};
use keytide_dataflow::Notice;
use keytide_dataflow::detect::{Bits, Severity, Signal};
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::time::{MINUTE_MS, SECOND_MS};
use keytide_dataflow::model::{Country, Definition, KeyId, NameId, Position, RequestId, RouteId, Tick};
use keytide_dataflow::{
    Action, ActionId, ActionState, BillKey, BillRow, Change, CountryCalls, Counts, Evidence, Incident,
    IncidentId, IncidentState, KeyCountry, Late, Latency, Level, OwnedUsage, Owner, QuotaKey, QuotaNotice,
    Revision, Revocation, Row, Rows, Sample, Scope, Taken, Usage,
};
use keytide_generator::create_folder;
use keytide_worker::replay::{BoundedRun, Keep, write_incidents};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::Staged;
use super::asking::Asking;
use super::incidents::IncidentList;
use super::quotas::{QuotaList, ShownQuota};
use super::screen::{Phase, Scene, draw};
use super::summary;
use super::traffic::{AHEAD_MS, DELAY_MS, DELAYED_ONE_IN, DelayedRecords, WorldLines, earliest};
use super::view::{CallTotals, LiveView};
use super::world::{SHORTEST_STORY_MS, Worlds, configure};
use crate::progress::process;

/// 2025-06-02T08:00:00Z.
const START: Tick = 1_748_851_200_000;

fn key(number: u128) -> KeyId {
    KeyId((number * 0x9e37_79b9_7f4a_7c15) << 64 | number)
}

fn asking() -> Asking {
    Asking { listen: ([127, 0, 0, 1], 40_123).into(), subscription: "sub-00512".to_owned() }
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
    let mut view = LiveView::new(SECOND_MS);
    for (second, calls) in [(1, 10), (2, 25), (3, 25), (4, 40)] {
        let rows = vec![Rows::Usage(vec![minute(key(1), START, calls)])];
        view.take(START + second * SECOND_MS, &[tick(START + second * SECOND_MS, rows)]);
    }
    // Another worker's keys, and coarser windows, which hold the same calls again.
    let other = tick(START + 5 * SECOND_MS, vec![Rows::Usage(vec![minute(key(2), START, 7)])]);
    let hour = Row { level: Level::Hour, ..minute(key(1), START, 40) };
    view.take(START + 5 * SECOND_MS, &[other, tick(START + 5 * SECOND_MS, vec![Rows::Usage(vec![hour])])]);
    assert_eq!(view.usage_calls(), 47);
    let top: Vec<u64> = view.top_keys(9).iter().map(|line| line.recent.calls).collect();
    assert_eq!(top, [40, 7]);
    assert_eq!(view.recent().mean_us(), Some(23_400));
}

#[test]
fn after_a_minute_calls_are_not_recent_any_more() {
    let mut view = LiveView::new(SECOND_MS);
    let one = |start, calls| vec![Rows::Usage(vec![minute(key(1), start, calls)])];
    view.take(START, &[tick(START, one(START, 10))]);
    view.take(START + MINUTE_MS - 1, &[tick(START + MINUTE_MS - 1, one(START, 12))]);
    assert_eq!(view.recent().calls, 12);
    view.take(START + MINUTE_MS, &[tick(START + MINUTE_MS, one(START + MINUTE_MS, 5))]);
    assert_eq!(view.recent().calls, 7, "the first tick's ten are a minute old");
    view.take(START + 3 * MINUTE_MS, &[tick(START + 3 * MINUTE_MS, Vec::new())]);
    assert_eq!(view.recent(), CallTotals::default());
    assert!(view.top_keys(9).is_empty());
    assert_eq!(view.usage_calls(), 17);
}

#[test]
fn windows_a_day_apart_are_added_up_and_forgotten_with_their_final_rows() {
    let mut view = LiveView::new(SECOND_MS);
    let day = 24 * 60 * MINUTE_MS;
    let mut at = START;
    let mut take = |row| {
        at += SECOND_MS;
        view.take(at, &[tick(at, vec![Rows::Usage(vec![row])])]);
        (view.usage_calls(), view.kept_versions())
    };
    // One partition is read to its end before another one is begun.
    assert_eq!(take(minute(key(1), START + day, 5)), (5, 1));
    assert_eq!(take(minute(key(1), START, 10)), (15, 2));
    assert_eq!(take(minute(key(1), START, 12)), (17, 2));
    let last = |row| Row { complete: true, is_final: true, ..row };
    assert_eq!(take(last(minute(key(1), START, 12))), (17, 1), "it repeats what is known");
    assert_eq!(take(last(minute(key(2), START, 3))), (20, 1), "all that there ever was of a window");
    assert_eq!(take(last(minute(key(1), START + day, 6))), (21, 0));
}

#[test]
fn buckets_are_no_keys() {
    let mut view = LiveView::new(SECOND_MS);
    let rows = vec![minute(KeyId::ANONYMOUS, START, 30), minute(key(1), START, 20)];
    view.take(START, &[tick(START, vec![Rows::Usage(rows)])]);
    assert_eq!((view.keys(), view.anonymous(), view.unknown_keys()), (1, 30, 1));
    assert_eq!(view.top_keys(9).len(), 1);
}

// ---- what goes wrong on purpose

#[test]
fn what_is_held_back_comes_once_and_is_late_by_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let job = configure(folder.path(), "127.0.0.1:9092", 2, &asking(), None).unwrap();
    let late_from_ms = job.windows.out_of_orderness_ms + job.windows.allowed_lateness_ms;
    assert!(DELAY_MS > late_from_ms, "{late_from_ms} ms");

    let mut kept_versions = DelayedRecords::default();
    let mut taken = Vec::new();
    for number in 1..=DELAYED_ONE_IN * 2 {
        if kept_versions.takes(START + number, 3, number.to_string().as_bytes()) {
            taken.push(number);
        }
    }
    assert_eq!(taken, [DELAYED_ONE_IN, DELAYED_ONE_IN * 2]);
    let due = START + DELAYED_ONE_IN + DELAY_MS;
    assert_eq!(kept_versions.due(due - 1), None);
    assert_eq!(kept_versions.due(due), Some((3, DELAYED_ONE_IN.to_string().into_bytes().into())));
    assert_eq!(kept_versions.due(due), None);
    assert!(kept_versions.due(u64::MAX).is_some(), "in the end all are due");
    assert_eq!(kept_versions.due(u64::MAX), None);
}

// ---- which leak is staged, and that it is found

/// The row of the log that raises the incident: calls stayed at the new place for a second minute.
const RAISED: usize = 1;

/// A demo's calls until 120 s after live traffic began, as the job makes incidents of them when it reads them from a
/// file.
struct Found {
    stolen: String,
    live_ms: u64,
    log: Vec<String>,
    revocations: Vec<Value>,
    /// Texts of the mails about the row of the log that raised the incident.
    mails: Vec<String>,
}

#[allow(clippy::disallowed_methods, reason = "what the test has just had written")]
fn found(seed: u64, now_ms: u64) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let worlds = Worlds::new(60_000, 20, seed, now_ms).unwrap();
    create_folder(folder, worlds.whole()).unwrap();
    let until_ms = worlds.live_ms + 120_000;
    let mut lines: Vec<_> = worlds.all().map(|world| WorldLines::new(world.generator())).collect();
    let mut text = Vec::new();
    while let Some(next) = earliest(&mut lines).filter(|next| next.at_ms < until_ms) {
        text.extend_from_slice(&next.text);
        text.push(b'\n');
        next.advance();
    }
    let calls = folder.join("calls.jsonl");
    std::fs::write(&calls, text).unwrap();

    let mut job = configure(folder, "127.0.0.1:9092", 2, &asking(), None).unwrap();
    job.sources[0].kind = SourceKind::File { pattern: calls.to_str().unwrap().to_owned() };
    let (config, alerts, mut engine) =
        (job.fingerprint(), job.alerts.clone(), ActionEngine::new(job.alerts.policy, None));
    let out = folder.join("out");
    std::fs::create_dir(&out).unwrap();
    let (collected, ingest) =
        BoundedRun::open(job, process(true)).unwrap().run(until_ms, 0, &out, Keep::Incidents).unwrap();
    let info = JobInfo { config: &config, partitions: ingest.partitions() };
    let mut actions = Vec::new();
    let mut decide = |TickFacts { transitions, inputs, names, .. }: TickFacts<'_>| {
        let (rows, _) = engine.fold(0, inputs, transitions, &|key| names.key_text(key).into_owned());
        actions.push(rows.revocations.clone());
        rows
    };
    write_incidents(collected, info, &out, Keep::Incidents, &mut decide).unwrap();
    let rows = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(out.join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let log = rows("incident_log.jsonl");

    let clock = Arc::new(move || until_ms);
    let alerts = keytide_alerts::Outbox::open(&alerts, &[], clock).unwrap();
    let notice = Notice {
        json: log[RAISED].clone().into_bytes(),
        contacts: vec!["ops@owner.example".to_owned()],
        actions: actions.swap_remove(RAISED),
    };
    alerts.notify(until_ms, vec![notice]);
    assert_eq!(alerts.stop(Duration::from_secs(600)), 0);
    let mails = std::fs::read_dir(folder.join("mails")).unwrap();
    let mut mails: Vec<String> =
        mails.map(|mail| std::fs::read_to_string(mail.unwrap().path()).unwrap()).collect();
    mails.sort();
    Found {
        stolen: worlds.stolen().unwrap(),
        live_ms: worlds.live_ms,
        revocations: rows("revocations.jsonl").iter().map(|row| serde_json::from_str(row).unwrap()).collect(),
        log,
        mails,
    }
}

#[test]
fn only_the_stolen_key_is_found_and_it_is_not_suspended() {
    // A workday and, of another world, a weekend.
    for (seed, now_ms) in [(1, START + 33_333), (2, START + 5 * 86_400_000 + 2 * MINUTE_MS)] {
        let Found { stolen, live_ms, log, revocations, mails } = found(seed, now_ms);
        let first: TransitionJson = serde_json::from_str(&log[0]).unwrap();
        let keys: Vec<Value> = log.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert!(keys.iter().all(|row| row["key_id"] == *stolen), "{seed}: {log:#?}");
        assert_eq!((&*first.level, first.policy.as_deref()), ("alert", Some("suspend")), "{}", log[0]);
        assert!(!first.catching_up && !first.platform_event, "{}", log[0]);
        let at: jiff::Timestamp = first.at.parse().unwrap();
        assert_eq!(at.as_millisecond().cast_unsigned(), live_ms + 17_000, "the minute's end");
        let raised: TransitionJson = serde_json::from_str(&log[RAISED]).unwrap();
        assert_eq!(
            (raised.transition, &*raised.level),
            (keytide_dataflow::Change::Raised, "revoke"),
            "{}",
            log[RAISED]
        );
        let at: jiff::Timestamp = raised.at.parse().unwrap();
        assert_eq!(at.as_millisecond().cast_unsigned(), live_ms + 77_000, "the next minute's end");
        let spoken: Vec<&str> = first.signals.iter().map(|signal| &*signal.signal).collect();
        for signal in ["country", "asn", "network", "user_agent"] {
            assert!(spoken.contains(&signal), "{seed}: {spoken:?}");
        }
        let [row] = &revocations[..] else { panic!("{revocations:?}") };
        assert_eq!((&row["action"], &row["state"]), (&"suspend".into(), &"held".into()));
        assert_eq!(row["key_id"], *stolen);
        assert_eq!(row["reason"], "would have suspended the key; held: acting is off");
        let to = |address: &str| {
            mails.iter().filter(|mail| mail.contains(&format!("\r\nTo: {address}\r\n"))).count()
        };
        assert_eq!(
            (mails.len(), to("security@example.com"), to("ops@owner.example")),
            (2, 1, 1),
            "{mails:?}"
        );

        let mut incidents = IncidentList::default();
        let notice = |row: &String| Notice {
            json: row.clone().into_bytes(),
            contacts: Vec::new(),
            actions: Vec::new(),
        };
        incidents.take(&log.iter().map(notice).collect::<Vec<_>>());
        assert_eq!((incidents.count, incidents.all.len()), (1, 1));
        assert!(incidents.all[0].headline().contains("never seen"), "{}", incidents.all[0].headline());
    }
}

#[test]
fn the_summary_names_only_what_was_sent() {
    let staged = |key: Option<&str>| Staged {
        live_ms: START,
        has_history: key.is_some(),
        key: key.map(str::to_owned),
    };
    let told = |staged: &Staged, leak_calls, incidents: &IncidentList| {
        let mut text = String::new();
        summary::leaks(&mut text, staged, leak_calls, incidents).unwrap();
        text
    };
    let one = staged(Some("74cd72560fc4b2c70a0283ab54e4ec15"));
    let mut incidents = IncidentList::default();
    let text = told(&one, 0, &incidents);
    assert_eq!(text, "stolen   no key: it ended before key 74cd7256 would have been\n");
    let text = told(&one, 17, &incidents);
    assert!(text.contains("called with it, too, 17 times,"), "{text}");
    assert!(text.contains("\nfound    not yet: "), "{text}");
    incidents.take(&[stolen()]);
    let text = told(&one, 96, &incidents);
    assert!(text.contains("\nfound    key 74cd7256 of Ember Studios 116: critical, 99 %\n"), "{text}");
    assert!(!text.contains("not yet"), "{text}");
    assert!(told(&staged(None), 0, &IncidentList::default()).starts_with("leaks    none: "));
}

#[test]
fn a_history_that_was_read_is_walked_before_the_clock_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let job = configure(folder.path(), "127.0.0.1:9092", 2, &asking(), None).unwrap();
    assert!(AHEAD_MS / STEP_MS < u64::from(job.windows.idle_ticks));
}

#[test]
fn a_seed_names_the_key_whatever_the_time() {
    let stolen = |seed, now_ms| Worlds::new(60_000, 5_000, seed, now_ms).unwrap().stolen();
    assert!(stolen(1, START).is_some());
    assert_eq!(stolen(1, START), stolen(1, START + 123_456_789));
    assert_ne!(stolen(1, START), stolen(2, START));
    for seed in 3..40 {
        assert!(stolen(seed, START).is_some(), "{seed}");
    }
}

#[test]
fn live_traffic_joins_where_history_ends_17_s_before_five_minutes_do() {
    for now_ms in [START, START + 19_999, START + 40_000, START + 282_999, START + 283_000, START + 299_999] {
        let worlds = Worlds::new(60_000, 100, 1, now_ms).unwrap();
        assert_eq!(worlds.live_ms % (5 * MINUTE_MS), 283 * SECOND_MS);
        assert!((now_ms - 5 * MINUTE_MS + 1..=now_ms).contains(&worlds.live_ms), "{now_ms}");
    }
    let short = Worlds::new(SHORTEST_STORY_MS - 1, 100, 1, START).unwrap();
    assert!(short.known.is_none() && short.stolen().is_none());
}

// ---- what the screen shows

/// A minute and a half of a world with twelve keys.
fn world() -> LiveView {
    let mut view = LiveView::new(SECOND_MS);
    let customers = ["Amber Bank 1", "Kestrel Foods 2", "Meridian Analytics 3", "Cedar Games 4"];
    let routes = [
        ("GET", "/v1/orders/{id}"),
        ("POST", "/v1/payments"),
        ("GET", "/v1/customers"),
        ("DELETE", "/v1/carts/{id}"),
    ];
    let countries = [("US", 50), ("DE", 21), ("GB", 12), ("FR", 8), ("IN", 5), ("JP", 3), ("ZZ", 1)];
    let name = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
    let mut definitions: Vec<_> = customers
        .into_iter()
        .chain(["free", "team", "sub", "sub-00512", "sub-00040", "sub-00007"])
        .map(name)
        .collect();
    definitions.extend(routes.map(|(method, route)| Definition::Route {
        id: RouteId::new("", method, route),
        day: 0,
        api: "".into(),
        method: method.into(),
        route: route.into(),
    }));
    for second in 1..=90_u64 {
        let now = START + second * SECOND_MS;
        let start = Level::Minute.start(now);
        let passed = second - (start - START) / SECOND_MS + 1;
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
                let geo =
                    CountryCalls { calls: share * second * 41, errors: share, ..CountryCalls::default() };
                row(group, Level::Hour, START, geo)
            });
            output.rows.push(Rows::Geo(geo.into()));
            output.late.push(Late {
                position: Position { partition: 1, offset: second, index: 0 },
                key: key(3),
                request: RequestId::from_bits(7),
                time: now - 14 * MINUTE_MS,
                late_ms: 14 * MINUTE_MS,
                counted: true,
                proven: true,
            });
            output.letters.push(DeadLetter {
                position: Position { partition: 2, offset: second, index: 0 },
                events_before: 0,
                reason: "not JSON: it ends too early at byte 109".to_owned(),
                length: 109,
                sha256: [0; 32],
                kept: None,
                counted: false,
            });
        }
        if second == 77 {
            output.rows.extend([Rows::Quota(quotas()), Rows::Bills(bills())]);
        }
        view.take(now, &[output]);
    }
    view
}

/// Quotas that are used up, nearly used up, and hardly used.
fn quotas() -> Vec<Revision<QuotaKey, QuotaStanding>> {
    let row = |subscription, measure, period, (used, limit): (u64, u64)| {
        let key = QuotaKey { subscription: NameId::new(subscription), measure, period, start_ms: START };
        let standing = QuotaStanding {
            limit,
            used: used.into(),
            remaining: limit.saturating_sub(used),
            permille: used * 1_000 / limit,
            hard: true,
            resets_at_ms: START + 9 * 86_400_000,
        };
        Revision { key, value: Some(standing) }
    };
    vec![
        row("sub-00512", Measure::Calls, PeriodKind::Billing, (1_176, 810)),
        row("sub-00040", Measure::BytesOut, PeriodKind::Month, (850 << 20, 1_000 << 20)),
        row("sub-00007", Measure::Cost, PeriodKind::Day, (120_000, 50_000_000)),
    ]
}

fn bills() -> Vec<Revision<BillKey, BillRow>> {
    let bill = BillRow {
        end_ms: START + 9 * 86_400_000,
        currency: "EUR".parse().ok(),
        total: Some(19_957),
        lines: 2,
        adjustments: 0,
        complete: false,
        is_final: false,
        fault: None,
        customer: NameId::NONE,
        plan: NameId::NONE,
        time_zone: NameId::NONE,
    };
    let key = BillKey { subscription: NameId::new("sub-00512"), start_ms: START };
    vec![Revision { key, value: Some(bill) }]
}

#[test]
fn of_a_quota_and_of_a_bill_the_latest_period_counts() {
    let mut list = QuotaList::default();
    list.take_standings(&quotas());
    list.take_bills(&bills());
    let stolen = NameId::new("sub-00512");
    let percents = |list: &QuotaList| list.top(9).iter().map(ShownQuota::share).collect::<Vec<_>>();
    assert_eq!(percents(&list), ["145.1 %", "85.0 %", "0.2 %"]);
    assert_eq!(list.of(stolen).unwrap().used(), "1,176 of 810 calls");
    assert_eq!(list.bill(stolen).unwrap(), "199.57 EUR");
    let mut later = quotas().remove(0);
    later.key.start_ms += 86_400_000;
    later.value = later.value.map(|standing| QuotaStanding { used: 0, permille: 0, ..standing });
    list.take_standings(&[later.clone()]);
    list.take_standings(&quotas()[..1]);
    assert_eq!(percents(&list), ["85.0 %", "0.2 %", "0.0 %"], "an earlier period's row may come later");
    list.take_standings(&[Revision { value: None, ..later }]);
    list.take_bills(&[Revision { value: None, ..bills().remove(0) }]);
    assert_eq!((percents(&list).len(), list.of(stolen), list.bill(stolen)), (2, None, None));
}

#[test]
fn a_notice_is_a_line_if_it_is_the_highest_of_its_tick() {
    let mut view = LiveView::new(SECOND_MS);
    let Revision { key, value } = quotas().remove(0);
    let notice = QuotaNotice {
        key,
        seq: 3,
        percent: 100,
        standing: value.unwrap(),
        at_ms: START,
        is_highest: true,
        forecast: None,
        currency: None,
        customer: NameId::new("Ember Studios 116"),
        plan: NameId::NONE,
        contacts: NameId::NONE,
        time_zone: NameId::NONE,
    };
    let lower = QuotaNotice { seq: 2, percent: 90, is_highest: false, ..notice };
    let mut output = tick(START, vec![Rows::Notices(vec![lower, notice])]);
    output.definitions = ["sub-00512", "Ember Studios 116"]
        .map(|text| Definition::Name { id: NameId::new(text), text: text.into() })
        .into();
    view.take(START, &[output]);
    assert_eq!(view.quotas.notices, 2);
    assert_eq!(
        view.quotas.take_lines(),
        [
            "QUOTA     sub-00512 of Ember Studios 116: reached 100 % of a hard quota: 1,176 of 810 calls (145.1 %)"
        ]
    );
    assert!(view.quotas.take_lines().is_empty(), "once");
}

/// What a tick told of a stolen key.
fn stolen() -> Notice {
    let signal = |signal: &str,
                  family: &str,
                  window_s: u64,
                  seen: u64,
                  expected: Option<f64>,
                  value: &str| {
        let values = [(value, seen)].into_iter().filter(|(value, _)| !value.is_empty());
        let value = |(value, calls)| json!({ "kind": signal, "value": value, "calls": calls, "new": true });
        json!({
            "signal": signal, "family": family, "window_start": "2025-06-02T08:00:00Z", "window_s": window_s,
            "first_at": "2025-06-02T08:00:00Z", "last_at": "2025-06-02T08:00:00Z", "expected": expected, "seen": seen,
            "ratio": expected.map(|expected| seen as f64 / expected), "bits": 9.0,
            "weighted_bits": if signal == "slow" { 0.9 } else { 9.0 }, "values": values.map(value).collect::<Vec<_>>(),
        })
    };
    let row = json!({
        "incident_id": "0361eb926d6c50878a51931193c874f1", "seq": 0, "transition": "opened",
        "at": "2025-06-02T08:01:00Z", "reason": null, "early": false, "repeat": false, "catching_up": false,
        "key_id": "74cd72560fc4b2c70a0283ab54e4ec15", "subscription": "sub-00116", "customer": "Ember Studios 116",
        "plan": "business", "policy": "suspend", "key_state": "active", "level": "revoke", "score": 99,
        "state": "open", "opened_at": "2025-06-02T08:00:00Z", "last_signal_at": "2025-06-02T08:01:00Z",
        "ended_at": null, "reopenings": 0, "platform_event": false, "detector_version": 1,
        "signals": [
            signal("slow", "volume", 3_600, 106, Some(28.238), ""),
            signal("country", "origin", 60, 96, None, "PL"),
            signal("asn", "origin", 60, 96, None, "AS64563"),
            signal("network", "origin", 60, 96, None, "198.19.155.0/24"),
            signal("user_agent", "behaviour", 60, 96, None, "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"),
        ],
        "evidence": {
            "calls": 96, "known_since": "2025-06-01T00:00:00Z", "known_calls": 710, "traffic": [], "samples": [],
            "taken": { "from_new": 0, "usual": 0, "bytes_out": 0, "routes": 0, "methods": [], "statuses": [], "top_routes": [] },
            "usual": [], "other_keys": [], "earlier": [],
            "config": "0123456789abcdef",
        },
    });
    let action = Revocation {
        id: ActionId(1),
        key: key(1),
        key_id: key(1).to_string(),
        incident: IncidentId(2),
        action: Action::Suspend,
        state: ActionState::Held,
        reason: "would have suspended the key; held: acting is off".to_owned(),
        at_ms: START + MINUTE_MS,
    };
    Notice { json: serde_json::to_vec(&row).unwrap(), contacts: Vec::new(), actions: vec![action] }
}

fn screen(view: &LiveView, phase: Phase, width: u16, height: u16) -> String {
    let now = START + 90 * SECOND_MS + 400;
    let staged = Staged { live_ms: START, has_history: true, key: None };
    let scene = Scene {
        view,
        phase,
        staged: &staged,
        now,
        behind_ms: 0,
        elapsed_ms: 91_400,
        end_ms: Some(91_000),
        rate: 4_000,
        unread: 312,
        watermark: now - 5_900,
        rows: 61_234,
        row_bytes: 23 << 20,
        workers: 2,
        asking: &asking(),
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
    let mut view = world();
    view.incidents.take(&[stolen()]);
    let shown = screen(&view, Phase::Running, 80, 24);
    assert!(
        shown == include_str!("screens/80x24.txt"),
        "cli/demo/screens/80x24.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_40_by_24_the_panels_that_count_most_stand_below_each_other() {
    let mut view = world();
    view.incidents.take(&[stolen()]);
    let shown = screen(&view, Phase::Running, 40, 24);
    assert!(
        shown == include_str!("screens/40x24.txt"),
        "cli/demo/screens/40x24.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_160_by_50_there_is_more_in_them() {
    let shown = screen(&world(), Phase::Ending, 160, 50);
    assert!(
        shown == include_str!("screens/160x50.txt"),
        "cli/demo/screens/160x50.txt isn't what is shown:\n{shown}"
    );
}

/// The row of the stolen key's incident when it has grown.
fn grown() -> Incident {
    let volume = Evidence {
        signal: Signal::VolumeMinute,
        window_ms: START + MINUTE_MS,
        width_ms: MINUTE_MS,
        first_ms: START,
        last_ms: START + MINUTE_MS,
        expected: 2_000,
        seen: 480,
        bits: Bits(38_500),
        weighted: Bits(25_025),
        values: [].into_iter().collect(),
    };
    Incident {
        id: IncidentId(0x0361_eb92_6d6c_5087_8a51_9311_93c8_74f1),
        key: KeyId(0x74cd_7256_0fc4_b2c7_0a02_83ab_54e4_ec15),
        owner: Owner::default(),
        severity: Severity::Revoke,
        score: 100,
        state: IncidentState::Open,
        opened_ms: START,
        last_signal_ms: START + 2 * MINUTE_MS,
        ended_ms: None,
        signals: vec![volume],
        traffic: Vec::new(),
        samples: vec![Sample {
            position: Position { partition: 7, offset: 42, index: 1 },
            time: START,
            client: 0,
            status: 200,
        }],
        calls: 576,
        taken: Taken::default(),
        usual: Vec::new(),
        other_keys: Vec::new(),
        earlier: Vec::new(),
        reopenings: 0,
        known_since_ms: START,
        known_calls: 710,
        platform_event: false,
    }
}

#[test]
fn an_incident_is_shown_by_its_newest_row_not_only_its_transitions() {
    let mut view = LiveView::new(SECOND_MS);
    let row = |incident| tick(START, vec![Rows::Incidents(vec![incident])]);
    view.take(START, &[row(grown())]);
    assert!(view.incidents.all.is_empty(), "it has no transition yet");
    view.incidents.take(&[stolen()]);
    assert_eq!(view.incidents.all[0].ratio().unwrap(), "3.8x its usual calls");
    view.incidents.take_lines();

    view.take(START + 1, &[row(grown())]);
    let [shown] = &view.incidents.all[..] else { panic!("one is known") };
    assert_eq!(
        (shown.ratio().unwrap(), shown.severity()),
        ("240x its usual calls".into(), "critical, 100 %".into())
    );
    assert!(shown.headline().starts_with("240x its usual calls (480 in a minute"), "{}", shown.headline());
    assert_eq!((shown.last.seq, shown.last.transition), (0, Change::Opened), "of the transition");
    assert_eq!(shown.actions.len(), 1);
    assert!(view.incidents.take_lines().is_empty(), "a line is for a transition");
}

#[test]
fn incidents_and_actions_are_one_line_each() {
    let mut view = LiveView::new(SECOND_MS);
    view.incidents.take(&[stolen()]);
    let told = [
        "INCIDENT  key 74cd7256 of Ember Studios 116: leak suspected; critical, 99 %; from Poland and a system never seen \
         (AS64563), with a user agent never seen, 3.8x its usual calls for hours (106 in an hour, 28 expected)",
        "ACTION    key 74cd7256 of Ember Studios 116: would suspend the key; held: acting is off",
    ];
    assert_eq!(view.incidents.take_lines(), told);
    assert!(view.incidents.take_lines().is_empty(), "once");
}

#[test]
fn no_size_and_no_lack_of_results_is_too_much() {
    for (width, height) in [(0, 0), (1, 1), (20, 5), (79, 10), (400, 120)] {
        let mut view = world();
        view.incidents.take(&[stolen()]);
        screen(&view, Phase::Running, width, height.max(1));
        screen(&view, Phase::Reading(3), width, height.max(1));
        screen(&LiveView::new(SECOND_MS), Phase::Running, width.max(1), height);
    }
}
