//! The dataflow of Keytide: access events and tables in, updates of the views out.
//!
//! This crate is pure: no I/O, no clock, no randomness, no async runtime. Everything is a function of the
//! rows it is given and the ticks they are given at, which is what makes replay, restore and the oracle
//! tests possible.

#![cfg_attr(test, allow(clippy::unwrap_used))]

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

pub use incident::*;
pub use model::Owner;
pub use operators::Publish;
pub use render::{Dataflow, DetectorOptions, Options, render};
pub use row::*;
pub use window::Level;
