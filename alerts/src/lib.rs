//! From incidents to people: the policy decides what to do about a key, the outbox sends mails and webhook requests.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod email;
pub mod outbox;
pub mod policy;
pub mod webhook;

pub use outbox::{Outbox, OutboxError};
