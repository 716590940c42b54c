//! Tests of the whole ledger: examples, threads, and a model that counts by the definition.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use keytide_billing::{Measure, PeriodKind, QuotaLimit, QuotaThresholds};
use keytide_dataflow::QuotaKey;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, SECOND_MS};
use keytide_dataflow::model::{KeyKind, KeyPlace, KeyRow, QuotaHolder, QuotaRow, SubscriptionRow};
use proptest::prelude::*;

use super::*;

/// A full hour, a day after the epoch.
const START: u64 = DAY_MS;
const KEY: KeyId = KeyId(77);

fn name(text: &str) -> NameId {
    NameId::new(text)
}

fn change(row: TableRow) -> TableChange {
    TableChange { offset: 0, row, deleted: false }
}

fn key_row(key: KeyId, subscription: &str, state: KeyState, valid_from: Option<u64>) -> TableChange {
    change(TableRow::Key(KeyRow {
        key,
        subscription: name(subscription),
        valid_from,
        state,
        kind: KeyKind::Secret,
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    }))
}

fn subscription_row(id: &str, plan: &str, zone: &str, valid_from: Option<u64>) -> TableChange {
    change(TableRow::Subscription(SubscriptionRow {
        id: name(id),
        customer: name("acme"),
        plan: name(plan),
        time_zone: name(zone),
        billing_anchor: 15,
        valid_from,
        started_at: None,
        contacts: NameId::NONE,
    }))
}

fn quota_row(
    holder: QuotaHolder,
    (measure, period): (Measure, PeriodKind),
    limit: u64,
    hard: bool,
) -> TableChange {
    let limit = QuotaLimit { limit, hard, notify: QuotaThresholds::default() };
    change(TableRow::Quota(QuotaRow { holder, measure, period, limit, valid_from: None }))
}

fn plan(id: &str) -> QuotaHolder {
    QuotaHolder::Plan(name(id))
}

const CALLS_A_DAY: (Measure, PeriodKind) = (Measure::Calls, PeriodKind::Day);

/// A ledger with a key of a subscription of plan gold, and these quotas of the plan.
fn ledger(quotas: &[((Measure, PeriodKind), u64, bool)]) -> QuotaLedger {
    let ledger = QuotaLedger::new(9, false);
    let mut changes =
        vec![key_row(KEY, "s", KeyState::Active, None), subscription_row("s", "gold", "", None)];
    changes.extend(quotas.iter().map(|&(what, limit, hard)| quota_row(plan("gold"), what, limit, hard)));
    ledger.apply_tables(&changes, START);
    ledger
}

fn calls(calls: u64) -> AskedUse {
    let used = BilledUse { calls: calls.into(), ..BilledUse::default() };
    AskedUse { used, is_reserved: false }
}

fn reserved(calls: u64, units: u64) -> AskedUse {
    let used = BilledUse { calls: calls.into(), units: units.into(), ..BilledUse::default() };
    AskedUse { used, is_reserved: true }
}

fn ask(ledger: &QuotaLedger, asked: AskedUse, now_ms: u64) -> Arc<CheckAnswer> {
    ledger.check(CheckSubject::Key(KEY), asked, None, now_ms)
}

fn minute(key: KeyId, start_ms: u64, calls: u64, units: u64) -> MinuteUse {
    let used = BilledUse { calls: calls.into(), units: units.into(), ..BilledUse::default() };
    MinuteUse { key, subscription: name("s"), start_ms, used }
}

fn booked((measure, period): (Measure, PeriodKind), (start_ms, end_ms): (u64, u64), used: u128) -> BookedUse {
    let quota = QuotaKey { subscription: name("s"), measure, period, start_ms };
    BookedUse { quota, used, end_ms }
}

/// What is used of the deciding quota.
fn used(ledger: &QuotaLedger, now_ms: u64) -> u128 {
    let answer = ask(ledger, calls(0), now_ms);
    answer.decisive().unwrap().standing.used
}

