//! Answers at request time: may this key call now, and how do quotas stand?
//!
//! ```text
//! tables, published ticks ──► ledger ◄────┬─ routes ◄── server: own port, own threads
//! published rows ───────────► shelf ◄─────┤
//! tables ───────────────────► directory ◄─┘  pages: files of the program
//! ```

pub mod auth;
mod bodies;
pub mod directory;
mod headers;
pub mod ledger;
mod links;
mod listing;
mod own_incidents;
mod pages;
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

use keytide_connectors::tables::TablesRead;
use keytide_dataflow::model::TableChange;

use self::directory::Directory;
use self::ledger::QuotaLedger;
pub use self::server::ApiServer;
use self::shelf::Shelf;

/// The data from which requests are answered, and which the job keeps up to date.
#[derive(Clone, Debug)]
pub struct ApiData {
    pub ledger: Arc<QuotaLedger>,
    pub shelf: Arc<Shelf>,
    pub directory: Arc<Directory>,
}

impl ApiData {
    /// Takes what was read of the tables.
    pub fn take_tables(&self, read: &TablesRead, now_ms: u64) {
        self.directory.apply((&read.changes, &read.definitions), &self.ledger, now_ms);
    }

    /// Takes rows that an earlier life of the job had read. Their strings come when the tables are read again.
    pub fn take_rows(&self, rows: &[TableChange], now_ms: u64) {
        self.directory.apply((rows, &[]), &self.ledger, now_ms);
    }
}
