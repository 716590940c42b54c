//! The client sends rows to one webhook, and judges the answers by their status.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use keytide_config::{Endpoint, Webhook};

use super::{SignedRequest, WebhookBatch, WebhookOutcome};
use crate::email::Guide;
use crate::exchange::{ClientError, HttpAnswer, HttpCall, HttpClient, SecretBytes};

/// Sends requests to one webhook. Each call blocks for at most the webhook's timeout.
pub struct Client {
    webhook: Webhook,
    guide: Guide,
    http: HttpClient,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.webhook).finish()
    }
}

impl Client {
    /// Creates a client that trusts the certificates of this system. Messages for people have the link and
    /// the commands of `guide`.
    ///
    /// # Errors
    /// If a runtime can't be started, or the system has no trusted certificates.
    pub fn new(webhook: &Webhook, guide: Guide) -> Result<Self, ClientError> {
        let http = HttpClient::new(&endpoint(webhook))?;
        Ok(Self { webhook: webhook.clone(), guide, http })
    }

    #[cfg(test)]
    pub(super) fn with(
        webhook: &Webhook,
        tls: rustls::ClientConfig,
        resolve: crate::exchange::Resolve,
    ) -> Result<Self, ClientError> {
        let http = HttpClient::with(endpoint(webhook), tls, resolve)?;
        Ok(Self { webhook: webhook.clone(), guide: Guide::default(), http })
    }

    /// Sends a batch of rows. `now_ms` is in milliseconds since 1970.
    #[must_use]
    pub fn send(&self, batch: &WebhookBatch, now_ms: u64) -> WebhookOutcome {
        self.post(SignedRequest::new(&self.webhook, &self.guide, batch, now_ms / 1_000), now_ms)
    }

    /// Sends a request that says that it is a test.
    #[must_use]
    pub fn test(&self, now_ms: u64) -> WebhookOutcome {
        self.post(SignedRequest::test(&self.webhook, now_ms / 1_000), now_ms)
    }

    /// Looks up the webhook's addresses.
    ///
    /// # Errors
    /// If it has none, or one that isn't allowed.
    pub fn resolve(&self) -> Result<Vec<IpAddr>, String> {
        self.http.resolve()
    }

    fn post(&self, request: SignedRequest, now_ms: u64) -> WebhookOutcome {
        let SignedRequest { headers, body: bytes } = request;
        let mut body = SecretBytes::with_capacity(bytes.len());
        body.push(&bytes);
        let target = self.webhook.url.target.reveal().to_owned();
        let call = HttpCall { method: Method::POST, target, headers, body, reads: false };
        match self.http.send(call, now_ms) {
            Ok(answer) => judge(&answer),
            Err(reason) => WebhookOutcome::Retry { reason, after_ms: None },
        }
    }
}

fn endpoint(webhook: &Webhook) -> Endpoint {
    Endpoint {
        url: webhook.url.clone(),
        allow_private: webhook.allow_private.clone(),
        timeout_ms: webhook.timeout_ms,
    }
}

fn judge(answer: &HttpAnswer) -> WebhookOutcome {
    let status = answer.status;
    let reason = format!("the receiver answered {status}");
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_success() {
        WebhookOutcome::Sent
    } else if status.is_server_error() || passing.contains(&status) {
        WebhookOutcome::Retry { reason, after_ms: answer.after_ms }
    } else if status.is_redirection() {
        WebhookOutcome::Refused(format!("{reason}; redirects aren't followed"))
    } else {
        WebhookOutcome::Refused(reason)
    }
}