#[test]
fn a_hard_quota_denies_the_first_call_beyond_it_and_a_soft_one_never() {
    let ledger = ledger(&[(CALLS_A_DAY, 3, true), ((Measure::Calls, PeriodKind::Month), 1, false)]);
    for left in [2, 1, 0] {
        let answer = ask(&ledger, calls(1), START + 5);
        assert!(answer.is_allowed() && answer.is_known && answer.is_stale);
        let day = answer.quotas.iter().find(|quota| quota.period == PeriodKind::Day).unwrap();
        assert_eq!((day.standing.remaining, day.standing.resets_at_ms), (left, START + DAY_MS));
    }
    let denied = ask(&ledger, calls(1), START + 6);
    assert_eq!(denied.verdict, CheckVerdict::Exceeded);
    let first = denied.decisive().unwrap();
    assert_eq!((first.period, first.standing.used, first.standing.remaining), (PeriodKind::Day, 3, 0));
    // The next day all is there again.
    assert!(ask(&ledger, calls(3), START + DAY_MS).is_allowed());
    assert!(!ask(&ledger, calls(1), START + DAY_MS).is_allowed());
}

#[test]
fn a_question_that_was_overtaken_begins_no_second_anew() {
    let ledger = ledger(&[((Measure::Calls, PeriodKind::Second), 1, true)]);
    let second = START + 60_000;
    assert!(ask(&ledger, calls(1), second).is_allowed());
    // It looked at the clock before the other one did.
    for overtaken_ms in [1, 999, 9_999] {
        assert!(!ask(&ledger, calls(1), second - overtaken_ms).is_allowed(), "{overtaken_ms}");
        assert!(!ask(&ledger, calls(1), second + 1).is_allowed(), "{overtaken_ms}");
    }
    assert!(ask(&ledger, calls(1), second + 1_000).is_allowed());
    // A clock that was set back goes on from there.
    assert!(ask(&ledger, calls(1), second - 30_000).is_allowed());
    assert!(!ask(&ledger, calls(1), second - 30_000).is_allowed());
    assert!(ask(&ledger, calls(1), second - 29_000).is_allowed());
}

#[test]
fn a_subscription_that_the_table_no_longer_has_is_forgotten_once_its_periods_are_over() {
    let ledger = ledger(&[(CALLS_A_DAY, 3, true)]);
    let ticks = |now_ms| {
        for _ in 0..SHARDS {
            ledger
                .apply_tick(&UseOfTick { tick: now_ms, through_ms: now_ms, ..UseOfTick::default() }, now_ms);
        }
        ledger.size(now_ms).subscriptions
    };
    let book = |used| {
        let booked = vec![booked(CALLS_A_DAY, (START, START + DAY_MS), used)];
        ledger
            .apply_tick(&UseOfTick { tick: START, through_ms: START, booked, ..UseOfTick::default() }, START);
    };
    book(2);
    let key = |deleted| TableChange { deleted, ..key_row(KEY, "s", KeyState::Active, None) };
    let row = |deleted| TableChange { deleted, ..subscription_row("s", "gold", "", None) };
    let later = START + HOUR_MS;
    // It goes on with what was used if its row comes again.
    ledger.apply_tables(&[row(true), key(true)], later);
    assert_eq!(ticks(later), 1);
    ledger.apply_tables(&[row(false), key(false)], later);
    assert_eq!(used(&ledger, later), 2);
    ledger.apply_tables(&[row(true), key(true)], later);
    assert_eq!(ticks(START + DAY_MS - 1), 1);
    // A key has it as long as the key is there.
    ledger.apply_tables(&[key(false)], START + DAY_MS);
    assert_eq!(ticks(START + DAY_MS), 1);
    ledger.apply_tables(&[key(true)], START + DAY_MS);
    assert_eq!((ticks(START + DAY_MS), ledger.size(START + DAY_MS).keys), (0, 0));
}

#[test]
fn keys_that_are_suspended_revoked_or_denied_by_the_job_may_not_call() {
    let ledger = ledger(&[]);
    let verdict = || ask(&ledger, calls(1), START).verdict;
    for (state, expected) in [
        (KeyState::Suspended, CheckVerdict::Suspended),
        (KeyState::Revoked, CheckVerdict::Revoked),
        (KeyState::Active, CheckVerdict::Allowed),
    ] {
        ledger.apply_tables(&[key_row(KEY, "s", state, None)], START);
        assert_eq!(verdict(), expected);
    }
    ledger.deny_only([(KEY, KeyState::Suspended)].into());
    assert_eq!(verdict(), CheckVerdict::Suspended);
    ledger.apply_tables(&[key_row(KEY, "s", KeyState::Revoked, None)], START);
    assert_eq!(verdict(), CheckVerdict::Revoked);
    ledger.apply_tables(&[key_row(KEY, "s", KeyState::Active, None)], START);
    ledger.deny_only(BTreeMap::new());
    assert_eq!(verdict(), CheckVerdict::Allowed);
    // A key of no table can be denied as well, and is unknown otherwise.
    ledger.deny_only([(KeyId(5), KeyState::Revoked)].into());
    let other = || ledger.check(CheckSubject::Key(KeyId(5)), calls(1), None, START);
    assert_eq!(other().verdict, CheckVerdict::Revoked);
    ledger.deny_only(BTreeMap::new());
    assert!(other().is_allowed() && !other().is_known);
    let unknown = ledger.check(CheckSubject::Subscription(name("nobody")), calls(1), None, START);
    assert!(unknown.is_allowed() && !unknown.is_known);
}

