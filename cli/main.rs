//! The program `keytide`: a command line around the job.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod actions;
mod backtest;
mod check;
mod clock;
mod command;
#[cfg(feature = "demo")]
mod demo;
mod exit;
#[cfg(feature = "generate")]
mod generate;
mod incident;
mod inspect;
mod job;
mod key_id;
mod log;
mod look;
mod overview;
#[cfg(feature = "pages")]
mod pages;
mod progress;
mod replay;
mod report;
mod run;
mod signals;
#[cfg(any(feature = "demo", feature = "top"))]
mod terminal;
#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "only the demo shows some of them"))]
mod text;
#[cfg(feature = "top")]
mod top;
mod version;
mod views;

use std::process::ExitCode;

use keytide_worker::exit::classify;

/// Batches of events and rows pass from thread to thread, which mimalloc serves faster than the system's allocator
/// (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit::on_panic();
    command::run_typed().unwrap_or_else(|error| {
        exit::report(&error);
        classify(&error).into()
    })
}
