//! The ledger of quotas: answers at request time if a key may call now.
//!
//! ```text
//! table changes ──► keys:          64 shards of key id -> (state, standing)
//!                   subscriptions: 64 shards of name   -> standing
//! published ticks ─► standing:     limits, booked, rows of minutes, admitted checks, reservations
//! check ───────────► locks one standing: check and reserve are one step
//! ```
//! So no interleaving of checks passes a hard limit by more than what isn't known yet. That is what calls that never asked
//! used since the last tick, and what a restart forgot: checks of the last two minutes, until rows of their calls come.
//!
//! A check locks its key's shard for reading, and then one standing. Tables lock a shard for writing, and no standing
//! meanwhile. The rows of quotas are under a lock of their own, which is taken last.
//!
//! It is pure: it reads no clock, does no input and no output. Callers hand over the time.
//!
//! A subscription that the table no longer has is forgotten within 64 ticks, once its periods are over and no key has it.
//!
//! **Limits.** A standing takes about 1 kB, and 150 bytes a key and open minute if it has limits. A key takes about 100
//! bytes. Reservations end after [`RESERVATION_MS`]. A ledger without a tick for [`STALE_MS`] says so.

mod answer;
mod facts;
mod limits;
mod repeated;
mod spent;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hashbrown::HashMap;
use keytide_billing::BilledUse;
use keytide_dataflow::ZoneCalendars;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::model::{EventTime, KeyId, KeyState, NameId, TableChange, TableRow};
use smallvec::SmallVec;

pub use self::answer::{CheckAnswer, CheckVerdict, ReservationId};
pub use self::facts::{BookedUse, MinuteUse, UseOfTick};
pub use self::repeated::RequestKey;
pub use self::standing::{AskedUse, QuotaAnswer, RESERVATION_MS};

use self::limits::LimitRows;
use self::repeated::RepeatedChecks;
use self::standing::{CheckDenial, Instants, Standing, Terms};

/// The age of the last tick from which on answers say that the ledger is stale.
pub const STALE_MS: u64 = 60_000;
const SHARDS: usize = 64;
/// Makes different numbers of different ones.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckSubject {
    Key(KeyId),
    Subscription(NameId),
}

/// How much a ledger holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSize {
    /// Keys of the table, and keys that the job denies.
    pub keys: u64,
    pub subscriptions: u64,
    /// Reservations that are neither settled nor at their end.
    pub reservations: u64,
    /// Quotas of running periods of which nothing is left.
    pub quotas_over: u64,
}

type Shards<K, V> = Vec<RwLock<HashMap<K, V>>>;
type SharedStanding = Arc<Mutex<Standing>>;

/// A key of the table of keys.
#[derive(Debug, Default)]
struct LedgerKey {
    state: KeyState,
    /// The state that the job decided, until it is lifted.
    denied: Option<KeyState>,
    /// The subscriptions by when they begin; `None` is since ever.
    owners: SmallVec<[(Option<EventTime>, SharedStanding); 1]>,
}

impl LedgerKey {
    /// Returns the subscription that has the key now. A key's first one has it since ever.
    fn owner(&self, now_ms: u64) -> Option<&SharedStanding> {
        let mut began = self.owners.iter().rev();
        let current = began.find(|(from, _)| from.is_none_or(|from| from <= now_ms));
        current.or(self.owners.first()).map(|(_, standing)| standing)
    }

    fn state(&self) -> KeyState {
        self.denied.unwrap_or_default().max(self.state)
    }
}

/// Answers checks, and knows how the quotas of all subscriptions stand.
#[derive(Debug)]
pub struct QuotaLedger {
    keys: Shards<KeyId, LedgerKey>,
    subscriptions: Shards<NameId, SharedStanding>,
    limits: LimitRows,
    zones: Mutex<ZoneCalendars>,
    repeated: RepeatedChecks,
    /// The keys that the job's decisions deny.
    denied: Mutex<BTreeMap<KeyId, KeyState>>,
    /// Makes the numbers of reservations of this life.
    nonce: u64,
    next: AtomicU64,
    /// Shards that were searched for standings that are over, one a tick.
    swept: AtomicU64,
    /// The time of the last tick, 0 before the first.
    tick_ms: AtomicU64,
    through_ms: AtomicU64,
    /// Denies checks of hard quotas while the ledger is stale.
    denies_stale: bool,
}