#[test]
fn a_new_plan_or_limit_acts_at_the_next_check_and_never_resets_use() {
    let ledger = ledger(&[(CALLS_A_DAY, 2, true)]);
    let big = quota_row(plan("platinum"), CALLS_A_DAY, 4, true);
    ledger.apply_tables(&[big], START);
    assert!(ask(&ledger, calls(2), START).is_allowed());
    assert!(!ask(&ledger, calls(1), START).is_allowed());
    ledger.apply_tables(&[subscription_row("s", "platinum", "", None)], START + 1);
    assert!(ask(&ledger, calls(2), START + 1).is_allowed());
    assert!(!ask(&ledger, calls(1), START + 1).is_allowed());
    // The subscription's own quota wins, also if it is below what is used.
    let own = |limit| quota_row(QuotaHolder::Subscription(name("s")), CALLS_A_DAY, limit, true);
    ledger.apply_tables(&[own(5)], START + 2);
    assert!(ask(&ledger, calls(1), START + 2).is_allowed());
    ledger.apply_tables(&[own(1)], START + 3);
    let answer = ask(&ledger, calls(0), START + 3);
    assert_eq!((answer.quotas[0].standing.used, answer.quotas[0].standing.remaining), (5, 0));
    // Without the row the plan's holds, and without that there is no limit.
    let gone = |change: TableChange| TableChange { deleted: true, ..change };
    ledger.apply_tables(&[gone(own(1))], START + 4);
    assert_eq!(ask(&ledger, calls(0), START + 4).quotas[0].standing.limit, 4);
    ledger.apply_tables(&[gone(quota_row(plan("platinum"), CALLS_A_DAY, 4, true))], START + 5);
    assert!(ask(&ledger, calls(u64::MAX), START + 5).is_allowed());
}

#[test]
fn dated_rows_act_from_their_date_on() {
    let ledger = ledger(&[(CALLS_A_DAY, 1, true)]);
    let dated = |from: u64, limit| {
        let TableRow::Quota(row) = quota_row(plan("gold"), CALLS_A_DAY, limit, true).row else {
            panic!("a quota")
        };
        change(TableRow::Quota(QuotaRow { valid_from: Some(from), ..row }))
    };
    ledger.apply_tables(&[dated(START + 1_000, 2), dated(START + 2_000, 3)], START);
    let limit = |now_ms| ask(&ledger, calls(0), now_ms).quotas[0].standing.limit;
    assert_eq!([999, 1_000, 1_999, 2_000].map(|ms| limit(START + ms)), [1, 2, 2, 3]);
    // A clock that is set back is followed.
    assert_eq!(limit(START - 20_000), 1);
    ledger.apply_tables(&[subscription_row("s", "free", "", Some(START + 3_000))], START);
    assert_eq!(limit(START + 2_999), 3);
    assert!(ask(&ledger, calls(0), START + 3_000).quotas.is_empty());
    // A key that changes hands counts for its owner of that time.
    ledger.apply_tables(
        &[
            TableChange { deleted: true, ..key_row(KEY, "s", KeyState::Active, None) },
            key_row(KEY, "s", KeyState::Active, Some(START)),
            key_row(KEY, "t", KeyState::Active, Some(START + 5_000)),
        ],
        START,
    );
    let owner = |now_ms| ledger.owner(KEY, now_ms).map(|(subscription, _)| subscription);
    assert_eq!(owner(0), Some(name("s")));
    assert_eq!(owner(START + 4_999), Some(name("s")));
    assert_eq!(owner(START + 5_000), Some(name("t")));
    assert_eq!((ledger.customer(name("s")), ledger.customer(name("t"))), (Some(name("acme")), None));
}

