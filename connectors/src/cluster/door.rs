//! The sockets between processes: a door that listens, and the way to another process's door.
//!
//! ```text
//!  strangers, processes ──► listener thread ──► a thread each, 64 at most ──► Receiver<Guest>
//!                                                  Handshake, 2 s in all
//! ```
//! **Strangers.** A connection that doesn't prove the secret costs a thread for at most 2 s. All of them together
//! cost one line of the log a second. If [`MAX_HANDSHAKES`] are under way, a new connection ends the one with the fewest messages,
//! of several the oldest. So processes, which need some milliseconds, get in between strangers that send nothing. A
//! process that is ended like this knows that it was for that reason, and tries again.
//!
//! **The owner decides** by [`Door::set_terms`] which links are taken. Before that, each is refused by closing it.
//!
//! Limits: [`MAX_HANDSHAKES`] at once, as many guests that wait for the owner, [`CONNECT_FOR`] to connect. The time of a
//! look-up of a host's name is the system's and comes on top.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use rustls::crypto::ring;

use super::handshake::{Handshake, HandshakeError, HandshakeNeed, HandshakeNonce, HostTerms};
use super::hello::{ClusterKey, Hello, LinkKind};
use super::wire::{LinkTls, Wire};

/// The number of handshakes at once, at most.
pub const MAX_HANDSHAKES: usize = 64;
/// How long a connection to another process may take, before its handshake.
pub const CONNECT_FOR: Duration = Duration::from_secs(2);
/// The least time between two lines of the log about strangers.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// How long the listener rests after the system refused it a connection or a thread.
const REST: Duration = Duration::from_millis(100);
/// Bytes that are read at once, above what a handshake ever needs.
const READ_BYTES: usize = 128;

/// An error of the door itself.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(
        "cluster.listen: can't listen at {at}: {source}; name an address of this machine with a free port"
    )]
    Listen { at: SocketAddr, source: io::Error },
    #[error("can't start a thread for cluster.listen: {0}; raise the system's limit of threads")]
    Thread(io::Error),
    /// The system gave no random bytes for a nonce.
    #[error("the system gives no random bytes, which links between processes need")]
    Random,
}

/// The reason for which a connection to another process isn't a link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The system can't say which address the name has.
    #[error(
        "{address} has no address that can be looked up: {source}; correct cluster.advertise of that process"
    )]
    Unresolved { address: String, source: io::Error },
    /// The machine answers, and no process listens there.
    #[error("no process listens at {address}")]
    Refused { address: String },
    /// There was no answer in time, or the network or this machine failed.
    #[error("{address} doesn't answer: {source}; see if the network lets this machine reach it")]
    NoAnswer { address: String, source: io::Error },
    #[error("{address}: {error}")]
    Handshake { address: String, error: HandshakeError },
    #[error(transparent)]
    Own(#[from] DoorError),
}

/// A connection whose other side has proven the secret and says what this process expects.
#[derive(Debug)]
pub struct Guest {
    pub wire: Wire,
    pub address: SocketAddr,
    pub hello: Hello,
}

/// A socket that listens for other processes. Dropping it ends its listener.
#[derive(Debug)]
pub struct Door {
    inner: Arc<Inner>,
    address: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    key: ClusterKey,
    /// Without it, links aren't encrypted.
    tls: Option<LinkTls>,
    begun: Instant,
    terms: Mutex<Option<HostTerms>>,
    visitors: Mutex<Visitors>,
    /// Notified when a handshake is over.
    is_free: Condvar,
    is_over: AtomicBool,
}

/// The handshakes that are under way, and what is logged of those that failed.
#[derive(Debug, Default)]
struct Visitors {
    present: Vec<Visitor>,
    next_id: u64,
    /// For those that didn't prove the secret.
    strangers: LogPace,
    /// For processes with the secret that got no link.
    refused: LogPace,
}

#[derive(Debug)]
struct Visitor {
    id: u64,
    stream: TcpStream,
    /// The number of messages that arrived.
    messages: u8,
    /// True if it was ended for another one.
    makes_room: bool,
}

/// Lets at most one line through in [`LOG_EVERY`], and counts the others.
#[derive(Debug, Default)]
struct LogPace {
    last: Option<Duration>,
    left_out: u64,
}