impl QuotaLedger {
    /// Makes an empty ledger, which is stale until a tick comes. `nonce` tells this life of the job from others. With
    /// `denies_stale` hard quotas deny while the ledger is stale.
    #[must_use]
    pub fn new(nonce: u64, denies_stale: bool) -> Self {
        Self {
            keys: shards(),
            subscriptions: shards(),
            limits: LimitRows::default(),
            zones: Mutex::default(),
            repeated: RepeatedChecks::default(),
            denied: Mutex::default(),
            nonce,
            next: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            tick_ms: AtomicU64::new(0),
            through_ms: AtomicU64::new(0),
            denies_stale,
        }
    }

    /// Applies changes of tables, in the order of each table.
    pub fn apply_tables(&self, changes: &[TableChange], now_ms: u64) {
        let mut zones = lock(&self.zones);
        // Of a key, a subscription or a quota a change may be a deletion and all rows again: no check comes between.
        for run in changes.chunk_by(|one, next| is_of_same(&one.row, &next.row)) {
            match &run[0].row {
                TableRow::Key(row) => self.apply_key(row.key, run),
                TableRow::Subscription(row) => {
                    let standing = self.standing_of(row.id);
                    let mut standing = lock(&standing);
                    for change in run {
                        match &change.row {
                            TableRow::Subscription(_) if change.deleted => standing.end(),
                            TableRow::Subscription(row) => standing.put(Terms::of(row, &mut zones), now_ms),
                            _ => {}
                        }
                    }
                }
                TableRow::Quota(_) => self.limits.apply(run),
                TableRow::Plan(_) | TableRow::Leak(_) | TableRow::Price(_) | TableRow::Token(_) => {}
            }
        }
    }

    /// Applies changes of one key.
    fn apply_key(&self, key: KeyId, run: &[TableChange]) {
        let rows = run.iter().filter_map(|change| match &change.row {
            TableRow::Key(row) => Some((row, change.deleted, self.standing_of(row.subscription))),
            _ => None,
        });
        let rows: SmallVec<[_; 1]> = rows.collect();
        let mut keys = write(shard(&self.keys, key.0 as u64));
        let entry = keys.entry(key).or_default();
        for (row, deleted, owner) in rows {
            if deleted || row.valid_from.is_none() {
                entry.owners.clear();
            }
            entry.owners.retain(|(from, _)| *from != row.valid_from);
            if deleted {
                entry.state = KeyState::default();
            } else {
                entry.state = row.state;
                let place = entry.owners.partition_point(|(from, _)| *from < row.valid_from);
                entry.owners.insert(place, (row.valid_from, owner));
            }
        }
        if entry.owners.is_empty() && entry.denied.is_none() {
            keys.remove(&key);
        }
    }

    /// Applies a tick that was acknowledged.
    pub fn apply_tick(&self, tick: &UseOfTick, now_ms: u64) {
        let at = self.instants(now_ms);
        // Use that is booked is also among the minutes until the watermark is stored: never too little is counted.
        for row in &tick.minutes {
            let standing = self.standing_of(row.subscription);
            lock(&standing).count(row, (&self.limits, at));
        }
        let through_ms = tick.through_ms - tick.through_ms % MINUTE_MS;
        for row in &tick.booked {
            let standing = self.standing_of(row.quota.subscription);
            lock(&standing).book(*row, through_ms);
        }
        self.through_ms.fetch_max(through_ms, Ordering::Release);
        self.tick_ms.fetch_max(tick.tick, Ordering::Release);
        let shard = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS as u64;
        self.forget_over(&self.subscriptions[shard as usize], self.instants(now_ms));
    }

    /// Forgets standings of a shard that are over, and that no key has.
    fn forget_over(&self, shard: &RwLock<HashMap<NameId, SharedStanding>>, at: Instants) {
        // Whoever asks or applies rows holds a standing, too, and got it from the locked shard.
        let is_over =
            |standing: &SharedStanding| Arc::strong_count(standing) == 1 && lock(standing).is_over(at);
        let standings = shard.read().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<NameId> =
            standings.iter().filter(|(_, standing)| is_over(standing)).map(|(name, _)| *name).collect();
        drop(standings);
        if over.is_empty() {
            return;
        }
        let mut standings = write(shard);
        for name in over {
            if standings.get(&name).is_some_and(is_over) {
                standings.remove(&name);
            }
        }
    }

    /// Denies these keys by decisions of the job, and none but them. The table of keys can only add to it.
    pub fn deny_only(&self, denied: BTreeMap<KeyId, KeyState>) {
        let mut known = lock(&self.denied);
        let lifted = known.keys().filter(|key| !denied.contains_key(*key));
        lifted.for_each(|key| self.deny(*key, None));
        let changed = denied.iter().filter(|(key, state)| known.get(*key) != Some(*state));
        changed.for_each(|(key, state)| self.deny(*key, Some(*state)));
        *known = denied;
    }