#[test]
fn periods_are_local_and_follow_the_rows_of_quota() {
    let ledger = ledger(&[(CALLS_A_DAY, 9, true), ((Measure::Calls, PeriodKind::Billing), 99, true)]);
    // 15 March 2026, 12:00 UTC.
    let now = 1_773_576_000_000;
    ledger.apply_tables(&[subscription_row("s", "gold", "Asia/Kolkata", None)], now - 2 * DAY_MS);
    let answer = ask(&ledger, calls(0), now);
    let of = |kind| {
        let quota = answer.quotas.iter().find(|quota| quota.period == kind).unwrap();
        (quota.start_ms, quota.standing.resets_at_ms)
    };
    let midnight = 1_773_513_000_000;
    // The billing period of UTC that ran when the zone came had to end first, for periods of all kinds.
    let end = 1_773_532_800_000;
    assert_eq!(of(PeriodKind::Day), (end, midnight + DAY_MS));
    assert_eq!(of(PeriodKind::Billing), (end, midnight + 31 * DAY_MS));
    // What was booked is of the period that its row names.
    let day = (now - HOUR_MS, now + HOUR_MS);
    let tick = UseOfTick { booked: vec![booked(CALLS_A_DAY, day, 7)], ..UseOfTick::default() };
    ledger.apply_tick(&tick, now);
    let answer = ask(&ledger, calls(0), now);
    assert_eq!((answer.quotas[0].start_ms, answer.quotas[0].standing.used), (day.0, 7));
}

#[test]
fn a_reservation_counts_until_it_is_settled_and_ends_as_admitted() {
    let units = (Measure::Units, PeriodKind::Day);
    let ledger = ledger(&[(units, 1_000, true)]);
    let first = ask(&ledger, reserved(1, 600), START).reservation.unwrap();
    assert!(!ask(&ledger, reserved(1, 401), START + 1).is_allowed());
    let second = ask(&ledger, reserved(1, 400), START + 1).reservation.unwrap();
    assert_ne!(first, second);
    // A call without an estimate uses some, too.
    assert!(!ask(&ledger, calls(1), START + 2).is_allowed());
    let actual = |units| move |used: BilledUse| BilledUse { units, ..used };
    assert!(ledger.settle(first, actual(100), START + 3));
    assert!(!ledger.settle(first, actual(100), START + 3));
    assert_eq!(used(&ledger, START + 3), 500);
    assert!(ledger.settle(second, |_| BilledUse::default(), START + 4));
    assert_eq!(used(&ledger, START + 4), 100);
    let third = ask(&ledger, reserved(1, 900), START + 5).reservation.unwrap();
    assert_eq!(used(&ledger, START + 5 + RESERVATION_MS), 1_000);
    assert!(!ledger.settle(third, actual(0), START + 5 + RESERVATION_MS));
    // Its use is that of calls whose records come: it is forgotten once their minutes are booked.
    let through_ms = START + 4 * MINUTE_MS;
    ledger.apply_tick(&UseOfTick { tick: through_ms, through_ms, ..UseOfTick::default() }, through_ms);
    assert_eq!(used(&ledger, through_ms), 0);
    for unknown in [0, 5, u128::MAX] {
        assert!(!ledger.settle(ReservationId(unknown), actual(0), START));
    }
}

#[test]
fn use_of_unchecked_calls_counts_by_their_rows_and_none_counts_twice() {
    let ledger = ledger(&[(CALLS_A_DAY, 1_000, true)]);
    let day = (START, START + DAY_MS);
    let now = START + 10 * MINUTE_MS;
    let apply = |through_ms, booked_use, minutes: Vec<MinuteUse>| {
        let booked = vec![booked(CALLS_A_DAY, day, booked_use)];
        ledger.apply_tick(&UseOfTick { tick: now, through_ms, booked, minutes }, now);
    };
    assert!(ask(&ledger, calls(30), now).is_allowed());
    assert_eq!(used(&ledger, now), 30);
    // Rows show fewer calls than were admitted, then more.
    apply(now, 100, vec![minute(KEY, now, 20, 0)]);
    assert_eq!(used(&ledger, now + 1), 130);
    apply(now, 100, vec![minute(KEY, now, 25, 0), minute(KeyId(78), now, 25, 0)]);
    assert_eq!(used(&ledger, now + 1), 150);
    apply(now, 100, vec![minute(KEY, now, 10, 0)]);
    assert_eq!(used(&ledger, now + 1), 135);
    // The minute is booked.
    apply(now + MINUTE_MS, 150, vec![]);
    assert_eq!(used(&ledger, now + MINUTE_MS), 150);
    // A late row of a booked minute changes nothing; the booking does.
    apply(now + MINUTE_MS, 151, vec![minute(KEY, now, 11, 0)]);
    assert_eq!(used(&ledger, now + MINUTE_MS), 151);
    // An older watermark isn't believed.
    apply(now, 151, vec![]);
    assert_eq!(ledger.through_ms(), now + MINUTE_MS);
}

