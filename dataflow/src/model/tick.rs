//! Time: ticks are the dataflow's timestamps, event times are data.

use serde::{Deserialize, Serialize};

/// The dataflow's timestamp: processing time in milliseconds since the epoch, decided once and recorded.
pub type Tick = u64;

/// Event time in milliseconds since the epoch.
pub type EventTime = u64;

/// What the coordinator decided about one tick. Every worker is given the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickInfo {
    pub tick: Tick,
    /// The watermark as the tick's records found it: the previous tick's `watermark`.
    pub watermark_before: EventTime,
    /// The watermark once the tick's records are in.
    pub watermark: EventTime,
    /// What publication cadences are measured by: the tick itself in live runs, the watermark in bounded
    /// ones, whose ticks follow input instead of time.
    pub cadence: u64,
    /// The watermark was held back: there is more than a minute of input, and later ticks follow at once.
    pub catching_up: bool,
    /// Nothing follows: the input was bounded and this is its last tick.
    pub last: bool,
}
