//! Names widths of time in milliseconds, the unit of all times of the dataflow.

/// The number of milliseconds in a second.
pub const SECOND_MS: u64 = 1_000;
/// The number of milliseconds in a minute.
pub const MINUTE_MS: u64 = 60 * SECOND_MS;
/// The number of milliseconds in an hour.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// The number of milliseconds in a day of 24 hours.
pub const DAY_MS: u64 = 24 * HOUR_MS;
