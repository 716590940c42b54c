//! One process of the job, apart from its command line: live over topics ([`run`]), or bounded over all that its
//! sources hold ([`replay`]).
//!
//! It reads no arguments, prints nothing and asks for no time: clock, progress and warnings come from the program, so
//! that tests can stand in for them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cells;
pub mod exit;
pub mod memory;
pub mod records;
pub mod replay;
pub mod report;
pub mod run;
pub mod serve;
pub mod top;
