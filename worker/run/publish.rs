//! The thread that publishes: collects what the workers made of a tick, and hands it to the sinks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use keytide_connectors::live::Live;
use keytide_connectors::sink::{Publisher, SinkError, TickOutput};
use keytide_dataflow::model::Tick;

/// How long the sinks are waited for at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// What the workers' ticks had in them; counters only grow.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Accepted, unique events.
    pub(crate) events: AtomicU64,
    /// Records dropped as duplicates.
    pub(crate) duplicates: AtomicU64,
    /// Late events.
    pub(crate) late: AtomicU64,
    /// Ticks that were handed to the sinks.
    pub(crate) ticks: AtomicU64,
}

/// Told of each tick before it is published.
pub(crate) type Tap = Box<dyn FnMut(Tick, &[TickOutput]) + Send>;

/// Publishes until the workers are gone.
///
/// # Errors
/// If the sinks can't go on.
pub(super) fn publish(
    publisher: &mut Publisher,
    results: &Receiver<TickOutput>,
    workers: usize,
    live: &Live,
    counted: &Counted,
    mut tap: Option<Tap>,
) -> Result<(), SinkError> {
    let mut waiting: BTreeMap<Tick, Vec<TickOutput>> = BTreeMap::new();
    for output in results {
        let tick = output.tick;
        let of_tick = waiting.entry(tick).or_default();
        of_tick.push(output);
        if of_tick.len() < workers {
            continue;
        }
        let outputs = waiting.remove(&tick).unwrap_or_default();
        for output in &outputs {
            counted.events.fetch_add(output.counts.events, Ordering::Relaxed);
            counted.duplicates.fetch_add(output.counts.duplicates, Ordering::Relaxed);
            counted.late.fetch_add(output.counts.late, Ordering::Relaxed);
        }
        if let Some(tap) = &mut tap {
            tap(tick, &outputs);
        }
        publisher.publish(tick, outputs, &live.partitions())?;
        live.published(tick);
        counted.ticks.fetch_add(1, Ordering::Relaxed);
    }
    publisher.flush(FLUSH)
}
