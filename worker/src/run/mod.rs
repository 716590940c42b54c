//! A live job: its threads, what it publishes, and how it is looked at.

mod first;
#[cfg(test)]
mod gateways;
mod gather;
mod health;
mod http;
mod job;
mod metrics;
mod observe;
mod publish;
mod tables;
mod tell;
mod work;

pub use self::http::{Look, Server};
pub use self::job::{Clock, Handle, Job};
pub use self::observe::{Observed, Sample};
pub use self::publish::{Counted, Heard, Tap};
