//! Bills of rows as sinks write them: sums, states, zones, hostile names.

use keytide_billing::{
    ChargeItem, Currency, Exact, Measure, Price, PriceModel, PriceUnit, TierPart, TierRow,
};
use keytide_config::{Language, View};
use keytide_connectors::sink::encode::{EncodeRow, Labels};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS};
use keytide_dataflow::model::{Definition, EventTime, NameId};
use keytide_dataflow::{Adjustment, BillKey, BillRow, Charge, ChargeKey, ChargePart, Revision};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// 2025-09-30T15:00:00Z and 2025-10-31T15:00:00Z: October in Asia/Seoul.
const SEOUL: (EventTime, EventTime) = (1_759_244_400_000, 1_761_922_800_000);
/// 2025-10-01T00:00:00Z and 2025-11-01T00:00:00Z.
const OCTOBER: (EventTime, EventTime) = (1_759_276_800_000, 1_761_955_200_000);

/// The texts of a bill that others choose: subscription, customer, plan, item.
#[derive(Clone, Debug)]
struct Texts([String; 4]);

impl Default for Texts {
    fn default() -> Self {
        Self(["sub-1", "Acme", "gold", "calls"].map(str::to_owned))
    }
}

/// Makes rows of a bill.
struct Maker {
    texts: Texts,
    span: (EventTime, EventTime),
    zone: &'static str,
    currency: Currency,
    is_final: bool,
    charges: Vec<(ChargeItem<NameId>, Charge)>,
    /// Period, amount, period with which it is due, tick.
    adjustments: Vec<(EventTime, i128, EventTime, EventTime)>,
}

impl Maker {
    fn new(currency: &str) -> Self {
        Self {
            texts: Texts::default(),
            span: OCTOBER,
            zone: "UTC",
            currency: currency.parse().unwrap(),
            is_final: true,
            charges: Vec::new(),
            adjustments: Vec::new(),
        }
    }

    /// Adds a line of a price.
    fn priced(mut self, quantity: u64, tiers: &[TierRow]) -> Self {
        let price = Price::new(tiers).unwrap();
        let exact = price.of(quantity.into()).unwrap();
        let part = |part: TierPart| ChargePart {
            plan: NameId::new(&self.texts.0[2]),
            tier: u32::try_from(part.tier).unwrap() + 1,
            quantity: part.quantity,
            unit_price: price.unit_price(part.tier).unwrap(),
            exact: part.exact,
        };
        let charge = Charge {
            quantity: quantity.into(),
            measure: Some(price.measure()),
            unit: Some(price.unit()),
            model: Some(price.model()),
            parts: price.parts(quantity.into()).unwrap().into_iter().map(part).collect(),
            exact,
            amount: self.currency.amount(exact).unwrap(),
            currency: self.currency,
        };
        let item = ChargeItem::Item(NameId::new(&self.texts.0[3]));
        self.charges.push((item, charge));
        self
    }

    fn fee(mut self, item: ChargeItem<NameId>, amount: i128) -> Self {
        let charge = Charge {
            quantity: 0,
            measure: None,
            unit: None,
            model: None,
            parts: Vec::new(),
            exact: self.currency.sum(amount).unwrap(),
            amount,
            currency: self.currency,
        };
        self.charges.push((item, charge));
        self
    }

    /// Returns the lines of views, bills first.
    fn lines(&self) -> Vec<(View, String)> {
        let mut names = Names::default();
        for text in self.texts.0.iter().map(String::as_str).chain([self.zone]) {
            names.define(Definition::Name { id: NameId::new(text), text: text.into() });
        }
        let [subscription, customer, plan, _] = self.texts.0.each_ref().map(|text| NameId::new(text));
        let bill = BillKey { subscription, start_ms: self.span.0 };
        let due = |(_, amount, with, _): &(EventTime, i128, EventTime, EventTime)| {
            if *with == self.span.0 { *amount } else { 0 }
        };
        let adjustments = self.adjustments.iter().map(due).sum();
        let row = BillRow {
            end_ms: self.span.1,
            currency: Some(self.currency),
            total: Some(self.charges.iter().map(|(_, charge)| charge.amount).sum::<i128>() + adjustments),
            lines: u32::try_from(self.charges.len()).unwrap(),
            adjustments,
            complete: self.is_final,
            is_final: self.is_final,
            fault: None,
            customer,
            plan,
            time_zone: NameId::new(self.zone),
        };
        let mut lines = vec![(View::Bills, line(&Revision { key: bill, value: Some(row) }, &names))];
        for (item, charge) in &self.charges {
            let key = ChargeKey { bill, item: *item };
            lines.push((View::Charges, line(&Revision { key, value: Some(charge.clone()) }, &names)));
        }
        for (seq, (of, amount, due_with_ms, at_ms)) in (1..).zip(&self.adjustments) {
            let bill = BillKey { start_ms: *of, ..bill };
            let row = Adjustment {
                bill,
                seq,
                item: ChargeItem::Item(NameId::new(&self.texts.0[3])),
                amount: *amount,
                currency: self.currency,
                due_with_ms: *due_with_ms,
                at_ms: *at_ms,
            };
            lines.push((View::Adjustments, line(&row, &names)));
        }
        lines
    }

