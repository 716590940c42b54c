//! The operators of the detector against a fold from scratch.
//!
//! *Oracle*: incidents, the times at which they open and end, their severity and their calls equal a recount. It steps
//! each key's profile over all of its minutes. It has neither open minutes, nor first windows kept as they are, nor
//! blocks that are asked for, nor ticks. The test catches faults of the operators' own machinery. It can't catch wrong
//! arithmetic, which the two share (tested beside it).
//! *Drift*: workers, batches and the order of arrival change nothing. *Ticks*: narrow and wide ticks lead to the same
//! incidents. *Restore*: states taken in the middle lead to the same incidents. Other tests are of the guard, early
//! firing, withdrawal by tables, and decisions of people.

use std::ops::Range;

use super::*;
use keytide_dataflow::detect::{Facts, Profile, Severity, Signal, Tuning, Window};
use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};

/// 2025-06-02T00:00:00Z, a Monday.
const START: u64 = 1_748_822_400_000;
const DISORDER: u64 = 5_000;
/// The time after the last call until the input ends: every incident is over by then.
const REST_MS: u64 = 26 * HOUR_MS;
const TUNING: fn() -> Tuning = Tuning::default;

fn call(id: u64, key: u64, place: u64, time: u64) -> AccessEvent {
    AccessEvent {
        key: scenario::key(key),
        request: RequestId::new("gateway", &id.to_le_bytes()),
        client: 0xffff << 32 | u128::from(place << 8) | u128::from(id % 200),
        time,
        route: RouteId(2 + id % 3),
        user_agent: NameId(7 + place),
        position: Position { partition: 0, offset: id, index: 0 },
        latency_us: 1_000,
        bytes_in: 0,
        bytes_out: 0,
        units: 0,
        count: 1,
        late_ms: 0,
        asn: 64_500 + place as u32,
        status: 200,
        is_free: false,
        country: Country::new(["DE", "KR", "FR"][(place % 3) as usize]),
        place: CallerLocation::default(),
    }
}

/// Calls of a key beside its usual ones.
#[derive(Clone, Copy, Debug)]
struct Burst {
    key: u64,
    start: u64,
    minutes: u64,
    calls: u64,
    place: u64,
}

/// Returns calls of `keys` keys and of bursts, in the order of time. `every` is the length in hours, and the minutes
/// from a key's call to its next.
fn traffic(seed: u64, keys: u64, every: (u64, u64), bursts: &[Burst]) -> Vec<AccessEvent> {
    traffic_apart(seed, keys, every, 0, bursts)
}

/// Returns the same, each key `apart` ms later than the one before. If keys aren't called together, the guard stays
/// down.
fn traffic_apart(
    seed: u64,
    keys: u64,
    (hours, every): (u64, u64),
    apart_ms: u64,
    bursts: &[Burst],
) -> Vec<AccessEvent> {
    let mut random = SplitMix(seed);
    let mut calls = Vec::new();
    for minute in (0..hours * 60).step_by(every as usize) {
        for key in 0..keys {
            for _ in 0..2 + random.below(4) {
                let later_ms = key * apart_ms % (every * MINUTE_MS);
                calls.push((START + minute * MINUTE_MS + later_ms + random.below(MINUTE_MS), key, 0));
            }
        }
    }
    for burst in bursts {
        for minute in 0..burst.minutes {
            for _ in 0..burst.calls {
                calls.push((
                    burst.start + minute * MINUTE_MS + random.below(MINUTE_MS),
                    burst.key,
                    burst.place,
                ));
            }
        }
    }
    calls.sort_unstable();
    (0..).zip(calls).map(|(id, (time, key, place))| call(id, key, place, time)).collect()
}

/// Ticks of at most so much event time. The last one ends the input, some hours later, so that incidents end.
fn ticks(events: &[AccessEvent], width: u64, tables: &[(u64, TableChange)]) -> Vec<TickInput> {
    ticks_by(events, |_| width, tables)
}

/// Widths of ticks of a second to two minutes, by the ten minutes in which they lie.
fn uneven(seed: u64) -> impl Fn(u64) -> u64 {
    move |time| {
        let widths = [1, 7, 30, 60, 61, 90, 120, 120];
        widths[SplitMix(seed ^ (time / (10 * MINUTE_MS))).below(8) as usize] * 1_000
    }
}

/// Ticks of the width that their first event's time has.
fn ticks_by(
    events: &[AccessEvent],
    width: impl Fn(u64) -> u64,
    tables: &[(u64, TableChange)],
) -> Vec<TickInput> {
    let mut ticks: Vec<TickInput> = Vec::new();
    let (mut before, mut tables) = (0, tables.to_vec());
    let mut push = |events: Vec<AccessEvent>, watermark: u64, last: bool| {
        let changes =
            tables.extract_if(.., |(time, _)| *time <= watermark).map(|(_, change)| change).collect();
        let tick = 1_900_000_000_000 + ticks.len() as u64 * 1_000;
        let info = TickInfo {
            tick,
            watermark_before: before,
            watermark,
            cadence: watermark,
            catching_up: false,
            last,
        };
        before = watermark;
        let (decisions, definitions) = (Vec::new(), Vec::new());
        ticks.push(TickInput { info, events, tables: changes, decisions, definitions });
    };
    let of = |event: &AccessEvent| (width(event.time), event.time / width(event.time));
    for batch in events.chunk_by(|a, b| of(a) == of(b)) {
        let newest = batch.iter().map(|event| event.time).max().unwrap();
        push(batch.to_vec(), newest - DISORDER, false);
    }
    let end = events.last().map_or(START, |event| event.time);
    push(Vec::new(), end + REST_MS, false);
    push(Vec::new(), end + REST_MS, true);
    scenario::define(&mut ticks);
    ticks
}

fn options() -> Options {
    Options {
        windows: Windows::default(),
        limits: Limits::default(),
        publish: Publish::Last,
        detection: keytide_dataflow::DetectorOptions::default(),
        accounts: AccountOptions::default(),
    }
}

/// The newest version of each incident.
fn incidents(ticks: &BTreeMap<Tick, TickOutput>) -> BTreeMap<IncidentId, Incident> {
    let rows = ticks.values().flat_map(|tick| &tick.rows);
    rows.filter_map(|row| match row {
        AnyRow::Incident(incident) => Some((incident.id, incident.clone())),
        _ => None,
    })
    .collect()
}

fn log(ticks: &BTreeMap<Tick, TickOutput>) -> Vec<Transition> {
    let mut log: Vec<Transition> = ticks
        .values()
        .flat_map(|tick| &tick.rows)
        .filter_map(|row| match row {
            AnyRow::Transition(transition) => Some(transition.clone()),
            _ => None,
        })
        .collect();
    log.sort_by_key(|one| (one.incident.id, one.seq));
    log
}

