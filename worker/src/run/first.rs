//! Warnings of a live job's first minute about records that can't be used.
//!
//! The job is judged at ticks by all records so far: as soon as there are [`RECORDS`] of them, and once more when the
//! minute is over. Refused records and calls without a key make one warning each at most.

use keytide_dataflow::model::Tick;
use keytide_dataflow::model::time::MINUTE_MS;

use crate::records::RecordCounts;

/// Records that are enough to judge by.
const RECORDS: u64 = 1_000;

/// Which warnings of the first minute were given.
#[derive(Debug, Default)]
pub(super) struct FirstMinute {
    first: Option<Tick>,
    warned_refusals: bool,
    warned_keyless: bool,
    is_over: bool,
}

impl FirstMinute {
    /// Returns the warnings due after a tick. `so_far` is called in the first minute only.
    pub(super) fn tick(&mut self, tick: Tick, so_far: impl FnOnce() -> RecordCounts) -> Vec<String> {
        if self.is_over {
            return Vec::new();
        }
        let first = *self.first.get_or_insert(tick);
        self.is_over = tick >= first.saturating_add(MINUTE_MS);
        let records = so_far();
        if !self.is_over && records.all() < RECORDS {
            return Vec::new();
        }
        let refusal = records.nothing().or_else(|| records.refusal());
        let refusal = refusal.filter(|_| !self.warned_refusals);
        let keyless = records.keylessness().filter(|_| !self.warned_keyless);
        self.warned_refusals |= refusal.is_some();
        self.warned_keyless |= keyless.is_some();
        let more = "so far; the view dead_letters has a row of each, and `keytide check CONFIG --connect` shows what the \
                    records look like";
        let refusal = refusal.map(|refusal| format!("{refusal} {more}"));
        let keyless = keyless.map(|keyless| {
            format!("{keyless} so far; `keytide check CONFIG --connect` shows where keys are found")
        });
        refusal.into_iter().chain(keyless).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Tick = 1_748_851_200_000;

    #[test]
    fn a_thousand_records_are_enough_to_judge_by_and_the_minutes_end_judges_fewer() {
        let records = |accepted, refused, keyless| {
            let mut records = RecordCounts { accepted, keyless, ..RecordCounts::default() };
            records.refused[0] = refused;
            records
        };
        let mut minute = FirstMinute::default();
        assert!(minute.tick(START, || records(0, 999, 0)).is_empty());
        let warnings = minute.tick(START + 1_000, || records(0, 1_000, 0));
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("nothing was accepted: 1000 of 1000 records were refused"),
            "{warnings:?}"
        );
        assert!(minute.tick(START + 2_000, || records(0, 5_000, 0)).is_empty(), "once");
        let warnings = minute.tick(START + 60_000, || records(10, 5_000, 3));
        assert!(
            matches!(&warnings[..], [one] if one.starts_with("3 of 10 calls have no key")),
            "{warnings:?}"
        );
        assert!(minute.tick(START + 61_000, || unreachable!("the minute is over")).is_empty());

        let mut quiet = FirstMinute::default();
        assert!(quiet.tick(START, RecordCounts::default).is_empty());
        let warnings = quiet.tick(START + 60_000, || records(2, 1, 0));
        assert!(
            matches!(&warnings[..], [one] if one.starts_with("1 of 3 records was refused")),
            "{warnings:?}"
        );
        let mut good = FirstMinute::default();
        good.tick(START, || records(5_000, 0, 0));
        assert!(good.tick(START + 60_000, || records(9_000, 0, 0)).is_empty());
    }
}
