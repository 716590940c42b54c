//! How rare a z-score is among those of the last weeks.
//!
//! Raw z-scores don't transfer between series, as batches, retries and gaps give each a tail of its own. So z is counted
//! in a histogram of 48 bins of width 1/4 from 0 to 12, in which old rows count half after 28 days. Q is its 99 %
//! quantile, interpolated within a bin. B is the mean excess above Q, drawn to 0.7 as if that had been seen 30 times.
//! The tail beyond Q is taken as exponential (the peaks-over-threshold method with shape 0; Pickands, 1975):
//!
//! ```text
//! bits = -log2(0.01) + (z - Q)/(B ln 2)
//! ```
//!
//! Limits: 40 bits. A row is learned as Q + 6 B at most, so that one event doesn't make the next one usual. State: 200
//! bytes.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

const BINS: usize = 48;
/// The width of a bin in units of z.
const BIN: f64 = 0.25;
/// The share of rows above the quantile that the tail starts at.
const ABOVE: f64 = 0.01;
/// -log2(ABOVE): the surprise of a row at the quantile.
const ABOVE_BITS: f64 = 6.643_856_189_774_724;
/// The mean excess above the quantile that a series begins with, and the rows that it counts for.
const PRIOR_EXCESS: f64 = 0.7;
const PRIOR_ROWS: f64 = 30.0;
/// A series on a timetable has no excess of its own.
const LEAST_EXCESS: f64 = 0.2;
/// One excess is learned as so many times the mean at most.
const EXCESS_CLIP: f64 = 6.0;
/// An exponential tail says little about what is rarer than one row in 2^40.
const MOST_BITS: f64 = 40.0;

/// The distribution of one z-score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// Rows by z. Two halves, since serde's arrays end at 32.
    bins: [[f32; BINS / 2]; 2],
    rows: f64,
}

impl Tail {
    /// Returns how many bits of surprise z has, and learns it. Rows that aren't judged have none and are learned whole.
    pub(super) fn judge(&mut self, z: f64, judged: bool) -> f64 {
        let (quantile, excess) = self.quantile_and_excess();
        let bits = match judged && z > quantile {
            true => (ABOVE_BITS + (z - quantile) / (excess * LN_2)).min(MOST_BITS),
            false => 0.0,
        };
        let learned = if judged { z.min(quantile + EXCESS_CLIP * excess) } else { z };
        // A cast rounds towards 0 and takes what is negative for 0.
        #[expect(clippy::cast_sign_loss, reason = "z below 0 belongs to the first bin")]
        let bin = ((learned / BIN) as usize).min(BINS - 1);
        self.bins.as_flattened_mut()[bin] += 1.0;
        self.rows += 1.0;
        bits
    }

    /// Lets all rows count `kept` times as much as before.
    pub(super) fn age(&mut self, kept: f64) {
        for count in self.bins.as_flattened_mut() {
            *count = (f64::from(*count) * kept) as f32;
        }
        self.rows *= kept;
    }

    /// Q and B of the module's formula.
    fn quantile_and_excess(&self) -> (f64, f64) {
        let counts = self.bins.as_flattened();
        let want = ABOVE * self.rows;
        let (mut taken, mut sum, mut bin) = (0.0, 0.0, BINS - 1);
        // Whole bins are taken from the top, each as if its rows lay in its middle.
        while bin > 0 && taken + f64::from(counts[bin]) < want {
            taken += f64::from(counts[bin]);
            sum += f64::from(counts[bin]) * (bin as f64 + 0.5) * BIN;
            bin -= 1;
        }
        // The rest lies in the upper part of the next bin.
        let (count, rest, top) = (f64::from(counts[bin]), want - taken, bin as f64 + 1.0);
        let part = if count > 0.0 { (rest / count).min(1.0) } else { 0.0 };
        let quantile = (top - part) * BIN;
        let beyond = sum + rest * (top - part / 2.0) * BIN - quantile * want;
        let excess = (beyond + PRIOR_ROWS * PRIOR_EXCESS) / (want + PRIOR_ROWS);
        (quantile, excess.max(LEAST_EXCESS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(rows: impl IntoIterator<Item = f64>) -> Tail {
        let mut tail = Tail::default();
        for z in rows {
            tail.judge(z, false);
        }
        tail
    }

    #[test]
    fn an_empty_tail_finds_nothing_within_its_range_odd() {
        assert_eq!(tail([]).quantile_and_excess(), (12.0, 0.7));
        assert_eq!(tail([]).judge(12.0, true), 0.0);
        assert_eq!(tail([]).judge(20.0, false), 0.0);
    }

    #[test]
    fn the_quantile_is_interpolated_and_the_excess_drawn_to_its_prior() {
        // Of 400 rows 4 are wanted: the one at 3.1, and 3 of the 6 between 2 and 2.25.
        let rows = || (0..393).map(|_| 0.1).chain([2.1; 6]).chain([3.1]);
        let (quantile, excess) = tail(rows()).quantile_and_excess();
        assert_eq!(quantile, 2.125);
        let beyond = 3.125 + 3.0 * 2.1875 - 4.0 * 2.125;
        assert!((excess - (beyond + 21.0) / 34.0).abs() < 1e-12, "{excess}");
        let bits = tail(rows()).judge(4.0, true);
        assert!((bits - (100_f64.log2() + 1.875 / (excess * LN_2))).abs() < 1e-9, "{bits}");
        assert_eq!(tail(rows()).judge(2.125, true), 0.0);
        // Without any excess of its own a tail would soon find every row odd.
        assert_eq!(tail([0.1; 10_000]).quantile_and_excess(), (0.99 * BIN, LEAST_EXCESS));
        assert_eq!(tail(rows()).judge(1e9, true), MOST_BITS);
    }

    #[test]
    fn a_judged_row_is_learned_as_six_excesses_at_most_and_old_rows_fade() {
        let mut learned = tail((0..1_000).map(|_| 0.1));
        let before = learned.clone();
        learned.judge(1e9, true);
        let (quantile, excess) = before.quantile_and_excess();
        let bin = ((quantile + 6.0 * excess) / BIN).floor();
        let mut expected = before.clone();
        expected.judge((bin + 0.5) * BIN, false);
        assert_eq!(learned, expected);
        learned.age(0.5);
        assert_eq!(learned.rows, 500.5);
        assert_eq!(learned.bins[0][0], 500.0);
    }
}
