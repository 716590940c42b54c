//! Rows of the accounts of subscriptions as JSON: quotas, charges, bills, forecasts, notices and adjustments.
//!
//! **Amounts** are decimal strings with all digits of their currency, as many readers would round a number. A sum
//! before rounding has its first 28 decimal places. **Quantities** are integers. Totals are exact in 128 bits, and rows
//! show at most 2^64 - 1, as those of `usage` do.
//!
//! **Items.** An item that has a price is shown by its own name. A line that no item makes has a name of ours behind
//! a colon: `:base_fee`, `:minimum` or `:maximum`. An item whose own name begins with a colon gets one more. So no two
//! items of a bill are shown alike.

use std::borrow::Cow;

use keytide_billing::{ChargeItem, Currency, Forecast, PriceModel, PriceUnit, QuotaStanding};
use keytide_config::View;
use keytide_dataflow::model::{EventTime, NameId};
use keytide_dataflow::*;

use super::encode::{EncodeRow, Labels, boolean, number, string, text, time};
use super::names::Names;
use super::place::RowPlace;

/// The other columns of a row that is taken back.
const RETRACTED: &[u8] = br#","retracted":true}"#;

/// The rows of accounts of a tick, by view.
#[derive(Debug, Default)]
pub(super) struct AccountRows {
    pub(super) quota: Vec<Revision<QuotaKey, QuotaStanding>>,
    pub(super) charges: Vec<Revision<ChargeKey, Charge>>,
    pub(super) bills: Vec<Revision<BillKey, BillRow>>,
    pub(super) forecast: Vec<Revision<QuotaKey, ForecastRow>>,
    pub(super) notices: Vec<QuotaNotice>,
    pub(super) adjustments: Vec<Adjustment>,
}

/// Returns an item as the column `item` shows it. An item whose name isn't known is empty.
#[must_use]
pub fn item_text(item: ChargeItem<NameId>, names: &Names) -> Cow<'_, str> {
    match item {
        ChargeItem::BaseFee => ":base_fee".into(),
        ChargeItem::Minimum => ":minimum".into(),
        ChargeItem::Maximum => ":maximum".into(),
        ChargeItem::Item(name) => match names.text(name) {
            own if own.starts_with(':') => format!(":{own}").into(),
            own => own.into(),
        },
    }
}

fn null(out: &mut Vec<u8>, label: &str) {
    string(out, label, b"null");
}

fn optional_text(out: &mut Vec<u8>, label: &str, value: Option<&str>) {
    match value {
        Some(value) => text(out, label, value),
        None => null(out, label),
    }
}

/// Returns a reason why there is no bill, with the names of the plan and the item.
fn fault_text(fault: &AccountFault, names: &Names) -> String {
    let AccountFault { plan, item, text } = fault;
    let of = |kind: &str, id: &NameId| id.is_some().then(|| format!("{kind} {}", names.text(*id)));
    let place: Vec<String> = of("plan", plan).into_iter().chain(of("item", item)).collect();
    if place.is_empty() { text.to_string() } else { format!("{}: {text}", place.join(", ")) }
}

fn optional_number(out: &mut Vec<u8>, label: &str, value: Option<u64>) {
    match value {
        Some(value) => number(out, label, value),
        None => null(out, label),
    }
}

fn quantity(out: &mut Vec<u8>, label: &str, value: u128) {
    number(out, label, u64::try_from(value).unwrap_or(u64::MAX));
}

/// Writes a quantity that may be negative. Then it is at least -2^63.
fn signed_quantity(out: &mut Vec<u8>, label: &str, value: i128) {
    match u128::try_from(value) {
        Ok(value) => quantity(out, label, value),
        Err(_) => {
            let value = i64::try_from(value).unwrap_or(i64::MIN);
            string(out, label, itoa::Buffer::new().format(value).as_bytes());
        }
    }
}

/// Writes minor units of a currency as a decimal number; null where one of both is unknown.
fn amount(out: &mut Vec<u8>, label: &str, amount: Option<i128>, currency: Option<Currency>) {
    let shown = amount.zip(currency).map(|(amount, currency)| currency.text(amount));
    optional_text(out, label, shown.as_deref());
}

