//! The gateways on probation, whose actions wait for a person until one was seen to work.
//!
//! It ends for a gateway in one of two ways, by actions that a person approved since it began:
//! * one was confirmed: calls with its key were refused since;
//! * three were done, and of none of them was a call answered for a day. So it ends where logs never show refused calls,
//!   too.
//!
//! If an action of the gateway fails, what was approved before doesn't count any more.
//!
//! It begins with a gateway that acts for the first time, and again with other settings of those that decide which keys
//! are refused and where. Until then nobody has seen that the right keys are. A policy that is wrong about them asks a
//! person, and suspends none.
//!
//! Limits: the actions that a person approved since it began and that aren't decided, at most two a key that is denied.

use std::collections::{BTreeMap, BTreeSet};

use keytide_dataflow::ActionId;
use serde::{Deserialize, Serialize};

/// The actions that end a probation if no call is seen, neither refused nor answered.
const UNCONTRADICTED: u32 = 3;

/// The gateways that act, each with how far its probation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probations(BTreeMap<String, Probation>);

/// How far the probation of a gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Probation {
    /// The fingerprint of the settings that are tried.
    settings: String,
    /// Actions that a person approved, of which it isn't known yet if they work.
    approved: BTreeSet<ActionId>,
    /// The number of those that were done and that no call contradicted.
    uncontradicted: u32,
    is_over: bool,
}

impl Probations {
    /// Begins a probation for each gateway of which the settings aren't those that it has. Others are forgotten.
    pub(super) fn begin<'a>(&mut self, gateways: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut before = std::mem::take(&mut self.0);
        for (gateway, settings) in gateways {
            let known = before.remove(gateway).filter(|known| known.settings == settings);
            let probation = known.unwrap_or_else(|| Probation {
                settings: settings.to_owned(),
                approved: BTreeSet::new(),
                uncontradicted: 0,
                is_over: false,
            });
            self.0.insert(gateway.to_owned(), probation);
        }
    }

    /// Returns the names of the gateways that are on probation.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, probation)| !probation.is_over).map(|(name, _)| name.as_str())
    }

    /// Returns whether a gateway is on probation.
    pub(super) fn holds(&self, gateway: &str) -> bool {
        self.0.get(gateway).is_some_and(|probation| !probation.is_over)
    }

    fn open(&mut self, gateway: &str) -> Option<&mut Probation> {
        self.0.get_mut(gateway).filter(|probation| !probation.is_over)
    }

    /// Notes that a person approved an action.
    pub(super) fn approved(&mut self, gateway: &str, action: ActionId) {
        if let Some(probation) = self.open(gateway) {
            probation.approved.insert(action);
        }
    }

    /// Notes that calls confirmed an action. Returns whether that ends the probation.
    pub(super) fn confirmed(&mut self, gateway: &str, action: ActionId) -> bool {
        let Some(probation) = self.open(gateway) else { return false };
        let ends = probation.approved.contains(&action);
        if ends {
            probation.end();
        }
        ends
    }

    /// Notes that for a day no call contradicted an action that is done. Returns whether that ends the probation.
    pub(super) fn uncontradicted(&mut self, gateway: &str, action: ActionId) -> bool {
        let Some(probation) = self.open(gateway) else { return false };
        if probation.approved.remove(&action) {
            probation.uncontradicted += 1;
        }
        let ends = probation.uncontradicted >= UNCONTRADICTED;
        if ends {
            probation.end();
        }
        ends
    }

    /// Notes that an action failed: what was approved before doesn't count any more.
    pub(super) fn failed(&mut self, gateway: &str) {
        if let Some(probation) = self.open(gateway) {
            probation.approved.clear();
            probation.uncontradicted = 0;
        }
    }

    /// Notes that an action was withdrawn or lifted: it says nothing of whether the right keys are refused.
    pub(super) fn lifted(&mut self, gateway: &str, action: ActionId) {
        if let Some(probation) = self.open(gateway) {
            probation.approved.remove(&action);
        }
    }
}

impl Probation {
    fn end(&mut self) {
        self.is_over = true;
        self.approved = BTreeSet::new();
    }
}