/// An incident as the recount knows it.
#[derive(Debug, PartialEq)]
struct Told {
    key: KeyId,
    severity: Severity,
    last_signal_ms: u64,
    ended_ms: Option<u64>,
    calls: u64,
    /// When it was reopened: all of it lies within a week.
    reopened: usize,
}

impl Told {
    /// Returns when it ends if nothing more comes.
    fn ends_ms(&self) -> u64 {
        let quiet_min = [30, 120, 480, 1_440][self.reopened.min(3)];
        self.last_signal_ms + quiet_min * MINUTE_MS
    }
}

/// Incidents by key and opening.
fn recount(events: &[AccessEvent]) -> BTreeMap<(KeyId, u64), Told> {
    let mut windows: BTreeMap<KeyId, BTreeMap<u64, Window>> = BTreeMap::new();
    for event in events {
        let window =
            windows.entry(event.key).or_default().entry(event.time - event.time % MINUTE_MS).or_default();
        window.add(event, &[]);
    }
    let end = events.last().unwrap().time + REST_MS;
    let mut all = BTreeMap::new();
    for (key, windows) in windows {
        let mut profile = Profile::new(*windows.keys().next().unwrap());
        let mut open: Option<(u64, Told)> = None;
        let first = *windows.keys().next().unwrap();
        for start in (first..=end).step_by(MINUTE_MS as usize) {
            match windows.get(&start) {
                Some(window) => drop(profile.step(start, window, &Facts::default(), &TUNING())),
                None => profile.close(start + MINUTE_MS, &TUNING()),
            }
            if let Some((opened, told)) = open.take_if(|(_, told)| told.ends_ms() <= start) {
                let ended_ms = Some(told.ends_ms());
                all.insert((key, opened), Told { ended_ms, ..told });
            }
            let observed_ms =
                profile.observed().iter().map(|one| one.observed_ms + MINUTE_MS).max().unwrap_or(0);
            let level = profile.verdict().severity;
            let calls = windows.get(&start).map_or(0, |window| u64::from(window.calls));
            if level < Severity::Alert {
                continue;
            }
            if open.is_none() {
                let before = all.range((key, 0)..=(key, u64::MAX)).next_back().map(|(at, _)| *at);
                let told = before.and_then(|at| {
                    let is_newer = |told: &Told| told.ended_ms.unwrap() + 24 * HOUR_MS > start;
                    all.get(&at)
                        .is_some_and(is_newer)
                        .then(|| all.remove(&at))
                        .flatten()
                        .map(|told| (at.1, told))
                });
                match told {
                    Some((opened, told)) if observed_ms <= told.ended_ms.unwrap() => {
                        all.insert((key, opened), told);
                        continue;
                    }
                    Some((opened, told)) => {
                        let reopened = told.reopened + 1;
                        open = Some((
                            opened,
                            Told { ended_ms: None, severity: Severity::None, reopened, ..told },
                        ))
                    }
                    None => {
                        let told = Told {
                            key,
                            severity: level,
                            last_signal_ms: 0,
                            ended_ms: None,
                            calls: 0,
                            reopened: 0,
                        };
                        open = Some((start, told));
                    }
                }
            }
            let told = &mut open.as_mut().unwrap().1;
            told.severity = level.max(told.severity);
            told.last_signal_ms = observed_ms.max(told.last_signal_ms);
            told.calls += calls;
        }
        all.extend(open.map(|(opened, told)| ((key, opened), told)));
    }
    all
}

fn told(incidents: &BTreeMap<IncidentId, Incident>) -> BTreeMap<(KeyId, u64), Told> {
    let told = |incident: &Incident| Told {
        key: incident.key,
        severity: incident.severity,
        last_signal_ms: incident.last_signal_ms,
        ended_ms: incident.ended_ms,
        calls: incident.calls,
        reopened: incident.reopenings as usize,
    };
    incidents.values().map(|incident| ((incident.key, incident.opened_ms), told(incident))).collect()
}

/// A burst of one of `keys` that begins in one of `start`'s minutes, lasts `minutes` and has `calls`.
fn burst(
    keys: u64,
    start: Range<u64>,
    minutes: Range<u64>,
    calls: Range<u64>,
) -> impl Strategy<Value = Burst> {
    let burst = (0..keys, start, minutes, calls, 0_u64..4);
    burst.prop_map(|(key, minute, minutes, calls, place)| Burst {
        key,
        start: START + minute * MINUTE_MS,
        minutes,
        calls,
        place,
    })
}

fn bursts() -> impl Strategy<Value = Vec<Burst>> {
    prop::collection::vec(burst(4, 25 * 60..29 * 60, 1..40, 1..400), 0..4)
}

/// Bursts of three keys over 31 hours, in which incidents end, come again, and are forgotten.
fn long_bursts() -> impl Strategy<Value = Vec<Burst>> {
    prop::collection::vec(burst(3, 25 * 60..56 * 60, 1..20, 1..120), 2..7)
}

proptest! {
    #![proptest_config(cases(3))]

    #[test]
    fn incidents_of_many_keys_over_days_equal_a_recount(seed in any::<u64>(), keys in 12_u64..31, bursts in long_bursts()) {
        let mut events = traffic_apart(seed, keys, (58, 10), MINUTE_MS, &bursts);
        // Keys without bursts are called every half an hour, which is enough to be there.
        let busy: Vec<KeyId> = (0..3).map(scenario::key).collect();
        events.retain(|event| busy.contains(&event.key) || (event.time / (10 * MINUTE_MS)).is_multiple_of(3));
        let outcome = run_with(&ticks_by(&events, uneven(seed), &[]), options(), ONE, None);
        prop_assert_eq!(told(&incidents(&outcome.ticks)), recount(&events));
    }
}

/// Rows that put all keys into one plan.
fn all_of_a_plan(keys: u64) -> Vec<(u64, TableChange)> {
    let subscription = TableChange { offset: 0, row: scenario::subscription_row(0, 1), deleted: false };
    (0..keys).map(|key| (0, key_row(key, |_| ()))).chain([(0, subscription)]).collect()
}

/// Bursts of many keys within two hours: alone, and several in one minute, loud enough to be judged before it ends.
fn loud_bursts(keys: u64) -> impl Strategy<Value = Vec<Burst>> {
    let alone = prop::collection::vec(burst(keys, 30 * 60..32 * 60, 1..8, 20..900), 1..4);
    let together = (burst(1, 30 * 60..32 * 60, 1..4, 40..900), 2..keys);
    (alone, together).prop_map(|(mut bursts, (first, others))| {
        bursts.extend((0..others).map(|key| Burst { key, ..first }));
        bursts
    })
}

