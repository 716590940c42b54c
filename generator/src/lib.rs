//! Generates a gateway's access log, with the tables and geo databases that belong to it. It serves `keytide generate`,
//! `keytide demo`, tests and benchmarks.
//!
//! ```text
//! args ──► world/  settings    every number, with its default
//!                  network     providers and their blocks              ──► geo/*.mmdb
//!                  population  customers, keys, routes                 ──► tables/*.csv
//!                  habit       of a lively world: places, clients, timetables
//!                  rhythm, faults
//!             │
//!          story/  scenario    the catalogue of leaks and look-alikes
//!                  episodes    which of them a run has                 ──► labels.jsonl
//!                  traffic     which call comes next
//!                  record      one call of one key
//!                  schedule    order and partitions of arrivals, disorder, delays, duplicates
//!             │
//!          write/  format      a call as one line of a gateway's log
//!                  lines       the lines one by one
//!                  files, send ──► events*.jsonl, events*.log, or a topic
//!                  folder, accounts, configuration: what belongs to them
//! ```
//! No module uses one that is listed below it.
//!
//! A plain world has calls at an even rate and nothing else, for measurements. All other worlds are lively: [`Scenario`]
//! lists what happens in them, and `labels.jsonl` names the keys and times. Their ordinary keys move as real ones do, and
//! their geo databases misplace one network in 200 by default (`--misplaced`).
//!
//! The same arguments give the same bytes on every machine. Each step has its own stream of one seeded generator, weights
//! are integers, time zones are part of the program, and powers, logarithms and exponentials come from a portable
//! library. `generated.json` counts the contents of the files, so that they can be compared with a job's results. A topic
//! gets the same lines, partition by partition, as an equal number of files. With `--start now` only the event times
//! differ.
//!
//! Addresses are of the benchmark and documentation ranges 198.18.0.0/15 and 2001:db8::/32. AS numbers are private, keys
//! and customers invented.
//!
//! Limits: 1,000,000 keys, 10,000 routes, 40 countries, 1,024 partitions, a span of 366 days, 1,000 leaks and as many
//! look-alikes, 10,000,000 lines a second. Memory depends on the number of keys, not on calls or the span. Only late
//! calls add to it: those of an hour are buffered, at 100 bytes each.

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
