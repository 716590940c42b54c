//! The dataflow of Keytide turns access events and rows of tables into updates of the views.
//!
//! The crate is pure: it has no I/O, no clock, no randomness and no async runtime. Its results depend on the rows
//! alone, and on the ticks at which they are given. This makes replay, restore and the oracle tests possible.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account_row;
mod action;
pub mod detect;
mod incident;
pub mod incident_row;
pub mod model;
mod operators;
pub mod ownership;
mod render;
mod row;
pub mod state;
mod window;

pub use account_row::*;
pub use action::*;
pub use incident::*;
pub use model::Owner;
pub use operators::{AccountOptions, Publish, ZoneCalendars};
pub use render::{Dataflow, DetectorOptions, Options, render};
pub use row::*;
pub use window::Level;