    fn bill(&self) -> BillDocument {
        document(&self.texts.0[0], self.span.0, &self.lines()).unwrap()
    }
}

fn line(row: &impl EncodeRow, names: &Names) -> String {
    let mut out = Vec::new();
    row.line(&mut Labels::new(names), &mut out);
    String::from_utf8(out).unwrap().trim_end().to_owned()
}

fn read(lines: &[(View, String)], has_all_hours: bool) -> ReportRows {
    let mut rows = ReportRows::new(None, has_all_hours);
    lines.iter().for_each(|(view, line)| rows.take(*view, line.as_bytes()));
    rows
}

fn document(id: &str, start: EventTime, lines: &[(View, String)]) -> Result<BillDocument, NotABill> {
    let rows = read(lines, true);
    assert_eq!(rows.unreadable(), 0);
    let (_, of_subscription) = rows.subscriptions().find(|(of, _)| *of == id).unwrap();
    BillDocument::new(id, start, of_subscription)
}

fn html(bill: &BillDocument, language: Language) -> String {
    bill.files(language).unwrap().html
}

fn time(ms: EventTime) -> String {
    keytide_connectors::sink::encode::time(ms)
}

/// A row of `subscription_usage`.
fn usage(subscription: &str, window: &str, start: EventTime, calls: u64, free_calls: u64) -> (View, String) {
    let row = json!({
        "subscription": subscription, "window": window, "window_start": time(start), "calls": calls, "errors_4xx": 0,
        "errors_5xx": 0, "bytes_in": 1, "bytes_out": 2, "latency_sum_us": 0, "latency_calls": 0,
        "free_calls": free_calls, "units": 0, "keys": 1, "customer": null, "plan": "gold", "plan_name": "Gold plan",
        "complete": true, "final": true,
    });
    (View::SubscriptionUsage, row.to_string())
}

fn exact(text: &str) -> Exact {
    text.parse().unwrap()
}

fn tier(measure: Measure, model: PriceModel, up_to: Option<u64>, unit_price: &str) -> TierRow {
    TierRow {
        measure,
        model,
        unit: None,
        up_to,
        unit_price: exact(unit_price),
        flat_price: Exact::ZERO,
        included: None,
        package: None,
        currency: None,
    }
}

