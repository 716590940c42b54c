//! What was typed, made definite: every number that a world depends on, the defaults among them.

use std::num::NonZeroU64;

use anyhow::{bail, ensure};
use jiff::SignedDuration;

use super::{Args, Format, Rate, Scenario, Start};

pub(super) const MAX_SPAN_MS: u64 = 366 * 86_400_000;

/// A leak of the kind `burst_new_origin`, of a key whose plan is made to say `suspend`, from a time to the run's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// In milliseconds since the epoch.
    pub(crate) from_ms: u64,
    /// Its calls, the owner's not counted.
    pub(crate) calls_per_hour: u32,
    /// Calls that the key is known by until then, at least.
    pub(crate) known_calls: u32,
}

/// What a world and its calls depend on.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Calls; lively worlds have about so many, and what they stage on top.
    pub(crate) events: NonZeroU64,
    /// 1 to 1,000,000.
    pub(crate) keys: u32,
    /// The keys that call, as the first of them and how many, in the order of popularity; `None`: all.
    pub(crate) callers: Option<(u32, u32)>,
    /// The exponent of Zipf's law, over the keys that call.
    pub(crate) zipf: f64,
    /// 1 to 10,000.
    pub(crate) routes: u32,
    /// 1 to 40.
    pub(crate) countries: u32,
    /// Event time of the first call, in milliseconds since the epoch.
    pub(crate) start_ms: u64,
    /// Event time from the first call to the last, in milliseconds; 1 to 366 days.
    pub(crate) span_ms: u64,
    pub(crate) scenario: Scenario,
    /// As the scenario says, or so many; the next likewise.
    pub(crate) leaks: Option<u32>,
    pub(crate) look_alikes: Option<u32>,
    /// One leak at a set time, instead of what the scenario says.
    pub(crate) leak: Option<Leak>,
    pub(crate) seed: u64,
    pub(crate) format: Format,
    /// Shares of calls, 0 to 1, as the next three.
    pub(crate) out_of_order: f64,
    pub(crate) late: f64,
    pub(crate) duplicates: f64,
    pub(crate) broken: f64,
    /// 1 to 1,024.
    pub(crate) partitions: u32,
}

impl Settings {
    /// An hour of 100,000 calls.
    pub(crate) const DEFAULT: Self = Self {
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
        seed: 1,
        format: Format::Json,
        out_of_order: 0.02,
        late: 0.0,
        duplicates: 0.005,
        broken: 0.0,
        partitions: 1,
    };

    /// What `args` mean at `now_ms`, of a topic with so many partitions (or of files).
    ///
    /// # Errors
    /// If calls are to happen now and it doesn't follow how many or for how long.
    pub(super) fn new(args: &Args, now_ms: u64, partitions: Option<u32>) -> anyhow::Result<Self> {
        let days = args.days.map(|days| SignedDuration::from_hours(24 * i64::from(days)));
        let span_ms = days.or(args.span).and_then(|span| u64::try_from(span.as_millis()).ok());
        let (start_ms, span_ms, events) = match args.start {
            Start::At(start) => (
                u64::try_from(start.as_millisecond()).unwrap_or(0),
                span_ms.unwrap_or(Self::DEFAULT.span_ms),
                args.events.unwrap_or(Self::DEFAULT.events),
            ),
            Start::Now => {
                let Some(Rate::PerSecond(rate)) = args.rate else {
                    bail!("--start now needs --kafka and --rate N: calls then happen when they are sent");
                };
                let (span_ms, events) = live(rate, span_ms, args.events)?;
                (now_ms, span_ms, events)
            }
        };
        Ok(Self {
            events,
            keys: args.keys,
            callers: None,
            zipf: args.zipf,
            routes: args.routes,
            countries: args.countries,
            start_ms,
            span_ms,
            scenario: args.scenario,
            leaks: args.leaks,
            look_alikes: args.look_alikes,
            leak: None,
            seed: args.seed,
            format: args.format,
            out_of_order: args.out_of_order,
            late: args.late,
            duplicates: args.duplicates,
            broken: args.broken,
            partitions: partitions.unwrap_or(args.partitions).clamp(1, super::MAX_PARTITIONS),
        })
    }
}

/// How long a run takes that makes `rate` calls a second, and how many it makes.
fn live(rate: u32, span_ms: Option<u64>, events: Option<NonZeroU64>) -> anyhow::Result<(u64, NonZeroU64)> {
    let rate = u64::from(rate);
    match (span_ms, events) {
        (Some(_), Some(_)) => bail!(
            "with --start now, --rate and --events say how long it takes: leave out --span and --days, or --events"
        ),
        (None, Some(events)) => {
            let span_ms = (u128::from(events.get()) * 1_000).div_ceil(u128::from(rate));
            let span_ms = u64::try_from(span_ms).unwrap_or(u64::MAX);
            ensure!(span_ms <= MAX_SPAN_MS, "--events would take more than 366 days at this --rate");
            Ok((span_ms, events))
        }
        (span_ms, None) => {
            let span_ms = span_ms.unwrap_or(Settings::DEFAULT.span_ms);
            Ok((span_ms, NonZeroU64::new(span_ms * rate / 1_000).unwrap_or(NonZeroU64::MIN)))
        }
    }
}
