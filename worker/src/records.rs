//! Counts of a run's records by outcome, and warnings made of them.
//!
//! A wrong format or mapping refuses every record, and a wrong key rule leaves every call without a key. Neither ends
//! a run, so warnings name both, with numbers, classes and the first refused record. They never hold a record's value.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use keytide_connectors::decode::{CLASSES, Tally};
use keytide_connectors::ingest::IngestCounts;
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::live::LiveCounters;
use keytide_connectors::look::Look;

/// Counts of records by outcome: accepted, refused or passed over.
#[derive(Clone, Debug, Default)]
pub struct RecordCounts {
    pub accepted: u64,
    /// By the index of their class in [`CLASSES`].
    pub refused: [u64; CLASSES.len()],
    /// Where the first refused record stands: a file and a byte, or a partition and an offset.
    pub first: Option<String>,
    /// Calls that count as anonymous.
    pub keyless: u64,
    /// Records that aren't meant to be calls, by the configuration or their format.
    pub passed_over: u64,
}

impl RecordCounts {
    /// Returns the counts of a bounded run.
    pub fn of(counts: &IngestCounts, partitions: &[PartitionInfo]) -> Self {
        let first = counts
            .first_refused
            .and_then(|position| Some(place(partitions.get(position.partition as usize)?, position.offset)));
        Self {
            accepted: counts.events,
            refused: counts.refused,
            first,
            keyless: counts.tally.keyless,
            passed_over: counts.tally.passed_over,
        }
    }

    /// Returns the counts of a live job so far.
    pub fn so_far(counters: &LiveCounters) -> Self {
        let mut tally = Tally::default();
        counters.tallies.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|of| tally.add(of));
        Self {
            accepted: counters.events.load(Ordering::Relaxed),
            refused: counters.dead_letters.each_ref().map(|count| count.load(Ordering::Relaxed)),
            first: None,
            keyless: tally.keyless,
            passed_over: tally.passed_over,
        }
    }

    /// Returns the counts of a look at the first records of a source.
    pub fn looked_at(look: &Look) -> Self {
        Self {
            accepted: look.accepted,
            refused: look.refused,
            first: look.first_refused.as_ref().map(|(partition, offset)| place(partition, *offset)),
            keyless: look.tally.keyless,
            passed_over: look.tally.passed_over,
        }
    }

    /// Returns the number of refused records, over all classes.
    pub fn refusals(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Returns the number of records of every outcome.
    pub fn all(&self) -> u64 {
        self.accepted + self.refusals() + self.passed_over
    }

    /// Returns whether there are records and none is accepted.
    pub fn has_nothing(&self) -> bool {
        self.accepted == 0 && self.all() > 0
    }

    /// Returns a sentence about the refused records with their classes and the first; `None` if there are none.
    pub fn refusal(&self) -> Option<String> {
        let refused = self.refusals();
        let classes = CLASSES.into_iter().zip(self.refused).filter(|(_, count)| *count > 0);
        let classes: Vec<String> = classes.map(|(class, count)| format!("{count} {class}")).collect();
        let first = self.first.as_ref().map_or(String::new(), |first| format!(", the first in {first}"));
        let verb = if refused == 1 { "was" } else { "were" };
        (refused > 0).then(|| {
            format!("{refused} of {} records {verb} refused ({}){first}", self.all(), classes.join(", "))
        })
    }

    /// Returns a sentence about the calls without a key; `None` if all have one.
    pub fn keylessness(&self) -> Option<String> {
        let (keyless, accepted) = (self.keyless, self.accepted);
        (keyless > 0).then(|| {
            format!("{keyless} of {accepted} calls have no key that a rule of keys.from finds, and count as anonymous")
        })
    }

    /// Returns why no record was accepted; `None` if one was, or there are none.
    pub fn nothing(&self) -> Option<String> {
        self.has_nothing().then(|| {
            let passed_over = self.passed_over;
            let passed_over = (passed_over > 0).then(|| {
                format!("{passed_over} records were passed over, as source.only or the format says that they are no calls")
            });
            let why: Vec<String> = self.refusal().into_iter().chain(passed_over).collect();
            format!("nothing was accepted: {}", why.join("; "))
        })
    }

    /// Returns warnings about refused records and calls without a key. `rows` says where each has a row.
    ///
    /// # Errors
    /// The message of [`nothing`](Self::nothing), if no record was accepted.
    pub fn judge(&self, rows: &str) -> Result<Vec<String>, String> {
        const CHECK: &str = "`keytide check CONFIG` shows what the records look like";
        if let Some(nothing) = self.nothing() {
            return Err(format!("{nothing}; {rows}{CHECK}"));
        }
        let refusal = self.refusal().map(|refusal| format!("{refusal}; {rows}{CHECK}"));
        let keylessness = self
            .keylessness()
            .map(|keylessness| format!("{keylessness}; `keytide check CONFIG` shows where keys are found"));
        Ok(refusal.into_iter().chain(keylessness).collect())
    }
}

fn place(partition: &PartitionInfo, offset: u64) -> String {
    let PartitionInfo { source, source_index: _, number, path } = partition;
    match path {
        Some(path) => format!("{path} at byte {offset}"),
        None => format!("source {source}, partition {number} at offset {offset}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> usize {
        CLASSES.iter().position(|class| *class == name).unwrap()
    }

    #[test]
    fn refused_records_are_reported_with_numbers_classes_and_the_first() {
        let mut records = RecordCounts {
            accepted: 10,
            first: Some("a.log at byte 7".to_owned()),
            ..RecordCounts::default()
        };
        assert_eq!((records.refusal(), records.keylessness(), records.nothing()), (None, None, None));
        records.refused[class("syntax")] = 2;
        records.refused[class("field")] = 1;
        records.keyless = 4;
        assert_eq!(
            records.refusal().unwrap(),
            "3 of 13 records were refused (2 syntax, 1 field), the first in a.log at byte 7"
        );
        assert_eq!(
            records.keylessness().unwrap(),
            "4 of 10 calls have no key that a rule of keys.from finds, and count as anonymous"
        );
        assert_eq!(records.judge("").unwrap().len(), 2);
        records = RecordCounts { accepted: 0, keyless: 0, passed_over: 5, ..records };
        assert_eq!(
            records.nothing().unwrap(),
            "nothing was accepted: 3 of 8 records were refused (2 syntax, 1 field), the first in a.log at byte 7; 5 \
             records were passed over, as source.only or the format says that they are no calls"
        );
        assert!(records.judge("").unwrap_err().starts_with("nothing was accepted: "));
        assert_eq!(RecordCounts::default().judge(""), Ok(Vec::new()), "no records, no fault");
    }
}
