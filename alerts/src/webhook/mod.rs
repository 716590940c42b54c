//! Webhooks: incidents as signed requests, or as messages for Slack.
//!
//! A request is a POST with the row of `incident_log` as it was published, and
//!
//! ```text
//! Keytide-Id: INCIDENT.SEQ                  the same whenever it is sent again
//! Keytide-Timestamp: 1718452800             seconds since 1970
//! Keytide-Signature: v1=HEX                 HMAC-SHA-256 with the secret over TIMESTAMP "." BODY
//! Keytide-Skipped: 12                       rows that were left out before it, as too many were waiting
//! ```
//! A receiver compares the signature in constant time, refuses timestamps that are minutes away, and remembers ids.
//!
//! A request goes to an address that was looked up and judged a moment before, and to no other (`guard.rs`): a name
//! that changes its address in between gains nothing. Redirects aren't followed. Of an answer only status and headers
//! are read. Limits: 32 KiB and 64 headers of an answer, and the webhook's own time for all of it.

mod client;
mod guard;
mod slack;
#[cfg(test)]
mod tests;

pub use self::client::{Client, ClientError};

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::{Secret, Webhook, WebhookFormat};
use keytide_dataflow::model::hex;
use sha2::Sha256;

use keytide_dataflow::incident_row::Transition;

/// What a request is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookBatch {
    /// `incident.seq` of its first row.
    pub id: String,
    /// Its rows: one, or for Slack up to [`ROWS`].
    pub rows: Vec<std::sync::Arc<[u8]>>,
    /// Rows that were left out before it.
    pub skipped: u64,
}

/// Rows that one message for Slack tells of.
pub const ROWS: usize = 20;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    Sent,
    /// Try again, not before so many milliseconds.
    Retry {
        reason: String,
        /// What the receiver asks for.
        after_ms: Option<u64>,
    },
    /// It will never be taken.
    Refused(String),
}

/// A request's headers and body.
pub(crate) struct SignedRequest {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl SignedRequest {
    /// What `webhook` is sent at `now_s`, in seconds since 1970.
    pub(crate) fn new(webhook: &Webhook, batch: &WebhookBatch, now_s: u64) -> Self {
        let body = match webhook.format {
            WebhookFormat::Keytide => batch.rows.first().map(|row| row.to_vec()).unwrap_or_default(),
            WebhookFormat::Slack => {
                let rows: Vec<Transition> =
                    batch.rows.iter().filter_map(|row| serde_json::from_slice(row).ok()).collect();
                slack::message(&rows, batch.skipped)
            }
        };
        let mut request = Self::signed(webhook.secret.as_ref(), &batch.id, now_s, body);
        if batch.skipped > 0 {
            request.headers.push(("Keytide-Skipped", batch.skipped.to_string()));
        }
        request
    }

    /// One that says that it is a test.
    pub(crate) fn test(webhook: &Webhook, now_s: u64) -> Self {
        let text = "This is a test by Keytide: it is no incident, and nothing is to be done.";
        let body = match webhook.format {
            WebhookFormat::Keytide => serde_json::json!({ "test": true, "text": text }),
            WebhookFormat::Slack => serde_json::json!({ "text": text }),
        };
        let id = format!("test.{now_s}");
        Self::signed(webhook.secret.as_ref(), &id, now_s, body.to_string().into_bytes())
    }

    fn signed(secret: Option<&Secret>, id: &str, now_s: u64, body: Vec<u8>) -> Self {
        let mut headers = vec![("Keytide-Id", id.to_owned()), ("Keytide-Timestamp", now_s.to_string())];
        if let Some(secret) = secret {
            headers.push(("Keytide-Signature", signature(secret, now_s, &body)));
        }
        Self { headers, body }
    }
}

/// `v1=` and the HMAC-SHA-256 of `timestamp.body`.
#[must_use]
pub fn signature(secret: &Secret, timestamp_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("a key of any length");
    mac.update(format!("{timestamp_s}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}
