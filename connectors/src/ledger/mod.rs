//! The ledger of a live job: which ticks were committed, from which records, and by which life of the job.
//!
//! ```text
//! publisher ── rows + TickRecord ──► Ledger ──┬──► Kafka   one transaction: all rows, and <prefix>.progress.v1
//!                  commit             Machine └──► Store   ledger/NUMBER, put if it is absent
//! a start ◄── History ───────────────────┘
//! ```
//! **Invariant**: a tick's record is visible if and only if all of its rows are. Ticks are numbered from 1 over all lives
//! of the job without a gap, and each is committed once. `machine.rs` says why. Readers of the topics must set
//! `isolation.level=read_committed`.
//!
//! **One life at a time.** Opening a ledger fences all earlier producers of the job. [`Ledger::claim`] then writes who
//! has it. An earlier life that wakes up finds the claim and ends. It names the younger one.
//!
//! **A commit blocks** until it is known: an outage is waited out, and rows are sent again after an abort. Only
//! `stop` makes it give up.
//!
//! A row that is larger than its topic takes would fail its whole transaction. It is left out, logged and counted; the
//! count and the digest of its tick include it, since a replay makes it again.
//!
//! **Limits**: the last 4,096 ticks are kept. A transaction of Kafka may take 60 s.

mod driver;
mod error;
mod kafka;
mod machine;
#[cfg(test)]
mod model;
mod reading;
mod record;
mod rows;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keytide_config::KafkaSink;
use keytide_dataflow::model::Tick;

use self::driver::Driver;
pub use self::driver::Stop;
pub use self::error::LedgerError;
use self::kafka::KafkaLedger;
pub use self::kafka::{KafkaLedgerOptions, RowTopic};
use self::machine::{Action, Answer, Exit, LOOK_FOR, Life, Machine, Rules, Seen};
use self::reading::Reading;
pub use self::reading::{History, KEPT_TICKS};
pub use self::record::{AddedPartition, Claim, LedgerRecord, MadeBy, PartitionProgress, TickRecord};
pub use self::rows::{KeptHeaders, KeptRow, KeptRows};
use self::store::StoreLedger;
use crate::fail_point::fail_point;
use crate::store::Store;

/// How long a fenced life waits before it looks for another's claim again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The ledger of a job, for the life that opened it.
pub struct Ledger {
    machine: Machine,
    driver: Box<dyn Driver>,
    reading: Reading,
    job: String,
    claim: Option<Claim>,
    stop: Stop,
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The number of rows that were left out, since their topics don't take records of their size.
    pub rejected: u64,
    /// The number of transactions that were begun for it.
    pub attempts: u32,
    /// How long the last call to commit took.
    pub commit: Duration,
}

/// Looks at the topic of a sink's ledger, and changes nothing. Returns false if it is missing and a job would create it.
///
/// # Errors
/// If the topic isn't fit, if the user lacks a right on it, or if the brokers can't be asked.
pub fn check(sink: &KafkaSink) -> Result<bool, LedgerError> {
    kafka::topic::look(sink, &sink.progress_topic()).map(|found| found.is_some())
}

/// Reads the ledger that a job has in a topic, and changes nothing. It is empty if there is no topic.
///
/// # Errors
/// If the topic isn't fit or holds foreign records, if the brokers refuse, or once `stop` returns true.
pub fn look_topic(sink: &KafkaSink, job: &str, stop: Stop) -> Result<History, LedgerError> {
    if kafka::topic::look(sink, &sink.progress_topic())?.is_none() {
        return Ok(History::default());
    }
    let mut reading = Reading::new(job);
    let options = KafkaLedgerOptions::new(job, Vec::new());
    KafkaLedger::open(sink, options, stop)?.read(&mut reading)?;
    Ok(reading.take_history())
}

