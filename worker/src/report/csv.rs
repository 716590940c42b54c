//! A bill as one table for spreadsheets, by RFC 4180: the lines with their tiers, adjustments, the total, corrections, days.
//!
//! Texts of strangers begin with `'` where a spreadsheet would take them for a formula, and what acts in a terminal is
//! shown as its number. Numbers stay numbers, without commas between thousands. The header is the same in all languages.

use super::bill::{Adjusted, BillDocument, Charged, Correction, ReportPeriod, Used};
use crate::cells::untrusted;

const HEADER: &str = "row,subscription,customer,plan,period_start,period_end,time_zone,state,number,item,metric,unit,tier,\
                      day,quantity,unit_price,exact,amount,currency,calls,free_calls,errors_4xx,errors_5xx,bytes_in,\
                      bytes_out,units";
/// The columns of use, and of a day.
const USE: usize = 7;

/// The columns of a row between those that all rows have in common.
#[derive(Default)]
struct Cells {
    item: String,
    metric: String,
    unit: String,
    tier: String,
    day: String,
    quantity: String,
    unit_price: String,
    exact: String,
    amount: String,
    used: Option<Used>,
    /// The plan of a tier; else that of the bill.
    plan: Option<String>,
    /// The number of a corrected bill; else that of the bill.
    number: Option<u64>,
}

/// Writes a bill as a table with a header.
pub(super) fn bill(bill: &BillDocument) -> String {
    let mut out = format!("{HEADER}\r\n");
    for line in &bill.lines {
        charge(bill, line, &mut out);
    }
    let adjustment = |line: &Adjusted| Cells {
        item: untrusted(&line.item),
        day: line.period_first_day.clone(),
        amount: line.amount.clone(),
        ..Cells::default()
    };
    for line in &bill.adjustments {
        row(bill, "adjustment", adjustment(line), &mut out);
    }
    if let Some(amount) = bill.unlisted_adjustments() {
        row(bill, "adjustment", Cells { amount, ..Cells::default() }, &mut out);
    }
    let amount = bill.total.clone().unwrap_or_default();
    row(bill, "total", Cells { amount, used: bill.counted.used, ..Cells::default() }, &mut out);
    for Correction { number, lines, .. } in &bill.corrections {
        for line in lines {
            row(bill, "correction", Cells { number: Some(*number), ..adjustment(line) }, &mut out);
        }
    }
    for day in bill.by_day.iter().flat_map(|by_day| &by_day.days) {
        row(bill, "day", Cells { day: day.date.clone(), used: day.used, ..Cells::default() }, &mut out);
    }
    out
}

fn charge(bill: &BillDocument, line: &Charged, out: &mut String) {
    let cells = || Cells {
        item: untrusted(&line.item),
        metric: line.metric.unwrap_or_default().to_owned(),
        unit: text(line.unit),
        ..Cells::default()
    };
    let whole = Cells {
        quantity: text(line.quantity),
        exact: line.exact.clone(),
        amount: line.amount.clone(),
        ..cells()
    };
    row(bill, "charge", whole, out);
    if line.included.is_some() {
        row(bill, "included", Cells { quantity: text(line.included), ..cells() }, out);
    }
    for tier in &line.tiers {
        let part = Cells {
            tier: tier.tier.to_string(),
            quantity: tier.quantity.to_string(),
            unit_price: tier.unit_price.clone(),
            exact: tier.exact.clone(),
            plan: tier.plan.clone(),
            ..cells()
        };
        row(bill, "tier", part, out);
    }
}

/// Writes a row. Every row says whose it is, so rows of many bills may be put into one table.
fn row(bill: &BillDocument, kind: &str, cells: Cells, out: &mut String) {
    let ReportPeriod { start, end, time_zone, .. } = &bill.period;
    let Cells { item, metric, unit, tier, day, quantity, unit_price, exact, amount, used, plan, number } =
        cells;
    let stranger = |text: Option<&String>| text.map(|text| untrusted(text)).unwrap_or_default();
    let used = used.map(|used| {
        [
            used.calls,
            used.free_calls,
            used.errors_4xx,
            used.errors_5xx,
            used.bytes_in,
            used.bytes_out,
            used.units,
        ]
        .map(|sum| sum.to_string())
    });
    let used: [String; USE] = used.unwrap_or_default();
    let columns = [
        kind.to_owned(),
        untrusted(&bill.subscription),
        stranger(bill.customer.as_ref()),
        stranger(plan.as_ref().or(bill.plan.as_ref())),
        start.clone(),
        end.clone(),
        time_zone.clone(),
        bill.state.name().to_owned(),
        text(number.or(bill.number)),
        item,
        metric,
        unit,
        tier,
        day,
        quantity,
        unit_price,
        exact,
        amount,
        stranger(bill.currency.as_ref()),
    ];
    out.push_str(&columns.join(","));
    for sum in used {
        out.push(',');
        out.push_str(&sum);
    }
    out.push_str("\r\n");
}

fn text(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
