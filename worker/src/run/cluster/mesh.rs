//! The links for data between all processes of a generation, over which timely's workers exchange.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keytide_connectors::cluster::{
    ClusterKey, ConnectError, HandshakeError, Hello, LinkKind, LinkTls, Wire, connect,
};
use keytide_connectors::live::ProcessPlace;
use socket2::{SockRef, TcpKeepalive};
use timely::WorkerConfig;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::initialize::WorkerGuards;
use timely::worker::Worker;

use super::hub::Hub;

/// How long processes may take to read their states, after which they open links. A process that is gone meanwhile is
/// known by its control link.
pub(super) const START_FOR: Duration = Duration::from_secs(3_600);
/// How long to wait before another attempt to reach a process that isn't ready.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a process isn't reached before that is said.
const UNUSUAL: Duration = Duration::from_secs(20);

/// The links for data of one process: one for each other process, in their order, and none for itself.
pub(in crate::run) struct Mesh {
    place: ProcessPlace,
    wires: Vec<Option<DataWire>>,
}

/// A link for data, as timely uses it.
struct DataWire(Wire);

impl timely::communication::allocator::zero_copy::stream::Stream for DataWire {
    fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.socket().set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl Read for DataWire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for DataWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a process needs to open a link of its generation.
#[derive(Clone, Copy)]
pub(super) struct LinkCaller<'a> {
    pub(super) key: &'a ClusterKey,
    pub(super) tls: Option<&'a LinkTls>,
    /// Its hello, whose kind is replaced by the link's.
    pub(super) hello: Hello,
}

impl Mesh {
    /// Opens links to the processes with lower numbers, and waits for those of the others. They are limited to a silence
    /// of `dead_after` of the system below.
    ///
    /// # Errors
    /// With what is missing, or why the generation is lost.
    pub(super) fn connect(
        hub: &Hub,
        caller: LinkCaller<'_>,
        place: ProcessPlace,
        addresses: &[String],
        dead_after: Duration,
    ) -> Result<Self, String> {
        let mut wires: Vec<Option<DataWire>> = Vec::new();
        for (process, address) in addresses.iter().enumerate().take(place.process) {
            wires.push(Some(DataWire(reach(hub, address, caller, (LinkKind::Data, process))?)));
        }
        wires.push(None);
        let later = place.process + 1..place.processes.get();
        let accepted = hub.links(LinkKind::Data, caller.hello.generation, later, START_FOR)?;
        wires.extend(accepted.into_iter().map(|wire| Some(DataWire(wire))));
        for wire in wires.iter().flatten() {
            limit(wire.0.socket(), dead_after)
                .map_err(|error| format!("a link for data can't be set up: {error}"))?;
        }
        Ok(Self { place, wires })
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
            initialize_networking_from_sockets(typed, self.wires, self.place.process, workers, hooks)
                .context("starting the links of workers failed")?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        timely::execute::execute_from(builders, Box::new(guard), WorkerConfig::default(), work)
            .map_err(|error| anyhow::anyhow!(error))
            .context("starting workers failed")
    }
}

/// Opens a link to a process of this generation. It is tried again while the generation isn't lost, as the process may
/// have to hear of it first. One whose machine doesn't answer for `dead_after` is cut off from this one, although the leader
/// reaches both: then no generation with all three can run.
///
/// # Errors
/// With the reason of the last attempt, or why the generation is lost.
pub(super) fn reach(
    hub: &Hub,
    address: &str,
    LinkCaller { key, tls, hello }: LinkCaller<'_>,
    (kind, process): (LinkKind, usize),
) -> Result<Wire, String> {
    let until = Instant::now() + START_FOR;
    let mut say_at = Instant::now() + UNUSUAL;
    let mut silent_since = None;
    let hello = Hello { kind, ..hello };
    loop {
        match connect(address, (key, tls), hello, u16::try_from(process).ok()) {
            Ok((wire, _)) => return Ok(wire),
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
                if let Some(reason) = hub.loss() {
                    return Err(reason);
                }
                let is_silent = matches!(&error, ConnectError::NoAnswer { .. });
                silent_since = is_silent.then(|| silent_since.unwrap_or_else(Instant::now));
                let is_cut_off = silent_since.is_some_and(|since| since.elapsed() >= hub.dead_after());
                if !may_come || is_cut_off || hub.is_done() || Instant::now() >= until {
                    return Err(format!("no link for {} to process {process}: {error}", kind.name()));
                }
                if Instant::now() >= say_at {
                    say_at += 3 * UNUSUAL;
                    tracing::warn!("process {process} isn't reached, it is tried again: {error}");
                }
                thread::park_timeout(AGAIN);
            }
        }
    }
}

/// Lets the system end a link whose other side is gone without a word.
fn limit(socket: &std::net::TcpStream, after: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let every = (after / 4).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(after))
}
