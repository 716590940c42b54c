//! Decoders: one message of a gateway's log in, canonical access events out. One file a format.
//!
//! No raw key leaves this module: keys become ids here, and what is kept of a bad record holds none.

use keytide_dataflow::model::{AccessEvent, Definition, Position};

/// What a decoder appends to: a block's worth of messages.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Accepted events, in the order of the input. `late_ms` is 0: lateness is judged later.
    pub events: Vec<AccessEvent>,
    /// Records that could not be accepted, in the order of the input.
    pub dead_letters: Vec<DeadLetter>,
    /// Strings behind ids this decoder hasn't handed out lately.
    pub definitions: Vec<Definition>,
}

/// A record that could not be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands.
    pub position: Position,
    /// How many events of the same [`Decoded`] stand before it.
    pub events_before: usize,
    /// Why, in words: what is wrong, where, and what is allowed. Never quotes the record's values.
    pub reason: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// What could be parsed of it, as JSON of canonical fields, capped, without keys.
    pub kept: Option<Box<str>>,
}

/// Turns messages of one source into events.
pub trait Decoder: Send {
    /// Decodes one message (a Kafka record's value, a line of a file), which may hold one record, an array
    /// or newline-delimited records. `at` is the message's position; its `index` is the first record's.
    /// Never fails and never panics: what can't be accepted is a dead letter, its neighbours go on.
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded);
}