proptest! {
    #![proptest_config(cases(3))]

    #[test]
    fn however_ticks_are_cut_the_log_is_the_same(
        (keys, bursts) in (12_u64..31).prop_flat_map(|keys| (Just(keys), loud_bursts(keys))),
        seed in any::<u64>(), workers in prop::sample::select(vec![1, 3]),
    ) {
        let mut events = traffic_apart(seed, keys, (33, 15), MINUTE_MS, &bursts);
        // Somebody else who is refused, and a key that was revoked: odd before they are loud.
        events.iter_mut().filter(|event| event.asn != 64_500).for_each(|event| event.status = 403);
        let mut tables = all_of_a_plan(keys);
        let TableRow::Key(revoked) = &mut tables[2].1.row else { panic!("a row of keys") };
        (revoked.state, revoked.revoked_at) = (KeyState::Revoked, Some(START + 29 * HOUR_MS));
        // Nothing fires before the bursts, and narrow ticks take long.
        let wide = 2 * MINUTE_MS;
        let uneven = uneven(seed);
        let is_before = |time: u64| time < START + 30 * HOUR_MS;
        let narrow = ticks_by(&events, |time| if is_before(time) { wide } else { 1_000 }, &tables);
        let mixed = ticks_by(&events, |time| if is_before(time) { wide } else { uneven(time) }, &tables);
        let expected = log(&run_with(&ticks(&events, wide, &tables), options(), ONE, None).ticks);
        for (cut, how) in [(narrow, ONE), (mixed, How { workers, batch: 50, shuffle: seed })] {
            prop_assert_eq!(&log(&run_with(&cut, options(), how, None).ticks), &expected);
        }
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn incidents_equal_a_recount(seed in any::<u64>(), bursts in bursts(), width in 1_u64..6) {
        let events = traffic(seed, 4, (30, 10), &bursts);
        let outcome = run_with(&ticks(&events, width * 10_000, &[]), options(), ONE, None);
        prop_assert_eq!(told(&incidents(&outcome.ticks)), recount(&events));
    }

    #[test]
    fn workers_batches_and_order_make_no_difference_to_incidents(seed in any::<u64>(), bursts in bursts()) {
        let ticks = ticks(&traffic(seed, 4, (30, 10), &bursts), 60_000, &[]);
        let expected = run_with(&ticks, options(), ONE, None).ticks;
        let how = How { workers: 3, batch: 7, shuffle: seed };
        prop_assert!(run_with(&ticks, options(), how, None).ticks == expected);
    }

    #[test]
    fn a_restore_in_the_middle_makes_no_difference_to_incidents(seed in any::<u64>(), bursts in bursts(), cut in 160_usize..190) {
        let ticks = ticks(&traffic(seed, 4, (30, 10), &bursts), 60_000, &[]);
        let expected = run_with(&ticks, options(), ONE, None).ticks;
        let (first, rest) = ticks.split_at(cut.min(ticks.len() - 1));
        let two = How { workers: 2, batch: 50, shuffle: 1 };
        let begun = run_with(first, options(), two, None);
        let ended = run_with(rest, options(), ONE, Some(begun.snapshot));
        let mut got = begun.ticks;
        got.extend(ended.ticks);
        let rows = |ticks: &BTreeMap<Tick, TickOutput>| (incidents(ticks), log(ticks));
        prop_assert!(rows(&got) == rows(&expected));
    }
}

/// A leak: 200 calls a minute from a new place, from the second day on.
const LEAK: Burst = Burst { key: 1, start: START + 30 * HOUR_MS, minutes: 20, calls: 200, place: 1 };

fn of_key(incidents: &BTreeMap<IncidentId, Incident>, key: u64) -> Vec<Incident> {
    incidents.values().filter(|incident| incident.key == scenario::key(key)).cloned().collect()
}

#[test]
fn a_leak_opens_rises_and_ends_with_evidence() {
    let events = traffic(7, 4, (32, 5), &[LEAK]);
    let outcome = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None);
    let found = incidents(&outcome.ticks);
    assert_eq!(found.len(), 1, "{found:#?}");
    let incident = &of_key(&found, 1)[0];
    assert_eq!((incident.severity, incident.state), (Severity::Revoke, IncidentState::Ended));
    assert!((LEAK.start..=LEAK.start + MINUTE_MS).contains(&incident.opened_ms), "{}", incident.opened_ms);
    assert_eq!(incident.id, IncidentId::new(scenario::key(1), incident.opened_ms));
    assert!((3_800..4_200).contains(&incident.calls), "{}", incident.calls);
    let country = incident.signals.iter().find(|one| one.signal == Signal::Country).unwrap();
    assert_eq!(country.values[0].value, EvidenceValue::Country(Country::new("KR")));
    let volume = incident.signals.iter().find(|one| one.signal == Signal::VolumeMinute).unwrap();
    assert!(volume.seen >= 180 && volume.expected < 10_000, "{volume:?}");
    let from_there = incident.samples.iter().filter(|sample| sample.client >> 8 & 0xff == 1).count();
    assert!(from_there > 0, "{:?}", incident.samples);
    assert!(incident.traffic.windows(2).all(|two| two[0].start_ms < two[1].start_ms));
    let changes: Vec<Change> = log(&outcome.ticks).iter().map(|one| one.change).collect();
    assert_eq!(changes.first(), Some(&Change::Opened));
    assert_eq!(changes.last(), Some(&Change::Ended));
}

#[test]
fn an_open_minute_that_is_beyond_doubt_is_told_before_it_ends_and_the_incident_is_the_same() {
    // At home, with the usual agent, in a system that is new: odd, and no alert before it is loud.
    let quiet = Burst { calls: 3, minutes: 3, place: 3, ..LEAK };
    let loud = Burst { calls: 3_000, start: LEAK.start + 3 * MINUTE_MS, minutes: 5, ..quiet };
    let mut events = traffic(7, 4, (32, 5), &[quiet, loud]);
    for event in &mut events {
        event.user_agent = NameId::NONE;
        if event.asn == 64_503 && event.time >= loud.start {
            event.status = 403;
        }
    }
    let narrow = run_with(&ticks(&events, 1_000, &[]), options(), ONE, None).ticks;
    let wide = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None).ticks;
    let first = log(&narrow).remove(0);
    assert!(first.early && first.change == Change::Opened, "{first:?}");
    let opened =
        narrow.iter().find(|(_, tick)| tick.rows.iter().any(|row| matches!(row, AnyRow::Transition(_))));
    let calls_by_then =
        first.incident.signals.iter().find(|one| one.signal == Signal::VolumeMinute).unwrap().seen;
    assert!(log(&narrow).iter().all(|one| !one.early || one.incident.severity == Severity::Alert));
    assert!(log(&narrow).iter().any(|one| one.change == Change::Raised && !one.early));
    assert!(calls_by_then < 1_500 && opened.is_some(), "{calls_by_then}");
    assert_eq!(log(&narrow), log(&wide));
}

