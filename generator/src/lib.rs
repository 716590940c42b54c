//! A made-up gateway's access log, with the tables and geo databases that belong to it: `keytide generate`, the
//! traffic of `keytide demo`, and the input of tests and benchmarks.
//!
//! ```text
//! args ──► world/  settings    every number, with its default
//!                  population  customers, keys, routes, networks       ──► tables/*.csv, geo/*.mmdb
//!                  habit       a lively world's: networks, rhythms, timetables
//!                  rhythm, faults
//!             │
//!          story/  scenario    the catalogue of leaks and look-alikes
//!                  episodes    which of them a run has                 ──► labels.jsonl
//!                  traffic     which call comes next
//!                  record      one call of one key
//!                  schedule    in which order and partition, and what goes wrong on the way
//!             │
//!          write/  format      a call as one line of a gateway's log
//!                  lines       the lines one by one
//!                  files, send ──► events*.jsonl, events*.log, or a topic
//!                  folder, configuration: what belongs to them
//! ```
//! Nothing above uses what is below it.
//!
//! A plain world has calls at an even rate and nothing else: it serves measurements. The others are lively:
//! [`Scenario`] says what happens in them, and `labels.jsonl` who did it and when.
//!
//! The same arguments give the same bytes on every machine: each stage has its own stream of one seeded
//! generator, weights are integers, time zones are part of the program, and powers, logarithms and exponentials
//! come from a portable library, not from the system's. `generated.json` says what is in the files, so that what
//! a job makes of them can be compared. A topic gets the same lines, partition by partition, as so many files do;
//! with `--start now` event times are the clock's, and nothing else.
//!
//! Addresses are of the benchmark and documentation ranges 198.18.0.0/15 and 2001:db8::/32, AS numbers private,
//! keys and customers invented.
//!
//! Limits: 1,000,000 keys, 10,000 routes, 40 countries, 1,024 partitions, a span of 366 days, 1,000 leaks and as
//! many look-alikes, 10,000,000 lines a second. Memory depends on keys, not on calls or the span, but for late calls:
//! those of an hour are held, 100 bytes each.

mod args;
mod draw;
mod story;
mod world;
mod write;

pub use self::args::GenerateArgs;
pub use self::story::World;
pub use self::world::settings::{GatewayFormat, Leak, Scenario, WorldSettings};
pub use self::write::configuration::Configuration;
pub use self::write::files::{generate, to_files};
pub use self::write::folder::create as create_folder;
pub use self::write::lines::{Generated, Generator, LogLine};
pub use self::write::progress::per_second;
pub use self::write::send::TopicTarget;

#[cfg(test)]
mod tests;