#[test]
fn the_worked_examples_of_the_documentation_are_documents() {
    let of = |unit_price| tier(Measure::Calls, PriceModel::Unit, None, unit_price);
    let calls_beyond = TierRow { included: Some(10_000), ..of("0.002") };
    let bytes = |unit: u64| TierRow {
        measure: Measure::BytesOut,
        unit: Some(PriceUnit::try_from(unit).unwrap()),
        ..of("0.10")
    };
    let step = |up_to, price| tier(Measure::Calls, PriceModel::Graduated, up_to, price);
    let steps = [
        step(Some(10_000), "0"),
        step(Some(100_000), "0.001"),
        step(Some(1_000_000), "0.0008"),
        step(None, "0.0005"),
    ];
    let examples: [(&[TierRow], u64, &str, &str, &str); 7] = [
        (&[calls_beyond], 12_345, "4.69", "4.69", "12,345 calls"),
        (&[of("0.001")], 1_234_567, "1234.567", "1234.57", "1,234,567 calls"),
        (&[bytes(1 << 30)], 98_765_432_109, "9.1982476514", "9.20", "91.982 GiB"),
        (&[bytes(1_000_000_000)], 98_765_432_109, "9.8765432109", "9.88", "98.765 GB"),
        (&steps, 2_500_000, "1560", "1560.00", "2,500,000 calls"),
        (&steps, 10_001, "0.001", "0.00", "10,001 calls"),
        (&[of("0.0004")], 100_000, "40", "40.00", "100,000 calls"),
    ];
    for (tiers, quantity, exact, amount, shown) in examples {
        let bill = Maker::new("EUR").priced(quantity, tiers).bill();
        let line = &bill.lines[0];
        assert!(line.exact.starts_with(exact), "{} {exact}", line.exact);
        assert_eq!((line.amount.as_str(), bill.total.as_deref()), (amount, Some(amount)));
        assert_eq!(line.quantity, Some(quantity));
        let billed: i128 = line.tiers.iter().map(|tier| tier.quantity).sum();
        assert_eq!(billed + i128::from(line.included.unwrap_or(0)), i128::from(quantity));
        let html = html(&bill, Language::En);
        assert!(html.contains(&format!(">{shown}<")), "{shown}: {html}");
        let has_exponent = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
        let parts: Vec<&str> = html.split("e-").collect();
        assert!(!parts[..parts.len() - 1].iter().any(|part| has_exponent(part)), "{html}");
    }
    // Lines of a bill add up: 1234.57 + 9.20 = 1243.77.
    let mut two = Maker::new("EUR").priced(1_234_567, &[of("0.001")]);
    two.texts.0[3] = "transfer".to_owned();
    let bill = two.priced(98_765_432_109, &[bytes(1 << 30)]).fee(ChargeItem::BaseFee, 4_900);
    let mut named = bill.lines();
    named[1].1 = named[1]
        .1
        .replace("\"item\":null", "\"item\":\"calls\"")
        .replace("\"item\":\"\"", "\"item\":\"calls\"");
    let bill = document("sub-1", OCTOBER.0, &named).unwrap();
    assert_eq!((bill.total.as_deref(), bill.charges.as_deref()), (Some("1292.77"), Some("1292.77")));
    let items: Vec<&str> = bill.lines.iter().map(|line| line.item.as_str()).collect();
    assert_eq!(items, ["calls", "transfer", ":base_fee"], "lines of ours come last");
    assert!(html(&bill, Language::En).contains("<strong>1,292.77 EUR</strong>"));
    let steps = html(&Maker::new("EUR").priced(2_500_000, &steps).bill(), Language::Ko);
    for text in ["2구간", ">900,000건<", "건당 0.0008 EUR", ">1,500,000건<", ">무료<", "1,560.00 EUR"]
    {
        assert!(steps.contains(text), "{text}: {steps}");
    }
}

#[test]
fn a_bill_is_a_draft_then_final_and_then_corrected() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "0.5")];
    let before = OCTOBER.0 - 30 * DAY_MS;
    let mut maker = Maker::new("EUR").priced(100, &price);
    maker.adjustments.push((before, -250, OCTOBER.0, OCTOBER.0 + HOUR_MS));
    maker.is_final = false;
    let draft = maker.bill();
    assert_eq!((draft.state, draft.number), (BillState::Draft, None));
    assert_eq!((draft.charges.as_deref(), draft.total.as_deref()), (Some("50.00"), Some("47.50")));
    assert_eq!(draft.adjustments[0].period_first_day, "2025-09-01");
    let page = html(&draft, Language::En);
    assert!(
        page.contains("<h1>Draft bill</h1>") && page.contains(">-2.50<") && page.contains("47.50 EUR"),
        "{page}"
    );
    assert!(html(&draft, Language::Ko).contains("<h1>청구서 초안</h1>"));
    assert_eq!(draft.unlisted_adjustments(), None);

    maker.is_final = true;
    let last = maker.bill();
    assert_eq!(
        (last.state, last.number, last.corrected_charges.as_deref()),
        (BillState::Final, Some(1), None)
    );
    assert!(html(&last, Language::En).contains("<h1>Bill</h1>"));

    // Two ticks found something; the second one two amounts. They are due with the next bill.
    for (amount, at) in [(1_000, 1), (-300, 2), (25, 2)] {
        maker.adjustments.push((OCTOBER.0, amount, OCTOBER.1, OCTOBER.1 + at * HOUR_MS));
    }
    let corrected = maker.bill();
    assert_eq!((corrected.state, corrected.number), (BillState::Corrected, Some(3)));
    assert_eq!(corrected.total, last.total, "a correction doesn't move the bill");
    assert_eq!(corrected.corrected_charges.as_deref(), Some("57.25"));
    let amounts: Vec<_> =
        corrected.corrections.iter().map(|one| (one.number, one.amount.as_deref())).collect();
    assert_eq!(amounts, [(2, Some("10.00")), (3, Some("-2.75"))]);
    let page = html(&corrected, Language::En);
    for text in
        ["Corrected bill", "due with the bill from 2025-11-01", ">-3.00<", "57.25 EUR", "made 3 adjustments"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }

    // An entry of the log that isn't there any more is shown as a sum.
    let mut lines = maker.lines();
    lines.retain(|(view, line)| *view != View::Adjustments || !line.contains("\"seq\":1,"));
    let bill = document("sub-1", OCTOBER.0, &lines).unwrap();
    assert_eq!(bill.unlisted_adjustments().as_deref(), Some("-2.50"));
    assert!(html(&bill, Language::En).contains("aren't listed here"));
}

