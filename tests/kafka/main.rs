//! `keytide run` against a real Apache Kafka: topics in, topics out, and what brokers do meanwhile.
//!
//! The suite knows the command line, the topics and the metrics, but none of the code, except for `ledger.rs`. Kafka's
//! own tools make the topics, move their offsets and read the results, so that no defect of our client can hide itself;
//! what the tools can't send (a partition of choice, a transaction) a plain producer does.
//!
//! ```text
//! test ──► producer ──► topic ──► keytide run ──► <prefix>.<view>.v1 ──► Kafka's console consumer ──► test
//!   └────── the same lines ─────► keytide replay ─────────────────────────────────────────────────────┘
//! ```
//! Tests run side by side, each with topics of its own. One that stops the broker has it to itself: see
//! [`broker::Broker`]. A test waits for what the job says of itself, under a deadline; README.md beside this says how
//! the suite is run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
#[path = "../crash/mod.rs"]
mod crash;
mod defects;
mod formats;
mod gaps;
#[allow(dead_code, unused_imports, reason = "the suite needs part of what the other tests need")]
#[path = "../harness/mod.rs"]
mod harness;
mod ledger;
mod live;
mod mistakes;
mod outages;
mod producer;
mod proxy;
mod secrets;
mod topics;
