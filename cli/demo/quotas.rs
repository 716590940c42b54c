//! The quotas and bills of a demo's subscriptions by the published rows of `quota`, `bills` and `notices`.
//!
//! Of each quota and of each bill the row of the latest period is kept: at most a few for each subscription.

use std::cmp::Reverse;
use std::collections::HashMap;

use keytide_billing::{Currency, Measure, PeriodKind, QuotaStanding};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{EventTime, NameId};
use keytide_dataflow::{BillKey, BillRow, QuotaKey, QuotaNotice, Revision};

use crate::text::{bytes, grouped, percent};

/// Ten-thousandths of a currency's unit, in which quotas of cost count.
const COST: u64 = 10_000;

/// A quota as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShownQuota {
    pub(super) subscription: NameId,
    pub(super) measure: Measure,
    pub(super) period: PeriodKind,
    pub(super) standing: QuotaStanding,
}

/// The quotas and bills of all subscriptions.
#[derive(Debug, Default)]
pub(super) struct QuotaList {
    standings: HashMap<(NameId, Measure, PeriodKind), (EventTime, QuotaStanding)>,
    bills: HashMap<NameId, (EventTime, Option<(Currency, i128)>)>,
    /// How many thresholds were crossed.
    pub(super) notices: u64,
    /// Notices since the last call of `take_lines`, as text.
    lines: Vec<String>,
}

impl ShownQuota {
    /// Returns how much of how much is used, such as `696 of 810 calls`.
    pub(super) fn used(&self) -> String {
        let QuotaStanding { used, limit, .. } = self.standing;
        let used = u64::try_from(used).unwrap_or(u64::MAX);
        match self.measure {
            Measure::Calls => format!("{} of {} calls", grouped(used), grouped(limit)),
            Measure::Units => format!("{} of {} units", grouped(used), grouped(limit)),
            Measure::BytesIn | Measure::BytesOut | Measure::Bytes => {
                format!("{} of {}", bytes(used), bytes(limit))
            }
            Measure::Cost => format!("a cost of {} of {}", grouped(used / COST), grouped(limit / COST)),
        }
    }

    /// Returns the period in words.
    pub(super) fn period(&self) -> &'static str {
        match self.period {
            PeriodKind::Billing => "billing period",
            kind => kind.name(),
        }
    }

    /// Returns the used part of the limit, such as `85.9 %`.
    pub(super) fn share(&self) -> String {
        percent(self.standing.permille)
    }
}

impl QuotaList {
    /// Takes in rows of the view `quota`.
    pub(super) fn take_standings(&mut self, rows: &[Revision<QuotaKey, QuotaStanding>]) {
        for Revision { key: QuotaKey { subscription, measure, period, start_ms }, value } in rows {
            let place = (*subscription, *measure, *period);
            match value {
                Some(standing) => {
                    let newest = self.standings.entry(place).or_insert((*start_ms, *standing));
                    if *start_ms >= newest.0 {
                        *newest = (*start_ms, *standing);
                    }
                }
                None if self.standings.get(&place).is_some_and(|(start, _)| start == start_ms) => {
                    self.standings.remove(&place);
                }
                None => {}
            }
        }
    }

    /// Takes in rows of the view `bills`.
    pub(super) fn take_bills(&mut self, rows: &[Revision<BillKey, BillRow>]) {
        for Revision { key: BillKey { subscription, start_ms }, value } in rows {
            let total = value.as_ref().and_then(|bill| bill.currency.zip(bill.total));
            let newest = self.bills.entry(*subscription).or_insert((*start_ms, total));
            if *start_ms >= newest.0 {
                *newest = (*start_ms, total);
            }
        }
    }

    /// Takes in rows of the view `notices`. Of several thresholds that were crossed at once the highest makes a line.
    pub(super) fn take_notices(&mut self, rows: &[QuotaNotice], names: &Names) {
        self.notices += rows.len() as u64;
        for notice in rows.iter().filter(|notice| notice.is_highest) {
            let QuotaKey { subscription, measure, period, .. } = notice.key;
            let quota = ShownQuota { subscription, measure, period, standing: notice.standing };
            let kind = if notice.standing.hard { "a hard quota" } else { "a quota" };
            self.lines.push(format!(
                "QUOTA     {} of {}: reached {} % of {kind}: {} ({})",
                names.text(subscription),
                names.text(notice.customer),
                notice.percent,
                quota.used(),
                quota.share(),
            ));
        }
    }

    /// Returns the quotas of which the largest part is used.
    pub(super) fn top(&self, most: usize) -> Vec<ShownQuota> {
        let mut quotas: Vec<_> = self.all().collect();
        quotas.sort_unstable_by_key(|quota| {
            (Reverse(quota.standing.permille), quota.subscription, quota.measure, quota.period)
        });
        quotas.truncate(most);
        quotas
    }

    /// Returns the quota of a subscription of which the largest part is used.
    pub(super) fn of(&self, subscription: NameId) -> Option<ShownQuota> {
        let quotas = self.all().filter(|quota| quota.subscription == subscription);
        quotas.max_by_key(|quota| (quota.standing.permille, quota.measure, quota.period))
    }

    /// Returns the bill of a subscription so far, such as `199.57 EUR`.
    pub(super) fn bill(&self, subscription: NameId) -> Option<String> {
        let (currency, total) = self.bills.get(&subscription)?.1?;
        Some(format!("{} {}", currency.text(total), currency.code()))
    }

    /// Returns the notices since the last call, as text.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn all(&self) -> impl Iterator<Item = ShownQuota> {
        self.standings.iter().map(|(&(subscription, measure, period), &(_, standing))| ShownQuota {
            subscription,
            measure,
            period,
            standing,
        })
    }
}