#[test]
fn a_row_of_quota_that_is_behind_is_waited_for() {
    let ledger = ledger(&[(CALLS_A_DAY, 1_000, true), ((Measure::Units, PeriodKind::Day), 9, true)]);
    let now = START + 10 * MINUTE_MS;
    let apply = |through_ms, booked_use: Option<u128>, minutes: Vec<MinuteUse>| {
        let day = (START, START + DAY_MS);
        let booked = booked_use.map(|used| booked(CALLS_A_DAY, day, used)).into_iter().collect();
        ledger.apply_tick(&UseOfTick { tick: through_ms, through_ms, booked, minutes }, through_ms);
    };
    let calls_used = |now_ms| {
        let answer = ask(&ledger, calls(0), now_ms);
        answer.quotas.iter().find(|quota| quota.measure == Measure::Calls).unwrap().standing.used
    };
    apply(now, Some(100), vec![minute(KEY, now, 20, 0)]);
    assert!(ask(&ledger, calls(30), now).is_allowed());
    assert_eq!(calls_used(now), 130);
    // The minute ends, and the row of quota isn't among those of its tick.
    apply(now + MINUTE_MS, None, vec![minute(KEY, now + MINUTE_MS, 7, 0)]);
    assert_eq!(calls_used(now + MINUTE_MS), 130);
    apply(now + MINUTE_MS, Some(120), vec![]);
    assert_eq!(calls_used(now + MINUTE_MS), 127);
    // One that never comes is waited for so long and no longer.
    apply(now + 2 * MINUTE_MS, None, vec![]);
    assert_eq!(calls_used(now + 2 * MINUTE_MS), 127);
    apply(now + 4 * MINUTE_MS, None, vec![]);
    assert_eq!(calls_used(now + 4 * MINUTE_MS), 127);
    apply(now + 5 * MINUTE_MS, None, vec![]);
    assert_eq!(calls_used(now + 5 * MINUTE_MS), 120);
}

#[test]
fn short_quotas_count_checks_and_rows_of_minutes() {
    let short = [PeriodKind::Second, PeriodKind::Minute, PeriodKind::Hour];
    let ledger = ledger(&short.map(|kind| ((Measure::Calls, kind), 100, true)));
    let of = |now_ms, kind| {
        let answer = ask(&ledger, calls(0), now_ms);
        answer.quotas.iter().find(|quota| quota.period == kind).unwrap().standing.used
    };
    let now = START + HOUR_MS;
    assert!(ask(&ledger, calls(10), now + 500).is_allowed());
    assert!(ask(&ledger, calls(5), now + SECOND_MS).is_allowed());
    assert_eq!(short.map(|kind| of(now + SECOND_MS, kind)), [5, 15, 15]);
    assert_eq!(short.map(|kind| of(now + 2 * SECOND_MS, kind)), [0, 15, 15]);
    let tick = |through_ms, minutes| {
        ledger.apply_tick(&UseOfTick { tick: now, through_ms, booked: vec![], minutes }, through_ms);
    };
    tick(now, vec![minute(KEY, now, 20, 0)]);
    assert_eq!(short.map(|kind| of(now + 2 * SECOND_MS, kind)), [0, 20, 20]);
    tick(now + MINUTE_MS, vec![minute(KEY, now + MINUTE_MS, 7, 0)]);
    assert_eq!(short.map(|kind| of(now + MINUTE_MS, kind)), [0, 7, 27]);
    let denied = ask(&ledger, calls(74), now + MINUTE_MS);
    let exceeded: Vec<PeriodKind> =
        denied.quotas.iter().filter(|quota| quota.is_exceeded).map(|quota| quota.period).collect();
    assert_eq!((denied.verdict, exceeded), (CheckVerdict::Exceeded, vec![PeriodKind::Hour]));
    assert_eq!(short.map(|kind| of(now + HOUR_MS, kind)), [0, 0, 0]);
}

