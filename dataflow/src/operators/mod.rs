//! The operators, one file each, beside what several of them share (`by_tick`, `by_key`, `few`, `owners`, `sketch`,
//! `texts`). An operator's header states what it emits at which time, what it holds back and when it forgets.

pub(crate) mod admission;
pub(crate) mod agents;
pub(crate) mod assignments;
pub(crate) mod bookings;
pub(crate) mod by_key;
pub(crate) mod by_tick;
pub(crate) mod callers;
pub(crate) mod dedupe;
pub(crate) mod definitions;
pub(crate) mod few;
pub(crate) mod geo;
pub(crate) mod incidents;
pub(crate) mod latency;
pub(crate) mod owners;
pub(crate) mod profiles;
pub(crate) mod routes;
pub(crate) mod sketch;
pub(crate) mod subscription_usage;
pub(crate) mod table_rows;
pub(crate) mod texts;
pub(crate) mod usage;
pub(crate) mod windowed;

pub use windowed::Publish;