#[test]
fn rows_of_two_moments_make_no_bill() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "0.5")];
    let (one, other) = (Maker::new("EUR").priced(100, &price), Maker::new("EUR").priced(102, &price));
    let mut lines = one.lines();
    lines.push(other.lines()[1].clone());
    let sum = NotABill::Sum { total: "50.00".to_owned(), sum: "51.00".to_owned() };
    assert_eq!(document("sub-1", OCTOBER.0, &lines), Err(sum));
    lines.truncate(1);
    assert_eq!(document("sub-1", OCTOBER.0, &lines), Err(NotABill::Lines { expected: 1, found: 0 }));
    assert_eq!(document("sub-1", OCTOBER.0 + 1, &lines), Err(NotABill::Missing));
    // A bill with a fault has no total, and says why.
    lines[0].1 =
        lines[0].1.replace("\"50.00\"", "null").replace("\"fault\":null", "\"fault\":\"<b>no price\"");
    let bill = document("sub-1", OCTOBER.0, &lines).unwrap();
    assert_eq!((&bill.total, &bill.charges), (&None, &None));
    let page = html(&bill, Language::En);
    assert!(
        page.contains("There is no total")
            && page.contains("&lt;b&gt;no price")
            && page.contains("<strong>-</strong>")
    );
}

#[test]
fn a_month_in_seoul_is_shown_in_local_time_and_won_without_decimals() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "15")];
    let mut maker = Maker::new("KRW").priced(104, &price);
    (maker.span, maker.zone) = (SEOUL, "asia/seoul");
    let mut lines = maker.lines();
    // The hours at both ends are those of the month; their neighbours aren't.
    for (at, calls) in [(SEOUL.0 - HOUR_MS, 7), (SEOUL.0, 100), (SEOUL.1 - HOUR_MS, 5), (SEOUL.1, 9)] {
        lines.push(usage("sub-1", "1h", at, calls, u64::from(calls == 5)));
    }
    let bill = document("sub-1", SEOUL.0, &lines).unwrap();
    assert_eq!(bill.period.start, "2025-09-30T15:00:00Z");
    assert_eq!(bill.period.start_local, "2025-10-01T00:00:00+09:00");
    assert_eq!(bill.period.end_local, "2025-11-01T00:00:00+09:00");
    assert_eq!(bill.period.time_zone, "Asia/Seoul");
    assert_eq!((bill.period.first_day.as_str(), bill.period.last_day.as_str()), ("2025-10-01", "2025-10-31"));
    assert_eq!(bill.file_stem(), "bill-sub-1-2025-10-01");
    let days = &bill.by_day.as_ref().unwrap().days;
    assert_eq!((days.len(), days[1].used), (31, None));
    assert_eq!(days[0].used.map(|used| used.billed_calls), Some(100));
    assert_eq!(days[30].used.map(|used| (used.calls, used.billed_calls)), Some((5, 4)));
    let used = bill.counted.used.unwrap();
    assert_eq!((used.calls, used.billed_calls, used.free_calls), (105, 104, 1));
    assert_eq!(u128::from(bill.lines[0].quantity.unwrap()), used.billed_calls);
    for language in [Language::En, Language::Ko] {
        let page = html(&bill, language);
        for text in ["<strong>1,560 KRW</strong>", "2025-10-01 00:00 UTC+09:00", "Asia/Seoul", ">100<"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("1,560.0"));
    }
}

