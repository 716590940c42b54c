//! Registers durable state, which is everything that an operator remembers from one tick to the next.
//!
//! The logic of an operator that `operators/parts/by_tick.rs` builds is a plain `fn`, so it can't capture anything.
//! All it can remember is one [`Registered`] state, and only [`Registry::register`] makes those. For such an operator,
//! state that isn't registered doesn't compile:
//!
//! ```compile_fail
//! let hidden = std::collections::HashMap::<u64, u64>::new();
//! let registered = keytide_dataflow::state::Registered(hidden);
//! ```
//!
//! State is stored and restored as rows in parts, see `parts.rs`. Each row names its worker, so any number of workers can read
//! the rows of any other number. Arrangements of differential dataflow aren't registered: they are functions of
//! the registered states upstream. These states re-issue their rows at the first tick after a restore.

mod chain;
mod copy_on_write;
mod footprint;
mod parts;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::chain::{KeyChain, NeededKeys};
pub(crate) use self::copy_on_write::CopyOnWrite;
pub use self::footprint::Footprint;
pub(crate) use self::footprint::spilled;
use self::parts::PartsEncoder;
pub(crate) use self::parts::{Contains, RowsWithin};
pub use self::parts::{
    PartId, PartKey, RowOut, RowsOut, Snapshot, SnapshotRequest, StateRows, TakenSnapshot,
};

macro_rules! durable_states {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Names every durable state of the dataflow.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum StateId { $($(#[$doc])* $variant,)+ }

        impl StateId {
            /// Lists every durable state of the dataflow.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name under which the state's rows are stored.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

durable_states! {
    /// Request ids seen within the dedupe horizon.
    Dedupe = "dedupe",
    /// Strings behind the ids of tables' rows.
    Definitions = "definitions",
    /// User agents whose strings are known.
    Agents = "agents",
    /// Routes that are admitted, and their strings.
    Routes = "routes",
    /// Keys that are admitted, with their routes, countries and names.
    Admission = "admission",
    /// The subscriptions that keys are assigned to, and since when.
    Assignments = "assignments",
    /// Rows of the tables of subscriptions and plans.
    TableRows = "table_rows",
    Usage = "usage",
    UsageByRoute = "usage_by_route",
    LatencyByKey = "latency_by_key",
    LatencyByRoute = "latency_by_route",
    Geo = "geo",
    CallersByKey = "callers_by_key",
    CallersByRoute = "callers_by_route",
    /// Profiles of keys, for the detector.
    Profiles = "profiles",
    /// Incidents, and the guard against platform events.
    Incidents = "incidents",
    SubscriptionUsage = "subscription_usage",
    /// What subscriptions used by local day, and what is billed of it.
    Accounts = "accounts",
}

/// Names the worker that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shard {
    /// The worker whose index is this, modulo the number of workers.
    Of(u64),
    All,
}

/// State of an operator that survives its process.
pub trait Durable: Sized + 'static {
    /// Names the state in the registry.
    const ID: StateId;
    /// A row as which the state is stored. It borrows what is large.
    type Row<'a>: Serialize + DeserializeOwned;

    /// Passes everything that it remembers to `out`, in any order. What changes from then on belongs to the next
    /// snapshot.
    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>);
    /// Makes room for the rows of a part that follow, all of which are this worker's. It is called if the job has as many
    /// workers as before.
    fn expect_rows(&mut self, _part: PartId, _rows: usize) {}
    /// Restores one row. Rows come in any order, before the first tick, but that [links](PartId::Keys) come one after the
    /// other.
    fn row_in(&mut self, row: Self::Row<'static>);
    /// Returns the worker that the row belongs to. It must agree with the exchange of the operator's input.
    fn shard(row: &Self::Row<'static>) -> Shard;
    /// Returns how much it remembers, at a cost that doesn't grow with it.
    fn footprint(&self) -> Footprint;
}

/// A state that the registry knows, which is the only kind an operator can have.
#[derive(Debug)]
pub struct Registered<S>(Rc<RefCell<S>>);

impl Registered<()> {
    /// Makes a state for operators that remember nothing between ticks.
    pub(crate) fn nothing() -> Self {
        Self(Rc::new(RefCell::new(())))
    }
}

impl<S> Registered<S> {
    pub(crate) fn with<R>(&self, action: impl FnOnce(&mut S) -> R) -> R {
        action(&mut self.0.borrow_mut())
    }
}

/// The version of all rows of states. It rises with every change of a row's layout or meaning.
pub const STATE_VERSION: u32 = 7;

/// The error of a stored row that can't be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError {
    pub part: PartKey,
    /// The index of the row among the part's rows.
    pub row: u64,
    pub reason: String,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, row, reason } = self;
        write!(
            f,
            "row {row} of state `{}` can't be read: {reason}; it is damaged or of another version",
            part.name()
        )
    }
}

impl std::error::Error for RestoreError {}

/// A registered state of any type.
trait AnyState {
    fn rows_out(&self, encoder: PartsEncoder<'_>);
    fn footprint(&self) -> Footprint;
}

impl<S: Durable> AnyState for RefCell<S> {
    fn rows_out(&self, mut encoder: PartsEncoder<'_>) {
        self.borrow_mut().rows_out(&mut encoder);
        encoder.finish();
    }

    fn footprint(&self) -> Footprint {
        self.borrow().footprint()
    }
}

/// The registry of one worker's states.
pub struct Registry<'a> {
    worker: usize,
    workers: usize,
    restore: Option<&'a Snapshot>,
    states: BTreeMap<StateId, Rc<dyn AnyState>>,
}

impl fmt::Debug for Registry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.states.keys()).finish()
    }
}