impl LogPace {
    /// Returns how many lines were left out since the last one, if there may be one now.
    fn line(&mut self, now: Duration) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_sub(last) < LOG_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Door {
    /// Listens at an address; port 0 is any free one. Connections that are links come out of the receiver.
    ///
    /// # Errors
    /// If the address can't be used, or the listener's thread can't be started.
    pub fn open(
        listen: SocketAddr,
        key: ClusterKey,
        tls: Option<LinkTls>,
    ) -> Result<(Self, Receiver<Guest>), DoorError> {
        let failed = |source| DoorError::Listen { at: listen, source };
        let socket = TcpListener::bind(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let inner = Arc::new(Inner {
            key,
            tls,
            begun: Instant::now(),
            terms: Mutex::new(None),
            visitors: Mutex::default(),
            is_free: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let (guests, received) = sync_channel(MAX_HANDSHAKES);
        let of_thread = Arc::clone(&inner);
        let listener = thread::Builder::new().name("door".to_owned());
        let listener =
            listener.spawn(move || of_thread.listen(&socket, &guests)).map_err(DoorError::Thread)?;
        Ok((Self { inner, address, listener: Some(listener) }, received))
    }

    /// Returns the address at which it listens, with its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets which links are taken from now on. Links that stand aren't touched.
    pub fn set_terms(&self, terms: HostTerms) {
        *self.inner.terms.lock().unwrap_or_else(PoisonError::into_inner) = Some(terms);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Release);
        // A thread that accepts can only be woken by a connection. Without one it ends with the next stranger.
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let woken = TcpStream::connect_timeout(&SocketAddr::new(ip, self.address.port()), CONNECT_FOR);
        for visitor in &self.inner.visitors().present {
            let _ = visitor.stream.shutdown(Shutdown::Both);
        }
        self.inner.is_free.notify_all();
        if let Some(listener) = self.listener.take().filter(|_| woken.is_ok()) {
            let _ = listener.join();
        }
    }
}

impl Inner {
    fn visitors(&self) -> MutexGuard<'_, Visitors> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections until the door is closed.
    fn listen(self: &Arc<Self>, socket: &TcpListener, guests: &SyncSender<Guest>) {
        loop {
            let accepted = socket.accept();
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            let begun = match accepted {
                Ok((stream, address)) => self.begin(stream, address, guests),
                // The other side has gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = begun {
                self.log_stranger(&format!("a connection can't be taken: {error}"));
                thread::park_timeout(REST);
            }
        }
    }

    /// Starts the thread of a handshake, for which another one is ended if there are too many.
    fn begin(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        guests: &SyncSender<Guest>,
    ) -> io::Result<()> {
        let handle = stream.try_clone()?;
        let mut visitors = self.visitors();
        while visitors.present.len() >= MAX_HANDSHAKES && !self.is_over.load(Ordering::Acquire) {
            visitors.make_room();
            visitors = self.is_free.wait(visitors).unwrap_or_else(PoisonError::into_inner);
        }
        let id = visitors.next_id;
        visitors.next_id += 1;
        visitors.present.push(Visitor { id, stream: handle, messages: 0, makes_room: false });
        drop(visitors);
        let (inner, guests) = (Arc::clone(self), guests.clone());
        let started = thread::Builder::new().name("handshake".to_owned()).spawn(move || {
            let outcome = inner.shake_hands(id, stream);
            // Its place is free before a guest is handed on, as the owner may open links in turn.
            inner.leave(id);
            inner.hand_on(address, outcome, &guests);
        });
        if started.is_err() {
            self.leave(id);
        }
        started.map(drop)
    }

    /// Runs one handshake as its host.
    fn shake_hands(&self, id: u64, stream: TcpStream) -> Result<(Wire, Hello), HandshakeError> {
        let nonce = nonce().map_err(|_| HandshakeError::Closed)?;
        let mut handshake = Handshake::of_host(self.key.clone(), nonce, self.begun.elapsed());
        let mut wire = match &self.tls {
            Some(tls) => Wire::of_host(stream, tls).map_err(|_| HandshakeError::Closed)?,
            None => Wire::plain(stream),
        };
        encrypt(&mut wire, &handshake, self.begun)?;
        let shaken = drive(&mut wire, &mut handshake, self.begun, |handshake| {
            if let HandshakeNeed::Terms(_) = handshake.need() {
                match *self.terms.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(terms) => handshake.judge(&terms),
                    None => handshake.close(),
                }
            }
            let mut visitors = self.visitors();
            if let Some(visitor) = visitors.present.iter_mut().find(|visitor| visitor.id == id) {
                visitor.messages = visitor.messages.max(handshake.messages());
                if visitor.makes_room {
                    handshake.make_room();
                }
            }
        });
        if matches!(shaken, Err(HandshakeError::Tls { .. })) {
            // Bytes that aren't read would make the system drop the answer.
            let _ = wire.shutdown(Shutdown::Write);
            let _ = wire.set_timeouts(Some(REST)).and_then(|()| wire.read(&mut [0; 16 << 10]));
        }
        Ok((wire, shaken?))
    }

    /// Ends a visit, so that its place is free for another one.
    fn leave(&self, id: u64) {
        self.visitors().present.retain(|visitor| visitor.id != id);
        self.is_free.notify_all();
    }

    fn hand_on(
        &self,
        address: SocketAddr,
        outcome: Result<(Wire, Hello), HandshakeError>,
        guests: &SyncSender<Guest>,
    ) {
        match outcome {
            Ok((wire, hello)) => {
                // The owner is gone or has 64 guests that wait. The other side finds its link closed.
                if guests.try_send(Guest { wire, address, hello }).is_err() {
                    self.log_refused(address, "this process takes no more links for now");
                }
            }
            // It wanted to know whether it can reach this process.
            Err(HandshakeError::Generation { asked: 0, .. }) => {}
            Err(
                error @ (HandshakeError::Version { .. }
                | HandshakeError::Tls { .. }
                | HandshakeError::Differs(_)
                | HandshakeError::Generation { .. }
                | HandshakeError::Index { .. }),
            ) => self.log_refused(address, &error.to_string()),
            Err(_) if self.is_over.load(Ordering::Acquire) => {}
            Err(error) => self.log_stranger(&format!("{address} gets no link: {error}")),
        }
    }

    fn log_refused(&self, address: SocketAddr, reason: &str) {
        let line = self.visitors().refused.line(self.begun.elapsed());
        if let Some(left_out) = line {
            tracing::warn!(left_out, "the process at {address} gets no link: {reason}");
        }
    }

    fn log_stranger(&self, reason: &str) {
        let line = self.visitors().strangers.line(self.begun.elapsed());
        if let Some(left_out) = line {
            tracing::warn!(left_out, "cluster.listen: {reason}");
        }
    }
}

impl Visitors {
    /// Ends one handshake, whose thread then gives its place free. One that was ended already is waited for.
    fn make_room(&mut self) {
        if self.present.iter().any(|visitor| visitor.makes_room) {
            return;
        }
        if let Some(visitor) = self.present.iter_mut().min_by_key(|visitor| (visitor.messages, visitor.id)) {
            visitor.makes_room = true;
            // Only reading ends, so that the reason can be sent. A connection that is gone needs no end.
            let _ = visitor.stream.shutdown(Shutdown::Read);
        }
    }
}

/// Connects to a process and shakes hands as its caller. Returns the link and what the other side says of itself, which
/// has the number `expected` if that is given.
///
/// # Errors
/// If there is no link, with the reason.
pub fn connect(
    address: &str,
    (key, tls): (&ClusterKey, Option<&LinkTls>),
    hello: Hello,
    expected: Option<u16>,
) -> Result<(Wire, Hello), ConnectError> {
    let begun = Instant::now();
    let stream = connect_any(address, begun)?;
    let start = begun.elapsed();
    let mut handshake = Handshake::of_caller(key.clone(), hello, expected, nonce()?, start);
    let failed = |error| ConnectError::Handshake { address: address.to_owned(), error };
    let mut wire = match tls {
        Some(tls) => Wire::of_caller(stream, tls).map_err(|_| failed(HandshakeError::Closed))?,
        None => Wire::plain(stream),
    };
    encrypt(&mut wire, &handshake, begun).map_err(failed)?;
    let theirs = drive(&mut wire, &mut handshake, begun, |_| {}).map_err(failed)?;
    Ok((wire, theirs))
}

/// Finds out whether a process of this job can be reached at an address.
///
/// # Errors
/// If it can't, or if another process is there.
pub fn knock(
    address: &str,
    as_caller: (&ClusterKey, Option<&LinkTls>),
    hello: Hello,
) -> Result<(), ConnectError> {
    // No process hosts generation 0. To say so, both have to prove the secret.
    let hello = Hello { kind: LinkKind::Control, index: None, generation: 0, ..hello };
    match connect(address, as_caller, hello, None) {
        Ok(_) | Err(ConnectError::Handshake { error: HandshakeError::Generation { .. }, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Shakes hands for TLS, in the time that the handshake has.
fn encrypt(wire: &mut Wire, handshake: &Handshake, clock: Instant) -> Result<(), HandshakeError> {
    let until = Instant::now() + handshake.left(clock.elapsed());
    wire.shake_hands(until).map_err(|error| match refusal(&error) {
        // A host that makes room for others can't say so before TLS stands. So this is no proof that it is gone.
        HandshakeError::Closed => HandshakeError::Busy,
        refusal => refusal,
    })
}

/// Returns what an error of a wire means while hands are shaken.
fn refusal(error: &io::Error) -> HandshakeError {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => HandshakeError::Tls {
            reason: "this process has [cluster.tls], and the other one hasn't".to_owned(),
        },
        Some(
            reason @ (rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(_)),
        ) => HandshakeError::Tls { reason: reason.to_string() },
        Some(_) => HandshakeError::Stranger,
        None if is_silence(error) => HandshakeError::TimedOut,
        None => HandshakeError::Closed,
    }
}

/// Tries the addresses of a name one after the other, for [`CONNECT_FOR`] in all.
fn connect_any(address: &str, begun: Instant) -> Result<TcpStream, ConnectError> {
    let unresolved = |source| ConnectError::Unresolved { address: address.to_owned(), source };
    let found = address.to_socket_addrs().map_err(unresolved)?;
    let looked_up = begun.elapsed();
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    let mut are_refused = true;
    for socket in found {
        let left = CONNECT_FOR.saturating_sub(begun.elapsed() - looked_up).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&socket, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                are_refused &= error.kind() == ErrorKind::ConnectionRefused;
                last = error;
            }
        }
    }
    let address = address.to_owned();
    // A machine that doesn't answer at one of its addresses may have the process there.
    if are_refused && last.kind() == ErrorKind::ConnectionRefused {
        return Err(ConnectError::Refused { address });
    }
    Err(ConnectError::NoAnswer { address, source: last })
}

/// Does what a handshake needs until it is over. `look` is called before each step.
fn drive(
    wire: &mut Wire,
    handshake: &mut Handshake,
    clock: Instant,
    mut look: impl FnMut(&mut Handshake),
) -> Result<Hello, HandshakeError> {
    // Messages are short and wait for each other.
    let _ = wire.socket().set_nodelay(true);
    let mut block = [0; READ_BYTES];
    loop {
        look(handshake);
        let output = handshake.take_output();
        // The system takes no limit of zero.
        let left = handshake.left(clock.elapsed()).max(Duration::from_millis(1));
        let limited = wire.set_timeouts(Some(left));
        if limited.and_then(|()| wire.write_all(&output)).is_err() {
            handshake.close();
        }
        let needed = match handshake.need() {
            HandshakeNeed::Bytes(needed) => needed,
            HandshakeNeed::Terms(_) => continue,
            HandshakeNeed::Nothing(hello) => {
                let unlimited = wire.set_timeouts(None);
                return unlimited.map(|()| hello).map_err(|_| HandshakeError::Closed);
            }
            HandshakeNeed::Failed(error) => return Err(error),
        };
        match wire.read(&mut block[..needed.min(READ_BYTES)]) {
            Ok(0) => {
                look(handshake);
                handshake.close();
            }
            Ok(bytes) => {
                handshake.take(&block[..bytes], clock.elapsed());
            }
            Err(error) if is_silence(&error) => handshake.look_at_time(clock.elapsed()),
            Err(error) => match refusal(&error) {
                // A side that isn't trusted learns of it only now.
                refusal @ HandshakeError::Tls { .. } => return Err(refusal),
                _ => handshake.close(),
            },
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Returns random bytes of the system's.
fn nonce() -> Result<HandshakeNonce, DoorError> {
    let mut nonce = HandshakeNonce::default();
    let random = ring::default_provider().secure_random;
    random.fill(&mut nonce).map(|()| nonce).map_err(|_| DoorError::Random)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use keytide_config::Secret;

    use super::super::frames::{FrameReader, FrameWriter, Received};
    use super::super::hello::ClusterSizes;
    use super::super::wire::tests::certificates;
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn key(secret: &str) -> ClusterKey {
        ClusterKey::new(&Secret::new(secret.to_owned()))
    }

    fn hello(kind: LinkKind, index: Option<u16>) -> Hello {
        Hello {
            kind,
            sizes: ClusterSizes { processes: 2, workers: 1 },
            index,
            generation: 7,
            fingerprint: key("secret").fingerprint("configuration", "program"),
        }
    }

    fn open() -> (Door, Receiver<Guest>) {
        let (door, guests) = Door::open(LOOPBACK, key("secret"), None).unwrap();
        let hello = hello(LinkKind::Control, Some(0));
        door.set_terms(HostTerms { hello, leads: Some(7), runs: Some((7, 2)) });
        (door, guests)
    }

    fn call(door: &Door, secret: &str) -> Result<(Wire, Hello), ConnectError> {
        connect(&door.address().to_string(), (&key(secret), None), hello(LinkKind::Data, Some(1)), Some(0))
    }

    #[test]
    fn a_link_carries_frames_after_its_handshake() {
        let (door, guests) = open();
        let (stream, host) = call(&door, "secret").unwrap();
        assert_eq!((host.index, host.kind), (Some(0), LinkKind::Data));
        FrameWriter::new(stream.try_clone().unwrap()).write(b"from the caller").unwrap();
        let guest = guests.recv().unwrap();
        assert_eq!(guest.hello, hello(LinkKind::Data, Some(1)));
        let received = FrameReader::new(guest.wire).read().unwrap();
        assert_eq!(received, Received::Frame(b"from the caller".to_vec()));
        assert_eq!(FrameReader::new(stream).read().unwrap(), Received::End);
    }

    #[test]
    fn with_tls_a_link_carries_frames_as_well_and_strangers_without_it_get_none() {
        let folder = tempfile::tempdir().unwrap();
        let own = LinkTls::load(&certificates(folder.path(), "own")).unwrap();
        let other = LinkTls::load(&certificates(folder.path(), "other")).unwrap();
        let (door, guests) = Door::open(LOOPBACK, key("secret"), Some(own.clone())).unwrap();
        let own_hello = hello(LinkKind::Control, Some(0));
        door.set_terms(HostTerms { hello: own_hello, leads: Some(7), runs: Some((7, 2)) });
        let address = door.address().to_string();
        let secret = key("secret");
        let call = |tls| connect(&address, (&secret, tls), hello(LinkKind::Data, Some(1)), Some(0));
        let (wire, _) = call(Some(&own)).unwrap();
        FrameWriter::new(wire.try_clone().unwrap()).write(b"from the caller").unwrap();
        let guest = guests.recv().unwrap();
        let received = FrameReader::new(guest.wire.try_clone().unwrap()).read().unwrap();
        assert_eq!(received, Received::Frame(b"from the caller".to_vec()));
        guest.wire.shutdown(Shutdown::Both).unwrap();
        assert_eq!(FrameReader::new(wire).read().unwrap(), Received::End);
        let distrusted = call(Some(&other)).unwrap_err();
        let told = distrusted.to_string();
        assert!(told.contains("no link with TLS: ") && told.contains("cluster.tls.ca"), "{told}");
        let (plain, _plain_guests) = open();
        let unlike = |door: &Door, tls| {
            let address = door.address().to_string();
            connect(&address, (&secret, tls), hello(LinkKind::Data, Some(1)), Some(0))
                .unwrap_err()
                .to_string()
        };
        let told = unlike(&door, None);
        assert!(told.contains("the other process has [cluster.tls], and this one hasn't"), "{told}");
        let told = unlike(&plain, Some(&own));
        assert!(told.contains("this process has [cluster.tls], and the other one hasn't"), "{told}");
        assert!(guests.try_recv().is_err(), "none of them came through");
    }

    #[test]
    fn a_caller_learns_why_there_is_no_link() {
        let (door, _guests) = open();
        let wrong = call(&door, "wrong").unwrap_err();
        assert!(matches!(&wrong, ConnectError::Handshake { error: HandshakeError::Secret, .. }), "{wrong}");
        assert!(wrong.to_string().ends_with("give all processes the same cluster.secret"), "{wrong}");
        let address = door.address().to_string();
        let mut other = hello(LinkKind::Control, None);
        other.sizes.workers = 4;
        let error = connect(&address, (&key("secret"), None), other, None).unwrap_err().to_string();
        assert!(error.contains("it has 1 workers and this one 4"), "{error}");
        let of_past = Hello { generation: 6, ..hello(LinkKind::Control, None) };
        let error = connect(&address, (&key("secret"), None), of_past, None).unwrap_err();
        let generation = HandshakeError::Generation { asked: 6, found: 7 };
        assert!(matches!(&error, ConnectError::Handshake { error, .. } if *error == generation), "{error}");
        drop(door);
        let error = connect(&address, (&key("secret"), None), of_past, None).unwrap_err();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
        let error = connect("no port", (&key("secret"), None), of_past, None).unwrap_err();
        assert!(matches!(error, ConnectError::Unresolved { .. }), "{error}");
    }

    #[test]
    fn who_knocks_learns_whether_a_process_of_the_job_is_there() {
        let (door, guests) = open();
        let address = door.address().to_string();
        let knock = |secret| knock(&address, (&key(secret), None), hello(LinkKind::Control, None));
        knock("secret").unwrap();
        let stranger = knock("wrong").unwrap_err();
        assert!(
            matches!(&stranger, ConnectError::Handshake { error: HandshakeError::Secret, .. }),
            "{stranger}"
        );
        drop(door);
        let gone = knock("secret").unwrap_err();
        assert!(matches!(gone, ConnectError::Refused { .. }), "{gone}");
        assert!(guests.try_recv().is_err(), "it opens no link");
    }

    #[test]
    fn before_its_terms_are_set_a_door_takes_no_link() {
        let (door, _guests) = Door::open(LOOPBACK, key("secret"), None).unwrap();
        let error = call(&door, "secret").unwrap_err();
        assert!(matches!(error, ConnectError::Handshake { error: HandshakeError::Closed, .. }), "{error}");
    }

    #[test]
    fn a_port_of_another_program_is_no_process_of_the_job() {
        let listener = TcpListener::bind(LOOPBACK).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 mail.example.com ESMTP\r\n").unwrap();
            // The caller closes, and only then this side.
            let _ = stream.read(&mut [0; 64]);
        });
        let error =
            connect(&address, (&key("secret"), None), hello(LinkKind::Control, None), None).unwrap_err();
        assert!(matches!(error, ConnectError::Handshake { error: HandshakeError::Stranger, .. }), "{error}");
        other.join().unwrap();
    }

    #[test]
    fn a_process_gets_in_while_more_strangers_than_places_send_nothing() {
        let (door, guests) = open();
        let began = Instant::now();
        let silent: Vec<TcpStream> =
            (0..MAX_HANDSHAKES + 16).map(|_| TcpStream::connect(door.address()).unwrap()).collect();
        let noisy: Vec<TcpStream> = (0..16)
            .map(|_| {
                let mut stream = TcpStream::connect(door.address()).unwrap();
                // It is closed as soon as its first byte is read, so this may fail.
                let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                stream
            })
            .collect();
        call(&door, "secret").unwrap();
        guests.recv().unwrap();
        assert!(door.inner.visitors().present.len() <= MAX_HANDSHAKES);
        // All of them are gone without their doing.
        for mut stream in silent.into_iter().chain(noisy) {
            let mut rest = Vec::new();
            let _ = io::Read::by_ref(&mut stream).take(1_024).read_to_end(&mut rest);
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }

    #[test]
    fn a_process_that_makes_room_is_told_so() {
        let (door, _guests) = open();
        let mut first = TcpStream::connect(door.address()).unwrap();
        let others: Vec<TcpStream> =
            (0..MAX_HANDSHAKES).map(|_| TcpStream::connect(door.address()).unwrap()).collect();
        // The first is the oldest of those that sent nothing. It gets an opening whose version says that there is no room.
        let mut opening = Vec::new();
        first.read_to_end(&mut opening).unwrap();
        assert_eq!(opening.len(), 42, "{opening:?}");
        assert_eq!(opening[8..10], [0, 0]);
        drop(others);
    }

    #[test]
    fn a_door_that_closes_ends_its_handshakes_and_gives_its_port_free() {
        let (door, guests) = open();
        let address = door.address();
        let mut silent = TcpStream::connect(address).unwrap();
        drop(door);
        let _ = silent.read(&mut [0; 1]);
        assert!(guests.recv().is_err(), "no thread has the other end");
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let mut pace = LogPace::default();
        let at = |ms| Duration::from_millis(ms);
        let lines = [0, 1, 999, 1_000, 1_999, 5_000].map(|ms| pace.line(at(ms)));
        assert_eq!(lines, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(pace.line(at(4_000)), None, "a clock that goes back says nothing");
    }
}