#[test]
fn a_key_that_moved_is_on_the_bill_of_each_subscription_with_its_own_hours() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "0.5")];
    let mut lines = Vec::new();
    for (id, calls) in [("sub-1", 30), ("sub-2", 12)] {
        let mut maker = Maker::new("EUR").priced(calls, &price);
        maker.texts.0[0] = id.to_owned();
        lines.extend(maker.lines());
    }
    let noon = OCTOBER.0 + DAY_MS / 2;
    lines.push(usage("sub-1", "1h", noon, 30, 0));
    lines.push(usage("sub-2", "1h", noon + HOUR_MS, 12, 0));
    let mut all = 0;
    for (id, calls, total) in [("sub-1", 30, "15.00"), ("sub-2", 12, "6.00")] {
        let bill = document(id, OCTOBER.0, &lines).unwrap();
        assert_eq!((bill.counted.used.unwrap().calls, bill.total.as_deref()), (calls, Some(total)));
        all += calls;
    }
    assert_eq!(all, 42);
}

#[test]
fn the_newest_row_of_a_key_holds_and_what_is_taken_back_is_gone() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "0.5")];
    let maker = Maker::new("EUR").priced(100, &price).fee(ChargeItem::Minimum, 100);
    let newer = Maker::new("EUR").priced(102, &price);
    let mut lines = maker.lines();
    lines.extend(newer.lines());
    let start = time(OCTOBER.0);
    let gone = |more: &str| {
        format!("{{\"subscription\":\"sub-1\",{more},\"retracted\":true,\"tick\":1,\"version\":9}}")
    };
    lines.push((View::Charges, gone(&format!("\"period_start\":\"{start}\",\"item\":\":minimum\""))));
    for (at, calls) in [(0, 4), (1, 5), (0, 6), (2, 1)] {
        lines.push(usage("sub-1", "1h", OCTOBER.0 + at * HOUR_MS, calls, 0));
    }
    let third = time(OCTOBER.0 + 2 * HOUR_MS);
    lines.push((View::SubscriptionUsage, gone(&format!("\"window\":\"1h\",\"window_start\":\"{third}\""))));
    let bill = document("sub-1", OCTOBER.0, &lines).unwrap();
    assert_eq!((bill.lines.len(), bill.total.as_deref()), (1, Some("51.00")));
    assert_eq!(bill.counted.used.unwrap().calls, 11);
    assert_eq!(bill.counted.counted_to.as_deref(), Some("2025-10-01T02:00:00+00:00"));
    // Keys in another order make the same files.
    let shuffled = [&lines[..1], &lines[3..4], &lines[6..], &lines[1..3], &lines[4..6]].concat();
    let same = document("sub-1", OCTOBER.0, &shuffled).unwrap();
    assert_eq!(same.files(Language::Ko).unwrap(), bill.files(Language::Ko).unwrap());

    let mut rows = ReportRows::new(Some("sub-2"), true);
    lines.iter().for_each(|(view, line)| rows.take(*view, line.as_bytes()));
    assert_eq!((rows.subscriptions().count(), rows.unreadable()), (0, 0));
    for line in [
        "",
        "{}",
        "[1]",
        "{\"subscription\":\"sub-2\"}",
        "{\"subscription\":\"sub-2\",\"period_start\":\"x\"}",
    ] {
        rows.take(View::Bills, line.as_bytes());
    }
    assert_eq!(rows.unreadable(), 5);
    let mut rows = read(&lines, true);
    rows.choose(|day| day == "2025-11-01");
    assert_eq!(rows.subscriptions().map(|(_, rows)| rows.periods().count()).sum::<usize>(), 0);
}

