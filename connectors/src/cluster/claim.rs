//! The claims in the store by which the processes of a job find each other.
//!
//! ```text
//! DIR/cluster/GENERATION    the process that leads this generation, and its address
//! ```
//! `election.rs` says what they mean. An object is written if it isn't there, and has a checksum over its name and its
//! content.
//!
//! **Cleaning up.** A process that was slow may write a number that was cleaned up. It then has the claim of a past
//! generation, which its next look finds: the newest claim is never deleted.
//!
//! Limits: [`KEPT_CLAIMS`] claims stay.

use keytide_dataflow::model::Tick;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::door::ConnectError;
use super::election::{AskAnswer, SeenClaim};
use super::handshake::HandshakeError;
use crate::store::{NumberedObject, Store, StoreError};

/// The number of claims that are kept.
pub const KEPT_CLAIMS: u64 = 8;

/// The claim of a process to lead a generation of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClaim {
    /// One more than the newest generation that the process knew of.
    pub generation: u64,
    /// The address at which other processes reach it, `HOST:PORT`.
    pub address: String,
    /// A random number that tells lives of processes apart, as 16 hexadecimal digits. The ledger's is the same.
    #[serde(serialize_with = "write_nonce", deserialize_with = "read_nonce")]
    pub nonce: u64,
    /// The fingerprint as people see it.
    pub fingerprint: String,
    /// The number of processes that the job should have.
    pub processes: u16,
    /// The time of the claim on that machine's clock, in ms since the epoch. It decides nothing.
    pub at: Tick,
}

/// Writes a nonce as digits, since JSON's readers don't all keep 64 bits of a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references on")]
fn write_nonce<S: Serializer>(nonce: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{nonce:016x}"))
}

fn read_nonce<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    u64::from_str_radix(&String::deserialize(from)?, 16).map_err(D::Error::custom)
}

/// An error of the claims in the store.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was cleaned up between a listing and a read, so there is a newer one.
    #[error(
        "state.url: claim {generation} of the cluster was deleted just now; the next look finds a newer one"
    )]
    Moved { generation: u64 },
    /// The object is sound and isn't a claim that this version knows.
    #[error(
        "state.url: claim {generation} of the cluster can't be read: {reason}; start the version that wrote it on all \
         nodes, or stop all processes of the job and delete the folder `cluster` of its state"
    )]
    Unknown { generation: u64, reason: String },
}

/// Reads the newest claim; `None` if there is none. A claim that is damaged counts as one of a process that is gone.
///
/// # Errors
/// If the store can't be read, or the newest claim is of another version.
pub fn newest(store: &Store) -> Result<Option<SeenClaim>, ClaimError> {
    let Some(generation) = store.cluster_claims()?.into_iter().next_back() else { return Ok(None) };
    let bytes = match store.get_record(NumberedObject::ClusterClaim(generation)) {
        Ok(bytes) => bytes.ok_or(ClaimError::Moved { generation })?,
        Err(StoreError::Damaged { object, .. }) => {
            tracing::error!("{object} is damaged, so the next generation of the cluster is claimed");
            return Ok(Some(SeenClaim { generation, by: None }));
        }
        Err(error) => return Err(error.into()),
    };
    let unknown = |reason| ClaimError::Unknown { generation, reason };
    let claim: ClusterClaim = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
    if claim.generation != generation {
        return Err(unknown(format!("it is that of generation {}", claim.generation)));
    }
    Ok(Some(SeenClaim { generation, by: Some((claim.nonce, claim.address)) }))
}

/// Writes a claim, unless its generation has one. Returns false if it was there already, which may be this one.
///
/// # Errors
/// If it isn't known to be written.
pub fn put(store: &Store, claim: &ClusterClaim) -> Result<bool, StoreError> {
    let json = serde_json::to_vec(claim).expect("plain data can be written to memory");
    store.put_record(NumberedObject::ClusterClaim(claim.generation), json)
}

/// Deletes claims that are [`KEPT_CLAIMS`] generations older than the newest one or more.
///
/// # Errors
/// If they can't be listed, or one can't be deleted. It is tried again with the next call.
pub fn clean(store: &Store) -> Result<(), StoreError> {
    let claims = store.cluster_claims()?;
    let Some(newest) = claims.last() else { return Ok(()) };
    let oldest_kept = newest.saturating_sub(KEPT_CLAIMS - 1);
    for generation in claims.iter().filter(|generation| **generation < oldest_kept) {
        store.delete_record(NumberedObject::ClusterClaim(*generation))?;
    }
    Ok(())
}

