//! The product as its users meet it: one binary of tests that know the command line, the files it reads and
//! writes, and the documents, but none of the code (`accounts`, `incidents`, `restart` and `top` apart).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod actions;
mod backtest;
#[cfg(feature = "real-store")]
mod bucket;
mod canary;
mod circles;
mod cluster;
#[cfg(feature = "demo")]
mod demo;
mod dependencies;
mod docs;
mod gateways;
mod harness;
mod hostile;
mod incidents;
mod killed;
mod look_up;
mod metrics;
mod quotas;
mod release;
mod replay;
mod reports;
mod restart;
mod samples;
mod signals;
#[path = "../alerts/tests/standins/mod.rs"]
mod standins;
mod tokens;
#[cfg(feature = "top")]
mod top;
mod writers;