impl<'a> Registry<'a> {
    /// Makes an empty registry of worker `worker` of `workers`. A state that is registered takes its rows out of
    /// `restore`.
    #[must_use]
    pub fn new(worker: usize, workers: usize, restore: Option<&'a Snapshot>) -> Self {
        Self { worker, workers, restore, states: BTreeMap::new() }
    }

    /// Registers a state and returns it filled with the rows that belong to this worker.
    ///
    /// # Errors
    /// If a stored row can't be read.
    ///
    /// # Panics
    /// If the state's name is taken, because each state has one owner.
    pub fn register<S: Durable>(&mut self, mut state: S) -> Result<Registered<S>, RestoreError> {
        let (worker, workers) = (self.worker as u64, self.workers as u64);
        // Sums that a worker adds up for others have their owner's shard, and are still its own until they are sent on.
        let is_dealt = self.restore.is_some_and(|snapshot| snapshot.workers != self.workers);
        for (part, rows) in self.stored(S::ID) {
            let mut row = 0;
            if !is_dealt {
                state.expect_rows(part.part, usize::try_from(rows.len()).unwrap_or(0));
            }
            for mut bytes in rows.blocks() {
                while !bytes.is_empty() {
                    let refused =
                        |error: postcard::Error| RestoreError { part, row, reason: error.to_string() };
                    let (decoded, rest) =
                        postcard::take_from_bytes::<S::Row<'static>>(bytes).map_err(refused)?;
                    match S::shard(&decoded) {
                        Shard::Of(shard) if is_dealt && shard % workers != worker => {}
                        Shard::Of(_) | Shard::All => state.row_in(decoded),
                    }
                    (bytes, row) = (rest, row + 1);
                }
            }
        }
        let shared = Rc::new(RefCell::new(state));
        let erased: Rc<dyn AnyState> = Rc::<RefCell<S>>::clone(&shared);
        assert!(self.states.insert(S::ID, erased).is_none(), "state `{}` has two owners", S::ID.name());
        Ok(Registered(shared))
    }

    /// Returns the stored parts of a state that may have rows of this worker.
    fn stored(&self, state: StateId) -> impl Iterator<Item = (PartKey, &'a StateRows)> {
        let (worker, workers) = (self.worker, self.workers);
        let parts = self.restore.into_iter().flat_map(move |snapshot| {
            let is_own = move |key: &PartKey| snapshot.workers != workers || key.worker == worker;
            snapshot.parts.iter().filter(move |(key, _)| key.state == state && is_own(key))
        });
        parts.filter_map(|(key, rows)| Some((*key, rows.as_ref()?)))
    }

    /// Ends registration and returns all states.
    ///
    /// # Panics
    /// If a state of [`StateId::ALL`] has no owner.
    #[must_use]
    pub fn finish(self) -> States {
        for id in StateId::ALL {
            assert!(self.states.contains_key(id), "state `{}` has no owner", id.name());
        }
        States { worker: self.worker, workers: self.workers, states: self.states }
    }
}

/// Holds all durable states of a worker.
pub struct States {
    worker: usize,
    workers: usize,
    states: BTreeMap<StateId, Rc<dyn AnyState>>,
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.states.keys()).finish()
    }
}

impl States {
    /// Takes the parts of every state that are asked for, and the names of the others. It must be called between
    /// ticks: when every tick that was begun is closed.
    #[must_use]
    pub fn snapshot(&self, request: SnapshotRequest) -> TakenSnapshot {
        let mut parts = BTreeMap::new();
        for (id, state) in &self.states {
            state.rows_out(PartsEncoder::new(*id, self.worker, request, &mut parts));
        }
        TakenSnapshot::new(self.workers, parts)
    }

    /// Returns how much each state remembers, in the order of [`StateId::ALL`]. It must be called between rounds of
    /// the operators.
    pub fn footprints(&self) -> impl Iterator<Item = (StateId, Footprint)> {
        self.states.iter().map(|(id, state)| (*id, state.footprint()))
    }
}
