//! How a gateway's credential is suspended, let in again or deleted: look, prove, act, read back. It is a pure state.
//!
//! | action | the credential's key | then |
//! |---|---|---|
//! | suspend | is proven | it is suspended, and read back |
//! | suspend | is suspended, and proven | done |
//! | reinstate | is suspended, and proven | it is let in, and read back |
//! | reinstate | isn't suspended | nothing is to be undone |
//! | revoke | is suspended, and proven | the credential is deleted, and looked for |
//! | revoke | is gone | done |
//! | any other | | failed |
//!
//! A suspended key has a mask, or a mark of the gateway's own. The dialect knows which.
//!
//! So what was done already isn't done again, whoever did it, and a key that isn't the incident's is never touched.

use keytide_dataflow::Action;

use super::RequestedAction;
use super::mask::{Proof, SeenKey};

/// The next thing to do at the gateway. After a change the credential is read again.
pub(super) enum ProcedureStep {
    /// Suspend the key that was read.
    Suspend,
    /// Let the key in that was read.
    LetIn,
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
    Key(SeenKey),
    /// The credential has no key that can be read.
    NoKey,
    Missing,
}

/// A procedure that is under way.
pub(super) struct Procedure<'a> {
    action: &'a RequestedAction,
    proof: &'a Proof,
    has_acted: bool,
}

impl<'a> Procedure<'a> {
    /// Begins a procedure. First the credential is read.
    pub(super) fn new(action: &'a RequestedAction, proof: &'a Proof) -> Self {
        Self { action, proof, has_acted: false }
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
            (action, SeenCredential::Key(key)) => match (action, key.is_suspended) {
                (Action::Reinstate, false) if self.has_acted => Ending::Done,
                (Action::Reinstate, false) => Ending::NothingToUndo,
                (Action::Revoke, false) => Ending::Failed(
                    "the key isn't suspended at the gateway, and only a suspended key is revoked".to_owned(),
                ),
                (Action::Suspend, false) if self.has_acted => Ending::NotKept,
                _ => return self.act(key),
            },
        };
        ProcedureStep::End(ending)
    }

    /// Acts on a key that is suspended, or is to be.
    fn act(&mut self, key: &SeenKey) -> ProcedureStep {
        if let Err(why) = self.proof.check(key.raw.as_ref(), self.action) {
            return ProcedureStep::End(Ending::Failed(why));
        }
        let has_acted = std::mem::replace(&mut self.has_acted, true);
        match (self.action.action, key.is_suspended) {
            (Action::Suspend, true) => ProcedureStep::End(Ending::Done),
            (Action::Suspend, false) => ProcedureStep::Suspend,
            _ if has_acted => ProcedureStep::End(Ending::NotKept),
            (Action::Reinstate, _) => ProcedureStep::LetIn,
            (Action::Revoke, _) => ProcedureStep::Delete,
        }
    }
}
