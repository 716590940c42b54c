//! Keeps the facts that the rows of a metric are joined with, as changes of them arrive.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::Footprint;

/// The facts that rows are joined with when they are published.
pub(crate) trait RowContext: Default + 'static {
    /// The subject of a fact, such as a key.
    type Subject: Copy + Ord + Hash + Serialize + DeserializeOwned;
    /// A change, as it arrives.
    type Change: Clone + 'static;
    /// A fact, as it is stored.
    type Row: Serialize + DeserializeOwned;

    /// Applies a tick's changes, and returns the subjects whose facts changed. After a restore the first tick brings
    /// every fact again. With `all` true, facts that it doesn't bring are deleted.
    fn apply(&mut self, changes: Vec<Self::Change>, all: bool) -> Vec<Self::Subject>;
    /// Passes every fact to `out`.
    fn rows_out(&self, out: &mut dyn FnMut(Self::Row));
    /// Restores one fact from a stored row.
    fn row_in(&mut self, row: Self::Row);
    /// Returns the number of the shard that a fact belongs to.
    fn shard(row: &Self::Row) -> u64;
    fn footprint(&self) -> Footprint;
}

/// Rows of such a metric are joined with nothing.
impl RowContext for () {
    type Subject = ();
    type Change = ();
    type Row = ();

    fn apply(&mut self, _: Vec<()>, _: bool) -> Vec<()> {
        Vec::new()
    }
    fn rows_out(&self, _: &mut dyn FnMut(())) {}
    fn row_in(&mut self, (): ()) {}
    fn shard((): &()) -> u64 {
        0
    }
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
}