/// One key is loud in the first ten seconds of a minute, 13 others in its last 30: for a minute's end that is a platform
/// event, for its first mark it isn't.
#[test]
fn a_key_that_fires_before_others_do_is_told_however_ticks_are_cut() {
    let quiet = Burst { key: 0, calls: 3, minutes: 3, place: 3, ..LEAK };
    let mut events = traffic(7, 14, (31, 5), &[quiet]);
    let loud_ms = LEAK.start + 3 * MINUTE_MS;
    for key in 0..14 {
        let (from_ms, place) = if key == 0 { (loud_ms, 3) } else { (loud_ms + 30_000, 0) };
        let calls =
            (0..400).map(|number| call(1_000_000 + 1_000 * key + number, key, place, from_ms + number * 20));
        events.extend(calls);
    }
    events.sort_by_key(|event| event.time);
    for event in &mut events {
        event.user_agent = NameId::NONE;
        if event.asn == 64_503 {
            event.status = 403;
        }
    }
    let logs = [3_000, 60_000, 2 * MINUTE_MS]
        .map(|width| log(&run_with(&ticks(&events, width, &all_of_a_plan(14)), options(), ONE, None).ticks));
    assert!(logs.iter().all(|log| *log == logs[0]));
    let first = logs[0].iter().find(|one| one.early).unwrap();
    assert_eq!((first.incident.key, first.at_ms), (scenario::key(0), loud_ms + 10_000));
    assert_eq!(logs[0].iter().filter(|one| one.early).count(), 1, "{:#?}", logs[0]);
}

#[test]
fn an_early_firing_never_says_revoke() {
    // A revoked key is a hard fact with its first call; the other is loud and refused, in a system that is new.
    let revoked = Burst { key: 2, calls: 20, minutes: 2, place: 0, ..LEAK };
    let quiet = Burst { calls: 3, minutes: 3, place: 3, ..LEAK };
    let loud = Burst { calls: 3_000, start: LEAK.start + 3 * MINUTE_MS, minutes: 2, ..quiet };
    let mut events = traffic(7, 4, (31, 5), &[revoked, quiet, loud]);
    for event in &mut events {
        event.user_agent = NameId::NONE;
        if event.asn == 64_503 && event.time >= loud.start {
            event.status = 403;
        }
    }
    let row = key_row(2, |row| (row.state, row.revoked_at) = (KeyState::Revoked, Some(START + 29 * HOUR_MS)));
    let ticks = ticks(&events, 1_000, &[(START + 29 * HOUR_MS, row)]);
    let outcome = run_with(&ticks, options(), ONE, None);
    let early: Vec<_> = log(&outcome.ticks).into_iter().filter(|one| one.early).collect();
    let of_early: BTreeSet<KeyId> = early.iter().map(|one| one.incident.key).collect();
    assert_eq!(of_early.len(), 2, "{early:#?}");
    assert!(early.iter().all(|one| one.incident.severity == Severity::Alert));
    // Rows never exceed the log before their first window is over, and revoke afterwards.
    for tick in &ticks {
        let Some(output) = outcome.ticks.get(&tick.info.tick) else { continue };
        for row in &output.rows {
            if let AnyRow::Incident(incident) = row
                && tick.info.watermark < incident.opened_ms + MINUTE_MS
            {
                assert_eq!(incident.severity, Severity::Alert, "{incident:#?}");
            }
        }
    }
    let ended = incidents(&outcome.ticks);
    let revoking: BTreeSet<KeyId> =
        ended.values().filter(|one| one.severity == Severity::Revoke).map(|one| one.key).collect();
    assert_eq!(revoking, of_early);
}

/// Returns the same calls, those of place 3 as if from another network of the usual system, by the usual client.
fn in_the_usual_system(mut events: Vec<AccessEvent>) -> Vec<AccessEvent> {
    for event in events.iter_mut().filter(|event| event.asn == 64_503) {
        (event.asn, event.user_agent) = (64_500, NameId(7));
    }
    events
}

#[test]
fn what_comes_again_is_judged_by_itself() {
    let first = Burst { minutes: 5, ..LEAK };
    let at_home = Burst { start: LEAK.start + 3 * HOUR_MS, minutes: 30, calls: 400, place: 3, ..LEAK };
    let events = in_the_usual_system(traffic(7, 4, (36, 5), &[first, at_home]));
    let outcome = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None);
    let log = log(&outcome.ticks);
    let is_second = |one: &&Transition| one.change == Change::Reopened && one.at_ms > at_home.start;
    let reopened = log.iter().find(is_second).unwrap();
    assert_eq!(log[0].incident.severity, Severity::Alert);
    // Calls that stay at a new place are more than a visit.
    assert_eq!((log[1].change, log[1].incident.severity), (Change::Raised, Severity::Revoke));
    assert_eq!(reopened.incident.severity, Severity::Alert, "{log:#?}");
}

#[test]
fn what_all_keys_do_together_is_no_incident_of_each() {
    // Everybody calls eight times as much for 20 minutes; one key a hundred times as much, from elsewhere.
    let mut bursts: Vec<Burst> = (0..30).map(|key| Burst { key, calls: 30, place: 0, ..LEAK }).collect();
    bursts[3] = Burst { key: 3, calls: 400, place: 1, ..LEAK };
    let outcome = run_with(&ticks(&traffic(7, 30, (32, 5), &bursts), MINUTE_MS, &[]), options(), ONE, None);
    let found = incidents(&outcome.ticks);
    assert_eq!(
        found.values().map(|one| one.key).collect::<BTreeSet<_>>(),
        [scenario::key(3)].into(),
        "{found:#?}"
    );
    assert!(of_key(&found, 3)[0].platform_event);
    // The same of one key alone is an incident.
    let alone = |place| {
        let events = traffic(7, 30, (32, 5), &[Burst { calls: 400, place, ..LEAK }]);
        run_with(&ticks(&in_the_usual_system(events), MINUTE_MS, &[]), options(), ONE, None)
    };
    assert_eq!(of_key(&incidents(&alone(3).ticks), 1).len(), 1);
    // The owner's own machines may do that.
    assert_eq!(of_key(&incidents(&alone(0).ticks), 1).len(), 0);
}

/// Changes that affect all keys: another geo database, twice as many calls, a gap and then all of it at once.
#[test]
fn what_happens_to_all_keys_revokes_none() {
    let from = START + 30 * HOUR_MS;
    let usual = || traffic(7, 30, (34, 5), &[]);
    let mut swapped = usual();
    for event in swapped.iter_mut().filter(|event| event.time >= from) {
        (event.asn, event.country) = (event.asn + 1_000, Country::new("FR"));
    }
    let mut doubled = usual();
    let again = |event: &AccessEvent| call(event.position.offset | 1 << 40, 0, 0, event.time);
    let more: Vec<AccessEvent> = doubled
        .iter()
        .filter(|event| event.time >= from)
        .map(|event| AccessEvent { key: event.key, ..again(event) })
        .collect();
    doubled.extend(more);
    doubled.sort_by_key(|event| event.time);
    let mut late = usual();
    late.retain(|event| !(from..from + 2 * HOUR_MS).contains(&event.time));
    for (what, events) in [("swapped", swapped), ("doubled", doubled), ("a gap", late)] {
        let found = incidents(&run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None).ticks);
        let revoked = found.values().filter(|one| one.severity == Severity::Revoke).count();
        assert_eq!(revoked, 0, "{what}: {found:#?}");
        assert!(found.len() <= 1, "{what}: {} of 30 keys", found.len());
    }
}

