//! The rows of subscriptions' accounts, read from lines of views or from an answer of the API.
//!
//! Lines are taken in the order in which they were published. Of several rows of a key the last one holds, and a row that
//! is taken back takes its key with it. A line that isn't a row of its view is counted, and changes nothing.
//!
//! Rows of `bills` must be taken first. Rows of the other views that belong to no period with a bill are passed over.
//!
//! Limits: of `subscription_usage` the hours and days of periods with a bill are held, 64 bytes each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keytide_billing::{Calendar, Currency, Measure, PeriodKind};
use keytide_config::View;
use keytide_dataflow::model::EventTime;
use keytide_dataflow::model::time::DAY_MS;
use serde::Deserialize;

/// The views of which a bill is made. Only the first must have rows.
pub const BILL_VIEWS: [View; 5] =
    [View::Bills, View::Charges, View::Adjustments, View::SubscriptionUsage, View::Quota];

/// The lines of a bill that no item makes, in the order of bills: behind all items.
const OWN_LINES: [&str; 3] = [":base_fee", ":minimum", ":maximum"];

/// The rows of accounts, by subscription.
#[derive(Clone, Debug, Default)]
pub struct ReportRows {
    /// The only subscription whose rows are held; `None` for all.
    only: Option<String>,
    /// True if no hour with calls is missing.
    has_all_hours: bool,
    subscriptions: BTreeMap<String, SubscriptionRows>,
    /// Lines that aren't rows of their view.
    unreadable: u64,
}

/// The rows of a subscription.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionRows {
    /// By the start of the period.
    pub(super) bills: BTreeMap<EventTime, BillColumns>,
    /// By the start of the period, and then in the order of a bill's lines.
    pub(super) charges: BTreeMap<(EventTime, ItemPlace), ChargeColumns>,
    pub(super) adjustments: BTreeMap<u64, AdjustmentColumns>,
    pub(super) hours: UseSeries,
    pub(super) days: UseSeries,
    /// Those of billing periods, by the start of the period.
    pub(super) quotas: BTreeMap<(EventTime, Measure), QuotaColumns>,
    /// The names of plans by their ids.
    pub(super) plan_names: BTreeMap<String, String>,
    pub(super) has_all_hours: bool,
}

/// The place of a line within a bill: items by name, then the lines of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemPlace(usize, String);

impl ItemPlace {
    fn of(item: &str) -> Self {
        Self(OWN_LINES.iter().position(|own| *own == item).map_or(0, |at| at + 1), item.to_owned())
    }

    pub(super) fn item(&self) -> &str {
        &self.1
    }
}

/// The columns of a row of `bills` behind its key.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BillColumns {
    #[serde(deserialize_with = "instant")]
    pub(super) period_end: EventTime,
    pub(super) total: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) lines: u64,
    pub(super) adjustments: Option<String>,
    pub(super) complete: bool,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) fault: Option<String>,
    // Versions before 0.1.0 had no such columns.
    #[serde(default)]
    pub(super) customer: Option<String>,
    #[serde(default)]
    pub(super) plan: Option<String>,
    #[serde(default)]
    pub(super) time_zone: Option<String>,
}

impl BillColumns {
    /// Returns the calendar of the period's zone. An unknown zone is UTC, as in bills.
    pub(super) fn calendar(&self) -> Calendar {
        let zone = self.time_zone.as_deref().and_then(|zone| Calendar::of_zone(zone).ok());
        zone.unwrap_or_else(Calendar::utc)
    }

    pub(super) fn currency(&self) -> Option<Currency> {
        self.currency.as_deref()?.parse().ok()
    }
}

/// The columns of a row of `charges` behind its key.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ChargeColumns {
    #[serde(deserialize_with = "measure")]
    pub(super) metric: Option<Measure>,
    pub(super) unit: Option<u64>,
    pub(super) model: Option<String>,
    pub(super) quantity: u64,
    pub(super) tiers: Vec<TierColumns>,
    pub(super) exact: String,
    pub(super) amount: String,
}

/// The columns of a part of a charge.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TierColumns {
    pub(super) plan: Option<String>,
    pub(super) tier: u64,
    pub(super) quantity: i128,
    pub(super) unit_price: String,
    pub(super) exact: String,
}

