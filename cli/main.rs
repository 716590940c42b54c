//! `keytide`: the program around the job.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backtest;
mod check;
mod clock;
mod command;
#[cfg(feature = "demo")]
mod demo;
mod exit;
#[cfg(feature = "generate")]
mod generate;
mod log;
mod progress;
mod replay;
mod run;

use std::process::ExitCode;

use keytide_worker::exit::classify;

/// Events and rows change hands between threads in batches, which mimalloc does cheaper than the system's
/// allocator (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit::on_panic();
    command::run_typed().unwrap_or_else(|error| {
        exit::report(&error);
        classify(&error).into()
    })
}
