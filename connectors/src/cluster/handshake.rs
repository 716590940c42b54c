//! The handshake with which every link between two processes begins, without I/O and without a clock.
//!
//! ```text
//! caller (connects)                              host (listens)
//!   opening: magic, version, nonce   ───────►
//!                                    ◄───────   opening
//!   hello, proof                     ───────►   the host judges the hello
//!                                    ◄───────   reply: proven; hello, decision, proof
//!   confirmation                     ───────►
//! ```
//! **Why it is right.**
//! 1. Proofs and the confirmation are HMAC-SHA-256 under the cluster's secret, over all bytes so far in both directions.
//!    The last two of them cover both hellos. Each side chose a nonce, so none can be repeated from another link.
//! 2. Each of the three has a purpose of its own in its HMAC. So no process can be made to answer itself.
//! 3. The host says nothing but its version and a nonce, or that it has no TLS, before the caller has proven the secret. A caller with a wrong
//!    secret receives one byte that says so. The caller's fingerprint is an HMAC as well, see `hello.rs`.
//! 4. Codes are compared in constant time.
//! 5. The host takes part in the link only after the confirmation. So a link that one side refuses isn't counted by the
//!    other.
//!
//! Later bytes aren't protected: that is what TLS is for, or a network that only the job's nodes are on.
//!
//! Limits: [`HANDSHAKE_FOR`] in all, whatever comes. Every message has a fixed length; neither side takes more than
//! 112 bytes at once or keeps more than 243.

use std::time::Duration;

use super::hello::{ClusterKey, Differences, HELLO_BYTES, Hello, LinkKind, Purpose};

/// How long a handshake may take in all.
pub const HANDSHAKE_FOR: Duration = Duration::from_secs(2);
/// The version of this protocol. Processes of different versions don't work together.
pub const PROTOCOL: u16 = 1;
const MAGIC: [u8; 8] = *b"KEYTIDE\n";
/// In place of a version: the host has too many handshakes at once.
const BUSY_VERSION: u16 = 0;

const NONCE_BYTES: usize = 32;
const OPENING_BYTES: usize = MAGIC.len() + 2 + NONCE_BYTES;
const CODE_BYTES: usize = 32;
/// Hello and proof of the caller.
const CLAIM_BYTES: usize = HELLO_BYTES + CODE_BYTES;
/// Hello, decision and proof of the host.
const DECISION_BYTES: usize = HELLO_BYTES + 1 + CODE_BYTES;

/// The first byte of a TLS connection, as its caller begins it, and of an alert (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
const TLS_ALERT_TYPE: u8 = 21;
/// A fatal alert `protocol_version`, which no process with TLS has another reason to send.
const TLS_ALERT: [u8; 7] = [TLS_ALERT_TYPE, 3, 3, 0, 2, 2, 70];

/// The first byte of the host's reply.
const PROVEN: u8 = 1;
const WRONG_SECRET: u8 = 2;
const BUSY: u8 = 3;

/// The nonce of one side, which must be a random number of its own for each handshake.
pub type HandshakeNonce = [u8; NONCE_BYTES];

/// The reason for which two processes have no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes aren't those of this protocol.
    #[error("it isn't a process of a Keytide cluster; keep other programs away from cluster.listen")]
    Stranger,
    #[error(
        "it has version {theirs} of the protocol between processes, and this one version {PROTOCOL}; start the same \
         program everywhere"
    )]
    Version { theirs: u16 },
    /// Nothing else is known of the other process.
    #[error("it has another secret; give all processes the same cluster.secret")]
    Secret,
    #[error("{0}")]
    Differs(Differences),
    /// The host takes part in another generation, or in none.
    #[error(
        "the link is for generation {asked}, and the other process is at generation {found}; the newest claim decides"
    )]
    Generation { asked: u64, found: u64 },
    /// The number of the caller or of the host doesn't fit the generation.
    #[error(
        "the link is between processes {caller} and {host}, which generation {generation} doesn't have like this; it begins anew"
    )]
    Index { caller: u16, host: u16, generation: u64 },
    #[error("it sent bytes that have no meaning in a handshake; start the same program everywhere")]
    Malformed,
    #[error("it has too many handshakes at once; the connection is tried again")]
    Busy,
    /// The other side isn't trusted, or doesn't trust this one.
    #[error(
        "no link with TLS: {reason}; give all processes certificates of the authority in cluster.tls.ca, and their keys"
    )]
    Tls { reason: String },
    /// The other side closed the connection before the end.
    #[error("it closed the connection during the handshake; see its log")]
    Closed,
    #[error("the handshake took more than 2 s; the process is frozen, or the network loses packets")]
    TimedOut,
}

