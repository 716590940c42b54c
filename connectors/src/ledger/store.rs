//! A ledger in a store of objects: each record is an object that is written if it isn't there.
//!
//! There are no transactions, and no producer that could be fenced. Rows are written before, and a tick counts once its
//! object is there. Of two lives that write the same number one finds the other's object, and ends. A life also looks
//! for the next generation's claim before it writes, so that it is the older one that ends. In a store without a lock
//! a claim waits for [`SETTLE`], so that the younger one reads what the older one was writing.
//!
//! An object that can't be written is tried again until `stop` says so: a full disk stops the job's commits and nothing
//! else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::{Driver, Stop};
use super::error::LedgerError;
use super::machine::Answer;
use super::reading::Reading;
use super::record::{Claim, LedgerRecord, TickRecord};
use super::rows::KeptRows;
use crate::store::{NumberedObject, Store, StoreError};

/// How long a claim waits in a store without a lock, until what an older life was writing has arrived.
const SETTLE: Duration = Duration::from_secs(2);
/// How long to wait before something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct StoreLedger {
    store: Arc<Store>,
    stop: Stop,
    /// The last tick and the last claim that were read.
    last: (u64, u64),
    /// True once the ledger was read whole.
    was_read: bool,
    /// The records of the open transaction, at most one.
    pending: Vec<(NumberedObject, Vec<u8>)>,
    /// The claim that would end this life.
    next_claim: Option<u64>,
    failed: bool,
}

impl StoreLedger {
    pub(super) fn new(store: Arc<Store>, stop: Stop) -> Self {
        let (last, pending) = ((0, 0), Vec::new());
        Self { store, stop, last, was_read: false, pending, next_claim: None, failed: false }
    }

