//! The level that ln(1 + x) has, and how far counts lie from it.

use serde::{Deserialize, Serialize};

/// Residuals beyond so many standard deviations teach no more.
pub(super) const CLIP: f64 = 4.0;
/// Least variance of the residuals: a series on a timetable has none.
const LEAST_VARIANCE: f64 = 1e-3;

/// Mean and variance of what is left of ln(1 + x) without its season.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    pub(super) mean: f64,
    variance: f64,
}

/// How far a count lies from where it was expected, in units of ln(1 + x).
#[derive(Clone, Copy, Debug)]
pub(super) struct Residual {
    value: f64,
    deviation: f64,
}

impl Residual {
    /// Returns the distance from the expected value, in standard deviations.
    pub(super) fn z(self) -> f64 {
        self.value / self.deviation
    }
}

impl Baseline {
    /// A baseline that knows one row, whose ln(1 + x) is `y`.
    pub(super) fn new(y: f64) -> Self {
        Self { mean: y, variance: 1.0 }
    }

    /// Compares `y` with what is expected. To the variance that was learned comes that of ln(1 + x) if x counts
    /// independent calls (delta method: Poisson variance over the square of the mean).
    pub(super) fn residual(&self, y: f64, expected: f64) -> Residual {
        // e^b may overflow to infinity, whose reciprocal is the right limit.
        let deviation = (self.variance + 1.0 / (1.0 + libm::exp(expected))).sqrt();
        Residual { value: y - expected, deviation }
    }

    /// Learns a residual and returns as much of it as teaches.
    pub(super) fn learn(&mut self, residual: Residual, gain: f64) -> f64 {
        let most = CLIP * residual.deviation;
        let clipped = residual.value.clamp(-most, most);
        self.mean += gain * clipped;
        self.variance = (self.variance + gain * (clipped * clipped - self.variance)).max(LEAST_VARIANCE);
        clipped
    }
}