/// The generations of a host at the moment when it judges a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTerms {
    /// The host's own hello. Its kind is replaced by the link's.
    pub hello: Hello,
    /// The generation whose control and results links are taken. It must be set before the process claims the
    /// generation, or others find it closed and claim the next one.
    pub leads: Option<u64>,
    /// The generation whose data links are taken, and the number of its processes.
    pub runs: Option<(u64, u16)>,
}

impl HostTerms {
    /// Returns why a link isn't taken, if it isn't.
    fn refusal(&self, caller: &Hello) -> Option<HandshakeError> {
        if let Some(differences) = self.hello.differences(caller) {
            return Some(HandshakeError::Differs(differences));
        }
        let generation = match caller.kind {
            LinkKind::Control | LinkKind::Results => self.leads,
            LinkKind::Data => self.runs.map(|(generation, _)| generation),
        };
        if generation != Some(caller.generation) {
            return Some(other_generation(caller, &self.hello));
        }
        // Before a generation starts, processes have no number, and control links need none.
        if caller.kind == LinkKind::Control {
            return None;
        }
        let processes = self.runs.filter(|(runs, _)| *runs == caller.generation).map_or(0, |(_, of)| of);
        match (caller.index, self.hello.index) {
            (Some(index), Some(host)) if index < processes && index != host => None,
            _ => Some(other_index(caller, &self.hello)),
        }
    }
}

fn other_generation(caller: &Hello, host: &Hello) -> HandshakeError {
    HandshakeError::Generation { asked: caller.generation, found: host.generation }
}

fn other_index(caller: &Hello, host: &Hello) -> HandshakeError {
    let number = |hello: &Hello| hello.index.unwrap_or(u16::MAX);
    HandshakeError::Index { caller: number(caller), host: number(host), generation: caller.generation }
}

/// The host's decision about a link, as a byte. Differences need none, since the caller finds them in the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Taken = 1,
    Differs = 2,
    OtherGeneration = 3,
    OtherIndex = 4,
}

impl Decision {
    const ALL: [Self; 4] = [Self::Taken, Self::Differs, Self::OtherGeneration, Self::OtherIndex];

    fn of(refusal: Option<&HandshakeError>) -> Self {
        match refusal {
            None => Self::Taken,
            Some(HandshakeError::Generation { .. }) => Self::OtherGeneration,
            Some(HandshakeError::Index { .. }) => Self::OtherIndex,
            Some(_) => Self::Differs,
        }
    }
}

/// The next thing that a handshake needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeNeed {
    /// As many bytes of the other side.
    Bytes(usize),
    /// The terms on which the caller's hello is judged.
    Terms(Hello),
    /// Nothing: the link stands, and this is the other side's hello.
    Nothing(Hello),
    /// Nothing: there is no link.
    Failed(HandshakeError),
}

/// The message that comes next from the other side.
#[derive(Clone, Debug)]
enum Stage {
    CallerAwaitsOpening,
    CallerAwaitsReply,
    CallerAwaitsDecision,
    HostAwaitsOpening,
    HostAwaitsClaim,
    HostAwaitsTerms(Hello),
    HostAwaitsConfirmation(Hello),
    Done(Hello),
    Failed(HandshakeError),
}

/// One side's state of a handshake. Times are durations since any fixed instant.
#[derive(Debug)]
pub struct Handshake {
    key: ClusterKey,
    nonce: HandshakeNonce,
    /// The caller's hello, which a host doesn't have.
    hello: Option<Hello>,
    /// The number that the host must have; `None` if it doesn't matter.
    expected: Option<u16>,
    stage: Stage,
    deadline: Duration,
    /// The bytes of the message that comes next, as far as they arrived.
    arrived: Vec<u8>,
    /// All bytes of both sides that the next code covers.
    transcript: Vec<u8>,
    output: Vec<u8>,
}

impl Handshake {
    /// Begins the handshake of a process that connected to another one, which must have the number `expected` if that is
    /// given.
    #[must_use]
    pub fn of_caller(
        key: ClusterKey,
        hello: Hello,
        expected: Option<u16>,
        nonce: HandshakeNonce,
        now: Duration,
    ) -> Self {
        let mut handshake = Self::new(key, Some(hello), nonce, Stage::CallerAwaitsOpening, now);
        handshake.expected = expected;
        handshake.open();
        handshake
    }

    /// Begins the handshake of a process to which another one connected.
    #[must_use]
    pub fn of_host(key: ClusterKey, nonce: HandshakeNonce, now: Duration) -> Self {
        Self::new(key, None, nonce, Stage::HostAwaitsOpening, now)
    }