    fn deny(&self, key: KeyId, state: Option<KeyState>) {
        let mut keys = write(shard(&self.keys, key.0 as u64));
        let entry = keys.entry(key).or_default();
        entry.denied = state.filter(|state| *state != KeyState::Active);
        if entry.denied.is_none() && entry.owners.is_empty() {
            keys.remove(&key);
        }
    }

    /// Answers a check, and admits its use if it is allowed. A check that is asked again with the same `request` has the
    /// same answer, and counts once.
    pub fn check(
        &self,
        subject: CheckSubject,
        asked: AskedUse,
        request: Option<RequestKey>,
        now_ms: u64,
    ) -> Arc<CheckAnswer> {
        match request {
            Some(request) => self.repeated.answer(request, now_ms, || self.decide(subject, asked, now_ms)),
            None => Arc::new(self.decide(subject, asked, now_ms)),
        }
    }

    fn decide(&self, subject: CheckSubject, asked: AskedUse, now_ms: u64) -> CheckAnswer {
        let is_stale = self.is_stale(now_ms);
        let mut answer = CheckAnswer { is_stale, ..CheckAnswer::default() };
        let standing = match subject {
            CheckSubject::Subscription(name) => self.known_standing(name),
            CheckSubject::Key(key) => {
                let keys = shard(&self.keys, key.0 as u64).read().unwrap_or_else(PoisonError::into_inner);
                let found = keys.get(&key);
                answer.is_known = found.is_some();
                answer.verdict = match found.map(LedgerKey::state).unwrap_or_default() {
                    KeyState::Active => CheckVerdict::Allowed,
                    KeyState::Suspended => CheckVerdict::Suspended,
                    KeyState::Revoked => CheckVerdict::Revoked,
                };
                found.and_then(|key| key.owner(now_ms)).map(Arc::clone)
            }
        };
        let Some(standing) = standing.filter(|_| answer.is_allowed()) else { return answer };
        let mut standing = lock(&standing);
        answer.is_known |= standing.is_known();
        let number = || self.nonce.wrapping_add(self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(ODD));
        let at = self.instants(now_ms);
        let (mut quotas, decided) =
            standing.check(asked, number, (&self.limits, at), is_stale && self.denies_stale);
        match decided {
            Ok(number) => {
                let id = |number| u128::from(standing.subscription().0) << 64 | u128::from(number);
                answer.reservation = number.map(|number| ReservationId(id(number)));
            }
            Err(CheckDenial::Exceeded) => answer.verdict = CheckVerdict::Exceeded,
            Err(CheckDenial::Stale) => answer.verdict = CheckVerdict::Stale,
        }
        drop(standing);
        quotas.sort_by_key(|quota| {
            let resets_at_ms = quota.is_exceeded.then_some(quota.standing.resets_at_ms);
            (std::cmp::Reverse(resets_at_ms), std::cmp::Reverse(quota.standing.permille))
        });
        answer.quotas = quotas;
        answer
    }

    /// Settles a reservation with the use that `actual` makes of what was reserved; a rollback makes it nothing. Returns
    /// false if it isn't open: it was settled, has ended, or is of an earlier life of the job.
    pub fn settle(
        &self,
        reservation: ReservationId,
        actual: impl FnOnce(BilledUse) -> BilledUse,
        now_ms: u64,
    ) -> bool {
        let name = NameId((reservation.0 >> 64) as u64);
        let Some(standing) = self.known_standing(name) else { return false };
        lock(&standing).settle(reservation.0 as u64, actual, self.instants(now_ms))
    }

    /// Returns the use of a reservation; `None` if it isn't open.
    #[must_use]
    pub fn reserved(&self, reservation: ReservationId) -> Option<BilledUse> {
        let name = NameId((reservation.0 >> 64) as u64);
        let standing = self.known_standing(name)?;
        let standing = lock(&standing);
        standing.reserved(reservation.0 as u64)
    }

    /// Returns how much is held at `now_ms`. Reservations whose time is over end first.
    #[must_use]
    pub fn size(&self, now_ms: u64) -> LedgerSize {
        let at = self.instants(now_ms);
        let mut size = LedgerSize::default();
        for shard in &self.keys {
            size.keys += shard.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        }
        for shard in &self.subscriptions {
            // No check waits for the shard while its standings are looked at.
            let standings: Vec<SharedStanding> =
                shard.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
            size.subscriptions += standings.len() as u64;
            for standing in &standings {
                let mut standing = lock(standing);
                size.reservations += standing.open_reservations(at);
                size.quotas_over += standing.quotas_over(&self.limits, at);
            }
        }
        size
    }

