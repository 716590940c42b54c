//! The configuration of a Keytide job, from TOML to values that the other crates can rely on.
//!
//! Parsing has two stages. [`raw`](self) types mirror the file: unknown fields are refused, units stand
//! in the values. Validation turns them into [`JobConfig`], which can't be built any other way, and
//! reports *every* problem at once, each with its path, the value found and what is allowed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod job;

pub use job::*;
