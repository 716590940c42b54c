//! The publisher's thread: collects the workers' output of each tick, hands it to the sinks, and notifies of incidents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use keytide_connectors::live::Live;
use keytide_connectors::sink::{Publisher, SinkError, TickOutput};
use keytide_dataflow::Notice;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Admitted, Counts, Transition};

use super::checkpoint::{Piece, Pieces};
use super::first::FirstMinute;
use super::notify::Notifier;
use super::top::LiveTop;
use crate::records::RecordCounts;

/// How long the end of a job waits for the sinks.
const FLUSH: Duration = Duration::from_secs(30);

/// Kinds of overflow, in the order of [`ResultCounters::overflows`].
pub(super) const OVERFLOWS: [&str; 3] = ["key", "route", "country"];
/// Kinds of caps, in the order of [`ResultCounters::admitted`].
pub(super) const CAPS: [&str; 4] = ["key", "route", "key_route", "key_country"];

/// Sums over the workers' output. All but `admitted` only grow.
#[derive(Debug, Default)]
pub struct ResultCounters {
    pub events: AtomicU64,
    pub duplicates: AtomicU64,
    pub late: AtomicU64,
    /// Events that came too late for the detector.
    pub detector_late: AtomicU64,
    /// Events beyond the caps of `OVERFLOWS`.
    pub overflows: [AtomicU64; OVERFLOWS.len()],
    /// Values that count against the caps of `CAPS` after the last tick.
    pub admitted: [AtomicU64; CAPS.len()],
    /// Ticks that were handed to the sinks.
    pub ticks: AtomicU64,
}

impl ResultCounters {
    /// Adds the output of all workers for one tick.
    fn add(&self, outputs: &[TickOutput]) {
        let mut admitted = Admitted::default();
        for output in outputs {
            let Counts { overflow_keys, overflow_routes, overflow_countries, .. } = output.counts;
            let overflows = [overflow_keys, overflow_routes, overflow_countries];
            for (counter, count) in self.overflows.iter().zip(overflows) {
                counter.fetch_add(count, Ordering::Relaxed);
            }
            self.events.fetch_add(output.counts.events, Ordering::Relaxed);
            self.duplicates.fetch_add(output.counts.duplicates, Ordering::Relaxed);
            self.late.fetch_add(output.counts.late, Ordering::Relaxed);
            self.detector_late.fetch_add(output.counts.detector_late, Ordering::Relaxed);
            admitted += output.admitted;
        }
        // Gauges: what is admitted now, over all workers.
        let Admitted { keys, routes, key_routes, key_countries } = admitted;
        for (gauge, count) in self.admitted.iter().zip([keys, routes, key_routes, key_countries]) {
            gauge.store(count, Ordering::Relaxed);
        }
    }
}

/// What a [`Subscriber`] gets of each tick, in this order.
#[derive(Clone, Copy, Debug)]
pub enum SubscriberEvent<'a> {
    /// All workers' results, before they are published.
    Results(Tick, &'a [TickOutput]),
    /// Published rows of `incident_log` with their actions.
    Notices(&'a [Notice]),
}

/// Gets the results and notices of every tick.
pub type Subscriber = Box<dyn FnMut(SubscriberEvent<'_>) + Send>;

/// Those that watch what is published, beside the sinks.
pub(super) struct Watchers {
    pub(super) subscriber: Option<Subscriber>,
    pub(super) top: Option<LiveTop>,
}

/// The places where results go.
pub(super) struct Outlets<'a> {
    pub(super) publisher: &'a mut Publisher,
    pub(super) notifier: &'a mut Notifier,
    pub(super) pieces: &'a Pieces,
}

/// Publishes until the workers are gone.
///
/// A tick is published when every worker has handed over its output, so ticks come in order:
/// 1. count it, and give it to the watchers;
/// 2. publish it, asking the policy for actions, and give the notices to the watchers;
/// 3. keep the notices, notify of the ticks that the sinks have acknowledged, and give a checkpoint its part;
/// 4. let the next tick close, and warn in the first minute.
///
/// # Errors
/// If the sinks can't go on.
pub(super) fn publish(
    Outlets { publisher, notifier, pieces }: Outlets<'_>,
    results: &Receiver<TickOutput>,
    workers: usize,
    live: &Live,
    counters: &ResultCounters,
    watchers: Watchers,
) -> Result<(), SinkError> {
    let Watchers { mut subscriber, top } = watchers;
    let mut waiting: BTreeMap<Tick, Vec<TickOutput>> = BTreeMap::new();
    let mut minute = FirstMinute::default();
    for output in results {
        let tick = output.tick;
        let of_tick = waiting.entry(tick).or_default();
        of_tick.push(output);
        if of_tick.len() < workers {
            continue;
        }
        let mut outputs = waiting.remove(&tick).unwrap_or_default();
        // STEP 1
        counters.add(&outputs);
        if let Some(subscriber) = &mut subscriber {
            subscriber(SubscriberEvent::Results(tick, &outputs));
        }
        if let Some(top) = &top {
            publisher.define(&mut outputs);
            top.take(&outputs, publisher.names());
        }
        let checkpoint = outputs.iter().any(|output| output.checkpoint);
        // STEP 2
        let mut decide = |transitions: &[Transition]| notifier.decide(transitions);
        let notices = publisher.publish(tick, outputs, &live.partitions(), &mut decide)?;
        if let Some(subscriber) = subscriber.as_mut().filter(|_| !notices.is_empty()) {
            subscriber(SubscriberEvent::Notices(&notices));
        }
        if let Some(top) = top.as_ref().filter(|_| !notices.is_empty()) {
            top.notices(&notices);
        }
        // STEP 3
        notifier.keep(tick, notices);
        notifier.published(publisher.published());
        if checkpoint {
            pieces.send(Piece::Policy { tick, memory: notifier.memory().clone() });
        }
        pieces.send(Piece::Published(publisher.published()));
        // STEP 4
        live.published(tick);
        for warning in minute.tick(tick, || RecordCounts::so_far(&live.counters)) {
            tracing::warn!("{warning}");
        }
        counters.ticks.fetch_add(1, Ordering::Relaxed);
    }
    let flushed = publisher.flush(FLUSH);
    notifier.published(publisher.published());
    pieces.send(Piece::Published(publisher.published()));
    flushed
}
