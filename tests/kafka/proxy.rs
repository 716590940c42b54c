//! A proxy between a client and the broker that holds up requests: one to end a transaction, which it delivers later, or
//! those to produce to a topic. In a storm it also loses requests, answers and connections at random.
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
/// The numbers of the two requests in Kafka's protocol.
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
    held: Vec<Vec<u8>>,
    /// A held request is delivered before a request to produce that contains these bytes.
    marker: Vec<u8>,
    delivered: u32,
    /// Requests to produce that contain these bytes wait.
    stalled: Option<Vec<u8>>,
    /// The state of the random numbers of a storm.
    storm: Option<u64>,
}

/// The fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Forward,
    /// The connection is lost before the request gets to the broker.
    LoseRequest,
    /// The connection is lost before the answer comes.
    LoseAnswer,
    /// The connection is lost, and the request gets to the broker later.
    HoldUp,
}

impl State {
    /// Returns a random number below `below`.
    fn random(&mut self, below: u64) -> Option<u64> {
        let state = self.storm.as_mut()?;
        // SplitMix64.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((mixed ^ (mixed >> 31)) % below)
    }

    /// Decides what becomes of a request. The end of a transaction is where faults do harm.
    fn fate(&mut self, key: i16) -> Fate {
        if key == END_TXN && std::mem::take(&mut self.is_armed) {
            return Fate::HoldUp;
        }
        match (key, self.random(if key == END_TXN { 8 } else { 100 })) {
            (END_TXN, Some(0 | 1)) => Fate::HoldUp,
            (END_TXN, Some(2)) | (_, Some(3)) => Fate::LoseAnswer,
            (_, Some(4)) => Fate::LoseRequest,
            _ => Fate::Forward,
        }
    }
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

    /// Begins a storm that depends on a seed, or ends it.
    pub(crate) fn storm(&self, seed: Option<u64>) {
        self.shared.lock().storm = seed;
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
        let fate = state.fate(key);
        match fate {
            Fate::HoldUp => {
                state.held.push(frame);
                break;
            }
            Fate::LoseRequest => break,
            Fate::Forward | Fate::LoseAnswer => {}
        }
        if key == PRODUCE {
            if contains(&frame, &state.marker) || state.random(4) == Some(0) {
                for held in std::mem::take(&mut state.held) {
                    deliver(&held, broker);
                    state.delivered += 1;
                }
            }
            while state.stalled.as_ref().is_some_and(|topic| contains(&frame, topic)) {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(state);
        if server.write_all(&frame).is_err() || fate == Fate::LoseAnswer {
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