#[test]
fn cost_counts_what_is_booked() {
    let cost = (Measure::Cost, PeriodKind::Month);
    let ledger = ledger(&[(cost, 499_000, true)]);
    assert!(ask(&ledger, reserved(1, u64::MAX), START).is_allowed());
    let month = (0, 31 * DAY_MS);
    for (spent, verdict) in [(498_999, CheckVerdict::Allowed), (499_000, CheckVerdict::Exceeded)] {
        let booked = vec![booked(cost, month, spent)];
        ledger.apply_tick(&UseOfTick { booked, ..UseOfTick::default() }, START);
        assert_eq!(ask(&ledger, calls(1), START).verdict, verdict);
    }
}

#[test]
fn huge_numbers_neither_overflow_nor_pass() {
    let ledger = ledger(&[
        (CALLS_A_DAY, u64::MAX, true),
        ((Measure::Bytes, PeriodKind::Day), u64::MAX, false),
        ((Measure::Units, PeriodKind::Second), u64::MAX, true),
    ]);
    let huge = u128::from(u64::MAX);
    let used = BilledUse { calls: 1 << 63, bytes_in: huge, bytes_out: huge, units: huge };
    let asked = AskedUse { used, is_reserved: true };
    let first = ask(&ledger, asked, START);
    assert!(first.is_allowed());
    assert!(!ask(&ledger, asked, START + 1).is_allowed());
    assert!(ledger.settle(first.reservation.unwrap(), |_| used, START + SECOND_MS));
    assert!(!ask(&ledger, calls(1 << 63), START + SECOND_MS).is_allowed());
    assert!(ask(&ledger, calls((1 << 63) - 1), u64::MAX).is_allowed());
}

#[test]
fn a_stale_ledger_says_so_and_denies_hard_quotas_if_it_is_told_to() {
    let mut ledger = ledger(&[(CALLS_A_DAY, 9, true)]);
    let tick = UseOfTick { tick: START, through_ms: START - MINUTE_MS, ..UseOfTick::default() };
    ledger.apply_tick(&tick, START);
    for (denies, verdict) in [(false, CheckVerdict::Allowed), (true, CheckVerdict::Stale)] {
        ledger.denies_stale = denies;
        let fresh = ask(&ledger, calls(1), START + STALE_MS);
        assert!(fresh.is_allowed() && !fresh.is_stale);
        let stale = ask(&ledger, calls(1), START + STALE_MS + 1);
        assert!(stale.is_stale);
        assert_eq!(stale.verdict, verdict);
    }
    // Soft quotas never deny.
    let soft = quota_row(plan("gold"), CALLS_A_DAY, 9, false);
    ledger.apply_tables(&[soft], START);
    assert!(ask(&ledger, calls(1), START + STALE_MS + 1).is_allowed());
}

#[test]
fn a_repeated_request_has_the_same_answer_and_counts_once() {
    let ledger = ledger(&[(CALLS_A_DAY, 1, true)]);
    let request = RequestKey::new("edge", "4711");
    let subject = CheckSubject::Key(KEY);
    let first = ledger.check(subject, reserved(1, 0), Some(request), START);
    let again = ledger.check(subject, reserved(1, 0), Some(request), START + 9);
    assert!(first.is_allowed() && first == again);
    let other = ledger.check(subject, calls(1), Some(RequestKey::new("edge", "4712")), START);
    assert!(!other.is_allowed());
}

