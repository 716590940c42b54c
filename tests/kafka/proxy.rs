//! A proxy between a client and the broker that holds up requests: one to end a transaction, which it delivers later, or
//! those to produce to a topic.
//!
//! ```text
//! client ──► proxy ──► broker     frames: length, key of the request, version, ...
//!              └ held: EndTxn ──── over a connection of its own, while the next transaction is open
//! ```
//! When it holds a request up it resets the connection, as a network does that loses a connection after the request got
//! into it. The client connects again and repeats the request. The broker's answers name its address; the proxy puts
//! its own port there, so that no connection goes around it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The host that the broker advertises.
const HOST: &[u8] = b"127.0.0.1";
/// The keys of requests.
const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;

/// A proxy to one broker, until the end of the process.
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// True if the next EndTxn is to be held up.
    is_armed: bool,
    held: Option<Vec<u8>>,
    /// A held request is delivered before a request to produce that contains these bytes.
    marker: Vec<u8>,
    delivered: u32,
    /// Requests to produce that contain these bytes wait.
    stalled: Option<Vec<u8>>,
}

impl Proxy {
    /// Starts a proxy. A held request is delivered before the next record for the topic `topic`.
    pub(crate) fn new(broker: &str, topic: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        shared.lock().marker = topic.as_bytes().to_vec();
        let (of_thread, broker) = (Arc::clone(&shared), broker.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&broker).unwrap());
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (shared, broker) = (Arc::clone(&of_thread), broker.clone());
                thread::spawn(move || forward_requests(requests, server, &shared, &broker));
                let broker_port = answers.peer_addr().unwrap().port();
                thread::spawn(move || forward_answers(answers, client, broker_port, port));
            }
        });
        Self { address: format!("127.0.0.1:{port}"), shared }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Lets the proxy hold up the next request to end a transaction.
    pub(crate) fn arm(&self) {
        self.shared.lock().is_armed = true;
    }

    /// Lets requests to produce to a topic wait, and no others any more.
    pub(crate) fn stall(&self, topic: Option<&str>) {
        self.shared.lock().stalled = topic.map(|topic| topic.as_bytes().to_vec());
        self.shared.changed.notify_all();
    }

    /// Returns how many requests were delivered late.
    pub(crate) fn delivered(&self) -> u32 {
        self.shared.lock().delivered
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

/// Reads a frame with its length; nothing at the end of the connection.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + length, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

fn forward_requests(mut client: TcpStream, mut server: TcpStream, shared: &Shared, broker: &str) {
    while let Some(frame) = frame(&mut client) {
        let key = i16::from_be_bytes(frame[4..6].try_into().unwrap());
        let mut state = shared.lock();
        if key == END_TXN && std::mem::take(&mut state.is_armed) {
            state.held = Some(frame);
            break;
        }
        if key == PRODUCE {
            if contains(&frame, &state.marker)
                && let Some(held) = state.held.take()
            {
                deliver(&held, broker);
                state.delivered += 1;
            }
            while state.stalled.as_ref().is_some_and(|topic| contains(&frame, topic)) {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(state);
        if server.write_all(&frame).is_err() {
            break;
        }
    }
    for stream in [client, server] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Sends a request over a connection of its own, and waits for its answer, whatever that is.
fn deliver(request: &[u8], broker: &str) {
    let mut server = TcpStream::connect(broker).unwrap();
    server.write_all(request).unwrap();
    frame(&mut server).expect("the broker answers");
}

fn forward_answers(mut server: TcpStream, mut client: TcpStream, broker_port: u16, own_port: u16) {
    let address = |port: u16| [HOST, &u32::from(port).to_be_bytes()].concat();
    let (found, own) = (address(broker_port), address(own_port));
    while let Some(mut frame) = frame(&mut server) {
        let places: Vec<usize> = (0..frame.len().saturating_sub(found.len()))
            .filter(|at| frame[*at..].starts_with(&found))
            .collect();
        for at in places {
            frame[at..at + own.len()].copy_from_slice(&own);
        }
        if client.write_all(&frame).is_err() {
            break;
        }
    }
    for stream in [client, server] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
