//! Defines the groups of a metric. They are dealt to 256 buckets, and a worker has whole buckets, whatever the number
//! of workers.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A group of calls that is counted apart from others.
pub(crate) trait Group:
    Copy + Ord + Hash + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The group as maps keep it. Its words have 64 bits, because a number of 128 pads every entry to 16 bytes.
    type Packed: Copy + Eq + Hash + Send + Sync + 'static;

    fn pack(self) -> Self::Packed;
    fn unpack(packed: Self::Packed) -> Self;

    /// Returns one of 256 buckets that the groups are dealt to, whatever the number of workers.
    fn bucket(&self) -> u8;

    /// Returns the number by which groups are dealt to workers: a worker has whole buckets.
    fn shard(&self) -> u64 {
        u64::from(self.bucket())
    }
}
