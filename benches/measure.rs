//! Wall time, time on the CPU, medians.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// The unit of times in `/proc/PID/stat` (`USER_HZ`): 100 a second wherever Linux runs.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// What some work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system.
    pub(crate) cpu: Duration,
}

/// What this thread's work takes, to the nanosecond.
pub(crate) fn thread<R>(work: impl FnOnce() -> anyhow::Result<R>) -> anyhow::Result<(R, Cost)> {
    measure(thread_cpu, work)
}

/// What the processes take that `work` starts and waits for, to 10 ms.
pub(crate) fn children<R>(work: impl FnOnce() -> anyhow::Result<R>) -> anyhow::Result<(R, Cost)> {
    measure(children_cpu, work)
}

fn measure<R>(
    cpu: fn() -> anyhow::Result<Duration>,
    work: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<(R, Cost)> {
    let (cpu_before, start) = (cpu()?, Instant::now());
    let result = work()?;
    Ok((result, Cost { wall: start.elapsed(), cpu: cpu()? - cpu_before }))
}

/// First field: nanoseconds on a CPU.
fn thread_cpu() -> anyhow::Result<Duration> {
    let text = proc("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().context("an empty schedstat")?;
    let cpu = Duration::from_nanos(nanos.parse()?);
    ensure!(!cpu.is_zero(), "the kernel doesn't account for threads (CONFIG_SCHED_INFO)");
    Ok(cpu)
}

/// `cutime` and `cstime`, the 14th and 15th field after the name in parentheses.
fn children_cpu() -> anyhow::Result<Duration> {
    let text = proc("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").context("a stat without a name")?;
    let mut ticks = 0;
    for field in fields.split(' ').skip(13).take(2) {
        ticks += field.parse::<u32>()?;
    }
    Ok(CLOCK_TICK * ticks)
}

fn proc(path: &str) -> anyhow::Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(1 << 12).read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    read().with_context(|| format!("can't read {path}: CPU time is measured on Linux only"))
}

/// The middle one; of an even number the mean of the middle two.
///
/// # Panics
/// If there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

/// Millions a second, by wall time.
pub(crate) fn rate(events: u64, costs: &[Cost]) -> f64 {
    events as f64 / 1e6 / median(costs.iter().map(|cost| cost.wall.as_secs_f64()))
}

/// Millions a second of one core.
pub(crate) fn core_rate(events: u64, costs: &[Cost]) -> f64 {
    events as f64 / 1e6 / median(costs.iter().map(|cost| cost.cpu.as_secs_f64()))
}

/// How many times more CPU `b` took than `a`, by rounds.
pub(crate) fn cpu_ratio(a: &[Cost], b: &[Cost]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| b.cpu.as_secs_f64() / a.cpu.as_secs_f64()))
}

/// How many times longer `b` took than `a`, by rounds.
pub(crate) fn wall_ratio(a: &[Cost], b: &[Cost]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| b.wall.as_secs_f64() / a.wall.as_secs_f64()))
}