fn key_row(key: u64, change: impl FnOnce(&mut KeyRow)) -> TableChange {
    let TableRow::Key(mut row) = scenario::key_row(key, 0, None) else { panic!("a row of keys") };
    change(&mut row);
    TableChange { offset: 0, row: TableRow::Key(row), deleted: false }
}

#[test]
fn what_the_tables_take_back_is_withdrawn_and_stays_so() {
    // Whom the place and the agent give away, not how often he calls.
    let quiet = Burst { calls: 1, minutes: 60, ..LEAK };
    let events = traffic(7, 4, (32, 5), &[quiet]);
    let allowed = key_row(1, |row| {
        row.allowed = [Allowance::Asn(64_501), Allowance::Country(Country::new("KR"))].into()
    });
    let tables = [(START, key_row(1, |_| ())), (LEAK.start + 30 * MINUTE_MS, allowed)];
    let outcome = run_with(&ticks(&events, MINUTE_MS, &tables), options(), ONE, None);
    let log = log(&outcome.ticks);
    let changes: Vec<Change> = log.iter().map(|one| one.change).collect();
    assert_eq!(changes.last(), Some(&Change::Withdrawn), "{changes:?}");
    assert_eq!(log.last().unwrap().reason, Some(Reason::Allowed));
    assert_eq!(of_key(&incidents(&outcome.ticks), 1)[0].state, IncidentState::Withdrawn);
    // Allowed before, there is none.
    let before = [(START, tables[1].1.clone())];
    let outcome = run_with(&ticks(&events, MINUTE_MS, &before), options(), ONE, None);
    assert_eq!(incidents(&outcome.ticks).len(), 0);
}

/// Adds decisions to the ticks after which the watermark has passed their times.
fn decided(mut ticks: Vec<TickInput>, decisions: &[(u64, KeyDecision)]) -> Vec<TickInput> {
    for (time, decision) in decisions {
        let tick = ticks.iter_mut().find(|tick| tick.info.watermark_before >= *time).unwrap();
        tick.decisions.push(DecisionRow { key: scenario::key(1), decision: *decision });
    }
    ticks
}

/// A quiet leak of key 1 for eight hours, which is an incident all along; and the id of that incident.
fn long_leak() -> (Vec<AccessEvent>, IncidentId) {
    let events = traffic(7, 2, (39, 5), &[Burst { calls: 3, minutes: 8 * 60, ..LEAK }]);
    let log = told_with(&events, &[], &[]);
    (events, log[0].incident.id)
}

/// Ticks of a minute from an hour before the leak on. Nothing happens before, and narrow ticks take long.
fn ticks_of_leak(events: &[AccessEvent], tables: &[(u64, TableChange)]) -> Vec<TickInput> {
    let width = |time: u64| if time < LEAK.start - HOUR_MS { 2 * MINUTE_MS } else { MINUTE_MS };
    ticks_by(events, width, tables)
}

/// The log of a run with decisions, and with rows of tables at their times.
fn told_with(
    events: &[AccessEvent],
    decisions: &[(u64, KeyDecision)],
    tables: &[(u64, TableChange)],
) -> Vec<Transition> {
    log(&run_with(&decided(ticks_of_leak(events, tables), decisions), options(), ONE, None).ticks)
}

#[test]
fn an_incident_that_is_dismissed_is_withdrawn_and_only_other_signals_open_it_again() {
    let (mut events, id) = long_leak();
    let at = LEAK.start + HOUR_MS;
    let dismissed = [(at, KeyDecision::Dismiss(id))];
    let told = told_with(&events, &dismissed, &[]);
    assert!(told.iter().all(|one| one.incident.id == id));
    let last = told.last().unwrap();
    assert_eq!(
        (last.change, last.reason),
        (Change::Withdrawn, Some(Reason::Dismissed)),
        "{:?}",
        changes(&told, 1)
    );
    assert!(last.at_ms - at < 3 * MINUTE_MS);
    // It went on for seven hours. Another incident isn't meant, and what isn't open isn't withdrawn.
    let other = [(at, KeyDecision::Dismiss(IncidentId(7))), (LEAK.start - HOUR_MS, KeyDecision::Dismiss(id))];
    assert!(told_with(&events, &other, &[]).iter().all(|one| one.change != Change::Withdrawn));

    // Somebody else comes.
    let from = at + 2 * HOUR_MS;
    let another = traffic(7, 0, (0, 5), &[Burst { start: from, place: 2, ..LEAK }]);
    events.extend(another.into_iter().map(|event| AccessEvent {
        request: RequestId::new("gateway", &(event.position.offset | 1 << 40).to_le_bytes()),
        ..event
    }));
    events.sort_by_key(|event| event.time);
    let told = told_with(&events, &dismissed, &[]);
    let again = told.iter().find(|one| one.seq > last.seq).expect("another signal opens it");
    assert_eq!((again.change, again.incident.id), (Change::Reopened, id));
    assert!((from..from + 4 * MINUTE_MS).contains(&again.at_ms), "{again:?}");
    let is_known = |one: &Evidence| one.values.iter().any(|of| of.value == EvidenceValue::Asn(64_501));
    assert!(!again.incident.signals.iter().any(is_known), "{again:?}");
}

#[test]
fn a_muted_key_has_no_incident_until_its_mute_ends_or_a_leak_is_reported() {
    let (events, id) = long_leak();
    let until_ms = LEAK.start + 5 * HOUR_MS;
    let muted = [(LEAK.start - HOUR_MS, KeyDecision::Mute { until_ms })];
    let told = told_with(&events, &muted, &[]);
    let opened = told.iter().find(|one| one.change == Change::Opened).unwrap();
    assert!((until_ms..until_ms + 4 * MINUTE_MS).contains(&opened.at_ms), "{opened:?}");
    assert_ne!(opened.incident.id, id);
    // One that is open isn't told of further, and ends as the others do.
    let later = [(LEAK.start + HOUR_MS, KeyDecision::Mute { until_ms: LEAK.start + 40 * HOUR_MS })];
    let told = told_with(&events, &later, &[]);
    assert_eq!(changes(&told, 1).last(), Some(&(Change::Ended, false)));
    assert!(told.last().unwrap().at_ms < LEAK.start + 2 * HOUR_MS);
    // A mute that is over before it begins ends another.
    let ended = [muted[0], (LEAK.start + HOUR_MS, KeyDecision::Mute { until_ms: 0 })];
    let opened = told_with(&events, &ended, &[])[0].clone();
    assert!((HOUR_MS..HOUR_MS + 4 * MINUTE_MS).contains(&(opened.at_ms - LEAK.start)), "{opened:?}");
    // Nobody knew of the report.
    let leak = LeakRow { key: scenario::key(1), source: NameId(1), url: NameId(2), reported_at: None };
    let leak = TableChange { offset: 1, row: TableRow::Leak(leak), deleted: false };
    let told =
        told_with(&events, &muted, &[(LEAK.start, key_row(1, |_| ())), (LEAK.start + 2 * HOUR_MS, leak)]);
    let opened = &told[0];
    assert_eq!((opened.change, opened.incident.severity), (Change::Opened, Severity::Revoke));
    assert!((2 * HOUR_MS..2 * HOUR_MS + 4 * MINUTE_MS).contains(&(opened.at_ms - LEAK.start)), "{opened:?}");
}

