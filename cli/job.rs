//! The client of a running job's HTTP interface.
//!
//! Limits: [`MAX_PAGE`] bytes of an answer are read. Redirects aren't followed.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use keytide_config::{Http, Secret, environment};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::replay::usage;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Bytes of a page that are read, at most.
const MAX_PAGE: usize = 16 << 20;

/// Reads the token that `--token` refers to, if it is given.
///
/// # Errors
/// If it refers to nothing.
pub(crate) fn token(reference: Option<&str>) -> anyhow::Result<Option<Secret>> {
    let secret = reference.map(|reference| Secret::read(reference, environment())).transpose();
    secret.map_err(|message| usage(anyhow!("--token: {message}")))
}

/// Makes the runtime on which a job is asked.
///
/// # Errors
/// If the system has no room for it.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime for HTTP failed")
}

/// Returns a name as a part of a path (RFC 3986, 2.1).
pub(crate) fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// The address of a running job, and the token that is shown to it.
#[derive(Clone, Debug)]
pub(crate) struct JobAddress {
    host: String,
    port: u16,
    /// The path before those of the job, where something passes requests on.
    base: String,
    pub(crate) token: Option<Secret>,
}

impl JobAddress {
    /// Reads an address such as `http://127.0.0.1:9464`; `None` if it is none, but a path.
    ///
    /// # Errors
    /// If the address can't be asked.
    pub(crate) fn parse(text: &str, token: Option<Secret>) -> Option<anyhow::Result<Self>> {
        if text.starts_with("https://") {
            return Some(Err(anyhow!(
                "a job serves plain HTTP, so https:// can't be asked; through SSH it can: ssh -L \
                 9464:127.0.0.1:9464 HOST, then name http://127.0.0.1:9464"
            )));
        }
        if !text.starts_with("http://") {
            return None;
        }
        let uri: Option<Uri> = text.parse().ok();
        let parts = uri.as_ref().and_then(|uri| {
            let plain = uri.query().is_none() && !uri.authority()?.as_str().contains('@');
            plain.then_some((uri.host().filter(|host| !host.is_empty())?, uri.port_u16(), uri.path()))
        });
        // The text isn't quoted, as it may hold a password.
        let Some((host, port, path)) = parts else {
            return Some(Err(anyhow!("the address can't be read, allowed: http://HOST:PORT")));
        };
        let path = path.trim_end_matches('/');
        let base = path.strip_suffix("/top.json").unwrap_or(path).to_owned();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Ok(Self { host, port: port.unwrap_or(80), base, token }))
    }

    /// Returns the address at which a job of this machine listens.
    ///
    /// # Errors
    /// If the configuration leaves the port to the job.
    pub(crate) fn of(http: &Http) -> anyhow::Result<Self> {
        let host = match http.listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        match http.listen.port() {
            0 => Err(anyhow!(
                "http.listen has the port 0, so the job chose one: name the address that its log says"
            )),
            port => Ok(Self { host: host.to_string(), port, base: String::new(), token: http.token.clone() }),
        }
    }

    /// Returns the address with another token.
    pub(crate) fn showing(self, token: Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Returns it as messages show it.
    pub(crate) fn shown(&self) -> String {
        format!("http://{}", self.authority())
    }

    fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).to_string(),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// Sends a request for a path, with a body of JSON if there is one. Returns status and body of the answer.
    ///
    /// # Errors
    /// If there is no answer within `patience`.
    pub(crate) async fn exchange(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        timeout(patience, self.exchange_at_leisure(method, path, body)).await.unwrap_or_else(|_| {
            let (address, seconds) = (self.shown(), patience.as_secs());
            Err(failure(Exit::Transient, anyhow!("{address} doesn't answer within {seconds} s")))
        })
    }

    async fn exchange_at_leisure(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let address = self.shown();
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::ConnectionRefused => "; is it running? start it with keytide run CONFIG",
                _ => "",
            };
            failure(Exit::Transient, anyhow!("no job answers at {address}: {error}{hint}"))
        })?;
        let stranger = |error: hyper::Error| {
            let error = error.source().map_or_else(|| error.to_string(), |cause| cause.to_string());
            usage(anyhow!(
                "{address} answers, but not as keytide run does: {error}; name the address of its section [http]"
            ))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(stranger)?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, self.authority())
            .header(USER_AGENT, concat!("keytide/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        // The error would quote the token.
        let request = request
            .body(Full::<Bytes>::from(body.unwrap_or_default()))
            .map_err(|_| usage(anyhow!("the token can't be sent, allowed: visible ASCII characters")))?;
        // The connection has to be polled beside the answer, as it does the reading and writing.
        let answer = async {
            let answer = sender.send_request(request).await.map_err(stranger)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_PAGE).collect().await.map_err(|error| {
                failure(Exit::Transient, anyhow!("the answer of {address} breaks off: {error}"))
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_part_of_a_path_whatever_its_name() {
        assert_eq!(escaped("0a-_~"), "0a-_~");
        assert_eq!(escaped("../a b/ü?#%"), "%2E%2E%2Fa%20b%2F%C3%BC%3F%23%25");
    }
}
