//! The publisher's thread: collects the workers' output of each tick, hands it to the sinks, and notifies of incidents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use keytide_connectors::fail_point::fail_point;
use keytide_connectors::live::Live;
use keytide_connectors::sink::{FilesMemory, Publisher, TickOutput};
use keytide_dataflow::Notice;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Admitted, Counts, Transition};

use super::checkpoint::{Piece, Pieces};
use super::commit::{Committer, PublishError};
use super::first::FirstMinute;
use super::notify::Notifier;
use super::patience::FLUSH;
use super::top::LiveTop;
use crate::records::RecordCounts;

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
    /// The memories of files in checkpoints that count.
    pub(super) counted: &'a Receiver<FilesMemory>,
    /// Commits ticks, if the job has a ledger.
    pub(super) committer: Option<&'a mut Committer>,
}

impl Outlets<'_> {
    /// Commits what is published, and lets the others go on with it.
    fn commit(&mut self, live: &Live) -> Result<(), PublishError> {
        let Some(committer) = &mut self.committer else { return Ok(()) };
        let ticks = committer.commit(self.publisher)?;
        if let Some(&last) = ticks.last() {
            self.notifier.published(last);
            self.pieces.send(Piece::Committed(last));
        }
        if committer.is_transactional {
            ticks.into_iter().for_each(|tick| live.published(tick));
        }
        Ok(())
    }
}

/// Publishes until the workers are gone.
///
/// A tick is published when every worker has handed over its output, so ticks come in order:
/// 1. count it, and give it to the watchers;
/// 2. publish it, asking the policy for actions, and give the notices to the watchers;
/// 3. keep the notices, give a checkpoint its part, and notify of the ticks that the sinks have acknowledged; with a
///    ledger, of those that are committed, which is done when no more results are there;
/// 4. let the next tick close, and warn in the first minute.
///
/// # Errors
/// If the sinks or the ledger can't go on.
pub(super) fn publish(
    mut outlets: Outlets<'_>,
    results: &Receiver<TickOutput>,
    workers: usize,
    live: &Live,
    counters: &ResultCounters,
    watchers: Watchers,
) -> Result<(), PublishError> {
    let Watchers { mut subscriber, top } = watchers;
    let mut waiting: BTreeMap<Tick, Vec<TickOutput>> = BTreeMap::new();
    let mut minute = FirstMinute::default();
    loop {
        let wait = outlets.committer.as_ref().and_then(|committer| committer.wait());
        let output = match wait {
            None => results.recv().ok(),
            Some(wait) => match results.recv_timeout(wait) {
                Ok(output) => Some(output),
                Err(RecvTimeoutError::Timeout) => {
                    outlets.commit(live)?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        let Some(output) = output else { break };
        let Outlets { publisher, notifier, pieces, counted, committer } = &mut outlets;
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
        let cut = committer.as_ref().and_then(|_| live.take_cut(tick));
        let is_replay = cut.as_ref().is_some_and(|cut| cut.earlier.is_some());
        if let Some((committer, cut)) = committer.as_ref().zip(cut.as_ref()) {
            committer.begin(publisher, cut);
        }
        // STEP 2
        let mut decide = |transitions: &[Transition]| notifier.decide(transitions);
        fail_point("rows-before");
        let notices = publisher.publish(tick, outputs, &live.partitions(), &mut decide)?;
        fail_point("rows-after");
        if let Some(subscriber) = subscriber.as_mut().filter(|_| !notices.is_empty()) {
            subscriber(SubscriberEvent::Notices(&notices));
        }
        if let Some(top) = top.as_ref().filter(|_| !notices.is_empty()) {
            top.notices(&notices);
        }
        // STEP 3
        notifier.keep(tick, notices);
        if checkpoint {
            let (policy, files) = (notifier.memory().clone(), publisher.files_memory()?);
            pieces.send(Piece::Results { tick, policy, files });
        }
        for memory in counted.try_iter() {
            publisher.files_stored(&memory)?;
            fail_point("counted-after");
        }
        match committer.as_mut().zip(cut) {
            None => notifier.published(publisher.published()),
            Some((committer, cut)) => committer.published(publisher, cut, live)?,
        }
        if is_replay {
            fail_point("replay-after");
            notifier.published(tick);
        }
        // STEP 4
        if is_replay || !committer.as_ref().is_some_and(|committer| committer.is_transactional) {
            live.published(tick);
        }
        let is_full = committer.as_ref().is_some_and(|committer| committer.is_full(publisher));
        if is_full {
            outlets.commit(live)?;
        }
        for warning in minute.tick(tick, || RecordCounts::so_far(&live.counters)) {
            tracing::warn!("{warning}");
        }
        counters.ticks.fetch_add(1, Ordering::Relaxed);
    }
    let flushed = outlets.publisher.flush(FLUSH);
    outlets.commit(live)?;
    if outlets.committer.is_none() {
        outlets.notifier.published(outlets.publisher.published());
    }
    Ok(flushed?)
}