/// The columns of a row of `adjustments` behind its key.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AdjustmentColumns {
    #[serde(deserialize_with = "instant")]
    pub(super) period_start: EventTime,
    pub(super) item: String,
    pub(super) amount: String,
    pub(super) currency: String,
    #[serde(deserialize_with = "instant")]
    pub(super) due_with: EventTime,
    #[serde(deserialize_with = "instant")]
    pub(super) at: EventTime,
}

/// The columns of a row of `quota` behind its key.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct QuotaColumns {
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) hard: bool,
}

/// The use of an hour or a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct UseColumns {
    pub(super) calls: u64,
    pub(super) errors_4xx: u64,
    pub(super) errors_5xx: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) free_calls: u64,
    pub(super) units: u64,
}

/// The columns of a row of `subscription_usage` that name a plan.
#[derive(Deserialize)]
struct PlanColumns {
    plan: Option<String>,
    plan_name: Option<String>,
}

/// The use of windows of one width, by their starts. Rows mostly come in this order, so a sorted vector is enough.
#[derive(Clone, Debug, Default)]
pub(super) struct UseSeries(Vec<(EventTime, UseColumns)>);

impl UseSeries {
    fn put(&mut self, start: EventTime, used: UseColumns) {
        match self.0.last() {
            Some((last, _)) if *last >= start => match self.find(start) {
                Ok(at) => self.0[at].1 = used,
                Err(at) => self.0.insert(at, (start, used)),
            },
            _ => self.0.push((start, used)),
        }
    }

    fn remove(&mut self, start: EventTime) {
        if let Ok(at) = self.find(start) {
            self.0.remove(at);
        }
    }

    fn find(&self, start: EventTime) -> Result<usize, usize> {
        self.0.binary_search_by_key(&start, |(start, _)| *start)
    }

    /// Returns the windows that begin within a span.
    pub(super) fn within(&self, from: EventTime, to: EventTime) -> &[(EventTime, UseColumns)] {
        let place = |at| self.0.partition_point(|(start, _)| *start < at);
        self.0.get(place(from)..place(to)).unwrap_or_default()
    }
}

/// The columns by which a row is found.
#[derive(Deserialize)]
struct KeyColumns<'a> {
    #[serde(borrow)]
    subscription: Cow<'a, str>,
    #[serde(default)]
    retracted: bool,
    #[serde(borrow)]
    period_start: Option<&'a str>,
    #[serde(borrow)]
    item: Option<Cow<'a, str>>,
    seq: Option<u64>,
    #[serde(borrow)]
    metric: Option<&'a str>,
    #[serde(borrow)]
    period: Option<&'a str>,
    #[serde(borrow)]
    window: Option<&'a str>,
    #[serde(borrow)]
    window_start: Option<&'a str>,
}

impl ReportRows {
    /// Holds the rows of one subscription alone, or of all. `has_all_hours` says that no hour with calls will be missing, as
    /// in files of views; the API keeps the newest hours alone.
    #[must_use]
    pub fn new(only: Option<&str>, has_all_hours: bool) -> Self {
        Self { only: only.map(str::to_owned), has_all_hours, ..Self::default() }
    }

    /// Keeps the bills alone that `is_chosen` accepts, by the local date on which their periods begin.
    pub fn choose(&mut self, is_chosen: impl Fn(&str) -> bool) {
        for rows in self.subscriptions.values_mut() {
            rows.bills.retain(|start, bill| is_chosen(&date(bill.calendar().day(*start))));
        }
    }

