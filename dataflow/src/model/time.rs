//! Widths of time in milliseconds, the unit of all times of the dataflow.

/// 1 s in ms.
pub const SECOND_MS: u64 = 1_000;
/// 1 min in ms.
pub const MINUTE_MS: u64 = 60 * SECOND_MS;
/// 1 h in ms.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// 24 h in ms.
pub const DAY_MS: u64 = 24 * HOUR_MS;
