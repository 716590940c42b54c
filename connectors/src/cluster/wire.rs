//! A link's bytes, with TLS or without.
//!
//! With TLS both sides show a certificate that the cluster's authority signed. The names in it don't matter: addresses
//! of nodes change, and the handshake behind TLS proves that the other side has the job's secret.
//!
//! A link is read by one thread and written by another, while rustls has one state for both. A lock is held only while
//! that state works in memory, never while the socket waits. So a side that only writes can't stop a side that reads.
//! What is written goes out in the order in which it was encrypted, by a lock of its own that the reader never waits
//! for.
//!
//! Limits: 64 KiB are encrypted at once. A reader takes no more from the socket before what it took is read.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keytide_config::ClusterTls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};

/// Bytes that are taken from the socket at once.
const BLOCK_BYTES: usize = 64 << 10;

/// An error of the certificates that a process is configured with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cluster.tls.{setting}: {path} can't be used: {reason}")]
    File { setting: &'static str, path: String, reason: String },
    #[error(
        "cluster.tls: the certificates can't be used: {0}; `key` must be that of `cert`, and each certificate of X.509 \
         version 3, as docs/cluster.md makes them"
    )]
    Unfit(String),
}

/// The certificates with which a process opens and takes links.
#[derive(Clone)]
pub struct LinkTls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTls").finish_non_exhaustive()
    }
}

impl LinkTls {
    /// Reads certificates and key from their files, and tries whether they fit.
    ///
    /// # Errors
    /// If a file can't be read or has no such content, or if key and certificate don't belong together.
    pub fn load(files: &ClusterTls) -> Result<Self, TlsError> {
        let ClusterTls { cert, key, ca } = files;
        let certificates = |setting, path: &std::path::Path| {
            let failed =
                |reason: String| TlsError::File { setting, path: path.display().to_string(), reason };
            let found: Result<Vec<CertificateDer<'static>>, _> =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let found = found.map_err(|error| failed(error.to_string()))?;
            if found.is_empty() { Err(failed("it has no certificate in PEM".to_owned())) } else { Ok(found) }
        };
        let chain = certificates("cert", cert)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
            setting: "key",
            path: key.display().to_string(),
            reason: error.to_string(),
        })?;
        let unfit = |error: &dyn fmt::Display| TlsError::Unfit(error.to_string());
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca", ca)? {
            roots.add(authority).map_err(|error| unfit(&error))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let of_clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unfit(&error))?
            .with_client_cert_verifier(of_clients.build().map_err(|error| unfit(&error))?)
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(|error| unfit(&error))?;
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let of_servers = of_servers.build().map_err(|error| unfit(&error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unfit(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(of_servers)))
            .with_client_auth_cert(chain, private)
            .map_err(|error| unfit(&error))?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Takes any name in a certificate that the authority signed.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, chain, name, stapled, now) {
            // It is judged last, when the chain and the dates are found to be right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A handle on a link's bytes. Another handle of the same link may be used by another thread.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
struct Tls {
    connection: Mutex<Connection>,
    incoming: Mutex<Incoming>,
    /// What is encrypted and not sent. Its lock gives the order in which that goes out.
    outgoing: Mutex<Vec<u8>>,
}

/// Bytes from the socket that rustls didn't take.
#[derive(Debug)]
struct Incoming {
    block: Box<[u8]>,
    next: usize,
    end: usize,
}

impl Wire {
    /// Makes a wire without TLS.
    #[must_use]
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// Makes a wire with TLS of a socket that this process opened. No byte is sent.
    ///
    /// # Errors
    /// If rustls refuses.
    pub(super) fn of_caller(socket: TcpStream, tls: &LinkTls) -> io::Result<Self> {
        // Names don't matter, but there must be one.
        let name = ServerName::from(socket.peer_addr()?.ip());
        let connection = ClientConnection::new(Arc::clone(&tls.client), name).map_err(io::Error::other)?;
        Ok(Self::with(socket, connection.into()))
    }

    /// Makes a wire with TLS of a socket that another process opened. No byte is sent.
    ///
    /// # Errors
    /// If rustls refuses.
    pub(super) fn of_host(socket: TcpStream, tls: &LinkTls) -> io::Result<Self> {
        let connection = ServerConnection::new(Arc::clone(&tls.server)).map_err(io::Error::other)?;
        Ok(Self::with(socket, connection.into()))
    }

    fn with(socket: TcpStream, connection: Connection) -> Self {
        let incoming = Incoming { block: vec![0; BLOCK_BYTES].into_boxed_slice(), next: 0, end: 0 };
        let tls = Tls {
            connection: Mutex::new(connection),
            incoming: Mutex::new(incoming),
            outgoing: Mutex::default(),
        };
        Self { socket, tls: Some(Arc::new(tls)) }
    }

    /// Shakes hands for TLS, if the wire has it, until then at the latest.
    ///
    /// # Errors
    /// If the other side is no process of the cluster, is gone, or takes too long.
    pub(super) fn shake_hands(&mut self, until: Instant) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut connection = lock(&tls.connection);
        while connection.is_handshaking() || connection.wants_write() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            self.socket.set_write_timeout(Some(left))?;
            if connection.wants_write() {
                connection.write_tls(&mut &self.socket)?;
                continue;
            }
            if connection.read_tls(&mut &self.socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Err(error) = connection.process_new_packets() {
                // The other side learns why.
                let _ = connection.write_tls(&mut &self.socket);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        Ok(())
    }

    /// Returns another handle of the link.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, tls: self.tls.clone() })
    }

    /// Returns the socket, for its options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Limits how long a read and a write may wait; `None` lets them wait for ever.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_timeouts(&self, limit: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(limit)?;
        self.socket.set_write_timeout(limit)
    }

    /// Ends one direction of the link, or both. The other side learns that nothing is missing.
    ///
    /// # Errors
    /// If the link is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if let Some(tls) = self.tls.as_ref().filter(|_| how != Shutdown::Read) {
            lock(&tls.connection).send_close_notify();
            tls.flush(&self.socket, lock(&tls.outgoing))?;
        }
        self.socket.shutdown(how)
    }
}

