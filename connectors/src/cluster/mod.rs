//! How the processes of one job find each other, and how they know each other.
//!
//! ```text
//!  election.rs   who leads the next generation ◄── claim.rs   objects `cluster/GENERATION` in the store
//!      │ connect
//!      ▼
//!  door.rs       sockets, a thread each ──► wire.rs ──► handshake.rs ──► hello.rs
//!  frames.rs ──► messages.rs    what goes over a socket after its handshake
//! ```
//! The election and the handshake are states without I/O and without a clock, so that tests try every order of events.
//!
//! Limits: 2 s for a handshake, 64 of them at once, 16 MiB a frame.

pub mod claim;
mod door;
mod election;
mod frames;
mod handshake;
mod hello;
mod messages;
#[cfg(test)]
mod model;
mod wire;

use std::fs::File;
use std::io::{self, Read as _};

use xxhash_rust::xxh3::Xxh3;

pub use self::door::{CONNECT_FOR, ConnectError, Door, DoorError, Guest, MAX_HANDSHAKES, connect, knock};
pub use self::election::{
    AskAnswer, Election, ElectionEvent, ElectionStep, ElectionTerms, NewestTick, SHORT_FOR, SeenClaim,
};
pub use self::frames::{FrameDecoder, FrameError, FrameReader, FrameWriter, MAX_FRAME_BYTES, Received};
pub use self::handshake::{
    HANDSHAKE_FOR, Handshake, HandshakeError, HandshakeNeed, HandshakeNonce, HostTerms, PROTOCOL,
};
pub use self::hello::{ClusterFingerprint, ClusterKey, ClusterSizes, Differences, Hello, LinkKind};
pub use self::messages::{Heard, MAX_MESSAGE_BYTES, MessageError, MessageReader, MessageWriter};
pub use self::wire::{LinkTls, TlsError, Wire};

/// Bytes of the program that are read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Returns what identifies this program: its version, and a digest of its file.
///
/// # Errors
/// If the file can't be read.
pub fn program() -> io::Result<String> {
    let (mut file, mut block) = (File::open("/proc/self/exe")?, vec![0; BLOCK_BYTES]);
    let mut digest = Xxh3::new();
    loop {
        match file.read(&mut block)? {
            0 => return Ok(format!("{} {:032x}", env!("CARGO_PKG_VERSION"), digest.digest128())),
            read => digest.update(&block[..read]),
        }
    }
}
