//! Facts that the rows of a metric are joined with, kept as changes of them arrive.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::Footprint;

/// What rows are joined with when they are put out.
pub(crate) trait RowContext: Default + 'static {
    /// What one fact of the context is about.
    type Subject: Copy + Ord + Hash + Serialize + DeserializeOwned;
    /// A change, as it arrives.
    type Change: Clone + 'static;
    /// A fact, as it is stored.
    type Row: Serialize + DeserializeOwned;

    /// Applies a tick's changes; returns the subjects whose facts changed. After a restore the first tick
    /// brings every fact again: `all` says that what it doesn't bring is gone.
    fn apply(&mut self, changes: Vec<Self::Change>, all: bool) -> Vec<Self::Subject>;
    /// Every fact.
    fn rows_out(&self, out: &mut dyn FnMut(Self::Row));
    /// Takes a fact back.
    fn row_in(&mut self, row: Self::Row);
    /// Where a fact belongs.
    fn shard(row: &Self::Row) -> u64;
    /// How much it holds.
    fn footprint(&self) -> Footprint;
}

/// No context.
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