    /// Returns whether the last tick is older than [`STALE_MS`].
    #[must_use]
    pub fn is_stale(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.tick_ms()) > STALE_MS
    }

    /// Returns the time of the last tick that was applied, 0 before the first, in ms since the epoch.
    #[must_use]
    pub fn tick_ms(&self) -> u64 {
        self.tick_ms.load(Ordering::Acquire)
    }

    /// Returns the instant before which all minutes are booked, in ms since the epoch.
    #[must_use]
    pub fn through_ms(&self) -> u64 {
        self.through_ms.load(Ordering::Acquire)
    }

    /// Returns the key that views name so. If it may be a hash or a name, it is the one that a table has.
    #[must_use]
    pub fn key_of_text(&self, text: &str) -> KeyId {
        let [name, hash] = KeyId::of_text(text);
        let is_known = |key: &KeyId| {
            shard(&self.keys, key.0 as u64).read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
        };
        let ids = || hash.into_iter().chain(name);
        ids().find(is_known).or(ids().next()).unwrap_or(KeyId::ANONYMOUS)
    }

    /// Returns the customer of a subscription, if the table has both.
    #[must_use]
    pub fn customer(&self, subscription: NameId) -> Option<NameId> {
        let standing = self.known_standing(subscription)?;
        let customer = lock(&standing).customer();
        customer.is_some().then_some(customer)
    }

    /// Returns the subscription that has a key now, and its customer; `None` if no table has the key.
    #[must_use]
    pub fn owner(&self, key: KeyId, now_ms: u64) -> Option<(NameId, NameId)> {
        let keys = shard(&self.keys, key.0 as u64).read().unwrap_or_else(PoisonError::into_inner);
        let standing = keys.get(&key)?.owner(now_ms).map(Arc::clone)?;
        drop(keys);
        let standing = lock(&standing);
        Some((standing.subscription(), standing.customer()))
    }

    /// Returns all subscriptions that have a key, or had or will have it by its rows.
    #[must_use]
    pub fn owners(&self, key: KeyId) -> SmallVec<[NameId; 1]> {
        let keys = shard(&self.keys, key.0 as u64).read().unwrap_or_else(PoisonError::into_inner);
        let owners: SmallVec<[SharedStanding; 1]> = keys
            .get(&key)
            .map(|key| key.owners.iter().map(|(_, owner)| Arc::clone(owner)).collect())
            .unwrap_or_default();
        drop(keys);
        owners.iter().map(|owner| lock(owner).subscription()).collect()
    }

    /// Returns the state of a key in its table, and the one that the job decided; `None` if it has neither.
    #[must_use]
    pub fn key_state(&self, key: KeyId) -> Option<(KeyState, Option<KeyState>)> {
        let keys = shard(&self.keys, key.0 as u64).read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&key).map(|key| (key.state, key.denied))
    }

    fn instants(&self, now_ms: u64) -> Instants {
        Instants { now_ms, through_ms: self.through_ms() }
    }

    /// Returns the standing of a subscription, which is made if there is none.
    fn standing_of(&self, name: NameId) -> SharedStanding {
        self.known_standing(name).unwrap_or_else(|| {
            let make = || Arc::new(Mutex::new(Standing::new(name)));
            Arc::clone(write(shard(&self.subscriptions, name.0)).entry(name).or_insert_with(make))
        })
    }

    /// Returns the standing of a subscription, if there is one.
    fn known_standing(&self, name: NameId) -> Option<SharedStanding> {
        let shard = shard(&self.subscriptions, name.0);
        shard.read().unwrap_or_else(PoisonError::into_inner).get(&name).map(Arc::clone)
    }
}

/// Returns whether two rows are of the same key, subscription or quota.
fn is_of_same(one: &TableRow, next: &TableRow) -> bool {
    match (one, next) {
        (TableRow::Key(one), TableRow::Key(next)) => one.key == next.key,
        (TableRow::Subscription(one), TableRow::Subscription(next)) => one.id == next.id,
        (TableRow::Quota(one), TableRow::Quota(next)) => {
            (one.holder, one.measure, one.period) == (next.holder, next.measure, next.period)
        }
        _ => false,
    }
}

fn shards<K, V>() -> Shards<K, V> {
    (0..SHARDS).map(|_| RwLock::default()).collect()
}

fn shard<K, V>(shards: &Shards<K, V>, hash: u64) -> &RwLock<HashMap<K, V>> {
    // Ids are hashes, so any bits will do.
    &shards[(hash % SHARDS as u64) as usize]
}

fn write<T>(shard: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

/// Locks what no thread leaves half done: a panic ends the process.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
