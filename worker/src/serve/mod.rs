//! Answers at request time: may this key call now, and how do quotas stand?
//!
//! ```text
//! tables, published ticks ──► ledger ◄─┬─ routes ◄── server: own port, own threads
//! published rows ───────────► shelf ◄──┘
//! ```

pub mod auth;
mod bodies;
mod headers;
pub mod ledger;
mod reply;
mod routes;
mod rows;
mod server;
mod settle;
pub mod shelf;
pub mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::ledger::QuotaLedger;
pub use self::server::ApiServer;
use self::shelf::Shelf;

/// The data from which requests are answered, and which the job keeps up to date.
#[derive(Clone, Debug)]
pub struct ApiData {
    pub ledger: Arc<QuotaLedger>,
    pub shelf: Arc<Shelf>,
}
