//! A key's traffic of the last six hours, in steps of five minutes.

use serde::{Deserialize, Serialize};

use super::FIVE_MINUTES_MS;

/// Steps that are remembered: six hours.
const STEPS: u64 = 72;

/// Calls of five minutes, against what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Start of the five minutes.
    pub start_ms: u64,
    pub calls: u64,
    pub expected: u64,
}

/// Returns the start of the oldest step that is remembered when the newest ends at `next_ms`.
pub(super) fn since(next_ms: u64) -> u64 {
    next_ms.saturating_sub(STEPS * FIVE_MINUTES_MS)
}
