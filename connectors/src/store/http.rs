//! The HTTP client of stores of objects: HTTP/1.1 over the TLS that the rest of the program has.
//!
//! `object_store` can bring a client of its own, which would add another TLS library and HTTP/2. Requests here are few
//! and large, so this one keeps connections and does no more. It follows no redirect, and signs nothing: that is done
//! above it.
//!
//! Limits: a connection is made within [`CONNECT`]; an answer begins within [`ANSWER`] and a second for each MiB that is
//! sent; a body that stalls for [`STALL`] ends the request.

use std::error::Error as _;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The longest time to make a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The same for the services of clouds that hand out credentials, which are near or not there.
const CONNECT_NEAR: Duration = Duration::from_secs(1);
/// The time to connect that `object_store` gives to these services.
const NEAR: &str = "1s";
/// The words that `object_store` takes for true.
const TRUE: [&str; 5] = ["1", "true", "on", "yes", "y"];
/// The longest time to the head of an answer, without what is sent.
const ANSWER: Duration = Duration::from_secs(30);
/// The rate of the slowest upload that is waited for.
const SLOWEST_BYTES_PER_S: usize = 1 << 20;
/// The longest time between two pieces of a body.
const STALL: Duration = Duration::from_secs(30);
/// How long an idle connection is kept. Servers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(20);
/// The largest buffer that the length of an answer asks for.
const MAX_RESERVED: u64 = 64 << 20;

/// Makes clients of stores of objects.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option =
            |key: ClientConfigKey| options.get_config_value(&key).unwrap_or_default().to_ascii_lowercase();
        let allows_http = TRUE.contains(&&*option(ClientConfigKey::AllowHttp));
        let is_near = option(ClientConfigKey::ConnectTimeout) == NEAR;
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(if is_near { CONNECT_NEAR } else { CONNECT }));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(allows_http)?);
        let builder = if allows_http { builder.https_or_http() } else { builder.https_only() };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(HttpClient::new(Service { client }))
    }
}

fn tls(allows_http: bool) -> object_store::Result<ClientConfig> {
    let failed =
        |error: rustls::Error| object_store::Error::Generic { store: "TLS", source: Box::new(error) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    match builder.clone().with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        // Without TLS a system without trusted certificates is no error.
        Err(_) if allows_http => {
            Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
        Err(error) => Err(failed(error)),
    }
}

#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<TcpConnector>, HttpRequestBody>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("keytide/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let upload = Duration::from_secs((request.body().content_length() / SLOWEST_BYTES_PER_S) as u64);
        let answer = in_time(ANSWER + upload, self.client.request(request)).await?;
        let (head, mut body) = answer.map_err(failed)?.into_parts();
        let expected = hyper::body::Body::size_hint(&body).lower().min(MAX_RESERVED);
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
        while let Some(frame) = in_time(STALL, next_frame(&mut body)).await? {
            if let Ok(piece) = frame.map_err(interrupted)?.into_data() {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok(HttpResponse::from_parts(head, bytes.into()))
    }
}

async fn next_frame(body: &mut Incoming) -> Option<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>> {
    body.frame().await
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, HttpError> {
    tokio::time::timeout(limit, work).await.map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))
}

fn interrupted(error: hyper::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, error)
}

/// Says what failed, since that decides whether a request is sent again.
fn failed(error: hyper_util::client::legacy::Error) -> HttpError {
    let is_closed = |error: &hyper::Error| {
        error.is_closed()
            || error.is_incomplete_message()
            || error.is_body_write_aborted()
            || error.is_canceled()
    };
    let mut kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Unknown };
    let mut source = error.source();
    let mut reasons = vec![error.to_string()];
    while let Some(cause) = source {
        if kind == HttpErrorKind::Unknown {
            if cause.downcast_ref::<hyper::Error>().is_some_and(is_closed) {
                kind = HttpErrorKind::Request;
            } else if cause.is::<std::io::Error>() {
                kind = HttpErrorKind::Interrupted;
            }
        }
        reasons.push(cause.to_string());
        source = cause.source();
    }
    reasons.dedup();
    HttpError::new(kind, Reason(reasons.join(": ")))
}

/// The reason why a request failed, with its causes.
#[derive(Debug)]
struct Reason(String);

impl Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}
