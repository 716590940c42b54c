//! The introduction of two processes of a job, before a link between them carries frames.
//!
//! A [`Hello`] has a fixed length, so that reading it needs no decision. Fingerprints travel as HMACs under the
//! cluster's secret. So only processes with the secret can compare them, and others learn nothing of the
//! configuration, which may hold secrets.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::Secret;
use sha2::Sha256;

/// The length of an encoded hello, in bytes.
pub(super) const HELLO_BYTES: usize = 79;
/// Stands for a process that has no index.
const NO_INDEX: u16 = u16::MAX;

/// The use of a link between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// Cuts, answers and beats, between the coordinator and one follower.
    Control,
    /// The workers' output of each tick, from a follower to the coordinator's publisher.
    Results,
    /// The exchange of workers within the dataflow, between any two processes.
    Data,
}

impl LinkKind {
    const ALL: [Self; 3] = [Self::Control, Self::Results, Self::Data];

    /// Returns `control`, `results` or `data`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Results => "results",
            Self::Data => "data",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Results => 2,
            Self::Data => 3,
        }
    }
}

/// The sizes on which all processes of a job must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterSizes {
    /// The number of processes that the job should have.
    pub processes: u16,
    /// The number of workers of each process.
    pub workers: u16,
}

/// Hashes of the configuration and of the program, for comparisons between processes with the same secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterFingerprint {
    configuration: [u8; 32],
    program: [u8; 32],
}

impl fmt::Debug for ClusterFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Shows the first 4 bytes of each hash, in hexadecimal digits.
impl fmt::Display for ClusterFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |hash: &[u8; 32]| u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        write!(f, "{:08x}-{:08x}", short(&self.configuration), short(&self.program))
    }
}

/// The secret of a cluster, which all its processes have.
#[derive(Clone)]
pub struct ClusterKey {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").finish_non_exhaustive()
    }
}

impl ClusterKey {
    /// Returns the key that a secret of any length gives.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let keyed = Hmac::new_from_slice(secret.reveal().as_bytes());
        Self { keyed: keyed.expect("HMAC takes a secret of any length") }
    }

    /// Returns the fingerprint of a configuration's and a program's identity, which are texts of any length.
    #[must_use]
    pub fn fingerprint(&self, configuration: &str, program: &str) -> ClusterFingerprint {
        ClusterFingerprint {
            configuration: self.code(Purpose::Configuration, &[configuration.as_bytes()]),
            program: self.code(Purpose::Program, &[program.as_bytes()]),
        }
    }

    /// Returns the authentication code of bytes.
    pub(super) fn code(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 32] {
        self.after(purpose, parts).finalize().into_bytes().into()
    }

    /// Returns whether a code is that of the bytes. The time that it takes is the same for all codes.
    pub(super) fn is_code(&self, purpose: Purpose, parts: &[&[u8]], code: &[u8]) -> bool {
        self.after(purpose, parts).verify_slice(code).is_ok()
    }

    fn after(&self, purpose: Purpose, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut keyed = self.keyed.clone();
        keyed.update(&[purpose as u8]);
        parts.iter().for_each(|part| keyed.update(part));
        keyed
    }
}

/// The purposes of authentication codes. A code for one is never one for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Configuration = 1,
    Program = 2,
    /// The process that connects knows the secret.
    CallerProof = 3,
    /// The process that listens knows it, and decides about the link.
    HostProof = 4,
    /// The process that connects has seen all of that.
    CallerConfirmation = 5,
}

