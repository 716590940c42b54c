//! Keeps the accounts of subscriptions: quotas, charges, bills, forecasts, notices and adjustments.
//!
//! ```text
//! subscription_usage --hours that changed--+
//! bookings --additions--------------------+--by subscription--> accounts --> rows
//! tables --rows of subscriptions----------+        ^
//!        --rows of plans, prices, quotas--to all---+
//! ```
//! So a bill is the sum of the hours of `subscription_usage`, and of nothing else. An [`account`] has the days, and makes
//! rows of them; [`plans`] are the same on every worker.
//!
//! Use comes when minutes close. Accounts that changed publish quotas and notices at once, and bills and forecasts
//! within five minutes. What tables or the watermark change is published at once. A bucket of accounts publishes at most
//! `bulk_rows` of them in a tick, so that a month that ends for a million subscriptions doesn't stop the job.

pub(crate) mod account;
pub(crate) mod plans;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use keytide_billing::QuotaStanding;
use serde::{Deserialize, Serialize};

use self::account::{Account, AccountOptions, AccountRows};
use self::plans::{Plan, PlanChange, Plans};
use super::parts::by_tick::Closing;
use super::parts::zones::ZoneCalendars;
use super::subscription_usage::UseChange;
use super::windowed::{Publish, crosses};
use crate::account_row::{QuotaKey, Revision};
use crate::model::{EventTime, NameId, QuotaRow, SubscriptionRow, TickInfo};
use crate::row::{Output, Rows};
use crate::state::{Durable, Footprint, KeyChain, NeededKeys, PartId, RowsOut, Shard, StateId};
use crate::window::Level;

/// The number of buckets that accounts are dealt to.
const BUCKETS: u64 = 256;

/// A change of what accounts depend on beside use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum AccountChange {
    Subscription {
        offset: u64,
        row: SubscriptionRow,
        deleted: bool,
    },
    /// A quota of a subscription.
    Quota {
        offset: u64,
        subscription: NameId,
        row: QuotaRow,
        deleted: bool,
    },
    /// A worker, and a change of plans, which every worker gets.
    Plan(u64, PlanChange),
}

impl AccountChange {
    /// Returns the number by which it is exchanged.
    pub(crate) fn shard(&self) -> u64 {
        match self {
            Self::Subscription { row, .. } => row.id.bucket().into(),
            Self::Quota { subscription, .. } => subscription.bucket().into(),
            Self::Plan(worker, _) => *worker,
        }
    }
}

/// Returns the number by which a change of use is exchanged.
pub(crate) fn shard(change: &UseChange) -> u64 {
    change.subscription.bucket().into()
}

/// The settings that all accounts share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountSettings {
    pub(crate) options: AccountOptions,
    pub(crate) allowed_lateness_ms: u64,
    pub(crate) publish: Publish,
}

impl AccountSettings {
    /// Returns what accounts are read with in a tick.
    fn closing<'a>(
        &self,
        plans: &'a Plans,
        zones: &'a mut ZoneCalendars,
        info: &TickInfo,
    ) -> account::AccountTick<'a> {
        account::AccountTick {
            plans,
            zones,
            watermark: info.watermark,
            now: info.cadence,
            lateness_ms: self.allowed_lateness_ms,
            close_after_ms: self.options.close_after_ms,
            is_last: info.last,
        }
    }
}

/// The accounts of subscriptions on one worker.
pub(crate) struct Accounts {
    settings: AccountSettings,
    accounts: HashMap<NameId, Box<Account>>,
    chain: KeyChain<NameId>,
    plans: Plans,
    zones: ZoneCalendars,
    /// By bucket, the accounts that are to publish. True if bills are, too.
    queue: BTreeMap<u8, BTreeMap<NameId, bool>>,
    /// By bucket, the accounts whose bills wait for their time.
    waiting: BTreeMap<u8, BTreeSet<NameId>>,
    /// By the watermark at which they are due, the accounts. Some have become due at another time since.
    due: BTreeMap<EventTime, Vec<NameId>>,
    /// The clock of cadences at the previous tick.
    cadence: u64,
    /// True if accounts were restored and no tick has ended since.
    restored: bool,
}

impl Accounts {
    pub(crate) fn new(settings: AccountSettings) -> Self {
        Self {
            settings,
            accounts: HashMap::new(),
            chain: KeyChain::new(),
            plans: Plans::new(settings.options.currency),
            zones: ZoneCalendars::default(),
            queue: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: BTreeMap::new(),
            cadence: 0,
            restored: false,
        }
    }

