//! Answers at request time: may this key call now, and how do quotas stand?
//!
//! ```text
//! tables, published ticks ──► ledger ◄── routes ◄── server: own port, own threads
//! ```

pub mod auth;
mod bodies;
mod headers;
pub mod ledger;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use self::server::ApiServer;
