//! The job's HTTP interface, read-only: `/metrics`, `/healthz`, `/readyz`, `/status` and `/top.json`, and a page at `/`.
//!
//! | path | answers | token |
//! |---|---|---|
//! | `/metrics` | all metrics, as text for Prometheus | yes |
//! | `/readyz` | 200 or 503, and why, as JSON | yes |
//! | `/status` | generation, processes, ticks and what is waited for, as JSON | yes |
//! | `/top.json` | the busiest keys and the newest incidents, as JSON | yes |
//! | `/healthz` | 200 or 503, and why, as JSON | no: a supervisor needs no secret to see that a process lives |
//! | `/` | a page that shows `/status` to people | no: it holds nothing of the job, and asks for the token |
//!
//! If a token is configured, every other path answers 401 without it, unknown paths too. Tokens are compared by all bytes
//! of their digests, so the time of a comparison reveals nothing.
//!
//! **Limits.** A connection has one request, GET or HEAD. At most [`READ_BYTES`] of it are read, and never its body. A
//! head of more than [`HEAD_BYTES`] is refused. A connection ends after [`ServerLimits::lifetime`], whatever its state.
//! At most [`ServerLimits::connections`] are served at once; further ones wait. Paths are compared with the six above
//! and never name a file. No answer and no log contains anything that a client sent.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use keytide_config::{Http, Secret};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::health::{health, job_status, readiness};
use super::metrics::{self, ExpositionFormat};
use super::sample::JobSample;
use super::top::LiveTop;
use crate::exit::{Exit, failure};

/// Bytes of a request's path and headers.
const HEAD_BYTES: usize = 8 << 10;
/// Bytes that are read of a connection, at most.
const READ_BYTES: usize = 16 << 10;

/// The page at `/`, which is the same for all jobs.
const PAGE: &str = include_str!("status.html");
/// Lets the page do nothing but ask its own job.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Takes a sample of the job.
pub type Sampler = Arc<dyn Fn() -> JobSample + Send + Sync>;

/// Returns the busiest keys of the job.
pub type TopSource = Arc<dyn Fn() -> LiveTop + Send + Sync>;

/// A port that is bound and not served yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    token: Option<Token>,
    limits: ServerLimits,
}

#[derive(Clone, Copy, Debug)]
struct ServerLimits {
    connections: usize,
    lifetime: Duration,
}

const LIMITS: ServerLimits = ServerLimits { connections: 32, lifetime: Duration::from_secs(10) };

impl HttpServer {
    /// Binds the port before the job starts, so that a job never runs unwatched.
    ///
    /// # Errors
    /// If the port is in use, or the address isn't this machine's.
    pub fn bind(http: &Http) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(http.listen).map_err(|error| {
            let message = format!(
                "http.listen: can't listen on {}: {error}; choose an address of this machine and a port that nobody \
                 has, or leave [http] out",
                http.listen
            );
            failure(Exit::Usage, anyhow::anyhow!(message))
        })?;
        listener.set_nonblocking(true).context("preparing the port of [http] failed")?;
        Ok(Self { listener, token: http.token.as_ref().map(Token::new), limits: LIMITS })
    }

    /// Returns the address at which it listens.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests for ever, of the busiest keys from `top`.
    ///
    /// # Errors
    /// If the port can't be served.
    pub async fn serve(self, sampler: Sampler, top: TopSource) -> io::Result<()> {
        let Self { listener, token, limits } = self;
        let listener = BoundedListener {
            listener: tokio::net::TcpListener::from_std(listener)?,
            connections: Arc::new(Semaphore::new(limits.connections)),
            lifetime: limits.lifetime,
        };
        axum::serve(listener, router(sampler, top, token)).await
    }
}

/// The SHA-256 digest of a token.
#[derive(Clone, Copy)]
struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Token {
    fn new(token: &Secret) -> Self {
        Self(Sha256::digest(token.reveal()).into())
    }

    /// Returns whether a request shows it, in time that doesn't depend on the bytes.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
        let Some((scheme, shown)) = shown.split_at_checked(b"Bearer ".len()) else { return false };
        let shown: [u8; 32] = Sha256::digest(shown).into();
        let differing = self.0.iter().zip(shown).fold(0, |differing, (a, b)| differing | (a ^ b));
        scheme.eq_ignore_ascii_case(b"Bearer ") && differing == 0
    }
}

fn router(sampler: Sampler, top: TopSource, token: Option<Token>) -> Router {
    Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/healthz", get(answer_health))
        .route("/readyz", get(answer_readiness))
        .route("/status", get(answer_status))
        .with_state(sampler)
        .route("/", get(answer_page))
        .route("/top.json", get(move || async move { json(true, &top().page()) }))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz, /readyz, /status, /top.json and a page at /\n",
            )
        })
        .layer(from_fn_with_state(token, guard))
}

