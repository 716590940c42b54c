//! What plans and quotas are over time, as the rows of their tables make it.
//!
//! Plans are few, and each has many subscriptions. So every worker has all of them, and a subscription's account reads
//! them when its rows are made. A join would copy a plan's rows once for each of its subscriptions.
//!
//! A plan's **terms** are its fees and prices together. They change when a fee or a price does, so each change begins
//! terms of their own. A plan that has neither has no terms, and nothing of it is billed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hashbrown::HashMap;
use keytide_billing::{Currency, DatedTerms, Measure, PeriodKind, PlanTerms, Price, QuotaLimit, TierRow};
use serde::{Deserialize, Serialize};

use crate::account_row::AccountFault;
use crate::model::{EventTime, NameId, PlanFees, PlanRow, PriceRow, QuotaHolder, QuotaRow};
use crate::ownership::History;

/// What a quota is of.
pub(super) type QuotaSubject = (Measure, PeriodKind);

/// The quotas of a plan or a subscription.
pub(super) type Quotas = BTreeMap<QuotaSubject, QuotaFacts>;

/// The rows of one quota, and what they say over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct QuotaFacts {
    rows: Vec<QuotaRow>,
    pub(super) limits: History<Option<QuotaLimit>>,
}

impl QuotaFacts {
    /// Takes a change of a row. What the rows say is known once all changes of the tick are taken.
    pub(super) fn take(&mut self, row: QuotaRow, deleted: bool) {
        let is_dated = row.valid_from.is_some();
        replace(&mut self.rows, row, deleted, is_dated);
    }

    /// Returns whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Reads the rows as they are after the tick with the time `now`.
    pub(super) fn read(&mut self, now: EventTime) {
        self.limits.state(self.rows.iter().map(|row| (Some(row.limit.clone()), row.valid_from)), now);
    }
}

/// Changes the rows of one identity as tables say it: a deletion ends all of them, a dated row is one more, and one
/// without a date takes the place of all.
pub(super) fn replace<R>(rows: &mut Vec<R>, row: R, deleted: bool, is_dated: bool) {
    if deleted || !is_dated {
        rows.clear();
    }
    if !deleted {
        // Nearly all have one row.
        rows.reserve_exact(1);
        rows.push(row);
    }
}

/// The fees and prices of a plan from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Terms {
    Of(Rc<PlanTerms<NameId>>),
    /// The rows aren't terms, for this reason.
    Faulty(Rc<AccountFault>),
}

/// The fees, prices and quotas of a plan over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The fees of the plan's row, if it has one.
    row: Option<PlanFees>,
    fees: History<Option<PlanFees>>,
    prices: BTreeMap<NameId, ItemPrices>,
    pub(super) quotas: Quotas,
    /// The terms by the time from which on they are valid, derived from the rest.
    #[serde(skip)]
    terms: Vec<(EventTime, Option<Terms>)>,
}

/// The rows of an item's price, by tier, and the item's tiers over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct ItemPrices {
    /// By the upper bound; the last tier comes last.
    rows: BTreeMap<TierPlace, Vec<(TierRow, Option<EventTime>)>>,
    tiers: History<Vec<TierRow>>,
}

/// The place of a tier: whether it is the last, and its upper bound.
type TierPlace = (bool, u64);

impl ItemPrices {
    /// Reads the rows as they are after the tick with the time `now`: those of the same date belong together.
    fn read(&mut self, now: EventTime) {
        let mut by_date: BTreeMap<Option<EventTime>, Vec<TierRow>> = BTreeMap::new();
        for (tier, from) in self.rows.values().flatten() {
            by_date.entry(*from).or_default().push(tier.clone());
        }
        self.tiers.state(by_date.into_iter().map(|(from, tiers)| (tiers, from)), now);
    }
}

impl Plan {
    /// Makes the terms of the facts anew.
    fn join(&mut self, id: NameId, default: Currency) {
        let mut times: BTreeSet<EventTime> = self.fees.0.iter().map(|(from, _)| *from).collect();
        times.extend(self.prices.values().flat_map(|item| item.tiers.0.iter().map(|(from, _)| *from)));
        self.terms = times.into_iter().map(|from| (from, self.terms_at(id, from, default))).collect();
    }

    fn terms_at(&self, plan: NameId, at: EventTime, default: Currency) -> Option<Terms> {
        let fees = self.fees.at(at);
        let faulty = |item: NameId, fault: String| {
            Some(Terms::Faulty(Rc::new(AccountFault { plan, item, text: fault.into() })))
        };
        let mut prices = BTreeMap::new();
        for (item, facts) in &self.prices {
            let tiers = facts.tiers.at(at);
            if tiers.is_empty() {
                continue;
            }
            match Price::new(&tiers) {
                Ok(price) => drop(prices.insert(*item, price)),
                Err(fault) => return faulty(*item, fault.to_string()),
            }
        }
        let is_free = |fees: &PlanFees| *fees == PlanFees { currency: fees.currency, ..PlanFees::default() };
        if prices.is_empty() && fees.as_ref().is_none_or(is_free) {
            return None;
        }
        let PlanFees { currency, base_fee, minimum, maximum } = fees.unwrap_or_default();
        // Where the plan names no currency, its prices may.
        let of_prices = || prices.values().find_map(Price::currency);
        let currency = currency.or_else(of_prices).unwrap_or(default);
        match PlanTerms::new(currency, base_fee, minimum, maximum, prices) {
            Ok(terms) => Some(Terms::Of(Rc::new(terms))),
            Err(fault) => faulty(fault.item().unwrap_or(NameId::NONE), fault.to_string()),
        }
    }
}

