//! The outside of the data: sources (files, standard input, Kafka), decoders, tables, geo databases, the order in which
//! records reach the workers, and the sinks that rows go to (topics, files).

#![cfg_attr(test, allow(clippy::unwrap_used))]
mod decimal;
pub mod decode;
pub mod file;
mod framing;
pub mod geo;
pub mod ingest;
pub mod input;
pub mod kafka;
pub mod live;
pub mod look;
pub mod sink;
pub mod tables;
mod time;
