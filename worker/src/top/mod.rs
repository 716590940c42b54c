//! The busiest keys and the newest incidents of a job, as `keytide top` and the page `/top.json` show them.
//!
//! [`TopState`] takes in rows: a running job's as it publishes them, or lines of views on disk. [`TopPage`] has the
//! first of its keys, as JSON. Both are a [`Top`], so a screen shows them alike.

mod page;
mod rows;
mod state;
#[cfg(test)]
mod tests;

pub use self::page::{PAGE_KEYS, TopPage};
pub use self::state::{Column, IncidentRow, KeyRow, Top, TopState, Totals, WIDTHS};
