//! The links for data between all processes of a generation, over which timely's workers exchange.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keytide_connectors::cluster::{ClusterKey, ConnectError, HandshakeError, Hello, LinkKind, connect};
use keytide_connectors::live::ProcessPlace;
use socket2::{SockRef, TcpKeepalive};
use timely::WorkerConfig;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::WorkerGuards;
use timely::worker::Worker;

use super::hub::Hub;

/// How long to wait before another attempt to reach a process that isn't ready.
const AGAIN: Duration = Duration::from_millis(50);

/// The links for data of one process: one for each other process, in their order, and none for itself.
pub(in crate::run) struct Mesh {
    place: ProcessPlace,
    sockets: Vec<Option<TcpStream>>,
}

impl Mesh {
    /// Opens links to the processes with lower numbers, and waits for those of the others, for `most` in all.
    ///
    /// # Errors
    /// With what is missing.
    pub(super) fn connect(
        hub: &Hub,
        (key, hello): (&ClusterKey, Hello),
        place: ProcessPlace,
        addresses: &[String],
        most: Duration,
    ) -> Result<Self, String> {
        let until = Instant::now() + most;
        let mut sockets: Vec<Option<TcpStream>> = Vec::new();
        for (process, address) in addresses.iter().enumerate().take(place.process) {
            sockets.push(Some(reach(address, (key, hello), LinkKind::Data, process, until)?));
        }
        sockets.push(None);
        let later = place.process + 1..place.processes.get();
        let left = until.saturating_duration_since(Instant::now());
        let accepted = hub.links(LinkKind::Data, hello.generation, later, left)?;
        sockets.extend(accepted.into_iter().map(Some));
        for socket in sockets.iter().flatten() {
            limit(socket, most).map_err(|error| format!("a link for data can't be set up: {error}"))?;
        }
        Ok(Self { place, sockets })
    }

    /// Starts the workers of this process.
    pub(in crate::run) fn execute(
        self,
        workers: usize,
        work: impl Fn(&mut Worker) + Send + Sync + 'static,
    ) -> anyhow::Result<WorkerGuards<()>> {
        let hooks = timely::communication::Hooks::default();
        let typed = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let (builders, guard) =
            initialize_networking_from_sockets(typed, self.sockets, self.place.process, workers, hooks)
                .context("starting the links of workers failed")?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        timely::execute::execute_from(builders, Box::new(guard), WorkerConfig::default(), work)
            .map_err(|error| anyhow::anyhow!(error))
            .context("starting workers failed")
    }
}

/// Opens a link to a process of this generation. It is tried again until then, as the process may have to hear of the
/// generation first.
///
/// # Errors
/// With the reason of the last attempt.
pub(super) fn reach(
    address: &str,
    (key, hello): (&ClusterKey, Hello),
    kind: LinkKind,
    process: usize,
    until: Instant,
) -> Result<TcpStream, String> {
    let hello = Hello { kind, ..hello };
    loop {
        match connect(address, key, hello, u16::try_from(process).ok()) {
            Ok((stream, _)) => return Ok(stream),
            Err(error) => {
                let may_come = matches!(
                    &error,
                    ConnectError::NoAnswer { .. }
                        | ConnectError::Handshake {
                            error: HandshakeError::Generation { .. }
                                | HandshakeError::Index { .. }
                                | HandshakeError::Busy
                                | HandshakeError::Closed
                                | HandshakeError::TimedOut,
                            ..
                        }
                );
                if !may_come || Instant::now() >= until {
                    return Err(format!("no link for {} to process {process}: {error}", kind.name()));
                }
                thread::park_timeout(AGAIN);
            }
        }
    }
}

/// Lets the system end a link whose other side is gone without a word.
fn limit(socket: &TcpStream, after: Duration) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let every = (after / 4).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(after))
}
