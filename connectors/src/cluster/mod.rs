//! How the processes of one job know each other.
//!
//! ```text
//!  door.rs       sockets, a thread each ──► handshake.rs ──► hello.rs
//!  frames.rs     what goes over a socket after its handshake
//! ```
//! The handshake is a state without I/O and without a clock, so that tests need no socket.
//!
//! Limits: 2 s for a handshake, 64 of them at once, 16 MiB a frame.

mod door;
mod frames;
mod handshake;
mod hello;

pub use self::door::{CONNECT_FOR, ConnectError, Door, DoorError, Guest, MAX_HANDSHAKES, connect};
pub use self::frames::{FrameDecoder, FrameError, FrameReader, FrameWriter, MAX_FRAME_BYTES, Received};
pub use self::handshake::{
    HANDSHAKE_FOR, Handshake, HandshakeError, HandshakeNeed, HandshakeNonce, HostTerms, PROTOCOL,
};
pub use self::hello::{ClusterFingerprint, ClusterKey, ClusterSizes, Differences, Hello, LinkKind};
