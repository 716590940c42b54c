//! The directory: which subscriptions and keys there are, in the words of the tables.
//!
//! ```text
//! tables ── rows, definitions of their ids ──► subscriptions by id, and by customer
//!                                              keys by subscription
//! ```
//! The ledger knows ids alone, which are hashes. The directory has the texts behind them, and lists them in an order in which
//! they can be paged. Whose a key is now, and in which state, is for the ledger to say.
//!
//! A text is kept as long as a row has it. A restarted job has the rows of its checkpoint at once, and their texts once the
//! tables are read again: a subscription is listed when both are there.
//!
//! **Limits.** A subscription takes about 300 bytes and a key 70, beside their texts. A search looks at 20,000
//! subscriptions, and says where the next one goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashMap;
use keytide_dataflow::model::{
    Definition, EventTime, KeyId, KeyRow, NameId, PlanRow, SubscriptionRow, TableChange, TableRow,
};
use smallvec::SmallVec;

use super::ledger::QuotaLedger;

/// The most subscriptions that one search looks at. The lock is held meanwhile.
const SEARCHED: usize = 20_000;

/// A subscription as tables have it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SubscriptionFacts {
    pub(super) id: Arc<str>,
    /// Empty where the table names none, as the texts below.
    pub(super) customer: Arc<str>,
    pub(super) plan: Arc<str>,
    /// The plan's name, or its id if the table of plans doesn't have it.
    pub(super) plan_name: Arc<str>,
    /// The zone's name by the IANA database.
    pub(super) time_zone: Arc<str>,
    /// The day of the month on which it is billed, 1 to 31, or 0 where the table has none.
    pub(super) billing_anchor: u8,
}

/// A key, and what its row says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyFacts {
    pub(super) key: KeyId,
    /// As views name it.
    pub(super) text: Box<str>,
    pub(super) times: KeyTimes,
}

/// The times that a row of a key has, in ms since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyTimes {
    pub(super) created_at: Option<EventTime>,
    /// The last use before the job saw the key.
    pub(super) last_used_at: Option<EventTime>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListPage<T, K> {
    pub(super) rows: Vec<T>,
    /// Where the next page goes on; `None` if there is no more.
    pub(super) next: Option<K>,
}

/// What a list of subscriptions is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SubscriptionSearch<'a> {
    /// Only those of a customer.
    pub(super) customer: Option<NameId>,
    /// Only those whose id or customer has this text, in any case.
    pub(super) text: &'a str,
    /// Only those behind this id.
    pub(super) after: Option<&'a str>,
    /// The most of them, at least 1.
    pub(super) limit: usize,
}

/// The subscriptions and keys of the tables.
#[derive(Debug, Default)]
pub struct Directory {
    listed: RwLock<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    texts: HashMap<NameId, UsedText>,
    key_names: HashMap<KeyId, Box<str>>,
    subscriptions: HashMap<NameId, ListedSubscription>,
    by_text: BTreeMap<Arc<str>, NameId>,
    of_customers: BTreeSet<(NameId, Arc<str>)>,
    /// The names of plans by their ids.
    plans: HashMap<NameId, NameId>,
    /// By the subscriptions that have or had them.
    keys: BTreeMap<(NameId, KeyId), KeyTimes>,
}

/// A text, and how many rows have it.
#[derive(Debug, Default)]
struct UsedText {
    rows: usize,
    text: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct ListedSubscription {
    /// By their dates, `None` first.
    rows: SmallVec<[SubscriptionRow; 1]>,
    /// Under which text and customer it is listed.
    listed: Option<(Arc<str>, NameId)>,
}

impl ListedSubscription {
    fn in_force(&self, now_ms: u64) -> Option<&SubscriptionRow> {
        let mut begun = self.rows.iter().rev();
        let row = begun.find(|row| row.valid_from.is_none_or(|from| from <= now_ms));
        row.or(self.rows.first())
    }
}

impl Directory {
    /// Gives changes of tables to the ledger and lists them, with the strings behind their ids.
    pub fn apply(
        &self,
        (changes, definitions): (&[TableChange], &[Definition]),
        ledger: &QuotaLedger,
        now_ms: u64,
    ) {
        // The ledger decides which subscriptions a key has: a row may end those of earlier rows.
        let keys: BTreeMap<KeyId, &KeyRow> = changes
            .iter()
            .filter_map(|change| match &change.row {
                TableRow::Key(row) => Some((row.key, row)),
                _ => None,
            })
            .collect();
        let before: Vec<_> = keys.keys().map(|key| ledger.owners(*key)).collect();
        ledger.apply_tables(changes, now_ms);
        let mut listed = self.listed.write().unwrap_or_else(PoisonError::into_inner);
        for ((key, row), before) in keys.into_iter().zip(before) {
            listed.put_key(row, &before, &ledger.owners(key));
        }
        for TableChange { row, deleted, .. } in changes {
            match row {
                TableRow::Subscription(row) => listed.put_subscription(row, *deleted),
                TableRow::Plan(row) => listed.put_plan(row, *deleted),
                _ => {}
            }
        }
        definitions.iter().for_each(|definition| listed.define(definition));
    }