    fn new(
        key: ClusterKey,
        hello: Option<Hello>,
        nonce: HandshakeNonce,
        stage: Stage,
        now: Duration,
    ) -> Self {
        let (arrived, transcript, output) = (Vec::new(), Vec::new(), Vec::new());
        let deadline = now + HANDSHAKE_FOR;
        Self { key, nonce, hello, expected: None, stage, deadline, arrived, transcript, output }
    }

    /// Returns the next thing that it needs.
    #[must_use]
    pub fn need(&self) -> HandshakeNeed {
        let length = match &self.stage {
            Stage::CallerAwaitsOpening | Stage::HostAwaitsOpening => OPENING_BYTES,
            Stage::CallerAwaitsReply => 1,
            Stage::CallerAwaitsDecision => DECISION_BYTES,
            Stage::HostAwaitsClaim => CLAIM_BYTES,
            Stage::HostAwaitsConfirmation(_) => CODE_BYTES,
            Stage::HostAwaitsTerms(hello) => return HandshakeNeed::Terms(*hello),
            Stage::Done(hello) => return HandshakeNeed::Nothing(*hello),
            Stage::Failed(error) => return HandshakeNeed::Failed(error.clone()),
        };
        HandshakeNeed::Bytes(length - self.arrived.len())
    }

