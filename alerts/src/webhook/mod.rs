//! Webhooks: incidents and notices about quotas as signed requests, or these and actions as messages for Slack.
//!
//! A request is a POST whose body is the row of `incident_log` or `notices` as it was published, with these headers:
//!
//! ```text
//! Keytide-Id: INCIDENT.SEQ                  the same whenever it is sent again; of a row of notices quota-ID.SEQ, for
//!                                           Slack also action-ID.SEQ
//! Keytide-Timestamp: 1718452800             seconds since 1970
//! Keytide-Signature: v1=HEX                 HMAC-SHA-256 with the secret over TIMESTAMP "." BODY
//! Keytide-Skipped: 12                       rows that were dropped before it, as too many were waiting
//! ```
//! A receiver compares the signature in constant time, refuses timestamps that are minutes away, and remembers ids.
//!
//! Only status and headers of an answer are read. The limits are those of `exchange/`.

mod client;
mod slack;
#[cfg(test)]
mod tests;

pub use self::client::Client;

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::{Secret, Webhook, WebhookFormat};
use keytide_dataflow::model::hex;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use std::sync::Arc;

use crate::actions::{ActionNotice, GatewayNotice};
use crate::email::{Guide, PlannedAction};

/// What a webhook is told. Only messages for Slack have more than incidents and notices about quotas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookRow {
    /// A row of `incident_log` as it was published, and the action that says what is done about its key.
    Incident(Arc<[u8]>, Option<PlannedAction>),
    Action(Arc<ActionNotice>),
    Gateway(Arc<GatewayNotice>),
    /// A row of `notices` as it was published.
    Quota(Arc<[u8]>),
}

/// The rows of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookBatch {
    /// The name of its first row. Of an incident's it has the form `incident.seq`.
    pub id: String,
    /// Holds one row, or for Slack up to [`ROWS`].
    pub rows: Vec<WebhookRow>,
    /// Counts the rows that were dropped before this batch.
    pub skipped: u64,
}

/// The most rows in one message for Slack.
pub const ROWS: usize = 20;

/// The outcome of one attempt to send a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    Sent,
    Retry {
        reason: String,
        /// The shortest wait that the receiver asks for.
        after_ms: Option<u64>,
    },
    /// The receiver will never take this request.
    Refused(String),
}

/// The headers and body of a request, signed if the webhook has a secret.
pub(crate) struct SignedRequest {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl SignedRequest {
    /// Builds the request for a batch. `now_s` is in seconds since 1970.
    pub(crate) fn new(webhook: &Webhook, guide: &Guide, batch: &WebhookBatch, now_s: u64) -> Self {
        let body = match (webhook.format, batch.rows.first()) {
            (WebhookFormat::Keytide, Some(WebhookRow::Incident(row, _) | WebhookRow::Quota(row))) => {
                row.to_vec()
            }
            (WebhookFormat::Keytide, _) => Vec::new(),
            (WebhookFormat::Slack, _) => slack::message(&batch.rows, batch.skipped, guide),
        };
        let mut request = Self::signed(webhook.secret.as_ref(), &batch.id, now_s, body);
        if batch.skipped > 0 {
            request.headers.push(("Keytide-Skipped", batch.skipped.to_string()));
        }
        request
    }

    /// Builds a request that says that it is a test.
    pub(crate) fn test(webhook: &Webhook, now_s: u64) -> Self {
        let text = "This is a test by Keytide: it is no incident, and nothing is to be done.";
        let body = match webhook.format {
            WebhookFormat::Keytide => serde_json::json!({ "test": true, "text": text }),
            WebhookFormat::Slack => serde_json::json!({ "text": text }),
        };
        let id = format!("test.{now_s}");
        Self::signed(webhook.secret.as_ref(), &id, now_s, body.to_string().into_bytes())
    }

    pub(crate) fn signed(secret: Option<&Secret>, id: &str, now_s: u64, body: Vec<u8>) -> Self {
        let mut headers = vec![("Keytide-Id", id.to_owned()), ("Keytide-Timestamp", now_s.to_string())];
        if let Some(secret) = secret {
            headers.push(("Keytide-Signature", signature(secret, now_s, &body)));
        }
        Self { headers, body }
    }
}

/// Returns `v1=` and the HMAC-SHA-256 of `timestamp.body` in hex.
#[must_use]
pub fn signature(secret: &Secret, timestamp_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("a key of any length");
    mac.update(format!("{timestamp_s}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}
