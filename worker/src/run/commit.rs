//! Commits the ticks of a live job to its ledger, and compares those that are made again with what was committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keytide_connectors::fail_point::fail_point;
use keytide_connectors::ledger::{KeptRows, Ledger, LedgerError, MadeBy, TickRecord};
use keytide_connectors::live::{Cut, Live, TICKS_PUBLISHED};
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::{Promise, Publisher, SinkError};
use keytide_connectors::store::{CheckpointId, Store, StoreError};
use keytide_dataflow::model::Tick;

use super::checkpoint::CheckpointStats;
use super::patience::Patience;
use crate::exit::Exit;

/// How long to wait before inputs that can't be stored are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The bytes of rows from which ticks that wait are committed without another one.
const KEPT_BYTES: usize = 64 << 20;
/// How long results that aren't acknowledged are waited for before new ones are looked at.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(5);

/// An error that ends publishing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A tick that is made again has other rows, and nothing explains it.
    #[error(
        "tick number {number} ({tick}) gives other rows than those that were published: {found} instead of {expected} rows, or \
         others; either records or tables changed behind the job, or this is a bug. Begin anew with another folder of state and \
         another prefix of topics, and report it"
    )]
    Diverged { number: u64, tick: String, found: u64, expected: u64 },
}

impl PublishError {
    /// Returns the exit code of the error.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Sink(error) => error.class().into(),
            Self::Ledger(error) => error.class().into(),
            Self::Store(_) => Exit::Transient,
            Self::Diverged { .. } => Exit::Fatal,
        }
    }
}

/// The counts of a job's ledger, which only grow but for the last two.
#[derive(Debug, Default)]
pub struct LedgerStats {
    /// The number of the last tick that was committed.
    pub number: AtomicU64,
    /// Ticks that were made again after the start.
    pub replayed: AtomicU64,
    /// Commits, each of one or several ticks.
    pub commits: AtomicU64,
    /// Transactions that had to be repeated.
    pub repeated: AtomicU64,
    /// The time that all commits took, in microseconds.
    pub commit_us: AtomicU64,
    /// The generation of this life of the job.
    pub generation: AtomicU64,
    /// Ticks that are still to be made again.
    pub to_replay: AtomicU64,
}

/// Commits the ticks of a job.
pub(super) struct Committer {
    ledger: Ledger,
    patience: Arc<Patience>,
    store: Arc<Store>,
    made_by: MadeBy,
    /// True if the ledger sends the rows of topics.
    pub(super) is_transactional: bool,
    stats: Arc<LedgerStats>,
    checkpoints: Arc<CheckpointStats>,
    /// Ticks that are published and not committed.
    waiting: Vec<TickRecord>,
    /// True once a replayed tick turned out otherwise.
    has_warned: bool,
    /// The number of the first tick that the ledger wasn't told to forget.
    forgotten: u64,
}

impl Committer {
    /// Makes the committer of a ledger that is claimed, of a job that makes `to_replay` ticks again.
    pub(super) fn new(
        (ledger, patience): (Ledger, Arc<Patience>),
        store: Arc<Store>,
        made_by: MadeBy,
        promise: Promise,
        to_replay: u64,
        (stats, checkpoints): (&Arc<LedgerStats>, &Arc<CheckpointStats>),
    ) -> Self {
        stats.to_replay.store(to_replay, Ordering::Relaxed);
        stats.generation.store(ledger.claimed().map_or(0, |claim| claim.generation), Ordering::Relaxed);
        let (stats, checkpoints) = (Arc::clone(stats), Arc::clone(checkpoints));
        Self {
            ledger,
            patience,
            store,
            made_by,
            is_transactional: promise == Promise::Transactions,
            stats,
            checkpoints,
            waiting: Vec::new(),
            has_warned: false,
            forgotten: 0,
        }
    }

    /// Prepares the publisher for a tick, which may be one that is made again.
    pub(super) fn begin(&self, publisher: &mut Publisher, cut: &Cut) {
        let earlier = cut.earlier.as_ref();
        publisher.replay(earlier.is_some(), earlier.is_some_and(|earlier| earlier.made_by != self.made_by));
    }

