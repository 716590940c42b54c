//! The publisher's thread: collects the workers' output of each tick, hands it to the sinks, and notifies of incidents.
//!
//! ```text
//! workers ── TickOutput ──► publisher ── rows + TickRecord ──► ledger (commit.rs)
//!                               ▲                                 │ committed
//!                               └─────────────────────────────────┘
//! ```
//! With a ledger the rows of ticks are encoded while those before them are sent and committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use keytide_connectors::fail_point::fail_point;
use keytide_connectors::ledger::LedgerError;
use keytide_connectors::live::Live;
use keytide_connectors::sink::{FilesMemory, Publisher, TickFacts, TickOutput};
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Admitted, AnsweredCalls, Counts, Notice};

use super::api::TickFeed;
use super::checkpoint::{FollowerParts, Piece, Pieces, ResultMemory};
use super::commit::{Committer, PublishError, TickBatch};
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
    /// Observations of odd keys for which the detector had no room.
    pub detector_deferred: AtomicU64,
    /// Calls that nobody was billed for, because their key had no subscription.
    pub unbilled_calls: AtomicU64,
    /// Calls by the classes of [`AnsweredCalls`].
    pub calls: [AtomicU64; AnsweredCalls::CLASSES.len()],
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
            self.detector_deferred.fetch_add(output.counts.detector_deferred, Ordering::Relaxed);
            self.unbilled_calls.fetch_add(output.counts.unbilled_calls, Ordering::Relaxed);
            for (counter, calls) in self.calls.iter().zip(output.counts.calls.0) {
                counter.fetch_add(calls, Ordering::Relaxed);
            }
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

pub(super) enum PublishEvent {
    Output(Box<TickOutput>),
    /// A follower has written its part of a checkpoint, of which the leader has to hear.
    Parts(FollowerParts),
    /// The ledger is done with its batch.
    Committed(Result<TickBatch, LedgerError>),
    /// The last worker is gone.
    Ended,
}

/// The way of the workers' results to the publisher, or to the thread that sends them there. It learns when the last
/// worker is gone.
pub(super) struct Results(Sender<PublishEvent>);

impl Results {
    pub(super) fn new(events: Sender<PublishEvent>) -> Self {
        Self(events)
    }

    pub(super) fn send(&self, output: TickOutput) {
        // The publisher is gone if the sinks failed, which it has reported.
        let _ = self.0.send(PublishEvent::Output(Box::new(output)));
    }

    /// Hands over what a follower has written of a checkpoint.
    pub(super) fn parts(&self, parts: FollowerParts) {
        let _ = self.0.send(PublishEvent::Parts(parts));
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = self.0.send(PublishEvent::Ended);
    }
}

/// The places where results go.
pub(super) struct Outlets<'a> {
    pub(super) publisher: &'a mut Publisher,
    pub(super) notifier: &'a mut Notifier,
    /// The way to what requests are answered from, if the job has `[api]`.
    pub(super) requests: Option<&'a mut TickFeed>,
    pub(super) pieces: &'a Pieces,
    /// The memories of files in checkpoints that count.
    pub(super) counted: &'a Receiver<FilesMemory>,
    /// Commits ticks, if the job has a ledger.
    pub(super) committer: Option<&'a mut Committer>,
}

impl Outlets<'_> {
    /// Gives the ledger what is published, unless it has a batch.
    fn commit(&mut self) {
        if let Some(committer) = &mut self.committer {
            committer.commit(self.publisher);
        }
    }

    /// Lets the others go on with the ticks of a batch that is committed.
    fn committed(&mut self, batch: Result<TickBatch, LedgerError>, live: &Live) -> Result<(), PublishError> {
        let Some(committer) = &mut self.committer else { return Ok(()) };
        let ticks = committer.committed(self.publisher, batch?);
        if let Some(&last) = ticks.last() {
            self.notifier.published(last, false);
            if let Some(requests) = &mut self.requests {
                requests.published(last);
            }
            self.pieces.send(Piece::Committed(last));
        }
        if committer.is_transactional {
            ticks.into_iter().for_each(|tick| live.published(tick));
        }
        Ok(())
    }

    /// Returns whether the next tick has to wait for the ledger.
    fn is_full(&self) -> bool {
        self.committer.as_ref().is_some_and(|committer| committer.is_full(self.publisher))
    }

    /// Returns how long to wait for the next event; `None` if nothing else can happen before it.
    fn wait(&self) -> Option<Duration> {
        self.committer.as_ref().and_then(|committer| committer.wait())
    }

    /// Returns whether ticks aren't committed that were published.
    fn is_committing(&self) -> bool {
        self.committer.as_ref().is_some_and(|committer| committer.is_committing())
    }
}

/// Those that get each tick beside the outlets.
struct TickWatch<'a> {
    live: &'a Live,
    counters: &'a ResultCounters,
    watchers: Watchers,
    minute: FirstMinute,
}

