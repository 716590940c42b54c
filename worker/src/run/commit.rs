//! Commits the ticks of a live job to its ledger, and compares those that are made again with what was committed.
//!
//! The ledger has a thread of its own and one batch of ticks at a time. Those that are published meanwhile are the next
//! batch. Their rows are in a second buffer.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keytide_connectors::fail_point::fail_point;
use keytide_connectors::kafka::ErrorClass;
use keytide_connectors::ledger::{Committed, KeptRows, Ledger, LedgerError, MadeBy, TickRecord};
use keytide_connectors::live::{Cut, Live, TICKS_PUBLISHED};
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::{Promise, Publisher, SinkError};
use keytide_connectors::store::{CheckpointId, Store, StoreError};
use keytide_dataflow::model::Tick;

use super::checkpoint::CheckpointStats;
use super::patience::Patience;

/// How long to wait before inputs that can't be stored are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The bytes of rows that wait for the ledger, from which the next tick isn't published.
const KEPT_BYTES: usize = 32 << 20;
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
    /// Returns whether another process of the job took over.
    pub(super) fn is_superseded(&self) -> bool {
        matches!(self, Self::Ledger(error) if error.is_superseded())
    }

    /// Returns the class of the error.
    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::Sink(error) => error.class(),
            Self::Ledger(error) => error.class(),
            Self::Store(_) => ErrorClass::Transient,
            Self::Diverged { .. } => ErrorClass::Fatal,
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

/// Ticks that are committed together, and their rows if the ledger sends them.
#[derive(Default)]
pub(super) struct TickBatch {
    ticks: Vec<TickRecord>,
    rows: KeptRows,
    outcome: Committed,
}

/// Commits the ticks of a job.
pub(super) struct Committer {
    /// The way to the ledger's thread, as long as there is one.
    batches: Option<Sender<TickBatch>>,
    thread: Option<JoinHandle<()>>,
    /// True while the ledger has a batch.
    is_busy: bool,
    /// The memory of the rows of the batch before.
    spare: KeptRows,
    store: Arc<Store>,
    made_by: MadeBy,
    /// The generation and the nonce of this life of the job.
    life: (u64, u64),
    /// True if the ledger sends the rows of topics.
    pub(super) is_transactional: bool,
    stats: Arc<LedgerStats>,
    /// Ticks that are published and not committed, without those of the batch.
    waiting: Vec<TickRecord>,
    /// True once a replayed tick turned out otherwise.
    has_warned: bool,
}