/// Returns what a failed connection says about the leader that a claim names.
#[must_use]
pub fn answer(error: &ConnectError) -> AskAnswer {
    let ConnectError::Handshake { error, .. } = error else {
        return match error {
            ConnectError::Refused { .. } => AskAnswer::Gone,
            _ => AskAnswer::NoAnswer,
        };
    };
    match error {
        // Another program has the port, or the process ended, or began anew.
        HandshakeError::Stranger | HandshakeError::Closed | HandshakeError::Generation { .. } => {
            AskAnswer::Gone
        }
        HandshakeError::Busy
        | HandshakeError::TimedOut
        | HandshakeError::Malformed
        | HandshakeError::Index { .. } => AskAnswer::NoAnswer,
        // It may be another program with TLS that has the address now.
        HandshakeError::Tls { .. } => AskAnswer::NoAnswer,
        HandshakeError::Secret | HandshakeError::Version { .. } | HandshakeError::Differs(_) => {
            AskAnswer::Differs
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::tempdir;

    use super::*;

    fn claim(generation: u64, nonce: u64) -> ClusterClaim {
        ClusterClaim {
            generation,
            address: format!("10.0.0.{generation}:9465"),
            nonce,
            fingerprint: "00c0ffee-0000beef".to_owned(),
            processes: 3,
            at: 1_000,
        }
    }

    fn seen(claim: &ClusterClaim) -> SeenClaim {
        SeenClaim { generation: claim.generation, by: Some((claim.nonce, claim.address.clone())) }
    }

    fn object(folder: &Path, generation: u64) -> std::path::PathBuf {
        folder.join(format!("cluster/{generation:020}"))
    }

    #[test]
    fn of_two_claims_of_a_generation_the_first_one_counts() {
        let folder = tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(newest(&store).unwrap(), None);
        clean(&store).unwrap();
        assert!(put(&store, &claim(1, u64::MAX)).unwrap());
        assert!(!put(&store, &claim(1, 8)).unwrap());
        assert_eq!(newest(&store).unwrap(), Some(seen(&claim(1, u64::MAX))));
        assert!(put(&store, &claim(2, 8)).unwrap());
        assert_eq!(newest(&store).unwrap(), Some(seen(&claim(2, 8))));
    }

    #[test]
    fn a_few_claims_are_kept_and_the_newest_one_always() {
        let folder = tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for generation in (1..=20).filter(|generation| generation % 3 != 0) {
            put(&store, &claim(generation, 7)).unwrap();
        }
        clean(&store).unwrap();
        assert_eq!(store.cluster_claims().unwrap(), [13, 14, 16, 17, 19, 20]);
        // A process that was slow writes a number that is gone. The newest claim stays the newest.
        assert!(put(&store, &claim(2, 9)).unwrap());
        assert_eq!(newest(&store).unwrap(), Some(seen(&claim(20, 7))));
        clean(&store).unwrap();
        assert_eq!(store.cluster_claims().unwrap().len(), 6);
    }

    #[test]
    fn a_damaged_claim_is_one_of_a_process_that_is_gone_and_that_of_another_version_is_refused() {
        let folder = tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, &claim(1, 7)).unwrap();
        put(&store, &claim(2, 7)).unwrap();
        std::fs::copy(object(folder.path(), 1), object(folder.path(), 2)).unwrap();
        assert_eq!(newest(&store).unwrap(), Some(SeenClaim { generation: 2, by: None }));
        store.put_record(NumberedObject::ClusterClaim(3), b"{\"format\":2}".to_vec()).unwrap();
        let error = newest(&store).unwrap_err().to_string();
        assert!(
            error.starts_with("state.url: claim 3 of the cluster can't be read: missing field"),
            "{error}"
        );
        let misplaced = serde_json::to_vec(&claim(3, 7)).unwrap();
        store.put_record(NumberedObject::ClusterClaim(4), misplaced).unwrap();
        let error = newest(&store).unwrap_err();
        assert!(matches!(error, ClaimError::Unknown { generation: 4, .. }), "{error}");
    }

    #[test]
    fn a_failed_connection_is_a_proof_only_if_nothing_can_lead_there() {
        let address = || "10.0.0.1:9465".to_owned();
        let handshake = |error| answer(&ConnectError::Handshake { address: address(), error });
        assert_eq!(answer(&ConnectError::Refused { address: address() }), AskAnswer::Gone);
        let source = std::io::ErrorKind::TimedOut.into();
        assert_eq!(answer(&ConnectError::NoAnswer { address: address(), source }), AskAnswer::NoAnswer);
        for gone in [
            HandshakeError::Closed,
            HandshakeError::Stranger,
            HandshakeError::Generation { asked: 1, found: 0 },
        ] {
            assert_eq!(handshake(gone), AskAnswer::Gone);
        }
        let tls = HandshakeError::Tls { reason: "an alert".to_owned() };
        for living in [HandshakeError::Busy, HandshakeError::TimedOut, tls] {
            assert_eq!(handshake(living), AskAnswer::NoAnswer);
        }
        for other in [HandshakeError::Secret, HandshakeError::Version { theirs: 2 }] {
            assert_eq!(handshake(other), AskAnswer::Differs);
        }
    }
}