/// One process's description of itself and of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    pub kind: LinkKind,
    pub sizes: ClusterSizes,
    /// The number of the process in its generation, counted from 0. It has none before the generation starts.
    pub index: Option<u16>,
    /// The generation to which the link belongs. A listening process has the newest in which it takes part, or 0.
    pub generation: u64,
    pub fingerprint: ClusterFingerprint,
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO_BYTES] {
        let Self { kind, sizes, index, generation, fingerprint } = self;
        let mut bytes = [0; HELLO_BYTES];
        bytes[0] = kind.code();
        bytes[1..3].copy_from_slice(&sizes.processes.to_be_bytes());
        bytes[3..5].copy_from_slice(&sizes.workers.to_be_bytes());
        bytes[5..7].copy_from_slice(&index.unwrap_or(NO_INDEX).to_be_bytes());
        bytes[7..15].copy_from_slice(&generation.to_be_bytes());
        bytes[15..47].copy_from_slice(&fingerprint.configuration);
        bytes[47..].copy_from_slice(&fingerprint.program);
        bytes
    }

    /// Reads a hello; `None` if its kind is unknown.
    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let kind = LinkKind::ALL.into_iter().find(|kind| kind.code() == bytes[0])?;
        let (mut generation, mut configuration, mut program) = ([0; 8], [0; 32], [0; 32]);
        generation.copy_from_slice(&bytes[7..15]);
        configuration.copy_from_slice(&bytes[15..47]);
        program.copy_from_slice(&bytes[47..]);
        Some(Self {
            kind,
            sizes: ClusterSizes { processes: short(1), workers: short(3) },
            index: Some(short(5)).filter(|index| *index != NO_INDEX),
            generation: u64::from_be_bytes(generation),
            fingerprint: ClusterFingerprint { configuration, program },
        })
    }

    /// Returns in what another process differs from this one; `None` if they can work together.
    #[must_use]
    pub fn differences(&self, theirs: &Self) -> Option<Differences> {
        let (ours, other) = (&self.fingerprint, &theirs.fingerprint);
        let pair = |ours: u16, theirs: u16| (ours != theirs).then_some((ours, theirs));
        let found = Differences {
            configuration: ours.configuration != other.configuration,
            program: ours.program != other.program,
            processes: pair(self.sizes.processes, theirs.sizes.processes),
            workers: pair(self.sizes.workers, theirs.sizes.workers),
        };
        (found != Differences::default()).then_some(found)
    }
}

/// In what two processes differ although they must not. Of pairs the first number is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// True if the settings differ on which results depend.
    pub configuration: bool,
    pub program: bool,
    pub processes: Option<(u16, u16)>,
    pub workers: Option<(u16, u16)>,
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { configuration, program, processes, workers } = self;
        let mut found = Vec::new();
        if *configuration {
            found.push("it has another configuration: give all processes the same file".to_owned());
        }
        if *program {
            found.push("it is another program or version: start the same one everywhere".to_owned());
        }
        if let Some((ours, theirs)) = processes {
            found.push(format!(
                "it has cluster.processes = {theirs} and this one {ours}: set them to the same number"
            ));
        }
        if let Some((ours, theirs)) = workers {
            found.push(format!(
                "it has {theirs} workers and this one {ours}: set job.workers to the same number"
            ));
        }
        f.write_str(&found.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(secret: &str) -> ClusterKey {
        ClusterKey::new(&Secret::new(secret.to_owned()))
    }

    proptest! {
        #[test]
        fn a_hello_is_read_as_it_was_written_and_any_bytes_are_one_or_none(
            bytes in prop::collection::vec(any::<u8>(), HELLO_BYTES),
            kind in 1_u8..=3,
        ) {
            let mut bytes: [u8; HELLO_BYTES] = bytes.try_into().unwrap();
            if let Some(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
            bytes[0] = kind;
            let hello = Hello::decode(&bytes).unwrap();
            prop_assert_eq!(hello.encode(), bytes);
            prop_assert_eq!(hello.differences(&hello), None);
        }
    }

    #[test]
    fn fingerprints_can_be_compared_only_with_the_same_secret() {
        let (ours, other) = (key("a secret that is long enough, really"), key("another one"));
        assert_eq!(ours.fingerprint("a", "b"), ours.fingerprint("a", "b"));
        assert_ne!(ours.fingerprint("a", "b"), ours.fingerprint("b", "a"));
        assert_ne!(ours.fingerprint("a", "b"), other.fingerprint("a", "b"));
        let same = ours.fingerprint("a", "a");
        assert_ne!(same.configuration, same.program, "each has a purpose of its own");
        assert!(!format!("{ours:?}").contains("secret that"));
    }

    #[test]
    fn each_difference_is_named_with_what_to_do() {
        let key = key("secret");
        let hello = |configuration, program, processes, workers| Hello {
            kind: LinkKind::Control,
            sizes: ClusterSizes { processes, workers },
            index: None,
            generation: 1,
            fingerprint: key.fingerprint(configuration, program),
        };
        let ours = hello("a", "1", 3, 2);
        for (theirs, expected) in [
            (hello("b", "1", 3, 2), "it has another configuration: give all processes the same file"),
            (hello("a", "2", 3, 2), "it is another program or version: start the same one everywhere"),
            (
                hello("a", "1", 4, 2),
                "it has cluster.processes = 4 and this one 3: set them to the same number",
            ),
            (hello("a", "1", 3, 1), "it has 1 workers and this one 2: set job.workers to the same number"),
        ] {
            assert_eq!(ours.differences(&theirs).unwrap().to_string(), expected);
        }
        let all = ours.differences(&hello("b", "2", 4, 4)).unwrap().to_string();
        assert_eq!(all.matches("; ").count(), 3, "{all}");
    }
}