#[test]
fn what_a_person_accepts_is_withdrawn_and_never_an_incident_again() {
    let (events, id) = long_leak();
    let accepted = [(LEAK.start + HOUR_MS, KeyDecision::Accept)];
    let told = told_with(&events, &accepted, &[]);
    let last = told.last().unwrap();
    assert_eq!((last.incident.id, last.change, last.reason), (id, Change::Withdrawn, Some(Reason::Accepted)));
}

proptest! {
    #![proptest_config(cases(3))]

    #[test]
    fn decisions_are_the_same_for_any_workers_and_outlive_a_restore(
        seed in any::<u64>(), left in 10_usize..200,
        decisions in prop::collection::vec((0_u64..180, 0_u8..3), 1..5),
    ) {
        let events = traffic(seed, 2, (33, 5), &[Burst { calls: 30, minutes: 150, ..LEAK }]);
        let ticks = ticks_of_leak(&events, &[]);
        let id = log(&run_with(&ticks, options(), ONE, None).ticks)[0].incident.id;
        let mut decisions: Vec<(u64, KeyDecision)> = decisions
            .into_iter()
            .map(|(minute, which)| {
                let at = LEAK.start + minute * MINUTE_MS;
                let decision = match which {
                    0 => KeyDecision::Dismiss(id),
                    1 => KeyDecision::Mute { until_ms: at + 30 * MINUTE_MS },
                    _ => KeyDecision::Accept,
                };
                (at, decision)
            })
            .collect();
        decisions.sort_by_key(|(at, _)| *at);
        let ticks = decided(ticks, &decisions);
        let expected = run_with(&ticks, options(), ONE, None).ticks;
        let how = How { workers: 3, batch: 7, shuffle: seed };
        prop_assert!(run_with(&ticks, options(), how, None).ticks == expected);
        let (first, rest) = ticks.split_at(ticks.len() - left);
        let begun = run_with(first, options(), How { workers: 2, batch: 50, shuffle: 1 }, None);
        let ended = run_with(rest, options(), ONE, Some(begun.snapshot));
        let mut got = begun.ticks;
        got.extend(ended.ticks);
        let rows = |ticks: &BTreeMap<Tick, TickOutput>| (incidents(ticks), log(ticks));
        prop_assert!(rows(&got) == rows(&expected));
    }
}

#[test]
fn a_reported_key_is_an_incident_without_a_call_and_a_revoked_one_with_its_first() {
    let leak = |key: u64| TableChange {
        offset: 1,
        row: TableRow::Leak(LeakRow {
            key: scenario::key(key),
            source: NameId::new("scanner"),
            url: NameId::new("https://git.example/x"),
            reported_at: None,
        }),
        deleted: false,
    };
    let revoked =
        key_row(2, |row| (row.state, row.revoked_at) = (KeyState::Revoked, Some(START + 29 * HOUR_MS)));
    let tables = [
        (START, key_row(1, |_| ())),
        (START, key_row(9, |_| ())),
        (START + 30 * HOUR_MS, leak(1)),
        // Key 9 never called but has a row; key 8 has neither.
        (START + 30 * HOUR_MS, leak(9)),
        (START + 30 * HOUR_MS, leak(8)),
        (START + 30 * HOUR_MS, revoked),
    ];
    let outcome = run_with(&ticks(&traffic(7, 4, (32, 5), &[]), MINUTE_MS, &tables), options(), ONE, None);
    let found = incidents(&outcome.ticks);
    for (key, signal) in [(1, Signal::Reported), (9, Signal::Reported), (2, Signal::Revoked)] {
        let incident = &of_key(&found, key)[0];
        assert_eq!((incident.severity, incident.signals[0].signal), (Severity::Revoke, signal), "{key}");
    }
    assert_eq!(found.len(), 3);
    let report = &of_key(&found, 9)[0].signals[0].values[0].value;
    assert_eq!(*report, EvidenceValue::Report(NameId::new("scanner"), NameId::new("https://git.example/x")));
}

#[test]
fn a_call_behind_the_watermark_counts_and_is_not_judged() {
    let mut events = traffic(7, 2, (2, 5), &[]);
    let mut late = ticks(&events, MINUTE_MS, &[]);
    let straggler = call(1 << 40, 1, 1, START);
    late[5].events.push(straggler);
    let outcome = run_with(&late, options(), ONE, None);
    assert_eq!(outcome.ticks.values().map(|tick| tick.detector_late).sum::<u64>(), 1);
    events.push(straggler);
    assert_eq!(outcome.ticks.values().map(|tick| tick.events).sum::<u64>(), events.len() as u64);
}

#[test]
fn buckets_of_keys_are_never_watched() {
    for bucket in KeyId::BUCKETS {
        let mut events = traffic(7, 4, (32, 5), &[LEAK]);
        let of_leak = events.iter_mut().filter(|event| event.key == scenario::key(1));
        of_leak.for_each(|event| event.key = bucket);
        let outcome = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None);
        assert_eq!(incidents(&outcome.ticks).len(), 0, "{bucket}");
    }
}

fn changes(log: &[Transition], key: u64) -> Vec<(Change, bool)> {
    let of_key = log.iter().filter(|one| one.incident.key == scenario::key(key));
    of_key.map(|one| (one.change, one.is_repeat)).collect()
}

#[test]
fn an_incident_that_grows_is_updated_hourly_at_most() {
    let grows =
        |minutes, calls| Burst { start: LEAK.start + minutes * MINUTE_MS, minutes: 30, calls, ..LEAK };
    let bursts = [grows(0, 20), grows(30, 100), grows(60, 500), grows(90, 600), grows(120, 700)];
    let events = traffic(7, 4, (34, 5), &bursts);
    let log = log(&run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None).ticks);
    let updates: Vec<&Transition> = log.iter().filter(|one| one.change == Change::Updated).collect();
    // Fivefold after half an hour; fivefold again at once, but not told before an hour is over.
    assert_eq!(updates.len(), 2, "{:?}", changes(&log, 1));
    assert!(updates[0].at_ms - LEAK.start <= 33 * MINUTE_MS);
    assert_eq!(updates[1].at_ms, updates[0].at_ms + HOUR_MS);
    let ratio = |one: &Transition| one.incident.signals.iter().map(|one| one.seen).max().unwrap();
    assert!(ratio(updates[1]) >= 4 * ratio(updates[0]));
}

