//! The operators, one file each, and in `parts` what several of them share. An operator's header states what it emits at
//! which time, what it holds back and when it forgets.

pub(crate) mod accounts;
pub(crate) mod admission;
pub(crate) mod agents;
pub(crate) mod assignments;
pub(crate) mod bookings;
pub(crate) mod callers;
pub(crate) mod dedupe;
pub(crate) mod definitions;
pub(crate) mod geo;
pub(crate) mod incidents;
pub(crate) mod latency;
pub(crate) mod parts;
pub(crate) mod profiles;
pub(crate) mod routes;
pub(crate) mod subscription_usage;
pub(crate) mod table_rows;
pub(crate) mod usage;
pub(crate) mod windowed;

pub use accounts::account::AccountOptions;
pub use parts::zones::ZoneCalendars;
pub use windowed::Publish;
