//! One request, one connection, to an address that was judged before.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keytide_config::Webhook;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::{SignedRequest, WebhookBatch, WebhookOutcome, guard};

/// Bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Headers of an answer.
const MAX_HEADERS: usize = 64;
/// Addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;
/// The longest that a receiver can ask for.
const MAX_AFTER_S: u64 = 3_600;

/// A client that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("webhooks: {0}")]
    Runtime(#[from] io::Error),
    #[error("webhooks: TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Looks up the addresses of a host and port. May block.
type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Sends requests to one webhook. Blocks while it does, for at most the webhook's time.
pub struct Client {
    webhook: Webhook,
    runtime: Option<Runtime>,
    tls: TlsConnector,
    resolve: Resolve,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.webhook).finish()
    }
}

/// Why a request has no answer.
enum RequestFailure {
    /// It was never sent, and won't be while this is so.
    Forbidden(String),
    Network(String),
}

impl Client {
    /// One that trusts whom this system trusts.
    ///
    /// # Errors
    /// If there are no threads, or no certificates to trust.
    pub fn new(webhook: &Webhook) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        // Who talks without TLS needs no certificates to trust.
        let config = match webhook.url.tls {
            true => builder.with_platform_verifier()?.with_no_client_auth(),
            false => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        let resolve =
            |host: &str, port: u16| Ok((host, port).to_socket_addrs()?.map(|address| address.ip()).collect());
        Self::with(webhook, config, Arc::new(resolve))
    }

