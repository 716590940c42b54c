//! The thread that publishes: collects what the workers made of a tick, hands it to the sinks, and tells of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use keytide_connectors::live::Live;
use keytide_connectors::sink::{Publisher, SinkError, TickOutput};
use keytide_dataflow::Notice;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Admitted, Counts, Transition};

use super::first::FirstMinute;
use super::notify::Telling;
use crate::records::Records;

/// How long the sinks are waited for at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// What events can be beyond a cap of, in the order of [`Counted::overflows`].
pub(super) const OVERFLOWS: [&str; 3] = ["key", "route", "country"];
/// What has a cap, in the order of [`Counted::admitted`].
pub(super) const CAPS: [&str; 4] = ["key", "route", "key_route", "key_country"];

/// What the workers' ticks had in them; counters only grow.
#[derive(Debug, Default)]
pub struct Counted {
    pub events: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    /// Events that the detector came too late for.
    pub detector_late: AtomicU64,
    /// Events beyond the caps of `OVERFLOWS`.
    pub overflows: [AtomicU64; OVERFLOWS.len()],
    /// What counts against the caps of `CAPS` after the last tick.
    pub admitted: [AtomicU64; CAPS.len()],
    /// Ticks that were handed to the sinks.
    pub ticks: AtomicU64,
}

/// What a [`Tap`] hears of each tick, in this order.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// All workers' results, before they are published.
    Results(Tick, &'a [TickOutput]),
    /// Rows of the log of incidents and what would be done about them, as they were published.
    Notices(&'a [Notice]),
}

/// Somebody who watches a job.
pub type Tap = Box<dyn FnMut(Heard<'_>) + Send>;

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
    telling: &mut Telling,
    mut tap: Option<Tap>,
) -> Result<(), SinkError> {
    let mut waiting: BTreeMap<Tick, Vec<TickOutput>> = BTreeMap::new();
    let mut minute = FirstMinute::default();
    for output in results {
        let tick = output.tick;
        let of_tick = waiting.entry(tick).or_default();
        of_tick.push(output);
        if of_tick.len() < workers {
            continue;
        }
        let outputs = waiting.remove(&tick).unwrap_or_default();
        let mut admitted = Admitted::default();
        for output in &outputs {
            let Counts { overflow_keys, overflow_routes, overflow_countries, .. } = output.counts;
            for (counter, count) in
                counted.overflows.iter().zip([overflow_keys, overflow_routes, overflow_countries])
            {
                counter.fetch_add(count, Ordering::Relaxed);
            }
            admitted += output.admitted;
            counted.events.fetch_add(output.counts.events, Ordering::Relaxed);
            counted.duplicates.fetch_add(output.counts.duplicates, Ordering::Relaxed);
            counted.late.fetch_add(output.counts.late, Ordering::Relaxed);
            counted.detector_late.fetch_add(output.counts.detector_late, Ordering::Relaxed);
        }
        let Admitted { keys, routes, key_routes, key_countries } = admitted;
        for (gauge, held) in counted.admitted.iter().zip([keys, routes, key_routes, key_countries]) {
            gauge.store(held, Ordering::Relaxed);
        }
        if let Some(tap) = &mut tap {
            tap(Heard::Results(tick, &outputs));
        }
        let mut decide = |transitions: &[Transition]| telling.decide(transitions);
        let notices = publisher.publish(tick, outputs, &live.partitions(), &mut decide)?;
        if let Some(tap) = tap.as_mut().filter(|_| !notices.is_empty()) {
            tap(Heard::Notices(&notices));
        }
        telling.keep(tick, notices);
        telling.published(publisher.published());
        live.published(tick);
        for told in minute.tick(tick, || Records::so_far(&live.counters)) {
            tracing::warn!("{told}");
        }
        counted.ticks.fetch_add(1, Ordering::Relaxed);
    }
    let flushed = publisher.flush(FLUSH);
    telling.published(publisher.published());
    flushed
}
