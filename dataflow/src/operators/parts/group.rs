//! Groups of a metric, dealt to 256 buckets: a worker has whole buckets, whatever the number of workers.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is counted apart.
pub(crate) trait Group: Copy + Ord + Hash + Serialize + DeserializeOwned + 'static {
    /// The group as maps keep it: in words of 64 bits, because a number of 128 pads every entry to 16 bytes.
    type Packed: Copy + Eq + Hash + 'static;

    /// As maps keep it.
    fn pack(self) -> Self::Packed;
    /// As everybody else knows it.
    fn unpack(packed: Self::Packed) -> Self;

    /// One of 256 buckets that the groups are dealt to, whatever the number of workers.
    fn bucket(&self) -> u8;

    /// What workers share groups by: a worker has whole buckets.
    fn shard(&self) -> u64 {
        u64::from(self.bucket())
    }
}
