//! Rows of accounts as JSON: any row has its view's schema, and no amount is lost.

use std::sync::LazyLock;

use keytide_billing::{
    ChargeItem, Currency, Exact, Forecast, Measure, PeriodKind, PriceModel, PriceUnit, QuotaStanding,
};
use keytide_config::View;
use keytide_connectors::sink::encode::{EncodeRow, Labels};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{Definition, NameId};
use keytide_dataflow::{
    AccountFault, Adjustment, BillKey, BillRow, Charge, ChargeKey, ChargePart, ForecastRow, QuotaKey,
    QuotaNotice, Revision,
};
use proptest::prelude::*;

use crate::harness::{Row, Schema, repository};

static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let read =
        |view: View| Schema::read(&repository().join(format!("schemas/{}.v1.schema.json", view.name())));
    View::ALL.map(read).into()
});

/// A name that a customer may choose: of any characters, or of those that mean something.
const NAME: &str = "[:\"\\\\\0\n{},a]{1,6}|\\PC{1,12}";

/// The strings of a row: its subscription, item, plan, customer, time zone. The last three may be unknown.
fn texts() -> impl Strategy<Value = [Option<String>; 5]> {
    let some = || NAME.prop_map(Some);
    let maybe = || prop::option::of(NAME);
    (some(), some(), maybe(), maybe(), maybe()).prop_map(<[_; 5]>::from)
}

fn ids(texts: &[Option<String>; 5]) -> [NameId; 5] {
    texts.each_ref().map(|text| text.as_deref().map_or(NameId::NONE, NameId::new))
}

fn names(texts: &[Option<String>; 5]) -> Names {
    let mut names = Names::default();
    for text in texts.iter().flatten() {
        names.define(Definition::Name { id: NameId::new(text), text: text.as_str().into() });
    }
    names
}

/// Writes a row, checks that it has its schema, and returns it.
fn checked(row: &impl EncodeRow, view: View, names: &Names) -> Result<Row, TestCaseError> {
    let (mut labels, mut line, mut key) = (Labels::new(names), Vec::new(), Vec::new());
    row.line(&mut labels, &mut line);
    row.key_columns(&mut labels, &mut key);
    prop_assert!(line.starts_with(&key), "the key columns come first");
    let text = String::from_utf8(line).unwrap();
    prop_assert_eq!(text.matches('\n').count(), 1, "{}", text);
    let read = Row::parse(text.trim_end_matches('\n'));
    if let Err(problem) = SCHEMAS[view as usize].check(&read) {
        return Err(TestCaseError::fail(format!("{}: {problem}\n{text}", view.name())));
    }
    Ok(read)
}

/// Checks that a row which is taken back has its key columns alone.
fn taken_back(row: &impl EncodeRow, view: View, names: &Names) -> Result<(), TestCaseError> {
    let (mut labels, mut line) = (Labels::new(names), Vec::new());
    row.line(&mut labels, &mut line);
    let read = Row::parse(String::from_utf8(line).unwrap().trim_end());
    let columns: Vec<&str> = read.0.iter().map(|(name, _)| name.as_str()).collect();
    prop_assert_eq!(columns, [view.key(), &["retracted"]].concat());
    prop_assert!(row.is_retracted() && read.flag("retracted"));
    Ok(())
}

fn minor_units(row: &Row, column: &str, currency: Currency) -> Option<i128> {
    let text = row.get(column).as_str()?;
    let places = text.split_once('.').map_or(0, |(_, places)| places.len());
    assert_eq!(places, currency.digits() as usize, "{text}");
    Some(text.replace('.', "").parse().unwrap())
}

fn currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(Currency::all().collect::<Vec<_>>())
}

fn exact() -> impl Strategy<Value = Exact> {
    (any::<i128>(), any::<i128>(), any::<bool>()).prop_map(|(numerator, denominator, is_whole)| {
        Exact::fraction(numerator, if is_whole { 1 } else { denominator }).unwrap_or_default()
    })
}

fn measure() -> impl Strategy<Value = Measure> {
    prop::sample::select(Measure::ALL.to_vec())
}

/// The periods that have rows.
fn period() -> impl Strategy<Value = PeriodKind> {
    prop::sample::select(vec![PeriodKind::Day, PeriodKind::Month, PeriodKind::Billing])
}

prop_compose! {
    fn standing()(
        limit: u64, used: u128, remaining: u64, permille: u64, hard: bool, resets_at_ms: u64
    ) -> QuotaStanding {
        QuotaStanding { limit, used, remaining, permille, hard, resets_at_ms }
    }
}

prop_compose! {
    fn forecast()(expected: u64, low: u64, high: u64, runs_out_at_ms: Option<u64>) -> Forecast {
        Forecast { expected, low, high, runs_out_at_ms }
    }
}

prop_compose! {
    fn part()(
        tier in 1_u32.., quantity: i128, unit_price in exact(), exact in exact()
    ) -> ChargePart {
        ChargePart { plan: NameId::NONE, tier, quantity, unit_price, exact }
    }
}

prop_compose! {
    fn charge()(
        quantity: u128,
        measure in prop::option::of(measure().prop_filter("has a price", |of| *of != Measure::Cost)),
        unit in prop::option::of((1_u64..=1_000_000_000_000_000).prop_map(|of| PriceUnit::try_from(of).unwrap())),
        model in prop::option::of(prop::sample::select(PriceModel::ALL.to_vec())),
        parts in prop::collection::vec(part(), 0..4),
        exact in exact(),
        amount: i128,
        currency in currency(),
    ) -> Charge {
        Charge { quantity, measure, unit, model, parts, exact, amount, currency }
    }
}

