//! A live job: its threads, what it publishes, and how it is looked at.

mod first;
#[cfg(test)]
mod gateways;
mod gather;
mod health;
mod http;
mod job;
mod metrics;
mod notify;
mod observe;
mod publish;
mod sample;
mod tables;
mod work;

pub use self::http::{Look, Server};
pub use self::job::{Handle, Job};
pub use self::observe::Observed;
pub use self::publish::{Counted, Heard, Tap};
pub use self::sample::Sample;

/// Returns the time, in milliseconds since the epoch.
pub type Clock = fn() -> keytide_dataflow::model::Tick;