#[test]
fn a_hundred_threads_that_ask_never_pass_a_hard_limit() {
    let (threads, each, limit) = (100_u64, 40_u64, 2_500_u64);
    let ledger = ledger(&[
        (CALLS_A_DAY, limit, true),
        ((Measure::Units, PeriodKind::Month), 30_000, true),
        ((Measure::Calls, PeriodKind::Hour), limit + 7, true),
    ]);
    let barrier = Barrier::new(threads as usize);
    let admitted: u64 = thread::scope(|scope| {
        let run = |thread: u64| {
            let (ledger, barrier) = (&ledger, &barrier);
            move || {
                barrier.wait();
                let mut admitted = 0;
                for round in 0..each {
                    let asked = if round % 2 == 0 { calls(1) } else { reserved(1, 10) };
                    let request = RequestKey::new("t", &format!("{thread} {round}"));
                    let subject = CheckSubject::Key(KEY);
                    let answer = ledger.check(subject, asked, Some(request), START + round);
                    if !answer.is_allowed() {
                        continue;
                    }
                    // A third is rolled back, a third settled, a third left open.
                    match answer.reservation {
                        Some(id) if thread.is_multiple_of(3) => {
                            assert!(ledger.settle(id, |_| BilledUse::default(), START + round));
                        }
                        Some(id) if thread % 3 == 1 => {
                            assert!(ledger.settle(id, |used| used, START + round));
                            admitted += 1;
                        }
                        _ => admitted += 1,
                    }
                }
                admitted
            }
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(admitted <= limit, "{admitted}");
    let day = ask(&ledger, calls(0), START + each);
    let day = day.quotas.iter().find(|quota| quota.period == PeriodKind::Day).unwrap();
    assert_eq!(day.standing.used, u128::from(admitted));
    // What is left is admitted, and not one call more.
    assert!(ask(&ledger, calls(limit - admitted), START + each).is_allowed());
    assert!(!ask(&ledger, calls(1), START + each).is_allowed());
}

/// A step of the model.
#[derive(Clone, Debug)]
enum LedgerStep {
    Check {
        calls: u64,
        units: u64,
        reserve: bool,
    },
    /// Settles one of the reservations so far with that many units, or takes it back.
    Settle {
        which: usize,
        units: Option<u64>,
    },
    Wait(u64),
    /// A row of a minute: how many minutes ago it began, the key and the calls.
    Row {
        ago: u64,
        key: u128,
        calls: u64,
    },
    /// The watermark is so many minutes ago, and so many calls are booked beside those of rows.
    Tick {
        ago: u64,
        more: u64,
    },
}

fn step() -> impl Strategy<Value = LedgerStep> {
    prop_oneof![
        4 => (0_u64..4, 0_u64..9, any::<bool>())
            .prop_map(|(calls, units, reserve)| LedgerStep::Check { calls, units, reserve }),
        2 => (0_usize..16, proptest::option::of(0_u64..20)).prop_map(|(which, units)| LedgerStep::Settle { which, units }),
        3 => prop_oneof![0_u64..1_500, 0_u64..70_000, 0_u64..600_000].prop_map(LedgerStep::Wait),
        2 => (0_u64..3, 0_u128..3, 0_u64..6).prop_map(|(ago, key, calls)| LedgerStep::Row { ago, key, calls }),
        2 => (0_u64..4, 0_u64..9).prop_map(|(ago, more)| LedgerStep::Tick { ago, more }),
    ]
}

/// What the definition needs: everything that ever happened.
#[derive(Default)]
struct Model {
    /// When it counts, and the use. Reservations have theirs below.
    admitted: Vec<(u64, BilledUse)>,
    /// (made, use, open), by their ids.
    reservations: Vec<(ReservationId, u64, BilledUse, bool)>,
    rows: BTreeMap<(u64, u128), u64>,
    booked: u128,
    through: u64,
}

impl Model {
    /// Ends what is 60 s old.
    fn advance(&mut self, now: u64) {
        for (_, made, used, open) in &mut self.reservations {
            if *open && *made + RESERVATION_MS <= now {
                *open = false;
                self.admitted.push(((*made).max(self.through.saturating_sub(2_000)), *used));
            }
        }
    }

    fn sum(parts: impl Iterator<Item = u128>) -> u128 {
        parts.sum()
    }

    /// Returns used calls of the day that began at `day`.
    fn calls_of_day(&self, day: u64) -> u128 {
        let open = self.through.max(day);
        let rows = Self::sum(
            self.rows.iter().filter(|((start, _), _)| *start >= open).map(|(_, calls)| u128::from(*calls)),
        );
        let from = self.through.saturating_sub(2_000).max(day);
        let admitted =
            Self::sum(self.admitted.iter().filter(|(at, _)| *at >= from).map(|(_, used)| used.calls));
        self.booked + rows.max(admitted) + self.reserved(day, |used| used.calls)
    }

    fn reserved(&self, from: u64, of: impl Fn(&BilledUse) -> u128) -> u128 {
        let open = self.reservations.iter().filter(|(_, made, _, open)| *open && *made >= from);
        Self::sum(open.map(|(_, _, used, _)| of(used)))
    }

    /// Returns used calls of the minute that began at `start`.
    fn calls_of_minute(&self, start: u64) -> u128 {
        let rows = Self::sum(
            self.rows.iter().filter(|((at, _), _)| *at == start).map(|(_, calls)| u128::from(*calls)),
        );
        let of_minute = self.admitted.iter().filter(|(at, _)| *at >= start);
        rows.max(Self::sum(of_minute.map(|(_, used)| used.calls))) + self.reserved(start, |used| used.calls)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Any order of checks, settlements, rollbacks, waits and ticks leaves exactly what the definition says.
    #[test]
    fn the_ledger_counts_as_the_definition_says(steps in proptest::collection::vec(step(), 1..80)) {
        let (limit, of_minute) = (60, 20);
        let ledger = ledger(&[(CALLS_A_DAY, limit, true), ((Measure::Calls, PeriodKind::Minute), of_minute, true)]);
        let day = START;
        let mut model = Model { through: START, ..Model::default() };
        let mut now = START + HOUR_MS;
        model.through = now - MINUTE_MS;
        ledger.apply_tick(&UseOfTick { tick: now, through_ms: model.through, ..UseOfTick::default() }, now);
        for step in steps {
            model.advance(now);
            match step {
                LedgerStep::Wait(ms) => now = (now + ms).min(START + DAY_MS - 1),
                LedgerStep::Check { calls, units, reserve } => {
                    let used = BilledUse { calls: calls.into(), units: units.into(), ..BilledUse::default() };
                    let answer = ask(&ledger, AskedUse { used, is_reserved: reserve }, now);
                    let minute = now - now % MINUTE_MS;
                    let fits = model.calls_of_day(day) + used.calls <= limit.into()
                        && model.calls_of_minute(minute) + used.calls <= of_minute.into();
                    prop_assert_eq!(answer.is_allowed(), fits);
                    prop_assert_eq!(answer.reservation.is_some(), fits && reserve);
                    match answer.reservation {
                        Some(id) => model.reservations.push((id, now, used, true)),
                        None if fits => model.admitted.push((now, used)),
                        None => {}
                    }
                }
                LedgerStep::Settle { which, units } => {
                    let Some(at) = which.checked_rem(model.reservations.len()) else { continue };
                    let (id, made, used, open) = &mut model.reservations[at];
                    let actual = match units {
                        Some(units) => BilledUse { units: units.into(), ..*used },
                        None => BilledUse::default(),
                    };
                    prop_assert_eq!(ledger.settle(*id, |_| actual, now), *open);
                    if *open {
                        *open = false;
                        model.admitted.push(((*made).max(model.through.saturating_sub(2_000)), actual));
                    }
                }
                LedgerStep::Row { ago, key, calls } => {
                    let start = (now - now % MINUTE_MS) - ago * MINUTE_MS;
                    let row = minute(KeyId(key), start, calls, 0);
                    ledger.apply_tick(&UseOfTick { minutes: vec![row], ..UseOfTick::default() }, now);
                    if start >= model.through {
                        model.rows.insert((start, key), calls);
                    }
                }
                LedgerStep::Tick { ago, more } => {
                    let through = ((now - now % MINUTE_MS) - ago * MINUTE_MS).max(model.through);
                    let of_rows = model.rows.range((model.through, 0)..(through, 0)).map(|(_, calls)| u128::from(*calls));
                    model.booked += of_rows.sum::<u128>() + u128::from(more);
                    model.through = through;
                    let booked = vec![booked(CALLS_A_DAY, (day, day + DAY_MS), model.booked)];
                    ledger.apply_tick(&UseOfTick { tick: now, through_ms: through, booked, minutes: vec![] }, now);
                }
            }
            model.advance(now);
            let answer = ask(&ledger, calls(0), now);
            let of = |kind| answer.quotas.iter().find(|quota| quota.period == kind).unwrap().standing.used;
            prop_assert_eq!(of(PeriodKind::Day), model.calls_of_day(day));
            prop_assert_eq!(of(PeriodKind::Minute), model.calls_of_minute(now - now % MINUTE_MS));
            // Between what is certain and all that may be.
            let all_rows: u128 = model.rows.values().map(|calls| u128::from(*calls)).sum();
            let all_checks: u128 = model.admitted.iter().map(|(_, used)| used.calls).sum();
            let used = of(PeriodKind::Day);
            prop_assert!(model.booked <= used);
            prop_assert!(used <= model.booked + all_rows + all_checks + model.reserved(0, |used| used.calls));
        }
    }
}