    pub(crate) fn end_tick(
        state: &mut Self,
        used: Vec<Vec<UseChange>>,
        changes: Vec<Vec<AccountChange>>,
        closing: Closing<'_, ()>,
    ) {
        let info = closing.info;
        if std::mem::take(&mut state.restored) {
            let standings = state.standings(info);
            closing.output.standings(info.tick, standings);
        }
        // STEP 1: what tables say comes before the use of the same tick, which may depend on a zone.
        state.learn(changes.into_iter().flatten().collect(), info);

        // STEP 2: what was used.
        for change in used.into_iter().flatten() {
            let id = change.subscription;
            let account = state.accounts.entry(id).or_insert_with(|| Box::new(Account::new()));
            account.take_use(&change, &mut state.zones);
            state.enqueue(id, false);
        }

        // STEP 3: what is due by the clock of cadences, or by the watermark.
        state.enqueue_due(info);

        // STEP 4: rows of the accounts whose turn it is. Nothing is known of time before the first watermark.
        if info.watermark > 0 || info.last {
            let rows = state.publish(info);
            put_out(rows, info, closing.output);
        }
        state.cadence = info.cadence;
    }

    /// Notes that an account changed, or is due.
    fn enqueue(&mut self, id: NameId, with_bills: bool) {
        self.chain.mark(id, self.accounts.len());
        *self.queue.entry(id.bucket()).or_default().entry(id).or_default() |= with_bills;
    }

    fn learn(&mut self, mut changes: Vec<AccountChange>, info: &TickInfo) {
        if changes.is_empty() {
            return;
        }
        changes.sort_by_key(|change| match change {
            AccountChange::Subscription { offset, .. } | AccountChange::Quota { offset, .. } => *offset,
            AccountChange::Plan(_, change) => change.offset,
        });
        let mut of_plans = Vec::new();
        let mut changed = BTreeSet::new();
        for change in changes {
            match change {
                AccountChange::Plan(_, change) => of_plans.push(change),
                AccountChange::Subscription { row, deleted, .. } => {
                    changed.insert(row.id);
                    let account = self.accounts.entry(row.id).or_insert_with(|| Box::new(Account::new()));
                    account.take_row(row, deleted);
                }
                AccountChange::Quota { subscription, row, deleted, .. } => {
                    changed.insert(subscription);
                    let account =
                        self.accounts.entry(subscription).or_insert_with(|| Box::new(Account::new()));
                    account.take_quota(row, deleted);
                }
            }
        }
        for id in &changed {
            if let Some(account) = self.accounts.get_mut(id) {
                account.read_rows(&mut self.zones, info.cadence);
            }
        }
        if !of_plans.is_empty() {
            let plans = self.plans.take(of_plans, info.cadence);
            // A change of a plan is rare, so nothing is kept by which its subscriptions are found sooner.
            for (id, account) in &mut self.accounts {
                if account.plan_changed(&plans) {
                    changed.insert(*id);
                }
            }
        }
        for id in changed {
            self.enqueue(id, true);
        }
    }

    fn enqueue_due(&mut self, info: &TickInfo) {
        let later = self.due.split_off(&(info.watermark + 1));
        for (time, ids) in std::mem::replace(&mut self.due, later) {
            for id in ids {
                if self.accounts.get(&id).is_some_and(|account| account.due == time) {
                    self.enqueue(id, true);
                }
            }
        }
        let every = Level::Day.cadence();
        let cadence = self.cadence;
        let is_due = |bucket: u8| {
            let phase = every * u64::from(bucket) / BUCKETS;
            info.last || crosses(every, cadence + phase, info.cadence + phase)
        };
        let due: Vec<NameId> =
            self.waiting.extract_if(.., |bucket, _| is_due(*bucket)).flat_map(|(_, ids)| ids).collect();
        for id in due {
            self.enqueue(id, true);
        }
    }

    /// Returns how the quotas of running periods stand, as they were published last.
    fn standings(&mut self, info: &TickInfo) -> Vec<Revision<QuotaKey, QuotaStanding>> {
        let mut standings = Vec::new();
        for (id, account) in &mut self.accounts {
            let mut closing = self.settings.closing(&self.plans, &mut self.zones, info);
            // Nothing of this tick was added yet.
            closing.watermark = info.watermark_before;
            account.standings(*id, &mut closing, &mut standings);
        }
        standings
    }