    fn read(&self) -> RwLockReadGuard<'_, Listed> {
        self.listed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the text of a customer that a subscription names.
    pub(super) fn customer(&self, customer: NameId) -> Option<Arc<str>> {
        self.read().texts.get(&customer)?.text.clone()
    }

    /// Returns a subscription, if the tables have it and its texts.
    pub(super) fn subscription(&self, id: NameId, now_ms: u64) -> Option<SubscriptionFacts> {
        self.read().facts(id, now_ms)
    }

    /// Returns a page of the subscriptions that are searched, by their ids. It may have fewer than there are, and name
    /// where the next page goes on.
    pub(super) fn subscriptions(
        &self,
        search: SubscriptionSearch<'_>,
        now_ms: u64,
    ) -> ListPage<SubscriptionFacts, Arc<str>> {
        let SubscriptionSearch { customer, text, after, limit } = search;
        let text = text.to_lowercase();
        let listed = self.read();
        let has_text = |of: &str| text.is_empty() || of.to_lowercase().contains(&text);
        let mut page = ListPage::default();
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids: Box<dyn Iterator<Item = &Arc<str>>> = match customer {
            None => Box::new(listed.by_text.range::<str, _>((behind, Bound::Unbounded)).map(|(id, _)| id)),
            Some(customer) => {
                let first = (customer, Arc::from(after.unwrap_or_default()));
                let of_customer = listed.of_customers.range((
                    if after.is_some() { Bound::Excluded(first) } else { Bound::Included(first) },
                    Bound::Unbounded,
                ));
                Box::new(of_customer.take_while(move |(of, _)| *of == customer).map(|(_, id)| id))
            }
        };
        for (looked_at, id) in ids.enumerate() {
            if looked_at == SEARCHED || page.rows.len() == limit {
                // The one before was looked at last.
                break;
            }
            page.next = Some(Arc::clone(id));
            let facts = listed.by_text.get(id).and_then(|name| listed.facts(*name, now_ms));
            page.rows.extend(facts.filter(|facts| has_text(&facts.id) || has_text(&facts.customer)));
        }
        let is_more = |last: &Arc<str>| match customer {
            None => {
                listed.by_text.range::<str, _>((Bound::Excluded(&**last), Bound::Unbounded)).next().is_some()
            }
            Some(customer) => {
                let last = (customer, Arc::clone(last));
                let mut later = listed.of_customers.range((Bound::Excluded(last), Bound::Unbounded));
                later.next().is_some_and(|(of, _)| *of == customer)
            }
        };
        page.next = page.next.filter(is_more);
        page
    }

    /// Returns a page of the keys that a subscription has or had, by their ids, behind a key.
    pub(super) fn keys(
        &self,
        subscription: NameId,
        after: Option<KeyId>,
        limit: usize,
    ) -> ListPage<KeyFacts, KeyId> {
        let listed = self.read();
        let first = after
            .map_or(Bound::Included((subscription, KeyId(0))), |key| Bound::Excluded((subscription, key)));
        let mut keys = listed.keys.range((first, Bound::Included((subscription, KeyId(u128::MAX)))));
        let fact = |((_, key), times): (&(NameId, KeyId), &KeyTimes)| KeyFacts {
            key: *key,
            text: listed.key_names.get(key).cloned().unwrap_or_else(|| key.to_string().into()),
            times: *times,
        };
        let rows: Vec<KeyFacts> = keys.by_ref().take(limit).map(fact).collect();
        let next = keys.next().and(rows.last().map(|row| row.key));
        ListPage { rows, next }
    }

    /// Returns how many keys a subscription has or had.
    pub(super) fn key_count(&self, subscription: NameId) -> usize {
        let of_subscription = (subscription, KeyId(0))..=(subscription, KeyId(u128::MAX));
        self.read().keys.range(of_subscription).count()
    }
}

impl Listed {
    fn text(&self, id: NameId) -> Arc<str> {
        self.texts.get(&id).and_then(|text| text.text.clone()).unwrap_or_default()
    }

