//! Holds the parts of operators: the shell of all that have a state, and data structures that several share.

pub(crate) mod by_key;
pub(crate) mod by_tick;
pub(crate) mod cap;
pub(crate) mod context;
pub(crate) mod dismissals;
pub(crate) mod few;
pub(crate) mod group;
pub(crate) mod network_keys;
pub(crate) mod open_minutes;
pub(crate) mod owners;
pub(crate) mod report;
pub(crate) mod sketch;
pub(crate) mod sorted_map;
pub(crate) mod texts;
pub(crate) mod top_keys;
pub(crate) mod zones;