/// Checks every request for size and token, and adds headers to every answer.
async fn guard(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    let is_open = matches!(request.uri().path(), "/healthz" | "/");
    let headers = request.headers();
    let head_bytes = request.uri().path().len()
        + request.uri().query().map_or(0, str::len)
        + headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let mut response = if head_bytes > HEAD_BYTES {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()
    } else if !is_open && token.is_some_and(|token| !token.is_shown(headers)) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"keytide\"")];
        (StatusCode::UNAUTHORIZED, challenge, "show the token of [http] as Authorization: Bearer\n")
            .into_response()
    } else {
        next.run(request).await
    };
    let fixed = [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer_metrics(State(sampler): State<Sampler>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = ExpositionFormat::accepted(accept);
    match metrics::text(sampler(), format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn answer_health(State(sampler): State<Sampler>) -> Response {
    let health = health(&sampler());
    json(health.healthy, &health)
}

async fn answer_readiness(State(sampler): State<Sampler>) -> Response {
    let readiness = readiness(&sampler());
    json(readiness.ready, &readiness)
}

async fn answer_status(State(sampler): State<Sampler>) -> Response {
    json(true, &job_status(&sampler()))
}

async fn answer_page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

fn json(is_well: bool, body: &impl Serialize) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Bounds the number of connections, and the lifetime of each.
struct BoundedListener {
    listener: tokio::net::TcpListener,
    connections: Arc<Semaphore>,
    lifetime: Duration,
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(sleep(self.lifetime));
        // The semaphore is never closed.
        (Connection { stream, end, left: READ_BYTES, _permit: permit.ok() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its lifetime is over or its client sends too much.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// Bytes that may still be read.
    left: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        match self.left.checked_sub(buffer.filled().len() - before) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use super::super::health::tests::well;
    use super::*;

    const TOKEN: &str = "a-token-of-the-test";

    /// Serves while `client` runs with the address.
    fn served(
        sample: JobSample,
        token: Option<&str>,
        limits: ServerLimits,
        client: impl FnOnce(SocketAddr) + Send + 'static,
    ) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HttpServer::bind(&Http { listen, token: token.map(Secret::new) }).unwrap();
        let address = server.address().unwrap();
        let server = HttpServer { limits, ..server };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serving =
                tokio::spawn(server.serve(Arc::new(move || sample.clone()), Arc::new(LiveTop::default)));
            tokio::task::spawn_blocking(move || client(address)).await.unwrap();
            serving.abort();
        });
    }

    /// Sends a request and reads to the connection's end; empty if it was cut.
    fn exchange(address: SocketAddr, request: &str) -> String {
        let mut client = Client::connect(address).unwrap();
        // The server may have had enough before all is sent.
        let _ = client.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> String {
        exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: keytide\r\n{headers}\r\n"))
    }

    fn status(answer: &str) -> &str {
        answer.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3)).unwrap_or("none")
    }

    #[test]
    fn four_paths_are_answered() {
        served(well(), None, LIMITS, |address| {
            let metrics = request(address, "GET", "/metrics", "");
            assert_eq!(status(&metrics), "200");
            assert!(
                metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
                "{metrics}"
            );
            assert!(metrics.contains("\nkeytide_ready 1\n") && !metrics.contains("# EOF"), "{metrics}");
            let open =
                request(address, "GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
            assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0;"), "{open}");
            assert!(open.ends_with("# EOF\n"), "{open}");
            let health = request(address, "GET", "/healthz", "");
            assert_eq!(status(&health), "200");
            assert!(health.contains("connection: close\r\n"), "{health}");
            assert!(health.contains("\r\n\r\n{\"healthy\":true,"), "{health}");
            let readiness = request(address, "GET", "/readyz", "");
            assert_eq!(status(&readiness), "200");
            assert!(readiness.ends_with("{\"ready\":true,\"reasons\":[]}\n"), "{readiness}");
            let top = request(address, "GET", "/top.json", "");
            assert_eq!(status(&top), "200");
            assert!(top.contains("content-type: application/json\r\n"), "{top}");
            assert!(top.ends_with("{\"windows\":[],\"incidents\":[]}\n"), "{top}");
        });
    }

    #[test]
    fn what_is_wrong_is_a_503_with_its_reasons() {
        let mut sample = well();
        sample.now += 1_000_000;
        served(sample, None, LIMITS, |address| {
            let health = request(address, "GET", "/healthz", "");
            assert_eq!(status(&health), "503");
            assert!(health.contains("\"reason\":\"the tick has been open for 1000 s: a reader"), "{health}");
            let readiness = request(address, "GET", "/readyz", "");
            assert_eq!(status(&readiness), "503");
            assert!(
                readiness.contains("\"reasons\":[\"the last published tick is 1002 s old"),
                "{readiness}"
            );
        });
    }

    #[test]
    fn only_reading_is_allowed() {
        served(well(), None, LIMITS, |address| {
            for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
                let answer = request(address, method, "/metrics", "Content-Length: 2\r\n\r\nhi");
                assert_eq!(status(&answer), "405", "{method}");
            }
            let head = request(address, "HEAD", "/readyz", "");
            assert_eq!(status(&head), "200");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
        });
    }

    #[test]
    fn there_are_no_other_paths() {
        served(well(), None, LIMITS, |address| {
            for path in [
                "//",
                "/metrics/",
                "/top",
                "/top.json/",
                "/../etc/passwd",
                "/%2e%2e/etc/passwd",
                "/healthz/../metrics",
                "/nowhere",
            ] {
                assert_eq!(status(&request(address, "GET", path, "")), "404", "{path}");
            }
        });
    }

    #[test]
    fn a_token_is_demanded_of_all_that_shows_the_job() {
        served(well(), Some(TOKEN), LIMITS, |address| {
            let status_of =
                |path: &str, headers: &str| status(&request(address, "GET", path, headers)).to_owned();
            let wrong = [
                String::new(),
                "Authorization: Bearer\r\n".to_owned(),
                "Authorization: Bearer \r\n".to_owned(),
                format!("Authorization: Basic {TOKEN}\r\n"),
                format!("Authorization: Bearer {TOKEN}x\r\n"),
                format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
                format!("X-Authorization: Bearer {TOKEN}\r\n"),
            ];
            for headers in &wrong {
                for path in ["/metrics", "/readyz", "/top.json", "/nowhere"] {
                    assert_eq!(status_of(path, headers), "401", "{path} {headers}");
                }
                assert_eq!(status_of("/healthz", headers), "200", "{headers}");
                let page = request(address, "GET", "/", headers);
                assert!(
                    page.ends_with(PAGE) && page.contains("content-security-policy: default-src 'none'"),
                    "{page}"
                );
            }
            for scheme in ["Bearer", "bearer"] {
                let headers = format!("Authorization: {scheme} {TOKEN}\r\n");
                assert_eq!(status_of("/metrics", &headers), "200");
                assert_eq!(status_of("/nowhere", &headers), "404");
            }
            let refused = request(address, "GET", "/metrics", "");
            assert!(refused.contains("www-authenticate: Bearer"), "{refused}");
        });
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new(&Secret::new(TOKEN));
        assert_eq!(format!("{token:?}"), "***");
    }

    #[test]
    fn requests_are_bounded() {
        served(well(), None, LIMITS, |address| {
            let with = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
            assert_eq!(status(&request(address, "GET", "/healthz", &with(HEAD_BYTES - 100))), "200");
            assert_eq!(status(&request(address, "GET", "/healthz", &with(HEAD_BYTES))), "431");
            assert_eq!(status(&request(address, "GET", &format!("/{}", "x".repeat(HEAD_BYTES)), "")), "431");
            let cut = request(address, "GET", "/healthz", &with(2 * READ_BYTES));
            assert!(!cut.contains("healthy"), "{cut}");
            let many: String = (0..500).map(|n| format!("X-{n}: 1\r\n")).collect();
            assert_ne!(status(&request(address, "GET", "/healthz", &many)), "200");
        });
    }

    #[test]
    fn what_a_client_sends_is_never_sent_back() {
        served(well(), Some(TOKEN), LIMITS, |address| {
            let canary = "key-canary-5f0c";
            for path in ["/metrics", "/healthz", "/readyz", "/top.json", "/nowhere"] {
                let headers = format!("Authorization: Bearer {canary}\r\napikey: {canary}\r\n");
                let answer = request(address, "GET", &format!("{path}?apikey={canary}"), &headers);
                assert!(status(&answer) != "none" && !answer.contains(canary), "{answer}");
            }
        });
    }

    #[test]
    fn a_silent_client_is_left_and_keeps_nobody_out() {
        let limits = ServerLimits { connections: 1, lifetime: Duration::from_millis(20) };
        served(well(), None, limits, |address| {
            let mut silent = Client::connect(address).unwrap();
            silent.write_all(b"GET /healthz HT").unwrap();
            // It is served once the only connection is free again. Its own lifetime is short, so it may take two tries.
            let is_served = (0..1_000).any(|_| status(&request(address, "GET", "/healthz", "")) == "200");
            assert!(is_served);
            let mut rest = Vec::new();
            let _ = silent.read_to_end(&mut rest);
            assert!(!String::from_utf8(rest).unwrap().contains("healthy"));
        });
    }

    #[test]
    fn a_port_that_somebody_has_is_a_mistake_of_the_configuration() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let error = HttpServer::bind(&Http { listen, token: None }).unwrap_err();
        assert_eq!(crate::exit::classify(&error), Exit::Usage);
        let message = error.to_string();
        assert!(message.starts_with(&format!("http.listen: can't listen on {listen}: ")), "{message}");
    }
}
