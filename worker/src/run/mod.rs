//! A live job: its threads, its publisher, and the metrics and health that it serves.

mod actions;
mod api;
mod checkpoint;
mod cluster;
mod commit;
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
mod patience;
mod program;
mod publish;
pub mod restore;
mod sample;
mod tables;
mod tokens;
mod top;
mod watchdog;
mod work;

pub use self::actions::{
    ActionBoard, ActionPage, ActionsPage, AnswerRefusal, DecidedPage, IncidentPage, KeyPage, MutePage,
    SignalPage,
};
pub use self::checkpoint::CheckpointStats;
pub use self::cluster::{ClusterStatus, ClusterView, leave_after_defect, leave_on_panic};
pub use self::commit::LedgerStats;
pub use self::http::{ActionSource, HttpServer, Sampler, TopSource};
pub use self::job::{Handle, LiveJob};
pub use self::observe::WorkerStats;
pub use self::publish::{ResultCounters, Subscriber, SubscriberEvent};
pub use self::sample::JobSample;
pub use self::top::LiveTop;

/// Returns the time in milliseconds since the epoch.
pub type Clock = fn() -> keytide_dataflow::model::Tick;