    pub(super) fn with(webhook: &Webhook, tls: ClientConfig, resolve: Resolve) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = TlsConnector::from(Arc::new(tls));
        Ok(Self { webhook: webhook.clone(), runtime: Some(runtime), tls, resolve })
    }

    /// Sends rows, with the time as it is now in milliseconds since 1970.
    #[must_use]
    pub fn send(&self, batch: &WebhookBatch, now_ms: u64) -> WebhookOutcome {
        self.post(SignedRequest::new(&self.webhook, batch, now_ms / 1_000), now_ms)
    }

    /// Sends a request that says that it is a test.
    #[must_use]
    pub fn test(&self, now_ms: u64) -> WebhookOutcome {
        self.post(SignedRequest::test(&self.webhook, now_ms / 1_000), now_ms)
    }

    /// Looks up where the webhook is.
    ///
    /// # Errors
    /// If it is nowhere, or where it may not be.
    pub fn resolve(&self) -> Result<Vec<IpAddr>, String> {
        match self.timely(self.addresses()) {
            Ok(addresses) => Ok(addresses),
            Err(RequestFailure::Forbidden(reason) | RequestFailure::Network(reason)) => Err(reason),
        }
    }

    fn timely<T>(&self, work: impl Future<Output = Result<T, RequestFailure>>) -> Result<T, RequestFailure> {
        let runtime = self.runtime.as_ref().expect("it is taken when dropped");
        let timeout = Duration::from_millis(self.webhook.timeout_ms);
        let work = async { tokio::time::timeout(timeout, work).await };
        runtime
            .block_on(work)
            .unwrap_or_else(|_| Err(RequestFailure::Network("no answer in time".to_owned())))
    }

    fn post(&self, request: SignedRequest, now_ms: u64) -> WebhookOutcome {
        match self.timely(self.exchange(request)) {
            Ok(answer) => judge(&answer, now_ms),
            Err(RequestFailure::Forbidden(reason) | RequestFailure::Network(reason)) => {
                WebhookOutcome::Retry { reason, after_ms: None }
            }
        }
    }

    /// Where the webhook is, if all of it is where it may be.
    async fn addresses(&self) -> Result<Vec<IpAddr>, RequestFailure> {
        let url = &self.webhook.url;
        let (resolve, host, port) = (self.resolve.clone(), url.host.clone(), url.port);
        let found = tokio::task::spawn_blocking(move || resolve(&host, port)).await;
        let mut addresses = match found {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(RequestFailure::Network(format!("{}: {error}", url.host))),
            Err(error) => return Err(RequestFailure::Network(format!("{}: {error}", url.host))),
        };
        if addresses.is_empty() {
            return Err(RequestFailure::Network(format!("{} has no address", url.host)));
        }
        if !self.webhook.allow_private.contains(&url.host) {
            let refused = addresses.iter().find_map(|address| Some((address, guard::refused(*address)?)));
            if let Some((address, why)) = refused {
                let host = &url.host;
                return Err(RequestFailure::Forbidden(format!(
                    "{host} is at {address}, {why}; allowed: hosts that are public, or that allow_private names"
                )));
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    async fn exchange(&self, request: SignedRequest) -> Result<Response<()>, RequestFailure> {
        let url = &self.webhook.url;
        let network =
            |error: &dyn std::fmt::Display| RequestFailure::Network(format!("{}: {error}", url.host));
        let mut failure = None;
        for address in self.addresses().await? {
            match TcpStream::connect(SocketAddr::new(address, url.port)).await {
                Ok(stream) if url.tls => {
                    let name = match url.host.parse::<IpAddr>() {
                        Ok(address) => ServerName::IpAddress(address.into()),
                        Err(_) => ServerName::try_from(url.host.clone()).map_err(|error| network(&error))?,
                    };
                    let stream = self.tls.connect(name, stream).await.map_err(|error| network(&error))?;
                    return self.ask(stream, request).await;
                }
                Ok(stream) => return self.ask(stream, request).await,
                Err(error) => failure = Some(network(&error)),
            }
        }
        Err(failure.unwrap_or_else(|| network(&"no address")))
    }

    /// Asks over a connection, which is closed with the answer's head.
    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: SignedRequest,
    ) -> Result<Response<()>, RequestFailure> {
        let url = &self.webhook.url;
        let network =
            |error: &dyn std::fmt::Display| RequestFailure::Network(format!("{}: {error}", url.host));
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| network(&error))?;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let usual = if url.tls { 443 } else { 80 };
        let host = if url.port == usual { host } else { format!("{host}:{}", url.port) };
        let mut builder = hyper::Request::builder()
            .method(Method::POST)
            .uri(url.target.reveal())
            .header(HOST, host)
            .header(USER_AGENT, concat!("keytide/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        // The target may be a secret: of what is wrong with it nothing is told.
        let request = builder.body(Full::new(Bytes::from(request.body))).map_err(|_| {
            RequestFailure::Forbidden(format!("{}: the webhook's URL can't be asked for", url.host))
        })?;
        let answer = async { sender.send_request(request).await.map(|answer| answer.map(drop)) };
        tokio::pin!(connection, answer);
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        answer.map_err(|error| network(&error))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A look-up that hangs is left behind.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn judge(answer: &Response<()>, now_ms: u64) -> WebhookOutcome {
    let status = answer.status();
    let reason = format!("the receiver answered {status}");
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_success() {
        WebhookOutcome::Sent
    } else if status.is_server_error() || passing.contains(&status) {
        let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        WebhookOutcome::Retry { reason, after_ms: after.and_then(|after| after_ms(after, now_ms)) }
    } else if status.is_redirection() {
        WebhookOutcome::Refused(format!("{reason}; redirects aren't followed"))
    } else {
        WebhookOutcome::Refused(reason)
    }
}

/// What `Retry-After` asks for: seconds, or a time.
fn after_ms(text: &str, now_ms: u64) -> Option<u64> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(seconds.min(MAX_AFTER_S) * 1_000);
    }
    let time = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_millisecond();
    Some(u64::try_from(time).ok()?.saturating_sub(now_ms).min(MAX_AFTER_S * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_may_ask_for_time() {
        let now_ms = 1_718_452_800_000;
        assert_eq!(after_ms("7", now_ms), Some(7_000));
        assert_eq!(after_ms(" 99999999999 ", now_ms), Some(3_600_000));
        assert_eq!(after_ms("Sat, 15 Jun 2024 12:00:30 GMT", now_ms), Some(30_000));
        assert_eq!(after_ms("Fri, 14 Jun 2024 12:00:30 GMT", now_ms), Some(0));
        for bad in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(after_ms(bad, now_ms), None, "{bad}");
        }
    }
}
