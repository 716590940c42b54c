//! Defines time: ticks are the dataflow's timestamps, event times are data.

use serde::{Deserialize, Serialize};

/// A timestamp of the dataflow: processing time in ms since the epoch, decided once and recorded.
pub type Tick = u64;

/// An event time in ms since the epoch.
pub type EventTime = u64;

/// The coordinator's decisions about one tick. Every worker is given the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickInfo {
    pub tick: Tick,
    /// The watermark as the tick's records found it, which is the previous tick's `watermark`.
    pub watermark_before: EventTime,
    /// The watermark after the tick's records.
    pub watermark: EventTime,
    /// The clock of publication cadences. In live runs it is the tick. In bounded runs it is the watermark, because
    /// their ticks follow input instead of time.
    pub cadence: u64,
    /// True if the watermark was held back, because more than a minute of input waits. Later ticks follow at once.
    pub catching_up: bool,
    /// True for the last tick of a bounded input.
    pub last: bool,
}
