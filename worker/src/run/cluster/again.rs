//! Leaves a generation that was lost: the process replaces itself by a new run of its program.
//!
//! All threads, memory and sockets are gone then, so nothing of the old generation can act any more. The process keeps
//! its number, its arguments and its environment.
//!
//! **Back-off.** A generation that is lost before it published a tick may be lost for the same reason again. From the third
//! one in a row on, a process waits before it looks for the others: 1 s, 2 s, 4 s, and so on up to 30 s. The process that
//! led it waits [`LET_OTHERS_LEAD`] longer. Two others may not reach each other: with one of them as the leader the next
//! generation runs, without the other. A defect of this process, which is a panic, costs a wait from the first one on. The
//! [`DEFECTS`]th in a row ends the process.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keytide_connectors::live::Live;

use super::told::{end_at_once, is_told_to_end};
use crate::exit::Exit;

/// Names the newest generation that this process lost.
const LOST: &str = "KEYTIDE_LOST_GENERATION";
/// Says how many generations in a row were lost before they published a tick.
const VAIN: &str = "KEYTIDE_VAIN_GENERATIONS";
/// Says that this process led the last of those.
const LED: &str = "KEYTIDE_LED_IN_VAIN";
/// Says how many generations in a row this process lost by a defect, before they published a tick.
const DEFECTIVE: &str = "KEYTIDE_DEFECTIVE_GENERATIONS";
/// So many generations in vain cost no wait.
const QUICK: u32 = 2;
/// So many defects in a row end the process.
const DEFECTS: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How much longer a process waits that led a generation in vain.
const LET_OTHERS_LEAD: Duration = Duration::from_secs(1);

/// The generation that runs in this process.
struct RunningGeneration {
    generation: u64,
    /// True if this process leads it.
    leads: bool,
    /// True once links may end without a loss.
    is_ending: bool,
    /// The job's input, once there is one.
    live: Option<Arc<Live>>,
}

/// The generation that runs in this process, which timely's threads of links end with.
static RUNNING: Mutex<Option<RunningGeneration>> = Mutex::new(None);
/// Returns the newest generation that an earlier run of this process lost; 0 if there is none.
pub(super) fn lost() -> u64 {
    number(LOST)
}

fn number<T: std::str::FromStr + Default>(name: &str) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Returns how long to wait before this process looks for the others.
pub(super) fn wait() -> Duration {
    let longer = if number::<u32>(LED) > 0 { LET_OTHERS_LEAD } else { Duration::ZERO };
    wait_after(number(VAIN), number(DEFECTIVE)) + longer
}

fn wait_after(vain: u32, defects: u32) -> Duration {
    match vain.saturating_sub(QUICK).max(defects) {
        0 => Duration::ZERO,
        waits => Duration::from_secs(1 << (waits - 1).min(5)).min(LONGEST_WAIT),
    }
}

/// Notes the generation that runs from now on, and whether this process leads it.
pub(super) fn runs(generation: u64, leads: bool) {
    *running() = Some(RunningGeneration { generation, leads, is_ending: false, live: None });
}

/// Notes that links may end from now on.
pub(super) fn ends() {
    if let Some(running) = running().as_mut() {
        running.is_ending = true;
    }
}

/// Notes the job's input, which says whether ticks are published.
pub(super) fn reads(live: &Arc<Live>) {
    if let Some(running) = running().as_mut() {
        running.live = Some(Arc::clone(live));
    }
}

fn running() -> std::sync::MutexGuard<'static, Option<RunningGeneration>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process, as the job ended while it waited.
pub(super) fn end() -> ! {
    tracing::info!("the job was told to end, and so this process ends that waited");
    std::process::exit(Exit::Done as i32)
}

/// Begins this process anew, which doesn't ask for generations up to `lost`. One that was told to end ends.
pub(super) fn begin_anew(lost: u64, reason: &str) -> ! {
    let vain = if has_progress() { 0 } else { number::<u32>(VAIN).saturating_add(1) };
    run_again(lost, vain, 0, reason)
}

/// Returns whether this run of the process published a tick that wasn't there before.
fn has_progress() -> bool {
    let live = running().as_ref().and_then(|running| running.live.clone());
    // No lock of the input is taken, since the thread that panics may hold it.
    live.is_some_and(|live| live.counters.has_progress.load(Ordering::Relaxed))
}

/// Begins anew after a panic, if this process takes part in a generation. The fifth in a row is only logged.
pub fn leave_after_defect() {
    let Some(generation) = running().as_ref().map(|running| running.generation) else { return };
    let defects = if has_progress() { 1 } else { number::<u32>(DEFECTIVE).saturating_add(1) };
    if defects < DEFECTS {
        run_again(generation, 0, defects, "a defect ended this process's part of it");
    }
    tracing::error!(generation, "{defects} generations in a row were lost by a defect: the process ends");
}

/// Replaces this process by a new run of its program. `vain` generations in a row were lost without a tick, of which this
/// process lost the last `defects` by a defect.
fn run_again(lost: u64, vain: u32, defects: u32, reason: &str) -> ! {
    end_at_once();
    // A signal until here is known, and one from here on ends this process.
    if is_told_to_end() {
        tracing::info!(
            generation = lost,
            "ends, and others go on from the last tick that was published: {reason}"
        );
        std::process::exit(Exit::Done as i32);
    }
    tracing::warn!(generation = lost, "begins anew: {reason}");
    if let Err(error) = keytide_connectors::kafka::close_on_exec() {
        tracing::warn!("open files stay open in the new run of the program: {error}");
    }
    let mut arguments = std::env::args_os();
    // The program that runs, even if another one has its name by now.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let led = vain > 0 && running().as_ref().is_some_and(|running| running.leads);
    let counts = [(VAIN, vain), (DEFECTIVE, defects), (LED, u32::from(led))];
    let counts = counts.map(|(name, count)| (name, count.to_string()));
    let error = command.args(arguments).env(LOST, lost.to_string()).envs(counts).exec();
    tracing::error!("the process can't begin anew: {error}");
    std::process::exit(Exit::Transient as i32)
}

/// Begins anew if a panic is one of timely's threads of links, which end so when another process is gone. The hook for
/// panics calls it first, and [`leave_after_defect`] after it has reported any other panic.
pub fn leave_on_panic() {
    let thread = std::thread::current();
    let is_link = |name: &str| name.starts_with("timely:send-") || name.starts_with("timely:recv-");
    if !thread.name().is_some_and(is_link) {
        return;
    }
    let found = running().as_ref().map(|running| (running.generation, running.is_ending));
    match found {
        Some((generation, false)) => {
            begin_anew(generation, "a process of this generation is gone: its link for data is closed")
        }
        Some((_, true)) => {
            tracing::warn!("a process of the job went away before its end");
            std::process::exit(Exit::Transient as i32)
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_without_a_tick_cost_a_wait_from_the_third_on_and_defects_from_the_first_on() {
        let waits: Vec<u64> = (0..10).map(|vain| wait_after(vain, 0).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 30, 30]);
        let waits: Vec<u64> = (0..DEFECTS).map(|defects| wait_after(0, defects).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8]);
        assert_eq!(wait_after(u32::MAX, 1), LONGEST_WAIT);
    }
}