impl Drop for Committer {
    /// Waits for the ledger's thread. It gives up in time, see `patience.rs`.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Committer {
    /// Makes the committer of a ledger that is claimed, of a job that makes `to_replay` ticks again. `done` gets the batches
    /// that are committed, on the ledger's thread.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(super) fn start(
        (ledger, patience): (Ledger, Arc<Patience>),
        store: Arc<Store>,
        made_by: MadeBy,
        promise: Promise,
        to_replay: u64,
        (stats, checkpoints): (&Arc<LedgerStats>, &Arc<CheckpointStats>),
        done: impl Fn(Result<TickBatch, LedgerError>) + Send + 'static,
    ) -> io::Result<Self> {
        let claim = ledger.claimed().expect("a ledger is claimed before the first tick");
        let life = (claim.generation, claim.nonce);
        stats.to_replay.store(to_replay, Ordering::Relaxed);
        stats.generation.store(claim.generation, Ordering::Relaxed);
        let (stats, checkpoints) = (Arc::clone(stats), Arc::clone(checkpoints));
        let (batches, received) = mpsc::channel();
        let thread = LedgerThread { ledger, patience, stats: Arc::clone(&stats), checkpoints, forgotten: 0 };
        let thread =
            thread::Builder::new().name("ledger".to_owned()).spawn(move || thread.run(&received, done))?;
        Ok(Self {
            batches: Some(batches),
            thread: Some(thread),
            is_busy: false,
            spare: KeptRows::default(),
            store,
            made_by,
            life,
            is_transactional: promise == Promise::Transactions,
            stats,
            waiting: Vec::new(),
            has_warned: false,
        })
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
        (record.generation, record.nonce) = self.life;
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

    /// Returns how long to wait for the next event; `None` if nothing else can happen before it.
    pub(super) fn wait(&self) -> Option<Duration> {
        (!self.is_busy && !self.waiting.is_empty()).then_some(ACKNOWLEDGED_AFTER)
    }

    /// Returns whether so many ticks or bytes wait for the ledger that the next tick has to wait, too.
    pub(super) fn is_full(&self, publisher: &Publisher) -> bool {
        let bytes = publisher.kept().map_or(0, KeptRows::bytes);
        self.is_busy
            && self.is_transactional
            && (self.waiting.len() as u64 >= TICKS_PUBLISHED || bytes >= KEPT_BYTES)
    }

    /// Returns whether the ledger has a batch.
    pub(super) fn is_committing(&self) -> bool {
        self.is_busy
    }

    /// Gives the ledger the ticks that the sinks have, unless it is busy. A ledger that sends rows itself gets all.
    pub(super) fn commit(&mut self, publisher: &mut Publisher) {
        if self.is_busy {
            return;
        }
        let published = if self.is_transactional { Tick::MAX } else { publisher.published() };
        let ready = self.waiting.partition_point(|record| record.tick <= published);
        if ready == 0 {
            return;
        }
        let batch = TickBatch {
            ticks: self.waiting.drain(..ready).collect(),
            rows: publisher.take_kept(mem::take(&mut self.spare)),
            outcome: Committed::default(),
        };
        if let Some(batches) = &self.batches {
            // A thread that ended has sent its error.
            self.is_busy = batches.send(batch).is_ok();
        }
    }

    /// Takes a batch that is committed, and returns its ticks.
    pub(super) fn committed(&mut self, publisher: &mut Publisher, batch: TickBatch) -> Vec<Tick> {
        let TickBatch { ticks, mut rows, outcome } = batch;
        self.is_busy = false;
        if let Some(last) = ticks.last() {
            publisher.committed(last.tick, &rows, outcome.rejected);
        }
        rows.clear();
        self.spare = rows;
        ticks.into_iter().map(|record| record.tick).collect()
    }
}

/// The ledger, on the thread that alone uses it.
struct LedgerThread {
    ledger: Ledger,
    patience: Arc<Patience>,
    stats: Arc<LedgerStats>,
    checkpoints: Arc<CheckpointStats>,
    /// The number of the first tick that the ledger wasn't told to forget.
    forgotten: u64,
}

impl LedgerThread {
    /// Commits until no more batches can come, or one can't be committed.
    fn run(mut self, batches: &Receiver<TickBatch>, done: impl Fn(Result<TickBatch, LedgerError>)) {
        for batch in batches {
            let outcome = self.commit(batch);
            let is_over = outcome.is_err();
            done(outcome);
            if is_over {
                return;
            }
            self.forget();
        }
    }

    /// Commits a batch, and notes how long that took.
    ///
    /// # Errors
    /// If another life of the job took over, if rows are refused for good, or if the job has to end during an outage.
    fn commit(&mut self, mut batch: TickBatch) -> Result<TickBatch, LedgerError> {
        let started = Instant::now();
        self.patience.begin();
        fail_point("commit-before");
        batch.outcome = self.ledger.commit(&batch.rows, &batch.ticks)?;
        fail_point("commit-after");
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let stats = &self.stats;
        if let Some(last) = batch.ticks.last() {
            stats.number.store(last.number, Ordering::Relaxed);
        }
        stats.commits.fetch_add(1, Ordering::Relaxed);
        stats.repeated.fetch_add(u64::from(batch.outcome.attempts.saturating_sub(1)), Ordering::Relaxed);
        stats.commit_us.fetch_add(took, Ordering::Relaxed);
        Ok(batch)
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