#[test]
fn days_of_utc_are_shown_where_hours_are_gone() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "15")];
    let mut maker = Maker::new("KRW").priced(30, &price);
    (maker.span, maker.zone) = (SEOUL, "Asia/Seoul");
    let mut lines = maker.lines();
    let second = OCTOBER.0 + DAY_MS;
    lines.push(usage("sub-1", "1d", OCTOBER.0, 10, 0));
    lines.push(usage("sub-1", "1d", second, 20, 0));
    assert_eq!(document("sub-1", SEOUL.0, &lines).unwrap().by_day, None, "with all hours, there are none");
    lines.push(usage("sub-1", "1h", second, 20, 0));
    let of = |lines: &[(View, String)], has_all_hours| {
        let rows = read(lines, has_all_hours);
        let (id, rows) = rows.subscriptions().next().unwrap();
        BillDocument::new(id, SEOUL.0, rows).unwrap()
    };
    let bill = of(&lines, false);
    let by_day = bill.by_day.as_ref().unwrap();
    assert_eq!((by_day.time_zone.as_str(), by_day.days[0].date.as_str()), ("UTC", "2025-09-30"));
    assert_eq!(bill.counted.used, None, "days of UTC aren't those of the period");
    assert!(html(&bill, Language::En).contains("Days of UTC."));
    assert_eq!(of(&lines, true).by_day.unwrap().time_zone, "Asia/Seoul");
    lines.push(usage("sub-1", "1h", OCTOBER.0 + HOUR_MS, 10, 0));
    assert_eq!(of(&lines, false).counted.used.map(|used| used.calls), Some(30));
    // Without any row nothing is known, which isn't zero.
    let bare = maker.bill();
    assert_eq!((&bare.by_day, bare.counted.used), (&None, None));
    assert!(html(&bare, Language::En).contains("No use of this period is known."));
}

#[test]
fn quantities_beyond_the_integers_of_floating_point_keep_their_digits() {
    let price = [tier(Measure::Calls, PriceModel::Unit, None, "0.000001")];
    let count = (1_u64 << 53) + 1;
    let mut lines = Maker::new("EUR").priced(count, &price).lines();
    lines.push(usage("sub-1", "1h", OCTOBER.0, u64::MAX, 0));
    lines.push(usage("sub-1", "1h", OCTOBER.0 + HOUR_MS, u64::MAX, 1));
    let row = json!({
        "subscription": "sub-1", "metric": "calls", "period": "billing", "period_start": time(OCTOBER.0),
        "limit": 10_000, "used": 10_001, "remaining": 0, "permille": 1_000, "hard": true, "resets_at": time(OCTOBER.1),
    });
    lines.push((View::Quota, row.to_string()));
    let bill = document("sub-1", OCTOBER.0, &lines).unwrap();
    let files = bill.files(Language::En).unwrap();
    for (text, file) in [
        ("9007199254740993", &files.json),
        ("9007199254740993", &files.csv),
        ("9,007,199,254,740,993 calls", &files.html),
        ("36893488147419103230", &files.json),
        ("36,893,488,147,419,103,229", &files.html),
        ("10,001 of 10,000 calls: 100 %, 1 call over (calls beyond it are refused)", &files.html),
    ] {
        assert!(file.contains(text), "{text}: {file}");
    }
}

/// Reads a table by RFC 4180.
fn cells(table: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = table.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            _ => cell.push(c),
        }
    }
    assert!(!quoted && row.is_empty() && cell.is_empty(), "the last line ends");
    rows
}

fn hostile(texts: [&str; 4]) -> BillDocument {
    let mut maker = Maker::new("EUR");
    maker.texts = Texts(texts.map(str::to_owned));
    let tiers = [
        tier(Measure::Calls, PriceModel::Graduated, Some(10), "0.1"),
        tier(Measure::Calls, PriceModel::Graduated, None, "0.2"),
    ];
    let mut maker = maker.priced(100, &tiers);
    maker.adjustments.push((OCTOBER.0 - 30 * DAY_MS, -5, OCTOBER.0, OCTOBER.0));
    maker.adjustments.push((OCTOBER.0, -5, OCTOBER.1, OCTOBER.1));
    maker.bill()
}

