//! From incidents to people: what is to be done about a key, and who is told how.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod email;
pub mod outbox;
pub mod policy;
pub mod webhook;

pub use outbox::{Outbox, OutboxError};
