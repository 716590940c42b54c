//! One request over one connection, to an address that was judged just before.
//!
//! A request connects only to an address that `guard.rs` has just judged. A name that changes its address meanwhile
//! gains nothing by it. Redirects aren't followed.
//!
//! A body may hold a raw key. So bodies, of requests that say so and of answers, are overwritten when they are dropped
//! and can't be shown. The buffers of the libraries for HTTP and TLS aren't overwritten.
//!
//! Limits: 32 KiB and 64 headers of an answer, 256 KiB of its body, and the endpoint's own timeout for the whole exchange.

mod guard;
mod pace;

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keytide_config::Endpoint;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use self::pace::Pace;

/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// The largest body of an answer that is read.
const MAX_BODY_BYTES: usize = 256 << 10;
/// The most headers of an answer.
const MAX_HEADERS: usize = 64;
/// The most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;
/// The longest wait that a receiver can ask for.
const MAX_AFTER_S: u64 = 3_600;

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("calls over HTTP: {0}")]
    Runtime(#[from] io::Error),
    #[error("calls over HTTP: TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Looks up the addresses of a host and port. It may block.
pub(crate) type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Bytes that may hold a raw key: they are overwritten when dropped, and have no `Debug`.
pub(crate) struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Makes a buffer that is never moved as long as it holds at most `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends bytes. What doesn't fit into the buffer goes to a larger one, and the old one is overwritten.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Self::with_capacity(2 * (self.0.len() + bytes.len()));
            larger.0.extend_from_slice(&self.0);
            *self = larger;
        }
        self.0.extend_from_slice(bytes);
    }
}

impl AsRef<[u8]> for SecretBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A request to an endpoint.
pub(crate) struct HttpCall {
    pub(crate) method: Method,
    /// What is asked for at the host: path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// JSON; empty if there is none.
    pub(crate) body: SecretBytes,
    /// True if the body of the answer is of interest.
    pub(crate) reads: bool,
}

/// An answer to a request.
pub(crate) struct HttpAnswer {
    pub(crate) status: StatusCode,
    /// The shortest wait that `Retry-After` asks for.
    pub(crate) after_ms: Option<u64>,
    /// The name of the error that a service of AWS gives.
    pub(crate) error: Option<String>,
    /// The body, if the call reads it.
    pub(crate) body: SecretBytes,
}

/// Sends requests to one endpoint. Each call blocks for at most the endpoint's timeout.
pub(crate) struct HttpClient {
    endpoint: Endpoint,
    runtime: Option<Runtime>,
    tls: TlsConnector,
    resolve: Resolve,
    pace: Option<RefCell<Pace>>,
}

impl HttpClient {
    /// Creates a client that trusts the certificates of this system.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        // Without TLS a system without trusted certificates is no error.
        let config = match endpoint.url.tls {
            true => builder.with_platform_verifier()?.with_no_client_auth(),
            false => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        let resolve =
            |host: &str, port: u16| Ok((host, port).to_socket_addrs()?.map(|address| address.ip()).collect());
        Self::with(endpoint.clone(), config, Arc::new(resolve))
    }

    pub(crate) fn with(endpoint: Endpoint, tls: ClientConfig, resolve: Resolve) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = TlsConnector::from(Arc::new(tls));
        Ok(Self { endpoint, runtime: Some(runtime), tls, resolve, pace: None })
    }

    /// Limits how many requests are sent within a second.
    pub(crate) fn at_most(mut self, per_second: usize) -> Self {
        self.pace = Some(RefCell::new(Pace::new(per_second)));
        self
    }

    /// Waits until the next request may be sent, for at most a second.
    pub(crate) fn pace(&self) {
        let Some(pace) = &self.pace else { return };
        let wait = pace.borrow_mut().next(Instant::now());
        if !wait.is_zero() {
            // A timer is made within the runtime.
            self.runtime().block_on(async { tokio::time::sleep(wait).await });
        }
    }

    /// Returns the value of the header `Host`.
    pub(crate) fn host(&self) -> String {
        let url = &self.endpoint.url;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        let usual = if url.tls { 443 } else { 80 };
        if url.port == usual { host } else { format!("{host}:{}", url.port) }
    }

    /// Looks up the endpoint's addresses. Fails if it has none, or one that isn't allowed.
    pub(crate) fn resolve(&self) -> Result<Vec<IpAddr>, String> {
        self.timely(self.addresses())
    }

    /// Sends a request. `now_ms` is in milliseconds since 1970. Fails with the reason if there is no answer.
    pub(crate) fn send(&self, call: HttpCall, now_ms: u64) -> Result<HttpAnswer, String> {
        let (head, body) = self.timely(self.exchange(call))?;
        let after = head.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        let after_ms = after.and_then(|after| after_ms(after, now_ms));
        let error = head.headers().get("x-amzn-errortype").and_then(|error| error_name(error.to_str().ok()?));
        Ok(HttpAnswer { status: head.status(), after_ms, error, body })
    }

    /// Runs an exchange within the endpoint's timeout.
    fn timely<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let timeout = Duration::from_millis(self.endpoint.timeout_ms);
        let work = async { tokio::time::timeout(timeout, work).await };
        self.runtime().block_on(work).unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken when dropped")
    }

    /// Looks up the endpoint's addresses. One address that isn't allowed makes all of them fail.
    async fn addresses(&self) -> Result<Vec<IpAddr>, String> {
        let url = &self.endpoint.url;
        let (resolve, host, port) = (self.resolve.clone(), url.host.clone(), url.port);
        let found = tokio::task::spawn_blocking(move || resolve(&host, port)).await;
        let mut addresses = match found {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(error) => return Err(self.failed(&error)),
        };
        if addresses.is_empty() {
            return Err(format!("{} has no address", url.host));
        }
        if !self.endpoint.allow_private.contains(&url.host) {
            let refused = addresses.iter().find_map(|address| Some((address, guard::refused(*address)?)));
            if let Some((address, why)) = refused {
                let host = &url.host;
                return Err(format!(
                    "{host} is at {address}, {why}; allowed: hosts that are public, or that allow_private names"
                ));
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: {error}", self.endpoint.url.host)
    }

    async fn exchange(&self, call: HttpCall) -> Result<(Response<()>, SecretBytes), String> {
        let url = &self.endpoint.url;
        let mut failure = None;
        for address in self.addresses().await? {
            match TcpStream::connect(SocketAddr::new(address, url.port)).await {
                Ok(stream) if url.tls => {
                    let name = match url.host.parse::<IpAddr>() {
                        Ok(address) => ServerName::IpAddress(address.into()),
                        Err(_) => {
                            ServerName::try_from(url.host.clone()).map_err(|error| self.failed(&error))?
                        }
                    };
                    let stream = self.tls.connect(name, stream).await.map_err(|error| self.failed(&error))?;
                    return self.ask(stream, call).await;
                }
                Ok(stream) => return self.ask(stream, call).await,
                Err(error) => failure = Some(self.failed(&error)),
            }
        }
        Err(failure.unwrap_or_else(|| self.failed(&"no address")))
    }

    /// Sends the request over a connection, and closes it after the answer.
    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        call: HttpCall,
    ) -> Result<(Response<()>, SecretBytes), String> {
        let url = &self.endpoint.url;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.failed(&error))?;
        let HttpCall { method, target, headers, body, reads } = call;
        let mut builder = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.host())
            .header(USER_AGENT, concat!("keytide/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        // The error would quote the target, which may be a secret.
        let request = builder
            .body(Full::new(Bytes::from_owner(body)))
            .map_err(|_| format!("{}: the URL can't be asked for", url.host))?;
        // The connection has to be polled beside the answer, as it does the reading and writing.
        let answer = async {
            let (head, body) =
                sender.send_request(request).await.map_err(|error| self.failed(&error))?.into_parts();
            let body = if reads { self.read(body).await? } else { SecretBytes::with_capacity(0) };
            Ok((Response::from_parts(head, ()), body))
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(self.failed(&error)),
            },
        }
    }

    /// Reads a body to its end.
    async fn read(&self, mut body: Incoming) -> Result<SecretBytes, String> {
        // The buffer is made once, so no part of the body stays where a smaller one was.
        let mut read = SecretBytes::with_capacity(MAX_BODY_BYTES);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.failed(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if read.as_ref().len() + data.len() > MAX_BODY_BYTES {
                return Err(self.failed(&"the answer has more than 256 KiB"));
            }
            read.push(data);
        }
        Ok(read)
    }
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        // Dropping a runtime normally would wait for a look-up that hangs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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

/// Returns the name at the start of `x-amzn-errortype`, which a `:` and more may follow.
fn error_name(text: &str) -> Option<String> {
    let name = text.split(':').next()?.trim();
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_names() {
        let long = "x".repeat(65);
        for (text, name) in [
            ("NotFoundException", Some("NotFoundException")),
            ("TooManyRequestsException:http://internal.amazon.com/coral/", Some("TooManyRequestsException")),
            ("", None),
            (":x", None),
            ("a b", None),
            (&long, None),
        ] {
            assert_eq!(error_name(text).as_deref(), name, "{text}");
        }
    }

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

    #[test]
    fn secret_bytes_grow_by_any_number() {
        let mut bytes = SecretBytes::with_capacity(2);
        for part in [&b"ab"[..], b"", b"cdefghijkl", b"m"] {
            bytes.push(part);
        }
        assert_eq!(bytes.as_ref(), b"abcdefghijklm");
    }
}
