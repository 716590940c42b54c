//! Defines the owner of a key in a window.

use serde::{Deserialize, Serialize};

use super::NameId;

/// The subscription, customer and plan that a key belongs to in a window. An unknown field is [`NameId::NONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The subscription in force at the window's start.
    pub subscription: NameId,
    pub customer: NameId,
    pub plan: NameId,
}
