//! How a gateway's credential is suspended, let in again or deleted: look, prove, act, read back. It is a pure state.
//!
//! | action | the credential's key | then |
//! |---|---|---|
//! | suspend | is proven | it is written under a mask, and read back |
//! | suspend | has a mask over a proven key | done |
//! | reinstate | has a mask over a proven key | the key is written, and read back |
//! | reinstate | has no mask | nothing is to be undone |
//! | revoke | has a mask over a proven key | the credential is deleted, and looked for |
//! | revoke | is gone | done |
//! | any other | | failed |
//!
//! So what was done already isn't done again, whoever did it, and a key that isn't the incident's is never touched.

use keytide_dataflow::Action;

use super::RequestedAction;
use super::mask::{Proof, masked, unmasked};
use crate::exchange::SecretBytes;

/// The next thing to do at the gateway. After a change the credential is read again.
pub(super) enum ProcedureStep {
    /// Write this key into the credential that was read.
    Write(SecretBytes),
    Delete,
    End(Ending),
}

/// The way in which a procedure ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// There was nothing to undo.
    NothingToUndo,
    /// The gateway took the change, and the credential isn't changed.
    NotKept,
    Failed(String),
}

/// What the gateway has of a credential.
pub(super) enum SeenCredential {
    Key(SecretBytes),
    /// The credential has no key that can be read.
    NoKey,
    Missing,
}

/// A procedure that is under way.
pub(super) struct Procedure<'a> {
    action: &'a RequestedAction,
    proof: &'a Proof,
    /// Makes the random part of a mask.
    random: &'a dyn Fn() -> [u8; 16],
    has_acted: bool,
}

impl<'a> Procedure<'a> {
    /// Begins a procedure. First the credential is read.
    pub(super) fn new(
        action: &'a RequestedAction,
        proof: &'a Proof,
        random: &'a dyn Fn() -> [u8; 16],
    ) -> Self {
        Self { action, proof, random, has_acted: false }
    }

    /// Returns what follows from a look.
    pub(super) fn seen(&mut self, seen: &SeenCredential) -> ProcedureStep {
        let ending = match (self.action.action, seen) {
            (Action::Revoke, SeenCredential::Missing) => Ending::Done,
            (_, SeenCredential::Missing) => {
                Ending::Failed("the gateway has no such consumer or credential".to_owned())
            }
            (_, SeenCredential::NoKey) => {
                Ending::Failed("the credential has no key that can be read".to_owned())
            }
            (action, SeenCredential::Key(key)) => {
                let inner = unmasked(key.as_ref());
                match (action, inner) {
                    (Action::Reinstate, None) if self.has_acted => Ending::Done,
                    (Action::Reinstate, None) => Ending::NothingToUndo,
                    (Action::Revoke, None) => Ending::Failed(
                        "the key isn't suspended at the gateway, and only a suspended key is revoked"
                            .to_owned(),
                    ),
                    (Action::Suspend, None) if self.has_acted => Ending::NotKept,
                    (_, inner) => return self.act(inner, key),
                }
            }
        };
        ProcedureStep::End(ending)
    }

    /// Acts on a key that has a mask, or is to get one.
    fn act(&mut self, inner: Option<&[u8]>, key: &SecretBytes) -> ProcedureStep {
        let raw = inner.unwrap_or(key.as_ref());
        if let Err(why) = self.proof.check(raw, self.action) {
            return ProcedureStep::End(Ending::Failed(why));
        }
        let has_acted = std::mem::replace(&mut self.has_acted, true);
        match (self.action.action, inner) {
            (Action::Suspend, Some(_)) => ProcedureStep::End(Ending::Done),
            (Action::Suspend, None) => ProcedureStep::Write(masked(raw, (self.random)())),
            _ if has_acted => ProcedureStep::End(Ending::NotKept),
            (Action::Reinstate, _) => {
                let mut key = SecretBytes::with_capacity(raw.len());
                key.push(raw);
                ProcedureStep::Write(key)
            }
            (Action::Revoke, _) => ProcedureStep::Delete,
        }
    }
}