    /// Takes the bytes that are to be sent before anything else happens.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Returns how much time is left.
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        self.deadline.saturating_sub(now)
    }

    /// Returns how many messages of the other side arrived whole. One that knows the secret has sent two.
    #[must_use]
    pub fn messages(&self) -> u8 {
        match self.stage {
            Stage::CallerAwaitsOpening | Stage::HostAwaitsOpening | Stage::Failed(_) => 0,
            Stage::CallerAwaitsReply | Stage::CallerAwaitsDecision | Stage::HostAwaitsClaim => 1,
            Stage::HostAwaitsTerms(_) | Stage::HostAwaitsConfirmation(_) | Stage::Done(_) => 2,
        }
    }

    /// Takes bytes of the other side, and returns how many: no more than it [needs](Self::need).
    pub fn take(&mut self, bytes: &[u8], now: Duration) -> usize {
        self.look_at_time(now);
        let HandshakeNeed::Bytes(needed) = self.need() else { return 0 };
        let taken = needed.min(bytes.len());
        self.arrived.extend_from_slice(&bytes[..taken]);
        // A stranger is known by its first bytes, so that one that sends few doesn't hold a place for 2 s.
        let is_first = matches!(self.stage, Stage::CallerAwaitsOpening | Stage::HostAwaitsOpening);
        let compared = self.arrived.len().min(MAGIC.len());
        if is_first && self.arrived[..compared] != MAGIC[..compared] {
            let error = self.first_bytes_of_another();
            self.fail(error);
        } else if taken == needed {
            let message = std::mem::take(&mut self.arrived);
            self.message(&message);
        }
        taken
    }

    /// Returns what the first bytes mean that are no opening. Without TLS a process still tells its own kind with TLS
    /// from strangers: both sides have to say what is wrong, and not to look for another leader.
    fn first_bytes_of_another(&mut self) -> HandshakeError {
        let other_has = || HandshakeError::Tls {
            reason: "the other process has [cluster.tls], and this one hasn't".to_owned(),
        };
        match (&self.stage, self.arrived.first()) {
            (Stage::HostAwaitsOpening, Some(&TLS_HANDSHAKE)) => {
                self.output = TLS_ALERT.to_vec();
                other_has()
            }
            (Stage::CallerAwaitsOpening, Some(&TLS_ALERT_TYPE)) => other_has(),
            _ => HandshakeError::Stranger,
        }
    }

    /// Ends the handshake if its time is over.
    pub fn look_at_time(&mut self, now: Duration) {
        if now >= self.deadline {
            self.end(HandshakeError::TimedOut);
        }
    }

    /// Notes that the other side closed the connection.
    pub fn close(&mut self) {
        self.end(HandshakeError::Closed);
    }

    /// Ends a host's handshake in favour of another one, and says so to the caller.
    pub fn make_room(&mut self) {
        match self.stage {
            Stage::HostAwaitsOpening => self.output = opening(BUSY_VERSION, &self.nonce),
            Stage::HostAwaitsClaim => self.output = vec![BUSY],
            _ => {}
        }
        self.end(HandshakeError::Busy);
    }

    /// Judges the hello of a caller that has proven the secret. Has no effect unless [`need`](Self::need) asks for it.
    pub fn judge(&mut self, terms: &HostTerms) {
        let Stage::HostAwaitsTerms(caller) = self.stage else { return };
        let terms = HostTerms { hello: Hello { kind: caller.kind, ..terms.hello }, ..*terms };
        let refusal = terms.refusal(&caller);
        let hello = terms.hello.encode();
        let decision = Decision::of(refusal.as_ref()) as u8;
        self.output.push(PROVEN);
        self.say(&hello);
        self.say(&[decision]);
        self.say_code(Purpose::HostProof);
        self.stage = match refusal {
            None => Stage::HostAwaitsConfirmation(caller),
            Some(error) => Stage::Failed(error),
        };
    }

    /// Ends a handshake that isn't at its end.
    fn end(&mut self, error: HandshakeError) {
        if !matches!(self.stage, Stage::Done(_) | Stage::Failed(_)) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: HandshakeError) {
        self.arrived.clear();
        self.stage = Stage::Failed(error);
    }

    fn message(&mut self, message: &[u8]) {
        let next = match self.stage {
            Stage::CallerAwaitsOpening => self.opened_by_host(message),
            Stage::CallerAwaitsReply => match message {
                [PROVEN] => Ok(Stage::CallerAwaitsDecision),
                [WRONG_SECRET] => Err(HandshakeError::Secret),
                [BUSY] => Err(HandshakeError::Busy),
                _ => Err(HandshakeError::Malformed),
            },
            Stage::CallerAwaitsDecision => self.decided(message),
            Stage::HostAwaitsOpening => self.opened_by_caller(message),
            Stage::HostAwaitsClaim => self.claimed(message),
            Stage::HostAwaitsConfirmation(hello) => {
                if self.key.is_code(Purpose::CallerConfirmation, &[&self.transcript], message) {
                    Ok(Stage::Done(hello))
                } else {
                    Err(HandshakeError::Malformed)
                }
            }
            Stage::HostAwaitsTerms(_) | Stage::Done(_) | Stage::Failed(_) => return,
        };
        match next {
            Ok(stage) => self.stage = stage,
            Err(error) => self.fail(error),
        }
    }

    fn opened_by_caller(&mut self, message: &[u8]) -> Result<Stage, HandshakeError> {
        self.transcript.extend_from_slice(message);
        // The caller learns our version even if it isn't its own, so that both can say so.
        self.open();
        same_version(message)?;
        Ok(Stage::HostAwaitsClaim)
    }

    fn opened_by_host(&mut self, message: &[u8]) -> Result<Stage, HandshakeError> {
        same_version(message)?;
        self.transcript.extend_from_slice(message);
        let hello = self.hello.ok_or(HandshakeError::Malformed)?;
        self.say(&hello.encode());
        self.say_code(Purpose::CallerProof);
        Ok(Stage::CallerAwaitsReply)
    }

    /// A host takes the hello of a caller that knows the secret.
    fn claimed(&mut self, message: &[u8]) -> Result<Stage, HandshakeError> {
        let (hello, code) = hello_of(message);
        if !self.key.is_code(Purpose::CallerProof, &[&self.transcript, &hello], code) {
            self.output.push(WRONG_SECRET);
            return Err(HandshakeError::Secret);
        }
        self.transcript.extend_from_slice(&hello);
        Hello::decode(&hello).map(Stage::HostAwaitsTerms).ok_or(HandshakeError::Malformed)
    }

    /// A caller takes the decision of a host.
    fn decided(&mut self, message: &[u8]) -> Result<Stage, HandshakeError> {
        let (hello, rest) = hello_of(message);
        let (decision, code) = rest.split_at(1);
        self.transcript.extend_from_slice(&hello);
        self.transcript.extend_from_slice(decision);
        if !self.key.is_code(Purpose::HostProof, &[&self.transcript], code) {
            return Err(HandshakeError::Secret);
        }
        let ours = self.hello.ok_or(HandshakeError::Malformed)?;
        let host = Hello::decode(&hello).filter(|host| host.kind == ours.kind);
        let host = host.ok_or(HandshakeError::Malformed)?;
        if let Some(differences) = ours.differences(&host) {
            return Err(HandshakeError::Differs(differences));
        }
        match Decision::ALL.into_iter().find(|known| decision == [*known as u8]) {
            Some(Decision::OtherGeneration) => return Err(other_generation(&ours, &host)),
            Some(Decision::OtherIndex) => return Err(other_index(&ours, &host)),
            Some(Decision::Taken) => {}
            Some(Decision::Differs) | None => return Err(HandshakeError::Malformed),
        }
        // Addresses that were mixed up would connect workers to the wrong ones.
        if self.expected.is_some() && self.expected != host.index {
            return Err(other_index(&ours, &Hello { index: self.expected, ..host }));
        }
        self.say_code(Purpose::CallerConfirmation);
        Ok(Stage::Done(host))
    }

    fn open(&mut self) {
        let opening = opening(PROTOCOL, &self.nonce);
        self.say(&opening);
    }

    /// Sends bytes that later codes cover.
    fn say(&mut self, bytes: &[u8]) {
        self.transcript.extend_from_slice(bytes);
        self.output.extend_from_slice(bytes);
    }

    /// Sends the code of all bytes so far.
    fn say_code(&mut self, purpose: Purpose) {
        self.output.extend_from_slice(&self.key.code(purpose, &[&self.transcript]));
    }
}

