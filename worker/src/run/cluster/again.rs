//! Leaves a generation that was lost: the process replaces itself by a new run of its program.
//!
//! All threads, memory and sockets are gone then, so nothing of the old generation can act any more. The process keeps
//! its number, its arguments and its environment.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::exit::Exit;

/// Names the newest generation that this process lost.
const LOST: &str = "KEYTIDE_LOST_GENERATION";

/// True once this process was told to end.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// The generation that runs in this process, which timely's threads of links end with.
static RUNNING: Mutex<Option<u64>> = Mutex::new(None);

/// Returns the newest generation that an earlier run of this process lost; 0 if there is none.
pub(super) fn lost() -> u64 {
    std::env::var(LOST).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Notes the generation that runs from now on, or that none does.
pub(super) fn runs(generation: Option<u64>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = generation;
}

/// Notes that this process was told to end. Then it doesn't begin anew.
pub(in crate::run) fn tell_to_end() {
    TOLD_TO_END.store(true, Ordering::Release);
}

pub(super) fn is_told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Acquire)
}

/// Begins this process anew, which doesn't ask for generations up to `lost`. One that was told to end ends.
pub(super) fn begin_anew(lost: u64, reason: &str) -> ! {
    if is_told_to_end() {
        tracing::info!(
            generation = lost,
            "ends, and others go on from the last tick that was published: {reason}"
        );
        std::process::exit(Exit::Done as i32);
    }
    tracing::warn!(generation = lost, "begins anew: {reason}");
    let mut arguments = std::env::args_os();
    // The program that runs, even if another one has its name by now.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).env(LOST, lost.to_string()).exec();
    tracing::error!("the process can't begin anew: {error}");
    std::process::exit(Exit::Transient as i32)
}

/// Begins anew if a panic is one of timely's threads of links, which end so when another process is gone. The hook for
/// panics calls it first.
pub fn leave_on_panic() {
    let is_link = std::thread::current().name().is_some_and(|name| name.starts_with("timely:"));
    let running = *RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(generation) = running.filter(|_| is_link) {
        begin_anew(generation, "a process of this generation is gone: its link for data is closed");
    }
}
