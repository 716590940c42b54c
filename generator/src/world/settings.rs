//! The settings that a world depends on, with their defaults.

use std::num::NonZeroU64;

use clap::ValueEnum;

use crate::draw::mixed;

pub(crate) const MAX_SPAN_MS: u64 = 366 * 86_400_000;
pub(crate) const MAX_PARTITIONS: u32 = 1_024;

/// The kind of traffic, and the episodes in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Calls at an even rate, without rhythms, batches, retries or events
    #[default]
    Plain,
    /// Usual traffic: days and weeks by the owners' clocks, timetables, batches, retries, spells of errors
    Usual,
    /// Usual traffic with leaks, one of each kind
    Leaks,
    /// Usual traffic with look-alikes, one of each kind
    Benign,
    /// Usual traffic with leaks and look-alikes, one of each kind
    Mixed,
}

/// The log format of the generated gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GatewayFormat {
    /// A JSON object a line, its fields named as in the examples
    #[default]
    Json,
    /// The http-logger and kafka-logger of Apache APISIX
    Apisix,
    /// The http-log and kafka-log of Kong
    Kong,
    /// The combined text line of NGINX and Apache httpd
    Combined,
}

/// A leak of the kind `burst_new_origin`, from a time to the run's end. Its key gets a subscription of its own, with a plan
/// that says `suspend` and a hard quota that the thief uses up. The billing period holds the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak {
    /// In milliseconds since the epoch.
    pub from_ms: u64,
    /// Counts only the thief's calls.
    pub calls_per_hour: u32,
    /// The fewest usual calls that the key is expected to make before the leak.
    pub known_calls: u32,
}

/// The settings of a world and of its calls.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// The number of calls. Lively worlds have about this number, and the calls of episodes on top.
    pub events: NonZeroU64,
    /// Ranges from 1 to 1,000,000.
    pub keys: u32,
    /// The keys that call, as the rank of the first and their number; `None` means all.
    pub callers: Option<(u32, u32)>,
    /// The exponent of Zipf's law, over the keys that call.
    pub zipf: f64,
    /// Ranges from 1 to 10,000.
    pub routes: u32,
    /// Ranges from 1 to 40.
    pub countries: u32,
    /// Event time of the first call, in milliseconds since the epoch.
    pub start_ms: u64,
    /// Event time from the first call to the last, in milliseconds; at most 366 days.
    pub span_ms: u64,
    pub scenario: Scenario,
    /// The number of leaks; with `None` the scenario decides.
    pub leaks: Option<u32>,
    /// The number of look-alikes; with `None` the scenario decides.
    pub look_alikes: Option<u32>,
    /// One leak at a set time, instead of the scenario's episodes.
    pub leak: Option<Leak>,
    /// The calls of the run by which quotas are sized; with `None` it is `events`.
    pub quota_calls: Option<u64>,
    pub seed: u64,
    /// True if no key moves: only servers, offices and homes with fixed addresses call, no client is upgraded, and nothing is
    /// deployed. A demo's history is too short to know other keys.
    pub settled: bool,
    /// The share of networks (/24s and /48s) that geo databases place in another country, 0 to 1. Plain worlds have none.
    pub misplaced: f64,
    pub format: GatewayFormat,
    /// The share of calls a little behind others of their partition, 0 to 1.
    pub out_of_order: f64,
    /// The share of calls far behind others of their partition, 0 to 1.
    pub late: f64,
    /// The share of calls whose record is sent twice, 0 to 1.
    pub duplicates: f64,
    /// The share of calls that are followed by a broken line, 0 to 1.
    pub broken: f64,
    /// Ranges from 1 to 1,024.
    pub partitions: u32,
}

impl WorldSettings {
    /// The default is an hour with 100,000 calls.
    pub const DEFAULT: Self = Self {
        events: NonZeroU64::new(100_000).expect("isn't zero"),
        keys: 1_000,
        callers: None,
        zipf: 1.05,
        routes: 100,
        countries: 15,
        // 2025-06-02T08:00:00Z, a Monday.
        start_ms: 1_748_851_200_000,
        span_ms: 3_600_000,
        scenario: Scenario::Plain,
        leaks: None,
        look_alikes: None,
        leak: None,
        quota_calls: None,
        seed: 1,
        settled: false,
        misplaced: 0.005,
        format: GatewayFormat::Json,
        out_of_order: 0.02,
        late: 0.0,
        duplicates: 0.005,
        broken: 0.0,
        partitions: 1,
    };

    /// Returns the seed of calls. Worlds of one population have other calls, with other ids, if others call.
    pub(crate) fn seed_of_calls(&self) -> u64 {
        match self.callers {
            None => self.seed,
            Some((first, callers)) => mixed([self.seed, first.into(), callers.into()]),
        }
    }
}