fn opening(version: u16, nonce: &HandshakeNonce) -> Vec<u8> {
    [&MAGIC[..], &version.to_be_bytes(), nonce].concat()
}

/// Compares the version of an opening, whose magic was compared before.
fn same_version(opening: &[u8]) -> Result<(), HandshakeError> {
    match u16::from_be_bytes([opening[MAGIC.len()], opening[MAGIC.len() + 1]]) {
        PROTOCOL => Ok(()),
        BUSY_VERSION => Err(HandshakeError::Busy),
        theirs => Err(HandshakeError::Version { theirs }),
    }
}

/// Splits a message after its hello.
fn hello_of(message: &[u8]) -> ([u8; HELLO_BYTES], &[u8]) {
    let mut hello = [0; HELLO_BYTES];
    let (first, rest) = message.split_at(HELLO_BYTES);
    hello.copy_from_slice(first);
    (hello, rest)
}

#[cfg(test)]
mod tests {
    use keytide_config::Secret;
    use proptest::prelude::*;

    use super::super::hello::ClusterSizes;
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn key(secret: &str) -> ClusterKey {
        ClusterKey::new(&Secret::new(secret.to_owned()))
    }

    fn hello(kind: LinkKind, index: Option<u16>, generation: u64) -> Hello {
        Hello {
            kind,
            sizes: ClusterSizes { processes: 3, workers: 2 },
            index,
            generation,
            fingerprint: key("secret").fingerprint("configuration", "program"),
        }
    }

    /// A host that leads and runs generation 7 as its process 0, with 3 processes.
    fn terms() -> HostTerms {
        HostTerms { hello: hello(LinkKind::Control, Some(0), 7), leads: Some(7), runs: Some((7, 3)) }
    }

    fn caller(secret: &str, hello: Hello, expected: Option<u16>) -> Handshake {
        Handshake::of_caller(key(secret), hello, expected, [1; NONCE_BYTES], NOW)
    }

    fn host(secret: &str) -> Handshake {
        Handshake::of_host(key(secret), [2; NONCE_BYTES], NOW)
    }

    /// Lets both sides go on until neither can. Bytes come in pieces, and `change` may change them before, with true if
    /// they are the caller's. Returns the bytes of both.
    fn run(
        caller: &mut Handshake,
        host: &mut Handshake,
        terms: &HostTerms,
        pieces: &[usize],
        mut change: impl FnMut(bool, usize, &mut Vec<u8>),
    ) -> (Vec<u8>, Vec<u8>) {
        let mut sizes = pieces.iter().copied().cycle();
        let (mut said, mut pending) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        loop {
            let mut has_moved = false;
            for (of, side) in [&mut *caller, &mut *host].into_iter().enumerate() {
                let mut output = side.take_output();
                if !output.is_empty() {
                    change(of == 0, said[of].len(), &mut output);
                    said[of].extend_from_slice(&output);
                    pending[of].extend(output);
                }
            }
            for (from, side) in [(1, &mut *caller), (0, &mut *host)] {
                if matches!(side.need(), HandshakeNeed::Terms(_)) {
                    side.judge(terms);
                    has_moved = true;
                }
                let size = sizes.next().unwrap_or(1).min(pending[from].len());
                let taken = side.take(&pending[from][..size], NOW);
                pending[from].drain(..taken);
                has_moved |= taken > 0;
            }
            if !has_moved {
                let [of_caller, of_host] = said;
                return (of_caller, of_host);
            }
        }
    }

    /// Runs a handshake of two sound sides. Returns how each ends.
    fn outcome(
        mut caller: Handshake,
        mut host: Handshake,
        terms: &HostTerms,
    ) -> (HandshakeNeed, HandshakeNeed) {
        run(&mut caller, &mut host, terms, &[1_000], |_, _, _| {});
        // A side that waits for more finds that the other one is gone.
        caller.close();
        host.close();
        (caller.need(), host.need())
    }