#[test]
fn what_comes_back_again_and_again_is_told_less_and_less() {
    // Two minutes of a stranger every 70 minutes, for more than a day.
    let visit = |number: u64| Burst { start: LEAK.start + number * 70 * MINUTE_MS, minutes: 2, ..LEAK };
    let bursts: Vec<Burst> = (0..26).map(visit).collect();
    let events = traffic(7, 4, (66, 5), &bursts);
    let outcome = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None);
    let log = log(&outcome.ticks);
    let told: Vec<Change> = log.iter().filter(|one| !one.is_repeat).map(|one| one.change).collect();
    let quiet: Vec<u64> = log
        .iter()
        .filter(|one| one.change == Change::Ended)
        .map(|one| (one.incident.ended_ms.unwrap() - one.incident.last_signal_ms) / MINUTE_MS)
        .collect();
    // After half an hour without signals, and after two hours, which the visits never are apart.
    assert_eq!(quiet, [30, 120], "{:?}", changes(&log, 1));
    assert_eq!(told.iter().filter(|change| **change == Change::Reopened).count(), 1, "{told:?}");
    let incident = &of_key(&incidents(&outcome.ticks), 1)[0];
    assert_eq!((incident.reopenings, incident.state), (1, IncidentState::Ended));
}

#[test]
fn a_revoked_key_is_a_notice_while_it_is_refused_and_the_worst_once_it_is_answered() {
    let refused = Burst { calls: 40, minutes: 60, ..LEAK };
    let answered = Burst { start: LEAK.start + HOUR_MS, calls: 1, minutes: 2, ..LEAK };
    let mut events = traffic(7, 4, (34, 5), &[refused, answered]);
    let revoked_ms = LEAK.start - HOUR_MS;
    events.retain(|event| event.asn != 64_500 || event.key != scenario::key(1) || event.time < revoked_ms);
    for event in events.iter_mut().filter(|event| event.asn == 64_501 && event.time < answered.start) {
        event.status = 401;
    }
    let row = key_row(1, |row| (row.state, row.revoked_at) = (KeyState::Revoked, Some(revoked_ms)));
    let ticks = ticks(&events, MINUTE_MS, &[(revoked_ms, row)]);
    let log = log(&run_with(&ticks, options(), ONE, None).ticks);
    let steps: Vec<(Change, Severity, u64)> = log
        .iter()
        .map(|one| (one.change, one.incident.severity, (one.at_ms - LEAK.start) / MINUTE_MS))
        .collect();
    assert_eq!((steps[0].0, steps[0].1), (Change::Opened, Severity::Notice), "{steps:?}");
    assert!(steps[0].2 <= 1, "{steps:?}");
    let raised = steps.iter().find(|step| step.1 > Severity::Notice).unwrap();
    assert_eq!((raised.0, raised.1, raised.2), (Change::Raised, Severity::Revoke, 61), "{steps:?}");
}

