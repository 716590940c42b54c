//! The first minute of a live job: whether what it reads can be used.
//!
//! Judged at ticks, by what was read so far: as soon as there are [`RECORDS`] records, and once more when the minute is
//! over. What is refused and what has no key is told once each.

use keytide_dataflow::model::Tick;
use keytide_dataflow::model::time::MINUTE_MS;

use crate::records::Records;

/// Records that are enough to judge by.
const RECORDS: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FirstMinute {
    first: Option<Tick>,
    told_refusals: bool,
    told_keyless: bool,
    is_over: bool,
}

impl FirstMinute {
    /// What is to be told after a tick; `so_far` is only asked in the first minute.
    pub(super) fn tick(&mut self, tick: Tick, so_far: impl FnOnce() -> Records) -> Vec<String> {
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
        let refusal = refusal.filter(|_| !self.told_refusals);
        let keyless = records.keylessness().filter(|_| !self.told_keyless);
        self.told_refusals |= refusal.is_some();
        self.told_keyless |= keyless.is_some();
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
            let mut records = Records { accepted, keyless, ..Records::default() };
            records.refused[0] = refused;
            records
        };
        let mut minute = FirstMinute::default();
        assert!(minute.tick(START, || records(0, 999, 0)).is_empty());
        let told = minute.tick(START + 1_000, || records(0, 1_000, 0));
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("nothing was accepted: 1000 of 1000 records were refused"), "{told:?}");
        assert!(minute.tick(START + 2_000, || records(0, 5_000, 0)).is_empty(), "once");
        let told = minute.tick(START + 60_000, || records(10, 5_000, 3));
        assert!(matches!(&told[..], [one] if one.starts_with("3 of 10 calls have no key")), "{told:?}");
        assert!(minute.tick(START + 61_000, || unreachable!("the minute is over")).is_empty());

        let mut quiet = FirstMinute::default();
        assert!(quiet.tick(START, Records::default).is_empty());
        let told = quiet.tick(START + 60_000, || records(2, 1, 0));
        assert!(matches!(&told[..], [one] if one.starts_with("1 of 3 records was refused")), "{told:?}");
        let mut good = FirstMinute::default();
        good.tick(START, || records(5_000, 0, 0));
        assert!(good.tick(START + 60_000, || records(9_000, 0, 0)).is_empty());
    }
}