    fn failed(error: HandshakeError) -> HandshakeNeed {
        HandshakeNeed::Failed(error)
    }

    #[test]
    fn both_sides_know_each_other_at_the_end_whatever_the_pieces_are() {
        for pieces in [vec![1], vec![1_000], vec![7, 31], vec![42, 1, 111]] {
            for (kind, index) in
                [(LinkKind::Control, None), (LinkKind::Results, Some(2)), (LinkKind::Data, Some(1))]
            {
                let ours = hello(kind, index, 7);
                let (mut caller, mut host) = (caller("secret", ours, Some(0)), host("secret"));
                let said = run(&mut caller, &mut host, &terms(), &pieces, |_, _, _| {});
                let theirs = Hello { kind, ..terms().hello };
                assert_eq!(caller.need(), HandshakeNeed::Nothing(theirs));
                assert_eq!(host.need(), HandshakeNeed::Nothing(ours));
                assert_eq!((said.0.len(), said.1.len()), (42 + 111 + 32, 42 + 113));
                assert!(caller.transcript.len() <= 243 && host.transcript.len() <= 243);
                // Frames that follow at once aren't taken for a part of it.
                assert_eq!(host.take(b"frame", NOW), 0);
            }
        }
    }

    #[test]
    fn what_differs_is_said_on_both_sides() {
        let of = |change: fn(&mut Hello)| {
            let mut ours = hello(LinkKind::Data, Some(1), 7);
            change(&mut ours);
            outcome(caller("secret", ours, None), host("secret"), &terms())
        };
        let differences = |need: &HandshakeNeed| match need {
            HandshakeNeed::Failed(HandshakeError::Differs(differences)) => *differences,
            other => panic!("{other:?}"),
        };
        let (caller, host) = of(|hello| hello.fingerprint = key("secret").fingerprint("other", "program"));
        assert!(differences(&caller).configuration && differences(&host).configuration);
        let (caller, host) = of(|hello| hello.fingerprint = key("secret").fingerprint("configuration", "2"));
        assert!(differences(&caller).program && differences(&host).program);
        let (caller, host) = of(|hello| hello.sizes.workers = 4);
        assert_eq!((differences(&caller).workers, differences(&host).workers), (Some((4, 2)), Some((2, 4))));
        let (caller, host) = of(|hello| hello.sizes.processes = 2);
        assert_eq!(
            (differences(&caller).processes, differences(&host).processes),
            (Some((2, 3)), Some((3, 2)))
        );
    }

    #[test]
    fn a_link_belongs_to_the_generation_that_the_host_leads_or_runs() {
        let run = |kind, index, generation, terms: &HostTerms| {
            let outcome =
                outcome(caller("secret", hello(kind, index, generation), None), host("secret"), terms);
            match outcome {
                (HandshakeNeed::Nothing(_), HandshakeNeed::Nothing(_)) => None,
                (HandshakeNeed::Failed(caller), HandshakeNeed::Failed(host)) => {
                    assert_eq!(caller, host);
                    Some(caller)
                }
                other => panic!("{other:?}"),
            }
        };
        let idle = HostTerms { hello: hello(LinkKind::Control, None, 0), leads: None, runs: None };
        let gathers = HostTerms { leads: Some(7), ..idle };
        let follows = HostTerms { runs: Some((7, 3)), hello: hello(LinkKind::Data, Some(2), 7), ..idle };
        assert_eq!(run(LinkKind::Control, None, 7, &gathers), None);
        assert_eq!(run(LinkKind::Control, None, 7, &terms()), None, "a process that comes late");
        assert_eq!(run(LinkKind::Results, Some(1), 7, &terms()), None);
        assert_eq!(run(LinkKind::Data, Some(1), 7, &follows), None);
        for (kind, generation, terms) in [
            (LinkKind::Control, 7, &idle),
            (LinkKind::Control, 6, &terms()),
            (LinkKind::Control, 8, &terms()),
            (LinkKind::Control, 7, &follows),
            (LinkKind::Results, 7, &follows),
            (LinkKind::Results, 6, &terms()),
            (LinkKind::Data, 7, &gathers),
            (LinkKind::Data, 6, &terms()),
            (LinkKind::Data, 0, &idle),
        ] {
            let refused = run(kind, Some(1), generation, terms);
            let found = terms.hello.generation;
            assert_eq!(refused, Some(HandshakeError::Generation { asked: generation, found }));
        }
        // Numbers that a generation doesn't have, or that two processes had.
        for index in [None, Some(0), Some(3), Some(u16::MAX - 1)] {
            for kind in [LinkKind::Results, LinkKind::Data] {
                let refused = run(kind, index, 7, &terms());
                assert!(matches!(refused, Some(HandshakeError::Index { .. })), "{index:?} {refused:?}");
            }
        }
    }

