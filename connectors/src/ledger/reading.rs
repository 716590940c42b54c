//! Reads the records of a ledger into what a start needs: the last ticks, and the newest claim.

use std::collections::BTreeMap;

use super::error::LedgerError;
use super::machine::{Life, Seen};
use super::record::{Claim, LedgerRecord, TickRecord};

/// The number of ticks that a ledger keeps. A tick's record replaces the one of this many ticks before.
pub const KEPT_TICKS: u64 = 4_096;
/// The largest number of a tick and of a generation, which no job comes near.
const MAX_NUMBER: u64 = 1 << 53;

/// The records with which a job goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The newest ticks, without a gap and ascending, at most [`KEPT_TICKS`].
    pub ticks: Vec<TickRecord>,
    pub last_claim: Option<Claim>,
}

/// The records of a ledger that were read so far.
#[derive(Debug)]
pub(super) struct Reading {
    job: String,
    seen: Seen,
    claim: Option<Claim>,
    /// The ticks by number, until the history is taken.
    ticks: Option<BTreeMap<u64, TickRecord>>,
}

impl Reading {
    pub(super) fn new(job: &str) -> Self {
        Self { job: job.to_owned(), seen: Seen::default(), claim: None, ticks: Some(BTreeMap::new()) }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Takes the next record of the ledger `ledger`. `place` says where it is, and `fits` if a record belongs there.
    pub(super) fn take(
        &mut self,
        value: &[u8],
        ledger: &str,
        place: impl FnOnce() -> String,
        fits: impl FnOnce(&LedgerRecord) -> bool,
    ) -> Result<(), LedgerError> {
        let record = match LedgerRecord::decode(value) {
            Ok(record) if !is_possible(&record) => Err("its numbers are impossible".to_owned()),
            Ok(record) if !fits(&record) => Err("it is in the place of another one".to_owned()),
            decoded => decoded,
        };
        let record = record.map_err(|reason| LedgerError::Foreign { place: place(), reason })?;
        match record {
            LedgerRecord::Claim(claim) => {
                if claim.job != self.job {
                    let (ledger, job) = (ledger.to_owned(), self.job.clone());
                    return Err(LedgerError::OtherJob { ledger, found: claim.job, job });
                }
                self.seen.claim = Some(Life { generation: claim.generation, nonce: claim.nonce });
                self.claim = Some(claim);
            }
            LedgerRecord::Tick(tick) => {
                let life = Life { generation: tick.generation, nonce: tick.nonce };
                // Compaction keeps the order of offsets, so the last record is that of the last tick.
                self.seen.tick = Some((tick.number, life));
                if let Some(ticks) = &mut self.ticks {
                    ticks.insert(tick.number, tick);
                    while ticks.len() as u64 > KEPT_TICKS {
                        ticks.pop_first();
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the history. Ticks that come later aren't kept.
    pub(super) fn take_history(&mut self) -> History {
        let mut ticks: Vec<TickRecord> = self.ticks.take().unwrap_or_default().into_values().collect();
        let is_gap = |pair: &[TickRecord]| pair[0].number + 1 != pair[1].number;
        if let Some(gap) = ticks.windows(2).rposition(is_gap) {
            ticks.drain(..=gap);
        }
        History { ticks, last_claim: self.claim.clone() }
    }
}

/// Returns whether a job can have written the record, and can count on from it.
fn is_possible(record: &LedgerRecord) -> bool {
    match record {
        LedgerRecord::Tick(tick) => (1..=MAX_NUMBER).contains(&tick.number) && tick.generation <= MAX_NUMBER,
        LedgerRecord::Claim(claim) => claim.generation <= MAX_NUMBER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(records: impl IntoIterator<Item = LedgerRecord>) -> History {
        let mut reading = Reading::new("");
        for record in records {
            reading.take(&record.encode(), "ledger", String::new, |_| true).unwrap();
        }
        reading.take_history()
    }

    fn tick(number: u64) -> LedgerRecord {
        LedgerRecord::Tick(TickRecord { number, ..TickRecord::default() })
    }

    fn numbers(history: &History) -> Vec<u64> {
        history.ticks.iter().map(|tick| tick.number).collect()
    }

    #[test]
    fn a_history_holds_the_ticks_that_a_ledger_keeps() {
        let history = history((1..=KEPT_TICKS + 2).map(tick));
        assert_eq!(history.ticks.len() as u64, KEPT_TICKS);
        assert_eq!(history.ticks[0].number, 3);
    }

    #[test]
    fn a_history_begins_behind_the_last_gap() {
        assert_eq!(numbers(&history([1, 2, 4, 5, 7, 8, 9].map(tick))), [7, 8, 9]);
        assert_eq!(numbers(&history([3].map(tick))), [3]);
        assert_eq!(history([]), History::default());
    }

    #[test]
    fn numbers_from_which_no_job_can_count_on_are_foreign() {
        let take = |record: LedgerRecord, fits| {
            let taken = Reading::new("").take(&record.encode(), "ledger", String::new, |_| fits);
            taken.map_err(|error| error.to_string())
        };
        let claim = |generation| LedgerRecord::Claim(Claim { generation, ..Claim::default() });
        for (possible, impossible) in
            [(tick(1), tick(0)), (tick(MAX_NUMBER), tick(u64::MAX)), (claim(MAX_NUMBER), claim(u64::MAX))]
        {
            take(possible.clone(), true).unwrap();
            let error = take(impossible, true).unwrap_err();
            assert!(error.contains("its numbers are impossible"), "{error}");
            let error = take(possible, false).unwrap_err();
            assert!(error.contains("it is in the place of another one"), "{error}");
        }
    }

    #[test]
    fn the_newest_claim_counts() {
        let claim = |generation| Claim { generation, ..Claim::default() };
        let history = history([claim(1), claim(2)].map(LedgerRecord::Claim));
        assert_eq!(history.last_claim, Some(claim(2)));
    }
}