/// All plans, the same on every worker.
#[derive(Debug)]
pub(super) struct Plans {
    plans: HashMap<NameId, Plan>,
    currency: Currency,
}

impl Plans {
    /// Makes the book of no plans; those that name no currency have this one.
    pub(super) fn new(currency: Currency) -> Self {
        Self { plans: HashMap::new(), currency }
    }

    /// Takes the changes of a tick with the time `now` in the order of their offsets. Returns the plans that changed.
    pub(super) fn take(&mut self, changes: Vec<PlanChange>, now: EventTime) -> BTreeSet<NameId> {
        let mut changed = BTreeSet::new();
        let mut items: BTreeSet<(NameId, NameId)> = BTreeSet::new();
        let mut quotas: BTreeSet<(NameId, QuotaSubject)> = BTreeSet::new();
        for PlanChange { row, deleted, .. } in changes {
            let id = row.plan();
            let plan = self.plans.entry(id).or_default();
            changed.insert(id);
            match row {
                PlanTableRow::Plan(row) => plan.row = (!deleted).then_some(*row.fees),
                PlanTableRow::Price(row) => {
                    let PriceRow { item, tier, valid_from, .. } = *row;
                    let place = (tier.up_to.is_none(), tier.up_to.unwrap_or_default());
                    let rows = &mut plan.prices.entry(item).or_default().rows;
                    replace(
                        rows.entry(place).or_default(),
                        (tier, valid_from),
                        deleted,
                        valid_from.is_some(),
                    );
                    rows.retain(|_, rows| !rows.is_empty());
                    items.insert((id, item));
                }
                PlanTableRow::Quota(row) => {
                    let subject = (row.measure, row.period);
                    quotas.insert((id, subject));
                    plan.quotas.entry(subject).or_default().take(row, deleted);
                }
            }
        }
        for (id, item) in items {
            if let Some(item) = self.plans.get_mut(&id).and_then(|plan| plan.prices.get_mut(&item)) {
                item.read(now);
            }
        }
        for (id, subject) in quotas {
            if let Some(quota) = self.plans.get_mut(&id).and_then(|plan| plan.quotas.get_mut(&subject)) {
                quota.read(now);
            }
        }
        for id in &changed {
            if let Some(plan) = self.plans.get_mut(id) {
                plan.fees.state(plan.row.map(|fees| (Some(fees), None)), now);
                plan.join(*id, self.currency);
            }
        }
        changed
    }

    /// Returns the terms of a plan within a span of time, each with the time from which on it is valid. Terms of no plan
    /// are none since the span's start.
    pub(super) fn terms(
        &self,
        plan: NameId,
        from: EventTime,
        until: EventTime,
        out: &mut Vec<DatedTerms<(NameId, Terms)>>,
    ) {
        let terms = self.plans.get(&plan).map(|plan| &plan.terms[..]).unwrap_or_default();
        let of = |terms: &Option<Terms>| terms.clone().map(|terms| (plan, terms));
        let within = terms.partition_point(|(valid_from, _)| *valid_from <= from);
        let first = terms[..within].last().and_then(|(_, terms)| of(terms));
        out.push(DatedTerms { valid_from_ms: Some(from), terms: first });
        let later = terms[within..].iter().take_while(|(valid_from, _)| *valid_from < until);
        out.extend(later.map(|(from, terms)| DatedTerms { valid_from_ms: Some(*from), terms: of(terms) }));
    }

    /// Returns the quotas of a plan.
    pub(super) fn quotas(&self, plan: NameId) -> Option<&Quotas> {
        self.plans.get(&plan).map(|plan| &plan.quotas)
    }

    /// Returns when a plan's terms or quotas change next, after `at`.
    pub(super) fn next_change(&self, plan: NameId, at: EventTime) -> Option<EventTime> {
        let plan = self.plans.get(&plan)?;
        let terms = plan.terms.iter().map(|(from, _)| *from).find(|from| *from > at);
        let limits = plan.quotas.values().filter_map(|quota| quota.limits.next(at));
        limits.chain(terms).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NameId, &Plan)> {
        self.plans.iter()
    }

    pub(super) fn restore(&mut self, id: NameId, mut plan: Plan) {
        plan.join(id, self.currency);
        self.plans.insert(id, plan);
    }
}

/// A row of a table that says something of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PlanTableRow {
    Plan(PlanRow),
    Price(Box<PriceRow>),
    Quota(QuotaRow),
}

impl PlanTableRow {
    fn plan(&self) -> NameId {
        match self {
            Self::Plan(row) => row.id,
            Self::Price(row) => row.plan,
            Self::Quota(row) => match row.holder {
                QuotaHolder::Plan(id) | QuotaHolder::Subscription(id) => id,
            },
        }
    }
}

/// A change of such a row, in the order of `offset`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlanChange {
    pub(crate) offset: u64,
    pub(crate) row: PlanTableRow,
    pub(crate) deleted: bool,
}
