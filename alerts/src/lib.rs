//! From incidents to people and gateways: the policy decides what to do about a key, actions keep how far that is, the
//! outbox sends mails and webhook requests.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actions;
pub mod email;
mod exchange;
pub mod gateways;
pub mod outbox;
mod policy;
pub mod webhook;

pub use exchange::ClientError;
pub use outbox::{Outbox, OutboxError};
