//! A proxy between a client and the broker that holds up a request to end a transaction, and delivers it later.
//!
//! ```text
//! client ──► proxy ──► broker     frames: length, key of the request, version, ...
//!              └ held: EndTxn ──── over a connection of its own, while the next transaction is open
//! ```
//! When it holds a request up it resets the connection, as a network does that loses a connection after the request got
//! into it. The client connects again and repeats the request. The broker's answers name its address; the proxy puts
//! its own port there, so that no connection goes around it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The host that the broker advertises.
const HOST: &[u8] = b"127.0.0.1";
/// The keys of requests.
const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;

/// A proxy to one broker, until the end of the process.
pub(crate) struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// True if the next EndTxn is to be held up.
    is_armed: bool,
    held: Option<Vec<u8>>,
    /// A held request is delivered before a request to produce that contains these bytes.
    marker: Vec<u8>,
    delivered: u32,
}

impl Proxy {
    /// Starts a proxy. A held request is delivered before the next record for the topic `topic`.
    pub(crate) fn new(broker: &str, topic: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { marker: topic.as_bytes().to_vec(), ..State::default() }));
        let (shared, broker) = (Arc::clone(&state), broker.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&broker).unwrap());
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (requests, answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (state, broker) = (Arc::clone(&shared), broker.clone());
                thread::spawn(move || forward_requests(requests, server, &state, &broker));
                let broker_port = answers.peer_addr().unwrap().port();
                thread::spawn(move || forward_answers(answers, client, broker_port, port));
            }
        });
        Self { address: format!("127.0.0.1:{port}"), state }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Lets the proxy hold up the next request to end a transaction.
    pub(crate) fn arm(&self) {
        lock(&self.state).is_armed = true;
    }

    /// Returns how many requests were delivered late.
    pub(crate) fn delivered(&self) -> u32 {
        lock(&self.state).delivered
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a frame with its length; nothing at the end of the connection.
fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    let mut read = |bytes: &mut [u8]| match from.read_exact(bytes) {
        Ok(()) => Some(()),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
        Err(_) => None,
    };
    read(&mut frame)?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(4 + length, 0);
    read(&mut frame[4..])?;
    Some(frame)
}

fn forward_requests(mut client: TcpStream, mut server: TcpStream, state: &Mutex<State>, broker: &str) {
    while let Some(frame) = frame(&mut client) {
        let key = i16::from_be_bytes(frame[4..6].try_into().unwrap());
        {
            let mut state = lock(state);
            if key == END_TXN && std::mem::take(&mut state.is_armed) {
                state.held = Some(frame);
                break;
            }
            let marker = std::mem::take(&mut state.marker);
            let is_marked = frame.windows(marker.len()).any(|window| window == marker);
            state.marker = marker;
            if key == PRODUCE
                && is_marked
                && let Some(held) = state.held.take()
            {
                deliver(&held, broker);
                state.delivered += 1;
            }
        }
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