impl Tls {
    /// Sends what rustls has encrypted, in that order.
    fn flush(&self, mut socket: &TcpStream, mut outgoing: MutexGuard<'_, Vec<u8>>) -> io::Result<()> {
        {
            let mut connection = lock(&self.connection);
            outgoing.clear();
            while connection.wants_write() {
                connection.write_tls(&mut *outgoing)?;
            }
        }
        socket.write_all(&outgoing)
    }

    /// Decrypts what was taken from the socket, and reads from it. Returns `None` if more has to come first.
    fn take(&self, incoming: &mut Incoming, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut connection = lock(&self.connection);
        loop {
            match connection.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read.map(Some),
            }
            let mut rest = &incoming.block[incoming.next..incoming.end];
            if rest.is_empty() {
                return Ok(None);
            }
            incoming.next += connection.read_tls(&mut rest)?;
            connection
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.read(into) };
        let mut incoming = lock(&tls.incoming);
        loop {
            if let Some(read) = tls.take(&mut incoming, into)? {
                return Ok(read);
            }
            let Incoming { block, next, end } = &mut *incoming;
            (*next, *end) = (0, 0);
            *end = self.socket.read(block)?;
            if *end == 0 {
                // Without a notice before, bytes may be missing. Then the reader says so.
                lock(&tls.connection).read_tls(&mut io::empty())?;
                return lock(&tls.connection).reader().read(into);
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.write(bytes) };
        let outgoing = lock(&tls.outgoing);
        let taken = lock(&tls.connection).writer().write(bytes)?;
        tls.flush(&self.socket, outgoing)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::thread;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// Writes the certificate of an authority, and one that it signed.
    pub(in crate::cluster) fn certificates(folder: &Path, authority: &str) -> ClusterTls {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["node".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = folder.join(format!("{authority}-{name}.pem"));
            std::fs::write(&path, text).unwrap();
            path
        };
        ClusterTls {
            cert: file("cert", &cert.pem()),
            key: file("key", &key.serialize_pem()),
            ca: file("ca", &issuer.pem()),
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (caller, listener.accept().unwrap().0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// A wire whose sides have shaken hands.
    fn wires(folder: &TempDir) -> (Wire, Wire) {
        let tls = LinkTls::load(&certificates(folder.path(), "own")).unwrap();
        let (caller, host) = pair();
        let (mut caller, mut host) =
            (Wire::of_caller(caller, &tls).unwrap(), Wire::of_host(host, &tls).unwrap());
        let shaken = thread::spawn(move || host.shake_hands(soon()).map(|()| host));
        caller.shake_hands(soon()).unwrap();
        let host = shaken.join().unwrap().unwrap();
        [&caller, &host]
            .into_iter()
            .for_each(|wire| wire.set_timeouts(Some(Duration::from_secs(20))).unwrap());
        (caller, host)
    }

    #[test]
    fn both_sides_read_and_write_at_once_whatever_the_other_does() {
        const BYTES: usize = 30 << 20;
        let folder = tempfile::tempdir().unwrap();
        let (caller, host) = wires(&folder);
        let content = |seed: usize| (0..BYTES).map(move |at| (at.wrapping_mul(31) + at / 977 + seed) as u8);
        // Far more than the sockets hold, both ways: neither side may wait for the other's reader.
        let mut threads = Vec::new();
        for (seed, wire) in [(1, &caller), (2, &host)] {
            let mut writer = wire.try_clone().unwrap();
            threads.push(thread::spawn(move || {
                let bytes: Vec<u8> = content(seed).collect();
                bytes.chunks(100_003).for_each(|piece| writer.write_all(piece).unwrap());
                writer.shutdown(Shutdown::Write).unwrap();
            }));
        }
        for (seed, mut wire) in [(2, caller), (1, host)] {
            threads.push(thread::spawn(move || {
                let mut bytes = Vec::new();
                wire.read_to_end(&mut bytes).unwrap();
                assert!(bytes.into_iter().eq(content(seed)), "in order, and all of it");
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_link_that_is_cut_is_no_end_and_one_that_is_silent_is_neither() {
        let folder = tempfile::tempdir().unwrap();
        let (mut caller, host) = wires(&folder);
        caller.set_timeouts(Some(Duration::from_millis(20))).unwrap();
        let silent = caller.read(&mut [0; 8]).unwrap_err();
        assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");
        host.socket().shutdown(Shutdown::Both).unwrap();
        caller.set_timeouts(Some(Duration::from_secs(20))).unwrap();
        let cut = caller.read(&mut [0; 8]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof, "{cut}");
    }

    #[test]
    fn a_side_with_another_authority_or_none_gets_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let own = LinkTls::load(&certificates(folder.path(), "own")).unwrap();
        let other = LinkTls::load(&certificates(folder.path(), "other")).unwrap();
        for (of_caller, of_host) in [(&own, &other), (&other, &own)] {
            let (caller, host) = pair();
            let mut caller = Wire::of_caller(caller, of_caller).unwrap();
            let mut host = Wire::of_host(host, of_host).unwrap();
            let shaken = thread::spawn(move || host.shake_hands(soon()));
            let called = caller.shake_hands(soon()).and_then(|()| caller.read(&mut [0; 1]).map(drop));
            assert!(called.is_err() && shaken.join().unwrap().is_err());
        }
        // One that speaks no TLS, and one that says nothing.
        let (mut caller, host) = pair();
        let mut host = Wire::of_host(host, &own).unwrap();
        caller.write_all(b"KEYTIDE\n and more that is no record of TLS").unwrap();
        assert_eq!(host.shake_hands(soon()).unwrap_err().kind(), ErrorKind::InvalidData);
        let (_silent, host) = pair();
        let mut host = Wire::of_host(host, &own).unwrap();
        let error = host.shake_hands(Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{error}");
    }

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let good = certificates(folder.path(), "own");
        let other = certificates(folder.path(), "other");
        let told = |files: ClusterTls| LinkTls::load(&files).unwrap_err().to_string();
        let missing = told(ClusterTls { cert: "missing.pem".into(), ..good.clone() });
        assert!(missing.starts_with("cluster.tls.cert: missing.pem can't be used: "), "{missing}");
        let no_key = told(ClusterTls { key: good.ca.clone(), ..good.clone() });
        assert!(no_key.starts_with("cluster.tls.key: "), "{no_key}");
        let no_ca = told(ClusterTls { ca: good.key.clone(), ..good.clone() });
        assert!(no_ca.ends_with("it has no certificate in PEM"), "{no_ca}");
        let mixed = told(ClusterTls { key: other.key, ..good });
        assert!(mixed.starts_with("cluster.tls: the certificates can't be used: "), "{mixed}");
    }
}
