//! The client sends one request over one connection, to an address that was judged just before.

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
use keytide_config::{LinkTemplate, Webhook};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::{SignedRequest, WebhookBatch, WebhookOutcome, guard};

/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The most headers of an answer.
const MAX_HEADERS: usize = 64;
/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;
/// The longest wait that a receiver can ask for.
const MAX_AFTER_S: u64 = 3_600;

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("webhooks: {0}")]
    Runtime(#[from] io::Error),
    #[error("webhooks: TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Looks up the addresses of a host and port. It may block.
type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Sends requests to one webhook. Each call blocks for at most the webhook's timeout.
pub struct Client {
    webhook: Webhook,
    link: Option<LinkTemplate>,
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
    /// The request wasn't sent, because an address or the URL isn't allowed.
    Forbidden(String),
    Network(String),
}

impl Client {
    /// Creates a client that trusts the certificates of this system. Messages for people have the `link`.
    ///
    /// # Errors
    /// If a runtime can't be started, or the system has no trusted certificates.
    pub fn new(webhook: &Webhook, link: Option<&LinkTemplate>) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        // Without TLS a system without trusted certificates is no error.
        let config = match webhook.url.tls {
            true => builder.with_platform_verifier()?.with_no_client_auth(),
            false => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        let resolve =
            |host: &str, port: u16| Ok((host, port).to_socket_addrs()?.map(|address| address.ip()).collect());
        let mut client = Self::with(webhook, config, Arc::new(resolve))?;
        client.link = link.cloned();
        Ok(client)
    }

    pub(super) fn with(webhook: &Webhook, tls: ClientConfig, resolve: Resolve) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = TlsConnector::from(Arc::new(tls));
        Ok(Self { webhook: webhook.clone(), link: None, runtime: Some(runtime), tls, resolve })
    }

    /// Sends a batch of rows. `now_ms` is in milliseconds since 1970.
    #[must_use]
    pub fn send(&self, batch: &WebhookBatch, now_ms: u64) -> WebhookOutcome {
        self.post(SignedRequest::new(&self.webhook, self.link.as_ref(), batch, now_ms / 1_000), now_ms)
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
        match self.timely(self.addresses()) {
            Ok(addresses) => Ok(addresses),
            Err(RequestFailure::Forbidden(reason) | RequestFailure::Network(reason)) => Err(reason),
        }
    }

    /// Runs an exchange within the webhook's timeout.
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

    /// Looks up the webhook's addresses. One address that isn't allowed makes all of them fail.
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

    /// Sends the request over a connection, and closes it after the head of the answer.
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
        // The error would quote the target, which may be a secret.
        let request = builder.body(Full::new(Bytes::from(request.body))).map_err(|_| {
            RequestFailure::Forbidden(format!("{}: the webhook's URL can't be asked for", url.host))
        })?;
        // The connection has to be polled beside the answer, as it does the reading and writing.
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
        // Dropping a runtime normally would wait for a look-up that hangs.
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

/// Parses `Retry-After`, which holds seconds or a time. Returns milliseconds from now.
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
