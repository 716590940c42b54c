//! The outside of the data: decoders, file and Kafka sources, tables, geo databases.

#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod decode;
pub mod file;
mod framing;
pub mod geo;
pub mod ingest;
pub mod kafka;
pub mod live;
pub mod look;
mod networks;
mod sight;
pub mod sink;
pub mod tables;
mod time;