    fn facts(&self, id: NameId, now_ms: u64) -> Option<SubscriptionFacts> {
        let subscription = self.subscriptions.get(&id)?;
        let row = subscription.in_force(now_ms)?;
        let (text, customer) = subscription.listed.as_ref()?;
        let name = self.plans.get(&row.plan).map_or(row.plan, |name| *name);
        Some(SubscriptionFacts {
            id: Arc::clone(text),
            customer: self.text(*customer),
            plan: self.text(row.plan),
            plan_name: self.text(name),
            time_zone: self.text(row.time_zone),
            billing_anchor: row.billing_anchor,
        })
    }

    /// Counts one more row that has these ids.
    fn retain(&mut self, ids: &[NameId]) {
        for id in ids.iter().filter(|id| id.is_some()) {
            self.texts.entry(*id).or_default().rows += 1;
        }
    }

    fn release(&mut self, ids: &[NameId]) {
        for id in ids {
            let Some(text) = self.texts.get_mut(id) else { continue };
            text.rows -= 1;
            if text.rows == 0 {
                self.texts.remove(id);
            }
        }
    }

    /// Takes the string behind an id, if a row has it.
    fn define(&mut self, definition: &Definition) {
        match definition {
            Definition::Name { id, text } => {
                let Some(known) = self.texts.get_mut(id) else { return };
                if known.text.is_none() {
                    known.text = Some(Arc::from(&**text));
                    if self.subscriptions.contains_key(id) {
                        self.list(*id);
                    }
                }
            }
            // A job that meets a key names it, too.
            Definition::Key { id, name, month: None } => {
                self.key_names.insert(*id, name.clone());
            }
            Definition::Key { .. } | Definition::Route { .. } | Definition::Agent { .. } => {}
        }
    }

    fn put_subscription(&mut self, row: &SubscriptionRow, deleted: bool) {
        // New texts are counted first, so that those which stay aren't forgotten in between.
        if !deleted {
            self.retain(&ids_of(row));
        }
        let subscription = self.subscriptions.entry(row.id).or_default();
        let ends_all = deleted || row.valid_from.is_none();
        let mut ended: SmallVec<[SubscriptionRow; 1]> = SmallVec::new();
        subscription.rows.retain(|old| {
            let stays = !ends_all && old.valid_from != row.valid_from;
            if !stays {
                ended.push(old.clone());
            }
            stays
        });
        if !deleted {
            let place = subscription.rows.partition_point(|old| old.valid_from < row.valid_from);
            subscription.rows.insert(place, row.clone());
        }
        for old in ended {
            self.release(&ids_of(&old));
        }
        self.list(row.id);
    }

    /// Lists a subscription under its text and its newest row's customer, or no more.
    fn list(&mut self, id: NameId) {
        let text = self.texts.get(&id).and_then(|text| text.text.clone());
        let Some(subscription) = self.subscriptions.get_mut(&id) else { return };
        let customer = subscription.rows.last().map(|row| row.customer);
        let wanted = text.zip(customer);
        if subscription.listed != wanted {
            if let Some((text, customer)) = &subscription.listed {
                self.by_text.remove(text);
                self.of_customers.remove(&(*customer, Arc::clone(text)));
            }
            if let Some((text, customer)) = &wanted {
                self.by_text.insert(Arc::clone(text), id);
                self.of_customers.insert((*customer, Arc::clone(text)));
            }
            subscription.listed = wanted;
        }
        if subscription.rows.is_empty() {
            self.subscriptions.remove(&id);
        }
    }

    fn put_plan(&mut self, row: &PlanRow, deleted: bool) {
        if !deleted {
            self.retain(&[row.id, row.name]);
        }
        let old = if deleted { self.plans.remove(&row.id) } else { self.plans.insert(row.id, row.name) };
        if let Some(name) = old {
            self.release(&[row.id, name]);
        }
    }

    fn put_key(&mut self, row: &KeyRow, before: &[NameId], now: &[NameId]) {
        for gone in before.iter().filter(|subscription| !now.contains(subscription)) {
            self.keys.remove(&(*gone, row.key));
        }
        let times = KeyTimes { created_at: row.created_at, last_used_at: row.last_used_at };
        for subscription in now {
            self.keys.insert((*subscription, row.key), times);
        }
        if now.is_empty() {
            self.key_names.remove(&row.key);
        }
    }
}

/// Returns the ids whose texts are shown of a subscription.
fn ids_of(row: &SubscriptionRow) -> [NameId; 4] {
    [row.id, row.customer, row.plan, row.time_zone]
}