    /// Takes a row of one of [`BILL_VIEWS`]; rows of other views are passed over.
    pub fn take(&mut self, view: View, line: &[u8]) {
        let Ok(head) = serde_json::from_slice::<KeyColumns<'_>>(line) else {
            self.unreadable += 1;
            return;
        };
        if self.only.as_deref().is_some_and(|only| only != head.subscription) {
            return;
        }
        if self.put(view, &head, line).is_none() {
            self.unreadable += 1;
        }
    }

    /// Takes a row of which the key is known; `None` if it isn't one.
    fn put(&mut self, view: View, head: &KeyColumns<'_>, line: &[u8]) -> Option<()> {
        let id = head.subscription.as_ref();
        if view == View::Bills && !self.subscriptions.contains_key(id) {
            let rows = SubscriptionRows { has_all_hours: self.has_all_hours, ..SubscriptionRows::default() };
            self.subscriptions.insert(id.to_owned(), rows);
        }
        let Some(rows) = self.subscriptions.get_mut(id) else { return Some(()) };
        let start = || parse_instant(head.period_start?);
        match view {
            View::Bills => {
                let start = start()?;
                place(&mut rows.bills, start, head, line)
            }
            View::Charges => {
                let start = start()?;
                let key = (start, ItemPlace::of(head.item.as_ref()?));
                if !rows.bills.contains_key(&start) {
                    return Some(());
                }
                place(&mut rows.charges, key, head, line)
            }
            View::Adjustments => place(&mut rows.adjustments, head.seq?, head, line),
            View::Quota if head.period? != PeriodKind::Billing.name() => Some(()),
            View::Quota => {
                let key = (start()?, head.metric?.parse().ok()?);
                place(&mut rows.quotas, key, head, line)
            }
            View::SubscriptionUsage => {
                let start = parse_instant(head.window_start?)?;
                let (series, width) = match head.window? {
                    "1h" => (&mut rows.hours, 0),
                    "1d" => (&mut rows.days, DAY_MS - 1),
                    _ => return Some(()),
                };
                // The last period that begins before the window ends.
                let period = rows.bills.range(..=start + width).next_back();
                if period.is_none_or(|(_, bill)| bill.period_end <= start) {
                    return Some(());
                }
                if width > 0
                    && let Ok(PlanColumns { plan: Some(plan), plan_name: Some(name) }) =
                        serde_json::from_slice(line)
                {
                    rows.plan_names.insert(plan, name);
                }
                if head.retracted {
                    series.remove(start);
                } else {
                    series.put(start, serde_json::from_slice(line).ok()?);
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    /// Returns how many lines weren't rows of their view.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Returns the subscriptions with any row, by their ids.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &SubscriptionRows)> {
        self.subscriptions.iter().map(|(id, rows)| (id.as_str(), rows))
    }
}

/// Puts the row of a key, or removes the key's row if it is taken back; `None` if the line isn't such a row.
fn place<'a, K: Ord, V: Deserialize<'a>>(
    rows: &mut BTreeMap<K, V>,
    key: K,
    head: &KeyColumns<'_>,
    line: &'a [u8],
) -> Option<()> {
    if head.retracted {
        rows.remove(&key);
    } else {
        rows.insert(key, serde_json::from_slice(line).ok()?);
    }
    Some(())
}

impl SubscriptionRows {
    /// Returns the starts of the periods that have a bill, ascending.
    pub fn periods(&self) -> impl Iterator<Item = EventTime> {
        self.bills.keys().copied()
    }

    /// Returns the charges of a period's bill, in their order.
    pub(super) fn charges(&self, start: EventTime) -> impl Iterator<Item = (&str, &ChargeColumns)> {
        let rows = self.charges.range((start, ItemPlace(0, String::new()))..);
        rows.take_while(move |((of, _), _)| *of == start).map(|((_, place), row)| (place.item(), row))
    }
}

/// Returns the date of a day, in days since 1970-01-01, as `2025-10-01`.
pub(super) fn date(day: i64) -> String {
    let start = Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(Timestamp::MAX);
    TimeZone::UTC.to_datetime(start).date().to_string()
}

fn parse_instant(text: &str) -> Option<EventTime> {
    let instant: Timestamp = text.parse().ok()?;
    u64::try_from(instant.as_millisecond()).ok()
}

fn instant<'de, D: serde::Deserializer<'de>>(from: D) -> Result<EventTime, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    parse_instant(&text).ok_or_else(|| serde::de::Error::custom("this is no time by RFC 3339"))
}

fn measure<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Measure>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(from)?;
    text.map(|text| text.parse()).transpose().map_err(serde::de::Error::custom)
}