/// Reads the ledger that a job has in a store, and changes nothing. It is empty if the job's ledger is a topic.
///
/// # Errors
/// If an object can't be read or isn't of the job's ledger.
pub fn look(store: Arc<Store>, job: &str) -> Result<History, LedgerError> {
    let mut reading = Reading::new(job);
    StoreLedger::new(store, Arc::new(|| true)).read(&mut reading)?;
    Ok(reading.take_history())
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("job", &self.job)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in `PREFIX.progress.v1`, which is created if it is missing and the sink creates topics. Earlier
    /// lives can't commit any more, unless they find no claim for 10 s: so [`claim`](Self::claim) it at once. `nonce`
    /// is a random number that tells this life from all others.
    ///
    /// # Errors
    /// If the topic isn't fit or holds foreign records, if the brokers refuse, or once `stop` returns true.
    pub fn open_topic(
        sink: &KafkaSink,
        options: KafkaLedgerOptions,
        nonce: u64,
        stop: Stop,
    ) -> Result<(Self, History), LedgerError> {
        let job = options.job.clone();
        let machine = Machine::new(nonce, options.rules());
        let driver = KafkaLedger::open(sink, options, Arc::clone(&stop))?;
        Self::open(machine, Box::new(driver), job, stop)
    }

    /// Opens the ledger in a store, for rows that are written by others before their tick is committed. [`KeptRows`]
    /// stay empty.
    ///
    /// # Errors
    /// If an object can't be read or isn't of a ledger, or once `stop` returns true.
    pub fn open_store(
        store: Arc<Store>,
        job: &str,
        nonce: u64,
        stop: Stop,
    ) -> Result<(Self, History), LedgerError> {
        let machine = Machine::new(nonce, Rules::ALL);
        let driver = StoreLedger::new(store, Arc::clone(&stop));
        Self::open(machine, Box::new(driver), job.to_owned(), stop)
    }

    fn open(
        machine: Machine,
        driver: Box<dyn Driver>,
        job: String,
        stop: Stop,
    ) -> Result<(Self, History), LedgerError> {
        let reading = Reading::new(&job);
        let mut ledger = Self { machine, driver, reading, job, claim: None, stop };
        ledger.run(&KeptRows::default(), &[])?;
        let history = ledger.reading.take_history();
        Ok((ledger, history))
    }

    /// Commits the claim of a new generation. From then on ticks can be committed, the next number after the history's
    /// last one first.
    ///
    /// # Panics
    /// If it is claimed already, or there was an error before.
    ///
    /// # Errors
    /// If another life claimed the ledger or went on to commit ticks, or for the reasons of [`commit`](Self::commit).
    pub fn claim(&mut self, host: &str, pid: u32, at: Tick) -> Result<&Claim, LedgerError> {
        self.machine.claim(self.reading.seen().claim);
        let Life { generation, nonce } = self.machine.life();
        let claim = Claim { generation, nonce, job: self.job.clone(), host: host.to_owned(), pid, at };
        self.run(&KeptRows::default(), &[LedgerRecord::Claim(claim.clone())])?;
        // A store can't fence, so an earlier life may have gone on until it saw the claim.
        if self.read()?.tick.map_or(0, |(number, _)| number) != self.machine.committed() {
            return Err(LedgerError::Moved);
        }
        Ok(self.claim.insert(claim))
    }

    /// Commits ticks: their rows, and a record each. Returns once they are known to be committed.
    ///
    /// # Panics
    /// If the records aren't those of the next ticks, with the generation and the nonce of the claim, or if there was an
    /// error before.
    ///
    /// # Errors
    /// If another life claimed the ledger, if the brokers refuse a record for good, or once `stop` returns true. Then
    /// it isn't known if the ticks are committed, and the ledger is of no more use.
    pub fn commit(&mut self, rows: &KeptRows, ticks: &[TickRecord]) -> Result<Committed, LedgerError> {
        if ticks.is_empty() {
            return Ok(Committed::default());
        }
        for (tick, number) in ticks.iter().zip(self.machine.committed() + 1..) {
            let life = Life { generation: tick.generation, nonce: tick.nonce };
            assert!(
                self.machine.is_claimed() && tick.number == number && life == self.machine.life(),
                "tick {tick:?} isn't number {number} of {:?}",
                self.machine.life()
            );
        }
        let mut outcome = Committed::default();
        for ticks in ticks.chunks(self.driver.max_ticks()) {
            let records: Vec<LedgerRecord> = ticks.iter().cloned().map(LedgerRecord::Tick).collect();
            self.machine.commit(ticks.len() as u64, !rows.is_empty());
            outcome = self.run(rows, &records)?;
        }
        Ok(outcome)
    }

    /// Forgets ticks before the number `below`, which no start needs any more. In a topic they go by themselves.
    ///
    /// # Errors
    /// If an object can't be deleted. It is tried again with the next call.
    pub fn forget(&mut self, below: u64) -> Result<(), LedgerError> {
        self.driver.forget(below)
    }

    /// Returns the claim of this life.
    #[must_use]
    pub fn claimed(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Does what the machine says until it rests.
    fn run(&mut self, rows: &KeptRows, records: &[LedgerRecord]) -> Result<Committed, LedgerError> {
        let mut outcome = Committed::default();
        loop {
            let action = self.machine.action();
            let answer = match action {
                Action::Rest => return Ok(outcome),
                Action::Exit(exit) => return Err(self.exit(exit)),
                Action::Read => Answer::Seen(self.read()?),
                Action::Look => self.look()?,
                Action::NewProducer => self.driver.new_producer()?,
                Action::Begin => {
                    outcome.attempts += 1;
                    self.driver.begin()
                }
                Action::SendRows => {
                    let is_first = outcome.attempts == 1;
                    self.driver.send_rows(rows, is_first, &mut outcome.rejected)?
                }
                Action::SendRecords => {
                    fail_point("record-before");
                    self.driver.send_records(records)?
                }
                Action::Commit => {
                    fail_point("end-before");
                    let answer = self.driver.commit(&mut outcome.commit)?;
                    fail_point("end-after");
                    answer
                }
                #[cfg(test)]
                Action::QueueRows | Action::Abort => unreachable!("only the model leaves out their rules"),
            };
            tracing::debug!(?action, ?answer, "ledger");
            self.machine.answer(answer);
            if matches!(answer, Answer::Failed | Answer::Fenced) {
                tracing::warn!(
                    ?action,
                    ?answer,
                    attempts = outcome.attempts,
                    "a transaction didn't end well: the ledger is read, and what it lacks is sent again"
                );
            }
        }
    }

    /// Reads what is new in the ledger.
    fn read(&mut self) -> Result<Seen, LedgerError> {
        let number = self.machine.committed();
        self.driver.read(&mut self.reading).map_err(|error| match error {
            LedgerError::Lost { ledger, .. } => LedgerError::Lost { ledger, number },
            error => error,
        })?;
        Ok(self.reading.seen())
    }

    /// Reads the ledger until it has another's claim.
    fn look(&mut self) -> Result<Answer, LedgerError> {
        let started = Instant::now();
        loop {
            let seen = self.read()?;
            if self.machine.is_superseded(seen) || started.elapsed() >= LOOK_FOR {
                return Ok(Answer::Seen(seen));
            }
            if (self.stop)() {
                return Err(LedgerError::Stopped);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    fn exit(&self, exit: Exit) -> LedgerError {
        let (ledger, number) = (self.driver.name(), self.machine.committed());
        match (exit, self.reading.claim()) {
            (Exit::Superseded, Some(claim)) => {
                let Claim { generation, host, pid, .. } = claim.clone();
                LedgerError::Superseded { host, pid, generation }
            }
            (Exit::Moved, _) => LedgerError::Moved,
            (Exit::Foreign, _) => LedgerError::Ticks { ledger, number },
            (Exit::Lost | Exit::Superseded, _) => LedgerError::Lost { ledger, number },
        }
    }
}
