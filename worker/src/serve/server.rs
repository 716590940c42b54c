//! The listener of the API and its threads, which are apart from the job's.
//!
//! Each thread has a runtime of its own and accepts from the same port. So a flood of requests takes the time of these
//! threads, and neither queues nor locks of the job: the ledger is the only thing that both have.
//!
//! **Limits.** At most [`CONNECTIONS`] connections are served at once; further ones wait in the system's queue. The head
//! of a request has at most [`HEAD_BYTES`], and must come within [`HEAD_TIME`], counted from the answer before. So an idle
//! connection ends then. A client that doesn't take its answers loses its connection after [`TAKE_TIME`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keytide_config::{Api, KeyRules, OnStale, Pages, Source};
use keytide_connectors::decode::RequestKeys;
use keytide_connectors::settlement::SettlementWriter;
use socket2::SockRef;
use tokio::sync::Semaphore;

use super::ApiData;
use super::auth::{ApiTokens, TokenTable};
use super::links::Links;
use super::own_incidents::OwnIncidents;
use super::reply::ApiState;
use super::routes::router;
use super::stats::{ApiMonitor, ApiStats};
use crate::exit::{Exit, failure};

/// Connections that are served at once.
const CONNECTIONS: usize = 1_024;
/// Bytes of a request's path and headers. By default Envoy lets 60 KiB through, and NGINX 33 KiB.
const HEAD_BYTES: usize = 64 << 10;
/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(75);
/// How long a client may let answers lie.
const TAKE_TIME: Duration = Duration::from_secs(30);

/// The port of `[api]`, which is bound and not served yet.
pub struct ApiServer {
    listener: TcpListener,
    threads: usize,
    connections: usize,
    keys: RequestKeys,
    tokens: ApiTokens,
    settlements: Option<SettlementWriter>,
    on_stale: OnStale,
    pages: Option<Pages>,
}

impl ApiServer {
    /// Binds the port before the job starts. Keys of gateways' requests are found by the rules of the source that the
    /// section names. With a `table` of tokens nobody is let in without one, even if it is empty. With `pages` it serves
    /// these, too.
    ///
    /// # Errors
    /// If the port is in use, or the address isn't this machine's, or the client of settlements has a bad setting.
    pub fn bind(
        (api, pages): (&Api, Option<&Pages>),
        sources: &[Source],
        table: Option<Arc<TokenTable>>,
    ) -> anyhow::Result<Self> {
        let named = |source: &&Source| api.source.as_ref().is_none_or(|name| source.name == *name);
        let rules = sources.iter().find(named).map(|source| &source.keys);
        let rules = rules.context("api.source: the job has no source of that name")?;
        let settlements = api.settlements.as_ref().and_then(|settlements| {
            sources.iter().find(|source| source.name == settlements.source).map(SettlementWriter::start)
        });
        let settlements = settlements.transpose().map_err(|error| failure(error.class().into(), error))?;
        Ok(Self { settlements: settlements.flatten(), ..Self::of_rules((api, pages), rules, table)? })
    }

    pub(super) fn of_rules(
        (api, pages): (&Api, Option<&Pages>),
        rules: &KeyRules,
        table: Option<Arc<TokenTable>>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(api.listen).map_err(|error| {
            let message = format!(
                "api.listen: can't listen on {}: {error}; choose an address of this machine and a port that nobody has, \
                 or leave [api] out",
                api.listen
            );
            failure(Exit::Usage, anyhow::anyhow!(message))
        })?;
        listener.set_nonblocking(true).context("preparing the port of [api] failed")?;
        let keys = RequestKeys::new(rules);
        if !keys.are_in_requests() {
            tracing::warn!(
                "[api] finds no key in requests to /v1/auth: no rule in [keys].from is header: or query:"
            );
        }
        let links = pages.map(|pages| match &pages.link_secret {
            Some(secret) => Ok(Links::new(secret)),
            None => Links::of_this_process().context("a secret for [pages] can't be made"),
        });
        Ok(Self {
            listener,
            threads: usize::try_from(api.threads).unwrap_or(1),
            connections: CONNECTIONS,
            keys,
            tokens: ApiTokens::new(&api.tokens, table, links.transpose()?),
            settlements: None,
            on_stale: api.on_stale,
            pages: pages.cloned(),
        })
    }

    /// Returns the address at which it listens.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests from the data until the process ends, on threads of its own. `clock` returns the time in
    /// milliseconds since the epoch. What is returned shows what the answers were.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(self, data: &ApiData, clock: fn() -> u64) -> anyhow::Result<ApiMonitor> {
        let Self { listener, threads, connections, keys, tokens, settlements, on_stale, pages } = self;
        let ApiData { ledger, shelf, directory } = data.clone();
        let stats = Arc::<ApiStats>::default();
        let table = tokens.table().map(Arc::clone);
        let links = tokens.links().cloned();
        let monitor = ApiMonitor { data: data.clone(), stats: Arc::clone(&stats), table, links };
        let state = Arc::new(ApiState {
            ledger,
            shelf,
            directory,
            incidents: OwnIncidents::default(),
            keys,
            tokens,
            stats,
            settlements,
            on_stale,
            clock,
        });
        let service = router(&state, pages.as_ref());
        let permits = Arc::new(Semaphore::new(connections));
        for thread in 0..threads {
            let listener = listener.try_clone().context("sharing the port of [api] failed")?;
            let (service, permits) = (service.clone(), Arc::clone(&permits));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("starting the runtime of [api] failed")?;
            let run = move || {
                if let Err(error) = runtime.block_on(serve(listener, service, &permits)) {
                    tracing::error!("serving [api] failed: {error}");
                }
            };
            thread::Builder::new().name(format!("api-{thread}")).spawn(run)?;
        }
        Ok(monitor)
    }
}

/// Accepts and serves connections for ever.
async fn serve(listener: TcpListener, service: Router, permits: &Arc<Semaphore>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client is gone, or descriptors are used up until a connection ends.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are small, and clients wait for them.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(TAKE_TIME));
        let connection =
            http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
        tokio::spawn(async move {
            // A client that went away or sent what isn't HTTP ends its own connection.
            let _ = connection.await;
            drop(permit);
        });
    }
}