    fn publish(&mut self, info: &TickInfo) -> AccountRows {
        let most = match self.settings.publish {
            Publish::Changes { bulk_rows } if !info.last => bulk_rows,
            Publish::Changes { .. } | Publish::Last => usize::MAX,
        };
        let mut rows = AccountRows::default();
        for (bucket, queue) in std::mem::take(&mut self.queue) {
            let mut queue = queue.into_iter();
            for (id, with_bills) in queue.by_ref().take(most) {
                let Some(account) = self.accounts.get_mut(&id) else { continue };
                let mut closing = self.settings.closing(&self.plans, &mut self.zones, info);
                let before = account.due;
                account.publish(id, with_bills || info.last, &mut closing, &mut rows);
                wait(&mut self.waiting, id, account);
                if account.is_gone() {
                    self.accounts.remove(&id);
                    self.chain.mark_all();
                    continue;
                }
                if account.due != before {
                    self.due.entry(account.due).or_default().push(id);
                }
                self.chain.mark(id, self.accounts.len());
            }
            let rest: BTreeMap<NameId, bool> = queue.collect();
            if !rest.is_empty() {
                self.queue.insert(bucket, rest);
            }
        }
        rows
    }
}

/// Lets an account wait for the cadence, if its bills changed since they were published, and else wait no more.
fn wait(waiting: &mut BTreeMap<u8, BTreeSet<NameId>>, id: NameId, account: &Account) {
    let bucket = waiting.entry(id.bucket()).or_default();
    if account.has_changed_bills() {
        bucket.insert(id);
    } else {
        bucket.remove(&id);
    }
}

/// Hands rows over, those of each view together.
fn put_out(rows: AccountRows, info: &TickInfo, output: &mut dyn Output) {
    let AccountRows { quotas, charges, bills, forecasts, notices, adjustments } = rows;
    for rows in [
        Rows::Quota(quotas),
        Rows::Charges(charges),
        Rows::Bills(bills),
        Rows::Forecast(forecasts),
        Rows::Notices(notices),
        Rows::Adjustments(adjustments),
    ] {
        if !rows.is_empty() {
            output.rows(info.tick, rows);
        }
    }
}

/// A row of the stored state.
#[derive(Serialize, Deserialize)]
pub(crate) enum AccountsRow<'a> {
    Account(NameId, Cow<'a, Account>),
    /// An account that is to publish, and whether its bills are, too.
    Queued(NameId, bool),
    Plan(NameId, Cow<'a, Plan>),
    Cadence(u64),
}

impl Durable for Accounts {
    const ID: StateId = StateId::Accounts;
    type Row<'a> = AccountsRow<'a>;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        let needed: Box<dyn Iterator<Item = (&NameId, &Box<Account>)>> =
            match self.chain.begin(out, self.accounts.len()) {
                NeededKeys::All => Box::new(self.accounts.iter()),
                NeededKeys::These(ids) => {
                    Box::new(ids.into_iter().filter_map(|id| self.accounts.get_key_value(&id)))
                }
            };
        for (id, account) in needed {
            out.row(AccountsRow::Account(*id, Cow::Borrowed(account)));
        }
        out.part(PartId::Rest, 0);
        for (id, with_bills) in self.queue.values().flatten() {
            out.row(AccountsRow::Queued(*id, *with_bills));
        }
        for (id, plan) in self.plans.iter() {
            out.row(AccountsRow::Plan(*id, Cow::Borrowed(plan)));
        }
        out.row(AccountsRow::Cadence(self.cadence));
    }

    fn expect_rows(&mut self, part: PartId, rows: usize) {
        self.chain.expect(part, rows);
        if part == (PartId::Keys { link: 0 }) {
            self.accounts.reserve(rows);
        }
    }

    fn row_in(&mut self, row: AccountsRow<'static>) {
        self.restored = true;
        match row {
            AccountsRow::Account(id, account) => {
                // A row of a later link takes the place of this account's earlier one.
                wait(&mut self.waiting, id, &account);
                self.due.entry(account.due).or_default().push(id);
                self.accounts.insert(id, Box::new(account.into_owned()));
            }
            AccountsRow::Queued(id, with_bills) => {
                self.queue.entry(id.bucket()).or_default().insert(id, with_bills);
            }
            AccountsRow::Plan(id, plan) => self.plans.restore(id, plan.into_owned()),
            AccountsRow::Cadence(cadence) => self.cadence = cadence,
        }
    }

    fn shard(row: &AccountsRow<'static>) -> Shard {
        match row {
            AccountsRow::Account(id, _) | AccountsRow::Queued(id, _) => Shard::Of(id.bucket().into()),
            AccountsRow::Plan(..) | AccountsRow::Cadence(_) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.accounts, |account| account.owned_bytes());
        footprint.bytes += self.chain.bytes();
        footprint.bytes +=
            Footprint::of_tree_with(&self.due, |ids| ids.capacity() * size_of::<NameId>()).bytes;
        footprint
    }
}
