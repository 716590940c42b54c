//! The edge of the job: sources (files, standard input, Kafka), decoders, tables and geo databases. Here too are
//! the order in which records reach the workers, and the sinks (topics, files) that rows go to.

#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod cluster;
pub mod columnar;
mod decimal;
pub mod decode;
pub mod fail_point;
pub mod file;
mod framing;
pub mod geo;
pub mod ingest;
pub mod input;
pub mod kafka;
pub mod ledger;
pub mod live;
pub mod look;
pub mod settlement;
pub mod sink;
pub mod store;
pub mod tables;
mod time;
