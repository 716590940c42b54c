//! The busiest keys and the newest incidents of a job, as `keytide top` shows them.

mod state;

pub use self::state::{Column, IncidentRow, KeyRow, Percentiles, TopState, WIDTHS};