/// Publishes until the workers are gone.
///
/// A tick is published when every worker has handed over its output, so ticks come in order. With a ledger, ticks that
/// are published go to it together as soon as it has committed those before.
///
/// # Errors
/// If the sinks or the ledger can't go on.
pub(super) fn publish(
    mut outlets: Outlets<'_>,
    events: &Receiver<PublishEvent>,
    workers: usize,
    live: &Live,
    counters: &ResultCounters,
    watchers: Watchers,
) -> Result<(), PublishError> {
    let mut watch = TickWatch { live, counters, watchers, minute: FirstMinute::default() };
    let mut waiting: BTreeMap<Tick, Vec<TickOutput>> = BTreeMap::new();
    let mut has_ended = false;
    loop {
        outlets.commit();
        let is_full = outlets.is_full();
        if !is_full && let Some(entry) = waiting.first_entry().filter(|entry| entry.get().len() == workers) {
            let (tick, outputs) = entry.remove_entry();
            watch.publish(&mut outlets, tick, outputs)?;
            continue;
        }
        if has_ended && !is_full {
            break;
        }
        match next_event(events, outlets.wait()) {
            Some(PublishEvent::Output(output)) => waiting.entry(output.tick).or_default().push(*output),
            Some(PublishEvent::Committed(batch)) => outlets.committed(batch, live)?,
            Some(PublishEvent::Ended) => has_ended = true,
            Some(PublishEvent::Parts(parts)) => outlets.pieces.send(Piece::Parts(parts)),
            None => {}
        }
    }
    let flushed = outlets.publisher.flush(FLUSH);
    outlets.commit();
    while outlets.is_committing()
        && let Some(PublishEvent::Committed(batch)) = next_event(events, None)
    {
        outlets.committed(batch, live)?;
        outlets.commit();
    }
    if outlets.committer.is_none() {
        outlets.notifier.published(outlets.publisher.published(), false);
        if let Some(requests) = &mut outlets.requests {
            requests.published(outlets.publisher.published());
        }
    }
    Ok(flushed?)
}

/// Waits for an event, for ever or as long as that. Returns `None` if none comes.
fn next_event(events: &Receiver<PublishEvent>, wait: Option<Duration>) -> Option<PublishEvent> {
    match wait {
        None => events.recv().ok(),
        Some(wait) => events.recv_timeout(wait).ok(),
    }
}

impl TickWatch<'_> {
    /// Publishes a tick:
    /// 1. count it, and give it to the watchers;
    /// 2. publish it, asking the policy for actions, and give the notices to the watchers;
    /// 3. keep the notices, give a checkpoint its part, and notify of the ticks that the sinks have acknowledged, if
    ///    there is no ledger;
    /// 4. let the next tick close, and warn in the first minute.
    fn publish(
        &mut self,
        outlets: &mut Outlets<'_>,
        tick: Tick,
        mut outputs: Vec<TickOutput>,
    ) -> Result<(), PublishError> {
        let Self { live, counters, watchers: Watchers { subscriber, top }, minute } = self;
        let Outlets { publisher, notifier, requests, pieces, counted, committer } = outlets;
        // STEP 1
        counters.add(&outputs);
        if let Some(subscriber) = subscriber {
            subscriber(SubscriberEvent::Results(tick, &outputs));
        }
        if let Some(top) = top {
            publisher.define(&mut outputs);
            top.take(&outputs, publisher.names());
        }
        if let Some(requests) = requests {
            requests.keep(tick, &outputs);
        }
        let checkpoint = outputs.iter().any(|output| output.checkpoint);
        let cut = committer.as_ref().and_then(|_| live.take_cut(tick));
        let is_replay = cut.as_ref().is_some_and(|cut| cut.earlier.is_some());
        if let Some((committer, cut)) = committer.as_ref().zip(cut.as_ref()) {
            committer.begin(publisher, cut);
        }
        // STEP 2
        let mut decide = |facts: TickFacts<'_>| notifier.decide(tick, facts);
        fail_point("rows-before");
        let alerts = publisher.publish(tick, outputs, &live.partitions(), &mut decide)?;
        fail_point("rows-after");
        if let Some(requests) = requests {
            requests.keep_rows(publisher.take_placed());
        }
        let notices = &alerts.incidents;
        if let Some(subscriber) = subscriber.as_mut().filter(|_| !notices.is_empty()) {
            subscriber(SubscriberEvent::Notices(notices));
        }
        if let Some(top) = top.as_ref().filter(|_| !notices.is_empty()) {
            top.notices(notices);
        }
        // STEP 3
        notifier.keep(tick, alerts);
        if checkpoint {
            let (alerts, files) = (Box::new(notifier.memory()), publisher.files_memory()?);
            let shelf = requests.as_ref().map(|requests| requests.shelf());
            pieces.send(Piece::Results { tick, memory: ResultMemory { alerts, files, shelf } });
        }
        for memory in counted.try_iter() {
            publisher.files_stored(&memory)?;
            fail_point("counted-after");
        }
        match committer.as_mut().zip(cut) {
            None => {
                notifier.published(publisher.published(), false);
                if let Some(requests) = requests {
                    requests.published(publisher.published());
                }
            }
            Some((committer, cut)) => committer.published(publisher, cut, live)?,
        }
        if is_replay {
            fail_point("replay-after");
            notifier.published(tick, true);
            if let Some(requests) = requests {
                requests.published(tick);
            }
        }
        // STEP 4
        if is_replay || !committer.as_ref().is_some_and(|committer| committer.is_transactional) {
            live.published(tick);
        }
        for warning in minute.tick(tick, || RecordCounts::so_far(&live.counters)) {
            tracing::warn!("{warning}");
        }
        counters.ticks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
