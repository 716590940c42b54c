//! Bills of periods with one plan and several: the worked examples, and what must not depend on how days are split.

use proptest::prelude::*;

use super::*;
use crate::calendar::tests::{calendar, ms};
use crate::measure::Measure;
use crate::period::{Anchor, PeriodKind};
use crate::price::tests::{any_rows, row};
use crate::price::{PriceModel, TierRow};

type Terms = PlanTerms<&'static str>;

fn euro() -> Currency {
    "EUR".parse().unwrap()
}

fn sum(text: &str) -> Exact {
    text.parse().unwrap()
}

fn prices(rows: impl IntoIterator<Item = (&'static str, TierRow)>) -> BTreeMap<&'static str, Price> {
    rows.into_iter().map(|(item, row)| (item, Price::new(&[row]).unwrap())).collect()
}

fn terms(rows: impl IntoIterator<Item = (&'static str, TierRow)>) -> Terms {
    PlanTerms::new(euro(), Exact::ZERO, None, None, prices(rows)).unwrap()
}

/// Terms with a fee and bounds, and one cent a call.
fn fees(base_fee: &str, minimum: Option<&str>, maximum: Option<&str>) -> Terms {
    let prices = prices([("calls", row(PriceModel::Unit, None, "0.01"))]);
    PlanTerms::new(euro(), sum(base_fee), minimum.map(sum), maximum.map(sum), prices).unwrap()
}

fn calls(calls: u128) -> BilledUse {
    BilledUse { calls, ..BilledUse::default() }
}

fn segment(terms: &Terms, days: u32, used: BilledUse) -> PlanSegment<'_, &'static str> {
    PlanSegment { terms, days, used }
}

/// The lines with their amounts, and the total.
fn billed(
    segments: &[PlanSegment<'_, &'static str>],
    full_days: u32,
) -> (Vec<(ChargeItem<&'static str>, String)>, String) {
    let bill = Bill::new(segments, full_days).unwrap();
    let lines = bill.lines.iter().map(|line| (line.item, bill.currency.text(line.amount)));
    (lines.collect(), bill.currency.text(bill.total))
}

#[test]
fn a_bill_is_the_sum_of_its_rounded_lines() {
    let bytes = |unit: &str| TierRow {
        measure: Measure::Bytes,
        unit: unit.parse().ok(),
        ..row(PriceModel::Unit, None, "0.10")
    };
    let used = BilledUse { calls: 1_234_567, bytes_in: 98_765_432_000, bytes_out: 109, units: 0 };
    let bill = |unit| {
        let terms = terms([("calls", row(PriceModel::Unit, None, "0.001")), ("traffic", bytes(unit))]);
        let bill = Bill::new(&[segment(&terms, 31, used)], 31).unwrap();
        let lines: Vec<_> = bill.lines.iter().map(|line| bill.currency.text(line.amount)).collect();
        (lines, bill.lines[1].exact.to_string(), bill.currency.text(bill.total))
    };
    let (lines, exact, total) = bill("GiB");
    assert_eq!((lines, total.as_str()), (vec!["1234.57".to_owned(), "9.20".to_owned()], "1243.77"));
    assert!(exact.starts_with("9.198247651476"), "{exact}");
    assert_eq!(bill("GB").0[1], "9.88");
}

#[test]
fn a_change_of_plan_splits_the_period() {
    let with = |included, unit_price| {
        terms([("calls", TierRow { included: Some(included), ..row(PriceModel::Unit, None, unit_price) })])
    };
    let (a, b) = (with(10_000, "0.002"), with(50_000, "0.001"));
    let segments = [segment(&a, 10, calls(12_000)), segment(&b, 20, calls(60_000))];
    let bill = Bill::new(&segments, 30).unwrap();
    let parts: Vec<_> =
        bill.lines[0].parts.iter().map(|(place, part)| (*place, part.exact.to_string())).collect();
    assert_eq!(parts, [(0, "4".to_owned()), (1, "22".to_owned())]);
    assert_eq!(bill.lines[0].quantity, 72_000);
    assert_eq!(euro().text(bill.total), "26.00");
    // A downgrade below the use so far grants nothing again.
    let segments = [segment(&b, 20, calls(60_000)), segment(&a, 10, calls(1_000))];
    assert_eq!(billed(&segments, 30).1, "12.00");
}

#[test]
fn fees_go_by_days() {
    let (small, large) = (fees("10", None, None), fees("31", None, None));
    let base_fee = |segments: &[_]| billed(segments, 31).0[0].clone();
    assert_eq!(base_fee(&[segment(&small, 31, calls(0))]), (ChargeItem::BaseFee, "10.00".to_owned()));
    // 10 x 10/31 + 31 x 21/31 = 24.2258...
    let changed = [segment(&small, 10, calls(0)), segment(&large, 21, calls(0))];
    assert_eq!(base_fee(&changed), (ChargeItem::BaseFee, "24.23".to_owned()));
    // A short period, or days without a plan.
    assert_eq!(base_fee(&[segment(&small, 7, calls(0))]), (ChargeItem::BaseFee, "2.26".to_owned()));
    // Three thirds of a fee are the fee.
    let thirds = [segment(&small, 10, calls(0)); 3];
    assert_eq!(billed(&thirds, 30).1, "10.00");
}

#[test]
fn bounds_hold_for_the_whole_bill() {
    let bounded = fees("1", Some("5"), Some("20"));
    let total = |used| billed(&[segment(&bounded, 30, calls(used))], 30);
    let line = |item, amount: &str| (item, amount.to_owned());
    let item = ChargeItem::Item("calls");
    assert_eq!(
        total(100),
        (
            vec![line(ChargeItem::BaseFee, "1.00"), line(item, "1.00"), line(ChargeItem::Minimum, "3.00")],
            "5.00".to_owned()
        )
    );
    assert_eq!(total(400).0.len(), 2);
    assert_eq!(total(1_900).0.len(), 2);
    assert_eq!(
        total(1_901),
        (
            vec![line(ChargeItem::BaseFee, "1.00"), line(item, "19.01"), line(ChargeItem::Maximum, "-0.01")],
            "20.00".to_owned()
        )
    );
    // Half of the days have half of the bounds.
    assert_eq!(billed(&[segment(&bounded, 15, calls(0))], 30).1, "2.50");
    assert_eq!(billed(&[segment(&bounded, 15, calls(5_000))], 30).1, "10.00");
    // The bound is reached exactly, whatever the lines were rounded to.
    let odd = PlanTerms::new(
        euro(),
        Exact::ZERO,
        Some(sum("0.02")),
        None,
        prices([("a", row(PriceModel::Unit, None, "0.004")), ("b", row(PriceModel::Unit, None, "0.014"))]),
    );
    assert_eq!(billed(&[segment(&odd.unwrap(), 1, calls(1))], 1).1, "0.02");
}

#[test]
fn a_plan_without_a_maximum_is_not_held_by_another_s() {
    let (bounded, free) = (fees("0", None, Some("10")), fees("0", None, None));
    let total = |first: u128, second: u128| {
        billed(&[segment(&bounded, 15, calls(first)), segment(&free, 15, calls(second))], 30).1
    };
    assert_eq!(total(10_000, 0), "5.00");
    assert_eq!(total(10_000, 7_000), "75.00");
    assert_eq!(total(0, 7_000), "70.00");
    // A minimum of one and a maximum of the other can't exclude each other.
    let least = fees("0", Some("100"), None);
    let segments = [segment(&bounded, 15, calls(2_500)), segment(&least, 15, calls(0))];
    assert_eq!(billed(&segments, 30).1, "50.00");
    // The bounded half is held at 5.00, and the other one counts as its minimum.
    let segments = [segment(&bounded, 15, calls(6_000)), segment(&least, 15, calls(0))];
    assert_eq!(billed(&segments, 30).1, "55.00");
    // The unbounded half costs its base fee.
    let fee = fees("20", None, None);
    let segments = [segment(&bounded, 15, calls(6_000)), segment(&fee, 15, calls(0))];
    assert_eq!(billed(&segments, 30).1, "15.00");
}

#[test]
fn periods_without_a_bill_say_why() {
    let euros = fees("1", None, None);
    let dollars = PlanTerms::new("USD".parse().unwrap(), Exact::ZERO, None, None, BTreeMap::new()).unwrap();
    let fault = |segments: &[PlanSegment<'_, _>], full| Bill::new(segments, full).unwrap_err();
    assert_eq!(fault(&[], 30), BillFault::NoSegment);
    let mixed = [segment(&euros, 1, calls(0)), segment(&dollars, 1, calls(0))];
    let found = fault(&mixed, 30);
    assert_eq!(found, BillFault::TwoCurrencies(euro(), dollars.currency()));
    assert!(found.to_string().contains("EUR and USD"), "{found}");
    let long = [segment(&euros, u32::MAX, calls(0)); 2];
    assert_eq!(fault(&long, 30), BillFault::Days { found: 2 * u64::from(u32::MAX), full: 30 });
    assert_eq!(fault(&mixed[..1], 0), BillFault::Days { found: 1, full: 0 });
    assert_eq!(fault(&[segment(&euros, 1, calls(u128::MAX))], 30), BillFault::Overflow);
    assert_eq!(fault(&[segment(&euros, 1, calls(1 << 126)); 4], 30), BillFault::Overflow);
    assert!(Bill::new(&[segment(&euros, 1, calls(1 << 63)); 2], 30).is_ok());
}

#[test]
fn terms_that_contradict_themselves_are_refused() {
    let dollars = TierRow { currency: "USD".parse().ok(), ..row(PriceModel::Unit, None, "1") };
    let new = |base_fee, minimum, maximum, rows: Option<(&'static str, TierRow)>| {
        PlanTerms::new(euro(), base_fee, minimum, maximum, prices(rows)).unwrap_err()
    };
    assert_eq!(
        new(Exact::ZERO, None, None, Some(("calls", dollars))),
        TermsFault::OtherCurrency { item: "calls" }
    );
    assert_eq!(new(Exact::ZERO, Some(sum("2")), Some(sum("1")), None), TermsFault::Bounds);
    assert_eq!(new(sum("1").negative(), None, None, None), TermsFault::Negative { column: "base_fee" });
    let named = TermsFault::OtherCurrency { item: "calls" };
    assert_eq!(named.item(), Some("calls"));
    assert!(named.to_string().starts_with("`currency` differs"), "{named}");
    assert_eq!(TermsFault::<&str>::Bounds.item(), None);
}

#[test]
fn an_adjustment_takes_back_as_much_as_was_charged() {
    let plan = fees("0", None, None);
    let bill = |used| Bill::new(&[segment(&plan, 30, calls(used))], 30).unwrap();
    let item = ChargeItem::Item("calls");
    assert_eq!(bill(7).since(&bill(10).amounts()), Ok(BTreeMap::from([(item, -3)])));
    assert_eq!(bill(10).since(&bill(10).amounts()), Ok(BTreeMap::new()));
    assert_eq!(bill(10).since(&BTreeMap::new()), Ok(bill(10).amounts()));
    assert_eq!(
        bill(0).since(&BTreeMap::from([(ChargeItem::Minimum, 5)])),
        Ok(BTreeMap::from([(ChargeItem::Minimum, -5)]))
    );
    assert_eq!(bill(0).since(&BTreeMap::from([(item, i128::MIN)])), Err(Overflow));
}

#[test]
fn terms_count_from_the_day_in_which_they_become_valid() {
    let berlin = calendar("Europe/Berlin");
    let march = berlin.period(PeriodKind::Month, Anchor::FIRST, ms("2026-03-15T00:00:00Z"));
    let first = berlin.day(march.start_ms);
    let dated = |at: &str, terms| DatedTerms { valid_from_ms: Some(ms(at)), terms };
    let days = |dated: &[DatedTerms<char>]| {
        let days = days_by_terms(&berlin, &march, dated);
        days.into_iter()
            .map(|(days, terms)| (days.start - first, days.end - first, *terms))
            .collect::<Vec<_>>()
    };
    let ever = DatedTerms { valid_from_ms: None, terms: Some('a') };
    assert_eq!(days(std::slice::from_ref(&ever)), [(0, 31, 'a')]);
    assert_eq!(days(&[]), []);
    // 23:30 UTC is the 11th in Berlin.
    let later = dated("2026-03-10T23:30:00Z", Some('b'));
    assert_eq!(days(&[later.clone(), ever.clone()]), [(0, 10, 'a'), (10, 31, 'b')]);
    assert_eq!(days(std::slice::from_ref(&later)), [(10, 31, 'b')]);
    let (sooner, none) = (dated("2026-03-10T23:10:00Z", Some('c')), dated("2026-03-21T00:00:00Z", None));
    assert_eq!(days(&[ever.clone(), sooner, later, none]), [(0, 10, 'a'), (10, 20, 'b')]);
    let (before, after) =
        (dated("2026-01-01T00:00:00Z", Some('d')), dated("2026-03-31T22:00:00Z", Some('e')));
    assert_eq!(days(&[ever, before, after]), [(0, 31, 'd')]);
}

/// Terms with fees in thousandths and bounds in whole units.
fn any_terms() -> impl Strategy<Value = Terms> {
    let bound = || proptest::option::of(0_u64..8);
    (any_rows(), any_rows(), 0_i128..9_000, bound(), bound()).prop_map(|(a, b, base_fee, low, high)| {
        let prices = [("a", &a), ("b", &b)].map(|(item, rows)| (item, Price::new(rows).unwrap()));
        let high = high.map(|high| Exact::from(high + low.unwrap_or_default()));
        let base_fee = Exact::fraction(base_fee, 1_000).unwrap();
        PlanTerms::new(euro(), base_fee, low.map(Exact::from), high, prices.into()).unwrap()
    })
}

/// The bill without the places of its segments.
fn whole_bill(segments: &[PlanSegment<'_, &'static str>]) -> Bill<&'static str> {
    let mut bill = Bill::new(segments, 31).unwrap();
    bill.lines.iter_mut().for_each(|line| line.parts.clear());
    bill
}

proptest! {
    /// However the days of a plan are split, also around another plan, the bill stays the same.
    #[test]
    fn a_change_to_the_same_plan_changes_nothing(
        first in any_terms(), second in any_terms(), days in (0_u32..15, 0_u32..15),
        used in (0_u128..600, 0_u128..600), cut in (0_u32..15, 0_u128..600),
    ) {
        let whole = [segment(&first, days.0, calls(used.0)), segment(&second, days.1, calls(used.1))];
        let (day, call) = (cut.0.min(days.0), cut.1.min(used.0));
        let same = first.clone();
        let split = [
            segment(&first, day, calls(call)),
            segment(&same, days.0 - day, calls(used.0 - call)),
            whole[1],
            segment(&second, 0, calls(0)),
        ];
        prop_assert_eq!(whole_bill(&whole), whole_bill(&split));
    }

    #[test]
    fn a_bill_is_the_sum_of_its_lines_and_within_its_bounds(
        terms in any_terms(), used in 0_u128..2_000, days in 0_u32..32,
    ) {
        let bill = Bill::new(&[segment(&terms, days, calls(used))], 31).unwrap();
        prop_assert_eq!(bill.total, bill.lines.iter().map(|line| line.amount).sum::<i128>());
        let share = |bound: Exact| euro().amount(bound.times(days.into()).unwrap().over(31).unwrap()).unwrap();
        prop_assert!(bill.total >= share(terms.minimum.unwrap_or_default()));
        prop_assert!(terms.maximum.is_none_or(|maximum| bill.total <= share(maximum)));
        for line in &bill.lines {
            prop_assert_eq!(line.amount, euro().amount(line.exact).unwrap());
        }
        prop_assert!(bill.lines.windows(2).all(|pair| pair[0].item < pair[1].item));
    }

    /// Each day has the terms that a look at each of them alone finds.
    #[test]
    fn each_day_has_the_latest_terms(
        dated in proptest::collection::vec((proptest::option::of(0_u64..100), any::<bool>()), 0..6),
    ) {
        let utc = calendar("UTC");
        let start = ms("2026-03-01T00:00:00Z");
        let march = utc.period(PeriodKind::Month, Anchor::FIRST, start);
        let first = utc.day(start);
        // Halves of days, from two weeks before the month on.
        let at_ms = |half: u64| start - 14 * 86_400_000 + half * 43_200_000;
        let dated: Vec<_> = (0..).zip(dated).map(|(name, (half, is_plan))| DatedTerms {
            valid_from_ms: half.map(at_ms), terms: is_plan.then_some(name),
        }).collect::<Vec<DatedTerms<i32>>>();
        let found = days_by_terms(&utc, &march, &dated);
        prop_assert!(found.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
        for day in first..first + 31 {
            let valid = dated.iter().filter(|dated| dated.valid_from_ms.is_none_or(|at_ms| utc.day(at_ms) <= day));
            let expected = valid.max_by_key(|dated| dated.valid_from_ms).and_then(|dated| dated.terms);
            let in_force = found.iter().find(|(days, _)| days.contains(&day)).map(|(_, terms)| **terms);
            prop_assert_eq!(in_force, expected);
        }
    }

    /// The bill that was final and all later differences are the bill of all use.
    #[test]
    fn a_bill_and_its_adjustments_are_the_bill_of_all_use(
        terms in any_terms(), used in proptest::collection::vec(0_u128..900, 1..6),
    ) {
        let mut sums: BTreeMap<ChargeItem<&str>, i128> = BTreeMap::new();
        for used in &used {
            let bill = Bill::new(&[segment(&terms, 31, calls(*used))], 31).unwrap();
            for (item, amount) in bill.since(&sums).unwrap() {
                *sums.entry(item).or_default() += amount;
            }
            prop_assert_eq!(sums.values().sum::<i128>(), bill.total);
        }
    }
}
