//! The claims of a cluster's processes, each written once and only if it isn't there.
//!
//! ```text
//! DIR/cluster/GENERATION    the claim of a process to lead this generation
//! ```
//! Numbers have 20 digits, so names are in their order.

use bytes::Bytes;

use super::{Store, StoreError};

const CLUSTER: &str = "cluster";

fn name(generation: u64) -> String {
    format!("{CLUSTER}/{generation:020}")
}

impl Store {
    /// Writes the claim of a generation; returns false if it has one.
    pub(crate) fn put_cluster_claim(&self, generation: u64, bytes: Vec<u8>) -> Result<bool, StoreError> {
        self.put_sealed(&name(generation), &[Bytes::from(bytes)])
    }

    /// Reads the claim of a generation, if it has one.
    pub(crate) fn get_cluster_claim(&self, generation: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_sealed(&name(generation))
    }

    /// Returns the generations that have claims, in ascending order.
    pub(crate) fn cluster_claims(&self) -> Result<Vec<u64>, StoreError> {
        self.numbers(CLUSTER)
    }

    /// Deletes the claim of a generation. One that is gone already is no error.
    pub(crate) fn delete_cluster_claim(&self, generation: u64) -> Result<(), StoreError> {
        self.delete_if_present(&name(generation))
    }
}