#[test]
fn names_of_strangers_are_text() {
    let long = "x".repeat(500);
    let bill = hostile([&long, "<img src=x onerror=alert(1)>", "gold\u{202e}dlog", "=cmd()"]);
    let files = bill.files(Language::En).unwrap();
    assert!(files.html.contains("&lt;img src=x onerror=alert(1)&gt;") && !files.html.contains("<img"));
    assert!(files.html.contains("gold\\u{202e}dlog") && !files.html.contains('\u{202e}'));
    assert!(files.html.contains(&long) && files.html.contains("overflow-wrap: anywhere"));
    assert!(!files.html.contains("<script") && files.html.contains("default-src 'none'"));
    let rows = cells(&files.csv);
    assert!(rows.iter().any(|row| row[9] == "'=cmd()"), "{}", files.csv);
    let total = rows.iter().find(|row| row[0] == "total").unwrap();
    assert_eq!((total[17].as_str(), total[18].as_str()), ("18.95", "EUR"), "numbers stay numbers");
    assert!(rows.iter().any(|row| row[0] == "adjustment" && row[17] == "-0.05"));
    let json: Value = serde_json::from_str(&files.json).unwrap();
    assert_eq!(json["customer"], "<img src=x onerror=alert(1)>");
    assert!(bill.file_stem().len() < 120 && !bill.file_stem().contains('/'));
    // The command takes an id as one word.
    let recount = hostile(["a'; rm -rf ~ #", "Acme", "gold", "calls"]).counted.recount;
    assert!(recount[1].ends_with(r"--subscription='a'\''; rm -rf ~ #' \"), "{recount:?}");
    assert_eq!(recount[2], "    --month 2025-10 --out recounted");
}

proptest! {
    #[test]
    fn any_text_stays_text(
        texts in prop::array::uniform4("[=+@\t\r\n<>&\"',;\u{202e}\u{200b}a -]{1,8}|\\PC{1,12}"),
        is_korean: bool,
    ) {
        let language = if is_korean { Language::Ko } else { Language::En };
        let bill = hostile(texts.each_ref().map(String::as_str));
        let files = bill.files(language).unwrap();
        let plain = hostile(["sub-1", "Acme", "gold", "calls"]).files(language).unwrap();
        for c in ['<', '>', '"'] {
            let count = |html: &str| html.matches(c).count();
            prop_assert_eq!(count(&files.html), count(&plain.html), "{} {:?}", c, texts);
        }
        let rows = cells(&files.csv);
        let columns = rows[0].len();
        for row in &rows {
            prop_assert_eq!(row.len(), columns);
            for text in [1, 2, 3, 9].map(|at| &row[at]) {
                prop_assert!(!text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{}", text);
            }
        }
        let json: Value = serde_json::from_str(&files.json).unwrap();
        prop_assert_eq!(json["subscription"].as_str(), Some(texts[0].as_str()));
        let shown = json["lines"][0]["item"].as_str().unwrap();
        prop_assert_eq!(shown.strip_prefix(if texts[3].starts_with(':') { ":" } else { "" }), Some(texts[3].as_str()));
    }

    #[test]
    fn a_document_s_sums_are_those_of_its_rows(
        counts in prop::collection::vec(0_u64..10_000_000, 1..4), fee in -10_000_i128..10_000, due in -9_999_i128..9_999,
        which in 0_usize..165,
    ) {
        let currency = Currency::all().nth(which).unwrap();
        let mut maker = Maker::new(currency.code()).fee(ChargeItem::BaseFee, fee);
        let items: Vec<String> = (0..counts.len()).map(|at| format!("item-{at}")).collect();
        let mut lines = Vec::new();
        for (item, count) in items.iter().zip(&counts) {
            maker.texts.0[3] = item.clone();
            maker = maker.priced(*count, &[tier(Measure::Calls, PriceModel::Unit, None, "0.00037")]);
            // Each item is named in the rows of its own moment.
            lines.push(maker.lines().pop().unwrap());
        }
        maker.adjustments.push((OCTOBER.0 - 30 * DAY_MS, due, OCTOBER.0, OCTOBER.0));
        let all = maker.lines();
        let named = all.iter().filter(|(view, line)| *view != View::Charges || line.contains(":base_fee"));
        let lines: Vec<_> = named.cloned().chain(lines).collect();
        let bill = document("sub-1", OCTOBER.0, &lines).unwrap();
        let units = |amount: &str| super::numbers::minor_units(amount, currency).unwrap();
        let rounded: i128 = bill.lines.iter().map(|line| units(&line.amount)).sum();
        prop_assert_eq!(units(bill.charges.as_deref().unwrap()), rounded);
        prop_assert_eq!(units(bill.total.as_deref().unwrap()), rounded + due);
        prop_assert_eq!(bill.lines.len(), counts.len() + 1);
    }
}
