//! Asks a running job for its page `/top.json`.
//!
//! A thread asks once a second, so that a job that doesn't answer keeps no key from the screen.
//!
//! Limits: [`PATIENCE`] for an answer, of which [`MAX_PAGE`] bytes are read. Redirects aren't followed.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use keytide_config::{Http, Secret};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::replay::usage;
use keytide_worker::top::TopPage;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long `top` waits between two questions to the job.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a page that are read, at most.
const MAX_PAGE: usize = 16 << 20;

/// The address of a job's page, and the token that it wants.
#[derive(Clone, Debug)]
pub(super) struct JobAddress {
    host: String,
    port: u16,
    path: String,
    token: Option<Secret>,
}

impl JobAddress {
    /// Reads an address such as `http://127.0.0.1:9464`; `None` if it is none, but a path.
    ///
    /// # Errors
    /// If the address can't be asked.
    pub(super) fn parse(text: &str, token: Option<Secret>) -> Option<anyhow::Result<Self>> {
        if text.starts_with("https://") {
            return Some(Err(anyhow!(
                "a job serves plain HTTP, so https:// can't be asked; through SSH it can: ssh -L \
                 9464:127.0.0.1:9464 HOST, then keytide top http://127.0.0.1:9464"
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
        let path = if path.ends_with("/top.json") { path.to_owned() } else { format!("{path}/top.json") };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Ok(Self { host, port: port.unwrap_or(80), path, token }))
    }

    /// Returns the address at which a job of this machine listens.
    ///
    /// # Errors
    /// If the configuration leaves the port to the job.
    pub(super) fn of(http: &Http) -> anyhow::Result<Self> {
        let host = match http.listen.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        match http.listen.port() {
            0 => Err(anyhow!(
                "http.listen has the port 0, so the job chose one: name the address that its log says"
            )),
            port => Ok(Self {
                host: host.to_string(),
                port,
                path: "/top.json".to_owned(),
                token: http.token.clone(),
            }),
        }
    }

    /// Returns it as messages show it.
    pub(super) fn shown(&self) -> String {
        format!("http://{}", self.authority())
    }

    fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).to_string(),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// Asks the job once for its page, `/top.json`.
    async fn ask(&self) -> anyhow::Result<TopPage> {
        let address = self.shown();
        let answer = timeout(PATIENCE, self.exchange()).await.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(failure(Exit::Transient, anyhow!("{address} doesn't answer within {seconds} s")))
        });
        let (status, body) = answer?;
        let stranger = |found: &dyn std::fmt::Display| {
            usage(anyhow!(
                "{address} answers, but isn't a job of keytide run of this version: {found}; name the address of \
                 its section [http]"
            ))
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|_| stranger(&format!("{} is something else", self.path))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(usage(match self.token {
                None => anyhow!(
                    "the job at {address} wants its token: keytide top {address} --token env:NAME, or the job's \
                     configuration in place of the address"
                ),
                Some(_) => {
                    anyhow!("the job at {address} refuses the token: it must be that of its section [http]")
                }
            })),
            status => Err(stranger(&format!("it answered {status} to {}", self.path))),
        }
    }

    /// Sends the request; returns status and body of the answer.
    async fn exchange(&self) -> anyhow::Result<(StatusCode, Bytes)> {
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
        let mut request = Request::get(&self.path)
            .header(HOST, self.authority())
            .header(USER_AGENT, concat!("keytide/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        // The error would quote the token.
        let request = request
            .body(Empty::<Bytes>::new())
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

/// The newest page of a job, and a thread that asks for the next one.
pub(super) struct JobPages {
    pub(super) newest: TopPage,
    /// True if the last question had no answer, so that the page is an older one.
    pub(super) is_stale: bool,
    answers: Receiver<anyhow::Result<TopPage>>,
}

impl JobPages {
    /// Waits for the first page, then asks for others.
    ///
    /// # Errors
    /// If the first can't be got.
    pub(super) fn follow(job: JobAddress) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime for HTTP failed")?;
        let newest = runtime.block_on(job.ask())?;
        let (sender, answers) = sync_channel(1);
        thread::Builder::new().name("ask".to_owned()).spawn(move || {
            ask_on(&runtime, &job, |answer| sender.send(answer).is_ok());
        })?;
        Ok(Self { newest, is_stale: false, answers })
    }

    /// Takes in the answers that came.
    pub(super) fn refresh(&mut self) {
        loop {
            match self.answers.try_recv() {
                Ok(Ok(page)) => (self.newest, self.is_stale) = (page, false),
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => self.is_stale = true,
                Err(TryRecvError::Empty) => return,
            }
            if self.is_stale {
                return;
            }
        }
    }
}

/// Asks until nobody wants another answer.
fn ask_on(runtime: &Runtime, job: &JobAddress, mut give: impl FnMut(anyhow::Result<TopPage>) -> bool) {
    runtime.block_on(async {
        loop {
            sleep(PAUSE).await;
            if !give(job.ask().await) {
                return;
            }
        }
    });
}