    /// Reads what came since the last time.
    fn read_new(&mut self, reading: &mut Reading) -> Result<(), LedgerError> {
        let ledger = self.name();
        let mut take = |object: NumberedObject| {
            // One that was deleted meanwhile is one that no start needs.
            let Some(bytes) = self.store.get_record(object)? else { return Ok(()) };
            let place = || format!("object {}", object.name());
            reading.take(&bytes, &ledger, place, |record| object_of(record) == object)
        };
        let (last_tick, last_claim) = &mut self.last;
        // The claim of a tick's life is older than the tick. In this order it isn't missed.
        for number in newer(self.store.ledger_ticks()?, *last_tick) {
            take(NumberedObject::Tick(number))?;
            *last_tick = number;
        }
        for generation in newer(self.store.ledger_claims()?, *last_claim) {
            take(NumberedObject::Claim(generation))?;
            *last_claim = generation;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<Answer, StoreError> {
        if let Some(generation) = self.next_claim
            && self.store.get_record(NumberedObject::Claim(generation))?.is_some()
        {
            return Ok(Answer::Fenced);
        }
        for (object, bytes) in self.pending.drain(..) {
            if !self.store.put_record(object, bytes)? {
                // It is ours if an answer was lost. The machine reads it.
                return Ok(Answer::Failed);
            }
            if matches!(object, NumberedObject::Claim(2..)) && self.store.is_shared() {
                std::thread::park_timeout(SETTLE);
            }
        }
        Ok(Answer::Committed { slow: false, troubled: false })
    }
}

/// Returns the object that a record belongs into.
fn object_of(record: &LedgerRecord) -> NumberedObject {
    match record {
        LedgerRecord::Tick(tick) => NumberedObject::Tick(tick.number),
        LedgerRecord::Claim(claim) => NumberedObject::Claim(claim.generation),
    }
}

/// Returns the numbers above `last`, of numbers that ascend.
fn newer(numbers: Vec<u64>, last: u64) -> impl Iterator<Item = u64> {
    numbers.into_iter().skip_while(move |number| *number <= last)
}

impl Driver for StoreLedger {
    fn name(&self) -> String {
        "the ledger in state.url".to_owned()
    }

    /// Objects are written one by one, so that a crash between two of them leaves whole ticks.
    fn max_ticks(&self) -> usize {
        1
    }

    fn new_producer(&mut self) -> Result<Answer, LedgerError> {
        if (self.stop)() {
            return Err(LedgerError::Stopped);
        }
        if std::mem::take(&mut self.failed) {
            std::thread::park_timeout(RETRY_AFTER);
        }
        Ok(Answer::Done)
    }

    fn read(&mut self, reading: &mut Reading) -> Result<(), LedgerError> {
        loop {
            match self.read_new(reading) {
                Err(LedgerError::Store(error))
                    if self.was_read && !matches!(error, StoreError::Damaged { .. }) =>
                {
                    tracing::warn!("the ledger can't be read yet: {error}");
                }
                Ok(()) => {
                    self.was_read = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if (self.stop)() {
                return Err(LedgerError::Stopped);
            }
            std::thread::park_timeout(RETRY_AFTER);
        }
    }

    fn begin(&mut self) -> Answer {
        self.pending.clear();
        Answer::Done
    }

    fn send_rows(&mut self, _: &KeptRows, _: bool, _: &mut u64) -> Result<Answer, LedgerError> {
        Ok(Answer::Done)
    }

    fn send_records(&mut self, records: &[LedgerRecord]) -> Result<Answer, LedgerError> {
        for record in records {
            let (LedgerRecord::Tick(TickRecord { generation, .. })
            | LedgerRecord::Claim(Claim { generation, .. })) = record;
            self.next_claim = Some(generation + 1);
            self.pending.push((object_of(record), record.encode()));
        }
        Ok(Answer::Done)
    }

    fn commit(&mut self, took: &mut Duration) -> Result<Answer, LedgerError> {
        let started = Instant::now();
        let written = self.write();
        *took = started.elapsed();
        Ok(written.unwrap_or_else(|error| {
            tracing::error!("a tick can't be committed yet: {error}");
            self.failed = true;
            Answer::Failed
        }))
    }

    fn forget(&mut self, below: u64) -> Result<(), LedgerError> {
        for number in self.store.ledger_ticks()?.into_iter().take_while(|number| *number < below) {
            self.store.delete_record(NumberedObject::Tick(number))?;
        }
        let claims = self.store.ledger_claims()?;
        let old = claims.split_last().map_or(&[][..], |(_, old)| old);
        for generation in old {
            self.store.delete_record(NumberedObject::Claim(*generation))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::ledger::{History, Ledger};

    struct Bench {
        store: Arc<Store>,
        stop: Arc<AtomicBool>,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(Store::open(folder.path()).unwrap());
            Self { store, stop: Arc::default(), folder }
        }

        fn open(&self, nonce: u64) -> Result<(Ledger, History), LedgerError> {
            let stop = Arc::clone(&self.stop);
            let stop: Stop = Arc::new(move || stop.load(Ordering::Acquire));
            Ledger::open_store(Arc::clone(&self.store), "orders", nonce, stop)
        }

        /// Opens the ledger and claims it. Returns it with the life's generation.
        fn live(&self, nonce: u64) -> (Ledger, u64) {
            let (mut ledger, _) = self.open(nonce).unwrap();
            let pid = u32::try_from(nonce).unwrap();
            let generation = ledger.claim("here", pid, 1).unwrap().generation;
            (ledger, generation)
        }
    }

    fn tick(number: u64, generation: u64, nonce: u64) -> TickRecord {
        TickRecord { number, tick: number * 1_000, generation, nonce, ..TickRecord::default() }
    }

    fn commit(ledger: &mut Ledger, ticks: &[TickRecord]) -> Result<u32, LedgerError> {
        ledger.commit(&KeptRows::default(), ticks).map(|outcome| outcome.attempts)
    }

    #[test]
    fn a_life_goes_on_behind_what_the_one_before_committed() {
        let bench = Bench::new();
        let (mut ledger, generation) = bench.live(7);
        let ticks = [1, 2, 3].map(|number| tick(number, generation, 7));
        commit(&mut ledger, &ticks[..1]).unwrap();
        commit(&mut ledger, &ticks[1..]).unwrap();
        let claim: Claim = ledger.claimed().unwrap().clone();
        drop(ledger);

        let (mut ledger, history) = bench.open(8).unwrap();
        assert_eq!(history, History { ticks: ticks.to_vec(), last_claim: Some(claim) });
        assert_eq!(ledger.claim("here", 8, 2).unwrap().generation, 2);
        commit(&mut ledger, &[tick(4, 2, 8)]).unwrap();
        ledger.forget(4).unwrap();
        drop(ledger);
        let (_, history) = bench.open(9).unwrap();
        assert_eq!(history.ticks, [tick(4, 2, 8)]);
        assert_eq!(history.last_claim.unwrap().pid, 8);
    }

    #[test]
    fn the_older_of_two_lives_ends_and_names_the_younger() {
        let bench = Bench::new();
        let (mut older, _) = bench.live(1);
        commit(&mut older, &[tick(1, 1, 1)]).unwrap();
        let (mut younger, _) = bench.live(2);
        let error = commit(&mut older, &[tick(2, 1, 1)]).unwrap_err();
        let LedgerError::Superseded { host, pid: 2, generation: 2 } = error else { panic!("{error}") };
        assert_eq!(host, "here");
        commit(&mut younger, &[tick(2, 2, 2)]).unwrap();
    }

    #[test]
    fn of_two_lives_that_claim_at_once_one_ends() {
        let bench = Bench::new();
        let ((mut one, _), (mut other, _)) = (bench.open(1).unwrap(), bench.open(2).unwrap());
        other.claim("here", 2, 1).unwrap();
        let error = one.claim("here", 1, 1).unwrap_err();
        assert!(matches!(error, LedgerError::Superseded { pid: 2, generation: 1, .. }), "{error}");
    }

    #[test]
    fn a_life_that_claims_late_finds_that_an_older_one_went_on() {
        let bench = Bench::new();
        let (mut older, _) = bench.live(1);
        let (mut younger, _) = bench.open(2).unwrap();
        commit(&mut older, &[tick(1, 1, 1)]).unwrap();
        let error = younger.claim("here", 2, 1).unwrap_err();
        assert!(matches!(error, LedgerError::Moved), "{error}");
    }

    #[test]
    fn an_object_that_was_written_although_the_answer_was_lost_is_committed() {
        let bench = Bench::new();
        let (mut ledger, generation) = bench.live(1);
        let record = tick(1, generation, 1);
        let object = LedgerRecord::Tick(record.clone()).encode();
        assert!(bench.store.put_record(NumberedObject::Tick(1), object).unwrap());
        assert_eq!(commit(&mut ledger, &[record]).unwrap(), 1);
        commit(&mut ledger, &[tick(2, generation, 1)]).unwrap();
    }

    #[test]
    fn a_tick_of_another_life_is_not_ours() {
        let bench = Bench::new();
        let (mut ledger, generation) = bench.live(1);
        let object = LedgerRecord::Tick(tick(1, generation, 2)).encode();
        assert!(bench.store.put_record(NumberedObject::Tick(1), object).unwrap());
        let error = commit(&mut ledger, &[tick(1, generation, 1)]).unwrap_err();
        assert!(matches!(error, LedgerError::Ticks { number: 0, .. }), "{error}");
    }

    #[test]
    fn foreign_objects_and_other_jobs_are_named() {
        let bench = Bench::new();
        assert!(bench.store.put_record(NumberedObject::Tick(1), b"[]".to_vec()).unwrap());
        let error = bench.open(1).unwrap_err().to_string();
        assert!(
            error.starts_with("object ledger/00000000000000000001 is no record of a ledger: "),
            "{error}"
        );
        bench.store.delete_record(NumberedObject::Tick(1)).unwrap();
        let misplaced = LedgerRecord::Tick(tick(2, 1, 1)).encode();
        assert!(bench.store.put_record(NumberedObject::Tick(1), misplaced).unwrap());
        let error = bench.open(1).unwrap_err().to_string();
        assert!(error.contains("it is in the place of another one"), "{error}");
        bench.store.delete_record(NumberedObject::Tick(1)).unwrap();
        bench.live(1);
        let opened = Ledger::open_store(Arc::clone(&bench.store), "invoices", 2, Arc::new(|| false));
        let error = opened.unwrap_err();
        assert!(matches!(&error, LedgerError::OtherJob { found, .. } if found == "orders"), "{error}");
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_waited_for_until_the_job_stops() {
        let bench = Bench::new();
        let (mut ledger, generation) = bench.live(1);
        // A file in place of the folder lets every write and every listing fail.
        let ledger_folder = bench.folder.path().join("ledger");
        std::fs::rename(&ledger_folder, bench.folder.path().join("away")).unwrap();
        std::fs::write(&ledger_folder, "").unwrap();
        bench.stop.store(true, Ordering::Release);
        let error = commit(&mut ledger, &[tick(1, generation, 1)]).unwrap_err();
        assert!(matches!(error, LedgerError::Stopped), "{error}");
    }
}