    #[test]
    fn a_caller_that_reached_another_process_than_it_wanted_says_so_and_the_host_does_not_count_it() {
        let mixed_up = caller("secret", hello(LinkKind::Data, Some(1), 7), Some(2));
        let (caller, host) = outcome(mixed_up, host("secret"), &terms());
        assert_eq!(caller, failed(HandshakeError::Index { caller: 1, host: 2, generation: 7 }));
        assert_eq!(host, failed(HandshakeError::Closed));
    }

    #[test]
    fn a_wrong_secret_is_all_that_either_side_learns() {
        let ours = hello(LinkKind::Control, None, 7);
        let (mut caller, mut host) = (caller("wrong", ours, None), host("secret"));
        let (_, said) = run(&mut caller, &mut host, &terms(), &[1_000], |_, _, _| {});
        assert_eq!(caller.need(), failed(HandshakeError::Secret));
        assert_eq!(host.need(), failed(HandshakeError::Secret));
        let expected = [opening(PROTOCOL, &[2; NONCE_BYTES]), vec![WRONG_SECRET]].concat();
        assert_eq!(said, expected, "the host says a nonce and that");
    }

    #[test]
    fn a_host_that_only_claims_to_know_the_secret_is_found_out() {
        let mut caller = caller("secret", hello(LinkKind::Control, None, 7), None);
        let theirs = hello(LinkKind::Control, Some(0), 7).encode();
        let reply = [&[PROVEN][..], &theirs, &[Decision::Taken as u8], &[0; CODE_BYTES]].concat();
        for bytes in [opening(PROTOCOL, &[2; NONCE_BYTES]), reply] {
            let mut rest = &bytes[..];
            while !rest.is_empty() && !matches!(caller.need(), HandshakeNeed::Failed(_)) {
                rest = &rest[caller.take(rest, NOW)..];
            }
        }
        assert_eq!(caller.need(), failed(HandshakeError::Secret));
    }

    #[test]
    fn what_a_process_said_can_not_be_used_against_it() {
        // All that the caller said is repeated on a later link, where the host has another nonce.
        let ours = hello(LinkKind::Control, None, 7);
        let (mut first, mut second) = (caller("secret", ours, None), host("secret"));
        let (said, _) = run(&mut first, &mut second, &terms(), &[1_000], |_, _, _| {});
        let mut later = Handshake::of_host(key("secret"), [3; NONCE_BYTES], NOW);
        let mut rest = &said[..];
        while matches!(later.need(), HandshakeNeed::Bytes(_)) {
            rest = &rest[later.take(rest, NOW)..];
        }
        assert_eq!(later.need(), failed(HandshakeError::Secret));
        // A caller gets its own bytes back.
        let mut mirrored = caller("secret", ours, None);
        for _ in 0..4 {
            // Its proof is two bytes shorter than a host's.
            let echo = [mirrored.take_output(), vec![0; 2]].concat();
            let mut rest = &echo[..];
            while !rest.is_empty() && matches!(mirrored.need(), HandshakeNeed::Bytes(_)) {
                rest = &rest[mirrored.take(rest, NOW)..];
            }
        }
        assert!(matches!(mirrored.need(), HandshakeNeed::Failed(_)), "{:?}", mirrored.need());
        // The caller's proof as the host's, with the reply and the decision that it needs.
        let mut mirrored = caller("secret", ours, None);
        let own = mirrored.take_output();
        mirrored.take(&own, NOW);
        let claim = mirrored.take_output();
        let (theirs, code) = claim.split_at(HELLO_BYTES);
        let reply = [&[PROVEN][..], theirs, &[Decision::Taken as u8], code].concat();
        mirrored.take(&reply[..1], NOW);
        mirrored.take(&reply[1..], NOW);
        assert_eq!(mirrored.need(), failed(HandshakeError::Secret));
    }

