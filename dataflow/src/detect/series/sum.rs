//! Sums of the last rows of a series.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A sum is added up anew if what leaves it was so many times as large as what remains.
const LOSSY: f64 = 1e3;

/// The sum of the last `width` counts; 8 bytes a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MovingSum {
    width: u32,
    rows: VecDeque<f64>,
    sum: f64,
}

impl MovingSum {
    /// A sum over `width` rows, which holds none yet.
    pub(super) fn new(width: u32) -> Self {
        Self { width, rows: VecDeque::new(), sum: 0.0 }
    }

    /// Takes a count and returns ln(1 + sum). As long as there are fewer than `width` rows, they stand for all.
    pub(super) fn push(&mut self, count: f64) -> f64 {
        self.rows.push_back(count);
        self.sum += count;
        let is_full = self.rows.len() as u64 > u64::from(self.width);
        let leaving = if is_full { self.rows.pop_front().unwrap_or(0.0) } else { 0.0 };
        self.sum -= leaving;
        // Additions to a large sum lose digits, which are missing once a large count leaves. The rest may be negative.
        if leaving > LOSSY * self.sum {
            self.sum = self.rows.iter().sum();
        }
        let scaled = self.sum * (f64::from(self.width) / self.rows.len() as f64);
        libm::log(scaled + 1.0)
    }

    /// Forgets the rows: those to come don't follow them.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.sum = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_covers_its_width_and_fewer_rows_stand_for_all() {
        let mut sum = MovingSum::new(3);
        let sums = [1.0, 2.0, 6.0, 4.0, 0.0, 0.0, 0.0].map(|count| libm::exp(sum.push(count)) - 1.0);
        for (sum, expected) in sums.into_iter().zip([3.0, 4.5, 9.0, 12.0, 10.0, 4.0, 0.0]) {
            assert!((sum - expected).abs() < 1e-12, "{sum} {expected}");
        }
        sum.push(5.0);
        sum.clear();
        assert_eq!(sum.push(2.0), libm::log(7.0));
    }

    #[test]
    fn a_huge_count_leaves_no_trace_in_later_sums() {
        let mut sum = MovingSum::new(3);
        for before in 0..3 {
            (0..before).for_each(|_| assert!(sum.push(0.1).is_finite()));
            assert!(sum.push(1e18) > 40.0);
            (0..2).for_each(|_| assert!(sum.push(0.1) > 40.0));
            assert_eq!(sum.push(0.1), libm::log(0.1 + 0.1 + 0.1 + 1.0));
        }
    }
}