#[test]
fn an_incident_has_what_was_taken_what_is_usual_other_keys_and_earlier_incidents() {
    let second = Burst { start: LEAK.start + 40 * HOUR_MS, place: 2, ..LEAK };
    // The same stranger tries two keys of another customer.
    let tries = [0, 2].map(|key| Burst { key, start: LEAK.start - HOUR_MS, minutes: 1, calls: 2, place: 1 });
    let mut events = traffic(7, 4, (74, 5), &[&[LEAK, second][..], &tries[..]].concat());
    for event in events.iter_mut().filter(|event| event.asn == 64_501) {
        event.bytes_out = 1_000;
    }
    let outcome = run_with(&ticks(&events, MINUTE_MS, &[]), options(), ONE, None);
    let of_one = of_key(&incidents(&outcome.ticks), 1);
    assert_eq!(of_one.len(), 2, "{of_one:#?}");
    let (first, later) = match of_one[0].opened_ms < of_one[1].opened_ms {
        true => (&of_one[0], &of_one[1]),
        false => (&of_one[1], &of_one[0]),
    };
    assert_eq!(first.taken.bytes_out, 20 * 200 * 1_000);
    assert_eq!(first.taken.statuses, [(200, first.calls)]);
    assert_eq!(first.taken.routes.iter().map(|(_, calls)| calls).sum::<u64>(), first.calls);
    assert_eq!(first.taken.from_new, 4_000);
    assert!((20..=first.calls - 4_000).contains(&first.taken.usual), "{}", first.taken.usual);
    let country = first.usual.iter().find(|usual| matches!(usual.value, EvidenceValue::Country(_))).unwrap();
    assert_eq!((country.value, country.share), (EvidenceValue::Country(Country::new("DE")), 1_000));
    let others: Vec<KeyId> = first.other_keys[0].named.iter().map(|named| named.key).collect();
    assert_eq!(
        others,
        [scenario::key(0), scenario::key(2)]
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!((first.earlier.len(), later.earlier.len()), (0, 1));
    let earlier = later.earlier[0];
    assert_eq!((earlier.id, earlier.opened_ms), (first.id, first.opened_ms));
    assert_eq!(Some(earlier.ended_ms), first.ended_ms);
}

/// Rows that give each of `keys` keys a customer of its own.
fn customers(keys: u64) -> Vec<(u64, TableChange)> {
    let subscription = |number: u64| {
        let row = scenario::subscription_row(number, number + 1);
        (0, TableChange { offset: number, row, deleted: false })
    };
    let key = |key: u64| {
        let row = scenario::key_row(key, key, None);
        (0, TableChange { offset: 100 + key, row, deleted: false })
    };
    (0..keys).map(subscription).chain((0..keys).map(key)).collect()
}

#[test]
fn a_stranger_with_several_customers_keys_is_found_by_that() {
    // Two calls with each of six keys, an hour together: too few to say anything by themselves.
    let tries = |keys: u64| -> Vec<Burst> {
        let one =
            |key| Burst { key, start: LEAK.start + key * 8 * MINUTE_MS, minutes: 1, calls: 2, place: 3 };
        (0..keys).map(one).collect()
    };
    let found = |keys, tables: &[(u64, TableChange)]| {
        let events = in_the_usual_system(traffic(7, 8, (34, 5), &tries(keys)));
        // From a system and with a client that are new, in the usual country.
        let events: Vec<AccessEvent> = events
            .into_iter()
            .map(|event| match event.client >> 8 & 0xff {
                3 => AccessEvent { asn: 64_503, client: event.client & !0xff | 9, ..event },
                _ => event,
            })
            .collect();
        let outcome = run_with(&ticks(&events, MINUTE_MS, tables), options(), ONE, None);
        log(&outcome.ticks)
    };
    let all = found(6, &customers(8));
    let keys: BTreeSet<KeyId> = all.iter().map(|one| one.incident.key).collect();
    assert_eq!(keys, (0..6).map(scenario::key).collect(), "{all:#?}");
    // The first ones waited for the others.
    let opened = all.iter().find(|one| one.incident.key == scenario::key(0)).unwrap();
    assert!((16..40).contains(&((opened.at_ms - LEAK.start) / MINUTE_MS)), "{opened:#?}");
    assert!(opened.incident.signals.iter().any(|one| one.signal == Signal::SharedNetwork));
    // Neither one key nor the keys of one customer.
    assert_eq!(found(1, &customers(8)), []);
    assert_eq!(found(6, &[]), []);
}

/// The most keys of a bucket that are observed at once.
const ROOM: usize = 64;
/// The minute in which many keys are odd together.
const TOGETHER: u64 = LEAK.start + 7 * MINUTE_MS;

/// Returns a key of one bucket.
fn crowded(key: u64) -> KeyId {
    KeyId(scenario::key(key).0 & !(0xff << 24))
}

/// Calls of `keys` keys of one bucket, which are called every 20 minutes: too seldom for a burst, often enough that a new
/// place and a new agent say something. In one minute all but key 0 are called from elsewhere. `others` keys are called in
/// that minute and the one before: enough of them keep the guard down.
fn together(seed: u64, keys: u64, others: u64) -> Vec<AccessEvent> {
    let mut random = SplitMix(seed);
    let mut calls = Vec::new();
    for start in (START..TOGETHER).step_by(20 * MINUTE_MS as usize) {
        calls.extend((0..keys).map(|key| (start + random.below(MINUTE_MS), crowded(key), 0, 200)));
    }
    let elsewhere = |key| u64::from(key > 0);
    calls
        .extend((0..keys).map(|key| (TOGETHER + random.below(MINUTE_MS), crowded(key), elsewhere(key), 404)));
    for start in [TOGETHER - MINUTE_MS, TOGETHER] {
        let others = 1_000..1_000 + others;
        calls.extend(others.map(|key| (start + key % 2_000, scenario::key(key), 0, 200)));
    }
    calls.sort_unstable();
    let event = |(id, (time, key, place, status))| AccessEvent {
        key,
        status,
        count: if status == 200 { 9 } else { 1 },
        ..call(id, 0, place, time)
    };
    (0..).zip(calls).map(event).collect()
}

/// Rows that revoke some keys of [`together`] before the minute in which it happens.
fn revoked(keys: Range<u64>) -> Vec<(u64, TableChange)> {
    let row = |key| {
        let mut change = key_row(key, |row| {
            (row.state, row.revoked_at) = (KeyState::Revoked, Some(TOGETHER - 2 * MINUTE_MS))
        });
        let TableRow::Key(row) = &mut change.row else { panic!("a row of keys") };
        row.key = crowded(key);
        (TOGETHER - 2 * MINUTE_MS, change)
    };
    keys.map(row).collect()
}

const WIDE: u64 = 5 * MINUTE_MS;

/// Ticks of five seconds since shortly before [`TOGETHER`], as narrow ticks take long.
fn late_narrow(events: &[AccessEvent], tables: &[(u64, TableChange)]) -> Vec<TickInput> {
    ticks_by(events, |time| if time < TOGETHER - WIDE { WIDE } else { 5_000 }, tables)
}

/// Returns how many incidents opened in which minute after [`TOGETHER`].
fn opened(log: &[Transition]) -> BTreeMap<u64, usize> {
    let mut minutes = BTreeMap::new();
    for one in log.iter().filter(|one| one.change == Change::Opened) {
        assert!(one.at_ms > TOGETHER, "{one:#?}");
        *minutes.entry((one.at_ms - TOGETHER) / MINUTE_MS).or_default() += 1;
    }
    minutes
}

#[test]
fn beyond_the_room_of_a_bucket_keys_wait_a_minute_and_those_with_hard_facts_never() {
    let events = together(7, 150, 3_500);
    let outcome = run_with(&ticks(&events, MINUTE_MS, &revoked(0..1)), options(), ONE, None);
    let log = log(&outcome.ticks);
    assert_eq!(opened(&log), BTreeMap::from([(1, ROOM), (2, ROOM), (3, 150 - 2 * ROOM)]));
    let notice = log.iter().find(|one| one.incident.severity == Severity::Notice).unwrap();
    assert_eq!((notice.change, notice.at_ms), (Change::Opened, TOGETHER + MINUTE_MS));
    // Those that waited alarm more than those that waited for longer.
    let scores = |minute: u64| {
        let at_ms = TOGETHER + minute * MINUTE_MS;
        let of_minute = log.iter().filter(move |one| one.change == Change::Opened && one.at_ms == at_ms);
        of_minute.map(|one| one.incident.score)
    };
    assert!(scores(2).min() >= scores(3).max());
    let deferred: u64 = outcome.ticks.values().map(|tick| tick.detector_deferred).sum();
    assert!(deferred >= (150 - ROOM + 150 - 2 * ROOM) as u64, "{deferred}");
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn which_keys_wait_depends_neither_on_workers_nor_on_ticks(
        seed in any::<u64>(), keys in 65_u64..200, workers in prop::sample::select(vec![1, 3]),
    ) {
        let (events, tables) = (together(seed, keys, 4_500), revoked(0..1));
        let of = |outcome: harness::Outcome| {
            (log(&outcome.ticks), outcome.ticks.values().map(|tick| tick.detector_deferred).sum::<u64>())
        };
        let expected = of(run_with(&ticks(&events, WIDE, &tables), options(), ONE, None));
        prop_assert_eq!(opened(&expected.0).into_values().sum::<usize>(), keys as usize);
        let how = How { workers, batch: 50, shuffle: seed };
        prop_assert!(of(run_with(&late_narrow(&events, &tables), options(), how, None)) == expected);
    }
}

#[test]
fn keys_for_which_a_mark_has_no_room_count_among_those_that_fire() {
    // The calls of 80 revoked keys are answered. Of 1,500 keys that is more than a twentieth, of 1,700 it isn't.
    let early = |others| {
        let mut events = together(7, 80, others);
        // All before the first mark.
        for event in events.iter_mut().filter(|event| event.time >= TOGETHER) {
            (event.status, event.time) = (200, TOGETHER + event.time % 2_000);
        }
        events.sort_by_key(|event| (event.time, event.position));
        let log = log(&run_with(&late_narrow(&events, &revoked(0..80)), options(), ONE, None).ticks);
        assert_eq!(opened(&log).into_values().sum::<usize>(), 80);
        log.iter().filter(|one| one.early).count()
    };
    assert_eq!((early(1_500), early(1_700)), (0, ROOM));
}