    #[test]
    fn another_version_is_said_on_both_sides_and_a_stranger_gets_no_byte_but_an_alert_of_tls() {
        let mut other = host("secret");
        other.take(&opening(9, &[1; NONCE_BYTES]), NOW);
        assert_eq!(other.need(), failed(HandshakeError::Version { theirs: 9 }));
        assert_eq!(other.take_output(), opening(PROTOCOL, &[2; NONCE_BYTES]));
        let mut caller = caller("secret", hello(LinkKind::Control, None, 7), None);
        caller.take(&opening(9, &[2; NONCE_BYTES]), NOW);
        assert_eq!(caller.need(), failed(HandshakeError::Version { theirs: 9 }));
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x15\x03\x03", b"KEYTIDE\r", b"\0"] {
            let mut host = host("secret");
            host.take(bytes, NOW);
            assert_eq!(host.need(), failed(HandshakeError::Stranger), "{bytes:?}");
            assert!(host.take_output().is_empty());
        }
        let is_of_tls = |need| matches!(need, HandshakeNeed::Failed(HandshakeError::Tls { .. }));
        let mut with_tls = host("secret");
        with_tls.take(b"\x16\x03\x01", NOW);
        assert!(is_of_tls(with_tls.need()));
        let alert = with_tls.take_output();
        assert_eq!(alert, TLS_ALERT);
        let mut caller = self::caller("secret", hello(LinkKind::Control, None, 7), None);
        caller.take(&alert, NOW);
        assert!(is_of_tls(caller.need()));
    }

    #[test]
    fn the_time_is_limited_in_all_and_not_for_each_message() {
        let limit = NOW + HANDSHAKE_FOR;
        let just_before = limit - Duration::from_nanos(1);
        let mut slow = host("secret");
        let opening = opening(PROTOCOL, &[1; NONCE_BYTES]);
        assert_eq!(slow.take(&opening[..41], NOW + Duration::from_secs(1)), 41);
        assert_eq!(slow.left(just_before), Duration::from_nanos(1));
        assert_eq!(slow.take(&opening[41..], just_before), 1);
        assert_eq!(slow.need(), HandshakeNeed::Bytes(CLAIM_BYTES));
        assert_eq!(slow.take(&[0], limit), 0);
        assert_eq!(slow.need(), failed(HandshakeError::TimedOut));
        assert_eq!(slow.left(limit), Duration::ZERO);
        // A link that stands has no limit.
        let (mut caller, mut host) =
            (caller("secret", hello(LinkKind::Control, None, 7), None), host("secret"));
        run(&mut caller, &mut host, &terms(), &[1_000], |_, _, _| {});
        host.look_at_time(limit);
        host.close();
        host.make_room();
        assert!(matches!(host.need(), HandshakeNeed::Nothing(_)));
    }

    #[test]
    fn a_caller_that_makes_room_for_others_knows_that_the_host_lives() {
        for messages in 0..2 {
            let mut caller = caller("secret", hello(LinkKind::Control, None, 7), None);
            let mut host = host("secret");
            let opening = caller.take_output();
            if messages == 1 {
                host.take(&opening, NOW);
                caller.take(&host.take_output(), NOW);
            }
            assert_eq!(host.messages(), messages);
            host.make_room();
            assert_eq!(host.need(), failed(HandshakeError::Busy));
            caller.take(&host.take_output(), NOW);
            assert_eq!(caller.need(), failed(HandshakeError::Busy), "{messages}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Except for a link's end, one byte is the least that a network or an attacker can change.
        #[test]
        fn no_changed_byte_leads_to_a_link(at in 0_usize..340, bits in 1_u8.., pieces in prop::collection::vec(1_usize..50, 1..4)) {
            let mut caller = caller("secret", hello(LinkKind::Data, Some(1), 7), Some(0));
            let mut host = host("secret");
            let (of_caller, length) = (at < 185, 185);
            let at = if of_caller { at } else { at - length };
            run(&mut caller, &mut host, &terms(), &pieces, |is_caller, before, bytes| {
                if is_caller == of_caller && let Some(byte) = at.checked_sub(before).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= bits;
                }
            });
            prop_assert!(!matches!(host.need(), HandshakeNeed::Nothing(_)), "the host has no link");
            // The last message is the caller's, which can't know what became of it.
            let is_last = of_caller && at >= 42 + 111;
            prop_assert!(is_last || !matches!(caller.need(), HandshakeNeed::Nothing(_)));
        }

        #[test]
        fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..400), is_after_magic in any::<bool>(), piece in 1_usize..60) {
            let bytes = if is_after_magic { [&opening(PROTOCOL, &[9; NONCE_BYTES])[..], &bytes].concat() } else { bytes };
            for mut side in [host("secret"), caller("secret", hello(LinkKind::Control, None, 7), None)] {
                for piece in bytes.chunks(piece) {
                    let mut rest = piece;
                    while !rest.is_empty() && matches!(side.need(), HandshakeNeed::Bytes(_)) {
                        rest = &rest[side.take(rest, NOW)..];
                    }
                }
                prop_assert!(!matches!(side.need(), HandshakeNeed::Nothing(_) | HandshakeNeed::Terms(_)));
            }
        }
    }
}
