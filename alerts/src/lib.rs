//! From incidents to people and gateways: the policy decides what to do about a key, actions keep how far that is, the
//! outbox sends mails and webhook requests. It also tells customers how much of their quotas is used.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actions;
pub mod email;
mod exchange;
pub mod gateways;
pub mod outbox;
mod policy;
mod quota;
pub mod webhook;

pub use exchange::ClientError;
pub use outbox::{Outbox, OutboxError};
pub use quota::QuotaNoticeRow;