prop_compose! {
    fn bill()(
        end_ms: u64,
        currency in prop::option::of(currency()),
        total: Option<i128>,
        lines: u32,
        adjustments: i128,
        complete: bool,
        is_final: bool,
        fault in prop::option::of(NAME.prop_map(Box::from)),
    ) -> BillRow {
        let of_no_plan = |text| AccountFault { plan: NameId::NONE, item: NameId::NONE, text };
        let fault = fault.map(of_no_plan);
        let none = NameId::NONE;
        BillRow {
            end_ms, currency, total, lines, adjustments, complete, is_final, fault,
            customer: none, plan: none, time_zone: none,
        }
    }
}

/// The items of a bill, of which the first is one with a price.
fn items(item: NameId) -> [ChargeItem<NameId>; 4] {
    [ChargeItem::Item(item), ChargeItem::BaseFee, ChargeItem::Minimum, ChargeItem::Maximum]
}

proptest! {
    #[test]
    fn any_quota_forecast_and_notice_has_its_schema(
        texts in texts(), measure in measure(), period in period(), start_ms: u64,
        standing in standing(), forecast in forecast(), known: bool,
        expected_amount: Option<i128>, currency in prop::option::of(currency()),
        seq in 1_u64.., percent in 1_u16..=1_000, at_ms: u64, is_highest: bool,
    ) {
        let ([subscription, _, plan, customer, time_zone], names) = (ids(&texts), names(&texts));
        let key = QuotaKey { subscription, measure, period, start_ms };
        let row = checked(&Revision { key, value: Some(standing) }, View::Quota, &names)?;
        prop_assert_eq!(row.text("subscription"), texts[0].as_deref().unwrap());
        prop_assert_eq!(row.number("limit"), standing.limit);
        prop_assert_eq!(u128::from(row.number("used")), standing.used.min(u64::MAX.into()));
        taken_back(&Revision { key, value: None::<QuotaStanding> }, View::Quota, &names)?;

        let expected = ForecastRow { forecast, expected_amount, currency };
        let row = checked(&Revision { key, value: Some(expected) }, View::Forecast, &names)?;
        let shown = currency.and_then(|currency| minor_units(&row, "expected_amount", currency));
        prop_assert_eq!(shown, currency.and(expected_amount));
        taken_back(&Revision { key, value: None::<ForecastRow> }, View::Forecast, &names)?;

        let notice = QuotaNotice {
            key, seq, percent, standing, at_ms, is_highest,
            forecast: known.then_some(forecast),
            currency, customer, plan, contacts: NameId::NONE, time_zone,
        };
        let row = checked(&notice, View::Notices, &names)?;
        prop_assert_eq!(row.get("expected").as_u64(), known.then_some(forecast.expected));
        for (column, text) in [("plan", &texts[2]), ("customer", &texts[3]), ("time_zone", &texts[4])] {
            prop_assert_eq!(row.get(column).as_str(), text.as_deref());
        }
    }

    #[test]
    fn any_bill_charge_and_adjustment_has_its_schema_and_its_amounts(
        texts in texts(), start_ms: u64, charge in charge(), bill in bill(), seq in 1_u64.., due_with_ms: u64, at_ms: u64,
    ) {
        let ([subscription, item, plan, customer, time_zone], names) = (ids(&texts), names(&texts));
        let key = BillKey { subscription, start_ms };
        let bill = BillRow { customer, plan, time_zone, ..bill };
        let row = checked(&Revision { key, value: Some(bill.clone()) }, View::Bills, &names)?;
        if let Some(currency) = bill.currency {
            prop_assert_eq!(minor_units(&row, "total", currency), bill.total);
            prop_assert_eq!(minor_units(&row, "adjustments", currency), Some(bill.adjustments));
        } else {
            prop_assert!(row.get("total").is_null() && row.get("adjustments").is_null());
        }
        for (column, text) in [("plan", &texts[2]), ("customer", &texts[3]), ("time_zone", &texts[4])] {
            prop_assert_eq!(row.get(column).as_str(), text.as_deref());
        }
        taken_back(&Revision { key, value: None::<BillRow> }, View::Bills, &names)?;

        let (amount, currency) = (charge.amount, charge.currency);
        let parts = charge.parts.iter().map(|part| ChargePart { plan, ..*part }).collect();
        let charge = Charge { parts, ..charge };
        for item in items(item) {
            let key = ChargeKey { bill: key, item };
            let row = checked(&Revision { key, value: Some(charge.clone()) }, View::Charges, &names)?;
            prop_assert_eq!(minor_units(&row, "amount", currency), Some(amount));
            prop_assert_eq!(row.get("tiers").as_array().map(Vec::len), Some(charge.parts.len()));
            taken_back(&Revision { key, value: None::<Charge> }, View::Charges, &names)?;
            let adjustment = Adjustment { bill: key.bill, seq, item, amount, currency, due_with_ms, at_ms };
            let row = checked(&adjustment, View::Adjustments, &names)?;
            prop_assert_eq!(minor_units(&row, "amount", currency), Some(amount));
        }
    }
}