    /// Takes a tick that was published. One that was made again is compared, and needs no commit. The inputs of any
    /// other are stored; an outage of the store is waited out.
    ///
    /// # Errors
    /// If a tick turned out otherwise, or if inputs can't be stored and the job is to end.
    pub(super) fn published(
        &mut self,
        publisher: &mut Publisher,
        cut: Cut,
        live: &Live,
    ) -> Result<(), PublishError> {
        let tally = publisher.tally();
        let Cut { mut record, inputs, earlier } = cut;
        (record.count, record.digest) = (tally.count, tally.digest);
        if let Some(earlier) = earlier {
            return self.compare(publisher, &record, &earlier);
        }
        let claim = self.ledger.claimed().expect("a ledger is claimed before the first tick");
        (record.generation, record.nonce) = (claim.generation, claim.nonce);
        record.made_by = self.made_by.clone();
        if !inputs.is_empty() {
            let id = CheckpointId { tick: record.tick, nonce: record.nonce };
            let blocks = inputs.into_blocks();
            fail_point("inputs-before");
            record.inputs = Some(loop {
                match self.store.write_inputs(id, &blocks) {
                    Ok(name) => break name,
                    Err(error) if live.wait_for_stop(RETRY_AFTER) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!("the job waits, since changes of tables can't be stored: {error}")
                    }
                }
            });
        }
        fail_point("inputs-after");
        self.waiting.push(record);
        Ok(())
    }

    fn compare(
        &mut self,
        publisher: &mut Publisher,
        record: &TickRecord,
        earlier: &TickRecord,
    ) -> Result<(), PublishError> {
        let of = |record: &TickRecord| (record.count, record.digest, record.watermark);
        let is_equal = of(record) == of(earlier);
        publisher.replayed(is_equal);
        self.stats.replayed.fetch_add(1, Ordering::Relaxed);
        self.stats.to_replay.fetch_sub(1, Ordering::Relaxed);
        if is_equal {
            return Ok(());
        }
        if earlier.made_by == self.made_by {
            return Err(PublishError::Diverged {
                number: earlier.number,
                tick: time(earlier.tick),
                found: record.count,
                expected: earlier.count,
            });
        }
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                program = earlier.made_by.program,
                number = earlier.number,
                "ticks since the checkpoint give other rows than those that another program or configuration published: the \
                 newest row of each key is published again, and logs stay as they are"
            );
        }
        Ok(())
    }

    /// Returns how long to wait for the next results; `None` if there is nothing to commit before them.
    pub(super) fn wait(&self) -> Option<Duration> {
        let wait = if self.is_transactional { Duration::ZERO } else { ACKNOWLEDGED_AFTER };
        (!self.waiting.is_empty()).then_some(wait)
    }

    /// Returns whether so many ticks wait that the next one can't be closed, or so many bytes that a transaction of
    /// more would take long.
    pub(super) fn is_full(&self, publisher: &Publisher) -> bool {
        let bytes = publisher.kept().map_or(0, KeptRows::bytes);
        self.waiting.len() as u64 >= TICKS_PUBLISHED || bytes >= KEPT_BYTES
    }

    /// Commits the ticks that the sinks have, and returns them. A ledger that sends rows itself commits all.
    ///
    /// # Errors
    /// If another life of the job took over, if rows are refused for good, or if the job has to end during an outage.
    pub(super) fn commit(&mut self, publisher: &mut Publisher) -> Result<Vec<Tick>, LedgerError> {
        let published = if self.is_transactional { Tick::MAX } else { publisher.published() };
        let ready = self.waiting.partition_point(|record| record.tick <= published);
        let Some(last) = ready.checked_sub(1) else { return Ok(Vec::new()) };
        let (tick, number) = (self.waiting[last].tick, self.waiting[last].number);
        let started = Instant::now();
        let none = KeptRows::default();
        let rows = publisher.kept().unwrap_or(&none);
        self.patience.begin();
        fail_point("commit-before");
        let outcome = self.ledger.commit(rows, &self.waiting[..ready])?;
        fail_point("commit-after");
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let committed = self.waiting.drain(..ready).map(|record| record.tick).collect();
        publisher.committed(tick, outcome.rejected);
        let stats = &self.stats;
        stats.number.store(number, Ordering::Relaxed);
        stats.commits.fetch_add(1, Ordering::Relaxed);
        stats.repeated.fetch_add(u64::from(outcome.attempts.saturating_sub(1)), Ordering::Relaxed);
        stats.commit_us.fetch_add(took, Ordering::Relaxed);
        self.forget();
        Ok(committed)
    }

    /// Lets the ledger forget the ticks that no start needs any more.
    fn forget(&mut self) {
        let below = self.checkpoints.oldest.load(Ordering::Relaxed);
        // A ledger in the store lists all its objects for that.
        if below <= self.forgotten {
            return;
        }
        match self.ledger.forget(below) {
            Ok(()) => self.forgotten = below,
            Err(error) => {
                tracing::warn!(
                    "old records of the ledger can't be deleted, it is tried again later: {error}"
                );
            }
        }
    }
}