fn currency_column(out: &mut Vec<u8>, currency: Option<Currency>) {
    optional_text(out, r#","currency":"#, currency.as_ref().map(Currency::code));
}

fn instant(out: &mut Vec<u8>, label: &str, ms: EventTime) {
    text(out, label, &time(ms));
}

fn optional_instant(out: &mut Vec<u8>, label: &str, ms: Option<EventTime>) {
    optional_text(out, label, ms.map(time).as_deref());
}

fn subscription(out: &mut Vec<u8>, subscription: NameId, labels: &Labels<'_>) {
    string(out, r#"{"subscription":"#, labels.names().json(subscription));
}

/// Writes the columns of a quota's key behind the subscription.
fn quota_columns(out: &mut Vec<u8>, key: &QuotaKey) {
    text(out, r#","metric":"#, key.measure.name());
    text(out, r#","period":"#, key.period.name());
    instant(out, r#","period_start":"#, key.start_ms);
}

fn bill_columns(out: &mut Vec<u8>, key: &BillKey, labels: &Labels<'_>) {
    subscription(out, key.subscription, labels);
    instant(out, r#","period_start":"#, key.start_ms);
}

fn standing_columns(out: &mut Vec<u8>, standing: &QuotaStanding) {
    let QuotaStanding { limit, used, remaining, permille, hard, resets_at_ms } = *standing;
    number(out, r#","limit":"#, limit);
    quantity(out, r#","used":"#, used);
    number(out, r#","remaining":"#, remaining);
    number(out, r#","permille":"#, permille);
    string(out, r#","hard":"#, boolean(hard));
    instant(out, r#","resets_at":"#, resets_at_ms);
}

fn forecast_columns(out: &mut Vec<u8>, forecast: Option<&Forecast>) {
    optional_number(out, r#","expected":"#, forecast.map(|of| of.expected));
    optional_number(out, r#","low":"#, forecast.map(|of| of.low));
    optional_number(out, r#","high":"#, forecast.map(|of| of.high));
    optional_instant(out, r#","runs_out_at":"#, forecast.and_then(|of| of.runs_out_at_ms));
}

/// A value of a quota in one period, in a view of its own.
pub trait QuotaValue {
    const VIEW: View;
    /// True if answers at request time have the rows.
    const IS_PLACED: bool;

    /// Writes the columns of the value.
    fn columns(&self, out: &mut Vec<u8>);
}

impl QuotaValue for QuotaStanding {
    const VIEW: View = View::Quota;
    // The ledger answers, which knows more.
    const IS_PLACED: bool = false;

    fn columns(&self, out: &mut Vec<u8>) {
        standing_columns(out, self);
    }
}

impl QuotaValue for ForecastRow {
    const VIEW: View = View::Forecast;
    const IS_PLACED: bool = true;

    fn columns(&self, out: &mut Vec<u8>) {
        forecast_columns(out, Some(&self.forecast));
        amount(out, r#","expected_amount":"#, self.expected_amount, self.currency);
        currency_column(out, self.currency);
    }
}

impl<V: QuotaValue> EncodeRow for Revision<QuotaKey, V> {
    const VIEW: View = V::VIEW;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        subscription(out, self.key.subscription, labels);
        quota_columns(out, &self.key);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Some(value) = &self.value else {
            out.extend_from_slice(RETRACTED);
            return;
        };
        value.columns(out);
        out.push(b'}');
    }

    fn is_retracted(&self) -> bool {
        self.value.is_none()
    }

    fn place(&self) -> Option<RowPlace> {
        V::IS_PLACED.then(|| RowPlace::of_quota(&self.key))
    }
}

impl EncodeRow for Revision<ChargeKey, Charge> {
    const VIEW: View = View::Charges;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        bill_columns(out, &self.key.bill, labels);
        text(out, r#","item":"#, &item_text(self.key.item, labels.names()));
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Some(charge) = &self.value else {
            out.extend_from_slice(RETRACTED);
            return;
        };
        optional_text(out, r#","metric":"#, charge.measure.map(keytide_billing::Measure::name));
        optional_number(out, r#","unit":"#, charge.unit.map(PriceUnit::quantity));
        optional_text(out, r#","model":"#, charge.model.map(PriceModel::name));
        quantity(out, r#","quantity":"#, charge.quantity);
        out.extend_from_slice(br#","tiers":["#);
        let mut label = r#"{"plan":"#;
        for part in &charge.parts {
            string(out, label, labels.names().json(part.plan));
            number(out, r#","tier":"#, part.tier.into());
            signed_quantity(out, r#","quantity":"#, part.quantity);
            text(out, r#","unit_price":"#, &part.unit_price.to_string());
            text(out, r#","exact":"#, &part.exact.to_string());
            out.push(b'}');
            label = r#",{"plan":"#;
        }
        out.push(b']');
        text(out, r#","exact":"#, &charge.exact.to_string());
        amount(out, r#","amount":"#, Some(charge.amount), Some(charge.currency));
        currency_column(out, Some(charge.currency));
        out.push(b'}');
    }

    fn is_retracted(&self) -> bool {
        self.value.is_none()
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_charge(&self.key))
    }
}

impl EncodeRow for Revision<BillKey, BillRow> {
    const VIEW: View = View::Bills;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        bill_columns(out, &self.key, labels);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Some(bill) = &self.value else {
            out.extend_from_slice(RETRACTED);
            return;
        };
        instant(out, r#","period_end":"#, bill.end_ms);
        amount(out, r#","total":"#, bill.total, bill.currency);
        currency_column(out, bill.currency);
        number(out, r#","lines":"#, bill.lines.into());
        amount(out, r#","adjustments":"#, Some(bill.adjustments), bill.currency);
        string(out, r#","complete":"#, boolean(bill.complete));
        string(out, r#","final":"#, boolean(bill.is_final));
        let fault = bill.fault.as_ref().map(|fault| fault_text(fault, labels.names()));
        optional_text(out, r#","fault":"#, fault.as_deref());
        let names = labels.names();
        string(out, r#","customer":"#, names.json(bill.customer));
        string(out, r#","plan":"#, names.json(bill.plan));
        string(out, r#","time_zone":"#, names.json(bill.time_zone));
        out.push(b'}');
    }

    fn is_retracted(&self) -> bool {
        self.value.is_none()
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_bill(&self.key))
    }
}

impl EncodeRow for QuotaNotice {
    const VIEW: View = View::Notices;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        subscription(out, self.key.subscription, labels);
        number(out, r#","seq":"#, self.seq);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let names = labels.names();
        quota_columns(out, &self.key);
        number(out, r#","percent":"#, self.percent.into());
        standing_columns(out, &self.standing);
        instant(out, r#","at":"#, self.at_ms);
        string(out, r#","highest":"#, boolean(self.is_highest));
        forecast_columns(out, self.forecast.as_ref());
        currency_column(out, self.currency);
        string(out, r#","customer":"#, names.json(self.customer));
        string(out, r#","plan":"#, names.json(self.plan));
        string(out, r#","time_zone":"#, names.json(self.time_zone));
        out.push(b'}');
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_entry(self.key.subscription, self.seq))
    }
}

impl EncodeRow for Adjustment {
    const VIEW: View = View::Adjustments;

    fn key_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        subscription(out, self.bill.subscription, labels);
        number(out, r#","seq":"#, self.seq);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        instant(out, r#","period_start":"#, self.bill.start_ms);
        text(out, r#","item":"#, &item_text(self.item, labels.names()));
        amount(out, r#","amount":"#, Some(self.amount), Some(self.currency));
        currency_column(out, Some(self.currency));
        instant(out, r#","due_with":"#, self.due_with_ms);
        instant(out, r#","at":"#, self.at_ms);
        out.push(b'}');
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_entry(self.bill.subscription, self.seq))
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::Definition;
    use proptest::prelude::*;

    use super::*;

    fn named(texts: &[String]) -> Names {
        let mut names = Names::default();
        for text in texts {
            names.define(Definition::Name { id: NameId::new(text), text: text.as_str().into() });
        }
        names
    }

    /// Reads a decimal number with this many places as minor units.
    fn minor_units(text: &str, digits: u32) -> Option<i128> {
        let places = text.split_once('.').map_or("", |(_, places)| places);
        (places.len() == digits as usize).then(|| text.replace('.', "").parse().ok())?
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_item_is_shown_by_its_name_and_never_as_a_line_of_ours() {
        let names = named(&["calls", "base_fee", ":base_fee", "::base_fee", ":", ""].map(str::to_owned));
        let shown = |item: &str| item_text(ChargeItem::Item(NameId::new(item)), &names).into_owned();
        assert_eq!(
            ["calls", "base_fee", ":base_fee", ":", ""].map(shown),
            ["calls", "base_fee", "::base_fee", "::", ""]
        );
        assert_eq!(shown("::base_fee"), ":::base_fee");
        let ours = [ChargeItem::BaseFee, ChargeItem::Minimum, ChargeItem::Maximum];
        assert_eq!(ours.map(|item| item_text(item, &names)), [":base_fee", ":minimum", ":maximum"]);
    }

    #[test]
    fn quantities_beyond_a_word_are_shown_as_its_bounds() {
        let shown = |value: i128| written(|out| signed_quantity(out, "", value));
        assert_eq!([0, 7, -7].map(shown), ["0", "7", "-7"]);
        assert_eq!(shown(i128::MAX), u64::MAX.to_string());
        assert_eq!(shown(i128::MIN), i64::MIN.to_string());
        assert_eq!(written(|out| quantity(out, "", u128::MAX)), u64::MAX.to_string());
    }

    proptest! {
        #[test]
        fn no_two_items_are_shown_alike(texts in prop::collection::btree_set(":{0,3}[a-z_]{0,9}", 1..20)) {
            let texts: Vec<String> = texts.into_iter().collect();
            let names = named(&texts);
            let mut items: Vec<ChargeItem<NameId>> =
                texts.iter().map(|text| ChargeItem::Item(NameId::new(text))).collect();
            items.extend([ChargeItem::BaseFee, ChargeItem::Minimum, ChargeItem::Maximum]);
            let mut shown: Vec<Cow<'_, str>> = items.iter().map(|item| item_text(*item, &names)).collect();
            shown.sort();
            prop_assert!(shown.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", shown);
        }

        #[test]
        fn an_amount_is_read_back_as_the_same_minor_units(units: i128, small in -2_000_i128..2_000) {
            for currency in Currency::all() {
                for units in [units, small] {
                    let json = written(|out| amount(out, "", Some(units), Some(currency)));
                    let text: String = serde_json::from_str(&json).unwrap();
                    prop_assert_eq!(minor_units(&text, currency.digits()), Some(units), "{}", text);
                }
            }
        }
    }
}
